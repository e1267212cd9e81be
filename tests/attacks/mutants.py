"""Proof that the attacks can succeed: one control of the guard is taken out, and they do.

    python -m tests.attacks.mutants [MUTANT ...] [--all]

prints, for each control taken out, which attacks then do harm (or find their thread broken). By
default each mutant faces the attacks it is there for; `--all` lets it face every one. It exits 1
if a mutant survives. It is a script, not a test: it takes a minute or two of one core.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from agentguard.calls.assess import Assessor
from agentguard.calls.authorize import Authorizer
from agentguard.calls.claim import ClaimedCall, Claims
from agentguard.calls.refused import Refused
from agentguard.calls.request import build_request
from agentguard.jobs.job import CONFIG_KEY
from agentguard.jobs.registry import Jobs
from agentguard.langgraph import (
    invocation as seat,
)
from agentguard.langgraph import (
    middleware,
)
from agentguard.langgraph import (
    protect_graph as graph,
)
from agentguard.langgraph import (
    results as commands,
)
from agentguard.langgraph import (
    runtime as calls,
)
from agentguard.ledger.ledger import Ledger
from agentguard.ledger.queries.requests import requests_of_call
from agentguard.model import Decision, Effect, ObstacleKind, Request
from tests.attacks.corpus import ATTACKS
from tests.attacks.driving import Column
from tests.attacks.matrix import Attack
from tests.attacks.scenarios import SCENARIOS, ScenarioRow, played
from tests.attacks.test_attacks import Grounds, opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One control taken out.

    Args:
        without: what is missing.
        patches: makes the patches.
        aimed: the attacks that should now succeed, by a pattern of their names.
    """

    without: str
    patches: Callable[[], list[Any]]
    aimed: str


_KNOWN: dict[str, str] = {}


class _AsRecorded(Request):
    """A Request that goes by the digest that its call was decided under."""

    __slots__ = ()

    @property
    def digest(self) -> str:  # type: ignore[override]
        return _KNOWN[self.call_key]


def _recorded_by_id(self: Assessor, call: Any, reads: Any) -> Any:
    row = reads.first(requests_of_call(call.job.id, call.thread, call.name))
    if row is None:
        raise Refused("nothing is known of it", kind=ObstacleKind.NOT_AUTHORIZED)
    known = replace(call, agent=row.agent, key=row.call_key)
    built = build_request(known, self.workspace, reads)
    said = {field.name: getattr(built.request, field.name) for field in fields(Request)}
    _KNOWN[row.call_key] = row.digest
    return known, replace(built, request=_AsRecorded(**said)), row


def _claim_anything(self: Claims, call: Any) -> ClaimedCall:
    assessor = self._assessor
    with assessor.ledger.snapshot() as reads:
        call, built, _ = assessor.recorded(call, reads)
        item = assessor.assess(call, built, assessor.holder(call), reads)
    return self._prepared(call, item)


_assess = Assessor.assess


def _permit_what_was_asked(self: Assessor, *given: Any, approval: Any = None, **named: Any) -> Any:
    item = _assess(self, *given, approval=approval, **named)
    if approval is None:
        return item
    anything = Decision(effect=Effect.PERMIT, policies=("mutant",), reason="anything goes")
    return replace(item, decision=anything, asks_again=False)


def _everything(result: Any, binding: Any, call_id: str) -> Any:
    items = tuple(result) if isinstance(result, list) else (result,)
    return commands.OwnPart(items=items, content=[], updates={}, routed=False)


def _everybody(people: Any, *_: Any) -> dict[str, Any]:
    return {person.id: person for person in people}


def _taken_from_anybody(self: Any, answer: Any) -> None:
    self._ledger.answer(answer)


def _first_found(self: Jobs, configurable: Any) -> Any:
    return self._held[configurable[CONFIG_KEY]]


def _as_given(items: Any, *_: Any, **__: Any) -> list[Any]:
    return list(items)


def _by_chance(self: Authorizer, call: Any, reads: Any) -> Any:
    return replace(call, key=secrets.token_hex(32))


