"""A process that runs a guarded graph and is killed at a step of its one call.

    python -m tests.crash.worker FOLDER URL KIND STEP DURABILITY [asked]

`FOLDER` is a workspace on disk (its configuration names the ledger), `URL` is where the developer's
uploader sends to. The process kills itself with SIGKILL: nothing gets a chance to tidy up.
"""

from __future__ import annotations

import hashlib
import http.client
import itertools
import os
import signal
import sqlite3
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.sqlite import SqliteSaver
from PIL import Image

import agentguard.langgraph.upstream
from agentguard import Guard
from agentguard.calls.asked_calls import AskedCalls, CallState
from agentguard.calls.claim import Claims
from agentguard.calls.executor import Executor
from agentguard.export.folder import Folder
from agentguard.jobs.job import Job
from agentguard.langgraph import protect
from agentguard.ledger.ledger import Ledger
from agentguard.ledger.storage.open import Tx
from agentguard.model import Verdict
from agentguard.people.answers import sign_answer
from tests.crash.cells import Cell, Kind
from tests.support import T0, Clock, State, call, says, scripted, tool_loop
from tests.support.bindings import Arg, Attempt, Binding, idempotency_key

REQUESTER = "kim@acme.example"
APPROVER = "omar@acme.example"
THREAD = "t"
_LATE_S = 0.25


def die() -> None:
    """End this process as the kernel, or a person at a shell, would."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # the signal is on its way


class Mark:
    """The step at which the process dies; tools and wrappers say where they are.

    Args:
        step: None: it lives.
        times: how often it comes there before.
    """

    def __init__(self, step: str | None, *, times: int = 0) -> None:
        self._step = step
        self._before = itertools.count(1)
        self._times = times

    def __call__(self, step: str) -> None:
        if step == self._step and next(self._before) > self._times:
            die()

    def at(self, step: str) -> bool:
        return step == self._step


class Saver(SqliteSaver):
    """A checkpointer on disk whose writes can be late, as a far one's are.

    Args:
        late: `durability="async"` goes on while a checkpoint is written; until then it is nowhere.
    """

    def __init__(self, path: Path, mark: Mark, *, late: bool) -> None:
        super().__init__(sqlite3.connect(path, check_same_thread=False))
        self.setup()
        self.late = late
        self.finished = threading.Event()
        self._mark = mark

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        self._reached()
        if (
            self.late and metadata.get("step", -1) > 1
        ):  # the input and what the model said are there
            time.sleep(_LATE_S)
        return super().put(config, checkpoint, metadata, new_versions)

    def put_writes(self, *args: Any, **kwargs: Any) -> None:
        self._reached()
        if self.late:
            time.sleep(_LATE_S)
        super().put_writes(*args, **kwargs)

    def _reached(self) -> None:
        if self.finished.is_set():
            self._mark("checkpoint.before")


# --- tools ------------------------------------------------------------------------------------


def uploader(url: str, mark: Mark, *, keyed: bool) -> BaseTool:
    """A developer's own upload to a server that remembers each one.

    Args:
        keyed: under the call's own idempotency key, by which it is found again; else under one of
            the developer's own, of which nobody else knows.
    """

    @tool
    def publish(source: str, to: str) -> str:
        """Upload a picture by the developer's own code."""
        data = Path(source).read_bytes()
        mark("body.before")
        key = idempotency_key() if keyed else key_of(data, to)
        address = urlsplit(url)
        with closing(http.client.HTTPConnection(address.hostname or "", address.port)) as server:
            server.request("PUT", address.path, body=data, headers={"Idempotency-Key": key})
            mark("body.midway")  # all of it is sent, and no answer came
            status = server.getresponse().status
        mark("body.after")
        return f"published, {status}"

    return publish


def probe(url: str) -> Callable[[Attempt], bool | None]:
    """The developer's own way to ask that server what arrived under a key."""
    address = urlsplit(url)

    def arrived(attempt: Attempt) -> bool | None:
        asked = {"Idempotency-Key": attempt.idempotency_key}
        with closing(
            http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
        ) as server:
            server.request("GET", address.path, headers=asked)
            return {200: True, 404: False}.get(server.getresponse().status)

    return arrived


