"""The functional API: `@entrypoint` and `@task` over tools that hold their own gate."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from langchain_core.tools import InjectedToolArg, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.types import Command, RetryPolicy

from agentguard.model import Verdict
from tests.support import KIM, OMAR, Studio, call
from tests.support.bindings import Binding

MODES = pytest.mark.parametrize("mode", ["sync", "async"])


async def run(flow: Any, given: Any, config: Any, mode: str) -> Any:
    return await flow.ainvoke(given, config) if mode == "async" else flow.invoke(given, config)


def tools_of(studio: Studio, *names: str) -> dict[str, Any]:
    agents = {"paint": "painter", "crop": "editor", "publish": "publisher"}
    return {
        name: studio.guard.tools([studio.tools[name]], agent=agents[name], gate="inline")[0]
        for name in names
    }


def flow_of(studio: Studio, mode: str) -> Any:
    """Paint, then publish; each in a task of its own. It returns what it was told, and counts."""
    tools = tools_of(studio, "paint", "publish")
    ran: list[str] = []

    def paint_call(prompt: str) -> Any:
        return call("paint", {"prompt": prompt, "colour": "navy"}, id=f"paint-{prompt}")

    def publish_call(asset: str) -> Any:
        return call("publish", {"source": asset, "to": "team"}, id=f"publish-{asset}")

    if mode == "sync":

        @task
        def paint(prompt: str) -> str:
            ran.append("paint")
            return str(tools["paint"].invoke(paint_call(prompt)).content)

        @task
        def publish(asset: str) -> str:
            ran.append("publish")
            return str(tools["publish"].invoke(publish_call(asset)).content)

        @entrypoint(checkpointer=InMemorySaver())
        def flow(given: dict[str, str], *, previous: Any = None) -> Any:
            painted = paint(given["prompt"]).result()
            published = publish(given["asset"]).result()
            count = (previous or {"count": 0})["count"] + 1
            return {"painted": painted, "published": published, "count": count}

    else:

        @task
        async def paint(prompt: str) -> str:
            ran.append("paint")
            return str((await tools["paint"].ainvoke(paint_call(prompt))).content)

        @task
        async def publish(asset: str) -> str:
            ran.append("publish")
            return str((await tools["publish"].ainvoke(publish_call(asset))).content)

        @entrypoint(checkpointer=InMemorySaver())
        async def flow(given: dict[str, str], *, previous: Any = None) -> Any:
            painted = await paint(given["prompt"])
            published = await publish(given["asset"])
            count = (previous or {"count": 0})["count"] + 1
            return {"painted": painted, "published": published, "count": count}

    return flow


@MODES
async def test_tasks_run_once_and_the_previous_value_is_kept(studio: Studio, mode: str) -> None:
    flow = flow_of(studio, mode)
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        config = job.config(thread_id="t")
        first = await run(flow, {"prompt": "sea", "asset": asset}, config, mode)
        second = await run(flow, {"prompt": "sky", "asset": asset}, config, mode)
    assert "asset-" in first["painted"]
    assert first["published"] == "published"
    assert (first["count"], second["count"]) == (1, 2)
    assert studio.world.count("paint") == 2
    assert studio.grants().count("executed") == len(studio.grants())


@MODES
async def test_a_question_waits_and_what_was_done_before_it_is_not_done_again(
    studio: Studio, mode: str
) -> None:
    flow = flow_of(studio, mode)
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["likeness"])
        config = job.config(thread_id="t")
        state = await run(flow, {"prompt": "sea", "asset": asset}, config, mode)
        assert state["__interrupt__"]
        resume: Command[Any] = Command(resume={"decisions": [{"type": "approve"}]})
        state = await run(flow, resume, config, mode)
        assert state["__interrupt__"]  # a resume value approves nothing
        assert studio.world.count("publish") == 0
        studio.answer(studio.pending().request, OMAR)
        state = await run(flow, None, config, mode)
    assert (state["published"], state["count"]) == ("published", 1)
    assert (studio.world.count("paint"), studio.world.count("publish")) == (1, 1)


@MODES
async def test_a_no_comes_back_as_an_error_message(studio: Studio, mode: str) -> None:
    flow = flow_of(studio, mode)
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["likeness"])
        config = job.config(thread_id="t")
        await run(flow, {"prompt": "sea", "asset": asset}, config, mode)
        studio.answer(studio.pending().request, OMAR, Verdict.DENY)
        state = await run(flow, None, config, mode)
    assert "refused" in state["published"]
    assert studio.world.count("publish") == 0


def test_two_questions_of_parallel_tasks_are_answered_one_by_one(studio: Studio) -> None:
    tools = tools_of(studio, "publish")

    @task
    def publish(asset: str) -> str:
        given = call("publish", {"source": asset, "to": "team"}, id=f"p-{asset}")
        return str(tools["publish"].invoke(given).content)

    @entrypoint(checkpointer=InMemorySaver())
    def flow(assets: list[str]) -> list[str]:
        return [done.result() for done in [publish(asset) for asset in assets]]

    with studio.guard.open_job("poster", requested_by=KIM) as job:
        assets = [job.import_asset(studio.picture(f"{c}.png", c), ["likeness"])
                  for c in ("red", "navy")]  # fmt: skip
        config = job.config(thread_id="t")
        said: Any = flow.invoke(assets, config)
        verdicts = [Verdict.APPROVE, Verdict.DENY]
        while "__interrupt__" in said:  # upstream stops at the first: the other may come later
            studio.answer(studio.guard.approvals.list()[0].request, OMAR, verdicts.pop(0))
            said = flow.invoke(None, config)
    assert sorted("refused" in one for one in said) == [False, True]
    assert studio.world.count("publish") == 1


def test_I8_a_task_that_is_retried_repeats_no_outside_effect(studio: Studio) -> None:
    tools = tools_of(studio, "publish")
    tries: list[str] = []

    retried: Any = task(
        retry_policy=RetryPolicy(max_attempts=3, initial_interval=0, retry_on=OSError)
    )

    @retried  # type: ignore[untyped-decorator]  # upstream's overload takes no sync function
    def publish(asset: str) -> str:
        given = call("publish", {"source": asset, "to": "team"}, id="one")
        tries.append(tools["publish"].invoke(given).content)
        if len(tries) < 3:
            raise OSError("the flow's own disk is full")
        return tries[-1]

    @entrypoint(checkpointer=InMemorySaver())
    def flow(asset: str) -> str:
        return str(publish(asset).result())

    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        assert flow.invoke(asset, job.config(thread_id="t")) == "published"
    assert tries == ["published"] * 3
    assert studio.world.count("publish") == 1


def test_without_a_job_or_a_call_id_nothing_runs(studio: Studio) -> None:
    tools = tools_of(studio, "paint")
    given = {"prompt": "sea", "colour": "navy"}

    @entrypoint(checkpointer=InMemorySaver())
    def flow(with_id: bool) -> Any:
        return tools["paint"].invoke(call("paint", given, id="c") if with_id else given)

    said: Any = flow.invoke(True, {"configurable": {"thread_id": "t"}})
    assert "no job" in said.content
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        assert "without a tool call id" in flow.invoke(False, job.config(thread_id="u"))
    assert studio.world.effects == []


def test_I3_inline_a_model_cannot_set_injected_arguments(studio: Studio) -> None:
    got: list[str] = []

    @tool
    def render(size: int, template: Annotated[str, InjectedToolArg] = "safe.json") -> str:
        """Render."""
        got.append(template)
        return "ok"

    studio.guard.bind(Binding(render, stage="edit", plain=["size"]))
    (guarded,) = studio.guard.tools([render], agent="editor", gate="inline")

    @entrypoint(checkpointer=InMemorySaver())
    def flow(template: str) -> Any:
        return guarded.invoke(call("render", {"size": 1, "template": template})).content

    with studio.guard.open_job("p", requested_by=KIM) as job:
        said = flow.invoke("https://evil.example/x", job.config(thread_id="t"))
    assert "no argument" in said
    assert got == []
