"""I9: a job is left from any task, thread or context; what was left is nobody's job any more."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentguard.errors import JobError, LedgerUnavailable
from agentguard.jobs import job as jobs_module
from agentguard.jobs.job import Job, current_job
from agentguard.model import JobState
from tests.support import KIM, Studio

ROOT = Path(__file__).parents[3]


def job_of(studio: Studio) -> Job:
    return studio.guard.open_job("poster", requested_by=KIM)


def require_left(studio: Studio, job: Job) -> None:
    assert job.state is JobState.ENDED
    row = studio.guard.ledger.one("SELECT state FROM jobs WHERE id = ?", job.id)
    assert row is not None
    assert row["state"] == "ended"
    assert job.id not in studio.guard.jobs._held  # nothing renews its lease
    assert current_job() is None
    with pytest.raises(JobError, match="belongs to no job"):
        studio.guard.jobs.find({})


def elsewhere(work: Callable[[], Any]) -> Any:
    """Run in a context that knows nothing of this one."""
    return contextvars.Context().run(work)


# --- the shapes that frameworks close a job in ------------------------------------------------


async def test_generator_dependency_that_another_task_closes(studio: Studio) -> None:
    """FastAPI's `yield` dependencies, and pytest-asyncio's fixtures."""

    async def dependency() -> AsyncIterator[Job]:
        async with job_of(studio) as job:
            yield job

    made: Any = dependency()
    job = await asyncio.create_task(anext(made))
    assert job.state is JobState.OPEN
    with pytest.raises(StopAsyncIteration):
        await asyncio.create_task(anext(made))
    require_left(studio, job)


def test_synchronous_dependency_that_another_thread_closes(studio: Studio) -> None:
    """FastAPI enters and leaves a plain `yield` dependency on threads of a pool."""

    @contextlib.contextmanager
    def dependency() -> Iterator[Job]:
        with job_of(studio) as job:
            yield job

    made = dependency()
    job = elsewhere(made.__enter__)
    elsewhere(lambda: made.__exit__(None, None, None))
    require_left(studio, job)


async def test_exit_stack_that_another_task_closes(studio: Studio) -> None:
    stack = contextlib.AsyncExitStack()
    job = await stack.enter_async_context(job_of(studio))
    await asyncio.create_task(stack.aclose())
    require_left(studio, job)


async def test_an_error_thrown_into_it_by_another_task_is_not_replaced(studio: Studio) -> None:
    stack = contextlib.AsyncExitStack()
    job = await stack.enter_async_context(job_of(studio))
    error = ZeroDivisionError("the request failed")

    async def close() -> None:
        await stack.__aexit__(ZeroDivisionError, error, None)

    await asyncio.create_task(close())
    require_left(studio, job)
    (body,) = studio.guard.ledger.all("SELECT reason FROM jobs WHERE id = ?", job.id)
    assert body["reason"] == "failed: ZeroDivisionError"


async def test_cancelled_task_leaves_what_another_task_entered(studio: Studio) -> None:
    job = job_of(studio)
    await asyncio.create_task(job.__aenter__())
    entered = asyncio.Event()

    async def serve() -> None:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_exit(job.__aexit__)
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    require_left(studio, job)


def test_thread_leaves_what_another_thread_entered(studio: Studio) -> None:
    job = job_of(studio)
    for step in (job.__enter__, lambda: job.__exit__(None, None, None)):
        thread = threading.Thread(target=step)
        thread.start()
        thread.join(60)
    require_left(studio, job)


# --- generators that nobody closes ------------------------------------------------------------


def abandoned(studio: Studio) -> tuple[Any, Job]:
    """A generator that holds an open job, begun in another context, in a cycle of its own."""

    def holder() -> Generator[Job, Any, None]:
        me: list[Any] = []
        with job_of(studio) as job:
            me.append((yield job))
            yield job

    generator = holder()
    job = elsewhere(lambda: next(generator))
    elsewhere(lambda: generator.send(generator))  # now only the collector finds it
    return generator, job


def test_generator_closed_by_the_collector_leaves_its_job(studio: Studio) -> None:
    generator, job = abandoned(studio)
    del generator
    gc.collect()
    require_left(studio, job)


def test_generator_leaves_its_job_where_no_thread_can_be_started(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, job = abandoned(studio)

    def fails(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fails)
    generator.close()
    require_left(studio, job)


@pytest.mark.parametrize("lock", ["jobs", "ledger"])
def test_collector_that_runs_under_a_lock_of_the_guard_does_not_hang(
    studio: Studio, lock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs whenever it likes, on any thread: within `hold` and `submit`, too."""
    monkeypatch.setattr(jobs_module, "_PATIENCE_S", 0.05)
    generator, job = abandoned(studio)
    locks: dict[str, Any] = {
        "jobs": studio.guard.jobs._lock,
        "ledger": studio.guard.ledger.storage._lock,
    }
    with locks[lock]:
        del generator
        gc.collect()  # the thread waits for the lock
        (leaving,) = (t for t in threading.enumerate() if t.name == "agentguard-leaving")
    leaving.join(60)
    require_left(studio, job)


