"""What a node or a tool can reach: unguarded tools are refused when the graph is built (I5).

The walk keeps no list of shapes. `gc.get_referents` knows what any object holds; functions are the
exception, since it would lead through their `__globals__` to the whole process: of a function the
closure, the defaults and the globals and imports *named in its code* are followed. The belt
(`unguarded_runs`) stops at run time what no walk can see, such as a name that is computed.
"""

from __future__ import annotations

import functools
import gc
import sys
import types
import weakref
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.tools import BaseTool
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel

from agentguard.bindings.declaration import MARK, bodies_of
from agentguard.bindings.held_objects import held_by, referent_of
from agentguard.errors import BindingError
from agentguard.langgraph import upstream
from agentguard.langgraph.code_names import (
    imported_module,
    is_installed,
    is_library,
    names_at_once,
    names_in,
    package_of,
)
from agentguard.langgraph.reached import Reached

if TYPE_CHECKING:
    from agentguard.bindings.bound import Bound
    from agentguard.calls.enforcement_point import EnforcementPoint

MOST_OBJECTS = 200_000
"""A node that reaches more objects than this can't be searched, and is refused."""

# A coroutine leads, through its task and the event loop, to the locals of the whole process.
_PLAIN = frozenset({
    str, bytes, bytearray, int, float, complex, bool, type(None), type(...), range, slice,
    types.CodeType, types.CoroutineType, types.FrameType, types.TracebackType,
    types.GetSetDescriptorType, types.MemberDescriptorType, types.WrapperDescriptorType,
    types.MethodDescriptorType,
})  # fmt: skip
_SCHEMAS = frozenset({
    "__pydantic_core_schema__", "__pydantic_serializer__", "__pydantic_validator__",
    "__pydantic_parent_namespace__", "__signature__", "__annotations__",
})  # fmt: skip
_MAKERS = frozenset({"__init__", "__new__", "__post_init__"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Unguarded:
    """Tools that would run past the guard.

    Args:
        path: how they are reached, as `global tool_node → ToolNode`.
        names: their names, sorted.
        agent: whether it is an agent or graph that runs them.
        declared: whether it is a function that was declared with `media_tool`.
    """

    path: str
    names: tuple[str, ...]
    agent: bool
    declared: bool = False


def require_guarded(
    point: EnforcementPoint,
    root: Any,
    name: str,
    *,
    node: str | None = None,
    by_hand: bool = False,
) -> None:
    """Refuse a node of a graph that reaches unguarded tools.

    A tool that is bound with `stage=None` and no destination is none; any other one that is no
    guarded copy is, bound or not. So is the plain function of a bound tool.

    Args:
        root: the node's runnable, the path of a branch, or whatever else runs there.
        name: what it is called in the message, as `node tools`.
        node: the name of the node that it is, if it is one.
        by_hand: it is a function under a gate of its own, which declared functions find.

    Raises:
        BindingError: saying the path, and what to change; or more than `MOST_OBJECTS` are reached.
    """
    excused = _declared(point) if by_hand else frozenset()
    found = list(_Walk(point, name).run(root, excused))
    if not found:
        return
    first = found[0]
    others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    if first.agent:
        remedy = (
            "protect() the builder of that graph first, give that agent GuardMiddleware, or use"
            " guarded tools: guard.tools([...])"
        )
    elif first.declared and node is not None:
        remedy = (
            f"name the node, so that its calls are decided on: agents={{{node!r}: AGENT}}; or call"
            " it in a ToolNode"
        )
    else:
        remedy = (
            "add a ToolNode of its own to the graph and name it in agents={...}, or use"
            " guard.tools([...]); a tool without media or effect is bound with stage=None"
        )
    raise BindingError(
        f"{name} → {first.path} with unguarded tools ({', '.join(first.names)}){others}, which"
        f" would run past the guard; {remedy}"
    )


def unguarded_inside(point: EnforcementPoint, tool: BaseTool) -> list[str]:
    """The tools that a bound tool's own code could run past the guard, as `path: tool, tool`.

    A single tool in an attribute of an object of the user's is left to the belt: tools are often
    methods of the object that holds them all. Agents and ToolNodes are found there, too.

    Raises:
        BindingError: it holds too much to be searched.
    """
    own = frozenset({id(tool), *_functions_of(tool)})
    walk = _Walk(point, tool.name, in_attributes=False)
    found = sorted(walk.run(tool, own), key=lambda each: not each.agent)
    return [f"{each.path}: {', '.join(each.names)}" for each in found]


@dataclass(slots=True)
class _Walk:
    """One search.

    Args:
        in_attributes: report single tools that an object of the user's own classes holds.
    """

    point: EnforcementPoint
    name: str
    in_attributes: bool = True
    seen: dict[tuple[int, frozenset[int] | None], Reached] = field(default_factory=dict)
    todo: deque[Reached] = field(default_factory=deque)
    modules: dict[str, tuple[types.ModuleType, Reached]] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)
    functions: dict[int, str] = field(default_factory=dict)

    def run(self, root: Any, excused: frozenset[int]) -> Iterator[Unguarded]:
        for bound in list(self.point.bound.values()):  # other threads bind tools
            if not _is_harmless(bound):
                self.functions |= dict.fromkeys(_functions_of(bound.binding.tool), bound.name)
        self.todo.append(Reached(root, None, "", excused))
        while self.todo or self._enter_modules():
            item = self.todo.popleft()
            key = item.key
            if key in self.seen:
                continue
            self.seen[key] = item  # kept, so that no id is used twice
            if len(self.seen) > MOST_OBJECTS:
                raise BindingError(
                    f"{self.name} → {item.path} reaches more than {MOST_OBJECTS:,} objects, so it"
                    " can't be searched for unguarded tools; hand it what it needs only, or load"
                    " large data where it is used (a node that you know well can be named in"
                    " protect(..., unsafe_unsearched=[...]))"
                )
            yield from self._look(item)

    def _look(self, item: Reached) -> Iterator[Unguarded]:
        thing, excused = item.thing, item.excused
        if self._is_guard(thing):
            return
        if isinstance(thing, ToolNode):
            if is_guarded_node(thing):
                excused |= _excuses(thing.tools_by_name.values())
            else:
                names = [
                    name
                    for name, tool in thing.tools_by_name.items()
                    if id(tool) not in excused and not self._is_fine(tool)
                ]
                if names:
                    yield self._unguarded(item, names, agent=item.is_in_graph)
                    return
            self._require_memory(item, thing)
        elif isinstance(thing, BaseTool):
            reported = id(thing) not in excused and self._is_reported(item)
            if reported and not self._is_fine(thing):
                yield self._unguarded(item, [thing.name], agent=item.is_in_graph)
                return
        elif isinstance(thing, Pregel):
            for node in _tool_nodes(thing):
                if is_guarded_node(node):
                    excused |= _excuses(node.tools_by_name.values())
        elif isinstance(thing, types.FunctionType) and BY_HAND in vars(thing):
            excused |= _declared(self.point)
        elif self._is_bound_function(item):
            names = [self.functions[id(thing)]]
            yield self._unguarded(item, names, agent=False, declared=hasattr(thing, MARK))
            return
        self._follow(item, excused)

    def _require_memory(self, item: Reached, node: ToolNode) -> None:
        """Refuse a graph that starts over after each pause, and would repeat what its tools did.

        Raises:
            BindingError: saying which graph, and what to change.
        """
        bound = self.point.bound
        staged = sorted(
            name for name in node.tools_by_name if name in bound and not _is_harmless(bound[name])
        )
        holder: Reached | None = item if staged else None
        while holder is not None:
            if isinstance(holder.thing, Pregel) and holder.thing.checkpointer is False:
                raise BindingError(
                    f"{self.name} → {holder.path} runs {', '.join(staged)} and is compiled with"
                    " checkpointer=False, so it starts over after each pause of the graph around it"
                    " and would run them again; leave checkpointer out: it keeps what the graph"
                    " around it keeps"
                )
            holder = holder.parent

    def _is_bound_function(self, item: Reached) -> bool:
        """Whether code names the plain function of a bound tool; the tool itself holds it, too."""
        known = id(item.thing) in self.functions and id(item.thing) not in item.excused
        return known and bool(item.label) and self._is_reported(item)

    def _unguarded(
        self, item: Reached, names: Iterable[str], *, agent: bool, declared: bool = False
    ) -> Unguarded:
        return Unguarded(path=item.path, names=tuple(sorted(names)), agent=agent, declared=declared)

    def _is_reported(self, item: Reached) -> bool:
        if self.in_attributes or item.is_in_graph:
            return True
        holder = item.parent
        while holder is not None and holder.parent is not None:
            thing = holder.thing
            code = isinstance(thing, type | types.FunctionType | types.ModuleType | BaseTool)
            if not code and not is_library(type(thing).__module__):
                return False
            holder = holder.parent
        return True

    def _is_guard(self, thing: Any) -> bool:
        """Whether the walk ends here: a guarded copy leads to its original, a Guard to all."""
        kind = type(thing)
        if any(package_of(base.__module__) == "agentguard" for base in kind.__mro__):
            return True
        return getattr(kind, GUARDS, False) is True

    def _is_fine(self, tool: BaseTool) -> bool:
        if self._is_guard(tool):
            return True
        bound = self.point.bound.get(tool.name)
        if bound is None or not _is_harmless(bound):
            return False
        try:
            return self.point.bound_for(tool) is bound
        except BindingError:
            return False

    def _follow(self, item: Reached, excused: frozenset[int]) -> None:
        thing = item.thing
        if isinstance(thing, types.FunctionType):
            self._follow_function(item, excused)
        elif isinstance(thing, types.ModuleType):
            self._reach(thing, item)
        elif isinstance(thing, type):
            if not is_library(thing.__module__):
                made = item.parent is not None and type(item.parent.thing) is thing
                left_out = _SCHEMAS | _MAKERS if made else _SCHEMAS  # its object is made already
                held = [value for name, value in vars(thing).items() if name not in left_out]
                self._push(item, excused, (*held, *thing.__bases__, type(thing)))
        else:
            self._push(item, excused, held_by(thing))

    def _follow_function(self, item: Reached, excused: frozenset[int]) -> None:
        function: types.FunctionType = item.thing
        names = function.__code__.co_freevars
        for name, cell in zip(names, function.__closure__ or (), strict=True):
            try:
                held = cell.cell_contents
            except ValueError:  # not filled in yet
                continue
            self._add(item, held, f"closure {name}", excused)
        for value in function.__defaults__ or ():
            self._add(item, value, "default", excused)
        for name, value in (function.__kwdefaults__ or {}).items():
            self._add(item, value, f"default of {name}", excused)
        self._push(item, excused, vars(function).values())
        module = str(function.__globals__.get("__name__", ""))
        if is_library(module):
            return
        own = not is_installed(function.__code__.co_filename)
        said = names_in(function.__code__) if own else names_at_once(function.__code__)
        self.said |= said.attributes
        for name in said.globals & function.__globals__.keys():
            value = function.__globals__[name]
            if isinstance(value, types.ModuleType):
                self._enter(value, said.attributes, item, f"global {name}", excused)
            else:
                self._add(item, value, f"global {name}", excused)
        package = str(function.__globals__.get("__package__") or "")
        for name, level in said.imports:
            imported = imported_module(name, level, package, load=own)
            if imported is not None:
                names_ = said.attributes | {name.rpartition(".")[2]}
                self._enter(imported, names_, item, f"import {name}", excused)

    def _enter(
        self,
        module: types.ModuleType,
        names: Collection[str],
        item: Reached,
        label: str,
        excused: frozenset[int],
    ) -> None:
        """Follow what a function names in a module, and in modules that it names there."""
        pending, entered = [(module, label)], set[str]()
        while pending:
            module, label = pending.pop()
            if module.__name__ in entered or is_library(module.__name__):
                continue
            entered.add(module.__name__)
            held = vars(module)
            for name in {*names, "__getattr__"} & held.keys():
                if isinstance(held[name], types.ModuleType):
                    pending.append((held[name], f"{label}.{name}"))
                else:
                    self._add(item, held[name], f"{label}.{name}", excused)

    def _reach(self, module: types.ModuleType, item: Reached) -> None:
        """A module that some data holds: which of its names are used, only the code can say."""
        if not is_library(module.__name__):
            self.modules.setdefault(module.__name__, (module, item))

    def _enter_modules(self) -> bool:
        """Once nothing else is left: the names in modules that any function reached names."""
        for module, item in list(self.modules.values()):
            self._enter(module, self.said, item, module.__name__, item.excused)
        return any(item.key not in self.seen for item in self.todo)

    def _push(self, item: Reached, excused: frozenset[int], things: Iterable[Any]) -> None:
        for thing in things:
            self._add(item, thing, "", excused)

    def _add(self, item: Reached, thing: Any, label: str, excused: frozenset[int]) -> None:
        if type(thing) in weakref.ProxyTypes:
            thing = referent_of(thing)
        if type(thing) not in _PLAIN:
            self.todo.append(Reached(thing, item, label, excused))


GUARDS = "_agentguard_guards"
"""The class attribute that marks the class of a guarded copy."""

BY_HAND = "agentguard_by_hand"
"""The attribute that marks a function node under its gate, which declared functions find."""


def is_guarded_node(node: ToolNode) -> bool:
    """Whether a GuardMiddleware stands in front of a ToolNode's calls, of either kind (trap 8)."""
    module = sys.modules.get("agentguard.langgraph.middleware")
    if module is None:
        return False
    return all(_holds(wrapper, module.GuardMiddleware) for wrapper in upstream.wrappers_of(node))


def _holds(wrapper: Any, kind: type[Any]) -> bool:
    """Whether a composed wrapper leads to a middleware: through closures and bound methods."""
    pending, seen = [wrapper], set[int]()
    while pending:
        thing = pending.pop()
        if thing is None or id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, kind):
            return True
        if isinstance(thing, types.MethodType):
            pending += [thing.__self__, thing.__func__]
        elif isinstance(thing, types.FunctionType):
            pending += [*(thing.__closure__ or ()), *vars(thing).values()]
        elif isinstance(thing, (types.CellType, functools.partial, list, tuple)):
            pending += gc.get_referents(thing)
    return False


def _tool_nodes(graph: Pregel[Any, Any, Any, Any]) -> Iterator[ToolNode]:
    built = getattr(getattr(graph, "builder", None), "nodes", {})
    for held in (
        *(spec.runnable for spec in built.values()),
        *(n.bound for n in graph.nodes.values()),
    ):
        if isinstance(held, ToolNode):
            yield held


def _is_harmless(bound: Bound) -> bool:
    """Whether a bound tool may run without a gate: it has no stage, and nothing leaves."""
    return bound.binding.is_harmless


def _functions_of(tool: BaseTool) -> frozenset[int]:
    functions = (getattr(tool, "func", None), getattr(tool, "coroutine", None))
    return frozenset(id(each) for each in functions if each is not None)


def _declared(point: EnforcementPoint) -> frozenset[int]:
    """The functions of bound tools that were declared with `media_tool`."""
    tools = [bound.binding.tool for bound in list(point.bound.values())]
    bodies = [body for tool in tools for body in bodies_of(tool)]
    return frozenset(id(body) for body in bodies if hasattr(body, MARK))


def _excuses(tools: Iterable[BaseTool]) -> frozenset[int]:
    return frozenset(id(tool) for tool in tools)
