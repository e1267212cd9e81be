"""The calls that one run of a function node makes by hand, and their names.

A call that stands in the newest message of the node's input, unanswered, goes by that message's id
and its own: exactly as a ToolNode would name it. All such calls are decided on with the first of
them, so that the node asks once. Any other call goes by its task, so that a node that runs again
after a question finds what it did; one that says something else then, while what it did is not
called again, has changed its mind, and people are asked about what is new.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig

from agentguard.calls.arguments import CallArguments
from agentguard.calls.call import Call, call_id_digest, call_key
from agentguard.calls.enforcement_point import EnforcementPoint
from agentguard.calls.refused import Refused
from agentguard.canonical import digest
from agentguard.errors import JobError, LedgerError
from agentguard.langgraph import upstream as _upstream
from agentguard.langgraph.agent_mapping import Agents, agent_for
from agentguard.langgraph.invocation import Invocation, ToolInvoker
from agentguard.langgraph.own_messages import MESSAGES
from agentguard.langgraph.runtime import CallContext, CallOrObstacle, thread_of
from agentguard.ledger.queries.requests import calls_of_thread, requests_of_call
from agentguard.ledger.rows.calls import CallRow
from agentguard.model import GrantState

_log = logging.getLogger(__name__)

_CHANGED_ITS_MIND = (
    "the node %s changed its mind: before it was interrupted it did something that it does not do"
    " again now, and its call of %s is new, so people are asked. What it did stays done. Let the"
    " node make the same calls each time it runs: ask a model in a node before it"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnansweredCalls:
    """The newest message with calls in a node's input, and those that nobody answered yet."""

    id: str | None
    calls: tuple[Mapping[str, Any], ...]


