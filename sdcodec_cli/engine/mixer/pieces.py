"""What a mixer's page shows and plays of its stems, made in pieces, so that memory does not grow with their length.

Legend: N stems, C channels, T samples, H hop length, W columns of a picture.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...audio import Wav
from ...audio.activity import active_frames
from ...audio.mp3 import MP3_FRAME, encode_mp3
from ..pictures import spectrogram
from .stems import Stem

PIECE_SECONDS = 30
"""How much of the stems a page decodes at once, about."""

LEAD = 4 * MP3_FRAME
"""Samples before and behind a piece that are coded with it, so that it sounds at its ends as it does inside."""

HEIGHT, WIDTH = 96, 1200
"""Of a spectrogram, in pixels; short sound may have fewer columns."""

HOPS = 10
"""Per second, in which a stem is active or not."""

SHORTEST_PAUSE = 0.5
"""Seconds for which a stem has to be silent to count as such."""

PROBE_AT, PROBE_SAMPLES = 4 * MP3_FRAME, 8 * MP3_FRAME
"""Where a click is in the sound that tells by how much a decoder is late, and how long that is."""


@dataclass(frozen=True)
class Picture:
    """How a stem looks."""

    levels: NDArray[np.float32]
    """Its spectrogram in dB, `[H, W]`, top down."""
    peaks: NDArray[np.float32]
    """The largest sample of each column, `[W]`."""
    rms: NDArray[np.float32]
    """The root mean square of each column, `[W]`."""
    active: list[tuple[float, float]]
    """From when to when it is active, in seconds."""


class Pieces:
    """Stems cut into pieces, all but the last of one length; `texts` goes through them, and then there are pictures."""

    def __init__(self, stems: Sequence[Stem]) -> None:
        self._stems = stems
        self.sample_rate = stems[0].sample_rate
        self.num_samples = max(stem.num_samples for stem in stems)
        self._step = math.ceil(self.num_samples / WIDTH)  # samples of a column
        self.length = self._step * max(1, round(PIECE_SECONDS * self.sample_rate / self._step))
        """Of a piece, in samples: whole columns."""
        self._levels: list[list[NDArray[np.float32]]] = [[] for _ in stems]
        self._peaks: list[list[NDArray[np.float32]]] = [[] for _ in stems]
        self._rms: list[list[NDArray[np.float32]]] = [[] for _ in stems]
        self._active: list[NDArray[np.bool_]] = []
        self._left = [np.zeros((stem.channels, 0), np.float32) for stem in stems]  # less than a hop

    def texts(self) -> Iterator[str]:
        """JSON of each piece: a list of MP3 in base64 for each stem, empty where that is silent."""
        for start in range(0, self.num_samples, self.length):
            stop = min(start + self.length, self.num_samples)
            wavs = [stem.read(start - LEAD, stop + LEAD) for stem in self._stems]
            for number, wav in enumerate(wavs):
                self._draw(number, wav, stop - start)
            self._find_active([wav[:, LEAD:-LEAD] for wav in wavs])
            yield json.dumps([self._coded(wav) for wav in wavs])

    def pictures(self) -> list[Picture]:
        """How each stem looks, once all pieces were gone through."""
        self._find_active([np.zeros((stem.channels, self._hop), np.float32) for stem in self._stems])
        active = np.concatenate(self._active, axis=1)
        return [
            Picture(np.concatenate(levels, axis=1), np.concatenate(peaks), np.concatenate(rms), self._spans(frames))
            for levels, peaks, rms, frames in zip(self._levels, self._peaks, self._rms, active, strict=True)
        ]

    def probe(self) -> str:
        """A click coded as the stems are, in base64."""
        click = np.zeros((1, PROBE_SAMPLES), np.float32)
        click[0, PROBE_AT] = 0.9
        return base64.b64encode(encode_mp3(click, self.sample_rate)).decode()

    @property
    def _hop(self) -> int:
        return self.sample_rate // HOPS

    def _coded(self, wav: Wav) -> str:
        heard = (np.abs(wav) >= 0.5 / 32768).any()
        return base64.b64encode(encode_mp3(wav, self.sample_rate)).decode() if heard else ""

    def _draw(self, number: int, wav: Wav, length: int) -> None:
        columns = math.ceil(length / self._step)
        beside = LEAD // self._step  # columns of what is coded with a piece, where it has whole ones
        inside = wav[:, LEAD : LEAD + length]
        inside = np.pad(inside, ((0, 0), (0, columns * self._step - length)))
        self._peaks[number].append(np.abs(inside).max(0).reshape(columns, -1).max(1))
        self._rms[number].append(np.sqrt(np.square(inside).mean(0).reshape(columns, -1).mean(1)))
        seen = wav[:, LEAD - beside * self._step :].mean(0)
        count = columns + 2 * beside
        seen = np.pad(seen, (0, max(0, count * self._step - len(seen))))[: count * self._step]
        level = spectrogram(seen, self.sample_rate, HEIGHT, count)
        self._levels[number].append(level[:, beside : beside + columns])

    def _find_active(self, wavs: Sequence[Wav]) -> None:
        joined = [np.concatenate(pair, axis=1) for pair in zip(self._left, wavs, strict=True)]
        count = joined[0].shape[1] // self._hop
        self._left = [wav[:, count * self._hop :] for wav in joined]
        frames = np.zeros((len(joined), count, 2 * self._hop), np.float32)
        for number, wav in enumerate(joined):
            both = np.broadcast_to(wav[:, : count * self._hop], (2, count * self._hop))
            frames[number] = both.reshape(2, count, -1).swapaxes(0, 1).reshape(count, -1)
        self._active.append(active_frames(frames))

    def _spans(self, frames: NDArray[np.bool_]) -> list[tuple[float, float]]:
        edges = np.flatnonzero(np.diff(np.pad(frames.astype(np.int8), 1)))
        spans: list[tuple[float, float]] = []
        seconds = self.num_samples / self.sample_rate
        for start, stop in edges.reshape(-1, 2).tolist():
            begin, end = start * self._hop / self.sample_rate, min(stop * self._hop / self.sample_rate, seconds)
            if spans and begin - spans[-1][1] < SHORTEST_PAUSE:
                begin = spans.pop()[0]
            spans.append((round(begin, 3), round(end, 3)))
        return spans
