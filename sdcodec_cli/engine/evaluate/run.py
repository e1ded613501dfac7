"""An evaluation from clips to numbers: many at once, one process or several, and again from where it was stopped."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ... import __version__
from ...audio import atomic_output
from ...data.parallel import own_cores
from ...errors import OutputError, SdcError
from ..codec import Codec
from ..separate import DEFAULT_VIEWS
from ..torchrun import PATIENCE, is_first_process, under_torchrun
from . import metrics, visqol
from .peers import Peer, identity_of
from .protocol import ClipPlan, load
from .systems import (
    Estimate,
    Observations,
    estimates_of_mixture,
    estimates_of_model,
    estimates_of_peer,
    is_silent,
    no_observations,
)
from .types import Clip, Example, Measurement, Protocol, Task

VisqolModes = Literal["off", "speech", "audio", "both"]

SETTINGS = "settings.json"


@dataclass(frozen=True)
class Measured:
    """Everything that was measured."""

    measurements: tuple[Measurement, ...]
    seen: Observations
    failures: tuple[str, ...]
    """Clips that were skipped, with the reason."""


@dataclass(frozen=True)
class Setup:
    """What is evaluated, and how."""

    codec: Codec
    others: tuple[Codec, ...]
    """Other models with one quantizer per domain."""
    peers: tuple[Peer, ...]
    protocol: Protocol
    visqol: VisqolModes
    mixture: bool
    """Whether the unprocessed mixture stands beside the separations."""
    bitrate: float | None = None
    """Per domain, of the models with one quantizer per domain, in kbit/s; None for each one's full rate."""
    views: int = DEFAULT_VIEWS
    """Of the mixture, whose masks are averaged."""

    def estimates(self, clip: Clip, seen: Observations | None) -> Iterator[Estimate]:
        """Of all systems."""
        if self.mixture:
            yield from estimates_of_mixture(clip)
        yield from estimates_of_model(self.codec, clip, bitrate=self.bitrate, views=self.views, own=True, seen=seen)
        for other in self.others:
            yield from estimates_of_model(other, clip, bitrate=self.bitrate, views=self.views, own=False)
        for peer in self.peers:
            yield from estimates_of_peer(peer, clip, self.codec.sample_rate)

    def fingerprint(self) -> dict[str, Any]:
        """What measurements depend on, so that those of another set-up are not mixed in."""
        return {
            "model": self.codec.name,
            "weights": self.codec.weights_sha256.hex(),
            "effort": self.codec.effort,
            "bitrate": self.bitrate,
            "views": self.views,
            "others": [[other.name, identity_of(other)] for other in self.others],
            "peers": [[peer.name, peer.identity] for peer in self.peers],
            "protocol": self.protocol,
            "visqol": self.visqol,
            "mixture": self.mixture,
            "version": __version__,
        }


