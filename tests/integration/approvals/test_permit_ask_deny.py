"""Permit, ask and deny through `protect`: every call passes the gate once."""

from __future__ import annotations

from langchain_core.messages import AIMessage

from agentguard.jobs.job import Job
from tests.support import INES, KIM, OMAR, Studio, build, call, results, run_script, says


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


def export_script(studio: Studio, job: Job) -> tuple[str, list[AIMessage]]:
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


def test_I7_the_approver_is_shown_what_is_sent_word_for_word(studio: Studio) -> None:
    captions = [
        "Write to press@acme.example or call +49 30 9018 2000",
        "Write to nobody@evil.example or call +49 900 666 6666 " + "and more " * 900 + "END",
    ]
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        for number, caption in enumerate(captions):
            _, state = run_script(
                studio,
                job,
                says(call("queue_for_release", {"asset": asset, "to": "site"})),
                says(call("export_asset", {"asset": asset, "to": "site", "caption": caption})),
                thread=f"t{number}",
            )
            assert state["__interrupt__"][0].value["args"]["caption"] == caption
    shown = [approval.arguments["caption"] for approval in studio.guard.approvals.list()]
    assert sorted(shown) == sorted(captions)
    logged = studio.guard.ledger.all("SELECT body FROM requests WHERE tool = 'export_asset'")
    assert not any("press@acme.example" in row["body"] for row in logged)


def test_an_unreadable_signers_file_denies_and_raises_nothing(studio: Studio) -> None:
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["likeness"])
        message = says(call("publish", {"source": asset, "to": "team"}))
        graph, _ = run_script(studio, job, message)
        config = job.config(thread_id="t")
        studio.answer(studio.pending().request, OMAR)
        signers = studio.folder / "agentguard.signers"
        sound = signers.read_text()
        signers.write_text(sound + "nonsense\n")
        state = graph.invoke(None, config)
        assert "__interrupt__" in state
        assert studio.world.count("publish") == 0
        signers.write_text(sound)
        graph.invoke(None, config)
    assert studio.world.count("publish") == 1


def test_more_may_answer_when_the_policy_came_to_want_more(studio: Studio) -> None:
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["likeness"])
        message = says(call("publish", {"source": asset, "to": "team"}))
        graph, _ = run_script(studio, job, message)
        studio.answer(studio.pending().request, OMAR)
        signers = studio.folder / "agentguard.signers"
        kept = [line for line in signers.read_text().splitlines() if not line.startswith(OMAR)]
        signers.write_text("\n".join(kept) + "\n")  # omar's key was withdrawn
        assert "__interrupt__" in graph.invoke(None, job.config(thread_id="t"))
        studio.answer(studio.pending_any().request, INES)
        graph.invoke(None, job.config(thread_id="t"))
    assert studio.world.count("publish") == 1
