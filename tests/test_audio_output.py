"""An output appears when it is complete; whatever goes wrong, nothing else is left behind, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_examples import RATE, full_disk, noise, read, write

from sdcodec_cli import stop
from sdcodec_cli.audio import AudioReader, AudioWriter, Wav, atomic_output, written_together
from sdcodec_cli.errors import OutputError


def write_audio(target: Path, overwrite: bool) -> None:
    write(target, noise(0.5), overwrite=overwrite)


def write_bytes(target: Path, overwrite: bool) -> None:
    with atomic_output(target, overwrite=overwrite) as file:
        file.write(b"data")


Write = Callable[[Path, bool], None]
both = pytest.mark.parametrize("put", [write_audio, write_bytes])


@both
def test_an_existing_output_is_replaced_only_on_demand(put: Write, tmp_path: Path) -> None:
    target = tmp_path / "a.wav"
    target.write_bytes(b"precious")
    target.chmod(0o600)
    with pytest.raises(OutputError, match=r"a\.wav exists; pass --force to overwrite it"):
        put(target, False)
    assert target.read_bytes() == b"precious"
    put(target, True)
    assert target.read_bytes() != b"precious"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


@both
def test_a_new_output_gets_the_usual_permissions(put: Write, tmp_path: Path) -> None:
    put(tmp_path / "a.wav", False)
    (tmp_path / "usual").touch()
    assert (tmp_path / "a.wav").stat().st_mode == (tmp_path / "usual").stat().st_mode


@both
def test_a_link_stays_a_link(put: Write, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/real.wav").touch()
    (tmp_path / "a.wav").symlink_to(tmp_path / "folder/real.wav")
    put(tmp_path / "a.wav", True)
    assert (tmp_path / "a.wav").is_symlink()
    assert (tmp_path / "folder/real.wav").stat().st_size > 0


@both
def test_places_that_cannot_be_written_are_refused(put: Write, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"there is no folder .*none; create it first"):
        put(tmp_path / "none/a.wav", False)
    with pytest.raises(OutputError, match="is a folder; name a file in it"):
        put(tmp_path, True)
    with pytest.raises(OutputError, match="its name has 304 bytes, more than the 255 that file systems take"):
        put(tmp_path / ("a" * 300 + ".wav"), False)
    with pytest.raises(OutputError, match="there is no folder .*aaa; create it first"):
        put(tmp_path / ("a" * 300) / "a.wav", False)
    if not os.access("/proc/self", os.W_OK):
        with pytest.raises(OutputError, match=r"cannot be written|not writable"):
            put(Path("/proc/self/a.wav"), False)
    assert list(tmp_path.iterdir()) == []


@both
def test_devices_are_written_to_and_not_replaced(put: Write, tmp_path: Path) -> None:
    put(Path("/dev/null"), False)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(OutputError, match=r"/dev/full: cannot be written: No space left on device; free some space"):
        put(Path("/dev/full"), False)


def interrupted_audio(target: Path, interruption: type[BaseException]) -> None:
    with AudioWriter(target, RATE, 1) as writer:
        writer.write(noise(0.5))
        raise interruption


def interrupted_bytes(target: Path, interruption: type[BaseException]) -> None:
    with atomic_output(target, overwrite=True) as file:
        file.write(b"half")
        raise interruption


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.sdc"])
def test_an_interruption_leaves_nothing_behind(name: str, interruption: type[BaseException], tmp_path: Path) -> None:
    put = interrupted_bytes if name == "a.sdc" else interrupted_audio
    with pytest.raises(interruption):
        put(tmp_path / name, interruption)
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_an_existing_file_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.sdc").write_bytes(b"precious")
    with pytest.raises(KeyboardInterrupt):
        interrupted_bytes(tmp_path / "a.sdc", KeyboardInterrupt)
    assert (tmp_path / "a.sdc").read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.opus", "a.mp3"])
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_a_signal_that_comes_while_an_encoder_runs_is_not_lost(
    name: str, interruption: type[BaseException], tmp_path: Path
) -> None:
    def stop(*args: object) -> None:
        raise interruption

    def write_on(wav: Wav, milliseconds: int) -> None:
        signal.setitimer(signal.ITIMER_REAL, milliseconds / 1000)
        with AudioWriter(tmp_path / name, RATE, 1) as writer:
            for _ in range(1000):  # far longer than the alarm takes
                writer.write(wav)

    wav, handler = noise(5.0), signal.signal(signal.SIGALRM, stop)
    try:
        for milliseconds in (5, 15, 25, 35):
            with pytest.raises(interruption):
                write_on(wav, milliseconds)
            assert list(tmp_path.iterdir()) == []
            assert signal.getsignal(signal.SIGALRM) is stop
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.opus", "a.mp3"])
def test_a_signal_that_comes_while_an_encoder_starts_leaves_none_behind(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[soundfile.SoundFile] = []

    def start(*arguments: object, **how: object) -> soundfile.SoundFile:
        started.append(SoundFile(*arguments, **how))
        signal.raise_signal(signal.SIGINT)
        return started[0]

    SoundFile = soundfile.SoundFile  # noqa: N806
    monkeypatch.setattr(soundfile, "SoundFile", start)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / name, noise(1.0))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert started[0].closed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.opus", "a.mp3", "a.sdc"])
@pytest.mark.parametrize("limit", [30, 5_000])
def test_a_full_disk_is_reported_and_leaves_nothing_behind(name: str, limit: int, tmp_path: Path) -> None:
    def put() -> None:
        if name == "a.sdc":
            with atomic_output(tmp_path / name, overwrite=False) as file:
                file.write(bytes(10_000))
        else:
            write(tmp_path / name, noise(4.0))

    message = rf"{name}: cannot be written: File too large; free some space"
    with full_disk(limit), pytest.raises(OutputError, match=message):
        put()
    assert list(tmp_path.iterdir()) == []


def run(code: str, **how: object) -> subprocess.CompletedProcess[bytes]:
    prelude = "import numpy as np; from sdcodec_cli.audio import *; wav = np.zeros((1, 200_000), np.float32)\n"
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 30, **how}
    return subprocess.run([sys.executable, "-c", prelude + code], **how)  # type: ignore[call-overload,no-any-return]


def test_standard_output_takes_audio_and_bytes(tmp_path: Path) -> None:
    result = run("with AudioWriter('-', 16000, 1, num_samples=200_000) as w: w.write(wav)")
    assert result.stderr == b""
    (tmp_path / "a.wav").write_bytes(result.stdout)
    assert read(tmp_path / "a.wav").shape == (1, 200_000)
    result = run("with atomic_output('-', overwrite=False) as f: f.write(b'abc')")
    assert (result.stdout, result.stderr) == (b"abc", b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    "code",
    [
        "with AudioWriter('-', 16000, 1, num_samples=200_000) as w: w.write(wav)",
        "with atomic_output('-', overwrite=False) as f: f.write(b'abc')",
        "with atomic_output('-', overwrite=False) as f: f.write(bytes(100_000))",
    ],
)
def test_standard_output_to_a_full_disk_is_one_error(code: str) -> None:
    tell = "\nimport sys\ntry:\n  %s\nexcept Exception as e: print(type(e).__name__, e, file=sys.stderr); sys.exit(1)"
    with open("/dev/full", "wb") as full:
        result = run(tell % code, stdout=full)
    expected = "stdout: cannot be written: No space left on device; free some space or choose another place with -o"
    assert (result.returncode, result.stderr.decode()) == (1, f"OutputError {expected}\n")


def test_a_socket_cannot_be_written_to(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        for put in (write_audio, write_bytes):
            with pytest.raises(OutputError, match="s: cannot be written: No such device or address"):
                put(tmp_path / "s", True)


def test_a_terminal_as_output_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    expected = r"refusing to write binary data to the terminal; redirect it \(> file\) or pass -o FILE"
    with pytest.raises(OutputError, match=expected):
        write("-", noise(0.1))
    with pytest.raises(OutputError, match=expected), atomic_output("-", overwrite=False):
        pass


# Several outputs of one input


def put_both(folder: Path, *, overwrite: bool = False) -> None:
    writers = [AudioWriter(folder / name, RATE, 1, overwrite=overwrite) for name in ("a.wav", "b.flac")]
    with written_together(writers):
        for writer in writers:
            writer.write(noise(0.5))


def test_outputs_that_belong_together_appear_together(tmp_path: Path) -> None:
    put_both(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "b.flac"]
    assert read(tmp_path / "b.flac").shape == (1, 8000)


@pytest.mark.parametrize("existing", [False, True])
def test_one_that_cannot_get_its_name_takes_the_others_with_it(
    existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if existing:
        for name in ("a.wav", "b.flac"):
            (tmp_path / name).write_bytes(b"precious")
    replace = os.replace

    def fail(source: Path, target: Path) -> None:
        if str(target).endswith("b.flac") and str(source).endswith(".sdc-part"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match=r"b\.flac: cannot be written: No space left on device"):
        put_both(tmp_path, overwrite=existing)
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert found == ({"a.wav": b"precious", "b.flac": b"precious"} if existing else {})


def test_nothing_of_former_outputs_is_left_when_all_are_replaced(tmp_path: Path) -> None:
    put_both(tmp_path)
    put_both(tmp_path, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "b.flac"]


# Unfinished files

KILLED = """
import os, signal, sys
with atomic_output(sys.argv[1], overwrite=False) as file:
    file.write(bytes(100_000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("name", ["a.sdc", "b" * 251 + ".sdc"])
def test_what_a_killed_program_left_goes_when_its_output_is_written_again(name: str, tmp_path: Path) -> None:
    code = "from sdcodec_cli.audio import *" + KILLED
    subprocess.run([sys.executable, "-c", code, tmp_path / name], check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".")
    assert left.name.endswith(".sdc-part")
    left.chmod(0o600)
    (tmp_path / "usual").touch()
    write_bytes(tmp_path / name, False)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "usual"])
    assert (tmp_path / name).read_bytes() == b"data"
    assert (tmp_path / name).stat().st_mode == (tmp_path / "usual").stat().st_mode


