"""Deep agents: their files, their plans, and sub-agents that run tools of their own."""

from __future__ import annotations

from typing import Any

import pytest
from deepagents import FilesystemMiddleware, SubAgentMiddleware, create_deep_agent
from deepagents.backends import StateBackend
from langchain.agents import create_agent
from langchain.agents.middleware import TodoListMiddleware
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import BaseTool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command

from agentguard.errors import BindingError
from agentguard.langgraph import GuardMiddleware, protect
from tests.support import GO, KIM, OMAR, State, Studio, call, results, says
from tests.support.bindings import Binding
from tests.support.chat_models import Scripted, say, saying

PAINT = {"prompt": "the sea", "colour": "navy"}

# What each of a deep agent's own tools takes. They touch the graph's own state and nothing else:
# no stage. Its paths name entries of that state, never files of this machine.
OWN: dict[str, dict[str, Any]] = {
    "ls": {"texts": ["path"]},
    "read_file": {"texts": ["file_path"], "plain": ["offset", "limit"]},
    "write_file": {"texts": ["file_path", "content"], "state": ["files"]},
    "edit_file": {
        "texts": ["file_path", "old_string", "new_string"],
        "plain": ["replace_all"],
        "state": ["files"],
    },
    "task": {
        "texts": ["description"],
        "plain": ["subagent_type"],
        "state": ["files"],
        "interrupts": True,
    },
    "write_todos": {"texts": ["todos[].content"], "plain": ["todos[].status"], "state": ["todos"]},
}


def own(files: FilesystemMiddleware) -> list[BaseTool]:
    return [tool for tool in files.tools if tool.name in OWN]


class Deep:
    """A deep agent of an editor, with one sub-agent that paints and one that publishes.

    Args:
        director: what its model says.
        worker: what the sub-agent's model says.
    """

    def __init__(self, studio: Studio, director: Scripted, worker: Scripted | None = None) -> None:
        guard = studio.guard
        self.studio = studio
        files: Any = FilesystemMiddleware(
            backend=StateBackend(), tools=["ls", "read_file", "write_file", "edit_file"]
        )
        team = SubAgentMiddleware(
            backend=StateBackend(),
            subagents=[
                {
                    "name": name,
                    "description": name,
                    "system_prompt": name,
                    "model": worker or saying(),
                    "tools": guard.tools([studio.tools[tool]]),
                    "middleware": [files, GuardMiddleware(guard, agent=name)],
                }
                for name, tool in (("painter", "paint"), ("publisher", "publish"))
            ],
        )
        self.agent = create_deep_agent(
            director,
            guard.tools([studio.tools["crop"]]),
            middleware=[files, team, GuardMiddleware(guard, agent="editor")],
            checkpointer=InMemorySaver(),
        )
        for tool in (*own(files), *team.tools):  # only now is `task` the one that the agent holds
            guard.bind(Binding(tool, stage=None, **OWN[tool.name]))


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Any:
    async def go(agent: Any, given: Any, config: Any) -> Any:
        if request.param == "async":
            return await agent.ainvoke(given, config)
        return agent.invoke(given, config)

    return go


async def test_a_guarded_tool_and_the_agents_own_files(studio: Studio, run: Any) -> None:
    director = saying()
    deep = Deep(studio, director)
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        say(
            director,
            says(call("write_file", {"file_path": "/plan.md", "content": "1. crop\n2. rest"})),
            says(call("crop", {"source": asset, "width": 4, "height": 4})),
            says(call("read_file", {"file_path": "/plan.md"})),
        )
        state = await run(deep.agent, GO, job.config(thread_id="t"))
    wrote, cropped, read = results(state)
    assert state["files"]["/plan.md"]["content"] == "1. crop\n2. rest"
    assert wrote.status == "success"
    assert "asset-" in cropped.content
    assert "2. rest" in read.content
    assert studio.world.count("crop") == 1
    assert studio.grants() == ["executed"] * 3  # own tools leave records, too


