"""`explain` one call, made or supposed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentguard.cli.context import (
    bound_of,
    place_of,
    policy_of,
    require_person,
    workspace_of,
)
from agentguard.cli.output import EFFECT_STYLES, Json, Line, fields, print_json, visible
from agentguard.cli.views.call import CODES, policy_rows, tell, who
from agentguard.errors import ConfigError
from agentguard.model import Decision, Provenance, Stage

if TYPE_CHECKING:
    from agentguard.bindings.bound import Bound
    from agentguard.cli.supposed_call import SupposedCall
    from agentguard.config.workspace import Workspace
    from agentguard.policy.simulate import Trial


def register(app: typer.Typer) -> None:
    app.command("explain")(explain)


def explain(
    ctx: typer.Context,
    request: Annotated[
        str | None, typer.Argument(metavar="REQUEST", help="12 or more digits of a recorded one.")
    ] = None,
    agent: Annotated[
        str | None, typer.Option(metavar="AGENT", help="Who calls; else the stage's first agent.")
    ] = None,
    tool_stage: Annotated[Stage | None, typer.Option(help="The stage of its tool.")] = None,
    to: Annotated[str | None, typer.Option(metavar="DESTINATION", help="Where it goes.")] = None,
    class_: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="CLASS", help="The asset's class; several: a,b."),
    ] = None,
    queued: Annotated[bool, typer.Option("--queued", help="It was queued for there.")] = False,
    reviewed: Annotated[bool, typer.Option("--reviewed", help="It has a clean review.")] = False,
    approvals: Annotated[int, typer.Option(min=0, metavar="N", help="People who approved.")] = 0,
    group: Annotated[
        list[str] | None, typer.Option(metavar="GROUP", help="What one of them answered as.")
    ] = None,
    provenance: Annotated[Provenance, typer.Option(help="Its history.")] = Provenance.UNKNOWN,
    requested_by: Annotated[
        str | None, typer.Option(metavar="PERSON", help="Who asked; else the agent's owner.")
    ] = None,
    tool: Annotated[
        str | None, typer.Option(metavar="NAME", help="The tool that is called; needs --bindings.")
    ] = None,
    args: Annotated[
        str | None, typer.Option(metavar="JSON", help="Its arguments, as an object.")
    ] = None,
    bindings: Annotated[
        str | None, typer.Option(metavar="MODULE:NAME", help="Your list of declared tools.")
    ] = None,
    json_: Json = False,
) -> None:
    """Say what is decided about one call, and why.

    With options it is a dry run: your policy judges a supposed call, nothing is recorded. With
    --tool NAME --args JSON it is a call of that tool, filled in by its Binding: defaults, fixed
    values and where it goes. Assets that are not named are supposed. With a request's digest it
    tells what happened to that call. Exits 0 permit, 3 deny, 4 ask.

    \b
    Examples:
      $ agentguard explain --to site --class brand --queued --reviewed
      $ agentguard explain --to team --class regulated --approvals 1
      $ agentguard explain 3f9a1c0be2d47705

    Next: `agentguard matrix` shows all classes and destinations at once.
    """
    options = (agent, tool_stage, to, class_, group, requested_by, queued or None, tool)
    if request is not None:
        if any(one is not None for one in (*options, reviewed or None, approvals or None)):
            raise typer.BadParameter("give a recorded REQUEST or the options of a dry run")
        tell(workspace_of(ctx), request, json_)
    if not any(one is not None for one in options):
        raise typer.BadParameter("say what to explain, such as --to site --class brand")
    workspace = workspace_of(ctx)
    from agentguard.policy.simulate import judge

    policy = policy_of(workspace)
    call = None
    if tool is not None:
        from agentguard.cli.supposed_call import suppose

        call = suppose(_bound(tool, bound_of(workspace, bindings), tool_stage), args, to, workspace)
    elif args is not None or bindings is not None:
        raise typer.BadParameter("name the tool that is called: --tool NAME")
    trial = _trial(
        workspace,
        agent=agent,
        stage=call.bound.action.stage if call is not None else tool_stage or Stage.EXPORT,
        call=call,
        to=call.destination if call is not None else to,
        labels=class_,
        queued=queued,
        reviewed=reviewed,
        provenance=provenance,
        requested_by=requested_by,
    )
    decision = judge(trial, workspace, policy, approvals=approvals, groups=group or ())
    places = {name: rule.place for name, rule in policy.rules.items()}
    if json_:
        print_json({**decision_data(decision, places), **_call_data(call)})
    else:
        _show_supposed(workspace, trial, call, decision, places, max(approvals, len(group or ())))
    raise typer.Exit(CODES[decision.effect.value])


def _trial(
    workspace: Workspace,
    *,
    agent: str | None,
    stage: Stage | None,
    call: SupposedCall | None,
    to: str | None,
    labels: list[str] | None,
    queued: bool,
    reviewed: bool,
    provenance: Provenance,
    requested_by: str | None,
) -> Trial:
    from agentguard.policy.simulate import Trial, first_agent

    chosen = first_agent(workspace, stage) if agent is None else workspace.agents.get(agent)
    if chosen is None:
        what = f"no agent takes the {stage} stage" if agent is None else f"no agent {agent:.80}"
        raise ConfigError(f"{what}; there are {', '.join(sorted(workspace.agents))}")
    if to is not None and to not in workspace.destinations:
        known = ", ".join(sorted(workspace.destinations)) or "none"
        raise ConfigError(f"no destination {to:.80} is configured; there are {known}")
    named = _labels(workspace, labels)
    if named is None and (stage is not Stage.GENERATE if call is None else call.has_assets):
        named = frozenset({"unclassified"})  # as an import without --class
    trial = Trial(
        agent=chosen,
        stage=stage,
        destination=workspace.destinations[to] if to is not None else None,
        labels=named,
        queued=queued,
        reviewed=reviewed,
        provenance=provenance,
        requester=require_person(workspace, requested_by) if requested_by else chosen.owner,
    )
    if call is None:
        return trial
    return replace(
        trial,
        action=call.bound.action,
        args=call.args,
        text=call.has_texts,
        text_labels=call.text_labels,
        reveals=call.bound.binding.reveals,
    )


def _bound(name: str, tools: Mapping[str, Bound], stage: Stage | None) -> Bound:
    bound = tools.get(name)
    if bound is None:
        raise ConfigError(
            f"no tool {name:.80} is known; there are {', '.join(sorted(tools))}. Name your list of"
            " declared tools: --bindings MODULE:NAME"
        )
    own = bound.action.stage
    if stage not in (None, own):
        raise ConfigError(f"{name:.80} belongs to the {own or 'use'} stage, not {stage}")
    return bound


def _labels(workspace: Workspace, given: list[str] | None) -> frozenset[str] | None:
    if not given:
        return None
    labels = frozenset(one.strip() for text in given for one in text.split(",")) - {""}
    unknown = sorted(labels - set(workspace.classes))
    if unknown:
        raise ConfigError(
            f"no class {', '.join(unknown)} is configured; there are"
            f" {', '.join(sorted(workspace.classes))}"
        )
    return labels


def decision_data(decision: Decision, places: Mapping[str, str]) -> dict[str, Any]:
    """A Decision as JSON data."""
    needs = decision.needs
    return {
        "effect": decision.effect.value,
        "reason": decision.reason,
        "policies": [{"id": one, "file": place_of(places, one)} for one in decision.policies],
        "needs": None
        if needs is None
        else {"approvals": needs.approvals, "groups": sorted(needs.groups)},
    }


def _call_data(call: SupposedCall | None) -> dict[str, Any]:
    if call is None:
        return {}
    said = {"tool": call.bound.name, "args": call.args, "not_given": call.origins}
    return {"call": {**said, "destination": call.destination}}


def _called(trial: Trial, call: SupposedCall | None) -> str:
    if call is None:
        return f"a tool of the {trial.stage} stage"
    said = ", ".join(
        f"{name}={value!r}" + (f" [{call.origins[name]}]" if name in call.origins else "")
        for name, value in call.args.items()
    )
    return f"{call.bound.name}({said}), of the {trial.stage or 'use'} stage"


def _show_supposed(
    workspace: Workspace,
    trial: Trial,
    call: SupposedCall | None,
    decision: Decision,
    places: Mapping[str, str],
    approvals: int,
) -> None:
    word = decision.effect.value
    place = trial.destination
    if trial.labels is None:
        media = "a text and no asset" if call is None or call.has_texts else "no text and no asset"
    else:
        queued, reviewed = ("" if one else "not " for one in (trial.queued, trial.reviewed))
        media = (
            f"an asset of class {' + '.join(sorted(trial.labels))}, {queued}queued,"
            f" {reviewed}reviewed, provenance {trial.provenance}"
        )
    rows: list[Line] = [
        (word.upper(), (visible(decision.reason, 2000), EFFECT_STYLES[word])),
        ("supposed", f"{trial.agent.id} calls {_called(trial, call)}"),
        ("", media),
        ("", f"asked for by {trial.requester}, approved by {approvals or 'nobody'}"),
    ]
    others = [stage for stage in trial.agent.combined if stage is not trial.stage]
    if others:
        rows.append(
            ("", f"{trial.agent.id} also holds {', '.join(others)}: one model has them all")
        )
    if place is not None:
        rows.append(("", f"to {place.id}: {place.audience} audience, {place.environment}"))
    rows += policy_rows("decided by", decision.policies, places)
    if decision.needs is not None:
        barred = {trial.requester, trial.agent.owner}
        rows.append(("needs", f"{decision.needs} to approve"))
        rows.append(("who may", who(workspace, set(workspace.people) - barred)))
    fields([(label, value if isinstance(value, tuple) else visible(value, 2000))
            for label, value in rows])  # fmt: skip
