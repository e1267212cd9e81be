"""Tools that the chat model's provider runs by itself never pass the guard, so none gets there.

They come as a dict among an agent's tools, in the settings of one model call, bound to the model,
or in a chat model's own fields. A dict that only describes a tool to the model is let through: a
front end runs it, and the guard has nothing to guard there. Any other kind is refused (I5).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.tools import BaseTool
from pydantic import BaseModel

from agentguard.calls.arguments import sayable
from agentguard.errors import BindingError

_TYPES = (None, "function", "custom")
_SCHEMAS = ("parameters", "input_schema")
_DESCRIBED = frozenset({"name", "description", "strict", *_SCHEMAS})
_CLIENT_SIDE = _DESCRIBED | {"type", "function", "cache_control", "defer_loading", "input_examples"}
_CHOICE = frozenset({"type", "name", "function", "disable_parallel_tool_use"})
_CHOICES = ("auto", "any", "none", "required", "tool", "function", "custom")

# What a setting is called that gives a model tools of its provider, whichever provider it is.
_GIVES_TOOLS = re.compile(
    "tool|function|search|mcp|plugin|connector|grounding|retriev|fetch|execution|interpreter"
    "|container|computer|browser|shell|skill|urlcontext|generation$"
)
# A chat model's own field: a test double's `tool_calls` is a script of what it says.
_FIELD_GIVES_TOOLS = re.compile("tools$|functions$|search|mcp|plugin|connector|grounding")
# Known settings that the pattern above would take for tools; what they hold is never a tool.
_SWITCHES = frozenset({"parallel_tool_calls", "disable_parallel_tool_use", "max_tool_calls"})
_NO_TOOLS = frozenset(
    {"response_format", "response_schema", "response_json_schema", "json_schema", "schema"}
    | {"ls_structured_output_format", "context_management", "metadata", "labels", "profile"}
)
_LISTS = frozenset({"tools", "functions"})
_CHOOSES = frozenset({"tool_choice", "function_call"})
_MOST = 10_000


def require_front_end_tool(tool: object, bound: Collection[str]) -> None:
    """Let a dict through that describes a tool of a front end to the model.

    Args:
        bound: the names of bound tools, which a description must not take.

    Raises:
        BindingError: its provider would run it, or it is no such dict.
    """
    problem = _provider_runs(tool, bound)
    if problem is not None:
        raise BindingError(
            f"a tool that the model's provider runs ({problem}) never passes the guard; remove it,"
            " or bind a tool that does the same"
        )


def require_plain_extras(tool: BaseTool, bound: Collection[str]) -> None:
    """Look for another tool in a tool's `extras`, which some providers take in its place.

    Raises:
        BindingError: naming the tool.
    """
    extras = getattr(tool, "extras", None)
    if extras:
        require_no_provider_tools(extras, bound, where=f"{tool.name}.extras")


def require_no_provider_tools(settings: object, bound: Collection[str], *, where: str) -> None:
    """Look through the settings of a model call, whatever provider they are for.

    Args:
        where: what the settings are called, for the error.

    Raises:
        BindingError: a setting gives the model a tool that its provider runs.
    """
    path = _given(settings, where, bound)
    if path is not None:
        raise BindingError(
            f"{path} gives the model tools that its provider runs; they never pass the guard."
            " Remove it, or bind a tool that does the same"
        )


def require_choice(choice: object, *, where: str) -> None:
    """Check a `tool_choice`, which may name a tool and must not bring one.

    Raises:
        BindingError: it brings tools, or is of unknown shape.
    """
    if choice is not None and not _is_choice(choice):
        raise BindingError(f"{where} brings tools or is of unknown shape; name one tool, or none")


def require_plain_model(
    model: object, bound: Collection[str], configurable: Mapping[str, Any]
) -> None:
    """Look for tools that are bound to a chat model, or stand in its own fields.

    Args:
        configurable: of the run, from which a configurable model takes its fields.

    Raises:
        BindingError: naming the field or the bound setting.
    """
    pending: list[tuple[object, str]] = [(model, "the model")]
    seen = set[int]()
    while pending:
        item, path = pending.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, RunnableBindingBase):
            require_no_provider_tools(item.kwargs, bound, where=f"{path}.bind(...)")
            pending.append((item.bound, path))
            continue
        chat = isinstance(item, BaseChatModel)
        if not chat:  # its fields are the run's to choose
            chosen = {k: v for k, v in configurable.items() if not k.startswith("__")}
            require_no_provider_tools(chosen, bound, where="configurable")
        for name, value in _fields(item):
            at = f"{path}.{name}"
            if chat and _FIELD_GIVES_TOOLS.search(_plain(name)):
                require_no_provider_tools({name: value}, bound, where=path)
            elif name not in _NO_TOOLS:
                pending += [(each, at) for each in _runnables(value)]
                if isinstance(value, Mapping) or not chat:
                    require_no_provider_tools(value, bound, where=at)


def _fields(item: object) -> Iterator[tuple[str, Any]]:
    if isinstance(item, BaseModel):
        yield from ((name, getattr(item, name, None)) for name in type(item).model_fields)
        yield from (item.model_extra or {}).items()
    else:
        own = getattr(item, "__dict__", {})
        yield from ((name.lstrip("_"), value) for name, value in own.items())


def _runnables(value: object) -> Iterator[object]:
    for each in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(each, Runnable) and not isinstance(each, BaseTool):
            yield each


def _plain(name: object) -> str:
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


def _is_set(value: object) -> bool:
    """Whether a setting says anything: an empty dict switches a provider's search on."""
    return value is not None and value is not False


