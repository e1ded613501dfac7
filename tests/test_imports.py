"""Which part may import which: the table of `docs/design.md`, and what must start without torch."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from bitstream_examples import small_example

PACKAGE = Path(__file__).resolve().parents[1] / "sdcodec_cli"

# Every part may also import itself and the version. Those in brackets only inside of functions, or for type checking.
MAY_IMPORT = {
    "errors": "",
    "extras": "errors",
    "account": "",
    "progress": "",
    "bitstream": "errors",
    "nn": "audio",
    "recipe": "errors bitstream",
    "audio": "errors",
    "weights": "errors",
    "zoo": "errors recipe weights (nn)",
    "runtime": "errors extras recipe weights zoo nn (audio)",
    "checkpoints": "errors recipe zoo nn",
    "data": "errors progress recipe audio",
    "engine": "errors account progress bitstream nn recipe audio weights zoo runtime checkpoints data",
    "cli": "errors extras account progress (engine) (runtime) (zoo) (checkpoints) (recipe) (data) (bitstream)",
    "__init__": "(engine) (errors)",
    "__main__": "cli",
}
WITHOUT_TORCH = [
    "errors",
    "extras",
    "account",
    "progress",
    "bitstream",
    "recipe",
    "audio",
    "weights",
    "zoo",
    "cli",
    "__init__",
    "__main__",
]
FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, *, for_types: bool = True) -> Iterator[tuple[str, bool]]:
    """Absolute names of imported modules, and whether they are imported when the file is.

    Those that only a type checker sees count as imported later, or not at all.
    """
    parents = ["sdcodec_cli", *path.relative_to(PACKAGE).parts[:-1]]

    def walk(node: ast.AST, eager: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((name.name, eager) for name in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = parents[: len(parents) - child.level + 1] if child.level else []
                module = ".".join([*base, *([child.module] if child.module else [])])
                yield from ((f"{module}.{name.name}", eager) for name in child.names)
            else:
                lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                if for_types or not types:
                    yield from walk(child, eager and not lazy and not types)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    part = part_of(path)
    allowed = MAY_IMPORT[part].split()
    for module, eager in imports(path):
        root, *rest = module.split(".")
        if root == "sdcodec_cli":
            target = rest[0]
            ours = target in (part, "__version__") or target in allowed or (not eager and f"({target})" in allowed)
            assert ours, f"{part} imports {module}"
        if root in ("typer", "rich", "tqdm", "click"):
            assert part == "cli", f"{part} imports {module}; only cli talks to people"
        if root == "torch" and eager:
            assert part not in WITHOUT_TORCH, f"{part} imports {module}"
        # For tests, and for what only training and evaluation do: it takes longer to import than a file to decode.
        assert root != "pyloudnorm", f"{part} imports {module}"
        assert root != "scipy" or part in ("data", "engine"), f"{part} imports {module}"
        # Its wheels fit only some releases of torch, and what does not fit cannot be imported.
        assert root not in ("torchaudio", "audiotools"), f"{part} imports {module}"


EVALUATION = PACKAGE / "engine" / "evaluate"
# What it takes of the engine beside the models themselves.
BESIDE_EVALUATION = [PACKAGE / "engine" / name for name in ("heard.py", "colours.py", "torchrun.py")]


@pytest.mark.parametrize(
    "path",
    [*(p for p in FILES if p.is_relative_to(EVALUATION)), *BESIDE_EVALUATION],
    ids=lambda p: str(p.relative_to(PACKAGE)),
)
def test_evaluation_needs_torch_for_other_peoples_codecs_only(path: Path) -> None:
    for module, eager in imports(path):
        assert module.split(".")[0] != "torch" or not eager, f"{path} imports {module}"
        assert not module.startswith(("sdcodec_cli.nn", "sdcodec_cli.engine.train", "sdcodec_cli.engine.distances"))


@pytest.mark.parametrize("path", [p for p in FILES if part_of(p) != "cli"], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_command_line_prints(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


ENGINE, RUNTIME = PACKAGE / "engine", PACKAGE / "runtime"
IN_TORCH = [RUNTIME / "torch.py", RUNTIME / "graphs.py"]
"""What a runtime needs torch for; the rest of the package gets at these inside of functions."""
OF_TRAINING = [ENGINE / "train", ENGINE / "bench_training.py"]


def is_in(path: Path, places: list[Path]) -> bool:
    return any(path.is_relative_to(place) for place in places)


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if part_of(p) == "engine" and not is_in(p, [*OF_TRAINING, ENGINE / "evaluate"])],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_the_engine_knows_models_by_their_contract_and_no_network(path: Path) -> None:
    """Not even inside of functions: what it does is done in any runtime."""
    for module, _ in imports(path, for_types=False):
        assert module.split(".")[0] not in ("torch", "onnx", "onnxruntime"), f"{path} imports {module}"
        assert not module.startswith(("sdcodec_cli.nn", "sdcodec_cli.runtime.torch", "sdcodec_cli.runtime.graphs"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_runs_models_in_torch_or_writes_graphs_is_imported_when_it_is_needed(path: Path) -> None:
    if is_in(path, [*IN_TORCH, *OF_TRAINING]):
        return
    for module, eager in imports(path):
        assert not (eager and module.startswith(("sdcodec_cli.runtime.torch", "sdcodec_cli.runtime.graphs"))), module
        assert not (eager and module.split(".")[0] in ("onnx", "onnxruntime")), f"{path} imports {module}"
        if part_of(path) == "runtime":
            assert not (eager and module.split(".")[0] == "torch"), f"{path} imports {module}"
            assert not (eager and module.startswith("sdcodec_cli.nn")), f"{path} imports {module}"


def modules_loaded_by(*arguments: str, **environment: str) -> set[str]:
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from sdcodec_cli.cli.app import main\n"
        "sys.argv[0] = 'sdc'\n"
        "main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), **environment}
    command = [sys.executable, "-c", code, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout
    return set(result.stderr.split())


HEAVY = {"torch", "scipy", "pyloudnorm", "safetensors", "av"}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["compress", "--help"], ["models", "list"], ["info", "a.sdc"]],
    ids=" ".join,
)
def test_what_needs_no_model_starts_without_torch(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.sdc").write_bytes(small_example().data)
    assert not HEAVY & modules_loaded_by(*arguments)


@pytest.mark.parametrize("arguments", [["--help"], ["eval", "--help"], ["models", "list"]], ids=" ".join)
def test_what_reads_no_codes_does_not_even_need_numpy(arguments: list[str]) -> None:
    assert "numpy" not in modules_loaded_by(*arguments)


def test_metrics_and_pages_load_neither_torch_nor_scipy() -> None:
    names = ["metrics", "protocol", "peers", "report", "mushra", "visqol", "pages.listen"]
    code = f"import sys, {', '.join(f'sdcodec_cli.engine.evaluate.{name}' for name in names)}; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert not HEAVY & set(loaded.stdout.split())


NOT_FOR_CODING = {"torch", "onnx", "scipy", "pyloudnorm", "pyarrow", "PIL", "accelerate", "sdcodec_cli.nn"}


def test_coding_with_the_embedded_model_loads_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SDC_DEVICE", "SDC_RUNTIME"):
        monkeypatch.delenv(name, raising=False)
    wav, rate = soundfile.read(PACKAGE.parent / "docs" / "scene.flac", frames=48_000)
    soundfile.write("a.wav", wav, rate)
    for command in (
        "compress a.wav -o a.sdc --json -q",
        "decode a.sdc -o b.wav --json -q",
        "separate a.wav -o stems/ --json -q",
    ):
        loaded = modules_loaded_by(*command.split(), "--device", "cpu")
        assert "onnxruntime" in loaded
        assert not NOT_FOR_CODING & loaded, command


def test_without_a_model_no_runtime_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.sdc").write_bytes(small_example().data)
    for arguments in (["--help"], ["info", "a.sdc"], ["models", "list"], ["models", "show", "sdcodec-16k-mini"]):
        assert "onnxruntime" not in modules_loaded_by(*arguments)


def test_the_shell_completes_names_of_models_without_torch() -> None:
    loaded = modules_loaded_by(_SDC_COMPLETE="complete_bash", COMP_WORDS="sdc compress --model sdcodec", COMP_CWORD="3")
    assert not {*HEAVY, "numpy"} & loaded


def test_the_package_itself_loads_nothing_heavy() -> None:
    code = "import sys, sdcodec_cli; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert not {*HEAVY, "numpy", "typer"} & set(loaded.stdout.split())


def test_coding_loads_nothing_of_the_extras_for_training_and_evaluation() -> None:
    modules = ", ".join(f"sdcodec_cli.engine.{name}" for name in ("codec", "compress", "decode", "separate", "inspect"))
    code = f"import sys, {modules}; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    parts = {f"sdcodec_cli.{part}" for part in ("data", "engine.train", "engine.evaluate")}
    assert not {"pyarrow", "PIL", "accelerate", "tensorboard", "onnx", "visqol", *parts} & set(loaded.stdout.split())
