"""Small streams for the tests of the bitstream, and the inputs that deliver them."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from sdcodec_cli.bitstream import DomainEntry, GainLayout, Header, LowerModel, Part, Reader, Segment, StreamKey, Writer
from sdcodec_cli.bitstream.codings import ENVELOPE_GAINS, TREBLE_GAINS, GainKind
from sdcodec_cli.bitstream.segment import ENVELOPE, TREBLE
from sdcodec_cli.prediction import CodeTables

from prediction_examples import frequencies, likely_codes, random_tensors, toy_tables

Codes = Mapping[StreamKey, "NDArray[Any] | None"]
Gains = Mapping[int, "NDArray[Any]"]
Places = Mapping[str, "NDArray[Any]"]


def example_header(**changes: Any) -> Header:
    fields: dict[str, Any] = {
        "model": "toy",
        "weights_sha256": bytes(range(32)),
        "sample_rate": 16_000,
        "hop_length": 320,
        "context_frames": 10,
        "original_rate": 44_100,
        "original_channels": 2,
        "coded_channels": 1,
        "original_samples": None,
        "gain_db": -1.5,
        "domains": (
            DomainEntry(name="speech", num_codebooks=3, codebook_size=1024, groups=(2, 1)),
            DomainEntry(name="sfx", num_codebooks=2, codebook_size=5, num_shared=1, groups=(1, 1)),
        ),
        "segment_frames": 7,
        "encoder": "sdc test",
    }
    return Header(**(fields | changes))


def random_codes(header: Header, num_frames: int, seed: int = 0) -> dict[StreamKey, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return {
        key: rng.integers(
            0, header.domain_of(number).codebook_size, (header.domain_of(number).num_codebooks, num_frames)
        )
        for number, key in enumerate(header.streams)
    }


@dataclass(frozen=True)
class Kind:
    """Band gains of one kind, and where a stream has them."""

    name: Literal["envelope", "treble"]
    unit: bytes
    minor: int
    """Version of the format since which there are any."""
    field: int
    """Of the header."""
    gains: GainKind
    layout: GainLayout
    """Three bands, gains for two frames, of which the last of seven has one of its own."""
    message: str
    """What is said of damage."""

    @property
    def key(self) -> str:
        """Name of the gains in segments, and as an argument of a writer."""
        return "gains" if self.name == "envelope" else "treble"

    def header(self, **changes: Any) -> Header:
        return example_header(**{self.name: self.layout, **changes})

    def of(self, holder: Any) -> Any:
        """Gains of a segment or an example."""
        return getattr(holder, self.key)

    def num_bytes(self, holder: Any) -> int:
        """Bytes of the gains of a segment, or that a writer has written."""
        return int(getattr(holder, f"{self.key}_bytes"))


ENVELOPES = Kind(
    "envelope",
    ENVELOPE,
    1,
    8,
    ENVELOPE_GAINS,
    GainLayout(frames=2, step_db=1.5, edges=(320, 1050, 2752, 8000)),
    "an envelope is damaged in {}: it sounds duller",
)
TREBLES = Kind(
    "treble",
    TREBLE,
    2,
    10,
    TREBLE_GAINS,
    GainLayout(frames=2, step_db=1.5, edges=(7600, 9700, 12_500, 16_000)),
    "the treble is damaged in {}: it is lost there",
)


def random_gains(kind: Kind, num_frames: int, seed: int = 0) -> NDArray[np.int64]:
    """Gains such as audio has: small ones, that differ little from their neighbours."""
    rng = np.random.default_rng(seed)
    shape = kind.layout.num_bands, kind.layout.num_columns(num_frames)
    return np.clip(rng.integers(-1, 2) + rng.integers(-1, 2, shape) * (rng.random(shape) < 0.3), -3, 5)


@dataclass(frozen=True)
class Example:
    """A stream with what was written into it, and where its blocks are."""

    header: Header
    data: bytes
    segments: Sequence[Codes]
    lengths: Sequence[int]
    starts: Sequence[int]
    """Offset of each segment, then of the index."""
    original_samples: int
    gains: Sequence[Gains]
    """Of envelopes."""
    treble: Sequence[Gains]
    places: Sequence[Places]

    def block(self, number: int) -> bytes:
        return self.data[self.starts[number] : self.starts[number + 1]]

    @property
    def head(self) -> bytes:
        return self.data[: self.starts[0]]

    @property
    def tail(self) -> bytes:
        """Index and end."""
        return self.data[self.starts[-1] :]


def write_example(
    header: Header,
    segments: Sequence[Codes],
    lengths: Sequence[int],
    samples: int = 0,
    gains: Sequence[Gains] | None = None,
    treble: Sequence[Gains] | None = None,
    places: Sequence[Places] | None = None,
    tables: CodeTables | None = None,
    cover: bytes | None = None,
) -> Example:
    fo = io.BytesIO()
    writer = Writer(fo, header, tables=tables, cover=cover)
    starts = []
    gains, treble, places = (each or [{}] * len(lengths) for each in (gains, treble, places))
    for codes, num_frames, envelopes, trebles, stereo in zip(segments, lengths, gains, treble, places, strict=True):
        starts.append(writer.bytes_written)
        writer.write(codes, num_frames=num_frames, gains=envelopes, treble=trebles, places=stereo)
    starts.append(writer.bytes_written)
    writer.close(samples)
    return Example(header, fo.getvalue(), segments, lengths, starts, samples, gains, treble, places)


def small_example() -> Example:
    """Two segments: both domains active, then one silent."""
    header = example_header()
    first, second = random_codes(header, 7, seed=1), random_codes(header, 3, seed=2)
    return write_example(header, [first, {**second, (0, "sfx"): None}], [7, 3], samples=8_000)


def gains_example(*kinds: Kind) -> Example:
    """Four segments of two channels: both have gains, the second alone has, none has, both have."""
    header = example_header(coded_channels=2, **{kind.name: kind.layout for kind in kinds})
    lengths = [7, 7, 7, 3]
    channels = [(0, 1), (1,), (), (0, 1)]
    segments = [random_codes(header, length, seed=number) for number, length in enumerate(lengths)]
    gains = {
        kind.key: [
            {channel: random_gains(kind, length, seed=10 * number + channel) for channel in given}
            for number, (length, given) in enumerate(zip(lengths, channels, strict=True))
        ]
        for kind in kinds
    }
    return write_example(header, segments, lengths, samples=20_000, **gains)


def treble_example() -> Example:
    """The golden file v1_treble: envelopes and treble, the latter range-coded and raw, of one channel and of none."""
    envelope = GainLayout(frames=2, step_db=4.0, edges=(320, 1050, 2752, 8000))
    treble = GainLayout(frames=2, step_db=4.0, edges=(7600, 8341, 9155, 10047, 11027, 12103, 13283, 14578, 16_000))
    header = example_header(
        coded_channels=2,
        original_rate=48_000,
        segment_frames=8,
        tags={"title": "Air"},
        envelope=envelope,
        treble=treble,
    )
    lengths = [8, 8, 7, 3]
    likely, rng = np.linspace(-4, -7, 8).round().astype(int), np.random.default_rng(7)
    steady = {length: likely[:, None].repeat(treble.num_columns(length), axis=1) for length in lengths}
    ending = steady[7].copy()
    ending[5:], ending[:, 2:] = -12, -12
    unlikely = rng.integers(-12, 7, (8, 4))
    return write_example(
        header,
        [random_codes(header, length, seed=number) for number, length in enumerate(lengths)],
        lengths,
        samples=24_000,
        gains=[{0: np.ones((3, 4), dtype=int)}, {}, {}, {1: np.full((3, 2), -1)}],
        treble=[{0: steady[8], 1: unlikely}, {}, {1: ending}, {0: steady[3] + 1, 1: steady[3]}],
    )


STEREO_LAYOUT = GainLayout(frames=3, step_db=3.0, edges=(0, 500, 2500, 8000))
"""Three bands, places for three frames, of which the last of seven has one of its own."""


def random_places(num_frames: int, seed: int = 0) -> NDArray[np.int64]:
    """Places such as audio has: they hardly change."""
    rng = np.random.default_rng(seed)
    shape = 3, STEREO_LAYOUT.num_columns(num_frames)
    differences = np.clip(rng.integers(-6, 7, (3, 1)) + rng.integers(-1, 2, shape) * (rng.random(shape) < 0.2), -8, 8)
    widths = np.clip(rng.integers(0, 6, (3, 1)) + (rng.random(shape) < 0.2), 0, 8)
    return np.concatenate([differences, widths])


def stereo_example() -> Example:
    """The golden file v1_stereo: places of both domains behind envelopes, such as no audio has, none, of one."""
    header = ENVELOPES.header(stereo=STEREO_LAYOUT)
    lengths = [7, 7, 7, 2]
    wild = np.array([[-8, 8, 0], [8, -8, 8], [0, 8, -8], [0, 8, 0], [8, 0, 8], [8, 8, 8]])
    return write_example(
        header,
        [random_codes(header, length, seed=number) for number, length in enumerate(lengths)],
        lengths,
        samples=20_000,
        gains=[{0: random_gains(ENVELOPES, 7)}, {}, {}, {0: random_gains(ENVELOPES, 2)}],
        places=[
            {"speech": random_places(7, 1), "sfx": random_places(7, 2)},
            {"sfx": wild},
            {},
            {"speech": random_places(2, 3)},
        ],
    )


COVER = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000020000000108020000007b40e8dd0000000f49444154789c63f8cfc0c0f09f"
    "010007ff01ff017f89a70000000049454e44ae426082"
)
"""A PNG of two pixels, red and green."""


def cover_example() -> Example:
    """The golden file v1_cover: a picture in front of two segments."""
    header = ENVELOPES.header(tags={"title": "Tune"})
    segments = [random_codes(header, length, seed=length) for length in (7, 3)]
    gains = [{0: random_gains(ENVELOPES, 7)}, {}]
    return write_example(header, segments, [7, 3], samples=8_000, gains=gains, cover=COVER)


def range_coded_tables() -> CodeTables:
    """Of the first domain of `range_coded_header`; the other has no tables."""
    return toy_tables(speech={})


def range_coded_header(**changes: Any) -> Header:
    domains = (
        DomainEntry(name="speech", num_codebooks=3, codebook_size=16, groups=(2, 1)),
        DomainEntry(name="sfx", num_codebooks=2, codebook_size=5, groups=(1, 1)),
    )
    tables = range_coded_tables().sha256
    return example_header(**{"domains": domains, "segment_frames": 20, "tables_sha256": tables, **changes})


def range_coded_example() -> Example:
    """Likely codes, likely ones below unlikely ones, unlikely ones, a silent stream; the other domain is raw."""
    header, tables = range_coded_header(), range_coded_tables()
    segments = [random_codes(header, num_frames, seed=num_frames) for num_frames in (20, 19, 18, 5)]
    likely = likely_codes(tables, "speech", (2, 1), 20)
    segments[0] = {**segments[0], (0, "speech"): likely}
    segments[1] = {**segments[1], (0, "speech"): np.concatenate([likely[:2, :19], segments[1][0, "speech"][2:]])}
    segments[3] = {(0, "speech"): likely[:, :5], (0, "sfx"): None}  # type: ignore[dict-item]
    return write_example(header, segments, [20, 19, 18, 5], samples=50_000, tables=tables)


def parts_example() -> Example:
    """The golden file v1_parts: an excerpt, a file of one domain with fewer codebooks and no envelope, the first again.

    Gains, layer groups and envelopes differ, a stream is silent, and one was removed.
    """
    header = ENVELOPES.header()
    frame = 882  # samples of 44,100 Hz
    first = part_of(header, num_frames=10, origin=7, first_sample=8 * frame + 5, num_samples=5000)
    few = (DomainEntry(name="speech", num_codebooks=2, codebook_size=1024, groups=(2,)),)
    second = Part(num_frames=5, num_samples=5 * frame, gain_db=2.25, domains=few)
    header = replace(header, parts=(first, second, first), original_samples=10_000 + 5 * frame)
    lengths = [7, 3, 5, 7, 3]
    codes: list[Any] = [random_codes(header, length, seed=number) for number, length in enumerate(lengths)]
    codes[1][0, "sfx"] = None
    codes[2] = {(0, "speech"): codes[2][0, "speech"][:2]}
    del codes[3][0, "sfx"]
    gains = [{0: random_gains(ENVELOPES, length, seed=length)} if length != 5 else {} for length in lengths]
    return write_example(header, codes, lengths, samples=10_000 + 5 * frame, gains=gains)


def stages_example() -> Example:
    """The golden file v1_stages: two frames of the lower stage in one of the upper, whose streams come and go."""
    domains = [
        DomainEntry(name=name, stem=stem, stage=stage, num_codebooks=2, codebook_size=64, groups=(1, 1))
        for name, stem, stage in (("speech", "", 0), ("sfx", "", 0), ("speech-2", "speech", 1), ("sfx-2", "sfx", 1))
    ]
    weights = bytes(range(32, 64))
    low = LowerModel(model="low", weights_sha256=weights, sample_rate=16_000, hop_length=160, context_frames=7)
    layout = replace(ENVELOPES.layout, edges=(320, 1050, 2752, 8000))
    header = example_header(sample_rate=32_000, hop_length=640, domains=tuple(domains), lower=(low,), envelope=layout)
    lengths = [7, 4]
    codes: list[Any] = [
        {
            (0, entry.name): np.random.default_rng(number).integers(0, 64, (2, header.frames_in(entry, length)))
            for number, entry in enumerate(domains)
        }
        for length in lengths
    ]
    codes[0][0, "sfx-2"] = None
    del codes[1][0, "speech-2"]
    gains = [{0: random_gains(ENVELOPES, length, seed=length)} for length in lengths]
    return write_example(header, codes, lengths, samples=9000, gains=gains)


def part_of(header: Header, **fields: Any) -> Part:
    """A part that has what a header says."""
    common = {name: getattr(header, name) for name in ("gain_db", "domains", "envelope", "treble", "stereo")}
    return Part(**{**common, **fields})


def damaged_gains_example() -> bytes:
    """Two segments with envelopes: of the first, a layer group and the envelope are damaged, of the second nothing."""
    header = ENVELOPES.header()
    lengths = [7, 3]
    segments = [random_codes(header, length, seed=length) for length in lengths]
    gains = [{0: random_gains(ENVELOPES, length, seed=length)} for length in lengths]
    example = write_example(header, segments, lengths, samples=8000, gains=gains)
    data = bytearray(example.data)
    unit = data.index(b"senv")
    data[unit - 1] ^= 1  # the last chunk, which is group 1 of sfx
    data[unit + 12] ^= 1
    return bytes(data)


def copied(data: bytes, cover: bytes | None = None) -> bytes:
    """A stream whose segments were copied, and nothing else; with a cover if there is one."""
    reader, out = Reader(io.BytesIO(data)), io.BytesIO()
    writer = Writer(out, reader.header, copies=True, cover=cover)
    for segment in reader.segments(decode=False):
        writer.copy(segment)
    assert reader.end is not None
    writer.close(reader.end.original_samples)
    return out.getvalue()


def write_golden(folder: Path) -> None:
    """Make all from v1_range_coded on anew: right as long as no version was released with them.

    PYTHONPATH=.:tests python -c "import bitstream_examples as b; b.write_golden(b.Path('tests/data'))"
    """
    example = range_coded_example()
    (folder / "v1_range_coded.sdc").write_bytes(example.data)
    save_file(frequencies() | random_tensors("speech"), folder / "v1_range_coded.safetensors")
    content = as_json(*read_all(io.BytesIO(example.data), range_coded_tables()))
    (folder / "v1_range_coded.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for name, data in (
        ("v1_parts", parts_example().data),
        ("v1_lost", copied(damaged_gains_example())),
        ("v1_stages", stages_example().data),
        ("v1_stereo", stereo_example().data),
        ("v1_cover", cover_example().data),
    ):
        (folder / f"{name}.sdc").write_bytes(data)
        content = as_json(*read_all(io.BytesIO(data)))
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def long_example(num_segments: int = 6) -> Example:
    """Full segments, then a short one; streams come and go."""
    header = example_header()
    segments: list[Codes] = []
    for number in range(num_segments):
        codes: dict[StreamKey, NDArray[Any] | None] = dict(random_codes(header, 7, seed=number))
        if number % 3 == 1:
            codes[0, "sfx"] = None
        if number % 3 == 2:
            del codes[0, "speech"]
        segments.append(codes)
    segments.append(random_codes(header, 2, seed=99))
    return write_example(header, segments, [7] * num_segments + [2], samples=1000)


class Pipe(io.RawIOBase):
    """Input that cannot seek and delivers at most `most` bytes per read, as a pipe or a socket may."""

    def __init__(self, data: bytes, most: int = 1 << 30) -> None:
        self._fo = io.BytesIO(data)
        self._most = most

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= 65_536:
            raise AssertionError(f"asked for {size} bytes at once")
        return self._fo.read(min(size, self._most))


class CountingFile(io.BytesIO):
    """A file that remembers which bytes were read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.seen: set[int] = set()

    def read(self, size: int | None = -1) -> bytes:
        start = self.tell()
        data = super().read(size)
        self.seen.update(range(start, start + len(data)))
        return data


