"""What an evaluation is told to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ...audio.bands import SHARE
from ..background import HIGHEST_SNR, LOWEST_SNR
from ..separate import DEFAULT_VIEWS
from .speech import SpeechJudge
from .voices import VoiceJudge

if TYPE_CHECKING:
    from ...data.dnr import Split

Protocol = Literal["paper", "published-code"]
"""How tracks are cut and scored: as the paper says, or as its code does."""

Evaluation = Literal["dnr", "bands", "extend", "decodec"]
"""`dnr`: resynthesis and separation at the model's rate, on tracks of DnR. `bands`: resynthesis of any audio, compared
at 32 and 16 kHz. `extend`: what systems make of the same audio when they are given it at 16 kHz, compared at 32.
`decodec`: speech with a background mixed behind it: both coded together, speech alone, another background."""

WIDE_TASKS: tuple[Evaluation, ...] = ("bands", "extend")
"""Those whose clips are at 32 kHz; those of others are at the model's rate."""

DEFAULT_SNRS = (-5.0, 0.0, 5.0, 10.0, 20.0)
"""Of speech to background, in dB: from the lowest to the highest that the paper of DeCodec tests."""

VisqolModes = Literal["auto", "off", "speech", "audio", "both"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to evaluate on, against what, how, and what to write; a model comes beside it."""

    data_root: Path
    split: Split
    task: Evaluation = "dnr"
    protocol: Protocol = "paper"
    against: tuple[str, ...] = ()
    """Systems, see `find_system`."""
    all_needed: bool = True
    """Whether one of them that cannot be used is an error, and not a note."""
    visqol: VisqolModes = "auto"
    """`auto` is none where ViSQOL is not installed, and in `decodec`; else both, and in `bands` and `extend` audio."""
    speech: tuple[SpeechJudge, ...] | None = None
    """Who is asked about speech; None for those that are installed: in `dnr` of PESQ and ESTOI, in `decodec` of all,
    and nobody in others."""
    voices: tuple[VoiceJudge, ...] = ()
    """Who is asked about converted voices; `judges.asked_of_voices` finds who can be."""
    jobs: int = 1
    """Processes for ViSQOL and judges of speech, beside this one."""
    work: Path | None = None
    """Folder in which each clip's results are kept, to go on from them."""
    limit: int | None = None
    """Of clips."""
    report: Path | None = None
    """Folder for the pages."""
    mushra: bool = False
    examples: int = 4
    """Clips to listen to."""
    overwrite: bool = False
    device: str = "auto"
    effort: int | None = None
    """Of the other models' encoding, see `Codec.effort`; None for each one's own."""
    codebooks: int | None = None
    """Of each domain, of models with the domains of the one under test; None for what each suggests."""
    views: int = DEFAULT_VIEWS
    """Of a mixture, whose masks are averaged, see `separate`."""
    envelope: float | None = SHARE
    """Share of the envelope that models of ours apply, see `Codec.decode`; None for no envelope at all."""
    fine: bool | None = None
    """Whether that is a fine one, see `Codec.allocate`."""
    treble: bool = True
    """Whether models of ours keep what lies above their band, of audio at a higher rate."""
    texture: bool = True
    """Whether models of ours make up the fine structure where codes say levels only, see `Codec.decode`."""
    snrs: tuple[float, ...] = DEFAULT_SNRS
    """Of speech to its background, in dB, in `decodec`."""
    reverberation: bool = True
    """Whether speech is heard in simulated rooms, too, in `decodec`."""

    probe: bool = False
    """Whether probes are taught to tell phonemes from features, in `decodec`."""

    def __post_init__(self) -> None:
        if not self.snrs or len(set(self.snrs)) < len(self.snrs):
            raise ValueError("snr: give at least one ratio of speech to background, and each of them once")
        for snr in self.snrs:
            if not LOWEST_SNR <= snr <= HIGHEST_SNR:
                raise ValueError(f"snr must be from {LOWEST_SNR:g} to {HIGHEST_SNR:g} dB, got {snr:g}")
