"""What the chat model may see of media, and what it has seen: I4 over tools, jobs and threads."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import ToolException, tool
from PIL import Image

from agentguard.langgraph.message_media import take_in_media
from tests.support import CONFIG, KIM, call, open_studio, run_script, says
from tests.support.bindings import Arg, Binding
from tests.support.desk import Desk, desk, rows
from tests.support.media_files import png

TOLD = "a customer holding a passport"
SEES_GENERATED = (
    CONFIG.replace('workspace = "acme"', 'workspace = "acme"\nchat_model = "chat"')
    + '\n[destinations.chat]\naudience = "vendor"\nenvironment = "draft"\nceiling = ["generated"]\n'
)
SEES_CUSTOMERS = SEES_GENERATED.replace(
    'ceiling = ["generated"]\n', 'ceiling = ["generated", "customer-data"]\n'
)
CUSTOMERS = {"labels": ["customer-data"]}


def finder(ran: list[str]) -> Any:
    @tool(response_format="content_and_artifact")
    def search_customers(prompt: str, file: str = "x.png") -> tuple[str, dict[str, list[str]]]:
        """Find a customer's photo and describe it."""
        ran.append(prompt)
        Image.new("RGB", (8, 8), "red").save(file)
        return TOLD, CUSTOMERS

    return search_customers


def labels_of(at: Desk) -> set[str]:
    return {row["label"] for row in rows(at, "SELECT label FROM revealed")}


def test_I4_a_revealing_tools_own_class_is_judged_before_it_runs(tmp_path: Path) -> None:
    ran: list[str] = []
    with desk(tmp_path, config=SEES_GENERATED) as at:
        at.bind(
            Binding(finder(ran), stage="edit", texts=["prompt"], outputs=["file"],
                    labels=["customer-data"], reveals=True)
        )  # fmt: skip
        with at.studio.guard.open_job("x", requested_by=KIM) as job:
            answer = at.act(job, "search_customers", prompt="kim")
    assert answer.status == "error"
    assert "customer-data" in answer.content
    assert ran == []


@pytest.mark.parametrize("outputs", [["file"], []])
def test_I4_a_class_that_the_result_raises_keeps_its_text_from_the_model(
    tmp_path: Path, outputs: list[str]
) -> None:
    ran: list[str] = []

    @tool(response_format="content_and_artifact")
    def look_up(prompt: str) -> tuple[str, dict[str, list[str]]]:
        """Look somebody up."""
        ran.append(prompt)
        return TOLD, CUSTOMERS

    made = finder(ran) if outputs else look_up
    with desk(tmp_path, config=SEES_GENERATED) as at:
        at.bind(
            Binding(made, stage="edit", texts=["prompt"], outputs=outputs, reveals=True,
                    labels=["generated"])
        )  # fmt: skip
        with at.studio.guard.open_job("x", requested_by=KIM) as job:
            answer = at.act(job, made.name, prompt="kim")
            assert ran == ["kim"]
            assert answer.text.startswith("withheld: ")
            assert "passport" not in answer.content
            assert ("asset-" in answer.content) == bool(outputs)
            assert labels_of(at) == set()  # it was not seen, so it marks nothing
            assert "passport" not in str(rows(at, "SELECT text FROM outcomes"))


def test_I4_a_missing_file_does_not_say_what_was_withheld(tmp_path: Path) -> None:
    @tool(response_format="content_and_artifact")
    def search_customers(prompt: str, file: str = "x.png") -> tuple[str, dict[str, list[str]]]:
        """Find a customer's photo, or say why there is none."""
        return TOLD, CUSTOMERS

    with desk(tmp_path, config=SEES_GENERATED) as at:
        at.bind(
            Binding(search_customers, stage="edit", texts=["prompt"], outputs=["file"],
                    reveals=True, labels=["generated"])
        )  # fmt: skip
        with at.studio.guard.open_job("x", requested_by=KIM) as job:
            answer = at.act(job, "search_customers", prompt="kim")
    assert answer.status == "error"
    assert "passport" not in answer.content


def test_I4_a_revealing_tools_own_class_stays_with_the_job(tmp_path: Path) -> None:
    @tool
    def look_up(prompt: str) -> str:
        """Look somebody up, or fail."""
        if prompt == "nobody":
            raise RuntimeError(TOLD)
        return TOLD

    with desk(tmp_path, config=SEES_CUSTOMERS) as at:
        at.bind(Binding(look_up, stage="edit", texts=["prompt"], labels=["customer-data"],
                        reveals=True))  # fmt: skip
        for prompt in ("nobody", "kim"):
            with at.studio.guard.open_job("x", requested_by=KIM) as job:
                at.act(job, "look_up", prompt=prompt)
                seen = rows(at, "SELECT label FROM revealed WHERE job = ?", job.id)
            assert [row["label"] for row in seen] == ["customer-data"], prompt


