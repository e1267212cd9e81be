"""Permit, ask and deny through `protect`: every call passes the gate once."""

from __future__ import annotations

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
