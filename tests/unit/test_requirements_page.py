"""Every requirement is proved by a test that names it, or is said to be planned."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "explanation" / "requirements.md").read_text("utf-8")
STATES = dict(re.findall(r"^\| (S\d+) \|.*\| ((?:tested|planned).*) \|$", PAGE, re.MULTILINE))
NAMED = {
    f"S{number}"
    for folder in ("tests", "evals")
    for end in ("py", "toml")
    for file in (ROOT / folder).rglob(f"*.{end}")
    if file != Path(__file__)
    for number in re.findall(r"(?<![A-Za-z0-9])S(\d{1,2})(?![0-9A-Za-z])", file.read_text("utf-8"))
}


@pytest.mark.parametrize("number", range(1, 43))
def test_requirement_is_tested_or_planned(number: int) -> None:
    state = STATES[f"S{number}"]
    assert (f"S{number}" in NAMED) == state.startswith("tested"), state
    if state.startswith("planned"):
        assert re.match(r"planned\. \S", state)


def test_nothing_else_is_named() -> None:
    assert set(STATES) == {f"S{number}" for number in range(1, 43)}
    assert set(STATES) >= NAMED
