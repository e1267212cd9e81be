"""Which answers count for what was asked: the rest are refused where they are given (I1)."""

from __future__ import annotations

from itertools import product

import pytest

from agentguard.model import Answer, Needs, Person, Verdict
from agentguard.policy.decide import still_needed, why_not_counted

PEOPLE = {
    name: Person(id=name, groups=frozenset(groups))
    for name, groups in {
        "omar": ("legal",),
        "ines": ("legal", "brand"),
        "lee": ("brand",),
        "kim": (),
        "jo": ("sports",),
    }.items()
}


def says(person: str, group: str | None = None, verdict: Verdict = Verdict.APPROVE) -> Answer:
    return Answer(
        request="a" * 64,
        person=person,
        verdict=verdict,
        group=group,
        at=0,
        key_id="0" * 16,
        signature="",
    )


def needs(approvals: int, *groups: str) -> Needs:
    return Needs(approvals=approvals, groups=frozenset(groups))


def why(asked: Needs, people: str, *answers: Answer) -> str | None:
    """What is said to the last of the answers, if these people could answer at first."""
    *before, last = answers
    left = [PEOPLE[name] for name in people.split() if name not in {one.person for one in answers}]
    return why_not_counted(asked, before, last, person=PEOPLE[last.person], others=left)


@pytest.mark.parametrize(
    ("asked", "people", "answers", "says_why"),
    [
        # The only one of the group answers without it.
        (needs(2, "legal"), "omar kim", [says("omar")], "answer as legal"),
        (needs(3, "legal"), "omar kim lee", [says("kim"), says("omar")], "answer as legal"),
        (needs(2, "legal", "brand"), "ines kim", [says("kim")], "would not count"),
        # Or as another group, where the others can't stand in.
        (needs(2, "legal", "brand"), "ines omar", [says("ines", "legal")], "answer as brand"),
        (needs(2, "legal", "brand"), "ines lee", [says("ines", "brand")], "answer as legal"),
        # Beyond what counts: there is no seat but that of a group.
        (needs(1, "legal"), "omar kim", [says("kim")], "missing: 1 person, including legal"),
        (needs(1, "legal"), "omar jo", [says("jo", "sports")], "as sports would not count"),
        (needs(1, "legal"), "omar ines", [says("omar")], "would not count"),
        (needs(2, "legal"), "omar kim lee", [says("kim"), says("lee")], "would not count"),
        (needs(2, "legal"), "omar ines", [says("omar", "legal"), says("ines", "legal")], None),
        (needs(2, "legal"), "omar ines kim", [says("ines")], None),
        (needs(2, "legal"), "omar kim", [says("omar", "legal")], None),
        (needs(2, "legal"), "omar kim", [says("kim")], None),
        (needs(1), "kim", [says("kim")], None),
        (needs(1), "omar", [says("omar", "legal")], None),
        (needs(2, "legal", "brand"), "ines omar", [says("ines", "brand")], None),
        # It is impossible whatever this answer says, until somebody is added.
        (needs(3, "legal"), "omar kim", [says("omar", "legal")], None),
    ],
)
def test_approval_that_can_not_count_is_refused(
    asked: Needs, people: str, answers: list[Answer], says_why: str | None
) -> None:
    said = why(asked, people, *answers)
    assert (said is None) == (says_why is None), said
    assert says_why is None or (said is not None and says_why in said)


@pytest.mark.parametrize("group", [None, "legal", "sports"])
def test_denial_always_counts(group: str | None) -> None:
    no = says("omar", group, Verdict.DENY)
    assert why(needs(2, "legal"), "omar kim", no) is None
    assert why(needs(1, "brand"), "omar lee", no) is None


def test_answers_that_are_taken_can_always_be_completed() -> None:
    """Whoever answers in whatever order as whatever they may, the last one completes it."""
    for asked in (needs(2, "legal"), needs(2, "legal", "brand"), needs(3, "legal", "brand")):
        choices = [(name, group) for name, one in PEOPLE.items() for group in (None, *one.groups)]
        for tried in product(choices, repeat=3):
            taken: list[Answer] = []
            for name, group in (*tried, *sorted(choices, key=str), *choices):
                if any(one.person == name for one in taken):
                    continue
                if why(asked, " ".join(PEOPLE), *taken, says(name, group)) is None:
                    taken.append(says(name, group))
            assert still_needed(asked, taken) == needs(0), taken
