"""Nothing that was found is left untried: the traps by column, the invariants by test.

The table is coverage.toml; that the tests it names exist is read from their files, which costs
less than collecting them.
"""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.attacks import test_attacks, test_scenarios
from tests.attacks.corpus import ATTACKS
from tests.attacks.matrix import GATES, Attack
from tests.attacks.savers import Mode, Saver
from tests.attacks.scenarios import SCENARIOS, ScenarioRow

ROWS: list[Attack | ScenarioRow] = [*ATTACKS, *SCENARIOS]
ROOT = Path(__file__).parents[2]
TABLE = tomllib.loads((ROOT / "tests" / "attacks" / "coverage.toml").read_text("utf-8"))
INVARIANTS = [f"I{number}" for number in range(1, 13)]
NUMBERED = [f"trap-{number}" for number in range(1, 18)]


@functools.cache
def functions(file: str) -> frozenset[str]:
    """The names of a test module's tests."""
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return frozenset(
        node.name
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name.startswith("test_")
    )


def exists(test: str) -> bool:
    kind, _, name = test.partition(":")
    if kind == "round":
        return any(one.name == name for one in ATTACKS)
    if kind == "scenario":
        return any(one.name == name for one in SCENARIOS)
    file, _, name = test.partition("::")
    return name in functions(file)


def uncovered(id: str, trap: dict[str, Any]) -> list[str]:
    """The columns in which nothing tries a trap, and no reason is given."""
    tried = {
        (gate, mode, saver)
        for one in ROWS
        if id in one.covers
        for gate in one.gates
        for mode in one.modes
        for saver in one.savers
    }
    missing = []
    for gate in GATES:
        if gate in trap or "nowhere" in trap:
            continue
        for mode in ("invoke",) if "mode" in trap else get_args(Mode):
            savers = ("memory",) if "checkpointer" in trap else get_args(Saver)
            missing += [f"{gate}-{mode}-{saver}" for saver in savers
                        if (gate, mode, saver) not in tried]  # fmt: skip
    return missing


def test_every_numbered_trap_is_in_the_table() -> None:
    assert set(NUMBERED) <= set(TABLE["traps"])


@pytest.mark.parametrize("id", sorted(TABLE["traps"]))
def test_a_trap_is_tried_in_every_column_or_says_why_not(id: str) -> None:
    trap = TABLE["traps"][id]
    assert uncovered(id, trap) == []
    for test in trap.get("tests", ()):
        assert exists(test), test
    if "nowhere" in trap:
        assert trap["tests"]
    for gate in GATES:  # a reason that is not needed is not true
        if gate in trap:
            assert not any(id in one.covers and gate in one.gates for one in ROWS), gate


def test_every_attack_says_what_it_tries_and_is_run() -> None:
    assert len({one.name for one in ROWS}) == len(ROWS)
    for one in ROWS:
        assert one.covers, one.name
        assert one.covers <= {*TABLE["traps"], *stated_ids()}, one.name
    params = [*test_attacks.GUARDED, *test_scenarios.GUARDED]
    run = {param.values[0].name for param in params}  # type: ignore[union-attr]
    assert run == {one.name for one in ROWS}


def stated_ids() -> set[str]:
    """The invariants and requirements that docs/ states."""
    folder = ROOT / "docs" / "explanation"
    pages = [(folder / name).read_text("utf-8") for name in ("invariants.md", "requirements.md")]
    return set(re.findall(r"\b[IS]\d+\b", " ".join(pages)))


def test_a_trap_says_what_it_would_break() -> None:
    stated = stated_ids()
    for id, trap in TABLE["traps"].items():
        assert trap["against"], id
        assert set(trap["against"]) <= stated, id


def test_every_attack_harms_a_bare_graph_or_says_why_not() -> None:
    harmless = {one.name for one in ATTACKS if not one.bare}
    assert harmless == set(TABLE["harmless"])


@pytest.mark.parametrize("invariant", INVARIANTS)
def test_an_invariant_has_three_tests(invariant: str) -> None:
    tests = TABLE["invariants"][invariant]
    assert len(set(tests)) >= 3
    for test in tests:
        assert exists(test), test
