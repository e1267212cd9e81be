"""The table of outcomes, as `make crash` prints it and docs/explanation/crashes.md holds it."""

from __future__ import annotations

from collections.abc import Iterable

from tests.crash.aftermath import Outcome
from tests.crash.cells import STEPS, Cell, Kind, expected

_COLUMNS: dict[Kind, str] = {
    "broker": "`export_asset` (through the broker)",
    "idempotent": "own uploader with a probe, `Idempotent` or `Probeable`",
    "opaque": "own uploader, `Opaque`",
    "none": "edit",
}


def _said(at_death: int, grant: str, reconciled: str, final: str) -> str:
    sent = "sent" if at_death else "not sent"
    if grant != "unknown":
        return f"{sent}; {'no Grant yet' if grant == 'none' else grant}"
    found = f"reconcile: {final}" if reconciled == final else f"person: {final}"
    return f"{sent}; unknown → {found}"


def table(outcomes: Iterable[Outcome]) -> list[str]:
    """Markdown lines: step x kind → was it sent, the Grant after the sweep → what ended it.

    Args:
        outcomes: what was found; a cell of the table holds everything that was.
    """
    found: dict[tuple[str, Kind], list[str]] = {}
    for outcome in outcomes:
        kind: Kind = "idempotent" if outcome.cell.kind == "probeable" else outcome.cell.kind
        said = _said(outcome.at_death, outcome.grant, outcome.reconciled, outcome.final)
        row = found.setdefault((outcome.cell.step, kind), [])
        if kind == "none":
            said = said.removeprefix("not sent; ").replace("no Grant yet", "not run")
        if said not in row:
            row.append(said)
    return _lines(found)


def expected_table(cells: Iterable[Cell]) -> list[str]:
    """The same from what must come of cells."""
    outcomes = []
    for cell in cells:
        must = expected(cell)
        outcomes.append(
            Outcome(cell=cell, exit_code=0, at_death=must.at_death, grant=must.grant,
                    reconciled=must.reconciled, final=must.final)
        )  # fmt: skip
    return table(outcomes)


def _either(said: list[str]) -> str:
    """All that was found of one cell; what they begin with alike is said once."""
    first, _, _ = said[0].partition("; ")
    if len(said) > 1 and all(each.startswith(f"{first}; ") for each in said):
        return f"{first}; {' or '.join(each.removeprefix(f'{first}; ') for each in said)}"
    return " or ".join(said)


def _lines(found: dict[tuple[str, Kind], list[str]]) -> list[str]:
    lines = [f"| dies at | {' | '.join(_COLUMNS.values())} |", "|---" * 5 + "|"]
    for name, step in STEPS.items():
        cells = [_either(found.get((name, kind), ["-"])) for kind in _COLUMNS]
        if any(cell != "-" for cell in cells):
            lines.append(f"| `{name}` {step.says} | {' | '.join(cells)} |")
    return lines
