"""Policies: what is refused when they are loaded, and the traps of asking Cedar."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import cedarpy
import pytest

from agentguard.errors import PolicyError
from agentguard.model import (
    Agent,
    AssetFacts,
    AssetUse,
    Audience,
    Destination,
    Environment,
    Facts,
    JobState,
    Provenance,
    Request,
    Sensitivity,
    Stage,
    Terms,
    ToolAction,
)
from agentguard.policy import policy_set
from agentguard.policy.cedar_input import CANARY_AGENT, call_of, configured, media_of, time_of
from agentguard.policy.lint import Known
from agentguard.policy.policy_set import Policy
from agentguard.policy.reasons import reasons_of
from agentguard.policy.tool_types import schema_text

POLICIES = Path(policy_set.__file__).parent / "default"
NOW = 1_772_366_400_000
PERMIT = '@id("yes") permit (principal, action, resource);\n'
ALL_GROUPS = ("comms", "legal", "marketing")
TOOL = ToolAction(name="publish", stage=Stage.EXPORT, arguments={})


def question(
    *, stage: Stage = Stage.EXPORT, audience: Audience = Audience.PUBLIC, label: str = "likeness"
) -> tuple[Request, Facts]:
    destination = Destination(
        id="site",
        url="file:out",
        audience=audience,
        environment=Environment.PRODUCTION,
        ceiling=frozenset(),
    )
    use = AssetUse(argument="source", asset="a1", sha256="00" * 32, labels=frozenset({label}))
    asset = AssetFacts(
        use=use,
        sensitivity=Sensitivity.SENSITIVE,
        version=1,
        recalled=False,
        held=False,
        queued=True,
        reviewed=False,
        provenance=Provenance.UNKNOWN,
        terms=Terms(until=NOW + 1, release_at=NOW - 1, channels=frozenset({"site"})),
        contributors=frozenset(),
    )
    request = Request(
        workspace="w",
        job="j",
        agent="publisher",
        stage=stage,
        tool="publish",
        binding="b",
        args={},
        text_labels=frozenset(),
        assets=(use,),
        destination="site",
        destination_digest=destination.digest,
        call_key="k",
        revision=0,
    )
    facts = Facts(
        agent=Agent(id="publisher", owner="kim", stages=frozenset({stage})),
        action=ToolAction(name="publish", stage=stage, arguments={}),
        job_state=JobState.OPEN,
        credential_live=True,
        requester="kim",
        people=(),
        destination=destination,
        assets=(asset,),
        text_sensitivity=Sensitivity.OPEN,
        chat_ceiling=frozenset({"brand"}),
        reveals=False,
        rejected=False,
        can_ask=True,
        open_labels=frozenset({"brand"}),
        text=True,
    )
    return request, facts


def refusal(texts: dict[str, str]) -> str:
    with pytest.raises(PolicyError) as caught:
        Policy(texts)
    return str(caught.value)


def test_the_default_policy_loads_and_every_rule_has_advice() -> None:
    policy = Policy.load()
    assert {rule.effect for rule in policy.rules.values()} == {"permit", "forbid"}
    assert all(rule.advice for rule in policy.rules.values())
    assert policy.groups == {"legal"}


def test_each_action_gets_its_own_rules_and_every_global_one() -> None:
    policy = Policy.load()
    for stage in (Stage.GENERATE, Stage.QUEUE, Stage.EXPORT, None):
        action = ToolAction(name="publish", stage=stage, arguments={})
        ids = {i for i, rule in policy.rules.items() if rule.is_about(action)}
        assert {"identity.job", "identity.credential", "assets.recalled"} <= ids
        assert ("export.release" in ids) is (stage is Stage.EXPORT)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PERMIT + "\n// a comment; with a semicolon\nforbid (principal, action);", "line 4: "),
        (PERMIT + '\n@id("x") forbid (principal, action, resource) when { .. };', "line 3: "),
        (PERMIT + '@id("x") forbid (principal, action, resource)', "line 2: "),
        (PERMIT + '@id("x") @advice("; // no") forbid (principal, action, resource;', "line 2: "),
        (PERMIT + "forbid (principal, action, resource);", "line 2: got no @id"),
        (PERMIT + '@id("") forbid (principal, action, resource);', "line 2: got no @id"),
        (PERMIT + "\n" + PERMIT, 'line 3: @id("yes") is taken by a.cedar, line 1'),
        ('@id("agentguard.x") ' + PERMIT[11:], "line 1: agentguard.x is reserved"),
        (
            '@id("x") @advice("{secret}") ' + PERMIT[11:],
            "names {secret}, expected one of above, agent,",
        ),
        ('@id("x") permit (principal == ?principal, action, resource);', "got a template"),
        ('@id("x") @id("y") permit (principal, action, resource);', "duplicate annotation"),
    ],
)
def test_a_bad_policy_is_refused_with_its_line(text: str, said: str) -> None:
    message = refusal({"a.cedar": text})
    assert said in message
    assert message.startswith("a.cedar, line ")


@pytest.mark.parametrize(
    "condition",
    [
        "resource.secret == 1",
        'resource.sensitivity == "high"',
        'context.destination.audience == "public"',  # optional, and not asked for with `has`
        "context.approvals.contains(1)",
        "principal.name == 1",
    ],
)
def test_a_policy_that_breaks_the_schema_is_refused_with_its_line(condition: str) -> None:
    text = f'\n\n@id("bad") forbid (principal, action, resource) when {{ {condition} }};'
    said = refusal({"ok.cedar": PERMIT, "b.cedar": text})
    assert said.startswith("b.cedar, line 3: policy bad breaks the schema: ")
    assert "for policy" not in said  # Cedar numbers them


def test_a_long_condition_is_loaded_and_is_a_reason() -> None:
    chain = " && ".join(f'resource.kind != "k{number}"' for number in range(40))
    text = PERMIT + f'@id("long") forbid (principal, action, resource) when {{ {chain} }};'
    policy = Policy({"a.cedar": text})
    request, facts = question()
    evaluation = policy.evaluate(request, facts, NOW, 0, frozenset())
    (reason,) = reasons_of(policy, request, facts, evaluation)
    assert (reason.policy, reason.asset) == ("long", "a1")


def test_an_action_that_does_not_exist_is_refused() -> None:
    text = '@id("x") permit (principal, action == Action::"approve", resource);'
    known = Known(
        tools=[TOOL],
        other_tools=frozenset(),
        agents=(),
        destinations=(),
        groups=ALL_GROUPS,
        labels=(),
    )
    with pytest.raises(PolicyError, match=r'line 2: policy x: got Action::"approve", expected'):
        Policy({"a.cedar": PERMIT + text}).require_fits(known)


@pytest.mark.parametrize(
    "condition",
    [
        'context.approverGroups == ["legal"]',
        '["legal"].containsAll(context.approverGroups)',
        "context.approverGroups.isEmpty()",
        "context.approverGroups.contains(context.tool)",
    ],
)
def test_groups_that_could_not_be_searched_for_are_refused(condition: str) -> None:
    text = f'@id("x") permit (principal, action, resource) when {{ {condition} }};'
    assert "approverGroups" in refusal({"a.cedar": text})


@pytest.mark.parametrize("texts", [{}, {"a.cedar": ""}, {"a.cedar": "// nothing here; yet\n"}])
def test_i11_an_empty_set_is_refused(texts: dict[str, str]) -> None:
    assert "expected at least one" in refusal(texts)


def test_a_user_file_is_added(tmp_path: Path) -> None:
    path = tmp_path / "ours.cedar"
    path.write_text('@id("ours") forbid (principal, action, resource);')
    policy = Policy.load([path])
    assert set(policy.rules) == {*Policy.load().rules, "ours"}
    assert policy.rules["ours"].place == f"{path}, line 1"
    assert policy.evaluate(*question(), NOW, 9, frozenset({"legal"})).reasons == ("ours",)


def test_a_user_file_replaces_the_default_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "export.cedar"
    path.write_text('@id("ours") forbid (principal, action, resource);')
    ids = set(Policy.load([path], replace=True).rules)
    assert "ours" in ids
    assert "identity.job" in ids
    assert not any(rule.startswith("export.") for rule in ids)


def test_a_user_file_that_replaces_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "exports.cedar"
    path.write_text(PERMIT)
    with pytest.raises(PolicyError, match=r"replaces no default file, expected one of assets\."):
        Policy.load([path], replace=True)


def test_a_user_policy_with_a_default_id_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "export.cedar"
    path.write_text('@id("export.queued") permit (principal, action, resource);')
    with pytest.raises(
        PolicyError, match=r"taken by agentguard/policy/default/export\.cedar, line \d"
    ):
        Policy.load([path])


def test_an_unreadable_user_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.cedar").write_bytes(b"// \xff\n")
    for path in (tmp_path / "absent.cedar", tmp_path, tmp_path / "latin.cedar"):
        with pytest.raises(PolicyError, match="can't be read"):
            Policy.load([path])
    good = tmp_path / "good.cedar"
    good.write_text(PERMIT)
    with pytest.raises(PolicyError, match="named twice"):
        Policy.load([good, good])


@pytest.mark.parametrize("name", ["sub/b.cedar", "sub/deep/b.Cedar", "c.CEDAR", "d.cedar "])
def test_policy_file_that_would_be_passed_over_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.cedar").write_text('@id("a") forbid (principal, action, resource);')
    (tmp_path / "README.md").write_text("Our policies.")
    (tmp_path / "notes").mkdir()
    assert "a" in Policy.load([tmp_path]).rules
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('@id("b") forbid (principal, action, resource);')
    with pytest.raises(PolicyError) as caught:
        Policy.load([tmp_path])
    assert f"got {name!r}, expected each policy file in the folder itself" in str(caught.value)


def test_s19_the_digest_names_the_text_and_not_its_place() -> None:
    first = Policy({"a.cedar": PERMIT})
    assert first.digest == Policy({"elsewhere/b.cedar": PERMIT}).digest
    assert first.digest != Policy({"a.cedar": PERMIT + " "}).digest
    assert first.digest != Policy.load().digest
    assert Policy.load().digest == Policy.load().digest


OVERFLOWS = "context.approvals + 9223372036854775807 + 1 > 0"


def test_i11_a_forbid_that_errs_denies_though_cedar_says_allow() -> None:
    text = PERMIT + f'@id("errs") forbid (principal, action, resource) when {{ {OVERFLOWS} }};'
    request, facts = question()
    said = cedarpy.is_authorized(
        {
            "principal": 'Agent::"p"',
            "action": 'Action::"export"',
            "resource": 'Media::"m"',
            "context": {"approvals": 0},
        },
        text,
        [],
    )
    assert said.allowed  # the trap: Cedar skips the forbid
    ruling = Policy({"a.cedar": text}).evaluate(request, facts, NOW, 0, frozenset())
    assert not ruling.allowed
    assert "`errs`" in ruling.errors[0]


def test_i11_an_error_on_one_asset_denies_the_call() -> None:
    text = PERMIT + (
        '@id("errs") forbid (principal, action, resource) '
        f'when {{ resource.id == "a2" && {OVERFLOWS} }};'
    )
    request, facts = question()
    second = replace(facts.assets[0], use=replace(facts.assets[0].use, asset="a2"))
    policy = Policy({"a.cedar": text})
    assert policy.evaluate(request, facts, NOW, 0, frozenset()).allowed
    both = replace(facts, assets=(*facts.assets, second))
    assert not policy.evaluate(request, both, NOW, 0, frozenset()).allowed


def test_i11_what_cedar_cannot_hold_is_an_error_and_a_no() -> None:
    request, facts = question()
    agent = replace(facts.agent, id="\ud800") if facts.agent else None
    for broken in (
        replace(facts, agent=agent),
        replace(facts, agent=None),
        replace(facts, assets=(replace(facts.assets[0], queued="yes"),)),  # type: ignore[arg-type]
        replace(facts, assets=(replace(facts.assets[0], held=None),)),  # type: ignore[arg-type]
    ):
        ruling = Policy({"a.cedar": PERMIT}).evaluate(request, broken, NOW, 0, frozenset())
        assert (ruling.allowed, bool(ruling.errors)) == (False, True)


def test_i11_what_nothing_permits_is_refused_without_reasons() -> None:
    text = '@id("none") permit (principal, action in Action::"stage:edit", resource);'
    ruling = Policy({"a.cedar": text}).evaluate(*question(), NOW, 0, frozenset())
    assert (ruling.allowed, ruling.reasons, ruling.unpermitted) == (False, (), True)


def test_s33_a_resource_is_as_sensitive_as_the_worst_of_asset_text_and_labels() -> None:
    request, facts = question(label="brand")
    plain = replace(facts.assets[0], sensitivity=Sensitivity.OPEN)
    facts = replace(facts, assets=(plain,))

    def rank(said: Facts, texts: frozenset[str] = frozenset()) -> object:
        return media_of(replace(request, text_labels=texts), said)[0]["sensitivity"]

    assert rank(facts) == 0
    assert rank(replace(facts, text_sensitivity=Sensitivity.RESTRICTED)) == 2
    assert rank(facts, frozenset({"likeness"})) == 1
    assert rank(facts, frozenset({"unclassified"})) == 2
    assert rank(replace(facts, assets=()), frozenset({"unclassified"})) == 2


def test_what_cedar_is_asked_conforms_to_the_schema() -> None:
    base = (POLICIES / "schema.cedarschema").read_text("utf-8")
    changes: tuple[Callable[[Facts], Facts], ...] = (
        lambda facts: facts,
        lambda facts: replace(facts, assets=()),
        lambda facts: replace(facts, assets=(), text=False, destination=None),
        lambda facts: replace(facts, action=replace(facts.action, stage=None)),
    )
    for facts_of in changes:
        request, facts = question()
        facts = facts_of(facts)
        schema = cedarpy.Schema.from_str(schema_text(base, [facts.action]))
        media = media_of(request, facts)
        assert facts.agent is not None
        entities = [
            *configured(facts.agent, facts.destination, facts.open_labels),
            *({"uid": {"type": "Media", "id": "0"}, "attrs": m, "parents": []} for m in media),
        ]
        result = cedarpy.is_authorized(
            {
                "principal": {"type": "Agent", "id": facts.agent.id},
                "action": {"type": "Action", "id": "publish"},
                "resource": {"type": "Media", "id": "0"},
                "context": {
                    **call_of(request, facts),
                    "now": time_of(NOW),
                    "approvals": 1,
                    "approverGroups": ["legal"],
                },
            },
            PERMIT,
            json.dumps(entities),
            schema,
        )
        assert (result.decision, result.diagnostics.errors) == (cedarpy.Decision.Allow, [])


@pytest.mark.parametrize(
    "condition",
    [
        'context["tool"] == "publish"',
        "context has toolStage",
        'context has destination.audience && context.destination.audience == "public"',
        "context.now < resource.terms.until",
        "context == context",
        "[context].contains(context)",
    ],
)
def test_what_a_policy_reads_it_is_given(condition: str) -> None:
    guard = "resource.terms has until && " if "until" in condition else ""
    text = f'@id("x") permit (principal, action, resource) when {{ {guard}{condition} }};'
    ruling = Policy({"a.cedar": text}).evaluate(*question(), NOW, 0, frozenset())
    assert (ruling.allowed, ruling.errors) == (True, ())


def test_no_digest_reaches_cedar() -> None:
    request, facts = question()
    said = json.dumps([media_of(request, facts), call_of(request, facts), time_of(NOW)])
    assert "0000" not in said.replace("00.000Z", "")
    assert request.destination_digest is not None
    assert request.destination_digest not in said


FALLING = {
    "permit while alone": "permit (principal, action, resource) when { context.approvals < 2 };",
    "forbid a crowd": "forbid (principal, action, resource) when { context.approvals >= 2 };",
    "forbid exactly one": "forbid (principal, action, resource) when { context.approvals == 1 };",
    "permit not legal": "permit (principal, action, resource) "
    'unless { context.approverGroups.contains("legal") };',
    "forbid legal": "forbid (principal, action, resource) "
    'when { resource.sensitivity > 0 && context.approverGroups.contains("legal") };',
    "a twisted if": "forbid (principal, action, resource) "
    "when { if context.approvals > 1 then true else false };",
    "double negation": "forbid (principal, action, resource) "
    "unless { !(context.approvals >= 1) || context.approvals >= 9 };",
}
RISING = {
    "unless": "forbid (principal, action, resource) unless { context.approvals >= 2 };",
    "when": "forbid (principal, action, resource) when { context.approvals < 2 };",
    "flipped": "forbid (principal, action, resource) when { 2 > context.approvals };",
    "negated": "forbid (principal, action, resource) when { !(context.approvals > 1) };",
    "either": "forbid (principal, action, resource) unless "
    '{ context.approvals >= 3 || context.approverGroups.containsAny(["legal", "comms"]) };',
    "branches": "forbid (principal, action, resource) unless "
    "{ if resource.held then context.approvals >= 2 else context.approvals >= 1 };",
}


def falls(policy: Policy, request: Request, facts: Facts) -> Iterator[str]:
    """By trying: every way in which one more approval turns a yes into a no."""
    sets = [
        (count, frozenset(chosen))
        for count in range(5)
        for size in range(min(count, len(ALL_GROUPS)) + 1)
        for chosen in combinations(ALL_GROUPS, size)
    ]
    yes = {each for each in sets if policy.evaluate(request, facts, NOW, *each).allowed}
    for count, chosen in yes:
        for more in (chosen, *(chosen | {group} for group in ALL_GROUPS)):
            if (count + 1, more) in sets and (count + 1, more) not in yes:
                yield f"{count} {sorted(chosen)} -> {sorted(more)}"


@pytest.mark.parametrize("text", FALLING.values(), ids=FALLING.keys())
def test_a_policy_that_one_more_approval_turns_into_a_no_is_found(text: str) -> None:
    policy = Policy({"a.cedar": PERMIT if text.startswith("forbid") else "", "b.cedar": _id(text)})
    assert list(falls(policy, *question())), "the example must really be one"
    [found] = policy.monotone_violations()
    assert found.startswith("b.cedar, line 1: bad may refuse when one more person approves")


@pytest.mark.parametrize("text", RISING.values(), ids=RISING.keys())
def test_a_monotone_policy_is_left_alone(text: str) -> None:
    policy = Policy({"a.cedar": PERMIT, "b.cedar": _id(text)})
    assert policy.monotone_violations() == ()
    assert not list(falls(policy, *question()))


def _id(text: str) -> str:
    return f'@id("bad") {text}'


@pytest.mark.parametrize("label", ["brand", "likeness", "regulated", "embargoed"])
@pytest.mark.parametrize("audience", list(Audience))
@pytest.mark.parametrize("stage", [Stage.EDIT, Stage.QUEUE, Stage.EXPORT])
def test_s20_the_default_policy_is_monotone(stage: Stage, audience: Audience, label: str) -> None:
    policy = Policy.load()
    assert policy.monotone_violations() == ()
    assert not list(falls(policy, *question(stage=stage, audience=audience, label=label)))


# --- how often Cedar is asked, and about what ---------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The context of each question that Cedar is asked."""
    contexts: list[dict[str, Any]] = []
    ask = cedarpy.is_authorized

    def note_down(request: dict[str, Any], *given: Any) -> cedarpy.AuthzResult:
        if request["principal"]["id"] != CANARY_AGENT:
            contexts.append(json.loads(request["context"]))
        return ask(request, *given)

    monkeypatch.setattr(cedarpy, "is_authorized", note_down)
    return contexts


