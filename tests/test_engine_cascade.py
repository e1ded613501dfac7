"""Codecs at rising rates, one after the other: in files and in memory, whole and in pieces, with and without the upper.

Signals are noise: white, so that there is something at every rate, or without anything above 8 kHz.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sdcodec_cli import load_codec, zoo
from sdcodec_cli.audio import integrated_loudness, resampled
from sdcodec_cli.audio.masks import mask_mixture, window_length
from sdcodec_cli.audio.sinc import StreamSinc
from sdcodec_cli.bitstream import Header, Reader, Writer
from sdcodec_cli.engine.bench import bench
from sdcodec_cli.engine.codec import Codec
from sdcodec_cli.engine.codes import Codes
from sdcodec_cli.engine.compress import compress
from sdcodec_cli.engine.decode import decode
from sdcodec_cli.engine.separate import separate, separate_wav
from sdcodec_cli.engine.train.export import export_stage
from sdcodec_cli.errors import InputError, ModelError
from sdcodec_cli.families.bands import BandsRecipe

from tiny_models import tiny_bands, write_tiny

DOMAINS = ("speech", "music")
UPPER = ("speech-2", "music-2")


def dropping(recipe: BandsRecipe) -> BandsRecipe:
    """As if trained for fewer codebooks, too."""
    return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, quantizer_dropout=0.5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model of 16 and 32 kHz."""
    return write_tiny(tmp_path_factory.mktemp("models") / "whole", dropping(tiny_bands(domains=DOMAINS)))


@pytest.fixture(scope="module")
def codec(folder) -> Codec:
    return load_codec(folder, device="cpu")


