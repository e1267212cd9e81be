"""What a result names is taken in where the declaration says so, and nothing else (I2, I3, I12)."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from PIL import Image

from agentguard import Asset, Guard, Text, media_tool
from agentguard.langgraph import protect
from tests.support import Clock, call, says, tool_loop, write_workspace
from tests.unit.bindings.test_running import answers

OUT = "out/agent"
ANSWER: list[Callable[[str], Any]] = []
Picture = Annotated[str, Asset()]


@media_tool(stage="edit")
def scratch(source: Picture) -> Picture:
    """A path beside the tool's own copy."""
    return str(ANSWER[0](source))


@media_tool(stage="edit")
def filed(source: Picture) -> Annotated[str, Asset(folder=OUT)]:
    """A path in a folder of the tool's own."""
    return str(ANSWER[0](source))


@media_tool(stage="edit")
def several(source: Picture) -> list[Picture]:
    """Several paths."""
    found: list[str] = ANSWER[0](source)
    return found


@media_tool(stage="edit")
def raw(source: Annotated[bytes, Asset()]) -> Annotated[bytes, Asset()]:
    """Bytes."""
    return source


@media_tool(stage="generate", to=None, result={"data[].b64_json": Asset("base64")})
def vendor(source: Annotated[str, Text()]) -> dict[str, Any]:
    """As image vendors answer."""
    answer: dict[str, Any] = ANSWER[0](source)
    return answer


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guard]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / OUT).mkdir(parents=True)
    write_workspace(tmp_path)
    tools: list[Callable[..., Any]] = [scratch, filed, several, raw, vendor]
    with Guard.from_config(tmp_path / "agentguard.toml", tools=tools, clock=Clock()) as opened:
        yield opened


@pytest.fixture
def logo(tmp_path: Path) -> Path:
    return drawn(tmp_path / "logo.png", "navy")


def drawn(path: Path, colour: str) -> Path:
    Image.new("RGB", (32, 32), colour).save(path)
    return path


def told(guard: Guard, logo: Path, name: str, make: Callable[[str], Any] = str) -> Any:
    ANSWER[:] = [make]
    return answers(guard, logo, name)


def test_returned_path_becomes_an_asset_and_is_not_shown(guard: Guard, logo: Path) -> None:
    message = told(
        guard, logo, "scratch", lambda source: drawn(Path(source).with_name("x.png"), "red")
    )
    assert message.content.startswith("file 1: asset-")
    assert "x.png" not in message.content


def test_list_of_returned_paths_becomes_assets(guard: Guard, logo: Path) -> None:
    def make(source: str) -> list[str]:
        place = Path(source)
        return [str(drawn(place.with_name(f"{c}.png"), c)) for c in ("red", "green")]

    message = told(guard, logo, "several", make)
    assert message.content.count("asset-") == 2


def test_returned_bytes_become_an_asset(guard: Guard, logo: Path) -> None:
    assert told(guard, logo, "raw").content.startswith("block 1: asset-")


def test_new_file_of_a_declared_folder_is_taken(guard: Guard, logo: Path) -> None:
    message = told(guard, logo, "filed", lambda source: drawn(Path(OUT, "new.png"), "red"))
    assert message.content.startswith("file 1: asset-")
    assert OUT not in message.content


def renamed(source: str) -> Path:
    return Path(OUT, "old.png").rename(Path(OUT, "new.png"))


def linked(source: str) -> Path:
    os.link(Path(OUT, "old.png"), Path(OUT, "new.png"))
    return Path(OUT, "new.png")


def symlinked(source: str) -> Path:
    Path(OUT, "new.png").symlink_to(Path(OUT, "old.png").resolve())
    return Path(OUT, "new.png")


def over(source: str) -> Path:
    return drawn(Path(OUT, "old.png"), "red")


def outside(source: str) -> Path:
    return drawn(Path("elsewhere.png"), "red")


def through_a_folder(source: str) -> Path:
    Path(OUT, "in").symlink_to(Path.cwd())
    return drawn(Path(OUT, "in", "elsewhere.png"), "red")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda source: Path(OUT, "old.png"), "must be new, and this one was there before"),
        (over, "must be new, and this one was there before"),
        (renamed, "must be new, and this one was there before"),
        (linked, "must be a regular file of its own, not a link"),
        (symlinked, "must be a regular file, not a link or device"),
        (outside, "must lie in the folder that its tool declares"),
        (through_a_folder, "must lie in the folder that its tool declares"),
        (lambda source: Path(OUT, "none.png"), "the tool wrote no output file"),
        (lambda source: Path(OUT), "must lie in the folder|not a link"),
    ],
)
def test_older_and_foreign_files_are_not_taken(
    guard: Guard, logo: Path, make: Callable[[str], Path], sentence: str
) -> None:
    import re

    drawn(Path(OUT, "old.png"), "gold")  # of another job, say
    message = told(guard, logo, "filed", make)
    assert message.status == "error", message
    assert re.search(sentence, message.content), message.content


def test_path_outside_of_the_scratch_folder_is_not_taken(guard: Guard, logo: Path) -> None:
    message = told(guard, logo, "scratch", outside)
    assert "must be a file directly in the call's scratch folder" in message.content
    assert "must be a new file" in told(guard, logo, "scratch", lambda source: source).content


def encoded(colour: str) -> str:
    data = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def paints(guard: Guard, answer: Any) -> Any:
    ANSWER[:] = [lambda source: answer]
    script = [says(call("vendor", {"source": "a boat"}))]
    builder = tool_loop(script, guard.tools(agent="painter"))
    graph = protect(builder, guard, agents={"tools": "painter"}).compile(
        checkpointer=InMemorySaver()
    )
    with guard.open_job("paint", requested_by="kim@acme.example") as job:
        return graph.invoke({"messages": [HumanMessage("x")]}, job.config())["messages"][2]


def test_base64_in_a_result_becomes_assets_and_leaves_the_rest(guard: Guard) -> None:
    answer = {"data": [{"b64_json": encoded("red")}, {"b64_json": encoded("green")}], "seed": 7}
    message = paints(guard, answer)
    assert message.content.count("asset-") == 2
    assert '"seed": 7' in message.content
    assert encoded("red")[:40] not in message.content


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({"data": []}, "its result holds no media at data[].b64_json"),
        ({"data": [{"b64_json": 7}]}, "data[].b64_json holds int, expected base64"),
        ({"data": [{"b64_json": "no base64!"}]}, "data[].b64_json is not base64"),
        ({"data": [{"b64_json": encoded("red")}], "x": encoded("gold")}, "holds media that its"),
    ],
)
def test_result_that_holds_something_else_is_refused(
    guard: Guard, answer: Any, sentence: str
) -> None:
    message = paints(guard, answer)
    assert message.status == "error"
    assert sentence in message.content
