"""What an SD-Codec loses: choices, outputs and losses of an example.

Legend: B batch, N domains, T samples, F frames, D latent width, S stems, M mixtures, Z silent outputs, R = S + M + Z.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...audio import bands
from ...audio.activity import ABOVE_LEVEL, LEVEL
from ...recipe import CodecTrainingFields, StageFields
from ..distances import band_negative_snr, level_distance, mel_distance, negative_snr
from ..envelope import with_envelope
from ..projection import overlap
from ..quantize import MultiSourceRVQ, Observer
from ..sdcodec import SDCodec
from .objective import Choices, Estimate, Objective
from .terms import (
    activity_targets,
    draw,
    draw_scales,
    frame_activity,
    has_anything,
    leakage,
    masked_negative_snr,
    teaching,
)

CHOICES = 1
"""Sub-sequence of an example's random numbers for what is chosen here; mixing uses the first."""


@dataclass(frozen=True)
class CodecChoices(Choices):
    """What is decoded from which latents, and how coarsely they are quantized."""

    keep: Tensor
    """Quantizer dropout: codebooks that each domain of each example uses, int64 `[N, B]`."""
    sources: Tensor
    """Example from which each mixture takes each domain, int64 `[N, B]`; usually its own."""
    stems: Tensor
    """Example and domain of each stem that is decoded, int64 `[2, S]`."""
    mixtures: Tensor
    """Examples whose mixture is decoded, that is of two domains or more, int64 `[M]`."""
    silent: Tensor
    """Example and domain of outputs that should be silent, int64 `[2, Z]`."""


def choose(active: np.ndarray, fields: CodecTrainingFields, num_codebooks: int, indices: range) -> CodecChoices:
    """The choices for examples of which `active` `[B, N]` tells the domains.

    With `swap_probability` two neighbouring examples exchange some of their domains before they are added up, which
    teaches latents to add up whatever they come from (arXiv:2102.05245).
    """
    batch, domains = active.shape
    keep = np.full((domains, batch), num_codebooks)
    sources = np.tile(np.arange(batch), (domains, 1))
    decode_silence, decode_stems = np.zeros_like(active), active.copy()
    for row, index in enumerate(indices):
        rng = np.random.default_rng([fields.seed, index, CHOICES])
        dropped = rng.random(domains) < fields.quantizer_dropout
        keep[:, row] = np.where(dropped, rng.integers(1, num_codebooks + 1, domains), num_codebooks)
        decode_silence[row] = ~active[row] & (rng.random(domains) < fields.silence_probability)
        exchanged = (rng.random() < fields.swap_probability) & (rng.random(domains) < 0.5)
        if active[row].sum() > 1:
            decode_stems[row] &= rng.random() < fields.stem_probability
        if row % 2 == 0 and row + 1 < batch:
            sources[exchanged, row], sources[exchanged, row + 1] = row + 1, row
    several = np.take_along_axis(active.T, sources, axis=1).sum(0) > 1
    return CodecChoices(
        active=torch.from_numpy(active),
        keep=torch.from_numpy(keep),
        sources=torch.from_numpy(sources),
        stems=torch.from_numpy(np.stack(decode_stems.nonzero())),
        mixtures=torch.from_numpy(several.nonzero()[0]),
        silent=torch.from_numpy(np.stack(decode_silence.nonzero())),
    )


