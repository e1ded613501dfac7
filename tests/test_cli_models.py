"""`sdc models`: what the zoo has, and how published checkpoints get into it."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch

from sdcodec_cli import zoo
from sdcodec_cli.cli.console import table
from sdcodec_cli.cli.options import complete_model
from sdcodec_cli.families import build
from sdcodec_cli.recipe import Recipe
from sdcodec_cli.runtime.torch import load_network
from sdcodec_cli.weights import read, sha256

from cli_examples import errors, sdc
from tiny_models import tiny_recipe

pytestmark = pytest.mark.usefixtures("without_graphs")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_default_model_leads_the_list() -> None:
    result = sdc("models", "list")
    assert result.exit_code == 0
    header, _, first, *_ = result.stdout.splitlines()
    assert header.split()[:3] == ["name", "Hz", "domains"]
    assert first.split()[:5] == ["sdcodec-16k-mini", "16000", "speech,", "music,", "sfx"]


def test_the_list_is_one_json_object_per_model() -> None:
    first, *_ = map(json.loads, sdc("models", "list", "--json").stdout.splitlines())
    assert first["name"] == "sdcodec-16k-mini"
    assert first["domains"] == ["speech", "music", "sfx"]
    assert (first["sample_rate"], first["frame_rate"], first["bitrate"]) == (16_000, 50.0, 6.0)


def test_a_recipe_without_weights_says_how_to_get_them() -> None:
    text = sdc("models", "show", "sdcodec-16k").stdout
    assert "none yet; train them (sdc train --recipe sdcodec-16k --data-root DIR) or import" in text


def test_a_model_is_shown_with_its_facts() -> None:
    text = sdc("models", "show", "sdcodec-16k-mini").stdout
    assert text.startswith("sdcodec-16k-mini: ")
    assert "12 x 1024 per domain, up to 6 kbit/s" in text
    assert "  effort   4 by default" in text
    facts = json.loads(sdc("models", "show", "sdcodec-16k-mini", "--json").stdout)
    assert (facts["codebook_size"], facts["effort"]) == (1024, 4)


def test_an_unknown_model_is_refused_with_a_choice() -> None:
    (line,) = errors(sdc("models", "show", "none"))
    assert line.startswith("none: no such model; the zoo has ")
    assert "sdcodec-16k-mini" in line


def test_names_of_models_complete() -> None:
    assert "sdcodec-16k-mini" in complete_model("sdcodec-16k-m")
    assert complete_model("x") == []


CHECKPOINT = Path(__file__).parent / "data" / "official_sdcodec_tiny_shared2.pth"


def test_a_published_checkpoint_becomes_a_model_folder_with_a_card() -> None:
    result = sdc("models", "import", CHECKPOINT, "-o", "tiny", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["domains"] == ["speech", "music", "sfx"]
    assert result.stderr.splitlines()[-1].startswith("tiny: SD-Codec, 16000 Hz, speech, music, sfx, 1.2 kbit/s each, ")
    text = sdc("models", "show", "./tiny").stdout
    assert text.startswith("tiny: ")
    assert hashlib.sha256(CHECKPOINT.read_bytes()).hexdigest() in text


def test_an_existing_folder_is_replaced_only_on_demand() -> None:
    Path("tiny").mkdir()
    assert errors(sdc("models", "import", CHECKPOINT, "-o", "tiny")) == ["tiny exists; pass --force to overwrite it"]
    assert sdc("models", "import", CHECKPOINT, "-o", "tiny", "-f", "-q", "--name", "other").stderr == ""
    assert sdc("models", "show", "./tiny").stdout.startswith("other: ")


def test_what_is_no_checkpoint_is_refused() -> None:
    Path("junk.pth").write_bytes(b"hello world")
    torch.save({"weight": torch.zeros(3)}, "other.pth")
    assert errors(sdc("models", "import", "none.pth", "-o", "x")) == [
        "none.pth: no such file; name a .pth file of SD-Codec or DAC"
    ]
    for name in ("junk.pth", "other.pth"):
        (line,) = errors(sdc("models", "import", name, "-o", "x"))
        assert line.startswith(f"{name}: ")
    assert not Path("x").exists()


@pytest.mark.parametrize("name", [".hidden", "a/b", "a\nb", "x" * 65])
def test_names_that_a_stream_cannot_carry_are_refused(name: str) -> None:
    (line,) = errors(sdc("models", "import", "a.pth", "-o", "x", "--name", name), exit_code=2)
    assert (
        line
        == f"--name {name!r}: a name has 1 to 64 bytes of UTF-8, no control characters, no slash and no dot in front"
    )


def test_names_stay_whole_in_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    table(("name", "what"), [("sdcodec-16k-separation", "word " * 30)], whole=("name",))
    assert "sdcodec-16k-separation" in capsys.readouterr().out


def models_of_known_weights(*values: float) -> None:
    """Folders `m0`, `m1`, … of models that are alike but for one bias."""
    weights = build(tiny_recipe()).state_dict()
    for number, value in enumerate(values):
        weights["decoder.project.bias"] = torch.full_like(weights["decoder.project.bias"], value)
        zoo.write_model(Path(f"m{number}"), tiny_recipe(), weights, card="")


def test_the_mean_of_models_is_a_model() -> None:
    models_of_known_weights(1.0, 4.0)
    result = sdc("models", "average", "./m0", "./m1", "./m1", "-o", "mean", "--bits", "16", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["name"] == "mean"
    assert result.stderr.splitlines()[-1].startswith("mean: mean, mean of 3 models, ")
    weights = load_network(zoo.find("./mean")).state_dict()
    one = load_network(zoo.find("./m0")).state_dict()
    for name, tensor in weights.items():
        expected = torch.full_like(tensor, 3.0) if name == "decoder.project.bias" else one[name]
        torch.testing.assert_close(tensor, expected, rtol=2**-11, atol=1e-6)  # of 16 bits, eleven are digits
    assert "Mean of the weights of `m0`, `m1`, `m1`" in sdc("models", "show", "./mean").stdout


def test_the_mean_of_models_of_the_same_quantizers_may_replace_one_of_them() -> None:
    models_of_known_weights(1.0, 4.0)
    assert sdc("models", "average", "./m0", "./m1", "-o", "mean", "--replaces", "./m0").exit_code == 0
    old, *others = json.loads(sdc("models", "show", "./mean", "--json").stdout)["decodes"]
    assert (bytes.fromhex(old), others) == (sha256(read(zoo.weights_path(zoo.find("./m0")))), [])
    (line,) = errors(sdc("models", "average", "./m0", "./m1", "-o", "no", "--replaces", "./m0", "--keep-older", "-q"))
    assert line.endswith("leave --keep-older out")
    assert errors(sdc("models", "average", "./m0", "./m1", "-o", "no", "--keep-older"), exit_code=2) == [
        "--keep-older: name the model whose decoder to keep with --replaces"
    ]
    assert not Path("no").exists()


def test_a_model_that_only_gets_graphs_replaces_none() -> None:
    models_of_known_weights(1.0)
    assert errors(sdc("models", "export", "m0", "--replaces", "./m0"), exit_code=2) == [
        "--replaces is for making a model of a run; leave it out to write graphs into m0"
    ]


def test_graphs_of_its_recipe_are_beside_the_weights_of_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def make_graphs(recipe: Recipe) -> dict[str, bytes]:
        made.append(recipe)
        return {"manifest.json": b"{}", "analyse.onnx": b"graph"}

    monkeypatch.setattr("sdcodec_cli.engine.train.export.make_graphs", make_graphs)
    models_of_known_weights(1.0, 4.0)
    assert sdc("models", "average", "./m0", "./m1", "-o", "mean").exit_code == 0
    (recipe,) = made
    assert recipe == zoo.find("./mean").recipe
    found = {path.name: path.read_bytes() for path in Path("mean/graphs").iterdir()}
    assert found == {"manifest.json": b"{}", "analyse.onnx": b"graph"}


def test_models_that_have_no_mean_are_refused() -> None:
    models_of_known_weights(1.0)
    conv = tiny_recipe("conv")
    zoo.write_model(Path("conv"), conv, build(conv).state_dict(), card="")
    assert errors(sdc("models", "average", "./m0", "-o", "mean"), exit_code=2) == [
        "one model is its own mean; name two or more"
    ]
    assert errors(sdc("models", "average", "./m0", "./conv", "-o", "mean")) == [
        "conv: has not the shape of m0; average models of one recipe"
    ]
    (line,) = errors(sdc("models", "average", "./m0", "dac-16k", "-o", "mean"))
    assert line.startswith("dac-16k: this recipe comes without weights")
    assert "'12' is not 32, 16 or 8" in sdc("models", "average", "./m0", "./m0", "-o", "x", "--bits", "12").stderr
    assert not Path("mean").exists()
