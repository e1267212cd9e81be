"""The true reason of a refusal or a failure reaches the model and the developer's log."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import ToolNode

from agentguard.errors import LedgerUnavailable
from agentguard.langgraph import GuardMiddleware
from tests.support import GO, KIM, State, Studio, build, call, results, says
from tests.support.bindings import Binding
from tests.support.chat_models import Scripted


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    return [line for line in warnings if line.startswith("refused: ")]


def crop(asset: str, id: str = "crop") -> AIMessage:
    return says(call("crop", {"source": asset, "width": 4, "height": 4}, id=id), id=f"m-{id}")


def agent_of(tools: Any, script: list[AIMessage], *middleware: Any) -> Any:
    model = Scripted(messages=iter([*script, AIMessage("done", id="end")]))
    return create_agent(model, tools, middleware=middleware, checkpointer=InMemorySaver())


def run(graph: Any, config: Any, way: str) -> str:
    asynchronous = way == "ainvoke"
    state = asyncio.run(graph.ainvoke(GO, config)) if asynchronous else graph.invoke(GO, config)
    (told,) = results(state)
    assert told.status == "error"
    return str(told.content)


# --- four mistakes, four sentences --------------------------------------------------------------


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_no_gate_in_front_says_which_line_is_missing(
    studio: Studio, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    guarded = studio.guard.tools([studio.tools["crop"]])
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        told = run(agent_of(guarded, [crop(asset)]), job.config(thread_id="t"), way)
    assert "GuardMiddleware(guard, agent=...)" in told
    assert "protect(builder, guard, agents=...)" in told
    (line,) = refusals(caplog)
    assert "GuardMiddleware" in line
    assert (
        f"refused: crop as no agent in job {job.id}, thread 't', by agentguard.not-authorized"
        in line
    )


@pytest.mark.parametrize(
    ("where", "before"),
    [
        *((place, "the same") for place in ("another job", "another thread")),
        *((place, "another size") for place in ("another job", "another thread")),
        *((place, "another tool") for place in ("another job", "another thread", "this thread")),
    ],
)
def test_no_gate_is_told_although_another_call_had_the_same_id(
    studio: Studio, where: str, before: str
) -> None:
    """Tutorials and fake models count from call-0 in each run."""
    guarded = studio.guard.tools([studio.tools["crop"]])

    def first(job: Any) -> str:
        asset: str = job.import_asset(studio.picture(), ["brand"])
        earlier = call("crop", {"source": asset, "width": 4, "height": 4}, id="crop")
        if before == "another size":
            earlier["args"]["width"] = 5
        if before == "another tool":
            earlier = call("paint", {"prompt": "sea", "colour": "red"}, id="crop")
        build(studio, [says(earlier, id="m0")]).invoke(GO, job.config(thread_id="t"))
        return asset

    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = first(job)
        if where != "another job":
            thread = "t" if where == "this thread" else "t2"
            config = job.config(thread_id=thread)
            told = run(agent_of(guarded, [crop(asset)]), config, "invoke")
    if where == "another job":
        with studio.guard.open_job("poster", requested_by=KIM) as job:
            job.import_asset(studio.folder / "in.png", ["brand"])
            told = run(agent_of(guarded, [crop(asset)]), job.config(thread_id="t"), "invoke")
    assert "GuardMiddleware(guard, agent=...)" in told
    assert told.startswith("this call was decided on in") == (before == "the same")


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_an_agent_without_the_stage_is_told_so(
    studio: Studio, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    middleware = GuardMiddleware(studio.guard, agent="publisher")
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        graph = agent_of([studio.tools["crop"]], [crop(asset)], middleware)
        try:
            told = run(graph, job.config(thread_id="t"), way)
        except Exception as error:  # the middleware may refuse it before the model is called
            told = str(error)
    assert "edit stage" in told
    assert "nothing decides" not in told
    assert len(refusals(caplog)) <= 1


def test_an_agent_that_is_not_configured_is_told_so(studio: Studio) -> None:
    """Removed between build and run, as a reopened guard's graph of before."""
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        graph = build(studio, [crop(asset)], {"e": ("editor", ["crop"])})
        agents = dict(studio.guard.workspace.agents)
        del agents["editor"]
        object.__setattr__(studio.guard.workspace, "agents", agents)
        told = run(graph, job.config(thread_id="t"), "invoke")
    assert told == "no agent editor is configured"


