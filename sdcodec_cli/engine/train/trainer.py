"""The networks of a run, their optimizers, and one step of training.

Legend: B batch, N domains, T samples, R decoded rows.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.profiler import record_function

from ... import zoo
from ...errors import ModelError
from ...nn.discriminator import Discriminators
from ...nn.layers import add_weight_norm
from ...nn.quantize import Observer
from ...nn.sdcodec import SDCodec
from ...recipe import Recipe, TrainingFields
from .adversarial import deceiving_loss, discriminator_loss, feature_distance
from .batches import Batch, level
from .codebooks import CodebookWatch
from .distributed import Processes
from .muon import Muon
from .objective import Generator, draw_scales, objective, targets

SCALE_RATE = 0.05
"""Learning rate of the blocks' scales, as a share of all others'. At the full one, those of blocks that are added to a
trained network are at zero after a hundred steps, before the blocks have learned anything, and stay there."""


def schedule(fields: TrainingFields, step: int) -> float:
    """Share of the peak learning rate that a step gets, the first being step 0."""
    if step < fields.warmup_steps:
        return (step + 1) / fields.warmup_steps
    after = step - fields.warmup_steps
    if fields.schedule == "exponential":
        return fields.gamma**after
    progress = min(1.0, after / max(1, fields.steps - fields.warmup_steps))
    return fields.final_learning_rate + (1 - fields.final_learning_rate) * (1 + math.cos(math.pi * progress)) / 2


def make_trainable(model: SDCodec, fields: TrainingFields) -> None:
    """Put weight norm on what is trained, and hold the rest fixed, bit for bit."""
    if fields.parts == "all":
        add_weight_norm(model)
    elif model.activity is not None:
        model.requires_grad_(False)
        model.activity.requires_grad_(True)


def renews_codebooks(fields: TrainingFields, step: int) -> bool:
    """Codebooks are renewed often while everything moves, then seldom, and left to settle in the last third."""
    if not fields.codebook_renewal or fields.parts != "all":
        return False
    return step % (100 if step <= 1000 else 500) == 0 and step < fields.steps * 2 / 3


class Critic(nn.Module):
    """Discriminators with their losses and those they give to the codec, in one forward pass.

    The codec's losses see the discriminators' weights as constants, so that a single backward pass serves both sides.

    Args:
        discriminators: to train
    """

    def __init__(self, discriminators: Discriminators) -> None:
        super().__init__()
        self.discriminators = discriminators

    def forward(self, real: Tensor, decoded: Tensor) -> dict[str, Tensor]:
        """Losses of each row, `[R]`, from two `[R, T]`: `discriminator`, `adversarial` and `feature`."""
        rows = len(real)
        maps = self.discriminators(torch.cat([real, decoded.detach()])[:, None])
        real_maps = [[layer[:rows] for layer in network] for network in maps]
        decoded_maps = [[layer[rows:] for layer in network] for network in maps]
        constants = {name: parameter.detach() for name, parameter in self.discriminators.named_parameters()}
        seen = functional_call(self.discriminators, constants, (decoded[:, None],))
        return {
            "discriminator": discriminator_loss(real_maps, decoded_maps),
            "adversarial": deceiving_loss(seen),
            "feature": feature_distance(real_maps, seen),
        }


class Trainer:
    """Everything of a run that changes from step to step.

    Args:
        recipe: what to train
        processes: that train it together
        initial: model whose weights to start from, see `zoo.start_from`
        compiled: whether encoder and decoder go through `torch.compile`

    Raises:
        ModelError: the initial model does not fit
    """

    def __init__(
        self, recipe: Recipe, processes: Processes, *, initial: zoo.ModelEntry | None = None, compiled: bool = False
    ) -> None:
        self.recipe, self.processes = recipe, processes
        self.fields = recipe.training
        self.step = 0
        self.from_scratch = initial is None
        torch.manual_seed(self.fields.seed)
        self.model = zoo.build(recipe)
        if initial is not None:
            zoo.start_from(self.model, initial)
        make_trainable(self.model, self.fields)
        self.model.to(processes.device)
        self.average = copy.deepcopy(self.model) if self.fields.average_decay else self.model
        self.critic = Critic(zoo.build_discriminators(recipe)) if self.fields.adversarial else None
        if compiled:
            # Snake's four passes over memory become one; discriminators, all convolutions, have little to gain.
            for network in (self.model.encoder, self.model.decoder):
                network.compile()
        self.generator = processes.wrap(Generator(self.model, self.fields))
        self.wrapped_critic = processes.wrap(self.critic) if self.critic else None
        self.watch = CodebookWatch(self.model.quantizer, processes)
        self.optimizers = self._optimizers()

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        fields, discriminator = self.fields, self.recipe.discriminator
        trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        muon = fields.optimizer == "muon"
        matrices = [p for name, p in trained.items() if muon and ".blocks." in name and p.dim() == 2]
        scales = [p for name, p in trained.items() if ".blocks." in name and name.endswith(".scale")]
        others = [p for p in trained.values() if not any(p is apart for apart in (*matrices, *scales))]
        decay = fields.weight_decay
        optimizers: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(others, betas=fields.betas, weight_decay=decay, fused=True)
        }
        if scales:
            optimizers["scales"] = torch.optim.AdamW(scales, betas=fields.betas, weight_decay=decay, fused=True)
        if matrices:
            dtype = torch.bfloat16 if self.processes.precision == "bfloat16" else torch.float32
            optimizers["muon"] = Muon(matrices, weight_decay=decay, dtype=dtype)
        if self.critic:
            optimizers["discriminators"] = torch.optim.AdamW(
                self.critic.parameters(), betas=discriminator.betas, weight_decay=decay, fused=True
            )
        return optimizers

    def learning_rates(self) -> dict[str, float]:
        """Of the step to come, by optimizer."""
        share = schedule(self.fields, self.step)
        peak = self.fields.learning_rate
        peaks = {"discriminators": self.recipe.discriminator.learning_rate, "scales": SCALE_RATE * peak}
        return {name: share * peaks.get(name, peak) for name in self.optimizers}

    def backward(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Gradients of the next step, from its micro-batches.

        Returns:
            losses and norms of gradients by name, scalars on the device; `take_step` follows if all are finite
        """
        fields, count = self.fields, len(batches)
        sums: dict[str, Tensor] = {}
        scales = draw_scales(fields.mel_scales_per_step, seed=fields.seed, step=self.step)
        for number, batch in enumerate(batches, start=1):
            with record_function("mix"):
                stems = self.mix(batch)
            if self.step == 0 and number == 1 and fields.codebook_renewal and self.from_scratch:
                self.watch.initialize(functools.partial(self._quantize, stems), fields.seed)
            adversarial = self.wrapped_critic is not None and self.step >= fields.adversarial_start
            together = [self.generator, *([self.wrapped_critic] if self.wrapped_critic else [])]
            with self.processes.gathering(*together, last=number == count):
                with record_function("codec"):
                    outputs = self.generator(stems, batch.choices, self.watch)
                with record_function("losses"):
                    wanted = targets(stems, batch.choices)
                    losses = objective(
                        outputs,
                        stems,
                        wanted,
                        batch.choices,
                        fields,
                        sample_rate=self.recipe.model.sample_rate,
                        hop_length=self.recipe.model.hop_length,
                        scales=scales,
                    )
                train = losses["total"]
                if adversarial and self.wrapped_critic is not None:
                    with record_function("discriminators"):
                        rows = self.wrapped_critic(wanted, outputs["decoded"][: len(wanted)])
                    losses |= {name: loss.sum() / len(stems) for name, loss in rows.items()}
                    losses["total"] = (
                        losses["total"]
                        + fields.adversarial_weight * losses["adversarial"]
                        + fields.feature_weight * losses["feature"]
                    )
                    train = losses["total"] + losses["discriminator"]
                with record_function("backward"):
                    torch.autograd.backward(train / count)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0) + loss.detach() / count
        norms = {"gradient_norm": nn.utils.clip_grad_norm_(self.model.parameters(), fields.clip_norm)}
        if self.critic is not None and "discriminator" in sums:
            ceiling = self.recipe.discriminator.clip_norm
            norms["discriminator_gradient_norm"] = nn.utils.clip_grad_norm_(self.critic.parameters(), ceiling)
        return {**sums, **norms}

    def take_step(self) -> None:
        """Move the weights along the gradients, and their average after them."""
        with record_function("optimizers"):
            self._move()
        self.step += 1

    def _move(self) -> None:
        for name, rate in self.learning_rates().items():
            optimizer = self.optimizers[name]
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.average is not self.model:
            # Young averages forget their random beginning quickly.
            decay = min(self.fields.average_decay, (self.step + 1) / (self.step + 11))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)

    def mix(self, batch: Batch) -> Tensor:
        """Stems `[B, N, T]` of a batch that is on the device."""
        return level(batch, self.recipe)

    def renew_codebooks(self, batch: Batch) -> int:
        """Put unused codebook entries to work; returns how many."""
        return self.watch.renew(functools.partial(self._quantize, self.mix(batch)), seed=self.step)

    @torch.no_grad()
    def _quantize(self, stems: Tensor, observe: Observer) -> None:
        with self.processes.autocast():
            self.model.quantize(self.model.encode(stems.sum(1)[:, None]), observe=observe)

    def state(self) -> dict[str, Any]:
        """All that a checkpoint needs; to be called by all processes, of which the first one's is complete."""
        return {
            "step": self.step,
            "precision": self.processes.precision,
            "from_scratch": self.from_scratch,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "discriminators": self.critic.state_dict() if self.critic else {},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "codebooks": self.watch.state(),
            "rng": torch.get_rng_state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state`.

        Raises:
            ModelError: it is that of another recipe
        """
        try:
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            if self.critic:
                self.critic.load_state_dict(state["discriminators"])
            if state["optimizers"].keys() != self.optimizers.keys():
                raise ValueError("other optimizers")
            for name, optimizer in self.optimizers.items():
                # Weight decay and betas come along with the state, but those of the recipe count.
                own = [{key: group[key] for key in group if key != "params"} for group in optimizer.param_groups]
                optimizer.load_state_dict(state["optimizers"][name])
                for group, options in zip(optimizer.param_groups, own, strict=True):
                    group.update(options)
            self.watch.load_state(state["codebooks"])
            torch.set_rng_state(state["rng"].cpu())
            self.step, self.from_scratch = int(state["step"]), bool(state["from_scratch"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise ModelError(
                "the checkpoint does not fit the recipe; resume with the recipe that the run was started with"
            ) from error
