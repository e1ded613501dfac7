"""What each system makes of a clip: every estimate that is measured, with the signal it should be.

Legend: N domains, K codebooks, V entries, F frames, T samples.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from ...audio.activity import active_frames
from ..codec import Codec, Codes
from ..compress import compress
from ..separate import DEFAULT_VIEWS, separate_wav
from ..stream import SEGMENT_FRAMES
from .peers import Peer
from .types import Clip, Task, Wav

SILENT = 1e-8
"""Mean square below which a stem is not there."""


@dataclass(frozen=True)
class Estimate:
    """What a system made of something."""

    task: Task
    system: str
    stem: str
    estimate: Wav
    reference: Wav
    through: str | None = None
    mixture: Wav | None = None
    """What a separation is measured against."""
    bitrate: float | None = None
    """In kbit/s."""


@dataclass
class Observations:
    """What a model showed of itself besides audio; those of all clips add up."""

    usage: NDArray[np.int64]
    """How often each codebook entry was taken, by codes that are stored: `[N, K, V]`."""
    activity: dict[str, list[int]] = field(default_factory=dict)
    """By signal and domain (`mix speech`, `stem speech`): segments rejected, false, missed, right."""
    audio_seconds: float = 0.0
    file_bytes: int = 0
    """Of the mixtures' `.sdc` files."""

    def add(self, other: Observations) -> None:
        """Take those of another clip in."""
        self.usage += other.usage
        for key, counts in other.activity.items():
            mine = self.activity.setdefault(key, [0, 0, 0, 0])
            self.activity[key] = [a + b for a, b in zip(mine, counts, strict=True)]
        self.audio_seconds += other.audio_seconds
        self.file_bytes += other.file_bytes


def no_observations(codec: Codec) -> Observations:
    """None yet."""
    shape = (len(codec.domains), codec.num_codebooks, codec.model.streams[0].codebook_size)
    return Observations(np.zeros(shape, dtype=np.int64))


def estimates_of_model(
    codec: Codec,
    clip: Clip,
    *,
    bitrate: float | None = None,
    views: int = DEFAULT_VIEWS,
    own: bool,
    seen: Observations | None = None,
) -> Iterator[Estimate]:
    """A model with one quantizer per domain, as the paper evaluates it but for the number of views.

    Args:
        codec: the model
        clip: to be coded
        bitrate: per domain, in kbit/s; the model's full rate by default. Masks are made of all codebooks
        views: of the mixture, whose masks are averaged, see `separate`
        own: also what only the model under test is asked for: each stem through the other domains' quantizers, and
            through the whole system
        seen: what else is observed is added to this
    """
    name, mix = codec.name, clip.mix
    levels = codec.codebooks_for(bitrate)
    codes = codec.encode(mix, num_codebooks=levels)
    decoded = codec.decode(codes)
    yield Estimate("resynthesis", name, "mix", decoded, clip.mix, bitrate=codec.stored_bitrate(codes))
    stems = [codec.decode(codes, stem=domain) for domain in codec.domains]
    masked = separate_wav(mix[None], codec=codec, views=views)[:, 0]
    for index, domain in enumerate(codec.domains):
        for task, found in (("separation", stems), ("masked separation", masked)):
            yield Estimate(task, name, domain, found[index], clip.stems[domain], mixture=clip.mix)  # type: ignore[arg-type]
    for domain in codec.domains:
        reference = clip.stems[domain]
        if is_silent(reference):
            continue
        only = codec.encode(reference, num_codebooks=levels, active=[domain])
        estimate = codec.decode(only, stem=domain)
        yield Estimate("resynthesis", name, domain, estimate, reference, bitrate=codec.stored_bitrate(only))
        if own:
            # What a quantizer lets through by itself: analysis by synthesis would force the wrong ones.
            plain = codec.at_effort(0)
            everywhere = plain.encode(reference, num_codebooks=levels, active=codec.domains)
            for through in codec.domains:
                estimate = codec.decode(everywhere, stem=through)
                yield Estimate("cross", name, domain, estimate, reference, through=through)
            alone = codec.encode(reference, num_codebooks=levels)
            whole = codec.decode(alone)
            yield Estimate("whole", name, domain, whole, reference, bitrate=codec.stored_bitrate(alone))
            if seen is not None:
                nothing = np.zeros_like(reference)
                _observe_activity(
                    seen, codec, "stem", alone, {d: reference if d == domain else nothing for d in codec.domains}
                )
    if seen is not None:
        _observe_activity(seen, codec, "mix", codes, clip.stems)
        _observe_usage(seen, codec, codes)
        seen.audio_seconds += len(clip.mix) / codec.sample_rate
        seen.file_bytes += _file_size(codec, clip.mix, bitrate)


def estimates_of_peer(peer: Peer, clip: Clip, sample_rate: int) -> Iterator[Estimate]:
    """A codec that knows no domains: the mixture and each stem through it."""
    for stem, reference in {"mix": clip.mix, **clip.stems}.items():
        if not is_silent(reference):
            estimate, bitrate = peer.resynthesize(reference, sample_rate)
            yield Estimate("resynthesis", peer.name, stem, estimate, reference, bitrate=bitrate)


def estimates_of_mixture(clip: Clip) -> Iterator[Estimate]:
    """The unprocessed mixture, as an estimate of every stem."""
    for stem, reference in clip.stems.items():
        yield Estimate("separation", "mixture", stem, clip.mix, reference, mixture=clip.mix)


def is_silent(wav: Wav) -> bool:
    """Whether there is nothing to be measured."""
    return float(np.square(wav).mean()) < SILENT


def _file_size(codec: Codec, wav: Wav, bitrate: float | None) -> int:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "mix.wav", Path(folder) / "mix.sdc"
        soundfile.write(source, wav, codec.sample_rate, subtype="PCM_16")
        compress(source, target, codec=codec, bitrate=bitrate)
        return target.stat().st_size


def _observe_usage(seen: Observations, codec: Codec, codes: Codes) -> None:
    for index, domain in enumerate(codec.domains):
        kept = codes.codes[domain][0][:, codes.active[domain][0]]
        for level, found in enumerate(kept):
            seen.usage[index, level] += np.bincount(found, minlength=seen.usage.shape[-1])


def _observe_activity(seen: Observations, codec: Codec, signal: str, codes: Codes, stems: Mapping[str, Wav]) -> None:
    """Compare the segments that `codes` have of one signal with the stems that it is made of."""
    gain = 10 ** (float(codes.gain_db[0]) / 20)
    stacked = np.stack([stems[domain] for domain in codec.domains]) * np.float32(gain)
    # The last frame may be begun only.
    stacked = np.pad(stacked, ((0, 0), (0, -stacked.shape[-1] % codec.hop_length)))
    present = active_frames(stacked.reshape(len(stacked), -1, codec.hop_length))
    for index, domain in enumerate(codec.domains):
        counts = seen.activity.setdefault(f"{signal} {domain}", [0, 0, 0, 0])
        for start in range(0, present.shape[-1], SEGMENT_FRAMES):
            there = bool(present[index, start : start + SEGMENT_FRAMES].any())
            counts[2 * there + bool(codes.active[domain][0, start])] += 1
