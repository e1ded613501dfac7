"""Groups of commands, which say in one line what is wrong."""

from __future__ import annotations

from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from ..errors import SdcError
from .console import report, wrong

# Typer exports one of Click's exceptions; which package the others are in depends on its version.
_UsageError: Any = typer.BadParameter.__base__


class Group(TyperGroup):
    """Commands whose expected errors end in one line: exit code 1, or 2 where the command line is wrong."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        try:
            return super().make_context(info_name, args, parent=parent, **extra)
        except _UsageError as error:
            _end(error, " ".join(filter(None, (parent and parent.command_path, info_name))))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SdcError as error:
            report(error)
            raise typer.Exit(1) from error
        except _UsageError as error:
            _end(error, f"{ctx.command_path} {ctx.invoked_subcommand}")


def _end(error: Any, command: str) -> NoReturn:
    """End with a line about a command line that Click refuses; without a command, it shows the help that it holds.

    Args:
        error: Click's
        command: where it was found, if the error does not say so
    """
    if type(error).show is not _UsageError.show:
        raise error
    if error.ctx is not None:
        command = error.ctx.command_path
    _, _, subcommand = command.partition(" ")
    wrong(f"{subcommand}: {_sentence(error, command)}" if subcommand else _sentence(error, command))


def _sentence(error: Any, command: str) -> str:
    """What is wrong, and what to do."""
    help_is_there = f"see {command} -h"
    param = getattr(error, "param", None)
    if param is None:
        message = _sentence_case(error.message)
        if options := getattr(error, "possibilities", None):
            return f"{message}; did you mean {options[0]}?"
        return message if message.endswith("?") else f"{message}; {help_is_there}"
    source = error.ctx and error.ctx.get_parameter_source(param.name)
    if source is not None and source.name == "ENVIRONMENT":
        name = param.envvar
    elif param.param_type_name == "argument":
        name = param.metavar or param.name
    else:
        name = next((option for option in param.opts if option.startswith("--")), param.opts[0])
    if hasattr(error, "param_type"):
        return f"{name} is missing; {help_is_there}"
    return f"{name}: {_of_value(error)}"


def _of_value(error: Any) -> str:
    """What is wrong with a value, in Click's words or, where Typer takes pydantic's, in such as are like them."""
    message: str = error.message.rstrip(".").removeprefix("Value error, ")
    if not message.startswith("Input should be"):
        return message
    (found, *_) = error.__cause__.errors()
    return message.replace("Input should be", f"{found['input']!r} is not").partition(", unable")[0]


def _sentence_case(message: str) -> str:
    """Click's sentences as the middle of one: no capital, no full stop.

    >>> _sentence_case("No such command 'deocde'. Did you mean 'decode'?")
    "no such command 'deocde'; did you mean 'decode'?"
    """
    return (message[:1].lower() + message[1:]).rstrip(".").replace(". D", "; d").replace(": ", " ")
