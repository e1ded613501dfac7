"""What `inspect` says about streams, whole and damaged."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from sdcodec_cli.bitstream import DomainEntry, Problem
from sdcodec_cli.engine.inspect import FileReport, StreamReport, inspect
from sdcodec_cli.errors import InputError, NotAStream

from bitstream_examples import (
    Example,
    example_header,
    long_example,
    pipe,
    random_codes,
    range_coded_example,
    range_coded_tables,
    small_example,
    write_example,
)


def ten_seconds() -> Example:
    """Speech in four of five segments, sfx in one, otherwise silent or removed; 12 and 6 codebooks."""
    domains = (
        DomainEntry(name="speech", num_codebooks=12, codebook_size=1024),
        DomainEntry(name="sfx", num_codebooks=6, codebook_size=1024),
    )
    header = example_header(domains=domains, segment_frames=100, tags={"title": "Ten"}, original_rate=48_000)
    codes = random_codes(header, 100)
    speech = {(0, "speech"): codes[0, "speech"]}
    segments = [codes, {**speech, (0, "sfx"): None}, {**speech, (0, "sfx"): None}, speech, {(0, "speech"): None}]
    return write_example(header, segments, [100] * 5, samples=480_000)


def test_a_whole_file_is_described_in_full(tmp_path: Path) -> None:
    example = ten_seconds()
    path = tmp_path / "talk.sdc"
    path.write_bytes(example.data)
    report = inspect(path)
    # 8 s of speech at 12 x 10 bit x 50 Hz, 2 s of sfx at half of that.
    payload = 8 * 6000 // 8 + 2 * 3000 // 8
    size = len(example.data)
    assert report == FileReport(
        name=str(path),
        format_version="1.0",
        complete=True,
        model="toy",
        weights_sha256=bytes(range(32)).hex(),
        lower=(),
        encoder="sdc test",
        tags={"title": "Ten"},
        cover=None,
        sample_rate=16_000,
        hop_length=320,
        frame_rate=50.0,
        context_frames=10,
        original_rate=48_000,
        original_channels=2,
        coded_channels=1,
        original_samples=480_000,
        gain_db=-1.5,
        segment_frames=100,
        num_segments=5,
        num_frames=500,
        duration=10.0,
        num_bytes=size,
        payload_bytes=payload,
        bitrate=5.4,
        file_bitrate=pytest.approx(size * 8 / 10 / 1000),
        overhead=pytest.approx(100 * (size - payload) / payload),
        tables_sha256=None,
        codes_checked=True,
        saved=None,
        streams=(
            StreamReport(
                channel=0,
                domain="speech",
                stem="speech",
                stage=0,
                num_codebooks=12,
                codebook_size=1024,
                num_bytes=6000,
                raw_bytes=6000,
                bitrate=4.8,
                active=0.8,
                silent=0.2,
                removed=0.0,
                damaged=0.0,
            ),
            StreamReport(
                channel=0,
                domain="sfx",
                stem="sfx",
                stage=0,
                num_codebooks=6,
                codebook_size=1024,
                num_bytes=750,
                raw_bytes=750,
                bitrate=0.6,
                active=0.2,
                silent=0.4,
                removed=0.4,
                damaged=0.0,
            ),
        ),
        envelope=None,
        treble=None,
        stereo=None,
        parts=(),
        problems=(),
    )


def test_a_pipe_is_described_like_a_file() -> None:
    example = ten_seconds()
    report = inspect(pipe(example.data, most=100))
    assert report.name == "-"
    assert report == inspect(io.BytesIO(example.data))


def test_a_report_is_json() -> None:
    report = inspect(io.BytesIO(long_example().data[:-45]))
    content = json.loads(json.dumps(dataclasses.asdict(report)))
    assert content["streams"][1]["domain"] == "sfx"
    assert content["problems"] == [{"kind": "truncated", "message": report.problems[0].message, "start_frame": 44}]


def test_range_coded_codes_are_told_with_what_they_save() -> None:
    report = inspect(io.BytesIO(range_coded_example().data))
    assert report.tables_sha256 == range_coded_tables().sha256.hex()
    speech, sfx = report.streams
    assert speech.num_bytes < speech.raw_bytes
    assert sfx.num_bytes == sfx.raw_bytes
    assert report.saved == pytest.approx(
        100 * (1 - (speech.num_bytes + sfx.num_bytes) / (speech.raw_bytes + sfx.raw_bytes))
    )
    assert not report.codes_checked  # the zoo has no model of this name
    assert report.problems == ()


def test_every_channel_has_its_own_streams() -> None:
    header = example_header(coded_channels=2)
    example = write_example(header, [{**random_codes(header, 7), (1, "sfx"): None}], [7])
    report = inspect(io.BytesIO(example.data))
    assert [(stream.channel, stream.domain, stream.silent) for stream in report.streams] == [
        (0, "speech", 0.0),
        (0, "sfx", 0.0),
        (1, "speech", 0.0),
        (1, "sfx", 1.0),
    ]


def test_a_truncated_stream_is_described_as_far_as_it_goes() -> None:
    header = example_header(original_samples=44_100 * 60)
    example = write_example(header, [random_codes(header, 7)] * 3, [7] * 3)
    report = inspect(io.BytesIO(example.data[: example.starts[2]]))
    mid_segment = example.data[: example.starts[2] - 5]
    assert inspect(io.BytesIO(mid_segment)).num_bytes == inspect(pipe(mid_segment)).num_bytes == len(mid_segment)
    assert not report.complete
    assert report.num_segments == 2
    assert report.num_frames == 14
    assert report.duration == pytest.approx(14 / 50)
    assert report.original_samples == 44_100 * 14 // 50
    assert report.num_bytes == example.starts[2]
    assert [problem.kind for problem in report.problems] == ["truncated"]


def test_damage_is_listed_and_counted() -> None:
    example = small_example()
    data = bytearray(example.data)
    data[example.starts[1] - 33] ^= 1  # The base of speech in segment 0.
    report = inspect(io.BytesIO(bytes(data)))
    assert report.complete
    assert (report.streams[0].active, report.streams[0].damaged) == (0.5, 0.5)
    assert report.streams[1].damaged == 0.0
    message = "speech is damaged in segment 0 (frames 0-6, 0.00-0.14 s): it is lost there"
    assert report.problems == (Problem("chunk", message, 0),)


def test_a_stream_without_codes_has_no_overhead_and_no_bitrate() -> None:
    report = inspect(io.BytesIO(write_example(example_header(), [], []).data))
    assert (report.duration, report.bitrate, report.file_bitrate, report.overhead) == (0.0, 0.0, 0.0, None)
    assert all(stream.active == stream.silent == stream.removed == 0.0 for stream in report.streams)


def test_a_missing_file_names_itself(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.sdc: cannot be read: No such file"):
        inspect(tmp_path / "gone.sdc")


def test_a_file_of_another_kind_names_itself(tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    path.write_bytes(b"RIFF")
    with pytest.raises(NotAStream, match=r"talk\.wav: not a \.sdc stream"):
        inspect(str(path))


def test_inspecting_does_not_import_torch() -> None:
    code = "import sys; from sdcodec_cli import inspect; assert callable(inspect) and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[1])
