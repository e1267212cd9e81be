"""What the guard costs, next to the same thing without it, in one run.

Each SUBJECT measures one thing; without any, all run, which takes some minutes. Machines differ and
are noisy, so both sides of a ratio run in turn and their medians are compared; `no` in the last run
is worth a second one on a quiet machine before it is worth an issue.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from bench.figures import Figure, markdown, table, write_into
from bench.rounds import Scale

SUBJECTS = {
    "graphs": "a permitted call through the guard ÷ the same call without it",
    "asking": "ask a person and go on ÷ LangChain's own way",
    "deciding": "the decision alone, with 50 policies",
    "commits": "commits and fsyncs per call",
    "ledger": "claims and records per second, by how many wait",
    "workers": "many processes over one ledger",
    "log": "proofs and verification of a long log",
    "jobs": "ten thousand open jobs",
    "history": "opening a job over a million old calls",
    "importing": "the first import",
    "profile": "where a permitted call's time goes",
}
_SHOWN_AFTER = 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subjects asked for and print one table; returns the exit code."""
    parser = _parser()
    asked = parser.parse_args(argv)
    unknown = [name for name in asked.subjects if name not in SUBJECTS]
    if unknown:
        parser.error(f"no subject {', '.join(unknown)}; there are {', '.join(SUBJECTS)}")
    chosen = [name for name in SUBJECTS if not asked.subjects or name in asked.subjects]
    if asked.quick and asked.into:
        parser.error("--quick measures too little for a page; leave out --into")
    progress = Console(stderr=True)
    figures: list[Figure] = []
    with _quiet(), progress.status("") as status:

        def say(text: str) -> None:
            status.update(text) if progress.is_terminal else progress.print(text)

        scale = Scale(rounds=3 if asked.quick else asked.rounds, quick=asked.quick, say=say)
        for name in chosen:
            began = time.monotonic()
            say(f"{name}: {SUBJECTS[name]}")
            figures += importlib.import_module(f"bench.{name}").measure(scale)
            progress.print(f"{name}: {time.monotonic() - began:.0f} s", style="dim")
    if asked.quick:  # an aim is for the full size, and for more than a few rounds
        figures = [replace(figure, aim=None) for figure in figures]
    _show(asked, figures, progress)
    return 0


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings: a benchmark opens and ends jobs that nobody waits for."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _show(asked: argparse.Namespace, figures: list[Figure], progress: Console) -> None:
    if asked.json is not None:
        text = json.dumps([figure.as_json() for figure in figures], indent=1)
        asked.json.write_text(text + "\n", "utf-8")
    for page in asked.into:
        progress.print(f"{page}: wrote {', '.join(write_into(page, figures)) or 'nothing'}")
    if asked.markdown:
        for name in dict.fromkeys(figure.subject for figure in figures):
            found = [figure for figure in figures if figure.subject == name]
            print(f"### {name}\n\n{markdown(found)}\n")
        return
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table(figures))
    met = [figure.met for figure in figures if figure.met is not None]
    judged = f"{sum(met)} of {len(met)} aims met" if met else "no aims judged"
    quick = ": a quick run measures too little" if asked.quick else ""
    console.print(f"{judged}{quick}, on {os.cpu_count()} cores")


def _parser() -> argparse.ArgumentParser:
    subjects = "\n".join(f"  {name:<10} {what}" for name, what in SUBJECTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"subjects:\n{subjects}\n\nexamples:\n"
        "  python -m bench                         all of it, one table at the end\n"
        "  python -m bench graphs deciding         two subjects\n"
        "  python -m bench --quick                 small numbers: does it still work?\n"
        "  python -m bench --into docs/reference/benchmarks.md docs/explanation/scale.md\n"
        "                                          write the tables there\n",
    )
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help="see below; default: all")
    parser.add_argument("--rounds", type=int, default=60, help="timed runs of each side (60)")
    parser.add_argument("--quick", action="store_true", help="small numbers, and no aims")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables instead")
    into = "write each subject's table between its marks in these pages"
    parser.add_argument("--into", type=Path, metavar="PAGE", nargs="+", default=(), help=into)
    return parser


if __name__ == "__main__":
    sys.exit(main())
