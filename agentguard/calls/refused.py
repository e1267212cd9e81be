"""Why a call can't go on, as `calls` raises it; where it leaves this room it is a value."""

from __future__ import annotations


class Refused(Exception):
    """A call is refused before or instead of a Decision; the text is for the model.

    Args:
        reason: one sentence saying what is wrong and what to do.
        policy: id of the built-in rule, e.g. `agentguard.unknown-asset`.
    """

    def __init__(self, reason: str, *, policy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.policy = f"agentguard.{policy}"

    @classmethod
    def like(cls, other: Refused) -> Refused:
        """The same refusal, to be raised once more."""
        return cls(other.reason, policy=other.policy.removeprefix("agentguard."))
