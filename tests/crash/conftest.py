from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.aftermath import Processes, Uploads


@pytest.fixture(scope="module")
def uploads() -> Iterator[Uploads]:
    made = Uploads()
    yield made
    made.close()


@pytest.fixture(scope="module")
def processes() -> Processes:
    return Processes()
