"""Asking Cedar: a Question is put to the policies of its tool, as if so many had approved it.

No answer is kept (docs/adr/0014). Handles of entities are, by the exact text that Cedar parsed:
such a handle can stand for nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import cedarpy

from agentguard.errors import PolicyError
from agentguard.model import GROUPS, ToolAction, any_tool_of
from agentguard.policy.analysis import Rule
from agentguard.policy.cedar_input import CANARY_AGENT, MEDIA, Question, sample_question
from agentguard.policy.tool_types import schema_text

_MOST_HANDLES = 128  # of each tool
_ALL = {"op": "All"}


class _CedarAnswer(NamedTuple):
    """Cedar's answer about one resource: `ids` are those of the deciding policies."""

    allowed: bool
    ids: tuple[str, ...]
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Cedar's answer about one Request, joined over its assets: all must be permitted.

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


class ToolPolicies:
    """The policies that can apply to one tool. Cedar's cost is linear in policies.

    Each tool has a schema of its own, with its action and its stage's group and no other tool's:
    Cedar's cost is linear in actions, too.

    Args:
        action: the tool.
        rules: the policies by id.
        base: the default schema.

    Attributes:
        names: which names of the resource (`id`, `argument`) a policy may read.

    Raises:
        PolicyError: a policy breaks the schema for this tool, or a forbid of its group of actions
            does not fire.
    """

    def __init__(self, action: ToolAction, rules: Mapping[str, Rule], base: str) -> None:
        chosen = {i: rule for i, rule in rules.items() if rule.is_about(action)}
        named = frozenset[str]().union(*(rule.named for rule in chosen.values())) - {*GROUPS}
        self._action = action.name
        self._schema = cedarpy.Schema.from_str(schema_text(base, [action], named))
        self._require_valid(action, chosen)
        self._policies = _policy_set({i: rule.json for i, rule in chosen.items()})
        self._entities: dict[str, cedarpy.Entities] = {}
        self._groups: frozenset[str] = frozenset().union(*(rule.groups for rule in chosen.values()))
        self._reads_all = any(rule.reads is None for rule in chosen.values())
        self._reads_approvals = any("approvals" in (rule.reads or ()) for rule in chosen.values())
        self.names: frozenset[str] = frozenset().union(*(rule.names for rule in chosen.values()))
        self._require_group_forbids_fire(action)

    def _require_valid(self, action: ToolAction, chosen: Mapping[str, Rule]) -> None:
        """What reads no arguments is typed alike for each tool, and valid if it is for one."""
        placeholder = any_tool_of(action.stage)
        text = "\n".join(
            rule.text
            for rule in chosen.values()
            if action == placeholder or rule.reads_arguments or not rule.is_about(placeholder)
        )
        result = cedarpy.validate_policies(text, self._schema)
        for error in result.errors:
            rule = chosen.get(result.id_annotations_by_policy_id.get(error.policy_id, ""))
            place = f"{rule.place}: policy {rule.id}" if rule else "policies"
            which = "" if action == placeholder else f" for {action.name}"
            hint = ""
            if action == placeholder and rule is not None and rule.reads_arguments:
                hint = "; not every tool has it: write `context.args has NAME && ...` first"
            why = error.error.removeprefix(f"for policy `{error.policy_id}`, ")
            raise PolicyError(f"{place} breaks the schema{which}: {why}{hint}")
        if not result.validation_passed:
            raise PolicyError("policies break the schema; Cedar does not say where")

    def _require_group_forbids_fire(self, action: ToolAction) -> None:
        """The canary: without the schema in its entities, Cedar knows no action's group."""
        yes = {"effect": "permit", "principal": _ALL, "action": _ALL, "resource": _ALL,
               "conditions": []}  # fmt: skip
        group = {"op": "in", "entity": {"type": "Action", "id": action.group}}
        no = {**yes, "effect": "forbid", "action": group}
        policies = _policy_set({"yes": json.dumps(yes), "no": json.dumps(no)})
        context, entities = sample_question(action)
        answer = self._ask(policies, CANARY_AGENT, context, entities)
        if answer != _CedarAnswer(allowed=False, ids=("no",), errors=()):
            why = "; ".join(answer.errors) or "the call was permitted"
            raise PolicyError(
                f"{action.name}: a forbid of {action.group} does not fire ({why}), so that no"
                " policy of a stage can be trusted; this is a fault of agentguard or of cedarpy"
            )

    def heard(self, approvals: int, groups: frozenset[str]) -> tuple[int, frozenset[str]]:
        """As much of who approved as these policies look at; never more than was given."""
        if self._reads_all:
            return approvals, groups
        return approvals if self._reads_approvals else 0, groups & self._groups

    def evaluate(self, question: Question, approvals: int, groups: frozenset[str]) -> Evaluation:
        """Cedar's answer if so many eligible people approved, as these groups.

        Errors are values: what breaks the schema, or what Cedar can't hold, is a no (I11).
        """
        context = json.dumps(
            {**question.context, "approvals": approvals, "approverGroups": sorted(groups)}
        )
        answers: dict[str, _CedarAnswer] = {}
        try:
            for _, entities in question.media:
                if entities not in answers:  # equal media of a call are asked once
                    answers[entities] = self._ask(self._policies, question.agent, context, entities)
        except ValueError as error:  # lone surrogates, and whatever else Cedar can't hold
            return erred(str(error))
        return _join(question, answers)

    def _ask(
        self, policies: cedarpy.PolicySet, agent: str, context: str, entities: str
    ) -> _CedarAnswer:
        result = cedarpy.is_authorized(
            {
                "principal": {"type": "Agent", "id": agent},
                "action": {"type": "Action", "id": self._action},
                "resource": MEDIA,
                "context": context,
            },
            policies,
            self._parsed(entities),
            self._schema,
        )
        diagnostics = result.diagnostics
        return _CedarAnswer(
            allowed=result.decision is cedarpy.Decision.Allow,
            ids=tuple(sorted(diagnostics.reasons)),
            errors=tuple(diagnostics.errors),
        )

    def _parsed(self, text: str) -> cedarpy.Entities:
        """A handle of the entities in a text. Parsing them costs half as much as asking."""
        handle = self._entities.get(text)
        if handle is None:
            # INVARIANT: with the schema. Only it knows which group an action belongs to: in a
            # handle without it, a forbid of a group silently never fires.
            handle = cedarpy.Entities.from_json_str(text, self._schema)
            if len(self._entities) >= _MOST_HANDLES:
                self._entities.clear()
            self._entities[text] = handle
        return handle


