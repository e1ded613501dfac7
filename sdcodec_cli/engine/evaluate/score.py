"""From measurements to tables.

Rows as in Tables II and III and Fig. 3 of "Learning Source Disentanglement in Neural Audio Codec", arXiv:2409.11228.

Legend: K codebooks, V entries.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from ... import __version__
from ..codec import Codec
from ..metrics import WIDE_EDGES, band_edges
from .measure import COUNTS, Measured, Measurement, Task
from .noisy import BACKGROUND, overall
from .paper import PaperRow, decodec_rows, extension_rows, paper_rows
from .settings import WIDE_TASKS, Settings


def nearest_to_0(values: Iterable[float]) -> float:
    """The best bias."""
    return min(values, key=abs)


class Metric(NamedTuple):
    """How a metric is shown."""

    head: str
    """Of a column."""
    title: str
    said: str
    """Unit and direction."""

    best: Callable[[Iterable[float]], float] = max
    """Of several values."""


METRICS = {
    "si_sdr": Metric("SI-SDR, dB", "SI-SDR", "in dB, higher is better"),
    "si_sdri": Metric("SI-SDRi, dB", "SI-SDR improvement", "in dB, higher is better"),
    "sdr": Metric("SDR, dB", "SDR", "in dB, higher is better"),
    "kept": Metric("SDR kept, dB", "SDR of the speech against what it decoded to before", "in dB, higher is better"),
    "level": Metric("level, dB", "Level of the new background against the old one", "in dB, best at 0", nearest_to_0),
    "level_recorded": Metric(
        "level to recorded, dB",
        "Level of the new background against the recorded one",
        "in dB, best at 0",
        nearest_to_0,
    ),
    "visqol_speech": Metric("ViSQOL speech", "ViSQOL, speech mode", "in MOS, higher is better"),
    "visqol_audio": Metric("ViSQOL audio", "ViSQOL, audio mode", "in MOS, higher is better"),
    "pesq": Metric("PESQ", "PESQ, wide band", "in MOS, higher is better"),
    "estoi": Metric("ESTOI", "ESTOI", "up to 1, higher is better"),
    "dnsmos_sig": Metric("DNSMOS SIG", "DNSMOS of the speech", "in MOS, higher is better"),
    "dnsmos_bak": Metric("DNSMOS BAK", "DNSMOS of the background", "in MOS, higher is better"),
    "dnsmos_ovrl": Metric("DNSMOS OVRL", "DNSMOS overall", "in MOS, higher is better"),
    "similarity": Metric("similarity", "Similarity of the voice to the wanted one", "up to 1, higher is better"),
    "similarity_source": Metric(
        "to the source", "Similarity of the voice to the source", "up to 1, lower is better", min
    ),
    "similarity_before": Metric(
        "before", "Similarity of the source to the wanted voice", "up to 1, of the source alone"
    ),
    "word_errors": Metric("word errors", "Word errors", "per word, lower is better", min),
    "pitch_correlation": Metric("pitch", "Correlation of pitch with the source", "up to 1, higher is better"),
    "voicing_errors": Metric("voicing errors", "Voicing errors", "share of frames, lower is better", min),
    "phoneme_errors": Metric("phoneme errors", "Phoneme errors", "per phoneme, lower is better", min),
    "mel": Metric("mel", "Mel distance", "lower is better", min),
    "stft": Metric("STFT", "STFT distance", "lower is better", min),
    "wave": Metric("wave, %", "Waveform distance", "in % of full scale, lower is better", min),
    "sdr_low": Metric("SDR 0–8 kHz, dB", "SDR from 0 to 8 kHz", "in dB, higher is better"),
    "sdr_near": Metric("SDR 7–9 kHz, dB", "SDR from 7 to 9 kHz", "in dB, higher is better"),
    "sdr_high": Metric("SDR 8–16 kHz, dB", "SDR from 8 to 16 kHz", "in dB, higher is better"),
    "mel_high": Metric("mel >8 kHz", "Mel distance above 8 kHz", "lower is better", min),
    "bias_high": Metric("bias >8 kHz, dB", "Bias of band levels above 8 kHz", "in dB, best at 0", nearest_to_0),
    "spread_high": Metric("spread >8 kHz, dB", "Spread of band levels above 8 kHz", "in dB, lower is better", min),
    "band_bias": Metric("bias >1 kHz, dB", "Bias of band levels above 1 kHz", "in dB, best at 0", nearest_to_0),
    "band_spread": Metric("spread >1 kHz, dB", "Spread of band levels above 1 kHz", "in dB, lower is better", min),
}
"""In the order of the tables."""


@dataclass(frozen=True)
class Summary:
    """A metric over clips."""

    mean: float | None
    """None where no clip has a value; `reason` says why."""
    std: float | None
    """Of the clips there are (division by their number); None for fewer than two."""
    num_clips: int
    """How many the mean is of."""
    reason: str | None
    """Why clips are missing, if some are: the commonest reason."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    task: str
    """`resynthesis`, `separation` (straight from the decoder), `masked separation`, `cross` (through another domain's
    quantizer), `whole` (a single domain's audio through compress and decode); of `bands` `resynthesis at 32 kHz` and
    `resynthesis at 16 kHz`, of `extend` `extension`; of `decodec` `reconstruction` (coded whole), `enhancement`,
    `enhancement with silence`, `masked enhancement`, `exchange` (of the background), `conversion` (of the voice) and
    `features` (of noisy speech)."""
    system: str
    """A model's name, `mixture` (unprocessed), or another such as `opus 18`."""
    stem: str
    through: str | None
    """cross: the domain whose quantizer was used."""
    condition: str | None
    """decodec: what the speech was heard in: `clean`, `5 dB` or `5 dB, reverberant`; `noisy` and `noisy, reverberant`
    are those of all ratios together."""
    bitrate: float | None
    """Mean in kbit/s, of what was written: for models of ours the codes in it, for Opus the file."""
    metrics: dict[str, Summary]
    """`si_sdr` and `si_sdri` in dB, `visqol_speech` (16 kHz, exponential) from 1 to 5, `visqol_audio` (48 kHz) from 1
    to 4.73, `mel` and `stft` distance, `band_bias` and `band_spread` in dB, means over the bands above 1 kHz; of speech
    `pesq` from 1 to 4.64, `estoi` up to 1, `dnsmos_sig`, `dnsmos_bak` and `dnsmos_ovrl` from 1 to 5. Of `bands` and
    `extend` also `wave`, the mean distance of samples in % of full scale, and at 32 kHz `sdr_low`, `sdr_near` and
    `sdr_high` in dB (of 0 to 8, 7 to 9, 8 to 16 kHz), and `mel_high`, `bias_high` and `spread_high` of what is above
    8 kHz. Of `decodec` also `sdr` in dB, which a gain lowers; of `exchange` `kept`, the same against what the speech
    decoded to before, and `level` and `level_recorded`, the level of the new background in dB less that of the one that
    it replaces; of `conversion` `similarity`, `similarity_source` and
    `similarity_before`, up to 1, `word_errors` per word, `pitch_correlation` up to 1 and `voicing_errors`, a share of
    frames; of `features` `phoneme_errors` per phoneme."""
    band_bias: tuple[float, ...] | None
    """How much louder the estimate is in each band, in dB: mean over frames and clips; None for cross and whole."""
    band_spread: tuple[float, ...] | None
    """Standard deviation of that over the frames of a clip, in dB: mean over clips."""


