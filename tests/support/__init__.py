"""A workspace on disk for tests: real config, ledger, keys and store, with a clock to turn."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode, tools_condition
from PIL import Image

from agentguard import Guard
from agentguard.langgraph import protect
from agentguard.model import Verdict
from agentguard.people.answers import sign_answer
from agentguard.people.approvals import Approval
from agentguard.people.signers import append_signer
from agentguard.transparency.log_key import create_log_key
from tests.support.bindings import Arg, Binding
from tests.support.shared import tool_of

CONFIG = """
workspace = "acme"

[people]
"kim@acme.example" = { groups = [] }
"omar@acme.example" = { groups = ["legal"] }
"ines@acme.example" = { groups = ["marketing"] }
"lee@acme.example" = { groups = [] }

[agents]
painter = { stages = ["generate"], owner = "kim@acme.example" }
editor = { stages = ["edit"], owner = "kim@acme.example" }
renderer = { stages = ["render"], owner = "kim@acme.example" }
reviewer = { stages = ["review"], owner = "kim@acme.example" }
traffic = { stages = ["queue"], owner = "kim@acme.example" }
publisher = { stages = ["export"], owner = "kim@acme.example" }

[destinations.team]
url = "file:out/team"
audience = "internal"
environment = "draft"
ceiling = ["brand", "customer-data"]

[destinations.site]
url = "file:out/site"
audience = "public"
environment = "production"

[destinations.images]
audience = "vendor"
environment = "draft"
ceiling = ["brand"]
"""

T0 = 1_800_000_000_000

KIM, OMAR, INES, LEE = (f"{name}@acme.example" for name in ("kim", "omar", "ines", "lee"))
"""The people of the workspace: kim owns its agents, omar is of legal, ines of marketing."""

GO: Any = {"messages": [("user", "go")]}
"""A user's message that starts a graph."""


@dataclass
class Clock:
    """The ledger's time, turned by hand."""

    now: int = T0

    def __call__(self) -> int:
        return self.now

    def turn(self, *, seconds: float) -> None:
        self.now += int(seconds * 1000)


@dataclass
class World:
    """What the test tools did: executed effects, counted where they happen."""

    effects: list[tuple[str, str]] = field(default_factory=list)

    def count(self, name: str) -> int:
        return sum(1 for effect, _ in self.effects if effect == name)


@dataclass
class Studio:
    """One guard over one workspace folder, with tools, people's keys and a clock."""

    folder: Path
    guard: Guard
    clock: Clock
    world: World
    keys: dict[str, Ed25519PrivateKey]
    tools: dict[str, Any]

    def picture(self, name: str = "in.png", colour: str = "navy", size: int = 32) -> Path:
        path = self.folder / name
        Image.new("RGB", (size, size), colour).save(path)
        return path

    def bind(self, made: Any, **meaning: Any) -> None:
        """Bind one more tool, of a test's own, by the arguments of a Binding."""
        self.guard.bind(Binding(made, **meaning))
        self.tools[made.name] = made

    def answer(
        self,
        request: str,
        person: str,
        verdict: Verdict = Verdict.APPROVE,
        group: str | None = None,
    ) -> Approval:
        answer = sign_answer(
            self.keys[person],
            request=request,
            verdict=verdict,
            person=person,
            group=group,
            at=self.clock(),
        )
        return self.guard.approvals.answer(answer)

    def pending(self) -> Approval:
        (approval,) = self.guard.approvals.list()
        return approval

    def pending_any(self) -> Approval:
        """The one approval request, whatever its state."""
        (approval,) = self.guard.approvals.list(state=None)
        return approval

    def exported(self, destination: str = "site") -> list[Path]:
        folder = self.folder / "out" / destination
        return sorted(p for p in folder.iterdir() if p.suffix != ".txt") if folder.exists() else []

    def labels(self) -> list[list[str]]:
        """The labels of each asset that the ledger knows."""
        return [json.loads(row["labels"]) for row in self.guard.ledger.all("SELECT * FROM assets")]

    def grants(self) -> list[str]:
        return [row["state"] for row in self.guard.ledger.all("SELECT state FROM grants")]


