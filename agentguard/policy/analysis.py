"""Policies as written: Cedar files taken apart, each policy with its place."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cedarpy

from agentguard.canonical import digest
from agentguard.errors import PolicyError
from agentguard.model import ToolAction
from agentguard.policy.expressions import (
    accessed,
    actions_in,
    begins_elsewhere,
    is_access,
    is_of_context,
    path_of_argument,
)

PLACEHOLDERS = ("above", "agent", "asset", "audience", "destination", "labels", "stage", "tool")
"""What an `@advice` may name in braces."""

_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|;', re.DOTALL)
_CONTAINS = ("contains", "containsAny", "containsAll")
_CONTEXT = "(context)"  # no attribute name of the schema
_APPROVING = {_CONTEXT, "approvals", "approverGroups"}
_BLANK = re.compile(r"(?:\s|//[^\n]*)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One policy as written.

    Args:
        effect: `permit` or `forbid`.
        advice: one sentence for the agent, with `PLACEHOLDERS`; empty if none was written.
        scope: the actions and groups that its scope names; None: it is about every action.
        named: every action and group that it names, in its scope or its conditions.
        reads: every attribute name in it, or None if it takes `context` as a whole.
        names: the attribute names that it may read of the resource.
        monotone: one more approval can't make it refuse.
        groups: the groups that it wants an approver to have answered as.
        place: file and line, for people.
        text: as written.
        body: Cedar's JSON form.
        json: its text.
        digest: names the body.
    """

    id: str
    effect: str
    advice: str
    scope: frozenset[str] | None
    named: frozenset[str]
    reads: frozenset[str] | None
    names: frozenset[str]
    monotone: bool
    groups: frozenset[str]
    place: str
    text: str
    body: Mapping[str, Any]
    json: str
    digest: str

    @property
    def reads_arguments(self) -> bool:
        """Whether it may read an argument of the tool that is called."""
        return self.reads is None or "args" in self.reads

    def is_about(self, action: ToolAction) -> bool:
        """Whether it can apply to a tool: its scope names the tool, its stage's group, or all."""
        return self.scope is None or not self.scope.isdisjoint({action.name, action.group})


def rules_of(texts: Mapping[str, str]) -> dict[str, Rule]:
    rules: dict[str, Rule] = {}
    for name, text in texts.items():
        for place, chunk in _chunks(name, text):
            rule = _rule(place, chunk)
            if rule.id in rules:
                raise PolicyError(
                    f'{place}: @id("{rule.id}") is taken by {rules[rule.id].place}; rename one'
                )
            rules[rule.id] = rule
    return rules


def _chunks(name: str, text: str) -> Iterator[tuple[str, str]]:
    """Each policy with its place: Cedar's parser says what is wrong but not where."""
    start = 0
    ends = [m.end() for m in _TOKEN.finditer(text) if m.group() == ";"]
    for end in (*ends, len(text)):
        blank = _BLANK.match(text, start)
        begin = blank.end() if blank else start
        if begin < end:
            yield f"{name}, line {text.count(chr(10), 0, begin) + 1}", text[begin:end]
        start = end


@functools.lru_cache(maxsize=1024)  # each guard that is opened parses the same ones
def _rule(place: str, chunk: str) -> Rule:
    try:
        parsed = json.loads(cedarpy.policies_to_json_str(chunk))
    except ValueError as error:
        raise PolicyError(f"{place}: {error}") from error
    if parsed["templates"]:
        raise PolicyError(f"{place}: got a template, expected a policy without ?slots")
    [body] = parsed["staticPolicies"].values()
    annotations = body.get("annotations", {})
    rule_id = annotations.get("id")
    if not rule_id:
        raise PolicyError(f'{place}: got no @id, expected @id("...") before {body["effect"]}')
    if rule_id.startswith("agentguard."):
        raise PolicyError(f"{place}: {rule_id} is reserved, expected an id without 'agentguard.'")
    advice = annotations.get("advice") or ""
    unknown = set(re.findall(r"\{(.*?)\}", advice)) - set(PLACEHOLDERS)
    if unknown:
        raise PolicyError(
            f"{place}: @advice of {rule_id} names {{{min(unknown)}}}, "
            f"expected one of {', '.join(PLACEHOLDERS)}"
        )
    names = set(_reads(body["conditions"]))
    scope, named = actions_in(body, f"{place}: policy {rule_id}")
    written = json.dumps(body, sort_keys=True)
    return Rule(
        id=rule_id,
        effect=body["effect"],
        advice=advice,
        scope=scope,
        named=named,
        reads=None if _CONTEXT in names else frozenset(names),
        names=frozenset(_names_of_resource(body["conditions"])),
        monotone=all(
            _rises(each["body"], up=(each["kind"] == "when") == (body["effect"] == "permit"))
            for each in body["conditions"]
        ),
        groups=frozenset(_groups(body["conditions"], place)),
        place=place,
        text=chunk,
        body=body,
        json=written,
        # Over its text: a chain of `&&` is nested deeper than a canonical form may be.
        digest=digest("agentguard/policy/v1", written),
    )


