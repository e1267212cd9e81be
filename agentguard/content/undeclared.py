"""Media and files in a tool's result that its Binding does not declare.

A result that holds media is taken in or fails; it never becomes `[data]` and success. What is not
recognised as text or plain data counts as media.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import datetime
import decimal
import enum
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from pydantic import BaseModel

from agentguard.content.formats.identify import is_known
from agentguard.errors import AssetError

SCALARS = (type(None), bool, int, float, complex, decimal.Decimal, enum.Enum, uuid.UUID,
           datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo, type)  # fmt: skip
"""What holds neither text nor media."""

_DECLARE = "say in its declaration where: result=..., or an Output() argument"
_MEDIA = f"its result holds media that its Binding does not declare; {_DECLARE}"
_FILE = f"its result names a file outside of the call's scratch folder; {_DECLARE}"

_MAX_READ = 32_000  # `clean` shows no more than this of a text
_DEEPEST = 3
_FEWEST = 10  # kinds of characters in encoded data; a ruler in a text has one or two

_DATA_URL = re.compile(r"data:([\w.+*-]+/[\w.+*-]+)?((?:;[^,;\s]{1,80})*),([^\s\"'<>)]*)", re.I)
_RUN = re.compile(r"[A-Za-z0-9+/_=-]{200,}|(?:[A-Za-z0-9+/_=-]{60,}\s{1,2}){3,}[A-Za-z0-9+/_=-]*")
_BASE64 = re.compile(  # how the known formats begin, in base64, wherever it stands
    r"(?:iVBORw0KGgo|/9j/[0-9A-Za-z+/]|R0lGOD[dl]h|UklGR|AAAA[0-9A-Za-z+/]{2}Z0eX|GkXfo|ZkxhQ"
    r"|T2dnUw|SUQz)[0-9A-Za-z+/]{24,}"
)
_HEX = re.compile(
    r"(?:89504e470d0a1a0a|ffd8ff|474946383[79]61|52494646[0-9a-f]{8}57(?:454250|415645)"
    r"|000000[0-9a-f]{2}66747970|1a45dfa3|664c6143|4f676753|494433)[0-9a-f]{32,}",
    re.I,
)
_NUMBERS = re.compile(r"(?:\d{1,3}\s{0,4},\s{0,4}){15,}\d{1,3}")
_ESCAPED = re.compile(r"\\x[0-9a-fA-F]{2}|\\u00[0-9a-fA-F]{2}")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x80-\x9f\ufffd]")
_MANY = 16


def require_declared(
    value: Any, *, is_taken: Callable[[bytes], bool], is_inside: Callable[[str], bool]
) -> None:
    """Refuse a result that holds media, or names a file, which nobody takes in.

    Args:
        value: what is left of a result once its declared outputs are taken in.
        is_taken: whether these bytes were taken in.
        is_inside: whether a path is in the call's scratch folder.

    Raises:
        AssetError: naming the field of the Binding that is missing.
    """
    for leaf in leaves(value):
        if isinstance(leaf, str):
            if any(not is_taken(data) for data in _encoded(leaf, 0)):
                raise AssetError(_MEDIA)
            if any(not is_inside(path) for path in _files(leaf[:_MAX_READ])):
                raise AssetError(_FILE)
        elif not is_taken(leaf) and not _is_text(leaf, 0):
            raise AssetError(_MEDIA)


def leaves(value: Any) -> Iterator[str | bytes]:
    """The texts and bytes in a value, however deep.

    Raises:
        AssetError: it holds something else, which could be a picture as an object.
    """
    waiting, seen = [value], set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield str(item)
        elif isinstance(item, (bytes, bytearray, memoryview)):
            yield bytes(item)
        elif isinstance(item, os.PathLike):
            yield os.fsdecode(os.fspath(item))
        elif not isinstance(item, SCALARS) and id(item) not in seen:
            seen.add(id(item))
            waiting.extend(_parts(item))


def _parts(item: Any) -> list[Any]:
    if isinstance(item, Mapping):
        return [*item.keys(), *item.values()]
    if isinstance(item, (list, tuple, set, frozenset)):
        parts = list(item)
        if len(parts) >= _MANY and all(type(p) is int and 0 <= p < 256 for p in parts):
            data = bytes(parts)
            return [data] if is_known(data) else []
        return parts
    if isinstance(item, BaseModel):
        return [vars(item), item.model_extra or {}]
    if dataclasses.is_dataclass(item):
        return [getattr(item, field.name, None) for field in dataclasses.fields(item)]
    raise AssetError(
        f"its result holds a {type(item).__name__}, which can't be looked into and may be media;"
        f" return text or JSON data, or {_DECLARE}"
    )


def _encoded(text: str, depth: int) -> Iterator[bytes]:
    """What a text holds of data that is no text: media, or what could be."""
    for kind, options, body in _DATA_URL.findall(text):
        if ";base64" in options.lower():
            data = _from_base64(unquote(body))
        else:
            data = unquote_to_bytes(body)
        if not (kind.lower().startswith("text/") or not kind) or not _is_text(data, depth):
            yield data
    rest = _DATA_URL.sub(" ", text)
    for run in _RUN.findall(rest):
        word = "".join(run.split())
        if len(set(word)) >= _FEWEST and not _is_plain(word, depth):
            yield _from_hex(word) or _from_base64(word)
    bare = re.sub(r"\\[nrt]|[\s\"'\\]", "", unquote(rest)).replace("_", "/").replace("-", "+")
    for match in _BASE64.finditer(bare):
        yield _from_base64(re.match(r"[0-9A-Za-z+/=]+", bare[match.start() :])[0])  # type: ignore[index]
    for match in _HEX.finditer(re.sub(r"\\x|0x|[\s,:\"'\\-]", "", rest)):
        yield _from_hex(match[0])
    for numbers in _NUMBERS.findall(rest):
        data = bytes(min(int(number), 255) for number in numbers.split(","))
        if is_known(data):
            yield data
    if len(_CONTROL.findall(rest)) >= _MANY or len(_ESCAPED.findall(rest)) >= _MANY:
        yield rest.encode("utf-8", "replace")


def _is_plain(word: str, depth: int) -> bool:
    data = _from_hex(word)
    if data:
        return _is_text(data, depth)
    return _is_text(_from_base64(word), depth)


def _is_text(data: bytes, depth: int) -> bool:
    """Whether bytes are text that holds no media itself."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    if re.search(r"[\x00-\x08\x0e-\x1f]", text) or depth >= _DEEPEST:
        return False
    return next(_encoded(text, depth + 1), None) is None


