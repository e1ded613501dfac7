"""The tables that the terminal and the report show, from the result of an evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..coded import SPEECH
from .measure import ENHANCEMENTS
from .noisy import BACKGROUND, CLEAN, NOISY, REVERBERANT
from .paper import PaperRow
from .score import METRICS, EvalResult, Row, Summary, nearest_to_0
from .voices import METRICS as VOICE_METRICS

TITLES = {
    "resynthesis": "Resynthesis: through encoder, quantizer and decoder",
    "separation": "Separation straight from the decoder",
    "masked separation": "Separation by masks on the mixture, or by a network made for it",
    "whole": "Audio of a single domain through compress and decode",
    "resynthesis at 32 kHz": "Resynthesis, compared at 32 kHz",
    "resynthesis at 16 kHz": "Resynthesis, resampled to 16 kHz and compared",
    "extension": "Extension from 16 to 32 kHz",
}

WAYS = {"enhancement with silence": ", with silence", "masked enhancement": ", masked"}
"""What follows the name of a system, where tasks share a table."""

VISQOL = ("visqol_speech", "visqol_audio")

PAPERS = {
    "dnr": "Rows marked as the paper's were measured by its authors on DnR itself, with other material and code.",
    "extension": "Rows marked as the paper's are of arXiv:2510.03735: measured by its authors on other music, with "
    "scales of distances that it does not state. Compare them with one another, not with ours.",
}
"""What is said of a paper's rows, by task; `dnr` where there is nothing else."""

PAPER = (
    "Rows marked as the paper's are of arXiv:2509.09201: measured by its authors on LibriSpeech with noise of DNS, at "
    "ratios from −5 to 20 dB, by an SDR and a mel distance that it does not define."
)

SAME_BITRATE = 1.25
"""Systems whose bitrates are within this factor of each other compete for the best score."""


@dataclass(frozen=True)
class Table:
    """A table as it is shown."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """What follows ` ± ` steps back."""
    names: int = 1
    """Columns of text, at the left; all others are numbers."""
    note: str = ""
    """A sentence below it."""
    best: frozenset[tuple[int, int]] = frozenset()
    """Row and column of those that are the best of those that they compete with."""
    paper: frozenset[int] = frozenset()
    """Rows that hold the paper's figures, not ours."""


def tables(result: EvalResult) -> list[Table]:
    """Everything that `sdc eval` shows, tables without rows left out."""
    found = [_scores(result, task, title) for task, title in TITLES.items()]
    found += _speech(result)
    found += [_cross(result), _activity(result), _codebooks(result), _cost(result)]
    return [table for table in found if table.rows]


def about(result: EvalResult) -> str:
    """What was evaluated, and how, in a line."""
    clips = "1 clip" if result.num_clips == 1 else f"{result.num_clips} clips"
    envelope = "no envelope" if result.envelope is None else f"{'fine ' * result.fine}envelope {result.envelope:g}"
    split = "" if result.split is None else f", split {result.split}"
    views = f"views {result.views}, " if result.task in ("dnr", "decodec") else ""
    kind = f"protocol {result.protocol}" if result.task == "dnr" else f"task {result.task}"
    return (
        f"{result.model} on {clips} of {result.data_root}{split}, "
        f"{result.seconds / 60:.1f} min of audio, {kind}, effort {result.effort}, "
        f"{views}{result.bitrate:g} kbit/s per domain, {envelope}{'' if result.treble else ', no treble'}"
        f"{'' if result.texture else ', no texture'}"
    )


@dataclass(frozen=True)
class _Group:
    """Rows that are compared with one another."""

    label: str
    rows: Sequence[Row]
    papers: Sequence[PaperRow] = ()
    marked: bool = True
    """Whether the best of them are marked."""


