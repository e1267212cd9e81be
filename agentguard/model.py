"""The vocabulary: frozen values without I/O (DESIGN section 1).

Times are integers: milliseconds since the Unix epoch, read from the ledger's clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, NoReturn

from agentguard.canonical import Canonical, canonical, digest, digest_of, plain

GENERATED = "generated"
"""The label of what a guarded generator made out of nothing labelled."""
UNCLASSIFIED = "unclassified"
"""The label of media of unknown origin: the highest sensitivity (S33)."""


class Stage(StrEnum):
    """What an agent may do. Only people approve, so there is no approve stage."""

    GENERATE = "generate"
    EDIT = "edit"
    RENDER = "render"
    REVIEW = "review"
    QUEUE = "queue"
    EXPORT = "export"


SEPARATED_STAGES = frozenset({Stage.GENERATE, Stage.REVIEW, Stage.RENDER, Stage.EXPORT})
"""No agent holds two of these (S26)."""


class Sensitivity(Enum):
    """How much harm a label's media can do in the wrong place; ordered by `rank`."""

    OPEN = "open"
    SENSITIVE = "sensitive"
    RESTRICTED = "restricted"

    @property
    def rank(self) -> int:
        return ("open", "sensitive", "restricted").index(self.value)


class Audience(StrEnum):
    """Who can see what arrives at a Destination. A vendor processes it (image API, chat model)."""

    INTERNAL = "internal"
    PARTNER = "partner"
    PUBLIC = "public"
    VENDOR = "vendor"


class Environment(StrEnum):
    DRAFT = "draft"
    PRODUCTION = "production"


class OutsideEffect(StrEnum):
    """What a tool does outside the workspace, and what can be known of it after a crash (I8)."""

    NONE = "none"
    IDEMPOTENT = "idempotent"
    PROBEABLE = "probeable"
    OPAQUE = "opaque"


class JobState(StrEnum):
    OPEN = "open"
    WAITING = "waiting"
    ENDED = "ended"


class GrantState(StrEnum):
    ISSUED = "issued"
    CLAIMED = "claimed"
    EXECUTED = "executed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    REVOKED = "revoked"
    EXPIRED = "expired"


class Provenance(StrEnum):
    VERIFIED = "verified"
    UNKNOWN = "unknown"
    BROKEN = "broken"


class Verdict(StrEnum):
    APPROVE = "approve"
    DENY = "deny"


class Effect(Enum):
    """The outcome of a Decision."""

    PERMIT = "permit"
    ASK = "ask"
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A configured human.

    Args:
        id: e-mail address or other stable name.
        groups: what the person may answer as, e.g. `legal`.
    """

    id: str
    groups: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A named workload with an owner and the stages it may take."""

    id: str
    owner: str
    stages: frozenset[Stage]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a source came with; inherited by what is made from it. None means unlimited.

    Args:
        until: no release after this time (ms).
        release_at: no release before this time (ms).
        channels: destinations it may go to, by id.
        consent: False once withdrawn.
    """

    until: int | None = None
    release_at: int | None = None
    channels: frozenset[str] | None = None
    consent: bool = True

    @classmethod
    def from_json(cls, text: str) -> Terms:
        """The Terms that a JSON column holds; see `to_json`.

        Raises:
            ValueError: it is no JSON, or holds a term of another version, which must not be lost.
        """
        stated = json.loads(text)
        unknown = sorted(stated.keys() - {"until", "release_at", "channels", "consent"})
        if unknown:
            raise ValueError(f"unknown terms: {', '.join(unknown)}")
        channels = stated.get("channels")
        return cls(
            until=stated.get("until"),
            release_at=stated.get("release_at"),
            channels=None if channels is None else frozenset(channels),
            consent=stated.get("consent", True),
        )

    def to_json(self) -> str:
        """The canonical text of a JSON column: what is limited, and nothing of what is not."""
        limits = {"until": self.until, "release_at": self.release_at, "channels": self.channels}
        stated: dict[str, Any] = {name: it for name, it in limits.items() if it is not None}
        if not self.consent:
            stated["consent"] = False
        return canonical(stated).decode("utf-8")

    def strictest(self, *others: Terms) -> Terms:
        """What may be done only where all of these allow it (S36)."""
        every = (self, *others)
        channels = [terms.channels for terms in every if terms.channels is not None]
        return Terms(
            until=min((one.until for one in every if one.until is not None), default=None),
            release_at=max(
                (one.release_at for one in every if one.release_at is not None), default=None
            ),
            channels=frozenset.intersection(*channels) if channels else None,
            consent=all(terms.consent for terms in every),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A named place bytes or text may go.

    Args:
        url: where `export_asset` sends; empty where only a developer's own tool sends there.
        ceiling: labels that may go there without a person; open labels always may.
        proven: capabilities found by probing (`hold`, `revoke`, `retain`); empty until probed.
    """

    id: str
    url: str
    audience: Audience
    environment: Environment
    ceiling: frozenset[str]
    hosts: frozenset[str] = frozenset()
    proven: frozenset[str] = frozenset()

    @property
    def digest(self) -> str:
        """Names the configuration, so that a changed destination voids what was granted for it."""
        return _digest_of_destination(self)


