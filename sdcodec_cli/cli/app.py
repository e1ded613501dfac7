"""The `sdc` command: assembles the subcommands."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated

import typer

from .. import __version__
from ..account import name_user
from ..stop import ask_to_stop, end_program
from . import (
    background,
    bench,
    compress,
    cut,
    data,
    decode,
    enhance,
    eval,
    extend,
    info,
    join,
    mixer,
    models,
    separate,
    strip,
    tokens,
    train,
    voice,
)
from .console import report
from .group import Group

app = typer.Typer(
    name="sdc",
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"sdc {__version__}")
        raise typer.Exit


@app.callback()
def sdc(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Compress audio into speech, music and sound effects that can be decoded separately.

    Example: sdc compress talk.wav && sdc decode talk.sdc --stem speech
    """


app.command()(compress.compress)
app.command()(decode.decode)
app.command()(separate.separate)
app.command()(enhance.enhance)
app.command()(background.background)
app.command()(voice.voice)
app.command()(extend.extend)
app.command()(mixer.mixer)
app.command()(info.info)
app.command()(strip.strip)
app.command()(cut.cut)
app.command()(join.join)
app.command()(tokens.tokens)
app.command()(train.train)
app.command("eval")(eval.eval_)
app.command()(bench.bench)
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")


def main() -> None:
    """Run `sdc`; the entry point of the console script."""
    _replace_closed_streams()
    name_user()
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), end_program)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # programs in the background ignore it
        signal.signal(signal.SIGINT, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be valid text
    try:
        app(prog_name="sdc")
    except Exception as error:
        if "home directory" in str(error):  # pathlib's, to whom completion leads
            report("no home directory is known; set HOME")
            sys.exit(1)
        traceback.print_exc()
        report("this is a bug; please report it, with the lines above, at the project's issue page")
        sys.exit(1)


def _replace_closed_streams() -> None:
    """Put the null device where the caller closed a stream (`2>&-`); else the next file would get its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


def _interrupt(number: int, frame: FrameType | None) -> None:
    ask_to_stop(KeyboardInterrupt())
