"""What compress and separate make of several channels and tracks, and what they say about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_examples import noise
from cover_examples import picture, png

from sdcodec_cli import load_codec
from sdcodec_cli.audio import AudioReader, AudioWriter, Cover, Wav
from sdcodec_cli.bitstream import Reader
from sdcodec_cli.engine.codec import Codec
from sdcodec_cli.engine.compress import compress
from sdcodec_cli.engine.decode import decode
from sdcodec_cli.engine.separate import separate

from film_examples import film
from tiny_models import tiny_recipe, write_tiny

RATE = 16_000


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    recipe = tiny_recipe(activity=False)
    return load_codec(write_tiny(tmp_path_factory.mktemp("model") / "tiny", recipe), device="cpu")


def stored(path: Path, wav: Wav, mask: int | None = None) -> Path:
    with AudioWriter(path, RATE, len(wav), channel_mask=mask) as writer:
        writer.write(wav)
    return path


def test_what_channels_are_for_survives_in_a_stream_that_keeps_them(codec: Codec, tmp_path: Path) -> None:
    source = stored(tmp_path / "a.wav", noise(0.5, channels=6), 0x3F)
    compress(source, tmp_path / "a.sdc", codec=codec, channels="keep")
    for name in ("mix.wav", "mix.flac"):
        decode(tmp_path / "a.sdc", {"mix": tmp_path / name}, codec=lambda header: codec)
        with AudioReader(tmp_path / name) as reader:
            assert reader.info.channel_mask == 0x3F
    separate(source, {"speech": tmp_path / "speech.wav"}, codec=codec, views=1)
    with AudioReader(tmp_path / "speech.wav") as reader:
        assert reader.info.channel_mask == 0x3F


@pytest.mark.parametrize(
    ("mask", "note"),
    [
        (
            0x3F,
            "5.1 channels were mixed down to one as for a film, with centre and surrounds at −3 dB and without the LFE",
        ),
        (None, "6 channels were mixed down to one, their mean: the file does not say what they are for"),
    ],
)
def test_a_note_says_how_channels_were_mixed_down(codec: Codec, tmp_path: Path, mask: int | None, note: str) -> None:
    source = stored(tmp_path / "a.wav", noise(0.5, channels=6), mask)
    found = compress(source, tmp_path / "a.sdc", codec=codec).channels_note
    assert found == f"{note}; --channels keep codes each by itself"


@pytest.mark.parametrize("factor", [-1.0, -0.98])
def test_a_down_mix_that_loses_its_channels_is_told(codec: Codec, tmp_path: Path, factor: float) -> None:
    wav = noise(1.0)
    source = stored(tmp_path / "a.wav", np.concatenate([wav, np.float32(factor) * wav]))
    lost = "hardly anything is left in the down-mix, because its channels cancel each other"
    result = compress(source, tmp_path / "a.sdc", codec=codec)
    assert result.notes == (f"{lost}; --channels keep codes each by itself",)
    assert compress(source, tmp_path / "b.sdc", codec=codec, channels="keep").notes == ()
    assert separate(source, {"sfx": tmp_path / "sfx.wav"}, codec=codec, views=1).notes == (
        f"{lost}, and that is what the model hears, so its stems mean little; "
        "invert one channel, or separate each by itself",
    )


def test_an_lfe_alone_is_lost_in_the_down_mix_of_a_film_and_that_is_told(codec: Codec, tmp_path: Path) -> None:
    wav = np.zeros((6, RATE), np.float32)
    wav[3] = noise(1.0)
    (note,) = compress(stored(tmp_path / "a.wav", wav, 0x3F), tmp_path / "a.sdc", codec=codec).notes
    assert "cancel each other, or only the LFE is heard" in note


def test_other_channels_have_no_note(codec: Codec, tmp_path: Path) -> None:
    wav, other, nothing = noise(1.0), noise(1.0, seed=1), np.zeros((1, RATE), np.float32)
    surround_alone = np.concatenate([nothing] * 4 + [wav, nothing])
    for number, several in enumerate(([wav, nothing], [wav, wav], [wav, other], surround_alone)):
        joined = several if isinstance(several, np.ndarray) else np.concatenate(several)
        source = stored(tmp_path / f"{number}.wav", joined, 0x3F if len(joined) == 6 else None)
        assert separate(source, {"sfx": tmp_path / f"{number}.sfx.wav"}, codec=codec, views=1).notes == ()


def test_what_is_too_quiet_to_be_heard_is_told(codec: Codec, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(RATE, 5e-5), RATE, subtype="FLOAT")
    quiet = "nothing in it is louder than −80 dBFS"
    compressed = compress(tmp_path / "a.wav", tmp_path / "a.sdc", codec=codec)
    assert compressed.notes == (f"{quiet}, so the file is silent; raise its level first",)
    separated = separate(tmp_path / "a.wav", {"sfx": tmp_path / "sfx.wav"}, codec=codec, views=1)
    assert separated.notes == (f"{quiet}, so its stems are equal shares of it; raise its level first",)


def test_a_track_of_a_film_is_compressed_and_separated(codec: Codec, tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", [noise(0.5), noise(1.0)], codec="flac", rate=RATE)
    for track, seconds in ((1, 0.5), (2, 1.0)):
        result = compress(path, tmp_path / "a.sdc", codec=codec, track=track, overwrite=True)
        assert result.seconds == seconds
        targets = {"sfx": tmp_path / "sfx.wav"}
        assert separate(path, targets, codec=codec, views=1, track=track, overwrite=True).seconds == seconds


def test_a_cover_comes_back_with_the_audio_where_it_was_asked_for(codec: Codec, tmp_path: Path) -> None:
    source, targets = tmp_path / "a.mp3", {"mix": tmp_path / "b.m4a", "speech": tmp_path / "b.wav"}
    with AudioWriter(source, RATE, 2, tags={"title": "Tune"}, cover=Cover.of(png())) as writer:
        writer.write(noise(0.5, channels=2))
    result = compress(source, tmp_path / "a.sdc", codec=codec, cover=True, channels="keep")
    assert (result.cover_bytes, result.notes) == (len(png()), ())
    decoded = decode(tmp_path / "a.sdc", targets, codec=codec)
    assert decoded.notes == ("16 bit WAV holds no cover, so that of the input is left out",)
    with AudioReader(tmp_path / "b.m4a") as reader:
        assert (reader.cover(), reader.info.tags, reader.info.channels) == (png(), {"title": "Tune"}, 2)
        assert sum(block.shape[1] for block in reader.blocks()) == RATE // 2
    stems = {"speech": tmp_path / "speech.flac", "sfx": tmp_path / "sfx.m4a"}
    assert separate(source, stems, codec=codec, views=1, cover=True).notes == ()
    for path in stems.values():
        with AudioReader(path) as reader:
            assert (reader.cover(), reader.info.tags) == (png(), {"title": "Tune"})
    compress(source, tmp_path / "plain.sdc", codec=codec)
    with (tmp_path / "plain.sdc").open("rb") as file:
        assert Reader(file).cover() is None


def test_a_cover_that_is_not_stored_has_a_note(codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, target = tmp_path / "a.flac", tmp_path / "a.sdc"

    def notes(cover: Cover | None) -> tuple[str, ...]:
        with AudioWriter(path, RATE, 1, cover=cover, overwrite=True) as writer:
            writer.write(noise(0.2))
        return compress(path, target, codec=codec, cover=True, overwrite=True).notes

    assert notes(None) == ("has no cover",)
    bitmap = Cover(picture("bmp", "bgr24", 4, 4), "image/bmp", 4, 4)
    assert notes(bitmap) == ("its cover is neither JPEG nor PNG, and is left out; convert it first",)
    large = Cover.of(png(30, 30))
    assert notes(large) == ("its cover takes 3 kB, more than its sound",)
    monkeypatch.setattr("sdcodec_cli.engine.tags.MAX_COVER_BYTES", 2000)
    assert notes(large) == ("its cover of 3 kB, more than 2 kB, is left out; make it smaller first",)
    with pytest.raises(ValueError, match="a live source has no cover; leave it out"):
        compress(path, target, codec=codec, cover=True, live=True)


def test_tags_come_back_with_the_audio(codec: Codec, tmp_path: Path) -> None:
    with AudioWriter(tmp_path / "a.flac", RATE, 1, tags={"title": "Talk", "date": "2026"}) as writer:
        writer.write(noise(0.5))
    compress(tmp_path / "a.flac", tmp_path / "a.sdc", codec=codec)
    decode(tmp_path / "a.sdc", {"mix": tmp_path / "b.wav", "speech": tmp_path / "b.ogg"}, codec=codec)
    for name in ("b.wav", "b.ogg"):
        with AudioReader(tmp_path / name) as reader:
            assert reader.info.tags == {"title": "Talk", "date": "2026"}
