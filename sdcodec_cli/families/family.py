"""What is particular to one kind of model, behind one interface.

A family says which tables its recipes have, how its networks are built, what a runtime runs of them, what they lose in
training and what may be a start for them. Torch is imported inside of functions: recipes are read, and models run in
ONNX Runtime, without it.

Legend: B batch, N domains, T samples, F frames, K codebooks, D latent width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from ..recipe import Recipe, ReferenceFields, Residual, SemanticFields, StageFields

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from ..nn.objectives import Choices, Critic, Estimate, Objective, ParameterGroup
    from ..nn.tracing import GraphPart

R = TypeVar("R", bound=Recipe)


@dataclass(frozen=True)
class Stream:
    """The codes of one quantizer."""

    name: str
    stem: str
    """Whose audio it adds to."""
    num_codebooks: int
    num_shared: int
    """How many of the last codebooks other streams have, too."""
    codebook_size: int
    frame_rate: float
    """Frames per second."""
    groups: tuple[int, ...] = ()
    """Codebooks that files store together, those of the first group first; by default groups of four."""
    num_semantic: int = 0
    """How many of the first codebooks were taught what is said; the others then hold how it sounds."""

    @property
    def codebook_bitrate(self) -> float:
        """Of one codebook, in kbit/s."""
        return (self.codebook_size - 1).bit_length() * self.frame_rate / 1000

    @property
    def bitrate(self) -> float:
        """Of all codebooks, in kbit/s."""
        return self.num_codebooks * self.codebook_bitrate


@dataclass(frozen=True)
class Codebooks:
    """What the codes of a stream stand for, of K codebooks."""

    entries: np.ndarray
    """Of V entries each, `[K, V, d]`."""
    weights: np.ndarray
    """That bring an entry to the latent, `[K, D, d]`."""
    biases: np.ndarray
    """`[K, D]`"""

    def latent(self, codes: np.ndarray, there: np.ndarray | None = None, *, first: int = 0) -> np.ndarray:
        """What codes add to the quantized latent, `[K, F]` to `[F, D]`.

        Args:
            codes: of some codebooks, one after another
            there: which of them count, in the same shape; by default all
            first: which codebook they begin with
        """
        import numpy as np

        latent = np.zeros((codes.shape[1], self.biases.shape[1]), dtype=np.float32)
        for number, row in enumerate(codes):
            codebook = first + number
            added = (self.entries[codebook] @ self.weights[codebook].T + self.biases[codebook])[row]
            latent += added if there is None else np.where(there[number][:, None], added, 0)
        return latent


@dataclass(frozen=True)
class Teaching:
    """That a teacher says what the codes of a domain should hold."""

    fields: SemanticFields
    domain: str
    hop_length: int
    """Samples of a frame about which it is asked."""


class Family(ABC, Generic[R]):
    """One kind of model; an instance of each is called FAMILY in its module."""

    recipe: type[R]
    """Its recipes."""
    adopts_domains: ClassVar[bool] = False
    """Whether `adopt` takes weights of a model of several other domains."""
    weight_norm: ClassVar[bool] = False
    """Whether convolutions are trained in magnitude and direction (arXiv:1602.07868)."""
    parts: ClassVar[tuple[str, ...]]
    """Parts of its networks that runtimes run, see `GraphPart`."""
    decoding: ClassVar[tuple[str, ...]] = ()
    """How the names of weights begin that decode codes, those that define the codes first."""
    for_training: ClassVar[tuple[str, ...]] = ()
    """How the names of weights begin that training alone needs."""
    sizes: ClassVar[tuple[str, ...]]
    """What a runtime has to know of a network beside its recipe, such as its context in frames."""

    def codecs(self, recipe: R) -> dict[str, Recipe]:
        """The networks that a runtime runs one after the other, by how the names of their weights begin; usually one.

        Each has a recipe by itself, of a family with `parts`.
        """
        return {"": recipe}

    def references(self, recipe: R) -> dict[str, ReferenceFields]:
        """Those of `codecs` that are models by themselves, with weights and graphs elsewhere; usually none."""
        return {}

    def residuals(self, recipe: R) -> tuple[Residual, ...]:
        """What each of `codecs` codes, see `BranchFields.residual`."""
        return tuple("whole" for _ in self.codecs(recipe))

    @abstractmethod
    def streams(self, recipe: R) -> tuple[Stream, ...]:
        """The code streams of a model; none of one that separates and does not code."""

    @abstractmethod
    def build(self, recipe: R) -> nn.Module:
        """The network that a recipe describes, with random weights."""

    @abstractmethod
    def modules(self, network: Any, recipe: R) -> dict[str, nn.Module]:
        """What a runtime runs, by the names of `parts`: modules on the network's weights, from tensors to tensors."""

    @abstractmethod
    def graph_parts(self, network: Any, recipe: R) -> dict[str, GraphPart]:
        """The same with what it takes to write them down as graphs."""

    @abstractmethod
    def measured(self, network: Any, recipe: R) -> dict[str, int]:
        """The `sizes` of a network."""

    @abstractmethod
    def adopt(self, network: Any, given: Recipe, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights to start a network from, out of those of another model.

        Args:
            network: to be started
            given: recipe of the other model
            tensors: its weights

        Returns:
            what the network has by the same names, perhaps of other shapes where it does not fit
        """

    @abstractmethod
    def choose(self, active: np.ndarray, recipe: R, indices: range) -> Choices:
        """Random choices of the examples of these numbers, of which `active` `[B, N]` tells the domains."""

    @abstractmethod
    def objective(self, network: Any, recipe: R, stage: StageFields) -> Objective:
        """The network with the losses of a stage."""

    def teaching(self, recipe: R) -> Teaching | None:
        """What a teacher has to say in training, if the recipe has one."""
        return None

    def codebooks(self, recipe: R, weights: Mapping[str, np.ndarray]) -> tuple[Codebooks, ...]:
        """What the codes of each of `streams` stand for; nothing for families that do not say."""
        return ()

    def critic(self, recipe: R) -> Critic | None:
        """Discriminators that are trained along, if the recipe has any."""
        return None

    def parameter_groups(self, network: Any, recipe: R) -> Sequence[ParameterGroup]:
        """Parameters that are not trained like all others."""
        return ()

    def compiled(self, network: Any) -> Sequence[nn.Module]:
        """Where `torch.compile` gains something."""
        return (network,)

    @abstractmethod
    def estimates(self, network: Any, recipe: R, stems: Tensor) -> list[Estimate]:
        """What validation compares: stems `[B, N, T]`, and what the network makes of them."""
