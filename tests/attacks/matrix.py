"""The table of attacks, and the columns that each is run in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, get_args
from zlib import crc32

from tests.attacks.savers import Mode, Saver

if TYPE_CHECKING:
    from tests.attacks.driving import Column, Way

GATES = ("protect", "middleware", "inline", "functional")
GRAPHS = ("protect", "middleware", "inline")
SAVERS = get_args(Saver)
NODES = ("protect", "middleware")


class Row(Protocol):
    """A row of the table of attacks; a column is a gate, a mode and a checkpointer."""

    @property
    def name(self) -> str: ...

    @property
    def covers(self) -> frozenset[str]: ...

    @property
    def gates(self) -> tuple[str, ...]: ...

    @property
    def modes(self) -> tuple[Mode, ...]: ...

    @property
    def savers(self) -> tuple[Saver, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One way round that needs code.

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


def columns(one: Row, *, whole: bool | None = None) -> Iterator[Column]:
    """The columns that an attack is run in: each of its gates, in turns of its modes and savers.

    Args:
        whole: every combination instead; None: as `WHOLE_MATRIX` in the environment says.
    """
    from tests.attacks.driving import Column

    turns = [(mode, saver) for saver in one.savers for mode in one.modes]
    if whole is None:
        whole = "WHOLE_MATRIX" in os.environ
    # A step of its own for each attack, so that a gate meets every mode and saver in some attack.
    first = crc32(one.name.encode())
    for number, gate in enumerate(one.gates):
        place = first + number * max(1, len(turns) // len(one.gates))
        for mode, saver in turns if whole else [turns[place % len(turns)]]:
            yield Column(gate=gate, mode=mode, saver=saver)  # type: ignore[arg-type]
