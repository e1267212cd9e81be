"""Every private name of LangGraph and LangChain that this package touches, in one place.

Each has a canary in tests/integration/graphs/test_upstream.py, which fails with the name when an
upgrade moves it; langgraph-prebuilt is capped below its next minor version for the same reason.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import CodeType, FunctionType
from typing import Any, Literal, NoReturn

import langgraph.errors
from langchain_core.messages import AnyMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tools import BaseTool
from langchain_core.tools.base import _get_runnable_config_param
from langchain_core.tracers.context import _configure_hooks
from langgraph._internal._constants import (
    CONFIG_KEY_CALL,
    CONFIG_KEY_CHECKPOINT_NS,
    CONFIG_KEY_CHECKPOINTER,
    CONFIG_KEY_READ,
    CONFIG_KEY_RESUME_MAP,
    CONFIG_KEY_RUNTIME,
    CONFIG_KEY_SCRATCHPAD,
    CONFIG_KEY_SEND,
    CONFIG_KEY_STREAM,
    CONFIG_KEY_TASK_ID,
    NS_END,
    NS_SEP,
    PUSH,
    RESUME,
    TASKS,
)
from langgraph._internal._runnable import RunnableCallable, RunnableSeq
from langgraph.prebuilt import ToolNode
from langgraph.pregel._tools import _tool_call_writer
from langgraph.types import Send, interrupt

__all__ = [
    "RunnableCallable",
    "RunnableSeq",
    "asks_per_call",
    "channel_value",
    "configure_hooks",
    "drop_wake",
    "edited_calls",
    "filled_by_run",
    "graph_path",
    "has_checkpointer",
    "inside_of",
    "is_invalid_resume",
    "is_nested",
    "mark_again",
    "messages_key",
    "messages_of",
    "overridden",
    "parse_calls",
    "pause",
    "quiet_configurable",
    "sends",
    "sent_as",
    "set_wrappers",
    "starts_over",
    "take_wake",
    "task_of",
    "to_arguments",
    "tool_call_writer",
    "tool_node_of",
    "unwrapped",
    "wrappers_of",
    "write_channels",
]


_METHOD_KINDS = (FunctionType, property, classmethod, staticmethod)


def is_invalid_resume(error: BaseException) -> bool:
    """Whether a tool's own `interrupt` got a resume value off its `response_schema`.

    LangGraph fails the run then, so that the interrupt can be answered again.
    """
    known = getattr(langgraph.errors, "is_invalid_resume", None)  # newer than our lower bound
    return known is not None and bool(known(error))


def has_checkpointer(configurable: Mapping[str, Any]) -> bool:
    """Whether an interrupt of this run can be resumed."""
    return bool(configurable.get(CONFIG_KEY_CHECKPOINTER)) and all(_keeps(configurable))


def starts_over(configurable: Mapping[str, Any]) -> bool:
    """Whether this run is in a graph that forgets, inside one that can be resumed.

    Compiled with `checkpointer=False`, a subgraph begins anew after each pause of the outer graph.
    """
    keeps = list(_keeps(configurable))
    return False in keeps and True in keeps[keeps.index(False) :]


def graph_path(configurable: Mapping[str, Any]) -> str:
    """The nodes that hold the graph of a run, from the outermost; empty for the outermost graph."""
    parts = str(configurable.get(CONFIG_KEY_CHECKPOINT_NS, "")).split(NS_SEP)[:-1]
    return ".".join(part.split(NS_END)[0] for part in parts)


def _keeps(configurable: Mapping[str, Any]) -> Iterator[bool]:
    """Of each graph around a task, the innermost first, whether it keeps checkpoints."""
    while (call := configurable.get(CONFIG_KEY_CALL)) is not None:
        while inspect.isfunction(call):  # of a node that has a timeout
            call = _closure(call).get("call")
        schedule = getattr(call, "keywords", {}).get("schedule_task")
        loop = getattr(schedule, "__self__", None)
        yield getattr(loop, "checkpointer", None) is not None
        configurable = getattr(loop, "config", {}).get("configurable", {})


_WAITS = b""
"""Stands among the answers of a task where it waits for the guard's question.

