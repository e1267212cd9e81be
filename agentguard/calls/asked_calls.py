"""How the calls stand that people are asked about.

By what the ledger holds (`states`), which rebuilds no Request and decides nothing: what came to be
approved is decided on by its claim. Or by the current facts (`state_now`), where a question is
shown once more, or where whoever goes on can't come back to the question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from agentguard.calls.assess import ATTEMPTS, MOVED, Assessor
from agentguard.calls.call import Call
from agentguard.calls.claim import recorded_outcome
from agentguard.calls.questions import (
    PendingQuestion,
    approved_unknowing,
    ask_anew,
    close_if_over,
    pending_question,
)
from agentguard.calls.refusal_log import RefusalLog
from agentguard.calls.refused import Refused
from agentguard.errors import ApprovalError
from agentguard.ledger.queries.approvals import asked_calls
from agentguard.ledger.queries.requests import granted_calls
from agentguard.ledger.rows.approvals import AskedCallRow, AskedRow
from agentguard.ledger.rows.requests import RequestRow
from agentguard.model import (
    ApprovalState,
    Assessment,
    Decision,
    Effect,
    GrantState,
    Needs,
    Obstacle,
    ObstacleKind,
)


class CallState(Enum):
    """How a call stands about which no question is open."""

    PERMITTED = "permitted"
    """People approved it, or need not any more: it may be claimed for the first time."""
    SETTLED = "settled"
    """Its tool answers it: that it was begun before, or why it may not run."""


class AskedCalls:
    """Looks after the open questions of a workspace, and says what stands against recorded calls.

    Args:
        assessor: decides on the current facts.
        refusals: where refusals go.
    """

    def __init__(self, *, assessor: Assessor, refusals: RefusalLog) -> None:
        self._assessor = assessor
        self._ledger = assessor.ledger
        self._refusals = refusals

    def states(self, calls: Sequence[Call]) -> list[PendingQuestion | CallState]:
        """How asked calls stand, each in its place, as the ledger holds them.

        It is one read for the calls of a thread in a job. A call is the one that people were asked
        about if its arguments are, word for word: a fork of the thread may hold an older call of
        the same id.

        Raises:
            LedgerError: that can't be read.
        """
        if not calls:
            return []
        with self._ledger.snapshot() as reads:
            rows = {
                (job, thread): asked_calls(reads, job=job, thread=thread, call_ids=named)
                for (job, thread), named in _by_thread(calls).items()
            }
        return [self._state(call, rows[call.job.id, call.thread]) for call in calls]

    def _state(self, call: Call, rows: Sequence[AskedCallRow]) -> PendingQuestion | CallState:
        try:
            arguments = call.arguments.frozen
            for row in rows:
                if not _may_be(call, row):
                    continue
                asked = self._assessor.approvals.arguments(row)
                if arguments != asked:
                    continue
                if row.grant_state is not None or row.expires_at <= self._ledger.clock():
                    return CallState.SETTLED
                if row.state is ApprovalState.PENDING:
                    return as_asked(row, call.call_id, arguments=asked)
                approved = row.state is ApprovalState.APPROVED
                return CallState.PERMITTED if approved else CallState.SETTLED
        except (Refused, ApprovalError):  # nobody was asked about such arguments, or as they are
            return CallState.SETTLED
        return CallState.SETTLED

    def state_now(self, call: Call) -> PendingQuestion | CallState:
        """How an asked call stands by the current facts.

        One that is refused now is settled, and its tool says why. Where a reason came up that the
        question did not show, the question is asked anew.

        Raises:
            LedgerError: that can't be read.
        """
        try:
            found = self.reassess(call)
        except Refused:
            return CallState.SETTLED
        if found is None or found[0].decision.effect is Effect.DENY:
            return CallState.SETTLED
        item, approval = found
        if item.decision.effect is Effect.PERMIT:
            return CallState.PERMITTED
        return pending_question(call, item, approval)

    def reassess(self, call: Call, *, asks_anew: bool = True) -> tuple[Assessment, AskedRow] | None:
        """Assess an asked call on the current facts.

        Where a reason came up that the question did not show, the question is closed and asked
        anew, under another digest: no answer to the old one counts (I7, docs/adr/0011).

        Args:
            asks_anew: False where nobody waits for another question any more: then it is refused.

        Returns:
            With its approval request; None of a call that was begun: its claim says what came of
            it.

        Raises:
            Refused: no such request, it is not asked, or its job is over.
        """
        for _ in range(ATTEMPTS):
            held = call.job.held
            item: Assessment | None = None
            with self._ledger.snapshot() as reads:
                found, built, row = self._assessor.recorded(call, reads)
                approval = row.approval
                if approval is None:
                    raise Refused(row.reason, kind=ObstacleKind.NOT_ASKED)
                if row.grant is not None:
                    return None
                if self._assessor.is_held(found, held):
                    holder = self._assessor.holder(found)
                    item = self._assessor.assess(found, built, holder, reads, approval=approval)
            if item is None:
                self._assessor.holder(found)  # and look again, where its credential can be seen
                continue
            if not item.asks_again:
                close_if_over(self._ledger, item, approval)
                return item, approval
            if not asks_anew:
                raise approved_unknowing(item.decision)
            ask_anew(self._ledger, item)  # and look again
        raise Refused(MOVED, kind=ObstacleKind.MOVED)

    def granted(self, calls: Sequence[Call]) -> list[bool]:
        """Which calls are, word for word, ones that were granted: only their claims say more.

        It is one read for the calls of a thread in a job.

        Raises:
            LedgerError: that can't be read.
        """
        if not calls:
            return []
        with self._ledger.snapshot() as reads:
            newest = {
                (job, thread, row.call_id): row
                for (job, thread), named in _by_thread(calls).items()
                for row in reversed(granted_calls(reads, job=job, thread=thread, call_ids=named))
            }
        return [
            _is_of(call, newest.get((call.job.id, call.thread, call.id_digest))) for call in calls
        ]

    def obstacle(self, call: Call, *, again: bool = True) -> Obstacle | None:
        """Why a call may not reach its tool; None if it is permitted, or was begun before.

        It claims nothing: the tool's claim decides on current facts. A refusal is recorded, and a
        question whose window ended is closed.

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
            _, _, row = self._assessor.recorded(call, reads)
            if row.grant is not None:
                if again or row.grant.state != GrantState.FAILED:
                    return
                raise Refused(recorded_outcome(row.grant, reads).text, kind=ObstacleKind.FAILED)
            if row.approval is None:
                raise Refused(row.reason, kind=ObstacleKind.NOT_GRANTED)
        found = self.reassess(call, asks_anew=False)
        if found is not None and found[0].decision.effect is not Effect.PERMIT:
            raise Refused(found[0].decision.reason, kind=ObstacleKind.NOT_GRANTED)


