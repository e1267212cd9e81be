"""The nodes that `protect` puts in the place of a ToolNode: authorize, execute and ask."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Send

from agentguard.calls.arguments import sayable
from agentguard.calls.call import Call
from agentguard.calls.enforcement_point import EnforcementPoint
from agentguard.calls.refusal_log import ledger_obstacle
from agentguard.errors import LedgerError
from agentguard.langgraph import upstream as _upstream
from agentguard.langgraph.ask_task import AskedCall, AskTask
from agentguard.langgraph.guarded_tool import invoker_of
from agentguard.langgraph.invocation import ToolInvoker
from agentguard.langgraph.own_messages import error_message
from agentguard.langgraph.refusal_marks import marked
from agentguard.langgraph.runtime import CallContext, CallOrObstacle, thread_of
from agentguard.langgraph.waiting import asking
from agentguard.model import Effect, Obstacle, ObstacleKind

_log = logging.getLogger(__name__)

BEHIND = (".execute", ".ask", ".joined", ".done")
"""How the nodes behind a ToolNode's own name are called."""


class AuthorizationNodes:
    """The bodies of one ToolNode's nodes.

    Args:
        gates: the gates of the graph, by the names of their ask nodes.
    """

    def __init__(
        self,
        point: EnforcementPoint,
        node: ToolNode,
        *,
        name: str,
        gates: Mapping[str, AuthorizationNodes],
    ) -> None:
        self._point = point
        self._node = node
        self._name = name
        self._gates = gates
        self._tools = dict(node.tools_by_name)
        self._execute_node, self._ask_node, _, self._done_node = (f"{name}{end}" for end in BEHIND)
        self._unwrapped = _upstream.unwrapped(node)
        self._wrappers = self._innermost(_upstream.wrappers_of(node))
        _upstream.set_wrappers(node, *self._wrappers)

    @property
    def staged(self) -> list[str]:
        """The names of its tools that have a stage, and so an effect or media."""
        invokers = {name: invoker_of(tool) for name, tool in self._tools.items()}
        return sorted(n for n, s in invokers.items() if s is not None and s.media)

    @property
    def pauses(self) -> bool:
        """Whether one of its tools pauses itself."""
        invokers = (invoker_of(tool) for tool in self._tools.values())
        return any(s is not None and s.bound.binding.interrupts for s in invokers)

    def _innermost(self, wrappers: tuple[Any, Any]) -> tuple[Any, Any]:
        """The developer's wrappers around ours: whatever they hand on is looked at again (I5)."""
        sync, asynchronous = (getattr(each, "around", each) for each in wrappers)

        def wrap(request: Any, execute: Any) -> Any:
            given = copy.deepcopy(request.tool_call)

            def ours(inner: Any) -> Any:
                refusal = self._changed(sync, given, inner)
                return execute(inner) if refusal is None else refusal

            return sync(request, ours)

        async def awrap(request: Any, execute: Any) -> Any:
            given = copy.deepcopy(request.tool_call)

            async def ours(inner: Any) -> Any:
                refusal = self._changed(asynchronous, given, inner)
                return await execute(inner) if refusal is None else refusal

            return await asynchronous(request, ours)

        wrap.__dict__["around"] = sync
        awrap.__dict__["around"] = asynchronous
        return (wrap if sync is not None else None, awrap if asynchronous is not None else None)

    def _changed(self, wrapper: Any, given: Mapping[str, Any], inner: Any) -> ToolMessage | None:
        """The refusal of a call that a wrapper changed after it was decided on, else None."""
        tool, call = inner.tool, inner.tool_call
        name = given["name"]
        if (
            tool is None
            or invoker_of(tool) is None
            or self._node.tools_by_name.get(name) is not tool
        ):
            what = f"hands {sayable(name)} to a tool that is not the guarded one"
        elif call != given:
            what = f"changes the call of {sayable(name)} after it was decided on"
        else:
            return None
        who = getattr(wrapper, "__qualname__", type(wrapper).__qualname__)
        reason = (
            f"refused: the wrapper {who} of {self._name} {what}; do that in a node before"
            f" {self._name}, and let the wrapper pass on what it was given"
        )
        invoker = invoker_of(self._node.tools_by_name.get(name))
        agent = invoker.agent if invoker is not None else None
        context = CallContext.from_config(self._point, inner.runtime.config)
        obstacle = Obstacle(kind=ObstacleKind.NOT_INNERMOST, sentence=reason)
        context.refuse(name, agent, obstacle)
        return error_message(given, reason)

    def authorize(self, input: Any, config: RunnableConfig) -> Command[Any]:
        """Decide on the calls of a message, and send each to the node that goes on with it.

        What is permitted or denied goes to `execute`, what people are asked about to `ask`; and so
        does a permitted call whose tool pauses itself, where a question is open.
        """
        self._keep_guarded()
        calls, form = _upstream.parse_calls(self._node, input)
        if not calls:  # upstream adds no message and follows the edges
            return Command(goto=Send(self._execute_node, input))
        effects = self._decide(calls, self._context(input, form, config))
        # Only calls go on: state comes from the channels, not from a payload (trap 9). A tool that
        # pauses itself has a task of its own, since answers match interrupts by order, and waits
        # where a question may be open: sent one by one, a call doesn't know of the others.
        apart = Effect.ASK in effects or form == "tool_calls"
        together: list[Mapping[str, Any]] = []
        asked: list[Mapping[str, Any]] = []
        alone: list[Send] = []
        for call, effect in zip(calls, effects, strict=True):
            pauses = effect is Effect.PERMIT and self._pauses_itself(call)
            if effect is Effect.ASK or (pauses and apart):
                asked.append(_plain_call(call))
            elif pauses:
                alone.append(Send(self._execute_node, [_plain_call(call)]))
            else:
                together.append(_plain_call(call))
        first = [Send(self._execute_node, together)] if together else []
        then = [Send(self._ask_node, asked)] if asked else []
        return Command(goto=[*first, *then, *alone])

    async def aauthorize(self, input: Any, config: RunnableConfig) -> Command[Any]:
        return await asyncio.to_thread(self.authorize, input, config)

    def execute(self, input: Any, config: RunnableConfig, *, permitted: bool | None = None) -> Any:
        """Answer what may not run, and hand the rest to the developer's ToolNode.

        Args:
            permitted: the ledger was just asked, and permits it for the first time, or does not;
                None: it was not asked.
        """
        self._keep_guarded()
        parts = self._partition(input, config, permitted)
        if not parts.calls:  # upstream adds no message
            return self._node.invoke(input, config)
        outputs: list[Any] = [parts.refusals]
        if parts.off_schema:
            outputs.append(self._unwrapped.invoke(parts.off_schema, config))
        if parts.permitted:
            outputs.append(self._node.invoke(parts.permitted, config))
        return self._answered(outputs, parts.calls, config)

    async def aexecute(
        self, input: Any, config: RunnableConfig, *, permitted: bool | None = None
    ) -> Any:
        """See `execute`."""
        self._keep_guarded()
        parts = await asyncio.to_thread(self._partition, input, config, permitted)
        if not parts.calls:
            return await self._node.ainvoke(input, config)
        outputs: list[Any] = [parts.refusals]
        if parts.off_schema:
            outputs.append(await self._unwrapped.ainvoke(parts.off_schema, config))
        if parts.permitted:
            outputs.append(await self._node.ainvoke(parts.permitted, config))
        return self._answered(outputs, parts.calls, config)

    def _answered(
        self, outputs: list[Any], calls: Sequence[Mapping[str, Any]], config: RunnableConfig
    ) -> Any:
        """All answers as one output, with the guard's mark on each refusal."""
        output = _together(outputs, calls, key=_upstream.messages_key(self._node))
        return marked(output, key=self._point.message_key, thread=thread_of(config))

    def _partition(self, input: Any, config: RunnableConfig, permitted: bool | None) -> _Partition:
        """Which calls of a payload the ledger permits; state that it brought is left out (trap 9).

        The gate sends calls that it decided on; whoever else sends, the ledger knows nothing of it.
        """
        calls, _ = _upstream.parse_calls(self._node, input)
        parts = _Partition([_plain_call(call) for call in calls], [], [], [])
        if permitted:
            parts.permitted.extend(parts.calls)
            return parts
        context = CallContext.from_config(self._point, config)
        invokers = [self._invoker_of(call) for call in parts.calls]
        found = [
            self._found(invoker, call, context)
            for invoker, call in zip(invokers, parts.calls, strict=True)
        ]
        obstacles = self._obstacles(found, again=permitted is None)
        for call, invoker, obstacle in zip(parts.calls, invokers, obstacles, strict=True):
            if obstacle is None:
                parts.permitted.append(call)
            elif not (invoker is None or invoker.media) and obstacle.kind is ObstacleKind.ARGUMENTS:
                parts.off_schema.append(call)  # upstream tells the model what is wrong with it
            else:
                parts.refusals.append(error_message(call, obstacle.sentence))
        return parts

    def _obstacles(self, found: Sequence[CallOrObstacle], *, again: bool) -> list[Obstacle | None]:
        """Why calls may not reach the developer's ToolNode; None where the ledger permits it."""
        calls = [made for made in found if isinstance(made, Call)]
        granted = [False] * len(calls)
        if again:
            with contextlib.suppress(LedgerError):  # then each of them says why
                granted = self._point.asked_calls.granted(calls)
        known = iter(granted)
        return [
            None if isinstance(made, Call) and next(known) else self._obstacle(made, again=again)
            for made in found
        ]

    def _obstacle(self, found: CallOrObstacle, *, again: bool) -> Obstacle | None:
        if isinstance(found, Obstacle):
            return found
        try:
            return self._point.asked_calls.obstacle(found, again=again)
        except LedgerError as error:
            told = ledger_obstacle(error)
            self._point.refusals.log_unmade(
                found.bound.name,
                found.agent,
                job="",
                thread=found.thread,
                obstacle=told,
                why=str(error),
            )
            return told

    def _found(
        self, invoker: ToolInvoker | None, call: Mapping[str, Any], context: CallContext
    ) -> CallOrObstacle:
        """The Call of a run."""
        if invoker is None:
            return Obstacle(kind=ObstacleKind.UNKNOWN_TOOL, sentence=self._unknown(call))
        return invoker.call(context, invoker.arguments_of(call["args"]), call["id"])

    def _unknown(self, call: Mapping[str, Any]) -> str:
        name = call.get("name")
        if not isinstance(name, str) or name not in self._node.tools_by_name:
            there = ", ".join(self._node.tools_by_name)
            return f"there is no tool {sayable(name)} here; there is {there or 'none'}"
        return "the call can't be read: it needs an id, and its arguments in a mapping"

    def _keep_guarded(self) -> None:
        """Put back what was guarded if somebody changed the ToolNode since (I5, trap 10)."""
        table = self._node.tools_by_name
        other = [name for name, tool in table.items() if tool is not self._tools.get(name)]
        if other or len(table) != len(self._tools):
            names = ", ".join(other) or "a tool"
            _log.error(
                "%s: %s was changed in its ToolNode since protect()", self._execute_node, names
            )
            table.clear()
            table.update(self._tools)
        if _upstream.wrappers_of(self._node) != self._wrappers:
            _log.error(
                "%s: its wrappers were changed since protect(); put back", self._execute_node
            )
            _upstream.set_wrappers(self._node, *self._wrappers)

    def ask(self, input: Any, config: RunnableConfig) -> Any:
        """Interrupt with the superstep's open questions; answer its calls when none is left."""
        task = self._task(input, config)
        while ready := task.ready():
            for one in ready:
                with asking(here=one.replays) as questions:
                    output = one.gate.execute(one.calls, config, permitted=one.permitted)
                task.take(one.gate, output, questions)
        return task.result()

    async def aask(self, input: Any, config: RunnableConfig) -> Any:
        """See `ask`."""
        task = self._task(input, config)
        while ready := await asyncio.to_thread(task.ready):
            for one in ready:
                with asking(here=one.replays) as questions:
                    output = await one.gate.aexecute(one.calls, config, permitted=one.permitted)
                await asyncio.to_thread(task.take, one.gate, output, questions)
        return task.result()

    def _task(self, input: Any, config: RunnableConfig) -> AskTask:
        """What this task asks for: of several in a superstep, the first one asks for all.

        So there is one interrupt, also where calls come one per `Send`, or to several ToolNodes.
        """
        sent = _upstream.sends(config)
        ask_sends = [n for n, send in enumerate(sent) if send.node in self._gates]
        mine = _upstream.sent_as(config)
        inputs = [(self, input)]  # nobody sent it: the graph was routed here by hand
        if mine in ask_sends:
            first = mine == ask_sends[0]
            inputs = [(self._gates[sent[n].node], sent[n].arg) for n in ask_sends] if first else []
        calls: list[AskedCall] = []
        context = CallContext.from_config(self._point, config)
        for gate, given in inputs:
            gate._keep_guarded()
            parsed, _ = _upstream.parse_calls(gate._node, given)
            calls += [gate.asked(_plain_call(call), context) for call in parsed]
        return AskTask(self._point, calls)

    def asked(self, call: dict[str, Any], context: CallContext) -> AskedCall:
        """A call that people are asked about, or that waits until nobody is."""
        invoker = self._invoker_of(call)
        binding = None if invoker is None else invoker.bound.binding
        replays = binding is not None and not (binding.state or binding.unsafe_routes)
        apart = self.pauses and self._pauses_itself(call)
        found = self._found(invoker, call, context)
        return AskedCall(
            gate=self,
            call=call,
            found=found,
            replays=replays,
            in_order=self._wrappers != (None, None),
            apart=apart,
        )

    def together(self, outputs: Sequence[Any], calls: Sequence[Mapping[str, Any]]) -> Any:
        """What `execute` would have returned for calls that were answered one after the other."""
        return _together(outputs, calls, key=_upstream.messages_key(self._node))

    def send(self, call: Mapping[str, Any]) -> Send:
        """A call in a task of its own, in the next superstep."""
        return Send(self._execute_node, [call])

    def join(self, state: Any, config: RunnableConfig) -> Command[Any] | None:
        """Go on, unless calls are at work in this superstep: they lead here again."""
        own = (self._execute_node, self._ask_node)
        if any(send.node in own for send in _upstream.sends(config)):
            return None
        return Command(goto=self._done_node)

    async def ajoin(self, state: Any, config: RunnableConfig) -> Command[Any] | None:
        """See `join`."""
        return self.join(state, config)

    def _invoker_of(self, call: Mapping[str, Any]) -> ToolInvoker | None:
        """The guarded tool of a readable call; None: the ToolNode says what is wrong with it."""
        tool = self._node.tools_by_name.get(str(call.get("name")))
        invoker = invoker_of(tool) if tool is not None else None
        readable = isinstance(call.get("args"), Mapping) and isinstance(call.get("id"), str)
        known = invoker is not None and invoker.tool.name == call.get("name")
        return invoker if known and readable and call["id"] else None

    def _pauses_itself(self, call: Mapping[str, Any]) -> bool:
        invoker = self._invoker_of(call)
        return invoker is not None and invoker.bound.binding.interrupts

    def _context(self, input: Any, form: str, config: RunnableConfig) -> CallContext:
        """The context of calls that come in a message, or as a list that brings no conversation."""
        if form == "tool_calls":
            state = _upstream.state_of(config) or {}
            messages = list(state.get(_upstream.messages_key(self._node)) or ())
            return CallContext.from_config(self._point, config, messages=messages)
        messages = _upstream.messages_of(self._node, input)
        named = (one.id for one in reversed(messages) if isinstance(one, AIMessage) and one.id)
        source = next(named, None)
        return CallContext.from_config(self._point, config, source=source, messages=messages)

    def _decide(self, calls: Sequence[Mapping[str, Any]], context: CallContext) -> list[Effect]:
        found = [self._found(self._invoker_of(call), call, context) for call in calls]
        for call, made in zip(calls, found, strict=True):
            if isinstance(made, Obstacle):
                invoker = self._invoker_of(call)
                context.refuse(call.get("name"), None if invoker is None else invoker.agent, made)
        try:
            made_calls = [made for made in found if isinstance(made, Call)]
            decided = iter(self._point.authorizer.authorize(made_calls))
        except LedgerError:
            return [Effect.DENY] * len(calls)  # no grant was written: the tools say why
        return [next(decided).effect if isinstance(made, Call) else Effect.DENY for made in found]