@both
def test_an_output_that_is_being_written_is_not_written_twice(put: Write, tmp_path: Path) -> None:
    with atomic_output(tmp_path / "a.wav", overwrite=False) as file:
        file.write(b"first")
        with pytest.raises(OutputError, match=r"a\.wav: is being written by another sdc; wait for it, or choose"):
            put(tmp_path / "a.wav", False)
    assert (tmp_path / "a.wav").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_a_link_in_the_place_of_an_unfinished_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / ".a.sdc.sdc-part").symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError, match=r"a\.sdc: cannot be written"):
        write_bytes(tmp_path / "a.sdc", False)
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_wish_to_stop_that_was_lost_on_its_way_is_heard_before_an_output_appears(tmp_path, monkeypatch):
    """As where C code dropped what the handler of a signal raised."""
    soundfile.write(tmp_path / "in.wav", np.zeros(1600), 16_000)
    monkeypatch.setattr(stop, "_asked", [])
    with contextlib.suppress(SystemExit):
        stop.ask_to_stop(SystemExit(143))
    with pytest.raises(SystemExit) as raised, AudioWriter(tmp_path / "a.wav", 16_000, 1) as writer:
        writer.write(np.zeros((1, 1600), dtype=np.float32))
    assert raised.value.code == 143
    with pytest.raises(SystemExit), AudioReader(tmp_path / "in.wav") as reader:
        next(reader.blocks())
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]
