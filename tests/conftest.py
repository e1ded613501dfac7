"""Shared fixtures and the switches of the test run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Tiny networks are slower on several threads, and much slower when something else uses the other cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Numba, which ViSQOL uses, would otherwise set torch's number of threads to its own.
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))
        if "shared" in item.keywords and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason="needs ../shared, which a user's clone does not have"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of each domain, see training_examples.py."""
    from training_examples import make_corpus

    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def small_validation() -> Iterator[None]:
    """Validation of two examples of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdcodec_cli.engine.train.validation.EXAMPLES", 2)
        patch.setattr("sdcodec_cli.engine.train.validation.SECONDS", 1.0)
        yield


@pytest.fixture
def without_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that training makes have no graphs, which take minutes; test_runtime_graphs.py makes some."""
    monkeypatch.setattr("sdcodec_cli.engine.train.export.make_graphs", lambda recipe: {})
