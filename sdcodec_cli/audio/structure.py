"""What the bytes of a file say before anything is decoded: where MPEG audio begins, and whether the end is missing."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_SEARCH = 1 << 20  # bytes between tags and the first frame that are looked through
_FRAMES_IN_A_ROW = 3  # that look like MPEG audio before it is believed

_RATES = (44_100, 48_000, 32_000)
_KBITS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bitrates by version (2 for 2.5, too) and layer (ISO/IEC 11172-3 and 13818-3)."""


_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def mpeg_start(file: BinaryIO) -> int | None:
    """Where the first frame of an MP3 file begins, behind its ID3v2 tags and whatever else lies there.

    None for what begins neither with a tag nor with such a frame.
    """
    start = tag_size(_at(file, 0, 10))
    if not start:
        return 0 if _is_frame_run(file, 0) else None
    while size := tag_size(_at(file, start, 10)):
        start += size
    data = _at(file, start, _SEARCH)
    offset = 0
    while offset < len(data):
        if data[offset] == 0xFF and _is_frame_run(file, start + offset):
            return start + offset
        # A tag may come behind a pad; it is 0 bytes long where there is none.
        offset += max(1, tag_size(data[offset : offset + 10]))
    return None


def mpeg_samples(file: BinaryIO, start: int) -> int | None:
    """Samples per channel that the first frame promises for its stream (a Xing or VBRI header), None without one."""
    data = _at(file, start, 256)
    frame = _frame(data)
    if frame is None:
        return None
    length = frame[1]
    at = max(data.find(b"Xing"), data.find(b"Info"))
    if at > 0 and data[at + 7] & 1:
        return int.from_bytes(data[at + 8 : at + 12], "big") * length
    at = data.find(b"VBRI")
    return int.from_bytes(data[at + 14 : at + 18], "big") * length if at > 0 else None


def tag_size(head: bytes) -> int:
    """Bytes of an ID3v2 tag whose first ten are given; 0 if it is none."""
    if len(head) < 10 or head[:3] != b"ID3" or any(byte & 0x80 for byte in head[6:10]):
        return 0
    # Four bytes of seven bits each; bit 4 of the flags announces a footer of ten bytes (ID3v2.4, 3.1).
    size = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    return 10 + size + (10 if head[5] & 0x10 else 0)


def is_cut(path: Path) -> bool:
    """Whether a film or other container promises more bytes than there are (MP4, Matroska, ASF, RIFF)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = _at(file, 0, 12)
        if magic[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return _last_box_end(file, size) > size
        if magic[:4] == b"\x1a\x45\xdf\xa3":
            return _segment_end(file) > size
        if magic == _ASF[:12]:
            return _asf_size(file) > size
        if magic[:4] == b"RIFF" and magic[8:12] in (b"WAVE", b"AVI "):
            promised = int.from_bytes(magic[4:8], "little")
            # One byte of filling is often left out at the end.
            return not size_is_unknown(promised) and promised + 8 > size + 1
    return False


def size_is_unknown(size: int) -> bool:
    """Whether a size in a WAV header stands for none: 0, or near 2^31 (sox, arecord) or 2^32 (FFmpeg)."""
    return size == 0 or 0x7FFFF000 <= size <= 0x80000000 or size >= 0xFFFFFF00


def _at(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _frame(head: bytes) -> tuple[int, int] | None:
    """Bytes and samples of an MPEG audio frame, from its header; None if it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = {0: 2.5, 2: 2, 3: 1}.get(head[1] >> 3 & 3), 4 - (head[1] >> 1 & 3)
    bitrate, rate = head[2] >> 4, head[2] >> 2 & 3
    if version is None or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    kbits = _KBITS[min(2, int(version)), layer][bitrate - 1]
    hz = _RATES[rate] // {1: 1, 2: 2, 2.5: 4}[version]
    padding = head[2] >> 1 & 1
    if layer == 1:
        return (12_000 * kbits // hz + padding) * 4, 384
    samples = 576 if layer == 3 and version != 1 else 1152
    return samples // 8 * 1000 * kbits // hz + padding, samples


def _is_frame_run(file: BinaryIO, position: int) -> bool:
    """Whether frames of one kind follow one another here; fewer, if they end with the file."""
    kind = None
    for count in range(_FRAMES_IN_A_ROW):
        head = _at(file, position, 4)
        if not head and count > 1:
            return True
        frame = _frame(head)
        if frame is None or kind not in (None, (head[1], head[2] & 0x0C)):
            return False
        kind = (head[1], head[2] & 0x0C)
        position += frame[0]
    return True


def _last_box_end(file: BinaryIO, size: int) -> int:
    """Where the last top-level box of an ISO file claims to end (ISO/IEC 14496-12, 4.2)."""
    position = 0
    while position < size:
        head = _at(file, position, 16)
        if len(head) < 8 or not head[4:8].isascii() or not head[4:8].strip(b"\0"):
            return size  # bytes behind the last box, which players ignore
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length == 0:  # up to the end
            return size
        if length < 8:
            return size
        position += length
    return position


def _asf_size(file: BinaryIO) -> int:
    """Bytes of an ASF file (WMA, WMV) by its file properties; 0 if it was broadcast, and so does not say."""
    data = _at(file, 0, 1 << 16)
    at = data.find(_ASF_FILE_PROPERTIES)
    if at < 0 or len(data) < at + 92 or data[at + 88] & 1:
        return 0
    return int.from_bytes(data[at + 40 : at + 48], "little")


def _segment_end(file: BinaryIO) -> int:
    """Where the segment of a Matroska file claims to end; 0 if it does not say (RFC 8794, 5 and 6)."""
    position = 0
    for _ in range(2):  # EBML header, then the segment
        file.seek(position)
        name = _vint(file, keep_marker=True)
        length = _vint(file, keep_marker=False)
        if name is None or length is None:
            return 0
        if name == 0x18538067:
            return file.tell() + length
        position = file.tell() + length
    return 0


def _vint(file: BinaryIO, *, keep_marker: bool) -> int | None:
    """A number of variable length; None if it says that it is unknown, or is missing."""
    first = file.read(1)
    if not first or first == b"\0":
        return None
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    value = int.from_bytes(first + rest, "big")
    if keep_marker:
        return value
    value &= (1 << 7 * length) - 1
    return None if value == (1 << 7 * length) - 1 or len(rest) < length - 1 else value