@lru_cache(maxsize=256)  # of frozen configuration; every decision compares it
def _digest_of_destination(place: Destination) -> str:
    return digest(
        "agentguard/destination/v1",
        {
            "id": place.id,
            "url": place.url,
            "audience": place.audience,
            "environment": place.environment,
            "ceiling": place.ceiling,
            "hosts": place.hosts,
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A short-lived right to act as this agent, in this stage, for this job."""

    id: str
    job: str
    agent: str
    stage: Stage
    epoch: int
    issued_at: int
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetUse:
    """One asset in a Request: which argument holds it, its bytes, its labels as judged."""

    argument: str
    asset: str
    sha256: str
    labels: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Request:
    """Who wants what on which Assets, to which Destination, in which Job (DESIGN section 3).

    Args:
        stage: the stage of the credential; None for tools without media or effect.
        tool: the tool's name, as the model called it.
        binding: digest of the Binding and the tool's schema.
        args: what the tool's schema makes of the model's arguments, JSON mode, unset left out.
        text_labels: labels raised by the texts, and by media revealed to the model before.
        destination: id of the Destination, None where nothing leaves the workspace.
        destination_digest: digest of the Destination's configuration, None with it.
        call_key: names one call of one message of one thread of one job.
        revision: 0; n+1 for the nth edit by a person.
    """

    workspace: str
    job: str
    agent: str
    stage: Stage | None
    tool: str
    binding: str
    args: Mapping[str, Any]
    text_labels: frozenset[str]
    assets: tuple[AssetUse, ...]
    destination: str | None
    destination_digest: str | None
    call_key: str
    revision: int

    @cached_property
    def text(self) -> str:
        """The canonical JSON of this Request: what its digest names and people are shown (I7)."""
        more = plain({"call_key": self.call_key, "revision": self.revision})
        return self._form.written(**more).decode("utf-8")

    @cached_property
    def digest(self) -> str:
        """The one name of this Request: what an Answer approves and a Grant permits (I7)."""
        return request_digest(self.text)

    @cached_property
    def content_digest(self) -> str:
        """The digest without call key and revision: equal for the same thing asked for again.

        It is the idempotency key of an export, and finds what a person already rejected.
        """
        return digest_of("agentguard/content/v1", self._form.written())

    @cached_property
    def _form(self) -> Canonical:
        return Canonical(self._body())

    def _body(self) -> dict[str, Any]:
        return {
            "workspace": self.workspace,
            "job": self.job,
            "agent": self.agent,
            "stage": self.stage,
            "tool": self.tool,
            "binding": self.binding,
            "args": self.args,
            "text_labels": self.text_labels,
            "assets": [
                {"argument": a.argument, "sha256": a.sha256, "labels": a.labels}
                for a in self.assets
            ],
            "destination": self.destination,
            "destination_digest": self.destination_digest,
        }


def request_digest(text: str) -> str:
    """The digest of a Request's canonical JSON."""
    return digest_of("agentguard/request/v1", text.encode("utf-8"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One Person's signed verdict on one Request digest.

    Args:
        group: the group the person answered as, or None; each person counts in one group.
        at: when it was signed (ms).
        key_id: which of the person's keys signed.
        signature: Ed25519 over `approvals.answer_bytes`, base64.
    """

    request: str
    person: str
    verdict: Verdict
    group: str | None
    at: int
    key_id: str
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Approvals that are still missing: how many, and groups among which they must be."""

    approvals: int
    groups: frozenset[str] = frozenset()

    def __str__(self) -> str:
        people = "1 person" if self.approvals == 1 else f"{self.approvals} people"
        return people + (f", including {' and '.join(sorted(self.groups))}" if self.groups else "")


class Reason(NamedTuple):
    """One thing that forbids a Request as long as nobody approves it: what an Approval lifts (I7).

    Attributes:
        policy: id of the policy.
        asset: id of the asset that it forbids; empty for a call without assets.
        grounds: digest of the policy as written and of what it reads of call and asset. With
            other grounds it is another reason: nobody was asked about it.
    """

    policy: str
    asset: str
    grounds: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedQuestion:
    """Why people were asked about a Request, as they were shown it (I7).

    Args:
        reasons: what their approvals lift, and nothing else.
        earlier: the reasons of the question about the same call that this one replaced; None for
            the first one.
    """

    reasons: frozenset[Reason]
    earlier: frozenset[Reason] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided. It has no truth value: compare `effect`.

    Args:
        policies: ids of the policies that decided, e.g. the forbids behind an ASK.
        reason: one sentence the agent can act on.
        needs: the smallest sufficient set of approvals still missing; only with ASK.
        reasons: everything that a person is asked to lift; only with ASK.
    """

    effect: Effect
    policies: tuple[str, ...]
    reason: str
    needs: Needs | None = None
    reasons: frozenset[Reason] = frozenset()

    def __bool__(self) -> NoReturn:
        raise TypeError("a Decision has no truth value; write `decision.effect is Effect.PERMIT`")


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetFacts:
    """What the ledger knows now of one asset of a Request.

    Args:
        sensitivity: the highest of its labels.
        version: row version; the claim refuses if it moved.
        queued: the queue stage queued it for this Request's Destination, in this job.
        reviewed: the review stage left a clean finding on these bytes, in this job, and no
            finding counts.
        contributors: people who owned agents in its lineage, imported, edited or reclassified it.
        findings: the Grants of reviews that found something wrong with these bytes, or with what
            they were made from and the same review tool did not clear since.
    """

    use: AssetUse
    sensitivity: Sensitivity
    version: int
    recalled: bool
    held: bool
    queued: bool
    reviewed: bool
    provenance: Provenance
    terms: Terms
    contributors: frozenset[str]
    findings: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is true at the moment of deciding, besides the Request itself.

    Args:
        agent: the agent as configured now; None if it was removed.
        tool_stage: the stage that the tool's Binding names.
        job_state: state of the job.
        credential_live: an unexpired, unrevoked credential exists for agent, stage and job.
        requester: who asked for the job.
        people: everybody who could answer.
        text_sensitivity: the highest of the text labels.
        chat_ceiling: labels the chat model may see, open ones included.
        reveals: the tool shows or describes its media to the model.
        rejected: a person denied these media, what they were made from, or the same words, for
            the same destination in this job.
        denials: how many questions of its job were answered with a no.
        can_ask: an interrupt can be resumed (there is a checkpointer).
        open_labels: every label of sensitivity `open`; no ceiling needs to name them.
    """

    agent: Agent | None
    tool_stage: Stage | None
    job_state: JobState
    credential_live: bool
    requester: str
    people: tuple[Person, ...]
    destination: Destination | None
    assets: tuple[AssetFacts, ...]
    text_sensitivity: Sensitivity
    chat_ceiling: frozenset[str]
    reveals: bool
    rejected: bool
    can_ask: bool
    open_labels: frozenset[str]
    text: bool = field(default=False)
    """Whether the call carries any prompt, caption or other text."""
    unguarded: bool = False
    """Whether a tool was started past the guard in this job (I5)."""
    denials: int = 0
    contributors: frozenset[str] = frozenset()
    """Who stands behind the operations that it names, besides the assets' contributors (I1)."""
