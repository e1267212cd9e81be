"""Rows of operations, and what a remembering server was sent (I4)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentguard._ledger_assets import Made
from agentguard._ledger_requests import Reads
from agentguard.canonical import digest
from agentguard.model import Request
from agentguard.storage import Row, Tx, to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """An operation that a call started at a vendor.

    Args:
        id: as the vendor wrote it; the ledger keeps its name only.
        labels: of all that went in.
        contributors: people who stand behind it (I1).
        assets: SHA-256 of each asset that went in.
    """

    id: str
    labels: frozenset[str]
    terms: Mapping[str, Any]
    contributors: frozenset[str]
    assets: tuple[str, ...]


def operation_name(job: str, tool: str, id: str) -> str:
    """How the ledger names an operation: a vendor wrote its id, and the id opens its result."""
    return digest("agentguard/operation/v1", [job, tool, id])


def start(tx: Tx, request: Request, grant: str, started: Iterable[Started]) -> None:
    """Remember the operations that a call started; the caller records."""
    for one in started:
        tx.insert(
            "operations",
            job=request.job,
            name=operation_name(request.job, request.tool, one.id),
            grant_id=grant,
            tool=request.tool,
            destination=request.destination,
            labels=to_json(one.labels),
            terms=to_json(one.terms),
            contributors=to_json(one.contributors),
            assets=to_json(sorted(one.assets)),
            at=tx.now,
        )


def operations_named(reader: Reads, job: str, tools: Sequence[str], id: str) -> list[Row]:
    """The operations of a job that one of these tools got this id for; none for a foreign id."""
    marks = ", ".join("?" * len(tools))
    names = [operation_name(job, tool, id) for tool in tools]
    return reader.all(f"SELECT * FROM operations WHERE job = ? AND name IN ({marks})", job, *names)


def sent(
    reader: Reads, job: str, tools: Sequence[str], destination: str | None
) -> list[Mapping[str, Any]]:
    """What a job's claimed calls sent to a server that remembers: each call as it was decided.

    Returns:
        One mapping a call: `call_key`, `thread`, `call_id`, `ordinal`, `agent`, `text_labels`,
        `assets` (SHA-256).
    """
    marks = ", ".join("?" * len(tools))
    rows = reader.all(
        "SELECT r.call_key, r.thread, r.call_id, r.ordinal, r.agent, r.body FROM requests r"
        " JOIN grants g ON g.request = r.digest WHERE r.job = ? AND g.claims > 0"
        f" AND (r.tool IN ({marks}) OR r.destination = ?)",
        job, *tools, destination,
    )  # fmt: skip
    found: list[Mapping[str, Any]] = []
    for row in rows:
        body = json.loads(row["body"])
        found.append({
            "call_key": row["call_key"], "thread": row["thread"], "call_id": row["call_id"],
            "ordinal": row["ordinal"], "agent": row["agent"], "text_labels": body["text_labels"],
            "assets": [asset["sha256"] for asset in body["assets"]],
        })  # fmt: skip
    return found


def with_memory(tx: Tx, request: Request, tools: Sequence[str], made: Made) -> Made:
    """An output with the class of what a remembering server was sent while it was made, too."""
    if not tools:
        return made
    calls = sent(tx, request.job, tools, request.destination)
    return replace(
        made,
        labels=made.labels.union(*(call["text_labels"] for call in calls)),
        parents=tuple(sorted({*made.parents, *(a for call in calls for a in call["assets"])})),
    )
