"""Media that stands in messages goes around every tool: taken in, replaced by its asset id.

Of a message that came in, whoever its role says it is of, nobody knows where its media come from:
they are unclassified. What the chat model's provider made in an answer carries what was revealed
to that model (I4). The model gets the id. What is neither text nor media that can be
taken in is left out, with a sentence that says so.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any
from urllib.parse import unquote_to_bytes

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from agentguard.calls.enforcement_point import EnforcementPoint
from agentguard.content.blocks import NotInMessage, is_media, media_in
from agentguard.content.formats.identify import Limits, MediaRefused, inspect
from agentguard.errors import AssetError, LedgerError
from agentguard.jobs.job import Job
from agentguard.ledger.queries.assets import asset_by_id
from agentguard.ledger.queries.jobs import revealed_labels
from agentguard.model import GENERATED, UNCLASSIFIED

_TEXT = frozenset({"text", "input_text", "text-plain", "output_text", "summary_text"})
_TEXT_KEYS = frozenset({
    "type", "text", "id", "index", "annotations", "citations", "cache_control", "extras", "title",
    "context", "phase",
})  # fmt: skip
_PROVIDER_MEDIA = frozenset({"image_generation_call"})
_OF_MODELS = frozenset({
    "refusal", "reasoning", "thinking", "redacted_thinking", "compaction",
    "tool_use", "tool_call", "tool_call_chunk", "invalid_tool_call", "function_call",
    "custom_tool_call", "server_tool_use", "server_tool_call", "server_tool_call_chunk",
    "server_tool_result", "web_search_call", "web_search_tool_result", "web_fetch_tool_result",
    "file_search_call", "code_interpreter_call", "computer_call", "local_shell_call",
    "mcp_call", "mcp_list_tools", "mcp_approval_request", "mcp_tool_use", "mcp_tool_result",
    "code_execution_tool_result", "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result", "executable_code", "code_execution_result",
})  # fmt: skip
"""What a provider puts into its model's own messages beside text, and wants back as it was."""
_OF_TOOLS = frozenset({"json", "search_result", "custom_tool_call_output", "resource"})

_DATA_URL = re.compile(
    r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(?P<more>(?:;[\w.+-]+(?:=[^;,\s]*)?)*),"
    r"(?P<data>[^\s\"'<>()\[\]{}\\]+)",
    re.IGNORECASE,
)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{64,}={0,2}")
_MOST_LEVELS = 32


def take_in_media(
    point: EnforcementPoint,
    job: Job | None,
    messages: Sequence[BaseMessage],
    *,
    owners: Set[str],
    thread: str,
) -> list[BaseMessage]:
    """A model's answer with all media replaced by a text that names the new asset.

    Args:
        job: where they are taken in; None: the run has none, and they are left out.
        owners: of the agents that the answering model drives; contributors of what it made.
        thread: the LangGraph thread id, empty without one.
    """
    return [
        _Intake(point, job, (owners, thread) if isinstance(one, AIMessage) else None).message(one)
        for one in messages
    ]


def take_in_client_media(
    point: EnforcementPoint, job: Job | None, messages: Sequence[BaseMessage]
) -> list[BaseMessage]:
    """The same of messages that came in, whatever their role says of who wrote them.

    A message without media is returned as the object that it is.
    """
    intake = _Intake(point, job, None)
    return [intake.message(message) for message in messages]