def key_of(data: bytes, to: str) -> str:
    """A key of the developer's own: what goes where."""
    return hashlib.sha256(data + to.encode()).hexdigest()


def cropper(mark: Mark) -> BaseTool:
    """An edit: no effect outside, its output is a file."""

    @tool
    def crop(source: str, width: int, height: int, file: str = "c.png") -> str:
        """Crop a picture from its top left corner."""
        mark("body.before")
        with Image.open(source) as picture:
            part = picture.crop((0, 0, width, height))
        if mark.at("body.midway"):
            Path(file).write_bytes(b"\x89PNG half of it")
            die()
        part.save(file)
        mark("body.after")
        return "cropped"

    return crop


def open_guard(
    folder: Path,
    kind: Kind,
    url: str,
    clock: Callable[[], int],
    mark: Mark,
    ledger: str | None = None,
) -> tuple[Guard, Any]:
    """The guard of a workspace, and the one tool of the cell.

    Args:
        url: where the uploader sends to.
        ledger: the ledger's URL; None: the file that the configuration names.
    """
    if kind == "none":
        plain = cropper(mark)
        bindings = [Binding(plain, stage="edit", assets=["source"], plain=["width", "height"],
                            outputs=["file"])]  # fmt: skip
    elif kind == "broker":
        plain, bindings = None, []
    else:
        keyed = kind != "opaque"
        plain = uploader(url, mark, keyed=keyed)
        bindings = [Binding(plain, stage="export", assets=["source"], destination=Arg("to"),
                            effect=kind, probe=probe(url) if keyed else None)]  # fmt: skip
    with _environment("AGENTGUARD_LEDGER", ledger):
        guard = Guard.from_config(folder / "agentguard.toml", tools=bindings, clock=clock)
    return guard, plain or guard.export_tool()


@contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    if value is None:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


def wanted(kind: Kind, asset: str) -> dict[str, Any]:
    """The arguments that the model gives."""
    if kind == "none":
        return {"source": asset, "width": 8, "height": 8}
    return {"asset" if kind == "broker" else "source": asset, "to": "team"}


def build(
    guard: Guard,
    kind: Kind,
    made: BaseTool,
    asset: str,
    saver: Any,
    mark: Mark,
    who: str,
    *more: str,
) -> Any:
    """A guarded graph whose model makes one call for each asset and then says that it is done.

    Args:
        who: begins the ids of messages and calls: a model that is asked again gives new ones.
    """
    calls = [
        call(made.name, wanted(kind, one), id=f"{who}-call-{number}")
        for number, one in enumerate((asset, *more))
    ]
    answer = scripted([says(*calls, id=f"{who}-ai")])

    def model(state: State) -> dict[str, Any]:
        if any(isinstance(message, AIMessage) for message in state["messages"]):
            mark("checkpoint.after")
        said: dict[str, Any] = answer(state)
        return said

    builder = tool_loop(model, [made])
    agent = "editor" if kind == "none" else "publisher"
    return protect(builder, guard, agents={"tools": agent}).compile(checkpointer=saver)


@contextmanager
def in_job(guard: Guard, folder: Path, *, asked: bool) -> Iterator[tuple[Job, str]]:
    """A job with its picture, as each start of the program opens one."""
    with guard.open_job("poster", requested_by=REQUESTER) as job:
        yield job, job.import_asset(folder / "in.png", ["likeness" if asked else "brand"])


def approve(guard: Guard, key: Ed25519PrivateKey) -> None:
    """A person says yes to the one pending request."""
    (pending,) = guard.approvals.list()
    guard.approvals.answer(
        sign_answer(key, request=pending.request, verdict=Verdict.APPROVE, person=APPROVER,
                    group=None, at=guard.ledger.clock())
    )  # fmt: skip


def key_in(folder: Path) -> Ed25519PrivateKey:
    """The approver's key, where a test has left it."""
    return Ed25519PrivateKey.from_private_bytes((folder / "approver").read_bytes())


