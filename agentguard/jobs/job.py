"""Jobs: the handle a program holds while a job runs, and the thread that keeps its lease.

A job's live rights end with it, however it ends (I9). The handle keeps this
process's credentials; they are never in graph state or `configurable`, where only the id goes,
which selects, and the Entry, which proves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from agentguard.bindings.running import JOB
from agentguard.errors import AgentGuardError, LedgerError, LedgerUnavailable
from agentguard.jobs.entry import ENTRY_KEY, Entry
from agentguard.ledger.ledger import Ledger, Outcome
from agentguard.ledger.queries.grants import grant_of, held_claim
from agentguard.model import Agent, Credential, GrantState, JobState, Request, Stage

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

    from agentguard.config.workspace import Lifetimes

_log = logging.getLogger(__name__)

_CLOSED = (GeneratorExit, asyncio.CancelledError)
"""How a `with` ends whose client closed its stream, or whose task was cancelled: no failure."""

CONFIG_KEY = "agentguard_job"
"""The key in `configurable` under which a job's id travels; it selects, and proves nothing."""

CURRENT: ContextVar[Job | None] = JOB

_PATIENCE_S = 5.0
"""How long the garbage collector waits for a job to be left."""


def current_job() -> Job | None:
    """The job whose `with` encloses the running code; None without one, or once it was left."""
    job = CURRENT.get()
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
        self.outer: Job | None = None
        """The job whose `with` this one was entered within."""
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

    def drop_live_credentials(self) -> None:
        """Have new credentials minted at their next use, but for revoked ones (S23)."""
        with self._lock:
            for key, known in list(self._credentials.items()):
                if self._ledger.is_live(known.id):
                    del self._credentials[key]

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
            self.outer = outer
        CURRENT.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the job: from any task, thread or context, and as often as you like.

        An exception ends it, with its questions. A stream that its client closed, or a task that
        was cancelled, is no failure: the job ends, or waits for answers, as if it had been left.

        Raises:
            LedgerUnavailable: it could not be written; the job ends with its lease.
        """
        clean = kind is None or issubclass(kind, _CLOSED)
        how = "closed" if clean else "failed"
        reason = "left" if kind is None else f"{how}: {kind.__name__}"
        try:
            if kind is GeneratorExit:
                self._leave_apart(reason)
            else:
                self._leave(clean=clean, reason=reason)
        finally:
            # A context that entered this job and does not leave it keeps it, as a left one.
            if CURRENT.get() is self:
                CURRENT.set(self.outer)

    def leave(self) -> None:
        """Leave the job as the end of its `with` does: it ends, or waits for answers.

        From any task, thread or context, and as often as you like.

        Raises:
            LedgerUnavailable: it could not be written; the job ends with its lease.
        """
        self.__exit__(None, None, None)

    def end(self, reason: str) -> None:
        """End the job now, also if it waits for answers: all its live rights end with it.

        Args:
            reason: why, for the auditor.

        Raises:
            ValueError: no reason is given.
            LedgerUnavailable: it could not be written; the job ends with its lease.
        """
        if not reason.strip():
            raise ValueError("job.end() needs a reason, for the auditor who reads the log")
        try:
            self._leave(clean=False, reason=f"ended: {reason}")
        finally:
            if CURRENT.get() is self:
                CURRENT.set(self.outer)

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
                self._leave(clean=True, reason=reason)
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
