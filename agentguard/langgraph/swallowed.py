"""Questions that somebody's `except` swallowed on their way out of an agent's tools.

The question is an exception, and an error handler around a tool call makes a ToolMessage of it. So
before a model reads the answers to its calls, those are found whose question is unused, and asked
here; then their calls run again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, ToolMessage

from agentguard.calls.asked_calls import CallState
from agentguard.calls.call import call_id_digest
from agentguard.calls.enforcement_point import EnforcementPoint
from agentguard.calls.questions import PendingQuestion
from agentguard.calls.refusal_log import in_a_line
from agentguard.errors import ApprovalError, LedgerError
from agentguard.langgraph.refusal_marks import is_marked
from agentguard.langgraph.runtime import CallOrObstacle
from agentguard.langgraph.waiting import call_state_now, pause_for

_log = logging.getLogger(__name__)


def answered_questions(
    point: EnforcementPoint, messages: Sequence[Any], *, thread: str
) -> tuple[AIMessage, list[ToolMessage]] | None:
    """The newest message with calls, and the answers to those whose question is unused.

    The guard's own refusals are none of these: they say what became of the call.

    Returns:
        None where there is none, or somebody wrote behind the answers: then the conversation went
        on, and the questions are withdrawn.
    """
    answers: list[ToolMessage] = []
    for message in reversed(messages):
        if isinstance(message, ToolMessage):
            answers.append(message)
        elif isinstance(message, AIMessage) and message.id:
            ids = {call["id"] for call in message.tool_calls}
            lost = [one for one in answers if one.tool_call_id in ids]
            lost = [one for one in lost if not is_marked(one, key=point.message_key, thread=thread)]
            lost = [one for one in lost if _is_unused(point, thread, one.tool_call_id)]
            return (message, lost) if lost else None
        else:
            return None
    return None


def ask_again(
    point: EnforcementPoint, answers: Sequence[tuple[ToolMessage, CallOrObstacle]], *, woken: bool
) -> list[ToolMessage]:
    """Ask what was swallowed.

    Args:
        answers: what stands in place of each question, and the call that it is about.
        woken: the task was woken from these questions.

    Returns:
        The answers to calls that may run now.

    Raises:
        GraphInterrupt: a question is open.
    """
    stands = [(message, call_state_now(point, found)) for message, found in answers]
    questions = [stand for _, stand in stands if isinstance(stand, PendingQuestion)]
    for question in questions:
        _log.warning(
            "the question about %s was swallowed on its way out, and is asked again before the"
            " model is called; let langgraph.errors.GraphBubbleUp through in the middleware that"
            " catches exceptions of tools",
            in_a_line(question.call_id),
        )
    if questions:
        pause_for(point, questions, woken=woken)
    return [message for message, stand in stands if stand is CallState.PERMITTED]


def _is_unused(point: EnforcementPoint, thread: str, call_id: str) -> bool:
    try:
        return bool(point.approvals.unused(thread, call_id_digest(call_id)))
    except (ApprovalError, LedgerError, ValueError):  # the repair says what is known of it
        return False
