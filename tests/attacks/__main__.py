"""`python -m tests.attacks`: every attack, where it is tried, and what it would break."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tests.attacks.corpus import ATTACKS
from tests.attacks.matrix import Attack
from tests.attacks.scenarios import SCENARIOS, ScenarioRow

TABLE = Path(__file__).with_name("coverage.toml")


def main() -> None:
    """Print a line per attack: its name, where it is written, its gates, what it attacks."""
    traps = tomllib.loads(TABLE.read_text("utf-8"))["traps"]
    rows: list[tuple[Attack | ScenarioRow, str]] = [
        *((one, "data") for one in SCENARIOS),
        *((one, "code") for one in ATTACKS),
    ]
    for one, kind in sorted(rows, key=lambda row: row[0].name):
        against = {
            id for each in one.covers for id in traps.get(each, {"against": [each]})["against"]
        }
        ids = sorted(against, key=lambda id: (id[0], int(id[1:])))
        print(f"{one.name:<66} {kind}  {' '.join(one.gates):<40} {' '.join(ids)}")


if __name__ == "__main__":
    main()
