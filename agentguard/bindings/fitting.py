"""Whether a Binding fits its tool's schema: every argument declared, and as what it can be (I5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema
import referencing
from langchain_core.tools import StructuredTool

from agentguard.bindings.argument_schema import (
    Shape,
    is_address,
    is_binary,
    is_encoded,
    is_path,
    jsonable,
)
from agentguard.bindings.compiled_binding import Arg, CompiledBinding
from agentguard.bindings.model_schema import made_by_factory, opened_by_type
from agentguard.errors import BindingError
from agentguard.model import OutsideEffect, Stage

_LONGEST = 1 << 20  # a data URL that holds a picture is longer than any address

_OWN = {"self", "config", "run_manager", "v__args", "v__kwargs"}
"""Arguments of `StructuredTool._run`, and what pydantic makes of `*args` and `**kwargs`."""

Schema = Mapping[str, Any]


def require_fitting(binding: CompiledBinding, schema: Schema, shape: Shape) -> None:
    """Compare what a Binding declares with the arguments that its tool has.

    Args:
        schema: the tool's arguments, as JSON schema.
        shape: the same schema, read.

    Raises:
        BindingError: naming the argument that is undeclared, declared twice, unknown, or of a kind
            that can't be what it is declared as.
    """
    name, leaves = binding.tool.name, shape.leaves
    _require_declared(binding, leaves)
    taken = _OWN & schema.get("properties", {}).keys()
    is_decided = _is_model(binding) or not binding.is_harmless
    if taken and isinstance(binding.tool, StructuredTool) and is_decided:
        raise BindingError(
            f"{name}: LangChain gives a function {', '.join(sorted(taken))} itself, so that its own"
            " argument of that name never arrives; rename it"
        )
    for path in binding.hidden:
        if "." in path or "[" in path:
            raise BindingError(
                f"{name}.{path}: what the guard fills in must be a top-level argument"
            )
    for path, value in binding.fixed.items():
        _require_allowed(f"{name}.{path}", schema, path, value)
    for path in binding.keys:
        if leaves[path].get("type") != "string" or is_binary(leaves[path]):
            raise BindingError(f"{name}.{path}: an idempotency key is a string")
    if isinstance(binding.destination, Arg) and "[" in binding.destination.path:
        raise BindingError(f"{name}.{binding.destination.path}: one call, one destination")
    _require_media(binding, leaves)
    for path in binding.operations:
        if leaves[path].get("type") not in ("string", "integer") or is_binary(leaves[path]):
            raise BindingError(f"{name}.{path}: an operation's id is a string or integer")
    _require_no_address(binding, leaves)
    for path in (*binding.plain, *binding.texts):
        if is_binary(leaves[path]):
            raise BindingError(f"{name}.{path}: bytes are no plain value; bind an asset")
    opened = opened_by_type(binding.tool)
    for path in binding.declared:
        if path in binding.assets or path in binding.outputs:
            continue
        if is_path(leaves[path]) or path in opened:
            raise BindingError(  # pydantic would look for what the model names (I3)
                f"{name}.{path}: a path of this machine, or a module, is never the model's to name;"
                " take an asset, or a choice of the names that there are"
            )


def require_known_defaults(binding: CompiledBinding, shape: Shape) -> None:
    """Refuse media that nobody took in as a default.

    Raises:
        BindingError: naming the argument.
    """
    for path in binding.assets:
        if path in shape.defaults:
            raise BindingError(
                f"{binding.tool.name}.{path}: its default is media that nobody took in; make it"
                " required, or None, and let the model name an asset"
            )


def defaults_made_when_run(binding: CompiledBinding, schema: Schema) -> frozenset[str]:
    """Arguments whose default a factory makes; none where people approve what goes out (I7).

    Raises:
        BindingError: a tool of the queue or export stage has one.
    """
    known = {*schema.get("properties", {})} - {*binding.hidden}
    made = [path for path in sorted(made_by_factory(binding.tool))
            if path.split(".")[0].rstrip("[]") in known]  # fmt: skip
    if made and binding.stage in (Stage.QUEUE, Stage.EXPORT):
        released = "a release" if binding.effect is OutsideEffect.NONE else "an export"
        raise BindingError(
            f"{binding.tool.name}: a factory makes the default of {', '.join(made)} when the tool"
            f" runs, so that nobody who approves {released} can see it; make the argument required,"
            " or give it a plain default"
        )
    return frozenset(made)


def _require_declared(binding: CompiledBinding, leaves: Mapping[str, Any]) -> None:
    name, declared = binding.tool.name, binding.declared
    twice = sorted({path for path in declared if declared.count(path) > 1})
    if twice:
        raise BindingError(f"{name}: {', '.join(twice)} is declared twice")
    missing = sorted(set(leaves) - set(declared))
    if missing:
        raise BindingError(
            f"{name}: nobody declared {', '.join(missing)}; give it a role: Asset(),"
            " Text(), Plain(), Output() or To()"
        )
    unknown = sorted(set(declared) - set(leaves))
    if unknown:
        raise BindingError(
            f"{name} has no argument {', '.join(unknown)}; it has {', '.join(leaves)}"
        )


def _require_allowed(where: str, schema: Schema, path: str, value: Any) -> None:
    """A developer's value must be one that the tool takes; it is never seen by the model."""
    own = {**schema.get("properties", {}).get(path, {})}
    own.update({name: schema[name] for name in ("$defs", "definitions") if name in schema})
    kind = jsonschema.validators.validator_for(own)
    for error in kind(own, registry=referencing.Registry()).iter_errors(jsonable(value)):
        raise BindingError(f"{where}: Fixed({value!r:.80}): {error.message:.200}")


def _require_media(binding: CompiledBinding, leaves: Mapping[str, Any]) -> None:
    """An asset or output is a path, bytes or base64, as the tool takes it."""
    name = binding.tool.name
    for path in (*binding.assets, *binding.outputs):
        if leaves[path].get("type") not in ("string", None):
            raise BindingError(f"{name}.{path}: takes no path or bytes, but numbers")
    for path, form in binding.assets.items():
        if is_encoded(leaves[path]) and form != "base64":
            raise BindingError(f"{name}.{path}: takes base64, bound as {form!r}")
        if form == "base64" and leaves[path].get("format") != "binary":
            continue
        if is_binary(leaves[path]) != (form == "bytes"):
            takes = "bytes" if is_binary(leaves[path]) else "text"
            raise BindingError(f"{name}.{path}: takes {takes}, bound as {form!r}")


def _require_no_address(binding: CompiledBinding, leaves: Mapping[str, Any]) -> None:
    """I3: a URL is never the model's to name; an asset can stand in for one, as a data URL."""
    is_checked = _is_model(binding)  # of a JSON schema, `format` is only a remark
    for path, leaf in leaves.items():
        if not is_address(leaf):
            continue
        form = binding.assets.get(path)
        if leaf.get("maxLength", _LONGEST) < _LONGEST and form == "data-url":
            raise BindingError(
                f"{binding.tool.name}.{path}: takes short web addresses only, and a data URL holds"
                " the media itself; let it take a path or bytes"
            )
        if form is None or (form == "path" and is_checked):
            raise BindingError(
                f"{binding.tool.name}.{path}: takes a URL, which is never the model's to name; hand"
                ' it an asset as data: Asset("data-url")'
            )


def _is_model(binding: CompiledBinding) -> bool:
    """Whether pydantic reads the arguments, and no JSON schema does."""
    return not isinstance(binding.tool.args_schema, dict)
