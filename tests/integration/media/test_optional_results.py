"""A tool whose type hints allow that it makes nothing, and one whose hints do not."""
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NotRequired

import pytest
from PIL import Image
from pydantic import BaseModel
from typing_extensions import TypedDict

from agentguard import Asset, Output, media_tool
from agentguard.testing import TestWorkspace, workspace
from tests.support import write_workspace

Picture = Annotated[str, Asset()]
Png = Annotated[str, Output(".png")]


class Half(TypedDict):
    file: NotRequired[Annotated[str, Asset()]]
    width: int


class Loose(TypedDict, total=False):
    file: Annotated[str, Asset()]


class Model(BaseModel):
    file: Annotated[str, Asset()] | None = None


class Nested(BaseModel):
    inner: Model | None = None


GIVES: list[Any] = []
"""What the tools return next."""


@media_tool(stage="edit")
def union(source: Picture) -> Picture | None:
    """Edit a picture, if there is something to edit."""
    return GIVES.pop()


@media_tool(stage="edit")
def inside(source: Picture) -> Annotated[str | None, Asset()]:
    """Edit a picture, if there is something to edit."""
    return GIVES.pop()


@media_tool(stage="edit")
def items(source: Picture) -> list[Picture | None]:
    """Edit a picture, in as many ways as there are."""
    return GIVES.pop()


@media_tool(stage="edit")
def listed(source: Picture) -> list[Picture]:
    """Edit a picture, in as many ways as there are."""
    return GIVES.pop()


@media_tool(stage="edit")
def half(source: Picture) -> Half:
    """Edit a picture, if there is something to edit."""
    return GIVES.pop()


@media_tool(stage="edit")
def loose(source: Picture) -> Loose:
    """Edit a picture, if there is something to edit."""
    return GIVES.pop()


@media_tool(stage="edit")
def model(source: Picture) -> Model:
    """Edit a picture, if there is something to edit."""
    return GIVES.pop()


@media_tool(stage="edit")
def nested(source: Picture) -> Nested:
    """Edit a picture, if there is something to edit."""
    return GIVES.pop()


@media_tool(stage="edit")
def plain(source: Picture) -> Picture:
    """Edit a picture."""
    return GIVES.pop()


@media_tool(stage="edit")
def unsure(source: Picture | None = None, file: Png = "") -> str:
    """Draw over a picture, or on nothing."""
    Image.new("RGB", (8, 8), "red" if source is None else "blue").save(file)
    return "drawn"


TOOLS = [union, inside, items, listed, half, loose, model, nested, plain, unsure]


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[TestWorkspace]:
    write_workspace(tmp_path)
    with workspace(tmp_path / "agentguard.toml", tools=TOOLS) as made:
        yield made


@pytest.fixture
def asset(ws: TestWorkspace, tmp_path: Path) -> str:
    file = tmp_path / "own.png"
    Image.new("RGB", (8, 8)).save(file)
    made: str = ws.import_asset(file, ["brand"])
    return made


@pytest.mark.parametrize(
    ("tool", "nothing"),
    [
        ("union", None), ("inside", None), ("items", []), ("items", [None, None]), ("listed", []),
        ("half", {"width": 3}), ("loose", {}), ("model", Model()), ("nested", Nested()),
        ("nested", Nested(inner=Model())),
    ],
)  # fmt: skip
def test_hint_that_allows_nothing(ws: TestWorkspace, asset: str, tool: str, nothing: Any) -> None:
    GIVES.append(nothing)
    done = ws.call(tool, source=asset)
    assert (done.failed, done.assets) == (False, ())


@pytest.mark.parametrize(("tool", "nothing"), [("plain", None), ("listed", None), ("listed", {})])
def test_hint_that_promises_media(ws: TestWorkspace, asset: str, tool: str, nothing: Any) -> None:
    GIVES.append(nothing)
    done = ws.call(tool, source=asset)
    assert done.failed
    assert "holds no media" in str(done.result)


@pytest.mark.parametrize("tool", ["union", "items", "half", "model"])
def test_what_stands_there_is_judged_as_ever(
    ws: TestWorkspace, asset: str, tool: str, tmp_path: Path
) -> None:
    path = str(tmp_path / "own.png")  # no file that the tool made
    gives = {"union": path, "items": [None, path], "half": {"file": path, "width": 1}}
    GIVES.append(gives.get(tool, Model(file=path)))
    done = ws.call(tool, source=asset)
    assert (done.failed, done.assets) == (True, ())
    assert path not in str(done.result)


@pytest.mark.parametrize("arguments", [{}, {"source": None}])
def test_argument_that_may_be_missing(ws: TestWorkspace, arguments: dict[str, Any]) -> None:
    done = ws.call("unsure", **arguments)
    assert (done.failed, len(done.assets)) == (False, 1)
