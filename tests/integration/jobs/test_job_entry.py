"""I6: a job id selects, the entry proves. Whoever only knows the id of a job acts in none."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import json
import logging
import pickle
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.pregel.remote import RemoteGraph
from langgraph.types import Command, Send

from agentguard import Guard
from agentguard.errors import JobError
from agentguard.jobs.entry import ENTRY_KEY, Entry
from agentguard.jobs.job import CONFIG_KEY, Job, current_job
from agentguard.langgraph import GuardMiddleware, protect
from tests.race.ways_in import WAYS, Scripted, graph_of
from tests.support import GO, KIM, OMAR, State, Studio, call, open_studio, results, says

NOT_ENTERED = "is open here, but this run was not entered: pass job.config(...)"
NO_JOB = "this run belongs to no job; run it inside `with guard.open_job(...) as job:`"


def elsewhere(work: Callable[[], Any]) -> Any:
    """What comes of it where no `with` stands around: a plain thread begins in an empty context."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(60)


def job_of(studio: Studio, by: str = KIM) -> Job:
    """An open job that this context is not inside of."""
    return studio.guard.open_job("poster", requested_by=by)


def script_of(studio: Studio, job: Job, to: str = "team") -> list[AIMessage]:
    asset = job.import_asset(studio.picture(), ["brand"])
    return [says(call("publish", {"source": asset, "to": to}, id="c1"), id="m1")]


def publishes(studio: Studio, job: Job, way: str = "protect", **more: Any) -> Any:
    """A graph that sends a picture of this job to the team, which needs nobody's approval."""
    return graph_of(studio, way, studio.tools["publish"], script_of(studio, job), **more)


def config_of(job: Job, **changes: Any) -> Any:
    """The job's own config with some keys of `configurable` changed."""
    return {"configurable": {**job.config(thread_id="t")["configurable"], **changes}}


def require_refused(studio: Studio, graph: Any, config: Any, *words: str) -> None:
    said = results(graph.invoke(GO, config))[-1]
    assert studio.world.count("publish") == 0
    assert said.status == "error"
    for word in words:
        assert word in said.content


# --- what proves nothing ----------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_id_of_an_open_job_alone_is_refused(
    studio: Studio, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    job = job_of(studio)
    known: Any = {"configurable": {"thread_id": "t", CONFIG_KEY: job.id}}
    require_refused(studio, publishes(studio, job, way), known, f"job {job.id} {NOT_ENTERED}")
    why = f"thread 't', by agentguard.no-job: job {job.id} {NOT_ENTERED}"
    assert caplog.text.count("refused: publish as ") == 1
    assert why in caplog.text


@pytest.mark.parametrize("way", WAYS)
def test_id_of_kims_open_job_in_a_plain_thread_is_refused(studio: Studio, way: str) -> None:
    """The attack: the thread is another's, Kim's job is open in this process, her id is known."""
    with job_of(studio) as job:
        graph = publishes(studio, job, way)
        known: Any = {"configurable": {"thread_id": "t", CONFIG_KEY: job.id}}
        elsewhere(lambda: require_refused(studio, graph, known, NOT_ENTERED))


@pytest.mark.parametrize("way", WAYS)
def test_id_is_neither_proven_by_another_persons_job(studio: Studio, way: str) -> None:
    job = job_of(studio)
    graph = publishes(studio, job, way)
    known: Any = {"configurable": {"thread_id": "t", CONFIG_KEY: job.id}}
    with job_of(studio, OMAR):
        require_refused(studio, graph, known, "names another job")


