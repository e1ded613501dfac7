"""From clips to one long table of measurements, which is kept clip by clip so that an evaluation can go on.

Legend: T samples, N domains, K codebooks, V entries.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import math
import os
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ... import __version__
from ...audio import Wav, atomic_output, db_to_amplitude, integrated_loudness, resampled
from ...audio.activity import active_frames
from ...data.parallel import ProcessPool, own_cores
from ...errors import InputError, OutputError, SdcError
from ...progress import Progress
from ..codec import Codec
from ..coded import SPEECH
from ..codes import Codes
from ..metrics import (
    TREBLE_BANDS,
    UPPER_BANDS,
    WIDE_EDGES,
    band_errors,
    band_power,
    band_sdr,
    mel_distance_dac,
    sdr,
    si_sdr,
    stft_distance,
)
from ..other_codecs import fitted
from ..stream import SEGMENT_FRAMES
from ..systems import Converts, Enhances, Exchanges, Extends, Resynthesizes, Separates, SeparatingCodec, System
from ..torchrun import PATIENCE, under_torchrun
from .judges import judges, score
from .noisy import BACKGROUND, CLEAN, NOISY, MixturePlan, overall
from .protocol import Clip, ClipPlan
from .settings import Evaluation, Settings
from .visqol import Score
from .voices import METRICS, Conversion

Task = Literal[
    "resynthesis",
    "separation",
    "masked separation",
    "cross",
    "whole",
    "resynthesis at 32 kHz",
    "resynthesis at 16 kHz",
    "extension",
    "reconstruction",
    "enhancement",
    "enhancement with silence",
    "masked enhancement",
    "exchange",
    "conversion",
    "features",
]
"""`resynthesis`: a signal through its own quantizer. `separation`: a stem of the mixture, straight from the decoder.
`masked separation`: by ratio masks on the mixture, as `separate` makes them. `cross`: a stem through the quantizer of
another domain. `whole`: audio of a single domain through compress and decode, activity detection included.
`resynthesis at 32 kHz`: `resynthesis` of a signal at 32 kHz; `resynthesis at 16 kHz`: the same, after both were
resampled to that. `extension`: a signal at 16 kHz brought to 32 kHz. `reconstruction`: clean or noisy speech, coded
whole. `enhancement`, and those named after it: speech without its background, see `EnhancementWay`. `exchange`: speech
that got another background, and that. `conversion`: speech in another voice.
`features`: what probes tell from features of noisy speech."""

What = tuple[str, str, str, str, "str | None"]
"""The first fields of a `Measurement`: clip, task, system, stem and through."""

SEPARATIONS = ("separation", "masked separation")

WIDE = ("resynthesis at 32 kHz", "extension")
"""Tasks whose estimates are compared above 8 kHz."""

ENHANCEMENTS = ("enhancement", "enhancement with silence", "masked enhancement")

JUDGED = ("resynthesis", *SEPARATIONS, "resynthesis at 16 kHz", *WIDE)
"""Tasks whose estimates have levels of bands, and are shown to the judges, as are those of `ENHANCEMENTS`."""

SILENT = 1e-8
"""Mean square below which a stem is not there."""

LOW_RATE = 16_000
"""Hz, at which what has 32 kHz is compared too, and from which it is extended."""

LOW, NEAR, HIGH = (0.0, 8000.0), (7000.0, 9000.0), (8000.0, 16_000.0)
"""Bands in Hz that have an SDR of their own: what 16 kHz can hold, where that ends, and what is above."""

EXCHANGED = ((SPEECH, "kept"), (SPEECH, "sdr"), (BACKGROUND, "level"), (BACKGROUND, "level_recorded"))
"""Stems and metrics of `exchange`: the SDR of the speech against what it decoded to before, and against the clean
speech; the level of the new background less that of the one it replaces, as decoded, and as recorded."""

COUNTS = ("rejected", "false", "missed", "right")
"""Segments in which a domain was not found, found, not found, found; it is there in the last two."""

LAYOUT = 3
"""Of a clip's results: raised when there are more of them, so that those that are kept are measured again."""


Plan = ClipPlan | MixturePlan
"""Where a clip is to be found."""


