"""Carrying out one brief: material in, the graph to its end, people asked on the way."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage
from langgraph.checkpoint.sqlite import SqliteSaver

from agentguard import Guard
from agentguard.errors import AssetError
from agentguard.jobs.job import Job
from agentguard.people.approvals import Approval
from graphs.prompts import brief_message
from graphs.studio import Graph


@contextmanager
def threads(path: Path) -> Iterator[SqliteSaver]:
    """The checkpointer over an SQLite file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        yield SqliteSaver(connection)
    finally:
        connection.close()


def parse_material(text: str) -> tuple[Path, tuple[str, ...]]:
    """`FILE:class` or `FILE:class+class`, as given at the command line.

    Raises:
        AssetError: no class is named; unlabelled material would be refused almost everywhere.
    """
    file, colon, labels = text.rpartition(":")
    if not colon or not file or not labels or "/" in labels:
        raise AssetError(
            f"got {text!r}, expected FILE:class such as logo.png:brand or me.jpg:customer-data"
        )
    return Path(file), tuple(part.strip() for part in labels.split("+"))


def begin(
    job: Job, brief: str, material: Sequence[tuple[Path, tuple[str, ...]]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Import material into a job; returns the graph's input, and file name → asset id.

    Raises:
        AssetError: a file is no media or can't be read, or a label is unknown.
    """
    ids = {path.name: job.import_asset(path, labels) for path, labels in material}
    message = brief_message(brief, {path.name: labels for path, labels in material})
    return {"messages": [message]}, ids


def carry_out(
    graph: Graph,
    guard: Guard,
    job: Job,
    *,
    thread: str,
    input: Any,
    watch: Callable[[Mapping[str, Any]], None],
    answer: Callable[[Sequence[Approval]], bool],
) -> str | None:
    """Run a thread to its end, however often a person is asked.

    Args:
        input: what `graph.invoke` takes; None goes on where the thread waits.
        watch: is given every update of the stream.
        answer: is given what waits; returns False to leave it waiting.

    Returns:
        The last words of the agent; None if the thread was left waiting.
    """
    config = job.config(thread_id=thread)
    while True:
        for chunk in graph.stream(input, config, stream_mode="updates"):
            watch(chunk)
        pending = [one for one in guard.approvals.list() if one.job == job.id]
        if not pending:
            return last_words(graph.get_state(config).values)
        if not answer(pending):
            return None
        input = None  # the answers are in the ledger: go on


def destinations(guard: Guard) -> dict[str, list[Path]]:
    """The media in every folder that this workspace delivers to, by destination."""
    return {
        id: sorted(p for p in folder.iterdir() if p.suffix != ".txt" and p.name[0] != ".")
        for id, folder in folders(guard).items()
    }


def folders(guard: Guard) -> dict[str, Path]:
    """The folders that this workspace delivers to and that exist, by destination."""
    found = {
        one.id: Path(one.url.removeprefix("file://"))
        for one in guard.workspace.destinations.values()
        if one.url.startswith("file:")
    }
    return {id: folder for id, folder in found.items() if folder.is_dir()}


def last_words(state: Mapping[str, Any]) -> str:
    """The text of the last AI message of a state."""
    said = [m for m in state.get("messages", ()) if isinstance(m, AIMessage) and m.text]
    return said[-1].text if said else ""
