"""Authorize the calls of a message: decide on each, and record all Decisions in one transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from agentguard.bindings.free_choice import MOST_BITS_A_CONVERSATION
from agentguard.calls.assess import ATTEMPTS, MOVED, Assessor, deny
from agentguard.calls.call import Call, call_key
from agentguard.calls.denials import MOST_QUESTIONS
from agentguard.calls.questions import TOO_MANY
from agentguard.calls.refusal_log import RefusalLog, ledger_obstacle, refused_call
from agentguard.calls.refused import Refused
from agentguard.calls.repeats import done_unheard
from agentguard.calls.request import build_request
from agentguard.errors import JobError, LedgerError
from agentguard.ledger.ledger import Ledger, Reads, Room
from agentguard.ledger.queries.approvals import questions_asked
from agentguard.ledger.queries.grants import grant_of
from agentguard.ledger.queries.requests import effects_of, newest_of_key
from agentguard.ledger.rows.requests import RequestRow
from agentguard.model import (
    Assessment,
    Decision,
    Effect,
    GrantState,
    Holder,
    Obstacle,
    ObstacleKind,
)

_CHANGED = "this call was decided before with other arguments, assets or labels; make a new call"

_ROOM = Room(bits=MOST_BITS_A_CONVERSATION, questions=MOST_QUESTIONS)


@dataclass(slots=True)
class _Message:
    """The calls of one message while they are decided on.

    Args:
        by_key: call key → digest of the call's Request, before it was ever asked anew, and its
            Decision.
        assessments: what is to be recorded.
    """

    by_key: dict[str | None, tuple[str, Decision]] = field(default_factory=dict)
    assessments: list[Assessment] = field(default_factory=list)


class Authorizer:
    """Decides on the calls of messages, and records it.

    Args:
        assessor: decides on each call.
        refusals: where refusals go.
    """

    def __init__(self, *, assessor: Assessor, refusals: RefusalLog) -> None:
        self._assessor = assessor
        self._ledger: Ledger = assessor.ledger
        self._refusals = refusals

    def authorize(self, calls: Sequence[Call], *, ahead: Set[int] = frozenset()) -> list[Decision]:
        """Decide on the calls of one message and record all Decisions in one transaction.

        A call that was decided before keeps its recorded Decision (I8). Returns one per call, in
        order; a refusal is a DENY.

        Args:
            ahead: the positions of calls that come here by themselves as well. What is refused of
                them before a Decision is recorded when they come.

        Raises:
            LedgerError: nothing was recorded, so nothing may run (I10).
        """
        try:
            return self._authorize(calls, ahead)
        except LedgerError as error:
            for number, call in enumerate(calls):
                if number not in ahead:
                    self._refusals.remember(call, ledger_obstacle(error), recorded=False)
            raise

    def recorded_effects(self, calls: Sequence[Call]) -> list[Effect | None]:
        """How calls of a message were decided; None of one that was not.

        Raises:
            LedgerError: that can't be read.
        """
        effects = effects_of(self._ledger, [call.key for call in calls if call.key is not None])
        return [effects.get(call.key or "") for call in calls]

    def _authorize(self, calls: Sequence[Call], ahead: Set[int]) -> list[Decision]:
        holders = [self._holder(call) for call in calls]
        for _ in range(ATTEMPTS):
            message = _Message()
            results: list[Decision | Obstacle] = []
            with self._ledger.snapshot() as reads:  # the credentials are minted: it sees them
                for call, holder in zip(calls, holders, strict=True):
                    results.append(self._decide_or_refuse(call, holder, message, reads))
            decisions = self._record(calls, results, message.assessments, ahead)
            if decisions is not None:
                return decisions
        moved = Obstacle(kind=ObstacleKind.MOVED, sentence=MOVED)
        decisions = self._record(calls, [moved] * len(calls), [], ahead)
        return decisions if decisions is not None else [_denied(moved)] * len(calls)

    def _holder(self, call: Call) -> Holder | Obstacle:
        try:
            return self._assessor.holder(call)
        except Refused as refusal:
            return refusal.obstacle

    def _decide_or_refuse(
        self, call: Call, holder: Holder | Obstacle, message: _Message, reads: Reads
    ) -> Decision | Obstacle:
        if isinstance(holder, Obstacle):
            return holder
        try:
            return self._decide(call, holder, message, reads)
        except Refused as refusal:
            return refusal.obstacle

    def _decide(self, call: Call, holder: Holder, message: _Message, reads: Reads) -> Decision:
        """The Decision on a call; a new one joins the message's assessments."""
        if call.key is None:
            call = self._named(call, reads)
        workspace = self._assessor.workspace
        known = reads.first(newest_of_key(call.key))
        earlier = message.by_key.get(call.key)
        bits = 0 if earlier is not None else sum(item.bits for item in message.assessments)
        built = build_request(call, workspace, reads, decided=known, bits_before=bits)
        digest = built.request.digest
        if earlier is not None:
            if earlier[0] != digest:
                raise Refused("two calls of one message share an id", kind=ObstacleKind.CALL_ID)
            return earlier[1]
        if known is not None:
            request = built.request
            if known.revision != request.revision:  # it was asked anew
                request = replace(request, revision=known.revision)
            if known.digest == request.digest and not self._lapsed(known, call, reads):
                decision = _recorded_decision(known)
                message.by_key[call.key] = digest, decision
                return decision
            self._replace(known, call, reads)
            built = build_request(call, workspace, reads, bits_before=bits)
            request = replace(built.request, revision=known.revision + 1)
            built, digest = replace(built, request=request), request.digest
        why = done_unheard(call, built.request, reads)
        done = None if why is None else deny("done-before", why)
        item = self._assessor.assess(call, built, holder, reads, override=done)
        if item.decision.effect is Effect.ASK:
            item = self._within_room(item, message, reads)
        message.assessments.append(item)
        message.by_key[call.key] = digest, item.decision
        return item.decision

    def _within_room(self, item: Assessment, message: _Message, reads: Reads) -> Assessment:
        """The same; a DENY where people of its job were asked too often."""
        asked = sum(other.decision.effect is Effect.ASK for other in message.assessments)
        if (reads.first(questions_asked(item.request.job)) or 0) + asked < MOST_QUESTIONS:
            return item
        decision = deny("questions", TOO_MANY.format(item.decision.reason))
        return replace(item, decision=decision, bits=0)

    def _lapsed(self, known: RequestRow, call: Call, reads: Reads) -> bool:
        """Whether a call was permitted ahead, and came too late for that, or in another's place."""
        if call.as_written is None or known.effect is not Effect.PERMIT:
            return False
        if call.changed_mind and not known.body.changed_mind:
            return True
        grant = reads.first(grant_of(known.digest))
        if grant is None or grant.claims > 0:
            return False
        late = grant.state == GrantState.ISSUED and grant.expires_at <= self._ledger.clock()
        return late or grant.state == GrantState.EXPIRED

    def _replace(self, known: RequestRow, call: Call, reads: Reads) -> None:
        """Withdraw what was decided ahead of a call, so that it can be decided on anew.

        Raises:
            Refused: what was decided is not given up.
        """
        if self._gives_way(known, call, reads):
            self._ledger.withdraw([known.digest])
            if not _is_begun(known, self._ledger):  # by another run of the thread, meanwhile
                return
        raise Refused(_CHANGED, kind=ObstacleKind.CALL_CHANGED)

    def _gives_way(self, known: RequestRow, call: Call, reads: Reads) -> bool:
        """Whether what was decided is the call as its message has it, and it was never begun.

        One that was permitted gives way as well if a sibling that ran since raised its labels.
        """
        written = call.as_written
        if written is None or _is_begun(known, reads):
            return False
        try:
            ahead = build_request(written, self._assessor.workspace, reads, decided=known)
        except Refused:
            return False
        if replace(ahead.request, revision=known.revision).digest == known.digest:
            return True
        recorded = known.tool, known.body.args
        same = recorded == (ahead.request.tool, ahead.recorded.args)
        return same and known.effect is Effect.PERMIT

    def _named(self, call: Call, reads: Reads) -> Call:
        """A call without a message, under the key it was decided by before, or else by its content.

        A checkpoint that is run again gives its tasks other ids, several at once too; what ran
        must not run again (I8). Whoever acts is no part of it, so that one call has one agent.
        """
        with contextlib.suppress(Refused):
            known, _, _ = self._assessor.recorded(call, reads)
            return known
        key = call_key(
            job=call.job.id,
            thread=call.thread,
            source=call.arguments.source,
            call_id=call.call_id,
        )
        return replace(call, key=key)

    def _record(
        self,
        calls: Sequence[Call],
        results: Sequence[Decision | Obstacle],
        assessments: Sequence[Assessment],
        ahead: Set[int],
    ) -> list[Decision] | None:
        """Write down what one message came to, in one transaction.

        Returns:
            None if other messages used up meanwhile what it was judged to have.
        """
        here = {number: call for number, call in enumerate(calls) if number not in ahead}
        obstacles = {n: one for n, one in enumerate(results) if isinstance(one, Obstacle)}
        refused = [refused_call(call, obstacles[n]) for n, call in here.items() if n in obstacles]
        if assessments or refused:
            try:
                if not self._ledger.record_decisions(assessments, refused=refused, room=_ROOM):
                    return None
            except JobError as error:
                closed = Obstacle(kind=ObstacleKind.JOB, sentence=str(error))
                results, obstacles = [closed] * len(calls), dict.fromkeys(range(len(calls)), closed)
                refused = [refused_call(call, closed) for call in here.values()]
                self._ledger.record_decisions((), refused=refused)
        self._remember(calls, here, obstacles)
        decisions = [_denied(one) if isinstance(one, Obstacle) else one for one in results]
        for number, call in here.items():
            decision = decisions[number]
            if decision.effect is Effect.DENY:
                self._refusals.log(call, decision.policies, decision.reason)
        return decisions

    def _remember(
        self, calls: Sequence[Call], here: Mapping[int, Call], obstacles: Mapping[int, Obstacle]
    ) -> None:
        for number, call in enumerate(calls):
            if number not in obstacles:
                self._refusals.forget(call)
            elif number in here:
                self._refusals.remember(call, obstacles[number], recorded=True)


def _is_begun(known: RequestRow, reads: Reads) -> bool:
    """Whether a Grant of a recorded Request was claimed."""
    grant = reads.first(grant_of(known.digest))
    return grant is not None and grant.claims > 0


def _denied(obstacle: Obstacle) -> Decision:
    return Decision(effect=Effect.DENY, policies=(obstacle.policy,), reason=obstacle.sentence)


def _recorded_decision(row: RequestRow) -> Decision:
    return Decision(effect=row.effect, policies=row.policies, reason=row.reason)
