"""Formats and bitrates that are asked for, and those that cannot be."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import soundfile
from audio_examples import noise, write

from sdcodec_cli.audio import FormatName, WriteOptions, audio_format
from sdcodec_cli.errors import OutputError


def bitrate(path: Path) -> float:
    """Of a whole file, in kbit/s."""
    return path.stat().st_size * 8 / 1000 / soundfile.info(path).duration


@pytest.mark.parametrize(("channels", "wanted"), [(1, 32), (1, 128), (2, 320)])
def test_mp3_has_exactly_the_bitrate(channels: int, wanted: float, tmp_path: Path) -> None:
    write(tmp_path / "a.mp3", noise(1.0, 44_100, channels), 44_100, options=WriteOptions(bitrate=wanted))
    data = (tmp_path / "a.mp3").read_bytes()
    # ISO 11172-3, 2.4.1.3: the bitrate of a frame is in the upper half of its third byte.
    index = {32: 1, 128: 9, 320: 14}[int(wanted)]
    assert data[2] >> 4 == index
    assert bitrate(tmp_path / "a.mp3") == pytest.approx(wanted, rel=0.1)  # with what the encoder puts around it


@pytest.mark.parametrize(("channels", "wanted"), [(1, 24), (2, 24), (2, 200)])
def test_opus_has_the_bitrate_in_the_mean(channels: int, wanted: float, tmp_path: Path) -> None:
    write(tmp_path / "a.opus", noise(2.0, 48_000, channels), 48_000, options=WriteOptions(bitrate=wanted))
    assert bitrate(tmp_path / "a.opus") == pytest.approx(wanted, rel=0.2)


@pytest.mark.parametrize(("rate", "channels", "wanted"), [(44_100, 2, 128), (16_000, 1, 40)])
def test_vorbis_states_the_bitrate(rate: int, channels: int, wanted: float, tmp_path: Path) -> None:
    write(tmp_path / "a.ogg", noise(1.0, rate, channels), rate, options=WriteOptions(bitrate=wanted))
    data = (tmp_path / "a.ogg").read_bytes()
    (nominal,) = struct.unpack_from("<i", data, data.index(b"\x01vorbis") + 20)
    assert nominal / 1000 == pytest.approx(wanted, abs=0.5)


@pytest.mark.parametrize(
    ("name", "rate", "channels", "wanted", "message"),
    [
        ("a.mp3", 44_100, 2, 100, r"MP3 of 2 channel\(s\) at 44100 Hz takes 32, 40, .*, 256 or 320 kbit/s, not 100"),
        ("a.mp3", 8_000, 1, 128, r"takes 8, 16, 24, 32, 40, 48, 56 or 64 kbit/s, not 128"),
        ("a.opus", 48_000, 2, 600, r"Opus of 2 channel\(s\) at 48000 Hz takes 12 to 512 kbit/s, not 600"),
        ("a.ogg", 44_100, 2, 20, r"Ogg Vorbis of 2 channel\(s\) at 44100 Hz takes 64 to 500 kbit/s, not 20"),
        ("a.ogg", 96_000, 1, 64, r"takes none, because its encoder does not say what comes out; leave it out"),
        ("a.flac", 44_100, 1, 64, r"16 bit FLAC has no bitrate to choose; ogg, opus, mp3 or m4a have one"),
    ],
)
def test_a_bitrate_that_cannot_be_is_refused_with_those_that_can(
    name: str, rate: int, channels: int, wanted: float, message: str, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match=rf"{name}: .*{message}"):
        write(tmp_path / name, noise(0.1, rate, channels), rate, options=WriteOptions(bitrate=wanted))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "suffix"), [("wav-float", ".wav"), ("flac-24", ".flac"), ("opus", ".opus"), (None, ".wav")]
)
def test_a_format_has_a_suffix_and_a_name_must_not_say_another(name: FormatName | None, suffix: str) -> None:
    options = WriteOptions(format=name)
    assert options.suffix == suffix
    audio_format(f"A{suffix.upper()}", options)
    audio_format("-", options)
    if name:
        with pytest.raises(OutputError, match=rf"^b/a.aiff: would hold .*; name it a\{suffix}$"):
            audio_format("b/a.aiff", options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "aac"}, "format must be one of wav, wav-24, .*, opus, mp3, m4a, m4a-alac, got 'aac'"),
        ({"bitrate": 0}, "bitrate must be above 0, got 0"),
        ({"format": "wav-24", "bitrate": 64}, "24 bit WAV has no bitrate to choose; ogg, opus, mp3 or m4a have one"),
    ],
)
def test_options_that_contradict_themselves_are_wrong(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        WriteOptions(**options)  # type: ignore[arg-type]
