"""How likely each code of a stream is, from codes before it: the network behind range-coded codes, in training.

It is trained in floating point and then written down in whole numbers, which `prediction` computes with; there its
context is described.

Legend: K codebooks, V entries, w width of an entry, B segments, F frames, M lags, H hidden units, P branches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

LAGS = 4
"""Frames that a code's context reaches over, its own included."""

NUM_UNITS = 48
"""In the second layer; the first has as many as all entries of a frame have coordinates."""

QUERY_WIDTH = 16
"""Of what entries are compared with."""

LARGEST = 127
"""What stands for one in whole numbers, and the largest weight of branches and leaves."""

FINEST = 1023
"""The largest other weight: most are so small that steps of a 64th would lose a tenth of what tables save."""

ROOM = 1 << 23
"""Below which all sums stay, biases not counted; half of what is exact, see `prediction`."""

SHARPNESS = 8.0
"""Logits are products with queries of up to this length in each coordinate."""

STEPS_PER_BIT = 16
"""Logits in whole numbers are multiples of a bit over this."""

RIDGE = 1e-2
"""Added to the variance of what the first layer is fitted to."""


def frequencies() -> NDArray[np.int16]:
    """Of values 0, 1, 2 … steps less likely than the likeliest, until they are one: `weights` in the tables."""
    steps = np.arange(11 * STEPS_PER_BIT + 1)
    return np.maximum(1, np.rint(2048 * 0.5 ** (steps / STEPS_PER_BIT))).astype(np.int16)


