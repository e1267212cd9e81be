"""Rows of the asset registry: what came in, what it was made from, and where it was seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agentguard.ledger.queries import assets
from agentguard.ledger.rows.assets import ClassRow
from agentguard.ledger.storage.open import Tx, to_json
from agentguard.model import Terms


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
    terms: Terms
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
    known = tx.first(assets.any_known(bytes_))
    # What is known may rise, and so may all that was made from it.
    tx.lock_assets(exclusive=known is not None)


def lock_import(tx: Tx, made: Made) -> None:
    """The same for an import, which has no parents: known bytes that say nothing new raise nothing.

    Labels, terms and contributors are never taken back, so that this still holds under the lock.
    """
    tx.lock_bytes(made.sha256)
    tx.lock_assets(exclusive=_rises(tx, made))


def import_asset(tx: Tx, made: Made, *, job: str | None, by: str, how: str) -> None:
    """Register an asset that a person brings, and give it to a job; recorded."""
    lock_import(tx, made)
    register(tx, made, source=f"import:{by}", job=job, how=how, person=by)
    tx.record("asset.registered", {"asset": made.sha256, "person": by, "job": job})


def _rises(tx: Tx, made: Made) -> bool:
    """Whether registering would raise labels, terms or contributors of a known asset."""
    known = tx.first(assets.class_of(made.sha256))
    if known is None:
        return False
    if not made.labels <= known.labels or known.terms.strictest(made.terms) != known.terms:
        return True
    return not made.contributors <= set(tx.rows(assets.contributors_of(made.sha256)))


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
    known = tx.first(assets.class_of(made.sha256))
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
            terms=made.terms.to_json(),
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
        _join(tx, made.sha256, made)
        raise_descendants(tx, made)
    if job is not None:
        tx.ensure("asset_jobs", job=job, sha256=made.sha256, how=how, name=made.name, at=tx.now)


def raise_descendants(tx: Tx, made: Made) -> None:
    """Join what was made from an asset with what the asset rises to (I1, I4)."""
    for sha256 in tx.rows(assets.descendants_of(made.sha256)):
        _join(tx, sha256, made)


def inherit(tx: Tx, made: Made) -> Made:
    """What was made, with all that its parents are now: they may have risen since the claim (I4).

    Under the lock of the asset graph; what rises later finds its children by the lineage.
    """
    for parent in made.parents:
        known = tx.first(assets.class_of(parent))
        if known is None or parent == made.sha256:
            continue
        made = replace(
            made,
            labels=made.labels | known.labels,
            terms=made.terms.strictest(known.terms),
            contributors=made.contributors.union(tx.rows(assets.contributors_of(parent))),
        )
    return made


def _join(tx: Tx, sha256: str, made: Made) -> None:
    """Add labels, terms and contributors to a known asset; never drop one (I4, S8)."""
    joined = False
    for contributor in sorted(made.contributors):
        joined |= tx.insert_new("contributors", sha256=sha256, person=contributor)
    known = tx.first(assets.class_of(sha256))
    if known is None:
        return
    labels, terms = joined_labels(made, known), known.terms.strictest(made.terms)
    if joined or (labels, terms) != (known.labels, known.terms):
        tx.update("assets", "labels = ?, terms = ?, version = version + 1", "sha256 = ?",
                  to_json(labels), terms.to_json(), sha256)  # fmt: skip


def joined_labels(made: Made, known: ClassRow) -> frozenset[str]:
    """The labels of known bytes that are registered again."""
    return made.labels | known.labels


def mark(tx: Tx, sha256: str, *, column: str, value: bool, by: str) -> bool:
    """Set or clear `held`, or set `recalled`; recorded. False if there was nothing to change."""
    tx.lock_assets(exclusive=True)
    changed = tx.update(
        "assets", f"{column} = ?, version = version + 1",
        f"sha256 = ? AND {column} <> ?", int(value), sha256, int(value),
    )  # fmt: skip
    if changed:
        raise_versions(tx, sha256)
        record_mark(tx, sha256, column=column, value=value, by=by)
    return bool(changed)


def raise_versions(tx: Tx, sha256: str) -> None:
    """Void what relied on anything made from an asset, which is judged by it: see `marks_of`."""
    for made in tx.rows(assets.descendants_of(sha256)):
        tx.update("assets", "version = version + 1", "sha256 = ?", made)


def record_mark(tx: Tx, sha256: str, *, column: str, value: bool, by: str) -> None:
    """Record that a person set or cleared a mark (I10)."""
    tx.record(f"asset.{column}", {"asset": sha256, "person": by, "value": value})