class Measurement(NamedTuple):
    """One number: a row of the long table."""

    clip: str
    task: str
    """A `Task`; or `activity`, with the number of segments of each of `COUNTS`; or `file`, with the `seconds` of a
    mixture and, in an evaluation on DnR, the `bytes` of its `.sdc` file."""
    system: str
    stem: str
    """A domain, or `mix`; what was to be heard."""
    through: str | None
    """cross: the domain whose quantizer was used. activity: the signal, `mix` or `stem` (each stem by itself)."""
    metric: str
    """One of `METRICS`, or `bitrate` in kbit/s of what was written."""
    value: float | None
    reason: str | None = None
    """Why there is no value, such as `silent_reference`."""
    bands: Sequence[float] = ()
    """What `value` is the mean of: bias and spread of each band, in dB, also of those below what `value` is of."""
    condition: str | None = None
    """That the clip is heard in, where that is told apart, see `noisy`."""


@dataclass(frozen=True)
class Measured:
    """Everything that was measured."""

    table: list[Measurement]
    usage: NDArray[np.int64]
    """How often each codebook entry was taken in the mixtures, by codes that are stored: `[N, K, V]`."""
    failures: tuple[str, ...]
    """Clips that were skipped, with the reason."""


@dataclass(frozen=True)
class Estimate:
    """What a system made of something, and what it should be."""

    task: Task
    system: str
    stem: str
    wav: Wav
    reference: Wav
    sample_rate: int
    """Of both, in Hz."""
    through: str | None = None
    bitrate: float | None = None
    """In kbit/s."""

    def what(self, clip: Clip) -> What:
        """How measurements of it begin."""
        return clip.name, self.task, self.system, self.stem, self.through


def estimates(system: System, clip: Clip, sample_rate: int, task: Evaluation) -> Iterator[Estimate]:
    """What a system makes of a clip: its separations, and its resyntheses of the mixture and of the stems; or what it
    extends the mixture to.
    """
    if task == "dnr" and isinstance(system, Separates):
        for way, stems in system.separate(clip.mix, sample_rate).items():
            for domain, wav in stems.items():
                yield Estimate(way, system.name, domain, wav, clip.stems[domain], sample_rate)
    if task in ("dnr", "bands") and isinstance(system, Resynthesizes):
        for stem, wav in {"mix": clip.mix, **clip.stems}.items():
            if stem == "mix" or not is_silent(wav):
                back, bitrate = system.resynthesize(wav, sample_rate, None if stem == "mix" else stem)
                made = Estimate("resynthesis", system.name, stem, back, wav, sample_rate, bitrate=bitrate)
                yield from [made] if task == "dnr" else _at_both_rates(made)
    if task == "decodec":
        yield from _of_speech(system, clip, sample_rate)
    if task == "extend" and isinstance(system, Extends):
        extended = system.extend(resampled(clip.mix, sample_rate, LOW_RATE), LOW_RATE, sample_rate)
        yield Estimate("extension", system.name, "mix", fitted(extended, len(clip.mix)), clip.mix, sample_rate)


def _of_speech(system: System, clip: Clip, sample_rate: int) -> Iterator[Estimate]:
    """What a system makes of speech in some condition: all of it coded, but for rooms, and speech without the rest."""
    clean = clip.condition == CLEAN
    if isinstance(system, Resynthesizes) and (clean or overall(clip.condition or "") == NOISY):
        back, bitrate = system.resynthesize(clip.mix, sample_rate)
        stem = SPEECH if clean else "mix"
        yield Estimate("reconstruction", system.name, stem, back, clip.mix, sample_rate, bitrate=bitrate)
    if isinstance(system, Enhances):
        for way, found in system.enhance(clip.mix, sample_rate).items():
            yield Estimate(way, system.name, SPEECH, found.speech, clip.stems[SPEECH], sample_rate)
            if found.background is not None and not clean:
                background = clip.stems[BACKGROUND]
                yield Estimate(way, system.name, BACKGROUND, found.background, background, sample_rate)


def _at_both_rates(made: Estimate) -> Iterator[Estimate]:
    """A resynthesis as it is, and resampled to the lower rate together with its reference."""
    yield dataclasses.replace(made, task="resynthesis at 32 kHz")
    wav, reference = (resampled(each, made.sample_rate, LOW_RATE) for each in (made.wav, made.reference))
    yield dataclasses.replace(made, task="resynthesis at 16 kHz", wav=wav, reference=reference, sample_rate=LOW_RATE)