class CodecObjective(Objective):
    """An SD-Codec with its losses.

    Args:
        network: the codec
        fields: weights of the losses
        stage: which of them count
        sample_rate: of the stems, in Hz
        band_start: frequency in Hz below which they have nothing
        probabilities: whether a teacher says these, see `terms.teaching`
    """

    network: SDCodec

    def __init__(
        self,
        network: SDCodec,
        fields: CodecTrainingFields,
        stage: StageFields,
        sample_rate: int,
        *,
        band_start: float = 0.0,
        probabilities: bool = False,
    ) -> None:
        super().__init__(network, stage.losses)
        self.fields, self.sample_rate, self.band_start = fields, sample_rate, band_start
        self._probabilities = probabilities
        self._decodes = self.named != {"activity"}
        self._quantizer_moves = not stage.parts or "quantizer" in stage.parts

    @property
    def renews_codebooks(self) -> bool:
        """See `Objective.renews_codebooks`."""
        return self._quantizer_moves and self.fields.codebook_renewal

    @property
    def exchanges(self) -> bool:
        """See `Objective.exchanges`."""
        return self.fields.swap_probability > 0

    @property
    def quantizers(self) -> dict[str, MultiSourceRVQ]:
        """See `Objective.quantizers`."""
        return {"": self.network.quantizer} if self._quantizer_moves else {}

    def forward(self, stems: Tensor, choices: CodecChoices, observe: Observer | None = None) -> dict[str, Tensor]:
        """From stems `[B, N, T]` to

        - `decoded`: stems, mixtures and silent outputs in the order of `choices`, `[R, T]`
        - `codebook`, `commitment`: of each domain and example, `[N, B]`
        - `activity`: logits `[B, N, F]`, where the model has the head
        - `orthogonality`: see `projection.overlap`, `[B]`, where it counts
        - `semantic`: what the first codebook tells of speech, and would without being looked up, `[2, B, F, H]`, where
          a teacher counts
        """
        latent = self.network.encode(stems.sum(1)[:, None])
        logits = self.network.activity_logits(latent) if self.has("activity") else None
        outputs = {} if logits is None else {"activity": logits.float()}
        if not self._decodes:
            return outputs
        projected = self.network.project(latent)
        if self.has("orthogonality", self.fields.orthogonality_weight):
            outputs["orthogonality"] = overlap(projected)
        taught = self.network.semantic is not None and self.has("semantic")
        quantized = self.network.quantizer(projected, keep=choices.keep, observe=observe, first=taught)
        if self.network.semantic is not None and quantized.first is not None:
            speech = quantized.first[:, self.network.domains.index("speech")]
            outputs["semantic"] = self.network.semantic(speech.transpose(2, 3)).float()
        decoded = self.network.decode(decoded_rows(quantized.latents, choices))
        return {
            "decoded": decoded.squeeze(1).float()[..., : stems.shape[-1]],
            "codebook": quantized.codebook_loss,
            "commitment": quantized.commitment_loss,
            **outputs,
        }

    def losses(self, outputs: dict[str, Tensor], stems: Tensor, choices: CodecChoices, step: int) -> dict[str, Tensor]:
        """See `Objective.losses`."""
        losses = self.terms(outputs, stems, choices, step)
        return {"total": self.total(losses), **losses}

    def terms(self, outputs: dict[str, Tensor], stems: Tensor, choices: CodecChoices, step: int) -> dict[str, Tensor]:
        """The losses by name, without weights."""
        fields, batch = self.fields, len(stems)
        losses: dict[str, Tensor] = {}
        if "decoded" in outputs:
            wanted, audible = self.compared(outputs, stems, choices)
            silent = outputs["decoded"][len(wanted) :]
            examples, _ = choices.stems
            if draw(fields.envelope_probability, seed=fields.seed, step=step):
                hop = self.network.hop_length
                unit = bands.frames_per_gain(self.sample_rate, hop) * hop
                length = audible.shape[-1] // unit * unit
                audible, wanted = audible[:, :length], wanted[:, :length]
                audible = with_envelope(
                    audible, wanted, hop_length=hop, sample_rate=self.sample_rate, share=bands.SHARE
                )
            scales = draw_scales(fields.mel_scales_per_step, seed=fields.seed, step=step)
            distance = mel_distance(
                audible, wanted, sample_rate=self.sample_rate, scales=scales, lowest=self.band_start
            )
            losses["mel"] = self._total_of_rows(distance, wanted) / batch
            losses["snr"] = self._total_of_rows(negative_snr(audible, wanted), wanted) / batch
            for name in ("codebook", "commitment"):
                losses[name] = (outputs[name] * choices.active.T).sum() / batch
            if self.has("band_snr", fields.band_snr_weight):
                ratio = band_negative_snr(audible, wanted, sample_rate=self.sample_rate)
                losses["band_snr"] = ratio.sum() / batch
            if self.has("level", fields.level_weight):
                losses["level"] = level_distance(audible, wanted, sample_rate=self.sample_rate).sum() / batch
            if self.has("mask", fields.mask_weight) and len(examples):
                masked = masked_negative_snr(audible[: len(examples)], wanted[: len(examples)], examples, batch)
                losses["mask"] = masked.sum() / batch
            mixtures = stems.sum(1).index_select(0, choices.silent[0])
            losses["leakage"] = self._total_of_rows(leakage(silent, mixtures), mixtures) / batch
        if "orthogonality" in outputs:
            losses["orthogonality"] = outputs["orthogonality"].sum() / batch
        if "semantic" in outputs:
            assert choices.guide is not None
            speech = stems[:, self.network.domains.index("speech")]
            active = frame_activity(speech, self.network.hop_length)
            told = [
                teaching(each, choices.guide, active, probabilities=self._probabilities).sum() / batch
                for each in outputs["semantic"]
            ]
            losses["semantic"] = (told[0] + told[1]) / 2
        if "activity" in outputs:
            # What is above a band is quieter than what is below by some 30 dB.
            level = ABOVE_LEVEL if self.band_start else LEVEL
            wanted_activity = activity_targets(stems, self.network.hop_length, level=level)
            losses["activity"] = F.binary_cross_entropy_with_logits(outputs["activity"], wanted_activity)
        return losses

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of `terms`."""
        return torch.stack([self._weight(name) * loss for name, loss in losses.items()]).sum()

    def _weight(self, term: str) -> float:
        loss = "snr" if term == "leakage" else term
        weight: float = getattr(self.fields, f"{loss}_weight")
        return weight if self.has(loss) else 0.0

    def compared(self, outputs: dict[str, Tensor], stems: Tensor, choices: CodecChoices) -> tuple[Tensor, Tensor]:
        """Stems and mixtures as they should be and as they were decoded, `[S + M, T]` each."""
        examples, domains = choices.stems
        taken = choices.sources[:, choices.mixtures]
        mixtures = torch.stack([stems[:, n].index_select(0, taken[n]) for n in range(stems.shape[1])]).sum(0)
        wanted = torch.cat([stems[examples, domains], mixtures])
        return wanted, outputs["decoded"][: len(wanted)]

    def _total_of_rows(self, losses: Tensor, references: Tensor) -> Tensor:
        """Sum of losses `[R]`, without those of rows whose reference `[R, T]` has nothing, where that may be.

        A file of a high rate may have nothing above a band. Nothing is coded there then, and a ratio to nothing has
        gradients a thousand times as large as others.
        """
        return (losses * has_anything(references)).sum() if self.band_start else losses.sum()

    def look_up(self, stems: Tensor, observe: Observer) -> None:
        """See `Objective.look_up`."""
        self.network.quantize(self.network.encode(stems.sum(1)[:, None]), observe=observe)


def decoded_rows(latents: Tensor, choices: CodecChoices) -> Tensor:
    """What is decoded: latents of each domain `[N, B, D, F]` to `[R, D, F]`."""
    examples, domains = choices.stems
    silent_examples, silent_domains = choices.silent
    gated = latents * choices.active.T[..., None, None]
    taken = choices.sources[:, choices.mixtures]
    mixed = torch.stack([gated[n].index_select(0, taken[n]) for n in range(len(latents))]).sum(0)
    return torch.cat([latents[domains, examples], mixed, latents[silent_domains, silent_examples]])


def estimates(network: SDCodec, stems: Tensor) -> list[Estimate]:
    """The mix, each stem coded alone, and each stem decoded out of the mix; stems are `[B, N, T]`."""
    mixtures = stems.sum(1)
    out = {name: wav[:, 0] for name, wav in network(mixtures[:, None]).items()}
    found = [Estimate("mix", out["mix"], mixtures)]
    for n, domain in enumerate(network.domains):
        latents = network.quantize(network.encode(stems[:, n, None])).latents[n]
        alone = network.decode(latents)[:, 0, : mixtures.shape[-1]]
        found.append(Estimate(domain, alone, stems[:, n], shown=False))
        found.append(Estimate(f"{domain} separated", out[domain], stems[:, n]))
    return found
