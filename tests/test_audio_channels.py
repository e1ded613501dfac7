"""Channels keep what they are for, whatever the order of a format, and are mixed down as FFmpeg mixes a film."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from audio_examples import ffmpeg, needs_ffmpeg, noise, read

from sdcodec_cli.audio import AudioReader, AudioWriter, Wav, downmix, loudness_weights
from sdcodec_cli.errors import OutputError

from film_examples import film

RATE = 48_000
MASKS = {3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x70F, 8: 0x63F}
"""Of 3.0, 4.0, 5.0, 5.1, 6.1 and 7.1 (Vorbis I, 4.3.9)."""


def marked(channels: int) -> Wav:
    """A low tone in one channel after the other, which an LFE carries, too: `[C, T]`."""
    wav = np.zeros((channels, channels * 9600), np.float32)
    for channel in range(channels):
        wav[channel, channel * 9600 : (channel + 1) * 9600] = 0.5 * np.sin(2 * np.pi * 60 / RATE * np.arange(9600))
    return wav


def order(wav: Wav) -> list[int]:
    """When each channel is loudest."""
    wav = np.pad(wav, ((0, 0), (0, 9600)))  # FFmpeg leaves out the end of a Vorbis stream
    power = np.square(wav[:, : len(wav) * 9600]).reshape(len(wav), len(wav), 9600)[..., 2000:-2000].sum(axis=-1)
    return [int(index) for index in power.argmax(axis=1)]


def written(path: Path, wav: Wav, mask: int | None, *, hint: bool = True) -> Path:
    length = wav.shape[1] if hint else None
    with AudioWriter(path, RATE, len(wav), num_samples=length, channel_mask=mask) as writer:
        writer.write(wav)
    return path


@pytest.mark.parametrize("channels", MASKS)
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".opus"])
def test_channels_come_back_in_their_order_and_as_what_they_are(suffix: str, channels: int, tmp_path: Path) -> None:
    path = written(tmp_path / f"a{suffix}", marked(channels), MASKS[channels])
    with AudioReader(path) as reader:
        assert reader.info.channel_mask == MASKS[channels]
    assert order(read(path)) == list(range(channels))
    # FFmpeg brings the channels of every format into WAV's order.
    with av.open(str(path)) as container:
        pieces = []
        for frame in container.decode(audio=0):
            if channels == 8 and frame.format.is_planar:
                (frame,) = av.AudioResampler("flt", frame.layout, frame.sample_rate).resample(frame)
            values = frame.to_ndarray().astype(np.float64)
            pieces.append(values if len(values) == channels else values.reshape(-1, channels).T)
        names = [channel.name for channel in frame.layout.channels]
    assert order(np.concatenate(pieces, axis=1)) == list(range(channels))
    if suffix == ".wav":
        assert len(names) == channels
        assert "NONE" not in names


@pytest.mark.parametrize("hint", [True, False])
@pytest.mark.parametrize(("channels", "mask"), [(6, 0x3F), (6, 0x60F), (8, 0x63F), (4, 0x107), (6, None)])
def test_a_wav_of_many_channels_states_what_they_are_for(
    channels: int, mask: int | None, hint: bool, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.wav", noise(0.1, RATE, channels), mask, hint=hint)
    data = path.read_bytes()
    fmt = data.index(b"fmt ") + 8
    assert struct.unpack_from("<H", data, fmt)[0] == 0xFFFE  # WAVE_FORMAT_EXTENSIBLE
    assert struct.unpack_from("<I", data, fmt + 20)[0] == (mask or 0)
    with AudioReader(path) as reader:
        assert reader.info.channel_mask == mask


def test_one_and_two_channels_stay_a_plain_wav(tmp_path: Path) -> None:
    for channels in (1, 2):
        data = written(tmp_path / f"{channels}.wav", noise(0.1, RATE, channels), None).read_bytes()
        assert struct.unpack_from("<H", data, data.index(b"fmt ") + 8)[0] == 1  # WAVE_FORMAT_PCM


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.opus"])
def test_a_format_that_cannot_say_what_channels_are_for_is_refused(name: str, tmp_path: Path) -> None:
    what = "FLAC" if name == "a.flac" else "Ogg"
    with pytest.raises(OutputError, match=rf"{what} cannot say that its channels are FL FR FC BC \(4\.0\); write"):
        written(tmp_path / name, noise(0.1, RATE, 4), 0x107)
    written(tmp_path / name, noise(0.1, RATE, 6), 0x60F)  # a pair of surrounds, at the side instead of behind


@needs_ffmpeg
def test_a_flac_file_that_states_its_layout_is_believed(tmp_path: Path) -> None:
    source = written(tmp_path / "a.wav", noise(0.5, RATE, 4), 0x107)
    ffmpeg("-i", source, tmp_path / "a.flac")
    with AudioReader(tmp_path / "a.flac") as reader:
        assert reader.info.channel_mask == 0x107


def test_channels_of_a_plain_wav_are_not_guessed_at(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(0.5, channels=6).T, RATE)
    with AudioReader(tmp_path / "a.wav") as reader:
        assert reader.info.channel_mask is None


# Down-mix


@pytest.mark.parametrize(
    ("role", "db"),
    # FFmpeg's matrix for stereo is 1, √½ and √½ over their sum of 1 + 2 √½; the mean of both sides follows.
    [(0, -6.02 - 7.66), (2, -3.01 - 7.66), (3, -math.inf), (4, -6.02 - 3.01 - 7.66)],
)
def test_each_channel_of_5_1_is_as_loud_as_in_a_films_down_mix(role: int, db: float) -> None:
    wav = np.zeros((6, 10), np.float32)
    wav[role] = 1
    with np.errstate(divide="ignore"):
        assert 20 * np.log10(downmix(wav, 0x3F)[0, 0]) == pytest.approx(db, abs=0.01)


@needs_ffmpeg
@pytest.mark.parametrize("channels", [4, 5, 6, 8])
def test_the_down_mix_is_the_mean_of_what_ffmpeg_makes_stereo(channels: int, tmp_path: Path) -> None:
    wav = noise(0.5, RATE, channels)
    path = written(tmp_path / "a.wav", wav, MASKS[channels])
    raw = ffmpeg("-i", path, "-ac", "2", "-f", "s16le", "-", stdin=b"")
    expected = np.frombuffer(raw, np.int16).reshape(-1, 2).mean(axis=1) / 32768
    np.testing.assert_allclose(downmix(wav, MASKS[channels])[0], expected, atol=1e-4)


@pytest.mark.parametrize("mask", [*MASKS.values(), 0x107, 0xB, 0x2D63F])
def test_no_down_mix_clips(mask: int) -> None:
    wav = np.ones((mask.bit_count(), 1), np.float32)
    assert downmix(wav, mask)[0, 0] == pytest.approx(1, abs=1e-6)


def test_channels_of_unknown_use_and_stereo_are_averaged() -> None:
    wav = np.arange(6, dtype=np.float32)[:, None]
    assert downmix(wav).tolist() == [[2.5]]
    assert downmix(wav[:2], 0x3).tolist() == [[0.5]]


def test_surrounds_weigh_more_in_loudness_and_the_lfe_nothing() -> None:
    assert loudness_weights(0x3F, 6) == [1, 1, 1, 0, 1.41, 1.41]
    # BS.1770-4, table 4: within 60° to 120° only.
    assert loudness_weights(0x63F, 8) == [1, 1, 1, 0, 1, 1, 1.41, 1.41]
    assert loudness_weights(0x33, 4) == [1, 1, 1.41, 1.41]
    assert loudness_weights(None, 6) == [1] * 6


def test_a_film_of_six_channels_is_read_as_what_they_are(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", [marked(6)], codec="ac3", rate=RATE, layout="5.1(side)")
    with AudioReader(path) as reader:
        assert reader.info.channel_mask == 0x60F
    assert order(read(path)) == list(range(6))
