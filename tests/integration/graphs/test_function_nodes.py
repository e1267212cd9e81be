"""Nodes that are plain functions and call guarded tools by hand: `agents={"tool_node": ...}`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphInterrupt
from langgraph.prebuilt import ToolNode
from langgraph.types import RetryPolicy, TimeoutPolicy

from agentguard.errors import BindingError
from agentguard.langgraph import GuardMiddleware, protect
from agentguard.model import Verdict
from tests.integration.shapes.bench import Bench, Model, begin, loop, told
from tests.integration.shapes.bench import alone as one_node
from tests.integration.shapes.loops import by_args, by_call
from tests.support import call, says

PUBLISHER = {"tools": "publisher"}

alone = functools.partial(one_node, name="tools")
"""A graph of one node, which acts."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Bench(tmp_path, "ask") as made:
        yield made


def compiled(bench: Bench, builder: Any) -> Any:
    return protect(builder, bench.guard, agents=PUBLISHER).compile(bench.saver)


def to(bench: Bench, *places: str) -> Model:
    """A model that publishes another picture to each place, in one message."""
    made = bench.pictures(len(places))
    calls = [
        call("publish", {"source": one, "to": place})
        for one, place in zip(made, places, strict=True)
    ]
    return Model(script=[says(*calls)])


def answer_all(bench: Bench, verdict: Verdict = Verdict.APPROVE) -> None:
    for question in bench.open_questions():
        bench.studio.answer(question.request, "omar@acme.example", verdict)


def test_node_asks_once_about_all_calls_of_a_message(bench: Bench) -> None:
    model = to(bench, "team", "web", "web", "site", "team")
    graph = compiled(bench, loop(model, by_args(bench.guard.tools([bench.publish]))))
    asked = graph.invoke(begin(), bench.config)
    assert len(asked["__interrupt__"]) == 1
    assert len(bench.open_questions()) == 2
    assert bench.effects == ["team"]
    answer_all(bench)
    done = graph.invoke(None, bench.config)
    assert bench.effects == ["team", "web", "web", "team"]
    said = told(done)
    assert [one.startswith("published to") for one in said] == [True, True, True, False, True]


@pytest.mark.unsound_wakes
@pytest.mark.parametrize("made", [1, 2])
def test_asked_call_of_a_message_that_the_node_leaves_out_is_logged(
    bench: Bench, made: int
) -> None:
    (publish,) = bench.guard.tools([bench.publish])

    def node(state: Any) -> Any:
        return {
            "messages": [publish.invoke(one) for one in state["messages"][-1].tool_calls[:made]]
        }

    result = compiled(bench, loop(to(bench, "team", "web"), node)).invoke(begin(), bench.config)
    assert ("__interrupt__" in result) == (made == 2)
    told_so = [line for line in bench.heard if "did not make the call" in line]
    assert len(told_so) == (1 if made == 1 else 0)
    assert bench.effects == ["team"]


def test_arguments_give_content_and_a_call_gives_its_tool_message(bench: Bench) -> None:
    (publish,) = bench.guard.tools([bench.publish])
    got: list[Any] = []
    args = {"source": bench.asset, "to": "team"}

    def node(state: Any) -> Any:
        got.append(publish.invoke(args))
        got.append(publish.invoke(call("publish", args, "mine")))
        return {}

    compiled(bench, alone(node)).invoke(begin(), bench.config)
    assert got[0] == "published to team"
    assert isinstance(got[1], ToolMessage)
    assert (got[1].tool_call_id, got[1].content) == ("mine", "published to team")


def test_equal_calls_of_a_message_are_two_calls(bench: Bench) -> None:
    args = {"source": bench.asset, "to": "team"}
    model = Model(script=[says(call("publish", args), call("publish", args))])
    graph = compiled(bench, loop(model, by_args(bench.guard.tools([bench.publish]))))
    graph.invoke(begin(), bench.config)
    assert bench.effects == ["team", "team"]


