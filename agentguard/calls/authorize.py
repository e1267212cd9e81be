"""The gate: decide on calls, record it, and say how an asked call stands (DESIGN section 4, 1-2).

Gather → decide → grant. What runs under a Grant is in execute.py.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from agentguard.bindings.free_choice import MOST_BITS_A_CONVERSATION
from agentguard.calls.arguments import sayable
from agentguard.calls.call import Call, call_key, call_name
from agentguard.calls.denials import MOST_QUESTIONS
from agentguard.calls.duplicates import begun_before
from agentguard.calls.facts import facts
from agentguard.calls.refused import Refused
from agentguard.calls.request import Prepared, prepare, stage_of
from agentguard.config.workspace import Workspace
from agentguard.errors import JobError, LedgerError, LedgerUnavailable
from agentguard.ledger.ledger import (
    TOO_LATE,
    Judged,
    Ledger,
    Reads,
    RefusedCall,
    Room,
    question_of,
)
from agentguard.ledger.queries import approvals
from agentguard.ledger.queries.approvals import questions_asked
from agentguard.ledger.queries.grants import executed_with, grant_of
from agentguard.ledger.queries.requests import (
    decided_elsewhere,
    effects_of,
    newest_of_key,
    requests_of_call,
)
from agentguard.ledger.rows import AskedRow, RequestRow
from agentguard.ledger.transitions.requests import why_closed
from agentguard.model import Decision, Effect, Facts, GrantState, Stage
from agentguard.people.approvals import Approvals
from agentguard.policy.decide import decide
from agentguard.policy.policy_set import Policy

_log = logging.getLogger(__name__)

UNAVAILABLE = "the ledger is unavailable, so nothing was done; try again later"
ALARMED = (
    "the ledger raised a tamper alarm, so nothing was done and nothing will be until an operator"
    " has looked at it (`agentguard doctor`); do not try again"
)
_UNGATED = (
    "{} did not pass the authorization node with this call: nothing in front of the tool decided on"
    " it. Put the graph through protect(builder, guard, agents=...), or add GuardMiddleware(guard,"
    " agent=...) to the agent"
)

_CHANGED = "this call was decided before with other arguments, assets or labels; make a new call"

_TOO_MANY = (
    f"{{}}; but people were asked {MOST_QUESTIONS} times about calls of this job, and are not asked"
    " again: do what needs nobody, or let a new job ask"
)
_ROOM = Room(bits=MOST_BITS_A_CONVERSATION, questions=MOST_QUESTIONS)

_REMEMBERED = 1024  # refusals

ATTEMPTS = 5
"""How often a call is looked at again because something moved meanwhile."""

MOVED = "the facts kept changing while this call was decided on; try again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorized:
    """What authorize decided of one call."""

    decision: Decision
    request: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An asked call, as an approver needs to see it.

    Args:
        request: the Request's digest, which is also the name of the approval request.
        decision: PERMIT, ASK with what is still missing, or DENY, on the facts of now.
        begun: its Grant was claimed before, so nobody is asked: the claim says what came of it.
    """

    request: str
    decision: Decision
    shown: Mapping[str, Any]
    expires_at: int
    begun: bool = False


class Looked(NamedTuple):
    """A Decision on the facts of one moment.

    Args:
        answers: how many people had answered, whatever they said.
        asks_again: it is an ASK with a reason that the open question did not show.
    """

    decision: Decision
    facts: Facts
    answers: int = 0
    asks_again: bool = False


class _Seen(NamedTuple):
    """A call of a message that was looked at.

    Args:
        first: digest of its Request, before it was ever asked anew.
    """

    first: str
    authorized: Authorized


