"""A tool's action and its arguments in Cedar's words: the schema, and the values of a call.

INVARIANT: a group never has an `appliesTo`. With one, `action == Action::"stage:export"` would be
a valid policy that never fires.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from agentguard.model import ArgumentKind, ArgumentType, ToolAction

_PARTS = re.compile(
    r"(?P<types>.*)^type Call = \{(?P<call>.*?)^\};(?P<groups>.*)", re.DOTALL | re.M
)
_TYPES = re.compile(r"^(?:entity|type) (\w+) = \{(.*?)^\};", re.DOTALL | re.M)
_ATTRIBUTE = re.compile(r"^\s+(\w+)\??: ([\w:<>]+)", re.M)
_CEDAR = {
    ArgumentKind.STRING: "String",
    ArgumentKind.INTEGER: "Long",
    ArgumentKind.BOOLEAN: "Bool",
    ArgumentKind.NUMBER: "decimal",
}
_MOST = Decimal("922337203685477.5807")
_STEP = Decimal("0.0001")


def schema_text(base: str, actions: Iterable[ToolAction], named: Iterable[str] = ()) -> str:
    """The schema of these actions, in Cedar's own syntax.

    Args:
        base: the default schema: types, what every call has, and the groups.
        actions: what requests can be about.
        named: further actions that policies name; no request is about them.
    """
    parts = _PARTS.fullmatch(base)
    if parts is None:
        raise ValueError("schema.cedarschema: got no `type Call`, expected one")
    known = list(actions)
    texts = [parts["types"], parts["groups"]]
    texts += [_action(action, parts["call"]) for action in known]
    others = sorted(set(named) - {action.name for action in known})
    texts += [f"action {quoted(name)};\n" for name in others]
    return "".join(texts)


def attributes_of(base: str) -> dict[str, dict[str, str]]:
    """The attributes of each entity and record of the default schema, with their types."""
    return {name: dict(_ATTRIBUTE.findall(body)) for name, body in _TYPES.findall(base)}


def _action(action: ToolAction, call: str) -> str:
    arguments = "".join(
        f"    {_attribute(name, known)},{_choices(known)}\n"
        for name, known in action.arguments.items()
    )
    if action.left_out:
        arguments += f"    // can't be read: {', '.join(action.left_out)}\n"
    return (
        f"\naction {quoted(action.name)} in [{quoted(action.group)}] appliesTo {{\n"
        "principal: [Agent], resource: [Media],\n"
        f"context: {{\n  args: {{\n{arguments}  }},{call}}}}};\n"
    )


def _choices(known: ArgumentType) -> str:
    if known.choices is None:
        return ""
    words = (quoted(each) if isinstance(each, str) else str(each) for each in known.choices)
    return f"  // {', '.join(words)}"


def _record(fields: Mapping[str, ArgumentType]) -> str:
    return "{ " + ", ".join(_attribute(name, each) for name, each in fields.items()) + " }"


def _attribute(name: str, known: ArgumentType) -> str:
    return f"{quoted(name)}{'?' if known.optional else ''}: {_type(known)}"


def _type(known: ArgumentType) -> str:
    if known.kind is ArgumentKind.OBJECT:
        return _record(known.fields)
    if known.kind is ArgumentKind.LIST:
        return f"Set<{_type(_item(known))}>"
    return _CEDAR[known.kind]


def quoted(text: str) -> str:
    """A string as Cedar writes it."""
    return '"' + "".join(_character(each) for each in text) + '"'


def _character(each: str) -> str:
    if each in '"\\':
        return f"\\{each}"
    return each if each.isprintable() else f"\\u{{{ord(each):x}}}"


def arguments_of(action: ToolAction, args: Mapping[str, Any]) -> dict[str, Any]:
    """`context.args` of a call.

    A number is rounded half-even to four digits and clamped to what a `decimal` can hold, both of
    which keep the order; a list is a set. Null is left out: Cedar has none.

    Args:
        args: of the Request.

    Raises:
        ValueError: an argument is not of its type.
    """
    return _fields(action.arguments, args)


def _fields(fields: Mapping[str, ArgumentType], values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _value(known, values[name], name)
        for name, known in fields.items()
        if values.get(name) is not None
    }


def _value(known: ArgumentType, value: Any, name: str) -> Any:
    kind = known.kind
    if kind is ArgumentKind.STRING and isinstance(value, str):
        return value
    if kind is ArgumentKind.BOOLEAN and isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if kind is ArgumentKind.INTEGER and float(value).is_integer():
            return int(value)
        if kind is ArgumentKind.NUMBER:
            return _decimal(value)
    if kind is ArgumentKind.LIST and isinstance(value, (list, tuple)):
        item = _item(known)
        return [_value(item, each, name) for each in value]
    if kind is ArgumentKind.OBJECT and isinstance(value, Mapping):
        return _fields(known.fields, value)
    raise ValueError(f"argument {name!r:.80}: got a {type(value).__name__}, expected {kind}")


def _decimal(value: float) -> dict[str, Any]:
    exact = max(-_MOST, min(Decimal(str(value)), _MOST))
    rounded = exact.quantize(_STEP, ROUND_HALF_EVEN) + 0  # no minus zero
    return {"__extn": {"fn": "decimal", "arg": f"{rounded:.4f}"}}


def _item(known: ArgumentType) -> ArgumentType:
    if known.item is None:
        raise ValueError("got a list without the type of its items")
    return known.item


def sample_arguments(fields: Mapping[str, ArgumentType]) -> dict[str, Any]:
    """Arguments of these types as a Request might hold them, whatever they say."""
    return {name: _sample(known) for name, known in fields.items() if not known.optional}


def _sample(known: ArgumentType) -> Any:
    if known.choices:
        return known.choices[0]
    match known.kind:
        case ArgumentKind.STRING:
            return ""
        case ArgumentKind.INTEGER | ArgumentKind.NUMBER:
            return 0
        case ArgumentKind.BOOLEAN:
            return False
        case ArgumentKind.LIST:
            return []
        case ArgumentKind.OBJECT:
            return sample_arguments(known.fields)
