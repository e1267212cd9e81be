"""Media in any message of a client's input is taken in or left out, in both ways in (I4)."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode

from agentguard.langgraph import GuardMiddleware, protect
from tests.support import KIM, Studio, says, tool_loop
from tests.support.chat_models import Listening

WAYS = ("protect", "middleware")


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def heard_of(studio: Studio, way: str, sent: list[Any], *, in_job: bool = True) -> list[Any]:
    """What the model reads of a client's input, and what the state holds of it."""
    heard: list[list[Any]] = []
    if way == "middleware":
        graph: Any = create_agent(
            Listening(messages=iter([AIMessage("ok")]), heard=heard),
            studio.guard.tools([studio.tools["look"]]),
            middleware=[GuardMiddleware(studio.guard, agent="reviewer")],
            checkpointer=InMemorySaver(),
        )
    else:

        def model(state: State) -> dict[str, Any]:
            heard.append(list(state["messages"]))
            return {"messages": [AIMessage("ok")]}

        builder = tool_loop(model, [studio.tools["look"]])
        graph = protect(builder, studio.guard, agents={"tools": "reviewer"}).compile(
            checkpointer=InMemorySaver()
        )
    config: Any = {"configurable": {"thread_id": "t"}}
    if in_job:
        with studio.guard.open_job("look", requested_by=KIM) as job:
            state = graph.invoke({"messages": sent}, job.config(thread_id="t"))
    else:
        state = graph.invoke({"messages": sent}, config)
    (read,) = heard
    return [*read, *state["messages"]]


def data_of(studio: Studio) -> str:
    return base64.b64encode(studio.picture().read_bytes()).decode()


