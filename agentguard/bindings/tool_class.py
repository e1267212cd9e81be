"""What a tool object is, besides its function: its class, its state, and whether two are alike.

A guarded copy claims the Grant in `_run` and `_arun`. So everything that LangChain calls before
them must be LangChain's own (I5): a class that does its work in `invoke` would run unauthorized.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
from collections.abc import Mapping
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool, Tool
from pydantic import BaseModel

from agentguard.errors import BindingError


class _Plain(BaseTool):
    """A tool class with nothing of its own: what Python and pydantic put into every class."""

    _state: int = 0

    def _run(self) -> None:
        """Do nothing."""


_BASES = frozenset({*StructuredTool.__mro__, *Tool.__mro__})
_FIELDS = frozenset({*StructuredTool.model_fields, *Tool.model_fields})
_UPSTREAM = frozenset(name for base in _BASES for name in vars(base))
_TAKEN = _UPSTREAM | _FIELDS
_PRIVATE = frozenset(
    name for base in _BASES for name in getattr(base, "__private_attributes__", ())
)
_BODY = frozenset({"_run", "_arun"})
# What Python and pydantic generate, and what is only used when a tool is made, shown or compared.
_FREE = (frozenset(vars(_Plain)) | {
    "__dict__", "__weakref__", "__slots__", "__qualname__", "__orig_bases__", "__parameters__",
    "__type_params__", "__firstlineno__", "__static_attributes__", "__annotate__",
    "__annotate_func__", "__classcell__",
    "__init__", "__repr__", "__str__", "__eq__", "__hash__",
    "__enter__", "__exit__", "__aenter__", "__aexit__",
})  # fmt: skip
_MADE_IN = "langchain_core.utils.pydantic"
_SHOWN = ("description", "callbacks", "tags", "metadata", "verbose")


def require_upstream_class(tool: BaseTool) -> None:
    """Refuse a tool that comes between LangChain and its own `_run` or `_arun` (I5).

    Every name that BaseTool, StructuredTool, Tool and their bases define must be found there, but
    for the two methods and the fields that a class declares; so must Python's own protocols
    (`__call__`, `__getattribute__`). What else is a class's own, a helper method, is free.

    Raises:
        BindingError: naming what the class, or the object itself, overrides.
    """
    kind = type(tool)
    if type(kind) is not type(BaseTool):
        raise BindingError(
            f"{_name(tool)}: its class {kind.__qualname__} has the metaclass"
            f" {type(kind).__qualname__}, expected LangChain's; derive it from BaseTool only"
        )
    overridden = {*_overridden(kind), *_shadowed(tool, kind)}
    if overridden:
        raise BindingError(
            f"{_name(tool)}: its class {kind.__qualname__} has its own"
            f" {', '.join(sorted(overridden))}, which would run before the call is authorized;"
            " do the work in _run or _arun, or make a tool of a function"
        )


def runs_alike(original: BaseTool, tool: BaseTool) -> bool:
    """Whether a tool object is a copy of another, but for what only people and models read.

    Functions and other objects must be the same objects, as in a `model_copy`; plain data must be
    equal. Two tools that one factory made share their code, not what it closes over. LangChain
    makes a tool of a plain function anew wherever it is handed one, with a schema of its own: the
    same function object is the same tool.
    """
    if type(tool) is not type(original):
        return False
    states = _state(original), _state(tool)
    if _are_of_one_signature(original.args_schema, tool.args_schema):
        for state in states:
            state.pop("args_schema", None)
    return _is_alike(*states)


def is_same_schema(one: BaseTool, other: BaseTool) -> bool:
    """Whether two tools take the same arguments, where each may have a class of its own."""
    known, given = one.args_schema, other.args_schema
    return bool(known == given) or _are_of_one_signature(known, given)


def _are_of_one_signature(one: Any, other: Any) -> bool:
    of_signatures = _is_of_signature(one) and _is_of_signature(other)
    return of_signatures and bool(one.model_json_schema() == other.model_json_schema())


def _is_of_signature(schema: object) -> bool:
    """Whether LangChain made a class of a signature; one that somebody wrote may validate more."""
    if not (isinstance(schema, type) and schema.__bases__ == (BaseModel,)):
        return False
    decorators = getattr(schema, "__pydantic_decorators__", None)
    own = any(inspect.isfunction(value) for value in vars(schema).values())
    if schema.__module__ != _MADE_IN or own or decorators is None:
        return False
    return not any(getattr(decorators, field.name) for field in dataclasses.fields(decorators))


def shown_of(tool: BaseTool) -> dict[str, Any]:
    """The fields that a copy may have changed: words, tags and callbacks."""
    return {name: getattr(tool, name) for name in _SHOWN}


def _overridden(kind: type[BaseTool]) -> set[str]:
    """Names that a class takes from LangChain, wherever it inherits them from."""
    found: set[str] = set()
    resolved: set[str] = set()
    for base in kind.__mro__:
        own = base not in _BASES
        for name in (*vars(base), *getattr(base, "__private_attributes__", ())) if own else ():
            if name in _BODY:
                if name not in resolved and not isinstance(
                    vars(base).get(name), types.FunctionType
                ):
                    found.add(name)
            elif name in _FREE:
                continue
            elif _is_dunder(name) or (
                name in _TAKEN and name not in resolved and name not in _PRIVATE
            ):
                found.add(name)
        resolved |= set(vars(base))
    return found


def _shadowed(tool: BaseTool, kind: type[BaseTool]) -> set[str]:
    """Names that the object itself has in the place of a method."""
    return {
        name
        for name in vars(tool)
        if name in _UPSTREAM and not isinstance(_static(kind, name), functools.cached_property)
    }


def _static(kind: type[Any], name: str) -> Any:
    return next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _name(tool: BaseTool) -> str:
    return str(vars(tool).get("name", type(tool).__name__))


def _state(tool: BaseTool) -> dict[str, Any]:
    kind = type(tool)
    state = {
        name: value
        for name, value in vars(tool).items()
        if name not in _SHOWN and not isinstance(_static(kind, name), functools.cached_property)
    }
    state |= {
        f"private {name}": value
        for name, value in (getattr(tool, "__pydantic_private__", None) or {}).items()
        if name not in _PRIVATE
    }
    state |= {
        f"extra {name}": value
        for name, value in (getattr(tool, "__pydantic_extra__", None) or {}).items()
    }
    for base in kind.__mro__:
        if base not in _BASES:
            state |= {
                f"slot {name}": getattr(tool, name, None)
                for name, member in vars(base).items()
                if isinstance(member, types.MemberDescriptorType)
            }
    return state


def _is_alike(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, types.MethodType):
        return one.__func__ is other.__func__ and one.__self__ is other.__self__
    if type(one) in (str, bytes, int, float, bool, complex):
        return bool(one == other)
    if type(one) in (list, tuple):
        return len(one) == len(other) and all(map(_is_alike, one, other))
    if type(one) in (dict, types.MappingProxyType):
        return _are_alike(one, other)
    if type(one) in (set, frozenset):
        return bool(one == other) and all(type(item) in (str, bytes) for item in one)
    return False


def _are_alike(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> bool:
    return one.keys() == other.keys() and all(_is_alike(one[key], other[key]) for key in one)
