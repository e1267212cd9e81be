"""An old lease holder wakes up (I8, I9): it is fenced out, and what it did late is known."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.race.holder import PLACES, TOOLS, FileClock
from tests.race.racers import PATIENCE_S, ROOT
from tests.support import T0, Studio, open_studio, write_workspace

LEASE_S = 30


class Nursery:
    """One process that has imported everything, and forks the holders."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.race.holder"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, *words: str) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write("\t".join(words) + "\n")
        self.process.stdin.flush()
        return self.hear()

    def hear(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.process.stdin.close()  # type: ignore[union-attr]
    made.process.wait(PATIENCE_S)
    made.process.stdout.close()  # type: ignore[union-attr]


class Frozen:
    """A holder, stopped in the middle of its call; it is woken or ended however a test ends."""

    def __init__(self, nursery: Nursery, folder: Path, name: str, place: str) -> None:
        self.nursery, self.folder = nursery, folder
        self.pid = nursery.ask(str(folder), name, place)
        assert self.pid, "it ended before it froze"
        self.job, self.asset = (folder / "job").read_text("ascii").split()

    def wake(self) -> dict[str, Any]:
        assert self._end(signal.SIGCONT) == 0
        found: dict[str, Any] = json.loads((self.folder / "found").read_text("utf-8"))
        return found

    def kill(self) -> None:
        if self.pid:
            self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int:
        os.kill(self.pid, how)
        self.pid = 0
        return self.nursery.hear()


@pytest.fixture
def freeze(tmp_path: Path, nursery: Nursery) -> Iterator[Callable[[str, str], Frozen]]:
    made: list[Frozen] = []

    def start(name: str, place: str) -> Frozen:
        write_workspace(tmp_path)
        Image.new("RGB", (32, 32), "navy").save(tmp_path / "in.png")
        (tmp_path / "clock").write_text(str(T0), "ascii")
        made.append(Frozen(nursery, tmp_path, name, place))
        return made[-1]

    yield start
    for one in made:
        one.kill()


def effects(studio: Studio) -> list[str]:
    """What happened outside and inside: files at the destination and of the tools' bodies."""
    done = [path.name.split("-")[0] for path in (studio.folder / "effects").iterdir()]
    return sorted(done + ["export_asset" for _ in studio.exported("team")])


def grants(studio: Studio) -> list[tuple[str, int]]:
    rows = studio.guard.ledger.all("SELECT state, claims FROM grants ORDER BY issued_at")
    return [(row["state"], row["claims"]) for row in rows]


def late(studio: Studio) -> list[str]:
    rows = studio.guard.ledger.all(
        "SELECT json_extract(body, '$.as') AS outcome FROM records"
        " WHERE json_extract(body, '$.kind') = 'finished.late'"
    )
    return [row["outcome"] for row in rows]


@pytest.mark.parametrize("name", TOOLS)
@pytest.mark.parametrize("place", PLACES)
def test_I9_a_holder_that_wakes_after_its_lease(
    tmp_path: Path, freeze: Callable[[str, str], Frozen], name: str, place: str
) -> None:
    holder = freeze(name, place)
    clock = FileClock(tmp_path / "clock")
    clock.turn(seconds=LEASE_S)
    studio = open_studio(tmp_path, clock=clock, keys={})  # type: ignore[arg-type]
    with studio.guard:  # opening a guard sweeps
        row = studio.guard.ledger.one("SELECT state FROM jobs WHERE id = ?", holder.job)
        assert row is not None
        assert row["state"] == "ended"
        claimed = place != "before the claim"
        swept = ("failed" if name == "trim" else "unknown") if claimed else "revoked"
        assert grants(studio) == [(swept, int(claimed))]

        found = holder.wake()
        happened = effects(studio)
        assert happened == ([name] if claimed and _acts(name, place) else [])
        # It can't claim; what it did all the same is known, but not as a result of its job.
        ended = swept
        if swept == "unknown":
            ended = "executed" if happened else "failed"
        assert grants(studio) == [(ended, int(claimed))]
        assert found["status"] == ("success" if ended == "executed" else "error"), found
        assert late(studio) == (["executed"] if swept == "failed" else [])
        made = studio.guard.ledger.all("SELECT * FROM origins WHERE tool IS NOT NULL")
        assert made == []
        # Its rights are dead.
        assert found["renewed"] is False
        assert found["live"] == []
        assert "minted" not in found
        assert found["next"] == "error"
        assert "not open" in found["next said"]
        assert found["state"] == "ended"
        assert effects(studio) == happened
        studio.guard.verify()


def _acts(name: str, place: str) -> bool:
    """Whether the effect comes after the freeze and is not stopped any more.

    The guard's own export looks once more before it sends; a tool's own code can't be stopped.
    """
    return name != "export_asset" or place == "before it is recorded"
