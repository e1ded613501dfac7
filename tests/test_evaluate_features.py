"""Features of noisy speech: what they are, and what probes make of those whose answers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from speech_examples import small_codec

from sdcodec_cli.engine.evaluate import features, probe
from sdcodec_cli.engine.evaluate.features import Kind, features_of, mel_spectrogram, probe_errors
from sdcodec_cli.engine.evaluate.noisy import MixturePlan
from sdcodec_cli.engine.evaluate.protocol import Clip
from sdcodec_cli.engine.systems import Mixture, SeparatingCodec

RATE = 16_000


def test_a_tone_is_in_its_mel_band_whatever_its_level() -> None:
    wav = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    found = mel_spectrogram(wav)
    assert (found.shape, found.dtype) == ((50, 80), np.float32)
    # 1 kHz is at 15 of 45.2 mel, in 81 steps.
    assert set(found[5:45].argmax(1)) == {26}
    np.testing.assert_allclose(mel_spectrogram(0.01 * wav), found, atol=1e-3)
    assert np.isfinite(mel_spectrogram(np.zeros(100, dtype=np.float32))).all()


def test_features_are_the_first_codebook_of_speech_and_its_quantized_latent(tmp_path: Path) -> None:
    codec = small_codec("decodec", tmp_path)
    wav = 0.05 * np.random.default_rng(0).standard_normal(RATE, dtype=np.float32)
    found = features_of([SeparatingCodec(codec)], wav, RATE)
    frames = RATE // codec.hop_length
    size = codec.model.streams[0].codebook_size
    first, latents, mel = found
    assert first == Kind("tiny-decodec, first codebook", size)
    assert (latents, mel) == (Kind("tiny-decodec, latents", None), Kind("mel", None))
    codes = codec.at_effort(0).encode(wav, active=codec.domains, envelope=False).codes["speech"][0]
    np.testing.assert_array_equal(found[first], codes[0])
    network = codec.model.runtime.network
    wanted = network.quantizer.dequantize(stacked(codec, codes))[0]
    assert found[latents].shape == (frames, len(wanted))
    np.testing.assert_allclose(found[latents].T, wanted.detach().numpy(), atol=2e-3)


def stacked(codec, codes):
    import torch

    return torch.from_numpy(np.stack([codes] * len(codec.domains)))


class Spoken:
    """A plan whose speech says one of three phonemes, and whose features tell which unless noise hides it."""

    room = None
    sample_rate = RATE

    def __init__(self, number: int, snr: float | None) -> None:
        self.speech, self.snr, self.name = self, snr, f"{number}, {snr}"
        self.number, self.condition = number, "clean" if snr is None else f"{snr:g} dB"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spoken) and other.number == self.number

    def load(self) -> Clip:
        return Clip(self.name, np.full(10, self.number % 3 + (10 if self.snr is not None else 0), np.float32), {})


def test_probes_tell_what_features_hold_in_every_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[MixturePlan] = [Spoken(number, snr) for number in range(20) for snr in (None, 0.0)]  # type: ignore[misc]
    monkeypatch.setattr(features, "hear_phonemes", lambda wav: tuple("abc")[int(wav[0]) :][:1])

    def known(systems, mix, sample_rate):
        told = int(mix[0])
        return {Kind("known", 4): np.full(8, 3 if told >= 10 else told, dtype=np.int64)}

    monkeypatch.setattr(features, "features_of", known)
    monkeypatch.setattr(features, "train_probe", lambda *args, **more: probe.train_probe(*args, **more, steps=120))
    steps: list[float] = []
    rows = probe_errors([Mixture(("speech",))], plans, progress=lambda done, total: steps.append(done))
    assert {(row.task, row.system, row.metric) for row in rows} == {("features", "known", "phoneme_errors")}
    errors = {condition: [row.value for row in rows if row.condition == condition] for condition in ("clean", "0 dB")}
    assert errors["clean"] == [0.0] * 4
    assert sum(errors["0 dB"]) > 0  # type: ignore[arg-type]
    assert steps[:20] == list(range(1, 21))


def test_too_little_speech_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    plans: list[MixturePlan] = [Spoken(number, None) for number in range(3)]  # type: ignore[misc]
    assert probe_errors([], plans, note=notes.append) == []
    assert notes == ["no features: probes need 20 clips of speech to learn from, and there are 3"]