def test_I4_the_next_job_of_a_thread_knows_what_its_conversation_holds(tmp_path: Path) -> None:
    told: list[str] = []

    @tool
    def describe(source: str) -> str:
        """Describe a picture."""
        return TOLD

    @tool
    def ask_vendor(prompt: str, file: str = "x.png") -> str:
        """Paint at a vendor's."""
        told.append(prompt)
        Image.new("RGB", (8, 8), "red").save(file)
        return "ok"

    with desk(tmp_path, config=SEES_CUSTOMERS) as at:
        at.bind(
            Binding(describe, stage="edit", assets=["source"], reveals=True),
            Binding(ask_vendor, stage="generate", texts=["prompt"], outputs=["file"],
                    destination="images"),
        )  # fmt: skip
        guard = at.studio.guard
        with guard.open_job("x", requested_by=KIM) as job:
            photo = job.import_asset(at.studio.picture(), ["customer-data"])
            assert at.act(job, "describe", source=photo).content == TOLD
        with guard.open_job("y", requested_by=KIM) as job:
            answer = at.act(job, "ask_vendor", prompt="draw who you saw")
            assert answer.status == "error"
            assert "customer-data" in answer.content
            assert told == []
            known = {"t": True, "elsewhere": False, "": False}
            for colour, thread in zip(("red", "green", "blue"), known, strict=True):
                data = base64.b64encode(png(colour)).decode()
                block = {"type": "image", "base64": data, "mime_type": "image/png"}
                painted = AIMessage([block])
                [message] = take_in_media(
                    guard.enforcement, job, [painted], owners={KIM}, thread=thread
                )
                assert ("customer-data" in str(message.content)) == known[thread]


def test_S16_what_a_failed_tool_says_holds_no_path_and_no_url(tmp_path: Path) -> None:
    said = "could not read /home/kim/.ssh/id_rsa; see https://cdn.x/out.png?sig=5d41402abc4b"

    @tool
    def sharpen(source: str) -> str:
        """Sharpen a picture."""
        raise ToolException(said)

    @tool
    def blur(source: str, file: str = "x.png") -> str:
        """Blur a picture, or say why not."""
        return said

    with desk(tmp_path) as at:
        at.bind(
            Binding(sharpen, stage="edit", assets=["source"]),
            Binding(blur, stage="edit", assets=["source"], outputs=["file"]),
        )
        with at.studio.guard.open_job("x", requested_by=KIM) as job:
            picture = job.import_asset(at.studio.picture(), ["brand"])
            for name in ("sharpen", "blur"):
                answer = at.act(job, name, source=picture)
                assert answer.status == "error"
                assert answer.text.endswith("could not read [file] see [url]"), answer.content
        assert "id_rsa" not in str(rows(at, "SELECT text FROM outcomes"))


AGENCY = (
    CONFIG
    + """
[destinations.agency]
url = "file:out/agency"
audience = "internal"
environment = "draft"
ceiling = ["brand"]

[destinations.chat]
audience = "vendor"
environment = "production"
ceiling = ["brand", "customer-data"]
"""
).replace('workspace = "acme"', 'workspace = "acme"\nchat_model = "chat"')


def test_I4_words_in_a_plain_argument_carry_the_class_of_what_was_revealed(tmp_path: Path) -> None:
    studio = open_studio(tmp_path, config=AGENCY)

    @tool
    def describe(source: str) -> str:
        """Describe a picture."""
        return "it shows Anna Berg"

    @tool
    def post(source: str, title: str, to: str) -> str:
        """Post a picture."""
        studio.world.effects.append(("post", title))
        return "posted"

    studio.bind(describe, stage="review", assets=["source"], reveals=True)
    studio.bind(
        post,
        stage="export",
        assets=["source"],
        plain=["title"],
        destination=Arg("to"),
        effect="opaque",
    )
    nodes = {"r": ("reviewer", ["describe"]), "e": ("publisher", ["post"])}
    with studio.guard.open_job("p", requested_by=KIM) as job:
        photo = job.import_asset(studio.picture(), ["customer-data"])
        open_ = job.import_asset(studio.picture("b.png", "red"), ["brand"])
        _, state = run_script(
            studio,
            job,
            says(call("describe", {"source": photo})),
            says(call("post", {"source": open_, "title": "Anna Berg", "to": "agency"})),
            nodes=nodes,
        )
    assert "customer-data" in state["__interrupt__"][0].value["agentguard"]["reason"]
    assert studio.world.effects == []
    studio.guard.close()
