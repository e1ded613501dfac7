"""Pictures of covers: what they are, and where audio files have them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.stream import Stream

_ATTACHED_PICTURE = 1 << 10
"""In a stream's disposition (FFmpeg's AV_DISPOSITION_ATTACHED_PIC)."""

_FRONT = "Cover (front)"
"""What FFmpeg says of the picture that ID3 and FLAC number 3."""

_NO_SIZE = {0xC4, 0xC8, 0xCC}
"""JPEG markers from 0xC0 to 0xCF that begin no frame (ITU-T T.81, table B.1)."""


@dataclass(frozen=True)
class Cover:
    """A picture as files hold it."""

    data: bytes
    media_type: str
    """`image/jpeg` or `image/png`."""
    width: int
    """In pixels; 0 if the picture does not say."""
    height: int
    """Likewise."""

    @classmethod
    def of(cls, data: bytes) -> Cover:
        """A picture by its first bytes.

        Raises:
            ValueError: it is neither JPEG nor PNG
        """
        if data[:3] == b"\xff\xd8\xff":
            return cls(data, "image/jpeg", *_jpeg_size(data))
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            size = struct.unpack(">II", data[16:24]) if data[12:16] == b"IHDR" and len(data) >= 24 else (0, 0)
            return cls(data, "image/png", *size)
        raise ValueError("neither JPEG nor PNG")


def is_cover(stream: Stream) -> bool:
    """Whether a picture is a cover, and not one of a film."""
    return bool(stream.disposition.value & _ATTACHED_PICTURE)


def find_cover(path: Path) -> bytes | None:
    """The picture that an audio file or a film has as its cover, of several the front; None if there is none."""
    import av

    with path.open("rb") as file:
        try:
            options = {"protocol_whitelist": "none"}
            container = cast("InputContainer", av.open(file, metadata_errors="replace", container_options=options))
        except (av.error.FFmpegError, ValueError):
            return None  # such as a coding that only libsndfile reads
        with container:
            pictures = list(filter(is_cover, container.streams.video))
            pictures.sort(key=lambda stream: stream.metadata.get("comment") != _FRONT)
            if not pictures:
                return None
            try:
                packet = next(container.demux(pictures[0]))
            except (av.error.FFmpegError, StopIteration):
                return None
            return bytes(packet)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height, from the frame's header (ITU-T T.81, B.2.2)."""
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        (length,) = struct.unpack(">H", data[place + 2 : place + 4])
        if marker == 0xFF:  # a filling byte
            place += 1
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_SIZE:
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return width, height
        else:
            place += 2 + length
    return 0, 0
