from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentguard.testing import TestWorkspace, workspace
from tests.integration.testing.tools_under_test import CONFIG, POSTED, REACHED, TOOLS


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    POSTED.clear()
    REACHED.clear()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "agentguard.toml"
    file.write_text(CONFIG, "utf-8")
    return file


@pytest.fixture
def ws(config: Path) -> Iterator[TestWorkspace]:
    with workspace(config, tools=TOOLS) as made:
        yield made


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server on this machine that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]