def with_media(request: Request, facts: Facts, *media: AssetFacts) -> tuple[Request, Facts]:
    return replace(request, assets=tuple(one.use for one in media)), replace(facts, assets=media)


def named(asset: AssetFacts, name: str, argument: str = "source") -> AssetFacts:
    return replace(asset, use=replace(asset.use, asset=name, argument=argument))


def test_no_answer_is_kept(asked: list[dict[str, Any]]) -> None:
    policy = Policy.load()
    for _ in range(3):
        policy.evaluate(*question(), NOW, 0, frozenset())
    assert len(asked) == 3


def test_equal_media_of_a_call_are_asked_about_once(asked: list[dict[str, Any]]) -> None:
    request, facts = question()
    many = [named(facts.assets[0], f"a{number}", f"picture-{number}") for number in range(256)]
    held = replace(named(facts.assets[0], "held"), held=True)
    policy = Policy.load()
    evaluation = policy.evaluate(*with_media(request, facts, *many), NOW, 0, frozenset())
    assert len(asked) == 1
    assert {asset for _, asset in evaluation.where} == {one.use.asset for one in many}
    evaluation = policy.evaluate(*with_media(request, facts, *many, held), NOW, 0, frozenset())
    assert len(asked) == 3
    assert [asset for rule, asset in evaluation.where if rule == "assets.held"] == ["held"]


