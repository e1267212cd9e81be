"""What Cedar's validator does not say of a policy: names that mean nothing, so that it never fires.

Cedar takes `context.args has secnods` for an argument that is always absent, and compares a string
with any string. A forbid with such a name would be silent for good.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentguard.model import (
    ArgumentKind,
    ArgumentType,
    Audience,
    Environment,
    Provenance,
    Stage,
    ToolAction,
)
from agentguard.model.tool_action import USE
from agentguard.policy.analysis import Rule
from agentguard.policy.expressions import accessed, entity_of, nodes, path_of_argument

_LISTS = ("contains", "containsAll", "containsAny")
_WORDS: Mapping[str, Collection[str]] = {
    "context.destination.audience": list(Audience),
    "context.destination.environment": list(Environment),
    "context.destination.proven": ["hold", "retain", "revoke"],
    "context.stage": [*Stage, USE],
    "context.toolStage": list(Stage),
    "principal.stages": list(Stage),
    "resource.kind": ["asset", "none", "text"],
    "resource.provenance": [*Provenance, "none"],
}
"""What a string can be that a policy reads; see the comments in `schema.cedarschema`."""

_VARIABLES = {"principal": "Agent", "resource": "Media", "context": "Call"}
_ELSEWHERE = (
    "If another process binds it, or a later guard.bind, add it to other_tools in agentguard.toml"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What policies may name.

    Args:
        tools: that are bound.
        other_tools: names of tools that are bound elsewhere, and whose arguments are not known;
            None: it is not known which tools there are.
        agents, destinations, groups, labels: that are configured.
    """

    tools: Sequence[ToolAction]
    other_tools: frozenset[str] | None
    agents: Collection[str]
    destinations: Collection[str]
    groups: Collection[str]
    labels: Collection[str]


def unknown_names(
    rule: Rule, known: Known, attributes: Mapping[str, Mapping[str, str]]
) -> Iterator[str]:
    """What a policy names and nothing is called, one sentence each.

    Args:
        attributes: of each type of the schema, with their types.
    """
    names = {tool.name for tool in known.tools}
    for name in sorted(rule.named - names - (known.other_tools or frozenset())):
        if known.other_tools is not None and not name.startswith("stage:"):
            yield (
                f'got Action::"{name:.80}", expected a bound tool: {_listed(names)}. {_ELSEWHERE}'
            )
    for kind, name in sorted({*_entities(rule)}):
        configured = {"Agent": known.agents, "Destination": known.destinations}.get(kind)
        if configured is not None and name not in configured:
            yield f'got {kind}::"{name:.80}", expected a configured one: {_listed(configured)}'
        elif kind == "Media":
            yield f'got Media::"{name:.80}", expected a condition: resource.id == "{name:.80}"'
    words = {
        **_WORDS,
        "context.chatCeiling": known.labels,
        "context.destination.ceiling": known.labels,
        "context.destination.id": known.destinations,
        "resource.labels": known.labels,
        "resource.terms.channels": known.destinations,
    }
    if known.other_tools is not None:
        words["context.tool"] = names | known.other_tools
    for path, expected in words.items():
        for name in sorted(_values_of(rule.body["conditions"], path) - {*expected}):
            hint = f". {_ELSEWHERE}" if path == "context.tool" else ""
            yield f'got "{name:.80}" for {path}, expected one of {_listed(expected)}{hint}'
    for name in sorted(rule.groups - {*known.groups}):
        yield f'got the group "{name:.80}", expected one of [people]: {_listed(known.groups)}'
    yield from _attributes(rule, attributes)
    yield from _arguments(rule, known)


def _attributes(rule: Rule, known: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Attributes that a policy asks for with `has` and no call has."""
    said: dict[str, None] = {}
    for node in nodes(rule.body["conditions"]):
        item = node.get("has")
        if not isinstance(item, Mapping) or "left" not in item:
            continue
        kind = _type_of(item["left"], known)
        for name in accessed(item):
            fields = known.get(kind or "")
            if fields is None or (kind, name) == ("Call", "args"):
                break  # it has no attributes, or they are the tool's
            if name not in fields:
                said[f"got has {name:.80}, expected an attribute of {kind}: {_listed(fields)}"] = (
                    None
                )
            kind = fields.get(name)
    yield from said


def _type_of(node: object, known: Mapping[str, Mapping[str, str]]) -> str | None:
    """The schema's type of a variable, an entity or an attribute of one."""
    entity = entity_of(node)
    if entity is not None:
        return entity[0]
    if not isinstance(node, Mapping):
        return None
    access = node.get(".")
    if access is None:
        return _VARIABLES.get(str(node.get("Var")))
    return known.get(_type_of(access["left"], known) or "", {}).get(access["attr"])


def _entities(rule: Rule) -> Iterator[tuple[str, str]]:
    for part in ("principal", "resource"):
        scope = rule.body[part]
        for entity in (scope.get("entity"), (scope.get("in") or {}).get("entity")):
            if entity is not None:
                yield str(entity["type"]), str(entity["id"])
    for node in nodes(rule.body["conditions"]):
        entity = entity_of(node)
        if entity is not None and entity[0] != "Action":
            yield entity


def _arguments(rule: Rule, known: Known) -> Iterator[str]:
    excluded = _excluded(rule.body["conditions"])
    tools = [tool for tool in known.tools if rule.is_about(tool) and tool.name not in excluded]
    yield from _without_type(rule, tools)
    if not tools or _is_about_others(rule, known):
        return  # nothing is known of the arguments of what it is about
    said: dict[str, None] = {}
    for node in nodes(rule.body["conditions"]):
        for key, item in node.items():
            path = path_of_argument(key, item)
            untyped = any(_is_left_out(tool, path) for tool in tools) if path else True
            if path and not untyped and not any(_type_at(tool, path) for tool in tools):
                said[_unknown_argument(path, tools)] = None
        for path, values in _compared(node):
            types = [found for tool in tools if (found := _type_at(tool, path)) is not None]
            for value in values:
                if types and not any(_can_be(found, value) for found in types):
                    expected = sorted({str(c) for found in types for c in found.choices or ()})
                    said[
                        f"got {value!r:.80} for context.args.{'.'.join(path)}, expected one of"
                        f" {', '.join(expected)}"
                    ] = None
        for path, pattern in _patterns(node):
            types = [found for tool in tools if (found := _type_at(tool, path)) is not None]
            choices = {str(each) for found in types for each in found.choices or ()}
            free = any(found.choices is None for found in types)
            if choices and not free and not any(map(pattern.fullmatch, choices)):
                said[
                    f"got a pattern for context.args.{'.'.join(path)} that matches none of"
                    f" {', '.join(sorted(choices))}"
                ] = None
    yield from said


def _patterns(node: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], re.Pattern[str]]]:
    """Arguments that a node compares with a pattern, by `like`."""
    item = node.get("like")
    if not isinstance(item, Mapping) or not isinstance(item.get("left"), Mapping):
        return
    parts = (".*" if part == "Wildcard" else re.escape(part["Literal"]) for part in item["pattern"])
    pattern = re.compile("".join(parts), re.DOTALL)
    for key, access in item["left"].items():
        path = path_of_argument(key, access) if key == "." else None
        if path:
            yield path, pattern


