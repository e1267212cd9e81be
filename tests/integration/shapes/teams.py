"""Rows 32-45: workers, subgraphs, routers, supervisors, swarms, hand-offs and deep agents."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

from deepagents import create_deep_agent
from langchain.agents import create_agent
from langchain.tools import ToolRuntime
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, create_react_agent
from langgraph.types import Command, Send
from langgraph_supervisor import create_handoff_tool as supervisor_hand_off
from langgraph_supervisor import create_supervisor
from langgraph_swarm import create_handoff_tool, create_swarm

import agentguard
from agentguard import Asset, CallRefused, Opaque, Text, To, media_tool
from agentguard.langgraph import known
from tests.integration.shapes.bench import Bench, Go, alone, begin, loop
from tests.integration.shapes.shape import Refused, shape
from tests.support import call, says
from tests.support.bindings import Binding
from tests.support.shared import tool_of


def publishing(bench: Bench, *, name: str = "pub", middleware: Any = None, **kwargs: Any) -> Any:
    """An agent that publishes."""
    guards = bench.middleware() if middleware is None else middleware
    model = bench.later_model()
    model.once = "publish"
    tools = bench.tools(bench.publish)
    return create_agent(model, tools, middleware=guards, name=name, **kwargs)


@shape(32, 'Send("tools", [call]) for each call', effects=2)
def send_each(bench: Bench) -> Go:
    model = bench.model(calls=2)
    builder = StateGraph(MessagesState)
    builder.add_node("llm_call", lambda s: {"messages": [model.invoke(s["messages"])]})
    builder.add_node("tools", ToolNode([bench.publish]))
    builder.add_edge(START, "llm_call")

    def route(state: Any) -> Any:
        calls = state["messages"][-1].tool_calls
        return [Send("tools", [each]) for each in calls] or END

    builder.add_conditional_edges("llm_call", route, ["tools", END])
    builder.add_edge("tools", "llm_call")
    return bench.graph(bench.protect(builder, {"tools": "publisher"}).compile(bench.saver))


class Plan(TypedDict):
    messages: Annotated[list[Any], operator.add]
    done: Annotated[list[Any], operator.add]


def workers(bench: Bench, work: Any, sources: Any) -> Any:
    """The orchestrator and worker of the workflow page: a task for each part."""
    builder = StateGraph(Plan)
    builder.add_node("orchestrator", lambda state: {})
    builder.add_node("worker", work)

    def synthesize(state: Any) -> Any:
        said = "; ".join(str(each) for each in state["done"])
        return {"messages": [ToolMessage(said, tool_call_id="z")]}

    builder.add_node("synthesizer", synthesize)
    builder.add_edge(START, "orchestrator")
    builder.add_conditional_edges(
        "orchestrator", lambda s: [Send("worker", {"source": one}) for one in sources], ["worker"]
    )
    builder.add_edge("worker", "synthesizer")
    builder.add_edge("synthesizer", END)
    return builder


def two_pictures(bench: Bench) -> list[str]:
    other = bench.studio.picture("two.png", "red")
    return [bench.asset, bench.job.import_asset(other, ["brand"])]


@shape(33, "orchestrator and workers that call a tool", effects=2)
def orchestrator(bench: Bench) -> Go:
    (publish,) = bench.tools(bench.publish)
    to = bench.to

    def work(state: Any) -> Any:
        return {"done": [publish.invoke({"source": state["source"], "to": to})]}

    builder = workers(bench, work, two_pictures(bench))
    return bench.graph(bench.protect(builder, {"worker": "publisher"}).compile(bench.saver))


@shape(33, "... inline, with ids of their own", effects=2, form=True)
def orchestrator_inline(bench: Bench) -> Go:
    (publish,) = bench.inline(bench.publish)

    def work(state: Any) -> Any:
        sent = call("publish", {"source": state["source"], "to": bench.to}, f"{state['source']}")
        return {"done": [publish.invoke(sent).content]}

    return bench.graph(workers(bench, work, two_pictures(bench)).compile(bench.saver))


@shape(34, "SQL agent: a predetermined call with a fixed id", effects=2)
def fixed_id(bench: Bench) -> Go:
    (publish,) = bench.tools(bench.publish)
    args = bench.args

    def work(state: Any) -> Any:
        made = call("publish", args, "abc123")
        message = AIMessage("", tool_calls=[made])
        return {"messages": [message, publish.invoke(made)]}

    builder = bench.protect(alone(work), {"work": "publisher"})
    return bench.graph(twice(builder.compile(bench.saver)))


class twice:
    """A graph that a person writes to twice."""

    def __init__(self, graph: Any) -> None:
        self._graph, self._turn = graph, 0

    def invoke(self, given: Any, config: Any) -> Any:
        result = self._graph.invoke(given, config)
        if not result.get("__interrupt__") and self._turn == 0:
            self._turn = 1
            result = self._graph.invoke(begin(), config)
        return result


@shape(35, "routing, prompt chaining, evaluator and optimizer: no tools", effects=0)
def no_tools(bench: Bench) -> Go:
    model = bench.model()
    model.script = [AIMessage("a joke", id="j")]
    builder = bench.protect(alone(lambda s: {"messages": [model.invoke(s["messages"])]}), {})
    return bench.graph(builder.compile(bench.saver))


@shape(36, "an effect in a node itself, declared with media_tool", silent=["tools"])
def effect_in_node(bench: Bench) -> Go:
    effects = bench.effects

    def post(source: Annotated[str, Asset()], to: Annotated[str, To()]) -> str:
        """Upload a picture."""
        effects.append(to)
        return "posted"

    post.__annotations__.update(source=Annotated[str, Asset()], to=Annotated[str, To()])
    declared = media_tool(stage="export", effect=Opaque())(post)
    bench.bind(declared)
    (declared,) = [post] if bench.forgot == "tools" else [declared]
    bench.used.add("tools")
    asset, to = bench.asset, bench.to

    def reply(state: Any) -> Any:
        try:
            return {"messages": [AIMessage(declared(asset, to))]}
        except CallRefused as refusal:
            return {"messages": [ToolMessage(str(refusal), tool_call_id="none")]}

    return bench.graph(bench.protect(alone(reply), {"work": "publisher"}).compile(bench.saver))


@shape(37, "a subgraph as a node")
def subgraph(bench: Bench) -> Go:
    inner = bench.protect(loop(bench.model(), ToolNode([bench.publish])), {"tools": "publisher"})
    return bench.graph(alone(inner.compile()).compile(bench.saver))


class Other(TypedDict):
    said: list[str]
    messages: list[Any]


@shape(37, "... called in a function, with another schema", form=True)
def subgraph_in_function(bench: Bench) -> Go:
    builder = loop(bench.model(), ToolNode([bench.publish]))
    inner = bench.protect(builder, {"tools": "publisher"}).compile()

    def node(state: Any) -> Any:
        return {"messages": inner.invoke({"messages": [("user", "go")]})["messages"]}

    return bench.graph(alone(node, Other).compile(bench.saver))


@shape(38, "a router that sends to a node that runs an agent")
def router(bench: Bench) -> Go:
    agents = {"pub": publishing(bench)}

    def work(state: Any) -> Any:
        return {"messages": agents[state["to"]].invoke(begin())["messages"]}

    builder = StateGraph(MessagesState)
    builder.add_node("work", work)
    builder.add_conditional_edges(START, lambda s: [Send("work", {"to": "pub"})], ["work"])
    builder.add_edge("work", END)
    return bench.graph(builder.compile(bench.saver))


def as_tool(bench: Bench, inner: Any, **meaning: Any) -> Any:
    """An agent as a tool, bound."""

    def ask_publisher(request: str) -> str:
        """Ask the publisher."""
        return str(inner.invoke({"messages": [("user", request)]})["messages"][-2].content)

    made = tool_of(ask_publisher)
    bench.bind(agentguard.Binding(made, stage=None, args={"request": Text()}, **meaning))
    return made


@shape(39, "an agent as a tool")
def agent_as_tool(bench: Bench) -> Go:
    asked = as_tool(bench, publishing(bench))
    model = bench.model()
    model.script = [says(call("ask_publisher", {"request": "go"}))]
    outer = create_agent(model, [asked], middleware=bench.middleware(), checkpointer=bench.saver)
    return bench.graph(outer)


@shape(39, "... that says interrupts=True, as it had to", form=True)
def agent_as_tool_that_says_so(bench: Bench) -> Go:
    asked = as_tool(bench, publishing(bench), interrupts=True)
    model = bench.model()
    model.script = [says(call("ask_publisher", {"request": "go"}))]
    outer = create_agent(model, [asked], middleware=bench.middleware(), checkpointer=bench.saver)
    return bench.graph(outer)


@shape(40, "... whose inner agent is not guarded", Refused("not guarded"))
def unguarded_agent_as_tool(bench: Bench) -> Go:
    inner = create_agent(bench.later_model(), [bench.publish])
    asked = as_tool(bench, inner)
    model = bench.model()
    model.script = [says(call("ask_publisher", {"request": "go"}))]
    return bench.graph(
        create_agent(model, [asked], middleware=bench.middleware(), checkpointer=bench.saver)
    )


def hand_over(tool: str, **args: Any) -> Any:
    """A message that hands over to another agent."""
    return says(call(tool, args))


def boss(bench: Bench) -> Any:
    """A model that hands over to `pub`, and is done then."""
    model = bench.model()
    model.script, model.once = [hand_over("transfer_to_pub")], "transfer_to_pub"
    return model


STOPPED = Refused("transfer_to_pub (not bound) was started unguarded")


@shape(41, "langgraph-supervisor over guarded agents, with known.hand_offs()")
def supervisor_known(bench: Bench) -> Go:
    bench.bind(*known.hand_offs("pub", library="supervisor"))
    graph = create_supervisor([publishing(bench)], model=boss(bench))
    return bench.graph(graph.compile(checkpointer=bench.saver))


@shape(41, "... without a Binding", STOPPED, form=True)
def supervisor(bench: Bench) -> Go:
    graph = create_supervisor([publishing(bench)], model=boss(bench))
    return bench.graph(graph.compile(checkpointer=bench.saver))


@shape(41, "... whose hand-off is bound with stage=None", form=True)
def supervisor_bound(bench: Bench) -> Go:
    hand_off = supervisor_hand_off(agent_name="pub")
    bench.bind(Binding(hand_off, stage=None))
    graph = create_supervisor([publishing(bench)], model=boss(bench), tools=[hand_off])
    return bench.graph(graph.compile(checkpointer=bench.saver))


@shape(41, "... under protect()", form=True)
def supervisor_protected(bench: Bench) -> Go:
    bench.bind(*known.hand_offs("pub", library="supervisor"))
    graph = create_supervisor([publishing(bench)], model=boss(bench))
    return bench.graph(bench.protect(graph, {}).compile(bench.saver))


def swarm_of(bench: Bench, front: Any) -> Any:
    members = [front, publishing(bench)]
    return create_swarm(members, default_active_agent="front").compile(checkpointer=bench.saver)


@shape(42, "swarm: the front agent hands over, with known.hand_offs()")
def swarm_known(bench: Bench) -> Go:
    bench.bind(*known.hand_offs("pub", library="swarm"))
    forth = create_handoff_tool(agent_name="pub")
    front = create_agent(boss(bench), [forth], middleware=bench.middleware(), name="front")
    return bench.graph(swarm_of(bench, front))


@shape(42, "... without a Binding", Refused("transfer_to_pub is not bound"), form=True)
def swarm(bench: Bench) -> Go:
    forth = create_handoff_tool(agent_name="pub")
    front = create_agent(boss(bench), [forth], middleware=bench.middleware(), name="front")
    return bench.graph(swarm_of(bench, front))


ROUTES = Refused("known.hand_offs()")


@shape(42, "... with a Binding that declares no route", ROUTES, form=True)
def swarm_bound(bench: Bench) -> Go:
    forth = create_handoff_tool(agent_name="pub")
    bench.bind(Binding(forth, stage=None))
    front = create_agent(boss(bench), [forth], middleware=bench.middleware(), name="front")
    return bench.graph(swarm_of(bench, front))


@shape(42, "... without a guard of its own", form=True)
def swarm_front_plain(bench: Bench) -> Go:
    forth = create_handoff_tool(agent_name="pub")
    bench.bind(Binding(forth, stage=None))
    front = create_react_agent(boss(bench), [forth], name="front")
    return bench.graph(swarm_of(bench, front))


class Steps(MessagesState):
    current_step: str


def stepping(bench: Bench, **meaning: Any) -> Go:
    """A hand-off by state: a tool that writes `current_step`."""

    def next_step(runtime: ToolRuntime) -> Command[Any]:
        """Go to the next step."""
        message = ToolMessage("next", tool_call_id=runtime.tool_call_id)
        return Command(update={"current_step": "publish", "messages": [message]})

    next_step.__annotations__["runtime"] = ToolRuntime
    made = tool_of(next_step)
    bench.bind(Binding(made, stage=None, **meaning))
    model = bench.model(says(call("next_step", {})))
    tools = bench.tools(made, bench.publish)
    agent = create_agent(
        model,
        tools,
        middleware=bench.middleware(),
        checkpointer=bench.saver,
        state_schema=Steps,  # type: ignore[arg-type]
    )

    return bench.graph(agent)


@shape(43, "a hand-off by state (current_step)")
def hand_off_by_state(bench: Bench) -> Go:
    go = stepping(bench, state=["current_step"])

    def stepped(resume: bool) -> Any:
        result = go(resume)
        assert result["current_step"] == "publish"
        return result

    return stepped


@shape(43, "... whose key no Binding names: the model and the log are told", form=True)
def hand_off_by_state_undeclared(bench: Bench) -> Go:
    go = stepping(bench)

    def told(resume: bool) -> Any:
        result = go(resume)
        sentence = "current_step was not written into the state"
        assert sentence in str(result["messages"])
        assert any(sentence in line for line in bench.heard)
        return result

    return told


@shape(44, "a deep agent, as newcomers write it", Refused("are not bound"))
def deep_agent_plain(bench: Bench) -> Go:
    agent = create_deep_agent(
        bench.model(),
        bench.tools(bench.publish),
        middleware=bench.middleware(),
        checkpointer=bench.saver,
    )
    return bench.graph(agent)


@shape(44, "... with known.deep_agent()", form=True)
def deep_agent_known(bench: Bench) -> Go:
    bench.bind(*known.deep_agent())
    helper: Any = {
        "name": "general-purpose",
        "description": "Helps.",
        "system_prompt": "You help.",
        "model": bench.model(),
        "tools": [],
        "middleware": bench.middleware(),
    }
    agent = create_deep_agent(
        bench.model(),
        bench.tools(bench.publish),
        subagents=[helper],
        middleware=bench.middleware(),
        checkpointer=bench.saver,
    )
    return bench.graph(agent)


@shape(45, "a deep agent with inline tools")
def deep_agent_inline(bench: Bench) -> Go:
    tools = bench.inline(bench.publish)
    return bench.graph(create_deep_agent(bench.model(), tools, checkpointer=bench.saver))
