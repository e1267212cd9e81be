"""What a developer is told of a guarded tool that was called where nothing decides on its calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentguard.bindings.running import node_named_in


def where_to_decide(config: Mapping[str, Any]) -> str:
    """Where a call came from that nothing decided on, and which line is missing there.

    Args:
        config: of the tool's run.
    """
    node = node_named_in(config)
    if node is None:
        return (
            "It was called outside a graph; in code of your own take guard.tools([...],"
            ' agent=AGENT, gate="inline")'
        )
    return (
        f"It was called in the node {node!r}: name it, agents={{{node!r}: AGENT}}, and compile what"
        " protect() returns; in create_react_agent take guard.tools([...], agent=AGENT,"
        ' gate="inline")'
    )


def without_id(tool: str, config: Mapping[str, Any], *, inline: bool) -> str:
    """Why a tool that was called with arguments only can't run, and what to do.

    Args:
        config: of the tool's run.
        inline: it holds its own gate.
    """
    node = node_named_in(config)
    said = f"{tool} was invoked without a tool call id"
    if node is None:
        return (
            f"{said}, outside a graph: AgentExecutor gives none, so use create_agent with"
            " GuardMiddleware; in code of your own call tool.invoke(tool_call)"
        )
    if inline:
        return (
            f"{said}: call tool.invoke(tool_call), with one id per intended effect; or name the"
            f" node, protect(builder, guard, agents={{{node!r}: AGENT}})"
        )
    return (
        f"{said}, by hand in the node {node!r}, and nobody said which agent acts there; name it:"
        f" protect(builder, guard, agents={{{node!r}: AGENT}}). A middleware calls handler(request)"
        " instead of the tool"
    )


def not_injected(tool: str, names: list[str]) -> str:
    """Why an inline tool that wants what LangGraph injects can't run."""
    return (
        f"{tool} has no argument {', '.join(names)} here: LangGraph fills it in, but inline tools"
        " get no runtime, state or store; use create_agent with GuardMiddleware, or a ToolNode"
        " behind protect()"
    )