def pipe(data: bytes, most: int = 1 << 30) -> BinaryIO:
    return cast(BinaryIO, Pipe(data, most))


def read_all(fo: BinaryIO, tables: CodeTables | None = None) -> tuple[Reader, list[Segment]]:
    reader = Reader(fo)
    reader.tables = tables
    return reader, list(reader.segments())


def same_codes(segment: Segment, codes: Codes) -> bool:
    """Whether a segment holds exactly what was written."""
    stored = {key: value for key, value in codes.items() if value is not None}
    return (
        segment.codes.keys() == stored.keys()
        and all(np.array_equal(segment.codes[key], stored[key]) for key in stored)
        and segment.silent == {key for key, value in codes.items() if value is None}
    )


def same_gains(found: Gains, gains: Gains) -> bool:
    """Whether these are exactly the gains that were written."""
    return found.keys() == gains.keys() and all(np.array_equal(found[channel], gains[channel]) for channel in gains)


def with_checksum(data: bytes) -> bytes:
    return data + zlib.crc32(data).to_bytes(4, "little")


def block(kind: bytes, body: bytes) -> bytes:
    """Any block but a segment, with a body shorter than 128 bytes."""
    return with_checksum(kind + bytes([len(body)])) + with_checksum(body)


def as_json(reader: Reader, segments: Sequence[Segment]) -> dict[str, Any]:
    """All that was read from a stream in JSON's types, as the golden files and docs/format.md have it."""
    header = dataclasses.asdict(reader.header)
    for name in ("envelope", "treble", "stereo"):
        if header[name] is None:  # as in the golden files, which are older
            del header[name]
        else:
            header[name]["edges"] = list(header[name]["edges"])
    if header["cover_bytes"] is None:  # likewise
        del header["cover_bytes"]
    if "stereo" not in header:  # likewise
        for part in header["parts"]:
            del part["stereo"]
    header["weights_sha256"] = reader.header.weights_sha256.hex()
    if reader.header.tables_sha256 is None:  # likewise
        del header["tables_sha256"]
    else:
        header["tables_sha256"] = reader.header.tables_sha256.hex()
    entries = [header["domains"], *(part["domains"] for part in header["parts"])]
    if not header["lower"]:  # one stage, likewise
        del header["lower"]
        for entry in itertools.chain(*entries):
            del entry["stem"], entry["stage"]
    else:
        for low in header["lower"]:
            low["weights_sha256"] = low["weights_sha256"].hex()
        header["lower"] = list(header["lower"])
    header["domains"] = json.loads(json.dumps(header["domains"]))
    header["parts"] = json.loads(json.dumps(header["parts"]))
    if not header["parts"]:  # likewise
        del header["parts"]
    return {
        "header": header,
        "segments": [
            {
                "sequence": segment.sequence,
                "start_frame": segment.start_frame,
                "num_frames": segment.num_frames,
                "codes": {stream_name(key): codes.tolist() for key, codes in segment.codes.items()},
                "silent": sorted(map(stream_name, segment.silent)),
                "removed": sorted(map(stream_name, segment.removed)),
                **{
                    kind.key: {str(channel): gains.tolist() for channel, gains in kind.of(segment).items()}
                    for kind in (ENVELOPES, TREBLES)
                    if kind.name in header
                },
                **(
                    {"places": {stem: places.tolist() for stem, places in segment.places.items()}}
                    if "stereo" in header
                    else {}
                ),
            }
            for segment in segments
        ],
        "end": dataclasses.asdict(reader.end) if reader.end else None,
        "problems": [[problem.kind, problem.start_frame] for problem in reader.problems],
    }


def stream_name(key: StreamKey) -> str:
    return f"{key[0]} {key[1]}"
