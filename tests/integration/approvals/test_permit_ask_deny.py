"""Permit, ask and deny through `protect`: every call passes the gate once."""

from __future__ import annotations

from typing import Any

from agentguard.jobs.job import Job
from tests.support import Studio, build, call, results, says


def test_a_permitted_call_runs_and_the_model_gets_an_asset_id(studio: Studio) -> None:
    graph = build(studio, [says(call("paint", {"prompt": "a lighthouse", "colour": "red"}))])
    with studio.guard.open_job("poster", requested_by="kim@acme.example") as job:
        state = graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
    (message,) = results(state)
    assert message.status == "success"
    assert "asset-" in message.content
    assert "/tmp" not in message.content
    assert studio.world.count("paint") == 1
    assert studio.grants() == ["executed"]


async def test_the_same_holds_asynchronously(studio: Studio) -> None:
    graph = build(studio, [says(call("paint", {"prompt": "a lighthouse", "colour": "red"}))])
    async with studio.guard.open_job("poster", requested_by="kim@acme.example") as job:
        state = await graph.ainvoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
    (message,) = results(state)
    assert message.status == "success"
    assert studio.grants() == ["executed"]


def export_script(studio: Studio, job: Job, tool: str = "export_asset") -> Any:
    asset = job.import_asset(studio.picture(), ["brand"])
    return asset, [
        says(call("look", {"source": asset})),
        says(call("queue_for_release", {"asset": asset, "to": "site"})),
        says(call("export_asset", {"asset": asset, "to": "site"}, id="x1")),
    ]


def test_S20_a_public_export_waits_for_a_person_and_then_runs_once(studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by="kim@acme.example") as job:
        _, script = export_script(studio, job)
        graph = build(studio, script)
        config = job.config(thread_id="t")
        state = graph.invoke({"messages": [("user", "go")]}, config)
        (interrupt,) = state["__interrupt__"]
        assert interrupt.value["agentguard"]["destination"] == "site"
        assert studio.exported() == []
        studio.answer(studio.pending().request, "omar@acme.example")
        state = graph.invoke(None, config)
    assert results(state)[-1].status == "success", results(state)[-1].content
    assert len(studio.exported()) == 1
    assert studio.guard.approvals.list() == ()


def test_a_resume_value_is_no_approval(studio: Studio) -> None:
    from langgraph.types import Command

    with studio.guard.open_job("poster", requested_by="kim@acme.example") as job:
        _, script = export_script(studio, job)
        graph = build(studio, script)
        config = job.config(thread_id="t")
        graph.invoke({"messages": [("user", "go")]}, config)
        for value in ({"decisions": [{"type": "approve"}]}, [{"type": "accept"}], True, "garbage"):
            state = graph.invoke(Command(resume=value), config)
            assert "Still waiting" in state["__interrupt__"][0].value["description"]
        assert studio.exported() == []
        studio.answer(studio.pending().request, "omar@acme.example")
        graph.invoke(None, config)
    assert len(studio.exported()) == 1
