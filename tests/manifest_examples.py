"""What the tests of scans and manifests share: a small data root, and short ways to scan it and to read the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import soundfile

from sdcodec_cli.data.scan import ScanResult, scan

DOMAINS = ("speech", "music", "sfx")
RATE = 16_000


def make_root(root: Path, seconds: float = 1.0, count: int = 2) -> Path:
    rng = np.random.default_rng(0)
    for domain in DOMAINS:
        (root / domain).mkdir(parents=True)
        for index in range(count):
            wav = rng.standard_normal(round(seconds * RATE)) * 0.1
            soundfile.write(root / domain / f"{index}.wav", wav, RATE)
    return root


def run(root: Path, target: Path, **options: Any) -> ScanResult:
    return scan(root, target, **{"domains": DOMAINS, "jobs": 1, **options})


def rows(target: Path) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in pq.read_table(target).to_pylist()}
