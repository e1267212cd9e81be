"""The belt: a tool that starts unguarded inside a job is stopped, recorded and logged (I5).

One callback handler for the whole process, put in by LangChain's configure hook: a handler in
`config["callbacks"]` would miss threads, executors, `tool.run` and bodies whose callbacks are
detached. It sees what starts through `invoke`, `run`, `arun` and their like. A declared function
that is called directly tells it, too. A direct call of another tool's `func` or `_run` tells
nobody, so the belt can't see it, and a program that wants to get round it can: it is a belt, the
guarded tool is the wall.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers.context import register_configure_hook

from agentguard.bindings.running import running, tell_of_direct_calls
from agentguard.calls.arguments import sayable
from agentguard.errors import JobError, LedgerError, UnguardedTool
from agentguard.jobs.entry import ENTRY_KEY
from agentguard.jobs.job import Job, current_job

if TYPE_CHECKING:
    from agentguard.calls.enforcement_point import EnforcementPoint

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Expected:
    """A guarded run that is about to start. One run uses it up: what its body starts does not.

    Args:
        name: the tool's name.
        run: the run that used it, None until then.
    """

    name: str
    run: UUID | None = None


_expected: ContextVar[_Expected | None] = ContextVar("agentguard_expected", default=None)


@dataclass(slots=True, frozen=True)
class _Allowed:
    """Code that was let past the guard.

    Args:
        point: whose guard let it past.
        why: the reason.
        begun: tools of its own that started and are recorded: run id → name.
    """

    point: EnforcementPoint
    why: str
    begun: dict[UUID | None, str]


_allowed: ContextVar[_Allowed | None] = ContextVar("agentguard_allowed", default=None)


@contextlib.contextmanager
def announced(name: str) -> Iterator[None]:
    """Announce that a guarded copy starts a run of this name."""
    token = _expected.set(_Expected(name))
    try:
        yield
    finally:
        _expected.reset(token)


@contextlib.contextmanager
def allowed(point: EnforcementPoint, why: str) -> Iterator[None]:
    """Let tools run unguarded in this context; each run is recorded with the reason."""
    token = _allowed.set(_Allowed(point, why, {}))
    try:
        with running(exempt=True):
            yield
    finally:
        _allowed.reset(token)


class UnguardedRuns(BaseCallbackHandler):
    """Stops tools that start past the guard. There is one, which knows every open workspace."""

    raise_error = True  # else LangChain logs what is raised here, and runs the tool
    run_inline = True
    ignore_llm = True
    ignore_retry = True
    ignore_chain = True
    ignore_retriever = True
    ignore_chat_model = True
    ignore_custom_event = True

    def __init__(self) -> None:
        self._points: weakref.WeakSet[EnforcementPoint] = weakref.WeakSet()

    def __deepcopy__(self, memo: dict[int, Any]) -> UnguardedRuns:
        return self  # a copy of a config keeps the handler

    def watch(self, point: EnforcementPoint) -> None:
        """Look after the jobs of a workspace, until its guard is closed."""
        self._points.add(point)

    def forget(self, point: EnforcementPoint) -> None:
        """Its guard is closed."""
        self._points.discard(point)

    def on_tool_start(
        self, serialized: dict[str, Any] | None, input_str: str, *, run_id: UUID, **kwargs: Any
    ) -> None:
        """Pass a guarded run, a tool without stage, and whatever runs outside of every job.

        Raises:
            UnguardedTool: the tool is stopped before its body.
        """
        name = str((serialized or {}).get("name") or kwargs.get("name") or "")
        expected = _expected.get()
        if expected is not None and expected.name == name and expected.run in (None, run_id):
            expected.run = run_id
            return
        point, job = self._job_of_run()
        if point is None:
            point = self._guard_of_thread(name)
        if point is None or _is_harmless(point, name, (serialized or {}).get("description")):
            return
        exemption = _allowed.get()
        if exemption is not None and exemption.point is point:
            _let_past(exemption, job, name)
            exemption.begun[run_id] = name
            return
        _stop(point, job, sayable(name))

    def on_direct_call(self, name: str, why: str | None) -> None:
        """Record a declared function that is called directly: see `tell_of_direct_calls`.

        Raises:
            UnguardedTool: another guard than the job's let it past.
            LedgerUnavailable: it can't be recorded, so it must not run.
        """
        point, job = self._job_of_run()
        if point is None:
            point = self._guard_of_thread(name)
        if point is None:
            return
        exemption = _allowed.get()
        if why is not None:
            _note_stop(point, job, sayable(name), why)
        elif exemption is None or exemption.point is not point:
            _stop(point, job, sayable(name))
        elif exemption.begun.pop(_run_around(), None) != name:  # else its start is recorded
            _let_past(exemption, job, name)

    def is_bound(self, declared: object, *, in_job: bool) -> bool:
        """Whether an open guard knows a function that was declared so; see `Witness`.

        A harmless one may run anywhere.
        """
        return any(
            not bound.binding.is_harmless
            for point in list(self._points)
            if point.jobs.any_held or not in_job
            for bound in point.bound_tools.declared_as(declared)
        )

    def _job_of_run(self) -> tuple[EnforcementPoint, Job] | tuple[None, None]:
        """The job that the running code is inside of: by its `with`, or by the run's entry."""
        job = current_job()
        points = list(self._points)
        if job is not None:
            for point in points:
                if point.jobs.holds(job.id):
                    return point, job
        configurable = (var_child_runnable_config.get() or {}).get("configurable") or {}
        if ENTRY_KEY in configurable:
            for point in points:
                with contextlib.suppress(JobError):
                    return point, point.jobs.find({ENTRY_KEY: configurable[ENTRY_KEY]})
        return None, None

    def _guard_of_thread(self, name: str) -> EnforcementPoint | None:
        """Where nothing says which job it is: one with an open job that has bound the name."""
        for point in list(self._points):
            if point.jobs.any_held and name in point.bound:
                return point
        return None


