"""A tool without a stage that runs a graph may pause itself, and need not say so."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langgraph.graph import END, START, MessagesState, StateGraph

from agentguard import Binding, Text, media_tool
from agentguard.bindings.compilation import compiled
from tests.support.chat_models import saying

Words = Annotated[str, Text()]


def graph() -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("say", lambda state: {})
    builder.add_edge(START, "say")
    builder.add_edge("say", END)
    return builder.compile()


GRAPH = graph()


class Team:
    """An object that holds an agent."""

    def __init__(self) -> None:
        self.members: dict[str, Any] = {"painter": create_agent(saying(), [])}


TEAM = Team()


@media_tool(stage=None)
def by_global(words: Words) -> str:
    """Run a graph."""
    return str(GRAPH.invoke({"messages": [words]}))


@media_tool(stage=None)
def by_object(words: Words) -> str:
    """Run an agent that an object holds."""
    return str(TEAM.members["painter"].invoke({"messages": [words]}))


@media_tool(stage=None)
def without(words: Words) -> str:
    """Run nothing."""
    return words


@media_tool(stage=None, to="images")
def sends(words: Words) -> str:
    """Send words out, and run a graph."""
    return str(GRAPH.invoke({"messages": [words]}))


def closes_over() -> Any:
    agent: Any = create_agent(saying(), [])

    @media_tool(stage=None)
    def ask(words: Words) -> str:
        """Ask an agent."""
        return str(agent.invoke({"messages": [words]}))

    return ask


@pytest.mark.parametrize(
    ("tool", "pauses"),
    [(by_global, True), (by_object, True), (closes_over(), True), (without, False), (sends, False)],
    ids=["global", "object", "closure", "none", "sends"],
)
def test_tool_that_runs_a_graph_pauses(tool: Any, pauses: bool) -> None:
    assert compiled(tool).binding.interrupts == pauses


def test_plain_function_behind_a_binding_pauses_too() -> None:
    def ask(words: str) -> str:
        """Ask a graph."""
        return str(GRAPH.invoke({"messages": [words]}))

    bound = compiled(Binding(ask, stage=None, args={"words": Text()}))
    assert bound.binding.interrupts


def test_pause_that_is_declared_stays() -> None:
    @media_tool(stage=None, interrupts=True)
    def ask(words: Words) -> str:
        """Ask a person by itself."""
        return words

    assert compiled(ask).binding.interrupts
