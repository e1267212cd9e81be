"""The task that asks people about the calls of a superstep.

It never ends while a question is open: whatever followed the tools would go on without the rest.
So it is run once per wake, and each time reads how the calls stand, runs what came to be permitted,
and interrupts with the questions that are left. When none is left, every call is answered at once:
what ran at an earlier wake by its recorded outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from langgraph.types import Command, Send

from agentguard.calls.ask import CallState, PendingQuestion
from agentguard.guard import Guard
from agentguard.langgraph.runtime import Found
from agentguard.langgraph.waiting import ask_people, standing, use_up_wakes


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
        apart: its tool pauses itself, so it runs in a superstep in which no question is open.
    """

    gate: GateT
    call: dict[str, Any]
    found: Found
    replays: bool
    apart: bool


class AskTask(Generic[GateT]):
    """One run of the task.

    Args:
        calls: those of a superstep; none where another task asks for them.
    """

    def __init__(self, guard: Guard, calls: Sequence[AskedCall[GateT]]) -> None:
        self._guard = guard
        self._calls = calls
        self._left = list(calls)
        self._outputs: dict[int, tuple[GateT, list[Any]]] = {}

    def ready(self) -> list[tuple[GateT, list[dict[str, Any]], bool]]:
        """The calls to answer now, of a gate each, and whether they are permitted by now.

        None when all are answered. Interrupts with what is open if there is nothing to do before.
        """
        stands = [(one, standing(self._guard, one.found)) for one in self._left]
        questions = [stand for _, stand in stands if isinstance(stand, PendingQuestion)]
        now = [
            (one, stand is CallState.PERMITTED)
            for one, stand in stands
            if not one.apart
            and not isinstance(stand, PendingQuestion)
            and (not questions or (stand is CallState.PERMITTED and one.replays))
        ]
        if questions and not now:
            ask_people(self._guard, questions)
        if self._left and not now:
            use_up_wakes()
        ready: dict[tuple[GateT, bool], list[dict[str, Any]]] = {}
        for one, permitted in now:
            ready.setdefault((one.gate, permitted), []).append(one.call)
            self._left.remove(one)
        return [(gate, calls, permitted) for (gate, permitted), calls in ready.items()]

    def take(self, gate: GateT, output: Any) -> None:
        """Keep what a gate answered."""
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
