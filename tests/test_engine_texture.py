"""Texture: what is made up above the frequency where codes stop carrying the waveform, and what stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from audio_examples import si_sdr

from sdcodec_cli import load_codec
from sdcodec_cli.engine.compress import compress
from sdcodec_cli.engine.decode import decode
from sdcodec_cli.engine.texture import Texture
from sdcodec_cli.errors import RecipeError
from sdcodec_cli.recipe import override
from sdcodec_cli.zoo import find

from cli_examples import sdc
from tiny_models import tiny_recipe, write_tiny

RATE, HOP, BEGIN = 16_000, 320, 1400.0


@pytest.fixture(scope="module")
def texture() -> Texture:
    return Texture(BEGIN, RATE, HOP)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    recipe = override(tiny_recipe(activity=False), {"model.texture": "1400"})
    return load_codec(write_tiny(tmp_path_factory.mktemp("model") / "tiny", recipe))


def band(wav: np.ndarray, low: float, high: float) -> np.ndarray:
    spectrum = np.fft.rfft(wav)
    bins = np.fft.rfftfreq(wav.shape[-1], 1 / RATE)
    return np.fft.irfft(spectrum * ((bins >= low) & (bins < high)), n=wav.shape[-1])


def buzz(wav: np.ndarray) -> float:
    """How alike frames are above 2.5 kHz: the correlation with what was one frame before, from -1 to 1."""
    upper = band(wav, 2500, 7900)
    return float(np.corrcoef(upper[HOP:], upper[:-HOP])[0, 1])


def voice(pitch: float, seconds: float = 2.0) -> np.ndarray:
    """Pulses below the texture, and above it what the decoder makes: noise that repeats in each frame."""
    time = np.arange(int(seconds * RATE)) / RATE
    low = sum(np.cos(2 * np.pi * pitch * k * time) for k in range(1, int(1300 / pitch) + 1))
    frame = np.random.default_rng(0).standard_normal(HOP)
    high = band(np.tile(frame, len(time) // HOP), 1500, 7900)
    return (0.02 * low + 0.05 * high).astype(np.float32)


def test_what_repeats_in_each_frame_gets_the_pitch_of_what_is_below(texture):
    wav = voice(pitch=230.0)
    made = texture.applied(wav[None])[0]
    assert buzz(wav) > 0.95
    assert abs(buzz(made)) < 0.3
    # Harmonics of the pitch stand out from what is between them.
    spectrum = np.abs(np.fft.rfft(made[:RATE] * np.hanning(RATE)))  # of 1 Hz
    harmonics = [230 * k for k in range(10, 20)]
    on, between = (np.mean([spectrum[f + off - 2 : f + off + 3].max() for f in harmonics]) for off in (0, 115))
    assert on > 5 * between


def test_noise_stays_noise_at_its_levels(texture):
    wav = (0.05 * np.random.default_rng(1).standard_normal(4 * RATE)).astype(np.float32)
    made = texture.applied(wav[None])[0]
    assert abs(buzz(made)) < 0.1
    for low in (2200, 3500, 5000, 6500):
        change = np.square(band(made, low, low + 1000)).sum() / np.square(band(wav, low, low + 1000)).sum()
        assert abs(10 * np.log10(change)) < 0.5


def test_below_its_beginning_and_in_silence_nothing_changes(texture):
    wav = voice(pitch=150.0)
    made = texture.applied(wav[None])[0]
    inner = slice(2 * HOP, -2 * HOP)
    assert si_sdr(band(made, 0, BEGIN - 100)[inner], band(wav, 0, BEGIN - 100)[inner]) > 35
    assert not texture.applied(np.zeros((2, 5 * HOP), dtype=np.float32)).any()


def test_stems_are_made_each_by_itself(texture):
    wavs = np.stack([voice(110.0), voice(230.0)])
    both = texture.applied(wavs)
    assert np.allclose(both, np.concatenate([texture.applied(wav[None]) for wav in wavs]), atol=1e-6)


def test_audio_is_textured_the_same_however_its_codes_arrive(tiny):
    wav = np.random.default_rng(2).standard_normal(1300 * HOP).astype(np.float32) * 0.05
    codes = tiny.encode(wav, normalize=False)
    whole = tiny.decode(codes)
    decoder, pieces = tiny.stream_decoder(["mix"], envelope=codes.envelope.layout), []
    gains = codes.envelope.of_frames(0, 1300)
    for start in range(0, 1300, 77):
        span = slice(start, min(start + 77, 1300))
        streams = {name: found[0, :, span] for name, found in codes.codes.items()}
        pieces += decoder.push(streams, span.stop - start, gains[:, span])
    pieces += decoder.finish()
    assert np.array_equal(np.concatenate(pieces, axis=-1)[0], whole)
    assert not np.allclose(tiny.decode(codes, texture=False), whole, atol=1e-3)


def test_a_part_of_a_file_sounds_as_in_the_whole(tiny, tmp_path):
    wav = np.random.default_rng(3).standard_normal(12 * RATE).astype(np.float32) * 0.05
    soundfile.write(tmp_path / "a.wav", wav, RATE)
    compress(tmp_path / "a.wav", tmp_path / "a.sdc", codec=tiny)
    decode(tmp_path / "a.sdc", {"mix": tmp_path / "whole.wav"}, codec=tiny)
    decode(tmp_path / "a.sdc", {"mix": tmp_path / "part.wav"}, codec=tiny, start=7.3, duration=1.5)
    whole, part = (soundfile.read(tmp_path / name, dtype="float32")[0] for name in ("whole.wav", "part.wav"))
    begin = round(7.3 * RATE)
    assert np.abs(part - whole[begin : begin + len(part)]).max() < 2e-4


def test_a_model_whose_codes_have_no_texture_is_left_alone(tmp_path):
    codec = load_codec(write_tiny(tmp_path / "m", tiny_recipe(activity=False)))
    codes = codec.encode(np.random.default_rng(4).standard_normal(8000).astype(np.float32))
    assert np.array_equal(codec.decode(codes), codec.decode(codes, texture=False))


def test_the_embedded_model_does_not_buzz(embedded, scene):
    """Of its network the upper frequencies are nearly the same in each frame, whatever the sound."""
    codes = embedded.at_effort(0).encode(scene[:64_000], envelope=False)
    network, sounds = (embedded.decode(codes, texture=texture) for texture in (False, True))
    assert buzz(scene[:64_000]) < 0.2
    assert buzz(network) > 0.5
    assert abs(buzz(sounds)) < 0.2
    assert si_sdr(sounds, scene[:64_000]) > si_sdr(network, scene[:64_000]) - 0.1


def test_the_command_line_can_leave_it_out(embedded, scene, tmp_path):
    soundfile.write(tmp_path / "a.wav", scene[:48_000], RATE)
    compress(tmp_path / "a.wav", tmp_path / "a.sdc", codec=embedded.at_effort(0))
    for name, option in (("with.wav", []), ("without.wav", ["--no-texture"])):
        assert sdc("decode", tmp_path / "a.sdc", "-o", tmp_path / name, "-q", *option).exit_code == 0
    with_it, without = (soundfile.read(tmp_path / name)[0] for name in ("with.wav", "without.wav"))
    assert abs(buzz(with_it)) < 0.2 < 0.5 < buzz(without)


@pytest.mark.parametrize("value", ["20", "8000", "-1"])
def test_a_recipe_with_texture_where_there_is_no_sound_is_refused(value):
    with pytest.raises(RecipeError, match=r"model.texture must be 0 or from 50 Hz, a frame's frequency, to below half"):
        override(find("sdcodec-16k-mini").recipe, {"model.texture": value})
