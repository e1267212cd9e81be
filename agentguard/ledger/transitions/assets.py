"""Rows of the asset registry: what came in, what it was made from, and where it was seen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentguard.ledger.storage.open import Tx, to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An asset that a call made, or that was imported.

    Args:
        parents: SHA-256 of what it was made from.
        contributors: people who stand behind it (I1).
        name: what its source called it.
    """

    sha256: str
    id: str
    media_type: str
    extension: str
    size: int
    width: int | None
    height: int | None
    labels: frozenset[str]
    terms: Mapping[str, Any]
    provenance: str
    parents: tuple[str, ...]
    contributors: frozenset[str]
    name: str


def lock_made(tx: Tx, made: Sequence[Made]) -> None:
    """Take the locks that `register` of these assets needs: the last ones of a transition."""
    bytes_ = sorted({one.sha256 for one in made})
    if not bytes_:
        return
    tx.lock_bytes(*bytes_)
    marks = ", ".join("?" * len(bytes_))
    known = tx.one(f"SELECT 1 FROM assets WHERE sha256 IN ({marks}) LIMIT 1", *bytes_)
    tx.lock_assets(alone=known is not None)  # what is known may rise, and all that was made from it


def lock_import(tx: Tx, made: Made) -> None:
    """The same for an import, which has no parents: known bytes that say nothing new raise nothing.

    Labels, terms and contributors are never taken back, so that this still holds under the lock.
    """
    tx.lock_bytes(made.sha256)
    tx.lock_assets(alone=_rises(tx, made))


def _rises(tx: Tx, made: Made) -> bool:
    """Whether registering would raise labels, terms or contributors of a known asset."""
    known = tx.one("SELECT labels, terms FROM assets WHERE sha256 = ?", made.sha256)
    if known is None:
        return False
    terms = json.loads(known["terms"])
    if not made.labels <= set(json.loads(known["labels"])):
        return True
    if to_json(strictest(terms, made.terms)) != to_json(terms):
        return True
    people = tx.all("SELECT person FROM contributors WHERE sha256 = ?", made.sha256)
    return not made.contributors <= {row["person"] for row in people}


def register(
    tx: Tx,
    made: Made,
    *,
    source: str,
    job: str | None,
    how: str,
    person: str | None = None,
    tool: str | None = None,
    agent: str | None = None,
    credential: str | None = None,
) -> None:
    """Insert an asset, or join its labels, terms and contributors with the known ones.

    A row that changes rises in version, which voids what relied on the old one. The caller
    records.
    """
    known = tx.one("SELECT labels, terms FROM assets WHERE sha256 = ?", made.sha256)
    if known is None:
        tx.insert(
            "assets",
            sha256=made.sha256,
            id=made.id,
            media_type=made.media_type,
            extension=made.extension,
            size=made.size,
            width=made.width,
            height=made.height,
            labels=to_json(made.labels),
            terms=to_json(strictest({}, made.terms)),
            recalled=0,
            held=0,
            provenance=made.provenance,
            version=1,
            created_at=tx.now,
        )
    tx.ensure(
        "origins",
        sha256=made.sha256,
        source=source,
        tool=tool,
        agent=agent,
        credential=credential,
        person=person,
        name=made.name,
        at=tx.now,
    )
    if known is None:
        for contributor in sorted(made.contributors):
            tx.ensure("contributors", sha256=made.sha256, person=contributor)
    elif _rises(tx, made):
        for sha256 in (made.sha256, *_descendants(tx, made.sha256)):  # I1, I4: an ancestor counts
            _join(tx, sha256, made)
    if job is not None:
        tx.ensure("asset_jobs", job=job, sha256=made.sha256, how=how, name=made.name, at=tx.now)


def inherit(tx: Tx, made: Made) -> Made:
    """What was made, with all that its parents are now: they may have risen since the claim (I4).

    Under the lock of the asset graph; what rises later finds its children by the lineage.
    """
    for parent in made.parents:
        row = tx.one("SELECT labels, terms FROM assets WHERE sha256 = ?", parent)
        if row is None or parent == made.sha256:
            continue
        people = tx.all("SELECT person FROM contributors WHERE sha256 = ?", parent)
        made = replace(
            made,
            labels=made.labels | set(json.loads(row["labels"])),
            terms=strictest(made.terms, json.loads(row["terms"])),
            contributors=made.contributors | {one["person"] for one in people},
        )
    return made


def _descendants(tx: Tx, sha256: str) -> list[str]:
    """What was made from an asset, over any number of generations."""
    rows = tx.all(
        "WITH RECURSIVE made(sha256) AS (SELECT child FROM lineage WHERE parent = ?1"
        " UNION SELECT child FROM lineage JOIN made ON parent = made.sha256)"
        " SELECT sha256 FROM made WHERE sha256 <> ?1 ORDER BY sha256",
        sha256,
    )
    return [str(row["sha256"]) for row in rows]


def _join(tx: Tx, sha256: str, made: Made) -> None:
    """Add labels, terms and contributors to a known asset; never drop one (I4, S8)."""
    joined = False
    for contributor in sorted(made.contributors):
        joined |= tx.insert_new("contributors", sha256=sha256, person=contributor)
    known = tx.one("SELECT labels, terms FROM assets WHERE sha256 = ?", sha256)
    if known is None:
        return
    labels = to_json(made.labels | set(json.loads(known["labels"])))
    terms = to_json(strictest(json.loads(known["terms"]), made.terms))
    if joined or (labels, terms) != (known["labels"], known["terms"]):
        tx.update("assets", "labels = ?, terms = ?, version = version + 1", "sha256 = ?",
                  labels, terms, sha256)  # fmt: skip


def mark(tx: Tx, sha256: str, *, column: str, value: bool, by: str) -> bool:
    """Set or clear `held`, or set `recalled`; recorded. False if there was nothing to change."""
    tx.lock_assets(alone=True)
    changed = tx.update(
        "assets", f"{column} = ?, version = version + 1",
        f"sha256 = ? AND {column} <> ?", int(value), sha256, int(value),
    )  # fmt: skip
    if changed:
        for made in _descendants(tx, sha256):  # judged by their ancestors: see calls/request.py
            tx.update("assets", "version = version + 1", "sha256 = ?", made)
        tx.record(f"asset.{column}", {"asset": sha256, "person": by, "value": value})
    return bool(changed)


def strictest(known: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Bytes that came by two ways may be used only where both ways allow it (S36)."""
    both = {key: [terms[key] for terms in (known, new) if terms.get(key) is not None]
            for key in {**known, **new}}  # fmt: skip
    join: Mapping[str, Any] = {
        "until": min,
        "release_at": max,
        "channels": lambda sets: frozenset.intersection(*map(frozenset, sets)),
        "consent": all,
    }
    return {key: join[key](values) for key, values in both.items() if values}
