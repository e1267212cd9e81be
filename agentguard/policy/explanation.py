"""What is said of a decision: one sentence that helps, for the agent and for people.

No control flow reads these sentences. They hold names only in one line and bounded: what the model
wrote may be among them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from agentguard.model import Answer, AskedQuestion, Facts, Needs, Person, Reason, Request
from agentguard.policy.approvers import Bar, Uncounted
from agentguard.policy.evaluate import Evaluation
from agentguard.policy.policy_set import Policy
from agentguard.policy.reasons import NO_PERMIT

_SHOWN = 3  # assets that a sentence names before it counts the rest
_LONGEST = 80  # characters of a name that a sentence shows

_BARRED = {
    Bar.REQUESTER: "asked for the job and can't answer",
    Bar.CONTRIBUTOR: "contributed to its media or owns its agent, and can't answer",
    Bar.ANSWERED: "answered this before, and an answer stands",
}
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def why(
    policy: Policy,
    request: Request,
    facts: Facts,
    evaluation: Evaluation,
    reasons: frozenset[Reason],
    question: AskedQuestion | None,
) -> str:
    """Why people are asked: first what is new since they were asked before, if they were (I7)."""
    known = None
    if question is not None:
        known = question.earlier if reasons <= question.reasons else question.reasons
    new = reasons - known if known is not None else frozenset()
    if not new:
        return sentence(policy, request, facts, evaluation)
    pairs = {(reason.policy, reason.asset) for reason in new}
    fresh = _part(evaluation, lambda policy_id, asset: (policy_id, asset) in pairs)
    rest = _part(evaluation, lambda policy_id, asset: (policy_id, asset) not in pairs)
    said = f"new since people were asked: {sentence(policy, request, facts, fresh)}"
    if rest.where or rest.without_permit:
        said += f"; asked before: {sentence(policy, request, facts, rest)}"
    return said


def _part(evaluation: Evaluation, belongs: Callable[[str, str], bool]) -> Evaluation:
    """An evaluation with some of its reasons only."""
    where = tuple(pair for pair in evaluation.where if belongs(*pair))
    return replace(
        evaluation,
        reasons=tuple(sorted({policy_id for policy_id, _ in where})),
        where=where,
        without_permit=tuple(a for a in evaluation.without_permit if belongs(NO_PERMIT, a)),
    )


def sentence(policy: Policy, request: Request, facts: Facts, evaluation: Evaluation) -> str:
    """The advice of the policies that decided, filled in, as one sentence."""
    clauses: list[str] = []
    for rule_id in evaluation.reasons:
        about = [asset for rule, asset in evaluation.where if rule == rule_id]
        advice = policy.rules[rule_id].advice or f"{rule_id} forbids it"
        clauses.append(_filled(advice, request, facts, about))
    if evaluation.unpermitted or not clauses:
        clauses.append(f"no policy permits {name(request.tool)} here")
        clauses += [
            _filled(rule.advice, request, facts, [asset.use.asset for asset in facts.assets])
            for rule in policy.rules.values()
            if rule.effect == "permit" and rule.advice and rule.is_about(facts.action)
        ]
    return "; ".join(dict.fromkeys(clauses))


def _filled(advice: str, request: Request, facts: Facts, about: Sequence[str]) -> str:
    def say(found: re.Match[str]) -> str:
        match found[1]:
            case "agent":
                return name(request.agent)
            case "asset":
                nothing = "the text" if facts.text else "the call"
                return _names([asset for asset in about if asset]) or nothing
            case "audience":
                return facts.destination.audience.value if facts.destination else "unknown"
            case "destination":
                return name(facts.destination.id) if facts.destination else "no destination"
            case "labels":
                return _labels(request, facts, about, frozenset())
            case "above":
                ceiling = facts.destination.ceiling if facts.destination else frozenset()
                return _labels(request, facts, about, ceiling)
            case "stage":
                return request.stage.value if request.stage is not None else "use"
            case "tool":
                return name(request.tool)
            case _:
                return found[0]

    # One pass: braces inside a name are never read as a placeholder.
    return _PLACEHOLDER.sub(say, advice)


def _labels(request: Request, facts: Facts, about: Sequence[str], within: frozenset[str]) -> str:
    """The labels that a sentence is about: of its assets, and of the text beside them.

    Args:
        within: labels that are not what is wrong.
    """
    media = frozenset[str]().union(
        *(asset.use.labels for asset in facts.assets if asset.use.asset in about)
    )
    labels = media | request.text_labels
    wrong = labels - facts.open_labels - within or labels
    of_text = request.text_labels - media if media else frozenset()
    names = [f"{each} (in its text)" if each in of_text else each for each in sorted(wrong)]
    return _names(names) or "nothing"


def people(needs: Needs) -> str:
    """Who must still approve."""
    return f"{needs}, to approve" if needs.groups else f"{needs} to approve"


def nobody(facts: Facts, wanted: Needs, waiting: Sequence[Person]) -> str:
    """Why the approvals that are wanted can't come."""
    for group in sorted(wanted.groups):
        if any(group in person.groups for person in waiting):
            continue
        if any(group in person.groups for person in facts.people):
            return f"everybody in {name(group)} has answered, asked for the job or contributed"
        return f"nobody is in {name(group)}"
    if len(waiting) >= wanted.approvals:
        return "no two people can answer for these groups: each counts in one"
    left = {0: "nobody else", 1: "only 1 person"}.get(len(waiting), f"only {len(waiting)} people")
    return f"{left} may: those who answered, asked for the job or contributed do not count"


def uncounted(why: Uncounted, answer: Answer) -> str:
    """Why an approval could not count, and what the person can do instead."""
    person = name(answer.person)
    said = f"as {name(answer.group)}" if answer.group is not None else "without a group"
    if why.left == why.missing:
        return f"an approval of {person} {said} would not count; missing: {why.missing}"
    wanted = " or ".join(sorted(why.left.groups))
    return (
        f"if {person} answers {said}, nobody is left who can for {wanted};"
        f" answer as {' or '.join(map(name, why.instead))}"
    )


def barred(person: str, bar: Bar, who_can: str) -> str:
    """Why a person can't answer.

    Args:
        who_can: those who can, or "nobody".
    """
    return f"{name(person)} {_BARRED[bar]}; who can: {who_can}"


def _names(names: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(names))
    shown = ", ".join(map(name, distinct[:_SHOWN]))
    return shown + (f" and {len(distinct) - _SHOWN} more" if len(distinct) > _SHOWN else "")


def name(text: str) -> str:
    """A name as a sentence may hold it: one line, bounded."""
    short = text[:_LONGEST]
    return short if short.isprintable() else "".join(c if c.isprintable() else "?" for c in short)
