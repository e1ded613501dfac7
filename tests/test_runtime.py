"""The two runtimes behind the engine: the same codes and the same audio, whatever surrounds them, and how they fail."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.numpy import save_file

from sdcodec_cli import load_codec, weights, zoo
from sdcodec_cli.engine.codec import Codec
from sdcodec_cli.engine.codes import Codes
from sdcodec_cli.engine.compress import compress
from sdcodec_cli.engine.decode import decode
from sdcodec_cli.errors import DeviceError, MissingExtra, ModelError
from sdcodec_cli.families.sdcodec import FAMILY
from sdcodec_cli.runtime import CodecModel, load_model
from sdcodec_cli.runtime.model import NOTHING

from tiny_models import tiny_recipe, write_tiny

SCENE = Path(__file__).resolve().parents[1] / "docs" / "scene.flac"
RUNTIMES = ["onnx", "torch"]


@pytest.fixture(scope="module")
def codecs() -> dict[str, Codec]:
    """The embedded model in either runtime, without refinement."""
    return {name: load_codec(runtime=name, device="cpu", threads=1, effort=0) for name in RUNTIMES}


@pytest.fixture(scope="module")
def encoded(codecs, scene) -> list[Codes]:
    """The scene in either runtime."""
    return [codecs[name].encode(scene) for name in RUNTIMES]


@pytest.fixture(params=RUNTIMES)
def codec(request, codecs) -> Codec:
    return codecs[request.param]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of the embedded model, to be spoiled."""
    return Path(shutil.copytree(zoo.find().folder, tmp_path / "model"))


def stacked(codec: Codec, wav, **options) -> np.ndarray:
    """Codes of all domains, `[N, B, K, F]`."""
    return np.stack(list(codec.encode(wav, **options).codes.values()))


def level(error: np.ndarray, reference: np.ndarray) -> float:
    """Of an error below a signal, in dB."""
    return float(10 * np.log10(np.square(reference).sum() / np.square(error).sum()))


def excerpt_refiners(codecs: dict[str, Codec], wav: np.ndarray, gates: np.ndarray):
    """Refiners of both runtimes for the same audio, and the latent to start from."""
    models = [codecs[name].model for name in RUNTIMES]
    past = np.zeros((3, 12, 0), dtype=np.int64)
    return [model.refiner(wav, past, gates, 12) for model in models], models[1].analyse(wav).latent


# What a model says of itself.


def test_a_model_says_what_its_recipe_does(codec):
    model, recipe = codec.model, zoo.find().recipe
    assert (model.sample_rate, model.hop_length) == (16_000, 320)
    assert (model.loudness, model.effort) == (recipe.model.loudness, recipe.model.effort)
    assert [stream.name for stream in model.streams] == ["speech", "music", "sfx"]
    assert {(s.num_codebooks, s.num_shared, s.codebook_size) for s in model.streams} == {(12, 0, 1024)}
    assert model.stems == ("speech", "music", "sfx")
    assert (model.num_codebooks, model.codebook_bitrate, model.has_bitrates) == (12, 0.5, True)


def test_both_runtimes_see_as_far(codecs):
    one, other = (codecs[name].model for name in RUNTIMES)
    assert one.analysis_context == other.analysis_context
    assert one.synthesis_context == other.synthesis_context


