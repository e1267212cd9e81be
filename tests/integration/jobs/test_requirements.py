"""Requirements of the mission through a real graph; each test carries the ids that it proves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import tool
from pydantic import BaseModel

from agentguard.calls.call import Call
from agentguard.errors import BindingError
from tests.support import (
    CONFIG,
    KIM,
    LEE,
    OMAR,
    Studio,
    build,
    call,
    open_studio,
    results,
    run_script,
    says,
)
from tests.support.bindings import Arg, Binding

SIZE = {"width": 8, "height": 8}


def run(studio: Studio, job: Any, *messages: Any, thread: str = "t", **kwargs: Any) -> list[Any]:
    graph = build(studio, messages, **kwargs)
    state = graph.invoke({"messages": [("user", "go")]}, job.config(thread_id=thread))
    return [*results(state), *state.get("__interrupt__", ())]


def assets(studio: Studio) -> dict[str, Any]:
    return {row["id"]: row for row in studio.guard.ledger.all("SELECT * FROM assets")}


def test_S17_S28_an_approved_asset_does_not_leave_by_another_stages_agent(studio: Studio) -> None:
    """The draft agent has the tool in its node by mistake: the graph is not even built."""
    for agent in ("editor", "painter", "renderer", "reviewer", "traffic"):
        with pytest.raises(BindingError, match="export stage"):
            build(studio, [], {"t": (agent, ["publish"])})


def test_S28_a_draft_tool_cannot_be_bound_to_a_destination(studio: Studio) -> None:
    @tool
    def convert_and_publish(source: str, to: str) -> str:
        """Convert a picture and put it on the site."""
        return ""

    for stage in ("generate", "edit", "render", "review"):
        binding = Binding(
            convert_and_publish, stage=stage, assets=["source"], destination=Arg("to"),
            effect="opaque",
        )  # fmt: skip
        with pytest.raises(BindingError, match=r"split it|only the export"):
            _bind_constant(studio, convert_and_publish, stage)
        with pytest.raises(BindingError, match=r"split it|only the export"):
            studio.guard.bind(binding)


def _bind_constant(studio: Studio, made: Any, stage: str) -> None:
    studio.guard.bind(
        Binding(made, stage=stage, assets=["source"], plain=["to"], destination="site",
                effect="opaque")
    )  # fmt: skip


def test_S8_the_class_survives_crop_copy_and_reimport(studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        source = job.import_asset(studio.picture(size=64), ["customer-data"])
        (first,) = run(studio, job, says(call("crop", {"source": source, **SIZE})))
        assert first.status == "success"
        (made,) = set(assets(studio)) - {source}
        assert json.loads(assets(studio)[made]["labels"]) == ["customer-data"]
        # Somebody copies the bytes out of the store and imports them as something harmless.
        sha256 = assets(studio)[made]["sha256"]
        copy = studio.folder / "harmless.png"
        copy.write_bytes(
            (studio.folder / ".agentguard" / "assets" / sha256[:2] / sha256).read_bytes()
        )
        again = job.import_asset(copy, ["brand"])
    assert again == made
    assert json.loads(assets(studio)[made]["labels"]) == ["brand", "customer-data"]


def test_S33_what_has_no_known_origin_is_unclassified(studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture())
    assert json.loads(assets(studio)[asset]["labels"]) == ["unclassified"]


def test_S5_every_output_says_what_it_was_made_from_by_whom(studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        source = job.import_asset(studio.picture(size=64), ["brand"])
        run(studio, job, says(call("crop", {"source": source, **SIZE})))
    (made,) = set(assets(studio)) - {source}
    ledger = studio.guard.ledger
    (line,) = ledger.all("SELECT * FROM lineage WHERE child = ?", assets(studio)[made]["sha256"])
    (origin,) = ledger.all("SELECT * FROM origins WHERE sha256 = ?", assets(studio)[made]["sha256"])
    (grant,) = ledger.all("SELECT * FROM grants WHERE state = 'executed'")
    assert line["parent"] == assets(studio)[source]["sha256"]
    assert line["grant_id"] == grant["id"] == origin["source"]
    assert (origin["tool"], origin["agent"]) == ("crop", "editor")
    assert ledger.one("SELECT 1 FROM credentials WHERE id = ?", origin["credential"])


def test_S15_S27_every_execution_joins_one_chain_of_records(studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        run(
            studio, job,
            says(call("paint", {"prompt": "a calm sea", "colour": "navy"})),
            says(call("publish", {"source": asset, "to": "team"})),
        )  # fmt: skip
    records = [
        json.loads(row["body"])
        for row in studio.guard.ledger.all("SELECT body FROM records ORDER BY idx")
    ]
    for request in {r["request"] for r in records if r["kind"] == "finished"}:
        chain = [r["kind"] for r in records if r.get("request") == request]
        assert chain == ["decided", "claimed", "finished"]
    shown = [r["shown"] for r in records if r["kind"] == "decided"]
    assert shown[0]["args"]["prompt"] == "a calm sea"
    assert shown[1]["destination"] == "team"
    assert shown[1]["assets"][0]["asset"] == asset


def test_S19_a_grant_is_for_one_thing_and_for_a_minute(studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        run(studio, job, says(call("paint", {"prompt": "a calm sea", "colour": "navy"})))
    (grant,) = studio.guard.ledger.all("SELECT * FROM grants")
    assert grant["expires_at"] - grant["issued_at"] == 60_000
    (request,) = studio.guard.ledger.all("SELECT * FROM requests")
    assert grant["request"] == request["digest"]
    assert grant["policy_version"] == studio.guard.policy.digest


def test_S14_a_credential_that_expired_before_the_claim_is_refused(studio: Studio) -> None:
    from agentguard.calls.arguments import CallArguments
    from agentguard.langgraph.runtime import CallContext
    from agentguard.model import Obstacle

    with studio.guard.open_job("poster", requested_by=KIM) as job:
        arguments = CallArguments(studio.guard.bound["paint"], {"prompt": "x", "colour": "red"})
        context = CallContext.from_config(
            studio.guard.enforcement, job.config(thread_id="t"), source="m1"
        )
        made = context.call(arguments, agent="painter", call_id="c1")
        assert isinstance(made, Call)
        studio.guard.enforcement.authorizer.authorize([made])
        for _ in range(16):  # the lease is kept, the credential is not renewed
            studio.clock.turn(seconds=20)
            studio.guard.ledger.renew_lease(job.id, epoch=job.epoch, lease=30_000)
        refused = studio.guard.enforcement.claims.claim(made)
        assert isinstance(refused, Obstacle)
        assert "credential" in refused.sentence


def test_S1_S12_a_call_in_an_ended_job_is_denied_and_recorded(studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        studio.guard.ledger.end_job(job.id, reason="stopped by hand")
        (answer,) = run(
            studio, job, says(call("paint", {"prompt": "x", "colour": "red"})), thread="u"
        )
    assert answer.status == "error"
    assert studio.world.effects == []
    kinds = [
        json.loads(r["body"])["kind"] for r in studio.guard.ledger.all("SELECT * FROM records")
    ]
    assert "refused" in kinds


def test_S2_an_unlisted_agent_or_stage_is_refused_at_build_time(studio: Studio) -> None:
    for agent, names in (("nobody", ["paint"]), ("painter", ["crop"]), ("editor", ["look"])):
        with pytest.raises(BindingError):
            build(studio, [], {"t": (agent, names)})


def test_S11_an_agent_who_left_the_configuration_keeps_nothing(tmp_path: Path) -> None:
    first = open_studio(tmp_path)
    job = first.guard.open_job("poster", requested_by=KIM)
    job.credential(first.guard.workspace.agents["painter"], next(iter(
        first.guard.workspace.agents["painter"].stages)))  # fmt: skip
    first.guard.close()  # the process dies: nothing was left
    config = CONFIG.replace('painter = { stages = ["generate"], owner = "kim@acme.example" }\n', "")
    (tmp_path / "agentguard.toml").write_text(config)
    second = open_studio(tmp_path, clock=first.clock, keys=first.keys)
    (row,) = second.guard.ledger.all("SELECT state FROM credentials")
    assert row["state"] == "revoked"
    second.guard.close()


def test_S18_a_policy_tightened_after_the_approval_is_what_counts(tmp_path: Path) -> None:
    from langgraph.checkpoint.memory import InMemorySaver

    saver = InMemorySaver()
    first = open_studio(tmp_path)
    with first.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(first.picture(), ["likeness"])
        script = [says(call("publish", {"source": asset, "to": "team"}))]
        graph = build(first, script, checkpointer=saver)
        graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
    first.answer(first.pending().request, OMAR)
    first.guard.close()
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "acme.cedar").write_text(
        '@id("acme.no-likeness") @advice("{asset} shows a person")\n'
        'forbid (principal, action in Action::"stage:export", resource)'
        ' when { resource.labels.contains("likeness") };'
    )
    second = open_studio(tmp_path, clock=first.clock, keys=first.keys)
    with second.guard.rejoin_job(job.id, by=KIM) as again:
        graph = build(second, script, checkpointer=saver)
        state = graph.invoke(None, again.config(thread_id="t"))
    assert "shows a person" in results(state)[-1].content
    assert second.world.count("publish") == 0
    second.guard.close()


def test_S7_a_secret_in_any_argument_is_refused_and_written_nowhere(studio: Studio) -> None:
    canary = "AKIA" + "IOSFODNN7" + "EXAMPLQ"
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        answers = run(
            studio, job,
            says(call("paint", {"prompt": f"use {canary} please", "colour": "navy"})),
            says(call("publish", {"source": asset, "to": canary})),
            says(call("publish", {"source": canary, "to": "team"})),
            says(call("crop", {"source": asset, "width": 1, "height": 1, canary: 1})),
        )  # fmt: skip
    assert [a.status for a in answers] == ["error"] * 4
    assert studio.world.effects == []
    for message in answers[:3]:
        assert canary not in message.content
    studio.guard.close()
    for file in studio.folder.rglob("*"):
        if file.is_file():
            assert canary.encode() not in file.read_bytes(), file


class Shot(BaseModel):
    a: str
    b: str


@pytest.mark.parametrize(
    "notes",
    [
        {"first": "AKIA", "second": "IOSFODNN7EXAMPLQ"},
        {"first": "use AKIAIOSF", "second": "ODNN7EXAMPLQ please"},
        {"second": "ODNN7EXAMPLQ", "first": "AKIAIOSF"},  # put together in the tool's own order
        {"items": ["AKIA", "IOSF", "ODNN", "7EXA", "MPLQ"]},
        {"items": list("AKIAIOSFODNN7EXAMPLQ")},
        {"first": "use AKIAIOSF", "items": ["ODNN7EXA", "MPLQ"]},
        {"shots": [{"a": "AKIA", "b": "IOSF"}, {"a": "ODNN7EXA", "b": "MPLQ"}]},
        {"first": "c2stYW50LWFwaTAzLUFiM2RFZjdoSTJr", "second": "TG05cFEwclM0dFU2dlcxeFo1eUI4YzJE"},
    ],
)
def test_secret_over_several_arguments_is_refused(studio: Studio, notes: dict[str, Any]) -> None:
    """In pieces too short to be one, of one call."""

    @tool
    def write(
        first: str = "",
        second: str = "",
        items: list[str] | None = None,
        shots: list[Shot] | None = None,
    ) -> str:
        """Write something down."""
        studio.world.effects.append(("write", first + second))
        return "ok"

    bind = Binding(
        write, stage="edit", texts=["first", "second", "items[]", "shots[].a", "shots[].b"]
    )
    studio.guard.bind(bind)
    studio.tools["write"] = write
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        (answer,) = run(
            studio, job, says(call("write", notes)), nodes={"edit_tools": ("editor", ["write"])}
        )
    assert answer.status == "error"
    assert "secret" in answer.content
    assert studio.world.effects == []


def test_prose_in_several_arguments_is_no_secret(studio: Studio) -> None:
    from agentguard.content.text.scan import secrets_across

    texts = [
        "site",
        "ASIA TOUR 12 JUNE",
        "14 JULY 2025, 16:9",
        "asia",
        "sk",
        "4K B-roll",
        "key-visual",
    ]
    assert secrets_across(texts) == ()


def test_S32_nobody_but_configured_people_asks_for_work(studio: Studio) -> None:
    from agentguard.errors import JobError

    with pytest.raises(JobError, match="no configured person"):
        studio.guard.open_job("poster", requested_by="mallory@evil.example")


def test_S30_an_internal_draft_interrupts_nobody(studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand", "customer-data"])
        (answer,) = run(studio, job, says(call("export_asset", {"asset": asset, "to": "team"})))
    assert answer.status == "success", answer.content
    assert len(studio.exported("team")) == 1


def test_S35_after_all_this_the_log_verifies(studio: Studio) -> None:
    from agentguard.ledger.open import checkpoints_of, open_ledger

    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        run(studio, job, says(call("export_asset", {"asset": asset, "to": "team"})))
    studio.guard.close()
    ledger = open_ledger(studio.guard.workspace, clock=studio.clock)
    from agentguard.ledger.verify import verify

    report = verify(ledger.storage, checkpoints_of(studio.guard.workspace))
    assert report.records > 5
    ledger.storage.close()


def test_list_assets_names_no_other_jobs_assets(studio: Studio) -> None:
    nodes = {"e": ("editor", ["crop", "list_assets"]), "p": ("painter", ["paint"])}
    with studio.guard.open_job("A", requested_by=KIM) as first:
        photo = first.import_asset(studio.picture(size=48), ["customer-data"])
        run_script(
            studio,
            first,
            says(call("crop", {"source": photo, "width": 24, "height": 24})),
            nodes=nodes,
        )
    with studio.guard.open_job("B", requested_by=LEE) as second:
        _, state = run_script(
            studio,
            second,
            says(call("paint", {"prompt": "x", "colour": "navy"})),
            says(call("list_assets", {})),
            nodes=nodes,
            thread="b",
        )
    assert photo not in results(state)[-1].content
