"""The judges of an evaluation that take their time, and are asked in a pool of processes: ViSQOL, PESQ, ESTOI, DNSMOS,
and those of voices.

Nothing heavy is loaded until something is scored.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from ...errors import SdcError
from . import speech, visqol, voices

if TYPE_CHECKING:
    from ...audio import Wav
    from .settings import Evaluation, Settings, VisqolModes

Judge = Literal["visqol_speech", "visqol_audio", "pesq", "estoi", "dnsmos"]

OF_ALL: dict[str, tuple[Judge, ...]] = {
    "off": (),
    "speech": ("visqol_speech",),
    "audio": ("visqol_audio",),
    "both": ("visqol_speech", "visqol_audio"),
}
"""Those that are asked about every stem, by the modes of ViSQOL that are set."""

DEFAULT_VISQOL: dict[Evaluation, VisqolModes] = {"dnr": "both", "decodec": "off"}
"""Where nothing else is set, by task; elsewhere audio alone."""

DEFAULT_SPEECH: dict[Evaluation, tuple[speech.SpeechJudge, ...]] = {
    "dnr": ("pesq", "estoi"),
    "decodec": ("pesq", "estoi", "dnsmos"),
}
"""Those that are asked about speech wherever they are installed, by task."""


def resolved(settings: Settings, notes: list[str]) -> Settings:
    """The settings with the judges that will be asked; `notes` gets a line for each that is not installed.

    Raises:
        SdcError: one that was asked for by name is not installed
    """
    modes = DEFAULT_VISQOL.get(settings.task, "audio") if settings.visqol == "auto" else settings.visqol
    asked = DEFAULT_SPEECH.get(settings.task, ()) if settings.speech is None else settings.speech
    wanted = [judge for judge in speech.PACKAGES if judge in asked]
    if modes != "off" and (missing := visqol.available()):
        if settings.visqol != "auto":
            raise SdcError(missing)
        notes.append(f"no ViSQOL: {missing}")
        modes = "off"
    lacking = {judge: line for judge in wanted if (line := speech.available(judge))}
    if lacking and settings.speech is not None:
        raise SdcError("; ".join(lacking.values()))
    notes += [f"no {judge.upper()}: {line}" for judge, line in lacking.items()]
    found = tuple(judge for judge in wanted if judge not in lacking)
    return dataclasses.replace(settings, visqol=modes, speech=found)


def asked_of_voices(notes: list[str]) -> tuple[voices.VoiceJudge, ...]:
    """Judges of converted voices that can be asked; `notes` gets a line for each that cannot."""
    lacking = {judge: line for judge in voices.PACKAGES if (line := voices.available(judge))}
    notes += [f"no {voices.TITLES[judge]} of converted voices: {line}" for judge, line in lacking.items()]
    return tuple(judge for judge in voices.PACKAGES if judge not in lacking)


def judges(settings: Settings, stem: str) -> tuple[Judge, ...]:
    """Who is asked about an estimate of a stem, by settings that are `resolved`."""
    return (*OF_ALL[settings.visqol], *((settings.speech or ()) if stem == "speech" else ()))


Job = tuple["Wav", "Wav", int, Judge] | tuple[voices.Conversion, voices.VoiceJudge]
"""What a judge is asked: about an estimate, reference and estimate `[T]`, their rate in Hz and who is asked; or about a
conversion, that and who is asked."""


def score(job: Job) -> dict[str, visqol.Score]:
    """What a judge says, by metric."""
    if len(job) == 2:
        return voices.rate(*job)
    reference, estimate, sample_rate, judge = job
    match judge:
        case "visqol_speech":
            return {judge: visqol.visqol(reference, estimate, sample_rate, "speech")}
        case "visqol_audio":
            return {judge: visqol.visqol(reference, estimate, sample_rate, "audio")}
    return speech.rate(reference, estimate, sample_rate, judge)
