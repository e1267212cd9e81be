"""Async callers that are cancelled, wherever they are (I8): the writer lives, the ledger is true.

After the claim an effect outside is `unknown`, never `failed`; without one it failed. No scratch
folder stays.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import pytest
from langchain_core.tools import BaseTool, StructuredTool

from agentguard.ledger.storage.open import Tx
from tests.race.ways_in import WAYS, graph_of, make_send
from tests.support import GO, KIM, Studio, call, results, says
from tests.support.bindings import Arg, Binding
from tests.support.late_tools import bind_in_a_job

PATIENCE_S = 20


class Body:
    """A tool that waits inside its body until it is told to go on, if it ever is."""

    def __init__(self, studio: Studio, kind: str, outside: bool) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        self.over = threading.Event()
        self.seen: list[Path] = []

        def hold(source: str, to: str = "team") -> str:
            """Does something with a picture."""
            try:
                self.seen.append(Path(source))
                self.entered.set()
                assert self.go.wait(PATIENCE_S)
                studio.world.effects.append(("hold", to))
            finally:
                self.over.set()
            return "held"

        async def ahold(source: str, to: str = "team") -> str:
            self.seen.append(Path(source))
            self.entered.set()
            while not self.go.is_set():  # noqa: ASYNC110 - set by another thread
                await asyncio.sleep(0.005)
            studio.world.effects.append(("hold", to))
            return "held"

        self.tool: BaseTool = StructuredTool.from_function(hold, ahold if kind == "async" else None)
        self.agent = "publisher" if outside else "editor"
        bind_in_a_job(
            studio.guard,
            Binding(self.tool, stage="export", assets=["source"], destination=Arg("to"),
                    effect="opaque")
            if outside
            else Binding(self.tool, stage="edit", assets=["source"], plain=["to"])
        )  # fmt: skip


async def until(true: Callable[[], Any]) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < limit
        await asyncio.sleep(0.005)


def scratch(folder: Path) -> list[Path]:
    return list(folder.glob("agentguard-call-*"))


class Rig:
    def __init__(self, studio: Studio, job: Any, temporary: Path) -> None:
        self.studio, self.job, self.temporary = studio, job, temporary
        self.asset = job.import_asset(studio.picture(), ["brand"])
        self.config = job.config(thread_id="t")

    def graph(self, way: str, tool: BaseTool, agent: str = "publisher", **kwargs: Any) -> Any:
        args = {"source": self.asset, "to": "team"}
        script = [says(call(tool.name, args, id="c1"), id="m1")]
        return graph_of(self.studio, way, tool, script, agent=agent, **kwargs)

    async def require(self, state: str, *, effects: int = 0) -> None:
        """The Grant came to this, nothing stays, and the next call works without hands."""
        assert self.studio.grants() == [state]
        assert len(self.studio.world.effects) == effects
        assert scratch(self.temporary) == []
        assert any(thread.name == "agentguard-ledger" for thread in threading.enumerate())
        again = self.graph("protect", make_send(self.studio))
        done = await again.ainvoke(GO, self.job.config(thread_id="next"))
        assert results(done)[-1].status == "success"
        assert sorted(self.studio.grants()) == sorted([state, "executed"])
        self.studio.guard.verify()


@pytest.fixture
async def rig(studio: Studio, temporary: Path) -> AsyncIterator[Rig]:
    async with studio.guard.open_job("poster", requested_by=KIM) as job:
        yield Rig(studio, job, temporary)


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# --- in the tool's body -----------------------------------------------------------------------


Run = Callable[[], Coroutine[Any, Any, Any]]
How = Callable[[Run, Run], Coroutine[Any, Any, None]]


async def by_cancel(run: Run, inside: Run) -> None:
    task = asyncio.ensure_future(run())
    await inside()
    await cancelled(task)


async def by_timeout(run: Run, inside: Run) -> None:
    async def timed() -> None:
        async with asyncio.timeout(None) as limit:

            async def soon() -> None:
                await inside()
                limit.reschedule(asyncio.get_running_loop().time())

            told = asyncio.ensure_future(soon())
            await run()
            await told

    with pytest.raises(TimeoutError):
        await timed()


async def by_sibling(run: Run, inside: Run) -> None:
    async def fails() -> None:
        await inside()
        raise ZeroDivisionError

    async def grouped() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(run())
            group.create_task(fails())

    with pytest.raises(ExceptionGroup) as caught:
        await grouped()
    assert caught.group_contains(ZeroDivisionError)


async def by_anyio(run: Run, inside: Run) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await inside()
        group.cancel_scope.cancel()


HOWS = [by_cancel, by_timeout, by_sibling, by_anyio]


@pytest.mark.parametrize("outside", [True, False], ids=["outside", "inside"])
@pytest.mark.parametrize("how", HOWS, ids=lambda how: how.__name__)
async def test_I8_an_async_tool_cancelled_in_its_body(rig: Rig, how: How, outside: bool) -> None:
    body = Body(rig.studio, "async", outside)
    graph = rig.graph("protect", body.tool, body.agent)
    await how(lambda: graph.ainvoke(GO, rig.config), lambda: until(body.entered.is_set))
    assert rig.studio.grants() == ["unknown" if outside else "failed"]
    assert not body.seen[0].exists()
    await rig.require("unknown" if outside else "failed")


@pytest.mark.parametrize("outside", [True, False], ids=["outside", "inside"])
@pytest.mark.parametrize("how", HOWS, ids=lambda how: how.__name__)
async def test_I8_a_sync_tool_whose_caller_is_cancelled_runs_to_its_end(
    rig: Rig, how: How, outside: bool
) -> None:
    """A thread can't be cancelled: it keeps its claim and its files, and says what came of it."""
    body = Body(rig.studio, "sync", outside)
    graph = rig.graph("protect", body.tool, body.agent)
    await how(lambda: graph.ainvoke(GO, rig.config), lambda: until(body.entered.is_set))
    assert rig.studio.grants() == ["claimed"]
    assert body.seen[0].exists()
    body.go.set()
    await until(lambda: rig.studio.grants() == ["executed"])
    await until(lambda: scratch(rig.temporary) == [])
    await rig.require("executed", effects=1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_I8_a_stream_that_is_closed_in_the_body(rig: Rig, way: str, kind: str) -> None:
    """The call is not begun again, neither while it may be running nor afterwards."""
    body = Body(rig.studio, kind, True)
    graph = rig.graph(way, body.tool)
    stream = graph.astream(GO, rig.config, stream_mode="debug")
    reading = asyncio.ensure_future(_read(stream))
    await until(body.entered.is_set)
    await cancelled(reading)
    await stream.aclose()
    await until(lambda: rig.studio.grants() == [{"async": "unknown", "sync": "claimed"}[kind]])
    again = await graph.ainvoke(None, rig.config)
    assert results(again)[-1].status == "error"
    assert "outcome is not known" in results(again)[-1].content
    body.go.set()
    if kind == "sync":
        await until(lambda: rig.studio.grants() == ["executed"])
        await until(lambda: scratch(rig.temporary) == [])
    done = kind == "sync"
    await rig.require("executed" if done else "unknown", effects=int(done))


async def _read(stream: Any) -> None:
    async for _ in stream:
        pass


# --- before and after the body ----------------------------------------------------------------


class Held:
    """Holds the writer at the n-th transition that calls a function of this name."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
        self.inside, self.go = threading.Event(), threading.Event()
        ledger = rig.studio.guard.ledger
        original = getattr(ledger, method)

        def wait(tx: Tx) -> None:
            self.inside.set()
            assert self.go.wait(PATIENCE_S)

        def held(*args: Any, **kwargs: Any) -> Any:
            monkeypatch.setattr(ledger, method, original)
            ledger.storage.submit(wait)  # what follows is queued behind it
            return original(*args, **kwargs)

        monkeypatch.setattr(ledger, method, held)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("method", "state", "effects"),
    [
        ("record_decisions", "issued", 0),
        ("claim", "failed", 0),
        ("finish", "executed", 1),
    ],
)
async def test_I8_cancelled_while_the_writer_is_busy(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, way: str, method: str, state: str, effects: int
) -> None:
    """Deciding: nothing ran. Claiming: it never ran, so it failed. Finishing: it is recorded."""
    send = make_send(rig.studio)
    graph = rig.graph(way, send)
    hold = Held(rig, monkeypatch, method)
    task = asyncio.ensure_future(graph.ainvoke(GO, rig.config))
    await until(hold.inside.is_set)
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.sleep(0.02)
    hold.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: rig.studio.grants() == [state])
    assert rig.studio.world.count("send") == effects
    assert scratch(rig.temporary) == []
    # The same call again: begun late, refused, or told what came of it; never done twice.
    again = await graph.ainvoke(None, rig.config)
    said = results(again)[-1]
    assert said.status == ("error" if method == "claim" else "success")
    assert rig.studio.world.count("send") == (0 if method == "claim" else 1)
    rig.studio.guard.verify()


async def test_many_callers_cancelled_at_any_moment_leave_a_true_ledger(rig: Rig) -> None:
    """Forty runs, each cancelled a little later than the last: all the moments in between."""
    graph = rig.graph("protect", make_send(rig.studio))
    tasks = []
    for number in range(40):
        run = graph.ainvoke(GO, rig.job.config(thread_id=f"t{number}"))
        tasks.append(asyncio.ensure_future(run))
    for number, task in enumerate(tasks):
        await asyncio.sleep(0.004)
        if number % 8:
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: "claimed" not in rig.studio.grants())
    states = rig.studio.grants()
    done = states.count("executed")
    assert done >= 1  # those that nobody cancelled; how many, the machine says
    assert done <= rig.studio.world.count("send") <= done + states.count("unknown")
    assert set(states) <= {"issued", "failed", "unknown", "executed"}
    assert scratch(rig.temporary) == []
    rig.studio.guard.verify()
