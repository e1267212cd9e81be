"""The shape of a tool's arguments: each value by its path, and nothing open.

A path names values as a Binding does: `source`, `clips[].source`. Whatever may reach a tool stands
at a path that the schema spells out; an open object, a union of shapes, or a name that could be
taken for a path is refused when the tool is bound (I5).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, Literal

from pydantic import BaseModel, RootModel
from pydantic_core import to_jsonable_python

from agentguard.errors import BindingError

Kind = Literal["value", "object", "list"]

_MAX_DEPTH = 8
_MAX_VALUES = 1024
_MAX_CHARACTERS = 131_072
_EXACT = (str, int, bool, type(None))
_SCALARS = ("string", "integer", "number", "boolean")
_NAME = re.compile(r"[^\s.\[\]/\\]{1,64}")  # a dot or bracket would read as a path
_REFERENCE = re.compile(r"#/(?:\$defs|definitions)/([^/~%]+)")


class Shape:
    """Every path of a JSON schema, and what stands there.

    Args:
        schema: the schema of an object, as pydantic or an MCP server writes it.
        tool: the tool's name, for messages.

    Attributes:
        leaves: path → schema of the one value there, in the schema's order.
        defaults: path → values that the schema itself puts there.
        kinds: path → whether a value, an object or a list stands there.

    Raises:
        BindingError: names the argument that is open, a union of shapes, or nested too deeply.
    """

    def __init__(self, schema: Mapping[str, Any], tool: str) -> None:
        self._tool = tool
        self._definitions = schema.get("$defs") or schema.get("definitions") or {}
        self.kinds: dict[str, Kind] = {}
        self.leaves: dict[str, Mapping[str, Any]] = {}
        self.defaults: dict[str, list[Any]] = {}
        self._sets: set[str] = set()
        self._root = schema
        root = self.resolve(schema, "")
        if root.get("type", "object") != "object" or _is_open(root):
            raise BindingError("its arguments are no closed object; name each of them", tool=tool)
        self._object(root, "", 0)

    def require(self, value: Any, *, hidden: Container[str] = ()) -> None:
        """Refuse JSON data of another shape: what stands at no path of the schema reaches no tool.

        Args:
            hidden: top-level arguments that are not the model's to give, nor to hear of.

        Raises:
            ValueError: an unknown name at any level, a list where a value belongs, or too much.
        """
        found = characters = 0
        pending: list[tuple[str, Any]] = [("", value)]
        while pending:
            path, item = pending.pop()
            kind = self.kinds.get(path)
            found += 1
            if kind == "object" and isinstance(item, Mapping):
                for name, inner in item.items():
                    known = isinstance(name, str) and _NAME.fullmatch(name) is not None
                    below = _join(path, name) if known else ""
                    if not known or below not in self.kinds:
                        may = [leaf for leaf in self.leaves if _top(leaf) not in hidden]
                        raise ValueError(
                            f"{self._tool} has no argument {_join(path, str(name))!r:.80}; it has"
                            f" {', '.join(may) or 'none'}"
                        )
                    pending.append((below, inner))
            elif kind == "list" and isinstance(item, (list, tuple, set, frozenset)):
                pending.extend((f"{path}[]", inner) for inner in item)
            elif item is not None and (kind != "value" or _word(item) != "value"):
                raise ValueError(
                    f"{self._tool}.{path}: got {_word(item)}, expected {kind or 'nothing'}"
                )
            elif isinstance(item, str):
                characters += len(item)
            if len(pending) + found > _MAX_VALUES or characters > _MAX_CHARACTERS:
                raise ValueError(
                    f"{self._tool} got too much: at most {_MAX_VALUES} values and"
                    f" {_MAX_CHARACTERS} characters go into one call"
                )

    def with_defaults(self, arguments: Mapping[str, Any], *, but: Iterable[str]) -> dict[str, Any]:
        """Arguments with what the schema puts where nothing was given; a null is left out (I7).

        Args:
            but: top-level arguments that the guard fills in.
        """
        made: dict[str, Any] = self._with_defaults(self._root, dict(arguments), "", frozenset(but))
        return made

    def _with_defaults(self, node: Any, value: Any, path: str, but: Set[str]) -> Any:
        node = self.resolve(node, path)
        kinds = self._kinds_of(node, path)
        if len(kinds) == 1:
            node = {**node, **kinds[0]}
        if isinstance(value, list) and "items" in node:
            items, below = node["items"], f"{path}[]"
            return [self._with_defaults(items, item, below, frozenset()) for item in value]
        if not isinstance(value, Mapping):
            return value
        filled = dict(value)
        for name, child in node.get("properties", {}).items():
            below = _join(path, name)
            if name not in filled and name not in but:
                default = child.get("default", self.resolve(child, below).get("default"))
                if default is not None:
                    filled[name] = copy.deepcopy(default)
            if name in filled:
                filled[name] = self._with_defaults(child, filled[name], below, frozenset())
        return filled

    def steady(self, node: Any) -> Any:
        """A schema whose default values are written alike in every process: sets are sorted."""
        if isinstance(node, Mapping):
            made = {name: self.steady(item) for name, item in node.items() if name != "default"}
            if "default" in node:
                made["default"] = self._steady_value(node["default"], node, 0)
            return made
        if isinstance(node, (list, tuple)):
            return [self.steady(item) for item in node]
        return node

    def is_same_set(self, path: str, one: Sequence[Any], other: Sequence[Any]) -> bool:
        """Whether values of a list are the same, where the schema says that it is a set."""
        in_a_set = any(path.startswith(f"{known}[]") for known in self._sets)
        return in_a_set and set(one) == set(other)

    def is_optional(self, node: Any, path: str) -> bool:
        """Whether a node takes null."""
        node = self.resolve(node, path)
        types = node.get("type")
        choices = [*node.get("anyOf", ()), *node.get("oneOf", ())]
        return (
            types == "null"
            or (isinstance(types, list) and "null" in types)
            or any(self.resolve(choice, path).get("type") == "null" for choice in choices)
        )

    def alternatives(self, node: Any, path: str) -> list[Mapping[str, Any]]:
        """What a node can be besides null, references followed; itself, if it is one thing."""
        node = self.resolve(node, path)
        kinds = self._kinds_of(node, path)
        if len(kinds) == 1:
            return [{**{k: v for k, v in node.items() if k not in ("anyOf", "oneOf")}, **kinds[0]}]
        return kinds or [node]

    def _steady_value(self, value: Any, node: Any, depth: int) -> Any:
        if not isinstance(node, Mapping) or depth > _MAX_DEPTH:
            return value
        node = self.resolve(node, "")
        if isinstance(value, Mapping):
            known = node.get("properties", {})
            return {k: self._steady_value(v, known.get(k), depth + 1) for k, v in value.items()}
        if isinstance(value, list):
            items = [self._steady_value(item, node.get("items"), depth + 1) for item in value]
            return sorted(items, key=repr) if node.get("uniqueItems") else items
        return value

    def _walk(self, node: Any, path: str, depth: int) -> None:
        if not isinstance(node, Mapping):
            raise self._refused("an open shape (any) can't be bound; name its fields", path)
        if depth > _MAX_DEPTH:
            raise self._refused("nested too deeply to be bound; flatten it", path)
        self._note_default(path, node.get("default"))
        node = self.resolve(node, path)
        self._note_default(path, node.get("default"))
        kinds = self._kinds_of(node, path)
        if len(kinds) == 1:
            rest = {k: v for k, v in node.items() if k not in ("anyOf", "oneOf")}
            self._walk({**rest, **kinds[0]}, path, depth + 1)
        elif kinds and all(_is_scalar(kind) for kind in kinds):
            self._leaf(path, _union(kinds))
        elif not kinds and _is_scalar(node):
            self._leaf(path, node)
        elif not kinds and node.get("type") == "array" and {"items", "prefixItems"} & {*node}:
            if "prefixItems" in node:
                raise self._refused("a tuple can't be bound; make each part an argument", path)
            self.kinds[path] = "list"
            if node.get("uniqueItems"):
                self._sets.add(path)
            self._walk(node["items"], f"{path}[]", depth + 1)
        elif not kinds and "properties" in node and not _is_open(node):
            self._object(node, path, depth)
        else:
            raise self._refused(
                f"an open shape ({node.get('type', 'any')}) can't be bound; give it a schema with"
                " named fields, or split the tool",
                path,
            )

    def _refused(self, sentence: str, path: str) -> BindingError:
        return BindingError(sentence, tool=self._tool, path=path)

    def _note_default(self, path: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, item in value.items():
                self._note_default(_join(path, str(name)), item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                self._note_default(f"{path}[]", item)
        elif value is not None:
            self.defaults.setdefault(path, []).append(value)

    def _object(self, node: Mapping[str, Any], path: str, depth: int) -> None:
        self.kinds[path] = "object"
        for name, child in node.get("properties", {}).items():
            if _NAME.fullmatch(name) is None:
                raise BindingError(f"an argument can't be named {name!r:.80}", tool=self._tool)
            self._walk(child, _join(path, name), depth + 1)

    def _leaf(self, path: str, node: Mapping[str, Any]) -> None:
        self.kinds[path] = "value"
        self.leaves[path] = node

    def _kinds_of(
        self, node: Mapping[str, Any], path: str, depth: int = 0
    ) -> list[Mapping[str, Any]]:
        """The alternatives of a node besides null; none where it has no alternatives."""
        if depth > _MAX_DEPTH:
            raise self._refused("nested too deeply to be bound; flatten it", path)
        choices = [*node.get("anyOf", ()), *node.get("oneOf", ())]
        types = node.get("type")
        if not choices and isinstance(types, list):
            choices = [{**node, "type": one} for one in types]
        kinds = [self.resolve(choice, path) for choice in choices]
        nested = [self._kinds_of(kind, path, depth + 1) or [kind] for kind in kinds]
        return [kind for inner in nested for kind in inner if kind.get("type") != "null"]

    def resolve(self, node: Any, path: str) -> Mapping[str, Any]:
        """A node with its reference followed; empty where it is no schema of named things."""
        for _ in range(_MAX_DEPTH):
            if not isinstance(node, Mapping):
                return {}
            reference = node.get("$ref")
            if reference is None and len(node.get("allOf", ())) == 1:
                node = {**node["allOf"][0], **{k: v for k, v in node.items() if k != "allOf"}}
            elif reference is None:
                return node
            else:
                found = _REFERENCE.fullmatch(str(reference))
                if found is None or found[1] not in self._definitions:
                    raise self._refused("its schema refers elsewhere; write it out", path)
                node = self._definitions[found[1]]
        return {}


def is_binary(leaf: Mapping[str, Any]) -> bool:
    """Whether a value is bytes."""
    return leaf.get("format") == "binary" or is_encoded(leaf)


def is_path(leaf: Mapping[str, Any]) -> bool:
    """Whether a value is a path of this machine: pydantic looks for some of them when it reads."""
    return str(leaf.get("format", "")).lower().endswith("path")


def is_address(leaf: Mapping[str, Any]) -> bool:
    """Whether a value is a URL."""
    return leaf.get("format") in ("uri", "url", "uri-reference")


def is_encoded(leaf: Mapping[str, Any]) -> bool:
    """Whether a value is bytes written as base64 or the like."""
    return leaf.get("format") in ("base64", "base64url") or "contentEncoding" in leaf


def has_value(args: Mapping[str, Any], paths: Iterable[str]) -> bool:
    """Whether arguments hold anything at one of these paths."""
    return any(True for path in paths for _ in values_at(args, path))


def values_at(arguments: Mapping[str, Any], path: str) -> Iterator[Any]:
    """Every value an argument path names; none where an optional argument is absent or null."""
    found: list[Any] = [arguments]
    for step in path.split("."):
        name, depth = step.rstrip("[]"), step.count("[]")
        found = [item[name] for item in found if isinstance(item, Mapping) and name in item]
        for _ in range(depth):
            found = [inner for item in found if isinstance(item, list) for inner in item]
    yield from (value for value in found if value is not None)


def replace_at(arguments: dict[str, Any], path: str, replace: Callable[[str, Any], Any]) -> None:
    """Replace, in place, every value that `values_at` yields by `replace(path, value)`."""
    steps: list[str] = []
    for step in path.split("."):
        steps += [step.rstrip("[]"), *["[]"] * step.count("[]")]
    _replace_at(arguments, steps, lambda value: replace(path, value))


def _replace_at(container: Any, steps: Sequence[str], replace: Callable[[Any], Any]) -> None:
    step, rest = steps[0], steps[1:]
    places: Sequence[Any] = ()
    if step == "[]":
        places = range(len(container)) if isinstance(container, list) else ()
    elif isinstance(container, dict) and step in container:
        places = (step,)
    for place in places:
        if rest:
            _replace_at(container[place], rest, replace)
        elif container[place] is not None:
            container[place] = replace(container[place])


def with_defaults(value: Any) -> Any:
    """JSON data of parsed arguments with the defaults that will run (I7).

    What a factory makes is left out, since each parse makes another one, and so is a null that
    nobody gave.
    """
    if isinstance(value, BaseModel):
        return jsonable(value.model_dump(by_alias=True, exclude=_left_out(value)))
    if isinstance(value, Mapping):
        return {str(key): with_defaults(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [with_defaults(item) for item in value]
    return bytes(value) if isinstance(value, (bytes, bytearray)) else jsonable(value)


def _left_out(value: Any) -> dict[Any, Any]:
    """What `with_defaults` leaves out, as pydantic's `exclude`."""
    if isinstance(value, RootModel):
        return {}
    if isinstance(value, BaseModel):
        names = type(value).model_fields
        left: dict[Any, Any] = {}
        for name, field in names.items():
            item = getattr(value, name)
            made = field.default_factory is not None or item is None
            left[name] = True if made and name not in value.model_fields_set else _left_out(item)
    elif isinstance(value, Mapping):
        left = {key: _left_out(item) for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        left = {index: _left_out(item) for index, item in enumerate(value)}
    else:
        return {}
    return {key: item for key, item in left.items() if item}


def jsonable(value: Any) -> Any:
    """JSON data in which sets are sorted: pydantic's own dump orders them per process."""
    if type(value) in _EXACT:
        return value
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((jsonable(item) for item in value), key=repr)
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, BaseModel):
        return jsonable(value.model_dump(exclude_unset=True, by_alias=True))
    return to_jsonable_python(value)


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON data, to the type of each; of anything else, False."""
    kind = type(one)
    if kind is not type(other):
        return False
    if kind is dict:
        return len(one) == len(other) and all(
            type(name) is str and name in other and is_same(value, other[name])
            for name, value in one.items()
        )
    if kind is list:
        return len(one) == len(other) and all(map(is_same, one, other))
    if kind is float:
        return bool(repr(one) == repr(other))  # 0.0 equals -0.0
    return kind in _EXACT and bool(one == other)


def _union(kinds: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """What must hold of every value of a union of scalars: the freest of them, for strings.

    Bytes, a path or an address among the alternatives make it that, whatever stands beside it.
    """
    for opens in (is_binary, is_path, is_address):
        for kind in kinds:
            if opens(kind):
                return kind
    texts = [kind for kind in kinds if kind.get("type") == "string" and not _is_listed(kind)]
    return {"type": "string"} if texts else {"type": kinds[0].get("type", "string")}


def _is_scalar(node: Mapping[str, Any]) -> bool:
    return node.get("type") in _SCALARS or ("type" not in node and _is_listed(node))


def _is_listed(node: Mapping[str, Any]) -> bool:
    return "enum" in node or "const" in node


def _is_open(node: Mapping[str, Any]) -> bool:
    return node.get("additionalProperties", False) is not False or "patternProperties" in node


def _top(path: str) -> str:
    return re.split(r"[.\[]", path, maxsplit=1)[0]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _word(item: Any) -> Kind:
    if type(item) in _EXACT:
        return "value"
    if isinstance(item, Mapping):
        return "object"
    return "list" if isinstance(item, (list, tuple, set, frozenset)) else "value"
