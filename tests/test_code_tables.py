"""Tables are made of a model's codes, and files take fewer bytes with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sdcodec_cli import zoo
from sdcodec_cli.engine.bench import bench
from sdcodec_cli.engine.codec import load_codec
from sdcodec_cli.engine.compress import compress
from sdcodec_cli.engine.decode import decode
from sdcodec_cli.engine.train.code_tables import measured, train_tables
from sdcodec_cli.errors import ModelError, UnsupportedStream
from sdcodec_cli.nn.prediction import CodePredictor, frequencies, tree
from sdcodec_cli.prediction import CodeTables

from cli_examples import errors, sdc
from tiny_models import tiny_recipe, write_tiny
from training_examples import make_corpus

pytestmark = pytest.mark.usefixtures("without_graphs")

GROUPS = {"speech": (2, 1)}


def vectors(num_codebooks: int = 3, num_entries: int = 16) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((num_codebooks, num_entries, 4)).astype(np.float32)


def repeating_codes(num_segments: int, seed: int = 1) -> np.ndarray:
    """Codes that are those of the frame before, nine times out of ten."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 16, (num_segments, 3, 30))
    for frame in range(1, 30):
        again = rng.random(codes.shape[:2]) < 0.9
        codes[..., frame] = np.where(again, codes[..., frame - 1], codes[..., frame])
    return codes


def test_codes_that_repeat_take_half_the_bytes() -> None:
    given = {"speech": repeating_codes(80)}
    tensors, held_out = train_tables(given, {"speech": vectors()}, GROUPS, passes=8, seed=0)
    assert len(held_out["speech"]) == 8
    result = measured(CodeTables(tensors), held_out, GROUPS, {"speech": 16})
    assert result.raw_bits == {"speech": 4}
    assert max(result.bits["speech"]) < 2.4
    assert result.saved > 0.4


def test_whole_numbers_cost_what_the_network_costs() -> None:
    torch.manual_seed(0)
    predictor = CodePredictor(vectors(), GROUPS["speech"])
    codes = repeating_codes(20)
    predictor.fit(predictor.places(codes))
    with torch.no_grad():
        expected = predictor.bits(predictor.places(codes)).mean((1, 2)).numpy()
    tensors = {f"speech.{key}": tensor for key, tensor in predictor.whole_numbers().items()}
    tables = CodeTables({"weights": frequencies(), **tensors})
    np.testing.assert_allclose(tables.bits("speech", codes, GROUPS["speech"]), expected, atol=0.03)


def test_weights_far_below_the_largest_are_not_lost() -> None:
    predictor = CodePredictor(vectors(), GROUPS["speech"])
    with torch.no_grad():
        predictor.query[:] = 0.004
        predictor.query[0, 0, 0] = 1.0
    found = predictor.whole_numbers()
    assert found["query"][1, 0, 0] / 2.0 ** found["shifts"][2] == pytest.approx(0.004, abs=0.001)


def test_sums_of_many_large_weights_stay_exact() -> None:
    many = np.random.default_rng(0).standard_normal((12, 4, 8)).astype(np.float32)
    predictor = CodePredictor(many, (4, 4, 4))
    with torch.no_grad():
        predictor.past[:] = 1.0
    found = {f"speech.{key}": tensor for key, tensor in predictor.whole_numbers().items()}
    CodeTables({"weights": frequencies(), **found})


def test_the_same_seed_makes_the_same_tables() -> None:
    given = {"speech": repeating_codes(12)}
    first, second = (
        CodeTables(train_tables(given, {"speech": vectors()}, GROUPS, passes=1, seed=3)[0]) for _ in range(2)
    )
    assert first.sha256 == second.sha256


def test_leaves_of_a_branch_are_alike() -> None:
    points = np.array([[0.0, 0], [5, 5], [0, 0.1], [5, 5.1]], dtype=np.float32)
    order = tree(points, 2)
    assert {frozenset(order[:2].tolist()), frozenset(order[2:].tolist())} == {frozenset({0, 2}), frozenset({1, 3})}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny model and a corpus."""
    root = tmp_path_factory.mktemp("tables")
    model = write_tiny(root / "tiny", tiny_recipe())
    corpus = make_corpus(root / "corpus")
    assert sdc("data", "scan", str(corpus)).exit_code == 0
    rng = np.random.default_rng(0)
    time = np.arange(72_000) / 16_000
    tone = 0.2 * np.sin(2 * np.pi * 200 * time) + 0.001 * rng.standard_normal(len(time))
    soundfile.write(root / "a.wav", tone, 16_000)
    return model, corpus


def test_files_of_a_model_with_tables_are_smaller_and_sound_the_same(made: tuple[Path, Path], tmp_path: Path) -> None:
    model, corpus = made
    wav = model.parent / "a.wav"
    raw = compress(wav, tmp_path / "raw.sdc", codec=load_codec(model))
    said = sdc(
        *("models", "tables", str(model), "--data-root", str(corpus)),
        *("--minutes", "1", "--passes", "2", "--json"),
    )
    assert said.exit_code == 0, said.stderr
    result = json.loads(said.stdout)
    assert set(result["bits"]) == {"speech", "music", "sfx"}
    assert result["saved"] > 0
    codec = load_codec(model)
    tables = codec.tables()
    assert tables is not None
    assert tables.sha256.hex() == result["tables_sha256"]
    coded = compress(wav, tmp_path / "coded.sdc", codec=codec)
    assert coded.saved_percent > 0 == raw.saved_percent
    assert coded.payload_bitrate < raw.payload_bitrate
    for name in ("raw", "coded"):
        decode(tmp_path / f"{name}.sdc", {"mix": tmp_path / f"{name}.wav"}, codec=codec)
    assert (tmp_path / "raw.wav").read_bytes() == (tmp_path / "coded.wav").read_bytes()

    speeds = bench(codec, seconds=0.5, repeats=1)
    assert speeds.write is not None
    assert speeds.read is not None

    # Of tables that are replaced, files decode still.
    zoo.replace_tables(model, other_tables(model))
    again = load_codec(model)
    replaced = again.tables()
    assert replaced is not None
    assert replaced.sha256 != tables.sha256
    decode(tmp_path / "coded.sdc", {"mix": tmp_path / "again.wav"}, codec=again)
    assert (tmp_path / "again.wav").read_bytes() == (tmp_path / "coded.wav").read_bytes()

    shown = sdc("info", str(tmp_path / "coded.sdc"))
    assert "range-coded" in shown.stdout
    assert "only checksums were checked" in shown.stdout

    # Without any, what is missing is said.
    (model / zoo.TABLES).unlink()
    for path in (model / zoo.OLDER).iterdir():
        path.unlink()
    with pytest.raises(UnsupportedStream, match="its codes need the tables"):
        decode(tmp_path / "coded.sdc", {"mix": tmp_path / "none.wav"}, codec=load_codec(model))


def other_tables(model: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    tensors = dict(load_file(model / zoo.TABLES))
    tensors["speech.leaves_bias"] = tensors["speech.leaves_bias"] + 1
    return tensors


def test_tables_that_are_damaged_say_so(tmp_path: Path) -> None:
    model = write_tiny(tmp_path / "tiny", tiny_recipe())
    (model / zoo.TABLES).write_bytes(b"no tables")
    with pytest.raises(ModelError, match="the tables cannot be read"):
        load_codec(model).tables()


def test_a_data_root_without_a_manifest_is_named(made: tuple[Path, Path], tmp_path: Path) -> None:
    (line,) = errors(sdc("models", "tables", str(made[0]), "--data-root", str(tmp_path)), exit_code=1)
    assert "make it with sdc data scan" in line
