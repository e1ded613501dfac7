"""Work for the tests of several inputs at once, which worker processes import."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from sdcodec_cli.audio import atomic_output
from sdcodec_cli.engine.batch import Say
from sdcodec_cli.engine.files import Job
from sdcodec_cli.errors import InputError
from sdcodec_cli.progress import Progress


@dataclass(frozen=True)
class Copy:
    """Copies an input; some of them fail, kill their process, or take for ever when they are half done."""

    def __call__(self, job: Job, say: Say, progress: Progress | None) -> int:
        text = Path(job.source).read_bytes()
        say(f"{job.source}: begun")
        with atomic_output(job.targets["copy"], overwrite=False) as file:
            file.write(text[: len(text) // 2])
            match text:
                case b"bad":
                    raise InputError(f"{job.source}: is bad")
                case b"kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                case b"wait":
                    file.flush()
                    time.sleep(600)
            file.write(text[len(text) // 2 :])
        return os.getpid()
