"""Manifests: what is measured, what is read again, and how much memory a big one takes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from sdcodec_cli.audio import AudioReader, integrated_loudness
from sdcodec_cli.data import manifest as module
from sdcodec_cli.data.manifest import Manifest, ScanResult, scan
from sdcodec_cli.errors import InputError, OutputError

DOMAINS = ("speech", "music", "sfx")
RATE = 16_000


def make_root(root: Path, seconds: float = 1.0, count: int = 2) -> Path:
    rng = np.random.default_rng(0)
    for domain in DOMAINS:
        (root / domain).mkdir(parents=True)
        for index in range(count):
            wav = rng.standard_normal(round(seconds * RATE)) * 0.1
            soundfile.write(root / domain / f"{index}.wav", wav, RATE)
    return root


def run(root: Path, target: Path, **options: Any) -> ScanResult:
    return scan(root, target, **{"domains": DOMAINS, "jobs": 1, **options})


def rows(target: Path) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in pq.read_table(target).to_pylist()}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are opened."""
    names: list[str] = []
    enter = AudioReader.__enter__

    def spy(self: AudioReader) -> AudioReader:
        names.append(Path(self._source).name)
        return enter(self)

    monkeypatch.setattr(AudioReader, "__enter__", spy)
    return names


def test_a_row_says_what_is_in_the_file(tmp_path):
    root = make_root(tmp_path / "root")
    rng = np.random.default_rng(1)
    stereo = rng.standard_normal((44_100 * 2, 2)) * 0.1
    stereo[44_100:] = 0  # half of it, to the sample
    soundfile.write(root / "music" / "0.wav", stereo, 44_100, subtype="FLOAT")
    result = run(root, tmp_path / "root" / "manifest.parquet")
    assert result.files == {"speech": 2, "music": 2, "sfx": 2}
    assert result.seconds == {"speech": 2.0, "music": 3.0, "sfx": 2.0}
    assert (result.unreadable, result.unreadable_list, result.reused, result.left_out) == (0, None, 0, 0)
    row = rows(root / "manifest.parquet")["music/0.wav"]
    status = (root / "music" / "0.wav").stat()
    assert list(row) == module._COLUMNS
    assert (row["domain"], row["split"], row["sample_rate"], row["channels"]) == ("music", "train", 44_100, 2)
    assert (row["frames"], row["size"], row["mtime_ns"]) == (88_200, status.st_size, status.st_mtime_ns)
    assert row["active"] == 0.5
    mono = stereo.mean(axis=1, dtype=np.float32)[None]
    assert row["loudness"] == pytest.approx(integrated_loudness(mono, 44_100), abs=1e-4)


