"""What running upstream's own tests over guarded tools brought to light, one test each."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

import pytest
from langchain_core.messages import AnyMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import ParentCommand
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt
from PIL import Image
from pydantic import AfterValidator, BaseModel, ValidationError, field_validator

from agentguard.langgraph import protect
from tests.support import KIM, Studio, call, results, says
from tests.support.bindings import Binding


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    note: str


def run(studio: Studio, one: BaseTool, args: dict[str, Any], *, agent: str = "editor") -> Any:
    """The final state of a graph that calls one tool once."""
    graph = compiled(studio, one, agent=agent)
    with studio.guard.open_job("one call", requested_by=KIM) as job:
        given = {"messages": [says(call(one.name, args))], "note": "before"}
        return graph.invoke(given, job.config(thread_id="t"))


def compiled(studio: Studio, one: BaseTool, *, agent: str) -> Any:
    builder = StateGraph(State)
    builder.add_node("tools", ToolNode([one]))
    builder.add_node("elsewhere", lambda state: {"note": "elsewhere"})
    builder.add_edge(START, "tools")
    builder.add_edge("tools", END)
    sealed = protect(builder, studio.guard, agents={"tools": agent})
    return sealed.compile(checkpointer=InMemorySaver())


def quoted(text: str) -> str:
    return f"<{text}>"


class OfType(BaseModel):
    to: Annotated[str, AfterValidator(quoted)]


class OfModel(BaseModel):
    to: str

    @field_validator("to")
    @classmethod
    def quote(cls, value: str) -> str:
        return quoted(value)


@pytest.mark.parametrize("schema", [OfType, OfModel])
def test_a_schema_that_rewrites_an_argument_reads_it_once(
    studio: Studio, schema: type[BaseModel]
) -> None:
    @tool(args_schema=schema)
    def greet(to: str) -> str:
        """Greet."""
        return f"hello {to}"

    studio.guard.bind(Binding(greet, stage=None, plain=["to"]))
    (message,) = results(run(studio, greet, {"to": "bob"}))
    assert message.content == "hello <bob>"


@pytest.mark.parametrize("kind", ["plain", "texts"])
@pytest.mark.parametrize("schema", [OfType, OfModel])
def test_so_it_is_with_a_media_tool_whose_schema_is_made_anew(
    studio: Studio, schema: type[BaseModel], kind: str
) -> None:
    class Schema(schema):  # type: ignore[valid-type,misc]
        file: str = "o.png"

    got: list[str] = []

    @tool(args_schema=Schema)
    def paint_for(to: str, file: str) -> str:
        """Paint a picture for somebody."""
        got.append(to)
        Image.new("RGB", (8, 8)).save(file)
        return "painted"

    declared: dict[str, Any] = {kind: ["to"]}
    studio.guard.bind(Binding(paint_for, stage="generate", **declared, outputs=["file"]))
    (message,) = results(run(studio, paint_for, {"to": "bob"}, agent="painter"))
    if kind == "texts" or schema is OfModel:  # I7: what runs is what people read and sign
        assert "its own schema makes something else" in message.content or (
            "the tool's own schema turns what was written" in message.content
        )
        assert got == []
        return
    assert message.status == "success", message.content
    assert got == ["<bob>"]


def test_an_argument_named_config_does_not_hide_langchain_s(studio: Studio) -> None:
    got: list[dict[str, Any]] = []

    def note(**given: Any) -> str:
        got.append(given)
        return "noted"

    schema = {
        "type": "object",
        "properties": {"query": {"type": "string"}, "config": {"type": "string"}},
        "required": ["query"],
    }
    one = StructuredTool.from_function(note, name="note", description="Note.", args_schema=schema)
    studio.guard.bind(Binding(one, stage=None, plain=["query", "config"]))
    (message,) = results(run(studio, one, {"query": "q", "config": "the model's"}))
    assert message.content == "noted"
    assert got == [{"query": "q"}]  # as upstream: RunnableConfig takes the name


@pytest.mark.parametrize("as_list", [False, True])
def test_a_command_inside_content_and_artifact_routes_nothing(
    studio: Studio, as_list: bool
) -> None:
    @tool(response_format="content_and_artifact")
    def jump(n: int) -> tuple[Any, Any]:
        """Jump."""
        command = Command(goto="elsewhere", update={"note": "written"})
        return ([command] if as_list else command), None

    studio.guard.bind(Binding(jump, stage=None, plain=["n"]))
    state = run(studio, jump, {"n": 1})
    assert state["note"] == "before"  # I2
    (message,) = results(state)
    assert message.status == "error"
    assert "does not declare" in message.content


def test_a_command_inside_content_and_artifact_keeps_what_is_declared(studio: Studio) -> None:
    @tool(response_format="content_and_artifact")
    def keep(n: int) -> tuple[Any, Any]:
        """Keep."""
        said = ToolMessage("kept", tool_call_id="k1")
        return Command(update={"note": "written", "messages": [said]}), None

    studio.guard.bind(Binding(keep, stage=None, plain=["n"], state=["note"]))
    graph = compiled(studio, keep, agent="editor")
    with studio.guard.open_job("one call", requested_by=KIM) as job:
        given = {"messages": [says(call("keep", {"n": 1}, id="k1"))], "note": "before"}
        state = graph.invoke(given, job.config(thread_id="t"))
    assert state["note"] == "written"
    assert [message.content for message in results(state)] == ["kept"]


@pytest.mark.parametrize("stage", [None, "edit"])
def test_a_command_that_is_raised_routes_nothing(studio: Studio, stage: str | None) -> None:
    @tool
    def leap(n: int) -> str:
        """Leap."""
        raise ParentCommand(Command(graph="tools.execute", goto="elsewhere"))

    studio.guard.bind(Binding(leap, stage=stage, plain=["n"]))
    state = run(studio, leap, {"n": 1})
    assert state["note"] == "before"  # I2
    (message,) = results(state)
    assert message.status == "error"
    assert "does not declare" in message.content
    assert studio.grants() == ["failed"]


class Chosen(BaseModel):
    colour: Literal["red", "green"]


@pytest.mark.parametrize("stage", [None, "edit"])
def test_a_tool_s_own_question_outlives_a_bad_answer(studio: Studio, stage: str | None) -> None:
    @tool
    def choose(n: int) -> str:
        """Ask which colour."""
        chosen = interrupt("which?", response_schema=Chosen)
        return f"it is {chosen.colour}"

    studio.guard.bind(Binding(choose, stage=stage, plain=["n"], interrupts=True))
    graph = compiled(studio, choose, agent="editor")
    with studio.guard.open_job("one call", requested_by=KIM) as job:
        config = job.config(thread_id="t")
        state = graph.invoke({"messages": [says(call("choose", {"n": 1}))]}, config)
        assert state["__interrupt__"][0].value == "which?"
        with pytest.raises(ValidationError):
            graph.invoke(Command(resume={"colour": "octarine"}), config)
        assert studio.grants() == ["issued"]
        state = graph.invoke(Command(resume={"colour": "red"}), config)
    (message,) = results(state)
    assert message.content == "it is red"
    assert studio.grants() == ["executed"]
