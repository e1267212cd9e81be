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
from typing import Any, ClassVar

from langgraph.checkpoint.memory import InMemorySaver

from agentguard.langgraph import protect
from agentguard.ledger.storage.sqlite import connections as _connections
from bench.asking import asking_graph, by_person
from bench.figures import Figure
from bench.rounds import Scale, Times
from bench.studio import GO, KIM, Studio, graph, note, publish, says, studio, succeeded

_MARK = "mark-"
CASES = {
    "permitted": "a permitted call without an effect outside",
    "eight": "8 such calls in one message",
    "export": "a permitted export",
    "asked": "an export that is asked about and approved",
}


def measure(scale: Scale) -> list[Figure]:
    """Run the cases in a process of their own, traced if that is possible."""
    figures = []
    scale.say("commits: a process of its own, traced")
    count = scale.of(20, 3)
    counted, forced = _traced(count)
    for case, what in CASES.items():
        commits = counted[case]["commits"] / count
        detail = f"{counted[case]['durable'] / count:g} durable"
        if forced is None:
            detail += "; no strace here, so what went to the disk was not counted"
        figures.append(
            Figure(
                subject="commits", what=f"{what}: commits", value=commits, unit="", detail=detail
            )
        )
        if forced is not None:
            files = forced[case]
            rest = ", ".join(f"{name} {n / count:g}" for name, n in sorted(files.items()))
            total = sum(files.values()) / count
            figures.append(
                Figure(subject="commits", what=f"{what}: fsyncs", value=total, unit="", detail=rest)
            )
    return figures


def _traced(count: int) -> tuple[dict[str, dict[str, int]], dict[str, Counter[str]] | None]:
    """By case: what the process counted, and fsyncs by file; None without strace."""
    command = [sys.executable, "-m", "bench.commits", str(count)]
    with tempfile.TemporaryDirectory(prefix="agentguard-bench-") as folder:
        trace = Path(folder) / "trace"
        strace = shutil.which("strace")
        if strace is not None:
            with_strace = [strace, "-f", "-y", "-e", "trace=fsync,fdatasync", "-o", str(trace)]
            done = subprocess.run([*with_strace, *command], capture_output=True, text=True)
            if done.returncode == 0 and trace.exists():
                return json.loads(done.stdout), _by_case(trace.read_text())
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return json.loads(done.stdout), None


def _by_case(trace: str) -> dict[str, Counter[str]]:
    forced: dict[str, Counter[str]] = {case: Counter() for case in CASES}
    case = ""
    for line in trace.splitlines():
        found = re.search(r"f(?:data)?sync\(\d+<([^>]*)>", line)
        name = Path(found[1]).name if found else ""
        if name.startswith(_MARK):
            case = name.removeprefix(_MARK)
        elif case and name:
            forced[case][name] += 1
    return forced


class _Counting(sqlite3.Connection):
    """Counts the commits of every connection of the ledger."""

    counted: ClassVar[Counter[str]] = Counter()
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
        return lambda config: ask(compiled, config, Times())
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
    """The process that is traced; prints its commits by case as JSON."""
    count = int(sys.argv[1])
    vars(_connections)["sqlite3"] = _Sqlite3()
    found = {}
    with studio() as place, place.guard.open_job("bench", requested_by=KIM) as job:
        asset = job.import_asset(place.picture(), ["customer-data"])
        for case in CASES:
            run = _runs(place, case, asset)
            run(job.config(thread_id=f"{case} warm"))
            _mark(place.folder / f"{_MARK}{case}")
            _Counting.counted.clear()
            for number in range(count):
                run(job.config(thread_id=f"{case} {number}"))
            counted = _Counting.counted
            found[case] = {name: counted[name] for name in ("commits", "durable")}
            if not found[case]["commits"]:
                raise RuntimeError(f"{case}: no commit was seen at the ledger's connection")
            _mark(place.folder / _MARK)
    print(json.dumps(found))


def _mark(path: Path) -> None:
    """Something a trace shows: from here on, what is forced to the disk is this case's."""
    with path.open("wb") as file:
        os.fsync(file.fileno())


if __name__ == "__main__":
    main()
