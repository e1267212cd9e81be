"""Cedar policies: loading, refusing bad ones, asking (DESIGN section 5).

What Cedar sees is built by `_cedar` from `Request` and `Facts`; digests stay out of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cedarpy

from agentguard._cedar import FIRST_TIME, LAST_TIME, call_of, configured, media_of
from agentguard._rules import ACTIONS, Rule, rules_of
from agentguard.canonical import digest
from agentguard.errors import PolicyError
from agentguard.model import Agent, Destination, Facts, Request

_SHIPPED = "agentguard/policies/"
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
        unpermitted: an asset was refused by default, because no permit applied.
    """

    allowed: bool
    reasons: tuple[str, ...]
    errors: tuple[str, ...]
    where: tuple[tuple[str, str], ...]
    unpermitted: bool


class Policy:
    """A set of policies that passed every test of `load`; immutable.

    Attributes:
        digest: names the version: schema and all policy text.
        rules: the policies by id.
        groups: the groups that some rule wants an approver to have answered as.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        """Take policies from memory.

        Args:
            texts: Cedar text by the name of its file.

        Raises:
            PolicyError: see `load`.
        """
        schema_text = _default("schema.cedarschema")
        self._schema = cedarpy.Schema.from_str(schema_text)
        self.rules: Mapping[str, Rule] = rules_of(texts)
        if not self.rules:
            raise PolicyError(
                f"got no policy in {', '.join(texts) or 'no file'}, expected at least one; "
                "an empty set would only deny"
            )
        self._check("\n".join(texts.values()))
        self.digest = digest("agentguard/policy/v1", [schema_text, *sorted(texts.values())])
        self.groups = frozenset().union(*(rule.groups for rule in self.rules.values()))
        # Cedar's cost is linear in policies, so each action gets those that can apply to it.
        self._shards = {action: self._shard(action) for action in ACTIONS}
        self._reads = {action: self._read_by(action) for action in ACTIONS}
        self._clocked = {
            action: any(rule.clocked for rule in self.rules.values() if action in rule.actions)
            for action in ACTIONS
        }
        self._known: dict[tuple[_Base, str], cedarpy.Entities] = {}
        self._said: dict[tuple[str, _Base, str, str], _Said] = {}

    @classmethod
    def load(cls, extra: Sequence[Path] = (), *, replace: bool = False) -> Policy:
        """The default policy and what the workspace adds to it.

        Args:
            extra: `.cedar` files of the workspace, and folders of them.
            replace: each takes the place of the default file of its name (`export.cedar`);
                otherwise it is added, and a policy id that occurs twice is refused.

        Raises:
            PolicyError: a file can't be read or parsed, a policy breaks the schema, has no `@id`
                or another one's; the message names file, line and reason.
        """
        texts = {_SHIPPED + entry.name: entry.read_text("utf-8") for entry in _defaults()}
        for path in (file for named in extra for file in _files(named)):
            if str(path) in texts:
                raise PolicyError(f"{path}: named twice; name it once")
            if replace and texts.pop(_SHIPPED + path.name, None) is None:
                raise PolicyError(
                    f"{path}: replaces no default file, expected one of "
                    f"{', '.join(entry.name for entry in _defaults())}; or add it instead"
                )
            try:
                texts[str(path)] = path.read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise PolicyError(f"{path}: can't be read ({error}); name a UTF-8 file") from error
        return cls(texts)

    def evaluate(
        self, request: Request, facts: Facts, now: int, approvals: int, groups: frozenset[str]
    ) -> Ruling:
        """Ask Cedar about every asset of the Request.

        Args:
            facts: must hold an agent; assets as in the Request.
            now: ms since the Unix epoch, by the ledger's clock.
            approvals: distinct eligible people who approved.
            groups: what they answered as.
        """
        if facts.agent is None:
            return _erred("the agent is not configured")
        action = request.stage.value if request.stage is not None else "use"
        call = call_of(request, facts, now, approvals, groups, self._reads[action])
        media = media_of(request, facts)
        base = (facts.agent, facts.destination, facts.open_labels)
        context = json.dumps(call)
        now_said = call.pop("now", None)
        timeless = json.dumps(call) if now_said is not None else context
        try:
            said = [
                self._ask(
                    action,
                    base,
                    context,
                    self._seen(one, action),
                    # The same question has the same answer, unless a policy looks at the time.
                    question=context if self._is_timely(action, one) else timeless,
                )
                for one in media
            ]
        except ValueError as error:  # lone surrogates, and whatever else Cedar can't hold
            return _erred(str(error))
        return _join(media, said)

    def monotone_violations(self) -> tuple[str, ...]:
        """Which policies might turn a yes into a no when one more person approves; see DESIGN 5.

        Sound but for policies that err, not complete: one that is not named here can't, one that
        is named may only be written in a form that can't be followed. `agentguard doctor` shows
        these sentences.
        """
        return tuple(
            f"{rule.place}: {rule.id} may refuse when one more person approves; compare approvals "
            f"and approverGroups only as `context.approvals >= N` and `.contains`, in `when` of a "
            f"permit or `unless` of a forbid"
            for rule in self.rules.values()
            if not rule.monotone
        )

    def _seen(self, media: Mapping[str, Any], action: str) -> str:
        """The attributes of a resource, without the names of it that no policy reads."""
        reads = self._reads[action]
        unread = {} if reads is None else dict.fromkeys({"id", "argument"} - reads, "")
        return json.dumps({**media, **unread})

    def _is_timely(self, action: str, media: Mapping[str, Any]) -> bool:
        """Whether the answer may depend on the time."""
        return self._clocked[action] or not media["terms"].keys().isdisjoint(_TIMED)

    def _ask(self, action: str, base: _Base, context: str, media: str, *, question: str) -> _Said:
        key = (action, base, question, media)
        said = self._said.get(key)
        if said is None:
            said = self._ask_cedar(action, base, context, media)
            _remember(self._said, key, said)
        return said

    def _ask_cedar(self, action: str, base: _Base, context: str, media: str) -> _Said:
        result = cedarpy.is_authorized(
            {
                "principal": {"type": "Agent", "id": base[0].id},
                "action": {"type": "Action", "id": action},
                "resource": _RESOURCE,
                "context": context,
            },
            self._shards[action],
            self._entities(base, media),
        )
        diagnostics = result.diagnostics
        return _Said(
            allowed=result.decision is cedarpy.Decision.Allow,
            ids=tuple(sorted(diagnostics.id_annotations_by_reason.values())),
            errors=tuple(diagnostics.errors),
        )

    def _entities(self, base: _Base, media: str) -> cedarpy.Entities:
        """Agent, destination and resource: parsing them costs as much as asking.

        Raises:
            ValueError: one breaks the schema (I11).
        """
        known = self._known.get((base, media))
        if known is None:
            resource = {"uid": _RESOURCE, "attrs": json.loads(media), "parents": []}
            known = cedarpy.Entities.from_json_str(
                json.dumps([*configured(*base), resource]), self._schema
            )
            _remember(self._known, (base, media), known)
        return known

    def _shard(self, action: str) -> cedarpy.PolicySet:
        chosen = {i: rule.body for i, rule in self.rules.items() if action in rule.actions}
        return cedarpy.PolicySet.from_json_str(
            json.dumps({"templates": {}, "staticPolicies": chosen, "templateLinks": []})
        )

    def _read_by(self, action: str) -> frozenset[str] | None:
        """The attributes that policies for this action read; None if one may read any."""
        found: set[str] = set()
        for rule in self.rules.values():
            if action in rule.actions:
                if rule.reads is None:
                    return None
                found |= rule.reads
        return frozenset(found)

    def _check(self, text: str) -> None:
        result = cedarpy.validate_policies(text, self._schema)
        for error in result.errors:
            rule = self.rules.get(result.id_annotations_by_policy_id.get(error.policy_id, ""))
            place = f"{rule.place}: policy {rule.id}" if rule else "policies"
            raise PolicyError(f"{place} breaks the schema: {error.error}")
        if not result.validation_passed:
            raise PolicyError("policies break the schema; Cedar does not say where")


def time_is_sayable(now: int) -> bool:
    """Whether Cedar has a word for this time (ms since the Unix epoch): the years 1 to 9999."""
    return FIRST_TIME <= now <= LAST_TIME


def _files(named: Path) -> list[Path]:
    return sorted(named.glob("*.cedar")) if named.is_dir() else [named]


def _defaults() -> list[Any]:
    found = [e for e in files("agentguard.policies").iterdir() if e.name.endswith(".cedar")]
    return sorted(found, key=lambda entry: entry.name)


def _default(name: str) -> str:
    return files("agentguard.policies").joinpath(name).read_text("utf-8")


def _join(media: Sequence[Mapping[str, Any]], said: Sequence[_Said]) -> Ruling:
    errors: list[str] = []
    permits: list[tuple[str, str]] = []
    forbids: list[tuple[str, str]] = []
    unpermitted = False
    for one, answer in zip(media, said, strict=True):
        # I11: Cedar skips a forbid that errs and says Allow, so an error is a no.
        errors.extend(answer.errors)
        (permits if answer.allowed else forbids).extend((rule, one["id"]) for rule in answer.ids)
        unpermitted = unpermitted or not (answer.allowed or answer.ids)
    allowed = bool(said) and not errors and not forbids and not unpermitted
    where = permits if allowed else forbids
    return Ruling(
        allowed=allowed,
        reasons=tuple(sorted({rule for rule, _ in where})),
        errors=tuple(errors),
        where=tuple(where),
        unpermitted=unpermitted,
    )


_K = TypeVar("_K")
_V = TypeVar("_V")


def _remember(known: dict[_K, _V], key: _K, value: _V) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[key] = value


def _erred(why: str) -> Ruling:
    return Ruling(allowed=False, reasons=(), errors=(why,), where=(), unpermitted=False)
