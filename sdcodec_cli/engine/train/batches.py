"""Batches of examples with every random choice of a step, made by worker processes ahead of the device.

Whatever is random belongs to an example or to a step, never to a process: the same examples make the same losses on
any number of processes.

Legend: B examples of one process, N domains of the model, C domains that are mixed (the same, unless one of the model's
is a sum of several), T samples.
"""

from __future__ import annotations

import dataclasses
import itertools
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ...data.mixing import Trouble, draw, mix
from ...data.pool import Pool
from ...families import of
from ...nn.objectives import Choices
from ...recipe import Recipe


@dataclass(frozen=True)
class Batch:
    """Crops of B examples, which `level` makes stems of."""

    crops: Tensor
    """`[B, C, T]`"""
    active: Tensor
    """Bool `[B, C]`."""
    targets: Tensor
    """LUFS of each crop, `[B, C]`."""
    mix_targets: Tensor
    """LUFS of the mixtures, `[B]`."""
    choices: Choices
    trouble: Trouble
    problem: str | None
    """Why an example has nothing in it, if one has."""

    def to(self, device: torch.device) -> Batch:
        """A copy on a device."""
        return dataclasses.replace(
            self,
            crops=self.crops.to(device, non_blocking=True),
            active=self.active.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            mix_targets=self.mix_targets.to(device, non_blocking=True),
            choices=self.choices.to(device),
        )

    def pin_memory(self) -> Batch:
        """A copy that reaches a GPU without waiting; `DataLoader` asks for it."""
        return dataclasses.replace(
            self,
            crops=self.crops.pin_memory(),
            active=self.active.pin_memory(),
            targets=self.targets.pin_memory(),
            mix_targets=self.mix_targets.pin_memory(),
            choices=self.choices.pin_memory(),
        )


def make_batch(pool: Pool, recipe: Recipe, indices: range) -> Batch:
    """The examples of the given numbers."""
    seed = recipe.training.seed
    examples = [
        draw(pool, recipe.mixing, augmentation=recipe.augmentation, seed=seed, index=index) for index in indices
    ]
    active = np.stack([example.active for example in examples])
    choices = of(recipe).choose(_merged(active, recipe), recipe, indices)
    guides = [example.guide for example in examples if example.guide is not None]
    if guides:
        choices = dataclasses.replace(choices, guide=torch.from_numpy(np.stack(guides)))
    empty = [example.problem for example in examples if not example.active.any()]
    return Batch(
        crops=torch.from_numpy(np.stack([example.crops for example in examples])),
        active=torch.from_numpy(active),
        targets=torch.from_numpy(np.stack([example.targets for example in examples])),
        mix_targets=torch.tensor([example.mix_target for example in examples], dtype=torch.float32),
        choices=choices,
        trouble=sum((example.trouble for example in examples), Trouble()),
        problem=empty[0] if empty else None,
    )


def level(batch: Batch, recipe: Recipe) -> Tensor:
    """Stems `[B, N, T]` of a batch on the levels that were drawn for it, on its device."""
    stems = mix(
        batch.crops,
        batch.active,
        batch.targets,
        batch.mix_targets,
        sample_rate=recipe.model.sample_rate,
        peak=recipe.mixing.peak,
    )
    if recipe.sources == recipe.model.domains:
        return stems
    return torch.stack([stems[:, list(group)].sum(1) for group in recipe.groups], dim=1)


def _merged(active: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Of which of the model's domains there is something: `[B, C]` to `[B, N]`."""
    return np.stack([active[:, list(group)].any(1) for group in recipe.groups], axis=1)


@dataclass(frozen=True)
class Share:
    """What one process takes of every step's examples."""

    rank: int
    world_size: int
    micro_batch: int
    """Examples at a time; the rest of a process's share follows before the optimizer steps."""

    def indices(self, batch_size: int, first_step: int) -> Iterator[range]:
        """Numbers of the examples of each micro-batch from a step on, without end."""
        share = batch_size // self.world_size
        for step in itertools.count(first_step):
            begin = step * batch_size + self.rank * share
            for start in range(begin, begin + share, self.micro_batch):
                yield range(start, start + self.micro_batch)


class _Batches(IterableDataset[Batch]):
    def __init__(self, pool: Pool, recipe: Recipe, share: Share, first_step: int) -> None:
        self.pool, self.recipe, self.share, self.first_step = pool, recipe, share, first_step

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        every = self.share.indices(self.recipe.training.batch_size, self.first_step)
        for indices in itertools.islice(every, number, None, count):
            yield make_batch(self.pool, self.recipe, indices)


def load_batches(
    pool: Pool, recipe: Recipe, share: Share, *, first_step: int, workers: int, pin: bool
) -> DataLoader[Batch]:
    """Micro-batches in order from `first_step` on; the same for any number of workers.

    Args:
        pool: where clips come from
        recipe: how they are mixed, and which choices are made
        share: of this process
        first_step: 0, or where a run continues
        workers: processes that read and decode
        pin: whether batches go to a GPU
    """
    return DataLoader(
        _Batches(pool, recipe, share, first_step),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=pin,
        worker_init_fn=_ready_worker,
    )


def _ready_worker(number: int) -> None:
    """Signals go to the whole process group; the loop decides when its workers end."""
    torch.set_num_threads(1)
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
