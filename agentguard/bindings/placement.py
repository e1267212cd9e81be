"""Which role stands where: from type hints, from a schema's fields, and from `args=`.

A role that can't be placed is an error, and so is a type hint that can't be resolved: what it said
would be lost, and the value be taken for something harmless.
"""

from __future__ import annotations

import difflib
import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Any, NamedTuple, NotRequired, Union, get_args, get_origin

import typing_extensions
from langchain_core.tools import BaseTool

from agentguard.bindings.argument_schema import Shape
from agentguard.bindings.declaration import bodies_of, hints_of
from agentguard.bindings.model_schema import RECURSION, marks_in, marks_of_schema
from agentguard.bindings.problems import Problems
from agentguard.bindings.result_paths import Located
from agentguard.bindings.roles import Fixed, Role, role_of

Placed = tuple[str, Any]
"""A path, and what stands there: a piece of metadata, or a role."""


def argument_roles(
    tool: BaseTool,
    shape: Shape,
    unfit: Set[str],
    args: Mapping[str, Role] | None,
    problems: Problems,
) -> dict[str, Role]:
    """The role of each argument that was given one, by the path of the value.

    Args:
        tool: with a schema that `shape` was made of.
        unfit: names of arguments that can't be declared, and were told.
        args: as the declaration has them.
        problems: what can't be placed, or is said in two ways, is noted here.
    """
    placed: dict[str, Role] = {}
    for source in (list(_hinted(tool)), list(marks_of_schema(tool))):
        for path, role in _roles(source, problems):
            if path.split(".")[0].rstrip("[]") in unfit:
                continue
            _place(placed, shape, path, role, problems, _nowhere(path, role))
    said: Mapping[str, Any] = args or {}
    for path, given in said.items():
        known = None if given is Fixed else role_of(given)
        if known is None:
            problems.add(f"args[{path!r}]: got {given!r:.80}, expected a role such as Asset()")
            continue
        _place(placed, shape, path, known, problems, _unknown(path, problems.tool, shape))
    return placed


class ResultRole(NamedTuple):
    """What stands at a place of a result.

    Args:
        kind: the type that the hint has there, if any.
        optional: the hint allows that nothing stands there.
    """

    role: Role
    kind: Any
    optional: bool


def result_roles(tool: BaseTool, result: Any, problems: Problems) -> dict[Located, ResultRole]:
    """The role of each place of a result.

    Args:
        result: as the declaration has it.
    """
    parts = list(_of_result(tool))
    hinted = dict(_roles(parts, problems))
    kinds: dict[Located, Any] = {}
    for path, part in parts:
        if not isinstance(part, Role):
            kinds.setdefault(path, part)
    if hinted and any(part is RECURSION for _, part in parts):
        problems.add("the type of its result holds itself, so its roles have no end; flatten it")
    found: dict[Located, Role] = {}
    found.update(hinted)
    said = result if isinstance(result, Mapping) else {_whole(tool): result}
    for where, given in said.items() if result is not None else ():
        known = role_of(given)
        if known is None:
            problems.add(f"result: got {given!r:.80}, expected a role such as Asset()")
        elif found.get(where, known) != known:
            problems.add(f"result={known}, and its type hint says {found[where]}; keep one")
        else:
            found[where] = known
    optional = frozenset(_optional_places(parts))
    return {
        where: ResultRole(role, kinds.get(where), _is_below(where, optional))
        for where, role in found.items()
    }


def unresolved_hints(tool: BaseTool | Callable[..., Any]) -> Iterator[str]:
    """What is wrong with type hints that can't be read, for each function of a tool."""
    for body in bodies_of(tool) if isinstance(tool, BaseTool) else (tool,):
        try:
            for name, hint in hints_of(body).items():
                if isinstance(hint, type) and issubclass(hint, Role):
                    given = "its result" if name == "return" else name
                    yield (
                        f"{given}: {hint.__name__} is a role, not a type; say"
                        f" Annotated[str, {hint.__name__}()]"
                    )
        except NameError as error:
            name = getattr(error, "name", None) or str(error)
            yield (
                f"{name} can't be resolved at run time; define it at the top of its module, and"
                " import it outside TYPE_CHECKING (ruff: runtime-evaluated-decorators ="
                ' ["agentguard.media_tool"])'
            )


def variadic(tool: BaseTool) -> Iterator[str]:
    """Names of `*args` and `**kwargs` that a tool's schema was made of."""
    schema = tool.args_schema
    known = getattr(schema, "model_fields", {})
    for body in bodies_of(tool):
        for name, parameter in inspect.signature(body).parameters.items():
            is_open = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if is_open and (name in known or not (known or isinstance(schema, dict))):
                yield name


def _hinted(tool: BaseTool) -> Iterator[Placed]:
    for body in bodies_of(tool):
        for name, hint in hints_of(body).items():
            if name != "return":
                yield from marks_in(hint, name)


def _of_result(tool: BaseTool) -> Iterator[Placed]:
    hints = [hints_of(body).get("return") for body in bodies_of(tool)]
    hint = next((hint for hint in hints if hint is not None), None)
    if tool.response_format == "content_and_artifact" and get_origin(hint) is tuple:
        for name, part in zip(("content", "artifact"), get_args(hint), strict=False):
            yield from marks_in(part, name)
    elif hint is not None:
        yield from marks_in(hint, "")


def _optional_places(parts: Iterable[Placed]) -> Iterator[str]:
    """The places of a result where nothing may stand: `X | None`, and keys that may be missing."""
    for path, part in parts:
        origin: Any = get_origin(part)
        union = origin in (Union, types.UnionType) and type(None) in get_args(part)
        if union or origin is NotRequired:
            yield path
        elif typing_extensions.is_typeddict(part):
            yield from (f"{path}.{key}" if path else key for key in part.__optional_keys__)


def _is_below(where: Located, places: Set[str]) -> bool:
    """Whether a place is one of these, or a part of one."""
    if not isinstance(where, str):
        return False
    return any(not each or f"{where}.".startswith((f"{each}.", f"{each}[")) for each in places)


def _whole(tool: BaseTool) -> str:
    return "content" if tool.response_format == "content_and_artifact" else ""


def _roles(found: Iterable[Placed], problems: Problems) -> Iterator[tuple[str, Role]]:
    for path, mark in found:
        try:
            role = role_of(mark)
        except TypeError:
            problems.add(f"{mark.__name__} needs a value: {mark.__name__}(...)", path)
            continue
        if role is not None:
            yield path, role


def _place(
    placed: dict[str, Role],
    shape: Shape,
    path: str,
    role: Role,
    problems: Problems,
    nowhere: str,
) -> None:
    where = path
    while where not in shape.leaves and f"{where}[]" in shape.kinds:
        where = f"{where}[]"  # the role of a list is that of its items
    if where not in shape.leaves:
        if shape.kinds.get(where) == "object":
            problems.add(f"{role} is on an object; put it on its fields", path)
        else:
            problems.add(nowhere)
    elif where in placed and placed[where] != role:
        problems.add(f"2 roles: {placed[where]} and {role}; keep one", where)
    else:
        placed[where] = role


def _nowhere(path: str, role: Role) -> str:
    return f"{path}: {role} is on a type, but the tool's schema has no such path"


def _unknown(path: str, tool: str, shape: Shape) -> str:
    names = list(shape.leaves)
    written = f"args[{path!r}]"
    zero = path.replace("[0]", "[]")
    if zero != path and zero in shape.leaves:
        return f"{written}: write {zero!r}, which is every item of the list"
    close = difflib.get_close_matches(path, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{written}: {tool} has {', '.join(names) or 'no arguments'}{hint}"
