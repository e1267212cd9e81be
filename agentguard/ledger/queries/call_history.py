"""What the ledger knows of earlier calls that bears on a new one: numbers, findings and noes."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from agentguard.ledger.storage.query import Reads


def bits_said(reads: Reads, *, job: str, thread: str) -> int:
    """Bits that calls of a conversation said in numbers since something was revealed in it (I4).

    Calls that carried the revealed labels are not counted.
    """
    row = reads.one(
        "SELECT coalesce(sum(bits), 0) AS bits FROM numbers"
        " WHERE job = ?1 OR (thread = ?2 AND thread <> '')",
        job,
        thread,
    )
    return int(row["bits"]) if row is not None else 0


def questions_asked(reads: Reads, job: str) -> int:
    """How often people were asked about calls of a job, whatever came of it."""
    row = reads.one("SELECT count(*) AS asked FROM approvals WHERE job = ?", job)
    return int(row["asked"]) if row is not None else 0


def media_of(question: str) -> frozenset[str]:
    """SHA-256 of the assets that people were asked about."""
    return frozenset(use["sha256"] for use in json.loads(question)["assets"])


def line_of(reads: Reads, assets: Collection[str]) -> frozenset[str]:
    """These assets and everything that they were made from, by SHA-256."""
    if not assets:
        return frozenset()
    rows = reads.all(f"{_line(assets)} SELECT sha256 FROM line", *sorted(assets))
    return frozenset(row["sha256"] for row in rows)


def of_findings(assets: Collection[str]) -> tuple[Any, ...]:
    """The query for the reviews that found something wrong with assets or their sources.

    In whichever job: no sequence of calls loses a finding (I2).
    """
    return (
        f"{_line(assets)} SELECT reviews.sha256, reviews.grant_id, requests.tool FROM line"
        " CROSS JOIN reviews JOIN grants ON grants.id = reviews.grant_id"
        " JOIN requests ON requests.digest = grants.request"
        " WHERE reviews.sha256 = line.sha256 AND reviews.clean = 0",
        *sorted(assets),
    )


def _line(assets: Collection[str]) -> str:
    marks = ", ".join(f"?{number}" for number in range(1, len(assets) + 1))
    # CROSS JOIN keeps SQLite to this order: from an asset to its sources, and to their reviews.
    return (
        f"WITH RECURSIVE line(sha256) AS (SELECT sha256 FROM assets WHERE sha256 IN ({marks})"
        " UNION SELECT parent FROM lineage JOIN line ON child = line.sha256)"
    )