@pytest.mark.parametrize("length", [1, 320, 321, 16_000])
def test_arrays_have_the_shapes_and_types_of_the_contract(codec, scene, length):
    model, frames = codec.model, -(-length // 320)
    heard = model.analyse(scene[60_000 : 60_000 + length])
    assert (heard.latent.shape, heard.latent.dtype) == ((256, frames), np.float32)
    assert (heard.activity.shape, heard.activity.dtype) == ((3, frames), np.float32)
    assert 0 <= heard.activity.min() <= heard.activity.max() <= 1
    codes = model.quantize(heard.latent)
    assert (codes.shape, codes.dtype) == ((3, 12, frames), np.int64)
    assert 0 <= codes.min() <= codes.max() < 1024
    wavs = model.synthesize(codes, [[0, 1, 2], [1]])
    assert (wavs.shape, wavs.dtype) == ((2, frames * 320), np.float32)


def test_what_is_there_is_synthesized_as_if_nothing_else_were(codec, scene):
    model = codec.model
    codes = model.quantize(model.analyse(scene[60_000:76_000]).latent)
    without = codes.copy()
    without[1] = NOTHING
    mix, voice = model.synthesize(codes, [[0, 1, 2], [0]])
    pair, same = model.synthesize(without, [[0, 2], [0]])
    np.testing.assert_allclose(same, voice, atol=1e-5)
    np.testing.assert_allclose(model.synthesize(without, [[0, 1, 2]])[0], pair, atol=1e-5)
    assert np.abs(pair - mix).max() > 1e-3


# Equality.


def test_nearly_all_codes_and_all_the_audio_are_the_same_in_either_runtime(codecs, encoded):
    one, other = (np.stack(list(codes.codes.values())) for codes in encoded)
    assert (one == other).mean() >= 0.999
    codes = encoded[RUNTIMES.index("torch")]
    for stem in ("mix", "speech", "music", "sfx"):
        ours, theirs = (codecs[name].decode(codes, stem=stem) for name in RUNTIMES)
        assert level(ours - theirs, theirs) >= 60


def test_both_runtimes_choose_the_same_gains(encoded):
    one, other = (codes.envelope.gains for codes in encoded)
    assert one.any()
    assert (one == other).mean() >= 0.999


def test_domains_are_heard_in_the_same_places(encoded):
    one, other = (codes.active for codes in encoded)
    assert all(np.array_equal(one[domain], other[domain]) for domain in one)


@pytest.mark.parametrize("gated", ["nothing", "a domain", "the end", "the beginning"])
def test_distance_and_gradient_of_refinement_are_the_same_in_either_runtime(codecs, scene, gated):
    """Silence is where a root of zero may turn up, whose gradient is no number.

    60 dB, because the last bit may decide the sign of a difference whose magnitude counts.
    """
    wav, frames = scene[60_000 : 60_000 + 150 * 320], 150
    gates = np.ones((3, frames), dtype=np.float32)
    if gated == "a domain":
        gates[1] = 0
    elif gated == "the end":
        gates[:, 100:] = 0
    elif gated == "the beginning":
        gates[:, :50] = 0
    refiners, latent = excerpt_refiners(codecs, wav, gates)
    one, other = (refiner.attempt(latent, gradient=True) for refiner in refiners)
    assert one.distance == pytest.approx(other.distance, abs=1e-3)
    assert np.isfinite(one.gradient).all()
    assert np.isfinite(other.gradient).all()
    assert (one.codes == other.codes).mean() >= 0.999
    difference = one.gradient - other.gradient
    assert level(difference, other.gradient) >= 60
    if gated == "nothing":
        assert np.abs(difference).max() < 5e-6
        assert np.abs(other.gradient).max() > 1e-2


def test_the_distance_without_a_gradient_is_the_one_with_it(codecs, scene):
    refiners, latent = excerpt_refiners(codecs, scene[60_000:76_000], np.ones((3, 50), dtype=np.float32))
    for refiner in refiners:
        with_it, without = refiner.attempt(latent, gradient=True), refiner.attempt(latent, gradient=False)
        assert without.gradient is None
        assert without.distance == pytest.approx(with_it.distance, abs=1e-5)
        assert np.array_equal(without.codes, with_it.codes)


@pytest.mark.parametrize("source", RUNTIMES)
def test_a_file_of_either_runtime_is_decoded_by_either(codecs, tmp_path, source):
    wav, rate = soundfile.read(SCENE, dtype="float32", frames=2 * 48_000, start=4 * 48_000)
    soundfile.write(tmp_path / "a.wav", wav, rate)
    done = compress(tmp_path / "a.wav", tmp_path / "a.sdc", codec=codecs[source].at_effort(2))
    assert done.device == "cpu"
    decoded = []
    for name in RUNTIMES:
        result = decode(tmp_path / "a.sdc", {"mix": tmp_path / f"{name}.wav"}, codec=codecs[name])
        assert result.problems == ()
        decoded.append(soundfile.read(tmp_path / f"{name}.wav")[0])
    # 16 bits are some 60 dB finer than quiet passages.
    assert np.abs(decoded[0] - decoded[1]).max() <= 2**-15 + 1e-4


@pytest.mark.parametrize("effort", [0, 4])
@pytest.mark.parametrize("name", RUNTIMES)
def test_codes_are_the_same_on_one_thread_and_on_two(scene, name, effort):
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            codec = load_codec(runtime=name, device="cpu", threads=threads, effort=effort)
            assert codec.model.runtime.threads == threads
            found.append(stacked(codec, scene[60_000:108_000]))
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*found)


