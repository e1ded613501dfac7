"""The numbers of "Learning Source Disentanglement in Neural Audio Codec", arXiv:2409.11228, Tables II and III, and of
"Soft Disentanglement in Frequency Bands for Neural Audio Codecs", arXiv:2510.03735: extension to 32 kHz; and of
DeCodec, arXiv:2509.09201: speech and its background.

They were measured by its authors on DnR v2, with their data, cut and code, and are here for reference only. Its
separations of SD-Codec are masks on the mixture; ViSQOL is in speech mode. The paper's improvement over the mixture
(SI-SDRi) and its deviations are there for Table II; Table III has SI-SDR alone.

Those of extension are of music (MUSDB18, MTG-Jamendo), means alone, and the paper does not say how its distances are
scaled. Those of DeCodec are of 300 clips of LibriSpeech with noise of DNS at −5 to 20 dB, at 8 kbit/s unless it says
otherwise; what it does not report, or what we do not know of it, is None.
"""

from __future__ import annotations

import importlib.resources
import json
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class PaperRow:
    """One cell of a paper's tables: a system on a stem."""

    table: Literal["II", "III", "extension", "decodec"]
    """II: systems. III: variants of SD-Codec. extension: arXiv:2510.03735. decodec: arXiv:2509.09201."""
    split: Literal["val", "test"] | None
    """Of DnR; None for other data."""
    task: str
    system: str
    stem: str
    bitrate: float | None
    """kbit/s of the codes; None where nothing is coded. The mixtures of SD-Codec take three times those of DAC."""
    si_sdr: float | None = None
    """Mean over clips, in dB; None for decodec."""
    si_sdr_std: float | None = None
    """Tables II and III only."""
    si_sdri: float | None = None
    """Mean over clips, in dB; separation of Table II only."""
    si_sdri_std: float | None = None
    visqol: float | None = None
    """Mean over clips; Table II only."""
    visqol_std: float | None = None
    mel: float | None = None
    """Mean distance over clips; extension and decodec only."""
    stft: float | None = None
    """The same of spectra themselves; extension only."""
    condition: str | None = None
    """What speech was heard in, `clean` or `noisy`; as all that follows of decodec only."""
    sdr: float | None = None
    """In dB; the paper does not say which."""
    dnsmos_ovrl: float | None = None
    """From 1 to 5, of the whole."""
    dnsmos_sig: float | None = None
    """Likewise of the speech."""
    dnsmos_bak: float | None = None
    """Likewise of the background."""


def paper_rows() -> tuple[PaperRow, ...]:
    """Every number of Tables II and III, in their order."""
    read = _read()
    return tuple(PaperRow(**dict(zip(read["columns"], row, strict=True))) for row in read["rows"])


def decodec_rows() -> tuple[PaperRow, ...]:
    """What arXiv:2509.09201 has of speech coded whole, of stems of noisy speech (its ablation), and of enhancement
    without reverberation.
    """
    read = _read()["decodec"]
    found = (dict(zip(read["columns"], row, strict=True)) for row in read["rows"])
    return tuple(PaperRow("decodec", None, **row) for row in found)


def _read() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(
        importlib.resources.files(__package__).joinpath("paper.json").read_text(encoding="utf-8")
    )
    return read


def extension_rows() -> tuple[PaperRow, ...]:
    """What arXiv:2510.03735 has of audio at 16 kHz that its upper branch extends to 32 kHz, and of plain upsampling."""
    measured = {"frequency-band codec": (6.22, 2.04, 5.37), "plain upsampling": (3.75, 2.56, 8.65)}
    return tuple(
        PaperRow("extension", None, "extension", system, "mix", None, si_sdr, mel=mel, stft=stft)
        for system, (si_sdr, mel, stft) in measured.items()
    )
