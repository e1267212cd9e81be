"""What of a tool's messages and Commands may reach the graph (I2).

A guarded tool's Command keeps its own ToolMessage and the state keys that its Binding declares;
`goto`, `Send` and `graph` are refused unless declared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.messages import ToolMessage
from langgraph.types import Command

from agentguard.bindings.bound import Binding
from agentguard.canonical import canonical
from agentguard.content.text.scan import MAX_TEXT, scan
from agentguard.errors import CanonicalError

MESSAGES = "messages"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPart:
    """A tool's result without what is not its own.

    Args:
        items: the messages and Commands that may go on.
        content: what its own ToolMessages say: texts and content blocks.
        updates: the declared state keys that it writes.
        routed: it tried to route the graph.
    """

    items: tuple[Any, ...]
    content: list[Any]
    updates: Mapping[str, Any]
    routed: bool


def are_messages(result: Any) -> bool:
    """Whether a tool returned a list of messages and Commands, as ToolNode takes them."""
    return (
        isinstance(result, list)
        and bool(result)
        and all(isinstance(item, (Command, ToolMessage)) for item in result)
    )


def own_part(result: Any, binding: Binding, call_id: str) -> OwnPart:
    """Split off what a Binding does not declare.

    Args:
        result: a Command, or a list of Commands and ToolMessages.
    """
    items: list[Any] = []
    content: list[Any] = []
    updates: dict[str, Any] = {}
    routed = False
    for item in result if isinstance(result, list) else [result]:
        messages, command = (([item], None) if isinstance(item, ToolMessage)
                             else (_messages(item), item))  # fmt: skip
        own = [m for m in messages if _is_own(m, call_id)]
        if binding.stage is None:  # no media: other calls' messages pass, as upstream lets them
            own = own if command is not None else messages
        for message in own:
            content.extend(_blocks(message.content))
        if command is None:
            items.extend(own)
        elif binding.unsafe_routes:
            items.append(command)
        else:
            routed = routed or bool(command.goto) or command.graph is not None
            stated = _stated(command, binding)
            updates.update(stated)
            items.append(_command(command, stated, own))
    return OwnPart(items=tuple(items), content=content, updates=updates, routed=routed)


def said(items: Sequence[Any], text: str, artifact: Any, *, tool: str, call_id: str) -> list[Any]:
    """The Commands that write declared state, and one ToolMessage of what the guard made of it.

    The message is made anew: a tool may have left it out, and its own could carry the id of
    another message.
    """
    commands: list[Any] = []
    status: Literal["success", "error"] = "success"
    for item in items:
        messages = [item] if isinstance(item, ToolMessage) else _messages(item)
        if any(message.status == "error" for message in messages if _is_own(message, call_id)):
            status = "error"
        if isinstance(item, Command):
            stated = _without_messages(item)
            if stated or item.goto or item.graph is not None:
                commands.append(Command(update=stated, goto=item.goto, graph=item.graph))
    message = ToolMessage(
        content=text, artifact=artifact, status=status, name=tool, tool_call_id=call_id
    )
    return [*commands, message]


def storable(updates: Mapping[str, Any]) -> dict[str, Any]:
    """The state keys that can be replayed: JSON data without secrets; others are not stored."""
    kept: dict[str, Any] = {}
    for key, value in updates.items():
        try:
            text = canonical(value).decode("utf-8")
        except CanonicalError:
            continue
        if len(text) <= MAX_TEXT and not scan(text).secrets:
            kept[key] = json.loads(text)
    return kept


def _messages(command: Command[Any]) -> list[Any]:
    found: Any = command.update
    if isinstance(found, Mapping):
        found = found.get(MESSAGES)
    return list(found) if isinstance(found, (list, tuple)) else []


def _is_own(message: Any, call_id: str) -> bool:
    return isinstance(message, ToolMessage) and message.tool_call_id == call_id


def _blocks(content: str | list[Any]) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _stated(command: Command[Any], binding: Binding) -> dict[str, Any]:
    if not isinstance(command.update, Mapping):
        return {}
    return {key: value for key, value in command.update.items() if key in binding.state}


def _without_messages(command: Command[Any]) -> dict[str, Any]:
    update = command.update if isinstance(command.update, Mapping) else {}
    return {key: value for key, value in update.items() if key != MESSAGES}


def _command(command: Command[Any], stated: Mapping[str, Any], own: Sequence[Any]) -> Command[Any]:
    if isinstance(command.update, list):
        return Command(update=list(own))
    return Command(update={**stated, MESSAGES: list(own)} if own else dict(stated))
