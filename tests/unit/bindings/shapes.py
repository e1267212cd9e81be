"""Tools as people write them, and their declarations: some must be taken, some refused in words.

`test_declared_shapes.py` runs this file as it is, and again with its hints as text.
"""

# ruff: noqa: F811, UP042
# mypy: ignore-errors

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import typing_extensions as te
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool, tool
from langgraph.prebuilt import InjectedState, ToolRuntime
from langgraph.types import Command
from pydantic import BaseModel, Field

from agentguard import (
    Asset,
    Binding,
    Findings,
    Fixed,
    IdempotencyKey,
    Opaque,
    OperationId,
    Output,
    Plain,
    Probeable,
    Text,
    To,
    media_tool,
)

CASES: list[tuple[str, Any]] = []


def case(label: str):
    """A function that makes the shape; what it raises is the shape's refusal."""

    def add(make):
        CASES.append((label, make))
        return make

    return add


def shape(label: str):
    """What is decorated is the shape."""

    def add(made):
        CASES.append((label, lambda: made))
        return made

    return add


def declared(label: str, **words: Any):
    """The function under `@media_tool(**words)` is the shape, declared when it is looked at."""
    return lambda function: case(label)(lambda: media_tool(**words)(function))


Picture = Annotated[str, Asset()]
Pictures = te.TypeAliasType("Pictures", list[Picture])


@shape("01 sync fn, Output arg")
@media_tool(stage="edit")
def crop(
    source: Annotated[str, Asset()], width: int, height: int, file: Annotated[str, Output(".png")]
) -> str:
    """Crop."""
    return "cropped"


@shape("02 async fn, bytes in and out")
@media_tool(stage="edit", result=Asset("bytes"))
async def sharpen(source: Annotated[bytes, Asset()], amount: float = 0.5) -> bytes:
    """Sharpen."""
    return source


@shape("03 path -> path")
@media_tool(stage="edit", result=Asset("path"))
def remove_background(image_path: Annotated[str, Asset()]) -> str:
    """Remove background, returns path of png."""
    return "somewhere/x.png"


@declared("03b path -> path, result forgotten", stage="edit")
def remove_background(image_path: Annotated[str, Asset()]) -> str:
    """Remove background."""
    return "somewhere/x.png"


@shape("04 media_tool over @tool, list[Annotated]")
@media_tool(stage="render")
@tool
def render(
    clips: list[Picture],
    seconds: Annotated[float, Field(ge=1, le=90)],
    fps: Literal[24, 25, 30],
    loop: bool | None = None,
    out: Annotated[str, Output(".mp4")] = "o.mp4",
) -> str:
    """Render."""
    return "done"


@shape("05 @tool over media_tool, Annotated[list]")
@tool(parse_docstring=True)
@media_tool(stage="render")
def render2(clips: Annotated[list[str], Asset()], out: Annotated[str, Output(".mp4")]) -> str:
    """Render.

    Args:
        clips: the clips.
        out: file.
    """
    return "done"


# 6 args_schema pydantic with roles in fields
class UpscaleIn(BaseModel):
    image: Annotated[str, Asset()] = Field(description="the picture")
    mask: Annotated[str, Asset()] | None = Field(default=None, description="optional mask")
    factor: Literal[2, 4] = 2


@shape("06 args_schema pydantic, optional mask")
@media_tool(stage="edit", result=Asset("path"))
@tool("upscale", args_schema=UpscaleIn)
def upscale(image: str, mask: str | None = None, factor: int = 2) -> str:
    """Upscale."""
    return image


# 7 args_schema pydantic of somebody else
class TheirIn(BaseModel):
    image: str
    prompt: str = ""
    strength: float = 0.5


@tool("inpaint", args_schema=TheirIn)
def inpaint(image: str, prompt: str = "", strength: float = 0.5) -> bytes:
    """Inpaint."""
    return b""


CASES.append(
    (
        "07 foreign args_schema, Binding",
        lambda: Binding(
            inpaint,
            stage="edit",
            to="images",
            args={"image": Asset("bytes"), "prompt": Text()},
            result=Asset("bytes"),
        ),
    )
)
CASES.append(
    (
        "07b the same, its form inferred",
        lambda: Binding(
            inpaint,
            stage="edit",
            to="images",
            args={"image": Asset(), "prompt": Text()},
            result=Asset("bytes"),
        ),
    )
)