class Gate:
    """Decides on calls by the policy and the facts of now.

    Args:
        workspace: the configuration.
        policy: the policies.
        ledger: where decisions, requests and grants are.
        approvals: whose verified answers count.
    """

    def __init__(
        self, *, workspace: Workspace, policy: Policy, ledger: Ledger, approvals: Approvals
    ) -> None:
        self.workspace = workspace
        self.policy = policy
        self.ledger = ledger
        self.approvals = approvals
        self._refusals: dict[tuple[str, str, str], Refused] = {}  # what authorize said last
        self._logged: dict[tuple[str, ...], None] = {}

    def authorize(
        self, calls: Sequence[Call], *, ahead: Set[int] = frozenset()
    ) -> list[Authorized]:
        """Decide on the calls of one message and record all Decisions in one transaction.

        A call that was decided before keeps its recorded Decision (I8). Returns one result per
        call, in order; a refusal is a result too.

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
                    self._remember(call, ledger_refusal(error))
            raise

    def _authorize(self, calls: Sequence[Call], ahead: Set[int]) -> list[Authorized]:
        credentials = [self._credential_or_refusal(call) for call in calls]
        for _ in range(ATTEMPTS):
            authorized = self._judge_all(calls, credentials, ahead)
            if authorized is not None:
                return authorized
        refused = Refused(MOVED, policy="moved")
        authorized = self._record(calls, [refused] * len(calls), [], ahead)
        return authorized if authorized is not None else [_denied(refused)] * len(calls)

    def _judge_all(
        self, calls: Sequence[Call], credentials: Sequence[str | Refused], ahead: Set[int]
    ) -> list[Authorized] | None:
        """Decide on the calls of one message; None if another message was quicker."""
        seen: dict[str | None, _Seen] = {}  # by call key
        judged: list[Judged] = []
        results: list[Authorized | Refused] = []
        with self.ledger.snapshot() as reads:  # the credentials are minted: it sees them
            for call, credential in zip(calls, credentials, strict=True):
                try:
                    if isinstance(credential, Refused):
                        raise credential
                    result, item = self._judge(call, credential, seen, judged, reads)
                except Refused as refusal:
                    results.append(refusal)
                    continue
                results.append(result)
                judged += [item] if item is not None else []
        return self._record(calls, results, judged, ahead)

    def decided(self, calls: Sequence[Call]) -> list[Effect | None]:
        """How calls of a message were decided; None of one that was not.

        Raises:
            LedgerError: that can't be read.
        """
        effects = effects_of(self.ledger, [call.key for call in calls if call.key is not None])
        return [effects.get(call.key or "") for call in calls]

    def waiting(self, call: Call, *, asks_anew: bool = True) -> Waiting:
        """What an asked call waits for now; once the ledger says PERMIT, it may be claimed.

        Where a reason came up that the question did not show, the question is closed and asked
        anew, under another digest: no answer to the old one counts (I7, docs/adr/0011).

        Args:
            asks_anew: False where nobody waits for another question any more: then it is refused.

        Raises:
            Refused: no such request, it is not asked, or its job is over.
        """
        for _ in range(ATTEMPTS):
            held = call.job.held
            with self.ledger.snapshot() as reads:
                found, prepared, row = self.recorded(call, reads)
                approval = asked_of(row, reads)
                if approval is None:
                    raise Refused(row.reason, policy="not-asked")
                if reads.first(grant_of(prepared.request.digest)) is not None:
                    return self._begun(prepared, approval)
                looked = None
                if self.is_held(found, held):
                    looked = self.decide_asked(found, prepared, approval, reads)
            credential = self.credential(found)
            if looked is None:
                continue  # where its credential can be seen
            if not looked.asks_again:
                break
            if not asks_anew:
                raise asks_again(looked.decision)
            if (self.ledger.first(questions_asked(found.job.id)) or 0) >= MOST_QUESTIONS:
                raise Refused(_TOO_MANY.format(looked.decision.reason), policy="questions")
            self._ask_anew(found, prepared, looked.decision, credential)  # then it is looked at
        else:
            raise Refused(MOVED, policy="moved")
        decision = looked.decision
        request = prepared.request
        over = self.ledger.clock() >= approval.expires_at
        if decision.effect is not Effect.PERMIT and approval.state == "pending" and over:
            self.ledger.expire_approval(request.digest, reason=decision.reason)
        return Waiting(
            request=request.digest,
            decision=decision,
            shown={**prepared.shown, "args": request.args},  # word for word: it is what is asked
            expires_at=approval.expires_at,
        )

    def _begun(self, prepared: Prepared, approval: AskedRow) -> Waiting:
        return Waiting(
            request=prepared.request.digest,
            decision=Decision(effect=Effect.PERMIT, policies=(), reason="it was begun"),
            shown=prepared.shown,
            expires_at=approval.expires_at,
            begun=True,
        )

    def recorded(self, call: Call, reads: Reads) -> tuple[Call, Prepared, RequestRow]:
        """The call with its agent, the Request as it would run now, and the row that decided it.

        The row is found by (job, thread, call id), and must have decided exactly what would run:
        a call id may come again, a Request may not (I5, I6).
        """
        rows = reads.rows(requests_of_call(call.job.id, call.thread, call.name))
        if not rows:
            raise self._undecided(call, reads)
        prepared: Prepared | None = None
        of: tuple[Any, ...] = ()
        for row in rows:
            if call.agent not in (None, row.agent) or call.key not in (None, row.call_key):
                continue
            known = replace(call, agent=row.agent, key=row.call_key)
            as_decided = (row.agent, row.body.get("numbers"))
            if prepared is None or of != as_decided:
                prepared = prepare(known, self.workspace, reads, decided=row)
                of = as_decided
            request = prepared.request
            if (request.call_key, request.revision) != (row.call_key, row.revision):
                request = replace(request, call_key=row.call_key, revision=row.revision)
            if request.digest == row.digest:
                return known, replace(prepared, request=request), row
        said = self._refusals.get(_place(call))
        if said is not None:
            raise Refused.like(said)
        others = sorted({row.agent for row in rows} - {call.agent})
        if prepared is None and call.agent is not None and others:
            raise Refused(
                f"this call was decided on for {' or '.join(others)} and would run as"
                f" {call.agent or 'no agent'}; name the same agent in both places",
                policy="not-authorized",
            )
        raise Refused(
            "what would run now is not what was decided on (arguments, assets, labels or"
            " destination differ); make a new call",
            policy="call-changed",
        )

    def _undecided(self, call: Call, reads: Reads) -> Refused:
        """Why the ledger knows of no decision on a call: the reason that helps whoever reads it.

        Raises:
            Refused: what is wrong with the call itself.
        """
        said = self._refusals.get(_place(call))
        if said is not None:
            return Refused.like(said)
        if call.agent is not None:
            stage_of(call, self.workspace)
        prepare(call, self.workspace, reads)
        name, tool = call.name, call.bound.name
        job = reads.first(
            decided_elsewhere(job=call.job.id, thread=call.thread, call=name, tool=tool)
        )
        if job is None:
            return Refused(_UNGATED.format(tool), policy="not-authorized")
        if job == call.job.id:
            return Refused(
                "this call was decided on in another thread of its job than it runs in; pass the"
                " config of the run on to the tool, unchanged",
                policy="not-authorized",
            )
        return Refused(
            "this call was decided on in an earlier job, which is over; it may have been done."
            " Make the call again, to be told or to have it done",
            policy="not-authorized",
        )

    def decide_asked(
        self, call: Call, prepared: Prepared, approval: AskedRow | None, reads: Reads
    ) -> Looked:
        """Decide on the facts of now; a closed or expired approval request is a DENY (S22).

        Args:
            approval: the approval request of this call, None if nobody was asked.
        """
        now = self.ledger.clock()
        known = facts(call, prepared, self.workspace, reads, now=now)
        request = prepared.request
        if call.bound.releases:
            why = begun_before(request, thread=call.thread, reads=reads)
            if why is not None:  # I8: whoever retries blindly is told, not obeyed
                return Looked(_deny("agentguard.repeat", f"refused: {why}"), known)
        if approval is None:  # nobody was asked, so nobody answered
            decision = decide(self.policy, request, known, (), now)
            if decision.effect is Effect.ASK and _pauses_beside(call):
                decision = _deny("agentguard.pausing-tool", _pausing(call, decision))
            return Looked(decision, known)
        if _pauses_beside(call):  # asked by an older version, or where it paused apart
            return Looked(_deny("agentguard.pausing-tool", _pausing(call, None)), known)
        is_open = approval.state in ("pending", "approved")
        if not is_open or now >= approval.expires_at:
            why = TOO_LATE if is_open else why_closed(reads, request.digest)
            return Looked(_deny("agentguard.approval", f"refused: {why}"), known)
        answers = self.ledger.answers(request.digest, reads)
        sound = self.approvals.sound(answers)
        question = question_of(approval.body)
        decision = decide(self.policy, request, known, sound, now, question)
        asks_again = decision.effect is Effect.ASK and not decision.reasons <= question.reasons
        return Looked(decision, known, len(answers), asks_again)

    def _ask_anew(
        self, call: Call, prepared: Prepared, decision: Decision, credential: str
    ) -> None:
        """Put the question of an asked call anew, as the next revision of its Request.

        Not if the call was begun meanwhile, or nobody can answer the old question any more: who
        looks again is told.
        """
        old = prepared.request
        # Its bits were counted with the first question.
        revised = replace(prepared, request=replace(old, revision=old.revision + 1), bits=0)
        item = self.judged(call, revised, decision, credential)
        try:
            self.ledger.ask_anew(item, instead_of=old.digest, epoch=call.job.epoch)
        except JobError as error:
            raise Refused(str(error), policy="job") from None

    def credential(self, call: Call) -> str:
        """The id of this process's live credential for a call's agent and stage.

        Raises:
            Refused: the agent lacks the stage, or the job is over.
        """
        stage = stage_of(call, self.workspace)
        agent = self.workspace.agents[call.agent or ""]
        try:
            return call.job.credential(agent, stage).id
        except JobError as error:
            raise Refused(str(error), policy="job") from None

    def is_held(self, call: Call, held: Set[tuple[str, Stage]]) -> bool:
        """Whether this process had a credential for a call when it noted what it `held`.

        One that was minted later is not in a snapshot that was taken in between.

        Raises:
            Refused: the agent lacks the stage.
        """
        return (call.agent or "", stage_of(call, self.workspace)) in held

    def refuse_unknown(self, name: object, job: object) -> None:
        """Record that a model called a tool which is not there (S2)."""
        body = {
            "tool": sayable(name),
            "job": sayable(job) if job else "",
            "policy": "agentguard.unknown-tool",
        }
        _log.warning("refused: no tool %s (job %s)", body["tool"], body["job"] or "none")
        with contextlib.suppress(LedgerError):  # nothing runs either way
            self.ledger.refuse(body)

    def record_refusal(self, call: Call, refusal: Refused) -> None:
        """Record that a call was refused where it would have run (I5), and log it."""
        self._log_refusal(call, (refusal.policy,), refusal.reason)
        with contextlib.suppress(LedgerError):  # refused either way
            self.ledger.refuse(_refusal(call, refusal))

    def _log_refusal(self, call: Call, policies: Sequence[str], reason: str) -> None:
        """Log why a call is refused, once: the gate and the tool say the same of it."""
        if _put(self._logged, (*_place(call), reason), None):
            log_refusal(call.bound.name, call.agent, call.job.id, call.thread, policies, reason)

    def _remember(self, call: Call, refusal: Refused) -> None:
        """What the tool says of a call that left no decision in the ledger."""
        self._refusals.pop(_place(call), None)
        _put(self._refusals, _place(call), refusal)

    def _credential_or_refusal(self, call: Call) -> str | Refused:
        try:
            return self.credential(call)
        except Refused as refusal:
            return refusal

    def _judge(
        self,
        call: Call,
        credential: str,
        seen: dict[str | None, _Seen],
        judged: Sequence[Judged],
        reads: Reads,
    ) -> tuple[Authorized, Judged | None]:
        if call.key is None:
            call = self._named(call, reads)
        known = reads.first(newest_of_key(call.key))
        earlier = seen.get(call.key)
        bits = 0 if earlier is not None else sum(item.bits for item in judged)
        prepared = prepare(call, self.workspace, reads, decided=known, bits_before=bits)
        digest = prepared.request.digest
        if earlier is not None:
            if earlier.first != digest:
                raise Refused("two calls of one message share an id", policy="call-id")
            return earlier.authorized, None
        if known is not None:
            request = prepared.request
            if known.revision != request.revision:  # it was asked anew
                request = replace(request, revision=known.revision)
            if known.digest == request.digest and not self._lapsed(known, call, reads):
                result = Authorized(decision=_recorded_decision(known), request=request.digest)
                seen[call.key] = _Seen(digest, result)
                return result, None
            if not self._gives_way(known, call, reads):
                raise Refused(_CHANGED, policy="call-changed")
            self.ledger.withdraw([known.digest])
            if self._is_begun(known, self.ledger):  # by another run of the thread, meanwhile
                raise Refused(_CHANGED, policy="call-changed")
            prepared = prepare(call, self.workspace, reads, bits_before=bits)
            request = replace(prepared.request, revision=known.revision + 1)
            prepared, digest = replace(prepared, request=request), request.digest
        decision = self._done_before(call, prepared, reads)
        if decision is None:
            decision = self.decide_asked(call, prepared, None, reads).decision
        if decision.effect is Effect.ASK:
            asked = sum(item.decision.effect is Effect.ASK for item in judged)
            if (reads.first(questions_asked(call.job.id)) or 0) + asked >= MOST_QUESTIONS:
                decision = _deny("agentguard.questions", _TOO_MANY.format(decision.reason))
        item = self.judged(call, prepared, decision, credential)
        result = Authorized(decision=decision, request=digest)
        seen[call.key] = _Seen(digest, result)
        return result, item

    def _lapsed(self, known: RequestRow, call: Call, reads: Reads) -> bool:
        """Whether a call was permitted ahead, and came too late for that."""
        if call.instead_of is None or known.effect != Effect.PERMIT.value:
            return False
        grant = reads.first(grant_of(known.digest))
        if grant is None or grant.claims > 0:
            return False
        late = grant.state == GrantState.ISSUED and grant.expires_at <= self.ledger.clock()
        return late or grant.state == GrantState.EXPIRED

    def _gives_way(self, known: RequestRow, call: Call, reads: Reads) -> bool:
        """Whether what was decided is the call as its message has it, and it was never begun.

        One that was permitted gives way as well if a sibling that ran since raised its labels.
        """
        written = call.instead_of
        if written is None:
            return False
        if self._is_begun(known, reads):
            return False
        try:
            ahead = prepare(written, self.workspace, reads, decided=known)
        except Refused:
            return False
        if replace(ahead.request, revision=known.revision).digest == known.digest:
            return True
        recorded = known.tool, known.body["args"]
        same = recorded == (ahead.request.tool, ahead.shown["args"])
        return same and known.effect == Effect.PERMIT.value

    def _is_begun(self, known: RequestRow, reads: Reads) -> bool:
        """Whether a Grant of a recorded Request was claimed."""
        grant = reads.first(grant_of(known.digest))
        return grant is not None and grant.claims > 0

    def _named(self, call: Call, reads: Reads) -> Call:
        """A call without a message, under the key it was decided by before, or else by its content.

        A checkpoint that is run again gives its tasks other ids, several at once too; what ran
        must not run again (I8).
        """
        with contextlib.suppress(Refused):
            known, _, _ = self.recorded(call, reads)
            return known
        return replace(
            call,
            key=call_key(
                job=call.job.id,
                thread=call.thread,
                source=call.arguments.source,
                call_id=call.call_id,
            ),
        )

    def _done_before(self, call: Call, prepared: Prepared, reads: Reads) -> Decision | None:
        """A DENY that tells what came of an earlier call with this effect, if nobody heard (I8)."""
        if not (call.unanswered and call.bound.reaches_out):
            return None
        names = {call_name(id) for id in call.unanswered}
        done = executed_with(
            job=call.job.id,
            thread=call.thread,
            content_digest=prepared.request.content_digest,
        )
        for earlier in reads.rows(done):
            if earlier.call_id in names:
                reason = (
                    "this was done by an earlier call, whose answer was lost when a message came"
                    f" in between; it is not done twice. Its answer: {earlier.text}"
                )
                return _deny("agentguard.done-before", reason)
        return None

    def _record(
        self,
        calls: Sequence[Call],
        results: Sequence[Authorized | Refused],
        judged: Sequence[Judged],
        ahead: Set[int],
    ) -> list[Authorized] | None:
        """Write down what one message came to, in one transaction.

        Returns:
            None if other messages used up meanwhile what it was judged to have.
        """
        here = [call for number, call in enumerate(calls) if number not in ahead]
        refused = [
            _refused_call(call, result)
            for number, (call, result) in enumerate(zip(calls, results, strict=True))
            if isinstance(result, Refused) and number not in ahead
        ]
        if judged or refused:
            try:
                epoch = calls[0].job.epoch
                if not self.ledger.record_decisions(
                    judged, epoch=epoch, refused=refused, room=_ROOM
                ):
                    return None
            except JobError as error:
                closed = Refused(str(error), policy="job")
                results = [closed] * len(calls)
                refused = [_refused_call(call, closed) for call in here]
                self.ledger.record_decisions((), epoch=0, refused=refused)
        for number, (call, result) in enumerate(zip(calls, results, strict=True)):
            if not isinstance(result, Refused):
                self._refusals.pop(_place(call), None)
            elif number not in ahead:
                self._remember(call, result)
        authorized = [_denied(one) if isinstance(one, Refused) else one for one in results]
        for number, (call, one) in enumerate(zip(calls, authorized, strict=True)):
            if one.decision.effect is Effect.DENY and number not in ahead:
                self._log_refusal(call, one.decision.policies, one.decision.reason)
        return authorized

    def judged(self, call: Call, prepared: Prepared, decision: Decision, credential: str) -> Judged:
        """A Decision as the ledger records it."""
        lifetimes = self.workspace.lifetimes
        lasts = lifetimes.review if decision.effect is Effect.ASK else lifetimes.grant
        return Judged(
            request=prepared.request,
            decision=decision,
            shown=prepared.shown,
            thread=call.thread,
            call_id=call.name,
            credential=credential,
            policy_version=self.policy.digest,
            outside=call.bound.outside,
            expires_at=self.ledger.clock() + lasts,
            bits=0 if decision.effect is Effect.DENY else prepared.bits,
        )


def asked_of(row: RequestRow, reads: Reads) -> AskedRow | None:
    """The approval request of a recorded call, None if its decision asked nobody."""
    if row.effect != Effect.ASK.value:
        return None
    return reads.first(approvals.asked_of(row.digest))


def asks_again(decision: Decision) -> Refused:
    """The refusal of a call that was approved before a new reason came up (I7)."""
    return Refused(
        f"{decision.reason}. Nobody approved it knowing that; make the call again, to ask again",
        policy="asks-again",
    )


def ledger_refusal(error: LedgerError) -> Refused:
    """What the model is told of a ledger that could not be used."""
    if isinstance(error, LedgerUnavailable):
        return Refused(UNAVAILABLE, policy="ledger")
    return Refused(ALARMED, policy="tamper-alarm")


def log_refusal(
    tool: str, agent: str | None, job: str, thread: str, policies: Sequence[str], reason: str
) -> None:
    """Write to the developer's log why a call was refused; no values of its arguments (S7)."""
    _log.warning(
        "refused: %s as %s in job %s, thread %.80r, by %s: %s",
        tool, agent or "no agent", job or "none", thread, ", ".join(policies), in_a_line(reason),
    )  # fmt: skip


