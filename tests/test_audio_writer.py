"""Audio that is written comes back, in the format of its suffix."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_examples import RATE, full_disk, noise, read, write

from sdcodec_cli.audio import AudioReader, AudioWriter, FormatName, WriteOptions, writer, written_together
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
        "a.mp3": (96_000, 3, r"MP3 cannot hold 3 channel\(s\) at 48000 Hz; write \.wav or \.flac instead"),
        "b.mp3": (48_000, 6, r"MP3 cannot hold 6 channel"),
        "a.flac": (48_000, 9, r"FLAC cannot hold 9 channel"),
    }
    for name, (rate, channels, expected) in refused.items():
        with pytest.raises(OutputError, match=expected):
            write(tmp_path / name, noise(0.1, rate, channels), rate)
    for name in ("a.wma", "a"):
        known = r"\.wav, \.flac, \.ogg, \.opus, \.mp3, \.m4a"
        with pytest.raises(OutputError, match=rf"cannot write .*; use one of {known}$"):
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


@pytest.mark.parametrize("name", ["wav-24", "flac-24"])
def test_24_bit_audio_comes_back_bit_for_bit(name: FormatName, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-(2**23), 2**23, (2, 4000)).astype(np.int32)
    values[:, :2] = [[-(2**23), 2**23 - 1]] * 2
    wav = values.astype(np.float32) / np.float32(2**23)
    target = tmp_path / f"a.{name.partition('-')[0]}"
    write(target, wav, options=WriteOptions(format=name))
    assert soundfile.info(target).subtype == "PCM_24"
    np.testing.assert_array_equal(soundfile.read(target, dtype="int32")[0].T >> 8, values)
    np.testing.assert_array_equal(read(target), wav)


@pytest.mark.parametrize("hint", [True, False])
@pytest.mark.parametrize("channels", [1, 6])
def test_floats_keep_what_is_beyond_full_scale_and_the_same_audio_is_the_same_file(
    hint: bool, channels: int, tmp_path: Path
) -> None:
    wav = noise(0.2, channels=channels, level=1.0)
    made = write(tmp_path / "a.wav", wav, hint=hint, options=WriteOptions(format="wav-float"))
    assert (made.clipped, made.peak) == (0, np.abs(wav).max())
    np.testing.assert_array_equal(read(tmp_path / "a.wav"), wav)
    data = (tmp_path / "a.wav").read_bytes()
    assert data[:4] == b"RIFF"
    assert struct.unpack("<I", data[data.index(b"data") + 4 :][:4])[0] == wav.nbytes
    # In the chunk of peaks, which RF64 has not, libsndfile puts the time of writing behind its version.
    place = data.find(b"PEAK")
    assert (place > 0) == hint
    assert not hint or data[place + 12 :][:4] == bytes(4)


@pytest.mark.parametrize(
    ("name", "rate", "expected"),
    [("a.opus", 44_100, 48_000), ("a.opus", 11_025, 12_000), ("a.opus", 96_000, 48_000), ("a.mp3", 96_000, 48_000)],
)
def test_a_rate_that_a_format_does_not_take_becomes_the_next_higher_one(
    name: str, rate: int, expected: int, tmp_path: Path
) -> None:
    length = rate // 2 + 1
    wav = (0.3 * np.sin(2 * np.pi * 440 * np.arange(length) / rate)).astype(np.float32)
    made = write(tmp_path / name, wav[None], rate)
    label = {"opus": "Opus", "mp3": "MP3"}[name[2:]]
    assert made.notes == (f"written at {expected} Hz, because {label} does not take {rate}",)
    back = read(tmp_path / name)[0]
    assert len(back) == -(-length * expected // rate)
    again = 0.3 * np.sin(2 * np.pi * 440 * np.arange(len(back)) / expected)
    middle = slice(expected // 10, -expected // 10)
    assert np.square(back - again)[middle].mean() < 5e-3 * np.square(again).mean()
    assert write(tmp_path / f"b{name[1:]}", wav[None], 48_000).notes == ()


def test_outputs_are_rescaled_alike_where_one_of_them_goes_beyond_full_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "HELD_SAMPLES", 1000)
    loud, soft = noise(0.3, level=1.0), noise(0.3, level=0.1, seed=1)
    options = WriteOptions(rescale=True)
    writers = [AudioWriter(tmp_path / name, RATE, 1, write=options) for name in ("loud.wav", "soft.wav")]
    with written_together(writers):
        for each, wav in zip(writers, (loud, soft), strict=True):
            for begin in range(0, wav.shape[1], 700):
                each.write(wav[:, begin : begin + 700])
    scale = 1 / np.abs(loud).max()
    assert [each.scale for each in writers] == pytest.approx([scale, scale], rel=1e-6)
    assert [each.clipped for each in writers] == [0, 0]
    for name, wav in (("loud.wav", loud), ("soft.wav", soft)):
        assert np.abs(read(tmp_path / name) - scale * wav).max() <= 2**-15
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loud.wav", "soft.wav"]


def test_what_stays_within_full_scale_is_not_rescaled(tmp_path: Path) -> None:
    wav = noise(0.3)
    assert write(tmp_path / "a.wav", wav, options=WriteOptions(rescale=True)).scale == 1
    write(tmp_path / "b.wav", wav)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_nothing_is_left_of_audio_that_was_held_back_where_the_disk_is_full(tmp_path: Path) -> None:
    with full_disk(10_000), pytest.raises(OutputError, match=r"a\.wav: cannot be written: .*; free some space"):
        write(tmp_path / "a.wav", noise(1.0), options=WriteOptions(rescale=True))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.opus"])
@pytest.mark.parametrize("num_samples", [16_000, None])
def test_tags_are_written(tmp_path: Path, name: str, num_samples: int | None) -> None:
    """Those of WAV stand behind the samples; a text that looks like a chunk does no harm."""
    tags = {"title": "Tïtle", "artist": "data fmt ", "comment": "x" * 1000, "tracknumber": "3"}
    wav = np.full((2, 16_000), 0.25, dtype=np.float32)
    given = {**tags, "mood": "unknown to files"}
    with AudioWriter(tmp_path / name, 16_000, 2, num_samples=num_samples, tags=given) as made:
        made.write(wav)
    with AudioReader(tmp_path / name) as reader:
        assert {key: text for key, text in reader.info.tags.items() if text} == tags
        assert sum(block.shape[1] for block in reader.blocks()) == 16_000