If anything took it for an answer after all, it is no yes, and no client writes one like it.
"""


def pause(payload: Any) -> NoReturn:
    """Interrupt the running task, so that what wakes it is no answer to an `interrupt` of its own.

    LangGraph hands the answers of a task to its calls of `interrupt` by order; this is none of
    them. See `take_wake`.

    Raises:
        GraphInterrupt: always.
    """
    config = var_child_runnable_config.get() or {}
    configurable, pad = _answers_of(config)
    if pad is not None:
        marked = [*pad.resume, _WAITS]
        configurable[CONFIG_KEY_SEND]([(RESUME, marked)])
        pad = dataclasses.replace(
            pad,
            resume=marked,
            interrupt_counter=lambda: len(marked),
            get_null_resume=lambda consume=False: None,
        )
    own: RunnableConfig = {
        **config,
        "configurable": {**configurable, CONFIG_KEY_SCRATCHPAD: pad},
    }
    token = var_child_runnable_config.set(own)
    try:
        interrupt(payload)
    finally:
        var_child_runnable_config.reset(token)
    raise langgraph.errors.GraphInterrupt()  # it was answered, which can't be


def take_wake(config: RunnableConfig | None = None) -> bool:
    """Take what woke the running task from its `pause`, before its own `interrupt` does.

    Args:
        config: of the task; None: that of the running code.

    Returns:
        Whether it was woken with a value.
    """
    configurable, pad = _answers_of(config or var_child_runnable_config.get() or {})
    if pad is None:
        return False
    places = [number for number, answer in enumerate(pad.resume) if _is_mark(answer)]
    if not places:
        if configurable.get(CONFIG_KEY_RESUME_MAP):  # what woke an earlier run, and no answer now
            pad.get_null_resume(True)
        if _is_retried(configurable):  # what its earlier attempt wrote of this was dropped
            configurable[CONFIG_KEY_SEND]([(RESUME, [*pad.resume])])
        return False
    value = pad.get_null_resume(True)
    woken = len(pad.resume) > places[0] + 1 or value is not None
    del pad.resume[places[0] :]
    configurable[CONFIG_KEY_SEND]([(RESUME, [*pad.resume])])
    return woken


def mark_again(config: RunnableConfig) -> None:
    """Say once more that a task waits for the guard's question; see `pause`.

    The task may have read an answer to an `interrupt` of its own since, which wrote it over.
    """
    configurable, pad = _answers_of(config)
    if pad is not None:
        configurable[CONFIG_KEY_SEND]([(RESUME, [*pad.resume, _WAITS])])


def _is_retried(configurable: Mapping[str, Any]) -> bool:
    """Whether a task runs again after it failed, by a retry policy of its node."""
    info = getattr(configurable.get(CONFIG_KEY_RUNTIME), "execution_info", None)
    return getattr(info, "node_attempt", 1) > 1


def drop_wake() -> None:
    """Take a value that woke the run for another task, before this one's own `interrupt` does."""
    _, pad = _answers_of(var_child_runnable_config.get() or {})
    if pad is not None:
        pad.get_null_resume(True)


def _answers_of(config: RunnableConfig) -> tuple[dict[str, Any], Any]:
    """What LangGraph handed a task, and its scratchpad, which holds the answers; None outside."""
    configurable = config.get("configurable", {})
    return configurable, configurable.get(CONFIG_KEY_SCRATCHPAD)


def _is_mark(answer: object) -> bool:
    return isinstance(answer, bytes) and answer == _WAITS


def state_of(config: RunnableConfig) -> dict[str, Any] | None:
    """The state in the running task's channels; None outside a graph."""
    read = config.get("configurable", {}).get(CONFIG_KEY_READ)
    if read is None:
        return None
    values: dict[str, Any] = read(list(read.args[1]), True)
    return values


def task_of(config: RunnableConfig) -> str | None:
    """The id of the running task, the same each time it runs; None outside a graph."""
    task = config.get("configurable", {}).get(CONFIG_KEY_TASK_ID)
    return task if isinstance(task, str) else None


def is_nested(configurable: Mapping[str, Any]) -> bool:
    """Whether a task runs in a graph that runs inside another one."""
    return NS_SEP in str(configurable.get(CONFIG_KEY_CHECKPOINT_NS, ""))


def channel_value(config: RunnableConfig, key: str, *, fresh: bool) -> Any:
    """What a channel holds for the running task; None if it is empty, or outside a graph.

    Args:
        fresh: with what the task itself wrote.
    """
    read = config.get("configurable", {}).get(CONFIG_KEY_READ)
    return None if read is None else read(key, fresh)


