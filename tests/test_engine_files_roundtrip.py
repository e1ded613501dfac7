"""compress, decode and separate on real files: lengths, rates, channels, excerpts, damage."""

from __future__ import annotations

import io
import math
import re
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sdcodec_cli import load_codec
from sdcodec_cli.audio import AudioReader, integrated_loudness
from sdcodec_cli.audio.masks import mask_mixture
from sdcodec_cli.bitstream import Reader
from sdcodec_cli.engine.codec import Codec
from sdcodec_cli.engine.compress import compress
from sdcodec_cli.engine.conceal import REACH_FRAMES
from sdcodec_cli.engine.decode import decode
from sdcodec_cli.engine.separate import MAX_VIEWS, separate, separate_wav
from sdcodec_cli.engine.stream import SEGMENT_FRAMES
from sdcodec_cli.errors import InputError, ModelError, OutputError

from film_examples import chirp, film
from tiny_models import tiny_recipe, write_tiny


@pytest.fixture(scope="module")
def codec(tmp_path_factory) -> Codec:
    # Without the activity head every domain is there whenever there is sound.
    recipe = tiny_recipe(activity=False)
    return load_codec(write_tiny(tmp_path_factory.mktemp("model") / "tiny", recipe), device="cpu")


def noise(samples: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    wav = np.random.default_rng(seed).standard_normal((samples, channels)) * 0.05
    return wav.astype(np.float32)


def write(path: Path, wav: np.ndarray, rate: int) -> Path:
    soundfile.write(path, wav, rate, subtype="PCM_16")
    return path


def codes_of(path: Path) -> dict[tuple[int, str], np.ndarray]:
    with path.open("rb") as file:
        reader = Reader(file)
        parts: dict[tuple[int, str], list[np.ndarray]] = {}
        for segment in reader.segments():
            for key, codes in segment.codes.items():
                parts.setdefault(key, []).append(codes)
        assert not reader.problems
    return {key: np.concatenate(codes, axis=-1) for key, codes in parts.items()}


@pytest.mark.parametrize(
    ("rate", "samples", "channels"),
    [
        (16_000, 50_001, 1),
        (44_100, 100_003, 2),
        (8000, 12_345, 1),
        (48_000, 1, 1),
        (22_050, 221, 3),
        (96_000, 9_000, 1),
    ],
)
def test_rate_and_exact_length_come_back(codec, tmp_path, rate, samples, channels):
    source = write(tmp_path / "a.wav", noise(samples, channels), rate)
    done = compress(source, tmp_path / "a.sdc", codec=codec)
    assert done.bytes == (tmp_path / "a.sdc").stat().st_size
    targets = {"mix": tmp_path / "mix.wav", "music": tmp_path / "m.wav"}
    result = decode(tmp_path / "a.sdc", targets, codec=lambda h: codec)
    assert result.problems == ()
    for name in ("mix.wav", "m.wav"):
        info = soundfile.info(tmp_path / name)
        assert (info.samplerate, info.frames, info.channels) == (rate, samples, 1)
    assert result.seconds == pytest.approx(samples / rate)


def test_the_codes_in_a_file_are_those_of_the_python_api(codec, tmp_path):
    wav = noise(150_000)
    compress(write(tmp_path / "a.wav", wav, 16_000), tmp_path / "a.sdc", codec=codec)
    stored, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    expected = codec.encode(stored)
    for (channel, domain), codes in codes_of(tmp_path / "a.sdc").items():
        assert channel == 0
        assert np.array_equal(codes, expected.codes[domain][0])
    decode(tmp_path / "a.sdc", {"mix": tmp_path / "mix.wav"}, codec=lambda h: codec)
    decoded, _ = soundfile.read(tmp_path / "mix.wav", dtype="float32")
    assert float(np.abs(decoded - codec.decode(expected)).max()) < 2e-4


def test_channels_are_mixed_down_and_said_so_or_kept(codec, tmp_path):
    source = write(tmp_path / "a.wav", noise(40_000, 2), 16_000)
    mono = compress(source, tmp_path / "mono.sdc", codec=codec)
    assert mono.channels_note == "2 channels were mixed down to one; --channels keep codes each by itself"
    kept = compress(source, tmp_path / "kept.sdc", codec=codec, channels="keep")
    assert kept.channels_note == "2 channels, each coded by itself"
    assert len(codes_of(tmp_path / "kept.sdc")) == 6
    decode(tmp_path / "kept.sdc", {"mix": tmp_path / "b.wav"}, codec=lambda h: codec)
    wav, _ = soundfile.read(tmp_path / "b.wav")
    assert wav.shape == (40_000, 2)
    assert not np.array_equal(wav[:, 0], wav[:, 1])


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize(("start", "duration"), [(0.0, 1.0), (1.3, 2.2), (9.75, 4.0), (17.9, None), (17.0, 100.0)])
def test_an_excerpt_is_the_same_part_of_the_whole(codec, tmp_path, rate, start, duration):
    source = write(tmp_path / "a.wav", noise(round(18.4 * rate)), rate)
    compress(source, tmp_path / "a.sdc", codec=codec)
    decode(tmp_path / "a.sdc", {"mix": tmp_path / "whole.wav"}, codec=lambda h: codec)
    decode(tmp_path / "a.sdc", {"mix": tmp_path / "part.wav"}, codec=lambda h: codec, start=start, duration=duration)
    whole, _ = soundfile.read(tmp_path / "whole.wav")
    part, _ = soundfile.read(tmp_path / "part.wav")
    first = round(start * rate)
    stop = len(whole) if duration is None else min(len(whole), first + round(duration * rate))
    assert len(part) == stop - first
    assert float(np.abs(part - whole[first:stop]).max()) < 1e-4


def test_only_the_segments_of_an_excerpt_are_read(codec, tmp_path, monkeypatch):
    source = write(tmp_path / "a.wav", noise(60 * 16_000), 16_000)
    compress(source, tmp_path / "a.sdc", codec=codec)
    read = []
    original = Reader.segments

    def spy(self, *args, **kwargs):
        for segment in original(self, *args, **kwargs):
            read.append(segment.start_frame // SEGMENT_FRAMES)
            assert set(segment.codes) == {(0, "speech")}
            yield segment

    monkeypatch.setattr(Reader, "segments", spy)
    decode(tmp_path / "a.sdc", {"speech": tmp_path / "b.wav"}, codec=lambda h: codec, start=30, duration=2)
    assert read[0] >= 13
    assert read[-1] <= 17


def test_an_excerpt_beyond_the_end_is_an_error_and_leaves_nothing(codec, tmp_path):
    compress(write(tmp_path / "a.wav", noise(16_000), 16_000), tmp_path / "a.sdc", codec=codec)
    with pytest.raises(InputError, match="ends before 2 s; give an earlier --start"):
        decode(tmp_path / "a.sdc", {"mix": tmp_path / "b.wav"}, codec=lambda h: codec, start=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.sdc", "a.wav"]


def test_gains_apply_to_stems_and_make_the_mix_a_sum_of_stems(codec, tmp_path):
    compress(write(tmp_path / "a.wav", noise(48_000), 16_000), tmp_path / "a.sdc", codec=codec)
    stems = {name: tmp_path / f"{name}.wav" for name in codec.domains}
    decode(tmp_path / "a.sdc", stems, codec=lambda h: codec)
    plain = {name: soundfile.read(path)[0] for name, path in stems.items()}
    gains = {"speech": -6.0, "music": -100.0}
    targets = {"mix": tmp_path / "mix.wav", "speech": tmp_path / "soft.wav"}
    decode(tmp_path / "a.sdc", targets, codec=lambda h: codec, gains=gains)
    soft, _ = soundfile.read(tmp_path / "soft.wav")
    mix, _ = soundfile.read(tmp_path / "mix.wav")
    half = 10 ** (-6 / 20)
    assert float(np.abs(soft - half * plain["speech"]).max()) < 1e-4
    assert float(np.abs(mix - (half * plain["speech"] + plain["sfx"])).max()) < 2e-4
    # A gain of nothing asks for the sum, too.
    decode(tmp_path / "a.sdc", {"mix": tmp_path / "sum.wav"}, codec=lambda h: codec, gains={"music": 0.0})
    assert float(np.abs(soundfile.read(tmp_path / "sum.wav")[0] - sum(plain.values())).max()) < 2e-4


def test_a_sum_of_stems_is_decoded_at_once_or_remixed_where_one_has_a_gain(codec, tmp_path):
    source = write(tmp_path / "a.wav", noise(32_000), 16_000)
    compress(source, tmp_path / "a.sdc", codec=codec)
    names = ("without-speech", "music+sfx", "sfx", "without-sfx", "mix")
    targets = {name: tmp_path / f"{name}.wav" for name in names}
    decode(tmp_path / "a.sdc", targets, codec=lambda h: codec, gains={"music": -100.0})
    found = {name: soundfile.read(path)[0] for name, path in targets.items()}
    assert np.array_equal(found["without-speech"], found["music+sfx"])
    assert float(np.abs(found["without-speech"] - found["sfx"]).max()) < 2e-4
    assert float(np.abs(found["without-sfx"] + found["sfx"] - found["mix"]).max()) < 2e-4
    with pytest.raises(InputError, match="has no voice; it has speech, music, sfx"):
        decode(tmp_path / "a.sdc", {"without-voice": tmp_path / "x.wav"}, codec=lambda h: codec)


def test_decoded_sound_goes_into_the_film_it_was_made_of(codec, tmp_path):
    source = film(tmp_path / "a.mkv", [chirp(1.0)], codec="flac", picture_seconds=1.0)
    compress(source, tmp_path / "a.sdc", codec=codec)
    for name, options in (("mix.wav", {}), ("mix.mkv", {"film": source})):
        result = decode(tmp_path / "a.sdc", {"mix": tmp_path / name}, codec=lambda h: codec, **options)
        assert result.notes == ()
    with AudioReader(tmp_path / "mix.mkv") as reader:
        assert np.array_equal(next(reader.blocks())[0], soundfile.read(tmp_path / "mix.wav")[0])
    with pytest.raises(ValueError, match="leave out start and duration"):
        decode(tmp_path / "a.sdc", {"mix": tmp_path / "x.mkv"}, codec=codec, film=source, start=1.0)


def test_a_file_of_one_domain_is_smaller_and_says_what_it_lacks(codec, tmp_path):
    source = write(tmp_path / "a.wav", noise(64_000), 16_000)
    full = compress(source, tmp_path / "full.sdc", codec=codec)
    one = compress(source, tmp_path / "one.sdc", codec=codec, domains=["speech"])
    assert one.bytes < 0.5 * full.bytes
    assert one.activity == {"speech": 1.0}
    with pytest.raises(InputError, match="has no music; it has speech"):
        decode(tmp_path / "one.sdc", {"music": tmp_path / "b.wav"}, codec=lambda h: codec)
    decode(tmp_path / "one.sdc", {"mix": tmp_path / "m.wav", "speech": tmp_path / "s.wav"}, codec=lambda h: codec)
    assert np.array_equal(soundfile.read(tmp_path / "m.wav")[0], soundfile.read(tmp_path / "s.wav")[0])
    with pytest.raises(ValueError, match="has no domain vocals"):
        compress(source, tmp_path / "x.sdc", codec=codec, domains=["vocals"])


def test_a_lower_bitrate_stores_fewer_codebooks_and_decodes(codec, tmp_path):
    source = write(tmp_path / "a.wav", noise(64_000), 16_000)
    result = compress(source, tmp_path / "a.sdc", codec=codec, bitrate=2.6, domains="all", envelope=False)
    assert {codes.shape[0] for codes in codes_of(tmp_path / "a.sdc").values()} == {2}
    assert result.payload_bitrate == pytest.approx(3 * 0.6, rel=0.02)
    assert decode(tmp_path / "a.sdc", {"mix": tmp_path / "b.wav"}, codec=lambda h: codec).problems == ()


def test_the_same_bitrate_buys_more_codebooks_where_half_of_a_file_is_silent(codec, tmp_path):
    source = write(tmp_path / "a.wav", noise(64_000), 16_000)
    rate = compress(source, tmp_path / "two.sdc", codec=codec, num_codebooks=2, envelope=False).payload_bitrate
    options = {"codec": codec, "bitrate": rate, "envelope": False}
    assert compress(source, tmp_path / "a.sdc", **options).num_codebooks == 2
    padded = write(tmp_path / "b.wav", np.pad(noise(64_000), ((0, 64_000), (0, 0))), 16_000)
    result = compress(padded, tmp_path / "b.sdc", **options)
    assert (result.num_codebooks, result.payload_bitrate) == (4, pytest.approx(rate))


def test_silence_costs_nothing_but_its_segments_and_comes_back_as_silence(codec, tmp_path):
    source = write(tmp_path / "a.wav", np.zeros((320_000, 1), dtype=np.float32), 16_000)
    result = compress(source, tmp_path / "a.sdc", codec=codec)
    assert result.notes == ("nothing in it is louder than −80 dBFS, so the file is silent; raise its level first",)
    assert result.bytes < 700
    decode(tmp_path / "a.sdc", {"mix": tmp_path / "b.wav"}, codec=lambda h: codec)
    assert float(np.abs(soundfile.read(tmp_path / "b.wav")[0]).max()) == 0


def test_damage_is_reported_and_the_rest_is_decoded(codec, tmp_path):
    source = write(tmp_path / "a.wav", noise(16_000 * 20), 16_000)
    compress(source, tmp_path / "a.sdc", codec=codec)
    decode(tmp_path / "a.sdc", {"mix": tmp_path / "good.wav"}, codec=lambda h: codec)
    data = bytearray((tmp_path / "a.sdc").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "bad.sdc").write_bytes(data)
    result = decode(tmp_path / "bad.sdc", {"mix": tmp_path / "bad.wav"}, codec=lambda h: codec)
    assert len(result.problems) == 1
    good, bad = (soundfile.read(tmp_path / f"{name}.wav")[0] for name in ("good", "bad"))
    assert len(good) == len(bad)
    same = np.abs(good - bad).reshape(20, -1).max(1) < 1e-4
    assert 14 <= same.sum() < 20


@pytest.mark.parametrize("piped", [False, True])
def test_what_is_lost_at_the_end_fades_out_and_comes_back_as_silence(codec, tmp_path, monkeypatch, piped):
    source = write(tmp_path / "a.wav", noise(16_000 * 20), 16_000)
    compress(source, tmp_path / "a.sdc", codec=codec)
    data = bytearray((tmp_path / "a.sdc").read_bytes())
    index = Reader(io.BytesIO(data))._index
    for offset in index.offsets[-2:]:
        data[offset] ^= 0xFF
    lost = index.starts[-2] * 320
    (tmp_path / "bad.sdc").write_bytes(data)

    def decoded(**excerpt: float) -> np.ndarray:
        pipe = io.BytesIO(data)
        pipe.seekable = lambda: False
        monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=pipe))
        origin = "-" if piped else tmp_path / "bad.sdc"
        decode(origin, {"mix": tmp_path / "bad.wav"}, codec=lambda h: codec, overwrite=True, **excerpt)
        return soundfile.read(tmp_path / "bad.wav")[0]

    wav = decoded()
    assert len(wav) == 16_000 * 20
    heard = np.flatnonzero(np.abs(wav) > 1e-3)[-1]
    assert lost - 320 <= heard <= lost + (REACH_FRAMES + codec.context_frames + 1) * 320
    loud = np.sqrt(np.mean(np.square(wav[lost - 16_000 : lost + 16_000].reshape(8, -1)), axis=1))
    assert (np.diff(loud[4:]) < 0).all()
    assert loud[-1] < 0.3 * loud[0]
    begin = lost / 16_000 - 1
    assert np.abs(decoded(start=begin, duration=1.2) - wav[lost - 16_000 : lost + 3200]).max() < 1e-3


def test_an_excerpt_behind_a_cut_is_refused(codec, tmp_path):
    source = write(tmp_path / "a.wav", noise(16_000 * 20), 16_000)
    compress(source, tmp_path / "a.sdc", codec=codec)
    data = (tmp_path / "a.sdc").read_bytes()
    index = Reader(io.BytesIO(data))._index
    cut = index.starts[-2] / 50
    (tmp_path / "cut.sdc").write_bytes(data[: index.offsets[-2]])
    for start in (cut + 0.1, cut + 1.3, cut + 1.5, cut + 3):
        with pytest.raises(InputError, match=f"has no audio from {start:g} s on; give an earlier --start"):
            decode(tmp_path / "cut.sdc", {"mix": tmp_path / "b.wav"}, codec=lambda h: codec, start=start)


def test_a_truncated_file_gives_what_is_there(codec, tmp_path):
    source = write(tmp_path / "a.wav", noise(16_000 * 20), 16_000)
    compress(source, tmp_path / "a.sdc", codec=codec)
    data = (tmp_path / "a.sdc").read_bytes()
    (tmp_path / "cut.sdc").write_bytes(data[: len(data) // 2])
    result = decode(tmp_path / "cut.sdc", {"mix": tmp_path / "cut.wav"}, codec=lambda h: codec)
    assert result.problems
    assert 6 <= result.seconds <= 12
    assert soundfile.info(tmp_path / "cut.wav").frames == round(result.seconds * 16_000)


def test_a_model_of_another_shape_is_refused(codec, tmp_path):
    import dataclasses

    compress(write(tmp_path / "a.wav", noise(16_000), 16_000), tmp_path / "a.sdc", codec=codec)
    recipe = tiny_recipe()
    small = dataclasses.replace(recipe, quantizer=dataclasses.replace(recipe.quantizer, codebook_size=16))
    other = load_codec(write_tiny(tmp_path / "other", small))
    with pytest.raises(ModelError, match="its codes do not fit tiny-spectral"):
        decode(tmp_path / "a.sdc", {"mix": tmp_path / "b.wav"}, codec=lambda h: other)


def test_a_model_of_other_weights_is_refused_by_name_unless_it_is_forced(codec, tmp_path):
    compress(write(tmp_path / "a.wav", noise(16_000), 16_000), tmp_path / "a.sdc", codec=codec)
    other = load_codec(write_tiny(tmp_path / "other", tiny_recipe(activity=False), seed=1))
    made, found = codec.weights_sha256.hex()[:8], other.weights_sha256.hex()[:8]
    expected = (
        f"{tmp_path}/a.sdc: was made with weights {made}... of tiny-spectral, but tiny-spectral has {found}...; "
        "name the right model with --model DIR, or pass --force-model to decode anyway"
    )
    targets = {"mix": tmp_path / "b.wav"}
    for given in (other, lambda header: other):
        with pytest.raises(ModelError, match=re.escape(expected)):
            decode(tmp_path / "a.sdc", targets, codec=given)
    assert not (tmp_path / "b.wav").exists()
    assert decode(tmp_path / "a.sdc", targets, codec=other, force_model=True).seconds == 1
    assert soundfile.info(tmp_path / "b.wav").frames == 16_000


def test_a_codec_may_be_given_as_it_is_or_as_what_finds_it_for_a_header(codec, tmp_path):
    compress(write(tmp_path / "a.wav", noise(16_000), 16_000), tmp_path / "a.sdc", codec=codec)
    asked = []

    def find(header):
        asked.append(header.model)
        return codec

    decode(tmp_path / "a.sdc", {"mix": tmp_path / "one.wav"}, codec=codec)
    decode(tmp_path / "a.sdc", {"mix": tmp_path / "two.wav"}, codec=find)
    assert asked == ["tiny-spectral"]
    assert (tmp_path / "one.wav").read_bytes() == (tmp_path / "two.wav").read_bytes()


def test_an_existing_target_is_left_alone_without_overwrite(codec, tmp_path):
    source = write(tmp_path / "a.wav", noise(1600), 16_000)
    (tmp_path / "a.sdc").write_text("mine")
    with pytest.raises(OutputError, match="exists; pass --force"):
        compress(source, tmp_path / "a.sdc", codec=codec)
    assert (tmp_path / "a.sdc").read_text() == "mine"


@pytest.mark.parametrize(
    ("rate", "samples", "channels"), [(16_000, 300_000, 1), (44_100, 500_001, 2), (48_000, 200, 1)]
)
def test_separated_stems_have_the_inputs_shape_and_add_up_to_it(codec, tmp_path, rate, samples, channels):
    """White noise at 44.1 kHz is compared below 7 kHz, which the model's rate carries."""
    wav = noise(samples, channels)
    source = write(tmp_path / "a.wav", wav, rate)
    targets = {domain: tmp_path / f"{domain}.wav" for domain in codec.domains}
    separate(source, targets, codec=codec)
    stems = [soundfile.read(path, always_2d=True)[0] for path in targets.values()]
    assert {stem.shape for stem in stems} == {(samples, channels)}
    if samples > 1000:
        spectra = [np.fft.rfft(signal, axis=0)[: int(7000 / rate * samples)] for signal in (sum(stems), wav)]
        error = np.square(np.abs(spectra[0] - spectra[1])).sum() / np.square(np.abs(spectra[1])).sum()
        assert 10 * math.log10(error) < -40


def test_silence_is_separated_into_silence_without_a_nan(codec, tmp_path):
    source = write(tmp_path / "a.wav", np.zeros((50_000, 1), dtype=np.float32), 16_000)
    separate(source, {"sfx": tmp_path / "sfx.wav"}, codec=codec)
    assert float(np.abs(soundfile.read(tmp_path / "sfx.wav")[0]).max()) == 0


def test_separation_does_not_depend_on_the_blocks_it_is_done_in(codec, tmp_path, monkeypatch):
    from sdcodec_cli.engine import separate as module

    source = write(tmp_path / "a.wav", noise(400_000), 16_000)
    separate(source, {"speech": tmp_path / "a1.wav"}, codec=codec)
    monkeypatch.setattr(module, "BLOCK_WINDOWS", 25)
    separate(source, {"speech": tmp_path / "a2.wav"}, codec=codec)
    one, two = (soundfile.read(tmp_path / name)[0] for name in ("a1.wav", "a2.wav"))
    assert float(np.abs(one - two).max()) < 1e-4


@pytest.mark.parametrize(("views", "delays"), [(1, [0]), (3, [0, 1 / 2]), (4, [0, 1 / 2]), (6, [0, 1 / 3, 2 / 3])])
def test_masks_are_the_mean_of_those_of_every_polarity_and_delay(codec, views, delays):
    mixture = noise(300_000).T
    mixture -= mixture.mean(dtype=np.float64)
    gain = 10 ** (codec.gain_for(integrated_loudness(mixture, codec.sample_rate)) / 20)
    plain, stems = codec.at_effort(0), []
    for share in delays:
        delay = int(share * codec.hop_length)
        for sign in (1, -1):
            heard = sign * gain * np.pad(mixture[0], (delay, 0))
            codes = plain.encode(heard, normalize=False, envelope=False)
            stems.append(np.stack([plain.decode(codes, stem=domain)[delay:] for domain in codec.domains]))
    found = separate_wav(mixture, codec=codec, views=views)
    np.testing.assert_allclose(found, mask_mixture(mixture, *stems[:views]), atol=1e-4, rtol=0)
    assert np.abs(found - mask_mixture(mixture, stems[0])).max() > 0.01 or views == 1


def test_a_file_is_separated_as_audio_in_memory_is(codec, tmp_path):
    source = write(tmp_path / "a.wav", noise(500_000, 2), 16_000)
    targets = {domain: tmp_path / f"{domain}.wav" for domain in codec.domains}
    separate(source, targets, codec=codec)
    stems = separate_wav(soundfile.read(source)[0].T, codec=codec)
    for domain, stem in zip(codec.domains, stems, strict=True):
        np.testing.assert_allclose(soundfile.read(targets[domain])[0].T, stem, atol=1e-4)


@pytest.mark.parametrize(
    ("wav", "message"),
    [
        (torch.zeros(1600), r"wav must be \[C, T\], got shape \[1600\]"),
        (torch.zeros(1, 0), "wav must be .* with at least one sample"),
        (torch.zeros(1, 1600, dtype=torch.int16), "wav must be floats in −1…1, got int16"),
        (torch.full((1, 1600), math.nan), "wav has samples that are not finite numbers"),
    ],
)
def test_what_is_no_audio_is_not_separated(codec, wav, message):
    with pytest.raises(ValueError, match=message):
        separate_wav(wav, codec=codec)


def test_a_number_of_views_that_cannot_be_is_a_value_error(codec, tmp_path):
    source = write(tmp_path / "a.wav", noise(1600), 16_000)
    for views in (0, MAX_VIEWS + 1, 1.5):  # 4.0 is a whole number
        with pytest.raises(ValueError, match=f"views must be a whole number from 1 to 16, got {views}"):
            separate(source, {"sfx": tmp_path / "sfx.wav"}, codec=codec, views=views)
    assert not (tmp_path / "sfx.wav").exists()
    result = separate(source, {"sfx": tmp_path / "sfx.wav"}, codec=codec, views=4.0)
    assert (result.views, type(result.views)) == (4, int)


def test_a_pipe_without_a_length_at_its_beginning_is_cut_where_its_end_says(codec, tmp_path, monkeypatch):
    monkeypatch.setattr("sdcodec_cli.audio.libsndfile._known_length", lambda sound: None)
    source = write(tmp_path / "a.wav", noise(44_001), 44_100)
    compress(source, tmp_path / "a.sdc", codec=codec)
    with (tmp_path / "a.sdc").open("rb") as file:
        assert Reader(file).header.original_samples is None
        file.seek(0)
        piped = io.BytesIO(file.read())
    piped.seekable = lambda: False
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=piped))
    targets = {"mix": tmp_path / "mix.wav"}
    decode("-", targets, codec=lambda h: codec)
    piped.seek(0)
    decode("-", {"mix": tmp_path / "late.wav"}, codec=lambda h: codec, start=0.5)
    decode(tmp_path / "a.sdc", {"mix": tmp_path / "seekable.wav"}, codec=lambda h: codec)
    piped_wav, seekable = (soundfile.read(tmp_path / f"{name}.wav")[0] for name in ("mix", "seekable"))
    assert len(piped_wav) == 44_001
    assert np.array_equal(piped_wav, seekable)
    assert soundfile.info(tmp_path / "late.wav").frames == 44_001 - 22_050


def test_tags_of_any_kind_do_not_keep_a_file_from_being_compressed(codec, tmp_path):
    with soundfile.SoundFile(tmp_path / "a.flac", "w", 16_000, 1) as file:
        file.title = "bell\x07 and escape\x1b"
        file.comment = "one\r\ntwo\rthree\ttab"
        file.artist = "x" * 40_000
        file.write(noise(16_000))
    result = compress(tmp_path / "a.flac", tmp_path / "a.sdc", codec=codec)
    with (tmp_path / "a.sdc").open("rb") as stream:
        assert Reader(stream).header.tags == {"title": "bell and escape", "comment": "one\ntwo\nthree\ttab"}
    assert result.notes == ("the artist of 40000 bytes is left out, tags take at most 32768 together",)


def test_a_rate_beyond_what_a_stream_can_say_is_an_error_by_name(codec, tmp_path):
    source = write(tmp_path / "a.wav", noise(1000), 1_500_000)
    with pytest.raises(InputError, match=r"a.wav: 1500000 Hz are more than 1000000; resample it first"):
        compress(source, tmp_path / "a.sdc", codec=codec)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"domains": "speech"}, "domains must be auto, all or a list of domains, got 'speech'"),
        ({"channels": "both"}, "channels must be mono, stereo or keep, got 'both'"),
    ],
)
def test_a_wrong_call_of_compress_is_refused(codec, tmp_path, arguments, message):
    source = write(tmp_path / "a.wav", noise(1000), 16_000)
    with pytest.raises(ValueError, match=message):
        compress(source, tmp_path / "a.sdc", codec=codec, **arguments)
    assert not (tmp_path / "a.sdc").exists()


