"""A finding follows what is made from the asset until the same review tool clears it (I2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import tool
from typer.testing import CliRunner

from agentguard.cli.app import app
from agentguard.jobs.job import Job
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

NODES = {"e": ("editor", ["crop"]), "r": ("reviewer", ["strict", "spelling"]),
         "q": ("traffic", ["queue_for_release"]), "x": ("publisher", ["publish"])}  # fmt: skip
INTERNAL = '\n[destinations.intranet]\nurl = "file:out/intranet"\naudience = "internal"\n' \
    'environment = "production"\nceiling = ["brand", "generated"]\n'  # fmt: skip


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    studio = open_studio(tmp_path, config=CONFIG + INTERNAL)
    bad: set[int] = {32}  # widths in which the strict tool finds something
    studio.bad = bad  # type: ignore[attr-defined]

    @tool(response_format="content_and_artifact")
    def strict(source: str) -> tuple[str, dict[str, Any]]:
        """Review a picture strictly."""
        from PIL import Image

        with Image.open(source) as picture:
            wrong = picture.width in bad
        found = [{"severity": "error", "message": "a competitor's logo"}] if wrong else []
        return "looked", {"findings": found}

    @tool(response_format="content_and_artifact")
    def spelling(source: str) -> tuple[str, dict[str, Any]]:
        """Review a picture's spelling."""
        return "fine", {"findings": []}

    for one in (strict, spelling):
        studio.bind(one, stage="review", assets=["source"])
    with studio.guard:
        yield studio


def run(studio: Studio, job: Job, *calls: dict[str, Any], thread: str) -> dict[str, Any]:
    messages = [says(one) for one in calls]
    return run_script(studio, job, *messages, nodes=NODES, thread=thread)[1]


def review(studio: Studio, job: Job, tool_name: str, asset: str, thread: str) -> None:
    state = run(studio, job, call(tool_name, {"source": asset}), thread=thread)
    assert results(state)[-1].status == "success"


def cropped(studio: Studio, job: Job, asset: str, width: int) -> str:
    arguments = {"source": asset, "width": width, "height": 16}
    state = run(studio, job, call("crop", arguments), thread=f"crop-{asset[-4:]}-{width}")
    text = results(state)[-1].content
    row = studio.guard.ledger.one(
        "SELECT id FROM assets WHERE width = ? AND height = 16 ORDER BY created_at DESC", width
    )
    assert row is not None, text
    return str(row["id"])


def export(studio: Studio, job: Job, asset: str) -> dict[str, Any]:
    return run(
        studio,
        job,
        call("queue_for_release", {"asset": asset, "to": "intranet"}),
        call("publish", {"source": asset, "to": "intranet"}),
        thread=f"x-{asset[-4:]}-{studio.guard.ledger.clock()}-{len(studio.world.effects)}",
    )


def test_a_crop_and_a_friendlier_review_do_not_clear_it(studio: Studio) -> None:
    with studio.guard.open_job("j", requested_by=LEE) as job:
        picture = job.import_asset(studio.picture(), ["brand"])
        review(studio, job, "strict", picture, "1")
        crop = cropped(studio, job, picture, 31)
        review(studio, job, "spelling", crop, "2")
        state = export(studio, job, crop)
        assert "__interrupt__" in state, results(state)[-1].content
        assert studio.world.count("publish") == 0
        said = state["__interrupt__"][0].value["description"]
        assert f"strict found something wrong with {picture}" in said
        approval = studio.pending()
        assert approval.shown["findings"] == [
            {"asset": crop, "reviewed": picture, "tool": "strict"}
        ]
        shown = CliRunner().invoke(
            app, ["approvals", "show", approval.request[:16]],
            env={"AGENTGUARD_CONFIG": str(studio.folder / "agentguard.toml")},
        )  # fmt: skip
        assert "a competitor's logo" in " ".join(shown.output.split()), shown.output


def test_the_same_tool_clears_what_was_made(studio: Studio) -> None:
    with studio.guard.open_job("j", requested_by=LEE) as job:
        picture = job.import_asset(studio.picture(), ["brand"])
        review(studio, job, "strict", picture, "1")
        crop = cropped(studio, job, picture, 31)
        review(studio, job, "strict", crop, "2")
        assert "__interrupt__" not in export(studio, job, crop)
        smaller = cropped(studio, job, crop, 15)
        review(studio, job, "spelling", smaller, "3")
        assert "__interrupt__" not in export(studio, job, smaller)


def test_a_sibling_is_not_cleared(studio: Studio) -> None:
    with studio.guard.open_job("j", requested_by=LEE) as job:
        picture = job.import_asset(studio.picture(), ["brand"])
        review(studio, job, "strict", picture, "1")
        crop, other = cropped(studio, job, picture, 31), cropped(studio, job, picture, 30)
        review(studio, job, "strict", crop, "2")
        review(studio, job, "spelling", other, "3")
        assert "__interrupt__" in export(studio, job, other)


