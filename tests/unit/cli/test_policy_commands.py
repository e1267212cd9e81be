"""Policies that read a tool's arguments, at the command line."""

from __future__ import annotations

import json

import cedarpy
import pytest

from tests.support.command_line import Shell

KIM, OMAR = "kim@acme.example", "omar@acme.example"

TOOLS = """
from typing import Annotated, Literal

from agentguard import Asset, Output, Plain, media_tool

@media_tool(stage="edit")
def render_video(
    source: Annotated[str, Asset()],
    seconds: int,
    file: Annotated[str, Output(".mp4")],
    codec: Literal["h264", "av1"] = "h264",
    loose: Annotated[int | str, Plain()] = 1,
) -> str:
    '''Render.'''
    return file

TOOLS = [render_video]
"""

LONG = """
@id("acme.long-renders")
@advice("{tool} makes more than a minute, so a person must look at it")
forbid (principal, action == Action::"render_video", resource)
when { context.args.seconds > 60 }
unless { context.approvals >= 1 };
"""


@pytest.fixture
def workspace(shell: Shell) -> Shell:
    shell("init", "--workspace", "acme", "--person", KIM, "--person", OMAR)
    (shell.folder / "policies").mkdir()
    return shell


def declared(workspace: Shell, module: str, policy: str = LONG) -> list[str]:
    (workspace.folder / f"{module}.py").write_text(TOOLS, "utf-8")
    (workspace.folder / "policies" / "own.cedar").write_text(policy, "utf-8")
    return ["--bindings", f"{module}:TOOLS"]


def test_schema_shows_what_policies_can_read(workspace: Shell) -> None:
    named = declared(workspace, "policy_tools_schema")
    text = workspace("policy", "schema", *named)
    cedarpy.Schema.from_str(text)
    assert 'action "render_video" in ["stage:edit"] appliesTo {' in text
    assert '"seconds": Long' in text
    assert '"codec": String,  // "h264", "av1"' in text
    assert 'action "the review tool" in ["stage:review"]' in text
    assert "// can't be read: loose" in text
    tools = json.loads(workspace("policy", "schema", *named, "--json"))
    assert tools["render_video"]["arguments"]["seconds"] == {"kind": "integer"}
    assert tools["export_asset"]["group"] == "stage:export"
    assert 'action "render_video"' not in workspace("policy", "schema")


def test_check_says_what_is_wrong_with_file_and_line(workspace: Shell) -> None:
    named = declared(workspace, "policy_tools_check", LONG.replace("seconds", "secnods"))
    _, said = workspace.both("policy", "check", *named, code=1)
    assert "own.cedar, line 2: policy acme.long-renders" in said
    assert "secnods" in said
    found = json.loads(workspace("policy", "check", *named, "--json", code=1))
    assert (found["ok"], len(found["wrong"])) == (False, 2)


def test_check_says_that_all_is_well(workspace: Shell) -> None:
    named = declared(workspace, "policy_tools_well")
    assert "fit the workspace and 4 tools" in workspace("policy", "check", *named)
    assert "were not looked at" in workspace("policy", "check")


@pytest.mark.parametrize(("seconds", "word", "code"), [(90, "ASK", 4), (60, "PERMIT", 0)])
def test_explain_tries_a_call_of_a_tool(
    workspace: Shell, seconds: int, word: str, code: int
) -> None:
    named = declared(workspace, f"policy_tools_explain_{seconds}")
    args = json.dumps({"seconds": seconds})
    text = workspace("explain", "--tool", "render_video", "--args", args, *named, code=code)
    assert word in text
    assert f"seconds={seconds}" in text


@pytest.mark.parametrize(
    ("more", "says", "code"),
    [
        (["--tool", "render_vdieo"], "no tool render_vdieo is known", 1),
        (["--tool", "render_video", "--args", "[1]"], "expected an object", 2),
        (["--tool", "render_video", "--args", "{"], "got no JSON", 2),
        (["--tool", "render_video", "--args", '{"secnods": 1}'], "has no argument 'secnods'", 2),
        (["--tool", "render_video", "--args", '{"seconds": "x"}'], "seconds: Input should be a", 2),
        (["--tool", "render_video"], "seconds: Field required", 2),
        (["--tool", "render_video", "--args", '{"seconds": 1, "file": "a.mp4"}'],
         "render_video has no argument 'file'", 2),
        (["--tool", "render_video", "--args", '{"seconds": 1, "codec": "h265"}'], "codec: ", 2),
        (["--tool", "render_video", "--args", '{"seconds": NaN}'], "--args: ", 2),
        (["--tool", "render_video", "--args", '{"seconds": 1}', "--to", "site"],
         "this call of render_video sends nothing anywhere", 2),
        (["--tool", "render_video", "--tool-stage", "export"], "belongs to the edit stage", 1),
    ],
)  # fmt: skip
def test_explain_refuses_what_is_no_call(
    workspace: Shell, more: list[str], says: str, code: int
) -> None:
    named = declared(workspace, "policy_tools_refused")
    _, said = workspace.both("explain", *more, *named, code=code)
    assert says in said


