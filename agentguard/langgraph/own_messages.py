"""What of a tool's messages and Commands may reach the graph (I2); its words: calls/results.py.

A guarded tool's Command keeps its own ToolMessage and the state keys that its Binding declares;
`goto`, `Send` and `graph` are refused unless declared.
Of a media tool, what goes on is cleaned (I4).
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.messages import ToolMessage
from langgraph.types import Command, Send
from pydantic import BaseModel

from agentguard.bindings.compiled_binding import CompiledBinding
from agentguard.canonical import canonical
from agentguard.content.scratch import Scratch
from agentguard.content.text.sanitize import MAX_KEPT, clean
from agentguard.content.text.scan import MAX_TEXT, scan
from agentguard.content.undeclared import SCALARS
from agentguard.errors import AssetError, CanonicalError

MESSAGES = "messages"


def error_message(call: Mapping[str, Any], reason: str) -> ToolMessage:
    """The answer to a call that is refused, whatever its name and id are."""
    name, id = call.get("name"), call.get("id")
    return ToolMessage(
        content=reason,
        name=name if isinstance(name, str) else None,
        tool_call_id=id if isinstance(id, str) else "",
        status="error",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPart:
    """A tool's result without what is not its own.

    Args:
        items: the messages and Commands that may go on.
        content: what its own ToolMessages say: texts and content blocks.
        updates: the declared state keys that it writes.
        routed: it tried to route the graph.
        dropped: the state keys that it wrote and nobody declared.
        beside: artifacts, and what it writes into the state, as the tool wrote it.
    """

    items: tuple[Any, ...]
    content: list[Any]
    updates: Mapping[str, Any]
    routed: bool
    dropped: tuple[str, ...]
    beside: list[Any]


def are_messages(result: Any) -> bool:
    """Whether a tool returned a list of messages and Commands, as ToolNode takes them."""
    return (
        isinstance(result, list)
        and bool(result)
        and all(isinstance(item, (Command, ToolMessage)) for item in result)
    )


def own_part(
    result: Any,
    binding: CompiledBinding,
    call_id: str,
    *,
    words: Callable[[str], str] | None = None,
) -> OwnPart:
    """Split off what a Binding does not declare.

    Args:
        result: a Command, or a list of Commands and ToolMessages.
        words: what the state may hold of a text; None: as it is.

    Raises:
        AssetError: a state key holds something that can't be cleaned.
    """
    items: list[Any] = []
    content: list[Any] = []
    updates: dict[str, Any] = {}
    beside: list[Any] = []
    dropped: list[str] = []
    routed = False
    for item in result if isinstance(result, list) else [result]:
        messages, command = (([item], None) if isinstance(item, ToolMessage)
                             else (_messages(item), item))  # fmt: skip
        own = [m for m in messages if _is_own(m, call_id)]
        if binding.is_harmless:  # no media: other calls' messages pass, as upstream lets them
            own = own if command is not None else messages
        for message in own:
            content.extend(_blocks(message.content))
            beside.append(message.artifact)
        if command is None:
            items.extend(own)
        elif binding.unsafe_routes:
            beside.append(_without_messages(command))
            items.append(command if words is None else cleaned_command(command, words))
        else:
            routed = routed or bool(command.goto) or command.graph is not None
            stated = _stated(command, binding)
            dropped += _without_messages(command).keys() - stated.keys()
            beside.append(stated)
            if words is not None:
                stated = {key: cleaned(value, words) for key, value in stated.items()}
            updates.update(stated)
            items.append(_command(command, stated, own))
    return OwnPart(
        items=tuple(items),
        content=content,
        updates=updates,
        routed=routed,
        dropped=tuple(sorted({str(key) for key in dropped})),
        beside=beside,
    )


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


def not_written(keys: Sequence[str], tool: str) -> str:
    """What is said of state keys that a tool wrote, and its Binding does not declare."""
    names = ", ".join(keys)
    return (
        f"{names} was not written into the state: the Binding of {tool} does not declare it"
        f" (state={list(keys)})"
    )


def with_note(items: Sequence[Any], call_id: str, note: str) -> list[Any]:
    """A tool's messages and Commands, its own message with a note behind what it says."""

    def noted(message: Any) -> Any:
        if not _is_own(message, call_id):
            return message
        content = message.content
        if isinstance(content, str):
            content = f"{content}\n{note}".strip()
        else:
            content = [*content, {"type": "text", "text": note}]
        return message.model_copy(update={"content": content})

    made: list[Any] = []
    for item in items:
        if isinstance(item, Command) and isinstance(item.update, Mapping):
            messages = [noted(message) for message in _messages(item)]
            update = {**item.update, **({MESSAGES: messages} if messages else {})}
            item = dataclasses.replace(item, update=update)
        made.append(noted(item))
    return made


def cleaned(value: Any, words: Callable[[str], str]) -> Any:
    """A value with each of its texts as the state, or whoever is asked, may hold it.

    Args:
        words: what becomes of a text.

    Raises:
        AssetError: it holds something that can't be looked into.
    """
    if isinstance(value, str):
        said = words(str(value))
        return value if said == value else said
    if isinstance(value, os.PathLike):
        return words(os.fsdecode(os.fspath(value)))
    if isinstance(value, SCALARS):
        return value
    if isinstance(value, Mapping):
        return {cleaned(key, words): cleaned(item, words) for key, item in value.items()}
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(cleaned(item, words) for item in value)
    if isinstance(value, BaseModel):
        held = {**vars(value), **(value.model_extra or {})}
        return value.model_copy(update=cleaned(held, words))
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value) if field.init]
        return dataclasses.replace(
            value,  # type: ignore[type-var]
            **{name: cleaned(getattr(value, name), words) for name in names},
        )
    raise AssetError(
        f"what it writes into the state, or asks, holds a {type(value).__name__}, which can't be"
        " looked into; write text or JSON data"
    )


def cleaned_command(
    command: Command[Any], words: Callable[[str], str], *, messages: bool = False
) -> Command[Any]:
    """A Command that routes, with what it carries cleaned.

    Args:
        messages: its messages as well; else what they say is taken in elsewhere.
    """
    update = command.update
    if isinstance(update, Mapping):
        update = {
            key: value if key == MESSAGES and not messages else cleaned(value, words)
            for key, value in update.items()
        }
    elif messages:
        update = cleaned(update, words)
    goto = command.goto
    if isinstance(goto, Send):
        goto = _sent(goto, words)
    elif isinstance(goto, Sequence) and not isinstance(goto, str):
        goto = [_sent(one, words) if isinstance(one, Send) else one for one in goto]
    return dataclasses.replace(command, update=update, goto=goto)


def _sent(send: Send, words: Callable[[str], str]) -> Send:
    made = copy.copy(send)
    made.arg = cleaned(send.arg, words)
    return made


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


def _stated(command: Command[Any], binding: CompiledBinding) -> dict[str, Any]:
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


def kept(scratch: Scratch, text: str) -> str:
    """A text of a media tool as the state may hold it: no path of the call, no secret."""
    return clean(scratch.conceal(text, lambda name: "[file]"), limit=MAX_KEPT)
