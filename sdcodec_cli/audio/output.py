"""Files that appear under their names only when they are complete."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from ..errors import OutputError


def check_target(target: str | Path, *, overwrite: bool) -> None:
    """Refuse an output that cannot be written, before any work is done for it.

    Raises:
        OutputError: it exists and `overwrite` is false, is a folder, or its folder is missing or not writable.
    """
    path = Path(target)
    if str(target) == "-" or is_special(path):
        return
    if os.path.isdir(path):  # unlike Path.is_dir, False for what cannot be looked at
        raise OutputError(f"{target}: is a folder; name a file in it")
    if os.path.lexists(path) and not overwrite:
        raise OutputError(f"{target} exists; pass --force to overwrite it")
    folder = path.parent
    if not os.path.isdir(folder):
        raise OutputError(f"{target}: there is no folder {folder}; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{target}: the folder {folder} is not writable; choose another with -o")


def refuse_terminal() -> None:
    """Raise OutputError if standard output is a terminal."""
    if sys.stdout.isatty():
        raise OutputError("stdout: refusing to write binary data to the terminal; redirect it (> file) or pass -o FILE")


@contextlib.contextmanager
def atomic_output(target: str | Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """A binary file that appears under its name only when the block ends without an exception.

    `-` and devices such as `/dev/null` are written directly, as a stream.

    Raises:
        OutputError: the target exists, cannot be written, or is a terminal.
    """
    if str(target) == "-":
        refuse_terminal()
        try:
            with io.BufferedWriter(_Named(sys.stdout.buffer, target)) as stream:
                yield cast(BinaryIO, stream)
        except OutputError:
            _give_up_stdout()
            raise
        return
    if is_special(Path(target)):
        try:
            device = open(target, "wb", buffering=0)  # noqa: SIM115 (closed below; only the opening may fail here)
        except OSError as error:
            raise cannot_write(target, error) from error
        with device, io.BufferedWriter(_Named(device, target)) as stream:
            yield cast(BinaryIO, stream)
        return
    output = AtomicFile(target, overwrite=overwrite)
    try:
        with io.BufferedWriter(_Named(output.file, target)) as stream:
            yield cast(BinaryIO, stream)
        output.commit()
    finally:
        output.discard()


class AtomicFile:
    """A nameless or hidden file that `commit` turns into the target, and `discard` removes."""

    def __init__(self, target: str | Path, *, overwrite: bool) -> None:
        check_target(target, overwrite=overwrite)
        self._target, self._overwrite = str(target), overwrite
        self._copied = self._target == "-" or is_special(Path(target))
        self.file: IO[bytes]
        try:
            if self._copied:
                self.file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
                return
            # Beside the file that a link leads to, so that the rename stays on one file system and keeps the link.
            self._path = Path(os.path.realpath(target))
            self._temporary = self._path.with_name(f".sdc-{secrets.token_hex(8)}.part")
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            self.file = open(os.open(self._temporary, flags, 0o666), "w+b", buffering=0)  # noqa: SIM115
            if os.path.exists(self._path):
                self._temporary.chmod(stat.S_IMODE(self._path.stat().st_mode))
        except OSError as error:
            raise cannot_write(target, error) from error

    def commit(self) -> None:
        try:
            if not self._copied:
                self.file.close()
                check_target(self._target, overwrite=self._overwrite)
                os.replace(self._temporary, self._path)
                return
            self.file.seek(0)
            if self._target == "-":
                shutil.copyfileobj(self.file, sys.stdout.buffer, 1 << 20)
                sys.stdout.buffer.flush()
            else:
                with open(self._target, "wb") as device:
                    shutil.copyfileobj(self.file, device, 1 << 20)
        except BrokenPipeError:
            raise
        except OSError as error:
            if self._target == "-":
                _give_up_stdout()
            raise cannot_write(self._target, error) from error

    def discard(self) -> None:
        """Remove what has not been committed."""
        self.file.close()
        if not self._copied:
            self._temporary.unlink(missing_ok=True)


class _Named(io.RawIOBase):
    """The writing end of a file; its failures become OutputErrors that name the target."""

    def __init__(self, file: IO[bytes], target: str | Path) -> None:
        self._file, self._target = file, target

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        with self._failing():
            return self._file.write(data)

    def flush(self) -> None:  # also called by whoever closes it
        with self._failing():
            self._file.flush()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise cannot_write(self._target, error) from error


def _give_up_stdout() -> None:
    """Let go of what is still in its buffer: that would fail once more at the end of the program."""
    with contextlib.suppress(OSError):  # not a file, as in tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_special(path: Path) -> bool:
    """A device or pipe: something to write into, never to replace."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def cannot_write(target: str | Path, error: BaseException) -> OutputError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    name = "stdout" if str(target) == "-" else target
    return OutputError(f"{name}: cannot be written: {reason}; free some space or choose another place with -o")
