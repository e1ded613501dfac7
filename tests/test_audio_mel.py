"""The mel filter bank against librosa's."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from sdcodec_cli.audio.mel import mel_bank, mel_edges

from audiotools_values import VALUES


def test_the_mel_bank_is_librosas():
    np.testing.assert_allclose(mel_bank(256, 40, 16_000), load_file(VALUES)["mel bank"], atol=1e-8, rtol=1e-5)


@pytest.mark.parametrize("sample_rate", [1000, 16_000, 44_100])
def test_bands_are_spread_evenly_up_to_half_the_sample_rate_and_have_an_area_of_one(sample_rate):
    edges = mel_edges(20, sample_rate)
    assert edges[[0, -1]] == pytest.approx([0, sample_rate / 2])
    # On the linear part a mel is 200/3 Hz.
    low = edges[edges < 1000]
    np.testing.assert_allclose(np.diff(low), low[1], rtol=1e-9)
    bank = mel_bank(2**16, 20, sample_rate)
    np.testing.assert_allclose(bank.sum(0) * sample_rate / 2**16, 1, rtol=1e-3)
