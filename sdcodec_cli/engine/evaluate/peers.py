"""Codecs to stand beside a model: Opus, DAC, EnCodec, other models. None is ever downloaded.

A peer codes whatever it is given, a mixture or a stem, as one signal, and says what it took.

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
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import soundfile

from ... import zoo
from ...audio import StreamResampler, integrated_loudness
from ...errors import ModelError, SdcError
from .types import Wav

if TYPE_CHECKING:
    from ..codec import Codec

OPUS_BITRATES = (6.0, 256.0)
"""What encoders take for one channel, in kbit/s."""

OPUS_BITRATE = 18.0
"""Of `opus` without a number: what the paper's model takes for a mixture, in kbit/s."""

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

ENCODEC_BITRATE = 6.0
"""Of `encodec` without a number: what the paper's model takes for a stem, in kbit/s."""


class Peer(Protocol):
    """A codec that is compared with."""

    name: str
    """Such as `opus 18`."""
    identity: str
    """What tells it from others of the same name; for models see `identity_of`."""

    def resynthesize(self, wav: Wav, sample_rate: int) -> tuple[Wav, float]:
        """A signal `[T]` there and back: `[T]`, in time with it, and the bitrate that it took in kbit/s."""

    def close(self) -> None:
        """Let go of the model; the peer cannot be used any more."""


def find_peer(text: str, *, device: str = "auto", effort: int | None = None) -> Peer:
    """A peer by what a person writes.

    Args:
        text: `opus`, `opus:18` (kbit/s), `dac`, `encodec`, `encodec:6`, the name of a model of the zoo, or its folder
        device: where models run, as for `load_codec`; Opus runs on the processor
        effort: of a model's encoding, as for `load_codec`

    Raises:
        ModelError: there is no such peer, a bitrate that it does not have, or something is not installed
        DeviceError: no such device
    """
    kind, _, rate = text.partition(":")
    if kind == "opus":
        return _Opus(text, _rate(text, rate, OPUS_BITRATE))
    if kind == "encodec":
        return _find_encodec(text, _rate(text, rate, ENCODEC_BITRATE), device)
    if text == "dac":
        return _find_dac(device, effort)
    try:
        zoo.find(text)
    except ModelError as error:
        raise ModelError(f"{error}; what is not a model is mixture, opus:KBPS, dac or encodec:KBPS") from error
    return _find_model(text, device, effort)


def is_program(text: str) -> bool:
    """Whether a name stands for something else than a model of ours, whatever folders there are."""
    return text.partition(":")[0] in ("opus", "encodec", "dac")


def _rate(text: str, rate: str, default: float) -> float:
    """The bitrate in `opus:18`."""
    if ":" not in text:
        return default
    try:
        return float(rate)
    except ValueError:
        kind = text.partition(":")[0]
        raise ModelError(
            f"{text}: {rate!r} is not a bitrate; write {kind}:{default:g} for {default:g} kbit/s"
        ) from None


# --------------------------------------------------------------------------------------------------------------------
# Opus
# --------------------------------------------------------------------------------------------------------------------


