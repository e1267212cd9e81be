"""Attacks on function nodes: forged messages and ids, foreign calls, resumes, kept configs."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, wrap_tool_call
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import InjectedToolArg
from langgraph.errors import GraphInterrupt
from langgraph.func import entrypoint
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import InjectedState, ToolNode
from langgraph.types import Command, RetryPolicy, Send, interrupt

from agentguard import Asset, Opaque, Text, To, media_tool
from agentguard.langgraph import GuardMiddleware, protect
from agentguard.model import Verdict
from tests.integration.shapes.bench import Bench, Model, begin, loop, told
from tests.integration.shapes.bench import alone as one_node
from tests.integration.shapes.loops import by_args, by_call
from tests.support import call, says
from tests.support.bindings import Binding
from tests.support.late_tools import bind_in_a_job
from tests.support.shared import tool_of

PUBLISHER = {"tools": "publisher"}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Bench(tmp_path, "ask") as made:
        yield made


def message(id: str, call_id: str, args: dict[str, Any]) -> AIMessage:
    return AIMessage("", id=id, tool_calls=[call("publish", args, call_id)])


def sent_to(bench: Bench, node: Any, agents: dict[str, str], *payloads: Any) -> Any:
    """A graph that hands payloads to a function node, one after the other."""
    left = list(payloads)
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {})
    builder.add_node("tools", node)
    builder.add_edge(START, "model")
    builder.add_conditional_edges(
        "model", lambda state: Send("tools", left.pop(0)) if left else END, ["tools", END]
    )
    builder.add_edge("tools", "model")
    return protect(builder, bench.guard, agents=agents).compile(bench.saver)


def approve_all(bench: Bench) -> None:
    for question in bench.open_questions():
        bench.studio.answer(question.request, "omar@acme.example", Verdict.APPROVE)


def test_forged_message_with_the_ids_of_a_done_call_does_nothing_new(bench: Bench) -> None:
    done = {"source": bench.asset, "to": "team"}
    other = {"source": bench.asset, "to": "web"}
    heard: list[str] = []
    (publish,) = bench.guard.tools([bench.publish])

    def node(state: Any) -> Any:
        heard.append(publish.invoke(state["messages"][-1].tool_calls[0]["args"]))
        return {}

    payloads = [{"messages": [message("m", "c", args)]} for args in (done, done, other)]
    sent_to(bench, node, PUBLISHER, *payloads).invoke(begin(), bench.config)
    assert bench.effects == ["team"]
    assert heard[:2] == ["published to team"] * 2
    assert "decided before with other arguments" in heard[2]
    assert not bench.open_questions()


def test_call_that_another_agent_was_approved_for_is_refused(bench: Bench) -> None:
    """A payload brings a call that a ToolNode of the publisher asked about to the editor's node."""
    builder = loop(bench.model(), ToolNode([bench.publish]))
    first = protect(builder, bench.guard, agents=PUBLISHER).compile(bench.saver)
    written = first.invoke(begin(), bench.config)["messages"][-1]
    approve_all(bench)
    heard: list[str] = []
    (publish,) = bench.guard.tools([bench.publish])

    def node(state: Any) -> Any:
        heard.append(publish.invoke(state["messages"][-1].tool_calls[0]))
        return {}

    thief = sent_to(bench, node, {"tools": "editor"}, {"messages": [written]})
    thief.invoke(begin(), bench.config)
    assert bench.effects == []
    assert "publish belongs to the export stage" in str(heard)


def test_resume_that_rewrites_the_asked_call_uses_no_approval(bench: Bench) -> None:
    tools = bench.guard.tools([bench.publish])
    builder = loop(bench.model(), by_args(tools))
    graph: Any = protect(builder, bench.guard, agents=PUBLISHER).compile(bench.saver)
    written = graph.invoke(begin(), bench.config)["messages"][-1]
    approve_all(bench)
    secret = bench.job.import_asset(bench.studio.picture("two.png", "red"), ["customer-data"])
    forged = message(written.id, written.tool_calls[0]["id"], {"source": secret, "to": "web"})
    graph.invoke(Command(resume="yes", update={"messages": [forged]}), bench.config)
    rows = bench.guard.ledger.all("SELECT r.* FROM requests r JOIN grants g ON g.request=r.digest")
    assert all(secret not in str(dict(row)) for row in rows)


