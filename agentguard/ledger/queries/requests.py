"""What the ledger is asked about recorded calls: Requests, and what was refused before it was one.

The calls of a conversation are found by the ids that its messages give them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from agentguard.ledger.queries.approvals import SAID_NO_WITH
from agentguard.ledger.queries.jobs import HOLDER, holder_from
from agentguard.ledger.queries.parts import begins_with, in_parts, marks
from agentguard.ledger.rows.approvals import ApprovalRow
from agentguard.ledger.rows.calls import CallRow, call_row
from agentguard.ledger.rows.decode import number, row_as
from agentguard.ledger.rows.grants import GrantRow
from agentguard.ledger.rows.requests import ConversationCall, DecisionCheck, JobCallRow, RequestRow
from agentguard.ledger.storage.query import Query, Reads, Row
from agentguard.model import Effect, Request


def request_by_digest(digest: str) -> Query[RequestRow]:
    """A recorded Request."""
    return Query("SELECT * FROM requests WHERE digest = ?", (digest,), row_as(RequestRow))


def requests_called(name: str) -> Query[RequestRow]:
    """The Requests whose digest begins so, three at most."""
    sql = f"SELECT * FROM requests WHERE {begins_with('digest')} LIMIT 3"
    return Query(sql, (name,), row_as(RequestRow))


def _behind(prefix: str, table: str, kind: type[Any]) -> str:
    """The columns of a row class, each under its name behind a prefix."""
    return ", ".join(f"{table}.{column.name} AS {prefix}{column.name}" for column in fields(kind))


_CALLS = (
    f"SELECT r.*, {_behind('a_', 'a', ApprovalRow)}, {_behind('g_', 'g', GrantRow)}"
    " FROM requests r LEFT JOIN approvals a ON a.request = r.digest"
    " LEFT JOIN grants g ON g.request = r.digest"
)
_OF_CALL = (
    f"{_CALLS} WHERE r.job = ? AND r.thread = ? AND r.call_id = ? ORDER BY r.ordinal DESC LIMIT"
)


def requests_of_call(job: str, thread: str, call: str) -> Query[CallRow]:
    """What was decided under a call id of a thread in a job, newest first.

    Args:
        call: how the ledger names the call's id.
    """
    return Query(f"{_OF_CALL} 1000", (job, thread, call), call_row)


def calls_of_thread(thread: str, call: str) -> Query[CallRow]:
    """What was decided under a call id of a thread, in whichever jobs it ran.

    Args:
        thread: the LangGraph thread id; nothing is of an empty one.
        call: how the ledger names the call's id.
    """
    sql = f"{_CALLS} WHERE r.thread = nullif(?, '') AND r.call_id = ?"
    return Query(sql, (thread, call), call_row)


def newest_of_call(job: str, thread: str, call: str) -> Query[CallRow]:
    """The newest of `requests_of_call`."""
    return Query(f"{_OF_CALL} 1", (job, thread, call), call_row)


def newest_of_key(call_key: str | None) -> Query[RequestRow]:
    """The newest Request of a call key."""
    sql = "SELECT * FROM requests WHERE call_key = ? ORDER BY revision DESC LIMIT 1"
    return Query(sql, (call_key,), row_as(RequestRow))


def granted_calls(
    reads: Reads, *, job: str, thread: str, call_ids: Sequence[str]
) -> list[RequestRow]:
    """The Requests of a thread in a job that have a Grant, newest first.

    Args:
        call_ids: how the ledger names them; one may have been used again.
    """
    found: list[RequestRow] = []
    for some in in_parts(call_ids):
        sql = (
            "SELECT r.* FROM requests r JOIN grants g ON g.request = r.digest"
            f" WHERE r.job = ? AND r.thread = ? AND r.call_id IN ({marks(some)})"
            " ORDER BY r.ordinal DESC LIMIT 1000"
        )
        found += reads.rows(Query(sql, (job, thread, *some), row_as(RequestRow)))
    return found


def revision_of_key(call_key: str, revision: int) -> Query[int]:
    """Whether a revision of a call key is recorded."""
    sql = "SELECT 1 FROM requests WHERE call_key = ? AND revision = ?"
    return Query(sql, (call_key, revision), number)


def decided_elsewhere(*, job: str, thread: str, call: str, tool: str) -> Query[RequestRow]:
    """Some Requests of this tool and call id: of this job in any thread, of this thread in any job.

    Ids may come again, so they need not be of one call.
    """
    return Query(
        "SELECT * FROM requests WHERE job = ? AND call_id = ? AND tool = ?"
        " UNION ALL SELECT * FROM requests WHERE thread = nullif(?, '') AND call_id = ?"
        " AND tool = ? LIMIT 20",
        (job, call, tool, thread, call, tool),
        row_as(RequestRow),
    )


def decision_check(request: Request, *, thread: str, call: str) -> Query[DecisionCheck]:
    """What recording a Decision needs to know."""
    return Query(
        f"SELECT {HOLDER},"
        " (SELECT 1 FROM requests WHERE call_key = ?2 AND revision = ?3) AS known,"
        " (SELECT max(ordinal) FROM requests WHERE job = ?1 AND thread = ?4 AND call_id = ?5)"
        f" AS last FROM {holder_from('?1')}",
        (request.job, request.call_key, request.revision, thread, call),
        row_as(DecisionCheck),
    )


def calls_of_job(job: str) -> Query[JobCallRow]:
    """The calls of a job, in the order in which they were decided."""
    return Query(
        "SELECT r.digest, r.agent, r.tool, r.destination, r.effect, r.decided_at,"
        " a.state AS approval, g.state AS grant_state FROM requests r"
        " LEFT JOIN approvals a ON a.request = r.digest"
        " LEFT JOIN grants g ON g.request = r.digest WHERE r.job = ?"
        " ORDER BY r.decided_at, r.digest",
        (job,),
        row_as(JobCallRow),
    )


def bits_said(job: str, thread: str) -> Query[int]:
    """Bits that calls of a conversation said in numbers since something was revealed in it (I4).

    Calls that carried the revealed labels are not counted.
    """
    return Query(
        "SELECT coalesce(sum(bits), 0) AS bits FROM numbers"
        " WHERE job = ?1 OR (thread = ?2 AND thread <> '')",
        (job, thread),
        number,
    )


_CALL = (
    f"SELECT {SAID_NO_WITH} AS said_no,"
    " r.digest AS request, r.job, jobs.state AS job_state, r.call_key, r.call_id,"
    " r.revision, r.tool, r.effect, r.reason, approvals.state AS approval_state,"
    " approvals.expires_at AS asked_until, g.state AS grant_state, g.effect AS outside,"
    " o.text, o.state AS updates, {recorded} AS recorded FROM requests r"
    " JOIN jobs ON jobs.id = r.job LEFT JOIN approvals ON approvals.request = r.digest"
    " LEFT JOIN grants g ON g.request = r.digest LEFT JOIN outcomes o ON o.grant_id = g.id WHERE"
)


_REFUSED = (
    "SELECT 1 = 0 AS said_no, '' AS request, job, 'open' AS job_state, call_key, call_id,"
    " -1 AS revision, tool, 'deny' AS effect, reason, NULL AS approval_state, NULL AS asked_until,"
    " NULL AS grant_state, NULL AS outside, NULL AS text, NULL AS updates, NULL AS recorded"
    " FROM refusals WHERE job = ? AND thread = ?"
)
"""What was refused before it became a Request; once it is one, that counts."""


def calls_named(
    reads: Reads, *, thread: str, job: str | None, call_ids: Sequence[str]
) -> list[ConversationCall]:
    """The recorded calls of a conversation that bear one of these ids.

    A thread's conversation goes on from one job to the next, so calls that the job at hand did not
    make are looked for in the thread's other jobs.

    Args:
        thread: the LangGraph thread id, empty without a checkpointer.
        job: the job that the run belongs to; None without one.
        call_ids: how the ledger names them.
    """
    found: list[ConversationCall] = []
    wanted = list(dict.fromkeys(call_ids))
    if job is not None:
        own = f"{_CALL.format(recorded='NULL')} r.job = ? AND r.thread = ?"
        found += _named(reads, (own, _REFUSED), (job, thread), wanted)
        known = {row.call_id for row in found}
        wanted = [name for name in wanted if name not in known]
    if thread:
        other = f"{_CALL.format(recorded='r.body')} r.thread = ? AND r.job <> ?"
        found += _named(reads, (other,), (thread, job or ""), wanted)
    return found


def effects_of(reads: Reads, call_keys: Sequence[str]) -> dict[str, Effect]:
    """How calls were decided, by their keys, each by its newest revision; others are left out."""
    found: dict[str, Effect] = {}
    for some in in_parts(call_keys):
        sql = (
            "SELECT call_key, effect FROM requests"
            f" WHERE call_key IN ({marks(some)}) ORDER BY revision"
        )
        found |= dict(reads.rows(Query(sql, tuple(some), _key_and_effect)))
    return found


def _key_and_effect(row: Row) -> tuple[str, Effect]:
    return str(row[0]), Effect(row[1])


def _named(
    reads: Reads, statements: Sequence[str], parameters: tuple[str, ...], call_ids: Sequence[str]
) -> list[ConversationCall]:
    found: list[ConversationCall] = []
    for some in in_parts(call_ids):
        sql = " UNION ALL ".join(f"{each} AND call_id IN ({marks(some)})" for each in statements)
        values = (*parameters, *some) * len(statements)
        found += reads.rows(Query(sql, values, row_as(ConversationCall)))
    return found
