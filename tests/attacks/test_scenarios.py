"""The scenarios of `evals/` at every gate: each attack stopped, each honest job let through."""

from __future__ import annotations

import itertools

import pytest

from evals.replay import replay
from tests.attacks.driving import Column
from tests.attacks.matrix import columns
from tests.attacks.scenarios import SCENARIOS, ScenarioRow, played, with_a_call_afterwards

LET_THROUGH = ("none", "hitl-rubber-stamp", "broken-policy")
"""Guards that an attack must get through, the first one that it can be tried on."""

GUARDED = [
    pytest.param(row, column, id=f"{column}-{row.name}")
    for row in SCENARIOS
    for column in columns(row)
]
TWINS = [
    pytest.param(row, next(itertools.islice(columns(row), number % len(row.gates), None)),
                 id=row.name)
    for number, row in enumerate(SCENARIOS)
]  # fmt: skip


@pytest.mark.parametrize(("row", "column"), GUARDED)
def test_the_attack_is_stopped_and_its_thread_is_still_of_use(
    row: ScenarioRow, column: Column
) -> None:
    result = played(with_a_call_afterwards(row.scenario), "attack", column)
    assert (result.outcome, result.because) == ("stopped", ()), result


@pytest.mark.parametrize(("row", "column"), TWINS)
def test_the_same_job_done_properly_passes(row: ScenarioRow, column: Column) -> None:
    result = played(row.scenario, "twin", column)
    assert (result.outcome, result.because, result.notes) == ("done", (), ()), result


@pytest.mark.parametrize("row", SCENARIOS, ids=[row.name for row in SCENARIOS])
def test_the_attack_gets_through_without_agentguard(row: ScenarioRow) -> None:
    """What stops nowhere would be counted as stopped everywhere, and measure nothing."""
    outcomes = {}
    for guard in LET_THROUGH:
        outcomes[guard] = replay(row.scenario, "attack", guard).outcome
        if outcomes[guard] != "n/a":
            break
    assert outcomes[guard] == "through", outcomes
