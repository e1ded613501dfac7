"""Where domains stand between left and right: found, and put there again."""

from __future__ import annotations

import io
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from sdcodec_cli import load_codec
from sdcodec_cli.bitstream import Reader
from sdcodec_cli.bitstream.codings import MAX_WIDTH
from sdcodec_cli.engine.codec import Codec
from sdcodec_cli.engine.coded import Coded
from sdcodec_cli.engine.compress import CompressResult, compress
from sdcodec_cli.engine.decode import decode
from sdcodec_cli.engine.edit import cut, join, strip
from sdcodec_cli.engine.inspect import inspect
from sdcodec_cli.engine.stereo import Places, StreamPlacer, place_of, side_of, stereo_layout_for
from sdcodec_cli.engine.tokens import to_tokens
from sdcodec_cli.errors import InputError

from bitstream_examples import pipe
from tiny_models import tiny_recipe, write_tiny

RATE, HOP = 16_000, 320
LAYOUT = stereo_layout_for(RATE, HOP, 8000.0)
BANDS = LAYOUT.num_bands


def decibels(wav: np.ndarray) -> np.ndarray:
    return np.asarray(10 * np.log10(np.square(wav).mean(-1)))


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(int(seconds * RATE)) * 0.1).astype(np.float32)


def tone(hertz: float, seconds: float = 2.0) -> np.ndarray:
    return (0.1 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def placed(stems: dict[str, np.ndarray], places: dict[str, tuple[int, int]], sizes: int = 100) -> np.ndarray:
    """Stems `[S, 2, T]`, each where it is said to stand throughout, by a level difference and a width in steps."""
    placer = StreamPlacer(LAYOUT, HOP, RATE / HOP, list(stems), {"mix": list(places)})
    wavs, pieces = np.stack(list(stems.values())), []
    steps = {name: np.repeat(place, BANDS)[:, None] for name, place in places.items()}
    for start in range(0, wavs.shape[-1], sizes * HOP):
        piece = wavs[:, start : start + sizes * HOP]
        frames = piece.shape[-1] // HOP
        placer.push_places(frames, {name: step.repeat(frames, axis=1) for name, step in steps.items()})
        pieces.append(placer.push(piece))
    return np.concatenate([*pieces, placer.finish()], axis=-1)


def test_what_stands_in_the_middle_has_no_side_signal() -> None:
    assert [float(each) for each in side_of(np.array(0.0), np.array(0))] == pytest.approx([0, 0])


def test_sides_that_have_nothing_in_common_are_as_loud_as_their_mean_twice() -> None:
    """Of two signals of power 2 that have nothing in common, the mean has the power 1, and so has the difference."""
    common, other = side_of(np.array(0.0), np.array(MAX_WIDTH))
    assert (float(common), float(other)) == pytest.approx((0, 1))


@pytest.mark.parametrize("difference", [-24.0, -3.0, 0.0, 12.0])
@pytest.mark.parametrize("width", [0, 3, 8])
def test_a_side_signal_has_the_place_it_was_made_for(difference: float, width: int) -> None:
    common, other = side_of(np.array(difference), np.array(width))
    left, right = (1 + common) ** 2 + other**2, (1 - common) ** 2 + other**2
    assert 10 * np.log10(left / right) == pytest.approx(difference)
    found = place_of(common, common**2 + other**2)
    assert [float(each) for each in found] == pytest.approx([difference, width], abs=1e-4)


@pytest.mark.parametrize("width", [0, 4, 8])
def test_a_stem_comes_back_at_its_level_difference_and_its_mean_is_what_it_was(width: int) -> None:
    stem = noise(2.0)
    (sides,) = placed({"speech": stem}, {"speech": (4, width)})
    assert sides.shape == (2, len(stem))
    assert decibels(sides[0]) - decibels(sides[1]) == pytest.approx(12, abs=0.4)
    assert np.abs(sides.mean(0) - stem).max() < 1e-6
    correlation = np.corrcoef(sides)[0, 1]
    assert correlation == pytest.approx(np.cos(np.pi * width / 16), abs=0.05)


def test_sides_do_not_depend_on_how_audio_arrives() -> None:
    stems = {"speech": noise(1.0), "music": noise(1.0, seed=1), "mix": noise(1.0, seed=2)}
    places = {"speech": (4, 3), "music": (-3, 8)}
    whole = placed(stems, places)
    assert whole.shape == (3, 2, RATE)
    assert np.array_equal(placed(stems, places, sizes=1), whole)


def test_a_mix_goes_where_the_stems_stand_that_it_consists_of() -> None:
    low, high = tone(500), tone(3000)
    _, _, sides = placed({"speech": low, "sfx": high, "mix": low + high}, {"speech": (8, 0), "sfx": (-8, 0)})
    power = np.square(np.abs(np.fft.rfft(sides * np.hanning(len(low)))))
    differences = 10 * np.log10(power[0] / power[1])
    assert differences[[1000, 6000]] == pytest.approx([24, -24], abs=0.5)
    assert np.abs(sides.mean(0) - low - high).max() < 1e-6


def test_places_of_stems_that_do_not_overlap_are_found() -> None:
    """Voice 12 dB to the left in the bands from 500 Hz, effects 6 dB to the right in those around 3 kHz."""
    stems = np.stack([tone(500), tone(3000)])
    sides = [side_of(np.array(difference), np.array(0))[0] for difference in (12.0, -6.0)]
    mid = stems.sum(0)
    side = np.float32(sides[0]) * stems[0] + np.float32(sides[1]) * stems[1]
    pad = ((0, 0), (HOP // 2, HOP // 2))
    wanted, weights = Places(LAYOUT, RATE, HOP).wanted(np.pad(np.stack([mid, side]), pad), np.pad(stems, pad))
    bands = np.searchsorted(LAYOUT.edges, [500, 3000], side="right") - 1
    for stem, (band, expected) in enumerate(zip(bands, (4, -2), strict=True)):
        assert weights[stem, band].min() == 1
        assert wanted[stem, band] == pytest.approx(expected, abs=0.1)
        assert wanted[stem, BANDS + band] == pytest.approx(0, abs=0.5)
    assert weights[0, bands[1]].max() == 0


# --- files


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return load_codec(write_tiny(tmp_path_factory.mktemp("model") / "tiny", tiny_recipe(activity=False)), device="cpu")


@pytest.fixture(scope="module")
def made(codec: Codec, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CompressResult]:
    """A folder with a.wav, of 4.5 s, 12 dB louder on its left, as a.sdc and as mono.sdc."""
    folder = tmp_path_factory.mktemp("made")
    wav = noise(4.5) + tone(440, 4.5)
    soundfile.write(folder / "a.wav", np.stack([wav, 0.25 * wav], axis=1), RATE)
    result = compress(folder / "a.wav", folder / "a.sdc", codec=codec, channels="stereo")
    compress(folder / "a.wav", folder / "mono.sdc", codec=codec)
    return folder, result


def decoded(codec: Codec, path: Path, stem: str = "mix", **options: Any) -> np.ndarray:
    target = path.with_suffix(f".{stem}.wav")
    result = decode(path, {stem: target}, codec=codec, overwrite=True, **options)
    assert result.problems == ()
    wav, _ = soundfile.read(target, always_2d=True, dtype="float32")
    return np.asarray(wav.T)


def test_stereo_comes_back_and_its_mean_is_the_mono_file(codec: Codec, made: tuple[Path, CompressResult]) -> None:
    folder, result = made
    sides, mono = decoded(codec, folder / "a.sdc"), decoded(codec, folder / "mono.sdc")
    assert sides.shape == (2, int(4.5 * RATE))
    assert decibels(sides[0]) - decibels(sides[1]) == pytest.approx(12, abs=1.5)
    assert np.abs(sides.mean(0) - mono[0]).max() < 1e-4  # one step of 16 bits
    assert result.channels_note == "2 channels were mixed down to one, with where each domain stands between them"
    assert 0 < result.stereo_bitrate < 0.5 * len(codec.domains)


def test_every_stem_has_a_place_and_gains_apply_to_it(codec: Codec, made: tuple[Path, CompressResult]) -> None:
    folder, _ = made
    stems = {domain: decoded(codec, folder / "a.sdc", domain) for domain in codec.domains}
    assert all(decibels(wav[0]) - decibels(wav[1]) > 6 for wav in stems.values())
    louder = decoded(codec, folder / "a.sdc", gains={codec.domains[0]: 6.0})
    expected = sum(stems.values()) + (10 ** (6 / 20) - 1) * stems[codec.domains[0]]
    assert np.abs(louder - expected.clip(-1, 1)).max() < 2e-4


def test_codes_are_those_of_mono_and_stereo_is_what_is_added(codec: Codec, made: tuple[Path, CompressResult]) -> None:
    folder, result = made
    with (folder / "a.sdc").open("rb") as one, (folder / "mono.sdc").open("rb") as other:
        for ours, theirs in zip(Reader(one).segments(), Reader(other).segments(), strict=True):
            assert ours.chunks == theirs.chunks
            assert set(ours.places) == set(codec.domains)
    report, mono = inspect(folder / "a.sdc"), inspect(folder / "mono.sdc")
    assert mono.stereo is None
    assert report.stereo is not None
    assert report.format_version == "1.5"
    assert report.payload_bytes == mono.payload_bytes + report.stereo.num_bytes
    assert report.stereo.bitrate == pytest.approx(result.stereo_bitrate)
    assert report.stereo.present == 1


def test_a_pipe_decodes_to_the_same_samples(
    codec: Codec, made: tuple[Path, CompressResult], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, _ = made
    whole = decoded(codec, folder / "a.sdc")
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=pipe((folder / "a.sdc").read_bytes(), most=100)))
    decode("-", {"mix": tmp_path / "b.wav"}, codec=codec)
    assert np.array_equal(soundfile.read(tmp_path / "b.wav", dtype="float32")[0].T, whole)


def test_excerpts_cuts_and_joins_are_parts_of_the_whole(codec: Codec, made: tuple[Path, CompressResult]) -> None:
    folder, _ = made
    whole = decoded(codec, folder / "a.sdc")
    part = decoded(codec, folder / "a.sdc", start=2.3, duration=0.5)
    expected = whole[:, int(2.3 * RATE) : int(2.8 * RATE)]
    assert np.abs(part - expected).max() < 1e-3
    cut(folder / "a.sdc", folder / "cut.sdc", start=2.3, duration=0.5, overwrite=True)
    assert np.abs(decoded(codec, folder / "cut.sdc") - expected).max() < 1e-3
    join([folder / "cut.sdc", folder / "cut.sdc"], folder / "both.sdc", overwrite=True)
    both = decoded(codec, folder / "both.sdc")
    assert both.shape == (2, RATE)
    assert np.abs(both - np.concatenate([expected, expected], axis=1)).max() < 1e-3


def test_stereo_and_mono_are_not_joined(made: tuple[Path, CompressResult]) -> None:
    folder, _ = made
    with pytest.raises(InputError, match=r"mono\.sdc: is not stereo, but .*a\.sdc is stereo; compress both"):
        join([folder / "a.sdc", folder / "mono.sdc"], folder / "no.sdc")


def test_the_place_of_a_domain_goes_with_it(codec: Codec, made: tuple[Path, CompressResult]) -> None:
    folder, _ = made
    kept = codec.domains[1]
    strip(folder / "a.sdc", folder / "less.sdc", domains=[kept], overwrite=True)
    with (folder / "less.sdc").open("rb") as fo:
        assert all(set(segment.places) == {kept} for segment in Reader(fo).segments())
    assert np.array_equal(decoded(codec, folder / "less.sdc", kept), decoded(codec, folder / "a.sdc", kept))


def test_tokens_are_of_the_mono_signal_and_say_so(made: tuple[Path, CompressResult], tmp_path: Path) -> None:
    folder, _ = made
    result = to_tokens(folder / "a.sdc", tmp_path / "a.npz", kind="npz")
    assert result.notes == ("where domains stand in stereo is left out: tokens are of the mono signal",)


def test_audio_of_one_channel_is_coded_as_mono_and_that_is_said(codec: Codec, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(0.5), RATE)
    result = compress(tmp_path / "a.wav", tmp_path / "a.sdc", codec=codec, channels="stereo")
    assert result.notes == ("has one channel and is coded as mono",)
    assert Reader(io.BytesIO((tmp_path / "a.sdc").read_bytes())).version < (1, 5)


def test_more_than_two_channels_are_refused(codec: Codec, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((RATE, 6)), RATE)
    with pytest.raises(InputError, match=r"a\.wav: 6 channels; --channels stereo takes two: mix them down"):
        compress(tmp_path / "a.wav", tmp_path / "a.sdc", codec=codec, channels="stereo")


def test_treble_has_the_place_of_the_highest_band(codec: Codec, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    wav = rng.standard_normal(48_000 * 2).astype(np.float32) * 0.1
    soundfile.write(tmp_path / "a.wav", np.stack([wav, 0.25 * wav], axis=1), 48_000)
    compress(tmp_path / "a.wav", tmp_path / "a.sdc", codec=codec, channels="stereo")
    sides = decoded(codec, tmp_path / "a.sdc")
    above = np.square(np.abs(np.fft.rfft(sides)))[:, 2 * 9000 : 2 * 15_000].sum(1)
    assert above[0] > 4 * above[1]


def test_live_audio_says_of_every_active_domain_where_it_stands(
    codec: Codec, made: tuple[Path, CompressResult], tmp_path: Path
) -> None:
    """So that nobody who reads a pipe has to wait for what comes next."""
    folder, _ = made
    result = compress(folder / "a.wav", tmp_path / "a.sdc", codec=codec, channels="stereo", live=True)
    assert result.problems == ()
    with (tmp_path / "a.sdc").open("rb") as fo:
        assert all(set(segment.places) == set(codec.domains) for segment in Reader(fo).segments())
    sides = decoded(codec, tmp_path / "a.sdc")
    assert decibels(sides[0]) - decibels(sides[1]) == pytest.approx(12, abs=3)


def test_a_sum_of_some_domains_stands_where_they_do(codec: Codec, made: tuple[Path, CompressResult]) -> None:
    folder, _ = made
    first, *others = codec.domains
    sides = decoded(codec, folder / "a.sdc", f"without-{first}")
    mono = decoded(codec, folder / "mono.sdc", f"without-{first}")
    assert np.abs(sides.mean(0) - mono[0]).max() < 1e-4
    assert decibels(sides[0]) - decibels(sides[1]) > 6
    assert others


def test_a_bitrate_has_room_for_places(codec: Codec, made: tuple[Path, CompressResult], tmp_path: Path) -> None:
    folder, _ = made
    result = compress(folder / "a.wav", tmp_path / "a.sdc", codec=codec, channels="stereo", bitrate=4.5)
    assert result.stereo_bitrate > 0
    assert result.payload_bitrate <= 4.5


def test_what_works_on_speech_takes_the_mono_signal_and_says_so(
    codec: Codec, made: tuple[Path, CompressResult]
) -> None:
    folder, _ = made
    coded = Coded("a.sdc", folder / "a.sdc", lambda header: codec)
    assert coded.header.decoded_channels == 1
    assert coded.notes == ("where its domains stand in stereo is left out",)
