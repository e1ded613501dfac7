"""Files that appear under their names only when they are complete."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from ..errors import OutputError
from ..stop import stop_if_asked
from .signals import signals_wait

if sys.platform != "win32":
    import fcntl

MAX_NAME_BYTES = 255
"""Of a file's name, on every common file system."""


def check_target(target: str | Path, *, overwrite: bool) -> None:
    """Refuse an output that cannot be written, before any work is done for it.

    Raises:
        OutputError: it exists and `overwrite` is false, is a folder, has too long a name, or its folder is missing or
            not writable.
    """
    path = Path(target)
    if str(target) == "-" or is_special(path):
        return
    check_name(path)
    if os.path.isdir(path):  # unlike Path.is_dir, False for what cannot be looked at
        raise OutputError(f"{target}: is a folder; name a file in it")
    if os.path.lexists(path) and not overwrite:
        raise OutputError(f"{target} exists; pass --force to overwrite it")
    folder = path.parent
    if not os.path.isdir(folder):
        raise OutputError(f"{target}: there is no folder {folder}; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{target}: the folder {folder} is not writable; choose another with -o")


def check_name(path: Path) -> None:
    """Raise OutputError if a file or folder cannot have this name."""
    size = len(os.fsencode(path.name))
    if size > MAX_NAME_BYTES:
        raise OutputError(
            f"{path}: its name has {size} bytes, more than the {MAX_NAME_BYTES} that file systems take; "
            "choose a shorter one with -o"
        )


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
    output: AtomicFile | None = None
    try:
        with signals_wait():
            output = AtomicFile(target, overwrite=overwrite)
        with io.BufferedWriter(_Named(output.file, target)) as stream:
            yield cast(BinaryIO, stream)
        output.commit()
    finally:
        if output is not None:
            output.discard()


class DirectFile:
    """Standard output, a pipe or a device, to which everything is written at once.

    Raises:
        OutputError: it cannot be opened, or is a terminal
    """

    def __init__(self, target: str | Path) -> None:
        self._target = str(target)
        self._device: IO[bytes] | None = None
        if self._target == "-":
            refuse_terminal()
            self._file = _Named(sys.stdout.buffer, target)
            return
        try:
            self._device = open(target, "wb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise cannot_write(target, error) from error
        self._file = _Named(self._device, target)

    def write(self, data: bytes) -> None:
        """All of it, and now."""
        stop_if_asked()
        try:
            rest = memoryview(data)
            while rest:  # a raw file may take less than it is given
                rest = rest[self._file.write(rest) :]
            self._file.flush()
        except OutputError:
            if self._target == "-":
                _give_up_stdout()
            raise

    def close(self) -> None:
        """Let go of it; standard output stays open."""
        if self._device is not None:
            self._device.close()


class AtomicFile:
    """A hidden file beside the target, which `commit` turns into it, and `discard` removes.

    It is named after the target, `.song.sdc.sdc-part` for `song.sdc`, and locked while it is in use. One without a lock
    was left by a program that was killed: whoever writes the target again takes its place.
    """

    def __init__(self, target: str | Path, *, overwrite: bool) -> None:
        check_target(target, overwrite=overwrite)
        self._target, self._overwrite = str(target), overwrite
        self._copied = self._target == "-" or is_special(Path(target))
        self._former: Path | None = None
        self._done = False
        self.file: IO[bytes]
        try:
            if self._copied:
                self.file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
                return
            # Beside the file that a link leads to, so that the rename stays on one file system and keeps the link.
            self._path = Path(os.path.realpath(target))
            self._temporary = _beside(self._path, ".sdc-part")
            self.file = open(_locked(self._temporary, self._target), "w+b", buffering=0)  # noqa: SIM115
            # Holds the lock until the file has its name, while closing `file` tells of a disk that is full.
            self._lock = os.dup(self.file.fileno())
            if os.path.exists(self._path):
                self._temporary.chmod(stat.S_IMODE(self._path.stat().st_mode))
        except OSError as error:
            raise cannot_write(target, error) from error

    def commit(self) -> None:
        """Give the file its name, or copy it to where it goes."""
        commit_together([self])

    def prepare(self) -> None:
        """The part of a commit that may well fail: close the file, or copy it to the device or to standard output."""
        stop_if_asked()
        try:
            if not self._copied:
                self.file.close()
                check_target(self._target, overwrite=self._overwrite)
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

    def replace(self, *, keep_former: bool) -> None:
        """Give the file its name; with `keep_former`, `undo` can bring back the file that had it before."""
        if self._copied:
            return
        try:
            if keep_former and os.path.exists(self._path):
                former = _beside(self._path, ".sdc-old")
                former.unlink(missing_ok=True)
                os.link(self._path, former)
                self._former = former
            os.replace(self._temporary, self._path)
            self._done = True
        except OSError as error:
            raise cannot_write(self._target, error) from error

    def undo(self) -> None:
        """Take back `replace`."""
        if not self._done:
            return
        if self._former is not None:
            os.replace(self._former, self._path)
            self._former = None
        else:
            self._path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the file unless it was committed, and the former one that was kept for `undo`."""
        self.file.close()
        if self._copied:
            return
        if not self._done:
            self._temporary.unlink(missing_ok=True)
        if self._former is not None:
            self._former.unlink(missing_ok=True)
            self._former = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class Sink:
    """The file that a library writes to. Exceptions cannot pass through its C code, so the first one is kept here."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None
        self.seek, self.tell, self.read = file.seek, file.tell, file.read

    def write(self, data: bytes) -> int:
        done = 0
        try:
            while done < len(data):  # an unbuffered file may take less than it is given
                done += self._file.write(data[done:])
        except OSError as error:
            self.error = self.error or error
        return done


def commit_together(files: Sequence[AtomicFile]) -> None:
    """Give all files their names, or none."""
    for file in files:
        file.prepare()
    try:
        for file in files:
            file.replace(keep_former=len(files) > 1)
    except BaseException:
        for file in files:
            file.undo()
        raise


def _beside(path: Path, suffix: str) -> Path:
    """A hidden name beside a file, made of its name and a suffix, or of a digest where that would be too long."""
    name = f".{path.name}{suffix}"
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()}{suffix}"
    return path.with_name(name)


def _locked(path: Path, target: str) -> int:
    """Create, open and lock a file; one that a killed program left is removed first."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        try:
            descriptor = os.open(path, flags, 0o666)
        except FileExistsError:
            _remove_abandoned(path, target)
            continue
        if _lock(descriptor) and _is_file(descriptor, path):
            return descriptor
        os.close(descriptor)  # another program took it for abandoned between the two calls


def _remove_abandoned(path: Path, target: str) -> None:
    """Remove a file that nobody has locked.

    Raises:
        OutputError: somebody has
    """
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return
    try:
        if not _lock(descriptor):
            raise OutputError(f"{target}: is being written by another sdc; wait for it, or choose another with -o")
        if _is_file(descriptor, path):
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock a file; False if another program has. On Windows an open file cannot be removed, which does the same."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks, where nobody can tell
        return True
    return True


def _is_file(descriptor: int, path: Path) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


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
    """Drop what is still in the buffer of standard output: it would fail once more at the end of the program."""
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