_ABOUT = 'resource.kind == "asset"'


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ('context has destination && context.destination.id == "site"', set()),
        ('principal.owner == "kim" && context.tool == "publish"', set()),
        ("context == context", set()),
        ('resource.id == "a1"', {"id"}),
        ("resource has id", {"id"}),
        ('resource["argument"] == "source"', {"argument"}),
        (f'(if {_ABOUT} then resource else resource).id == "a1"', {"id"}),
        ('{"it": resource}.it.id == "a1"', {"id"}),
        (f'(if {_ABOUT} then {{"id": "x"}} else {{"id": "y"}}).id == "x"', {"id"}),
        ('["a1"].contains(resource.id) && !(resource.argument like "x*")', {"id", "argument"}),
    ],
)
def test_what_a_policy_reads_of_a_resource_is_followed_by_path(
    condition: str, names: set[str], asked: list[dict[str, Any]]
) -> None:
    text = PERMIT + f'@id("x") forbid (principal, action, resource) unless {{ {condition} }};'
    policy = Policy({"a.cedar": text})
    assert policy.rules["x"].names & {"id", "argument"} == names
    request, facts = question()
    media = [named(facts.assets[0], "a1"), named(facts.assets[0], "a2", "other")]
    policy.evaluate(*with_media(request, facts, *media), NOW, 0, frozenset())
    assert len(asked) == (2 if names else 1)


