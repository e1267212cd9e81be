"""Where a tool's result names an operation or a URL: a path in its data, or a pattern in its text.

Tools answer in every way: a dict, an artifact, a list of them, or JSON written as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from agentguard.errors import AssetError, BindingError

Located = str | re.Pattern[str]
"""A path (`data.id`, `images[].url`), or a pattern with one group over the text."""

OPERATION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._~+=@/-]|:(?!//)){0,254}")
"""The id of an operation as vendors write them: one word, and no URL."""

_PATH = re.compile(r"(?:\[\]|[^\s.\[\]]{1,64}(?:\[\])*)(?:\.[^\s.\[\]]{1,64}(?:\[\])*)*")
MAX_FOUND = 64
_MAX_JSON = 1 << 20


def require_located(tool: str, where: Located) -> None:
    """Refuse what names no place in a result.

    Raises:
        BindingError: it is neither a path nor a pattern with one group.
    """
    if isinstance(where, re.Pattern):
        if where.groups != 1:
            raise BindingError(
                f"got a pattern with {where.groups} groups, expected one, around the value",
                tool=tool,
            )
    elif not isinstance(where, str) or _PATH.fullmatch(where) is None:
        raise BindingError(
            f"got {where!r:.80}, expected a path such as data.id or a regex", tool=tool
        )


def located(where: Located, *, content: Any, artifact: Any, text: str) -> tuple[str, ...]:
    """The values at a place of a result, in order, each once; none is an empty tuple.

    Args:
        content: what the tool returned.
        artifact: what came with it, searched first.
        text: the content as text, which may be JSON.

    Raises:
        AssetError: more than a call may name.
    """
    if isinstance(where, re.Pattern):
        found: Iterator[Any] = (match[1] for match in where.finditer(text))
    else:
        found = _first(where, (artifact, content, parsed_text(text)))
    kept = dict.fromkeys(
        str(value)
        for value in found
        if isinstance(value, (str, int)) and not isinstance(value, bool) and value != ""
    )
    if len(kept) > MAX_FOUND:
        raise AssetError(f"the tool returned {len(kept)} ids or URLs, at most {MAX_FOUND}")
    return tuple(kept)


def _first(path: str, places: tuple[Any, ...]) -> Iterator[Any]:
    for place in places:
        found = list(_at(place, path))
        if found:
            return iter(found)
    return iter(())


def _at(place: Any, path: str) -> Iterator[Any]:
    found: list[Any] = [place.model_dump() if isinstance(place, BaseModel) else place]
    for step in path.split("."):
        name, depth = step.rstrip("[]"), step.count("[]")
        if name:
            found = [item[name] for item in found if isinstance(item, Mapping) and name in item]
        for _ in range(depth):
            found = [one for item in found if isinstance(item, (list, tuple)) for one in item]
    yield from found


def parsed_text(text: str) -> Any:
    """The data that a text is, if it is JSON; None if it is not."""
    if len(text) > _MAX_JSON or text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
