"""Who is asked, and what they say: a careful person, and one who says yes to everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evals.scenario import Release

Kind = str
CAREFUL: Kind = "careful"
RUBBER_STAMP: Kind = "rubber-stamp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A release as the person sees it who looks at the picture, the place and the words."""

    asset: str
    to: str
    caption: str


Verdict = Callable[[Question], bool]


def person(kind: Kind, approves: Sequence[Release]) -> Verdict:
    """What a kind of person says to a question.

    Args:
        approves: what a careful one finds right.
    """
    if kind == RUBBER_STAMP:
        return lambda question: True
    right = {(release.asset, release.to, release.caption) for release in approves}
    return lambda question: (question.asset, question.to, question.caption) in right
