"""Shared fixtures and the switches of the test run."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Tiny networks are slower on several threads, and much slower when something else uses the other cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Those of tests that do want two would spin while they wait for a core that the other half of the tests has.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Numba, which ViSQOL uses, would otherwise set torch's number of threads to its own.
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import pytest

if TYPE_CHECKING:
    import numpy as np

    from sdcodec_cli.engine.codec import Codec
    from sdcodec_cli.engine.codes import Codes

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))
        if "shared" in item.keywords and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason="needs ../shared, which a user's clone does not have"))


@pytest.fixture(scope="session")
def scene() -> np.ndarray:
    """The sample that ships with the repository, at the rate of the embedded model; not to be written to."""
    import soundfile
    import soxr

    wav, rate = soundfile.read(Path(__file__).resolve().parents[1] / "docs" / "scene.flac", dtype="float32")
    wav = soxr.resample(wav, rate, 16_000)
    wav.flags.writeable = False
    return wav


@pytest.fixture(scope="session")
def embedded() -> Codec:
    """The model that ships with the package."""
    from sdcodec_cli import load_codec

    return load_codec(device="cpu")


@pytest.fixture(scope="session")
def coded(embedded: Codec, scene: np.ndarray) -> Callable[..., tuple[Codes, np.ndarray]]:
    """Codes of the scene at an effort, from a number of codebooks, and what they decode to: each made once."""

    @functools.cache
    def coded(effort: int, num_codebooks: int | None = None) -> tuple[Codes, np.ndarray]:
        codec = embedded.at_effort(effort)
        codes = codec.encode(scene, num_codebooks=num_codebooks)
        return codes, codec.decode(codes)

    return coded


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of each domain, see training_examples.py."""
    from training_examples import make_corpus

    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def small_validation() -> Iterator[None]:
    """Validation of two examples of half a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdcodec_cli.engine.train.validation.EXAMPLES", 2)
        patch.setattr("sdcodec_cli.engine.train.validation.SECONDS", 0.5)
        yield


@pytest.fixture
def without_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that training makes have no graphs, which take minutes; test_runtime_graphs.py makes some."""
    for module in ("export", "older"):
        monkeypatch.setattr(f"sdcodec_cli.engine.train.{module}.make_graphs", lambda recipe, parts=None: {})
