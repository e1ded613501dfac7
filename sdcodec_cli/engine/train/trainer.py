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
from torch.profiler import record_function

from ... import weights, zoo
from ...errors import ModelError
from ...families import build, of
from ...nn.layers import add_weight_norm
from ...nn.objectives import Objective, ParameterGroup
from ...nn.projection import keep_orthogonal
from ...nn.quantize import MultiSourceRVQ, Observer
from ...recipe import Recipe, TrainingFields
from .batches import Batch, level
from .codebooks import CodebookWatch
from .distributed import Processes
from .muon import Muon


def schedule(fields: TrainingFields, step: int, steps: int) -> float:
    """Share of the peak learning rate that a step of a stage of so many steps gets, the first being step 0."""
    if step < fields.warmup_steps:
        return (step + 1) / fields.warmup_steps
    after = step - fields.warmup_steps
    if fields.schedule == "exponential":
        return fields.gamma**after
    progress = min(1.0, after / max(1, steps - fields.warmup_steps))
    return fields.final_learning_rate + (1 - fields.final_learning_rate) * (1 + math.cos(math.pi * progress)) / 2


def make_trainable(network: nn.Module, recipe: Recipe) -> None:
    """Put weight norm on what any stage trains, where the family wants it, and keep orthogonal what is to be so.

    The rest stays as it is, bit for bit.
    """
    if not of(recipe).weight_norm:
        return
    trained = {part for stage in recipe.plan for part in recipe.trained_in(stage)}
    for part in trained:
        add_weight_norm(network.get_submodule(part))
        keep_orthogonal(network.get_submodule(part))


