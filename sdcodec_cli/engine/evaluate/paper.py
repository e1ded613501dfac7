"""The numbers of "Learning Source Disentanglement in Neural Audio Codec", arXiv:2409.11228: Tables II and III.

They were measured by its authors on DnR v2, with their data, cut and code, and are here for reference only. Its
separations of SD-Codec are masks on the mixture; ViSQOL is in speech mode. The paper's improvement over the mixture
(SI-SDRi) and its deviations are there for Table II; Table III has SI-SDR alone.
"""

from __future__ import annotations

import importlib.resources
import json
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PaperRow:
    """One cell of the paper's tables: a system on a stem."""

    table: Literal["II", "III"]
    """II: systems. III: variants of SD-Codec."""
    split: Literal["val", "test"]
    task: str
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


def paper_rows() -> tuple[PaperRow, ...]:
    """Every number of both tables, in their order."""
    read = json.loads(importlib.resources.files(__package__).joinpath("paper.json").read_text(encoding="utf-8"))
    return tuple(PaperRow(**dict(zip(read["columns"], row, strict=True))) for row in read["rows"])
