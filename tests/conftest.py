from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentguard.langgraph.unguarded_runs import BELT
from agentguard.ledger.ledger import Ledger
from tests.support import UNSOUND_WAKES, Studio, open_studio
from tests.support.command_line import Shell
from tests.support.databases import DATABASES, drop_ledger, postgres_server, postgres_url
from tests.support.ledgers import Bench, Clock, Place, ledger_at
from tests.support.memory_disk import use_memory_disk
from tests.support.shared import share

use_memory_disk()


def pytest_collection_finish() -> None:
    """What was imported and collected lives as long as the run: no collection looks at it again.

    A full collection is still what finds a test's own cycles; it only comes to fewer objects.
    """
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "unsound_wakes(why): a scripted model is woken with calls that nobody answered"
    )


@pytest.fixture(autouse=True, scope="session")
def shared() -> Iterator[None]:
    with share():
        yield


@pytest.fixture(autouse=True)
def sound_wakes(request: pytest.FixtureRequest) -> Iterator[None]:
    """No scripted model was woken with a history that a strict provider refuses."""
    UNSOUND_WAKES.clear()
    yield
    expected = request.node.get_closest_marker("unsound_wakes") is not None
    assert expected or not UNSOUND_WAKES, UNSOUND_WAKES


@pytest.fixture(autouse=True)
def no_guard_of_before() -> Iterator[None]:
    """A guard that a test left open, with its jobs, stops no plain tool of the next one."""
    yield
    for point in list(BELT._points):  # of a test that left its guard open
        BELT.forget(point)


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    made = open_studio(tmp_path)
    yield made
    made.guard.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """The run's PostgreSQL server; see `tests.support.databases`."""
    with postgres_server() as server:
        yield server


@pytest.fixture(params=DATABASES)
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a new ledger, on each database."""
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path / 'ledger.db'}"
        return
    url = postgres_url(request.getfixturevalue("postgres"))
    yield url
    drop_ledger(url)


@pytest.fixture
def place(ledger_url: str, tmp_path: Path) -> Place:
    """Where a new ledger goes, on each database."""
    return Place(url=ledger_url, folder=tmp_path)


@pytest.fixture
def postgres_place(postgres: Any, tmp_path: Path) -> Iterator[Place]:
    """Where a new ledger goes, on PostgreSQL."""
    url = postgres_url(postgres)
    yield Place(url=url, folder=tmp_path)
    drop_ledger(url)


@pytest.fixture
def clock() -> Clock:
    """The ledger's time, turned by hand."""
    return Clock()


@pytest.fixture
def ledger(place: Place, clock: Clock) -> Iterator[Ledger]:
    with ledger_at(place, clock) as opened:
        yield opened


@pytest.fixture
def bench(ledger: Ledger) -> Bench:
    """Grants and answers made by hand, on a ledger of each database."""
    return Bench(ledger)


@pytest.fixture
def other(place: Place) -> Iterator[Ledger]:
    """The same ledger, opened by somebody else."""
    with ledger_at(place) as opened:
        yield opened


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """The command line, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return Shell(tmp_path)
