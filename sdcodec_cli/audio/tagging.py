"""Tags and covers in audio files that are complete otherwise: what their encoders have no way to write.

A cover goes into MP3 (ID3), FLAC, Ogg Vorbis, Opus and MPEG-4 files; tags, which libsndfile writes elsewhere, into MP3,
and the licence, for which FFmpeg has no place, into MPEG-4 files.
"""

from __future__ import annotations

import base64
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

from .cover import Cover

_PIECE = 1 << 20

_FRONT = 3
"""What the picture shows, by the numbers of ID3, which FLAC has, too: the front of the cover."""

_ID3_FRAMES = {
    "title": "TIT2",
    "artist": "TPE1",
    "album": "TALB",
    "date": "TDRC",
    "tracknumber": "TRCK",
    "genre": "TCON",
    "copyright": "TCOP",
}

_FLAC_BEGIN = 4 + 4 + 34
"""Bytes of a FLAC file up to the end of its first block of metadata, which is always STREAMINFO (RFC 9639, 8.2)."""

_MAX_PAGE_SEGMENTS = 255
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def add_tags(file: IO[bytes], kind: str, tags: Mapping[str, str], cover: Cover | None) -> None:
    """Put a cover, and tags that are not there yet, into a file that is open to be read and written.

    Args:
        file: the whole file
        kind: `MP3`, `FLAC`, `OGG` or `M4A`
        tags: all of them, by the names of `writer.TAGS`
        cover: to be put in, if there is one

    Raises:
        OSError: it cannot be read or written
    """
    if kind == "MP3" and (tags or cover):
        _replace(file, 0, 0, _id3(tags, cover))
    elif kind == "FLAC" and cover:
        picture = _flac_picture(cover)
        # Behind STREAMINFO, which is never the last block, because libFLAC writes one of comments.
        _replace(file, _FLAC_BEGIN, 0, struct.pack(">I", 6 << 24 | len(picture)) + picture)
    elif kind == "OGG" and cover:
        entry = b"METADATA_BLOCK_PICTURE=" + base64.b64encode(_flac_picture(cover))
        _add_comment(file, entry)
    elif kind == "M4A" and (cover or tags.get("license")):
        _add_items(file, tags.get("license"), cover)


# --- ID3, version 2.4 (id3.org)


def _id3(tags: Mapping[str, str], cover: Cover | None) -> bytes:
    utf8, latin = b"\x03", b"\x00"
    frames = b"".join(
        _id3_frame(frame, utf8 + tags[name].encode()) for name, frame in _ID3_FRAMES.items() if name in tags
    )
    if "comment" in tags:  # in a language that is not said, and without a description
        frames += _id3_frame("COMM", utf8 + b"XXX\0" + tags["comment"].encode())
    if "license" in tags:
        frames += _id3_frame("TXXX", utf8 + b"LICENSE\0" + tags["license"].encode())
    if cover:
        frames += _id3_frame("APIC", latin + cover.media_type.encode() + bytes([0, _FRONT, 0]) + cover.data)
    return b"ID3\x04\x00\x00" + _synchsafe(len(frames)) + frames


def _id3_frame(name: str, body: bytes) -> bytes:
    return name.encode() + _synchsafe(len(body)) + bytes(2) + body


def _synchsafe(number: int) -> bytes:
    """28 bits in four bytes, seven in each."""
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))


# --- FLAC and Ogg


def _flac_picture(cover: Cover) -> bytes:
    """A block of metadata without its head (RFC 9639, 8.8); depth and colours are not said."""
    media_type = cover.media_type.encode()
    return b"".join(
        (
            struct.pack(">II", _FRONT, len(media_type)) + media_type,
            struct.pack(">I", 0),  # no description
            struct.pack(">IIII", cover.width, cover.height, 0, 0),
            struct.pack(">I", len(cover.data)) + cover.data,
        )
    )


@dataclass(frozen=True)
class _Page:
    """A page of Ogg (RFC 3533, 6)."""

    head: bytes
    """The first 26 bytes."""
    lengths: bytes
    """Of its segments."""
    body: bytes

    @property
    def num_bytes(self) -> int:
        return 27 + len(self.lengths) + len(self.body)

    def renumbered(self, number: int) -> bytes:
        """The page as bytes, with this number and a checksum that is right."""
        head = self.head[:18] + struct.pack("<II", number, 0)
        data = head + bytes([len(self.lengths)]) + self.lengths + self.body
        return data[:22] + struct.pack("<I", _ogg_crc(data)) + data[26:]


def _ogg_crc(data: bytes) -> int:
    """That of zlib has the same polynomial, but takes the bits of a byte from the lowest, and inverts ends."""
    crc = zlib.crc32(data.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)


def _pages(file: IO[bytes], place: int) -> Iterator[_Page]:
    file.seek(place)
    while len(head := file.read(27)) == 27:
        lengths = file.read(head[26])
        page = _Page(head[:26], lengths, file.read(sum(lengths)))
        place += page.num_bytes
        yield page
        file.seek(place)


