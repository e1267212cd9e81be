"""Request and Facts in the words of `policy/default/schema.cedarschema`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from agentguard.model import (
    UNCLASSIFIED,
    Agent,
    AssetFacts,
    Destination,
    Facts,
    Request,
    Terms,
    ToolAction,
)
from agentguard.policy.tool_types import arguments_of, sample_arguments

FIRST_TIME, LAST_TIME = -62_135_596_800_000, 253_402_300_799_999
"""What Cedar can say of time: the years 1 to 9999, in ms since the Unix epoch."""

CANARY_AGENT = "canary"
MEDIA = {"type": "Media", "id": "0"}
"""What each asset of a call is called while it is asked about."""

_EPOCH = datetime(1970, 1, 1)  # naive, so that isoformat writes no offset; it means UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What Cedar is asked about a Request, but for who approved it.

    Args:
        agent: id of the principal.
        context: the `Call` of the schema without approvals.
        media: for each asset, or for the one resource that stands for the call, its id and the
            entities: agent, destination and the asset, as JSON text.
    """

    agent: str
    context: Mapping[str, Any]
    media: tuple[tuple[str, str], ...]


def question(
    request: Request, facts: Facts, agent: Agent, now: int, names: frozenset[str]
) -> Question:
    """A Request and its Facts as a Question.

    Args:
        now: ms since the Unix epoch, by the ledger's clock.
        names: which of `id` and `argument` a policy may read of the resource. The others are left
            blank, so that media that differ in nothing else are one question.

    Raises:
        ValueError: see `call_of`.
    """
    known = configured(agent, facts.destination, facts.open_labels)
    around = ", ".join(map(json.dumps, known))
    blank = dict.fromkeys({"id", "argument"} - names, "")
    media = []
    for one in media_of(request, facts):
        resource = json.dumps({"uid": MEDIA, "attrs": {**one, **blank}, "parents": []})
        media.append((one["id"], f"[{around}, {resource}]"))
    context = {**call_of(request, facts), "now": time_of(now)}
    return Question(agent=agent.id, context=context, media=tuple(media))


def sample_question(action: ToolAction) -> tuple[str, str]:
    """A context and entities, as JSON texts, that are of the schema and say nothing."""
    context = {
        "now": time_of(0),
        "tool": action.name,
        "stage": "",
        "jobOpen": False,
        "credentialLive": False,
        "approvals": 0,
        "approverGroups": [],
        "reveals": False,
        "rejected": False,
        "hasText": False,
        "unguarded": False,
        "changedMind": False,
        "args": arguments_of(action, sample_arguments(action.arguments)),
    }
    agent = {"type": "Agent", "id": CANARY_AGENT}
    entities = [
        {"uid": agent, "attrs": {"owner": "", "stages": []}, "parents": []},
        {"uid": MEDIA, "attrs": _no_media(), "parents": []},
    ]
    return json.dumps(context), json.dumps(entities)


def configured(
    agent: Agent, destination: Destination | None, open_labels: frozenset[str]
) -> list[dict[str, Any]]:
    entities: list[dict[str, Any]] = [
        {
            "uid": {"type": "Agent", "id": agent.id},
            "attrs": {"owner": agent.owner, "stages": sorted(agent.stages)},
            "parents": [],
        }
    ]
    if destination is not None:
        attrs = {
            "id": destination.id,
            "audience": destination.audience,
            "environment": destination.environment,
            "ceiling": sorted(destination.ceiling | open_labels),
            "proven": sorted(destination.proven),
        }
        uid = {"type": "Destination", "id": destination.id}
        entities.append({"uid": uid, "attrs": attrs, "parents": []})
    return entities


def call_of(request: Request, facts: Facts) -> dict[str, Any]:
    """The context of the schema but its time and approvals.

    Raises:
        ValueError: an argument is not of the type that its tool's schema says.
    """
    call: dict[str, Any] = {
        "tool": request.tool,
        "stage": request.stage or "use",
        "jobOpen": facts.job_state.value == "open",
        "credentialLive": facts.credential_live,
        "reveals": facts.reveals,
        "rejected": facts.rejected,
        "hasText": facts.text,
        "unguarded": facts.unguarded,
        "changedMind": facts.changed_mind,
        "chatCeiling": sorted(facts.chat_ceiling | facts.open_labels),
        "args": arguments_of(facts.action, request.args),
    }
    if facts.action.stage is not None:
        call["toolStage"] = facts.action.stage
    if facts.destination is not None:
        call["destination"] = {"__entity": {"type": "Destination", "id": facts.destination.id}}
    return call


def media_of(request: Request, facts: Facts) -> list[dict[str, Any]]:
    """The attributes of each asset, or of the one resource that stands for the call."""
    if facts.assets:
        return [_asset(asset, request, facts) for asset in facts.assets]
    return [
        {
            **_no_media(),
            "kind": "text" if facts.text else "none",
            "labels": sorted(request.text_labels),
            "sensitivity": _rank(facts.text_sensitivity.rank, request.text_labels, facts),
        }
    ]


def _no_media() -> dict[str, Any]:
    return {
        "id": "",
        "kind": "none",
        "argument": "",
        "labels": [],
        "sensitivity": 0,
        "recalled": False,
        "held": False,
        "queued": False,
        "reviewed": False,
        "provenance": "none",
        "terms": {"consent": True},
    }


def _asset(asset: AssetFacts, request: Request, facts: Facts) -> dict[str, Any]:
    # I11: media without a label is media of unknown origin, never open media.
    labels = (asset.use.labels or frozenset({UNCLASSIFIED})) | request.text_labels
    rank = max(asset.sensitivity.rank, facts.text_sensitivity.rank)
    return {
        "id": asset.use.asset,
        "kind": "asset",
        "argument": asset.use.argument,
        "labels": sorted(labels),
        "sensitivity": _rank(rank, labels, facts),
        "recalled": asset.recalled,
        "held": asset.held,
        "queued": asset.queued,
        "reviewed": asset.reviewed,
        "provenance": asset.provenance,
        "terms": _terms(asset.terms),
    }


def _rank(said: int, labels: frozenset[str], facts: Facts) -> int:
    """I2: never below what the labels alone say."""
    if UNCLASSIFIED in labels:
        return 2
    return said if labels <= facts.open_labels else max(said, 1)


def _terms(terms: Terms) -> dict[str, Any]:
    said: dict[str, Any] = {"consent": terms.consent}
    if terms.until is not None:
        said["until"] = time_of(terms.until)
    if terms.release_at is not None:
        said["releaseAt"] = time_of(terms.release_at)
    if terms.channels is not None:
        said["channels"] = sorted(terms.channels)
    return said


def time_of(ms: int) -> dict[str, Any]:
    """A time, in ms since the Unix epoch, as Cedar's datetime."""
    moment = _EPOCH + timedelta(milliseconds=max(FIRST_TIME, min(ms, LAST_TIME)))
    text = moment.isoformat(timespec="milliseconds") + "Z"
    return {"__extn": {"fn": "datetime", "arg": text}}
