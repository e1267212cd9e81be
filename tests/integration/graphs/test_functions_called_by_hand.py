"""Functions declared with `media_tool`, called as Python calls functions in a named node."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.errors import GraphInterrupt
from langgraph.prebuilt import ToolNode
from langgraph.types import RetryPolicy
from PIL import Image

from agentguard import Asset, CallRefused, Opaque, Output, Text, To, UnguardedTool, media_tool
from agentguard.errors import BindingError
from agentguard.langgraph import GuardMiddleware, protect
from agentguard.langgraph.calls_by_hand import NodeRun
from agentguard.model import Verdict
from tests.integration.shapes.bench import KIM, TO, Bench, Model, begin, loop, told
from tests.integration.shapes.bench import alone as one_node
from tests.support import call, says

Picture = Annotated[str, Asset()]
Png = Annotated[str, Output(".png")]
Place = Annotated[str, To()]
Words = Annotated[str, Text()]

MAIL = {"mail": "publisher"}

alone = functools.partial(one_node, name="mail")
"""A graph of one node, which acts."""


@dataclass
class Mails:
    """What left, and the declared functions by which it did."""

    sent: list[str] = field(default_factory=list)
    fails: int = 0

    def __post_init__(self) -> None:
        sent = self.sent

        @media_tool(stage="export", effect=Opaque())
        def send(picture: Picture, to: Place, words: Words = "hello") -> str:
            """Send a picture by mail."""
            if self.fails:
                self.fails -= 1
                raise ConnectionError("no line")
            sent.append(f"{to}: {words}")
            return f"sent to {to}"

        @media_tool(stage="export", effect=Opaque())
        async def asend(picture: Picture, to: Place, words: Words = "hello") -> str:
            """Send a picture by mail, and wait for it."""
            await asyncio.sleep(0)
            sent.append(f"{to}: {words}")
            return f"sent to {to}"

        @media_tool(stage="edit")
        def shrink(picture: Picture, width: int, file: Png = "") -> str:
            """Shrink a picture, in pixels."""
            image = Image.open(picture)
            image.resize((width, width)).save(file)
            return "shrunk"

        @media_tool(stage=None)
        def count(words: Annotated[str, Text()]) -> dict[str, int]:
            """Count words."""
            return {"words": len(words.split())}

        self.send, self.asend, self.shrink, self.count = send, asend, shrink, count

    @property
    def tools(self) -> list[Any]:
        return [self.send, self.asend, self.shrink, self.count]


@pytest.fixture
def mails() -> Mails:
    return Mails()


@pytest.fixture
def bench(tmp_path: Path, mails: Mails) -> Iterator[Bench]:
    with Bench(tmp_path, "ask", tools=mails.tools) as made:
        yield made


@pytest.fixture
def asset(bench: Bench) -> str:
    return bench.asset


def compiled(bench: Bench, builder: Any, agents: Any = None) -> Any:
    return protect(builder, bench.guard, agents=agents or MAIL).compile(bench.saver)


def approve(bench: Bench) -> None:
    for question in bench.open_questions():
        bench.studio.answer(question.request, "omar@acme.example", Verdict.APPROVE)


def test_permitted_call_runs_and_returns_its_content(
    bench: Bench, mails: Mails, asset: str
) -> None:
    got: list[Any] = []

    def node(state: Any) -> Any:
        got.append(mails.send(asset, "team", words="a picture"))
        return {}

    compiled(bench, alone(node)).invoke(begin(), bench.config)
    assert got == ["sent to team"]
    assert mails.sent == ["team: a picture"]


def test_asked_call_runs_once_after_a_yes(bench: Bench, mails: Mails, asset: str) -> None:
    def node(state: Any) -> Any:
        return {"messages": [("ai", mails.send(asset, to="web"))]}

    graph = compiled(bench, alone(node))
    asked = graph.invoke(begin(), bench.config)
    assert len(asked["__interrupt__"]) == 1
    assert mails.sent == []
    approve(bench)
    done = graph.invoke(None, bench.config)
    assert done["messages"][-1].content == "sent to web"
    assert mails.sent == ["web: hello"]


def test_denied_call_raises_in_the_functions_place(bench: Bench, mails: Mails, asset: str) -> None:
    after: list[str] = []

    def node(state: Any) -> Any:
        mails.send(asset, TO["deny"])
        after.append("the node took it for sent")

    with pytest.raises(CallRefused, match="is not queued for site"):
        compiled(bench, alone(node)).invoke(begin(), bench.config)
    assert (mails.sent, after) == ([], [])


def test_swallowed_question_is_raised_all_the_same(bench: Bench, mails: Mails, asset: str) -> None:
    def node(state: Any) -> Any:
        try:
            said = mails.send(asset, "web")
        except Exception as error:
            said = f"failed: {type(error).__name__}"
        return {"messages": [("ai", said)]}

    graph = compiled(bench, alone(node))
    assert len(graph.invoke(begin(), bench.config)["__interrupt__"]) == 1
    approve(bench)
    assert graph.invoke(None, bench.config)["messages"][-1].content == "sent to web"
    assert mails.sent == ["web: hello"]


def test_calls_that_are_gathered(bench: Bench, mails: Mails) -> None:
    sources = bench.pictures(3)

    async def node(state: Any) -> Any:
        places = ("team", "web", "web")
        sends = [mails.asend(sources[n], to, words=f"{n}") for n, to in enumerate(places)]
        results = await asyncio.gather(*sends, return_exceptions=True)
        return {"messages": [("ai", str(one)) for one in results]}

    graph = compiled(bench, alone(node))
    asked = asyncio.run(graph.ainvoke(begin(), bench.config))
    assert "__interrupt__" in asked
    approve(bench)
    done = asyncio.run(graph.ainvoke(None, bench.config))
    said = [message.content for message in done["messages"][1:]]
    assert said == ["sent to team", "sent to web", "sent to web"]
    assert sorted(mails.sent) == ["team: 0", "web: 1", "web: 2"]


def test_gathered_calls_that_wait_in_another_job_are_not_asked_about_in_this_one(
    bench: Bench, mails: Mails
) -> None:
    """They share the name of their task, so each has to be found by what it says."""
    guard, files = bench.guard, [bench.studio.picture(f"{n}.png", "red", 40 + n) for n in (0, 1)]
    sources: list[str] = []

    async def node(state: Any) -> Any:
        sends = [mails.asend(source, "web", words=source) for source in sources]
        return {"messages": [("ai", str(await asyncio.gather(*sends, return_exceptions=True)))]}

    graph = compiled(bench, alone(node))

    def run(job: Any, given: Any) -> Any:
        sources[:] = [job.import_asset(file, ["brand"]) for file in files]
        return asyncio.run(graph.ainvoke(given, job.config(thread_id="t1")))

    with guard.open_job("first", requested_by=KIM) as first:
        assert "__interrupt__" in run(first, begin())
    approve(bench)
    with guard.open_job("second", requested_by=KIM) as second:
        for _ in range(2):
            assert "__interrupt__" in run(second, None)
            assert not bench.open_questions()
    assert mails.sent == []
    with guard.rejoin_job(first.id, by=KIM) as again:
        run(again, None)
    assert sorted(mails.sent) == sorted(f"web: {source}" for source in sources)


def test_function_in_a_loop_with_equal_arguments_acts_each_time(
    bench: Bench, mails: Mails, asset: str
) -> None:
    def node(state: Any) -> Any:
        for _ in range(3):
            mails.send(asset, "team")

    compiled(bench, alone(node)).invoke(begin(), bench.config)
    assert mails.sent == ["team: hello"] * 3


def test_node_that_its_retry_policy_runs_again_sends_once(
    bench: Bench, mails: Mails, asset: str
) -> None:
    runs: list[int] = []

    def node(state: Any) -> Any:
        mails.send(asset, "team")
        runs.append(1)
        if len(runs) == 1:
            raise ConnectionError("after the effect")

    policy = RetryPolicy(initial_interval=0, jitter=False)
    compiled(bench, alone(node, retry_policy=policy)).invoke(begin(), bench.config)
    assert (len(runs), mails.sent) == (2, ["team: hello"])


def test_failure_in_the_function_is_raised_and_not_tried_again(
    bench: Bench, mails: Mails, asset: str
) -> None:
    mails.fails = 1

    def node(state: Any) -> Any:
        mails.send(asset, "team")

    policy = RetryPolicy(initial_interval=0, jitter=False)
    with pytest.raises(CallRefused, match="not known"):
        compiled(bench, alone(node, retry_policy=policy)).invoke(begin(), bench.config)
    assert mails.sent == []


def test_output_is_filled_in_and_its_asset_named(bench: Bench, mails: Mails, asset: str) -> None:
    got: list[str] = []

    def node(state: Any) -> Any:
        got.append(mails.shrink(asset, 8))

    compiled(bench, alone(node), {"mail": "editor"}).invoke(begin(), bench.config)
    assert "shrunk" in got[0]
    assert "file: asset-" in got[0]


def test_tool_without_stage_returns_its_own_result(bench: Bench, mails: Mails, asset: str) -> None:
    got: list[Any] = []

    def node(state: Any) -> Any:
        got.append(mails.count("three small words"))

    compiled(bench, alone(node)).invoke(begin(), bench.config)
    assert got == [{"words": 3}]


def test_tool_of_another_stage_is_refused(bench: Bench, mails: Mails, asset: str) -> None:
    def node(state: Any) -> Any:
        mails.shrink(asset, 8)

    with pytest.raises(CallRefused, match="stage"):
        compiled(bench, alone(node)).invoke(begin(), bench.config)


@pytest.mark.parametrize(
    "given", [{"file": "/tmp/own.png"}, {"width": "wide"}, {"other": 1}], ids=str
)
def test_argument_that_the_schema_does_not_have_is_refused(
    bench: Bench, mails: Mails, asset: str, given: dict[str, Any]
) -> None:
    def node(state: Any) -> Any:
        mails.shrink(**{"picture": asset, "width": 8, **given})

    with pytest.raises((CallRefused, TypeError, ValueError)):
        compiled(bench, alone(node), {"mail": "editor"}).invoke(begin(), bench.config)
    assert not Path("/tmp/own.png").exists()


def test_call_of_the_message_goes_by_the_message(bench: Bench, mails: Mails, asset: str) -> None:
    model = Model(script=[says(call("send", {"picture": asset, "to": "web"}))])

    def node(state: Any) -> Any:
        made = state["messages"][-1].tool_calls[0]
        said = mails.send(**made["args"])
        return {"messages": [ToolMessage(said, tool_call_id=made["id"])]}

    graph = protect(loop(model, node), bench.guard, agents={"tools": "publisher"})
    graph = graph.compile(bench.saver)
    asked = graph.invoke(begin(), bench.config)
    assert len(asked["__interrupt__"]) == 1
    approve(bench)
    graph.invoke(None, bench.config)
    assert mails.sent == ["web: hello"]


def test_nobody_named_the_node(bench: Bench, mails: Mails, asset: str) -> None:
    def node(state: Any) -> Any:
        mails.send(asset, "team")

    with pytest.raises(UnguardedTool, match=r"name it.*agents=\{'mail': AGENT\}"):
        alone(node).compile(bench.saver).invoke(begin(), bench.config)
    assert mails.sent == []


def test_function_that_no_guard_knows_is_refused(bench: Bench, mails: Mails, asset: str) -> None:
    stranger = Mails()

    def node(state: Any) -> Any:
        stranger.send(asset, "team")

    with pytest.raises(CallRefused, match=r"tools=\[send\]"):
        compiled(bench, alone(node)).invoke(begin(), bench.config)
    assert stranger.sent == []


def test_outside_a_job_it_is_a_plain_function() -> None:
    mails = Mails()
    assert mails.send("a.png", "anywhere") == "sent to anywhere"
    assert mails.sent == ["anywhere: hello"]


def test_function_that_outlives_its_node_does_nothing(
    bench: Bench, mails: Mails, asset: str
) -> None:
    left: list[Any] = []

    def node(state: Any) -> Any:
        left.append(lambda: mails.send(asset, "team"))

    compiled(bench, alone(node)).invoke(begin(), bench.config)
    with pytest.raises(UnguardedTool):
        left[0]()
    assert mails.sent == []


@pytest.mark.parametrize("to", ["team", "web"])
@pytest.mark.parametrize("turns", [0, 1, 5])
def test_task_that_a_node_leaves_behind_does_nothing_and_asks_nobody(
    bench: Bench, mails: Mails, asset: str, to: str, turns: int
) -> None:
    left: list[asyncio.Task[str]] = []

    async def node(state: Any) -> Any:
        left.append(asyncio.create_task(mails.asend(asset, to)))
        for _ in range(turns):
            await asyncio.sleep(0)
        return {}

    async def run() -> Any:
        done = await compiled(bench, alone(node)).ainvoke(begin(), bench.config)
        return done, (await asyncio.gather(*left, return_exceptions=True))[0]

    done, said = asyncio.run(run())
    if "__interrupt__" not in done:  # else it was in time, and the node ends with its question
        assert isinstance(said, (CallRefused, UnguardedTool, GraphInterrupt))
        assert not bench.open_questions()
    assert mails.sent == []


def test_call_of_a_thread_that_is_decided_after_its_node_returned(
    bench: Bench, mails: Mails, asset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is held up where it is about to be decided on, until the node is through."""
    begun, returned = threading.Barrier(3), threading.Event()
    threads: list[threading.Thread] = []
    said: list[str] = []
    authorize = NodeRun.authorize

    def late(self: NodeRun, invocation: Any, found: Any) -> None:
        begun.wait(10)
        returned.wait(10)
        authorize(self, invocation, found)

    def node(state: Any) -> Any:
        def work(to: str) -> None:
            try:
                said.append(mails.send(asset, to))
            except (CallRefused, GraphInterrupt) as error:
                said.append(type(error).__name__)

        for to in ("team", "web"):
            context = contextvars.copy_context()
            threads.append(threading.Thread(target=context.run, args=(work, to)))
            threads[-1].start()
        begun.wait(10)
        return {}

    monkeypatch.setattr(NodeRun, "authorize", late)
    assert "__interrupt__" not in compiled(bench, alone(node)).invoke(begin(), bench.config)
    returned.set()
    for thread in threads:
        thread.join()
    assert len(said) == 2
    assert set(said) <= {"CallRefused", "GraphInterrupt"}
    assert mails.sent == []
    assert not bench.open_questions()


