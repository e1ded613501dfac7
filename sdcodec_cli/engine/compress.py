"""Audio file to `.sdc` file.

Legend: C channels, T samples, N domains, K codebooks, F frames.
"""

from __future__ import annotations

import math
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..audio import AudioReader, LoudnessMeter, StreamResampler, atomic_output, downmix
from ..bitstream import DomainEntry, Header, StreamKey, Writer
from ..bitstream.header import MAX_RATE
from ..errors import InputError
from .codec import Codec
from .stream import SEGMENT_FRAMES, CodedBlock, split_segments

MAX_TAG_BYTES = 2**15
"""Of the texts of all tags together; a header holds twice that in all."""

Progress = Callable[[float, float | None], None]
"""Gets the seconds done and, where known, the seconds in all."""


@dataclass(frozen=True)
class CompressResult:
    """What became of one input."""

    input: str
    output: str
    seconds: float
    bytes: int
    bitrate: float
    """Of the whole file, in kbit/s."""
    payload_bitrate: float
    """Of the codes alone, in kbit/s."""
    overhead_percent: float
    """What is not codes, relative to the codes."""
    times_real_time: float
    effort: int
    """Steps of analysis by synthesis."""
    model: str
    device: str
    channels_note: str | None
    """What happened to several channels, for people."""
    activity: dict[str, float]
    """Share of the time in which each domain is stored."""
    notes: tuple[str, ...]
    """Anything else worth saying."""


