"""What the ledger is asked about operations, and about what a remembering server was sent (I4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentguard.canonical import digest
from agentguard.ledger.queries.parts import marks
from agentguard.ledger.rows.decode import row_as
from agentguard.ledger.rows.operations import OperationRow, SentRow
from agentguard.ledger.storage.query import Query, Reads


@dataclass(frozen=True, slots=True, kw_only=True)
class SentCall:
    """What one claimed call sent to a server that remembers, as it was decided.

    Args:
        call_id: how the ledger names the call's id.
        labels: of its texts and its tool, and those that its result raised.
        assets: SHA-256 of each.
    """

    call_key: str
    thread: str
    call_id: str
    ordinal: int
    agent: str
    labels: frozenset[str]
    assets: tuple[str, ...]
    contributors: frozenset[str]


def operation_name(job: str, tool: str, id: str) -> str:
    """How the ledger names an operation: a vendor wrote its id, and the id opens its result."""
    return digest("agentguard/operation/v1", [job, tool, id])


def raised_name(grant: str) -> str:
    """How the ledger names the labels that the result of a Grant's call raised."""
    return digest("agentguard/raised/v1", grant)


def operations_named(job: str, tools: Sequence[str], id: str) -> Query[OperationRow]:
    """The operations of a job that one of these tools got this id for; none for a foreign id."""
    names = [operation_name(job, tool, id) for tool in tools]
    sql = f"SELECT * FROM operations WHERE job = ? AND name IN ({marks(names)})"
    return Query(sql, (job, *names), row_as(OperationRow))


def raised_by(job: str, grant: str) -> Query[OperationRow]:
    """The labels that the result of a Grant's call raised."""
    return Query(
        "SELECT * FROM operations WHERE job = ? AND name = ? AND grant_id = ?",
        (job, raised_name(grant), grant),
        row_as(OperationRow),
    )


def sent_calls(
    reads: Reads, job: str, tools: Sequence[str], destination: str | None
) -> list[SentCall]:
    """What a job's claimed calls sent to a server that remembers."""
    rows = reads.rows(
        Query(
            "SELECT r.call_key, r.thread, r.call_id, r.ordinal, r.agent, r.body, g.id"
            " FROM requests r JOIN grants g ON g.request = r.digest"
            " WHERE r.job = ? AND g.claims > 0"
            f" AND (r.tool IN ({marks(tools)}) OR r.destination = ?)",
            (job, *tools, destination),
            row_as(SentRow),
        )
    )
    found = []
    for row in rows:
        raised = reads.first(raised_by(job, row.id))
        labels = row.body.text_labels | row.body.tool_labels
        found.append(
            SentCall(
                call_key=row.call_key,
                thread=row.thread,
                call_id=row.call_id,
                ordinal=row.ordinal,
                agent=row.agent,
                labels=labels | (raised.labels if raised is not None else frozenset()),
                assets=tuple(asset.sha256 for asset in row.body.assets),
                contributors=row.body.contributors,
            )
        )
    return found
