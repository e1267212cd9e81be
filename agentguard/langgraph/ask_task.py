"""The task that asks people about the calls of a superstep.

It never ends while a question is open: whatever followed the tools would go on without the rest.
So it is run once per wake, and each time reads how the calls stand, runs what came to be approved,
and interrupts with the questions that are left. When none is left, every call is answered at once:
what ran at an earlier wake by its recorded outcome.

It decides nothing: the claim of an approved call does, and may find that it has to be asked about
once more. Only a call that can't come back to its question (its result can't be replayed, or it
runs in another superstep) is looked at before it goes on, and so is each where a wake brought
nothing, since what came up meanwhile is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, Send

from agentguard.calls.asked_calls import CallState
from agentguard.calls.enforcement_point import EnforcementPoint
from agentguard.calls.questions import PendingQuestion
from agentguard.langgraph import upstream as _upstream
from agentguard.langgraph.runtime import CallOrObstacle
from agentguard.langgraph.waiting import call_state_now, call_states, pause_for


class ToolNodeGate(Protocol):
    """The nodes that stand for one ToolNode; see `authorization_nodes.py`."""

    def execute(self, input: Any, config: RunnableConfig, *, permitted: bool | None = None) -> Any:
        """Answer what may not run, and hand the rest to the developer's ToolNode."""

    async def aexecute(
        self, input: Any, config: RunnableConfig, *, permitted: bool | None = None
    ) -> Any:
        """See `execute`."""

    def together(self, outputs: Sequence[Any], calls: Sequence[Mapping[str, Any]]) -> Any:
        """One output for calls that were answered one after the other."""

    def send(self, call: Mapping[str, Any]) -> Send:
        """A call in a task of its own, in the next superstep."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AskedCall:
    """A call that people are asked about, or that waits until nobody is.

    Args:
        call: as the model wrote it.
        found: the Call of it.
        replays: its recorded outcome says all that it returned, so that it may run before the
            others are settled.
        in_order: it waits for the others all the same, and runs behind those that come before it:
            the developer's wrapper around it may ask something itself, and LangGraph matches such
            answers by order.
        apart: its tool pauses itself, so it runs in a superstep in which no question is open.
    """

    gate: ToolNodeGate
    call: dict[str, Any]
    found: CallOrObstacle
    replays: bool
    in_order: bool
    apart: bool


@dataclass(frozen=True, slots=True)
class Ready:
    """Calls of one gate that are answered together.

    Args:
        permitted: they were approved, and not begun.
        replays: see `AskedCall`.
    """

    gate: ToolNodeGate
    permitted: bool
    replays: bool
    calls: list[dict[str, Any]]


class AskTask:
    """One run of the task.

    Args:
        calls: those of a superstep; none where another task asks for them.
    """

    def __init__(self, point: EnforcementPoint, calls: Sequence[AskedCall]) -> None:
        self._point = point
        self._calls = calls
        self._left = list(calls)
        self._open: list[PendingQuestion] = []
        self._woken = _upstream.take_wake()
        self._outputs: dict[int, tuple[ToolNodeGate, list[Any]]] = {}

    def ready(self) -> list[Ready]:
        """The calls to answer now.

        None when all are answered. Interrupts with what is open if there is nothing to do before.
        """
        now = self._answerable(self._states())
        if self._open and not now:
            if not self._woken:
                pause_for(self._point, self._open)
            now = self._answerable([call_state_now(self._point, one.found) for one in self._left])
            if self._open and not now:
                pause_for(self._point, self._open, woken=True)
        if self._left and not now:
            _upstream.drop_wake()  # no tool that pauses itself may take it for its answer
        ready: dict[tuple[ToolNodeGate, bool, bool, str | None], list[dict[str, Any]]] = {}
        for one, permitted in now:
            alone = one.call["id"] if one.in_order else None
            ready.setdefault((one.gate, permitted, one.replays, alone), []).append(one.call)
            self._left.remove(one)
        found = [Ready(*key[:3], calls=calls) for key, calls in ready.items()]
        return sorted(found, key=lambda one: not one.replays)  # these can come back to a question

    def _states(self) -> list[PendingQuestion | CallState]:
        states = call_states(self._point, [one.found for one in self._left])
        return [
            call_state_now(self._point, one.found)
            if state is CallState.PERMITTED and (one.apart or not one.replays)
            else state
            for one, state in zip(self._left, states, strict=True)
        ]

    def _answerable(
        self, states: Sequence[PendingQuestion | CallState]
    ) -> list[tuple[AskedCall, bool]]:
        """The calls that may be answered while others wait, and whether each is permitted."""
        self._open = [state for state in states if isinstance(state, PendingQuestion)]
        return [
            (one, state is CallState.PERMITTED)
            for one, state in zip(self._left, states, strict=True)
            if not one.apart
            and not isinstance(state, PendingQuestion)
            and (
                not self._open
                or (state is CallState.PERMITTED and one.replays and not one.in_order)
            )
        ]

    def take(self, gate: ToolNodeGate, output: Any, questions: Sequence[PendingQuestion]) -> None:
        """Keep what a gate answered; interrupts if its calls came to be asked about once more.

        Args:
            questions: about these calls. The others are answered again by their recorded outcomes.
        """
        if questions:
            pause_for(self._point, [*self._open, *questions], woken=self._woken)
        self._outputs.setdefault(id(gate), (gate, []))[1].append(output)

    def result(self) -> Any:
        """What the node returns: all answers, and what runs in the next superstep, if anything."""
        items: list[Any] = []
        for gate, outputs in self._outputs.values():
            calls = [one.call for one in self._calls if one.gate is gate]
            answer = gate.together(outputs, calls)
            items += answer if isinstance(answer, list) else [answer]
        if self._left:
            items.append(Command(goto=[one.gate.send(one.call) for one in self._left]))
        if not all(isinstance(item, Mapping) for item in items):
            return items
        update: dict[str, Any] = {}
        for item in items:
            for key, messages in item.items():
                update.setdefault(key, []).extend(messages)
        return update or None
