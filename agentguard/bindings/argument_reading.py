"""What reads a tool's arguments: the tool's own pydantic model, or its JSON schema.

Either is made once, when the tool is bound, and refused there if it can't say what will run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import referencing
import referencing.exceptions
from langchain_core.tools import BaseTool
from pydantic import BaseModel, ValidationError
from referencing.jsonschema import DRAFT202012

from agentguard.bindings.argument_schema import Shape, jsonable, with_defaults
from agentguard.bindings.model_schema import call_schema
from agentguard.canonical import plain
from agentguard.errors import BindingError


def argument_model(tool: BaseTool, args_schema: Any, *, leaves: set[str]) -> type[BaseModel] | None:
    """The pydantic model that reads the arguments; None where a JSON schema does.

    Args:
        args_schema: as the chat model sees it.
        leaves: the paths of the arguments that the chat model may give.

    Raises:
        BindingError: it reads and writes an argument under different names, or has a default that
            nobody could see.
    """
    if isinstance(args_schema, dict):
        return None
    model = call_schema(tool.model_copy(update={"args_schema": args_schema}))
    if isinstance(model, dict):
        return None
    written = Shape(model.model_json_schema(mode="serialization", by_alias=True), tool.name)
    differ = set(written.leaves) ^ leaves
    if differ:
        raise BindingError(
            f"{tool.name}: {', '.join(sorted(differ))} is read and written under different"
            " names (an alias, a computed field); give it one name"
        )
    for name, field in model.model_fields.items():
        if field.default_factory is not None or field.is_required():
            continue
        try:
            plain(jsonable(field.default))
        except ValueError as error:
            raise BindingError(
                f"{tool.name}.{name}: its default has no JSON form, so that nobody could see"
                " it; give it one that has, or None"
            ) from error
    return model


def json_validator(tool: str, args_schema: Any) -> Any:
    """The validator of a JSON schema of arguments; None where a pydantic model reads them.

    Args:
        tool: its name, for errors.

    Raises:
        BindingError: it is no JSON schema, or refers to what is not in it: nothing is fetched.
    """
    if not isinstance(args_schema, dict):
        return None
    kind = jsonschema.validators.validator_for(args_schema)
    try:
        kind.check_schema(args_schema)
    except jsonschema.SchemaError as error:
        raise BindingError(f"{tool}: its schema is no JSON schema: {error.message}") from error
    whole = DRAFT202012.create_resource(args_schema)
    registry = referencing.Registry().with_resource("", whole)
    for reference in sorted(set(_references(args_schema))):
        try:
            registry.resolver().lookup(reference)
        except referencing.exceptions.Unresolvable:
            raise BindingError(
                f"{tool}: its schema refers to {reference!r:.120}, which is not in it; write it out"
            ) from None
    return kind(args_schema, registry=referencing.Registry())


def parsed(
    tool: str, model: type[BaseModel], raw: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a model makes of arguments: those that were given, and with the defaults.

    Args:
        tool: its name, for errors.

    Raises:
        ValueError: they are off the schema; the message repeats none of them.
    """
    try:
        read = model.model_validate(dict(raw))
        given: dict[str, Any] = jsonable(read)
        found: dict[str, Any] = with_defaults(read)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{tool}: {where:.80}: {first['msg']:.200}") from None
    except Exception as error:  # I11: a validator of the tool's own types may raise anything
        raise ValueError(
            f"{tool}: its schema failed on these arguments ({type(error).__name__})"
        ) from error
    return given, found


def _references(schema: object) -> Iterator[str]:
    """What the parts of a JSON schema refer to."""
    if isinstance(schema, Mapping):
        for name, value in schema.items():
            if name in ("$ref", "$dynamicRef") and isinstance(value, str):
                yield value
            else:
                yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)
