"""Streams in every mode: as a plain graph's, but for the renamed nodes; and nothing secret in them.

A guarded graph has one step more, in which `tools` authorizes and says nothing; what `tools` would
say comes from `tools.execute`. `GuardMiddleware` adds no node, so nothing at all differs there.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph

from agentguard.langgraph import GuardMiddleware, protect
from tests.support import GO, KIM, OMAR, State, Studio, build, call, says, tool_loop
from tests.support.bindings import Binding
from tests.support.chat_models import Scripted

MODES = ["values", "updates", "messages", "custom", "checkpoints", "tasks", "debug"]
GATE, EXECUTE = "tools", "tools.execute"


@tool
def note(words: str) -> str:
    """Note something, and say how far it is."""
    writer = get_stream_writer()
    for step in (1, 2):
        writer({"step": step, "words": words})
    return f"noted {words}"


def script() -> list[AIMessage]:
    return [says(call("note", {"words": w}, id=f"c-{w}"), id=f"m-{w}") for w in ("one", "two")]


def looped() -> StateGraph[Any]:
    return tool_loop(script(), [note])


def inside(compiled: Any) -> StateGraph[Any]:
    return StateGraph(State).add_node("inner", compiled).add_edge(START, "inner")


async def events(graph: Any, config: Any, kind: str, mode: Any, given: Any = GO) -> list[Any]:
    options = {"stream_mode": mode, "subgraphs": True}
    if kind == "async":
        return [event async for event in graph.astream(given, config, **options)]
    return list(graph.stream(given, config, **options))


# --- the same shape ----------------------------------------------------------------------------


def shape(mode: str, events: list[Any], *, gated: bool) -> list[Any]:
    """What a client sees of a stream.

    Args:
        gated: it is a protected graph's: leave the gate's own step out and rename its nodes.
    """
    names = {EXECUTE: GATE, GATE: None} if gated else {}
    found: list[Any] = []
    for namespace, event in events:
        path = tuple(part.split(":")[0] for part in namespace)
        one = _SHAPES[mode](event, names)
        if one is not None and (path, one) not in found[-1:]:  # the gate repeats the state
            found.append((path, one))
    return found


def texts(value: Any) -> Any:
    if isinstance(value, BaseMessage):
        return (value.type, value.content)
    if isinstance(value, dict):
        return {key: texts(item) for key, item in value.items()}
    return [texts(item) for item in value] if isinstance(value, (list, tuple)) else value


def _value(event: Any, names: Names) -> Any:
    return texts(event)


def _update(event: dict[str, Any], names: Names) -> Any:
    named = {names.get(name, name): texts(value) for name, value in event.items()}
    return {name: value for name, value in named.items() if name} or None


def _message(event: Any, names: Names) -> Any:
    message, about = event
    node = about["langgraph_node"]
    return texts(message), names.get(node, node), message.id is not None


def _checkpoint(event: dict[str, Any], names: Names) -> Any:
    following = [name.removesuffix(".execute") for name in event["next"]]
    return sorted(event), texts(event["values"]), following


def _task(event: dict[str, Any], names: Names) -> Any:
    name = names.get(event["name"], event["name"])
    return None if name is None else (name, sorted(event), texts(event.get("result")))


def _debug(event: dict[str, Any], names: Names) -> Any:
    inner = {"checkpoint": _checkpoint, "task": _task, "task_result": _task}[event["type"]]
    body = inner(event["payload"], names)
    return None if body is None else (event["type"], sorted(event), body)


Names = dict[str, str | None]

_SHAPES: dict[str, Callable[[Any, Names], Any]] = {
    "values": _value, "updates": _update, "messages": _message, "custom": _value,
    "checkpoints": _checkpoint, "tasks": _task, "debug": _debug,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("mode", MODES)
async def test_a_stream_has_the_shape_of_the_plain_graphs(
    studio: Studio, mode: str, kind: str
) -> None:
    studio.guard.bind(Binding(note, stage=None, plain=["words"]))
    bare = inside(looped().compile()).compile(checkpointer=InMemorySaver())
    expected = await events(bare, {"configurable": {"thread_id": "t"}}, kind, mode)
    inner = protect(looped(), studio.guard, agents={"tools": "editor"}).compile()
    outer = protect(inside(inner), studio.guard, agents={})
    graph = outer.compile(checkpointer=InMemorySaver())
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        found = await events(graph, job.config(thread_id="t"), kind, mode)
    assert shape(mode, found, gated=True) == shape(mode, expected, gated=False)
    assert len(expected) >= 4
    assert any(namespace for namespace, _ in found)  # the subgraph's, too


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_several_modes_at_once(studio: Studio, kind: str) -> None:
    studio.guard.bind(Binding(note, stage=None, plain=["words"]))
    bare = looped().compile(checkpointer=InMemorySaver())
    expected = await events(bare, {"configurable": {"thread_id": "t"}}, kind, MODES)
    sealed = protect(looped(), studio.guard, agents={"tools": "editor"})
    graph = sealed.compile(checkpointer=InMemorySaver())
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        found = await events(graph, job.config(thread_id="t"), kind, MODES)
    for mode in MODES:
        one = [(namespace, event) for namespace, known, event in found if known == mode]
        other = [(namespace, event) for namespace, known, event in expected if known == mode]
        assert shape(mode, one, gated=True) == shape(mode, other, gated=False), mode


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("mode", MODES)
async def test_the_middleware_changes_no_stream(studio: Studio, mode: str, kind: str) -> None:
    studio.guard.bind(Binding(note, stage=None, plain=["words"]))

    def agent(*middleware: Any) -> Any:
        said = [*script(), AIMessage("done", id="end")]
        model = Scripted(messages=iter(said), disable_streaming=True)  # as whole messages
        return create_agent(model, [note], middleware=middleware, checkpointer=InMemorySaver())

    expected = await events(agent(), {"configurable": {"thread_id": "t"}}, kind, mode)
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        guarded = agent(GuardMiddleware(studio.guard, agent="editor"))
        found = await events(guarded, job.config(thread_id="t"), kind, mode)
    assert shape(mode, found, gated=False) == shape(mode, expected, gated=False)
    assert len(found) == len(expected)


# --- nothing secret ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_no_event_and_no_checkpoint_holds_what_is_the_guards_own(
    studio: Studio, kind: str
) -> None:
    """Scratch paths, raw artifacts, exception texts, bytes, grants and credentials stay inside."""

    @tool(response_format="content_and_artifact")
    def retouch(source: str, how: str, file: str = "r.png") -> tuple[Any, Any]:
        """Retouch a picture."""
        studio.world.effects.append(("retouch", source))
        studio.world.effects.append(("retouch", file))
        if how == "fail":
            raise RuntimeError(f"EXCEPTION-TEXT at {source}")
        with open(source, "rb") as opened, open(file, "wb") as written:
            written.write(opened.read())
        with open(source, "rb") as opened:
            data = base64.b64encode(opened.read()).decode("ascii")
        block = {"type": "image", "base64": data, "mime_type": "image/png"}
        return [f"wrote {file}", block], {"raw": "RAW-ARTIFACT", "file": file}

    studio.bind(retouch, stage="edit", assets=["source"], plain=["how"], outputs=["file"])
    nodes = {"tools": ("editor", ["retouch"]), "out": ("publisher", ["publish"])}
    picture = studio.picture()
    saver = InMemorySaver()
    seen: list[Any] = []
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(picture, ["likeness"])
        graph = build(
            studio,
            [
                says(call("retouch", {"source": asset, "how": "well"})),
                says(call("retouch", {"source": asset, "how": "fail"})),
                says(call("publish", {"source": asset, "to": "team"})),
            ],
            nodes,
            checkpointer=saver,
        )
        config = job.config(thread_id="t")
        seen += await events(graph, config, kind, MODES)
        studio.answer(studio.pending().request, OMAR)
        seen += await events(graph, config, kind, MODES, given=None)
        dumped = repr(seen) + repr(list(saver.list(config))) + json.dumps(config, default=repr)
        ids = [row["id"] for table in ("grants", "credentials")
               for row in studio.guard.ledger.all(f"SELECT id FROM {table}")]  # fmt: skip
    assert studio.world.count("publish") == 1
    assert len(ids) >= 4
    paths = {path for name, path in studio.world.effects if name == "retouch"}
    folders = {path.rpartition("/")[0] for path in paths}
    raw = base64.b64encode(picture.read_bytes()).decode("ascii")
    secrets = [*ids, *paths, *folders, raw, "RAW-ARTIFACT", "EXCEPTION-TEXT", str(studio.folder)]
    assert [secret for secret in secrets if secret in dumped] == []
    for shown in ("RuntimeError", asset, "wrote"):  # it was looked for where it would be
        assert shown in dumped
