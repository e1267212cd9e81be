"""Asking Cedar: a Request and its Facts become one Question, asked with so many approvals.

Only configuration, facts and text go in, and only a Ruling comes out. What Cedar said is remembered
by everything that it was given (docs/adr/0010).
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import cedarpy

from agentguard.model import Agent, Destination, Facts, Request
from agentguard.policy.analysis import Rule
from agentguard.policy.cedar_input import call_of, configured, media_of, time_of

_REMEMBERED = 1024
_TIMED = ("until", "releaseAt")
_RESOURCE = {"type": "Media", "id": "0"}

_Base = tuple[Agent, Destination | None, frozenset[str]]
"""What only configuration changes: the agent, the destination, the open labels."""


class _Said(NamedTuple):
    """What Cedar said of one resource: `ids` are those of the deciding policies."""

    allowed: bool
    ids: tuple[str, ...]
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What Cedar said of one Request, joined over its assets: all must be permitted.

    Args:
        allowed: every asset permitted and nothing erred.
        reasons: ids of the deciding policies: permits if allowed, else the forbids that fired
            and, for an asset that nothing permitted, no id.
        errors: what went wrong while evaluating; not empty means not allowed (I11).
        where: (policy id, asset id) for each reason; the asset id is empty without assets.
        without_permit: assets that were refused by default, because no permit applied.
    """

    allowed: bool
    reasons: tuple[str, ...]
    errors: tuple[str, ...]
    where: tuple[tuple[str, str], ...]
    without_permit: tuple[str, ...]

    @property
    def unpermitted(self) -> bool:
        """Whether an asset was refused by default."""
        return bool(self.without_permit)


class Shard:
    """The policies that can apply to one action. Cedar's cost is linear in policies.

    Args:
        action: a stage, or `use`.
        rules: the policies by id.
        schema: what entities and policies are written in.
    """

    def __init__(self, action: str, rules: Mapping[str, Rule], schema: cedarpy.Schema) -> None:
        chosen = {i: rule for i, rule in rules.items() if action in rule.actions}
        bodies = {i: rule.body for i, rule in chosen.items()}
        self._action = action
        self._schema = schema
        self._policies = cedarpy.PolicySet.from_json_str(
            json.dumps({"templates": {}, "staticPolicies": bodies, "templateLinks": []})
        )
        self.reads = _read_by(chosen.values())
        self.clocked = any(rule.clocked for rule in chosen.values())
        self._bases: dict[_Base, int] = {}
        self._numbers = itertools.count()  # never one twice: an old answer must not be found
        self._entities: dict[tuple[int, str], cedarpy.Entities] = {}
        self._said: dict[tuple[int, str, str, str], _Said] = {}

    def question(self, request: Request, facts: Facts, agent: Agent, now: int) -> Question:
        """A Request of this action, ready to be asked about.

        Args:
            now: ms since the Unix epoch, by the ledger's clock.
        """
        return Question(self, request, facts, agent, now)

    def number(self, base: _Base) -> int:
        """A short name of what only configuration changes."""
        known = self._bases.get(base)
        if known is None:
            known = next(self._numbers)
            _remember(self._bases, base, known)
        return known

    def ask(
        self, base: _Base, number: int, *, context: str, given: str, media: str, named: str
    ) -> _Said:
        """What Cedar says of one resource.

        Args:
            number: short for `base`.
            context: attributes of the call, as a JSON object.
            given: its approvals, as another.
            media: attributes of the resource, as another.
            named: the context under its name in the memory; without the time, if it can't matter.

        Raises:
            ValueError: something breaks the schema, or Cedar can't hold it (I11).
        """
        key = (number, named, given, media)
        said = self._said.get(key)
        if said is None:
            said = self._ask_cedar(base, number, context=_joined(context, given), media=media)
            _remember(self._said, key, said)
        return said

    def forget(self) -> None:
        """Ask Cedar itself the next time."""
        self._said.clear()
        self._entities.clear()

    def _ask_cedar(self, base: _Base, number: int, *, context: str, media: str) -> _Said:
        result = cedarpy.is_authorized(
            {
                "principal": {"type": "Agent", "id": base[0].id},
                "action": {"type": "Action", "id": self._action},
                "resource": _RESOURCE,
                "context": context,
            },
            self._policies,
            self._known(base, number, media),
        )
        diagnostics = result.diagnostics
        return _Said(
            allowed=result.decision is cedarpy.Decision.Allow,
            ids=tuple(sorted(diagnostics.id_annotations_by_reason.values())),
            errors=tuple(diagnostics.errors),
        )

    def _known(self, base: _Base, number: int, media: str) -> cedarpy.Entities:
        """Agent, destination and resource: parsing them costs as much as asking."""
        known = self._entities.get((number, media))
        if known is None:
            resource = {"uid": _RESOURCE, "attrs": json.loads(media), "parents": []}
            known = cedarpy.Entities.from_json_str(
                json.dumps([*configured(*base), resource]), self._schema
            )
            _remember(self._entities, (number, media), known)
        return known


