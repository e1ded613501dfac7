"""From measurements to tables.

Rows as in Tables II and III and Fig. 3 of "Learning Source Disentanglement in Neural Audio Codec", arXiv:2409.11228.

Legend: N domains, K codebooks, V entries.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ... import __version__
from ..codec import Codec
from .paper import PaperRow, paper_rows
from .run import Measured, Setup
from .systems import Observations
from .types import Measurement

METRICS = ("si_sdr", "si_sdri", "visqol_speech", "visqol_audio", "mel", "stft")
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
    quantizer), `whole` (a single domain's audio through compress and decode)."""
    system: str
    """A model's name, `mixture` (unprocessed), or a peer."""
    stem: str
    through: str | None
    """cross: the domain whose quantizer was used."""
    bitrate: float | None
    """Mean of the payload, or for peers of what was written, in kbit/s."""
    metrics: dict[str, Summary]
    """`si_sdr` and `si_sdri` in dB, `visqol_speech` (16 kHz, exponential) from 1 to 5, `visqol_audio` (48 kHz) from 1
    to 4.73, `mel` and `stft` distance."""


@dataclass(frozen=True)
class ActivityScore:
    """How well the segments in which a domain is heard were found."""

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
    """Of each level; as large as the codebook if all entries are taken equally often."""
    unused: tuple[int, ...]
    """Entries of each level that were never taken."""


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

    model: str
    weights_sha256: str
    """Of the model."""
    effort: int
    """Steps of analysis by synthesis of the model's encoding; masked separation and cross are without."""
    bitrate: float
    """Of each domain that is present, in kbit/s; masked separation is at the model's full rate."""
    views: int
    """How many views of the mixture masked separation takes the mean mask of."""
    version: str
    """Of the program."""
    data_root: str
    split: str
    protocol: str
    visqol: str
    """Modes that were measured: `off`, `speech`, `audio` or `both`."""
    num_clips: int
    """How many were measured."""
    seconds: float
    rows: tuple[Row, ...]
    activity: tuple[ActivityScore, ...]
    """Of the mixtures and of the single stems, a row for each domain."""
    codebooks: tuple[CodebookUse, ...]
    file_bitrate: float | None
    """Of the `.sdc` files of the mixtures as `sdc compress` writes them, everything included, in kbit/s."""
    cost: tuple[Cost, ...]
    """Of the model, and of a DAC of the paper's size beside it."""
    paper: tuple[PaperRow, ...]
    """The paper's own numbers for this split of DnR: for reference, measured by its authors."""
    failures: tuple[str, ...]
    """Clips that were skipped, with the reason."""
    notes: tuple[str, ...]


def summarize(
    measured: Measured,
    setup: Setup,
    data_root: Path,
    split: str,
    *,
    cost: Sequence[Cost],
    failures: Sequence[str],
    notes: Sequence[str],
) -> EvalResult:
    """The tables of an evaluation."""
    seen, codec = measured.seen, setup.codec
    levels = codec.codebooks_for(setup.bitrate)
    seconds = seen.audio_seconds
    return EvalResult(
        model=codec.name,
        weights_sha256=codec.weights_sha256.hex(),
        effort=codec.effort,
        bitrate=levels * codec.model.codebook_bitrate,
        views=setup.views,
        version=__version__,
        data_root=str(data_root),
        split=split,
        protocol=setup.protocol,
        visqol=setup.visqol,
        num_clips=len({row.clip for row in measured.measurements}),
        seconds=seconds,
        rows=_rows(measured.measurements, ("mix", *codec.domains)),
        activity=_activity(seen),
        codebooks=_codebooks(seen, codec, levels),
        file_bitrate=seen.file_bytes * 8 / 1000 / seconds if seconds else None,
        cost=tuple(cost),
        paper=tuple(row for row in paper_rows() if row.split == split),
        failures=(*failures, *measured.failures),
        notes=tuple(notes),
    )


def _rows(measurements: Sequence[Measurement], stems: Sequence[str]) -> tuple[Row, ...]:
    """In the order of stems, and for each in the order of systems, the model's first."""
    groups: dict[tuple[str, str, str, str | None], list[Measurement]] = {}
    for measurement in measurements:
        key = (measurement.task, measurement.system, measurement.stem, measurement.through)
        groups.setdefault(key, []).append(measurement)
    rows = []
    for (task, system, stem, through), group in sorted(groups.items(), key=lambda item: stems.index(item[0][2])):
        rates = [measurement.bitrate for measurement in group if measurement.bitrate is not None]
        rows.append(
            Row(
                task=task,
                system=system,
                stem=stem,
                through=through,
                bitrate=statistics.fmean(rates) if rates else None,
                metrics={
                    metric: _summary(metric, group)
                    for metric in METRICS
                    if any(metric in measurement.values or metric in measurement.reasons for measurement in group)
                },
            )
        )
    return tuple(rows)


def _summary(metric: str, group: Sequence[Measurement]) -> Summary:
    values = [measurement.values[metric] for measurement in group if metric in measurement.values]
    reasons = Counter(measurement.reasons[metric] for measurement in group if metric in measurement.reasons)
    return Summary(
        mean=statistics.fmean(values) if values else None,
        std=statistics.pstdev(values) if len(values) > 1 else None,
        num_clips=len(values),
        reason=reasons.most_common(1)[0][0] if reasons else None,
    )


def _activity(seen: Observations) -> tuple[ActivityScore, ...]:
    rows = []
    for key, (rejected, false, missed, right) in seen.activity.items():
        signal, domain = key.split(" ", 1)
        rows.append(
            ActivityScore(
                signal=signal,
                domain=domain,
                precision=right / (right + false) if right + false else None,
                recall=right / (right + missed) if right + missed else None,
                num_segments=rejected + false + missed + right,
            )
        )
    return tuple(sorted(rows, key=lambda row: row.signal))


def _codebooks(seen: Observations, codec: Codec, num_codebooks: int) -> tuple[CodebookUse, ...]:
    rows = []
    for domain, levels in zip(codec.domains, seen.usage[:, :num_codebooks], strict=True):
        share = levels / np.maximum(levels.sum(-1, keepdims=True), 1)
        entropy = -(share * np.log(np.maximum(share, 1e-300))).sum(-1)
        rows.append(
            CodebookUse(
                domain=domain,
                codebook_size=levels.shape[-1],
                perplexity=tuple(np.exp(entropy).tolist()),
                unused=tuple((levels == 0).sum(-1).tolist()),
            )
        )
    return tuple(rows)
