"""How often things run, and the clocks they are timed by."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


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


def alternate(
    rounds: int, *sides: Callable[[int], object], warm: int = 3, clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """The times in ms of each side; a round of one follows a round of the other.

    Machines are noisy, and get slower or faster while something else runs on them: what both sides
    went through in turn can be compared.

    Args:
        sides: called with the number of the round, from 0; rounds before `warm` are not counted.
    """
    times: list[list[float]] = [[] for _ in sides]
    for number in range(rounds + warm):
        for side, taken in zip(sides, times, strict=True):
            began = clock()
            side(number)
            if number >= warm:
                taken.append((clock() - began) * 1000)
    return times


def timed(run: Callable[[], object]) -> float:
    """How long one call takes, in ms."""
    return alternate(1, lambda _: run(), warm=0)[0][0]


def p(percent: int, times: Sequence[float]) -> float:
    """A percentile."""
    if percent == 50 or len(times) < 2:
        return statistics.median(times)
    return statistics.quantiles(times, n=100, method="inclusive")[percent - 1]
