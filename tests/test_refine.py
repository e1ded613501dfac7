"""Analysis by synthesis: codes whose audio is closer to what was encoded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from audio_examples import si_sdr

from sdcodec_cli import load_codec
from sdcodec_cli.engine.codec import Codec
from sdcodec_cli.engine.codes import Codes
from sdcodec_cli.engine.refine import refine
from sdcodec_cli.engine.stream import BLOCK_FRAMES
from sdcodec_cli.nn.distances import mel_distance, negative_snr
from sdcodec_cli.recipe import MAX_EFFORT
from sdcodec_cli.runtime import Refinement

from cli_examples import errors, sdc
from tiny_models import tiny_recipe, write_tiny

LENGTH = 3 * BLOCK_FRAMES * 320 // 2 + 77
"""One and a half blocks and a bit."""


@pytest.fixture(scope="module", params=["spectral", "conv"])
def tiny(request, tmp_path_factory) -> Codec:
    folder = write_tiny(tmp_path_factory.mktemp("model") / request.param, tiny_recipe(request.param))
    return load_codec(folder, device="cpu", effort=2)


@pytest.fixture(scope="module")
def refined(tiny) -> np.ndarray:
    """Codes of noise, `[N, K, F]`."""
    return stacked(tiny.encode(noise(), normalize=False))


def stacked(codes: Codes) -> np.ndarray:
    """Codes of all domains, `[N, K, F]`."""
    return np.stack(list(codes.codes.values()))[:, 0]


def noise(length: int = LENGTH) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(length, dtype=np.float32) * np.float32(0.05)


def distance(decoded: np.ndarray, wanted: np.ndarray) -> float:
    """What refinement makes small, put together from training's distances."""
    num_seconds = max(1, round(len(wanted) / 16_000))
    # Seconds end at whole hops.
    ours, theirs = (
        [part.ravel() for part in np.array_split(wav.reshape(-1, 320), num_seconds)] for wav in (decoded, wanted)
    )
    pairs = [
        (torch.from_numpy(one)[None], torch.from_numpy(other)[None]) for one, other in zip(ours, theirs, strict=True)
    ]
    ratios = [float(negative_snr(one, other)) for one, other in pairs]
    whole = torch.from_numpy(decoded)[None], torch.from_numpy(wanted)[None]
    return sum(ratios) / num_seconds + 1.2 * float(
        mel_distance(*whole, sample_rate=16_000, scales=((512, 80), (2048, 320)))
    )


def distance_of(codec: Codec, wav: np.ndarray) -> float:
    """Of what is decoded, when everything goes to all domains."""
    codes = codec.encode(wav, normalize=False, active=codec.domains, envelope=False)
    return distance(codec.decode(codes), wav)


def snr(decoded: np.ndarray, wav: np.ndarray) -> float:
    return float(10 * np.log10(np.square(wav).sum() / np.square(decoded - wav).sum()))


def test_effort_brings_the_decoded_scene_closer_to_the_scene(coded, scene):
    scores = [si_sdr(coded(effort)[1], scene) for effort in (0, 4, 8)]
    assert scores[0] + 0.7 < scores[1] < scores[2]


@pytest.mark.slow
def test_effort_helps_at_lower_bitrates_too(coded, scene):
    for count in (3, 6):
        plain, tried = (si_sdr(coded(effort, count)[1], scene) for effort in (0, 4))
        assert tried > plain + 0.3


def test_the_seam_between_blocks_gains_like_the_rest(coded, scene):
    near = slice(int((8 - 0.25) * 16_000), int((8 + 0.25) * 16_000))
    plain, tried = (coded(effort)[1] for effort in (0, 4))
    assert np.square((tried - scene)[near]).sum() < np.square((plain - scene)[near]).sum()


def test_the_stems_stay_in_their_streams(embedded, coded):
    """They are no further from those of the encoder's own codes than a part of what quantization changed in them."""
    (plain, _), (tried, _) = coded(0), coded(embedded.effort)
    for domain in embedded.domains:
        before, after = embedded.decode(plain, stem=domain), embedded.decode(tried, stem=domain)
        assert np.square(after - before).sum() < np.square(before).sum()


