"""What the ledger knows of a conversation's calls, found by the ids that its messages give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agentguard.ledger.storage.open import Row
from agentguard.model import Effect

_AT_ONCE = 400
"""Call ids of one statement; SQLite takes 999 parameters everywhere."""


class _Reads(Protocol):
    def all(self, sql: str, *parameters: object) -> list[Row]: ...


SAID_NO_WITH = (
    "EXISTS (SELECT 1 FROM approvals denied WHERE denied.job = approvals.job"
    " AND denied.state = 'denied' AND denied.ended_at = approvals.ended_at)"
)
"""Whether the no of a person closed an approval request, too: both end in one transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRow:
    """One recorded call and what became of it.

    Args:
        call_key: names the call for good; see `agentguard.calls.request.call_key`.
        call_id: how the ledger names the call's id.
        approval_state: None if nobody was asked.
        said_no: a no to the same media closed its approval request, too.
        grant_state: None without a Grant.
        outside: the kind of effect that the Grant is for.
        text: the recorded outcome; None without one.
        updates: the state keys that the outcome writes, as JSON.
        shown: the call as it was logged, as JSON; only of another job's calls. Whoever names a
            thread and a call like somebody else's is not that one: only the same call is.
    """

    request: str
    job: str
    job_state: str
    call_key: str
    call_id: str
    revision: int
    tool: str
    effect: str
    reason: str
    approval_state: str | None
    said_no: bool
    asked_until: int | None
    grant_state: str | None
    outside: str | None
    text: str | None
    updates: str | None
    shown: str | None


_SELECT = (
    f"SELECT {SAID_NO_WITH} AS said_no,"
    " r.digest AS request, r.job, jobs.state AS job_state, r.call_key, r.call_id,"
    " r.revision, r.tool, r.effect, r.reason, approvals.state AS approval_state,"
    " approvals.expires_at AS asked_until, g.state AS grant_state, g.effect AS outside,"
    " o.text, o.state AS updates, {shown} AS shown FROM requests r JOIN jobs ON jobs.id = r.job"
    " LEFT JOIN approvals ON approvals.request = r.digest"
    " LEFT JOIN grants g ON g.request = r.digest LEFT JOIN outcomes o ON o.grant_id = g.id WHERE"
)


def granted_call(reads: _Reads, *, job: str, thread: str, call_id: str) -> Row | None:
    """The newest call of this id that has a Grant: its `agent`, `call_key`, `tool` and `body`.

    Args:
        call_id: how the ledger names it.
    """
    rows = reads.all(
        "SELECT r.agent, r.call_key, r.tool, r.body FROM requests r"
        " JOIN grants g ON g.request = r.digest"
        " WHERE r.job = ? AND r.thread = ? AND r.call_id = ? ORDER BY r.ordinal DESC LIMIT 1",
        job,
        thread,
        call_id,
    )
    return rows[0] if rows else None


_REFUSED = (
    "SELECT 1 = 0 AS said_no, '' AS request, job, 'open' AS job_state, call_key, call_id,"
    " -1 AS revision, tool, 'deny' AS effect, reason, NULL AS approval_state, NULL AS asked_until,"
    " NULL AS grant_state, NULL AS outside, NULL AS text, NULL AS updates, NULL AS shown"
    " FROM refusals WHERE job = ? AND thread = ?"
)
"""What was refused before it became a Request; once it is one, that counts."""


def calls_named(
    reads: _Reads, *, thread: str, job: str | None, call_ids: Sequence[str]
) -> list[CallRow]:
    """The recorded calls of a conversation that bear one of these ids.

    A thread's conversation goes on from one job to the next, so calls that the job at hand did not
    make are looked for in the thread's other jobs.

    Args:
        thread: the LangGraph thread id, empty without a checkpointer.
        job: the job that the run belongs to; None without one.
        call_ids: how the ledger names them.
    """
    found: list[CallRow] = []
    wanted = list(dict.fromkeys(call_ids))
    if job is not None:
        own = f"{_SELECT.format(shown='NULL')} r.job = ? AND r.thread = ?"
        found += _named(reads, (own, _REFUSED), (job, thread), wanted)
        known = {row.call_id for row in found}
        wanted = [name for name in wanted if name not in known]
    if thread:
        other = f"{_SELECT.format(shown='r.body')} r.thread = ? AND r.job <> ?"
        found += _named(reads, (other,), (thread, job or ""), wanted)
    return found


def effects_of(reads: _Reads, call_keys: Sequence[str]) -> dict[str, Effect]:
    """How calls were decided, by their keys, each by its newest revision; others are left out."""
    found: dict[str, Effect] = {}
    for start in range(0, len(call_keys), _AT_ONCE):
        some = call_keys[start : start + _AT_ONCE]
        marks = ", ".join("?" * len(some))
        rows = reads.all(
            f"SELECT call_key, effect FROM requests WHERE call_key IN ({marks}) ORDER BY revision",
            *some,
        )
        found |= {row["call_key"]: Effect(row["effect"]) for row in rows}
    return found


def _named(
    reads: _Reads, queries: Sequence[str], parameters: Sequence[str], call_ids: Sequence[str]
) -> list[CallRow]:
    found: list[CallRow] = []
    for start in range(0, len(call_ids), _AT_ONCE):
        some = call_ids[start : start + _AT_ONCE]
        marks = ", ".join("?" * len(some))
        query = " UNION ALL ".join(f"{each} AND call_id IN ({marks})" for each in queries)
        rows = reads.all(query, *(*parameters, *some) * len(queries))
        found += [
            CallRow(**{**dict(zip(row.keys(), row, strict=True)), "said_no": bool(row["said_no"])})
            for row in rows
        ]
    return found
