"""The list of mutants: each control is there, and each mutant is faced by somebody."""

from __future__ import annotations

import pytest

from agentguard.calls import claim
from evals.controls import (
    MUTANTS,
    Change,
    NoSuchControl,
    dropped,
    holds,
    lacks,
    mutant,
    returns,
)
from evals.guards import BROKEN
from tests.attacks.corpus import ATTACKS
from tests.attacks.mutants import AIMS
from tests.attacks.scenarios import SCENARIOS
from tests.model.mutants import HUNTS


@pytest.mark.parametrize("name", MUTANTS)
def test_control_of_a_mutant_is_found_and_put_back(name: str) -> None:
    changes = MUTANTS[name].changes
    assert changes or MUTANTS[name].triggers or MUTANTS[name].rules
    before = [change.find()[2] for change in changes]
    with dropped([MUTANTS[name]]):
        assert all(change.find()[2] != was for change, was in zip(changes, before, strict=True))
    assert [change.find()[2] for change in changes] == before


def test_every_mutant_is_faced_by_the_model_checker_the_attacks_or_the_evaluations() -> None:
    faced = {hunt.mutant for hunt in HUNTS} | set(AIMS) | set(BROKEN)
    behind = {name for hunt in HUNTS for name in hunt.behind}
    behind |= {name for aim in AIMS.values() for name in aim.behind}
    assert faced | behind == set(MUTANTS)
    assert len({hunt.mutant for hunt in HUNTS}) == len(HUNTS)
    assert all(hunt.covered for hunt in HUNTS if hunt.behind)


@pytest.mark.parametrize(
    "change",
    [
        returns("calls.claim:no_such_function", None),
        returns("calls.no_such_module:function", None),
        returns("calls.claim:Claims.no_such_method", None),
        returns("model.request:COVERED", None),
        lacks("model.request:COVERED", "no_such_field"),
        holds("ledger.queries.assets:NO_SUCH_CONSTANT", ""),
    ],
    ids=lambda change: change.place,
)
def test_control_that_is_not_there_is_an_error(change: Change) -> None:
    with pytest.raises(NoSuchControl), dropped([mutant("lost", "its control moved", change)]):
        pass


def test_dropped_control_says_what_its_mutant_does() -> None:
    assert claim.may_have_happened("claimed")
    with dropped([MUTANTS["unknown-effect"]]):
        assert not claim.may_have_happened("claimed")
    assert claim.may_have_happened("claimed")


def test_every_pattern_of_an_aim_names_an_attack() -> None:
    names = [*(one.name for one in ATTACKS), *(one.name for one in SCENARIOS)]
    patterns = [part for aim in AIMS.values() for part in aim.attacks.split("|")]
    assert [part for part in patterns if not any(part in name for name in names)] == []
