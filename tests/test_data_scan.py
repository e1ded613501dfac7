"""Scans: what is measured, what is read again, and what an interruption costs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
import soundfile
from manifest_examples import DOMAINS, RATE, make_root, rows, run

from sdcodec_cli.audio import AudioReader, integrated_loudness
from sdcodec_cli.data import scan as module
from sdcodec_cli.data.manifest import Manifest
from sdcodec_cli.errors import InputError, OutputError


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are opened."""
    names: list[str] = []
    enter = AudioReader.__enter__

    def spy(self: AudioReader) -> AudioReader:
        names.append(Path(self._given).name)
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
from sdcodec_cli.data import scan
if __name__ == "__main__":
    # Shells that run the tests in the background have it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    scan._CHUNK_FILES = 1
    def slowly(done, total):
        if total is not None:
            print(done, flush=True)
            time.sleep(0.02)
    root, target = map(Path, sys.argv[1:])
    scan.scan(root, target, domains=("speech", "music", "sfx"), jobs=2, progress=slowly)
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
    assert reports[1] == f"{root}: reading {120 - result.reused} files"
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


def test_reading_does_not_depend_on_the_time_of_day(tmp_path):
    """A file whose time is in the future is not read again and again."""
    root, target = make_root(tmp_path / "root"), tmp_path / "m.parquet"
    later = time.time_ns() + 10**15
    os.utime(root / "sfx" / "0.wav", ns=(later, later))
    run(root, target, measure=False)
    assert run(root, target, measure=False).reused == 6
