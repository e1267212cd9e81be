"""What the subjects measure with: a workspace on disk, small tools, and graphs over them.

The tools do next to nothing, so that what is left is what it costs to get to them.
"""

from __future__ import annotations

import contextvars
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from PIL import Image

from agentguard import Asset, Binding, Guard, Output, Plain, To
from agentguard.config.template import template
from agentguard.jobs.job import Job
from agentguard.people.signers import append_signer
from agentguard.transparency.log_key import create_log_key

KIM, OMAR = "kim@acme.example", "omar@acme.example"
_ids = itertools.count()

_MORE = """
[destinations.archive]
url = "file:out/archive"
audience = "internal"
environment = "draft"
ceiling = ["brand", "customer-data"]
[destinations.press]
url = "file:out/press"
audience = "public"
environment = "draft"
"""


@tool
def note(text: str) -> str:
    """Do nothing with a text."""
    return "noted"


@tool
def crop(source: str, width: int, height: int, file: str = "crop.png") -> str:
    """Crop a picture from its top left corner."""
    with Image.open(source) as picture:
        picture.crop((0, 0, width, height)).save(file)
    return "cropped"


@tool
def publish(source: str, to: str) -> str:
    """Send a picture somewhere."""
    return "published"


@dataclass(frozen=True, slots=True, kw_only=True)
class Studio:
    """A guard over a workspace of its own.

    Args:
        omar: the key of the one person who may approve; KIM asks for the jobs.
    """

    folder: Path
    guard: Guard
    omar: Ed25519PrivateKey

    def picture(self, name: str = "in.png") -> Path:
        path = self.folder / name
        Image.linear_gradient("L").convert("RGB").save(path)
        return path


def write_workspace(folder: Path) -> Ed25519PrivateKey:
    """A configuration with its keys; returns OMAR's."""
    text = template("bench", [KIM, OMAR]) + _MORE
    (folder / "agentguard.toml").write_text(text, "utf-8")
    (folder / ".agentguard").mkdir()
    create_log_key(folder / ".agentguard" / "log.key")
    omar = Ed25519PrivateKey.generate()
    append_signer(folder / "agentguard.signers", OMAR, omar.public_key())
    return omar


def open_guard(folder: Path) -> Guard:
    """A guard of the workspace in a folder, with a Binding for each tool."""
    return Guard.from_config(
        folder / "agentguard.toml",
        tools=[
            Binding(note, stage="edit", args={"text": Plain()}, result=Asset("blocks")),
            Binding(crop, stage="edit", args={"source": Asset(), "file": Output()}),
            Binding(publish, stage="export", args={"source": Asset(), "to": To()}),
        ],
    )


@contextmanager
def studio() -> Iterator[Studio]:
    """A workspace in a temporary folder, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="agentguard-bench-") as name:
        folder = Path(name)
        omar = write_workspace(folder)
        with open_guard(folder) as guard:
            yield Studio(folder=folder, guard=guard, omar=omar)


@contextmanager
def job_beside(guard: Guard) -> Iterator[Job]:
    """An open job that the running code is not inside of: only `job.config(...)` leads into it.

    Inside a job the guard stops the tools of the unguarded side.
    """
    inside = contextvars.copy_context()
    entered = guard.open_job("bench", requested_by=KIM)
    job = inside.run(entered.__enter__)
    try:
        yield job
    finally:
        inside.run(entered.__exit__, None, None, None)


def unbound(made: BaseTool) -> BaseTool:
    """A copy for the unguarded side, under a name that nobody bound."""
    return made.model_copy(update={"name": f"unguarded_{made.name}"})


def outside(thread: str) -> RunnableConfig:
    """The config of an unguarded run."""
    return {"configurable": {"thread_id": thread}}


class Model(GenericFakeChatModel):
    """A chat model that says what it was told to, whatever tools it is given."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


def says(name: str, arguments: Any, calls: int = 1) -> AIMessage:
    """A message with so many calls of one tool, each under an id of its own."""
    made = [
        {"name": name, "args": dict(arguments), "id": f"c{next(_ids)}", "type": "tool_call"}
        for _ in range(calls)
    ]
    return AIMessage("", tool_calls=made, id=f"m{next(_ids)}")


def graph(tools: Sequence[Any], say: Callable[[], AIMessage]) -> StateGraph[Any, Any, Any, Any]:
    """One model node and one ToolNode, uncompiled; the model calls once, then is done.

    Args:
        say: makes the model's message.
    """

    def model(state: MessagesState) -> dict[str, Any]:
        answered = isinstance(state["messages"][-1], ToolMessage)
        return {"messages": [AIMessage("done") if answered else say()]}

    builder: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    builder.add_node("model", model)
    builder.add_node("tools", ToolNode(tools))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    return builder


def turns(say: Callable[[], AIMessage]) -> Model:
    """A chat model for `create_agent` that calls and is done, in turn."""
    last: Callable[[], AIMessage] = lambda: AIMessage("done")  # noqa: E731
    script = itertools.cycle((say, last))
    return Model(messages=(each() for each in script))


GO = {"messages": [("user", "go")]}


def succeeded(state: Any, calls: int) -> None:
    """Stops the benchmark unless every call really ran: a refusal is fast.

    Raises:
        RuntimeError: one did not.
    """
    done = [m for m in state["messages"] if isinstance(m, ToolMessage) and m.status == "success"]
    if len(done) != calls:
        raise RuntimeError(f"expected {calls} calls to succeed, got {state['messages'][-2:]}")
