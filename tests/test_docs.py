"""The documents say what the program does."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from sdcodec_cli import zoo
from sdcodec_cli.cli.app import app
from sdcodec_cli.cli.reference import commands, help_text, reference
from sdcodec_cli.recipe import override

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("models/**/*.md")])
COMMAND: Any = typer.main.get_command(app)


def test_the_page_about_the_command_line_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SDC_DEVICE", raising=False)
    monkeypatch.delenv("SDC_RUNTIME", raising=False)
    page = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    assert page == reference(), "run: python -m sdcodec_cli.cli.reference > docs/cli.md"


def test_every_field_of_the_json_is_explained() -> None:
    assert "|  |" not in reference()


@pytest.mark.parametrize("path", list(commands(COMMAND)), ids=" ".join)
def test_every_command_has_an_example_that_works_and_starts_with_a_verb(path: tuple[str, ...]) -> None:
    text = help_text(COMMAND, path)
    (example,) = re.findall(r"Example: (sdc .*)", text)
    check(example)
    assert example.split()[1 : 1 + len(path)] == list(path)
    first = text.split("\n\n")[1].split()[0]
    assert re.fullmatch(r"[A-Z][a-z]+(?<!s)|Compress", first)  # an order, not "Compresses" or "The"


@pytest.mark.parametrize("path", list(commands(COMMAND)), ids=" ".join)
def test_every_option_has_a_help_text_and_a_name_of_whole_words(path: tuple[str, ...]) -> None:
    command = find(list(path))[0]
    for parameter in command.params:
        assert parameter.help, parameter.name
        for option in parameter.opts if parameter.param_type_name == "option" else ():
            assert re.fullmatch(r"-[ofqh]|--[a-z]+(-[a-z]+)*", option)


def snippets() -> list[tuple[str, str]]:
    """Every command line that begins with `sdc`, in a block of code or in the running text, with its page."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        prose = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
        for line in [*lines, *prose]:
            line = re.sub(r"^.* -m sdcodec_cli ", "sdc ", line)  # under torchrun
            line = line.rpartition(" && .venv/bin/")[2]
            match = re.match(r"(?:\$ )?(?:[A-Z_]+=\S+ )*(sdc [^|><]*)", line)
            if match and not re.search(r"sdc (\d|\.\.\.)|[<{…]", line):
                found.append((str(page.relative_to(ROOT)), match[1].strip()))
    return found


def imports_in_the_documents() -> list[tuple[str, str, str]]:
    """What examples in Python take from the package: page, module, name."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom):
                    found += [(page.name, str(node.module), alias.name) for alias in node.names]
    return found


@pytest.mark.parametrize(("page", "module", "name"), imports_in_the_documents())
def test_what_examples_in_python_import_is_there(page: str, module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize(("page", "line"), snippets())
def test_every_command_line_in_the_documents_exists(page: str, line: str) -> None:
    check(line)


def find(words: list[str]) -> tuple[Any, list[str]]:
    """The command that a line names, and the words after it."""
    command = COMMAND
    while words and hasattr(command, "commands") and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    return command, words


def check(line: str) -> None:
    """Fail unless the command and its options exist; words in capitals stand for values."""
    _, *words = shlex.split(line.split(" && ")[0], comments=True)
    command, rest = find(words)
    known = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
    known |= {"-h", "--help"}
    if hasattr(command, "commands"):
        assert not [word for word in rest if not word.startswith("-") and word != "..."], line
        known |= {"--version", "--install-completion", "--show-completion"}
    settings = [value for option, value in itertools.pairwise(rest) if option == "--set" and "=" in value]
    recipes = [value for option, value in itertools.pairwise(rest) if option == "--recipe" and zoo.in_zoo(value)]
    override(zoo.find(*recipes).recipe, dict(value.split("=", 1) for value in settings))
    for word in rest:
        if word.startswith("-") and word != "-" and not re.fullmatch(r"-\d.*", word):
            assert word.split("=")[0] in known, line
