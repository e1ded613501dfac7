"""Streams with changed bytes and right checksums: the reader reports or refuses, and never breaks."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzing import CORPUS, TABLES, exercise, mutated, repaired, seeds

from sdcodec_cli.bitstream import Reader
from sdcodec_cli.engine.conceal import concealed
from sdcodec_cli.engine.stretches import stretches
from sdcodec_cli.errors import StreamError


@pytest.mark.parametrize("name", seeds())
def test_right_checksums_stay_as_they_are(name: str) -> None:
    assert repaired(seeds()[name]) == seeds()[name]


@pytest.mark.parametrize("name", seeds())
def test_checksums_of_what_was_changed_are_put_right(name: str) -> None:
    data = bytearray(seeds()[name])
    data[-10] ^= 1  # in the end
    data[30] ^= 1  # in the name of the model
    assert repaired(bytes(data)) not in (bytes(data), seeds()[name])
    assert repaired(bytes(data))[:31] == bytes(data)[:31]


@pytest.mark.parametrize("name", seeds())
def test_changed_streams_of_every_kind_never_break_the_reader(name: str) -> None:
    data, chance = seeds()[name], random.Random(name)
    for _ in range(12):
        exercise(mutated(data, chance))


@pytest.mark.parametrize("name", seeds())
def test_whatever_is_lost_frames_follow_one_another_and_codes_stay_codes(name: str) -> None:
    data, chance = seeds()[name], random.Random(name)
    for _ in range(10):
        try:
            reader = Reader(io.BytesIO(mutated(data, chance)))
            reader.tables = TABLES if reader.header.tables_sha256 is not None else None
            header = reader.header
            streams = [entry.name for entry in header.domains]
            if header.parts:
                continue
            found = stretches(reader, reader.segments(0, 2000), header, streams, 0, 2000)
            for stretch in concealed(found, (0, -12), mixed=False):
                for (_, stream), codes in stretch.codes.items():
                    entry = header.domains[streams.index(stream)]
                    assert codes.shape[1] == header.frames_in(entry, stretch.num_frames)
                    assert -1 <= codes.min() <= codes.max() < entry.codebook_size
        except StreamError:
            continue


def test_streams_that_fuzzing_found_never_break_the_reader() -> None:
    found = sorted(CORPUS.iterdir())
    assert len(found) > 10
    for path in found:
        exercise(repaired(path.read_bytes()))


@pytest.mark.slow
def test_a_while_of_fuzzing_that_follows_coverage_finds_nothing(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="needs atheris; pip install atheris")
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    (tmp_path / "new").mkdir()
    # What limits its memory looks at the most that the process ever had, before it was this program, too: that of the
    # tests. Hence a process between.
    between = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
    result = subprocess.run(
        [
            *(sys.executable, "-c", between, sys.executable),
            CORPUS.parent / "stream.py",
            "-max_total_time=30",
            "-rss_limit_mb=1024",
            tmp_path / "new",
            CORPUS,
        ],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
