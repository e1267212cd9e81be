"""Who may answer, which answers count for what was asked, and what is still missing (I1).

The rest are refused where they are given. Decisions, approvals, dry runs and the command line say
the same of it.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest

from agentguard.calls import assess
from agentguard.errors import ApprovalError
from agentguard.model import (
    Answer,
    AskedQuestion,
    Effect,
    Needs,
    Person,
    Provenance,
    Stage,
    Verdict,
)
from agentguard.policy import explanation
from agentguard.policy.approvers import Bar, assign, smallest, still_needed, why_not_counted
from agentguard.policy.decide import decide
from agentguard.policy.simulate import Trial, judge
from tests.support import CONFIG, Clock, open_studio
from tests.support.command_line import Shell, ask_for_export

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
    found = why_not_counted(asked, before, last, person=PEOPLE[last.person], others=left)
    return explanation.uncounted(found, last) if found is not None else None


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


@pytest.mark.parametrize(
    ("groups", "people", "seated"),
    [
        ((), "kim", {}),
        (("legal",), "kim", None),
        (("legal",), "ines omar", {"ines": "legal"}),
        (("brand", "legal"), "ines omar", {"ines": "brand", "omar": "legal"}),
        (("legal", "brand"), "ines omar", {"ines": "brand", "omar": "legal"}),  # moves ines
        (("legal", "legal"), "ines omar kim", {"ines": "legal", "omar": "legal"}),
        (("legal", "legal", "brand"), "ines omar kim", None),
    ],
)
def test_each_group_gets_a_person_of_its_own(
    groups: tuple[str, ...], people: str, seated: dict[str, str] | None
) -> None:
    assert assign(groups, [PEOPLE[name] for name in people.split()]) == seated


@pytest.mark.parametrize("people", [None, 4])
def test_needed_groups_are_found_among_many(people: int | None) -> None:
    """Also those that come late in the alphabet, with more sets of groups than are tried."""
    names = frozenset(f"group-{number:02}" for number in range(40))
    late = frozenset({"group-38", "group-39"})
    able = None if people is None else [Person(id=f"p{n}", groups=names) for n in range(people)]
    asked: list[frozenset[str]] = []

    def suffices(count: int, groups: frozenset[str]) -> bool:
        asked.append(groups)
        return count >= 3 and groups >= late

    assert smallest(suffices, names, able) == Needs(approvals=3, groups=late)
    assert len(asked) < 100
    assert smallest(lambda count, groups: count >= 3, names, able) == Needs(approvals=3)


# --- one table, for whoever asks who may answer ------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Case:
    """An asked export of which some people approved.

    Args:
        says: what it is about.
        label: of the asset.
        policy: Cedar text besides the default policy.
        changes: of the configuration.
        importer: who imported the asset.
        given: (person, group) of the approvals so far.
        may: who may still answer; the others are kept out by these bars.
        missing: what is still missing.
    """

    says: str
    label: str = "likeness"
    policy: str = ""
    changes: tuple[tuple[str, str], ...] = ()
    importer: str = "kim"
    given: tuple[tuple[str, str | None], ...] = ()
    may: str
    barred: dict[str, Bar]
    missing: Needs


PEOPLE_HERE = ("kim", "omar", "ines", "lee")
REQUESTER, CONTRIBUTOR, ANSWERED = Bar.REQUESTER, Bar.CONTRIBUTOR, Bar.ANSWERED
TWO_GROUPS = """
@id("two.groups")
forbid (principal, action in Action::"stage:export", resource)
unless { context.approvals >= 2 && context.approverGroups.containsAll(["legal", "marketing"]) };
"""
LEE_IN_BOTH = (('"lee@acme.example" = { groups = [] }',
                '"lee@acme.example" = { groups = ["legal", "marketing"] }'),)  # fmt: skip
LEE_OWNS_IT = (('publisher = { stages = ["export"], owner = "kim@acme.example" }',
                'publisher = { stages = ["export"], owner = "lee@acme.example" }'),)  # fmt: skip

TABLE = [
    Case(says="who asked for the job may not", may="ines lee omar", barred={"kim": REQUESTER},
         missing=needs(1)),
    Case(says="nor who imported it", importer="ines", may="lee omar",
         barred={"kim": REQUESTER, "ines": CONTRIBUTOR}, missing=needs(1)),
    Case(says="nor who owns the agent", changes=LEE_OWNS_IT, may="ines omar",
         barred={"kim": REQUESTER, "lee": CONTRIBUTOR}, missing=needs(1)),
    Case(says="two are needed, one of legal", label="regulated", may="ines lee omar",
         barred={"kim": REQUESTER}, missing=needs(2, "legal")),
    Case(says="one answered for no group", label="regulated", given=(("ines", None),),
         may="lee omar", barred={"kim": REQUESTER, "ines": ANSWERED}, missing=needs(1, "legal")),
    Case(says="legal answered", label="regulated", given=(("omar", "legal"),), may="ines lee",
         barred={"kim": REQUESTER, "omar": ANSWERED}, missing=needs(1)),
    Case(says="one of two groups answered, by somebody of both", policy=TWO_GROUPS,
         changes=LEE_IN_BOTH, given=(("lee", "marketing"),), may="ines omar",
         barred={"kim": REQUESTER, "lee": ANSWERED}, missing=needs(1, "legal")),
    Case(says="both groups are missing", policy=TWO_GROUPS, changes=LEE_IN_BOTH,
         may="ines lee omar", barred={"kim": REQUESTER}, missing=needs(2, "legal", "marketing")),
]  # fmt: skip


def mail(name: str) -> str:
    return f"{name}@acme.example"


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.says)
def test_decision_approvals_dry_run_and_command_line_say_the_same(
    case: Case, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG
    for old, new in case.changes:
        assert old in config
        config = config.replace(old, new)
    if case.policy:
        (shell.folder / "policies").mkdir()
        (shell.folder / "policies" / "case.cedar").write_text(case.policy)
    judged: list[tuple[Any, ...]] = []

    def note_down(*given: Any) -> Any:
        judged.append(given)
        return decide(*given)

    monkeypatch.setattr(assess, "decide", note_down)
    may = [mail(name) for name in case.may.split()]
    studio = open_studio(shell.folder, clock=Clock(time.time_ns() // 1_000_000), config=config)
    with (
        contextlib.closing(studio.guard) as guard,
        guard.open_job("spring", requested_by=mail("kim")) as job,
    ):
        asset = guard.import_asset(
            studio.picture(), [case.label], by=mail(case.importer), job=job.id
        )
        ask_for_export(studio, job, asset)
        policy, request, facts, *_ = judged[-1]
        approval = studio.pending()
        for name, group in case.given:
            approval = studio.answer(approval.request, mail(name), group=group)

        # The approvals themselves.
        assert list(guard.approvals.eligible(approval)) == may
        assert still_needed(approval.needs, approval.answers) == case.missing
        for name, bar in case.barred.items():
            assert guard.approvals.barred(approval, mail(name)) is bar
            with pytest.raises(ApprovalError) as caught:
                studio.answer(approval.request, mail(name), Verdict.DENY)
            assert str(caught.value) == explanation.barred(mail(name), bar, ", ".join(may))

        # The decision on the same facts.
        def decision(*more: Answer) -> Any:
            question = AskedQuestion(reasons=approval.reasons)
            answers = (*approval.answers, *more)
            return decide(policy, request, facts, answers, studio.clock(), question)

        assert decision().needs == case.missing
        for name in PEOPLE_HERE:
            no = Answer(request=request.digest, person=mail(name), verdict=Verdict.DENY, group=None,
                        at=studio.clock(), key_id="", signature="")  # fmt: skip
            counts = case.barred.get(name) in (None, ANSWERED)
            assert (decision(no).effect is Effect.DENY) is counts

        # A dry run; it supposes an asset that nobody had a hand in.
        workspace = guard.workspace
        trial = Trial(
            agent=workspace.agents["publisher"],
            stage=Stage.EXPORT,
            destination=workspace.destinations["site"],
            labels=frozenset({case.label}),
            queued=True,
            reviewed=True,
            provenance=Provenance.UNKNOWN,
            requester=mail("kim"),
        )
        groups = [group for _, group in case.given if group is not None]
        supposed = judge(trial, workspace, policy, approvals=len(case.given), groups=groups)
        assert supposed.needs == case.missing
        most = len([name for name in PEOPLE_HERE if case.barred.get(name) in (None, ANSWERED)])
        if case.importer == "kim":
            judge(trial, workspace, policy, approvals=most)
            with pytest.raises(ApprovalError, match=f"only {most} may"):
                judge(trial, workspace, policy, approvals=most + 1)

        # The command line.
        name = approval.request[:16]
        (shown,) = shell.json("approvals", "list")
        assert shown["who_may"] == shell.json("approvals", "show", name)["who_may"] == may
        assert shown["missing"] == {
            "approvals": case.missing.approvals,
            "groups": sorted(case.missing.groups),
        }
        for person, bar in case.barred.items():
            error = shell.error("approvals", "approve", name, "--as", mail(person), "--yes")
            assert explanation.barred(mail(person), bar, "").rstrip() in error
