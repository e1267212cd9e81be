"""The decision: a pure, total function of its arguments.

Answers come in verified and unexpired; which of them count is judged here (I1), by `approvers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentguard.errors import CanonicalError
from agentguard.model import (
    Answer,
    AskedQuestion,
    Decision,
    Effect,
    Facts,
    Needs,
    Person,
    Request,
)
from agentguard.policy import approvers, explanation
from agentguard.policy.approvers import MOST_APPROVALS
from agentguard.policy.evaluate import Evaluation
from agentguard.policy.policy_set import Policy, time_is_sayable
from agentguard.policy.reasons import NO_PERMIT, covers, reasons_of


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
    eligible = approvers.eligible(facts.people, approvers.involved_in(facts))
    try:
        counted = approvers.counted(request, eligible, answers)
    except CanonicalError:
        return _deny("agentguard.request", "the call holds values that have no canonical form")
    no = approvers.rejection(counted)
    if no is not None:
        person = explanation.name(no.person)
        return _deny("agentguard.rejected", f"{person} rejected this call")

    given = policy.asking(request, facts, now)
    first = given(0, frozenset())
    if first.errors:
        return _erred(policy, first)
    try:
        reasons = reasons_of(policy, request, facts, first)
    except CanonicalError:
        return _deny("agentguard.request", "the facts hold values that have no canonical form")
    approved = approvers.by_person(counted if covers(question, reasons) else ())
    groups = frozenset(group for group in approved.values() if group is not None)

    def ask(more: int, among: frozenset[str]) -> Evaluation:
        return given(len(approved) + more, groups | among)

    evaluation = ask(0, frozenset())
    if evaluation.errors:
        return _erred(policy, evaluation)
    if evaluation.allowed:
        permits = evaluation.reasons
        reason = f"{explanation.name(request.tool)} is permitted by {', '.join(permits)}"
        return Decision(effect=Effect.PERMIT, policies=permits, reason=reason)

    waiting = [person for person in eligible.values() if person.id not in approved]
    needs = approvers.smallest(lambda more, among: ask(more, among).allowed, policy.groups, waiting)
    if needs is None:
        return _unanswerable(policy, request, facts, ask, first, waiting)
    why = explanation.why(policy, request, facts, first, reasons, question)
    if not facts.can_ask:
        reason = (
            f"{why}; this graph has no checkpointer, so nobody can be asked; give it one,"
            " .compile(checkpointer=...)"
        )
        return Decision(effect=Effect.DENY, policies=_ids(first), reason=reason)
    reason = f"{why}; waiting for {explanation.people(needs)}"
    return Decision(
        effect=Effect.ASK, policies=_ids(first), reason=reason, needs=needs, reasons=reasons
    )


def _fault(request: Request, facts: Facts, now: int) -> tuple[str, str] | None:
    """What is wrong with the question itself: the Request and the Facts must be of one call."""
    if facts.agent is None:
        named = explanation.name(request.agent)
        return "agentguard.agent", f"agent {named} is no longer configured"
    if facts.agent.id != request.agent:
        return "agentguard.agent", "the call was judged with facts of another agent; call again"
    if facts.action.name != request.tool:
        return "agentguard.tool", "the call was judged with facts of another tool; call again"
    if not time_is_sayable(now):
        return "agentguard.clock", "the ledger's clock is out of range; an operator must set it"
    if tuple(asset.use for asset in facts.assets) != request.assets:
        return "agentguard.assets", "an asset or its labels changed meanwhile; call again"
    if request.destination is not None and facts.destination is None:
        named = explanation.name(request.destination)
        return "agentguard.destination", f"{named} is not a configured destination"
    found = facts.destination
    try:
        expected = (found.id, found.digest) if found is not None else (None, None)
    except CanonicalError:
        return "agentguard.destination", "the destination's configuration has no canonical form"
    if (request.destination, request.destination_digest) != expected:
        return "agentguard.destination", "the destination changed meanwhile; call again"
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
    wanted = approvers.smallest(lambda more, among: ask(more, among).allowed, policy.groups, None)
    wanted = wanted or Needs(approvals=MOST_APPROVALS)
    why = explanation.sentence(policy, request, facts, first)
    lacking = explanation.nobody(facts, wanted, waiting)
    reason = f"{why}; this needs {explanation.people(wanted)}, and {lacking}"
    return Decision(effect=Effect.DENY, policies=_ids(first), reason=reason)


def _refused(policy: Policy, request: Request, facts: Facts, evaluation: Evaluation) -> Decision:
    reason = explanation.sentence(policy, request, facts, evaluation)
    return Decision(effect=Effect.DENY, policies=_ids(evaluation), reason=reason)


def _ids(evaluation: Evaluation) -> tuple[str, ...]:
    return evaluation.reasons + ((NO_PERMIT,) if evaluation.unpermitted else ())


def _erred(policy: Policy, evaluation: Evaluation) -> Decision:
    """I11. What Cedar says may quote what the model wrote, so only the ids of its policies pass."""
    said = " ".join(evaluation.errors)
    return Decision(
        effect=Effect.DENY,
        policies=("agentguard.policy-error", *(i for i in policy.rules if f"`{i}`" in said)),
        reason="a policy could not be evaluated, so the call is refused; an operator must look",
    )


def _deny(policy_id: str, reason: str) -> Decision:
    return Decision(effect=Effect.DENY, policies=(policy_id,), reason=reason)