# --- where it dies ----------------------------------------------------------------------------


def _around(owner: Any, name: str, before: Callable[..., None] | None = None,
            after: Callable[..., None] | None = None,
            found: Callable[[Any], None] | None = None) -> None:  # fmt: skip
    original = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(*args, **kwargs)
        result = original(*args, **kwargs)
        if after is not None:
            after(*args, **kwargs)
        if found is not None:
            found(result)
        return result

    setattr(owner, name, wrapped)


def plant(cell: Cell, mark: Mark, finished: threading.Event) -> None:
    """Put the steps into the product's own functions, in this process only."""

    def step(name: str) -> Callable[..., None]:
        return lambda *_, **__: mark(name)

    def after_finish(*_: Any, **__: Any) -> None:
        mark("finish.after")
        finished.set()

    _around(Ledger, "record_decisions", step("authorize.before"), step("authorize.after"))
    _around(agentguard.langgraph.upstream, "pause", step("ask.before"))
    _around(AskedCalls, "states", found=lambda states: (
        mark("ask.woken") if CallState.PERMITTED in states else None))  # fmt: skip
    _around(Claims, "claim", step("claim.before"))
    _around(Ledger, "claim", step("claim.copies"), step("claim.after"))
    _around(Executor, "collect", step("outputs.before"))
    _around(Executor, "record", step("finish.before"))
    _around(Ledger, "finish", after=after_finish)
    _around(Ledger, "leave_job", step("leave.before"))
    inside = {"decided": "authorize.in", "granted": "grant.in", "claimed": "claim.in",
              "finished": "finish.in"}  # fmt: skip
    _around(Tx, "record", after=lambda _, kind, *__: mark(inside.get(kind, "")))
    if cell.kind == "broker":
        _around(Folder, "put", step("body.before"), step("body.after"))
        # The note and the slip lie there by then, the media does not.
        _around(os, "link", lambda _, to: mark("body.midway") if not to.endswith(".txt") else None)


def last_words(folder: Path) -> str:
    """Why a worker ended that should have been killed."""
    path = folder / "last-words"
    return path.read_text("utf-8") if path.exists() else ""


def run(cell: Cell, folder: Path, url: str, key: bytes, ledger: str | None = None) -> None:
    """Run the cell until it dies; whoever lives leaves last words.

    Args:
        key: the approver's private key.
    """
    try:
        _run(cell, folder, url, key, ledger)
    except BaseException:
        (folder / "last-words").write_text(traceback.format_exc(), "utf-8")
        raise
    (folder / "last-words").write_text(f"{cell.step} was never reached", "utf-8")


def _run(cell: Cell, folder: Path, url: str, key: bytes, ledger: str | None) -> None:
    tempfile.tempdir = str(folder / "tmp")
    mark = Mark(cell.step)
    guard, made = open_guard(folder, cell.kind, url, Clock(now=T0), mark, ledger)
    saver = Saver(folder / "threads.db", mark, late=False)
    plant(cell, mark, saver.finished)
    with in_job(guard, folder, asked=cell.asked) as (job, asset):
        graph = build(guard, cell.kind, made, asset, saver, mark, "first")
        config = job.config(thread_id=THREAD)
        saver.late = cell.durability == "async" and not cell.asked
        durability = cell.durability
        state = graph.invoke({"messages": [("user", "go")]}, config, durability=durability)
        if cell.asked:
            assert "__interrupt__" in state, state["messages"][-1].content
            mark("ask.paused")
            approve(guard, Ed25519PrivateKey.from_private_bytes(key))
            mark("ask.answered")
            saver.late = cell.durability == "async"
            graph.invoke(None, config, durability=durability)


def main(folder: str, url: str, kind: Any, step: str, durability: Any, *asked: str) -> None:
    cell = Cell(step=step, kind=kind, durability=durability, asked=bool(asked))
    run(cell, Path(folder), url, bytes.fromhex(os.environ["APPROVER_KEY"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
