"""Coding frame by frame: nothing depends on what comes later, and nothing waits for more than its frames."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sdcodec_cli import load_codec
from sdcodec_cli.engine.codec import Codec

from tiny_models import tiny_recipe, write_tiny

HOP = 320


@pytest.fixture(scope="module", params=["conv", "lstm"])
def codec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Codec:
    recipe = tiny_recipe(request.param, activity=False)
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, causal=True))
    return load_codec(write_tiny(tmp_path_factory.mktemp("model") / "causal", recipe), runtime="torch", device="cpu")


@pytest.fixture(scope="module")
def wav() -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(24 * HOP)).astype(np.float32)


def through(codec: Codec, wav: np.ndarray, *, size: int, frames: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Codes `[N, K, F]` and audio `[S, T]` of a signal that arrives in pieces of a size."""
    encoder, decoder = codec.frame_encoder(frames=frames), codec.frame_decoder(["mix", "speech"])
    codes, audio = [], []
    for start in range(0, len(wav), size):
        codes.append(encoder.push(wav[start : start + size]))
        audio.append(decoder.push(codes[-1]))
    codes.append(encoder.finish())
    audio.append(decoder.push(codes[-1]))
    return np.concatenate(codes, axis=-1), np.concatenate(audio, axis=-1)


def test_frames_come_out_as_soon_as_they_are_complete_and_their_audio_with_them(codec, wav):
    for frames in (1, 4):
        encoder, decoder = codec.frame_encoder(frames=frames), codec.frame_decoder(["mix"])
        given = 0
        for end in range(100, 10 * HOP, 100):
            given += decoder.push(encoder.push(wav[end - 100 : end])).shape[-1]
            assert end - given < frames * HOP  # the delay that is stated


@pytest.mark.parametrize("frames", [3, 7])
def test_codes_and_audio_are_those_of_the_whole_signal(codec, wav, frames):
    codes, audio = through(codec, wav, size=333, frames=frames)
    whole = codec.model.quantize(codec.model.analyse(wav).latent)
    assert (codes == whole).mean() > 0.999  # rounding may decide a tie
    np.testing.assert_allclose(audio[0], codec.model.synthesize(codes, [[0, 1, 2]])[0], atol=1e-5)
    np.testing.assert_allclose(audio[1], codec.model.synthesize(codes, [[0]])[0], atol=1e-5)


def test_codes_do_not_depend_on_how_the_audio_arrives(codec, wav):
    codes, audio = through(codec, wav, size=len(wav))
    again, heard = through(codec, wav, size=101)
    np.testing.assert_array_equal(codes, again)
    np.testing.assert_allclose(audio, heard, atol=1e-5)


def test_what_comes_out_up_to_a_time_does_not_depend_on_what_comes_in_after_it(codec, wav):
    other = wav.copy()
    other[12 * HOP :] = 0.5
    codes, audio = through(codec, wav, size=200)
    changed, heard = through(codec, other, size=200)
    np.testing.assert_array_equal(codes[..., :12], changed[..., :12])
    np.testing.assert_array_equal(audio[:, : 12 * HOP], heard[:, : 12 * HOP])
    assert (codes[..., 12:] != changed[..., 12:]).any()


def test_a_last_frame_that_is_not_complete_is_filled_with_silence(codec, wav):
    codes, _ = through(codec, wav[: 3 * HOP + 5], size=100, frames=7)
    padded = np.pad(wav[: 3 * HOP + 5], (0, HOP - 5))
    whole = codec.model.quantize(codec.model.analyse(padded).latent)
    np.testing.assert_array_equal(codes, whole)


def test_a_model_that_looks_ahead_is_refused(tmp_path, codec):
    other = load_codec(write_tiny(tmp_path / "m", tiny_recipe("conv")), runtime="torch", device="cpu")
    for make in (other.frame_encoder, lambda: other.frame_decoder(["mix"])):
        with pytest.raises(ValueError, match="tiny-conv looks ahead, so it codes in blocks"):
            make()
    with pytest.raises(ValueError, match="frames must be at least 1, got 0"):
        codec.frame_encoder(frames=0)
    with pytest.raises(ValueError, match="has no stem noise"):
        codec.frame_decoder(["noise"])