def measure(
    setup: Setup,
    plans: Sequence[ClipPlan],
    work: Path,
    *,
    jobs: int = 1,
    progress: Callable[[float, float | None], None] | None = None,
) -> Measured:
    """Measure every clip; under torchrun, the processes share them.

    Args:
        setup: what is evaluated
        plans: the clips
        work: folder in which each clip's results are kept, see `claim`; what is in it is not measured again, but for
            clips that failed
        jobs: processes that compute ViSQOL, beside this one
        progress: called with the clips that are done: at the start, and after every one

    Raises:
        OutputError: the folder cannot be written
        SdcError: ViSQOL ended, such as for want of memory
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    with ExitStack() as stack:
        pool = None
        if setup.visqol != "off":
            stack.enter_context(_threads(own_cores() - jobs))
            pool = stack.enter_context(visqol.VisqolPool(jobs))
        mine = [plan for number, plan in enumerate(plans) if number % world == rank]
        todo = [plan for plan in mine if not _is_measured(work, plan)]
        pending: list[_Pending] = []
        if progress:
            progress(len(mine) - len(todo), len(mine))

        def store(started: int) -> None:
            pending.pop(0).store(work)
            if progress:
                progress(len(mine) - len(todo) + started - len(pending), len(mine))

        for number, plan in enumerate(todo, 1):
            pending.append(_measure_clip(setup, plan, pool))
            while len(pending) > 2 * jobs or (pending and pending[0].is_done()):
                store(number)
        while pending:
            store(len(todo))
        wait_for_everyone()
        return _collect(work, plans, setup.codec)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """At most so many threads for torch, and at least one, where something is computed with it.

    Those that wait for their turn would keep ViSQOL from its own.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, count)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def examples(setup: Setup, plans: Sequence[ClipPlan]) -> list[Example]:
    """What the systems make of some clips, to listen to."""
    found = []
    for plan in plans:
        clip = load(plan)
        groups: dict[tuple[Task, str], list[Estimate]] = {}
        for estimate in setup.estimates(clip, None):
            if estimate.task in ("resynthesis", "separation", "masked separation") and not is_silent(
                estimate.reference
            ):
                # What the mask makes of the separation is heard beside it.
                task: Task = "separation" if estimate.task == "masked separation" else estimate.task
                groups.setdefault((task, estimate.stem), []).append(estimate)
        for (task, stem), estimates in groups.items():
            found.append(
                Example(
                    clip=clip.name,
                    task=task,
                    stem=stem,
                    sample_rate=setup.codec.sample_rate,
                    reference=estimates[0].reference,
                    mixture=clip.mix,
                    estimates={_label(estimate): estimate.estimate for estimate in estimates},
                )
            )
    return found


def _label(estimate: Estimate) -> str:
    return f"{estimate.system}, masked" if estimate.task == "masked separation" else estimate.system


class _Pending:
    """A clip whose ViSQOL is being computed."""

    def __init__(self, plan: ClipPlan, failure: str | None, seen: Observations) -> None:
        self.plan, self.failure, self.seen = plan, failure, seen
        self.rows: list[tuple[Measurement, dict[str, Future[tuple[float | None, str | None]]]]] = []

    def is_done(self) -> bool:
        return all(future.done() for _, futures in self.rows for future in futures.values())

    def store(self, work: Path) -> None:
        """Wait for the rest and write it down, as a whole."""
        rows = []
        for measurement, futures in self.rows:
            for metric, future in futures.items():
                value, reason = future.result()
                if value is not None:
                    measurement.values[metric] = value
                if reason is not None:
                    measurement.reasons[metric] = reason
            rows.append(dataclasses.asdict(measurement))
        seen = dataclasses.asdict(self.seen)
        seen["usage"] = base64.b64encode(zlib.compress(self.seen.usage.astype(np.int32).tobytes())).decode()
        with atomic_output(_result(work, self.plan), overwrite=True) as file:
            file.write(json.dumps({"failure": self.failure, "rows": rows, "seen": seen}).encode())


def _measure_clip(setup: Setup, plan: ClipPlan, pool: visqol.VisqolPool | None) -> _Pending:
    seen = no_observations(setup.codec)
    try:
        clip = load(plan)
    except SdcError as error:
        return _Pending(plan, str(error), seen)
    pending = _Pending(plan, None, seen)
    rate = setup.codec.sample_rate
    modes = {"off": (), "speech": ("speech",), "audio": ("audio",), "both": ("speech", "audio")}[setup.visqol]
    try:
        for estimate in setup.estimates(clip, seen):
            measurement = _measure(clip.name, estimate, rate)
            futures = {}
            if pool is not None and estimate.task in ("resynthesis", "separation", "masked separation"):
                for mode in modes:
                    futures[f"visqol_{mode}"] = pool.submit(estimate.reference, estimate.estimate, rate, mode)  # type: ignore[arg-type]
            pending.rows.append((measurement, futures))
    except visqol.VisqolEnded:
        raise  # nothing that is wrong with the clip
    except SdcError as error:
        # Such as a peer that fails: without its rows the means would be of different clips.
        return _Pending(plan, f"{plan.folder}: {error}", no_observations(setup.codec))
    return pending


