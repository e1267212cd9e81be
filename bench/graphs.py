"""A permitted call through the guard, next to the same call without it: `protect`, middleware.

Both sides keep a checkpoint per step in SQLite; the guarded one decides twice, claims once and
records every step in a ledger on disk. The tool does nothing (or, `crop`, crops a small picture),
so that the ratio is the worst there is: a media tool's own work makes it smaller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from agentguard.jobs.job import Job
from agentguard.langgraph import GuardMiddleware, protect
from bench.figures import Figure
from bench.rounds import Scale, Times, alternate, ratio, timing
from bench.studio import (
    GO,
    Studio,
    crop,
    graph,
    job_beside,
    note,
    outside,
    says,
    studio,
    succeeded,
    turns,
    unbound,
)  # fmt: skip

_AIMS = {1: 1.5, 8: 2.6}
_TEXT = {"text": "a calm sea"}


def measure(scale: Scale) -> list[Figure]:
    """Ratios of the medians, one run in turn with the other."""
    figures = []
    with studio() as place, job_beside(place.guard) as job:
        for calls in (1, 8):
            for name, make in (("protect", _protected), ("GuardMiddleware", _agents)):
                figures.append(_compare(scale, place, job, name, make, calls))
        for calls in (1, 8):
            for name, make in (("protect", _protected), ("GuardMiddleware", _agents)):
                figures.append(asyncio.run(_acompare(scale, place, job, name, make, calls)))
        figures.append(_cropping(scale, place, job))
    return figures


Make = Callable[[Studio, int, Any, Any], tuple[Any, Any]]


def _protected(place: Studio, calls: int, one: Any, two: Any) -> tuple[Any, Any]:
    """A bare and a protected graph, each with a saver of its own."""
    plain = unbound(note)
    bare = graph([plain], lambda: says(plain.name, _TEXT, calls)).compile(checkpointer=one)
    builder = graph([note], lambda: says("note", _TEXT, calls))
    sealed = protect(builder, place.guard, agents={"tools": "editor"})
    return bare, sealed.compile(checkpointer=two)


def _agents(place: Studio, calls: int, one: Any, two: Any) -> tuple[Any, Any]:
    """A bare `create_agent`, and one with GuardMiddleware."""
    plain = unbound(note)
    say = turns(lambda: says(plain.name, _TEXT, calls))
    bare = create_agent(say, [plain], checkpointer=one)
    guarded = create_agent(
        turns(lambda: says("note", _TEXT, calls)),
        place.guard.tools([note]),
        middleware=[GuardMiddleware(place.guard, agent="editor")],
        checkpointer=two,
    )
    return bare, guarded


def _saver(folder: Path, name: str) -> Any:
    return SqliteSaver.from_conn_string(str(folder / f"{name}.db"))


def _asaver(folder: Path, name: str) -> Any:
    return AsyncSqliteSaver.from_conn_string(str(folder / f"{name}.db"))


def _compare(scale: Scale, place: Studio, job: Job, name: str, make: Make, calls: int) -> Figure:
    what = _what(name, calls)
    scale.say(f"graphs: {what}")
    with _saver(place.folder, f"{what} 1") as one, _saver(place.folder, f"{what} 2") as two:
        sides = make(place, calls, one, two)

        def run(side: int, number: int) -> None:
            config = _configs(job, f"{what} {number}")[side]
            succeeded(sides[side].invoke(GO, config), calls)

        base, guarded = alternate(scale.rounds, lambda n: run(0, n), lambda n: run(1, n))
    return ratio("graphs", what, base, guarded, _AIMS[calls])


async def _acompare(
    scale: Scale, place: Studio, job: Job, name: str, make: Make, calls: int
) -> Figure:
    what = _what(f"{name}, async", calls)
    scale.say(f"graphs: {what}")
    folder = place.folder
    async with _asaver(folder, f"{what} 1") as one, _asaver(folder, f"{what} 2") as two:
        sides = make(place, calls, one, two)

        async def run(side: int, number: int) -> None:
            config = _configs(job, f"{what} {number}")[side]
            succeeded(await sides[side].ainvoke(GO, config), calls)

        base, guarded = Times(), Times()
        for number in range(scale.rounds // 2 + 3):
            for side, taken in enumerate((base, guarded)):
                with timing(taken if number >= 3 else Times()):
                    await run(side, number)
    return ratio("graphs", what, base, guarded)


def _cropping(scale: Scale, place: Studio, job: Job) -> Figure:
    """A tool that takes a file and makes one; unguarded it works on the same files in place."""
    what = "protect, 1 call that crops a picture"
    scale.say(f"graphs: {what}")
    picture = place.picture()
    asset = job.import_asset(picture, ["brand"])
    sizes = {"width": 64, "height": 64}
    out = str(place.folder / "crop.png")
    plain = {"source": str(picture), "file": out, **sizes}
    with _saver(place.folder, "crop 1") as one, _saver(place.folder, "crop 2") as two:
        cropper = unbound(crop)
        bare = graph([cropper], lambda: says(cropper.name, plain)).compile(checkpointer=one)
        builder = graph([crop], lambda: says("crop", {"source": asset, **sizes}))
        sealed = protect(builder, place.guard, agents={"tools": "editor"})
        sides = bare, sealed.compile(checkpointer=two)

        def run(side: int, number: int) -> None:
            config = _configs(job, f"{what} {number}")[side]
            succeeded(sides[side].invoke(GO, config), 1)

        base, guarded = alternate(scale.rounds, lambda n: run(0, n), lambda n: run(1, n))
    return ratio("graphs", what, base, guarded)


def _configs(job: Job, thread: str) -> tuple[RunnableConfig, RunnableConfig]:
    """The configs of the unguarded and the guarded side."""
    return outside(thread), job.config(thread_id=thread)


def _what(name: str, calls: int) -> str:
    return f"{name}, {calls} call{'s' * (calls > 1)} a message"
