"""Pictures for tests of covers, as files hold them."""

from __future__ import annotations

import io
import struct
import zlib

import av
import numpy as np


def png(width: int = 4, height: int = 3) -> bytes:
    """A picture of noise, which takes some three bytes for each of its pixels."""
    rows = np.random.default_rng(0).bytes(3 * width * height)
    lines = b"".join(b"\0" + rows[start : start + 3 * width] for start in range(0, len(rows), 3 * width))
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", size), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def picture(codec: str, pixels: str, width: int, height: int) -> bytes:
    """A picture of a kind that FFmpeg writes."""
    file = io.BytesIO()
    with av.open(file, "w", format="image2pipe") as container:
        stream = container.add_stream(codec, rate=1)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        frame = av.VideoFrame(width, height, "yuvj420p").reformat(format=pixels)
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return file.getvalue()


def jpeg(width: int = 48, height: int = 32) -> bytes:
    return picture("mjpeg", "yuvj420p", width, height)