def tree(vectors: NDArray[np.float32], num_branches: int) -> NDArray[np.int64]:
    """An order `[V]` of entries `[V, w]` in which the V / P leaves of each branch are alike.

    Halves are halved along their direction of largest variance, until they are branches.
    """

    def halves(entries: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
        if count == 1:
            return [entries]
        own = vectors[entries] - vectors[entries].mean(0)
        direction = np.linalg.svd(own, full_matrices=False)[2][0]
        ordered = entries[np.argsort(own @ direction, kind="stable")]
        middle = len(ordered) // 2
        return halves(ordered[:middle], count // 2) + halves(ordered[middle:], count // 2)

    return np.concatenate(halves(np.arange(len(vectors)), num_branches))


class CodePredictor(nn.Module):
    """The network of one stream.

    Args:
        vectors: entries of its codebooks, `[K, V, w]`; V is a power of two
        groups: codebooks of each layer group
    """

    def __init__(self, vectors: NDArray[np.float32], groups: Sequence[int]) -> None:
        super().__init__()
        num_codebooks, num_entries, width = vectors.shape
        if num_entries & num_entries - 1:
            raise ValueError(f"tables are for codebooks of 2, 4, 8 … entries, not {num_entries}")
        self.num_branches = 1 << (num_entries.bit_length() - 1 + 1) // 2
        self.num_leaves = num_entries // self.num_branches
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
        self.order = np.stack([tree(each, self.num_branches) for each in unit])
        self._places = torch.from_numpy(self.order.argsort(1))
        placed = torch.from_numpy(np.take_along_axis(unit, self.order[..., None], 1)).float()
        self._vectors = placed
        # Entries near each other are alike at first, by what is linear and quadratic in their coordinates.
        low, high = torch.triu_indices(width, width)
        shape = torch.cat([placed, placed[..., low] * placed[..., high]], -1)
        self._shape = shape
        self._branch_shape = shape.unflatten(1, (self.num_branches, -1)).mean(2)
        self._num_units, query = num_codebooks * width, max(QUERY_WIDTH, width)
        last = torch.tensor(np.cumsum(groups) - 1).repeat_interleave(torch.tensor(groups))
        codebooks = torch.arange(num_codebooks)
        self._below = (codebooks < codebooks[:, None]).float()
        self._in_reach = (codebooks <= last[:, None]).float()

        def random(*size: int, scale: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(size) * scale)

        self.past = nn.Parameter(torch.zeros(num_codebooks, width, LAGS, self._num_units))
        self.past_bias = nn.Parameter(torch.full((num_codebooks, self._num_units), 0.5))
        self.hidden = random(num_codebooks, self._num_units, NUM_UNITS, scale=0.4 / math.sqrt(self._num_units))
        self.hidden_bias = nn.Parameter(torch.full((num_codebooks, NUM_UNITS), 0.3))
        self.query = random(num_codebooks, NUM_UNITS, query, scale=0.1 / math.sqrt(NUM_UNITS))
        self.query_bias = nn.Parameter(torch.zeros(num_codebooks, query))
        self.branch_map = random(num_codebooks, shape.shape[-1], query, scale=0.02)
        self.leaf_map = random(num_codebooks, shape.shape[-1], query, scale=0.02)
        self.branches = nn.Parameter(torch.zeros(num_codebooks, self.num_branches, query))
        self.branches_bias = nn.Parameter(torch.zeros(num_codebooks, self.num_branches))
        self.leaves = nn.Parameter(torch.zeros(num_codebooks, num_entries, query))
        self.leaves_bias = nn.Parameter(torch.zeros(num_codebooks, num_entries))

    @property
    def of_entries(self) -> list[nn.Parameter]:
        """What each entry has of its own, beside its coordinates: held small, because an entry is seen seldom."""
        return [self.branches, self.branches_bias, self.leaves, self.leaves_bias]

    def places(self, codes: NDArray[np.int64]) -> Tensor:
        """Codes of segments `[B, K, F]` as places in the order of entries."""
        return self._places[np.arange(codes.shape[1])[:, None], torch.from_numpy(codes)]

    @torch.no_grad()
    def fit(self, places: Tensor) -> None:
        """Begin with what least squares tell: coordinates of each code from those in its context, `[B, K, F]`."""
        num_codebooks, width = self._vectors.shape[0], self._vectors.shape[-1]
        size = num_codebooks * width
        moments = torch.zeros(LAGS * size, LAGS * size, dtype=torch.float64)
        for some in places.split(64):
            frames = self._entries(some).permute(1, 2, 0, 3).flatten(2)  # [B, F, K * w]
            lagged = [F.pad(frames, (0, 0, lag, 0))[:, : frames.shape[1]] for lag in range(LAGS)]
            rows = torch.cat(lagged, -1).flatten(0, 1)
            moments += (rows.T @ rows).double() / (places.shape[0] * places.shape[2])
        coordinates = torch.arange(size).unflatten(0, (num_codebooks, width))
        for codebook in range(num_codebooks):
            reach = coordinates[self._in_reach[codebook] > 0].flatten()
            known = torch.cat([coordinates[:codebook].flatten(), *(lag * size + reach for lag in range(1, LAGS))])
            wanted = coordinates[codebook]
            ridge = RIDGE / width * torch.eye(len(known), dtype=torch.float64)
            solution = torch.linalg.solve(moments[known][:, known] + ridge, moments[known][:, wanted])
            whole = torch.zeros(LAGS * size, width)
            whole[known] = solution.float()
            self.past[:, :, :, wanted] = whole.view(LAGS, num_codebooks, width, width).permute(1, 2, 0, 3)
            # What is predicted passes through, by the first units of each layer.
            straight = torch.eye(width)
            self.hidden[codebook, :, :width] = 0
            self.hidden[codebook, wanted, :width] = straight
            self.hidden_bias[codebook, :width] = 0
            self.query[codebook, :, :width] = 0
            self.query[codebook, :width] = 0
            self.query[codebook, :width, :width] = straight
            self.query_bias[codebook, :width] = -0.5
            for mapped in (self.branch_map, self.leaf_map):
                mapped[codebook, :, :width] = 0
                mapped[codebook, :width] = 0
                mapped[codebook, :width, :width] = straight

    def bits(self, places: Tensor) -> Tensor:
        """What codes of segments cost, `[K, B, F]` in bits, from places `[B, K, F]`."""
        num_codebooks = places.shape[1]
        queries = SHARPNESS * self._queries(places)
        flat = places.transpose(0, 1).flatten(1)
        branch, leaf = flat // self.num_leaves, flat % self.num_leaves
        logits = torch.baddbmm(self.branches_bias[:, None], queries, self._branches().transpose(1, 2))
        loss = F.cross_entropy(logits.flatten(0, 1), branch.flatten(), reduction="none")
        rows = (branch + torch.arange(num_codebooks)[:, None] * self.num_branches).flatten()
        leaves = F.embedding(rows, self._leaves().view(-1, self.num_leaves * queries.shape[-1]))
        # The product as a sum: a batch of products of one row each takes three times as long.
        logits = (leaves.unflatten(1, (self.num_leaves, -1)) * queries.flatten(0, 1)[:, None]).sum(-1)
        logits = logits + F.embedding(rows, self.leaves_bias.view(-1, self.num_leaves))
        loss = loss + F.cross_entropy(logits, leaf.flatten(), reduction="none")
        return (loss / math.log(2)).view(num_codebooks, places.shape[0], places.shape[2])

    def whole_numbers(self) -> dict[str, NDArray[np.integer]]:
        """The tensors of a stream in the tables, see `docs/format.md`."""
        products: dict[str, Tensor] = {"past": self.past, "hidden": self.hidden, "query": self.query}
        per_step = SHARPNESS / LARGEST * STEPS_PER_BIT / math.log(2)
        products |= {"branches": self._branches() * per_step, "leaves": self._leaves() * per_step}
        biases = {key: getattr(self, f"{key}_bias") * LARGEST for key in ("past", "hidden", "query")}
        biases |= {key: getattr(self, f"{key}_bias") * STEPS_PER_BIT / math.log(2) for key in ("branches", "leaves")}
        found: dict[str, NDArray[np.integer]] = {"order": self.order.astype(np.int32)}
        found["vectors"] = (self._vectors * LARGEST).round().to(torch.int8).numpy()
        shifts = []
        summed = {"past": [0, 1, 2], "hidden": [1], "query": [1], "branches": [2], "leaves": [2]}  # axes of each
        for key, product in products.items():
            largest = LARGEST if key in ("branches", "leaves") else FINEST
            size = product.detach().abs()
            room = ROOM / LARGEST / float(size.sum(summed[key]).max().clamp_min(1e-9))
            finest = min(room, largest / float(size.max().clamp_min(1e-9)))
            shifts.append(max(0, min(12, math.floor(math.log2(finest)))))
            scale = 2.0 ** shifts[-1]
            whole = (product.detach() * scale).round().clamp(-largest, largest)
            whole = whole.to(torch.int8 if largest == LARGEST else torch.int16)
            found[key] = np.ascontiguousarray(
                {"past": whole.movedim(2, 0), "branches": whole.mT}.get(key, whole).numpy()
            )
            # A half more: what follows rounds down.
            found[f"{key}_bias"] = ((biases[key].detach() + 0.5) * scale).round().to(torch.int32).numpy()
        found["shifts"] = np.array(shifts, dtype=np.int32)
        return found

    def _branches(self) -> Tensor:
        return self.branches + self._branch_shape @ self.branch_map

    def _leaves(self) -> Tensor:
        return self.leaves + self._shape @ self.leaf_map

    def _entries(self, places: Tensor) -> Tensor:
        """Coordinates of codes, `[K, B, F, w]`."""
        num_codebooks, num_entries = self._vectors.shape[:2]
        rows = places.transpose(0, 1) + torch.arange(num_codebooks)[:, None, None] * num_entries
        return F.embedding(rows, self._vectors.flatten(0, 1))

    def _queries(self, places: Tensor) -> Tensor:
        """`[K, B * F, d]`"""
        entries = self._entries(places)
        shape = entries.shape[:3]
        added = torch.bmm(entries.flatten(1, 2), self.past.flatten(2)).view(*shape, LAGS, -1)
        sums = (self._below @ added[..., 0, :].reshape(shape[0], -1)).view(*shape, -1)
        before = (self._in_reach @ added[..., 1:, :].reshape(shape[0], -1)).view(*shape, LAGS - 1, -1)
        for lag in range(1, LAGS):
            sums = sums + F.pad(before[:, :, :-lag, lag - 1], (0, 0, lag, 0))
        units = (sums.flatten(1, 2) + self.past_bias[:, None]).clamp(0, 1)
        units = torch.baddbmm(self.hidden_bias[:, None], units, self.hidden).clamp(0, 1)
        return torch.baddbmm(self.query_bias[:, None], units, self.query).clamp(-1, 1)
