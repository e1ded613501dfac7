"""WAV that is read while it is written."""

from __future__ import annotations

import io
import os
import signal
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from live_examples import Feed, live_wav, standard

from sdcodec_cli.audio import AudioReader, LiveReader
from sdcodec_cli.errors import InputError

RATE = 16_000


def noise(channels: int = 1, samples: int = 5000) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((samples, channels)) * 0.1


def live(data: bytes, monkeypatch: pytest.MonkeyPatch, step: int = 1000) -> tuple[LiveReader, np.ndarray]:
    standard(monkeypatch, Feed(data, step))
    with LiveReader("-") as reader:
        blocks = list(reader.blocks())
    return reader, np.concatenate(blocks, axis=1)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_samples_of_every_coding_are_those_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtype: str, channels: int
) -> None:
    path, format = tmp_path / "a.wav", "WAVEX" if channels > 2 else "WAV"
    soundfile.write(path, noise(channels), RATE, subtype=subtype, format=format)
    reader, found = live(path.read_bytes(), monkeypatch, step=777)
    with AudioReader(path) as whole:
        expected = np.concatenate(list(whole.blocks()), axis=1)
        assert (reader.info.sample_rate, reader.info.channels) == (RATE, channels)
        assert reader.info.channel_mask == whole.info.channel_mask
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert reader.problem is None


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x7FFFF000, 0xFFFFFF00])
def test_a_size_that_is_not_known_yet_means_all_there_is(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """As FFmpeg (2^32 - 1), arecord (2^31), sox (2^31 - 4096) and others (0) leave it in a pipe."""
    data = live_wav(noise(2))
    data = data[:4] + struct.pack("<I", size) + data[8:40] + struct.pack("<I", size) + data[44:]
    reader, found = live(data, monkeypatch)
    assert (found.shape, reader.problem) == ((2, 5000), None)


def test_chunks_before_the_samples_and_behind_them_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    fo = io.BytesIO()
    soundfile.write(fo, noise(), RATE, format="WAV", subtype="PCM_16")
    data = fo.getvalue()
    extra = struct.pack("<4sI", b"LIST", 5) + b"INFOx\0"
    reader, found = live(data[:12] + extra + data[12:] + b"id3 " + bytes(90), monkeypatch)
    assert (found.shape, reader.problem) == ((1, 5000), None)


def test_sizes_of_64_bits_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", noise(), RATE, format="RF64", subtype="PCM_16")
    reader, found = live((tmp_path / "a.wav").read_bytes() + b"behind it", monkeypatch)
    assert (found.shape, reader.problem) == ((1, 5000), None)


def test_blocks_come_as_soon_as_the_audio_does(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed(live_wav(noise()), step=400)
    standard(monkeypatch, feed)
    with LiveReader("-") as reader:
        given = 0
        for block in reader.blocks():
            given += block.shape[1]
            assert feed.count - 44 - 2 * given < 2
    assert given == 5000


def test_an_end_before_the_one_in_the_header_is_a_problem_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fo = io.BytesIO()
    soundfile.write(fo, noise(), RATE, format="WAV", subtype="PCM_16")
    reader, found = live(fo.getvalue()[:-2001], monkeypatch)
    assert found.shape == (1, 3999)
    assert reader.problem == "stdin: stops after 0.250 s, before the end that its header states"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not WAV, which --live needs; put e.g. ffmpeg -i INPUT -f wav - before it"),
        (b"fLaC" + bytes(100), "is not WAV"),
        (b"\x89SDC\r\n\x1a\n" + bytes(100), "is not WAV"),
        (live_wav(noise())[:30], "is not WAV"),
        (
            live_wav(noise())[:20] + struct.pack("<H", 6) + live_wav(noise())[22:],
            "its coding is not one that --live reads",
        ),
        (live_wav(noise())[:44], "contains no samples; nothing to do"),
    ],
)
def test_what_is_no_wav_is_refused(monkeypatch: pytest.MonkeyPatch, data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=f"stdin: {message}"):
        live(data, monkeypatch)


def test_a_header_made_to_deceive_is_refused_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for changes in (struct.pack("<4sI", b"fmt ", 2**31), struct.pack("<4sI", b"junk", 2**32 - 2)):
        with pytest.raises(InputError, match="is not WAV"):
            live(b"RIFF\0\0\0\0WAVE" + changes + bytes(1000), monkeypatch)


def test_a_signal_ends_a_read_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writing end stays open, and nothing more comes."""
    reading, writing = os.pipe()
    os.write(writing, live_wav(noise()))
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
    try:
        with os.fdopen(reading, "rb") as file, os.fdopen(writing, "wb"):
            standard(monkeypatch, file)
            with LiveReader("-") as reader:
                timer.start()
                found = np.concatenate(list(reader.blocks()), axis=1)
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, handler)
    assert (found.shape, reader.problem) == ((1, 5000), None)


def test_signals_that_are_ignored_stay_so(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        standard(monkeypatch, Feed(live_wav(noise())))
        with LiveReader("-"):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, handler)