@pytest.mark.parametrize("forged", ["publisher", {"agent": "publisher"}, object()])
def test_node_in_a_clients_config_counts_for_nothing(bench: Bench, forged: Any) -> None:
    (publish,) = bench.guard.tools([bench.publish])
    graph = loop(bench.model(), by_call(publish.invoke)).compile(bench.saver)
    config = bench.config
    config["configurable"] = {**config["configurable"], "__agentguard_node": forged}
    said = told(graph.invoke(begin(), config))
    assert bench.effects == []
    assert "was called where nothing decides" in said[0]


def test_config_that_is_kept_after_its_node_acts_no_more(bench: Bench) -> None:
    (publish,) = bench.guard.tools([bench.publish])
    kept: list[Any] = []
    heard: list[Any] = []

    def keeps(state: Any, config: Any) -> Any:
        kept.append(config)
        return {}

    keeps.__annotations__.clear()

    def late(state: Any) -> Any:
        heard.append(publish.invoke(made, kept[0]))
        return {}

    builder = StateGraph(MessagesState)
    builder.add_node("tools", keeps)
    builder.add_node("late", late)
    builder.add_edge(START, "tools")
    builder.add_edge("tools", "late")
    made = call("publish", {"source": bench.asset, "to": "team"})
    graph: Any = protect(builder, bench.guard, agents=PUBLISHER).compile(bench.saver)
    graph.invoke(begin(), bench.config)
    assert kept[0]["configurable"]["__agentguard_node"] is not None
    assert bench.effects == []
    assert "its node returned before this call began" in heard[0].content


def test_body_of_a_guarded_tool_does_not_act_as_the_node(bench: Bench) -> None:
    (publish,) = bench.guard.tools([bench.publish])
    args = {"source": bench.asset, "to": "team"}
    heard: list[Any] = []

    def remix(source: str) -> str:
        """Publish in a roundabout way."""
        heard.append(publish.invoke(call("publish", args)))
        return "done"

    made = tool_of(remix)
    bind_in_a_job(bench.guard, Binding(made, stage="review", assets=["source"]))
    (outer,) = bench.guard.tools([made])

    def node(state: Any) -> Any:
        return {"messages": [AIMessage(str(outer.invoke({"source": args["source"]})))]}

    builder = StateGraph(MessagesState)
    builder.add_node("tools", node)
    builder.add_edge(START, "tools")
    shared = {"tools": {"review": "reviewer", "export": "publisher"}}
    graph: Any = protect(builder, bench.guard, agents=shared, unsafe_shared_driver=True)
    graph.compile(bench.saver).invoke(begin(), bench.config)
    assert bench.effects == []
    assert len(heard) == 1


def test_failed_guard_line_in_a_thread_without_context_does_nothing(bench: Bench) -> None:
    """A thread that outlives its node, and never got its config."""

    (publish,) = bench.guard.tools([bench.publish])
    heard: list[Any] = []
    made = call("publish", {"source": bench.asset, "to": "team"})

    def node(state: Any) -> Any:
        thread = threading.Thread(target=lambda: heard.append(publish.invoke(made)))
        thread.start()
        thread.join()
        return {}

    builder = StateGraph(MessagesState)
    builder.add_node("tools", node)
    builder.add_edge(START, "tools")
    graph: Any = protect(builder, bench.guard, agents=PUBLISHER).compile(bench.saver)
    graph.invoke(begin(), bench.config)
    assert bench.effects == []
    assert "unless they get the config" in heard[0].content


def heard_by_hand(bench: Bench, given: Any) -> str:
    """What a named node hears that calls the tool with this."""
    (publish,) = bench.guard.tools([bench.publish])
    heard: list[Any] = []

    def node(state: Any) -> Any:
        heard.append(publish.invoke(given))
        return {}

    graph = protect(one_node(node, name="tools"), bench.guard, agents=PUBLISHER)
    graph.compile(bench.saver).invoke(begin(), bench.config)
    return str(heard[0])


