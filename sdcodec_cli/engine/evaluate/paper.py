"""The numbers of "Learning Source Disentanglement in Neural Audio Codec", arXiv:2409.11228: Tables II and III.

They were measured by its authors on DnR v2, with their data, cut and code, and are here for reference only. Its
separations of SD-Codec are masks on the mixture; ViSQOL is in speech mode. The paper's improvement over the mixture
(SI-SDRi) and its deviations are there for Table II; Table III has SI-SDR alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .types import Task

Split = Literal["val", "test"]


@dataclass(frozen=True)
class PaperRow:
    """One cell of the paper's tables: a system on a stem."""

    table: Literal["II", "III"]
    """II: systems. III: variants of SD-Codec."""
    split: Split
    task: Task
    system: str
    stem: str
    bitrate: float | None
    """kbit/s of the codes; None where nothing is coded. The mixtures of SD-Codec take three times those of DAC."""
    si_sdr: float
    """Mean over clips, in dB."""
    si_sdr_std: float
    si_sdri: float | None = None
    """Mean over clips, in dB; separation of Table II only."""
    si_sdri_std: float | None = None
    visqol: float | None = None
    """Mean over clips; Table II only."""
    visqol_std: float | None = None


STEMS = ("mix", "speech", "music", "sfx")

# Mean and deviation of SI-SDR, then of ViSQOL, for each of STEMS.
_RESYNTHESIS: dict[tuple[Split, str], tuple[tuple[float, float, float, float], ...]] = {
    ("val", "DAC"): (
        (4.52, 2.21, 4.12, 0.19),
        (7.60, 2.58, 4.49, 0.12),
        (5.22, 4.03, 4.17, 0.21),
        (0.85, 6.02, 3.95, 0.34),
    ),
    ("val", "SD-Codec"): (
        (7.02, 2.83, 4.28, 0.17),
        (8.33, 3.67, 4.45, 0.18),
        (7.72, 4.91, 4.03, 0.30),
        (2.32, 6.73, 3.96, 0.37),
    ),
    ("test", "DAC"): (
        (4.57, 1.98, 4.13, 0.17),
        (7.63, 2.29, 4.49, 0.10),
        (5.20, 3.77, 4.17, 0.19),
        (1.25, 5.10, 3.98, 0.31),
    ),
    ("test", "SD-Codec"): (
        (6.98, 2.49, 4.29, 0.15),
        (8.28, 3.26, 4.44, 0.15),
        (7.65, 4.60, 4.03, 0.28),
        (2.54, 5.65, 3.98, 0.34),
    ),
}

# Mean and deviation of SI-SDR, SI-SDRi and ViSQOL, for each stem.
_SEPARATION: dict[tuple[Split, str], tuple[tuple[float, float, float, float, float, float], ...]] = {
    ("val", "TDANet"): (
        (11.95, 2.97, 9.75, 3.16, 3.10, 0.46),
        (1.94, 4.34, 8.74, 4.05, 2.63, 0.58),
        (0.88, 6.16, 8.41, 4.29, 2.33, 0.78),
    ),
    ("val", "SD-Codec"): (
        (11.26, 3.35, 9.07, 3.13, 3.41, 0.48),
        (1.73, 4.23, 8.53, 3.45, 2.84, 0.65),
        (0.91, 5.23, 8.45, 3.88, 2.44, 0.79),
    ),
    ("test", "TDANet"): (
        (11.86, 2.66, 9.91, 2.94, 3.21, 0.39),
        (2.12, 3.81, 8.83, 3.68, 2.74, 0.50),
        (1.87, 4.79, 8.62, 3.45, 2.49, 0.72),
    ),
    ("test", "SD-Codec"): (
        (11.31, 2.98, 9.36, 2.80, 3.49, 0.40),
        (1.85, 3.68, 8.57, 3.04, 2.96, 0.56),
        (1.77, 4.08, 8.52, 3.23, 2.64, 0.72),
    ),
}

# Mean and deviation of SI-SDR: resynthesis of each of STEMS, then masked separation of each stem.
_VARIANTS: dict[tuple[Split, str], tuple[tuple[float, float], ...]] = {
    ("val", "SD-Codec, 4 levels shared"): (
        *((7.19, 2.79), (8.65, 3.58), (7.74, 4.81), (2.44, 6.61)),
        *((11.18, 3.31), (1.60, 4.28), (0.66, 5.20)),
    ),
    ("val", "SD-Codec, 8 levels shared"): (
        *((7.14, 2.76), (8.60, 3.55), (7.78, 4.82), (2.47, 6.70)),
        *((11.13, 3.25), (1.67, 4.04), (0.67, 5.20)),
    ),
    ("val", "SD-Codec, separation-enhanced"): (
        *((7.21, 2.82), (7.95, 3.86), (6.84, 4.84), (1.02, 6.55)),
        *((11.78, 3.27), (2.33, 4.14), (1.44, 5.32)),
    ),
    ("val", "SD-Codec, from DAC"): (
        *((-5.20, 2.86), (-1.64, 3.69), (-3.43, 5.34), (-14.08, 11.61)),
        *((10.28, 3.15), (0.70, 4.27), (-0.12, 5.06)),
    ),
    ("test", "SD-Codec, 4 levels shared"): (
        *((7.15, 2.46), (8.60, 3.18), (7.67, 4.51), (2.68, 5.56)),
        *((11.21, 3.00), (1.71, 3.73), (1.52, 3.99)),
    ),
    ("test", "SD-Codec, 8 levels shared"): (
        *((7.11, 2.43), (8.57, 3.15), (7.70, 4.54), (2.69, 5.52)),
        *((11.18, 2.90), (1.79, 3.53), (1.54, 4.11)),
    ),
    ("test", "SD-Codec, separation-enhanced"): (
        *((7.17, 2.48), (7.91, 3.40), (6.77, 4.56), (1.29, 5.53)),
        *((11.83, 2.91), (2.46, 3.61), (2.27, 4.23)),
    ),
    ("test", "SD-Codec, from DAC"): (
        *((-5.02, 2.47), (-1.54, 3.12), (-3.15, 4.83), (-12.22, 9.49)),
        *((10.34, 2.81), (0.87, 3.68), (0.78, 3.95)),
    ),
}


def paper_rows() -> tuple[PaperRow, ...]:
    """Every number of both tables, in their order."""
    rows = []
    for (split, system), cells in _RESYNTHESIS.items():
        for stem, (mean, std, visqol, visqol_std) in zip(STEMS, cells, strict=True):
            rate = _bitrate(system, stem)
            rows.append(
                PaperRow(
                    "II", split, "resynthesis", system, stem, rate, mean, std, visqol=visqol, visqol_std=visqol_std
                )
            )
    for (split, system), triples in _SEPARATION.items():
        task: Task = "separation" if system == "TDANet" else "masked separation"
        for stem, numbers in zip(STEMS[1:], triples, strict=True):
            rows.append(PaperRow("II", split, task, system, stem, None, *numbers))
    for (split, system), pairs in _VARIANTS.items():
        for stem, (mean, std) in zip(STEMS, pairs[:4], strict=True):
            rows.append(PaperRow("III", split, "resynthesis", system, stem, _bitrate(system, stem), mean, std))
        for stem, (mean, std) in zip(STEMS[1:], pairs[4:], strict=True):
            rows.append(PaperRow("III", split, "masked separation", system, stem, None, mean, std))
    return tuple(rows)


def _bitrate(system: str, stem: str) -> float:
    return 18.0 if stem == "mix" and system != "DAC" else 6.0
