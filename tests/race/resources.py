"""Resources that fail for real: a locked database, a full disk, a lost folder, no descriptors."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import ToolMessage

from agentguard.ledger.storage.sqlite.connections import Connections
from agentguard.ledger.storage.sqlite.storage import SqliteStorage
from tests.race.ways_in import graph_of, make_send
from tests.support import GO, Studio, call, results, says

STEPS = ("record_decisions", "claim", "finish")
"""What a call writes to the ledger: authorize, claim, outcome."""

_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


def connections_of(studio: Studio) -> Connections:
    """The connections of a studio's SQLite ledger."""
    storage = studio.guard.ledger.storage
    assert isinstance(storage, SqliteStorage)
    return storage._connections


class Locker:
    """Another process that holds the ledger's write lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._process: subprocess.Popen[str] | None = None

    def lock(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LOCK, str(self.path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "locked\n"

    def release(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.communicate("\n")


class Space:
    """A disk with no room for anything bigger than now: the kernel refuses what goes beyond."""

    def __init__(self) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self, limit: int = 1) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, self._before[1]))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


@contextmanager
def few_descriptors(spare: int) -> Iterator[None]:
    """So many descriptors can still be opened, and no more."""
    import os

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    open_now = {int(name) for name in os.listdir("/proc/self/fd")}
    limit, free = lowest, 0
    while free < spare:
        free += limit not in open_now
        limit += 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


class Rig:
    """A job with a tool whose effect is outside, and what fails at which step of a call."""

    def __init__(self, studio: Studio, job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.studio, self.job, self.monkeypatch = studio, job, monkeypatch
        self.guard = studio.guard
        self.asset = job.import_asset(studio.picture(), ["brand"])
        self.send = make_send(studio)
        args = {"source": self.asset, "to": "team"}
        self.graph = graph_of(
            studio, "protect", self.send, [says(call("send", args, id="c1"), id="m1")]
        )
        studio.guard.ledger.sweep()

    def before(self, step: str, fail: Callable[[], None]) -> None:
        """Lets something fail right before a step of the next call, once."""
        ledger = self.guard.ledger
        original = getattr(ledger, step)

        def failing(*args: Any, **kwargs: Any) -> Any:
            self.monkeypatch.setattr(ledger, step, original)
            fail()
            return original(*args, **kwargs)

        self.monkeypatch.setattr(ledger, step, failing)

    def run(self, thread: str = "t", graph: Any = None) -> ToolMessage:
        config = self.job.config(thread_id=thread)
        return results((graph or self.graph).invoke(GO, config))[-1]

    def again(self) -> ToolMessage:
        """The same call once more, from the checkpoint before its tools."""
        config = self.job.config(thread_id="t")
        *_, old = [s for s in self.graph.get_state_history(config) if s.next == ("tools",)]
        return results(self.graph.invoke(None, self.job.config(old.config)))[-1]

    def effects(self) -> int:
        return self.studio.world.count("send")

    def require_refused(self, step: str, said: ToolMessage) -> None:
        """What the step that could not be written came to: nothing ran, or nobody knows yet."""
        assert said.status == "error"
        assert self.effects() == (step == "finish")
        if step == "finish":
            assert "could not be recorded" in said.content
        else:
            assert "sent" not in said.content

    def require_recovered(self, step: str) -> None:
        """The resource is back: the next call works, this one goes on, and all of it verifies."""
        assert self.run("next").status == "success"
        before = self.effects()
        states = {"record_decisions": [], "claim": ["issued"], "finish": ["claimed"]}[step]
        assert sorted(self.studio.grants()) == sorted([*states, "executed"])
        if step == "finish":
            assert self.again().status == "error"  # not known yet: not done again
            self.job.renew()  # as the lease thread does
            assert self.studio.grants() == ["executed"] * 2
        assert self.again().status == "success"
        assert self.effects() == before + (step != "finish")
        assert self.studio.grants() == ["executed"] * 2
        self.guard.verify()
