"""`sdc models`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from ..extras import require
from .console import Console, as_json, num_bytes, put, table, wrong
from .group import Group
from .options import Force, Json, Quiet, complete_model

if TYPE_CHECKING:
    from ..checkpoints import Imported
    from ..engine.train.older import Replaced
    from ..zoo import ModelEntry

app = typer.Typer(
    name="models",
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, show, import, export and average models.",
)


Name = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Name of the model; the folder's name by default.", show_default=False),
]


def parse_bits(text: str | int) -> int:
    """32, 16 or 8, as text or, where it is the default, as a number."""
    if str(text) not in ("32", "16", "8"):
        raise typer.BadParameter(f"{text!r} is not 32, 16 or 8")
    return int(text)


Output = Annotated[
    str, typer.Option("--output", "-o", metavar="DIR", help="Folder to make, for --model.", show_default=False)
]


BitsOption = Annotated[
    int,
    typer.Option(
        "--bits",
        metavar="32|16|8",
        parser=parse_bits,
        help="Bits of each weight in the file: 16 halve its size, 8 quarter it. What that costs in quality, sdc eval "
        "says.",
    ),
]


Replaces = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|DIR",
        help="Model that this one replaces and whose quantizers it has; sdc decode decodes its files with this one.",
        autocompletion=complete_model,
        show_default=False,
    ),
]


KeepOlder = Annotated[
    bool,
    typer.Option(
        "--keep-older",
        help="With --replaces, for a model of other quantizers: keep its decoder in the folder.",
    ),
]


def _replaced(model: str | None, keep: bool) -> Replaced | None:
    if model is None and keep:
        wrong("--keep-older: name the model whose decoder to keep with --replaces")
    if model is None:
        return None

    from ..engine.train.older import Replaced
    from ..zoo import find

    return Replaced(find(model), keep)


def _title(name: str | None, folder: Path) -> str:
    """The name of a new model, or an error if the header of a stream cannot hold it."""
    from ..bitstream.limits import check_model_name

    title = name or folder.resolve().name
    try:
        check_model_name(title)
    except ValueError:
        wrong(
            f"--name {title!r}: a name has 1 to 64 bytes of UTF-8, no control characters, no slash and no dot in front"
        )
    return title


@dataclass(frozen=True)
class StageReport:
    """One of several codecs that a model consists of."""

    name: str
    """By which files name it, see `sdc models export --stage`."""
    refers: bool
    """Whether that is another model, whose weights are not stored again."""
    sample_rate: int
    """In Hz."""
    frame_rate: float
    """Frames per second."""
    num_codebooks: int
    """Of each domain."""
    codebook_size: int
    bitrate: float
    """Payload of one domain at full quality, in kbit/s."""


@dataclass(frozen=True)
class ModelReport:
    """What `sdc models --json` prints about a model."""

    name: str
    folder: str
    description: str
    sample_rate: int
    """Of the audio that the network sees, in Hz."""
    frame_rate: float | None
    """Frames per second; this and the following are null for a model that only separates."""
    domains: tuple[str, ...]
    num_codebooks: int | None
    """Of each domain."""
    codebook_size: int | None
    bitrate: float | None
    """Payload of one domain at full quality, in kbit/s."""
    effort: int | None
    """Steps of analysis by synthesis that it suggests, see `--effort`."""
    size_bytes: int | None
    """Size of the weights; null if the model has none yet."""
    decodes: tuple[str, ...]
    """SHA-256 of older weights whose files its own decode."""
    keeps: tuple[str, ...]
    """SHA-256 of older weights whose files it keeps a decoder for."""
    stages: tuple[StageReport, ...]
    """The codecs that it consists of, if there are several, that of the lowest rate first."""


def _report(entry: ModelEntry) -> ModelReport:
    from ..families import of

    recipe = entry.recipe
    # A domain may have several streams, one after the other.
    streams = [stream for stream in of(recipe).streams(recipe) if stream.stem == recipe.model.domains[0]]
    stream = streams[0] if streams else None
    return ModelReport(
        name=entry.name,
        folder=str(entry.folder),
        description=recipe.model.description,
        sample_rate=recipe.model.sample_rate,
        frame_rate=stream.frame_rate if stream else None,
        domains=recipe.model.domains,
        num_codebooks=sum(stream.num_codebooks for stream in streams) if streams else None,
        codebook_size=stream.codebook_size if stream else None,
        bitrate=sum(stream.bitrate for stream in streams) if streams else None,
        effort=getattr(next(iter(of(recipe).codecs(recipe).values())).model, "effort", None),
        size_bytes=entry.size_bytes,
        decodes=tuple(digest.hex() for digest in entry.decodes),
        keeps=tuple(digest.hex() for decoder in entry.decoders for digest in decoder.decodes),
        stages=tuple(_stages(entry)),
    )


def _stages(entry: ModelEntry) -> Iterator[StageReport]:
    from ..families import of
    from ..zoo import stage_name

    codecs, references = of(entry.recipe).codecs(entry.recipe), of(entry.recipe).references(entry.recipe)
    for prefix, recipe in codecs.items() if len(codecs) > 1 else ():
        stream = of(recipe).streams(recipe)[0]
        yield StageReport(
            name=recipe.name if prefix in references else stage_name(entry.name, prefix),
            refers=prefix in references,
            sample_rate=recipe.model.sample_rate,
            frame_rate=stream.frame_rate,
            num_codebooks=stream.num_codebooks,
            codebook_size=stream.codebook_size,
            bitrate=stream.bitrate,
        )


def _bitrate(report: ModelReport) -> str:
    return "no codes" if report.bitrate is None else f"{report.bitrate:g}"


def _shortened(digests: tuple[str, ...]) -> str:
    return ", ".join(digest[:8] for digest in digests)


@app.command("list")
def list_(json: Json = False) -> None:
    """List the models of the zoo, the default one first.

    Example: sdc models list
    """
    from ..zoo import list_models

    reports = [_report(entry) for entry in list_models()]
    if json:
        for report in reports:
            put(as_json(report))
        return
    table(
        ("name", "Hz", "domains", "kbit/s each", "weights", "description"),
        [
            (
                report.name,
                str(report.sample_rate),
                ", ".join(report.domains),
                _bitrate(report),
                "none yet" if report.size_bytes is None else num_bytes(report.size_bytes),
                report.description,
            )
            for report in reports
        ],
        right=("Hz", "kbit/s each", "weights"),
        whole=("name",),
    )


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|DIR",
            help="Model, by its name in `sdc models list` or by its folder.",
            autocompletion=complete_model,
            show_default=False,
        ),
    ],
    json: Json = False,
) -> None:
    """Show what a model is, and its card: data, licence, scores and limits.

    Example: sdc models show sdcodec-16k-mini
    """
    from ..zoo import find, how_to_get_weights

    entry = find(name)
    report = _report(entry)
    if json:
        put(as_json(report))
        return
    missing = f"none yet; {how_to_get_weights(entry.recipe)}"
    size = missing if report.size_bytes is None else num_bytes(report.size_bytes)
    put(f"{report.name}: {report.description}")
    put(f"  folder   {report.folder}")
    frames = "" if report.frame_rate is None else f", {report.frame_rate:g} frames per second"
    put(f"  audio    {report.sample_rate} Hz{frames}")
    put(f"  domains  {', '.join(report.domains)}")
    if report.bitrate is None:
        put("  codes    no codes: it separates, see sdc separate --model")
    else:
        put(f"  codes    {report.num_codebooks} x {report.codebook_size} per domain, up to {report.bitrate:g} kbit/s")
        for number, stage in enumerate(report.stages, 1):
            put(
                f"  stage {number}  {stage.sample_rate} Hz, {stage.num_codebooks} x {stage.codebook_size}, up to "
                f"{stage.bitrate:g} kbit/s{f', the model {stage.name}' if stage.refers else ''}"
            )
        put(f"  effort   {report.effort} by default")
    put(f"  weights  {size}")
    if report.decodes:
        put(f"  decodes  files of older weights of the same quantizers, too: {_shortened(report.decodes)}")
    if report.keeps:
        put(f"  keeps    decoders for files of older weights: {_shortened(report.keeps)}")
    if entry.card:
        put(f"\n{entry.card.rstrip()}")


@app.command("import")
def import_(
    checkpoint: Annotated[
        str,
        typer.Argument(metavar="CHECKPOINT", help="A .pth file of SD-Codec or DAC.", show_default=False),
    ],
    output: Output,
    name: Name = None,
    sample_rate: Annotated[
        int | None,
        typer.Option(
            metavar="HZ",
            min=1,
            max=1_000_000,  # bitstream.limits.MAX_RATE
            help="Rate of the audio that the network sees, in Hz; what the checkpoint says, or 16000, by default.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Turn a published checkpoint into a model folder.

    Nothing in the file is run: checkpoints that hold more than tensors are refused.

    Example: sdc models import sdcodec.pth -o my-sdcodec
    """
    require("train", "sdc models import")
    from ..zoo import check_new_model

    source, folder = Path(checkpoint), Path(output)
    title = _title(name, folder)
    if not os.path.isfile(source):
        raise InputError(f"{checkpoint}: no such file; name a .pth file of SD-Codec or DAC")
    check_new_model(folder, overwrite=force)

    from ..checkpoints import read_checkpoint

    imported = read_checkpoint(source, name=title, sample_rate=sample_rate)
    console = Console(quiet=quiet, json=json)

    from ..engine.train.export import write

    card = _card(imported, source)
    entry = write(folder, imported.recipe, imported.tensors, bits=32, card=card, overwrite=force, report=console.say)
    report = _report(entry)
    console.say(
        f"{output}: {imported.layout}, {report.sample_rate} Hz, {', '.join(report.domains)}, "
        f"{_bitrate(report)} kbit/s each, {num_bytes(report.size_bytes or 0)}"
    )
    console.result(report)


