"""Audio that is written comes back, in the format of its suffix."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_examples import RATE, noise, read, write

from sdcodec_cli.audio import AudioWriter
from sdcodec_cli.errors import OutputError


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
@pytest.mark.parametrize("hint", [True, False])
def test_sixteen_bit_audio_comes_back_bit_for_bit(name: str, hint: bool, tmp_path: Path) -> None:
    values = np.arange(-32768, 32768, dtype=np.int16).reshape(2, -1)
    write(tmp_path / name, values.astype(np.float32) / np.float32(32768), hint=hint)
    np.testing.assert_array_equal(soundfile.read(tmp_path / name, dtype="int16")[0].T, values)
    assert soundfile.info(tmp_path / name).format in ("WAV", "WAVEX", "FLAC")


def test_samples_are_rounded_to_the_nearest_step(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", np.array([[0.4, 0.6, -0.4, -0.6]], np.float32) / np.float32(32768))
    assert soundfile.read(tmp_path / "a.wav", dtype="int16")[0].tolist() == [0, 1, 0, -1]


@pytest.mark.parametrize(
    ("name", "rate"), [("a.ogg", 44_100), ("a.opus", 48_000), ("a.mp3", 44_100), ("A.FLAC", 11_025)]
)
def test_the_suffix_chooses_the_format(name: str, rate: int, tmp_path: Path) -> None:
    time = np.arange(rate * 2) / rate
    wav = 0.3 * np.stack([np.sin(2 * np.pi * 440 * time), np.sin(2 * np.pi * 660 * time)]).astype(np.float32)
    write(tmp_path / name, wav, rate)
    back = read(tmp_path / name)
    assert back.shape == wav.shape
    assert np.square(back - wav).mean() < 5e-3 * np.square(wav).mean()


def test_a_long_block_of_vorbis_does_not_exhaust_the_stack(tmp_path: Path) -> None:
    wav = noise(60.0, 44_100, channels=2)
    with AudioWriter(tmp_path / "a.ogg", 44_100, 2) as writer:
        writer.write(wav)
    assert soundfile.info(tmp_path / "a.ogg").frames == wav.shape[1]


def test_what_a_format_cannot_hold_is_refused_by_name(tmp_path: Path) -> None:
    refused = {
        "a.opus": (44_100, 1, r"Opus cannot hold 1 channel\(s\) at 44100 Hz \(it takes 8, 12, 16, 24 and 48 kHz\)"),
        "a.mp3": (96_000, 1, r"MP3 cannot hold 1 channel\(s\) at 96000 Hz; write \.wav or \.flac instead"),
        "b.mp3": (48_000, 6, r"MP3 cannot hold 6 channel"),
        "a.flac": (48_000, 9, r"FLAC cannot hold 9 channel"),
    }
    for name, (rate, channels, expected) in refused.items():
        with pytest.raises(OutputError, match=expected):
            write(tmp_path / name, noise(0.1, rate, channels), rate)
    for name in ("a.m4a", "a"):
        with pytest.raises(OutputError, match=r"cannot write .*; use one of \.wav, \.flac, \.ogg, \.opus, \.mp3"):
            write(tmp_path / name, noise(0.1))
    assert list(tmp_path.iterdir()) == []


def test_samples_beyond_full_scale_are_limited_and_counted(tmp_path: Path) -> None:
    wav = np.array([[0.5, 1.0, 1.01, -1.0, -3.0, 0.0]], np.float32)
    for name in ("a.wav", "a.ogg"):
        assert write(tmp_path / name, wav).clipped == 2
    assert soundfile.read(tmp_path / "a.wav", dtype="int16")[0].tolist() == [16384, 32767, 32767, -32768, -32768, 0]


def test_a_wav_without_announced_length_is_a_plain_wav_with_room_for_rf64(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", noise(0.5), hint=False)
    data = (tmp_path / "a.wav").read_bytes()
    assert data[:4] == b"RIFF"
    assert data[12:16] == b"JUNK"
    assert struct.unpack("<I", data[4:8])[0] == len(data) - 8
    assert soundfile.info(tmp_path / "a.wav").format == "WAVEX"  # libsndfile writes RF64 as WAVE_FORMAT_EXTENSIBLE
    assert read(tmp_path / "a.wav").shape == (1, 8000)


def test_a_wav_announced_to_pass_4_gib_is_rf64(tmp_path: Path) -> None:
    with AudioWriter(tmp_path / "a.wav", RATE, 1, num_samples=2**31) as writer:
        writer.write(noise(0.5))
    assert soundfile.info(tmp_path / "a.wav").format == "RF64"


def test_more_samples_than_announced_is_a_wrong_call(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="more samples than the 10 announced"),
        AudioWriter(tmp_path / "a.wav", RATE, 1, num_samples=10) as writer,
    ):
        writer.write(noise(0.1))
    assert list(tmp_path.iterdir()) == []
