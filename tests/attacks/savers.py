"""The checkpointers that a graph may run on, each in its synchronous and its asynchronous form."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from langgraph.checkpoint.memory import InMemorySaver

from tests.support.databases import threads_url

Saver = Literal["memory", "sqlite", "postgres"]
Mode = Literal["invoke", "ainvoke"]

_ready: set[str] = set()


@contextlib.contextmanager
def open_saver(saver: Saver, folder: Path, runner: asyncio.Runner | None) -> Iterator[Any]:
    """A checkpointer; asynchronous on the runner's loop if one is given."""
    if saver == "memory":
        yield InMemorySaver()
    elif runner is None:
        with _synchronous(saver, folder) as opened:
            yield opened
    else:
        entered = _asynchronous(saver, folder)
        opened = runner.run(entered.__aenter__())
        try:
            yield opened
        finally:
            runner.run(entered.__aexit__(None, None, None))


@contextlib.contextmanager
def _synchronous(saver: Saver, folder: Path) -> Iterator[Any]:
    if saver == "sqlite":
        from langgraph.checkpoint.sqlite import SqliteSaver

        with SqliteSaver.from_conn_string(str(folder / "threads.db")) as opened:
            yield opened
        return
    from langgraph.checkpoint.postgres import PostgresSaver

    url = threads_url()
    with PostgresSaver.from_conn_string(url) as opened:
        if url not in _ready:
            opened.setup()
            _ready.add(url)
        yield opened


@contextlib.asynccontextmanager
async def _asynchronous(saver: Saver, folder: Path) -> Any:
    if saver == "sqlite":
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        async with AsyncSqliteSaver.from_conn_string(str(folder / "threads.db")) as opened:
            yield opened
        return
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

    url = threads_url()
    async with AsyncPostgresSaver.from_conn_string(url) as opened:
        if url not in _ready:
            await opened.setup()
            _ready.add(url)
        yield opened


def copy_thread(way: Any, source: str, target: str) -> None:
    """Copy every checkpoint of a thread, and what its tasks wrote, to another thread's name."""
    saver, rows = way.saver, list(reversed(list(stored(way, source))))
    for row in rows:
        parent = row.parent_config
        config = {
            "configurable": {
                "thread_id": target,
                "checkpoint_ns": row.config["configurable"].get("checkpoint_ns", ""),
                "checkpoint_id": parent and parent["configurable"]["checkpoint_id"],
            }
        }
        versions = row.checkpoint["channel_versions"]
        given = (config, row.checkpoint, row.metadata, versions)
        asynchronous = way.column.mode == "ainvoke"
        at = way.wait(saver.aput(*given)) if asynchronous else saver.put(*given)
        tasks: dict[str, list[Any]] = {}
        for task, channel, value in row.pending_writes or ():
            tasks.setdefault(task, []).append((channel, value))
        for task, writes in tasks.items():
            if asynchronous:
                way.wait(saver.aput_writes(at, writes, task))
            else:
                saver.put_writes(at, writes, task)


def stored(way: Any, thread: str) -> list[Any]:
    """Every checkpoint of a thread as the checkpointer holds it, the newest first."""
    where = {"configurable": {"thread_id": thread}}
    if way.column.mode == "invoke":
        return list(way.saver.list(where))

    async def collect() -> list[Any]:
        return [one async for one in way.saver.alist(where)]

    found: list[Any] = way.wait(collect())
    return found