def _scores(result: EvalResult, task: str, title: str) -> Table:
    ours = [row for row in result.rows if row.task == task]
    theirs = [paper for paper in result.paper if paper.task == task and paper.table != "III"]
    groups = [
        _Group(stem, [row for row in ours if row.stem == stem], [paper for paper in theirs if paper.stem == stem])
        for stem in dict.fromkeys(row.stem for row in ours)
    ]
    counts = any(row.metrics["si_sdr"].num_clips != result.num_clips for row in ours)
    remarks = []
    if any(group.papers for group in groups):
        remarks.append(PAPERS.get(task, PAPERS["dnr"]))
    if task == "masked separation" and result.views > 1:
        remarks.append(f"Masks are the mean over {result.views} views, those of the paper of one (--views 1).")
    return _compared(title, groups, remarks=remarks, counts=counts)


def _compared(
    title: str,
    groups: Sequence[_Group],
    *,
    head: str = "stem",
    metrics: Sequence[str] = tuple(METRICS),
    rates: bool = True,
    counts: bool = False,
    remarks: Sequence[str] = (),
) -> Table:
    """A table of groups of rows: those of `metrics` that there are, and bitrates and numbers of clips where wanted."""
    ours = [row for group in groups for row in group.rows]
    shown = [metric for metric in metrics if any(metric in row.metrics for row in ours)]
    rates = rates and any(row.bitrate is not None for row in ours)
    heads = [head, "system", *(METRICS[metric].head for metric in shown), *["kbit/s"] * rates, *["clips"] * counts]
    rows: list[tuple[str, ...]] = []
    best, papers = set(), set()
    for group in groups:
        for row in group.rows:
            if group.marked:
                wins = (_wins(row, group.rows, metric) for metric in shown)
                best |= {(len(rows), 2 + column) for column, won in enumerate(wins) if won}
            cells = [_spread(*_mean_and_std(row.metrics.get(metric))) for metric in shown]
            cells += [_text(row.bitrate)] * rates
            cells += [str(row.metrics["si_sdr"].num_clips)] if counts else []
            rows.append((group.label, row.system + WAYS.get(row.task, ""), *cells))
        for paper in group.papers:
            papers.add(len(rows))
            cells = [_spread(*_of_paper(paper, metric)) for metric in shown]
            rows.append((group.label, paper.system, *cells, *[_text(paper.bitrate)] * rates, *["–"] * counts))
    notes = []
    if best:
        rivals = "systems of about the same bitrate" if rates else "all"
        directions = {"lower is better for": min, "0 is best for": nearest_to_0}
        heads_of = {
            said: [METRICS[metric].head.split(",")[0] for metric in shown if METRICS[metric].best is best]
            for said, best in directions.items()
        }
        which = "; ".join(f"{said} {', '.join(heads)}" for said, heads in heads_of.items() if heads)
        notes.append(f"Marked: the best of {rivals}{f'; {which}' if which else ''}.")
    missing = {
        f"{METRICS[metric].head}: {summary.reason.replace('_', ' ')}"
        for row in ours
        for metric, summary in row.metrics.items()
        if metric in shown and summary.reason is not None
    }
    if missing:
        notes.append(f"Without a value in some clips: {'; '.join(sorted(missing))}.")
    note = " ".join([*notes, *remarks])
    return Table(title, tuple(heads), tuple(rows), 2, note, best=frozenset(best), paper=frozenset(papers))


# --- speech and its background


def _speech(result: EvalResult) -> list[Table]:
    """Those of `--task decodec`."""
    dry = _enhancement(result, "Speech without its background", lambda condition: not condition.endswith(REVERBERANT))
    rooms = "Speech in simulated rooms, without its background"
    return [
        _reconstruction(result),
        _stems(result),
        dry,
        _enhancement(result, rooms, lambda condition: condition.endswith(REVERBERANT)),
        _exchange(result),
        _conversion(result),
        _features(result),
    ]


def _picked(result: EvalResult, task: str, stem: str, condition: str) -> list[Row]:
    return [row for row in result.rows if (row.task, row.stem, row.condition) == (task, stem, condition)]


def _papers(result: EvalResult, task: str, stem: str, condition: str) -> list[PaperRow]:
    return [row for row in result.paper if (row.task, row.stem, row.condition) == (task, stem, condition)]


