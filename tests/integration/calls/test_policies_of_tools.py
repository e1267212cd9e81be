"""Policies that read what a tool is asked to do, through a whole graph and a whole guard."""

from __future__ import annotations

from pathlib import Path

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from langgraph.types import Command

from agentguard.errors import PolicyError
from tests.support import CONFIG, Studio, build, call, open_studio, says
from tests.support.bindings import Binding

WIDE = """
@id("acme.wide-crops")
@advice("{tool} makes more than 100 pixels, so a person must look at it")
forbid (principal, action == Action::"crop", resource)
when { context.args.width > 100 }
unless { context.approvals >= 1 };
"""


def studio_with(folder: Path, policy: str) -> Studio:
    (folder / "policies").mkdir()
    (folder / "policies" / "own.cedar").write_text(policy, "utf-8")
    return open_studio(folder)


def refusal(folder: Path, policy: str) -> str:
    with pytest.raises(PolicyError) as caught:
        studio_with(folder, policy)
    return str(caught.value)


@pytest.mark.parametrize(("width", "asks"), [(100, False), (101, True)])
def test_call_is_asked_about_by_what_it_does(tmp_path: Path, width: int, asks: bool) -> None:
    studio = studio_with(tmp_path, WIDE)
    with studio.guard.open_job("p", requested_by="kim@acme.example") as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        script = [says(call("crop", {"source": asset, "width": width, "height": 5}))]
        graph = build(studio, script, {"t": ("editor", ["crop"])})
        config = job.config(thread_id="t")
        state = graph.invoke({"messages": [("user", "go")]}, config)
        assert len(studio.world.effects) == (0 if asks else 1)
        if not asks:
            (said,) = [m for m in state["messages"] if isinstance(m, ToolMessage)]
            assert said.status == "success"
        else:
            waiting = studio.pending()
            studio.answer(waiting.request, "omar@acme.example")
            graph.invoke(Command(resume=True), config)
            assert len(studio.world.effects) == 1
    studio.guard.close()


@pytest.mark.parametrize(
    ("change", "says_what"),
    [
        (('Action::"crop"', 'Action::"corp"'), 'got Action::"corp", expected a bound tool: crop'),
        (("args.width", "args.widht"), "widht"),
        (("args.width > 100", 'args.width == "100"'), "breaks the schema for crop"),
        (('action == Action::"crop"', 'action == Action::"edit"'), 'in Action::"stage:edit"'),
    ],
)
def test_guard_does_not_open_with_a_policy_that_never_fires(
    tmp_path: Path, change: tuple[str, str], says_what: str
) -> None:
    message = refusal(tmp_path, WIDE.replace(*change))
    assert "own.cedar, line 2: policy acme.wide-crops" in message
    assert says_what in message


def test_policy_may_name_the_tools_of_the_guard_itself(tmp_path: Path) -> None:
    policy = WIDE.replace('"crop"', '"export_asset"').replace(
        "context.args.width > 100", 'context.args.caption like "*free*"'
    )
    studio_with(tmp_path, policy).guard.close()


def test_tool_that_does_not_fit_the_policies_is_not_bound(tmp_path: Path) -> None:
    policy = WIDE.replace('== Action::"crop"', 'in Action::"stage:edit"').replace(
        "context.args.width > 100", "context.args has width && context.args.width > 100"
    )
    studio = studio_with(tmp_path, policy)

    @tool
    def trim(source: str, width: float) -> str:
        """Trim."""
        return source

    binding = Binding(trim, stage="edit", assets=["source"], plain=["width"])
    with pytest.raises(PolicyError, match="wide-crops breaks the schema for trim"):
        studio.guard.bind(binding)
    assert "trim" not in studio.guard.bound
    studio.guard.close()


def test_tool_of_a_later_session_is_named_in_the_configuration(tmp_path: Path) -> None:
    @tool
    def trim(source: str, width: int) -> str:
        """Trim."""
        return source

    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "own.cedar").write_text(WIDE.replace('"crop"', '"trim"'), "utf-8")
    config = CONFIG.replace("[people]", 'other_tools = ["trim"]\n[people]', 1)
    studio = open_studio(tmp_path, config=config)
    studio.guard.bind(Binding(trim, stage="edit", assets=["source"], plain=["width"]))
    studio.guard.close()
