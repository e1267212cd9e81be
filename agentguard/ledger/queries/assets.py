"""What the ledger is asked about assets: what they are, where they came from, what reviews said."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agentguard.ledger.queries.parts import begins_with, in_parts, marks
from agentguard.ledger.rows.assets import (
    AssetRow,
    ClassRow,
    ContributorRow,
    JobAsset,
    LineageRow,
    MarksRow,
    NamedAsset,
    OriginRow,
    QueuedRow,
    RelatedAsset,
    ReviewRow,
    SeenRow,
    ToolReview,
    VersionRow,
)
from agentguard.ledger.rows.decode import number, row_as, text
from agentguard.ledger.storage.query import Query, Reads


def asset_by_sha256(sha256: str) -> Query[AssetRow]:
    """An asset by the SHA-256 of its bytes."""
    return Query("SELECT * FROM assets WHERE sha256 = ?", (sha256,), row_as(AssetRow))


def asset_by_id(asset: str) -> Query[AssetRow]:
    """An asset by its id."""
    return Query("SELECT * FROM assets WHERE id = ?", (asset,), row_as(AssetRow))


def asset_of_job(asset: str, job: str) -> Query[AssetRow]:
    """An asset by its id, if a job may see it."""
    return Query(
        "SELECT assets.* FROM assets JOIN asset_jobs USING (sha256) WHERE id = ? AND job = ?",
        (asset, job),
        row_as(AssetRow),
    )


def bytes_of_job(sha256: str, job: str) -> Query[AssetRow]:
    """An asset by the SHA-256 of its bytes, if a job may see it."""
    return Query(
        "SELECT assets.* FROM assets JOIN asset_jobs USING (sha256) WHERE sha256 = ? AND job = ?",
        (sha256, job),
        row_as(AssetRow),
    )


def class_of(sha256: str) -> Query[ClassRow]:
    """An asset's class and terms."""
    return Query("SELECT labels, terms FROM assets WHERE sha256 = ?", (sha256,), row_as(ClassRow))


def any_known(hashes: Collection[str]) -> Query[int]:
    """Whether one of these bytes is known."""
    sql = f"SELECT 1 FROM assets WHERE sha256 IN ({marks([*hashes])}) LIMIT 1"
    return Query(sql, tuple(hashes), number)


def versions_of(hashes: Collection[str]) -> Query[VersionRow]:
    """The row versions of assets."""
    sql = f"SELECT sha256, version FROM assets WHERE sha256 IN ({marks([*hashes])})"
    return Query(sql, tuple(hashes), row_as(VersionRow))


def assets_called(name: str) -> Query[AssetRow]:
    """The assets whose id or SHA-256 begins so, three at most."""
    sql = f"SELECT * FROM assets WHERE {begins_with('id')} OR {begins_with('sha256')} LIMIT 3"
    return Query(sql, (name,), row_as(AssetRow))


def newest_assets(limit: int) -> Query[NamedAsset]:
    """Assets, newest first, each with what its first source `called` it."""
    return Query(
        "SELECT assets.*, (SELECT name FROM origins WHERE origins.sha256 = assets.sha256"
        " ORDER BY at LIMIT 1) AS called FROM assets ORDER BY created_at DESC, id LIMIT ?",
        (limit,),
        row_as(NamedAsset),
    )


_OF_JOB = (
    "SELECT assets.*, asset_jobs.name AS called, asset_jobs.how FROM asset_jobs"
    " JOIN assets USING (sha256) WHERE job = ?"
)


def newest_assets_of(job: str, limit: int) -> Query[JobAsset]:
    """The assets that a job may see, newest first, each with what the job `called` it."""
    sql = f"{_OF_JOB} ORDER BY asset_jobs.at DESC, id LIMIT ?"
    return Query(sql, (job, limit), row_as(JobAsset))


def assets_of_job(job: str) -> Query[JobAsset]:
    """The assets that a job may see, in the order in which it came to see them."""
    return Query(f"{_OF_JOB} ORDER BY asset_jobs.at, assets.id", (job,), row_as(JobAsset))


AND_ITS_SOURCES = " UNION SELECT parent FROM lineage JOIN line ON child = line.sha256"
"""Goes on from an asset, in a recursive query, to all that it was made from."""

