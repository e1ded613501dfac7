"""Codecs of others, to stand beside a model: Opus, DAC, EnCodec. None is ever downloaded; see `systems`.

Legend: T samples.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import math
import os
import shutil
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from .. import zoo
from ..audio import Wav, db_to_amplitude, integrated_loudness, resampled
from ..errors import ModelError, SdcError

OPUS_BITRATES = (6.0, 256.0)
"""What encoders take for one channel, in kbit/s."""

OPUS_BITRATE, ENCODEC_BITRATE = 18.0, 6.0
"""Of `opus` and `encodec` without a number: what the paper's model takes for a mixture, and for a stem, in kbit/s."""

MAX_SHIFT = 0.25e-3
"""How far Opus may be off in time, in seconds; see `in_time`."""

DAC_WEIGHTS = Path(".cache", "descript", "dac", "weights_16khz_8kbps_0.0.5.pth")
"""Where the package descript-audio-codec keeps them, below the home folder. "8kbps" is a name; they code at 6."""

DAC_RATE, DAC_LOUDNESS = 16_000, -16.0
"""Hz, and LUFS that `dac encode` brings audio to."""

ENCODEC_WEIGHTS = "encodec_24khz-d7cc33bc.th"
"""File in the folder of torch.hub's checkpoints."""

ENCODEC_BITRATES = (1.5, 3.0, 6.0, 12.0, 24.0)
"""Of the 24 kHz model, in kbit/s."""


def _rate(text: str, default: float) -> float:
    """The bitrate in `opus:18`."""
    kind, colon, rate = text.partition(":")
    try:
        return float(rate) if colon else default
    except ValueError:
        raise ModelError(
            f"{text}: {rate!r} is not a bitrate; write {kind}:{default:g} for {default:g} kbit/s"
        ) from None


class Opus:
    """Opus by ffmpeg, or by opusenc and opusdec; the whole file counts.

    The bitrate varies, but is constrained: without that, music at 18 kbit/s takes 23 to 26, and the system would not be
    what its name says. ffmpeg is asked first, because its decoder is truer to the waveform: by 2 dB of SI-SDR for
    speech at 18 kbit/s.
    """

    def __init__(self, text: str) -> None:
        self._bitrate, (least, most) = _rate(text, OPUS_BITRATE), OPUS_BITRATES
        if not least <= self._bitrate <= most:
            raise ModelError(f"{text}: Opus codes mono at {least:g} to {most:g} kbit/s; choose a bitrate in between")
        self.name = self.identity = f"opus {self._bitrate:g}"
        self._ffmpeg = ffmpeg_has_opus()
        if not self._ffmpeg and not (shutil.which("opusenc") and shutil.which("opusdec")):
            raise ModelError(
                f"{text}: needs ffmpeg with libopus, or opusenc and opusdec; install one of them "
                "(Debian: apt-get install ffmpeg, or opus-tools)"
            )

    def resynthesize(self, wav: Wav, sample_rate: int, domain: str | None = None) -> tuple[Wav, float]:
        """See `systems.Resynthesizes`."""
        original = io.BytesIO()
        soundfile.write(original, wav, sample_rate, format="WAV", subtype="FLOAT")
        if self._ffmpeg:
            quiet = "ffmpeg -hide_banner -loglevel error"
            to_opus = f"-c:a libopus -vbr constrained -b:a {round(self._bitrate * 1000)} -f ogg"
            encode = f"{quiet} -f wav -i - {to_opus} -"
            decode = f"{quiet} -f ogg -i - -ar {sample_rate} -f f32le -"
        else:
            # opusenc leaves room for tags by default, 512 bytes in every file.
            encode = f"opusenc --quiet --padding 0 --discard-comments --cvbr --bitrate {self._bitrate:.3f} - -"
            decode = f"opusdec --quiet --float --rate {sample_rate} - -"
        coded = run(encode, original.getvalue())
        decoded = np.frombuffer(run(decode, coded), dtype="<f4")
        return in_time(fitted(decoded, len(wav)), wav, sample_rate), 8 * len(coded) / 1000 / (len(wav) / sample_rate)


def ffmpeg_has_opus() -> bool:
    """Whether there is an ffmpeg that was built with libopus."""
    if shutil.which("ffmpeg") is None:
        return False
    found = subprocess.run(["ffmpeg", "-hide_banner", "-encoders"], capture_output=True, text=True, check=False)
    return " libopus " in found.stdout


