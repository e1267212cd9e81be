"""The whole matrix with a summary: `make crash`, or `python -m tests.crash [WORD...]`.

Words choose cells by what is in their names (`opaque`, `exit`, `finish.in`). The exit code is 1 if
any cell is not what it must be, and 2 if no cell has all these words.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from textwrap import fill

from tests.crash.aftermath import Outcome, Processes, Uploads, differences, play
from tests.crash.cells import Cell, cells
from tests.crash.table import table
from tests.support.databases import drop_ledger, postgres_server, postgres_url


def main(arguments: list[str]) -> int:
    """Play the cells that are asked for; returns the exit code."""
    chosen = _chosen(arguments)
    print(f"{len(chosen)} cells, no random choices", flush=True)
    uploads, processes, began = Uploads(), Processes(), time.monotonic()
    outcomes: list[Outcome] = []
    bad = 0
    stack = ExitStack()
    stack.callback(uploads.close)
    server = None
    if any(cell.database == "postgres" for cell in chosen):
        server = stack.enter_context(postgres_server())
    with stack:
        for number, cell in enumerate(chosen):
            with tempfile.TemporaryDirectory(prefix="agentguard-crash-") as folder:
                url = postgres_url(server) if cell.database == "postgres" else None
                outcome = play(cell, Path(folder), uploads, processes, url)
                if url is not None:
                    drop_ledger(url)
            found = differences(outcome)
            bad += bool(found)
            outcomes.append(outcome)
            if found:
                print(f"FAILED {cell.name}: {'; '.join(found)}", flush=True)
            elif number % 100 == 99:
                print(f"{number + 1} done", flush=True)
    for line in table(outcomes):
        print(line)
    effects = Counter(len(o.effects) for o in outcomes if o.cell.kind != "none")
    took = time.monotonic() - began
    print(f"{len(outcomes)} processes killed in {took:.0f} s, {bad} cells failed")
    print(f"effects per cell with an effect outside: {dict(sorted(effects.items()))}")
    return 1 if bad else 0


def _chosen(arguments: list[str]) -> list[Cell]:
    whole = cells(whole=True)
    known = list(dict.fromkeys(part for cell in whole for part in cell.name.split("-")))
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"words:\n{fill(', '.join(known), 96, break_on_hyphens=False)}",
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="part of a cell's name")
    words = parser.parse_args(arguments).words
    chosen = [cell for cell in whole if all(word in cell.name for word in words)]
    if not chosen:
        parser.error(f"no cell has {' and '.join(words)} in its name; there are {', '.join(known)}")
    return chosen


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
