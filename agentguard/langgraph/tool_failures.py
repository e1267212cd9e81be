"""What an exception of a tool's body means: it failed, paused itself, or was stopped (I8)."""

from __future__ import annotations

import dataclasses
import functools

from langchain_core.tools import ToolException
from langgraph.errors import GraphBubbleUp, GraphInterrupt, ParentCommand

from agentguard.bindings.bound import Bound
from agentguard.calls.execution import Execution, Failure
from agentguard.content.text.sanitize import clean, private_left_out
from agentguard.errors import AssetError, DestinationError
from agentguard.langgraph import upstream as _upstream
from agentguard.langgraph.own_messages import cleaned, cleaned_command, kept

_PAUSED = "it paused itself, which its Binding does not declare (interrupts=True)"
_PAUSED_ITSELF = (
    "it paused itself with interrupt(), which a tool with an effect may not; take that out of the"
    " tool: whether a person is asked is for the policy to say"
)
_SERVER_ASKED = (
    "its server asked something in the middle of the call, which is not sent a second time; answer"
    " that in the client: MCPAdapter(Client(url, elicitation_handler=...))"
)
ROUTED = (
    "it tried to route the graph, which its Binding does not declare (known.hand_offs() for the"
    " hand-offs of supervisor and swarm, unsafe_routes=True for a tool of yours)"
)


def failure_of(bound: Bound, execution: Execution, error: BaseException) -> Failure:
    """What an exception of a tool's body means; that of a tool without media or effect goes on."""
    if isinstance(error, GraphBubbleUp):
        return _bubbled(bound, execution, error)
    if not isinstance(error, Exception):  # cancelled after the claim: never `failed` (I8)
        return _stopped(bound, "was stopped while it ran")
    if _upstream.is_invalid_resume(error):  # its own question is still unanswered
        return _paused(bound)
    # A vendor that failed made nothing that could be released: it failed.
    known = execution.is_known_not_done(error)
    unknown = execution.started and bound.releases and not known
    text = _error_text(execution, error)
    if unknown:
        text += "; whether it took effect is not known, so do not repeat it"
    return Failure(text=text, unknown=unknown, error=error, raises=bound.binding.is_harmless)


def _bubbled(bound: Bound, execution: Execution, error: GraphBubbleUp) -> Failure:
    binding = bound.binding
    if isinstance(error, ParentCommand) and not binding.unsafe_routes:
        return Failure(text=ROUTED, unknown=True)  # I2: it ran, and nobody knows how far
    if isinstance(error, GraphInterrupt) and not binding.interrupts:
        if bound.reaches_out:  # interrupts=True would be refused: it would run twice
            text = _PAUSED_ITSELF if binding.mcp is None else _SERVER_ASKED
            return Failure(text=text, unknown=True)
        # Calls of a message share a task, where answers match interrupts by order: a "no" to
        # one would be another's "yes".
        return Failure(text=_PAUSED, unknown=True)
    try:
        if not binding.is_harmless:
            _clean_bubble(execution, error)
    except AssetError as refusal:
        return Failure(text=str(refusal), unknown=True, error=error)
    return _paused(bound)


def _paused(bound: Bound) -> Failure:
    """The tool paused itself (or routes): the Grant goes back if nothing happened."""
    if not bound.binding.interrupts:
        return _stopped(bound, "was interrupted")
    return Failure(text="it paused itself", paused=True, raises=True)


def _stopped(bound: Bound, how: str) -> Failure:
    return Failure(text=f"{bound.name} {how}", unknown=True, quiet=True, raises=True)


def _clean_bubble(execution: Execution, error: GraphBubbleUp) -> None:
    """What a media tool asks, or routes with, goes into streams and checkpoints: cleaned.

    Raises:
        AssetError: it holds something that can't be cleaned.
    """
    if not error.args:
        return
    words = functools.partial(kept, execution.claimed.scratch)
    if isinstance(error, ParentCommand):
        error.args = (cleaned_command(error.args[0], words, messages=True),)
    elif isinstance(error, GraphInterrupt):
        error.args = (
            tuple(
                dataclasses.replace(one, value=cleaned(one.value, words)) for one in error.args[0]
            ),
        )


def _error_text(execution: Execution, error: Exception) -> str:
    if not isinstance(error, (DestinationError, ToolException, AssetError)):
        # An exception's text may hold paths, keys, or words of the media: not for a model.
        return type(error).__name__
    shown = execution.claimed.scratch.conceal(str(error), lambda name: "[file]")
    return clean(private_left_out(shown))[:500]
