"""The reasons that stand against a Request while nobody approves it: what an Approval covers (I7).

A person says yes to the reasons that they were shown. What forbids the call later, on other
grounds, is not what they said yes to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentguard.canonical import digest
from agentguard.model import AskedQuestion, Facts, Reason, Request
from agentguard.policy.analysis import Rule
from agentguard.policy.cedar_input import call_of, configured, media_of
from agentguard.policy.evaluate import Evaluation
from agentguard.policy.policy_set import Policy

NO_PERMIT = "agentguard.no-permit"
"""Stands for a policy where none forbids an asset and none permits it."""

_APPROVALS = {"approvals", "approverGroups", "now"}
"""What of a call is no ground: who approved, and the time."""


def reasons_of(
    policy: Policy, request: Request, facts: Facts, unapproved: Evaluation
) -> frozenset[Reason]:
    """Everything that forbids a Request on these facts.

    Args:
        unapproved: what Cedar says if nobody approved.

    Raises:
        CanonicalError: the facts hold what has no canonical form.
    """
    if unapproved.allowed:
        return frozenset()
    permits = [rule for rule in policy.rules.values()
               if rule.effect == "permit" and rule.is_about(facts.action)]  # fmt: skip
    named = [(policy_id, asset, [policy.rules[policy_id]]) for policy_id, asset in unapproved.where]
    named += [(NO_PERMIT, asset, permits) for asset in unapproved.without_permit]
    grounds = _Grounds(request, facts)
    return frozenset(
        Reason(policy_id, asset, grounds.of(rules, asset)) for policy_id, asset, rules in named
    )


def covers(question: AskedQuestion | None, reasons: frozenset[Reason]) -> bool:
    """Whether approvals of a question lift all of these reasons: it showed each of them (I7).

    Args:
        question: why people were asked; None: nobody was, so nothing is lifted.
    """
    return question is not None and reasons <= question.reasons


class _Grounds:
    """What policies can read of a call, gathered once for all of its reasons."""

    def __init__(self, request: Request, facts: Facts) -> None:
        self._call = call_of(request, facts)
        self._media: dict[str, list[Mapping[str, Any]]] = {}
        for one in media_of(request, facts):
            self._media.setdefault(one["id"], []).append({**one, "argument": "", "id": ""})
        # A review that finds something changes no attribute of an asset that had none before.
        self._findings: dict[str, list[str]] = {}
        for asset in facts.assets:
            self._findings.setdefault(asset.use.asset, []).extend(asset.findings)
        self._configured = (
            configured(facts.agent, facts.destination, facts.open_labels)
            if facts.agent is not None
            else []
        )

    def of(self, rules: list[Rule], asset: str) -> str:
        """Names what policies say, and what they read of the call and of one of its assets."""
        reads: set[str] | None = set()
        for rule in rules:
            reads = None if reads is None or rule.reads is None else reads | rule.reads
        findings = sorted(self._findings.get(asset, ()))
        return digest(
            "agentguard/grounds/v1",
            {
                "policies": [rule.digest for rule in rules],
                "call": _read(self._call, reads),
                "media": [_read(one, reads) for one in self._media.get(asset, ())],
                "findings": findings if reads is None or "reviewed" in reads else [],
                "configured": [_read(entity["attrs"], reads) for entity in self._configured],
            },
        )


def _read(attributes: Mapping[str, Any], reads: set[str] | None) -> dict[str, Any]:
    """The attributes that are read, but for those that are no ground."""
    names = attributes.keys() - _APPROVALS
    return {name: attributes[name] for name in names if reads is None or name in reads}
