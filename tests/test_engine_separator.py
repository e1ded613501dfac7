"""Models that separate and have no codes: blocks, levels, channels, files."""

from __future__ import annotations

import dataclasses
import tracemalloc

import av
import numpy as np
import pytest
import soundfile

from sdcodec_cli import load_codec
from sdcodec_cli.audio import Soundtrack, read_mono
from sdcodec_cli.engine.bench import bench
from sdcodec_cli.engine.separate import separate, separate_wav
from sdcodec_cli.engine.separator import Separator, StreamSeparator, load_system, open_separator
from sdcodec_cli.errors import ModelError
from sdcodec_cli.families import build
from sdcodec_cli.runtime import SeparatorModel
from sdcodec_cli.runtime.graphs import make_graphs
from sdcodec_cli.zoo import find, replace_graphs

from cli_examples import sdc
from film_examples import FILM_RATE, chirp, film
from tiny_models import tiny_recipe, tiny_separator, write_tiny

RATE = 16_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny", tiny_separator())


@pytest.fixture(scope="module")
def model(folder):
    return open_separator(folder, runtime="torch", device="cpu", threads=None)


class Shares:
    """A network that gives its stems fixed shares of the audio, and notes how long its blocks are."""

    name, device, threads = "fake", "cpu", 1

    def __init__(self, shares, *, hop_length=48):
        self.shares, self.sizes, self.lengths, self.levels = np.array(shares), {"hop_length": hop_length}, [], []

    def run(self, part, wav):
        assert part == "separate"
        self.lengths.append(len(wav))
        self.levels.append(float(np.sqrt(np.mean(np.square(wav)))))
        return [(self.shares[:, None] * wav).astype(np.float32)]

    def prepare(self, parts, *, wait):
        pass


def fake(*shares):
    runtime = Shares(shares)
    return Separator(SeparatorModel("fake", tiny_separator(), bytes(32), runtime)), runtime


