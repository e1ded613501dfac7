"""Manifests: whose files they list, what damage to them says, and how much memory a big one takes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from manifest_examples import RATE, make_root, run

from sdcodec_cli.data import scan as module
from sdcodec_cli.data.manifest import Manifest
from sdcodec_cli.errors import InputError, OutputError


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
