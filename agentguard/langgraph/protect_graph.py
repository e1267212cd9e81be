"""`protect`: puts the authorization node in front of every ToolNode of a graph.

The node keeps its name, so that every edge, `Command(goto=...)` and `Send` still lands in it; two
nodes stand behind it (DESIGN section 4):

    model ──▶ tools ──PERMIT, DENY──▶ tools.execute ──▶ whatever followed tools
                  └──ASK────────────▶ tools.ask ──────▶

A superstep ends when all its tasks have, and `ask` does not end while a question is open: so the
two are each other's barrier, and what followed goes on once, with all results. Where that is a
conditional or a waiting edge, or a tool pauses itself, both lead to `tools.joined` first.

Behind START stands `tools.repair`, named after the first ToolNode; see repair_node.py.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import fields, replace
from typing import Any, NamedTuple, NoReturn, TypeVar

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Send

from agentguard.calls.authorize import ledger_refusal, log_refusal
from agentguard.calls.request import Call, Refused, sayable
from agentguard.errors import BindingError, LedgerError
from agentguard.guard import Guard
from agentguard.langgraph import upstream as _upstream
from agentguard.langgraph.ask_task import AskedCall, AskTask
from agentguard.langgraph.guarded_tool import guarded, seat_of
from agentguard.langgraph.invocation import Seat
from agentguard.langgraph.nested_agents import require_guarded
from agentguard.langgraph.refusal_marks import marked
from agentguard.langgraph.repair_node import add_repair
from agentguard.langgraph.runtime import (
    Agents,
    known_agents,
    make_call,
    refuse,
    refuse_unknown,
    require_stage,
)
from agentguard.model import Effect, Stage

_log = logging.getLogger(__name__)

Graph = TypeVar("Graph", bound="StateGraph[Any, Any, Any, Any]")


def protect(
    builder: Graph,
    guard: Guard,
    *,
    agents: Mapping[str, str | Mapping[Stage | str, str]],
    unsafe_shared_driver: bool = False,
    unsafe_unsearched: Collection[str] = (),
) -> Graph:
    """A sealed copy of a graph builder with an authorization node in front of every ToolNode.

    Compile what is returned, not `builder`: its ToolNodes hold guarded tools from now on, and
    nothing can be added any more.

    Args:
        builder: a StateGraph whose ToolNodes were added directly.
        guard: decides, grants and records.
        agents: for every ToolNode by its node name, the agent it acts as; or one agent per stage,
            `{"tools": {"generate": "painter", "edit": "editor"}}`, where one loop drives tools of
            several stages.
        unsafe_shared_driver: say that one model drives several stages; each still has its own
            credential, but a hijacked model reaches all of them.
        unsafe_unsearched: nodes that are not searched for unguarded tools, and their conditional
            edges, since they hold more objects than can be looked at. What they run past the
            guard is stopped inside a job only where LangChain says that a tool starts.

    Raises:
        BindingError: `builder` is no StateGraph, a ToolNode that nobody named, an unguarded tool
            that another node, a branch or a subgraph can reach (the message says by which path), a
            name that is no ToolNode, an unbound tool, an unknown agent, or an agent that lacks a
            tool's stage.
    """
    _require_builder(builder)
    nodes = {
        name: spec.runnable
        for name, spec in builder.nodes.items()
        if isinstance(spec.runnable, ToolNode)
    }
    _require_named(nodes, agents)
    _require_guarded(builder, guard, nodes, set(unsafe_unsearched))
    if len({id(node) for node in nodes.values()}) < len(nodes):
        raise BindingError("one ToolNode stands under two names; give each agent a ToolNode")
    for name, given in agents.items():
        known = known_agents(guard, name, given, unsafe_shared_driver)
        _guard_tools(guard, nodes[name], name, known)
    sealed = copy.copy(builder)
    sealed.nodes = dict(builder.nodes)
    sealed.edges = set(builder.edges)
    sealed.branches = defaultdict(dict, {k: dict(v) for k, v in builder.branches.items()})
    sealed.waiting_edges = set(builder.waiting_edges)
    gates: dict[str, _Gate] = {}
    for name in agents:
        _rewrite(sealed, guard, name, nodes[name], gates)
    if agents:
        repair = f"{next(iter(agents))}.repair"
        if repair in sealed.nodes:
            raise BindingError(f"the graph already has a node {repair}; rename it")
        own = {f"{name}{end}" for name in agents for end in ("", *_BEHIND)}
        keys = [_upstream.messages_key(nodes[name]) for name in agents]
        add_repair(sealed, guard, name=repair, keys=keys, gates=own)
    object.__setattr__(sealed, "__class__", _sealed_class(type(builder)))
    return sealed


def _require_builder(builder: object) -> None:
    if not isinstance(builder, StateGraph):
        raise BindingError(
            f"protect() got {_described(builder)}, expected a StateGraph before compile(): pass the"
            " builder, and compile what protect() returns; an agent is guarded as"
            " create_agent(..., middleware=[GuardMiddleware(guard, agent=...)]), in place of"
            " create_react_agent(...)"
        )


def _described(given: object) -> str:
    return f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"


def _require_memory(builder: StateGraph[Any, Any, Any, Any], checkpointer: Any) -> None:
    """Refuse to compile a graph that starts over after each pause, and would repeat its effects."""
    if checkpointer is not False:
        return
    for name, spec in builder.nodes.items():
        gate = getattr(getattr(spec.runnable, "func", None), "__self__", None)
        staged = gate.staged if isinstance(gate, _Gate) else []
        if staged:
            raise BindingError(
                f"{name} runs {', '.join(staged)}, and compile(checkpointer=False) makes this graph"
                " start over after each pause of a graph around it, so that they would run again;"
                " leave checkpointer out: it keeps what the graph around it keeps"
            )


def _require_named(nodes: Mapping[str, ToolNode], agents: Mapping[str, Any]) -> None:
    unnamed = sorted(set(nodes) - set(agents))
    unknown = sorted(set(agents) - set(nodes))
    if unnamed:
        other = f"; no ToolNode is named {', '.join(unknown)}" if unknown else ""
        raise BindingError(
            f"ToolNode {', '.join(unnamed)} has no agent; name it: agents={{{unnamed[0]!r}: ...}}"
            f"{other}"
        )
    if unknown:
        raise BindingError(
            f"{', '.join(unknown)} is no ToolNode of this graph; its ToolNodes are"
            f" {', '.join(sorted(nodes)) or 'none'}"
        )


def _require_guarded(
    builder: StateGraph[Any, Any, Any, Any],
    guard: Guard,
    named: Mapping[str, ToolNode],
    unsearched: Set[str],
) -> None:
    """I5: nothing in the graph but the ToolNodes that are guarded reaches an unguarded tool."""
    unknown = sorted(unsearched - set(builder.nodes))
    if unknown:
        raise BindingError(
            f"unsafe_unsearched names no node {unknown[0]!r}; there are"
            f" {', '.join(sorted(builder.nodes))}"
        )
    for name in sorted(builder.nodes.keys() - unsearched):
        spec = builder.nodes[name]
        held: Any = spec
        if name in named:  # what its wrappers hand to the tool's run is judged there
            held = [getattr(spec, each.name) for each in fields(spec) if each.name != "runnable"]
        require_guarded(guard, held, f"node {name}")
        for branch in builder.branches.get(name, {}).values():
            require_guarded(guard, branch, f"the conditional edge behind {name}")
    for branch in builder.branches.get(START, {}).values():
        require_guarded(guard, branch, "the conditional entry point")
    require_guarded(guard, builder.channels, "the state's reducers")


def _guard_tools(guard: Guard, node: ToolNode, name: str, agents: Agents) -> None:
    changed = _upstream.overridden(node)
    if changed:
        raise BindingError(
            f"{name}: {type(node).__name__} changes {', '.join(changed)} of ToolNode, so nobody"
            " knows what it runs; use ToolNode itself, with wrap_tool_call=... and"
            " awrap_tool_call=... around its calls"
        )
    copies: dict[str, BaseTool] = {}
    for key, tool in node.tools_by_name.items():
        if key != tool.name:
            raise BindingError(f"{name}: tool {tool.name} is registered under the name {key}")
        copy_ = guarded(guard, tool, agents=agents, pauses_apart=True)
        seat = seat_of(copy_)
        if seat is not None:
            require_stage(guard, name, seat.bound, agents)
        copies[key] = copy_
    node.tools_by_name.update(copies)  # in place: a copied ToolNode would run the originals


_BEHIND = (".execute", ".ask", ".joined", ".done")


def _rewrite(
    builder: StateGraph[Any, Any, Any, Any],
    guard: Guard,
    name: str,
    node: ToolNode,
    gates: dict[str, _Gate],
) -> None:
    """Put a ToolNode's gate in its place, and its nodes behind it.

    Args:
        gates: the gates of the graph, by the names of their ask nodes.
    """
    execute, ask, joined, done = (f"{name}{end}" for end in _BEHIND)
    for taken in (execute, ask, joined, done):
        if taken in builder.nodes:
            raise BindingError(f"the graph already has a node {taken}; rename it")
    spec = builder.nodes[name]
    gate = _Gate(guard, node, name=name, gates=gates)
    gates[ask] = gate
    plain = replace(
        spec,
        ends=(execute, ask),
        retry_policy=None,
        cache_policy=None,
        error_handler_node=None,
        timeout=None,
    )
    builder.nodes[name] = replace(plain, runnable=_node(name, gate.authorize, gate.aauthorize))
    # No cache either: a remembered "exported" would be told to another thread, and was not done.
    behind = replace(spec, defer=False, cache_policy=None)
    builder.nodes[execute] = replace(behind, runnable=_node(execute, gate.execute, gate.aexecute))
    builder.nodes[ask] = replace(behind, runnable=_node(ask, gate.ask, gate.aask))
    edges = [edge for edge in builder.edges if edge[0] == name]
    waiting = [edge for edge in builder.waiting_edges if name in edge[0]]
    out = [execute, ask]
    if name in builder.branches or waiting or gate.pauses:
        builder.edges |= {(execute, joined), (ask, joined)}
        out = [done] if gate.pauses else [joined]
        between = replace(plain, defer=False, ends=())
        builder.nodes[joined] = replace(between, runnable=_node(joined, _nothing, _anothing))
        if gate.pauses:
            builder.nodes[joined] = replace(
                between, ends=(done,), runnable=_node(joined, gate.join, gate.ajoin)
            )
            builder.nodes[done] = replace(between, runnable=_node(done, _nothing, _anothing))
    builder.edges -= set(edges)
    builder.edges |= {(start, end) for _, end in edges for start in out}
    if name in builder.branches:
        builder.branches[out[0]] = builder.branches.pop(name)
    for starts, end in waiting:
        builder.waiting_edges.discard((starts, end))
        moved = tuple(out[0] if start == name else start for start in starts)
        builder.waiting_edges.add((moved, end))


def _node(name: str, sync: Any, asynchronous: Any) -> Any:
    return _upstream.RunnableCallable(sync, asynchronous, name=name)


def _nothing(state: Any) -> None:
    return None


async def _anothing(state: Any) -> None:
    return None


class _Gate:
    """The bodies of one ToolNode's nodes.

    Args:
        gates: the gates of the graph, by the names of their ask nodes.
    """

    def __init__(
        self, guard: Guard, node: ToolNode, *, name: str, gates: Mapping[str, _Gate]
    ) -> None:
        self._guard = guard
        self._node = node
        self._name = name
        self._gates = gates
        self._tools = dict(node.tools_by_name)
        self._execute, self._ask, self._joined, self._done = (f"{name}{end}" for end in _BEHIND)
        self._unwrapped = _upstream.unwrapped(node)
        self._wrappers = self._innermost(_upstream.wrappers_of(node))
        _upstream.set_wrappers(node, *self._wrappers)

    @property
    def staged(self) -> list[str]:
        """The names of its tools that have a stage, and so an effect or media."""
        seats = {name: seat_of(tool) for name, tool in self._tools.items()}
        return sorted(n for n, s in seats.items() if s is not None and s.media)

    @property
    def pauses(self) -> bool:
        """Whether one of its tools pauses itself."""
        seats = (seat_of(tool) for tool in self._tools.values())
        return any(s is not None and s.bound.binding.interrupts for s in seats)

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
        if tool is None or seat_of(tool) is None or self._node.tools_by_name.get(name) is not tool:
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
        seat = seat_of(self._node.tools_by_name.get(name))
        agent = seat.agent if seat is not None else None
        configurable = inner.runtime.config.get("configurable", {})
        refuse(self._guard, name, agent, configurable, Refused(reason, policy="not-innermost"))
        return _error(given, reason)

    def authorize(self, input: Any, config: RunnableConfig) -> Command[Any]:
        self._keep_guarded()
        calls, form = _upstream.parse_calls(self._node, input)
        if not calls:  # upstream adds no message and follows the edges
            return Command(goto=Send(self._execute, input))
        configurable = config.get("configurable", {})
        source = self._source(input, form)
        messages = self._messages(input, form, config)
        effects = self._decide(calls, configurable, source, messages)
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
                alone.append(Send(self._execute, [_plain_call(call)]))
            else:
                together.append(_plain_call(call))
        first = [Send(self._execute, together)] if together else []
        then = [Send(self._ask, asked)] if asked else []
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
        sorted_ = self._sorted(input, config, permitted)
        if not sorted_.calls:  # upstream adds no message
            return self._node.invoke(input, config)
        outputs: list[Any] = [sorted_.refusals]
        if sorted_.off_schema:
            outputs.append(self._unwrapped.invoke(sorted_.off_schema, config))
        if sorted_.permitted:
            outputs.append(self._node.invoke(sorted_.permitted, config))
        return self._answered(outputs, sorted_.calls, config)

    async def aexecute(
        self, input: Any, config: RunnableConfig, *, permitted: bool | None = None
    ) -> Any:
        """See `execute`."""
        self._keep_guarded()
        sorted_ = await asyncio.to_thread(self._sorted, input, config, permitted)
        if not sorted_.calls:
            return await self._node.ainvoke(input, config)
        outputs: list[Any] = [sorted_.refusals]
        if sorted_.off_schema:
            outputs.append(await self._unwrapped.ainvoke(sorted_.off_schema, config))
        if sorted_.permitted:
            outputs.append(await self._node.ainvoke(sorted_.permitted, config))
        return self._answered(outputs, sorted_.calls, config)

    def _answered(
        self, outputs: list[Any], calls: Sequence[Mapping[str, Any]], config: RunnableConfig
    ) -> Any:
        """All answers as one output, with the guard's mark on each refusal."""
        output = _together(outputs, calls, key=_upstream.messages_key(self._node))
        thread = str(config.get("configurable", {}).get("thread_id", ""))
        return marked(output, key=self._guard.message_key, thread=thread)

    def _sorted(self, input: Any, config: RunnableConfig, permitted: bool | None) -> _Sorted:
        """Which calls of a payload the ledger permits; state that it brought is left out (trap 9).

        The gate sends calls that it decided on; whoever else sends, the ledger knows nothing of it.
        """
        calls, _ = _upstream.parse_calls(self._node, input)
        sorted_ = _Sorted([_plain_call(call) for call in calls], [], [], [])
        for call in sorted_.calls:
            seat = self._seated(call)
            again = permitted is None
            refusal = None if permitted else self._refusal(seat, call, config, again=again)
            if refusal is None:
                sorted_.permitted.append(call)
            elif seat is not None and not seat.media and refusal.policy == _OFF_SCHEMA:
                sorted_.off_schema.append(call)  # upstream tells the model what is wrong with it
            else:
                sorted_.refusals.append(_error(call, refusal.reason))
        return sorted_

    def _refusal(
        self, seat: Seat | None, call: Mapping[str, Any], config: RunnableConfig, *, again: bool
    ) -> Refused | None:
        """Why a call may not reach the developer's ToolNode; None if the ledger permits it."""
        if seat is None:
            return Refused(self._unknown(call), policy="unknown-tool")
        try:
            made = self._made(seat, call, config.get("configurable", {}), None)
            return self._guard.execution.refusal(made, again=again)
        except Refused as refusal:
            return refusal
        except LedgerError as error:
            told = ledger_refusal(error)
            thread = str(config.get("configurable", {}).get("thread_id", ""))
            log_refusal(seat.tool.name, seat.agent, "", thread, (told.policy,), str(error))
            return told

    def _unknown(self, call: Mapping[str, Any]) -> str:
        name = call.get("name")
        if not isinstance(name, str) or name not in self._node.tools_by_name:
            there = ", ".join(self._node.tools_by_name)
            return f"there is no tool {sayable(name)} here; there is {there or 'none'}"
        return "the call can't be read: it needs an id, and its arguments in a mapping"

    def _keep_guarded(self) -> None:
        """Put back what was guarded if somebody changed the ToolNode since (I5, trap 10)."""
        table = self._node.tools_by_name
        for name in [name for name, tool in table.items() if seat_of(tool) is None]:
            _log.error("%s: %s is not guarded and was put out of its ToolNode", self._execute, name)
            if name in self._tools:
                table[name] = self._tools[name]
            else:
                del table[name]
        if _upstream.wrappers_of(self._node) != self._wrappers:
            _log.error("%s: its wrappers were changed since protect(); put back", self._execute)
            _upstream.set_wrappers(self._node, *self._wrappers)

    def ask(self, input: Any, config: RunnableConfig) -> Any:
        """Interrupt with the superstep's open questions; answer its calls when none is left."""
        task = self._task(input, config)
        while ready := task.ready():
            for gate, calls, permitted in ready:
                task.take(gate, gate.execute(calls, config, permitted=permitted))
        return task.result()

    async def aask(self, input: Any, config: RunnableConfig) -> Any:
        """See `ask`."""
        task = self._task(input, config)
        while ready := await asyncio.to_thread(task.ready):
            for gate, calls, permitted in ready:
                task.take(gate, await gate.aexecute(calls, config, permitted=permitted))
        return task.result()

    def _task(self, input: Any, config: RunnableConfig) -> AskTask[_Gate]:
        """What this task asks for: of several in a superstep, the first one asks for all.

        So there is one interrupt, also where calls come one per `Send`, or to several ToolNodes.
        """
        sent = _upstream.sends(config)
        asking = [n for n, send in enumerate(sent) if send.node in self._gates]
        mine = _upstream.sent_as(config)
        inputs = [(self, input)]  # nobody sent it: the graph was routed here by hand
        if mine in asking:
            first = mine == asking[0]
            inputs = [(self._gates[sent[n].node], sent[n].arg) for n in asking] if first else []
        calls: list[AskedCall[_Gate]] = []
        for gate, given in inputs:
            gate._keep_guarded()
            parsed, _ = _upstream.parse_calls(gate._node, given)
            calls += [gate.asked(_plain_call(call), config) for call in parsed]
        return AskTask(self._guard, calls)

    def asked(self, call: dict[str, Any], config: RunnableConfig) -> AskedCall[_Gate]:
        """A call that people are asked about, or that waits until nobody is."""
        seat = self._seated(call)

        def find() -> Call:
            if seat is None:
                raise Refused(self._unknown(call), policy="unknown-tool")
            return self._made(seat, call, config.get("configurable", {}), None)

        binding = None if seat is None else seat.bound.binding
        replays = binding is not None and not (binding.state or binding.unsafe_routes)
        apart = self.pauses and self._pauses_itself(call)
        return AskedCall(gate=self, call=call, find=find, replays=replays, apart=apart)

    def together(self, outputs: Sequence[Any], calls: Sequence[Mapping[str, Any]]) -> Any:
        """What `execute` would have returned for calls that were answered one after the other."""
        return _together(outputs, calls, key=_upstream.messages_key(self._node))

    def send(self, call: Mapping[str, Any]) -> Send:
        """A call in a task of its own, in the next superstep."""
        return Send(self._execute, [call])

    def join(self, state: Any, config: RunnableConfig) -> Command[Any] | None:
        """Go on, unless calls are at work in this superstep: they lead here again."""
        own = (self._execute, self._ask)
        if any(send.node in own for send in _upstream.sends(config)):
            return None
        return Command(goto=self._done)

    async def ajoin(self, state: Any, config: RunnableConfig) -> Command[Any] | None:
        """See `join`."""
        return self.join(state, config)

    def _seated(self, call: Mapping[str, Any]) -> Seat | None:
        """The guarded tool of a readable call; None: the ToolNode says what is wrong with it."""
        tool = self._node.tools_by_name.get(str(call.get("name")))
        seat = seat_of(tool) if tool is not None else None
        readable = isinstance(call.get("args"), Mapping) and isinstance(call.get("id"), str)
        known = seat is not None and seat.tool.name == call.get("name")
        return seat if known and readable and call["id"] else None

    def _made(
        self,
        seat: Seat,
        call: Mapping[str, Any],
        configurable: Mapping[str, Any],
        source: str | None,
        messages: Sequence[Any] = (),
    ) -> Call:
        return make_call(
            self._guard,
            seat.bound,
            agent=seat.agent,
            arguments=seat.model_arguments(call["args"]),
            call_id=call["id"],
            configurable=configurable,
            source=source,
            messages=messages,
            pauses_apart=True,
        )

    def _pauses_itself(self, call: Mapping[str, Any]) -> bool:
        seat = self._seated(call)
        return seat is not None and seat.bound.binding.interrupts

    def _source(self, input: Any, form: str) -> str | None:
        """The id of the message that holds the calls; None for calls without a message."""
        if form != "tool_calls":
            for message in reversed(_upstream.messages_of(self._node, input)):
                if isinstance(message, AIMessage) and message.id:
                    return message.id
        return None

    def _messages(self, input: Any, form: str, config: RunnableConfig) -> Sequence[Any]:
        """The conversation that the calls belong to; a list of calls brings none."""
        if form == "tool_calls":
            state = _upstream.state_of(config) or {}
            return list(state.get(_upstream.messages_key(self._node)) or ())
        return _upstream.messages_of(self._node, input)

    def _decide(
        self,
        calls: Sequence[Mapping[str, Any]],
        configurable: Mapping[str, Any],
        source: str | None,
        messages: Sequence[Any],
    ) -> list[Effect]:
        try:
            made = [self._call(call, configurable, source, messages) for call in calls]
            decided = iter(self._guard.gate.authorize([call for call in made if call is not None]))
        except LedgerError:
            return [Effect.DENY] * len(calls)  # no grant was written: the tools say why
        return [Effect.DENY if call is None else next(decided).decision.effect for call in made]

    def _call(
        self,
        call: Mapping[str, Any],
        configurable: Mapping[str, Any],
        source: str | None,
        messages: Sequence[Any],
    ) -> Call | None:
        name = str(call.get("name"))
        seat = self._seated(call)
        if seat is None:
            refuse_unknown(self._guard, name, configurable)
            return None
        try:
            return self._made(seat, call, configurable, source, messages)
        except Refused as refusal:
            refuse(self._guard, name, seat.agent, configurable, refusal)
            return None


