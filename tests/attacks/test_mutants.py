"""Each control that the attacks are there for is needed: without it, one of them does harm."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from evals.controls import MUTANTS
from tests.attacks.mutants import AIMS, succeed


@pytest.mark.parametrize(
    ("name", "attacks"),
    [(name, attacks) for name, aim in AIMS.items() for attacks in aim.attacks.split("|")],
)
def test_attack_succeeds_without_the_control(name: str, attacks: str, tmp_path: Path) -> None:
    mutants = (MUTANTS[name], *AIMS[name].others)
    with closing(succeed(mutants, tmp_path, attacks=attacks)) as found:
        assert next(found, None) is not None, f"survived: {MUTANTS[name].says}"


@pytest.mark.parametrize("name", [name for name, aim in AIMS.items() if aim.behind])
def test_control_with_another_behind_it_is_one_of_several(name: str, tmp_path: Path) -> None:
    """Each of them by itself stops the attack."""
    aim = AIMS[name]
    assert list(succeed([MUTANTS[name]], tmp_path / "alone", attacks=aim.attacks)) == []
    assert list(succeed(aim.others, tmp_path / "behind", attacks=aim.attacks)) == []
