"""The core, model-checked: no sequence of moves breaks an invariant, and every mutant dies."""

from __future__ import annotations

import pytest

from tests.model.__main__ import line
from tests.model.explore import explore, kill
from tests.model.moves import SCOPES, Scope
from tests.model.mutants import HUNTS, Hunt


@pytest.mark.parametrize("scope", SCOPES.values(), ids=lambda scope: scope.name)
def test_no_sequence_of_moves_breaks_an_invariant(scope: Scope) -> None:
    report = explore(scope, depth=scope.quick or scope.depth)
    print(line(report))
    assert report.counterexample is None, f"\n{report.counterexample}"
    assert not report.second_line
    assert set(scope.goals) <= report.reached, "the scope does not reach what it is about"


@pytest.mark.parametrize("hunt", HUNTS, ids=lambda hunt: hunt.mutant)
def test_a_dropped_control_is_noticed(hunt: Hunt) -> None:
    hunted = kill(hunt, SCOPES[hunt.scope])
    report, alone, behind = hunted.dropped, hunted.alone, hunted.behind
    assert report.counterexample is not None, f"survived {report.transitions} transitions"
    print(f"{hunt.says}\n{report.counterexample}")
    if alone is not None:  # honest: the control behind it covers it
        assert alone.counterexample is None, f"nothing stands behind it:\n{alone.counterexample}"
    if behind is not None:  # and it is this control that is missed
        assert behind.counterexample is None, f"killed without it:\n{behind.counterexample}"
    assert hunted.is_killed


def test_the_same_exploration_twice_sees_the_same() -> None:
    scope = SCOPES["twice"]
    first, second = explore(scope, depth=3), explore(scope, depth=3)
    assert (first.states, first.transitions) == (second.states, second.transitions)
    assert first.seen == second.seen