@pytest.mark.parametrize("given", ["\ud800", 7, ["c"]], ids=str)
def test_call_id_that_is_no_text_is_refused(bench: Bench, given: Any) -> None:
    made = {**call("publish", {"source": bench.asset, "to": "team"}), "id": given}
    assert "its call id is no readable id" in heard_by_hand(bench, made)
    assert bench.effects == []


def test_arguments_that_hold_themselves_are_refused(bench: Bench) -> None:
    """A node can hand in what no model can write."""
    args: dict[str, Any] = {"source": bench.asset, "to": "team"}
    args["more"] = [args]
    assert "too many values, or themselves" in heard_by_hand(bench, args)


# --- what wakes a node is no answer to what the node asks itself ----------------------------------


def resumed(graph: Any, bench: Bench, asked: Any, by_id: bool, value: str) -> Any:
    name = asked["__interrupt__"][0].id
    return graph.invoke(Command(resume={name: value} if by_id else value), bench.config)


@pytest.mark.parametrize("by_id", [False, True])
@pytest.mark.parametrize("early", [False, True])
def test_wake_of_a_question_answers_no_interrupt_of_the_node(
    bench: Bench, by_id: bool, early: bool
) -> None:
    (publish,) = bench.guard.tools([bench.publish])
    args = {"source": bench.asset, "to": "web"}
    answers: list[Any] = []

    def node(state: Any) -> Any:
        first = interrupt("What is it?")
        publish.invoke(args)
        answers[:] = [first, interrupt("Really delete the original?")]
        return {}

    builder = one_node(node, name="tools")
    graph = protect(builder, bench.guard, agents=PUBLISHER).compile(bench.saver)
    asked = graph.invoke(begin(), bench.config)
    asked = resumed(graph, bench, asked, by_id, "a cat")
    assert asked["__interrupt__"][0].value["type"] == "tool_approval"
    if early:
        asked = resumed(graph, bench, asked, by_id, "approve")
        assert "a resume value is no approval" in asked["__interrupt__"][0].value["description"]
    approve_all(bench)
    asked = resumed(graph, bench, asked, by_id, "approve")
    assert asked["__interrupt__"][0].value == "Really delete the original?"
    assert (bench.effects, answers) == (["web"], [])
    resumed(graph, bench, asked, by_id, "no")
    assert (bench.effects, answers) == (["web"], ["a cat", "no"])


def test_model_gets_no_answer_of_a_person_by_a_call_beside_it(tmp_path: Path) -> None:
    """The quickstart's loop, with the tool by which the model asks people something."""
    answers: list[Any] = []

    @media_tool(stage=None, interrupts=True)
    def human_assistance(query: Annotated[str, Text()]) -> str:
        """Ask a person."""
        answers.append(interrupt(query))
        return str(answers[-1])

    with Bench(tmp_path, "ask", tools=[human_assistance]) as bench:
        calls = [
            call("publish", bench.args),
            call("human_assistance", {"query": "May I delete the originals?"}),
        ]
        tools = bench.guard.tools([bench.publish, human_assistance])
        builder = loop(Model(script=[says(*calls)]), by_args(tools))
        graph: Any = protect(builder, bench.guard, agents=PUBLISHER).compile(bench.saver)
        graph.invoke(begin(), bench.config)
        approve_all(bench)
        asked = graph.invoke(Command(resume="approve"), bench.config)
        assert asked["__interrupt__"][0].value == "May I delete the originals?"
        assert answers == []
        graph.invoke(Command(resume="no"), bench.config)
        assert answers == ["no"]


