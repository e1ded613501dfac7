"""What is done to a crop before it is mixed, so that a model meets more kinds of recordings than its corpus has.

Everything is a pure function of its arguments and `rng`, from which each function takes the same number of draws
whatever the fields say: turning one augmentation on or off leaves the others as they were.

Legend: T samples.
"""

from __future__ import annotations

import functools
import io
import math
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr

from ..audio import Wav, db_to_amplitude
from ..recipe import AugmentationFields

EQUALIZER_GAIN = 6.0
"""Largest gain of a shelf or peak, in dB to either side."""

LAYER_RANGE = 12.0
"""The second of two layers is weaker than the first by 0 dB to this, in dB."""

REVERB_SECONDS = (0.15, 1.2)
"""Seconds in which a room's tail falls by 60 dB, from a furnished room to a hall."""

REVERB_GAP = (0.002, 0.03)
"""Seconds before the tail begins."""

REVERB_RANGE = 18.0
"""The tail is weaker than the sound itself by 0 dB to this, in dB."""

PAUSE_FADE = 0.01
"""Seconds over which a stem fades into a pause, and out of it."""

LOWPASS_TAPS = 255
"""Length of the low pass; odd, so that its delay is a whole number of samples. Its slope takes 1.3 % of the rate."""

_CODING_PEAK = 0.9


def speed_factor(fields: AugmentationFields, rng: np.random.Generator) -> float:
    """How much faster a stem is played: multiply the length that is read by it, then `change_speed`; 1.0 if off."""
    return 1.0 + fields.speed_range * rng.uniform(-1, 1)


def gain_db(fields: AugmentationFields, rng: np.random.Generator) -> float:
    """What to add to a stem's loudness target, in dB; 0.0 if off."""
    return fields.gain_range * rng.uniform(-1, 1)


def layer(wav: Wav, other: Wav, rng: np.random.Generator) -> Wav:
    """Two crops `[T]` with something in them at once, the other one up to `LAYER_RANGE` below the first in power."""
    ratio = float(np.square(wav, dtype=np.float64).mean() / np.square(other, dtype=np.float64).mean())
    return wav + np.float32(math.sqrt(ratio) * db_to_amplitude(-rng.uniform(0, LAYER_RANGE))) * other


def pause(wav: Wav, sample_rate: int, rng: np.random.Generator) -> Wav:
    """Silence for a tenth to three quarters of the time, perhaps beyond either end: `[T]` to `[T]`.

    A crop that would lose all but a twentieth of its energy stays as it is.
    """
    length, fade = len(wav), round(PAUSE_FADE * sample_rate)
    size = round(rng.uniform(0.1, 0.75) * length)
    start = round(rng.uniform(-size / 2, length - size / 2))
    # How far each sample is from the pause, in fades.
    distance = np.maximum(start - np.arange(length), np.arange(length) - (start + size - 1)) / fade
    paused = wav * (0.5 - 0.5 * np.cos(np.pi * distance.clip(0, 1))).astype(np.float32)
    kept = np.square(paused, dtype=np.float64).sum() > 0.05 * np.square(wav, dtype=np.float64).sum()
    return paused if kept else wav


def change_speed(wav: Wav, length: int) -> Wav:
    """Play `[T]` faster or slower so that it lasts `[length]` samples; pitch changes along."""
    return _resampled(wav, len(wav), length, length)


def augment(wav: Wav, sample_rate: int, fields: AugmentationFields, rng: np.random.Generator) -> Wav:
    """Polarity, reverb, equalizer, bandwidth, codec, each as often as the fields say: `[T]` to `[T]`, nothing shifted.

    Levels may change; they are set afterwards. If nothing happens, the result is `wav` itself.
    """
    for probability, effect in (
        (fields.polarity, _inverted),
        (fields.reverb, _reverberated),
        (fields.equalizer, _equalized),
        (fields.bandwidth, _lowpassed),
        (fields.codec, _coded),
    ):
        # Effects need different numbers of draws, so each has a generator of its own.
        own = np.random.default_rng(rng.integers(2**63))
        if own.random() < probability:
            wav = effect(wav, sample_rate, own)
    return wav


def _inverted(wav: Wav, sample_rate: int, rng: np.random.Generator) -> Wav:
    return -wav


