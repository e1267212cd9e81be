"""The ledger of a workspace: a method for each way in which its rows may move.

Most are one transaction each: conditional writes, covered by a record (I10); a sweep is several.
Judging is elsewhere (policy/decide.py); here a transition either still applies or says what moved.
The rows of each noun are moved in `transitions/`, and read by `queries/`.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from agentguard.errors import IllegalTransition, LedgerCorrupt, LedgerError
from agentguard.ledger.alarms import AlarmFile
from agentguard.ledger.queries.approvals import answers_of
from agentguard.ledger.queries.grants import finish_check
from agentguard.ledger.queries.jobs import (
    holder_of,
    live_credential,
)
from agentguard.ledger.storage.open import Plan, Reader, Row, Storage, Tx, new_id, to_json
from agentguard.ledger.storage.query import Query, Reads, T
from agentguard.ledger.transitions import (
    approvals,
    assets,
    credentials,
    grants,
    jobs,
    requests,
    unguarded,
)
from agentguard.ledger.transitions.approvals import ASKED_ANEW, SAID_NO, TOO_LATE
from agentguard.ledger.transitions.assets import Made
from agentguard.ledger.transitions.grants import Outcome
from agentguard.ledger.transitions.operations import Memory, Started
from agentguard.ledger.transitions.requests import RefusedCall
from agentguard.ledger.transitions.room import Room, has_room
from agentguard.model import (
    Answer,
    Assessment,
    Credential,
    JobState,
    Obstacle,
    Request,
    Stage,
)

__all__ = [
    "ASKED_ANEW",
    "SAID_NO",
    "TOO_LATE",
    "Ledger",
    "Made",
    "Memory",
    "Outcome",
    "Reads",
    "RefusedCall",
    "Room",
    "Started",
    "to_json",
]  # fmt: skip

_log = logging.getLogger(__name__)

_AT_ONCE = 256  # renewals in the writer's queue at a time: calls wait for no more


class Ledger(Reads):
    """Jobs, credentials, requests, answers, grants and assets, in one `Storage`.

    A tamper alarm (LedgerCorrupt, IllegalTransition) is logged as an error, counted, and kept
    beside the checkpoints for `agentguard doctor`. From then on this Ledger lets nothing begin:
    what already runs can be recorded, and rights can be taken away, until it is opened anew (I10).

    Args:
        storage: where the rows are.
        clock: the ledger's time in ms; every deadline is judged by it.
        alarm_file: where alarms are kept for whoever looks after this process; None: nowhere.

    Attributes:
        alarm: what the first tamper alarm said; None: there was none.
    """

    def __init__(
        self, storage: Storage, *, clock: Callable[[], int], alarm_file: AlarmFile | None = None
    ) -> None:
        self.storage = storage
        self.clock = clock
        self.alarm: str | None = None
        self._alarm_file = alarm_file

    # --- tamper alarms ------------------------------------------------------------------------

    def raise_alarm(self, error: LedgerError) -> None:
        """Note that the ledger is not what it should be, or was asked what it never allows."""
        what = f"{type(error).__name__}: {error}"
        _log.error(
            "tamper alarm on the ledger %s: %s. This process refuses calls until it opens the"
            " ledger anew; run `agentguard audit verify` first",
            self.storage.name,
            what,
        )
        if self.alarm is None:
            self.alarm = what
            if self._alarm_file is not None:
                self._alarm_file.append(what, at=self.clock())

    def require_sound(self) -> None:
        """Raise LedgerCorrupt if this Ledger raised a tamper alarm since it was opened."""
        if self.alarm is not None:
            raise LedgerCorrupt(
                f"the ledger raised a tamper alarm ({self.alarm}); nothing begins in it before"
                " this process opens it anew. Run `agentguard audit verify` first"
            )

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except (LedgerCorrupt, IllegalTransition) as error:
            if not error.noted:  # an outer look at the same error
                error.noted = True
                self.raise_alarm(error)
            raise

    # --- jobs and credentials ---------------------------------------------------------------

    def open_job(self, *, purpose: str, requested_by: str, lease: int) -> tuple[str, int]:
        """Create an open job; returns (id, epoch). `lease` is in ms."""
        job = new_id("job")
        self._run(
            lambda tx: jobs.open_job(
                tx, job, purpose=purpose, requested_by=requested_by, lease=lease
            ),
            durable=True,
        )
        return job, 1

    def rejoin_job(self, job: str, *, by: str, lease: int) -> int:
        """Re-enter a waiting job under a raised epoch, which fences older holders.

        Raises:
            JobError: no such job, or it is not waiting.
        """
        return int(self._run(lambda tx: jobs.rejoin(tx, job, by=by, lease=lease), durable=True))

    def renew_lease(self, job: str, *, epoch: int, lease: int) -> bool:
        """Extend a lease; False if the job ended or another holder has it."""
        renewal = lambda tx: jobs.renew(tx, job, epoch=epoch, lease=lease)  # noqa: E731
        return bool(self._run(renewal, plan=_of_job(job), ends=True))  # what runs must end, too

    def renew_leases(self, held: Mapping[str, int], *, lease: int) -> frozenset[str]:
        """Extend many leases, sharing commits; see `renew_lease`.

        Args:
            held: job id → the epoch of its holder.

        Returns:
            The jobs whose lease was extended.
        """

        def renewal(job: str, epoch: int) -> Callable[[Tx], bool]:
            return lambda tx: jobs.renew(tx, job, epoch=epoch, lease=lease)

        renewed: set[str] = set()
        waiting = iter(held.items())
        while some := list(islice(waiting, _AT_ONCE)):
            futures = [
                (job, self.storage.submit(renewal(job, epoch), plan=_of_job(job)))
                for job, epoch in some
            ]
            with self._watched():
                renewed.update(job for job, future in futures if future.result())
        return frozenset(renewed)

    def take_credential(
        self, job: str, *, epoch: int, agent: str, stage: Stage, lifetime: int
    ) -> Credential:
        """Mint a credential for one agent, one stage, one job.

        Raises:
            JobError: the job is not open under this epoch, or its lease lapsed.
        """
        credential: Credential = self._run(
            lambda tx: credentials.mint(
                tx, job, epoch=epoch, agent=agent, stage=stage, lifetime=lifetime
            ),
            plan=_of_job(job),
        )
        return credential

    def is_live(self, credential: str) -> bool:
        """Whether a credential is neither revoked nor expired."""
        return self.first(live_credential(credential, self.clock())) is not None

    def revoke_credential(self, credential: str, *, reason: str) -> None:
        """Kill a credential and every unclaimed grant that was issued under it (S23)."""
        self._run(
            lambda tx: credentials.revoke(tx, credential, reason=reason),
            durable=True,
            ends=True,
        )

    def leave_job(self, job: str, *, epoch: int, clean: bool, reason: str) -> JobState:
        """Leave a job: `waiting` if it left cleanly with approvals pending, else `ended` (I9)."""
        state = self._run(
            lambda tx: jobs.leave(tx, job, epoch=epoch, clean=clean, reason=reason),
            durable=True,
            ends=True,
        )
        return JobState(state)

    def end_job(self, job: str, *, reason: str) -> bool:
        """End a job whoever holds it; False if it had ended."""
        stopped = self._run(lambda tx: jobs.stop(tx, job, reason=reason), durable=True, ends=True)
        return bool(stopped)

    def sweep(self) -> Mapping[str, int]:
        """End what is over: crashed jobs, closed review windows, lapsed grants and credentials.

        Returns:
            How many of each were ended: `jobs`, `approvals`, `grants`, `credentials`.
        """
        swept: Counter[str] = Counter()
        more = True
        while more:
            done, more = self._run(jobs.sweep, ends=True)
            swept.update(done)
            more = more and any(done.values())
        return dict(swept)

    # --- requests, answers, grants -----------------------------------------------------------

    def record_decisions(
        self,
        assessments: Sequence[Assessment],
        *,
        refused: Sequence[RefusedCall] = (),
        room: Room | None = None,
    ) -> bool:
        """Record the decisions of one message: a Grant each for PERMIT, an approval for ASK.

        A Request that is already recorded keeps its first decision.

        Args:
            refused: calls of the message that never became a Request.
            room: what other messages of the job may have used up since it was judged.

        Returns:
            False if there is no room for them any more: nothing was recorded, judge again.

        Raises:
            JobError: the job is not open under the epoch of the holder; nothing was recorded.
        """

        def transition(tx: Tx) -> bool:
            tx.lock_job(*{item.request.job for item in assessments})
            if room is not None and not has_room(tx, assessments, room):
                return False
            requests.record_decisions(tx, assessments)
            requests.record_refused(tx, refused)
            return True

        jobs = frozenset(item.request.job for item in assessments)
        reads = tuple(requests.decision_of(item) for item in assessments)
        return bool(self._run(transition, plan=Plan(jobs=jobs, reads=reads)))

    def ask_anew(self, item: Assessment, *, instead_of: str) -> bool:
        """Close an open question and ask another about the same call, which shows more (I7).

        No answer to the old one is taken or counted from then on.

        Args:
            item: the next revision of its Request, with an ASK.
            instead_of: digest of the Request that was asked about.

        Returns:
            False if the old question can't be replaced: the call was begun, somebody said no,
            its window closed, or it was withdrawn.

        Raises:
            JobError: the job is not open under the epoch of its holder; nothing was changed.
        """
        return bool(self._run(lambda tx: approvals.ask_anew(tx, item, instead_of=instead_of)))

    def refuse(self, body: Mapping[str, Any]) -> None:
        """Record a refusal of what never became a Request, or of a Grant that no longer holds."""
        self._run(lambda tx: tx.record("refused", body), ends=True)

    def stop_unguarded(self, job: str | None, *, tool: str) -> None:
        """Record that a tool was started past the guard and stopped, and mark the job (I5)."""
        self._run(lambda tx: unguarded.stop(tx, job, tool=tool))

    def allow_unguarded(self, job: str | None, *, tool: str, why: str) -> None:
        """Record that a tool runs past the guard as the program itself declared.

        Raises:
            LedgerUnavailable: it is not recorded, so it must not run (I10).
        """
        body = {"job": job or "", "tool": tool, "why": why}
        self._run(lambda tx: tx.record("unguarded.allowed", body))

    def answer(self, answer: Answer) -> None:
        """Record a verified Answer, and what the approval request comes to with it.

        Raises:
            ApprovalError: it is not pending, its window closed, or the person answered before.
        """
        self._run(lambda tx: approvals.answer(tx, answer), durable=True)

    def expire_approval(self, request: str, *, reason: str) -> None:
        """Close a pending approval request whose window ended."""
        self._run(lambda tx: approvals.expire(tx, request, reason=reason), ends=True)

    def withdraw(self, requests: Sequence[str]) -> None:
        """Close what waits of these Requests, since their conversation went on without them.

        Questions and unused approvals close, and unclaimed Grants are revoked; a later answer is
        refused with that reason. Whatever was claimed meanwhile stays as it is.

        Args:
            requests: their digests.
        """
        self._run(lambda tx: approvals.withdraw(tx, requests), ends=True)

    def claim(self, item: Assessment, *, durable: bool) -> Obstacle | None:
        """Take the one use of a Request's Grant; the point of no return (I8).

        People were asked, and no Grant was written yet: it is, if their approvals live.

        Returns:
            None if it was claimed, else what stands against it. Where something `moved` since it
            was assessed, the caller assesses it again.
        """
        obstacle: Obstacle | None = self._run(
            lambda tx: grants.claim(tx, item),
            durable=durable,
            plan=Plan(
                jobs=frozenset({item.request.job}),
                assets=True,
                request=item.request.digest,
                reads=grants.claim_reads(item),
            ),
        )
        return obstacle

    def finish(self, request: Request, outcome: Outcome, *, credential: str) -> bool:
        """Record what a claimed call came to.

        Returns:
            False if the claim is not the caller's any more (its job ended, or another holder has
            it): then only the fact is recorded, for whoever has to recall it.
        """
        plan = Plan(
            jobs=frozenset({request.job}),
            request=request.digest,
            reads=(finish_check(request.digest, credential),),
        )
        finished = self._run(
            lambda tx: grants.finish(tx, request, outcome, credential=credential),
            # Which locks new assets need is known only once it was looked whether they are new.
            plan=None if outcome.made else plan,
            ends=True,
        )
        return bool(finished)

    def unclaim(self, request: Request, *, epoch: int) -> None:
        """Return a Grant whose tool paused itself before any effect (`claimed` → `issued`)."""
        self._run(lambda tx: grants.unclaim(tx, request, epoch=epoch))

    def settle(self, grant: str, outcome: Outcome, *, request: str, by: str | None) -> bool:
        """Record what was found out about a call whose effect nobody knew (I8).

        Args:
            grant: the id of its Grant.
            outcome: that it was executed or failed, in words, and what was found where.
            request: the digest of its Request.
            by: the Person who looked; None: the destination or a probe was asked.

        Returns:
            False if it was settled meanwhile: nothing was recorded.
        """
        settled = self._run(
            lambda tx: grants.settle(tx, grant, outcome, request=request, by=by),
            durable=True,
            ends=True,
        )
        return bool(settled)

    # --- assets --------------------------------------------------------------------------------

    def register(self, made: Made, *, job: str | None, by: str, how: str) -> None:
        """Take an imported asset into the registry, and give it to a job.

        Known bytes join labels and never drop one; the row version then rises, which voids
        grants and approvals that relied on the old labels. That is on the disk before this
        returns, like a hold or recall: a crash must not bring the lower class back (I4).
        """
        self._run(lambda tx: assets.import_asset(tx, made, job=job, by=by, how=how), durable=True)

    def mark_asset(self, sha256: str, *, column: str, value: bool, by: str) -> bool:
        """Set or clear `held`, or set `recalled`; False if there was nothing to change."""
        if (column, value) not in (("held", True), ("held", False), ("recalled", True)):
            raise ValueError(f"got {column} = {value}, expected held or recalled, which stays")
        marked = self._run(lambda tx: assets.mark(tx, sha256, column=column, value=value, by=by),
                           durable=True)  # fmt: skip
        return bool(marked)

    # --- reading --------------------------------------------------------------------------------

    def one(self, sql: str, *parameters: Any) -> Row | None:
        """The first committed row of a query, or None."""
        with self._watched(), self.storage.read() as connection:
            return _Snapshot(connection).one(sql, *parameters)

    def all(self, sql: str, *parameters: Any) -> list[Row]:
        """All committed rows of a query."""
        with self._watched(), self.storage.read() as connection:
            return _Snapshot(connection).all(sql, *parameters)

    def first(self, query: Query[T]) -> T | None:
        """The first committed row of a query, or None.

        Raises:
            LedgerCorrupt: it holds what was never written there.
        """
        with self._watched():  # the row is decoded inside
            return super().first(query)

    def rows(self, query: Query[T]) -> list[T]:
        """All committed rows of a query; raises as `first`."""
        with self._watched():
            return super().rows(query)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Reads]:
        """Reads that all see one and the same committed state.

        What is written meanwhile is not seen: mint credentials first.

        Raises:
            LedgerUnavailable: the ledger can't be read.
            LedgerCorrupt: it raised a tamper alarm, now or before.
        """
        self.require_sound()
        with self._watched(), self.storage.snapshot() as connection:
            yield _Snapshot(connection)

    def answers(self, request: str, reads: Reads | None = None) -> tuple[Answer, ...]:
        """Every recorded Answer to a Request; whoever uses them verifies the signatures."""
        return tuple((reads or self).rows(answers_of(request)))

    def _run(
        self,
        transition: Callable[[Tx], Any],
        *,
        durable: bool = False,
        plan: Plan | None = None,
        ends: bool = False,
    ) -> Any:
        """Run a transition.

        Args:
            ends: it only takes rights away, or says what happened; so it runs after an alarm, too.
        """
        if not ends:
            self.require_sound()
        with self._watched():
            return self.storage.submit(transition, durable=durable, plan=plan).result()


def _of_job(job: str) -> Plan:
    """Of what only looks whether a job is open, and moves its rows."""
    return Plan(jobs=frozenset({job}), reads=(holder_of(job),))


class _Snapshot(Reads):
    """Reads over one connection, at one moment: what was asked before is not asked again."""

    def __init__(self, connection: Reader) -> None:
        self._connection = connection
        self._first: dict[tuple[Any, ...], Row | None] = {}
        self._all: dict[tuple[Any, ...], Sequence[Row]] = {}

    def one(self, sql: str, *parameters: Any) -> Row | None:
        asked = (sql, *parameters)
        if asked not in self._first:
            self._first[asked] = self._connection.execute(sql, parameters).fetchone()
        return self._first[asked]

    def all(self, sql: str, *parameters: Any) -> list[Row]:
        asked = (sql, *parameters)
        if asked not in self._all:
            self._all[asked] = self._connection.execute(sql, parameters).fetchall()
        return list(self._all[asked])