def _is_harmless(point: EnforcementPoint, name: str, description: object) -> bool:
    """Whether it looks like a bound tool without stage; the object itself is not to be seen."""
    bound = point.bound.get(name)
    if bound is None or not bound.binding.is_harmless:
        return False
    return bool(description == bound.binding.tool.description)


def _stop(point: EnforcementPoint, job: Job | None, name: str) -> None:
    where = "inside a job" if job is None else f"inside {job.id}"
    with_it = "bound" if name in point.bound else "not bound"
    sentence = (
        f"the tool {name} ({with_it}) was started unguarded {where}, and stopped; run it through"
        " protect(...) or GuardMiddleware, give its node guard.tools([...]), bind it with"
        ' stage=None if it touches no media, or say `with guard.unguarded("why"):`'
    )
    _note_stop(point, job, name, sentence)
    raise UnguardedTool(sentence)


def _let_past(exemption: _Allowed, job: Job | None, name: str) -> None:
    exemption.point.ledger.allow_unguarded(
        job.id if job is not None else None, tool=sayable(name), why=exemption.why
    )


def _run_around() -> UUID | None:
    """The run of the tool whose body is running, if LangChain started it."""
    callbacks = (var_child_runnable_config.get() or {}).get("callbacks")
    return getattr(callbacks, "parent_run_id", None)


def _note_stop(point: EnforcementPoint, job: Job | None, name: str, sentence: str) -> None:
    _log.error("%s", sentence)
    try:
        point.ledger.stop_unguarded(job.id if job is not None else None, tool=name)
    except LedgerError as error:
        _log.error("that %s was stopped could not be recorded: %s", name, error)


BELT = UnguardedRuns()
"""The one handler of this process."""

tell_of_direct_calls(BELT)

_belt: ContextVar[UnguardedRuns | None] = ContextVar("agentguard_belt", default=BELT)
register_configure_hook(_belt, inheritable=True)
