"""What a model takes over from one that it replaces: files of that are decoded, bit for bit by a decoder kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sdcodec_cli import compress, decode, load_codec, zoo
from sdcodec_cli.bitstream import Reader
from sdcodec_cli.engine.codec import open_codec
from sdcodec_cli.engine.decode import DecodeResult
from sdcodec_cli.engine.train.export import write
from sdcodec_cli.engine.train.older import Replaced, take_over
from sdcodec_cli.errors import ModelError
from sdcodec_cli.families import build
from sdcodec_cli.recipe import Recipe
from sdcodec_cli.weights import Weights, pack, read, sha256, unpack

from cli_examples import errors, sdc
from tiny_models import tiny_recipe, tiny_separator, write_tiny

pytestmark = pytest.mark.usefixtures("without_graphs")

RECIPE = tiny_recipe(activity=False)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.random.default_rng(0).standard_normal(20_000) * 0.05, 16_000)
    return tmp_path


def model(name: str, tensors: Weights, *, bits: int = 16, replaces: str | None = None, keep: bool = False) -> bytes:
    """Write a model folder, replacing the one that is there; its hash."""
    replaced = Replaced(zoo.find(f"./{replaces}"), keep) if replaces else None
    entry = write(Path(name), RECIPE, tensors, bits=bits, card="", replaces=replaced, overwrite=True)
    return sha256(read(zoo.weights_path(entry)))


def first() -> Weights:
    """Weights of a network whose quantizers and decoder are not at their beginning."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    weights = {name: tensor.numpy() for name, tensor in build(RECIPE).state_dict().items()}
    return {name: (tensor + 0.05 * rng.standard_normal(tensor.shape)).astype("f4") for name, tensor in weights.items()}


def changed(weights: Weights, *parts: str) -> Weights:
    """The same but for these parts of the network."""
    return {name: tensor * np.float32(1.5) if name.startswith(parts) else tensor for name, tensor in weights.items()}


def coded(name: str) -> bytes:
    """What the model `name` decodes its own file `NAME.sdc` to, which is made."""
    compress("a.wav", f"{name}.sdc", codec=load_codec(f"./{name}", device="cpu", effort=1))
    return decoded(name, name)[0]


def decoded(file: str, name: str, **options: bool) -> tuple[bytes, DecodeResult]:
    """What the model `name` decodes `FILE.sdc` to."""
    result = decode(
        f"{file}.sdc", {"mix": "out.wav"}, codec=load_codec(f"./{name}", device="cpu"), overwrite=True, **options
    )
    return Path("out.wav").read_bytes(), result


def facts(result: DecodeResult) -> tuple[str | None, str]:
    return result.older_weights, result.decoder_weights


# The same quantizers.


def test_a_model_of_the_same_quantizers_decodes_the_files_of_the_one_that_it_replaced():
    old = model("a", first())
    before = coded("a")
    new = model("b", changed(first(), "decoder."), replaces="a")
    model("other", changed(first(), "decoder."))
    after, result = decoded("a", "b")
    assert facts(result) == (old.hex(), new.hex())
    assert after == decoded("a", "other", force_model=True)[0] != before
    with pytest.raises(ModelError, match=r"a.sdc: was made with weights .* name the right model with --model DIR, or"):
        decoded("a", "other")


def test_a_models_own_files_are_not_of_older_weights():
    digest = model("a", first())
    coded("a")
    assert facts(decoded("a", "a")[1]) == (None, digest.hex())


@pytest.mark.parametrize("bits", [32, 16, 8])
def test_quantizers_are_compared_as_they_are_stored(bits):
    old = model("a", first(), bits=bits)
    stored = unpack(read(zoo.weights_path(zoo.find("./a"))))
    for width in (32, 16):
        if width == 16 and bits == 32:
            continue  # rounds them
        model("b", changed(stored, "encoder.", "decoder."), bits=width, replaces="a")
        assert zoo.find("./b").decodes == (old,)


@pytest.mark.parametrize("name", ["quantizer.own.codebook", "quantizer.shared.out_bias", "quantizer.own.in_weight"])
def test_other_quantizers_are_refused_with_the_name_of_the_first_tensor_that_differs(name):
    model("a", first())
    with pytest.raises(ModelError, match=rf"^a: its {name} is not that of the new weights.*; pass --keep-older"):
        model("b", changed(first(), name), replaces="a")
    assert not Path("b").exists()


