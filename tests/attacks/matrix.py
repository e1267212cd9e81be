"""The table of attacks, and the columns that each is run in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from tests.attacks.savers import Mode, Saver

if TYPE_CHECKING:
    from tests.attacks.driving import Column, Way

GATES = ("protect", "middleware", "inline", "functional")
GRAPHS = ("protect", "middleware", "inline")
SAVERS = get_args(Saver)
NODES = ("protect", "middleware")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One way round.

    Args:
        covers: ids in coverage.toml of the traps that it tries.
        gates: where it can be tried; coverage.toml says why not elsewhere.
        bare: the gates whose bare graph it harms, which is how it is known to be an attack.
        own: it changes a whole workspace, and needs one of its own.
        modes: where it differs between `invoke` and `ainvoke`, else both.
        savers: the checkpointers it is tried on: all where what it does goes through one.
    """

    name: str
    covers: frozenset[str]
    run: Callable[[Way], None]
    gates: tuple[str, ...]
    bare: tuple[str, ...]
    own: bool
    modes: tuple[Mode, ...]
    savers: tuple[Saver, ...]


ATTACKS: list[Attack] = []


def attack(
    *covers: str,
    gates: tuple[str, ...] = GRAPHS,
    bare: tuple[str, ...] | None = None,
    own: bool = False,
    modes: tuple[Mode, ...] = get_args(Mode),
    savers: tuple[Saver, ...] = ("memory",),
) -> Callable[[Callable[[Way], None]], Callable[[Way], None]]:
    """Enter a function into the table of attacks; it is named after the function."""

    def enter(run: Callable[[Way], None]) -> Callable[[Way], None]:
        ATTACKS.append(
            Attack(
                name=run.__name__,
                covers=frozenset(covers),
                run=run,
                gates=gates,
                bare=gates if bare is None else bare,
                own=own,
                modes=modes,
                savers=savers,
            )
        )
        return run

    return enter


def columns(one: Attack) -> Iterator[Column]:
    """Every column that an attack is run in."""
    from tests.attacks.driving import Column

    for gate in one.gates:
        for mode in one.modes:
            for saver in one.savers:
                yield Column(gate=gate, mode=mode, saver=saver)  # type: ignore[arg-type]
