"""What the ledger knows of earlier calls that bears on a new one: numbers, findings and noes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from agentguard.ledger.storage.open import Row
from agentguard.model import Request


class Reads(Protocol):
    """Rows to read: of a Ledger as it is now, of a snapshot of it, or inside a transition."""

    def one(self, sql: str, *parameters: Any) -> Row | None: ...

    def all(self, sql: str, *parameters: Any) -> list[Row]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A review that found something wrong, and that counts for an asset (I2).

    Args:
        grant: the Grant of the review.
        tool: the review tool; a clean review of the same one clears what was made since.
        reviewed: SHA-256 of the asset that it was about: the asset itself, or what it was made
            from.
    """

    grant: str
    tool: str
    reviewed: str


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


def has_grant(reads: Reads, request: str) -> bool:
    """Whether a Grant of a Request exists; where people were asked, its claim wrote it."""
    return reads.one("SELECT 1 FROM grants WHERE request = ?", request) is not None


def is_unclaimed(reads: Reads, request: str) -> bool:
    """Whether nothing was begun of a recorded Request: it has no Grant, or one never claimed."""
    return reads.one("SELECT 1 FROM grants WHERE request = ? AND claims > 0", request) is None


def has_lapsed(reads: Reads, request: str, *, now: int) -> bool:
    """Whether the Grant of a recorded Request came to its end before anything claimed it."""
    row = reads.one(
        "SELECT 1 FROM grants WHERE request = ? AND claims = 0"
        " AND (state = 'expired' OR (state = 'issued' AND expires_at <= ?))",
        request,
        now,
    )
    return row is not None


def questions_asked(reads: Reads, job: str) -> int:
    """How often people were asked about calls of a job, whatever came of it."""
    row = reads.one("SELECT count(*) AS asked FROM approvals WHERE job = ?", job)
    return int(row["asked"]) if row is not None else 0


def denied_calls(reads: Reads, request: Request) -> list[Row]:
    """The calls of a job, for one destination, that a person said no to, but for this very one.

    Rows have `tool`, `content_digest` and `question`: the denied Request as people were asked it.
    """
    return reads.all(
        "SELECT requests.tool, requests.content_digest, approvals.question FROM approvals"
        " JOIN requests ON requests.digest = approvals.request WHERE approvals.job = ?1"
        " AND approvals.state = 'denied' AND requests.digest <> ?2"
        " AND coalesce(requests.destination, '') = ?3",
        request.job,
        request.digest,
        request.destination or "",
    )


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


def findings_of(
    reads: Reads, assets: Collection[str], *, job: str
) -> tuple[Mapping[str, frozenset[Finding]], int]:
    """The findings that count for each asset, and how many reviews found something at all.

    A finding about the very bytes stays. One about a source counts until the review tool that
    made it reviews, in this job, what was made from it as clean, on each way from there to here.
    """
    if not assets:
        return {}, 0
    found = [
        Finding(grant=row["grant_id"], tool=row["tool"], reviewed=row["sha256"])
        for row in reads.all(*of_findings(assets))
    ]
    if not found:
        return {}, 0
    parents: dict[str, list[str]] = defaultdict(list)
    for row in reads.all(
        f"{_line(assets)} SELECT DISTINCT child, parent FROM line CROSS JOIN lineage"
        " WHERE lineage.child = line.sha256",
        *sorted(assets),
    ):
        parents[row["child"]].append(row["parent"])
    clean = {
        (row["tool"], row["sha256"])
        for row in reads.all(
            f"{_line(assets)} SELECT reviews.sha256, requests.tool FROM line"
            " CROSS JOIN reviews JOIN grants ON grants.id = reviews.grant_id"
            " JOIN requests ON requests.digest = grants.request"
            f" WHERE reviews.sha256 = line.sha256 AND reviews.job = ?{len(assets) + 1}"
            " AND reviews.clean = 1",
            *sorted(assets),
            job,
        )
    } - {(one.tool, one.reviewed) for one in found}
    counting: dict[str, frozenset[Finding]] = {}
    for asset in assets:
        reached = {tool: _reached(asset, parents, clean, tool) for tool in {f.tool for f in found}}
        counting[asset] = frozenset(one for one in found if one.reviewed in reached[one.tool])
    return counting, len(found)


def words_of(reads: Reads, finding: Finding) -> list[Mapping[str, Any]]:
    """What a review said, as its tool wrote it."""
    rows = reads.all(
        "SELECT findings FROM reviews JOIN grants ON grants.id = reviews.grant_id"
        " WHERE reviews.job = grants.job AND reviews.sha256 = ? AND reviews.grant_id = ?"
        " AND grants.id = ?",
        finding.reviewed,
        finding.grant,
        finding.grant,
    )
    return [one for row in rows for one in json.loads(row["findings"])]


def _reached(
    asset: str, parents: Mapping[str, list[str]], clean: Collection[tuple[str, str]], tool: str
) -> set[str]:
    """An asset and its sources, as far as no clean review of a tool stands in between."""
    reached: set[str] = set()
    pending = [asset]
    while pending:
        this = pending.pop()
        if this in reached or (tool, this) in clean:
            continue
        reached.add(this)
        pending.extend(parents.get(this, ()))
    return reached


def _line(assets: Collection[str]) -> str:
    marks = ", ".join(f"?{number}" for number in range(1, len(assets) + 1))
    # CROSS JOIN keeps SQLite to this order: from an asset to its sources, and to their reviews.
    return (
        f"WITH RECURSIVE line(sha256) AS (SELECT sha256 FROM assets WHERE sha256 IN ({marks})"
        " UNION SELECT parent FROM lineage JOIN line ON child = line.sha256)"
    )