AT_EXIT = """
import sys
from agentguard import Guard

guard = Guard.from_config(sys.argv[1])

def holder():
    with guard.open_job("poster", requested_by="kim@acme.example") as job:
        yield job

generator = holder()
next(generator)
"""


def test_generator_that_outlives_the_program_does_not_keep_it_from_ending(studio: Studio) -> None:
    code = [sys.executable, "-c", AT_EXIT, str(studio.folder / "agentguard.toml")]
    done = subprocess.run(code, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- which job a context is in afterwards -----------------------------------------------------


def test_leaving_elsewhere_keeps_the_job_of_that_context(studio: Studio) -> None:
    first, second = job_of(studio), job_of(studio)
    elsewhere(first.__enter__)
    with second:
        first.__exit__(None, None, None)
        assert current_job() is second
        assert studio.guard.jobs.find({}) is second
    assert current_job() is None
    require_left(studio, first)


def test_left_job_is_not_the_job_of_the_context_that_entered_it(studio: Studio) -> None:
    context = contextvars.copy_context()
    job = context.run(job_of(studio).__enter__)
    assert context.run(current_job) is job
    job.__exit__(None, None, None)
    assert context.run(current_job) is None
    with pytest.raises(JobError, match=f"belongs to no job: {job.id} .* was left.*rejoin_job"):
        context.run(studio.guard.jobs.find, {})
    with job_of(studio) as other:  # and it does not stand in the way of another one
        inherited = contextvars.copy_context()
        context.run(other.__enter__)
        assert context.run(studio.guard.jobs.find, {}) is other
        assert inherited.run(studio.guard.jobs.find, {}) is other


def test_jobs_left_out_of_order(studio: Studio) -> None:
    outer, inner = job_of(studio), job_of(studio)
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    assert current_job() is inner
    assert studio.guard.jobs.find({}) is inner
    inner.__exit__(None, None, None)
    require_left(studio, inner)
    require_left(studio, outer)


def test_a_task_that_outlives_its_job_does_not_fall_into_the_outer_one(studio: Studio) -> None:
    with job_of(studio) as outer:
        with job_of(studio):
            task = contextvars.copy_context()
        assert current_job() is outer
        assert task.run(current_job) is None
        with pytest.raises(JobError, match="was left"):
            task.run(studio.guard.jobs.find, {})


def test_leaving_twice_from_two_contexts(studio: Studio) -> None:
    job = job_of(studio)
    with job:
        elsewhere(lambda: job.__exit__(None, None, None))
        before = studio.guard.ledger.all("SELECT * FROM records")
        assert current_job() is None
    assert studio.guard.ledger.all("SELECT * FROM records") == before
    require_left(studio, job)


def test_a_job_entered_twice_is_left_once(studio: Studio) -> None:
    with job_of(studio) as outer:
        with job_of(studio) as job, job:
            assert current_job() is job
        assert job.state is JobState.ENDED
        assert current_job() is outer


async def test_leaving_elsewhere_with_the_ledger_away_still_stops_the_renewal(
    studio: Studio,
) -> None:
    job = await asyncio.create_task(job_of(studio).__aenter__())
    studio.guard.ledger.storage.close()
    with pytest.raises(LedgerUnavailable):
        await asyncio.create_task(job.__aexit__(None, None, None))
    assert job.id not in studio.guard.jobs._held