MUTANTS = {
    "digest": Mutant(
        without="the comparison of what would run with what was decided on",
        patches=lambda: [patch.object(Assessor, "recorded", _recorded_by_id)],
        aimed="rewritten|arguments_updated|another_call_sent|forges|second_time|with-other-arg",
    ),
    "claim": Mutant(
        without="the single use of a Grant",
        patches=lambda: [patch.object(Claims, "claim", _claim_anything)],
        aimed="replay-old|concurrent-resumes|crash_after|retry_policy|goto-the-w|changes_between",
    ),
    "decide-again": Mutant(
        without="the second decision, and the people it waits for",
        patches=lambda: [patch.object(Assessor, "assess", _permit_what_was_asked)],
        aimed="shape|counted-twice|caller_is_named|rejecting_resume|another_request",
    ),
    "routes": Mutant(
        without="the filter on a tool's Command",
        patches=lambda: [
            patch.object(seat, "own_part", _everything),
            patch.object(seat, "said", _as_given),
        ],
        aimed="a_tool_routes|a_tool_writes|tool-routes-to-export",
    ),
    "forged-state": Mutant(
        without="the graph's own state in place of a payload's",
        patches=lambda: [
            patch.object(middleware, "_with_own_state", lambda request: request),
        ],
        aimed="forged-state-in-a-send",
    ),
    "task-ids": Mutant(
        without="one name for the call of a task that is run again",
        patches=lambda: [patch.object(Authorizer, "_named", _by_chance)],
        aimed="replay-old|crash_after",
    ),
    "done-before": Mutant(
        without="what an unheard call has done",
        patches=lambda: [patch.object(Authorizer, "_done_before", lambda *_: None)],
        aimed="sibling_waits",
    ),
    "tool-table": Mutant(
        without="the guarded tools put back into a ToolNode",
        patches=lambda: [patch.object(graph.GateNodes, "_keep_guarded", lambda self: None)],
        aimed="original_put_back",
    ),
    "enclosing-job": Mutant(
        without="the job that a run is really in",
        patches=lambda: [patch.object(Jobs, "find", _first_found)],
        aimed="config_names|another_job",
    ),
    "signatures": Mutant(
        without="the signature of an answer",
        patches=lambda: [patch("agentguard.people.approvals.verify_answer", lambda *_: None)],
        aimed="signed_answer",
    ),
    "eligible": Mutant(
        without="who may not approve",
        patches=lambda: [
            patch("agentguard.people.approvals.Approvals.answer", _taken_from_anybody),
            patch("agentguard.policy.quorum.eligible", _everybody),
        ],
        aimed="self-approval",
    ),
    "provider-tools": Mutant(
        without="the look at what a model is given",
        patches=lambda: [
            patch.object(middleware.GuardMiddleware, "_shown", lambda self, given: given)
        ],
        aimed="provider_runs",
    ),
    "same-tool": Mutant(
        without="the tool object behind a name",
        patches=lambda: [patch("agentguard.guard.same_tool", lambda *_: True)],
        aimed="another_tool_under",
    ),
    "sealed": Mutant(
        without="the seal on a protected builder",
        patches=lambda: [patch.object(graph, "_sealed_class", lambda base: base)],
        aimed="edge_and_a_node",
    ),
    "thread": Mutant(
        without="the thread in what names a call",
        patches=lambda: [patch.object(calls.CallContext, "from_config", _threadless())],
        aimed="copied|another_request",
    ),
    "paused": Mutant(
        without="the Grant that a paused tool gives back",
        patches=lambda: [patch.object(Ledger, "unclaim", lambda *_, **__: None)],
        aimed="question_of_its_own",
    ),
}  # fmt: skip


def _threadless() -> Callable[..., Any]:
    made = calls.CallContext.from_config

    def from_config(guard: Any, config: Any, **kwargs: Any) -> Any:
        return replace(made(guard, config, **kwargs), thread="t")

    return from_config


def succeed(mutant: Mutant, folder: Path, *, every: bool) -> Iterator[tuple[str, str]]:
    """(attack at a gate, what it did) for each attack that gets through a mutant."""
    grounds = Grounds(folder)
    rows: list[Attack | ScenarioRow] = [*ATTACKS, *SCENARIOS]
    for one in rows:
        if not every and re.search(mutant.aimed, one.name) is None:
            continue
        for gate in one.gates:
            column = Column(gate=gate, mode=one.modes[0], saver="memory")  # type: ignore[arg-type]
            with contextlib.ExitStack() as stack:
                for each in mutant.patches():
                    stack.enter_context(each)
                try:
                    harm = _harm(one, column, grounds)
                except AssertionError as error:  # what the attack itself looks at
                    harm = [f"it is not as it should be: {error}"]
                except Exception as error:  # neither harm nor good
                    print(f"    ({gate}-{one.name} broke: {type(error).__name__}: {error!s:.60})")
                    harm = []
            if harm:
                yield f"{gate}-{one.name}", "; ".join(harm)
    grounds.close()


def _harm(one: Attack | ScenarioRow, column: Column, grounds: Grounds) -> list[str]:
    if isinstance(one, ScenarioRow):
        result = played(one.scenario, "attack", column)
        return list(result.because)
    with opened(grounds, one, column, guarded=True) as way:
        one.run(way)
        return list(way.harm())


def main(arguments: list[str]) -> int:
    """Run the mutants that are named, or all of them."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.attacks.mutants",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="mutants:\n"
        + "\n".join(f"  {name:<15} without {one.without}" for name, one in MUTANTS.items()),
    )
    parser.add_argument("mutants", nargs="*", metavar="MUTANT", help="see below; default: all")
    parser.add_argument("--all", action="store_true", help="every attack on each of them")
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.mutants if name not in MUTANTS]
    if unknown:
        parser.error(f"no mutant {', '.join(unknown)}; there are {', '.join(MUTANTS)}")
    survived = []
    for name in asked.mutants or MUTANTS:
        mutant = MUTANTS[name]
        print(f"{name}: without {mutant.without}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            found = list(succeed(mutant, Path(folder), every=asked.all))
        for attack, harm in found:
            print(f"    {attack}: {harm:.100}", flush=True)
        if not found:
            survived.append(name)
            print("    SURVIVED", flush=True)
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