def test_asynchronous_node_that_gathers(bench: Bench) -> None:
    (publish,) = bench.guard.tools([bench.publish])

    async def node(state: Any) -> Any:
        calls = state["messages"][-1].tool_calls
        said = await asyncio.gather(*[publish.ainvoke(one["args"]) for one in calls])
        pairs = zip(said, calls, strict=True)
        return {"messages": [ToolMessage(one, tool_call_id=each["id"]) for one, each in pairs]}

    graph = compiled(bench, loop(to(bench, "team", "web", "web"), node))
    asked = asyncio.run(graph.ainvoke(begin(), bench.config))
    assert len(asked["__interrupt__"]) == 1
    answer_all(bench)
    asyncio.run(graph.ainvoke(None, bench.config))
    assert sorted(bench.effects) == ["team", "web", "web"]


def test_node_that_its_retry_policy_runs_again_acts_once(bench: Bench) -> None:
    (publish,) = bench.guard.tools([bench.publish])
    args = {"source": bench.asset, "to": "team"}
    runs: list[int] = []

    def node(state: Any) -> Any:
        said = publish.invoke(args)
        runs.append(1)
        if len(runs) == 1:
            raise ConnectionError("later")
        return {"messages": [AIMessage(said)]}

    builder = alone(node, retry_policy=RetryPolicy(initial_interval=0.01))
    result = compiled(bench, builder).invoke(begin(), bench.config)
    assert (len(runs), bench.effects) == (2, ["team"])
    assert result["messages"][-1].content == "published to team"


@pytest.mark.parametrize("shape", ["function", "tool node"])
def test_node_with_a_timeout(bench: Bench, shape: str) -> None:
    """LangGraph wraps what it schedules the tasks of such a node with."""
    tools = bench.guard.tools([bench.publish])

    async def node(state: Any) -> Any:
        calls = state["messages"][-1].tool_calls
        return {"messages": [await tools[0].ainvoke(one) for one in calls]}

    builder = loop(to(bench, "team", "web"), node if shape == "function" else ToolNode(tools))
    builder.nodes["tools"].timeout = TimeoutPolicy(run_timeout=30)
    graph = compiled(bench, builder)
    asked = asyncio.run(graph.ainvoke(begin(), bench.config))
    assert len(asked["__interrupt__"]) == 1
    answer_all(bench)
    asyncio.run(graph.ainvoke(None, bench.config))
    assert bench.effects == ["team", "web"]


def test_swallowed_question_is_raised_when_the_function_fails_as_well(bench: Bench) -> None:
    (publish,) = bench.guard.tools([bench.publish])
    args = {"source": bench.asset, "to": "web"}

    def node(state: Any) -> Any:
        try:
            said = publish.invoke(args)
        except Exception as error:
            raise ValueError("no luck") from error
        return {"messages": [AIMessage(said)]}

    graph = compiled(bench, alone(node))
    assert "__interrupt__" in graph.invoke(begin(), bench.config)
    answer_all(bench)
    graph.invoke(None, bench.config)
    assert bench.effects == ["web"]


def test_tool_node_made_in_a_named_function(bench: Bench) -> None:
    tools = bench.guard.tools([bench.publish])
    node = lambda state: ToolNode(tools).invoke(state)  # noqa: E731
    graph = compiled(bench, loop(to(bench, "team", "web"), node))
    assert len(graph.invoke(begin(), bench.config)["__interrupt__"]) == 1
    answer_all(bench)
    graph.invoke(None, bench.config)
    assert sorted(bench.effects) == ["team", "web"]


def test_agent_inside_a_named_function_keeps_its_own_gate(bench: Bench) -> None:
    tools = bench.guard.tools([bench.publish])
    unguarded = create_agent(bench.model(), tools)
    guarded = create_agent(
        bench.model(), tools, middleware=[GuardMiddleware(bench.guard, agent="publisher")]
    )
    for agent, works in ((unguarded, False), (guarded, True)):
        node = lambda state, agent=agent: {  # noqa: E731
            "messages": agent.invoke(begin())["messages"]
        }
        result = compiled(bench, alone(node)).invoke(
            begin(), bench.job.config(thread_id=str(works))
        )
        assert ("__interrupt__" in result) == works
    assert bench.effects == []


