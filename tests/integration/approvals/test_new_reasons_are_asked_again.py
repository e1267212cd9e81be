"""An approval covers the reasons that its question showed; what comes up later is asked again (I7).

Each attack has a person approve an export, and then lets something come up that the question did
not show. Nothing may be sent before somebody approves the new question.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command

from agentguard.errors import ApprovalError
from agentguard.jobs.job import Job
from agentguard.langgraph import GuardMiddleware, protect
from agentguard.langgraph.waiting import is_asking
from agentguard.model import Verdict
from agentguard.people.approvals import Approval
from tests.support import (
    CONFIG,
    GO,
    INES,
    LEE,
    OMAR,
    State,
    Studio,
    build,
    call,
    open_studio,
    results,
    says,
    tool_loop,
)
from tests.support.bindings import Arg, Binding
from tests.support.chat_models import Scripted, dangling

NODES = {"r": ("reviewer", ["look", "strict"]), "q": ("traffic", ["queue_for_release"]),
         "e": ("publisher", ["publish", "export_asset"])}  # fmt: skip


@dataclass
class Desk:
    """A studio with a stricter review tool, one job, and a model that notes dangling calls."""

    studio: Studio
    job: Job
    picture: str

    def run(self, *script: AIMessage, thread: str = "other") -> dict[str, Any]:
        """A graph of the same job, on another thread, to the end of its script."""
        graph = self.graph(script)
        state: dict[str, Any] = graph.invoke(
            {"messages": [("user", "go")]}, self.job.config(thread_id=thread)
        )
        return state

    def graph(self, script: Any) -> Any:
        return build(self.studio, list(script), NODES)

    def find(self, message: str = "a competitor's logo is in the picture") -> None:
        """A review in another thread of the job finds an error."""
        self.studio.world.effects.append(("finding", message))
        number = len(self.studio.world.effects)
        state = self.run(says(call("strict", {"source": self.picture})), thread=f"review-{number}")
        assert results(state)[-1].status == "success", results(state)[-1].content

    def published(self) -> int:
        return self.studio.world.count("publish")

    def yes(self, request: str, person: str = OMAR) -> Approval:
        return self.studio.answer(request, person)


def find_at_the_claim(desk: Desk, monkeypatch: pytest.MonkeyPatch, of: str | None = None) -> None:
    """Have a review find an error right before the next claim, or the one of the call `of`."""
    claims = desk.studio.guard.enforcement.claims
    claim = claims.claim

    def late(call_: Any, **given: Any) -> Any:
        if of in (None, call_.call_id):
            monkeypatch.setattr(claims, "claim", claim)
            desk.find()
        return claim(call_, **given)

    monkeypatch.setattr(claims, "claim", late)


@contextlib.contextmanager
def open_desk(tmp_path: Path, *bindings: Binding) -> Iterator[Desk]:
    studio = open_studio(tmp_path, config=CONFIG + '\n[lifetimes]\nlease = "10m"\n')

    @tool(response_format="content_and_artifact")
    def strict(source: str) -> tuple[str, dict[str, Any]]:
        """Review a picture strictly."""
        found = {"severity": "error", "message": "a competitor's logo is in the picture"}
        return "bad", {"findings": [found]}

    studio.bind(strict, stage="review", assets=["source"])
    studio.guard.bind(*bindings)
    studio.tools |= {one.tool.name: one.tool for one in bindings}
    with studio.guard, studio.guard.open_job("campaign", requested_by=LEE) as job:
        yield Desk(studio, job, job.import_asset(studio.picture(), ["brand"]))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path) as desk:
        yield desk


@pytest.fixture
def desk_on_each_database(
    tmp_path: Path, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    monkeypatch.setenv("AGENTGUARD_LEDGER", ledger_url)
    with open_desk(tmp_path) as desk:
        yield desk


def ready(desk: Desk, *, reviewed: bool = True) -> None:
    """The picture is queued for the site and, if asked for, has a clean review."""
    look = [says(call("look", {"source": desk.picture}))] if reviewed else []
    queue = says(call("queue_for_release", {"asset": desk.picture, "to": "site"}))
    state = desk.run(*look, queue, thread="before")
    assert all(one.status == "success" for one in results(state))


def asked_graph(desk: Desk, tool_name: str = "publish") -> tuple[Any, RunnableConfig, Any]:
    """A graph that waits for people; returns it, its config and what it said."""
    export = {"source": desk.picture, "to": "site"}
    if tool_name == "export_asset":
        export = {"asset": desk.picture, "to": "site"}
    graph = desk.graph([says(call(tool_name, export, id="export"), id="m")])
    config = desk.job.config(thread_id="t")
    state = graph.invoke(GO, config)
    assert "__interrupt__" in state
    return graph, config, state


WAKES: dict[str, Callable[[Any, Any], Any]] = {
    "invoke(None)": lambda graph, config: graph.invoke(None, config),
    "Command(resume)": lambda graph, config: graph.invoke(Command(resume=True), config),
    "stream": lambda graph, config: list(graph.stream(Command(resume="approve"), config))[-1],
    "ainvoke": lambda graph, config: asyncio.run(graph.ainvoke(Command(resume=True), config)),
}


@pytest.mark.parametrize("wake", WAKES.values(), ids=WAKES)
@pytest.mark.parametrize("tool_name", ["publish", "export_asset"])
def test_a_finding_after_the_approval_is_asked_again(
    desk: Desk, tool_name: str, wake: Callable[[Any, Any], Any]
) -> None:
    ready(desk)
    graph, config, _ = asked_graph(desk, tool_name)
    old = desk.studio.pending()
    assert desk.yes(old.request).state == "approved"
    desk.find()
    state = wake(graph, config)
    assert (desk.published(), desk.studio.exported()) == (0, [])
    assert "__interrupt__" in state
    new = desk.studio.pending()
    assert new.request != old.request
    assert new.reason.startswith("new since people were asked: ")
    assert "has no clean review" in new.reason.split("asked before: ")[0]
    assert {reason.policy for reason in new.reasons} == {
        "export.reviewed", "export.provenance", "export.sensitive",
    }  # fmt: skip
    shown = state["__interrupt__"][0].value
    assert shown["agentguard"]["request"] == new.request
    assert "new since people were asked" in shown["description"]
    # The old question is closed for good, and what was signed for it counts for nothing.
    assert desk.studio.guard.approvals.show(old.request).state == "revoked"
    with pytest.raises(ApprovalError, match="asked anew"):
        desk.yes(old.request, INES)
    assert "__interrupt__" in wake(graph, config)
    assert (desk.published(), desk.studio.exported()) == (0, [])
    desk.yes(new.request)  # whoever said yes before may say it again, now knowing
    wake(graph, config)
    final = graph.get_state(config).values
    assert [one.status for one in results(final)] == ["success"]
    assert desk.published() + len(desk.studio.exported()) == 1
    assert dangling(final["messages"]) == []


def test_asking_anew_is_recorded_on_each_database(desk_on_each_database: Desk) -> None:
    desk = desk_on_each_database
    ready(desk)
    graph, config, _ = asked_graph(desk)
    old = desk.yes(desk.studio.pending().request)
    desk.find()
    assert "__interrupt__" in graph.invoke(Command(resume=True), config)
    new = desk.studio.pending()
    old = desk.studio.guard.approvals.show(old.request)
    assert (old.state, old.replaced_by) == ("revoked", new.request)
    assert [one.person for one in old.answers] == [OMAR]
    assert new.answers == ()
    desk.yes(new.request)
    graph.invoke(Command(resume=True), config)
    assert desk.published() == 1
    desk.studio.guard.verify()


def test_a_finding_where_nothing_was_reviewed_is_a_new_reason(desk: Desk) -> None:
    """Both are `export.reviewed`, but the person did not know of the finding."""
    ready(desk, reviewed=False)
    graph, config, _ = asked_graph(desk)
    desk.yes(desk.studio.pending().request)
    desk.find()
    assert "__interrupt__" in graph.invoke(Command(resume=True), config)
    assert desk.published() == 0
    assert desk.studio.pending().reason.startswith("new since people were asked: ")


def test_a_second_finding_is_a_new_reason(desk: Desk) -> None:
    ready(desk, reviewed=False)
    desk.find()
    graph, config, _ = asked_graph(desk)
    desk.yes(desk.studio.pending().request)
    desk.find("and a face")
    assert "__interrupt__" in graph.invoke(Command(resume=True), config)
    assert desk.published() == 0


def test_a_clean_review_more_is_no_new_reason(desk: Desk) -> None:
    """A reason that is gone leaves a subset of what was approved."""
    ready(desk, reviewed=False)
    graph, config, _ = asked_graph(desk)
    assert desk.yes(desk.studio.pending().request).state == "approved"
    desk.run(says(call("look", {"source": desk.picture})))
    state = graph.invoke(Command(resume=True), config)
    assert [one.status for one in results(state)] == ["success"]
    assert desk.published() == 1


def test_a_finding_before_anybody_answered_is_shown_before_they_do(desk: Desk) -> None:
    ready(desk)
    graph, config, _ = asked_graph(desk)
    old = desk.studio.pending().request
    desk.find()
    graph.invoke(Command(resume=True), config)
    assert desk.studio.guard.approvals.show(old).state == "superseded"
    with pytest.raises(ApprovalError, match="asked anew"):
        desk.yes(old)
    desk.yes(desk.studio.pending().request)
    graph.invoke(Command(resume=True), config)
    assert desk.published() == 1


def test_an_approval_given_after_the_finding_on_the_old_question_does_not_cover_it(
    desk: Desk,
) -> None:
    ready(desk)
    graph, config, _ = asked_graph(desk)
    desk.find()
    desk.yes(desk.studio.pending().request)  # it still shows what it showed
    assert "__interrupt__" in graph.invoke(Command(resume=True), config)
    assert desk.published() == 0


def test_a_reason_between_the_first_and_the_second_approval(tmp_path: Path, desk: Desk) -> None:
    picture = desk.job.import_asset(desk.studio.picture("r.png", "red"), ["regulated"])
    desk.picture = picture
    ready(desk)
    graph, config, _ = asked_graph(desk)
    old = desk.studio.pending().request
    assert desk.studio.answer(old, OMAR, group="legal").state == "pending"
    desk.find()
    assert desk.yes(old, INES).state == "approved"
    assert "__interrupt__" in graph.invoke(Command(resume=True), config)
    assert desk.published() == 0
    new = desk.studio.pending()
    assert new.needs.approvals == 2
    assert new.answers == ()
    desk.studio.answer(new.request, OMAR, group="legal")
    assert "__interrupt__" in graph.invoke(Command(resume=True), config)
    desk.yes(new.request, INES)
    graph.invoke(Command(resume=True), config)
    assert desk.published() == 1


def test_a_no_to_the_old_question_is_never_asked_anew(desk: Desk) -> None:
    ready(desk)
    graph, config, _ = asked_graph(desk)
    desk.studio.answer(desk.studio.pending().request, OMAR, Verdict.DENY)
    desk.find()
    state = graph.invoke(Command(resume=True), config)
    assert "a person said no" in results(state)[-1].content
    assert desk.studio.guard.approvals.list() == ()
    assert desk.published() == 0


def test_a_question_whose_window_closed_is_never_asked_anew(desk: Desk) -> None:
    ready(desk)
    graph, config, _ = asked_graph(desk)
    desk.yes(desk.studio.pending().request)
    desk.find()
    for _ in range(25 * 3600 // 500):
        desk.studio.clock.turn(seconds=500)
        desk.job.renew()
    graph.invoke(Command(resume=True), config)
    assert desk.published() == 0
    assert desk.studio.guard.approvals.list() == ()


def test_each_new_reason_asks_anew(desk: Desk) -> None:
    ready(desk)
    graph, config, _ = asked_graph(desk)
    asked = [desk.studio.pending().request]
    for _ in range(3):
        desk.yes(asked[-1])
        desk.find()
        assert "__interrupt__" in graph.invoke(Command(resume=True), config)
        asked.append(desk.studio.pending().request)
    assert len(set(asked)) == 4
    assert desk.published() == 0
    desk.yes(asked[-1])
    graph.invoke(Command(resume=True), config)
    assert desk.published() == 1
    for old in asked[:-1]:
        with pytest.raises(ApprovalError, match="asked anew"):
            desk.yes(old, INES)


def test_signature_for_the_old_question_is_none_for_the_new_one(desk: Desk) -> None:
    ready(desk)
    graph, config, _ = asked_graph(desk)
    old = desk.yes(desk.studio.pending().request)
    desk.find()
    graph.invoke(Command(resume=True), config)
    new = desk.studio.pending()
    with pytest.raises(ApprovalError, match="is not what key"):
        desk.studio.guard.approvals.answer(replace(old.answers[0], request=new.request))
    graph.invoke(Command(resume=True), config)
    assert desk.published() == 0


def test_a_finding_between_the_wake_and_the_claim_is_asked_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait said yes; the claim decides, and puts the question anew."""
    ready(desk)
    graph, config, _ = asked_graph(desk)
    old = desk.studio.pending().request
    desk.yes(old)
    find_at_the_claim(desk, monkeypatch)
    state = graph.invoke(Command(resume=True), config)
    assert desk.published() == 0
    new = desk.studio.pending()
    assert state["__interrupt__"][0].value["agentguard"]["request"] == new.request != old
    assert new.reason.startswith("new since people were asked: ")
    desk.yes(new.request)
    state = graph.invoke(Command(resume=True), config)
    assert [one.status for one in results(state)] == ["success"]
    assert desk.published() == 1
    assert dangling(state["messages"]) == []


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_call_beside_one_that_is_asked_again_runs_once(desk: Desk, mode: str) -> None:
    ready(desk)
    queue = says(call("queue_for_release", {"asset": desk.picture, "to": "team"}))
    desk.run(queue, thread="team")
    other = desk.job.import_asset(desk.studio.picture("o.png", "olive"), ["likeness"])
    calls = (
        call("publish", {"source": other, "to": "team"}, id="other"),
        call("publish", {"source": desk.picture, "to": "site"}, id="export"),
    )
    graph = desk.graph([says(*calls, id="m")])
    config = desk.job.config(thread_id="t")

    def invoke(given: Any) -> Any:
        if mode == "async":
            return asyncio.run(graph.ainvoke(given, config))
        return graph.invoke(given, config)

    assert len(invoke({"messages": [("user", "go")]})["__interrupt__"]) == 1
    for one in desk.studio.guard.approvals.list():
        desk.yes(one.request)
    desk.find()
    state = invoke(Command(resume=True))
    assert len(state["__interrupt__"]) == 1
    assert desk.published() == 1
    new = desk.studio.pending()
    assert state["__interrupt__"][0].value["agentguard"]["request"] == new.request
    desk.yes(new.request)
    state = invoke(Command(resume=True))
    assert [one.tool_call_id for one in results(state)] == ["other", "export"]
    assert [one.status for one in results(state)] == ["success", "success"]
    assert desk.published() == 2


