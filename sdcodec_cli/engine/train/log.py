"""What a run leaves for people: `metrics.jsonl`, and curves, sounds and pictures for TensorBoard.

Legend: T samples, H rows of pixels (frequency), W columns of pixels (time).
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import os
import time
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ...audio import atomic_output
from ...errors import InputError
from ..pictures import RANGE, colour, shades, spectrogram

if TYPE_CHECKING:
    from PIL import Image, ImageFont

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"

Values = Mapping[str, float | Mapping[str, float]]
"""Numbers by name; a mapping is a group, which TensorBoard shows together."""


@dataclass(frozen=True)
class TrainingProgress:
    """How far a run is, for a progress bar."""

    step: int
    """Steps done, those before a resumption included."""
    steps: int
    """Steps in all."""
    audio_seconds: float
    """Seconds of audio per second of time."""
    seconds_left: float
    losses: dict[str, float]
    """The most telling first; what does not fit in the line is left out."""


@dataclass(frozen=True)
class Recording:
    """A sound, and what the model makes of it."""

    name: str
    reference: Tensor
    """wav `[T]`, on any device"""
    decoded: Tensor
    """wav `[T]`, on any device"""

    def __post_init__(self) -> None:
        shapes = tuple(self.reference.shape), tuple(self.decoded.shape)
        if shapes[0] != shapes[1] or len(shapes[0]) != 1 or not len(self.reference):
            raise ValueError(f"{self.name}: reference and decoded must be [T] of one length, got {shapes}")


class RunLog:
    """Writes the log of a run; for one process only.

    Opening it takes away what a killed run logged after the checkpoint that it is resumed from, because those steps
    come again. Everything is written when a method returns, and a record is there as a whole or not at all.

    Args:
        run: folder of the run, created if missing
        step: steps done so far
        sample_rate: of the examples, in Hz

    Raises:
        InputError: `metrics.jsonl` is damaged
        OSError: from any method: the disk is full, or the folder cannot be written
    """

    def __init__(self, run: Path, *, step: int, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._heard: set[str] = set()
        (run / TENSORBOARD).mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_rows(run) if row["step"] <= step]
        with atomic_output(run / METRICS, overwrite=True) as file:
            file.writelines(_line(row) for row in kept)
        self._events = _Events(run / TENSORBOARD, step=step)
        self._metrics = _Records(run / METRICS)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing can be logged any more."""
        self._metrics.close()
        self._events.close()

    def row(self, step: int, values: Values) -> None:
        """A line of `metrics.jsonl`, in which non-finite numbers are null, and curves.

        A group is a group of curves, `loss/mel`; what is in none is in the group `training`.
        """
        self._metrics.write(_line({"step": step, **values}))
        scalars: dict[str, float] = {}
        for name, value in values.items():
            if isinstance(value, Mapping):
                scalars |= {f"{name}/{inner}": number for inner, number in value.items()}
            else:
                scalars[f"training/{name}"] = value
        self._events.add(step, _scalars(scalars))

    def codebooks(
        self, step: int, perplexity: Mapping[str, Sequence[float]], dead: Mapping[str, Sequence[int]]
    ) -> None:
        """How well the entries of each codebook are used: a line of `metrics.jsonl`, curves, and a picture.

        Args:
            step: steps done
            perplexity: of the entries, by domain (and `shared`) and level; entries used equally often make it their
                number, and a collapsed codebook makes it 1
            dead: entries that nothing was mapped to, for the same codebooks
        """
        self._metrics.write(_line({"step": step, "codebook_perplexity": perplexity, "codebook_dead": dead}))
        scalars = {
            f"codebook_{name}/{domain}_{level:02d}": number
            for name, numbers in (("perplexity", perplexity), ("dead", dead))
            for domain, levels in numbers.items()
            for level, number in enumerate(levels, 1)
        }
        picture = codebook_picture(f"codebooks, step {step}", perplexity, dead)
        self._events.add(step, [*_scalars(scalars), _image("codebooks", picture)])

    def examples(self, step: int, recordings: Sequence[Recording]) -> None:
        """Both sounds of each recording, the reference only once, and their spectrograms above each other."""
        for recording in recordings:
            name = recording.name
            values = [_audio(f"{name}/decoded", recording.decoded, self._sample_rate)]
            if name not in self._heard:
                values.append(_audio(f"{name}/reference", recording.reference, self._sample_rate))
            title = f"{name}, step {step}"
            values.append(_image(f"spectrogram/{name}", spectrogram_picture(title, recording, self._sample_rate)))
            self._events.add(step, values)
            self._heard.add(name)


