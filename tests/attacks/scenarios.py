"""The attacks that are data: the scenarios of `evals/`, as rows of the table of attacks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from evals import scenario as s
from evals import steps
from evals.guarded import Guarded
from evals.guards import AgentGuard
from evals.loops import Threads
from evals.people import CAREFUL, person
from evals.replay import Kind, Result, replay_through
from evals.scenario import Scenario, load_all
from evals.session import Session
from evals.shapes import Shape, out_of_reach
from evals.world import World
from tests.attacks.matrix import GATES, SAVERS
from tests.attacks.savers import Mode, Saver, open_saver

SHAPES: dict[str, Shape] = {
    "protect": "graph",
    "middleware": "agent",
    "inline": "inline",
    "functional": "functional",
}
"""Gate of the table → what the evals call the graph that has it."""

_ONE_AFTER_THE_OTHER: tuple[Mode, ...] = ("invoke",)
"""Coroutines of one loop take turns: what races needs threads."""

AFTERWARDS = "afterwards"
"""A picture that is published when the attack is over: the thread must still be of use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioRow:
    """A scenario and the columns that it is played in."""

    scenario: Scenario
    gates: tuple[str, ...]
    modes: tuple[Mode, ...]
    savers: tuple[Saver, ...] = SAVERS

    @property
    def name(self) -> str:
        return self.scenario.name

    @property
    def covers(self) -> frozenset[str]:
        return frozenset(self.scenario.covers)


def _row(scenario: Scenario) -> ScenarioRow:
    attack = scenario.attack
    races = any(isinstance(step, steps.Resume) and step.times > 1 for step in attack.steps)
    return ScenarioRow(
        scenario=scenario,
        gates=tuple(g for g in GATES if out_of_reach(scenario, attack, SHAPES[g]) is None),
        modes=_ONE_AFTER_THE_OTHER if races else get_args(Mode),
    )


SCENARIOS = [_row(scenario) for scenario in load_all()]


class Verified(Guarded):
    """Leaves a ledger behind that verifies."""

    def close(self) -> None:
        self.guard.verify()
        super().close()


class InColumn(AgentGuard):
    """agentguard at one gate, in one mode and over one checkpointer."""

    def start(self, world: World, plan: Scenario, play: s.Attack | s.Twin) -> Session:
        says = person(CAREFUL, plan.approves)
        return Verified(world, plan, play, says, shape=self.shape, open_threads=self.open_threads)


def played(scenario: Scenario, kind: Kind, column: Any) -> Result:
    """What came of one side of a scenario in a column."""

    @contextlib.contextmanager
    def open_threads(folder: Path) -> Iterator[Threads]:
        with contextlib.ExitStack() as stack:
            asynchronous = column.mode == "ainvoke"
            runner = stack.enter_context(asyncio.Runner()) if asynchronous else None
            saver = stack.enter_context(open_saver(column.saver, folder, runner))
            yield Threads(saver=saver, runner=runner)

    guard = InColumn(str(column), shape=SHAPES[column.gate], open_threads=open_threads)
    return replay_through(scenario, kind, guard)


def with_a_call_afterwards(scenario: Scenario) -> Scenario:
    """The scenario, after whose attack a permitted call must run in the same thread, once.

    As it is where nothing can come after: its job or its credential is over, no call may run
    under its policy, or something in the graph changes every call.
    """
    attack = scenario.attack
    if scenario.policy or attack.inside is not None or any(map(_ends_it, attack.steps)):
        return scenario
    call = steps.Call(tool="publish", args={"source": f"@{AFTERWARDS}", "to": "team"})
    arrived = s.Expected(effect="arrived", where="team", asset=AFTERWARDS)
    return scenario.model_copy(
        update={
            "assets": {**scenario.assets, AFTERWARDS: s.Asset(labels=["brand"])},
            "attack": attack.model_copy(
                update={
                    "steps": [*attack.steps, steps.Say(do="say", calls=[call])],
                    "effects": [*attack.effects, arrived],
                    "forbidden": [_beside(one) for one in attack.forbidden],
                }
            ),
        }
    )


def _ends_it(step: steps.Step) -> bool:
    match step:
        case steps.EndJob() | steps.Turn(credentials="kept"):
            return True
    return False


def _beside(forbidden: s.Expected) -> s.Expected:
    """What is forbidden, where one permitted arrival at the team's is no part of it."""
    counts = forbidden.effect == "arrived" and forbidden.where in ("*", "team")
    if not (counts and forbidden.asset == "*" and forbidden.holds is None):
        return forbidden
    return forbidden.model_copy(update={"times": forbidden.times + 1})
