"""Tags and covers on their way from one file to another, and notes about what is left out of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from ..audio import AudioReader, Cover
from ..bitstream import Reader
from ..bitstream.limits import MAX_COVER_BYTES

MAX_TAG_BYTES = 2**15
"""Of the texts of all tags together; a header holds twice that in all."""


def tags_of(given: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Tags as a header takes them, and notes about those that are left out."""
    tags, notes, room = {}, [], MAX_TAG_BYTES
    for key, value in given.items():
        # Line ends of any system are one; other control characters have no business in a text.
        lines = value.replace("\r\n", "\n").replace("\r", "\n")
        text = "".join(char for char in lines if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs"))
        size = len(text.encode())
        if size > room:
            notes.append(f"the {key} of {size} bytes is left out, tags take at most {MAX_TAG_BYTES} together")
        elif text:
            tags[key] = text
            room -= size
    return tags, notes


def cover_of(reader: AudioReader, notes: list[str]) -> Cover | None:
    """The cover of a source, or one more note about why there is none."""
    data = reader.cover()
    if data is None:
        notes.append("has no cover")
        return None
    if len(data) > MAX_COVER_BYTES:
        most = f"more than {kilobytes(MAX_COVER_BYTES)} kB"
        notes.append(f"its cover of {kilobytes(len(data))} kB, {most}, is left out; make it smaller first")
        return None
    try:
        return Cover.of(data)
    except ValueError as error:
        notes.append(f"its cover is {error}, and is left out; convert it first")
        return None


def stored_cover(reader: Reader) -> tuple[Cover | None, list[str]]:
    """The cover of a file, and a note if it is none that audio files hold."""
    picture = reader.cover()
    if picture is None:
        return None, []
    try:
        return Cover.of(picture), []
    except ValueError as error:
        return None, [f"its cover is {error}, and is left out"]


def kilobytes(num_bytes: int) -> int:
    """Rounded up."""
    return -(-num_bytes // 1000)
