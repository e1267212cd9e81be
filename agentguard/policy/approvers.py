"""Who may answer a question, whose answers count, and the smallest set that is missing (I1, S3).

`decide`, the approvals, dry runs and the command line all ask here. Functions of their arguments;
what is said of their results is in `explanation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from itertools import combinations, islice

from agentguard.model import Answer, Facts, Needs, Person, Request, Verdict

MOST_APPROVALS = 8
"""No call waits for more people than this; a policy that wants more is a no."""

_MOST_TRIES = 256  # sets of groups tried for each number of people


class Bar(Enum):
    """Why a person may not answer a question."""

    REQUESTER = "requester"
    CONTRIBUTOR = "contributor"
    ANSWERED = "answered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Involved:
    """Who had to do with a call, so that they can't approve it (I1, S3).

    Args:
        requester: who asked for the job.
        owner: of the acting agent: they would approve what their own agent asked for. None for
            an agent that is not configured.
        contributors: of its media and of the operations that it names.
    """

    requester: str
    owner: str | None
    contributors: frozenset[str]


def involved_in(facts: Facts) -> Involved:
    """Everybody whom the Facts of a call name."""
    return Involved(
        requester=facts.requester,
        owner=facts.agent.owner if facts.agent is not None else None,
        contributors=facts.contributors.union(*(asset.contributors for asset in facts.assets)),
    )


def bar(person: str, involved: Involved, answers: Iterable[Answer] = ()) -> Bar | None:
    """What keeps a person from answering; None: nothing does.

    Args:
        answers: those given before; one person answers once.
    """
    if is_requester(person, involved):
        return Bar.REQUESTER
    if person == involved.owner or person in involved.contributors:
        return Bar.CONTRIBUTOR
    if has_answered(person, answers):
        return Bar.ANSWERED
    return None


def is_requester(person: str, involved: Involved) -> bool:
    """Whether a person asked for the job (I1)."""
    return person == involved.requester


def has_answered(person: str, answers: Iterable[Answer]) -> bool:
    """Whether one of these answers is a person's."""
    return any(answer.person == person for answer in answers)


def eligible(
    people: Iterable[Person], involved: Involved, answers: Iterable[Answer] = ()
) -> dict[str, Person]:
    """Who may answer, by id, each one once.

    Args:
        answers: those given before.
    """
    given = tuple(answers)
    return {one.id: one for one in people if bar(one.id, involved, given) is None}


def counted(
    request: Request, eligible: Mapping[str, Person], answers: Sequence[Answer]
) -> list[Answer]:
    """The answers that count: each person's first approval, and every denial.

    A denial counts whatever group it names: what is uncertain about it must not make it a yes.

    Args:
        eligible: everybody who may answer, also who has.

    Raises:
        CanonicalError: the Request has no digest.
    """
    counted: list[Answer] = []
    for answer in sorted(answers, key=lambda each: each.at):
        person = eligible.get(answer.person)
        if person is None or answer.request != request.digest:
            continue
        if answer.verdict is Verdict.DENY:
            counted.append(answer)
        elif not has_approved(person.id, counted) and (
            answer.group is None or answer.group in person.groups
        ):
            counted.append(answer)  # one person, one group: more answers of theirs add nothing
    return counted


def has_approved(person: str, counted: Iterable[Answer]) -> bool:
    """Whether an approval of a person counts already."""
    return any(one.person == person and one.verdict is Verdict.APPROVE for one in counted)


def by_person(approvals: Iterable[Answer]) -> dict[str, str | None]:
    """The group that each person approved as: nobody counts twice, whatever comes in (I1)."""
    return {answer.person: answer.group for answer in approvals}


def rejection(counted: Iterable[Answer]) -> Answer | None:
    """The first no among the answers that count."""
    return next((answer for answer in counted if answer.verdict is Verdict.DENY), None)


