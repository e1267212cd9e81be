"""Chat models that say what a test wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from pydantic import Field

from tests.support import wake


class Scripted(GenericFakeChatModel):
    """Says its messages in order, whatever it is asked; tools are bound and ignored.

    It records what a strict provider would have refused, as `tests.support.scripted` does.
    """

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        wake(messages)
        return super()._generate(messages, *args, **kwargs)

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


def saying(*messages: AIMessage) -> Scripted:
    """A model that says these messages, then that it is done."""
    return Scripted(messages=iter([*messages, AIMessage("done"), AIMessage("done")]))


def say(model: Scripted, *messages: AIMessage) -> None:
    """Have a model that exists already say these messages, then that it is done."""
    model.messages = iter([*messages, AIMessage("done"), AIMessage("done")])


def dangling(messages: Sequence[AnyMessage]) -> list[str]:
    """The ids of calls without exactly one answer: a strict provider refuses such a history."""
    asked = [c["id"] for m in messages if isinstance(m, AIMessage) for c in m.tool_calls]
    answered = [m.tool_call_id for m in messages if isinstance(m, ToolMessage)]
    return [id for id in asked if answered.count(id or "") != 1 and id is not None]


class Watching(Scripted):
    """Notes at each wake the calls that dangle, and the tools and settings it was bound to."""

    wakes: list[list[str]] = Field(default_factory=list)
    given: list[Any] = Field(default_factory=list)

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        self.given.append((list(tools), kwargs))
        return self

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        self.wakes.append(dangling(messages))
        return super()._generate(messages, *args, **kwargs)


class Listening(Scripted):
    """Remembers what it read at each wake."""

    heard: list[Any] = []  # noqa: RUF012  a pydantic field

    def __init__(self, *, heard: list[Any], **fields: Any) -> None:
        super().__init__(**fields)
        self.heard = heard  # the caller's own list: pydantic would copy it

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        self.heard.append(list(messages))
        return super()._generate(messages, *args, **kwargs)
