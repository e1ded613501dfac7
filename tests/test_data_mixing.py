"""Examples and mixtures: loudness targets, determinism, silence, files that fail."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import pytest
import torch

from sdcodec_cli.audio import integrated_loudness
from sdcodec_cli.data.augment import pause
from sdcodec_cli.data.mixing import TRIES, Example, Trouble, draw, loudness, mix
from sdcodec_cli.data.pool import Pool
from sdcodec_cli.errors import InputError
from sdcodec_cli.families.sdcodec import FAMILY, SDCodecRecipe
from sdcodec_cli.recipe import AugmentationFields, CodecTrainingFields, MixingFields

from tiny_models import MemoryClips, noise_clips

RATE = 16_000
DOMAINS = ("speech", "music", "sfx")
FIXED = MixingFields(track_probabilities=(0.0, 0.0, 1.0), loudness_range=0.0)


@functools.cache
def pool(seconds: float = 30.0, count: int = 6) -> Pool:
    clips = {domain: noise_clips(seconds=seconds, count=count, seed=n) for n, domain in enumerate(DOMAINS)}
    return Pool(RATE, clips)


def mixed(example: Example, peak: float = -0.5) -> np.ndarray:
    stems = mix(
        torch.from_numpy(example.crops)[None],
        torch.from_numpy(example.active)[None],
        torch.from_numpy(example.targets)[None],
        torch.tensor([example.mix_target], dtype=torch.float32),
        sample_rate=RATE,
        peak=peak,
    )
    return stems[0].numpy()


def level(wav: np.ndarray) -> float:
    return integrated_loudness(wav[None], RATE)


def test_an_example_is_a_pure_function_of_seed_and_index():
    source, fields = pool(), MixingFields()
    one, same = draw(source, fields, seed=3, index=17), draw(source, fields, seed=3, index=17)
    assert np.array_equal(one.crops, same.crops)
    assert (one.mix_target, one.targets.tolist()) == (same.mix_target, same.targets.tolist())
    for seed, index in ((3, 18), (4, 17)):
        assert not np.array_equal(one.crops, draw(source, fields, seed=seed, index=index).crops)


def test_mixtures_have_as_many_domains_as_the_recipe_says_and_are_as_loud():
    fields = MixingFields(track_probabilities=(0.0, 0.5, 0.5), loudness_range=1.0)
    examples = [draw(pool(), fields, seed=0, index=index) for index in range(60)]
    counts = [int(example.active.sum()) for example in examples]
    assert set(counts) == {2, 3}
    assert 15 < counts.count(3) < 45
    for example in examples:
        stems = mixed(example)
        assert np.array_equal(np.abs(stems).max(1) > 0, example.active)
        assert -28.05 <= level(stems.sum(0)) <= -25.95
    assert all(any(example.active[n] for example in examples) for n in range(3))


def test_domains_come_by_themselves_as_often_as_the_recipe_says_and_one_always_does():
    fields = MixingFields(seconds=0.5, domain_probabilities=(0.9, 0.1, 0.5))
    active = np.stack([draw(pool(), fields, seed=0, index=index).active for index in range(80)])
    assert active.any(1).all()
    np.testing.assert_allclose(active.mean(0), [0.9, 0.1, 0.5], atol=0.12)
    never = MixingFields(domain_probabilities=(0.0, 0.0, 0.0))
    assert draw(pool(), never, seed=0, index=0).active.tolist() == [True, False, False]


def test_the_first_domain_is_as_much_louder_than_all_others_together_as_the_recipe_says():
    fields = dataclasses.replace(FIXED, snr_range=(-5.0, 40.0))
    plain = [draw(pool(), FIXED, seed=0, index=index) for index in range(30)]
    ratios = []
    for index, before in enumerate(plain):
        example = draw(pool(), fields, seed=0, index=index)
        assert np.array_equal(example.crops, before.crops)
        stems = mixed(example, peak=0.0)
        ratios.append(level(stems[0]) - level(stems[1] + stems[2]))
        assert level(stems.sum(0)) == pytest.approx(example.mix_target, abs=0.2)
        np.testing.assert_allclose(np.diff(example.targets[1:]), np.diff(before.targets[1:]), atol=1e-4)
    assert -6 < min(ratios) < 5
    assert 30 < max(ratios) < 41


def test_layers_are_added_as_often_as_the_recipe_says_and_nothing_else_changes():
    source, layered = pool(), AugmentationFields(layering=(0.0, 0.3, 1.0))
    changed = np.zeros(3)
    for index in range(60):
        plain = draw(source, FIXED, seed=0, index=index)
        example = draw(source, FIXED, seed=0, index=index, augmentation=layered)
        changed += (plain.crops != example.crops).any(axis=1)
        assert (plain.mix_target, plain.targets.tolist()) == (example.mix_target, example.targets.tolist())
    assert changed[0] == 0
    assert 8 < changed[1] < 28
    assert changed[2] == 60


def test_layers_and_what_the_objective_chooses_are_drawn_apart():
    layered = AugmentationFields(layering=(0.5, 0.5, 0.5))
    recipe = SDCodecRecipe(name="x", training=CodecTrainingFields(quantizer_dropout=0.5))
    added, dropped = [], []
    for index in range(80):
        plain = draw(pool(), FIXED, seed=0, index=index)
        example = draw(pool(), FIXED, seed=0, index=index, augmentation=layered)
        added.append((plain.crops != example.crops).any(axis=1))
        choices = FAMILY.choose(example.active[None], recipe, range(index, index + 1))
        dropped.append([int(choices.keep[domain, 0]) < recipe.quantizer.num_codebooks for domain in range(3)])
    for domain in range(3):
        assert abs(np.corrcoef(np.array(added)[:, domain], np.array(dropped)[:, domain])[0, 1]) < 0.4


def test_probabilities_that_are_rounded_in_the_recipe_are_drawn_from():
    third = dataclasses.replace(FIXED, track_probabilities=(0.3333333, 0.3333333, 0.3333333))
    counts = [int(draw(pool(), third, seed=0, index=index).active.sum()) for index in range(60)]
    assert set(counts) == {1, 2, 3}


def test_a_stem_stays_as_it_is_where_nothing_is_found_to_lay_over_it():
    once = MemoryClips([np.sin(np.arange(2 * RATE) * 0.1), *[np.zeros(2 * RATE)] * 400])
    source = Pool(RATE, {**pool().clips, "sfx": once})
    layered = AugmentationFields(layering=(0.0, 0.0, 1.0))
    index = next(n for n in range(10_000) if draw(source, FIXED, seed=0, index=n).active.all())
    plain = draw(source, FIXED, seed=0, index=index)
    assert np.array_equal(draw(source, FIXED, seed=0, index=index, augmentation=layered).crops, plain.crops)


def test_stems_keep_the_papers_differences_in_loudness():
    levels = [level(stem) for stem in mixed(draw(pool(), FIXED, seed=0, index=0))]
    assert levels[0] - levels[1] == pytest.approx(7.0, abs=0.05)
    assert levels[0] - levels[2] == pytest.approx(4.0, abs=0.05)


def test_a_stem_with_peaks_is_turned_down_to_the_ceiling_before_mixing():
    clicks = np.zeros(RATE * 2)
    clicks[::4000] = 0.9
    source = Pool(RATE, {**pool().clips, "speech": MemoryClips([clicks])})
    example = draw(source, FIXED, seed=0, index=0)
    # The mixture is leveled afterwards; what the ceiling did shows against a stem that it leaves alone.
    both = dataclasses.replace(example, active=np.array([True, True, False]))
    ratio = [np.abs(mixed(both, peak=peak)[0]).max() / np.abs(mixed(both, peak=peak)[1]).max() for peak in (0.0, -20.0)]
    assert ratio[0] > 1.5 * ratio[1]


def test_quiet_mixtures_are_quieter_by_no_more_than_the_range():
    fields = dataclasses.replace(FIXED, quiet_probability=1.0, quiet_range=20.0)
    levels = [level(mixed(draw(pool(), fields, seed=0, index=i)).sum(0)) for i in range(20)]
    assert min(levels) >= -47.05
    assert max(levels) <= -26.95
    assert max(levels) - min(levels) > 8


@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.5, 2.0])
def test_the_batched_loudness_is_the_streaming_meters(seconds):
    rng = np.random.default_rng(0)
    shape = np.linspace(0.01, 0.3, round(seconds * RATE))
    wavs = np.stack([rng.standard_normal(len(shape)) * shape, np.sin(np.arange(len(shape)) * 0.1) * 0.2]).astype("f")
    measured = loudness(torch.from_numpy(wavs), RATE)
    padded = np.pad(wavs, ((0, 0), (0, max(0, round(0.4 * RATE) - len(shape)))))
    expected = [level(wav) for wav in padded]
    torch.testing.assert_close(measured, torch.tensor(expected), atol=0.05, rtol=0)


def test_the_loudness_of_silence_is_the_gate_and_not_a_nan():
    assert loudness(torch.zeros(1, RATE), RATE).tolist() == [-70.0]


def test_a_domain_of_silence_is_absent_and_counted():
    source = Pool(RATE, {**pool().clips, "sfx": MemoryClips([np.zeros(RATE * 10)])})
    example = draw(source, FIXED, seed=0, index=0)
    assert example.active.tolist() == [True, True, False]
    assert example.trouble == Trouble(silent=TRIES)
    assert example.problem == f"sfx: {TRIES} draws in a row were silent; check its audio files"
    assert bool(np.isfinite(mixed(example)).all())


def test_clips_shorter_than_an_example_are_placed_in_silence_and_very_short_ones_counted():
    half, tiny = pool(seconds=3.0, count=6), pool(seconds=1.2, count=4)
    fields = MixingFields(track_probabilities=(1.0, 0.0, 0.0))
    for source, seconds, short in ((half, 0.5, 0), (tiny, 0.3, 1)):
        example = draw(source, fields, seed=0, index=0)
        assert (np.abs(example.crops).max(0) > 0).sum() == pytest.approx(seconds * RATE, abs=2)
        assert example.trouble == Trouble(short=short)


class BrokenClips(MemoryClips):
    """Every second clip cannot be read."""

    def read(self, clip: int, start: int, length: int) -> np.ndarray:
        if clip % 2 or len(self.clips) == 1:
            raise InputError(f"clip-{clip}.wav: is damaged; restore it")
        return super().read(clip, start, length)


def test_files_that_cannot_be_read_are_counted_and_others_drawn():
    broken = BrokenClips(noise_clips(seconds=30, count=10, seed=0).clips)
    source = Pool(RATE, {**pool().clips, "music": broken})
    examples = [draw(source, FIXED, seed=0, index=index) for index in range(20)]
    assert all(example.active.all() for example in examples)
    assert 8 < sum((example.trouble for example in examples), Trouble()).broken < 45


def test_a_domain_of_which_nothing_can_be_read_says_why():
    source = Pool(RATE, {**pool().clips, "music": BrokenClips([np.ones(RATE * 3)])})
    example = draw(source, FIXED, seed=0, index=0)
    assert example.active.tolist() == [True, False, True]
    assert example.problem == "clip-0.wav: is damaged; restore it"


def test_augmentation_changes_examples_and_nothing_of_it_by_default():
    fields = AugmentationFields(polarity=1.0, speed_range=0.1, gain_range=6.0)
    plain = draw(pool(), FIXED, seed=0, index=0)
    same = draw(pool(), FIXED, seed=0, index=0, augmentation=AugmentationFields())
    other = draw(pool(), FIXED, seed=0, index=0, augmentation=fields)
    assert np.array_equal(plain.crops, same.crops)
    assert other.crops.shape == plain.crops.shape
    assert not np.array_equal(plain.crops, other.crops)
    assert float(np.abs(other.targets - plain.targets).max()) > 0.1
    assert math.isfinite(float(mixed(other).sum()))


def test_a_pause_is_silent_and_leaves_the_rest_as_it_was():
    wav = np.ones(16_000, dtype=np.float32)
    shares = []
    for seed in range(200):
        paused = pause(wav, 16_000, np.random.default_rng(seed))
        silent, kept = paused == 0, paused == 1
        shares.append(silent.mean())
        assert (~silent & ~kept).sum() <= 2 * 160
        assert np.abs(np.diff(paused)).max() < 0.011
    assert min(shares) > 0.04
    assert max(shares) < 0.76


def test_a_pause_that_would_take_nearly_everything_is_left_out():
    wav = np.zeros(16_000, dtype=np.float32)
    wav[8_000] = 1
    for seed in range(20):
        assert pause(wav, 16_000, np.random.default_rng(seed))[8_000] == 1


def test_pauses_come_as_often_as_asked_and_change_nothing_else():
    source = pool()
    before = [draw(source, FIXED, seed=1, index=index) for index in range(60)]
    after = [
        draw(source, FIXED, seed=1, index=index, augmentation=AugmentationFields(pauses=0.5)) for index in range(60)
    ]
    stems = paused = 0
    for plain, with_pauses in zip(before, after, strict=True):
        assert (plain.active == with_pauses.active).all()
        assert (plain.targets == with_pauses.targets).all()
        for one, other in zip(plain.crops[plain.active], with_pauses.crops[plain.active], strict=True):
            stems += 1
            paused += not np.array_equal(one, other)
    assert 0.35 < paused / stems < 0.65
