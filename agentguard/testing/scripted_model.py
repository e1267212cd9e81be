"""A chat model that says what a test wrote."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolCall
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr

Named = tuple[str, Mapping[str, Any]]
"""One tool call: the tool's name and its arguments."""
Step = str | Named | Sequence[Named] | AIMessage | Callable[[list[BaseMessage]], Any]
"""One message: words, a tool call, several, the message itself, or what makes one of those."""


class ScriptedModel(BaseChatModel):
    """Says its messages in turn, whatever it is asked; for `create_agent` and graphs of your own.

    `("crop", {"source": logo})` is a message with one tool call, a list of such pairs a message
    with several, a string one of words. A function is given the messages that the model reads, and
    returns one of these: so a call can name an asset that an earlier one made.

    Args:
        steps: the messages, in their order.
    """

    _heard: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _given: tuple[str, ...] = PrivateAttr(default=())
    _steps: list[Step] = PrivateAttr(default_factory=list)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    def __init__(self, steps: Sequence[Step] = (), **fields: Any) -> None:
        if isinstance(steps, (str, tuple)) and not all(isinstance(step, tuple) for step in steps):
            raise TypeError(f"steps={steps!r:.80} is one message; write ScriptedModel([...])")
        super().__init__(**fields)
        self._steps = list(steps)

    @property
    def heard(self) -> tuple[list[BaseMessage], ...]:
        """What the model read at each wake."""
        return tuple(self._heard)

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the tools that it was last given; it says what you wrote all the same."""
        return self._given

    @property
    def unsaid(self) -> tuple[Step, ...]:
        """The messages that nobody woke the model for yet."""
        return tuple(self._steps)

    def require_all_said(self) -> None:
        """Fail the test if something is left unsaid.

        Raises:
            AssertionError: naming it.
        """
        if self._steps:
            left = "; ".join(f"{step!r:.120}" for step in self._steps)
            raise AssertionError(f"{len(self._steps)} of the model's messages left unsaid: {left}")

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> ScriptedModel:
        """The model itself; it notes the tools' names."""
        self._given = tuple(str(getattr(tool, "name", tool)) for tool in tools)
        return self

    @property
    def _llm_type(self) -> str:
        return "agentguard-scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self._lock:
            self._heard.append(list(messages))
            if not self._steps:
                last = f"{messages[-1].content!r:.200}" if messages else "nothing"
                raise AssertionError(
                    f"the model was woken {len(self._heard)} times and had"
                    f" {len(self._heard) - 1} messages to say; it read last: {last}"
                )
            step = self._steps.pop(0)
        message = _message(step, messages)
        return ChatResult(generations=[ChatGeneration(message=message)])


def _message(step: Step, messages: list[BaseMessage]) -> AIMessage:
    if callable(step):
        return _message(step(messages), messages)
    if isinstance(step, AIMessage):
        return step
    if isinstance(step, str):
        return AIMessage(step)
    calls = [step] if isinstance(step, tuple) and step and isinstance(step[0], str) else step
    return AIMessage("", tool_calls=[_call(*each) for each in calls])


def _call(name: str, arguments: Mapping[str, Any]) -> ToolCall:
    return ToolCall(name=name, args=dict(arguments), id=f"call-{uuid4().hex}", type="tool_call")