def sends(config: RunnableConfig) -> list[Send]:
    """What was sent to the nodes of the running superstep, a task each; see `sent_as`."""
    return list(channel_value(config, TASKS, fresh=False) or ())


def sent_as(config: RunnableConfig) -> int | None:
    """Which of the superstep's `sends` the running task is; None: it was not sent."""
    path: Any = config.get("metadata", {}).get("langgraph_path") or ()
    sent = len(path) == 3 and path[0] == PUSH and path[2] is False  # True: a task that was called
    return path[1] if sent and isinstance(path[1], int) else None


def write_channels(config: RunnableConfig, values: Sequence[tuple[str, Any]]) -> bool:
    """Write channels before the running task's own result is written; False outside a graph."""
    send = config.get("configurable", {}).get(CONFIG_KEY_SEND)
    if send is None:
        return False
    send(list(values))
    return True


def wrappers_of(node: ToolNode) -> tuple[Any, Any]:
    """The wrappers that a ToolNode was given for its calls: synchronous, asynchronous."""
    return node._wrap_tool_call, node._awrap_tool_call


def set_wrappers(node: ToolNode, sync: Any, asynchronous: Any) -> None:
    """Give a ToolNode other wrappers for its calls; None: it runs them without one."""
    node._wrap_tool_call, node._awrap_tool_call = sync, asynchronous


def with_tools(node: ToolNode, tools: Mapping[str, BaseTool]) -> ToolNode:
    """A copy of a ToolNode that runs these tools, by the same names."""
    made = copy.copy(node)
    made._tools_by_name = dict(tools)
    made.func, made.afunc = made._func, made._afunc  # they are bound to the node that they run
    return made


def unwrapped(node: ToolNode) -> ToolNode:
    """A ToolNode with the same tools, messages and error handling, whose calls nothing wraps."""
    return ToolNode(
        list(node.tools_by_name.values()),
        name=node.get_name(),
        handle_tool_errors=node._handle_tool_errors,
        messages_key=node._messages_key,
    )


def overridden(node: ToolNode) -> list[str]:
    """The methods in which a node is not langgraph's own ToolNode: nobody knows what these run."""
    changed = set(_overridden_by(type(node))) | _METHODS & set(vars(node))
    for name, body in (("func", ToolNode._func), ("afunc", ToolNode._afunc)):
        given = getattr(node, name)
        if getattr(given, "__self__", None) is not node or given.__func__ is not body:
            changed.add(name)
    return sorted(changed)


_METHODS = frozenset(
    name
    for name in dir(ToolNode)
    if isinstance(inspect.getattr_static(ToolNode, name), _METHOD_KINDS) and name not in dir(object)
)


@functools.lru_cache(maxsize=64)
def _overridden_by(kind: type[ToolNode]) -> frozenset[str]:
    static = inspect.getattr_static
    names = _METHODS | {"__getattribute__"}
    return frozenset(name for name in names if static(kind, name) is not static(ToolNode, name))


def _nested(function: Any, *names: str) -> frozenset[CodeType]:
    """The bodies of functions that a function of the library defines inside itself."""
    return frozenset(
        code
        for code in inspect.unwrap(function).__code__.co_consts
        if isinstance(code, CodeType) and code.co_name in names
    )


_EXECUTE = _nested(ToolNode._run_one, "execute") | _nested(
    ToolNode._arun_one, "execute", "_sync_execute"
)


def inside_of(handler: Any) -> list[str] | None:
    """What a wrapper's handler would run before the tool: names of wrappers, outermost first.

    Empty for the ToolNode's own execution. None for a handler of unknown shape.
    """
    code = getattr(handler, "__code__", None)
    if code in _EXECUTE:  # by its body: a name can be copied, as functools.wraps does
        node = _closure(handler).get("self")
        return [] if isinstance(node, ToolNode) and not overridden(node) else None
    if getattr(handler, "__module__", None) != "langchain.agents.factory":
        return None
    names = list(dict.fromkeys(_wrapper_names(handler, seen=set())))
    return names or None


def _closure(function: Any) -> dict[str, Any]:
    """What a function holds of the functions around it; a cell that is not filled is left out."""
    held: dict[str, Any] = {}
    if inspect.isfunction(function):
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            with contextlib.suppress(ValueError):
                held[name] = cell.cell_contents
    return held