def test_thread_pool_that_gets_the_nodes_config(bench: Bench) -> None:
    (publish,) = bench.guard.tools([bench.publish])

    def node(state: Any, config: Any) -> Any:
        calls = state["messages"][-1].tool_calls
        with ThreadPoolExecutor() as pool:
            ran = [pool.submit(publish.invoke, each, config) for each in calls]
            return {"messages": [each.result() for each in ran]}

    node.__annotations__.clear()
    graph = compiled(bench, loop(to(bench, "team", "web", "web"), node))
    assert len(graph.invoke(begin(), bench.config)["__interrupt__"]) == 1
    answer_all(bench)
    done = graph.invoke(None, bench.config)
    assert sorted(bench.effects) == ["team", "web", "web"]
    assert len(told(done)) == 3


def test_each_stage_of_a_named_node_has_its_agent(bench: Bench) -> None:
    tools = {one.name: one for one in bench.guard.tools([bench.crop, bench.publish])}
    cut = {"source": bench.asset, "width": 8, "height": 8}
    sent = {"source": bench.asset, "to": "team"}

    def node(state: Any) -> Any:
        said = [tools["crop"].invoke(cut), tools["publish"].invoke(sent)]
        return {"messages": [AIMessage(one) for one in said]}

    stages = {"tools": {"edit": "editor", "export": "publisher"}}
    with pytest.raises(BindingError, match="unsafe_shared_driver=True"):
        protect(alone(node), bench.guard, agents=stages)
    graph = protect(alone(node), bench.guard, agents=stages, unsafe_shared_driver=True)
    graph.compile(bench.saver).invoke(begin(), bench.config)
    assert bench.effects == ["crop", "team"]
    agents = {row["agent"] for row in bench.guard.ledger.all("SELECT agent FROM requests")}
    assert agents == {"editor", "publisher"}


def test_single_agent_name_stands_for_tool_nodes_only(bench: Bench) -> None:
    tool_node = loop(bench.model(), ToolNode([bench.publish]))
    graph = protect(tool_node, bench.guard, agents="publisher").compile(bench.saver)
    assert "__interrupt__" in graph.invoke(begin(), bench.config)
    function = loop(bench.model(), by_args(bench.guard.tools([bench.publish])))
    function.add_node("other", ToolNode([bench.publish]))
    graph = protect(function, bench.guard, agents="publisher").compile(bench.saver)
    result = graph.invoke(begin(), bench.job.config(thread_id="other"))
    assert "__interrupt__" not in result
    assert bench.effects == []


def test_named_node_that_is_no_function_is_refused(bench: Bench) -> None:
    inner = create_agent(bench.model(), bench.guard.tools([bench.publish]))
    with pytest.raises(BindingError, match="agents= names ToolNodes, and nodes that are functions"):
        protect(alone(inner), bench.guard, agents=PUBLISHER)


def test_tools_of_another_agent_are_refused_in_a_named_node(bench: Bench) -> None:
    (publish,) = bench.guard.tools([bench.publish], agent="publisher", gate="inline")
    builder = loop(bench.model(), by_call(publish.invoke))
    graph = protect(builder, bench.guard, agents={"tools": "editor"}).compile(bench.saver)
    result = graph.invoke(begin(), bench.config)
    assert "publish is given to publisher, and the node tools acts as editor" in told(result)[0]
    assert bench.effects == []


# --- a node that says something else when it runs again ------------------------------------------


def changing(bench: Bench, first: list[Any], then: list[Any]) -> Any:
    """A graph of a node that makes these calls, and those when it runs again."""
    (publish,) = bench.guard.tools([bench.publish])
    runs: list[int] = []

    def node(state: Any) -> Any:
        runs.append(1)
        said = [publish.invoke(args) for args in (first if len(runs) == 1 else then)]
        return {"messages": [AIMessage("; ".join(said))]}

    return compiled(bench, alone(node))


