"""How well a voice was converted: whose voice it is now, whether the words are the same, and whether the pitch is.

Whose voice: the network of "Generalized End-to-End Loss for Speaker Verification" (arXiv:1710.10467) that the package
`resemblyzer` brings. The package itself would need librosa and a compiled detector of voice, so only its weights are
used. Words: what `pocketsphinx` hears, which is a weak recogniser of American English, so the share of errors says
more by comparison than by itself. Pitch: that of `swift-f0`. Each brings its weights, and none downloads anything.
Nothing of this is loaded until something is judged. All listen at 16 kHz.

Legend: T samples, F frames, W windows, M mel bands, E numbers that say whose voice it is.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .transcripts import edit_distance, words_of
from .visqol import SILENT, Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ...audio import Wav

VoiceJudge = Literal["similarity", "words", "pitch"]

SAMPLE_RATE = 16_000

PACKAGES: dict[VoiceJudge, tuple[str, ...]] = {
    "similarity": ("resemblyzer", "torch"),
    "words": ("pocketsphinx",),
    "pitch": ("swift_f0",),
}
"""What each needs, which the extra `[voices]` brings."""

METRICS: dict[VoiceJudge, tuple[str, ...]] = {
    "similarity": ("similarity", "similarity_source", "similarity_before"),
    "words": ("word_errors",),
    "pitch": ("pitch_correlation", "voicing_errors"),
}
"""What each judge says.

`similarity`: of the converted voice to the reference, the cosine of what the network says of both, 1 at most; two
recordings of a speaker have some 0.8 and more. `similarity_source`: of the converted voice to the source.
`similarity_before`: of the source to the reference, which is where conversion started from. `word_errors`: edits that
make what is heard of what was said, per word that was said; 0 is perfect, and it may exceed 1. `pitch_correlation`: of
the logarithm of the fundamental frequency with that of the source, where both are voiced. `voicing_errors`: share of
frames in which one is voiced and the other is not.
"""

TITLES: dict[VoiceJudge, str] = {"similarity": "similarity", "words": "word errors", "pitch": "pitch"}
"""What each judge says, for messages."""

SHORTEST = 0.5
"""Seconds below which none is asked."""

WINDOW, HOP, BANDS = 400, 160, 40
"""Of the mel spectrogram that the network of voices takes, in samples and bands."""

PARTIAL = 160
"""Frames that it hears at once: 1.6 s."""

PARTIALS_PER_SECOND = 1.3
"""How often it listens, as the package has it."""

COVERAGE = 0.75
"""Share of the last hearing that has to be there."""

LEVEL_DB = -30.0
"""RMS that a voice is brought to, in dB of full scale: what the package raises quieter ones to."""

PAUSE_FRAME, PAUSE_DB, PAUSE_AROUND = 480, 30.0, 3
"""Pauses are frames of so many samples that are so far below the loudest, and not within so many of one that is not."""

FEWEST_VOICED = 10
"""Frames of 16 ms that must be voiced in both for pitches to be compared."""


@dataclass(frozen=True)
class Conversion:
    """What was said in one voice, and a voice to say it in, to what came out."""

    source: Wav
    """`[T]`"""
    reference: Wav
    """Of the voice that is wanted, of any length."""
    converted: Wav
    """`[T]`, as long as the source."""
    sample_rate: int
    """Of all three, in Hz."""
    text: str | None = None
    """What is said in the source; by default what the recogniser hears in it."""


def available(judge: VoiceJudge) -> str | None:
    """None if a judge can be asked, else a line that says what to install."""
    missing = [package for package in PACKAGES[judge] if importlib.util.find_spec(package) is None]
    if not missing:
        return None
    return f"{missing[0].replace('_', '-')} is not installed; pip install '.[voices]' in the clone"


def rate(conversion: Conversion, judge: VoiceJudge) -> dict[str, Score]:
    """What a judge says of a conversion, by the metrics of `METRICS`, and of those without a value, the reason.

    The reasons: `too_short`, `not_finite`, `silent_reference` (the source, or the voice that is wanted), `silent` (what
    came out), `no_words` (none was said), `unvoiced` (too few frames are voiced in both, or their pitch is constant).

    Raises:
        ValueError: source and converted differ in length
    """
    wavs = conversion.source, conversion.reference, conversion.converted
    if wavs[0].shape != wavs[2].shape or any(wav.ndim != 1 for wav in wavs):
        raise ValueError(f"source and converted must be [T] of one length, got {wavs[0].shape}, {wavs[2].shape}")
    if reason := _unfit(conversion):
        return dict.fromkeys(METRICS[judge], (None, reason))
    source, reference, converted = (_at_rate(wav, conversion.sample_rate) for wav in wavs)
    match judge:
        case "similarity":
            voices = [embed_voice(wav) for wav in (converted, reference, source)]
            pairs = [(0, 1), (0, 2), (2, 1)]
            values = [float(voices[one] @ voices[other]) for one, other in pairs]
            return {metric: (value, None) for metric, value in zip(METRICS[judge], values, strict=True)}
        case "words":
            said = hear_words(source) if conversion.text is None else words_of(conversion.text)
            errors = edit_distance(said, hear_words(converted)) / len(said) if said else None
            return {"word_errors": (errors, None if said else "no_words")}
    return _compare_pitch(track_pitch(source), track_pitch(converted))


def _unfit(conversion: Conversion) -> str | None:
    import numpy as np

    wavs = {
        "silent_reference": (conversion.source, conversion.reference),
        "silent": (conversion.converted,),
    }
    for silence, given in wavs.items():
        for wav in given:
            if len(wav) < SHORTEST * conversion.sample_rate:
                return "too_short"
            if not np.isfinite(wav).all():
                return "not_finite"
            if np.square(wav, dtype=np.float64).mean() < SILENT:
                return silence
    return None


def _at_rate(wav: Wav, sample_rate: int) -> Wav:
    import numpy as np
    import soxr

    return np.asarray(soxr.resample(wav.astype(np.float64), sample_rate, SAMPLE_RATE), dtype=np.float32)


def embed_voice(wav: Wav) -> NDArray[np.float32]:
    """Whose voice it is: `[T]` at 16 kHz to `[E]` of length 1, whatever the level and the pauses.

    What the package's `embed_utterance` makes of a recording without pauses and of an RMS of −30 dB.
    """
    import numpy as np
    import torch

    spoken = _without_pauses(wav).astype(np.float64)
    spoken *= 10 ** (LEVEL_DB / 20) / np.sqrt(np.square(spoken).mean())
    step = round(SAMPLE_RATE / PARTIALS_PER_SECOND / HOP)
    frames = -(-(len(spoken) + 1) // HOP)
    starts = list(range(0, max(1, frames - PARTIAL + step + 1), step))
    if len(starts) > 1 and (len(spoken) - starts[-1] * HOP) < COVERAGE * PARTIAL * HOP:
        starts.pop()
    missing = (starts[-1] + PARTIAL) * HOP - len(spoken)
    mel = _mel_power(np.pad(spoken, (0, max(0, missing))))
    hearings = np.stack([mel[start : start + PARTIAL] for start in starts])
    with torch.inference_mode():
        mean: NDArray[np.float32] = _voice_network()(torch.from_numpy(hearings)).numpy().mean(0)
    return mean / np.linalg.norm(mean)


def _without_pauses(wav: Wav) -> Wav:
    """What is said in `[T]`, one piece behind the other."""
    import numpy as np

    count = len(wav) // PAUSE_FRAME
    frames = wav[: count * PAUSE_FRAME].reshape(count, PAUSE_FRAME)
    power = np.square(frames, dtype=np.float64).mean(1)
    loud = power > power.max() * 10 ** (-PAUSE_DB / 10)
    near = np.convolve(loud, np.ones(2 * PAUSE_AROUND + 1), mode="full")[PAUSE_AROUND:][:count] > 0
    return np.asarray(frames[near].reshape(-1))


def _mel_power(wav: NDArray[np.float64]) -> NDArray[np.float32]:
    """Power in mel bands, `[T]` to `[F, M]`, as librosa's `melspectrogram` has it."""
    import numpy as np

    from ...audio.mel import mel_bank

    padded = np.pad(wav, WINDOW // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    spectra = np.fft.rfft(windows * np.hanning(WINDOW + 1)[:-1])
    power = np.square(np.abs(spectra)) @ mel_bank(WINDOW, BANDS, SAMPLE_RATE)
    return np.asarray(power, dtype=np.float32)


@functools.lru_cache
def _voice_network() -> Any:
    """Hearings `[W, F, M]` to whose voice each is, `[W, E]` of length 1."""
    import torch
    from torch import nn

    class VoiceNetwork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(BANDS, 256, num_layers=3, batch_first=True)
            self.linear = nn.Linear(256, 256)

        def forward(self, mel: torch.Tensor) -> torch.Tensor:
            last = self.lstm(mel)[1][0][-1]
            return nn.functional.normalize(self.linear(last).relu(), dim=-1)

    network = VoiceNetwork().eval()
    # Importing the package would import all that it needs.
    spec = importlib.util.find_spec("resemblyzer")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).with_name("pretrained.pt")
    stored = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    wanted = network.state_dict()
    network.load_state_dict({name: stored[name] for name in wanted})
    return network


