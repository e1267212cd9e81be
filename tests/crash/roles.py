"""What other processes do in tests of leases, waiting jobs and forks. Run by `Processes`."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_core.messages import ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from agentguard.errors import JobError
from agentguard.ledger.open import wall_clock
from tests.crash import worker
from tests.crash.cells import Cell, Durability, Kind
from tests.crash.worker import REQUESTER, THREAD, Mark, Saver


def _open(folder: Path, kind: Kind, url: str, mark: Mark | None = None) -> tuple[Any, Any]:
    tempfile.tempdir = str(folder / "tmp")
    return worker.open_guard(folder, kind, url, wall_clock, mark or Mark(None))


def hold(folder: Path) -> None:
    """Open a job and do nothing in it but live."""
    guard, _ = _open(folder, "broker", "")
    guard.open_job("poster", requested_by=REQUESTER)
    (folder / "held").touch()
    time.sleep(60)


def ask_and_leave(folder: Path, durability: Durability) -> None:
    """Ask a person for an export, and leave the job as a program does that has nothing to do."""
    guard, tool = _open(folder, "broker", "")
    saver = Saver(folder / "threads.db", Mark(None), late=durability == "async")
    with worker.in_job(guard, folder, asked=True) as (job, asset):
        graph = worker.build(guard, "broker", tool, asset, saver, Mark(None), "first")
        state = graph.invoke({"messages": [("user", "go")]}, job.config(thread_id=THREAD),
                             durability=durability)  # fmt: skip
        assert "__interrupt__" in state
        (folder / "job").write_text(f"{job.id} {asset}")
    guard.close()


def rejoin(folder: Path, durability: Durability, step: str | None) -> None:
    """Re-enter the waiting job and resume its thread; say what the thread says.

    Args:
        step: where this process dies, None if it lives.
    """
    mark = Mark(step)
    guard, tool = _open(folder, "broker", "")
    name, asset = (folder / "job").read_text().split()
    try:
        job = guard.rejoin_job(name, by=REQUESTER)
    except JobError as error:
        (folder / "said").write_text(json.dumps(["refused", str(error)]))
        return
    with job:
        saver = Saver(folder / "threads.db", mark, late=False)
        cell = Cell(step=step or "", kind="broker", durability=durability)
        worker.plant(cell, mark, saver.finished)
        graph = worker.build(guard, "broker", tool, asset, saver, mark, "first")
        state = graph.invoke(None, job.config(thread_id=THREAD), durability=durability)
        said = [m.text for m in state["messages"] if isinstance(m, ToolMessage)]
        (folder / "said").write_text(json.dumps([*said, len(state.get("__interrupt__", ()))]))
    guard.close()


def upload(folder: Path, url: str, durability: Durability, times: int) -> None:
    """Upload all pictures in one message; die when one more than `times` have arrived."""
    mark = Mark("body.after", times=times)
    guard, tool = _open(folder, "opaque", url, mark)
    saver = Saver(folder / "threads.db", mark, late=durability == "async")
    with guard.open_job("poster", requested_by=REQUESTER) as job:
        assets = [job.import_asset(path, ["brand"]) for path in sorted(folder.glob("in-*.png"))]
        (folder / "assets").write_text(" ".join(assets))
        graph = worker.build(guard, "opaque", tool, assets[0], saver, mark, "first", *assets[1:])
        graph.invoke({"messages": [("user", "go")]}, job.config(thread_id=THREAD),
                     durability=durability)  # fmt: skip


def fork_and_race(folder: Path, url: str, children: int) -> None:
    """Fork with an approved call in hand; parent and children resume it at the same moment."""
    guard, tool = _open(folder, "opaque", url)
    with worker.in_job(guard, folder, asked=True) as (job, asset):
        graph = worker.build(guard, "opaque", tool, asset, InMemorySaver(), Mark(None), "first")
        config = job.config(thread_id=THREAD)
        assert "__interrupt__" in graph.invoke({"messages": [("user", "go")]}, config)
        worker.approve(guard, worker.key_in(folder))
        start = time.time() + 0.2
        busy = threading.Thread(target=lambda: [guard.ledger.sweep() for _ in range(50)])
        busy.start()  # the fork falls into the middle of reads and writes

        def work(name: str) -> None:
            time.sleep(max(0.0, start - time.time()))
            state = graph.invoke(None, config)
            said = [m.text for m in state["messages"] if isinstance(m, ToolMessage)]
            other = job.import_asset(folder / f"in-{name}.png", ["brand"])  # and it goes on
            mine = worker.build(guard, "opaque", tool, other, InMemorySaver(), Mark(None), name)
            state = mine.invoke({"messages": [("user", "go")]}, job.config(thread_id=name))
            said += [m.text for m in state["messages"] if isinstance(m, ToolMessage)]
            (folder / f"said-{name}").write_text(json.dumps(said))

        forked = [_fork(folder, lambda n=n: work(f"child{n}")) for n in range(children)]  # type: ignore[misc]
        work("parent")
        busy.join()
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in forked]
        (folder / "codes").write_text(json.dumps(codes))
    guard.close()


def _fork(folder: Path, work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 9
        try:
            work()
            code = 0
        except BaseException:
            (folder / f"error-{os.getpid()}").write_text(traceback.format_exc())
        finally:
            os._exit(code)
    return pid