def test_what_a_replaced_model_decodes_goes_over_and_so_down_a_chain():
    one = model("a", first())
    two = model("b", changed(first(), "decoder."), replaces="a")
    three = model("c", changed(first(), "encoder."), replaces="b")
    assert len({one, two, three}) == 3
    assert zoo.find("./c").decodes == (two, one)


def test_a_model_may_take_the_place_of_the_one_that_it_replaces_and_be_exported_again():
    old = model("a", first())
    coded("a")
    for _ in range(2):
        new = model("a", changed(first(), "decoder."), replaces="a")
        assert zoo.find("./a").decodes == (old,)
    assert facts(decoded("a", "a")[1]) == (old.hex(), new.hex())


# Other quantizers.


@pytest.mark.parametrize("bits", [32, 16, 8])
def test_a_decoder_that_is_kept_decodes_bit_for_bit_what_its_model_did(bits):
    old = model("a", first(), bits=bits)
    before = coded("a")
    model("b", changed(first(), "quantizer.", "decoder."), replaces="a", keep=True)
    after, result = decoded("a", "b")
    assert after == before
    assert facts(result) == (old.hex(), old.hex())
    kept = Path("b", "older", old.hex()[:8])
    assert {path.name for path in kept.iterdir()} == {"recipe.toml", "decoder.safetensors"}  # graphs are left out here
    assert {name.partition(".")[0] for name in read(kept / "decoder.safetensors")} == {"quantizer", "decoder"}


def test_a_decoder_is_not_kept_where_the_quantizers_are_the_same():
    model("a", first())
    with pytest.raises(ModelError, match=r"^a: its quantizers are those of the new weights.*; leave --keep-older out"):
        model("b", changed(first(), "decoder."), replaces="a", keep=True)


def test_files_of_a_whole_chain_are_decoded_by_its_last_model():
    """The second has the quantizers of the first, the fourth those of the third."""
    start = first()
    digests = {"a": model("a", start)}
    digests["b"] = model("b", changed(start, "decoder."), replaces="a")
    middle = changed(start, "quantizer.")
    digests["c"] = model("c", middle, replaces="b", keep=True)
    own = {name: coded(name) for name in "abc"}
    by_b, by_d = decoded("a", "b")[0], changed(middle, "decoder.")
    digests["d"] = model("d", by_d, replaces="c")
    model("plain", by_d)
    expected = {"a": (by_b, "b"), "b": (own["b"], "b"), "c": (decoded("c", "plain", force_model=True)[0], "d")}
    for file, (audio, decoder) in expected.items():
        found, result = decoded(file, "d")
        assert found == audio, file
        assert facts(result) == (digests[file].hex(), digests[decoder].hex())


def test_decoders_stay_when_their_model_is_written_anew():
    model("a", first())
    before = coded("a")
    model("a", changed(first(), "quantizer."), replaces="a", keep=True)
    model("a", changed(first(), "quantizer.", "decoder."))
    assert decoded("a", "a")[0] == before


def test_files_of_weights_that_nothing_is_known_of_are_refused_as_ever():
    model("a", first())
    found = model("b", changed(first(), "quantizer."), replaces="a", keep=True).hex()[:8]
    made = model("stranger", changed(first(), "quantizer.", "encoder.")).hex()[:8]
    coded("stranger")
    expected = f"stranger.sdc: was made with weights {made}... of {RECIPE.name}, but {RECIPE.name} has {found}...; "
    assert errors(sdc("decode", "stranger.sdc", "--model", "./b", "--runtime", "torch")) == [
        expected + "name the right model with --model DIR, or pass --force-model to decode anyway"
    ]


def test_nothing_is_encoded_with_a_decoder():
    old = model("a", first())
    model("b", changed(first(), "quantizer."), replaces="a", keep=True)
    kept = Path("b", "older", old.hex()[:8])
    only = f"{kept}: only decodes files of older weights; name another model for anything else"
    for command in ("compress", "separate", "bench"):
        assert errors(sdc(*[command, *["a.wav"] * (command != "bench"), "--model", kept])) == [only]
    with pytest.raises(ModelError, match=only):
        load_codec(kept)
    with pytest.raises(ModelError, match=only):
        load_codec("./b").decoder_for(old).encode(np.ones(1600, np.float32))


