"""A call that nobody made: constructed facts for the real `decide` (explain, matrix, doctor)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from agentguard.config.workspace import Workspace
from agentguard.errors import ApprovalError
from agentguard.model import (
    Agent,
    Answer,
    AskedQuestion,
    AssetFacts,
    AssetUse,
    Audience,
    Decision,
    Destination,
    Effect,
    Facts,
    JobState,
    Person,
    Provenance,
    Request,
    Stage,
    Terms,
    ToolAction,
    Verdict,
    any_tool_of,
)
from agentguard.policy.approvers import MOST_APPROVALS, assign, eligible, involved_in
from agentguard.policy.decide import decide
from agentguard.policy.policy_set import Policy
from agentguard.policy.reasons import reasons_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What is supposed of a call.

    Args:
        labels: the class of its one asset; None: a call with a text and no asset.
        requester: who asked for the job; they and the agent's owner don't approve.
        action: the tool that is called; None: any tool of the stage.
        args: its arguments, as a Request holds them.
        text: it carries a text; None: it does if it has no asset.
        text_labels: that its texts raise.
        reveals: its tool shows its media to the chat model.
    """

    agent: Agent
    stage: Stage | None
    destination: Destination | None
    labels: frozenset[str] | None
    queued: bool
    reviewed: bool
    provenance: Provenance
    requester: str
    action: ToolAction | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    text: bool | None = None
    text_labels: frozenset[str] = frozenset()
    reveals: bool = False


def posed(trial: Trial, workspace: Workspace) -> tuple[Request, Facts]:
    """The Request and the Facts of a trial, in an open job with a live credential."""
    uses: tuple[AssetUse, ...] = ()
    assets: tuple[AssetFacts, ...] = ()
    if trial.labels is not None:
        use = AssetUse(argument="asset", asset="this asset", sha256="0" * 64, labels=trial.labels)
        uses = (use,)
        assets = (
            AssetFacts(
                use=use,
                sensitivity=workspace.sensitivity(trial.labels),
                version=1,
                recalled=False,
                held=False,
                queued=trial.queued,
                reviewed=trial.reviewed,
                provenance=trial.provenance,
                terms=Terms(),
                contributors=frozenset({trial.agent.owner}),
            ),
        )
    action = trial.action or any_tool_of(trial.stage)
    request = Request(
        workspace=workspace.id,
        job="job-supposed",
        agent=trial.agent.id,
        stage=trial.stage,
        tool=action.name,
        binding="supposed",
        args=trial.args,
        text_labels=trial.text_labels,
        assets=uses,
        destination=trial.destination.id if trial.destination else None,
        destination_digest=trial.destination.digest if trial.destination else None,
        call_key="supposed",
        revision=0,
    )
    facts = Facts(
        agent=trial.agent,
        action=action,
        job_state=JobState.OPEN,
        credential_live=True,
        requester=trial.requester,
        people=tuple(workspace.people.values()),
        destination=trial.destination,
        assets=assets,
        text_sensitivity=workspace.sensitivity(trial.text_labels),
        chat_ceiling=workspace.chat_ceiling,
        reveals=trial.reveals,
        rejected=False,
        can_ask=True,
        open_labels=workspace.open_labels,
        text=trial.labels is None if trial.text is None else trial.text,
    )
    return request, facts


def judge(
    trial: Trial,
    workspace: Workspace,
    policy: Policy,
    *,
    approvals: int = 0,
    groups: Sequence[str] = (),
) -> Decision:
    """What `decide` says of a trial.

    Args:
        approvals: how many configured people are supposed to have approved, after they were
            shown everything that stands against it.
        groups: what some of them answered as.

    Raises:
        ApprovalError: the workspace has not that many people who may.
    """
    request, facts = posed(trial, workspace)
    now = time.time_ns() // 1_000_000
    answers = _answers(request, facts, approvals, groups, now)
    against = policy.evaluate(request, facts, now, 0, frozenset())
    question = AskedQuestion(reasons=reasons_of(policy, request, facts, against))
    return decide(policy, request, facts, answers, now, question)


