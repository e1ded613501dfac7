"""How much a stream may hold, and what names in it may look like."""

from __future__ import annotations

import re
import unicodedata

MAX_BODY_BYTES = 65_536
MAX_RATE = 1_000_000
MAX_HOP_LENGTH = 65_536
MAX_CONTEXT_FRAMES = 65_535
MAX_CHANNELS = 255
MAX_DOMAINS = 16
MAX_CODEBOOKS = 64
MAX_CODEBOOK_SIZE = 65_536
MAX_GROUPS = 16
MAX_SEGMENT_FRAMES = 500
MAX_CHUNKS = 4096
"""In a segment; keeps the head of a segment below 64 KiB."""
MAX_CODES = 2**20
MAX_SAMPLES = 2**62
MAX_FRAMES = 2**40
"""Of a whole stream; 700 years at 50 frames per second."""
MAX_PARTS = 2048
MAX_STAGES = 8
MAX_BANDS = 64
MAX_GAIN_FRAMES = 255
MAX_COVER_BYTES = 4 * 2**20


def check_model_name(name: str) -> None:
    """`ValueError` if a stream cannot say that it was made by a model of this name."""
    check_text("model", name, max_bytes=64)
    if "/" in name or "\\" in name or name.startswith("."):
        raise ValueError(f"model must be a name, not a path, got {name!r}")


def check_domain_name(name: str) -> None:
    """`ValueError` if a stream cannot have a domain of this name."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,31}", name):
        raise ValueError(f"a domain's name must be 1 to 32 of a-z 0-9 _ -, got {name!r}")


def check_range(what: str, value: int, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise ValueError(f"{what} must be {lowest} to {highest}, got {value}")


def check_text(what: str, text: str, *, max_bytes: int, min_bytes: int = 1, allowed: str = "") -> None:
    """Control characters are refused, since they reach terminals and file names."""
    check_range(f"length of {what} in bytes", len(text.encode()), min_bytes, max_bytes)
    if any(unicodedata.category(char) == "Cc" and char not in allowed for char in text):
        raise ValueError(f"{what} must not contain control characters, got {text!r}")
