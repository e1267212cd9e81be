"""The decision alone: `decide` over exactly 50 policies, on the Facts of real calls.

In CPU time of its thread: a decision waits for nothing, and what else runs on the machine is not
its own. What the garbage collector does in between is in it, and makes most of the 99th percentile.

Beside it, in turns, `cedarpy` alone: the questions that the decision puts, with the same schema and
entities, handles and texts prepared, over the whole set of policies.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import cedarpy

from agentguard.calls import assess
from agentguard.calls.arguments import CallArguments
from agentguard.calls.call import Call
from agentguard.jobs.job import Job
from agentguard.langgraph.runtime import CallContext
from agentguard.model import Decision, Effect
from agentguard.policy.decide import decide
from agentguard.policy.policy_set import Policy
from bench.figures import TIMES, Figure
from bench.rounds import Scale, p
from bench.studio import KIM, Studio, studio

POLICIES = 50
_RATIO, _QUESTIONS = 1.3, 3

_EXPORT = """
@id("acme.{name}")
@advice("{{asset}} is labelled {{labels}}, and {name} wants a person to look at it")
forbid (principal, action in Action::"stage:export", resource)
when {{ context has destination && context.destination.id == "{name}"
  && resource.labels.contains("likeness") }}
unless {{ context.approvals >= 1 }};
"""
_STAGE = """
@id("acme.{name}")
@advice("{{asset}} is labelled {{labels}}; leave it as it is")
forbid (principal, action in Action::"stage:{stage}", resource)
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
    request, facts, answers, now = given
    policy.of_tool(facts.action)  # made once, and proven by a question of its own
    with _asked() as questions:
        decision = decide(policy, request, facts, answers, now)
    if decision.effect is not effect:
        raise RuntimeError(f"{what}: expected {effect}, got {decision.effect}: {decision.reason}")
    whole = _whole(policy)
    bare = [(asked, whole, entities, schema) for asked, _, entities, schema in questions]
    times, bare_times = [], []
    for number in range(scale.of(5000, 300) + 50):
        began = time.thread_time_ns()
        decide(policy, request, facts, answers, now + number)  # no two at one time
        between = time.thread_time_ns()
        for each in bare:
            cedarpy.is_authorized(*each)
        ended = time.thread_time_ns()
        if number >= 50:
            times.append((between - began) / 1000)
            bare_times.append((ended - between) / 1000)
    name = f"decide, {POLICIES} policies: {what}"
    ratio = p(50, times) / p(50, bare_times)
    return [
        Figure(subject="deciding", what=f"{name}, questions", value=len(bare), unit="",
               aim=_QUESTIONS),
        Figure(subject="deciding", what=f"{name} ÷ bare cedarpy", value=ratio, unit=TIMES,
               aim=_RATIO,
               detail=f"{p(50, times):.0f} ÷ {p(50, bare_times):.0f} µs"),
        Figure(subject="deciding", what=f"{name}, p50", value=p(50, times), unit="µs"),
        Figure(
            subject="deciding", what=f"{name}, p99", value=p(99, times), unit="µs",
            detail=f"p90 {p(90, times):.0f}, longest {max(times):.0f} µs",
        ),
    ]  # fmt: skip


@contextmanager
def _asked() -> Iterator[list[tuple[Any, ...]]]:
    """What Cedar is asked meanwhile."""
    questions: list[tuple[Any, ...]] = []
    ask = cedarpy.is_authorized

    def note_down(*given: Any) -> cedarpy.AuthzResult:
        questions.append(given)
        return ask(*given)

    with patch.object(cedarpy, "is_authorized", note_down):
        yield questions


def _whole(policy: Policy) -> cedarpy.PolicySet:
    bodies = {name: rule.body for name, rule in policy.rules.items()}
    return cedarpy.PolicySet.from_json_str(
        json.dumps({"templates": {}, "staticPolicies": bodies, "templateLinks": []})
    )


def _given(place: Studio, job: Job, tool: str, arguments: dict[str, Any]) -> Sequence[Any]:
    """What the gate gives to `decide` for a call: (policy, request, facts, answers, now)."""
    configurable = {**job.config()["configurable"], "__pregel_checkpointer": True}
    context = CallContext.from_config(
        place.guard.enforcement, {"configurable": configurable}, source="bench"
    )
    call = context.call(
        CallArguments(place.guard.bound[tool], arguments),
        agent="editor" if tool == "note" else "publisher",
        call_id=f"bench-{json.dumps(arguments)}"[:60],
    )
    with _captured() as seen:
        if not isinstance(call, Call):
            raise RuntimeError(call.sentence)
        place.guard.enforcement.authorizer.authorize([call])
    if len(seen) != 1:
        raise RuntimeError(f"the gate decided {len(seen)} times on one call, expected once")
    return seen[0]


@contextmanager
def _captured() -> Iterator[list[tuple[Any, ...]]]:
    seen: list[tuple[Any, ...]] = []

    def note_down(*given: Any) -> Decision:
        seen.append(given)
        return decide(*given)

    with patch.object(assess, "decide", note_down):
        yield seen
