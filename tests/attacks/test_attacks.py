"""Every way round, in every column: it harms a bare graph, and a guarded one not at all."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentguard.langgraph.unguarded_runs import BELT
from tests.attacks.corpus import ATTACKS
from tests.attacks.driving import Column, Way
from tests.attacks.ground import KIM, Ground, open_ground
from tests.attacks.matrix import Attack, columns
from tests.attacks.savers import open_saver

# Opening a workspace takes long, and so does verifying a log that many have written to.
_SHARED_BY = 6

GUARDED = [
    pytest.param(one, column, id=f"{column}-{one.name}")
    for one in ATTACKS
    for column in columns(one)
]
BARE = [
    pytest.param(one, gate, id=f"{gate}-{one.name}")
    for one in ATTACKS
    for gate in one.bare
    if gate in one.gates
]


class Grounds:
    """Workspaces to attack; one serves several attacks, since opening one is what takes long."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._shared: Ground | None = None

    def take(self, one: Attack) -> Ground:
        if one.own:
            return self._open()
        if self._shared is not None and self._shared.used >= _SHARED_BY:
            self.close()
        if self._shared is None:
            self._shared = self._open()
        self._shared.used += 1
        BELT.watch(
            self._shared.guard.enforcement
        )  # which `no_guard_of_before` has it forget after each test
        return self._shared

    def give_back(self, ground: Ground) -> None:
        if ground is not self._shared:
            ground.guard.close()

    def close(self) -> None:
        if self._shared is not None:
            self._shared.guard.close()
            self._shared = None

    def _open(self) -> Ground:
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        return open_ground(folder)


@pytest.fixture(scope="module")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grounds]:
    opened = Grounds(tmp_path_factory.mktemp("grounds"))
    yield opened
    opened.close()


@contextlib.contextmanager
def opened(grounds: Grounds, one: Attack, column: Column, *, guarded: bool) -> Iterator[Way]:
    """A way, in a job of its own if it is guarded."""
    ground = grounds.take(one)
    with contextlib.ExitStack() as stack:
        stack.callback(grounds.give_back, ground)
        runner = stack.enter_context(asyncio.Runner()) if column.mode == "ainvoke" else None
        saver = stack.enter_context(open_saver(column.saver, ground.folder, runner))
        job = None
        if guarded:
            job = ground.guard.open_job("an attack", requested_by=KIM)
            job.__enter__()
        way = Way(ground, column, saver=saver, runner=runner, guarded=guarded, job=job)
        try:
            yield way
        finally:
            if way.job is not None:
                way.job.__exit__(None, None, None)


@pytest.mark.parametrize(("one", "column"), GUARDED)
def test_guarded(one: Attack, column: Column, grounds: Grounds) -> None:
    with opened(grounds, one, column, guarded=True) as way:
        one.run(way)
        assert way.harm() == []
        way.require_usable()
        assert way.harm() == []
        way.ground.guard.verify()


@pytest.mark.parametrize(("one", "gate"), BARE)
def test_bare(one: Attack, gate: str, grounds: Grounds) -> None:
    """The control: where an interrupt alone is the gate, the attack does what it is for."""
    column = Column(gate=gate, mode=one.modes[0], saver=one.savers[0])  # type: ignore[arg-type]
    harm: list[str] = []
    for _ in range(3):  # what races wins at times only, on a busy machine
        with opened(grounds, one, column, guarded=False) as way:
            one.run(way)
            harm = list(way.harm())
        if harm:
            break
    assert harm != []
