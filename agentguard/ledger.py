"""What the ledger remembers and how its rows may move: one method per transition.

Every method is one transaction: conditional writes, each covered by a record (DESIGN section 10).
Judging is elsewhere (decide.py); here a transition either still applies or says what moved.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentguard.canonical import canonical
from agentguard.errors import JobError
from agentguard.model import (
    Answer,
    Credential,
    Decision,
    Effect,
    GrantState,
    JobState,
    OutsideEffect,
    Request,
    Stage,
    Verdict,
)
from agentguard.storage import Row, Storage, Tx


def new_id(kind: str) -> str:
    """A fresh unguessable id such as `job-4f0c…` (80 bits)."""
    return f"{kind}-{secrets.token_hex(10)}"


def to_json(value: object) -> str:
    """The canonical text of a JSON column."""
    return canonical(value).decode("utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A Request with its Decision, as authorize records it.

    Args:
        shown: the Request as people and auditors read it: texts redacted, no secrets.
        expires_at: end of the Grant (PERMIT) or of the review window (ASK), in ms.
    """

    request: Request
    decision: Decision
    shown: Mapping[str, Any]
    thread: str
    call_id: str
    credential: str | None
    policy_version: str
    outside: OutsideEffect
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Relied:
    """What a decision to execute relied on; the claim refuses if any of it moved (I8).

    Args:
        versions: asset SHA-256 → row version.
        approved: the Request was asked, so its approvals must still be unexpired.
    """

    epoch: int
    credential: str
    versions: Mapping[str, int]
    approved: bool
    policy_version: str


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a claimed call came to; a replay returns it.

    Args:
        text: what the model saw. state: declared state keys that the tool wrote.
        findings: what a review found, by asset SHA-256.
        receipt: (destination, location, SHA-256) of what was sent.
    """

    state: GrantState
    text: str
    made: tuple[Made, ...] = ()
    updates: Mapping[str, Any] | None = None
    findings: Mapping[str, Sequence[Mapping[str, Any]]] | None = None
    queued: tuple[tuple[str, str], ...] = ()
    revealed: frozenset[str] = frozenset()
    receipts: tuple[tuple[str, str, str], ...] = ()


class Ledger:
    """Jobs, credentials, requests, answers, grants and assets, in one `Storage`.

    Args:
        storage: where the rows are.
        clock: the ledger's time in ms; every deadline is judged by it.
    """

    def __init__(self, storage: Storage, *, clock: Callable[[], int]) -> None:
        self.storage = storage
        self.clock = clock

    # --- jobs and credentials ---------------------------------------------------------------

    def open_job(self, *, purpose: str, requested_by: str, lease: int) -> tuple[str, int]:
        """Create an open job; returns (id, epoch). `lease` is in ms."""
        job = new_id("job")

        def transition(tx: Tx) -> None:
            tx.insert(
                "jobs",
                id=job,
                purpose=purpose,
                requested_by=requested_by,
                state=JobState.OPEN,
                epoch=1,
                opened_at=tx.now,
                ended_at=None,
                reason=None,
            )
            tx.lease(job, epoch=1, until=tx.now + lease)
            tx.record("job.opened", {"job": job, "person": requested_by, "purpose": purpose})

        self._run(transition, durable=True)
        return job, 1

    def rejoin_job(self, job: str, *, by: str, lease: int) -> int:
        """Re-enter a waiting job under a raised epoch, which fences older holders.

        Raises:
            JobError: no such job, or it is not waiting.
        """

        def transition(tx: Tx) -> int:
            row = tx.one("SELECT * FROM jobs WHERE id = ?", job)
            if row is None:
                raise JobError(f"no job {job} in this ledger")
            if row["state"] != JobState.WAITING:
                raise JobError(f"job {job} is {row['state']}, expected waiting")
            tx.update("jobs", "state = 'open', epoch = epoch + 1", "id = ?", job)
            epoch = int(row["epoch"]) + 1
            tx.lease(job, epoch=epoch, until=tx.now + lease)
            tx.record("job.rejoined", {"job": job, "person": by, "epoch": epoch})
            return epoch

        return int(self._run(transition, durable=True))

    def renew_lease(self, job: str, *, epoch: int, lease: int) -> bool:
        """Extend a lease; False if the job ended or another holder has it."""

        def transition(tx: Tx) -> bool:
            row = tx.one("SELECT epoch, state FROM jobs WHERE id = ?", job)
            if row is None or row["state"] != JobState.OPEN or row["epoch"] != epoch:
                return False
            held = tx.one("SELECT until FROM leases WHERE job = ?", job)
            if held is None or held["until"] < tx.now:
                return False  # it lapsed; whoever sweeps next ends the job
            tx.lease(job, epoch=epoch, until=tx.now + lease)
            return True

        return bool(self._run(transition))

    def take_credential(
        self, job: str, *, epoch: int, agent: str, stage: Stage, lifetime: int
    ) -> Credential:
        """Mint a credential for one agent, one stage, one job.

        Raises:
            JobError: the job is not open under this epoch, or its lease lapsed.
        """

        def transition(tx: Tx) -> Credential:
            require_open(tx, job, epoch)
            credential = Credential(
                id=new_id("cred"),
                job=job,
                agent=agent,
                stage=stage,
                epoch=epoch,
                issued_at=tx.now,
                expires_at=tx.now + lifetime,
            )
            tx.insert(
                "credentials",
                id=credential.id,
                job=job,
                agent=agent,
                stage=stage,
                epoch=epoch,
                issued_at=tx.now,
                expires_at=credential.expires_at,
                state="live",
            )
            tx.record(
                "credential.issued",
                {"job": job, "agent": agent, "stage": stage, "credential": credential.id},
            )
            return credential

        credential: Credential = self._run(transition)
        return credential

    def revoke_credential(self, credential: str, *, reason: str) -> None:
        """Kill a credential and every unclaimed grant that was issued under it (S23)."""

        def transition(tx: Tx) -> None:
            where = "id = ? AND state = 'live'"
            tx.update("credentials", "state = 'revoked'", where, credential)
            tx.update("grants", "state = 'revoked', ended_at = ?",
                      "credential = ? AND state = 'issued'", tx.now, credential)  # fmt: skip
            tx.record("credential.revoked", {"credential": credential, "reason": reason})

        self._run(transition, durable=True)

    def leave_job(self, job: str, *, epoch: int, clean: bool, reason: str) -> JobState:
        """Leave a job: `waiting` if it left cleanly with approvals pending, else `ended` (I9)."""

        def transition(tx: Tx) -> JobState:
            row = tx.one("SELECT * FROM jobs WHERE id = ?", job)
            if row is None or row["state"] != JobState.OPEN or row["epoch"] != epoch:
                return JobState(row["state"]) if row is not None else JobState.ENDED
            pending = tx.one(
                "SELECT 1 FROM approvals WHERE job = ? AND expires_at > ? AND (state = 'pending'"
                " OR (state = 'approved' AND request NOT IN (SELECT request FROM grants)))",
                job,
                tx.now,
            )
            if clean and pending is not None:
                _kill_live(tx, job)
                tx.update("jobs", "state = 'waiting'", "id = ?", job)
                tx.record("job.waiting", {"job": job})
                return JobState.WAITING
            end_job(tx, job, reason=reason)
            return JobState.ENDED

        return JobState(self._run(transition, durable=True))

    def end_job(self, job: str, *, reason: str) -> bool:
        """End a job whoever holds it; False if it had ended."""

        def transition(tx: Tx) -> bool:
            row = tx.one("SELECT state FROM jobs WHERE id = ?", job)
            if row is None:
                raise JobError(f"no job {job} in this ledger")
            if row["state"] == JobState.ENDED:
                return False
            end_job(tx, job, reason=reason)
            return True

        return bool(self._run(transition, durable=True))

    def sweep(self) -> Mapping[str, int]:
        """End what is over: crashed jobs, closed review windows, lapsed grants and credentials.

        Returns:
            How many of each were ended: `jobs`, `approvals`, `grants`, `credentials`.
        """

        def transition(tx: Tx) -> dict[str, int]:
            done = {"jobs": 0, "approvals": 0, "grants": 0, "credentials": 0}
            for row in tx.all(
                "SELECT id FROM jobs JOIN leases ON job = id WHERE state = 'open' AND until < ?",
                tx.now,
            ):
                end_job(tx, row["id"], reason="its process died: the lease lapsed")
                done["jobs"] += 1
            done["approvals"] = tx.update(
                "approvals", "state = 'expired', ended_at = ?",
                "state IN ('pending', 'approved') AND expires_at <= ? AND NOT EXISTS (SELECT 1"
                " FROM grants g WHERE g.request = approvals.request AND g.claims > 0)",
                tx.now, tx.now,
            )  # fmt: skip
            done["grants"] = tx.update(
                "grants", "state = 'expired', ended_at = ?",
                "state = 'issued' AND expires_at <= ?", tx.now, tx.now,
            )  # fmt: skip
            done["credentials"] = tx.update(
                "credentials", "state = 'expired'", "state = 'live' AND expires_at <= ?", tx.now
            )
            if any(done[key] for key in ("approvals", "grants", "credentials")):
                tx.record("swept", {"counts": dict(done)})
            for row in tx.all(
                "SELECT id FROM jobs WHERE state = 'waiting' AND NOT EXISTS (SELECT 1 FROM"
                " approvals a WHERE a.job = jobs.id AND a.state IN ('pending', 'approved'))"
            ):
                end_job(tx, row["id"], reason="its review windows closed")
                done["jobs"] += 1
            return done

        result: Mapping[str, int] = self._run(transition)
        return result

    # --- requests, answers, grants -----------------------------------------------------------

    def record_decisions(self, judged: Sequence[Judged], *, epoch: int) -> None:
        """Record the decisions of one message: a Grant each for PERMIT, an approval for ASK.

        A Request that is already recorded keeps its first decision.
        """

        def transition(tx: Tx) -> None:
            for item in judged:
                _record_decision(tx, item, epoch=epoch)

        self._run(transition)

    def refuse(self, body: Mapping[str, Any]) -> None:
        """Record a refusal of what never became a Request, or of a Grant that no longer holds."""
        self._run(lambda tx: tx.record("refused", body))

    def answer(self, answer: Answer, *, outcome: Effect) -> None:
        """Record a verified Answer, and what the approval request comes to with it.

        Args:
            outcome: PERMIT (enough approvals), DENY (a no), ASK (more are needed).
        """

        def transition(tx: Tx) -> None:
            tx.insert(
                "answers",
                request=answer.request,
                person=answer.person,
                verdict=answer.verdict,
                answered_as=answer.group,
                at=answer.at,
                key_id=answer.key_id,
                signature=answer.signature,
                received_at=tx.now,
            )
            state = {Effect.PERMIT: "approved", Effect.DENY: "denied"}.get(outcome)
            if state is not None:
                tx.update("approvals", "state = ?, ended_at = ?",
                          "request = ? AND state = 'pending'", state, tx.now,
                          answer.request)  # fmt: skip
            tx.record(
                "answered",
                {
                    "request": answer.request,
                    "person": answer.person,
                    "verdict": answer.verdict,
                    "group": answer.group,
                    "outcome": outcome,
                },
            )

        self._run(transition, durable=True)

    def settle_approval(self, request: str, *, state: str, reason: str) -> None:
        """Move a pending approval request to `expired`, `denied` or `superseded`."""

        def transition(tx: Tx) -> None:
            if tx.update("approvals", "state = ?, ended_at = ?",
                         "request = ? AND state = 'pending'", state, tx.now, request):  # fmt: skip
                tx.record("approval.settled", {"request": request, "as": state, "reason": reason})

        self._run(transition)

    def issue_grant(self, item: Judged, *, epoch: int) -> None:
        """Write the Grant of a Request that was asked and is now permitted."""

        def transition(tx: Tx) -> None:
            require_open(tx, item.request.job, epoch)
            tx.update("approvals", "state = 'approved', ended_at = ?",
                      "request = ? AND state = 'pending'", tx.now, item.request.digest)  # fmt: skip
            row = tx.one("SELECT state, effect FROM grants WHERE request = ?", item.request.digest)
            if row is None:
                _insert_grant(tx, item)
            tx.record(
                "granted",
                {
                    "job": item.request.job,
                    "request": item.request.digest,
                    "policies": list(item.decision.policies),
                    "policy_version": item.policy_version,
                },
            )

        self._run(transition, durable=True)

    def claim(self, request: Request, relied: Relied, *, durable: bool) -> str | None:
        """Take the one use of a Request's Grant; the point of no return (I8).

        Returns:
            None if it was claimed, else one sentence saying what stood against it. What moved
            since the decision is said as `moved: ...`; the caller decides again.
        """

        def transition(tx: Tx) -> str | None:
            obstacle = _obstacle(tx, request, relied)
            if obstacle is not None:
                return obstacle
            changed = tx.update(
                "grants",
                "state = 'claimed', claims = claims + 1, claimed_at = ?, epoch = ?,"
                " ended_at = NULL",
                "request = ? AND job = ? AND ((state = 'issued' AND expires_at > ?)"
                " OR (state = 'failed' AND effect = 'none'))",
                tx.now, relied.epoch, request.digest, request.job, tx.now,
            )  # fmt: skip
            if not changed:
                row = tx.one("SELECT state FROM grants WHERE request = ?", request.digest)
                if row is None:
                    return "no grant exists for this call"
                expired = row["state"] == GrantState.ISSUED
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

        obstacle: str | None = self._run(transition, durable=durable)
        return obstacle

    def finish(self, request: Request, outcome: Outcome, *, credential: str) -> bool:
        """Record what a claimed call came to; False if the Grant was no longer `claimed`."""

        def transition(tx: Tx) -> bool:
            row = tx.one("SELECT id, state FROM grants WHERE request = ?", request.digest)
            if row is None or row["state"] not in (GrantState.CLAIMED, GrantState.UNKNOWN):
                return False
            grant = str(row["id"])
            tx.update("grants", "state = ?, ended_at = ?", "id = ?", outcome.state, tx.now, grant)
            _insert_effects(tx, request, grant, outcome, credential=credential)
            tx.record(
                "finished",
                {
                    "job": request.job,
                    "request": request.digest,
                    "as": outcome.state,
                    "made": [made.sha256 for made in outcome.made],
                    "receipts": [list(receipt) for receipt in outcome.receipts],
                },
            )
            return True

        return bool(self._run(transition))

    def unclaim(self, request: Request) -> None:
        """Return a Grant whose tool paused itself before any effect (`claimed` → `issued`)."""

        def transition(tx: Tx) -> None:
            if tx.update("grants", "state = 'issued', claimed_at = NULL",
                         "request = ? AND state = 'claimed'", request.digest):  # fmt: skip
                tx.record("unclaimed", {"job": request.job, "request": request.digest})

        self._run(transition)

    # --- assets --------------------------------------------------------------------------------

    def register(self, made: Made, *, job: str | None, by: str, how: str) -> None:
        """Take an imported asset into the registry, and give it to a job.

        Known bytes join labels and never drop one; the row version then rises, which voids
        grants and approvals that relied on the old labels.
        """

        def transition(tx: Tx) -> None:
            register(tx, made, source=f"import:{by}", job=job, how=how, person=by)
            tx.record("asset.registered", {"asset": made.sha256, "person": by, "job": job})

        self._run(transition)

    def give(self, sha256: str, *, job: str, by: str, name: str) -> None:
        """Make a known asset visible to a job."""

        def transition(tx: Tx) -> None:
            if tx.insert_new(
                "asset_jobs", job=job, sha256=sha256, how="given", name=name, at=tx.now
            ):
                tx.record("asset.given", {"asset": sha256, "job": job, "person": by})

        self._run(transition)

    def mark_asset(self, sha256: str, *, column: str, value: bool, by: str) -> bool:
        """Set or clear `held`, or set `recalled`; False if there was nothing to change."""
        if column not in ("held", "recalled"):
            raise ValueError(f"got column {column!r}, expected held or recalled")

        def transition(tx: Tx) -> bool:
            changed = tx.update(
                "assets", f"{column} = ?, version = version + 1",
                f"sha256 = ? AND {column} <> ?", int(value), sha256, int(value),
            )  # fmt: skip
            if changed:
                body = {"asset": sha256, "person": by, "value": value}
                tx.record(f"asset.{column}", body)
            return bool(changed)

        return bool(self._run(transition, durable=True))

    # --- reading --------------------------------------------------------------------------------

    def one(self, sql: str, *parameters: Any) -> Row | None:
        """The first committed row of a query, or None."""
        with self.storage.read() as connection:
            row: Row | None = connection.execute(sql, parameters).fetchone()
            return row

    def all(self, sql: str, *parameters: Any) -> list[Row]:
        """All committed rows of a query."""
        with self.storage.read() as connection:
            return connection.execute(sql, parameters).fetchall()

    def answers(self, request: str) -> tuple[Answer, ...]:
        """Every recorded Answer to a Request; whoever uses them verifies the signatures."""
        return tuple(
            Answer(
                request=row["request"],
                person=row["person"],
                verdict=Verdict(row["verdict"]),
                group=row["answered_as"],
                at=row["at"],
                key_id=row["key_id"],
                signature=row["signature"],
            )
            for row in self.all("SELECT * FROM answers WHERE request = ? ORDER BY at", request)
        )

    def _run(self, transition: Callable[[Tx], Any], *, durable: bool = False) -> Any:
        return self.storage.submit(transition, durable=durable).result()


def require_open(tx: Tx, job: str, epoch: int) -> None:
    """Raise JobError unless the job is open under this epoch and its lease has not lapsed."""
    obstacle = _job_obstacle(tx, job, epoch)
    if obstacle is not None:
        raise JobError(obstacle)


def end_job(tx: Tx, job: str, *, reason: str) -> None:
    """End a job and all that lives with it (I9); recorded."""
    _kill_live(tx, job)
    tx.update("approvals", "state = 'revoked', ended_at = ?",
              "job = ? AND (state = 'pending' OR (state = 'approved' AND request NOT IN"
              " (SELECT request FROM grants)))", tx.now, job)  # fmt: skip
    tx.update("jobs", "state = 'ended', ended_at = ?, reason = ?", "id = ?", tx.now, reason, job)
    tx.record("job.ended", {"job": job, "reason": reason})


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
    """Insert an asset or join its labels with the known ones; the caller records."""
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
            terms=to_json(made.terms),
            recalled=0,
            held=0,
            provenance=made.provenance,
            version=1,
            created_at=tx.now,
        )
    else:
        joined = to_json(made.labels | set(json.loads(known["labels"])))  # I4, S8: never dropped
        if joined != known["labels"]:
            tx.update("assets", "labels = ?, version = version + 1", "sha256 = ?",
                      joined, made.sha256)  # fmt: skip
    tx.insert_new(
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
    for contributor in sorted(made.contributors):
        tx.insert_new("contributors", sha256=made.sha256, person=contributor)
    if job is not None:
        tx.insert_new(
            "asset_jobs", job=job, sha256=made.sha256, how=how, name=made.name, at=tx.now
        )


def _kill_live(tx: Tx, job: str) -> None:
    tx.update("credentials", "state = 'revoked'", "job = ? AND state = 'live'", job)
    tx.update("grants", "state = 'revoked', ended_at = ?",
              "job = ? AND state = 'issued'", tx.now, job)  # fmt: skip


def _job_obstacle(tx: Tx, job: str, epoch: int) -> str | None:
    row = tx.one("SELECT state, epoch FROM jobs WHERE id = ?", job)
    if row is None:
        return f"no job {job} in this ledger"
    if row["state"] != JobState.OPEN:
        return f"job {job} is {row['state']}"
    if row["epoch"] != epoch:
        return f"job {job} was re-entered elsewhere"
    lease = tx.one("SELECT until FROM leases WHERE job = ?", job)
    if lease is None or lease["until"] <= tx.now:
        return f"the lease on job {job} lapsed"
    return None


def _obstacle(tx: Tx, request: Request, relied: Relied) -> str | None:
    obstacle = _job_obstacle(tx, request.job, relied.epoch)
    if obstacle is not None:
        return obstacle
    credential = tx.one(
        "SELECT 1 FROM credentials WHERE id = ? AND state = 'live' AND expires_at > ?"
        " AND job = ? AND agent = ? AND (stage = ? OR ? IS NULL)",
        relied.credential, tx.now, request.job, request.agent, request.stage, request.stage,
    )  # fmt: skip
    if credential is None:
        return "its credential is not live"
    if relied.approved:
        approval = tx.one(
            "SELECT 1 FROM approvals WHERE request = ? AND state = 'approved' AND expires_at > ?",
            request.digest, tx.now,
        )  # fmt: skip
        if approval is None:
            return "its approval is not live: the review window closed"
    for sha256, version in relied.versions.items():
        row = tx.one("SELECT version FROM assets WHERE sha256 = ?", sha256)
        if row is None or row["version"] != version:
            return "moved: an asset changed since it was judged"
    return None


def _record_decision(tx: Tx, item: Judged, *, epoch: int) -> None:
    request, decision = item.request, item.decision
    known = tx.one(
        "SELECT 1 FROM requests WHERE call_key = ? AND revision = ?",
        request.call_key,
        request.revision,
    )
    if known is not None:
        return
    if decision.effect is not Effect.DENY:
        require_open(tx, request.job, epoch)
    tx.insert(
        "requests",
        digest=request.digest,
        content_digest=request.content_digest,
        call_key=request.call_key,
        revision=request.revision,
        job=request.job,
        thread=item.thread,
        call_id=item.call_id,
        agent=request.agent,
        stage=request.stage,
        tool=request.tool,
        destination=request.destination,
        body=to_json(item.shown),
        effect=decision.effect.value,
        policies=to_json(list(decision.policies)),
        policy_version=item.policy_version,
        reason=decision.reason,
        credential=item.credential,
        decided_at=tx.now,
    )
    if decision.effect is Effect.PERMIT:
        _insert_grant(tx, item)
    elif decision.effect is Effect.ASK and decision.needs is not None:
        tx.insert(
            "approvals",
            request=request.digest,
            job=request.job,
            count=decision.needs.approvals,
            groups=to_json(decision.needs.groups),
            asked_at=tx.now,
            expires_at=item.expires_at,
            state="pending",
            ended_at=None,
        )
    tx.record(
        "decided",
        {
            "job": request.job,
            "request": request.digest,
            "effect": decision.effect,
            "policies": list(decision.policies),
            "shown": item.shown,
            "credential": item.credential,
        },
    )


def _insert_grant(tx: Tx, item: Judged) -> None:
    tx.insert(
        "grants",
        id=new_id("grant"),
        request=item.request.digest,
        job=item.request.job,
        credential=item.credential,
        policy_version=item.policy_version,
        effect=item.outside,
        idempotency_key=item.request.content_digest,
        state=GrantState.ISSUED,
        issued_at=tx.now,
        expires_at=item.expires_at,
        claims=0,
        claimed_at=None,
        epoch=None,
        ended_at=None,
    )


def _insert_effects(
    tx: Tx, request: Request, grant: str, outcome: Outcome, *, credential: str
) -> None:
    tx.insert_new(
        "outcomes",
        grant_id=grant,
        status=outcome.state,
        text=outcome.text,
        assets=to_json([made.id for made in outcome.made]),
        state=to_json(outcome.updates or {}),
    ) or tx.update(
        "outcomes", "status = ?, text = ?, assets = ?, state = ?", "grant_id = ?",
        outcome.state, outcome.text, to_json([made.id for made in outcome.made]),
        to_json(outcome.updates or {}), grant,
    )  # fmt: skip
    for made in outcome.made:
        register(
            tx,
            made,
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
        tx.insert_new(
            "receipts",
            grant_id=grant,
            destination=destination,
            location=location,
            sha256=sha256,
            at=tx.now,
        )
