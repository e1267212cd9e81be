"""A tool's arguments as the model sees them: asset ids for media, no outputs.

The facing schema keeps names, types, bounds and defaults. Validators stay with the tool's own
schema, which the filled arguments pass when the tool runs: here the values are still ids.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typing_extensions
from langchain_core.tools import BaseTool
from langchain_core.tools.base import _is_injected_arg_type, get_all_basemodel_annotations
from pydantic import BaseModel, ConfigDict, Field, ImportString, create_model
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from agentguard.bindings.argument_schema import Shape
from agentguard.errors import BindingError

_MAX_DEPTH = 16
_LISTS = (list, set, frozenset, tuple, Sequence, Iterable)


def call_schema(tool: BaseTool) -> dict[str, Any] | type[BaseModel]:
    """The schema of what a model may give to a tool: a JSON schema, or a pydantic 2 model.

    Raises:
        BindingError: it is a pydantic 1 model, or there is none.
    """
    schema = tool.tool_call_schema
    if isinstance(schema, dict):
        return schema
    if not (isinstance(schema, type) and issubclass(schema, BaseModel)):
        raise BindingError("its schema is pydantic v1; write it for pydantic 2", tool=tool.name)
    return schema


def json_schema(tool: BaseTool) -> dict[str, Any]:
    """The JSON schema of what a model may give to a tool.

    Raises:
        BindingError: there is none: a type without JSON form, or pydantic 1.
    """
    schema = call_schema(tool)
    if isinstance(schema, dict):
        return schema
    try:
        return schema.model_json_schema(by_alias=True)
    except Exception as error:  # pydantic has a class of errors for each way to have no schema
        raise BindingError(
            f"an argument's type has no JSON form ({type(error).__name__}); use strings, numbers,"
            " lists and models",
            tool=tool.name,
        ) from error


Shown = Mapping[str, tuple[str, ...]]
"""Argument path → the destination ids that the model may give there; an asset id, if none."""


def facing_model(tool: BaseTool, *, shown: Shown, hidden: Iterable[str]) -> type[BaseModel]:
    """The arguments model that a guarded tool shows, of a tool with a pydantic schema.

    Args:
        shown: where the model gives something else than the tool takes.
        hidden: top-level arguments that the model does not see.

    Raises:
        BindingError: the schema takes its arguments only under another name.
    """
    schema = tool.get_input_schema()
    if not issubclass(schema, BaseModel):
        raise BindingError(f"{tool.name}: its schema is pydantic v1; write it for pydantic 2")
    by_name = schema.model_config.get("populate_by_name") or schema.model_config.get(
        "validate_by_name"
    )
    renamed = [name for name, info in schema.model_fields.items() if info.validation_alias]
    if renamed and not by_name:
        raise BindingError(
            f"{tool.name}: LangChain shows {', '.join(renamed)} by its name and its schema takes"
            " only its alias; drop the alias, or set populate_by_name"
        )
    return _model(schema, "", shown, frozenset(hidden))


def facing_json(
    schema: Mapping[str, Any], shape: Shape, *, shown: Shown, hidden: Iterable[str]
) -> dict[str, Any]:
    """The JSON schema that a guarded tool shows, of a tool with a JSON schema (MCP); see above."""
    left = frozenset(hidden)
    made = {name: item for name, item in schema.items() if name not in ("properties", "required")}
    made["properties"] = {
        name: _json(child, name, shown, shape)
        for name, child in schema.get("properties", {}).items()
        if name not in left
    }
    places = [path for path, ids in shown.items() if ids]
    required = dict.fromkeys((*schema.get("required", ()), *places))
    made["required"] = [name for name in required if name not in left]
    return {**made, "additionalProperties": False}


def injected(tool: BaseTool, argument_names: Iterable[str]) -> frozenset[str]:
    """The parameters that LangGraph or LangChain fills in, and the model never does.

    Only those that are annotated as such, and `runtime`, which ToolNode fills in by name. Any other
    name is an argument: one that no schema has would else pass by without being in the Request.
    """
    names: set[str] = set()
    schema = tool.args_schema
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        annotations: Mapping[str, Any] = get_all_basemodel_annotations(schema)
        names |= {name for name, kind in annotations.items() if _is_injected_arg_type(kind)}
    for function in (getattr(tool, "func", None), getattr(tool, "coroutine", None),
                     tool._run, tool._arun):  # fmt: skip
        if function is None:
            continue
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except (NameError, TypeError, AttributeError):
            hints = {}
        for name, parameter in inspect.signature(function).parameters.items():
            annotation = hints.get(name, parameter.annotation)
            variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if _is_injected_arg_type(annotation) or (name == "runtime" and not variadic):
                names.add(name)
    return frozenset(names - set(argument_names))


def made_by_factory(tool: BaseTool) -> frozenset[str]:
    """Paths of the arguments whose default a factory makes, a new one each time."""
    return frozenset(path for path, part in _parts(tool) if part is _FACTORY)


def opened_by_type(tool: BaseTool) -> frozenset[str]:
    """Paths of the arguments whose type is a file path or imports a module.

    The type is looked at because a JSON schema need not say so.
    """
    return frozenset(
        path
        for path, part in _parts(tool)
        if isinstance(part, _OPENS) or (isinstance(part, type) and issubclass(part, _OPENS))
    )


def marks_of_schema(tool: BaseTool) -> Iterator[tuple[str, Any]]:
    """Every piece of metadata in a tool's pydantic schema, by argument path."""
    yield from _parts(tool)


