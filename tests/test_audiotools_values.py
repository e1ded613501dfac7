"""The values in the file are what audiotools computes, wherever it is installed (extra `[audiotools]`)."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from safetensors.numpy import load_file

from audiotools_values import VALUES, compute


@pytest.mark.skipif(importlib.util.find_spec("audiotools") is None, reason="needs the extra [audiotools]")
@pytest.mark.filterwarnings("ignore")
def test_the_values_in_the_file_are_those_of_audiotools() -> None:
    stored = load_file(VALUES)
    computed = compute(stored["noise"].astype(np.float32))
    assert set(computed) == set(stored) - {"noise"}
    for name, value in computed.items():
        np.testing.assert_allclose(stored[name], value, atol=1e-5, rtol=1e-5)
