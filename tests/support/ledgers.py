"""A ledger on disk for tests, below the guard: rows, grants and people made by hand."""

from __future__ import annotations

import itertools
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agentguard.errors import IllegalTransition
from agentguard.ledger.ledger import Ledger, Made, Outcome
from agentguard.ledger.storage.open import Tx, open_storage
from agentguard.ledger.transitions.requests import issue_grant
from agentguard.ledger.verify import Checkpoints, verify_tail
from agentguard.model import (
    Answer,
    Assessment,
    AssetFacts,
    AssetUse,
    Decision,
    Effect,
    Facts,
    GrantState,
    Holder,
    JobState,
    Needs,
    OutsideEffect,
    Provenance,
    RecordedCall,
    Request,
    Sensitivity,
    Stage,
    Terms,
    Verdict,
    any_tool_of,
)
from tests.support.databases import shell

T0 = 1_800_000_000_000

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
LEASE = 30_000
LIFETIME = 900_000
GRANT = 60_000
REVIEW = 3_600_000

_calls = itertools.count(1)


class Clock:
    """The ledger's time, turned by hand. (Not of tests.support: child processes start faster.)"""

    def __init__(self, now: int = T0) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def turn(self, *, seconds: float) -> None:
        self.now += int(seconds * 1000)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a test's ledger is: a URL, and a folder for the checkpoints of this machine."""

    url: str
    folder: Path

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(path=self.folder / "ledger.db.checkpoints", origin="t/log", key=KEY)


def place_at(path: Path) -> Place:
    """A SQLite file, with its checkpoints beside it."""
    return Place(url=f"sqlite:{path}", folder=path.parent)


def checkpoints_beside(path: Path) -> Checkpoints:
    return Checkpoints(path=path.with_name(path.name + ".checkpoints"), origin="t/log", key=KEY)


def open_ledger(place: Place | Path, clock: Any = None) -> Ledger:
    clock = clock or Clock()
    url = f"sqlite:{place}" if isinstance(place, Path) else place.url
    checkpoints = checkpoints_beside(place) if isinstance(place, Path) else place.checkpoints
    storage = open_storage(url, clock=clock, checkpoints=checkpoints)
    try:
        verify_tail(storage, checkpoints)
    except BaseException:
        storage.close()
        raise
    return Ledger(storage, clock=clock)


@contextmanager
def ledger_at(place: Place | Path, clock: Any = None) -> Iterator[Ledger]:
    ledger = open_ledger(place, clock)
    try:
        yield ledger
    finally:
        ledger.storage.close()


