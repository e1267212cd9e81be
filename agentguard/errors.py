"""Every error a caller may meet. A message says what was got, what was expected, and what to do.

RefusalLog of a tool call are not errors: they are Decisions, and reach the model as tool messages.
"""

from __future__ import annotations


class AgentGuardError(Exception):
    """Base of all errors raised by agentguard."""


class ConfigError(AgentGuardError):
    """The configuration can't be used; nothing was started. The message names the line to fix."""


class PolicyError(ConfigError):
    """A Cedar policy or schema can't be used; the message names file, line and reason."""


class BindingError(ConfigError):
    """A tool and its Binding do not fit each other; found when the graph is built.

    Args:
        sentence: what is wrong.
        tool: the name of the tool, None where the sentence names it, or none is concerned.
        path: the argument of that tool, None where the tool as such is meant.
    """

    def __init__(self, sentence: str, *, tool: str | None = None, path: str | None = None) -> None:
        where = tool if path is None else f"{tool}.{path}"
        super().__init__(sentence if tool is None else f"{where}: {sentence}")
        self.sentence = sentence
        self.tool = tool
        self.path = path


class CanonicalError(AgentGuardError, ValueError):
    """A value has no canonical form (NaN, infinity, lone surrogate, unknown type)."""


class LedgerError(AgentGuardError):
    """The ledger did not do what was asked; whatever needed it did not happen (I10, I11).

    Attributes:
        noted: it is a tamper alarm that was logged and counted (`Ledger.raise_alarm`).
    """

    noted = False


class LedgerUnavailable(LedgerError):
    """The ledger could not be read or written; whatever needed it did not happen (I10, I11)."""


class LedgerCorrupt(LedgerError):
    """The ledger's tables, triggers or log are not what this version wrote: a tamper alarm."""


class IllegalTransition(LedgerError):
    """A state change that the ledger does not allow: somebody wrote there, or a bug. An alarm."""


class JobError(AgentGuardError):
    """A job can't be opened, entered or found."""


class UnguardedTool(AgentGuardError):
    """A tool was started past the guard inside a job; it was stopped before its body (I5)."""


class CallRefused(AgentGuardError):
    """A declared function that a node called by hand did not run, or failed; the message says why.

    It is raised in the function's place, so that the node can't take a refusal for a result.
    """


class ClaimError(AgentGuardError):
    """The code that runs now holds no claim of a call, so nothing may be sent in its name (I8)."""


class AssetError(AgentGuardError, ValueError):
    """Bytes can't be taken in, or an asset can't be used."""


class ApprovalError(AgentGuardError, ValueError):
    """An Answer was not accepted: wrong person, key, signature, request or time."""


class DestinationError(AgentGuardError):
    """A Destination refused or could not be reached; `outcome_unknown` says
    whether bytes may be there.

    Args:
        message: what happened, safe to show to the model (no credential, no path).
        outcome_unknown: True if the destination may hold the bytes all the same (I8).
    """

    def __init__(self, message: str, *, outcome_unknown: bool) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown


class VerificationFailed(AgentGuardError):
    """The log, a proof or a checkpoint does not verify; the message names the first bad record."""
