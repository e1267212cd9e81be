"""The calls of guarded tools that a function node makes by hand, and their names.

A function that was declared with `media_tool`, and is called as Python calls functions, is a
guarded tool that is called with its arguments.

A call that stands in the newest message of the node's input, unanswered, goes by that message's id
and its own: exactly as a ToolNode would name it. All such calls are decided on with the first of
them, so that the node asks once. Any other call goes by its task, so that a node that runs again
after a question finds what it did; one that says something else then, while what it did is not
called again, has changed its mind, and people are asked about what is new.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast, final

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tools import BaseTool
from langgraph.errors import GraphInterrupt
from langgraph.types import Command

from agentguard.bindings.declaration import name_of, owners_of
from agentguard.bindings.running import under
from agentguard.calls.arguments import CallArguments
from agentguard.calls.call import Call, call_id_digest, call_key
from agentguard.calls.execution import current_execution
from agentguard.calls.questions import PendingQuestion
from agentguard.calls.refusals import in_a_line
from agentguard.calls.refused import Refused
from agentguard.calls.services import EnforcementPoint
from agentguard.canonical import digest
from agentguard.errors import CallRefused, JobError, LedgerError
from agentguard.langgraph import upstream as _upstream
from agentguard.langgraph.agent_mapping import Agents, agent_for
from agentguard.langgraph.invocation import LEFT_BEHIND, Invocation, ToolInvoker, raising
from agentguard.langgraph.own_messages import MESSAGES
from agentguard.langgraph.runtime import CallContext, Found, thread_of
from agentguard.langgraph.waiting import authorize_message, open_questions, pause_for
from agentguard.ledger.queries.requests import requests_of_call
from agentguard.ledger.rows import CallRow
from agentguard.model import ApprovalState, GrantState, Obstacle, ObstacleKind

_log = logging.getLogger(__name__)

_NODE_KEY = "__agentguard_node"

_CHANGED_ITS_MIND = (
    "the node %s changed its mind: before it was interrupted it did something that it does not do"
    " again now, and its call of %s is new, so people are asked. What it did stays done. Let the"
    " node make the same calls each time it runs: ask a model in a node before it"
)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class UnansweredCalls:
    """The newest message with calls in a node's input, and those that nobody answered yet."""

    id: str | None
    calls: tuple[Mapping[str, Any], ...]


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
        self._message = message
        self._state = _upstream.state_of(config) or {}
        self._written = _copied([*(message.calls if message is not None else ()),
                                 *_newest(self._state.get(MESSAGES))])  # fmt: skip
        self._config = config
        self._call_id = f"by-hand-{self.task}"
        self._woken = _upstream.take_wake(config)
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, Found]] | None = None
        self._used: set[str] = set()
        self._count: Counter[tuple[str, str | None]] = Counter()
        self._made: set[str] = set()
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
        self._withdraw_left()

    def _tell_of_unmade(self) -> None:
        """Log the calls of the message that people are asked about, and that the function left out.

        Another node may make them, so their questions stay.
        """
        if self._known is None or _upstream.sent_as(self._config) is not None:
            return
        left = [call_id for call_id in self._known if call_id not in self._used]
        for call_id in left:
            if open_questions(self.point, [self._known[call_id][1]]):
                _log.warning(
                    "the node %s returned and did not make the call %s of its message, about which"
                    " people are asked: unless another node makes it, an answer changes nothing",
                    self._name,
                    in_a_line(call_id),
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
            return dataclasses.replace(invocation, call_id=self._call_id, found=obstacle, node=self)
        content = _content(invocation.arguments)
        with self._lock:
            known = self._calls_of_message(invocation.config)
            call_id = self._matching(known, content, invocation.given_id)
            if call_id is not None:
                self._used.add(call_id)
                found = known[call_id][1]
            else:
                call_id = self._call_id
                found = self._call_of_task(invoker, invocation, content, agent)
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
        elif written := self._written_by_model(name, invocation.injected):
            kind, why = ObstacleKind.ARGUMENTS, _WRITTEN.format(name, ", ".join(written))
        else:
            return None
        return Obstacle(kind=kind, sentence=why)

    def _written_by_model(self, name: str, injected: Mapping[str, Any]) -> list[str]:
        """Which of the arguments that nobody decides on hold what the model wrote (I3, I7).

        No ToolNode stands before the tool to strip them, and the function may hand in its own.
        """
        written = [call["args"] for call in self._written if call["name"] == name]
        return sorted(
            argument
            for argument, value in injected.items()
            if any(argument in args and _is_equal(args[argument], value) for args in written)
        )

    def authorize(self, invocation: Invocation, found: Found) -> None:
        """Decide on a call, and ask about all calls of its message at once.

        A function that catches the question and tries the same call again, as `with_retry` does,
        asks nothing new.

        Raises:
            GraphInterrupt: people are asked.
        """
        asks = type(found) is not Obstacle
        if asks and self._question is not None and _place(invocation) in self._asked:
            raise self._question
        calls = [other for _, other in (self._known or {}).values()]
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
                    self._asked.add(_place(invocation))
                    self._question = self._question or question
            if self.ended:
                self.give_up()
            raise

    def give_up(self) -> None:
        """Withdraw what waits of this task: it ended, and a call that it left at work came late."""
        with self._lock:
            self._made.clear()
        self._withdraw_left()

    def _withdraw_left(self) -> None:
        """Withdraw what waits of calls that an earlier run of this task made, and this one not."""
        try:
            job = self.point.jobs.find(self._config.get("configurable", {}))
            name = call_id_digest(self._call_id)
            rows = self.point.ledger.rows(requests_of_call(job.id, thread_of(self._config), name))
            left = [row.digest for row in rows if _waits(row) and row.call_key not in self._made]
            if left:
                self.point.ledger.withdraw(left)
        except (JobError, LedgerError):
            return  # then it expires

    def _context(self, config: RunnableConfig, source: str | None) -> CallContext:
        messages = self._state.get(MESSAGES) or ()
        return CallContext.from_config(self.point, config, source=source, messages=messages)

    def _calls_of_message(self, config: RunnableConfig) -> dict[str, tuple[str, Found]]:
        """The calls of the message by their ids, with the digest of what each says."""
        if self._known is not None:
            return self._known
        self._known = {}
        if self._message is None:
            return self._known
        context = self._context(config, self._message.id)
        workspace = self.point.workspace
        for call in self._message.calls:
            bound = self.point.bound.get(call["name"])
            if bound is None:
                continue
            stage = bound.binding.stage
            agent = agent_for(self._agents, stage)
            known = workspace.agents.get(agent or "")
            if stage is not None and (known is None or stage not in known.stages):
                continue  # another node's, or refused where it is called
            given = {n: v for n, v in call["args"].items() if n not in bound.injected}
            arguments = CallArguments(bound, given)
            found = context.call(arguments, agent=agent, call_id=call["id"])
            self._known.setdefault(call["id"], (_content(arguments), found))
        return self._known

    def _matching(
        self, known: Mapping[str, tuple[str, Found]], content: str, given: str | None
    ) -> str | None:
        """The id of the call of the message that this one is; None: of none."""
        if not content:
            return None
        if given is not None:
            return given if given in known and known[given][0] == content else None
        same = (call_id for call_id, (says, _) in known.items() if says == content)
        return next((call_id for call_id in same if call_id not in self._used), None)

    def _call_of_task(
        self, invoker: ToolInvoker, invocation: Invocation, content: str, agent: str | None
    ) -> Found:
        """A call that no message holds, by the task that makes it."""
        place = _place(invocation)
        self._count[place] += 1
        named = [self.task, invocation.given_id, content, self._count[place]]
        source = digest("agentguard/call-by-hand/v1", named)
        context = self._context(invocation.config, source)
        found = context.call(invocation.arguments, agent=agent, call_id=self._call_id)
        if not (isinstance(found, Call) and invoker.media):
            return found
        key = call_key(job=found.job.id, thread=found.thread, source=source, call_id=found.call_id)
        try:
            changed = self._changed_its_mind(found, key)
        except LedgerError:
            changed = False  # whoever decides says so
        self._made.add(key)
        if changed:
            _log.warning(_CHANGED_ITS_MIND, self._name, invoker.tool.name)
            return dataclasses.replace(found, changed_mind=True)
        return found

    def _changed_its_mind(self, call: Call, key: str) -> bool:
        """Whether a call is new, and one that this task began was not made again."""
        rows = self.point.ledger.rows(requests_of_call(call.job.id, call.thread, call.id_digest))
        begun = {row.call_key for row in rows if _was_begun(row)}
        if not begun - self._made - {key}:
            return False
        return key not in begun | {row.call_key for row in rows if _waits(row)}


def _newest(messages: Any) -> Sequence[Mapping[str, Any]]:
    """The calls of the newest message that has some; a `Send` may hand on one without it."""
    read: Sequence[Any] = messages if isinstance(messages, (list, tuple)) else ()
    for message in reversed(read):
        if isinstance(message, AIMessage) and message.tool_calls:
            return cast(Sequence[Mapping[str, Any]], message.tool_calls)
    return ()


def _copied(calls: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Calls as the model wrote them: the function may write values of its own into them."""
    return [{**call, "args": dict(call["args"])} for call in calls]


def _is_equal(written: Any, given: Any) -> bool:
    """Whether a value is what the model wrote; one with an equality of its own is none."""
    if written is given:
        return True
    return type(written) is type(given) and bool(written == given)


def _is_text(given: object) -> bool:
    return isinstance(given, str) and not any("\ud800" <= letter <= "\udfff" for letter in given)


def _was_begun(row: CallRow) -> bool:
    """Whether a call may have had its effect."""
    states = (GrantState.CLAIMED, GrantState.EXECUTED, GrantState.UNKNOWN)
    return row.grant is not None and row.grant.state in states


def _waits(row: CallRow) -> bool:
    """Whether a call waits for people, or for its claim."""
    if row.grant is not None:
        return row.grant.state == GrantState.ISSUED
    open_states = (ApprovalState.PENDING, ApprovalState.APPROVED)
    return row.approval is not None and row.approval.state in open_states


def node_of(invoker: ToolInvoker, invocation: Invocation) -> NodeRun | None:
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


def _place(invocation: Invocation) -> tuple[str, str | None]:
    """What a call says, and the id that it was given: alike for equal calls of a node."""
    return _content(invocation.arguments), invocation.given_id


def _content(arguments: CallArguments) -> str:
    """The digest of what a call says; empty where its arguments can't be read."""
    try:
        return arguments.source
    except Refused:
        return ""
