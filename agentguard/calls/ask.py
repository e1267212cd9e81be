"""How a call stands that people are asked about, and the question that they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from agentguard.calls.assess import ATTEMPTS, MOVED, Assessor, approval_of
from agentguard.calls.authorize import TOO_MANY
from agentguard.calls.call import Call
from agentguard.calls.claim import asks_again, recorded_outcome
from agentguard.calls.denials import MOST_QUESTIONS
from agentguard.calls.refusals import Refusals
from agentguard.calls.refused import Refused
from agentguard.errors import JobError
from agentguard.ledger.queries.approvals import questions_asked
from agentguard.ledger.queries.grants import grant_of
from agentguard.ledger.queries.requests import granted_call
from agentguard.ledger.storage.query import Reads
from agentguard.model import Assessment, Decision, Effect, GrantState, Obstacle, ObstacleKind


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingQuestion:
    """A call that waits for people, as an approver needs to see it.

    Args:
        call_id: the tool call's id.
        request: the Request's digest, which is also the name of the approval request.
        decision: an ASK with what is still missing.
        shown: the call as it is logged, but with its arguments word for word.
        expires_at: the end of the review window (ms).
        note: what else its reader needs to know; None: nothing.
    """

    call_id: str
    request: str
    decision: Decision
    shown: Mapping[str, Any]
    expires_at: int
    note: str | None = None


class CallState(Enum):
    """How a call stands about which no question is open."""

    PERMITTED = "permitted"
    """It may be claimed for the first time."""
    SETTLED = "settled"
    """Its tool answers it: that it was begun before, or why it may not run."""


class Asker:
    """Looks after the open questions of a workspace.

    Args:
        assessor: decides on the current facts.
        refusals: where refusals go.
    """

    def __init__(self, *, assessor: Assessor, refusals: Refusals) -> None:
        self._assessor = assessor
        self._ledger = assessor.ledger
        self._refusals = refusals

    def look(self, call: Call) -> PendingQuestion | CallState:
        """How an asked call stands; one that is refused now is settled, and its tool says why.

        Raises:
            LedgerError: that can't be read.
        """
        try:
            found = self.assess(call)
        except Refused:
            return CallState.SETTLED
        if found is None or found[0].decision.effect is Effect.DENY:
            return CallState.SETTLED
        item, expires_at = found
        if item.decision.effect is Effect.PERMIT:
            return CallState.PERMITTED
        return PendingQuestion(
            call_id=call.call_id,
            request=item.request.digest,
            decision=item.decision,
            shown={**item.shown, "args": item.request.args},  # word for word: it is what is asked
            expires_at=expires_at,
        )

    def assess(self, call: Call, *, asks_anew: bool = True) -> tuple[Assessment, int] | None:
        """Assess an asked call on the current facts, and say when its review window ends.

        Where a reason came up that the question did not show, the question is closed and asked
        anew, under another digest: no answer to the old one counts (I7, docs/adr/0011).

        Args:
            asks_anew: False where nobody waits for another question any more: then it is refused.

        Returns:
            None of a call that was begun: its claim says what came of it.

        Raises:
            Refused: no such request, it is not asked, or its job is over.
        """
        for _ in range(ATTEMPTS):
            held = call.job.held
            item: Assessment | None = None
            with self._ledger.snapshot() as reads:
                found, built, row = self._assessor.recorded(call, reads)
                approval = approval_of(row, reads)
                if approval is None:
                    raise Refused(row.reason, kind=ObstacleKind.NOT_ASKED)
                if reads.first(grant_of(built.request.digest)) is not None:
                    return None
                if self._assessor.is_held(found, held):
                    holder = self._assessor.holder(found)
                    item = self._assessor.assess(found, built, holder, reads, approval=approval)
            if item is None:
                self._assessor.holder(found)  # and look again, where its credential can be seen
                continue
            if not item.asks_again:
                break
            if not asks_anew:
                raise asks_again(item.decision)
            self._ask_anew(item)  # and look again
        else:
            raise Refused(MOVED, kind=ObstacleKind.MOVED)
        over = self._ledger.clock() >= approval.expires_at
        if item.decision.effect is not Effect.PERMIT and approval.state == "pending" and over:
            self._ledger.expire_approval(item.request.digest, reason=item.decision.reason)
        return item, approval.expires_at

    def obstacle(self, call: Call, *, again: bool = True) -> Obstacle | None:
        """Why a call may not reach its tool; None if it is permitted, or was begun before.

        It reads what was recorded and claims nothing: the tool's claim decides on current facts.

        Args:
            again: whether one that failed without an effect outside is tried once more; if not, its
                failure is the answer.

        Raises:
            LedgerError: that can't be read.
        """
        try:
            self._require_open(call, again=again)
        except Refused as refusal:
            self._refusals.record(call, refusal.obstacle)
            return refusal.obstacle
        return None

    def _require_open(self, call: Call, *, again: bool) -> None:
        with self._ledger.snapshot() as reads:
            if again and _is_granted(call, reads):
                return
            _, built, row = self._assessor.recorded(call, reads)
            grant = reads.first(grant_of(built.request.digest))
            if grant is not None:
                if again or grant.state != GrantState.FAILED:
                    return
                raise Refused(recorded_outcome(grant, reads).text, kind=ObstacleKind.FAILED)
            if approval_of(row, reads) is None:
                raise Refused(row.reason, kind=ObstacleKind.NOT_GRANTED)
        found = self.assess(call, asks_anew=False)
        if found is not None and found[0].decision.effect is not Effect.PERMIT:
            raise Refused(found[0].decision.reason, kind=ObstacleKind.NOT_GRANTED)

    def _ask_anew(self, item: Assessment) -> None:
        """Put the question of an asked call anew, as the next revision of its Request.

        Not if the call was begun meanwhile, or nobody can answer the old question any more: who
        looks again is told.
        """
        old = item.request
        if (self._ledger.first(questions_asked(old.job)) or 0) >= MOST_QUESTIONS:
            raise Refused(TOO_MANY.format(item.decision.reason), kind=ObstacleKind.QUESTIONS)
        # Its bits were counted with the first question.
        revised = replace(item, request=replace(old, revision=old.revision + 1), bits=0)
        try:
            self._ledger.ask_anew(revised, instead_of=old.digest)
        except JobError as error:
            raise Refused(str(error), kind=ObstacleKind.JOB) from None


def _is_granted(call: Call, reads: Reads) -> bool:
    """Whether a call is, word for word, one that was granted; then only its claim says more."""
    known = reads.first(granted_call(call.job.id, call.thread, call.name))
    if known is None or known.tool != call.bound.name:
        return False
    if call.agent not in (None, known.agent) or call.key not in (None, known.call_key):
        return False
    recorded = known.body["args"]
    return all(
        name in recorded and recorded[name] == value
        for name, value in call.arguments.written.items()
    )