def _measure(clip: str, found: Estimate, sample_rate: int) -> Measurement:
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    measured = ["si_sdr", "mel", "stft"] + (["si_sdri"] if found.mixture is not None else [])
    if is_silent(found.reference):
        reasons = dict.fromkeys(measured, "silent_reference")
    else:
        reference, estimate = found.reference, found.estimate
        values["si_sdr"] = float(metrics.si_sdr(estimate, reference))
        values["mel"] = float(metrics.mel_distance_dac(estimate, reference, sample_rate))
        values["stft"] = float(metrics.stft_distance(estimate, reference))
        if found.mixture is not None:
            values["si_sdri"] = values["si_sdr"] - float(metrics.si_sdr(found.mixture, reference))
    return Measurement(
        clip=clip,
        task=found.task,
        system=found.system,
        stem=found.stem,
        through=found.through,
        values=values,
        reasons=reasons,
        bitrate=found.bitrate,
    )


def wait_for_everyone() -> None:
    """Under torchrun, until all processes have come here."""
    if under_torchrun():
        from accelerate import PartialState

        # Some may be done long before the others.
        PartialState(cpu=True, timeout=PATIENCE).wait_for_everyone()


def claim(work: Path, setup: Setup) -> None:
    """Make a folder this set-up's, or make sure that it is; under torchrun, the first process does so for all.

    Raises:
        OutputError: it has results of another set-up, is something else, or cannot be written
    """
    if is_first_process():
        _claim(work, setup)
    wait_for_everyone()


def _claim(work: Path, setup: Setup) -> None:
    wanted = setup.fingerprint()
    path = work / SETTINGS
    try:
        work.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            if any(work.iterdir()):
                raise OutputError(f"{work}: is not empty and not an evaluation; choose another --work")
            with atomic_output(path, overwrite=True) as file:
                file.write(json.dumps(wanted, sort_keys=True).encode())
        else:
            found = json.loads(path.read_text(encoding="utf-8"))
            others = [name for name, value in wanted.items() if found.get(name) != value]
            if others:
                raise OutputError(
                    f"{work}: has measurements of another set-up (not the same: {', '.join(others)}); "
                    f"choose another --work, or remove it"
                )
    except (ValueError, AttributeError) as error:
        raise OutputError(f"{path}: is damaged; choose another --work, or remove the folder") from error
    except OSError as error:
        raise OutputError(f"{work}: cannot be written: {error.strerror}; choose another --work") from error


def _result(work: Path, plan: ClipPlan) -> Path:
    digest = hashlib.sha256(plan.identity.encode()).hexdigest()[:16]
    return work / f"clip-{digest}.json"


def _kept(work: Path, plan: ClipPlan) -> dict[str, Any] | None:
    """What has been measured of a clip; None if nothing has, or if the file is damaged."""
    try:
        kept: dict[str, Any] = json.loads(_result(work, plan).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return kept


def _is_measured(work: Path, plan: ClipPlan) -> bool:
    kept = _kept(work, plan)
    return kept is not None and not kept["failure"]


def _collect(work: Path, plans: Sequence[ClipPlan], codec: Codec) -> Measured:
    measurements: list[Measurement] = []
    failures: list[str] = []
    seen = no_observations(codec)
    for plan in plans:
        kept = _kept(work, plan)
        if kept is None:
            raise OutputError(f"{work}: lacks results of {plan.name}; run the same command again")
        measurements += [Measurement(**row) for row in kept["rows"]]
        if kept["failure"]:
            failures.append(kept["failure"])
        usage = np.frombuffer(zlib.decompress(base64.b64decode(kept["seen"].pop("usage"))), dtype=np.int32)
        seen.add(Observations(usage.reshape(seen.usage.shape).astype(np.int64), **kept["seen"]))
    return Measured(tuple(measurements), seen, tuple(failures))
