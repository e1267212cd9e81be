"""Claim the Grant of a call: decide once more on what would run, and take its one use (I5, I8).

The use is taken by `claim` in `ledger/transitions/grants.py`, which judges the rows once more, and
writes the Grant of an asked call. Where its question no longer holds, it is asked anew or closed.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from agentguard.calls.assess import ATTEMPTS, MOVED, Assessor
from agentguard.calls.call import Call
from agentguard.calls.questions import (
    PendingQuestion,
    approved_unknowing,
    ask_anew,
    close_if_over,
    pending_question,
)
from agentguard.calls.refused import Refused
from agentguard.content.formats.identify import Limits
from agentguard.content.scratch import Scratch
from agentguard.content.store import Store
from agentguard.errors import AssetError
from agentguard.ledger.ledger import Reads
from agentguard.ledger.queries.grants import outcome_of
from agentguard.ledger.rows.calls import CallRow
from agentguard.ledger.rows.grants import GrantRow, OutcomeRow
from agentguard.model import (
    Assessment,
    Effect,
    GrantState,
    Obstacle,
    ObstacleKind,
    OutsideEffect,
    Request,
    is_permitted,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedCall:
    """A call whose Grant was claimed: the only thing that may run.

    Args:
        assessment: what it was claimed by.
        scratch: the call's private folder.
        arguments: what the tool runs with.
        outputs: output argument → its path.
    """

    call: Call
    assessment: Assessment
    scratch: Scratch
    arguments: dict[str, Any]
    outputs: dict[str, str]

    @property
    def request(self) -> Request:
        """What was claimed."""
        return self.assessment.request


class Claims:
    """Claims calls.

    Args:
        assessor: decides again before each claim.
        store: where asset bytes are.
        limits: what may be taken in.
    """

    def __init__(self, *, assessor: Assessor, store: Store, limits: Limits) -> None:
        self._assessor = assessor
        self._ledger = assessor.ledger
        self._store = store
        self.limits = limits

    def claim(
        self, call: Call, *, asks: bool = False
    ) -> ClaimedCall | OutcomeRow | PendingQuestion | Obstacle:
        """Rebuild the Request from what would run now, decide again, and claim its Grant.

        Args:
            asks: whoever claims can put a question to people and come back. Then a call that was
                approved, but not of enough people or not for every reason that stands against it
                now, is a question again; for a new reason it is asked anew (I7).

        Returns:
            The recorded outcome of a call that already ran; or an Obstacle: there is no matching
            Grant, or the current facts don't permit it (I5).

        Raises:
            LedgerError: nothing was claimed.
        """
        try:
            for _ in range(ATTEMPTS):
                claimed = self._try(call, asks=asks)
                if claimed is not None:
                    return claimed
            raise Refused(MOVED, kind=ObstacleKind.MOVED)
        except Refused as refusal:
            return refusal.obstacle

    def _try(self, call: Call, *, asks: bool) -> ClaimedCall | OutcomeRow | PendingQuestion | None:
        """One attempt; None if something moved meanwhile, or the call was asked about anew."""
        held = call.job.held
        item: Assessment | None = None
        with self._ledger.snapshot() as reads:
            call, built, row = self._assessor.recorded(call, reads)
            done = _done(row, reads)
            if done is not None:
                return done
            if self._assessor.is_held(call, held):
                holder = self._assessor.holder(call)
                item = self._assessor.assess(call, built, holder, reads, approval=row.approval)
        if item is None:
            self._assessor.holder(call)  # and look again, where its credential can be seen
            return None
        decision, approval = item.decision, row.approval
        asks = asks and row.grant is None  # one that was begun is asked about no more
        if item.asks_again:
            if not asks:
                raise approved_unknowing(decision)
            ask_anew(self._ledger, item)
            return None
        if not is_permitted(decision):
            if approval is not None:
                close_if_over(self._ledger, item, approval)
                if asks and decision.effect is Effect.ASK:
                    return pending_question(call, item, approval)
            kind = ObstacleKind.NOT_GRANTED if row.grant is None else ObstacleKind.DECIDED_AGAIN
            raise Refused(decision.reason, kind=kind)
        # The private copies come first: what can't be prepared must not use up the Grant.
        claimed = self._prepared(call, item)
        try:
            obstacle = self._ledger.claim(item, durable=call.bound.reaches_out)
        except BaseException:
            claimed.scratch.close()
            raise
        if obstacle is None:
            return claimed
        claimed.scratch.close()
        if obstacle.kind is ObstacleKind.MOVED:
            return None
        raise Refused.of(obstacle)

    def _prepared(self, call: Call, item: Assessment) -> ClaimedCall:
        """The call with private copies of what it uses (I12)."""
        bound = call.bound
        uses = {use.asset: use for use in item.request.assets}
        scratch = Scratch(self._store, limits=self.limits)

        def private(path: str, value: Any) -> Any:
            use = uses[value]
            form = bound.binding.assets[path]
            if form == "bytes":
                return scratch.input_bytes(use.sha256)
            if form == "data-url":
                return scratch.data_url(use.sha256, use.media_type)
            if form == "base64":
                return base64.b64encode(scratch.input_bytes(use.sha256)).decode("ascii")
            return scratch.input(use.sha256, use.extension)

        try:
            outputs = {
                name: scratch.output(name, bound.suffix(name)) for name in bound.binding.outputs
            }
            for returned in bound.binding.results:
                if returned.folder is not None:
                    scratch.watch(returned.folder)
            key = item.request.content_digest
            arguments = bound.fill(item.request.args, private, outputs, key=key)
        except AssetError as error:
            scratch.close()
            raise Refused(str(error), kind=ObstacleKind.INPUTS) from None
        except BaseException:
            scratch.close()
            raise
        return ClaimedCall(
            call=call, assessment=item, scratch=scratch, arguments=arguments, outputs=outputs
        )


def may_have_happened(state: str) -> bool:
    """Whether a Grant was claimed and nobody knows what came of it (I8)."""
    return state in (GrantState.CLAIMED, GrantState.UNKNOWN)


def recorded_outcome(grant: GrantRow, reads: Reads) -> OutcomeRow:
    """What a Grant that was used came to.

    Raises:
        Refused: it was deleted.
    """
    outcome = reads.first(outcome_of(grant.id))
    if outcome is None:
        raise Refused("this call already ran; its text was deleted", kind=ObstacleKind.REPLAYED)
    return outcome


def _done(row: CallRow, reads: Reads) -> OutcomeRow | None:
    """What came of a Grant that was used before; None if the call may be claimed now.

    Raises:
        Refused: nothing was granted, nobody knows what came of it (I8), or it was deleted.
    """
    grant = row.grant
    if grant is None:
        if row.approval is None:
            raise Refused(row.reason, kind=ObstacleKind.NOT_GRANTED)
        return None
    state = grant.state
    if may_have_happened(state):
        raise Refused(
            "this call was started before and its outcome is not known yet; it will not"
            " be done twice (`agentguard reconcile` finds out)",
            kind=ObstacleKind.OUTCOME_UNKNOWN,
        )
    retried = state == GrantState.FAILED and grant.effect == OutsideEffect.NONE
    if state not in (GrantState.EXECUTED, GrantState.FAILED) or retried:
        return None
    return recorded_outcome(grant, reads)
