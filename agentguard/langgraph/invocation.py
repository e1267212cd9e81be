"""A call of a guarded tool: what it was called with, its claim, and what came of it (I5)."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tools import BaseTool, ToolException
from langgraph.types import Command
from pydantic import ValidationError

from agentguard.bindings.argument_schema import jsonable
from agentguard.bindings.bound import Bound
from agentguard.calls.arguments import CallArguments
from agentguard.calls.call import Call
from agentguard.calls.claim import ClaimedCall
from agentguard.calls.enforcement_point import EnforcementPoint
from agentguard.calls.execution import Execution, Failure, TakenIn
from agentguard.calls.questions import PendingQuestion
from agentguard.calls.refusal_log import in_a_line, ledger_obstacle
from agentguard.calls.refused import Refused, Ungated
from agentguard.calls.results import Collected, require_taken
from agentguard.content.text.sanitize import clean
from agentguard.errors import CallRefused, LedgerError
from agentguard.langgraph import upstream as _upstream
from agentguard.langgraph.agent_mapping import Agents, agent_for
from agentguard.langgraph.detached import detached, quiet_arguments
from agentguard.langgraph.own_messages import (
    MESSAGES,
    are_messages,
    kept,
    not_written,
    own_part,
    said,
    storable,
    with_note,
)
from agentguard.langgraph.runtime import CallContext, CallOrObstacle
from agentguard.langgraph.tool_failures import ROUTED, failure_of
from agentguard.langgraph.ungated import not_injected, where_to_decide, without_id
from agentguard.langgraph.waiting import asking, is_asking, keep_question, pause_for
from agentguard.ledger.rows.grants import OutcomeRow
from agentguard.model import GrantState, Obstacle, ObstacleKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """What `run` was given, for `_run` of the same call.

    Args:
        call_id: names the call.
        given_id: the id that it was given, None for arguments without one.
        node: the function node that makes the call by hand, if one does.
        found: the call as that node made it.
        raises: a refusal is raised, since the node called a function.
    """

    invoker: ToolInvoker
    arguments: CallArguments
    injected: Mapping[str, Any]
    call_id: str | None
    config: RunnableConfig
    given_id: str | None = None
    node: ByHand | None = None
    found: CallOrObstacle | None = None
    raises: bool = False


class ByHand(Protocol):
    """What decides on the calls that a function node makes by hand.

    Args:
        ended: the function returned, and nobody reads what comes of a call that it left at work.
    """

    ended: bool

    def give_up(self) -> None:
        """Withdraw what waits of the node's calls, since it ended."""

    def authorize(self, invocation: Invocation, found: CallOrObstacle) -> None:
        """Decide on a call; raises GraphInterrupt where people are asked."""

    def ask(self, invocation: Invocation, question: PendingQuestion) -> NoReturn:
        """Ask about a call once more, which its claim found; raises GraphInterrupt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _OwnAnswer:
    """What a tool's own messages and Commands become.

    Args:
        content: what it returns, unless its text was withheld meanwhile.
        routed: it tried to route the graph, and its Binding does not declare that.
    """

    content: Any
    routed: bool


_log = logging.getLogger(__name__)

LEFT_BEHIND = (
    "refused: its node returned before this call began, so that nobody would read what came of it;"
    " let the node wait for what it starts (await, join(), result())"
)
raising: ContextVar[bool] = ContextVar("agentguard_raising", default=False)
"""Whether the call that begins is one of a function, which raises where a tool would answer."""

current_invocation: ContextVar[Invocation | None] = ContextVar(
    "agentguard_invocation", default=None
)


class ToolInvoker:
    """Runs the calls of one guarded tool: by its Binding, as its agent, through the claim.

    Args:
        agents: the agent that the enclosing ToolNode acts as, by stage if it shares a driver;
            None: whoever the recorded Request names.
        inline: it authorizes in the tool itself, for the functional API.
        pauses_apart: see `Call`.
    """

    def __init__(
        self,
        point: EnforcementPoint,
        tool: BaseTool,
        bound: Bound,
        *,
        agents: Agents | None,
        inline: bool,
        pauses_apart: bool = False,
    ) -> None:
        self.point = point
        self.tool = tool
        self.bound = bound
        self.agents = agents
        self.inline = inline
        self.pauses_apart = pauses_apart
        binding = bound.binding
        # A tool without stage touches no media: its result passes as upstream would pass it. One
        # that sends words out runs on what was decided, and nothing else (I7).
        self.media = not binding.is_harmless
        self._filled = _upstream.filled_by_run(tool)

    def __deepcopy__(self, memo: dict[int, Any]) -> ToolInvoker:
        return self  # a copy of a guarded tool runs in the same way

    @property
    def agent(self) -> str | None:
        """The agent this tool's calls run as, None if any recorded one may."""
        return agent_for(self.agents, self.bound.binding.stage)

    def invocation(
        self, tool_input: Any, call_id: str | None, config: RunnableConfig | None
    ) -> Invocation:
        """Split a call's input into the model's arguments and injected ones."""
        if isinstance(tool_input, str):
            tool_input = {[*self.bound.args_names, "input"][0]: tool_input}
        # Inline, no ToolNode stands before it to strip what a model forged.
        names = () if self.inline else self.bound.injected
        raises = raising.get()
        raising.set(False)  # of this call, and not of those that its tool makes
        return Invocation(
            invoker=self,
            arguments=self.arguments_of(tool_input),
            injected={name: tool_input[name] for name in names if name in tool_input},
            call_id=call_id,
            config=config or var_child_runnable_config.get() or {},
            given_id=call_id,
            raises=raises,
        )

    def arguments_of(self, given: Mapping[str, Any]) -> CallArguments:
        """What the model gave, without what LangGraph injects."""
        injected = () if self.inline else self.bound.injected
        return CallArguments(self.bound, {n: v for n, v in given.items() if n not in injected})

    def unreadable(self, invocation: Invocation) -> Obstacle | None:
        """Why no Request can be made of a call's arguments; None for sound ones.

        Upstream's own message on them repeats their values, and one may be a secret (S7).
        """
        if not self.media:
            return None
        injected = [n for n in self.bound.injected if n in invocation.arguments.written]
        if injected:  # inline, and a ToolNode that is not ours filled it in, or a model did
            why = not_injected(self.tool.name, injected)
            return Obstacle(kind=ObstacleKind.ARGUMENTS, sentence=why)
        try:
            invocation.arguments.frozen  # noqa: B018  read here, and used by the claim
        except Refused as refusal:
            return refusal.obstacle
        return None

    def not_made(self, obstacle: Obstacle, invocation: Invocation) -> ToolMessage | str:
        """The answer to a call whose arguments are unreadable; the refusal is recorded once.

        Raises:
            CallRefused: in place of it, where a function was called.
        """
        context = CallContext.from_config(self.point, invocation.config)
        call = self.call(context, invocation.arguments, invocation.call_id)
        if isinstance(call, Call):
            self.point.refusals.record(call, obstacle)
        else:
            context.refuse(self.tool.name, self.agent, obstacle)
        if invocation.raises:
            raise CallRefused(obstacle.sentence)
        return self._error(obstacle.sentence, invocation.call_id)

    def call(
        self, context: CallContext, arguments: CallArguments, call_id: str | None
    ) -> CallOrObstacle:
        """A call of this tool, or why it is none; see `CallContext.call`."""
        if not call_id:
            return Obstacle(
                kind=ObstacleKind.NO_CALL_ID,
                sentence=f"{self.tool.name} was invoked without a tool call id; call it through a"
                " graph",
            )
        return context.call(
            arguments, agent=self.agent, call_id=call_id, pauses_apart=self.pauses_apart
        )

    def claim(
        self, invocation: Invocation
    ) -> ClaimedCall | OutcomeRow | PendingQuestion | Obstacle:
        """Claim the Grant of a call; see `Claims.claim`."""
        context = CallContext.from_config(self.point, invocation.config)
        call = invocation.found or self.call(context, invocation.arguments, invocation.call_id)
        node, refused = invocation.node, None
        if invocation.call_id is None:
            why = without_id(self.tool.name, invocation.config, inline=self.inline)
            refused = Obstacle(kind=ObstacleKind.NO_CALL_ID, sentence=why)
        if node is not None and node.ended:
            node.give_up()
            refused = Obstacle(kind=ObstacleKind.NOT_AUTHORIZED, sentence=LEFT_BEHIND)
        refusals = self.point.refusals
        name, agent, thread = self.tool.name, self.agent, context.thread
        if refused is not None:  # no gate saw it
            context.refuse(name, agent, refused)
            return refused
        if isinstance(call, Obstacle):
            refusals.log_unmade(name, agent, job="", thread=thread, obstacle=call)
            return call
        asks = self.inline or node is not None or is_asking()
        try:
            opened = self.point.claims.claim(call, asks=asks)
        except LedgerError as error:  # a tamper alarm was logged as an error where it was found
            told = ledger_obstacle(error)
            refusals.log_unmade(
                name, agent, job=call.job.id, thread=thread, obstacle=told, why=str(error)
            )
            return told
        if isinstance(opened, Ungated):
            where = where_to_decide(invocation.config)
            opened = dataclasses.replace(opened, sentence=f"{opened.sentence}. {where}")
        if isinstance(opened, Obstacle):
            refusals.record(call, opened)
        return opened

    def reply(self, opened: OutcomeRow | PendingQuestion | Obstacle, invocation: Invocation) -> Any:
        """What a call returns that does not run: its recorded outcome, or why.

        Interrupts if people are asked once more, and nobody else does so in this task.
        """
        call_id = invocation.call_id
        if isinstance(opened, PendingQuestion):
            if invocation.node is not None:
                invocation.node.ask(invocation, opened)
            if self.inline:
                pause_for(self.point, [opened])
            keep_question(opened)
            return self.refusal(opened.decision.reason, call_id)
        if isinstance(opened, Obstacle):
            return self.refusal(opened.sentence, call_id)
        if opened.status is not GrantState.EXECUTED:
            return self.refusal(opened.text, call_id)
        if opened.state and call_id is not None:
            message = ToolMessage(content=opened.text, tool_call_id=call_id, name=self.tool.name)
            return self._pair(Command(update={**opened.state, MESSAGES: [message]}))
        return self._content(opened.text, list(opened.assets))

    def arguments(
        self, execution: Execution, invocation: Invocation, kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the original tool runs with: its own schema over the filled arguments."""
        claim = execution.claimed
        if self.media:
            pauses = self.bound.binding.interrupts
            quiet = functools.partial(quiet_arguments, configs=self._filled, pauses=pauses)
            invocation = dataclasses.replace(invocation, injected=quiet(invocation.injected))
            kwargs = quiet(kwargs)
        given = {**claim.arguments, **invocation.injected}
        args, parsed = _upstream.to_arguments(self.tool, given, invocation.call_id)
        parsed.update(self._read_once(claim, invocation, parsed))
        self._require_decided(claim, args, parsed)
        passed = {k: v for k, v in kwargs.items() if k not in self.bound.args_names}
        passed = {k: v for k, v in passed.items() if k not in invocation.injected}
        filled = {k: kwargs[k] for k in self._filled if k in kwargs}
        execution.started = True  # from here on the body may have had its effect
        return args, {**passed, **parsed, **filled}

    def _require_decided(
        self, claim: ClaimedCall, args: tuple[Any, ...], parsed: Mapping[str, Any]
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
        self, claim: ClaimedCall, invocation: Invocation, twice: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Arguments that the tool's schema changes each time it reads them, read only once.

        What was decided on is what the schema made of the model's words; over that it would quote
        a quoted text again. A value comes from here only if it is the one that was decided on.
        """
        filled = {path.split(".")[0].rstrip("[]") for path in self.bound.binding.assets}
        written = {
            name: value
            for name, value in invocation.arguments.written.items()
            if name in claim.arguments and name not in filled
        }
        changed = [
            name
            for name in written
            if name in twice and not _is_decided(twice[name], claim.arguments[name])
        ]
        if not changed:
            return {}
        given = {**claim.arguments, **written, **invocation.injected}
        try:
            _, once = _upstream.to_arguments(self.tool, given, invocation.call_id)
        except ValidationError:  # its bound schema reads more than its own: what was decided holds
            return {}
        return {
            name: once[name]
            for name in changed
            if name in once and _is_decided(once[name], claim.arguments[name])
        }

    def take_in(self, execution: Execution) -> TakenIn:
        """What becomes of what a tool returned.

        Raises:
            AssetError: it can't be taken in.
        """
        result = execution.result
        if self.tool.response_format == "content_and_artifact" and isinstance(result, tuple):
            result = result[0] if result else None  # a Command in a pair routes as well (I2)
        if isinstance(result, Command) or are_messages(result):
            return self._take_in_command(execution, result)
        return TakenIn(collected=self.point.executor.collect(execution, execution.result))

    def _take_in_command(self, execution: Execution, result: Any) -> TakenIn:
        call_id, scratch = execution.claimed.call.call_id, execution.claimed.scratch
        words = functools.partial(kept, scratch) if self.media else None
        own = own_part(result, self.bound.binding, call_id, words=words)
        items, content = list(own.items), list(own.content)
        if own.dropped:
            note = not_written(own.dropped, self.tool.name)
            _log.warning("%s", in_a_line(note))
            items = with_note(items, call_id, note)
            content.append({"type": "text", "text": note})
        collected = Collected(text=clean(_text_of(content)), made=(), findings=())
        if self.media:  # what it says is cleaned, and its media taken in, as of any other tool
            collected = self.point.executor.collect(execution, content)
            require_taken(own.beside, collected.made, scratch)
            artifact = {"assets": [made.id for made in collected.made]}
            items = said(items, collected.text, artifact, tool=self.tool.name, call_id=call_id)
        answer: Any = items if isinstance(result, list) or len(items) > 1 else items[0]
        adapted = _OwnAnswer(content=answer, routed=own.routed)
        return TakenIn(collected=collected, updates=storable(own.updates), adapted=adapted)

    def message(self, execution: Execution) -> Any:
        """What an execution returns, of which `BaseTool.run` makes a message."""
        call, taken = execution.claimed.call, execution.taken
        if execution.failure is not None or taken is None:
            return self.refusal(execution.failure or "it failed", call.call_id)
        text, answer = execution.text, taken.adapted
        if not isinstance(answer, _OwnAnswer):
            made = [made.id for made in taken.collected.made]
            return self._content(text, made) if self.media else execution.result
        if answer.routed:
            routed = Obstacle(kind=ObstacleKind.ROUTED, sentence=ROUTED)
            self.point.refusals.record(call, routed)
            return self.refusal(
                f"{self.tool.name} ran, but {ROUTED}; that part was refused", call.call_id
            )
        if text != taken.collected.text:  # withheld, and what it writes with it (I4)
            message = ToolMessage(content=text, tool_call_id=call.call_id, name=self.tool.name)
            return self._pair(message)
        return self._pair(answer.content)

    def refusal(self, text: str, call_id: str | None) -> Any:
        """A refusal or failure, as the tool's result: an error ToolMessage, never an exception."""
        return self._pair(self._error(text, call_id))

    def _error(self, text: str, call_id: str | None) -> ToolMessage | str:
        if call_id is None:
            return text
        return ToolMessage(content=text, tool_call_id=call_id, name=self.tool.name, status="error")

    @contextlib.contextmanager
    def detached(self) -> Iterator[None]:
        """What a tool's body runs in: whatever it calls asks for itself, and not in this task.

        A media tool's is detached; others touch no media, and may need the caller's run.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(asking(here=False))
            if self.media:
                stack.enter_context(detached(pauses=self.bound.binding.interrupts))
            yield

    def failure_of(self, execution: Execution, error: BaseException) -> Failure:
        """What an exception of the tool's body means; see `tool_failures.py`."""
        return failure_of(self.bound, execution, error)

    def _content(self, text: str, assets: list[str]) -> Any:
        if self.tool.response_format == "content_and_artifact":
            return text, {"assets": assets}
        return text

    def _pair(self, content: Any) -> Any:
        if self.tool.response_format == "content_and_artifact":
            return content, None
        return content


def _is_decided(value: Any, decided: Any) -> bool:
    try:
        return bool(jsonable(value) == decided)
    except ValueError:  # it has no JSON form
        return False


def _text_of(content: list[Any]) -> str:
    texts = (b.get("text", "") if isinstance(b, Mapping) else str(b) for b in content)
    return "\n".join(str(text) for text in texts)
