"""What each channel is for: speaker positions, their order in files, and how several become one.

Inside of sdc channels are in the order of WAV files, which a mask describes completely: its bits, from the lowest on,
are the positions in the order of the channels (WAVE_FORMAT_EXTENSIBLE). A layout that no such mask describes is None.

C channels, T samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .wav import Wav

_TOPS = ("TC", "TFL", "TFC", "TFR", "TBL", "TBC", "TBR")
ROLES = ("FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR", *_TOPS)
"""Speaker positions in the order of a mask's bits, spelled as FFmpeg does."""

_VORBIS_ORDER: dict[int, tuple[str, ...]] = {
    1: ("FC",),
    2: ("FL", "FR"),
    3: ("FL", "FC", "FR"),
    4: ("FL", "FR", "BL", "BR"),
    5: ("FL", "FC", "FR", "BL", "BR"),
    6: ("FL", "FC", "FR", "BL", "BR", "LFE"),
    7: ("FL", "FC", "FR", "SL", "SR", "BC", "LFE"),
    8: ("FL", "FC", "FR", "SL", "SR", "BL", "BR", "LFE"),
}
"""Channels of Ogg Vorbis (Vorbis I, 4.3.9) and Opus (RFC 7845, 5.1.1.2). FLAC has the same ones, in WAV's order."""

_HALF_POWER = math.sqrt(0.5)  # −3 dB


def mask_of(roles: Sequence[str]) -> int | None:
    """The mask of channels in any order; None if a role is unknown or comes twice."""
    if not roles or len(set(roles)) < len(roles) or not set(roles) <= set(ROLES):
        return None
    return sum(1 << ROLES.index(role) for role in roles)


def roles_of(mask: int) -> tuple[str, ...]:
    """Roles of the channels in WAV's order."""
    return tuple(role for bit, role in enumerate(ROLES) if mask >> bit & 1)


def checked_mask(mask: int, channels: int) -> int | None:
    """A mask as a file states it, or None if it does not describe this number of channels."""
    return mask if 0 < mask < 1 << len(ROLES) and mask.bit_count() == channels else None


MASK_TAG = "WAVEFORMATEXTENSIBLE_CHANNEL_MASK"
"""Tag that says what each of more than two coded channels is for; FLAC files have it, too."""


def parse_mask(text: str, channels: int) -> int | None:
    """A mask as tags have it, such as `0x3f`; None if it is none of this number of channels.

    >>> parse_mask("0x3F", 6), parse_mask("0x3F", 2), parse_mask("", 6)
    (63, None, None)
    """
    try:
        return checked_mask(int(text, 16), channels)
    except ValueError:
        return None


def default_mask(channels: int) -> int | None:
    """The layout that Ogg Vorbis, Opus and FLAC mean by a number of channels; None beyond 8."""
    return mask_of(_VORBIS_ORDER.get(channels, ()))


def means_default(mask: int) -> bool:
    """Whether a layout is the one meant by its number of channels; a single pair of surrounds may be back or side."""
    roles = roles_of(mask)
    if not {"BL", "BR"} & set(roles):
        roles = tuple({"SL": "BL", "SR": "BR"}.get(role, role) for role in roles)
    return default_mask(len(roles)) in (mask, mask_of(roles))


def to_wav_order(roles: Sequence[str]) -> list[int]:
    """Indices that bring channels with these roles into WAV's order."""
    return sorted(range(len(roles)), key=lambda index: ROLES.index(roles[index]))


def from_vorbis_order(channels: int) -> list[int]:
    """Indices that bring channels of Ogg Vorbis or Opus into WAV's order."""
    order = _VORBIS_ORDER.get(channels)
    return list(range(channels)) if order is None else to_wav_order(order)


def to_vorbis_order(channels: int) -> list[int]:
    """Indices that bring channels in WAV's order into that of Ogg Vorbis and Opus."""
    return [int(index) for index in np.argsort(from_vorbis_order(channels))]


def layout_name(mask: int) -> str:
    """How people call a layout.

    >>> layout_name(0x3F), layout_name(0x63F), layout_name(0x33)
    ('5.1', '7.1', '4.0')
    """
    lfe = "LFE" in roles_of(mask)
    return f"{mask.bit_count() - lfe}.{int(lfe)}"


def downmix(wav: Wav, mask: int | None = None) -> Wav:
    """One channel out of several: `[C, T]` to `[1, T]`.

    Of more than two channels whose roles are known, as of a film (ITU-R BS.775): centre and surrounds go into left and
    right at −3 dB, the LFE is left out, and the result is the mean of left and right. The sum of all factors is 1, so
    that nothing clips; FFmpeg does the same. Otherwise, the mean of the channels.
    """
    if len(wav) == 1:
        return wav
    if mask is not None and len(wav) > 2:
        return np.asarray(_film_weights(mask)[None] @ wav, dtype=np.float32)
    mean: Wav = wav.mean(axis=0, keepdims=True, dtype=np.float32)
    return mean


def _film_weights(mask: int) -> Wav:
    """Factors of the channels in the mean of left and right, `[C]`; their sum is 1."""
    kinds = {"FL": 0.5, "FR": 0.5, "FLC": 0.5, "FRC": 0.5, "FC": _HALF_POWER, "LFE": 0.0}
    # A centre behind or above is a surround that goes into both sides, at −3 dB once more.
    kinds |= dict.fromkeys(("BC", "TC", "TFC", "TBC"), 0.5)
    weights = np.array([kinds.get(role, _HALF_POWER / 2) for role in roles_of(mask)])
    return np.asarray(weights / weights.sum(), dtype=np.float32)


def loudness_weights(mask: int | None, channels: int) -> list[float]:
    """Weights of the energy of each channel after ITU-R BS.1770-4: 1.41 for surrounds, 0 for the LFE, else 1.

    With side and back surrounds, only those at the side are within the angles that the standard names. Where roles are
    not known, all channels count alike.
    """
    if mask is None:
        return [1.0] * channels
    roles = roles_of(mask)
    surrounds = {"SL", "SR"} if "SL" in roles else {"BL", "BR"}
    return [0.0 if role == "LFE" else 1.41 if role in surrounds else 1.0 for role in roles]
