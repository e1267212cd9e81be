"""`protect`: puts the authorization node in front of every ToolNode of a graph.

A node that is a plain function, and calls tools by hand, runs under a gate: see function_nodes.py.

The node keeps its name, so that every edge, `Command(goto=...)` and `Send` still lands in it; two
nodes stand behind it:

    model ──▶ tools ──PERMIT, DENY──▶ tools.execute ──▶ whatever followed tools
                  └──ASK────────────▶ tools.ask ──────▶

A superstep ends when all its tasks have, and `ask` does not end while a question is open: so the
two are each other's barrier, and what followed goes on once, with all results. Where that is a
conditional or a waiting edge, or a tool pauses itself, both lead to `tools.joined` first.

Behind START stands `tools.repair`, named after the first ToolNode; see repair_node.py.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from langchain_core.tools import BaseTool
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import ToolNode

from agentguard.calls.enforcement_point import EnforcementPoint
from agentguard.errors import BindingError
from agentguard.langgraph import upstream as _upstream
from agentguard.langgraph.agent_mapping import (
    Agents,
    known_agents,
    require_stage,
)
from agentguard.langgraph.authorization_nodes import BEHIND, AuthorizationNodes
from agentguard.langgraph.function_nodes import FunctionNode
from agentguard.langgraph.guarded_tool import guarded, invoker_of
from agentguard.langgraph.nested_agents import require_guarded
from agentguard.langgraph.own_messages import MESSAGES
from agentguard.langgraph.repair_node import add_repair
from agentguard.model import Stage

if TYPE_CHECKING:
    from agentguard.guard import Guard


Graph = TypeVar("Graph", bound="StateGraph[Any, Any, Any, Any]")


def protect(
    builder: Graph,
    guard: Guard,
    *,
    agents: Mapping[str, str | Mapping[Stage | str, str]] | str,
    unsafe_shared_driver: bool = False,
    unsafe_unsearched: Collection[str] = (),
) -> Graph:
    """A sealed copy of a graph builder with an authorization node in front of every ToolNode.

    Compile what is returned, not `builder`: that one stays as it was, unguarded. Nothing can be
    added to what is returned.

    Args:
        builder: a StateGraph whose ToolNodes were added directly.
        guard: decides, grants and records.
        agents: for every ToolNode by its node name, the agent it acts as; or one agent per stage,
            `{"tools": {"generate": "painter", "edit": "editor"}}`, where one loop drives tools of
            several stages. A node that is a function, and calls guarded tools by hand, is named
            likewise. A name alone is the agent of every ToolNode, and of no function.
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
    point = guard.enforcement
    _require_builder(builder)
    nodes = {
        name: spec.runnable
        for name, spec in builder.nodes.items()
        if isinstance(spec.runnable, ToolNode)
    }
    agents = _by_node(nodes, agents)
    functions = _functions_among(builder, agents)
    _require_named(nodes, agents.keys() - functions, builder.nodes)
    _require_guarded(builder, point, nodes, functions, set(unsafe_unsearched))
    if len({id(node) for node in nodes.values()}) < len(nodes):
        raise BindingError("one ToolNode stands under two names; give each agent a ToolNode")
    by_hand: dict[str, FunctionNode] = {}
    for name, given in agents.items():
        known = known_agents(point, name, given, unsafe_shared_driver)
        if name in functions:
            runnable = builder.nodes[name].runnable
            by_hand[name] = FunctionNode(point, runnable, name=name, agents=known)
        else:
            nodes[name] = _guarded_copy(point, nodes[name], name, known)
    sealed = copy.copy(builder)
    sealed.nodes = dict(builder.nodes)
    sealed.edges = set(builder.edges)
    sealed.branches = defaultdict(dict, {k: dict(v) for k, v in builder.branches.items()})
    sealed.waiting_edges = set(builder.waiting_edges)
    gates: dict[str, AuthorizationNodes] = {}
    for name in nodes:
        _rewrite(sealed, point, name, nodes[name], gates)
    for name, node in by_hand.items():
        # No cache either: a remembered "exported" would be told to another thread.
        spec = replace(sealed.nodes[name], cache_policy=None)
        sealed.nodes[name] = replace(spec, runnable=node.as_runnable())
    if agents:
        repair = f"{next(iter(agents))}.repair"
        if repair in sealed.nodes:
            raise BindingError(f"the graph already has a node {repair}; rename it")
        own = {f"{name}{end}" for name in nodes for end in ("", *BEHIND)}
        keys = [_upstream.messages_key(node) for node in nodes.values()] or [MESSAGES]
        add_repair(sealed, point, name=repair, keys=keys, gates=own, acting=own | functions)
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
        staged = gate.staged if isinstance(gate, AuthorizationNodes) else []
        if staged:
            raise BindingError(
                f"{name} runs {', '.join(staged)}, and compile(checkpointer=False) makes this graph"
                " start over after each pause of a graph around it, so that they would run again;"
                " leave checkpointer out: it keeps what the graph around it keeps"
            )