def write_workspace(folder: Path, config: str = CONFIG) -> dict[str, Ed25519PrivateKey]:
    """An agentguard.toml with log key and everybody's public keys; returns the private ones."""
    (folder / "agentguard.toml").write_text(config, "utf-8")
    (folder / ".agentguard").mkdir(exist_ok=True)
    if not (folder / ".agentguard" / "log.key").exists():
        create_log_key(folder / ".agentguard" / "log.key")
    keys = {}
    for name in ("kim", "omar", "ines", "lee"):
        key = Ed25519PrivateKey.generate()
        append_signer(
            folder / "agentguard.signers", f"{name}@acme.example", key.public_key(), second_key=True
        )
        keys[f"{name}@acme.example"] = key
    return keys


def make_tools(world: World) -> tuple[dict[str, Any], list[Binding]]:
    """Plain tools over file paths, and their Bindings."""

    def paint(prompt: str, colour: Literal["red", "green", "navy"], file: str = "p.png") -> str:
        """Paint a picture."""
        world.effects.append(("paint", prompt))
        Image.new("RGB", (24, 24), colour).save(file)
        return f"painted {file}"

    def crop(source: str, width: int, height: int, file: str = "c.png") -> str:
        """Crop a picture from its top left corner."""
        world.effects.append(("crop", source))
        with Image.open(source) as picture:
            picture.crop((0, 0, width, height)).save(file)
        return f"cropped {source} into {file}"

    def look(source: str) -> tuple[str, dict[str, Any]]:
        """Review a picture."""
        world.effects.append(("look", source))
        return "nothing to say", {"findings": [{"severity": "info", "message": "sharp"}]}

    def publish(source: str, to: str) -> str:
        """Upload a picture by the developer's own code."""
        world.effects.append(("publish", to))
        return "published"

    tools = {function.__name__: tool_of(function) for function in (paint, crop, publish)}
    tools["look"] = tool_of(look, response_format="content_and_artifact")
    edit = Binding(
        tools["crop"], stage="edit", assets=["source"], plain=["width", "height"], outputs=["file"]
    )
    bindings = [
        Binding(
            tools["paint"], stage="generate", texts=["prompt"], plain=["colour"], outputs=["file"]
        ),
        edit,
        Binding(tools["look"], stage="review", assets=["source"]),
        Binding(
            tools["publish"],
            stage="export",
            assets=["source"],
            destination=Arg("to"),
            effect="opaque",
        ),
    ]
    return tools, bindings


def open_studio(
    folder: Path,
    *,
    clock: Clock | None = None,
    config: str = CONFIG,
    keys: dict[str, Ed25519PrivateKey] | None = None,
) -> Studio:
    """Open a guard over a folder; write the workspace first unless its keys are given."""
    clock = clock or Clock()
    keys = keys if keys is not None else write_workspace(folder, config)
    world = World()
    tools, bindings = make_tools(world)
    guard = Guard.from_config(folder / "agentguard.toml", tools=bindings, clock=clock)
    return Studio(folder=folder, guard=guard, clock=clock, world=world, keys=keys, tools=tools)


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


_ids = itertools.count(1)


def call(name: str, args: dict[str, Any], id: str | None = None) -> dict[str, Any]:
    """A tool call as a model writes it."""
    return {"name": name, "args": args, "id": id or f"call-{next(_ids)}", "type": "tool_call"}


def says(*calls: dict[str, Any], id: str | None = None) -> AIMessage:
    """An AI message with tool calls."""
    return AIMessage("", tool_calls=list(calls), id=id or f"ai-{next(_ids)}")


UNSOUND_WAKES: list[list[str]] = []
"""What a strict provider would have refused at each wake of a scripted model, in this process.

`tests/conftest.py` asserts after each test that there is none.
"""


def unsound(messages: Sequence[Any]) -> list[str]:
    """Why OpenAI, Anthropic or Gemini answer 400: a call not answered once, right behind it."""
    wrong: list[str] = []
    waiting: list[str] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            if message.tool_call_id in waiting:
                waiting.remove(message.tool_call_id)
            else:
                wrong.append(f"{message.tool_call_id}: answered twice, or no call right before it")
            continue
        wrong += [f"{id}: not answered" for id in waiting]
        waiting = []
        if isinstance(message, AIMessage):
            waiting = [str(call["id"]) for call in message.tool_calls]
    return wrong + [f"{id}: not answered" for id in waiting]