class Lookalike:
    """It prints, compares and hashes as whatever it is compared with."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    def __repr__(self) -> str:
        return "<entry>"

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash(self._entry)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return Entry


FORGED: dict[str, Callable[[Entry], Any]] = {
    "its text": repr,
    "a text": lambda entry: "entry",
    "no text": lambda entry: "",
    "a number": id,
    "a hash": hash,
    "nothing": lambda entry: None,
    "true": lambda entry: True,
    "a mapping": lambda entry: {"entry": "<entry>"},
    "a mapping with the entry": lambda entry: {"entry": entry},
    "a list": lambda entry: [entry],
    "bytes": lambda entry: b"<entry>",
    "an object": lambda entry: object(),
    "the class": lambda entry: Entry,
    "a lookalike": Lookalike,
    "an entry that nobody gave out": lambda entry: Entry(),
}


@pytest.mark.parametrize("forged", FORGED)
def test_what_is_no_live_entry_is_refused_and_not_made_up_for(studio: Studio, forged: str) -> None:
    job = job_of(studio)
    graph = publishes(studio, job)
    value = FORGED[forged](job.entry)
    known = config_of(job, **{ENTRY_KEY: value})
    unnamed = config_of(job, **{ENTRY_KEY: value, CONFIG_KEY: None})
    for config in (known, unnamed):
        require_refused(studio, graph, config, "job.config(...)")
    with job:
        for config in (known, unnamed):
            require_refused(studio, graph, config, "job.config(...)")
        assert studio.guard.jobs.find(job.config()["configurable"]) is job


@pytest.mark.parametrize("way", WAYS)
def test_forged_entry_is_refused_on_every_way_in(studio: Studio, way: str) -> None:
    with job_of(studio) as job:
        config = config_of(job, **{ENTRY_KEY: "<entry>"})
        graph = publishes(studio, job, way)
        require_refused(studio, graph, config, "holds a str, expected what job.config(...) put")


def test_entry_of_one_job_with_the_id_of_another_is_refused(studio: Studio) -> None:
    mine, theirs = job_of(studio, OMAR), job_of(studio)
    graph = publishes(studio, theirs)
    require_refused(studio, graph, config_of(mine, **{CONFIG_KEY: theirs.id}), "another job")
    require_refused(studio, graph, config_of(theirs, **{CONFIG_KEY: mine.id}), "another job")


@pytest.mark.parametrize("named", ["", 1, True, {}, [], {"id": "x"}, b"job", 1.5])
def test_id_that_is_no_text_is_refused(studio: Studio, named: Any) -> None:
    job = job_of(studio)
    graph = publishes(studio, job)
    require_refused(studio, graph, config_of(job, **{CONFIG_KEY: named}), "another job")
    known: Any = {"configurable": {"thread_id": "t2", CONFIG_KEY: named}}
    require_refused(studio, graph, known, "job.config(...)")


def test_entry_and_with_of_two_jobs_is_refused(studio: Studio) -> None:
    mine, theirs = job_of(studio), job_of(studio)
    graph = publishes(studio, theirs)
    with mine:
        require_refused(studio, graph, theirs.config(thread_id="t"), "another job", mine.id)


def test_entry_of_a_job_that_was_left_is_refused(studio: Studio) -> None:
    with job_of(studio) as job:
        graph = publishes(studio, job)
    require_refused(studio, graph, job.config(thread_id="t"), "is not open", "rejoin_job")
    with job_of(studio):  # nor does the job around it make up for it
        left = {ENTRY_KEY: job.entry}
        require_refused(studio, graph, {"configurable": {"thread_id": "t2", **left}}, "is not open")


def test_entry_of_a_job_whose_lease_was_lost_is_refused(studio: Studio) -> None:
    job = job_of(studio)
    graph = publishes(studio, job)
    studio.guard.ledger.end_job(job.id, reason="a person stopped it")
    studio.guard.jobs.renew()
    require_refused(studio, graph, job.config(thread_id="t"), "is not open")
    with job:
        require_refused(studio, graph, {"configurable": {"thread_id": "t2"}}, "belongs to no job")


def test_entry_of_an_old_handle_is_refused_once_its_job_was_entered_again(studio: Studio) -> None:
    with job_of(studio) as old:
        asset = old.import_asset(studio.picture(), ["likeness"])
        script = [says(call("publish", {"source": asset, "to": "team"}, id="c1"), id="m1")]
        graph = graph_of(studio, "protect", studio.tools["publish"], script)
        assert graph.invoke(GO, old.config(thread_id="t"))["__interrupt__"]
    studio.answer(studio.pending().request, OMAR)
    with studio.guard.rejoin_job(old.id, by=KIM) as job:
        assert job.entry is not old.entry
        state = elsewhere(lambda: graph.invoke(None, old.config(thread_id="t")))
        assert state["__interrupt__"]
        assert studio.world.count("publish") == 0
        state = elsewhere(lambda: graph.invoke(None, job.config(thread_id="t")))
        assert results(state)[-1].status == "success"
    assert studio.world.count("publish") == 1


def test_entry_of_another_guard_is_refused(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = open_studio(tmp_path / "other")
    with other.guard, other.guard.open_job("poster", requested_by=KIM) as theirs:
        with job_of(studio) as job:
            graph = publishes(studio, job)
            config = config_of(job, **{ENTRY_KEY: theirs.entry, CONFIG_KEY: theirs.id})
            require_refused(studio, graph, config, "another Guard")
        require_refused(studio, graph, {"configurable": {"thread_id": "t2"}}, "no job")
        same = Guard.from_config(studio.folder / "agentguard.toml", clock=studio.clock)
        with same:  # the same workspace, opened twice, is two guards
            kept = job_of(studio)
            with pytest.raises(JobError, match="another Guard"):
                same.jobs.find(kept.config()["configurable"])


# --- what an entry is -------------------------------------------------------------------------


def test_entry_can_not_be_stored_sent_or_made_up(studio: Studio) -> None:
    job = job_of(studio)
    config = job.config()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="stays in its process"):
            pickle.dumps(config, protocol)
    with pytest.raises(TypeError):
        json.dumps(config)
    with pytest.raises(TypeError):
        JsonPlusSerializer().dumps_typed(config)
    for fallback in (False, True):
        serializer = JsonPlusSerializer(pickle_fallback=fallback)
        with pytest.raises(TypeError):
            serializer.dumps_typed(job.entry)
    with pytest.raises(TypeError):
        type("Forged", (Entry,), {})
    with pytest.raises(AttributeError):
        job.entry.secret = "x"  # type: ignore[attr-defined]
    assert str(config["configurable"][ENTRY_KEY]) == f"{job.entry}" == "<entry>"
    assert str(job.entry) != str(id(job.entry))


def test_copied_config_still_enters(studio: Studio) -> None:
    """Code that changes a config copies it first; an entry keeps its identity."""
    job = job_of(studio)
    copies: tuple[Any, ...] = (
        copy.deepcopy(job.config()),
        copy.copy(job.config()),
        {**job.config()},
    )
    for copied in copies:
        assert copied["configurable"][ENTRY_KEY] is job.entry
        assert studio.guard.jobs.find(copied["configurable"]) is job


def test_config_made_from_another_jobs_config_enters_its_own_job(studio: Studio) -> None:
    first, second = job_of(studio), job_of(studio)
    config = second.config(first.config(thread_id="t"))
    assert studio.guard.jobs.find(config["configurable"]) is second
    assert config["configurable"]["thread_id"] == "t"


# --- where it reaches, without any `with` around ----------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_config_enters_from_a_plain_thread(studio: Studio, way: str) -> None:
    with job_of(studio) as job:
        graph = publishes(studio, job, way)
        done: list[Any] = []
        thread = threading.Thread(
            target=lambda: done.append(graph.invoke(GO, job.config(thread_id="t")))
        )
        thread.start()
        thread.join(60)
    assert results(done[0])[-1].status == "success"
    assert studio.world.count("publish") == 1


@pytest.mark.parametrize("way", WAYS)
async def test_config_enters_from_tasks_and_executors(studio: Studio, way: str) -> None:
    job = job_of(studio)
    graph = publishes(studio, job, way)
    empty = contextvars.Context()
    loop = asyncio.get_running_loop()
    states = [
        await asyncio.create_task(graph.ainvoke(GO, job.config(thread_id="a")), context=empty),
        await asyncio.to_thread(graph.invoke, GO, job.config(thread_id="b")),
        await loop.run_in_executor(None, graph.invoke, GO, job.config(thread_id="c")),
        await empty.run(asyncio.ensure_future, graph.ainvoke(GO, job.config(thread_id="d"))),
        *(await graph.abatch([GO], job.config(thread_id="e"))),
    ]
    assert {results(state)[-1].status for state in states} == {"success"}
    assert current_job() is None


@pytest.mark.parametrize("mode", ["values", "updates", "messages", "custom", "tasks", "debug"])
def test_config_enters_a_stream(studio: Studio, mode: Any) -> None:
    job = job_of(studio)
    graph = publishes(studio, job)
    list(graph.stream(GO, job.config(thread_id="t"), stream_mode=mode))
    assert studio.world.count("publish") == 1


def outer(work: Callable[..., Any]) -> Any:
    """A graph of one node, which does something with another graph."""
    builder = StateGraph(State)
    builder.add_node("node", work)
    builder.add_edge(START, "node")
    return builder.compile(checkpointer=InMemorySaver())


def nested(inner: Any, how: str) -> Any:
    """A graph that runs another one within it, in one of the ways that people do."""
    own: Any = {"configurable": {"tenant": "acme"}}
    if how == "as a node":
        return outer(inner)
    if how == "by hand":
        return outer(lambda state: {"messages": inner.invoke(GO)["messages"]})
    if how == "with the node's config":
        return outer(lambda state, config: {"messages": inner.invoke(GO, config)["messages"]})
    if how == "with keys of its own":
        return outer(lambda state: {"messages": inner.invoke(GO, own)["messages"]})
    if how == "in a lambda":
        return outer(RunnableLambda(lambda state: GO) | inner | (lambda made: made))
    if how == "bound to keys of its own":
        return outer(inner.with_config(configurable={"tenant": "acme"}))
    assert how == "by Send"
    builder = StateGraph(State)
    builder.add_node("inner", inner)
    builder.add_conditional_edges(START, lambda state: [Send("inner", GO)], ["inner"])
    return builder.compile(checkpointer=InMemorySaver())


@pytest.mark.parametrize(
    "how",
    [
        "as a node", "by hand", "with the node's config", "with keys of its own", "in a lambda",
        "bound to keys of its own", "by Send",
    ],
)  # fmt: skip
def test_config_enters_graphs_within_graphs(studio: Studio, how: str) -> None:
    job = job_of(studio)
    asset = job.import_asset(studio.picture(), ["brand"])
    script = [says(call("publish", {"source": asset, "to": "team"}))]
    inner = graph_of(studio, "protect", studio.tools["publish"], script, saver=True)
    state = nested(inner, how).invoke(GO, job.config(thread_id="t"))
    assert studio.world.count("publish") == 1, results(state)


def test_child_graph_with_a_thread_of_its_own_is_in_the_with_or_in_no_job(studio: Studio) -> None:
    """LangGraph drops what was in `configurable` then: an explicit thread addresses its own run."""
    job = job_of(studio)
    inner = publishes(studio, job)
    own = iter("ab")

    def node(state: State) -> Any:
        child = inner.invoke(GO, {"configurable": {"thread_id": next(own)}})
        return {"messages": child["messages"]}

    graph = outer(node)
    said = results(graph.invoke(GO, job.config(thread_id="t")))[-1]
    assert studio.world.count("publish") == 0
    assert NO_JOB in said.content
    assert "a child graph with a thread_id of its own" in said.content
    with job:
        graph.invoke(GO, job.config(thread_id="t2"))
    assert studio.world.count("publish") == 1


def test_child_graph_with_a_thread_of_its_own_is_entered_by_a_config_made_from_the_nodes(
    studio: Studio,
) -> None:
    job = job_of(studio)
    inner = publishes(studio, job)

    def node(state: State) -> Any:
        return {"messages": inner.invoke(GO, job.config(thread_id="own"))["messages"]}

    outer(node).invoke(GO, job.config(thread_id="t"))
    assert studio.world.count("publish") == 1


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_config_enters_the_functional_api(studio: Studio, mode: str) -> None:
    job = job_of(studio)
    asset = job.import_asset(studio.picture(), ["brand"])
    (tool,) = studio.guard.tools([studio.tools["publish"]], agent="publisher", gate="inline")

    @task
    def send() -> ToolMessage:
        made: ToolMessage = tool.invoke(call("publish", {"source": asset, "to": "team"}))
        return made

    @entrypoint(checkpointer=InMemorySaver())
    def flow(given: str) -> str:
        return send().result().status

    config = job.config(thread_id="t")
    flowed = flow.invoke("x", config) if mode == "sync" else await flow.ainvoke("x", config)
    assert flowed == "success"


@pytest.mark.parametrize("way", WAYS)
def test_question_is_asked_and_answered_from_a_thread(studio: Studio, way: str) -> None:
    job = job_of(studio)
    asset = job.import_asset(studio.picture(), ["likeness"])
    script = [says(call("publish", {"source": asset, "to": "team"}, id="c1"), id="m1")]
    graph = graph_of(studio, way, studio.tools["publish"], script)
    known: Any = {"configurable": {"thread_id": "t", CONFIG_KEY: job.id}}
    assert graph.invoke(GO, job.config(thread_id="t"))["__interrupt__"]
    studio.answer(studio.pending().request, OMAR)
    inputs: tuple[Any, ...] = (
        None,
        Command(resume=True),
        Command(resume={"decisions": [{"type": "approve"}]}),
    )
    for given in inputs:
        for config in (known, {"configurable": {"thread_id": "t"}}):
            (asked,) = elsewhere(functools.partial(graph.invoke, given, config))["__interrupt__"]
            assert "which is open here, but this run was not entered" in asked.value["description"]
            assert "rejoin_job" not in asked.value["description"]
    assert studio.world.count("publish") == 0
    state = elsewhere(lambda: graph.invoke(None, job.config(thread_id="t")))
    assert results(state)[-1].status == "success"
    assert studio.world.count("publish") == 1


def test_media_of_a_run_that_only_names_a_job_are_not_taken_into_it(studio: Studio) -> None:
    job = job_of(studio)
    data = "data:image/png;base64," + "iVBORw0KGgo="
    block = {"type": "image_url", "image_url": {"url": data}}
    given = {"messages": [("user", [{"type": "text", "text": "look"}, block])]}
    graph = publishes(studio, job, "middleware")
    before = studio.guard.ledger.all("SELECT * FROM asset_jobs")
    graph.invoke(given, {"configurable": {"thread_id": "t", CONFIG_KEY: job.id}})
    assert studio.guard.ledger.all("SELECT * FROM asset_jobs") == before


@pytest.mark.parametrize("way", ["protect", "middleware"])
def test_unknown_tool_is_not_recorded_in_a_job_that_the_run_only_names(
    studio: Studio, way: str
) -> None:
    job = job_of(studio)
    script = [says(call("no_such_tool", {}))]
    graph = graph_of(studio, way, studio.tools["publish"], script)
    graph.invoke(GO, {"configurable": {"thread_id": "t", CONFIG_KEY: job.id}})
    (refused,) = records(studio, "agentguard.unknown-tool")
    assert job.id not in refused
    graph.invoke(GO, job.config(thread_id="t2"))
    assert job.id in records(studio, "agentguard.unknown-tool")[-1]


def records(studio: Studio, word: str) -> list[str]:
    rows = studio.guard.ledger.all("SELECT body FROM records ORDER BY idx")
    return [row["body"] for row in rows if word in row["body"]]


# --- where it does not appear -----------------------------------------------------------------


def entries_in(thing: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """Every Entry that can be reached from an event, a run or a snapshot."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Entry):
        yield thing
    elif isinstance(thing, Mapping):
        for key, value in thing.items():
            yield from entries_in(key, seen)
            yield from entries_in(value, seen)
    elif isinstance(thing, (list, tuple, set, frozenset)):
        for item in thing:
            yield from entries_in(item, seen)
    elif hasattr(thing, "__dict__") and not isinstance(thing, type):
        yield from entries_in(vars(thing), seen)


