"""The three programs that most people write first, as they would, and how long they are.

The lines that are no import are counted: a change that costs users one has to say so here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from PIL import Image
from starlette.testclient import TestClient

from agentguard import Guard
from agentguard.model import Verdict
from agentguard.people.answers import sign_answer
from agentguard.testing import ScriptedModel
from tests.support import write_workspace

KIM, OMAR = "kim@acme.example", "omar@acme.example"

CONFIG = """
workspace = "acme"
people = { "kim@acme.example" = {}, "omar@acme.example" = { groups = ["legal"] } }
[agents.studio]
owner = "kim@acme.example"
stages = ["generate", "edit", "queue", "export"]
unsafe_combined_stages = true
[destinations.team]
url = "file:out/team"
audience = "internal"
environment = "draft"
ceiling = ["brand"]
[destinations.partners]
url = "file:out/partners"
audience = "partner"
environment = "draft"
"""

TOOL = """
from typing import Annotated
from PIL import Image
from agentguard import Asset, Guard, Output, media_tool
from agentguard.langgraph import GuardMiddleware, protect

Picture, Png = Annotated[str, Asset()], Annotated[str, Output(".png")]

@media_tool(stage="edit")
def crop(source: Picture, width: int, height: int, file: Png) -> str:
    \"\"\"Crop a picture from its top left corner, in pixels.\"\"\"
    Image.open(source).crop((0, 0, width, height)).save(file)
    return "cropped"

guard = Guard.from_config("agentguard.toml", tools=[crop])
"""

ONE_AGENT = f"""{TOOL}
from langchain.agents import create_agent
gate = GuardMiddleware(guard, agent="studio")
agent = create_agent(model, guard.tools(), middleware=[gate], checkpointer=saver)

with guard.open_job("spring campaign", requested_by="kim@acme.example") as job:
    logo = job.import_asset("logo.png", ["brand"])
    words = f"Crop {{logo}} to 64 by 64 and send it to the team."
    state = agent.invoke({{"messages": [("user", words)]}}, job.config(thread_id="t1"))
"""

STATE_GRAPH = f"""{TOOL}
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
tools = guard.tools(agent="studio")

def ask(state: MessagesState) -> dict:
    return {{"messages": [model.bind_tools(tools).invoke(state["messages"])]}}

builder = StateGraph(MessagesState)
builder.add_node("model", ask)
builder.add_node("tools", ToolNode(tools))
builder.add_edge(START, "model")
builder.add_conditional_edges("model", tools_condition)
builder.add_edge("tools", "model")
graph = protect(builder, guard, agents="studio").compile(checkpointer=saver)

with guard.open_job("spring campaign", requested_by="kim@acme.example") as job:
    logo = job.import_asset("logo.png", ["brand"])
    words = f"Crop {{logo}} to 64 by 64 and send it to the team."
    state = graph.invoke({{"messages": [("user", words)]}}, job.config(thread_id="t1"))
"""

WEB_SERVER = f"""{TOOL}
from langchain.agents import create_agent
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
gate = GuardMiddleware(guard, agent="studio")
agent = create_agent(model, guard.tools(), middleware=[gate], checkpointer=saver)
waiting = {{}}

async def chat(request):
    thread, user, body = request.path_params["thread"], current_user(request), await request.json()
    if thread in waiting:
        entered, given = guard.rejoin_job(waiting[thread], by=user), None
    else:
        entered, given = guard.open_job("chat", requested_by=user), body["message"]
    async with entered as job:
        if given is not None:
            media = job.import_asset(body["file"], ["brand"])
            given = {{"messages": [("user", f"{{given}} {{media}}")]}}
        state = await agent.ainvoke(given, job.config(thread_id=thread))
    if "__interrupt__" in state:
        waiting[thread] = job.id
        return JSONResponse({{"waiting": [one.reason for one in guard.approvals.waiting()]}})
    waiting.pop(thread, None)
    return JSONResponse({{"reply": state["messages"][-1].content}})

