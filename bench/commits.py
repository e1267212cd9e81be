"""Commits of the ledger per call, and what was forced to the disk for them.

Commits are counted at the ledger's connection. What is forced to the disk (fsync, fdatasync) is
counted by `strace` where it is installed: in SQLite a durable commit is one, others are none, and
a checkpoint signed beside the ledger is one more. Calls run one after the other, so nothing shares
a commit: it is the most there is.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver

from agentguard import _connections
from agentguard.langgraph import protect
from bench.asking import asking_graph, by_person
from bench.figures import Figure
from bench.rounds import Scale
from bench.studio import GO, KIM, Studio, graph, note, publish, says, studio, succeeded

_BEGIN, _END = "mark-begin", "mark-end"
CASES = {
    "permitted": "a permitted call without an effect outside",
    "eight": "8 such calls in one message",
    "export": "a permitted export",
    "asked": "an export that is asked about and approved",
}


def measure(scale: Scale) -> list[Figure]:
    """Run each case in a process of its own, traced if that is possible."""
    figures = []
    for case, what in CASES.items():
        scale.say(f"commits: {what}")
        count = scale.of(20, 4)
        found, forced = _traced(case, count)
        commits, durable = found["commits"] / count, found["durable"] / count
        detail = f"{durable:g} durable"
        if forced is None:
            detail += "; no strace here, so what went to the disk was not counted"
        figures.append(
            Figure(subject="commits", what=f"{what}: commits", value=commits, unit="", detail=detail)
        )
        if forced is not None:
            rest = ", ".join(f"{name} {n / count:g}" for name, n in sorted(forced.items()))
            total = sum(forced.values()) / count
            figures.append(
                Figure(subject="commits", what=f"{what}: fsyncs", value=total, unit="", detail=rest)
            )
    return figures


def _traced(case: str, count: int) -> tuple[dict[str, int], Counter[str] | None]:
    """What the process counted, and fsyncs by file; None without strace."""
    command = [sys.executable, "-m", "bench.commits", case, str(count)]
    with tempfile.TemporaryDirectory(prefix="agentguard-bench-") as folder:
        trace = Path(folder) / "trace"
        strace = shutil.which("strace")
        if strace is not None:
            with_strace = [strace, "-f", "-y", "-e", "trace=fsync,fdatasync", "-o", str(trace)]
            done = subprocess.run([*with_strace, *command], capture_output=True, text=True)
            if done.returncode == 0 and trace.exists():
                return json.loads(done.stdout), _between_marks(trace.read_text())
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return json.loads(done.stdout), None


def _between_marks(trace: str) -> Counter[str]:
    forced: Counter[str] = Counter()
    inside = False
    for line in trace.splitlines():
        found = re.search(r"f(?:data)?sync\(\d+<([^>]*)>", line)
        name = Path(found[1]).name if found else ""
        if name in (_BEGIN, _END):
            inside = name == _BEGIN
        elif inside and name:
            forced[name] += 1
    return forced


class _Counting(sqlite3.Connection):
    """Counts the commits of every connection of the ledger."""

    counted: Counter[str] = Counter()
    _full = False

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql.startswith("PRAGMA synchronous"):
            self._full = sql.endswith("FULL")
        if sql.startswith("COMMIT"):
            self.counted["commits"] += 1
            self.counted["durable"] += self._full
        return super().execute(sql, *parameters)


class _Sqlite3:
    """The module `sqlite3` as the ledger sees it here: its connections count."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sqlite3, name)

    def connect(self, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        return sqlite3.connect(*args, factory=_Counting, **kwargs)


def _runs(place: Studio, case: str, asset: str) -> Callable[[Any], object]:
    if case == "asked":
        compiled = asking_graph(place, asset).compile(checkpointer=InMemorySaver())
        ask = by_person(place)
        return lambda config: ask(compiled, config)
    calls = 8 if case == "eight" else 1
    if case == "export":
        builder = graph([publish], lambda: says("publish", {"source": asset, "to": "archive"}))
    else:
        builder = graph([note], lambda: says("note", {"text": "a calm sea"}, calls))
    agent = "publisher" if case == "export" else "editor"
    sealed = protect(builder, place.guard, agents={"tools": agent})
    compiled = sealed.compile(checkpointer=InMemorySaver())
    return lambda config: succeeded(compiled.invoke(GO, config), calls)


def main() -> None:
    """The process that is traced; prints its commits as JSON."""
    case, count = sys.argv[1], int(sys.argv[2])
    _connections.sqlite3 = _Sqlite3()  # type: ignore[assignment]
    with studio() as place, place.guard.open_job("bench", requested_by=KIM) as job:
        run = _runs(place, case, job.import_asset(place.picture(), ["customer-data"]))
        for number in range(2):
            run(job.config(thread_id=f"w{number}"))
        _mark(place.folder / _BEGIN)
        _Counting.counted.clear()
        for number in range(count):
            run(job.config(thread_id=f"t{number}"))
        found = dict(_Counting.counted)
        _mark(place.folder / _END)
    if not found.get("commits"):
        raise RuntimeError("no commit was seen at the ledger's connection")
    print(json.dumps({"durable": 0, **found}))


def _mark(path: Path) -> None:
    """Something a trace shows."""
    with path.open("wb") as file:
        os.fsync(file.fileno())


if __name__ == "__main__":
    main()
