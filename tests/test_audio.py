"""Audio in and out: what is read is what was written, whatever the container, and nothing is lost without a word."""

from __future__ import annotations

import io
import math
import os
import resource
import shutil
import signal
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyloudnorm
import pytest
import soundfile
import soxr

from sdcodec_cli.audio import (
    AudioReader,
    AudioWriter,
    LoudnessMeter,
    StreamResampler,
    Wav,
    atomic_output,
    downmix,
)
from sdcodec_cli.errors import InputError, OutputError

RATE = 16_000

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


def noise(seconds: float, rate: int = RATE, channels: int = 1, *, level: float = 0.1, seed: int = 0) -> Wav:
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal((channels, round(seconds * rate)))).astype(np.float32)


def read(source: str | Path, seconds: float = 10.0, *, start: float = 0.0, duration: float | None = None) -> Wav:
    with AudioReader(source) as reader:
        empty = np.zeros((reader.info.channels, 0), np.float32)
        blocks = list(reader.blocks(seconds, start=start, duration=duration))
        return np.concatenate([empty, *blocks], axis=1)


def stored(path: Path, wav: Wav, rate: int = RATE, **how: str) -> Path:
    soundfile.write(path, wav.T, rate, **how)
    return path


def ffmpeg(*arguments: str | Path, stdin: bytes | None = None) -> bytes:
    command = ["ffmpeg", "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, input=stdin, check=True, capture_output=True).stdout


# Reading


CONTAINERS = {
    "a.wav": ("WAV", "PCM_16"),
    "b.wav": ("WAV", "PCM_24"),
    "c.wav": ("WAV", "PCM_U8"),
    "d.wav": ("WAV", "FLOAT"),
    "e.wav": ("WAV", "DOUBLE"),
    "f.wav": ("WAV", "IMA_ADPCM"),
    "g.w64": ("W64", "PCM_16"),
    "h.rf64": ("RF64", "PCM_16"),
    "i.flac": ("FLAC", "PCM_24"),
    "j.ogg": ("OGG", "VORBIS"),
    "k.opus": ("OGG", "OPUS"),
    "l.mp3": ("MP3", "MPEG_LAYER_III"),
    "m.aiff": ("AIFF", "PCM_16"),
    "n.au": ("AU", "PCM_16"),
    "o.caf": ("CAF", "ALAC_16"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_reads_as_libsndfile_reads_it_whole(name: str, tmp_path: Path) -> None:
    format, subtype = CONTAINERS[name]
    path = stored(tmp_path / name, noise(1.3, channels=2), format=format, subtype=subtype)
    expected = soundfile.read(path, dtype="float32", always_2d=True)[0].T
    with AudioReader(path) as reader:
        assert (reader.info.sample_rate, reader.info.channels) == (RATE, 2)
        assert (reader.info.format, reader.info.subtype) == (format, subtype)
        assert reader.info.num_samples == expected.shape[1]
        whole, pieces = [np.concatenate(list(reader.blocks(seconds)), axis=1) for seconds in (10.0, 0.17)]
    # Fed through a pipe, mpg123 rounds the last bit differently.
    np.testing.assert_allclose(whole, expected, atol=1e-7 if format == "MP3" else 0, rtol=0)
    np.testing.assert_array_equal(pieces, whole)


@pytest.mark.parametrize("name", ["a.wav", "f.wav", "i.flac", "j.ogg", "k.opus", "l.mp3", "o.caf"])
def test_an_excerpt_equals_the_same_part_of_the_whole(name: str, tmp_path: Path) -> None:
    format, subtype = CONTAINERS[name]
    path = stored(tmp_path / name, noise(2.0), format=format, subtype=subtype)
    whole = read(path)
    np.testing.assert_array_equal(read(path, 0.3, start=0.5, duration=1.0), whole[:, 8_000:24_000])
    np.testing.assert_array_equal(read(path, 0.3, start=1.5), whole[:, 24_000:])
    assert read(path, duration=0.0).shape == (1, 0)


def test_an_excerpt_that_begins_after_the_end_is_refused(tmp_path: Path) -> None:
    for name in ("a.wav", "a.mp3"):
        with pytest.raises(InputError, match=r"ends at 1\.0\d\d s, so nothing starts at 5\.000 s"):
            read(stored(tmp_path / name, noise(1.0)), start=5.0)


def test_blocks_are_no_longer_than_asked_and_memory_stays_bounded_for_absurd_headers(tmp_path: Path) -> None:
    with AudioReader(stored(tmp_path / "a.wav", noise(1.0))) as reader:
        assert [block.shape[1] for block in reader.blocks(0.4)] == [6400, 6400, 3200]
    fast = stored(tmp_path / "b.wav", noise(1.0), rate=2_000_000_000)
    with AudioReader(fast) as reader:
        assert sum(block.shape[1] for block in reader.blocks(10.0)) == RATE


def test_title_and_artist_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        file.title, file.artist = "Überfahrt", "Trio"
        file.write(noise(0.1)[0])
    with AudioReader(path) as reader:
        assert reader.info.tags == {"title": "Überfahrt", "artist": "Trio"}


def test_standard_input_and_pipes_can_be_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(tmp_path / "a.wav", noise(0.5))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with path.open("rb") as file:
        monkeypatch.setattr(sys, "stdin", open(file.fileno(), closefd=False))  # noqa: SIM115
        with AudioReader("-") as reader:
            assert reader.info.name == "stdin"
            first, second = [np.concatenate(list(reader.blocks()), axis=1) for _ in range(2)]
    np.testing.assert_array_equal(first, read(path))
    np.testing.assert_array_equal(second, first)

    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(path.read_bytes()))
    writer.start()
    np.testing.assert_array_equal(read(fifo), first)
    writer.join()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "fifo"]


def test_a_terminal_as_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    with pytest.raises(InputError, match="refusing to read audio from the terminal; pipe it in or name a file"):
        read("-")


@needs_ffmpeg
@pytest.mark.parametrize(("muxer", "codec"), [("wav", "pcm_s16le"), ("flac", "flac"), ("au", "pcm_s16be")])
def test_files_written_into_a_pipe_without_a_length_are_read_whole(muxer: str, codec: str, tmp_path: Path) -> None:
    path = stored(tmp_path / "a.wav", noise(1.0))
    (tmp_path / "piped").write_bytes(ffmpeg("-i", path, "-f", muxer, "-c:a", codec, "-", stdin=b""))
    np.testing.assert_array_equal(read(tmp_path / "piped"), read(path))


@needs_ffmpeg
def test_an_mp3_of_variable_bitrate_that_does_not_state_its_length_is_read_whole(tmp_path: Path) -> None:
    # libsndfile estimates 3 s of these 10 from the first frame, and would stop there.
    wav = noise(10.0, 48_000, level=0.01)
    wav[:, :24_000] = noise(0.5, 48_000)
    source, path = stored(tmp_path / "a.wav", wav, 48_000), tmp_path / "a.mp3"
    ffmpeg("-i", source, "-q:a", "4", "-write_xing", "0", "-metadata", "title=Long", path)
    assert soundfile.info(path).frames < 8 * 48_000
    with AudioReader(path) as reader:
        assert reader.info.num_samples is None
        assert reader.info.tags["title"] == "Long"
        assert sum(block.shape[1] for block in reader.blocks()) == pytest.approx(480_000, abs=2 * 1152)


def test_an_mp3_with_a_large_picture_in_front_is_read(tmp_path: Path) -> None:
    plain = stored(tmp_path / "plain.mp3", noise(0.5))
    frame = b"APIC" + struct.pack(">I", 500_000) + bytes(500_002)
    size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    tagged = tmp_path / "tagged.mp3"
    tagged.write_bytes(b"ID3\x03\0\0" + size + frame + plain.read_bytes())
    np.testing.assert_array_equal(read(tagged), read(plain))


def message(source: str | Path) -> str:
    with pytest.raises(InputError) as caught:
        read(source)
    text = str(caught.value)
    assert text.startswith(f"{source}: ")
    assert "\n" not in text
    return text.removeprefix(f"{source}: ")


def test_what_is_missing_empty_or_a_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    assert message(tmp_path / "none.wav") == "no such file; check the name"
    assert message(tmp_path / "empty.wav") == "is empty (0 bytes); nothing to read"
    assert message(tmp_path) == "is a folder; name a file in it"
    for name in ("zero.wav", "zero.aiff"):
        assert message(stored(tmp_path / name, noise(0))) == "contains no samples; nothing to do"


@needs_ffmpeg
def test_a_wav_that_its_recorder_never_finished_says_how_to_repair_it(tmp_path: Path) -> None:
    path = stored(tmp_path / "a.wav", noise(1.0))
    data = path.read_bytes()
    path.write_bytes(data[:4] + bytes(4) + data[8:40] + bytes(4) + data[44:])
    command = message(path).partition("repair it first: ")[2]
    repaired = tmp_path / "repaired.wav"
    ffmpeg(*command.split()[1:-1], "-c:a", "copy", repaired)
    np.testing.assert_array_equal(read(repaired)[0], soundfile.read(io.BytesIO(data), dtype="float32")[0])


def test_what_is_not_audio_says_how_to_convert_it(tmp_path: Path) -> None:
    for name in ("my talk.m4a", "junk.wav", "headerless.raw", "notes.txt"):
        path = tmp_path / name
        path.write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0isom" * 50)
        assert "not audio that sdc reads (wav, flac, ogg, opus, mp3, aiff, ...); convert it first, e.g. ffmpeg -i " in (
            text := message(path)
        )
        assert text.endswith(".wav") or text.endswith(".wav'")
    (tmp_path / "a.sdc").write_bytes(b"\x89SDC\r\n\x1a\n" + bytes(50))
    assert message(tmp_path / "a.sdc") == "is a .sdc file, not audio; turn it into audio with sdc decode"


@pytest.mark.parametrize("name", [n for n in CONTAINERS if n != "f.wav"])
@pytest.mark.parametrize("share", [0.6, 0.02])
def test_a_file_that_is_cut_short_is_refused(
    name: str, share: float, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    format, subtype = CONTAINERS[name]
    path = stored(tmp_path / name, noise(4.0), format=format, subtype=subtype)
    path.write_bytes(path.read_bytes()[: round(path.stat().st_size * share)])
    text = message(path)
    assert text.startswith("is damaged or cut short")
    assert text.endswith(f"to use what is left: ffmpeg -i {path} {path.stem}.repaired.wav")


@pytest.mark.parametrize("name", ["i.flac", "j.ogg", "k.opus", "l.mp3"])
def test_a_file_with_a_hole_in_the_middle_is_refused(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    format, subtype = CONTAINERS[name]
    path = stored(tmp_path / name, noise(20.0), format=format, subtype=subtype)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + data[len(data) // 2 + 30_000 :])
    assert message(path).startswith("is damaged or cut short")


def test_ogg_streams_in_a_row_are_refused_because_only_the_first_would_be_read(tmp_path: Path) -> None:
    path = stored(tmp_path / "a.ogg", noise(1.0))
    chained = tmp_path / "chained.ogg"
    chained.write_bytes(path.read_bytes() * 2)
    assert "several Ogg streams in a row" in message(chained)


def test_samples_that_are_not_numbers_are_refused_with_their_place(tmp_path: Path) -> None:
    for value in (np.nan, np.inf):
        wav = noise(1.0, channels=2)
        wav[1, 12_000] = value
        path = stored(tmp_path / "a.wav", wav, subtype="FLOAT")
        assert message(path).startswith("has samples that are not numbers (NaN or infinite), the first at 0.750 s;")


def test_a_file_without_permission_says_so(tmp_path: Path) -> None:
    path = stored(tmp_path / "a.wav", noise(0.1))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root may read everything")
    assert message(path).startswith("cannot be read: Permission denied")


def test_downmixing_takes_the_mean(tmp_path: Path) -> None:
    wav = noise(0.1, channels=3)
    np.testing.assert_allclose(downmix(wav), wav.mean(axis=0, keepdims=True), atol=1e-7)
    assert downmix(wav[:1]) is not None
    np.testing.assert_array_equal(downmix(wav[:1]), wav[:1])


# Resampling


@pytest.mark.parametrize(
    ("in_rate", "out_rate"), [(44_100, 16_000), (16_000, 48_000), (8_000, 16_000), (96_000, 16_000)]
)
@pytest.mark.parametrize("sizes", [(1,) * 50, (0, 7, 0, 1000, 1), (100_000,)])
def test_resampling_in_pieces_equals_resampling_at_once(in_rate: int, out_rate: int, sizes: tuple[int, ...]) -> None:
    wav = noise(0.5, in_rate, channels=2)
    resampler = StreamResampler(in_rate, out_rate, 2)
    pieces, position = [], 0
    for size in (*sizes, wav.shape[1]):
        pieces.append(resampler.push(wav[:, position : position + size]))
        position += size
    result = np.concatenate([*pieces, resampler.flush()], axis=1)
    np.testing.assert_array_equal(result, soxr.resample(np.ascontiguousarray(wav.T), in_rate, out_rate).T)
    assert result.shape[1] == pytest.approx(0.5 * out_rate, abs=1)


def test_equal_rates_pass_audio_through_untouched() -> None:
    resampler, wav = StreamResampler(RATE, RATE, 1), noise(0.1)
    np.testing.assert_array_equal(resampler.push(wav), wav)
    assert resampler.flush().shape == (1, 0)


def test_a_resampler_that_got_nothing_returns_nothing() -> None:
    resampler = StreamResampler(44_100, RATE, 2)
    assert resampler.push(np.zeros((2, 0), np.float32)).shape == (2, 0)
    assert resampler.flush().shape == (2, 0)


# Loudness


def loudness(wav: Wav, rate: int, size: int) -> float:
    meter = LoudnessMeter(rate, len(wav))
    for begin in range(0, wav.shape[1], size):
        meter.push(wav[:, begin : begin + size])
    return meter.integrated()


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("seconds", [0.4, 0.449, 0.451, 1.0, 3.337])
@pytest.mark.parametrize("size", [997, 10**9])
def test_loudness_equals_that_of_pyloudnorm(rate: int, seconds: float, size: int) -> None:
    wav = noise(seconds, rate, channels=2)
    expected = pyloudnorm.Meter(rate).integrated_loudness(wav.T.astype(np.float64))
    assert loudness(wav, rate, size) == pytest.approx(expected, abs=0.01)


def test_gated_material_is_measured_as_pyloudnorm_measures_it() -> None:
    # Loud, 20 dB softer (the relative gate drops it), nearly silent (the absolute gate drops it), and loud again.
    parts = [
        noise(s, level=level, seed=n) for n, (s, level) in enumerate([(2, 0.1), (5, 0.01), (4, 1e-5), (1.33, 0.2)])
    ]
    wav = np.concatenate(parts, axis=1)
    expected = pyloudnorm.Meter(RATE).integrated_loudness(wav[0].astype(np.float64))
    assert loudness(wav, RATE, 12_345) == pytest.approx(expected, abs=0.01)
    ungated = 10 * math.log10(np.mean(np.square(wav)))
    assert expected > ungated + 2  # the gates matter here


def test_five_channels_are_weighted_as_pyloudnorm_weights_them() -> None:
    wav = noise(1.0, channels=5)
    expected = pyloudnorm.Meter(RATE).integrated_loudness(wav.T.astype(np.float64))
    assert loudness(wav, RATE, 4000) == pytest.approx(expected, abs=0.01)
    doubled = np.concatenate([wav[:2], wav[:2], wav[:2], wav[:2]])
    assert math.isfinite(loudness(doubled, RATE, 4000))


def test_a_sine_at_48_khz_has_the_loudness_the_standard_gives_it() -> None:
    # BS.1770-4, Annex 1: 997 Hz at 0 dBFS in one front channel reads -3.01 LKFS; pyloudnorm's design is 0.04 LU lower.
    wav = np.sin(2 * np.pi * 997 * np.arange(48_000 * 2) / 48_000).astype(np.float32)[None]
    assert loudness(wav, 48_000, 48_000) == pytest.approx(-3.01, abs=0.06)


def test_silence_and_nothing_are_minus_infinity() -> None:
    assert loudness(np.zeros((1, RATE), np.float32), RATE, 1000) == -math.inf
    assert loudness(noise(1.0, level=1e-6), RATE, 1000) == -math.inf
    assert loudness(np.zeros((1, 100), np.float32), RATE, 1000) == -math.inf
    assert LoudnessMeter(RATE).integrated() == -math.inf


def test_what_is_quieter_than_the_absolute_gate_is_measured_ungated() -> None:
    assert loudness(noise(1.0, level=1e-4), RATE, 1000) == pytest.approx(loudness(noise(1.0), RATE, 1000) - 60, abs=0.1)


@pytest.mark.parametrize("rate", [60, 1600, 2000, 3000])
def test_weighting_is_stable_at_any_sample_rate(rate: int) -> None:
    wav = noise(30.0, rate)
    assert loudness(wav, rate, 1000) == pytest.approx(10 * math.log10(np.mean(np.square(wav))) - 0.691, abs=3)


def test_less_than_a_gating_block_is_measured_ungated() -> None:
    assert loudness(noise(0.3), RATE, 1000) == pytest.approx(loudness(noise(3.0), RATE, 1000), abs=0.5)


# Writing


def write(target: Path | str, wav: Wav, rate: int = RATE, *, overwrite: bool = False, hint: bool = True) -> AudioWriter:
    num_samples = wav.shape[1] if hint else None
    with AudioWriter(target, rate, len(wav), overwrite=overwrite, num_samples=num_samples) as writer:
        for begin in range(0, wav.shape[1], 5_000):
            writer.write(wav[:, begin : begin + 5_000])
    return writer


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


def write_audio(target: Path, overwrite: bool) -> None:
    write(target, noise(0.5), overwrite=overwrite)


def write_bytes(target: Path, overwrite: bool) -> None:
    with atomic_output(target, overwrite=overwrite) as file:
        file.write(b"data")


Write = Callable[[Path, bool], None]
both = pytest.mark.parametrize("put", [write_audio, write_bytes])


@both
def test_an_existing_output_is_replaced_only_on_demand(put: Write, tmp_path: Path) -> None:
    target = tmp_path / "a.wav"
    target.write_bytes(b"precious")
    target.chmod(0o600)
    with pytest.raises(OutputError, match=r"a\.wav exists; pass --force to overwrite it"):
        put(target, False)
    assert target.read_bytes() == b"precious"
    put(target, True)
    assert target.read_bytes() != b"precious"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


@both
def test_a_new_output_gets_the_usual_permissions(put: Write, tmp_path: Path) -> None:
    put(tmp_path / "a.wav", False)
    (tmp_path / "usual").touch()
    assert (tmp_path / "a.wav").stat().st_mode == (tmp_path / "usual").stat().st_mode


@both
def test_a_link_stays_a_link(put: Write, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/real.wav").touch()
    (tmp_path / "a.wav").symlink_to(tmp_path / "folder/real.wav")
    put(tmp_path / "a.wav", True)
    assert (tmp_path / "a.wav").is_symlink()
    assert (tmp_path / "folder/real.wav").stat().st_size > 0


@both
def test_places_that_cannot_be_written_are_refused(put: Write, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"there is no folder .*none; create it first"):
        put(tmp_path / "none/a.wav", False)
    with pytest.raises(OutputError, match="is a folder; name a file in it"):
        put(tmp_path, True)
    with pytest.raises(OutputError, match="File name too long"):
        put(tmp_path / ("a" * 300 + ".wav"), False)
    if not os.access("/proc/self", os.W_OK):
        with pytest.raises(OutputError, match=r"cannot be written|not writable"):
            put(Path("/proc/self/a.wav"), False)
    assert list(tmp_path.iterdir()) == []


@both
def test_devices_are_written_to_and_not_replaced(put: Write, tmp_path: Path) -> None:
    put(Path("/dev/null"), False)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(OutputError, match=r"/dev/full: cannot be written: No space left on device; free some space"):
        put(Path("/dev/full"), False)


def interrupted_audio(target: Path, interruption: type[BaseException]) -> None:
    with AudioWriter(target, RATE, 1) as writer:
        writer.write(noise(0.5))
        raise interruption


def interrupted_bytes(target: Path, interruption: type[BaseException]) -> None:
    with atomic_output(target, overwrite=True) as file:
        file.write(b"half")
        raise interruption


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.sdc"])
def test_an_interruption_leaves_nothing_behind(name: str, interruption: type[BaseException], tmp_path: Path) -> None:
    put = interrupted_bytes if name == "a.sdc" else interrupted_audio
    with pytest.raises(interruption):
        put(tmp_path / name, interruption)
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_an_existing_file_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.sdc").write_bytes(b"precious")
    with pytest.raises(KeyboardInterrupt):
        interrupted_bytes(tmp_path / "a.sdc", KeyboardInterrupt)
    assert (tmp_path / "a.sdc").read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.opus", "a.mp3", "a.sdc"])
@pytest.mark.parametrize("limit", [30, 5_000])
def test_a_full_disk_is_reported_and_leaves_nothing_behind(name: str, limit: int, tmp_path: Path) -> None:
    def put() -> None:
        if name == "a.sdc":
            with atomic_output(tmp_path / name, overwrite=False) as file:
                file.write(bytes(10_000))
        else:
            write(tmp_path / name, noise(4.0))

    # A limit on the size of files fails as a full disk does, with another text.
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OutputError, match=rf"{name}: cannot be written: File too large; free some space"):
            put()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def run(code: str, **how: object) -> subprocess.CompletedProcess[bytes]:
    prelude = "import numpy as np; from sdcodec_cli.audio import *; wav = np.zeros((1, 200_000), np.float32)\n"
    return subprocess.run([sys.executable, "-c", prelude + code], capture_output=True, timeout=30, **how)  # type: ignore[call-overload,no-any-return]


def test_standard_output_takes_audio_and_bytes(tmp_path: Path) -> None:
    result = run("with AudioWriter('-', 16000, 1, num_samples=200_000) as w: w.write(wav)")
    assert result.stderr == b""
    (tmp_path / "a.wav").write_bytes(result.stdout)
    assert read(tmp_path / "a.wav").shape == (1, 200_000)
    result = run("with atomic_output('-', overwrite=False) as f: f.write(b'abc')")
    assert (result.stdout, result.stderr) == (b"abc", b"")


def test_a_terminal_as_output_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    expected = r"refusing to write binary data to the terminal; redirect it \(> file\) or pass -o FILE"
    with pytest.raises(OutputError, match=expected):
        write("-", noise(0.1))
    with pytest.raises(OutputError, match=expected), atomic_output("-", overwrite=False):
        pass


def test_samples_beyond_all_reason_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(1000, 3e38, dtype=np.float32), RATE, subtype="FLOAT")
    assert message(tmp_path / "a.wav").startswith("has samples more than 200 dB beyond full scale; ")


def test_a_suggested_conversion_does_not_aim_at_its_own_source(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no audio " * 100)
    assert message(tmp_path / "a.wav").endswith(f"ffmpeg -i {tmp_path / 'a.wav'} a.converted.wav")
