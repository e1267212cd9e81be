"""One message, one interrupt, whichever of its calls people are asked about."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    ToolRetryMiddleware,
)
from langchain.agents.middleware.human_in_the_loop import HITLRequest
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Send, interrupt
from pydantic import TypeAdapter

from agentguard.langgraph import GuardMiddleware, protect
from agentguard.model import Verdict
from tests.race.ways_in import all_at_once, once
from tests.support import (
    CONFIG,
    GO,
    KIM,
    OMAR,
    State,
    Studio,
    call,
    open_studio,
    results,
    says,
    tool_loop,
    wake,
)
from tests.support.bindings import Binding
from tests.support.chat_models import Scripted, dangling

MIXES = ("a", "aa", "pa", "ad", "pad", "dapp", "aaaaaaaa")
LABELS = {"a": "likeness", "p": "brand", "d": "brand"}


def _invoke(graph: Any, given: Any, config: Any) -> None:
    graph.invoke(given, config)


def _ainvoke(graph: Any, given: Any, config: Any) -> None:
    asyncio.run(graph.ainvoke(given, config))


def _stream(graph: Any, given: Any, config: Any) -> None:
    for _ in graph.stream(given, config):
        pass


RUNS: dict[str, Callable[[Any, Any, Any], None]] = {
    "invoke": _invoke,
    "ainvoke": _ainvoke,
    "stream": _stream,
}
WAKES: dict[str, Callable[[Any], Any]] = {
    "scalar": lambda asked: Command(resume={"decisions": [{"type": "approve"}]}),
    "id": lambda asked: Command(resume={asked.id: True}),
    "none": lambda asked: None,
}


ALL = ("static", "conditional", "sends", "agent", "agent beside others")


def mixed() -> Iterator[tuple[str, str, str, str]]:
    """Every kind of edges with every mix, each run in each way, and woken in each as well.

    Which way of waking goes with which way of running turns from one to the next.
    """
    some = [(edges, mix) for edges in ("static", "conditional") for mix in MIXES]
    some += [(edges, mix) for edges in ALL[2:] for mix in ("aa", "dapp", "aaaaaaaa")]
    wakes = list(WAKES)
    for number, (edges, mix) in enumerate(some):
        for place, run in enumerate(RUNS):
            yield edges, mix, run, wakes[(number + place) % len(wakes)]


class Noting(Scripted):
    """Makes its calls once, and notes which ones dangle whenever it is woken."""

    calls: Any = ()
    wakes: Any = None

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        self.wakes.append(dangling(messages))
        wake(messages)
        said = any(isinstance(message, AIMessage) for message in messages)
        message = AIMessage("done") if said else says(*self.calls, id="m0")
        return ChatResult(generations=[ChatGeneration(message=message)])


@dataclass
class Desk:
    """A job with a picture per call, and a model that notes what dangles at each wake.

    Args:
        calls: what the model's first message calls; their ids say what becomes of each.
    """

    studio: Studio
    job: Any
    calls: list[dict[str, Any]]
    thread: str = "t"
    wakes: list[list[str]] = field(default_factory=list)
    branched: list[int] = field(default_factory=list)

    @property
    def config(self) -> Any:
        return self.job.config(thread_id=self.thread)

    @property
    def asked(self) -> list[str]:
        return [one["id"] for one in self.calls if one["id"][0] == "a"]

    def builder(self, edges: str = "static") -> StateGraph[Any]:
        builder = StateGraph(State)
        builder.add_node("model", watched(self.calls, self.wakes))
        builder.add_node("tools", ToolNode([self.studio.tools["publish"]]))
        builder.add_edge(START, "model")
        if edges == "sends":
            builder.add_conditional_edges(
                "model",
                lambda state: [Send("tools", [one]) for one in state["messages"][-1].tool_calls],
                ["tools", END],
            )
        else:
            builder.add_conditional_edges(
                "model", lambda s: "tools" if s["messages"][-1].tool_calls else END, ["tools", END]
            )
        if edges == "static":
            builder.add_edge("tools", "model")
        else:
            branch = whole(len(self.calls), self.branched)
            builder.add_conditional_edges("tools", branch, ["model", END])
        return builder

    def agent(self, saver: Any, *before: AgentMiddleware) -> Any:
        """An agent of `create_agent`, with other middleware in front of the guard's."""
        model = Noting(messages=iter(()))
        model.calls, model.wakes = self.calls, self.wakes
        return create_agent(
            model,
            self.studio.guard.tools([self.studio.tools["publish"]]),
            middleware=[*before, GuardMiddleware(self.studio.guard, agent="publisher")],
            checkpointer=saver,
        )

    def graph(self, edges: str = "static", saver: Any = None) -> Any:
        saver = saver or InMemorySaver()
        if edges == "agent":
            return self.agent(saver)
        if edges == "agent beside others":
            hitl = HumanInTheLoopMiddleware({"paint": True})
            return self.agent(saver, hitl, ToolRetryMiddleware(max_retries=1, initial_delay=0))
        sealed = protect(self.builder(edges), self.studio.guard, agents={"tools": "publisher"})
        return sealed.compile(checkpointer=saver)

    def question(self, graph: Any) -> Any:
        """The one interrupt, which lists exactly what is still open."""
        (asked,) = graph.get_state(self.config).interrupts
        return asked

    def open(self, asked: Any) -> list[str]:
        """The ids of the calls that an interrupt lists, wherever it lists them."""
        value = asked.value
        names = [one["args"]["source"] for one in value["action_requests"]]
        ids = [one["id"] for one in self.calls for name in names if one["args"]["source"] == name]
        if len(ids) == 1:
            assert value["tool_call_id"] == ids[0]
        else:
            assert [one["tool_call_id"] for one in value["agentguard"]["questions"]] == ids
        assert len(value["review_configs"]) == len(ids)
        return ids

    def answer(self, call_id: str, verdict: Verdict = Verdict.APPROVE) -> None:
        (source,) = [one["args"]["source"] for one in self.calls if one["id"] == call_id]
        (asked,) = [
            one for one in self.studio.guard.approvals.list() if one.arguments["source"] == source
        ]
        self.studio.answer(asked.request, OMAR, verdict)

    @property
    def published(self) -> int:
        return self.studio.world.count("publish")

    def require_done(self, graph: Any, denied: Any = ()) -> None:
        """Each call has its one answer, each effect happened once, the model was woken once."""
        values = graph.get_state(self.config).values
        said = {one.tool_call_id: one.status for one in results(values)}
        assert said == {
            one["id"]: "error" if one["id"][0] == "d" or one["id"] in denied else "success"
            for one in self.calls
        }
        assert len(results(values)) == len(self.calls)
        assert self.published == sum(status == "success" for status in said.values())
        assert graph.get_state(self.config).next == ()
        assert self.wakes == [[], []]
        rows = self.studio.guard.ledger.all("SELECT claims FROM grants WHERE claims > 0")
        assert [row["claims"] for row in rows] == [1] * self.published


