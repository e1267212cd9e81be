"""One guarded tool's place: what it was called with, its claim, and what came of it (I5)."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, ToolException
from langgraph.errors import GraphBubbleUp, GraphInterrupt, ParentCommand
from langgraph.types import Command
from pydantic import ValidationError

from agentguard.bindings.argument_paths import jsonable
from agentguard.bindings.bound import Bound
from agentguard.calls.authorize import in_a_line, ledger_refusal, log_refusal
from agentguard.calls.call import Call, Refused
from agentguard.calls.claim import Claim, Replay, claimed
from agentguard.calls.outputs import Collected, clean, private_left_out, require_taken
from agentguard.calls.request import freeze
from agentguard.content.text.loggable import loggable
from agentguard.content.text.sanitize import MAX_KEPT
from agentguard.errors import AssetError, DestinationError, LedgerError
from agentguard.guard import Guard
from agentguard.langgraph import upstream as _upstream
from agentguard.langgraph.detached import detached, quiet_arguments
from agentguard.langgraph.results import (
    MESSAGES,
    are_messages,
    cleaned,
    cleaned_command,
    own_part,
    said,
    storable,
)
from agentguard.langgraph.runtime import Agents, Gate, agent_for, make_call

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """What `run` was given, for `_run` of the same call."""

    seat: Seat
    arguments: Mapping[str, Any]
    injected: Mapping[str, Any]
    call_id: str | None
    configurable: Mapping[str, Any]


class _Taken(NamedTuple):
    """A result that was taken in, before it is recorded.

    Args:
        updates: state keys that it writes.
        told: what becomes of it, given the text that the model may read.
    """

    collected: Collected
    updates: Mapping[str, Any] | None
    told: Callable[[str], Any]


_PAUSED = "it paused itself, which its Binding does not declare (interrupts=True)"
_ROUTED = "it tried to route the graph, which its Binding does not declare"

current: ContextVar[Incoming | None] = ContextVar("agentguard_incoming", default=None)


class Seat:
    """One guarded tool's place: its guard, its binding, the original, and who may sit there.

    Args:
        agents: the agent that the enclosing ToolNode acts as, by stage if it shares a driver;
            None: whoever the recorded Request names.
        gate: `inline` authorizes in the tool itself, for the functional API.
        pauses_apart: see `Call`.
    """

    def __init__(
        self,
        guard: Guard,
        tool: BaseTool,
        bound: Bound,
        *,
        agents: Agents | None,
        gate: Gate,
        pauses_apart: bool = False,
    ) -> None:
        self.guard = guard
        self.tool = tool
        self.bound = bound
        self.agents = agents
        self.gate: Gate = gate
        self.pauses_apart = pauses_apart
        binding = bound.binding
        # A tool without stage touches no media: its result passes as upstream would pass it. One
        # that sends words out runs on what was decided, and nothing else (I7).
        self.media = not binding.is_harmless
        self._filled = _upstream.filled_by_run(tool)

    def __deepcopy__(self, memo: dict[int, Any]) -> Seat:
        return self  # a copy of a guarded tool sits in the same place

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
        arguments = self.model_arguments(tool_input)
        if self.gate == "inline":  # no ToolNode stands before it to strip what a model forged
            injected, arguments = {}, dict(tool_input)
        return Incoming(
            seat=self,
            arguments=arguments,
            injected=injected,
            call_id=call_id,
            configurable=(config or {}).get("configurable", {}),
        )

    def model_arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the model gave, without what LangGraph injects."""
        return {name: value for name, value in given.items() if name not in self.bound.injected}

    def unreadable(self, incoming: Incoming) -> Any:
        """The refusal of arguments that no Request can be made of, None for sound ones.

        Upstream's own message on them repeats their values, and one may be a secret (S7).
        """
        if not self.media:
            return None
        try:
            freeze(self.bound, incoming.arguments)
        except Refused as refusal:
            if incoming.call_id is None:
                return refusal.reason
            return ToolMessage(
                content=refusal.reason,
                tool_call_id=incoming.call_id,
                name=self.tool.name,
                status="error",
            )
        return None

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
            pauses_apart=self.pauses_apart,
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
            else:
                self._log_refusal(incoming, "", refusal, refusal.reason)
            return refusal.reason
        except LedgerError as error:  # a tamper alarm was logged as an error where it was found
            told = ledger_refusal(error)
            self._log_refusal(incoming, call.job.id if call is not None else "", told, str(error))
            return told.reason

    def _log_refusal(self, incoming: Incoming, job: str, refusal: Refused, why: str) -> None:
        thread = str(incoming.configurable.get("thread_id", ""))
        log_refusal(self.tool.name, self.agent, job, thread, (refusal.policy,), why)

    def arguments(
        self, claim: Claim, incoming: Incoming, kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the original tool runs with: its own schema over the filled arguments."""
        if self.media:
            pauses = self.bound.binding.interrupts
            quiet = functools.partial(quiet_arguments, configs=self._filled, pauses=pauses)
            incoming = dataclasses.replace(incoming, injected=quiet(incoming.injected))
            kwargs = quiet(kwargs)
        given = {**claim.arguments, **incoming.injected}
        args, parsed = _upstream.to_arguments(self.tool, given, incoming.call_id)
        parsed.update(self._read_once(claim, incoming, parsed))
        self._require_decided(claim, args, parsed)
        passed = {k: v for k, v in kwargs.items() if k not in self.bound.args_names}
        passed = {k: v for k, v in passed.items() if k not in incoming.injected}
        filled = {k: kwargs[k] for k in self._filled if k in kwargs}
        claim.started = True  # from here on the body may have had its effect
        return args, {**passed, **parsed, **filled}

    def _require_decided(
        self, claim: Claim, args: tuple[Any, ...], parsed: Mapping[str, Any]
    ) -> None:
        """What runs is what was decided on, whatever the tool's validators make of it (I7).

        Raises:
            ToolException: naming what they change; the body was not entered.
        """
        if not self.media:
            return
        runs = dict(zip(claim.arguments, args, strict=False)) | dict(parsed)
        changed = self.bound.changed(claim.arguments, runs)
        if changed:
            raise ToolException(
                f"its own schema makes something else of {', '.join(changed)} than what was"
                " decided on, so it did not run; give the value as the schema leaves it"
            )

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
        try:
            taken = self._take_in(claim, result)
        except AssetError as error:
            # The body ran; with an effect outside, it may have happened.
            claim.unknown = self.bound.releases
            return self.fail(claim, str(error))
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
            # A hostile result may be of any shape; what the body did is done.
            claim.unknown = self.bound.releases
            return self.fail(claim, "its result has a shape that can't be taken in", error)
        try:
            text = self.guard.execution.executed(claim, taken.collected, updates=taken.updates)
        except LedgerError as error:
            return self._unrecorded(claim, error)
        return taken.told(text)

    def _take_in(self, claim: Claim, result: Any) -> _Taken:
        content = result
        if self.tool.response_format == "content_and_artifact" and isinstance(result, tuple):
            content = result[0] if result else None  # a Command in a pair routes as well (I2)
        if isinstance(content, Command) or are_messages(content):
            return self._take_in_command(claim, content)
        collected = self.guard.execution.collect(claim, result)
        made = [made.id for made in collected.made]
        return _Taken(
            collected, None, lambda text: self._content(text, made) if self.media else result
        )

    def fail(self, claim: Claim, reason: str, error: Exception | None = None) -> Any:
        """Record a failure and return it as an error message.

        Args:
            reason: what the model may read.
            error: what was raised; the developer's log gets it with its traceback.
        """
        text = f"{self.tool.name} failed: {reason}"
        self._log_failure(claim, reason, error)
        try:
            text = self.guard.execution.failed(claim, text)
        except LedgerError as unrecorded:
            return self._unrecorded(claim, unrecorded)
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
            return self._pair(Command(update={**recorded.updates, MESSAGES: [message]}))
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
            if self.media:  # others touch none, and may need the caller's run, as `task` does
                stack.enter_context(detached(pauses=self.bound.binding.interrupts))
            try:
                yield answer
            except GraphBubbleUp as error:
                if isinstance(error, ParentCommand) and not self.bound.binding.unsafe_routes:
                    claim.unknown = True  # it ran, and nobody knows how far
                    answer.append(self.fail(claim, _ROUTED))  # I2
                    return
                if isinstance(error, GraphInterrupt) and not self.bound.binding.interrupts:
                    # Calls of a message share a task, where answers match interrupts by order: a
                    # "no" to one would be another's "yes".
                    claim.unknown = True
                    answer.append(self.fail(claim, _PAUSED))
                    return
                try:
                    self._clean_bubble(claim, error)
                except AssetError as refusal:
                    claim.unknown = True
                    answer.append(self.fail(claim, str(refusal), error))
                    return
                self._paused(claim)
                raise
            except Exception as error:  # GraphBubbleUp, an Exception too, was re-raised above
                if _upstream.is_invalid_resume(error):  # its own question is still unanswered
                    self._paused(claim)
                    raise
                # A vendor that failed made nothing that could be released: it failed.
                known = claim.is_known_not_done(error)
                claim.unknown = claim.started and self.bound.releases and not known
                text = self._error_text(claim, error)
                answer.append(self.fail(claim, text, error))
                if not self.media:
                    raise
            except BaseException:  # cancelled or interrupted after the claim: never `failed` (I8)
                claim.unknown = True
                self._stopped(claim, "was stopped while it ran")
                raise

    def _clean_bubble(self, claim: Claim, error: GraphBubbleUp) -> None:
        """What a media tool asks, or routes with, goes into streams and checkpoints: cleaned.

        Raises:
            AssetError: it holds something that can't be cleaned.
        """
        if not self.media or not error.args:
            return
        words = functools.partial(_kept, claim)
        if isinstance(error, ParentCommand):
            error.args = (cleaned_command(error.args[0], words, messages=True),)
        elif isinstance(error, GraphInterrupt):
            error.args = (
                tuple(
                    dataclasses.replace(one, value=cleaned(one.value, words))
                    for one in error.args[0]
                ),
            )

    def _paused(self, claim: Claim) -> None:
        """The tool paused itself (or routes): the Grant goes back if nothing happened."""
        if self.bound.binding.interrupts:
            with contextlib.suppress(LedgerError):  # it stays claimed, until its job ends
                self.guard.execution.paused(claim)
        else:
            claim.unknown = True
            self._stopped(claim, "was interrupted")

    def _stopped(self, claim: Claim, how: str) -> None:
        # Unrecorded, the Grant stays claimed, and becomes unknown when the job ends (I8).
        with contextlib.suppress(LedgerError):
            self.guard.execution.failed(claim, f"{self.tool.name} {how}")

    def _error_text(self, claim: Claim, error: Exception) -> str:
        if isinstance(error, (DestinationError, ToolException, AssetError)):
            shown = claim.scratch.conceal(str(error), lambda name: "[file]")
            text = clean(private_left_out(shown))[:500]
        else:  # an exception's text may hold paths, keys, or words of the media: not for a model
            text = type(error).__name__
        if claim.unknown and self.bound.releases:
            text += "; whether it took effect is not known, so do not repeat it"
        return text

    def _take_in_command(self, claim: Claim, result: Any) -> _Taken:
        call_id = claim.call.call_id
        words = functools.partial(_kept, claim) if self.media else None
        own = own_part(result, self.bound.binding, call_id, words=words)
        items = list(own.items)
        collected = Collected(text=clean(_text_of(own.content)), made=(), findings=())
        if self.media:  # what it says is cleaned, and its media taken in, as of any other tool
            collected = self.guard.execution.collect(claim, own.content)
            require_taken(own.beside, collected.made, claim.scratch)
            artifact = {"assets": [made.id for made in collected.made]}
            items = said(items, collected.text, artifact, tool=self.tool.name, call_id=call_id)

        def told(text: str) -> Any:
            if own.routed:
                self.guard.gate.record_refusal(claim.call, Refused(_ROUTED, policy="routed"))
                return self.refusal(
                    f"{self.tool.name} ran, but {_ROUTED}; that part was refused", call_id
                )
            if text != collected.text:  # withheld, and what it writes into the state with it (I4)
                message = ToolMessage(content=text, tool_call_id=call_id, name=self.tool.name)
                return self._pair(message)
            return self._pair(items if isinstance(result, list) or len(items) > 1 else items[0])

        return _Taken(collected, storable(own.updates), told)

    def _content(self, text: str, assets: list[str]) -> Any:
        if self.tool.response_format == "content_and_artifact":
            return text, {"assets": assets}
        return text

    def _pair(self, content: Any) -> Any:
        if self.tool.response_format == "content_and_artifact":
            return content, None
        return content

    def _log_failure(self, claim: Claim, reason: str, error: Exception | None) -> None:
        place = (self.tool.name, claim.prepared.request.agent, claim.call.job.id)
        if error is None:
            _log.warning("%s as %s in job %s failed: %s", *place, in_a_line(reason))
        elif not claim.started:  # of the tool's schema: its error quotes the arguments
            _log.error("%s as %s in job %s was not run: %s", *place, type(error).__name__)
        else:
            _log.error("%s as %s in job %s raised an exception", *place, exc_info=loggable(error))

    def _unrecorded(self, claim: Claim, error: LedgerError) -> Any:
        _log.error(
            "%s ran in job %s, and its outcome could not be recorded: %s; `agentguard reconcile`"
            " finds out what came of it",
            self.tool.name,
            claim.call.job.id,
            in_a_line(str(error)),
        )
        return self.refusal(
            f"{self.tool.name} ran, but its outcome could not be recorded; it will be reconciled,"
            " do not repeat it",
            claim.call.call_id,
        )


def _is_decided(value: Any, decided: Any) -> bool:
    try:
        return bool(jsonable(value) == decided)
    except ValueError:  # it has no JSON form
        return False


def _kept(claim: Claim, text: str) -> str:
    """A text of a media tool as the state may hold it: no path of the call, no secret."""
    return clean(claim.scratch.conceal(text, lambda name: "[file]"), limit=MAX_KEPT)


def _text_of(content: list[Any]) -> str:
    texts = (b.get("text", "") if isinstance(b, Mapping) else str(b) for b in content)
    return "\n".join(str(text) for text in texts)
