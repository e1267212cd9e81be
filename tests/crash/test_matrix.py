"""Every step of a call x kind of tool x durability x database: a real SIGKILL, then the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.__main__ import main
from tests.crash.aftermath import Processes, Uploads, differences, play
from tests.crash.cells import DATABASES, DURABILITIES, KINDS, STEPS, Cell, cells, expected
from tests.crash.table import expected_table
from tests.support.databases import drop_ledger, postgres_url


@pytest.mark.parametrize("cell", cells(), ids=lambda cell: cell.name)
def test_I8_I9_a_killed_process_has_one_effect_at_most_and_nothing_is_lost(
    cell: Cell,
    tmp_path: Path,
    uploads: Uploads,
    processes: Processes,
    request: pytest.FixtureRequest,
) -> None:
    if cell.database == "sqlite":
        assert differences(play(cell, tmp_path, uploads, processes)) == []
        return
    url = postgres_url(request.getfixturevalue("postgres"))
    try:
        assert differences(play(cell, tmp_path, uploads, processes, url)) == []
    finally:
        drop_ledger(url)


def test_the_table_of_the_documentation_is_what_the_matrix_must_find() -> None:
    text = (Path(__file__).parents[2] / "docs" / "explanation" / "crashes.md").read_text("utf-8")
    assert "\n".join(expected_table(cells(whole=True))) in text
    assert f"`make test` runs {len(cells())} of the cells" in text


def test_the_matrix_holds_every_combination() -> None:
    """Each step, kind, durability and database meet; an edit asks nobody."""
    held = {(c.step, c.kind, c.durability, c.database) for c in cells(whole=True)}
    asked = sum(step.asks for step in STEPS.values())
    each = len(DURABILITIES) * len(DATABASES)
    assert len(held) == (len(STEPS) * len(KINDS) - asked) * each
    assert {c.name for c in cells()} < {c.name for c in cells(whole=True)}
    assert len({expected(c) for c in cells()}) > 6


def test_words_that_no_cell_has_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["opaqe"])
    assert end.value.code == 2
    assert "no cell has opaqe" in capsys.readouterr().err
