"""What others do when a process has died: open, sweep, resume, reconcile, settle; and what is left.

The second worker resumes the old thread *before* anybody reconciles: a blind retry is what a
program does that is simply started again (I8).
"""

from __future__ import annotations

import http.server
import multiprocessing
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from langchain_core.messages import AIMessage, ToolMessage
from PIL import Image

from agentguard import Guard
from agentguard.calls.reconcile import settle
from tests.crash import worker
from tests.crash.cells import STEPS, Cell, expected
from tests.support import T0, Clock, write_workspace

LEASE_S = 30


class Uploads:
    """A server on the loopback that counts what is uploaded, where it happens.

    It repeats what is sent twice under one key, so that a blind retry is seen; and it can be asked.
    """

    def __init__(self) -> None:
        self.keys: dict[str, list[str]] = {}
        uploads = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                assert len(data) == int(self.headers["Content-Length"])
                uploads.keys.setdefault(self.path, []).append(self.headers["Idempotency-Key"])
                self.send_response(201)
                self.end_headers()

            def do_GET(self) -> None:
                known = self.headers["Idempotency-Key"] in uploads.of(self.path[1:])
                self.send_response(200 if known else 404)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{name}"

    def of(self, name: str) -> list[str]:
        """The idempotency keys of what arrived, in order."""
        return self.keys.get(f"/{name}", [])

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Processes:
    """Starts workers as forks of a process that has imported everything and opened nothing."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.crash.preload"])

    def run(self, target: Any, *args: Any) -> int:
        """Run a function to its end; returns the exit code, negative for a signal."""
        with self.running(target, *args) as process:
            process.join(60)
            assert process.exitcode is not None, "it hangs"
            return int(process.exitcode)

    @contextmanager
    def running(self, target: Any, *args: Any) -> Iterator[Any]:
        """A process that runs a function; it is killed on the way out if it still does."""
        process = self._context.Process(target=target, args=args)
        process.start()
        try:
            yield process
        finally:
            process.kill()
            process.join()
            process.close()


@dataclass(kw_only=True)
class Outcome:
    """What came of a cell.

    Args:
        at_death: effects when the process died.
        grant: the state of the first job's Grant once it was swept; "none": there is none.
        reconciled: what `reconcile` said of the first job's Grant.
        settled: whether a person had to look, and settle it.
        final: the state of the first job's Grant in the end.
        effects: effects in the end, as idempotency keys or file names.
        executed: Grants with an effect outside that the ledger calls executed.
        answers: what the thread says of its calls.
        again: whether the thread made its call again, under a Grant of the second job.
        broken: what must hold in every cell, and does not.
    """

    cell: Cell
    exit_code: int
    error: str = ""
    at_death: int = 0
    grant: str = "none"
    reconciled: str = ""
    settled: bool = False
    final: str = "none"
    effects: list[str] = field(default_factory=list)
    executed: int = 0
    answers: list[str] = field(default_factory=list)
    again: bool = False
    broken: list[str] = field(default_factory=list)


class Place:
    """The folder of one cell: its workspace, threads, effects and scratch folders."""

    def __init__(self, folder: Path, cell: Cell, uploads: Uploads, ledger: str | None) -> None:
        self.folder = folder
        self.cell = cell
        self.url = uploads.url(cell.name)
        self._uploads = uploads
        self.clock = Clock(now=T0)
        self.ledger = ledger
        self.keys = write_workspace(folder)
        Image.new("RGB", (32, 32), "navy").save(folder / "in.png")
        self.tmp = folder / "tmp"
        self.tmp.mkdir()

    @property
    def approver(self) -> Ed25519PrivateKey:
        return self.keys[worker.APPROVER]

    def effects(self) -> list[str]:
        """What took effect outside, counted there."""
        if self.cell.kind != "broker":
            return self._uploads.of(self.cell.name)
        out = self.folder / "out" / "team"
        return sorted(p.name for p in out.glob("*.png")) if out.exists() else []

    def scratch(self) -> list[Path]:
        return list(self.tmp.glob("agentguard-call-*"))

    @contextmanager
    def guard(self) -> Iterator[tuple[Guard, Any]]:
        """The workspace as another process opens it, with its own tools."""
        guard, tool = worker.open_guard(
            self.folder, self.cell.kind, self.url, self.clock, worker.Mark(None), self.ledger
        )
        try:
            yield guard, tool
        finally:
            guard.close()

    def resume(self, guard: Guard, tool: Any, who: str) -> tuple[list[Any], bool]:
        """Start the program again over the old thread; returns (messages, called anew).

        Where the old run left nothing (`durability="exit"`), the program asks from the start.
        """
        saver = worker.Saver(self.folder / "threads.db", worker.Mark(None), late=False)
        try:
            with worker.in_job(guard, self.folder, asked=self.cell.asked) as (job, asset):
                graph = worker.build(
                    guard, self.cell.kind, tool, asset, saver, worker.Mark(None), who
                )
                config = job.config(thread_id=worker.THREAD)
                start = graph.get_state(config)
                new = None if start.values else {"messages": [("user", "go")]}
                state = graph.invoke(new, config, durability=self.cell.durability)
                if "__interrupt__" in state:
                    worker.approve(guard, self.approver)
                    state = graph.invoke(None, config, durability=self.cell.durability)
                assert not graph.get_state(config).next
                granted = guard.ledger.one("SELECT 1 FROM grants WHERE job = ?", job.id)
                return state["messages"], granted is not None
        finally:
            saver.conn.close()


def dangling(messages: list[Any]) -> list[str]:
    """Ids of calls that have no result, or more than one."""
    calls = [str(c["id"]) for m in messages if isinstance(m, AIMessage) for c in m.tool_calls]
    results = [m.tool_call_id for m in messages if isinstance(m, ToolMessage)]
    return [c for c in calls if results.count(c) != 1] + [r for r in results if r not in calls]


def live(guard: Guard, job: str) -> list[str]:
    """What is live of a job: rights, questions, and approvals that no claim has used (I9)."""
    rows = guard.ledger.all(
        "SELECT id, state FROM credentials WHERE job = ?1 AND state = 'live'"
        " UNION SELECT id, state FROM grants WHERE job = ?1 AND state IN ('issued', 'claimed')"
        " UNION SELECT request, state FROM approvals WHERE job = ?1 AND (state = 'pending'"
        " OR (state = 'approved' AND NOT EXISTS (SELECT 1 FROM grants"
        " WHERE grants.request = approvals.request AND claims > 0)))",
        job,
    )
    return [f"{row['id']} is {row['state']}" for row in rows]


def grant_of(guard: Guard, job: str) -> tuple[str, str]:
    """(state, request) of a job's one Grant."""
    row = guard.ledger.one("SELECT state, request FROM grants WHERE job = ?", job)
    return ("none", "") if row is None else (row["state"], row["request"])


