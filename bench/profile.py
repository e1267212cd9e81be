"""Where a permitted call's time goes, part by part, next to the same call unguarded."""

from __future__ import annotations

import functools
import importlib
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.sqlite import SqliteSaver

from agentguard.jobs.job import Job
from agentguard.langgraph import protect
from bench.asking import (
    approve_call,
    asking_graph,
    by_payload,
    by_person,
    sensitive_job,
    stock,
)  # fmt: skip
from bench.figures import Figure
from bench.rounds import Scale, Times
from bench.studio import (
    GO,
    Studio,
    graph,
    note,
    outside,
    says,
    studio,
    succeeded,
    unbound,
)  # fmt: skip

WHOLE = {"profile": "the whole run, permitted", "profile-asked": "the whole run, asked"}
_ALL = "all of it"
REST = "LangGraph and LangChain, and waiting for their saver"
SAVER = "the saver, on threads of its own"
WRITER = "the ledger's writer, on a thread of its own"
PARTS: dict[str, tuple[str, ...]] = {
    "reading the call: arguments, texts, secrets": (
        "agentguard.calls.request:build_request",
        "agentguard.bindings.bound:Bound.freeze",
    ),
    "facts for the decision": ("agentguard.calls.facts:gather_facts",),
    "deciding (Cedar)": ("agentguard.policy.decide:decide",),
    "ledger: reads": (
        "agentguard.ledger.ledger:_Snapshot.one",
        "agentguard.ledger.ledger:_Snapshot.all",
    ),
    "ledger: waiting for commits": (
        "agentguard.ledger.ledger:Ledger.record_decisions",
        "agentguard.ledger.ledger:Ledger.claim",
        "agentguard.ledger.ledger:Ledger.finish",
        "agentguard.ledger.ledger:Ledger.answer",
    ),
    "files: the private folder": (
        "agentguard.content.scratch:Scratch.__init__",
        "agentguard.content.scratch:Scratch.close",
        "agentguard.content.scratch:Scratch.input",
        "agentguard.content.scratch:Scratch.take",
    ),
    "the rest of the guard": (
        "agentguard.calls.authorize:Authorizer.authorize",
        "agentguard.calls.asked_calls:AskedCalls.state_now",
        "agentguard.people.approvals:Approvals.answer",
        "agentguard.calls.claim:Claims.claim",
        "agentguard.calls.executor:Executor.collect",
        "agentguard.calls.executor:Executor.record",
        "agentguard.langgraph.invocation:ToolInvoker.invocation",
        "agentguard.langgraph.invocation:ToolInvoker.unreadable",
        "agentguard.langgraph.invocation:ToolInvoker.claim",
        "agentguard.langgraph.invocation:ToolInvoker.arguments",
        "agentguard.langgraph.invocation:ToolInvoker.message",
    ),
    SAVER: (
        "langgraph.checkpoint.sqlite:SqliteSaver.put",
        "langgraph.checkpoint.sqlite:SqliteSaver.put_writes",
    ),
}
"""The functions whose own time, without that of other parts, makes up a part."""


def measure(scale: Scale) -> list[Figure]:
    """Time the parts of a permitted call, and of one that is asked about and approved."""
    rounds = scale.of(max(scale.rounds, 100), 5)
    figures = []
    with (
        studio() as place,
        SqliteSaver.from_conn_string(str(place.folder / "saver.db")) as saver,
    ):
        with sensitive_job(place) as (_, asset):
            pass  # the same picture is the same asset in every job
        for subject, sides in (
            ("profile", _permitted(place, saver)),
            ("profile-asked", _asked(place, saver, asset)),
        ):
            scale.say(f"{subject}: part by part")
            with sensitive_job(place) as (job, _):
                for number in range(5):
                    for name, run in sides.items():
                        run(_config(job, name, f"{subject} {name} w{number}"))
            with _spans() as spans:
                for number in range(rounds):
                    spans.side = "between"
                    with sensitive_job(place) as (job, _):
                        for name, run in sides.items():
                            config = _config(job, name, f"{subject} {name} {number}")
                            spans.run(name, functools.partial(run, config))
            figures += _figures(subject, spans, rounds)
    return figures


def _config(job: Job, side: str, thread: str) -> RunnableConfig:
    return outside(thread) if side == "bare" else job.config(thread_id=thread)


Run = Callable[[Any], object]


def _permitted(place: Studio, saver: Any) -> dict[str, Run]:
    def say() -> Any:
        return says("note", {"text": "a calm sea"})

    plain = unbound(note)
    text = {"text": "a calm sea"}
    bare = graph([plain], lambda: says(plain.name, text)).compile(checkpointer=saver)
    sealed = protect(graph([note], say), place.guard, agents={"tools": "editor"})
    guarded = sealed.compile(checkpointer=saver)
    return {
        "bare": lambda config: succeeded(bare.invoke(GO, config), 1),
        "guarded": lambda config: succeeded(guarded.invoke(GO, config), 1),
    }


