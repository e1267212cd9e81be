"""Tools of a test whose job is open already: a rig has one job, and each test a tool of its own."""

from __future__ import annotations

from agentguard import Guard
from agentguard.bindings.compilation import Tool


def bind_in_a_job(guard: Guard, *tools: Tool) -> None:
    """Bind tools although a job was opened, which a guard refuses to everybody else."""
    bound_tools = guard.enforcement.bound_tools
    sealed, bound_tools.sealed = bound_tools.sealed, False
    try:
        guard.bind(*tools)
    finally:
        bound_tools.sealed = sealed
