"""Many worker processes over one ledger: how many calls a second, and what one costs.

Each worker is a process with a guard of its own and a job of its own, and runs permitted calls
through a protected graph, one after the other; then the same calls unguarded. Checkpoints are kept
in memory, so that the ledger is all that the workers share.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver

from agentguard.jobs.job import Job
from agentguard.langgraph import protect
from bench.databases import databases, kept_in
from bench.figures import Figure
from bench.rounds import Scale, p
from bench.studio import (
    GO,
    graph,
    job_beside,
    note,
    open_guard,
    outside,
    says,
    succeeded,
    unbound,
    write_workspace,
)  # fmt: skip

WORKERS = (1, 2, 4, 8)


def measure(scale: Scale) -> list[Figure]:
    """Calls per second and their latency at each number of workers, on each database."""
    figures = []
    with databases(scale.say) as known:
        for database, url in known:
            for workers in (2,) if scale.quick else WORKERS:
                scale.say(f"workers: {database}, {workers}")
                with (
                    kept_in(url()),
                    tempfile.TemporaryDirectory(prefix="agentguard-bench-") as folder,
                ):
                    write_workspace(Path(folder))
                    open_guard(Path(folder)).close()  # creates the ledger
                    seconds = 0.2 if scale.quick else 2.5
                    found = _together(Path(folder), workers, seconds)
                name = f"{database}, {workers} worker{'s' * (workers > 1)}"
                figures += _figures(name, *found)
    return figures


def _together(
    folder: Path, workers: int, seconds: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What each worker found guarded, and unguarded; each phase begins when all are ready."""
    command = [sys.executable, "-m", "bench.workers", str(folder), str(seconds)]
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(workers)
    ]
    try:
        _said(started)
        _go(started)
        guarded = _said(started)
        _go(started)
        return guarded, _said(started)
    finally:
        for worker in started:
            worker.kill()
            worker.communicate()


def _said(started: Sequence[subprocess.Popen[str]]) -> list[Any]:
    """The next line of every worker.

    Raises:
        RuntimeError: one ended instead.
    """
    lines = [worker.stdout.readline() if worker.stdout else "" for worker in started]
    if not all(lines):
        raise RuntimeError("a worker ended before its time; its error is above")
    return [json.loads(line) for line in lines]


def _go(started: Sequence[subprocess.Popen[str]]) -> None:
    for worker in started:
        if worker.stdin is not None:
            worker.stdin.write("go\n")
            worker.stdin.flush()


def _figures(
    name: str, guarded: Sequence[dict[str, Any]], bare: Sequence[dict[str, Any]]
) -> list[Figure]:
    times = [ms for each in guarded for ms in each["times"]]
    plain = [ms for each in bare for ms in each["times"]]
    rate, rate_plain = (
        sum(len(each["times"]) / each["took"] for each in found) for found in (guarded, bare)
    )
    cpu = sum(each["cpu"] for each in guarded) * 1000 / len(times)
    cpu_plain = sum(each["cpu"] for each in bare) * 1000 / len(plain)
    return [
        Figure(subject="workers", what=f"{name}: permitted calls", value=rate, unit="/s",
               detail=f"unguarded {rate_plain:.0f} /s"),
        Figure(subject="workers", what=f"{name}: one call, p50", value=p(50, times), unit="ms",
               detail=f"p95 {p(95, times):.1f} ms; unguarded {p(50, plain):.1f},"
                      f" p95 {p(95, plain):.1f} ms"),
        Figure(subject="workers", what=f"{name}: CPU of a call", value=cpu, unit="ms",
               detail=f"unguarded {cpu_plain:.1f} ms"),
    ]  # fmt: skip


def main() -> None:
    """One worker: says that it is ready, runs guarded calls, then bare ones, and what they took."""
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    plain = unbound(note)
    builder = graph([plain], lambda: says(plain.name, {"text": "a calm sea"}))
    bare = builder.compile(checkpointer=InMemorySaver())
    with open_guard(folder) as guard, job_beside(guard) as job:
        builder = graph([note], lambda: says("note", {"text": "a calm sea"}))
        sealed = protect(builder, guard, agents={"tools": "editor"})
        guarded = sealed.compile(checkpointer=InMemorySaver())
        sides = {"guarded": (guarded, job), "bare": (bare, None)}
        for compiled, inside in sides.values():
            _run(compiled, inside, "warm", 0.2)
        print("null", flush=True)
        for name, (compiled, inside) in sides.items():
            if not sys.stdin.readline():
                return
            print(json.dumps(_run(compiled, inside, name, seconds)), flush=True)


def _run(compiled: Any, job: Job | None, name: str, seconds: float) -> dict[str, Any]:
    """Times of calls in ms, for so many seconds; what all took, and its CPU, in s."""
    times: list[float] = []
    cpu, first = time.process_time(), time.perf_counter()
    while time.perf_counter() - first < seconds:
        began = time.perf_counter()
        thread = f"{name}{len(times)}-{os.getpid()}"
        config = outside(thread) if job is None else job.config(thread_id=thread)
        succeeded(compiled.invoke(GO, config), 1)
        times.append((time.perf_counter() - began) * 1000)
    took = time.perf_counter() - first
    return {"times": times, "took": took, "cpu": time.process_time() - cpu}


if __name__ == "__main__":
    main()