async def test_a_sub_agent_acts_as_an_agent_of_its_own(studio: Studio, run: Any) -> None:
    task = call("task", {"description": "Paint the sea.", "subagent_type": "painter"})
    deep = Deep(
        studio,
        saying(says(task)),
        saying(
            says(call("paint", PAINT)),
            says(call("write_file", {"file_path": "/notes.md", "content": "navy"})),
        ),
    )
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        state = await run(deep.agent, GO, job.config(thread_id="t"))
    assert studio.world.count("paint") == 1
    assert results(state)[-1].content == "done"
    assert state["files"]["/notes.md"]["content"] == "navy"  # declared, so it comes back
    rows = studio.guard.ledger.all("SELECT agent, tool FROM requests")
    assert {(r["agent"], r["tool"]) for r in rows} == {
        ("editor", "task"), ("painter", "paint"), ("painter", "write_file")}  # fmt: skip


async def test_a_question_inside_a_sub_agent_reaches_the_top_and_its_answer_goes_down(
    studio: Studio, run: Any
) -> None:
    director, worker = saying(), saying()
    deep = Deep(studio, director, worker)
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["likeness"])
        task = call("task", {"description": f"Publish {asset}", "subagent_type": "publisher"})
        say(director, says(task))
        say(worker, says(call("publish", {"source": asset, "to": "team"})))
        config = job.config(thread_id="t")
        state = await run(deep.agent, GO, config)
        assert state["__interrupt__"]
        assert studio.grants() == ["issued"]  # of `task`, which paused and did not fail
        assert studio.world.count("publish") == 0
        state = await run(deep.agent, Command(resume={"decisions": [{"type": "approve"}]}), config)
        assert studio.world.count("publish") == 0  # a resume value approves nothing
        assert state["__interrupt__"]
        studio.answer(studio.pending().request, OMAR)
        state = await run(deep.agent, None, config)
    assert studio.world.count("publish") == 1
    assert results(state)[-1].content == "done"
    assert sorted(studio.grants()) == ["executed", "executed"]


async def test_S17_a_sub_agent_does_not_reach_another_stage(studio: Studio) -> None:
    """The publisher's tool, called by the painter's model: it is not in its hands."""
    director, worker = saying(), saying()
    deep = Deep(studio, director, worker)
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        say(director, says(call("task", {"description": "Paint.", "subagent_type": "painter"})))
        say(worker, says(call("publish", {"source": asset, "to": "team"})))
        await deep.agent.ainvoke(GO, job.config(thread_id="t"))
    assert studio.world.count("publish") == 0


def test_its_own_tools_are_refused_until_they_are_bound(studio: Studio) -> None:
    agent: Any = create_deep_agent(
        saying(),
        studio.guard.tools([studio.tools["crop"]]),
        middleware=[GuardMiddleware(studio.guard, agent="editor")],
    )
    with (
        studio.guard.open_job("poster", requested_by=KIM) as job,
        pytest.raises(BindingError, match=r"edit_file, .*, write_file are not bound; .*stage=None"),
    ):
        agent.invoke(GO, job.config(thread_id="t"))


def test_a_tool_left_out_by_name_is_refused_if_it_is_called_all_the_same(studio: Studio) -> None:
    deep = Deep(studio, saying(says(call("execute", {"command": "curl http://evil.example"}))))
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        state = deep.agent.invoke(GO, job.config(thread_id="t"))
    (answer,) = results(state)
    assert answer.status == "error"
    assert "no tool execute" in answer.content
    assert studio.grants() == []


def test_a_secret_is_not_written_into_its_files(studio: Studio) -> None:
    secret = "sk-proj-" + "a1B2" * 12
    one = call("write_file", {"file_path": "/k.md", "content": f"key {secret}"})
    deep = Deep(studio, saying(says(one)))
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        state = deep.agent.invoke(GO, job.config(thread_id="t"))
    assert "holds a secret" in results(state)[-1].content
    assert not state.get("files")


