"""Proof that the attacks can succeed: one control of the guard is taken out, and they do.

    python -m tests.attacks.mutants [MUTANT ...] [--all]

prints, for each control taken out, which attacks then do harm (or find their thread broken). By
default each mutant faces the attacks it is there for; `--all` lets it face every one. It exits 1
if a mutant survives. `test_mutants.py` asks for the first attack only.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evals.controls import MUTANTS, Mutant, dropped
from tests.attacks.corpus import ATTACKS
from tests.attacks.driving import Column
from tests.attacks.matrix import Attack
from tests.attacks.scenarios import SCENARIOS, ScenarioRow, played
from tests.attacks.test_attacks import Grounds, opened


@dataclass(frozen=True, slots=True)
class Aim:
    """The attacks that a mutant should let through.

    Args:
        attacks: a pattern of their names; each of its alternatives finds one that succeeds.
        behind: names of the mutants without what else stops these attacks: alone it survives.
    """

    attacks: str
    behind: tuple[str, ...] = ()

    @property
    def others(self) -> tuple[Mutant, ...]:
        """The mutants without what stands behind it."""
        return tuple(MUTANTS[name] for name in self.behind)


AIMS: Mapping[str, Aim] = {
    "digest": Aim("destination_changes|moved_destination"),
    "single-use": Aim("replay-old|concurrent-resumes|crash_after|changes_between"),
    "asked-is-permitted": Aim("shape|rejecting_resume|another_request"),
    "routes": Aim("a_tool_routes|a_tool_writes|tool-routes-to-export"),
    "forged-state": Aim("forged-state-in-a-send"),
    "task-ids": Aim("replay-old"),
    "done-before": Aim("sibling_waits"),
    "tool-table": Aim("original_put_back", behind=("foreign-tools", "unguarded-runs")),
    "enclosing-job": Aim("config_names"),
    "signatures": Aim("signed_answer"),
    "eligibility": Aim("self-approval"),
    "provider-tools": Aim("provider_runs"),
    "same-tool": Aim("another_tool_under"),
    "sealed": Aim("edge_and_a_node"),
    "thread": Aim("another_request"),
    "paused": Aim("question_of_its_own"),
}
"""By the mutant's name in `evals/controls.py`."""


def succeed(
    mutants: Sequence[Mutant], folder: Path, *, attacks: str
) -> Generator[tuple[str, str], None, None]:
    """(attack at a gate, what it did) for each attack that gets through.

    Args:
        mutants: without which controls.
        attacks: a pattern of their names.
    """
    rows: list[Attack | ScenarioRow] = [*ATTACKS, *SCENARIOS]
    with contextlib.closing(Grounds(folder)) as grounds:
        for one in rows:
            if re.search(attacks, one.name) is None:
                continue
            for gate in one.gates:
                column = Column(gate=gate, mode=one.modes[0], saver="memory")  # type: ignore[arg-type]
                with dropped(mutants):
                    try:
                        harm = _harm(one, column, grounds)
                    except AssertionError as error:  # what the attack itself looks at
                        harm = [f"it is not as it should be: {error}"]
                    except Exception as error:  # neither harm nor good
                        said = f"{type(error).__name__}: {error!s:.60}"
                        print(f"    ({gate}-{one.name} broke: {said})")
                        harm = []
                if harm:
                    yield f"{gate}-{one.name}", "; ".join(harm)


def _harm(one: Attack | ScenarioRow, column: Column, grounds: Grounds) -> list[str]:
    if isinstance(one, ScenarioRow):
        result = played(one.scenario, "attack", column)
        return list(result.because)
    with opened(grounds, one, column, guarded=True) as way:
        one.run(way)
        return list(way.harm())


def main(arguments: list[str]) -> int:
    """Run the mutants that are named, or all of them."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.attacks.mutants",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="mutants:\n" + "\n".join(f"  {name:<18} {MUTANTS[name].says}" for name in AIMS),
    )
    parser.add_argument("mutants", nargs="*", metavar="MUTANT", help="see below; default: all")
    parser.add_argument("--all", action="store_true", help="every attack on each of them")
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.mutants if name not in AIMS]
    if unknown:
        parser.error(f"no mutant {', '.join(unknown)}; there are {', '.join(AIMS)}")
    survived = []
    for name in asked.mutants or AIMS:
        print(f"{name}: {MUTANTS[name].says}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            aim = AIMS[name]
            attacks = "" if asked.all else aim.attacks
            mutants = (MUTANTS[name], *aim.others)
            found = list(succeed(mutants, Path(folder), attacks=attacks))
        for attack, harm in found:
            print(f"    {attack}: {harm:.100}", flush=True)
        if not found:
            survived.append(name)
            print("    SURVIVED", flush=True)
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
