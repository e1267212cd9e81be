"""What a media tool writes into the state, or asks, is cleaned as its texts are (I4)."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from tests.support import GO, KIM, State, Studio, build, call, results, run_script, says
from tests.support.bindings import Binding

SECRET = "sk-proj-" + "Zz9" * 16
MODES = ["values", "updates", "tasks", "debug", "checkpoints"]


class Notes(State):
    notes: Any


class Note(BaseModel):
    text: str


@dataclass
class Line:
    text: str


SHAPES: dict[str, Any] = {
    "text": lambda said: said,
    "path": lambda said: Path(said.split()[0]),
    "list": lambda said: [said],
    "tuple": lambda said: (said, 1),
    "set": lambda said: {said},
    "key": lambda said: {said: {"deep": [said]}},
    "pydantic": lambda said: Note(text=said),
    "dataclass": lambda said: Line(said),
}


def go(studio: Studio, one: Any, **binding: Any) -> tuple[str, dict[str, Any], str]:
    """Run a tool on a picture: all that the streams held, the last state, the scratch folder."""
    seen: list[str] = []
    studio.tools["keep"] = one(seen)
    studio.guard.bind(Binding(studio.tools["keep"], stage="edit", assets=["source"], **binding))
    with studio.guard.open_job("launch", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        script = [says(call("keep", {"source": asset}))]
        graph = build(studio, script, {"edit_tools": ("editor", ["keep"])}, state=Notes)
        config = job.config(thread_id="t")
        said = [repr(s) for s in graph.stream(GO, config, stream_mode=MODES)]
        state = graph.get_state(config)
        said.append(repr(state))
    (source,) = seen
    return "\n".join(said), state.values, str(Path(source).parent)


def writes(value: Any) -> Any:
    def made(seen: list[str]) -> Any:
        @tool
        def keep(source: str, cid: Annotated[str, InjectedToolCallId]) -> Any:
            """Keep a note."""
            seen.append(source)
            message = ToolMessage("kept", tool_call_id=cid)
            return Command(update={"notes": value(f"{source} {SECRET}"), "messages": [message]})

        return keep

    return made


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_declared_state_holds_no_scratch_path_and_no_secret(studio: Studio, shape: Any) -> None:
    text, values, folder = go(studio, writes(shape), state=["notes"])
    assert results(values)[0].content == "kept"
    assert "[file]" in repr(values["notes"])
    assert folder not in text
    assert SECRET not in text


@pytest.mark.parametrize(
    "value",
    [
        lambda said: Path(said.split()[0]).read_bytes(),
        lambda said: base64.b64encode(Path(said.split()[0]).read_bytes()).decode(),
        lambda said: {"x": [object()]},
    ],
    ids=["bytes", "base64", "an object"],
)
def test_media_in_declared_state_fails_the_call(studio: Studio, value: Any) -> None:
    text, values, _ = go(studio, writes(value), state=["notes"])
    (answer,) = results(values)
    assert answer.status == "error"
    assert "notes" not in values
    assert "iVBORw0KGgo" not in text
    assert studio.grants() == ["failed"]


def test_plain_values_in_declared_state_stay_as_they_are(studio: Studio) -> None:
    value = {"n": 1, "words": ["a", "word " * 4_000], "none": None}
    _, values, _ = go(studio, writes(lambda said: value), state=["notes"])
    assert values["notes"] == value


def test_media_in_the_artifact_of_a_tool_message_fails_the_call(studio: Studio) -> None:
    def made(seen: list[str]) -> Any:
        @tool
        def keep(source: str, cid: Annotated[str, InjectedToolCallId]) -> Any:
            """Keep a note."""
            seen.append(source)
            artifact = {"image": Path(source).read_bytes()}
            return [ToolMessage("kept", artifact=artifact, tool_call_id=cid)]

        return keep

    _, values, _ = go(studio, made)
    (answer,) = results(values)
    assert "result=" in answer.content


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_tools_own_question_holds_no_scratch_path_and_no_secret(
    studio: Studio, shape: Any
) -> None:
    def made(seen: list[str]) -> Any:
        @tool
        def keep(source: str) -> str:
            """Ask, then keep."""
            seen.append(source)
            interrupt(shape(f"{source} {SECRET}"))
            return "kept"

        return keep

    text, _, folder = go(studio, made, interrupts=True)
    assert "[file]" in text
    assert "Interrupt(" in text
    assert folder not in text
    assert SECRET not in text


def test_a_question_that_holds_a_picture_fails_the_call(studio: Studio) -> None:
    def made(seen: list[str]) -> Any:
        @tool
        def keep(source: str) -> str:
            """Ask, then keep."""
            seen.append(source)
            interrupt({"preview": Path(source).read_bytes()})
            return "kept"

        return keep

    text, values, _ = go(studio, made, interrupts=True)
    (answer,) = results(values)
    assert answer.status == "error"
    assert "PNG" not in text


TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"


def test_S7_neither_call_id_nor_label_nor_state_writes_a_secret_down(studio: Studio) -> None:
    @tool(response_format="content_and_artifact")
    def hostile(source: str, file: str = "x.png") -> Any:
        """Names a secret as a label."""
        Path(file).write_bytes(studio.picture("h.png", "green").read_bytes())
        return "ok", {"labels": [TOKEN, "approved-by-legal"]}

    @tool
    def stateful(source: str, cid: Annotated[str, InjectedToolCallId]) -> Any:
        """Writes a secret to the state."""
        message = ToolMessage("ok", tool_call_id=cid)
        return Command(update={"note": TOKEN, "messages": [message]})

    studio.bind(hostile, stage="edit", assets=["source"], outputs=["file"])
    studio.bind(stateful, stage="edit", assets=["source"], state=["note"])
    nodes = {"t": ("editor", ["hostile", "stateful"])}
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        _, state = run_script(
            studio,
            job,
            says(call("hostile", {"source": asset}, id=TOKEN)),
            says(call("stateful", {"source": asset})),
            nodes=nodes,
        )
    assert TOKEN not in "".join(str(m.content) for m in results(state))
    made = studio.guard.ledger.all("SELECT labels FROM assets ORDER BY created_at")
    assert any("unclassified" in row["labels"] for row in made)
    studio.guard.close()
    for file in studio.folder.rglob("*"):
        if file.is_file():
            assert TOKEN.encode() not in file.read_bytes(), file


ODD = [{"messages": None}, {"note": float("nan")}, {"note": "a\ud800"}, [], None, "text", ()]


@pytest.mark.parametrize("update", ODD)
def test_a_hostile_command_crashes_nothing_and_leaves_an_outcome(
    studio: Studio, update: Any
) -> None:
    @tool
    def odd(source: str) -> Any:
        """Returns something odd."""
        studio.world.effects.append(("odd", source))
        return Command(update=update)

    studio.bind(odd, stage="edit", assets=["source"], state=["note"])
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        message = says(call("odd", {"source": asset}, id="o1"))
        _, state = run_script(studio, job, message, nodes={"t": ("editor", ["odd"])})
    (answer,) = results(state)
    assert answer.tool_call_id == "o1"
    assert studio.grants() in (["executed"], ["failed"])
    assert studio.world.count("odd") == 1