def test_I5_a_sub_agent_with_unguarded_tools_is_refused(studio: Studio) -> None:
    """Upstream's general-purpose sub-agent takes the tools along and leaves the guard behind."""
    agent: Any = create_deep_agent(
        saying(says(call("task", {"description": "x", "subagent_type": "general-purpose"}))),
        [studio.tools["publish"]],
        middleware=[GuardMiddleware(studio.guard, agent="publisher")],
    )
    node = agent.builder.nodes["tools"].runnable
    for tool in node.tools_by_name.values():
        if tool.name in OWN:
            studio.guard.bind(Binding(tool, stage=None, **OWN[tool.name]))
    task = node.tools_by_name["task"]
    with pytest.raises(BindingError, match=r"general-purpose → .*publish.*GuardMiddleware"):
        studio.guard.tools([task])


@pytest.mark.parametrize("guarded", [True, False])
def test_I5_a_compiled_sub_agent_is_looked_into(studio: Studio, guarded: bool) -> None:
    publish = studio.tools["publish"]
    middleware = [GuardMiddleware(studio.guard, agent="publisher")] if guarded else []
    inner: Any = create_agent(saying(), [publish], middleware=middleware)
    outer = StateGraph(State).add_node("inner", inner).add_edge(START, "inner").compile()
    runnable = RunnableLambda(lambda state: state) | outer.with_retry()
    team = SubAgentMiddleware(
        backend=StateBackend(),
        subagents=[{"name": "outer", "description": "o", "runnable": runnable}],
    )
    (task,) = team.tools
    studio.guard.bind(Binding(task, stage=None, **OWN["task"]))
    if guarded:
        studio.guard.tools([task])
    else:
        with pytest.raises(BindingError, match="publish"):
            studio.guard.tools([task])


def test_copies_of_tools_made_at_each_turn_do_not_pile_up(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upstream's file tools are described anew for each model call: new objects, the same tool."""
    guard = GuardMiddleware(studio.guard, agent="painter")
    paint = studio.tools["paint"]
    monkeypatch.setattr("agentguard.langgraph.middleware._MOST_COPIES", 8)
    for turn in range(20):
        (shown,) = guard._shown([paint.model_copy(update={"description": f"Turn {turn}."})])
    assert shown.description == "Turn 19."
    assert len(guard._copies) == 8


@pytest.mark.parametrize("guarded", [True, False])
def test_an_agent_as_a_subgraph_must_be_guarded(studio: Studio, guarded: bool) -> None:
    middleware = [GuardMiddleware(studio.guard, agent="painter")] if guarded else []
    inner: Any = create_agent(saying(says(call("paint", PAINT))), [studio.tools["paint"]],
                         middleware=middleware)  # fmt: skip
    builder = StateGraph(State).add_node("inner", inner).add_edge(START, "inner")
    if not guarded:
        with pytest.raises(BindingError, match=r"inner → .*node tools → ToolNode .*\(paint\)"):
            protect(builder, studio.guard, agents={})
        return
    graph = protect(builder, studio.guard, agents={}).compile(checkpointer=InMemorySaver())
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        state = graph.invoke(GO, job.config(thread_id="t"))
    assert results(state)[-1].status == "success"
    assert studio.world.count("paint") == 1


def test_plans_are_bound_as_notes(studio: Studio) -> None:
    plan = TodoListMiddleware()
    (tool,) = plan.tools
    studio.guard.bind(Binding(tool, stage=None, **OWN[tool.name]))
    todos = [{"content": "crop it", "status": "pending"}]
    agent: Any = create_agent(
        saying(says(call("write_todos", {"todos": todos}))),
        [],
        middleware=[plan, GuardMiddleware(studio.guard, agent="editor")],
    )
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        state = agent.invoke(GO, job.config(thread_id="t"))
    assert state["todos"] == todos
    assert isinstance(results(state)[-1], ToolMessage)
    assert results(state)[-1].status == "success"