def smallest(
    suffices: Callable[[int, frozenset[str]], bool],
    names: frozenset[str],
    people: Sequence[Person] | None,
) -> Needs | None:
    """The fewest further approvals, then the fewest groups, that turn the no into a yes.

    Args:
        suffices: whether it is a yes if so many more people approved, as these groups.
        names: the groups that policies read.
        people: who could still approve; None imagines as many as needed, in any group.
    """
    most = MOST_APPROVALS
    if people is not None:
        most = min(most, len(people))
        names = names & frozenset().union(*(person.groups for person in people))
    suffices = cache(suffices)  # of few groups, all but one are the others that are tried
    # Policies are monotone (doctor tests it): what all can't lift, no smaller set can. Mostly one
    # person is enough, so that is asked before.
    if most == 0 or not (suffices(1, names) or suffices(most, names)):
        return None
    for count in range(1, most + 1):
        if not suffices(count, names):
            continue
        for groups in _choices(suffices, names, count):
            possible = people is None or assign(groups, people) is not None
            if possible and suffices(count, groups):
                return Needs(approvals=count, groups=groups)
    return None


def _choices(
    suffices: Callable[[int, frozenset[str]], bool], names: frozenset[str], count: int
) -> Iterator[frozenset[str]]:
    """Sets of groups that so many approvals could be of, the smallest first.

    Args:
        suffices: as in `smallest`; it is a yes with all the names.
    """
    yield frozenset()
    # Without these not even all the others are enough, so that they need no search.
    needed = frozenset(name for name in names if not suffices(count, names - {name}))
    others = sorted(names - needed)
    sets = (
        needed.union(more)
        for size in range(count - len(needed) + 1)
        for more in combinations(others, size)
    )
    yield from islice(sets, _MOST_TRIES)


def assign(groups: Iterable[str], people: Sequence[Person]) -> dict[str, str] | None:
    """Distinct people who can answer as these groups, one each (a bipartite matching).

    Args:
        groups: one that is named twice needs two people.
        people: who can; those who come first are taken first.

    Returns:
        The group of each person who is needed, by their id; None if there are not enough.
    """
    seats: dict[str, str] = {}

    def seat(group: str, tried: set[str]) -> bool:
        for person in people:
            if group in person.groups and person.id not in tried:
                tried.add(person.id)
                if person.id not in seats or seat(seats[person.id], tried):
                    seats[person.id] = group
                    return True
        return False

    return seats if all(seat(group, set()) for group in groups) else None


def still_needed(needs: Needs, answers: Sequence[Answer]) -> Needs:
    """What is still missing of what was asked for; each approval counts in one group."""
    given = [answer for answer in answers if answer.verdict is Verdict.APPROVE]
    groups = needs.groups - {answer.group for answer in given}
    return Needs(approvals=max(needs.approvals - len(given), len(groups)), groups=groups)


def fitting(missing: Needs, person: Person) -> list[str]:
    """The groups that are missing and that a person can answer as."""
    return sorted(missing.groups & person.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncounted:
    """Why an approval could not count.

    Args:
        missing: what is missing without it.
        left: what would be missing after it.
        instead: the groups that the person can answer as, so that the others can still complete
            it; empty: it would change nothing.
    """

    missing: Needs
    left: Needs
    instead: tuple[str, ...] = ()


def why_not_counted(
    needs: Needs,
    answers: Sequence[Answer],
    answer: Answer,
    *,
    person: Person,
    others: Sequence[Person],
) -> Uncounted | None:
    """Why an answer could not count for an approval request, None if it can. A denial always can.

    Args:
        needs: what was asked for.
        answers: those given before.
        answer: the new one.
        person: who gives it, and may.
        others: who else may still answer.
    """
    if answer.verdict is Verdict.DENY:
        return None
    before = still_needed(needs, answers)
    after = still_needed(needs, [*answers, answer])
    if after == before:
        return Uncounted(missing=before, left=after)
    if _can_come(after, others) or not _can_come(before, [*others, person]):
        return None
    instead = tuple(
        group
        for group in fitting(before, person)
        if _can_come(still_needed(needs, [*answers, replace(answer, group=group)]), others)
    )
    return Uncounted(missing=before, left=after, instead=instead)


def _can_come(needs: Needs, people: Sequence[Person]) -> bool:
    return len(people) >= needs.approvals and assign(needs.groups, people) is not None
