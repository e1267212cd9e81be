"""`matrix`: who may do what, and what is asked of each class at each destination."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentguard.cli.commands.explain import decision_data
from agentguard.cli.context import policy_of, workspace_of
from agentguard.cli.output import EFFECT_STYLES, Json, Say, print_json, say, table, visible
from agentguard.model import Agent, Audience, Destination, Effect, Provenance, Stage

if TYPE_CHECKING:
    from agentguard.config.workspace import Workspace
    from agentguard.policy.policy_set import Policy

_COLUMNS = 4  # destinations side by side in 80 columns
_YES, _NO = ("✓", "green"), ("–", "dim")  # noqa: RUF001


def register(app: typer.Typer) -> None:
    app.command("matrix")(matrix)


def matrix(
    ctx: typer.Context,
    provenance: Annotated[
        Provenance, typer.Option(help="The history of the supposed asset.")
    ] = Provenance.UNKNOWN,
    json_: Json = False,
) -> None:
    """Show who may do what, and what is asked where.

    Agents and stages, then classes and destinations. The second table asks your policy about the
    export of an asset of that one class, queued and cleanly reviewed. Its history counts as
    unknown unless --provenance says so.

    \b
    Example:
      $ agentguard matrix --provenance verified

    Next: `agentguard explain --to DESTINATION --class CLASS` says why.
    """
    workspace = workspace_of(ctx)
    policy = policy_of(workspace)
    releases = releases_of(workspace, policy, provenance)
    if json_:
        print_json(
            {
                "agents": {
                    name: {
                        "owner": agent.owner,
                        "stages": sorted(agent.stages),
                        "combined": list(agent.combined),
                    }
                    for name, agent in workspace.agents.items()
                },
                "provenance": provenance.value,
                "exports": releases,
            }
        )
        return
    stages = list(Stage)
    table(
        workspace.agents.items(),
        {
            "agent": lambda one: visible(one[0]),
            **{stage: partial(_may, stage) for stage in stages},
            "owner": lambda one: visible(one[1].owner),
        },
        tight=stages,
    )
    for name, agent in workspace.agents.items():
        if agent.combined:
            say(f"{visible(name)} combines {', '.join(agent.combined)}:", "yellow")
            say("  whoever hijacks its model reaches them all", "yellow")
    say()
    say(f"Release of a queued, reviewed asset of one class (provenance {provenance}):")
    names = list(workspace.destinations)
    by_place = {(one["class"], one["destination"]): one for one in releases}

    def release(name: str, one: tuple[str, Any]) -> Say:
        return _cell(by_place[one[0], name])

    for start in range(0, len(names), _COLUMNS):
        say()
        part = names[start : start + _COLUMNS]
        table(
            _by_sensitivity(workspace),
            {
                "class": lambda one: visible(one[0]),
                "sensitivity": lambda one: one[1].value,
                **{_head(workspace.destinations[name]): partial(release, name) for name in part},
            },
            tight=["sensitivity"],
        )
    say()
    if any(one["nobody"] for one in releases):
        say("! your people can't give this: who asked, and who owns the agent, don't count")
    if any(place.audience is Audience.VENDOR for place in workspace.destinations.values()):
        say("* vendors take no releases: whether an edit tool may send it there")
    say("Why: agentguard explain --to DESTINATION --class CLASS --queued --reviewed")


def _by_sensitivity(workspace: Workspace) -> list[tuple[str, Any]]:
    return sorted(workspace.classes.items(), key=lambda one: (one[1].rank, one[0]))


def _may(stage: Stage, one: tuple[str, Agent]) -> Say:
    return _YES if stage in one[1].stages else _NO


def _head(place: Destination) -> str:
    if place.audience is Audience.VENDOR:
        return f"{visible(place.id)}*\nvendor"
    return f"{visible(place.id)}\n{place.audience}, {place.environment}"


def _cell(release: Mapping[str, Any]) -> Say:
    word = release["word"]
    return word + (" !" if release["nobody"] else ""), EFFECT_STYLES[release["effect"]]


def releases_of(
    workspace: Workspace, policy: Policy, provenance: Provenance
) -> list[dict[str, Any]]:
    """What is decided of each class at each destination, by `trial.release`.

    Returns:
        JSON data; `nobody` says that people could approve, but not the configured ones.
    """
    from agentguard.policy.simulate import cell, judge, judge_among_strangers, release

    found: list[dict[str, Any]] = []
    for name, place in workspace.destinations.items():
        for label, sensitivity in _by_sensitivity(workspace):
            row = {"class": label, "sensitivity": sensitivity.value, "destination": name}
            trial = release(workspace, place, label, provenance)
            if trial is None:
                reason = "no agent takes the stage"
                row |= {"effect": "deny", "reason": reason, "policies": [], "needs": None}
                found.append({**row, "word": "deny", "nobody": False})
                continue
            wanted = judge_among_strangers(trial, workspace, policy)
            real = judge(trial, workspace, policy)
            row |= {
                **decision_data(wanted, {}),
                "policies": list(wanted.policies),
                "word": cell(wanted),
                "nobody": wanted.effect is Effect.ASK and real.effect is Effect.DENY,
            }
            found.append(row)
    return found
