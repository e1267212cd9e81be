"""Media that arrives inside messages, around every tool: taken in, replaced by its asset id.

A picture in a human message is of unknown origin (`unclassified`); one that the chat model's
provider made carries what was revealed to that model (DESIGN section 4). The model gets the id.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from agentguard.calls.request import seen_before
from agentguard.content.blocks import block_data, is_media
from agentguard.errors import AssetError, LedgerError
from agentguard.guard import Guard
from agentguard.jobs.job import Job
from agentguard.model import GENERATED, UNCLASSIFIED

_TEXT = ("text", "input_text", "text-plain", "output_text")
_PROVIDER_MEDIA = ("image_generation_call",)


def take_in_media(
    guard: Guard, job: Job | None, messages: Sequence[BaseMessage], *, owner: str, thread: str
) -> list[BaseMessage]:
    """The messages with every media block replaced by a text that names the new asset.

    Args:
        job: where they are taken in; None: the run has none, and they are left out.
        owner: the owner of the agent whose model speaks; a contributor of what it made.
        thread: the LangGraph thread id, empty without one.
    """
    return [_taken(guard, job, message, owner=owner, thread=thread) for message in messages]


def _taken(
    guard: Guard, job: Job | None, message: BaseMessage, *, owner: str, thread: str
) -> BaseMessage:
    if not isinstance(message, (HumanMessage, AIMessage)) or isinstance(message.content, str):
        return message
    human = isinstance(message, HumanMessage)
    if not any(_is_media(block) or (human and not _is_text(block)) for block in message.content):
        return message
    content: list[Any] = []
    for block in message.content:
        if not _is_media(block):
            seen = not human or _is_text(block)
            content.append(block if seen else _said("[a part of this message was left out]"))
        elif job is None:
            content.append(_said("[media in this message was left out: this run has no job]"))
        elif human:
            content.append(_text(guard, job, block, set(), by=job.requested_by))
        else:
            labels = {GENERATED, *seen_before(guard.ledger, job=job.id, thread=thread)}
            content.append(_text(guard, job, block, labels, by=owner))
    return message.model_copy(update={"content": content})


def _is_text(block: Any) -> bool:
    return isinstance(block, str) or (isinstance(block, dict) and block.get("type") in _TEXT)


def _is_media(block: Any) -> bool:
    return is_media(block) or (isinstance(block, dict) and block.get("type") in _PROVIDER_MEDIA)


def _text(guard: Guard, job: Job, block: Any, labels: set[str], *, by: str) -> dict[str, str]:
    data = block.get("result") if block["type"] in _PROVIDER_MEDIA else block_data(block)
    if not isinstance(data, str):
        return _said("[media that is not in the message was left out: a URL is never opened]")
    try:
        raw = base64.b64decode(data, validate=True)
        name = f"message-{hashlib.sha256(raw).hexdigest()[:8]}"
        asset = guard.take_in(raw, labels, by=by, job=job.id, name=name)
    except (binascii.Error, ValueError) as error:
        why = error if isinstance(error, AssetError) else "it is not base64"
        return _said(f"[media in this message was left out: {why}]")
    except LedgerError:
        return _said("[media in this message was left out: the ledger is unavailable]")
    row = guard.ledger.one("SELECT labels FROM assets WHERE id = ?", asset)
    known = json.loads(row["labels"]) if row is not None else [UNCLASSIFIED]
    return _said(f"[{block['type']} taken in as {asset}, class {' + '.join(known)}]")


def _said(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
