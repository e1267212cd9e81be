"""Where `protect` repairs a graph's conversation: behind START, and in front of every other node.

    START ──▶ (tools.repair) ──▶ whatever followed START

At the start of a run the node `tools.repair` writes the repaired messages into the state. It runs
only if there is something to repair: a superstep more would cost a permitted call a tenth. What
comes into the state while a run goes on (`Command(update=...)`, `update_state`) is repaired in what
a node reads, and in the state when the next run starts.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence, Set
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels import AnyValue, BinaryOperatorAggregate, LastValue, UntrackedValue
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import START, StateGraph
from langgraph.types import Overwrite
from pydantic import BaseModel

from agentguard.calls.enforcement_point import EnforcementPoint
from agentguard.langgraph import upstream as _upstream
from agentguard.langgraph.repair import Moment, Repair

_ROOT = "__root__"


def add_repair(
    builder: StateGraph[Any, Any, Any, Any],
    point: EnforcementPoint,
    *,
    name: str,
    keys: Sequence[str],
    gates: Set[str],
    acting: Set[str],
) -> None:
    """Repair the conversations of a graph, in place.

    Args:
        builder: the copy that `protect` makes.
        name: of the new node.
        keys: the state keys that hold messages.
        gates: the guard's own nodes; they read calls, and answer them.
        acting: these, and functions that answer calls.
    """
    channels = builder.channels
    known = [key if key in channels else _ROOT for key in dict.fromkeys(keys)]
    first = {end for start, end in builder.edges if start == START}
    unknown = START in builder.branches or not first
    repair = _GraphRepair(
        Repair(point),
        [key for key in known if key in channels],
        channels,
        # A call that nobody answered is over where a run begins elsewhere than in a tool node.
        moment="start" if unknown or _followed_from(first, builder) & acting else "model",
    )
    for node, spec in builder.nodes.items():
        if node not in gates:
            builder.nodes[node] = dataclasses.replace(
                spec, runnable=_viewing(repair, spec.runnable, node)
            )
    _lead_through(builder, repair, name)


def _followed_from(first: Set[str], builder: StateGraph[Any, Any, Any, Any]) -> set[str]:
    """The nodes that a run comes to whatever it does: by edges without a condition."""
    found, new = set[str](), set(first)
    while new:
        found |= new
        new = {end for start, end in builder.edges if start in new} - found
    return found


def _viewing(repair: _GraphRepair, runnable: Any, name: str) -> Any:
    """A node of the developer's, which reads repaired messages.

    Only the first step of a sequence runs in the context of its config, which `interrupt`,
    `get_config` and tools that are called by hand look for; so a function is not the second one.
    """
    if not isinstance(runnable, _upstream.RunnableCallable):
        view = _upstream.RunnableCallable(repair.view, repair.aview, name=name, trace=False)
        return _upstream.RunnableSeq(view, runnable)

    def run(input: Any, config: RunnableConfig) -> Any:
        return runnable.invoke(repair.view(input, config), config)

    async def arun(input: Any, config: RunnableConfig) -> Any:
        return await runnable.ainvoke(await repair.aview(input, config), config)

    return _upstream.RunnableCallable(run, arun, name=name, trace=False)


def _lead_through(builder: StateGraph[Any, Any, Any, Any], repair: _GraphRepair, name: str) -> None:
    """Put the node behind START; it leads on to whatever START led to."""
    node = _upstream.RunnableCallable(repair.write, repair.awrite, name=name, trace=False)
    builder.add_node(name, node)
    first = sorted(end for start, end in builder.edges if start == START)
    builder.edges -= {(START, end) for end in first}
    builder.edges |= {(name, end) for end in first}
    branches = builder.branches.pop(START, None)
    if branches is not None:
        builder.branches[name] = branches
    if first and branches is None:
        entry = _Entry(repair, name, first)
        path = _upstream.RunnableCallable(entry.route, entry.aroute, name=name, trace=False)
        builder.add_conditional_edges(START, path, [name, *first])
    else:  # whoever decides where to go first decides on the repaired messages
        builder.edges.add((START, name))


class _GraphRepair:
    """The repair of one graph's state.

    Args:
        keys: the channels that hold messages.
        channels: all of the graph's channels.
        moment: what a run begins with: the tools that its last message may call, or a model.
    """

    def __init__(
        self,
        repair: Repair,
        keys: Sequence[str],
        channels: Mapping[str, Any],
        *,
        moment: Moment,
    ) -> None:
        self._moment: Moment = moment
        self._repair = repair
        self._keys = keys
        self._channels = channels

    def is_due(self, config: RunnableConfig) -> bool:
        """Whether the state that a run starts with needs a repair that can be written."""
        due = False
        for key in self._keys:
            messages = _messages(_upstream.channel_value(config, key, fresh=True))
            before = _messages(_upstream.channel_value(config, key, fresh=False))
            self._repair.withdraw_gone(before, messages, config)
            found = self._repair.repaired(messages, config, moment=self._moment)
            due = due or (found is not None and found.lasts and self._can_write(key))
        return due

    def write(self, state: Any, config: RunnableConfig) -> Any:
        """The node: every messages channel as a whole, each answer directly behind its call."""
        update: dict[str, Any] = {}
        for key in self._keys:
            messages = _messages(_upstream.channel_value(config, key, fresh=False))
            found = self._repair.repaired(messages, config, moment=self._moment)
            if found is not None and found.lasts and self._can_write(key):
                update |= {**found.updates, key: self._whole(key, found.messages)}
        if self._keys == [_ROOT]:
            return update.get(_ROOT)
        return update or None

    async def awrite(self, state: Any, config: RunnableConfig) -> Any:
        """See `write`."""
        return await asyncio.to_thread(self.write, state, config)

    def view(self, input: Any, config: RunnableConfig) -> Any:
        """What a node of the developer's reads: its input, with repaired messages."""
        for key in self._keys:
            found = self._repair.repaired(_read(input, key), config, moment="node")
            if found is not None:
                input = _replaced(input, key, found.messages)
        return input

    async def aview(self, input: Any, config: RunnableConfig) -> Any:
        """See `view`."""
        return await asyncio.to_thread(self.view, input, config)

    def _can_write(self, key: str) -> bool:
        """Whether a write replaces what the channel holds; some only take more."""
        plain = (LastValue, AnyValue, UntrackedValue)
        return _is_reduced(self._channels[key]) or isinstance(self._channels[key], plain)

    def _whole(self, key: str, messages: list[Any]) -> Any:
        return Overwrite(messages) if _is_reduced(self._channels[key]) else messages


