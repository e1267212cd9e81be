"""`make model`: explore every scope, then every mutant, and print what was seen."""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter

from tests.model.explore import Report, explore, kill
from tests.model.moves import SCOPES
from tests.model.mutants import HUNTS


def main() -> int:
    """Returns 1 if an invariant breaks, a scope reaches nothing, or a mutant survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--scope", choices=list(SCOPES), action="append", help="only this one")
    parser.add_argument("--deeper", type=int, default=0, metavar="N",
                        help="N moves more than each scope says")  # fmt: skip
    parser.add_argument("--no-mutants", action="store_true", help="only the real code")
    arguments = parser.parse_args()
    logging.getLogger("agentguard").addHandler(logging.NullHandler())
    sound = True
    seen: Counter[str] = Counter()
    states = transitions = 0
    for scope in SCOPES.values():
        if arguments.scope and scope.name not in arguments.scope:
            continue
        report = explore(scope, depth=scope.depth + arguments.deeper)
        sound &= report.counterexample is None and set(scope.goals) <= report.reached
        seen += report.seen
        states += report.states
        transitions += report.transitions
        print(line(report), flush=True)
        if report.counterexample is not None:
            print(report.counterexample)
    looked = ", ".join(f"{name} {count:,}" for name, count in sorted(seen.items()))
    print(f"{states:,} states, {transitions:,} transitions; looked at {looked}")
    return 0 if (arguments.no_mutants or mutants()) and sound else 1


def line(report: Report) -> str:
    """One scope in one line."""
    end = "all there is" if report.complete else f"depth {report.depth}"
    return (
        f"{report.scope:<8} {report.states:>7,} states {report.transitions:>8,} transitions"
        f"  {end:<12} {report.seconds:5.1f} s"
    )


def mutants() -> bool:
    """Drop each control; whether every mutant died as it should."""
    killed = 0
    for hunt in HUNTS:
        hunted = kill(hunt, SCOPES[hunt.scope])
        report, alone, behind = hunted.dropped, hunted.alone, hunted.behind
        killed += hunted.is_killed
        print(f"\n{hunt.says}: {'SURVIVED' if report.counterexample is None else 'killed'}")
        if hunt.behind:
            line_ = "" if alone is None or not alone.second_line else " (it stopped a move)"
            print(f"  alone it is covered by: {hunt.covered}{line_}; killed without that, too")
        if alone is not None and alone.counterexample is not None:
            print("  alone it is NOT covered")
        if behind is not None and behind.counterexample is not None:
            print("  what stands behind it is killed WITHOUT it, so that this proves nothing")
        if report.counterexample is not None:
            print(report.counterexample, flush=True)
    covered = sum(1 for hunt in HUNTS if hunt.behind)
    print(f"\nmutants killed {killed}/{len(HUNTS)}; {covered} of them only together with the"
          " control behind")  # fmt: skip
    return killed == len(HUNTS)


if __name__ == "__main__":
    sys.exit(main())