def tool_node_of(handler: Any) -> ToolNode | None:
    """The ToolNode whose own execution a handler is; see `inside_of`."""
    node = _closure(handler).get("self") if inside_of(handler) == [] else None
    return node if isinstance(node, ToolNode) else None


def asks_per_call(node: ToolNode) -> bool:
    """Whether a HumanInTheLoopMiddleware around a ToolNode's calls asks about each by itself."""
    around = [one for each in wrappers_of(node) for one in _wrapping(each, seen=set())]
    return any(getattr(one, "interrupt_mode", None) == "per_call" for one in around)


def edited_calls(state: Any) -> frozenset[str]:
    """The ids of calls that somebody edited, whose message still holds what the model wrote."""
    edited = state.get("hitl_edited_tool_calls") if isinstance(state, Mapping) else None
    return frozenset(edited or ())


def _wrapper_names(function: Any, *, seen: set[int]) -> Iterator[str]:
    return (type(one).__name__ for one in _wrapping(function, seen=seen))


def _wrapping(function: Any, *, seen: set[int]) -> Iterator[Any]:
    """The middleware whose bound methods a chain of langchain's composed wrappers holds."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    if id(function) in seen:
        return
    seen.add(id(function))
    if inspect.ismethod(function):
        yield function.__self__
        return
    if getattr(function, "__code__", None) in _EXECUTE:
        return
    held = _closure(function)
    for name in sorted(held, reverse=True):  # `outer` before `inner`
        if callable(held[name]):
            yield from _wrapping(held[name], seen=seen)


def messages_key(node: ToolNode) -> str:
    """The state key that holds a ToolNode's messages."""
    return node._messages_key


def parse_calls(
    node: ToolNode, input: Any
) -> tuple[list[dict[str, Any]], Literal["list", "dict", "tool_calls"]]:
    """The tool calls in any form of input that ToolNode takes, and which form it was.

    Raises:
        ValueError: no message, or no AI message, as ToolNode itself raises.
    """
    calls, form = node._parse_input(input)
    return [dict(call) for call in calls], form


def messages_of(node: ToolNode, input: Any) -> list[AnyMessage]:
    """The messages in a state-like input, empty where there are none."""
    if isinstance(input, list):
        return input
    if isinstance(input, Mapping):
        return list(input.get(node._messages_key, ()))
    return list(getattr(input, node._messages_key, ()))


def to_arguments(
    tool: BaseTool, tool_input: dict[str, Any], tool_call_id: str | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a tool's own schema makes of its input, as `BaseTool.run` computes it.

    Raises:
        pydantic.ValidationError: the input is off the schema.
    """
    return tool._to_args_and_kwargs(tool_input, tool_call_id)


def filled_by_run(tool: BaseTool) -> frozenset[str]:
    """The parameters of `_run` that `BaseTool.run` fills itself, whatever the model wrote there."""
    names: set[str] = set()
    for method in (tool._run, tool._arun):
        names |= {"run_manager"} & set(inspect.signature(method).parameters)
        config = _get_runnable_config_param(method)
        names |= {config} if config else set()
    return frozenset(names)


tool_call_writer = _tool_call_writer
"""Where the running tool's `emit_output_delta` goes."""


def configure_hooks() -> list[tuple[ContextVar[Any], bool]]:
    """The variables whose handlers LangChain adds to every run, and which the environment fills."""
    return [(variable, environment is not None) for variable, _, _, environment in _configure_hooks]


def quiet_configurable(configurable: Mapping[str, Any], *, pauses: bool) -> dict[str, Any]:
    """What a body may hold of its run's `configurable`; see `detached.quiet`."""
    if pauses:
        return {key: value for key, value in configurable.items() if key != CONFIG_KEY_STREAM}
    kept = {
        key: value
        for key, value in configurable.items()
        if not key.startswith(_PRIVATE) or key in (CONFIG_KEY_RUNTIME, CONFIG_KEY_TASK_ID)
    }
    pad = configurable.get(CONFIG_KEY_SCRATCHPAD)
    if pad is not None:  # a question that nobody declared is raised, and takes no other's answer
        kept[CONFIG_KEY_SCRATCHPAD] = dataclasses.replace(
            pad, resume=[], get_null_resume=lambda consume=False: None
        )
    return kept


_PRIVATE = "__pregel_"
