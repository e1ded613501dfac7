"""`sdc eval` as a function: from a model and settings to tables, and to pages if they are wanted."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from ... import zoo
from ...audio import check_target
from ...errors import InputError, ModelError, OutputError, SdcError
from ...families import build, of
from ...progress import Progress
from ...runtime import CodecModel
from ..codec import Codec
from ..coded import check_domains
from ..separate import checked_views
from ..systems import (
    Converts,
    Enhances,
    ExtendingCodec,
    Extends,
    Mixture,
    ModelCodec,
    Resynthesizes,
    Separates,
    SeparatingCodec,
    System,
    find_system,
    separating_codec,
)
from ..torchrun import is_first_process, under_torchrun
from . import noisy, probe, wide
from .features import probe_errors
from .judges import asked_of_voices, resolved
from .measure import Plan, measure
from .mushra import check_listening_test, write_mushra
from .protocol import plan, protocol_facts
from .report import examples, write_report
from .score import Cost, EvalResult, summarize
from .settings import WIDE_TASKS, Evaluation, Settings
from .tables import about, tables

COST_SECONDS = 10.0
"""Audio that the cost of coding is measured on."""

BASELINE = "dac-16k"
"""What that stands beside: a DAC of the paper's size, with random weights."""


ABLE: dict[Evaluation, tuple[tuple[type, ...], str]] = {
    "dnr": ((Resynthesizes, Separates), "code or separate audio"),
    "bands": ((Resynthesizes,), "code audio"),
    "extend": ((Extends,), "extend audio"),
    "decodec": ((Enhances, Resynthesizes), "code audio or find the speech in it"),
}
"""What systems have to be for what is evaluated, and to do."""


def _unseen(unit: str) -> AbstractContextManager[Progress | None]:
    return contextlib.nullcontext()


def evaluate(
    codec: Codec,
    settings: Settings,
    *,
    progress: Callable[[str], AbstractContextManager[Progress | None]] = _unseen,
    finished: Callable[[EvalResult], None] = lambda result: None,
) -> EvalResult:
    """Evaluate a model.

    Args:
        codec: the model
        settings: what is wanted
        progress: from the name of what is counted, first `tracks` and then `clips`, to what is told of each one done
        finished: gets the result before pages are made of it

    Raises:
        InputError: nothing to evaluate on
        ModelError: a system that was asked for is not there
        OutputError: a folder cannot be written
        SdcError: ViSQOL or a judge of speech was asked for and is not installed
        ValueError: codebooks that the model does not have, `views` out of range
    """
    notes: list[str] = []
    failures: list[str] = []
    # What can be wrong with the settings is found before hours of work.
    _check_pages(settings)
    checked_views(settings.views, codec)
    if settings.task == "decodec":
        check_domains(codec)
    settings = resolved(settings, notes)
    if settings.probe and (missing := probe.available()):
        raise SdcError(f"--probe: {missing}")
    model = separating_codec(codec, settings)
    systems = _systems(model, settings, notes)
    if settings.task == "decodec" and any(isinstance(each, Converts) and each.can_convert for each in systems):
        settings = dataclasses.replace(settings, voices=asked_of_voices(notes))
    if settings.mushra:
        rate = wide.RATE if settings.task in WIDE_TASKS else codec.sample_rate
        check_listening_test([system.name for system in systems], rate)
    if settings.work is None and under_torchrun():
        raise OutputError("several processes share their results through a folder; pass --work DIR")
    with contextlib.ExitStack() as stack:
        work = settings.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _create(work, "--work")
        with progress("tracks") as tell:
            tellers: Any = {"report": failures.append, "note": notes.append, "progress": tell}
            split: str | None = settings.split
            plans: Sequence[Plan]
            if settings.task == "dnr":
                plans = plan(settings, codec.domains, codec.sample_rate, **tellers)
            elif settings.task == "decodec":
                plans, split = noisy.plan(settings, codec.sample_rate, **tellers)
            else:
                plans, split = wide.plan(settings, codec.domains, **tellers)
        if not plans:
            reason, *more = [*failures, *notes]
            also = f" (and {len(more)} more)" if more else ""
            where = "" if split is None else f" in split {split}"
            raise InputError(f"{settings.data_root}: nothing to score{where}: {reason}{also}")
        if settings.protocol == "published-code":
            notes += protocol_facts("published-code")
        with progress("clips") as tell:
            measured = measure(model, systems, plans, settings, work, progress=tell)
    first = is_first_process()
    if first and settings.probe:
        with progress("steps") as tell:
            mixtures = [each for each in plans if isinstance(each, noisy.MixturePlan)]
            probed = probe_errors(systems, mixtures, note=notes.append, progress=tell)
        measured = dataclasses.replace(measured, table=[*measured.table, *probed])
    cost = _costs(model) if first and settings.task == "dnr" else []
    result = summarize(measured, codec, settings, split=split, cost=cost, failures=failures, notes=notes)
    if first:
        finished(result)
    if first and settings.report is not None:
        whole = {row.clip for row in measured.table}
        if settings.task == "decodec":
            plans = noisy.to_hear(plans, settings)
        heard = examples(systems, [plan for plan in plans if plan.name in whole][: settings.examples], settings.task)
        write_report(
            settings.report,
            title=f"{codec.name} on {settings.data_root.resolve().name}" + ("" if split is None else f", {split}"),
            tables=tables(result),
            measurements=measured.table,
            examples=heard,
            notes=(*_about(result), *result.notes, *(f"Left out: {failure}" for failure in result.failures)),
            overwrite=settings.overwrite,
        )
        if settings.mushra:
            title = f"{codec.name} and others"
            write_mushra(settings.report, examples=heard, title=title, overwrite=settings.overwrite)
    return result


