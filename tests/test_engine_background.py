"""Speech without its background, with it softer, or with another one: what becomes of codes, levels and lengths."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from cover_examples import png
from speech_examples import RATE, codes_of, header_of, loudness, read, small_codec, sound, write

from sdcodec_cli import load_codec
from sdcodec_cli.audio import AudioReader, AudioWriter, Cover
from sdcodec_cli.bitstream.segment import SYNC
from sdcodec_cli.engine import background
from sdcodec_cli.engine.background import _NewCodes, enhance, exchange_background, repeated
from sdcodec_cli.engine.codec import Codec
from sdcodec_cli.engine.coded import opened
from sdcodec_cli.engine.compress import compress
from sdcodec_cli.engine.decode import decode
from sdcodec_cli.engine.edit import cut
from sdcodec_cli.engine.levels import with_treble
from sdcodec_cli.engine.stream import CodedSegment
from sdcodec_cli.errors import InputError, ModelError

from tiny_models import tiny_bands, write_tiny

SECONDS = 2.3


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Codec]:
    return {kind: small_codec(kind, tmp_path_factory.mktemp("model")) for kind in ("decodec", "three")}


@pytest.fixture(scope="module")
def codec(codecs: dict[str, Codec]) -> Codec:
    return codecs["decodec"]


@pytest.fixture(autouse=True)
def one_attempt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks with random weights have levels of their own, which no other attempt would change."""
    if "slow" not in request.keywords:
        monkeypatch.setattr(background, "ATTEMPTS", 1)