app = Starlette(routes=[Route("/chat/{{thread}}", chat, methods=["POST"])])
"""


def lines(program: str) -> int:
    """How many lines are the user's to write, without imports."""
    written = [line for line in program.splitlines() if line.strip()]
    return sum(not line.startswith(("from ", "import ")) for line in written)


def picture(read: list[Any]) -> str:
    """The asset id in the newest message that the model reads."""
    found = [word.strip(".,:;'\"") for word in str(read[-1].content).split()]
    return next(word for word in found if word.startswith("asset-"))


def crop_and_send(to: str) -> ScriptedModel:
    return ScriptedModel(
        [
            lambda read: ("crop", {"source": picture(read), "width": 64, "height": 64}),
            lambda read: ("export_asset", {"asset": picture(read), "to": to}),
            "It is on its way.",
        ]
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (200, 100), "navy").save("logo.png")
    return tmp_path


@pytest.fixture
def keys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    made = write_workspace(folder, CONFIG)
    opened: list[Guard] = []
    open_ = Guard.from_config

    def remembered(*args: Any, **kwargs: Any) -> Guard:
        opened.append(open_(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(Guard, "from_config", remembered)
    yield made
    for guard in opened:
        guard.close()


def run(program: str, **given: Any) -> dict[str, Any]:
    scope = {"saver": InMemorySaver(), **given}
    exec(compile(program, "quick start", "exec"), scope)
    return scope


def sent(folder: Path, destination: str) -> list[tuple[int, int]]:
    """The sizes of the pictures that lie at a destination."""
    return [Image.open(file).size for file in folder.glob(f"out/{destination}/*.png")]


@pytest.mark.parametrize(
    ("program", "written"), [(ONE_AGENT, 13), (STATE_GRAPH, 21)], ids=["one agent", "state graph"]
)
def test_crop_and_send_by_one_model(
    folder: Path, keys: dict[str, Any], program: str, written: int
) -> None:
    model = crop_and_send("team")
    state = run(program, model=model)["state"]
    results = [one for one in state["messages"] if isinstance(one, ToolMessage)]
    assert [(one.name, one.status) for one in results] == [
        ("crop", "success"),
        ("export_asset", "success"),
    ]
    model.require_all_said()
    assert sent(folder, "team") == [(64, 64)]
    assert lines(program) == written


def test_web_server_keeps_a_question_over_requests(folder: Path, keys: dict[str, Any]) -> None:
    model = crop_and_send("partners")
    scope = run(WEB_SERVER, model=model, current_user=lambda request: request.headers["user"])
    guard, kim = scope["guard"], {"user": KIM}
    with TestClient(scope["app"]) as client:

        def post(**body: str) -> Any:
            return client.post("/chat/t1", json=body, headers=kim).json()

        first = post(message="Crop this to 64 by 64 for our partners:", file="logo.png")
        assert "brand" in first["waiting"][0]
        assert sent(folder, "partners") == []
        assert post() == first  # a look, and no answer
        (question,) = guard.approvals.waiting()
        answer = sign_answer(
            keys[OMAR],
            request=question.request,
            verdict=Verdict.APPROVE,
            person=OMAR,
            group=None,
            at=guard.ledger.clock(),
        )
        guard.approvals.answer(answer)
        assert post() == {"reply": "It is on its way."}
    assert sent(folder, "partners") == [(64, 64)]
    model.require_all_said()
    assert lines(WEB_SERVER) == 27


def test_another_user_does_not_enter_the_job_that_waits(folder: Path, keys: dict[str, Any]) -> None:
    model = crop_and_send("partners")
    scope = run(WEB_SERVER, model=model, current_user=lambda request: request.headers["user"])
    with TestClient(scope["app"], raise_server_exceptions=False) as client:
        body = {"message": "Crop this for our partners:", "file": "logo.png"}
        assert "waiting" in client.post("/chat/t1", json=body, headers={"user": KIM}).json()
        refused = client.post("/chat/t1", json={}, headers={"user": OMAR})
        assert "waiting" in client.post("/chat/t1", json={}, headers={"user": KIM}).json()
    assert refused.status_code == 500
    assert sent(folder, "partners") == []
