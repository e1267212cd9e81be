"""The decision: a pure, total function of its arguments (DESIGN section 5, STYLE rule 1).

Answers come in verified and unexpired; who may count is judged here (I1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, islice

from agentguard.errors import CanonicalError
from agentguard.model import (
    Answer,
    AskedQuestion,
    Decision,
    Effect,
    Facts,
    Needs,
    Person,
    Reason,
    Request,
    Verdict,
)
from agentguard.policy.evaluate import Evaluation
from agentguard.policy.policy_set import Policy, time_is_sayable
from agentguard.policy.reasons import NO_PERMIT, reasons_of

MOST_APPROVALS = 8
"""No call waits for more people than this; a policy that wants more is a no."""

_MOST_TRIES = 256  # sets of groups tried for each number of people
_SHOWN = 3  # assets that a sentence names before it counts the rest
_LONGEST = 80  # characters of a name that a sentence shows

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def decide(
    policy: Policy,
    request: Request,
    facts: Facts,
    answers: Sequence[Answer],
    now: int,
    question: AskedQuestion | None = None,
) -> Decision:
    """Judge one Request. Never raises, never reads a clock, changes nothing.

    An Approval lifts the reasons that its question showed. As soon as anything else forbids the
    Request, none of them counts, and the ASK says first what is new (I7).

    Args:
        policy: what to judge by.
        request: what is asked for.
        facts: what is true now, gathered for this Request.
        answers: signed answers, each verified and unexpired; those that don't count are ignored.
        now: ms since the Unix epoch, by the ledger's clock.
        question: why people were asked; None: nobody was, so no approval counts.

    Returns:
        PERMIT with the permits that said so; ASK with the forbids that a person could lift and
        the smallest sufficient set of approvals still missing; DENY with the policies that no
        approval lifts, or an `agentguard.` id for what is not Cedar's to say.
    """
    fault = _fault(request, facts, now)
    if fault is not None:
        return _deny(*fault)
    eligible = _eligible(facts)
    try:
        counted = _counted(request, eligible, answers)
    except CanonicalError:
        return _deny("agentguard.request", "the call holds values that have no canonical form")
    for answer in counted:
        if answer.verdict is Verdict.DENY:
            return _deny("agentguard.rejected", f"{_name(answer.person)} rejected this call")

    given = policy.asking(request, facts, now)
    first = given(0, frozenset())
    if first.errors:
        return _erred(policy, first)
    try:
        reasons = reasons_of(policy, request, facts, first)
    except CanonicalError:
        return _deny("agentguard.request", "the facts hold values that have no canonical form")
    covered = question is not None and reasons <= question.reasons
    approved = {answer.person: answer.group for answer in counted if covered}
    groups = frozenset(group for group in approved.values() if group is not None)

    def ask(more: int, among: frozenset[str]) -> Evaluation:
        return given(len(approved) + more, groups | among)

    ruling = ask(0, frozenset())
    if ruling.errors:
        return _erred(policy, ruling)
    if ruling.allowed:
        sentence = f"{_name(request.tool)} is permitted by {', '.join(ruling.reasons)}"
        return Decision(effect=Effect.PERMIT, policies=ruling.reasons, reason=sentence)

    waiting = [person for person in eligible.values() if person.id not in approved]
    needs = _smallest(ask, policy.groups, waiting)
    if needs is None:
        return _unanswerable(policy, request, facts, ask, first, waiting)
    why = _why(policy, request, facts, first, reasons, question)
    if not facts.can_ask:
        reason = f"{why}; this graph has no checkpointer, so nobody can be asked"
        return Decision(effect=Effect.DENY, policies=_ids(first), reason=reason)
    reason = f"{why}; waiting for {_people(needs)}"
    return Decision(
        effect=Effect.ASK, policies=_ids(first), reason=reason, needs=needs, reasons=reasons
    )


def _fault(request: Request, facts: Facts, now: int) -> tuple[str, str] | None:
    """What is wrong with the question itself: the Request and the Facts must be of one call."""
    if facts.agent is None:
        return "agentguard.agent", f"agent {_name(request.agent)} is no longer configured"
    if facts.agent.id != request.agent:
        return "agentguard.agent", "the call was judged with facts of another agent; call again"
    if not time_is_sayable(now):
        return "agentguard.clock", "the ledger's clock is out of range; an operator must set it"
    if tuple(asset.use for asset in facts.assets) != request.assets:
        return "agentguard.assets", "an asset or its labels changed meanwhile; call again"
    if request.destination is not None and facts.destination is None:
        named = _name(request.destination)
        return "agentguard.destination", f"{named} is not a configured destination"
    found = facts.destination
    try:
        expected = (found.id, found.digest) if found is not None else (None, None)
    except CanonicalError:
        return "agentguard.destination", "the destination's configuration has no canonical form"
    if (request.destination, request.destination_digest) != expected:
        return "agentguard.destination", "the destination changed meanwhile; call again"
    return None


def _eligible(facts: Facts) -> dict[str, Person]:
    """I1, S3: neither who asked for the job nor who had a hand in an asset, and each one once."""
    # I1, S3: the acting agent's owner would approve what their own agent asked for.
    owner = {facts.agent.owner} if facts.agent is not None else set()
    barred = {facts.requester, *owner, *facts.contributors}.union(
        *(asset.contributors for asset in facts.assets)
    )
    return {person.id: person for person in facts.people if person.id not in barred}


def _counted(
    request: Request, eligible: Mapping[str, Person], answers: Sequence[Answer]
) -> list[Answer]:
    """The answers that count: each person's first approval, and every denial.

    A denial counts whatever group it names: what is uncertain about it must not make it a yes.
    """
    counted: list[Answer] = []
    seen: set[str] = set()
    for answer in sorted(answers, key=lambda each: each.at):
        person = eligible.get(answer.person)
        if person is None or answer.request != request.digest:
            continue
        if answer.verdict is Verdict.DENY:
            counted.append(answer)
        elif person.id not in seen and (answer.group is None or answer.group in person.groups):
            seen.add(person.id)  # one person, one group: more answers of theirs add nothing
            counted.append(answer)
    return counted


def _smallest(
    ask: Callable[[int, frozenset[str]], Evaluation],
    names: frozenset[str],
    people: list[Person] | None,
) -> Needs | None:
    """The fewest further approvals, then the fewest groups, that turn the no into a yes.

    Args:
        ask: Cedar's ruling if so many more people approved, as these groups.
        names: the groups that policies read.
        people: who could still approve; None imagines as many as needed, in any group.
    """
    most = MOST_APPROVALS
    if people is not None:
        most = min(most, len(people))
        names = names & frozenset().union(*(person.groups for person in people))
    # Policies are monotone (doctor tests it): what all can't lift, no smaller set can. Mostly one
    # person is enough, so that is asked before.
    if most == 0 or not (ask(1, names).allowed or ask(most, names).allowed):
        return None
    for count in range(1, most + 1):
        if not ask(count, names).allowed:
            continue
        for groups in islice(_subsets(names, count), _MOST_TRIES):
            if (people is None or _seated(groups, people)) and ask(count, groups).allowed:
                return Needs(approvals=count, groups=groups)
    return None


def _unanswerable(
    policy: Policy,
    request: Request,
    facts: Facts,
    ask: Callable[[int, frozenset[str]], Evaluation],
    first: Evaluation,
    waiting: Sequence[Person],
) -> Decision:
    """The DENY of what those who are still `waiting` can't lift: nobody may, or nobody is left."""
    # Anybody who could ever answer: what they can't lift, no approval lifts.
    lifted = ask(MOST_APPROVALS, policy.groups.union(*(p.groups for p in facts.people)))
    if lifted.errors:
        return _erred(policy, lifted)
    if not lifted.allowed:
        return _refused(policy, request, facts, lifted)
    wanted = _smallest(ask, policy.groups, None) or Needs(approvals=MOST_APPROVALS)
    why = _sentence(policy, request, facts, first)
    reason = f"{why}; this needs {_people(wanted)}, and {_nobody(facts, wanted, waiting)}"
    return Decision(effect=Effect.DENY, policies=_ids(first), reason=reason)


