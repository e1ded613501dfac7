"""Where a domain can be heard is the same for what trains and for what is evaluated."""

from __future__ import annotations

import numpy as np
import torch

from sdcodec_cli.audio.heard import heard
from sdcodec_cli.nn.objectives.terms import heard_frames


def levels(*decibels: float) -> np.ndarray:
    """Frames of alternating sign at these levels, `[F, 4]`."""
    amplitude = 10 ** (np.array(decibels) / 20)
    return (amplitude[:, None] * [1, -1, 1, -1]).astype(np.float32)


def test_a_frame_is_heard_above_60_dbfs_and_within_40_db_of_the_mixture():
    frames = np.stack([levels(-59, -61, -39, -41, -80), levels(-200, -200, 0, 0, -79)])
    assert heard(frames).tolist() == [[True, False, True, False, False], [False, False, True, True, False]]


def test_tensors_and_arrays_are_treated_alike():
    rng = np.random.default_rng(0)
    frames = (rng.standard_normal((2, 3, 50, 320)) * 10 ** rng.uniform(-5, 0, (2, 3, 50, 1))).astype(np.float32)
    found = heard(frames)
    assert 0.1 < found.mean() < 0.9
    assert np.array_equal(heard(torch.from_numpy(frames)).numpy(), found)
    assert np.array_equal(heard_frames(torch.from_numpy(frames).flatten(-2), 320).numpy(), found)