class Everything(BaseCallbackHandler):
    """Keeps whatever a callback handler is told."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_"):
            heard = self.heard
            return lambda *args, **kwargs: heard.append((name, args, kwargs))
        return super().__getattribute__(name)


class Quiet(Scripted):
    """Says everything at once: the scripted model streams what it was not given."""

    disable_streaming: Any = True


class Tracer(BaseTracer):
    """Keeps whole runs, as LangSmith's tracer sends them."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        self.runs.append(run)


def test_entry_is_in_no_checkpoint(studio: Studio) -> None:
    path = studio.folder / "threads.db"
    connection = sqlite3.connect(path, check_same_thread=False)
    saver = SqliteSaver(connection)
    job = job_of(studio)
    graph = publishes(studio, job, saver=saver)
    for durability in ("sync", "async", "exit"):
        thread: Any = job.config(thread_id=durability)
        graph.invoke(GO, thread, durability=durability)
    graph.update_state(job.config(thread_id="sync"), {"messages": [("user", "more")]})
    for kept in [*saver.list(None), *graph.get_state_history(job.config(thread_id="sync"))]:
        assert list(entries_in(kept)) == []
        assert ENTRY_KEY not in repr(kept)
    assert any(kept.metadata.get(CONFIG_KEY) == job.id for kept in saver.list(None))
    assert list(entries_in(graph.get_state(job.config(thread_id="sync")))) == []
    connection.commit()
    connection.close()
    written = b"".join(one.read_bytes() for one in studio.folder.glob("threads.db*"))
    assert job.id.encode() in written  # it was looked for where it would be
    assert b"agentguard_entry" not in written
    assert b"<entry>" not in written


