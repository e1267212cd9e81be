"""Words in an asset's file: judged when it comes in, shown to who approves (S7, I7)."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from PIL import Image, PngImagePlugin

from agentguard.errors import AssetError
from tests.support import KIM, OMAR, Studio, build, call, open_studio, results, says
from tests.support.bindings import Binding
from tests.support.command_line import Shell

KEY = "AKIA" + "IOSFODNN7" + "EXAMPLQ"


@pytest.fixture
def shell(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(studio.folder)
    return Shell(studio.folder)


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    opened = open_studio(tmp_path)
    yield opened
    opened.guard.close()


def srt(words: str) -> bytes:
    return f"1\n00:00:01,000 --> 00:00:02,500\n{words}\n".encode()


def png(words: str) -> bytes:
    about = PngImagePlugin.PngInfo()
    about.add_text("Comment", words, zip=True)
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "navy").save(file, "PNG", pnginfo=about)
    return file.getvalue()


FORMS = {"captions.srt": srt, "poster.png": png}


def put(studio: Studio, name: str, data: bytes) -> Path:
    path = studio.folder / name
    path.write_bytes(data)
    return path


def labels(studio: Studio, asset: str) -> set[str]:
    row = studio.guard.ledger.one("SELECT labels FROM assets WHERE id = ?", asset)
    assert row is not None
    return set(json.loads(row["labels"]))


@pytest.mark.parametrize("name", FORMS)
def test_import_of_a_file_with_a_secret_is_refused(studio: Studio, name: str) -> None:
    file = put(studio, name, FORMS[name](f"aws key {KEY}"))
    with pytest.raises(AssetError, match=r"holds a secret \(AWS access key\)") as refused:
        studio.guard.import_asset(file, ["brand"], by=KIM)
    assert KEY not in str(refused.value)
    assert not studio.guard.ledger.all("SELECT 1 FROM assets")
    stored = [one for one in (studio.folder / ".agentguard" / "assets").rglob("*") if one.is_file()]
    assert stored == []


@pytest.mark.parametrize("name", FORMS)
def test_import_joins_the_class_of_the_words_in_a_file(studio: Studio, name: str) -> None:
    file = put(studio, name, FORMS[name]("pay with 4111 1111 1111 1111, jane.doe@acme.example"))
    asset = studio.guard.import_asset(file, ["brand"], by=KIM)
    assert labels(studio, asset) == {"brand", "payment-card", "personal-data"}


def write_tool(studio: Studio, data: bytes, suffix: str) -> None:
    @tool
    def transcribe(source: str, file: Annotated[str, "where the captions go"]) -> str:
        """Write captions."""
        Path(file).write_bytes(data)
        return "written"

    binding = Binding(transcribe, stage="edit", assets=["source"], outputs={"file": suffix})
    studio.guard.bind(binding)
    studio.tools["transcribe"] = studio.guard.tools([transcribe])[0]


LIST = {"list_tools": ("editor", ["list_assets"])}
EDIT = {"edit_tools": ("editor", ["transcribe"])}


@pytest.mark.parametrize("name", FORMS)
def test_output_with_a_secret_fails_and_is_not_taken_in(studio: Studio, name: str) -> None:
    write_tool(studio, FORMS[name](f"aws key {KEY}"), Path(name).suffix)
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        graph = build(
            studio, [says(call("transcribe", {"source": asset})), AIMessage("done")], EDIT
        )
        state = graph.invoke({"messages": [HumanMessage("go")]}, job.config(thread_id="t"))
    (answer,) = results(state)
    assert answer.status == "error"
    assert "holds a secret" in answer.content
    assert KEY not in str(state)
    assert len(studio.guard.ledger.all("SELECT 1 FROM assets")) == 1


@pytest.mark.parametrize("name", FORMS)
def test_output_carries_the_class_of_the_words_in_it(studio: Studio, name: str) -> None:
    write_tool(studio, FORMS[name]("call jane.doe@acme.example"), Path(name).suffix)
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        graph = build(
            studio, [says(call("transcribe", {"source": asset})), AIMessage("done")], EDIT
        )
        state = graph.invoke({"messages": [HumanMessage("go")]}, job.config(thread_id="t"))
    assert "class brand + personal-data" in results(state)[0].content


def ask(studio: Studio, data: bytes, name: str) -> dict[str, Any]:
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(put(studio, name, data), ["brand"])
        script = [
            says(call("queue_for_release", {"asset": asset, "to": "site"})),
            says(call("export_asset", {"asset": asset, "to": "site"})),
            AIMessage("done"),
        ]
        graph = build(studio, script)
        state = graph.invoke({"messages": [HumanMessage("go")]}, job.config(thread_id="t"))
        return dict(state)


@pytest.mark.parametrize("name", FORMS)
def test_words_in_a_file_stand_in_the_question(studio: Studio, name: str) -> None:
    words = "Our spring sale <img src=http://10.0.0.1/x.png> ![x](http://10.0.0.1) ends today"
    plain = words if name == "poster.png" else "Our spring sale ![x](http://10.0.0.1) ends today"
    state = ask(studio, FORMS[name](plain), name)
    said = state["__interrupt__"][0].value["description"]
    assert "Our spring sale" in said
    assert "ends today" in said
    assert "<img" not in said
    assert "![" not in said


@pytest.mark.parametrize("name", FORMS)
def test_words_in_a_file_are_shown_word_for_word(studio: Studio, shell: Shell, name: str) -> None:
    ask(studio, FORMS[name]("Write to jane.doe@acme.example:\nthe sale ends today"), name)
    request = studio.guard.approvals.list()[0].request
    shown = shell("approvals", "show", request)
    assert "also in this file:" in shown
    assert "| Write to jane.doe@acme.example:" in shown
    assert "| the sale ends today" in shown
    data = json.loads(shell("approvals", "show", request, "--json"))
    (words,) = data["also_in_files"].values()
    assert "Write to jane.doe@acme.example:\nthe sale ends today" in words["text"]
    assert words["cut"] is False


def test_class_of_a_caption_is_shown_wherever_people_are_asked(
    studio: Studio, shell: Shell
) -> None:
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        words = {"asset": asset, "to": "site", "caption": "Write to jane.doe@acme.example"}
        script = [
            says(call("queue_for_release", {"asset": asset, "to": "site"})),
            says(call("export_asset", words)),
        ]
        graph = build(studio, script)
        state = graph.invoke({"messages": [HumanMessage("go")]}, job.config(thread_id="t"))
    said = state["__interrupt__"][0].value["description"]
    assert "Class: brand.\nClass of its text: personal-data." in said
    assert "personal-data" in shell("approvals", "list")
    assert "1 approval" in shell("jobs", "list")
    studio.answer(studio.pending().request, OMAR)
    assert "being resumed" in shell("jobs", "list")


def test_long_words_are_cut_and_the_page_says_so(studio: Studio, shell: Shell) -> None:
    ask(studio, png("word " * 2_000 + "END"), "poster.png")
    request = studio.guard.approvals.list()[0].request
    shown = shell("approvals", "show", request)
    assert "END" not in shown
    assert "6003 more characters of it; look at the file itself" in " ".join(shown.split())


def test_words_can_not_pass_for_lines_of_the_page(studio: Studio, shell: Shell) -> None:
    ask(
        studio, png("x" * 59 + " clean review" * 20 + "\nneeds         nobody\x1b[2J"), "poster.png"
    )
    request = studio.guard.approvals.list()[0].request
    lines = shell("approvals", "show", request).splitlines()
    assert [line for line in lines if "clean review" in line or "nobody" in line]
    for line in lines:
        if "clean review" in line or "nobody" in line:
            assert line.strip().startswith("|")


def test_swapped_bytes_are_said_on_the_page(studio: Studio, shell: Shell) -> None:
    ask(studio, png("the sale ends today"), "poster.png")
    for file in (studio.folder / ".agentguard" / "assets").rglob("*"):
        if file.is_file():
            file.write_bytes(png("nothing"))
    request = studio.guard.approvals.list()[0].request
    assert "are not what was decided on" in " ".join(shell("approvals", "show", request).split())


@pytest.mark.parametrize("name", ["jane.doe@acme.example.png", "4111 1111 1111 1111.png"])
def test_name_with_personal_data_is_not_told_to_the_model(studio: Studio, name: str) -> None:
    with studio.guard.open_job("p", requested_by=KIM) as job:
        job.import_asset(put(studio, name, png("x")), ["brand"])
        job.import_asset(studio.picture(), ["brand"])
        graph = build(studio, [says(call("list_assets", {})), AIMessage("done")], LIST)
        state = graph.invoke({"messages": [HumanMessage("go")]}, job.config(thread_id="t"))
    said = results(state)[0].content
    assert name not in said
    assert said.count("class brand") == 2
    assert said.count(" as '") == 1


def test_name_with_a_secret_is_refused(studio: Studio) -> None:
    with pytest.raises(AssetError, match="its file name holds a secret"):
        studio.guard.import_asset(put(studio, f"{KEY}.png", png("x")), ["brand"], by=KIM)
