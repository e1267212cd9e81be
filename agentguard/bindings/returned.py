"""What a tool's result holds at the places that its declaration names; never trusted."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from agentguard.bindings.result_paths import MAX_FOUND, parsed_text
from agentguard.content.blocks import decoded
from agentguard.errors import AssetError

_MEDIA = "[media]"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnedMedia:
    """Media at a place of a result.

    Args:
        where: a path in its data; the empty one is the result itself. `content` and `artifact`
            are the first steps of the path where the tool returns a pair.
        form: what stands there.
        folder: where files lie, as the declaration names it; None: in the call's scratch folder.
        optional: nothing may stand there.
        listed: it is each item of a list by the tool's type hint, and a list may be empty.
    """

    where: str
    form: Literal["path", "bytes", "base64", "data-url"]
    folder: str | None = None
    optional: bool = False
    listed: bool = False

    def __str__(self) -> str:
        return self.where or "its result"


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Media that a result named, and what is left of it.

    Args:
        content: what the tool returned, with a mark wherever media stood.
        artifact: what came with it, likewise.
        data: bytes of media.
        files: path and declared folder of media.
    """

    content: Any
    artifact: Any
    data: tuple[bytes, ...] = ()
    files: tuple[tuple[str, str | None], ...] = ()


def named_media(
    results: Sequence[ReturnedMedia],
    *,
    content: Any,
    artifact: Any,
    max_bytes: int,
    optional: bool,
) -> Named:
    """Take the media out of a result, at the places that the declaration names.

    Args:
        max_bytes: the most that one of them may hold.
        optional: whether a place may be empty: the work is not done yet.

    Raises:
        AssetError: a place holds nothing, or something else than it should.
    """
    data: list[bytes] = []
    files: list[tuple[str, str | None]] = []
    places = {"content": content, "artifact": artifact}
    for each in results:
        found: list[Any] = []

        def take(value: Any, found: list[Any] = found) -> Any:
            if value is None:
                return None
            found.extend(value if isinstance(value, (list, tuple)) else (value,))
            return _MEDIA

        _take_at(places, each.where, take)
        may_be_empty = optional or each.optional or (each.listed and _is_empty(places, each.where))
        if not found and not may_be_empty:
            raise AssetError(f"its result holds no media at {each}, where its declaration says so")
        if len(found) > MAX_FOUND:
            raise AssetError(f"the tool returned {len(found)} media, at most {MAX_FOUND}")
        for value in found:
            if each.form == "path":
                files.append((_path(value, each), each.folder))
            else:
                data.append(_decoded(value, each, max_bytes))
    if places["content"] == _MEDIA:
        places["content"] = None
    return Named(
        content=places["content"],
        artifact=places["artifact"],
        data=tuple(data),
        files=tuple(dict.fromkeys(files)),
    )


def value_at(where: str, *, content: Any, artifact: Any) -> Any:
    """The first value at a place of a result; None where there is none."""
    found: list[Any] = []

    def note(value: Any) -> Any:
        found.append(value)
        return value

    _take_at({"content": content, "artifact": artifact}, where, note)
    return found[0] if found else None


def _take_at(places: dict[str, Any], where: str, take: Callable[[Any], Any]) -> None:
    """Replace what stands at a path in the first place that has it."""
    steps = list(_steps(where))
    if not steps:
        places["content"] = take(places["content"])
        return
    for name in ("artifact", "content"):
        rest = steps[1:] if steps[0] == name else steps
        value = _plain(places[name]) if name == "artifact" else _data(places[name])
        if _has(value, rest):
            places[name] = _replaced(value, rest, take)
            return


def _is_empty(places: Mapping[str, Any], where: str) -> bool:
    """Whether a place is each item of a list that has none: then nothing was overlooked."""
    head = where.partition("[]")[0]
    return value_at(head, content=places["content"], artifact=places["artifact"]) in ([], ())


def _steps(where: str) -> Iterator[str]:
    for step in where.split(".") if where else ():
        if name := step.rstrip("[]"):
            yield name
        yield from ("[]",) * step.count("[]")


def _has(value: Any, steps: Sequence[str]) -> bool:
    if not steps:
        return value is not None
    value, step = _plain(value), steps[0]
    if step == "[]":
        return isinstance(value, list) and any(_has(item, steps[1:]) for item in value)
    return isinstance(value, Mapping) and step in value and _has(value[step], steps[1:])


def _replaced(value: Any, steps: Sequence[str], take: Callable[[Any], Any]) -> Any:
    if not steps:
        return take(value)
    value, step = _plain(value), steps[0]
    if step == "[]" and isinstance(value, list):
        return [_replaced(item, steps[1:], take) for item in value]
    if step != "[]" and isinstance(value, Mapping) and step in value:
        return {**value, step: _replaced(value[step], steps[1:], take)}
    return value


def _plain(value: Any) -> Any:
    """One level of data: what a model, a dataclass or a tuple holds."""
    if isinstance(value, BaseModel):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return list(value) if isinstance(value, tuple) else value


def _data(content: Any) -> Any:
    """Content as data: JSON that a tool wrote as text counts."""
    parsed = parsed_text(content) if isinstance(content, str) else None
    return _plain(content) if parsed is None else parsed


def path_text(value: Any) -> str | None:
    """A path as text; None for what is no path."""
    if not isinstance(value, (str, os.PathLike)):
        return None
    path = os.fspath(value)
    return path if isinstance(path, str) else os.fsdecode(path)


def _path(value: Any, place: ReturnedMedia) -> str:
    path = path_text(value)
    if path is None:
        raise AssetError(f"{place} holds {type(value).__name__}, expected the path of a file")
    return path


def _decoded(value: Any, place: ReturnedMedia, max_bytes: int) -> bytes:
    if place.form == "bytes":
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value)
        raise AssetError(f"{place} holds {type(value).__name__}, expected bytes")
    if not isinstance(value, str):
        raise AssetError(f"{place} holds {type(value).__name__}, expected {place.form}")
    if place.form == "data-url":
        head, found, value = value.partition(";base64,")
        if not found or not head.startswith("data:"):
            raise AssetError(f"{place} is no data URL in base64")
    return decoded(value, max_bytes=max_bytes, what=str(place))
