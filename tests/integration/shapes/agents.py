"""Rows 16-31 and 45-48: `create_agent`, its middleware, and `create_react_agent`."""

from __future__ import annotations

from typing import Annotated, Any

from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    ContextEditingMiddleware,
    FilesystemFileSearchMiddleware,
    HumanInTheLoopMiddleware,
    LLMToolEmulator,
    LLMToolSelectorMiddleware,
    ModelCallLimitMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    PIIMiddleware,
    ShellToolMiddleware,
    SummarizationMiddleware,
    TodoListMiddleware,
    ToolCallLimitMiddleware,
    ToolRetryMiddleware,
    wrap_tool_call,
)
from langchain.agents.structured_output import ToolStrategy
from langchain.tools import InjectedState, InjectedStore, InjectedToolCallId, ToolRuntime
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.prebuilt import ToolNode, create_react_agent
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from agentguard.langgraph import known
from tests.integration.shapes.bench import Bench, Go, Model, begin, loop
from tests.integration.shapes.shape import Refused, shape
from tests.support import call, says
from tests.support.bindings import Arg, Binding
from tests.support.shared import tool_of

SENDS: dict[str, Any] = {
    "stage": "export",
    "assets": ["source"],
    "destination": Arg("to"),
    "effect": "opaque",
}
"""What the Binding of a tool says that publishes."""


@wrap_tool_call
def handle_tool_errors(request: Any, handler: Any) -> Any:
    """The error handler of LangChain's own documentation."""
    try:
        return handler(request)
    except Exception as error:
        return ToolMessage(f"Tool error: {error}", tool_call_id=request.tool_call["id"])


def agent_of(bench: Bench, *before: Any, behind: Any = (), tools: Any = None, **kwargs: Any) -> Any:
    """An agent with middleware in front of the guard's and behind it."""
    return create_agent(
        kwargs.pop("model", None) or bench.model(),
        bench.tools(bench.publish) if tools is None else tools,
        middleware=[*before, *bench.middleware(), *behind],
        checkpointer=bench.saver,
        **kwargs,
    )


@shape(16, "create_agent with @tool tools")
def agent(bench: Bench) -> Go:
    tools = bench.tools(bench.publish)
    middleware = bench.middleware()
    made = create_agent(bench.model(), tools, middleware=middleware, checkpointer=bench.saver)
    return bench.graph(made)


@shape(17, "create_agent with plain functions, through guard.tools()")
def plain_function(bench: Bench) -> Go:
    def publish(source: str, to: str) -> str:
        """Upload a picture."""
        bench.effects.append(to)
        return "uploaded"

    bench.guard.bound.pop("publish")
    bench.bind(Binding(publish, **SENDS))
    return bench.graph(
        agent_of(bench, tools=bench.tools(publish if bench.forgot == "tools" else "publish"))
    )


@shape(17, "... as they are", form=True)
def plain_function_as_it_is(bench: Bench) -> Go:
    def publish(source: str, to: str) -> str:
        """Upload a picture."""
        bench.effects.append(to)
        return "uploaded"

    bench.guard.bound.pop("publish")
    bench.bind(Binding(publish, **SENDS))
    return bench.graph(agent_of(bench, tools=[publish]))


@shape(17, "... in a ToolNode", form=True)
def plain_function_in_tool_node(bench: Bench) -> Go:
    def publish(source: str, to: str) -> str:
        """Upload a picture."""
        bench.effects.append(to)
        return "uploaded"

    bench.guard.bound.pop("publish")
    bench.bind(Binding(publish, **SENDS))
    builder = loop(bench.model(), ToolNode([publish]))
    return bench.graph(bench.protect(builder, {"tools": "publisher"}).compile(bench.saver))


@shape(18, "create_agent with tools of several stages", Refused("crop belongs to the edit stage"))
def several_stages(bench: Bench) -> Go:
    return bench.graph(agent_of(bench, tools=bench.tools(bench.crop, bench.publish)))


@shape(18, "... inline", Refused("crop belongs to the edit stage"), form=True)
def several_stages_inline(bench: Bench) -> Go:
    cut = says(call("crop", {"source": bench.asset, "width": 8, "height": 8}))
    tools = bench.inline(bench.crop, bench.publish)
    return bench.graph(create_react_agent(bench.model(cut), tools, checkpointer=bench.saver))


@shape(19, "summarization")
def summarization(bench: Bench) -> Go:
    return bench.graph(
        agent_of(bench, SummarizationMiddleware(model=bench.model(), trigger=("tokens", 9999)))
    )


