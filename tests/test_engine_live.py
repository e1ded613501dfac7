"""compress of what is still being made, and decode of what is still being compressed."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from live_examples import Feed, compress_live, delays, live_wav, standard

from sdcodec_cli import load_codec
from sdcodec_cli.audio import AudioWriter
from sdcodec_cli.bitstream import Reader
from sdcodec_cli.engine.codec import Codec
from sdcodec_cli.engine.compress import compress
from sdcodec_cli.engine.decode import decode
from sdcodec_cli.engine.stream import FILES, LIVE, Grid
from sdcodec_cli.errors import InputError

from tiny_models import tiny_bands, tiny_recipe, write_tiny

RATE = 16_000


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return load_codec(write_tiny(tmp_path_factory.mktemp("model") / "tiny", tiny_recipe()), device="cpu", effort=0)


def noise(seconds: float, rate: int = RATE, level: float = 0.05) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(round(seconds * rate)) * level


def segments_of(path: Path) -> tuple[Reader, list[Any]]:
    with path.open("rb") as file:
        reader = Reader(file)
        return reader, list(reader.segments())


def test_what_goes_in_comes_out_less_than_three_seconds_later(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    found = delays(codec, live_wav(noise(5, 44_100), 44_100), 44_100, monkeypatch)
    assert len(found) > 3
    assert max(found) < 3.0


def test_silence_and_audio_without_treble_come_as_soon(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    wav = noise(5.6, 32_000)
    wav[32_000:] = 0
    assert max(delays(codec, live_wav(wav, 32_000), 32_000, monkeypatch)) < 3.0


def test_a_cascade_is_live_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bands = load_codec(write_tiny(tmp_path / "bands", tiny_bands()), device="cpu", effort=0)
    found = delays(bands, live_wav(noise(7, 32_000), 32_000), 32_000, monkeypatch)
    assert max(found) < 5.0


def test_the_longest_delay_is_that_of_the_grid(codec: Codec) -> None:
    """A segment, what encoding waits for, and the segment that completes what decoding needs, see docs/design.md."""
    assert (LIVE.segment_frames, LIVE.ahead) == (40, 30)
    assert Grid.of(FILES.segment_frames) is FILES
    assert Grid.of(LIVE.segment_frames) is LIVE


def test_codes_are_those_of_a_file_where_the_network_sees_no_further_than_encoding_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load_codec(write_tiny(tmp_path / "model", tiny_recipe("conv", activity=False)), device="cpu", effort=0)
    assert plain.model.analysis_context <= LIVE.ahead
    data = live_wav(noise(5))
    result = compress_live(plain, Feed(data), tmp_path / "live.sdc", monkeypatch, domains="all", level=-25.0)
    (tmp_path / "a.wav").write_bytes(data)
    monkeypatch.setattr("sdcodec_cli.engine.codec.Codec.gain_for", lambda self, loudness: -2.0)
    compress(tmp_path / "a.wav", tmp_path / "file.sdc", codec=plain, domains="all")
    (live, live_segments), (file, file_segments) = (segments_of(tmp_path / f"{name}.sdc") for name in ("live", "file"))
    assert live.header.gain_db == file.header.gain_db == -2.0
    assert live.end == file.end
    assert result.problems == ()
    assert [segment.num_frames for segment in live_segments] == [40] * 6 + [10]
    for domain in plain.domains:
        ours, theirs = (
            np.concatenate([segment.codes[0, domain] for segment in segments], axis=-1)
            for segments in (live_segments, file_segments)
        )
        # A constant offset is taken out of files only; of noise it is next to nothing.
        assert (ours == theirs).mean() > 0.99


def test_a_live_stream_decodes_from_a_pipe_as_from_a_file(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compress_live(codec, Feed(live_wav(noise(4.5))), tmp_path / "a.sdc", monkeypatch)
    decode(tmp_path / "a.sdc", {"mix": tmp_path / "file.wav"}, codec=codec)
    pipe = io.BytesIO((tmp_path / "a.sdc").read_bytes())
    pipe.seekable = lambda: False  # type: ignore[method-assign]
    standard(monkeypatch, pipe)
    decode("-", {"mix": tmp_path / "pipe.wav"}, codec=codec)
    ours, theirs = (soundfile.read(tmp_path / f"{name}.wav")[0] for name in ("pipe", "file"))
    assert len(ours) == 4.5 * RATE
    assert np.array_equal(ours, theirs)


def test_every_live_segment_has_gains_so_that_nobody_waits_for_the_next_one(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wav = noise(4, 32_000)
    wav[64_000:] = 0
    compress_live(codec, Feed(live_wav(wav, 32_000)), tmp_path / "a.sdc", monkeypatch)
    _, segments = segments_of(tmp_path / "a.sdc")
    assert len(segments[-1].silent) == len(codec.domains)
    assert all(segment.gains and segment.treble for segment in segments)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_live_file_as_its_end_would(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    data = live_wav(noise(3))
    feed = Feed(data, at_end=lambda: os.kill(os.getpid(), number))
    handler = signal.signal(number, signal.default_int_handler)
    try:
        result = compress_live(codec, feed, tmp_path / "a.sdc", monkeypatch)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, handler)
    assert signal.getsignal(number) is before
    assert (result.seconds, result.problems) == (3.0, ())
    compress_live(codec, Feed(data), tmp_path / "b.sdc", monkeypatch)
    assert (tmp_path / "a.sdc").read_bytes() == (tmp_path / "b.sdc").read_bytes()


def test_an_error_of_reading_leaves_what_came_before_and_is_said(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError(5, "Input/output error")

    result = compress_live(codec, Feed(live_wav(noise(2)), at_end=fail), tmp_path / "a.sdc", monkeypatch)
    assert result.problems == ("stdin: cannot be read further: Input/output error",)
    assert segments_of(tmp_path / "a.sdc")[0].end.original_samples == 2 * RATE  # type: ignore[union-attr]


def test_samples_that_are_no_numbers_end_a_live_file(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wav = noise(2).astype(np.float32)
    wav[RATE:] = np.nan
    fo = io.BytesIO()
    soundfile.write(fo, wav, RATE, format="WAV", subtype="FLOAT")
    result = compress_live(codec, Feed(fo.getvalue()), tmp_path / "a.sdc", monkeypatch)
    assert "has samples that are not numbers (NaN or infinite), the first at 1.000 s" in result.problems[0]
    assert 0.98 <= result.seconds <= 1.0


def test_a_level_far_from_the_one_assumed_is_told(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loudness = {}
    for level in (None, -40.0):
        feed = Feed(live_wav(noise(2, level=0.01)))
        result = compress_live(codec, feed, tmp_path / "a.sdc", monkeypatch, level=level)
        loudness[level] = result.notes[0]
    assert loudness[None].startswith("coded at a level of -27 LUFS, which was assumed; it was -")
    assert loudness[-40.0] == "coded at a level of -40 LUFS, which was assumed"
    assert segments_of(tmp_path / "a.sdc")[0].header.gain_db == 13.0


def test_a_level_is_for_live_sources_only(codec: Codec, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only a live source has a level that is assumed"):
        compress(tmp_path / "a.wav", tmp_path / "a.sdc", codec=codec, level=-20.0)


@pytest.mark.parametrize(("num_samples", "sizes"), [(None, (2**32 - 1, 2**32 - 1)), (8000, (36 + 16_000, 16_000))])
def test_audio_is_written_at_once_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, num_samples: int | None, sizes: tuple[int, int]
) -> None:
    out = io.BytesIO()
    standard(monkeypatch, None, out)
    with AudioWriter("-", RATE, 1, num_samples=num_samples, at_once=True) as writer:
        assert len(out.getvalue()) == 44
        writer.write(np.full((1, 4000), 0.5, dtype=np.float32))
        assert len(out.getvalue()) == 44 + 8000
        writer.write(np.zeros((1, 4000), dtype=np.float32))
    found = out.getvalue()
    assert (int.from_bytes(found[4:8], "little"), int.from_bytes(found[40:44], "little")) == sizes
    wav, rate = soundfile.read(io.BytesIO(found))
    assert (len(wav), rate, wav[0]) == (8000, RATE, 0.5)


def test_a_live_source_without_a_sample_is_refused(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="stdin: contains no samples; nothing to do"):
        compress_live(codec, Feed(live_wav(noise(0))), tmp_path / "a.sdc", monkeypatch)
    assert list(tmp_path.iterdir()) == []
