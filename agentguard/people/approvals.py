"""Answers: one Person's signed verdict on one Request digest."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from agentguard.config.workspace import Workspace
from agentguard.errors import ApprovalError, ConfigError, LedgerCorrupt
from agentguard.ledger.ledger import (
    ASKED_ANEW,
    TOO_LATE,
    Ledger,
    Reads,
)
from agentguard.ledger.open import checkpoints_of
from agentguard.ledger.queries import approvals as questions
from agentguard.ledger.queries.assets import contributors_to
from agentguard.ledger.queries.parts import ALL
from agentguard.ledger.rows.approvals import AskedCallRow, QuestionRow
from agentguard.ledger.transitions.approvals import (
    closed_because,
    is_open_question,
    nothing_to_answer,
)
from agentguard.ledger.verify import verify_tail
from agentguard.model import (
    Answer,
    ApprovalState,
    Needs,
    Person,
    Reason,
    RecordedCall,
    request_digest,
)
from agentguard.people.answers import verify_answer
from agentguard.people.signers import Signers
from agentguard.policy import explanation
from agentguard.policy.approvers import Bar, Involved, bar, eligible, still_needed, why_not_counted

_log = logging.getLogger(__name__)
_SKEW = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One approval request, as people see it.

    Args:
        request: the Request's digest; it names the approval request.
        needs: what was asked for.
        reason: why a person is asked, in one sentence.
        policies: ids of the policies that asked.
        call: the call as the ledger keeps it, with texts redacted.
        arguments: the call's arguments word for word, as the Request's digest covers them (I7).
        requested_by: who asked for the job; they can't answer.
        answers: the answers so far.
        reasons: what an approval covers: nothing that comes up later is lifted by it (I7).
        replaced_by: digest of the newest question about the same call, if it was asked anew.
        closed: why it takes no answer any more, in a few words; None while it may, or if its
            approvals were used.
    """

    request: str
    job: str
    purpose: str
    state: ApprovalState
    needs: Needs
    reason: str
    policies: tuple[str, ...]
    call: RecordedCall
    arguments: Mapping[str, Any]
    requested_by: str
    asked_at: int
    expires_at: int
    answers: tuple[Answer, ...]
    reasons: frozenset[Reason] = frozenset()
    replaced_by: str | None = None
    closed: str | None = None

    @property
    def is_pending(self) -> bool:
        """Whether it waits for answers."""
        return self.state is ApprovalState.PENDING

    @property
    def shown(self) -> Mapping[str, Any]:
        """The call as JSON data, with texts redacted."""
        return self.call.shown()


