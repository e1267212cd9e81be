"""How often things run, and the clocks they are timed by."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.figures import TIMES, Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much a run measures.

    Args:
        rounds: timed runs of each side.
        quick: small numbers everywhere, to see that all of it works.
        say: shows what is being measured.
    """

    rounds: int
    quick: bool
    say: Callable[[str], None]

    def of(self, full: int, quick: int) -> int:
        """A count that a quick run makes smaller."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """What the rounds of one side took, each in ms: by the clock, and in CPU of this process."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def alternate(rounds: int, *sides: Callable[[int], object], warm: int = 3) -> list[Times]:
    """The times of each side; a round of one follows a round of the other.

    Machines are noisy, and get slower or faster while something else runs on them: what both sides
    went through in turn can be compared.

    Args:
        sides: called with the number of the round, from 0; rounds before `warm` are not counted.
    """
    times = [Times() for _ in sides]
    for number in range(rounds + warm):
        for side, taken in zip(sides, times, strict=True):
            with timing(taken if number >= warm else Times()):
                side(number)
    return times


@contextmanager
def timing(times: Times) -> Iterator[None]:
    """Add what runs inside to the times of its side."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    times.wall.append((time.perf_counter() - wall) * 1000)
    times.cpu.append((time.process_time() - cpu) * 1000)


def timed(run: Callable[[], object]) -> float:
    """How long one run takes, in ms."""
    times = Times()
    with timing(times):
        run()
    return times.wall[0]


def ratio(subject: str, what: str, base: Times, guarded: Times, aim: float | None = None) -> Figure:
    """The medians of two sides as one Figure."""
    one, two = p(50, base.wall), p(50, guarded.wall)
    detail = f"{one:.1f} → {two:.1f} ms; CPU {p(50, base.cpu):.1f} → {p(50, guarded.cpu):.1f} ms"
    return Figure(subject=subject, what=what, value=two / one, unit=TIMES, aim=aim, detail=detail)


def p(percent: int, times: Sequence[float]) -> float:
    """A percentile."""
    if percent == 50 or len(times) < 2:
        return statistics.median(times)
    return statistics.quantiles(times, n=100, method="inclusive")[percent - 1]
