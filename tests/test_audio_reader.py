"""What is read is what was written, whatever the container, and nothing is lost without a word."""

from __future__ import annotations

import io
import os
import struct
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_examples import CONTAINERS, RATE, ffmpeg, needs_ffmpeg, noise, read, stored

from sdcodec_cli.audio import AudioReader
from sdcodec_cli.errors import InputError


@pytest.mark.parametrize("name", [name for name in CONTAINERS if name != "l.mp3"])
def test_every_container_reads_as_libsndfile_reads_it_whole(name: str, tmp_path: Path) -> None:
    format, subtype = CONTAINERS[name]
    path = stored(tmp_path / name, noise(1.3, channels=2), format=format, subtype=subtype)
    expected = soundfile.read(path, dtype="float32", always_2d=True)[0].T
    with AudioReader(path) as reader:
        assert (reader.info.sample_rate, reader.info.channels) == (RATE, 2)
        assert (reader.info.format, reader.info.subtype) == (format, subtype)
        assert reader.info.num_samples == expected.shape[1]
        whole, pieces = [np.concatenate(list(reader.blocks(seconds)), axis=1) for seconds in (10.0, 0.17)]
    np.testing.assert_array_equal(whole, expected)
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
        path.write_bytes(b"Nobody expects this to be audio. " * 50)
        assert "not audio that sdc reads (wav, flac, mp3, m4a, mp4, mkv, ...); convert it first, e.g. ffmpeg -i " in (
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


def test_the_place_of_damage_is_told_as_far_as_it_is_known(tmp_path: Path) -> None:
    path = stored(tmp_path / "a.flac", noise(25.0))
    data = path.read_bytes()
    for share, where in ((0.2, "in the first 10 s"), (0.6, "between 10 s and 20 s")):
        begin = round(len(data) * share)
        path.write_bytes(data[:begin] + bytes(5_000) + data[begin + 5_000 :])
        assert message(path).startswith(f"is damaged or cut short {where}; ")
    path = stored(tmp_path / "a.wav", noise(4.0))
    path.write_bytes(path.read_bytes()[: 44 + 2 * RATE * 3])
    assert message(path).startswith("is damaged or cut short after 3.000 s; ")


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


def test_samples_beyond_all_reason_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(1000, 3e38, dtype=np.float32), RATE, subtype="FLOAT")
    assert message(tmp_path / "a.wav").startswith("has samples more than 200 dB beyond full scale; ")


def test_a_suggested_conversion_does_not_aim_at_its_own_source(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no audio " * 100)
    assert message(tmp_path / "a.wav").endswith(f"ffmpeg -i {tmp_path / 'a.wav'} a.converted.wav")
