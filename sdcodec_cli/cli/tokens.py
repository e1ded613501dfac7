"""`sdc tokens`."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from ..progress import Progress
from .console import Console, duration, num_bytes, source_name, target_name, wrong
from .options import (
    Device,
    DeviceOption,
    Effort,
    Force,
    Jobs,
    Json,
    Model,
    ProgressOption,
    Quiet,
    Runtime,
    RuntimeOption,
    ShardOption,
    SkipExisting,
    Threads,
    Track,
    count_processes,
    parse_names,
    say_runtime,
    select,
)

if TYPE_CHECKING:
    from ..data.tokens import Format, Layers
    from ..engine.batch import Say
    from ..engine.codec import Codec
    from ..engine.files import Job
    from ..engine.tokens import TokensResult

FORMATS = ("npz", "safetensors", "parquet", "jsonl", "sdc")
"""Those of `data.tokens`, and the way back."""


@dataclass(frozen=True, kw_only=True)
class _Tokens:
    """What is done with one input; each process loads the model once, for the first that is audio."""

    kind: str
    model: str | None
    runtime: Runtime
    device: Device
    threads: int | None
    effort: int | None
    domains: list[str] | None
    num_codebooks: int | None
    layers: Layers
    features: bool
    track: int
    force: bool

    @functools.cached_property
    def _codec(self) -> Codec:
        from ..engine.codec import open_codec
        from ..engine.voice import default_model

        model = default_model() if self.model is None and self.layers != "all" else self.model
        codec = open_codec(model, runtime=self.runtime, device=self.device, threads=self.threads, effort=self.effort)
        codec.prepare(decode=True)
        return codec

    def __call__(self, job: Job, say: Say, progress: Progress | None) -> TokensResult:
        from ..engine.tokens import from_tokens, to_tokens

        target = job.targets["tokens"]
        if self.kind == "sdc":
            return from_tokens(job.source, target, model=self.model, overwrite=self.force)

        def codec() -> Codec:
            say_runtime(say, self._codec, self.runtime)
            return self._codec

        return to_tokens(
            job.source,
            target,
            kind=cast("Format", self.kind),
            model=self.model,
            codec=codec,
            domains=self.domains,
            num_codebooks=self.num_codebooks,
            layers=self.layers,
            features=self.features,
            track=self.track,
            overwrite=self.force,
            progress=progress,
        )


def tokens(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Files made by sdc compress, audio files or films, folders to search for them, or - for standard "
            "input; for --format sdc files made by this command.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|DIR/|-",
            help="File (.npz, .safetensors, .parquet, .jsonl, .sdc) for one output, folder (existing, or ending in a "
            "slash) for several, or - for standard output.",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        Literal["npz", "safetensors", "parquet", "jsonl", "sdc"] | None,
        typer.Option(
            "--format",
            help="What to write: tokens in one of four formats, or a .sdc file again; as the suffix of -o says, else "
            "npz, by default.",
            show_default=False,
        ),
    ] = None,
    domains: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            parser=parse_names,
            help="Domains to keep, such as speech,music; all by default.",
            show_default=False,
        ),
    ] = None,
    num_codebooks: Annotated[
        int | None,
        typer.Option(
            "--codebooks",
            metavar="N",
            min=1,
            max=64,  # bitstream.limits.MAX_CODEBOOKS
            help="Codebooks to keep of each stream, the first ones; all by default.",
            show_default=False,
        ),
    ] = None,
    layers: Annotated[
        Literal["all", "semantic", "acoustic"],
        typer.Option(
            help="Of speech, the codebook of what is said, which is the first, or all others, and nothing else; of "
            "models with a teacher, such as decodec-16k-mini, with which audio is coded then by default.",
        ),
    ] = "all",
    features: Annotated[
        bool,
        typer.Option(
            "--features",
            help="Write what the codes stand for, too: for each frame of a stream the vector that the decoder gets for "
            "them, in 16-bit floats. Takes the model.",
        ),
    ] = False,
    track: Track = 1,
    model: Model = None,
    effort: Effort = None,
    runtime: RuntimeOption = "auto",
    device: DeviceOption = "auto",
    threads: Threads = None,
    jobs: Jobs = 1,
    shard: ShardOption = None,
    skip_existing: SkipExisting = False,
    force: Force = False,
    progress: ProgressOption = "auto",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write codes as arrays that other programs read, and such arrays as .sdc files again.

    Each INPUT becomes a file beside it: a.sdc becomes a.npz, and with --format sdc a.npz becomes a.sdc. Audio is
    coded first, as sdc compress does by default; for other ways use that. Of .sdc files no model is needed, unless for
    --features.
    docs/tokens.md says what is in these files, and how to train on them.

    Example: sdc tokens talk.sdc -o talk.safetensors
    """
    from ..engine.batch import threads_for
    from ..engine.plans import plan_tokens
    from ..zoo import find

    console = Console(quiet=quiet, json=json, progress=progress)
    chosen = _format(kind, output)
    if chosen == "parquet":
        from ..data.tokens import require_parquet

        require_parquet()
    for option, value in (("--domains", domains), ("--codebooks", num_codebooks)):
        if chosen == "sdc" and value is not None:
            wrong(f"{option} {value}: a .sdc file is made of all that the tokens hold; leave the option out")
    if layers != "all":
        if chosen == "sdc":
            wrong(f"--layers {layers}: a .sdc file is made of all that the tokens hold; leave the option out")
        if domains is not None:
            wrong(f"--layers {layers} and --domains {domains} do not go together: layers are of speech alone")
    if features and chosen == "sdc":
        wrong("--features: a .sdc file holds codes alone; leave the option out")
    only = select(skip_existing=skip_existing, force=force, shard=shard)
    known = find(model).recipe.model.domains
    todo = console.settle(lambda: plan_tokens(inputs, output, f".{chosen}", overwrite=force, domains=known, only=only))

    def show(result: TokensResult) -> None:
        for note in result.notes:
            console.say(f"{source_name(result.input)}: {note}")
        streams = ", ".join(f"{name} {count}" for name, count in result.streams.items())
        console.say(
            f"{target_name(result.output)}: {duration(result.seconds)}, {result.num_frames} frames at "
            f"{result.frame_rate:g} Hz, codebooks: {streams}; {num_bytes(result.bytes)}"
        )
        for problem in result.problems:
            console.fail(f"{source_name(result.input)}: {problem}")
        console.result(result)

    processes = count_processes(jobs, todo)
    work = _Tokens(
        kind=chosen,
        model=model,
        runtime=runtime,
        device=device,
        threads=threads_for(threads, processes),
        effort=effort,
        domains=None if domains is None else domains.split(","),
        num_codebooks=num_codebooks,
        layers=layers,
        features=features,
        track=track,
        force=force,
    )
    console.work(work, todo, processes=processes, show=show)
    console.finish()


def _format(kind: str | None, output: str | None) -> str:
    """What is written, by the option or by the name of the output."""
    suffix = Path(output or "").suffix.lower().removeprefix(".")
    named = suffix if suffix in FORMATS and not Path(output or "").is_dir() else None
    if kind is not None and named not in (None, kind):
        wrong(f"--format {kind} and -o {output} do not go together; leave one of them out")
    return kind or named or "npz"