def read_rows(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's `metrics.jsonl`, oldest first, without a last line that is half-written.

    Raises:
        InputError: a line is damaged
    """
    path = run / METRICS
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = dict(json.loads(line))
            int(row["step"])
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: line {number} is damaged; remove it") from error
        rows.append(row)
    return rows


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(_plain(row), allow_nan=False).encode() + b"\n"


def _plain(value: Any) -> Any:
    """What JSON can express; other numbers are null."""
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, Sequence):
        return [_plain(entry) for entry in value]
    if value is None or isinstance(value, int):
        return value
    return float(value) if math.isfinite(value) else None


class _Records:
    """A file to which records are added, each as a whole or not at all."""

    def __init__(self, path: Path) -> None:
        # Unbuffered: a full disk is known when `write` returns, and nothing is left for `close` to fail on.
        self._file = path.open("ab", buffering=0)

    def write(self, record: bytes) -> None:
        end = self._file.seek(0, os.SEEK_END)
        rest = memoryview(record)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except BaseException:
            with contextlib.suppress(OSError):
                self._file.truncate(end)
            raise

    def close(self) -> None:
        self._file.close()


class _Events:
    """An event file of TensorBoard.

    `torch.utils.tensorboard.SummaryWriter` writes in a thread: on a full disk the thread dies with a traceback of its
    own, what was queued is lost, and the error comes with some later call. It also imports TensorFlow where that is
    installed. The format is simple: protocol buffers, framed as records with checksums.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event = Event
        # TensorBoard reads the files of a folder in the order of their names.
        self._records = _Records(folder / f"events.out.tfevents.{time.time_ns()}")
        self._writer = RecordWriter(self._records)
        self._write(file_version="brain.Event:2")
        # Tells TensorBoard to forget what earlier files say about this step and later ones.
        self._write(step=step + 1, session_log={"status": "START"})

    def add(self, step: int, values: list[dict[str, Any]]) -> None:
        self._write(step=step, summary={"value": values})

    def close(self) -> None:
        self._records.close()

    def _write(self, **fields: Any) -> None:
        self._writer.write(self._event(wall_time=time.time(), **fields).SerializeToString())


def _scalars(scalars: Mapping[str, float]) -> list[dict[str, Any]]:
    return [{"tag": tag, "simple_value": float(value)} for tag, value in scalars.items()]


def _samples(wav: Tensor) -> Tensor:
    """On the CPU, finite: a model that diverged is to be seen, not to fail here."""
    return wav.detach().cpu().float().nan_to_num(0.0, 0.0, 0.0)


def _audio(tag: str, wav: Tensor, sample_rate: int) -> dict[str, Any]:
    """A wav `[T]` as 16 bits, clipped."""
    samples = (_samples(wav).clamp(-1, 1) * 32767).round().numpy().astype("<i2")
    encoded = io.BytesIO()
    with wave.open(encoded, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.tobytes())
    audio = {
        "sample_rate": sample_rate,
        "num_channels": 1,
        "length_frames": len(samples),
        "encoded_audio_string": encoded.getvalue(),
        "content_type": "audio/wav",
    }
    return {"tag": tag, "audio": audio}


def _image(tag: str, picture: Image.Image) -> dict[str, Any]:
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    image = {
        "height": picture.height,
        "width": picture.width,
        "colorspace": 3,
        "encoded_image_string": encoded.getvalue(),
    }
    return {"tag": tag, "image": image}


INK, PAPER = (30, 30, 30), (255, 255, 255)
SHADES = 224
"""Entries of a spectrogram's palette that are colours; the others go from ink to paper."""
PANEL = (200, 800)
"""Height and width of a spectrogram in pixels."""


def spectrogram_picture(title: str, recording: Recording, sample_rate: int) -> Image.Image:
    """Reference above decoded, over seconds and kHz, both in the same colours."""
    from PIL import Image, ImageDraw

    height, width = PANEL
    left, top, gap, right, bottom = 52, 58, 36, 76, 36
    wavs = {"reference": recording.reference, "decoded": recording.decoded}
    panels = {name: spectrogram(_samples(wav).numpy(), sample_rate, height, width) for name, wav in wavs.items()}
    # In tens of dB, so that the colours mean the same at most steps; silence stays dark.
    loudest = max(-40, 10 * math.ceil(max(float(level.max()) for level in panels.values()) / 10))
    # Drawn as indices of the palette, which makes a third of the bytes.
    ink, paper = SHADES, 255
    picture = Image.new("L", (left + width + right, top + 2 * height + gap + bottom), paper)
    draw, font = ImageDraw.Draw(picture), _font(12)
    draw.text((left, 8), title, ink, _font(16))
    seconds, kilohertz = len(recording.reference) / sample_rate, sample_rate / 2000
    for y, (name, level) in zip((top, top + height + gap), panels.items(), strict=True):
        picture.paste(Image.fromarray(shades(level, loudest, SHADES)), (left, y))
        draw.text((left, y - 7), name, ink, font, anchor="ls")
        for tick in _ticks(kilohertz, 5):
            at = y + (height - 1) * (1 - tick / kilohertz)
            draw.line((left - 5, at, left - 1, at), ink)
            draw.text((left - 8, at), f"{tick:g}", ink, font, anchor="rm")
        draw.text((left - 8, y - 11), "kHz", ink, font, anchor="rs")
        for tick in _ticks(seconds, 10):
            at = left + (width - 1) * tick / seconds
            draw.line((at, y + height, at, y + height + 4), ink)
            if y > top:
                draw.text((at, y + height + 8), f"{tick:g} s", ink, font, anchor="mt")
    x, length = left + width + 16, 2 * height + gap
    scale = np.linspace(0, -RANGE, length, dtype=np.float32)[:, None].repeat(14, 1)
    picture.paste(Image.fromarray(shades(scale, 0, SHADES)), (x, top))
    draw.text((x, top - 11), "dBFS", ink, font, anchor="ls")
    for below in range(0, RANGE + 1, 20):
        at = top + (length - 1) * below / RANGE
        draw.line((x + 14, at, x + 18, at), ink)
        draw.text((x + 22, at), f"{loudest - below}", ink, font, anchor="lm")
    greys = np.linspace(INK, PAPER, 256 - SHADES).round().astype(np.uint8)
    picture.putpalette(np.concatenate([colour(np.linspace(0, 1, SHADES)), greys]).tobytes())
    return picture


def codebook_picture(
    title: str, perplexity: Mapping[str, Sequence[float]], dead: Mapping[str, Sequence[int]]
) -> Image.Image:
    """A table of perplexities and dead entries, domains by levels, coloured from a perplexity of 1 (dark) to 1024."""
    from PIL import Image, ImageDraw

    font, left, top, cell = _font(12), 84, 34, (58, 36)
    levels = max(len(row) for row in perplexity.values())
    picture = Image.new("RGB", (left + levels * cell[0] + 12, top + len(perplexity) * cell[1] + 46), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((left, 8), title, INK, _font(16))
    for row, (domain, numbers) in enumerate(perplexity.items()):
        y = top + row * cell[1]
        draw.text((left - 8, y + cell[1] / 2), domain, INK, font, anchor="rm")
        for column, (number, unused) in enumerate(zip(numbers, dead[domain], strict=True)):
            x = left + column * cell[0]
            # A codebook that nothing looked at has no perplexity.
            share = math.log2(max(number, 1)) / 10 if math.isfinite(number) else 0.0
            red, green, blue = (int(part) for part in colour(np.array(share)))
            ink = INK if share > 0.55 else PAPER
            draw.rectangle((x, y, x + cell[0] - 2, y + cell[1] - 2), (red, green, blue))
            middle = x + cell[0] / 2 - 1
            draw.text((middle, y + 11), f"{number:.0f}" if number >= 100 else f"{number:.1f}", ink, font, anchor="mm")
            draw.text((middle, y + 25), f"{unused} dead", ink, _font(10), anchor="mm")
    y = top + len(perplexity) * cell[1] + 4
    for level in range(levels):
        draw.text((left + (level + 0.5) * cell[0] - 1, y), f"{level + 1}", INK, font, anchor="mt")
    draw.text((left, y + 20), "level; perplexity from 1 (dark) to 1024 (bright)", INK, font)
    return picture


def _ticks(end: float, most: int) -> list[float]:
    """Round numbers from 0 to `end`, of which at most `most` are above 0."""
    spacing = next(m * 10.0**e for e in range(-3, 6) for m in (1, 2, 5) if end / (m * 10.0**e) <= most)
    return [n * spacing for n in range(math.floor(end / spacing + 1e-9) + 1)]


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)