def in_a_line(text: str) -> str:
    """Text as a log holds it: one line, bounded."""
    short = " ".join(text[:1000].split())
    return "".join(c if c.isprintable() else "?" for c in short)


def _place(call: Call) -> tuple[str, str, str]:
    return call.job.id, call.thread, call.name


_K = TypeVar("_K")
_V = TypeVar("_V")


def _put(known: dict[_K, _V], key: _K, value: _V) -> bool:
    """Remember something, and forget what is oldest; False if it was known."""
    if key in known:
        return False
    if len(known) >= _REMEMBERED:
        for oldest in list(known)[:1]:  # a copy: other threads write there, too
            known.pop(oldest, None)
    known[key] = value
    return True


def _deny(policy: str, reason: str) -> Decision:
    return Decision(effect=Effect.DENY, policies=(policy,), reason=reason)


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


def _refusal(call: Call, refusal: Refused) -> dict[str, Any]:
    return {
        "job": call.job.id,
        "agent": call.agent,
        "tool": call.bound.name,
        "call": call.key,
        "policy": refusal.policy,
        "reason": refusal.reason[:500],
    }


def _refused_call(call: Call, refusal: Refused) -> RefusedCall:
    return RefusedCall(
        call_key=call.key,
        job=call.job.id,
        thread=call.thread,
        call_id=call.name,
        tool=call.bound.name,
        reason=refusal.reason[:500],
        body=_refusal(call, refusal),
    )


def _denied(refusal: Refused) -> Authorized:
    return Authorized(decision=_deny(refusal.policy, refusal.reason))


def _recorded_decision(row: RequestRow) -> Decision:
    return Decision(
        effect=Effect(row.effect),
        policies=row.policies,
        reason=row.reason,
    )
