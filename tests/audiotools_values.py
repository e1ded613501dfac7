"""Values that descript-audiotools computes, and the script that writes them down: python tests/audiotools_values.py

The package cannot be installed beside others that we need (it pins protobuf), so tests read the file. Made with
descript-audiotools 0.7.2.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

DATA = Path(__file__).parent / "data"
VALUES = DATA / "audiotools.safetensors"
SIGNALS = ("published", "noise", "quiet", "silent estimate")
SAMPLE_RATES = (16_000, 44_100)


def signals(noise: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """An estimate and a reference of each kind, all made from the noise `[2, 1, T]` in the file."""
    published = load_file(DATA / "official_metrics.io.safetensors")
    return {
        "published": (published["est"], published["ref"]),
        "noise": (noise[:1], noise[1:]),
        "quiet": (1e-4 * noise[:1], 1e-4 * noise[1:]),
        "silent estimate": (np.zeros_like(noise[:1]), noise[1:]),
    }


def compute(noise: np.ndarray) -> dict[str, np.ndarray]:
    """What audiotools makes of the noise; needs the extra `[audiotools]`."""
    warnings.simplefilter("ignore")
    import librosa
    import torch
    from audiotools import AudioSignal, STFTParams
    from audiotools.metrics.spectral import MelSpectrogramLoss, MultiScaleSTFTLoss

    # DAC's settings (arXiv:2306.06546).
    scales = MelSpectrogramLoss(
        n_mels=[5, 10, 20, 40, 80, 160, 320],
        window_lengths=[32, 64, 128, 256, 512, 1024, 2048],
        mel_fmin=[0.0] * 7,
        mel_fmax=[None] * 7,
        mag_weight=0.0,
        pow=1.0,
        clamp_eps=1e-5,
    )
    values = {
        "seven mel scales": scales(*(AudioSignal(torch.from_numpy(wav), 16_000) for wav in (noise[:1], noise[1:])))
    }
    for kind, pair in signals(noise).items():
        for sample_rate in SAMPLE_RATES:
            estimate, reference = (AudioSignal(torch.from_numpy(wav), sample_rate) for wav in pair)
            values[f"mel {kind} {sample_rate}"] = MelSpectrogramLoss()(estimate, reference)
            values[f"stft {kind} {sample_rate}"] = MultiScaleSTFTLoss()(estimate, reference)
    params = STFTParams(window_length=512, hop_length=128, match_stride=True)
    spectrum = (
        AudioSignal(torch.from_numpy(noise[:, :, :5001]), 16_000, stft_params=params).stft()[:, 0].transpose(1, 2)
    )
    values["spectrum"] = torch.view_as_real(spectrum).contiguous()
    # Slaney's mel scale and norm are librosa's defaults, and audiotools'.
    values["mel bank"] = torch.from_numpy(librosa.filters.mel(sr=16_000, n_fft=256, n_mels=40)).T.contiguous()
    return {name: value.detach().numpy() for name, value in values.items()}


if __name__ == "__main__":
    # In 16 bits, exactly as the file holds it.
    import torch

    made = (0.1 * torch.randn(2, 1, 16_000, generator=torch.Generator().manual_seed(0))).half().numpy()
    save_file({"noise": made, **compute(made.astype(np.float32))}, VALUES)