@shape("08 dict schema, role on the function")
@media_tool(stage="edit", result=Asset("path"))
@tool(
    args_schema={
        "title": "flip",
        "description": "Flip",
        "type": "object",
        "properties": {"p": {"type": "string"}, "axis": {"enum": ["x", "y"]}},
        "required": ["p"],
    }
)
def flip(p: Annotated[str, Asset()], axis: str = "x") -> str:
    """Flip."""
    return p


# 9 from_function
def thumb(video: str, second: float) -> str:
    """Thumb."""
    return ""


CASES.append(
    (
        "09 StructuredTool.from_function, Binding",
        lambda: Binding(
            StructuredTool.from_function(thumb),
            stage="render",
            args={"video": Asset()},
            result=Asset("path"),
        ),
    )
)


# 10 BaseTool subclass
@media_tool(stage="edit")
class Watermark(BaseTool):  # type: ignore[type-var]
    name: str = "watermark"
    description: str = "Watermark"

    def _run(
        self,
        picture: Annotated[str, Asset()],
        words: Annotated[str, Text()],
        out: Annotated[str, Output(".png")],
    ) -> str:
        return "ok"


@case("10 BaseTool subclass, decorated class")
def _():
    return Watermark()


@shape("11 InjectedState, ToolRuntime, tool call id")
@media_tool(stage="edit")
@tool
def stamp(
    source: Picture,
    state: Annotated[dict, InjectedState],
    call: Annotated[str, InjectedToolCallId],
    runtime: ToolRuntime,
    out: Annotated[str, Output(".png")],
) -> str:
    """Stamp."""
    return ""


@shape("12 content_and_artifact review")
@media_tool(stage="review", result={"artifact.findings": Findings()})
@tool(response_format="content_and_artifact")
def review(source: Picture) -> tuple[str, dict[str, Any]]:
    """Review."""
    return "ok", {"findings": []}


@shape("13 data[0].b64_json from a vendor")
@media_tool(stage="generate", to="openai", result={"data[].b64_json": Asset("base64")})
def generate(
    prompt: Annotated[str, Text()], size: Literal["1024x1024", "1536x1024"] = "1024x1024"
) -> dict[str, Any]:
    """Generate."""
    return {"data": [{"b64_json": ""}]}


@shape("14 source picture and prompt to a vendor, URL back")
@media_tool(stage="generate", to="fal", result={"video.url": Asset("url")})
def fal(
    prompt: Annotated[str, Text()], image_url: Annotated[str, Asset("data-url")]
) -> dict[str, Any]:
    """Image to video."""
    return {"video": {"url": ""}}


@shape("15 list of paths")
@media_tool(stage="generate", to=None, result={"[]": Asset("path")})
def variants(source: Picture, n: Annotated[int, Field(ge=1, le=8)] = 4) -> list[str]:
    """Variants."""
    return []


@shape("16 returns Command with content blocks")
@media_tool(stage="edit", result=Asset("blocks"))
@tool
def restyle(source: Picture, call: Annotated[str, InjectedToolCallId]) -> Command:
    """Restyle."""
    return Command(update={"messages": [ToolMessage("done", tool_call_id=call)]})


# 17 MCP
mcp = StructuredTool(
    name="edit_image",
    description="Edit",
    args_schema={
        "type": "object",
        "properties": {
            "image": {"type": "string", "description": "base64 image"},
            "instructions": {"type": "string"},
            "quality": {"type": "string", "enum": ["low", "high"]},
        },
        "required": ["image"],
    },
    coroutine=lambda **k: None,
    response_format="content_and_artifact",
)
CASES.append(
    (
        "17 MCP tool",
        lambda: Binding(
            mcp,
            stage="edit",
            to="images",
            args={"image": Asset("base64"), "instructions": Text()},
            result=Asset("blocks"),
        ),
    )
)


# 18 OpenAI-style nested args
class Img(te.TypedDict):
    path: str
    mask: te.NotRequired[str]


class Params(te.TypedDict):
    images: list[Img]
    prompt: str
    n: int


@tool
def edit_many(params: Params, prompt: str) -> dict[str, Any]:
    """Edit."""
    return {}


CASES.append(
    (
        "18 nested TypedDict args, Binding by path",
        lambda: Binding(
            edit_many,
            stage="edit",
            to="openai",
            args={
                "params.images[].path": Asset(),
                "params.images[].mask": Asset(),
                "params.prompt": Text(),
                "prompt": Text(),
            },
            result={"data[].b64_json": Asset("base64")},
        ),
    )
)