@pytest.mark.parametrize(
    ("targets", "times", "message"),
    [
        ({}, {}, "targets must name a file of its own for each stem"),
        ({"speech": "v.wav", "music": "v.wav"}, {}, "targets must name a file of its own for each stem"),
        ({"mix": "v.wav"}, {"start": -1.0}, "start must be 0 or more"),
        ({"mix": "v.wav"}, {"duration": 0.0}, "duration more than 0"),
    ],
)
def test_a_wrong_call_of_decode_is_refused(codec, tmp_path, monkeypatch, targets, times, message):
    monkeypatch.chdir(tmp_path)
    compress(write(tmp_path / "a.wav", noise(1000), 16_000), tmp_path / "a.sdc", codec=codec)
    with pytest.raises(ValueError, match=message):
        decode("a.sdc", targets, codec=lambda h: codec, **times)


@pytest.mark.parametrize("targets", [{}, *({"speech": "v.wav", "music": name} for name in ("v.wav", "./v.wav"))])
def test_separated_stems_need_a_file_each(codec, tmp_path, monkeypatch, targets):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.wav", noise(1000), 16_000)
    with pytest.raises(ValueError, match="targets must name a file of its own for each stem"):
        separate("a.wav", targets, codec=codec)
    assert not Path("v.wav").exists()
