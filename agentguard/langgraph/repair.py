"""A conversation made sound before a model reads it (I6).

What a client sends is no authority: a ToolMessage about a guarded call says what the ledger knows,
or it is replaced. And each guarded call has exactly one answer, directly behind its message, as
providers want it, though LangGraph drops every result of a superstep when a person writes while
one of its calls waits. Media in the messages is taken in on the way.

A call without an answer may also be at work right now, or about to be. So it is answered, and its
question withdrawn, only where nothing can go on with it; see `Moment`.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Literal

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    convert_to_messages,
)
from langchain_core.runnables import RunnableConfig

from agentguard.calls.enforcement_point import EnforcementPoint
from agentguard.calls.execution import current_execution
from agentguard.calls.known_results import (
    NO_RECORD,
    CallName,
    KnownResult,
    are_known,
    known_results,
)
from agentguard.errors import JobError, LedgerError
from agentguard.jobs.job import Job
from agentguard.langgraph import upstream as _upstream
from agentguard.langgraph.message_media import take_in_client_media
from agentguard.langgraph.refusal_marks import is_marked
from agentguard.langgraph.runtime import thread_of

_REMEMBERED = 10_000
_NO_ANSWER = "the conversation went on before this call was answered"
_UNAVAILABLE = "the ledger is unavailable, so what came of this call can't be known now"


Moment = Literal["start", "model", "node"]
"""When a conversation is repaired, which says what calls of it are over.

`start`: a run begins, so that every task of an earlier one is gone. All calls are over but those of
the very last message: a graph may begin with its tools. `model`: an agent's model is about to read
it; its tools are done. All calls are over. `node`: any node is about to read it, and others run
beside it. Calls are over that a person's message stands behind. In a graph that runs inside another
one, whose tasks are at work, it is `node` always.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """A conversation after its repair.

    Args:
        messages: all of it.
        updates: declared state that replayed outcomes write, which was dropped with them.
        lasts: it may be written into the state; not where the ledger could not be read.
    """

    messages: list[BaseMessage]
    updates: Mapping[str, Any]
    lasts: bool


