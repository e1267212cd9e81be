"""`python -m evals`: what agentguard stops, what it lets pass, and what that costs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from evals.guards import COMPARED, GUARDS
from evals.replay import Kind, Result, replay_all
from evals.report import print_details, print_report, rows
from evals.scenario import FOLDER, Scenario, ScenarioError, load_all

DEFAULT_JSON = Path("build/evals.jsonl")
KINDS: tuple[Kind, ...] = ("attack", "twin")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Replay attacks and their benign twins through guards, side by side.

Each scenario is a file in evals/scenarios: a workspace, what a hijacked agent does (the
attack), the same job done properly (the twin), and the effects that tell them apart: files
at destinations, bytes at a vendor, runs of tool bodies. The agent does all that the attack
says; no model is needed.

**First things to try**

- `python -m evals run`: everything, through all guards (make evals)

- `python -m evals run --only byte-swap --details`: one scenario, guard by guard

- `python -m evals run --guard agentguard --guard none`: two guards

- `python -m evals run --guard broken-claim`: agentguard with a control taken out

- `python -m evals list`: the scenarios and the guards

Exits 0 if agentguard stopped every attack and let every twin pass, 1 if it did not, 2 if it
was asked for something that is not there.""",
)

_ALL_SCENARIOS = Annotated[
    list[str] | None, typer.Option("--only", metavar="NAME", help="Only this scenario (repeat).")
]
_Folder = Annotated[
    Path, typer.Option("--scenarios", metavar="FOLDER", help="Where scenario files are.")
]


@app.command()
def run(
    only: _ALL_SCENARIOS = None,
    guard: Annotated[
        list[str] | None,
        typer.Option("--guard", metavar="NAME", help="Only this guard (repeat); see `list`."),
    ] = None,
    json_file: Annotated[
        Path,
        typer.Option("--json", metavar="FILE", help="One line per run, one more per guard."),
    ] = DEFAULT_JSON,
    show_details: Annotated[
        bool, typer.Option("--details", help="Also a line per scenario.")
    ] = False,
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="Runs at a time.")
    ] = os.cpu_count() or 1,
    seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap; all else is fixed.")] = 1,
    scenarios: _Folder = FOLDER,
) -> None:
    """Replay scenarios through guards; print a table and write JSON lines."""
    errors = Console(stderr=True)
    chosen = _chosen(errors, scenarios, only)
    names = guard or [each.name for each in COMPARED]
    if unknown := sorted(set(names) - set(GUARDS)):
        errors.print(f"no guard {', '.join(unknown)}; there are {', '.join(GUARDS)}")
        raise typer.Exit(2)
    runs = [(each, kind, name) for name in names for each in chosen for kind in KINDS]
    start = time.perf_counter()
    results: list[Result] = []
    made = replay_all(runs, processes=min(processes, len(runs)))
    quiet = not errors.is_terminal
    for result in track(made, "replaying", total=len(runs), console=errors, disable=quiet,
                        transient=True):  # fmt: skip
        results.append(result)
    console = Console(soft_wrap=False)
    if show_details:
        print_details(console, results)
    print_report(console, results, seed=seed, seconds=time.perf_counter() - start)
    _write(json_file, results, seed=seed)
    console.print(f"[dim]{json_file}: {len(results)} runs[/dim]", highlight=False)
    if any(result.bad for result in results):
        raise typer.Exit(1)


@app.command("list")
def list_(scenarios: _Folder = FOLDER) -> None:
    """Show the scenarios, by family, and the guards."""
    console = Console()
    chosen = _chosen(Console(stderr=True), scenarios, None)
    made = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    last = ""
    for each in sorted(chosen, key=lambda one: (one.family, one.name)):
        if each.family != last:
            made.add_row(f"[bold]{each.family}[/bold]", "")
        made.add_row(f"  {each.name}", each.title)
        last = each.family
    console.print(made)
    default = {each.name for each in COMPARED}
    console.print(f"\n[dim]guards[/dim]  {', '.join(sorted(default))}", highlight=False)
    console.print(f"[dim]also[/dim]    {', '.join(sorted(set(GUARDS) - default))}", highlight=False)


def _chosen(errors: Console, folder: Path, only: Sequence[str] | None) -> list[Scenario]:
    try:
        found = load_all(folder)
    except ScenarioError as error:
        errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    if unknown := sorted(set(only or ()) - {each.name for each in found}):
        errors.print(f"no scenario {', '.join(unknown)}; `python -m evals list` shows them")
        raise typer.Exit(2)
    return [each for each in found if not only or each.name in only]


def _write(file: Path, results: Sequence[Result], *, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as lines:
        for result in results:
            lines.write(json.dumps(result.line(), ensure_ascii=False) + "\n")
        for row in rows(results, seed=seed):
            lines.write(json.dumps({**row.line(), "seed": seed}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    app()