def _reverberated(wav: Wav, sample_rate: int, rng: np.random.Generator) -> Wav:
    """In a room: the sound itself, and a tail of noise that decays, more or less of it in the treble."""
    from scipy import signal

    seconds, gap = _octaves(rng, *REVERB_SECONDS), round(rng.uniform(*REVERB_GAP) * sample_rate)
    decay = np.geomspace(1, 1e-3, round(seconds * sample_rate))
    # What walls and air swallow, as a filter of first order.
    swallowed = rng.uniform(0, 0.9)
    tail = signal.lfilter([1.0], [1.0, -swallowed], decay * rng.standard_normal(len(decay)))
    tail *= db_to_amplitude(-rng.uniform(0, REVERB_RANGE)) / np.linalg.norm(tail)
    room = np.concatenate([[1.0], np.zeros(gap), tail]).astype(np.float32)
    return np.asarray(signal.fftconvolve(wav, room)[: len(wav)], dtype=np.float32)


# --------------------------------------------------------------------------------------------------------------------
# Filters
# --------------------------------------------------------------------------------------------------------------------


def _equalized(wav: Wav, sample_rate: int, rng: np.random.Generator) -> Wav:
    """A low shelf, a peak and a high shelf at random frequencies."""
    from scipy import signal

    gains = rng.uniform(-EQUALIZER_GAIN, EQUALIZER_GAIN, 3)
    top = sample_rate / 2
    sections = [
        _shelf(_octaves(rng, 50, 400) / sample_rate, gains[0], high=False),
        _peak(_octaves(rng, 200, 0.5 * top) / sample_rate, gains[1], quality=_octaves(rng, 0.5, 4)),
        _shelf(_octaves(rng, 0.25 * top, 0.75 * top) / sample_rate, gains[2], high=True),
    ]
    return np.asarray(signal.sosfilt(sections, wav), dtype=np.float32)


def _octaves(rng: np.random.Generator, low: float, high: float) -> float:
    """A random number; every octave between the limits is equally likely."""
    return low * math.pow(high / low, rng.random())


def _peak(frequency: float, gain: float, *, quality: float) -> list[float]:
    """Second-order section `b0 b1 b2 1 a1 a2` after R. Bristow-Johnson's "Audio EQ Cookbook".

    Args:
        frequency: centre, as a share of the sample rate
        gain: at the centre, in dB
        quality: centre over width
    """
    amplitude = db_to_amplitude(gain / 2)
    cosine = math.cos(2 * math.pi * frequency)
    alpha = math.sin(2 * math.pi * frequency) / (2 * quality)
    return _section(
        (1 + alpha * amplitude, -2 * cosine, 1 - alpha * amplitude),
        (1 + alpha / amplitude, -2 * cosine, 1 - alpha / amplitude),
    )


def _shelf(frequency: float, gain: float, *, high: bool) -> list[float]:
    """As `_peak`; `frequency` is where half the gain is reached, the slope is the steepest without overshoot."""
    amplitude = db_to_amplitude(gain / 2)
    # A high shelf is a low one with the frequency axis turned around: z becomes −z.
    side = -1 if high else 1
    cosine = side * math.cos(2 * math.pi * frequency)
    bend = math.sqrt(2 * amplitude) * math.sin(2 * math.pi * frequency)
    above, below = amplitude + 1, amplitude - 1
    return _section(
        (
            amplitude * (above - below * cosine + bend),
            side * 2 * amplitude * (below - above * cosine),
            amplitude * (above - below * cosine - bend),
        ),
        (above + below * cosine + bend, -side * 2 * (below + above * cosine), above + below * cosine - bend),
    )


def _section(b: tuple[float, float, float], a: tuple[float, float, float]) -> list[float]:
    return [value / a[0] for value in (*b, *a)]


def _lowpassed(wav: Wav, sample_rate: int, rng: np.random.Generator) -> Wav:
    """Nothing above a random frequency, as in old recordings and upsampled files."""
    from scipy import signal

    taps = signal.firwin(LOWPASS_TAPS, _octaves(rng, sample_rate / 8, sample_rate / 2), fs=sample_rate)
    return np.asarray(signal.fftconvolve(wav, taps.astype(np.float32), mode="same"), dtype=np.float32)