_OFF_SCHEMA = "agentguard.arguments"


class _Sorted(NamedTuple):
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
            others += output
    messages.sort(key=lambda m: order.get(getattr(m, "tool_call_id", None), len(order)))
    if not others:
        return {key: messages}
    return [{key: messages}, *others] if messages else others


def _error(call: Mapping[str, Any], reason: str) -> ToolMessage:
    name, id = call.get("name"), call.get("id")
    return ToolMessage(
        content=reason,
        name=name if isinstance(name, str) else None,
        tool_call_id=id if isinstance(id, str) else "",
        status="error",
    )


def _plain_call(call: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": call.get("name"), "args": call.get("args"), "id": call.get("id"),
            "type": "tool_call"}  # fmt: skip


def _refuse_change(*_: Any, **__: Any) -> NoReturn:
    raise BindingError(
        "this graph is protected and sealed: what is added now would run around the gate; add it"
        " to the builder before protect()"
    )


_CHANGES = (
    "add_node",
    "add_edge",
    "add_conditional_edges",
    "add_sequence",
    "set_entry_point",
    "set_conditional_entry_point",
    "set_finish_point",
    "set_node_defaults",
)


def _sealed_class(base: type[Any]) -> type[Any]:
    def compile(self: Any, checkpointer: Any = None, **kwargs: Any) -> Any:
        _require_memory(self, checkpointer)
        return base.compile(self, checkpointer, **kwargs)

    namespace = {**dict.fromkeys(_CHANGES, _refuse_change), "compile": compile}
    return type(f"Sealed{base.__name__}", (base,), namespace)
