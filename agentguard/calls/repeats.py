"""Whether a call would do again what was begun before, in this job or another (I8).

The same call under the same id is known by its key: `call_key` in `call.py` names one call of one
job, and `authorize.py` gives it the Decision that it has. Here it is about other calls with the
same effect. A program that is started again after its process died opens a new job, and its model
makes a new call, or LangGraph brings the old one back from before it was authorized
(`durability="async"` and `"exit"`): to the ledger that is a call like any other. What tells it
apart is what it would do.
"""

from __future__ import annotations

from dataclasses import replace

from agentguard.calls.call import Call, call_id_digest
from agentguard.ledger.ledger import Reads
from agentguard.ledger.queries.grants import begun, executed_with
from agentguard.ledger.rows.requests import BegunRow
from agentguard.model import GrantState, Request

_WHY = {
    GrantState.UNKNOWN: "an earlier call began the same and its outcome is not known; it is not"
    " done again before `agentguard reconcile`, or a person, says what came of it",
    GrantState.CLAIMED: "the same was begun and has not ended, or its outcome could not be written"
    " down yet; when its job is over, `agentguard reconcile` finds out what came of it",
    GrantState.EXECUTED: "an earlier run of this thread did the same before its process died; it"
    " is done. Whoever wants it twice asks for it in a new thread",
}


def begun_before(request: Request, *, thread: str, reads: Reads) -> str | None:
    """Why a Request with an effect outside must not run now, None if nothing stands against it.

    Jobs without a thread id share no conversation, so one says nothing about the other's calls.

    The same is: the same tool, destination and media, whatever the words that go along; without
    media, the same words too. It must not run while somewhere in the workspace its outcome is
    unknown, nor while this thread is at it, nor if an earlier run of its thread did it and died
    before the thread could know.
    """
    for before in reads.rows(begun(request, thread=thread)):
        if _is_same(request, before):
            return _WHY[before.came_to]
    return None


def done_unheard(call: Call, request: Request, reads: Reads) -> str | None:
    """What came of an earlier call with this effect whose answer nobody heard; None of none.

    Args:
        request: of the call.
    """
    if not (call.unanswered and call.bound.reaches_out):
        return None
    names = {call_id_digest(id) for id in call.unanswered}
    done = executed_with(job=call.job.id, thread=call.thread, content_digest=request.content_digest)
    for earlier in reads.rows(done):
        if earlier.call_id in names:
            return (
                "this was done by an earlier call, whose answer was lost when a message came"
                f" in between; it is not done twice. Its answer: {earlier.text}"
            )
    return None


def _is_same(request: Request, before: BegunRow) -> bool:
    if before.destination != request.destination:
        return False
    media = {use.sha256 for use in request.assets}
    if media:
        return media == set(before.body.media)
    there = replace(request, job=before.job, agent=before.agent)
    return there.content_digest == before.content_digest