class _Opus:
    """Opus by ffmpeg, or by opusenc and opusdec; the whole file counts.

    The bitrate varies, but is constrained: without that, music at 18 kbit/s takes 23 to 26, and the peer would not be
    what its name says. ffmpeg is asked first, because its decoder is truer to the waveform: by 2 dB of SI-SDR for
    speech at 18 kbit/s.
    """

    def __init__(self, text: str, bitrate: float) -> None:
        least, most = OPUS_BITRATES
        if not least <= bitrate <= most:
            raise ModelError(f"{text}: Opus codes mono at {least:g} to {most:g} kbit/s; choose a bitrate in between")
        self.name = self.identity = f"opus {bitrate:g}"
        self._bitrate = bitrate
        self._ffmpeg = _ffmpeg_has_opus()
        if not self._ffmpeg and not (shutil.which("opusenc") and shutil.which("opusdec")):
            raise ModelError(
                f"{text}: needs ffmpeg with libopus, or opusenc and opusdec; install one of them "
                "(Debian: apt-get install ffmpeg, or opus-tools)"
            )

    def resynthesize(self, wav: Wav, sample_rate: int) -> tuple[Wav, float]:
        """See `Peer`."""
        original = io.BytesIO()
        soundfile.write(original, wav, sample_rate, format="WAV", subtype="FLOAT")
        quiet = ["ffmpeg", "-hide_banner", "-loglevel", "error"]
        if self._ffmpeg:
            rate = str(round(self._bitrate * 1000))
            encode = [
                *quiet,
                "-f",
                "wav",
                "-i",
                "-",
                "-c:a",
                "libopus",
                "-vbr",
                "constrained",
                "-b:a",
                rate,
                "-f",
                "ogg",
                "-",
            ]
            decode = [*quiet, "-f", "ogg", "-i", "-", "-ar", str(sample_rate), "-f", "f32le", "-"]
        else:
            # opusenc leaves room for tags by default, 512 bytes in every file.
            plain = ["--quiet", "--padding", "0", "--discard-comments"]
            encode = ["opusenc", *plain, "--cvbr", "--bitrate", f"{self._bitrate:.3f}", "-", "-"]
            decode = ["opusdec", "--quiet", "--float", "--rate", str(sample_rate), "-", "-"]
        coded = _run(encode, original.getvalue())
        decoded = np.frombuffer(_run(decode, coded), dtype="<f4")
        return in_time(_fitted(decoded, len(wav)), wav, sample_rate), _kbits(8 * len(coded), len(wav) / sample_rate)

    def close(self) -> None:
        """See `Peer`; there is nothing to let go of."""


def _ffmpeg_has_opus() -> bool:
    if shutil.which("ffmpeg") is None:
        return False
    found = subprocess.run(["ffmpeg", "-hide_banner", "-encoders"], capture_output=True, text=True, check=False)
    return " libopus " in found.stdout


def _run(command: list[str], data: bytes) -> bytes:
    """What a program makes of its standard input."""
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise SdcError(f"{command[0]}: failed: {said[-1]}; leave opus out")
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


# --------------------------------------------------------------------------------------------------------------------
# Models
# --------------------------------------------------------------------------------------------------------------------


def identity_of(codec: Codec) -> str:
    """What the measurements of a model depend on."""
    return f"{codec.weights_sha256.hex()}, effort {codec.effort}"


class _Model:
    """A model of the zoo: what `sdc compress` and `sdc decode` make of a signal; codes alone count."""

    def __init__(self, codec: Codec) -> None:
        self.name, self.identity = codec.name, identity_of(codec)
        self._codec = codec

    def resynthesize(self, wav: Wav, sample_rate: int) -> tuple[Wav, float]:
        """See `Peer`."""
        codes = self._codec.encode(_resampled(wav, sample_rate, self._codec.sample_rate))
        back = _resampled(self._codec.decode(codes), self._codec.sample_rate, sample_rate)
        return _fitted(back, len(wav)), self._codec.stored_bitrate(codes)

    def close(self) -> None:
        """See `Peer`."""
        del self._codec


class _Dac:
    """DAC at 16 kHz, as the package descript-audio-codec has it."""

    name = identity = "dac"

    def __init__(self, model: Any, device: Any) -> None:
        self._model, self._device = model.to(device).eval(), device

    def resynthesize(self, wav: Wav, sample_rate: int) -> tuple[Wav, float]:
        """See `Peer`."""
        import torch

        given = _resampled(wav, sample_rate, DAC_RATE)
        # As `dac encode` does: to the loudness that it was trained on, and not beyond full scale.
        loudness = integrated_loudness(given[None], DAC_RATE)
        gain = 1.0 if loudness == -math.inf else 10 ** ((DAC_LOUDNESS - loudness) / 20)
        gain /= max(1.0, gain * float(np.abs(given).max()))
        with torch.inference_mode():
            signal = torch.from_numpy(given * np.float32(gain))[None, None].to(self._device)
            latent, codes, *_ = self._model.encode(self._model.preprocess(signal, DAC_RATE))
            decoded = self._model.decode(latent)[0, 0].cpu().numpy() / np.float32(gain)
        bits = codes.numel() * math.log2(self._model.codebook_size)
        # A few samples short, at the end.
        back = _resampled(_fitted(decoded, len(given)), DAC_RATE, sample_rate)
        return _fitted(back, len(wav)), _kbits(bits, len(wav) / sample_rate)

    def close(self) -> None:
        """See `Peer`."""
        del self._model


