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
from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.tools import BaseTool

from agentguard.bindings.argument_reading import argument_model, json_validator, parsed
from agentguard.bindings.argument_schema import (
    Shape,
    is_address,
    is_encoded,
    jsonable,
    replace_at,
    values_at,
    with_defaults,
)
from agentguard.bindings.cedar_types import action_of
from agentguard.bindings.compiled_binding import SUFFIX, Arg, CompiledBinding
from agentguard.bindings.fitting import (
    defaults_made_when_run,
    require_fitting,
    require_known_defaults,
)
from agentguard.bindings.free_choice import bits_of, require_few_numbers
from agentguard.bindings.model_schema import (
    facing_json,
    facing_model,
    injected,
    json_schema,
)
from agentguard.bindings.result_paths import OPERATION
from agentguard.canonical import canonical, digest, plain
from agentguard.content.text.scan import looks_like_locator
from agentguard.errors import BindingError, CanonicalError
from agentguard.model import OutsideEffect, Stage

_MAX_PLAIN = 256


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
        require_fitting(binding, self._json_schema, self._shape)
        self.injected = injected(binding.tool, self._json_schema.get("properties", {}))
        self._factories = defaults_made_when_run(binding, self._json_schema)
        require_known_defaults(binding, self._shape)
        self.action = action_of(
            self.name,
            binding.stage,
            self._json_schema,
            absent={*binding.outputs, *binding.keys},
            made_when_run=self._factories,
            chosen=self._chosen(),
        )
        self.args_schema = self._facing_schema()
        given = set(self._leaves) - set(binding.hidden)
        self._model = argument_model(binding.tool, self.args_schema, leaves=given)
        self._validator = json_validator(self.name, self.args_schema)
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
            given, frozen = parsed(self.name, self._model, raw)
            self._require_own(given)  # a coercion or serializer may have made something else
            self._require_unchanged(raw, given)
            require_few_numbers(self.name, given, numbers)
            plain(frozen)
        frozen.update(copy.deepcopy(dict(self.binding.fixed)))
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