@pytest.mark.parametrize("way", ["protect", "middleware"])
def test_wake_of_a_question_answers_no_interrupt_of_a_wrapper(bench: Bench, way: str) -> None:
    answers: list[Any] = []

    def wrapped(request: Any, handler: Any) -> Any:
        result = handler(request)
        answers.append(interrupt("Really delete the original?"))
        return result

    (publish,) = bench.guard.tools([bench.publish])
    if way == "protect":
        builder = loop(bench.model(), ToolNode([publish], wrap_tool_call=wrapped))
        graph: Any = protect(builder, bench.guard, agents=PUBLISHER).compile(bench.saver)
    else:
        around = [wrap_tool_call(wrapped), GuardMiddleware(bench.guard, agent="publisher")]
        graph = create_agent(bench.model(), [publish], middleware=around, checkpointer=bench.saver)
    graph.invoke(begin(), bench.config)
    approve_all(bench)
    asked = graph.invoke(Command(resume="approve"), bench.config)
    assert asked["__interrupt__"][0].value == "Really delete the original?"
    assert (bench.effects, answers) == (["web"], [])
    graph.invoke(Command(resume="no"), bench.config)
    assert (bench.effects, answers) == (["web"], ["no"])


@pytest.mark.parametrize("by_id", [False, True])
@pytest.mark.parametrize("then", ["own", "question"])
def test_value_of_an_earlier_wake_answers_no_interrupt_of_the_node(
    bench: Bench, by_id: bool, then: str
) -> None:
    """LangGraph keeps the last value, and hands it out again in a run that is woken by id."""
    (publish,) = bench.guard.tools([bench.publish])
    args = {"source": bench.asset, "to": "web"}
    answers: list[Any] = []

    def node(state: Any) -> Any:
        publish.invoke(args)
        answers[:] = [interrupt("What is it?")] if then == "own" else []
        answers.append(interrupt("Really delete the original?"))
        return {}

    builder = one_node(node, name="tools")
    graph = protect(builder, bench.guard, agents=PUBLISHER).compile(bench.saver)
    graph.invoke(begin(), bench.config)
    asked = graph.invoke(Command(resume="approve"), bench.config)
    approve_all(bench)
    asked = resumed(graph, bench, asked, by_id or then == "question", "approve")
    if then == "own":
        asked = resumed(graph, bench, asked, True, "a cat")
    assert asked["__interrupt__"][0].value == "Really delete the original?"
    assert (bench.effects, answers) == (["web"], ["a cat"] if then == "own" else [])


@pytest.mark.parametrize("by_id", [False, True])
def test_wake_of_a_swallowed_question_answers_no_interrupt_behind_it(
    bench: Bench, by_id: bool
) -> None:
    (publish,) = bench.guard.tools([bench.publish])
    args = {"source": bench.asset, "to": "web"}
    runs: list[int] = []
    answers: list[Any] = []

    def node(state: Any) -> Any:
        runs.append(1)
        if len(runs) > 1:
            with contextlib.suppress(GraphInterrupt):
                publish.invoke(args)
        answers[:] = [interrupt("What is it?")]
        answers.append(interrupt("Really delete the original?"))
        return {}

    builder = one_node(node, name="tools")
    graph = protect(builder, bench.guard, agents=PUBLISHER).compile(bench.saver)
    asked = graph.invoke(begin(), bench.config)
    asked = resumed(graph, bench, asked, by_id, "a cat")
    approve_all(bench)
    asked = resumed(graph, bench, asked, by_id, "approve")
    assert asked["__interrupt__"][0].value == "Really delete the original?"
    resumed(graph, bench, asked, by_id, "no")
    assert (bench.effects, answers) == (["web"], ["a cat", "no"])


@pytest.mark.parametrize("by_id", [False, True])
def test_answer_is_not_lost_where_the_node_was_retried(bench: Bench, by_id: bool) -> None:
    """A failed attempt took the wake, and LangGraph drops what such an attempt wrote."""
    (publish,) = bench.guard.tools([bench.publish])
    args = {"source": bench.asset, "to": "web"}
    runs: list[int] = []
    answers: list[Any] = []

    def node(state: Any) -> Any:
        runs.append(1)
        publish.invoke(args)
        if len(runs) == 2:
            raise ConnectionError("try again")
        answers.append(interrupt("Really delete the original?"))
        return {}

    policy = RetryPolicy(initial_interval=0.001)
    builder = one_node(node, name="tools", retry_policy=policy)
    graph = protect(builder, bench.guard, agents=PUBLISHER).compile(bench.saver)
    asked = graph.invoke(begin(), bench.config)
    approve_all(bench)
    asked = resumed(graph, bench, asked, by_id, "approve")
    assert asked["__interrupt__"][0].value == "Really delete the original?"
    resumed(graph, bench, asked, by_id, "no")
    assert (bench.effects, answers, len(runs)) == (["web"], ["no"], 4)