def watched(calls: list[dict[str, Any]], wakes: list[list[str]]) -> Any:
    """A model that makes its calls once, and notes which ones dangle whenever it is woken."""

    def model(state: Any) -> dict[str, Any]:
        wake(state["messages"])
        wakes.append(dangling(state["messages"]))
        said = sum(isinstance(m, AIMessage) for m in state["messages"])
        return {"messages": [says(*calls, id="m0") if not said else AIMessage(f"done {said}")]}

    return model


def whole(count: int, branched: list[int]) -> Any:
    """A branch that ends the graph unless it sees all results."""

    def branch(state: Any) -> str:
        branched.append(len(results(state)))
        return "model" if branched[-1] == count else END

    return branch


def open_desk(studio: Studio, job: Any, mix: str) -> Desk:
    calls = []
    for number, kind in enumerate(mix):
        picture = studio.picture(f"{number}.png", size=20 + number)
        asset = job.import_asset(picture, [LABELS[kind]])
        calls.append(call("publish", {"source": asset, "to": "team"}, id=f"{kind}{number}"))
        if kind == "d":
            row = studio.guard.ledger.one("SELECT sha256 FROM assets WHERE id = ?", asset)
            assert row is not None
            studio.guard.ledger.mark_asset(row["sha256"], column="recalled", value=True, by=OMAR)
    return Desk(studio, job, calls)


@pytest.fixture
def desk(studio: Studio) -> Iterator[Callable[[str], Desk]]:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        yield lambda mix: open_desk(studio, job, mix)


@pytest.mark.parametrize(("edges", "mix", "run", "given"), mixed())
def test_one_interrupt_lists_what_is_open(
    desk: Callable[[str], Desk], edges: str, run: str, given: str, mix: str
) -> None:
    """People answer one by one, or two at a time; the first wake brings nothing."""
    at = desk(mix)
    graph = at.graph(edges)
    RUNS[run](graph, GO, at.config)
    RUNS[run](graph, WAKES[given](at.question(graph)), at.config)
    left = at.asked
    while left:
        asked = at.question(graph)
        assert at.open(asked) == left
        assert at.wakes == [[]]
        left, answered = (left[:-2], left[-2:]) if len(left) > 3 else (left[:-1], left[-1:])
        for call_id in answered:
            at.answer(call_id)
        RUNS[run](graph, WAKES[given](asked), at.config)
        assert at.published == mix.count("p") + mix.count("a") - len(left)
    at.require_done(graph)
    assert at.branched == ([len(mix)] if edges in ("conditional", "sends") else [])


