"""The how-to pages are run: what a reader copies does what the page says."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import psycopg
import pytest
from deepagents import create_deep_agent
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, hook_config
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode, create_react_agent
from langgraph.types import Command
from langgraph_supervisor import create_supervisor
from PIL import Image, ImageFilter

from agentguard import Asset, Findings, Guard, Output, Text, media_tool
from agentguard.langgraph import GuardMiddleware, known, protect
from agentguard.model import Verdict
from agentguard.people.answers import sign_answer
from tests.support import call, says, tool_loop, write_workspace
from tests.support.chat_models import Scripted
from tests.support.databases import postgres_server
from tests.support.pages import ROOT, Terminal, blocks

KIM, OMAR = "kim@acme.example", "omar@acme.example"
PAGES = "docs/how-to"

Picture = Annotated[str, Asset()]
Png = Annotated[str, Output(".png")]

GIVEN: dict[str, Any] = {
    each.__name__: each
    for each in (
        AgentMiddleware, Asset, Command, Findings, Guard, GuardMiddleware, InjectedState,
        InjectedToolCallId, MessagesState, Output, Path, StateGraph, Text, ToolMessage, ToolNode,
        create_agent, create_deep_agent, create_react_agent, create_supervisor, hook_config,
        media_tool, protect, tool, uuid4,
    )
}  # fmt: skip
"""What the imports of a page would give."""
GIVEN |= {"Annotated": Annotated, "END": END, "START": START, "known": known}
GIVEN |= {"Image": Image, "ImageFilter": ImageFilter, "io": io}


@media_tool(stage="generate", to=None)
def paint(prompt: Annotated[str, Text()], file: Png) -> str:
    """Paint a picture."""
    Image.new("RGB", (64, 64), "navy").save(file)
    return "painted"


@media_tool(stage="edit")
def crop(source: Picture, width: int, height: int, file: Png) -> str:
    """Crop a picture from its top left corner, in pixels."""
    Image.open(source).crop((0, 0, width, height)).save(file)
    return "cropped"


class Reads(Scripted):
    """Calls what a test lists; `ASSET` in the arguments is the asset that it read of last."""

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        message: Any = next(iter(self.messages), AIMessage("done"))
        assets = re.findall(r"asset-[0-9a-f]{20}", str([m.content for m in messages]))
        calls = json.loads(json.dumps(message.tool_calls).replace("ASSET", (assets or ["?"])[-1]))
        self.messages = iter([AIMessage("", tool_calls=calls) if calls else AIMessage("done")])
        result = super()._generate(messages, *args, **kwargs)
        self.messages = self.rest
        return result

    rest: Any = None


def model(*messages: AIMessage) -> Reads:
    rest = iter(messages)
    return Reads(messages=rest, rest=rest)


Keys = dict[str, Any]


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    monkeypatch.chdir(tmp_path)
    return write_workspace(tmp_path)


@pytest.fixture
def guard(keys: Keys, tmp_path: Path) -> Iterator[Guard]:
    with Guard.from_config(tmp_path / "agentguard.toml", tools=[paint, crop]) as guard:
        yield guard


def shown(page: str, title: str = "with the guard") -> str:
    """The Python block of a page: its only one, or that of a title."""
    found = blocks(f"{PAGES}/{page}", "python")
    (text,) = [block.text for block in found if len(found) == 1 or block.title == title]
    return text


def run(
    page: str, guard: Guard | None, title: str = "with the guard", **given: Any
) -> dict[str, Any]:
    """What a Python block of a page defines, given what the page says is given."""
    scope: dict[str, Any] = {
        **GIVEN,
        "paint": paint,
        "crop": crop,
        "saver": InMemorySaver(),
        "guard": guard,
    }
    scope |= given
    exec(compile(shown(page, title), page, "exec"), scope)
    return scope


def executed(guard: Guard) -> list[str]:
    """The tools whose calls were executed."""
    rows = guard.ledger.all(
        "SELECT requests.body AS body FROM grants JOIN requests ON requests.digest = grants.request"
        " WHERE grants.state = 'executed'"
    )
    return sorted(json.loads(row["body"])["tool"] for row in rows)


def sign(guard: Guard, keys: Keys) -> None:
    (asked,) = guard.approvals.list()
    answer = sign_answer(
        keys[OMAR],
        request=asked.request,
        verdict=Verdict.APPROVE,
        person=OMAR,
        group=None,
        at=guard.ledger.clock(),
    )
    guard.approvals.answer(answer)


BEFORE_AND_AFTER = [
    ("front-end-tools.md", 1), ("langgraph-server.md", 1), ("one-agent.md", 1),
    ("prebuilt-agents.md", 3), ("quickstart-loop.md", 1), ("sub-agents.md", 1),
    ("supervisor.md", 1), ("web-applications.md", 1),
]  # fmt: skip


@pytest.mark.parametrize(("page", "pairs"), BEFORE_AND_AFTER)
def test_page_marks_each_line_that_changes(page: str, pairs: int) -> None:
    found = blocks(f"{PAGES}/{page}", "python")
    before = [block.text for block in found if block.title == "as it was"]
    after = [block.text for block in found if block.title == "with the guard"]
    assert len(before) == len(after) == pairs
    for old, new in zip(before, after, strict=True):
        compile(old, page, "exec")
        known = ["", *old.splitlines()]
        in_new_function = False
        for line in new.splitlines():
            marked = "  # new" in line or "  # changed" in line
            if line and not line.startswith(" "):
                in_new_function = marked and "def " in line
            assert marked == (line not in known) or in_new_function, line


def test_quickstart_loop(keys: Keys, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save("logo.png")
    cut = says(call("crop", {"source": "ASSET", "width": 8, "height": 8}))
    scope = run("quickstart-loop.md", None, model=model(cut))
    with scope["guard"] as guard:
        assert executed(guard) == ["crop"]


STUDIO = """
[agents.studio]
owner = "kim@acme.example"
stages = ["generate", "edit", "queue", "export"]
unsafe_combined_stages = true
"""

SCRIPT = [
    says(call("paint", {"prompt": "the sea"})),
    says(call("crop", {"source": "ASSET", "width": 8, "height": 8})),
    says(call("export_asset", {"asset": "ASSET", "to": "team"})),
]


def test_one_agent_holds_all_stages(keys: Keys, tmp_path: Path) -> None:
    (table,) = blocks(f"{PAGES}/one-agent.md", "toml")
    assert table.text.strip() == STUDIO.strip()
    config = tmp_path / "agentguard.toml"
    config.write_text(config.read_text("utf-8") + STUDIO, "utf-8")
    with Guard.from_config(config, tools=[paint, crop]) as guard:
        run("one-agent.md", guard, model=model(*SCRIPT))
        assert executed(guard) == ["crop", "export_asset", "paint"]
    assert len(list((tmp_path / "out" / "team").glob("*.png"))) == 1


def test_one_agent_for_each_stage(guard: Guard, tmp_path: Path) -> None:
    run("one-agent.md", guard, "an agent for each stage", model=model(*SCRIPT))
    assert executed(guard) == ["crop", "export_asset", "paint"]
    assert len(list((tmp_path / "out" / "team").glob("*.png"))) == 1


@pytest.mark.parametrize("part", [0, 2])
def test_prebuilt_agent_crops(guard: Guard, part: int) -> None:
    """create_react_agent with inline tools, and a deep agent."""
    Image.new("RGB", (64, 64)).save("logo.png")
    found = [b.text for b in blocks(f"{PAGES}/prebuilt-agents.md", "python")]
    made, _, _ = found[2 * part + 1].partition("with guard.open_job")
    cut = says(call("crop", {"source": "ASSET", "width": 8, "height": 8}))
    scope = {**GIVEN, "crop": crop, "saver": InMemorySaver(), "guard": guard, "model": model(cut)}
    exec(compile(made, "prebuilt-agents.md", "exec"), scope)
    with guard.open_job("page", requested_by=KIM) as job:
        logo = job.import_asset("logo.png", ["brand"])
        scope["agent"].invoke({"messages": [("user", f"Crop {logo}.")]}, job.config())
    assert executed(guard) == ["crop"]


def test_library_makes_the_hand_offs_of_a_supervisor(guard: Guard) -> None:
    text = blocks(f"{PAGES}/prebuilt-agents.md", "python")[3].text
    scope: dict[str, Any] = {**GIVEN, "paint": paint, "saver": InMemorySaver(), "guard": guard}
    scope["model"] = model(says(call("transfer_to_painter", {})))
    scope["painter_model"] = model(says(call("paint", {"prompt": "the sea"})))
    exec(compile(text, "prebuilt-agents.md", "exec"), scope)
    with guard.open_job("page", requested_by=KIM) as job:
        scope["team"].invoke({"messages": [("user", "Paint.")]}, job.config())
    assert "paint" in executed(guard)


def test_front_end_tool_ends_the_run(guard: Guard) -> None:
    toast = says(call("toast", {"text": "hi"}, id="front"))
    agent = run("front-end-tools.md", guard, model=model(toast))["agent"]
    with guard.open_job("page", requested_by=KIM) as job:
        state = agent.invoke({"messages": [("user", "Say hi.")]}, job.config())
    assert state["messages"][-1].tool_calls[0]["id"] == "front"


def test_agents_hand_over(guard: Guard) -> None:
    run(
        "supervisor.md",
        guard,
        painter_model=model(
            says(call("paint", {"prompt": "the sea"})), says(call("hand_to_editor", {}))
        ),
        editor_model=model(says(call("crop", {"source": "ASSET", "width": 8, "height": 8}))),
    )
    assert executed(guard) == ["crop", "hand_to_editor", "paint"]


def test_a_tool_runs_a_sub_agent(guard: Guard) -> None:
    run(
        "sub-agents.md",
        guard,
        painter_model=model(says(call("paint", {"prompt": "the sea"}))),
        model=model(
            says(call("ask_painter", {"task": "paint the sea"})),
            says(call("crop", {"source": "ASSET", "width": 8, "height": 8})),
        ),
    )
    assert executed(guard) == ["ask_painter", "crop", "paint"]


def test_a_question_of_a_sub_agent_reaches_the_top(
    guard: Guard, keys: Keys, tmp_path: Path
) -> None:
    """The page says so of `interrupts=True`."""
    Image.new("RGB", (8, 8)).save("in.png")
    code = shown("sub-agents.md").partition("with guard.open_job")[0]
    code = code.replace("guard.tools([paint])", "[guard.export_tool()]").replace(
        'agent="painter"', 'agent="publisher"'
    )
    scope: dict[str, Any] = {**GIVEN, "crop": crop, "saver": InMemorySaver(), "guard": guard}
    scope["painter_model"] = model(says(call("export_asset", {"asset": "ASSET", "to": "team"})))
    scope["model"] = model(says(call("ask_painter", {"task": "send ASSET"})))
    exec(compile(code, "sub-agents.md", "exec"), scope)
    with guard.open_job("page", requested_by=KIM) as job:
        asset = job.import_asset("in.png", ["likeness"])
        state = scope["agent"].invoke({"messages": [("user", f"send {asset}")]}, job.config())
        assert state["__interrupt__"]
        sign(guard, keys)
        scope["agent"].invoke(None, job.config())
    assert len(list((tmp_path / "out" / "team").glob("*.png"))) == 1


def test_a_supervisor_only_hands_over(guard: Guard) -> None:
    """The page says so: an agent without tools of its stage may hand over."""
    editor_model = model(AIMessage("done"))
    first = model(says(call("hand_to_editor", {})))
    scope = run("supervisor.md", guard, painter_model=first, editor_model=editor_model)
    supervisor = model(says(call("hand_to_editor", {})))
    builder = StateGraph(MessagesState)
    node = scope["member"]("traffic", supervisor, guard.tools([scope["hand_to_editor"]]))
    builder.add_node("supervisor", node, destinations=("editor",))
    builder.add_node("editor", scope["member"]("editor", model(), guard.tools([crop])))
    builder.add_edge(START, "supervisor")
    graph: Any = builder.compile(InMemorySaver())
    with guard.open_job("page", requested_by=KIM) as job:
        state = graph.invoke({"messages": [("user", "go")]}, job.config())
    assert [m.content for m in state["messages"][-2:]] == ["The editor takes over.", "done"]


def test_declarations_become_tools_of_their_agents(keys: Keys) -> None:
    @tool
    def uploader(picture: str, caption: str, channel: str, public: bool) -> str:
        """Upload a picture to a channel."""
        return "uploaded"

    (block,) = blocks(f"{PAGES}/declare-tools.md", "python")
    scope: dict[str, Any] = {"uploader": uploader, "is_published": lambda attempt: None}
    exec(compile(block.text, "declare-tools.md", "exec"), scope)
    with scope["guard"] as guard:
        assert [each.name for each in scope["agent_tools"]][:1] == ["crop"]
        (publish,) = [each for each in guard.tools() if each.name == "uploader"]
        assert set(publish.args) == {"picture", "caption", "channel"}
        answer = one_call(guard, "editor", "crop", source="ASSET", width=2, height=2)
        assert answer.status == "success"


def drawn(prompt: str) -> dict[str, Any]:
    made = io.BytesIO()
    Image.new("RGB", (10, 8)).save(made, "PNG")
    return {"data": [{"b64_json": base64.b64encode(made.getvalue()).decode()}]}


def one_call(guard: Guard, agent: str, name: str, **args: Any) -> ToolMessage:
    """What a tool that carries its own gate answers, for a picture of class brand."""
    (tool,) = [each for each in guard.inline_tools(agent=agent) if each.name == name]
    Image.new("RGB", (6, 6)).save("in.png")
    with guard.open_job("page", requested_by=KIM) as job:
        asset = job.import_asset("in.png", ["brand"])
        args = {key: asset if value == "ASSET" else value for key, value in args.items()}
        request = {"name": name, "args": args, "id": "call-1", "type": "tool_call"}
        answer: ToolMessage = tool.invoke(request, job.config())
    return answer


def test_results_become_assets(guard: Guard) -> None:
    Path("renders").mkdir()
    scope = run("media-results.md", guard, vendor_draws=drawn)
    guard.bind(scope["soften"], scope["draw"], scope["poster"])
    answers = [
        one_call(guard, "editor", "soften", picture="ASSET"),
        one_call(guard, "painter", "draw", prompt="the sea"),
        one_call(guard, "renderer", "poster", source="ASSET"),
    ]
    for answer in answers:
        assert answer.status == "success", answer.content
        assert re.search(r"asset-[0-9a-f]{20} \(image/png", str(answer.content))


@pytest.mark.parametrize("clean", [True, False])
def test_a_review_tool_says_what_it_found(guard: Guard, clean: bool) -> None:
    scope = run("review-tool.md", guard)
    guard.bind(scope["check_size"])
    (tool,) = [e for e in guard.inline_tools(agent="reviewer") if e.name == "check_size"]
    Image.new("RGB", (1200 if clean else 12, 6)).save("in.png")
    with guard.open_job("page", requested_by=KIM) as job:
        asset = job.import_asset("in.png", ["brand"])
        request = {"name": "check_size", "args": {"source": asset}, "id": "1", "type": "tool_call"}
        assert tool.invoke(request, job.config()).status == "success"
    rows = guard.ledger.all("SELECT findings FROM reviews")
    assert [bool(json.loads(row["findings"])) for row in rows] == [not clean]


def test_a_web_application_has_a_job_per_request(guard: Guard, keys: Keys, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save("in.png")
    chat_model = model(says(call("export_asset", {"asset": "ASSET", "to": "team"})))

    def node(state: Any) -> Any:
        if isinstance(state["messages"][-1], HumanMessage) and "Attached" not in str(
            state["messages"][-1].content
        ):
            return {"messages": [AIMessage("hello")]}
        return {"messages": [chat_model.invoke(state["messages"])]}

    builder = tool_loop(node, [guard.export_tool()])
    graph = protect(builder, guard, agents={"tools": "publisher"}).compile(InMemorySaver())
    scope = run("web-applications.md", guard, graph=graph)
    assert scope["chat"]("t1", "hello", KIM)["waits"] is False
    asked = scope["chat"]("t1", "Send this to the team.", KIM, Path("in.png"))
    assert asked["waits"] is True
    sign(guard, keys)
    assert scope["go_on"]("t1", asked["job"], KIM)["says"] == "done"
    assert len(list((tmp_path / "out" / "team").glob("*.png"))) == 1


def test_media_of_an_earlier_request_are_refused(guard: Guard) -> None:
    """The page says so of what is not possible yet."""
    Image.new("RGB", (9, 9)).save("in.png")
    with guard.open_job("first", requested_by=KIM) as job:
        asset = job.import_asset("in.png", ["brand"])
    answer = one_call(guard, "editor", "crop", source=asset, width=2, height=2)
    assert "is no asset of this job" in str(answer.content)


def test_a_notebook_needs_no_with(guard: Guard) -> None:
    """The page says so of Jupyter."""
    Image.new("RGB", (6, 6)).save("in.png")
    job = guard.open_job("notebook", requested_by=KIM)
    asset = job.import_asset("in.png", ["brand"])
    (tool,) = [each for each in guard.inline_tools(agent="editor") if each.name == "crop"]
    args = {"source": asset, "width": 2, "height": 2}
    request = {"name": "crop", "args": args, "id": "call-1", "type": "tool_call"}
    assert tool.invoke(request, job.config()).status == "success"
    job.leave()
    assert job.state == "ended"


@pytest.mark.parametrize("page", ["testing-your-graph.md", "key-rotation.md"])
def test_the_commands_of_a_page_print_what_it_shows(page: str, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    assert Terminal(folder).run(f"{PAGES}/{page}")


def test_the_statements_for_postgresql_make_a_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those for `amcheck` are not run: the server of the tests does not bring it."""
    made, _ = blocks(f"{PAGES}/postgresql.md", "sql")
    write_workspace(tmp_path)
    with postgres_server(f"page-{uuid4().hex[:8]}") as server:
        address = server.get_uri()
        with psycopg.connect(address, autocommit=True) as connection:
            for statement in made.text.split(";\n"):
                connection.execute(statement.encode())
        place = re.sub(r"^(postgresql://[^/]*)/[^?]*", r"\1/agentguard", address)
        own = re.sub(r"//[^@/]*@", "//agentguard:change%20me@", place)
        monkeypatch.setenv("AGENTGUARD_LEDGER", own)
        with Guard.from_config(tmp_path / "agentguard.toml") as guard:
            assert guard.verify()


def test_the_servers_configuration_has_the_form_of_ours() -> None:
    (shown,) = blocks(f"{PAGES}/langgraph-server.md", "json")
    own = json.loads((ROOT / "langgraph.json").read_text("utf-8"))
    assert json.loads(shown.text).keys() == own.keys()
