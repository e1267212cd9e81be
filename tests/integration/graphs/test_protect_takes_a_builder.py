"""`protect` takes a builder; for anything else it says what to pass."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, create_react_agent

from agentguard.errors import BindingError
from agentguard.langgraph import protect
from tests.support import Studio, scripted


def builder(studio: Studio) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode([studio.tools["look"]]))
    graph.add_edge(START, "tools")
    return graph


def react_agent(studio: Studio) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return create_react_agent(scripted([]), [studio.tools["look"]])


def functional(studio: Studio) -> Any:
    @entrypoint()
    def run(value: int) -> int:
        return value

    return run


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (lambda studio: builder(studio).compile(), "a CompiledStateGraph"),
        (react_agent, "a CompiledStateGraph"),
        (lambda studio: builder(studio).compile().with_config({"tags": ["x"]}), "a Compiled"),
        (functional, "a Pregel"),
        (lambda studio: ToolNode([studio.tools["look"]]), "a ToolNode"),
        (lambda studio: [studio.tools["look"]], "a list"),
        (lambda studio: StateGraph, "the class StateGraph"),
        (lambda studio: None, "a NoneType"),
    ],
)
def test_what_is_no_builder_is_refused_with_what_to_pass(
    studio: Studio, make: Any, got: str
) -> None:
    with pytest.raises(BindingError) as refused:
        protect(make(studio), studio.guard, agents={"tools": "reviewer"})
    said = str(refused.value)
    assert f"got {got}" in said
    assert "before compile()" in said
    assert "GuardMiddleware" in said
