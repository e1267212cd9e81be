"""`workspace`: a private copy of a workspace, for one test."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import threading
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agentguard.bindings.compilation import Tool
from agentguard.config.schema import milliseconds
from agentguard.config.workspace import load
from agentguard.errors import AgentGuardError
from agentguard.guard import Guard
from agentguard.jobs.job import Job, current_job
from agentguard.jobs.registry import Jobs
from agentguard.ledger.queries.assets import asset_by_id
from agentguard.model import Verdict
from agentguard.people.approvals import Approval
from agentguard.testing.calling import Caller
from agentguard.testing.deliveries import Delivery, NotingExecutor
from agentguard.testing.outcomes import CallResult, CallRun, outcome_of_run
from agentguard.testing.people import People
from agentguard.testing.private_copy import Clock, keys_of, new_picture, private_copy
from agentguard.testing.sockets import SocketWatch, UndeclaredConnection
from agentguard.transparency.log_key import create_log_key


def workspace(config: str | Path, *, tools: Iterable[Tool] = ()) -> TestWorkspace:
    """A private copy of a workspace, for one test; use it as a context manager, also async.

    Agents, people, groups, classes, policies, audiences, ceilings and lifetimes are those of the
    configuration. Its own are a fresh folder with a SQLite ledger, a store and a log key, a key for
    each person, a clock that stands still until `advance`, and a folder in place of each
    Destination's URL. `AGENTGUARD_*` variables, the ledger, store, keys and places that the
    configuration names are neither read nor written. Gate, policy, ledger, claim and broker are the
    real ones, and the tools run: one that declares `to` sends as it always does, so give it a
    client for tests.

    A tool that declares no `to` and opens a connection all the same, to this machine too, gets an
    `UndeclaredConnection` in its body, and `call`, or the end of the `with`, raises it again in
    case the tool swallowed it. That covers the tool's body, and threads that it starts, until the
    call ends. It is not seen where the connection was open before, or is opened in a thread that
    runs already, in another process, or by a library with sockets of its own (gRPC, libpq, libcurl,
    uvloop).

    Args:
        config: an `agentguard.toml`, or a `pyproject.toml`.
        tools: as for `Guard.from_config`.

    Raises:
        ConfigError: the configuration, a policy or a declaration can't be used; raised by the
            `with`, as are other errors of `Guard.from_config`.
    """
    return TestWorkspace(config, tools)


class TestWorkspace:
    """A private workspace; see `workspace`.

    Attributes:
        guard: the guard, open while the `with` lasts.
        folder: what is removed at the end: ledger, store, keys and destinations.
        requester: the Person who asks for jobs unless you say otherwise: the first in [people].
    """

    __test__ = False  # no test of pytest's

    guard: Guard
    folder: Path
    requester: str

    def __init__(self, config: str | Path, tools: Iterable[Tool]) -> None:
        self._config = Path(config)
        self._tools = list(tools)
        self._stack = contextlib.ExitStack()
        self._is_open = False
        self._jobs: list[Job] = []
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        if self._is_open:
            raise RuntimeError("this workspace is open; call workspace() again for another one")
        real = load(self._config, {})
        with contextlib.ExitStack() as stack:
            folder = tempfile.TemporaryDirectory(prefix="agentguard-testing-")
            self.folder = Path(stack.enter_context(folder)).resolve()
            own = private_copy(real, self.folder)
            create_log_key(own.log_key)
            keys = keys_of(own)
            self._clock = Clock()
            self.requester = next(iter(own.people))
            self.guard = Guard.open(own, tools=self._tools, clock=self._clock)
            # Time moves by `advance` only, which renews the leases: no thread may do so in between.
            self.guard.enforcement.jobs = Jobs(interval=threading.TIMEOUT_MAX)
            stack.callback(self.guard.close)
            self._caller = Caller(self.guard)
            self._people = People(self.guard, keys, self._clock)
            self._executor = NotingExecutor(
                assessor=self.guard.enforcement.assessor,
                broker=self.guard.broker,
                folders={
                    name: Path(place.url.removeprefix("file://"))
                    for name, place in own.destinations.items()
                    if place.url.startswith("file://")
                },
            )
            self.guard.enforcement.executor = self._executor
            self._sockets = SocketWatch(self.guard)
            self._sockets.start()
            stack.callback(self._sockets.stop)
            stack.callback(self._end_jobs)
            self._stack = stack.pop_all()
        self._is_open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the guard and remove the folder.

        Raises:
            UndeclaredConnection: a tool without `to` opened a connection, and no `call` said so.
        """
        self._is_open = False
        self._stack.close()
        caught = self._sockets.take()
        if caught is not None and error is None:
            raise UndeclaredConnection(caught)
        if caught is not None and error is not None:
            error.add_note(caught)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)

    # --- jobs and media ------------------------------------------------------------------------

    def job(self, purpose: str = "a test", *, requested_by: str | None = None) -> Job:
        """A job, to be entered by `with`; calls run in the newest one that was not left.

        Raises:
            JobError: the person is not configured.
        """
        job = self.guard.open_job(purpose, requested_by=requested_by or self.requester)
        self._jobs.append(job)
        return job

    def import_asset(
        self,
        file: Path | str | bytes | None = None,
        labels: Iterable[str] = (),
        *,
        by: str | None = None,
    ) -> str:
        """Take media into the current job; returns the asset's id.

        Args:
            file: a media file, or its bytes; None: a small picture of its own.
            labels: its class; none means `unclassified`.
            by: the Person who imports it, and can't approve it; None: the job's requester.

        Raises:
            AssetError: see `Guard.import_asset`.
        """
        job = self._current()
        if file is None:
            file = new_picture()
        if isinstance(file, bytes):
            path = self.folder / f"import-{next(self._numbers)}"
            path.write_bytes(file)
            file = path
        return self.guard.import_asset(file, labels, by=by or job.requested_by, job=job.id)

    def read(self, asset: str) -> bytes:
        """The bytes of an asset.

        Raises:
            LookupError: there is none of this id.
        """
        row = self.guard.ledger.first(asset_by_id(asset))
        if row is None:
            raise LookupError(f"no asset {asset:.60} is in this workspace")
        with tempfile.TemporaryFile(dir=self.folder) as file:
            self.guard.store.fetch(row.sha256, file)
            file.seek(0)
            return file.read()

    # --- calls ---------------------------------------------------------------------------------

    def call(
        self,
        tool: Tool | str,
        arguments: Mapping[str, Any] | None = None,
        /,
        *,
        agent: str | None = None,
        thread: str | None = None,
        **more: Any,
    ) -> CallResult:
        """Call a tool as a model would, through a graph of one protected ToolNode.

        It runs in the job whose `with` is around it, else in the newest of `job` that was not
        left, else in a new one. Each call begins a millisecond later than what was before.

        Args:
            tool: a tool, or the name of one, `export_asset` and the like included.
            arguments: the call's arguments, those whose names are taken here; asset ids in place of
                media.
            agent: who calls; None: the one agent that takes the tool's stage.
            thread: the conversation; None: one of its own.
            more: the other arguments.

        Raises:
            UndeclaredConnection: the tool opened a connection and declares no `to`.
            ValueError: `agent` has to be said, or there is none of this name.
        """
        run = self._begun(tool, {**(arguments or {}), **more}, agent, thread)
        return self._outcome(run, run.graph.invoke(run.given, run.config))

    async def acall(
        self,
        tool: Tool | str,
        arguments: Mapping[str, Any] | None = None,
        /,
        *,
        agent: str | None = None,
        thread: str | None = None,
        **more: Any,
    ) -> CallResult:
        """See `call`; asynchronous tools need it."""
        run = self._begun(tool, {**(arguments or {}), **more}, agent, thread)
        return self._outcome(run, await run.graph.ainvoke(run.given, run.config))

    def resume(self, outcome: CallResult, answer: Any = None) -> CallResult:
        """Resume a call that waits; returns how it stands then.

        Args:
            outcome: the call.
            answer: what a tool reads that interrupted by itself; it approves nothing.

        Raises:
            JobError: its job was left; enter it again with `guard.rejoin_job`.
        """
        self._clock.advance(1)
        run = self._caller.resumed(outcome, answer)
        return self._outcome(run, run.graph.invoke(run.given, run.config))

    async def aresume(self, outcome: CallResult, answer: Any = None) -> CallResult:
        """See `resume`; asynchronous tools need it."""
        self._clock.advance(1)
        run = self._caller.resumed(outcome, answer)
        return self._outcome(run, await run.graph.ainvoke(run.given, run.config))

    def sent(self, destination: str) -> list[Delivery]:
        """What calls sent to a Destination, whatever graph they were made in; oldest first.

        Raises:
            ValueError: no such destination is configured.
        """
        places = self.guard.workspace.destinations
        if destination not in places:
            known = ", ".join(sorted(places)) or "none"
            raise ValueError(f"no destination {destination!r} is configured; there are {known}")
        return self._executor.sent(destination)

    # --- people and time -----------------------------------------------------------------------

    @property
    def questions(self) -> tuple[Approval, ...]:
        """What people are asked now, newest first."""
        return self.guard.approvals.waiting()

    def approve(
        self, question: CallResult | Approval | None = None, *, by: str, group: str | None = None
    ) -> Approval:
        """Answer a question with yes, signed with the person's own key.

        Nothing runs by it: `resume` the call, or your own graph, then.

        Args:
            question: a call that waits, or its question; None: the only open one.
            by: the Person.
            group: what they answer as; None: a group that is missing, if they are in one.

        Returns:
            The question as it stands then.

        Raises:
            ApprovalError: the person may not, or there is no such question.
        """
        self._clock.advance(1)
        return self._people.answer(question, by=by, verdict=Verdict.APPROVE, group=group)

    def deny(
        self, question: CallResult | Approval | None = None, *, by: str, group: str | None = None
    ) -> Approval:
        """Answer a question with no; see `approve`."""
        self._clock.advance(1)
        return self._people.answer(question, by=by, verdict=Verdict.DENY, group=group)

    def advance(self, by: str | timedelta) -> None:
        """Let time pass, and end what is over; jobs that are open here keep their leases.

        Args:
            by: `"25h"`, or a timedelta that is not negative.

        Raises:
            ValueError: it is neither.
        """
        span = by // timedelta(milliseconds=1) if isinstance(by, timedelta) else milliseconds(by)
        if span < 0:
            raise ValueError(f"time passes, and {by} would turn it back")
        jobs, ledger = self.guard.jobs.held, self.guard.ledger
        lease = self.guard.workspace.lifetimes.lease
        # What the thread that renews leases would have done meanwhile.
        ledger.renew_leases({job.id: job.epoch for job in jobs}, lease=span + lease)
        for job in jobs:
            job.drop_live_credentials()
        self._clock.advance(span)
        self.guard.jobs.renew()
        ledger.sweep()

    # --- inside --------------------------------------------------------------------------------

    def _current(self) -> Job:
        job = current_job()
        if job is not None and job in self.guard.jobs.held:
            return job
        self._jobs = [job for job in self._jobs if not job.is_left]
        return self._jobs[-1] if self._jobs else self.job()

    def _end_jobs(self) -> None:
        for job in self._jobs:
            if not job.is_left:
                with contextlib.suppress(AgentGuardError):  # its folder goes, with all that it has
                    job.end("the test is over")
        self._jobs.clear()

    def _begun(
        self, tool: Tool | str, arguments: Mapping[str, Any], agent: str | None, thread: str | None
    ) -> CallRun:
        self._clock.advance(1)
        return self._caller.begun(self._current(), tool, arguments, agent=agent, thread=thread)

    def _outcome(self, run: CallRun, state: Mapping[str, Any]) -> CallResult:
        caught = self._sockets.take()
        if caught is not None:
            raise UndeclaredConnection(caught)
        return outcome_of_run(self.guard, run, state)