def _reconstruction(result: EvalResult) -> Table:
    groups = [
        _Group(
            condition,
            _picked(result, "reconstruction", stem, condition),
            _papers(result, "reconstruction", stem, condition),
        )
        for condition, stem in ((CLEAN, SPEECH), (NOISY, "mix"))
    ]
    shown = ("si_sdr", "sdr", "mel", "stft")
    return _compared("Speech, clean and noisy, coded whole", groups, head="input", metrics=shown, remarks=[PAPER])


def _stems(result: EvalResult) -> Table:
    sources = {
        SPEECH: ("enhancement", SPEECH),
        BACKGROUND: ("enhancement", BACKGROUND),
        "sum": ("reconstruction", "mix"),
    }
    able = {row.system for row in _picked(result, "enhancement", BACKGROUND, NOISY)}
    groups = [
        _Group(
            label,
            [row for row in _picked(result, *source, NOISY) if row.system in able],
            _papers(result, "ablation", source[1], NOISY),
        )
        for label, source in sources.items()
    ]
    what = (
        "Of noisy speech: each stem decoded by itself, and both together, which is what is coded whole. The paper's "
        "rows are its ablation (SOP: projection onto orthogonal subspaces), by an SDR that it does not define."
    )
    metrics = ("si_sdr", "sdr")
    shown = [group for group in groups if group.rows]
    return _compared("Stems straight from the decoder", shown, metrics=metrics, rates=False, remarks=[what])


def _enhancement(result: EvalResult, title: str, wanted: Callable[[str], bool]) -> Table:
    found = [row for row in result.rows if row.task in ENHANCEMENTS and row.stem == SPEECH]
    conditions = dict.fromkeys(row.condition for row in found if row.condition is not None and wanted(row.condition))
    groups = [
        _Group(
            condition.removesuffix(REVERBERANT),
            [row for row in found if row.condition == condition],
            _papers(result, "enhancement", SPEECH, condition),
            # Clean speech is itself its reference.
            marked=condition != CLEAN,
        )
        for condition in conditions
    ]
    shown = ("si_sdr", "sdr", "pesq", "estoi", "dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak")
    remarks = ["With silence: beside the codes that silence has, in the place of the background's."]
    if any(row.task == "masked enhancement" for row in found) and result.views > 1:
        remarks.append(f"Masks are the mean over {result.views} views.")
    if any(group.papers for group in groups):
        remarks.append(PAPER)
    return _compared(title, groups, head="input", metrics=(*VISQOL, *shown), rates=False, remarks=remarks)


def _by_condition(result: EvalResult, task: str) -> list[_Group]:
    found = [row for row in result.rows if row.task == task]
    conditions = dict.fromkeys(row.condition for row in found if row.condition is not None)
    return [_Group(condition, [row for row in found if row.condition == condition]) for condition in conditions]


def _exchange(result: EvalResult) -> Table:
    groups = []
    for group in _by_condition(result, "exchange"):
        # What is known of the speech and of its background is one line.
        both: dict[str, Row] = {}
        for row in group.rows:
            known = both.get(row.system, row)
            both[row.system] = dataclasses.replace(row, metrics={**known.metrics, **row.metrics})
        groups.append(dataclasses.replace(group, rows=list(both.values())))
    what = (
        "SDR kept: of the speech against what it decoded to before the exchange; SDR: against the clean speech. Level: "
        "that of the new background less that of the old one, as it decoded, and as it was recorded, in dB of loudness."
    )
    shown = ("kept", "sdr", "level", "level_recorded")
    return _compared("Background exchanged", groups, head="input", metrics=shown, rates=False, remarks=[what])


def _conversion(result: EvalResult) -> Table:
    groups = _by_condition(result, "conversion")
    what = (
        "Similarity of voices: of what came out to the wanted voice; to the source; and before, of the source to the "
        "wanted voice. Words and pitch are compared with those of the clean speech."
    )
    shown = [metric for metrics in VOICE_METRICS.values() for metric in metrics]
    return _compared("Voice converted", groups, head="input", metrics=shown, rates=False, remarks=[what])


