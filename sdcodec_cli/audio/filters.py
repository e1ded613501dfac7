"""Recursive filters as products of matrices, which numpy computes faster than a compiled loop over samples.

Legend: C channels, S sections, D = 2 S numbers in a state, W inputs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BLOCK, BLOCKS, GROUPS = 64, 32, 8
"""Samples in a block, blocks in a group, groups in a chunk: larger ones cost multiplications, smaller ones calls."""

CHUNK = BLOCK * BLOCKS * GROUPS
"""Samples that are filtered at a time."""


class _Linear(NamedTuple):
    """A system whose outputs, and whose state afterwards, are linear in its inputs and its state before."""

    outputs: Floats
    """`[W + D, W]`"""
    after: Floats
    """`[W + D, D]`"""


class ChunkFilter:
    """Second-order sections, one after the other, over audio in chunks of `CHUNK` samples.

    The output of a block follows from its input and the filter's state before it, and so does the state after it. That
    is a recursion over blocks like that of the filter over samples, and is computed in the same way: over the blocks of
    a group, then over the groups of a chunk. Products have the same shapes for every chunk, so equal input gives equal
    bits.

    Args:
        sections: `[S, 6]`, each b0 b1 b2 1 a1 a2, as for `scipy.signal.sosfilt`; stable ones
        channels: C
    """

    def __init__(self, sections: Floats, channels: int) -> None:
        self._size = size = 2 * len(sections)
        blocks = _repeated(_of_one_sample(sections), BLOCK)
        groups = _repeated(_of_states(blocks), BLOCKS)
        chunk = _repeated(_of_states(groups), GROUPS)
        parts = (blocks, groups, chunk)
        self._left = [part.after[:-size] for part in parts]
        self._outputs = [part.outputs for part in parts]
        self._step = chunk.after[-size:]
        # Inputs and the state before them, of all blocks, all groups and the chunk. The parts that a larger one has
        # are an axis of their own: BLAS shares larger products among threads, which takes longer than it saves.
        shapes = (channels * GROUPS, BLOCKS), (channels, GROUPS), (channels, 1)
        self._rows = [np.empty((*shape, len(part.after))) for shape, part in zip(shapes, parts, strict=True)]

    def start(self) -> Floats:
        """The state before any sound, `[C, D]`."""
        return np.zeros((len(self._rows[-1]), self._size))

    def __call__(self, chunk: NDArray[np.floating], state: Floats) -> tuple[Floats, Floats]:
        """Filter `[C, CHUNK]` from a state `[C, D]`: output and the state after it."""
        values: NDArray[np.floating] = chunk
        for rows, left in zip(self._rows, self._left, strict=True):
            inputs = rows[..., : -self._size]
            inputs[:] = values.reshape(inputs.shape)
            values = inputs @ left
        before = state
        for rows, outputs in zip(reversed(self._rows), reversed(self._outputs), strict=True):
            states = rows[..., -self._size :]
            states[:] = before.reshape(states.shape)
            before = rows @ outputs
        return before.reshape(chunk.shape), values[:, 0] + state @ self._step


def _of_one_sample(sections: Floats) -> _Linear:
    """The filter over one sample: direct form II, transposed, as scipy's."""
    unit = np.eye(1 + 2 * len(sections))
    value, state = unit[:, 0], unit[:, 1:]
    after = np.empty_like(state)
    for section, (b0, b1, b2, _, a1, a2) in enumerate(sections):
        first, second = 2 * section, 2 * section + 1
        output = b0 * value + state[:, first]
        after[:, first] = b1 * value - a1 * output + state[:, second]
        after[:, second] = b2 * value - a2 * output
        value = output
    return _Linear(value[:, None], after)


def _of_states(part: _Linear) -> _Linear:
    """The recursion of states over parts: its inputs are the states that parts leave, its outputs those before each."""
    size = part.after.shape[1]
    unit = np.eye(size)
    return _Linear(np.concatenate([np.zeros((size, size)), unit]), np.concatenate([unit, part.after[-size:]]))


def _repeated(system: _Linear, count: int) -> _Linear:
    """The given system over `count` inputs, one after the other, as one system."""
    size = system.after.shape[1]
    width = len(system.after) - size
    unit = np.eye(count * width + size)
    state, outputs = unit[:, count * width :], []
    for start in range(0, count * width, width):
        row = np.concatenate([unit[:, start : start + width], state], axis=1)
        outputs.append(row @ system.outputs)
        state = row @ system.after
    return _Linear(np.concatenate(outputs, axis=1), state)
