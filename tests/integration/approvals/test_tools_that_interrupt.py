"""A tool that pauses itself and is asked about: one resume can't answer both.

`protect` has the two questions one after the other, in supersteps of their own; elsewhere such a
call is refused.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.types import Command, interrupt

from agentguard.langgraph import GuardMiddleware
from agentguard.model import Verdict
from tests.support import GO, KIM, OMAR, Studio, build, call, open_studio, results, run_script, says
from tests.support.chat_models import Watching, dangling

ASKS = (
    '@id("acme.edit-asks") @advice("edits are looked at")\n'
    'forbid (principal, action in Action::"stage:edit", resource)'
    " unless { context.approvals >= 1 };"
)


@pytest.fixture
def asking(tmp_path: Path) -> Any:
    """A studio whose policy asks about every edit, and a tool that asks before it wipes."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "x.cedar").write_text(ASKS)
    studio = open_studio(tmp_path)

    @tool
    def wipe(source: str) -> str:
        """Ask, then wipe."""
        answer = interrupt("really?")
        studio.world.effects.append(("wipe", str(answer)))
        return "wiped"

    studio.bind(wipe, stage="edit", assets=["source"], interrupts=True)
    yield studio
    studio.guard.close()


def require_refused(studio: Studio, content: str) -> None:
    assert "edits are looked at" in content
    assert "wipe also pauses to ask on its own (interrupts=True)" in content
    assert "Split it" in content
    assert studio.world.effects == []
    assert studio.guard.approvals.list(state=None) == ()
    assert studio.grants() == []
    (row,) = studio.guard.ledger.all("SELECT effect, policies FROM requests")
    assert row["effect"] == "deny"
    assert "agentguard.pausing-tool" in row["policies"]