@shape(19, "tool selector, given what it always includes", form=True)
def tool_selector(bench: Bench) -> Go:
    selector = LLMToolSelectorMiddleware(model=bench.model(), always_include=["publish"])
    return bench.graph(agent_of(bench, selector))


@shape(19, "model retry and fallback", form=True)
def model_retry(bench: Bench) -> Go:
    before = [ModelRetryMiddleware(max_retries=1), ModelFallbackMiddleware(bench.model())]
    return bench.graph(agent_of(bench, *before))


@shape(19, "context editing, PII, call limits", form=True)
def small_middleware(bench: Bench) -> Go:
    before = [
        ContextEditingMiddleware(),
        PIIMiddleware("email"),
        ModelCallLimitMiddleware(run_limit=9),
        ToolCallLimitMiddleware(run_limit=9),
    ]
    return bench.graph(agent_of(bench, *before))


@shape(20, "tool retry in front of the guard")
def tool_retry(bench: Bench) -> Go:
    return bench.graph(agent_of(bench, ToolRetryMiddleware(max_retries=1, initial_delay=0)))


@shape(20, "... behind it", Refused("Move ToolRetryMiddleware in front of it"), form=True)
def tool_retry_behind(bench: Bench) -> Go:
    return bench.graph(agent_of(bench, behind=[ToolRetryMiddleware(max_retries=1)]))


@shape(21, "the documented error handler, guard last")
def error_handler(bench: Bench) -> Go:
    return bench.graph(agent_of(bench, handle_tool_errors))


@shape(21, "... behind the guard", Refused("Move handle_tool_errors in front of it"), form=True)
def error_handler_behind(bench: Bench) -> Go:
    return bench.graph(agent_of(bench, behind=[handle_tool_errors]))


@shape(22, "@wrap_tool_call that runs request.tool", Refused("A middleware calls handler(request)"))
def runs_the_tool(bench: Bench) -> Go:
    @wrap_tool_call
    def cached(request: Any, handler: Any) -> Any:
        result = request.tool.invoke(request.tool_call["args"])
        return ToolMessage(result, tool_call_id=request.tool_call["id"])

    return bench.graph(agent_of(bench, cached, tools=bench.tools(bench.publish)))


@shape(23, "todo list")
def todo_list(bench: Bench) -> Go:
    bench.bind(known.todos())
    plan = says(call("write_todos", {"todos": [{"content": "publish", "status": "pending"}]}))
    return bench.graph(agent_of(bench, TodoListMiddleware(), model=bench.model(plan)))


@shape(24, "file search in a named folder")
def file_search(bench: Bench) -> Go:
    bench.bind(*known.file_search(bench.folder))
    search = FilesystemFileSearchMiddleware(root_path=str(bench.folder), use_ripgrep=False)
    find = says(call("glob_search", {"pattern": "*.png"}))
    return bench.graph(agent_of(bench, search, model=bench.model(find)))


@shape(24, "... and the shell", Refused("shell is not bound"), form=True)
def shell(bench: Bench) -> Go:
    return bench.graph(agent_of(bench, ShellToolMiddleware(workspace_root=str(bench.folder))))


@shape(25, "human in the loop in front, which edits the destination")
def human_in_the_loop(bench: Bench) -> Go:
    other = bench.kind if bench.kind != "permit" else "ask"
    bench.kind, kind = other, bench.kind
    model = bench.model()
    bench.kind = kind
    human = HumanInTheLoopMiddleware(interrupt_on={"publish": True})
    made = agent_of(bench, human, model=model)

    def go(resume: bool) -> Any:
        if resume:
            return made.invoke(None, bench.config)
        made.invoke(begin(), bench.config)
        edited = {"name": "publish", "args": bench.args}
        answer = {"decisions": [{"type": "edit", "edited_action": edited}]}
        return made.invoke(Command(resume=answer), bench.config)

    return go


@shape(26, "LLMToolEmulator in front: no tool runs, so nothing is decided", effects=0)
def emulator(bench: Bench) -> Go:
    return bench.graph(agent_of(bench, LLMToolEmulator(model=Model(script=[AIMessage("fine")]))))


@shape(27, "tools that a middleware adds, in front of the guard")
def dynamic_tools(bench: Bench) -> Go:
    tools = bench.tools(bench.publish)

    class Adds(AgentMiddleware[Any, Any, Any]):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(tools=[*request.tools, *tools]))

        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(tool=tools[0]))

    return bench.graph(agent_of(bench, Adds(), tools=[]))


