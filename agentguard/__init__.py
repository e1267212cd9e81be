"""agentguard authorizes every media tool call of an LLM agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentguard.bindings import Arg, Binding, McpTool, Returned
    from agentguard.guard import Guard

__all__ = ["Arg", "Binding", "Guard", "McpTool", "Returned"]


def __getattr__(name: str) -> Any:
    if name in ("Arg", "Binding", "McpTool", "Returned"):
        from agentguard import bindings

        return getattr(bindings, name)
    if name == "Guard":
        from agentguard.guard import Guard

        return Guard
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
