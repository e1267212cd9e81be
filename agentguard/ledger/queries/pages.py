"""Lists that people page through, and names that they cut short: none reads a whole table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from agentguard.ledger.queries.calls import SAID_NO_WITH
from agentguard.ledger.storage.query import Reads, Row

ALL = 2**62
"""A limit that no list reaches."""

_AT_ONCE = 500  # parameters of one statement


def begins_with(column: str) -> str:
    """A condition: a column of ids or digests begins with parameter 1. An index answers it.

    Ids and digests go on in hexadecimal digits, which every collation puts before `g`.
    """
    return f"({column} >= ?1 AND {column} < ?1 || 'g' AND substr({column}, 1, length(?1)) = ?1)"


_APPROVAL = (
    "SELECT approvals.*, requests.reason, requests.policies, requests.body, jobs.purpose,"
    f" jobs.requested_by, jobs.state AS job_state, {SAID_NO_WITH} AS said_no,"
    " (SELECT digest FROM requests newer"
    " WHERE newer.call_key = requests.call_key AND newer.revision > requests.revision"
    " ORDER BY newer.revision DESC LIMIT 1) AS replaced_by FROM approvals"
    " JOIN requests ON requests.digest = approvals.request JOIN jobs ON jobs.id = approvals.job"
)


def approvals_in(reads: Reads, state: str | None, limit: int) -> list[Row]:
    """Approval requests in a state (None: in any), newest first."""
    if state is None:
        return reads.all(f"{_APPROVAL} ORDER BY asked_at DESC, request LIMIT ?", limit)
    return reads.all(
        f"{_APPROVAL} WHERE approvals.state = ? ORDER BY asked_at DESC, request LIMIT ?",
        state,
        limit,
    )


def approvals_called(reads: Reads, name: str) -> list[Row]:
    """The approval requests whose digest begins so, three at most."""
    return reads.all(f"{_APPROVAL} WHERE {begins_with('approvals.request')} LIMIT 3", name)


def unused_approvals(reads: Reads, thread: str, call: str, unused: str, now: int) -> list[Row]:
    """The newest approval request of a thread's call whose window is open.

    Args:
        unused: the condition that no claim has used it.
    """
    return reads.all(
        f"{_APPROVAL} WHERE requests.thread = ? AND requests.call_id = ?"
        f" AND approvals.expires_at > ? AND {unused} ORDER BY asked_at DESC LIMIT 1",
        thread,
        call,
        now,
    )


def answers_to(reads: Reads, requests: Sequence[str]) -> Mapping[str, list[Row]]:
    """Every answer to each of these Requests, in the order in which they were given."""
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for marks, some in _some(requests):
        for row in reads.all(
            f"SELECT * FROM answers WHERE request IN ({marks}) ORDER BY at", *some
        ):
            found[row["request"]].append(row)
    return found


def contributors_to(reads: Reads, assets: Iterable[str]) -> Mapping[str, set[str]]:
    """Who contributed to each of these assets (SHA-256)."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for marks, some in _some(sorted(set(assets))):
        for row in reads.all(f"SELECT * FROM contributors WHERE sha256 IN ({marks})", *some):
            found[row["sha256"]].add(row["person"])
    return found


def _some(values: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Values in parts that a statement takes, each with its marks."""
    left = iter(values)
    while some := list(islice(left, _AT_ONCE)):
        yield ", ".join("?" * len(some)), some
