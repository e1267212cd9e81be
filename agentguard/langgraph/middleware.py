"""`GuardMiddleware`: the same gate for `create_agent` and deep agents.

It adds no graph node: `wrap_tool_call` is the gate (one call per task there; the first one that
people are asked about asks for all), `wrap_model_call` shows the model guarded tools only. List it
last: then it judges final arguments, and nothing stands between it and the tool. Behind another
wrapper it refuses every call.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

try:
    from langchain.agents.middleware import (
        AgentMiddleware,
        ExtendedModelResponse,
        ModelRequest,
        ModelResponse,
    )
except ImportError as error:
    raise ModuleNotFoundError(
        f'GuardMiddleware needs langchain ({error}): pip install "agentguard[langchain]"',
        name="langchain",
    ) from error
from langchain_core.messages import AIMessage, RemoveMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.config import get_config
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.prebuilt import ToolNode
from langgraph.prebuilt.tool_node import ToolCallRequest

from agentguard.calls.arguments import sayable
from agentguard.calls.call import Call
from agentguard.errors import BindingError, JobError
from agentguard.jobs.job import Job
from agentguard.langgraph import upstream as _upstream
from agentguard.langgraph.agent_mapping import known_agents, require_stage
from agentguard.langgraph.guarded_tool import guarded, invoker_of
from agentguard.langgraph.invocation import ToolInvoker
from agentguard.langgraph.message_media import take_in_media
from agentguard.langgraph.own_messages import MESSAGES, error_message
from agentguard.langgraph.provider_tools import (
    require_choice,
    require_front_end_tool,
    require_no_provider_tools,
    require_plain_extras,
    require_plain_model,
)
from agentguard.langgraph.refusal_marks import marked
from agentguard.langgraph.repair import Repair, Repaired
from agentguard.langgraph.runtime import CallContext, CallOrObstacle, thread_of
from agentguard.langgraph.swallowed import answered_questions, ask_again
from agentguard.langgraph.waiting import asking, authorize_message, pause_for
from agentguard.model import Obstacle, ObstacleKind, Stage

if TYPE_CHECKING:
    from agentguard.guard import Guard

_MOST_COPIES = 512


class GuardMiddleware(AgentMiddleware[Any, Any, Any]):
    """Authorizes every tool call of an agent made by `create_agent`.

    Args:
        guard: decides, grants and records.
        agent: the agent that the loop acts as, or one agent per stage.
        unsafe_shared_driver: say that one model drives several stages.

    Raises:
        BindingError: an unknown agent, or several without `unsafe_shared_driver`.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        agent: str | Mapping[Stage | str, str],
        unsafe_shared_driver: bool = False,
    ) -> None:
        super().__init__()
        self.tools = []
        self._point = point = guard.enforcement
        self._agents = known_agents(point, "GuardMiddleware", agent, unsafe_shared_driver)
        self._repair = Repair(point)
        self._run_again: set[tuple[str, str | None, str]] = set()
        self._copies: dict[int, tuple[BaseTool, dict[str, Any], BaseTool]] = {}
        # Of the tasks of a message one decides at a time: the first one for all, the rest read it.
        self._turns: weakref.WeakValueDictionary[tuple[str, str], Any]
        self._turns = weakref.WeakValueDictionary()
        self._request_class = _checked_request(self._checked)

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[..., Any]) -> Any:
        """Authorize one call, wait for people if they are asked, then run the guarded tool."""
        request = _with_own_state(request)
        tool, alone = self._gate(request, handler)
        if isinstance(tool, ToolMessage):
            return self._marked(tool, request)
        with asking(here=alone) as questions:
            result = handler(request.override(tool=tool))
        if questions:
            pause_for(self._point, questions)
        return self._marked(result, request)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[..., Awaitable[Any]]
    ) -> Any:
        """See `wrap_tool_call`; both are set, or a synchronous run would skip the gate."""
        request = _with_own_state(request)
        tool, alone = await asyncio.to_thread(self._gate, request, handler)
        if isinstance(tool, ToolMessage):
            return self._marked(tool, request)
        with asking(here=alone) as questions:
            result = await handler(request.override(tool=tool))
        if questions:
            await asyncio.to_thread(pause_for, self._point, questions)
        return self._marked(result, request)

    def _marked(self, result: Any, request: ToolCallRequest) -> Any:
        thread = thread_of(request.runtime.config)
        return marked(result, key=self._point.message_key, thread=thread)

    def wrap_model_call(self, request: Any, handler: Callable[..., Any]) -> Any:
        """Show the model guarded tools only, and asset ids in place of media in messages.

        Raises:
            BindingError: an unbound tool, or one that the provider would run by itself.
        """
        again = self._swallowed(request)
        if again is not None:
            return again
        response = handler(self._request(request))
        return self._response(response)

    async def awrap_model_call(self, request: Any, handler: Callable[..., Awaitable[Any]]) -> Any:
        """See `wrap_model_call`."""
        again = await asyncio.to_thread(self._swallowed, request)
        if again is not None:
            return again
        shown = await asyncio.to_thread(self._request, request)
        response = await handler(shown)
        return await asyncio.to_thread(self._response, response)

    def _swallowed(self, request: Any) -> ModelResponse[Any] | None:
        """Ask what another middleware swallowed; the newest message again if a call may run now.

        The model is not called then: the agent goes on with the calls of its message that have no
        answer any more.
        """
        woken = _upstream.take_wake()  # even if nothing is open any more
        config = get_config()
        state = _messages(request.state)
        thread = thread_of(config)
        known = answered_questions(self._point, state, thread=thread)
        if known is None:
            return None
        message, lost = known
        context = CallContext.from_config(self._point, config, source=message.id, messages=[*state])
        tools = {tool.name: tool for tool in request.tools if isinstance(tool, BaseTool)}
        calls = {call["id"]: call for call in message.tool_calls}
        answers = []
        for answer in lost:
            call = calls[answer.tool_call_id]
            tool = tools.get(call["name"])
            invoker = None if tool is None else invoker_of(self._copy(tool))
            answers.append((answer, _found(invoker, call, context)))
        gone = [
            answer
            for answer in ask_again(self._point, answers, woken=woken)
            if (thread, message.id, answer.tool_call_id) not in self._run_again
        ]
        if not gone:  # run again once: a middleware that answers by itself does so each time
            return None
        if len(self._run_again) >= _MOST_COPIES:
            self._run_again.clear()
        self._run_again |= {(thread, message.id, answer.tool_call_id) for answer in gone}
        removed = [RemoveMessage(id=answer.id) for answer in gone if answer.id]
        _upstream.write_channels(config, [(MESSAGES, removed)])
        return ModelResponse(result=[message])

    def _request(self, request: Any) -> Any:
        messages = self._repaired(request)
        given = {field.name: getattr(request, field.name) for field in fields(request)}
        return self._request_class(**{**given, "messages": messages})

    def _checked(self, name: str, value: Any) -> Any:
        """One field of a request as the model may get it.

        Raises:
            BindingError: it holds a tool that is not bound, or that the provider runs.
        """
        bound = self._point.bound
        if name == "tools":
            return self._shown(value)
        if name == "tool_choice":
            require_choice(value, where="tool_choice")
        elif name == "model_settings":
            require_no_provider_tools(value, bound, where="model_settings")
        elif name == "model":
            require_plain_model(value, bound, get_config().get("configurable", {}))
        return value

    def _repaired(self, request: Any) -> list[Any]:
        """What the model may read of a conversation; the state is repaired on the way."""
        config = get_config()
        state = _messages(request.state)
        repaired = self._repair.repaired(state, config, moment="model")
        if repaired is not None and repaired.lasts:
            self._write(repaired, config)
        messages = list(request.messages)
        if any(one is not other for one, other in itertools.zip_longest(messages, state)):
            # another middleware shortened or redacted what the model reads
            repaired = self._repair.repaired(messages, config, moment="model")
        return messages if repaired is None else repaired.messages

    def _write(self, repaired: Repaired, config: RunnableConfig) -> None:
        """Write the repaired conversation, before the model's answer is added to it."""
        whole = [RemoveMessage(id=REMOVE_ALL_MESSAGES), *repaired.messages]
        _upstream.write_channels(config, [*repaired.updates.items(), (MESSAGES, whole)])

    def _response(self, response: Any) -> Any:
        if isinstance(response, AIMessage):
            return self._taken_in([response])[0]
        if isinstance(response, ModelResponse):
            return replace(response, result=self._taken_in(response.result))
        if isinstance(response, ExtendedModelResponse):  # of a middleware inside this one
            inner = self._response(response.model_response)
            return replace(response, model_response=inner)
        raise BindingError(
            f"wrap_model_call got {type(response).__name__}, expected a ModelResponse or an"
            " AIMessage: a middleware behind GuardMiddleware returns something else; list it before"
        )

    def _taken_in(self, messages: Sequence[Any]) -> list[Any]:
        job: Job | None = None
        config = get_config()
        with contextlib.suppress(JobError):
            job = self._point.jobs.find(config.get("configurable", {}))
        agents = self._point.workspace.agents
        names = {self._agents} if isinstance(self._agents, str) else set(self._agents.values())
        owners = {agents[name].owner for name in names}
        thread = thread_of(config)
        return take_in_media(self._point, job, messages, owners=owners, thread=thread)

    def _shown(self, tools: Sequence[Any]) -> list[Any]:
        """The tools as the model may see them: guarded copies, and what a front end runs."""
        self._point.bound_tools.require_bound(*(t for t in tools if isinstance(t, BaseTool)))
        shown: list[Any] = []
        for tool in tools:
            if isinstance(tool, BaseTool):
                require_plain_extras(tool, self._point.bound)
                copy, invoker = self._copy(tool), invoker_of(tool)
                own = (
                    invoker is not None
                    and invoker.point is self._point
                    and invoker.agents is self._agents
                )
                tool = tool if own else copy  # what a middleware changed of ours is for the model
            else:
                require_front_end_tool(tool, self._point.bound)
            shown.append(tool)
        return shown

    def _copy(self, tool: BaseTool) -> BaseTool:
        """This agent's guarded copy of a tool object; a guarded copy of another agent is redone.

        Raises:
            BindingError: the tool is not bound, or not what was bound, or of another stage.
        """
        fields = dict(vars(tool))
        known = self._copies.get(id(tool))
        if known is not None and known[0] is tool and _same(known[1], fields):
            invoker = invoker_of(known[2])
            if invoker is not None:  # what the Binding pins may have changed within a field
                self._point.bound_for(invoker.tool)
                return known[2]
        copy = guarded(self._point, tool, agents=self._agents)
        invoker = invoker_of(copy)
        if invoker is not None:
            require_stage(self._point, "GuardMiddleware(agent=...)", invoker.bound, self._agents)
        if len(self._copies) >= _MOST_COPIES:  # a middleware may copy its tools at each turn
            for oldest in list(self._copies)[:1]:  # other threads copy tools
                self._copies.pop(oldest, None)
        self._copies[id(tool)] = (tool, fields, copy)
        return copy

    def _gate(self, request: ToolCallRequest, handler: Any) -> tuple[BaseTool | ToolMessage, bool]:
        """The tool that runs, or why none does, and whether its call may be asked about again."""
        woken = _upstream.take_wake()  # even if the call can't be made any more
        call = request.tool_call
        inside = _upstream.inside_of(handler)
        if inside is None or inside:
            why = _not_innermost(inside)
            return self._refusal(request, ObstacleKind.NOT_INNERMOST, why), False
        tool = request.tool
        if tool is None or tool.name != call["name"]:  # judge the object that would run (trap 10)
            reason = f"there is no tool {sayable(call['name'])} in this agent"
            return self._refusal(request, ObstacleKind.UNKNOWN_TOOL, reason), False
        try:
            copy = self._copy(tool)
        except BindingError as error:
            return self._refusal(request, ObstacleKind.NOT_BOUND, str(error)), False
        invoker = invoker_of(copy)
        if invoker is None:
            reason = f"{tool.name} is not guarded"
            return self._refusal(request, ObstacleKind.NOT_BOUND, reason), False
        calls, own, changed = self._message(invoker, request, handler)
        turn = self._turn(request) if len(calls) > 1 else contextlib.nullcontext()
        alone = authorize_message(self._point, calls, own, changed=changed, turn=turn, woken=woken)
        return copy, alone

    def _refusal(self, request: ToolCallRequest, kind: ObstacleKind, reason: str) -> ToolMessage:
        agent = self._agents if isinstance(self._agents, str) else None
        obstacle = Obstacle(kind=kind, sentence=reason)
        self._context(request).refuse(request.tool_call["name"], agent, obstacle)
        return error_message(request.tool_call, reason)

    def _context(self, request: ToolCallRequest) -> CallContext:
        message = _message_of(request.state, request.tool_call["id"] or "")
        return CallContext.from_config(
            self._point,
            request.runtime.config,
            source=None if message is None else message.id,
            messages=_messages(request.state),
        )

    def _turn(self, request: ToolCallRequest) -> Any:
        """A lock that the tasks of a call's message share; should two be made, two decide alike."""
        context = self._context(request)
        return self._turns.setdefault((context.thread, context.source or ""), threading.Lock())

    def _message(
        self, invoker: ToolInvoker, request: ToolCallRequest, handler: Any
    ) -> tuple[list[CallOrObstacle], int, bool]:
        """The unanswered calls of a call's message, which one it is, and whether it was changed.

        A call that a person edited before it came here is asked about by itself, and so is each
        where a person is asked about one after the other: nobody knows what comes of them.
        """
        own, state = request.tool_call, request.state
        own_id = own["id"] or ""
        context = self._context(request)
        call = _found(invoker, own, context)
        message = _message_of(state, own_id)
        node = _upstream.tool_node_of(handler)
        edited = _upstream.edited_calls(state)
        if message is None or node is None or len(message.tool_calls) == 1:
            return [call], 0, False
        if own_id in edited or _upstream.asks_per_call(node):
            return [call], 0, False
        behind = itertools.takewhile(lambda one: one is not message, reversed(_messages(state)))
        answered = {one.tool_call_id for one in behind if isinstance(one, ToolMessage)}
        found: dict[str, CallOrObstacle] = {}
        for other in message.tool_calls:
            other_id = other["id"] or ""
            if other_id == own_id:
                found[own_id] = call
            elif other_id not in answered | edited and other_id not in found:
                found[other_id] = _found(self._invoker_of(node, other), other, context)
        written = [one for one in message.tool_calls if one["id"] == own_id]
        changed = len(written) == 1 and any(written[0][key] != own[key] for key in ("name", "args"))
        if len(written) == 1 and isinstance(call, Call):
            ahead = _found(self._invoker_of(node, written[0]), written[0], context)
            if isinstance(ahead, Call):
                found[own_id] = replace(call, as_written=ahead)
        return list(found.values()), list(found).index(own_id), changed

    def _invoker_of(self, node: ToolNode, call: Mapping[str, Any]) -> ToolInvoker | None:
        """The guarded tool of another call of a message; None: there is none."""
        tool = node.tools_by_name.get(call["name"])
        if tool is not None and tool.name == call["name"]:
            with contextlib.suppress(BindingError):
                return invoker_of(self._copy(tool))
        return None


