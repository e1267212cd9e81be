"""The guards that are compared, behind one small protocol."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from evals import scenario as s
from evals.baselines import AllowListed, StockHitl, Unguarded
from evals.controls import MUTANTS, dropped
from evals.guarded import Guarded
from evals.loops import OpenThreads, threads_in_memory
from evals.people import CAREFUL, RUBBER_STAMP, Kind, person
from evals.session import Session
from evals.shapes import Shape
from evals.world import World


class Guard(Protocol):
    """Something that stands between an agent and its tools.

    Attributes:
        judged: an attack that gets through it, or a job that it blocks, fails the run.
    """

    @property
    def name(self) -> str: ...

    @property
    def judged(self) -> bool: ...

    def start(self, world: World, plan: s.Scenario, play: s.Attack | s.Twin) -> Session:
        """Build the agents of a scenario under this guard."""
        ...

    def around(self) -> AbstractContextManager[None]:
        """What must hold while a session of it lives."""
        ...


@dataclass(frozen=True, slots=True)
class NoGuard:
    """Tools as they come."""

    name: str = "none"
    judged: bool = False

    def start(self, world: World, plan: s.Scenario, play: s.Attack | s.Twin) -> Session:
        return Unguarded(world, plan, play, person(CAREFUL, plan.approves))

    def around(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()


@dataclass(frozen=True, slots=True)
class AllowList:
    """Tool names, per agent."""

    name: str = "allow-list"
    judged: bool = False

    def start(self, world: World, plan: s.Scenario, play: s.Attack | s.Twin) -> Session:
        return AllowListed(world, plan, play, person(CAREFUL, plan.approves))

    def around(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()


@dataclass(frozen=True, slots=True)
class Hitl:
    """Stock HumanInTheLoopMiddleware on export."""

    name: str
    people: Kind
    judged: bool = False

    def start(self, world: World, plan: s.Scenario, play: s.Attack | s.Twin) -> Session:
        return StockHitl(world, plan, play, person(self.people, plan.approves))

    def around(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()


@dataclass(frozen=True, slots=True)
class AgentGuard:
    """agentguard, in one of its shapes."""

    name: str
    shape: Shape = "graph"
    people: Kind = CAREFUL
    judged: bool = True
    open_threads: OpenThreads = threads_in_memory

    def start(self, world: World, plan: s.Scenario, play: s.Attack | s.Twin) -> Session:
        says = person(self.people, plan.approves)
        return Guarded(world, plan, play, says, shape=self.shape, open_threads=self.open_threads)

    def around(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()


@dataclass(frozen=True, slots=True)
class Broken(AgentGuard):
    """agentguard with one control taken out; see `controls.MUTANTS`."""

    control: str = ""

    def around(self) -> AbstractContextManager[None]:
        return dropped([MUTANTS[self.control]])


STAMPED = "agentguard-rubber-stamp"
"""agentguard where people approve all that they are asked."""

COMPARED: tuple[Guard, ...] = (
    NoGuard(),
    AllowList(),
    Hitl("hitl-rubber-stamp", RUBBER_STAMP),
    Hitl("hitl-careful", CAREFUL),
    AgentGuard(STAMPED, people=RUBBER_STAMP, judged=False),
    AgentGuard("agentguard-middleware", shape="agent"),
    AgentGuard("agentguard"),
)
"""What `run` compares unless it is told otherwise."""

BROKEN = ("claim", "policy", "eligibility", "hashing", "scan", "scratch")
"""Mutants of `controls.MUTANTS` that the scenarios must report."""

GUARDS: Mapping[str, Guard] = {
    **{guard.name: guard for guard in COMPARED},
    "agentguard-inline": AgentGuard("agentguard-inline", shape="inline"),
    "agentguard-functional": AgentGuard("agentguard-functional", shape="functional"),
    **{f"broken-{name}": Broken(f"broken-{name}", control=name) for name in BROKEN},
}
