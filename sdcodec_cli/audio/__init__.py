"""Read, write, resample and measure audio in blocks, so that memory does not grow with the length of a file.

Everything here works on numpy arrays and needs no torch.
"""

from .channels import MASK_TAG, downmix, layout_name, loudness_weights, parse_mask
from .cover import Cover
from .decibels import amplitude_to_db, db_to_amplitude, db_to_power
from .film import FILM_SUFFIXES, FilmWriter, Soundtrack, check_film, film_codec, is_film
from .formats import WITH_BITRATE, FormatName, WriteOptions, audio_format
from .libsndfile import UNKNOWN_FRAMES, SequentialFile
from .live import LiveReader
from .loudness import LUFS_OFFSET, SILENCE, LoudnessMeter, integrated_loudness, k_weighting
from .output import atomic_output, check_name, check_target, is_special, refuse_terminal
from .reader import LIBSNDFILE_SUFFIXES, READ_SUFFIXES, AudioReader, read_mono
from .source import AudioInfo, Source
from .wav import RatesResampler, StreamResampler, Wav, resampled, to_16_bit
from .writer import AudioWriter, written_together

__all__ = [
    "FILM_SUFFIXES",
    "LIBSNDFILE_SUFFIXES",
    "LUFS_OFFSET",
    "MASK_TAG",
    "READ_SUFFIXES",
    "SILENCE",
    "UNKNOWN_FRAMES",
    "WITH_BITRATE",
    "AudioInfo",
    "AudioReader",
    "AudioWriter",
    "Cover",
    "FilmWriter",
    "FormatName",
    "LiveReader",
    "LoudnessMeter",
    "RatesResampler",
    "SequentialFile",
    "Soundtrack",
    "Source",
    "StreamResampler",
    "Wav",
    "WriteOptions",
    "amplitude_to_db",
    "atomic_output",
    "audio_format",
    "check_film",
    "check_name",
    "check_target",
    "db_to_amplitude",
    "db_to_power",
    "downmix",
    "film_codec",
    "integrated_loudness",
    "is_film",
    "is_special",
    "k_weighting",
    "layout_name",
    "loudness_weights",
    "parse_mask",
    "read_mono",
    "refuse_terminal",
    "resampled",
    "to_16_bit",
    "written_together",
]
