"""Analysis by synthesis: codes whose audio is closer to what was encoded."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from torch import Tensor

from sdcodec_cli import load_codec
from sdcodec_cli.engine.codec import Codec
from sdcodec_cli.engine.evaluate.metrics import si_sdr
from sdcodec_cli.engine.refine import distance
from sdcodec_cli.engine.stream import BLOCK_FRAMES
from sdcodec_cli.recipe import MAX_EFFORT

from cli_examples import errors, sdc
from tiny_models import tiny_recipe, write_tiny

SCENE = Path(__file__).resolve().parents[1] / "docs" / "scene.flac"
LENGTH = 3 * BLOCK_FRAMES * 320 // 2 + 77
"""One and a half blocks and a bit."""


@pytest.fixture(scope="module")
def scene() -> Tensor:
    wav, rate = soundfile.read(SCENE, dtype="float32")
    return torch.from_numpy(soxr.resample(wav, rate, 16_000))


@pytest.fixture(scope="module")
def embedded() -> Codec:
    return load_codec(device="cpu")


@pytest.fixture(scope="module", params=["spectral", "conv"])
def tiny(request, tmp_path_factory) -> Codec:
    folder = write_tiny(tmp_path_factory.mktemp("model") / request.param, tiny_recipe(request.param))
    return load_codec(folder, device="cpu", effort=2)


def noise(length: int = LENGTH) -> Tensor:
    return torch.randn(length, dtype=torch.float32, generator=torch.Generator().manual_seed(3)) * 0.05


def distance_of(codec: Codec, wav: Tensor) -> float:
    """Of what is decoded, when everything goes to all domains."""
    codes = codec.encode(wav, normalize=False, present=codec.domains)
    return float(distance(codec.decode(codes), wav, sample_rate=16_000))


def snr(decoded: Tensor, wav: Tensor) -> float:
    return float(10 * torch.log10(wav.square().sum() / (decoded - wav).square().sum()))


def test_effort_brings_the_decoded_scene_closer_to_the_scene(embedded, scene):
    scores = [float(si_sdr(codec.decode(codec.encode(scene)), scene)) for codec in map(embedded.at_effort, (0, 4, 12))]
    assert scores[0] + 0.7 < scores[1] < scores[2]


def test_effort_helps_at_lower_bitrates_too(embedded, scene):
    for count in (3, 6):
        plain, tried = (
            float(si_sdr(codec.decode(codec.encode(scene, num_codebooks=count)), scene))
            for codec in (embedded.at_effort(0), embedded.at_effort(4))
        )
        assert tried > plain + 0.3


def test_the_seam_between_blocks_gains_like_the_rest(embedded, scene):
    near = slice(int((8 - 0.25) * 16_000), int((8 + 0.25) * 16_000))
    plain, tried = (codec.decode(codec.encode(scene)) for codec in (embedded.at_effort(0), embedded.at_effort(4)))
    assert float((tried - scene)[near].square().sum()) < float((plain - scene)[near].square().sum())


def test_the_stems_stay_in_their_streams(embedded, scene):
    """They are no further from those of the encoder's own codes than a part of what quantization changed in them."""
    plain, tried = embedded.at_effort(0).encode(scene), embedded.encode(scene)
    for domain in embedded.domains:
        before, after = embedded.decode(plain, stem=domain), embedded.decode(tried, stem=domain)
        assert float((after - before).square().sum()) < float(before.square().sum())


@pytest.mark.parametrize("kind", ["noise", "click", "almost silent", "loud"])
def test_by_its_own_measure_it_never_makes_things_worse(tiny, kind):
    wav = {
        "noise": noise(40_000),
        "click": torch.zeros(40_000).index_fill(0, torch.tensor([20_000]), 0.9),
        "almost silent": noise(40_000) * 0.003,
        "loud": noise(40_000).clamp(-0.01, 0.01) * 100,
    }[kind]
    assert distance_of(tiny, wav) <= distance_of(tiny.at_effort(0), wav) + 1e-4


def test_its_measure_is_the_mean_of_each_seconds_ratio_and_the_mel_distance():
    loud, quiet = 0.3 * noise(16_000), 0.003 * noise(16_000)
    gain = torch.cat([torch.full_like(loud, 1.1), torch.full_like(quiet, 1.2)])
    wanted = torch.cat([loud, quiet])
    ratios = [10 * math.log10(error**2 + 0.001) for error in (0.1, 0.2)]  # no more than 30 dB
    mel = 7 * float(gain.log10().mean())  # of seven scales
    measured = float(distance(gain * wanted, wanted, sample_rate=16_000))
    assert measured == pytest.approx(sum(ratios) / 2 + 1.2 * mel, abs=0.02)


