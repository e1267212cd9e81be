"""Time travel, forks, `update_state` and what a resume can carry (traps 1-4, 6)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, RemoveMessage
from langgraph.types import RetryPolicy, Send

from agentguard.errors import LedgerUnavailable
from tests.attacks.matrix import GATES, GRAPHS, NODES, SAVERS, attack
from tests.support import says

if TYPE_CHECKING:
    from tests.attacks.driving import Way


def paused(way: Way, source: str) -> None:
    """A thread that waits for a person to let one picture be published."""
    way.start(way.publish(source, id="x1"), id="m1")
    assert way.pending
    assert way.published(source) == 0


def forged(way: Way, source: str, *, id: str = "m1") -> dict[str, Any]:
    """The waiting message, or one of another id, with another picture in the same call."""
    return {"messages": [says(way.publish(source, id="x1"), id=id)]}


@attack("trap-1", "update-state", savers=SAVERS)
def arguments_updated_with_the_resume(way: Way) -> None:
    mine, other = way.face(), way.face()
    paused(way, mine)
    way.approve()
    way.resume(
        update=forged(way, other), goto=Send(way.node("execute"), [way.publish(other, id="x1")])
    )


@attack("trap-1", "update-state", "fork")
def arguments_updated_before_the_approval(way: Way) -> None:
    """The person is shown what was asked, while the state holds something else already."""
    mine, other = way.face(), way.face()
    paused(way, mine)
    at = way.update_state(forged(way, other))
    way.approve()
    way.approved_ids.add("x1")  # a bare gate that was answered once for this id
    way.invoke(None, way.config(**at["configurable"]))
    way.resume()


@attack("trap-1", "update-state", "fork", "time-travel", savers=SAVERS)
def arguments_updated_after_the_approved_call_ran(way: Way) -> None:
    mine, other = way.face(), way.face()
    paused(way, mine)
    way.approve()
    way.resume()
    assert way.published(mine) == 1
    waited = next(old for old in way.history() if old.interrupts or way.node("ask") in old.next)
    way.update_state(forged(way, other), at=waited)
    way.invoke(None)
    way.resume()


@attack("trap-3", "update-state", "as-node")
def a_call_put_into_the_state_as_every_node_in_turn(way: Way) -> None:
    mine, other = way.face(), way.face()
    paused(way, mine)
    way.approve()
    way.resume()
    for node in way.nodes:
        changes: tuple[dict[str, Any], ...] = (
            forged(way, other, id=f"m-{node}"),
            {"messages": []},
        )
        for values in changes:
            with way.upstream_may_refuse():
                way.update_state(values, as_node=node)
                way.invoke(None)


@attack("update-state", "message-edits", savers=SAVERS)
def the_message_renamed_so_that_its_call_runs_twice(way: Way) -> None:
    mine = way.face()
    paused(way, mine)
    way.approve()
    way.resume()
    assert way.published(mine) == 1
    again = says(way.publish(mine, id="x1"), id="m2")
    way.update_state({"messages": [RemoveMessage(id="m1"), again]}, as_node="model")
    way.invoke(None)
    way.resume()


@attack("update-state", "message-edits", bare=("protect", "middleware", "inline"))
def the_call_renamed_to_another_tool_and_back(way: Way) -> None:
    mine, other = way.face(), way.face()
    paused(way, mine)
    way.approve()
    way.resume()
    for number, source in enumerate((other, mine, other)):
        message = AIMessage("", id=f"m1-{number}", tool_calls=[way.publish(source, id="x1")])
        way.update_state({"messages": [message]}, as_node="model")
        way.invoke(None)


@attack("update-state", "message-edits", bare=("protect", "inline"))
def the_message_removed_while_it_waits(way: Way) -> None:
    """What waits is gone from the state; a forged one in its place is not what was approved."""
    mine, other = way.face(), way.face()
    paused(way, mine)
    way.approve()
    way.approved_ids.add("x1")
    with way.upstream_may_refuse():
        way.update_state({"messages": [RemoveMessage(id="m1"), *forged(way, other)["messages"]]},
                         as_node="model")  # fmt: skip
        way.invoke(None)
    way.resume()


@attack("trap-4", "time-travel", bare=("protect", "middleware", "inline"), gates=GATES)
def an_old_checkpoint_run_after_the_approval_was_used(way: Way) -> None:
    """As above, and the same answer is given again at each old interrupt."""
    mine = way.face()
    paused(way, mine)
    way.approve()
    way.resume()
    for old in [old for old in way.history() if old.next]:
        way.rerun(old)
        way.resume()


@attack("fork", "time-travel")
def a_fork_of_the_checkpoint_before_the_question(way: Way) -> None:
    mine, other = way.face(), way.face()
    paused(way, mine)
    way.approve()
    way.approved_ids.add("x1")
    first = way.history()[-2]
    at = way.update_state(forged(way, other), at=first, as_node="model")
    way.invoke(None, way.config(**at["configurable"]))
    at = way.update_state(forged(way, mine), at=first, as_node="model")
    way.invoke(None, way.config(**at["configurable"]))
    way.resume()
    way.rerun(first)


class Crash(BaseException):
    """The process goes away."""


def crash() -> None:
    raise Crash


@attack("trap-6", gates=GATES, savers=SAVERS)
def a_crash_after_the_effect_then_a_retry(way: Way) -> None:
    for durability in ("sync", "async", "exit"):
        way.durability = durability
        free = way.asset()
        way.scene.after_effect = crash
        with contextlib.suppress(Crash):
            way.start(way.publish(free))
        way.scene.after_effect = lambda: None
        for old in way.history()[:2]:
            way.rerun(old)
        way.invoke(None)
        if durability == "exit" and way.published(free) == 1:
            way.say("hello?")
    way.durability = None


@attack("trap-6", gates=GATES, own=True)
def an_effect_whose_outcome_was_lost(way: Way) -> None:
    """The ledger goes away while the tool runs: nobody can say what came of it."""
    free = way.asset()
    if way.guarded:
        finish = way.ground.guard.ledger.finish

        def gone(*_: Any, **__: Any) -> bool:
            raise LedgerUnavailable("the machine went away")

        way.ground.guard.ledger.finish = gone  # type: ignore[method-assign]
        way.start(way.publish(free))
        way.ground.guard.ledger.finish = finish  # type: ignore[method-assign]
    else:
        way.start(way.publish(free))
    for old in [old for old in way.history() if old.next]:
        way.rerun(old)


@attack("retries", gates=GRAPHS)
def a_retry_policy_runs_a_tool_again(way: Way) -> None:
    way.retries = RetryPolicy(max_attempts=3, initial_interval=0.001, jitter=False,
                              retry_on=Exception)  # fmt: skip
    if way.column.gate == "middleware":
        from langchain.agents.middleware import ToolRetryMiddleware

        way.inner.append(ToolRetryMiddleware(max_retries=2, initial_delay=0, jitter=False))
    free = way.asset()

    def lost() -> None:
        raise ConnectionError("the answer was lost")

    way.scene.after_effect = lost
    try:
        way.start(way.publish(free))
    except ConnectionError:
        assert not way.guarded


@attack("interrupt-before", gates=NODES, savers=SAVERS)
def the_state_edited_between_the_gate_and_the_tool(way: Way) -> None:
    """A breakpoint stops the graph where the gate has decided and the tool has not run."""
    way.compile_with = {"interrupt_before": [way.node("execute")]}
    free, other = way.asset(), way.face()
    way.start(way.publish(free, id="x1"), id="m1")
    way.rights.clear()  # nobody let the other one through
    way.approved_ids.add("x1")
    way.rights[(way.digests[free], "team", way.scene.driver)] += 1
    way.update_state(forged(way, other), as_node="model")
    for _ in range(4):
        way.invoke(None)
    way.goto(Send(way.node("execute"), [way.publish(other, id="x1")]))
    for _ in range(2):
        way.invoke(None)
    way.compile_with = {}
    way.rebuild()
