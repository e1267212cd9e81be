"""What every shape starts from: a workspace, a job, two plain media tools and a scripted model.

A shape is a function of a Bench: it builds what a tutorial builds, and returns how to run it. It
touches the guard only through `tools`, `protect` and `middleware` of the Bench, so that a run can
forget one of them.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import tools_condition
from PIL import Image

from agentguard import Guard, Job
from agentguard.langgraph import GuardMiddleware, protect
from agentguard.model import Verdict
from agentguard.people.approvals import Approval
from tests.support import CONFIG, Clock, Studio, World, call, says, wake, write_workspace
from tests.support.bindings import Arg, Binding
from tests.support.shared import tool_of

KIM = "kim@acme.example"

Kind = Literal["permit", "ask", "deny"]
Line = Literal["tools", "protect", "middleware"]
Go = Callable[[bool], Any]
"""Runs a shape: from its beginning, or on from where it waits (True)."""

TO: Mapping[Kind, str] = {"permit": "team", "ask": "web", "deny": "site"}

_CONFIG = (
    CONFIG
    + """
[destinations.web]
url = "file:out/web"
audience = "public"
environment = "draft"
"""
)


class Model(BaseChatModel):
    """Says the next message of its script, by how many AI messages it is shown.

    With `once`, the name of a tool, it says the first one until that tool answered: agents of a
    team read what others said.
    """

    script: Any
    once: str = ""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        wake(messages)
        said = sum(isinstance(message, AIMessage) for message in messages)
        if self.once:
            said = sum(isinstance(one, ToolMessage) and one.name == self.once for one in messages)
        done = AIMessage("done", id=f"end-{said}-{len(messages)}")
        message = self.script[said] if said < len(self.script) else done
        return ChatResult(generations=[ChatGeneration(message=message)])

    @property
    def _llm_type(self) -> str:
        return "scripted"


class Bench:
    """One run of a shape.

    Args:
        folder: an empty one.
        kind: what policy says of the call that the model makes.
        forgot: which of the guard's lines this run leaves out.
        tools: what the guard is opened with besides the two.
    """

    def __init__(
        self, folder: Path, kind: Kind, *, forgot: Line | None = None, tools: Iterable[Any] = ()
    ) -> None:
        self.folder, self.kind, self.forgot = folder, kind, forgot
        self.effects: list[str] = []
        self.used: set[Line] = set()
        self.lines: set[tuple[str, int]] = set()
        self.heard: list[str] = []
        keys = write_workspace(folder, _CONFIG)

        def crop(source: str, width: int, height: int, file: str = "c.png") -> str:
            """Crop a picture from its top left corner."""
            self.effects.append("crop")
            Image.open(source).crop((0, 0, width, height)).save(file)
            return "cropped"

        def publish(source: str, to: str) -> str:
            """Upload a picture."""
            self.effects.append(to)
            return f"published to {to}"

        self.crop, self.publish = tool_of(crop), tool_of(publish)
        clock = Clock()
        self.guard = Guard.from_config(
            folder / "agentguard.toml",
            tools=[
                Binding(
                    self.crop,
                    stage="edit",
                    assets=["source"],
                    plain=["width", "height"],
                    outputs=["file"],
                ),
                Binding(
                    self.publish,
                    stage="export",
                    assets=["source"],
                    destination=Arg("to"),
                    effect="opaque",
                ),
                *tools,
            ],
            clock=clock,
        )
        self.studio = Studio(folder, self.guard, clock, World(), keys, {})
        self.saver = InMemorySaver()
        self._later: list[Model] = []

    def __enter__(self) -> Bench:
        self._log = _Heard(self.heard)
        logging.getLogger("agentguard").addHandler(self._log)
        self._cwd = Path.cwd()
        os.chdir(self.folder)
        return self

    def __exit__(self, *_: object) -> None:
        if "job" in vars(self):
            self.job.__exit__(None, None, None)
        os.chdir(self._cwd)
        logging.getLogger("agentguard").removeHandler(self._log)
        self.guard.close()

    @functools.cached_property
    def job(self) -> Job:
        """The shape's job, opened when it is first asked for: tools are bound before."""
        return self.guard.open_job("shape", requested_by=KIM).__enter__()

    @functools.cached_property
    def asset(self) -> str:
        """A brand picture of the job."""
        return self.job.import_asset(self.studio.picture(), ["brand"])

    @functools.cached_property
    def config(self) -> Any:
        """The config of a run in the job; from here on, models know its asset."""
        for model in self._later:
            model.script = self.model().script
        return self.job.config(thread_id="t1")

    # --- the guard's lines -----------------------------------------------------------------------

    def _name_guard(self) -> None:
        """Count the line of the shape that calls this."""
        frame = sys._getframe(1)
        while frame.f_code.co_filename == __file__ and frame.f_back is not None:
            frame = frame.f_back
        self.lines.add((frame.f_code.co_filename, frame.f_lineno))

    def bind(self, *bindings: Any) -> None:
        """`guard.bind(...)`, or `bindings=` where the guard is opened."""
        self._name_guard()
        self.guard.bind(*bindings)

    def tools(self, *tools: Any, **how: Any) -> list[BaseTool]:
        """`guard.tools([...])`; forgotten: the plain tools."""
        self.used.add("tools")
        self._name_guard()
        if self.forgot == "tools":
            return [*tools]
        return self.guard.tools(tools, **how)

    def inline(self, *tools: Any, agent: str = "publisher") -> list[BaseTool]:
        """`guard.tools([...], agent=..., gate="inline")`; forgotten: the plain tools."""
        return self.tools(*tools, agent=agent, gate="inline")

    def protect(self, builder: Any, agents: Mapping[str, Any], **how: Any) -> Any:
        """`protect(builder, guard, agents=...)`; forgotten: the builder."""
        self.used.add("protect")
        self._name_guard()
        if self.forgot == "protect":
            return builder
        return protect(builder, self.guard, agents=agents, **how)

    def middleware(self, agent: str = "publisher", **how: Any) -> list[Any]:
        """`[GuardMiddleware(guard, agent=...)]`; forgotten: none."""
        self.used.add("middleware")
        self._name_guard()
        if self.forgot == "middleware":
            return []
        return [GuardMiddleware(self.guard, agent=agent, **how)]

    # --- what a model says -----------------------------------------------------------------------

    @property
    def to(self) -> str:
        """Where the model wants to publish."""
        return TO[self.kind]

    @property
    def args(self) -> dict[str, Any]:
        """The arguments of the call."""
        return {"source": self.asset, "to": self.to}

    def pictures(self, count: int) -> list[str]:
        """Further brand pictures of the job, no two alike.

        The same one to the same place twice at once is refused: it may be a retry.
        """
        files = [self.studio.picture(f"{n}.png", "red", 33 + n) for n in range(count)]
        return [self.job.import_asset(file, ["brand"]) for file in files]

    def later_model(self) -> Model:
        """A model that publishes, and is made before the job is opened."""
        self._later.append(Model(script=[]))
        return self._later[-1]

    def model(self, *before: AIMessage, calls: int = 1) -> Model:
        """A model that publishes after it said what comes before."""
        sources = [self.asset, *self.pictures(calls - 1)]
        made = [call("publish", {**self.args, "source": source}) for source in sources]
        return Model(script=[*before, says(*made)])

    # --- running ---------------------------------------------------------------------------------

    def graph(self, graph: Any, **given: Any) -> Go:
        """How to run a compiled graph."""

        def go(resume: bool) -> Any:
            return graph.invoke(None if resume else begin(**given), self.config)

        return go

    def agraph(self, graph: Any) -> Go:
        """How to run a compiled graph asynchronously."""

        def go(resume: bool) -> Any:
            return asyncio.run(graph.ainvoke(None if resume else begin(), self.config))

        return go

    def open_questions(self) -> list[Approval]:
        return list(self.guard.approvals.list())

    def approve(self) -> None:
        """A person approves what waits the longest."""
        question = self.open_questions()[0]
        self.studio.answer(question.request, "omar@acme.example", Verdict.APPROVE)


