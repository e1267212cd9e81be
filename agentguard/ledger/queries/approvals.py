"""What the ledger is asked about approval requests and answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from agentguard.ledger.queries.parts import begins_with, in_parts, marks
from agentguard.ledger.rows.approvals import (
    ApprovalRow,
    AskedCallRow,
    ClosedRow,
    DeniedCall,
    OpenQuestion,
    QuestionRow,
    ReplaceableRow,
)
from agentguard.ledger.rows.decode import number, row_as
from agentguard.ledger.storage.query import Query, Reads
from agentguard.model import Answer, Request, RevokedBy

UNUSED = (
    "(approvals.state = 'pending' OR (approvals.state = 'approved' AND NOT EXISTS"
    " (SELECT 1 FROM grants WHERE grants.request = approvals.request AND grants.state NOT IN"
    " ('issued', 'revoked', 'expired'))))"
)
"""An approval request that still waits, or whose approvals no claim has used."""

SAID_NO_WITH = (
    f"CASE WHEN approvals.revoked_by IS NOT NULL THEN approvals.revoked_by = '{RevokedBy.DENIAL}'"
    " ELSE EXISTS (SELECT 1 FROM approvals denied WHERE denied.job = approvals.job"
    " AND denied.state = 'denied' AND denied.ended_at = approvals.ended_at) END"
)
"""Whether the no of a person closed an approval request, too.

