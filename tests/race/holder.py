"""A process that holds a job, runs one guarded call, and freezes in the middle of it.

It stops itself with SIGSTOP at the named place; whoever started it does what is to happen
meanwhile, and wakes it with SIGCONT. What it finds then is its only line of output.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from langchain_core.tools import tool

from agentguard.errors import JobError
from agentguard.model import Stage
from tests.race.ways_in import graph_of
from tests.support import GO, Studio, call, open_studio, results, says
from tests.support.bindings import Arg, Binding

KIM = "kim@acme.example"
PLACES = ("before the claim", "after the claim", "in the body", "before it is recorded")
TOOLS = {"export_asset": "publisher", "post": "publisher", "trim": "editor"}


class FileClock:
    """The ledger's time in a file, so that two processes turn it together."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> int:
        return int(self.path.read_text("ascii"))

    @property
    def now(self) -> int:
        return self()

    def turn(self, *, seconds: float) -> None:
        now = self() + int(seconds * 1000)
        new = self.path.with_suffix(".new")
        new.write_text(str(now), "ascii")
        new.replace(self.path)


def bind(studio: Studio, freeze: Any) -> None:
    """Two more tools, with an opaque effect outside and with none; effects are files."""
    effects = studio.folder / "effects"
    effects.mkdir(exist_ok=True)

    @tool
    def post(source: str, to: str) -> str:
        """Send a picture by the developer's own code."""
        freeze("in the body")
        (effects / f"post-{os.getpid()}").touch(exist_ok=False)
        return "posted"

    @tool
    def trim(source: str, width: int, file: str = "t.png") -> str:
        """Cut a picture."""
        freeze("in the body")
        Path(file).write_bytes(Path(source).read_bytes())
        (effects / f"trim-{os.getpid()}").touch(exist_ok=False)
        return "trimmed"

    studio.tools.update(post=post, trim=trim, export_asset=studio.guard.export_tool())
    studio.guard.bind(
        Binding(post, stage="export", assets=["source"], destination=Arg("to"), effect="opaque")
    )
    studio.guard.bind(
        Binding(trim, stage="edit", assets=["source"], plain=["width"], outputs=["file"])
    )


def graph_for(studio: Studio, name: str, asset: str, id: str = "m1") -> Any:
    """A graph whose model calls one tool once; another message id is another call."""
    arguments: dict[str, dict[str, Any]] = {
        "post": {"source": asset, "to": "team"},
        "trim": {"source": asset, "width": 9},
        "export_asset": {"asset": asset, "to": "team"},
    }
    script = [says(call(name, arguments[name], id="c1"), id=id)]
    return graph_of(studio, "protect", studio.tools[name], script, agent=TOOLS[name])


class Freezing:
    """Stops this process once, at one place."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __call__(self, place: str) -> None:
        if place == self.place:
            self.place = ""
            # To this very thread: one that the process gets may run on a little before it stops.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    def install(self, studio: Studio) -> None:
        ledger, execution = studio.guard.ledger, studio.guard.enforcement.executor
        claim, finish, send = ledger.claim, ledger.finish, execution.send

        def claims(*args: Any, **kwargs: Any) -> Any:
            self("before the claim")
            obstacle = claim(*args, **kwargs)
            self("after the claim")
            return obstacle

        def finishes(*args: Any, **kwargs: Any) -> Any:
            self("before it is recorded")
            return finish(*args, **kwargs)

        ledger.claim, ledger.finish = claims, finishes  # type: ignore[method-assign]

        def sends(*args: Any, **kwargs: Any) -> Any:
            self("in the body")
            return send(*args, **kwargs)

        execution.send = sends  # type: ignore[method-assign]


def main(folder: Path, name: str, place: str) -> None:
    studio = open_studio(folder, clock=FileClock(folder / "clock"), keys={})  # type: ignore[arg-type]
    freeze = Freezing(place)
    bind(studio, freeze)
    found: dict[str, Any] = {}
    with studio.guard, studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(folder / "in.png", ["brand"])
        publisher = studio.guard.workspace.agents["publisher"]
        (folder / "job").write_text(f"{job.id} {asset}", "ascii")
        freeze.install(studio)
        state = graph_for(studio, name, asset).invoke(GO, job.config(thread_id="t"))
        found["status"] = results(state)[-1].status
        found["said"] = results(state)[-1].content
        found["renewed"] = job.renew()
        second = graph_for(studio, name, asset, "m2")
        again = second.invoke(GO, job.config(thread_id="again"))
        found["next"] = results(again)[-1].status
        found["next said"] = results(again)[-1].content
        found["live"] = [known.id for known in job._credentials.values()
                         if studio.guard.ledger.is_live(known.id)]  # fmt: skip
        job._credentials.clear()
        with contextlib.suppress(JobError):
            found["minted"] = job.credential(publisher, Stage.EXPORT).id
    found["state"] = job.state
    (folder / "found").write_text(json.dumps(found), "utf-8")


def serve() -> None:
    """For each line `folder, name, place` fork a holder; say when it froze, and when it is done."""
    for line in sys.stdin:
        folder, name, place = line.rstrip("\n").split("\t")
        pid = os.fork()
        if pid == 0:
            status = 0
            try:
                main(Path(folder), name, place)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
                status = 9
            os._exit(status)
        _, status = os.waitpid(pid, os.WUNTRACED)
        print(pid if os.WIFSTOPPED(status) else 0, flush=True)
        if os.WIFSTOPPED(status):
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