def test_the_command_says_how_it_decoded_and_loads_nothing_but_the_decoder():
    old = model("a", first()).hex()
    before = coded("a")
    model("b", changed(first(), "quantizer."), replaces="a", keep=True)
    new = model("c", changed(first(), "decoder."), replaces="a").hex()
    Path("b", "weights.safetensors").write_bytes(b"damaged")
    result = sdc("decode", "a.sdc", "--model", "./b", "--runtime", "torch", "-o", "b.wav", "--json")
    made = f"a.sdc: was made with older weights {old[:8]}...; decoded with "
    assert result.stderr.splitlines()[0] == made + "their own decoder"
    assert (facts := json.loads(result.stdout))["older_weights"] == facts["decoder_weights"] == old
    assert Path("b.wav").read_bytes() == before
    result = sdc("decode", "a.sdc", "--model", "./c", "--runtime", "torch", "-o", "c.wav")
    assert result.stderr.splitlines()[0] == made + f"{new[:8]}..., which have the same quantizers"


def test_a_model_shows_whose_files_it_decodes():
    old = model("a", first()).hex()
    newer = model("b", changed(first(), "decoder."), replaces="a").hex()
    model("c", changed(first(), "quantizer."), replaces="b", keep=True)
    assert "older weights" not in sdc("models", "show", "./a").stdout
    assert (
        f"  decodes  files of older weights of the same quantizers, too: {old[:8]}\n"
        in sdc("models", "show", "./b").stdout
    )
    assert (
        f"  keeps    decoders for files of older weights: {newer[:8]}, {old[:8]}\n"
        in sdc("models", "show", "./c").stdout
    )
    shown = json.loads(sdc("models", "show", "./c", "--json").stdout)
    assert (shown["decodes"], shown["keeps"]) == ([], [newer, old])


def test_a_damaged_decoder_is_named():
    old = model("a", first()).hex()
    coded("a")
    model("b", changed(first(), "quantizer."), replaces="a", keep=True)
    path = Path("b", "older", old[:8], "decoder.safetensors")
    path.write_bytes(path.read_bytes()[:200])
    (line,) = errors(sdc("decode", "a.sdc", "--model", "./b", "--runtime", "torch"))
    assert line.startswith(f"{path}: the weights cannot be read")


# What can be replaced, and its graphs.


def test_a_model_without_codes_or_without_weights_cannot_be_replaced(tmp_path):
    separator = zoo.find(write_tiny(tmp_path / "tdanet", tiny_separator()))
    with pytest.raises(ModelError, match=r"tdanet: has no codes, .* leave --replaces out"):
        take_over(Replaced(separator), pack(first(), 16))
    with pytest.raises(ModelError, match="this recipe comes without weights"):
        take_over(Replaced(zoo.find("sdcodec-16k")), pack(first(), 16))


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_the_decoder_of_the_shipped_model_decodes_bit_for_bit_in_either_runtime(runtime):
    """Kept by a tiny model, which has no graphs of its own."""
    kept = take_over(Replaced(zoo.find(), keep=True), pack(first(), 16)).older
    zoo.write_model(Path("heir"), RECIPE, first(), card="", older=kept)
    *_, decoder = zoo.find("./heir").decoders
    assert {path.name for path in (decoder.folder / "graphs").iterdir()} == {"synthesize.onnx", "manifest.json"}
    assert decoder.size_bytes < 0.6 * zoo.find().size_bytes
    file = Path(__file__).parent / "data" / "weights" / "sdcodec-16k-mini_af32eb51.sdc"
    with file.open("rb") as opened:
        made_with = Reader(opened).header.weights_sha256
    found = []
    for name in (None, "./heir"):
        codec = open_codec(name, runtime=runtime, device="cpu", threads=1, made_with=made_with)
        assert codec.runtime == runtime
        decode(file, {"mix": "out.wav"}, codec=codec, overwrite=True)
        found.append(Path("out.wav").read_bytes())
    assert found[0] == found[1]


def test_a_decoder_gets_a_graph_where_its_model_had_none(monkeypatch):
    made = []

    def make_graphs(recipe: Recipe, parts: Sequence[str]) -> dict[str, bytes]:
        made.append((recipe, parts))
        return {"manifest.json": b"{}"}

    monkeypatch.setattr("sdcodec_cli.engine.train.older.make_graphs", make_graphs)
    monkeypatch.setattr("sdcodec_cli.engine.train.export.make_graphs", make_graphs)
    old = write_tiny(Path("a"), RECIPE)
    kept = take_over(Replaced(zoo.find(old.absolute()), keep=True), pack(first(), 16)).older
    zoo.write_model(Path("b"), RECIPE, first(), card="", older=kept)
    (decoder,) = zoo.find("./b").decoders
    assert (decoder.folder / "graphs" / "manifest.json").read_bytes() == b"{}"
    assert sdc("models", "export", decoder.folder).exit_code == 0
    assert made == [(RECIPE, ("synthesize",))] * 2