def _add_comment(file: IO[bytes], entry: bytes) -> None:
    """Add an entry to the comments of an Ogg file of Vorbis or Opus, and number its pages again."""
    pages = _pages(file, 0)
    first = next(pages)
    is_opus = first.body.startswith(b"OpusHead")
    packets, packet, taken, num_pages = [], b"", first.num_bytes, 1
    for page in pages:  # the comments, of Vorbis and then the codebooks; sound begins on a new page
        start, taken, num_pages = 0, taken + page.num_bytes, num_pages + 1
        for length in page.lengths:
            packet += page.body[start : start + length]
            start += length
            if length < 255:
                packets.append(packet)
                packet = b""
        if len(packets) == (1 if is_opus else 2):
            break
    packets[0] = _with_comment(packets[0], entry, begin=8 if is_opus else 7)
    headers = _paged(packets, serial=first.head[14:18])
    more = 1 + len(headers) - num_pages
    new = b"".join(page.renumbered(number) for number, page in enumerate(headers, 1))
    _replace(file, first.num_bytes, taken - first.num_bytes, new)
    place = first.num_bytes + len(new)
    if more:
        for page in _pages(file, place):
            (number,) = struct.unpack("<I", page.head[18:22])
            file.seek(place)
            _write(file, page.renumbered(number + more))
            place += page.num_bytes


def _with_comment(packet: bytes, entry: bytes, begin: int) -> bytes:
    """A packet of comments (Vorbis I, 5.2.1; RFC 7845, 5.2), which begin at byte `begin`, with one more."""
    (vendor,) = struct.unpack_from("<I", packet, begin)
    place = begin + 4 + vendor
    (count,) = struct.unpack_from("<I", packet, place)
    end = place + 4
    for _ in range(count):
        end += 4 + struct.unpack_from("<I", packet, end)[0]
    comments = packet[place + 4 : end] + struct.pack("<I", len(entry)) + entry
    return packet[:place] + struct.pack("<I", count + 1) + comments + packet[end:]


def _paged(packets: list[bytes], serial: bytes) -> list[_Page]:
    """Packets one behind the other in pages; a packet is over with its first segment of less than 255 bytes."""
    lengths = b"".join(bytes([255] * (len(packet) // 255) + [len(packet) % 255]) for packet in packets)
    data, pages, continued = b"".join(packets), [], False
    for start in range(0, len(lengths), _MAX_PAGE_SEGMENTS):
        own = lengths[start : start + _MAX_PAGE_SEGMENTS]
        body, data = data[: sum(own)], data[sum(own) :]
        # The time of a page is that of the last packet that ends in it, 0 of a header, or −1 if none does.
        time = 0 if min(own) < 255 else -1
        head = b"OggS" + struct.pack("<BBq", 0, continued, time) + serial + bytes(8)
        pages.append(_Page(head, own, body))
        continued = own[-1] == 255
    return pages


# --- MPEG-4 (ISO 14496-12), with the list of items that iTunes reads


def _add_items(file: IO[bytes], license: str | None, cover: Cover | None) -> None:
    """Add items behind those that FFmpeg has written, in the movie's box, which is the last of the file."""
    place, end = 0, file.seek(0, os.SEEK_END)
    kind, size = b"", 0
    while place < end:
        file.seek(place)
        size, kind = struct.unpack(">I4s", file.read(8))
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
        if kind == b"moov":
            break
        place += size
    assert (kind, place + size) == (b"moov", end)
    file.seek(place)
    movie = bytearray(file.read(size))
    items = b""
    if license is not None:
        meaning = _box(b"mean", bytes(4) + b"com.apple.iTunes") + _box(b"name", bytes(4) + b"LICENSE")
        items += _box(b"----", meaning + _box(b"data", struct.pack(">II", 1, 0) + license.encode()))
    if cover:
        well_known = {"image/jpeg": 13, "image/png": 14}[cover.media_type]
        items += _box(b"covr", _box(b"data", struct.pack(">II", well_known, 0) + cover.data))
    begin, stop = 0, len(movie)
    for name, skipped in ((b"moov", 8), (b"udta", 8), (b"meta", 12), (b"ilst", 8)):
        begin = next(start for start, found in _boxes(movie, begin, stop) if found == name)
        (length,) = struct.unpack_from(">I", movie, begin)
        struct.pack_into(">I", movie, begin, length + len(items))
        begin, stop = begin + skipped, begin + length
    movie[stop:stop] = items
    file.seek(place)
    _write(file, bytes(movie))


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


def _boxes(data: bytearray, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """Where each box begins, and its type."""
    while start < stop:
        size, kind = struct.unpack_from(">I4s", data, start)
        yield start, kind
        start += size


# --- files


def _replace(file: IO[bytes], place: int, num_bytes: int, data: bytes) -> None:
    """Put bytes into a file in the place of others, or of as many, and move what is behind them."""
    shift, start = len(data) - num_bytes, place + num_bytes
    assert shift >= 0
    stop = file.seek(0, os.SEEK_END)
    while stop > start and shift:  # the last piece first, so that nothing is lost
        first = max(start, stop - _PIECE)
        file.seek(first)
        piece = file.read(stop - first)
        file.seek(first + shift)
        _write(file, piece)
        stop = first
    file.seek(place)
    _write(file, data)


def _write(file: IO[bytes], data: bytes) -> None:
    rest = memoryview(data)
    while rest:  # an unbuffered file may take less than it is given
        rest = rest[file.write(rest) :]
