"""The graphs of langgraph.json, loaded and called as a LangGraph server does it."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from agentguard import Guard
from agentguard.errors import JobError
from agentguard.jobs.entry import ENTRY_KEY
from agentguard.jobs.job import CONFIG_KEY
from graphs import director, serving
from graphs.running import destinations
from graphs.workspace import REQUESTER

ROOT = Path(__file__).parents[2]
OMAR = "omar@studio.example"


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


async def served(make: Any, thread: str, user: str | None, **configurable: Any) -> tuple[Any, Any]:
    """The graph that a caller's run gets, and the config that the server runs it with."""
    config: Any = {"configurable": {"thread_id": thread, **configurable}}
    return await make(config, runtime(executes=True, user=user)), config


def last(state: Any) -> str:
    """The last tool message that is an error, for whoever reads the thread."""
    errors = [m for m in state["messages"] if isinstance(m, ToolMessage) and m.status == "error"]
    return str(errors[-1].content)


async def test_a_server_takes_the_caller_as_requester(server: Path) -> None:
    make = factories()["studio"]
    await served(make, "t1", OMAR)
    assert jobs(serving._guard()) == [OMAR]
    for stranger in ("eve", "", "langgraph-studio-user"):
        graph, _ = await served(make, "t2", stranger)
        assert ENTRY_KEY not in (graph.config or {}).get("configurable", {})
    assert jobs(serving._guard()) == [OMAR]
    with pytest.raises(JobError, match="create a thread first"):
        await make({"configurable": {}}, runtime(executes=True))


@pytest.mark.parametrize("id", ["studio", "solo"])
async def test_who_may_not_enter_a_threads_job_leaves_it_waiting(server: Path, id: str) -> None:
    """K5: an approver's press, or a stranger's, is no error and wakes nothing."""
    make, saver = factories()[id], InMemorySaver()
    brief = {"messages": [HumanMessage("A lake at dawn. Publish it to the public site.")]}

    async def run(user: str, given: Any) -> Any:
        graph, config = await served(make, "t1", user)
        return await graph.copy(update={"checkpointer": saver}).ainvoke(given, config)

    assert (await run(REQUESTER, brief))["__interrupt__"]
    (question,) = serving._guard().approvals.list()
    press: Any = Command(resume={"decisions": [{"type": "approve"}]})
    for user in (OMAR, "ines@studio.example", "eve", "langgraph-studio-user"):
        (asked,) = (await run(user, press))["__interrupt__"]
        assert "this run was not entered" in asked.value["description"]
    assert [one.request for one in serving._guard().approvals.list()] == [question.request]
    assert jobs(serving._guard()) == [REQUESTER]
    assert (await run(REQUESTER, press))["__interrupt__"]  # a resume value approves nothing
    assert not destinations(serving._guard()).get("site")


async def test_a_configured_service_enters_a_threads_job(
    server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = factories()["studio"]
    made = dataclasses.replace(serving._guard().workspace, services=frozenset({"scheduler"}))
    monkeypatch.setattr(serving._guard().enforcement, "workspace", made)
    graph, _ = await served(make, "t1", "scheduler")  # it opens no job of its own
    assert ENTRY_KEY not in (graph.config or {}).get("configurable", {})
    opened, _ = await served(make, "t1", REQUESTER)
    entered, _ = await served(make, "t1", "scheduler")
    assert entered.config["configurable"][ENTRY_KEY] is opened.config["configurable"][ENTRY_KEY]
    job = serving._jobs()["t1"]
    job.__exit__(None, None, None)  # once it is over, nobody else begins another one on the thread
    for user in ("scheduler", OMAR):
        graph, _ = await served(make, "t1", user)
        assert ENTRY_KEY not in (graph.config or {}).get("configurable", {})
    assert jobs(serving._guard()) == [REQUESTER]


async def test_a_client_picks_no_job_by_what_it_puts_into_its_config(server: Path) -> None:
    """It can name Kim's job, and spell the entry's key: both are refused, on either's thread."""
    make, saver = factories()["studio"], InMemorySaver()
    kims, _ = await served(make, "t1", REQUESTER)
    known = kims.config["configurable"][CONFIG_KEY]
    brief = {"messages": [HumanMessage("A lake at dawn.")]}
    forged: list[tuple[str, dict[str, Any], str]] = [
        (OMAR, {CONFIG_KEY: known}, "names another job"),
        (OMAR, {CONFIG_KEY: "job-of-somebody"}, "names another job"),
        (OMAR, {CONFIG_KEY: {"id": known}}, "names another job"),
        ("eve", {CONFIG_KEY: known}, "is open here, but this run was not entered"),
        (OMAR, {ENTRY_KEY: "<entry>"}, "holds a str"),
        (OMAR, {ENTRY_KEY: "<entry>", CONFIG_KEY: known}, "holds a str"),
        (OMAR, {ENTRY_KEY: None}, "holds a NoneType"),
        ("eve", {ENTRY_KEY: {"job": known}, CONFIG_KEY: known}, "holds a dict"),
    ]
    for number, (user, configurable, said) in enumerate(forged):
        graph, config = await served(make, f"f{number}", user, **configurable)
        graph = graph.copy(update={"checkpointer": saver})
        assert said in last(await graph.ainvoke(brief, config))
    assert serving._guard().ledger.all("SELECT * FROM assets") == []


async def test_an_entry_is_given_to_runs_only(server: Path) -> None:
    make = factories()["studio"]
    await served(make, "t1", REQUESTER)
    config: Any = {"configurable": {"thread_id": "t1"}}
    graph = await make(config, runtime(executes=False, user=REQUESTER))
    assert ENTRY_KEY not in (graph.config or {}).get("configurable", {})