# What surrounds a model.


def arrays_and_tensors(wav: np.ndarray) -> dict[str, object]:
    """The same audio as many kinds of arrays hold it; as bfloat16, which it is rounded to before, that too."""
    doubled = np.zeros(2 * len(wav), dtype=np.float32)
    doubled[::2] = wav
    fixed = wav.copy()
    fixed.flags.writeable = False
    return {
        "negative strides": wav[::-1].copy()[::-1],
        "strided": doubled[::2],
        "big-endian": wav.astype(">f4"),
        "read-only": fixed,
        "float64": wav.astype(np.float64),
        "list": wav.tolist(),
        "tensor": torch.from_numpy(wav.copy()),
        "tensor with a gradient": torch.from_numpy(wav.copy()).requires_grad_(),
        "tensor of float64": torch.from_numpy(wav.copy()).double(),
        "bfloat16": torch.from_numpy(wav.copy()).bfloat16(),
        "inference tensor": inference_tensor(wav),
    }


def inference_tensor(wav: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return torch.from_numpy(wav.copy()) * 1


@pytest.fixture(scope="module")
def second(scene) -> np.ndarray:
    """Of the scene, in as many digits as bfloat16 has."""
    return torch.from_numpy(scene[60_000:76_000].copy()).bfloat16().float().numpy()


@pytest.mark.parametrize("kind", list(arrays_and_tensors(np.zeros(1, dtype=np.float32))))
def test_codes_do_not_depend_on_what_kind_of_array_the_audio_is_in(codec, second, kind):
    given = arrays_and_tensors(second)[kind]
    assert np.array_equal(stacked(codec, given), stacked(codec, second))


@pytest.mark.parametrize("effort", [0, 1])
@pytest.mark.parametrize("name", RUNTIMES)
def test_what_the_caller_has_set_in_torch_changes_nothing(codecs, second, name, effort):
    codec = codecs[name].at_effort(effort)
    expected = codec.encode(second)
    wav = codec.decode(expected)

    def unchanged(codec: Codec) -> None:
        found = codec.encode(second)
        for domain, codes in expected.codes.items():
            assert np.array_equal(found.codes[domain], codes)
        decoded = codec.decode(expected)
        assert decoded.dtype == np.float32
        assert np.array_equal(decoded, wav)

    def fresh() -> Codec:
        return load_codec(runtime=name, device="cpu", threads=1, effort=effort)

    torch.set_default_dtype(torch.float64)
    try:
        unchanged(codec)
        unchanged(fresh())
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    for context in (torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode(), torch.no_grad()):
        with context:
            unchanged(codec)
            unchanged(fresh())


def test_a_device_of_torch_is_a_device(second, codecs):
    for name in RUNTIMES:
        codec = load_codec(runtime=name, device=torch.device("cpu"), effort=0)
        assert codec.device == "cpu"
        assert np.array_equal(stacked(codec, second), stacked(codecs[name], second))


def encode_in_child(codec: Codec, wav: np.ndarray, answers) -> None:
    answers.put(stacked(codec, wav))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.parametrize("when", ["after it was used", "before it was used", "while it gets ready"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_goes_on_with_the_model(second, codecs, when):
    codec = load_codec(runtime="onnx", device="cpu", threads=2, effort=1)
    expected = stacked(codecs["onnx"].at_effort(1), second)
    if when == "after it was used":
        assert np.array_equal(stacked(codec, second), expected)
    elif when == "while it gets ready":
        codec.prepare()
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    children = [context.Process(target=encode_in_child, args=(codec, second, answers)) for _ in range(2)]
    for child in children:
        child.start()
    try:
        for _ in children:
            assert np.array_equal(answers.get(timeout=60), expected)
        for child in children:
            child.join(timeout=30)
            assert child.exitcode == 0
    finally:
        for child in children:
            child.kill()
    assert np.array_equal(stacked(codec, second), expected)


# What is chosen, and what is refused.


def test_a_model_with_graphs_runs_in_onnx_runtime_on_a_processor_and_one_without_in_torch(tmp_path):
    assert load_codec(device="cpu").runtime == "onnx"
    bare = write_tiny(tmp_path / "bare", tiny_recipe())
    assert load_codec(bare, device="cpu").runtime == "torch"
    assert load_codec(bare).runtime == "torch"


def test_getting_ready_makes_what_was_asked_for_and_changes_no_codes(second, codecs):
    codec = load_codec(runtime="onnx", device="cpu", threads=1, effort=0)
    codec.prepare(decode=False)
    assert np.array_equal(stacked(codec, second), stacked(codecs["onnx"], second))


def refused(pattern: str, error: type[Exception], folder: Path | None = None, **options: object) -> None:
    """A part is read at its first use or before, so both loading and encoding may tell."""
    with pytest.raises(error, match=pattern) as caught:
        load_codec(folder, **{"device": "cpu", **options}).encode(np.ones(1000, dtype=np.float32) * 0.1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("threads", [0, -1])
@pytest.mark.parametrize("name", ["auto", *RUNTIMES])
def test_fewer_threads_than_one_are_refused(name, threads):
    refused(f"threads must be 1 or more, got {threads}", ValueError, runtime=name, threads=threads)


def test_an_unknown_runtime_is_refused():
    refused("runtime must be auto, onnx or torch, got 'jax'", ValueError, runtime="jax")


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps", "tpu"])
def test_onnx_runtime_is_refused_on_other_devices(device):
    refused(f"{device}: ONNX Runtime computes on the CPU here", DeviceError, runtime="onnx", device=device)


def test_a_folder_without_graphs_says_how_to_make_them(tmp_path):
    bare = write_tiny(tmp_path / "bare", tiny_recipe())
    expected = re.escape(
        f"{bare}: has no graphs, which ONNX Runtime needs; make them with sdc models export {bare}, or pass "
        "--runtime torch"
    )
    refused(expected, ModelError, bare, runtime="onnx")


def test_graphs_of_another_version_are_refused(folder):
    path = folder / "graphs" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
    refused(re.escape(f"{folder}: its graphs are of version 99, this sdc reads "), ModelError, folder)


@pytest.mark.parametrize("text", ["", "[1, 2]", "{}", "null", "not JSON", '{"version": ', '{"version": 1}'])
def test_a_damaged_manifest_is_named_by_its_folder(folder, text):
    (folder / "graphs" / "manifest.json").write_text(text)
    refused(
        re.escape(f"{folder}: its graphs cannot be read (") + ".*; make them with sdc models export", ModelError, folder
    )


@pytest.mark.parametrize("part", ["analyse", "quantize"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "garbage"])
def test_a_broken_graph_is_named_with_what_to_do(folder, part, damage):
    path = folder / "graphs" / f"{part}.onnx"
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "garbage": b"\x00garbage" * 99}[damage])
    refused(
        re.escape(f"{path}: cannot be used (")
        + ".*; make the graphs again: "
        + re.escape(f"sdc models export {folder}"),
        ModelError,
        folder,
        effort=0,
    )


@pytest.mark.parametrize("difference", ["names", "sizes"])
def test_weights_of_another_recipe_beside_graphs_are_noticed(folder, difference):
    path = folder / "weights.safetensors"
    tensors = weights.read(path)
    name = "encoder.blocks.0.expand.weight"
    if difference == "names":
        tensors["encoder.blocks.99.expand.weight"] = tensors.pop(name)
    else:
        tensors[name] = tensors[name][:-1].copy()
    save_file(tensors, path)
    refused(re.escape(str(folder)), ModelError, folder)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"runtime": "torch"}, "the runtime torch needs torch, which is not installed; install it with pip install"),
        ({"device": "cuda"}, "the device cuda needs torch, which is not installed; install it with pip install"),
    ],
)
def test_without_torch_what_needs_it_says_how_to_get_it(monkeypatch, options, expected):
    without_torch(monkeypatch)
    refused(expected, MissingExtra, **options)


