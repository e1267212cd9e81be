"""The graphs of the matrix: one per gate, guarded by agentguard or by a bare interrupt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import BaseTool
from langgraph.func import entrypoint
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from langgraph.types import Command
from pydantic import ConfigDict
from typing_extensions import TypedDict

from agentguard.langgraph import GuardMiddleware, protect

if TYPE_CHECKING:
    from tests.attacks.driving import Way

AGENTS = {"edit": "editor", "export": "publisher"}


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    note: str


def build(way: Way) -> Any:
    """The compiled graph of a way's gate."""
    makers = {
        "protect": _protect,
        "middleware": _middleware,
        "inline": _inline,
        "functional": _functional,
    }
    return makers[way.column.gate](way)


def speak(way: Way, messages: Sequence[BaseMessage]) -> AIMessage:
    """What the model says: the message that the last user's text asks for, else that it is done.

    It is a function of the messages, so that a replayed checkpoint says the same again.
    """
    way.spoken += 1
    last = messages[-1]
    if way.listens is not None and (said := way.listens(messages)) is not None:
        return said
    if isinstance(last, HumanMessage) and str(last.content) in way.script:
        return way.script[str(last.content)]
    return AIMessage("done", id=f"done-{len(messages)}-{last.id}")


def last_calls(given: Any) -> list[dict[str, Any]]:
    """The tool calls in a node's input: a list of them, or the last AI message's."""
    if isinstance(given, list):
        return list(given)
    said = [m for m in given["messages"] if isinstance(m, AIMessage)]
    return [dict(one) for one in said[-1].tool_calls] if said else []


# --- protect: a StateGraph with one ToolNode per agent ------------------------------------------


def _protect(way: Way) -> Any:
    builder = way.builder = protect_builder(way)
    if way.guarded:
        builder = protect(
            builder,
            way.ground.guard,
            agents=way.agents or {f"{home}_tools": agent for home, agent in AGENTS.items()},
            # Hooks and model hold the whole ground, the plain tools of its attacks with it.
            unsafe_unsearched=set(builder.nodes),
        )
    way.built = builder
    return builder.compile(checkpointer=way.saver, **way.compile_with)


def protect_builder(way: Way) -> StateGraph[Any]:
    """The graph as its developer wrote it."""
    home = way.ground.tools.home
    builder: StateGraph[Any] = StateGraph(State)
    builder.add_node("model", lambda state: {"messages": [speak(way, state["messages"])]})
    builder.add_edge(START, "model")
    for name in AGENTS:
        tools = [one for one in way.tool_list or way.ground.tools.by_name.values()
                 if home[one.name] == name]  # fmt: skip
        wrappers = _wrappers(way) if way.inside is not None else {}
        if way.one_sided and not way.guarded:
            wrappers = {"awrap_tool_call": Bare(way).awrap_tool_call}
        builder.add_node(f"{name}_tools", ToolNode(tools, **wrappers), retry_policy=way.retries)
        builder.add_edge(f"{name}_tools", "model")

    def target(calls: Sequence[Mapping[str, Any]]) -> str:
        return f"{home.get(calls[0]['name'], 'edit')}_tools"

    def route(state: Any) -> str:
        said = state["messages"][-1]
        if not getattr(said, "tool_calls", None):
            return END
        return target(said.tool_calls) if way.guarded else "gate"

    def gate(given: Any, config: RunnableConfig) -> dict[str, Any]:
        calls = last_calls(given)
        if way.one_sided or way.naive_gate(calls, config):
            return {}
        no = [ToolMessage("refused", tool_call_id=one["id"], status="error") for one in calls]
        return {"messages": no}

    def past(state: Any) -> str:
        said = state["messages"][-1]
        return target(said.tool_calls) if getattr(said, "tool_calls", None) else "model"

    ends = ["edit_tools", "export_tools"]
    if not way.guarded:
        node: Any = gate
        builder.add_node("gate", node)
        builder.add_conditional_edges("gate", past, [*ends, "model"])
        ends.append("gate")
    builder.add_conditional_edges("model", route, [*ends, END])
    return builder


def _wrappers(way: Way) -> dict[str, Any]:
    def wrap(request: Any, execute: Any) -> Any:
        return execute(way.inside(request) if way.inside else request)

    async def awrap(request: Any, execute: Any) -> Any:
        return await execute(way.inside(request) if way.inside else request)

    return {"wrap_tool_call": wrap, "awrap_tool_call": awrap}


# --- middleware: create_agent --------------------------------------------------------------------


class Model(BaseChatModel):
    """A chat model that says what `speak` says."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    way: Any

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        said = speak(self.way, messages)
        return ChatResult(generations=[ChatGeneration(message=said.model_copy(deep=True))])


class Inside(AgentMiddleware[Any, Any, Any]):
    """Does to a request what the way's hook `inside` says."""

    def __init__(self, way: Way) -> None:
        super().__init__()
        self._way = way

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        return handler(self._way.inside(request) if self._way.inside else request)

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        return await handler(self._way.inside(request) if self._way.inside else request)


