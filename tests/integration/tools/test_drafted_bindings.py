"""`agentguard bind` drafts each wild tool right, or says what a person has to decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import BaseTool, tool

import agentguard
from agentguard.bindings.compilation import compiled
from agentguard.bindings.compiled_binding import Arg, CompiledBinding
from agentguard.bindings.draft import draft
from agentguard.errors import BindingError, ConfigError
from tests.integration.calls.test_polled_operations import tools
from tests.integration.media.test_clip_lists import assemble
from tests.integration.tools.test_convert_and_publish import resize_and_publish
from tests.support.desk import Vendor, desk

PUBLIC = {name: getattr(agentguard, name) for name in agentguard.__all__}


def made(worker: BaseTool) -> CompiledBinding:
    """What the Binding compiles to that a draft's source makes: every argument has a meaning."""
    return compiled(drafted(worker)).binding


def drafted(worker: BaseTool) -> agentguard.Binding:
    binding = eval(draft(worker), {**PUBLIC, worker.name: worker})
    assert isinstance(binding, agentguard.Binding)
    return binding


def test_a_clip_list_is_drafted_right() -> None:
    binding = made(assemble)
    assert dict(binding.assets) == {"clips[].source": "path"}
    assert set(binding.plain) == {"clips[].start", "clips[].end", "fps"}
    assert list(binding.outputs) == ["output_path"]
    assert binding.stage == "render"


def test_the_halves_of_long_work_are_drafted_with_what_is_to_decide(tmp_path: Path) -> None:
    submit, result = tools(Vendor())
    first, second = made(submit), made(result)
    assert dict(first.assets) == {"image_url": "data-url"}
    assert (first.texts, first.starts, first.stage) == (("prompt",), "?", "generate")
    assert dict(second.operations) == {"request_id": ("?",)}
    assert second.urls == ("?",)
    with desk(tmp_path) as at:
        for worker in (submit, result):  # and nobody can use it before it is decided
            with pytest.raises(ConfigError, match=r"'\?'"):
                at.studio.guard.bind(drafted(worker))


def test_a_tool_that_returns_blocks_is_drafted_right() -> None:
    @tool
    def generate_image(prompt: str, size: int = 512) -> list[dict[str, Any]]:
        """Generate an image."""
        return []

    binding = made(generate_image)
    assert (binding.texts, binding.plain, binding.stage) == (("prompt",), ("size",), "generate")


def test_a_tool_that_converts_and_publishes_gets_no_draft_but_the_advice() -> None:
    with pytest.raises(BindingError, match="split it into"):
        draft(resize_and_publish)


def test_a_tool_that_only_publishes_is_drafted() -> None:
    @tool
    def upload(source: str, channel: str, caption: str = "") -> str:
        """Upload a rendered video to a channel."""
        return ""

    binding = made(upload)
    assert (binding.stage, binding.destination, binding.effect) == (
        "export",
        Arg("channel"),
        "opaque",
    )


@pytest.mark.parametrize("name", ["file", "output_path", "save_path", "filename", "out"])
def test_where_a_tool_writes_is_never_drafted_as_the_models_to_say(name: str) -> None:
    scope: dict[str, Any] = {"tool": tool}
    exec(f"@tool\ndef draw(prompt: str, {name}: str) -> str:\n    'Draw.'\n    return ''\n", scope)
    binding = made(scope["draw"])
    assert list(binding.outputs) == [name]
