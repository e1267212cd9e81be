"""What stands in a tool's result: texts and media, in every block shape that LangChain and MCP use.

A media block holds its bytes as base64, or it is refused: a URL is not opened here (I3).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from agentguard.errors import AssetError

_MEDIA = (
    *("image", "image_url", "input_image", "audio", "audio_url", "input_audio", "video"),
    *("video_url", "file", "input_file", "media", "document", "resource", "resource_link"),
)
_TEXT = ("text", "text-plain", "output_text")
_DATA = ("json", "search_result", "custom_tool_call_output")
_HOLDERS = ("source", "image_url", "input_audio", "audio_url", "video_url", "file", "resource")
_BYTES = ("base64", "data", "blob", "file_data", "url", "image_url")
_MAX_BLOCKS = 64


class NotInMessage(AssetError):
    """A media block names its media, by a URL or a file id, and does not hold it."""


def media_in(content: Any, *, max_bytes: int) -> Iterator[bytes]:
    """The media of a tool's content, decoded.

    Raises:
        NotInMessage: media that a block only names.
        AssetError: media that is not base64, too large, or too much.
    """
    if isinstance(content, (bytes, bytearray, memoryview)):
        yield bytes(content)
        return
    blocks = [block for block in content if is_media(block)] if is_blocks(content) else []
    if len(blocks) > _MAX_BLOCKS:
        raise AssetError(f"the tool returned {len(blocks)} pieces of media, at most {_MAX_BLOCKS}")
    for block in blocks:
        held = _held(block)
        if held is None:
            raise NotInMessage(
                "the tool returned media that is not in the message; bind its output"
            )
        yield decoded(held, max_bytes=max_bytes, what="the tool returned a media block that")


def decoded(held: str | bytes, *, max_bytes: int, what: str) -> bytes:
    """The bytes of media that a tool returned, as base64 or as they are.

    Args:
        what: what holds it, for the error.

    Raises:
        AssetError: they are too large, or no base64.
    """
    if len(held) > max_bytes // 3 * 4 + 1024:
        raise AssetError(f"the tool returned media larger than {max_bytes} bytes, the limit")
    if isinstance(held, bytes):
        return held
    try:
        return base64.b64decode("".join(held.split()), validate=True)
    except (binascii.Error, ValueError):
        raise AssetError(f"{what} is not base64") from None


def without_media(content: Any) -> Any:
    """What is left of a tool's content once `media_in` took its media."""
    if isinstance(content, (bytes, bytearray, memoryview)):
        return None
    if not is_blocks(content):
        return content
    return [block for block in content if not is_media(block)]


def text_in(content: Any) -> str:
    """The text of a tool's content; whatever is no text or media is written as JSON."""
    if isinstance(content, str):
        return content
    if content is None or isinstance(content, (bytes, bytearray, memoryview)):
        return ""
    if is_blocks(content):
        return "\n".join(filter(None, map(_block_text, content)))
    return _json(content)


def is_blocks(content: Any) -> bool:
    """Whether content is a list of content blocks, not a list of data."""
    kinds = (*_TEXT, *_DATA, *_MEDIA)
    return isinstance(content, list) and all(
        isinstance(block, str) or (isinstance(block, Mapping) and str(block.get("type")) in kinds)
        for block in content
    )


def is_media(block: Any) -> bool:
    """Whether a content block is media: an embedded text resource is not."""
    if not isinstance(block, Mapping) or block.get("type") not in _MEDIA:
        return False
    resource = block.get("resource")
    return not (isinstance(resource, Mapping) and isinstance(resource.get("text"), str))


def _block_text(block: Any) -> str:
    if isinstance(block, str):
        return block
    if block["type"] in _TEXT:
        return str(block.get("text", ""))
    if block["type"] in _DATA:
        return _json(block)
    return "" if is_media(block) else str(block["resource"]["text"])


def _held(block: Mapping[str, Any]) -> str | bytes | None:
    inner = [block[name] for name in _HOLDERS if isinstance(block.get(name), Mapping)]
    for holder in (block, *inner):
        for name in _BYTES:
            value = holder.get(name)
            if isinstance(value, bytes):
                return value
            if isinstance(value, str) and value.startswith("data:"):
                return value.partition(";base64,")[2] or None
            if isinstance(value, str) and name not in ("url", "image_url"):
                return value
    return None


def _json(content: Any) -> str:
    try:
        return json.dumps(content, ensure_ascii=False, default=_named)
    except (TypeError, ValueError, RecursionError):  # cycles, odd keys, integers of 5000 digits
        return f"[{type(content).__name__}]"


def _named(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, os.PathLike):
        return str(value)
    return f"[{type(value).__name__}]"
