"""A Figure: one thing that was measured, its aim, and whether it was met."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

TIMES = "\u00d7"
"""The unit of a ratio."""

_BEGIN, _END = "<!-- bench: {} -->", "<!-- /bench -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured thing.

    Args:
        subject: the subject of `python -m bench` that measured it.
        what: what was measured.
        value: in `unit`; a ratio has the multiplication sign as its unit.
        aim: what it should be at most, or with `at_least` at least; None: there is none.
        detail: what a reader needs besides, e.g. both sides of a ratio.
    """

    subject: str
    what: str
    value: float
    unit: str
    aim: float | None = None
    at_least: bool = False
    detail: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the aim was met; None without one."""
        if self.aim is None:
            return None
        return self.value >= self.aim if self.at_least else self.value <= self.aim

    def cells(self) -> tuple[str, str, str, str, str]:
        """what, figure, aim, met and detail as text."""
        aim = ""
        if self.aim is not None:
            aim = f"{'≥' if self.at_least else '≤'} {_number(self.aim)} {self.unit}"
        met = {None: "", True: "yes", False: "no"}[self.met]
        return self.what, f"{_number(self.value)} {self.unit}", aim, met, self.detail

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


_HEADS = ("what", "figure", "aim", "met", "detail")


def table(figures: Iterable[Figure]) -> Table:
    """All figures, for a terminal."""
    made = Table(box=None, pad_edge=False)
    for head in _HEADS:
        made.add_column(head, justify="right" if head in ("figure", "aim") else "left")
    subject = None
    for figure in figures:
        if subject not in (None, figure.subject):
            made.add_row()
        subject = figure.subject
        made.add_row(*figure.cells())
    return made


def markdown(figures: Sequence[Figure]) -> str:
    """One subject's figures as a Markdown table; columns that nothing fills are left out."""
    rows = [figure.cells() for figure in figures]
    kept = [n for n in range(len(_HEADS)) if any(row[n] for row in rows)]
    lines = [
        [_HEADS[n] for n in kept],
        ["---" for _ in kept],
        *([r[n] for n in kept] for r in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_into(page: Path, figures: Sequence[Figure]) -> list[str]:
    """Put each subject's table between its marks in a page; returns the subjects it holds.

    Raises:
        ValueError: the page has no mark `<!-- bench: SUBJECT -->` with its end.
    """
    text = page.read_text("utf-8")
    marks = re.findall(_BEGIN.format(r"([\w-]+)"), text)
    if not marks or text.count(_END) != len(marks):
        raise ValueError(f"{page}: expected {_BEGIN.format('SUBJECT')} … {_END}, got {marks}")
    written = []
    for subject in marks:
        found = [figure for figure in figures if figure.subject == subject]
        if found:
            begin = _BEGIN.format(subject)
            before, rest = text.split(begin, 1)
            _, after = rest.split(_END, 1)
            text = f"{before}{begin}\n{markdown(found)}\n{_END}{after}"
            written.append(subject)
    page.write_text(text, "utf-8")
    return written


def _number(value: float) -> str:
    """Three figures are all that a noisy machine tells."""
    if value == int(value) and abs(value) < 1000:
        return str(int(value))
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
