"""For your own tests: a private workspace in which everything but its clock and places is real."""

from __future__ import annotations

from agentguard.testing.deliveries import Delivery
from agentguard.testing.outcomes import CallResult
from agentguard.testing.scripted_model import ScriptedModel
from agentguard.testing.sockets import UndeclaredConnection
from agentguard.testing.workspace import TestWorkspace, workspace

__all__ = [
    "CallResult",
    "Delivery",
    "ScriptedModel",
    "TestWorkspace",
    "UndeclaredConnection",
    "workspace",
]


def __dir__() -> list[str]:
    return list(__all__)
