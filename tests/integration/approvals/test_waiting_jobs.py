"""A job that waits for people: left, answered elsewhere, re-entered, expired, changed meanwhile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain.agents.middleware.human_in_the_loop import HITLRequest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from pydantic import TypeAdapter

from agentguard.errors import ApprovalError, JobError
from agentguard.model import JobState, Verdict
from tests.support import (
    CONFIG,
    INES,
    KIM,
    LEE,
    OMAR,
    Studio,
    build,
    call,
    open_studio,
    results,
    says,
)
from tests.support.bindings import Arg


def script(asset: str) -> list[AIMessage]:
    return [
        says(call("look", {"source": asset}, id="c1"), id="m1"),
        says(call("queue_for_release", {"asset": asset, "to": "site"}, id="c2"), id="m2"),
        says(call("export_asset", {"asset": asset, "to": "site"}, id="c3"), id="m3"),
    ]


def leave_waiting(
    studio: Studio, saver: Any, labels: Sequence[str] = ("brand",)
) -> tuple[str, str]:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), labels)
        graph = build(studio, script(asset), checkpointer=saver)
        graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
    assert job.state is JobState.WAITING
    return job.id, asset


def resume(studio: Studio, job_id: str, asset: str, saver: Any) -> Any:
    with studio.guard.rejoin_job(job_id, by=KIM) as job:
        graph = build(studio, script(asset), checkpointer=saver)
        state = graph.invoke(None, job.config(thread_id="t"))
    return state, job


def test_I9_a_waiting_job_keeps_its_question_and_nothing_live(studio: Studio) -> None:
    leave_waiting(studio, InMemorySaver())
    live = "SELECT count(*) AS n FROM credentials WHERE state = 'live'"
    row = studio.guard.ledger.one(live)
    assert row is not None
    assert row["n"] == 0
    assert "issued" not in studio.grants()
    assert studio.pending().state == "pending"


def test_a_waiting_job_is_answered_and_finished_by_another_process(tmp_path: Path) -> None:
    with SqliteSaver.from_conn_string(str(tmp_path / "threads.db")) as saver:
        first = open_studio(tmp_path)
        job_id, asset = leave_waiting(first, saver)
        first.guard.close()
        second = open_studio(tmp_path, clock=first.clock, keys=first.keys)
        second.clock.turn(seconds=3600)
        second.answer(second.pending().request, OMAR)
        state, job = resume(second, job_id, asset, saver)
        assert results(state)[-1].status == "success", results(state)[-1].content
        assert len(second.exported()) == 1
        assert job.state is JobState.ENDED
        second.guard.close()


def test_S22_an_answer_after_the_window_is_refused_and_the_job_ends(studio: Studio) -> None:
    saver = InMemorySaver()
    job_id, _ = leave_waiting(studio, saver)
    request = studio.pending().request
    studio.clock.turn(seconds=25 * 3600)
    with pytest.raises(ApprovalError, match="window closed"):
        studio.answer(request, OMAR)
    studio.guard.ledger.sweep()
    with pytest.raises(JobError, match="ended"):
        studio.guard.rejoin_job(job_id, by=KIM)
    assert studio.exported() == []


def test_S22_an_approval_given_in_time_expires_with_the_window(tmp_path: Path) -> None:
    studio = open_studio(tmp_path, config=CONFIG + '\n[lifetimes]\nlease = "10m"\n')
    saver = InMemorySaver()
    with studio.guard, studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        graph = build(studio, script(asset), checkpointer=saver)
        config = job.config(thread_id="t")
        graph.invoke({"messages": [("user", "go")]}, config)
        studio.answer(studio.pending().request, OMAR)
        for _ in range(25 * 3600 // 500):
            studio.clock.turn(seconds=500)
            job.renew()
        state = graph.invoke(None, config)
    assert results(state)[-1].status == "error"
    assert "window closed" in results(state)[-1].content
    assert studio.exported() == []


def test_only_the_requester_or_a_service_may_rejoin(studio: Studio) -> None:
    job_id, _ = leave_waiting(studio, InMemorySaver())
    with pytest.raises(JobError, match="only kim"):
        studio.guard.rejoin_job(job_id, by=OMAR)


def test_S20_S31_regulated_media_needs_two_people_one_of_legal(studio: Studio) -> None:
    saver = InMemorySaver()
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["regulated"])
        graph = build(studio, script(asset), checkpointer=saver)
        config = job.config(thread_id="t")
        state = graph.invoke({"messages": [("user", "go")]}, config)
        asked = state["__interrupt__"][0].value["agentguard"]
        assert (asked["approvals_needed"], asked["groups_needed"]) == (2, ["legal"])
        studio.answer(studio.pending().request, INES)
        with pytest.raises(ApprovalError, match=r"would not count; missing: 1 .* legal"):
            studio.answer(studio.pending().request, LEE)
        assert "__interrupt__" in graph.invoke(None, config)  # nobody of legal yet
        studio.answer(studio.pending().request, OMAR, group="legal")
        state = graph.invoke(None, config)
    assert results(state)[-1].status == "success"
    assert len(studio.exported()) == 1


def test_only_member_of_needed_group_is_refused_without_it(studio: Studio) -> None:
    """Omar's answer stands, so without his group the question could never be completed."""
    leave_waiting(studio, InMemorySaver(), ["regulated"])
    request = studio.pending().request
    with pytest.raises(ApprovalError, match="answer as legal"):
        studio.answer(request, OMAR)
    assert studio.guard.ledger.answers(request) == ()
    studio.answer(request, OMAR, group="legal")
    assert studio.answer(request, LEE).state == "approved"