class Trainer:
    """Everything of a run that changes from step to step.

    Args:
        recipe: what to train
        processes: that train it together
        initial: model whose weights to start from, see `Family.adopt`
        compiled: whether networks go through `torch.compile`

    Raises:
        ModelError: the initial model does not fit
    """

    def __init__(
        self, recipe: Recipe, processes: Processes, *, initial: zoo.ModelEntry | None = None, compiled: bool = False
    ) -> None:
        self.recipe, self.processes = recipe, processes
        self.family, self.fields = of(recipe), recipe.training
        self.step = 0
        torch.manual_seed(self.fields.seed)
        self.model = build(recipe)
        # Quantizers whose codebooks are as random as they were made.
        self.random = _quantizers(self.model) if initial is None else start_from(self.model, recipe, initial)
        make_trainable(self.model, recipe)
        self.model.to(processes.device)
        self.average = copy.deepcopy(self.model) if self.fields.average_decay else self.model
        self.critic = self.family.critic(recipe)
        if compiled:
            # Discriminators, all convolutions, have little to gain.
            for network in self.family.compiled(self.model):
                network.compile()
        self._begin(0)

    def _begin(self, number: int) -> None:
        """Get ready for a stage."""
        self.stage_number, self.stage = number, self.recipe.plan[number]
        self.first_step = sum(stage.steps for stage in self.recipe.plan[:number])
        self.objective: Objective = self.family.objective(self.model, self.recipe, self.stage)
        trained = self.recipe.trained_in(self.stage)
        for part in self.recipe.parts:
            self.model.get_submodule(part).requires_grad_(part in trained)
        self.wrapped_objective = self.processes.wrap(self.objective)
        if self.critic:
            self.critic.choose(trained)
        self.wrapped_critic = self.processes.wrap(self.critic) if self.critic else None
        quantizers = self.objective.quantizers
        self.watch = CodebookWatch(quantizers, self.processes) if quantizers else None
        self.optimizers = self._optimizers()

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        fields = self.fields
        decay, betas = fields.weight_decay, fields.betas
        groups = [group for group in self.family.parameter_groups(self.model, self.recipe) if _belongs(group, fields)]
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        apart = {id(parameter) for group in groups for parameter in group.parameters}
        optimizers: dict[str, torch.optim.Optimizer] = {}
        others = [parameter for parameter in trained if id(parameter) not in apart]
        if others:
            optimizers["adamw"] = torch.optim.AdamW(others, betas=betas, weight_decay=decay, fused=True)
        self._rates = {}
        for group in groups:
            members = [parameter for parameter in group.parameters if parameter.requires_grad]
            if not members:
                continue
            self._rates[group.name] = group.learning_rate
            if group.muon:
                dtype = torch.bfloat16 if self.processes.precision == "bfloat16" else torch.float32
                optimizers[group.name] = Muon(members, weight_decay=decay, dtype=dtype)
            else:
                optimizers[group.name] = torch.optim.AdamW(members, betas=betas, weight_decay=decay, fused=True)
        if self.critic:
            critics = [parameter for parameter in self.critic.parameters() if parameter.requires_grad]
            optimizers["discriminators"] = torch.optim.AdamW(
                critics, betas=self.critic.fields.betas, weight_decay=decay, fused=True
            )
        return optimizers

    def learning_rates(self) -> dict[str, float]:
        """Of the step to come, by optimizer."""
        share = schedule(self.fields, self.step - self.first_step, self.stage.steps)
        peak = self.fields.learning_rate * self.stage.learning_rate
        rates = {name: share * peak * self._rates.get(name, 1.0) for name in self.optimizers}
        if self.critic:
            rates["discriminators"] = share * self.critic.fields.learning_rate * self.stage.learning_rate
        return rates

    @property
    def renews_codebooks(self) -> bool:
        """Codebooks are renewed often while everything moves, then seldom, and left to settle in the last third."""
        step = self.step - self.first_step
        return (
            self.objective.renews_codebooks
            and step > 0
            and step % (100 if step <= 1000 else 500) == 0
            and step < self.stage.steps * 2 / 3
        )

    def backward(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Gradients of the next step, from its micro-batches.

        Returns:
            losses and norms of gradients by name, scalars on the device; `take_step` follows if all are finite
        """
        fields, count = self.fields, len(batches)
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(batches, start=1):
            with record_function("mix"):
                stems = self.mix(batch)
            if self.step == self.first_step and number == 1 and self.watch:
                self._initialize_codebooks(self.watch, stems)
            critic, weights = self._critic_of_step()
            together = [self.wrapped_objective, *([self.wrapped_critic] if self.wrapped_critic else [])]
            with self.processes.gathering(*together, last=number == count):
                with record_function("codec"):
                    outputs = self.wrapped_objective(stems, batch.choices, self.watch)
                with record_function("losses"):
                    losses = self.objective.losses(outputs, stems, batch.choices, self.step)
                train = losses["total"]
                if critic is not None:
                    with record_function("discriminators"):
                        rows = critic(*self.objective.compared(outputs, stems, batch.choices))
                    losses |= {name: loss.sum() / len(stems) for name, loss in rows.items()}
                    for name, weight in weights.items():
                        losses["total"] = losses["total"] + weight * losses[name]
                    train = losses["total"] + losses["discriminator"]
                with record_function("backward"):
                    torch.autograd.backward(train / count)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0) + loss.detach() / count
        norms = {"gradient_norm": nn.utils.clip_grad_norm_(self.model.parameters(), fields.clip_norm)}
        if self.critic is not None and "discriminator" in sums:
            ceiling = self.critic.fields.clip_norm
            norms["discriminator_gradient_norm"] = nn.utils.clip_grad_norm_(self.critic.parameters(), ceiling)
        return {**sums, **norms}

    def _initialize_codebooks(self, watch: CodebookWatch, stems: Tensor) -> None:
        """Start codebooks from data, in the first step that trains them."""
        first = self.random & self.objective.quantizers.keys()
        if first and self.objective.renews_codebooks:
            watch.initialize(functools.partial(self._look_up, stems), self.fields.seed, first)
        self.random -= first

    def _critic_of_step(self) -> tuple[nn.Module | None, dict[str, float]]:
        """The discriminators, if this step trains them, and the weights of what they add to the codec's losses."""
        if self.critic is None or self.step < self.critic.start:
            return None, {}
        weights = {name: weight for name, weight in self.critic.weights.items() if self.objective.has(name)}
        if self.step < self.critic.start + self.critic.warmup:
            return (self.wrapped_critic if weights else None), dict.fromkeys(weights, 0.0)
        return (self.wrapped_critic if weights else None), weights

    def take_step(self) -> None:
        """Move the weights along the gradients, and their average after them."""
        with record_function("optimizers"):
            self._move()
        self.step += 1
        if self.step == self.first_step + self.stage.steps and self.stage_number + 1 < len(self.recipe.plan):
            # As a run that starts from the model that this stage would be exported as.
            self.model.load_state_dict(self.average.state_dict())
            self._begin(self.stage_number + 1)

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
        assert self.watch is not None
        return self.watch.renew(functools.partial(self._look_up, self.mix(batch)), seed=self.step)

    @torch.no_grad()
    def _look_up(self, stems: Tensor, observe: Observer) -> None:
        with self.processes.autocast():
            self.objective.look_up(stems, observe)

    def state(self) -> dict[str, Any]:
        """All that a checkpoint needs; to be called by all processes, of which the first one's is complete."""
        return {
            "step": self.step,
            "precision": self.processes.precision,
            "random": sorted(self.random),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "discriminators": self.critic.state_dict() if self.critic else {},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "codebooks": self.watch.state() if self.watch else {},
            "rng": torch.get_rng_state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state`.

        Raises:
            ModelError: it is that of another recipe
        """
        try:
            step = int(state["step"])
            self._begin(self.recipe.stage_of(step))
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
            if self.watch:
                self.watch.load_state(state["codebooks"])
            torch.set_rng_state(state["rng"].cpu())
            self.step = step
            # Older checkpoints say of all quantizers at once whether they began at random.
            kept = state["random"] if "random" in state else self.random if state["from_scratch"] and not step else ()
            self.random = frozenset(kept)
        except (RuntimeError, ValueError, KeyError) as error:
            raise ModelError(
                "the checkpoint does not fit the recipe: parts, optimizers, and stages that have begun, cannot change; "
                "resume with the recipe that the run was started with"
            ) from error


def _belongs(group: ParameterGroup, fields: TrainingFields) -> bool:
    """Whether a group has an optimizer of its own: matrices do where the recipe asks for Muon."""
    return fields.optimizer == "muon" or not group.muon


def _quantizers(network: nn.Module) -> frozenset[str]:
    """The part of the network that each quantizer is in that could be trained, see `Objective.quantizers`."""
    quantizers = ((name, part) for name, part in network.named_modules() if isinstance(part, MultiSourceRVQ))
    names = (name for name, part in quantizers if any(True for _ in part.parameters()))
    return frozenset(name.removesuffix("quantizer").removesuffix(".") for name in names)


def _sample_rates(recipe: Recipe) -> list[str]:
    """Of its codecs, one after the other, in Hz."""
    return [str(codec.model.sample_rate) for codec in of(recipe).codecs(recipe).values()]


def start_from(network: nn.Module, recipe: Recipe, entry: zoo.ModelEntry) -> frozenset[str]:
    """Give a network the weights of another model, as its family adopts them.

    Returns:
        the quantizers that begin anew, see `Objective.quantizers`

    Raises:
        ModelError: the other model has no weights, or other sizes
    """
    stored = weights.unpack(weights.read(zoo.weights_path(entry)))
    given, own = entry.recipe.model, recipe.model
    given_rates, own_rates = _sample_rates(entry.recipe), _sample_rates(recipe)
    others = len(given.domains) > 1 and given.domains != own.domains and not of(recipe).adopts_domains
    if own_rates[: len(given_rates)] != given_rates or others:
        raise ModelError(
            f"{entry.name}: is for {', '.join(given.domains)} at {' and '.join(given_rates)} Hz, the recipe for "
            f"{', '.join(own.domains)} at {' and '.join(own_rates)} Hz; choose another --init"
        )
    tensors = {name: torch.from_numpy(tensor) for name, tensor in stored.items()}
    wanted = {key: value.shape for key, value in network.state_dict().items()}
    found = of(recipe).adopt(network, entry.recipe, tensors)
    for key in [*wanted, *found]:
        if key not in wanted or key not in found or found[key].shape != wanted[key]:
            why = f"{key} differs in size"
            if entry.recipe.family != recipe.family:
                why = f"it is of the family {entry.recipe.family}, the recipe of {recipe.family}"
            raise ModelError(f"{entry.name}: cannot be a start for this recipe, {why}; choose another --init")
    # What a family has nothing for, it takes of the network itself.
    own_places = {key: value.data_ptr() for key, value in network.state_dict().items()}
    anew = frozenset(
        name
        for name in _quantizers(network)
        if all(
            found[key].data_ptr() == own_places[key]
            for key in wanted
            if key.startswith(f"{name}.quantizer.".lstrip("."))
        )
    )
    network.load_state_dict(found)
    return anew
