"""A thread that is resumed although its job was left: the question waits, nothing is used up."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from langgraph.types import Command

from agentguard.calls.arguments import CallArguments
from agentguard.calls.asked_calls import CallState
from agentguard.calls.call import Call
from agentguard.langgraph.runtime import CallContext
from agentguard.model import JobState, Verdict
from tests.race.ways_in import graph_of, once
from tests.support import GO, KIM, OMAR, Studio, call, results, says

ANYHOW = {"configurable": {"thread_id": "t"}}


class Left(NamedTuple):
    """A graph that asked, and the job that it asked in, which was left."""

    graph: Any
    job: Any

    @property
    def config(self) -> Any:
        """What belongs to the job, from whoever is not in it."""
        return self.job.config(thread_id="t")


def leave(studio: Studio, way: str, mode: str = "sync") -> Left:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["likeness"])
        script = [says(call("publish", {"source": asset, "to": "team"}, id="c1"), id="m1")]
        graph = graph_of(studio, way, studio.tools["publish"], script)
        assert once(mode, graph, GO, job.config(thread_id="t"))["__interrupt__"]
    assert job.state is JobState.WAITING
    return Left(graph, job)


def finish(studio: Studio, left: Left, mode: str = "sync") -> Any:
    with studio.guard.rejoin_job(left.job.id, by=KIM) as job:
        return once(mode, left.graph, None, job.config(thread_id="t"))


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("way", ["protect", "middleware", "inline"])
def test_a_resume_outside_of_the_job_asks_again_and_says_how_to_enter_it(
    studio: Studio, way: str, mode: str
) -> None:
    left = leave(studio, way, mode)
    studio.answer(studio.pending().request, OMAR)
    for config, given in ((left.config, None), (ANYHOW, None), (left.config, Command(resume=True))):
        state = once(mode, left.graph, given, config)
        (asked,) = state["__interrupt__"]
        assert f'guard.rejoin_job("{left.job.id}"' in asked.value["description"]
        assert asked.value["args"]["to"] == "team"
        assert studio.world.count("publish") == 0
    assert results(finish(studio, left, mode))[-1].status == "success"
    assert studio.world.count("publish") == 1


@pytest.mark.parametrize("way", ["protect", "middleware", "inline"])
def test_a_resume_in_another_job_does_not_use_up_the_question_either(
    studio: Studio, way: str
) -> None:
    left = leave(studio, way)
    studio.answer(studio.pending().request, OMAR)
    with studio.guard.open_job("another", requested_by=OMAR):
        state = left.graph.invoke(None, left.config)  # says one job, stands in another (I6)
        assert state["__interrupt__"]
        assert studio.world.count("publish") == 0
    assert results(finish(studio, left))[-1].status == "success"


def test_what_nobody_can_answer_any_more_is_refused(studio: Studio) -> None:
    """A no, a closed window and an ended job have an end."""
    said_no = leave(studio, "protect")
    studio.answer(studio.pending().request, OMAR, Verdict.DENY)
    assert "belongs to no job" in results(said_no.graph.invoke(None, ANYHOW))[-1].content
    late = leave(studio, "protect")
    studio.clock.turn(seconds=25 * 3600)
    assert "is not open" in results(late.graph.invoke(None, late.config))[-1].content
    ended = leave(studio, "protect")
    studio.guard.ledger.end_job(ended.job.id, reason="a person stopped it")
    assert "is not open" in results(ended.graph.invoke(None, ended.config))[-1].content
    assert studio.world.count("publish") == 0


def test_a_call_that_nobody_asked_about_is_refused_as_ever(studio: Studio) -> None:
    left = leave(studio, "protect")
    fresh = {"configurable": {"thread_id": "another"}}
    assert "belongs to no job" in results(left.graph.invoke(GO, fresh))[-1].content
    assert studio.pending().state == "pending"


def test_an_edited_question_is_not_shown_again(studio: Studio) -> None:
    left = leave(studio, "protect")
    with studio.guard.ledger.storage._connections.writing() as connection:  # type: ignore[attr-defined]
        connection.execute("DROP TRIGGER approvals_fixed")
        connection.execute("DROP TRIGGER approvals_transition")
        connection.execute("UPDATE approvals SET question = replace(question, 'team', 'site')")
    state = left.graph.invoke(None, left.config)
    assert "__interrupt__" not in state
    assert results(state)[-1].status == "error"


def test_what_was_approved_but_not_claimed_when_its_job_was_left_runs_once_it_is_entered_again(
    studio: Studio,
) -> None:
    """Woken by the answer, and left before the tool: no Grant lies about that dies with the job."""
    left = leave(studio, "protect")
    studio.answer(studio.pending().request, OMAR)
    with studio.guard.rejoin_job(left.job.id, by=KIM) as job:
        (asset,) = [row["id"] for row in studio.guard.ledger.all("SELECT id FROM assets")]
        arguments = CallArguments(studio.guard.bound["publish"], {"source": asset, "to": "team"})
        context = CallContext.from_config(studio.guard.enforcement, job.config(thread_id="t"))
        woken = context.call(arguments, agent="publisher", call_id="c1")
        assert isinstance(woken, Call)
        assert studio.guard.enforcement.asked_calls.state_now(woken) is CallState.PERMITTED
        assert studio.grants() == []
    assert job.state is JobState.WAITING
    assert results(finish(studio, left))[-1].status == "success"
    assert studio.world.count("publish") == 1


def test_what_is_shown_again_says_whether_it_is_approved(studio: Studio) -> None:
    left = leave(studio, "protect")
    (asked,) = left.graph.invoke(None, left.config)["__interrupt__"]
    assert "Missing: 1 person" in asked.value["description"]
    studio.answer(studio.pending().request, OMAR)
    (asked,) = left.graph.invoke(None, left.config)["__interrupt__"]
    assert "approved; it runs when its job is resumed" in asked.value["description"]
    assert "Missing" not in asked.value["description"]
    assert asked.value["agentguard"]["approvals_needed"] == 0


@pytest.mark.parametrize("way", ["protect", "middleware", "inline"])
@pytest.mark.parametrize(
    ("name", "agent", "args"),
    [
        ("publish", "publisher", {"to": "site"}),
        ("crop", "editor", {"width": 1, "height": 1}),
    ],
)
def test_I6_another_call_under_the_same_ids_is_not_shown_the_question(
    studio: Studio, way: str, name: str, agent: str, args: dict[str, Any]
) -> None:
    """Whoever names its thread and its call like another tenant's learns nothing of that call."""
    leave(studio, "protect")
    (asset,) = [row["id"] for row in studio.guard.ledger.all("SELECT id FROM assets")]
    script = [says(call(name, {"source": asset, **args}, id="c1"), id="m1")]
    graph = graph_of(studio, way, studio.tools[name], script, agent=agent)
    state = graph.invoke(GO, ANYHOW)
    assert "__interrupt__" not in state
    assert "belongs to no job" in results(state)[-1].content
    assert studio.world.effects == []
    assert studio.pending().state == "pending"


