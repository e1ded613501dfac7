"""`.sdc` files and audio to tokens, and those back to `.sdc`."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import safetensors.numpy
import soundfile
import torch
from speech_examples import small_codec, sound

from sdcodec_cli import Codec
from sdcodec_cli.bitstream import DomainEntry, Reader
from sdcodec_cli.data.tokens import DAMAGED, FORMATS, PRESENT, REMOVED, SILENT, Format, Tokens, read_tokens
from sdcodec_cli.engine import tokens as engine
from sdcodec_cli.engine.compress import compress
from sdcodec_cli.engine.decode import decode
from sdcodec_cli.engine.tokens import TokensResult, from_tokens, to_tokens
from sdcodec_cli.errors import CorruptStream, InputError, ModelError, NotAStream, UnsupportedStream

from bitstream_examples import (
    ENVELOPES,
    Example,
    example_header,
    long_example,
    random_codes,
    random_gains,
    range_coded_example,
    range_coded_tables,
    read_all,
    small_example,
    write_example,
)
from tiny_models import tiny_decodec

DATA = Path(__file__).resolve().parent / "data"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tokens_of(data: bytes, **options: object) -> tuple[Tokens, TokensResult]:
    Path("a.sdc").write_bytes(data)
    result = to_tokens("a.sdc", "a.npz", kind="npz", overwrite=True, **options)  # type: ignore[arg-type]
    return read_tokens("a.npz")[0], result


def back() -> bytes:
    from_tokens("a.npz", "b.sdc", overwrite=True)
    return Path("b.sdc").read_bytes()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["v1_three_domains", "v1_two_channels", "v1_envelope", "v1_treble"])
def test_a_whole_file_comes_back_byte_for_byte(name: str, kind: Format) -> None:
    source, there = DATA / f"{name}.sdc", f"a.{kind}"
    result = to_tokens(source, there, kind=kind)
    assert (result.problems, result.notes, result.bytes) == ((), (), Path(there).stat().st_size)
    result = from_tokens(there, "b.sdc")
    assert Path("b.sdc").read_bytes() == source.read_bytes()
    assert (result.bytes, result.model) == (source.stat().st_size, Reader(io.BytesIO(source.read_bytes())).header.model)


def test_silent_and_removed_streams_and_missing_groups_stay_what_they_are() -> None:
    example = long_example()
    found, _ = tokens_of(example.data)
    states = {name: stream.state[::7].tolist() for name, stream in found.streams.items()}
    assert states["sfx"] == [PRESENT, SILENT, PRESENT, PRESENT, SILENT, PRESENT, PRESENT]
    assert states["speech"] == [PRESENT, PRESENT, REMOVED, PRESENT, PRESENT, REMOVED, PRESENT]
    assert (found.streams["sfx"].codes[:, 7:14] == 0).all()
    assert back() == example.data
    header = example_header()
    short = write_example(header, [{key: codes[:2] for key, codes in random_codes(header, 7).items()}], [7])
    found, _ = tokens_of(short.data)
    assert found.streams["speech"].num_codebooks.tolist() == [2] * 7
    assert back() == short.data


def test_what_is_damaged_or_lost_is_told_and_comes_back_as_damaged() -> None:
    example = small_example()
    data = bytearray(example.data)
    data[example.starts[1] - 1] ^= 1  # the last chunk of the first segment, of the upper group of sfx
    _, result = tokens_of(bytes(data))
    assert len(result.problems) == 1
    data = bytearray(long_example().data)
    data[long_example().starts[1] + 6] ^= 1  # a head
    found, result = tokens_of(bytes(data))
    assert "all streams are lost in frames 7-13" in result.problems[0]
    assert found.num_frames == 44
    assert all((stream.state[7:14] == DAMAGED).all() for stream in found.streams.values())
    assert from_tokens("a.npz", "b.sdc").notes == ("what is damaged in it is stored as damaged",)
    reader, segments = read_all(io.BytesIO(Path("b.sdc").read_bytes()))
    assert (segments[1].codes, segments[1].silent, segments[1].removed) == ({}, set(), set())
    assert [problem.message for problem in reader.problems] == [
        f"{name} is damaged in segment 1 (frames 7-13, 0.14-0.28 s): it is lost there" for name in ("speech", "sfx")
    ]
    again, _ = tokens_of(Path("b.sdc").read_bytes())
    assert all((again.streams[name].state == stream.state).all() for name, stream in found.streams.items())
    assert back() == Path("b.sdc").read_bytes()


def test_a_file_that_was_cut_off_comes_back_as_long_as_it_is() -> None:
    example = long_example()
    found, result = tokens_of(example.data[: example.starts[2]])
    assert "before its end" in result.problems[0]
    assert (found.num_frames, found.num_samples) == (14, 14 * 320 * 44_100 // 16_000)
    reader, segments = read_all(io.BytesIO(back()))
    assert [segment.num_frames for segment in segments] == [7, 7]
    assert not reader.problems


def test_more_than_can_be_believed_to_be_lost_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MOST_LOST_FRAMES", 6)
    data = bytearray(long_example().data)
    data[long_example().starts[1] + 6] ^= 1
    with pytest.raises(CorruptStream, match=r"^a.sdc: 7 frames are lost at once, more than 6; decode what is left"):
        tokens_of(bytes(data))
    assert not Path("a.npz").exists()


def example_with_envelope() -> Example:
    header = ENVELOPES.header()
    return write_example(
        header, [random_codes(header, 7)], [7], samples=6000, gains=[{0: random_gains(ENVELOPES, 7, seed=1)}]
    )


def test_some_domains_and_codebooks_make_a_smaller_file() -> None:
    example = example_with_envelope()
    found, result = tokens_of(example.data, domains=["speech"], num_codebooks=1)
    assert result.notes == ("envelope and treble are those of the mix of all domains, and are left out",)
    assert result.streams == {"speech": 1}
    assert found.streams["speech"].codes.shape == (1, 7)
    _, (segment,) = read_all(io.BytesIO(back()))
    assert np.array_equal(segment.codes[0, "speech"], example.segments[0][0, "speech"][:1])
    found, result = tokens_of(example.data, domains=["sfx", "speech"], num_codebooks=2)
    assert (result.streams, result.notes, found.envelope is None) == ({"speech": 2, "sfx": 2}, (), False)
    assert back()
    with pytest.raises(InputError, match=r"^a.sdc: has no voice; choose from speech, sfx$"):
        tokens_of(example.data, domains=["voice"])
    with pytest.raises(ValueError, match="num_codebooks must be at least 1, got 0"):
        tokens_of(example.data, num_codebooks=0)


@dataclass(frozen=True)
class Taught:
    """A model whose first codebook of speech was taught what is said."""

    recipe = tiny_decodec(teacher=True)


def taught_example(num_codebooks: int = 3) -> Example:
    header = example_header(
        domains=(
            DomainEntry(name="speech", num_codebooks=num_codebooks, codebook_size=16, groups=(1, 1, 1)[:num_codebooks]),
            DomainEntry(name="background", num_codebooks=2, codebook_size=16, groups=(2,)),
        )
    )
    return write_example(header, [random_codes(header, 7)], [7])


def test_layers_of_speech_are_what_is_said_and_how_it_sounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "find", lambda name: Taught())
    example = taught_example()
    spoken = example.segments[0][0, "speech"]
    semantic, result = tokens_of(example.data, layers="semantic")
    assert (result.streams, semantic.layers) == ({"speech": 1}, "semantic")
    assert np.array_equal(semantic.streams["speech"].codes, spoken[:1])
    _, (segment,) = read_all(io.BytesIO(back()))
    assert np.array_equal(segment.codes[0, "speech"], spoken[:1])
    acoustic, result = tokens_of(example.data, layers="acoustic")
    assert (result.streams, acoustic.layers, acoustic.header.domains[0].groups) == ({"speech": 2}, "acoustic", (1, 1))
    assert np.array_equal(acoustic.streams["speech"].codes, spoken[1:])
    _, result = tokens_of(example.data, layers="acoustic", num_codebooks=1)
    assert result.streams == {"speech": 1}
    assert tokens_of(example.data)[0].layers == "all"


def test_acoustic_codes_alone_make_no_file_and_are_removed_where_there_are_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "find", lambda name: Taught())
    example = taught_example()
    tokens_of(example.data, layers="acoustic")
    with pytest.raises(InputError, match=r"^a.npz: holds acoustic codes alone, .* sdc tokens --layers all$"):
        back()
    with pytest.raises(InputError, match=r"^a.sdc: its acoustic codes were left out; take the file that it was made"):
        tokens_of(taught_example(1).data, layers="acoustic")
    short = [{key: codes[:1] if key[1] == "speech" else codes for key, codes in example.segments[0].items()}]
    found, _ = tokens_of(write_example(example.header, short, [7]).data, layers="acoustic")
    assert found.streams["speech"].state.tolist() == [REMOVED] * 7


def test_layers_need_a_model_that_tells_them_apart_and_are_of_speech_alone() -> None:
    with pytest.raises(
        ModelError, match=r"^a.sdc: codes of sdcodec-16k-mini are not told apart .*: decodec-16k"
    ) as raised:
        tokens_of(small_example().data, layers="semantic", model="sdcodec-16k-mini")
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="semantic codes are of speech alone; leave domains out"):
        tokens_of(small_example().data, layers="semantic", domains=["speech"])


def test_audio_is_not_coded_for_layers_that_its_model_has_not(embedded: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write("a.wav", np.ones(8000) * 0.1, 16_000)
    monkeypatch.setattr("sdcodec_cli.engine.compress.compress", lambda *args, **options: pytest.fail("it was coded"))
    with pytest.raises(ModelError, match=r"^a.wav: codes of sdcodec-16k-mini are not told apart"):
        to_tokens("a.wav", "a.npz", kind="npz", codec=lambda: embedded, layers="acoustic")


def features_in(path: str) -> dict[str, np.ndarray]:
    with np.load(path) as stored:
        return {name.removeprefix("features."): stored[name] for name in stored if name.startswith("features.")}


def test_features_are_what_the_decoder_gets_of_each_stream(embedded: Codec, tmp_path: Path) -> None:
    codec = small_codec("decodec", tmp_path)
    model = tmp_path / "decodec"
    soundfile.write("a.wav", sound(1.0, channels=2), 32_000)
    compress("a.wav", "a.sdc", codec=codec, channels="keep")
    to_tokens("a.sdc", "a.npz", kind="npz", model=model, features=True)
    for number, stream in enumerate(codec.model.streams):
        codes = torch.from_numpy(read_tokens("a.npz")[0].streams[stream.name].codes.astype(np.int64))
        found = features_in("a.npz")[stream.name]
        assert (found.dtype, found.shape[:2]) == (np.float16, (2, codes.shape[-1]))
        for channel, of_channel in zip(codes, found, strict=True):
            stacked = torch.stack([channel] * len(codec.model.streams))
            wanted = codec.model.runtime.network.quantizer.dequantize(stacked)[number]
            np.testing.assert_allclose(of_channel.T, wanted.detach().numpy(), atol=2e-3)
    from_tokens("a.npz", "b.sdc", model=model)
    assert Path("b.sdc").read_bytes() == Path("a.sdc").read_bytes()
    for layers in ("semantic", "acoustic"):
        to_tokens("a.sdc", f"{layers}.npz", kind="npz", model=model, layers=layers, features=True)
    both = features_in("semantic.npz")["speech"] + features_in("acoustic.npz")["speech"].astype(float)
    np.testing.assert_allclose(both, features_in("a.npz")["speech"], atol=4e-3)


def test_features_are_the_same_in_all_formats_and_nothing_where_there_is_no_code(
    embedded: Codec, scene: np.ndarray
) -> None:
    soundfile.write("a.wav", scene[:32_000], 16_000)
    compress("a.wav", "a.sdc", codec=embedded.at_effort(0))
    for kind in FORMATS:
        to_tokens("a.sdc", f"a.{kind}", kind=kind, features=True)
    found = features_in("a.npz")
    (row,) = map(json.loads, Path("a.jsonl").read_text().splitlines())
    table = pyarrow.parquet.read_table("a.parquet")
    tensors = safetensors.numpy.load_file("a.safetensors")
    (tokens,) = read_tokens("a.parquet")
    for name, stream in tokens.streams.items():
        key = f"features.{name}"
        for other in (row[key], table[key][0].as_py(), tensors[key]):
            np.testing.assert_array_equal(np.array(other, dtype=np.float16), found[name])
        np.testing.assert_array_equal(found[name].any(axis=1), stream.state == PRESENT)
    assert {stream.state[0] for stream in tokens.streams.values()} == {PRESENT, SILENT}


def test_features_need_the_weights_that_made_the_codes() -> None:
    with pytest.raises(ModelError, match=r"^a.sdc: was made with other weights of toy .* --model DIR, or leave --feat"):
        tokens_of(small_example().data, model="sdcodec-16k-mini", features=True)


def test_range_coded_codes_need_the_tables_one_way_and_are_raw_without_them_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    example = range_coded_example()
    with pytest.raises(UnsupportedStream, match=r"^a.sdc: its codes need the tables .* \(--model DIR\)$"):
        tokens_of(example.data)
    with pytest.raises(ModelError, match="no such model"):
        tokens_of(example.data, model="none")

    class Entry:
        def tables(self, sha256: bytes) -> object:
            return range_coded_tables()

    with monkeypatch.context() as patch:
        patch.setattr(engine, "find", lambda name: Entry())
        found, _ = tokens_of(example.data)
        assert back() == example.data
    assert from_tokens("a.npz", "c.sdc").notes == ("the tables of toy are not here, so its codes are stored raw",)
    _, segments = read_all(io.BytesIO(Path("c.sdc").read_bytes()))
    assert np.array_equal(segments[0].codes[0, "speech"], found.streams["speech"].codes[:, :20])


def test_what_cannot_be_read_is_an_error_in_a_line() -> None:
    for name, data in (("none.sdc", None), ("text.sdc", b"hello world")):
        if data is not None:
            Path(name).write_bytes(data)
        with pytest.raises((InputError, NotAStream), match=rf"^{name}: "):
            to_tokens(name, "a.npz", kind="npz")
    to_tokens(DATA / "v1_envelope.sdc", "a.jsonl", kind="jsonl")
    Path("two.jsonl").write_text(2 * Path("a.jsonl").read_text())
    with pytest.raises(InputError, match=r"^two.jsonl: has 2 rows, and a .sdc file holds one; write each row into its"):
        from_tokens("two.jsonl", "b.sdc")
    assert not Path("b.sdc").exists()


def test_audio_gets_the_codes_of_compress_and_decodes_to_the_same_samples(embedded: Codec) -> None:
    wav = np.random.default_rng(0).standard_normal(8000) * 0.1
    soundfile.write("a.wav", wav, 16_000)
    codec = embedded.at_effort(0)
    compress("a.wav", "a.sdc", codec=codec)
    result = to_tokens("a.wav", "a.safetensors", kind="safetensors", codec=lambda: codec)
    assert (result.input, result.num_frames, result.frame_rate) == ("a.wav", 25, 50.0)
    from_tokens("a.safetensors", "b.sdc")
    assert Path("b.sdc").read_bytes() == Path("a.sdc").read_bytes()
    for name in "ab":
        decode(f"{name}.sdc", {"mix": f"{name}.decoded.wav"}, codec=codec)
    assert Path("a.decoded.wav").read_bytes() == Path("b.decoded.wav").read_bytes()