class _Heard(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


def begin(**given: Any) -> dict[str, Any]:
    """What a person says first."""
    return {"messages": [("user", "go")], **given}


def loop(model: Any, node: Any, state: Any = MessagesState, *, name: str = "tools") -> Any:
    """The loop of the Graph API's quickstart: a model, and a node that runs its calls."""
    builder = StateGraph(state)
    builder.add_node("llm_call", lambda s: {"messages": [model.invoke(s["messages"])]})
    builder.add_node(name, node)
    builder.add_edge(START, "llm_call")
    builder.add_conditional_edges("llm_call", tools_condition, {"tools": name, END: END})
    builder.add_edge(name, "llm_call")
    return builder


def alone(node: Any, state: Any = MessagesState, *, name: str = "work", **how: Any) -> Any:
    """A graph of one node; `how` is for `add_node`."""
    builder = StateGraph(state)
    builder.add_node(name, node, **how)
    builder.add_edge(START, name)
    builder.add_edge(name, END)
    return builder


def calls_of(state: Any) -> list[Any]:
    """The calls of the newest message."""
    return list(state["messages"][-1].tool_calls)


def told(result: Any) -> list[str]:
    """What a run said of its calls."""
    if isinstance(result, Mapping) and "messages" in result:
        messages: Iterable[Any] = result["messages"]
        return [str(m.content) for m in messages if isinstance(m, ToolMessage)]
    return [str(result)]