def test_a_resource_is_given_under_the_names_that_a_policy_reads() -> None:
    rule = """@id("x") forbid (principal, action, resource)
              when {{ resource.{} == "{}" }};"""
    request, facts = question()
    media = [named(facts.assets[0], "a1", "left"), named(facts.assets[0], "a2", "right")]
    for name, value, asset in (("id", "a2", "a2"), ("argument", "left", "a1")):
        policy = Policy({"a.cedar": PERMIT + rule.format(name, value)})
        evaluation = policy.evaluate(*with_media(request, facts, *media), NOW, 0, frozenset())
        assert evaluation.where == (("x", asset),)


def test_approvals_that_no_policy_of_the_action_reads_are_not_asked_about(
    asked: list[dict[str, Any]],
) -> None:
    policy = Policy({"a.cedar": '@id("x") forbid (principal, action, resource);'})
    ask = policy.asking(*question(), NOW)
    for approvals in (0, 1, 8):
        assert not ask(approvals, frozenset({"legal"})).allowed
    assert [(one["approvals"], one["approverGroups"]) for one in asked] == [(0, [])]
    asked.clear()
    ask = Policy.load().asking(*question(), NOW)
    for approvals, groups in ((0, ()), (1, ("legal",)), (1, ("legal", "comms")), (1, ())):
        ask(approvals, frozenset(groups))
    assert [(one["approvals"], one["approverGroups"]) for one in asked] == [
        (0, []), (1, ["legal"]), (1, []),
    ]  # fmt: skip