@pytest.mark.parametrize("kind", ["noise", "click", "almost silent", "loud"])
def test_by_its_own_measure_it_never_makes_things_worse(tiny, kind):
    wav = {
        "noise": noise(40_000),
        "click": np.eye(1, 40_000, 20_000, dtype=np.float32)[0] * np.float32(0.9),
        "almost silent": noise(40_000) * np.float32(0.003),
        "loud": noise(40_000).clip(-0.01, 0.01) * 100,
    }[kind]
    assert distance_of(tiny, wav) <= distance_of(tiny.at_effort(0), wav) + 1e-4


@pytest.mark.parametrize("num_codebooks", [4, 2])
@pytest.mark.parametrize("frames", [2, 30, 120])
def test_the_distance_is_that_of_what_its_codes_decode_to(tiny, num_codebooks, frames):
    """Without an activity head in between: everything is active."""
    model, wav = tiny.model, noise(frames * 320)
    gates = np.ones((3, frames), dtype=np.float32)
    past = np.zeros((3, 4, 0), dtype=np.int64)
    latent = model.analyse(wav).latent
    found = model.refiner(wav, past, gates, num_codebooks).attempt(latent, gradient=False)
    codes = found.codes.copy()
    codes[:, num_codebooks:] = -1
    missing = max(0, 7 * 320 - len(wav))  # the longest window of the mel scales has to fit in
    decoded, wanted = (np.pad(signal, (0, missing)) for signal in (model.synthesize(codes, [[0, 1, 2]])[0], wav))
    assert found.distance == pytest.approx(distance(decoded, wanted), abs=1e-4)


def test_frames_before_count_with_their_codes_and_silent_ones_are_not_compared(tiny):
    model, hop = tiny.model, 320
    wav, inner = noise(60 * hop), slice(20, 60)
    codes = model.quantize(model.analyse(wav).latent)
    latent = model.analyse(wav).latent[:, inner]
    past = codes[..., :20].copy()
    past[..., :10] = -1  # nothing is heard
    gates = np.ones((3, 40), dtype=np.float32)
    gates[1] = 0
    gates[:, 30:] = 0
    found = model.refiner(wav, past, gates, 4).attempt(latent, gradient=False)
    together = np.concatenate([past, np.where(gates[:, None] > 0, found.codes, -1)], axis=-1)
    audible = (together != -1).any((0, 1)).repeat(hop)
    decoded = model.synthesize(together, [[0, 1, 2]])[0] * audible
    assert found.distance == pytest.approx(distance(decoded, wav * audible), abs=1e-4)


class Valley:
    """Stands in for a refiner: the distance of a latent to a point, whose codes say at which attempt."""

    def __init__(self, target: np.ndarray) -> None:
        self.target, self.distances, self.gradients = target, [], []

    def attempt(self, latent: np.ndarray, *, gradient: bool) -> Refinement:
        self.distances.append(float(np.square(latent - self.target).sum()))
        self.gradients.append(gradient)
        codes = np.full((3, 4, latent.shape[1]), len(self.distances))
        return Refinement(self.distances[-1], codes, 2 * (latent - self.target) if gradient else None)


@pytest.mark.parametrize("effort", [1, 2, 5])
def test_each_step_but_the_last_asks_for_a_gradient_and_the_closest_attempt_is_taken(effort):
    latent = np.random.default_rng(0).standard_normal((16, 10), dtype=np.float32)
    valley = Valley(latent + np.float32(0.5))
    codes = refine(valley, latent, effort=effort)
    assert valley.gradients == [True] * effort + [False]
    assert valley.distances == sorted(valley.distances, reverse=True)
    assert (codes == effort + 1).all()
    already = Valley(latent)
    assert (refine(already, latent, effort=effort) == 1).all()


def test_a_first_step_moves_every_element_by_the_same_part_of_the_latents_deviation():
    """With one step the mean of squared gradients is the gradient's own, so the move is its sign."""
    latent = np.random.default_rng(0).standard_normal((16, 10), dtype=np.float32)
    seen = []

    class Slope:
        def attempt(self, given: np.ndarray, *, gradient: bool) -> Refinement:
            seen.append(given.copy())
            return Refinement(0.0, np.zeros((3, 4, 10), dtype=np.int64), np.sign(latent) * 10.0 ** np.arange(10))

    refine(Slope(), latent, effort=1)
    moved = (seen[1] - seen[0]) / latent.std()
    np.testing.assert_allclose(moved, -0.18 * 0.25**0.5 * np.sign(latent), atol=1e-6)


