"""`sdc bench`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..extras import require
from .console import Console, num_bytes, put, table, wrong
from .options import DeviceOption, Effort, Json, Model, RuntimeOption, Threads, complete_model, parse_length

if TYPE_CHECKING:
    from ..engine.bench import BenchResult
    from ..engine.bench_training import LoaderBenchResult, TrainingBenchResult


def bench(
    model: Model = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            parser=parse_length,
            help="Length of the test signal, at least 1 s; 60 by default.",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Measure a step of training of this recipe instead.",
            autocompletion=complete_model,
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Examples in the step of training; the recipe's by default.",
            show_default=False,
        ),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Measure how fast training examples are read from here instead.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Processes that read, with --data-root; 1 by default.", show_default=False
        ),
    ] = None,
    effort: Effort = None,
    runtime: RuntimeOption = "auto",
    device: DeviceOption = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Measure how fast this machine encodes, decodes and separates, trains, or reads training data.

    Each part of a model stands beside the same part in torch, where that is installed, and reading beside decoding
    alone, measured in the same run.

    Example: sdc bench --device cpu && sdc bench --recipe sdcodec-16k-mini && sdc bench --data-root corpus
    """
    if recipe is not None and data_root is not None:
        wrong("--recipe and --data-root are two measurements; give one of them")
    if recipe is not None or data_root is not None:
        for option, value in (
            ("--model", model),
            ("--seconds", seconds),
            ("--effort", effort),
            ("--threads", threads),
            ("--runtime", None if runtime == "auto" else runtime),
        ):
            if value is not None:
                wrong(f"{option} is of encoding and decoding; leave it out with --recipe and --data-root")
    if batch_size is not None and recipe is None:
        wrong("--batch-size is of a step of training; pass --recipe NAME with it")
    if workers is not None and data_root is None:
        wrong("--workers is of reading training examples; pass --data-root DIR with it")
    if recipe is not None:
        require("train", "sdc bench --recipe")
        from ..engine.bench_training import bench_training
        from ..runtime.torch import choose_device
        from ..zoo import find_recipe

        chosen = find_recipe(recipe)
        console = Console(json=json)
        training = bench_training(
            chosen,
            device=choose_device(device).type,
            batch_size=batch_size or chosen.training.batch_size,
            report=console.say,
        )
        if not json:
            _show_training(training)
        console.result(training)
    elif data_root is not None:
        require("train", "sdc bench --data-root")
        from ..engine.bench_training import bench_loader
        from ..recipe import make_recipe

        loading = bench_loader(make_recipe({"name": "paper"}, where="sdc bench"), data_root, workers=workers or 1)
        if not json:
            _show_loading(loading)
        Console(json=json).result(loading)
    else:
        from ..engine.bench import bench as run
        from ..engine.separator import load_system
        from ..families import of
        from ..zoo import find

        chosen = find(model).recipe
        if effort is not None and not of(chosen).streams(chosen):
            wrong(f"--effort {effort}: {chosen.name} has no codes; leave the option out")
        system = load_system(model, runtime=runtime, device=device, threads=threads, effort=effort)
        in_torch = None
        if system.runtime != "torch" and find_spec("torch") is not None:
            in_torch = load_system(model, runtime="torch", device="cpu", threads=system.model.runtime.threads)
        result = run(system, in_torch=in_torch, seconds=60.0 if seconds is None else seconds)
        if not json:
            _show_coding(result)
        Console(json=json).result(result)


def _show_coding(result: BenchResult) -> None:
    where = result.processor if result.device == "cpu" else result.device
    put(f"{result.model} in {result.runtime} on {where}, {result.threads} threads, {result.seconds:g} s of noise\n")
    speeds = [
        ("encode, effort 0, codes alone", result.encode),
        ("encode, effort 0", result.encode_enveloped),
        (f"encode, effort {result.effort}", result.encode_refined if result.effort else None),
        ("decode mix", result.decode_mix),
        ("decode one stem", result.decode_one),
        ("decode all stems", result.decode_all),
        ("codes to bytes", result.write),
        ("bytes to codes", result.read),
        ("separate", result.separate),
    ]
    rows = [(what, f"{speed:.1f}") for what, speed in speeds if speed is not None]
    table(("", "times real time"), rows, right=("times real time",))
    put("\neach part, for a block of audio\n")
    table(
        ("", "seconds", "in torch"),
        [
            (part.part, f"{part.seconds:.3f}", "" if part.torch_seconds is None else f"{part.torch_seconds:.3f}")
            for part in result.parts
        ],
        right=("seconds", "in torch"),
    )


def _show_training(result: TrainingBenchResult) -> None:
    put(
        f"{result.recipe} on {result.device}, {result.threads} threads, a step of {result.batch_size} examples "
        f"in {result.precision}\n"
    )
    rows = [
        ("step", f"{result.step.seconds:.3f}", num_bytes(result.step.memory_bytes)),
        *((f"  {part}", f"{seconds:.3f}", "") for part, seconds in result.step.parts.items()),
    ]
    table(("", "seconds", "peak memory"), rows, right=("seconds", "peak memory"))
    put(f"\n{result.audio_seconds:.1f} audio seconds per second")


def _show_loading(result: LoaderBenchResult) -> None:
    put(f"{result.data_root}, {result.workers} workers\n")
    table(
        ("", "audio seconds per second"),
        [
            ("examples", f"{result.audio_seconds:.0f}"),
            ("crops in them", f"{result.crop_seconds:.0f}"),
            ("one core that only decodes", f"{result.decode_limit:.0f}"),
        ],
        right=("audio seconds per second",),
    )
    put(f"\na worker reads crops at {result.per_core:.2f} of the speed of decoding")
