"""Guarded tools: copies of plain tools that run only under a claimed Grant (I5).

A guarded tool is a copy whose class is a subclass of the tool's own class, with the arguments that
the model should see. `run`/`arun` note what was called; `_run`/`_arun` claim the Grant, run the
*original* tool on private copies, and take in what it made. Reached by any other way, without a
matching Grant, it answers with a refusal. What decides before is in `authorization_nodes.py`
(graphs), `middleware.py` (agents) and `calls_by_hand.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool, ToolException

from agentguard.bindings.held_objects import INVOKER
from agentguard.bindings.tool_class import shown_of
from agentguard.calls.claim import ClaimedCall
from agentguard.calls.enforcement_point import EnforcementPoint
from agentguard.calls.execution import await_to_end
from agentguard.calls.questions import PendingQuestion
from agentguard.errors import BindingError, LedgerError
from agentguard.langgraph import upstream as _upstream
from agentguard.langgraph.agent_mapping import Agents, require_stage
from agentguard.langgraph.calls_by_hand import node_run_of, under_given_id
from agentguard.langgraph.invocation import Invocation, ToolInvoker, current_invocation
from agentguard.langgraph.nested_agents import GUARDS, unguarded_inside
from agentguard.langgraph.own_messages import MESSAGES
from agentguard.langgraph.runtime import CallContext
from agentguard.langgraph.unguarded_runs import announced
from agentguard.langgraph.waiting import authorize_message
from agentguard.ledger.rows.grants import OutcomeRow
from agentguard.model import Obstacle


def guarded(
    point: EnforcementPoint,
    tool: BaseTool,
    *,
    agents: Agents | None = None,
    inline: bool = False,
    pauses_apart: bool = False,
) -> BaseTool:
    """The guarded copy of a bound tool.

    Args:
        agents: the agent it acts as, or one per stage; None: whoever was authorized.
        inline: see `ToolInvoker`.
        pauses_apart: see `Call`.

    Raises:
        BindingError: the tool is not bound, bound as another tool, or runs unguarded agents.
    """
    if not isinstance(tool, BaseTool):
        raise BindingError(
            f"got {tool!r:.80}, expected a tool object: make one of a function with @tool, and bind"
            " that object"
        )
    known = invoker_of(tool)
    given = known.tool if known is not None else tool
    bound = point.bound_for(given)
    original = bound.runs(given)
    inside = unguarded_inside(point, original)
    if inside:
        raise BindingError(
            f"{tool.name} reaches tools that are not guarded ({'; '.join(inside)}); give an agent"
            " that it runs GuardMiddleware in its own middleware, or guard.tools([...]) only"
        )
    invoker = ToolInvoker(
        point, original, bound, agents=agents, inline=inline, pauses_apart=pauses_apart
    )
    shown = shown_of(given if bound.binding.mcp is not None else tool)  # a pin covers the words
    update: dict[str, Any] = {**shown, "args_schema": bound.args_schema}
    for name in ("func", "coroutine"):
        function = getattr(original, name, None)
        if function is not None:
            update[name] = _refusing(function, original.name)
    copy = original.model_copy(update=update)
    object.__setattr__(copy, "__class__", _subclass(type(original)))
    object.__setattr__(copy, INVOKER, invoker)
    return copy


def guarded_inline(point: EnforcementPoint, tool: BaseTool, *, agent: str) -> BaseTool:
    """The guarded copy of a bound tool that holds its own gate.

    Raises:
        BindingError: as `guarded`; or the tool is of a stage that its agent does not take, which
            no graph is built to say.
    """
    copy = guarded(point, tool, agents=agent, inline=True)
    invoker = invoker_of(copy)
    if invoker is not None:
        require_stage(point, 'gate="inline"', invoker.bound, agent)
    return copy


def invoker_of(tool: object) -> ToolInvoker | None:
    """The invoker of a guarded tool, None for any other object."""
    points = getattr(type(tool), GUARDS, False)
    invoker = getattr(tool, "__dict__", {}).get(INVOKER)
    return invoker if points and isinstance(invoker, ToolInvoker) else None


@functools.lru_cache(maxsize=64)  # making a pydantic class takes some milliseconds
def _subclass(base: type[BaseTool]) -> type[BaseTool]:
    """The class of guarded copies of a tool class; each copy has its own invoker."""

    def run(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        invoker = _invoker_of(self)
        invocation = invoker.invocation(
            tool_input, kwargs.get("tool_call_id"), kwargs.get("config")
        )
        unreadable = invoker.unreadable(invocation)
        if unreadable is not None:
            return invoker.not_made(unreadable, invocation)
        node = node_run_of(invoker, invocation)
        if node is not None:
            invocation = node.take(invoker, invocation)
        token = current_invocation.set(invocation)
        try:
            with announced(self.name):
                return under_given_id(base.run(self, tool_input, *args, **kwargs), invocation)
        finally:
            current_invocation.reset(token)

    async def arun(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        invoker = _invoker_of(self)
        invocation = invoker.invocation(
            tool_input, kwargs.get("tool_call_id"), kwargs.get("config")
        )
        unreadable = invoker.unreadable(invocation)
        if unreadable is not None:
            return await asyncio.to_thread(invoker.not_made, unreadable, invocation)
        node = node_run_of(invoker, invocation)
        if node is not None:
            invocation = await asyncio.to_thread(node.take, invoker, invocation)
        token = current_invocation.set(invocation)
        try:
            with announced(self.name):
                result = await base.arun(self, tool_input, *args, **kwargs)
                return under_given_id(result, invocation)
        finally:
            current_invocation.reset(token)

    def _run(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
        invoker = _invoker_of(self)
        invocation = _take_invocation(invoker)
        if invocation is None:
            return invoker.refusal(_DIRECT.format(invoker.tool.name), None)
        if invoker.media and _is_async_only(invoker.tool):  # before the claim: nothing was tried
            return invoker.refusal(_ASYNC_ONLY.format(invoker.tool.name), invocation.call_id)
        _authorize_inline(invoker, invocation)
        opened = invoker.claim(invocation)
        if not isinstance(opened, ClaimedCall):
            return invoker.reply(opened, invocation)
        with invoker.point.executor.run(opened, invoker) as execution, invoker.detached():
            positional, named = invoker.arguments(execution, invocation, kwargs)
            execution.result = invoker.tool._run(*positional, **named)
        return invoker.message(execution)

    async def _arun(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
        invoker = _invoker_of(self)
        invocation = _take_invocation(invoker)
        if invocation is None:
            return invoker.refusal(_DIRECT.format(invoker.tool.name), None)
        await asyncio.to_thread(_authorize_inline, invoker, invocation)
        opened = await _claim_async(invoker, invocation)
        if not isinstance(opened, ClaimedCall):
            return invoker.reply(opened, invocation)
        async with invoker.point.executor.arun(opened, invoker) as execution:
            with invoker.detached():
                positional, named = invoker.arguments(execution, invocation, kwargs)
                execution.result = await invoker.tool._arun(*positional, **named)
        return invoker.message(execution)

    namespace: dict[str, Any] = {
        "__module__": base.__module__,
        "__doc__": base.__doc__,
        "__annotations__": {GUARDS: typing.ClassVar[bool]},
        GUARDS: True,
        "run": functools.update_wrapper(run, base.run),
        "arun": functools.update_wrapper(arun, base.arun),
        "_run": _wrapped(_run, base._run),
    }
    if base._arun is not BaseTool._arun:
        namespace["_arun"] = _wrapped(_arun, base._arun)
    guarded_class: type[BaseTool] = type(base.__name__, (base,), namespace)
    return guarded_class


def _wrapped(function: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """A method in the original's place, its signature read once: LangChain reads it per call."""
    made = functools.update_wrapper(function, original)
    with contextlib.suppress(NameError, TypeError):  # it reads as LangChain finds it
        made.__annotations__ = typing.get_type_hints(original, include_extras=True)
    made.__dict__["__signature__"] = inspect.signature(original)
    return made