def require_what_is_new_asked(bench: Bench, graph: Any) -> None:
    """It sends to the team, asks about the web, and does something else when it runs again."""
    graph.invoke(begin(), bench.config)
    answer_all(bench)
    graph.invoke(None, bench.config)
    (question,) = bench.open_questions()
    assert question.policies == ("workspace.changed-mind",)
    assert bench.effects == ["team"]
    answer_all(bench)
    graph.invoke(None, bench.config)
    assert bench.effects == ["team", "team", "web"]


def test_people_are_asked_about_what_is_new_of_a_node_that_changed_its_mind(bench: Bench) -> None:
    a, b, c = bench.pictures(3)
    done, asked = {"source": a, "to": "team"}, {"source": b, "to": "web"}
    graph = changing(bench, [done, asked], [{"source": c, "to": "team"}, asked])
    graph.invoke(begin(), bench.config)
    answer_all(bench)
    result = graph.invoke(None, bench.config)
    (question,) = bench.open_questions()
    assert question.policies == ("workspace.changed-mind",)
    assert "changed its mind" in question.reason
    assert "__interrupt__" in result
    assert bench.effects == ["team"]
    result = graph.invoke(None, bench.config)  # nobody answered: the claim keeps to the question
    assert "__interrupt__" in result
    assert bench.effects == ["team"]
    answer_all(bench)
    graph.invoke(None, bench.config)
    assert bench.effects == ["team", "team", "web"]


def test_new_call_of_a_node_that_changed_its_mind_can_be_rejected(bench: Bench) -> None:
    a, b, c = bench.pictures(3)
    done, asked = {"source": a, "to": "team"}, {"source": b, "to": "web"}
    graph = changing(bench, [done, asked], [{"source": c, "to": "team"}, asked])
    graph.invoke(begin(), bench.config)
    answer_all(bench)
    graph.invoke(None, bench.config)
    answer_all(bench, Verdict.DENY)
    result = graph.invoke(None, bench.config)
    assert bench.effects == ["team", "web"]
    assert result["messages"][-1].content == "refused: a person said no; published to web"


def test_question_that_a_changed_mind_left_is_withdrawn_once_the_node_returns(bench: Bench) -> None:
    a, b, c = bench.pictures(3)
    done, asked = {"source": a, "to": "team"}, {"source": b, "to": "web"}
    graph = changing(bench, [done, asked], [{"source": c, "to": "team"}])
    graph.invoke(begin(), bench.config)
    graph.invoke(None, bench.config)
    why = {one.call.args["to"]: one.policies for one in bench.open_questions()}
    assert why["team"] == ("workspace.changed-mind",)
    assert "export.sensitive" in why["web"]
    answer_all(bench)
    graph.invoke(None, bench.config)
    assert not bench.open_questions()
    assert bench.effects == ["team", "team"]


@pytest.mark.parametrize("first", ["the message's", "another"])
def test_node_that_varies_a_call_of_its_message_has_changed_its_mind(
    bench: Bench, first: str
) -> None:
    a, b, c = bench.pictures(3)
    written, other = {"source": a, "to": "team"}, {"source": b, "to": "team"}
    (publish,) = bench.guard.tools([bench.publish])
    order = [written, other] if first == "the message's" else [other, written]
    runs: list[int] = []

    def node(state: Any) -> Any:
        runs.append(1)
        publish.invoke(order[0] if len(runs) == 1 else order[1])
        publish.invoke({"source": c, "to": "web"})
        return {"messages": [ToolMessage("done", tool_call_id="one")]}

    model = Model(script=[says(call("publish", written, "one"))])
    graph = compiled(bench, loop(model, node))
    require_what_is_new_asked(bench, graph)


def test_call_that_was_permitted_ahead_is_asked_about_where_its_node_did_another(
    bench: Bench,
) -> None:
    """All calls of a message are decided with the first; one of them was varied by hand before."""
    a, b, c = bench.pictures(3)
    written, other = {"source": a, "to": "team"}, {"source": b, "to": "team"}
    asked = {"source": c, "to": "web"}
    (publish,) = bench.guard.tools([bench.publish])
    runs: list[int] = []

    def node(state: Any) -> Any:
        runs.append(1)
        publish.invoke(other if len(runs) == 1 else written)
        publish.invoke(asked)
        return {"messages": [ToolMessage("done", tool_call_id=name) for name in ("one", "two")]}

    model = Model(script=[says(call("publish", written, "one"), call("publish", asked, "two"))])
    graph = compiled(bench, loop(model, node))
    require_what_is_new_asked(bench, graph)


