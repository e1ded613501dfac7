"""`sdc eval` as a function: from a model and a request to tables, and to pages if they are wanted."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ... import zoo
from ...audio import check_target
from ...errors import InputError, ModelError, OutputError, SdcError
from ...families import build
from ...runtime import CodecModel
from ..codec import Codec, load_codec
from ..separate import DEFAULT_VIEWS, checked_views
from ..torchrun import is_first_process, under_torchrun
from . import visqol
from .mushra import check_listening_test, write_mushra
from .peers import Peer, find_peer, identity_of, is_program
from .protocol import plan, protocol_facts
from .report import write_report
from .run import Setup, VisqolModes, claim, examples, measure
from .score import Cost, EvalResult, summarize
from .tables import table_views
from .types import Protocol

COST_SECONDS = 10.0
"""Audio that the cost of the reference codec is measured on."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to evaluate on, against what, and what to write."""

    data_root: Path
    split: Literal["train", "val", "test"]
    protocol: Protocol = "paper"
    against: tuple[str, ...] = ()
    peers_are_wanted: bool = True
    """Whether a peer that cannot be used is an error, and not a note."""
    visqol: Literal["auto", "off", "speech", "audio", "both"] = "auto"
    jobs: int = 1
    work: Path | None = None
    limit: int | None = None
    report: Path | None = None
    mushra: bool = False
    examples: int = 4
    overwrite: bool = False
    device: str = "auto"
    effort: int | None = None
    """Of the other models' encoding, see `Codec.effort`; None for each one's own."""
    bitrate: float | None = None
    """Of each domain, in kbit/s, of models with the domains of the one under test; None for each one's full rate."""
    views: int = DEFAULT_VIEWS
    """Of a mixture, whose masks are averaged, see `separate`."""


Progress = Callable[[float, float | None], None]


def _unseen(unit: str) -> AbstractContextManager[Progress | None]:
    return contextlib.nullcontext()


def evaluate(
    codec: Codec,
    request: Request,
    *,
    progress: Callable[[str], AbstractContextManager[Progress | None]] = _unseen,
    finished: Callable[[EvalResult], None] = lambda result: None,
) -> EvalResult:
    """Evaluate a model.

    Args:
        codec: the model
        request: what is wanted
        progress: from the name of what is counted, first `tracks` and then `clips`, to what is told of each one done
        finished: gets the result before pages are made of it

    Raises:
        InputError: nothing to evaluate on
        ModelError: a peer that was asked for is not there
        OutputError: a folder cannot be written
        SdcError: ViSQOL was asked for and is not installed
        ValueError: a bitrate that the model does not have, `views` out of range
    """
    with contextlib.ExitStack() as stack:
        return _evaluate(codec, request, progress, finished, stack)


def _evaluate(
    codec: Codec,
    request: Request,
    progress: Callable[[str], AbstractContextManager[Progress | None]],
    finished: Callable[[EvalResult], None],
    stack: contextlib.ExitStack,
) -> EvalResult:
    notes: list[str] = []
    failures: list[str] = []
    # What can be wrong with the request is found before hours of work.
    _check_pages(request)
    codec.codebooks_for(request.bitrate)
    views = checked_views(request.views)
    others, peers = _others(codec, request, notes)
    for peer in peers:
        stack.callback(peer.close)
    if request.mushra:
        names = [codec.name, *(other.name for other in others), *(peer.name for peer in peers)]
        check_listening_test(names, codec.sample_rate)
    setup = Setup(
        codec=codec,
        others=others,
        peers=peers,
        protocol=request.protocol,
        visqol=_visqol(request, notes),
        mixture="mixture" in request.against,
        bitrate=request.bitrate,
        views=views,
    )
    work = request.work
    if work is None:
        if under_torchrun():
            raise OutputError("several processes share their results through a folder; pass --work DIR")
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    claim(work, setup)
    with progress("tracks") as tell:
        plans = plan(
            request.data_root,
            request.split,
            codec.domains,
            codec.sample_rate,
            request.protocol,
            limit=request.limit,
            report=failures.append,
            note=notes.append,
            progress=tell,
        )
    if not plans:
        reason, *more = [*failures, *notes]
        also = f" (and {len(more)} more)" if more else ""
        raise InputError(f"{request.data_root}: nothing to score in split {request.split}: {reason}{also}")
    if request.protocol == "published-code":
        notes += protocol_facts(request.protocol)
    with progress("clips") as tell:
        measured = measure(setup, plans, work, jobs=request.jobs, progress=tell)
    first = is_first_process()
    cost = _costs(codec, request.bitrate) if first else ()
    result = summarize(measured, setup, request.data_root, request.split, cost=cost, failures=failures, notes=notes)
    if first:
        finished(result)
    if first and request.report is not None:
        whole = {row.clip for row in measured.measurements}
        heard = examples(setup, [plan for plan in plans if plan.name in whole][: request.examples])
        write_report(
            request.report,
            title=f"{codec.name} on {request.data_root.resolve().name}, {request.split}",
            tables=table_views(result),
            measurements=measured.measurements,
            examples=heard,
            notes=(*_about(result), *result.notes, *(f"Left out: {failure}" for failure in result.failures)),
            overwrite=request.overwrite,
        )
        if request.mushra:
            write_mushra(request.report, examples=heard, title=f"{codec.name} and others", overwrite=request.overwrite)
    return result