def _invoker_of(tool: BaseTool) -> ToolInvoker:
    invoker = invoker_of(tool)
    if invoker is None:  # an object of this class that `guarded` did not make
        raise ToolException(_DIRECT.format(tool.name))
    return invoker


_ASYNC_ONLY = "{} runs asynchronously only; run the graph with ainvoke or astream"
_DIRECT = "{} was called around its gate; it runs only through a graph that authorized the call"


def _is_async_only(tool: BaseTool) -> bool:
    return isinstance(tool, StructuredTool) and tool.func is None


def _take_invocation(invoker: ToolInvoker) -> Invocation | None:
    invocation = current_invocation.get()
    current_invocation.set(None)  # one claim per call: tools that this tool calls don't inherit it
    return invocation if invocation is not None and invocation.invoker is invoker else None


def _authorize_inline(invoker: ToolInvoker, invocation: Invocation) -> None:
    if invocation.node is not None and invocation.found is not None:
        invocation.node.authorize(invocation, invocation.found)
        return
    if not invoker.inline or invocation.call_id is None:
        return
    state = _upstream.state_of(invocation.config) or {}
    messages = state.get(MESSAGES) or ()
    context = CallContext.from_config(invoker.point, invocation.config, messages=messages)
    authorize_message(
        invoker.point, [invoker.call(context, invocation.arguments, invocation.call_id)], 0
    )


async def _claim_async(
    invoker: ToolInvoker, invocation: Invocation
) -> ClaimedCall | OutcomeRow | PendingQuestion | Obstacle:
    """Claim on a thread. A caller cancelled meanwhile leaves no claim behind."""
    task = asyncio.ensure_future(asyncio.to_thread(invoker.claim, invocation))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        opened = await await_to_end(task)
        if isinstance(opened, ClaimedCall):
            abandon = invoker.point.executor.abandon
            with contextlib.suppress(LedgerError):  # then the sweep ends it
                await await_to_end(asyncio.to_thread(abandon, opened, "cancelled before it ran"))
        raise


def _refusing(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A stand-in for `tool.func` with its signature: LangChain reads it, nobody may run it."""

    def stand_in(*args: Any, **kwargs: Any) -> Any:
        raise ToolException(_DIRECT.format(name))

    async def async_stand_in(*args: Any, **kwargs: Any) -> Any:
        raise ToolException(_DIRECT.format(name))

    made = async_stand_in if inspect.iscoroutinefunction(function) else stand_in
    functools.update_wrapper(made, function)
    made.__dict__.pop("__wrapped__", None)  # it would hand out the original
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        hints = dict(getattr(function, "__annotations__", {}))
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=hints.get(parameter.name, parameter.annotation))
        for parameter in signature.parameters.values()
    ]
    made.__dict__["__signature__"] = signature.replace(parameters=parameters)
    made.__annotations__ = hints
    return made