class Shell:
    """A plain connection, as somebody with a shell has it, on either database.

    What a constraint or trigger refuses raises IllegalTransition, and the transaction goes on.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.postgres = not isinstance(connection, sqlite3.Connection)

    def execute(self, sql: str, parameters: tuple[Any, ...] = ()) -> Any:
        if not self.postgres:
            try:
                return self.connection.execute(sql, parameters)
            except sqlite3.IntegrityError as error:
                raise IllegalTransition(str(error)) from error
        try:
            if not self.connection.info.transaction_status or sql in ("COMMIT", "ROLLBACK"):
                return self.connection.execute(sql.replace("?", "%s"), parameters or None)
            with self.connection.transaction():
                return self.connection.execute(sql.replace("?", "%s"), parameters or None)
        except psycopg.IntegrityError as error:
            raise IllegalTransition(str(error)) from error


@contextmanager
def raw(place: Place | Path) -> Iterator[Shell]:
    """A shell on a ledger."""
    url = f"sqlite:{place}" if isinstance(place, Path) else place.url
    if url.startswith("sqlite:"):
        path = url.removeprefix("sqlite:")
        with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
            yield Shell(connection)
        return
    with shell(url) as connected:
        yield Shell(connected)


def made(name: str, *, labels: frozenset[str] = frozenset({"brand"}), **changes: Any) -> Made:
    sha256 = name * (64 // len(name)) if len(name) < 64 else name
    columns: dict[str, Any] = {
        "sha256": sha256, "id": f"asset-{sha256[:20]}", "media_type": "image/png",
        "extension": ".png", "size": 10, "width": 1, "height": 1, "labels": labels,
        "terms": Terms(), "provenance": "unknown", "parents": (),
        "contributors": frozenset({"kim"}), "name": name,
    }  # fmt: skip
    return Made(**(columns | changes))


def request(
    job: str,
    *,
    assets: tuple[str, ...] = (),
    destination: str | None = None,
    stage: Stage | None = Stage.EDIT,
    agent: str = "editor",
    tool: str = "crop",
    call: str | None = None,
) -> Request:
    return Request(
        workspace="acme",
        job=job,
        agent=agent,
        stage=stage,
        tool=tool,
        binding="b",
        args={},
        text_labels=frozenset(),
        assets=tuple(
            AssetUse(argument="source", asset=f"asset-{a[:20]}", sha256=a, labels=frozenset())
            for a in assets
        ),
        destination=destination,
        destination_digest="d" if destination else None,
        call_key=call or f"call-{next(_calls)}",
        revision=0,
    )


def facts(asked: Request, versions: Mapping[str, int] | None = None) -> Facts:
    """What was true of a Request, as far as the ledger looks at it.

    Args:
        versions: asset SHA-256 → the row version that was judged.
    """
    assets = tuple(
        AssetFacts(
            use=AssetUse(argument="source", asset="asset-x", sha256=sha256, labels=frozenset()),
            sensitivity=Sensitivity.OPEN,
            version=version,
            recalled=False,
            held=False,
            queued=False,
            reviewed=False,
            provenance=Provenance.UNKNOWN,
            terms=Terms(),
            contributors=frozenset(),
        )
        for sha256, version in (versions or {}).items()
    )
    return Facts(
        agent=None,
        action=any_tool_of(asked.stage),
        job_state=JobState.OPEN,
        credential_live=True,
        requester="kim",
        people=(),
        destination=None,
        assets=assets,
        text_sensitivity=Sensitivity.OPEN,
        chat_ceiling=frozenset(),
        reveals=False,
        rejected=False,
        can_ask=True,
        open_labels=frozenset(),
    )


def assessed(
    asked: Request, holder: Holder, effect: Effect = Effect.PERMIT, *, needs: Needs | None = None
) -> Assessment:
    """An Assessment as authorize makes one."""
    asks = effect is Effect.ASK
    decision = Decision(
        effect=effect,
        policies=("p",),
        reason="because",
        needs=needs or (Needs(approvals=1) if asks else None),
    )
    return Assessment(
        request=asked,
        recorded=recorded(asked),
        facts=facts(asked),
        decision=decision,
        holder=holder,
        thread="t",
        call_id_digest=asked.call_key,
        outside=OutsideEffect.NONE,
        policy_version="v",
        lifetime=REVIEW if asks else GRANT,
    )


def recorded(asked: Request) -> RecordedCall:
    """A Request as the ledger keeps it; of no configuration, since these destinations have none."""
    return replace(RecordedCall.of(asked, args=asked.args), destination_digest=None)


class Bench:
    """One open job with a credential, and what one does in it."""

    def __init__(self, ledger: Ledger, *, agent: str = "editor", stage: Stage = Stage.EDIT) -> None:
        self.ledger = ledger
        self.job, self.epoch = ledger.open_job(purpose="p", requested_by="kim", lease=LEASE)
        self.agent, self.stage = agent, stage
        self.credential = self.take()

    def take(self, *, lifetime: int = LIFETIME) -> str:
        return self.ledger.take_credential(
            self.job, epoch=self.epoch, agent=self.agent, stage=self.stage, lifetime=lifetime
        ).id

    def rejoin(self) -> None:
        self.epoch = self.ledger.rejoin_job(self.job, by="kim", lease=LEASE)
        self.credential = self.take()

    def judged(
        self,
        asked: Request,
        effect: Effect = Effect.PERMIT,
        *,
        outside: OutsideEffect = OutsideEffect.NONE,
        needs: Needs | None = None,
        lasts: int | None = None,
    ) -> Assessment:
        item = assessed(asked, self.holder, effect, needs=needs)
        return replace(item, outside=outside, lifetime=lasts or item.lifetime)

    def permit(
        self, *, outside: OutsideEffect = OutsideEffect.NONE, bits: int = 0, **changes: Any
    ) -> Request:
        """A recorded Request with an issued Grant."""
        asked = request(self.job, agent=self.agent, stage=self.stage, **changes)
        item = replace(self.judged(asked, outside=outside), bits=bits)
        self.ledger.record_decisions([item])
        return asked

    def ask(self, *, needs: Needs | None = None, **changes: Any) -> Request:
        """A recorded Request that waits for approvals."""
        asked = request(self.job, agent=self.agent, stage=self.stage, **changes)
        item = self.judged(asked, Effect.ASK, needs=needs)
        self.ledger.record_decisions([item])
        return asked

    def answer(
        self, asked: Request, person: str, outcome: Effect, *, group: str | None = None
    ) -> None:
        verdict = Verdict.DENY if outcome is Effect.DENY else Verdict.APPROVE
        given = Answer(request=asked.digest, person=person, verdict=verdict, group=group,
                       at=self.ledger.clock(), key_id="k", signature="s")  # fmt: skip
        self.ledger.answer(given)

    def grant(self, asked: Request, *, outside: OutsideEffect = OutsideEffect.NONE) -> None:
        """Issue the Grant of an asked Request that is approved now, without claiming it."""
        item = self.judged(asked, Effect.PERMIT, outside=outside)

        def transition(tx: Tx) -> bool:
            tx.lock_job(self.job)
            return issue_grant(tx, item)

        self.ledger.storage.submit(transition).result()

    @property
    def holder(self) -> Holder:
        return Holder(epoch=self.epoch, credential=self.credential)

    def claim(
        self,
        request: Request,
        /,
        *,
        versions: Mapping[str, int] | None = None,
        credential: str | None = None,
        **changes: Any,
    ) -> str | None:
        """What stands against the claim of a Request, None if it was claimed.

        Args:
            versions: of the assets that were judged.
            changes: what else was assessed.
        """
        if changes.get("asked"):
            changes.setdefault("answers", len(self.ledger.answers(request.digest)))
        item = replace(self.judged(request), **changes)
        if credential is not None:
            item = replace(item, holder=Holder(epoch=self.epoch, credential=credential))
        if versions is not None:
            item = replace(item, facts=facts(request, versions))
        obstacle = self.ledger.claim(item, durable=False)
        return None if obstacle is None else obstacle.sentence

    def finish(self, asked: Request, state: GrantState = GrantState.EXECUTED, **more: Any) -> bool:
        outcome = Outcome(state=state, text="done", **more)
        return self.ledger.finish(asked, outcome, credential=self.credential)

    def state(self, asked: Request) -> str:
        row = self.ledger.one("SELECT state FROM grants WHERE request = ?", asked.digest)
        return "none" if row is None else str(row["state"])

    def approval(self, asked: Request) -> str:
        row = self.ledger.one("SELECT state FROM approvals WHERE request = ?", asked.digest)
        return "none" if row is None else str(row["state"])

    def job_state(self) -> str:
        row = self.ledger.one("SELECT state FROM jobs WHERE id = ?", self.job)
        assert row is not None
        return str(row["state"])


def live(ledger: Ledger, job: str) -> dict[str, int]:
    """What of a job is still alive (I9)."""
    row = ledger.one(
        "SELECT (SELECT count(*) FROM credentials WHERE job = ?1 AND state = 'live')"
        " AS credentials,"
        " (SELECT count(*) FROM grants WHERE job = ?1 AND state IN ('issued', 'claimed'))"
        " AS grants,"
        " (SELECT count(*) FROM approvals a WHERE job = ?1 AND (state = 'pending' OR (state ="
        " 'approved' AND NOT EXISTS (SELECT 1 FROM grants g WHERE g.request = a.request"
        " AND g.state IN ('executed', 'failed', 'unknown'))))) AS approvals",
        job,
    )
    assert row is not None
    return {key: row[key] for key in row.keys() if row[key]}  # noqa: SIM118


def kinds(ledger: Ledger) -> list[str]:
    """The kinds of every record, in order."""
    return [record["kind"] for record in records(ledger)]


def records(ledger: Ledger) -> list[Any]:
    """Every record that was committed before, in order."""
    ledger.storage.wait_for_log()
    return [json.loads(row["body"]) for row in ledger.all("SELECT body FROM records ORDER BY idx")]


@contextmanager
def job_held(
    by: Ledger, job: str, then: Callable[[Tx], object] = lambda tx: None
) -> Iterator[Callable[[], None]]:
    """Somebody holds a job's lock for as long as the block, or until it calls what it gets.

    Args:
        then: what the holder does before it lets go.
    """
    go, inside = threading.Event(), threading.Event()

    def hold(tx: Tx) -> None:
        tx.lock_job(job)
        inside.set()
        assert go.wait(20)
        then(tx)

    holding = by.storage.submit(hold)
    assert inside.wait(20)

    def let_go() -> None:
        go.set()
        holding.result(20)

    try:
        yield let_go
    finally:
        let_go()
