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
from typing import Any, Generic, Protocol, TypeVar

from langgraph.types import Command, Send

from agentguard.calls.asked_calls import CallState
from agentguard.calls.questions import PendingQuestion
from agentguard.calls.services import EnforcementPoint
from agentguard.langgraph import upstream as _upstream
from agentguard.langgraph.runtime import Found
from agentguard.langgraph.waiting import (
    looked_at,
    pause_for,
    standing,
)


class Answering(Protocol):
    """What answers calls: the gate of a ToolNode."""

    def together(self, outputs: Sequence[Any], calls: Sequence[Mapping[str, Any]]) -> Any:
        """One output for calls that were answered one after the other."""

    def send(self, call: Mapping[str, Any]) -> Send:
        """A call in a task of its own, in the next superstep."""


GateT = TypeVar("GateT", bound=Answering)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AskedCall(Generic[GateT]):
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

    gate: GateT
    call: dict[str, Any]
    found: Found
    replays: bool
    in_order: bool
    apart: bool


@dataclass(frozen=True, slots=True)
class Ready(Generic[GateT]):
    """Calls of one gate that are answered together.

    Args:
        permitted: they were approved, and not begun.
        replays: see `AskedCall`.
    """

    gate: GateT
    permitted: bool
    replays: bool
    calls: list[dict[str, Any]]


class AskTask(Generic[GateT]):
    """One run of the task.

    Args:
        calls: those of a superstep; none where another task asks for them.
    """

    def __init__(self, point: EnforcementPoint, calls: Sequence[AskedCall[GateT]]) -> None:
        self._point = point
        self._calls = calls
        self._left = list(calls)
        self._open: list[PendingQuestion] = []
        self._woken = _upstream.take_wake()
        self._outputs: dict[int, tuple[GateT, list[Any]]] = {}

    def ready(self) -> list[Ready[GateT]]:
        """The calls to answer now.

        None when all are answered. Interrupts with what is open if there is nothing to do before.
        """
        now = self._answerable(self._standing())
        if self._open and not now:
            if not self._woken:
                pause_for(self._point, self._open)
            now = self._answerable([looked_at(self._point, one.found) for one in self._left])
            if self._open and not now:
                pause_for(self._point, self._open, woken=True)
        if self._left and not now:
            _upstream.drop_wake()  # no tool that pauses itself may take it for its answer
        ready: dict[tuple[GateT, bool, bool, str | None], list[dict[str, Any]]] = {}
        for one, permitted in now:
            alone = one.call["id"] if one.in_order else None
            ready.setdefault((one.gate, permitted, one.replays, alone), []).append(one.call)
            self._left.remove(one)
        found = [Ready(*key[:3], calls=calls) for key, calls in ready.items()]
        return sorted(found, key=lambda one: not one.replays)  # these can come back to a question

    def _standing(self) -> list[PendingQuestion | CallState]:
        stands = standing(self._point, [one.found for one in self._left])
        return [
            looked_at(self._point, one.found)
            if stand is CallState.PERMITTED and (one.apart or not one.replays)
            else stand
            for one, stand in zip(self._left, stands, strict=True)
        ]

    def _answerable(
        self, stands: Sequence[PendingQuestion | CallState]
    ) -> list[tuple[AskedCall[GateT], bool]]:
        """The calls that may be answered while others wait, and whether each is permitted."""
        self._open = [stand for stand in stands if isinstance(stand, PendingQuestion)]
        return [
            (one, stand is CallState.PERMITTED)
            for one, stand in zip(self._left, stands, strict=True)
            if not one.apart
            and not isinstance(stand, PendingQuestion)
            and (
                not self._open
                or (stand is CallState.PERMITTED and one.replays and not one.in_order)
            )
        ]

    def take(self, gate: GateT, output: Any, questions: Sequence[PendingQuestion]) -> None:
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