def test_silent_and_short_files_are_listed_counted_and_not_used(tmp_path):
    root = make_root(tmp_path / "root")
    soundfile.write(root / "speech" / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(root / "speech" / "short.wav", np.full(RATE // 10 - 1, 0.1), RATE)
    result = run(root, tmp_path / "m.parquet")
    assert result.left_out == 2
    assert result.files["speech"] == 4
    silent = rows(tmp_path / "m.parquet")["speech/silent.wav"]
    assert (silent["loudness"], silent["active"]) == (-np.inf, 0)
    manifest = Manifest.open(tmp_path / "m.parquet")
    assert [manifest.file(row).name for row in manifest.rows("speech")] == ["0.wav", "1.wav"]
    assert (len(manifest), manifest.num_left_out) == (8, 2)


def test_without_measuring_only_headers_are_read_and_nothing_is_known_to_be_silent(tmp_path):
    root = make_root(tmp_path / "root")
    soundfile.write(root / "speech" / "silent.wav", np.zeros(RATE), RATE)
    assert run(root, tmp_path / "m.parquet", measure=False).left_out == 0
    row = rows(tmp_path / "m.parquet")["speech/silent.wav"]
    assert (row["loudness"], row["active"], row["frames"]) == (None, None, RATE)
    assert len(Manifest.open(tmp_path / "m.parquet").rows("speech")) == 3


def test_only_new_and_changed_files_are_read_again(tmp_path, read):
    root, target = make_root(tmp_path / "root"), tmp_path / "root" / "manifest.parquet"
    run(root, target)
    before = rows(target)
    read.clear()
    assert run(root, target).reused == 6
    assert read == []
    assert rows(target) == before
    soundfile.write(root / "sfx" / "new.wav", np.full(RATE, 0.1), RATE)
    soundfile.write(root / "sfx" / "0.wav", np.full(2 * RATE, 0.1), RATE)
    (root / "sfx" / "1.wav").unlink()
    assert run(root, target).reused == 4
    assert set(read) == {"new.wav", "0.wav"}
    after = rows(target)
    assert after.keys() == before.keys() - {"sfx/1.wav"} | {"sfx/new.wav"}
    assert after["sfx/0.wav"]["frames"] == 2 * RATE


def test_measuring_reads_again_what_only_had_its_header_read_and_headers_keep_what_was_measured(tmp_path, read):
    root, target = make_root(tmp_path / "root"), tmp_path / "m.parquet"
    run(root, target, measure=False)
    assert run(root, target).reused == 0
    measured = rows(target)
    assert run(root, target, measure=False).reused == 6
    assert rows(target) == measured


def test_a_broken_file_is_listed_with_its_reason_and_left_out(tmp_path):
    root, target = make_root(tmp_path / "root"), tmp_path / "m.parquet"
    (root / "music" / "broken.wav").write_bytes(b"RIFF nonsense")
    (root / "music" / "empty.flac").touch()
    with open(os.fsencode(root / "sfx") + b"/\xff.wav", "wb"):
        pass
    for measure in (True, False):
        result = run(root, target, measure=measure)
        assert result.unreadable == 3
        assert result.unreadable_list == str(tmp_path / "m.unreadable.txt")
        broken, empty, name = (tmp_path / "m.unreadable.txt").read_text().splitlines()
        assert "broken.wav: not audio that sdc reads" in broken
        assert "empty.flac: is empty" in empty
        assert "\\xff.wav: its name is not valid UTF-8; rename it" in name
        assert len(rows(target)) == 6
    (root / "music" / "broken.wav").unlink()
    (root / "music" / "empty.flac").unlink()
    os.unlink(os.fsencode(root / "sfx") + b"/\xff.wav")
    assert run(root, target).unreadable == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.parquet", "root"]


def test_a_root_of_nothing_but_broken_files_is_an_error(tmp_path):
    for domain in DOMAINS:
        (tmp_path / domain).mkdir()
        (tmp_path / domain / "a.wav").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"none of its 3 audio files can be read; .*m.unreadable.txt says why"):
        run(tmp_path, tmp_path / "m.parquet")
    assert not (tmp_path / "m.parquet").exists()


def test_any_number_of_processes_find_the_same(tmp_path, monkeypatch):
    root = make_root(tmp_path / "root", count=4)
    monkeypatch.setattr(module, "_CHUNK_FILES", 2)
    calls: list[tuple[float, float | None]] = []
    run(root, tmp_path / "one.parquet")
    run(root, tmp_path / "two.parquet", jobs=2, progress=lambda *call: calls.append(call))
    assert rows(tmp_path / "one.parquet") == rows(tmp_path / "two.parquet")
    assert calls[0] == (12, None)
    assert calls[1:] == [(done, 12) for done in range(2, 13, 2)]
    assert not psutil.Process().children(recursive=True) or all(
        "resource_tracker" in " ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)
    )


SCAN = """
import signal, sys, time
from pathlib import Path
from sdcodec_cli.data import manifest
if __name__ == "__main__":
    # Shells that run the tests in the background have it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    manifest._CHUNK_FILES = 1
    def slowly(done, total):
        if total is not None:
            print(done, flush=True)
            time.sleep(0.02)
    root, target = map(Path, sys.argv[1:])
    manifest.scan(root, target, domains=("speech", "music", "sfx"), jobs=2, progress=slowly)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_scan_that_was_stopped_goes_on_where_it_was_and_leaves_no_processes(tmp_path, read, number):
    root, target = make_root(tmp_path / "root", seconds=0.2, count=40), tmp_path / "m.parquet"
    (tmp_path / "scan.py").write_text(SCAN)
    environment = {**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, tmp_path / "scan.py", root, target],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 20:
            pass
        workers = psutil.Process(process.pid).children(recursive=True)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        process.stdout.read()
    gone, alive = psutil.wait_procs(workers, timeout=10)
    assert (len(gone) >= 2, alive) == (True, [])
    assert not target.exists()
    reports: list[str] = []
    result = run(root, target, report=reports.append)
    assert 20 <= result.reused < 120
    assert len(set(read)) <= len(read) == 2 * (120 - result.reused)  # header and samples
    assert f"goes on after {result.reused} files" in reports[0]
    assert len(rows(target)) == 120
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] in ([], [".m.parquet.lock"])


def test_the_last_words_of_an_interrupted_scan_may_be_cut_off(tmp_path, monkeypatch):
    root, target = make_root(tmp_path / "root"), tmp_path / "m.parquet"
    monkeypatch.setattr(module, "_CHUNK_FILES", 1)

    def stop(done: float, total: float | None) -> None:
        if total and done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(root, target, progress=stop)
    journal = tmp_path / ".m.parquet.journal"
    journal.write_bytes(journal.read_bytes()[:-200])
    assert 2 <= run(root, target).reused < 4
    assert not journal.exists()


def test_the_root_is_found_after_the_tree_has_moved(tmp_path):
    for name, target in (
        ("inside", "root/manifest.parquet"),
        ("beside", "m.parquet"),
        ("deep", "root/lists/m.parquet"),
    ):
        folder = tmp_path / name
        make_root(folder / "root")
        (folder / "root" / "lists").mkdir()
        run(folder / "root", folder / target, measure=False)
        folder.rename(tmp_path / "moved")
        manifest = Manifest.open(tmp_path / "moved" / target)
        assert manifest.file(0) == tmp_path / "moved" / "root" / "music" / "0.wav"
        (tmp_path / "moved").rename(tmp_path / f"{name} done")


def test_a_manifest_elsewhere_keeps_the_whole_path_of_its_root(tmp_path):
    make_root(tmp_path / "data" / "root")
    (tmp_path / "run").mkdir()
    run(tmp_path / "data" / "root", tmp_path / "run" / "m.parquet", measure=False)
    (tmp_path / "run").rename(tmp_path / "other")
    assert Manifest.open(tmp_path / "other" / "m.parquet").root == tmp_path / "data" / "root"
    (tmp_path / "data").rename(tmp_path / "gone")
    with pytest.raises(InputError, match="is not there; run sdc data scan again"):
        Manifest.open(tmp_path / "other" / "m.parquet")


@pytest.mark.parametrize("damage", ["cut", "text", "columns", "byte"])
def test_a_damaged_manifest_is_an_error_in_one_line(tmp_path, damage):
    root, target = make_root(tmp_path / "root"), tmp_path / "m.parquet"
    run(root, target)
    data = target.read_bytes()
    if damage == "cut":
        target.write_bytes(data[: len(data) // 2])
    elif damage == "text":
        target.write_text("path,domain\n")
    elif damage == "columns":
        pq.write_table(pa.table({"path": ["a"]}), target)
    else:
        target.write_bytes(data[:20] + bytes([data[20] ^ 0xFF]) + data[21:])
    with pytest.raises(InputError, match=r"m.parquet: is damaged, or not a manifest; remove it"):
        Manifest.open(target).file(0)
    with pytest.raises(OutputError, match="exists and is not a manifest; remove it, or choose another"):
        run(root, target)


def test_a_missing_manifest_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match=r"no such file; make a manifest with sdc data scan"):
        Manifest.open(tmp_path / "m.parquet")


def test_a_manifest_that_is_replaced_while_in_use_is_not_mixed_up(tmp_path):
    root, target = make_root(tmp_path / "root"), tmp_path / "m.parquet"
    run(root, target, measure=False)
    manifest = Manifest.open(target)
    copy = pickle.dumps(manifest)
    soundfile.write(root / "music" / "00.wav", np.full(RATE, 0.1), RATE)
    run(root, target, measure=False)
    assert manifest.file(2).name == "0.wav"
    with pytest.raises(InputError, match="was replaced while it was in use; start again"):
        len(pickle.loads(copy))


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_full_disk_is_one_error(tmp_path, monkeypatch, jobs):
    root = make_root(tmp_path / "root")
    monkeypatch.setattr(module, "_CHUNK_FILES", 1)
    monkeypatch.setattr(pa.ipc, "new_stream", lambda file, schema: pa.RecordBatchStreamWriter("/dev/full", schema))
    with pytest.raises(OutputError, match=r"m.parquet: cannot be written: .*free some space or choose another -o"):
        run(root, tmp_path / "m.parquet", jobs=jobs)
    assert not (tmp_path / "m.parquet").exists()


def test_a_target_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path, read):
    root = make_root(tmp_path / "root")
    for target in (tmp_path, tmp_path / "missing" / "m.parquet", Path("/dev/full")):
        with pytest.raises(OutputError):
            run(root, target)
    assert read == []


def big_manifest(folder: Path, count: int) -> Path:
    """As many rows as the paper has files, with paths as long as those of the DNS Challenge."""
    rng = np.random.default_rng(0)
    books = [
        f"dns/datasets_fullband/clean_fullband/read_speech/book_{n:05d}_chp_0012_reader_00345" for n in range(9000)
    ]
    names = sorted(f"{books[n % 9000]}_{n // 9000}_seg_1.wav" for n in range(count))
    kinds = np.array(["speech", "music", "sfx"])
    table = pa.table(
        {
            "path": names,
            "domain": kinds[np.searchsorted([0.91, 0.95], np.linspace(0, 1, count))],
            "split": ["train"] * count,
            "sample_rate": pa.array(np.full(count, 48_000), pa.int32()),
            "channels": pa.array(np.full(count, 1), pa.int32()),
            "frames": rng.integers(48_000, 1_000_000, count),
            "loudness": rng.uniform(-40, -10, count).astype(np.float32),
            "active": rng.random(count, dtype=np.float32) + np.float32(0.1),
            "size": rng.integers(10_000, 10_000_000, count),
            "mtime_ns": rng.integers(1, 2**60, count),
        }
    )
    (folder / "root").mkdir()
    module._write_manifest(table, folder / "big.parquet", folder / "root")
    return folder / "big.parquet"


MEMORY = """
import os, sys, time
from pathlib import Path
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
from sdcodec_cli.data.pool import FileClips
from sdcodec_cli.data.manifest import Manifest
start = resident()
import pyarrow.parquet
imported = resident()
began = time.perf_counter()
manifest = Manifest.open(Path(sys.argv[1]))
seconds = time.perf_counter() - began
clips = FileClips(manifest, "speech", "train", 16_000)
ends = clips.ends
opened = resident()
def draw():
    import numpy as np
    rng = np.random.default_rng(os.getpid())
    before = int([line for line in open("/proc/self/smaps_rollup") if line.startswith("Private_Dirty")][0].split()[1])
    began = time.perf_counter()
    for _ in range(2000):
        manifest.file(int(clips.rows[rng.integers(len(ends))]))
    took = (time.perf_counter() - began) / 2000
    after = int([line for line in open("/proc/self/smaps_rollup") if line.startswith("Private_Dirty")][0].split()[1])
    return took * 1e3, (after - before) / 1e3
readers = []
for _ in range(4):
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, "{} {}".format(*draw()).encode())
        os._exit(0)
    readers.append(reader)
print(seconds, start, imported, opened, max(float(os.read(r, 99).split()[1]) for r in readers), draw()[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads Linux's /proc")
def test_a_manifest_of_the_papers_size_opens_fast_and_small_and_workers_share_it(tmp_path):
    path = big_manifest(tmp_path, 1_300_000)
    environment = {**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2])}
    output = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEMORY, path],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    seconds, start, imported, opened, private, lookup = map(float, output.stdout.split())
    print(
        f"\nopened in {seconds:.2f} s; MB resident: {start:.0f} before, {imported:.0f} with pyarrow, {opened:.0f} open"
        f"; a worker's own: +{private:.0f} MB; {lookup:.2f} ms a path"
    )
    assert seconds < 1
    assert opened < 200
    assert private < 40
    assert lookup < 2


def test_a_pickled_manifest_is_small_and_works_in_any_process(tmp_path):
    manifest = Manifest.open(big_manifest(tmp_path, 5000))
    data = pickle.dumps(manifest)
    assert len(data) < 500
    for method in ("fork", "spawn") if sys.platform == "linux" else ("spawn",):
        context = multiprocessing.get_context(method)
        with context.Pool(1) as pool:
            assert pool.apply(manifest.file, (4999,)) == manifest.file(4999)
    assert pickle.loads(data).rows("speech").tolist() == manifest.rows("speech").tolist()


def test_reading_does_not_depend_on_the_time_of_day(tmp_path):
    """A file whose time is in the future is not read again and again."""
    root, target = make_root(tmp_path / "root"), tmp_path / "m.parquet"
    later = time.time_ns() + 10**15
    os.utime(root / "sfx" / "0.wav", ns=(later, later))
    run(root, target, measure=False)
    assert run(root, target, measure=False).reused == 6