def own_estimates(model: SeparatingCodec, clip: Clip) -> Iterator[Estimate]:
    """What only the model under test is asked for: stems through all quantizers, and through the whole system."""
    codec = model.codec
    # What a quantizer lets through by itself: analysis by synthesis would force the wrong ones.
    plain = codec.at_effort(0)
    for domain, stem in clip.stems.items():
        if is_silent(stem):
            continue
        everywhere = plain.encode(stem, num_codebooks=model.num_codebooks, active=codec.domains, envelope=False)
        for through in codec.domains:
            wav = codec.decode(everywhere, stem=through)
            yield Estimate("cross", codec.name, domain, wav, stem, codec.sample_rate, through=through)
        alone = model.encode(stem)
        back, bitrate = model.decode(alone), model.bitrate(alone)
        yield Estimate("whole", codec.name, domain, back, stem, codec.sample_rate, bitrate=bitrate)


def exchange_measurements(system: Exchanges, clip: Clip, other: Wav, sample_rate: int) -> list[Measurement]:
    """What becomes of speech, and of levels, where a system exchanges the background of a clip for another.

    Without values where the system finds nothing to exchange.
    """
    compared: tuple[float | None, ...] = (None,) * len(EXCHANGED)
    with contextlib.suppress(InputError):
        found = system.exchange(clip.mix, other, sample_rate)
        wavs = (found.background, found.background_before, clip.stems[BACKGROUND])
        level, before, recorded = (integrated_loudness(wav[None], sample_rate) for wav in wavs)
        if all(map(math.isfinite, (level, before, recorded))):
            compared = (
                float(sdr(found.speech, found.speech_before)),
                float(sdr(found.speech, clip.stems[SPEECH])),
                level - before,
                level - recorded,
            )
    return [
        Measurement(
            *(clip.name, "exchange", system.name, stem, None, metric),
            value=value,
            reason="nothing_to_exchange" if value is None else None,
        )
        for (stem, metric), value in zip(EXCHANGED, compared, strict=True)
    ]


def conversion(system: Converts, clip: Clip, voice: Wav, sample_rate: int) -> Conversion | None:
    """What a system makes of a clip in somebody else's voice, beside the clean speech; None where nobody speaks."""
    with contextlib.suppress(InputError):
        converted = fitted(system.convert(clip.mix, voice, sample_rate), len(clip.mix))
        return Conversion(clip.stems[SPEECH], voice, converted, sample_rate)
    return None


def is_silent(wav: Wav) -> bool:
    """Whether there is nothing to be measured."""
    return float(np.square(wav).mean()) < SILENT


@dataclass
class _Clip:
    """A clip that is measured, but for what other processes are asked."""

    plan: Plan
    failure: str | None = None
    condition: str | None = None
    rows: list[Measurement] = field(default_factory=list)
    usage: NDArray[np.int64] | None = None
    scores: list[tuple[What, Future[dict[str, Score]]]] = field(default_factory=list)

    def store(self, path: Path) -> None:
        """Wait for the rest and write it down, as a whole."""
        for what, future in self.scores:
            self.rows += [Measurement(*what, metric, *found) for metric, found in future.result().items()]
        self.rows = [row._replace(condition=self.condition) for row in self.rows]
        usage = None if self.usage is None else zlib.compress(self.usage.astype(np.int32).tobytes())
        kept = {"failure": self.failure, "rows": self.rows, "usage": usage and base64.b64encode(usage).decode()}
        with atomic_output(path, overwrite=True) as file:
            file.write(json.dumps(kept).encode())