def _subsets(names: frozenset[str], largest: int) -> Iterator[frozenset[str]]:
    for size in range(min(largest, len(names)) + 1):
        yield from map(frozenset, combinations(sorted(names), size))


def _seated(groups: frozenset[str], people: Sequence[Person]) -> bool:
    """Whether distinct people can answer as these groups, one each (a bipartite matching)."""
    seats: dict[str, str] = {}  # person id: group

    def seat(group: str, tried: set[str]) -> bool:
        for person in people:
            if group in person.groups and person.id not in tried:
                tried.add(person.id)
                if person.id not in seats or seat(seats[person.id], tried):
                    seats[person.id] = group
                    return True
        return False

    return all(seat(group, set()) for group in groups)


def still_needed(needs: Needs, answers: Sequence[Answer]) -> Needs:
    """What is still missing of what was asked for; each approval counts in one group."""
    given = [answer for answer in answers if answer.verdict is Verdict.APPROVE]
    groups = needs.groups - {answer.group for answer in given}
    return Needs(approvals=max(needs.approvals - len(given), len(groups)), groups=groups)


def why_not_counted(
    needs: Needs,
    answers: Sequence[Answer],
    answer: Answer,
    *,
    person: Person,
    others: Sequence[Person],
) -> str | None:
    """Why an answer could not count for an approval request, None if it can. A denial always can.

    Args:
        needs: what was asked for.
        answers: those given before.
        answer: the new one.
        person: who gives it, and may.
        others: who else may still answer.
    """
    if answer.verdict is Verdict.DENY:
        return None
    before = still_needed(needs, answers)
    after = still_needed(needs, [*answers, answer])
    name = _name(person.id)
    said = f"as {_name(answer.group)}" if answer.group is not None else "without a group"
    if after == before:
        return f"an approval of {name} {said} would not count; missing: {before}"
    if _can_come(after, others) or not _can_come(before, [*others, person]):
        return None
    fitting = [
        group
        for group in sorted(before.groups & person.groups)
        if _can_come(still_needed(needs, [*answers, replace(answer, group=group)]), others)
    ]
    return (
        f"if {name} answers {said}, nobody is left who can for {' or '.join(sorted(after.groups))};"
        f" answer as {' or '.join(map(_name, fitting))}"
    )


