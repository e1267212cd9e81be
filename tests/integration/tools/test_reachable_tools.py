"""I5: whatever a node, a branch, a reducer or a bound tool can reach past the guard is refused.

The shapes are how people write graphs, and how a hidden tool could be held: no list of them is
kept in the code, so each new one belongs here only.
"""

from __future__ import annotations

import contextvars
import dataclasses
import functools
import importlib
import itertools
import operator
import sys
import threading
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import (
    RunnableBranch,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_core.tools import tool
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from typing_extensions import TypedDict

from agentguard.errors import BindingError
from agentguard.langgraph import GuardMiddleware, nested_agents, protect
from tests.support import State, Studio, scripted
from tests.support.bindings import Binding
from tests.support.chat_models import Scripted

KEPT = RunnableLambda(lambda state: state)


@tool
def leak(source: str) -> str:
    """Send a file out."""
    return source


leak_node = ToolNode([leak])
by_name = {"leak": leak}
in_context = contextvars.ContextVar[Any]("in_context", default=leak_node)


def by_global(state: Any) -> Any:
    return leak_node.invoke(state)


def by_helper(state: Any) -> Any:
    return by_global(state)


def by_hand(state: Any) -> Any:
    return {"messages": [by_name[c["name"]].invoke(c) for c in state["messages"][-1].tool_calls]}


def by_function(state: Any) -> Any:
    return leak.func(state)  # type: ignore[attr-defined]


def looked_up(state: Any) -> Any:
    return globals()["leak_node"].invoke(state)


def imported_here(state: Any) -> Any:
    from tests.integration.tools.test_reachable_tools import leak_node as found

    return found.invoke(state)


def module_imported_here(state: Any) -> Any:
    import tests.integration.tools.test_reachable_tools

    return tests.integration.tools.test_reachable_tools.leak_node.invoke(state)


def from_context(state: Any) -> Any:
    return in_context.get().invoke(state)


class Class:
    node = leak_node


def by_class(state: Any) -> Any:
    return Class.node.invoke(state)


class Child(Class):
    pass


class Callable_:
    def __init__(self) -> None:
        self.node = leak_node

    def __call__(self, state: Any) -> Any:
        return self.node.invoke(state)


class Slots:
    __slots__ = ("node",)

    def __init__(self) -> None:
        self.node = leak_node

    def run(self, state: Any) -> Any:
        return self.node.invoke(state)


@dataclasses.dataclass
class Data:
    node: Any = dataclasses.field(default_factory=lambda: leak_node)

    def __call__(self, state: Any) -> Any:
        return self.node.invoke(state)


class Property:
    @property
    def node(self) -> Any:
        return leak_node

    def run(self, state: Any) -> Any:
        return self.node.invoke(state)


class Cached:
    @functools.cached_property
    def node(self) -> Any:
        return leak_node

    def run(self, state: Any) -> Any:
        return self.node.invoke(state)


class Text(str):
    """A text that carries something."""


class Inherited:
    def run(self, state: Any) -> Any:
        return Child.node.invoke(state)


@task
def work(state: Any) -> Any:
    return leak.invoke(state)


@entrypoint()
def entry(state: Any) -> Any:
    return work(state).result()


@functools.singledispatch
def dispatched(state: Any) -> Any:
    return state


@dispatched.register
def _(state: dict) -> Any:  # type: ignore[type-arg]
    return leak_node.invoke(state)


@functools.lru_cache
def remembered() -> Any:
    return leak_node


def generated() -> Iterator[Any]:
    node = leak_node
    state = yield
    while True:
        state = yield node.invoke(state)


def reducer(old: Any, new: Any) -> Any:
    return leak.invoke(new)


class Odd(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    odd: Annotated[str, reducer]


def holding(held: Any) -> Callable[[Any], Any]:
    """A node function with `held` in its closure."""

    def node(state: Any) -> Any:
        return held

    return node


def text_with_a_node() -> Text:
    text = Text("x")
    text.node = leak_node  # type: ignore[attr-defined]
    return text


def local() -> threading.local:
    here = threading.local()
    here.node = leak_node
    return here


def running() -> Any:
    made = generated()
    next(made)
    return made


def weak_values() -> Any:
    held: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
    held["node"] = leak_node
    return held


def objects() -> Any:
    array = np.empty(1, dtype=object)
    array[0] = leak_node
    return array


def agent() -> Any:
    return create_agent(Scripted(messages=iter([])), [leak])


SHAPES: dict[str, Callable[[], Any]] = {
    "module global": lambda: by_global,
    "through a helper": lambda: by_helper,
    "plain tool by hand": lambda: by_hand,
    "its function": lambda: by_function,
    "looked up by a constant": lambda: looked_up,
    "import in the body": lambda: imported_here,
    "module imported in the body": lambda: module_imported_here,
    "context variable": lambda: from_context,
    "class attribute": lambda: by_class,
    "inherited class attribute": lambda: Inherited().run,
    "callable object": Callable_,
    "slots, bound method": lambda: Slots().run,
    "dataclass": Data,
    "property": lambda: Property().run,
    "cached property": lambda: Cached().run,
    "partial": lambda: functools.partial(lambda node, state: state, leak_node),
    "set in a closure": lambda: holding({leak_node}),
    "deque": lambda: holding(deque([leak])),
    "mapping proxy": lambda: holding(types.MappingProxyType({"x": leak})),
    "namespace": lambda: holding(types.SimpleNamespace(x=[{"y": leak}])),
    "text subclass": lambda: holding(text_with_a_node()),
    "thread local": lambda: holding(local()),
    "generator": lambda: holding(running()),
    "weak reference": lambda: holding(weakref.ref(leak_node)),
    "weak proxy": lambda: holding(weakref.proxy(leak_node)),
    "weak values": lambda: holding(weak_values()),
    "array of objects": lambda: holding(objects()),
    "method of a dict": lambda: holding(by_name.get),
    "iterator": lambda: holding(itertools.cycle([leak])),
    "item getter": lambda: holding(operator.methodcaller("run", leak)),
    "module in a closure": lambda: (lambda module: lambda state: module.leak_node.invoke(state))(
        sys.modules[__name__]
    ),
    "single dispatch": lambda: lambda state: dispatched(state),
    "remembered by lru_cache": lambda: lambda state: remembered().invoke(state),
    "default": lambda: lambda state, node=leak_node: node.invoke(state),
    "keyword default": lambda: lambda state, *, node=leak_node: node.invoke(state),
    "ToolNode made in the body": lambda: lambda state: ToolNode([leak]).invoke(state),
    "with_fallbacks": lambda: leak_node.with_fallbacks([KEPT]),
    "as a fallback": lambda: KEPT.with_fallbacks([leak_node]),
    "with_retry": lambda: leak_node.with_retry(),
    "bound config": lambda: leak_node.with_config(tags=["x"]),
    "sequence": lambda: KEPT | leak_node,
    "RunnableParallel": lambda: RunnableParallel(a=leak_node),
    "RunnableBranch": lambda: RunnableBranch((lambda state: True, leak_node), KEPT),
    "assign": lambda: RunnablePassthrough.assign(x=leak_node),
    "entrypoint and task": lambda: entry,
    "entrypoint called by a node": lambda: lambda state: entry.invoke(state),
    "agent": agent,
    "agent with fallbacks": lambda: agent().with_fallbacks([KEPT]),
    "agent in a closure": lambda: holding([agent()]),
}


def graph_with(node: Any, schema: Any = State) -> StateGraph[Any, Any, Any, Any]:
    builder = StateGraph(schema)
    builder.add_node("model", scripted([]))
    builder.add_node("work", node)
    builder.add_edge(START, "model").add_edge("model", "work").add_edge("work", END)
    return builder


@pytest.mark.parametrize("shape", SHAPES)
def test_unguarded_tool_in_a_node_is_refused(studio: Studio, shape: str) -> None:
    with pytest.raises(
        BindingError, match=r"^node work → .*\bleak\b.*past the guard; \w+"
    ) as raised:
        protect(graph_with(SHAPES[shape]()), studio.guard, agents={})
    assert len(str(raised.value)) < 600


def test_a_proxy_of_what_died_holds_nothing(studio: Studio) -> None:
    proxy = weakref.proxy(set())
    protect(graph_with(holding(proxy)), studio.guard, agents={})
    with pytest.raises(BindingError, match="leak"):
        protect(graph_with(holding([proxy, leak_node])), studio.guard, agents={})


def test_path_of_a_conditional_edge_is_searched(studio: Studio) -> None:
    builder = graph_with(lambda state: state)

    def route(state: Any, node: Any = leak_node) -> str:
        node.invoke(state)
        return END

    builder.add_conditional_edges("work", route)
    with pytest.raises(BindingError, match=r"the conditional edge behind work → .*ToolNode"):
        protect(builder, studio.guard, agents={})


def test_reducer_is_searched(studio: Studio) -> None:
    with pytest.raises(BindingError, match=r"reducers → .*tool leak"):
        protect(graph_with(lambda state: {}, Odd), studio.guard, agents={})


def test_module_that_is_imported_later_is_searched(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late_tools.py").write_text(
        "from langchain_core.tools import tool\n"
        "@tool\ndef leak(a: str) -> str:\n    'Leak.'\n    return a\n"
    )
    (tmp_path / "late_nodes.py").write_text(
        "def node(state):\n    from late_tools import leak\n    return leak.invoke(state)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        with pytest.raises(BindingError, match=r"late_tools.*leak"):
            protect(graph_with(importlib.import_module("late_nodes").node), studio.guard, agents={})
    finally:
        for name in ("late_tools", "late_nodes"):
            sys.modules.pop(name, None)


def test_installed_application_is_the_users(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "site-packages" / "acme_app"
    place.mkdir(parents=True)
    (place / "__init__.py").write_text("")
    (place / "tools.py").write_text(
        "from langchain_core.tools import tool\n"
        "@tool\ndef leak(a: str) -> str:\n    'Leak.'\n    return a\n"
    )
    (place / "nodes.py").write_text(
        "from acme_app import tools\ndef node(state):\n    return tools.leak.invoke(state)\n"
    )
    monkeypatch.syspath_prepend(str(place.parent))
    try:
        node = importlib.import_module("acme_app.nodes").node
        with pytest.raises(BindingError, match=r"global tools.*leak"):
            protect(graph_with(node), studio.guard, agents={})
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "acme_app"]:
            del sys.modules[name]


def test_too_much_to_search_is_refused(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nested_agents, "MOST_OBJECTS", 1_000)
    many = {number: [{"a": [number]}] for number in range(1_000)}
    with pytest.raises(BindingError, match=r"node work → .*closure held .*more than 1,000 objects"):
        protect(graph_with(holding(many)), studio.guard, agents={})
    protect(graph_with(holding(many)), studio.guard, agents={}, unsafe_unsearched=["work"])


def test_a_node_that_is_not_searched_must_exist(studio: Studio) -> None:
    with pytest.raises(BindingError, match=r"unsafe_unsearched.*'wrok'.*model, work"):
        protect(graph_with(by_global), studio.guard, agents={}, unsafe_unsearched=["wrok"])


def test_a_bound_tool_without_stage_may_be_called_by_hand(studio: Studio) -> None:
    @tool
    def note(text: str) -> str:
        """Note."""
        return text

    builder = graph_with(lambda state: {"messages": [AIMessage(note.invoke("x"))]})
    with pytest.raises(BindingError, match="tool note"):
        protect(builder, studio.guard, agents={})
    studio.guard.bind(Binding(note, stage=None, texts=["text"]))
    protect(builder, studio.guard, agents={}).compile()

    @tool("note")
    def other(text: str) -> str:
        """Another tool of that name."""
        return text

    builder = graph_with(lambda state: {"messages": [AIMessage(other.invoke("x"))]})
    with pytest.raises(BindingError, match="tool note"):
        protect(builder, studio.guard, agents={})


def test_plain_function_of_a_bound_tool_is_refused(studio: Studio) -> None:
    def upload(source: str) -> str:
        """Upload."""
        return source

    studio.guard.bind(Binding(upload, stage="edit", assets=["source"]))
    with pytest.raises(BindingError, match="closure upload"):
        protect(graph_with(lambda state: upload("x")), studio.guard, agents={})


def test_guarded_copies_and_guarded_agents_are_fine(studio: Studio) -> None:
    crop = studio.tools["crop"]
    copies = {each.name: each for each in studio.guard.tools([crop])}
    gate = GuardMiddleware(studio.guard, agent="editor")
    inner = create_agent(Scripted(messages=iter([])), [crop], middleware=[gate])
    sealed = protect(_tool_graph(studio), studio.guard, agents={"tools": "editor"}).compile()
    job = studio.guard.open_job("p", requested_by="kim@acme.example")
    for node in (
        lambda state: {"messages": [copies["crop"].invoke(state)]},
        inner,
        lambda state: inner.invoke(state),
        holding([sealed, studio.guard, job, gate]),
        sealed,
    ):
        protect(graph_with(node), studio.guard, agents={}).compile()
    with job:
        pass


def test_a_guarded_agent_excuses_its_own_tools_only_inside(studio: Studio) -> None:
    crop = studio.tools["crop"]
    gate = GuardMiddleware(studio.guard, agent="editor")
    inner = create_agent(Scripted(messages=iter([])), [crop], middleware=[gate])
    with pytest.raises(BindingError, match="tool crop"):
        protect(graph_with(holding([inner, crop])), studio.guard, agents={})


def _tool_graph(studio: Studio) -> StateGraph[Any, Any, Any, Any]:
    builder = StateGraph(State)
    builder.add_node("model", scripted([]))
    builder.add_node("tools", ToolNode([studio.tools["crop"]]))
    builder.add_edge(START, "model").add_edge("model", "tools").add_edge("tools", END)
    return builder


@pytest.mark.parametrize("shape", ["agent", "agent with fallbacks", "module global", "sequence"])
def test_agents_and_nodes_inside_a_bound_tool_are_refused(studio: Studio, shape: str) -> None:
    held = SHAPES[shape]()

    @tool
    def ask(request: str) -> str:
        """Ask another agent."""
        return str(held.invoke({"messages": [("user", request)]}))

    studio.guard.bind(Binding(ask, stage=None, texts=["request"]))
    with pytest.raises(BindingError, match=r"closure held.*leak"):
        studio.guard.tools([ask])


def test_sub_agent_in_a_module_global_of_a_bound_tool_is_refused(studio: Studio) -> None:
    studio.guard.bind(Binding(ask_global, stage=None, texts=["request"]))
    with pytest.raises(BindingError, match=r"global inner_agent.*leak"):
        studio.guard.tools([ask_global])


inner_agent = agent()


@tool
def ask_global(request: str) -> str:
    """Ask another agent."""
    return str(inner_agent.invoke({"messages": [("user", request)]}))