def test_a_finding_after_the_crop_counts(studio: Studio) -> None:
    with studio.guard.open_job("j", requested_by=LEE) as job:
        picture = job.import_asset(studio.picture(), ["brand"])
        crop = cropped(studio, job, picture, 31)
        review(studio, job, "spelling", crop, "1")
        review(studio, job, "strict", picture, "2")
        assert "__interrupt__" in export(studio, job, crop)


def test_the_same_bytes_are_never_cleared(studio: Studio) -> None:
    with studio.guard.open_job("j", requested_by=LEE) as job:
        picture = job.import_asset(studio.picture(), ["brand"])
        review(studio, job, "strict", picture, "1")
        studio.bad.clear()  # type: ignore[attr-defined]
        review(studio, job, "strict", picture, "2")
        assert "__interrupt__" in export(studio, job, picture)


@pytest.mark.parametrize("made", [False, True])
def test_a_new_job_does_not_lose_it(studio: Studio, made: bool) -> None:
    with studio.guard.open_job("j", requested_by=LEE) as job:
        picture = job.import_asset(studio.picture(), ["brand"])
        review(studio, job, "strict", picture, "1")
    with studio.guard.open_job("k", requested_by=LEE) as job:
        picture = job.import_asset(studio.picture(), ["brand"])
        asset = cropped(studio, job, picture, 31) if made else picture
        review(studio, job, "spelling", asset, "2")
        assert "__interrupt__" in export(studio, job, asset)


def test_a_clean_review_counts_in_its_own_job(studio: Studio) -> None:
    with studio.guard.open_job("j", requested_by=LEE) as job:
        picture = job.import_asset(studio.picture(), ["brand"])
        review(studio, job, "strict", picture, "1")
        crop = cropped(studio, job, picture, 31)
        review(studio, job, "strict", crop, "2")
    with studio.guard.open_job("k", requested_by=LEE) as job:
        picture = job.import_asset(studio.picture(), ["brand"])
        crop = cropped(studio, job, picture, 31)
        review(studio, job, "spelling", crop, "3")
        assert "__interrupt__" in export(studio, job, crop)


def test_a_person_may_approve_with_the_finding_shown(studio: Studio) -> None:
    with studio.guard.open_job("j", requested_by=LEE) as job:
        picture = job.import_asset(studio.picture(), ["brand"])
        review(studio, job, "strict", picture, "1")
        crop = cropped(studio, job, picture, 31)
        review(studio, job, "spelling", crop, "2")
        run(studio, job, call("queue_for_release", {"asset": crop, "to": "intranet"}), thread="q")
        graph = build(studio, [says(call("publish", {"source": crop, "to": "intranet"}))], NODES)
        config = job.config(thread_id="x")
        graph.invoke({"messages": [("user", "go")]}, config)
        studio.answer(studio.pending().request, OMAR)
        assert results(graph.invoke(None, config))[-1].status == "success"
        assert studio.world.count("publish") == 1


def test_a_failing_review_is_not_taken_back_by_another_tool(studio: Studio) -> None:
    nodes = {
        "r": ("reviewer", ["strict", "spelling"]),
        "q": ("traffic", ["queue_for_release"]),
        "e": ("publisher", ["export_asset"]),
    }
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["generated"])
        _, state = run_script(
            studio,
            job,
            says(call("strict", {"source": asset})),
            says(call("spelling", {"source": asset})),
            says(call("queue_for_release", {"asset": asset, "to": "site"})),
            says(call("export_asset", {"asset": asset, "to": "site"})),
            nodes=nodes,
        )
    assert "no clean review" in state["__interrupt__"][0].value["agentguard"]["reason"]
    assert studio.exported() == []


@pytest.mark.parametrize("how", ["class", "held", "recalled", "contributor"])
def test_I1_I4_what_happens_to_a_source_reaches_what_was_made_from_it(
    studio: Studio, how: str
) -> None:
    with studio.guard.open_job("p", requested_by=KIM) as job:
        source = job.import_asset(studio.picture(size=48), ["brand"])
        _, state = run_script(
            studio, job, says(call("crop", {"source": source, "width": 24, "height": 24}))
        )
        (made,) = studio.guard.ledger.all("SELECT * FROM assets WHERE width = 24")
        (parent,) = studio.guard.ledger.all("SELECT * FROM assets WHERE width = 48")
        if how in ("held", "recalled"):
            studio.guard.ledger.mark_asset(parent["sha256"], column=how, value=True, by=OMAR)
        else:
            studio.guard.import_asset(studio.folder / "in.png", ["likeness"], by=OMAR)
        to = "site" if how == "contributor" else "team"
        _, state = run_script(
            studio,
            job,
            says(call("queue_for_release", {"asset": made["id"], "to": "site"})),
            says(call("export_asset", {"asset": made["id"], "to": to})),
            thread="u",
        )
        if how == "contributor":
            approval = studio.pending()
            assert OMAR not in studio.guard.approvals.eligible(approval)
        elif how == "class":
            assert "likeness" in state["__interrupt__"][0].value["agentguard"]["reason"]
        else:
            assert results(state)[-1].status == "error"
    assert studio.exported("team") == []
    assert studio.exported("site") == []
