"""Walking a policy in Cedar's JSON form: which actions, attributes and arguments it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentguard.errors import PolicyError
from agentguard.model import GROUPS

_ACTION = {"Var": "action"}
_ARGS = {".": {"left": {"Var": "context"}, "attr": "args"}}
_STAGES = tuple(group.removeprefix("stage:") for group in GROUPS)


def actions_in(body: Mapping[str, Any], place: str) -> tuple[frozenset[str] | None, frozenset[str]]:
    """The actions of a policy's scope (None: all), and all that it names.

    Raises:
        PolicyError: a stage is written as if it were a tool, so that the policy would never apply:
            `action == Action::"export"`, or a group that is compared with `==`.
    """
    scope = body["action"]
    entities = scope.get("entities", [scope["entity"]] if "entity" in scope else [])
    ids = frozenset(str(entity["id"]) for entity in entities)
    for name in sorted(ids):
        if scope["op"] != "in" and name in GROUPS:
            raise PolicyError(_compared(place, f"action {scope['op']}", name))
    compared = _compared_groups(body["conditions"])
    if compared:
        raise PolicyError(_compared(place, "a comparison with", min(compared)))
    named = ids.union(*map(_direct, nodes(body["conditions"])))
    for name in sorted(named):
        if name in _STAGES:
            raise PolicyError(
                f'{place}: got Action::"{name}", expected action in Action::"stage:{name}": each'
                " tool is an action of its own, and a stage is the group of its tools. For a tool"
                f' that is called {name}, write context.tool == "{name}" in a condition'
            )
        if name.startswith("stage:") and name not in GROUPS:
            raise PolicyError(
                f'{place}: got Action::"{name:.80}", expected one of {", ".join(GROUPS)}'
            )
    return (ids if entities else None), named


def _compared(place: str, how: str, group: str) -> str:
    return (
        f'{place}: got {how} Action::"{group}", expected action in Action::"{group}": no call is'
        " about a group itself, so that the policy would never apply"
    )


def _compared_groups(node: object) -> set[str]:
    """Groups that stand anywhere but on the right of `action in`."""
    if isinstance(node, list):
        return set[str]().union(*map(_compared_groups, node))
    if not isinstance(node, Mapping):
        return set()
    found = {name for name in _direct(node) if name in GROUPS}
    for key, item in node.items():
        if key == "in" and isinstance(item, Mapping) and item.get("left") == _ACTION:
            right = item.get("right")
            if not _literals(right):
                found |= _compared_groups(right)
        else:
            found |= _compared_groups(item)
    return found


def _literals(node: object) -> list[str]:
    """The actions of a literal, or of a set of literals; none of anything else."""
    if not isinstance(node, Mapping):
        return []
    members = node.get("Set", [node])
    found = [_direct(member) for member in members] if isinstance(members, list) else []
    return [name for names in found for name in names] if all(found) else []


def _direct(node: object) -> list[str]:
    """The action that a node is a literal of."""
    entity = entity_of(node)
    return [entity[1]] if entity is not None and entity[0] == "Action" else []


def entity_of(node: object) -> tuple[str, str] | None:
    """Type and id of the entity that a node is a literal of."""
    value = node.get("Value") if isinstance(node, Mapping) else None
    entity = value.get("__entity") if isinstance(value, Mapping) else None
    if not isinstance(entity, Mapping):
        return None
    return str(entity.get("type")), str(entity.get("id"))


def nodes(node: object) -> Iterator[Mapping[str, Any]]:
    """Every object of an expression."""
    if isinstance(node, list):
        for item in node:
            yield from nodes(item)
    elif isinstance(node, Mapping):
        yield node
        for item in node.values():
            yield from nodes(item)


def is_access(key: str, item: object) -> bool:
    """Whether an operator reads an attribute, or asks whether it is there."""
    return key in (".", "has") and isinstance(item, Mapping) and "left" in item


def accessed(item: Mapping[str, Any]) -> list[str]:
    """The attribute names of an access."""
    names = item["attr"] if isinstance(item.get("attr"), list) else [item.get("attr")]
    return [str(name) for name in names]


def begins_elsewhere(path: Any) -> bool:
    """Whether a path begins at the context, the principal or the action."""
    while isinstance(path, Mapping) and path.keys() == {"."}:
        path = path["."]["left"]
    return path in ({"Var": "context"}, {"Var": "principal"}, {"Var": "action"})


def is_of_context(node: Any, name: str) -> bool:
    """Whether a node is this attribute of the context."""
    return bool(node == {".": {"left": {"Var": "context"}, "attr": name}})


def path_of_argument(key: str, item: object) -> tuple[str, ...] | None:
    """The path below `context.args` that an operator reads or asks for; None: it is of none."""
    if not is_access(key, item) or not isinstance(item, Mapping):
        return None
    above = _argument(item["left"])
    if above is not None:
        return (*above, *accessed(item))
    names = accessed(item)
    if item["left"] == {"Var": "context"} and names[0] == "args":
        return tuple(names[1:])
    return None


def _argument(node: object) -> tuple[str, ...] | None:
    """The path below `context.args` that a node stands for."""
    if node == _ARGS:
        return ()
    if isinstance(node, Mapping) and node.keys() == {"."}:
        above = _argument(node["."]["left"])
        return None if above is None else (*above, str(node["."]["attr"]))
    return None
