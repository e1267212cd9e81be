"""A server that remembers: every output has the class of all that this job sent there (I4)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, ToolException, tool
from langgraph.types import Command

from agentguard.jobs.job import Job
from tests.support import CONFIG, KIM, call, results, says
from tests.support.bindings import Binding
from tests.support.desk import Desk, desk
from tests.support.media_files import png


class Canvas:
    """A server with one canvas per session: what was put there is in every later picture."""

    def __init__(self) -> None:
        self.put: list[str] = []
        self.entered, self.go = threading.Event(), threading.Event()

    def tools(self) -> dict[str, BaseTool]:
        @tool
        def place(image: str) -> str:
            """Place a picture on the canvas."""
            self.put.append(image)
            return "placed"

        @tool
        def snapshot(size: int, file: str = "s.png") -> str:
            """Save what is on the canvas."""
            self.entered.set()
            self.go.wait(5)
            Path(file).write_bytes(png(size=8 + size))
            return "saved"

        return {"place": place, "snapshot": snapshot}


@pytest.fixture
def canvas() -> Canvas:
    made = Canvas()
    made.go.set()
    return made


@pytest.fixture
def at(tmp_path: Path, canvas: Canvas) -> Iterator[Desk]:
    with desk(tmp_path) as made:
        yield bind(made, canvas)


def bind(made: Desk, canvas: Canvas, **more: Any) -> Desk:
    tools = canvas.tools()
    return made.bind(
        Binding(tools["place"], stage="edit", assets=["image"], **more),
        Binding(tools["snapshot"], stage="edit", plain=["size"], outputs=["file"],
                **({"remembers": ["place"]} | more)),
    )  # fmt: skip


def test_I4_a_later_output_has_the_class_of_all_that_was_sent_before(at: Desk) -> None:
    guard = at.studio.guard
    with guard.open_job("poster", requested_by=KIM) as job:
        at.act(job, "snapshot", size=1)
        assert at.labels() == {"unclassified"}  # of nothing known
        logo = guard.import_asset(at.studio.picture(), ["brand"], by="ines@acme.example",
                                  job=job.id)  # fmt: skip
        at.act(job, "place", image=logo)
        at.act(
            job, "place", image=job.import_asset(at.studio.picture("b.png", "red"), ["likeness"])
        )
        at.act(job, "snapshot", size=2)
        assert at.labels() == {"brand", "likeness"}
        second = at.made()[-1]
        assert len(at.parents(second["sha256"])) == 2
        people = guard.ledger.all(
            "SELECT person FROM contributors WHERE sha256 = ?", second["sha256"]
        )
        assert {row["person"] for row in people} == {"ines@acme.example", KIM}
        job.import_asset(at.studio.picture(), ["customer-data"])  # and rises with it
        assert at.labels() == {"brand", "likeness", "customer-data"}
    with guard.open_job("poster", requested_by=KIM) as other:  # this job sent nothing there
        at.act(other, "snapshot", size=5)
        assert at.labels() == {"unclassified"}
    guard.verify()


def test_what_was_only_asked_for_and_not_run_was_not_sent(at: Desk, canvas: Canvas) -> None:
    guard = at.studio.guard
    with guard.open_job("poster", requested_by=KIM) as job:
        logo = job.import_asset(at.studio.picture(), ["brand"])
        sha256 = guard.ledger.all("SELECT sha256 FROM assets")[0]["sha256"]
        guard.ledger.mark_asset(sha256, column="recalled", value=True, by=KIM)
        assert at.act(job, "place", image=logo).status == "error"
        assert at.act(job, "snapshot", size=1).status == "success"
        assert at.labels() == {"unclassified"}
    assert canvas.put == []


def test_given_and_remembered_assets_count_against_one_limit(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    @tool
    def collage(images: list[str], file: str = "c.png") -> str:
        """Save pictures beside what is on the canvas."""
        Path(file).write_bytes(png(size=9))
        return "saved"

    monkeypatch.setattr("agentguard.calls.inherited_labels.MAX_ASSETS", 2)
    at.bind(Binding(collage, stage="edit", assets=["images[]"], outputs=["file"],
                    remembers=["place"]))  # fmt: skip
    with at.studio.guard.open_job("poster", requested_by=KIM) as job:
        asset, other = (
            job.import_asset(at.studio.picture(f"{color}.png", color), ["brand"])
            for color in ("red", "blue")
        )
        at.act(job, "place", image=asset)
        assert at.act(job, "collage", images=[asset]).status == "success"
        answer = at.act(job, "collage", images=[asset, other])
    assert answer.status == "error"
    assert "got 2 assets and carries 1 that were sent before, at most 2" in str(answer.content)


@pytest.mark.parametrize("column", ["recalled", "held"])
def test_a_recalled_source_is_in_every_later_output(at: Desk, column: str) -> None:
    guard = at.studio.guard
    with guard.open_job("poster", requested_by=KIM) as job:
        at.act(job, "place", image=job.import_asset(at.studio.picture(), ["brand"]))
        at.act(job, "snapshot", size=1)
        source = next(iter(at.parents(at.made()[-1]["sha256"])))
        guard.ledger.mark_asset(source, column=column, value=True, by=KIM)
        answer = at.act(job, "snapshot", size=2)
        # A hold keeps it in the workspace, a recall from being made at all.
        assert answer.status == ("error" if column == "recalled" else "success")


def test_I8_a_call_that_is_asked_again_does_not_remember_itself(at: Desk, canvas: Canvas) -> None:
    runs: list[str] = []

    @tool
    def blend(image: str, file: str = "b.png") -> str:
        """Blend a picture into the canvas, and save it."""
        runs.append(image)
        Path(file).write_bytes(png(size=20 + len(runs)))
        return "blended"

    at.bind(Binding(blend, stage="edit", assets=["image"], outputs=["file"], remembers=["place"]))
    with at.studio.guard.open_job("poster", requested_by=KIM) as job:
        at.act(job, "place", image=job.import_asset(at.studio.picture(), ["brand"]))
        other = job.import_asset(at.studio.picture("b.png", "red"), ["likeness"])
        asked = call("blend", {"image": other})
        config = job.config(thread_id="t")
        first = results(at.graphs["blend"].invoke({"messages": [says(asked)]}, config))[-1]
        (guarded,) = at.studio.guard.tools([blend])
        again = guarded.invoke(asked, config)  # as a task that is run again after a crash
        assert (again.status, again.content) == ("success", first.content)
        assert at.labels() == {"brand", "likeness"}
    assert len(runs) == 1


def test_I4_what_is_sent_while_an_output_is_made_is_in_it(at: Desk, canvas: Canvas) -> None:
    """Two calls at once: the snapshot began first, and ends after the placing."""
    canvas.go.clear()
    with at.studio.guard.open_job("poster", requested_by=KIM) as job:
        logo = job.import_asset(at.studio.picture(), ["brand"])
        answers: list[Any] = []
        config = job.config(thread_id="t")
        said = {"messages": [says(call("snapshot", {"size": 1}))]}
        running = threading.Thread(
            target=lambda: answers.append(at.graphs["snapshot"].invoke(said, config))
        )
        running.start()
        assert canvas.entered.wait(10)
        assert at.act(job, "place", image=logo).status == "success"
        canvas.go.set()
        running.join()
        assert results(answers[0])[-1].status == "success"
        assert at.labels() == {"brand", "unclassified"}


def test_a_vendor_remembers_by_its_destination_and_is_told_no_more_than_it_may_see(
    tmp_path: Path, canvas: Canvas
) -> None:
    with desk(tmp_path) as at:
        bind(at, canvas, remembers=True, destination="videos")
        with at.studio.guard.open_job("poster", requested_by=KIM) as job:
            at.act(job, "place", image=job.import_asset(at.studio.picture(), ["brand"]))
            assert at.act(job, "snapshot", size=1).status == "success"
            assert at.labels() == {"brand"}


def test_a_description_of_what_a_server_remembers_obeys_the_chat_models_ceiling(
    at: Desk, canvas: Canvas
) -> None:
    @tool
    def describe(size: int) -> str:
        """Describe the canvas."""
        return "Jane Doe"

    at.bind(Binding(describe, stage="edit", plain=["size"], reveals=True, remembers=["place"]))
    with at.studio.guard.open_job("poster", requested_by=KIM) as job:
        assert at.act(job, "describe", size=1).content == "Jane Doe"
        photo = job.import_asset(at.studio.picture(), ["customer-data"])
        at.act(job, "place", image=photo)
        answer = at.act(job, "describe", size=1)
        assert "the chat model may not see" in answer.content


def meanwhile(at: Desk, canvas: Canvas, job: Job, tool: str, label: str) -> ToolMessage:
    """What the model reads of a call that began before a picture of a class was placed."""
    canvas.go.clear()
    photo = job.import_asset(at.studio.picture(), [label])
    answers: list[Any] = []
    config = job.config(thread_id="meanwhile")
    said = {"messages": [says(call(tool, {"size": 1}))]}
    running = threading.Thread(target=lambda: answers.append(at.graphs[tool].invoke(said, config)))
    running.start()
    try:
        assert canvas.entered.wait(10)
        assert at.act(job, "place", image=photo).status == "success"
    finally:
        canvas.go.set()
        running.join()
    return results(answers[0])[-1]


@pytest.mark.parametrize("way", ["text", "error", "command"])
def test_I4_words_of_what_was_sent_meanwhile_are_withheld_above_the_chat_models_ceiling(
    at: Desk, canvas: Canvas, way: str
) -> None:
    @tool
    def describe(size: int) -> Any:
        """Describe the canvas."""
        canvas.entered.set()
        canvas.go.wait(10)
        if way == "error":
            raise ToolException("it shows Jane Doe")
        if way == "command":
            message = ToolMessage("it shows Jane Doe", tool_call_id="c1")
            return Command(update={"messages": [message], "topic": "Jane Doe"})
        return "it shows Jane Doe"

    at.bind(Binding(describe, stage="edit", plain=["size"], reveals=True, remembers=["place"],
                    state=["topic"] if way == "command" else []))  # fmt: skip
    guard = at.studio.guard
    with guard.open_job("poster", requested_by=KIM) as job:
        answer = meanwhile(at, canvas, job, "describe", "customer-data")
        assert "Jane Doe" not in str(answer)
        assert "withheld" in answer.content
        assert "customer-data" in answer.content
        for table in ("outcomes", "records"):
            rows = guard.ledger.all(f"SELECT * FROM {table}")
            assert "Jane Doe" not in str([tuple(row) for row in rows])
    guard.verify()


CHAT = (
    CONFIG.replace('workspace = "acme"', 'workspace = "acme"\nchat_model = "chat"')
    + """