class _Partition(NamedTuple):
    """The calls of a payload, by who answers them."""

    calls: list[dict[str, Any]]
    permitted: list[dict[str, Any]]
    off_schema: list[dict[str, Any]]
    refusals: list[ToolMessage]


def _together(outputs: Sequence[Any], calls: Sequence[Mapping[str, Any]], *, key: str) -> Any:
    """What a ToolNode would have returned for all calls: their messages in the calls' order.

    Args:
        outputs: messages, and what ToolNodes returned for some of the calls each.
    """
    order = {call["id"]: number for number, call in enumerate(calls)}
    messages: list[Any] = []
    others: list[Any] = []  # Commands, as ToolNode lists them
    for output in outputs:
        if isinstance(output, Mapping):
            messages += output[key]
        elif output and isinstance(output[0], ToolMessage):
            messages += output
        else:
            for item in output:
                if isinstance(item, Mapping) and item.keys() == {key}:
                    messages += item[key]
                else:
                    others.append(item)
    messages.sort(key=lambda m: order.get(getattr(m, "tool_call_id", None), len(order)))
    if not others:
        return {key: messages}
    return [{key: messages}, *others] if messages else others


def _plain_call(call: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": call.get("name"), "args": call.get("args"), "id": call.get("id"),
            "type": "tool_call"}  # fmt: skip
