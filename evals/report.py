"""What a run says at the end: one table, what must not have happened, and how to read it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from evals.guards import STAMPED
from evals.replay import Result
from evals.stats import by_family, median, wilson

_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """So many of so many, with its intervals."""

    hits: int
    of: int
    wilson: tuple[float, float]
    by_family: tuple[float, float]

    def text(self) -> str:
        """`3/40   8% [3-20]`"""
        if not self.of:
            return "n/a"
        low, high = (f"{100 * bound:.0f}" for bound in self.by_family)
        share = f"{100 * self.hits / self.of:.0f}%"
        return f"{self.hits:>2}/{self.of:<2} {share:>4} [dim]{f'{low}-{high}':>6}[/dim]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One guard's line of the table.

    Attributes:
        asked: questions per benign job.
        ms: median time per call of benign jobs in graph and guard; None without jobs.
    """

    guard: str
    attacks: Share
    twins: Share
    not_applicable: int
    asked: float
    ms: float | None

    def line(self) -> dict[str, Any]:
        """As one line of JSON."""

        def share(one: Share) -> dict[str, Any]:
            return {
                "hits": one.hits,
                "of": one.of,
                "wilson95": [round(bound, 4) for bound in one.wilson],
                "by_family95": [round(bound, 4) for bound in one.by_family],
            }

        return {
            "summary": self.guard,
            "attacks_through": share(self.attacks),
            "jobs_done": share(self.twins),
            "not_applicable": self.not_applicable,
            "asked_per_job": round(self.asked, 3),
            "ms_per_call": None if self.ms is None else round(self.ms, 2),
        }


def rows(results: Iterable[Result], *, seed: int) -> list[Row]:
    """One row per guard, in the order they came."""
    by_guard: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_guard[result.guard].append(result)
    return [_row(guard, found, seed=seed) for guard, found in by_guard.items()]


def table(rows: Sequence[Row]) -> Table:
    """The table, 80 columns wide."""
    made = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    made.add_column("guard", no_wrap=True, min_width=16)
    for name in ("attacks through", "benign jobs done"):
        made.add_column(name, no_wrap=True)
    for name in ("asked", "ms/call"):
        made.add_column(name, no_wrap=True, justify="right")
    for row in rows:
        ms = "" if row.ms is None else f"{row.ms:.1f}"
        made.add_row(row.guard, row.attacks.text(), row.twins.text(), f"{row.asked:.2f}", ms)
    return made


def print_report(console: Console, results: Sequence[Result], *, seed: int, seconds: float) -> None:
    """The whole report."""
    made = rows(results, seed=seed)
    console.print(table(made))
    scenarios = {result.scenario for result in results}
    families = {result.family for result in results}
    console.print(
        f"\n[dim]{len(scenarios)} scenarios in {len(families)} families, {len(results)} runs in"
        f" {seconds:.0f} s, seed {seed}. Counted on executed effects. In brackets: 95 %, by cluster"
        " bootstrap over families (all or none: Wilson over families); --json has Wilson over"
        " scenarios too. What can't be done to a guard at all (n/a) is left out of its count, so"
        " the numbers behind the / differ. asked: questions to people per benign job. ms/call:"
        " median of benign jobs, tools' own time left out.[/dim]",
        highlight=False,
    )
    bad = [result for result in results if result.bad]
    for result in bad[:_MOST_SHOWN]:
        console.print(
            f"[bold red]✗[/bold red] {result.guard} [bold]{result.outcome}[/bold]"
            f" {result.scenario} ({result.kind}): {escape('; '.join(result.because))}",
            highlight=False,
        )
    if len(bad) > _MOST_SHOWN:
        console.print(f"[bold red]✗[/bold red] and {len(bad) - _MOST_SHOWN} more; see --json")
    lost = [r for r in results if r.judged and r.outcome == "stopped" and r.because]
    for result in lost:
        console.print(
            f"[yellow]![/yellow] {result.guard} stopped {result.scenario}, and with it what should"
            f" have happened: {escape('; '.join(result.because))}",
            highlight=False,
        )
    judged = [result for result in results if result.judged]
    if judged and not any(result.bad for result in judged):
        names = ", ".join(sorted({result.guard for result in judged}))
        console.print(
            f"[green]✓[/green] {names}: no attack through, no benign job blocked"
            f" ({_people(results)})",
            highlight=False,
        )


_MARKS = {"through": "[red]✗[/red]", "stopped": "[green]✓[/green]", "done": "[green]✓[/green]",
          "blocked": "[red]✗[/red]", "n/a": "[dim]·[/dim]", "error": "[red]![/red]"}  # fmt: skip


def _people(results: Iterable[Result]) -> str:
    """Whose word the last line rests on: people are the part that no guard can vouch for."""
    stamped = [r for r in results if r.guard == STAMPED and r.kind == "attack"]
    through = sum(result.outcome == "through" for result in stamped)
    if not stamped:
        return "with careful people"
    return (
        "with careful people; with people who approve everything,"
        f" {through} get{'s' * (through == 1)} through"
    )


def print_details(console: Console, results: Sequence[Result]) -> None:
    """Scenario by scenario: how each guard did with the attack, and with the benign job."""
    guards = list(dict.fromkeys(result.guard for result in results))
    made = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    made.add_column("scenario", no_wrap=True)
    for number in range(1, len(guards) + 1):
        made.add_column(str(number), no_wrap=True)
    found = {(r.scenario, r.kind, r.guard): _MARKS[r.outcome] for r in results}
    for name in dict.fromkeys(result.scenario for result in results):
        cells = [
            " ".join(found.get((name, kind, guard), " ") for kind in ("attack", "twin"))
            for guard in guards
        ]
        made.add_row(name, *cells)
    console.print(made)
    legend = ", ".join(f"{number} {guard}" for number, guard in enumerate(guards, 1))
    console.print(
        f"[dim]First mark: attack stopped ✓ or through ✗; second: job done ✓ or blocked ✗; · n/a."
        f" {legend}[/dim]\n",
        highlight=False,
    )


def _row(guard: str, found: Sequence[Result], *, seed: int) -> Row:
    twins = [
        result
        for result in found
        if result.kind == "twin" and result.outcome in ("done", "blocked")
    ]
    times = [1000 * result.seconds / result.calls for result in twins if result.calls]
    return Row(
        guard=guard,
        attacks=_share(found, "attack", "through", seed=seed),
        twins=_share(found, "twin", "done", seed=seed),
        not_applicable=sum(result.outcome == "n/a" for result in found),
        asked=sum(result.asked for result in twins) / len(twins) if twins else 0.0,
        ms=median(times) if times else None,
    )


def _share(found: Sequence[Result], kind: str, hit: str, *, seed: int) -> Share:
    families: dict[str, list[bool]] = defaultdict(list)
    for result in found:
        if result.kind == kind and result.outcome not in ("n/a", "error"):
            families[result.family].append(result.outcome == hit)
    outcomes = [outcome for group in families.values() for outcome in group]
    return Share(
        hits=sum(outcomes),
        of=len(outcomes),
        wilson=wilson(sum(outcomes), len(outcomes)),
        by_family=by_family(families, seed=seed),
    )