@pytest.mark.parametrize("by_id", [False, True])
def test_answer_to_a_wrapper_is_given_to_the_call_that_it_asked_about(
    bench: Bench, by_id: bool
) -> None:
    """The second call is approved first; what its wrapper asks must not answer for the first."""
    answers: dict[str, Any] = {}

    def wrapped(request: Any, handler: Any) -> Any:
        result = handler(request)
        source = request.tool_call["args"]["source"]
        answers[source] = interrupt(source)
        return result

    (publish,) = bench.guard.tools([bench.publish])
    builder = loop(bench.model(calls=2), ToolNode([publish], wrap_tool_call=wrapped))
    graph: Any = protect(builder, bench.guard, agents=PUBLISHER).compile(bench.saver)
    asked = graph.invoke(begin(), bench.config)
    first, second = (one["args"]["source"] for one in asked["messages"][-1].tool_calls)
    questions = {one.call.args["source"]: one.request for one in bench.open_questions()}
    bench.studio.answer(questions[second], "omar@acme.example", Verdict.APPROVE)
    asked = resumed(graph, bench, asked, by_id, "wake")
    bench.studio.answer(questions[first], "omar@acme.example", Verdict.APPROVE)
    while asked.get("__interrupt__"):
        value = asked["__interrupt__"][0].value
        answer = "wake" if isinstance(value, dict) else f"no to {value}"
        asked = resumed(graph, bench, asked, by_id, answer)
    assert answers == {first: f"no to {first}", second: f"no to {second}"}
    assert bench.effects == ["web", "web"]


def test_wake_answers_no_wrapper_of_a_call_that_another_one_asked_for(bench: Bench) -> None:
    """Calls of an agent have a task each; the one that asks is behind with its wake."""
    answers: list[Any] = []
    ahead = threading.Event()

    def wrapped(request: Any, handler: Any) -> Any:
        if bench.effects or not bench.open_questions():
            if request.tool_call["args"]["source"] == bench.asset:
                ahead.wait(5)
            result = handler(request)
            try:
                answers.append(interrupt("Really delete the original?"))
            finally:
                ahead.set()
            return result
        return handler(request)

    (publish,) = bench.guard.tools([bench.publish])
    around = [wrap_tool_call(wrapped), GuardMiddleware(bench.guard, agent="publisher")]
    agent: Any = create_agent(
        bench.model(calls=2), [publish], middleware=around, checkpointer=bench.saver
    )
    agent.invoke(begin(), bench.config)
    approve_all(bench)
    agent.invoke(Command(resume="approve"), bench.config)
    assert (bench.effects, answers) == (["web", "web"], [])


@pytest.mark.parametrize("by_id", [False, True])
@pytest.mark.parametrize("how", ["denied", "expired"])
def test_closed_question_leaves_no_answer_to_an_interrupt_beside_the_model(
    bench: Bench, how: str, by_id: bool
) -> None:
    """An error handler swallowed the question, so it was asked where the model is called."""
    answers: list[Any] = []

    class Swallows(AgentMiddleware[Any, Any, Any]):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            try:
                return handler(request)
            except Exception:
                one = request.tool_call
                return ToolMessage("failed", tool_call_id=one["id"], name=one["name"])

        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            said = handler(request)
            if any(isinstance(one, ToolMessage) for one in request.messages):
                answers.append(interrupt("May it say that?"))
            return said

    (publish,) = bench.guard.tools([bench.publish])
    around = [Swallows(), GuardMiddleware(bench.guard, agent="publisher")]
    agent: Any = create_agent(bench.model(), [publish], middleware=around, checkpointer=bench.saver)
    asked = agent.invoke(begin(), bench.config)
    (question,) = bench.open_questions()
    if how == "denied":
        bench.studio.answer(question.request, "omar@acme.example", Verdict.DENY)
    else:
        bench.studio.clock.turn(seconds=30 * 24 * 3600)
    asked = resumed(agent, bench, asked, by_id, "go on")
    assert asked["__interrupt__"][0].value == "May it say that?"
    resumed(agent, bench, asked, by_id, "no")
    assert (bench.effects, answers) == ([], ["no"])


