"""What came of one call in a test, read from the ledger and from what the model would read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from langchain_core.messages import ToolMessage

from agentguard.calls.call import call_id_digest, call_key
from agentguard.guard import Guard
from agentguard.ledger.queries.grants import grant_of, outcome_of
from agentguard.ledger.queries.requests import newest_of_call
from agentguard.model import Effect, GrantState, Needs

_RAN = (GrantState.EXECUTED, GrantState.FAILED, GrantState.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallResult:
    """What came of one call.

    Args:
        effect: `permit` (its tool was run), `ask` (it waits for people) or `deny`.
        sentence: why, as the model or the approver reads it.
        policies: ids of the policies that decided; of a refusal before any was asked, the built-in
            rule's, such as `agentguard.unknown-asset`.
        needs: the approvals that are still missing; None unless it waits.
        result: what the model reads of a tool that was run; None of any other.
        failed: the tool was run and failed, or nobody knows what it did.
        assets: ids of what it made.
        interrupts: what the tool itself asked, if it interrupted and is permitted.
        request: the Request's digest, which names its question; None if none was made.
        tool, agent, job, thread, call_id, source: which call it is; `source` is its message's id.
    """

    effect: Literal["permit", "ask", "deny"]
    sentence: str
    policies: tuple[str, ...]
    needs: Needs | None = None
    result: str | None = None
    failed: bool = False
    assets: tuple[str, ...] = ()
    interrupts: tuple[Any, ...] = ()
    request: str | None = field(default=None, repr=False)
    tool: str
    agent: str
    job: str
    thread: str
    call_id: str = field(repr=False)
    source: str = field(repr=False)

    def __bool__(self) -> NoReturn:
        raise TypeError('a CallResult has no truth value; write `outcome.effect == "permit"`')


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRun:
    """One call on its way: what its graph is run with.

    Args:
        graph: the compiled graph.
        given: its input; None resumes it.
        config: the run's config.
        source: id of the message that holds the call.
        records: how many records the log held before.
    """

    graph: Any
    given: Any
    config: Any
    tool: str
    agent: str
    job: str
    thread: str
    call_id: str
    source: str
    records: int


def outcome_of_run(guard: Guard, run: CallRun, state: Mapping[str, Any]) -> CallResult:
    """What came of a run.

    Args:
        state: what the graph returned.
    """
    said = [
        message
        for message in state.get("messages", ())
        if isinstance(message, ToolMessage) and message.tool_call_id == run.call_id
    ]
    words = _text(said[-1].content) if said else ""
    same: dict[str, Any] = {
        "tool": run.tool,
        "agent": run.agent,
        "job": run.job,
        "thread": run.thread,
        "call_id": run.call_id,
        "source": run.source,
    }
    name = call_id_digest(run.call_id)
    if "__interrupt__" in state:
        question = next(iter(guard.approvals.unused(run.thread, name)), None)
        if question is not None:
            return CallResult(
                effect="ask",
                sentence=question.reason,
                policies=question.policies,
                needs=guard.approvals.missing(guard.approvals.show(question.request)),
                request=question.request,
                **same,
            )
    row = guard.ledger.first(newest_of_call(run.job, run.thread, name))
    if row is None:
        policies = _refused_by(guard, run)
        return CallResult(effect="deny", sentence=words, policies=policies, **same)
    same["request"] = row.digest
    interrupts = tuple(each.value for each in state.get("__interrupt__", ()))
    if interrupts:
        return CallResult(
            effect="permit",
            sentence=row.reason,
            policies=row.policies,
            interrupts=interrupts,
            **same,
        )
    grant = guard.ledger.first(grant_of(row.digest))
    if grant is not None and grant.state in _RAN:
        outcome = guard.ledger.first(outcome_of(grant.id))
        return CallResult(
            effect="permit",
            sentence=row.reason,
            policies=row.policies,
            result=words,
            failed=grant.state is not GrantState.EXECUTED,
            assets=outcome.assets if outcome is not None else (),
            **same,
        )
    policies = row.policies if row.effect == Effect.DENY.value else _refused_by(guard, run)
    return CallResult(
        effect="deny", sentence=words or row.reason, policies=policies or row.policies, **same
    )


def _refused_by(guard: Guard, run: CallRun) -> tuple[str, ...]:
    """The rule by which a call was refused that no policy decided on, as the log has it."""
    key = call_key(job=run.job, thread=run.thread, source=run.source, call_id=run.call_id)
    storage = guard.ledger.storage
    with storage.long_read() as reader, closing(storage.records(reader, run.records)) as found:
        bodies = [json.loads(body) for _, body in found]
    rules = [
        body["policy"]
        for body in bodies
        if "policy" in body and (body.get("call") == key or _is_unmade(body, run))
    ]
    return tuple(rules[-1:])


def _is_unmade(body: Mapping[str, Any], run: CallRun) -> bool:
    return body.get("call") is None and (body.get("tool"), body.get("job")) == (run.tool, run.job)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