def as_asked(
    row: AskedCallRow, call_id: str, *, arguments: Mapping[str, Any], note: str | None = None
) -> PendingQuestion:
    """The question about a call as it was asked.

    Args:
        arguments: of the call, word for word.
        note: see `PendingQuestion`.
    """
    approved = row.state is ApprovalState.APPROVED
    return PendingQuestion(
        call_id=call_id,
        request=row.request,
        decision=Decision(
            effect=Effect.ASK,
            policies=row.policies,
            reason="approved; it runs when its job is resumed" if approved else row.reason,
            needs=None if approved else Needs(approvals=row.count, groups=row.groups),
        ),
        recorded=row.body,
        arguments=arguments,
        expires_at=row.expires_at,
        note=note,
    )


def _may_be(call: Call, row: AskedCallRow) -> bool:
    """Whether a row may be of a call: of its tool, and of its agent and key, where known."""
    return (row.call_id, row.tool) == (call.id_digest, call.bound.name) and call.may_be(row)


def _by_thread(calls: Sequence[Call]) -> dict[tuple[str, str], list[str]]:
    """How the ledger names the ids of calls, by job and thread."""
    names: dict[tuple[str, str], list[str]] = {}
    for call in calls:
        names.setdefault((call.job.id, call.thread), []).append(call.id_digest)
    return names


def _is_of(call: Call, known: RequestRow | None) -> bool:
    """Whether a call is, word for word, the recorded one."""
    if known is None or known.tool != call.bound.name or not call.may_be(known):
        return False
    recorded = known.body.args
    return all(
        name in recorded and recorded[name] == value
        for name, value in call.arguments.written.items()
    )
