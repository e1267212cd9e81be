"""What the type of a value says where its declaration says no more: a form, or that it is plain."""

from __future__ import annotations

import json
import os
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin

from agentguard.bindings.argument_schema import is_address, is_binary, is_encoded, is_path
from agentguard.bindings.problems import Problems
from agentguard.model import Stage

Leaf = Mapping[str, Any]
ArgumentForm = Literal["path", "bytes", "base64", "data-url"]

_NUMBERS = ("integer", "number", "boolean")
_TIMES = ("date", "date-time", "time", "duration", "uuid")


def plain_arguments(
    leaves: Mapping[str, Leaf], stage: Stage | None, problems: Problems
) -> list[str]:
    """Paths of the values that are plain by their type; the others are problems.

    Numbers, booleans, dates, times and UUIDs are plain. So are choices, but in the queue and export
    stages, where one may pick the place or who sees it.

    Args:
        leaves: the arguments that have no role.
    """
    plain: list[str] = []
    strings: list[str] = []
    for path, leaf in leaves.items():
        if "enum" in leaf or "const" in leaf:
            if stage in (Stage.QUEUE, Stage.EXPORT):
                sends = "sends media out" if stage is Stage.EXPORT else "releases media"
                problems.add(
                    f"choices of a tool that {sends} may pick the place or who sees it:"
                    f" To({{...}}), Fixed({_example(leaf)}) or Plain()",
                    path,
                )
            else:
                plain.append(path)
        elif is_plain(leaf):
            plain.append(path)
        elif is_binary(leaf):
            problems.add("bytes that need a role: Asset(), if they are media", path)
        else:
            strings.append(path)
    if strings:
        releases = stage in (Stage.QUEUE, Stage.EXPORT)  # where choices need a role, too
        many = "strings that need a role" if len(strings) > 1 else "a string that needs a role"
        problems.add(
            f"{many}: Asset() if it names media, Text() if words, To() if a place, Output() if the"
            f" tool writes there; else {'Plain()' if releases else 'Literal[...] or Plain()'}",
            *strings,
        )
    return plain


def is_plain(leaf: Leaf) -> bool:
    """Whether a value is plain by its type, in the stages where choices are."""
    listed = "enum" in leaf or "const" in leaf
    return listed or leaf.get("type") in _NUMBERS or _is_time(leaf)


def argument_form(leaf: Leaf) -> ArgumentForm:
    """What a tool takes media as, by the schema of the argument."""
    if is_encoded(leaf):
        return "base64"
    if is_binary(leaf):
        return "bytes"
    return "data-url" if is_address(leaf) else "path"


def result_form(hint: Any) -> Literal["path", "bytes"] | None:
    """What a tool returns media as, by the hint of its result; None where that says nothing."""
    hint = getattr(hint, "__value__", hint)
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Annotated, NotRequired):
        return result_form(inner[0])
    if origin in (Union, types.UnionType):
        return _only(map(result_form, (each for each in inner if each is not type(None))))
    if origin in (list, tuple, set, frozenset) and inner:
        return _only(map(result_form, (each for each in inner if each is not Ellipsis)))
    if isinstance(hint, type) and issubclass(hint, (bytes, bytearray)):
        return "bytes"
    if isinstance(hint, type) and issubclass(hint, (str, Path, os.PathLike)):
        return "path"
    return None


def _only(forms: Iterable[Literal["path", "bytes"] | None]) -> Literal["path", "bytes"] | None:
    found = set(forms)
    return found.pop() if len(found) == 1 else None


def _is_time(leaf: Leaf) -> bool:
    return leaf.get("type") == "string" and leaf.get("format") in _TIMES and not is_path(leaf)


def _example(leaf: Leaf) -> str:
    choices = leaf.get("enum") or [leaf.get("const")]
    return json.dumps(leaf.get("default", choices[0]), ensure_ascii=False)
