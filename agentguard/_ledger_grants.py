"""Rows of grants and outcomes: the one use of a Grant, and what it came to (I8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentguard._ledger_assets import Made, inherit, lock_made, register
from agentguard._ledger_jobs import job_obstacle
from agentguard._ledger_operations import Memory, Started, all_sent, raise_labels, start
from agentguard._ledger_requests import Judged, is_approved, issue_grant
from agentguard.model import GrantState, OutsideEffect, Request
from agentguard.storage import Tx, to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Relied:
    """What a decision to execute relied on; the claim refuses if any of it moved (I8).

    Args:
        versions: asset SHA-256 → row version.
        approved: the Request was asked, so its approvals must still be unexpired.
        answers: how many people had answered it then.
        granted: the Decision that an asked Request got with its approvals; the claim writes its
            Grant, so that none lies about for a call that waits. None if it has one.
    """

    epoch: int
    credential: str
    versions: Mapping[str, int]
    approved: bool
    policy_version: str
    answers: int = 0
    granted: Judged | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a claimed call came to; a replay returns it.

    Args:
        text: what the model saw.
        updates: declared state keys that the tool wrote.
        findings: what a review found, by asset SHA-256.
        receipts: (destination, location, SHA-256) of what was sent.
        started: operations that go on at a vendor.
        remembers: the memory of the server behind the tool, if it keeps what it is sent.
        raised: labels that the tool's result raised.
    """

    state: GrantState
    text: str
    made: tuple[Made, ...] = ()
    updates: Mapping[str, Any] | None = None
    findings: Mapping[str, Sequence[Mapping[str, Any]]] | None = None
    queued: tuple[tuple[str, str], ...] = ()
    revealed: frozenset[str] = frozenset()
    receipts: tuple[tuple[str, str, str], ...] = ()
    started: tuple[Started, ...] = ()
    remembers: Memory | None = None
    raised: frozenset[str] = frozenset()


def claim(tx: Tx, request: Request, relied: Relied) -> str | None:
    """Take the one use of a Request's Grant; recorded. See `Ledger.claim`."""
    tx.lock_job(request.job)
    tx.lock_assets(alone=False)
    obstacle = _obstacle(tx, request, relied)
    if obstacle is not None:
        return obstacle
    if relied.granted is not None and not issue_grant(tx, relied.granted):
        return "its approval is not live: the review window closed"
    changed = tx.update(
        "grants",
        "state = 'claimed', claims = claims + 1, claimed_at = ?1, epoch = ?2, ended_at = NULL",
        # A tool that paused itself goes on when it is answered: it has no effect outside, and its
        # job and credential were judged above.
        "request = ?3 AND job = ?4 AND ((state = 'issued' AND claims > 0 AND effect = 'none')"
        " OR (expires_at > ?1 AND (state = 'issued' OR (state = 'failed' AND effect = 'none'))))",
        tx.now, relied.epoch, request.digest, request.job,
    )  # fmt: skip
    if not changed:
        row = tx.one("SELECT * FROM grants WHERE request = ?", request.digest)
        if row is None:
            return "no grant exists for this call"
        again = row["state"] == GrantState.FAILED and row["effect"] == OutsideEffect.NONE
        expired = row["state"] == GrantState.ISSUED or again
        return f"its grant is {'expired' if expired else row['state']}"
    tx.record(
        "claimed",
        {
            "job": request.job,
            "request": request.digest,
            "credential": relied.credential,
            "policy_version": relied.policy_version,
        },
    )
    return None


def finish(tx: Tx, request: Request, outcome: Outcome, *, credential: str) -> bool:
    """Record what a claimed call came to; see `Ledger.finish`."""
    tx.lock_job(request.job)
    lock_made(tx, outcome.made)
    row = tx.one(
        "SELECT id, state, epoch = (SELECT epoch FROM credentials WHERE id = ?) AS ours"
        " FROM grants WHERE request = ?",
        credential, request.digest,
    )  # fmt: skip
    if row is None:
        return False
    body = {
        "job": request.job,
        "request": request.digest,
        "as": outcome.state,
        "made": [made.sha256 for made in outcome.made],
        "receipts": [list(receipt) for receipt in outcome.receipts],
    }
    if row["state"] not in (GrantState.CLAIMED, GrantState.UNKNOWN) or not row["ours"]:
        tx.record("finished.late", body)  # it changes nothing, but a recall needs to know
        return False
    grant = str(row["id"])
    if (row["state"], outcome.state) != (GrantState.UNKNOWN, GrantState.UNKNOWN):
        tx.update("grants", "state = ?, ended_at = ?", "id = ?", outcome.state, tx.now, grant)
    if outcome.remembers is not None:
        outcome = with_memory(tx, request, outcome, outcome.remembers)
    _insert_effects(tx, request, grant, outcome, credential=credential)
    tx.record("finished", body)
    return True