def wake(messages: Sequence[Any]) -> None:
    """Record that a model was woken with these messages."""
    wrong = unsound(messages)
    if wrong:
        UNSOUND_WAKES.append(wrong)


def scripted(script: Sequence[AIMessage]) -> Any:
    """A model node that says the next message of a script, by what was said before.

    It records each wake with a history that a strict provider refuses, see `UNSOUND_WAKES`.
    """

    def model(state: State) -> dict[str, Any]:
        wake(state["messages"])
        said = sum(1 for m in state["messages"] if isinstance(m, AIMessage))
        message = script[said] if said < len(script) else AIMessage("done", id=f"end-{said}")
        return {"messages": [message]}

    return model


def build(
    studio: Studio,
    script: Sequence[AIMessage],
    nodes: Mapping[str, tuple[str, Iterable[str]]] | None = None,
    *,
    checkpointer: Any = None,
    state: Any = State,
) -> Any:
    """A compiled graph: a scripted model and one ToolNode per agent.

    Args:
        nodes: node name → (agent, tool names); the default is one node per stage.
    """
    nodes = nodes or {
        "paint_tools": ("painter", ["paint"]),
        "edit_tools": ("editor", ["crop"]),
        "review_tools": ("reviewer", ["look"]),
        "queue_tools": ("traffic", ["queue_for_release"]),
        "export_tools": ("publisher", ["publish", "export_asset"]),
    }
    own = {"queue_for_release": studio.guard.queue_tool, "export_asset": studio.guard.export_tool,
           "list_assets": studio.guard.list_tool}  # fmt: skip
    builder = StateGraph(state)
    builder.add_node("model", scripted(script))
    builder.add_edge(START, "model")
    home = {tool: node for node, (_, tools) in nodes.items() for tool in tools}
    for node, (_, tools) in nodes.items():
        made = [studio.tools.get(name) or own[name]() for name in tools]
        builder.add_node(node, ToolNode(made))
        builder.add_edge(node, "model")

    def route(state: Any) -> str:
        last = state["messages"][-1]
        if not getattr(last, "tool_calls", None):
            return END
        return home.get(last.tool_calls[0]["name"], next(iter(nodes)))

    builder.add_conditional_edges("model", route, [*nodes, END])
    agents = {node: agent for node, (agent, _) in nodes.items()}
    sealed = protect(builder, studio.guard, agents=agents)
    if checkpointer is None:
        checkpointer = InMemorySaver()
    return sealed.compile(checkpointer=checkpointer or None)


def tool_loop(
    model: Sequence[AIMessage] | Callable[[Any], Any],
    tools: Sequence[Any] | ToolNode,
    *,
    state: Any = State,
    **node: Any,
) -> StateGraph[Any]:
    """A model and one ToolNode, `tools`, in a loop, as most graphs begin.

    Args:
        model: the script of a model, or a node of the test's own.
        tools: what the ToolNode has, or the ToolNode itself.
        node: how the ToolNode is added, as `retry_policy`.
    """
    builder: StateGraph[Any] = StateGraph(state)
    said: Any = model if callable(model) else scripted(model)
    builder.add_node("model", said)
    builder.add_node("tools", tools if isinstance(tools, ToolNode) else ToolNode(tools), **node)
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    return builder


def guarded_loop(
    studio: Studio, tools: Sequence[Any], agent: str, script: Sequence[AIMessage]
) -> Any:
    """The same through `protect`, compiled; the tools are this agent's."""
    sealed = protect(tool_loop(script, tools), studio.guard, agents={"tools": agent})
    return sealed.compile(checkpointer=InMemorySaver())


def run_script(
    studio: Studio, job: Any, *messages: AIMessage, nodes: Any = None, thread: str = "t"
) -> tuple[Any, dict[str, Any]]:
    """A graph whose model says these messages, and its state after a user's "go" in a job."""
    graph = build(studio, messages, nodes)
    return graph, graph.invoke(GO, job.config(thread_id=thread))


def results(state: dict[str, Any]) -> list[ToolMessage]:
    """The tool messages of a final state."""
    return [m for m in state["messages"] if isinstance(m, ToolMessage)]
