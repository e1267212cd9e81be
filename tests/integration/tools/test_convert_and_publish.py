"""In the wild: a tool that converts and publishes at once. It is refused, with the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import tool

from agentguard.errors import BindingError
from tests.support.bindings import Arg, Binding
from tests.support.desk import desk

PUBLISHED: list[str] = []


@tool
def resize_and_publish(
    source: str, width: int, to: str, caption: str = "", output: str = "out.png"
) -> str:
    """Resize a picture and publish it to a channel."""
    PUBLISHED.append(to)
    return "published"


MEANING: dict[str, Any] = {"assets": ["source"], "plain": ["width"], "texts": ["caption"]}


@pytest.mark.parametrize(
    ("stage", "more"),
    [
        ("render", {"outputs": ["output"], "destination": Arg("to")}),
        ("edit", {"outputs": ["output"], "destination": Arg("to")}),
        ("export", {"outputs": ["output"], "destination": Arg("to"), "effect": "opaque"}),
        ("queue", {"outputs": ["output"], "destination": Arg("to")}),
    ],
)
def test_converting_and_publishing_at_once_is_refused_with_the_advice_to_split_it(
    tmp_path: Path, stage: str, more: dict[str, Any]
) -> None:
    with desk(tmp_path) as at, pytest.raises(BindingError, match="split it into") as caught:
        at.studio.guard.bind(Binding(resize_and_publish, stage=stage, **MEANING, **more))
    assert "resize_and_publish" in str(caught.value)
    assert PUBLISHED == []


def test_an_export_returns_no_urls_to_fetch_and_no_operation() -> None:
    @tool
    def post(source: str) -> str:
        """Post."""
        return ""

    words: dict[str, Any] = {"assets": ["source"], "destination": "team", "effect": "opaque"}
    for more in ({"urls": ["url"]}, {"starts": "id"}, {"remembers": True}):
        with pytest.raises(BindingError, match="export stage"):
            Binding(post, stage="export", **words, **more)


def test_the_split_halves_are_bound_as_the_advice_says(tmp_path: Path) -> None:
    @tool
    def resize(source: str, width: int, output: str = "out.png") -> str:
        """Resize a picture."""
        return ""

    with desk(tmp_path) as at:
        at.bind(Binding(resize, stage="render", assets=["source"], plain=["width"],
                        outputs=["output"]))  # fmt: skip
        assert at.studio.guard.export_tool().name == "export_asset"