Schemas until 8 kept no cause: there, both ended in one transaction, at one time.
"""

_QUESTION = (
    "SELECT approvals.*, requests.reason, requests.policies, requests.body, jobs.purpose,"
    f" jobs.requested_by, jobs.state AS job_state, {SAID_NO_WITH} AS said_no,"
    " (SELECT digest FROM requests newer"
    " WHERE newer.call_key = requests.call_key AND newer.revision > requests.revision"
    " ORDER BY newer.revision DESC LIMIT 1) AS replaced_by FROM approvals"
    " JOIN requests ON requests.digest = approvals.request JOIN jobs ON jobs.id = approvals.job"
)


def approval_of(request: str) -> Query[ApprovalRow]:
    """The approval request of a Request."""
    sql = "SELECT * FROM approvals WHERE request = ?"
    return Query(sql, (request,), row_as(ApprovalRow))


def questions_in(state: str | None, limit: int) -> Query[QuestionRow]:
    """Approval requests in a state (None: in any), newest first."""
    where, parameters = ("", ()) if state is None else (" WHERE approvals.state = ?", (state,))
    sql = f"{_QUESTION}{where} ORDER BY asked_at DESC, request LIMIT ?"
    return Query(sql, (*parameters, limit), row_as(QuestionRow))


def approved_unused(now: int) -> Query[QuestionRow]:
    """The approved questions that no Grant came of yet and whose window is open, newest first."""
    sql = (
        f"{_QUESTION} WHERE approvals.state = 'approved' AND approvals.expires_at > ?"
        " AND NOT EXISTS (SELECT 1 FROM grants WHERE grants.request = approvals.request)"
        " ORDER BY asked_at DESC, request"
    )
    return Query(sql, (now,), row_as(QuestionRow))


def questions_called(name: str) -> Query[QuestionRow]:
    """The approval requests whose digest begins so, three at most."""
    sql = f"{_QUESTION} WHERE {begins_with('approvals.request')} LIMIT 3"
    return Query(sql, (name,), row_as(QuestionRow))


_ASKED_CALL = (
    "SELECT approvals.*, requests.call_key, requests.call_id, requests.agent, requests.tool,"
    " requests.body, requests.reason, requests.policies, g.state AS grant_state"
    " FROM requests JOIN approvals ON approvals.request = requests.digest"
    " LEFT JOIN grants g ON g.request = requests.digest"
)


def asked_calls(
    reads: Reads, *, job: str, thread: str, call_ids: Sequence[str]
) -> list[AskedCallRow]:
    """The calls of a thread in a job that people were asked about, newest first.

    Args:
        call_ids: how the ledger names them; one may have been used again.
    """
    found: list[AskedCallRow] = []
    for some in in_parts(call_ids):
        sql = (
            f"{_ASKED_CALL} WHERE requests.job = ? AND requests.thread = ?"
            f" AND requests.call_id IN ({marks(some)}) ORDER BY requests.ordinal DESC LIMIT 1000"
        )
        found += reads.rows(Query(sql, (job, thread, *some), row_as(AskedCallRow)))
    return found


def unused_of_call(thread: str, call: str, now: int) -> Query[AskedCallRow]:
    """The unused questions about a thread's call whose window is open, the newest first.

    The calls that one task makes by hand share a name.
    """
    return Query(
        f"{_ASKED_CALL} WHERE requests.thread = ? AND requests.call_id = ?"
        f" AND approvals.expires_at > ? AND {UNUSED} ORDER BY asked_at DESC",
        (thread, call, now),
        row_as(AskedCallRow),
    )


def waits_in(job: str, now: int) -> Query[int]:
    """Whether an answer may still come in a job, or was not used yet."""
    sql = f"SELECT 1 FROM approvals WHERE job = ? AND +expires_at > ? AND {UNUSED}"
    return Query(sql, (job, now), number)


def why_closed(request: str) -> Query[ClosedRow]:
    """What says why the approval request of a Request takes no answer any more."""
    return Query(
        "SELECT approvals.state, jobs.state AS job_state, EXISTS (SELECT 1 FROM requests newer"
        " WHERE newer.call_key = asked.call_key AND newer.revision > asked.revision) AS replaced,"
        f" {SAID_NO_WITH} AS said_no"
        " FROM approvals JOIN requests asked ON asked.digest = approvals.request"
        " JOIN jobs ON jobs.id = approvals.job WHERE approvals.request = ?",
        (request,),
        row_as(ClosedRow),
    )


def replaceable(request: str) -> Query[ReplaceableRow]:
    """A question that may be asked anew."""
    return Query(
        "SELECT approvals.state, approvals.expires_at, requests.body,"
        " EXISTS (SELECT 1 FROM grants WHERE grants.request = digest) AS granted"
        " FROM approvals JOIN requests ON digest = request WHERE request = ?",
        (request,),
        row_as(ReplaceableRow),
    )


def questions_asked(job: str) -> Query[int]:
    """How often people were asked about calls of a job, whatever came of it."""
    return Query("SELECT count(*) AS asked FROM approvals WHERE job = ?", (job,), number)


def denied_calls(request: Request) -> Query[DeniedCall]:
    """The calls of a job, for one destination, that a person said no to, but for this very one."""
    return Query(
        "SELECT requests.tool, requests.content_digest, approvals.question FROM approvals"
        " JOIN requests ON requests.digest = approvals.request WHERE approvals.job = ?1"
        " AND approvals.state = 'denied' AND requests.digest <> ?2"
        " AND coalesce(requests.destination, '') = ?3",
        (request.job, request.digest, request.destination or ""),
        row_as(DeniedCall),
    )


_OPEN = (
    "SELECT approvals.request, requests.job, requests.destination, approvals.question"
    " FROM approvals JOIN requests ON requests.digest = approvals.request"
)


def denied_question(request: str) -> Query[OpenQuestion]:
    """The approval request of a Request, if a person said no to it."""
    sql = f"{_OPEN} WHERE approvals.request = ? AND approvals.state = 'denied'"
    return Query(sql, (request,), row_as(OpenQuestion))


def unused_questions(job: str, destination: str) -> Query[OpenQuestion]:
    """The questions of a job about calls for a destination that wait, or that no claim used yet."""
    return Query(
        f"{_OPEN} WHERE approvals.job = ? AND {UNUSED} AND requests.destination = ?",
        (job, destination),
        row_as(OpenQuestion),
    )


# --- answers ------------------------------------------------------------------------------------

_ANSWERS = 'SELECT *, answered_as AS "group" FROM answers'


def answers_of(request: str) -> Query[Answer]:
    """Every Answer to a Request, in their order; whoever uses them verifies the signatures."""
    return Query(f"{_ANSWERS} WHERE request = ? ORDER BY at", (request,), row_as(Answer))


def answer_by(request: str, person: str) -> Query[Answer]:
    """A person's Answer to a Request."""
    return Query(f"{_ANSWERS} WHERE request = ? AND person = ?", (request, person), row_as(Answer))


def answers_to(reads: Reads, requests: Sequence[str]) -> Mapping[str, list[Answer]]:
    """Every Answer to each of these Requests, in the order in which they were given."""
    found: defaultdict[str, list[Answer]] = defaultdict(list)
    for some in in_parts(requests):
        sql = f"{_ANSWERS} WHERE request IN ({marks(some)}) ORDER BY at"
        for answer in reads.rows(Query(sql, tuple(some), row_as(Answer))):
            found[answer.request].append(answer)
    return found
