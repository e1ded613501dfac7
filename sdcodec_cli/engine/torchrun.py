"""What torchrun, or anything like it, tells each of the processes that it starts; torch is not asked."""

from __future__ import annotations

import datetime
import os

PATIENCE = datetime.timedelta(hours=2)
"""How long the others wait while the first process reads the headers of a large corpus, or decodes a small one."""


def under_torchrun() -> bool:
    """Whether this process is one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first_process() -> bool:
    """Whether this process speaks for all; known before anything is set up."""
    return int(os.environ.get("RANK", "0")) == 0


def is_first_on_machine() -> bool:
    """Whether this process speaks for all that were started on its machine."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0"))) == 0
