"""Editing streams without their model: which bytes move, what the header says of them, and what stays damaged."""

from __future__ import annotations

import functools
import io
import types
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdcodec_cli.bitstream import DomainEntry, Header, LowerModel, Reader, Segment
from sdcodec_cli.bitstream.codings import LOST
from sdcodec_cli.bitstream.segment import ENVELOPE, TREBLE, SegmentHead, encode_segment
from sdcodec_cli.engine.edit import EditResult, cut, join, strip
from sdcodec_cli.engine.tokens import to_tokens
from sdcodec_cli.errors import InputError, OutputError

from bitstream_examples import (
    COVER,
    ENVELOPES,
    TREBLES,
    Example,
    block,
    copied,
    cover_example,
    example_header,
    pipe,
    random_codes,
    random_gains,
    range_coded_example,
    range_coded_tables,
    read_all,
    write_example,
)

RATE, FRAMES = 16_000, 300
"""Of the talk: 6 s in segments of 0.4 s."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def talk_header(**changes: Any) -> Header:
    fields = {
        "original_rate": RATE,
        "original_channels": 1,
        "original_samples": FRAMES * 320 - 100,
        "segment_frames": 20,
        "envelope": ENVELOPES.layout,
        "treble": TREBLES.layout,
        "tags": {"title": "Talk"},
        "domains": (
            DomainEntry(name="speech", num_codebooks=6, codebook_size=16, groups=(2, 2, 2)),
            DomainEntry(name="sfx", num_codebooks=5, codebook_size=16, num_shared=2, groups=(2, 2, 1)),
        ),
    }
    return example_header(**(fields | changes))


def talk(header: Header | None = None, seed: int = 0) -> Example:
    """Speech throughout; sfx is silent in every third segment; envelopes everywhere, treble in every other."""
    header = header or talk_header()
    lengths = [20] * (FRAMES // 20)
    segments: list[Any] = [random_codes(header, length, seed=100 * seed + n) for n, length in enumerate(lengths)]
    for number in range(0, len(segments), 3):
        segments[number] = {key: None if key[1] == "sfx" else codes for key, codes in segments[number].items()}
    channels = range(header.coded_channels)
    gains = [{c: random_gains(ENVELOPES, 20, seed=n) for c in channels} if header.envelope else {} for n in range(15)]
    treble = [{0: random_gains(TREBLES, 20, seed=n)} if n % 2 and header.treble else {} for n in range(15)]
    return write_example(header, segments, lengths, FRAMES * 320 - 100, gains, treble)


@functools.cache
def usual_talk() -> Example:
    return talk()


def write(name: str, example: Example | bytes | None = None) -> str:
    data = example if isinstance(example, bytes) else (example or usual_talk()).data
    Path(name).write_bytes(data)
    return name


def segments_of(name: str) -> tuple[Reader, list[Segment]]:
    return read_all(io.BytesIO(Path(name).read_bytes()))


def stored(segments: list[Segment]) -> list[Any]:
    return [(segment.silent, segment.chunks, units(segment)) for segment in segments]


def units(segment: Segment) -> list[tuple[bytes, int, int, bytes]]:
    return [
        (kind, unit.channel, unit.coding, unit.data) for kind, found in segment.units.items() for unit in found if found
    ]


# strip


def test_stripped_domains_are_removed_and_silent_ones_stay_silent() -> None:
    write("a.sdc")
    result = strip("a.sdc", "b.sdc", domains=["speech"])
    (_, before), (reader, after) = segments_of("a.sdc"), segments_of("b.sdc")
    assert reader.problems == []
    assert reader.version == (1, 2)
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        assert new.chunks == {(0, "speech"): old.chunks[0, "speech"]}
        assert new.silent == old.silent
        assert new.removed == (set() if number % 3 == 0 else {(0, "sfx")})
        assert units(new) == units(old)
    assert result == EditResult(
        inputs=("a.sdc",),
        output="b.sdc",
        seconds=6 - 100 / RATE,
        bytes=Path("b.sdc").stat().st_size,
        input_bytes=Path("a.sdc").stat().st_size,
        parts=1,
        notes=(
            "removed: sfx",
            "gains of bands are those of the mix of all domains and stay, so that the others sound as before",
        ),
        problems=(),
    )


def test_upper_codebooks_go_with_their_layer_groups() -> None:
    write("a.sdc")
    strip("a.sdc", "b.sdc", num_codebooks=4)
    (_, before), (reader, after) = segments_of("a.sdc"), segments_of("b.sdc")
    assert [(entry.num_codebooks, entry.groups, entry.num_shared) for entry in reader.header.domains] == [
        (4, (2, 2), 0),
        (4, (2, 2), 1),
    ]
    for old, new in zip(before, after, strict=True):
        assert new.chunks == {key: chunks[:2] for key, chunks in old.chunks.items()}
        assert all(np.array_equal(codes, old.codes[key][:4]) for key, codes in new.codes.items())


@pytest.mark.parametrize(
    ("count", "domains", "possible"),
    [
        (3, None, "2, 4, 6"),
        (5, None, "2, 4, 6"),
        (5, ["speech"], "2, 4, 6"),
        (7, None, "2, 4, 6"),
        (1, ["sfx"], "2, 4, 5"),
    ],
)
def test_only_whole_layer_groups_can_go(count: int, domains: list[str] | None, possible: str) -> None:
    write("a.sdc")
    message = f"a.sdc: its layer groups do not end with {count} codebooks; choose --codebooks from {possible}"
    with pytest.raises(InputError, match=message):
        strip("a.sdc", "b.sdc", num_codebooks=count, domains=domains)
    assert not Path("b.sdc").exists()


def test_treble_goes_with_what_is_above_the_band() -> None:
    write("a.sdc")
    assert strip("a.sdc", "b.sdc", below=8000).notes == ("left out above 8000 Hz: the treble",)
    (_, before), (reader, after) = segments_of("a.sdc"), segments_of("b.sdc")
    assert (reader.header, reader.version) == (talk_header(treble=None), (1, 1))
    assert [segment.chunks for segment in after] == [segment.chunks for segment in before]
    assert [units(new) for new in after] == [[u for u in units(old) if u[0] == ENVELOPE] for old in before]
    assert strip("b.sdc", "c.sdc", below=8000).notes == ("has nothing above 8000 Hz",)
    assert Path("c.sdc").read_bytes() == Path("b.sdc").read_bytes()


@pytest.mark.parametrize("hop", [320, 160], ids=["as many frames", "twice as many"])
def test_upper_stages_go_and_the_header_is_that_of_the_model_below(hop: int) -> None:
    low = LowerModel(model="low", weights_sha256=bytes(32), sample_rate=16_000, hop_length=hop, context_frames=7)
    speech = DomainEntry(name="speech", num_codebooks=2, codebook_size=16)
    upper = DomainEntry(name="speech-2", stem="speech", stage=1, num_codebooks=2, codebook_size=16)
    common = {"lower": (low,), "domains": (speech, upper), "treble": None, "envelope": ENVELOPES.layout}
    header = talk_header(sample_rate=32_000, hop_length=640, original_rate=32_000, original_samples=None, **common)
    scale = 320 // hop
    codes = [
        {(0, "speech"): random_codes(header, 20 * scale, seed=n)[0, "speech"], (0, "speech-2"): None} for n in range(3)
    ]
    gains = [{0: random_gains(ENVELOPES, 20, seed=n)} for n in range(3)]
    write("a.sdc", write_example(header, codes, [20] * 3, 30_000, gains))
    assert strip("a.sdc", "b.sdc", below=8000).notes == ("left out above 8000 Hz: speech-2",)
    reader, found = segments_of("b.sdc")
    assert (reader.header.model, reader.header.lower, reader.header.domains) == ("low", (), (speech,))
    assert (reader.header.hop_length, reader.header.context_frames) == (hop, 7)
    assert [segment.num_frames for segment in found] == [20 * scale] * 3
    for segment, given, units_of in zip(found, codes, gains, strict=True):
        assert np.array_equal(segment.codes[0, "speech"], given[0, "speech"])  # type: ignore[arg-type]
        assert np.array_equal(segment.gains[0], units_of[0])
    assert reader.end is not None
    assert (reader.end.total_frames, reader.end.original_samples) == (60 * scale, 30_000)
    assert strip("a.sdc", "c.sdc", below=16_000).notes == ("has nothing above 16000 Hz",)
    assert Path("c.sdc").read_bytes() == Path("a.sdc").read_bytes()


def test_what_cannot_be_stripped_is_named() -> None:
    write("a.sdc")
    with pytest.raises(InputError, match="a.sdc: has no music; choose from speech, sfx"):
        strip("a.sdc", "b.sdc", domains=["music"])
    with pytest.raises(InputError, match="a.sdc: can be cut off at 8000 Hz only, not at 7000; give --below 8000"):
        strip("a.sdc", "b.sdc", below=7000)
    with pytest.raises(ValueError, match="nothing to leave out"):
        strip("a.sdc", "b.sdc")
    for wrong in ([], "speech"):
        with pytest.raises(ValueError, match="domains must be a list of at least one domain"):
            strip("a.sdc", "b.sdc", domains=wrong)
    with pytest.raises(OutputError, match="a.sdc exists; pass --force to overwrite it"):
        strip("a.sdc", "a.sdc", below=8000)


def test_range_coded_codes_are_not_opened() -> None:
    write("a.sdc", range_coded_example())
    strip("a.sdc", "b.sdc", num_codebooks=2)
    tables = range_coded_tables()
    for name, count in (("a.sdc", 3), ("b.sdc", 2)):
        reader, segments = read_all(io.BytesIO(Path(name).read_bytes()), tables)
        assert reader.problems == []
        assert segments[0].codes[0, "speech"].shape == (count, 20)
        assert np.array_equal(segments[0].codes[0, "speech"], range_coded_example().segments[0][0, "speech"][:count])  # type: ignore[index]
    assert reader.header.tables_sha256 == tables.sha256


# cut


def test_a_cut_has_the_segments_around_it_and_says_what_is_played() -> None:
    write("a.sdc", talk(talk_header(context_frames=10)))
    result = cut("a.sdc", "b.sdc", start=3.01, duration=0.5)
    reader, found = segments_of("b.sdc")
    (part,) = reader.header.parts
    # From 3.01 s and 3.51 s a second, and 10 + 4 frames, to either side; then to whole segments of 0.4 s.
    assert (part.origin, part.num_frames) == (80, 160)
    assert (part.first_sample, part.num_samples) == (round(3.01 * RATE), RATE // 2)
    assert stored(found) == stored(segments_of("a.sdc")[1][4:12])
    assert (result.seconds, result.parts, result.problems) == (0.5, 1, ())
    assert reader.header.tags == {"title": "Talk"}


def test_a_cut_from_the_beginning_is_a_stream_as_it_always_was() -> None:
    write("a.sdc")
    cut("a.sdc", "b.sdc", duration=0.75)
    reader, found = segments_of("b.sdc")
    assert (reader.version, reader.header.parts, reader.header.original_samples) == ((1, 2), (), 12_000)
    assert stored(found) == stored(segments_of("a.sdc")[1][: len(found)])
    cut("a.sdc", "c.sdc")
    assert Path("c.sdc").read_bytes() == Path("a.sdc").read_bytes()


def test_a_cut_of_a_cut_is_a_cut() -> None:
    write("a.sdc")
    cut("a.sdc", "b.sdc", start=1.5, duration=3)
    cut("b.sdc", "c.sdc", start=1, duration=1)
    cut("a.sdc", "d.sdc", start=2.5, duration=1)
    assert Path("c.sdc").read_bytes() == Path("d.sdc").read_bytes()


def test_a_cut_of_several_parts_keeps_to_each() -> None:
    write("a.sdc")
    write("b.sdc", talk(talk_header(gain_db=3.0), seed=1))
    join(["a.sdc", "b.sdc"], "both.sdc")
    length = 6 - 100 / RATE
    cut("both.sdc", "c.sdc", start=5, duration=2)
    parts = segments_of("c.sdc")[0].header.parts
    assert [(part.gain_db, part.first_sample, part.num_samples) for part in parts] == [
        (-1.5, 5 * RATE, round((length - 5) * RATE)),
        (3.0, 0, round((7 - length) * RATE)),
    ]
    cut("both.sdc", "d.sdc", start=7, duration=1)
    (part,) = segments_of("d.sdc")[0].header.parts
    assert (part.gain_db, part.first_sample) == (3.0, RATE + 100)


@pytest.mark.parametrize(("start", "message"), [(6.0, "ends before 6 s"), (1e6, "ends before 1e\\+06 s")])
def test_a_cut_begins_where_there_is_something(start: float, message: str) -> None:
    write("a.sdc")
    with pytest.raises(InputError, match=message):
        cut("a.sdc", "b.sdc", start=start)
    assert cut("a.sdc", "b.sdc", start=5.9, duration=100).seconds == pytest.approx(0.1 - 100 / RATE)
    for wrong in ({"start": -1.0}, {"duration": 0.0}):
        with pytest.raises(ValueError, match="start must be 0 or more and duration more than 0"):
            cut("a.sdc", "b.sdc", **wrong)


# join


def test_joined_files_keep_their_gains_codebooks_and_envelopes() -> None:
    write("a.sdc")
    write("b.sdc", talk(talk_header(gain_db=2.5, envelope=None, treble=None, tags={}), seed=1))
    strip("b.sdc", "c.sdc", num_codebooks=4)
    result = join(["a.sdc", "c.sdc", "a.sdc"], "d.sdc")
    assert (result.parts, result.notes) == (3, ("its tags are those of a.sdc",))
    reader, found = segments_of("d.sdc")
    assert reader.problems == []
    assert [part.gain_db for part in reader.header.parts] == [-1.5, 2.5, -1.5]
    assert [len(part.domains[0].groups) for part in reader.header.parts] == [3, 2, 3]
    assert stored(found) == [each for name in ("a.sdc", "c.sdc", "a.sdc") for each in stored(segments_of(name)[1])]
    assert reader.header.original_samples == 3 * (FRAMES * 320 - 100)


@pytest.mark.parametrize("places", [[0.4], [1.99, 2.01], [0.1, 0.2, 0.3, 3.3, 5.99]], ids=str)
def test_pieces_of_a_file_become_that_file_again(places: list[float]) -> None:
    write("a.sdc")
    names = []
    for number, (start, stop) in enumerate(zip([0, *places], [*places, None], strict=True)):
        cut("a.sdc", f"{number}.sdc", start=start, duration=None if stop is None else stop - start)
        names.append(f"{number}.sdc")
    assert join(names, "b.sdc").parts == 1
    assert Path("b.sdc").read_bytes() == Path("a.sdc").read_bytes()


def test_pieces_that_only_look_as_if_they_belonged_together_stay_apart() -> None:
    write("a.sdc")
    for number, other in enumerate((talk(seed=1), talk(talk_header(gain_db=1.0)))):
        write("b.sdc", other)
        cut("a.sdc", "1.sdc", duration=3, overwrite=True)
        cut("b.sdc", f"b{number}.sdc", start=3)
        assert join(["1.sdc", f"b{number}.sdc"], f"both{number}.sdc").parts == 2
    cut("a.sdc", "later.sdc", start=3.1)
    assert join(["1.sdc", "later.sdc"], "c.sdc").parts == 2
    cut("a.sdc", "2.sdc", start=3)
    strip("2.sdc", "3.sdc", domains=["speech"])
    assert join(["1.sdc", "3.sdc"], "d.sdc").parts == 2


def other_headers() -> Iterator[tuple[Header, str]]:
    yield talk_header(weights_sha256=bytes(32)), r"b.sdc: was made with toy \(weights 00000000\), but a.sdc with toy"
    yield talk_header(original_rate=44_100, original_samples=None), "b.sdc: is of 44100 Hz, but a.sdc of 16000 Hz"
    yield talk_header(original_channels=2, coded_channels=2), r"b.sdc: its channels \(2\) are not those of a.sdc \(1\)"


@pytest.mark.parametrize(("header", "message"), list(other_headers()), ids=["model", "rate", "channels"])
def test_what_does_not_belong_together_is_not_joined(header: Header, message: str) -> None:
    write("a.sdc")
    write("b.sdc", write_example(header, [], [], 0))
    with pytest.raises(InputError, match=message):
        join(["a.sdc", "b.sdc"], "c.sdc")


def test_files_of_other_tables_are_not_joined_and_empty_ones_neither() -> None:
    example = range_coded_example()
    write("a.sdc", example)
    other = bytes(range(32))
    write("b.sdc", example.data.replace(example.header.tables_sha256 or b"", other))
    data = bytearray(Path("b.sdc").read_bytes())
    stop = len(example.head) - 4
    data[stop : stop + 4] = zlib.crc32(data[:stop]).to_bytes(4, "little")
    write("b.sdc", bytes(data))
    with pytest.raises(InputError, match=r"b.sdc: its codes need the tables 00010203\.\.\., those of a.sdc"):
        join(["a.sdc", "b.sdc"], "c.sdc")
    write("b.sdc", write_example(example_header(), [], [], 0))
    with pytest.raises(InputError, match="b.sdc: holds no audio; leave it out"):
        join(["b.sdc"], "c.sdc")
    with pytest.raises(ValueError, match="at least one file"):
        join([], "c.sdc")


def test_too_many_parts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    write("a.sdc")
    monkeypatch.setattr("sdcodec_cli.engine.edit.MAX_PARTS", 2)
    with pytest.raises(InputError, match="a.sdc: makes more than 2 parts; join fewer files"):
        join(["a.sdc"] * 3, "b.sdc")


def test_excerpts_and_joined_files_are_no_tokens() -> None:
    write("a.sdc")
    join(["a.sdc", "a.sdc"], "b.sdc")
    with pytest.raises(InputError, match="b.sdc: is an excerpt, or several files in one, which tokens cannot say"):
        to_tokens("b.sdc", "b.npz", kind="npz")
    assert not Path("b.npz").exists()


# damage


def damaged(example: Example, segment: int, *, head: bool = False) -> bytes:
    """A talk whose segment has a damaged head, or else a damaged first chunk."""
    data = bytearray(example.data)
    head_bytes = 5 + data[example.starts[segment] + 4] + 4
    data[example.starts[segment] + (6 if head else head_bytes)] ^= 1
    return bytes(data)


def test_a_damaged_chunk_stays_damaged_wherever_it_goes() -> None:
    write("a.sdc", damaged(usual_talk(), 7))
    line = "a.sdc: speech is damaged in segment 7 (frames 140-159, 2.80-3.20 s): it is lost there"
    for edited in (
        strip("a.sdc", "b.sdc", below=8000),
        cut("a.sdc", "c.sdc", start=2, duration=2),
        join(["a.sdc"], "d.sdc"),
    ):
        assert edited.problems == (line,)
        reader, found = segments_of(edited.output)
        (problem,) = reader.problems
        assert problem.kind == "chunk"
        (segment,) = [segment for segment in found if (0, "speech") not in segment.codes]
        assert (0, "speech") not in segment.silent | segment.removed
        assert [chunk.coding for chunk in segment.chunks[0, "speech"]] == [LOST]
        assert (0, "sfx") in segment.codes


def test_lost_segments_stay_lost_and_keep_their_time() -> None:
    write("a.sdc", damaged(usual_talk(), 7, head=True))
    assert strip("a.sdc", "b.sdc", below=8000).problems == (
        "a.sdc: all streams are lost in frames 140-159, 2.80-3.20 s: segments are damaged or missing",
    )
    reader, found = segments_of("b.sdc")
    assert [problem.start_frame for problem in reader.problems] == [140, 140]
    assert [segment.start_frame for segment in found] == list(range(0, FRAMES, 20))
    assert (found[7].codes, found[7].silent, found[7].removed) == ({}, frozenset(), frozenset())
    # Nothing of it is damaged where the excerpt is elsewhere.
    assert cut("a.sdc", "c.sdc", start=5).problems == ()


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "unknown"])
def test_a_file_that_breaks_off_is_damaged_at_its_end(announced: bool) -> None:
    example = talk(talk_header() if announced else talk_header(original_samples=None))
    write("a.sdc", example.data[: example.starts[10]])
    for edited in (strip("a.sdc", "b.sdc", below=8000), join(["a.sdc"], "c.sdc"), cut("a.sdc", "d.sdc", start=3)):
        assert edited.problems == ("a.sdc: stops after 4.00 s, before its end; whatever followed is lost",)
    reader, _ = segments_of("b.sdc")
    assert reader.end is not None
    assert (reader.end.total_frames, reader.end.original_samples) == (201, 200 * 320)
    assert {problem.start_frame for problem in reader.problems} == {200}
    with pytest.raises(InputError, match=r"^a.sdc: ends before 4 s; give an earlier --start"):
        cut("a.sdc", "e.sdc", start=4)
    assert Path("c.sdc").stat().st_size > Path("b.sdc").stat().st_size
    assert join(["c.sdc", "d.sdc"], "e.sdc").problems


def test_a_forged_time_does_not_fill_the_disk() -> None:
    example = talk(talk_header(original_samples=None))
    head = SegmentHead(300_000, 300_000, 20, frozenset(), ())
    write("a.sdc", example.data[: example.starts[10]] + encode_segment(head, example.header))
    assert strip("a.sdc", "b.sdc", below=8000).problems
    reader, found = segments_of("b.sdc")
    assert len(found) == 11
    assert reader.end is not None
    assert reader.end.total_frames == 201


def test_damaged_gains_stay_damaged() -> None:
    example = usual_talk()
    unit = example.data.index(b"senv", example.starts[5])
    for place, kind in ((unit + 12, "its body"), (unit + 5, "its head")):
        data = bytearray(example.data)
        data[place] ^= 1
        write("a.sdc", bytes(data))
        assert join(["a.sdc"], f"{place}.sdc").problems, kind
        reader, found = segments_of(f"{place}.sdc")
        assert "envelope" in {problem.kind for problem in reader.problems}, kind
        assert 0 not in found[5].gains, kind
        assert all(0 in segment.gains for segment in found if segment.sequence != 5), kind
    assert [unit.coding for unit in found[5].units[TREBLE]] == [LOST]  # nobody could get at it


def test_units_of_later_versions_are_left_out_and_named() -> None:
    """Among them a cover that the header does not announce."""
    example = usual_talk()
    start = example.starts[1]
    data = example.data[:start] + block(b"covr", b"wide") + block(b"abcd", b"") + example.data[start:]
    write("a.sdc", data)
    result = strip("a.sdc", "b.sdc", below=8000)
    assert result.notes == (
        "left out above 8000 Hz: the treble",
        "left out something of a later version of the format (type abcd)",
        "left out something of a later version of the format (type covr)",
    )
    assert not {b"covr", b"abcd"} & {Path("b.sdc").read_bytes()[n : n + 4] for n in range(500)}


# covers


def test_editing_keeps_the_cover() -> None:
    write("plain.sdc")
    write("a.sdc", copied(usual_talk().data, COVER))
    strip("a.sdc", "stripped.sdc", domains=["sfx"])
    cut("a.sdc", "excerpt.sdc", start=2.0, duration=1.0)
    cut("a.sdc", "rest.sdc", start=3.0)
    assert join(["excerpt.sdc", "rest.sdc"], "joined.sdc").notes == ("its cover is that of excerpt.sdc",)
    for name in ("stripped", "excerpt", "joined"):
        reader = Reader(io.BytesIO(Path(f"{name}.sdc").read_bytes()))
        assert (reader.cover(), list(reader.problems)) == (COVER, []), name
        assert len(list(reader.segments(decode=False))) > 2
        assert reader.problems == []
    assert join(["plain.sdc", "a.sdc"], "none.sdc").notes == ("it has no cover, as plain.sdc has none",)
    assert Reader(io.BytesIO(Path("none.sdc").read_bytes())).header.cover_bytes is None


def test_a_damaged_cover_is_left_out_and_told() -> None:
    data = bytearray(copied(usual_talk().data, COVER))
    data[data.index(b"covr") + 12] ^= 1
    write("a.sdc", bytes(data))
    assert strip("a.sdc", "b.sdc", domains=["sfx"]).problems == (
        "a.sdc: the cover is damaged; it is lost, and nothing else is by that",
    )
    assert Reader(io.BytesIO(Path("b.sdc").read_bytes())).header.cover_bytes is None


def test_tokens_leave_the_cover_out() -> None:
    Path("a.sdc").write_bytes(cover_example().data)
    assert to_tokens("a.sdc", "a.npz", kind="npz").notes == ("its cover is left out",)


# pipes


def test_what_comes_through_a_pipe_is_edited_as_a_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    write("a.sdc")

    def feed() -> None:
        stdin = types.SimpleNamespace(buffer=pipe(usual_talk().data, most=1000), isatty=lambda: False)
        monkeypatch.setattr("sys.stdin", stdin)

    for number, (edit, options) in enumerate(((strip, {"domains": ["sfx"]}), (cut, {"start": 2.0, "duration": 1.0}))):
        feed()
        edit("-", f"{number}.sdc", **options)  # type: ignore[operator]
        edit("a.sdc", f"{number}a.sdc", **options)  # type: ignore[operator]
        assert Path(f"{number}.sdc").read_bytes() == Path(f"{number}a.sdc").read_bytes()
    feed()
    result = join(["a.sdc", "-"], "b.sdc")
    assert (result.inputs, result.parts) == (("a.sdc", "-"), 2)


def test_nothing_is_left_behind_when_an_edit_fails() -> None:
    write("a.sdc", usual_talk().data[:40])
    for edit in (strip, cut):
        with pytest.raises(Exception, match="a.sdc: ends inside its header"):
            edit("a.sdc", "b.sdc", **({"below": 8000} if edit is strip else {}))  # type: ignore[operator]
    assert sorted(path.name for path in Path().iterdir()) == ["a.sdc"]
