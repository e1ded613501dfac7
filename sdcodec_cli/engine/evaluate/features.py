"""What features of noisy speech hold of what is said: errors of probes on them, see `probe`.

Compared are, at the frame rate of each codec, the first codebook of speech, which semantic guidance is about, the
quantized latent of speech, which is all that the decoder gets to make it, and a mel spectrogram of the mixture, which
is what a recogniser would be given without any codec.

Legend: T samples, F frames, D latent width.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...audio import Wav, resampled
from ...audio.mel import FLOOR, mel_bank
from ...errors import SdcError
from ...progress import Progress
from ...runtime import CodecModel
from ..coded import SPEECH
from ..systems import SeparatingCodec, System
from .measure import Measurement
from .noisy import MixturePlan
from .probe import SAMPLE_RATE, STEPS, Features, Utterance, hear_phonemes, train_probe
from .transcripts import edit_distance

if TYPE_CHECKING:
    from ..codec import Codec

HELD_OUT = 5
"""Of so many clips of speech one is not learnt from, and tells how well that went."""

FEWEST = 20
"""Clips of speech below which probes learn nothing that is worth comparing."""

MOST = 150
"""Clips of speech that are taken, the first ones: features of all are held in memory."""

MEL_BANDS = 80


class Kind(NamedTuple):
    """Of features, the same for all clips."""

    name: str
    """Such as `sdcodec-16k-mini, first codebook`."""
    num_values: int | None
    """Of codes; None for vectors."""


@dataclass(frozen=True)
class _Heard:
    """A clip in some condition."""

    plan: MixturePlan
    held_out: bool
    phonemes: tuple[str, ...]
    features: dict[Kind, Features]


def probe_errors(
    systems: Sequence[System],
    plans: Sequence[MixturePlan],
    *,
    note: Callable[[str], None] = lambda message: None,
    progress: Progress | None = None,
) -> list[Measurement]:
    """Phoneme errors of the clips that probes did not learn from, in all conditions but those of rooms.

    A probe learns from all conditions together, and every kind of features has its own. No more than `MOST` clips of
    speech are taken.

    Args:
        systems: of which those are probed that are codecs with a domain for speech
        plans: all conditions of one clip of speech after another
        note: gets a line if there is nothing to compare
        progress: called with the steps that are done, of clips and of training
    """
    codecs = [system for system in systems if isinstance(system, SeparatingCodec) and _speech(system.codec) is not None]
    spoken = [list(group) for _, group in itertools.groupby(plans, lambda plan: plan.speech)]
    spoken = spoken[:MOST]
    if len(spoken) < FEWEST:
        note(f"no features: probes need {FEWEST} clips of speech to learn from, and there are {len(spoken)}")
        return []
    kinds = 1 + sum(2 if _has_latents(system.codec) else 1 for system in codecs)
    total = len(spoken) + kinds * STEPS
    heard: list[_Heard] = []
    for number, group in enumerate(spoken):
        try:
            phonemes = hear_phonemes(_at_rate(group[0].speech.load().mix, group[0].sample_rate))
            for plan in group:
                if plan.room is None:
                    features = features_of(codecs, plan.load().mix, plan.sample_rate)
                    heard.append(_Heard(plan, number % HELD_OUT == 0, phonemes, features))
        except SdcError:
            continue  # it is among the failures already
        finally:
            if progress:
                progress(number + 1, total)
    rows = []
    for done, kind in enumerate(heard[0].features if heard else ()):

        def tell(step: float, _: float | None, done: int = done) -> None:
            if progress:
                progress(len(spoken) + done * STEPS + step, total)

        taught = [Utterance(each.features[kind], each.phonemes) for each in heard if not each.held_out]
        try:
            probe = train_probe(taught, num_values=kind.num_values, progress=tell)
        except ValueError as error:
            note(f"no features: {error}")
            return []
        for each in heard:
            if each.held_out:
                said = each.phonemes
                value = edit_distance(said, probe.hear(each.features[kind])) / len(said) if said else None
                what = (each.plan.name, "features", kind.name, SPEECH, None, "phoneme_errors")
                reason = None if said else "no_phonemes"
                rows.append(Measurement(*what, value, reason, condition=each.plan.condition))
    return rows


def features_of(systems: Sequence[SeparatingCodec], mix: Wav, sample_rate: int) -> dict[Kind, Features]:
    """Features of a mixture `[T]` by every codec, and its mel spectrogram."""
    found: dict[Kind, Features] = {}
    for system in systems:
        codec = system.codec.at_effort(0)
        stream = _speech(codec)
        assert stream is not None
        model = codec.stages[0]
        wav = mix if codec.sample_rate == sample_rate else resampled(mix, sample_rate, codec.sample_rate)
        encoded = codec.encode(wav, num_codebooks=codec.num_codebooks, active=codec.domains, envelope=False)
        codes = encoded.codes[model.streams[stream].name][0]
        found[Kind(f"{system.name}, first codebook", model.streams[stream].codebook_size)] = codes[0].copy()
        if model.codebooks:
            found[Kind(f"{system.name}, latents", None)] = model.codebooks[stream].latent(codes).astype(np.float16)
    found[Kind("mel", None)] = mel_spectrogram(_at_rate(mix, sample_rate))
    return found


def _speech(codec: Codec) -> int | None:
    """Which stream of the first stage is speech."""
    return next((number for number, stream in enumerate(codec.stages[0].streams) if stream.stem == SPEECH), None)


def _has_latents(codec: Codec) -> bool:
    return isinstance(codec.model, CodecModel) and bool(codec.model.codebooks)


def _at_rate(wav: Wav, sample_rate: int) -> Wav:
    return wav if sample_rate == SAMPLE_RATE else resampled(wav, sample_rate, SAMPLE_RATE)


def mel_spectrogram(wav: Wav) -> NDArray[np.float32]:
    """Logarithmic, of 80 bands, 50 frames/s and windows of 40 ms, whatever the level: `[T]` at 16 kHz to `[F, 80]`."""
    hop, window = SAMPLE_RATE // 50, SAMPLE_RATE // 25
    count = -(-len(wav) // hop)
    power = np.square(wav, dtype=np.float64).mean()
    padded = np.pad(wav / np.sqrt(max(power, 1e-12)), (hop // 2, window + count * hop - len(wav)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop][:count]
    magnitudes = np.abs(np.fft.rfft(windows * np.hanning(window + 1)[:-1]))
    return np.log(np.maximum(magnitudes @ mel_bank(window, MEL_BANDS, SAMPLE_RATE), FLOOR)).astype(np.float32)