def test_without_torch_a_folder_without_graphs_says_how_to_make_them(monkeypatch, tmp_path):
    bare = write_tiny(tmp_path / "bare", tiny_recipe())
    without_torch(monkeypatch)
    refused(re.escape(f"{bare}: has no graphs, so it needs torch, which is not installed"), MissingExtra, bare)
    refused(re.escape(f"{bare}: has no graphs, so it needs torch"), MissingExtra, bare, device="auto")


def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else find(name, *rest))


def test_every_part_is_run_by_either_runtime(codecs, scene):
    """So that none is only there in name."""
    for name in RUNTIMES:
        ran = []
        runtime = codecs[name].model.runtime

        class Spy:
            def __getattr__(self, attribute):
                return getattr(runtime, attribute)  # noqa: B023

            def run(self, part, *inputs):
                ran.append(part)  # noqa: B023
                return runtime.run(part, *inputs)  # noqa: B023

        entry = zoo.find()
        for effort in (0, 1):
            codec = Codec(CodecModel(entry.name, entry.recipe, bytes(32), Spy())).at_effort(effort)
            codec.decode(codec.encode(scene[60_000:70_000]))
        assert set(ran) == set(FAMILY.parts)


def test_a_model_is_loaded_with_the_hash_of_its_weights():
    entry = zoo.find()
    assert load_model(entry, device="cpu").weights_sha256 == weights.sha256(weights.read(zoo.weights_path(entry)))