def test_a_policy_that_takes_the_context_as_a_whole_is_given_all_of_it(
    asked: list[dict[str, Any]],
) -> None:
    whole = '@id("x") forbid (principal, action, resource) unless { context == context };'
    policy = Policy({"a.cedar": PERMIT + whole})
    policy.evaluate(*question(), NOW, 3, frozenset({"comms"}))
    assert [(one["approvals"], one["approverGroups"]) for one in asked] == [(3, ["comms"])]


@pytest.mark.parametrize("change", [{"approvals": "1"}, {"stage": None}, {"unknown": 1}])
def test_i11_a_question_that_breaks_the_schema_is_a_no(
    change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though no policy reads what is wrong with it: it is validated before it is asked."""
    ask = cedarpy.is_authorized

    def changed(request: dict[str, Any], *given: Any) -> cedarpy.AuthzResult:
        context = {**json.loads(request["context"]), **change}
        context = {name: value for name, value in context.items() if value is not None}
        return ask({**request, "context": json.dumps(context)}, *given)

    monkeypatch.setattr(cedarpy, "is_authorized", changed)
    evaluation = Policy({"a.cedar": PERMIT}).evaluate(*question(), NOW, 0, frozenset())
    assert (evaluation.allowed, bool(evaluation.errors)) == (False, True)
