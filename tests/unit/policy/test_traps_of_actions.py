"""Tools as actions: each way in which a policy would silently never fire, or be made to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.tools import tool
from pydantic import BaseModel

from agentguard.bindings.cedar_types import action_of
from agentguard.bindings.model_schema import json_schema
from agentguard.errors import BindingError, PolicyError
from agentguard.model import GROUPS, ArgumentKind, ArgumentType, Facts, Request, Stage, ToolAction
from agentguard.policy import cedar_input
from agentguard.policy.decide import decide
from agentguard.policy.lint import Known
from agentguard.policy.policy_set import Policy
from agentguard.policy.tool_types import arguments_of
from tests.unit.policy.test_policy_set import NOW, PERMIT, question


class Size(BaseModel):
    width: int
    height: int | None = None


SMALL = Size(width=640)


def render_video(
    seconds: int,
    codec: Literal["h264", "av1"] = "h264",
    gain: float = 1.0,
    upscale: int | None = None,
    size: Size = SMALL,
    frames: Sequence[int] = (),
    loose: int | str = 3,
) -> str:
    """Render."""
    return ""


def action(function: Callable[..., Any], stage: Stage = Stage.RENDER) -> ToolAction:
    made = tool(function)
    return action_of(made.name, stage, json_schema(made))


RENDER = action(render_video)
ARGS = {
    "seconds": 90,
    "codec": "av1",
    "gain": 1.5,
    "size": {"width": 640},
    "frames": [1],
    "loose": 1,
}


def known(*tools: ToolAction, others: tuple[str, ...] = ()) -> Known:
    return Known(
        tools=tools,
        other_tools=frozenset(others),
        agents=("publisher",),
        destinations=("site",),
        groups=("legal",),
        labels=("embargoed", "likeness", "regulated"),
    )


def call(of: ToolAction, args: dict[str, Any], stage: Stage | None = None) -> tuple[Request, Facts]:
    request, facts = question(stage=stage or of.stage or Stage.EDIT)
    return replace(request, tool=of.name, args=args), replace(facts, action=of)


def answer(policy: str, of: ToolAction = RENDER, args: dict[str, Any] | None = None) -> Any:
    asked = call(of, ARGS if args is None else args)
    return Policy({"a.cedar": PERMIT + policy}).evaluate(*asked, NOW, 0, frozenset())


def refusal(policy: str, *tools: ToolAction, others: tuple[str, ...] = ()) -> str:
    with pytest.raises(PolicyError) as caught:
        Policy({"a.cedar": PERMIT + policy}).require_fits(known(*tools, others=others))
    return str(caught.value)


def forbid(condition: str, scope: str = 'action in Action::"stage:render"') -> str:
    return f'@id("no") forbid (principal, {scope}, resource) when {{ {condition} }};'


# --- entities without the schema ------------------------------------------------------------ -----


def test_forbid_of_a_stage_fires_for_its_tools_and_for_no_others() -> None:
    policy = forbid("true")
    assert answer(policy).reasons == ("no",)
    assert answer(policy, replace(RENDER, stage=Stage.EDIT)).allowed


def test_entities_without_the_schema_refuse_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    make = cedarpy.Entities.from_json_str
    monkeypatch.setattr(cedarpy.Entities, "from_json_str", lambda text, _schema: make(text))
    with pytest.raises(PolicyError, match="a forbid of stage:generate does not fire"):
        Policy({"a.cedar": PERMIT + "// a set that no other test has"})


# --- a stage is no tool ----------------------------------------------------------------- ---------


@pytest.mark.parametrize(
    ("scope", "condition"),
    [
        ('action == Action::"stage:export"', "true"),
        ("action", 'action == Action::"stage:export"'),
        ("action", 'Action::"stage:export" != action'),
        ("action", '[Action::"stage:export"].contains(action)'),
        ("action", 'action in (if context.reveals then Action::"stage:export" else action)'),
        ("action", 'Action::"stage:export" in action'),
    ],
)
def test_stage_is_compared_with_in_only(scope: str, condition: str) -> None:
    """Cedar takes each of these, and none of them is ever true of a call."""
    with pytest.raises(PolicyError, match='expected action in Action::"stage:export"'):
        Policy({"a.cedar": PERMIT + forbid(condition, scope)})


@pytest.mark.parametrize("stage", [group.removeprefix("stage:") for group in GROUPS])
def test_policy_of_the_old_form_is_refused_and_says_what_to_write(stage: str) -> None:
    for scope, condition in (
        (f'action == Action::"{stage}"', "true"),
        (f'action in [Action::"{stage}"]', "true"),
        ("action", f'action == Action::"{stage}"'),
    ):
        with pytest.raises(PolicyError) as caught:
            Policy({"a.cedar": PERMIT + forbid(condition, scope)})
        assert "a.cedar, line 2: policy no: " in str(caught.value)
        assert f'expected action in Action::"stage:{stage}"' in str(caught.value)


def test_stage_in_a_condition_fires() -> None:
    both = 'action in [Action::"stage:edit", Action::"stage:render"]'
    assert answer(forbid(both, "action")).reasons == ("no",)
    assert answer(forbid('action in Action::"stage:edit"', "action")).allowed


def test_unknown_group_is_refused() -> None:
    with pytest.raises(PolicyError, match=r'got Action::"stage:exprot", expected one of stage:'):
        Policy({"a.cedar": PERMIT + forbid("true", 'action in Action::"stage:exprot"')})


def test_tool_that_is_called_like_a_stage_is_judged_by_its_own() -> None:
    export = replace(RENDER, name="export", stage=Stage.EDIT)
    Policy({"a.cedar": PERMIT}).require_fits(known(export))
    assert answer(forbid("true", 'action in Action::"stage:edit"'), export).reasons == ("no",)
    assert answer(forbid("true", 'action in Action::"stage:export"'), export).allowed
    assert answer(forbid('context.tool == "export"', "action"), export).reasons == ("no",)


@pytest.mark.parametrize("name", ["stage:export", "the export tool", "", "a\nb"])
def test_tool_that_is_called_like_a_group_or_a_placeholder_is_refused(name: str) -> None:
    with pytest.raises(BindingError, match="expected a name without blanks and colons"):
        action_of(name, Stage.EDIT, {"type": "object", "properties": {}})


# --- stages without tools ------------------------------------------------------------------- -----


def test_default_policy_fits_a_workspace_without_tools() -> None:
    Policy.load().require_fits(known())


@pytest.mark.parametrize("group", GROUPS)
def test_policy_of_a_stage_without_tools_is_validated(group: str) -> None:
    scope = f'action in Action::"{group}"'
    with pytest.raises(PolicyError, match=r"a\.cedar, line 2: policy no breaks the schema: "):
        Policy({"a.cedar": PERMIT + forbid("resource.secret", scope)})


# --- names that mean nothing ---------------------------------------------------------------- -----

HAS = "context.args has codec"
GOES = "context has destination"


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("context.args has secnods", "got context.args.secnods, expected an argument of render_"),
        ("context has args.secnods", "got context.args.secnods"),
        ("context has args.size.depth", "got context.args.size.depth"),
        ("context.args has size && context.args.size has depth", "got context.args.size.depth"),
        ("context.args has loose", "context.args.loose, which has no type in Cedar"),
        (f'{HAS} && context.args.codec == "h265"', "'h265' for context.args.codec, expected one"),
        (f'{HAS} && "h265" != context.args.codec', "got 'h265'"),
        (f'{HAS} && context.args.codec like "vp*"', "pattern for context.args.codec that matches"),
        (f'{HAS} && ["av1", "h265"].contains(context.args.codec)', "got 'h265'"),
        ('context has destination && context.destination == Destination::"sit"',
         'got Destination::"sit", expected a configured one: site'),
        (f'{GOES} && context.destination.id == "sit"', "destination.id, expected one of site"),
        ('context has destination && ["sit"].contains(context.destination.id)', '"sit"'),
        (f'{GOES} && context.destination.audience == "pubic"', "expected one of internal"),
        (f'{GOES} && context.destination.environment == "prod"', "draft, production"),
        ('resource.labels.contains("likenes")', 'got "likenes" for resource.labels'),
        ('resource.labels.containsAny(["likeness", "brnad"])', '"brnad"'),
        ('resource.kind == "image"', "expected one of asset, none, text"),
        ('resource.provenance != "ok"', "expected one of broken"),
        ('context.tool == "render_vdieo"', 'got "render_vdieo" for context.tool'),
        ('context.stage == "stage:render"', "for context.stage"),
        (f'{GOES} && context.destination.ceiling.contains("custmer")', "destination.ceiling, exp"),
        (f'{GOES} && context.destination.proven.contains("revok")', "expected one of hold, "),
        ('context has chatCeiling && context.chatCeiling.contains("likenes")', '"likenes"'),
        ('resource.terms has channels && resource.terms.channels.contains("sitee")', '"sitee"'),
        ('principal.stages.containsAny(["rendr"])', 'got "rendr" for principal.stages'),
        ("context has toolSage", "got has toolSage, expected an attribute of Call: approvals, "),
        ("context has destination.idd", "got has idd, expected an attribute of Destination: aud"),
        (f"{GOES} && context.destination has idd", "got has idd"),
        ("resource has terms.chanels", "got has chanels, expected an attribute of Terms: "),
        ("principal has stage", "attribute of Agent: owner, stages"),
        ('Destination::"site" has idd', "got has idd"),
        ('principal == Agent::"publishr"', 'got Agent::"publishr"'),
        ('resource == Media::"asset-1"', 'expected a condition: resource.id == "asset-1"'),
        ('action == Action::"render_vdieo"', "expected a bound tool: render_video"),
        ('context.approverGroups.contains("leagl")', 'got the group "leagl"'),
    ],
)  # fmt: skip
def test_name_that_means_nothing_is_refused(condition: str, says: str) -> None:
    message = refusal(forbid(condition), RENDER)
    assert "a.cedar, line 2: policy no: " in message
    assert says in message


def test_names_of_the_schema_are_accepted() -> None:
    condition = """
        context has toolStage && context has destination.ceiling && resource has terms.channels
        && context.args has codec && context.args.codec like "*26*"
        && context.destination has id && principal has stages && resource.terms has until
        && context.destination.ceiling.contains("likeness") && context has args.seconds
        && resource.terms.channels.contains("site") && principal.stages.contains("render")
    """
    Policy({"a.cedar": PERMIT + forbid(condition)}).require_fits(known(RENDER))


@pytest.mark.parametrize(
    "scope",
    [
        'action == Action::"render_vdieo"',
        'action in [Action::"render_video", Action::"render_vdieo"]',
    ],
)
def test_unknown_tool_in_a_scope_is_refused(scope: str) -> None:
    assert 'got Action::"render_vdieo", expected' in refusal(forbid("true", scope), RENDER)


def test_unknown_agent_in_a_scope_is_refused() -> None:
    policy = '@id("no") forbid (principal == Agent::"publishr", action, resource);'
    assert 'got Agent::"publishr"' in refusal(policy, RENDER)


def test_argument_of_another_stage_is_unknown_in_this_one() -> None:
    still = replace(RENDER, name="crop", stage=Stage.EDIT, arguments={})
    policy = forbid("context.args has seconds", 'action in Action::"stage:edit"')
    assert "expected an argument of crop" in refusal(policy, RENDER, still)


SECONDS = "context.args has seconds && context.args.seconds > 60"


def test_argument_without_a_type_for_one_of_several_tools_is_refused() -> None:
    def render_loose(seconds: int | str) -> str:
        """Render."""
        return str(seconds)

    loose = action(render_loose)
    nested = replace(RENDER, name="render_nested", arguments={}, left_out=("size",))
    assert loose.left_out == ("seconds",)
    both = 'action in [Action::"render_video", Action::"render_loose"]'
    says = "context.args.seconds, which has no type in Cedar for render_loose"
    assert says in refusal(forbid(SECONDS), RENDER, loose)
    assert says in refusal(forbid(SECONDS, both), RENDER, loose)
    assert says in refusal(forbid(SECONDS), RENDER, loose, others=("elsewhere",))
    part = forbid("context.args has size && context.args.size has height")
    assert "no type in Cedar for render_nested" in refusal(part, RENDER, nested)


def test_tool_whose_argument_has_no_type_can_be_excluded() -> None:
    def render_loose(seconds: int | str) -> str:
        """Render."""
        return str(seconds)

    loose = action(render_loose)
    for scope, condition in (
        ('action == Action::"render_video"', SECONDS),
        ('action in Action::"stage:render"', f'action != Action::"render_loose" && {SECONDS}'),
    ):
        Policy({"a.cedar": PERMIT + forbid(condition, scope)}).require_fits(known(RENDER, loose))
    alone = forbid(f'action != Action::"render_loose" && {SECONDS}')
    crop = replace(RENDER, name="crop", arguments={}, left_out=())
    assert "expected an argument of crop" in refusal(alone, crop, loose)
    either = forbid(f'action != Action::"render_loose" || ({SECONDS})')
    assert "no type in Cedar" in refusal(either, RENDER, loose)


def test_tool_of_another_process_is_named_in_the_configuration() -> None:
    policy = forbid("context.args.frames.contains(3)", 'action == Action::"elsewhere"')
    assert "add it to other_tools" in refusal(policy, RENDER)
    Policy({"a.cedar": PERMIT + policy}).require_fits(known(RENDER, others=("elsewhere",)))
    whole = forbid("context.args has paces")
    assert "got context.args.paces" in refusal(whole, RENDER)
    Policy({"a.cedar": PERMIT + whole}).require_fits(known(RENDER, others=("elsewhere",)))


def test_all_mistakes_are_told_at_once() -> None:
    second = forbid("context.args has a").replace('"no"', '"not"')
    message = refusal(forbid("context.args has b") + "\n" + second, RENDER)
    assert [line.split(":")[0] for line in message.splitlines()] == ["a.cedar, line 2",
                                                                    "a.cedar, line 3"]  # fmt: skip


# --- one name, two types -------------------------------------------------------------------- -----


def test_tool_with_another_type_is_named() -> None:
    def render_still(seconds: str) -> str:
        """Render."""
        return seconds

    policy = forbid("context.args has seconds && context.args.seconds > 60")
    message = refusal(policy, RENDER, action(render_still))
    assert "policy no breaks the schema for render_still: " in message
    assert "render_video" not in message


def test_policy_over_a_stage_reads_an_argument_that_some_tools_have() -> None:
    def crop(width: int) -> str:
        """Crop."""
        return str(width)

    policy = forbid("context.args has seconds && context.args.seconds > 60")
    still = action(crop)
    Policy({"a.cedar": PERMIT + policy}).require_fits(known(RENDER, still))
    assert answer(policy).reasons == ("no",)
    assert answer(policy, still, {"width": 90}).allowed
    assert answer(policy, args={**ARGS, "seconds": 60}).allowed


# --- the values of a call --------------------------------------------------------------- ---------


@settings(max_examples=300, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
def test_any_number_can_be_asked_about(number: float) -> None:
    said = arguments_of(RENDER, {**ARGS, "gain": number})["gain"]["__extn"]["arg"]
    cedar = GAIN.evaluate(*call(RENDER, {**ARGS, "gain": number}), NOW, 0, frozenset())
    assert cedar.errors == ()
    assert cedar.allowed is not (float(said) > 1.5)
    assert (float(said) > 1.5) <= (number > 1.5) or abs(number - 1.5) < 1e-4


GAIN = Policy(
    {"a.cedar": PERMIT + forbid('context.args.gain.greaterThan(decimal("1.5"))', "action in"
     ' Action::"stage:render"').replace("when {", "when { context.args has gain &&")}
)  # fmt: skip


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1e15, "922337203685477.5807"),
        (-1e300, "-922337203685477.5807"),
        (1e-7, "0.0000"),
        (-1e-7, "0.0000"),
        (0.00005, "0.0000"),
        (0.00015, "0.0002"),
        (3, "3.0000"),
    ],
)
def test_number_is_rounded_and_clamped(number: float, text: str) -> None:
    said = arguments_of(RENDER, {**ARGS, "gain": number})
    assert said["gain"] == {"__extn": {"fn": "decimal", "arg": text}}


ENTITY = {"__entity": {"type": "Destination", "id": "site"}}


@pytest.mark.parametrize(
    "args",
    [
        {**ARGS, "codec": ENTITY},
        {**ARGS, "seconds": "90"},
        {**ARGS, "seconds": 90.5},
        {**ARGS, "seconds": True},
        {**ARGS, "frames": [ENTITY]},
        {**ARGS, "size": 3},
        {name: value for name, value in ARGS.items() if name != "seconds"},
        {**ARGS, "seconds": None},
        {**ARGS, "seconds": 2**63},
    ],
)
@pytest.mark.parametrize("careless", [False, True], ids=["as it is", "without conversion"])
def test_argument_of_another_type_is_denied(
    args: dict[str, Any], careless: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the conversion, and by Cedar if that let it pass: no policy reads what is wrong."""
    if careless:
        monkeypatch.setattr(
            cedar_input, "arguments_of",
            lambda _action, given: {
                name: value if name != "gain" else {"__extn": {"fn": "decimal", "arg": "1.0"}}
                for name, value in given.items() if name != "loose"
            },
        )  # fmt: skip
    request, facts = call(RENDER, args)
    decision = decide(Policy({"a.cedar": PERMIT}), request, facts, (), NOW)
    assert decision.policies in (("agentguard.policy-error",), ("agentguard.request",))