def _reads(node: object) -> Iterator[str]:
    """Every attribute name of an expression, and `_CONTEXT` where the record itself is a value.

    Cedar computes no attribute names, so what is not named here can't be read.
    """
    if isinstance(node, list):
        for item in node:
            yield from _reads(item)
    elif isinstance(node, dict):
        if node == {"Var": "context"}:
            yield _CONTEXT
        for key, item in node.items():
            if path_of_argument(key, item) is not None:
                yield "args"  # as a whole: `context.args.approvals` is no approval
            elif is_access(key, item):
                yield from accessed(item)
                if item["left"] != {"Var": "context"}:
                    yield from _reads(item["left"])
            else:
                yield from _reads(item)


def _names_of_resource(node: object) -> Iterator[str]:
    """Every attribute name that an expression may read of the resource.

    These are all but those of a path that begins at the context, the principal or the action: the
    schema keeps no Media there. `context.destination.id` is not the resource's `id`.
    """
    if isinstance(node, list):
        for item in node:
            yield from _names_of_resource(item)
    elif isinstance(node, dict):
        for key, item in node.items():
            if not is_access(key, item):
                yield from _names_of_resource(item)
                continue
            if not begins_elsewhere(item["left"]):
                yield from accessed(item)
            yield from _names_of_resource(item["left"])


def _rises(node: Any, *, up: bool) -> bool:
    """Whether an expression can only go from false to true (`up`) or back as approvals come."""
    if not _APPROVING & set(_reads(node)):
        return True
    [(operator, item)] = node.items()
    match operator:
        case "&&" | "||":
            return _rises(item["left"], up=up) and _rises(item["right"], up=up)
        case "!":
            return _rises(item["arg"], up=not up)
        case "if-then-else":
            branches = _rises(item["then"], up=up) and _rises(item["else"], up=up)
            return branches and not _APPROVING & set(_reads(item["if"]))
        case ">=" | ">" | "<" | "<=":
            more = up if operator in (">=", ">") else not up
            left, right = (item["left"], item["right"]) if more else (item["right"], item["left"])
            return is_of_context(left, "approvals") and not _APPROVING & set(_reads(right))
        case "contains" | "containsAny" | "containsAll":
            return up and is_of_context(item["left"], "approverGroups")
        case _:
            return False


def _groups(node: object, place: str) -> Iterator[str]:
    """The groups that an expression looks for among those of the approvers.

    Only `context.approverGroups.contains("legal")`, `containsAny([...])` and `containsAll([...])`
    can be searched for the smallest sufficient set, so every other use is refused.
    """
    if isinstance(node, list):
        for item in node:
            yield from _groups(item, place)
    elif isinstance(node, dict):
        for key, item in node.items():
            if key == "." and is_of_context({key: item}, "approverGroups"):
                raise PolicyError(
                    f"{place}: approverGroups can only be asked whether it contains, containsAny "
                    f"or containsAll of groups written out"
                )
            if key in _CONTAINS and is_of_context(item["left"], "approverGroups"):
                right = item["right"]
                members = right.get("Set", [right])
                if not all(isinstance(m.get("Value"), str) for m in members):
                    raise PolicyError(f"{place}: write the groups of approverGroups out as strings")
                yield from (member["Value"] for member in members)
            else:
                yield from _groups(item, place)
