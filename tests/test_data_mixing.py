"""Pools and mixtures: loudness targets, determinism, silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from sdcodec_cli.audio import integrated_loudness
from sdcodec_cli.data.dnr import draw_scene, find_tracks, read_track, write_tracks
from sdcodec_cli.data.mixing import draw
from sdcodec_cli.data.pool import Clips, Pool, load_pool
from sdcodec_cli.errors import InputError, OutputError
from sdcodec_cli.recipe import MixingFields

RATE = 16_000


def loudness(wav: np.ndarray, rate: int) -> float:
    return integrated_loudness(wav[None], rate)


DOMAINS = ("speech", "music", "sfx")


def pool(seconds: float = 30.0, clips: int = 6) -> Pool:
    made = {}
    for number, domain in enumerate(DOMAINS):
        rng = np.random.default_rng(number)
        samples = (rng.standard_normal(round(seconds * RATE)) * 3000).astype(np.int16)
        made[domain] = Clips(samples, np.linspace(0, len(samples), clips + 1).astype(np.int64))
    return Pool(RATE, made)


def test_an_example_is_a_pure_function_of_seed_and_index():
    source, fields = pool(), MixingFields()
    one, same = draw(source, fields, seed=3, index=17), draw(source, fields, seed=3, index=17)
    assert np.array_equal(one.stems, same.stems)
    for seed, index in ((3, 18), (4, 17)):
        assert not np.array_equal(one.stems, draw(source, fields, seed=seed, index=index).stems)


def test_mixtures_have_as_many_domains_as_the_recipe_says_and_are_as_loud():
    source = pool()
    fields = MixingFields(track_probabilities=(0.0, 0.5, 0.5), loudness_range=1.0)
    examples = [draw(source, fields, seed=0, index=index) for index in range(60)]
    counts = [int(example.present.sum()) for example in examples]
    assert set(counts) == {2, 3}
    assert 15 < counts.count(3) < 45
    for example in examples:
        assert np.array_equal(np.abs(example.stems).max(1) > 0, example.present)
        assert -28.01 <= loudness(example.stems.sum(0), RATE) <= -25.99
    assert all(any(example.present[n] for example in examples) for n in range(3))


def test_stems_keep_the_papers_differences_in_loudness():
    fields = MixingFields(track_probabilities=(0.0, 0.0, 1.0), loudness_range=0.0)
    example = draw(pool(), fields, seed=0, index=0)
    levels = [loudness(stem, RATE) for stem in example.stems]
    assert levels[0] - levels[1] == pytest.approx(7.0, abs=0.1)
    assert levels[0] - levels[2] == pytest.approx(4.0, abs=0.1)


def test_quiet_mixtures_are_quieter_by_no_more_than_the_range():
    fields = MixingFields(quiet_probability=1.0, quiet_range=20.0, loudness_range=0.0)
    levels = [loudness(draw(pool(), fields, seed=0, index=i).stems.sum(0), RATE) for i in range(20)]
    assert min(levels) >= -47.05
    assert max(levels) <= -26.95
    assert max(levels) - min(levels) > 8


def test_a_domain_of_silence_is_absent_and_not_a_nan():
    source = pool()
    silent = Clips(np.zeros(RATE * 10, dtype=np.int16), np.array([0, RATE * 10]))
    mixed = Pool(RATE, {**source.clips, "sfx": silent})
    fields = MixingFields(track_probabilities=(0.0, 0.0, 1.0))
    example = draw(mixed, fields, seed=0, index=0)
    assert example.present.tolist() == [True, True, False]
    assert bool(np.isfinite(example.stems).all())


def test_clips_shorter_than_an_example_are_placed_in_silence():
    source = pool(seconds=3.0, clips=6)
    example = draw(source, MixingFields(track_probabilities=(1.0, 0.0, 0.0)), seed=0, index=0)
    sounding = np.abs(example.stems).max(0) > 0
    assert 0.4 * RATE < sounding.sum() <= 0.5 * RATE + 2


def make_root(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for number, domain in enumerate(DOMAINS):
        (root / domain / "deep").mkdir(parents=True)
        for index in range(3):
            wav = rng.standard_normal((RATE * 2, 1 + number % 2)) * 0.1
            soundfile.write(root / domain / "deep" / f"{index}.flac", wav, 32_000 if index == 2 else RATE)
    return root


def test_a_pool_reads_folders_of_any_depth_rate_and_channels(tmp_path):
    loaded = load_pool(make_root(tmp_path / "root"), domains=DOMAINS, sample_rate=RATE)
    for domain in DOMAINS:
        assert np.diff(loaded.clips[domain].starts).tolist() == [2 * RATE, 2 * RATE, RATE]
        assert loaded.seconds(domain) == 5.0


def test_a_broken_file_is_reported_and_left_out(tmp_path):
    root = make_root(tmp_path / "root")
    (root / "music" / "broken.wav").write_bytes(b"RIFF nonsense")
    reports: list[str] = []
    loaded = load_pool(root, domains=DOMAINS, sample_rate=RATE, report=reports.append)
    assert loaded.seconds("music") == 5.0
    assert len(reports) == 1
    assert "broken.wav" in reports[0]
    assert "left out" in reports[0]


def test_a_cached_pool_is_the_same_and_follows_the_files(tmp_path):
    root = make_root(tmp_path / "root")
    first = load_pool(root, domains=DOMAINS, sample_rate=RATE, cache=tmp_path / "cache")
    again = load_pool(root, domains=DOMAINS, sample_rate=RATE, cache=tmp_path / "cache")
    assert np.array_equal(first.clips["sfx"].samples, again.clips["sfx"].samples)
    (root / "sfx" / "deep" / "0.flac").unlink()
    assert load_pool(root, domains=DOMAINS, sample_rate=RATE, cache=tmp_path / "cache").seconds("sfx") == 3.0


def test_a_root_without_a_domain_says_what_belongs_there(tmp_path):
    with pytest.raises(InputError, match="speech: no audio files; a data root has one folder per domain"):
        load_pool(tmp_path, domains=DOMAINS, sample_rate=RATE)


def test_dnr_tracks_are_written_found_and_read(tmp_path):
    fields = MixingFields()
    tracks = write_tracks(pool(), fields, tmp_path / "dnr", split="val", count=2, seconds=3.0, seed=0)
    assert find_tracks(tmp_path / "dnr", "val", DOMAINS) == tracks
    track = read_track(tracks[0], DOMAINS, RATE)
    assert track.mix.shape == (3 * RATE,)
    assert float(np.abs(track.mix - sum(track.stems.values())).max()) < 1e-3
    scene = draw_scene(pool(), fields, seconds=3.0, seed=0, index=0)
    assert float(np.abs(scene["music"] - track.stems["music"]).max()) < 1e-4
    with pytest.raises(OutputError, match="exists; choose another"):
        write_tracks(pool(), fields, tmp_path / "dnr", split="val", count=1, seconds=3.0, seed=0)
    with pytest.raises(InputError, match="no tracks"):
        find_tracks(tmp_path / "dnr", "test", DOMAINS)


def test_silent_clips_are_an_error_and_not_an_endless_search():
    silent = Pool(RATE, {domain: Clips(np.zeros(RATE, np.int16), np.array([0, RATE])) for domain in DOMAINS})
    with pytest.raises(InputError, match="speech: 20 draws in a row were silent"):
        draw_scene(silent, MixingFields(), seconds=1.0, seed=0, index=0)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_split_is_written_as_a_whole_or_not_at_all(tmp_path, monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(soundfile, "write", fail)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        write_tracks(pool(), MixingFields(), tmp_path / "dnr", split="val", count=2, seconds=1.0, seed=0)
    assert list(tmp_path.iterdir()) == []
