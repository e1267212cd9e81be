"""Media inside messages goes around every tool: the guard takes it in and shows the model ids."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from agentguard.langgraph import GuardMiddleware
from tests.support import KIM, OMAR, Studio


class Listening(GenericFakeChatModel):
    """Remembers what it was shown."""

    heard: list[Any] = []  # noqa: RUF012  a pydantic field

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        self.heard.extend(messages)
        return super()._generate(messages, *args, **kwargs)


def run(studio: Studio, message: HumanMessage, answer: AIMessage) -> tuple[Listening, Any]:
    model = Listening(messages=iter([answer]), heard=[])
    agent = create_agent(
        model,
        studio.guard.tools([studio.tools["look"]]),
        middleware=[GuardMiddleware(studio.guard, agent="reviewer")],
        checkpointer=InMemorySaver(),
    )
    with studio.guard.open_job("look", requested_by=KIM) as job:
        state = agent.invoke({"messages": [message]}, job.config(thread_id="t"))
    return model, state


@pytest.mark.parametrize("shape", ["v1", "openai", "anthropic"])
def test_S33_a_picture_in_a_human_message_is_unclassified(studio: Studio, shape: str) -> None:
    data = base64.b64encode(studio.picture().read_bytes()).decode()
    blocks: dict[str, dict[str, Any]] = {
        "v1": {"type": "image", "base64": data, "mime_type": "image/png"},
        "openai": {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        "anthropic": {"type": "image", "source": {"type": "base64", "data": data}},
    }
    message = HumanMessage([{"type": "text", "text": "what is this?"}, blocks[shape]])
    model, _ = run(studio, message, AIMessage("a square"))
    heard = json.dumps([m.content for m in model.heard])
    assert data not in heard
    assert "asset-" in heard
    assert studio.labels() == [["unclassified"]]


def test_a_picture_that_the_provider_made_is_taken_in(studio: Studio) -> None:
    data = base64.b64encode(studio.picture().read_bytes()).decode()
    made = AIMessage([{"type": "image_generation_call", "result": data}])
    _, state = run(studio, HumanMessage("paint"), made)
    assert data not in json.dumps(state["messages"][-1].content)
    assert "asset-" in json.dumps(state["messages"][-1].content)
    assert studio.labels() == [["generated"]]


def test_I3_a_url_in_a_message_is_never_opened(studio: Studio) -> None:
    block = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}}
    model, _ = run(studio, HumanMessage([block]), AIMessage("nothing"))
    assert "never opened" in json.dumps([m.content for m in model.heard])
    assert studio.labels() == []


def test_the_same_picture_is_taken_in_once(studio: Studio) -> None:
    data = base64.b64encode(studio.picture().read_bytes()).decode()
    message = HumanMessage([{"type": "image", "base64": data, "mime_type": "image/png"}])
    run(studio, message, AIMessage("one"))
    before = studio.guard.ledger.storage.tree_size()
    with studio.guard.open_job("again", requested_by=KIM) as job:
        raw = base64.b64decode(data)
        names = {
            studio.guard.enforcement.importer.take_in(
                raw, ["unclassified"], by=KIM, job=job.id, name="x"
            )
            for _ in range(3)
        }
    assert len(names) == 1
    after = studio.guard.ledger.storage.tree_size()
    assert after - before == 3  # opened, registered once, ended


def test_a_picture_in_a_message_does_not_raise_other_jobs_assets(studio: Studio) -> None:
    with studio.guard.open_job("A", requested_by=KIM) as first:
        logo = first.import_asset(studio.picture(), ["brand"])
    with studio.guard.open_job("B", requested_by=OMAR) as second:
        data = (studio.folder / "in.png").read_bytes()
        again = studio.guard.enforcement.importer.take_in(
            data, (), by=OMAR, job=second.id, name="posted"
        )
    assert again == logo
    (row,) = studio.guard.ledger.all("SELECT labels FROM assets")
    assert row["labels"] == '["brand"]'
    people = studio.guard.ledger.all("SELECT person FROM contributors")
    assert [person["person"] for person in people] == [KIM]
