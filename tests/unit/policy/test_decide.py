"""decide(): the decision corpus, the matrices of S2 and S34, and what holds for every input."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard.model import (
    Agent,
    Answer,
    AskedQuestion,
    AssetFacts,
    AssetUse,
    Audience,
    Decision,
    Destination,
    Effect,
    Environment,
    Facts,
    JobState,
    Needs,
    Person,
    Provenance,
    Request,
    Sensitivity,
    Stage,
    Terms,
    ToolAction,
    Verdict,
)
from agentguard.policy import policy_set
from agentguard.policy.decide import decide
from agentguard.policy.policy_set import Policy
from agentguard.policy.reasons import reasons_of

CORPUS = tomllib.loads(Path(__file__).with_name("decisions.toml").read_text("utf-8"))
CASES: list[dict[str, Any]] = CORPUS["case"]
OPEN = frozenset(CORPUS["open_labels"])


def ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


NOW = ms(CORPUS["now"])


@cache
def policy_with(extra: str = "") -> Policy:
    if not extra:
        return Policy.load()
    folder = Path(policy_set.__file__).parent / "default"
    texts = {path.name: path.read_text("utf-8") for path in folder.glob("*.cedar")}
    return Policy({**texts, "case.cedar": extra})


def highest(labels: frozenset[str]) -> Sensitivity:
    known = [Sensitivity(CORPUS["sensitivity"][label]) for label in labels]
    return max(known, key=lambda each: each.rank, default=Sensitivity.OPEN)


def destination_of(name: str) -> Destination | None:
    if not name:
        return None
    said = CORPUS["destinations"][name]
    return Destination(
        id=name,
        url=f"file:out/{name}",
        audience=Audience(said["audience"]),
        environment=Environment(said["environment"]),
        ceiling=frozenset(said["ceiling"]),
        proven=frozenset(said.get("proven", [])),
    )


def tool_of(stage: Stage | None, name: str = "publish") -> ToolAction:
    return ToolAction(name=name, stage=stage, arguments={})


def asset_of(said: Mapping[str, Any]) -> AssetFacts:
    labels = frozenset(said.get("labels", ["brand"]))
    sensitivity = said.get("sensitivity")
    channels = said.get("channels")
    asset = said.get("id", "asset-1")
    return AssetFacts(
        use=AssetUse(argument="source", asset=asset, sha256="ab" * 32, labels=labels),
        sensitivity=Sensitivity(sensitivity) if sensitivity else highest(labels),
        version=1,
        recalled=said.get("recalled", False),
        held=said.get("held", False),
        queued=said.get("queued", True),
        reviewed=said.get("reviewed", True),
        provenance=Provenance(said.get("provenance", "verified")),
        terms=Terms(
            until=ms(said["until"]) if "until" in said else None,
            release_at=ms(said["release_at"]) if "release_at" in said else None,
            channels=frozenset(channels) if channels is not None else None,
            consent=said.get("consent", True),
        ),
        contributors=frozenset(said.get("contributors", [])),
        findings=frozenset(said.get("findings", [])),
    )


def question(said: Mapping[str, Any]) -> tuple[Request, Facts]:
    """Request and Facts of one case of the corpus."""
    name = said.get("agent", "publisher")
    stage = Stage(said.get("stage", "export")) if said.get("stage", "export") else None
    tool_stage = said.get("tool_stage", stage)
    destination = destination_of(said.get("destination", "site"))
    assets = tuple(asset_of(each) for each in said.get("assets", [{}]))
    texts = frozenset(said.get("text_labels", []))
    stages = said.get("agent_stages", [stage] if stage else [])
    request = Request(
        workspace="acme",
        job="job-1",
        agent=name,
        stage=stage,
        tool="publish",
        binding="b" * 64,
        args={"source": [asset.use.asset for asset in assets]},
        text_labels=texts,
        assets=tuple(asset.use for asset in assets),
        destination=destination.id if destination else None,
        destination_digest=destination.digest if destination else None,
        call_key="call-1",
        revision=0,
    )
    facts = Facts(
        agent=Agent(id=name, owner="kim", stages=frozenset(Stage(each) for each in stages)),
        action=tool_of(Stage(tool_stage) if tool_stage else None),
        job_state=JobState(said.get("job", "open")),
        credential_live=said.get("credential_live", True),
        requester="kim",
        people=tuple(
            Person(id=person, groups=frozenset(CORPUS["people"].get(person, [])))
            for person in said.get("people", CORPUS["people"])
        ),
        destination=destination,
        assets=assets,
        text_sensitivity=highest(texts),
        chat_ceiling=frozenset(said.get("chat_ceiling", [])),
        reveals=said.get("reveals", False),
        rejected=said.get("rejected", False),
        can_ask=said.get("can_ask", True),
        open_labels=OPEN,
        text=said.get("text", False),
        unguarded=said.get("unguarded", False),
        changed_mind=said.get("changed_mind", False),
    )
    if said.get("removed"):
        facts = replace(facts, agent=None)
    if said.get("destination_removed"):
        facts = replace(facts, destination=None)
    if said.get("destination_moved") and destination:
        facts = replace(facts, destination=replace(destination, url="file:elsewhere"))
    if said.get("assets_moved"):
        raised = replace(assets[0].use, labels=assets[0].use.labels | {"likeness"})
        facts = replace(facts, assets=(replace(assets[0], use=raised),))
    return request, facts


def answer(request: Request, text: str, at: int = 0) -> Answer:
    """An Answer from "person verdict [group [other]]"; "-" is no group."""
    person, verdict, *rest = text.split()
    return Answer(
        request="0" * 64 if rest[1:] else request.digest,
        person=person,
        verdict=Verdict(verdict),
        group=rest[0] if rest and rest[0] != "-" else None,
        at=NOW - 1000 + at,
        key_id="k",
        signature="",
    )


def asked(policy: Policy, request: Request, facts: Facts, now: int = NOW) -> AskedQuestion:
    """The question that shows everything which stands against a Request on these facts."""
    against = policy.evaluate(request, facts, now, 0, frozenset())
    return AskedQuestion(reasons=reasons_of(policy, request, facts, against))


def answered(
    policy: Policy, request: Request, facts: Facts, given: list[Answer], now: int = NOW
) -> Decision:
    """What `decide` says where people were shown all that stands against it."""
    return decide(policy, request, facts, given, now, asked(policy, request, facts, now))


def answers_of(said: Mapping[str, Any], request: Request) -> list[Answer]:
    return [answer(request, text, at) for at, text in enumerate(said.get("answers", []))]


def test_the_corpus_has_no_two_cases_of_one_name() -> None:
    assert len(CASES) >= 60
    assert len({case["id"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_corpus(case: dict[str, Any]) -> None:
    request, facts = question(case)
    decision = answered(
        policy_with(case.get("policy", "")), request, facts, answers_of(case, request)
    )
    needs = case.get("needs")
    assert (decision.effect, list(decision.policies), decision.needs) == (
        Effect(case["effect"]),
        case["policies"],
        Needs(approvals=needs["approvals"], groups=frozenset(needs["groups"])) if needs else None,
    ), decision.reason
    assert case.get("says", "") in decision.reason


CELLS = [
    (label, destination, obligation)
    for label, row in CORPUS["classes"].items()
    if label != "columns"
    for destination, obligation in zip(CORPUS["classes"]["columns"], row, strict=True)
]


@pytest.mark.parametrize(("label", "destination", "obligation"), CELLS)
def test_s34_s33_class_by_destination(label: str, destination: str, obligation: str) -> None:
    vendor = CORPUS["destinations"][destination]["audience"] == "vendor"
    request, facts = question(
        {
            "stage": "edit" if vendor else "export",
            "destination": destination,
            "assets": [{"labels": [label] if label else []}],
        }
    )
    decision = decide(policy_with(), request, facts, [], NOW)
    got = decision.effect.value
    if decision.needs:
        got = " ".join([str(decision.needs.approvals), *sorted(decision.needs.groups)])
    assert got == obligation


STAGES: list[Stage | None] = [*Stage, None]


@pytest.mark.parametrize("own", list(Stage))
def test_s2_s25_agent_by_stage_by_tool(own: Stage) -> None:
    """An agent reaches the tools of its own stage, those without a stage, and nothing else."""
    reached: set[tuple[Stage | None, Stage | None]] = set()
    for stage, tool_stage in product(STAGES, STAGES):
        destination = "preview" if tool_stage is Stage.EXPORT else ""
        said = {
            "agent": "worker",
            "agent_stages": [own],
            "stage": stage or "",
            "tool_stage": tool_stage or "",
            "destination": destination,
            "assets": [{}] if stage else [],
        }
        decision = decide(policy_with(), *question(said), [], NOW)
        if decision.effect is Effect.PERMIT:
            reached.add((stage, tool_stage))
        else:
            assert decision.effect is Effect.DENY
    assert reached == {(own, own), (None, None)}


@pytest.mark.parametrize("stage", [each for each in Stage if each is not Stage.EXPORT])
@pytest.mark.parametrize("destination", ["team", "archive", "agency", "preview", "site", "wire"])
def test_s28_no_stage_but_export_sends_anywhere(stage: Stage, destination: str) -> None:
    said = {"stage": stage, "destination": destination}
    request, facts = question(said)
    everybody = [answer(request, f"{person} approve") for person in ("lena", "omar", "noor")]
    decision = answered(policy_with(), request, facts, everybody)
    if stage is Stage.QUEUE:  # it names the destination and sends nothing
        assert decision.policies == ("workspace.queue",)
    else:
        assert decision.effect is Effect.DENY
        assert decision.policies == ("workspace.no-direct-publish",)


def test_s20_answering_what_is_needed_turns_every_ask_of_the_corpus_into_a_permit() -> None:
    people = CORPUS["people"]
    for case in CASES:
        if case["effect"] != "ask" or case.get("answers"):
            continue
        request, facts = question(case)
        policy = policy_with(case.get("policy", ""))
        given: list[Answer] = []
        decision = decide(policy, request, facts, given, NOW)
        while decision.effect is Effect.ASK and decision.needs is not None:
            wanted = next(iter(sorted(decision.needs.groups)), None)
            barred = {a.person for a in given} | {"kim"}
            barred = barred.union(*(asset.contributors for asset in facts.assets))
            person = next(
                p.id
                for p in sorted(facts.people, key=lambda p: len(people.get(p.id, [])))
                if p.id not in barred and (wanted is None or wanted in p.groups)
            )
            given.append(answer(request, f"{person} approve {wanted or '-'}", len(given)))
            after = answered(policy, request, facts, given)
            left = after.needs.approvals if after.needs else 0
            assert left == decision.needs.approvals - 1, case["id"]
            decision = after
        assert decision.effect is Effect.PERMIT, case["id"]


# --- what an approval covers (I7) -------------------------------------------------------------

LABELLED: dict[str, Any] = {"assets": [{"labels": ["likeness"]}]}
SEES_FINDING: dict[str, Any] = {"assets": [{"labels": ["likeness"], "reviewed": False}]}


def given_on(said: Mapping[str, Any], policy: Policy) -> AskedQuestion:
    """The question that was asked about a case, in the words of the policy of then."""
    return asked(policy, *question(said))


def test_approval_does_not_lift_a_reason_that_came_later() -> None:
    policy = policy_with()
    before = given_on(LABELLED, policy)
    request, facts = question(SEES_FINDING)
    yes = [answer(request, f"{person} approve", at) for at, person in enumerate(["lena", "omar"])]
    decision = decide(policy, request, facts, yes, NOW, before)
    assert (decision.effect, decision.needs) == (Effect.ASK, Needs(approvals=1))
    assert decision.reason.startswith("new since people were asked: asset-1 has no clean review")
    assert "; asked before: asset-1 is labelled likeness" in decision.reason
    assert decide(policy, request, facts, yes, NOW, asked(policy, request, facts)).effect is (
        Effect.PERMIT
    )


def test_approval_lifts_what_is_left_of_its_reasons() -> None:
    policy = policy_with()
    before = given_on(SEES_FINDING, policy)
    request, facts = question(LABELLED)
    yes = [answer(request, "lena approve")]
    assert decide(policy, request, facts, yes, NOW, before).effect is Effect.PERMIT


def test_no_approval_counts_where_nobody_was_asked() -> None:
    request, facts = question(LABELLED)
    yes = [answer(request, f"{person} approve", at) for at, person in enumerate(["lena", "omar"])]
    for nothing in (None, AskedQuestion(reasons=frozenset())):
        assert decide(policy_with(), request, facts, yes, NOW, nothing).effect is Effect.ASK


def test_a_no_counts_whatever_the_question_showed() -> None:
    request, facts = question(SEES_FINDING)
    no = [answer(request, "lena deny")]
    before = given_on(LABELLED, policy_with())
    assert decide(policy_with(), request, facts, no, NOW, before).policies == (
        "agentguard.rejected",
    )


def test_the_same_policy_about_another_asset_is_another_reason() -> None:
    policy = policy_with()
    one = {"labels": ["brand"], "provenance": "unknown"}
    other = {**one, "id": "asset-2"}
    clean = {**other, "provenance": "verified"}
    before = given_on({"assets": [one, clean]}, policy)
    request, facts = question({"assets": [one, other]})
    decision = decide(policy, request, facts, [answer(request, "lena approve")], NOW, before)
    assert decision.effect is Effect.ASK
    assert decision.reason.startswith("new since people were asked: asset-2 has no verified")
    assert {(reason.policy, reason.asset) for reason in decision.reasons} == {
        ("export.provenance", "asset-1"),
        ("export.provenance", "asset-2"),
    }


def test_a_policy_that_was_rewritten_under_its_id_is_another_reason() -> None:
    rule = """@id("case.stars") @advice("{{asset}} shows {word}")
    forbid (principal, action in Action::"stage:export", resource)
    when {{ resource.labels.contains("{label}") }} unless {{ context.approvals >= 1 }};"""
    before = given_on(LABELLED, policy_with(rule.format(word="a face", label="likeness")))
    after = policy_with(rule.format(word="a star", label="likeness"))
    request, facts = question(LABELLED)
    decision = decide(after, request, facts, [answer(request, "lena approve")], NOW, before)
    assert decision.effect is Effect.ASK
    assert decision.reason.startswith("new since people were asked: asset-1 shows a star")


@pytest.mark.parametrize(
    ("policy", "before", "after"),
    [
        ("", {"reviewed": False}, {"reviewed": False, "findings": ["grant-1"]}),
        (
            "",
            {"reviewed": False, "findings": ["grant-1"]},
            {"reviewed": False, "findings": ["grant-1", "grant-2"]},
        ),
        (
            '@id("case.terms") forbid (principal, action in Action::"stage:export", resource)'
            " when { resource.terms has channels || resource.terms has until }"
            " unless { context.approvals >= 1 };",
            {"until": datetime(2999, 1, 1, tzinfo=UTC)},
            {"until": datetime(2999, 1, 1, tzinfo=UTC), "channels": ["site"]},
        ),
        (
            '@id("case.any") forbid (principal, action in Action::"stage:export", resource)'
            " when { resource.held || !resource.reviewed } unless { context.approvals >= 1 };",
            {"reviewed": False},
            {"reviewed": False, "held": True},
        ),
    ],
    ids=["a finding where nothing was reviewed", "a second finding", "terms", "a hold"],
)
def test_other_grounds_of_the_same_policy_are_another_reason(
    policy: str, before: dict[str, Any], after: dict[str, Any]
) -> None:
    rules = policy_with(policy)
    if "held" in after:  # without the default one, which no approval lifts
        folder = Path(policy_set.__file__).parent / "default"
        rules = Policy({"export.cedar": (folder / "export.cedar").read_text(), "case": policy})
    shown = given_on({"assets": [before]}, rules)
    request, facts = question({"assets": [before]})
    yes = [answer(request, f"{person} approve", at) for at, person in enumerate(["lena", "omar"])]
    assert decide(rules, request, facts, yes, NOW, shown).effect is Effect.PERMIT
    request, facts = question({"assets": [after]})
    yes = [answer(request, f"{person} approve", at) for at, person in enumerate(["lena", "omar"])]
    assert decide(rules, request, facts, yes, NOW, shown).effect is Effect.ASK


def test_time_alone_is_no_new_reason() -> None:
    policy = policy_with()
    shown = given_on(LABELLED, policy)
    request, facts = question(LABELLED)
    yes = [answer(request, "lena approve")]
    assert decide(policy, request, facts, yes, NOW + 60_000, shown).effect is Effect.PERMIT


def test_what_is_permitted_by_approvals_alone_covers_its_assets() -> None:
    """Without any forbid: what no policy permits until somebody approves is a reason as well."""
    policy = Policy(
        {"case.cedar": '@id("case.only") permit (principal, action in Action::"stage:export",'
                       " resource) when { context.approvals >= 1 };"}
    )  # fmt: skip
    one, other = {"id": "asset-1"}, {"id": "asset-2"}
    shown = given_on({"assets": [one]}, policy)
    assert {reason.policy for reason in shown.reasons} == {"agentguard.no-permit"}
    request, facts = question({"assets": [one]})
    yes = [answer(request, "lena approve")]
    assert decide(policy, request, facts, yes, NOW, shown).effect is Effect.PERMIT
    request, facts = question({"assets": [one, other]})
    yes = [answer(request, "lena approve")]
    assert decide(policy, request, facts, yes, NOW, shown).effect is Effect.ASK


def test_order_of_answers_does_not_matter() -> None:
    request, facts = question({"assets": [{"labels": ["regulated"]}]})
    given = [
        answer(request, text, at)
        for at, text in enumerate(["noor approve marketing", "noor approve legal", "lena approve"])
    ]
    assert answered(policy_with(), request, facts, given) == answered(
        policy_with(), request, facts, given[::-1]
    )


def test_a_sentence_holds_names_on_one_line_and_reads_no_braces_in_them() -> None:
    request, facts = question({"assets": [{"id": "{tool}\n" + "x" * 500, "queued": False}]})
    reason = decide(policy_with(), request, facts, [], NOW).reason
    assert reason.startswith("{tool}?xxx")
    assert "\n" not in reason
    assert len(reason) < 250


def test_a_sentence_names_the_labels_that_are_above_the_ceiling_and_whose_they_are() -> None:
    said = {"destination": "team", "text": True, "text_labels": ["likeness"]}
    request, facts = question({**said, "assets": [{"labels": ["licensed", "customer-data"]}]})
    decision = decide(policy_with(), request, facts, [], NOW)
    assert (
        "asset-1 is labelled licensed, likeness (in its text), which is above the ceiling of team"
        in decision.reason
    )


def test_a_sentence_counts_what_it_does_not_name() -> None:
    assets = [{"id": f"asset-{n}", "recalled": True} for n in range(9)]
    reason = decide(policy_with(), *question({"assets": assets}), [], NOW).reason
    assert reason == "asset-0, asset-1, asset-2 and 6 more was recalled; use another asset"


def test_no_sentence_of_the_corpus_holds_a_digest_or_an_open_placeholder() -> None:
    for case in CASES:
        request, facts = question(case)
        policy = policy_with(case.get("policy", ""))
        reason = answered(policy, request, facts, answers_of(case, request)).reason
        assert "ab" * 8 not in reason
        assert "{" not in reason
        assert "\n" not in reason
        assert not reason.endswith((".", ";", " "))


def test_i11_a_clock_out_of_range_denies() -> None:
    for now in (-(10**18), 10**18):
        decision = decide(policy_with(), *question({}), [], now)
        assert decision.policies == ("agentguard.clock",)


def test_i11_facts_of_another_agent_deny() -> None:
    request, facts = question({})
    other = replace(facts, agent=Agent(id="other", owner="kim", stages=frozenset(Stage)))
    assert decide(policy_with(), request, other, [], NOW).policies == ("agentguard.agent",)


def test_a_policy_that_wants_more_people_than_can_be_asked_denies() -> None:
    wants = """@id("crowd") forbid (principal, action in Action::"stage:export", resource)
               unless { context.approvals >= 9 };"""
    decision = decide(policy_with(wants), *question({}), [], NOW)
    assert (decision.effect, decision.policies) == (Effect.DENY, ("crowd",))


# Any text, lone surrogates and control characters included.
texts = st.one_of(
    st.sampled_from(["brand", "likeness", "regulated", "legal", "kim", "lena", "site", ""]),
    st.text(st.characters(), max_size=8),
    st.just("\ud800"),
)
sets = st.frozensets(texts, max_size=3)
times = st.integers(-(2**70), 2**70) | st.integers(NOW - 10, NOW + 10)
stages = st.sampled_from(Stage)
uses = st.builds(AssetUse, argument=texts, asset=texts, sha256=texts, labels=sets)
terms = st.builds(
    Terms,
    until=st.none() | times,
    release_at=st.none() | times,
    channels=st.none() | sets,
    consent=st.booleans(),
)
assets = st.builds(
    AssetFacts,
    use=uses,
    sensitivity=st.sampled_from(Sensitivity),
    version=st.integers(),
    recalled=st.booleans(),
    held=st.booleans(),
    queued=st.booleans(),
    reviewed=st.booleans(),
    provenance=st.sampled_from(Provenance),
    terms=terms,
    contributors=sets,
)
destinations = st.builds(
    Destination,
    id=texts,
    url=texts,
    audience=st.sampled_from(Audience),
    environment=st.sampled_from(Environment),
    ceiling=sets,
    hosts=sets,
    proven=sets,
)
answers = st.builds(
    Answer,
    request=texts,
    person=texts,
    verdict=st.sampled_from(Verdict),
    group=st.none() | texts,
    at=times,
    key_id=texts,
    signature=texts,
)


@st.composite
def questions(draw: st.DrawFn) -> tuple[Request, Facts, list[Answer], int]:
    """Mostly of one call, so that most examples come past the first tests of decide."""
    agent = draw(st.builds(Agent, id=texts, owner=texts, stages=st.frozensets(stages)))
    destination = draw(st.none() | destinations)
    used = tuple(draw(st.lists(assets, max_size=3)))
    try:
        place = destination.digest if destination else None
    except ValueError:
        place = ""
    odd = draw(st.integers(0, 9)) == 0
    request = Request(
        workspace=draw(texts),
        job=draw(texts),
        agent=draw(texts) if odd else agent.id,
        stage=draw(st.none() | stages),
        tool=draw(texts | st.just("publish")),
        binding=draw(texts),
        args=draw(st.dictionaries(texts, texts | st.floats() | st.integers(), max_size=2)),
        text_labels=draw(sets),
        assets=() if odd else tuple(asset.use for asset in used),
        destination=destination.id if destination else None,
        destination_digest=place,
        call_key=draw(texts),
        revision=draw(st.integers(0, 3)),
    )
    facts = Facts(
        agent=draw(st.none()) if odd and draw(st.booleans()) else agent,
        action=tool_of(
            draw(st.just(request.stage) | st.none() | stages),
            draw(st.sampled_from(["x", ""])) if odd else request.tool,
        ),
        job_state=draw(st.sampled_from(JobState)),
        credential_live=draw(st.booleans()),
        requester=draw(texts),
        people=tuple(draw(st.lists(st.builds(Person, id=texts, groups=sets), max_size=5))),
        destination=destination,
        assets=used,
        text_sensitivity=draw(st.sampled_from(Sensitivity)),
        chat_ceiling=draw(sets),
        reveals=draw(st.booleans()),
        rejected=draw(st.booleans()),
        can_ask=draw(st.booleans()),
        open_labels=draw(sets),
        text=draw(st.booleans()),
        unguarded=draw(st.booleans()),
        changed_mind=draw(st.booleans()),
    )
    given = draw(st.lists(answers, max_size=4))
    with suppress(ValueError):
        given = [replace(a, request=request.digest) if n % 2 else a for n, a in enumerate(given)]
    return request, facts, given, draw(times | st.just(NOW))


@settings(max_examples=400, deadline=None, database=None)
@given(questions())
def test_i11_decide_is_total_and_says_why(
    asked: tuple[Request, Facts, list[Answer], int],
) -> None:
    request, facts, given, now = asked
    decision = decide(policy_with(), request, facts, given, now)
    assert decision.reason
    assert decision.policies
    assert (decision.needs is not None) == (decision.effect is Effect.ASK)
    if decision.effect is Effect.PERMIT:
        assert facts.agent is not None
        assert facts.credential_live
        assert facts.job_state is JobState.OPEN
        assert not facts.rejected
        assert not any(asset.recalled for asset in facts.assets)
        assert request.stage is facts.action.stage
        if request.stage is not None:
            assert request.stage in facts.agent.stages
        if facts.destination is not None and facts.destination.audience is not Audience.VENDOR:
            assert request.stage in (Stage.EXPORT, Stage.QUEUE)
    assert decide(policy_with(), request, facts, given, now) == decision


labelled = st.frozensets(st.sampled_from(sorted(CORPUS["sensitivity"])), max_size=3)
order = {Effect.PERMIT: 0, Effect.ASK: 1, Effect.DENY: 2}


@settings(max_examples=200, deadline=None, database=None)
@given(
    labels=labelled,
    more=labelled,
    destination=st.sampled_from(sorted(CORPUS["destinations"])),
    stage=st.sampled_from(Stage),
    signed=st.lists(st.sampled_from(["lena", "omar", "noor"]), unique=True),
)
def test_i2_more_labels_never_loosen_a_decision(
    labels: frozenset[str],
    more: frozenset[str],
    destination: str,
    stage: Stage,
    signed: list[str],
) -> None:
    effects = []
    for said in (labels or {"brand"}, labels | more | {"brand"}):
        case = {"stage": stage, "destination": destination, "assets": [{"labels": sorted(said)}]}
        request, facts = question(case)
        given = [answer(request, f"{person} approve", at) for at, person in enumerate(signed)]
        effects.append(order[answered(policy_with(), request, facts, given).effect])
    assert all(less <= stricter for less, stricter in pairwise(effects))
