"""Imports go the ways of the table in `docs/design.md`, and commands start without what they do not need."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import soundfile

from bitstream_examples import small_example

PACKAGE = Path(__file__).resolve().parents[1] / "sdcodec_cli"

DESIGN = PACKAGE.parent / "docs" / "design.md"
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


@dataclass(frozen=True)
class Allowed:
    """What a part may import of ours, and what of others; `later` only inside of functions or for type checking."""

    parts: frozenset[str]
    parts_later: frozenset[str]
    libraries: frozenset[str]
    libraries_later: frozenset[str]


def table() -> dict[str, Allowed]:
    """The table of the design; every part may also import itself and the version."""
    section = DESIGN.read_text(encoding="utf-8").split("## Which way imports go")[1].split("\n## ")[0]
    allowed: dict[str, Allowed] = {
        "__init__": Allowed(frozenset(), frozenset({"engine", "errors"}), frozenset(), frozenset()),
        "__main__": Allowed(frozenset({"cli"}), frozenset(), frozenset(), frozenset()),
    }
    above: set[str] = set()
    for row in re.findall(r"^\| (`.*) \|$", section, re.MULTILINE):
        names, ours, theirs = row.split(" | ")
        parts, parts_later = set(named(ours, later=False)), set(named(ours, later=True))
        if "all of the above" in ours:
            parts |= above
        for name in named(names, later=False):
            allowed[name] = Allowed(
                frozenset(parts),
                frozenset(parts | parts_later),
                frozenset(named(theirs, later=False)),
                frozenset(named(theirs.replace("(", "").replace(")", ""), later=False)),
            )
            above.add(name)
    return allowed


def named(cell: str, *, later: bool) -> list[str]:
    """Names in a cell: those in brackets, or the others."""
    bracketed = "".join(re.findall(r"\((.*?)\)", cell))
    return re.findall(r"`(\w+)`", bracketed if later else re.sub(r"\(.*?\)", "", cell))


ALLOWED = table()


def test_the_table_names_every_part() -> None:
    assert {part_of(path) for path in FILES} <= set(ALLOWED)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_the_ways_of_the_table(path: Path) -> None:
    part = part_of(path)
    allowed = ALLOWED[part]
    for module, eager in imports(path):
        root, *rest = module.split(".")
        if root == "sdcodec_cli":
            parts = allowed.parts if eager else allowed.parts_later
            assert rest[0] in (part, "__version__") or rest[0] in parts, f"{part} imports {module}"
        elif root not in sys.stdlib_module_names:
            assert root in (allowed.libraries if eager else allowed.libraries_later), f"{part} imports {module}"


EVALUATION = PACKAGE / "engine" / "evaluate"
# What it takes of the engine beside the models themselves.
BESIDE_EVALUATION = [
    PACKAGE / "engine" / name
    for name in ("metrics.py", "page.py", "pictures.py", "systems.py", "other_codecs.py", "torchrun.py")
]


@pytest.mark.parametrize(
    "path",
    [*(p for p in FILES if p.is_relative_to(EVALUATION)), *BESIDE_EVALUATION],
    ids=lambda p: str(p.relative_to(PACKAGE)),
)
def test_evaluation_needs_torch_for_other_peoples_codecs_only(path: Path) -> None:
    for module, eager in imports(path):
        assert module.split(".")[0] != "torch" or not eager, f"{path} imports {module}"
        assert not module.startswith(("sdcodec_cli.nn", "sdcodec_cli.engine.train")), f"{path} imports {module}"


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if p.is_relative_to(PACKAGE / "engine" / "train")],
    ids=lambda p: str(p.relative_to(PACKAGE)),
)
def test_training_knows_nothing_of_evaluation(path: Path) -> None:
    assert not [module for module, _ in imports(path) if module.startswith("sdcodec_cli.engine.evaluate")]


@pytest.mark.parametrize("path", [p for p in FILES if part_of(p) != "cli"], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_command_line_prints(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


ENGINE, RUNTIME = PACKAGE / "engine", PACKAGE / "runtime"
IN_TORCH = [RUNTIME / "torch.py", RUNTIME / "graphs.py"]
"""What a runtime needs torch for; the rest of the package gets at these inside of functions."""
OF_TRAINING = [ENGINE / "train", ENGINE / "bench_training.py"]
OF_OTHERS = ENGINE / "other_codecs.py"


def is_in(path: Path, places: list[Path]) -> bool:
    return any(path.is_relative_to(place) for place in places)


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if part_of(p) == "engine" and not is_in(p, [*OF_TRAINING, OF_OTHERS, ENGINE / "evaluate"])],
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


def test_no_module_imports_itself_by_way_of_others() -> None:
    names = {".".join(["sdcodec_cli", *path.relative_to(PACKAGE).with_suffix("").parts]): path for path in FILES}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}

    def target(module: str) -> str:
        return module if module in names else module.rpartition(".")[0]

    graph = {
        name: {target(module) for module, eager in imports(path) if eager and target(module) in names} - {name}
        for name, path in names.items()
    }
    for name in graph:  # a package is loaded with what it imports, and its modules import it
        graph[name] = {other for other in graph[name] if not name.startswith(f"{other}.")}
    TopologicalSorter(graph).prepare()  # raises CycleError, which shows the way round


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
    [
        ["--help"],
        ["--version"],
        ["compress", "--help"],
        ["models", "list"],
        ["info", "a.sdc"],
        ["tokens", "a.sdc", "--json"],
    ],
    ids=" ".join,
)
def test_what_needs_no_model_starts_without_torch(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.sdc").write_bytes(small_example().data)
    assert not {*HEAVY, "pyarrow", "onnxruntime"} & modules_loaded_by(*arguments)


@pytest.mark.parametrize("arguments", [["--help"], ["eval", "--help"], ["models", "list"]], ids=" ".join)
def test_what_reads_no_codes_does_not_even_need_numpy(arguments: list[str]) -> None:
    assert "numpy" not in modules_loaded_by(*arguments)


def test_systems_metrics_and_pages_load_neither_torch_nor_scipy() -> None:
    names = ["metrics", "systems", "evaluate.protocol", "evaluate.report", "evaluate.mushra", "evaluate.visqol"]
    code = f"import sys, {', '.join(f'sdcodec_cli.engine.{name}' for name in names)}; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert not HEAVY & set(loaded.stdout.split())


def test_training_and_evaluation_know_nothing_of_each_other() -> None:
    for path in FILES:
        for one, other in (("train", "evaluate"), ("evaluate", "train")):
            if path.is_relative_to(ENGINE / one):
                assert not [name for name, _ in imports(path) if name.startswith(f"sdcodec_cli.engine.{other}")], path


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


def test_streams_are_edited_without_a_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.sdc").write_bytes(small_example().data)
    code = (
        "import sys\n"
        "from sdcodec_cli.cli.app import app\n"
        "for command in ('strip a.sdc --domains speech', 'cut a.sdc --start 0.1', 'join a.sdc a.sdc'):\n"
        "    app([*command.split(), '-q', '-o', command[:3] + '.sdc'], standalone_mode=False)\n"
        "print(*sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert not {*HEAVY, *NOT_FOR_CODING, "onnxruntime", "sdcodec_cli.runtime"} & set(loaded.stdout.split())
    assert len(list(tmp_path.iterdir())) == 4


def test_the_shell_completes_names_of_models_without_torch() -> None:
    loaded = modules_loaded_by(_SDC_COMPLETE="complete_bash", COMP_WORDS="sdc compress --model sdcodec", COMP_CWORD="3")
    assert not {*HEAVY, "numpy"} & loaded


def test_the_package_itself_loads_nothing_heavy() -> None:
    code = "import sys, sdcodec_cli; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert not {*HEAVY, "numpy", "typer"} & set(loaded.stdout.split())


def test_coding_loads_nothing_of_the_extras_for_training_and_evaluation() -> None:
    names = ("codec", "compress", "decode", "separate", "extend", "inspect", "background", "voice", "mixer.mixer")
    modules = ", ".join(f"sdcodec_cli.engine.{name}" for name in names)
    code = f"import sys, {modules}; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    parts = {f"sdcodec_cli.{part}" for part in ("data", "engine.train", "engine.evaluate")}
    assert not {"pyarrow", "PIL", "accelerate", "tensorboard", "onnx", "visqol", *parts} & set(loaded.stdout.split())
