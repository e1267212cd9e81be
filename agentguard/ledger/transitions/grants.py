"""Rows of grants and outcomes: the one use of a Grant, and what it came to (I8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentguard.ledger.queries.assets import unclean_reviews, versions_of
from agentguard.ledger.queries.grants import claim_check, finish_check
from agentguard.ledger.rows.grants import ClaimCheck, FinishCheck
from agentguard.ledger.storage.open import Tx, to_json
from agentguard.ledger.storage.query import Query
from agentguard.ledger.transitions.approvals import lock_job_of
from agentguard.ledger.transitions.assets import Made, inherit, lock_made, register
from agentguard.ledger.transitions.jobs import obstacle_in
from agentguard.ledger.transitions.operations import Memory, Started, all_sent, raise_labels, start
from agentguard.ledger.transitions.requests import is_approved, issue_grant
from agentguard.model import (
    Assessment,
    GrantState,
    Obstacle,
    ObstacleKind,
    OutsideEffect,
    Request,
)


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


_CLOSED = "its approval is not live: the review window closed"


def claim(tx: Tx, item: Assessment) -> Obstacle | None:
    """Take the one use of a Request's Grant; recorded. See `Ledger.claim`."""
    request = item.request
    tx.lock_job(request.job)
    tx.lock_assets(exclusive=False)
    check = tx.first(_claim_check(item))
    obstacle = _obstacle(tx, check, item)
    if check is None or obstacle is not None:
        return obstacle
    if item.asked and check.id is None:
        if not issue_grant(tx, item):
            return _not_granted(f"{_CLOSED}, or a person said no")
        check = tx.first(_claim_check(item))  # with the grant that is written
    if check is not None and not is_approved(
        check.approval_state, check.approved_until, asked=item.asked, now=tx.now
    ):
        return _not_granted(_CLOSED)
    obstacle = _grant_obstacle(check, now=tx.now)
    if check is None or obstacle is not None:
        return obstacle
    # I8: the row that was judged, as it was judged, or none: then nothing is claimed.
    tx.move(
        "grants",
        "state = 'claimed', claims = claims + 1, claimed_at = ?1, epoch = ?2, ended_at = NULL",
        "id = ?3 AND state = ?4 AND claims = ?5 AND expires_at = ?6",
        tx.now, item.holder.epoch, check.id, check.state, check.claims, check.expires_at,
    )  # fmt: skip
    tx.record(
        "claimed",
        {
            "job": request.job,
            "request": request.digest,
            "credential": item.holder.credential,
            "policy_version": item.policy_version,
        },
    )
    return None


def claim_reads(item: Assessment) -> tuple[Query[Any], ...]:
    """What a claim judges first."""
    check, media = _claim_check(item), item.versions
    return (check, versions_of(media), unclean_reviews(media)) if media else (check,)


def _claim_check(item: Assessment) -> Query[ClaimCheck]:
    return claim_check(item.request, credential=item.holder.credential, epoch=item.holder.epoch)


def finish(tx: Tx, request: Request, outcome: Outcome, *, credential: str) -> bool:
    """Record what a claimed call came to; see `Ledger.finish`."""
    tx.lock_job(request.job)
    lock_made(tx, outcome.made)
    check = tx.first(finish_check(request.digest, credential))
    if check is None:
        return False
    body = {
        "job": request.job,
        "request": request.digest,
        "as": outcome.state,
        "made": [made.sha256 for made in outcome.made],
        "receipts": [list(receipt) for receipt in outcome.receipts],
    }
    if check.state not in (GrantState.CLAIMED, GrantState.UNKNOWN) or not claim_is_ours(check):
        tx.record("finished.late", body)  # it changes nothing, but a recall needs to know
        return False
    grant = check.id
    if (check.state, outcome.state) != (GrantState.UNKNOWN, GrantState.UNKNOWN):
        tx.move("grants", "state = ?, ended_at = ?", "id = ?", outcome.state, tx.now, grant)
    if outcome.remembers is not None:
        outcome = with_memory(tx, request, outcome, outcome.remembers)
    _insert_effects(tx, request, grant, outcome, credential=credential)
    tx.record("finished", body)
    return True


def unclaim(tx: Tx, request: Request, *, epoch: int) -> None:
    """Return a Grant whose tool paused itself before any effect (`claimed` → `issued`)."""
    tx.lock_job(request.job)
    if tx.update("grants", "state = 'issued', claimed_at = NULL",
                 "request = ? AND state = 'claimed' AND epoch = ?",
                 request.digest, epoch):  # fmt: skip
        tx.record("unclaimed", {"job": request.job, "request": request.digest})


def settle(tx: Tx, grant: str, outcome: Outcome, *, request: str, by: str | None) -> bool:
    """Record what was found out about an unknown effect; see `Ledger.settle`."""
    lock_job_of(tx, request)
    if not tx.update("grants", "state = ?, ended_at = ?", "id = ? AND state = 'unknown'",
                     outcome.state, tx.now, grant):  # fmt: skip
        return False
    set_outcome(tx, grant, outcome.state, outcome.text)
    for destination, location, sha256 in outcome.receipts:
        keep_receipt(tx, grant, destination=destination, location=location, sha256=sha256)
    body = {"request": request, "as": outcome.state, "person": by, "found": outcome.text}
    tx.record("reconciled", body)
    return True


