"""Every kind of tool runs through the gate: what it gets, what the model can't forge."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool, tool
from langgraph.prebuilt import InjectedState, InjectedStore, ToolRuntime
from langgraph.store.memory import InMemoryStore
from pydantic import BaseModel, Field, field_validator

from agentguard.langgraph import protect
from tests.support import KIM, Studio, call, results, says, tool_loop
from tests.support.bindings import Binding


def bind(studio: Studio, worker: BaseTool, **meaning: Any) -> None:
    """Declare a tool, of the edit stage if nothing else is said."""
    studio.guard.bind(Binding(worker, **{"stage": "edit", **meaning}))


def graph_of(studio: Studio, worker: BaseTool, script: list[Any], **meaning: Any) -> Any:
    """A graph of one editor with one tool, bound and protected, with a store."""
    if worker.name not in studio.guard.bound:
        bind(studio, worker, **meaning)
    builder = tool_loop(script, [worker])
    store = InMemoryStore()
    store.put(("notes",), "n", {"text": "from the store"})
    return protect(builder, studio.guard, agents={"tools": "editor"}).compile(store=store)


def run(
    studio: Studio, worker: BaseTool, *args: dict[str, Any], **meaning: Any
) -> list[ToolMessage]:
    """The answers to calls of one tool; `ASSET` in arguments is an asset of the job."""
    bind(studio, worker, **meaning)
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        given = json.loads(json.dumps(args).replace("ASSET", asset))
        script = [says(call(worker.name, each, id=f"c{n}")) for n, each in enumerate(given)]
        graph = graph_of(studio, worker, script)
        return results(graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="t")))


async def test_injected_arguments_are_injected_and_never_the_models(studio: Studio) -> None:
    got: list[dict[str, Any]] = []

    @tool
    def remember(
        size: int,
        state: Annotated[dict[str, Any], InjectedState],
        store: Annotated[Any, InjectedStore()],
        call_id: Annotated[str, InjectedToolCallId],
        runtime: ToolRuntime,
    ) -> str:
        """Remember."""
        got.append({"size": size, "messages": len(state["messages"]), "call_id": call_id,
                    "note": store.get(("notes",), "n").value["text"],
                    "runtime": runtime.tool_call_id})  # fmt: skip
        return "remembered"

    forged = {
        "state": {"messages": ["forged"] * 9},
        "store": "forged",
        "call_id": "forged",
        "runtime": {"tool_call_id": "forged"},
    }
    answers = run(studio, remember, {"size": 1}, {"size": 2, **forged}, plain=["size"])
    assert got[0] == {
        "size": 1, "messages": 2, "call_id": "c0", "note": "from the store", "runtime": "c0",
    }  # fmt: skip
    assert answers[0].content == "remembered"
    assert "forged" not in str(got)


@pytest.mark.parametrize(
    "name", ["config", "run_manager", "callbacks", "kwargs", "hidden", "given"]
)
def test_a_name_that_no_schema_has_never_reaches_a_tool(studio: Studio, name: str) -> None:
    got: list[dict[str, Any]] = []

    def call_tool(hidden: str = "", **given: Any) -> str:
        got.append({"hidden": hidden, **given})
        return "done"

    worker = StructuredTool(
        name="mcp",
        description="As an MCP server's.",
        args_schema={"type": "object", "properties": {"size": {"type": "integer"}}},
        func=call_tool,
    )
    answers = run(studio, worker, {"size": 1}, {"size": 1, name: "forged"}, plain=["size"])
    assert got == [{"hidden": "", "size": 1}]
    assert [answer.status for answer in answers] == ["success", "error"]


class Framed(BaseModel):
    source: str
    marks: set[str] = set()
    seed: int = Field(default_factory=lambda: 7)

    @field_validator("source")
    @classmethod
    def is_here(cls, value: str) -> str:
        if not Path(value).is_file():
            raise ValueError("no such file")
        return value


class Frame(BaseTool):
    """A tool class with its own `_run`."""

    name: str = "frame"
    description: str = "Frame a picture."
    args_schema: Any = Framed
    seen: list[Any] = Field(default_factory=list)

    def _run(self, source: str, marks: set[str], seed: int, run_manager: Any = None) -> str:
        self.seen.append((Path(source).name, sorted(marks), seed, run_manager is not None))
        return "framed"


class Plainest(BaseTool):
    """A tool class without a schema."""

    name: str = "plainest"
    description: str = "Look."

    def _run(self, source: str, size: int = 3) -> str:
        return f"{Path(source).suffix} {size}"


def test_a_tool_class_gets_files_and_its_own_validators_run(studio: Studio) -> None:
    worker = Frame()
    (answer,) = run(studio, worker, {"source": "ASSET", "marks": ["b", "a"]},
                    assets=["source"], plain=["marks[]", "seed"])  # fmt: skip
    assert answer.status == "success", answer.content
    ((name, marks, seed, managed),) = worker.seen
    assert name.startswith("in-0-asset-")
    assert (marks, seed, managed) == (["a", "b"], 7, True)


def test_a_tool_class_without_a_schema_is_guarded_too(studio: Studio) -> None:
    answers = run(studio, Plainest(), {"source": "ASSET"}, {"source": "ASSET", "size": "5"},
                  {"source": "/etc/passwd"}, assets=["source"], plain=["size"])  # fmt: skip
    assert [answer.content for answer in answers[:2]] == [".png 3", ".png 5"]
    assert answers[2].status == "error"


async def test_an_async_only_tool_runs_once(studio: Studio) -> None:
    got: list[str] = []

    @tool
    async def later(source: str) -> str:
        """Later."""
        got.append(source)
        return "done"

    bind(studio, later, assets=["source"])
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        graph = graph_of(studio, later, [says(call("later", {"source": asset}))])
        config = job.config(thread_id="t")
        (answer,) = results(await graph.ainvoke({"messages": [("user", "go")]}, config))
    assert (answer.content, len(got)) == ("done", 1)
    assert studio.grants() == ["executed"]


def _bytes_tool(got: list[Any]) -> BaseTool:
    @tool
    def measure(source: bytes) -> str:
        """Measure."""
        got.append(source)
        return "measured"

    return measure


def _data_url_tool(got: list[Any]) -> BaseTool:
    @tool
    def measure(source: str) -> str:
        """Measure."""
        got.append(source.encode())
        return "measured"

    return measure


@pytest.mark.parametrize(
    ("make", "form", "start"),
    [
        (_bytes_tool, "bytes", b"\x89PNG"),
        (_data_url_tool, "data-url", b"data:image/png;base64,iVB"),
    ],
)
def test_assets_come_as_bytes_or_data_urls_too(
    studio: Studio, make: Callable[[list[Any]], BaseTool], form: Any, start: bytes
) -> None:
    got: list[Any] = []
    (answer,) = run(studio, make(got), {"source": "ASSET"}, assets={"source": form})
    assert answer.content == "measured"
    assert got[0].startswith(start)


def test_nested_assets_come_as_files(studio: Studio) -> None:
    class Clip(BaseModel):
        source: str
        start: float = 0.0

    class Film(BaseModel):
        clips: list[Clip]
        logo: str | None = None

    got: list[Any] = []

    def join(clips: list[Clip], logo: str | None = None) -> str:
        got.extend((Path(clip.source).is_file(), clip.start) for clip in clips)
        return "joined"

    worker = StructuredTool.from_function(join, description="Join.", args_schema=Film)
    answers = run(
        studio,
        worker,
        {"clips": [{"source": "ASSET"}, {"source": "ASSET", "start": 2}], "logo": None},
        {"clips": [{"source": "/etc/passwd"}]},
        {"clips": [{"source": "ASSET", "evil": "/etc/passwd"}]},
        assets=["clips[].source", "logo"],
        plain=["clips[].start"],
    )
    assert got == [(True, 0.0), (True, 2.0)]
    assert [answer.status for answer in answers] == ["success", "error", "error"]