def _asked(place: Studio, saver: Any, asset: str) -> dict[str, Run]:
    bare = stock(asset, saver, "per_call")
    guarded = asking_graph(place, asset).compile(checkpointer=saver)
    by_stock, ask = by_payload(approve_call), by_person(place)
    return {
        "bare": lambda config: by_stock(bare, config, Times()),
        "guarded": lambda config: ask(guarded, config, Times()),
    }


def _figures(subject: str, spans: Spans, rounds: int) -> list[Figure]:
    bare, guarded = (spans.parts(side, rounds) for side in ("bare", "guarded"))
    figures = []
    for part, two in guarded.items():
        one, what = bare[part], WHOLE[subject] if part == _ALL else part
        detail = f"{two.cpu:.2f} ms CPU" + (f", {two.calls:.0f} times" if two.calls else "")
        if one.wall:
            detail += f"; unguarded {one.wall:.2f} ms, {one.cpu:.2f} ms CPU"
        figures.append(Figure(subject=subject, what=what, value=two.wall, unit="ms", detail=detail))
    return figures


class _Sum:
    """Own time of a part: wall and CPU in s, and how often it was entered."""

    def __init__(self, wall: float = 0.0, cpu: float = 0.0, calls: float = 0) -> None:
        self.wall, self.cpu, self.calls = wall, cpu, calls


class Spans:
    """Own time by (side, part), on every thread; what it calls of another part is that one's."""

    def __init__(self) -> None:
        self.side = ""
        self.total: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        self._sums: dict[tuple[str, str], _Sum] = defaultdict(_Sum)
        self._local = threading.local()
        self._lock = threading.Lock()

    def parts(self, side: str, rounds: int) -> dict[str, _Sum]:
        """Each part's own time per run, in ms, the whole run first."""
        wall, cpu, writer = (value * 1000 / rounds for value in self.total[side])
        own = {
            part: _Sum(found.wall * 1000 / rounds, found.cpu * 1000 / rounds, found.calls / rounds)
            for part in PARTS
            for found in [self._sums[side, part]]
        }
        # A task may run on another thread while the main one waits; a saver's wait is no part.
        rest = _Sum(
            wall - sum(each.wall for part, each in own.items() if part != SAVER),
            cpu - writer - sum(each.cpu for each in own.values()),
        )
        return {_ALL: _Sum(wall, cpu), REST: rest, **own, WRITER: _Sum(writer, writer)}

    def run(self, side: str, run: Callable[[], object]) -> None:
        """Run one side, and add up what it took."""
        self.side = side
        began = time.perf_counter(), time.process_time(), _writer_cpu()
        run()
        ended = time.perf_counter(), time.process_time(), _writer_cpu()
        for at, (before, after) in enumerate(zip(began, ended, strict=True)):
            self.total[side][at] += after - before

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What runs inside is this part's, on this thread."""
        stack: list[list[float]] = self._local.__dict__.setdefault("stack", [])
        inner = [0.0, 0.0]
        stack.append(inner)
        began = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            wall, cpu = time.perf_counter() - began[0], time.thread_time() - began[1]
            stack.pop()
            if stack:
                stack[-1][0] += wall
                stack[-1][1] += cpu
            with self._lock:
                found = self._sums[self.side, name]
                found.wall += wall - inner[0]
                found.cpu += cpu - inner[1]
                found.calls += 1


@contextmanager
def _spans() -> Iterator[Spans]:
    """Put every function of PARTS inside its part, wherever a module has taken it by name."""
    spans = Spans()
    undo: list[tuple[Any, str, Any]] = []
    try:
        for part, names in PARTS.items():
            for name in names:
                module, _, path = name.partition(":")
                owner: Any = importlib.import_module(module)
                *outer, last = path.split(".")
                for step in outer:
                    owner = getattr(owner, step)
                original = getattr(owner, last)
                inside = _inside(spans, part, original)
                holders = [owner] if outer else _holders(last, original)
                for holder in holders:
                    undo.append((holder, last, original))
                    setattr(holder, last, inside)
        yield spans
    finally:
        for holder, last, original in undo:
            setattr(holder, last, original)


def _holders(name: str, function: object) -> list[Any]:
    return [
        module
        for known, module in list(sys.modules.items())
        if known.startswith("agentguard") and getattr(module, name, None) is function
    ]


def _inside(spans: Spans, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with spans.part(part):
            return function(*args, **kwargs)

    return run


def _writer_cpu() -> float:
    """CPU time of the ledger's writer thread so far, in s; 0 where the system can't tell."""
    for thread in threading.enumerate():
        if thread.name == "agentguard-ledger" and hasattr(time, "pthread_getcpuclockid"):
            return time.clock_gettime(time.pthread_getcpuclockid(thread.ident or 0))
    return 0.0