def _features(result: EvalResult) -> Table:
    groups = _by_condition(result, "features")
    what = (
        "Of clips that probes did not learn from. First codebook: of speech, its codes; latents: what all codes of "
        "speech stand for; mel: a spectrogram of the noisy speech."
    )
    title = "Phonemes told from features by a small network"
    return _compared(title, groups, head="input", metrics=("phoneme_errors",), rates=False, remarks=[what])


def _wins(row: Row, rows: Sequence[Row], metric: str) -> bool:
    """Whether a row is the best of those of about its bitrate."""

    def competes(other: Row) -> bool:
        if other.bitrate is None or row.bitrate is None:
            return other.bitrate is row.bitrate
        return max(other.bitrate, row.bitrate) <= SAME_BITRATE * min(other.bitrate, row.bitrate)

    means = [_mean_and_std(other.metrics.get(metric))[0] for other in rows if competes(other)]
    values = [mean for mean in means if mean is not None]
    return len(values) > 1 and _mean_and_std(row.metrics.get(metric))[0] == METRICS[metric].best(values)


def _mean_and_std(summary: Summary | None) -> tuple[float | None, float | None]:
    return (None, None) if summary is None else (summary.mean, summary.std)


def _of_paper(paper: PaperRow, metric: str) -> tuple[float | None, float | None]:
    values = {
        "si_sdr": (paper.si_sdr, paper.si_sdr_std),
        "mel": (paper.mel, None),
        "stft": (paper.stft, None),
        "si_sdri": (paper.si_sdri, paper.si_sdri_std),
        "visqol_speech": (paper.visqol, paper.visqol_std),
        "sdr": (paper.sdr, None),
        "dnsmos_ovrl": (paper.dnsmos_ovrl, None),
        "dnsmos_sig": (paper.dnsmos_sig, None),
        "dnsmos_bak": (paper.dnsmos_bak, None),
    }
    return values.get(metric, (None, None))


def _cross(result: EvalResult) -> Table:
    means = {(row.stem, row.through): row.metrics["si_sdr"].mean for row in result.rows if row.task == "cross"}
    domains = tuple(dict.fromkeys(stem for stem, _ in means))
    best = set()
    for index, stem in enumerate(domains):
        scores = {1 + column: means.get((stem, through)) for column, through in enumerate(domains)}
        highest = max((score for score in scores.values() if score is not None), default=None)
        best |= {(index, column) for column, score in scores.items() if score is not None and score == highest}
    return Table(
        "Each stem through each quantizer, SI-SDR in dB",
        ("stem", *(f"through {domain}" for domain in domains)),
        tuple((stem, *(_text(means.get((stem, through))) for through in domains)) for stem in domains),
        note="As Fig. 3 of the paper.",
        best=frozenset(best),
    )


def _activity(result: EvalResult) -> Table:
    return Table(
        "Domains found to be active, in segments of 2 s",
        ("signal", "domain", "precision", "recall", "segments"),
        tuple(
            (row.signal, row.domain, _text(row.precision), _text(row.recall), str(row.num_segments))
            for row in result.activity
        ),
        names=2,
    )


def _codebooks(result: EvalResult) -> Table:
    rows = []
    for use in result.codebooks:
        unused = sum(use.unused) / (len(use.unused) * use.codebook_size)
        rows.append((use.domain, " ".join(f"{value:.0f}" for value in use.perplexity), f"{unused:.0%}"))
    return Table("Codebook use by the mixtures", ("domain", "perplexity of codebooks", "never taken"), tuple(rows))


def _cost(result: EvalResult) -> Table:
    note = ""
    if result.file_bitrate is not None:
        note = f"The .sdc files of the mixtures take {result.file_bitrate:.2f} kbit/s, headers included."
    return Table(
        "What it takes: times real time",
        ("system", "device", "encode", "decode"),
        tuple((cost.system, cost.device, f"{cost.encode:.1f}", f"{cost.decode:.1f}") for cost in result.cost),
        2,
        note,
    )


def _spread(mean: float | None, deviation: float | None) -> str:
    return _text(mean) if mean is None or deviation is None else f"{_text(mean)} ± {_text(deviation)}"


def _text(value: float | None) -> str:
    # No negative zero.
    return "–" if value is None else f"{round(value, 2) + 0.0:.2f}"
