"""What a bitrate that is asked for buys of a file: the allocation of its bits, by what there is to code in it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

from ..audio import Wav
from ..errors import InputError
from ..progress import Progress
from .allocation import Allocation, Extent
from .codec import Codec
from .coder import Coder
from .envelope import envelope_bitrate
from .stereo import BITRATE as STEREO_BITRATE
from .stream_header import entries_of
from .treble import BITRATE as TREBLE_BITRATE


def extent_of(
    coder: Coder,
    blocks: Iterator[Wav],
    codec: Codec,
    stored: Sequence[str],
    progress: Progress | None,
    seconds: float | None,
) -> Extent:
    """How much there is to code in a file, found without refinement, which does not change what is active."""
    streams = {each.name for stage in codec.stages for each in stage.streams if each.stem in stored}
    extent = Extent()
    for channels in coder.run(blocks, progress, seconds):
        for segment in channels:
            extent.add(segment, segment.num_frames / codec.frame_rate, streams)
    extent.seconds = coder.num_samples / coder.rate
    return extent


def fitting_allocation(
    bitrate: float,
    extent: Extent,
    codec: Codec,
    stored: Sequence[str],
    *,
    name: str,
    envelope: bool,
    fine: bool | None,
    treble: bool,
    stereo: bool,
) -> Allocation:
    """The best allocation that takes no more than a bitrate."""

    def rates(*, envelope: bool) -> dict[Allocation, float]:
        found = {}
        for each in codec.allocations(envelope=envelope, fine=fine):
            gains = envelope_bitrate(envelope=envelope, fine=each.fine) + TREBLE_BITRATE * treble
            gains += STEREO_BITRATE * len(stored) * stereo
            found[each] = extent.bitrate(entries_of(codec, each.num_codebooks, stored), gains)
        return found

    found = rates(envelope=envelope)
    for allocation, rate in found.items():
        if rate <= bitrate + 1e-9:
            return allocation
    wanted = _range(found.values())
    without = f" (without an envelope {_range(rates(envelope=False).values())})" if envelope else ""
    raise InputError(f"{name}: {bitrate:g} kbit/s are too few for what is in it; choose {wanted}{without}")


def bitrate_note(bitrate: float, allocation: Allocation, codec: Codec, *, envelope: bool) -> str:
    """What became of a bitrate that was asked for, for people."""
    kind = f" and a {'fine' if allocation.fine else 'coarse'} envelope" if envelope else ""
    return f"{bitrate:.1f} kbit/s, with {allocation.num_codebooks} of {codec.num_codebooks} codebooks{kind}"


def _range(rates: Collection[float]) -> str:
    """Lowest and highest of bitrates, rounded up, so that they are enough."""
    lowest, highest = (math.ceil(rate * 10 - 1e-9) / 10 for rate in (min(rates), max(rates)))
    return f"{lowest:g} to {highest:g}"
