"""A name for users whom the system does not know, as in many containers."""

from __future__ import annotations

import getpass
import os


def name_user() -> None:
    """Give the user a name in the environment if they have none anywhere.

    torch names the folder of its compiler after the user, and 2.11 fails without a name as soon as an optimizer steps.
    Processes that are started later inherit it.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"
