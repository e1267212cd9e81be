"""Rows 1-15: the loops of LangGraph's quickstarts, ToolNodes, and tools that are run by hand."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langgraph.func import entrypoint, task
from langgraph.prebuilt import ToolNode

from tests.integration.shapes.bench import Bench, Go, begin, calls_of, loop
from tests.integration.shapes.shape import Open, Refused, shape
from tests.support import call, says

PUBLISHER = {"tools": "publisher"}
SHARED = {"tools": {"edit": "editor", "export": "publisher"}}


def by_args(tools: Any) -> Any:
    """The tool node of the Graph API's quickstart, word for word."""
    tools_by_name = {tool.name: tool for tool in tools}

    def tool_node(state: dict[str, Any]) -> dict[str, Any]:
        result = []
        for tool_call in state["messages"][-1].tool_calls:
            tool = tools_by_name[tool_call["name"]]
            observation = tool.invoke(tool_call["args"])
            result.append(ToolMessage(content=observation, tool_call_id=tool_call["id"]))
        return {"messages": result}

    return tool_node


def by_call(run: Any) -> Any:
    """A node that hands each call to a function, which returns its ToolMessage."""

    def tool_node(state: dict[str, Any]) -> dict[str, Any]:
        return {"messages": [run(each) for each in calls_of(state)]}

    return tool_node


class BasicToolNode:
    """The introduction of many courses."""

    def __init__(self, tools: Any) -> None:
        self.tools_by_name = {tool.name: tool for tool in tools}

    def __call__(self, inputs: dict[str, Any]) -> dict[str, Any]:
        outputs = []
        for tool_call in inputs["messages"][-1].tool_calls:
            result = self.tools_by_name[tool_call["name"]].invoke(tool_call["args"])
            outputs.append(
                ToolMessage(
                    content=str(result), name=tool_call["name"], tool_call_id=tool_call["id"]
                )
            )
        return {"messages": outputs}


@shape(1, "ToolNode and tools_condition, one stage")
def tool_node(bench: Bench) -> Go:
    builder = loop(bench.model(), ToolNode([bench.publish]))
    return bench.graph(bench.protect(builder, PUBLISHER).compile(bench.saver))


@shape(2, "one ToolNode with tools of two stages, one agent", Refused("crop belongs to the edit"))
def two_stages(bench: Bench) -> Go:
    builder = loop(bench.model(), ToolNode([bench.crop, bench.publish]))
    return bench.graph(bench.protect(builder, PUBLISHER).compile(bench.saver))


@shape(3, "one ToolNode with tools of two stages, an agent for each")
def agent_per_stage(bench: Bench) -> Go:
    cut = says(call("crop", {"source": bench.asset, "width": 8, "height": 8}))
    builder = loop(bench.model(cut), ToolNode([bench.crop, bench.publish]))
    graph = bench.protect(builder, SHARED, unsafe_shared_driver=True)
    return bench.graph(graph.compile(bench.saver))


@shape(3, "... without saying so", Refused("unsafe_shared_driver=True"), form=True)
def agent_per_stage_unsaid(bench: Bench) -> Go:
    builder = loop(bench.model(), ToolNode([bench.crop, bench.publish]))
    return bench.graph(bench.protect(builder, SHARED).compile(bench.saver))


@shape(4, "Graph quickstart: own loop, tool.invoke(call['args'])")
def quickstart(bench: Bench) -> Go:
    builder = loop(bench.model(), by_args(bench.tools(bench.publish)))
    return bench.graph(bench.protect(builder, PUBLISHER).compile(bench.saver))


@shape(4, "... with a node that nobody named", Refused("name it: protect("), form=True)
def quickstart_unnamed(bench: Bench) -> Go:
    builder = loop(bench.model(), by_args(bench.tools(bench.publish)))
    return bench.graph(bench.protect(builder, {}).compile(bench.saver))


@shape(5, "own loop, tool.invoke(call)")
def invoke_call(bench: Bench) -> Go:
    (publish,) = bench.inline(bench.publish)
    return bench.graph(loop(bench.model(), by_call(publish.invoke)).compile(bench.saver))


@shape(6, "own loop in try/except Exception")
def try_except(bench: Bench) -> Go:
    (publish,) = bench.tools(bench.publish)

    def attempt(each: Any) -> Any:
        try:
            return publish.invoke(each)
        except Exception as error:
            return ToolMessage(f"Tool failed: {error}", tool_call_id=each["id"])

    builder = loop(bench.model(), by_call(attempt))
    return bench.graph(bench.protect(builder, PUBLISHER).compile(bench.saver))


@shape(
    6,
    "... with inline tools, and no node named",
    Open("the question is swallowed", kinds=["ask"]),
    form=True,
)
def try_except_inline(bench: Bench) -> Go:
    (publish,) = bench.inline(bench.publish)

    def attempt(each: Any) -> Any:
        try:
            return publish.invoke(each)
        except Exception as error:
            return ToolMessage(f"Tool failed: {error}", tool_call_id=each["id"])

    return bench.graph(loop(bench.model(), by_call(attempt)).compile(bench.saver))


