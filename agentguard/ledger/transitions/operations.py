"""Rows of operations, and what a remembering server was sent (I4)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentguard.canonical import digest
from agentguard.ledger.storage.open import Row, Tx, to_json
from agentguard.ledger.storage.query import Reads
from agentguard.model import UNCLASSIFIED, Request


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What the server behind a tool keeps, and who reads what it says of that.

    Args:
        tools: that share the memory.
        owners: agent id → the Person who owns it (I1).
        ceiling: labels that the chat model may see, if the tool reveals; None if it does not.
        open_labels: labels that need no ceiling.
    """

    tools: tuple[str, ...]
    owners: Mapping[str, str]
    ceiling: frozenset[str] | None
    open_labels: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """All that a remembering server was sent, as it is now: labels, assets, and who stands behind.

    Args:
        assets: SHA-256 of each.
    """

    labels: frozenset[str]
    assets: frozenset[str]
    contributors: frozenset[str]


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


def raise_labels(tx: Tx, request: Request, grant: str, labels: frozenset[str]) -> None:
    """Remember the labels that a tool raised by its result, made it an asset or not (I4).

    As an operation whose name no id leads to: a server that remembers keeps their class too.
    """
    if labels:
        tx.insert(
            "operations",
            job=request.job,
            name=_raised_name(grant),
            grant_id=grant,
            tool=request.tool,
            destination=request.destination,
            labels=to_json(labels),
            terms=to_json({}),
            contributors=to_json([]),
            assets=to_json([]),
            at=tx.now,
        )


def _raised_name(grant: str) -> str:
    return digest("agentguard/raised/v1", grant)


def sent(
    reader: Reads, job: str, tools: Sequence[str], destination: str | None
) -> list[Mapping[str, Any]]:
    """What a job's claimed calls sent to a server that remembers: each call as it was decided.

    Returns:
        One mapping a call: `call_key`, `thread`, `call_id`, `ordinal`, `agent`, `labels` (of its
        texts and its tool, and those that its result raised), `assets` (SHA-256), `contributors`.
    """
    marks = ", ".join("?" * len(tools))
    rows = reader.all(
        "SELECT r.call_key, r.thread, r.call_id, r.ordinal, r.agent, r.body, g.id FROM requests r"
        " JOIN grants g ON g.request = r.digest WHERE r.job = ? AND g.claims > 0"
        f" AND (r.tool IN ({marks}) OR r.destination = ?)",
        job, *tools, destination,
    )  # fmt: skip
    found: list[Mapping[str, Any]] = []
    for row in rows:
        body = json.loads(row["body"])
        raised = reader.one(
            "SELECT labels FROM operations WHERE job = ? AND name = ? AND grant_id = ?",
            job, _raised_name(row["id"]), row["id"],
        )  # fmt: skip
        found.append({
            "call_key": row["call_key"], "thread": row["thread"], "call_id": row["call_id"],
            "ordinal": row["ordinal"], "agent": row["agent"],
            "labels": {*body["text_labels"], *body.get("tool_labels", ()),
                       *(json.loads(raised["labels"]) if raised is not None else ())},
            "assets": [asset["sha256"] for asset in body["assets"]],
            "contributors": body.get("contributors", ()),
        })  # fmt: skip
    return found


def all_sent(reader: Reads, request: Request, memory: Memory) -> Sent:
    """What the server behind a call was sent until now, this call's own assets too."""
    labels: set[str] = set()
    assets: set[str] = set()
    people: set[str] = set()
    for call in sent(reader, request.job, memory.tools, request.destination):
        if call["call_key"] != request.call_key:  # its own are in all it made, and were judged
            labels |= call["labels"]
        assets |= set(call["assets"])
        people |= {*call["contributors"]}
        people |= {memory.owners[call["agent"]]} if call["agent"] in memory.owners else set()
    for sha256 in assets:
        row = reader.one("SELECT labels FROM assets WHERE sha256 = ?", sha256)
        labels |= set(json.loads(row["labels"])) if row is not None else {UNCLASSIFIED}
    return Sent(labels=frozenset(labels), assets=frozenset(assets), contributors=frozenset(people))