def play(
    cell: Cell, folder: Path, uploads: Uploads, processes: Processes, ledger: str | None = None
) -> Outcome:
    """Run a cell: a process dies, others take over; returns what came of it."""
    place = Place(folder, cell, uploads, ledger)
    key = place.approver.private_bytes_raw()
    outcome = Outcome(
        cell=cell, exit_code=processes.run(worker.run, cell, folder, place.url, key, ledger)
    )
    if outcome.exit_code != -signal.SIGKILL:
        outcome.error = worker.last_words(folder)
        return outcome
    if expected(cell).at_death:
        _await_effect(place)
    outcome.at_death = len(place.effects())
    tempfile.tempdir = str(place.tmp)
    try:
        _take_over(place, outcome)
    finally:
        tempfile.tempdir = None
    outcome.effects = place.effects()
    return outcome


def _await_effect(place: Place) -> None:
    """A server counts what it got a moment after its sender died."""
    until = time.monotonic() + 5
    while not place.effects() and time.monotonic() < until:
        time.sleep(0.005)


def _take_over(place: Place, outcome: Outcome) -> None:
    broken = outcome.broken
    left = place.scratch()
    if STEPS[place.cell.step].claimed and not left:
        broken.append("a dead call left no scratch folder: was it killed?")
    place.clock.turn(seconds=LEASE_S)
    with place.guard() as (guard, tool):
        if place.scratch():
            broken.append("a scratch folder is left")
        job = guard.ledger.one("SELECT id, state, ended_by FROM jobs")
        assert job is not None
        first = job["id"]
        if (job["state"], job["ended_by"]) != ("ended", "lapsed"):
            broken.append(f"its job is {job['state']}: {job['ended_by']}")
        broken.extend(live(guard, first))
        outcome.grant, request = grant_of(guard, first)
        if place.cell.patient:
            _reconcile(place, guard, first, request, outcome)
        messages, outcome.again = place.resume(guard, tool, "second")
        outcome.answers = [m.text for m in messages if isinstance(m, ToolMessage)]
        broken.extend(f"dangling: {name}" for name in dangling(messages))
        if not place.cell.patient:
            _reconcile(place, guard, first, request, outcome)
        outcome.final = grant_of(guard, first)[0]
        after, _ = place.resume(guard, tool, "third")
        if [m.id for m in after] != [m.id for m in messages]:
            broken.append("a thread that was finished went on")
        outcome.executed = len(
            guard.ledger.all("SELECT id FROM grants WHERE state = 'executed' AND effect <> 'none'")
        )
        if guard.reconcile():
            broken.append("something is left to reconcile")
        broken.extend(
            f"{row['state']}: {row['id']}"
            for row in guard.ledger.all("SELECT * FROM jobs WHERE state <> 'ended'")
        )
        guard.verify()
    if place.scratch():
        broken.append("the second worker left a scratch folder")


