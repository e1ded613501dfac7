"""Pools: crops from files equal those of the whole file, whatever the rate and format."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from sdcodec_cli.data.manifest import Manifest
from sdcodec_cli.data.pool import ArrayClips, DecodedClips, FileClips, Pool, clip_length, find_manifest, open_pool
from sdcodec_cli.data.scan import scan
from sdcodec_cli.errors import InputError, OutputError

DOMAINS = ("speech", "music", "sfx")
RATE = 16_000


def make_root(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for number, domain in enumerate(DOMAINS):
        (root / domain / "deep").mkdir(parents=True)
        for index in range(3):
            wav = rng.standard_normal((RATE * 2, 1 + number % 2)) * 0.1
            soundfile.write(root / domain / "deep" / f"{index}.flac", wav, 32_000 if index == 2 else RATE)
    return root


def manifest_of(root: Path, **options: Any) -> Manifest:
    target = root.parent / f"{root.name}.parquet"
    domains = tuple(path.name for path in root.iterdir() if path.is_dir())
    scan(root, target, **{"domains": domains, "jobs": 1, "measure": False, **options})
    return Manifest.open(target)


def write_clip(path: Path, wav: np.ndarray, rate: int, **options: Any) -> FileClips:
    path.parent.mkdir(parents=True)
    soundfile.write(path, wav, rate, **options)
    return FileClips(manifest_of(path.parent.parent), "speech", None, RATE)


def test_a_pool_reads_folders_of_any_depth_rate_and_channels(tmp_path):
    pool = open_pool(manifest_of(make_root(tmp_path / "root")), split=None, domains=DOMAINS, sample_rate=RATE)
    assert list(pool.clips) == list(DOMAINS)
    for domain in DOMAINS:
        clips = pool.clips[domain]
        assert clips.ends.tolist() == [2 * RATE, 4 * RATE, 5 * RATE]
        assert [clip_length(clips, clip) for clip in range(3)] == [2 * RATE, 2 * RATE, RATE]
        assert pool.seconds(domain) == 5.0


def test_a_crop_at_the_files_rate_is_the_mean_of_its_channels_to_the_bit(tmp_path):
    wav = np.random.default_rng(0).integers(-32768, 32768, (RATE, 2)).astype(np.int16)
    clips = write_clip(tmp_path / "root/speech/a.wav", wav, RATE)
    assert np.array_equal(clips.read(0, 1234, 500), (wav[1234:1734] / np.float32(32768)).mean(axis=1))
    assert len(clips.read(0, RATE, 0)) == 0


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000])
def test_crops_at_another_rate_are_those_of_the_whole_file_without_edges(tmp_path, rate):
    wav = np.random.default_rng(0).uniform(-0.5, 0.5, rate * 3).astype(np.float32)
    clips = write_clip(tmp_path / "root/speech/a.wav", wav, rate, subtype="FLOAT")
    whole = soxr.resample(wav, rate, RATE, quality="HQ")
    length = clip_length(clips, 0)
    assert length == 3 * RATE
    for start, count in [(0, 100), (0, length), (1, 7), (16_001, 4_000), (length - 333, 333), (length - 1, 1)]:
        crop = clips.read(0, start, count)
        assert crop.shape == (count,)
        assert crop.dtype == np.float32
        assert float(np.abs(crop - whole[start : start + count]).max()) < 2e-5  # below 16 bits


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.opus", "a.mp3"])
def test_a_crop_of_a_compressed_file_is_where_it_should_be(tmp_path, name):
    rate = 48_000
    time = np.arange(rate * 20) / rate
    wav = 0.5 * np.sin(2 * np.pi * (200 + 100 * time) * time)  # no two stretches of it are alike
    form = {".opus": {"format": "OGG", "subtype": "OPUS"}, ".ogg": {"format": "OGG", "subtype": "VORBIS"}}
    clips = write_clip(tmp_path / "root/speech" / name, wav, rate, **form.get(Path(name).suffix, {}))
    assert 19.9 * RATE < clip_length(clips, 0) < 20.2 * RATE
    for start in (0, 5 * RATE + 17, 13 * RATE):
        crop = clips.read(0, start, RATE)
        at = (start + np.arange(RATE)) / RATE
        error = crop - 0.5 * np.sin(2 * np.pi * (200 + 100 * at) * at)
        assert float(np.sqrt(np.mean(error[100:] ** 2))) < 0.02


def test_only_the_samples_of_a_clip_can_be_read(tmp_path):
    clips = write_clip(tmp_path / "root/speech/a.wav", np.full(RATE, 0.1), RATE)
    for start, length in ((-1, 5), (RATE - 4, 5), (0, RATE + 1), (5, -1)):
        with pytest.raises(ValueError, match="clip 0 has 16000 samples"):
            clips.read(0, start, length)


def test_a_file_that_is_not_what_its_manifest_says_is_an_input_error(tmp_path):
    path = tmp_path / "root/speech/a.wav"
    clips = write_clip(path, np.full(RATE, 0.1), RATE)
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], b"nonsense", b""):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"a\.wav: .*run sdc data scan again"):
            clips.read(0, RATE - 100, 100)
    soundfile.write(path, np.full(2 * RATE, 0.1), 2 * RATE)
    with pytest.raises(InputError, match="not what it was when scanned"):
        clips.read(0, 0, 100)
    soundfile.write(path, np.full(RATE, np.nan), RATE, subtype="FLOAT")
    with pytest.raises(InputError, match="samples that are not numbers"):
        clips.read(0, 0, 100)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        clips.read(0, 0, 100)


def test_a_compressed_file_that_ends_early_is_an_input_error(tmp_path):
    path = tmp_path / "root/speech/a.flac"
    clips = write_clip(path, np.random.default_rng(0).standard_normal(RATE * 30) * 0.1, RATE)
    path.write_bytes(path.read_bytes()[:100_000])
    assert len(clips.read(0, 0, 1000)) == 1000
    with pytest.raises(InputError, match=r"a\.flac: "):
        clips.read(0, 20 * RATE, 1000)


def test_a_pool_has_the_clips_of_one_split_or_of_all(tmp_path):
    for split in ("train", "valid"):
        make_root(tmp_path / "root" / split)
    manifest = tmp_path / "m.parquet"
    scan(tmp_path / "root", manifest, domains=DOMAINS, jobs=1, measure=False)
    seconds = {
        split: open_pool(Manifest.open(manifest), split=split, domains=DOMAINS, sample_rate=RATE).seconds("sfx")
        for split in ("train", "valid", None)
    }
    assert seconds == {"train": 5.0, "valid": 5.0, None: 10.0}
    with pytest.raises(InputError, match=r"no clips of speech in split test that last 0\.1 s and are not silent"):
        open_pool(Manifest.open(manifest), split="test", domains=DOMAINS, sample_rate=RATE)


def test_silent_files_are_left_out_and_counted(tmp_path):
    root = make_root(tmp_path / "root")
    soundfile.write(root / "sfx" / "silent.wav", np.zeros(RATE), RATE)
    reports: list[str] = []
    manifest = manifest_of(root, measure=True)
    pool = open_pool(manifest, split=None, domains=DOMAINS, sample_rate=RATE, report=reports.append)
    assert pool.seconds("sfx") == 5.0
    assert reports == [f"{tmp_path / 'root.parquet'}: 1 files are shorter than 0.1 s or silent (left out)"]


def test_a_decoded_pool_is_that_of_the_files_and_is_decoded_once(tmp_path):
    manifest = manifest_of(make_root(tmp_path / "root"))
    options: dict[str, Any] = {"split": None, "domains": DOMAINS, "sample_rate": RATE}
    files = open_pool(manifest, **options)
    calls: list[tuple[float, float | None]] = []
    options |= {"decoded": tmp_path / "kept", "progress": lambda *call: calls.append(call)}
    reports: list[str] = []
    pools = [open_pool(manifest, report=reports.append, **options) for _ in range(2)]
    assert len(reports) == 2  # of the first one, when it begins and when it is done
    assert len(calls) == 9
    assert calls[-1] == (15.0, 15.0)
    for domain in DOMAINS:
        for pool in pools:
            assert np.array_equal(pool.clips[domain].ends, files.clips[domain].ends)
            for clip in range(3):
                one, other = (p.clips[domain].read(clip, 100, 900) for p in (pool, files))
                assert float(np.abs(one - other).max()) <= 0.5 / 32768 + 1e-9
    # Mono files of 16 bits at the pool's rate come through unchanged.
    assert np.array_equal(pools[0].clips["speech"].read(1, 0, RATE), files.clips["speech"].read(1, 0, RATE))
    names = sorted(path.name.split("-")[0] for path in (tmp_path / "kept").iterdir())
    assert names == ["music", "music", "sfx", "sfx", "speech", "speech"]


def test_a_decoded_pool_follows_the_files_and_the_rate(tmp_path):
    root = make_root(tmp_path / "root")
    options: dict[str, Any] = {"split": None, "domains": DOMAINS, "decoded": tmp_path / "kept"}
    assert open_pool(manifest_of(root), sample_rate=RATE, **options).seconds("sfx") == 5.0
    (root / "sfx" / "deep" / "0.flac").unlink()
    assert open_pool(manifest_of(root), sample_rate=RATE, **options).seconds("sfx") == 3.0
    assert int(open_pool(manifest_of(root), sample_rate=8_000, **options).clips["sfx"].ends[-1]) == 24_000


def test_a_broken_file_is_reported_and_left_out_of_a_decoded_pool(tmp_path):
    root = make_root(tmp_path / "root")
    manifest = manifest_of(root)
    path = root / "music" / "deep" / "1.flac"
    path.write_bytes(path.read_bytes()[:2000])
    reports: list[str] = []
    options: dict[str, Any] = {"split": None, "domains": DOMAINS, "sample_rate": RATE, "decoded": tmp_path / "kept"}
    clips = open_pool(manifest, report=reports.append, **options).clips["music"]
    assert clips.ends.tolist() == [2 * RATE, 3 * RATE]
    start, broken, done = reports
    assert start == f"{tmp_path / 'kept'}: decoding 9 files, 0.00 h"
    assert "1.flac" in broken
    assert "left out" in broken
    assert done == f"{tmp_path / 'kept'}: 9 files decoded in 0 s"
    files = FileClips(manifest, "music", None, RATE)
    assert float(np.abs(clips.read(1, 0, RATE) - files.read(2, 0, RATE)).max()) < 1 / 32768
    for name in ("0.flac", "2.flac"):
        (root / "music" / "deep" / name).write_bytes(b"nonsense")
    with pytest.raises(InputError, match="none of the 3 files of music can be decoded"):
        open_pool(manifest, **{**options, "decoded": tmp_path / "other"})


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path, monkeypatch):
    manifest = manifest_of(make_root(tmp_path / "root"))
    options: dict[str, Any] = {"split": None, "domains": DOMAINS, "sample_rate": RATE}
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        open_pool(manifest, decoded=tmp_path / "file", **options)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OutputError, match="cannot be written: No space left on device; free some space"):
        open_pool(manifest, decoded=tmp_path / "kept", **options)
    assert [path.name.split(".")[1] for path in (tmp_path / "kept").iterdir()] in ([], ["ends"])


def _seconds(manifest: Manifest, kept: Path, results: Any) -> None:
    pool = open_pool(manifest, split=None, domains=DOMAINS, sample_rate=RATE, decoded=kept)
    results.put(float(np.abs(pool.clips["sfx"].read(2, 0, RATE)).sum()))


def test_processes_that_start_at_once_share_a_decoded_pool(tmp_path):
    manifest = manifest_of(make_root(tmp_path / "root"))
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_seconds, args=(manifest, tmp_path / "kept", results)) for _ in range(2)]
    for process in processes:
        process.start()
    one, other = (results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert one == other > 0
    assert len(list((tmp_path / "kept").iterdir())) == 6


def test_clips_of_all_kinds_are_pickled_by_name(tmp_path):
    manifest = manifest_of(make_root(tmp_path / "root"))
    options: dict[str, Any] = {"split": None, "domains": DOMAINS, "sample_rate": RATE}
    for pool in (open_pool(manifest, **options), open_pool(manifest, decoded=tmp_path / "kept", **options)):
        data = pickle.dumps(pool)
        assert len(data) < 2000
        copy: Pool = pickle.loads(data)
        assert np.array_equal(copy.clips["music"].read(1, 5, 50), pool.clips["music"].read(1, 5, 50))


def test_a_decoded_file_that_is_cut_off_says_what_to_do(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(10, np.int16))
    with pytest.raises(InputError, match=r"a\.npy: is damaged or incomplete; remove it and start again"):
        DecodedClips(tmp_path / "a.npy")


def test_clips_in_memory_are_read_like_files():
    clips = ArrayClips(np.arange(10, dtype=np.int16), np.array([4, 10]))
    assert (clips.read(1, 1, 3) * 32768).tolist() == [5, 6, 7]
    with pytest.raises(ValueError, match="clip 0 has 4 samples, not 3 from 2"):
        clips.read(0, 2, 3)


def test_a_data_root_is_a_manifest_or_has_one_or_gets_one_elsewhere(tmp_path):
    root = make_root(tmp_path / "root")
    kept = tmp_path / "run"
    kept.mkdir()
    made = find_manifest(root, DOMAINS, kept=kept, jobs=1)
    assert made.path == kept / "manifest.parquet"
    assert len(made) == 9
    with pytest.raises(InputError, match=r"has no manifest.parquet; make it with sdc data scan"):
        find_manifest(root, DOMAINS, kept=None, jobs=1)
    scan(root, root / "manifest.parquet", domains=DOMAINS, jobs=1)
    for place in (root, root / "manifest.parquet"):
        assert find_manifest(place, DOMAINS, kept=None, jobs=1).path == root / "manifest.parquet"


def test_files_that_cannot_be_read_get_a_line_each_unless_there_are_many(tmp_path):
    root = make_root(tmp_path / "root")
    (root / "music" / "broken.wav").write_bytes(b"RIFF nonsense")
    reports: list[str] = []
    find_manifest(root, DOMAINS, kept=tmp_path, jobs=1, report=reports.append)
    start, done, broken = reports
    assert start == f"{root}: reading the headers of 10 files"
    assert done == f"{root}: 9 files, 0.00 h"
    assert "broken.wav" in broken
    assert "left out" in broken
    for number in range(11):
        (root / "music" / f"b{number}.wav").touch()
    reports.clear()
    find_manifest(root, DOMAINS, kept=tmp_path, jobs=1, report=reports.append)
    assert len(reports) == 13
    assert reports[-1] == f"2 more files cannot be read; sdc data scan {root} lists them all"


def test_a_root_without_a_domain_says_what_belongs_there(tmp_path):
    with pytest.raises(InputError, match="no audio files of speech, music, sfx; understood are"):
        find_manifest(tmp_path, DOMAINS, kept=tmp_path, jobs=1)


def test_files_of_a_lower_rate_are_left_out_where_that_is_asked_for_and_counted(tmp_path):
    manifest = manifest_of(make_root(tmp_path / "root"))
    lines: list[str] = []
    pool = open_pool(
        manifest, split=None, domains=DOMAINS, sample_rate=32_000, min_sample_rate=32_000, report=lines.append
    )
    assert [pool.clips[domain].ends.tolist() for domain in DOMAINS] == [[32_000]] * 3
    counts = ", ".join(f"2 files of {domain}" for domain in DOMAINS)
    assert lines == [f"{manifest.path}: {counts} have fewer than 32000 Hz (left out)"]
    for clips in pickle.loads(pickle.dumps(pool)).clips.values():
        assert clips.ends.tolist() == [32_000]
    with pytest.raises(InputError, match="has no clips of speech that have 48000 Hz or more, last 0.1 s and are not"):
        open_pool(manifest, split=None, domains=DOMAINS, sample_rate=32_000, min_sample_rate=48_000)
