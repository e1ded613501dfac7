"""The commands that use a model, in an environment that has only what a plain install brings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[1]

# Of the extras [train] and [eval], and of tests.
NOT_INSTALLED = (
    *("torch", "torchaudio", "onnx", "onnxscript", "accelerate", "pyarrow", "tensorboard", "PIL"),
    *("scipy", "pyloudnorm", "visqol", "numba", "pytest", "hypothesis", "psutil"),
)

# What is not there cannot be found: neither imported, nor by importlib.util.find_spec.
PRELUDE = f"""
import importlib.machinery, sys
NOT_INSTALLED = {NOT_INSTALLED!r}
find_spec = importlib.machinery.PathFinder.find_spec
def installed(name, path=None, target=None):
    return None if name.partition('.')[0] in NOT_INSTALLED else find_spec(name, path, target)
importlib.machinery.PathFinder.find_spec = installed
"""


def python(code: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name in ("SDC_DEVICE", "SDC_RUNTIME"):
        environment.pop(name, None)
    command = [sys.executable, "-c", PRELUDE + code, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def sdc(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return python("from sdcodec_cli.cli.app import main\nsys.argv[0] = 'sdc'\nmain()", *arguments, folder=folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The scene's fifth second, with speech and music in it."""
    folder = tmp_path_factory.mktemp("base")
    info = soundfile.info(ROOT / "docs" / "scene.flac")
    wav, rate = soundfile.read(ROOT / "docs" / "scene.flac", frames=info.samplerate, start=4 * info.samplerate)
    soundfile.write(folder / "scene.flac", wav, rate)
    return folder


def test_what_is_hidden_is_really_not_there(folder: Path) -> None:
    code = (
        "import importlib.util\n"
        "for name in NOT_INSTALLED:\n"
        "    assert importlib.util.find_spec(name) is None, name\n"
        "    try: __import__(name)\n"
        "    except ModuleNotFoundError: pass\n"
        "    else: raise AssertionError(name)\n"
        "import numpy, soundfile, onnxruntime"
    )
    done = python(code, folder=folder)
    assert done.returncode == 0, done.stderr


def test_a_second_is_compressed_decoded_separated_and_looked_at(folder: Path) -> None:
    for command in (
        "compress scene.flac -o a.sdc --json",
        "info a.sdc --json",
        "tokens a.sdc -o a.safetensors --json",
        "decode a.sdc -o mix.wav",
        "decode a.sdc --stem speech --start 0.25 --duration 0.5 -o voice.wav",
        "separate scene.flac -o stems/",
        "models list",
        "models show sdcodec-16k-mini",
    ):
        done = sdc(*command.split(), folder=folder)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        if "--json" in command:
            assert json.loads(done.stdout)
    scene, rate = soundfile.read(folder / "scene.flac")
    mix, voice = (soundfile.read(folder / f"{name}.wav")[0] for name in ("mix", "voice"))
    assert (len(mix), len(voice)) == (len(scene), rate // 2)
    stems = sorted((folder / "stems").iterdir())
    assert [path.name for path in stems] == ["scene.music.wav", "scene.sfx.wav", "scene.speech.wav"]
    mono = scene if scene.ndim == 1 else scene.mean(1)
    assert np.corrcoef(mono, mix)[0, 1] > 0.8


@pytest.mark.parametrize("arguments", ["--runtime torch", "--device cuda"])
def test_what_needs_torch_says_how_to_get_it_in_one_line(folder: Path, arguments: str) -> None:
    done = sdc(*["compress", "scene.flac", "-f", "-o", "b.sdc"], *arguments.split(), folder=folder)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "needs torch, which is not installed; install it with pip install 'sdcodec-cli[train]'" in line
    assert not (folder / "b.sdc").exists()


def test_a_decoder_that_a_model_keeps_decodes_without_torch(folder: Path) -> None:
    from sdcodec_cli import zoo
    from sdcodec_cli.engine.train.older import Replaced, take_over

    kept = take_over(Replaced(zoo.find(), keep=True), {})
    zoo.write_model(folder / "heir", zoo.find().recipe, {}, card="", older=kept.older)
    file = ROOT / "tests" / "data" / "weights" / "sdcodec-16k-mini_af32eb51.sdc"
    found = []
    for model in ("./heir", "sdcodec-16k-mini"):
        done = sdc("decode", str(file), "--model", model, "-f", "-o", "old.wav", "--threads", "1", folder=folder)
        assert done.returncode == 0, done.stderr
        found.append((folder / "old.wav").read_bytes())
    assert found[0] == found[1]


def test_python_gets_arrays_without_torch(folder: Path) -> None:
    code = (
        "import numpy as np\n"
        "from sdcodec_cli import load_codec\n"
        "codec = load_codec(effort=1)\n"
        "wav = np.random.default_rng(0).standard_normal(16_000) * 0.05\n"
        "decoded = codec.decode(codec.encode(wav))\n"
        "assert (codec.runtime, decoded.shape, decoded.dtype) == ('onnx', (16_000,), np.float32)\n"
        "assert 'torch' not in sys.modules"
    )
    done = python(code, folder=folder)
    assert done.returncode == 0, done.stderr