class _Encodec:
    """EnCodec at 24 kHz, as the package encodec has it, without its language model."""

    def __init__(self, model: Any, bitrate: float, device: Any) -> None:
        self.name = self.identity = f"encodec {bitrate:g}"
        self._model, self._device = model.to(device).eval(), device
        self._model.set_target_bandwidth(bitrate)

    def resynthesize(self, wav: Wav, sample_rate: int) -> tuple[Wav, float]:
        """See `Peer`."""
        import torch

        rate = self._model.sample_rate
        given = _resampled(wav, sample_rate, rate)
        with torch.inference_mode():
            frames = self._model.encode(torch.from_numpy(given)[None, None].to(self._device))
            decoded = self._model.decode(frames)[0, 0].cpu().numpy()
        bits = sum(codes.numel() for codes, _ in frames) * self._model.bits_per_codebook
        back = _resampled(_fitted(decoded, len(given)), rate, sample_rate)
        return _fitted(back, len(wav)), _kbits(bits, len(wav) / sample_rate)

    def close(self) -> None:
        """See `Peer`."""
        del self._model


def _find_model(text: str, device: str, effort: int | None) -> Peer:
    from ..codec import load_codec

    return _Model(load_codec(text, device=device, effort=effort))


def _find_dac(device: str, effort: int | None) -> Peer:
    from ...runtime.torch import choose_device

    weights = Path(os.path.expanduser("~"), DAC_WEIGHTS)  # stays ~ where there is no home
    if _installed("dac") and weights.is_file():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own dependencies' deprecations
            model = importlib.import_module("dac").DAC.load(str(weights))
        return _Dac(model, choose_device(device))
    if zoo.find("dac-16k").size_bytes is not None:
        return _find_model("dac-16k", device, effort)
    raise ModelError(
        "dac: needs the package descript-audio-codec and its weights (pip install descript-audio-codec, then python -m "
        "dac download --model_type 16khz), or give the folder of a DAC made by sdc models import"
    )


def _find_encodec(text: str, bitrate: float, device: str) -> Peer:
    if bitrate not in ENCODEC_BITRATES:
        known = ", ".join(f"{rate:g}" for rate in ENCODEC_BITRATES)
        raise ModelError(f"{text}: EnCodec codes at {known} kbit/s; choose one of these")
    if not _installed("encodec"):
        raise ModelError(f"{text}: needs the package encodec and its weights; pip install encodec, and run it once")
    import torch

    from ...runtime.torch import choose_device

    weights = Path(torch.hub.get_dir()) / "checkpoints" / ENCODEC_WEIGHTS
    if not weights.is_file():
        raise ModelError(f"{text}: its weights are not at {weights}; run encodec once, which downloads them")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own dependencies' deprecations
        model = importlib.import_module("encodec").EncodecModel.encodec_model_24khz()
    return _Encodec(model, bitrate, choose_device(device))


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


# --------------------------------------------------------------------------------------------------------------------
# Signals
# --------------------------------------------------------------------------------------------------------------------


def _resampled(wav: Wav, rate: int, new_rate: int) -> Wav:
    resampler = StreamResampler(rate, new_rate, 1)
    found: Wav = np.concatenate([resampler.push(wav[None]), resampler.flush()], axis=1)[0]
    return found


def _fitted(wav: Wav, length: int) -> Wav:
    """The first samples of a signal, followed by zeros if there are too few."""
    return np.pad(wav, (0, max(0, length - len(wav))))[:length].astype(np.float32)


def _kbits(bits: float, seconds: float) -> float:
    return bits / 1000 / seconds
