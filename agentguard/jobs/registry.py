"""The jobs that this process holds, and the thread that renews their leases."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from agentguard.errors import AgentGuardError, JobError
from agentguard.forks import call_in_children
from agentguard.jobs.entry import ENTRY_KEY, Entry
from agentguard.jobs.job import CONFIG_KEY, CURRENT, Job

_log = logging.getLogger(__name__)


class Jobs:
    """The jobs this process holds, by id, and the thread that renews their leases."""

    def __init__(self, *, interval: float) -> None:
        self._held: dict[str, Job] = {}
        self._entered: dict[Entry, Job] = {}
        self._interval = interval
        self._reset()
        call_in_children(self._reset)

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
        """The job that a run was entered into (I6).

        Two things prove it: a live Entry in `configurable`, and the `with` of a job around the
        running code. The id in `configurable` must agree, and proves nothing.

        Raises:
            JobError: nothing proves that the run belongs to a job that this process holds; an Entry
                that is not live is never made up for by the `with`.
        """
        named = configurable.get(CONFIG_KEY)
        current = CURRENT.get()
        if current is not None and self._held.get(current.id) is not current:
            current = None  # it was left, its lease is lost, or it is another guard's
        if ENTRY_KEY in configurable:
            job = self._of_entry(configurable[ENTRY_KEY])
        elif current is not None:  # a child graph that lost its parent's configurable
            job = self._only(current)
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
    def held(self) -> tuple[Job, ...]:
        """The jobs that are open in this process."""
        with self._lock:
            return tuple(self._held.values())

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
                " holds it (a process opens one Guard, and keeps it: in Streamlit with"
                " @st.cache_resource); enter it with `with guard.rejoin_job(...) as job:` and pass"
                " the new job.config(...)"
            )
        return job

    def _only(self, current: Job) -> Job:
        """The job of a run without a config: the one around it, where there is one only."""
        outer = current.outer
        if outer is not None and self._held.get(outer.id) is outer:
            raise JobError(
                f"this run has no config of a job, and stands inside two: {outer.id}, and within it"
                f" {current.id}; say which one it belongs to: pass that job's job.config(...)"
            )
        return current

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
        around = CURRENT.get()
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
            except Exception:  # noqa: BLE001 - this thread keeps every other job's lease, too
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
    except Exception as error:  # noqa: BLE001 - one job's trouble must not be that of all
        _log.debug("leases are renewed one by one: %s", error)
        return frozenset()
