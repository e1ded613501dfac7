"""`sdc eval` as a function: from a model and a request to tables, and to pages if they are wanted."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ... import zoo
from ...audio import check_target
from ...errors import InputError, SdcError
from ..codec import Codec, load_codec
from ..train.distributed import is_first_process
from . import visqol
from .mushra import write_mushra
from .peers import Peer, find_peer
from .protocol import plan, protocol_facts
from .report import write_report
from .run import Setup, VisqolModes, examples, measure
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


Progress = Callable[[float, float | None], None]


def _unseen(unit: str) -> AbstractContextManager[Progress | None]:
    return contextlib.nullcontext()


def evaluate(
    codec: Codec, request: Request, *, progress: Callable[[str], AbstractContextManager[Progress | None]] = _unseen
) -> EvalResult:
    """Evaluate a model.

    Args:
        codec: the model
        request: what is wanted
        progress: from the name of what is counted, first `tracks` and then `clips`, to what is told of each one done

    Raises:
        InputError: nothing to evaluate on
        ModelError: a peer that was asked for is not there
        OutputError: a folder cannot be written
    """
    _check_pages(request)
    notes: list[str] = []
    failures: list[str] = []
    with progress("tracks") as tell:
        plans = plan(
            request.data_root,
            request.split,
            codec.domains,
            codec.sample_rate,
            request.protocol,
            limit=request.limit,
            report=failures.append,
            progress=tell,
        )
    if not plans:
        raise InputError(
            f"{request.data_root}: no clip of split {request.split} has every track active for half of it; "
            f"check the files, or choose another --dnr"
        )
    others, peers = _others(codec, request, notes)
    setup = Setup(
        codec=codec,
        others=others,
        peers=peers,
        protocol=request.protocol,
        visqol=_visqol(request, notes),
        mixture="mixture" in request.against,
    )
    try:
        with progress("clips") as tell:
            measured = measure(setup, plans, jobs=request.jobs, work=request.work, progress=tell)
        if request.protocol == "published-code":
            notes += protocol_facts(request.protocol)
        result = summarize(
            measured,
            codec,
            split=request.split,
            protocol=request.protocol,
            cost=_costs(codec),
            failures=failures,
            notes=notes,
        )
        if request.report is not None and is_first_process():
            heard = examples(setup, plans[: request.examples])
            write_report(
                request.report,
                title=f"{codec.name} on DnR {request.split}",
                tables=table_views(result),
                measurements=measured.measurements,
                examples=heard,
                notes=result.notes,
                overwrite=request.overwrite,
            )
            if request.mushra:
                write_mushra(
                    request.report, examples=heard, title=f"{codec.name} and others", overwrite=request.overwrite
                )
    finally:
        for peer in setup.peers:
            peer.close()
    return result


def _check_pages(request: Request) -> None:
    """Raise before hours of work what would be raised after them."""
    if request.report is not None:
        for page in ("index.html", *(["mushra.html"] if request.mushra else [])):
            if request.report.exists():
                check_target(request.report / page, overwrite=request.overwrite)
    if request.mushra and request.examples == 0:
        raise InputError("--mushra: a listening test needs something to hear; leave --examples 0 out")


def _visqol(request: Request, notes: list[str]) -> VisqolModes:
    if request.visqol != "auto":
        return request.visqol
    missing = visqol.available()
    if missing is None:
        return "both"
    notes.append(f"no ViSQOL: {missing}")
    return "off"


def _others(codec: Codec, request: Request, notes: list[str]) -> tuple[tuple[Codec, ...], tuple[Peer, ...]]:
    """Models that separate, and codecs that do not."""
    others: list[Codec] = []
    peers: list[Peer] = []
    for name in request.against:
        if name == "mixture":
            continue
        try:
            if name in {entry.name for entry in zoo.list_models()} or Path(name).is_dir():
                other = load_codec(name, device=request.device)
                if other.domains == codec.domains:
                    others.append(other)
                    continue
            peers.append(find_peer(name, device=request.device))
        except SdcError as error:
            if request.peers_are_wanted:
                raise
            notes.append(f"{name} is left out: {error}")
    return tuple(others), tuple(peers)


def _costs(codec: Codec) -> list[Cost]:
    """The model's and that of the baseline, a DAC of random weights, one after the other on an idle machine."""
    recipe = dataclasses.replace(zoo.find("dac-16k").recipe, name="dac-16k")
    network = zoo.build(recipe).to(codec.device).eval()

    def encode_dac(wav: torch.Tensor) -> torch.Tensor:
        return network.quantize(network.encode(wav[None, None].to(codec.device))).latents.sum(0).cpu()

    def decode_dac(latent: torch.Tensor) -> torch.Tensor:
        return network.decode(latent.to(codec.device)).cpu()

    return [
        _cost(codec.name, codec, codec.encode, codec.decode),
        _cost("dac-16k (random weights)", codec, encode_dac, decode_dac),
    ]


@torch.inference_mode()
def _cost(system: str, codec: Codec, encode: Callable[[torch.Tensor], Any], decode: Callable[[Any], Any]) -> Cost:
    wav = torch.randn(round(COST_SECONDS * codec.sample_rate)) * 0.05
    # What is set up on first use does not count.
    decode(encode(wav[: len(wav) // 10]))
    began = time.perf_counter()
    codes = encode(wav)
    encoded = time.perf_counter()
    decode(codes)
    decoded = time.perf_counter()
    return Cost(system, str(codec.device), COST_SECONDS / (encoded - began), COST_SECONDS / (decoded - encoded))
