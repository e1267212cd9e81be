"""Jobs: the handle a program holds while a job runs, and the thread that keeps its lease.

A job's live rights end with it, however it ends (I9, DESIGN section 8). The handle keeps this
process's credentials; they are never in graph state or `configurable`, where only the id goes,
which selects, and the Entry, which proves.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from agentguard.errors import AgentGuardError, JobError, LedgerError, LedgerUnavailable
from agentguard.jobs.entry import ENTRY_KEY, Entry
from agentguard.ledger.ledger import Ledger, Outcome
from agentguard.ledger.queries.grants import grant_of, held_claim
from agentguard.model import Agent, Credential, GrantState, JobState, Request, Stage

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

    from agentguard.config.workspace import Lifetimes

_log = logging.getLogger(__name__)

CONFIG_KEY = "agentguard_job"
"""The key in `configurable` under which a job's id travels; it selects, and proves nothing."""

_current: ContextVar[Job | None] = ContextVar("agentguard_job", default=None)

_PATIENCE_S = 5.0
"""How long the garbage collector waits for a job to be left."""


def current_job() -> Job | None:
    """The job whose `with` encloses the running code; None without one, or once it was left."""
    job = _current.get()
    return None if job is None or job.is_left else job


class Job:
    """An open job in this process. Made by `Guard.open_job` and `Guard.rejoin_job`.

    Use it as a context manager, `with` or `async with`: a clean exit with approvals pending
    leaves the job `waiting`, a clean exit without ends it, an exception ends it.
    """

    def __init__(
        self,
        *,
        id: str,
        epoch: int,
        requested_by: str,
        ledger: Ledger,
        lifetimes: Lifetimes,
        import_asset: Callable[..., str],
        left: Callable[[Job], None],
    ) -> None:
        self.id = id
        self.epoch = epoch
        self.requested_by = requested_by
        self.entry = Entry()
        self.state = JobState.OPEN
        self._ledger = ledger
        self._lifetimes = lifetimes
        self._import = import_asset
        self._left = left
        self._lock = threading.Lock()
        self._credentials: dict[tuple[str, Stage], Credential] = {}
        self._owed: list[tuple[Request, Outcome, str]] = []
        self._outer: Job | None = None
        self.is_left = False
        self.is_leaving = False

    def config(
        self, base: RunnableConfig | None = None, *, thread_id: str | None = None
    ) -> RunnableConfig:
        """A LangGraph config that enters a run into this job: it carries the id and the Entry.

        Args:
            base: the caller's own config; it is kept.
            thread_id: the thread to run in; None keeps the one in `base`, else it is the job's id.
        """
        merged: RunnableConfig = {**base} if base is not None else {}
        configurable = {
            **merged.get("configurable", {}),
            CONFIG_KEY: self.id,
            ENTRY_KEY: self.entry,
        }
        if thread_id is not None:
            configurable["thread_id"] = thread_id
        configurable.setdefault("thread_id", self.id)
        merged["configurable"] = configurable
        return merged

    def import_asset(self, file: Path | str, labels: Iterable[str] = ()) -> str:
        """Take a file into the workspace and give it to this job; returns the asset's id.

        Args:
            file: a media file.
            labels: its class; none means `unclassified`, the highest sensitivity.

        Raises:
            AssetError: not media, damaged, too large, or an unknown label.
        """
        return self._import(file, labels, by=self.requested_by, job=self.id)

    def credential(self, agent: Agent, stage: Stage) -> Credential:
        """This process's credential for an agent's stage in this job, minted at first use.

        Raises:
            JobError: the job is over, re-entered elsewhere, or its lease lapsed.
        """
        with self._lock:
            known = self._credentials.get((agent.id, stage))
            if known is None:
                known = self._mint(agent.id, stage)
            return known

    @property
    def held(self) -> frozenset[tuple[str, Stage]]:
        """The agents and stages that this process has a credential for, by now."""
        with self._lock:
            return frozenset(self._credentials)

    def has_claimed(self, request: Request) -> bool:
        """Whether a Request is claimed by this holder of the job, and its lease has not lapsed.

        Raises:
            LedgerUnavailable: it can't be told.
        """
        claim = held_claim(request.digest, epoch=self.epoch, now=self._ledger.clock())
        return self._ledger.first(claim) is not None

    def owe(self, request: Request, outcome: Outcome, *, credential: str) -> None:
        """Keep what a claimed call came to while the ledger can't take it.

        It is recorded as soon as the ledger is back, at the latest when the job is left: a ledger
        that was away for a moment costs nobody a look at the destination (I8).
        """
        with self._lock:
            self._owed.append((request, outcome, credential))

    def settle(self) -> None:
        """Record what is owed.

        Raises:
            LedgerUnavailable: the ledger is still away; it stays owed.
        """
        while self._owed:
            with self._lock:
                if not self._owed:
                    return
                request, outcome, credential = owed = self._owed.pop(0)
            try:
                grant = self._ledger.first(grant_of(request.digest))
                state = None if grant is None else grant.state
                # A commit whose answer got lost may have been one.
                if state in (GrantState.CLAIMED, GrantState.UNKNOWN) or state != outcome.state:
                    self._ledger.finish(request, outcome, credential=credential)
            except LedgerUnavailable:
                with self._lock:
                    self._owed.insert(0, owed)
                raise
            except LedgerError as error:  # it will never be taken: `reconcile` finds out
                _log.error("an outcome in %s is lost: %s", self.id, error)

    def renew(self, *, leased: bool = False) -> bool:
        """Keep the lease, and replace credentials past half of their life; False if it is lost.

        Args:
            leased: the lease was renewed a moment ago, with those of other jobs.
        """
        self.settle()  # also if the lease is lost: what was done outside is known then
        lease = self._lifetimes.lease
        if not (leased or self._ledger.renew_lease(self.id, epoch=self.epoch, lease=lease)):
            return False
        now = self._ledger.clock()
        with self._lock:
            for (agent, stage), known in list(self._credentials.items()):
                old = known.expires_at - now < self._lifetimes.credential // 2
                if old and self._ledger.is_live(known.id):  # a revoked one does not come back
                    self._mint(agent, stage)
        return True

    def _mint(self, agent: str, stage: Stage) -> Credential:
        credential = self._ledger.take_credential(
            self.id,
            epoch=self.epoch,
            agent=agent,
            stage=stage,
            lifetime=self._lifetimes.credential,
        )
        self._credentials[agent, stage] = credential
        return credential

    def __enter__(self) -> Self:
        outer = current_job()
        if outer is not self:
            self._outer = outer
        _current.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the job: from any task, thread or context, and as often as you like.

        Raises:
            LedgerUnavailable: it could not be written; the job ends with its lease.
        """
        reason = "left" if kind is None else f"failed: {kind.__name__}"
        try:
            if kind is GeneratorExit:
                self._leave_apart(reason)
            else:
                self._leave(clean=kind is None, reason=reason)
        finally:
            # A context that entered this job and does not leave it keeps it, as a left one.
            if _current.get() is self:
                _current.set(self._outer)

    def _leave(self, *, clean: bool, reason: str) -> None:
        self.is_leaving = True
        self._credentials.clear()
        try:
            with contextlib.suppress(LedgerUnavailable):  # what stays owed is unknown from now on
                self.settle()
            self.state = self._ledger.leave_job(
                self.id, epoch=self.epoch, clean=clean, reason=reason
            )
        finally:
            self.is_left = True
            self._left(self)

    def _leave_apart(self, reason: str) -> None:
        """Leave on a thread of its own, and wait for it a while only.

        It may be the garbage collector that closes a generator, on a thread that holds a lock which
        leaving takes, or on the one that writes the ledger.
        """

        def leave() -> None:
            try:
                self._leave(clean=False, reason=reason)
            except AgentGuardError as failure:
                _log.error("%s could not be left, and ends with its lease: %s", self.id, failure)

        if sys.is_finalizing():  # no thread runs any more, the ledger's neither
            return
        thread = threading.Thread(target=leave, name="agentguard-leaving", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread can be started; most often nothing holds a lock
            leave()
        else:
            thread.join(_PATIENCE_S)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Short, and it must not be skipped when the caller is being cancelled: not in a thread.
        self.__exit__(kind, error, trace)


class Jobs:
    """The jobs this process holds, by id, and the thread that renews their leases."""

    def __init__(self, *, interval: float) -> None:
        self._held: dict[str, Job] = {}
        self._entered: dict[Entry, Job] = {}
        self._interval = interval
        self._reset()
        if hasattr(os, "register_at_fork"):  # not on Windows
            this = weakref.ref(self)  # hooks stay for good, so they must not keep this alive
            os.register_at_fork(after_in_child=lambda: _forked(this))

    def _reset(self) -> None:
        """Begin without a thread: at first, and in a forked child, where it is not.

        A child may find locks that a thread of its parent held when it was forked, for ever.
        """
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        for job in self._held.values():
            job._lock = threading.Lock()

    def hold(self, job: Job) -> None:
        """Start keeping a job's lease.

        Raises:
            JobError: no thread can be started; nothing would renew the lease, so nothing runs.
        """
        with self._lock:
            self._held[job.id] = job
            self._entered[job.entry] = job
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._renew, name="agentguard-leases", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    del self._held[job.id], self._entered[job.entry]
                    raise JobError(f"its lease can't be kept: {error}; the job lapses") from error
                self._thread = thread

    def drop(self, job: Job) -> None:
        """Stop keeping a job's lease, and revoke its Entry."""
        with self._lock:
            self._entered.pop(job.entry, None)
            if self._held.get(job.id) is job:  # a handle left twice must not drop its successor
                del self._held[job.id]

    def find(self, configurable: Mapping[str, Any]) -> Job:
        """The job that a run was entered into (I6, DESIGN section 8).

        Two things prove it: a live Entry in `configurable`, and the `with` of a job around the
        running code. The id in `configurable` must agree, and proves nothing.

        Raises:
            JobError: nothing proves that the run belongs to a job that this process holds; an Entry
                that is not live is never made up for by the `with`.
        """
        named = configurable.get(CONFIG_KEY)
        current = _current.get()
        if current is not None and self._held.get(current.id) is not current:
            current = None  # it was left, its lease is lost, or it is another guard's
        if ENTRY_KEY in configurable:
            job = self._of_entry(configurable[ENTRY_KEY])
        elif current is not None:
            job = current  # a child graph that lost its parent's configurable
        else:
            raise JobError(self._not_entered(named))
        if current not in (None, job) or named not in (None, job.id):
            raise JobError(
                f"this run names another job than the {(current or job).id} it runs in; pass that"
                " job's own job.config(...)"
            )
        return job

    def holds(self, job: str) -> bool:
        """Whether a job is open in this process."""
        return job in self._held

    @property
    def any_held(self) -> bool:
        """Whether this process holds an open job."""
        return bool(self._held)

    def _of_entry(self, given: object) -> Job:
        if type(given) is not Entry:
            raise JobError(
                f"configurable[{ENTRY_KEY!r}] holds a {type(given).__name__:.40}, expected what"
                " job.config(...) put there; it can't be typed, stored or sent, so pass the"
                " config itself"
            )
        job = self._entered.get(given)
        if job is None or self._held.get(job.id) is not job:
            raise JobError(
                "the job of this run is not open in this process: it was left, or another Guard"
                " holds it; enter it with `with guard.rejoin_job(...) as job:` and pass the new"
                " job.config(...)"
            )
        return job

    def _not_entered(self, named: object) -> str:
        """Why nothing proves that a run belongs to a job, and what to do."""
        if isinstance(named, str) and named in self._held:
            return (
                f"job {named} is open here, but this run was not entered: pass"
                " job.config(...), or a config made from it; an id alone proves nothing"
            )
        if named is not None:
            return (
                f"job {named!s:.40} is not open in this process; enter it again with"
                " `with guard.rejoin_job(...) as job:` and pass job.config(...)"
            )
        around = _current.get()
        if around is not None:
            lost = "was left" if around.is_left else "is not open in this guard"
            return (
                f"this run belongs to no job: {around.id} around it {lost}; enter it again with"
                f' `with guard.rejoin_job("{around.id}", by=...) as job:`, or open another, and'
                " pass job.config(...)"
            )
        return (
            "this run belongs to no job; run it inside `with guard.open_job(...) as job:` and pass"
            " job.config(...). A thread, an executor and a child graph with a thread_id of its own"
            " are outside of that `with` unless they get the config; on a LangGraph server the"
            " graph's factory passes it"
        )

    def close(self) -> None:
        """Stop the thread; leases lapse unless their jobs were left."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def renew(self) -> None:
        """Keep the lease of every held job, all at once, and drop those whose lease is lost."""
        with self._lock:
            held = list(self._held.values())
        leased = _leased(held)
        for job in held:
            try:
                if not job.renew(leased=job.id in leased):
                    if not job.is_leaving:
                        _log.error("the lease on %s is lost; its calls are refused", job.id)
                    self.drop(job)
            except AgentGuardError as error:
                _log.warning("the lease on %s could not be renewed: %s", job.id, error)
            except Exception:  # this thread keeps every other job's lease, too
                _log.exception("the lease on %s could not be renewed", job.id)

    def _renew(self) -> None:
        while not self._stop.wait(self._interval):
            self.renew()


def _leased(held: Sequence[Job]) -> frozenset[str]:
    """Renew leases together, one commit for many; whoever is not in the result is asked alone."""
    if not held:
        return frozenset()
    one = held[0]  # the jobs of a guard share its ledger
    epochs = {job.id: job.epoch for job in held}
    try:
        return one._ledger.renew_leases(epochs, lease=one._lifetimes.lease)
    except Exception as error:  # one job's trouble must not be that of all
        _log.debug("leases are renewed one by one: %s", error)
        return frozenset()


def _forked(reference: weakref.ref[Jobs]) -> None:
    jobs = reference()
    if jobs is not None:
        jobs._reset()