def test_body_of_an_approved_call_asks_nobody_in_its_task(tmp_path: Path) -> None:
    """What a body calls has questions of its own; they are not its caller's."""
    asking: list[bool] = []

    @tool
    def share(source: str, to: str) -> str:
        """Share a picture."""
        asking.append(is_asking())
        return "shared"

    binding = Binding(
        share, stage="export", assets=["source"], destination=Arg("to"), effect="opaque"
    )
    with open_desk(tmp_path, binding) as desk:
        face = desk.job.import_asset(desk.studio.picture("f.png", "olive"), ["likeness"])
        script = [says(call("share", {"source": face, "to": "team"}, id="share"), id="m")]
        graph = build(desk.studio, script, {"e": ("publisher", ["share"])})
        config = desk.job.config(thread_id="t")
        assert "__interrupt__" in graph.invoke(GO, config)
        desk.yes(desk.studio.pending().request)
        state = graph.invoke(Command(resume=True), config)
    assert [one.status for one in results(state)] == ["success"]
    assert asking == [False]


def test_late_finding_where_the_task_of_a_call_cannot_ask_refuses(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two asked calls of an agent's message, the first one asks for both and goes on."""
    ready(desk)
    other = desk.job.import_asset(desk.studio.picture("o.png", "olive"), ["likeness"])
    calls = (
        call("publish", {"source": other, "to": "team"}, id="other"),
        call("publish", {"source": desk.picture, "to": "site"}, id="export"),
    )
    agent: Any = create_agent(
        Scripted(messages=iter([says(*calls, id="m"), AIMessage("done", id="end")])),
        [desk.studio.tools["publish"]],
        middleware=[GuardMiddleware(desk.studio.guard, agent="publisher")],
        checkpointer=InMemorySaver(),
    )
    config = desk.job.config(thread_id="t")
    assert len(agent.invoke(GO, config)["__interrupt__"]) == 1
    for one in desk.studio.guard.approvals.list():
        desk.yes(one.request)
    find_at_the_claim(desk, monkeypatch, of="export")
    state = agent.invoke(Command(resume=True), config)
    assert desk.published() == 1
    assert "make the call again" in results(state)[-1].content
    assert desk.studio.guard.approvals.list() == ()
    assert dangling(state["messages"]) == []


def test_a_finding_while_the_copies_are_made_is_seen_by_the_claim(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(desk)
    graph, config, _ = asked_graph(desk)
    old = desk.studio.pending().request
    desk.yes(old)
    claims = desk.studio.guard.enforcement.claims
    prepare = claims._prepared
    found: list[str] = []

    def late(*given: Any) -> Any:
        if not found:
            found.append("now")
            desk.find()
        return prepare(*given)

    monkeypatch.setattr(claims, "_prepared", late)
    state = graph.invoke(Command(resume=True), config)
    assert desk.published() == 0
    new = desk.studio.pending()
    assert state["__interrupt__"][0].value["agentguard"]["request"] == new.request != old


def test_a_replay_of_what_was_done_is_not_asked_again(desk: Desk) -> None:
    ready(desk)
    graph, config, _ = asked_graph(desk)
    before = graph.get_state(config)
    desk.yes(desk.studio.pending().request)
    graph.invoke(Command(resume=True), config)
    assert desk.published() == 1
    desk.find()
    state = graph.invoke(Command(resume=True), before.config)
    assert [one.content for one in results(state)] == ["published"]
    assert desk.published() == 1
    assert desk.studio.guard.approvals.list() == ()


# --- every way in -----------------------------------------------------------------------------


def test_middleware_asks_again(desk: Desk) -> None:
    ready(desk)
    script = [
        says(call("publish", {"source": desk.picture, "to": "site"}, id="export"), id="m"),
        AIMessage("done", id="end"),
    ]
    agent: Any = create_agent(
        Scripted(messages=iter(script)),
        [desk.studio.tools["publish"]],
        middleware=[GuardMiddleware(desk.studio.guard, agent="publisher")],
        checkpointer=InMemorySaver(),
    )
    config = desk.job.config(thread_id="t")
    assert "__interrupt__" in agent.invoke(GO, config)
    old = desk.studio.pending().request
    desk.yes(old)
    desk.find()
    state = agent.invoke(Command(resume={"decisions": [{"type": "approve"}]}), config)
    assert desk.published() == 0
    new = desk.studio.pending().request
    assert state["__interrupt__"][0].value["agentguard"]["request"] == new != old
    assert "__interrupt__" in agent.invoke(Command(resume=True), config)
    desk.yes(new)
    state = agent.invoke(Command(resume=True), config)
    assert [one.status for one in results(state)] == ["success"]
    assert desk.published() == 1
    assert dangling(state["messages"]) == []


def test_wrapper_that_retries_asks_again_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def retry(request: Any, execute: Any) -> Any:
        answer = execute(request)
        return execute(request) if answer.status == "error" else answer

    ready(desk)
    once = [says(call("publish", {"source": desk.picture, "to": "site"}, id="export"), id="m")]
    node = ToolNode([desk.studio.tools["publish"]], wrap_tool_call=retry)
    builder = tool_loop([*once, AIMessage("done", id="end")], node)
    agents = {"tools": "publisher"}
    graph = protect(builder, desk.studio.guard, agents=agents).compile(InMemorySaver())
    config = desk.job.config(thread_id="t")
    graph.invoke(GO, config)
    desk.yes(desk.studio.pending().request)
    find_at_the_claim(desk, monkeypatch)
    asked = graph.invoke(Command(resume=True), config)["__interrupt__"][0].value
    assert len(asked["action_requests"]) == 1
    assert asked["agentguard"]["request"] == desk.studio.pending().request
    desk.yes(desk.studio.pending().request)
    graph.invoke(Command(resume=True), config)
    assert desk.published() == 1


def test_inline_tools_ask_again(desk: Desk) -> None:
    ready(desk)
    (publish,) = desk.studio.guard.tools(
        [desk.studio.tools["publish"]], agent="publisher", gate="inline"
    )
    builder = StateGraph(State)
    export = says(call("publish", {"source": desk.picture, "to": "site"}, id="export"), id="m")
    builder.add_node("model", lambda state: {"messages": [export]})
    builder.add_node("tools", lambda state, config: {
        "messages": [publish.invoke({**state["messages"][-1].tool_calls[0], "type": "tool_call"},
                                    config)]})  # fmt: skip
    builder.add_edge(START, "model")
    builder.add_edge("model", "tools")
    graph = builder.compile(checkpointer=InMemorySaver())
    config = desk.job.config(thread_id="t")
    assert "__interrupt__" in graph.invoke(GO, config)
    desk.yes(desk.studio.pending().request)
    desk.find()
    assert "__interrupt__" in graph.invoke(Command(resume=True), config)
    assert desk.published() == 0
    desk.yes(desk.studio.pending().request)
    state = graph.invoke(Command(resume=True), config)
    assert [one.status for one in results(state)] == ["success"]
    assert desk.published() == 1


@pytest.mark.parametrize("swallows", [False, True])
def test_function_nodes_ask_again_what_the_claim_found(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, swallows: bool
) -> None:
    ready(desk)
    (publish,) = desk.studio.guard.tools([desk.studio.tools["publish"]])
    export = says(call("publish", {"source": desk.picture, "to": "site"}, id="export"), id="m")

    def act(state: Any) -> Any:
        try:
            return {"messages": [publish.invoke(state["messages"][-1].tool_calls[0])]}
        except Exception:
            if not swallows:
                raise
            return {"messages": [ToolMessage("failed", tool_call_id="export")]}

    builder = StateGraph(State)
    builder.add_node("model", lambda state: {"messages": [export]})
    builder.add_node("tools", act)
    builder.add_edge(START, "model")
    builder.add_edge("model", "tools")
    graph: Any = protect(builder, desk.studio.guard, agents={"tools": "publisher"})
    graph = graph.compile(checkpointer=InMemorySaver())
    config = desk.job.config(thread_id="t")
    assert "__interrupt__" in graph.invoke(GO, config)
    old = desk.studio.pending().request
    desk.yes(old)
    find_at_the_claim(desk, monkeypatch)
    state = graph.invoke(Command(resume=True), config)
    assert desk.published() == 0
    new = desk.studio.pending().request
    assert state["__interrupt__"][0].value["agentguard"]["request"] == new != old
    desk.yes(new)
    state = graph.invoke(Command(resume=True), config)
    assert [one.status for one in results(state)] == ["success"]
    assert desk.published() == 1


def test_two_calls_of_one_message_are_asked_again_apart(desk: Desk) -> None:
    """Only the call that the new reason is about gets another question."""
    other = desk.job.import_asset(desk.studio.picture("other.png", "red"), ["brand"])
    ready(desk)
    picture, desk.picture = desk.picture, other
    state = desk.run(
        says(call("look", {"source": other})),
        says(call("queue_for_release", {"asset": other, "to": "site"})),
        thread="before2",
    )
    desk.picture = picture
    export = [call("publish", {"source": one, "to": "site"}) for one in (picture, other)]
    graph = desk.graph([says(*export, id="m")])
    config = desk.job.config(thread_id="t")
    state = graph.invoke(GO, config)
    asked = {one.shown["assets"][0]["asset"]: one.request
             for one in desk.studio.guard.approvals.list()}  # fmt: skip
    for request in asked.values():
        desk.yes(request)
    desk.find()
    interrupts = {one.id: True for one in state["__interrupt__"]}
    state = graph.invoke(Command(resume=interrupts), config)
    assert desk.published() == 1
    new = desk.studio.pending()
    assert new.shown["assets"][0]["asset"] == picture
    assert new.request != asked[picture]
    desk.yes(new.request)
    graph.invoke(Command(resume=True), config)
    assert desk.published() == 2


# --- configuration, policies and media that change ----------------------------------------------


def waiting(
    folder: Path, config: str = CONFIG, labels: tuple[str, ...] = ("brand",)
) -> tuple[Studio, str, str, InMemorySaver]:
    """A job that waits with an approved export to the site, its guard closed."""
    studio = open_studio(folder, config=config)
    saver = InMemorySaver()
    with studio.guard.open_job("campaign", requested_by=LEE) as job:
        picture = job.import_asset(studio.picture(), labels)
        graph = build(studio, release(picture), NODES_2, checkpointer=saver)
        graph.invoke(GO, job.config(thread_id="t"))
        studio.answer(studio.pending().request, OMAR)
    return studio, job.id, picture, saver


NODES_2 = {"r": ("reviewer", ["look"]), "q": ("traffic", ["queue_for_release"]),
           "e": ("publisher", ["publish"])}  # fmt: skip


def release(picture: str) -> list[AIMessage]:
    return [
        says(call("look", {"source": picture}, id="c1"), id="m1"),
        says(call("queue_for_release", {"asset": picture, "to": "site"}, id="c2"), id="m2"),
        says(call("publish", {"source": picture, "to": "site"}, id="c3"), id="m3"),
    ]


def reopened(studio: Studio, config: str) -> Studio:
    studio.guard.close()
    (studio.folder / "agentguard.toml").write_text(config, "utf-8")
    return open_studio(studio.folder, clock=studio.clock, keys=studio.keys, config=config)


def resumed(studio: Studio, job: str, picture: str, saver: InMemorySaver) -> dict[str, Any]:
    with studio.guard.rejoin_job(job, by=LEE) as held:
        graph = build(studio, release(picture), NODES_2, checkpointer=saver)
        state: dict[str, Any] = graph.invoke(None, held.config(thread_id="t"))
    return state


LIKENESS = """
@id("acme.logo")
@advice("{asset} shows the logo of another brand")
forbid (principal, action in Action::"stage:export", resource)
when { resource.labels.contains("LABEL") } unless { context.approvals >= 1 };
"""


def with_policy(folder: Path, label: str, text: str = LIKENESS) -> str:
    (folder / "own.cedar").write_text(text.replace("LABEL", label), "utf-8")
    return 'policies = ["own.cedar"]\n' + CONFIG


def test_a_policy_added_after_the_approval_is_asked(tmp_path: Path) -> None:
    first, job, picture, saver = waiting(tmp_path)
    second = reopened(first, with_policy(tmp_path, "brand"))
    with second.guard:
        state = resumed(second, job, picture, saver)
        assert "__interrupt__" in state
        new = second.pending()
        assert "shows the logo of another brand" in new.reason.split("asked before")[0]
        second.answer(new.request, INES)
        resumed(second, job, picture, saver)
        assert second.world.count("publish") == 1


def test_a_policy_that_does_not_apply_asks_nobody_again(tmp_path: Path) -> None:
    first, job, picture, saver = waiting(tmp_path)
    second = reopened(first, with_policy(tmp_path, "likeness"))
    with second.guard:
        resumed(second, job, picture, saver)
        assert second.world.count("publish") == 1


def test_a_policy_rewritten_under_its_id_is_asked(tmp_path: Path) -> None:
    first, job, picture, saver = waiting(tmp_path, with_policy(tmp_path, "brand"))
    other = LIKENESS.replace("logo of another brand", "face of a child")
    second = reopened(first, with_policy(tmp_path, "brand", other))
    with second.guard:
        assert "__interrupt__" in resumed(second, job, picture, saver)
        assert second.world.count("publish") == 0
        assert "face of a child" in second.pending().reason.split("asked before")[0]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('audience = "public"', 'audience = "partner"'),
        ('url = "file:out/site"', 'url = "file:out/elsewhere"'),
    ],
    ids=["audience", "place"],
)
def test_a_changed_destination_is_another_call(tmp_path: Path, old: str, new: str) -> None:
    first, job, picture, saver = waiting(tmp_path)
    second = reopened(first, CONFIG.replace(old, new))
    with second.guard:
        state = resumed(second, job, picture, saver)
        assert second.world.count("publish") == 0
        assert "make a new call" in results(state)[-1].content


