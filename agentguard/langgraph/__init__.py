"""agentguard for LangGraph: `protect` for graphs, `GuardMiddleware` for `create_agent`.

A call enters in one of four places: `authorization_nodes` (the nodes that `protect` puts where a
ToolNode was), `function_nodes` (functions that call tools by hand), `middleware` (agents) and
`guarded_tool` (tools that carry their gate). Whatever runs, runs in the guarded tool. `protect`
itself is in `protect_graph`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentguard.langgraph import known
from agentguard.langgraph.protect_graph import protect

if TYPE_CHECKING:
    from agentguard.langgraph.middleware import GuardMiddleware

__all__ = ["GuardMiddleware", "known", "protect"]


def __getattr__(name: str) -> Any:
    if name == "GuardMiddleware":  # needs the extra `langchain`
        from agentguard.langgraph.middleware import GuardMiddleware

        return GuardMiddleware
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