def test_wake_of_an_inline_tool_answers_no_interrupt_of_its_entrypoint(bench: Bench) -> None:
    (publish,) = bench.guard.tools([bench.publish], agent="publisher", gate="inline")
    made = call("publish", {"source": bench.asset, "to": "web"})

    @entrypoint(checkpointer=bench.saver)
    def flow(given: str) -> str:
        publish.invoke(made)
        return str(interrupt("Really delete the original?"))

    flow.invoke("go", bench.config)
    approve_all(bench)
    asked: Any = flow.invoke(Command(resume="approve"), bench.config)
    assert asked["__interrupt__"][0].value == "Really delete the original?"
    assert flow.invoke(Command(resume="no"), bench.config) == "no"
    assert bench.effects == ["web"]


# --- arguments that LangChain and LangGraph fill in ----------------------------------------------

_FILLED: list[Any] = []
"""What the tools below were handed in the arguments that no model may write."""


@media_tool(stage="export", effect=Opaque())
def send_for(
    picture: Annotated[str, Asset()],
    to: Annotated[str, To()],
    user: Annotated[str, InjectedToolArg],
) -> str:
    """Send a picture for a user."""
    _FILLED.append(user)
    return "sent"


@media_tool(stage="export", effect=Opaque())
def send_with(
    picture: Annotated[str, Asset()],
    to: Annotated[str, To()],
    state: Annotated[dict[str, Any], InjectedState],
) -> str:
    """Send a picture to whom the state names."""
    _FILLED.append(state["user"])
    return "sent"


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Bench]:
    _FILLED.clear()
    with Bench(tmp_path, "permit", tools=[send_for, send_with]) as made:
        yield made


FORGED: dict[str, dict[str, Any]] = {
    "send_for": {"user": "eve"},
    "send_with": {"state": {"user": "eve"}},
}
OWN: dict[str, dict[str, Any]] = {
    "send_for": {"user": "kim"},
    "send_with": {"state": {"user": "kim"}},
}
TOOLS: dict[str, Any] = {"send_for": send_for, "send_with": send_with}


def forged_call(bench: Bench, name: str) -> Any:
    """A model that writes what is not for it to write, besides what it may."""
    return Model(script=[says(call(name, {"picture": bench.asset, "to": "team", **FORGED[name]}))])


@pytest.mark.parametrize("name", list(TOOLS))
@pytest.mark.parametrize("how", ["arguments", "call", "function", "sent"])
def test_argument_that_is_filled_in_does_not_hold_what_the_model_wrote(
    filled: Bench, name: str, how: str
) -> None:
    function = TOOLS[name]
    (tool,) = filled.guard.tools([function])

    def answered(made: Any) -> Any:
        if how == "call":
            return tool.invoke(made)
        try:
            said = function(**made["args"]) if how == "function" else tool.invoke(made["args"])
        except Exception as error:
            said = str(error)
        return ToolMessage(said, tool_call_id=made["id"])

    def node(given: Any) -> Any:
        calls = [given] if how == "sent" else given["messages"][-1].tool_calls
        return {"messages": [answered(made) for made in calls]}

    builder: Any = loop(forged_call(filled, name), node)
    if how == "sent":
        builder.branches["llm_call"].clear()
        builder.add_conditional_edges(
            "llm_call",
            lambda state: [Send("tools", made) for made in state["messages"][-1].tool_calls],
            ["tools"],
        )
        builder.add_conditional_edges("tools", lambda state: END, [END])
        builder.edges.discard(("tools", "llm_call"))
    graph: Any = protect(builder, filled.guard, agents=PUBLISHER).compile(filled.saver)
    said = told(graph.invoke(begin(), filled.config))
    assert _FILLED == []
    assert "it has what the model wrote in its place" in said[0]