def run(command: str, data: bytes) -> bytes:
    """What a program makes of its standard input."""
    program, *_ = arguments = command.split()
    done = subprocess.run(arguments, input=data, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise SdcError(f"{program}: failed: {said[-1]}; leave opus out")
    return done.stdout


def in_time(wav: Wav, reference: Wav, sample_rate: int) -> Wav:
    """A decoded signal `[T]`, moved by the fraction of a millisecond that brings it in time with its original `[T]`.

    Programs take the delay of Opus off in whole samples and the same in all of its modes, and are up to 2 samples of
    16 kHz early or late. Nobody hears that, but it can cost 5 dB of SI-SDR (opusdec, speech at 18 kbit/s: 12.2 dB
    instead of 17.6).
    """
    size = 1 << (len(reference) + 64).bit_length()
    spectrum = np.fft.rfft(wav, size)
    cross = np.conj(np.fft.rfft(reference, size)) * spectrum
    omega = 2 * np.pi * np.arange(len(cross)) / size
    most = max(1, round(MAX_SHIFT * sample_rate))
    lags = np.arange(-most, most + 1)
    lag = float(lags[np.fft.irfft(cross)[lags].argmax()])
    # The correlation is a sum of cosines of the lag, so Newton finds its maximum between the samples.
    for _ in range(4):
        terms = cross * np.exp(1j * omega * lag)
        slope, curvature = -(omega * terms.imag).sum(), -(omega**2 * terms.real).sum()
        if curvature >= 0:
            return wav
        lag = float(np.clip(lag - slope / curvature, -most, most))
    moved = np.fft.irfft(spectrum * np.exp(1j * omega * lag))[: len(wav)]
    return np.asarray(moved, dtype=np.float32)


@dataclass
class Packaged:
    """A codec as its package has it, in torch."""

    name: str
    identity: str
    sample_rate: int
    device: Any
    code: Callable[[Any], tuple[Any, float]]
    """A tensor `[1, 1, T]` there and back, and the bits that this took."""
    loudness: float | None = None
    """What its encoder wants to be given, in LUFS."""

    def resynthesize(self, wav: Wav, sample_rate: int, domain: str | None = None) -> tuple[Wav, float]:
        """See `systems.Resynthesizes`."""
        import torch

        given, gain = resampled(wav, sample_rate, self.sample_rate), 1.0
        if self.loudness is not None:
            loudness = integrated_loudness(given[None], self.sample_rate)
            gain = 1.0 if loudness == -math.inf else db_to_amplitude(self.loudness - loudness)
            # Not beyond full scale.
            gain /= max(1.0, gain * float(np.abs(given).max()))
        with torch.inference_mode():
            decoded, bits = self.code(torch.from_numpy(given * np.float32(gain))[None, None].to(self.device))
        # A few samples short, at the end.
        back = fitted(decoded[0, 0].cpu().numpy() / np.float32(gain), len(given))
        return fitted(resampled(back, self.sample_rate, sample_rate), len(wav)), bits / 1000 / (len(wav) / sample_rate)


def find_dac(device: str) -> Packaged | None:
    """The package's DAC at 16 kHz; None where only the zoo has one."""
    weights = Path(os.path.expanduser("~"), DAC_WEIGHTS)  # stays ~ where there is no home
    if installed("dac") and weights.is_file():
        model, place = _loaded(lambda: importlib.import_module("dac").DAC.load(str(weights)), device)

        def code(signal: Any) -> tuple[Any, float]:
            latent, codes, *_ = model.encode(model.preprocess(signal, DAC_RATE))
            return model.decode(latent), codes.numel() * math.log2(model.codebook_size)

        return Packaged("dac", "dac", DAC_RATE, place, code, DAC_LOUDNESS)
    if zoo.find("dac-16k").size_bytes is None:
        raise ModelError(
            "dac: needs the package descript-audio-codec and its weights (pip install descript-audio-codec, then "
            "python -m dac download --model_type 16khz), or give the folder of a DAC made by sdc models import"
        )
    return None


def find_encodec(text: str, device: str) -> Packaged:
    """The package's EnCodec at 24 kHz, without its language model, by a name such as `encodec:6`."""
    bitrate = _rate(text, ENCODEC_BITRATE)
    if bitrate not in ENCODEC_BITRATES:
        known = ", ".join(f"{rate:g}" for rate in ENCODEC_BITRATES)
        raise ModelError(f"{text}: EnCodec codes at {known} kbit/s; choose one of these")
    if not installed("encodec"):
        raise ModelError(f"{text}: needs the package encodec and its weights; pip install encodec, and run it once")
    import torch

    weights = Path(torch.hub.get_dir()) / "checkpoints" / ENCODEC_WEIGHTS
    if not weights.is_file():
        raise ModelError(f"{text}: its weights are not at {weights}; run encodec once, which downloads them")
    model, place = _loaded(lambda: importlib.import_module("encodec").EncodecModel.encodec_model_24khz(), device)
    model.set_target_bandwidth(bitrate)
    name = f"encodec {bitrate:g}"

    def code(signal: Any) -> tuple[Any, float]:
        frames = model.encode(signal)
        return model.decode(frames), sum(codes.numel() for codes, _ in frames) * model.bits_per_codebook

    return Packaged(name, name, model.sample_rate, place, code)


def _loaded(load: Callable[[], Any], device: str) -> tuple[Any, Any]:
    """A package's model, ready to compute, and the device that it is on."""
    from ..runtime.torch import choose_device

    place = choose_device(device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own dependencies' deprecations
        return load().to(place).eval(), place


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def fitted(wav: Wav, length: int) -> Wav:
    """The first samples of a signal `[T]`, followed by zeros if there are too few."""
    return np.pad(wav, (0, max(0, length - len(wav))))[:length].astype(np.float32)
