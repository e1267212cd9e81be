"""An object that a search of nodes and tools reached, and by what way."""

from __future__ import annotations

import sys
import types
from typing import Any, NamedTuple

from langchain_core.tools import BaseTool
from langgraph.graph import StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel

from agentguard.langgraph.code_names import is_installed

_LONGEST_PATH = 8


class Reached(NamedTuple):
    """An object to look at.

    Attributes:
        thing: the object.
        parent: the one that led to it.
        label: how it is held there, where only that moment knows, as `global tool_node`.
        excused: ids of the tools and functions that a guard stands in front of, in this graph.
    """

    thing: Any
    parent: Reached | None
    label: str
    excused: frozenset[int]

    @property
    def key(self) -> tuple[int, frozenset[int] | None]:
        """What it is remembered by: by whom it is excused, unless it is code of a library's."""
        thing = self.thing
        if isinstance(thing, type):
            file = getattr(sys.modules.get(thing.__module__), "__file__", None)
            shared = file is not None and is_installed(file)
        else:
            shared = isinstance(thing, types.FunctionType) and not thing.__closure__
            shared = shared and is_installed(thing.__code__.co_filename)
        return id(thing), None if shared else self.excused

    @property
    def is_in_graph(self) -> bool:
        """Whether it is a graph, or was reached through one."""
        item: Reached | None = self
        while item is not None:
            if isinstance(item.thing, Pregel):
                return True
            item = item.parent
        return False

    @property
    def path(self) -> str:
        """How it is reached, as people would say it."""
        steps: list[str] = []
        step = self
        while step.parent is not None:
            steps.append(_label(step, step.parent))
            step = step.parent
        kind = type(self.thing).__name__
        words = [each for each in reversed(steps) if each not in ("", ".nodes")]
        if not words or not words[-1].startswith(kind):
            tool = isinstance(self.thing, BaseTool)
            words.append(f"tool {self.thing.name}" if tool else kind)
        return " → ".join(words[-_LONGEST_PATH:])


def _label(item: Reached, parent: Reached) -> str:
    if item.label:
        return item.label
    thing, holder = item.thing, parent.thing
    if isinstance(thing, Pregel):
        return f"graph {thing.get_name()}"
    above = parent.parent
    if above is not None and isinstance(above.thing, Pregel | StateGraph):
        for name in [name for name, spec in above.thing.nodes.items() if spec is thing]:
            return f"node {name}"
    if isinstance(thing, ToolNode):
        return "ToolNode"
    held = holder if type(holder) is dict else getattr(holder, "__dict__", None)
    if isinstance(held, dict | types.MappingProxyType):
        for key, value in held.items():
            if value is thing and isinstance(key, str):
                return f".{key}" if key.isidentifier() else f"[{key!r}]"
    return ""
