"""What is heard where codes were lost: the frames around them, backwards, and softer and softer.

Codes of the frames before a loss follow it in reverse order, and those of the frames behind it lead up to them, so that
nothing jumps; in the middle of a long loss there is silence. What was left out on purpose, or was silent, stays so.

Measured on mixtures of test clips, each with one loss (docs/design.md): where all is lost, levels in bands are 11 dB
off instead of the 33 dB of silence. Where others of its channel go on, a lost stream that is made up is no nearer to
the original than silence, because they mask the loss, so in a mix it is left out.

Legend: S stems, C channels, T samples, K codebooks, F frames, B bands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..audio import Wav
from ..bitstream import StreamKey
from ..runtime.model import NOTHING, Codes
from .envelope import Gains

REACH_FRAMES = 50
"""Frames on each side of a loss that are made up from those beyond it."""

Levels = NDArray[np.float32]


@dataclass(frozen=True)
class Stretch:
    """Some frames of all channels, as a file has them."""

    num_frames: int
    codes: Mapping[StreamKey, Codes]
    """`[K, F]` of streams that are active in it; F is a multiple of `num_frames` in stages of more frames."""
    gains: Mapping[int, Gains]
    """Of channels that have an envelope here, of each frame: `[B, F]`."""
    treble: Mapping[int, Gains]
    """Likewise."""
    lost: frozenset[StreamKey] = frozenset()
    """Streams of which nothing is left."""
    is_gap: bool = False
    """Whether all is lost, gains too."""
    places: Mapping[str, Gains] = field(default_factory=dict)
    """Of domains that are not in the middle, of each frame, `[2 B, F]`; what is made up stands in the middle."""
    made_up: Mapping[StreamKey, Levels] = field(default_factory=dict)
    """How loud frames are that were made up, from 0 to 1, `[num_frames]`."""


def concealed(stretches: Iterator[Stretch], absent: tuple[int, int], *, mixed: bool) -> Iterator[Stretch]:
    """The same stretches with something in the place of what is lost; those wait until the next one is there.

    Args:
        stretches: in their order and without gaps between them
        absent: value of an envelope's gains, and of treble's, where there are none
        mixed: whether streams are heard together, so that one that is lost beside others is masked by them
    """
    before: Stretch | None = None
    waiting: Stretch | None = None
    age = 0  # frames since `before`
    for stretch in stretches:
        if waiting is not None:
            yield _filled(waiting, before, stretch, age, absent)
            age += waiting.num_frames
            waiting = None
        if stretch.lost and not (mixed and _is_masked(stretch)):
            waiting = stretch
            continue
        yield stretch
        before, age = stretch, 0
    if waiting is not None:
        yield _filled(waiting, before, None, age, absent)


def _is_masked(stretch: Stretch) -> bool:
    """Whether every channel of which something is lost has something else that goes on."""
    return {channel for channel, _ in stretch.lost} <= {channel for channel, _ in stretch.codes}


def _filled(
    stretch: Stretch, before: Stretch | None, after: Stretch | None, age: int, absent: tuple[int, int]
) -> Stretch:
    """A stretch of which something is lost, `age` frames behind the one before."""
    num_frames = stretch.num_frames
    codes, levels = dict(stretch.codes), dict[StreamKey, Levels]()
    for key in stretch.lost:
        past, future = (each.codes.get(key) if each else None for each in (before, after))
        found = _mirrored(_Side.of(past, before), _Side.of(future, after), num_frames, age, NOTHING)
        if found:
            codes[key], levels[key] = found
    if not stretch.is_gap:
        return replace(stretch, codes=codes, made_up=levels)
    kinds: list[Mapping[int, Gains]] = []
    for name, fill in zip(("gains", "treble"), absent, strict=True):
        of_channels: list[Mapping[int, Gains]] = [getattr(each, name) if each else {} for each in (before, after)]
        made = {}
        for channel in {channel for side in of_channels for channel in side}:
            past, future = (side.get(channel) for side in of_channels)
            found = _mirrored(_Side.of(past, before), _Side.of(future, after), num_frames, age, fill)
            if found:
                made[channel] = found[0]
        kinds.append(made)
    return replace(stretch, codes=codes, gains=kinds[0], treble=kinds[1], made_up=levels)


@dataclass(frozen=True)
class _Side:
    """What there is before a loss, or behind it."""

    values: NDArray[np.int64]
    """`[R, count * F]`"""
    count: int
    """Columns for each frame."""

    @classmethod
    def of(cls, values: NDArray[np.int64] | None, stretch: Stretch | None) -> _Side | None:
        return None if values is None or stretch is None else cls(values, values.shape[1] // stretch.num_frames)


def _mirrored(
    past: _Side | None, future: _Side | None, num_frames: int, age: int, fill: int
) -> tuple[NDArray[np.int64], Levels] | None:
    """What is made up for lost frames, `[R, count * F]`, and how loud each of them is, `[F]`; None if nothing is."""
    sides = [side for side in (past, future) if side is not None]
    if not sides:
        return None
    count = sides[0].count
    columns = np.arange(num_frames * count)
    # From each column to the nearest one on either side, 0 right beside it.
    distances = np.full((2, len(columns)), REACH_FRAMES * count)
    for row, (side, distance) in enumerate(((past, columns + age * count), (future, columns[::-1]))):
        if side is not None:
            within = distance < min(REACH_FRAMES * count, side.values.shape[1])
            distances[row, within] = distance[within]
    nearest = distances.min(0)
    if nearest.min() == REACH_FRAMES * count:
        return None
    found = np.full((max(len(side.values) for side in sides), len(columns)), fill, dtype=np.int64)
    is_past = distances[0] <= distances[1]
    for side, of_side in ((past, is_past), (future, ~is_past)):
        picked = np.flatnonzero(of_side & (nearest < REACH_FRAMES * count))
        if side is not None and len(picked):
            mirrored = side.values[:, ::-1] if side is past else side.values
            found[: len(side.values), picked] = mirrored[:, nearest[picked]]
    return found, (1 - nearest[::count] / (REACH_FRAMES * count)).astype(np.float32)


class Fader:
    """Makes what was made up softer, as audio comes out of decoders.

    Args:
        stems: the streams of each, of every channel: `[S][C]`
        hop_length: samples that come out for each frame
    """

    def __init__(self, stems: Sequence[Sequence[Sequence[StreamKey]]], hop_length: int) -> None:
        self._stems, self._hop = stems, hop_length
        self._last: Levels = np.ones((len(stems), len(stems[0]), 1), dtype=np.float32)
        self._levels: Levels = self._last[..., :0]
        self._given = 0  # samples of the first of these frames that came out

    def push(self, stretch: Stretch) -> None:
        """Take a stretch in, before its audio."""
        levels = np.ones((*self._last.shape[:2], stretch.num_frames), dtype=np.float32)
        for row, channels in zip(levels, self._stems, strict=True):
            for level, keys in zip(row, channels, strict=True):
                active = [key for key in keys if key in stretch.codes]
                if active and all(key in stretch.made_up for key in active):
                    level[:] = np.max([stretch.made_up[key] for key in active], axis=0)
        self._levels = np.concatenate([self._levels, levels], axis=-1)

    def applied(self, wavs: Wav) -> Wav:
        """Audio `[S, C, T]` that comes next, at the levels of its frames."""
        stop = self._given + wavs.shape[-1]
        count = -(-stop // self._hop)
        levels = np.concatenate([self._last, self._levels[..., :count]], axis=-1)
        if (levels != 1).any():
            # From the level of the frame before to its own in each frame.
            ramp = (np.arange(self._hop, dtype=np.float32) + 1) / self._hop
            rise = levels[..., :-1, None] + np.diff(levels, axis=-1)[..., None] * ramp
            wavs = np.asarray(wavs * rise.reshape(*rise.shape[:2], -1)[..., self._given : stop], dtype=np.float32)
        whole = stop // self._hop
        self._last, self._levels = levels[..., whole : whole + 1], self._levels[..., whole:]
        self._given = stop - whole * self._hop
        return wavs