@pytest.fixture(scope="module")
def files(codec: Codec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene as audio and as codes, its speech, and another background that is shorter."""
    folder = tmp_path_factory.mktemp("files")
    write(folder / "scene.wav", sound(SECONDS))
    write(folder / "rain.wav", sound(0.9, seed=1, level=0.02))
    compress(folder / "scene.wav", folder / "scene.sdc", codec=codec.at_effort(0))
    decode(folder / "scene.sdc", {"speech": folder / "speech.wav"}, codec=codec)
    return folder


def background_of(path: Path, files: Path) -> np.ndarray:
    return read(path) - read(files / "speech.wav")


@pytest.mark.parametrize("source", ["scene.wav", "scene.sdc"])
def test_speech_alone_is_the_stem_of_speech_from_audio_as_from_codes(codec, files, tmp_path, source):
    result = enhance(files / source, tmp_path / "a.wav", codec=codec)
    assert (result.seconds, result.model, result.problems) == (SECONDS, codec.name, ())
    np.testing.assert_array_equal(read(tmp_path / "a.wav"), read(files / "speech.wav"))


def test_a_sdc_of_speech_alone_has_the_same_codes_and_decodes_to_the_same_samples(codec, files, tmp_path):
    enhance(files / "scene.sdc", tmp_path / "a.sdc", codec=codec)
    before, after = codes_of(files / "scene.sdc"), codes_of(tmp_path / "a.sdc")
    assert list(after) == [(0, "speech")]
    np.testing.assert_array_equal(after[0, "speech"], before[0, "speech"])
    decode(tmp_path / "a.sdc", {"mix": tmp_path / "a.wav"}, codec=codec)
    np.testing.assert_array_equal(read(tmp_path / "a.wav"), read(files / "speech.wav"))


def test_tags_and_a_cover_go_along_into_audio_and_codes(codec, tmp_path):
    picture = png()
    with AudioWriter(tmp_path / "talk.flac", RATE, 1, tags={"title": "Rain"}, cover=Cover.of(picture)) as writer:
        writer.write(sound(0.5).T)
    compress(tmp_path / "talk.flac", tmp_path / "talk.sdc", codec=codec.at_effort(0), cover=True)
    enhance(tmp_path / "talk.sdc", tmp_path / "codes.sdc", codec=codec)
    for source, cover in (("talk.flac", None), ("talk.sdc", picture), ("codes.sdc", picture)):
        enhance(tmp_path / source, tmp_path / "a.flac", codec=codec, overwrite=True)
        with AudioReader(tmp_path / "a.flac") as reader:
            assert (reader.info.tags["title"], reader.cover()) == ("Rain", cover)


def test_the_background_is_kept_at_a_gain(codec, files, tmp_path):
    for gain in (0, -20):
        enhance(files / "scene.sdc", tmp_path / f"{gain}.wav", codec=codec, background=gain)
    whole, soft = (background_of(tmp_path / f"{gain}.wav", files) for gain in (0, -20))
    assert np.abs(whole).max() > 0.01
    np.testing.assert_allclose(soft, whole / 10, atol=1e-4)  # 16 bits


def test_a_sdc_with_its_background_as_it_was_has_all_codes(codec, files, tmp_path):
    enhance(files / "scene.sdc", tmp_path / "a.sdc", codec=codec, background=0)
    before, after = codes_of(files / "scene.sdc"), codes_of(tmp_path / "a.sdc")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[key], after[key]) for key in before)


def test_a_new_background_is_as_loud_as_the_one_before_and_as_long_as_the_speech(codec, files, tmp_path):
    enhance(files / "scene.sdc", tmp_path / "own.wav", codec=codec, background=0)
    result = exchange_background(files / "scene.sdc", files / "rain.wav", tmp_path / "a.wav", codec=codec)
    new, old = background_of(tmp_path / "a.wav", files), background_of(tmp_path / "own.wav", files)
    assert len(new) == len(old) == round(SECONDS * RATE)
    assert loudness(new) == pytest.approx(loudness(old), abs=0.1)
    assert result.background_loudness == pytest.approx(loudness(new), abs=0.1)
    assert np.corrcoef(new[:, 0], old[:, 0])[0, 1] < 0.5


def test_the_ratio_of_speech_to_a_new_background_can_be_told(codec, files, tmp_path):
    exchange_background(files / "scene.wav", files / "rain.wav", tmp_path / "a.wav", codec=codec, snr=12)
    new = background_of(tmp_path / "a.wav", files)
    assert loudness(read(files / "speech.wav")) - loudness(new) == pytest.approx(12, abs=0.1)


@pytest.mark.parametrize("kind", ["decodec", "three"])
def test_a_sdc_with_a_new_background_keeps_the_codes_of_speech(codecs, files, tmp_path, kind):
    scene = tmp_path / "scene.sdc"
    compress(files / "scene.wav", scene, codec=codecs[kind].at_effort(0))
    exchange_background(scene, files / "rain.wav", tmp_path / "a.sdc", codec=codecs[kind])
    before, after = codes_of(scene), codes_of(tmp_path / "a.sdc")
    assert before.keys() == after.keys() == {(0, domain) for domain in codecs[kind].domains}
    for key in before:
        assert np.array_equal(before[key], after[key]) == (key == (0, "speech"))
    old, new = header_of(scene), header_of(tmp_path / "a.sdc")
    assert (new.envelope, new.treble, new.original_samples) == (old.envelope, old.treble, round(SECONDS * RATE))
    for name, stream in (("old", scene), ("new", tmp_path / "a.sdc")):
        decode(stream, {"speech": tmp_path / f"{name}.wav"}, codec=codecs[kind], below=8000)
    np.testing.assert_array_equal(read(tmp_path / "new.wav"), read(tmp_path / "old.wav"))


def test_channels_stay_as_many_as_they_were(codec, files, tmp_path):
    write(tmp_path / "stereo.wav", sound(0.5, channels=2))
    exchange_background(tmp_path / "stereo.wav", files / "rain.wav", tmp_path / "a.wav", codec=codec)
    exchange_background(files / "scene.sdc", tmp_path / "stereo.wav", tmp_path / "b.wav", codec=codec)
    exchange_background(tmp_path / "stereo.wav", files / "rain.wav", tmp_path / "a.sdc", codec=codec, snr=0)
    assert (read(tmp_path / "a.wav").shape[1], read(tmp_path / "b.wav").shape[1]) == (2, 1)
    assert {channel for channel, _ in codes_of(tmp_path / "a.sdc")} == {0, 1}
    enhance(tmp_path / "stereo.wav", tmp_path / "c.wav", codec=codec, channels="mono")
    assert read(tmp_path / "c.wav").shape[1] == 1


def test_what_there_is_nothing_to_go_by_is_said(codec, files, tmp_path):
    enhance(files / "scene.sdc", tmp_path / "a.sdc", codec=codec)
    write(tmp_path / "silence.wav", np.zeros((RATE, 1), np.float32))
    for source, other, snr, message in (
        (tmp_path / "a.sdc", files / "rain.wav", None, "has no background whose level could be taken over"),
        (files / "scene.sdc", tmp_path / "a.sdc", None, "a.sdc: has no background; it has speech"),
        (files / "scene.sdc", tmp_path / "silence.wav", None, "its background is silent"),
        (tmp_path / "silence.wav", files / "rain.wav", 3, "nobody speaks in it, so --snr means nothing"),
    ):
        with pytest.raises(InputError, match=message):
            exchange_background(source, other, tmp_path / "b.wav", codec=codec, snr=snr)
    assert not (tmp_path / "b.wav").exists()
    exchange_background(tmp_path / "a.sdc", files / "scene.sdc", tmp_path / "b.wav", codec=codec, snr=6)
    compress(files / "scene.wav", tmp_path / "c.sdc", codec=codec, domains=codec.domains[1:], envelope=False)
    with pytest.raises(InputError, match="c.sdc: has no speech; it has "):
        enhance(tmp_path / "c.sdc", tmp_path / "c.wav", codec=codec)


def test_a_model_that_does_not_know_speech_is_refused(tmp_path):
    codec = load_codec(write_tiny(tmp_path / "m", tiny_bands()), runtime="torch", device="cpu")
    write(tmp_path / "a.wav", sound(0.5))
    with pytest.raises(ModelError, match="tiny-bands: does not tell speech from other sounds"):
        enhance(tmp_path / "a.wav", tmp_path / "b.wav", codec=codec)


def test_a_file_that_was_cut_is_refused(codec, files, tmp_path):
    cut(files / "scene.sdc", tmp_path / "part.sdc", start=1.2)
    with pytest.raises(InputError, match=r"part\.sdc: was cut or joined, which this cannot do; decode it, and give"):
        enhance(tmp_path / "part.sdc", tmp_path / "a.wav", codec=codec)


def test_what_is_damaged_is_told_and_nothing_moves(codec, files, tmp_path):
    data = bytearray((files / "scene.sdc").read_bytes())
    data[data.index(SYNC) + 5] ^= 0xFF  # a head, without which the segment is lost
    (tmp_path / "a.sdc").write_bytes(data)
    for target in ("b.sdc", "b.wav"):
        assert enhance(tmp_path / "a.sdc", tmp_path / target, codec=codec).problems
    assert len(read(tmp_path / "b.wav")) == round(SECONDS * RATE)
    assert exchange_background(tmp_path / "a.sdc", files / "rain.wav", tmp_path / "c.sdc", codec=codec, snr=3).problems
    decode(tmp_path / "c.sdc", {"mix": tmp_path / "c.wav"}, codec=codec)
    assert len(read(tmp_path / "c.wav")) == round(SECONDS * RATE)


def test_a_stream_that_is_cut_off_ends_there(codec, files, tmp_path):
    data = (files / "scene.sdc").read_bytes()
    (tmp_path / "a.sdc").write_bytes(data[: data.rindex(SYNC)])
    result = enhance(tmp_path / "a.sdc", tmp_path / "b.sdc", codec=codec)
    assert "stops after 2.00 s" in result.problems[0]
    assert result.seconds == 2.0


def test_codes_that_are_put_together_get_the_treble_of_their_audio(codec, files):
    with opened(files / "scene.sdc", lambda header: codec) as scene, scene.reader() as reader:
        assert scene.header.treble
        parts = list(scene.parts(reader, [entry.name for entry in scene.header.domains]))
        bare = [dataclasses.replace(part, treble={}) for part in parts]
        with AudioReader(files / "scene.wav") as audio:
            offset = np.concatenate(list(audio.blocks()), axis=1).mean(dtype=np.float64).astype(np.float32)
            wavs = (block - offset for block in audio.blocks(0.37))
            found = list(with_treble(iter(bare), wavs, codec, scene.header))
    assert list(parts[0].treble) == [0]
    assert [part.gains for part in found] == [part.gains for part in parts]
    np.testing.assert_array_equal(found[0].treble[0], parts[0].treble[0])


def test_a_file_of_several_stages_keeps_all_streams_of_speech(files, tmp_path):
    recipe = tiny_bands(domains=("speech", "music", "sfx"))
    codec = load_codec(write_tiny(tmp_path / "m", recipe), runtime="torch", device="cpu")
    compress(files / "rain.wav", tmp_path / "a.sdc", codec=codec)
    exchange_background(tmp_path / "a.sdc", files / "rain.wav", tmp_path / "b.sdc", codec=codec, snr=0)
    before, after = codes_of(tmp_path / "a.sdc"), codes_of(tmp_path / "b.sdc")
    for name in ("speech", "speech-2"):
        np.testing.assert_array_equal(after[0, name], before[0, name])
    assert (0, "music-2") in after


@pytest.mark.parametrize("block", [7, 50, 1000])
def test_sound_that_is_repeated_fades_into_its_own_beginning(block):
    wav = np.ones((1, 100), np.float32)

    def once():
        return (wav[:, start : start + block] for start in range(0, 100, block))

    found = np.concatenate(list(itertools.islice(repeated(once, 10), 60)), axis=1)[0]
    assert len(found) > 280
    np.testing.assert_allclose(found[:90], 1)
    # A cosine goes down as a sine goes up.
    angle = np.linspace(0, np.pi / 2, 10)
    np.testing.assert_allclose(found[90:100], np.sin(angle) + np.cos(angle), rtol=1e-5)
    np.testing.assert_allclose(found[180:190], found[90:100])
    np.testing.assert_allclose(found[100:180], 1)


def test_sound_that_is_too_short_to_fade_is_repeated_as_it_is_and_none_ends():
    wav = np.arange(5, dtype=np.float32)[None]
    found = np.concatenate(list(itertools.islice(repeated(lambda: iter([wav]), 10), 3)), axis=1)
    np.testing.assert_array_equal(found[0], np.tile(np.arange(5), 3))
    assert list(repeated(lambda: iter([]), 10)) == []


def test_codes_of_an_encoder_come_in_segments_of_any_length():
    codes = np.arange(2 * 250).reshape(2, 250)
    segments = (
        (CodedSegment(min(100, 250 - at), {"a": codes[:, at : at + 100]}, {"a": at != 100}),) for at in (0, 100, 200)
    )
    new = _NewCodes(segments, {"a": 1})
    first, second, third, last = (new.take(count)[0, "a"] for count in (60, 60, 80, 51))
    np.testing.assert_array_equal(first, codes[:, :60])
    np.testing.assert_array_equal(second, codes[:, 60:120])  # partly silent
    assert third is None
    np.testing.assert_array_equal(last, np.concatenate([codes[:, 200:], codes[:, -1:]], axis=1))
    assert new.take(10) == {}


@pytest.mark.slow
def test_the_model_that_ships_comes_within_a_decibel_and_leaves_speech_alone(embedded, tmp_path):
    scene = Path(__file__).resolve().parents[1] / "docs" / "scene.flac"
    write(tmp_path / "rain.wav", sound(3.0, seed=1))
    for snr in (None, 10):
        result = exchange_background(
            scene, tmp_path / "rain.wav", tmp_path / "a.sdc", codec=lambda h: embedded, snr=snr, overwrite=True
        )
        enhance(scene, tmp_path / "speech.wav", codec=embedded, overwrite=True)
        speech = read(tmp_path / "speech.wav")
        if snr is None:
            enhance(scene, tmp_path / "whole.wav", codec=embedded, background=0)
            wanted = loudness(read(tmp_path / "whole.wav") - speech)
        else:
            wanted = loudness(speech) - snr
        targets = {stem: tmp_path / f"{stem}.wav" for stem in ("mix", "speech")}
        decode(Path(result.output), targets, codec=embedded, overwrite=True)
        kept = read(targets["speech"])
        assert result.background_loudness == pytest.approx(wanted, abs=1)
        assert 10 * np.log10(np.square(speech).sum() / np.square(speech - kept).sum()) > 10