def _obstacle(tx: Tx, request: Request, relied: Relied) -> str | None:
    obstacle = job_obstacle(tx, request.job, relied.epoch)
    if obstacle is not None:
        return obstacle
    credential = tx.one(
        "SELECT 1 FROM credentials WHERE id = ? AND state = 'live' AND expires_at > ?"
        " AND job = ? AND agent = ? AND epoch = ? AND (stage = ? OR CAST(? AS TEXT) IS NULL)",
        relied.credential, tx.now, request.job, request.agent, relied.epoch, request.stage,
        request.stage,
    )  # fmt: skip
    if credential is None:
        return "its credential is not live"
    if relied.granted is None and not is_approved(tx, request.digest, asked=relied.approved):
        return "its approval is not live: the review window closed"
    if relied.approved:
        row = tx.one("SELECT count(*) AS given FROM answers WHERE request = ?", request.digest)
        if row is None or row["given"] != relied.answers:
            return "moved: somebody answered since it was judged"
    for sha256, version in relied.versions.items():
        row = tx.one("SELECT version FROM assets WHERE sha256 = ?", sha256)
        if row is None or row["version"] != version:
            return "moved: an asset changed since it was judged"
    return None


def _insert_effects(
    tx: Tx, request: Request, grant: str, outcome: Outcome, *, credential: str
) -> None:
    set_outcome(
        tx,
        grant,
        outcome.state,
        outcome.text,
        assets=[made.id for made in outcome.made],
        updates=outcome.updates or {},
    )
    start(tx, request, grant, outcome.started)
    raise_labels(tx, request, grant, outcome.raised)
    for made in outcome.made:
        register(
            tx,
            inherit(tx, made),
            source=grant,
            job=request.job,
            how="made",
            tool=request.tool,
            agent=request.agent,
            credential=credential,
        )
        for parent in made.parents:
            if parent != made.sha256:
                tx.insert_new("lineage", child=made.sha256, parent=parent, grant_id=grant)
    for sha256, findings in (outcome.findings or {}).items():
        clean = all(finding.get("severity") == "info" for finding in findings)
        tx.insert_new(
            "reviews",
            job=request.job,
            sha256=sha256,
            grant_id=grant,
            findings=to_json(list(findings)),
            clean=int(clean),
            at=tx.now,
        )
    for sha256, destination in outcome.queued:
        tx.insert_new(
            "queued",
            job=request.job,
            sha256=sha256,
            destination=destination,
            grant_id=grant,
            at=tx.now,
        )
    for label in sorted(outcome.revealed):
        tx.insert_new("revealed", job=request.job, label=label)
    for destination, location, sha256 in outcome.receipts:
        keep_receipt(tx, grant, destination=destination, location=location, sha256=sha256)


def with_memory(tx: Tx, request: Request, outcome: Outcome, memory: Memory) -> Outcome:
    """An outcome with the class of all that a remembering server was sent before its end (I4).

    Other calls may have sent there since this one was judged: what was made and started has their
    class too, and words of what the chat model may not see are withheld.
    """
    sent = all_sent(tx, request, memory)
    outcome = replace(
        outcome,
        made=tuple(
            replace(
                made,
                labels=made.labels | sent.labels,
                parents=tuple(sorted({*made.parents, *sent.assets})),
                contributors=made.contributors | sent.contributors,
            )
            for made in outcome.made
        ),
        started=tuple(
            replace(
                started,
                labels=started.labels | sent.labels,
                assets=tuple(sorted({*started.assets, *sent.assets})),
                contributors=started.contributors | sent.contributors,
            )
            for started in outcome.started
        ),
    )
    if memory.ceiling is None:
        return outcome
    judged = request.text_labels.union(*(use.labels for use in request.assets))
    above = sent.labels - judged - memory.ceiling - memory.open_labels
    if not above:
        return replace(outcome, revealed=outcome.revealed | (sent.labels - memory.open_labels))
    text = (
        f"{request.tool} ended, and what it said is withheld: its server was meanwhile sent what is"
        f" labelled {', '.join(sorted(above))}, which the chat model may not see; work with ids"
    )
    ids = [*(made.id for made in outcome.made), *(f"operation: {s.id}" for s in outcome.started)]
    return replace(outcome, text="\n".join([text, *ids]), updates={})


def set_outcome(
    tx: Tx,
    grant: str,
    status: GrantState,
    text: str,
    *,
    assets: Sequence[str] = (),
    updates: Mapping[str, Any] | None = None,
) -> None:
    """Write the outcome of a Grant, or replace what an earlier claim of it came to."""
    columns = {
        "status": status,
        "text": text,
        "assets": to_json(list(assets)),
        "state": to_json(updates or {}),
    }
    if not tx.insert_new("outcomes", grant_id=grant, **columns):
        change = ", ".join(f"{column} = ?" for column in columns)
        tx.update("outcomes", change, "grant_id = ?", *columns.values(), grant)


def keep_receipt(tx: Tx, grant: str, *, destination: str, location: str, sha256: str) -> None:
    """Remember what a Grant sent where."""
    tx.insert_new(
        "receipts",
        grant_id=grant,
        destination=destination,
        location=location,
        sha256=sha256,
        at=tx.now,
    )
