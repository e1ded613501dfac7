"""`sdc` as a program of its own: help, version, exit codes, signals, pipes."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import sdcodec_cli

from cli_examples import errors, sdc

NAMES = ("compress", "decode", "separate", "mixer", "info", "models")
COMMANDS = [[], *([name] for name in NAMES), ["models", "list"], ["models", "show"]]
TESTS = Path(__file__).parent

STAND_IN = """
import pytest, signal, sys
# A shell starts what it runs in the background with Ctrl-C switched off.
signal.signal(signal.SIGINT, signal.default_int_handler)
from cli_examples import Engine, install
engine = Engine(); install(engine, pytest.MonkeyPatch())
{setup}
from sdcodec_cli.cli.app import main
sys.argv[0] = 'sdc'
main()
"""


def start(*arguments: str, setup: str = "", **how: Any) -> subprocess.Popen[bytes]:
    """`sdc` in a process of its own, with the stand-in for the engine."""
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}", "PYTHONUNBUFFERED": ""}
    command = [sys.executable, "-c", STAND_IN.format(setup=setup), *arguments]
    how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
    process: Any = subprocess.Popen(command, env=environment, **how)
    return process  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def talk(folder: Path) -> Path:
    soundfile.write("talk.wav", np.zeros(1600), 16_000)
    return folder


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_there_at_every_level(command: list[str], option: str) -> None:
    result = sdc(*command, option)
    assert result.exit_code == 0
    assert result.stdout.startswith(" ".join(["Usage: sdc", *command]))
    assert "Example: sdc " in result.stdout or command == ["models"]


def test_the_version_is_printed() -> None:
    assert sdc("--version").stdout == f"sdc {sdcodec_cli.__version__}\n"


def test_no_command_shows_the_help_and_exits_with_2() -> None:
    result = sdc()
    assert result.exit_code == 2
    assert "Usage: sdc" in result.output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("decode a.sdc --stm speech", "decode: no such option --stm; did you mean --stem?"),
        ("decode -Z a.sdc", "decode: no such option -Z; see sdc decode -h"),
        ("--foo", "no such option --foo; see sdc -h"),
        ("deocde a.sdc", "no such command 'deocde'; did you mean 'decode'?"),
        ("talk.wav", "no such command 'talk.wav'; see sdc -h"),
        ("models foo", "models: no such command 'foo'; see sdc models -h"),
        ("decode", "decode: INPUT is missing; see sdc decode -h"),
        ("cut a.sdc", "cut: --output is missing; see sdc cut -h"),
        ("models show a b", "models show: got unexpected extra argument(s) (b); see sdc models show -h"),
        ("decode a.sdc -o", "decode: option '-o' requires an argument; see sdc decode -h"),
        ("models average --name", "models average: option '--name' requires an argument; see sdc models average -h"),
        ("--version=3", "option '--version' does not take a value; see sdc -h"),
        ("separate a.wav --device tpu", "separate: --device: 'tpu' is not one of 'auto', 'cpu', 'cuda', 'mps'"),
        ("separate a.wav --track one", "separate: --track: 'one' is not a valid integer"),
        ("separate a.wav --track 0", "separate: --track: '0' is not greater than or equal to 1"),
        (
            "decode a.sdc --gain 3",
            "decode: --gain: '3' is not STEM=DB with a gain from -100 to 40 dB, such as speech=-6",
        ),
    ],
)
def test_a_wrong_call_is_one_line_that_says_what_to_do(arguments: str, expected: str) -> None:
    assert errors(sdc(*arguments.split()), exit_code=2) == [expected]


def test_a_wrong_value_from_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDC_DEVICE", "gpu")
    (line,) = errors(sdc("separate", "a.wav"), exit_code=2)
    assert line == "separate: SDC_DEVICE: 'gpu' is not one of 'auto', 'cpu', 'cuda', 'mps'"


def test_python_dash_m_is_the_same_program() -> None:
    command = [sys.executable, "-m", "sdcodec_cli", "info", "none.sdc"]
    result = subprocess.run(command, capture_output=True, cwd=TESTS.parent, text=True)
    assert (result.returncode, result.stderr) == (1, "sdc: none.sdc: no such file; check the name\n")


def test_a_bug_keeps_its_traceback_and_says_where_to_report_it(talk: Path) -> None:
    process = start("compress", "talk.wav", setup="engine.error = ZeroDivisionError('oops')")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    lines = err.decode().splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2] == "ZeroDivisionError: oops"
    assert lines[-1].startswith("sdc: this is a bug; please report it")
    assert list(talk.glob(".*")) == []


WAIT = """
import time
def wait():
    print('working', flush=True)
    time.sleep(30)
