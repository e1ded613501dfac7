"""What is heard where codes were lost."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sdcodec_cli import load_codec
from sdcodec_cli.bitstream import Reader, StreamKey
from sdcodec_cli.engine.codec import Codec
from sdcodec_cli.engine.compress import compress
from sdcodec_cli.engine.conceal import REACH_FRAMES, Fader, Stretch, concealed
from sdcodec_cli.engine.decode import DecodeResult, decode

from tiny_models import tiny_recipe, write_tiny

SPEECH, SFX = (0, "speech"), (0, "sfx")
ABSENT = (0, -12)


def stretch(first: int, num_frames: int, *keys: StreamKey, lost: Iterable[StreamKey] = ()) -> Stretch:
    """Codes that are the numbers of their frames, in two codebooks."""
    codes = np.arange(first, first + num_frames)[None] + np.array([[0], [1000]])
    return Stretch(num_frames, dict.fromkeys(keys, codes), {}, {}, lost=frozenset(lost))


def gap(num_frames: int, *keys: StreamKey) -> Stretch:
    return Stretch(num_frames, {}, {}, {}, lost=frozenset(keys), is_gap=True)


def made(*stretches: Stretch, mixed: bool = True) -> list[Stretch]:
    return list(concealed(iter(stretches), ABSENT, mixed=mixed))


def test_what_is_whole_stays_as_it_is() -> None:
    given = [stretch(0, 100, SPEECH, SFX), stretch(100, 100, SPEECH), stretch(200, 7)]
    assert made(*given) == given


def test_frames_around_a_gap_come_back_in_reverse_order_and_softer() -> None:
    _, found, _ = made(stretch(0, 100, SPEECH), gap(100, SPEECH), stretch(200, 100, SPEECH))
    codes, levels = found.codes[SPEECH], found.made_up[SPEECH]
    assert codes[0].tolist() == [*range(99, 49, -1), *range(249, 199, -1)]
    assert (codes[1] == codes[0] + 1000).all()
    assert levels[0] == levels[-1] == 1
    assert (np.diff(levels[:50]) < 0).all()
    assert (np.diff(levels[50:]) > 0).all()
    assert levels.min() == pytest.approx(1 / REACH_FRAMES)


def test_the_middle_of_a_long_gap_is_silent() -> None:
    pieces = [gap(100, SPEECH) for _ in range(3)]
    _, first, second, third, _ = made(stretch(0, 100, SPEECH), *pieces, stretch(400, 100, SPEECH))
    assert first.codes[SPEECH][0].tolist() == [*range(99, 49, -1), *[-1] * 50]
    assert (first.made_up[SPEECH] == 0).sum() == 50
    assert (second.codes, second.made_up) == ({}, {})
    assert third.codes[SPEECH][0].tolist() == [*[-1] * 50, *range(449, 399, -1)]


def test_a_gap_at_the_beginning_or_the_end_has_one_side_only() -> None:
    first, _, last = made(gap(60, SPEECH), stretch(60, 100, SPEECH), gap(30, SPEECH))
    assert first.codes[SPEECH][0].tolist() == [*[-1] * 10, *range(109, 59, -1)]
    assert last.codes[SPEECH][0].tolist() == list(range(159, 129, -1))


def test_what_was_silent_or_left_out_around_a_gap_stays_so() -> None:
    _, found, _ = made(stretch(0, 100, SPEECH), gap(100, SPEECH, SFX), stretch(200, 100))
    assert found.codes.keys() == {SPEECH}
    assert found.codes[SPEECH][0].tolist() == [*range(99, 49, -1), *[-1] * 50]


def test_a_lost_stream_is_made_up_where_it_is_heard_alone_and_left_out_where_others_mask_it() -> None:
    given = [stretch(0, 40, SPEECH, SFX), stretch(40, 40, SFX, lost=[SPEECH]), stretch(80, 40, SPEECH, SFX)]
    assert made(*given) == given
    _, found, _ = made(*given, mixed=False)
    assert found.codes[SPEECH][0].tolist() == [*range(39, 19, -1), *range(99, 79, -1)]
    assert found.codes[SFX] is given[1].codes[SFX]
    assert found.made_up.keys() == {SPEECH}
    _, found, _ = made(given[0], stretch(40, 40, lost=[SPEECH]), given[2])
    assert found.made_up.keys() == {SPEECH}


def test_streams_of_several_frames_for_each_frame_are_reversed_frame_by_frame() -> None:
    fine = np.arange(20)[None]
    before, after = (Stretch(10, {SPEECH: fine + start}, {}, {}) for start in (0, 40))
    _, found, _ = made(before, gap(10, SPEECH), after)
    assert found.codes[SPEECH][0].tolist() == [*range(19, 9, -1), *range(49, 39, -1)]
    assert found.made_up[SPEECH].shape == (10,)


def test_gains_follow_what_they_are_gains_of() -> None:
    before = Stretch(60, {}, {0: np.arange(60)[None]}, {0: np.arange(60)[None] - 12})
    _, found = made(before, gap(100, SPEECH))
    assert found.gains[0][0].tolist() == [*range(59, 9, -1), *[0] * 50]
    assert found.treble[0][0].tolist() == [*range(47, -3, -1), *[-12] * 50]
    _, kept = made(before, stretch(60, 100, lost=[SPEECH]))
    assert kept.gains == {}


@pytest.mark.parametrize("size", [1, 7, 10, 40, 1000])
def test_audio_gets_softer_with_its_frames_however_it_comes(size: int) -> None:
    levels = np.linspace(1, 0.5, 6, dtype=np.float32)
    given = [
        stretch(0, 4, SPEECH, SFX),
        Stretch(6, {SPEECH: np.zeros((1, 6)), SFX: np.zeros((1, 6))}, {}, {}, made_up={SPEECH: levels}),
    ]
    fader = Fader([[[SPEECH]], [[SPEECH, SFX]]], hop_length=10)
    for each in given:
        fader.push(each)
    wavs = np.ones((2, 1, 100), dtype=np.float32)
    found = np.concatenate([fader.applied(wavs[..., start : start + size]) for start in range(0, 100, size)], axis=-1)
    assert (found[1] == 1).all()  # with something whole in it
    assert (found[0, 0, :50] == 1).all()
    np.testing.assert_allclose(found[0, 0, 9::10], [1, 1, 1, 1, *levels], rtol=1e-6)
    assert (np.diff(found[0, 0, 50:]) < 0).all()


# Files


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return load_codec(write_tiny(tmp_path_factory.mktemp("model") / "tiny", tiny_recipe(activity=False)), device="cpu")


@pytest.fixture(scope="module")
def whole(codec: Codec, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("audio")
    wav = np.random.default_rng(0).standard_normal(16_000 * 8) * 0.05
    soundfile.write(folder / "a.wav", wav, 16_000)
    compress(folder / "a.wav", folder / "a.sdc", codec=codec.at_effort(0))
    return (folder / "a.sdc").read_bytes()


def decoded(codec: Codec, data: bytes, folder: Path, stem: str = "mix") -> tuple[DecodeResult, np.ndarray]:
    (folder / "b.sdc").write_bytes(data)
    result = decode(folder / "b.sdc", {stem: folder / "b.wav"}, codec=codec, overwrite=True)
    return result, soundfile.read(folder / "b.wav")[0]


def level(wav: np.ndarray, start: float, stop: float) -> float:
    return float(np.sqrt(np.mean(wav[round(start * 16_000) : round(stop * 16_000)] ** 2)))


def test_a_lost_segment_of_a_file_is_heard_at_its_edges_and_said(codec: Codec, whole: bytes, tmp_path: Path) -> None:
    offset = Reader(io.BytesIO(whole))._index.offsets[1]  # type: ignore[union-attr]
    damaged = bytearray(whole)
    damaged[offset] ^= 0xFF
    for stem in ("mix", "speech"):
        (good, original), (bad, found) = (decoded(codec, data, tmp_path, stem) for data in (whole, bytes(damaged)))
        assert (good.problems, good.concealed) == ((), {})
        assert len(bad.problems) == 1
        assert bad.concealed == (dict.fromkeys(codec.domains, 2.0) if stem == "mix" else {"speech": 2.0})
        assert len(found) == len(original)
        for start in (2.1, 3.7):
            assert 0.5 < level(found, start, start + 0.2) / level(original, start, start + 0.2) < 1.5
        assert level(found, 2.95, 3.05) < 0.2 * level(original, 2.95, 3.05)
        assert np.abs(found - original)[:16_000].max() < 1e-4


def test_a_lost_base_chunk_is_made_up_in_its_stem_and_left_out_of_the_mix(
    codec: Codec, whole: bytes, tmp_path: Path
) -> None:
    reader = Reader(io.BytesIO(whole))
    found = reader._scanner.unit_at(reader._index.offsets[1])  # type: ignore[union-attr]
    damaged = bytearray(whole)
    damaged[found.payload + 5] ^= 0xFF  # type: ignore[union-attr]
    result, wav = decoded(codec, bytes(damaged), tmp_path, "speech")
    assert len(result.problems) == 1
    assert result.concealed == {"speech": 2.0}
    assert level(wav, 2.1, 2.3) > 3 * level(wav, 2.95, 3.05)
    result, _ = decoded(codec, bytes(damaged), tmp_path, "mix")
    assert len(result.problems) == 1
    assert result.concealed == {}