@pytest.mark.parametrize("name", list(TOOLS))
@pytest.mark.parametrize("in_place", [False, True])
def test_argument_that_the_node_fills_in_itself_is_the_nodes(
    filled: Bench, name: str, in_place: bool
) -> None:
    """As the documentation shows it, over a copy of the call; or over the call itself."""
    (tool,) = filled.guard.tools([TOOLS[name]])

    def node(state: Any) -> Any:
        made = state["messages"][-1].tool_calls[0]
        made = made if in_place else copy.deepcopy(made)
        made["args"].update(OWN[name])
        return {"messages": [tool.invoke(made)]}

    graph = protect(loop(forged_call(filled, name), node), filled.guard, agents=PUBLISHER)
    said = told(graph.compile(filled.saver).invoke(begin(), filled.config))
    assert said == ["sent"]
    assert _FILLED == ["kim"]


class Chat(TypedDict):
    chat: Annotated[list[Any], add_messages]


@pytest.mark.parametrize("where", ["older message", "another name", "another key"])
def test_what_the_model_wrote_is_known_wherever_its_call_stands(filled: Bench, where: str) -> None:
    (tool,) = filled.guard.tools([send_for])
    args = {"picture": filled.asset, "to": "team", **FORGED["send_for"]}
    said = [says(call("mail" if where == "another name" else "send_for", args))]
    if where == "older message":  # as two models write that run side by side
        said.append(says(call("other", {})))
    key, state = ("chat", Chat) if where == "another key" else ("messages", MessagesState)
    heard: list[str] = []

    def node(state: Any) -> Any:
        for message in state[key]:
            for made in getattr(message, "tool_calls", []):
                if made["name"] != "other":
                    heard.append(tool.invoke(made["args"]))
        return {}

    builder: Any = StateGraph(state)
    builder.add_node("model", lambda state: {key: said})
    builder.add_node("tools", node)
    builder.add_edge(START, "model")
    builder.add_edge("model", "tools")
    graph = protect(builder, filled.guard, agents=PUBLISHER).compile(filled.saver)
    graph.invoke({key: [("user", "go")]}, filled.config)
    assert _FILLED == []
    assert "it has what the model wrote in its place" in heard[0]


# --- what is not held yet -------------------------------------------------------------------------


def test_node_that_goes_on_in_another_job_has_people_asked_as_well(bench: Bench) -> None:
    (publish,) = bench.guard.tools([bench.publish])
    sources = bench.pictures(1)
    runs: list[int] = []

    def node(state: Any) -> Any:
        runs.append(1)
        publish.invoke({"source": sources[-1], "to": "team"})
        return {"messages": [("ai", str(interrupt("Go on?")))]}

    builder = one_node(node, name="tools")
    graph = protect(builder, bench.guard, agents=PUBLISHER).compile(bench.saver)
    graph.invoke(begin(), bench.config)
    with bench.guard.open_job("another", requested_by="kim@acme.example") as job:
        sources.append(job.import_asset(bench.studio.picture("new.png", "red", 77), ["brand"]))
        graph.invoke(Command(resume="yes"), job.config(thread_id="t1"))
    assert bench.effects == ["team"]


def test_wrapper_that_does_not_call_on_reads_no_yes(bench: Bench) -> None:
    answers: list[Any] = []
    runs: list[int] = []

    def wrapped(request: Any, handler: Any) -> Any:
        runs.append(1)
        if len(runs) == 1:
            return handler(request)
        answers.append(interrupt("It takes long. Leave it out?"))
        return ToolMessage("left out", tool_call_id=request.tool_call["id"], name="publish")

    (publish,) = bench.guard.tools([bench.publish])
    around = [wrap_tool_call(wrapped), GuardMiddleware(bench.guard, agent="publisher")]
    agent: Any = create_agent(bench.model(), [publish], middleware=around, checkpointer=bench.saver)
    agent.invoke(begin(), bench.config)
    agent.invoke(Command(resume="approve"), bench.config)
    assert not any(answers)