def noted(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What dangles at each wake of the models that `build` makes from now on."""
    import tests.support as support

    wakes: list[list[str]] = []
    scripted = support.scripted

    def watching(script: Any) -> Any:
        model = scripted(script)

        def node(state: Any) -> Any:
            wakes.append(dangling(state["messages"]))
            return model(state)

        return node

    monkeypatch.setattr(support, "scripted", watching)
    return wakes


def once(mode: str, graph: Any, given: Any, config: Any) -> Any:
    if mode == "async":
        return asyncio.run(graph.ainvoke(given, config))
    return graph.invoke(given, config)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("others", [0, 1])
def test_protect_has_people_asked_first_and_the_tool_ask_afterwards(
    asking: Studio, mode: str, others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wakes = noted(monkeypatch)
    with asking.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(asking.picture(), ["brand"])
        calls = [call("wipe", {"source": asset})] + [call("list_assets", {})] * others
        nodes = {"t": ("editor", ["wipe", "list_assets"])}
        graph = build(asking, [says(*calls)], nodes)
        config = job.config(thread_id="t")
        (asked,) = once(mode, graph, GO, config)["__interrupt__"]
        assert asked.value["name"] == "wipe"
        asking.answer(asking.pending().request, OMAR)
        (asked,) = once(mode, graph, Command(resume="approve"), config)["__interrupt__"]
        assert (asked.value, asking.world.effects, wakes) == ("really?", [], [[]])
        state = once(mode, graph, Command(resume="the red one"), config)
    assert "__interrupt__" not in state
    assert asking.world.effects == [("wipe", "the red one")]
    assert [one.status for one in results(state)] == ["success"] * (1 + others)
    assert wakes == [[], []]
    assert asking.grants().count("executed") == 1 + others


def test_a_no_to_a_tool_that_pauses_itself_is_told_without_its_question(
    asking: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    wakes = noted(monkeypatch)
    with asking.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(asking.picture(), ["brand"])
        graph = build(asking, [says(call("wipe", {"source": asset}))], {"t": ("editor", ["wipe"])})
        config = job.config(thread_id="t")
        graph.invoke(GO, config)
        asking.answer(asking.pending().request, OMAR, Verdict.DENY)
        state = graph.invoke(Command(resume="yes"), config)
    assert "a person said no" in results(state)[0].content
    assert asking.world.effects == []
    assert wakes == [[], []]


def test_a_tool_that_paused_itself_goes_on_after_its_job_was_left(asking: Studio) -> None:
    with asking.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(asking.picture(), ["brand"])
        graph = build(asking, [says(call("wipe", {"source": asset}))], {"t": ("editor", ["wipe"])})
        graph.invoke(GO, job.config(thread_id="t"))
        asking.answer(asking.pending().request, OMAR)
        graph.invoke(None, job.config(thread_id="t"))
    with asking.guard.rejoin_job(job.id, by=KIM) as job:
        state = graph.invoke(Command(resume="yes"), job.config(thread_id="t"))
    assert [one.status for one in results(state)] == ["success"]
    assert asking.world.effects == [("wipe", "yes")]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_the_middleware_refuses_it_too(asking: Studio, mode: str) -> None:
    with asking.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(asking.picture(), ["brand"])
        script = [says(call("wipe", {"source": asset})), AIMessage("done")]
        model = Watching(messages=iter(script))
        agent: Any = create_agent(
            model,
            [asking.tools["wipe"]],
            middleware=[GuardMiddleware(asking.guard, agent="editor")],
            checkpointer=InMemorySaver(),
        )
        config = job.config(thread_id="t")
        state = asyncio.run(agent.ainvoke(GO, config)) if mode == "async" else agent.invoke(
            GO, config)  # fmt: skip
    assert "__interrupt__" not in state
    assert model.wakes == [[], []]
    require_refused(asking, str(results(state)[0].content))


def test_inline_tools_are_refused_too(asking: Studio) -> None:
    (wipe,) = asking.guard.tools([asking.tools["wipe"]], agent="editor", gate="inline")

    @task
    def send(asset: str) -> str:
        return str(wipe.invoke(call("wipe", {"source": asset}, id="one")).content)

    @entrypoint(checkpointer=InMemorySaver())
    def flow(asset: str) -> str:
        return send(asset).result()

    with asking.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(asking.picture(), ["brand"])
        said = flow.invoke(asset, job.config(thread_id="t"))
    require_refused(asking, str(said))


def test_a_question_from_an_older_version_is_closed_with_the_reason(asking: Studio) -> None:
    """It was asked before this rule: an approval of it would still be answered by one resume."""
    bound = asking.guard.bound["wipe"]
    with asking.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(asking.picture(), ["brand"])
        script = [says(call("wipe", {"source": asset})), AIMessage("done")]
        agent: Any = create_agent(
            Watching(messages=iter(script)),
            [asking.tools["wipe"]],
            middleware=[GuardMiddleware(asking.guard, agent="editor")],
            checkpointer=InMemorySaver(),
        )
        config = job.config(thread_id="t")
        object.__setattr__(bound.binding, "interrupts", False)
        assert "__interrupt__" in agent.invoke(GO, config)
        object.__setattr__(bound.binding, "interrupts", True)
        asking.answer(asking.pending().request, OMAR)
        state = agent.invoke(Command(resume="yes"), config)
    assert "interrupts=True" in results(state)[0].content
    assert asking.world.effects == []


def test_a_permitted_tool_may_pause_itself(studio: Studio) -> None:
    heard: list[Any] = []

    @tool
    def choose(n: int) -> str:
        """Ask which one."""
        heard.append(interrupt("which?"))
        return f"chose {heard[-1]}"

    studio.bind(choose, stage="edit", plain=["n"], interrupts=True)
    graph = build(studio, [says(call("choose", {"n": 1}))], {"t": ("editor", ["choose"])})
    with studio.guard.open_job("p", requested_by=KIM) as job:
        config = job.config(thread_id="t")
        assert graph.invoke(GO, config)["__interrupt__"][0].value == "which?"
        state = graph.invoke(Command(resume="the red one"), config)
    assert results(state)[0].content == "chose the red one"


def test_a_permitted_tool_may_wait_for_its_own_answer_longer_than_a_grant_lives(
    studio: Studio,
) -> None:
    got: list[Any] = []

    @tool
    def wipe(source: str) -> str:
        """Ask, then wipe."""
        got.append(interrupt("really?"))
        return "wiped"

    studio.bind(wipe, stage="edit", assets=["source"], interrupts=True)
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        nodes = {"t": ("editor", ["wipe"])}
        graph, state = run_script(studio, job, says(call("wipe", {"source": asset})), nodes=nodes)
        config = job.config(thread_id="t")
        assert state["__interrupt__"][0].value == "really?"
        for _ in range(5):  # the person thinks for longer than a grant lives
            studio.clock.turn(seconds=20)
            job.renew()
        state = graph.invoke(Command(resume="yes"), config)
    assert got == ["yes"], results(state)[-1].content
    assert results(state)[-1].content == "wiped"


def test_answers_of_tools_that_pause_undeclared_can_not_be_swapped(studio: Studio) -> None:
    """Two in one task would get each other's answers: a "no" to one was another's "yes"."""
    heard: list[tuple[str, Any]] = []

    @tool
    def confirm(what: Literal["red", "navy"]) -> str:
        """Ask a person, then do it."""
        heard.append((what, interrupt({"which": what})))
        return f"did {what}"

    studio.bind(confirm, stage=None, plain=["what"])
    asked = says(call("confirm", {"what": "red"}), call("confirm", {"what": "navy"}))
    with studio.guard.open_job("p", requested_by=KIM) as job:
        graph, state = run_script(studio, job, asked, nodes={"t": ("editor", ["confirm"])})
        for _ in range(3):
            if "__interrupt__" not in state:
                break
            answers = {i.id: i.value["which"] == "red" for i in state["__interrupt__"]}
            state = graph.invoke(Command(resume=answers), job.config(thread_id="t"))
    assert all(answer is (what == "red") for what, answer in heard)
    assert "interrupts=True" in results(state)[0].text
