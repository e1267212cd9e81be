"""What a call was, what was decided of it, and what became of it, from the ledger."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from agentguard.canonical import plain
from agentguard.cli.context import find_request, ledger_of, place_of, places_of
from agentguard.cli.output import (
    DENIED,
    EFFECT_STYLES,
    PENDING,
    STATE_STYLES,
    Line,
    Say,
    fields,
    picked,
    print_json,
    say,
    short,
    visible,
    when,
)
from agentguard.model import Effect

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from agentguard.config.workspace import Workspace
    from agentguard.ledger.rows.approvals import ApprovalRow
    from agentguard.ledger.rows.grants import OutcomeRow, ReceiptRow
    from agentguard.ledger.rows.requests import RequestRow
    from agentguard.model import Answer

CODES = {"permit": 0, "ask": PENDING, "deny": DENIED}
"""Exit codes by effect."""


def who(workspace: Workspace, people: set[str]) -> str:
    """People with their groups, in one line, and who of them has no key."""
    from agentguard.people.signers import Signers

    keys = Signers.load(workspace.signers).keys
    said = []
    for name in sorted(people):
        about = sorted(workspace.people[name].groups) + ([] if keys.get(name) else ["no key yet"])
        said.append(visible(name) + (f" ({visible(', '.join(about))})" if about else ""))
    return ", ".join(said) or "nobody"


def answers_data(workspace: Workspace, answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Answers as JSON data; `keys` is how many keys the person has now."""
    keys = _keys_of(workspace, answers)
    return [
        {
            **picked(one, "person", "verdict", "group", "at", "key_id"),
            "keys": len(keys.get(one.person, ())),
        }
        for one in answers
    ]


def answer_rows(workspace: Workspace, answers: Sequence[Answer]) -> list[Line]:
    """One line per Answer: who said what, when, and with which key where there is more than one."""
    keys = _keys_of(workspace, answers)
    rows: list[Line] = []
    for one in answers:
        as_group = f" as {one.group}" if one.group else ""
        text = visible(f"{one.person} said {one.verdict}{as_group}") + f", {when(one.at)}"
        held = keys.get(one.person, {})
        if len(held) == 1 and one.key_id in held:
            rows.append(("answer", text))
        else:
            which = f"one of {len(held)} of theirs" if one.key_id in held else "not theirs now"
            rows.append(("answer", (f"{text}, with key {visible(one.key_id)}, {which}", "yellow")))
    return rows


def _keys_of(
    workspace: Workspace, answers: Sequence[Answer]
) -> Mapping[str, Mapping[str, Ed25519PublicKey]]:
    from agentguard.people.signers import Signers

    return Signers.load(workspace.signers).keys if answers else {}


def policy_rows(
    label: str, policies: tuple[str, ...] | list[str], places: Mapping[str, str]
) -> list[Line]:
    """One line per policy: its id, and where it stands."""
    return [
        (label if index == 0 else "", f"{visible(one)}  ({visible(place_of(places, one))})")
        for index, one in enumerate(policies)
    ]


def tell(workspace: Workspace, name: str, json_: bool) -> NoReturn:
    """Print what was decided of a recorded request and what became of it; exits with its effect."""
    from agentguard.ledger.queries import grants
    from agentguard.ledger.queries.approvals import approval_of

    places = places_of(workspace)
    with ledger_of(workspace) as ledger:
        known = find_request(ledger, name)
        digest = known.digest
        approval = ledger.first(approval_of(digest))
        answers = ledger.answers(digest)
        grant = ledger.first(grants.grant_of(digest))
        outcome: OutcomeRow | None = None
        receipts: list[ReceiptRow] = []
        if grant is not None:
            outcome = ledger.first(grants.outcome_of(grant.id))
            receipts = ledger.rows(grants.receipts_of(grant.id))
    shown = plain(known.body.to_json())
    standing = _standing(known, approval)
    if json_:
        print_json(
            {
                **picked(known, "job", "decided_at", "effect", "reason", "policy_version"),
                "request": digest,
                "policies": [{"id": one, "file": place_of(places, one)} for one in known.policies],
                "call": shown,
                "approval": approval
                and picked(approval, "state", "groups", "expires_at", approvals="count"),
                "answers": answers_data(workspace, answers),
                "grant": grant and picked(grant, "id", "state"),
                "outcome": outcome and picked(outcome, "status", "text", "assets"),
                "receipts": [
                    picked(one, "destination", "location", "sha256", "at") for one in receipts
                ],
            }
        )
        raise typer.Exit(CODES[standing])
    place = f" to {known.destination}" if known.destination else ""
    rows: list[Line] = [
        ("request", visible(digest)),
        ("call", visible(f"{known.agent} called {known.tool}{place}", 400)),
        ("in job", visible(known.job)),
        ("decided", when(known.decided_at)),
        (known.effect.upper(), (visible(known.reason, 2000), EFFECT_STYLES[known.effect])),
        *policy_rows("decided by", known.policies, places),
        *call_rows(shown),
        *(media_row(use) for use in shown.get("assets", ())),
    ]
    if approval is not None:
        rows.append(("approval", _style(approval.state)))
    rows += answer_rows(workspace, answers)
    rows.append(("grant", visible(grant.state) if grant is not None else "none"))
    if outcome is not None:
        rows.append(("outcome", visible(f"{outcome.status}: {outcome.text}", 1000)))
    for receipt in receipts:
        rows.append(("released", f"{visible(receipt.location)}, {when(receipt.at)}"))
    fields(rows)
    if standing == "ask":
        say(f"Next: agentguard approvals show {short(digest)}")
    raise typer.Exit(CODES[standing])


def call_rows(shown: Mapping[str, Any], *, whole: bool = False) -> list[Line]:
    """The arguments of a call; media by `media_row`.

    Args:
        whole: they are word for word what is asked, and nothing of it is cut (I7); else they are
            as the log keeps them, texts redacted.
    """
    rows: list[Line] = []
    media = {use["asset"] for use in shown.get("assets", ())}
    for path, value in shown.get("args", {}).items():
        if isinstance(value, str) and value in media:
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        rows.append((visible(path, 12), visible(text, 400_000 if whole else 5000)))
    rows += [(visible(path, 12), "made when it runs") for path in shown.get("made_when_run", ())]
    if shown.get("text_labels"):
        hidden = "; what is in [brackets] is hidden here, but sent"
        cut = not whole and any("[" in text for _, text in rows if isinstance(text, str))
        said = visible(f"class {' + '.join(shown['text_labels'])}")
        rows.append(("texts", said + hidden * cut))
    return rows


def media_row(use: Mapping[str, Any]) -> Line:
    """One asset of a call."""
    labels = " + ".join(use["labels"])
    return "media", visible(f"{use['argument']}: {use['asset']}, class {labels}")


def _standing(request: RequestRow, approval: ApprovalRow | None) -> str:
    """The effect as it stands now: an ask that was answered is no ask any more."""
    if request.effect is not Effect.ASK or approval is None:
        return request.effect
    return {"pending": "ask", "approved": "permit"}.get(approval.state, "deny")


def _style(state: str) -> Say:
    return visible(state), STATE_STYLES.get(state, "red")