def _without_type(rule: Rule, tools: Sequence[ToolAction]) -> Iterator[str]:
    """Arguments that some tools have without a type, so that `has` is never true of a call."""
    said: dict[str, None] = {}
    for node in nodes(rule.body["conditions"]):
        for key, item in node.items():
            path = path_of_argument(key, item)
            hidden = sorted(tool.name for tool in tools if path and _is_left_out(tool, path))
            if path and hidden:
                said[
                    f"got context.args.{'.'.join(path)}, which has no type in Cedar for"
                    f" {', '.join(hidden)}, so that this is never true there; exclude the tool"
                    f' (action != Action::"{hidden[0]}"), or retype its argument'
                ] = None
    yield from said


def _is_left_out(tool: ToolAction, path: tuple[str, ...]) -> bool:
    """Whether an argument, or what it is a part of, is one that policies can't read."""
    return any(".".join(path[: end + 1]) in tool.left_out for end in range(len(path)))


def _excluded(conditions: Sequence[Mapping[str, Any]]) -> set[str]:
    """The tools that `action != Action::"name"` excludes, as a whole condition or by `&&`."""
    found: set[str] = set()
    pending = [each["body"] for each in conditions if each["kind"] == "when"]
    while pending:
        node = pending.pop()
        if "&&" in node:
            pending += [node["&&"]["left"], node["&&"]["right"]]
        item = node.get("!=", {})
        entity = entity_of(item.get("right"))
        if item.get("left") == {"Var": "action"} and entity is not None:
            found.add(entity[1])
    return found


def _is_about_others(rule: Rule, known: Known) -> bool:
    """Whether a policy may be about tools that are bound elsewhere."""
    if known.other_tools is None:
        return True
    if rule.scope is None or any(name.startswith("stage:") for name in rule.scope):
        return bool(known.other_tools)
    return not rule.scope.isdisjoint(known.other_tools)


def _unknown_argument(path: tuple[str, ...], tools: Sequence[ToolAction]) -> str:
    name = ".".join(path)
    has = sorted({each for tool in tools for each in tool.arguments})
    about = ", ".join(sorted(tool.name for tool in tools)[:6])
    return f"got context.args.{name}, expected an argument of {about}: {_listed(has)}"


def _type_at(tool: ToolAction, path: tuple[str, ...]) -> ArgumentType | None:
    fields: Mapping[str, ArgumentType] = tool.arguments
    found: ArgumentType | None = None
    for name in path:
        found = fields.get(name)
        if found is None:
            return None
        fields = found.fields
    if found is not None and found.kind is ArgumentKind.LIST:
        return found.item if found.item is not None else found
    return found


def _can_be(known: ArgumentType, value: object) -> bool:
    return known.choices is None or value in known.choices


def _compared(node: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], list[object]]]:
    """Arguments that a node compares with literals, or looks for among them."""
    for operator in ("==", "!=", *_LISTS):
        item = node.get(operator)
        if not isinstance(item, Mapping) or "right" not in item:
            continue
        for one, other in ((item["left"], item["right"]), (item["right"], item["left"])):
            for key, access in one.items() if isinstance(one, Mapping) else ():
                path = path_of_argument(key, access) if key == "." else None
                values = _literals(other)
                if path and values:
                    yield path, values


def _literals(node: object) -> list[object]:
    if not isinstance(node, Mapping):
        return []
    members = node.get("Set", [node])
    values = [member.get("Value") for member in members if isinstance(member, Mapping)]
    return [value for value in values if isinstance(value, (str, int))]


def _values_of(body: object, path: str) -> set[str]:
    """The strings that a path is compared with, or looked for among."""
    first, *rest = path.split(".")
    access: dict[str, Any] = {"Var": first}
    for name in rest:
        access = {".": {"left": access, "attr": name}}
    found: set[str] = set()
    for node in nodes(body):
        for operator in ("==", "!=", *_LISTS):
            item = node.get(operator)
            if isinstance(item, Mapping) and access in (item.get("left"), item.get("right")):
                other = item["right"] if item.get("left") == access else item["left"]
                found |= {value for value in _literals(other) if isinstance(value, str)}
    return found


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"
