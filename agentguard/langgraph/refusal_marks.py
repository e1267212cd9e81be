"""Marks on refusals, so that a client can't put words into the guard's mouth.

A call that was refused where it would have run has no outcome, and the ledger's tables don't keep
the sentence that the model read. A mark is a MAC over that sentence, its call and its thread, under
a key that only the guard's processes have. It proves who wrote the refusal, and nothing else: no
mark says that anything was done.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, TypeVar

from langchain_core.messages import ToolMessage
from langgraph.types import Command

from agentguard.canonical import canonical
from agentguard.errors import CanonicalError

MARK = "agentguard_refusal"
"""The key in a ToolMessage's `additional_kwargs`."""

Result = TypeVar("Result")


def marked(result: Result, *, key: bytes, thread: str) -> Result:
    """What a guarded node or tool answers with, its refusals marked in place.

    Args:
        result: a ToolMessage, a Command, a state update, or a list of these; whatever else it
            is, it is returned as it is.
    """
    for message in _messages(result):
        if message.status == "error":
            mark = _mark(message, key=key, thread=thread)
            if mark is not None:
                message.additional_kwargs = {**message.additional_kwargs, MARK: mark}
    return result


def is_marked(message: ToolMessage, *, key: bytes, thread: str) -> bool:
    """Whether the guard refused this message's call in these words."""
    given = message.additional_kwargs.get(MARK)
    if not isinstance(given, str) or message.status != "error":
        return False
    mark = _mark(message, key=key, thread=thread)
    return mark is not None and hmac.compare_digest(mark.encode(), given.encode("utf-8", "replace"))


def _mark(message: ToolMessage, *, key: bytes, thread: str) -> str | None:
    try:
        said = canonical([thread, message.tool_call_id, message.content])
    except CanonicalError:
        return None
    return hmac.new(key, said, hashlib.sha256).hexdigest()


def _messages(result: Any) -> list[ToolMessage]:
    if isinstance(result, ToolMessage):
        return [result]
    if isinstance(result, Command):
        return _messages(result.update)
    if isinstance(result, Mapping):  # a state update: its messages are in a list
        values = [value for value in result.values() if isinstance(value, list)]
        return [item for value in values for item in value if isinstance(item, ToolMessage)]
    if isinstance(result, (list, tuple)):
        return [message for item in result for message in _messages(item)]
    return []
