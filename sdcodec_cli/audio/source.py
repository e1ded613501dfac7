"""Where audio comes from: a file that can be read twice, what is said about it, and what its decoders have in common.

C channels, T samples.
"""

from __future__ import annotations

import shlex
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from ..errors import InputError
from .wav import Wav


@dataclass(frozen=True)
class AudioInfo:
    """What a file says about itself."""

    name: str
    """The file as the user named it; `stdin` for `-`."""
    sample_rate: int
    """In Hz."""
    channels: int
    num_samples: int | None
    """Per channel, as the header says; None if it does not. Only the blocks tell for certain."""
    format: str
    """The container, as libsndfile (`WAV`) or FFmpeg (`matroska,webm`) calls it."""
    subtype: str
    """The coding, as libsndfile (`PCM_16`) or FFmpeg (`aac`) calls it."""
    tags: dict[str, str] = field(default_factory=dict)
    """`title`, `artist` and so on, as far as the file has them."""
    channel_mask: int | None = None
    """What each channel is for, see `channels`; None if the file does not say."""
    stated_seconds: float | None = None
    """Length in seconds that the container claims, where that cannot be relied on."""

    @property
    def seconds(self) -> float | None:
        """Length in seconds if it is known, else as the container claims it; None if that says nothing."""
        return self.stated_seconds if self.num_samples is None else self.num_samples / self.sample_rate


class Decoder(Protocol):
    """Audio of one track of a file, read as often as wanted."""

    @property
    def info(self) -> AudioInfo:
        """What the file says about itself."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for people, complete once the audio was read to its end."""
        ...

    def blocks(self, length: int, first: int) -> Iterator[tuple[int, Wav]]:
        """Blocks `[C, T]` of at most `length` samples, and where each begins; those before `first` may be left out.

        Raises:
            InputError: the file is damaged or cut short
        """
        ...


class Source:
    """A file, a pipe or standard input; a pipe is copied to a temporary file, which `close` removes.

    Raises:
        InputError: it is missing or cannot be read
    """

    def __init__(self, given: str) -> None:
        self.name = "stdin" if given == "-" else given
        """As the user named it."""
        self._spooled: Path | None = None
        self.path = self._find(given)
        """Something that can be read twice."""

    def close(self) -> None:
        """Remove the temporary copy, if there is one."""
        if self._spooled is not None:
            self._spooled.unlink(missing_ok=True)
            self._spooled = None

    def damaged(self, where: str = "") -> InputError:
        """An error for what is broken; `where` only as far as it is known, such as `after 2.000 s`."""
        where = where and f" {where}"
        return InputError(
            f"{self.name}: is damaged or cut short{where}; to use what is left: {self.ffmpeg('.repaired.wav')}"
        )

    def unsupported(self, coding: str = "") -> InputError:
        """An error for a coding that no decoder here knows."""
        coding = coding and f" ({coding})"
        return InputError(
            f"{self.name}: its coding{coding} is not one that sdc reads; convert it first, e.g. {self.ffmpeg('.wav')}"
        )

    def ffmpeg(self, suffix: str, option: str = "") -> str:
        """A command that makes a file out of the source that can be read."""
        path = Path("input") if self._spooled else Path(self.name)
        if path.suffix == suffix:
            suffix = f".converted{suffix}"
        return f"ffmpeg {option}-i {shlex.quote(str(path))} {shlex.quote(path.stem + suffix)}"

    def _find(self, given: str) -> Path:
        if given == "-":
            if sys.stdin.isatty():
                raise InputError("stdin: refusing to read audio from the terminal; pipe it in or name a file")
            return self._spool(sys.stdin.buffer)
        path = Path(given)
        try:
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                raise InputError(f"{given}: is a folder; name a file in it")
            if not stat.S_ISREG(mode):
                with path.open("rb") as pipe:
                    return self._spool(pipe)
            with path.open("rb"):
                pass
        except FileNotFoundError:
            raise InputError(f"{given}: no such file; check the name") from None
        except OSError as error:
            raise InputError(f"{given}: cannot be read: {error.strerror}; check its permissions") from error
        return path

    def _spool(self, stream: IO[bytes]) -> Path:
        try:
            with tempfile.NamedTemporaryFile(prefix="sdc-", delete=False) as copy:
                self._spooled = Path(copy.name)
                shutil.copyfileobj(stream, copy, 1 << 20)
        except OSError as error:
            self.close()
            raise InputError(
                f"{self.name}: cannot be copied to {tempfile.gettempdir()}: {error.strerror}; "
                "set TMPDIR to a folder with more room"
            ) from error
        except BaseException:
            self.close()
            raise
        return self._spooled