def _about(result: EvalResult) -> list[str]:
    """What a reader of the page needs to know to do it again."""
    about = [
        f"Model {result.model}, weights {result.weights_sha256[:16]}, sdc {result.version}. Data {result.data_root}, "
        f"split {result.split}; protocol {result.protocol}; effort {result.effort}; "
        f"views {result.views}; {result.bitrate:g} kbit/s per domain; ViSQOL {result.visqol}."
    ]
    return about + (list(protocol_facts("paper")) if result.protocol == "paper" else [])


def _check_pages(request: Request) -> None:
    """Raise what would be raised after all work."""
    if request.mushra and request.examples == 0:
        raise InputError("--mushra: a listening test needs something to hear; leave --examples 0 out")
    folder = request.report
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be created: {error.strerror}; choose another --report") from error
    for page in ("index.html", *(["mushra.html"] if request.mushra else [])):
        check_target(folder / page, overwrite=request.overwrite)


def _visqol(request: Request, notes: list[str]) -> VisqolModes:
    missing = visqol.available()
    if request.visqol != "auto":
        if missing is not None and request.visqol != "off":
            raise SdcError(missing)
        return request.visqol
    if missing is None:
        return "both"
    notes.append(f"no ViSQOL: {missing}")
    return "off"


def _others(codec: Codec, request: Request, notes: list[str]) -> tuple[tuple[Codec, ...], tuple[Peer, ...]]:
    """Models that separate, and codecs that do not."""
    others: list[Codec] = []
    peers: list[Peer] = []
    identities = {codec.name: identity_of(codec)}
    for name in request.against:
        if name == "mixture":
            continue
        try:
            found = _find(name, codec, request)
            if isinstance(found, Codec) and request.bitrate is not None:
                _check_bitrate(found, request.bitrate)
        except SdcError as error:
            if request.peers_are_wanted:
                raise
            notes.append(f"{name} is left out: {error}")
            continue
        identity = identity_of(found) if isinstance(found, Codec) else found.identity
        if identity in identities.values():
            notes.append(f"{name} is there already, and is measured once")
            continue
        if found.name in identities:
            # Models of one name, such as the weights before and after some training: as much of the path as it takes.
            parts = Path(name).resolve().parts
            labels = [f"{found.name} ({'/'.join(parts[-count:])})" for count in range(1, len(parts) + 1)]
            found.name = next(label for label in labels if label not in identities)
        identities[found.name] = identity
        if isinstance(found, Codec):
            others.append(found)
        else:
            peers.append(found)
    return tuple(others), tuple(peers)


def _find(name: str, codec: Codec, request: Request) -> Codec | Peer:
    """A model with the domains of the one under test, or a codec that knows nothing of them."""
    if not name:
        raise ModelError("--against needs a name, such as mixture, opus:18, or that of a model")
    if not is_program(name) and (name in {entry.name for entry in zoo.list_models()} or os.path.isdir(name)):
        model = zoo.find(name).recipe.model
        if (model.domains, model.sample_rate) == (codec.domains, codec.sample_rate):
            return load_codec(name, device=request.device, effort=request.effort)
    return find_peer(name, device=request.device, effort=request.effort)


def _check_bitrate(codec: Codec, bitrate: float) -> None:
    try:
        codec.codebooks_for(bitrate)
    except ValueError as error:
        raise ModelError(f"--against {codec.name}: {error}") from error


def _costs(codec: Codec, bitrate: float | None) -> list[Cost]:
    """The model's and, where torch is installed, that of the baseline, a DAC of random weights; one after the other."""
    costs = [_cost(codec, codec.codebooks_for(bitrate))]
    if importlib.util.find_spec("torch") is not None:
        from ...runtime.torch import TorchRuntime, choose_device

        recipe = zoo.find("dac-16k").recipe
        network = build(recipe)
        runtime = TorchRuntime(network, recipe, choose_device(codec.device), None)
        costs.append(_cost(Codec(CodecModel("dac-16k (random weights)", recipe, b"", runtime)), None))
    return costs


def _cost(codec: Codec, num_codebooks: int | None) -> Cost:
    noise = np.random.default_rng(0).standard_normal(round(COST_SECONDS * codec.sample_rate), dtype=np.float32)
    wav = noise * np.float32(0.05)
    # What is set up on first use does not count.
    codec.decode(codec.encode(wav[: len(wav) // 10], num_codebooks=num_codebooks))
    began = time.perf_counter()
    codes = codec.encode(wav, num_codebooks=num_codebooks)
    encoded = time.perf_counter()
    codec.decode(codes)
    decoded = time.perf_counter()
    return Cost(codec.name, codec.device, COST_SECONDS / (encoded - began), COST_SECONDS / (decoded - encoded))
