"""Headers as bytes: fields with tags, in the table of fields of `docs/format.md`."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import CorruptStream, NotAStream, UnsupportedStream
from .entries import DomainEntry, GainLayout, LowerModel, Part
from .header import Header
from .limits import MAX_BODY_BYTES, check_range
from .source import Source
from .wire import Cursor, varint

MAGIC = b"\x89SDC\r\n\x1a\n"
VERSION_MAJOR = 1
ENVELOPE_MINOR, TREBLE_MINOR, STAGES_MINOR, TABLES_MINOR, PARTS_MINOR, STEREO_MINOR, COVER_MINOR = 1, 2, 2, 3, 4, 5, 6
"""Minor versions of streams with an envelope, with treble, of several stages, with range-coded codes, of parts, with
places of domains, and with a cover; others are of version 1.0."""
MULTICHANNEL = 1 << 0
"""Bit of the required features: there is more than one coded channel."""
RANGE_CODED = 1 << 1
"""Bit of the required features: codes may be range-coded, with tables that the header names."""
STAGES = 1 << 2
"""Bit of the required features: there are streams of several stages."""
PARTS = 1 << 3
"""Bit of the required features: the stream consists of parts, which decode each by itself."""
KNOWN_FEATURES = MULTICHANNEL | RANGE_CODED | STAGES | PARTS

# Tags of the fields. A reader skips an even tag that it does not know, and refuses a stream with an unknown odd one.
MODEL = 1
WEIGHTS_SHA256 = 3
SAMPLE_RATE = 5
HOP_LENGTH = 7
CONTEXT_FRAMES = 9
ORIGINAL_RATE = 11
ORIGINAL_CHANNELS = 13
CODED_CHANNELS = 15
GAIN = 17
DOMAINS = 19
SEGMENT_FRAMES = 21
TABLES_SHA256 = 23
STAGE_TABLE = 25
PART_TABLE = 27
ORIGINAL_SAMPLES = 2
ENCODER = 4
TAG = 6
ENVELOPE = 8
TREBLE = 10
STEREO = 12
COVER = 14

REQUIRED_FIELDS = {
    *(MODEL, WEIGHTS_SHA256, SAMPLE_RATE, HOP_LENGTH, CONTEXT_FRAMES, ORIGINAL_RATE, ORIGINAL_CHANNELS),
    *(CODED_CHANNELS, GAIN, DOMAINS, SEGMENT_FRAMES, ENCODER),
}
OPTIONAL_FIELDS = {ORIGINAL_SAMPLES, TAG, ENVELOPE, TREBLE, STEREO, COVER, TABLES_SHA256, STAGE_TABLE, PART_TABLE}
KNOWN_FIELDS = REQUIRED_FIELDS | OPTIONAL_FIELDS
PART_FIELDS = {GAIN, DOMAINS, STAGE_TABLE, ENVELOPE, TREBLE, STEREO}
"""Those that a part may have of its own, with the meaning that they have in the header."""


@dataclass(frozen=True)
class StoredHeader:
    """A header as it was found in a stream."""

    header: Header
    version: tuple[int, int]
    num_bytes: int


def encode_header(header: Header) -> bytes:
    """The bytes of a header. `ValueError` if they are more than 64 KiB, which only tags can cause."""
    fields = [
        (MODEL, header.model.encode()),
        (WEIGHTS_SHA256, header.weights_sha256),
        (SAMPLE_RATE, _uint(header.sample_rate)),
        (HOP_LENGTH, _uint(header.hop_length)),
        (CONTEXT_FRAMES, _uint(header.context_frames)),
        (ORIGINAL_RATE, _uint(header.original_rate)),
        (ORIGINAL_CHANNELS, _uint(header.original_channels)),
        (CODED_CHANNELS, _uint(header.coded_channels)),
        (GAIN, _encode_gain(header.gain_db)),
        (DOMAINS, _encode_domains(header.domains)),
        (SEGMENT_FRAMES, _uint(header.segment_frames)),
    ]
    if header.original_samples is not None:
        fields.append((ORIGINAL_SAMPLES, _uint(header.original_samples)))
    fields.append((ENCODER, header.encoder.encode()))
    fields += [(TAG, f"{key}={value}".encode()) for key, value in header.tags.items()]
    layouts = (ENVELOPE, header.envelope), (TREBLE, header.treble), (STEREO, header.stereo)
    fields += [(tag, _encode_layout(layout)) for tag, layout in layouts if layout]
    if header.cover_bytes is not None:
        fields.append((COVER, _uint(header.cover_bytes)))
    if header.tables_sha256 is not None:
        fields.append((TABLES_SHA256, header.tables_sha256))
    if header.lower:
        fields.append((STAGE_TABLE, _encode_stages(header)))
    if header.parts:
        fields.append((PART_TABLE, _encode_parts(header)))
    body = _encode_fields(fields)
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"the header takes {len(body)} bytes, at most {MAX_BODY_BYTES} are allowed; shorten the tags")
    required = sum(bit for bit, found, _ in _features(header) if found)
    minors = (
        (COVER_MINOR, header.cover_bytes),
        (STEREO_MINOR, header.stereo),
        (PARTS_MINOR, header.parts),
        (TABLES_MINOR, header.tables_sha256),
        (STAGES_MINOR, header.lower),
        (TREBLE_MINOR, header.treble),
        (ENVELOPE_MINOR, header.envelope),
    )
    minor = next((minor for minor, found in minors if found), 0)
    head = MAGIC + bytes([VERSION_MAJOR, minor]) + required.to_bytes(2, "little") + bytes(2)
    head += len(body).to_bytes(4, "little") + body
    return head + zlib.crc32(head).to_bytes(4, "little")


def read_header(source: Source, name: str) -> StoredHeader:
    """The header at the start of `source`; `name` is what messages call the stream.

    Raises `NotAStream`, `UnsupportedStream` or `CorruptStream`.
    """
    start = source.read(0, len(MAGIC))
    if not start or (start[1:4] != MAGIC[1:4] and not MAGIC.startswith(start)):
        what = "not a .sdc stream" if start else "empty"
        raise NotAStream(f"{name}: {what}; give a file made by sdc compress")
    if not MAGIC.startswith(start):
        raise CorruptStream(f"{name}: its first bytes were changed, as by a transfer in text mode; copy it again")
    fixed = Cursor(source.read(len(MAGIC), 10))
    try:
        version = (fixed.uint(1), fixed.uint(1))
        required = fixed.uint(2)
        fixed.uint(2)  # Optional features: none is defined, and all may be ignored.
        body_bytes = fixed.uint(4)
    except ValueError:
        raise CorruptStream(f"{name}: ends inside its header; copy it again") from None
    if version[0] != VERSION_MAJOR:
        raise UnsupportedStream(
            f"{name}: written in version {version[0]} of the format, this is for {VERSION_MAJOR}; update sdc"
        )
    if body_bytes > MAX_BODY_BYTES:
        raise CorruptStream(f"{name}: the header is damaged, its length cannot be {body_bytes}; copy it again")
    num_bytes = len(MAGIC) + 10 + body_bytes + 4
    data = source.read(0, num_bytes)
    if len(data) < num_bytes:
        raise CorruptStream(f"{name}: ends inside its header; copy it again")
    if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise CorruptStream(f"{name}: the header is damaged, its checksum does not match; copy it again")
    if required & ~KNOWN_FEATURES:
        raise UnsupportedStream(f"{name}: needs a feature that this version lacks (bits {required:#06x}); update sdc")
    try:
        header = _parse_fields(_fields(data[18:-4], name), name)
        for bit, found, what in _features(header):
            if bool(required & bit) != found:
                raise ValueError(f"the feature bits do not match the {what}")
    except ValueError as error:
        raise CorruptStream(f"{name}: the header makes no sense: {error}") from None
    return StoredHeader(header, version, num_bytes)


def _features(header: Header) -> tuple[tuple[int, bool, str], ...]:
    """The bits of the required features, whether a stream with this header needs each, and what for."""
    return (
        (MULTICHANNEL, header.coded_channels > 1, "coded channels"),
        (STAGES, bool(header.lower), "stages"),
        (RANGE_CODED, header.tables_sha256 is not None, "tables"),
        (PARTS, bool(header.parts), "parts"),
    )


def _fields(body: bytes, name: str) -> dict[int, list[bytes]]:
    """The values of each known tag, in their order."""
    fields: dict[int, list[bytes]] = {}
    cursor = Cursor(body)
    while not cursor.at_end:
        tag = cursor.varint()
        value = cursor.take(cursor.varint())
        if tag in KNOWN_FIELDS:
            fields.setdefault(tag, []).append(value)
        elif tag % 2 == 1:
            raise UnsupportedStream(f"{name}: header field {tag} is unknown to this version; update sdc")
    return fields


def _parse_fields(fields: Mapping[int, list[bytes]], name: str) -> Header:
    for tag in REQUIRED_FIELDS:
        if tag not in fields:
            raise ValueError(f"field {tag} is missing")
    _check_once(fields)

    def number(tag: int) -> int:
        check_range(f"length of field {tag}", len(fields[tag][0]), 1, 8)
        return int.from_bytes(fields[tag][0], "little")

    tags = {}
    for text in (value.decode() for value in fields.get(TAG, [])):
        key, equals, value = text.partition("=")
        if not equals or key in tags:
            raise ValueError(f"tag {key!r} {'comes twice' if equals else 'has no value'}")
        tags[key] = value
    domains = _parse_domains(Cursor(fields[DOMAINS][0]))
    lower: tuple[LowerModel, ...] = ()
    if STAGE_TABLE in fields:
        domains, lower = _parse_stages(Cursor(fields[STAGE_TABLE][0]), domains)
    header = Header(
        model=fields[MODEL][0].decode(),
        weights_sha256=fields[WEIGHTS_SHA256][0],
        sample_rate=number(SAMPLE_RATE),
        hop_length=number(HOP_LENGTH),
        context_frames=number(CONTEXT_FRAMES),
        original_rate=number(ORIGINAL_RATE),
        original_channels=number(ORIGINAL_CHANNELS),
        coded_channels=number(CODED_CHANNELS),
        original_samples=number(ORIGINAL_SAMPLES) if ORIGINAL_SAMPLES in fields else None,
        gain_db=_parse_gain(fields[GAIN][0]),
        domains=domains,
        segment_frames=number(SEGMENT_FRAMES),
        encoder=fields[ENCODER][0].decode(),
        tags=tags,
        envelope=_parse_layout(Cursor(fields[ENVELOPE][0])) if ENVELOPE in fields else None,
        treble=_parse_layout(Cursor(fields[TREBLE][0])) if TREBLE in fields else None,
        stereo=_parse_layout(Cursor(fields[STEREO][0])) if STEREO in fields else None,
        lower=lower,
        tables_sha256=fields[TABLES_SHA256][0] if TABLES_SHA256 in fields else None,
        cover_bytes=number(COVER) if COVER in fields else None,
    )
    if PART_TABLE not in fields:
        return header
    return replace(header, parts=tuple(_parse_parts(Cursor(fields[PART_TABLE][0]), header, name)))


def _check_once(fields: Mapping[int, list[bytes]]) -> None:
    for tag, values in fields.items():
        if tag != TAG and len(values) > 1:
            raise ValueError(f"field {tag} comes {len(values)} times")


def _parse_gain(value: bytes) -> float:
    if len(value) != 2:
        raise ValueError("the gain does not have 2 bytes")
    return int.from_bytes(value, "little", signed=True) / 256


def _encode_parts(header: Header) -> bytes:
    out = bytearray()
    for part, own in zip(header.parts, header.of_parts, strict=True):
        fields = []
        if part.gain_db != header.gain_db:
            fields.append((GAIN, _encode_gain(part.gain_db)))
        if part.domains != header.domains:
            fields.append((DOMAINS, _encode_domains(part.domains)))
            if header.lower:
                fields.append((STAGE_TABLE, _encode_stages(own)))
        for tag, layout, usual in (
            (ENVELOPE, part.envelope, header.envelope),
            (TREBLE, part.treble, header.treble),
            (STEREO, part.stereo, header.stereo),
        ):
            if layout != usual:
                fields.append((tag, _encode_layout(layout) if layout else b""))
        body = _encode_fields(fields)
        for number in (part.num_frames, part.origin, part.first_sample, part.num_samples, len(body)):
            out += varint(number)
        out += body
    return bytes(out)


def _parse_parts(cursor: Cursor, header: Header, name: str) -> Iterator[Part]:
    """Parts of a stream, whose header this is but for them."""

    def layout(tag: int, usual: GainLayout | None) -> GainLayout | None:
        if tag not in fields:
            return usual
        return _parse_layout(Cursor(fields[tag][0])) if fields[tag][0] else None

    for number in itertools.count():
        if cursor.at_end and number:
            return
        num_frames, origin, first_sample, num_samples = (cursor.varint() for _ in range(4))
        fields = _fields(cursor.take(cursor.varint()), name)
        _check_once(fields)
        if not fields.keys() <= PART_FIELDS or (STAGE_TABLE in fields) != (DOMAINS in fields and bool(header.lower)):
            raise ValueError("a part has fields that it cannot have")
        domains = _parse_domains(Cursor(fields[DOMAINS][0])) if DOMAINS in fields else header.domains
        if STAGE_TABLE in fields:
            domains, lower = _parse_stages(Cursor(fields[STAGE_TABLE][0]), domains)
            if lower != header.lower:
                raise ValueError("a part has other stages than the stream")
        yield Part(
            num_frames=num_frames,
            origin=origin,
            first_sample=first_sample,
            num_samples=num_samples,
            gain_db=_parse_gain(fields[GAIN][0]) if GAIN in fields else header.gain_db,
            domains=domains,
            envelope=layout(ENVELOPE, header.envelope),
            treble=layout(TREBLE, header.treble),
            stereo=layout(STEREO, header.stereo),
        )


def _encode_fields(fields: Sequence[tuple[int, bytes]]) -> bytes:
    return b"".join(varint(tag) + varint(len(value)) + value for tag, value in fields)


def _encode_gain(gain_db: float) -> bytes:
    return int(gain_db * 256).to_bytes(2, "little", signed=True)


def _encode_layout(layout: GainLayout) -> bytes:
    out = bytes([layout.frames, int(layout.step_db * 16), layout.num_bands])
    return out + b"".join(varint(edge) for edge in layout.edges)


def _parse_layout(cursor: Cursor) -> GainLayout:
    frames, step, num_bands = cursor.uint(1), cursor.uint(1), cursor.uint(1)
    edges = tuple(cursor.varint() for _ in range(num_bands + 1))
    if not cursor.at_end:
        raise ValueError("bytes after the last band")
    return GainLayout(frames=frames, step_db=step / 16, edges=edges)


def _encode_stages(header: Header) -> bytes:
    out = bytearray([len(header.lower)])
    for stage in header.lower:
        out += bytes([len(stage.model.encode())]) + stage.model.encode() + stage.weights_sha256
        out += varint(stage.sample_rate) + varint(stage.hop_length) + varint(stage.context_frames)
    for entry in header.domains:
        out += bytes([entry.stage, len(entry.stem)]) + entry.stem.encode()
    return bytes(out)


def _parse_stages(
    cursor: Cursor, domains: tuple[DomainEntry, ...]
) -> tuple[tuple[DomainEntry, ...], tuple[LowerModel, ...]]:
    lower = []
    for _ in range(cursor.uint(1)):
        name, weights = cursor.take(cursor.uint(1)).decode(), cursor.take(32)
        lower.append(
            LowerModel(
                model=name,
                weights_sha256=weights,
                sample_rate=cursor.varint(),
                hop_length=cursor.varint(),
                context_frames=cursor.varint(),
            )
        )
    staged = []
    for entry in domains:
        stage, stem = cursor.uint(1), cursor.take(cursor.uint(1)).decode()
        if not stem:
            raise ValueError(f"{entry.name} has no stem")
        staged.append(replace(entry, stage=stage, stem=stem))
    if not cursor.at_end:
        raise ValueError("there are bytes after the last stage")
    return tuple(staged), tuple(lower)


def _encode_domains(domains: tuple[DomainEntry, ...]) -> bytes:
    out = bytearray([len(domains)])
    for entry in domains:
        out += bytes([len(entry.name)]) + entry.name.encode()
        out += bytes([entry.num_codebooks]) + (entry.codebook_size - 1).to_bytes(2, "little")
        out += bytes([entry.num_shared, len(entry.groups), *entry.groups])
    return bytes(out)


def _parse_domains(cursor: Cursor) -> tuple[DomainEntry, ...]:
    domains = []
    for _ in range(cursor.uint(1)):
        name = cursor.take(cursor.uint(1)).decode()
        num_codebooks, codebook_size, num_shared = cursor.uint(1), cursor.uint(2) + 1, cursor.uint(1)
        groups = tuple(cursor.take(cursor.uint(1)))
        if not groups:
            raise ValueError(f"domain {name!r} has no layer groups")
        domains.append(
            DomainEntry(
                name=name,
                num_codebooks=num_codebooks,
                codebook_size=codebook_size,
                num_shared=num_shared,
                groups=groups,
            )
        )
    if not cursor.at_end:
        raise ValueError("there are bytes after the last domain")
    return tuple(domains)


def _uint(value: int) -> bytes:
    """Little-endian, in as few bytes as possible; the field's length says how many."""
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "little")
