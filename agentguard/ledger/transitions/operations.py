"""Rows of operations, and what a remembering server was sent (I4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agentguard.ledger.queries.assets import class_of
from agentguard.ledger.queries.operations import operation_name, raised_name, sent_calls
from agentguard.ledger.storage.open import Tx, to_json
from agentguard.ledger.storage.query import Reads
from agentguard.model import UNCLASSIFIED, Request, Terms


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
    terms: Terms
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
            terms=one.terms.to_json(),
            contributors=to_json(one.contributors),
            assets=to_json(sorted(one.assets)),
            at=tx.now,
        )


def raise_labels(tx: Tx, request: Request, grant: str, labels: frozenset[str]) -> None:
    """Remember the labels that a tool raised by its result, made it an asset or not (I4).

    As an operation whose name no id leads to: a server that remembers keeps their class too.
    """
    if labels:
        tx.insert(
            "operations",
            job=request.job,
            name=raised_name(grant),
            grant_id=grant,
            tool=request.tool,
            destination=request.destination,
            labels=to_json(labels),
            terms=Terms().to_json(),
            contributors=to_json([]),
            assets=to_json([]),
            at=tx.now,
        )


def all_sent(reads: Reads, request: Request, memory: Memory) -> Sent:
    """What the server behind a call was sent until now, this call's own assets too."""
    labels: set[str] = set()
    assets: set[str] = set()
    people: set[str] = set()
    for call in sent_calls(reads, request.job, memory.tools, request.destination):
        if call.call_key != request.call_key:  # its own are in all it made, and were judged
            labels |= call.labels
        assets |= set(call.assets)
        people |= call.contributors
        people |= {memory.owners[call.agent]} if call.agent in memory.owners else set()
    for sha256 in assets:
        known = reads.first(class_of(sha256))
        labels |= known.labels if known is not None else {UNCLASSIFIED}
    return Sent(labels=frozenset(labels), assets=frozenset(assets), contributors=frozenset(people))
