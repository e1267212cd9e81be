"""One agent that holds several stages: its credentials, and what it still may not do (S26)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import ToolNode

from agentguard.config.workspace import load
from agentguard.errors import ApprovalError, BindingError, ConfigError
from agentguard.jobs.job import Job
from agentguard.langgraph import GuardMiddleware, protect
from agentguard.langgraph.guarded_tool import guarded
from agentguard.model import Stage
from tests.support import CONFIG, State, Studio, call, open_studio, results, says
from tests.support.bindings import Binding
from tests.support.chat_models import Scripted

KIM, OMAR = "kim@acme.example", "omar@acme.example"
STAGES = '["generate", "edit", "review", "queue", "export"]'
HEAD = CONFIG.partition("[agents]")[0]
PLACES = "\n[destinations.team]" + CONFIG.partition("[destinations.team]")[2]
Way = Callable[[Studio, dict[str, Any], RunnableConfig], ToolMessage]


def combined(stages: str = STAGES, key: str = "unsafe_combined_stages = true") -> str:
    return f'{HEAD}[agents.studio]\nowner = "{KIM}"\nstages = {stages}\n{key}\n{PLACES}'


@pytest.fixture
def solo(tmp_path: Path) -> Any:
    studio = open_studio(tmp_path, config=combined())
    yield studio
    studio.guard.close()


def through_a_graph(studio: Studio, said: dict[str, Any], config: RunnableConfig) -> ToolMessage:
    builder = StateGraph(State)
    builder.add_node("tools", ToolNode(studio.guard.tools(agent="studio")))
    builder.add_edge(START, "tools")
    builder.add_edge("tools", END)
    graph: Any = protect(builder, studio.guard, agents="studio").compile(InMemorySaver())
    return last(graph.invoke({"messages": [says(said)]}, config))


def through_an_agent(studio: Studio, said: dict[str, Any], config: RunnableConfig) -> ToolMessage:
    agent: Any = create_agent(
        Scripted(messages=iter([says(said), AIMessage("done")])),
        studio.guard.tools(),
        middleware=[GuardMiddleware(studio.guard, agent="studio")],
        checkpointer=InMemorySaver(),
    )
    return last(agent.invoke({"messages": [("user", "go")]}, config))


def last(state: dict[str, Any]) -> ToolMessage:
    if "__interrupt__" in state:
        return ToolMessage("asked", tool_call_id="-", status="error")
    return results(state)[-1]


def made_by(message: ToolMessage) -> str:
    (asset,) = set(re.findall("asset-[0-9a-f]{20}", str(message.content)))
    return str(asset)


WAYS = pytest.mark.parametrize("way", [through_a_graph, through_an_agent])


class Calls:
    """Calls in one job, each in a thread of its own."""

    def __init__(self, studio: Studio, job: Job, way: Way) -> None:
        self._studio, self._job, self._way, self._threads = studio, job, way, 0

    def __call__(self, tool: str, **arguments: Any) -> ToolMessage:
        self._threads += 1
        self._studio.clock.turn(seconds=0.001)
        config = self._job.config(thread_id=f"t{self._threads}")
        return self._way(self._studio, call(tool, arguments), config)


def test_S26_several_stages_without_the_key_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "agentguard.toml").write_text(combined(key=""))
    wanted = r"'studio' holds export and generate and review.*unsafe_combined_stages = true"
    with pytest.raises(ConfigError, match=wanted):
        load(tmp_path / "agentguard.toml", {})


def test_S26_the_former_name_of_the_key_is_refused_with_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "agentguard.toml").write_text(combined(key="unsafe_separated_stages = true"))
    with pytest.raises(ConfigError, match="did you mean 'unsafe_combined_stages'"):
        load(tmp_path / "agentguard.toml", {})


def test_S2_no_key_lets_an_agent_approve(tmp_path: Path) -> None:
    (tmp_path / "agentguard.toml").write_text(combined('["edit", "export", "approve"]'))
    with pytest.raises(ConfigError, match='no agent may hold "approve"'):
        load(tmp_path / "agentguard.toml", {})


@WAYS
def test_combined_agent_needs_no_mapping(solo: Studio, way: Way) -> None:
    with solo.guard.open_job("p", requested_by=KIM) as job:
        calls = Calls(solo, job, way)
        logo = job.import_asset(solo.picture(), ["brand"])
        assert calls("crop", source=logo, width=4, height=4).status == "success"
        assert calls("publish", source=logo, to="team").status == "success"
        assert job.held == {("studio", Stage.EDIT), ("studio", Stage.EXPORT)}
    stages = solo.guard.ledger.all("SELECT stage FROM requests ORDER BY decided_at")
    assert [row["stage"] for row in stages] == ["edit", "export"]


@WAYS
def test_S28_combined_agent_skips_no_queue(solo: Studio, way: Way) -> None:
    with solo.guard.open_job("p", requested_by=KIM) as job:
        calls = Calls(solo, job, way)
        logo = job.import_asset(solo.picture(), ["brand"])
        refused = calls("publish", source=logo, to="site")
        assert refused.status == "error"
        assert "not queued for site" in refused.content
    assert solo.world.count("publish") == 0


@WAYS
def test_I1_what_a_combined_agent_made_is_approved_by_others(solo: Studio, way: Way) -> None:
    """Its owner is a contributor, whoever asked for the job; so is who imported the source."""
    with solo.guard.open_job("p", requested_by="lee@acme.example") as job:
        calls = Calls(solo, job, way)
        logo = solo.guard.import_asset(
            solo.picture(), ["brand"], by="ines@acme.example", job=job.id
        )
        cropped = made_by(calls("crop", source=logo, width=4, height=4))
        assert calls("queue_for_release", asset=cropped, to="site").status == "success"
        assert calls("look", source=cropped).status == "success"
        assert calls("publish", source=cropped, to="site").content == "asked"
        question = solo.pending()
        for person in (KIM, "ines@acme.example", "lee@acme.example"):
            with pytest.raises(ApprovalError):
                solo.answer(question.request, person)
        assert solo.world.count("publish") == 0
        assert solo.answer(question.request, OMAR).state == "approved"


@WAYS
@pytest.mark.parametrize("first", ["harsh", "look"])
def test_I2_a_finding_outlives_the_crop_of_a_combined_agent(
    tmp_path: Path, way: Way, first: str
) -> None:
    solo = open_studio(tmp_path, config=combined())
    harsh = solo.tools["look"].model_copy(
        update={"name": "harsh", "func": lambda source: ("bad", FINDINGS)}
    )
    solo.guard.bind(Binding(harsh, stage="review", assets=["source"]))
    with solo.guard, solo.guard.open_job("p", requested_by=KIM) as job:
        calls = Calls(solo, job, way)
        logo = job.import_asset(solo.picture(), ["brand"])
        assert calls(first, source=logo).status == "success"
        cropped = made_by(calls("crop", source=logo, width=4, height=4))
        assert calls("look", source=cropped).status == "success"  # a friendlier review
        assert calls("queue_for_release", asset=cropped, to="site").status == "success"
        assert calls("publish", source=cropped, to="site").content == "asked"
        assert ("export.reviewed" in solo.pending().policies) is (first == "harsh")


FINDINGS = {"findings": [{"severity": "error", "message": "a face"}]}


def test_S17_a_stage_that_a_combined_agent_does_not_list_is_refused(tmp_path: Path) -> None:
    solo = open_studio(tmp_path, config=combined('["generate", "edit", "export"]'))
    with solo.guard:
        names = {tool.name for tool in solo.guard.tools(agent="studio")}
        assert names == {"paint", "crop", "publish", "list_assets", "export_asset"}
        builder = StateGraph(State)
        builder.add_node("tools", ToolNode(solo.guard.tools()))
        builder.add_edge(START, "tools")
        wanted = r"belongs to the (review|queue) stage, which studio"
        with pytest.raises(BindingError, match=wanted):
            protect(builder, solo.guard, agents="studio")
        with pytest.raises(BindingError, match="look belongs to the review stage, which studio"):
            solo.guard.tools(["look"], agent="studio", gate="inline")
        look = guarded(solo.guard.enforcement, solo.tools["look"], agents="studio", inline=True)
        with solo.guard.open_job("p", requested_by=KIM) as job:
            logo = job.import_asset(solo.picture(), ["brand"])
            said = call("look", {"source": logo})
            refused = look.invoke(said, job.config(thread_id="t"))
            assert refused.status == "error"
            assert "belongs to the review stage" in refused.content
    assert solo.world.count("look") == 0


def test_one_name_stands_for_every_tool_node(solo: Studio) -> None:
    builder = StateGraph(State)
    for name in ("edit", "send"):
        builder.add_node(name, ToolNode(solo.guard.tools(agent="studio")))
    builder.add_edge(START, "edit")
    builder.add_edge("edit", "send")
    sealed = protect(builder, solo.guard, agents="studio")
    assert {"edit.execute", "send.execute"} <= set(sealed.nodes)


def test_a_name_without_any_tool_node_is_refused(solo: Studio) -> None:
    builder = StateGraph(State)
    builder.add_node("tools", lambda state: state)
    builder.add_edge(START, "tools")
    with pytest.raises(BindingError, match="no ToolNode"):
        protect(builder, solo.guard, agents="studio")


def test_an_unknown_name_for_every_tool_node_is_refused(solo: Studio) -> None:
    builder = StateGraph(State)
    builder.add_node("tools", ToolNode(solo.guard.tools(agent="studio")))
    builder.add_edge(START, "tools")
    with pytest.raises(BindingError, match="no agent 'editor' is configured; there are studio"):
        protect(builder, solo.guard, agents="editor")
