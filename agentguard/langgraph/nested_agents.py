"""Agents inside a tool or a graph: what they run must be guarded as well (I5).

The `task` tool of a deep agent runs whole agents, each with a ToolNode of its own: a gate in front
of `task` is none in front of those. What can be reached from a tool's function is looked through;
an agent that it finds elsewhere (a global, the network) is ordinary code, as README says.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.runnables import RunnableLambda, RunnableSequence
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.tools import BaseTool
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel

from agentguard.langgraph import upstream as _upstream

_MOST = 10_000


def unguarded_inside(tool: BaseTool, is_guarded: Any) -> list[str]:
    """The tools that agents inside a tool run past the guard, as `agent: tool, tool`.

    Args:
        is_guarded: says of a tool object whether it is a guarded copy.
    """
    found: dict[int, str] = {}
    for start in (getattr(tool, "func", None), getattr(tool, "coroutine", None)):
        for path, node in tool_nodes(start, ""):
            plain = unguarded(node, is_guarded)
            if plain and id(node) not in found:
                found[id(node)] = f"{path.removesuffix('.tools')}: {', '.join(plain)}"
    return list(found.values())


def tool_nodes(runnable: Any, path: str) -> list[tuple[str, ToolNode]]:
    """Every ToolNode that a node or function holds, in graphs within graphs too, with its path."""
    found: list[tuple[str, ToolNode]] = []
    for item in _reached((runnable,), (Pregel, ToolNode)):
        if isinstance(item, ToolNode):
            found.append((path or item.get_name(), item))
            continue
        nodes = getattr(getattr(item, "builder", None), "nodes", {})
        own_first = sorted(
            nodes.items(), key=lambda each: not isinstance(each[1].runnable, ToolNode)
        )
        for name, spec in own_first:  # an agent's model node holds its ToolNode, too
            found.extend(tool_nodes(spec.runnable, f"{path or item.get_name()}.{name}"))
    return found


def unguarded(node: ToolNode, is_guarded: Any) -> list[str]:
    """The tools of a ToolNode that would run unguarded, sorted."""
    module = sys.modules.get("agentguard.langgraph.middleware")
    if module is not None and all(  # trap 8: a run of either kind must pass it
        any(_reached((wrapper,), module.GuardMiddleware)) for wrapper in _upstream.wrappers_of(node)
    ):
        return []
    return sorted(name for name, tool in node.tools_by_name.items() if not is_guarded(tool))


def _reached(start: tuple[Any, ...], kind: type[Any] | tuple[type[Any], ...]) -> Iterator[Any]:
    """The objects of a kind that a runnable or function holds: in its closure, or bound to it."""
    pending, seen = list(start), set[int]()
    while pending and len(seen) < _MOST:
        item = pending.pop()
        if item is None or id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, kind):
            yield item
        elif isinstance(item, RunnableBindingBase):
            pending.append(item.bound)
        elif isinstance(item, RunnableSequence):
            pending += item.steps
        elif isinstance(item, (RunnableLambda, _upstream.RunnableCallable)):
            pending += [getattr(item, "func", None), getattr(item, "afunc", None)]
        elif isinstance(item, functools.partial):
            pending += [item.func, *item.args, *item.keywords.values()]
        elif inspect.ismethod(item):
            pending += [item.__self__, item.__func__]
        elif inspect.isfunction(item):
            pending += [getattr(item, "__wrapped__", None), *_held(item)]
        elif isinstance(item, Mapping):
            pending += item.values()
        elif isinstance(item, (list, tuple)):
            pending += item


def _held(function: Any) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled in yet
            continue