# --------------------------------------------------------------------------------------------------------------------
# Codecs
# --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Coding:
    """A lossy coding that libsndfile writes."""

    format: str
    subtype: str
    compression: float | None = None
    """libsndfile's compression level, from 0 to 1."""
    rates: tuple[int, ...] = ()
    """Sample rates that the codec takes, rising; none given: all."""

    def rate(self, sample_rate: int) -> int:
        """Sample rate at which audio of a given one is coded: the next that the codec takes."""
        if not self.rates:
            return sample_rate
        return next((rate for rate in self.rates if rate >= sample_rate), self.rates[-1])


_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)

# Beside each, what it takes at 16 kHz.
_CODINGS = (
    _Coding("MP3", "MPEG_LAYER_III", 0.8, _MP3_RATES),  # 42 kbit/s
    _Coding("MP3", "MPEG_LAYER_III", 0.9, _MP3_RATES),  # 25 kbit/s
    _Coding("MP3", "MPEG_LAYER_III", 0.95, _MP3_RATES),  # 17 kbit/s
    _Coding("OGG", "OPUS", 0.9, _OPUS_RATES),  # 34 kbit/s
    _Coding("OGG", "OPUS", 0.95, _OPUS_RATES),  # 21 kbit/s
    _Coding("OGG", "VORBIS", 0.99),  # 43 kbit/s
    _Coding("WAV", "ULAW"),  # 8 bits per sample
    _Coding("WAV", "PCM_U8"),
)


def _coded(wav: Wav, sample_rate: int, rng: np.random.Generator) -> Wav:
    """Once through a random codec, without the codec's delay."""
    usable = _usable_codings(sample_rate)
    coding, delay = usable[int(rng.integers(len(usable)))]
    # At full scale, as files are: a quiet crop would drown in the noise of 8 bits.
    peak = float(np.abs(wav).max())
    if peak == 0:
        return wav
    gain = np.float32(_CODING_PEAK / peak)
    return _through(coding, wav * gain, sample_rate, delay) / gain


@functools.lru_cache
def _usable_codings(sample_rate: int) -> tuple[tuple[_Coding, int], ...]:
    """What this machine's libsndfile can write, and by how many samples it comes back late.

    Delays are measured, since they depend on libsndfile, on its encoders, and for MP3 on the bitrate too. Opus is on
    time up to 16 kHz; at higher rates it is early by 0 to 40 µs, depending on what it codes, and is left so.
    """
    from scipy import signal

    noise = np.random.default_rng(0).standard_normal(sample_rate)
    # A spectrum that falls like that of most sounds, so that codecs spend their bits where the signal is.
    wav = signal.lfilter([1.0], [1.0, -0.9], noise)
    wav = (wav * _CODING_PEAK / np.abs(wav).max()).astype(np.float32)
    usable = []
    for coding in _CODINGS:
        try:
            back = _through(coding, wav, sample_rate, delay=0)
        except soundfile.LibsndfileError:
            continue
        similarity = signal.correlate(back, wav, mode="full", method="fft")
        usable.append((coding, int(np.argmax(similarity[len(wav) - 1 :]))))
    return tuple(usable)


def _through(coding: _Coding, wav: Wav, sample_rate: int, delay: int) -> Wav:
    """Encode and decode `[T]`, and leave out the first `delay` samples: `[T]`."""
    rate, file = coding.rate(sample_rate), io.BytesIO()
    whole = _resampled(wav, sample_rate, rate, round(len(wav) * rate / sample_rate))
    with soundfile.SoundFile(
        file,
        "w",
        rate,
        channels=1,
        format=coding.format,
        subtype=coding.subtype,
        compression_level=coding.compression,
        bitrate_mode="CONSTANT" if coding.format == "MP3" else None,
    ) as sound:
        # libsndfile's Vorbis encoder takes stack space in proportion to what it gets at once.
        for begin in range(0, len(whole), 1 << 16):
            sound.write(whole[begin : begin + (1 << 16)])
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype="float32")
    decoded = _resampled(decoded, rate, sample_rate, round(len(decoded) * sample_rate / rate))
    return _fitted(decoded[delay:], len(wav))


def _resampled(wav: Wav, in_rate: int, out_rate: int, length: int) -> Wav:
    if in_rate == out_rate:
        return _fitted(wav, length)
    # One-shot soxr: linear phase, its delay taken out.
    return _fitted(soxr.resample(wav, in_rate, out_rate), length)


def _fitted(wav: Wav, length: int) -> Wav:
    """Cut, or continued with zeros, to `[length]`."""
    return wav[:length] if len(wav) >= length else np.pad(wav, (0, length - len(wav)))
