"""`explain` one call, made or supposed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentguard._cli.opening import (
    find_request,
    ledger_of,
    place_of,
    places_of,
    policy_of,
    require_person,
    workspace_of,
)
from agentguard._cli.show import (
    DENIED,
    EFFECT_STYLES,
    PENDING,
    Json,
    Say,
    fields,
    print_json,
    say,
    short,
    visible,
    when,
)
from agentguard.errors import ConfigError
from agentguard.model import Decision, Effect, Provenance, Stage

if TYPE_CHECKING:
    from agentguard._cli.trial import Trial
    from agentguard.config import Workspace
    from agentguard.storage import Row

_CODES = {"permit": 0, "ask": PENDING, "deny": DENIED}


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
    json_: Json = False,
) -> None:
    """Say what is decided about one call, and why.

    With options it is a dry run: your policy judges a supposed call, nothing is recorded. With
    a request's digest it tells what happened to that call. Exits 0 permit, 3 deny, 4 ask.

    \b
    Examples:
      $ agentguard explain --to site --class brand --queued --reviewed
      $ agentguard explain --to site --class regulated --queued --approvals 1
      $ agentguard explain 3f9a1c0be2d47705

    Next: `agentguard matrix` shows all classes and destinations at once.
    """
    options = (agent, tool_stage, to, class_, group, requested_by, queued or None)
    if request is not None:
        if any(one is not None for one in (*options, reviewed or None, approvals or None)):
            raise typer.BadParameter("give a recorded REQUEST or the options of a dry run")
        _recorded(workspace_of(ctx), request, json_)
        return
    if not any(one is not None for one in options):
        raise typer.BadParameter("say what to explain, such as --to site --class brand")
    workspace = workspace_of(ctx)
    from agentguard._cli.trial import judge

    policy = policy_of(workspace)
    trial = _trial(
        workspace,
        agent=agent,
        stage=tool_stage or Stage.EXPORT,
        to=to,
        labels=class_,
        queued=queued,
        reviewed=reviewed,
        provenance=provenance,
        requested_by=requested_by,
    )
    decision = judge(trial, workspace, policy, approvals=approvals, groups=group or ())
    places = {name: rule.place for name, rule in policy.rules.items()}
    if json_:
        print_json(decision_data(decision, places))
    else:
        _show_supposed(workspace, trial, decision, places, max(approvals, len(group or ())))
    raise typer.Exit(_CODES[decision.effect.value])


def _trial(
    workspace: Workspace,
    *,
    agent: str | None,
    stage: Stage,
    to: str | None,
    labels: list[str] | None,
    queued: bool,
    reviewed: bool,
    provenance: Provenance,
    requested_by: str | None,
) -> Trial:
    from agentguard._cli.trial import Trial, first_agent

    chosen = first_agent(workspace, stage) if agent is None else workspace.agents.get(agent)
    if chosen is None:
        what = f"no agent takes the {stage} stage" if agent is None else f"no agent {agent:.80}"
        raise ConfigError(f"{what}; there are {', '.join(sorted(workspace.agents))}")
    if to is not None and to not in workspace.destinations:
        known = ", ".join(sorted(workspace.destinations)) or "none"
        raise ConfigError(f"no destination {to:.80} is configured; there are {known}")
    named = _labels(workspace, labels)
    if named is None and stage is not Stage.GENERATE:
        named = frozenset({"unclassified"})  # as an import without --class
    return Trial(
        agent=chosen,
        stage=stage,
        destination=workspace.destinations[to] if to is not None else None,
        labels=named,
        queued=queued,
        reviewed=reviewed,
        provenance=provenance,
        requester=require_person(workspace, requested_by) if requested_by else chosen.owner,
    )


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


def _show_supposed(
    workspace: Workspace,
    trial: Trial,
    decision: Decision,
    places: Mapping[str, str],
    approvals: int,
) -> None:
    word = decision.effect.value
    place = trial.destination
    if trial.labels is None:
        media = "a text and no asset"
    else:
        queued, reviewed = ("" if one else "not " for one in (trial.queued, trial.reviewed))
        media = (
            f"an asset of class {' + '.join(sorted(trial.labels))}, {queued}queued,"
            f" {reviewed}reviewed, provenance {trial.provenance}"
        )
    rows: list[tuple[str, str | Say]] = [
        (word.upper(), (visible(decision.reason, 2000), EFFECT_STYLES[word])),
        ("supposed", f"{trial.agent.id} calls a tool of the {trial.stage} stage"),
        ("", media),
        ("", f"asked for by {trial.requester}, approved by {approvals or 'nobody'}"),
    ]
    if place is not None:
        rows.append(("", f"to {place.id}: {place.audience} audience, {place.environment}"))
    rows += policy_rows("decided by", decision.policies, places)
    if decision.needs is not None:
        barred = {trial.requester, trial.agent.owner}
        rows.append(("needs", f"{decision.needs} to approve"))
        rows.append(("who may", who(workspace, set(workspace.people) - barred)))
    fields([(label, value if isinstance(value, tuple) else visible(value, 2000))
            for label, value in rows])  # fmt: skip


def who(workspace: Workspace, people: set[str]) -> str:
    """People with their groups, in one line, and who of them has no key."""
    from agentguard.identity import Signers

    keys = Signers.load(workspace.signers).keys
    said = []
    for name in sorted(people):
        about = sorted(workspace.people[name].groups) + ([] if keys.get(name) else ["no key yet"])
        said.append(visible(name) + (f" ({visible(', '.join(about))})" if about else ""))
    return ", ".join(said) or "nobody"


def policy_rows(
    label: str, policies: tuple[str, ...] | list[str], places: Mapping[str, str]
) -> list[tuple[str, str | Say]]:
    """One line per policy: its id, and where it stands."""
    return [
        (label if index == 0 else "", f"{visible(one)}  ({visible(place_of(places, one))})")
        for index, one in enumerate(policies)
    ]


def _recorded(workspace: Workspace, name: str, json_: bool) -> None:
    places = places_of(workspace)
    with ledger_of(workspace) as ledger:
        row = find_request(ledger, name)
        digest = row["digest"]
        approval = ledger.one("SELECT * FROM approvals WHERE request = ?", digest)
        answers = ledger.answers(digest)
        grant = ledger.one("SELECT * FROM grants WHERE request = ?", digest)
        outcome, receipts = None, []
        if grant is not None:
            outcome = ledger.one("SELECT * FROM outcomes WHERE grant_id = ?", grant["id"])
            receipts = ledger.all(
                "SELECT destination, location, sha256, at FROM receipts WHERE grant_id = ?"
                " ORDER BY at",
                grant["id"],
            )
    policies = json.loads(row["policies"])
    shown = json.loads(row["body"])
    standing = _standing(row, approval)
    if json_:
        print_json(
            {
                "request": digest,
                "job": row["job"],
                "decided_at": row["decided_at"],
                "effect": row["effect"],
                "reason": row["reason"],
                "policies": [{"id": one, "file": place_of(places, one)} for one in policies],
                "policy_version": row["policy_version"],
                "call": shown,
                "approval": approval
                and {
                    "state": approval["state"],
                    "approvals": approval["count"],
                    "groups": json.loads(approval["groups"]),
                    "expires_at": approval["expires_at"],
                },
                "answers": [
                    {
                        "person": one.person,
                        "verdict": one.verdict,
                        "group": one.group,
                        "at": one.at,
                    }
                    for one in answers
                ],
                "grant": grant and {"id": grant["id"], "state": grant["state"]},
                "outcome": outcome
                and {
                    "status": outcome["status"],
                    "text": outcome["text"],
                    "assets": json.loads(outcome["assets"]),
                },
                "receipts": [dict(one) for one in receipts],
            }
        )
        raise typer.Exit(_CODES[standing])
    place = f" to {row['destination']}" if row["destination"] else ""
    rows: list[tuple[str, str | Say]] = [
        ("request", visible(digest)),
        ("call", visible(f"{row['agent']} called {row['tool']}{place}", 400)),
        ("in job", visible(row["job"])),
        ("decided", f"{when(row['decided_at'])}"),
        (row["effect"].upper(), (visible(row["reason"], 2000), EFFECT_STYLES[row["effect"]])),
        *policy_rows("decided by", policies, places),
        *call_rows(shown),
        *(media_row(use) for use in shown.get("assets", ())),
    ]
    if approval is not None:
        rows.append(("approval", _style(approval["state"])))
    for one in answers:
        as_group = f" as {one.group}" if one.group else ""
        text = visible(f"{one.person} said {one.verdict}{as_group}")
        rows.append(("answer", f"{text}, {when(one.at)}"))
    rows.append(("grant", visible(grant["state"]) if grant is not None else "none"))
    if outcome is not None:
        rows.append(("outcome", visible(f"{outcome['status']}: {outcome['text']}", 1000)))
    for receipt in receipts:
        rows.append(("released", f"{visible(receipt['location'])}, {when(receipt['at'])}"))
    fields(rows)
    if standing == "ask":
        say(f"Next: agentguard approvals show {short(digest)}")
    raise typer.Exit(_CODES[standing])


def call_rows(shown: Mapping[str, Any]) -> list[tuple[str, str | Say]]:
    """The arguments of a call as the ledger keeps it, texts redacted; media by `media_row`."""
    rows: list[tuple[str, str | Say]] = []
    media = {use["asset"] for use in shown.get("assets", ())}
    for path, value in shown.get("args", {}).items():
        if isinstance(value, str) and value in media:
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        rows.append((visible(path, 12), visible(text, 5000)))
    if shown.get("text_labels"):
        hidden = "; what is in [brackets] is hidden here, but sent"
        cut = any("[" in text for _, text in rows if isinstance(text, str))
        said = visible(f"class {' + '.join(shown['text_labels'])}")
        rows.append(("texts", said + hidden * cut))
    return rows


def media_row(use: Mapping[str, Any]) -> tuple[str, str | Say]:
    """One asset of a call."""
    return "media", visible(f"{use['asset']}, class {' + '.join(use['labels'])}")


def _standing(row: Row, approval: Row | None) -> str:
    """The effect as it stands now: an ask that was answered is no ask any more."""
    if row["effect"] != Effect.ASK.value or approval is None:
        return str(row["effect"])
    return {"pending": "ask", "approved": "permit"}.get(approval["state"], "deny")


def _style(state: str) -> Say:
    colours = {"approved": "green", "pending": "yellow"}
    return visible(state), colours.get(state, "red")