def _from_base64(word: str) -> bytes:
    word = "".join(word.split()).replace("_", "/").replace("-", "+").rstrip("=")
    word = word[: len(word) // 4 * 4] if len(word) % 4 == 1 else word
    try:
        return base64.b64decode(word + "=" * (-len(word) % 4))
    except (binascii.Error, ValueError):
        return b"\0"


def _from_hex(word: str) -> bytes:
    try:
        return bytes.fromhex(word[: len(word) // 2 * 2])
    except ValueError:
        return b""


_URL = re.compile(r"file:(?://[^/\s]*)?(/[^\s\"'<>]*)", re.I)
_QUOTED = re.compile(
    r"\"([^\"\n]+)\"|'([^'\n]+)'|`([^`\n]+)`|\(([^()\n]+)\)|<([^<>\n]+)>|\[([^\]\n]+)\]"
)
_EDGE = " \t\r\n.,;:!?()[]{}<>\"'`|*"
_FURTHEST = 8  # words of a path with spaces


def _files(text: str) -> Iterator[str]:
    """The existing files that a text names: whole, by line, in quotes, by a word or a few."""
    for name in dict.fromkeys(_named(text)):
        path = os.path.expanduser(name)
        if os.path.isfile(path):
            yield path


def _named(text: str) -> Iterator[str]:
    for form in dict.fromkeys((text, unquote(text), text.replace("\\/", "/"))):
        yield form.strip()
        for found in _URL.findall(form):
            yield from (found, unquote(found), found.rstrip(_EDGE), unquote(found).rstrip(_EDGE))
        for quoted in _QUOTED.findall(form):
            yield from filter(None, (part.strip() for part in quoted))
        for line in form.splitlines():
            yield line.strip()
            yield from (part.strip(_EDGE) for part in re.split(r"[:=]\s", line))
            words = [word for word in re.split(r"[\s\"'`<>()\[\]{}|,;=]+", line) if word]
            yield from _words(words)


def _words(words: list[str]) -> Iterator[str]:
    for start, word in enumerate(words):
        if "/" in word or "." in word:
            yield from (word, word.strip(_EDGE), word.rpartition(":")[2].strip(_EDGE))
        if "/" in word or word.startswith("~"):  # it may go on behind a space
            begin = word[word.find("/") :] if not word.startswith("~") else word
            firsts = [f for f in dict.fromkeys((word, begin)) if _leads_somewhere(f)]
            for end in range(start + 1, min(len(words), start + _FURTHEST)):
                rest = " ".join(words[start + 1 : end + 1])
                for first in firsts:
                    yield f"{first} {rest}".rstrip(_EDGE)
        elif "." in word:  # or have begun before one
            for begin_at in range(max(0, start - _FURTHEST), start):
                yield " ".join(words[begin_at : start + 1]).strip(_EDGE)


def _leads_somewhere(word: str) -> bool:
    """Whether a path that goes on behind a space can exist at all."""
    return os.path.isdir(os.path.dirname(os.path.expanduser(word)) or ".")