@pytest.mark.parametrize("way", WAYS)
async def test_entry_is_in_no_callback_tracer_event_or_log(
    studio: Studio, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    everything, tracer = Everything(), Tracer()
    job = job_of(studio)
    graph: Any = publishes(studio, job, way)
    if way == "middleware":
        guarded = GuardMiddleware(studio.guard, agent="publisher")
        graph = create_agent(
            Quiet(script=script_of(studio, job)), [studio.tools["publish"]], middleware=[guarded]
        )
    config = {**job.config(thread_id="t"), "callbacks": [everything, tracer]}
    events: list[Any] = [event async for event in graph.astream_events(GO, config, version="v2")]
    modes = ["values", "updates", "messages", "custom", "tasks"]
    config = {**job.config(thread_id="t2"), "callbacks": [everything, tracer]}
    events += [event async for event in graph.astream(GO, config, stream_mode=modes)]
    assert studio.world.count("publish") == 2
    assert tracer.runs
    for heard in (everything.heard, [run.__dict__ for run in tracer.runs], events, caplog.records):
        assert list(entries_in(heard)) == []
        assert ENTRY_KEY not in repr(heard)
    assert ENTRY_KEY not in caplog.text


@pytest.mark.parametrize("mode", ["debug", "checkpoints"])
def test_stream_that_shows_the_config_shows_an_opaque_object(studio: Studio, mode: Any) -> None:
    """Those two modes show a run's whole config, and a client of a server may ask for them."""
    job = job_of(studio)
    events = list(publishes(studio, job).stream(GO, job.config(thread_id="t"), stream_mode=mode))
    assert {repr(found) for found in entries_in(events)} == {"<entry>"}
    shown = json.dumps(events, default=repr)
    assert '"__agentguard_entry": "<entry>"' in shown
    sent_back = json.loads(json.dumps(config_of(job), default=repr))
    require_refused_anew(studio, job, sent_back)


def require_refused_anew(studio: Studio, job: Job, config: Any) -> None:
    studio.world.effects.clear()
    config["configurable"]["thread_id"] = "copied"
    require_refused(studio, publishes(studio, job), config, "holds a str")


class Client:
    """Stands in for a server's client: keeps what would be sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.runs = self

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        self.sent.append(kwargs)
        return iter(())


def test_remote_graph_sends_no_entry(studio: Studio) -> None:
    client: Any = Client()
    remote = RemoteGraph("studio", sync_client=client)
    list(remote.stream(GO, job_of(studio).config(thread_id="t")))
    assert client.sent
    assert list(entries_in(client.sent)) == []
    assert ENTRY_KEY not in json.dumps(client.sent, default=repr)


def test_protected_subgraph_is_entered_by_its_parents_config(studio: Studio) -> None:
    """A protected graph in a protected graph, in a context that is inside of no job."""
    job = job_of(studio)
    asset = job.import_asset(studio.picture(), ["brand"])
    script = [says(call("publish", {"source": asset, "to": "team"}))]
    inner = graph_of(studio, "protect", studio.tools["publish"], script, saver=True)
    builder = StateGraph(State)
    builder.add_node("inner", inner)
    builder.add_edge(START, "inner")
    graph = protect(builder, studio.guard, agents={}).compile(checkpointer=InMemorySaver())
    elsewhere(lambda: graph.invoke(GO, job.config(thread_id="t")))
    assert studio.world.count("publish") == 1