@app.command()
def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|DIR", help="Folder of a run of sdc train, or of a model that lacks graphs.", show_default=False
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder to make of a run, for --model. A model gets its graphs in place.",
            show_default=False,
        ),
    ] = None,
    name: Name = None,
    best: Annotated[
        bool, typer.Option("--best", help="Take the checkpoint that scored best on validation, not the last one.")
    ] = False,
    bits: BitsOption = 32,
    replaces: Replaces = None,
    keep_older: KeepOlder = False,
    stage: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Of a model that is several codecs, make a model of one, from 1, the lowest rate: it decodes files of "
            "the whole, as far as it goes.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Turn a training run into a model folder: its averaged weights, its recipe, its graphs, and a card to fill in.

    Given a model folder, it writes the graphs that ONNX Runtime needs into it, and changes nothing else.

    Example: sdc models export runs/mine -o mine
    """
    require("train", "sdc models export")
    from ..zoo import DECODER, WEIGHTS, check_new_model, find

    console = Console(quiet=quiet, json=json)
    if stage is not None:
        if output is None:
            wrong(f"--stage {stage}: name the folder to make with -o DIR")
        others = {"--name": name, "--best": best, "--bits": bits != 32, "--replaces": replaces}
        for option, given in (others | {"--keep-older": keep_older}).items():
            if given:
                wrong(f"{option}: a stage has the name and the weights that files know it by; leave it out")
        entry = find(Path(source).absolute())

        from ..engine.train.export import export_stage

        try:
            made = export_stage(entry, Path(output), number=stage, overwrite=force, report=console.say)
        except ValueError as error:
            wrong(f"--stage {stage}: {error}")
        report = _report(made)
        console.say(f"{output}: {report.name}, {num_bytes(report.size_bytes or 0)}")
        console.result(report)
        return
    if output is None:
        if not any(os.path.isfile(Path(source) / weights) for weights in (WEIGHTS, DECODER)):
            wrong(f"{source}: name the folder to make of this run with -o DIR; only a model gets its graphs in place")
        others = {"--name": name, "--best": best, "--bits": bits != 32, "--force": force}
        for option, given in (others | {"--replaces": replaces, "--keep-older": keep_older}).items():
            if given:
                wrong(f"{option} is for making a model of a run; leave it out to write graphs into {source}")
        entry = find(Path(source).absolute())

        from ..engine.train.export import add_graphs

        add_graphs(entry, report=console.say)
        console.say(f"{source}: has graphs now")
        console.result(_report(entry))
        return
    folder = Path(output)
    title = _title(name, folder)
    check_new_model(folder, overwrite=force)
    replaced = _replaced(replaces, keep_older)

    from ..engine.train.export import export as write

    entry = write(
        Path(source),
        folder,
        name=title,
        bits=bits,
        best=best,
        replaces=replaced,
        overwrite=force,
        report=console.say,
    )
    report = _report(entry)
    console.say(f"{output}: {report.name}, {num_bytes(report.size_bytes or 0)}")
    console.result(report)


@app.command()
def average(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL", help="Names or folders of models, two or more of one shape.", show_default=False
        ),
    ],
    output: Output,
    name: Name = None,
    bits: BitsOption = 32,
    replaces: Replaces = None,
    keep_older: KeepOlder = False,
    force: Force = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Make a model of the mean of others' weights, which may be better than each where one was trained from the other.

    The recipe is that of the last one. A model that is named twice counts twice.

    Example: sdc models average earlier later -o mean
    """
    require("train", "sdc models average")
    from ..zoo import check_new_model, find

    if len(models) < 2:
        wrong("one model is its own mean; name two or more")
    folder = Path(output)
    title = _title(name, folder)
    check_new_model(folder, overwrite=force)
    entries = [find(model) for model in models]
    replaced = _replaced(replaces, keep_older)
    console = Console(quiet=quiet, json=json)

    from ..engine.train.export import average as write

    entry = write(entries, folder, name=title, bits=bits, replaces=replaced, overwrite=force, report=console.say)
    report = _report(entry)
    console.say(f"{output}: {report.name}, mean of {len(entries)} models, {num_bytes(report.size_bytes or 0)}")
    console.result(report)