class _Entry:
    """Where START leads: to the repair if one is due, else to what it always led to."""

    def __init__(self, repair: _GraphRepair, name: str, first: Sequence[str]) -> None:
        self._repair = repair
        self._name = name
        self._first = list(first)

    def route(self, state: Any, config: RunnableConfig) -> list[str]:
        return [self._name] if self._repair.is_due(config) else self._first

    async def aroute(self, state: Any, config: RunnableConfig) -> list[str]:
        return await asyncio.to_thread(self.route, state, config)


def _is_reduced(channel: Any) -> bool:
    return isinstance(channel, (BinaryOperatorAggregate, DeltaChannel))


def _messages(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _read(input: Any, key: str) -> list[Any]:
    """The messages in a node's input: the state or a payload that was sent, in any form."""
    if isinstance(input, Mapping):
        return _messages(input.get(key))
    if isinstance(input, list):  # the state itself, or a payload of any kind
        return input if key == _ROOT or any(isinstance(m, BaseMessage) for m in input) else []
    return _messages(getattr(input, key, None))


def _replaced(input: Any, key: str, messages: list[Any]) -> Any:
    if isinstance(input, Mapping):
        return {**input, key: messages}
    if isinstance(input, list):
        return messages
    if isinstance(input, BaseModel):
        return input.model_copy(update={key: messages})
    if dataclasses.is_dataclass(input) and not isinstance(input, type):
        return dataclasses.replace(input, **{key: messages})
    raise TypeError(
        f"this node's input is a {type(input).__name__}; got messages in it that must be repaired,"
        " expected a dict, a list, a pydantic model or a dataclass as state"
    )
