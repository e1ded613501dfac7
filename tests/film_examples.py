"""Files that FFmpeg writes, made with PyAV: sound in any container, beside a picture or other sound, or late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from sdcodec_cli.audio import Wav

FILM_RATE = 44_100

MUXERS = {
    ".mp4": ("mp4", "aac"),
    ".m4a": ("ipod", "aac"),
    ".m4b": ("ipod", "alac"),
    ".m4v": ("mp4", "aac"),
    ".mov": ("mov", "pcm_s16le"),
    ".3gp": ("3gp", "aac"),
    ".3g2": ("3g2", "aac"),
    ".mkv": ("matroska", "flac"),
    ".mka": ("matroska", "ac3"),
    ".webm": ("webm", "libopus"),
    ".avi": ("avi", "libmp3lame"),
    ".flv": ("flv", "aac"),
    ".ogv": ("ogg", "flac"),
    ".wmv": ("asf", "wmav2"),
    ".wma": ("asf", "wmav2"),
    ".asf": ("asf", "wmav2"),
    ".ts": ("mpegts", "aac"),
    ".m2ts": ("mpegts", "ac3"),
    ".mts": ("mpegts", "ac3"),
    ".mpg": ("mpeg", "mp2"),
    ".mpeg": ("mpeg", "mp2"),
    ".vob": ("vob", "mp2"),
    ".mp2": ("mp2", "mp2"),
    ".mp3": ("mp3", "libmp3lame"),
    ".mpga": ("mp3", "libmp3lame"),
    ".aac": ("adts", "aac"),
    ".ac3": ("ac3", "ac3"),
    ".eac3": ("eac3", "eac3"),
    ".ec3": ("eac3", "eac3"),
    ".wv": ("wv", "wavpack"),
    ".tta": ("tta", "tta"),
    ".amr": ("amr", "libopencore_amrnb"),
    ".voc": ("voc", "pcm_s16le"),
    ".wav": ("wav", "pcm_s16le"),
    ".wave": ("wav", "pcm_s24le"),
    ".bwf": ("wav", "pcm_f32le"),
    ".rf64": ("wav", "pcm_s16le"),
    ".w64": ("w64", "pcm_s16le"),
    ".flac": ("flac", "flac"),
    ".ogg": ("ogg", "libopus"),
    ".oga": ("ogg", "flac"),
    ".opus": ("opus", "libopus"),
    ".aif": ("aiff", "pcm_s16be"),
    ".aiff": ("aiff", "pcm_s24be"),
    ".aifc": ("aiff", "pcm_s16le"),
    ".au": ("au", "pcm_s16be"),
    ".snd": ("au", "pcm_mulaw"),
    ".caf": ("caf", "pcm_s16le"),
}
"""Container and coding that stand for each suffix. No encoder is there for DTS and Monkey's Audio."""

RATES = {"libopus": 48_000, "libopencore_amrnb": 8_000}
"""Of codings that do not take the usual one."""


def chirp(seconds: float, rate: int = FILM_RATE) -> Wav:
    """A sweep, which tells where in time it is: `[1, T]`."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * (200 * time + 300 * time**2)))[None].astype(np.float32)


def film(
    path: Path,
    tracks: Sequence[Wav],
    *,
    format: str | None = None,
    codec: str = "aac",
    rate: int = FILM_RATE,
    layout: str = "mono",
    delay: float = 0.0,
    picture_seconds: float = 0.0,
    tags: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
) -> Path:
    """Write tracks of sound, `delay` seconds late, beside a grey picture."""
    with av.open(str(path), "w", format=format, options=dict(options or {})) as container:
        container.metadata.update(tags or {})
        picture = container.add_stream("mpeg4", rate=25) if picture_seconds else None
        if picture is not None:
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        streams = [container.add_stream(codec, rate=rate) for _ in tracks]
        for stream in streams:
            stream.layout, stream.bit_rate = layout, 12_200 if codec == "libopencore_amrnb" else 128_000
        if picture is not None:
            for number in range(round(picture_seconds * 25)):
                image = av.VideoFrame.from_ndarray(np.full((72, 64), 128, np.uint8), format="yuv420p")
                image.pts, image.time_base = number, Fraction(1, 25)
                container.mux(picture.encode(image))
            container.mux(picture.encode(None))
        for stream, wav in zip(streams, tracks, strict=True):
            for frame in _frames(stream, wav, rate, layout, delay):
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


def _frames(stream: Any, wav: Wav, rate: int, layout: str, delay: float) -> list[Any]:
    packed = np.ascontiguousarray(wav.T).reshape(1, -1)
    whole = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    whole.sample_rate = rate
    resampler = av.AudioResampler(stream.format, layout, rate, frame_size=stream.frame_size or 1024)
    frames = [*resampler.resample(whole), *resampler.resample(None)]
    position = round(delay * rate)
    for frame in frames:
        frame.pts, frame.time_base = position, Fraction(1, rate)
        position += frame.samples
    return frames


def decoded_by_ffmpeg(path: Path) -> Wav:
    """What FFmpeg makes of the first track, without any regard to time: `[C, T]`."""
    with av.open(str(path)) as container:
        pieces = []
        for frame in container.decode(audio=0):
            values = frame.to_ndarray()
            if not frame.format.is_planar:
                values = values.reshape(frame.samples, -1).T
            kind = frame.format.name.removesuffix("p")
            values = values.astype(np.float64) - (128 if kind == "u8" else 0)
            pieces.append((values / {"u8": 2**7, "s16": 2**15, "s32": 2**31, "flt": 1}[kind]).astype(np.float32))
    return np.concatenate(pieces, axis=1)