@app.command()
def tables(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NAME|DIR",
            help="Model, by its name in `sdc models list` or by its folder, into which the tables go.",
            autocompletion=complete_model,
            show_default=False,
        ),
    ],
    data_root: Annotated[
        Path,
        typer.Option(metavar="DIR", help="What sdc train takes, after sdc data scan.", show_default=False),
    ],
    minutes: Annotated[
        float, typer.Option(metavar="M", min=1, max=6000, help="Minutes of audio whose codes the tables are made of.")
    ] = 60,
    passes: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="How often to go through these codes.")] = 6,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the mixtures and the networks.")] = 0,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Make the tables with which files of a model take fewer bytes, and put them into its folder.

    They say how likely each code is after those before it; what is decoded stays the same. Files name the tables they
    were made with: a folder keeps those that are replaced. A new model begins without, and its codes are stored raw.

    Example: sdc models tables mine --data-root corpus
    """
    require("train", "sdc models tables")
    console = Console(quiet=quiet, json=json)

    from ..engine.train.code_tables import make_tables

    with console.progress(model, unit="%") as progress:
        result = make_tables(
            model, data_root, minutes=minutes, passes=passes, seed=seed, report=console.say, progress=progress
        )
    for name, bits in result.bits.items():
        console.say(f"{name}: {', '.join(f'{each:.2f}' for each in bits)} bits a code, raw {result.raw_bits[name]}")
    console.say(
        f"{result.folder}: has tables {result.tables_sha256[:8]} now, {num_bytes(result.size_bytes)}; codes of audio "
        f"that was held out take {100 * result.saved:.1f} % fewer bytes"
    )
    console.result(result)


def _card(imported: Imported, source: Path) -> str:
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    return (
        f"# {imported.recipe.name}\n\n"
        f"Imported by `sdc models import` from a {imported.layout} checkpoint, `{source.name}` (SHA-256 `{digest}`).\n"
        "Training data, licence and limits are those of the checkpoint; see where it was published.\n"
    )