# 18b nested pydantic with roles
class Clip(BaseModel):
    source: Annotated[str, Asset()]
    start: float = 0
    end: float | None = None
    title: Annotated[str, Text()] | None = None


@shape("18b nested pydantic with roles; video and time range")
@media_tool(stage="render")
def cut(
    clips: list[Clip], out: Annotated[str, Output(".mp4")], music: Picture | None = None
) -> str:
    """Cut."""
    return ""


# 18c dataclass with roles
@dataclass
class Layer:
    picture: Annotated[str, Asset()]
    x: int = 0


@shape("18c dataclass args with roles")
@media_tool(stage="edit")
def layers(layers: list[Layer], out: Annotated[str, Output(".png")]) -> str:
    """Layers."""
    return ""


# 19 action argument
@tool
def media_library(
    action: Literal["upload", "delete"], file: str, key: str, folder: str = "press"
) -> str:
    """DAM."""
    return ""


CASES.append(
    (
        "19 action: Literal[upload, delete]",
        lambda: Binding(
            media_library,
            stage="export",
            to="dam",
            args={
                "action": Fixed("upload"),
                "file": Asset(),
                "key": Plain(),
                "folder": Fixed("press"),
            },
            effect=Probeable(lambda a: None),
        ),
    )
)


# 20 destination by enum
class Channel(str, Enum):
    TEAM = "#team"
    LAUNCH = "#launch"


@shape("20 destination by enum")
@media_tool(stage="export", effect=Opaque())
def post(
    channel: Annotated[Channel, To({"slack-team": "#team", "slack-launch": "#launch"})],
    picture: Annotated[bytes, Asset()],
    text: Annotated[str, Text()] = "",
) -> str:
    """Post."""
    return ""


@shape("21 fixed destination (Slack)")
@media_tool(stage="export", to="slack-launch", effect=Opaque())
def post_launch(picture: Picture, caption: Annotated[str, Text()]) -> str:
    """Post to the launch channel."""
    return ""


@shape("22 TypeAliasType list alias")
@media_tool(stage="render")
def slideshow(pictures: Pictures, seconds_each: float, out: Annotated[str, Output(".mp4")]) -> str:
    """Slideshow."""
    return ""


# 23 folder
@tool
def contact_sheet(folder: str, columns: int) -> str:
    """Makes sheet of all pictures in a folder."""
    return ""


CASES.append(
    (
        "23 a folder",
        lambda: Binding(
            contact_sheet, stage="edit", args={"folder": Asset("folder")}, result=Asset("path")
        ),
    )
)  # type: ignore


@declared("24 **kwargs", stage="edit")
def convert(source: Picture, out: Annotated[str, Output(".png")], **options: Any) -> str:
    """Convert."""
    return ""


@shape("25 delegating sub-agent")
@media_tool(stage=None)
@tool
def ask_artist(task: Annotated[str, Text()]) -> str:
    """Delegates to the artist."""
    return ""


@shape("26 search: text to a vendor, no media")
@media_tool(stage=None, to="tavily")
@tool
def web_search(query: Annotated[str, Text()], max_results: int = 5) -> str:
    """Search."""
    return ""


# 27 long work
@media_tool(stage="generate", to="fal", result={"request_id": OperationId()})
def submit_video(
    prompt: Annotated[str, Text()], image_url: Annotated[str, Asset("data-url")]
) -> dict[str, Any]:
    """Submit."""
    return {}


@media_tool(stage="generate", to="fal", result={"video.url": Asset("url")})
def video_result(request_id: Annotated[str, OperationId("submit_video")]) -> dict[str, Any]:
    """Result."""
    return {}


CASES += [
    ("27 long work: start", lambda: submit_video),
    ("27b long work: poll", lambda: video_result),
]


@shape("28 uploader, Path, tags, idempotency key")
@media_tool(stage="export")
def publish(
    picture: Annotated[Path, Asset()],
    title: Annotated[str, Text()],
    tags: Annotated[list[str], Text()],
    to: Annotated[str, To()],
    request_key: Annotated[str, IdempotencyKey()],
) -> str:
    """Publish."""
    return ""


# ---- errors ----------------------------------------------------------------------
@declared("E1 str without a role", stage="edit")
def caption(
    source: Picture,
    text: str,
    font: str = "Inter",
    color: str = "#fff",
    out: Annotated[str, Output(".png")] = "x.png",
) -> str:
    """Caption."""
    return ""


