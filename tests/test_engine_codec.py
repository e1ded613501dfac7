"""Encoding and decoding in constant memory: chunks do not show."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sdcodec_cli import load_codec
from sdcodec_cli.engine.codec import Allocation, Codec
from sdcodec_cli.engine.stream import BLOCK_FRAMES, SEGMENT_FRAMES
from sdcodec_cli.errors import DeviceError, ModelError
from sdcodec_cli.recipe import override

from tiny_models import tiny_recipe, write_tiny

HOP = 320
LENGTH = 3 * BLOCK_FRAMES * HOP // 2 + 77
"""One and a half blocks and a bit."""


@pytest.fixture(scope="module", params=["spectral", "conv"])
def codec(request, tmp_path_factory) -> Codec:
    return load_codec(
        write_tiny(tmp_path_factory.mktemp("model") / request.param, tiny_recipe(request.param)), device="cpu"
    )


def signal(length: int = LENGTH) -> np.ndarray:
    """Noise whose level wanders, at the level that the models expect, so that its gain is near 0 dB."""
    noise = np.random.default_rng(1).standard_normal(length)
    wav = noise * 0.04 * (1.2 + np.sin(2 * np.pi * 0.3 * np.arange(length) / 16_000))
    return wav.astype(np.float32)


def whole(codec: Codec, wav: np.ndarray) -> np.ndarray:
    """Codes of the whole signal in one pass of the network, `[N, K, F]`."""
    network = codec.model.runtime.network
    with torch.inference_mode():
        return network.quantize(network.encode(torch.from_numpy(wav)[None, None])).codes[:, 0].numpy()


def test_codes_in_blocks_are_those_of_the_whole_file_at_once(codec):
    codes = codec.encode(signal(), normalize=False)
    assert np.array_equal(np.stack(list(codes.codes.values()))[:, 0], whole(codec, signal()))


def test_an_lstm_hears_as_much_in_blocks_as_in_the_whole_file(tmp_path):
    """Codes and audio; windows of the blocks begin where those of the whole do."""
    codec = load_codec(write_tiny(tmp_path / "m", tiny_recipe("lstm", activity=False)), device="cpu")
    wav = signal((BLOCK_FRAMES + 20) * HOP)
    codes = codec.encode(wav, normalize=False, envelope=False)
    found = np.stack(list(codes.codes.values()))[:, 0]
    assert np.array_equal(found, whole(codec, wav))
    decoded = codec.decode(codes)
    network = codec.model.runtime.network
    with torch.inference_mode():
        expected = network.decode(network.quantizer.dequantize(torch.from_numpy(found)).sum(0)[None])[0, 0]
    np.testing.assert_allclose(decoded, expected[: len(wav)].numpy(), atol=1e-5)


def test_codes_and_audio_are_arrays(codec):
    codes = codec.encode(signal(4000))
    assert {found.dtype for found in codes.codes.values()} == {np.dtype(np.int64)}
    assert {found.dtype for found in codes.active.values()} == {np.dtype(bool)}
    decoded = codec.decode(codes)
    assert isinstance(decoded, np.ndarray)
    assert decoded.dtype == np.float32


def test_sums_of_stems_are_decoded_from_their_codes_alone(codec):
    codes = codec.encode(signal(4000))
    without = codec.decode(codes, stem="without-speech")
    assert np.array_equal(without, codec.decode(codes, stem="music+sfx"))
    codes.active["speech"][:] = False
    assert np.array_equal(without, codec.decode(codes))
    with pytest.raises(ValueError, match="has no stem without-vocals"):
        codec.decode(codes, stem="without-vocals")


@pytest.mark.parametrize("size", [1000, 4001, 16_000, 99_999, LENGTH])
def test_codes_do_not_depend_on_how_the_audio_arrives(codec, size):
    encoder, wav = codec.stream_encoder(), signal()
    segments = []
    for start in range(0, LENGTH, size):
        segments += encoder.push(wav[start : start + size])
    segments += encoder.finish()
    assert np.array_equal(
        np.concatenate([np.stack([*segment.codes.values()]) for segment in segments], axis=-1), whole(codec, wav)
    )
    full, rest = divmod(math.ceil(LENGTH / HOP), SEGMENT_FRAMES)
    assert [segment.num_frames for segment in segments] == [SEGMENT_FRAMES] * full + [rest] * (rest > 0)


@pytest.mark.parametrize("size", [1, 7, 100, 333, BLOCK_FRAMES, 2 * BLOCK_FRAMES])
def test_audio_does_not_depend_on_how_the_codes_arrive(codec, size):
    codes = whole(codec, signal())
    frames = codes.shape[-1]
    decoder, pieces = codec.stream_decoder(["speech", "mix"]), []
    for start in range(0, frames, size):
        span = slice(start, min(start + size, frames))
        pieces += decoder.push(dict(zip(codec.domains, codes[..., span], strict=True)), span.stop - start)
    pieces += decoder.finish()
    wav = np.concatenate(pieces, axis=-1)
    network = codec.model.runtime.network
    with torch.inference_mode():
        latents = network.quantizer.dequantize(torch.from_numpy(codes))
        expected = network.decode(torch.stack([latents[0], latents.sum(0)]))[:, 0].numpy()
    assert wav.shape == (2, frames * HOP)
    assert np.abs(wav - expected).max() < 1e-4


@pytest.mark.parametrize("length", [1, HOP - 1, HOP, HOP + 1, 5000, SEGMENT_FRAMES * HOP, BLOCK_FRAMES * HOP + 1])
def test_audio_of_any_length_comes_back_at_that_length(codec, length):
    wav = np.random.default_rng(0).standard_normal(length) * 0.05
    codes = codec.encode(wav)
    assert codes.num_samples == length
    for stem in ("mix", *codec.domains):
        decoded = codec.decode(codes, stem=stem)
        assert decoded.shape == (length,)
        assert np.isfinite(decoded).all()


def test_rows_of_a_batch_are_signals_by_themselves_and_keep_their_shape(codec):
    wav = signal(20_000).reshape(2, 1, 10_000)
    codes = codec.encode(wav)
    assert codes.codes["music"].shape == (2, 4, math.ceil(10_000 / HOP))
    decoded = codec.decode(codes)
    assert decoded.shape == wav.shape
    assert np.array_equal(decoded[1, 0], codec.decode(codec.encode(wav[1, 0])))


def test_level_does_not_change_the_codes(codec):
    wav = signal(40_000)
    loud, soft = codec.encode(wav), codec.encode(wav / 16)
    assert soft.gain_db[0] - loud.gain_db[0] == pytest.approx(20 * math.log10(16), abs=1 / 128)
    same = [(loud.codes[d] == soft.codes[d]).mean() for d in codec.domains]
    assert min(same) > 0.95
    ratio = np.square(codec.decode(loud)).mean() / np.square(codec.decode(soft)).mean()
    assert 10 * math.log10(ratio) == pytest.approx(20 * math.log10(16), abs=0.2)


def test_silence_is_active_nowhere_and_decodes_to_exact_silence(codec):
    codes = codec.encode(np.zeros(50_000))
    assert not any(active.any() for active in codes.active.values())
    assert not codec.decode(codes).any()


def test_a_segment_of_silence_between_sounds_is_left_out_and_fades_over_a_frame(codec):
    wav = signal(6 * SEGMENT_FRAMES * HOP)
    quiet = slice(2 * SEGMENT_FRAMES * HOP, 3 * SEGMENT_FRAMES * HOP)
    wav[quiet] = 0
    codes = codec.encode(wav)
    for domain in codec.domains:
        assert not codes.active[domain][0, 2 * SEGMENT_FRAMES : 3 * SEGMENT_FRAMES].any()
    decoded = codec.decode(codes)
    assert not decoded[quiet.start + 3 * HOP : quiet.stop - 3 * HOP].any()
    assert decoded[: quiet.start].any()


def test_what_is_heard_always_goes_to_some_domain(codec):
    codes = codec.encode(signal(100_000))
    assert np.stack([active[0] for active in codes.active.values()]).any(0).all()


def test_domains_that_are_said_to_be_present_are_active_everywhere(codec):
    codes = codec.encode(np.zeros(10_000), active=codec.domains)
    assert all(active.all() for active in codes.active.values())


def test_fewer_codebooks_are_the_first_of_all(codec):
    full, two = codec.encode(signal(9000)), codec.encode(signal(9000), num_codebooks=2)
    for domain in codec.domains:
        assert np.array_equal(two.codes[domain], full.codes[domain][:, :2])
    assert codec.decode(two).shape == (9000,)


def test_codebooks_that_a_model_does_not_have_are_refused_with_the_range(codec):
    assert codec.allocate(2) == Allocation(2, fine=False)
    assert codec.allocate(2, fine=True) == Allocation(2, fine=True)
    for count in (0, 5):
        with pytest.raises(ValueError, match=f"has 1 to 4 codebooks, not {count}"):
            codec.allocate(count)


def test_a_model_may_choose_between_all_its_codebooks_and_one(codec):
    assert codec.allocations() == [Allocation(count, fine=False) for count in (4, 3, 2, 1)]
    assert codec.allocations(fine=True) == [Allocation(count, fine=True) for count in (4, 3, 2, 1)]


def test_a_model_may_suggest_a_fine_envelope_beside_fewer_codebooks(tmp_path):
    recipe = tiny_recipe()
    recipe = override(recipe, {"quantizer.num_codebooks": "8", "model.fine_codebooks": "7"})
    codec = load_codec(write_tiny(tmp_path / "m", recipe))  # each codebook has 0.3 kbit/s
    assert codec.allocate() == codec.allocate(fine=True) == Allocation(7, fine=True)
    assert codec.allocate(fine=False) == codec.allocate(envelope=False) == Allocation(8, fine=False)
    wav = signal(9000)
    codes = codec.encode(wav)
    assert codes.codes["speech"].shape[1] == 7
    assert codes.envelope.layout == codec.envelope_layout(fine=True)
    assert codec.encode(wav, envelope=False).codes["speech"].shape[1] == 8
    # Where something else is asked for, it depends on how many codebooks there are beside it.
    assert [codec.allocate(count).fine for count in (8, 3, 2)] == [True, True, False]
    assert codec.allocate(2, fine=True).fine
    found = codec.allocations()
    assert found[:6] == [Allocation(count, fine=True) for count in (8, 7, 6, 5, 4, 3)]
    assert found[6:] == codec.allocations(envelope=False) == [Allocation(count, False) for count in range(8, 0, -1)]


def test_a_model_without_quantizer_dropout_refuses_fewer_codebooks_by_name(tmp_path):
    import dataclasses

    recipe = tiny_recipe()
    recipe = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, quantizer_dropout=0.0))
    codec = load_codec(write_tiny(tmp_path / "m", recipe))
    assert codec.allocations() == [codec.allocate(4)] == [Allocation(4, fine=False)]
    with pytest.raises(ValueError, match="tiny-spectral was trained without quantizer dropout and needs all of its 4"):
        codec.allocate(3)


@pytest.mark.parametrize(
    ("wav", "message"),
    [
        (np.zeros(0), r"at least one sample, got shape \[0\]"),
        (np.float64(0.5), r"at least one sample, got shape \[\]"),
        (torch.tensor(0.5), r"at least one sample, got shape \[\]"),
        (np.array([0.0, math.nan]), "not finite"),
        (torch.tensor([0.0, math.inf]), "not finite"),
        (np.zeros(100, np.int16), "wav must be floats in −1…1, got int16; divide integers by their full scale"),
        (torch.zeros(100, dtype=torch.int16), "wav must be floats in −1…1, got int16"),
        (np.zeros(100, np.complex64), "wav must be floats in −1…1, got complex64"),
    ],
)
def test_audio_that_cannot_be_coded_is_refused(codec, wav, message):
    with pytest.raises(ValueError, match=message):
        codec.encode(wav)


def test_an_unknown_stem_is_named_with_the_known_ones(codec):
    with pytest.raises(ValueError, match="has no stem vocals; it has mix, speech, music, sfx"):
        codec.decode(codec.encode(signal(1000)), stem="vocals")


def test_an_unknown_model_or_device_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(ModelError, match="no such model; the zoo has"):
        load_codec("nothing-like-it")
    with pytest.raises(ModelError, match=r"not a model folder \(it has no recipe.toml\)"):
        load_codec(tmp_path)
    with pytest.raises(ModelError, match="comes without weights; train them"):
        load_codec("sdcodec-16k")
    folder = write_tiny(tmp_path / "m", tiny_recipe())
    with pytest.raises(DeviceError, match="choose auto, cpu, cuda or mps"):
        load_codec(folder, device="tpu")


def test_weights_of_another_recipe_are_noticed(tmp_path):
    folder = write_tiny(tmp_path / "m", tiny_recipe())
    other = write_tiny(tmp_path / "n", tiny_recipe("conv"))
    Path(folder / "weights.safetensors").write_bytes((other / "weights.safetensors").read_bytes())
    with pytest.raises(ModelError, match="are not of the recipe beside them"):
        load_codec(folder)
    Path(folder / "weights.safetensors").write_bytes(b"garbage")
    with pytest.raises(ModelError, match="weights cannot be read"):
        load_codec(folder)


def test_the_caller_may_use_its_memory_again(codec):
    wav, memory, segments = signal(), np.empty(16_000, np.float32), []
    encoder = codec.stream_encoder()
    for start in range(0, LENGTH, len(memory)):
        piece = wav[start : start + len(memory)]
        memory[: len(piece)] = piece
        segments += encoder.push(memory[: len(piece)])
    memory[:] = 0
    segments += encoder.finish()
    assert np.array_equal(
        np.concatenate([np.stack([*segment.codes.values()]) for segment in segments], axis=-1), whole(codec, signal())
    )


def test_what_is_heard_in_blocks_is_what_is_heard_in_the_whole_file(codec, monkeypatch):
    seen = []

    def record(self, wav, activity):
        seen.append(activity)
        return np.ones((3, activity.shape[-1]), dtype=bool)

    monkeypatch.setattr("sdcodec_cli.engine.stream_encoder.StreamEncoder._active", record)
    codec.encode(signal(), normalize=False)
    network = codec.model.runtime.network
    with torch.no_grad():
        logits = network.activity_logits(network.encode(torch.from_numpy(signal())[None, None]))[0]
    assert len(seen) > 1
    np.testing.assert_allclose(np.concatenate(seen, axis=-1), logits.sigmoid().numpy(), atol=2.5e-5, rtol=0)


@pytest.mark.parametrize("level", [0.1, 1e-3, 3e-4])
def test_quiet_audio_is_brought_to_the_level_of_the_model_however_quiet(codec, level):
    codes = codec.encode(signal(32_000) / 0.04 * level)
    loud = codec.encode(signal(32_000))
    assert codes.gain_db[0] == pytest.approx(loud.gain_db[0] + 20 * math.log10(0.04 / level), abs=0.2)
    assert (codes.codes["speech"] == loud.codes["speech"]).mean() > 0.9