@dataclass(frozen=True)
class ActivityScore:
    """How well the segments in which a domain is active were found."""

    signal: str
    """`mix`, or `stem`: every stem by itself."""
    domain: str
    precision: float | None
    """Share of the segments found that have the domain; None if none was found."""
    recall: float | None
    """Share of the segments with the domain that were found; None if there are none."""
    num_segments: int
    """How many were looked at."""


@dataclass(frozen=True)
class CodebookUse:
    """How much of a domain's codebooks is used by the mixtures."""

    domain: str
    codebook_size: int
    perplexity: tuple[float, ...]
    """Of each codebook; as large as the codebook if all entries are taken equally often."""
    unused: tuple[int, ...]
    """Entries of each codebook that were never taken."""


@dataclass(frozen=True)
class Cost:
    """What coding takes on this machine, at the effort of the evaluation."""

    system: str
    device: str
    encode: float
    """Times real time."""
    decode: float
    """Times real time, of the mix."""


@dataclass(frozen=True)
class EvalResult:
    """What an evaluation came to."""

    task: str
    """`dnr`, `bands`, `extend` or `decodec`."""
    model: str
    weights_sha256: str
    """Of the model."""
    effort: int
    """Steps of analysis by synthesis of the model's encoding; masked separation and cross are without."""
    bitrate: float
    """Of the codes of each active domain, in kbit/s; masked separation is at the model's full rate."""
    envelope: float | None
    """Share of the envelope that was applied; None where there was none at all."""
    fine: bool
    """Whether it was a fine one."""
    treble: bool
    """Whether what lies above the model's band was kept, of audio at a higher rate."""
    texture: bool
    """Whether the fine structure was made up where codes say levels only."""
    views: int
    """How many views of the mixture masked separation takes the mean mask of."""
    version: str
    """Of the program."""
    data_root: str
    split: str | None
    """`train`, `val` (in a manifest `valid`) or `test`; None where the data have none."""
    protocol: str
    visqol: str
    """Modes that were measured: `off`, `speech`, `audio` or `both`."""
    speech: tuple[str, ...]
    """Who was asked about speech: `pesq`, `estoi`, `dnsmos`."""
    voices: tuple[str, ...]
    """Who was asked about converted voices: `similarity`, `words`, `pitch`."""
    band_edges: tuple[float, ...]
    """Between which the bands of `band_bias` and `band_spread` lie, in Hz, one more than there are bands; of a row at
    16 kHz those up to 8 kHz."""
    num_clips: int
    """How many were measured."""
    seconds: float
    rows: tuple[Row, ...]
    activity: tuple[ActivityScore, ...]
    """Of the mixtures and of the single stems, a row for each domain; as the next three only in `dnr`."""
    codebooks: tuple[CodebookUse, ...]
    file_bitrate: float | None
    """Of the `.sdc` files of the mixtures as `sdc compress` writes them, everything included, in kbit/s."""
    cost: tuple[Cost, ...]
    """Of the model, and of a DAC of the paper's size beside it."""
    paper: tuple[PaperRow, ...]
    """The papers' own numbers for this split of DnR, for extension, or of DeCodec: for reference, measured by their
    authors."""
    failures: tuple[str, ...]
    """Clips that were skipped, with the reason."""
    notes: tuple[str, ...]