def _obstacle(tx: Tx, check: ClaimCheck | None, item: Assessment) -> Obstacle | None:
    """What stands against a claim besides its grant: job, credential, an answer, an asset."""
    obstacle = obstacle_in(check, item.request.job, item.holder.epoch, now=tx.now)
    if check is None or obstacle is not None:
        return _not_granted(obstacle or _NO_GRANT)
    return (
        credential_obstacle(check, now=tx.now)
        or answers_moved(check, item)
        or denials_moved(check, item)
        or assets_moved(tx, item)
        or findings_moved(tx, item)
    )


def credential_obstacle(check: ClaimCheck, *, now: int) -> Obstacle | None:
    """Whether the credential of a claim was revoked, or expired (I9)."""
    if check.credential_state != "live" or (check.lives_until or 0) <= now:
        return _not_granted("its credential is not live")
    return None


def answers_moved(check: ClaimCheck, item: Assessment) -> Obstacle | None:
    """Whether a person answered after the call was judged."""
    if item.asked and check.answers != item.answers:
        return _moved("somebody answered since it was judged")
    return None


def denials_moved(check: ClaimCheck, item: Assessment) -> Obstacle | None:
    """Whether a person said no to another call of the job after this one was judged."""
    if check.denied != item.facts.denials:
        return _moved("somebody said no to another call since it was judged")
    return None


def assets_moved(tx: Tx, item: Assessment) -> Obstacle | None:
    """Whether labels, terms, holds or recalls of an asset changed after the call was judged."""
    versions = tx.rows(versions_of(item.versions)) if item.versions else []
    if {row.sha256: row.version for row in versions} != dict(item.versions):
        return _moved("an asset changed since it was judged")
    return None


def findings_moved(tx: Tx, item: Assessment) -> Obstacle | None:
    """Whether a review found something wrong after the call was judged."""
    found = tx.rows(unclean_reviews(item.versions)) if item.versions else []
    if len(found) != item.findings:
        return _moved("a review found something since it was judged")
    return None


def _grant_obstacle(check: ClaimCheck | None, *, now: int) -> Obstacle | None:
    """Why the use of a Grant can't be taken; None: it can."""
    if check is None or check.id is None or check.expires_at is None:
        return _not_granted(_NO_GRANT)
    # A tool that paused itself goes on when it is answered: it has no effect outside, and its job
    # and credential were judged before.
    none_outside = check.effect == OutsideEffect.NONE
    if check.state == GrantState.ISSUED and (check.claims or 0) > 0 and none_outside:
        return None
    return state_obstacle(check) or expiry_obstacle(check.expires_at, now=now)


def state_obstacle(check: ClaimCheck) -> Obstacle | None:
    """Whether a Grant was used, or revoked (I8). What failed without an effect may run again."""
    again = check.state == GrantState.FAILED and check.effect == OutsideEffect.NONE
    if check.state == GrantState.ISSUED or again:
        return None
    why = f"its grant is {check.state}"
    # Whoever looks again reads what came of its use.
    return _moved(why) if check.state in _USED else _not_granted(why)


def expiry_obstacle(expires_at: int, *, now: int) -> Obstacle | None:
    """Whether a Grant expired before it was claimed (I9)."""
    return _not_granted("its grant is expired") if expires_at <= now else None


def claim_is_ours(check: FinishCheck) -> bool:
    """Whether the claim that ends is still the one that was made last (I8)."""
    return bool(check.ours)


_NO_GRANT = "no grant exists for this call"
_USED = (GrantState.CLAIMED, GrantState.EXECUTED, GrantState.FAILED, GrantState.UNKNOWN)


def _moved(what: str) -> Obstacle:
    return Obstacle(kind=ObstacleKind.MOVED, sentence=what)


def _not_granted(why: str) -> Obstacle:
    return Obstacle(kind=ObstacleKind.NOT_GRANTED, sentence=why)


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
                tx.ensure("lineage", child=made.sha256, parent=parent, grant_id=grant)
    for sha256, findings in (outcome.findings or {}).items():
        clean = all(finding.get("severity") == "info" for finding in findings)
        tx.ensure(
            "reviews",
            job=request.job,
            sha256=sha256,
            grant_id=grant,
            findings=to_json(list(findings)),
            clean=int(clean),
            at=tx.now,
        )
    for sha256, destination in outcome.queued:
        tx.ensure(
            "queued",
            job=request.job,
            sha256=sha256,
            destination=destination,
            grant_id=grant,
            at=tx.now,
        )
    for label in sorted(outcome.revealed):
        tx.ensure("revealed", job=request.job, label=label)
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
    tx.put(
        "outcomes",
        grant_id=grant,
        status=status,
        text=text,
        assets=to_json(list(assets)),
        state=to_json(updates or {}),
    )


def keep_receipt(tx: Tx, grant: str, *, destination: str, location: str, sha256: str) -> None:
    """Remember what a Grant sent where."""
    tx.ensure(
        "receipts",
        grant_id=grant,
        destination=destination,
        location=location,
        sha256=sha256,
        at=tx.now,
    )