def _can_come(needs: Needs, people: Sequence[Person]) -> bool:
    return len(people) >= needs.approvals and _seated(needs.groups, people)


def _people(needs: Needs) -> str:
    return f"{needs}, to approve" if needs.groups else f"{needs} to approve"


def _nobody(facts: Facts, wanted: Needs, waiting: Sequence[Person]) -> str:
    """Why the approvals that are wanted can't come."""
    for group in sorted(wanted.groups):
        if any(group in person.groups for person in waiting):
            continue
        if any(group in person.groups for person in facts.people):
            return f"everybody in {_name(group)} has answered, asked for the job or contributed"
        return f"nobody is in {_name(group)}"
    if len(waiting) >= wanted.approvals:
        return "no two people can answer for these groups: each counts in one"
    left = {0: "nobody else", 1: "only 1 person"}.get(len(waiting), f"only {len(waiting)} people")
    return f"{left} may: those who answered, asked for the job or contributed do not count"


def _refused(policy: Policy, request: Request, facts: Facts, ruling: Evaluation) -> Decision:
    reason = _sentence(policy, request, facts, ruling)
    return Decision(effect=Effect.DENY, policies=_ids(ruling), reason=reason)


def _ids(ruling: Evaluation) -> tuple[str, ...]:
    return ruling.reasons + ((NO_PERMIT,) if ruling.unpermitted else ())