def _reconcile(place: Place, guard: Guard, job: str, request: str, outcome: Outcome) -> None:
    said = dict(guard.reconcile())
    outcome.reconciled = said.pop(request, "")
    outcome.broken.extend(f"reconcile also said: {text}" for text in said.values())
    if grant_of(guard, job)[0] == "unknown":
        outcome.settled = True  # a person looks where it was sent
        happened = outcome.at_death > 0
        settle(guard.ledger, request, happened=happened, by=worker.APPROVER)


def differences(outcome: Outcome) -> list[str]:
    """Everything in which an outcome is not what it must be."""
    cell, wanted = outcome.cell, expected(outcome.cell)
    found = list(outcome.broken)
    if outcome.exit_code != -signal.SIGKILL:
        found.append(f"it was not killed: {outcome.exit_code} {outcome.error}")
    for name in ("at_death", "grant", "final", "settled"):
        if getattr(outcome, name) != getattr(wanted, name):
            found.append(f"{name} is {getattr(outcome, name)}, not {getattr(wanted, name)}")
    said = outcome.reconciled
    if bool(said) != bool(wanted.reconciled) or not said.startswith(wanted.reconciled):
        found.append(f"reconcile said {said!r}, not {wanted.reconciled!r}")
    if not outcome.answers:
        found.append("the thread says nothing of its call")
    if cell.kind == "none":
        return found
    # I8: one effect at most, and the ledger knows of each: nothing twice, nothing lost.
    if len(outcome.effects) > 1:
        found.append(f"{len(outcome.effects)} effects: {outcome.effects}")
    if outcome.executed != len(outcome.effects):
        found.append(f"{outcome.executed} executed in the ledger, {len(outcome.effects)} happened")
    if len(outcome.effects) != max(wanted.at_death, outcome.again):
        found.append(f"{len(outcome.effects)} effects, called anew: {outcome.again}")
    if outcome.again and wanted.grant == "unknown" and not cell.patient:
        found.append("it was retried blindly")
    return found
