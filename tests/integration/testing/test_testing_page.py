"""The page docs/how-to/testing.md: its file of tests passes in a new project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[3]
TOOLS = '''
from typing import Annotated

from PIL import Image

from agentguard import Asset, Output, media_tool


@media_tool(stage="edit")
def crop(
    source: Annotated[str, Asset()], width: int, height: int, file: Annotated[str, Output(".png")]
) -> str:
    """Crop a picture from its top left corner, in pixels."""
    Image.open(source).crop((0, 0, width, height)).save(file)
    return "cropped"


TOOLS = [crop]
'''


def test_tests_of_the_page_pass_in_a_new_project(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "testing.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "test_page.py").write_text(block)
    (tmp_path / "myproject").mkdir()
    (tmp_path / "myproject" / "__init__.py").touch()
    (tmp_path / "myproject" / "tools.py").write_text(TOOLS)
    Image.new("RGB", (16, 16), "navy").save(tmp_path / "logo.png")
    people = [each for name in ("kim", "omar") for each in ("--person", f"{name}@acme.example")]
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    run: dict[str, Any] = {
        "cwd": tmp_path,
        "env": env,
        "capture_output": True,
        "text": True,
        "check": False,
    }
    made = subprocess.run([sys.executable, "-m", "agentguard.cli", "init", *people], **run)
    assert made.returncode == 0, made.stderr
    before = sorted(tmp_path.rglob(".agentguard/*"))
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run([sys.executable, "-m", "pytest", *options], **run)
    wanted = len(re.findall(r"^def test_", block, re.MULTILINE))
    assert f"{wanted} passed" in done.stdout, done.stdout + done.stderr
    assert sorted(tmp_path.rglob(".agentguard/*")) == before  # no ledger, no store