FILLED = """
from langchain_core.tools import tool

from agentguard import Asset, Binding, Fixed, Opaque, Plain, Text, To

@tool
def post(source: str, room: str, folder: str, note: str = "", fps: int = 24) -> str:
    '''Post.'''
    return folder

@tool
def send(source: str) -> str:
    '''Send.'''
    return source

@tool
def count(fps: int = 24) -> str:
    '''Count.'''
    return str(fps)

TOOLS = [
    Binding(post, stage="export", effect=Opaque(), args={"source": Asset(), "room": To(),
            "folder": Fixed("public"), "note": Text(), "fps": Plain()}),
    Binding(send, stage="export", effect=Opaque(), to="site", args={"source": Asset()}),
    Binding(count, stage=None, args={"fps": Plain()}),
]
"""
POST = ("--tool", "post", "--args", '{"room": "team"}')
SEND = ("--tool", "send")
COUNT = ("--tool", "count")


@pytest.mark.parametrize(
    ("condition", "words", "fires"),
    [
        ("context has args.fps && context.args.fps > 20", POST, True),
        ("context has args.fps && context.args.fps > 20", COUNT, True),
        ("context has args.fps && context.args.fps == 0", POST, False),
        ('context has args.folder && context.args.folder == "public"', POST, True),
        ('context has destination && context.destination.id == "team"', POST, True),
        ('context has destination && context.destination.id == "site"', SEND, True),
        ('resource.kind == "asset"', POST, True),
        ('resource.kind == "none"', COUNT, True),
        ("context.hasText", POST, True),
        ("context.hasText", SEND, False),
    ],
)
def test_explain_fills_a_call_in_as_the_guard_does(
    workspace: Shell, condition: str, words: tuple[str, ...], fires: bool
) -> None:
    (workspace.folder / "policy_tools_filled.py").write_text(FILLED, "utf-8")
    forbid = f'@id("acme.no") forbid (principal, action, resource) when {{ {condition} }};'
    (workspace.folder / "policies" / "own.cedar").write_text(forbid, "utf-8")
    media = () if words is COUNT else ("--class", "brand", "--queued")
    named = ("--bindings", "policy_tools_filled:TOOLS", "--json", *media)
    code = 3 if fires else 4 if words is SEND else 0
    found = json.loads(workspace("explain", *words, *named, code=code))
    assert ("acme.no" in [policy["id"] for policy in found["policies"]]) is fires


def test_explain_marks_what_nobody_gave(workspace: Shell) -> None:
    (workspace.folder / "policy_tools_marked.py").write_text(FILLED, "utf-8")
    named = ("--bindings", "policy_tools_marked:TOOLS", "--class", "brand")
    text = " ".join(workspace("explain", *POST, *named).split())
    for said in ("room='team',", "source='this asset' [supposed]", "fps=24 [filled in]",
                 "folder='public' [filled in]", "to team: internal"):  # fmt: skip
        assert said in text
    call = json.loads(workspace("explain", *POST, *named, "--json"))["call"]
    assert call["destination"] == "team"
    filled = dict.fromkeys(("folder", "note", "fps"), "filled in")
    assert call["not_given"] == {"source": "supposed", **filled}
    words = ("explain", "--tool", "post", "--to", "team", *named, "--json")
    assert call == json.loads(workspace(*words))["call"]


@pytest.mark.parametrize(("words", "to"), [(POST, "site"), (SEND, "team")])
def test_explain_refuses_another_destination_than_the_call_has(
    workspace: Shell, words: tuple[str, ...], to: str
) -> None:
    (workspace.folder / "policy_tools_elsewhere.py").write_text(FILLED, "utf-8")
    named = ("--bindings", "policy_tools_elsewhere:TOOLS")
    _, said = workspace.both("explain", *words, "--to", to, *named, code=2)
    assert "sends it to" in said


def test_doctor_compares_policies_with_all_tools(workspace: Shell) -> None:
    named = declared(workspace, "policy_tools_doctor")
    found = json.loads(workspace("doctor", *named, "--json"))["findings"]
    assert any(one["text"].startswith("fits 1 tools") for one in found)
    named = declared(workspace, "policy_tools_doctor_2", LONG.replace("seconds", "secnods"))
    found = json.loads(workspace("doctor", *named, "--json", code=1))["findings"]
    bad = [one["text"] for one in found if one["state"] == "bad"]
    assert any("secnods" in text and "own.cedar, line 2" in text for text in bad)


def test_explain_refuses_an_export_to_a_place_without_a_folder(workspace: Shell) -> None:
    """As the guard does, before any policy is asked."""
    config = workspace.folder / "agentguard.toml"
    config.write_text(
        config.read_text("utf-8")
        + '\n[destinations.wall]\naudience = "internal"\nenvironment = "draft"\n'
    )
    args = ("--tool", "export_asset", "--class", "brand", "--queued", "--reviewed")
    _, said = workspace.both("explain", *args, "--to", "wall", code=1)
    assert "wall" in said
    assert "url" in said