def marks_in(annotation: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every piece of metadata in a type hint, by path; see `marks_of_schema`."""
    yield from _parts_of(annotation, path, 0)


_OPENS: tuple[type, ...] = (os.PathLike, ImportString)
_FACTORY = object()
RECURSION = object()
"""Stands where a type holds itself; what lies below is not looked at again."""


def _parts(tool: BaseTool) -> Iterator[tuple[str, Any]]:
    """Every type and mark in the annotations of a pydantic schema, by argument path."""
    schema = tool.get_input_schema()
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        yield from _parts_of(schema, "", 0)


def _parts_of(
    annotation: Any, path: str, depth: int, around: tuple[Any, ...] = ()
) -> Iterator[tuple[str, Any]]:
    if depth > _MAX_DEPTH:  # `Shape` refuses what is nested so deeply
        return
    yield path, annotation
    for inner in get_args(annotation) if hasattr(annotation, "__value__") else ():
        yield from _parts_of(inner, path, depth + 1, around)
    annotation = getattr(annotation, "__value__", annotation)  # a `type` statement's
    annotation = getattr(annotation, "__supertype__", annotation)  # of a NewType
    if isinstance(annotation, type):
        if any(annotation is each for each in around):
            yield path, RECURSION
            return
        around = (*around, annotation)
    origin, inner = get_origin(annotation), get_args(annotation)
    fields: list[tuple[str, Any, Iterable[Any], bool]] = []
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, info in annotation.model_fields.items():
            alias = info.validation_alias if path else None
            known = alias if isinstance(alias, str) else name
            factory = info.default_factory is not None
            fields.append((known, info.annotation, info.metadata, factory))
    elif dataclasses.is_dataclass(annotation):
        hints = typing.get_type_hints(annotation, include_extras=True)
        for each in dataclasses.fields(annotation):
            factory = each.default_factory is not dataclasses.MISSING
            fields.append((each.name, hints[each.name], (), factory))
    elif typing_extensions.is_typeddict(annotation):  # its own and that of `typing`
        hints = typing.get_type_hints(annotation, include_extras=True)
        fields += [(name, hint, (), False) for name, hint in hints.items()]
    elif origin is Annotated:
        yield from ((path, mark) for mark in inner[1:])
        yield from _parts_of(inner[0], path, depth + 1, around)
    else:
        is_list = isinstance(origin, type) and issubclass(origin, _LISTS)
        for item in inner:
            yield from _parts_of(item, f"{path}[]" if is_list else path, depth + 1, around)
    for name, kind, marks, factory in fields:
        below = f"{path}.{name}" if path else name
        if factory:
            yield below, _FACTORY
        yield from ((below, mark) for mark in marks)
        yield from _parts_of(kind, below, depth + 1, around)


def _model(
    schema: type[BaseModel], path: str, shown: Shown, hidden: frozenset[str]
) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for name, info in schema.model_fields.items():
        if not path and name in hidden:
            continue
        alias = info.validation_alias if path else None
        below = f"{path}.{alias or name}" if path else name
        if alias is not None and not isinstance(alias, str):
            raise BindingError(f"{below}: several names for one argument; keep one")
        fields[name] = (_annotation(info, below, shown), _field(info, below, shown, alias))
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    made: type[BaseModel] = create_model(schema.__name__, __config__=config, **fields)
    made.__doc__ = schema.__doc__
    return made


def _annotation(info: FieldInfo, path: str, shown: Shown) -> Any:
    kept = _type(info.annotation, path, shown)
    if path not in shown:
        for item in info.metadata:  # bounds, and the marks of injected arguments
            kept = Annotated[kept, item]
    return kept


def _field(info: FieldInfo, path: str, shown: Shown, alias: str | None) -> Any:
    description = info.description
    if shown.get(path):
        return Field(default=..., alias=alias, description=description)
    if any(path == asset.rstrip("[]") for asset in shown):
        plural = "" if path in shown else "s"
        description = f"Asset id{plural}. {description or ''}".strip()
    if info.default_factory is not None:
        return Field(default_factory=info.default_factory, alias=alias, description=description)
    default = ... if info.default is PydanticUndefined else info.default
    return Field(default=default, alias=alias, description=description)


def _json(node: Any, path: str, shown: Shown, shape: Shape) -> Any:
    """A schema with a plain string wherever an asset stands, and the ids of places."""
    if shown.get(path):
        named = shape.leaves[path].get("description")
        place = {"type": "string", "enum": list(shown[path])}
        return {**place, "description": named} if named else place
    if path in shown:
        said = f"Asset id. {shape.leaves[path].get('description', '')}".strip()
        text = {"type": "string", "description": said}
        return {"anyOf": [text, {"type": "null"}]} if shape.is_optional(node, path) else text
    if not any(asset.startswith((f"{path}.", f"{path}[")) for asset in shown):
        return node
    made = dict(shape.resolve(node, path))
    if "items" in made:
        made["items"] = _json(made["items"], f"{path}[]", shown, shape)
    if "properties" in made:
        made["properties"] = {
            name: _json(child, f"{path}.{name}", shown, shape)
            for name, child in made["properties"].items()
        }
    for choice in ("anyOf", "oneOf"):
        if choice in made:
            made[choice] = [_json(each, path, shown, shape) for each in made[choice]]
    return made


def _type(annotation: Any, path: str, shown: Shown) -> Any:
    """An annotation with `str` wherever an asset stands, and the ids of places."""
    annotation = getattr(annotation, "__value__", annotation)  # a `type` statement's
    origin, inner = get_origin(annotation), get_args(annotation)
    if shown.get(path):
        return Literal[shown[path]]
    if path in shown:
        optional = origin in (Union, types.UnionType) and type(None) in inner
        return str | None if optional else str
    if not any(asset.startswith((f"{path}.", f"{path}[")) for asset in shown):
        return annotation
    if origin is Annotated:
        kept = _type(inner[0], path, shown)
        for item in inner[1:]:
            kept = Annotated[kept, item]
        return kept
    if origin in (Union, types.UnionType):
        return Union[tuple(_type(each, path, shown) for each in inner)]  # noqa: UP007
    if isinstance(origin, type) and issubclass(origin, _LISTS) and inner:
        return list[_type(inner[0], f"{path}[]", shown)]  # type: ignore[misc]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _model(annotation, path, shown, frozenset())
    return annotation