def _by_node(
    nodes: Mapping[str, ToolNode], agents: Mapping[str, str | Mapping[Stage | str, str]] | str
) -> Mapping[str, str | Mapping[Stage | str, str]]:
    """The agents of each ToolNode, where one name may stand for all."""
    if not isinstance(agents, str):
        return agents
    if not nodes:
        raise BindingError(
            f"agents={agents!r} names the agent of every ToolNode, and this graph has no ToolNode;"
            " add one to the builder before protect(), or name the node that is a function:"
            f' agents={{"the node": {agents!r}}}'
        )
    return dict.fromkeys(nodes, agents)


def _functions_among(
    builder: StateGraph[Any, Any, Any, Any], agents: Mapping[str, Any]
) -> set[str]:
    """The named nodes that are plain functions, or callable objects."""
    found: set[str] = set()
    for name in agents:
        spec = builder.nodes.get(name)
        runnable = None if spec is None else spec.runnable
        if runnable is None or isinstance(runnable, ToolNode):
            continue
        if type(runnable) is not _upstream.RunnableCallable:
            raise BindingError(
                f"{name} is a {type(runnable).__name__}; agents= names ToolNodes, and nodes that"
                " are functions: protect() the builder of a graph by itself, give an agent"
                " GuardMiddleware, and make a function of a chain"
            )
        found.add(name)
    return found


def _require_named(nodes: Mapping[str, ToolNode], agents: Set[str], every: Iterable[str]) -> None:
    unnamed = sorted(set(nodes) - agents)
    unknown = sorted(agents - set(nodes))
    if unnamed:
        other = f"; no node is named {', '.join(unknown)}" if unknown else ""
        raise BindingError(
            f"ToolNode {', '.join(unnamed)} has no agent; name it: agents={{{unnamed[0]!r}: ...}}"
            f"{other}"
        )
    if unknown:
        meant = _meant(unknown[0], every)
        raise BindingError(
            f"{', '.join(unknown)} is no node of this graph{meant} Its ToolNodes"
            f" are {', '.join(sorted(nodes)) or 'none'}, and its nodes"
            f" {', '.join(sorted(every)) or 'none'}"
        )


def _meant(name: str, every: Iterable[str]) -> str:
    """The end of a clause on a misspelt node: the one that is meant, if one is like it."""
    near = get_close_matches(name, every, n=1)
    return f"; is {near[0]} meant?" if near else "."


def _require_guarded(
    builder: StateGraph[Any, Any, Any, Any],
    point: EnforcementPoint,
    named: Mapping[str, ToolNode],
    functions: Set[str],
    unsearched: Set[str],
) -> None:
    """I5: nothing in the graph but the ToolNodes that are guarded reaches an unguarded tool."""
    unknown = sorted(unsearched - set(builder.nodes))
    if unknown:
        raise BindingError(
            f"unsafe_unsearched names no node {unknown[0]!r}{_meant(unknown[0], builder.nodes)}"
            f" There are {', '.join(sorted(builder.nodes))}"
        )
    for name in sorted(builder.nodes.keys() - unsearched):
        spec = builder.nodes[name]
        held: Any = spec
        if name in named:  # what its wrappers hand to the tool's run is judged there
            held = [getattr(spec, each.name) for each in fields(spec) if each.name != "runnable"]
        require_guarded(point, held, f"node {name}", node=name, by_hand=name in functions)
        for branch in builder.branches.get(name, {}).values():
            require_guarded(point, branch, f"the conditional edge behind {name}")
    for branch in builder.branches.get(START, {}).values():
        require_guarded(point, branch, "the conditional entry point")
    require_guarded(point, builder.channels, "the state's reducers")


def _guarded_copy(point: EnforcementPoint, node: ToolNode, name: str, agents: Agents) -> ToolNode:
    """A ToolNode with guarded tools in place of the caller's; that one stays as it is."""
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
        copy_ = guarded(point, tool, agents=agents, pauses_apart=True)
        invoker = invoker_of(copy_)
        if invoker is not None:
            require_stage(point, name, invoker.bound, agents)
        copies[key] = copy_
    return _upstream.with_tools(node, copies)


def _rewrite(
    builder: StateGraph[Any, Any, Any, Any],
    point: EnforcementPoint,
    name: str,
    node: ToolNode,
    gates: dict[str, AuthorizationNodes],
) -> None:
    """Put a ToolNode's gate in its place, and its nodes behind it.

    Args:
        gates: the gates of the graph, by the names of their ask nodes.
    """
    execute, ask, joined, done = (f"{name}{end}" for end in BEHIND)
    for taken in (execute, ask, joined, done):
        if taken in builder.nodes:
            raise BindingError(f"the graph already has a node {taken}; rename it")
    spec = builder.nodes[name]
    gate = AuthorizationNodes(point, node, name=name, gates=gates)
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