def test_a_no_beside_open_questions_is_told_once_and_last(desk: Callable[[str], Desk]) -> None:
    at = desk("aaa")
    graph = at.graph()
    graph.invoke(GO, at.config)
    at.answer("a1", Verdict.DENY)
    for _ in range(3):
        graph.invoke(Command(resume="?"), at.config)
        assert at.open(at.question(graph)) == ["a0", "a2"]
    recorded = at.studio.guard.ledger.all("SELECT body FROM records ORDER BY idx")
    kinds = [json.loads(row["body"])["kind"] for row in recorded]
    assert "refused" not in kinds  # nothing is refused to a model that does not hear it yet
    at.answer("a0")
    at.answer("a2")
    graph.invoke(Command(resume="?"), at.config)
    at.require_done(graph, denied={"a1"})


def test_what_was_done_is_not_asked_again_when_facts_change(desk: Callable[[str], Desk]) -> None:
    """Its Grant is used, so what it needs now is no question any more; its outcome is told."""
    at = desk("aa")
    graph = at.graph()
    graph.invoke(GO, at.config)
    at.answer("a0")
    graph.invoke(None, at.config)
    assert at.published == 1
    signers = at.studio.folder / "agentguard.signers"
    kept = [line for line in signers.read_text().splitlines() if not line.startswith(OMAR)]
    signers.write_text("\n".join(kept) + "\n")  # omar's key was withdrawn
    graph.invoke(None, at.config)
    assert at.open(at.question(graph)) == ["a1"]
    (asked,) = at.studio.guard.approvals.list()
    at.studio.answer(asked.request, "ines@acme.example")
    graph.invoke(None, at.config)
    at.require_done(graph)


@pytest.mark.parametrize("edges", ["static", "sends", "agent"])
def test_another_process_goes_on_with_what_is_left(tmp_path: Path, edges: str) -> None:
    with SqliteSaver.from_conn_string(str(tmp_path / "threads.db")) as saver:
        first = open_studio(tmp_path)
        with first.guard.open_job("poster", requested_by=KIM) as job:
            at = open_desk(first, job, "paa")
            graph = at.graph(edges, saver)
            graph.invoke(GO, at.config)
            at.answer("a2")
            graph.invoke(Command(resume=True), at.config)
        assert at.published == 2
        first.guard.close()
        second = open_studio(tmp_path, clock=first.clock, keys=first.keys)
        with second.guard.rejoin_job(job.id, by=KIM) as job:
            there = Desk(second, job, at.calls)
            graph = there.graph(edges, saver)
            graph.invoke(None, there.config)
            assert there.open(there.question(graph)) == ["a1"]
            there.answer("a1")
            graph.invoke(Command(resume=True), there.config)
        values = graph.get_state(there.config).values
        assert [one.status for one in results(values)] == ["success"] * 3
        assert there.published == 1
        assert there.wakes == [[]]
        second.guard.close()


@pytest.mark.parametrize("edges", ["static", "conditional", "sends", "agent"])
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_concurrent_resumes_do_each_effect_once(
    desk: Callable[[str], Desk], edges: str, mode: str
) -> None:
    at = desk("apaa")
    graph = at.graph(edges)
    graph.invoke(GO, at.config)
    at.answer("a2")
    at.answer("a3")
    all_at_once(mode, [(graph, Command(resume="go"), at.config)] * 4)
    assert at.published == 3
    assert at.open(at.question(graph)) == ["a0"]
    at.answer("a0")
    all_at_once(mode, [(graph, None, at.config)] * 4)
    assert at.published == 4
    rows = at.studio.guard.ledger.all("SELECT claims FROM grants")
    assert [row["claims"] for row in rows] == [1] * 4
    assert all(wake == [] for wake in at.wakes)
    at.studio.guard.verify()


@pytest.mark.parametrize("edges", ALL)
def test_a_message_while_questions_are_open_loses_no_result(
    desk: Callable[[str], Desk], edges: str
) -> None:
    """LangGraph drops the superstep: what ran comes back from the ledger, the rest is over."""
    at = desk("paa")
    graph = at.graph(edges)
    graph.invoke(GO, at.config)
    at.answer("a2")
    graph.invoke(None, at.config)
    assert at.published == 2
    state = graph.invoke({"messages": [("user", "hello?")]}, at.config)
    assert at.wakes == [[], []]
    said = {one.tool_call_id: (one.status, one.content) for one in results(state)}
    assert said["p0"] == said["a2"] == ("success", "published")
    assert said["a1"][0] == "error"
    assert "withdrawn" in said["a1"][1]
    assert at.studio.guard.approvals.list() == ()
    assert at.published == 2


