"""In the wild: tools that return media as base64 content blocks, in every shape there is."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool

from tests.support import KIM
from tests.support.bindings import Binding
from tests.support.desk import desk, mp4, wav
from tests.support.media_files import png

PNG = png()
TEXT = base64.b64encode(PNG).decode()
URL = f"data:image/png;base64,{TEXT}"


SHAPES: dict[str, Any] = {
    "langchain standard image": {"type": "image", "base64": TEXT, "mime_type": "image/png"},
    "langchain v0 image": {"type": "image", "source_type": "base64", "data": TEXT,
                           "mime_type": "image/png"},
    "langchain file": {"type": "file", "base64": TEXT, "mime_type": "image/png"},
    "openai chat": {"type": "image_url", "image_url": {"url": URL, "detail": "low"}},
    "openai chat, short": {"type": "image_url", "image_url": URL},
    "openai responses": {"type": "input_image", "image_url": URL},
    "openai file": {"type": "file", "file": {"filename": "a.png", "file_data": URL}},
    "anthropic": {"type": "image", "source": {"type": "base64", "media_type": "image/png",
                                             "data": TEXT}},
    "gemini": {"type": "media", "mime_type": "image/png", "data": TEXT},
    "gemini bytes": {"type": "media", "mime_type": "image/png", "data": PNG},
    "mcp image": {"type": "image", "data": TEXT, "mimeType": "image/png"},
    "mcp embedded": {"type": "resource", "resource": {"uri": "mem://x", "blob": TEXT,
                                                      "mimeType": "image/png"}},
    "wrapped lines": {"type": "image", "base64": "\n".join(TEXT[i:i + 76]
                                                           for i in range(0, len(TEXT), 76))},
}  # fmt: skip


def test_every_shape_of_block_becomes_an_asset_and_no_base64_is_read(tmp_path: Path) -> None:
    shape: list[Any] = []

    @tool
    def generate_image(prompt: str) -> list[dict[str, Any]]:
        """Generate an image."""
        return [{"type": "text", "text": "Here you are."}, shape[-1]]

    with desk(tmp_path) as at:
        at.bind(Binding(generate_image, stage="generate", texts=["prompt"]))
        with at.studio.guard.open_job("poster", requested_by=KIM) as job:
            for name, block in SHAPES.items():
                shape.append(block)
                answer = at.act(job, "generate_image", prompt=name)
                assert answer.status == "success", (name, answer.content)
                assert "block 1: asset-" in answer.content, name
                assert TEXT[:60] not in str(answer.content), name
                assert isinstance(answer.content, str), name
        (made,) = at.made()  # all are the same bytes
        assert made["sha256"] == hashlib.sha256(PNG).hexdigest()
        assert made["labels"] == {"generated"}


def test_audio_and_video_come_as_blocks_too(tmp_path: Path) -> None:
    sounds, film = wav(), mp4()

    @tool
    def narrate(prompt: str) -> list[dict[str, Any]]:
        """Narrate."""
        coded = base64.b64encode(sounds).decode()
        return [{"type": "input_audio", "input_audio": {"data": coded, "format": "wav"}},
                {"type": "audio", "base64": coded, "mime_type": "audio/wav"},
                {"type": "video", "base64": base64.b64encode(film).decode()}]  # fmt: skip

    with desk(tmp_path) as at:
        at.bind(Binding(narrate, stage="generate", texts=["prompt"]))
        with at.studio.guard.open_job("film", requested_by=KIM) as job:
            answer = at.act(job, "narrate", prompt="waves")
        assert answer.status == "success", answer.content
        assert {made["media_type"] for made in at.made()} == {"audio/wav", "video/mp4"}


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"type": "image_url", "image_url": {"url": "https://evil.example/x"}}, "not in the"),
        ({"type": "image", "url": "file:///etc/passwd"}, "not in the message"),
        ({"type": "file", "file_id": "file-1"}, "not in the message"),
        ({"type": "image", "base64": "!!!"}, "not base64"),
        ({"type": "image", "base64": base64.b64encode(b"\x7fELF\x02").decode()}, "failed"),
        ({"type": "image", "base64": base64.b64encode(PNG[:-20]).decode()}, "failed"),
        ({"type": "image"}, "not in the message"),
    ],
)
def test_a_block_without_sound_media_in_it_fails_the_call(
    tmp_path: Path, block: dict[str, Any], said: str
) -> None:
    @tool
    def generate_image(prompt: str) -> list[dict[str, Any]]:
        """Generate an image."""
        return [block]

    with desk(tmp_path) as at:
        at.bind(Binding(generate_image, stage="generate", texts=["prompt"]))
        with at.studio.guard.open_job("poster", requested_by=KIM) as job:
            answer: ToolMessage = at.act(job, "generate_image", prompt="x")
        assert answer.status == "error"
        assert said in answer.content
        assert at.made() == []