engine._fail = wait
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + 15), (signal.SIGHUP, 128 + 1)]
)
def test_a_signal_ends_it_without_leaving_anything_behind(talk: Path, number: signal.Signals, code: int) -> None:
    process = start("compress", "talk.wav", setup=WAIT)
    assert process.stdout is not None
    assert process.stdout.readline() == b"working\n"
    assert [path.name for path in talk.glob(".*")] == [".talk.sdc.sdc-part"]
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert b"Traceback" not in err
    assert [path.name for path in talk.iterdir()] == ["talk.wav"]


def test_a_reader_that_stops_reading_is_no_error(talk: Path) -> None:
    setup = (
        "from sdcodec_cli.audio import AudioWriter; import numpy as np\n"
        "def write(targets, overwrite):\n"
        "    with AudioWriter('-', 16000, 1) as writer: writer.write(np.zeros((1, 2_000_000), np.float32))\n"
        "engine._write = write"
    )
    process = start("separate", "talk.wav", "--stem", "speech", "-o", "-", setup=setup)
    assert process.stdout is not None
    assert process.stdout.read(4) == b"RIFF"
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(timeout=30) == 1


def on_a_terminal(*arguments: str, setup: str = "") -> str:
    """What `sdc` shows on standard error when that is a terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = start(*arguments, setup=setup, stderr=slave, stdout=subprocess.DEVNULL)
    os.close(slave)
    shown = b""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            shown += os.read(master, 4096)
        except OSError:  # EIO: the other end is closed
            break
    os.close(master)
    assert process.wait(timeout=30) == 0
    return shown.decode()


def test_progress_is_shown_on_a_terminal_only_and_not_when_quiet(talk: Path) -> None:
    shown = on_a_terminal("compress", "talk.wav")
    assert "talk.wav:" in shown
    assert shown.splitlines()[-1].endswith("talk.sdc: 61.2 s, 46 kB, 6.0 kbit/s, 38x real time on cpu")
    assert on_a_terminal("compress", "talk.wav", "-f", "-q") == ""
    _, err = start("compress", "talk.wav", "-f").communicate(timeout=30)
    assert err.decode() == "talk.sdc: 61.2 s, 46 kB, 6.0 kbit/s, 38x real time on cpu\n"


def test_binary_data_is_not_written_to_a_terminal(talk: Path) -> None:
    master, slave = pty.openpty()
    process = start("compress", "talk.wav", "-o", "-", stdout=slave)
    _, err = process.communicate(timeout=30)
    os.close(slave)
    os.close(master)
    assert process.returncode == 1
    assert err.decode() == (
        "sdc: stdout: refusing to write binary data to the terminal; redirect it (> file) or pass -o FILE\n"
    )


def test_file_names_that_are_no_text_are_printed_all_the_same(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9.sdc")
    process = start("info", name)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err == b"sdc: caf\\xe9.sdc: no such file; check the name\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["models", "list"], ["models", "list", "--json"], ["models", "show", "dac-16k"]])
def test_results_that_find_no_room_are_one_line(folder: Path, arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        process = start(*arguments, stdout=full)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err == b"sdc: stdout: cannot be written: No space left on device; redirect it to another place\n"


def closing(stream: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """`sdc` started by a shell that closes one of its streams, as `2>&-` does."""
    command = ["sh", "-c", f'exec "$@" {stream}&-', "sh", sys.executable, "-m", "sdcodec_cli", *arguments]
    return subprocess.run(command, capture_output=True, cwd=TESTS.parent, timeout=30)


def test_a_closed_stream_is_an_empty_one() -> None:
    done = closing("<", "info", "-")
    assert (done.returncode, done.stderr) == (1, b"sdc: stdin: empty; give a file made by sdc compress\n")
    done = closing("1>", "models", "list")
    assert (done.returncode, done.stderr) == (0, b"")


def test_messages_never_go_where_results_go() -> None:
    done = closing("2>", "info", "none.sdc")
    assert (done.returncode, done.stdout) == (1, b"")


@pytest.mark.parametrize("command", [["bench"], ["data", "mix", "--data-root", "stems", "-o", "dnr"]])
@pytest.mark.parametrize("seconds", ["0", "nan", "inf"])
def test_a_length_that_is_none_exits_with_2(folder: Path, command: list[str], seconds: str) -> None:
    result = sdc(*command, "--seconds", seconds)
    assert result.exit_code == 2
    assert f"{seconds!r} is not a number of seconds from 1" in result.stderr