@pytest.fixture(scope="module")
def lower(folder) -> Codec:
    """Its first stage by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdcodec_cli.engine.train.export.make_graphs", lambda recipe: {})
        export_stage(zoo.find(folder), folder.parent / "lower", number=1)
    return load_codec(folder.parent / "lower", device="cpu")


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> Codec:
    """One of 100 frames per second below one of 50."""
    recipe = tiny_bands(domains=DOMAINS)
    first, second = recipe.branches
    networks = {name: dataclasses.replace(getattr(first, name), window_length=320) for name in ("encoder", "decoder")}
    recipe = dataclasses.replace(recipe, branches=(dataclasses.replace(first, hop_length=160, **networks), second))
    return load_codec(write_tiny(tmp_path_factory.mktemp("models") / "quick", recipe), device="cpu")


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Codec:
    recipe = tiny_bands(rates=(16_000, 32_000, 48_000))
    return load_codec(write_tiny(tmp_path_factory.mktemp("models") / "three", recipe), device="cpu")


def white(seconds: float, rate: int = 32_000, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(round(seconds * rate)) * 0.05
    return noise.astype(np.float32)


def narrow(seconds: float, rate: int = 32_000) -> np.ndarray:
    """Nothing above 8 kHz."""
    return resampled(white(seconds, 16_000), 16_000, rate)


def write(path: Path, wav: np.ndarray, rate: int = 32_000) -> Path:
    soundfile.write(path, wav, rate, subtype="FLOAT")
    return path


def compressed(codec: Codec, path: Path, wav: np.ndarray, rate: int = 32_000, **options) -> Path:
    source = write(path.with_suffix(".wav"), wav, rate)
    compress(source, path, codec=codec, **options)
    return path


def decoded(codec: Codec, path: Path, **options) -> np.ndarray:
    target = path.with_suffix(".back.wav")
    result = decode(path, {"mix": target}, codec=codec, overwrite=True, **options)
    assert result.problems == ()
    return soundfile.read(target, dtype="float32")[0]


def codes_in(path: Path) -> dict[str, np.ndarray]:
    """Of the streams of the first channel, as far as they are stored."""
    found: dict[str, list[np.ndarray]] = {}
    with path.open("rb") as file:
        reader = Reader(file)
        for segment in reader.segments():
            for (_, name), codes in segment.codes.items():
                found.setdefault(name, []).append(codes)
        assert not reader.problems
    return {name: np.concatenate(codes, axis=-1) for name, codes in found.items()}


def in_file(path: Path, codec: Codec) -> Codes:
    """What a file without an envelope holds whose streams are all active throughout."""
    header, found = header_of(path), codes_in(path)
    assert len(found) == len(header.domains)
    frames = len(found[header.domains[-1].name][0])
    return Codes(
        codes={name: codes[None] for name, codes in found.items()},
        active={name: np.ones((1, frames), dtype=bool) for name in found},
        gain_db=np.array([header.gain_db]),
        num_samples=-(-(header.original_samples or 0) * codec.sample_rate // header.original_rate),
        leading=(),
    )


def header_of(path: Path) -> Header:
    with path.open("rb") as file:
        return Reader(file).header


def raised(wav: np.ndarray, old: int = 16_000, new: int = 32_000) -> np.ndarray:
    sinc = StreamSinc(old, new, 1)
    return np.concatenate([sinc.push(wav[None]), sinc.flush()], axis=-1)[0]


# The first stage is the model of its rate, to the bit.


@pytest.mark.parametrize("rate", [16_000, 32_000, 44_100])
def test_codes_and_audio_of_the_first_stage_are_those_of_that_model_by_itself(codec, lower, tmp_path, rate):
    wav = white(0.61, rate)
    whole = compressed(codec, tmp_path / "whole.sdc", wav, rate)
    alone = compressed(lower, tmp_path / "alone.sdc", wav, rate, treble=False)
    found, expected = codes_in(whole), codes_in(alone)
    assert set(found) == {*expected, *(UPPER if rate > 16_000 else ())}
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    below = decoded(codec, whole, below=8000)
    assert np.array_equal(below, decoded(lower, alone))
    assert np.array_equal(below, decoded(lower, whole))


def test_a_file_names_the_model_of_its_first_stage_as_that_names_itself(codec, lower, tmp_path):
    path = compressed(codec, tmp_path / "a.sdc", white(0.1))
    header = header_of(path)
    assert (header.model, header.sample_rate, header.hop_length) == (codec.name, 32_000, 640)
    (below,) = header.lower
    assert (below.model, below.weights_sha256) == (lower.name, lower.weights_sha256)
    assert (below.sample_rate, below.hop_length) == (lower.sample_rate, lower.hop_length)
    assert below.context_frames == lower.context_frames


# What the upper ones code and add.


def test_an_upper_stage_codes_what_the_sum_of_those_before_lacks(codec):
    wav = white(1.2)
    codes = codec.encode(wav, normalize=False, envelope=False)
    residual = wav - raised(codec.decode(codes, share=0, sample_rate=16_000))
    upper = codec.stages[1]
    expected = upper.quantize(upper.analyse(residual).latent)
    found = np.stack([codes.codes[name][0] for name in UPPER])
    assert (found == expected[:, : found.shape[1]]).mean() > 0.99  # both are sums of floats, in another order


@pytest.mark.parametrize("stem", ["mix", "music"])
def test_outputs_of_all_stages_add_up(three, codec, stem):
    for model in (codec, three) if stem == "mix" else (codec,):
        codes = model.encode(white(0.5, model.sample_rate), normalize=False)
        rates = [stage.sample_rate for stage in model.stages]
        total = model.decode(codes, stem=stem, sample_rate=rates[0])
        for number, stage in enumerate(model.stages[1:], 1):
            streams = [index for index, each in enumerate(stage.streams) if stem in ("mix", each.stem)]
            given = np.stack([codes.codes[each.name][0] for each in stage.streams])
            added = stage.synthesize(given, [streams])[0]
            total = raised(total, rates[number - 1], rates[number])
            total = total + added[: len(total)]
            found = model.decode(codes, stem=stem, sample_rate=rates[number])
            length = min(len(total), len(found)) - 2 * stage.hop_length  # beyond the end is what decoding cuts off
            np.testing.assert_allclose(total[:length], found[:length], atol=1e-4, rtol=0)


# Pieces.


def in_pieces(codec: Codec, wav: np.ndarray, sizes: Callable[[int], int]) -> dict[str, np.ndarray]:
    """Codes of audio that arrives in pieces of other sizes, at other times, for each of the rates."""
    encoder = codec.stream_encoder()
    wavs = [wav if rate == codec.sample_rate else resampled(wav, codec.sample_rate, rate) for rate in encoder.rates]
    starts, segments = [0] * len(wavs), []
    while any(start < len(each) for start, each in zip(starts, wavs, strict=True)):
        pieces = []
        for number, each in enumerate(wavs):
            stop = starts[number] + sizes(number)
            pieces.append(each[starts[number] : stop])
            starts[number] = stop
        segments += encoder.push(*pieces)
    segments += encoder.finish()
    return {name: np.concatenate([each.codes[name] for each in segments], -1) for name in segments[0].codes}


@pytest.mark.parametrize("length", [1, 10_001, 300_001])
def test_codes_do_not_depend_on_how_the_audio_arrives(codec, length):
    """The last length is more than a block of 8 s."""
    wav = white(length / 32_000)
    whole = codec.encode(wav, normalize=False, envelope=False).codes
    rng = np.random.default_rng(1)
    odd = in_pieces(codec, wav, lambda number: int(rng.integers(0, 40_000)))
    late = in_pieces(codec, wav, lambda number: [50_000, 9000][number])
    for name, expected in whole.items():
        assert np.array_equal(odd[name], expected[0])
        assert np.array_equal(late[name], expected[0])


def test_an_encoder_that_was_given_nothing_gives_nothing(codec, quick):
    for model in (codec, quick):
        assert model.stream_encoder(envelope=True).finish() == []
        assert sum(wav.shape[-1] for wav in model.stream_decoder(["mix"]).finish()) == 0


def test_a_long_file_decodes_as_its_codes_do_in_memory(codec, tmp_path):
    """Over the border of a block of 8 s."""
    path = compressed(codec, tmp_path / "a.sdc", white(8.7), envelope=False)
    np.testing.assert_allclose(decoded(codec, path), codec.decode(in_file(path, codec)), atol=1e-4, rtol=0)


# Several frames of a stage in one of the last.


@pytest.mark.parametrize("seconds", [1 / 32_000, 0.05, 2.513])
def test_a_stage_of_twice_the_frames_stands_below(quick, seconds):
    wav = white(seconds)
    codes = quick.encode(wav)
    frames = codes.codes["speech-2"].shape[-1]
    assert codes.codes["speech"].shape[-1] == 2 * frames
    assert frames * 640 >= len(wav)
    for rate in (16_000, 32_000):
        assert quick.decode(codes, sample_rate=rate).shape == (-(-len(wav) * rate // 32_000),)


def test_its_files_decode_whole_and_in_excerpts(quick, tmp_path):
    plain = compressed(quick, tmp_path / "b.sdc", white(1.3), envelope=False)
    np.testing.assert_allclose(decoded(quick, plain), quick.decode(in_file(plain, quick)), atol=1e-4, rtol=0)
    path = compressed(quick, tmp_path / "a.sdc", white(3.2))
    for below in (8000, None):
        whole = decoded(quick, path, below=below)
        part = decoded(quick, path, below=below, start=2.1, duration=0.5)
        np.testing.assert_allclose(part, whole[67_200:83_200], atol=1e-4, rtol=0)


def test_its_envelope_is_of_its_own_frames(quick):
    """A gain is for 40 ms, two frames of the whole and four of the first stage."""
    codes = quick.encode(white(1.0))
    assert codes.envelope.layout.frames == 2
    assert codes.envelope.gains.shape[-1] == 25
    loud, soft = (quick.decode(codes, share=share, sample_rate=16_000) for share in (1, 0))
    assert np.abs(loud - soft).max() > 1e-4


# Files.


def test_an_excerpt_is_that_part_of_the_whole(codec, tmp_path):
    path = compressed(codec, tmp_path / "a.sdc", white(3.4))
    whole = decoded(codec, path)
    for start, duration in ((0, 0.3), (1.23, 1.0), (3.2, None)):
        begin = round(start * 32_000)
        stop = None if duration is None else begin + round(duration * 32_000)
        part = decoded(codec, path, start=start, duration=duration)
        np.testing.assert_allclose(part, whole[begin:stop], atol=1e-4, rtol=0)


def test_three_stages_can_be_cut_off_at_each_rate(three, tmp_path):
    path = compressed(three, tmp_path / "a.sdc", white(0.5, 48_000), 48_000, envelope=False)
    codes = in_file(path, three)
    for below, rate in ((8000, 16_000), (16_000, 32_000), (24_000, 48_000), (None, 48_000)):
        expected = resampled(three.decode(codes, sample_rate=rate), rate, 48_000)
        np.testing.assert_allclose(decoded(three, path, below=below), expected, atol=1e-4, rtol=0)
    with pytest.raises(InputError, match="at 8000 or 16000 or 24000 Hz only, not at 5000; give --below 8000, or"):
        decoded(three, path, below=5000)


@pytest.mark.parametrize("samples", [1, 2, 319, 641])
def test_very_short_files_come_back_as_long(codec, tmp_path, samples):
    path = compressed(codec, tmp_path / "a.sdc", white(samples / 44_100, 44_100), 44_100)
    assert decoded(codec, path).shape == (samples,)
    assert decoded(codec, path, below=8000).shape == (samples,)


def test_silence_is_silent_in_all_stages(codec, tmp_path):
    path = compressed(codec, tmp_path / "a.sdc", np.zeros(20_000, np.float32))
    assert codes_in(path) == {}
    assert not decoded(codec, path).any()


def test_channels_that_are_kept_are_coded_by_themselves(codec, tmp_path):
    left, right = white(0.2, seed=1), white(0.2, seed=2)
    both = compressed(codec, tmp_path / "both.sdc", np.stack([left, right], axis=-1), channels="keep", envelope=False)
    found = decoded(codec, both)
    assert found.shape == (6400, 2)
    header = header_of(both)
    assert header.streams[4:6] == [(1, "speech"), (1, "music")]
    # One gain for both, so that neither is the file of one channel to the bit.
    alone = decoded(codec, compressed(codec, tmp_path / "one.sdc", np.stack([left, left], -1), channels="keep"))
    assert np.array_equal(alone[:, 0], alone[:, 1])
    assert not np.array_equal(found[:, 0], found[:, 1])


def test_codebooks_are_those_of_the_first_stage_and_upper_ones_follow(codec, tmp_path):
    path = compressed(codec, tmp_path / "a.sdc", white(0.3), num_codebooks=1, envelope=False)
    assert {entry.num_codebooks for entry in header_of(path).domains} == {1}
    assert all(len(found) == 1 for found in codes_in(path).values())


# Nothing above.


def test_nothing_above_the_band_below_costs_no_bits_above(codec, tmp_path):
    path = compressed(codec, tmp_path / "a.sdc", narrow(2.1))
    assert set(codes_in(path)) == set(DOMAINS)
    with path.open("rb") as file:
        assert all(segment.silent == {(0, name) for name in UPPER} for segment in Reader(file).segments())
    assert set(codes_in(compressed(codec, tmp_path / "b.sdc", white(0.3)))) == {*DOMAINS, *UPPER}


def test_it_is_found_out_in_each_segment(codec):
    wav = np.concatenate([narrow(2.0), white(2.0)])
    active = codec.encode(wav).active
    assert active["speech"].all()
    assert [bool(active["speech-2"][0, frame]) for frame in (50, 150)] == [False, True]


def test_domains_that_are_known_have_nothing_above_either_where_there_is_nothing(codec):
    wide, low = (codec.encode(wav, active=["speech"]).active for wav in (white(0.5), narrow(0.5)))
    assert {name for name, found in wide.items() if found.all()} == {"speech", "speech-2"}
    assert {name for name, found in low.items() if found.any()} == {"speech"}


# Streams that are missing.


def without(path: Path, names: tuple[str, ...]) -> Path:
    """The same file with streams removed."""
    target = path.with_name("stripped.sdc")
    with path.open("rb") as file, target.open("wb") as out:
        reader = Reader(file)
        writer = Writer(out, reader.header)
        for segment in reader.segments():
            writer.write({key: codes for key, codes in segment.codes.items() if key[1] not in names})
        assert reader.end is not None
        writer.close(reader.end.original_samples)
    return target


def silenced(codes: Codes, names: tuple[str, ...]) -> Codes:
    active = {name: found & (name not in names) for name, found in codes.active.items()}
    return dataclasses.replace(codes, active=active)


def test_without_its_upper_streams_a_file_decodes_without_a_problem(codec, tmp_path):
    path = compressed(codec, tmp_path / "a.sdc", white(0.7), envelope=False)
    expected = codec.decode(silenced(in_file(path, codec), UPPER))
    np.testing.assert_allclose(decoded(codec, without(path, UPPER)), expected, atol=1e-4, rtol=0)


def test_a_damaged_upper_stream_is_reported_and_the_lower_plays_on(codec, tmp_path):
    path = compressed(codec, tmp_path / "a.sdc", white(0.7), envelope=False)
    expected = codec.decode(silenced(in_file(path, codec), ("music-2",)))
    data = bytearray(path.read_bytes())
    data[data.rfind(b"SIDX") - 1] ^= 1  # the last byte of the last chunk
    path.write_bytes(bytes(data))
    result = decode(path, {"mix": tmp_path / "b.wav"}, codec=codec)
    assert [problem.partition(":")[0] for problem in result.problems] == [
        "music-2 is damaged in segment 0 (frames 0-34, 0.00-0.70 s)"
    ]
    found, _ = soundfile.read(tmp_path / "b.wav", dtype="float32")
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    assert decode(path, {"mix": tmp_path / "c.wav"}, codec=codec, below=8000).problems == ()


def test_a_model_of_other_stages_does_not_fit(codec, three, quick, tmp_path):
    path = compressed(codec, tmp_path / "a.sdc", white(0.1))
    for other in (three, quick):
        with pytest.raises(ModelError, match="its codes do not fit tiny-bands"):
            decode(path, {"mix": tmp_path / "b.wav"}, codec=other, force_model=True)


def test_what_a_pipe_delivers_decodes_as_a_file_does(codec, tmp_path, monkeypatch):
    path = compressed(codec, tmp_path / "a.sdc", white(2.1))
    whole = decoded(codec, path)

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(Pipe(path.read_bytes())))
    decode("-", {"mix": tmp_path / "b.wav"}, codec=codec)
    found, _ = soundfile.read(tmp_path / "b.wav", dtype="float32")
    np.testing.assert_allclose(found, whole, atol=1e-4, rtol=0)


# Separation, and what the machine does.


def test_masks_are_as_long_in_seconds_at_every_rate():
    lengths = {rate: window_length(rate) for rate in (8000, 16_000, 24_000, 32_000, 44_100, 48_000)}
    assert lengths == {8000: 512, 16_000: 1024, 24_000: 2048, 32_000: 2048, 44_100: 2048, 48_000: 4096}


@pytest.mark.parametrize("samples", [1, 32_001])
def test_stems_under_masks_add_up_to_the_input(codec, tmp_path, samples):
    wav = np.stack([white(samples / 32_000, seed=1), white(samples / 32_000, seed=2)])
    stems = separate_wav(wav, codec=codec, views=3)  # the last one is delayed
    assert stems.shape == (2, 2, samples)
    np.testing.assert_allclose(stems.sum(0), wav, atol=1e-4, rtol=0)
    targets = {stem: tmp_path / f"{stem}.wav" for stem in DOMAINS}
    separate(write(tmp_path / "a.wav", wav.T), targets, codec=codec, views=1)
    files = [soundfile.read(tmp_path / f"{stem}.wav", always_2d=True)[0] for stem in DOMAINS]
    np.testing.assert_allclose(sum(files), wav.T, atol=1e-3, rtol=0)


def test_masks_are_made_of_the_sum_of_all_stages_at_the_highest_rate(codec):
    wav = white(0.6)
    heard = wav - wav.mean()
    gain = codec.gain_for(integrated_loudness(heard[None], 32_000))
    codes = codec.at_effort(0).encode(heard * np.float32(10 ** (gain / 20)), normalize=False, envelope=False)
    stems = np.stack([codec.decode(codes, stem=stem) for stem in DOMAINS])
    expected = mask_mixture(wav[None], stems, window_length=2048)[:, 0]
    found = separate_wav(wav[None], codec=codec, views=1)[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


def test_its_speed_is_measured_in_parts_of_every_stage(quick, monkeypatch):
    monkeypatch.setattr("sdcodec_cli.engine.bench.BLOCK_FRAMES", 20)
    result = bench(quick, seconds=0.2, repeats=1)
    assert {part.part for part in result.parts} >= {"stage 1: analyse", "stage 2: analyse", "stage 2: synthesize, mix"}
    assert result.decode_mix is not None
