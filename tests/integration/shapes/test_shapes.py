"""Each of the sixty shapes comes to what its row says; without a line of the guard, to silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.shapes.bench import Kind, Line
from tests.integration.shapes.rows import SHAPES
from tests.integration.shapes.shape import KINDS, Open, Refused, Run, Shape, Works, run


def _ids(shapes: list[Shape]) -> list[str]:
    return [f"{shape.number:02}-{shape.make.__name__}" for shape in shapes]


ROWS = pytest.mark.parametrize("shape", SHAPES, ids=_ids(SHAPES))


@ROWS
@pytest.mark.parametrize("kind", KINDS)
def test_shape_comes_to_what_its_row_says(shape: Shape, kind: Kind, tmp_path: Path) -> None:
    found = run(shape, kind, tmp_path)
    outcome = shape.outcome
    if isinstance(outcome, Works) or kind not in outcome.kinds:
        assert found.works(shape, kind), found
        return
    assert not found.works(shape, kind), f"it works now: say so in its row: {found}"
    assert "site" not in found.effects
    if isinstance(outcome, Refused):
        assert set(found.effects) <= {"crop"}
        assert found.says(outcome.sentence), found
    if isinstance(outcome, Open) and outcome.sentence:
        assert found.says(outcome.sentence), found


NAMES: dict[Line, str] = {
    "tools": "guard.tools(",
    "protect": "protect(",
    "middleware": "GuardMiddleware",
}


def is_told(shape: Shape, kind: Kind, line: Line, found: Run) -> bool:
    """Whether somebody is told of a forgotten line, or the guard decided without it."""
    decided = found.asked if kind == "ask" else found.says("is not queued for site")
    refused = isinstance(shape.outcome, Refused) and found.says(shape.outcome.sentence)
    return decided or refused or found.says(NAMES[line]) or shape.effects == 0


@ROWS
def test_shape_without_one_line_of_the_guard_has_no_silent_effect(
    shape: Shape, tmp_path: Path
) -> None:
    def folder(name: str) -> Path:
        made = tmp_path / name
        made.mkdir()
        return made

    for line in sorted(run(shape, "deny", folder("all")).used):
        found = run(shape, "deny", folder(line), forgot=line)
        assert ("site" in found.effects) == (line in shape.silent), found
        asked = run(shape, "ask", folder(f"{line}-asked"), forgot=line)
        unasked = "web" in asked.effects and not asked.asked
        assert unasked == (line in shape.silent), asked
        if line not in shape.silent:
            assert is_told(shape, "deny", line, found), found
            assert is_told(shape, "ask", line, asked), asked


def test_only_an_effect_in_a_node_itself_may_be_silent() -> None:
    """A function that nobody declared, row 36; README's limits list it."""
    assert {(shape.number, *shape.silent) for shape in SHAPES if shape.silent} == {(36, "tools")}
