"""Assess a call: what it asks for and what is true of it now, decided by the policy.

Whoever records, grants or claims does it by an Assessment, and each begins at `Assessor.assess`.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from typing import NoReturn

from agentguard.calls.call import Call
from agentguard.calls.facts import gather_facts
from agentguard.calls.refusal_log import RefusalLog
from agentguard.calls.refused import Refused, Ungated
from agentguard.calls.repeats import begun_before
from agentguard.calls.request import BuiltRequest, build_request, stage_of
from agentguard.config.workspace import Workspace
from agentguard.errors import JobError
from agentguard.ledger.ledger import TOO_LATE, Ledger, Reads
from agentguard.ledger.queries.requests import (
    decided_elsewhere,
    newest_of_call,
    requests_of_call,
)
from agentguard.ledger.rows.approvals import AskedRow
from agentguard.ledger.rows.calls import CallRow
from agentguard.ledger.rows.requests import RequestRow
from agentguard.ledger.transitions.approvals import why_closed
from agentguard.model import (
    Assessment,
    Decision,
    Effect,
    Facts,
    Holder,
    ObstacleKind,
    Request,
    Stage,
)
from agentguard.people.approvals import Approvals
from agentguard.policy.decide import decide
from agentguard.policy.policy_set import Policy

ATTEMPTS = 5
"""How often a call is assessed again because something moved meanwhile."""

MOVED = "the facts kept changing while this call was decided on; try again"

_UNGATED = (
    "{} was called where nothing decides on its calls: put the graph through"
    " protect(builder, guard, agents=...), or add GuardMiddleware(guard, agent=...) to the agent"
)


class Assessor:
    """Decides on calls by the policy and the current facts; it records no Decision.

    Args:
        workspace: the configuration.
        policy: the policies.
        ledger: where decisions, requests and grants are.
        approvals: whose verified answers count.
        refusals: why a call has no decision.
    """

    def __init__(
        self,
        *,
        workspace: Workspace,
        policy: Policy,
        ledger: Ledger,
        approvals: Approvals,
        refusals: RefusalLog,
    ) -> None:
        self.workspace = workspace
        self.policy = policy
        self.ledger = ledger
        self.approvals = approvals
        self.refusals = refusals

    def assess(
        self,
        call: Call,
        built: BuiltRequest,
        holder: Holder,
        reads: Reads,
        *,
        approval: AskedRow | None = None,
        override: Decision | None = None,
    ) -> Assessment:
        """Decide on a call.

        A closed or expired approval request is a DENY (S22).

        Args:
            built: its Request.
            holder: who acts.
            reads: the ledger's rows of now.
            approval: the approval request of this call, None if nobody was asked.
            override: the Decision, whatever the policy says; None asks the policy.
        """
        now = self.ledger.clock()
        facts = gather_facts(call, built, self.workspace, reads, now=now)
        answers, asks_again = 0, False
        decision = override
        if decision is None:
            decision = self._built_in(call, built, approval, reads, now=now)
        if decision is None and approval is not None:
            given = self.ledger.answers(built.request.digest, reads)
            answers, question = len(given), approval.body.question
            sound = self.approvals.sound(given)
            decision = decide(self.policy, built.request, facts, sound, now, question)
            asks_again = decision.effect is Effect.ASK and not decision.reasons <= question.reasons
        elif decision is None:
            decision = self._first(call, built, facts, now=now)
        lifetimes = self.workspace.lifetimes
        return Assessment(
            request=built.request,
            recorded=built.recorded,
            facts=facts,
            decision=decision,
            holder=holder,
            thread=call.thread,
            call_id_digest=call.id_digest,
            outside=call.bound.outside,
            policy_version=self.policy.digest,
            lifetime=lifetimes.review if decision.effect is Effect.ASK else lifetimes.grant,
            asked=approval is not None,
            asks_again=asks_again,
            answers=answers,
            findings=built.reviews,
            bits=0 if decision.effect is Effect.DENY else built.bits,
        )

    def _first(self, call: Call, built: BuiltRequest, facts: Facts, *, now: int) -> Decision:
        """The Decision on a call that nobody was asked about, so that nobody answered."""
        decision = decide(self.policy, built.request, facts, (), now)
        if decision.effect is Effect.ASK and _pauses_beside(call):
            return deny("pausing-tool", _pausing(call, decision))
        return decision

    def _built_in(
        self,
        call: Call,
        built: BuiltRequest,
        approval: AskedRow | None,
        reads: Reads,
        *,
        now: int,
    ) -> Decision | None:
        """A DENY that no policy is asked about, if there is one."""
        if call.bound.releases:
            why = begun_before(built.request, thread=call.thread, reads=reads)
            if why is not None:  # I8: whoever retries blindly is told, not obeyed
                return deny("repeat", f"refused: {why}")
        if approval is None:
            return None
        if _pauses_beside(call):  # asked by an older version, or where it paused apart
            return deny("pausing-tool", _pausing(call, None))
        is_open = approval.state.is_open
        if is_open and now < approval.expires_at:
            return None
        why = TOO_LATE if is_open else why_closed(reads, built.request.digest)
        return deny("approval", f"refused: {why}")

    def recorded(self, call: Call, reads: Reads) -> tuple[Call, BuiltRequest, CallRow]:
        """The call with its agent, the Request as it would run now, and the row that decided it.

        The row is found by (job, thread, call id), and must have decided exactly what would run:
        a call id may come again, a Request may not (I5, I6).

        Raises:
            Refused: there is none, and why.
        """
        place = call.job.id, call.thread, call.id_digest
        newest = reads.rows(newest_of_call(*place))
        if not newest:
            self._refuse_undecided(call, reads)
        found = self._matching(call, newest, reads)
        if found is not None:
            return found
        rows = reads.rows(requests_of_call(*place))  # its id came again
        found = self._matching(call, rows, reads)
        if found is not None:
            return found
        known = self.refusals.known(call)
        if known is not None:
            raise Refused.of(known)
        if all(row.tool != call.bound.name for row in rows):
            raise _ungated(call)
        others = sorted({row.agent for row in rows} - {call.agent})
        if call.agent is not None and others and not any(call.may_be(row) for row in rows):
            raise Refused(
                f"this call was decided on for {' or '.join(others)} and would run as"
                f" {call.agent or 'no agent'}; name the same agent in both places",
                kind=ObstacleKind.NOT_AUTHORIZED,
            )
        raise Refused(
            "what would run now is not what was decided on (arguments, assets, labels or"
            " destination differ); make a new call, under an id of its own",
            kind=ObstacleKind.CALL_CHANGED,
        )

    def _matching(
        self, call: Call, rows: list[CallRow], reads: Reads
    ) -> tuple[Call, BuiltRequest, CallRow] | None:
        """The first of these rows that decided exactly what would run."""
        built: BuiltRequest | None = None
        built_for: object = None
        for row in rows:
            if not call.may_be(row):
                continue
            known = replace(call, agent=row.agent, key=row.call_key)
            as_decided = (row.agent, row.body.numbers)
            if built is None or built_for != as_decided:
                built = build_request(known, self.workspace, reads, decided=row)
                built_for = as_decided
            request = built.request
            if (request.call_key, request.revision) != (row.call_key, row.revision):
                request = replace(request, call_key=row.call_key, revision=row.revision)
            if is_as_decided(request, row):
                return known, replace(built, request=request), row
        return None

    def _refuse_undecided(self, call: Call, reads: Reads) -> NoReturn:
        """Say why the ledger knows of no decision on a call: the reason that helps its reader.

        Raises:
            Refused: always.
        """
        known = self.refusals.known(call)
        if known is not None:
            raise Refused.of(known)
        if call.agent is not None:
            stage_of(call, self.workspace)
        args = build_request(call, self.workspace, reads).recorded.args
        elsewhere = decided_elsewhere(
            job=call.job.id, thread=call.thread, call=call.id_digest, tool=call.bound.name
        )
        jobs = [row.job for row in reads.rows(elsewhere) if row.body.args == args]
        if call.job.id in jobs:
            raise _ungated(
                call,
                "this call was decided on in another thread of its job than it runs in; pass the"
                " config of the run on to the tool, unchanged",
            )
        if jobs:
            raise _ungated(
                call,
                "this call was decided on in an earlier job; it may have been done."
                " Make the call again, to be told or to have it done",
            )
        raise _ungated(call)

    def holder(self, call: Call) -> Holder:
        """This process as the holder of the call's job, with a credential for agent and stage.

        Raises:
            Refused: the agent lacks the stage, or the job is over.
        """
        stage = stage_of(call, self.workspace)
        agent = self.workspace.agents[call.agent or ""]
        try:
            return Holder(epoch=call.job.epoch, credential=call.job.credential(agent, stage).id)
        except JobError as error:
            raise Refused(str(error), kind=ObstacleKind.JOB) from None

    def is_held(self, call: Call, held: Set[tuple[str, Stage]]) -> bool:
        """Whether this process had a credential for a call when it noted what it `held`.

        One that was minted later is not in a snapshot that was taken in between.

        Raises:
            Refused: the agent lacks the stage.
        """
        return (call.agent or "", stage_of(call, self.workspace)) in held


def _ungated(call: Call, why: str = "") -> Refused:
    """The refusal of a call that nothing decided on; the line that is missing is named.

    Args:
        why: the likelier reason, where the same was decided on elsewhere under the same id.
    """
    missing = _UNGATED.format(call.bound.name)
    sentence = f"{why}. If that was another call, which had the same id, {missing}"
    return Refused.of(
        Ungated(kind=ObstacleKind.NOT_AUTHORIZED, sentence=sentence if why else missing)
    )


def is_as_decided(request: Request, row: RequestRow) -> bool:
    """Whether what would run now is what a row decided on (I5, I7)."""
    return request.digest == row.digest


def deny(rule: str, sentence: str) -> Decision:
    """A DENY of a built-in rule."""
    return Decision(effect=Effect.DENY, policies=(f"agentguard.{rule}",), reason=sentence)


def _pauses_beside(call: Call) -> bool:
    """Whether a call's tool pauses itself where a question about another call may be open."""
    return call.bound.binding.interrupts and not call.pauses_apart


def _pausing(call: Call, decision: Decision | None) -> str:
    """Why a tool that pauses itself is not asked about: the same resume would answer both."""
    because = f" ({decision.reason})" if decision is not None else ""
    return (
        f"refused: a person has to approve this call{because}, and {call.bound.name} also pauses to"
        " ask on its own (interrupts=True); one answer can't serve both questions. Split it into a"
        " tool that asks and a tool that acts, put it behind protect(), which has the two one after"
        " the other, take interrupts=True out of its Binding if it never pauses, or let policy"
        " permit it without a person"
    )
