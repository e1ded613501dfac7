"""What can be recognised from features of speech: a small network is taught to tell phonemes from them.

What it makes of features of noisy speech says how much of what is said they hold, and how far that withstands noise.
Phonemes are those that the package `hama` hears in the clean speech; the probe is a few convolutions, taught by
connectionist temporal classification (CTC; Graves et al., ICML 2006), which needs to know the order of phonemes and not
their times. Its errors compare features with one another; a recogniser of full size would make fewer.

Legend: F frames, D width of features, V values of codes, B examples, C channels, P phonemes.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...progress import Progress
from .transcripts import edit_distance

if TYPE_CHECKING:
    import torch

    from ...audio import Wav

PACKAGES = ("hama", "torch")
"""What is needed, which the extra `[phonemes]` brings."""

SAMPLE_RATE = 16_000
"""Of what the teacher hears, in Hz."""

STEPS, BATCH, RATE = 800, 8, 3e-3
"""Of training: how many, examples of each, and the highest learning rate."""

CHANNELS, KERNEL, LAYERS, DROPOUT = 96, 5, 3, 0.2
"""Of the probe: a phoneme is told from 13 frames, 0.26 s at 50 frames/s."""

Features = NDArray[Any]
"""Codes, int64 `[F]`, or vectors, float16 or float32 `[F, D]`."""


@dataclass(frozen=True)
class Utterance:
    """Features of an utterance, and what is said in it."""

    features: Features
    phonemes: tuple[str, ...]


def available() -> str | None:
    """None if a probe can be taught, else a line that says what to install."""
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    return f"{missing[0]} is not installed; pip install '.[phonemes]' in the clone" if missing else None


def hear_phonemes(wav: Wav) -> tuple[str, ...]:
    """Phonemes of clean speech `[T]` at 16 kHz, as the teacher hears them."""
    return tuple(_teacher().transcribe_waveform(wav, SAMPLE_RATE).phonemes)


@functools.lru_cache
def _teacher() -> Any:
    from hama.asr import ASRModel

    return ASRModel()


class Probe:
    """A network that tells phonemes from features; see `train_probe`."""

    def __init__(self, network: Any, phonemes: Sequence[str]) -> None:
        self._network, self.phonemes = network, tuple(phonemes)

    def hear(self, features: Features) -> tuple[str, ...]:
        """The phonemes that follow one another in features."""
        import torch

        with torch.inference_mode():
            found = self._network(torch.from_numpy(features)[None])[0].argmax(-1).numpy()
        starts = np.diff(found, prepend=-1) != 0
        return tuple(self.phonemes[number - 1] for number in found[starts & (found > 0)])

    def error_rate(self, utterances: Sequence[Utterance]) -> float:
        """Edits that make what is heard of what is said, per phoneme that is said, in all utterances together.

        Raises:
            ValueError: nothing is said in them
        """
        said = sum(len(each.phonemes) for each in utterances)
        if not said:
            raise ValueError("nothing is said in these utterances")
        return sum(edit_distance(each.phonemes, self.hear(each.features)) for each in utterances) / said


def train_probe(
    utterances: Sequence[Utterance],
    *,
    num_values: int | None,
    steps: int = STEPS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Probe:
    """Teach a probe; the same utterances and seed give the same probe on the same machine.

    Args:
        utterances: to learn from, all with the same kind of features
        num_values: of codes, V; None for vectors
        steps: of training
        seed: of the weights that it starts from, and of the order of utterances
        progress: called with the steps that are done

    Raises:
        ValueError: nothing is said in any utterance that has as many frames as phonemes
    """
    import torch

    # What has more phonemes than frames cannot be told from them.
    usable = [each for each in utterances if 0 < len(each.phonemes) <= len(each.features) // 2]
    if not usable:
        raise ValueError("there is no utterance to learn from, of fewer phonemes than half of its frames")
    phonemes = sorted({phoneme for each in usable for phoneme in each.phonemes})
    number = {phoneme: index for index, phoneme in enumerate(phonemes, 1)}
    targets = [torch.tensor([number[phoneme] for phoneme in each.phonemes]) for each in usable]
    lengths = torch.tensor([len(each.features) for each in usable])
    said = torch.tensor([len(target) for target in targets])
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(usable, num_values, 1 + len(phonemes))
        optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
        loss_of = torch.nn.CTCLoss(zero_infinity=True)
        order: list[int] = []
        for step in range(steps):
            while len(order) < BATCH:
                order += rng.permutation(len(usable)).tolist()
            chosen, order = order[:BATCH], order[BATCH:]
            batch = torch.nn.utils.rnn.pad_sequence(
                [torch.from_numpy(usable[index].features) for index in chosen], batch_first=True
            )
            scores = network(batch, lengths[chosen]).transpose(0, 1)
            loss = loss_of(scores, torch.cat([targets[index] for index in chosen]), lengths[chosen], said[chosen])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if progress:
                progress(step + 1, steps)
    return Probe(network.eval(), phonemes)


def _network(utterances: Sequence[Utterance], num_values: int | None, num_outputs: int) -> Any:
    """Features `[B, F]` or `[B, F, D]`, and how many frames of each are there, to log-probabilities `[B, F, P]`.

    The first output is CTC's blank.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(CHANNELS)
            self.conv = nn.Conv1d(CHANNELS, CHANNELS, KERNEL, padding=KERNEL // 2)
            self.drop = nn.Dropout(DROPOUT)

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.conv(self.norm(hidden).transpose(1, 2)).transpose(1, 2)
            heard: torch.Tensor = self.drop(functional.gelu(found))
            return hidden + heard

    class Network(nn.Module):
        mean: torch.Tensor
        scale: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            if num_values is None:
                # Latents of different models differ in scale, which no probe should have to learn.
                count = sum(len(each.features) for each in utterances)
                mean = sum(each.features.sum(0, dtype=np.float64) for each in utterances) / count
                square = sum(np.square(each.features, dtype=np.float64).sum(0) for each in utterances) / count
                scale = 1 / np.sqrt(np.maximum(square - mean**2, 1e-10))
                self.register_buffer("mean", torch.from_numpy(mean.astype(np.float32)))
                self.register_buffer("scale", torch.from_numpy(scale.astype(np.float32)))
                self.enter: nn.Module = nn.Linear(len(mean), CHANNELS)
            else:
                self.enter = nn.Embedding(num_values, CHANNELS)
            self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
            self.leave = nn.Sequential(nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, num_outputs))

        def forward(self, features: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
            hidden = self.enter(features.long() if num_values else (features.float() - self.mean) * self.scale)
            if lengths is not None:
                there = torch.arange(features.shape[1]) < lengths[:, None]
                hidden = hidden * there[..., None]
            for block in self.blocks:
                hidden = block(hidden) if lengths is None else block(hidden) * there[..., None]
            scores: torch.Tensor = self.leave(hidden)
            return scores.log_softmax(-1)

    return Network()
