"""Films, and whatever else FFmpeg decodes: whole, in time, the right track, and one line where that cannot be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from audio_examples import ffmpeg, needs_ffmpeg, noise, read, stored

from sdcodec_cli.audio import LIBSNDFILE_SUFFIXES, READ_SUFFIXES, AudioReader
from sdcodec_cli.errors import InputError

from film_examples import FILM_RATE, MUXERS, RATES, chirp, decoded_by_ffmpeg, film

WITHOUT_ENCODER = {".dts": ("dts", "dca"), ".ape": ("ape", "ape")}


def delay_of(wav: np.ndarray, original: np.ndarray) -> int:
    """Samples by which one signal is later than another, from the peak of their correlation."""
    size = 2 ** (len(wav) + len(original)).bit_length()
    product = np.fft.rfft(wav, size) * np.conj(np.fft.rfft(original, size))
    peak = int(np.argmax(np.fft.irfft(product, size)))
    return peak if peak < size // 2 else peak - size


def message(source: Path, track: int = 1) -> str:
    with pytest.raises(InputError) as caught, AudioReader(source, track=track) as reader:
        for _ in reader.blocks():
            pass
    text = str(caught.value)
    assert text.startswith(f"{source}: ")
    assert "\n" not in text
    return text.removeprefix(f"{source}: ")


def test_every_suffix_that_is_read_has_a_test() -> None:
    assert MUXERS.keys() | WITHOUT_ENCODER.keys() == READ_SUFFIXES


@pytest.mark.parametrize("suffix", sorted(MUXERS))
def test_a_file_of_every_suffix_reads_as_ffmpeg_and_libsndfile_decode_it(
    suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    format, codec = MUXERS[suffix]
    rate = RATES.get(codec, FILM_RATE)
    how = {"rf64": "always"} if suffix == ".rf64" else {}
    path = film(tmp_path / f"a{suffix}", [chirp(2.0, rate)], format=format, codec=codec, rate=rate, options=how)
    found = read(path)
    # A tenth of a second is more than any coder puts before or behind the sound.
    assert 2.0 - 0.01 <= found.shape[1] / rate < 2.1
    assert abs(delay_of(found[0], chirp(2.0, rate)[0])) < 0.05 * rate
    expected = decoded_by_ffmpeg(path)
    if suffix in (".mp4", ".m4a", ".m4v", ".3gp", ".3g2"):  # FFmpeg leaves what the encoder filled the last frame with
        assert found.shape[1] == 2 * rate < expected.shape[1]
        expected = expected[:, : 2 * rate]
    # Silence takes the place of what a clock says is late.
    silence = found.shape[1] - expected.shape[1]
    assert 0 <= silence < 0.1 * rate
    np.testing.assert_allclose(found[:, silence:], expected, atol=1e-4)
    assert not found[:, :silence].any()
    if suffix in LIBSNDFILE_SUFFIXES - {".oga"}:  # libsndfile takes no FLAC in Ogg
        np.testing.assert_allclose(found, soundfile.read(path, dtype="float32", always_2d=True)[0].T, atol=1e-4)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", WITHOUT_ENCODER)
def test_codings_that_cannot_be_written_have_a_decoder(suffix: str) -> None:
    format, codec = WITHOUT_ENCODER[suffix]
    assert av.ContainerFormat(format, "r").is_input
    assert av.Codec(codec, "r").is_decoder


@needs_ffmpeg
def test_a_dts_file_is_read(tmp_path: Path) -> None:
    source = stored(tmp_path / "a.wav", chirp(2.0), FILM_RATE)
    ffmpeg("-i", source, "-strict", "-2", "-c:a", "dca", tmp_path / "a.dts")
    assert abs(delay_of(read(tmp_path / "a.dts")[0], chirp(2.0)[0])) < 0.05 * FILM_RATE


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".mov"])
def test_a_track_that_starts_late_starts_late(suffix: str, tmp_path: Path) -> None:
    format, codec = MUXERS[suffix]
    for delay in (0.0, 0.75):
        path = film(
            tmp_path / f"{delay}{suffix}", [chirp(2.0)], format=format, codec=codec, delay=delay, picture_seconds=3.0
        )
        # An MPEG transport stream does not say what an AAC encoder put before the beginning, 1024 samples: they are
        # heard, and begin before the picture where the track is not late.
        lead = 1024 if suffix == ".ts" and not delay else 0
        found = read(path)
        assert delay_of(found[0], chirp(2.0)[0]) == pytest.approx(delay * FILM_RATE + lead, abs=0.001 * FILM_RATE)
        if delay:
            assert not found[0, : round(0.7 * FILM_RATE)].any()
        with AudioReader(path) as reader:
            assert len(list(reader.blocks())) == 1
            assert reader.notes == ()


@needs_ffmpeg
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".wmv"])
def test_films_are_as_long_and_as_late_as_ffmpeg_makes_them(suffix: str, tmp_path: Path) -> None:
    format, codec = MUXERS[suffix]
    path = film(tmp_path / f"a{suffix}", [chirp(2.0)], format=format, codec=codec, delay=0.5, picture_seconds=3.0)
    raw = ffmpeg("-i", path, "-af", "aresample=async=1:first_pts=0", "-f", "f32le", "-ac", "1", "-", stdin=b"")
    expected = np.frombuffer(raw, np.float32)
    found = read(path)[0]
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_hole_in_a_track_is_silence(tmp_path: Path) -> None:
    wav = noise(3.0, FILM_RATE)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=FILM_RATE)
        stream.layout = "mono"
        for second in (0, 2):
            part = (wav[:, second * FILM_RATE : (second + 1) * FILM_RATE] * 32768).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
            frame.sample_rate, frame.pts = FILM_RATE, second * FILM_RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with AudioReader(tmp_path / "a.mkv") as reader:
        found = np.concatenate(list(reader.blocks()), axis=1)
        assert reader.notes == ("1.0 s are missing in the middle of the track, and are silence",)
    wav[:, FILM_RATE : 2 * FILM_RATE] = 0
    np.testing.assert_allclose(found, wav, atol=2 / 32768)


def test_tracks_are_counted_from_one_and_one_that_is_not_there_says_how_many_there_are(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", [chirp(1.0), -0.5 * chirp(1.0)], codec="flac", picture_seconds=1.0)
    for track, factor in ((1, 1.0), (2, -0.5)):
        with AudioReader(path, track=track) as reader:
            np.testing.assert_allclose(next(reader.blocks()), factor * chirp(1.0), atol=1e-4)
    assert message(path, 3) == "has 2 audio tracks, so there is no track 3; choose another with --track"
    for single in (stored(tmp_path / "a.wav", chirp(1.0)), film(tmp_path / "a.m4a", [chirp(1.0)])):
        assert message(single, 2) == "has only one audio track, so there is no track 2; leave out --track"
    with pytest.raises(ValueError, match="track must be at least 1, got 0"):
        AudioReader(path, track=0)


def test_title_and_artist_of_a_film_are_read(tmp_path: Path) -> None:
    tags = {"title": "Überfahrt", "artist": "Trio", "encoder": "x"}
    with AudioReader(film(tmp_path / "a.m4a", [chirp(1.0)], tags=tags)) as reader:
        assert reader.info.tags == {"title": "Überfahrt", "artist": "Trio"}
        assert reader.info.seconds == pytest.approx(1.0, abs=0.05)


def test_a_film_without_sound_says_so(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", [], picture_seconds=1.0)
    assert message(path) == "has no sound, only pictures; name a file with an audio track"


def test_a_picture_and_a_list_of_other_files_are_not_audio(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert message(tmp_path / "a.png") == "is a picture, not audio; name a file with sound"
    film(tmp_path / "a.ts", [chirp(1.0)], format="mpegts")
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{tmp_path / 'a.ts'}\n#EXT-X-ENDLIST\n"
    for name, text in (("a.m3u8", playlist), ("a.txt", f"ffconcat version 1.0\nfile {tmp_path / 'a.ts'}\n")):
        (tmp_path / name).write_text(text)
        assert message(tmp_path / name).startswith("not audio that sdc reads")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".wma", ".flv", ".wv", ".tta", ".mp3", ".ogv", ".m4b"])
def test_a_film_that_is_cut_in_half_is_refused(suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    format, codec = MUXERS[suffix]
    path = film(tmp_path / f"a{suffix}", [noise(5.0, FILM_RATE)], format=format, codec=codec)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert message(path).startswith("is damaged or cut short")
    assert capfd.readouterr().err == ""


def test_a_recording_may_begin_and_end_in_the_middle_of_a_frame_but_not_be_damaged_between(tmp_path: Path) -> None:
    path = film(tmp_path / "a.ts", [noise(5.0, FILM_RATE)], picture_seconds=5.0)
    data = path.read_bytes()
    path.write_bytes(data[10_000:-700])
    assert read(path).shape[1] / FILM_RATE == pytest.approx(4.5, abs=0.5)
    path.write_bytes(data[:60_000] + bytes(5_000) + data[65_000:])
    assert message(path).startswith("is damaged or cut short after ")


def test_recordings_in_a_row_are_read_to_the_last(tmp_path: Path) -> None:
    parts = [film(tmp_path / f"{n}.ts", [wav], delay=late) for n, (wav, late) in
             enumerate([(chirp(2.0), 0.0), (chirp(2.0), 0.0), (chirp(2.0), 500.0)])]  # fmt: skip
    for chosen in ((0, 1), (0, 2), (2, 0)):  # a clock that goes back, or ahead by minutes
        path = joined(*(parts[n].read_bytes() for n in chosen), path=tmp_path / "joined.ts")
        assert read(path).shape[1] / FILM_RATE == pytest.approx(4.1, abs=0.1)


def test_a_clock_that_jumps_by_hours_does_not_become_hours_of_silence(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        for begin in (0, 8000 * 3700):
            frame = av.AudioFrame.from_ndarray(np.ones((1, 8000), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 8000, begin
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert message(tmp_path / "a.mkv").startswith("is damaged or cut short after 1.000 s, where its clock jumps; ")


def test_a_film_that_begins_with_its_index_is_refused_when_cut(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", [noise(5.0, FILM_RATE)], options={"movflags": "faststart"})
    assert read(path).shape[1] >= 5 * FILM_RATE
    path.write_bytes(path.read_bytes()[:-1000])
    assert message(path).startswith("is damaged or cut short;")


def test_a_coding_that_nobody_knows_is_not_called_damage(tmp_path: Path) -> None:
    path = film(tmp_path / "a.m4a", [chirp(1.0)], codec="alac")
    path.write_bytes(path.read_bytes().replace(b"alac", b"zzzz"))
    assert message(path).startswith("its coding is not one that sdc reads; convert it first, e.g. ffmpeg -i ")


def test_codings_that_libsndfile_does_not_know_are_read_from_its_containers(tmp_path: Path) -> None:
    for name, format, codec in (("a.caf", "caf", "alac"), ("a.wav", "wav", "ac3"), ("a.ogg", "ogg", "flac")):
        path = film(tmp_path / name, [chirp(1.0)], format=format, codec=codec)
        assert abs(delay_of(read(path)[0], chirp(1.0)[0])) < 0.05 * FILM_RATE


@needs_ffmpeg
def test_an_encrypted_film_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, key = stored(tmp_path / "a.wav", chirp(1.0), FILM_RATE), "76a6c65c5ea762046bd749a2e632ccbb"
    ffmpeg("-i", source, *f"-encryption_scheme cenc-aes-ctr -encryption_key {key} -encryption_kid {key}".split(),
           tmp_path / "a.mp4")  # fmt: skip
    assert message(tmp_path / "a.mp4") == "is encrypted, so sdc cannot read it; get a copy without protection"
    assert capfd.readouterr().err == ""


def joined(*parts: bytes, path: Path) -> Path:
    path.write_bytes(b"".join(parts))
    return path


def tag(size: int) -> bytes:
    """An ID3v2 tag with a picture of noise."""
    picture = b"\0image/jpeg\0\3\0" + np.random.default_rng(0).bytes(size)
    frame = b"APIC" + len(picture).to_bytes(4, "big") + b"\0\0" + picture
    return b"ID3\3\0\0" + bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0)) + frame


def test_whatever_lies_before_the_first_frame_of_an_mp3_is_passed_over(tmp_path: Path) -> None:
    plain = film(tmp_path / "plain.mp3", [chirp(2.0)], codec="libmp3lame", options={"id3v2_version": "0"})
    frames, expected = plain.read_bytes(), read(plain)
    assert frames[0] == 0xFF
    assert expected.shape[1] == 2 * FILM_RATE
    for number, before in enumerate(
        [tag(10), tag(10) + b"\0", tag(10) + tag(1_500_000), tag(10) + bytes(5000) + tag(9)]
    ):
        path = joined(before, frames, path=tmp_path / f"{number}.mp3")
        np.testing.assert_array_equal(read(path), expected)


def test_mp3_streams_in_a_row_are_read_to_the_last(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = film(tmp_path / "a.mp3", [chirp(2.0)], codec="libmp3lame").read_bytes()
    found = read(joined(whole, whole, path=tmp_path / "joined.mp3"))
    assert found.shape[1] == pytest.approx(4 * FILM_RATE, abs=3 * 1152)
    assert delay_of(found[0, 3 * FILM_RATE :], chirp(2.0)[0, FILM_RATE:]) == pytest.approx(0, abs=3 * 1152)
    assert capfd.readouterr().err == ""


def test_a_track_that_changes_its_sample_rate_is_refused(tmp_path: Path) -> None:
    parts = [
        film(tmp_path / f"{rate}.aac", [chirp(1.0, rate)], format="adts", rate=rate).read_bytes()
        for rate in (44_100, 22_050)
    ]
    path = joined(*parts, path=tmp_path / "a.aac")
    assert message(path).startswith("changes its sample rate or its channels after 1.0")


@pytest.mark.parametrize(
    ("name", "codec", "layout"),
    [("a.mov", "pcm_s16le", "7.1"), ("a.m4a", "aac", "7.1"), ("a.mkv", "flac", "7.1"), ("b.mov", "pcm_s16le", "5.1")],
)
def test_many_channels_are_read_in_the_order_of_wav(name: str, codec: str, layout: str, tmp_path: Path) -> None:
    channels = {"7.1": 8, "5.1": 6}[layout]
    # Each channel has its own level; an LFE carries low tones only.
    levels = np.linspace(0.05, 0.4, channels, dtype=np.float32)
    time = np.arange(FILM_RATE) / FILM_RATE
    wav = (levels[:, None] * np.sin(2 * np.pi * 50 * time)).astype(np.float32)
    path = film(tmp_path / name, [wav], codec=codec, layout=layout)
    # In a process of its own: PyAV ends the whole program if it is not held back.
    code = (
        "import sys; from sdcodec_cli.audio import AudioReader\n"
        "with AudioReader(sys.argv[1]) as reader:\n"
        "  block = next(reader.blocks())\n"
        "  print(reader.info.channel_mask, *(block.std(axis=1) * 2 ** 0.5))"
    )
    result = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    mask, *found = map(float, result.stdout.split())
    assert mask == {"7.1": 0x63F, "5.1": 0x3F}[layout]
    np.testing.assert_allclose(found, levels, rtol=0.15)


def test_ffmpeg_is_loaded_for_what_needs_it_only(tmp_path: Path) -> None:
    stored(tmp_path / "a.wav", noise(0.1))
    code = (
        "import sys; from sdcodec_cli.audio import AudioReader\n"
        "with AudioReader(sys.argv[1]) as reader: list(reader.blocks())\n"
        "assert 'av' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.wav"], check=True)
