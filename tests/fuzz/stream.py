"""Coverage-guided fuzzing of the reader with atheris (`pip install atheris`), for as long as it is told to.

    PYTHONPATH=.:tests python tests/fuzz/stream.py -max_total_time=600 FOLDER tests/fuzz/corpus

What it finds new goes to FOLDER, and what breaks the reader into a file `crash-…`, which belongs into the corpus once
it is repaired.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["sdcodec_cli"]):
    import sdcodec_cli.bitstream.reader
    import sdcodec_cli.prediction.range_coder
    import sdcodec_cli.prediction.tables  # noqa: F401

from fuzzing import exercise, repaired


def read(data: bytes) -> None:
    """One attempt: checksums are put right first, or nearly everything would end at them."""
    exercise(repaired(data))


if __name__ == "__main__":
    atheris.Setup(sys.argv, read)
    atheris.Fuzz()
