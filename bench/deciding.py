"""The decision alone: `decide` over exactly 50 policies, on the Facts of real calls.

In CPU time of its thread: a decision waits for nothing, and what else runs on the machine is not
its own. What the garbage collector does in between is in it, and makes most of the 99th percentile.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import agentguard.calls.authorize
from agentguard.jobs.job import Job
from agentguard.langgraph.runtime import make_call
from agentguard.model import Decision, Effect
from agentguard.policy.policy_set import Policy
from bench.figures import Figure
from bench.rounds import Scale, p
from bench.studio import KIM, Studio, studio

POLICIES = 50
_P50, _P99 = 60, 150  # µs

_EXPORT = """
@id("acme.{name}")
@advice("{{asset}} is labelled {{labels}}, and {name} wants a person to look at it")
forbid (principal, action == Action::"export", resource)
when {{ context has destination && context.destination.id == "{name}"
  && resource.labels.contains("likeness") }}
unless {{ context.approvals >= 1 }};
"""
_STAGE = """
@id("acme.{name}")
@advice("{{asset}} is labelled {{labels}}; leave it as it is")
forbid (principal, action == Action::"{stage}", resource)
when {{ resource.labels.contains("regulated") && context.tool == "{name}" }};
"""
_TEAM = """
@id("acme.{name}")
@advice("{{asset}} is embargoed; agents of {name} do not touch it")
forbid (principal, action, resource)
when {{ principal.owner == "{name}@acme.example" && resource.labels.contains("embargoed") }};
"""


def house_rules(count: int) -> str:
    """Cedar text of so many rules such as a studio adds: by channel, by tool, by team."""
    stages = ("generate", "edit", "render", "review", "queue")
    rules = []
    for number in range(count):
        if number % 7 == 6:
            rules.append(_TEAM.format(name=f"team-{number}"))
        elif number % 2:
            rules.append(_STAGE.format(name=f"tool-{number}", stage=stages[number % 5]))
        else:
            rules.append(_EXPORT.format(name=f"channel-{number}"))
    return "".join(rules)


def measure(scale: Scale) -> list[Figure]:
    """p50 and p99 of `decide`, for calls that are permitted and one that is asked about."""
    figures = []
    with studio() as place:
        extra = place.folder / "house.cedar"
        extra.write_text(house_rules(POLICIES - len(Policy.load().rules)), "utf-8")
        policy = Policy.load([extra])
        if len(policy.rules) != POLICIES:
            raise RuntimeError(f"expected {POLICIES} policies, got {len(policy.rules)}")
        with place.guard.open_job("bench", requested_by=KIM) as job:
            for what, effect, tool, arguments in _calls(place, job):
                scale.say(f"deciding: {what}")
                given = _given(place, job, tool, arguments)
                figures += _measured(scale, what, effect, policy, given[1:])
    return figures


def _calls(place: Studio, job: Job) -> Sequence[tuple[str, Effect, str, dict[str, Any]]]:
    picture = place.picture()
    asset = job.import_asset(picture, ["customer-data"])
    return (
        ("a call without assets", Effect.PERMIT, "note", {"text": "a calm sea"}),
        ("an export to an internal place", Effect.PERMIT, "publish",
         {"source": asset, "to": "archive"}),
        ("an export that a person is asked about", Effect.ASK, "publish",
         {"source": asset, "to": "press"}),
    )  # fmt: skip


def _measured(
    scale: Scale, what: str, effect: Effect, policy: Policy, given: Sequence[Any]
) -> list[Figure]:
    decide = agentguard.calls.authorize.decide
    times = []
    for number in range(scale.of(5000, 300) + 50):
        request, facts, answers, now = given
        began = time.thread_time_ns()
        decision = decide(policy, request, facts, answers, now + number)  # no two at one time
        took = time.thread_time_ns() - began
        if number >= 50:
            times.append(took / 1000)
    if decision.effect is not effect:
        raise RuntimeError(f"{what}: expected {effect}, got {decision.effect}: {decision.reason}")
    name = f"decide, {POLICIES} policies: {what}"
    return [
        Figure(subject="deciding", what=f"{name}, p50", value=p(50, times), unit="µs", aim=_P50),
        Figure(
            subject="deciding", what=f"{name}, p99", value=p(99, times), unit="µs", aim=_P99,
            detail=f"p90 {p(90, times):.0f}, longest {max(times):.0f} µs",
        ),
    ]  # fmt: skip


def _given(place: Studio, job: Job, tool: str, arguments: dict[str, Any]) -> Sequence[Any]:
    """What the gate gives to `decide` for a call: (policy, request, facts, answers, now)."""
    call = make_call(
        place.guard,
        place.guard.bound[tool],
        agent="editor" if tool == "note" else "publisher",
        arguments=arguments,
        call_id=f"bench-{json.dumps(arguments)}"[:60],
        configurable={**job.config()["configurable"], "__pregel_checkpointer": True},
        source="bench",
    )
    with _captured() as seen:
        place.guard.gate.authorize([call])
    if len(seen) != 1:
        raise RuntimeError(f"the gate decided {len(seen)} times on one call, expected once")
    return seen[0]


@contextmanager
def _captured() -> Iterator[list[tuple[Any, ...]]]:
    seen: list[tuple[Any, ...]] = []
    decide = agentguard.calls.authorize.decide

    def note_down(*given: Any) -> Decision:
        seen.append(given)
        return decide(*given)

    agentguard.calls.authorize.decide = note_down
    try:
        yield seen
    finally:
        agentguard.calls.authorize.decide = decide