def test_node_that_makes_other_calls_at_each_run_is_asked_each_time(bench: Bench) -> None:
    (publish,) = bench.guard.tools([bench.publish])
    pictures = bench.pictures(4)
    runs: list[int] = []

    def node(state: Any) -> Any:
        runs.append(1)
        publish.invoke({"source": pictures[len(runs) - 1], "to": "team"})
        return {"messages": [AIMessage(publish.invoke({"source": pictures[3], "to": "web"}))]}

    graph = compiled(bench, alone(node))
    graph.invoke(begin(), bench.config)
    assert bench.effects == ["team"]
    for _ in range(2):
        graph.invoke(None, bench.config)
        answer_all(bench)
    assert bench.effects == ["team"]


def test_node_may_say_more_after_what_it_did(bench: Bench) -> None:
    a, b, c = bench.pictures(3)
    done, asked = {"source": a, "to": "team"}, {"source": b, "to": "web"}
    graph = changing(bench, [done, asked], [done, asked, {"source": c, "to": "team"}])
    graph.invoke(begin(), bench.config)
    answer_all(bench)
    graph.invoke(None, bench.config)
    assert bench.effects == ["team", "web", "team"]


def test_question_that_a_node_does_not_ask_again_is_withdrawn(bench: Bench) -> None:
    a, b = bench.pictures(2)
    graph = changing(bench, [{"source": a, "to": "web"}], [{"source": b, "to": "team"}])
    assert "__interrupt__" in graph.invoke(begin(), bench.config)
    graph.invoke(None, bench.config)
    assert not bench.open_questions()
    assert bench.effects == ["team"]


# --- what runs a call more than once, or too late ------------------------------------------------


def test_call_that_is_tried_again_after_its_question_asks_once(bench: Bench) -> None:
    (publish,) = bench.guard.tools([bench.publish])
    args = {"source": bench.asset, "to": "web"}

    def node(state: Any) -> Any:
        said = publish.with_retry(stop_after_attempt=3).invoke(args)
        return {"messages": [AIMessage(said)]}

    graph = compiled(bench, alone(node))
    assert "__interrupt__" in graph.invoke(begin(), bench.config)
    assert len(bench.open_questions()) == 1
    answer_all(bench)
    assert graph.invoke(None, bench.config)["messages"][-1].content == "published to web"
    assert bench.effects == ["web"]


def test_equal_calls_of_a_node_act_each_time_though_their_questions_are_caught(
    bench: Bench,
) -> None:
    (publish,) = bench.guard.tools([bench.publish])
    args = {"source": bench.asset, "to": "web"}

    def node(state: Any) -> Any:
        for _ in range(2):
            with contextlib.suppress(GraphInterrupt):
                publish.invoke(args)
        return {}

    graph = compiled(bench, alone(node))
    graph.invoke(begin(), bench.config)
    for _ in range(2):
        assert len(bench.open_questions()) == 1
        answer_all(bench)
        graph.invoke(None, bench.config)
    assert bench.effects == ["web", "web"]


def test_call_after_its_node_returned_is_refused_and_told_why(bench: Bench) -> None:
    (publish,) = bench.guard.tools([bench.publish])
    args = {"source": bench.asset, "to": "team"}
    said: list[str] = []
    returned = threading.Event()
    threads: list[threading.Thread] = []

    def node(state: Any, config: RunnableConfig) -> Any:
        def later() -> None:
            returned.wait()
            said.append(publish.invoke(args, config))

        threads.append(threading.Thread(target=later))
        threads[0].start()
        return {}

    compiled(bench, alone(node)).invoke(begin(), bench.config)
    returned.set()
    threads[0].join()
    assert "its node returned before this call began" in said[0]
    assert bench.effects == []
