"""Sound in .m4a: exactly as long as it came, and no later."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from audio_examples import full_disk, noise, read, write

from sdcodec_cli.audio import AudioReader, AudioWriter, WriteOptions, audio_format
from sdcodec_cli.errors import OutputError

from film_examples import chirp, film


def shift_of(wav: np.ndarray, original: np.ndarray) -> int:
    """Samples by which one signal is later than another, from the peak of their correlation."""
    product = np.correlate(wav, original, mode="full")
    return int(np.argmax(product)) - len(original) + 1


@pytest.mark.parametrize(
    ("rate", "length", "channels"),
    [(16_000, 8001, 1), (44_100, 10_240, 2), (8000, 5000, 2), (48_000, 9000, 6), (96_000, 1, 1), (22_050, 1023, 1)],
)
def test_aac_is_as_long_as_the_sound_and_not_late(rate: int, length: int, channels: int, tmp_path: Path) -> None:
    wav = np.concatenate([chirp(length / rate, rate) * (1 - 0.1 * channel) for channel in range(channels)])
    assert write(tmp_path / "a.m4a", wav, rate).notes == ()
    back = read(tmp_path / "a.m4a", 0.1)
    assert back.shape == wav.shape
    if length > 2000:
        assert [shift_of(back[channel], wav[channel]) for channel in {0, channels - 1}] == [0] * len({0, channels - 1})
    with AudioReader(tmp_path / "a.m4a") as reader:
        assert (reader.info.sample_rate, reader.info.subtype) == (rate, "aac")
    with av.open(str(tmp_path / "a.m4a")) as container:
        stream = container.streams.audio[0]
        assert (stream.start_time, stream.duration, stream.time_base.denominator) == (0, length, rate)
        assert container.metadata["major_brand"] == "M4A "


def test_alac_comes_back_bit_for_bit(tmp_path: Path) -> None:
    values = np.arange(-32768, 32768, 5, dtype=np.int16)[: 2 * 5001].reshape(2, -1)
    wav = values.astype(np.float32) / np.float32(32768)
    write(tmp_path / "a.m4a", wav, 12_345, options=WriteOptions(format="m4a-alac"))
    np.testing.assert_array_equal(read(tmp_path / "a.m4a"), wav)


def test_aac_has_the_bitrate_in_the_mean(tmp_path: Path) -> None:
    for wanted in (32, 96):
        write(tmp_path / f"{wanted}.m4a", noise(2.0, 44_100), 44_100, options=WriteOptions(bitrate=wanted))
        bitrate = (tmp_path / f"{wanted}.m4a").stat().st_size * 8 / 1000 / 2.0
        assert bitrate == pytest.approx(wanted, rel=0.25)


def test_a_rate_that_aac_lacks_becomes_the_next_higher_one(tmp_path: Path) -> None:
    made = write(tmp_path / "a.m4a", noise(0.1, 12_345), 12_345)
    assert made.notes == ("written at 16000 Hz, because AAC does not take 12345",)
    assert read(tmp_path / "a.m4a").shape == (1, -(-1234 * 16_000 // 12_345))


def test_what_m4a_cannot_hold_is_refused(tmp_path: Path) -> None:
    alac = WriteOptions(format="m4a-alac")
    for channels, options, message in (
        (9, None, r"AAC cannot hold 9 channel\(s\) at 16000 Hz; write \.wav or \.flac instead"),
        (8, alac, r"ALAC cannot hold 8 channel\(s\) at 16000 Hz"),
        (1, WriteOptions(bitrate=97), r"AAC of 1 channel\(s\) at 16000 Hz takes 8 to 96 kbit/s, not 97"),
    ):
        with pytest.raises(OutputError, match=rf"a\.m4a: {message}"):
            write(tmp_path / "a.m4a", noise(0.1, channels=channels), options=options)
    with (
        pytest.raises(OutputError, match=r"a\.m4a: AAC cannot hold 2 channel"),
        AudioWriter(tmp_path / "a.m4a", 16_000, 2, channel_mask=0x5),
    ):
        pass
    with pytest.raises(OutputError, match=r"^a\.wav: would hold ALAC; name it a\.m4a$"):
        audio_format("a.wav", alac)
    with pytest.raises(OutputError, match=r"a\.m4a: cannot be written: .*; free some space"), full_disk(5000):
        write(tmp_path / "a.m4a", noise(2.0))
    with (
        pytest.raises(ValueError, match="more samples than the 10 announced"),
        AudioWriter(tmp_path / "a.m4a", 16_000, 1, num_samples=10) as writer,
    ):
        writer.write(noise(0.1))
    assert list(tmp_path.iterdir()) == []


def test_the_sound_of_a_film_is_as_long_as_ffmpeg_makes_it(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", [chirp(0.5)], picture_seconds=1.0)
    assert read(path).shape[1] == -(-22_050 // 1024) * 1024
