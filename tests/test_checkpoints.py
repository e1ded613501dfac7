"""Published checkpoints: the tiny ones in tests/data, with what the published code computes from them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sdcodec_cli import zoo
from sdcodec_cli.checkpoints import Imported, read_checkpoint
from sdcodec_cli.errors import ModelError
from sdcodec_cli.families import build
from sdcodec_cli.nn.sdcodec import SDCodec
from sdcodec_cli.runtime.torch import load_network

DATA = Path(__file__).parent / "data"
SDCODEC = ["official_sdcodec_tiny_shared0", "official_sdcodec_tiny_shared2"]

# The expected audio was computed in 32 bits: a 64-bit evaluation of the same weights differs from it by up to 7e-5, and
# so does any other order of summation, such as another number of threads. Codes are integers and must be equal.
AUDIO, LATENT = 1.6e-4, 1e-4


def load(name: str, dtype: torch.dtype = torch.float32) -> tuple[Imported, SDCodec, dict[str, torch.Tensor]]:
    imported = read_checkpoint(DATA / f"{name}.pth")
    network = build(imported.recipe).eval().requires_grad_(False).to(dtype)
    network.load_state_dict({key: tensor.to(dtype) for key, tensor in imported.tensors.items()})
    return imported, network, load_file(DATA / f"{name}.io.safetensors")


@pytest.mark.parametrize("name", SDCODEC)
def test_sdcodec_latents_codes_and_audio_are_those_of_the_published_code(name):
    imported, network, expected = load(name)
    assert imported.layout == "SD-Codec"
    latent = network.encode(expected["x"])
    # Unquantized latents reach 50 here; on two threads they agree within 8e-5, on one within 3.2e-4.
    peak = float(expected["feats"].abs().max())
    torch.testing.assert_close(latent, expected["feats"], atol=1e-5 * peak, rtol=0)
    quantized, stems = network.quantize(latent), network(expected["x"])
    for index, domain in enumerate(imported.recipe.model.domains):
        assert torch.equal(quantized.codes[index], expected[f"codes.{domain}"])
        torch.testing.assert_close(quantized.latents[index], expected[f"z.{domain}"], atol=LATENT, rtol=0)
        two = quantized.codes.clone()
        two[:, :, 2:] = -1
        for example, wanted in enumerate(expected[f"z_2q.{domain}"]):
            found = network.quantizer.dequantize(two[:, example])[index]
            torch.testing.assert_close(found, wanted, atol=LATENT, rtol=0)
        torch.testing.assert_close(stems[domain], expected[f"y.{domain}"], atol=AUDIO, rtol=0)
    torch.testing.assert_close(stems["mix"], expected["y.mix"], atol=AUDIO, rtol=0)


def test_dac_latents_codes_and_audio_are_those_of_the_published_code():
    imported, network, expected = load("official_dac_tiny")
    assert (imported.layout, imported.recipe.quantizer.num_shared) == ("DAC", 4)
    quantized = network.quantize(network.encode(expected["x"]))
    assert torch.equal(quantized.codes[0], expected["codes"])
    torch.testing.assert_close(quantized.latents[0], expected["z"], atol=LATENT, rtol=0)
    # DAC's audio ends 8 samples short of its frames.
    wav = network.decode(quantized.latents[0])[..., : expected["y"].shape[-1]]
    torch.testing.assert_close(wav, expected["y"], atol=2 * AUDIO, rtol=0)


@pytest.mark.parametrize(
    ("name", "latent", "wav"), [(SDCODEC[0], "z.speech", "y.speech"), ("official_dac_tiny", "z", "y")]
)
def test_our_audio_is_no_further_from_the_published_than_that_is_from_64_bit_arithmetic(name, latent, wav):
    _, network, expected = load(name)
    _, precise, _ = load(name, torch.float64)
    length = expected[wav].shape[-1]
    ours = (network.decode(expected[latent])[..., :length] - expected[wav]).abs().max()
    theirs = (precise.decode(expected[latent].double())[..., :length] - expected[wav]).abs().max()
    assert float(ours) < 2 * float(theirs)


def test_sizes_are_read_off_the_tensors():
    imported = read_checkpoint(DATA / "official_sdcodec_tiny_shared2.pth", name="mine")
    assert imported.recipe.name == "mine"
    assert imported.recipe.encoder.strides == (2, 4, 5, 8)
    assert (imported.recipe.quantizer.num_codebooks, imported.recipe.quantizer.num_shared) == (4, 2)
    assert imported.recipe.decoder.upsampling == "sdcodec"


def test_an_imported_model_is_written_and_found_again(tmp_path):
    imported = read_checkpoint(DATA / "official_dac_tiny.pth")
    zoo.write_model(tmp_path / "dac", imported.recipe, imported.tensors, card="# imported\n")
    network = load_network(zoo.find(tmp_path / "dac"))
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, imported.tensors[name]), name


class Evil:
    def __reduce__(self):
        return (print, ("this must never be printed",))


def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(tmp_path, capsys):
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ModelError, match="evil.pth: holds Python objects other than tensors"):
        read_checkpoint(tmp_path / "evil.pth")
    assert "never" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"layer.weight": torch.zeros(2)}, "neither an SD-Codec nor a DAC checkpoint"),
        ([1, 2], "holds no state dict"),
        ({1: torch.zeros(2)}, "holds no state dict"),
        (
            {"quantizer.quantizers.0.x": torch.zeros(2), "encoder.block.1.block.0.weight": torch.zeros(2)},
            "looks like DAC, but its tensors do not fit",
        ),
        (
            {"state_dict": {"quantizer.quantizers.0.x": torch.zeros(2)}, "metadata": {"kwargs": None}},
            "looks like DAC, but its tensors do not fit",
        ),
        ({"quantizer.quantizers.0.codebook.weight": torch.zeros(4, 2)}, "looks like DAC, but its tensors do not fit"),
    ],
)
def test_other_content_is_named(tmp_path, content, message):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=message):
        read_checkpoint(tmp_path / "other.pth")


def test_what_is_not_a_checkpoint_or_not_there_is_named(tmp_path):
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ModelError, match="text.pth: "):
        read_checkpoint(tmp_path / "text.pth")
    with pytest.raises(ModelError, match="no such file"):
        read_checkpoint(tmp_path / "missing.pth")