def test_a_class_made_stricter_is_asked_again(tmp_path: Path) -> None:
    """`stock` was open, so only its history was asked about; then it counts as sensitive."""
    stock = CONFIG + "\n[classes]\nstock = "
    first, job, picture, saver = waiting(tmp_path, f'{stock}"open"\n', ("stock",))
    assert {reason.policy for reason in first.pending_any().reasons} == {"export.provenance"}
    second = reopened(first, f'{stock}"sensitive"\n')
    with second.guard:
        assert "__interrupt__" in resumed(second, job, picture, saver)
        assert second.world.count("publish") == 0
        assert "is labelled stock" in second.pending().reason.split("asked before")[0]


def test_a_class_raised_after_the_approval_is_another_call(tmp_path: Path) -> None:
    studio, job, picture, saver = waiting(tmp_path)
    with studio.guard:
        studio.guard.import_asset(studio.folder / "in.png", ["likeness"], by=INES)
        state = resumed(studio, job, picture, saver)
        assert studio.world.count("publish") == 0
        assert "make a new call" in results(state)[-1].content


def test_a_hold_after_the_approval_is_no_question(tmp_path: Path) -> None:
    studio, job, picture, saver = waiting(tmp_path)
    with studio.guard:
        row = studio.guard.ledger.one("SELECT sha256 FROM assets WHERE id = ?", picture)
        assert row is not None
        studio.guard.ledger.mark_asset(row["sha256"], column="held", value=True, by=LEE)
        state = resumed(studio, job, picture, saver)
        assert "legal hold" in results(state)[-1].content
        assert studio.world.count("publish") == 0
