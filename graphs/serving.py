"""The graphs on a LangGraph server (`langgraph dev`): one guard per process, one job per thread.

A server has no `with guard.open_job(...)` around a run, so the factory that the server calls opens
the thread's job when a run begins, and gives the graph its `job.config(...)`. What follows:

- Runs of one thread share a job: what the thread made, the next run can use. Reading a thread,
  updating its state, or drawing the graph enters no job.
- The person who asks is the authenticated caller, who must be one of [people]. A server without
  authentication, as `langgraph dev` is, acts for the first person in [people]; don't expose it.
- Only that person, or one of `services`, enters the thread's job. Anybody else's run, an approver's
  Approve for example, goes on outside of it: what waits asks again, and other guarded calls are
  refused. Nothing becomes an error, which would hide the thread from inboxes.
- A client's own `configurable` can't enter a job: the entry is an object of this process, and any
  value that a client puts in its place is refused.
- The job stays open until the process ends. When that happens its credentials and open questions
  die with it, and the thread's next run begins a new job without the old one's media, for whoever
  asks then: keep people out of each other's threads by the server's own authorization.
- People answer with `agentguard approvals approve`; then resume the thread. A resume value wakes
  the graph and approves nothing.

The workspace is the nearest agentguard.toml (or AGENTGUARD_CONFIG), else `demo-out/served`.
STUDIO_MODEL names a chat model, e.g. `openai:gpt-5`; without it the scripted one plays all roles.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

from langchain_core.runnables import RunnableConfig
from langgraph_sdk.runtime import ServerRuntime

from agentguard import Guard
from agentguard.errors import ConfigError, JobError
from agentguard.jobs.job import Job
from agentguard.model import JobState
from graphs.director import load_model
from graphs.studio import Graph
from graphs.workspace import make_workspace, open_guard

_log = logging.getLogger(__name__)

_lock = threading.Lock()


async def graph(
    build: Callable[..., Graph], config: RunnableConfig, runtime: ServerRuntime[None]
) -> Graph:
    """The graph for one request of a server; a run of somebody who may enters the thread's job.

    Raises:
        JobError: the run has no thread.
        LedgerUnavailable: the ledger can't be written.
    """
    return await asyncio.to_thread(_graph, build, config, runtime)


def _graph(
    build: Callable[..., Graph], config: RunnableConfig, runtime: ServerRuntime[None]
) -> Graph:
    with _lock:
        made = _built(build)
        configurable = config.get("configurable", {})
        if runtime.execution_runtime is None:
            return made
        thread = str(configurable.get("thread_id") or "")
        if not thread:
            raise JobError("a run without a thread has no job; create a thread first")
        job = _job(thread, _person(runtime))
        return made if job is None else made.with_config(job.config(thread_id=thread))


@cache
def _built(build: Callable[..., Graph]) -> Graph:
    return build(_guard(), model=load_model(os.environ.get("STUDIO_MODEL")))


@cache
def _guard() -> Guard:
    try:
        return open_guard(None)
    except ConfigError as error:
        if not str(error).startswith("no agentguard.toml"):
            raise
    folder = Path("demo-out/served")
    if not folder.exists():
        make_workspace(folder)
    return open_guard(folder / "agentguard.toml")


@cache
def _jobs() -> dict[str, Job]:
    return {}


def _job(thread: str, person: str) -> Job | None:
    """The thread's job, or a new one; None for somebody who may not enter it."""
    guard = _guard()
    known = _jobs().get(thread)
    if known is not None and person not in (known.requested_by, *guard.workspace.services):
        _log.warning("%s does not enter %s of %s", person, known.id, known.requested_by)
        return None
    if known is not None and known.state is JobState.OPEN and known.renew():
        return known
    if person not in guard.workspace.people:
        _log.warning("%s is no configured person, and opens no job", person)
        return None
    job = guard.open_job(f"thread {thread}", requested_by=person)
    _jobs()[thread] = job
    return job


def _person(runtime: ServerRuntime[None]) -> str:
    if runtime.user is not None:
        return str(runtime.user.identity)
    return next(iter(_guard().workspace.people))