def measure(
    model: SeparatingCodec,
    systems: Sequence[System],
    plans: Sequence[Plan],
    settings: Settings,
    work: Path,
    *,
    progress: Progress | None = None,
) -> Measured:
    """Measure every clip; under torchrun, the processes share them.

    Args:
        model: under test, one of `systems`
        systems: all
        plans: the clips
        settings: what is evaluated, by which judges, and how many processes there are for them
        work: folder in which each clip's results are kept, under a name for all that they depend on; what is in it is
            not measured again, but for clips that failed
        progress: called with the clips that are done: at the start, and after every one

    Raises:
        OutputError: the folder cannot be written
        InputError: a process that asks a judge was killed, such as for want of memory
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    named = [(system.name, system.identity) for system in systems]
    asked = (settings.task, settings.codebooks, settings.views, settings.visqol, settings.speech, settings.voices)
    depends = (LAYOUT, __version__, named, *asked)
    digests = (hashlib.sha256(repr((depends, plan.identity)).encode()).hexdigest()[:16] for plan in plans)
    results = {plan: work / f"clip-{digest}.json" for plan, digest in zip(plans, digests, strict=True)}
    mine = plans[rank::world]
    todo = [plan for plan in mine if (_kept(results[plan]) or {"failure": "not measured"})["failure"]]
    done = len(mine) - len(todo)
    with contextlib.ExitStack() as stack:
        pool = None
        if judges(settings, "speech") or settings.voices:
            torch = sys.modules.get("torch")
            if torch is not None:
                # Threads of torch that wait for their turn would keep judges from their own.
                threads = torch.get_num_threads()
                stack.callback(torch.set_num_threads, threads)
                torch.set_num_threads(max(1, min(threads, own_cores() - settings.jobs)))
            pool = stack.enter_context(ProcessPool(score, settings.jobs))
        if progress:
            progress(done, len(mine))
        pending: list[_Clip] = []
        for plan in [*todo, None]:
            if plan is not None:
                pending.append(_measure_clip(model, systems, plan, settings, pool))
            while pending and (
                plan is None
                or len(pending) > 2 * settings.jobs
                or all(future.done() for _, future in pending[0].scores)
            ):
                clip = pending.pop(0)
                clip.store(results[clip.plan])
                done += 1
                if progress:
                    progress(done, len(mine))
        if under_torchrun():
            from accelerate import PartialState

            # Some may be done long before the others.
            PartialState(cpu=True, timeout=PATIENCE).wait_for_everyone()
    return _collect(results, model.codec)


def _measure_clip(
    model: SeparatingCodec,
    systems: Sequence[System],
    plan: Plan,
    settings: Settings,
    pool: ProcessPool[Any, dict[str, Score]] | None,
) -> _Clip:
    found = _Clip(plan)
    try:
        clip = plan.load()
    except SdcError as error:
        return _Clip(plan, str(error))
    found.condition = clip.condition
    made: list[Estimate] = []
    conversions: list[tuple[What, Conversion | None]] = []
    try:
        for system in systems:
            made += estimates(system, clip, plan.sample_rate, settings.task)
            made += own_estimates(model, clip) if system is model and settings.task == "dnr" else ()
            if isinstance(system, Exchanges) and clip.other is not None:
                found.rows += exchange_measurements(system, clip, clip.other, plan.sample_rate)
            if settings.voices and isinstance(system, Converts) and system.can_convert and clip.voice is not None:
                converted = conversion(system, clip, clip.voice, plan.sample_rate)
                conversions.append(((clip.name, "conversion", system.name, SPEECH, None), converted))
    except SdcError as error:
        # Such as a system that fails: without its rows the means would be of different clips.
        return _Clip(plan, f"{plan.place}: {error}")
    for estimate in made:
        found.rows += _measured(clip, estimate)
        if pool is not None and estimate.task in (*JUDGED, *ENHANCEMENTS):
            for judge in judges(settings, estimate.stem):
                future = pool.submit((estimate.reference, estimate.wav, estimate.sample_rate, judge))
                found.scores.append((estimate.what(clip), future))
    for what, converted in conversions:
        for voice_judge in settings.voices:
            if converted is None:
                found.rows += [Measurement(*what, metric, None, "no_speech") for metric in METRICS[voice_judge]]
            elif pool is not None:
                found.scores.append((what, pool.submit((converted, voice_judge))))
    seconds = len(clip.mix) / plan.sample_rate
    found.rows.append(Measurement(clip.name, "file", model.name, "mix", None, "seconds", seconds))
    if settings.task == "dnr":
        found.rows += _observed(model, clip)
        found.usage = _usage(model.codec, model.encode(clip.mix))
    return found


def _measured(clip: Clip, estimate: Estimate) -> list[Measurement]:
    what, wav, reference = estimate.what(clip), estimate.wav, estimate.reference
    sample_rate = estimate.sample_rate
    values = {
        "si_sdr": si_sdr(wav, reference),
        "mel": mel_distance_dac(wav, reference, sample_rate),
        "stft": stft_distance(wav, reference),
    }
    if estimate.task in ("reconstruction", *ENHANCEMENTS):
        values["sdr"] = sdr(wav, reference)
    if estimate.task in SEPARATIONS:
        values["si_sdri"] = values["si_sdr"] - si_sdr(clip.mix, reference)
    if estimate.task in (*WIDE, "resynthesis at 16 kHz"):
        values["wave"] = 100 * np.abs(wav - reference).mean(dtype=np.float64)
    rows = [Measurement(*what, metric, float(value)) for metric, value in values.items()]
    if estimate.task in WIDE:
        rows += _measured_by_band(what, wav, reference, sample_rate)
    elif estimate.task in JUDGED:
        for name, errors in band_errors(wav, reference, sample_rate)._asdict().items():
            rows.append(Measurement(*what, f"band_{name}", errors[UPPER_BANDS].mean(), None, errors.tolist()))
    if is_silent(reference):
        rows = [row._replace(value=None, reason="silent_reference", bands=()) for row in rows]
    return rows + ([] if estimate.bitrate is None else [Measurement(*what, "bitrate", estimate.bitrate)])


def _measured_by_band(what: What, wav: Wav, reference: Wav, sample_rate: int) -> list[Measurement]:
    """What is right and wrong below, around and above 8 kHz; without a value where the reference has nothing there."""
    rows = []
    for metric, band in {"sdr_low": LOW, "sdr_near": NEAR, "sdr_high": HIGH}.items():
        there = band_power(reference, sample_rate, *band) >= SILENT
        value = float(band_sdr(wav, reference, sample_rate, *band)) if there else None
        rows.append(Measurement(*what, metric, value, None if there else "silent_reference"))
    above = [Measurement(*what, "mel_high", float(mel_distance_dac(wav, reference, sample_rate, lowest=HIGH[0])))]
    for name, errors in band_errors(wav, reference, sample_rate, WIDE_EDGES)._asdict().items():
        above.append(Measurement(*what, f"{name}_high", errors[TREBLE_BANDS].mean(), None, errors.tolist()))
    if rows[-1].value is None:
        above = [row._replace(value=None, reason=rows[-1].reason, bands=()) for row in above]
    return rows + above


def _observed(model: SeparatingCodec, clip: Clip) -> list[Measurement]:
    """What the model shows of itself besides audio: which domains it finds where, and how large a file is."""
    codec, rows = model.codec, []
    for domain, stem in clip.stems.items():
        if not is_silent(stem):
            nothing = np.zeros_like(stem)
            alone = {other: stem if other == domain else nothing for other in codec.domains}
            rows += activity(codec, model.encode(stem), alone, clip.name, "stem")
    codes = model.encode(clip.mix)
    rows += activity(codec, codes, clip.stems, clip.name, "mix")
    size = model.written(codes).bytes_written
    return [*rows, Measurement(clip.name, "file", codec.name, "mix", None, "bytes", size)]


def activity(codec: Codec, codes: Codes, stems: Mapping[str, Wav], clip: str, signal: str) -> list[Measurement]:
    """Compare the segments that `codes` have of one signal with the stems that it is made of."""
    gain = db_to_amplitude(float(codes.gain_db[0]))
    stacked = np.stack([stems[domain] for domain in codec.domains]) * np.float32(gain)
    # The last frame may be begun only.
    stacked = np.pad(stacked, ((0, 0), (0, -stacked.shape[-1] % codec.hop_length)))
    there = active_frames(stacked.reshape(len(stacked), -1, codec.hop_length))
    rows = []
    for domain, active in zip(codec.domains, there, strict=True):
        counts = dict.fromkeys(COUNTS, 0)
        for start in range(0, len(active), SEGMENT_FRAMES):
            wanted = bool(active[start : start + SEGMENT_FRAMES].any())
            counts[COUNTS[2 * wanted + bool(codes.active[domain][0, start])]] += 1
        rows += [Measurement(clip, "activity", codec.name, domain, signal, *count) for count in counts.items()]
    return rows


def _usage(codec: Codec, codes: Codes | None) -> NDArray[np.int64]:
    """How often each entry was taken, see `Measured`; zeros without codes."""
    size = codec.model.streams[0].codebook_size
    usage = np.zeros((len(codec.domains), codec.num_codebooks, size), dtype=np.int64)
    if codes is not None:
        for index, domain in enumerate(codec.domains):
            for codebook, found in enumerate(codes.codes[domain][0][:, codes.active[domain][0]]):
                usage[index, codebook] = np.bincount(found, minlength=size)
    return usage


def _kept(result: Path) -> dict[str, Any] | None:
    """What has been measured of a clip; None if nothing has, or if the file is damaged."""
    try:
        kept: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return kept


def _collect(results: Mapping[Plan, Path], codec: Codec) -> Measured:
    table: list[Measurement] = []
    failures: list[str] = []
    usage = _usage(codec, None)
    for plan, result in results.items():
        kept = _kept(result)
        if kept is None:
            raise OutputError(f"{result.parent}: lacks results of {plan.name}; run the same command again")
        table += [Measurement(*row) for row in kept["rows"]]
        if kept["failure"]:
            failures.append(kept["failure"])
        if kept["usage"] is not None:
            counted = np.frombuffer(zlib.decompress(base64.b64decode(kept["usage"])), dtype=np.int32)
            usage += counted.reshape(usage.shape)
    return Measured(table, usage, tuple(failures))