class Question:
    """One Request with its Facts, as Cedar is asked about it; only the approvals still vary."""

    def __init__(
        self, shard: Shard, request: Request, facts: Facts, agent: Agent, now: int
    ) -> None:
        self._shard = shard
        self._base: _Base = (agent, facts.destination, facts.open_labels)
        self._number = shard.number(self._base)
        self._media = [
            (one["id"], _seen(one, shard.reads), shard.clocked or _is_timed(one))
            for one in media_of(request, facts)
        ]
        reads = shard.reads
        self._timeless = self._context = json.dumps(call_of(request, facts, reads))
        if reads is None or "now" in reads:
            self._context = _joined(self._timeless, json.dumps({"now": time_of(now)}))
        self._reads_count = reads is None or "approvals" in reads
        self._reads_groups = reads is None or "approverGroups" in reads
        self._asked: dict[tuple[int, frozenset[str]], Ruling] = {}

    def ask(self, approvals: int, groups: frozenset[str]) -> Ruling:
        """The ruling if so many eligible people approved, as these groups."""
        key = (approvals if self._reads_count else 0, groups if self._reads_groups else frozenset())
        known = self._asked.get(key)
        if known is None:
            given = _approvals(
                key[0] if self._reads_count else None, key[1] if self._reads_groups else None
            )
            known = self._asked[key] = self._ask(given)
        return known

    def _ask(self, given: str) -> Ruling:
        try:
            said = tuple(
                self._shard.ask(
                    self._base,
                    self._number,
                    context=self._context,
                    given=given,
                    media=media,
                    # The same question has the same answer, unless a policy looks at the time.
                    named=self._context if timed else self._timeless,
                )
                for _, media, timed in self._media
            )
        except ValueError as error:  # lone surrogates, and whatever else Cedar can't hold
            return erred(str(error))
        return _join(tuple(asset for asset, _, _ in self._media), said)


def erred(why: str) -> Ruling:
    """The no to a question that could not be asked (I11)."""
    return Ruling(allowed=False, reasons=(), errors=(why,), where=(), without_permit=())


def _joined(first: str, second: str) -> str:
    """Two JSON objects without a name in common, as one."""
    if first == "{}" or second == "{}":
        return second if first == "{}" else first
    return f"{first[:-1]}, {second[1:]}"


@functools.lru_cache(maxsize=_REMEMBERED)
def _approvals(count: int | None, groups: frozenset[str] | None) -> str:
    """The attributes of a context that say who approved; None: no policy reads it."""
    said: dict[str, Any] = {} if count is None else {"approvals": count}
    if groups is not None:
        said["approverGroups"] = sorted(groups)
    return json.dumps(said)


def _seen(media: Mapping[str, Any], reads: frozenset[str] | None) -> str:
    """The attributes of a resource, without the names of it that no policy reads."""
    unread = {} if reads is None else dict.fromkeys({"id", "argument"} - reads, "")
    return json.dumps({**media, **unread})


def _is_timed(media: Mapping[str, Any]) -> bool:
    """Whether the answer depends on the time, whatever the policies are."""
    return not media["terms"].keys().isdisjoint(_TIMED)


def _read_by(rules: Iterable[Rule]) -> frozenset[str] | None:
    """The attributes that policies read; None if one may read any."""
    found: set[str] = set()
    for rule in rules:
        if rule.reads is None:
            return None
        found |= rule.reads
    return frozenset(found)


@functools.lru_cache(maxsize=_REMEMBERED)
def _join(assets: tuple[str, ...], said: tuple[_Said, ...]) -> Ruling:
    errors: list[str] = []
    permits: list[tuple[str, str]] = []
    forbids: list[tuple[str, str]] = []
    without_permit: list[str] = []
    for asset, answer in zip(assets, said, strict=True):
        # I11: Cedar skips a forbid that errs and says Allow, so an error is a no.
        errors.extend(answer.errors)
        (permits if answer.allowed else forbids).extend((rule, asset) for rule in answer.ids)
        without_permit += [] if answer.allowed or answer.ids else [asset]
    allowed = bool(said) and not errors and not forbids and not without_permit
    where = permits if allowed else forbids
    return Ruling(
        allowed=allowed,
        reasons=tuple(sorted({rule for rule, _ in where})),
        errors=tuple(errors),
        where=tuple(where),
        without_permit=tuple(without_permit),
    )


_K = TypeVar("_K")
_V = TypeVar("_V")


def _remember(known: dict[_K, _V], key: _K, value: _V) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[key] = value
