"""Where an extra is not installed, the error names it as pip takes it."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("missing", "code", "extra"),
    [
        ("langchain", "from agentguard.langgraph import GuardMiddleware", "langchain"),
        ("langchain", "import agentguard.langgraph.middleware", "langchain"),
        ("langchain.agents", "from agentguard.langgraph import GuardMiddleware", "langchain"),
        ("langchain", "from agentguard.langgraph import known; known.todos()", "langchain"),
        (
            "psycopg",
            "from agentguard.ledger.storage.open import open_storage\n"
            "open_storage('postgresql://host/database', clock=None, checkpoints=None)",
            "postgres",
        ),
    ],
)
def test_error_of_missing_extra_names_it(missing: str, code: str, extra: str) -> None:
    block = f"import sys; sys.modules[{missing!r}] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", block + code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert f'pip install "agentguard[{extra}]"' in last
    assert "needs" in last


def test_graphs_are_guarded_without_langchain() -> None:
    code = "import sys; sys.modules['langchain'] = None\nfrom agentguard.langgraph import protect"
    subprocess.run([sys.executable, "-c", code], check=True)