@pytest.mark.parametrize(
    "change",
    [{"codec": ENTITY}, {"seconds": "90"}, {"seconds": 90.5}, {"frames": [ENTITY]}, {"size": 3}],
)
def test_conversion_refuses_what_is_not_of_the_type(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        arguments_of(RENDER, {**ARGS, **change})


def test_well_typed_call_is_permitted_where_ill_typed_ones_are_not() -> None:
    assert answer("").allowed
    assert answer("", args={**ARGS, "upscale": 2, "size": {"width": 1, "height": 2}}).allowed


def test_argument_that_looks_like_an_entity_is_left_out() -> None:
    schema = {
        "type": "object",
        "properties": {"__entity": {"type": "string"}, "note": {"type": "string"}},
        "required": ["__entity", "note"],
    }
    made = action_of("note", Stage.EDIT, schema)
    assert (list(made.arguments), made.left_out) == (["note"], ("__entity",))


def test_facts_of_another_tool_are_refused() -> None:
    request, facts = call(RENDER, ARGS)
    other = replace(facts, action=replace(RENDER, name="crop"))
    decision = decide(Policy({"a.cedar": PERMIT}), request, other, (), NOW)
    assert decision.policies == ("agentguard.tool",)


def test_argument_called_like_an_approval_is_none() -> None:
    policy = Policy(
        {"a.cedar": PERMIT + forbid("context.args has approvals && context.args.approvals > 1")}
    )
    assert set(policy.rules["no"].reads or ()) == {"args"}
    assert policy.monotone_violations() == ()
    groups = forbid('context.args has approverGroups && context.args.approverGroups == "x"')
    assert Policy({"a.cedar": PERMIT + groups}).groups == frozenset()


# --- what a tool's schema becomes ---------------------------------------------------------------


def test_arguments_have_the_types_of_the_tool() -> None:
    number = ArgumentType(kind=ArgumentKind.INTEGER)
    assert dict(RENDER.arguments) == {
        "seconds": number,
        "codec": ArgumentType(kind=ArgumentKind.STRING, choices=("h264", "av1")),
        "gain": ArgumentType(kind=ArgumentKind.NUMBER),
        "upscale": ArgumentType(kind=ArgumentKind.INTEGER, optional=True),
        "size": ArgumentType(
            kind=ArgumentKind.OBJECT,
            fields={
                "width": number,
                "height": ArgumentType(kind=ArgumentKind.INTEGER, optional=True),
            },
        ),
        "frames": ArgumentType(kind=ArgumentKind.LIST, item=number),
    }
    assert RENDER.left_out == ("loose",)
    assert {RENDER: 1}[action(render_video)] == 1


def test_digest_names_the_policy_and_not_the_tools() -> None:
    policy = Policy({"a.cedar": PERMIT})
    before = policy.digest
    policy.require_fits(known(RENDER))
    assert policy.digest == before == Policy({"a.cedar": PERMIT}).digest
