"""agentguard authorizes every media tool call of an LLM agent."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentguard.bindings.declaration import Binding, media_tool
    from agentguard.bindings.effects import Idempotent, Opaque, Probeable
    from agentguard.bindings.mcp import McpTool
    from agentguard.bindings.probe import Attempt
    from agentguard.bindings.roles import (
        Asset,
        Findings,
        Fixed,
        IdempotencyKey,
        OperationId,
        Output,
        Plain,
        Role,
        Text,
        To,
    )
    from agentguard.calls.execution import idempotency_key
    from agentguard.errors import (
        AgentGuardError,
        ApprovalError,
        AssetError,
        BindingError,
        CallRefused,
        ClaimError,
        ConfigError,
        DestinationError,
        JobError,
        LedgerError,
        LedgerUnavailable,
        PolicyError,
        UnguardedTool,
        VerificationFailed,
    )
    from agentguard.guard import Guard
    from agentguard.jobs.job import Job
    from agentguard.ledger.verify import Report
    from agentguard.model import (
        Audience,
        Decision,
        Effect,
        Environment,
        GrantState,
        JobState,
        OutsideEffect,
        Sensitivity,
        Stage,
        Verdict,
    )
    from agentguard.people.approvals import Approval

    __version__: str

_HOMES = {
    "bindings.declaration": "Binding media_tool",
    "bindings.roles": "Asset Findings Fixed IdempotencyKey OperationId Output Plain Role Text To",
    "bindings.effects": "Idempotent Opaque Probeable",
    "bindings.mcp": "McpTool",
    "bindings.probe": "Attempt",
    "calls.execution": "idempotency_key",
    "guard": "Guard",
    "jobs.job": "Job",
    "people.approvals": "Approval",
    "ledger.verify": "Report",
    "model": "Audience Decision Effect Environment GrantState JobState OutsideEffect Sensitivity"
    " Stage Verdict",
    "errors": "AgentGuardError ApprovalError AssetError BindingError CallRefused ClaimError"
    " ConfigError DestinationError JobError LedgerError LedgerUnavailable PolicyError UnguardedTool"
    " VerificationFailed",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "AgentGuardError",
    "Approval",
    "ApprovalError",
    "Asset",
    "AssetError",
    "Attempt",
    "Audience",
    "Binding",
    "BindingError",
    "CallRefused",
    "ClaimError",
    "ConfigError",
    "Decision",
    "DestinationError",
    "Effect",
    "Environment",
    "Findings",
    "Fixed",
    "GrantState",
    "Guard",
    "IdempotencyKey",
    "Idempotent",
    "Job",
    "JobError",
    "JobState",
    "LedgerError",
    "LedgerUnavailable",
    "McpTool",
    "Opaque",
    "OperationId",
    "Output",
    "OutsideEffect",
    "Plain",
    "PolicyError",
    "Probeable",
    "Report",
    "Role",
    "Sensitivity",
    "Stage",
    "Text",
    "To",
    "UnguardedTool",
    "Verdict",
    "VerificationFailed",
    "__version__",
    "idempotency_key",
    "media_tool",
]


def __getattr__(name: str) -> Any:
    """Import what is public when it is first asked for: most programs need little of it."""
    if name == "__version__":
        return importlib.metadata.version("agentguard")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"agentguard.{home}"), name)


def __dir__() -> list[str]:
    return list(__all__)
