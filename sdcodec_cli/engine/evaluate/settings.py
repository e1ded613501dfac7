"""What an evaluation is told to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ...audio.bands import SHARE
from ..separate import DEFAULT_VIEWS
from .speech import SpeechJudge

if TYPE_CHECKING:
    from ...data.dnr import Split

Protocol = Literal["paper", "published-code"]
"""How tracks are cut and scored: as the paper says, or as its code does."""

Evaluation = Literal["dnr", "bands", "extend"]
"""`dnr`: resynthesis and separation at the model's rate, on tracks of DnR. `bands`: resynthesis of any audio, compared
at 32 and 16 kHz. `extend`: what systems make of the same audio when they are given it at 16 kHz, compared at 32."""

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
    """`auto` is none where ViSQOL is not installed, else both, and for tasks other than `dnr` audio alone."""
    speech: tuple[SpeechJudge, ...] | None = None
    """Who is asked about speech; None for PESQ and ESTOI where they are installed, in `dnr`, and for nobody else."""
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
