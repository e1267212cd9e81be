"""Guarded tools: copies of plain tools that run only under a claimed Grant (I5).

A guarded tool is a copy whose class is a subclass of the tool's own class, with the arguments that
the model should see. `run`/`arun` note what was called; `_run`/`_arun` claim the Grant, run the
*original* tool on private copies, and take in what it made. Reached by any other way, without a
matching Grant, it answers with a refusal.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import json
import typing
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, ToolException
from langgraph.errors import GraphBubbleUp, ParentCommand
from langgraph.types import Command
from pydantic import ValidationError

from agentguard._shapes import jsonable
from agentguard.bindings import Bound
from agentguard.claims import Claim, Replay, claimed
from agentguard.errors import AssetError, DestinationError, LedgerUnavailable
from agentguard.gather import Call, Refused
from agentguard.guard import Guard
from agentguard.langgraph import _upstream
from agentguard.langgraph.gate import Agents, Gate, agent_for, authorize_inline, make_call
from agentguard.model import OutsideEffect
from agentguard.outputs import Collected, clean

_MESSAGES = "messages"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """What `run` was given, for `_run` of the same call."""

    seat: Seat
    arguments: Mapping[str, Any]
    injected: Mapping[str, Any]
    call_id: str | None
    configurable: Mapping[str, Any]


_incoming: ContextVar[Incoming | None] = ContextVar("agentguard_incoming", default=None)


class Seat:
    """One guarded tool's place: its guard, its binding, the original, and who may sit there.

    Args:
        agents: the agent that the enclosing ToolNode acts as, by stage if it shares a driver;
            None: whoever the recorded Request names.
        gate: `inline` authorizes in the tool itself, for the functional API.
    """

    def __init__(
        self, guard: Guard, tool: BaseTool, bound: Bound, *, agents: Agents | None, gate: Gate
    ) -> None:
        self.guard = guard
        self.tool = tool
        self.bound = bound
        self.agents = agents
        self.gate: Gate = gate
        binding = bound.binding
        # A tool without stage touches no media: its result passes as upstream would pass it.
        self.media = binding.stage is not None
        self._filled = _upstream.filled_by_run(tool)

    @property
    def agent(self) -> str | None:
        """The agent this seat's calls run as, None if any recorded one may."""
        return agent_for(self.agents, self.bound.binding.stage)

    def incoming(self, tool_input: Any, call_id: str | None, config: Any) -> Incoming:
        """Split a call's input into the model's arguments and injected ones."""
        if isinstance(tool_input, str):
            names = [*self.bound.args_names, "input"]
            tool_input = {names[0]: tool_input}
        injected = {n: tool_input[n] for n in self.bound.injected if n in tool_input}
        return Incoming(
            seat=self,
            arguments=self.model_arguments(tool_input),
            injected=injected,
            call_id=call_id,
            configurable=(config or {}).get("configurable", {}),
        )

    def model_arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the model gave, without what LangGraph injects."""
        return {name: value for name, value in given.items() if name not in self.bound.injected}

    def call(self, incoming: Incoming) -> Call:
        """The call to claim.

        Raises:
            Refused: it has no id, or belongs to no job of this process.
        """
        if incoming.call_id is None:
            raise Refused(
                f"{self.tool.name} was invoked without a tool call id; call it through a graph",
                policy="no-call-id",
            )
        return make_call(
            self.guard,
            self.bound,
            agent=self.agent,
            arguments=incoming.arguments,
            call_id=incoming.call_id,
            configurable=incoming.configurable,
            source=None,
        )

    def open(self, incoming: Incoming) -> Claim | Replay | str:
        """Claim the Grant of a call; a str is the refusal that the model reads."""
        call: Call | None = None
        try:
            call = self.call(incoming)
            return self.guard.execution.claim(call)
        except Refused as refusal:
            if call is not None:
                self.guard.gate.record_refusal(call, refusal)
            return refusal.reason
        except LedgerUnavailable:
            return "the ledger is unavailable, so nothing was done; try again later"

    def arguments(
        self, claim: Claim, incoming: Incoming, kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the original tool runs with: its own schema over the filled arguments."""
        given = {**claim.arguments, **incoming.injected}
        args, parsed = _upstream.to_arguments(self.tool, given, incoming.call_id)
        parsed.update(self._read_once(claim, incoming, parsed))
        passed = {k: v for k, v in kwargs.items() if k not in self.bound.args_names}
        passed = {k: v for k, v in passed.items() if k not in incoming.injected}
        filled = {k: kwargs[k] for k in self._filled if k in kwargs}
        return args, {**passed, **parsed, **filled}

    def _read_once(
        self, claim: Claim, incoming: Incoming, twice: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Arguments that the tool's schema changes each time it reads them, read only once.

        What was decided on is what the schema made of the model's words; over that it would quote
        a quoted text again. A value comes from here only if it is the one that was decided on.
        """
        filled = {path.split(".")[0].rstrip("[]") for path in self.bound.binding.assets}
        written = {
            name: value
            for name, value in incoming.arguments.items()
            if name in claim.arguments and name not in filled
        }
        changed = [
            name
            for name in written
            if name in twice and not _is_decided(twice[name], claim.arguments[name])
        ]
        if not changed:
            return {}
        given = {**claim.arguments, **written, **incoming.injected}
        try:
            _, once = _upstream.to_arguments(self.tool, given, incoming.call_id)
        except ValidationError:  # its bound schema reads more than its own: what was decided holds
            return {}
        return {
            name: once[name]
            for name in changed
            if name in once and _is_decided(once[name], claim.arguments[name])
        }

    def close(self, claim: Claim, result: Any) -> Any:
        """Take in a result and record it; returns what `BaseTool.run` makes a message of."""
        content = result
        if self.tool.response_format == "content_and_artifact" and isinstance(result, tuple):
            content = result[0] if result else None  # a Command in a pair routes as well (I2)
        try:
            if isinstance(content, Command) or _is_messages(content):
                return self._close_command(claim, content)
            collected = self.guard.execution.collect(claim, result)
        except AssetError as error:
            return self.fail(claim, str(error))
        try:
            self.guard.execution.executed(claim, collected)
        except LedgerUnavailable:
            return self._unrecorded(claim)
        if not self.media:
            return result
        return self._content(claim, collected.text, [made.id for made in collected.made])

    def fail(self, claim: Claim, reason: str) -> Any:
        """Record a failure and return it as an error message."""
        text = f"{self.tool.name} failed: {reason}"
        try:
            self.guard.execution.failed(claim, text)
        except LedgerUnavailable:
            return self._unrecorded(claim)
        return self.refusal(text, claim.call.call_id)

    def refusal(self, text: str, call_id: str | None) -> Any:
        """A refusal or failure, as the tool's result: an error ToolMessage, never an exception."""
        message: Any = text
        if call_id is not None:
            message = ToolMessage(
                content=text, tool_call_id=call_id, name=self.tool.name, status="error"
            )
        return self._pair(message)

    def replay(self, recorded: Replay, call_id: str | None) -> Any:
        """The recorded outcome of a call that already ran."""
        if not recorded.executed:
            return self.refusal(recorded.text, call_id)
        if recorded.updates and call_id is not None:
            message = ToolMessage(content=recorded.text, tool_call_id=call_id, name=self.tool.name)
            return self._pair(Command(update={**recorded.updates, _MESSAGES: [message]}))
        if self.tool.response_format == "content_and_artifact":
            return recorded.text, {"assets": list(recorded.assets)}
        return recorded.text

    @contextlib.contextmanager
    def running(self, claim: Claim) -> Iterator[list[Any]]:
        """Run a tool's body; whatever it raises is recorded, and media tools' errors become text.

        Yields a list; an error's text is appended to it as the result.
        """
        answer: list[Any] = []
        with contextlib.ExitStack() as stack:
            stack.enter_context(claimed(claim))
            try:
                yield answer
            except GraphBubbleUp as error:
                if isinstance(error, ParentCommand) and not self.bound.binding.unsafe_routes:
                    claim.unknown = True  # it ran, and nobody knows how far
                    answer.append(self.fail(claim, _ROUTED))  # I2
                    return
                self._paused(claim)
                raise
            except Exception as error:  # GraphBubbleUp, an Exception too, was re-raised above
                if _upstream.is_invalid_resume(error):  # its own question is still unanswered
                    self._paused(claim)
                    raise
                claim.unknown = not (
                    isinstance(error, DestinationError) and not error.outcome_unknown
                )
                text = self._error_text(claim, error)
                answer.append(self.fail(claim, text))
                if not self.media:
                    raise
            except BaseException:  # cancelled or interrupted after the claim: never `failed` (I8)
                claim.unknown = True
                self.guard.execution.failed(claim, f"{self.tool.name} was stopped while it ran")
                raise

    def _paused(self, claim: Claim) -> None:
        """The tool paused itself (or routes): the Grant goes back if nothing happened."""
        if self.bound.binding.interrupts:
            self.guard.execution.paused(claim)
        else:
            claim.unknown = True
            self.guard.execution.failed(claim, f"{self.tool.name} was interrupted")

    def _error_text(self, claim: Claim, error: Exception) -> str:
        outside = self.bound.binding.effect is not OutsideEffect.NONE
        if isinstance(error, (DestinationError, ToolException, AssetError)):
            shown = claim.scratch.conceal(str(error), lambda name: "[file]")
            text = clean(shown)[:500]
        else:  # an exception's text may hold paths, keys, or words of the media: not for a model
            text = type(error).__name__
        if claim.unknown and outside:
            text += "; whether it took effect is not known, so do not repeat it"
        return text

    def _close_command(self, claim: Claim, result: Any) -> Any:
        items = list(result) if isinstance(result, list) else [result]
        call_id = claim.call.call_id
        kept: list[Any] = []
        updates: dict[str, Any] = {}
        texts: list[str] = []
        routed = False
        for item in items:
            if isinstance(item, ToolMessage):
                if item.tool_call_id == call_id or not self.media:
                    texts.append(str(item.content))
                    kept.append(item)
                continue
            command, routes = self._own_part(item, call_id, updates, texts)
            routed = routed or routes
            kept.append(command)
        collected = Collected(text=clean("\n".join(texts)), made=(), findings=())
        if claim.outputs:
            made = self.guard.execution.collect(claim, "")
            collected = Collected(
                text=f"{collected.text}\n{made.text}".strip(), made=made.made, findings=()
            )
            kept = [_with_text(item, made.text, call_id) for item in kept]
        try:
            self.guard.execution.executed(claim, collected, updates=_storable(updates))
        except LedgerUnavailable:
            return self._unrecorded(claim)
        if routed:
            return self.refusal(
                f"{self.tool.name} ran, but {_ROUTED}; that part was refused", call_id
            )
        return self._pair(kept if isinstance(result, list) else kept[0])

    def _own_part(
        self, command: Command[Any], call_id: str, updates: dict[str, Any], texts: list[str]
    ) -> tuple[Command[Any], bool]:
        """A Command without what its Binding does not declare (I2), and whether it routed."""
        binding = self.bound.binding
        if binding.unsafe_routes:
            return command, False
        routed = bool(command.goto) or command.graph is not None
        stated: dict[str, Any] = {}
        messages: Any = ()
        if isinstance(command.update, Mapping):
            stated = {k: v for k, v in command.update.items() if k in binding.state}
            messages = command.update.get(_MESSAGES, ())
        elif isinstance(command.update, list):
            messages = command.update
        own = [m for m in messages
               if isinstance(m, ToolMessage) and m.tool_call_id == call_id]  # fmt: skip
        updates.update(stated)
        texts.extend(str(message.content) for message in own)
        if isinstance(command.update, list):
            return Command(update=own), routed
        return Command(update={**stated, _MESSAGES: own} if own else stated), routed

    def _content(self, claim: Claim, text: str, assets: list[str]) -> Any:
        if self.tool.response_format == "content_and_artifact":
            return text, {"assets": assets}
        return text

    def _pair(self, content: Any) -> Any:
        if self.tool.response_format == "content_and_artifact":
            return content, None
        return content

    def _unrecorded(self, claim: Claim) -> Any:
        return self.refusal(
            f"{self.tool.name} ran, but its outcome could not be recorded; it will be reconciled,"
            " do not repeat it",
            claim.call.call_id,
        )


def guarded(
    guard: Guard, tool: BaseTool, *, agents: Agents | None = None, gate: Gate = "graph"
) -> BaseTool:
    """The guarded copy of a bound tool.

    Args:
        agents: the agent it acts as, or one per stage; None: whoever was authorized.
        gate: see `Seat`.

    Raises:
        BindingError: the tool is not bound, or bound as another tool.
    """
    known = seat_of(tool)
    original = known.tool if known is not None else tool
    bound = guard.bound_for(original)
    seat = Seat(guard, original, bound, agents=agents, gate=gate)
    update: dict[str, Any] = {"args_schema": bound.args_schema}
    for name in ("func", "coroutine"):
        function = getattr(original, name, None)
        if function is not None:
            update[name] = _refusing(function, original.name)
    copy = original.model_copy(update=update)
    object.__setattr__(copy, "__class__", _subclass(type(original), seat))
    return copy


def seat_of(tool: object) -> Seat | None:
    """The Seat of a guarded tool, None for any other object."""
    seat = getattr(type(tool), "_agentguard_seat", None)
    return seat if isinstance(seat, Seat) else None


def _subclass(base: type[BaseTool], seat: Seat) -> type[BaseTool]:
    def run(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        incoming = seat.incoming(tool_input, kwargs.get("tool_call_id"), kwargs.get("config"))
        token = _incoming.set(incoming)
        try:
            return base.run(self, tool_input, *args, **kwargs)
        finally:
            _incoming.reset(token)

    async def arun(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        incoming = seat.incoming(tool_input, kwargs.get("tool_call_id"), kwargs.get("config"))
        token = _incoming.set(incoming)
        try:
            return await base.arun(self, tool_input, *args, **kwargs)
        finally:
            _incoming.reset(token)

    def _run(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
        incoming = _take_incoming(seat)
        if incoming is None:
            return seat.refusal(_DIRECT.format(seat.tool.name), None)
        _authorize_inline(seat, incoming)
        opened = seat.open(incoming)
        if not isinstance(opened, Claim):
            return _unopened(seat, opened, incoming)
        result: Any = None
        with seat.running(opened) as answer:
            positional, named = seat.arguments(opened, incoming, kwargs)
            result = seat.tool._run(*positional, **named)
        return answer[0] if answer else seat.close(opened, result)

    async def _arun(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
        incoming = _take_incoming(seat)
        if incoming is None:
            return seat.refusal(_DIRECT.format(seat.tool.name), None)
        await asyncio.to_thread(_authorize_inline, seat, incoming)
        opened = await _claim_async(seat, incoming)
        if not isinstance(opened, Claim):
            return _unopened(seat, opened, incoming)
        result: Any = None
        with seat.running(opened) as answer:
            positional, named = seat.arguments(opened, incoming, kwargs)
            result = await seat.tool._arun(*positional, **named)
        if answer:
            return answer[0]
        return await _finished(asyncio.to_thread(seat.close, opened, result))

    namespace: dict[str, Any] = {
        "__module__": base.__module__,
        "__doc__": base.__doc__,
        "_agentguard_seat": typing.cast(Any, seat),
        "__annotations__": {"_agentguard_seat": typing.ClassVar[Any]},
        "run": functools.update_wrapper(run, base.run),
        "arun": functools.update_wrapper(arun, base.arun),
        "_run": functools.update_wrapper(_run, base._run),
    }
    if base._arun is not BaseTool._arun:
        namespace["_arun"] = functools.update_wrapper(_arun, base._arun)
    made: type[BaseTool] = type(base.__name__, (base,), namespace)
    return made


_ROUTED = "it tried to route the graph, which its Binding does not declare"
_DIRECT = "{} was called around its gate; it runs only through a graph that authorized the call"


def _take_incoming(seat: Seat) -> Incoming | None:
    incoming = _incoming.get()
    _incoming.set(None)  # one claim per call: tools that this tool calls don't inherit it
    return incoming if incoming is not None and incoming.seat is seat else None


def _unopened(seat: Seat, opened: Replay | str, incoming: Incoming) -> Any:
    if isinstance(opened, Replay):
        return seat.replay(opened, incoming.call_id)
    return seat.refusal(opened, incoming.call_id)


def _authorize_inline(seat: Seat, incoming: Incoming) -> None:
    call_id = incoming.call_id
    if seat.gate != "inline" or call_id is None:
        return

    def find() -> Call:
        return make_call(
            seat.guard,
            seat.bound,
            agent=seat.agent,
            arguments=incoming.arguments,
            call_id=call_id,
            configurable=incoming.configurable,
            source=_upstream.task_id(incoming.configurable),
        )

    authorize_inline(seat.guard, find)


async def _claim_async(seat: Seat, incoming: Incoming) -> Claim | Replay | str:
    """Claim on a thread. A caller cancelled meanwhile leaves no claim behind."""
    task = asyncio.ensure_future(asyncio.to_thread(seat.open, incoming))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        opened = await _finished(task)
        if isinstance(opened, Claim):
            execution = seat.guard.execution
            await _finished(asyncio.to_thread(execution.failed, opened, "cancelled before it ran"))
        raise


async def _finished(work: Awaitable[Any]) -> Any:
    """Await to the end even if the caller is cancelled; then the cancellation goes on."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
    if cancelled is not None and not task.exception():
        task.result()
        raise cancelled
    return task.result()


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


def _is_decided(value: Any, decided: Any) -> bool:
    try:
        return bool(jsonable(value) == decided)
    except ValueError:  # it has no JSON form
        return False


def _is_messages(result: Any) -> bool:
    return (
        isinstance(result, list)
        and bool(result)
        and all(isinstance(item, (Command, ToolMessage)) for item in result)
    )


def _with_text(item: Any, text: str, call_id: str) -> Any:
    messages = item.update.get(_MESSAGES, ()) if isinstance(item, Command) and isinstance(
        item.update, Mapping) else ()  # fmt: skip
    for message in (item,) if isinstance(item, ToolMessage) else messages:
        if isinstance(message, ToolMessage) and message.tool_call_id == call_id:
            message.content = f"{message.content}\n{text}"
    return item


def _storable(updates: Mapping[str, Any]) -> dict[str, Any]:
    """The declared state keys that can be replayed: JSON data; others are not stored."""
    kept: dict[str, Any] = {}
    for key, value in updates.items():
        try:
            kept[key] = json.loads(json.dumps(value))
        except (TypeError, ValueError):
            continue
    return kept