def summarize(
    measured: Measured,
    codec: Codec,
    settings: Settings,
    *,
    split: str | None,
    cost: Sequence[Cost],
    failures: Sequence[str],
    notes: Sequence[str],
) -> EvalResult:
    """The tables of an evaluation."""
    bits = codec.allocate(settings.codebooks, envelope=settings.envelope is not None, fine=settings.fine)
    sums: Counter[tuple[str, ...]] = Counter()
    for row in measured.table:
        if row.task in ("file", "activity"):
            sums[row.task, row.through or "", row.stem, row.metric] += row.value or 0  # type: ignore[assignment]
    seconds, size = sums["file", "", "mix", "seconds"], sums["file", "", "mix", "bytes"]
    plain = settings.task == "dnr"
    papers: dict[str, Sequence[PaperRow]] = {
        "dnr": [row for row in paper_rows() if row.split == split],
        "extend": extension_rows(),
        "decodec": decodec_rows(),
    }
    return EvalResult(
        task=settings.task,
        model=codec.name,
        weights_sha256=codec.weights_sha256.hex(),
        effort=codec.effort,
        bitrate=bits.num_codebooks * codec.model.codebook_bitrate,
        envelope=settings.envelope,
        fine=bits.fine,
        treble=settings.treble,
        texture=settings.texture,
        views=settings.views,
        version=__version__,
        data_root=str(settings.data_root),
        split=split,
        protocol=settings.protocol,
        visqol=settings.visqol,
        speech=settings.speech or (),
        voices=settings.voices,
        band_edges=WIDE_EDGES if settings.task in WIDE_TASKS else band_edges(codec.sample_rate),
        num_clips=len({row.clip for row in measured.table}),
        seconds=seconds,
        rows=_rows(measured.table, tuple(dict.fromkeys(("mix", *codec.domains, BACKGROUND)))),
        activity=tuple(
            _activity(signal, domain, *(sums["activity", signal, domain, count] for count in COUNTS))
            for signal in ("mix", "stem")
            for domain in codec.domains
            if ("activity", signal, domain, COUNTS[0]) in sums
        ),
        codebooks=tuple(map(_codebook_use, codec.domains, measured.usage[:, : bits.num_codebooks])) if plain else (),
        file_bitrate=size * 8 / 1000 / seconds if size else None,
        cost=tuple(cost),
        paper=tuple(papers.get(settings.task, ())),
        failures=(*failures, *measured.failures),
        notes=(*notes, *_without_value(measured.table)),
    )