def test_two_toolnodes_of_one_superstep_ask_once(studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        at = open_desk(studio, job, "apaa")
        wakes: list[list[str]] = []
        home = {"a0": "one", "p1": "one", "a2": "two", "a3": "two"}
        builder = StateGraph(State)
        builder.add_node("model", watched(at.calls, wakes))
        builder.add_edge(START, "model")
        builder.add_conditional_edges(
            "model",
            lambda s: [Send(home[c["id"]], [c]) for c in s["messages"][-1].tool_calls],
            ["one", "two"],
        )
        for name in ("one", "two"):
            builder.add_node(name, ToolNode([studio.tools["publish"]]))
            builder.add_edge(name, "model")
        agents = {"one": "publisher", "two": "publisher"}
        graph = protect(builder, studio.guard, agents=agents).compile(InMemorySaver())
        graph.invoke(GO, at.config)
        assert at.open(at.question(graph)) == ["a0", "a2", "a3"]
        at.answer("a2")
        graph.invoke(Command(resume=True), at.config)
        assert at.open(at.question(graph)) == ["a0", "a3"]
        assert at.published == 2
        at.answer("a0")
        at.answer("a3")
        graph.invoke(Command(resume=True), at.config)
        at.wakes = wakes
        at.require_done(graph)


@pytest.mark.parametrize("edges", ["static", "sends", "agent"])
def test_old_checkpoints_repeat_nothing(desk: Callable[[str], Desk], edges: str) -> None:
    at = desk("paa")
    graph = at.graph(edges)
    graph.invoke(GO, at.config)
    paused = graph.get_state(at.config)
    at.answer("a1")
    graph.invoke(None, at.config)
    at.answer("a2")
    graph.invoke(Command(resume=1), at.config)
    at.require_done(graph)
    for old in [paused, *graph.get_state_history(at.config)]:
        if old.next:
            graph.invoke(None, at.job.config(old.config))
    assert at.published == 3
    assert all(wake == [] for wake in at.wakes)


def test_stale_and_unknown_ids_wake_the_task_like_any_value(desk: Callable[[str], Desk]) -> None:
    at = desk("aa")
    graph = at.graph()
    graph.invoke(GO, at.config)
    first = at.question(graph)
    graph.invoke(Command(resume={first.id: 1}), at.config)
    graph.invoke(Command(resume={first.id: 1}), at.config)
    graph.invoke(Command(resume={"0" * 32: 1}), at.config)
    assert at.open(at.question(graph)) == ["a0", "a1"]
    at.answer("a0")
    at.answer("a1")
    graph.invoke(Command(resume={first.id: 1}), at.config)
    at.require_done(graph)


@pytest.mark.parametrize("edges", ["sends", "agent"])
def test_a_resume_outside_of_the_job_asks_once_too(studio: Studio, edges: str) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        at = open_desk(studio, job, "aap")
        graph = at.graph(edges)
        graph.invoke(GO, at.config)
    anyhow = {"configurable": {"thread_id": "t"}}
    at.answer("a1")
    for _ in range(2):
        (asked,) = graph.invoke(Command(resume=1), anyhow)["__interrupt__"]
        assert at.open(asked) == ["a0", "a1"]
        assert asked.value["description"].count(f'guard.rejoin_job("{job.id}"') == 2
    assert at.published == 1
    at.answer("a0")
    with studio.guard.rejoin_job(job.id, by=KIM) as job:
        at.job = job
        graph.invoke(None, at.config)
    at.require_done(graph)


def test_the_interrupt_of_several_questions_is_in_the_stock_schemas(
    desk: Callable[[str], Desk],
) -> None:
    at = desk("aa")
    graph = at.graph()
    graph.invoke(GO, at.config)
    value = at.question(graph).value
    TypeAdapter(HITLRequest).validate_python(value)
    json.dumps(value)
    assert value["type"] == "tool_approval"
    assert value["description"].startswith("2 calls wait")
    pending = {one.request for one in at.studio.guard.approvals.list()}
    assert {one["request"] for one in value["agentguard"]["questions"]} == pending
    for action, number in zip(value["action_requests"], "12", strict=True):
        assert f"{number}. {action['description']}" in value["description"]
    graph.invoke(Command(resume=True), at.config)
    assert at.question(graph).value["description"].count("Still waiting") == 1


@pytest.fixture
def edits_asked(tmp_path: Path) -> Iterator[Studio]:
    """A studio whose policy asks about every edit."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "x.cedar").write_text(
        '@id("acme.edit-asks") @advice("edits are looked at")\n'
        'forbid (principal, action in Action::"stage:edit", resource)'
        " unless { context.approvals >= 1 };"
    )
    studio = open_studio(tmp_path)
    yield studio
    studio.guard.close()


def test_a_failure_is_told_and_not_tried_again_at_each_wake(edits_asked: Studio) -> None:
    tried: list[str] = []

    @tool
    def smear(source: str) -> str:
        """Smear a picture."""
        tried.append(source)
        raise ValueError("no brush")

    edits_asked.guard.bind(Binding(smear, stage="edit", assets=["source"]))
    with edits_asked.guard.open_job("poster", requested_by=KIM) as job:
        assets = [
            job.import_asset(edits_asked.picture(f"{n}.png", size=20 + n), ["brand"])
            for n in range(2)
        ]
        calls = [call("smear", {"source": a}, id=f"a{n}") for n, a in enumerate(assets)]
        at = Desk(edits_asked, job, calls)
        builder = at.builder()
        node: Any = builder.nodes["tools"].runnable
        node.tools_by_name.clear()
        node.tools_by_name["smear"] = smear
        graph = protect(builder, edits_asked.guard, agents={"tools": "editor"}).compile(
            InMemorySaver()
        )
        graph.invoke(GO, at.config)
        at.answer("a0")
        for _ in range(3):
            graph.invoke(Command(resume=1), at.config)
            assert len(tried) == 1
        at.answer("a1")
        state = graph.invoke(Command(resume=1), at.config)
    assert [one.content for one in results(state)] == ["smear failed: ValueError"] * 2
    assert len(tried) == 2
    assert at.wakes == [[], []]


def test_what_cannot_be_replayed_in_full_is_held_to_the_end(edits_asked: Studio) -> None:
    """A state key that is no JSON data is not in the ledger, so its call runs with the last."""
    done: list[str] = []

    class Noting(State):
        note: Any

    @tool
    def note(source: str, tool_call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
        """Note something about a picture."""
        done.append(source)
        said = ToolMessage("noted", tool_call_id=tool_call_id)
        return Command(update={"note": ("a", 1.5), "messages": [said]})

    edits_asked.guard.bind(Binding(note, stage="edit", assets=["source"], state=["note"]))
    with edits_asked.guard.open_job("poster", requested_by=KIM) as job:
        assets = [
            job.import_asset(edits_asked.picture(f"{n}.png", size=20 + n), ["brand"])
            for n in range(2)
        ]
        calls = [
            call("note", {"source": assets[0]}, id="a0"),
            call("crop", {"source": assets[1], "width": 9, "height": 9}, id="a1"),
        ]
        at = Desk(edits_asked, job, calls)
        tools = [note, edits_asked.tools["crop"]]
        builder = tool_loop(watched(calls, at.wakes), tools, state=Noting)
        graph = protect(builder, edits_asked.guard, agents={"tools": "editor"}).compile(
            InMemorySaver()
        )
        graph.invoke(GO, at.config)
        at.answer("a0")
        graph.invoke(Command(resume=1), at.config)
        assert done == []
        at.answer("a1")
        state = graph.invoke(Command(resume=1), at.config)
    assert len(done) == 1
    assert state["note"] == ("a", 1.5)
    assert {one.status for one in results(state)} == {"success"}
    assert at.wakes == [[], []]


# --- beside tools that pause themselves -------------------------------------------------------


KINDS = {
    "a": ("publish", "likeness"),
    "p": ("publish", "brand"),
    "q": ("choose", "brand"),  # permitted, and pauses itself
    "w": ("wipe", "brand"),  # asked, and pauses itself
}


def pausing_tools(answers: dict[str, list[Any]]) -> list[Any]:
    @tool
    def choose(source: str) -> str:
        """Ask which one."""
        answers["choose"].append(interrupt("which?"))
        return "chosen"

    @tool
    def wipe(source: str) -> str:
        """Ask, then wipe."""
        answers["wipe"].append(interrupt("really?"))
        return "wiped"

    return [choose, wipe]


@pytest.mark.parametrize(
    ("shape", "mix", "mode"),
    [
        (shape, mix, ("sync", "async")[(row + column) % 2])
        for row, shape in enumerate(("static", "conditional", "sends", "subgraph"))
        for column, mix in enumerate(("q", "w", "qa", "aq", "wp", "paw", "qwa", "pawqp"))
    ],
)
def test_a_tool_that_pauses_itself_gets_its_own_answer(
    edits_asked: Studio, mode: str, shape: str, mix: str
) -> None:
    """It runs when no question is open, so no wake is taken for its answer."""
    studio = edits_asked
    answers: dict[str, list[Any]] = {"choose": [], "wipe": []}
    choose, wipe = pausing_tools(answers)
    studio.guard.bind(Binding(choose, stage="render", assets=["source"], interrupts=True))
    studio.guard.bind(Binding(wipe, stage="edit", assets=["source"], interrupts=True))
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        calls = []
        for number, kind in enumerate(mix):
            name, label = KINDS[kind]
            asset = job.import_asset(studio.picture(f"{number}.png", size=20 + number), [label])
            args = {"source": asset, **({"to": "team"} if name == "publish" else {})}
            calls.append(call(name, args, id=f"{kind}{number}"))
        at = Desk(studio, job, calls)
        builder = at.builder("static" if shape == "subgraph" else shape)
        node: Any = builder.nodes["tools"].runnable
        table = node.tools_by_name
        table |= {"choose": choose, "wipe": wipe}
        agents = {"tools": {"export": "publisher", "edit": "editor", "render": "renderer"}}
        sealed = protect(builder, studio.guard, agents=agents, unsafe_shared_driver=True)
        graph = sealed.compile(checkpointer=None if shape == "subgraph" else InMemorySaver())
        if shape == "subgraph":
            outer = StateGraph(State).add_node("inner", graph).add_edge(START, "inner")
            graph = protect(outer, studio.guard, agents={}).compile(InMemorySaver())

        state = once(mode, graph, GO, at.config)
        for wakes in itertools.count():
            assert wakes < 12
            asked = state.get("__interrupt__", ())
            if not asked:
                break
            if isinstance(asked[0].value, str):  # of the tools: each asks by itself
                given: Any = {one.id: f"answer to {one.value}" for one in asked}
                given = given if len(asked) > 1 else f"answer to {asked[0].value}"
            else:
                assert len(asked) == 1
                for one in studio.guard.approvals.list():
                    studio.answer(one.request, OMAR)
                given = {"decisions": [{"type": "approve"}]}
            state = once(mode, graph, Command(resume=given), at.config)
    assert answers["choose"] == ["answer to which?"] * mix.count("q")
    assert answers["wipe"] == ["answer to really?"] * mix.count("w")
    assert studio.world.count("publish") == mix.count("a") + mix.count("p")
    assert {one.tool_call_id: one.status for one in results(state)} == {
        one["id"]: "success" for one in calls
    }
    assert at.wakes == [[], []]


# --- beside other middleware ------------------------------------------------------------------


class Rewriting(AgentMiddleware):
    """Has one call send another picture than the model said.

    Args:
        last: it reaches the guard after another one, else before the others.
    """

    def __init__(self, call_id: str, source: str, *, last: bool) -> None:
        super().__init__()
        self._call_id = call_id
        self._source = source
        self._last = last
        self._one_was_there = threading.Event()

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        call = request.tool_call
        changed = call["id"] == self._call_id
        if changed:
            args = {**call["args"], "source": self._source}
            request = request.override(tool_call={**call, "args": args})
        if changed is self._last:
            assert self._one_was_there.wait(30)
        try:
            return handler(request)
        finally:
            self._one_was_there.set()


def test_one_task_decides_for_the_whole_message(
    desk: Callable[[str], Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = desk("pdaa")
    ledger = at.studio.guard.ledger
    recorded: list[int] = []
    record = ledger.record_decisions

    def counted(judged: Any, **given: Any) -> Any:
        recorded.append(len(judged))
        return record(judged, **given)

    monkeypatch.setattr(ledger, "record_decisions", counted)
    graph = at.graph("agent")
    graph.invoke(GO, at.config)
    assert [count for count in recorded if count] == [4]
    assert at.open(at.question(graph)) == ["a2", "a3"]


def test_what_one_task_refuses_for_another_is_recorded_by_that_one(
    desk: Callable[[str], Desk],
) -> None:
    at = desk("ppp")
    at.calls[1] = call("publish", {"source": "asset-" + "0" * 20, "to": "team"}, id="d1")
    at.calls[2] = call("nothing", {"x": 1}, id="d2")
    graph = at.graph("agent")
    state = graph.invoke(GO, at.config)
    assert [one.status for one in results(state)] == ["success", "error", "error"]
    recorded = at.studio.guard.ledger.all("SELECT body FROM records ORDER BY idx")
    refused = [one for row in recorded if (one := json.loads(row["body"]))["kind"] == "refused"]
    unknown = [one for one in refused if one["policy"] == "agentguard.unknown-asset"]
    assert len(unknown) == 1
    assert at.wakes == [[], []]


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("edited", ["a0", "a1", "p2"])
def test_a_call_that_a_wrapper_changes_is_decided_as_it_comes_out(
    desk: Callable[[str], Desk], edited: str, last: bool
) -> None:
    """What another task decided on the model's words gives way: its question, its Grant."""
    at = desk("aap")
    other = at.job.import_asset(at.studio.picture("other.png", size=50), ["likeness"])
    graph = at.agent(InMemorySaver(), Rewriting(edited, other, last=last))
    graph.invoke(GO, at.config)
    for _ in range(2):
        written = [one["args"]["source"] for one in at.calls if one["id"] == edited]
        for one in at.studio.guard.approvals.list():
            assert one.arguments["source"] not in written
            at.studio.answer(one.request, OMAR)
        graph.invoke(None, at.config)
    at.require_done(graph)
    digests = "SELECT body FROM requests JOIN grants ON request = digest WHERE claims = 1"
    sent = [json.loads(row["body"]) for row in at.studio.guard.ledger.all(digests)]
    assert other in {one["args"]["source"] for one in sent}
    assert at.studio.guard.approvals.list() == ()
    issued = "SELECT state FROM grants WHERE state = 'issued'"
    assert at.studio.guard.ledger.all(issued) == []
    at.studio.guard.verify()


@pytest.mark.parametrize("changes", [{"prompt": "more red"}, {"colour": "red"}])
def test_what_was_begun_never_gives_way_to_a_changed_call(
    studio: Studio, changes: dict[str, str]
) -> None:
    """A wrapper that changes a call differently each time it runs gets no second effect."""
    wrapped: list[str] = []

    class Fickle(AgentMiddleware):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            call = request.tool_call
            if call["name"] == "paint" and wrapped:
                request = request.override(tool_call={**call, "args": {**call["args"], **changes}})
            result = handler(request)
            wrapped.append(call["id"])
            return result

    with studio.guard.open_job("poster", requested_by=KIM) as job:
        calls = [
            call("paint", {"prompt": "a lighthouse", "colour": "navy"}, id=f"p{n}")
            for n in range(2)
        ]
        wakes: list[list[str]] = []
        model = Noting(messages=iter(()))
        model.calls, model.wakes = calls, wakes
        agent: Any = create_agent(
            model,
            studio.guard.tools([studio.tools["paint"]]),
            middleware=[Fickle(), GuardMiddleware(studio.guard, agent="painter")],
            checkpointer=InMemorySaver(),
        )
        config = {**job.config(thread_id="t"), "max_concurrency": 1}
        agent.invoke(GO, config)
        assert studio.world.count("paint") == 2
        for old in list(agent.get_state_history(config)):
            if old.next == ("tools", "tools"):
                agent.invoke(None, {**job.config(old.config), "max_concurrency": 1})
    assert studio.world.count("paint") == 2
    assert all(row["claims"] <= 1 for row in studio.guard.ledger.all("SELECT claims FROM grants"))


def test_what_another_run_begins_meanwhile_does_not_give_way(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs of a thread: one has a call changed while the other runs it as it was written."""

    class Changing(AgentMiddleware):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            call = request.tool_call
            if call["id"] == "p1":
                args = {**call["args"], "prompt": "more red"}
                request = request.override(tool_call={**call, "args": args})
            return handler(request)

    wakes: list[Any] = []
    saver = InMemorySaver()
    guard = studio.guard

    def agent(*middleware: AgentMiddleware) -> Any:
        model = Noting(messages=iter(()))
        model.calls = [
            call("paint", {"prompt": "a lighthouse", "colour": "navy"}, id=f"p{n}")
            for n in range(2)
        ]
        model.wakes = wakes
        tools = guard.tools([studio.tools["paint"]])
        last = GuardMiddleware(guard, agent="painter")
        return create_agent(model, tools, middleware=[*middleware, last], checkpointer=saver)

    with guard.open_job("poster", requested_by=KIM) as job:
        config = {**job.config(thread_id="t"), "max_concurrency": 1}
        ran: list[Any] = []
        withdraw = guard.ledger.withdraw

        def meanwhile(requests: Any) -> Any:
            if not ran:
                ran.append(requests)
                agent().invoke(None, config)
            return withdraw(requests)

        monkeypatch.setattr(guard.ledger, "withdraw", meanwhile)
        agent(Changing()).invoke(GO, config)
    assert ran
    assert studio.world.count("paint") == 2
    assert sum(row["claims"] for row in guard.ledger.all("SELECT claims FROM grants")) == 2


@pytest.mark.parametrize("mode", ["batched", "per_call"])
def test_an_edit_of_stock_hitl_is_asked_about_by_itself(
    desk: Callable[[str], Desk], mode: Any
) -> None:
    """A person edits one call before it comes to the guard: nothing was decided on it by then."""
    at = desk("aa")
    other = at.job.import_asset(at.studio.picture("other.png", size=50), ["likeness"])
    hitl = HumanInTheLoopMiddleware(
        {"publish": {"allowed_decisions": ["approve", "edit"]}}, interrupt_mode=mode
    )
    graph = at.agent(InMemorySaver(), hitl)
    graph.invoke(GO, at.config)
    edit = {
        "type": "edit",
        "edited_action": {"name": "publish", "args": {**at.calls[1]["args"], "source": other}},
    }
    asked = graph.get_state(at.config).interrupts
    if mode == "batched":
        given: Any = {asked[0].id: {"decisions": [{"type": "approve"}, edit]}}
    else:
        first = at.calls[0]["id"]
        given = {
            one.id: {"type": "approve"} if one.value["tool_call_id"] == first else edit
            for one in asked
        }
    graph.invoke(Command(resume=given), at.config)
    pending = at.studio.guard.approvals.list(state=None)
    assert {one.arguments["source"] for one in pending} == {at.calls[0]["args"]["source"], other}
    for one in pending:
        at.studio.answer(one.request, OMAR)
    graph.invoke(None, at.config)
    at.require_done(graph)


@pytest.mark.parametrize("run", RUNS)
def test_the_graph_of_an_agent_can_be_protected_instead(
    desk: Callable[[str], Desk], run: str
) -> None:
    at = desk("paa")
    model = Noting(messages=iter(()))
    model.calls, model.wakes = at.calls, at.wakes
    agent: Any = create_agent(model, at.studio.guard.tools([at.studio.tools["publish"]]))
    sealed = protect(agent.builder, at.studio.guard, agents={"tools": "publisher"})
    graph = sealed.compile(checkpointer=InMemorySaver())
    RUNS[run](graph, GO, at.config)
    assert at.open(at.question(graph)) == ["a1", "a2"]
    at.answer("a1")
    RUNS[run](graph, Command(resume=True), at.config)
    assert at.published == 2
    at.answer("a2")
    RUNS[run](graph, Command(resume=True), at.config)
    at.require_done(graph)


def test_a_call_that_comes_late_is_not_refused_since_it_was_permitted_ahead(
    tmp_path: Path,
) -> None:
    """Tools that take their time, and more calls than threads: a Grant lives a minute."""
    studio = open_studio(tmp_path, config=CONFIG + '\n[lifetimes]\nlease = "10m"\n')

    class Slow(AgentMiddleware):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            result = handler(request)
            studio.clock.turn(seconds=90)
            return result

    with studio.guard, studio.guard.open_job("poster", requested_by=KIM) as job:
        at = open_desk(studio, job, "ppp")
        graph = at.agent(InMemorySaver(), Slow())
        graph.invoke(GO, {**at.config, "max_concurrency": 1})
        at.require_done(graph)
        states = studio.guard.ledger.all("SELECT state FROM grants ORDER BY state")
        assert [row["state"] for row in states] == ["executed"] * 3 + ["revoked"] * 2
        studio.guard.verify()


def test_a_call_that_comes_after_a_sibling_revealed_something_is_decided_on_that(
    tmp_path: Path,
) -> None:
    """I4: it was permitted ahead, without the labels that it carries when its turn comes."""
    sees = CONFIG.replace('workspace = "acme"', 'workspace = "acme"\nchat_model = "chat"') + (
        '\n[destinations.chat]\naudience = "vendor"\nenvironment = "draft"\n'
        'ceiling = ["generated", "customer-data"]\n'
    )
    studio = open_studio(tmp_path, config=sees)

    @tool
    def look_up(prompt: str) -> str:
        """Look somebody up."""
        return "a customer holding a passport"

    @tool
    def note(words: str) -> str:
        """Note words."""
        return "noted"

    studio.guard.bind(
        Binding(look_up, stage="edit", texts=["prompt"], reveals=True, labels=["customer-data"])
    )
    studio.guard.bind(Binding(note, stage="edit", texts=["words"]))
    with studio.guard, studio.guard.open_job("poster", requested_by=KIM) as job:
        calls = [call("look_up", {"prompt": "kim"}), call("note", {"words": "a passport"})]
        model = Noting(messages=iter(()))
        model.calls, model.wakes = calls, []
        agent: Any = create_agent(
            model,
            studio.guard.tools([look_up, note]),
            middleware=[GuardMiddleware(studio.guard, agent="editor")],
            checkpointer=InMemorySaver(),
        )
        state = agent.invoke(GO, {**job.config(thread_id="t"), "max_concurrency": 1})
        assert [one.status for one in results(state)] == ["success"] * 2
        revisions = studio.guard.ledger.all(
            "SELECT revision FROM requests ORDER BY ordinal, revision"
        )
        assert sorted(row["revision"] for row in revisions) == [0, 0, 1]
