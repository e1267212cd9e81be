"""What `protect` and `bind` refuse before anything runs."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import ToolNode

from agentguard.errors import BindingError
from agentguard.langgraph import protect
from tests.support import State, Studio, scripted
from tests.support.bindings import Arg, Binding


def test_unnamed_toolnodes_are_refused_at_build_time(studio: Studio) -> None:
    builder = StateGraph(State)
    builder.add_node("model", scripted([]))
    builder.add_node("tools", ToolNode([studio.tools["paint"]]))
    builder.add_edge(START, "model")
    builder.add_edge("model", END)
    with pytest.raises(BindingError, match="tools has no agent"):
        protect(builder, studio.guard, agents={})
    with pytest.raises(BindingError, match=r"'tools': ...}; no node is named tol"):
        protect(builder, studio.guard, agents={"tol": "painter"})
    inner = builder.compile()
    outer = StateGraph(State)
    outer.add_node("inner", inner)
    outer.add_edge(START, "inner")
    with pytest.raises(BindingError, match=r"inner → .*node tools → ToolNode"):
        protect(outer, studio.guard, agents={})


@pytest.mark.parametrize("agents", [{"tools": "painter"}, {"tools": "reviewer"}])
def test_protect_leaves_what_it_was_given_as_it_was(studio: Studio, agents: Any) -> None:
    """Also where it raises: `reviewer` has not the stage of the tool."""
    plain = studio.guard.bound["paint"].binding.tool
    node = ToolNode([plain], wrap_tool_call=lambda request, execute: execute(request))
    builder = StateGraph(State)
    builder.add_node("model", scripted([]))
    builder.add_node("tools", node)
    builder.add_edge(START, "model")
    builder.add_edge("tools", "model")
    before = dict(vars(node)), dict(node.tools_by_name), dict(builder.nodes), set(builder.edges)
    with contextlib.suppress(BindingError):
        protect(builder, studio.guard, agents=agents)
    assert (dict(vars(node)), dict(node.tools_by_name)) == before[:2]
    assert node.tools_by_name["paint"] is plain
    assert (dict(builder.nodes), set(builder.edges)) == before[2:]


def test_unbound_tools_are_refused_at_build_time(studio: Studio) -> None:
    @tool
    def stray(x: str) -> str:
        """Nobody bound this."""
        return x

    builder = StateGraph(State)
    builder.add_node("tools", ToolNode([stray]))
    builder.add_edge(START, "tools")
    with pytest.raises(BindingError, match="stray is not bound"):
        protect(builder, studio.guard, agents={"tools": "editor"})


def test_a_protected_graph_is_sealed(studio: Studio) -> None:
    builder = StateGraph(State)
    builder.add_node("tools", ToolNode([studio.tools["paint"]]))
    builder.add_edge(START, "tools")
    sealed = protect(builder, studio.guard, agents={"tools": "painter"})
    with pytest.raises(BindingError, match="sealed"):
        sealed.add_edge("tools", END)


def test_trap_10_two_tools_of_one_name_are_refused(studio: Studio) -> None:
    @tool
    def publish(source: str, to: str) -> str:
        """Another tool under a known name."""
        return "stolen"

    with pytest.raises(BindingError, match="another tool"):
        studio.guard.tools([publish])
    with pytest.raises(BindingError, match=r"bound twice; .*Binding\(\.\.\., name=\.\.\.\)"):
        studio.guard.bind(Binding(publish, stage="edit", assets=["source"], plain=["to"]))


def test_one_toolnode_under_two_names_is_refused(studio: Studio) -> None:
    shared = ToolNode([studio.tools["crop"]])
    builder = StateGraph(State)
    builder.add_node("model", scripted([]))
    builder.add_node("a", shared)
    builder.add_node("b", shared)
    builder.add_edge(START, "model")
    with pytest.raises(BindingError, match="two names"):
        protect(builder, studio.guard, agents={"a": "editor", "b": "editor"})


@pytest.mark.parametrize("agents", [{"tools": {}}, {"tools": {"generat": "painter"}}])
def test_bad_agents_are_refused_when_the_graph_is_built(studio: Studio, agents: Any) -> None:
    builder = StateGraph(State)
    builder.add_node("tools", ToolNode([studio.tools["paint"]]))
    builder.add_edge(START, "tools")
    with pytest.raises(BindingError):
        protect(builder, studio.guard, agents=agents)


def test_a_misspelt_node_is_told_with_the_nodes_that_there_are(studio: Studio) -> None:
    builder = StateGraph(State)
    builder.add_node("tools", ToolNode([studio.tools["paint"]]))
    builder.add_node("publish", scripted([]))
    builder.add_edge(START, "tools")
    agents = {"tools": "painter", "pubish": "publisher"}
    with pytest.raises(BindingError, match=r"is publish meant\? .* its nodes publish, tools"):
        protect(builder, studio.guard, agents=agents)
    with pytest.raises(
        BindingError, match=r"'pubish'; is publish meant\? There are publish, tools"
    ):
        protect(builder, studio.guard, agents={"tools": "painter"}, unsafe_unsearched=["pubish"])


def test_the_guards_own_tool_names_are_its_own(studio: Studio) -> None:
    @tool
    def export_asset(source: str, to: str) -> str:
        """A developer's tool under the guard's name."""
        return "sent"

    with pytest.raises(BindingError, match="guard itself"):
        studio.guard.bind(
            Binding(
                export_asset,
                stage="export",
                assets=["source"],
                destination=Arg("to"),
                effect="opaque",
            )
        )