def command(folder, *arguments, **environment):
    """A program of its own, in a home of its own, which computes in ONNX Runtime."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).resolve().parents[1]), **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "sdcodec_cli", *arguments, "--runtime", "onnx"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_program_that_fails_while_it_gets_ready_ends_as_any_other(tmp_path):
    """A daemon thread inside of ONNX Runtime would abort it."""
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16_000)
    for _ in range(3):
        process = command(tmp_path, "compress", "a.wav", "--track", "9")
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1
        assert len(said.splitlines()) == 1


@pytest.mark.parametrize("after", [0.4, 0.6, 0.8])
def test_a_program_that_is_stopped_while_it_gets_ready_ends_as_any_other(tmp_path, after):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).standard_normal(16_000 * 60) * 0.05, 16_000)
    process = command(tmp_path, "compress", "a.wav")
    time.sleep(after)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (143, -signal.SIGTERM), said
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_nothing_is_left_in_a_home_or_among_temporary_files(tmp_path):
    """ONNX Runtime's telemetry would write there, and look for an address on the network."""
    for name in ("home", "temporary", "work"):
        (tmp_path / name).mkdir()
    shutil.copy(SCENE, tmp_path / "work" / "a.flac")
    process = command(
        tmp_path / "work",
        *("compress", "a.flac", "--effort", "0"),
        HOME=str(tmp_path / "home"),
        TMPDIR=str(tmp_path / "temporary"),
    )
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert not list((tmp_path / "home").rglob("*"))
    assert not list((tmp_path / "temporary").rglob("*"))