def test_quiet_passages_gain_beside_loud_ones(embedded, scene):
    loud, quiet = scene[: 4 * 16_000], scene[4 * 16_000 : 7 * 16_000] * 10 ** (-20 / 20)
    wav = torch.cat([loud, quiet])
    plain, tried = (codec.decode(codec.encode(wav)) for codec in (embedded.at_effort(0), embedded.at_effort(8)))
    for part in (slice(0, len(loud)), slice(len(loud), None)):
        assert snr(tried[part], wav[part]) > snr(plain[part], wav[part])


def test_without_effort_codes_are_the_encoders_own(tiny):
    codes = tiny.at_effort(0).encode(noise(), normalize=False)
    with torch.inference_mode():
        own = tiny.network.quantize(tiny.network.encode(noise()[None, None])).codes[:, 0]
    assert torch.equal(torch.stack(list(codes.codes.values()))[:, 0], own)
    refined = tiny.encode(noise(), normalize=False)
    assert not torch.equal(torch.stack(list(refined.codes.values()))[:, 0], own)


@pytest.mark.parametrize("size", [1000, 16_000, 99_999])
def test_codes_do_not_depend_on_how_the_audio_arrives(tiny, size):
    encoder = tiny.stream_encoder()
    blocks = [block for start in range(0, LENGTH, size) for block in encoder.push(noise()[start : start + size])]
    blocks += encoder.finish()
    whole = torch.stack(list(tiny.encode(noise(), normalize=False).codes.values()))[:, 0]
    assert np.array_equal(np.concatenate([block.codes for block in blocks], axis=-1), whole.numpy())


def test_only_domains_that_are_present_are_tried(tiny):
    codes = tiny.encode(noise(20_000), present=["music"])
    assert {domain for domain, active in codes.active.items() if active.any()} == {"music"}
    assert torch.equal(tiny.decode(codes), tiny.decode(codes, stem="music"))


def test_silence_between_sounds_stays_silent_and_both_sounds_gain(embedded, scene):
    gap = torch.zeros(12 * 16_000)
    wav = torch.cat([scene[: 4 * 16_000], gap, scene[4 * 16_000 : 8 * 16_000]])
    plain, tried = (codec.decode(codec.encode(wav)) for codec in (embedded.at_effort(0), embedded))
    assert tried[6 * 16_000 : 14 * 16_000].abs().max() == 0
    for part in (slice(0, 4 * 16_000), slice(16 * 16_000, None)):
        assert si_sdr(tried[part], wav[part]) > si_sdr(plain[part], wav[part])


@pytest.mark.parametrize("length", [1, 319, 320, 1000, 2047])
def test_the_shortest_signals_are_encoded(tiny, length):
    assert tiny.decode(tiny.encode(noise(length))).shape == (length,)


def test_a_callers_inference_mode_changes_nothing(tiny, tmp_path):
    expected = tiny.encode(noise(20_000))
    folder = write_tiny(tmp_path / "model", tiny.recipe)
    with torch.inference_mode():
        codes = load_codec(folder, device="cpu", effort=2).encode(noise(20_000))
    for domain, streams in expected.codes.items():
        assert torch.equal(codes.codes[domain], streams)


@pytest.mark.parametrize("effort", [-1, 101, 1.5, "4", None])
def test_an_effort_that_is_none_is_refused(tiny, effort):
    with pytest.raises(ValueError, match=f"effort must be a whole number from 0 to 100, got {effort!r}"):
        tiny.at_effort(effort)


def test_the_command_line_takes_the_same_efforts():
    refused = sdc("compress", "none.wav", "--effort", str(MAX_EFFORT + 1))
    assert refused.exit_code == 2
    assert f"Invalid value for '--effort': Input should be less than or equal to {MAX_EFFORT}" in refused.stderr
    (line,) = errors(sdc("compress", "none.wav", "--effort", str(MAX_EFFORT)))
    assert line.startswith("none.wav: ")


def test_a_default_of_64_bits_changes_nothing(tiny):
    expected = tiny.encode(noise(20_000))
    torch.set_default_dtype(torch.float64)
    try:
        codes = tiny.encode(noise(20_000))
    finally:
        torch.set_default_dtype(torch.float32)
    for domain, streams in expected.codes.items():
        assert torch.equal(codes.codes[domain], streams)


def test_a_domain_that_is_not_there_cannot_be_present(tiny):
    with pytest.raises(ValueError, match="no domain vocals"):
        tiny.encode(noise(1000), present=["vocals"])


def test_a_wrong_call_is_refused_before_the_first_piece_arrives(tiny):
    with pytest.raises(ValueError, match="no domain vocals"):
        tiny.stream_encoder(present=["vocals"])
    for count in (0, 5):
        with pytest.raises(ValueError, match=f"num_codebooks must be between 1 and 4, got {count}"):
            tiny.stream_encoder(num_codebooks=count)