def noise(seconds, *, channels=1, seed=0):
    wav = np.random.default_rng(seed).standard_normal((channels, round(seconds * RATE))) * 0.05
    return (wav - wav.mean(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("seconds", [0.001, 0.3, 1.0, 1.0001, 1.5, 1.75, 1.7501, 5.3])
def test_every_length_comes_back_and_stems_add_up(model, seconds):
    wav = noise(seconds, channels=2) + np.float32(0.05)
    stems = separate_wav(wav, codec=model)
    assert stems.shape == (3, *wav.shape)
    np.testing.assert_allclose(stems.sum(0), wav, atol=1e-6)


@pytest.mark.parametrize("seconds", [0.3, 1.0, 1.75, 5.3])
def test_blocks_fade_into_one_another_without_a_seam(seconds):
    separator, _ = fake(0.5, 0.3, 0.2)
    wav = noise(seconds)
    stems = separate_wav(wav, codec=separator)
    for stem, share in zip(stems, (0.5, 0.3, 0.2), strict=True):
        np.testing.assert_allclose(stem, share * wav, atol=1e-6)


def test_what_the_outputs_lack_of_the_input_is_shared_out_equally():
    separator, _ = fake(0.6, 0.1, 0.0)
    wav = noise(0.5)
    stems = separate_wav(wav, codec=separator)
    for stem, share in zip(stems, (0.7, 0.2, 0.1), strict=True):
        np.testing.assert_allclose(stem, share * wav, atol=1e-6)


def test_the_last_block_ends_with_the_audio_and_sees_no_silence_that_is_not_there():
    separator, runtime = fake(1, 0, 0)
    separate_wav(noise(5.3), codec=separator)
    assert set(runtime.lengths) == {16_032}  # a second, filled up to whole hops
    separator, runtime = fake(1, 0, 0)
    separate_wav(noise(0.3), codec=separator)
    assert runtime.lengths == [4800]


def test_the_network_hears_every_channel_by_itself_at_the_level_it_was_trained_on():
    separator, runtime = fake(1, 0, 0)
    quiet = noise(4.0, channels=2) * np.float32(0.01)
    stems = separate_wav(quiet, codec=separator)
    np.testing.assert_allclose(stems[0], quiet, atol=1e-7)
    loud_separator, loud_runtime = fake(1, 0, 0)
    separate_wav(quiet[:1] * np.float32(100), codec=loud_separator)
    assert runtime.levels[0] == pytest.approx(loud_runtime.levels[0], rel=0.1)


@pytest.mark.parametrize("piece", [1000, 16_000, 50_000])
def test_stems_do_not_depend_on_how_audio_arrives(model, piece):
    wav = noise(3.7)
    zero = np.zeros((1, 1), dtype=np.float32)
    whole, pieces = (StreamSeparator(model.model, 1, 3.0, zero) for _ in range(2))
    expected = np.concatenate([*whole.push(wav), *whole.finish()], axis=-1)
    found = [out for start in range(0, wav.shape[1], piece) for out in pieces.push(wav[:, start : start + piece])]
    assert np.array_equal(np.concatenate([*found, *pieces.finish()], axis=-1), expected)


def test_memory_does_not_grow_with_length():
    def peak(seconds):
        separator, _ = fake(1, 0, 0)
        stream = StreamSeparator(separator.model, 1, 0.0, np.zeros((1, 1), dtype=np.float32))
        tracemalloc.start()
        for _ in range(seconds):
            for _ in stream.push(np.zeros((1, RATE), dtype=np.float32)):
                pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak(60) < 1.1 * peak(6)


@pytest.mark.slow
def test_both_runtimes_give_the_same_stems_and_bear_silence(tmp_path):
    """The exporter leaves out what it takes for adding nothing, and the logarithm of zero would be no number."""
    recipe = tiny_separator()
    sizes = dataclasses.replace(recipe.separator, num_filters=64, joint_decoder=False, magnitudes=True)
    recipe = dataclasses.replace(recipe, separator=sizes)
    folder = write_tiny(tmp_path / "tiny", recipe)
    replace_graphs(folder, make_graphs(recipe))
    one, other = (open_separator(folder, runtime=name, device="cpu", threads=1) for name in ("onnx", "torch"))
    wav = noise(2.6, channels=2)
    np.testing.assert_allclose(separate_wav(wav, codec=one), separate_wav(wav, codec=other), atol=1e-5)
    assert not separate_wav(np.zeros((1, RATE), dtype=np.float32), codec=one).any()


def test_files_of_any_rate_and_channels_come_back_as_stems_that_add_up(model, tmp_path):
    rng = np.random.default_rng(0)
    wav = np.cumsum(rng.standard_normal((2 * 44_100, 2)), axis=0)
    wav = (wav - wav.mean(0)) / np.abs(wav).max() * 0.3
    soundfile.write(tmp_path / "a.wav", wav, 44_100, subtype="FLOAT")
    targets = {domain: tmp_path / f"{domain}.wav" for domain in model.domains}
    result = separate(tmp_path / "a.wav", targets, codec=model)
    assert (result.views, result.model) == (None, "tiny-tdanet")
    stems = [soundfile.read(path)[0] for path in targets.values()]
    assert {stem.shape for stem in stems} == {wav.shape}
    error = sum(stems) - wav  # files of 16 bits
    assert np.square(error).mean() < 1e-7 * np.square(wav).mean()


def test_a_film_without_speech_has_its_picture_and_all_other_stems(model, tmp_path):
    wav = chirp(1.0)
    source = film(tmp_path / "a.mkv", [wav], codec="flac", picture_seconds=1.0)
    targets = {"without-speech": tmp_path / "b.mkv", "speech": tmp_path / "c.mkv"}
    result = separate(source, targets, codec=model, soundtrack=Soundtrack())
    assert (result.notes, result.clipped) == ((), {"without-speech": 0, "speech": 0})
    found = []
    for path in targets.values():
        with av.open(str(path)) as container:
            assert [stream.type for stream in container.streams] == ["video", "audio"]
        found.append(read_mono(path, FILM_RATE))
    np.testing.assert_allclose(sum(found), wav[0], atol=1e-4)
    with pytest.raises(ValueError, match="tiny-tdanet has no voice; choose from speech, music, sfx"):
        separate(source, {"without-voice": tmp_path / "d.wav"}, codec=model)


def test_views_are_refused_where_there_are_no_masks(model):
    with pytest.raises(ValueError, match="views are of masks, and tiny-tdanet has none; leave them out"):
        separate_wav(noise(0.1), codec=model, views=2)


def test_the_command_line_separates_with_it_and_says_what_it_cannot_do(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", noise(0.5)[0], RATE)
    run = sdc("separate", "a.wav", "--model", folder, "-o", "stems/", "--json")
    assert run.exit_code == 0, run.stderr
    assert '"views": null' in run.stdout
    assert sorted(path.name for path in (tmp_path / "stems").iterdir()) == ["a.music.wav", "a.sfx.wav", "a.speech.wav"]
    run = sdc("separate", "a.wav", "--model", folder, "-o", "more/", "--views", "2")
    assert (run.exit_code, run.stderr.count("\n")) == (2, 1)
    assert "--views 2: views are of masks, and tiny-tdanet makes none; leave the option out" in run.stderr
    run = sdc("compress", "a.wav", "--model", folder)
    assert run.exit_code == 1
    assert "tiny-tdanet: has no codes, it only separates" in run.stderr
    assert sdc("models", "show", folder).stdout.count("no codes") == 1


def test_codes_are_asked_of_a_recipe_before_its_weights_are_missed():
    with pytest.raises(ModelError, match="tdanet-16k: has no codes, it only separates"):
        load_codec("tdanet-16k")
    with pytest.raises(ModelError, match="tdanet-16k: this recipe comes without weights"):
        open_separator("tdanet-16k", runtime="auto", device="cpu", threads=None)


def test_a_codec_separates_through_the_same_door(tmp_path):
    codec = open_separator(write_tiny(tmp_path / "codec", tiny_recipe()), runtime="torch", device="cpu", threads=None)
    assert separate_wav(noise(0.2), codec=codec, views=1).shape == (3, 1, 3200)


def test_the_full_size_has_the_papers_number_of_weights():
    network = build(find("tdanet-16k").recipe)
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(2.345e6, abs=500)


def test_a_benchmark_of_it_is_of_separation_alone(model):
    result = bench(model, in_torch=model, seconds=1.0, repeats=1)
    assert result.separate > 0
    assert (result.encode, result.decode_mix, result.effort) == (None, None, None)
    assert [part.part for part in result.parts] == ["separate"]
    assert all(part.seconds > 0 and part.torch_seconds > 0 for part in result.parts)


def test_an_effort_is_refused_where_nothing_is_encoded(folder):
    with pytest.raises(ValueError, match="effort is of encoding, and tiny-tdanet has no codes; leave it out"):
        load_system(folder, device="cpu", effort=4)
