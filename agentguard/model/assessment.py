"""One look at a call: what it asks for, what is true of it, and what is decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agentguard.model.decision import Decision
from agentguard.model.facts import Facts
from agentguard.model.recorded_call import RecordedCall
from agentguard.model.request import Request
from agentguard.model.vocabulary import OutsideEffect


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who acts in a job.

    Args:
        epoch: under which this process holds the job.
        credential: id of its credential for the call's agent and stage.
    """

    epoch: int
    credential: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """A Decision on a call, and all that it relies on: the ledger records, grants and claims by it.

    Args:
        recorded: the call as the ledger keeps it.
        call_id_digest: how the ledger names the call's id.
        asked: people were asked about the Request, so their approvals must still be unexpired.
        asks_again: it is an ASK with a reason that the open question did not show (I7).
        answers: how many people had answered, whatever they said.
        findings: how many reviews had found something wrong with its assets or their sources.
        bits: what it says in numbers without carrying what was revealed before; 0: nothing was.
        lifetime: of the Grant (PERMIT) or of the review window (ASK), from when it is written (ms).
    """

    request: Request
    recorded: RecordedCall
    facts: Facts
    decision: Decision
    holder: Holder
    thread: str
    call_id_digest: str
    outside: OutsideEffect
    policy_version: str
    lifetime: int
    asked: bool = False
    asks_again: bool = False
    answers: int = 0
    findings: int = 0
    bits: int = 0

    @property
    def versions(self) -> Mapping[str, int]:
        """Asset SHA-256 → the row version that was judged; the claim refuses if one moved (I8)."""
        return {asset.use.sha256: asset.version for asset in self.facts.assets}