[destinations.chat]
audience = "vendor"
environment = "draft"
ceiling = ["brand"]
"""
)


def test_I4_words_within_the_ceiling_raise_the_class_of_the_jobs_later_texts(
    tmp_path: Path, canvas: Canvas
) -> None:
    @tool
    def describe(size: int) -> str:
        """Describe the canvas."""
        canvas.entered.set()
        canvas.go.wait(10)
        return "it shows our logo"

    with desk(tmp_path, config=CHAT) as at:
        bind(at, canvas).bind(
            Binding(describe, stage="edit", plain=["size"], reveals=True, remembers=["place"])
        )
        with at.studio.guard.open_job("poster", requested_by=KIM) as job:
            answer = meanwhile(at, canvas, job, "describe", "brand")
            assert answer.content == "it shows our logo"
            rows = at.studio.guard.ledger.all("SELECT label FROM revealed WHERE job = ?", job.id)
            assert [row["label"] for row in rows] == ["brand"]


def test_I4_an_operation_has_the_class_of_what_was_sent_while_it_was_started(
    at: Desk, canvas: Canvas
) -> None:
    @tool
    def render(size: int) -> dict[str, str]:
        """Start to render the canvas."""
        canvas.entered.set()
        canvas.go.wait(10)
        return {"id": "op-1"}

    at.bind(Binding(render, stage="edit", plain=["size"], starts="id", remembers=["place"]))
    guard = at.studio.guard
    with guard.open_job("poster", requested_by=KIM) as job:
        assert meanwhile(at, canvas, job, "render", "customer-data").status == "success"
        (row,) = guard.ledger.all("SELECT * FROM operations")
        sha256 = guard.ledger.all("SELECT sha256 FROM assets")[0]["sha256"]
        assert "customer-data" in row["labels"]
        assert sha256 in row["assets"]
    guard.verify()


@pytest.mark.parametrize("how", ["labels", "artifact"])
def test_I4_a_server_keeps_the_class_of_the_tools_that_it_was_sent_to_by(
    at: Desk, how: str
) -> None:
    @tool(response_format="content_and_artifact")
    def stock(prompt: str) -> tuple[str, dict[str, list[str]]]:
        """Put licensed stock on the canvas."""
        return "placed", {"labels": ["licensed"]} if how == "artifact" else {}

    more: dict[str, Any] = {"labels": ["licensed"]} if how == "labels" else {}
    made = canvas_tool()
    at.bind(Binding(stock, stage="edit", texts=["prompt"], **more),
            Binding(made, stage="edit", outputs=["file"], remembers=["stock"]))  # fmt: skip
    with at.studio.guard.open_job("poster", requested_by=KIM) as job:
        assert at.act(job, "stock", prompt="a lion").status == "success"
        assert at.act(job, "save").status == "success"
        assert at.labels() == {"licensed"}
    at.studio.guard.verify()


def canvas_tool() -> BaseTool:
    @tool
    def save(file: str = "c.png") -> str:
        """Save the canvas."""
        Path(file).write_bytes(png(size=11))
        return "saved"

    return save
