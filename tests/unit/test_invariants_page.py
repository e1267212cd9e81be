"""Every invariant that code or tests name is on the page that says what it is."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEFINED = set(
    re.findall(
        r"\*\*(I\d+)\*\*", (ROOT / "docs" / "explanation" / "invariants.md").read_text("utf-8")
    )
)
NAME = re.compile(r"\bI(?:[1-9]|1\d)\b")


@pytest.mark.parametrize("folder", ["agentguard", "tests", "evals", "docs"])
def test_every_invariant_that_is_named_is_defined(folder: str) -> None:
    files = [file for end in ("py", "md", "toml") for file in (ROOT / folder).rglob(f"*.{end}")]
    named = {name for file in files for name in NAME.findall(file.read_text("utf-8"))}
    assert named
    assert named <= DEFINED
