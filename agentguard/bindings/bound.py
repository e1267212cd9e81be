"""What one plain tool's arguments mean, and the tool as the model sees it.

A Binding declares every argument of a tool by its path (`source`, `clips[].source`) as an asset, a
text, a plain value, an output or a destination. What nobody declared, and what can't be declared
(an open object, a union of shapes), is refused when the tool is bound: an argument that the guard
does not understand is one it can't judge (I5).
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jsonschema
import referencing
import referencing.exceptions
from langchain_core.tools import BaseTool, StructuredTool
from pydantic import BaseModel, ValidationError
from referencing.jsonschema import DRAFT202012

from agentguard.bindings.argument_schema import (
    Shape,
    is_address,
    is_binary,
    is_encoded,
    is_path,
    is_same,
    jsonable,
    replace_at,
    values_at,
    with_defaults,
)
from agentguard.bindings.binding import SUFFIX, Arg, CompiledBinding
from agentguard.bindings.cedar_types import action_of
from agentguard.bindings.declaration import MARK
from agentguard.bindings.free_choice import bits_of, require_few_numbers
from agentguard.bindings.mcp import require_place, require_same_endpoint
from agentguard.bindings.model_schema import (
    call_schema,
    facing_json,
    facing_model,
    injected,
    json_schema,
    made_by_factory,
    opened_by_type,
)
from agentguard.bindings.result_paths import OPERATION
from agentguard.bindings.tool_class import require_upstream_class, runs_alike
from agentguard.canonical import canonical, digest, plain
from agentguard.content.text.scan import looks_like_locator
from agentguard.errors import BindingError, CanonicalError
from agentguard.model import OutsideEffect, Stage

_MAX_PLAIN = 256
_LONGEST = 1 << 20  # a data URL that holds a picture is longer than any address


class Bound:
    """A Binding that was compared with its tool's schema: ready to freeze and fill arguments.

    Args:
        binding: the declaration.

    Attributes:
        action: the tool as policies see it.

    Raises:
        BindingError: naming the argument that is undeclared, declared twice, unknown or open.
    """

    def __init__(self, binding: CompiledBinding) -> None:
        self.binding = binding
        self.name = binding.tool.name
        self._json_schema = json_schema(binding.tool)
        self._shape = Shape(self._json_schema, self.name)
        self._leaves = self._shape.leaves
        self._require_declared()
        self._require_fitting()
        self.injected = injected(binding.tool, self._json_schema.get("properties", {}))
        self._factories = self._made_by_factory()
        self._require_known_defaults()
        self.action = action_of(
            self.name,
            binding.stage,
            self._json_schema,
            absent={*binding.outputs, *binding.keys},
            made_when_run=self._factories,
            chosen=self._chosen(),
        )
        self.args_schema = self._facing_schema()
        self._model = self._argument_model()
        self._validator = self._json_validator()
        try:
            self.digest = digest("agentguard/binding/v1", self._meaning())
        except CanonicalError as error:
            raise BindingError(f"{self.name}: its schema has no canonical form: {error}") from error

    def runs(self, tool: BaseTool) -> BaseTool:
        """Which object runs when a tool that passed `same_tool` is called: the one that was bound.

        Each session makes MCP tools anew, and an old one's is closed: there it is the one given.
        So it is with a known library's tool, which each agent holds its own of.
        """
        anew = self.binding.mcp is not None or self.binding.known is not None
        return tool if anew else self.binding.tool

    @property
    def carries_text(self) -> bool:
        """Whether the model can put words into the arguments: a text, or a free plain string."""
        words = [self._leaves[path] for path in self.binding.plain]
        free = any(w.get("type") not in ("integer", "number", "boolean")
                   and "enum" not in w and "const" not in w for w in words)  # fmt: skip
        return bool(self.binding.texts) or free

    @property
    def outside(self) -> OutsideEffect:
        """The effect a Grant is kept by: what reaches a vendor is never sent again unasked (I8)."""
        sends = self.binding.destination is not None and self.binding.stage is not Stage.QUEUE
        if sends and self.binding.effect is OutsideEffect.NONE:
            return OutsideEffect.OPAQUE
        return self.binding.effect

    @property
    def reaches_out(self) -> bool:
        """Whether a call sends anything off this machine: to a vendor, or to where it is released.

        Such a call is claimed durably and once: whatever was sent is paid for, and known there.
        """
        return self.outside is not OutsideEffect.NONE

    @property
    def releases(self) -> bool:
        """Whether a call does something that others see, as its Binding's `effect` says.

        What a vendor makes and gives back releases nothing: if it failed, it failed.
        """
        return self.binding.effect is not OutsideEffect.NONE

    @property
    def args_names(self) -> list[str]:
        """The arguments that the model may give, in the schema's order."""
        hidden = self.binding.hidden
        return [name for name in self._json_schema.get("properties", {}) if name not in hidden]

    def constants(self) -> list[tuple[str, Any]]:
        """What nobody gives and every call holds: fixed values and defaults, by their paths."""
        defaults = self._shape.defaults.items()
        return [*self.binding.fixed.items(), *((path, each) for path, all_ in defaults
                                               for each in all_)]  # fmt: skip

    def bits(self, frozen: Mapping[str, Any]) -> int:
        """How many bits the model is free to choose in the plain values and lists of a call (I4).

        Args:
            frozen: as `freeze` returned them.
        """
        return bits_of(frozen, self.binding, self._leaves, self._shape.defaults)

    def made_when_run(self, frozen: Mapping[str, Any]) -> tuple[str, ...]:
        """Arguments that nobody gave and the tool makes when it runs: no approver can see them."""
        absent = []
        for path in self._factories:
            parent = path.rpartition(".")[0]
            places = len(list(values_at(frozen, parent))) if parent else 1
            if len(list(values_at(frozen, path))) < places:
                absent.append(path)
        return tuple(absent)

    def changed(self, decided: Mapping[str, Any], runs: Mapping[str, Any]) -> tuple[str, ...]:
        """Arguments of which the tool's own schema makes something else than was decided (I7).

        Args:
            decided: as `fill` returned them.
            runs: what the tool's schema made of them, by name.
        """
        found = []
        for name in (*self.args_names, *self.binding.hidden):
            if name not in decided:
                if runs.get(name) is not None and name not in self._factories:
                    found.append(name)
            elif name not in runs or not self._is_same(name, decided[name], runs[name]):
                found.append(name)
        return tuple(found)

    def _is_same(self, name: str, decided: Any, runs: Any) -> bool:
        pair = []
        for value in (decided, runs):
            try:
                made = {name: with_defaults(value)}
            except (ValueError, TypeError):  # it has no JSON form
                return False
            for path in self.binding.assets:
                if is_encoded(self._leaves[path]) or is_address(self._leaves[path]):
                    replace_at(made, path, lambda _path, _value: True)  # decoded, or spelled anew
            pair.append(made)
        return bool(pair[0] == pair[1])

    def freeze(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """What the tool's schema makes of the model's arguments: JSON, with its defaults (I7).

        A default that a factory makes is left out, and so is a null that nobody gave.

        The same arguments give the same result in every process, and so does the result itself.

        Args:
            raw: arguments as the model wrote them; injected ones are left out by the caller.

        Raises:
            ValueError: off the schema, an extra argument at any level, a plain value that is a
                path, URL or base64, too many numbers, or a text, asset or destination that the
                tool's schema changes; the message is safe to show to the model.
        """
        canonical(raw)  # JSON, of bounded depth
        numbers = (*self.binding.plain, *self.binding.texts)
        self._require_own(raw)
        if self._model is None:
            given = jsonable(raw)
            require_few_numbers(self.name, given, numbers)
            frozen = self._shape.with_defaults(given, but=self.binding.hidden)
            for error in self._validator.iter_errors(frozen) if self._validator else ():
                expected = f"{error.validator} {error.validator_value!r:.120}"
                raise ValueError(f"{self.name}: {error.json_path}: expected {expected}")
        else:
            given, frozen = self._parsed(self._model, raw)
            if not is_same(raw, given):  # a coercion or serializer made something else
                self._require_own(given)
                self._require_unchanged(raw, given)
            require_few_numbers(self.name, given, numbers)
        frozen.update(copy.deepcopy(dict(self.binding.fixed)))
        if not is_same(raw, frozen):
            plain(frozen)
            self._shape.require(frozen, hidden=self.binding.hidden)
        copied: dict[str, Any] = json.loads(json.dumps(frozen))  # a default is the schema's own
        return copied

    def fill(
        self,
        frozen: Mapping[str, Any],
        replace: Callable[[str, Any], Any],
        outputs: Mapping[str, str],
        *,
        key: str = "",
    ) -> dict[str, Any]:
        """The arguments the tool runs with: assets and the destination replaced, the rest set.

        Args:
            frozen: as `freeze` returned them.
            replace: given (argument path, asset id), returns what the tool gets.
            outputs: output path → file path in the call's scratch folder.
            key: the call's idempotency key.
        """
        binding = self.binding
        filled = copy.deepcopy(dict(frozen))
        for path in binding.assets:
            replace_at(filled, path, replace)
        if binding.places and isinstance(binding.destination, Arg):
            # The model may name these ids and no others: the facing schema lists them.
            replace_at(filled, binding.destination.path, lambda _, id: binding.places[id])
        filled.update(outputs)
        filled.update(dict.fromkeys(binding.keys, key))
        return filled

    def suffix(self, output: str) -> str:
        """The file name suffix of an output, e.g. `.png`."""
        known = self.binding.outputs[output]
        default = self._leaves[output].get("default")
        if not known and isinstance(default, str):
            known = os.path.splitext(default)[1]
        if not known or SUFFIX.fullmatch(known) is None:
            return ".mp4" if self.binding.stage is Stage.RENDER else ".png"
        return known

    @property
    def _is_model(self) -> bool:
        """Whether pydantic reads the arguments; a JSON schema's `format` is only a remark."""
        return not isinstance(self.binding.tool.args_schema, dict)

    def _meaning(self) -> dict[str, Any]:
        # `probe` is not in it: it changes nothing that a call does, and a better one must be able
        # to look for what was begun before it was written.
        binding = self.binding
        mcp = binding.mcp
        pinned = {} if mcp is None else {"mcp": [mcp.server, mcp.name, mcp.schema]}
        local = {"local": True} if binding.local else {}
        # What a tool does not have says nothing, so that its digest stays what it was.
        newer = {
            "fixed": dict(binding.fixed),
            "places": dict(binding.places),
            "keys": set(binding.keys),
            "patterns": dict(binding.patterns),
            "results": [[each.where, each.form, each.folder] for each in binding.results],
            "findings": binding.findings,
        }
        return {
            **pinned,
            **local,
            **{name: meaning for name, meaning in newer.items() if meaning},
            "tool": self.name,
            "schema": self._shape.steady(self._json_schema),
            "stage": binding.stage,
            "assets": dict(binding.assets),
            "texts": set(binding.texts),
            "plain": set(binding.plain),
            "outputs": dict(binding.outputs),
            "destination": repr(binding.destination),
            "effect": binding.effect,
            "reveals": binding.reveals,
            "labels": binding.labels,
            "state": set(binding.state),
            "interrupts": binding.interrupts,
            "unsafe_routes": binding.unsafe_routes,
            "starts": repr(binding.starts),
            "operations": {path: set(tools) for path, tools in binding.operations.items()},
            "urls": [repr(where) for where in binding.urls],
            "remembers": set(binding.remembers),
        }

    def _require_declared(self) -> None:
        declared, leaves = self.binding.declared, self._leaves
        twice = sorted({path for path in declared if declared.count(path) > 1})
        if twice:
            raise BindingError(f"{self.name}: {', '.join(twice)} is declared twice")
        missing = sorted(set(leaves) - set(declared))
        if missing:
            raise BindingError(
                f"{self.name}: nobody declared {', '.join(missing)}; give it a role: Asset(),"
                " Text(), Plain(), Output() or To()"
            )
        unknown = sorted(set(declared) - set(leaves))
        if unknown:
            raise BindingError(
                f"{self.name} has no argument {', '.join(unknown)}; it has {', '.join(leaves)}"
            )

    def _require_fitting(self) -> None:
        binding, leaves = self.binding, self._leaves
        for path in binding.hidden:
            if "." in path or "[" in path:
                raise BindingError(
                    f"{self.name}.{path}: what the guard fills in must be a top-level argument"
                )
        for path, value in binding.fixed.items():
            self._require_allowed(path, value)
        for path in binding.keys:
            if leaves[path].get("type") != "string" or is_binary(leaves[path]):
                raise BindingError(f"{self.name}.{path}: an idempotency key is a string")
        if isinstance(binding.destination, Arg) and "[" in binding.destination.path:
            raise BindingError(f"{self.name}.{binding.destination.path}: one call, one destination")
        for path in (*binding.assets, *binding.outputs):
            if leaves[path].get("type") not in ("string", None):
                raise BindingError(f"{self.name}.{path}: takes no path or bytes, but numbers")
        for path, form in binding.assets.items():
            if is_encoded(leaves[path]) and form != "base64":
                raise BindingError(f"{self.name}.{path}: takes base64, bound as {form!r}")
            if form == "base64" and leaves[path].get("format") != "binary":
                continue
            if is_binary(leaves[path]) != (form == "bytes"):
                takes = "bytes" if is_binary(leaves[path]) else "text"
                raise BindingError(f"{self.name}.{path}: takes {takes}, bound as {form!r}")
        for path in binding.operations:
            if leaves[path].get("type") not in ("string", "integer") or is_binary(leaves[path]):
                raise BindingError(f"{self.name}.{path}: an operation's id is a string or integer")
        self._require_no_address()
        for path in (*binding.plain, *binding.texts):
            if is_binary(leaves[path]):
                raise BindingError(f"{self.name}.{path}: bytes are no plain value; bind an asset")
        opened = opened_by_type(binding.tool)
        for path in binding.declared:
            if path in binding.assets or path in binding.outputs:
                continue
            if is_path(leaves[path]) or path in opened:
                raise BindingError(  # pydantic would look for what the model names (I3)
                    f"{self.name}.{path}: a path of this machine, or a module, is never the"
                    " model's to name; take an asset, or a choice of the names that there are"
                )

    def _require_allowed(self, path: str, value: Any) -> None:
        """A developer's value must be one that the tool takes; it is never seen by the model."""
        schema = {**self._json_schema.get("properties", {}).get(path, {})}
        schema.update({name: self._json_schema[name] for name in ("$defs", "definitions")
                       if name in self._json_schema})  # fmt: skip
        kind = jsonschema.validators.validator_for(schema)
        errors = kind(schema, registry=referencing.Registry()).iter_errors(jsonable(value))
        for error in errors:
            raise BindingError(f"{self.name}.{path}: Fixed({value!r:.80}): {error.message:.200}")

    def _made_by_factory(self) -> frozenset[str]:
        """Arguments whose default a factory makes; none where people approve what goes out (I7).

        Raises:
            BindingError: a tool of the queue or export stage has one.
        """
        known = {*self._json_schema.get("properties", {})} - {*self.binding.hidden}
        made = [path for path in sorted(made_by_factory(self.binding.tool))
                if path.split(".")[0].rstrip("[]") in known]  # fmt: skip
        if made and self.binding.stage in (Stage.QUEUE, Stage.EXPORT):
            raise BindingError(
                f"{self.name}: a factory makes the default of {', '.join(made)} when the tool runs,"
                f" so that nobody who approves {'an export' if self.releases else 'a release'} can"
                " see it; make the argument required, or give it a plain default"
            )
        return frozenset(made)

    def _require_known_defaults(self) -> None:
        for path in self.binding.assets:
            if path in self._shape.defaults:
                raise BindingError(
                    f"{self.name}.{path}: its default is media that nobody took in; make it"
                    " required, or None, and let the model name an asset"
                )

    def _require_no_address(self) -> None:
        """I3: a URL is never the model's to name; an asset can stand in for one, as a data URL."""
        binding = self.binding
        for path, leaf in self._leaves.items():
            if not is_address(leaf):
                continue
            form = binding.assets.get(path)
            if leaf.get("maxLength", _LONGEST) < _LONGEST and form == "data-url":
                raise BindingError(
                    f"{self.name}.{path}: takes short web addresses only, and a data URL holds the"
                    " media itself; let it take a path or bytes"
                )
            if form is None or (form == "path" and self._is_model):
                raise BindingError(
                    f"{self.name}.{path}: takes a URL, which is never the model's to name; hand it"
                    ' an asset as data: Asset("data-url")'
                )

    def _require_own(self, arguments: Mapping[str, Any]) -> None:
        for name in self.binding.hidden:
            if name in arguments:
                raise ValueError(f"{self.name} has no argument {name!r}")
        self._shape.require(arguments, hidden=self.binding.hidden)
        for path in self.binding.plain:
            for value in values_at(arguments, path):
                self._require_plain(path, value)
        for path, tools in self.binding.operations.items():
            for value in values_at(arguments, path):
                if isinstance(value, bool) or OPERATION.fullmatch(str(value)) is None:
                    raise ValueError(
                        f"{self.name}.{path} takes an operation's id as {' or '.join(tools)}"
                        " returned it"
                    )

    def _require_plain(self, path: str, value: Any) -> None:
        if not isinstance(value, str):
            return
        leaf = self._leaves[path]
        if "enum" in leaf or "const" in leaf or value in self._shape.defaults.get(path, ()):
            return
        if len(value) > leaf.get("maxLength", _MAX_PLAIN):
            raise ValueError(f"{self.name}.{path}: {len(value)} characters are too long")
        if not value.isprintable():
            raise ValueError(f"{self.name}.{path}: invisible characters; use one line of text")
        pattern = self.binding.patterns.get(path)
        if pattern is not None and re.fullmatch(pattern, value) is None:
            raise ValueError(f"{self.name}.{path}: expected a value that matches {pattern}")
        reason = looks_like_locator(value)
        if reason is not None:  # I3: a path, URL or host name the model wrote is never opened
            raise ValueError(f"{self.name}.{path}: {reason}; give an asset id where media belong")

    def _require_unchanged(self, raw: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        """A text, asset or destination is what the model wrote, or it is refused (I7)."""
        binding = self.binding
        to = (binding.destination.path,) if isinstance(binding.destination, Arg) else ()
        written = jsonable(raw)
        for path in (*to, *binding.texts, *binding.assets):
            before, after = list(values_at(written, path)), list(values_at(given, path))
            if before != after and not self._shape.is_same_set(path, before, after):
                raise ValueError(
                    f"{self.name}.{path}: the tool's own schema turns what was written into"
                    " something else; write it as the tool takes it, without blanks at its ends"
                )

    def _parsed(
        self, model: type[BaseModel], raw: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a schema makes of arguments: those that were given, and with the defaults."""
        try:
            parsed = model.model_validate(dict(raw))
            given: dict[str, Any] = jsonable(parsed)
            found: dict[str, Any] = with_defaults(parsed)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{self.name}: {where:.80}: {first['msg']:.200}") from None
        except Exception as error:  # I11: a validator of the tool's own types may raise anything
            raise ValueError(
                f"{self.name}: its schema failed on these arguments ({type(error).__name__})"
            ) from error
        return given, found

    def _facing_schema(self) -> Any:
        original = self.binding.tool.args_schema
        if isinstance(original, dict):
            binding = self.binding
            return facing_json(original, self._shape, shown=self._shown, hidden=binding.hidden)
        if isinstance(original, type) and getattr(original, "model_config", {}).get(
            "extra"
        ) == "allow":  # fmt: skip
            raise BindingError(f"{self.name}: its schema takes any argument; set extra='forbid'")
        if not (self._shown or self.binding.hidden):
            return original
        return facing_model(self.binding.tool, shown=self._shown, hidden=self.binding.hidden)

    @property
    def _shown(self) -> dict[str, tuple[str, ...]]:
        """Paths where the model sees something else than the tool takes: asset ids, places."""
        shown: dict[str, tuple[str, ...]] = dict.fromkeys(self.binding.assets, ())
        if self.binding.places and isinstance(self.binding.destination, Arg):
            shown[self.binding.destination.path] = tuple(self.binding.places)
        return shown

    def _chosen(self) -> dict[str, tuple[str, ...]]:
        """Paths where a Request holds one of a few names that the tool does not take itself."""
        return {path: ids for path, ids in self._shown.items() if ids}

    def _argument_model(self) -> type[BaseModel] | None:
        if isinstance(self.args_schema, dict):
            return None
        facing = self.binding.tool.model_copy(update={"args_schema": self.args_schema})
        model = call_schema(facing)
        if isinstance(model, dict):
            return None
        written = Shape(model.model_json_schema(mode="serialization", by_alias=True), self.name)
        differ = set(written.leaves) ^ (set(self._leaves) - set(self.binding.hidden))
        if differ:
            raise BindingError(
                f"{self.name}: {', '.join(sorted(differ))} is read and written under different"
                " names (an alias, a computed field); give it one name"
            )
        for name, field in model.model_fields.items():
            if field.default_factory is not None or field.is_required():
                continue
            try:
                plain(jsonable(field.default))
            except ValueError as error:
                raise BindingError(
                    f"{self.name}.{name}: its default has no JSON form, so that nobody could see"
                    " it; give it one that has, or None"
                ) from error
        return model

    def _json_validator(self) -> Any:
        if not isinstance(self.args_schema, dict):
            return None
        kind = jsonschema.validators.validator_for(self.args_schema)
        try:
            kind.check_schema(self.args_schema)
        except jsonschema.SchemaError as error:
            raise BindingError(
                f"{self.name}: its schema is no JSON schema: {error.message}"
            ) from error
        whole = DRAFT202012.create_resource(self.args_schema)
        registry = referencing.Registry().with_resource("", whole)  # nothing is fetched
        for reference in sorted(set(_references(self.args_schema))):
            try:
                registry.resolver().lookup(reference)
            except referencing.exceptions.Unresolvable:
                raise BindingError(
                    f"{self.name}: its schema refers to {reference!r:.120}, which is not in it;"
                    " write it out"
                ) from None
        return kind(self.args_schema, registry=referencing.Registry())


def same_tool(bound: Bound, tool: BaseTool) -> bool:
    """Whether a tool object is the one that was bound, or a copy of it with the same state.

    Raises:
        BindingError: an MCP tool other than the one that was pinned, or one whose class overrides
            what runs before `_run`, saying what differs.
    """
    binding = bound.binding
    pin, original = binding.mcp, binding.tool
    if pin is not None:
        pin.require(tool)
        require_same_endpoint(original, tool)
        require_place(
            tool,
            sends=bool(binding.assets or binding.texts),
            placed=binding.destination is not None,
            local=binding.local,
        )
    require_upstream_class(original)
    require_upstream_class(tool)
    if binding.known is not None:
        binding.known.accept(tool)
        return True
    return (
        pin is not None
        or tool is original
        or runs_alike(original, tool)
        or _is_same_function(original, tool)
    )


def _is_same_function(original: BaseTool, tool: BaseTool) -> bool:
    """Whether LangChain made both of the same declared function; the one that was bound runs."""
    if type(tool) is not StructuredTool or type(original) is not StructuredTool:
        return False
    bodies = [(each.func, each.coroutine) for each in (original, tool)]
    declared = any(getattr(body, MARK, None) is not None for body in bodies[0])
    return declared and all(one is other for one, other in zip(*bodies, strict=True))


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