@shape(7, "class BasicToolNode of the courses")
def basic_tool_node(bench: Bench) -> Go:
    builder = loop(bench.model(), BasicToolNode(bench.tools(bench.publish)))
    return bench.graph(bench.protect(builder, PUBLISHER).compile(bench.saver))


@shape(8, "ToolNode(tools).invoke(state), made in the node")
def tool_node_in_function(bench: Bench) -> Go:
    tools = bench.inline(bench.publish)

    def node(state: dict[str, Any]) -> Any:
        return ToolNode(tools).invoke(state)

    return bench.graph(loop(bench.model(), node).compile(bench.saver))


@shape(9, "own loop over a ThreadPoolExecutor", Refused("unless they get the config"))
def thread_pool(bench: Bench) -> Go:
    (publish,) = bench.inline(bench.publish)

    def node(state: dict[str, Any]) -> dict[str, Any]:
        with ThreadPoolExecutor() as pool:
            return {"messages": list(pool.map(publish.invoke, calls_of(state)))}

    return bench.graph(loop(bench.model(), node).compile(bench.saver))


@shape(9, "... that passes the config on", form=True)
def thread_pool_with_config(bench: Bench) -> Go:
    (publish,) = bench.inline(bench.publish)

    def node(state: dict[str, Any], config: Any) -> dict[str, Any]:
        with ThreadPoolExecutor() as pool:
            ran = [pool.submit(publish.invoke, each, config) for each in calls_of(state)]
            return {"messages": [each.result() for each in ran]}

    node.__annotations__.clear()
    return bench.graph(loop(bench.model(), node).compile(bench.saver))


@shape(10, "own loop, asyncio.gather of ainvoke(call)", effects=2)
def gather(bench: Bench) -> Go:
    (publish,) = bench.inline(bench.publish)

    async def node(state: dict[str, Any]) -> dict[str, Any]:
        ran = await asyncio.gather(*[publish.ainvoke(each) for each in calls_of(state)])
        return {"messages": list(ran)}

    return bench.agraph(loop(bench.model(calls=2), node).compile(bench.saver))


@shape(11, "tool.with_retry()")
def with_retry(bench: Bench) -> Go:
    (publish,) = bench.inline(bench.publish)
    retried = publish.with_retry(stop_after_attempt=2)
    return bench.graph(loop(bench.model(), by_call(retried.invoke)).compile(bench.saver))


@shape(11, "... and tool.with_config()", form=True)
def with_config(bench: Bench) -> Go:
    (publish,) = bench.inline(bench.publish)
    configured = publish.with_config(tags=["x"])
    return bench.graph(loop(bench.model(), by_call(configured.invoke)).compile(bench.saver))


@shape(12, "tool.with_fallbacks([plain])")
def with_fallbacks(bench: Bench) -> Go:
    (publish,) = bench.inline(bench.publish)
    backed = publish.with_fallbacks([bench.publish])
    return bench.graph(loop(bench.model(), by_call(backed.invoke)).compile(bench.saver))


@shape(13, "Functional quickstart: @task call_tool(tool_call)")
def functional(bench: Bench) -> Go:
    (publish,) = bench.inline(bench.publish)
    model = bench.model()

    @task
    def call_llm(messages: list[Any]) -> Any:
        return model.invoke(messages)

    @task
    def call_tool(tool_call: Any) -> Any:
        return publish.invoke(tool_call)

    @entrypoint(checkpointer=bench.saver)
    def agent(messages: list[Any]) -> Any:
        response = call_llm(messages).result()
        while response.tool_calls:
            ran = [call_tool(each) for each in response.tool_calls]
            messages = [*messages, response, *[each.result() for each in ran]]
            response = call_llm(messages).result()
        return {"messages": [*messages, response]}

    def go(resume: bool) -> Any:
        return agent.invoke(None if resume else begin()["messages"], bench.config)

    return go


NOBODY = Refused("nobody can be asked", kinds=["ask"])


@shape(14, "notebook: for c in ai.tool_calls: tool.invoke(c)", NOBODY)
def notebook(bench: Bench) -> Go:
    (publish,) = bench.inline(bench.publish)
    model = bench.model()

    def go(resume: bool) -> Any:
        ai = model.invoke("go")
        return {"messages": [ai, *[publish.invoke(each) for each in ai.tool_calls]]}

    return go


@shape(
    15,
    "AgentExecutor (langchain-classic)",
    Refused("AgentExecutor gives none"),
)
def agent_executor(bench: Bench) -> Go:
    from langchain_classic.agents import AgentExecutor, create_tool_calling_agent

    tools = bench.inline(bench.publish)
    prompt = ChatPromptTemplate.from_messages(
        [("user", "{input}"), ("placeholder", "{agent_scratchpad}")]
    )
    agent = create_tool_calling_agent(bench.model(), tools, prompt)
    executor = AgentExecutor(agent=agent, tools=tools, return_intermediate_steps=True)

    def go(resume: bool) -> Any:
        steps = executor.invoke({"input": "go"}, bench.config)["intermediate_steps"]
        return {"messages": [AIMessage(""), ToolMessage(str(steps[0][1]), tool_call_id="x")]}

    return go