def test_a_waiting_thread_in_a_new_job_asks_again_and_names_the_job_that_waits(
    studio: Studio,
) -> None:
    left = leave(studio, "protect")
    studio.answer(studio.pending().request, OMAR)
    with studio.guard.open_job("poster, again", requested_by=KIM) as job:
        gives: tuple[Any, ...] = (None, Command(resume=True))
        for given in gives:
            (asked,) = left.graph.invoke(given, job.config(thread_id="t"))["__interrupt__"]
            assert f'guard.rejoin_job("{left.job.id}"' in asked.value["description"]
        assert studio.world.count("publish") == 0
    assert results(finish(studio, left))[-1].status == "success"
    assert studio.world.count("publish") == 1


def test_a_thread_that_goes_on_in_another_job_is_told_that_its_call_was_decided_before(
    studio: Studio,
) -> None:
    """After a crash: what the old job began may have been done; nothing says that it was not."""
    script = [says(call("publish", {"source": "", "to": "team"}, id="c1"), id="m1")]
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        script[0].tool_calls[0]["args"]["source"] = asset
        graph = graph_of(studio, "protect", studio.tools["publish"], script)
        config = job.config(thread_id="t")
        graph.invoke(GO, config, interrupt_before=["tools.execute"])  # decided, and not run
    with studio.guard.open_job("again", requested_by=KIM) as job:
        again = job.import_asset(studio.folder / "in.png", ["brand"])
        assert again == asset
        state = graph.invoke(None, job.config(thread_id="t"))
    assert "decided on in an earlier job" in results(state)[-1].content
    assert studio.world.count("publish") == 0


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("way", ["protect", "middleware", "inline"])
def test_run_with_the_config_of_another_job_names_the_job_and_asks_nobody_anew(
    studio: Studio, way: str, mode: str
) -> None:
    """As a server does that opens a job for each request (I6)."""
    left = leave(studio, way, mode)
    for answered in (False, True):
        if answered:
            studio.answer(studio.pending().request, OMAR)
        with studio.guard.open_job("the next request", requested_by=KIM) as other:
            state = once(mode, left.graph, None, other.config(thread_id="t"))
        (asked,) = state["__interrupt__"]
        assert f'guard.rejoin_job("{left.job.id}"' in asked.value["description"]
        assert len(studio.guard.approvals.list(state=None)) == 1
        assert studio.world.count("publish") == 0
    assert results(finish(studio, left, mode))[-1].status == "success"
    assert studio.world.count("publish") == 1


@pytest.mark.parametrize("way", ["middleware", "inline"])
def test_equal_call_of_a_new_message_in_another_job_is_asked_there(
    studio: Studio, way: str
) -> None:
    """A model that numbers its calls gives each message a `c1`; an inline call has no message."""
    left = leave(studio, way)
    with studio.guard.open_job("the next request", requested_by=KIM) as other:
        asset = other.import_asset(studio.picture(), ["likeness"])
        script = [says(call("publish", {"source": asset, "to": "team"}, id="c1"), id="m2")]
        graph = graph_of(studio, way, studio.tools["publish"], script)
        (asked,) = once("sync", graph, GO, other.config(thread_id="t"))["__interrupt__"]
    waits_elsewhere = f'guard.rejoin_job("{left.job.id}"' in asked.value["description"]
    assert waits_elsewhere == (way == "inline")
    assert studio.world.count("publish") == 0