def compress(
    source: str | Path,
    target: str | Path,
    *,
    codec: Codec,
    bitrate: float | None = None,
    domains: Literal["auto", "all"] | Sequence[str] = "auto",
    channels: Literal["mono", "keep"] = "mono",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> CompressResult:
    """Compress one audio file, in memory that does not grow with its length.

    The file is read twice: for its loudness, then for its codes.

    Args:
        source: any file that libsndfile reads, or `-` for standard input
        target: where the `.sdc` goes, or `-` for standard output
        codec: the model, at the effort wanted
        bitrate: per domain, in kbit/s; the model's full rate by default
        domains: `auto` leaves out domains where they are not heard, `all` stores everything, a list stores these
            (where they are heard); analysis by synthesis is of the mix of all that is heard, stored or not
        channels: `mono` mixes down, `keep` codes every channel by itself
        overwrite: replace an existing target
        progress: called after every block

    Raises:
        InputError, OutputError: see `audio`
        ValueError: a bitrate or a domain that the model does not have, or no such way with channels
    """
    if channels not in ("mono", "keep"):
        raise ValueError(f"channels must be mono or keep, got {channels!r}")
    num_codebooks = codec.codebooks_for(bitrate)
    stored = _stored(codec, domains)
    began = time.monotonic()
    with AudioReader(source) as reader:
        info = reader.info
        mono = channels == "mono" or info.channels == 1
        coded_channels = 1 if mono else info.channels
        if coded_channels > 255:
            raise InputError(
                f"{info.name}: {info.channels} channels are more than 255; mix them down (--channels mono)"
            )
        if info.sample_rate > MAX_RATE:
            raise InputError(f"{info.name}: {info.sample_rate} Hz are more than {MAX_RATE}; resample it first")
        tags, notes = _tags(info.tags)
        rate = num_codebooks * codec.model.codebook_bitrate
        if bitrate is not None and rate < bitrate - 1e-9:
            notes.append(f"coded at {rate:g} kbit/s per domain, the next step below {bitrate:g}")
        gain_db = codec.gain_for(measure_loudness(reader, mono=mono))
        header = Header(
            model=codec.name,
            weights_sha256=codec.weights_sha256,
            sample_rate=codec.sample_rate,
            hop_length=codec.hop_length,
            context_frames=codec.context_frames,
            original_rate=info.sample_rate,
            original_channels=min(info.channels, 255),
            coded_channels=coded_channels,
            original_samples=info.num_samples,
            gain_db=gain_db,
            domains=tuple(
                DomainEntry(
                    name=stream.name,
                    num_codebooks=num_codebooks,
                    codebook_size=stream.codebook_size,
                    num_shared=max(0, stream.num_shared - (stream.num_codebooks - num_codebooks)),
                )
                for stream in codec.model.streams
                if stream.name in stored
            ),
            segment_frames=SEGMENT_FRAMES,
            encoder=f"sdc {__version__}",
            tags=tags,
        )
        heard = dict.fromkeys(stored, 0)
        with atomic_output(target, overwrite=overwrite) as file:
            writer = Writer(file, header)
            present = codec.domains if domains == "all" else None
            coder = _Coder(codec, info.sample_rate, coded_channels, gain_db, num_codebooks, present)
            for segments in coder.run(_blocks(reader, mono=mono), progress, info.seconds):
                writer.write(_streams(segments, codec, stored, heard), num_frames=segments[0].num_frames)
            writer.close(coder.num_samples)
    seconds = coder.num_samples / info.sample_rate
    frames = coded_channels * max(1, coder.num_frames)
    if not any(heard.values()):
        notes.append("nothing is heard in it; the file is silent")
    return CompressResult(
        input=str(source),
        output=str(target),
        seconds=seconds,
        bytes=writer.bytes_written,
        bitrate=writer.bytes_written * 8 / 1000 / seconds,
        payload_bitrate=writer.payload_bytes * 8 / 1000 / seconds,
        overhead_percent=100 * (writer.bytes_written - writer.payload_bytes) / max(1, writer.payload_bytes),
        times_real_time=seconds / (time.monotonic() - began),
        effort=codec.effort,
        model=codec.name,
        device=codec.device,
        channels_note=_channels_note(info.channels, mono=mono),
        activity={domain: count / frames for domain, count in heard.items()},
        notes=tuple(notes),
    )


def _tags(given: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Tags as a header takes them, and notes about those that are left out."""
    tags, notes, room = {}, [], MAX_TAG_BYTES
    for key, value in given.items():
        # Line ends of any system are one; other control characters have no business in a text.
        lines = value.replace("\r\n", "\n").replace("\r", "\n")
        text = "".join(char for char in lines if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs"))
        size = len(text.encode())
        if size > room:
            notes.append(f"the {key} of {size} bytes is left out, tags take at most {MAX_TAG_BYTES} together")
        elif text:
            tags[key] = text
            room -= size
    return tags, notes


def _stored(codec: Codec, domains: Literal["auto", "all"] | Sequence[str]) -> tuple[str, ...]:
    if isinstance(domains, str):
        if domains not in ("auto", "all"):
            raise ValueError(f"domains must be auto, all or a list of domains, got {domains!r}")
        return codec.domains
    unknown = [domain for domain in domains if domain not in codec.domains]
    if unknown:
        raise ValueError(f"{codec.name} has no domain {unknown[0]}; it has {', '.join(codec.domains)}")
    return tuple(domain for domain in codec.domains if domain in domains)


def _channels_note(channels: int, *, mono: bool) -> str | None:
    if channels == 1:
        return None
    if mono:
        return f"{channels} channels were mixed down to one; --channels keep codes each by itself"
    return f"{channels} channels, each coded by itself"


def _blocks(reader: AudioReader, *, mono: bool) -> Iterator[NDArray[np.float32]]:
    for block in reader.blocks():
        yield downmix(block) if mono else block


def measure_loudness(reader: AudioReader, *, mono: bool) -> float:
    meter = LoudnessMeter(reader.info.sample_rate, 1 if mono else reader.info.channels)
    for block in _blocks(reader, mono=mono):
        meter.push(block)
    return meter.integrated()


def _streams(
    segments: Sequence[CodedBlock], codec: Codec, stored: Sequence[str], heard: dict[str, int]
) -> dict[StreamKey, NDArray[np.int64] | None]:
    """One segment of every channel as the streams of the file; counts the frames that are stored."""
    streams: dict[StreamKey, NDArray[np.int64] | None] = {}
    for channel, segment in enumerate(segments):
        for domain in stored:
            codes = segment.of(codec.domains.index(domain))
            streams[channel, domain] = codes
            heard[domain] += 0 if codes is None else segment.num_frames
    return streams


class _Coder:
    """Resamples, levels and encodes blocks of all channels, and counts what went in."""

    def __init__(
        self,
        codec: Codec,
        rate: int,
        channels: int,
        gain_db: float,
        num_codebooks: int,
        present: Sequence[str] | None,
    ) -> None:
        self.num_samples = 0
        """Per channel, at the original rate."""
        self.num_frames = 0
        self._model_rate = codec.sample_rate
        self._pushed = 0  # samples per channel at the model's rate
        self._rate, self._gain = rate, np.float32(10 ** (gain_db / 20))
        self._resampler = StreamResampler(rate, codec.sample_rate, channels)
        self._encoders = [codec.stream_encoder(num_codebooks=num_codebooks, present=present) for _ in range(channels)]

    def run(
        self, blocks: Iterator[NDArray[np.float32]], progress: Progress | None, total: float | None
    ) -> Iterator[tuple[CodedBlock, ...]]:
        """The same segment of every channel, one after the other."""
        for block in blocks:
            self.num_samples += block.shape[-1]
            yield from self._push(self._resampler.push(block), last=False)
            if progress:
                progress(self.num_samples / self._rate, total)
        rest = self._resampler.flush()
        # The resampler rounds its length down half of the time; frames must cover every sample of the original.
        missing = math.ceil(self.num_samples * self._model_rate / self._rate) - self._pushed - rest.shape[-1]
        yield from self._push(np.pad(rest, ((0, 0), (0, max(0, missing)))), last=True)

    def _push(self, wav: NDArray[np.float32], *, last: bool) -> Iterator[tuple[CodedBlock, ...]]:
        self._pushed += wav.shape[-1]
        channels = []
        for row, encoder in zip(wav * self._gain, self._encoders, strict=True):
            blocks = encoder.push(row)
            channels.append(split_segments([*blocks, *encoder.finish()] if last else blocks))
        for segments in zip(*channels, strict=True):
            self.num_frames += segments[0].num_frames
            yield segments