class Approvals:
    """The approval requests of a workspace, and the way an Answer gets in.

    Args:
        workspace: says who the people are, and where their public keys are.
        ledger: where requests and answers are recorded.
    """

    def __init__(self, *, workspace: Workspace, ledger: Ledger) -> None:
        self._workspace = workspace
        self._ledger = ledger

    def list(
        self, *, state: str | None = "pending", limit: int | None = None
    ) -> tuple[Approval, ...]:
        """The approval requests in a state (None: in any), newest first.

        Args:
            limit: how many at most; None: all of them.
        """
        with self._ledger.snapshot() as reads:
            rows = reads.rows(questions.questions_in(state, ALL if limit is None else limit))
            answers = questions.answers_to(reads, [row.request for row in rows])
        return tuple(self._read(row, answers[row.request]) for row in rows)

    def waiting(self, *, limit: int | None = None) -> tuple[Approval, ...]:
        """The approval requests that people may complete now, newest first.

        Also an approved one whose approvals are not enough any more, before its call is begun: a
        key was withdrawn, or who approved left the group or the workspace.

        Args:
            limit: how many at most; None: all of them.
        """
        now = self._ledger.clock()
        with self._ledger.snapshot() as reads:
            most = ALL if limit is None else limit
            rows = reads.rows(questions.questions_in(ApprovalState.PENDING, most))
            approved = reads.rows(questions.approved_unused(now))
            answers = questions.answers_to(reads, [row.request for row in (*rows, *approved)])
        found = [
            one
            for row in (*rows, *approved)
            if (one := self._read(row, answers[row.request])).expires_at > now
        ]
        missing = self.missing_of(found)
        found = [one for one in found if one.is_pending or missing[one.request].approvals]
        return tuple(sorted(found, key=lambda one: one.asked_at, reverse=True)[:limit])

    def show(self, request: str) -> Approval:
        """One approval request, by its Request's digest or the first 12 or more digits of it.

        Raises:
            ApprovalError: none, or more than one, has this name.
        """
        with self._ledger.snapshot() as reads:
            return self._show(request, reads)

    def _show(self, request: str, reads: Reads) -> Approval:
        if len(request) < 12:
            raise ApprovalError(f"{request!r:.20} is too short; give 12 or more digits")
        rows = reads.rows(questions.questions_called(request))
        if len(rows) != 1:
            count = len(rows) if len(rows) < 3 else "several"
            raise ApprovalError(
                f"{count} approval requests begin with {request:.64}; `agentguard approvals"
                " list --all` shows them"
            )
        return self._approval(rows[0], reads)

    def unused(self, thread: str, call: str) -> Sequence[AskedCallRow]:
        """The questions that a call of a thread waits for, whichever job asked them.

        Args:
            call: how the ledger names the call's id; a thread may use one again.

        Returns:
            Those that are pending, or whose approvals no claim has used, the newest first; none
            without a thread.
        """
        if not thread:
            return ()
        return self._ledger.rows(questions.unused_of_call(thread, call, self._ledger.clock()))

    def eligible(self, approval: Approval) -> tuple[str, ...]:
        """Who may still answer: not the requester, no contributor, nobody who answered (I1)."""
        return self.eligible_for([approval])[approval.request]

    def eligible_for(self, approvals: Sequence[Approval]) -> Mapping[str, tuple[str, ...]]:
        """As `eligible`, for many at once, by their Requests' digests."""
        contributors = self._contributors(approvals)
        return {
            one.request: tuple(sorted(self._eligible(one, self._involved(one, contributors))))
            for one in approvals
        }

    def missing(self, approval: Approval) -> Needs:
        """What is missing of what was asked for.

        While more people can approve, only approvals that hold now count.
        """
        return self.missing_of([approval])[approval.request]

    def missing_of(self, approvals: Sequence[Approval]) -> Mapping[str, Needs]:
        """As `missing`, for many at once, by their Requests' digests."""
        contributors = self._contributors(approvals)
        found = {}
        for one in approvals:
            holding = self._holding(one, self._involved(one, contributors))
            left = found[one.request] = still_needed(one.needs, holding)
            if left.approvals and one.answers and not self.takes_answers(one):
                found[one.request] = still_needed(one.needs, one.answers)
        return found

    def _holding(self, approval: Approval, involved: Involved) -> Sequence[Answer]:
        """The answers whose signatures hold, of people who may give them as they did."""
        people = self._workspace.people
        return [
            one
            for one in self.sound(approval.answers)
            if one.person in people
            and bar(one.person, involved, ()) is None
            and (one.group is None or one.group in people[one.person].groups)
        ]

    def _contributors(self, approvals: Iterable[Approval]) -> Mapping[str, Set[str]]:
        media = (sha256 for one in approvals for sha256 in one.call.media)
        return contributors_to(self._ledger, media)

    def barred(self, approval: Approval, person: str) -> Bar | None:
        """What keeps a person from answering; None: nothing does."""
        involved = self._involved(approval, self._contributors([approval]))
        return bar(person, involved, approval.answers)

    def answer(self, answer: Answer) -> Approval:
        """Record a person's signed Answer; returns the approval request as it then stands.

        The log is compared with its newest checkpoint first, as it is on opening. Whether every row
        is what its record says, `agentguard audit verify` finds out.

        Raises:
            ApprovalError: not this person's signature, not pending, too late, the person may not
                answer it, or an approval could not count as it is: the person must name another
                group, or what is missing must come from others. Nothing is recorded.
            LedgerCorrupt: the log is not what was signed, or an old copy was restored.
        """
        try:
            verify_tail(self._ledger.storage, checkpoints_of(self._workspace))
        except LedgerCorrupt as error:
            self._ledger.raise_alarm(error)
            raise
        with self._ledger.snapshot() as reads:
            approval = self._show(answer.request, reads)
            self._require_answerable(answer, approval, reads)
        self._ledger.answer(answer)
        return self.show(answer.request)

    def _require_answerable(self, answer: Answer, approval: Approval, reads: Reads) -> None:
        person = self._workspace.people.get(answer.person)
        now = self._ledger.clock()
        if person is None:
            raise ApprovalError(f"{answer.person:.80} is no configured person")
        verify_answer(answer, Signers.load(self._workspace.signers))
        if approval.replaced_by is not None:
            raise ApprovalError(
                f"{ASKED_ANEW}: agentguard approvals show {approval.replaced_by[:16]}"
            )
        if not approval.is_pending and not is_open_question(reads, approval.request):
            raise ApprovalError(nothing_to_answer(approval.state, approval.closed))
        if now >= approval.expires_at:
            raise ApprovalError(TOO_LATE)
        if not approval.asked_at - _SKEW <= answer.at <= now + _SKEW:
            raise ApprovalError("the answer is not dated within the review window; sign it again")
        if answer.group is not None and answer.group not in person.groups:
            raise ApprovalError(f"{answer.person} is not in {answer.group}")
        involved = self._involved(approval, contributors_to(reads, approval.call.media))
        able = self._eligible(approval, involved)
        why = bar(answer.person, involved, approval.answers)
        if why is not None:
            who = ", ".join(sorted(able)) or "nobody"
            raise ApprovalError(explanation.barred(answer.person, why, who))
        if not approval.is_pending:
            return  # the policy came to want more than was asked for, or a key was withdrawn
        others = [one for name, one in able.items() if name != answer.person]
        given = self._holding(approval, involved)
        uncounted = why_not_counted(approval.needs, given, answer, person=person, others=others)
        if uncounted is not None:
            raise ApprovalError(explanation.uncounted(uncounted, answer))

    def takes_answers(self, approval: Approval) -> bool:
        """Whether it waits, or is approved and not begun: then a no still counts, or more people.

        More are wanted where the policy came to ask for them, or a key was withdrawn.
        """
        return approval.is_pending or is_open_question(self._ledger, approval.request)

    def sound(self, answers: Sequence[Answer]) -> tuple[Answer, ...]:
        """Those of recorded Answers whose signatures hold with the keys known now."""
        if not answers:
            return ()
        try:
            signers = Signers.load(self._workspace.signers)
        except ConfigError as error:  # no known key: no answer holds (I11)
            _log.error("no answer counts: %s", error)
            return ()
        found = []
        for answer in answers:
            try:
                verify_answer(answer, signers)
            except ApprovalError as error:
                _log.error("an answer is left out: %s", error)
            else:
                found.append(answer)
        return tuple(found)

    def _approval(self, row: QuestionRow, reads: Reads) -> Approval:
        return self._read(row, self._ledger.answers(row.request, reads))

    def _read(self, row: QuestionRow, answers: Sequence[Answer]) -> Approval:
        closed = closed_because(
            row.state,
            job_state=row.job_state,
            replaced=row.replaced_by is not None,
            said_no=row.said_no,
        )
        return Approval(
            request=row.request,
            job=row.job,
            purpose=row.purpose,
            state=row.state,
            needs=Needs(approvals=row.count, groups=row.groups),
            reason=row.reason,
            policies=row.policies,
            call=row.body,
            arguments=self.arguments(row),
            requested_by=row.requested_by,
            asked_at=row.asked_at,
            expires_at=row.expires_at,
            answers=tuple(answers),
            reasons=row.body.question.reasons,
            replaced_by=row.replaced_by,
            closed=closed.value if closed is not None else None,
        )

    def arguments(self, row: QuestionRow | AskedCallRow) -> Mapping[str, Any]:
        """The arguments of an asked call, word for word, as its Request's digest covers them (I7).

        Raises:
            ApprovalError: what people are shown is not what they sign: its row was edited.
        """
        if request_digest(row.question) != row.request:
            why = "what this approval request shows is not what it asks for: its row was edited"
            self._ledger.raise_alarm(LedgerCorrupt(why))
            raise ApprovalError(f"{why}; run `agentguard audit verify`")
        arguments: Mapping[str, Any] = json.loads(row.question)["args"]
        return arguments

    def _eligible(self, approval: Approval, involved: Involved) -> dict[str, Person]:
        return eligible(self._workspace.people.values(), involved, approval.answers)

    def _involved(self, approval: Approval, contributors: Mapping[str, Set[str]]) -> Involved:
        """Who had to do with an asked call (I1, S3).

        Args:
            contributors: of each asset of the call, by SHA-256.
        """
        agent = self._workspace.agents.get(approval.call.agent)
        media = (contributors.get(sha256, set()) for sha256 in approval.call.media)
        return Involved(
            requester=approval.requested_by,
            owner=agent.owner if agent is not None else None,
            contributors=approval.call.contributors.union(*media),
        )