def judge_among_strangers(trial: Trial, workspace: Workspace, policy: Policy) -> Decision:
    """What `decide` says if there were always somebody to ask: what the policy wants."""
    request, facts = posed(trial, workspace)
    crowd = tuple(
        Person(id=f"stranger-{number}", groups=policy.groups) for number in range(MOST_APPROVALS)
    )
    now = time.time_ns() // 1_000_000
    return decide(policy, request, replace(facts, people=crowd), (), now)


def falls(trial: Trial, workspace: Workspace, policy: Policy) -> str | None:
    """How one more approval, or one more group, turns a yes of this trial into a no.

    Returns:
        One sentence, or None: it does not. Policies must be monotone in approvals.
    """
    request, facts = posed(trial, workspace)
    now = time.time_ns() // 1_000_000
    sets = [frozenset[str](), *(frozenset({group}) for group in sorted(policy.groups))]
    sets.append(policy.groups)

    @cache
    def yes(count: int, groups: frozenset[str]) -> bool:
        return policy.evaluate(request, facts, now, count, groups).allowed

    for groups in sets:
        for count in range(len(groups), MOST_APPROVALS):
            if yes(count, groups) and not yes(count + 1, groups):
                return f"with {count} approvals it is permitted, with {count + 1} refused"
    for count in range(len(policy.groups), MOST_APPROVALS):
        for groups in sets:
            if yes(count, groups) and not yes(count, policy.groups):
                return f"{count} approvals permit it, and refuse it when more groups are among them"
    return None


def fallen_releases(workspace: Workspace, policy: Policy) -> list[str]:
    """Which releases one more approval refuses that fewer permit, and how; see `falls`."""
    fallen = []
    for place in workspace.destinations.values():
        for label in workspace.classes:
            trial = release(workspace, place, label, Provenance.UNKNOWN)
            why = falls(trial, workspace, policy) if trial is not None else None
            if why is not None:
                fallen.append(f"{label} to {place.id}: {why}")
    return fallen


def cell(decision: Decision) -> str:
    """A Decision in three words: `permit`, `ask 2 (legal)`, `deny`."""
    if decision.effect is not Effect.ASK or decision.needs is None:
        return decision.effect.value
    groups = f" ({', '.join(sorted(decision.needs.groups))})" if decision.needs.groups else ""
    return f"ask {decision.needs.approvals}{groups}"


def first_agent(workspace: Workspace, stage: Stage | None) -> Agent | None:
    """The first agent that takes a stage, as configured; any may call a tool without one."""
    agents = workspace.agents.values()
    return next((one for one in agents if stage is None or stage in one.stages), None)


def release(
    workspace: Workspace, place: Destination, label: str, provenance: Provenance
) -> Trial | None:
    """The export of a queued, reviewed asset of one class; for a vendor, an edit that goes there.

    Returns:
        None if no agent takes the stage.
    """
    stage = Stage.EDIT if place.audience is Audience.VENDOR else Stage.EXPORT
    agent = first_agent(workspace, stage)
    if agent is None:
        return None
    return Trial(
        agent=agent,
        stage=stage,
        destination=place,
        labels=frozenset({label}),
        queued=True,
        reviewed=True,
        provenance=provenance,
        requester=agent.owner,
    )


def _answers(
    request: Request, facts: Facts, count: int, groups: Sequence[str], now: int
) -> list[Answer]:
    """Unsigned: `decide` is given what was verified before, and this never leaves the trial."""
    may = tuple(eligible(facts.people, involved_in(facts)).values())
    seated = assign(groups, may)
    if seated is None:
        lacking = next(g for n, g in enumerate(groups) if assign(groups[: n + 1], may) is None)
        raise ApprovalError(f"nobody in {lacking:.80} is left who may approve this")
    left = [person for person in may if person.id not in seated]
    more = max(count - len(seated), 0)
    if more > len(left):
        raise ApprovalError(
            f"{count} approvals were supposed, but of the configured people only {len(may)} may"
            " approve this: who asked for the job and who owns the agent don't count"
        )
    # Whoever could answer for a group stays free to do so, as people are told to (I1).
    left.sort(key=lambda person: len(person.groups))
    given = [*seated.items(), *((person.id, None) for person in left[:more])]
    return [
        Answer(
            request=request.digest,
            person=person,
            verdict=Verdict.APPROVE,
            group=group,
            at=now,
            key_id="",
            signature="",
        )
        for person, group in given
    ]
