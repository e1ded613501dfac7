"""One voice to another: which frames of a reference are chosen, and what becomes of codes, levels and lengths."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
from speech_examples import RATE, codes_of, header_of, loudness, read, small_codec, sound, write

from sdcodec_cli import load_codec
from sdcodec_cli.engine.background import enhance
from sdcodec_cli.engine.codec import Codec
from sdcodec_cli.engine.compress import compress
from sdcodec_cli.engine.voice import VoiceBank, VoiceSelector, convert_voice, default_model, semantic_models
from sdcodec_cli.errors import InputError, ModelError

from tiny_models import tiny_decodec, write_tiny

SIZE = 40
"""Entries of the codebook of a made-up voice, evenly spaced on a half circle: neighbours are near."""


def bank_of(said: list[int], pitch: list[float] | None = None, ends: tuple[int, ...] = ()) -> VoiceBank:
    angles = np.pi * np.arange(SIZE) / SIZE
    goes_on = np.ones(len(said), dtype=bool)
    goes_on[[*ends, len(said) - 1]] = False
    return VoiceBank(
        codebook=np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32),
        said=np.array(said),
        sounds=np.arange(3 * len(said)).reshape(3, -1),
        pitch=np.array(pitch or np.zeros(len(said)), dtype=np.float32),
        goes_on=goes_on,
    )


def chosen(bank: VoiceBank, said: list[int], pitch: list[float] | None = None) -> list[int]:
    given = np.array(pitch or np.zeros(len(said)), dtype=np.float32)
    return VoiceSelector(bank).choose(np.array(said), given).tolist()


def test_what_the_reference_says_word_for_word_is_taken_as_it_says_it():
    said = np.random.default_rng(0).integers(0, SIZE, 200).tolist()
    assert chosen(bank_of(said), said[50:90]) == list(range(50, 90))


def test_what_it_never_says_is_taken_from_what_comes_closest():
    bank = bank_of([0, 10, 20, 30, 39])
    assert chosen(bank, [9]) == [1]
    assert chosen(bank, [22, 33]) == [2, 3]


def test_of_frames_that_say_the_same_the_one_of_the_nearest_pitch_is_taken():
    bank = bank_of([5] * 4, pitch=[-1.0, 0.0, 0.6, np.nan], ends=(0, 1, 2))
    assert chosen(bank, [5, 5, 5], pitch=[0.5, -0.9, np.nan]) == [2, 0, 3]


def test_frames_in_a_row_are_preferred_to_a_pitch_that_is_a_little_nearer():
    bank = bank_of([1, 2, 3, 1, 2, 3], pitch=[0.1, 0.1, 0.1, 0, 0.3, 0], ends=(2,))
    assert chosen(bank, [1, 2, 3]) == [0, 1, 2]


def test_a_run_goes_on_where_the_one_before_ended_unless_there_was_a_pause():
    bank = bank_of([7] * 6, pitch=[0, 0.2, 0.2, 0, 0, 0])
    flat = np.zeros(1, dtype=np.float32)
    selector = VoiceSelector(bank)
    selector._last = 0
    assert selector.choose(np.array([7]), flat).tolist() == [1]
    selector.pause()
    assert selector.choose(np.array([7]), flat).tolist() == [0]


def test_no_choice_depends_on_frames_that_say_the_same_being_many():
    rng = np.random.default_rng(1)
    pitch = rng.normal(0, 0.5, 3000)
    bank = bank_of([3] * 3000, pitch=pitch.tolist(), ends=tuple(range(3000)))
    wanted = [-0.5, 0.0, 0.7]
    assert chosen(bank, [3, 3, 3], pitch=wanted) == [int(np.abs(bank.pitch - each).argmin()) for each in wanted]


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return small_codec("decodec", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def files(codec: Codec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for name, seconds, seed in (("talk", 2.3, 0), ("other", 1.1, 1)):
        write(folder / f"{name}.wav", sound(seconds, seed=seed))
        compress(folder / f"{name}.wav", folder / f"{name}.sdc", codec=codec.at_effort(0))
    return folder


def test_what_is_said_stays_and_how_it_sounds_is_the_reference_s(codec, files, tmp_path):
    result = convert_voice(files / "talk.sdc", files / "other.wav", tmp_path / "a.sdc", codec=codec)
    assert (result.seconds, result.notes, result.problems) == (2.3, (), ())
    before, after, voice = (codes_of(path) for path in (files / "talk.sdc", tmp_path / "a.sdc", files / "other.sdc"))
    key = (0, "speech")
    assert list(after) == [key]
    np.testing.assert_array_equal(after[key][0], before[key][0])
    known = {tuple(frame) for frame in voice[key][1:].T}
    assert {tuple(frame) for frame in after[key][1:].T} <= known
    assert header_of(tmp_path / "a.sdc").domains[0].groups == (1, 4, 1)


def test_a_converted_voice_is_as_long_and_as_loud_as_what_it_was_made_of(codec, files, tmp_path):
    enhance(files / "talk.sdc", tmp_path / "talk.wav", codec=codec)
    convert_voice(files / "talk.wav", files / "other.sdc", tmp_path / "a.wav", codec=codec)
    before, after = read(tmp_path / "talk.wav"), read(tmp_path / "a.wav")
    assert before.shape == after.shape
    assert loudness(after) == pytest.approx(loudness(before), abs=0.1)


def test_a_recording_in_its_own_voice_is_itself(codec, files, tmp_path):
    convert_voice(files / "talk.sdc", files / "talk.sdc", tmp_path / "a.sdc", codec=codec)
    before, after = codes_of(files / "talk.sdc"), codes_of(tmp_path / "a.sdc")
    np.testing.assert_array_equal(after[0, "speech"], before[0, "speech"])


def test_every_channel_is_converted(codec, files, tmp_path):
    write(tmp_path / "stereo.wav", sound(0.5, channels=2))
    convert_voice(tmp_path / "stereo.wav", files / "other.sdc", tmp_path / "a.sdc", codec=codec)
    assert set(codes_of(tmp_path / "a.sdc")) == {(0, "speech"), (1, "speech")}
    compress(tmp_path / "stereo.wav", tmp_path / "stereo.sdc", codec=codec.at_effort(0), channels="keep")
    convert_voice(files / "other.sdc", tmp_path / "stereo.sdc", tmp_path / "b.sdc", codec=codec)
    assert set(codes_of(tmp_path / "b.sdc")) == {(0, "speech")}


def test_a_reference_without_speech_or_without_a_voice_is_refused(codec, files, tmp_path):
    write(tmp_path / "silence.wav", np.zeros((RATE, 1), np.float32))
    run = functools.partial(convert_voice, files / "talk.sdc", target=tmp_path / "a.wav", codec=codec)
    with pytest.raises(InputError, match="silence.wav: nobody speaks in it; take a recording of the voice"):
        run(tmp_path / "silence.wav")
    compress(files / "other.wav", tmp_path / "low.sdc", codec=codec, num_codebooks=1, envelope=False)
    with pytest.raises(InputError, match="low.sdc: has the codebook of what is said alone"):
        run(tmp_path / "low.sdc")


def test_codes_of_another_model_are_refused(codec, files, tmp_path):
    other = load_codec(write_tiny(tmp_path / "m", tiny_decodec(teacher=True), seed=7), runtime="torch", device="cpu")
    compress(files / "other.wav", tmp_path / "b.sdc", codec=other.at_effort(0))

    def found(header):
        return other if header and header.weights_sha256 == other.weights_sha256 else codec

    with pytest.raises(ModelError, match="b.sdc: was made with other weights than .*talk.sdc"):
        convert_voice(files / "talk.sdc", tmp_path / "b.sdc", tmp_path / "a.wav", codec=found)


def test_a_model_without_a_codebook_for_what_is_said_names_those_that_have_one(files, tmp_path):
    recipe = tiny_decodec()
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, activity=False))
    codec = load_codec(write_tiny(tmp_path / "m", recipe), runtime="torch", device="cpu")
    with pytest.raises(ModelError, match=r"tiny-decodec: has no codebook for what is said.*decodec-16k-mini"):
        convert_voice(files / "talk.wav", files / "other.wav", tmp_path / "a.wav", codec=codec)
    compress(files / "talk.wav", tmp_path / "talk.sdc", codec=codec)
    with pytest.raises(ModelError, match=r"talk.sdc: is coded with tiny-decodec, which has .*; give the audio that it"):
        convert_voice(tmp_path / "talk.sdc", files / "other.wav", tmp_path / "a.wav", codec=codec)


def test_models_that_can_convert_are_those_with_a_teacher():
    assert {name.split()[0] for name in semantic_models()} == {"decodec-16k", "decodec-16k-causal", "decodec-16k-mini"}
    assert default_model() in (None, "decodec-16k-mini")