class Repair:
    """Repairs the conversations of one guard's graphs and agents."""

    def __init__(self, point: EnforcementPoint) -> None:
        self._point = point
        self._executed: dict[tuple[Any, ...], KnownResult] = {}

    def repaired(
        self, messages: Sequence[Any], config: RunnableConfig, *, moment: Moment
    ) -> Repaired | None:
        """The conversation as a model may read it; None if it is sound as it is.

        What waits of calls that nothing can go on with is withdrawn in the ledger.

        Args:
            messages: in any form that LangChain takes; what is in none of them is left.
            moment: when.
        """
        place = self._place(config)
        conversation = _Conversation(messages)
        conversation.take_in(self._point, place.job)
        if _upstream.is_nested(place.configurable):
            moment = "node"
        calls = _calls_in(conversation.read, self._point, moment=moment, thread=place.thread)
        updates: dict[str, Any] = {}
        lasts = True
        if calls.named or calls.orphans:
            try:
                known = self._known(calls, place)
                about_guarded = self._about_guarded(conversation.read, calls.orphans, place)
                updates = conversation.answer(calls, known, self._is_refusal(place))
            except LedgerError:
                lasts, about_guarded = False, frozenset()
                conversation.answer(calls, None, self._is_refusal(place))
            conversation.leave_out(about_guarded)
        changed = conversation.changed()
        if changed is None:
            return None
        return Repaired(messages=changed, updates=updates, lasts=lasts)

    def withdraw_gone(
        self, before: Sequence[Any], now: Sequence[Any], config: RunnableConfig
    ) -> None:
        """Withdraw what waits of calls that a client's input took out of the conversation.

        Args:
            before: the messages of the state that the input came to.
            now: with the input.
        """
        place = self._place(config)
        kept = {id(message) for message in now}
        if _upstream.is_nested(place.configurable) or all(id(one) in kept for one in before):
            return
        there, was = (
            _calls_in(_Conversation(some).read, self._point, moment="model", thread=place.thread)
            for some in (now, before)
        )
        left = {(call.name.source, call.name.call_id) for call in there.named}
        gone = _Calls(
            named=[c for c in was.named if (c.name.source, c.name.call_id) not in left], orphans=[]
        )
        if gone.named:
            with contextlib.suppress(LedgerError):  # then they expire
                self._known(gone, place)

    def _place(self, config: RunnableConfig) -> _Place:
        configurable = config.get("configurable", {})
        job: Job | None = None
        with contextlib.suppress(JobError):
            job = self._point.jobs.find(configurable)
        return _Place(configurable=configurable, job=job, thread=thread_of(config))

    def _known(self, calls: _Calls, place: _Place) -> list[KnownResult | None]:
        """What the ledger knows of each call.

        That a call was carried out stays true, and is read once: a long conversation would cost
        each of its calls more than a tenth.
        """
        job = None if place.job is None else place.job.id
        names = [call.name for call in calls.named]
        keys = [
            (job, place.thread, name.source, name.call_id, name.bound, repr(name.arguments))
            for name in names
        ]
        results = [self._executed.get(key) for key in keys]
        asked = [index for index, result in enumerate(results) if result is None]
        found = known_results(
            self._point.ledger,
            [names[index] for index in asked],
            thread=place.thread,
            job=job,
        )
        if len(self._executed) > _REMEMBERED:
            self._executed.clear()
        for index, result in zip(asked, found, strict=True):
            results[index] = result
            if result is not None and result.done and result.status == "success":
                self._executed[keys[index]] = result
        return results

    def _about_guarded(
        self, read: Sequence[BaseMessage | None], orphans: Sequence[int], place: _Place
    ) -> frozenset[int]:
        """Of the answers to no call, those about a guarded one: no provider takes them."""
        if not orphans:
            return frozenset()
        messages = {i: m for i in orphans if isinstance(m := read[i], ToolMessage)}
        job = None if place.job is None else place.job.id
        ids = [message.tool_call_id for message in messages.values()]
        known = are_known(self._point.ledger, ids, thread=place.thread, job=job)
        return frozenset(
            i for i, m in messages.items() if m.tool_call_id in known or m.name in self._point.bound
        )

    def _is_refusal(self, place: _Place) -> Callable[[ToolMessage], bool]:
        key = self._point.message_key
        return lambda message: is_marked(message, key=key, thread=place.thread)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a run is: its config, its job if it has one, its thread."""

    configurable: Mapping[str, Any]
    job: Job | None
    thread: str


@dataclass(slots=True, kw_only=True)
class _HistoryCall:
    """One call of a conversation.

    Args:
        message: the index of its message.
        tool: the name of the tool that it calls.
        answers: the indices of the ToolMessages about it.
    """

    message: int
    name: CallName
    tool: str
    answers: list[int] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class _Calls:
    """The calls of a conversation, and the indices of ToolMessages about none before them."""

    named: list[_HistoryCall]
    orphans: list[int]


def _calls_in(
    read: Sequence[BaseMessage | None], point: EnforcementPoint, *, moment: Moment, thread: str
) -> _Calls:
    """Every call of a conversation with the ToolMessages behind it that bear its id."""
    calls = _Calls(named=[], orphans=[])
    newest: dict[str, _HistoryCall] = {}
    last_of_person = len(read) - 1
    while last_of_person >= 0 and not _is_of_person(read[last_of_person]):
        last_of_person -= 1
    for index, message in enumerate(read):
        if isinstance(message, ToolMessage):
            call = newest.get(message.tool_call_id)
            if call is None:
                calls.orphans.append(index)
            else:
                call.answers.append(index)
        if not isinstance(message, AIMessage) or not message.tool_calls:
            continue
        over = moment == "model" or (moment == "start" and index < len(read) - 1)
        over = over or (last_of_person > index and not _is_at_work(message, thread))
        for made in message.tool_calls:
            call_id, bound = made["id"], point.bound.get(made["name"])
            earlier = newest.get(call_id or "")
            if not call_id or (earlier is not None and earlier.message == index):
                continue  # the gate refuses both
            arguments = {
                name: value
                for name, value in made["args"].items()
                if bound is None or name not in bound.injected
            }
            name = CallName(
                source=message.id, call_id=call_id, bound=bound, arguments=arguments, over=over
            )
            newest[call_id] = _HistoryCall(message=index, name=name, tool=made["name"])
            calls.named.append(newest[call_id])
    return calls


def _is_of_person(message: BaseMessage | None) -> bool:
    own = (AIMessage, ToolMessage, SystemMessage, RemoveMessage)
    return message is not None and not isinstance(message, own)


def _is_at_work(message: AIMessage, thread: str) -> bool:
    """Whether this runs inside a tool that the message calls, so that its siblings may run, too."""
    execution = current_execution.get()
    if execution is None or execution.claimed.call.thread != thread:
        return False
    return any(call["id"] == execution.claimed.call.call_id for call in message.tool_calls)


class _Conversation:
    """Messages while they are repaired.

    Args:
        given: in any form.
    """

    def __init__(self, given: Sequence[Any]) -> None:
        self._given = list(given)
        self.read = [_as_message(message) for message in self._given]
        self._as_read = list(self.read)
        self._moved: set[int] = set()
        self._behind: dict[int, list[BaseMessage]] = {}

    def take_in(self, point: EnforcementPoint, job: Job | None) -> None:
        """Replace media by the ids of assets."""
        places = [i for i, message in enumerate(self.read) if message is not None]
        messages = [message for message in self.read if message is not None]
        for place, message in zip(places, take_in_client_media(point, job, messages), strict=True):
            self.read[place] = message

    def leave_out(self, places: Set[int]) -> None:
        self._moved |= places

    def answer(
        self,
        calls: _Calls,
        known: Sequence[KnownResult | None] | None,
        is_refusal: Callable[[ToolMessage], bool],
    ) -> dict[str, Any]:
        """Give each call of a message with guarded ones its one answer, directly behind it.

        Args:
            known: what the ledger knows of each call; None if it can't be read.
            is_refusal: whether the guard refused a call in a message's words.

        Returns:
            The declared state that comes back with dropped outcomes.
        """
        updates: dict[str, Any] = {}
        by_message: dict[int, list[tuple[_HistoryCall, KnownResult | None]]] = {}
        for call, result in zip(calls.named, known or [None] * len(calls.named), strict=True):
            by_message.setdefault(call.message, []).append((call, result))
        for index, group in by_message.items():
            if all(call.name.bound is None and result is None for call, result in group):
                continue  # no guarded call among them
            wanted: list[BaseMessage] = []
            answers: set[int] = set()
            for call, result in group:
                there = [m for i in call.answers if isinstance(m := self.read[i], ToolMessage)]
                if known is None:
                    message = _unverified(call, there, is_refusal)
                else:
                    message = _answered(call, result, there, is_refusal)
                if message is not None:
                    wanted.append(message)
                if result is not None and not there and message is not None:
                    updates.update(result.updates)
                answers |= set(call.answers)
            if not self._stand_behind(index, wanted, answers):
                self._moved |= answers
                self._behind[index] = wanted
        return updates

    def changed(self) -> list[Any] | None:
        """The whole conversation; None if nothing changed."""
        same = all(a is b for a, b in zip(self.read, self._as_read, strict=True))
        if same and not self._moved and not self._behind:
            return None
        unchanged = {  # it stays in the form that it came in
            id(message): given
            for message, before, given in zip(self.read, self._as_read, self._given, strict=True)
            if message is before
        }
        whole: list[Any] = []
        for index, message in enumerate(self.read):
            if index not in self._moved:
                whole.append(unchanged.get(id(message), message))
            for answer in self._behind.get(index, ()):
                whole.append(unchanged.get(id(answer), answer))
        return whole

    def _stand_behind(self, index: int, wanted: Sequence[BaseMessage], answers: set[int]) -> bool:
        """Whether exactly these messages stand right behind a message, in whatever order."""
        there: set[int] = set()
        place = index + 1
        while place < len(self.read) and isinstance(self.read[place], ToolMessage):
            there.add(place)
            place += 1
        if not answers <= there or len(wanted) != len(answers):
            return False
        return {id(self.read[i]) for i in answers} == {id(message) for message in wanted}


def _answered(
    call: _HistoryCall,
    known: KnownResult | None,
    there: Sequence[ToolMessage],
    is_refusal: Callable[[ToolMessage], bool],
) -> ToolMessage | None:
    """The one answer of a call; None if it has none yet, and may get one."""
    if known is None:
        if there:  # the ledger never saw it: whoever wrote that, it is no guarded call's result
            return _under_its_name(call, there[0] if call.name.bound is not None else there[-1])
        if not call.name.over:
            return None
        text = NO_RECORD if call.name.bound is not None else _NO_ANSWER
        return _message(call, text, status="error")
    if not there:
        if not call.name.over:
            return None
        return _message(call, _of_another(call, known, known.text), status=known.status)
    if known.tool == call.tool:
        # What was carried out may say of itself that it went wrong.
        status = None if known.done and known.status == "success" else known.status
        for words in (known.text, known.instead):
            for message in there:
                if message.content == words and status in (None, message.status):
                    return _under_its_name(call, message)
        for message in there:
            if known.status == "error" and is_refusal(message):
                return _under_its_name(call, message)
        if len(there) == 1 and known.status == there[0].status == "success":
            return _under_its_name(call, there[0])  # it may have been shortened or redacted since
    # A message that claims the same may be a redacted one: it is not undone, and not believed.
    claims_it = any(message.status == known.status for message in there) and len(there) == 1
    text = _of_another(call, known, known.instead if claims_it else known.text)
    for message in there:
        if message.content == text and message.status == known.status:
            return message
    return _message(call, text, status=known.status, id=there[0].id)


def _unverified(
    call: _HistoryCall,
    there: Sequence[ToolMessage],
    is_refusal: Callable[[ToolMessage], bool],
) -> ToolMessage | None:
    """The answer of a call while the ledger can't be read: nothing is claimed."""
    if call.name.bound is None:
        return there[-1] if there else None
    for message in there:
        if is_refusal(message):
            return message
    if not there and not call.name.over:
        return None
    return _message(call, _UNAVAILABLE, status="error", id=there[0].id if there else None)


def _of_another(call: _HistoryCall, known: KnownResult, text: str) -> str:
    if known.tool == call.tool:
        return text
    return f"this call was decided on as a call of {known.tool}: {text}"


def _under_its_name(call: _HistoryCall, message: ToolMessage) -> ToolMessage:
    if message.name in (None, call.tool):
        return message
    return message.model_copy(update={"name": call.tool})


def _message(
    call: _HistoryCall,
    text: str,
    *,
    status: Literal["success", "error"],
    id: str | None = None,
) -> ToolMessage:
    return ToolMessage(
        content=text,
        tool_call_id=call.name.call_id,
        name=call.tool,
        status=status,
        id=id or str(uuid.uuid4()),
    )


def _as_message(message: Any) -> BaseMessage | None:
    """A message from any form that LangChain takes; None from another."""
    if isinstance(message, BaseMessage):
        return message
    try:
        (read,) = convert_to_messages([message])
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError):
        return None
    return read
