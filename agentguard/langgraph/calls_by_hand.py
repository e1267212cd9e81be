"""The gate of one run of a function node: what it calls by hand is decided, asked and claimed.

A function that was declared with `media_tool`, and is called as Python calls functions, is a
guarded tool that is called with its arguments. How calls are named says node_calls.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, final

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tools import BaseTool
from langgraph.errors import GraphInterrupt
from langgraph.types import Command

from agentguard.bindings.declaration import name_of, owners_of
from agentguard.bindings.running import under
from agentguard.calls.enforcement_point import EnforcementPoint
from agentguard.calls.execution import current_execution
from agentguard.calls.questions import PendingQuestion
from agentguard.calls.refusal_log import in_a_line
from agentguard.errors import CallRefused
from agentguard.langgraph import upstream as _upstream
from agentguard.langgraph.agent_mapping import Agents, agent_for
from agentguard.langgraph.invocation import LEFT_BEHIND, Invocation, ToolInvoker, raising
from agentguard.langgraph.node_calls import NodeCalls, UnansweredCalls, place
from agentguard.langgraph.own_messages import MESSAGES
from agentguard.langgraph.runtime import CallOrObstacle
from agentguard.langgraph.waiting import authorize_message, open_questions, pause_for
from agentguard.model import Obstacle, ObstacleKind

_log = logging.getLogger(__name__)

_NODE_KEY = "__agentguard_node"

_NOT_BOUND = (
    "{0} was called by hand in the node {1}, and no tool of the guard runs it; hand it in:"
    " Guard.from_config(..., tools=[{0}])"
)
_SEVERAL = (
    "{0} was called by hand in the node {1}, and is several tools ({2}); call one of them, from"
    " guard.tools()"
)
_WRITTEN = (
    "{0} fills in {1} by itself, and here it has what the model wrote in its place; hand in a value"
    " of your own, or leave it out of the call's arguments"
)
_OTHER_OBJECT = (
    "{0} is a method, and was called in the node {1} on another object than the one that the guard"
    " knows; bind that one as well, under a name of its own"
)
_OTHER_AGENT = "{0} is given to {1}, and the node {2} acts as {3}; name one agent in both places"


@final
class NodeRun:
    """One run of a function node. It travels in the run's config, and can't be stored or sent.

    Args:
        guarded: gives the guarded copy of a bound tool.
        config: of the run.
        message: what the node was handed.
    """

    def __init__(
        self,
        point: EnforcementPoint,
        *,
        name: str,
        agents: Agents,
        guarded: Callable[[BaseTool], BaseTool],
        config: RunnableConfig,
        message: UnansweredCalls | None,
    ) -> None:
        self.point = point
        self.left = False
        self.ended = False
        self.process = os.getpid()
        self.task = _upstream.task_of(config)
        self.execution = current_execution.get()  # of the tool whose body runs the graph, if any
        self._name = name
        self._agents = agents
        self._guarded = guarded
        self._calls = NodeCalls(point, name=name, agents=agents, config=config, message=message)
        self._config = config
        self._woken = _upstream.take_wake(config)
        self._lock = threading.Lock()
        self._asked: set[tuple[str, str | None]] = set()
        self._question: GraphInterrupt | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> NodeRun:
        return self

    def __repr__(self) -> str:
        return "<node>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a run of a node stays in its process")

    @contextlib.contextmanager
    def handed(self, config: RunnableConfig) -> Iterator[RunnableConfig]:
        """The config that the function runs with, which its calls take up by themselves."""
        configurable = {**config.get("configurable", {}), _NODE_KEY: self}
        handed: RunnableConfig = {**config, "configurable": configurable}
        token = var_child_runnable_config.set(handed)
        try:
            with under(self):
                yield handed
        finally:
            self.left = True
            var_child_runnable_config.reset(token)

    def raise_question(self) -> None:
        """Raise what people were asked while the function ran, whatever it made of that.

        Raises:
            GraphInterrupt: a question is open.
        """
        if self._question is not None:
            _upstream.mark_again(self._config)
            raise self._question

    def end(self) -> None:
        """The function returned: what it left at work asks nobody any more, and does nothing.

        Raises:
            GraphInterrupt: a question is open.
        """
        with self._lock:
            self.ended = self._question is None
        self.raise_question()
        self._tell_of_unmade()
        self._calls.withdraw_left()

    def _tell_of_unmade(self) -> None:
        """Log the calls of the message that people are asked about, and that the function left out.

        Another node may make them, so their questions stay.
        """
        if _upstream.sent_as(self._config) is not None:
            return
        for question in open_questions(self.point, self._calls.left_out):
            _log.warning(
                "the node %s returned and did not make the call %s of its message, about which"
                " people are asked: unless another node makes it, an answer changes nothing",
                self._name,
                in_a_line(question.call_id),
            )

    def is_here(self) -> bool:
        """Whether the code that runs now is the function's own, and in no graph or tool it runs."""
        return not self.left and _is_at(self, var_child_runnable_config.get() or {})

    def call(
        self,
        declared: object,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Call a declared function of the node as the tool that it is.

        Args:
            declared: what it was declared with.
            args, kwargs: as the tool's schema names them: asset ids, and nothing that the guard
                fills in.

        Returns:
            What the tool gives a model: its text; of a tool without media or place, its result.

        Raises:
            CallRefused: it did not run, or failed.
            GraphInterrupt: people are asked.
        """
        tool, given = self._as_tool(declared, function, args, kwargs)
        with _raising():
            return tool.invoke(given)

    async def acall(
        self,
        declared: object,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """See `call`."""
        tool, given = self._as_tool(declared, function, args, kwargs)
        with _raising():
            return await tool.ainvoke(given)

    def _as_tool(
        self,
        declared: object,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> tuple[BaseTool, dict[str, Any]]:
        name = name_of(function)
        bound = self.point.bound_tools.declared_as(declared)
        if not bound:
            raise CallRefused(_NOT_BOUND.format(name, self._name))
        if len(bound) > 1:
            several = ", ".join(sorted(each.name for each in bound))
            raise CallRefused(_SEVERAL.format(name, self._name, several))
        tool = bound[0].binding.tool
        given = inspect.signature(function).bind_partial(*args, **kwargs).arguments
        for owner in owners_of(tool):
            of = given.pop(next(iter(given), ""), None)
            if of is not owner:
                raise CallRefused(_OTHER_OBJECT.format(name, self._name))
        return self._guarded(tool), dict(given)

    def take(self, invoker: ToolInvoker, invocation: Invocation) -> Invocation:
        """A call of the function, under its name."""
        agent = agent_for(self._agents, invoker.bound.binding.stage)
        obstacle = self._obstacle(invoker, invocation, agent)
        if obstacle is not None:
            call_id = self._calls.call_id
            return dataclasses.replace(invocation, call_id=call_id, found=obstacle, node=self)
        call_id, found = self._calls.name(invoker, invocation, agent)
        return dataclasses.replace(invocation, call_id=call_id, found=found, node=self)

    def _obstacle(
        self, invoker: ToolInvoker, invocation: Invocation, agent: str | None
    ) -> Obstacle | None:
        """Why a call can't be one of this node's, whatever it says."""
        name, given = invoker.tool.name, invocation.given_id
        if self.left:
            kind, why = ObstacleKind.NOT_AUTHORIZED, LEFT_BEHIND
        elif invoker.agents is not None and invoker.agent != agent:
            why = _OTHER_AGENT.format(name, invoker.agent, self._name, agent)
            kind = ObstacleKind.NOT_AUTHORIZED
        elif given is not None and not _is_text(given):
            kind, why = ObstacleKind.CALL_ID, "its call id is no readable id"
        elif written := self._calls.written_by_model(name, invocation.injected):
            kind, why = ObstacleKind.ARGUMENTS, _WRITTEN.format(name, ", ".join(written))
        else:
            return None
        return Obstacle(kind=kind, sentence=why)

    def authorize(self, invocation: Invocation, found: CallOrObstacle) -> None:
        """Decide on a call, and ask about all calls of its message at once.

        A function that catches the question and tries the same call again, as `with_retry` does,
        asks nothing new.

        Raises:
            GraphInterrupt: people are asked.
        """
        asks = type(found) is not Obstacle
        if asks and self._question is not None and place(invocation) in self._asked:
            raise self._question
        calls = self._calls.of_message
        own = next((number for number, other in enumerate(calls) if other is found), None)
        with self._keeping_question(invocation):
            if own is None:
                authorize_message(self.point, [found], 0, one_task=True, woken=self._woken)
            else:
                authorize_message(self.point, calls, own, one_task=True, woken=self._woken)

    def ask(self, invocation: Invocation, question: PendingQuestion) -> NoReturn:
        """Ask about a call once more, which its claim found.

        Raises:
            GraphInterrupt: people are asked.
        """
        with self._keeping_question(invocation):
            pause_for(self.point, [question])

    @contextlib.contextmanager
    def _keeping_question(self, invocation: Invocation) -> Iterator[None]:
        """Keep what people are asked, for the function may catch it; the first one counts."""
        try:
            yield
        except GraphInterrupt as question:
            with self._lock:
                if not self.ended:
                    self._asked.add(place(invocation))
                    self._question = self._question or question
            if self.ended:
                self.give_up()
            raise

    def give_up(self) -> None:
        """Withdraw what waits of this task: it ended, and a call that it left at work came late."""
        self._calls.withdraw_all()


def _is_text(given: object) -> bool:
    return isinstance(given, str) and not any("\ud800" <= letter <= "\udfff" for letter in given)


def node_run_of(invoker: ToolInvoker, invocation: Invocation) -> NodeRun | None:
    """The function node that makes a call by hand; None: it comes from elsewhere."""
    node = invocation.config.get("configurable", {}).get(_NODE_KEY)
    if type(node) is not NodeRun or node.point is not invoker.point:
        return None
    return node if _is_at(node, invocation.config) else None


def _is_at(node: NodeRun, config: RunnableConfig) -> bool:
    """Whether it is a node's own code that runs: a graph or tool inside has a gate of its own."""
    if node.process != os.getpid() or current_execution.get() is not node.execution:
        return False
    return node.task == _upstream.task_of(config)


@contextlib.contextmanager
def _raising() -> Iterator[None]:
    token = raising.set(True)
    try:
        yield
    finally:
        raising.reset(token)


def under_given_id(result: Any, invocation: Invocation) -> Any:
    """What the function gets back: content for arguments, a ToolMessage for a tool call.

    Raises:
        CallRefused: a function was called in the tool's place, and it was refused or failed.
    """
    if invocation.raises and isinstance(result, ToolMessage) and result.status == "error":
        raise CallRefused(str(result.content))
    made, given = invocation.call_id, invocation.given_id
    if invocation.node is None or made == given:
        return result
    if isinstance(result, ToolMessage):
        return result.content if given is None else _renamed(result, made, given)
    if isinstance(result, list):
        return [_renamed(item, made, given) for item in result]
    if isinstance(result, Command) and isinstance(result.update, Mapping):
        messages = [_renamed(one, made, given) for one in result.update.get(MESSAGES, ())]
        update = {**result.update, **({MESSAGES: messages} if messages else {})}
        return dataclasses.replace(result, update=update)
    return result


def _renamed(message: Any, made: str | None, given: str | None) -> Any:
    if isinstance(message, ToolMessage) and message.tool_call_id == made and given is not None:
        return message.model_copy(update={"tool_call_id": given})
    return message