def _erred(policy: Policy, ruling: Evaluation) -> Decision:
    """I11. What Cedar says may quote what the model wrote, so only the ids of its policies pass."""
    said = " ".join(ruling.errors)
    return Decision(
        effect=Effect.DENY,
        policies=("agentguard.policy-error", *(i for i in policy.rules if f"`{i}`" in said)),
        reason="a policy could not be evaluated, so the call is refused; an operator must look",
    )


def _deny(policy_id: str, reason: str) -> Decision:
    return Decision(effect=Effect.DENY, policies=(policy_id,), reason=reason)


def _why(
    policy: Policy,
    request: Request,
    facts: Facts,
    ruling: Evaluation,
    reasons: frozenset[Reason],
    question: AskedQuestion | None,
) -> str:
    """Why people are asked: first what is new since they were asked before, if they were (I7)."""
    known = None
    if question is not None:
        known = question.earlier if reasons <= question.reasons else question.reasons
    new = reasons - known if known is not None else frozenset()
    if not new:
        return _sentence(policy, request, facts, ruling)
    pairs = {(reason.policy, reason.asset) for reason in new}
    fresh = _part(ruling, lambda policy_id, asset: (policy_id, asset) in pairs)
    rest = _part(ruling, lambda policy_id, asset: (policy_id, asset) not in pairs)
    why = f"new since people were asked: {_sentence(policy, request, facts, fresh)}"
    if rest.where or rest.without_permit:
        why += f"; asked before: {_sentence(policy, request, facts, rest)}"
    return why


def _part(ruling: Evaluation, belongs: Callable[[str, str], bool]) -> Evaluation:
    """A ruling with some of its reasons only."""
    where = tuple(pair for pair in ruling.where if belongs(*pair))
    return replace(
        ruling,
        reasons=tuple(sorted({policy_id for policy_id, _ in where})),
        where=where,
        without_permit=tuple(a for a in ruling.without_permit if belongs(NO_PERMIT, a)),
    )


def _sentence(policy: Policy, request: Request, facts: Facts, ruling: Evaluation) -> str:
    """The advice of the policies that decided, filled in, as one sentence."""
    clauses: list[str] = []
    for rule_id in ruling.reasons:
        about = [asset for rule, asset in ruling.where if rule == rule_id]
        advice = policy.rules[rule_id].advice or f"{rule_id} forbids it"
        clauses.append(_filled(advice, request, facts, about))
    if ruling.unpermitted or not clauses:
        action = request.stage or "use"
        clauses.append(f"no policy permits {_name(request.tool)} here")
        clauses += [
            _filled(rule.advice, request, facts, [asset.use.asset for asset in facts.assets])
            for rule in policy.rules.values()
            if rule.effect == "permit" and rule.advice and action in rule.actions
        ]
    return "; ".join(dict.fromkeys(clauses))


def _filled(advice: str, request: Request, facts: Facts, about: Sequence[str]) -> str:
    def say(found: re.Match[str]) -> str:
        match found[1]:
            case "agent":
                return _name(request.agent)
            case "asset":
                nothing = "the text" if facts.text else "the call"
                return _names([asset for asset in about if asset]) or nothing
            case "audience":
                return facts.destination.audience.value if facts.destination else "unknown"
            case "destination":
                return _name(facts.destination.id) if facts.destination else "no destination"
            case "labels":
                return _labels(request, facts, about, frozenset())
            case "above":
                ceiling = facts.destination.ceiling if facts.destination else frozenset()
                return _labels(request, facts, about, ceiling)
            case "stage":
                return request.stage.value if request.stage is not None else "use"
            case "tool":
                return _name(request.tool)
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


def _names(names: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(names))
    shown = ", ".join(_name(name) for name in distinct[:_SHOWN])
    return shown + (f" and {len(distinct) - _SHOWN} more" if len(distinct) > _SHOWN else "")


def _name(text: str) -> str:
    """A name as a sentence may hold it: one line, bounded."""
    short = text[:_LONGEST]
    return short if short.isprintable() else "".join(c if c.isprintable() else "?" for c in short)