@declared("E2 Asset on int, bad stage", stage="edti")
def x(source: Picture) -> str:
    """X."""
    return ""


@declared("E3 role class without parentheses", stage="edit")
def x(source: Annotated[str, Asset], out: Annotated[str, Output(".png")]) -> str:
    """X."""
    return ""


@case("E4 typo in Binding args")
def _():
    return Binding(contact_sheet, stage="edit", args={"folders": Asset()}, result=Asset("path"))


@declared("E5 export without effect and place", stage="export")
def up(picture: Picture) -> str:
    """Up."""
    return ""


@case("E6 undeclared tool")
def _():
    def up(picture: str) -> str:
        """Up."""
        return ""

    return up


@case("E7 typing.TypedDict on 3.11")
def _():
    import typing

    class P(typing.TypedDict):
        path: Annotated[str, Asset()]

    @media_tool(stage="edit")
    def up(p: P, out: Annotated[str, Output(".png")]) -> str:
        """Up."""
        return ""

    return up


@declared("E8 no docstring", stage="edit")
def up(p: Picture, out: Annotated[str, Output(".png")]) -> str:
    return ""


@declared("E9 Asset on an object (file dict)", stage="edit")
def up(
    p: Annotated[dict[str, Any], Asset()],
    q: Annotated[Clip, Asset()],
    out: Annotated[str, Output(".png")],
) -> str:
    "Up."
    return ""


@declared("E10 two roles; Any; union", stage="edit")
def up(
    p: Annotated[str, Asset(), Text()],
    q: Any,
    r: int | str,
    t: tuple[int, int],
    d: dict[str, int],
    out: Annotated[str, Output(".png")],
) -> str:
    "Up."
    return ""


@case("E11 media_tool without parentheses")
def _():
    @media_tool  # type: ignore
    def up(p: Picture) -> str:
        "Up."
        return ""

    return up


@case("E12 local alias")
def _():
    Local = Annotated[str, Asset()]

    @media_tool(stage="edit")
    def up(p: Local, out: Annotated[str, Output(".png")]) -> str:
        "Up."
        return ""

    return up


@declared("E13 export choices without a word", stage="export")
def post(
    picture: Picture,
    network: Literal["mastodon", "x"] = "mastodon",
    visibility: Literal["public", "unlisted"] = "public",
    to: Annotated[str, To()] = "site",
) -> str:
    "Post."
    return ""


@declared("E14 generate without to", stage="generate")
def paint(prompt: Annotated[str, Text()]) -> Picture:
    "Paint."
    return ""


class Aliased(BaseModel):
    image: Annotated[str, Asset(), Field(alias="img")]
    mode: Annotated[Literal["a", "b"], To(), Field(alias="m")] = "a"


@declared("E15 roles under nested aliases: placed by alias, or refused, never lost", stage="edit")
def f(x: list[Aliased], out: Annotated[str, Output(".png")]) -> str:
    "F."
    return ""


class Node(BaseModel):
    picture: Picture
    kids: list["Node"] = []


@declared("E16 recursive model", stage="edit")
def f(n: Node, out: Annotated[str, Output(".png")]) -> str:
    "F."
    return ""


# ---- results by the return type ---------------------------------------------------
@media_tool(stage="edit")
def cut_out(image: Picture) -> Picture:
    """Remove the background."""
    return image


@media_tool(stage="edit")
async def soften(image: Annotated[bytes, Asset()]) -> Annotated[bytes, Asset()]:
    """Soften."""
    return image


class Video(te.TypedDict):
    url: Annotated[str, Asset("url")]
    seed: int


@media_tool(stage="generate", to="fal")
def animate(prompt: Annotated[str, Text()], image_url: Annotated[str, Asset("data-url")]) -> Video:
    """Animate."""
    return {"url": "", "seed": 1}


@media_tool(stage="generate", to=None)
def versions(source: Picture, n: int = 4) -> list[Picture]:
    """Versions."""
    return []


CASES += [
    ("R1 Picture -> Picture", lambda: cut_out),
    ("R2 the same under @tool", lambda: tool(cut_out)),
    ("R3 bytes -> bytes, async", lambda: soften),
    ("R4 TypedDict result", lambda: animate),
    ("R5 list of pictures", lambda: versions),
]