_MARKS = (
    "WITH RECURSIVE line(sha256) AS (SELECT ?1{sources})"
    " SELECT max(recalled) AS recalled, max(held) AS held,"
    " EXISTS (SELECT 1 FROM queued WHERE job = ?2 AND sha256 = ?1 AND destination = ?3) AS queued,"
    " EXISTS (SELECT 1 FROM reviews WHERE job = ?2 AND sha256 = ?1 AND clean = 1) AS clean"
    " FROM assets WHERE sha256 IN (SELECT sha256 FROM line)"
)


def marks_of(sha256: str, *, job: str, destination: str | None) -> Query[MarksRow]:
    """What holds of an asset now. A hold or recall of a source reaches all that was made from it.

    So does a finding, see `findings_of`.
    """
    sql = _MARKS.format(sources=AND_ITS_SOURCES)
    return Query(sql, (sha256, job, destination), row_as(MarksRow))


# --- where assets came from ---------------------------------------------------------------------


def contributors_of(sha256: str) -> Query[str]:
    """Who stands behind an asset (I1)."""
    sql = "SELECT person FROM contributors WHERE sha256 = ? ORDER BY person"
    return Query(sql, (sha256,), text)


def contributors_to(reads: Reads, hashes: Iterable[str]) -> Mapping[str, set[str]]:
    """Who stands behind each of these assets, by SHA-256."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for some in in_parts(sorted(set(hashes))):
        sql = f"SELECT * FROM contributors WHERE sha256 IN ({marks(some)})"
        for row in reads.rows(Query(sql, tuple(some), row_as(ContributorRow))):
            found[row.sha256].add(row.person)
    return found


def origins_of(sha256: str, limit: int) -> Query[OriginRow]:
    """Where an asset came from, first things first."""
    sql = "SELECT * FROM origins WHERE sha256 = ? ORDER BY at LIMIT ?"
    return Query(sql, (sha256, limit), row_as(OriginRow))


def seen_in(sha256: str) -> Query[SeenRow]:
    """The jobs that may see an asset."""
    sql = "SELECT * FROM asset_jobs WHERE sha256 = ? ORDER BY at"
    return Query(sql, (sha256,), row_as(SeenRow))


def queued_for(sha256: str) -> Query[QueuedRow]:
    """The destinations that an asset is in line for."""
    sql = "SELECT * FROM queued WHERE sha256 = ? ORDER BY at"
    return Query(sql, (sha256,), row_as(QueuedRow))


def parents_in_job(sha256: str, job: str) -> Query[str]:
    """Ids of what an asset was made from, as far as a job may see it."""
    return Query(
        "SELECT DISTINCT p.id FROM lineage JOIN assets p ON p.sha256 = parent"
        " JOIN asset_jobs seen ON seen.sha256 = parent AND seen.job = ?"
        " WHERE child = ?",
        (job, sha256),
        text,
    )


def children_of(sha256: str) -> Query[str]:
    """Ids of what was made from an asset."""
    sql = "SELECT DISTINCT id FROM lineage JOIN assets ON sha256 = child WHERE parent = ?"
    return Query(sql, (sha256,), text)


def next_to(sha256: str, want: Literal["parent", "child"]) -> Query[RelatedAsset]:
    """What an asset was made from, or what was made from it, each with its first source.

    An asset that came by two first ways comes twice.
    """
    have = {"parent": "child", "child": "parent"}[want]
    return Query(
        f"SELECT DISTINCT assets.*, o.tool, o.agent, o.person, o.name FROM lineage"
        f" JOIN assets ON assets.sha256 = lineage.{want} LEFT JOIN origins o ON o.sha256 ="
        f" assets.sha256 AND o.at = (SELECT min(at) FROM origins WHERE sha256 = assets.sha256)"
        f" WHERE lineage.{have} = ? ORDER BY assets.created_at, assets.id",
        (sha256,),
        row_as(RelatedAsset),
    )


def descendants_of(sha256: str) -> Query[str]:
    """What was made from an asset, over any number of generations."""
    return Query(
        "WITH RECURSIVE made(sha256) AS (SELECT child FROM lineage WHERE parent = ?1"
        " UNION SELECT child FROM lineage JOIN made ON parent = made.sha256)"
        " SELECT sha256 FROM made WHERE sha256 <> ?1 ORDER BY sha256",
        (sha256,),
        text,
    )


def line_of(hashes: Collection[str]) -> Query[str]:
    """These assets and everything that they were made from, by SHA-256."""
    return Query(f"{_line(hashes)} SELECT sha256 FROM line", tuple(sorted(hashes)), text)


def _line(hashes: Collection[str]) -> str:
    numbered = ", ".join(f"?{number}" for number in range(1, len(hashes) + 1))
    # CROSS JOIN keeps SQLite to this order: from an asset to its sources, and to their reviews.
    return (
        f"WITH RECURSIVE line(sha256) AS (SELECT sha256 FROM assets WHERE sha256 IN ({numbered})"
        " UNION SELECT parent FROM lineage JOIN line ON child = line.sha256)"
    )


# --- reviews ------------------------------------------------------------------------------------


def reviews_of(sha256: str) -> Query[ReviewRow]:
    """The reviews of an asset, in their order."""
    sql = "SELECT * FROM reviews WHERE sha256 = ? ORDER BY at"
    return Query(sql, (sha256,), row_as(ReviewRow))


def reviews_in_job(sha256: str, job: str, limit: int) -> Query[ReviewRow]:
    """The reviews of an asset in a job: those that found something first, then the newest."""
    sql = "SELECT * FROM reviews WHERE sha256 = ? AND job = ? ORDER BY clean, at DESC LIMIT ?"
    return Query(sql, (sha256, job, limit), row_as(ReviewRow))


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


def unclean_reviews(hashes: Collection[str]) -> Query[ToolReview]:
    """The reviews that found something wrong with assets or their sources.

    In whichever job: no sequence of calls loses a finding (I2).
    """
    return Query(
        f"{_line(hashes)} SELECT reviews.sha256, reviews.grant_id, requests.tool FROM line"
        " CROSS JOIN reviews JOIN grants ON grants.id = reviews.grant_id"
        " JOIN requests ON requests.digest = grants.request"
        " WHERE reviews.sha256 = line.sha256 AND reviews.clean = 0",
        tuple(sorted(hashes)),
        row_as(ToolReview),
    )


def _clean_reviews(hashes: Collection[str], job: str) -> Query[ToolReview]:
    """The reviews in a job that found nothing wrong with assets or their sources."""
    return Query(
        f"{_line(hashes)} SELECT reviews.sha256, reviews.grant_id, requests.tool FROM line"
        " CROSS JOIN reviews JOIN grants ON grants.id = reviews.grant_id"
        " JOIN requests ON requests.digest = grants.request"
        f" WHERE reviews.sha256 = line.sha256 AND reviews.job = ?{len(hashes) + 1}"
        " AND reviews.clean = 1",
        (*sorted(hashes), job),
        row_as(ToolReview),
    )


def _lineage_of(hashes: Collection[str]) -> Query[LineageRow]:
    """Every step from assets up to their sources."""
    return Query(
        f"{_line(hashes)} SELECT DISTINCT child, parent FROM line CROSS JOIN lineage"
        " WHERE lineage.child = line.sha256",
        tuple(sorted(hashes)),
        row_as(LineageRow),
    )


def findings_of(
    reads: Reads, hashes: Collection[str], *, job: str
) -> tuple[Mapping[str, frozenset[Finding]], int]:
    """The findings that count for each asset, and how many reviews found something at all.

    A finding about the very bytes stays. One about a source counts until the review tool that
    made it reviews, in this job, what was made from it as clean, on each way from there to here.
    """
    if not hashes:
        return {}, 0
    found = [
        Finding(grant=row.grant_id, tool=row.tool, reviewed=row.sha256)
        for row in reads.rows(unclean_reviews(hashes))
    ]
    if not found:
        return {}, 0
    parents: dict[str, list[str]] = defaultdict(list)
    for step in reads.rows(_lineage_of(hashes)):
        parents[step.child].append(step.parent)
    clean = {(row.tool, row.sha256) for row in reads.rows(_clean_reviews(hashes, job))}
    clean -= {(one.tool, one.reviewed) for one in found}
    counting: dict[str, frozenset[Finding]] = {}
    for asset in hashes:
        reached = {tool: _reached(asset, parents, clean, tool) for tool in {f.tool for f in found}}
        counting[asset] = frozenset(one for one in found if one.reviewed in reached[one.tool])
    return counting, len(found)


def words_of(reads: Reads, finding: Finding) -> list[Mapping[str, Any]]:
    """What a review said, as its tool wrote it."""
    reviews = reads.rows(
        Query(
            "SELECT reviews.* FROM reviews JOIN grants ON grants.id = reviews.grant_id"
            " WHERE reviews.job = grants.job AND reviews.sha256 = ? AND reviews.grant_id = ?"
            " AND grants.id = ?",
            (finding.reviewed, finding.grant, finding.grant),
            row_as(ReviewRow),
        )
    )
    return [one for review in reviews for one in review.findings]


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