def test_task_that_is_left_behind_is_told_that_its_node_returned(
    bench: Bench, mails: Mails, asset: str
) -> None:
    left: list[Any] = []

    def node(state: Any) -> Any:
        context = contextvars.copy_context()
        left.append(lambda: context.run(mails.send, asset, "team"))

    compiled(bench, alone(node)).invoke(begin(), bench.config)
    with pytest.raises(UnguardedTool, match="the node that started it had returned"):
        left[0]()


def test_forked_process_of_a_node_does_nothing(bench: Bench, mails: Mails, asset: str) -> None:
    """Its questions would reach nobody, and it may go on when the node and the job are over."""
    (copy,) = bench.guard.tools([mails.send])
    reader, writer = os.pipe()

    def said() -> list[str]:
        answers: list[str] = []
        with pytest.raises(UnguardedTool, match="in another process than the node"):
            mails.send(asset, "team")
        answers.append(str(copy.invoke({"picture": asset, "to": "team"})))
        return [*answers, *mails.sent]

    def node(state: Any) -> Any:
        child = os.fork()
        if child == 0:
            try:
                os.write(writer, repr(said()).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        return {}

    compiled(bench, alone(node)).invoke(begin(), bench.config)
    os.close(writer)
    with open(reader) as file:
        answer = file.read()
    assert "without a tool call id" in answer
    assert "sent to" not in answer
    assert not bench.open_questions()


def test_graph_inside_the_node_does_not_inherit_its_gate(
    bench: Bench, mails: Mails, asset: str
) -> None:
    def inner(state: Any) -> Any:
        mails.send(asset, "team")

    nested = alone(inner).compile()

    def node(state: Any) -> Any:
        nested.invoke({"messages": []})

    with pytest.raises(UnguardedTool):
        compiled(bench, alone(node)).invoke(begin(), bench.config)
    assert mails.sent == []


def test_runnable_inside_the_node_does(bench: Bench, mails: Mails, asset: str) -> None:
    def node(state: Any) -> Any:
        RunnableLambda[str, str](lambda to: mails.send(asset, to)).invoke("team")

    compiled(bench, alone(node)).invoke(begin(), bench.config)
    assert mails.sent == ["team: hello"]


def test_declared_function_inside_another_is_refused(tmp_path: Path) -> None:
    mails = Mails()

    @media_tool(stage="export", effect=Opaque())
    def announce(picture: Picture, to: Place) -> str:
        """Send a picture twice."""
        with pytest.raises(UnguardedTool, match="put the shared code into a plain function"):
            mails.send(picture, to)
        return "announced"

    with Bench(tmp_path, "permit", tools=[*mails.tools, announce]) as bench:
        asset = bench.asset

        def node(state: Any) -> Any:
            announce(asset, "team")

        compiled(bench, alone(node)).invoke(begin(), bench.config)
    assert mails.sent == []


def test_threads_of_the_node(bench: Bench, mails: Mails) -> None:
    sources = bench.pictures(2)

    def node(state: Any) -> Any:
        with ThreadPoolExecutor(2) as pool:
            for one in [
                pool.submit(contextvars.copy_context().run, mails.send, source, "web")
                for source in sources
            ]:
                with contextlib.suppress(GraphInterrupt):
                    one.result()

    graph = compiled(bench, alone(node))
    graph.invoke(begin(), bench.config)
    assert mails.sent == []
    for _ in range(2):
        approve(bench)
        graph.invoke(None, bench.config)
    assert mails.sent == ["web: hello"] * 2


def test_unguarded_says_so_and_runs_past_the_gate(bench: Bench, mails: Mails, asset: str) -> None:
    guard = bench.guard

    def node(state: Any) -> Any:
        with guard.unguarded("a repair by hand"):
            mails.send("a.png", "anywhere")

    compiled(bench, alone(node)).invoke(begin(), bench.config)
    assert mails.sent == ["anywhere: hello"]


def test_name_of_a_function_in_the_closure_of_a_named_node(
    bench: Bench, mails: Mails, asset: str
) -> None:
    send = mails.send

    def node(state: Any) -> Any:
        send(asset, "team")

    compiled(bench, alone(node)).invoke(begin(), bench.config)
    assert mails.sent == ["team: hello"]


def test_node_of_a_protected_graph_that_nobody_named(
    bench: Bench, mails: Mails, asset: str
) -> None:
    send = mails.send

    def node(state: Any) -> Any:
        send(asset, "team")

    with pytest.raises(BindingError, match=r"name the node.*agents=\{'mail': AGENT\}"):
        protect(alone(node), bench.guard, agents={})


def test_tool_node_of_a_declared_function_inside_a_named_node_is_refused(
    bench: Bench, mails: Mails, asset: str
) -> None:
    inner = ToolNode([tool(mails.send)])

    def node(state: Any) -> Any:
        return inner.invoke(state)

    with pytest.raises(BindingError, match="unguarded tools"):
        compiled(bench, alone(node))


@pytest.mark.parametrize("by", ["function", "guarded tool"])
def test_named_node_of_a_graph_that_a_tool_runs(bench: Bench, mails: Mails, by: str) -> None:
    """The tool around it has no stage; the node inside acts as its own agent."""
    send: Any = mails.send
    (copy,) = bench.guard.tools([mails.send])

    def node(state: Any) -> Any:
        picture = state["messages"][-1].content
        given = {"picture": picture, "to": "team"}
        return {"messages": [AIMessage(send(**given) if by == "function" else copy.invoke(given))]}

    inner = protect(alone(node), bench.guard, agents=MAIL).compile()

    @media_tool(stage=None, interrupts=True)
    def ask_publisher(task: Words) -> str:
        """Ask the publisher to send a picture."""
        return str(inner.invoke({"messages": [("user", task)]})["messages"][-1].content)

    bench.guard.bind(ask_publisher)
    model = Model(script=[says(call("ask_publisher", {"task": bench.asset}))])
    outer = loop(model, ToolNode(bench.guard.tools([ask_publisher])))
    graph = protect(outer, bench.guard, agents={"tools": "publisher"}).compile(bench.saver)
    assert told(graph.invoke(begin(), bench.config)) == ["sent to team"]
    assert mails.sent == ["team: hello"]


def test_tool_that_a_named_node_runs_does_not_inherit_its_gate(tmp_path: Path) -> None:
    """A body without a stage is a tool's, too: what it calls is no call of the node."""
    mails = Mails()

    @media_tool(stage=None)
    def helper(picture: Words) -> str:
        """Do what it should not."""
        with pytest.raises(UnguardedTool):
            mails.send(picture, "team")
        return "tried"

    with Bench(tmp_path, "permit", tools=[*mails.tools, helper]) as bench:
        asset, got = bench.asset, []

        def node(state: Any) -> Any:
            got.append(helper(asset))

        compiled(bench, alone(node)).invoke(begin(), bench.config)
    assert got == ["tried"]
    assert mails.sent == []


def in_a_bare_thread(work: Any) -> Any:
    """Run on a thread that got no context of the caller's."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def test_bare_thread_of_a_node_does_nothing(bench: Bench, mails: Mails, asset: str) -> None:
    def node(state: Any) -> Any:
        in_a_bare_thread(lambda: mails.send(asset, "site"))

    with pytest.raises(UnguardedTool, match="copy_context"):
        compiled(bench, alone(node)).invoke(begin(), bench.config)
    assert mails.sent == []


def test_function_without_media_or_place_runs_in_any_thread(bench: Bench, mails: Mails) -> None:
    assert bench.job.id
    assert in_a_bare_thread(lambda: mails.count("two words")) == {"words": 2}


def test_function_of_no_open_guard_runs_in_any_thread(tmp_path: Path, mails: Mails) -> None:
    with Bench(tmp_path, "permit", tools=mails.tools) as bench:
        assert bench.job.id
        strangers = Mails()
        in_a_bare_thread(lambda: strangers.send("a.png", "anywhere"))
    in_a_bare_thread(lambda: mails.send("a.png", "anywhere"))  # its guard is closed
    assert (strangers.sent, mails.sent) == (["anywhere: hello"], ["anywhere: hello"])


def test_word_of_the_developer_holds_in_a_bare_thread(bench: Bench, mails: Mails) -> None:
    guard = bench.guard
    assert bench.job.id

    def repair() -> str:
        with guard.unguarded("a repair by hand"):
            return mails.send("a.png", "anywhere")

    assert in_a_bare_thread(repair) == "sent to anywhere"


def test_argument_may_have_any_name(tmp_path: Path) -> None:
    """Also those of what decides on the call."""

    @media_tool(stage=None)
    def look(declared: Words, function: Words, name: Words) -> str:
        """Look something up."""
        return declared + function + name

    got: list[str] = []

    def node(state: Any) -> Any:
        got.append(look(declared="a", function="b", name="c"))
        got.append(look("d", "e", name="f"))

    with Bench(tmp_path, "permit", tools=[look]) as bench:
        compiled(bench, alone(node)).invoke(begin(), bench.config)
    assert got == ["abc", "def"]


# --- methods and generators ----------------------------------------------------------------------


class Office:
    """An object whose method is a tool."""

    def __init__(self, place: str) -> None:
        self.sent: list[str] = []
        self.place = place

    @media_tool(stage="export", effect=Opaque())
    def mail(self, picture: Picture, to: Place) -> str:
        """Send a picture from this office."""
        self.sent.append(to)
        return f"sent from {self.place}"


def test_method_is_called_by_hand_on_the_object_that_the_guard_knows(tmp_path: Path) -> None:
    ours, other = Office("Oslo"), Office("elsewhere")
    with Bench(tmp_path, "permit", tools=[ours.mail]) as bench:
        asset, got = bench.asset, []

        def node(state: Any) -> Any:
            got.append(ours.mail(asset, "team"))
            with pytest.raises(CallRefused, match="on another object"):
                other.mail(asset, to="team")

        compiled(bench, alone(node)).invoke(begin(), bench.config)
    assert got == ["sent from Oslo"]
    assert (ours.sent, other.sent) == (["team"], [])


def test_generator_is_refused_when_it_is_declared() -> None:
    """What runs when somebody iterates it would run outside of its claim."""

    def pages(picture: Picture, to: Place) -> Iterator[str]:
        """Send a picture page by page."""
        yield "sent"

    async def apages(picture: Picture, to: Place) -> Any:
        """Send a picture page by page."""
        yield "sent"

    for function in (pages, apages):
        with pytest.raises(BindingError, match="it yields, and a tool returns"):
            media_tool(stage="export", effect=Opaque())(function)


def test_refusal_inside_an_agent_that_a_called_function_runs_is_told_to_its_model(
    tmp_path: Path,
) -> None:
    """The function is called as Python calls functions; the tools of the agent inside are not."""
    mails = Mails()
    agents: list[Any] = []

    @media_tool(stage=None)
    def ask_publisher(task: Words) -> str:
        """Ask the publisher to send a picture."""
        done = agents[0].invoke({"messages": [("user", task)]})
        return "; ".join(told(done))

    with Bench(tmp_path, "deny", tools=[*mails.tools, ask_publisher]) as bench:
        model = Model(script=[says(call("send", {"picture": bench.asset, "to": "site"}))])
        guard = GuardMiddleware(bench.guard, agent="publisher")
        agents.append(create_agent(model, bench.guard.tools([mails.send]), middleware=[guard]))
        got: list[str] = []

        def node(state: Any) -> Any:
            got.append(ask_publisher("go"))

        compiled(bench, alone(node)).invoke(begin(), bench.config)
    assert "is not queued for site" in got[0]
    assert mails.sent == []