class Bare(AgentMiddleware[Any, Any, Any]):
    """A gate of an interrupt alone, around each tool call."""

    def __init__(self, way: Way) -> None:
        super().__init__()
        self._way = way

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        return handler(request) if self._passes(request) else _no(request)

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        return await handler(request) if self._passes(request) else _no(request)

    def _passes(self, request: Any) -> bool:
        return self._way.naive_gate([request.tool_call], request.runtime.config)


def _no(request: Any) -> ToolMessage:
    return ToolMessage("refused", tool_call_id=request.tool_call["id"], status="error")


def _middleware(way: Way) -> Any:
    plain = list(way.tool_list or way.ground.tools.by_name.values())
    inner = [*([Inside(way)] if way.inside is not None else []), *way.inner]
    if way.guarded:
        agents = way.agents or AGENTS
        gate: AgentMiddleware[Any, Any, Any] = GuardMiddleware(
            way.ground.guard, agent=agents, unsafe_shared_driver=True
        )
        plain = [one if not isinstance(one, BaseTool) else way.ground.guard.tools([one])[0]
                 for one in plain]  # fmt: skip
    else:
        gate = Bare(way)
    return create_agent(
        Model(way=way),
        plain,
        middleware=[*way.outer, gate, *inner],
        checkpointer=way.saver,
        **way.compile_with,
    )


# --- inline: tools that gate themselves, called by a node that their developer wrote -------------


def _by_name(way: Way) -> dict[str, BaseTool]:
    plain = list(way.tool_list or way.ground.tools.by_name.values())
    if not way.guarded:
        return {one.name: one for one in plain}
    agents = way.agents or AGENTS
    home = way.ground.tools.home
    return {
        one.name: way.ground.guard.tools([one], agent=agents[home[one.name]], gate="inline")[0]
        for one in plain
    }


def _called(
    way: Way, tools: Mapping[str, BaseTool], one: Mapping[str, Any], config: RunnableConfig
) -> BaseTool | ToolMessage:
    """The tool of a call, or why it is not called."""
    tool = tools.get(one["name"])
    if tool is None or not (way.guarded or way.naive_gate([one], config)):
        return ToolMessage("refused", tool_call_id=one["id"], status="error")
    if not way.guarded:
        way.hook()
    return tool


def _inline(way: Way) -> Any:
    tools = _by_name(way)

    def given_back(answers: Sequence[Any]) -> Any:
        flat = [part for one in answers for part in (one if isinstance(one, list) else [one])]
        commands = [one for one in flat if isinstance(one, Command)]
        said = {"messages": [m for m in flat if not isinstance(m, Command)]}
        return [*commands, said] if commands else said

    def run(given: Any, config: RunnableConfig) -> Any:
        answers = []
        for one in last_calls(given):
            tool = _called(way, tools, one, config)
            answers.append(tool.invoke(dict(one), config) if isinstance(tool, BaseTool) else tool)
        return given_back(answers)

    async def arun(given: Any, config: RunnableConfig) -> Any:
        answers = []
        for one in last_calls(given):
            tool = _called(way, tools, one, config)
            if isinstance(tool, BaseTool):
                answers.append(await tool.ainvoke(dict(one), config))
            else:
                answers.append(tool)
        return given_back(answers)

    builder: StateGraph[Any] = StateGraph(State)
    builder.add_node("model", lambda state: {"messages": [speak(way, state["messages"])]})
    builder.add_node("tools", RunnableLambda(run, arun), retry_policy=way.retries)
    builder.add_edge(START, "model")
    builder.add_conditional_edges(
        "model",
        lambda state: "tools" if getattr(state["messages"][-1], "tool_calls", None) else END,
        ["tools", END],
    )
    builder.add_edge("tools", "model")
    return builder.compile(checkpointer=way.saver, **way.compile_with)


def _functional(way: Way) -> Any:
    tools = _by_name(way)

    def content(answer: Any) -> str:
        return str(getattr(answer, "content", answer))

    if way.column.mode == "invoke":

        @entrypoint(checkpointer=way.saver)
        def flow(text: str, config: RunnableConfig) -> list[str]:
            answers = []
            for one in speak(way, [HumanMessage(text, id=text)]).tool_calls:
                tool = _called(way, tools, one, config)
                answers.append(tool.invoke(dict(one)) if isinstance(tool, BaseTool) else tool)
            return [content(one) for one in answers]

        return flow

    @entrypoint(checkpointer=way.saver)
    async def aflow(text: str, config: RunnableConfig) -> list[str]:
        answers = []
        for one in speak(way, [HumanMessage(text, id=text)]).tool_calls:
            tool = _called(way, tools, one, config)
            if isinstance(tool, BaseTool):
                answers.append(await tool.ainvoke(dict(one)))
            else:
                answers.append(tool)
        return [content(one) for one in answers]

    return aflow