def _about(result: EvalResult) -> list[str]:
    """What a reader of the page needs to know to do it again."""
    scores = f"ViSQOL {result.visqol}, scores of speech: {', '.join(result.speech) or 'none'}"
    facts = protocol_facts("paper") if (result.task, result.protocol) == ("dnr", "paper") else ()
    return [f"{about(result)}. Weights {result.weights_sha256[:16]}, sdc {result.version}, {scores}.", *facts]


def _check_pages(settings: Settings) -> None:
    """Raise what would be raised after all work."""
    if settings.mushra and settings.examples == 0:
        raise InputError("--mushra: a listening test needs something to hear; leave --examples 0 out")
    folder = settings.report
    if folder is None:
        return
    _create(folder, "--report")
    for page in ("index.html", *(["mushra.html"] if settings.mushra else [])):
        check_target(folder / page, overwrite=settings.overwrite)


def _create(folder: Path, option: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be created: {error.strerror}; choose another {option}") from error


def _systems(model: SeparatingCodec, settings: Settings, notes: list[str]) -> list[System]:
    """The mixture, the model under test, others that separate, and those that do not: what can do what is evaluated."""
    able, what = ABLE[settings.task]
    found: list[System] = [model] if isinstance(model, able) else []
    if not found:
        notes.append(f"{model.name} is left out: it does not {what}")
    for name in settings.against:
        try:
            system = find_system(name, model.codec, settings)
            if not isinstance(system, able):
                raise ModelError(f"--against {name}: does not {what}; leave it out of --task {settings.task}")
        except SdcError as error:
            if settings.all_needed:
                raise
            notes.append(f"{name} is left out: {error}")
            continue
        if any(system.identity == other.identity for other in found):
            notes.append(f"{name} is there already, and is measured once")
            continue
        names = {other.name for other in found}
        if system.name in names:
            # Models of one name, such as the weights before and after some training: as much of the path as it takes.
            parts = Path(name).resolve().parts
            labels = [f"{system.name} ({'/'.join(parts[-count:])})" for count in range(1, len(parts) + 1)]
            system.name = next(label for label in labels if label not in names)
        found.append(system)
    if not found:
        raise InputError(f"--task {settings.task}: nothing here can {what}; pass --against upsample")
    order = {Mixture: 0, SeparatingCodec: 1, ExtendingCodec: 1}
    return sorted(found, key=lambda system: order.get(type(system), 2))


def _costs(model: ModelCodec) -> list[Cost]:
    """The model's and, where torch is installed, that of the baseline, one after the other."""
    costs = [_cost(model)]
    if importlib.util.find_spec("torch") is not None:
        from ...runtime.torch import TorchRuntime, choose_device

        recipe = zoo.find(BASELINE).recipe
        runtime = TorchRuntime(build(recipe), recipe, of(recipe).parts, choose_device(model.codec.device), None)
        codec = Codec(CodecModel(f"{recipe.name} (random weights)", recipe, b"", runtime))
        costs.append(_cost(ModelCodec(codec, share=model.share)))
    return costs


def _cost(system: ModelCodec) -> Cost:
    noise = np.random.default_rng(0).standard_normal(round(COST_SECONDS * system.codec.sample_rate), dtype=np.float32)
    wav = noise * np.float32(0.05)
    # What is set up on first use does not count.
    system.decode(system.encode(wav[: len(wav) // 10]))
    began = time.perf_counter()
    codes = system.encode(wav)
    encoded = time.perf_counter()
    system.decode(codes)
    decoded = time.perf_counter()
    return Cost(system.name, system.codec.device, COST_SECONDS / (encoded - began), COST_SECONDS / (decoded - encoded))
