"""One desk to call guarded tools from, and a vendor that really listens."""

from __future__ import annotations

import io
import json
import threading
import wave
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import ToolNode
from PIL import Image

from agentguard.bindings.compilation import Tool
from agentguard.jobs.job import Job
from agentguard.langgraph import protect
from tests.support import CONFIG, State, Studio, call, open_studio, results, says
from tests.support.media_files import png

SECRET = "sig-5d41402abc4b2a76"  # stands in the query of every URL that the vendor hands out


@dataclass
class Desk:
    """Guarded tools of one agent, called one at a time in one thread of a job."""

    studio: Studio
    agent: str = "painter"
    graphs: dict[str, Any] = field(default_factory=dict)

    def bind(self, *bindings: Tool) -> Desk:
        known = set(self.studio.guard.bound)
        for binding in bindings:
            self.studio.guard.bind(binding)
        agents = {"generate": "painter", "edit": "editor", "render": "renderer",
                  "review": "reviewer", "export": "publisher"}  # fmt: skip
        for name, bound in list(self.studio.guard.bound.items()):
            if name not in known:
                stage = str(bound.binding.stage)
                self.place(bound.binding.tool, agents.get(stage, self.agent))
        return self

    def place(self, tool: BaseTool, agent: str) -> None:
        """Put a bound tool within the reach of an agent."""
        builder = StateGraph(State)
        builder.add_node("tools", ToolNode([tool]))
        builder.add_edge(START, "tools")
        builder.add_edge("tools", END)
        sealed = protect(builder, self.studio.guard, agents={"tools": agent})
        self.graphs[tool.name] = sealed.compile(checkpointer=InMemorySaver())

    def ask(self, job: Job) -> None:
        """Leave a question open in a job, so that it waits when it is left."""
        self.place(self.studio.tools["publish"], "publisher")
        asset = job.import_asset(self.studio.picture("asked.png", "red"), ["licensed"])
        said = says(call("publish", {"source": asset, "to": "team"}))
        state = self.graphs["publish"].invoke({"messages": [said]}, job.config(thread_id="asked"))
        assert "__interrupt__" in state

    def act(self, job: Job, tool: str, **arguments: Any) -> ToolMessage:
        """What the model reads after one call."""
        said = says(call(tool, arguments))
        self.studio.clock.turn(seconds=0.001)  # so that what comes later is later
        state = self.graphs[tool].invoke({"messages": [said]}, job.config(thread_id="t"))
        return results(state)[-1]

    def made(self) -> list[dict[str, Any]]:
        """The assets that tools made, in order."""
        rows = self.studio.guard.ledger.all(
            "SELECT assets.*, asset_jobs.at FROM assets JOIN asset_jobs USING (sha256)"
            " WHERE how = 'made' ORDER BY asset_jobs.at, id"
        )
        return [{**dict(row), "labels": set(json.loads(row["labels"]))} for row in rows]

    def labels(self) -> set[str]:
        """The labels of what a tool made last."""
        found: set[str] = self.made()[-1]["labels"]
        return found

    def parents(self, sha256: str) -> set[str]:
        rows = self.studio.guard.ledger.all("SELECT parent FROM lineage WHERE child = ?", sha256)
        return {row["parent"] for row in rows}

    def logged(self) -> str:
        """Every record of the log, as text."""
        return "\n".join(
            row["body"] for row in self.studio.guard.ledger.all("SELECT body FROM records")
        )


@dataclass
class Vendor:
    """A vendor of long work: takes a job, says how it stands, and leaves the result at a URL."""

    base: str = ""
    place: str = ""
    polls: int = 2
    seen: list[str] = field(default_factory=list)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        self.seen.append(f"{method} {path}")
        if method == "POST":
            self.submitted.append(json.loads(body))
            made = {"request_id": f"req-{len(self.submitted):04}", "status": "IN_QUEUE",
                    "status_url": f"{self.base}/status?key={SECRET}"}  # fmt: skip
            return 200, "application/json", json.dumps(made).encode()
        if path.startswith("/requests/"):
            asked = sum(1 for line in self.seen if line == f"GET {path}")
            if asked <= self.polls:
                return 200, "application/json", b'{"status": "IN_PROGRESS"}'
            url = f"{self.base}/files/out.png?{SECRET}"
            done = {"status": "COMPLETED", "images": [{"url": url, "width": 16}]}
            return 200, "application/json", json.dumps(done).encode()
        data = self.files.get(path.partition("?")[0])
        return (200, "text/html", data) if data is not None else (404, "text/plain", b"no")


@contextmanager
def vendor(**changes: Any) -> Iterator[Vendor]:
    """A vendor on a loopback port, until the block ends."""
    made = Vendor(**changes)

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            status, kind, data = made.answer(self.command, self.path, self.rfile.read(length))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        made.place = f"127.0.0.1:{server.server_port}"
        made.base = f"http://{made.place}"
        made.files["/files/out.png"] = png("teal")
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def desk(
    folder: Path,
    *hosts: str,
    config: str = CONFIG,
    ceiling: Sequence[str] = ("brand", "licensed"),
) -> Iterator[Desk]:
    """A desk in a fresh workspace whose destination `videos` is a vendor with these hosts."""
    listed = ", ".join(f'"{host}"' for host in hosts)
    videos = (
        '\n[destinations.videos]\naudience = "vendor"\nenvironment = "draft"\n'
        f"ceiling = {list(ceiling)}\nhosts = [{listed}]\n"
    )
    studio = open_studio(folder, config=config + videos)
    try:
        yield Desk(studio)
    finally:
        studio.guard.close()


def rows(desk: Desk, sql: str, *parameters: Any) -> list[Mapping[str, Any]]:
    return [dict(row) for row in desk.studio.guard.ledger.all(sql, *parameters)]


def mp4(colour: str = "navy", frames: int = 4) -> bytes:
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        of_image: Any = av.VideoFrame.from_image  # it has no annotations
        for _ in range(frames):
            frame = of_image(Image.new("RGB", (32, 32), colour))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return data.getvalue()


def wav() -> bytes:
    data = io.BytesIO()
    with wave.open(data, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\x00\x10" * 800)
    return data.getvalue()