class NodeCalls:
    """The calls of one run of a function node.

    Args:
        name: of the node, for the log.
        agents: who it acts as.
        config: of the run.
        message: what the node was handed.
    """

    def __init__(
        self,
        point: EnforcementPoint,
        *,
        name: str,
        agents: Agents,
        config: RunnableConfig,
        message: UnansweredCalls | None,
    ) -> None:
        self._point = point
        self._name = name
        self._agents = agents
        self._config = config
        self._message = message
        self._state = _upstream.state_of(config) or {}
        handed = message.calls if message is not None else ()
        in_state = (call for messages in self._state.values() for call in _at_hand(messages))
        self._written = _copied([*handed, *in_state])
        self._task = _upstream.task_of(config)
        self._thread = thread_of(config)
        self.call_id = f"by-hand-{self._task}"
        """The id of every call that no message holds."""
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, CallOrObstacle]] | None = None
        self._used: set[str] = set()
        self._count: Counter[tuple[str, str | None]] = Counter()
        self._made: set[str] = set()
        """The sources of the calls that no message holds, see `call_key`."""
        self._elsewhere: Sequence[CallRow] | None = None

    def name(
        self, invoker: ToolInvoker, invocation: Invocation, agent: str | None
    ) -> tuple[str, CallOrObstacle]:
        """The id of a call that the function makes now, and the call."""
        content = _content(invocation.arguments)
        with self._lock:
            known = self._calls_of_message(invocation.config)
            call_id = self._matching(known, content, invocation.given_id)
            if call_id is None:
                return self.call_id, self._call_of_task(invoker, invocation, content, agent)
            if not self._used:
                self._mark_changed(known)
            self._used.add(call_id)
            return call_id, known[call_id][1]

    @property
    def of_message(self) -> Sequence[CallOrObstacle]:
        """The calls of the message, once the function made its first call."""
        return [found for _, found in (self._known or {}).values()]

    @property
    def left_out(self) -> Sequence[CallOrObstacle]:
        """Those of them that the function did not make."""
        known = (self._known or {}).items()
        return [found for call_id, (_, found) in known if call_id not in self._used]

    def written_by_model(self, name: str, injected: Mapping[str, Any]) -> list[str]:
        """Which of the arguments that nobody decides on hold what the model wrote (I3, I7).

        No ToolNode stands before the tool to strip them, and the function may hand in its own. A
        call by a name that no tool has may be one of this tool's, by the function's own table.
        """
        written = [
            call["args"]
            for call in self._written
            if call["name"] == name or call["name"] not in self._point.bound
        ]
        return sorted(
            argument
            for argument, value in injected.items()
            if any(argument in args and _is_equal(args[argument], value) for args in written)
        )

    def withdraw_all(self) -> None:
        """Withdraw what waits of this task."""
        with self._lock:
            self._made.clear()
        self.withdraw_left()

    def withdraw_left(self) -> None:
        """Withdraw what waits of calls that an earlier run of this task made, and this one not."""
        try:
            job = self._point.jobs.find(self._config.get("configurable", {}))
            rows = self._rows(job.id, self.call_id)
            left = [row.digest for row in rows if _waits(row) and not self._was_made(row)]
            if left:
                self._point.ledger.withdraw(left)
        except (JobError, LedgerError):
            return  # then it expires

    def _context(self, config: RunnableConfig, source: str | None) -> CallContext:
        messages = self._state.get(MESSAGES) or ()
        return CallContext.from_config(self._point, config, source=source, messages=messages)

    def _calls_of_message(self, config: RunnableConfig) -> dict[str, tuple[str, CallOrObstacle]]:
        """The calls of the message by their ids, with the digest of what each says."""
        if self._known is not None:
            return self._known
        self._known = {}
        if self._message is None:
            return self._known
        context = self._context(config, self._message.id)
        workspace = self._point.workspace
        for call in self._message.calls:
            bound = self._point.bound.get(call["name"])
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
        self, known: Mapping[str, tuple[str, CallOrObstacle]], content: str, given: str | None
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
    ) -> CallOrObstacle:
        """A call that no message holds, by the task that makes it."""
        alike = place(invocation)
        self._count[alike] += 1
        named = [self._task, invocation.given_id, content, self._count[alike]]
        source = digest("agentguard/call-by-hand/v1", named)
        context = self._context(invocation.config, source)
        found = context.call(invocation.arguments, agent=agent, call_id=self.call_id)
        if not (isinstance(found, Call) and invoker.media):
            return found
        self._made.add(source)
        try:
            rows = self._rows(found.job.id, self.call_id)
            changed = _is_new(found.key, rows) and self._left_something(found.job.id, rows)
        except LedgerError:
            changed = False  # whoever decides says so
        return self._changed(found) if changed else found

    def _mark_changed(self, known: dict[str, tuple[str, CallOrObstacle]]) -> None:
        """Have people asked about the message's calls, if this run made none of them before.

        It did something else by hand then, which it does not do again now.
        """
        calls = {
            call_id: found
            for call_id, (_, found) in known.items()
            if isinstance(found, Call) and not found.bound.binding.is_harmless
        }
        if not calls:
            return
        (job,) = {found.job.id for found in calls.values()}  # they are of one run
        try:
            if self._made_all(job, self._rows(job, self.call_id)):
                return
            new = [
                call_id
                for call_id, found in calls.items()
                if _is_unasked(found.key, self._rows(job, call_id))
            ]
        except LedgerError:
            return  # whoever decides says so
        for call_id in new:
            changed = self._changed(calls[call_id])
            known[call_id] = known[call_id][0], replace(changed, as_written=calls[call_id])

    def _changed(self, call: Call) -> Call:
        _log.warning(_CHANGED_ITS_MIND, self._name, call.bound.name)
        return replace(call, changed_mind=True)

    def _left_something(self, job: str, by_hand: Sequence[CallRow]) -> bool:
        """Whether one of the calls that an earlier run of this task began was not made again.

        Of several tasks that were sent the same message, each makes some of its calls.

        Args:
            by_hand: what was decided in this job on the calls of this task that no message holds.
        """
        if not self._made_all(job, by_hand):
            return True
        if _upstream.sent_as(self._config) is not None:
            return False
        return any(
            found.is_of_thread(row)
            for found in self.left_out
            if isinstance(found, Call)
            for rows in (self._rows(job, found.call_id), self._elsewhere_of(job, found.call_id))
            for row in _begun(rows)
        )

    def _made_all(self, job: str, by_hand: Sequence[CallRow]) -> bool:
        """Whether this run made every call again that no message holds and that was begun."""
        if self._elsewhere is None:  # its thread may have gone on from another job
            self._elsewhere = self._elsewhere_of(job, self.call_id)
        return all(map(self._was_made, _begun([*by_hand, *self._elsewhere])))

    def _was_made(self, row: CallRow) -> bool:
        """Whether a call that no message holds was made in this run, whichever job it is of."""
        return row.call_key in {
            call_key(job=row.job, thread=self._thread, source=source, call_id=self.call_id)
            for source in self._made
        }

    def _rows(self, job: str, call_id: str) -> Sequence[CallRow]:
        """What was decided under the id of a call of this thread in a job."""
        query = requests_of_call(job, self._thread, call_id_digest(call_id))
        return self._point.ledger.rows(query)

    def _elsewhere_of(self, job: str, call_id: str) -> Sequence[CallRow]:
        """The same in every other job."""
        rows = self._point.ledger.rows(calls_of_thread(self._thread, call_id_digest(call_id)))
        return [row for row in rows if row.job != job]


