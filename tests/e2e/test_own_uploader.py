"""A developer's own uploader bound to the export stage: it gets the gate and the grant."""

from __future__ import annotations

from tests.support import Studio, build, call, results, says
from tests.support.bindings import Arg, Binding
from tools.export import outbox_uploader


def test_the_example_uploader_waits_for_a_person_and_uploads_once(studio: Studio) -> None:
    outbox = studio.folder / "press"
    outbox.mkdir()
    upload = outbox_uploader({"site": outbox, "team": outbox})
    studio.tools["publish_to_outbox"] = upload
    studio.guard.bind(
        Binding(
            upload,
            stage="export",
            assets=["source"],
            plain=["idempotency_key"],
            destination=Arg("to"),
            effect="idempotent",
        )
    )
    nodes = {
        "queue_tools": ("traffic", ["queue_for_release"]),
        "export_tools": ("publisher", ["publish_to_outbox"]),
    }
    with studio.guard.open_job("press kit", requested_by="kim@acme.example") as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        graph = build(
            studio,
            [
                says(call("queue_for_release", {"asset": asset, "to": "site"})),
                says(call("publish_to_outbox", {"source": asset, "to": "site"})),
            ],
            nodes,
        )
        config = job.config(thread_id="t")
        assert "__interrupt__" in graph.invoke({"messages": [("user", "go")]}, config)
        assert [p for p in outbox.iterdir() if p.is_file()] == []
        studio.answer(studio.pending().request, "omar@acme.example")
        state = graph.invoke(None, config)
    assert results(state)[-1].status == "success", results(state)[-1].content
    assert str(outbox) not in results(state)[-1].content
    (uploaded,) = [p for p in outbox.iterdir() if p.is_file()]
    assert uploaded.read_bytes() == (studio.folder / "in.png").read_bytes()
