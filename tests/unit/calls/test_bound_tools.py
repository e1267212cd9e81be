"""A guard's tools are bound until its first job is opened: each job has the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from langchain_core.tools import tool

from agentguard import Asset, BindingError, Guard, JobError, Text, media_tool
from tests.support import KIM, write_workspace


@media_tool(stage=None)
def first(words: Annotated[str, Text()]) -> str:
    """Look something up."""
    return words


@media_tool(stage=None)
def second(words: Annotated[str, Text()]) -> str:
    """Look something else up."""
    return words


@media_tool(stage=None)
def broken(words: str) -> str:
    """Say what no guard takes."""
    return words


def opened(folder: Path) -> Guard:
    return Guard.from_config(folder / "agentguard.toml", tools=[])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_workspace(tmp_path)
    return tmp_path


def test_tools_are_bound_after_the_guard_was_opened(folder: Path) -> None:
    with opened(folder) as guard:
        guard.bind(first)
        guard.bind(second)
        assert {"first", "second"} <= guard.bound.keys()


def test_tools_that_come_after_the_first_job_are_refused_by_name(folder: Path) -> None:
    with opened(folder) as guard:
        guard.bind(first)
        with guard.open_job("poster", requested_by=KIM):
            pass
        with pytest.raises(BindingError, match=r"second: .* before the first open_job"):
            guard.bind(second)
        assert "second" not in guard.bound


def test_job_that_was_never_opened_seals_nothing(folder: Path) -> None:
    with opened(folder) as guard:
        with pytest.raises(JobError):
            guard.open_job("poster", requested_by="nobody@acme.example")
        with pytest.raises(JobError):
            guard.rejoin_job("job-0", by=KIM)
        guard.bind(first)
        assert "first" in guard.bound


def test_bind_that_fails_leaves_the_guard_open_for_another(folder: Path) -> None:
    with opened(folder) as guard:
        with pytest.raises(BindingError):
            guard.bind(first, broken)
        assert "first" not in guard.bound
        guard.bind(first)
        assert "first" in guard.bound


def test_nothing_to_bind_is_fine_at_any_time(folder: Path) -> None:
    with opened(folder) as guard, guard.open_job("poster", requested_by=KIM):
        guard.bind()


def test_each_guard_has_its_own_first_job(folder: Path) -> None:
    with opened(folder) as guard, guard.open_job("poster", requested_by=KIM):
        pass
    with opened(folder) as later:
        later.bind(first)
        assert "first" in later.bound


def test_a_declared_tool_that_was_not_handed_over_is_told_apart_from_an_unknown_one(
    folder: Path,
) -> None:
    @tool
    def stray(words: str) -> str:
        """Say what nobody declared."""
        return words

    with opened(folder) as guard:
        with pytest.raises(BindingError, match=r"second is declared, .* without it: .*tools="):
            guard.bound_for(tool(second))
        with pytest.raises(BindingError, match="stray is not bound; declare a function with"):
            guard.bound_for(stray)
        guard.bind(second)
        assert guard.bound_for(tool(second)).name == "second"


def test_a_declared_function_that_runs_outside_of_every_job_is_warned_of_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Beside a guard that has bound it, it is most likely a job that was forgotten."""

    @media_tool(stage="review")
    def look(source: Annotated[str, Asset()]) -> dict[str, list[str]]:
        """Look at a picture."""
        return {"findings": []}

    look("plain.png")
    second("harmless")
    assert caplog.messages == []
    with opened(folder) as guard:
        guard.bind(look, second)
        second("harmless")
        look("once.png")
        look("twice.png")
        with guard.unguarded("a check of my own"):
            look("told.png")
    look("closed.png")
    (line,) = caplog.messages
    assert line.startswith("look runs outside of every job, where nothing guards it")
    assert "guard.open_job" in line