def _given(settings: object, where: str, bound: Collection[str]) -> str | None:
    """The path of a setting that gives a model tools of its provider, None without one.

    Raises:
        BindingError: there is too much to look through.
    """
    pending: list[tuple[object, str]] = [(settings, where)]
    looked = 0
    while pending:
        value, path = pending.pop()
        looked += 1
        if looked + len(pending) > _MOST:
            raise BindingError(f"{where} is too large to look through; make it smaller")
        if isinstance(value, (list, tuple, set, frozenset)):
            pending += [(each, path) for each in value]
            continue
        if not isinstance(value, Mapping):
            data = _data(value)
            if data is None:
                continue
            if _GIVES_TOOLS.search(_plain(type(value).__name__)):
                return f"{path} ({type(value).__name__})"
            value = data
        for key, held in value.items():
            at = f"{path}.{sayable(str(key))}"
            gives = _gives_tools(str(key), held, bound)
            if gives:
                return at
            if gives is None:
                pending.append((held, at))
    return None


def _data(value: object) -> Mapping[str, Any] | None:
    """The fields of an object that holds settings; None for any other object."""
    if isinstance(value, BaseModel) and not isinstance(value, Runnable):
        return dict(_fields(value))
    if is_dataclass(value) and not isinstance(value, type):
        return vars(value)
    return None


def _gives_tools(key: str, value: object, bound: Collection[str]) -> bool | None:
    """Whether one setting gives a model tools of its provider; None: what it holds says so."""
    if not _is_set(value) or key in _NO_TOOLS:
        return False
    if key in _LISTS:
        if not isinstance(value, (list, tuple)):
            return True
        return any(_provider_runs(each, bound) is not None for each in value)
    if key in _CHOOSES:
        return not _is_choice(value)
    if key in _SWITCHES:
        return not isinstance(value, int)
    if key == "type" and isinstance(value, str):
        return value not in _TYPES and bool(_GIVES_TOOLS.search(_plain(value)))
    return True if _GIVES_TOOLS.search(_plain(key)) else None


def _provider_runs(tool: object, bound: Collection[str]) -> str | None:
    """What is wrong with the description of a front end's tool; None: nothing."""
    if not isinstance(tool, Mapping):
        return type(tool).__name__
    kind = tool.get("type")
    if kind not in _TYPES:
        return sayable(str(kind))
    body = tool.get("function", tool)
    unknown = sorted(str(key) for key in set(tool) - _CLIENT_SIDE)
    if body is not tool and isinstance(body, Mapping):
        unknown += sorted(str(key) for key in set(body) - _DESCRIBED)
    if unknown or not isinstance(body, Mapping):
        return sayable(", ".join(unknown) or "function")
    name = body.get("name")
    if not isinstance(name, str) or not name or tool.get("name", name) != name:
        return "without one name"
    if not any(isinstance(body.get(schema), Mapping) for schema in _SCHEMAS):
        return f"{sayable(name)}, which has no schema"
    if name in bound:
        return f"{sayable(name)}, under the name of a bound tool"
    return None


def _is_choice(choice: object) -> bool:
    if isinstance(choice, (str, bool)):
        return True
    if not isinstance(choice, Mapping) or set(choice) - _CHOICE:
        return False
    function = choice.get("function", {})
    named = isinstance(function, Mapping) and set(function) <= {"name"}
    return named and choice.get("type", "function") in _CHOICES
