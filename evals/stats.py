"""Intervals for shares of runs: exact ones, and ones that know which runs hang together."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from math import sqrt

Z = 1.959963984540054
"""Of the normal distribution, for 95 %."""


def wilson(hits: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share; (0, 1) of nothing."""
    if of == 0:
        return 0.0, 1.0
    share, weight = hits / of, Z * Z / of
    middle = (share + weight / 2) / (1 + weight)
    half = Z / (1 + weight) * sqrt(share * (1 - share) / of + weight / (4 * of))
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    high = 1.0 if hits == of else min(1.0, middle + half)
    return low, high


def by_family(
    families: Mapping[str, Sequence[bool]], *, seed: int, draws: int = 2000
) -> tuple[float, float]:
    """A 95 % interval of a share whose observations hang together within families.

    A cluster bootstrap: whole families are drawn again, so that ten variants of one idea count as
    one idea. Where all agree there is nothing to draw from; then it is Wilson's interval with
    families as the observations, the widest honest reading.

    Args:
        families: name → outcomes.
        seed: of the draws; the same seed gives the same interval.
    """
    groups = [list(outcomes) for outcomes in families.values() if outcomes]
    outcomes = [outcome for group in groups for outcome in group]
    if not outcomes:
        return 0.0, 1.0
    if all(outcomes) or not any(outcomes):
        return wilson(len(groups) if outcomes[0] else 0, len(groups))
    rng = random.Random(seed)
    shares = []
    for _ in range(draws):
        drawn = [outcome for group in rng.choices(groups, k=len(groups)) for outcome in group]
        shares.append(sum(drawn) / len(drawn))
    shares.sort()
    return shares[int(0.025 * draws)], shares[int(0.975 * draws) - 1]


def median(values: Sequence[float]) -> float:
    """The middle value; 0 of none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    half = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[half]
    return (ordered[half - 1] + ordered[half]) / 2
