from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Studio, open_studio


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    made = open_studio(tmp_path)
    yield made
    made.guard.close()