def test_no_job_says_open_job(studio: Studio, caplog: pytest.LogCaptureFixture) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
    middleware = GuardMiddleware(studio.guard, agent="editor")
    graph = agent_of([studio.tools["crop"]], [crop(asset)], middleware)
    told = run(graph, {"configurable": {"thread_id": "t"}}, "invoke")
    assert "open_job" in told
    (line,) = refusals(caplog)
    assert "refused: crop as editor in job none, thread 't', by agentguard.no-job: " in line


def test_another_job_is_named(studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        graph = build(studio, [crop(asset)])
        with studio.guard.open_job("film", requested_by=KIM):
            told = run(graph, job.config(thread_id="t"), "invoke")
    assert "names another job" in told


def test_a_tool_without_its_runs_config_is_told_so(studio: Studio) -> None:
    """A node that starts a thread of its own and drops the config on the way."""
    guarded = studio.guard.tools([studio.tools["crop"]], agent="editor", gate="inline")
    (tool_,) = guarded
    told: list[str] = []

    def tools(state: Any) -> dict[str, Any]:
        request = {**state["messages"][-1].tool_calls[0], "type": "tool_call"}
        thread = threading.Thread(target=lambda: told.append(tool_.invoke(request).content))
        thread.start()
        thread.join()
        return {"messages": []}

    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        builder = StateGraph(State)
        builder.add_node("model", lambda state: {"messages": [crop(asset)]})
        builder.add_node("tools", tools)
        builder.add_edge(START, "model")
        builder.add_edge("model", "tools")
        builder.compile().invoke(GO, job.config(thread_id="t"))
    assert "belongs to no job" in told[0]


def test_a_call_in_another_thread_than_it_was_decided_in_is_told_so(studio: Studio) -> None:
    """The gate sees the thread, the tool is handed a config without it."""
    guarded = studio.guard.tools([studio.tools["crop"]])
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        graph = build(studio, [crop(asset)], {"e": ("editor", ["crop"])})
        graph.invoke(GO, job.config(thread_id="t"))
        request = {**crop(asset).tool_calls[0], "type": "tool_call"}
        told = guarded[0].invoke(request, job.config(thread_id="other"))
    assert "another thread of its job" in told.content


def test_a_call_of_another_agent_is_told_so(studio: Studio) -> None:
    guarded = studio.guard.tools([studio.tools["crop"]], agent="renderer")
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        graph = build(studio, [crop(asset)], {"e": ("editor", ["crop"])})
        graph.invoke(GO, job.config(thread_id="t"))
        request = {**crop(asset).tool_calls[0], "type": "tool_call"}
        told = guarded[0].invoke(request, job.config(thread_id="t"))
    assert "decided on for editor and would run as renderer" in told.content


@pytest.mark.unsound_wakes("the model itself gives two calls one id")
def test_two_calls_that_share_an_id_are_told_so(studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        one = call("crop", {"source": asset, "width": 4, "height": 4}, id="same")
        other = call("crop", {"source": asset, "width": 5, "height": 5}, id="same")
        graph = build(studio, [says(one, other)], {"e": ("editor", ["crop"])})
        state = graph.invoke(GO, job.config(thread_id="t"))
    assert any("two calls of one message share an id" in one.content for one in results(state))


def test_a_ledger_that_was_away_for_the_decision_only_is_told(
    studio: Studio, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = studio.guard.ledger
    record = ledger.record_decisions

    def away(*given: Any, **named: Any) -> None:
        monkeypatch.setattr(ledger, "record_decisions", record)
        raise LedgerUnavailable("the disk is away")

    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        graph = build(studio, [crop(asset)], {"e": ("editor", ["crop"])})
        monkeypatch.setattr(ledger, "record_decisions", away)
        told = run(graph, job.config(thread_id="t"), "invoke")
    assert told == "the ledger is unavailable, so nothing was done; try again later"


def test_what_the_gate_found_wrong_is_what_the_model_reads(
    studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "sk-proj-" + "abcdefghijklmnop1234" * 2
    cases: list[tuple[dict[str, Any], str]] = [
        ({"source": "logo.png", "width": 4, "height": 4}, "takes an asset id"),
        ({"source": "asset-" + "0" * 20, "width": 4, "height": 4}, "is no asset of this job"),
        ({"source": secret, "width": 4, "height": 4}, "holds a secret"),
    ]
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        for number, (arguments, sentence) in enumerate(cases):
            caplog.clear()
            script = [says(call("crop", arguments))]
            graph = build(studio, script, {"e": ("editor", ["crop"])})
            told = run(graph, job.config(thread_id=f"t{number}"), "invoke")
            assert sentence in told
            (line,) = refusals(caplog)
            assert sentence in line
            assert secret not in caplog.text


# --- the developer's log -----------------------------------------------------------------------


def test_denied_by_policy_is_logged_once(studio: Studio, caplog: pytest.LogCaptureFixture) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        script = [says(call("publish", {"source": asset, "to": "site"}))]
        graph = build(studio, script, {"e": ("publisher", ["publish"])})
        told = run(graph, job.config(thread_id="t"), "invoke")
    assert "is not queued for site" in told
    (line,) = refusals(caplog)
    where = f"in job {job.id}, thread 't', by export.queued: "
    assert line.startswith(f"refused: publish as publisher {where}")
    assert "is not queued for site" in line


def test_permitted_calls_log_no_refusal(studio: Studio, caplog: pytest.LogCaptureFixture) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        graph = build(studio, [crop(asset)], {"e": ("editor", ["crop"])})
        state = graph.invoke(GO, job.config(thread_id="t"))
    assert results(state)[-1].status == "success"
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


def broken_tool(studio: Studio, act: Callable[[], Any], *, stage: str | None) -> None:
    @tool
    def tell(source: str) -> str:
        """Tell what is in a picture."""
        act()
        return "nothing"

    if stage is None:
        studio.guard.bind(Binding(tell, stage=None, texts=["source"]))
    else:
        studio.guard.bind(Binding(tell, stage=stage, assets=["source"]))
    studio.tools["tell"] = tell


class Unusual(Exception):
    """An exception of somebody's own library."""


@pytest.mark.parametrize("error", [ValueError, KeyError, Unusual, OSError])
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_developers_exception_is_logged_with_its_traceback(
    studio: Studio, caplog: pytest.LogCaptureFixture, error: type[Exception], way: str
) -> None:
    def deep_in_the_tool() -> None:
        raise error("the path /srv/media/kim.png is gone")

    broken_tool(studio, deep_in_the_tool, stage="edit")
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        script = [says(call("tell", {"source": asset}))]
        graph = build(studio, script, {"e": ("editor", ["tell"])})
        told = run(graph, job.config(thread_id="t"), way)
    assert told.startswith(f"tell failed: {error.__name__}")
    assert "/srv/media" not in told  # the model reads no paths
    (logged,) = [one for one in caplog.records if one.exc_info]
    assert logged.levelno == logging.ERROR
    assert logged.getMessage() == f"tell as editor in job {job.id} raised an exception"
    assert "deep_in_the_tool" in caplog.text
    assert logged.name.startswith("agentguard.")


def test_a_secret_in_an_exception_is_left_out_of_the_log(
    studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "sk-proj-" + "abcdefghijklmnop1234" * 2

    def deep_in_the_tool() -> None:
        try:
            raise OSError(f"401 for {secret}")
        except OSError as error:
            raise Unusual("the vendor refused") from error

    broken_tool(studio, deep_in_the_tool, stage="edit")
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        graph = build(studio, [says(call("tell", {"source": asset}))], {"e": ("editor", ["tell"])})
        run(graph, job.config(thread_id="t"), "invoke")
    assert secret not in caplog.text
    assert "deep_in_the_tool" in caplog.text  # the traceback stays
    assert "Unusual: the vendor refused" in caplog.text


def test_an_exception_of_a_tool_without_media_is_logged_too(
    studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    def deep_in_the_tool() -> None:
        raise Unusual("no network")

    broken_tool(studio, deep_in_the_tool, stage=None)
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        graph = build(studio, [says(call("tell", {"source": "x"}))], {"e": ("editor", ["tell"])})
        with pytest.raises(Unusual):  # as it is raised without a guard
            graph.invoke(GO, job.config(thread_id="t"))
    (logged,) = [one for one in caplog.records if one.exc_info]
    assert "deep_in_the_tool" in caplog.text
    assert "tell as editor" in logged.getMessage()


def test_arguments_that_the_tools_own_schema_refuses_are_not_logged(
    studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    """Pydantic's message quotes what the model wrote."""
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        wrong = {"source": asset, "width": "Mrs Jane Doe", "height": 4}
        graph = build(studio, [says(call("crop", wrong))], {"e": ("editor", ["crop"])})
        run(graph, job.config(thread_id="t"), "invoke")
    assert "Jane Doe" not in caplog.text


def test_pausing_and_being_asked_are_no_errors(
    studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["likeness"])
        graph = build(studio, [says(call("publish", {"source": asset, "to": "team"}))])
        assert "__interrupt__" in graph.invoke(GO, job.config(thread_id="t"))
        graph.invoke(None, job.config(thread_id="t"))
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


def test_unknown_tools_are_logged(studio: Studio, caplog: pytest.LogCaptureFixture) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        graph = build(studio, [says(call("rm_rf", {"path": "/"}))])
        graph.invoke(GO, job.config(thread_id="t"))
    (line,) = refusals(caplog)
    assert line == (
        f"refused: rm_rf as no agent in job {job.id}, thread 't', by agentguard.unknown-tool:"
        " there is no tool rm_rf here; there is paint"
    )


def test_a_plain_toolnode_with_guarded_tools_says_which_line_is_missing(studio: Studio) -> None:
    guarded = studio.guard.tools([studio.tools["crop"]])
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        builder = StateGraph(State)
        builder.add_node("model", lambda state: {"messages": [crop(asset)]})
        builder.add_node("tools", ToolNode(guarded))
        builder.add_edge(START, "model")
        builder.add_edge("model", "tools")
        told = run(builder.compile(), job.config(thread_id="t"), "invoke")
    assert "protect(builder, guard, agents=...)" in told


def test_trap_12_the_copies_own_function_does_not_run(studio: Studio) -> None:
    guarded = studio.guard.tools([studio.tools["publish"]])[0]
    around = "called around its gate"
    with pytest.raises(ToolException, match=around):
        guarded.func("x", "site")  # type: ignore[attr-defined]
    assert around in str(guarded._run(source="x", to="site"))
    asset = {"source": "asset-" + "0" * 20, "to": "site"}
    for given, said in (
        (asset, "without a tool call id"),
        (call("publish", asset), "belongs to no job"),
        ({"source": "x", "to": "site", "extra": 1}, "has no argument"),
    ):
        assert said in str(guarded.invoke(given))
    assert studio.world.effects == []


# --- one refusal, one record ----------------------------------------------------------------------

WRONG = {
    "a path": {"source": "/etc/passwd", "width": 4, "height": 4},
    "an unknown asset": {"source": f"asset-{'0' * 20}", "width": 4, "height": 4},
    "another type": {"source": f"asset-{'0' * 20}", "width": "x", "height": 4},
    "another name": {"source": f"asset-{'0' * 20}", "width": 4, "height": 4, "depth": 1},
}


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("way", ["protect", "middleware", "inline"])
def test_a_refusal_is_recorded_once(studio: Studio, way: str, wrong: str, mode: str) -> None:
    made = says(call("crop", WRONG[wrong], id="c1"), id="m1")
    graph = {
        "protect": lambda: build(studio, [made]),
        "middleware": lambda: agent_of(
            [studio.tools["crop"]], [made], GuardMiddleware(studio.guard, agent="editor")
        ),
        "inline": lambda: agent_of(
            studio.guard.tools([studio.tools["crop"]], agent="editor", gate="inline"), [made]
        ),
    }[way]()
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        run(graph, job.config(thread_id="t"), mode)
    (record,) = refused_records(studio)
    assert (record["job"], record["agent"], record["tool"]) == (job.id, "editor", "crop")


def test_a_call_without_an_id_is_recorded_with_its_job(
    studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    (guarded,) = studio.guard.tools([studio.tools["crop"]], agent="editor")
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        guarded.invoke({"source": asset, "width": 4, "height": 4}, job.config(thread_id="t"))
    (record,) = refused_records(studio)
    assert (record["job"], record["agent"]) == (job.id, "editor")
    assert record["policy"] == "agentguard.no-call-id"
    (line,) = refusals(caplog)
    assert f"crop as editor in job {job.id}" in line


@pytest.mark.parametrize("gate", ["graph", "inline"])
@pytest.mark.parametrize("readable", [True, False])
@pytest.mark.parametrize("id_", [5, True, "x" * 300, "a\ud800", "tab\tid"], ids=ascii)
def test_an_id_of_any_kind_is_refused_and_recorded_once_at_most(
    studio: Studio, id_: Any, readable: bool, gate: Any
) -> None:
    """Whoever calls a tool by hand may give any: it raised TypeError for a number."""
    (guarded,) = studio.guard.tools([studio.tools["crop"]], agent="editor", gate=gate)
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        args = {"source": asset if readable else "/etc/passwd", "width": 4, "height": 4}
        made = {"name": "crop", "args": args, "id": id_, "type": "tool_call"}
        assert guarded.invoke(made, job.config(thread_id="t")).status == "error"
    assert len(refused_records(studio)) <= 1
    assert studio.world.effects == []
    studio.guard.verify()


def refused_records(studio: Studio) -> list[dict[str, Any]]:
    bodies = [json.loads(row["body"]) for row in studio.guard.ledger.all("SELECT * FROM records")]
    return [body for body in bodies if body["kind"] == "refused"]
