"""Films with another sound track: what stays, where the sound is in time, and how it fails."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from audio_examples import ffmpeg, full_disk, needs_ffmpeg, noise, read, stored

from sdcodec_cli.audio import AudioReader, FilmWriter, Soundtrack, Wav, film_codec, is_film, written_together
from sdcodec_cli.audio.film import is_old_pyav
from sdcodec_cli.errors import InputError, OutputError, SdcError

from film_examples import FILM_RATE, chirp, film

SECONDS = 1.5


def packets(path: Path, *kinds: str) -> list[tuple[Any, ...]]:
    """Everything about the packets of streams of these kinds, times in seconds."""
    with av.open(str(path)) as container:
        return [
            (packet.stream.type, bytes(packet), packet.pts * packet.time_base, packet.is_keyframe)
            for packet in container.demux()
            if packet.stream.type in kinds and packet.pts is not None
        ]


def write(target: Path, wav: Wav, source: Path, *, rate: int = FILM_RATE, **options: Any) -> FilmWriter:
    writer = FilmWriter(target, rate, len(wav), film=source, **options)
    with written_together([writer]):
        for begin in range(0, wav.shape[1], 30_000):
            writer.write(wav[:, begin : begin + 30_000])
    return writer


def lag(wav: Wav, original: Wav) -> int:
    """Samples by which the first channel of one is later than that of the other."""
    size = 2 ** (wav.shape[1] + original.shape[1]).bit_length()
    product = np.fft.rfft(wav[0], size) * np.conj(np.fft.rfft(original[0], size))
    peak = int(np.argmax(np.fft.irfft(product, size)))
    return peak if peak < size // 2 else peak - size


def message(*arguments: Any, **options: Any) -> str:
    with pytest.raises(SdcError) as caught:
        write(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def mkv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    return film(folder / "a.mkv", [chirp(SECONDS), 0.1 * chirp(SECONDS)], codec="flac", picture_seconds=SECONDS)


@pytest.fixture(scope="module")
def mp4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    return film(folder / "a.mp4", [chirp(SECONDS)], picture_seconds=SECONDS, tags={"title": "Überfahrt"})


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mp4", "aac"), (".mp4", "opus"), (".mp4", "flac"), (".m4v", "alac"), (".mov", "aac"), (".mkv", "flac"),
     pytest.param(".mkv", "aac", marks=pytest.mark.skipif(is_old_pyav(), reason="late with PyAV before 17")),
     (".mkv", "opus")],
)  # fmt: skip
def test_the_picture_stays_and_the_sound_is_in_time_to_the_sample(
    suffix: str, codec: str, mp4: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wav = np.concatenate([chirp(SECONDS), noise(SECONDS, FILM_RATE)])
    writer = write(tmp_path / f"b{suffix}", wav, mp4, sound=Soundtrack(codec=codec))
    assert (writer.notes, writer.clipped) == ((), 0)
    assert packets(tmp_path / f"b{suffix}", "video") == packets(mp4, "video")
    with AudioReader(tmp_path / f"b{suffix}") as reader:
        assert (reader.info.subtype, reader.info.channels) == (codec, 2)
        assert reader.info.sample_rate == (48_000 if codec == "opus" else FILM_RATE)
        found = np.concatenate(list(reader.blocks()), axis=1)
    if codec in ("flac", "alac"):
        np.testing.assert_allclose(found, wav, atol=1 / 65_536 + 1e-6)
    elif codec == "aac":
        assert lag(found, wav) == 0
        assert lag(found[:, -20_000:], wav[:, found.shape[1] - 20_000 :]) == 0
    assert capfd.readouterr().err == ""


def test_sound_that_is_not_as_long_as_the_film_is_said(mp4: Path, mkv: Path, tmp_path: Path) -> None:
    silent = film(tmp_path / "silent.mp4", [], picture_seconds=SECONDS)
    for source, seconds, add in ((mp4, 2.5, False), (mkv, 0.9, False), (mkv, 2.5, True), (silent, 0.5, True)):
        writer = write(tmp_path / "b.mkv", chirp(seconds), source, sound=Soundtrack(add=add), overwrite=True)
        assert writer.notes == (
            f"the sound is {seconds} s long, and {source} 1.5 s; check that it was made of this film",
        )
    assert write(tmp_path / "b.mkv", chirp(1.2), mp4, overwrite=True).notes == ()


def test_what_a_film_says_of_itself_comes_along(mp4: Path, tmp_path: Path) -> None:
    write(tmp_path / "b.mkv", chirp(SECONDS), mp4)
    with av.open(str(tmp_path / "b.mkv")) as container:
        assert container.metadata["title"] == "Überfahrt"
        assert "major_brand" not in {key.lower() for key in container.metadata}


def test_another_track_can_be_replaced_and_the_first_one_stays(mkv: Path, tmp_path: Path) -> None:
    write(tmp_path / "b.mkv", -chirp(SECONDS), mkv, track=2, sound=Soundtrack(language="deu", title="Neu"))
    with av.open(str(tmp_path / "b.mkv")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio", "audio"]
        assert container.streams[2].metadata["title"] == "Neu"
        assert container.streams[2].metadata["language"] in ("deu", "ger")
    np.testing.assert_allclose(read(tmp_path / "b.mkv"), chirp(SECONDS), atol=1e-4)
    with AudioReader(tmp_path / "b.mkv", track=2) as reader:
        np.testing.assert_allclose(next(reader.blocks()), -chirp(SECONDS), atol=1e-4)


def test_a_track_can_be_added(mkv: Path, tmp_path: Path) -> None:
    write(tmp_path / "b.mkv", -chirp(SECONDS), mkv, sound=Soundtrack(add=True))
    assert packets(tmp_path / "b.mkv", "video") == packets(mkv, "video")
    with AudioReader(tmp_path / "b.mkv", track=3) as reader:
        np.testing.assert_allclose(next(reader.blocks()), -chirp(SECONDS), atol=1e-4)
    silent = film(tmp_path / "silent.mp4", [], picture_seconds=SECONDS)
    expected = f"{silent}: has no sound to replace; add a track to it instead, with --add-track"
    assert message(tmp_path / "c.mp4", chirp(SECONDS), silent) == expected
    write(tmp_path / "c.mp4", chirp(SECONDS), silent, sound=Soundtrack(add=True))
    assert lag(read(tmp_path / "c.mp4"), chirp(SECONDS)) == 0


@pytest.mark.parametrize("delay", [0.75, 2.5])
def test_a_track_that_starts_late_still_does(delay: float, tmp_path: Path) -> None:
    source = film(tmp_path / "a.mkv", [chirp(1.0)], codec="flac", delay=delay, picture_seconds=1.0)
    wav = read(source)
    write(tmp_path / "b.mp4", wav, source)
    assert lag(read(tmp_path / "b.mp4"), wav) == 0


@pytest.mark.skipif(not hasattr(av.container.OutputContainer, "set_chapters"), reason="PyAV before 14.1 cannot")
def test_chapters_come_along_also_of_a_film_that_begins_late(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        picture = container.add_stream("mpeg4", rate=25)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("flac", rate=8000)
        sound.layout = "mono"
        chapters = [
            {"id": number, "start": 1000 * start, "end": 1000 * start + 1000, "time_base": Fraction(1, 1000),
             "metadata": {"title": f"Part {number}"}}
            for number, start in enumerate((2, 3))
        ]  # fmt: skip
        container.set_chapters(chapters)
        for number in range(50, 75):
            image = av.VideoFrame.from_ndarray(np.full((72, 64), 128, np.uint8), format="yuv420p")
            image.pts, image.time_base = number, Fraction(1, 25)
            container.mux(picture.encode(image))
        frame = av.AudioFrame.from_ndarray(np.ones((1, 8000), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 8000, 16_000
        container.mux([*picture.encode(None), *sound.encode(frame), *sound.encode(None)])
    write(tmp_path / "b.mkv", np.zeros((1, 8000), np.float32), tmp_path / "a.mkv", rate=8000)
    with av.open(str(tmp_path / "b.mkv")) as container:
        found = [(float(entry["start"] * entry["time_base"]), entry["metadata"]) for entry in container.chapters()]
    assert found == [(0.0, {"title": "Part 0"}), (1.0, {"title": "Part 1"})]
    times = [packet[2] for packet in packets(tmp_path / "b.mkv", "video")]
    assert times == [packet[2] - 2 for packet in packets(tmp_path / "a.mkv", "video")]


def texts(path: Path) -> list[tuple[float, float, str]]:
    """Begin, length and text of each subtitle, without styles."""
    with av.open(str(path)) as container:
        stream: Any = container.streams.subtitles[0]
        return [
            (float(packet.pts * packet.time_base), float(packet.duration * packet.time_base), text)
            for packet in container.demux(stream)
            for found in [stream.codec_context.decode2(packet)]
            if found
            for text in [re.sub(r"\{[^}]*\}", "", found[0].dialogue.decode())]
        ]


@pytest.mark.skipif(is_old_pyav(), reason="PyAV before 17 writes no subtitles")
@needs_ffmpeg
@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "mov_text"), (".mkv", "srt")])
def test_subtitles_come_along_as_they_are_or_as_the_container_takes_them(
    suffix: str, codec: str, mp4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.srt").write_text(
        "1\n00:00:00,250 --> 00:00:01,000\ngrößer, <i>ja</i>\nund\n\n2\n00:00:01,100 --> 00:00:01,400\nEnde\n\n"
    )
    source = tmp_path / f"a{suffix}"
    ffmpeg("-i", mp4, "-i", tmp_path / "a.srt", "-c", "copy", "-c:s", codec, "-metadata:s:s:0", "language=fra", source)
    write(tmp_path / f"b{suffix}", chirp(SECONDS), source)
    for kind in ("video", "subtitle"):
        assert packets(tmp_path / f"b{suffix}", kind) == packets(source, kind)
    with av.open(str(tmp_path / f"b{suffix}")) as container:
        assert container.streams.subtitles[0].metadata["language"] in ("fra", "fre")
    other, container, other_codec = (".mkv", "matroska", "subrip") if suffix == ".mp4" else (".mp4", "mp4", "mov_text")
    writer = write(tmp_path / f"b{other}", chirp(SECONDS), source)
    assert writer.notes == (
        f"subtitles of {source} are {other_codec} now, not {codec}: the same text at the same times, in simpler styles",
    )
    assert texts(tmp_path / f"b{other}") == texts(source)
    assert [text for *_, text in texts(source)] == ["größer, ja\nund", "Ende"]
    with av.open(str(tmp_path / f"b{other}")) as film:
        assert film.streams.subtitles[0].metadata["language"] in ("fra", "fre")
    monkeypatch.setattr("sdcodec_cli.audio.film._is_text", lambda stream: False)  # pictures, or an older PyAV
    assert message(tmp_path / f"c{other}", chirp(SECONDS), source) == (
        f"{tmp_path / f'c{other}'}: {container} does not take the subtitles of {source} ({codec}); choose another "
        f"container with -o, such as c{suffix}"
    )


def test_six_channels_are_where_they_were(mp4: Path, tmp_path: Path) -> None:
    levels = np.linspace(0.05, 0.4, 6, dtype=np.float32)
    wav = levels[:, None] * np.sin(2 * np.pi * 50 * np.arange(FILM_RATE) / FILM_RATE, dtype=np.float32)
    for name, codec, mask in (("b.mkv", "flac", 0x60F), ("b.mp4", "aac", 0x3F)):  # surrounds beside, and behind
        write(tmp_path / name, wav, mp4, channel_mask=mask, sound=Soundtrack(codec=codec))
        with AudioReader(tmp_path / name) as reader:
            assert reader.info.channel_mask == 0x3F
            np.testing.assert_allclose(next(reader.blocks()).std(axis=1) * 2**0.5, levels, rtol=0.15)
    assert "write .wav instead" in message(tmp_path / "c.mkv", wav, mp4, channel_mask=0x3F << 4)


def test_samples_beyond_full_scale_are_limited_and_counted(mp4: Path, tmp_path: Path) -> None:
    wav = np.zeros((1, 8000), np.float32)
    wav[0, 100:110] = 2
    assert write(tmp_path / "b.mkv", wav, mp4).clipped == 10
    assert read(tmp_path / "b.mkv").max() <= 1


def test_bitrates_are_for_all_channels(mp4: Path, tmp_path: Path) -> None:
    sizes = []
    for bitrate in (32, 256):
        write(tmp_path / f"{bitrate}.mp4", noise(1.0, FILM_RATE), mp4, sound=Soundtrack(bitrate=bitrate))
        sizes.append((tmp_path / f"{bitrate}.mp4").stat().st_size)
    assert sizes[1] - sizes[0] > 0.5 * (256 - 32) * 1000 / 8
    assert message(tmp_path / "b.mp4", chirp(1.0), mp4, sound=Soundtrack(bitrate=900)) == (
        f"{tmp_path / 'b.mp4'}: aac takes 8 to 256 kbit/s for 1 channel(s), not 900; choose another --audio-bitrate"
    )


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("a.avi", {}, "a film cannot be .avi; use one of .mp4, .m4v, .mov, .mkv, .webm with -o, or leave out --film"),
        ("a", {}, "a film cannot be without a suffix; use one of"),
        ("a.webm", {"codec": "aac"}, ".webm takes no aac; choose --audio-codec opus, or name it a.mkv"),
        (
            "a.mkv",
            {"bitrate": 100},
            "flac is lossless and has no bitrate to choose; leave out --audio-bitrate, or choose --audio-codec aac",
        ),
    ],
)
def test_codings_that_do_not_go_into_a_container_are_refused(name: str, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(OutputError, match="^a.*: ") as caught:
        film_codec(name, Soundtrack(**options))
    assert expected in str(caught.value)
    assert not is_film("a.wav")
    assert is_film("A.MP4")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"codec": "mp3"}, "soundtrack.codec must be one of aac, opus, flac, alac, got 'mp3'"),
        ({"bitrate": 0}, "soundtrack.bitrate must be positive, got 0"),
        ({"language": "German"}, "soundtrack.language must have three small letters"),
    ],
)
def test_a_soundtrack_is_checked_when_it_is_made(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Soundtrack(**options)


def test_what_is_no_film_has_too_few_tracks_or_does_not_fit_is_refused_and_nothing_stays_behind(
    mkv: Path, mp4: Path, tmp_path: Path
) -> None:
    wav = stored(tmp_path / "a.wav", chirp(0.1))
    assert message(tmp_path / "b.mkv", chirp(0.1), wav).endswith("write the sound alone, as .wav, or name a film")
    (tmp_path / "a.txt").write_text("text")
    assert "has no picture" in message(tmp_path / "b.mkv", chirp(0.1), tmp_path / "a.txt")
    assert "no such file; check the name of the film" in message(tmp_path / "b.mkv", chirp(0.1), tmp_path / "none.mkv")
    assert "is not a file" in message(tmp_path / "b.mkv", chirp(0.1), tmp_path)
    assert "has 2 audio tracks, so there is no track 3" in message(tmp_path / "b.mkv", chirp(0.1), mkv, track=3)
    assert "webm does not take the picture" in message(tmp_path / "b.webm", chirp(0.1), mp4)
    with full_disk(20_000):
        assert "cannot be written" in message(tmp_path / "b.mkv", noise(1.5, FILM_RATE), mkv)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "a.wav"]


def test_an_exception_leaves_an_existing_film_as_it_was(mp4: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.mp4"
    target.write_bytes(b"before")
    assert message(target, chirp(0.1), mp4) == f"{target} exists; pass --force to overwrite it"
    writer = FilmWriter(target, FILM_RATE, 1, film=mp4, overwrite=True)

    def fail() -> None:
        with written_together([writer]):
            writer.write(chirp(0.5))
            raise InputError("damaged")

    with pytest.raises(InputError):
        fail()
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]
