"""What runs is what was decided on, defaults and all (I7)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import StructuredTool, tool
from pydantic import BaseModel, Field, field_validator, model_validator

from agentguard.errors import BindingError
from tests.support import CONFIG, LEE, OMAR, Studio, build, call, open_studio, results, says
from tests.support.bindings import Arg, Binding

NODES = {"r": ("reviewer", ["look"]), "q": ("traffic", ["queue_for_release"]),
         "x": ("publisher", ["send"])}  # fmt: skip


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    studio = open_studio(tmp_path, config=CONFIG)
    with studio.guard:
        yield studio


def bind(studio: Studio, it: Any, **meaning: Any) -> None:
    studio.guard.bind(Binding(it, stage="export", effect="opaque", **meaning))
    studio.tools["send"] = it


def run(studio: Studio, job: Any, arguments: dict[str, Any]) -> tuple[Any, Any, Any]:
    graph = build(studio, [says(call("send", arguments))], NODES)
    config = job.config(thread_id="t")
    return graph, config, graph.invoke({"messages": [("user", "go")]}, config)


def test_the_approver_sees_the_defaults(studio: Studio) -> None:
    @tool
    def send(source: str, to: str = "site", network: str = "mastodon", file_alt: str = "a picture",
             retries: int = 3) -> str:  # fmt: skip
        """Send."""
        studio.world.effects.append(("send", f"{to} {network} {file_alt} {retries}"))
        return "sent"

    bind(studio, send, assets=["source"], texts=["file_alt"], plain=["network", "retries"],
         destination=Arg("to"))  # fmt: skip
    with studio.guard.open_job("j", requested_by=LEE) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        queue = build(studio, [says(call("queue_for_release", {"asset": asset, "to": "site"}))],
                      NODES)  # fmt: skip
        queue.invoke({"messages": [("user", "go")]}, job.config(thread_id="q"))
        graph, config, state = run(studio, job, {"source": asset})
        shown = {"source": asset, "to": "site", "network": "mastodon", "file_alt": "a picture",
                 "retries": 3}  # fmt: skip
        assert state["__interrupt__"][0].value["args"] == shown
        approval = studio.pending()
        assert approval.arguments == shown
        studio.answer(approval.request, OMAR)
        state = graph.invoke(None, config)
        assert results(state)[-1].status == "success", results(state)[-1].content
    assert studio.world.effects == [("send", "site mastodon a picture 3")]


def test_a_secret_in_a_default_is_refused(studio: Studio) -> None:
    @tool
    def send(text: str, key: str = "AKIA" + "IOSFODNN7EXAMPL3", to: str = "team") -> str:
        """Send."""
        studio.world.effects.append(("send", to))
        return "sent"

    with pytest.raises(BindingError, match=r"send\.key: .* holds a secret \(AWS access key\)"):
        bind(studio, send, texts=["text"], plain=["key"], destination=Arg("to"))


class Turned(BaseModel):
    text: str
    to: str
    hour: int = 8
    tags: list[str] = []

    @field_validator("to")
    @classmethod
    def turn(cls, value: str) -> str:
        return {"team": "site"}.get(value, value)


class Before(BaseModel):
    text: str
    to: str
    hour: int = 8
    tags: list[str] = []

    @model_validator(mode="before")
    @classmethod
    def turn(cls, values: Any) -> Any:
        return {**values, "to": "site", "text": "other"}


class After(BaseModel):
    text: str
    to: str
    hour: int = 8
    tags: list[str] = []

    @model_validator(mode="after")
    def turn(self) -> After:
        self.hour = 99
        self.tags.append("#ad")
        return self


class Inner(BaseModel):
    text: str

    @field_validator("text")
    @classmethod
    def turn(cls, value: str) -> str:
        return value + "!"


@pytest.mark.parametrize("schema", [Turned, Before, After])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_validator_turns_nothing(studio: Studio, schema: Any, is_async: bool) -> None:
    def send(text: str, to: str, hour: int = 8, tags: list[str] = []) -> str:  # noqa: B006
        studio.world.effects.append(("send", to))
        return "sent"

    async def asend(text: str, to: str, hour: int = 8, tags: list[str] = []) -> str:  # noqa: B006
        return send(text, to)

    it = StructuredTool(name="send", description="Send.", args_schema=schema, func=send,
                        coroutine=asend)  # fmt: skip
    bind(studio, it, texts=["text"], plain=["hour", "tags[]"], destination=Arg("to"))
    with studio.guard.open_job("j", requested_by=LEE) as job:
        graph = build(studio, [says(call("send", {"text": "hi", "to": "team"}))], NODES)
        config = job.config(thread_id="t")
        start = {"messages": [("user", "go")]}
        if is_async:
            import asyncio

            state = asyncio.run(graph.ainvoke(start, config))
        else:
            state = graph.invoke(start, config)
        assert results(state)[-1].status == "error"
        assert "schema" in results(state)[-1].content
        assert studio.world.count("send") == 0
        assert studio.grants() == ["failed"]  # not unknown: the body was not entered


def test_a_validator_swaps_no_asset(studio: Studio) -> None:
    class Swap(BaseModel):
        sources: list[str]
        to: str

        @field_validator("sources")
        @classmethod
        def swap(cls, value: list[str]) -> list[str]:
            return [value[0]] * len(value)

    def send(sources: list[str], to: str) -> str:
        studio.world.effects.append(("send", to))
        return "sent"

    it = StructuredTool(name="send", description="Send.", args_schema=Swap, func=send)
    bind(studio, it, assets=["sources[]"], destination=Arg("to"))
    with studio.guard.open_job("j", requested_by=LEE) as job:
        two = [job.import_asset(studio.picture(f"{c}.png", c), ["brand"]) for c in ("red", "navy")]
        _, _, state = run(studio, job, {"sources": two, "to": "team"})
        assert "sources" in results(state)[-1].content
        assert studio.world.count("send") == 0
        _, _, state = run(studio, job, {"sources": [two[0], two[0]], "to": "team"})


def test_nested_texts_are_what_was_written(studio: Studio) -> None:
    class Outer(BaseModel):
        posts: list[Inner]
        to: str

    def send(posts: list[Inner], to: str) -> str:
        studio.world.effects.append(("send", to))
        return "sent"

    it = StructuredTool(name="send", description="Send.", args_schema=Outer, func=send)
    bind(studio, it, texts=["posts[].text"], destination=Arg("to"))
    with studio.guard.open_job("j", requested_by=LEE) as job:
        _, _, state = run(studio, job, {"posts": [{"text": "hi"}], "to": "team"})
        assert results(state)[-1].status == "error"
        assert studio.world.count("send") == 0


def test_what_a_factory_makes_is_said_and_runs(studio: Studio) -> None:
    class Made(BaseModel):
        prompt: str
        seed: int = Field(default_factory=lambda: 4711)

    def paint(prompt: str, seed: int) -> str:
        studio.world.effects.append(("paint", str(seed)))
        return "done"

    it = StructuredTool(name="send", description="d", args_schema=Made, func=paint)
    with pytest.raises(BindingError, match="seed"):
        bind(studio, it, texts=["prompt"], plain=["seed"], destination="site")
    studio.guard.bind(Binding(it, stage="generate", texts=["prompt"], plain=["seed"]))
    studio.tools["send"] = it
    nodes = {"g": ("painter", ["send"])}
    with studio.guard.open_job("j", requested_by=LEE) as job:
        graph = build(studio, [says(call("send", {"prompt": "sea"}))], nodes)
        state = graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
        assert results(state)[-1].status == "success", results(state)[-1].content
        row = studio.guard.ledger.one("SELECT body FROM requests")
        assert row is not None
        assert '"made_when_run":["seed"]' in row["body"]
    assert studio.world.effects == [("paint", "4711")]
