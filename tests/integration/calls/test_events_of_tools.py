"""Nothing that a media tool's body starts or says reaches the caller's events (I4)."""

from __future__ import annotations

import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import (
    BaseCallbackHandler,
    adispatch_custom_event,
    dispatch_custom_event,
)
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langchain_core.tracers.context import collect_runs
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolRuntime
from langgraph.types import interrupt

from agentguard.langgraph import GuardMiddleware
from tests.support import GO, KIM, Studio, call, results, says
from tests.support.bindings import Binding
from tests.support.chat_models import Scripted

MODES = ["values", "updates", "messages", "custom", "tasks", "debug", "checkpoints"]


class Ear(BaseCallbackHandler):
    """Hears everything, as a tracer does."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda *args, **kwargs: self.heard.append(f"{name} {args!r} {kwargs!r}")
        return super().__getattribute__(name)


def data_of(source: str) -> str:
    return base64.b64encode(Path(source).read_bytes()).decode()


def picture_message(source: str) -> list[HumanMessage]:
    return [
        HumanMessage(
            [
                {"type": "text", "text": f"what is on {source}?"},
                {"type": "image", "base64": data_of(source), "mime_type": "image/png"},
            ]
        )
    ]


def model() -> Scripted:
    return Scripted(messages=iter([AIMessage("a square")]), disable_streaming=True)


def by_model(source: str, **_: Any) -> None:
    model().invoke(picture_message(source))


def by_runnable(source: str, **_: Any) -> None:
    RunnableLambda(lambda text: text).invoke(source + data_of(source))


def by_event(source: str, **_: Any) -> None:
    dispatch_custom_event("progress", {"reading": source})


def by_writer(source: str, **_: Any) -> None:
    get_stream_writer()({"reading": source})


def by_graph(source: str, **_: Any) -> None:
    builder: Any = StateGraph(MessagesState)
    builder.add_node("see", lambda state: {"messages": [model().invoke(state["messages"])]})
    builder.add_edge(START, "see")
    builder.compile().invoke({"messages": picture_message(source)})


def by_runtime(source: str, runtime: Any = None, **_: Any) -> None:
    runtime.stream_writer({"reading": source})
    runtime.emit_output_delta(source)
    RunnableLambda(lambda text: text).invoke(source, runtime.config)


def by_config(source: str, config: Any = None, **_: Any) -> None:
    model().invoke(picture_message(source), config)
    config["configurable"]["__pregel_runtime"].stream_writer(source)


def by_callbacks(source: str, callbacks: Any = None, **_: Any) -> None:
    model().invoke(picture_message(source), {"callbacks": callbacks})


WAYS: dict[str, Callable[..., None]] = {
    way.__name__: way
    for way in (
        *(by_model, by_runnable, by_event, by_writer),
        *(by_graph, by_runtime, by_config, by_callbacks),
    )
}


def agent(studio: Studio, way: Callable[..., None], *, asynchronous: bool) -> Any:
    """An agent over one tool whose body speaks in one way; what its body saw; and its job."""
    seen: list[str] = []
    if asynchronous:

        @tool
        async def look_at(source: str, runtime: ToolRuntime, config: RunnableConfig) -> str:
            """Look at a picture."""
            seen.append(source)
            if way is by_event:
                await adispatch_custom_event("progress", {"reading": source})
            elif way is not by_callbacks:
                way(source, runtime=runtime, config=config)
            return "looked"

    else:

        @tool
        def look_at(
            source: str, runtime: ToolRuntime, config: RunnableConfig, callbacks: Any = None
        ) -> str:
            """Look at a picture."""
            seen.append(source)
            way(source, runtime=runtime, config=config, callbacks=callbacks)
            return "looked"

    studio.guard.bind(Binding(look_at, stage="edit", assets=["source"]))
    job = studio.guard.open_job("launch", requested_by=KIM)
    asset = job.import_asset(studio.picture(), ["brand"])
    asked = says(call("look_at", {"source": asset}))
    made = create_agent(
        Scripted(messages=iter([asked, AIMessage("done")]), disable_streaming=True),
        [look_at],
        middleware=[GuardMiddleware(studio.guard, agent="editor")],
        checkpointer=InMemorySaver(),
    )
    return made, seen, job


def require_silent(said: list[str], seen: list[str], studio: Studio) -> None:
    (source,) = seen
    text = "\n".join(said)
    assert "looked" in text
    assert str(Path(source).parent) not in text
    assert base64.b64encode(studio.picture().read_bytes()).decode()[:40] not in text


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_streams_and_handlers_hear_nothing_of_a_body(
    studio: Studio, way: Callable[..., None]
) -> None:
    graph, seen, job = agent(studio, way, asynchronous=False)
    with job:
        ear = Ear()
        config = {**job.config(thread_id="t"), "callbacks": [ear]}
        said = [repr(s) for s in graph.stream(GO, config, stream_mode=MODES, subgraphs=True)]
    require_silent(said, seen, studio)
    require_silent(ear.heard, seen, studio)


@pytest.mark.parametrize("asynchronous", [True, False], ids=["async body", "sync body"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_asynchronous_streams_and_events_hear_nothing_of_a_body(
    studio: Studio, way: Callable[..., None], asynchronous: bool
) -> None:
    graph, seen, job = agent(studio, way, asynchronous=asynchronous)
    with job:
        ear = Ear()
        config = {**job.config(thread_id="t"), "callbacks": [ear]}
        said = [repr(e) async for e in graph.astream_events(GO, config, version="v2")]
    require_silent(said, seen, studio)
    require_silent(ear.heard, seen, studio)


def test_a_handler_that_a_configure_hook_adds_hears_nothing_of_a_body(studio: Studio) -> None:
    graph, seen, job = agent(studio, by_model, asynchronous=False)
    with job, collect_runs() as collected:
        graph.invoke(GO, job.config(thread_id="t"))
    require_silent([run.model_dump_json() for run in collected.traced_runs], seen, studio)


def test_a_body_without_a_declared_question_takes_no_answer(studio: Studio) -> None:
    def by_question(source: str, **_: Any) -> None:
        interrupt(source)

    graph, seen, job = agent(studio, by_question, asynchronous=False)
    with job:
        state = graph.invoke(GO, job.config(thread_id="t"))
    (answer,) = results(state)
    assert "interrupts=True" in str(answer.content)
    assert len(seen) == 1


def test_the_belt_stops_an_unguarded_tool_in_a_detached_body(studio: Studio) -> None:
    def by_tool(source: str, **_: Any) -> None:
        studio.tools["publish"].invoke({"source": source, "to": "site"})

    graph, seen, job = agent(studio, by_tool, asynchronous=False)
    with job, ThreadPoolExecutor(1) as pool:
        # A thread of a pool inherits no context: the entry alone says which job it is.
        state = pool.submit(graph.invoke, GO, job.config(thread_id="t")).result()
    (answer,) = results(state)
    assert answer.status == "error"
    assert len(seen) == 1
    assert studio.world.count("publish") == 0
    rows = studio.guard.ledger.all("SELECT job, tool FROM unguarded_runs")
    assert [(row["job"], row["tool"]) for row in rows] == [(job.id, "publish")]