def _policy_set(bodies: Mapping[str, str]) -> cedarpy.PolicySet:
    """A handle of policies: JSON texts by id."""
    policies = ", ".join(f"{json.dumps(name)}: {body}" for name, body in bodies.items())
    return cedarpy.PolicySet.from_json_str(
        f'{{"templates": {{}}, "staticPolicies": {{{policies}}}, "templateLinks": []}}'
    )


def erred(why: str) -> Evaluation:
    """The no to a question that could not be asked (I11)."""
    return Evaluation(allowed=False, reasons=(), errors=(why,), where=(), without_permit=())


def _join(question: Question, answers: Mapping[str, _CedarAnswer]) -> Evaluation:
    errors: list[str] = []
    permits: list[tuple[str, str]] = []
    forbids: list[tuple[str, str]] = []
    without_permit: list[str] = []
    for asset, entities in question.media:
        answer = answers[entities]
        # I11: Cedar skips a forbid that errs and says Allow, so an error is a no.
        errors.extend(answer.errors)
        (permits if answer.allowed else forbids).extend((rule, asset) for rule in answer.ids)
        without_permit += [] if answer.allowed or answer.ids else [asset]
    allowed = bool(question.media) and not errors and not forbids and not without_permit
    where = permits if allowed else forbids
    return Evaluation(
        allowed=allowed,
        reasons=tuple(sorted({rule for rule, _ in where})),
        errors=tuple(errors),
        where=tuple(where),
        without_permit=tuple(without_permit),
    )