class Report(BaseModel):
    """What was done."""

    done: str


@shape(28, "structured output")
def structured_output(bench: Bench) -> Go:
    model = bench.model()
    model.script.append(says(call("Report", {"done": "yes"})))
    return bench.graph(agent_of(bench, model=model, response_format=ToolStrategy(Report)))


@shape(28, "return_direct", form=True)
def return_direct(bench: Bench) -> Go:
    direct = bench.publish.model_copy(update={"return_direct": True})
    bench.guard.bound.pop("publish")
    bench.bind(Binding(direct, **SENDS))
    return bench.graph(agent_of(bench, tools=bench.tools(direct)))


FRONT_END = {
    "type": "function",
    "function": {
        "name": "show_toast",
        "description": "Shows a message in the browser.",
        "parameters": {"type": "object", "properties": {}},
    },
}


@shape(29, "front-end tools (CopilotKit, AG-UI) in front of the guard")
def front_end_tools(bench: Bench) -> Go:
    class FrontEnd(AgentMiddleware[Any, Any, Any]):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(tools=[*request.tools, FRONT_END]))

    return bench.graph(agent_of(bench, FrontEnd()))


@shape(30, "create_react_agent with guarded tools", Refused("create_react_agent take guard.tools("))
def react_agent(bench: Bench) -> Go:
    tools = bench.tools(bench.publish)
    return bench.graph(create_react_agent(bench.model(), tools, checkpointer=bench.saver))


@shape(31, "create_react_agent with inline tools")
def react_agent_inline(bench: Bench) -> Go:
    tools = bench.inline(bench.publish)
    return bench.graph(create_react_agent(bench.model(), tools, checkpointer=bench.saver))


@shape(31, "protect(agent.builder, ...)", form=True)
def protected_agent(bench: Bench) -> Go:
    builder = create_agent(bench.model(), bench.tools(bench.publish)).builder
    return bench.graph(bench.protect(builder, {"tools": "publisher"}).compile(bench.saver))


def with_injected(bench: Bench, *, runtime_only: bool = False) -> Any:
    """A tool that wants what LangGraph injects, bound in place of the plain one."""
    if runtime_only:

        def publish(source: str, to: str, runtime: ToolRuntime) -> str:
            """Upload a picture."""
            bench.effects.append(to)
            return "published"
    else:

        def publish(  # type: ignore[misc]
            source: str,
            to: str,
            runtime: ToolRuntime,
            state: Annotated[Any, InjectedState],
            store: Annotated[Any, InjectedStore()],
            call_id: Annotated[str, InjectedToolCallId],
        ) -> str:
            """Upload a picture."""
            assert state["messages"]
            assert store is not None
            assert call_id
            bench.effects.append(to)
            return "published"

    for name, hint in publish.__annotations__.items():
        publish.__annotations__[name] = eval(hint) if isinstance(hint, str) else hint
    made = tool_of(publish)
    bench.guard.bound.pop("publish")
    bench.bind(Binding(made, **SENDS))
    return made


@shape(46, "ToolRuntime, InjectedState, InjectedStore, InjectedToolCallId")
def injected(bench: Bench) -> Go:
    tools = bench.tools(with_injected(bench))
    return bench.graph(agent_of(bench, tools=tools, store=InMemoryStore()))


@shape(47, "... inline in create_react_agent", Refused("no runtime, state or store"))
def injected_inline(bench: Bench) -> Go:
    tools = bench.inline(with_injected(bench, runtime_only=True))
    return bench.graph(create_react_agent(bench.model(), tools, checkpointer=bench.saver))


def pausing(bench: Bench, **meaning: Any) -> Any:
    """A tool with an `interrupt()` of its own, bound in place of the plain one."""

    def publish(source: str, to: str) -> str:
        """Upload a picture."""
        if interrupt({"send": to}):
            bench.effects.append(to)
        return "published"

    made = tool_of(publish)
    bench.guard.bound.pop("publish")
    bench.bind(Binding(made, **SENDS, **meaning))
    return made


@shape(
    48,
    "a tool with its own interrupt()",
    Refused("take that out of the tool", kinds=["permit", "ask"]),
)
def own_interrupt(bench: Bench) -> Go:
    return bench.graph(agent_of(bench, tools=bench.tools(pausing(bench))))
