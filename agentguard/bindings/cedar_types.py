"""What policies can read of a tool's arguments: their types, from the tool's JSON schema.

An argument has a type there if every value that it can take is of one kind: text, whole numbers,
numbers, booleans, lists of one of these, objects with named fields. A union of kinds, and a list
that may hold null, have none and are left out; so are names that Cedar's JSON keeps for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from agentguard.bindings.argument_schema import Shape
from agentguard.errors import BindingError
from agentguard.model import ArgumentKind, ArgumentType, Stage, ToolAction

_SCALARS = {
    "string": ArgumentKind.STRING,
    "integer": ArgumentKind.INTEGER,
    "number": ArgumentKind.NUMBER,
    "boolean": ArgumentKind.BOOLEAN,
}
_OF_VALUE = {str: "string", bool: "boolean", int: "integer", float: "number"}
_MOST_NODES = 256


def action_of(
    name: str,
    stage: Stage | None,
    schema: Mapping[str, Any],
    *,
    absent: Iterable[str] = (),
    made_when_run: Iterable[str] = (),
    chosen: Mapping[str, Sequence[str]] | None = None,
) -> ToolAction:
    """A tool as an action of policies.

    Args:
        name: of the tool.
        stage: that it is bound to.
        schema: the JSON schema of its arguments, which a `Shape` accepts.
        absent: top-level arguments that no Request holds: the guard fills them in when it runs.
        made_when_run: paths of arguments whose default a factory makes then.
        chosen: paths of arguments → the only strings that a Request holds there.

    Raises:
        BindingError: the tool's name can't be the name of an action.
    """
    if not name or not name.isprintable() or " " in name or ":" in name:
        raise BindingError(
            f"a tool is called {name!r:.80}, expected a name without blanks and colons: policies"
            ' name it, as Action::"name", and stages are groups such as Action::"stage:edit"'
        )
    reader = _Reader(Shape(schema, name), frozenset(made_when_run), chosen or {})
    arguments = reader.fields(reader.shape.resolve(schema, ""), "", frozenset(absent))
    return ToolAction(
        name=name, stage=stage, arguments=arguments, left_out=tuple(sorted(reader.left_out))
    )


class _Reader:
    def __init__(
        self, shape: Shape, made_when_run: frozenset[str], chosen: Mapping[str, Sequence[str]]
    ) -> None:
        self.shape = shape
        self.left_out: set[str] = set()
        self._made_when_run = made_when_run
        self._chosen = chosen
        self._nodes = 0

    def fields(
        self, node: Mapping[str, Any], path: str, absent: frozenset[str] = frozenset()
    ) -> Mapping[str, ArgumentType]:
        """The types of an object's fields; those without a type are noted in `left_out`."""
        required = set(node.get("required", ()))
        made: dict[str, ArgumentType] = {}
        for name, child in node.get("properties", {}).items():
            if name in absent:
                continue
            below = f"{path}.{name}" if path else name
            optional = (
                below in self._made_when_run
                or self._takes_null(child, below)
                or not (name in required or self._has_default(child, below))
            )
            known = None if name.startswith("__") else self._type(child, below, optional)
            if known is None:
                self.left_out.add(below)
            else:
                made[name] = known
        return MappingProxyType(made)

    def _has_default(self, child: Mapping[str, Any], path: str) -> bool:
        return child.get("default", self.shape.resolve(child, path).get("default")) is not None

    def _type(self, node: Any, path: str, optional: bool) -> ArgumentType | None:
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            return None
        if path in self._chosen:
            choices = tuple(self._chosen[path])
            return ArgumentType(kind=ArgumentKind.STRING, optional=optional, choices=choices)
        kinds = self.shape.alternatives(node, path)
        if len(kinds) == 1 and kinds[0].get("type") == "array":
            return self._list(kinds[0].get("items"), f"{path}[]", optional)
        if len(kinds) == 1 and "properties" in kinds[0]:
            fields = self.fields(kinds[0], path)
            return ArgumentType(kind=ArgumentKind.OBJECT, optional=optional, fields=fields)
        return _scalar(kinds, optional)

    def _list(self, items: Any, path: str, optional: bool) -> ArgumentType | None:
        if not isinstance(items, Mapping) or self._takes_null(items, path):
            return None  # Cedar has no null
        item = self._type(items, path, False)
        if item is None:
            return None
        return ArgumentType(kind=ArgumentKind.LIST, optional=optional, item=item)

    def _takes_null(self, node: Any, path: str) -> bool:
        return self.shape.is_optional(node, path) or None in self.shape.resolve(node, path).get(
            "enum", ()
        )


def _scalar(kinds: Sequence[Mapping[str, Any]], optional: bool) -> ArgumentType | None:
    """The type of a value that is of one kind, whichever of the alternatives it takes."""
    found: set[ArgumentKind] = set()
    choices: list[str | int] | None = []
    for kind in kinds:
        listed = kind["enum"] if "enum" in kind else [kind["const"]] if "const" in kind else None
        values = None if listed is None else [value for value in listed if value is not None]
        named = kind.get("type")
        if named is None and values:
            words = {_OF_VALUE.get(type(value)) for value in values}
            named = words.pop() if len(words) == 1 else None
        if named not in _SCALARS:
            return None
        found.add(_SCALARS[named])
        if values is None or not all(type(value) in (str, int) for value in values):
            choices = None
        elif choices is not None:
            choices += values
    if found == {ArgumentKind.INTEGER, ArgumentKind.NUMBER}:
        found = {ArgumentKind.NUMBER}
    if len(found) != 1:
        return None
    (one,) = found
    listed_kinds = (ArgumentKind.STRING, ArgumentKind.INTEGER)
    return ArgumentType(
        kind=one,
        optional=optional,
        choices=tuple(choices) if choices is not None and one in listed_kinds else None,
    )
