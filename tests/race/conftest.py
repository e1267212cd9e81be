from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.ledgers import Place


@pytest.fixture
def place(ledger_url: str, tmp_path: Path) -> Place:
    """Where a new ledger goes, on each database."""
    return Place(url=ledger_url, folder=tmp_path)
