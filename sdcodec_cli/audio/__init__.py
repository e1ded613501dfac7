"""Read, write, resample and measure audio in blocks, so that memory does not grow with the length of a file.

Everything here works on numpy arrays and needs no torch.
"""

from .loudness import SILENCE, LoudnessMeter, integrated_loudness, k_weighting
from .output import atomic_output, check_target, is_special, refuse_terminal
from .reader import READ_SUFFIXES, UNKNOWN_FRAMES, AudioInfo, AudioReader, read_mono
from .wav import StreamResampler, Wav, downmix
from .writer import AudioWriter, audio_format

__all__ = [
    "READ_SUFFIXES",
    "SILENCE",
    "UNKNOWN_FRAMES",
    "AudioInfo",
    "AudioReader",
    "AudioWriter",
    "LoudnessMeter",
    "StreamResampler",
    "Wav",
    "atomic_output",
    "audio_format",
    "check_target",
    "downmix",
    "integrated_loudness",
    "is_special",
    "k_weighting",
    "read_mono",
    "refuse_terminal",
]