def _found(
    invoker: ToolInvoker | None, call: Mapping[str, Any], context: CallContext
) -> CallOrObstacle:
    """A call of a message, as it is given."""
    if invoker is None:
        why = f"there is no tool {sayable(call['name'])}"
        return Obstacle(kind=ObstacleKind.UNKNOWN_TOOL, sentence=why)
    return invoker.call(context, invoker.arguments_of(call["args"]), call["id"])


def _checked_request(check: Callable[[str, Any], Any]) -> type[ModelRequest[Any]]:
    """A class of requests whose fields are checked wherever they are read.

    Whatever a middleware inside the guard makes of one, the model is bound to what is read here.
    """

    class CheckedRequest(ModelRequest[Any]):
        def __getattribute__(self, name: str) -> Any:
            return check(name, super().__getattribute__(name))

    return CheckedRequest


def _with_own_state(request: ToolCallRequest) -> ToolCallRequest:
    """The request with the graph's state: a Send payload may carry a forged one (trap 9)."""
    found = _upstream.state_of(request.runtime.config)
    if found is None:
        return request
    return replace(request, state=found, runtime=replace(request.runtime, state=found))


def _messages(state: Any) -> Sequence[Any]:
    return state.get("messages", ()) if isinstance(state, Mapping) else ()


def _message_of(state: Any, call_id: str) -> AIMessage | None:
    """The message that holds a call: the newest one, or none."""
    for message in reversed(_messages(state)):
        if isinstance(message, AIMessage) and message.id:
            holds = any(call["id"] == call_id for call in message.tool_calls)
            return message if holds else None
    return None


def _same(fields: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return fields.keys() == now.keys() and all(fields[name] is now[name] for name in fields)


def _not_innermost(inside: list[str] | None) -> str:
    if inside is None:
        return (
            "refused: GuardMiddleware doesn't know what it would call, so it can't say what would"
            " run; give it to create_agent(middleware=[...]), as the last in the list"
        )
    names = ", ".join(inside)
    return (
        f"refused: list GuardMiddleware last: {names} runs inside it and could change what was"
        f" decided on. Move {names} in front of it, in create_agent(middleware=[...])"
    )