def hear_words(wav: Wav) -> list[str]:
    """Words that the recogniser hears in `[T]` at 16 kHz."""
    import numpy as np

    recogniser = _recogniser()
    samples = (np.clip(wav, -1, 1) * 32767).astype(np.int16)
    recogniser.start_utt()
    # All at once: its levels are those of the whole then, and not of what it heard before.
    recogniser.process_raw(samples.tobytes(), full_utt=True)
    recogniser.end_utt()
    found = recogniser.hyp()
    return [] if found is None else words_of(found.hypstr)


@functools.lru_cache
def _recogniser() -> Any:
    from pocketsphinx import Decoder

    # These limits hear the same words as none, in 0.6 of the time.
    return Decoder(samprate=SAMPLE_RATE, loglevel="FATAL", maxhmmpf=3000, maxwpf=10)


def track_pitch(wav: Wav) -> NDArray[np.float64]:
    """Fundamental frequency of `[T]` at 16 kHz in octaves above 1 Hz, NaN where it is not voiced, `[F]` of 16 ms."""
    import numpy as np

    found = _pitch_network().detect(wav, SAMPLE_RATE)
    return np.where(found.confidence >= 0.5, np.log2(found.pitch_hz), np.nan)


@functools.lru_cache
def _pitch_network() -> Any:
    from swift_f0 import SwiftF0

    return SwiftF0(threads=1, spin=False)


def _compare_pitch(said: NDArray[np.float64], found: NDArray[np.float64]) -> dict[str, Score]:
    import numpy as np

    voiced = ~np.isnan(said), ~np.isnan(found)
    both = voiced[0] & voiced[1]
    errors: Score = (float((voiced[0] != voiced[1]).mean()), None)
    pairs = np.stack([said[both], found[both]])
    if both.sum() < FEWEST_VOICED or np.ptp(pairs, axis=1).min() == 0:
        return {"pitch_correlation": (None, "unvoiced"), "voicing_errors": errors}
    return {"pitch_correlation": (float(np.asarray(np.corrcoef(pairs))[0, 1]), None), "voicing_errors": errors}