def _rows(table: Sequence[Measurement], stems: Sequence[str]) -> tuple[Row, ...]:
    """In the order of stems, and for each in the order of systems, the model's first."""
    groups: dict[tuple[str, str, str, str | None, str | None], dict[str, list[Measurement]]] = {}
    for entry in table:
        if entry.task in get_args(Task):
            together = None if entry.condition is None else overall(entry.condition)
            for condition in (together, entry.condition) if together else (entry.condition,):
                of = groups.setdefault((entry.task, entry.system, entry.stem, entry.through, condition), {})
                of.setdefault(entry.metric, []).append(entry)
    return tuple(
        Row(
            *what,
            bitrate=_summary(of["bitrate"]).mean if "bitrate" in of else None,
            metrics={metric: _summary(of[metric]) for metric in METRICS if metric in of},
            band_bias=_by_band(of.get("band_bias", of.get("bias_high", ()))),
            band_spread=_by_band(of.get("band_spread", of.get("spread_high", ()))),
        )
        for what, of in sorted(groups.items(), key=lambda group: stems.index(group[0][2]))
    )


def _summary(entries: Sequence[Measurement]) -> Summary:
    values = [entry.value for entry in entries if entry.value is not None]
    reasons = Counter(entry.reason for entry in entries if entry.reason is not None)
    return Summary(
        mean=statistics.fmean(values) if values else None,
        std=statistics.pstdev(values) if len(values) > 1 else None,
        num_clips=len(values),
        reason=reasons.most_common(1)[0][0] if reasons else None,
    )


def _by_band(entries: Sequence[Measurement]) -> tuple[float, ...] | None:
    bands = [entry.bands for entry in entries if entry.value is not None]
    return tuple(np.mean(bands, axis=0).tolist()) if bands else None


def _without_value(table: Sequence[Measurement]) -> list[str]:
    """A line for each judge of speech that did not rate everything: its means are of fewer clips than others."""
    notes = []
    for metric in ("pesq", "estoi", "dnsmos_ovrl", "similarity", "word_errors", "pitch_correlation"):
        entries = [entry for entry in table if entry.metric == metric]
        reasons = Counter(entry.reason.replace("_", " ") for entry in entries if entry.reason is not None)
        if reasons:
            why = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
            notes.append(f"{METRICS[metric].title}: no value for {reasons.total()} of {len(entries)} estimates: {why}")
    return notes


def _activity(signal: str, domain: str, rejected: int, false: int, missed: int, right: int) -> ActivityScore:
    return ActivityScore(
        signal=signal,
        domain=domain,
        precision=right / (right + false) if right + false else None,
        recall=right / (right + missed) if right + missed else None,
        num_segments=rejected + false + missed + right,
    )


def _codebook_use(domain: str, usage: NDArray[np.int64]) -> CodebookUse:
    share = usage / np.maximum(usage.sum(-1, keepdims=True), 1)
    entropy = -(share * np.log(np.maximum(share, 1e-300))).sum(-1)
    return CodebookUse(
        domain=domain,
        codebook_size=usage.shape[-1],
        perplexity=tuple(np.exp(entropy).tolist()),
        unused=tuple((usage == 0).sum(-1).tolist()),
    )