def test_quiet_passages_gain_beside_loud_ones(embedded, scene):
    loud, quiet = scene[: 4 * 16_000], scene[4 * 16_000 : 7 * 16_000] * np.float32(10 ** (-20 / 20))
    wav = np.concatenate([loud, quiet])
    plain, tried = (codec.decode(codec.encode(wav)) for codec in (embedded.at_effort(0), embedded.at_effort(8)))
    for part in (slice(0, len(loud)), slice(len(loud), None)):
        assert snr(tried[part], wav[part]) > snr(plain[part], wav[part])


def test_without_effort_codes_are_the_encoders_own(tiny, refined):
    codes = tiny.at_effort(0).encode(noise(), normalize=False)
    network = tiny.model.runtime.network
    with torch.inference_mode():
        own = network.quantize(network.encode(torch.from_numpy(noise())[None, None])).codes[:, 0].numpy()
    assert np.array_equal(stacked(codes), own)
    assert not np.array_equal(refined, own)


@pytest.mark.parametrize("size", [1000, 16_000, 99_999])
def test_codes_do_not_depend_on_how_the_audio_arrives(tiny, refined, size):
    encoder = tiny.stream_encoder()
    blocks = [block for start in range(0, LENGTH, size) for block in encoder.push(noise()[start : start + size])]
    blocks += encoder.finish()
    assert np.array_equal(np.concatenate([np.stack([*block.codes.values()]) for block in blocks], axis=-1), refined)


def test_only_domains_that_are_present_are_tried(tiny):
    codes = tiny.encode(noise(20_000), active=["music"])
    assert {domain for domain, active in codes.active.items() if active.any()} == {"music"}
    assert np.array_equal(tiny.decode(codes), tiny.decode(codes, stem="music"))


def test_silence_between_sounds_stays_silent_and_both_sounds_gain(embedded, scene):
    gap = np.zeros(12 * 16_000, dtype=np.float32)
    wav = np.concatenate([scene[: 4 * 16_000], gap, scene[4 * 16_000 : 8 * 16_000]])
    plain, tried = (codec.decode(codec.encode(wav)) for codec in (embedded.at_effort(0), embedded))
    assert not tried[6 * 16_000 : 14 * 16_000].any()
    for part in (slice(0, 4 * 16_000), slice(16 * 16_000, None)):
        assert si_sdr(tried[part], wav[part]) > si_sdr(plain[part], wav[part])


@pytest.mark.parametrize("length", [1, 319, 320, 1000, 2047])
def test_the_shortest_signals_are_encoded(tiny, length):
    assert tiny.decode(tiny.encode(noise(length))).shape == (length,)


def test_a_callers_inference_mode_changes_nothing(tiny, tmp_path):
    expected = tiny.encode(noise(20_000))
    folder = write_tiny(tmp_path / "model", tiny_recipe(tiny.name.removeprefix("tiny-")))
    with torch.inference_mode():
        codes = load_codec(folder, device="cpu", effort=2).encode(noise(20_000))
    for domain, streams in expected.codes.items():
        assert np.array_equal(codes.codes[domain], streams)


@pytest.mark.parametrize("effort", [-1, 101, 1.5, "4", None])
def test_an_effort_that_is_none_is_refused(tiny, effort):
    with pytest.raises(ValueError, match=f"effort must be a whole number from 0 to 100, got {effort!r}"):
        tiny.at_effort(effort)


def test_the_command_line_takes_the_same_efforts():
    (line,) = errors(sdc("compress", "none.wav", "--effort", str(MAX_EFFORT + 1)), exit_code=2)
    assert line == f"compress: --effort: '{MAX_EFFORT + 1}' is not less than or equal to {MAX_EFFORT}"
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
        assert np.array_equal(codes.codes[domain], streams)


def test_a_domain_that_is_not_there_cannot_be_present(tiny):
    with pytest.raises(ValueError, match="no domain vocals"):
        tiny.encode(noise(1000), active=["vocals"])


def test_a_wrong_call_is_refused_before_the_first_piece_arrives(tiny):
    with pytest.raises(ValueError, match="no domain vocals"):
        tiny.stream_encoder(active=["vocals"])
    for count in (0, 5):
        with pytest.raises(ValueError, match=f"num_codebooks must be between 1 and 4, got {count}"):
            tiny.stream_encoder(num_codebooks=count)