BLOCKS: dict[str, Callable[[str], Any]] = {
    "v1": lambda data: {"type": "image", "base64": data, "mime_type": "image/png"},
    "openai": lambda data: {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{data}"},
    },
    "openai, a bare string": lambda data: {
        "type": "image_url",
        "image_url": f"data:image/png;base64,{data}",
    },
    "responses": lambda data: {
        "type": "input_image",
        "image_url": f"data:image/png;base64,{data}",
    },
    "anthropic": lambda data: {"type": "image", "source": {"type": "base64", "data": data}},
    "google": lambda data: {"type": "media", "mime_type": "image/png", "data": data},
    "a provider's own": lambda data: {"type": "image_generation_call", "result": data},
    "non-standard": lambda data: {
        "type": "non_standard",
        "value": {"type": "image", "source": {"type": "base64", "data": data}},
    },
    "a data URL in a text block": lambda data: {
        "type": "text",
        "text": f"see ![it](data:image/png;base64,{data})",
    },
    "a data URL in a string": lambda data: f"see data:image/png;base64,{data} there",
    "a data URL in capitals": lambda data: f"DATA:IMAGE/PNG;charset=x;BASE64,{data}",
}
MESSAGES: dict[str, Callable[[Any], list[Any]]] = {
    "human": lambda block: [HumanMessage([block])],
    "ai": lambda block: [HumanMessage("go"), AIMessage([block])],
    "system": lambda block: [SystemMessage([block]), HumanMessage("go")],
    "chat": lambda block: [ChatMessage(content=[block], role="user")],
    "tool": lambda block: [
        HumanMessage("go"),
        says({"name": "elsewhere", "args": {}, "id": "x", "type": "tool_call"}),
        ToolMessage([block], tool_call_id="x"),
    ],
    "dict": lambda block: [{"role": "user", "content": [block]}],
    "tuple": lambda block: [("user", [block])],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_C15_media_in_any_message_is_taken_in_as_unclassified(
    studio: Studio, way: str, message: Any, block: Any
) -> None:
    data = data_of(studio)
    said = str(heard_of(studio, way, message(block(data))))
    assert data not in said
    assert said.count("class unclassified]") == 2  # read by the model, kept in the state
    assert studio.labels() == [["unclassified"]]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
@pytest.mark.parametrize(
    "block",
    [
        {"inline_data": {"data": "AAEC"}},
        {"type": "hologram", "data": "AAEC"},
        {"type": "text", "text": {"type": "image", "data": "AAEC"}},
        {"type": 7, "data": "AAEC"},
        {"type": "image_url", "image_url": {"url": "https://cdn.example/AAEC.png"}},
        {"type": "image", "file_id": "file-AAEC"},
        {"type": "image", "base64": "AAEC"},
        "data:image/svg+xml,%00AAEC",
        "data:application/pdf;base64,AAEC",
    ],
    ids=str,
)
def test_R4_what_is_neither_text_nor_media_is_left_out_with_a_sentence(
    studio: Studio, way: str, message: Any, block: Any
) -> None:
    said = str(heard_of(studio, way, message(block)))
    assert "AAEC" not in said
    assert "left out" in said
    assert studio.labels() == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", ["additional_kwargs", "response_metadata", "artifact"])
def test_C15_media_beside_the_content_is_taken_in_too(studio: Studio, way: str, place: str) -> None:
    data = data_of(studio)
    call = {"name": "elsewhere", "args": {}, "id": "x", "type": "tool_call"}
    more: Any = {place: {"audio": {"data": data}, "note": "kept"}}
    sent = [HumanMessage("go"), says(call), ToolMessage("ok", tool_call_id="x", **more)]
    said = str([message.model_dump() for message in heard_of(studio, way, sent)])
    assert data not in said
    assert "'note': 'kept'" in said
    assert studio.labels() == [["unclassified"]]


@pytest.mark.parametrize("way", WAYS)
def test_text_and_what_a_provider_wants_back_stay_as_they_are(studio: Studio, way: str) -> None:
    signature = base64.b64encode(bytes(range(256)) * 2).decode()
    sent = [
        SystemMessage("be brief"),
        HumanMessage(["hi", {"type": "text", "text": "see data:, and data:text/plain,hello"}]),
        AIMessage(
            [
                {"type": "thinking", "thinking": "hm", "signature": signature},
                {"type": "text", "text": "ok", "annotations": [{"type": "citation"}]},
            ],
            id="a1",
        ),
        HumanMessage("data: image/png, which is what I sent", id="h2"),
    ]
    read = heard_of(studio, way, sent)
    assert [m.content for m in read[:4]] == [m.content for m in sent]


@pytest.mark.parametrize("way", WAYS)
def test_without_a_job_media_is_left_out(studio: Studio, way: str) -> None:
    data = data_of(studio)
    block = {"type": "image", "base64": data, "mime_type": "image/png"}
    said = str(heard_of(studio, way, [HumanMessage([block])], in_job=False))
    assert data not in said
    assert "this run has no job" in said


def test_C15_media_that_comes_in_while_a_run_goes_on_is_not_shown_either(
    studio: Studio, tmp_path: Path
) -> None:
    data = data_of(studio)
    heard: list[Any] = []

    def model(state: State) -> dict[str, Any]:
        heard.append(str(state["messages"]))
        return {"messages": [AIMessage("ok")]}

    builder = StateGraph(State)
    builder.add_node("fetch", lambda state: {
        "messages": [HumanMessage([{"type": "image", "base64": data}])]})  # fmt: skip
    builder.add_node("model", model)
    builder.add_node("tools", ToolNode([studio.tools["look"]]))
    builder.add_edge(START, "fetch")
    builder.add_edge("fetch", "model")
    builder.add_conditional_edges("model", lambda _: END, ["tools", END])
    builder.add_edge("tools", "model")
    graph: Any = protect(builder, studio.guard, agents={"tools": "reviewer"}).compile()
    with studio.guard.open_job("look", requested_by=KIM) as job:
        graph.invoke({"messages": [("user", "go")]}, job.config())
    assert data not in heard[0]
    assert "asset-" in heard[0]
