"""`sdc compress`."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from ..progress import Progress
from .console import Console, duration, num_bytes, source_name, speed, target_name, wrong
from .options import (
    AudioInputs,
    Codebooks,
    Device,
    DeviceOption,
    Effort,
    Fine,
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
    StreamOutput,
    Threads,
    Track,
    check_codebooks,
    count_processes,
    parse_level,
    parse_positive,
    say_runtime,
    select,
)

if TYPE_CHECKING:
    from ..engine.batch import Say
    from ..engine.codec import Codec
    from ..engine.compress import CompressResult
    from ..engine.files import Job


@dataclass(frozen=True, kw_only=True)
class _Compress:
    """What is done with one input; each process loads the model once."""

    model: str | None
    runtime: Runtime
    device: Device
    threads: int | None
    effort: int | None
    bitrate: float | None
    codebooks: int | None
    domains: Literal["auto", "all"] | list[str]
    channels: Literal["mono", "stereo", "keep"]
    envelope: bool
    fine: bool | None
    treble: bool
    whole: bool
    """Whether all domains are stored; else there are no envelope and no treble."""
    cover: bool
    track: int
    live: bool
    level: float | None
    force: bool

    @functools.cached_property
    def codec(self) -> Codec:
        """The model, which can say what it is."""
        from ..engine.codec import open_codec

        return open_codec(
            self.model, runtime=self.runtime, device=self.device, threads=self.threads, effort=self.effort
        )

    @functools.cached_property
    def _prepared(self) -> Codec:
        self.codec.prepare(decode=((self.envelope or self.treble) and self.whole) or self.channels == "stereo")
        return self.codec

    def __call__(self, job: Job, say: Say, progress: Progress | None) -> CompressResult:
        from ..engine.compress import compress

        return compress(
            job.source,
            job.targets["sdc"],
            codec=self._prepared,
            bitrate=self.bitrate,
            num_codebooks=self.codebooks,
            domains=self.domains,
            channels=self.channels,
            envelope=self.envelope,
            fine=self.fine,
            treble=self.treble,
            cover=self.cover,
            track=self.track,
            live=self.live,
            level=self.level,
            overwrite=self.force,
            progress=progress,
        )


def parse_domains(text: str) -> str:
    """`auto`, `all`, or names separated by commas, each once."""
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names) or (len(names) > 1 and {"auto", "all"} & set(names)):
        raise typer.BadParameter(f"{text!r} is not auto, all, or a list of domains such as speech,music")
    return ",".join(names)


def compress(
    inputs: AudioInputs,
    output: StreamOutput = None,
    model: Model = None,
    bitrate: Annotated[
        float | None,
        typer.Option(
            "--bitrate",
            metavar="KBPS",
            parser=parse_positive,
            help="The most that a file may take, in kbit/s, in the mean and without headers: codes of all domains and "
            "channels, envelope and treble. It gets as many codebooks as that surely allows, and so often takes "
            "less. What is not active takes nothing. The input is read once more for it.",
            show_default=False,
        ),
    ] = None,
    codebooks: Codebooks = None,
    domains: Annotated[
        str,
        typer.Option(
            metavar="auto|all|NAME,...",
            parser=parse_domains,
            help="Domains to store: in every 2 s those that are active (auto), all of them, or those named, such as "
            "speech,music.",
        ),
    ] = "auto",
    channels: Annotated[
        Literal["mono", "stereo", "keep"],
        typer.Option(
            help="mono mixes the channels down to one. stereo does so, and stores where each domain stands between "
            "left and right, for 0.1 kbit/s each. keep codes every channel by itself, each for as many bits."
        ),
    ] = "mono",
    envelope: Annotated[
        bool,
        typer.Option(
            "--envelope/--no-envelope",
            help="Also store which levels decoded audio lacks in bands of frequency, for a brighter and clearer sound: "
            "half a kbit/s, or 1.9 with --fine. Files of only some domains have none.",
        ),
    ] = True,
    fine: Fine = None,
    treble: Annotated[
        bool,
        typer.Option(
            "--treble/--no-treble",
            help="Also store the levels of the octave above the model's band (8 to 16 kHz), which decoding makes of "
            "the octave below: 0.3 to 0.5 kbit/s where there is something. Files of only some domains have none.",
        ),
    ] = True,
    cover: Annotated[
        bool,
        typer.Option(
            "--cover",
            help="Store the cover of the input, too, a JPEG or PNG picture of up to 4 MiB; decode gives it back.",
        ),
    ] = False,
    track: Track = 1,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Take WAV while it comes from a pipe, and write every 0.8 s as soon as they are coded: decoded at "
            "once, sound is less than 3 s late. Ctrl-C ends the file. Codes differ from those of the same audio "
            "in a file.",
        ),
    ] = False,
    level: Annotated[
        float | None,
        typer.Option(
            metavar="LUFS",
            parser=parse_level,
            help="With --live, how loud the source is, -70 to 0: it cannot be measured in advance. Default: the level "
            "of the model's training, -27 for the default model.",
            show_default=False,
        ),
    ] = None,
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
    """Compress audio files to .sdc files.

    Each INPUT becomes a file beside it, with the suffix .sdc.

    Example: sdc compress talk.wav -o talk.sdc
    """
    from ..engine.batch import threads_for
    from ..engine.plans import plan_compress
    from ..zoo import find

    console = Console(quiet=quiet, json=json, progress=progress)
    selection: Literal["auto", "all"] | list[str] = (
        cast(Literal["auto", "all"], domains) if domains in ("auto", "all") else domains.split(",")
    )
    known = find(model).recipe.model.domains
    for name in selection if isinstance(selection, list) else ():
        if name not in known:
            wrong(f"--domains {domains}: the model has no {name}; choose auto, all, or from {', '.join(known)}")
    whole = isinstance(selection, str) or len(selection) == len(known)
    if fine is not None and not (envelope and whole):
        option = "--fine" if fine else "--coarse"
        wrong(f"{option} is about the envelope; leave it out, or {'--domains' if envelope else '--no-envelope'}")
    if bitrate is not None and codebooks is not None:
        wrong("--bitrate and --codebooks say the same; pass one of them")
    if level is not None and not live:
        wrong("--level is about live sources; leave it out, or pass --live")
    if live and track > 1:
        wrong(f"--track {track}: WAV, which --live takes, has one track; leave one of them out")
    if live and cover:
        wrong("--cover: WAV, which --live takes, has none; leave one of them out")
    if live and bitrate is not None:
        wrong("--bitrate reads the input in advance, which --live cannot; pass --codebooks instead")
    only = select(skip_existing=skip_existing, force=force, shard=shard)
    todo = console.settle(lambda: plan_compress(inputs, output, overwrite=force, domains=known, only=only))

    if live and len(todo) > 1:
        wrong(f"--live takes one input, not {len(todo)}; name one, or leave --live out")

    def show(result: CompressResult) -> None:
        for note in filter(None, (result.channels_note, *result.notes)):
            console.say(f"{source_name(result.input)}: {note}")
        for problem in result.problems:
            console.fail(problem)
        console.say(
            f"{target_name(result.output)}: {duration(result.seconds)}, {num_bytes(result.bytes)}, "
            f"{result.bitrate:.1f} kbit/s, {speed(result.times_real_time, result.device)}"
        )
        console.result(result)

    if todo:
        processes = count_processes(jobs, todo)
        work = _Compress(
            model=model,
            runtime=runtime,
            device=device,
            threads=threads_for(threads, processes),
            effort=effort,
            bitrate=bitrate,
            codebooks=codebooks,
            domains=selection,
            channels=channels,
            envelope=envelope,
            fine=fine,
            treble=treble,
            whole=whole,
            cover=cover,
            track=track,
            live=live,
            level=level,
            force=force,
        )
        say_runtime(console.say, work.codec, runtime)
        check_codebooks(work.codec, codebooks)
        # For other processes one that has not loaded anything.
        console.work(work if processes == 1 else replace(work), todo, processes=processes, show=show)
    console.finish()
