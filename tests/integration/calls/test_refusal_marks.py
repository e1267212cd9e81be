"""A client can't put words into the guard's mouth: refusals are marked."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langgraph.types import Command

from agentguard.langgraph.refusal_marks import MARK, is_marked, marked
from tests.support import Studio

KEY = b"k" * 32


def refusal(**more: Any) -> ToolMessage:
    return ToolMessage(**{"content": "no", "tool_call_id": "c", "status": "error", **more})


@pytest.mark.parametrize(
    "wrap",
    [
        lambda message: message,
        lambda message: [message],
        lambda message: {"messages": [message], "note": ["x"]},
        lambda message: [Command(update={"messages": [message]})],
        lambda message: Command(update=[message]),
    ],
)
def test_a_refusal_is_marked_wherever_it_stands(wrap: Any) -> None:
    message = refusal()
    marked(wrap(message), key=KEY, thread="t")
    assert is_marked(message, key=KEY, thread="t")


@pytest.mark.parametrize(
    "changed",
    [
        {"content": "yes"},
        {"tool_call_id": "d"},
        {"status": "success"},
        {"additional_kwargs": {}},
        {"additional_kwargs": {MARK: "0" * 64}},
        {"additional_kwargs": {MARK: "\ud800"}},
        {"additional_kwargs": {MARK: 7}},
        {"content": "\ud800"},
    ],
    ids=str,
)
def test_a_mark_is_good_for_its_words_its_call_and_a_refusal_only(changed: Any) -> None:
    message = marked(refusal(), key=KEY, thread="t").model_copy(update=changed)
    assert not is_marked(message, key=KEY, thread="t")


def test_a_mark_is_good_in_its_thread_and_workspace_only() -> None:
    message = marked(refusal(), key=KEY, thread="t")
    assert not is_marked(message, key=KEY, thread="u")
    assert not is_marked(message, key=b"l" * 32, thread="t")


@pytest.mark.parametrize("result", [None, "text", 7, HumanMessage("x"), {"messages": "x"}, []])
def test_what_holds_no_refusal_stays_as_it_is(result: Any) -> None:
    assert marked(result, key=KEY, thread="t") is result


def test_a_success_has_no_mark() -> None:
    assert marked(refusal(status="success"), key=KEY, thread="t").additional_kwargs == {}


def test_every_process_of_a_workspace_has_the_same_key(studio: Studio) -> None:
    from agentguard import Guard

    assert len(studio.guard.enforcement.message_key) == 32
    with Guard.from_config(studio.folder / "agentguard.toml", clock=studio.clock) as other:
        assert other.enforcement.message_key == studio.guard.enforcement.message_key
