"""Sets in the layout of DnR: made from a pool, found and read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from sdcodec_cli.audio import integrated_loudness
from sdcodec_cli.data.dnr import draw_scene, find_tracks, read_track, write_tracks
from sdcodec_cli.data.pool import ArrayClips, Pool
from sdcodec_cli.errors import InputError, OutputError
from sdcodec_cli.recipe import MixingFields

RATE = 16_000
DOMAINS = ("speech", "music", "sfx")


def make_pool(seconds: float = 30.0, clips: int = 6) -> Pool:
    made = {}
    for number, domain in enumerate(DOMAINS):
        rng = np.random.default_rng(number)
        samples = (rng.standard_normal(round(seconds * RATE)) * 3000).astype(np.int16)
        made[domain] = ArrayClips(samples, np.linspace(0, len(samples), clips + 1).astype(np.int64)[1:])
    return Pool(RATE, made)


def test_tracks_are_written_found_and_read(tmp_path):
    fields, pool = MixingFields(), make_pool()
    tracks = write_tracks(pool, fields, tmp_path / "dnr", split="val", count=2, seconds=3.0, seed=0)
    assert find_tracks(tmp_path / "dnr", "val", DOMAINS) == tracks
    track = read_track(tracks[0], DOMAINS, RATE)
    assert track.mix.shape == (3 * RATE,)
    assert float(np.abs(track.mix - sum(track.stems.values())).max()) < 1e-3
    scene = draw_scene(pool, fields, seconds=3.0, seed=0, index=0)
    assert float(np.abs(scene["music"] - track.stems["music"]).max()) < 1e-4
    with pytest.raises(OutputError, match="exists; choose another"):
        write_tracks(pool, fields, tmp_path / "dnr", split="val", count=1, seconds=3.0, seed=0)
    with pytest.raises(InputError, match="no tracks"):
        find_tracks(tmp_path / "dnr", "test", DOMAINS)


def test_scenes_are_on_the_loudness_targets_of_the_paper():
    scene = draw_scene(make_pool(), MixingFields(loudness_range=0.0), seconds=10.0, seed=0, index=0)
    levels = {domain: integrated_loudness(stem[None], RATE) for domain, stem in scene.items()}
    assert levels["speech"] - levels["music"] == pytest.approx(7.0, abs=0.1)
    assert levels["speech"] - levels["sfx"] == pytest.approx(4.0, abs=0.1)
    assert integrated_loudness(np.sum(list(scene.values()), axis=0)[None], RATE) == pytest.approx(-27, abs=0.1)


def test_any_number_of_processes_make_the_same_mixtures(tmp_path):
    calls: list[tuple[float, float | None]] = []
    for jobs in (1, 2):
        write_tracks(
            make_pool(),
            MixingFields(),
            tmp_path / str(jobs),
            split="test",
            count=3,
            seconds=2.0,
            seed=5,
            jobs=jobs,
            progress=lambda *call: calls.append(call),
        )
    assert calls == [(1, 3), (2, 3), (3, 3)] * 2
    names = sorted(path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*.wav"))
    assert len(names) == 12
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


class Damaged(ArrayClips):
    """Clips of which the first cannot be read."""

    bad = 1

    def read(self, clip: int, start: int, length: int) -> np.ndarray:
        if clip < self.bad:
            raise InputError(f"{clip}.wav: is cut short")
        return super().read(clip, start, length)


def test_a_damaged_file_is_reported_once_and_another_is_drawn(tmp_path):
    pool = make_pool(seconds=6.0)
    damaged = Damaged(pool.clips["sfx"].samples, pool.clips["sfx"].ends)
    reports: list[str] = []
    write_tracks(
        Pool(RATE, {**pool.clips, "sfx": damaged}),
        MixingFields(),
        tmp_path / "dnr",
        split="val",
        count=4,
        seconds=6.0,
        seed=0,
        report=reports.append,
    )
    assert reports == ["0.wav: is cut short (left out)"]
    assert len(list((tmp_path / "dnr").rglob("mix.wav"))) == 4


def test_a_domain_of_damaged_files_is_an_error_and_not_an_endless_search(monkeypatch):
    monkeypatch.setattr(Damaged, "bad", 6)
    pool = make_pool()
    broken = Pool(RATE, {**pool.clips, "sfx": Damaged(pool.clips["sfx"].samples, pool.clips["sfx"].ends)})
    with pytest.raises(InputError, match="is cut short"):
        draw_scene(broken, MixingFields(), seconds=1.0, seed=0, index=0)


def test_silent_clips_are_an_error_and_not_an_endless_search():
    silent = Pool(RATE, {domain: ArrayClips(np.zeros(RATE, np.int16), np.array([RATE])) for domain in DOMAINS})
    with pytest.raises(InputError, match="speech: 20 draws in a row were silent"):
        draw_scene(silent, MixingFields(), seconds=1.0, seed=0, index=0)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_split_is_written_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch, error):
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(soundfile, "write", fail)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        write_tracks(make_pool(), MixingFields(), tmp_path / "dnr", split="val", count=2, seconds=1.0, seed=0)
    assert list(tmp_path.iterdir()) == []
