"""The graphs of langgraph.json, loaded and called as a LangGraph server does it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from agentguard import Guard
from agentguard.errors import JobError
from agentguard.jobs.job import CONFIG_KEY
from graphs import director, serving
from graphs.running import destinations
from graphs.workspace import REQUESTER

ROOT = Path(__file__).parents[2]


def test_importing_the_served_graphs_has_no_side_effect(tmp_path: Path) -> None:
    code = "import graphs.studio, graphs.solo, graphs.serving"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True,
                   env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"})  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def factories() -> dict[str, Any]:
    """The factories that langgraph.json names, loaded as the server loads them: by file."""
    named = json.loads((ROOT / "langgraph.json").read_text("utf-8"))["graphs"]
    found = {}
    for id, where in named.items():
        path, _, variable = where.partition(":")
        spec = importlib.util.spec_from_file_location(f"served_{id}", ROOT / path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found[id] = getattr(module, variable)
    return found


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("OPENAI_API_KEY", "STUDIO_MODEL", "AGENTGUARD_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(director, "_SIZE", "640x360")
    caches = (serving._guard, serving._built, serving._jobs)
    for cache in caches:
        cache.cache_clear()
    yield tmp_path
    serving._guard().close()
    for cache in caches:
        cache.cache_clear()


def runtime(*, executes: bool, user: str | None = None) -> Any:
    """What the server hands to a factory beside the config."""
    made = SimpleNamespace(user=None if user is None else SimpleNamespace(identity=user))
    made.execution_runtime = made if executes else None
    return made


def jobs(guard: Guard) -> list[str]:
    return [row["requested_by"] for row in guard.ledger.all("SELECT requested_by FROM jobs")]


@pytest.mark.parametrize("id", ["studio", "solo"])
async def test_a_served_thread_has_one_job_for_all_its_runs(server: Path, id: str) -> None:
    make = factories()[id]
    config: Any = {"configurable": {"thread_id": "t1"}}
    await make(config, runtime(executes=False))
    assert jobs(serving._guard()) == []
    saver = InMemorySaver()
    for brief in ("A lake at dawn.", "A quiet forest."):
        graph = await make(config, runtime(executes=True))
        served = graph.copy(update={"checkpointer": saver})  # the server brings its own
        await served.ainvoke({"messages": [HumanMessage(brief)]}, config)
    assert jobs(serving._guard()) == [REQUESTER]
    assert len(destinations(serving._guard())["team"]) == 2


async def test_a_server_takes_the_caller_as_requester_and_no_job_from_a_client(
    server: Path,
) -> None:
    make = factories()["studio"]
    config: Any = {"configurable": {"thread_id": "t1"}}
    await make(config, runtime(executes=True, user="omar@studio.example"))
    assert jobs(serving._guard()) == ["omar@studio.example"]
    with pytest.raises(JobError, match="begin your own"):
        await make(config, runtime(executes=True, user="ines@studio.example"))
    with pytest.raises(JobError, match="is no configured person"):
        await make({"configurable": {"thread_id": "t2"}}, runtime(executes=True, user="eve"))
    stolen: Any = {"configurable": {"thread_id": "t3", CONFIG_KEY: "job-of-somebody"}}
    with pytest.raises(JobError, match="not by a client"):
        await make(stolen, runtime(executes=True, user="ines@studio.example"))
    with pytest.raises(JobError, match="create a thread first"):
        await make({"configurable": {}}, runtime(executes=True))