class _Intake:
    """Takes in what one message holds.

    Args:
        made_by: owners and thread of the model that answered; None if nobody knows who made it.
    """

    def __init__(
        self, point: EnforcementPoint, job: Job | None, made_by: tuple[Set[str], str] | None
    ) -> None:
        self._point = point
        self._job = job
        self._made_by = made_by

    def message(self, message: BaseMessage) -> BaseMessage:
        changed: dict[str, Any] = {}
        content: Any = message.content
        if isinstance(content, str):
            new = self._text(content)
        else:
            new = _each(content, lambda block: self._block(block, message))
        if new is not content:
            changed["content"] = new
        for name in ("additional_kwargs", "artifact", "response_metadata"):
            value = message.__dict__.get(name)  # of a model without the field, faster than getattr
            if value:
                cleaned = self._inside(value, bare=True)
                if cleaned is not value:
                    changed[name] = cleaned
        return message.model_copy(update=changed) if changed else message

    def _block(self, block: Any, message: BaseMessage) -> Any:
        """One content block, or the text that stands for it."""
        if isinstance(block, str):
            return self._text(block)
        if not isinstance(block, Mapping):
            return _words("[a part of this message was left out: it is no text]")
        kind = block.get("type")
        if self._is_media(block):
            return _words(self._media(block))
        if kind in _TEXT and isinstance(block.get("text"), str):
            if set(block) - _TEXT_KEYS:
                block = {name: block[name] for name in block if name in _TEXT_KEYS}
            return self._inside(block)
        if kind == "non_standard" and isinstance(block.get("value"), Mapping):
            value = self._block(block["value"], message)
            return block if value is block["value"] else value
        of_model = isinstance(message, AIMessage) and kind in _OF_MODELS
        of_tool = isinstance(message, ToolMessage) and kind in _OF_TOOLS
        if of_model or of_tool:
            return self._inside(block)
        return _words("[a part of this message was left out: its kind is not known]")

    def _inside(self, value: Any, level: int = 0, *, bare: bool = False) -> Any:
        """A JSON-like value without media; the same object if it holds none.

        Args:
            bare: it stands outside of the content, where media may be plain base64.
        """
        if isinstance(value, str):
            return self._bare(value) if bare and _BASE64.fullmatch(value) else self._text(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self._taken(bytes(value), "media")
        if level > _MOST_LEVELS:
            return "[left out: it is nested too deep]"
        if isinstance(value, Mapping):
            if self._is_media(value):
                return self._media(value)
            new = {name: self._inside(item, level + 1, bare=bare) for name, item in value.items()}
            return new if any(new[name] is not value[name] for name in new) else value
        if isinstance(value, (list, tuple)):
            return _each(value, lambda item: self._inside(item, level + 1, bare=bare))
        return value

    def _is_media(self, block: Mapping[str, Any]) -> bool:
        return is_media(block) or block.get("type") in _PROVIDER_MEDIA

    def _text(self, text: str) -> str:
        """A text with every data URL of media replaced."""
        if "data:" not in text.lower():
            return text
        new = _DATA_URL.sub(self._data_url, text)
        return text if new == text else new

    def _data_url(self, found: re.Match[str]) -> str:
        kind = (found["type"] or "text/plain").lower()
        plain = kind.startswith("text/")
        raw = unquote_to_bytes(found["data"])
        if found["more"].lower().endswith(";base64"):
            try:
                raw = _decoded(raw.decode("ascii", "replace"))
            except ValueError:
                return found[0] if plain else "[left out: a data URL that is not base64]"
        elif plain:
            return found[0]
        return self._taken(raw, kind, otherwise=found[0] if plain else None)

    def _bare(self, text: str) -> str:
        """Base64 outside of the content: a signature is no media, and stays."""
        try:
            return self._taken(_decoded(text), "media", otherwise=text)
        except ValueError:
            return text

    def _media(self, block: Mapping[str, Any]) -> str:
        kind = str(block["type"])
        try:
            if kind in _PROVIDER_MEDIA:
                result = block.get("result")
                if not isinstance(result, str):
                    return "[media that is not in the message was left out]"
                return self._taken(_decoded(result), kind)
            for raw in media_in([block], max_bytes=self._point.limits.max_bytes):
                return self._taken(raw, kind)
        except NotInMessage:
            return (
                "[media in this message was left out: it is not in the message, and a URL is never"
                " opened]"
            )
        except AssetError as error:
            why = str(error).removeprefix("the tool returned ")
            return f"[media in this message was left out: {why}]"
        except ValueError:
            return "[media in this message was left out: it is not base64]"
        return "[media in this message was left out]"

    def _taken(self, raw: bytes, kind: str, *, otherwise: str | None = None) -> str:
        """What is said in place of media.

        Args:
            otherwise: what stays if it is no media.
        """
        if otherwise is not None and not _is_media_file(raw, self._point.limits):
            return otherwise
        if self._job is None:
            return "[media in this message was left out: this run has no job]"
        labels: set[str] = set()
        contributors: Set[str] = {self._job.requested_by}
        try:
            if self._made_by is not None:
                contributors, thread = self._made_by
                seen = self._point.ledger.rows(revealed_labels(self._job.id, thread))
                labels = {GENERATED, *seen}
            name = f"message-{hashlib.sha256(raw).hexdigest()[:8]}"
            asset = ""
            for by in sorted(contributors):  # the same asset each time, with one more of them
                asset = self._point.importer.take_in(
                    raw, labels, by=by, job=self._job.id, name=name
                )
            known = self._point.ledger.first(asset_by_id(asset))
        except AssetError as error:
            return f"[media in this message was left out: {error}]"
        except LedgerError:
            return "[media in this message was left out: the ledger is unavailable]"
        class_ = known.labels if known is not None else {UNCLASSIFIED}
        return f"[{kind} taken in as {asset}, class {' + '.join(sorted(class_))}]"


def _each(values: Sequence[Any], change: Callable[[Any], Any]) -> Any:
    new = [change(value) for value in values]
    return new if any(one is not other for one, other in zip(new, values, strict=True)) else values


def _is_media_file(raw: bytes, limits: Limits) -> bool:
    """Whether bytes are a picture, sound or film: sound ones, since damaged ones show nothing."""
    try:
        found = inspect(io.BytesIO(raw), limits=limits)
    except MediaRefused:
        return False
    return found.media_type.partition("/")[0] in ("image", "audio", "video")


def _decoded(text: str) -> bytes:
    """Base64 in either alphabet, with or without padding and line breaks."""
    plain = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError("it is not base64") from error


def _words(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
