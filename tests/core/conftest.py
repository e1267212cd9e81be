from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentguard.ledger.ledger import Ledger
from tests.core.command_line import Shell
from tests.core.ledgers import Place, ledger_at
from tests.databases import drop_ledger, postgres_url


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
def ledger(place: Place) -> Iterator[Ledger]:
    with ledger_at(place) as opened:
        yield opened


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
