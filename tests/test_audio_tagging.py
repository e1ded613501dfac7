"""Tags and covers in the audio files that are written, as other programs read them."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from audio_examples import full_disk, noise, read
from cover_examples import jpeg, picture, png

from sdcodec_cli.audio import AudioReader, AudioWriter, Cover
from sdcodec_cli.audio.cover import find_cover
from sdcodec_cli.audio.writer import TAGS
from sdcodec_cli.errors import OutputError

RATE = 16_000
HOLDING = ["a.flac", "a.ogg", "a.opus", "a.mp3", "a.m4a"]
EVERY = {name: f"{name}: Ünïcode, 音楽\nin two lines" for name in TAGS} | {"date": "2026", "tracknumber": "3"}


def tagged(path: Path, cover: bytes | None, tags: dict[str, str] | None = None, seconds: float = 0.2) -> AudioWriter:
    picture = None if cover is None else Cover.of(cover)
    wav = noise(seconds, channels=2)
    with AudioWriter(path, RATE, 2, tags=EVERY if tags is None else tags, cover=picture) as writer:
        writer.write(wav)
    return writer


def by_ffmpeg(path: Path) -> tuple[dict[str, str], list[tuple[str, bytes]]]:
    """Metadata with small keys, and pictures with their codecs."""
    with av.open(str(path)) as container:
        found = {**container.streams.audio[0].metadata, **container.metadata}
        pictures = [
            (stream.codec_context.name, bytes(next(container.demux(stream)))) for stream in container.streams.video
        ]
    return {key.lower(): text for key, text in found.items()}, pictures


@pytest.mark.parametrize("name", HOLDING)
def test_tags_and_cover_come_back_and_the_sound_is_the_same(name: str, tmp_path: Path) -> None:
    plain = tmp_path / f"plain{name[1:]}"
    tagged(plain, None)
    assert find_cover(plain) is None
    for kind, cover in (("mjpeg", jpeg()), ("png", png(200, 200))):  # of which the latter takes several pages of Ogg
        path = tmp_path / f"{kind}{name[1:]}"
        assert tagged(path, cover).notes == ()
        with AudioReader(path) as reader:
            assert reader.info.tags == EVERY
            assert reader.cover() == cover
        np.testing.assert_array_equal(read(path), read(plain))
        assert by_ffmpeg(path)[1] == [(kind, cover)]
        if name != "a.m4a":
            np.testing.assert_array_equal(soundfile.read(path)[0], soundfile.read(plain)[0])


def test_mp3_and_m4a_have_the_tags_that_other_programs_look_for(tmp_path: Path) -> None:
    for name in ("a.mp3", "a.m4a"):
        tagged(tmp_path / name, None)
        found, _ = by_ffmpeg(tmp_path / name)
        expected = {"track" if key == "tracknumber" else key: text for key, text in EVERY.items()}
        assert {key: found.get(key) for key in expected} == expected
    data = (tmp_path / "a.mp3").read_bytes()
    assert data[:5] == b"ID3\x04\x00"  # version 2.4.0
    assert data.index(b"TIT2") == 10


def test_without_tags_and_cover_mp3_begins_with_sound(tmp_path: Path) -> None:
    tagged(tmp_path / "a.mp3", None, tags={})
    assert (tmp_path / "a.mp3").read_bytes()[0] == 0xFF


@pytest.mark.parametrize("name", ["a.ogg", "a.opus"])
def test_pages_of_ogg_are_numbered_and_their_checksums_right(name: str, tmp_path: Path) -> None:
    """The checksum is written out after RFC 3533, 6: polynomial 0x04c11db7, highest bit first, from 0."""
    tagged(tmp_path / name, png(160, 160))
    data, place, number = (tmp_path / name).read_bytes(), 0, 0
    table = []
    for byte in range(256):
        crc = byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
        table.append(crc)
    while place < len(data):
        head = data[place : place + 27 + data[place + 26]]
        page = data[place : place + len(head) + sum(head[27:])]
        assert page[:4] == b"OggS"
        stated, checksum = struct.unpack_from("<II", page, 18)
        crc = 0
        for byte in page[:22] + bytes(4) + page[26:]:
            crc = (crc << 8 & 0xFFFFFFFF) ^ table[crc >> 24 ^ byte]
        assert (stated, checksum) == (number, crc)
        place, number = place + len(page), number + 1
    assert number >= 4  # the head, at least two of comments, sound


def test_the_picture_of_flac_says_how_large_it_is(tmp_path: Path) -> None:
    tagged(tmp_path / "a.flac", jpeg(48, 32))
    data = (tmp_path / "a.flac").read_bytes()
    assert data[42] == 6  # a picture, and not the last block
    place = data.index(b"image/jpeg") + len(b"image/jpeg")
    assert struct.unpack_from(">IIIII", data, place) == (0, 48, 32, 0, 0)


def test_wav_holds_no_cover_which_is_said(tmp_path: Path) -> None:
    assert tagged(tmp_path / "a.wav", png()).notes == ("16 bit WAV holds no cover, so that of the input is left out",)
    tagged(tmp_path / "b.wav", None)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


@pytest.mark.parametrize("name", ["a.flac", "a.m4a"])
def test_nothing_is_left_where_the_disk_has_no_room_for_the_cover(name: str, tmp_path: Path) -> None:
    with full_disk(60_000), pytest.raises(OutputError, match=rf"{name}: cannot be written: .*; free some space"):
        tagged(tmp_path / name, png(200, 200))
    assert list(tmp_path.iterdir()) == []


def test_a_cover_is_what_its_first_bytes_say() -> None:
    found = [Cover.of(png(4, 3)), Cover.of(jpeg(48, 32))]
    assert [(each.media_type, each.width, each.height) for each in found] == [
        ("image/png", 4, 3),
        ("image/jpeg", 48, 32),
    ]
    for data in (jpeg()[:20], b"\xff\xd8\xff", png()[:20]):  # its size is beyond what is there
        assert (Cover.of(data).width, Cover.of(data).height) == (0, 0)
    for data in (b"", b"GIF89a", b"RIFF\0\0\0\0WEBP"):
        with pytest.raises(ValueError, match="^neither JPEG nor PNG$"):
            Cover.of(data)


def test_of_several_pictures_the_front_is_the_cover(tmp_path: Path) -> None:
    """FLAC numbers what a picture shows: 4 is the back, 3 the front."""
    tagged(tmp_path / "a.flac", png(5, 5))
    back = (tmp_path / "a.flac").read_bytes()
    tagged(tmp_path / "b.flac", png(6, 6))
    front = (tmp_path / "b.flac").read_bytes()
    length = 4 + int.from_bytes(back[43:46], "big")
    of_back = bytearray(back[42 : 42 + length])
    of_back[7] = 4
    (tmp_path / "both.flac").write_bytes(front[:42] + bytes(of_back) + front[42:])
    assert find_cover(tmp_path / "both.flac") == png(6, 6)


def test_a_picture_of_another_kind_is_found_as_it_is(tmp_path: Path) -> None:
    other = picture("bmp", "bgr24", 4, 4)
    with AudioWriter(tmp_path / "a.flac", RATE, 1, cover=Cover(other, "image/bmp", 4, 4)) as writer:
        writer.write(noise(0.1))
    assert find_cover(tmp_path / "a.flac") == other
