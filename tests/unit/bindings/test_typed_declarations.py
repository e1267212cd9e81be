"""What mypy --strict accepts and refuses of a declaration: one process for all lines."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

LINES = """
from typing import Annotated, Any
from langchain_core.tools import BaseTool, StructuredTool, tool
from agentguard import *
from agentguard.langgraph import protect

Picture = Annotated[str, Asset()]

@media_tool(stage="edit")
def crop(source: Picture, width: int, file: Annotated[str, Output(".png")]) -> str:
    return "cropped"

@media_tool(stage=None, to="tavily")
@tool
def search(query: Annotated[str, Text()]) -> str:
    return ""

@media_tool(stage="generate", to=None, result={"data[].b64_json": Asset("base64")})
async def paint(prompt: Annotated[str, Text()]) -> dict[str, Any]:
    return {}

def probe(attempt: Attempt) -> bool | None:
    return None

said: str = crop("a.png", 8, file="b.png")
name: str = search.name
Binding(search, stage="export", args={"a": To({"x": "#x"}), "b": Fixed(1)}, effect=Probeable(probe))
Binding(crop, stage="edit", name="crop2", result=Asset("path", folder=None), mcp=None)
crop(1, 8, file="b.png")  # refused
crop("a.png", file="b.png")  # refused
media_tool(stage="edti")(crop)  # refused
media_tool()(crop)  # refused
media_tool(crop)  # refused
media_tool(stage="edit", assets=["a"])(crop)  # refused
Asset("folder")  # refused
To("x")  # refused
Plain(7)  # refused
Probeable(len)  # refused
Binding(search, stage="edit", args={"a": "text"})  # refused
Binding(search, stage="edit", effect="opaque")  # refused
Binding(search)  # refused
"""


def test_mypy_accepts_and_refuses_declarations(tmp_path: Path) -> None:
    file = tmp_path / "declared.py"
    file.write_text(LINES, "utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent",
               f"--cache-dir={tmp_path / 'cache'}", "--no-error-summary", str(file)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = {int(match) for match in re.findall(r"declared\.py:(\d+): error", done.stdout)}
    lines = enumerate(LINES.splitlines(), 1)
    assert found == {number for number, line in lines if "# refused" in line}, done.stdout