def place(invocation: Invocation) -> tuple[str, str | None]:
    """What a call says, and the id that it was given: alike for equal calls of a node."""
    return _content(invocation.arguments), invocation.given_id


def _at_hand(messages: Any) -> Iterator[Mapping[str, Any]]:
    """The calls of the newest message that has some, and those of others that nobody answered.

    Several models may have written side by side, and a `Send` may hand on a call without a message.
    """
    read: Sequence[Any] = messages if isinstance(messages, (list, tuple)) else ()
    answered: set[str] = set()
    newest = True
    for message in reversed(read):
        if isinstance(message, ToolMessage):
            answered.add(message.tool_call_id)
        if isinstance(message, AIMessage) and message.tool_calls:
            calls = cast(Sequence[Mapping[str, Any]], message.tool_calls)
            yield from (call for call in calls if newest or call["id"] not in answered)
            newest = False


def _copied(calls: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Calls as the model wrote them: the function may write values of its own into them."""
    return [{**call, "args": dict(call["args"])} for call in calls]


def _is_equal(written: Any, given: Any) -> bool:
    """Whether a value is what the model wrote; one with an equality of its own is none."""
    if written is given:
        return True
    return type(written) is type(given) and bool(written == given)


def _was_begun(row: CallRow) -> bool:
    """Whether a call may have had its effect."""
    states = (GrantState.CLAIMED, GrantState.EXECUTED, GrantState.UNKNOWN)
    return row.grant is not None and row.grant.state in states


def _begun(rows: Sequence[CallRow]) -> list[CallRow]:
    return [row for row in rows if _was_begun(row)]


def _is_new(key: str | None, rows: Sequence[CallRow]) -> bool:
    """Whether a call was neither begun, nor waits."""
    return not any(_was_begun(row) or _waits(row) for row in rows if row.call_key == key)


def _is_unasked(key: str | None, rows: Sequence[CallRow]) -> bool:
    """Whether a call was not begun, and nobody was asked; it may have been permitted ahead."""
    of_call = [row for row in rows if row.call_key == key]
    return not any(_was_begun(row) or row.approval is not None for row in of_call)


def _waits(row: CallRow) -> bool:
    """Whether a call waits for people, or for its claim."""
    if row.grant is not None:
        return row.grant.state == GrantState.ISSUED
    return row.approval is not None and row.approval.state.is_open


def _content(arguments: CallArguments) -> str:
    """The digest of what a call says; empty where its arguments can't be read."""
    try:
        return arguments.source
    except Refused:
        return ""