def test_redelivered_answers_count_a_person_once(studio: Studio) -> None:
    leave_waiting(studio, InMemorySaver(), ["regulated"])
    request = studio.pending().request
    studio.answer(request, OMAR, group="legal")
    with pytest.raises(ApprovalError, match="answered this before"):
        studio.answer(request, OMAR)
    assert studio.pending().state == "pending"


def test_S18_a_class_raised_after_the_approval_voids_it(studio: Studio) -> None:
    saver = InMemorySaver()
    job_id, asset = leave_waiting(studio, saver)
    studio.answer(studio.pending_any().request, OMAR)
    studio.guard.import_asset(studio.folder / "in.png", ["regulated"], by=INES)
    state, _ = resume(studio, job_id, asset, saver)
    assert "not what was decided on" in results(state)[-1].content
    assert studio.exported() == []


@pytest.mark.parametrize("column", ["held", "recalled"])
def test_S18_a_hold_or_recall_after_the_approval_stops_the_export(
    studio: Studio, column: str
) -> None:
    saver = InMemorySaver()
    job_id, asset = leave_waiting(studio, saver)
    studio.answer(studio.pending_any().request, OMAR)
    row = studio.guard.ledger.one("SELECT sha256 FROM assets WHERE id = ?", asset)
    assert row is not None
    studio.guard.ledger.mark_asset(row["sha256"], column=column, value=True, by=OMAR)
    state, _ = resume(studio, job_id, asset, saver)
    said = {"held": "legal hold", "recalled": "recalled"}[column]
    assert said in results(state)[-1].content
    assert studio.exported() == []


def test_I12_bytes_swapped_in_the_store_after_the_approval_are_refused(studio: Studio) -> None:
    saver = InMemorySaver()
    job_id, asset = leave_waiting(studio, saver)
    studio.answer(studio.pending_any().request, OMAR)
    row = studio.guard.ledger.one("SELECT sha256 FROM assets WHERE id = ?", asset)
    assert row is not None
    sha256 = row["sha256"]
    stored = studio.folder / ".agentguard" / "assets" / sha256[:2] / sha256
    stored.chmod(0o600)
    stored.write_bytes(studio.picture("evil.png", "red").read_bytes())
    state, _ = resume(studio, job_id, asset, saver)
    assert "changed" in results(state)[-1].content
    assert studio.exported() == []


def test_without_a_checkpointer_an_ask_is_denied_saying_so(studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        graph = build(studio, script(asset), checkpointer=False)
        state = graph.invoke({"messages": [("user", "go")]}, job.config())
    assert "checkpointer" in results(state)[-1].content
    assert studio.exported() == []


def test_the_interrupt_is_in_the_stock_schemas(studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        graph = build(studio, script(asset))
        state = graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
    value = state["__interrupt__"][0].value
    TypeAdapter(HITLRequest).validate_python(value)
    assert value["type"] == "tool_approval"
    assert value["tool_call_id"] == "c3"
    assert value["action_requests"][0]["args"] == value["action_requests"][0]["arguments"]
    json.dumps(value)


def test_a_no_ends_the_question(studio: Studio) -> None:
    saver = InMemorySaver()
    job_id, asset = leave_waiting(studio, saver)
    studio.answer(studio.pending_any().request, OMAR, Verdict.DENY)
    studio.guard.ledger.sweep()
    state, job = resume(studio, job_id, asset, saver)  # within the window, to be told
    assert "a person said no" in results(state)[-1].content
    assert job.state is JobState.ENDED
    assert studio.exported() == []


def test_S22_a_no_keeps_a_job_waiting_until_its_window_closes_and_no_longer(studio: Studio) -> None:
    job_id, asset = leave_waiting(studio, saver := InMemorySaver())
    studio.answer(studio.pending_any().request, OMAR, Verdict.DENY)
    studio.clock.turn(seconds=25 * 3600)
    studio.guard.ledger.sweep()
    with pytest.raises(JobError, match="ended"):
        resume(studio, job_id, asset, saver)
    row = studio.guard.ledger.one("SELECT reason FROM jobs WHERE id = ?", job_id)
    assert row is not None
    assert row["reason"] == "nothing in it waits for an answer any more"


def test_I7_what_a_client_writes_into_a_question_reaches_no_call(studio: Studio) -> None:
    """A payload is for showing: what a screen does to it, in this process, is not what runs."""
    saver = InMemorySaver()
    sent: list[tuple[list[str], str]] = []

    @tool
    def send(sources: list[str], to: str) -> str:
        """Send pictures."""
        sent.append((sources, to))
        return "sent"

    studio.bind(send, stage="export", assets=["sources[]"], destination=Arg("to"), effect="opaque")
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["likeness"])
        script = [says(call("send", {"sources": [asset], "to": "team"}, id="c1"), id="m1")]
        graph = build(studio, script, {"tools": ("publisher", ["send"])}, checkpointer=saver)
        config = job.config(thread_id="t")
        (asked,) = graph.invoke({"messages": [("user", "go")]}, config)["__interrupt__"]
        for shown in (asked.value["args"], asked.value["action_requests"][0]["args"]):
            shown["sources"] *= 2
            shown["to"] = "site"
        studio.answer(studio.pending().request, OMAR)
        assert results(graph.invoke(None, config))[-1].status == "success"
    ((sources, to),) = sent
    assert (len(sources), to) == (1, "team")
