"""agentguard authorizes every media tool call of an LLM agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentguard.bindings.bound import Arg, Attempt, Binding, McpTool, Returned
    from agentguard.calls.execute import idempotency_key
    from agentguard.guard import Guard

__all__ = ["Arg", "Attempt", "Binding", "Guard", "McpTool", "Returned", "idempotency_key"]


def __getattr__(name: str) -> Any:
    if name in ("Arg", "Attempt", "Binding", "McpTool", "Returned"):
        from agentguard.bindings import bound as bindings

        return getattr(bindings, name)
    if name == "Guard":
        from agentguard.guard import Guard

        return Guard
    if name == "idempotency_key":
        from agentguard.calls.execute import idempotency_key

        return idempotency_key
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
