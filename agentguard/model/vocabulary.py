"""The vocabulary: frozen values without I/O.

Times are integers: milliseconds since the Unix epoch, read from the ledger's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import lru_cache

from agentguard.canonical import digest

GENERATED = "generated"
"""The label of what a guarded generator made out of nothing labelled."""
UNCLASSIFIED = "unclassified"
"""The label of media of unknown origin: the highest sensitivity (S33)."""


def asset_id(sha256: str) -> str:
    """The id people and models use for an asset: `asset-` and the first 20 hex digits."""
    return f"asset-{sha256[:20]}"


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


class JobEnd(StrEnum):
    """What ended a job; why, in words, is its reason."""

    LEFT = "left"
    """Its holder left it, or ended it."""
    LAPSED = "lapsed"
    """Its process died: nobody renewed the lease."""
    IDLE = "idle"
    """It was left, and nothing in it waits for an answer any more."""
    STOPPED = "stopped"
    """A person ended it, whoever held it."""


class RevokedBy(StrEnum):
    """What revoked an approval request."""

    JOB = "job"
    """Its job ended."""
    WITHDRAWAL = "withdrawal"
    """The conversation went on without its call."""
    NEW_QUESTION = "new-question"
    """Its call was asked about anew."""
    DENIAL = "denial"
    """A person said no to the same media for its destination."""


class ApprovalState(StrEnum):
    """How an approval request stands. All but the first two are final."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    REVOKED = "revoked"
    """It was approved, and closed before its approvals were used."""
    SUPERSEDED = "superseded"
    """It was pending, and closed: its conversation went on, or it was asked anew."""

    @property
    def is_open(self) -> bool:
        """Whether its call may still be carried out, as far as people are asked."""
        return self in (ApprovalState.PENDING, ApprovalState.APPROVED)


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


class Effect(StrEnum):
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

    @property
    def combined(self) -> tuple[Stage, ...]:
        """The separated stages that it holds together, in their order; empty if it does not.

        S26: its configuration says `unsafe_combined_stages`, for whoever hijacks its model has all.
        """
        held = tuple(stage for stage in Stage if stage in self.stages & SEPARATED_STAGES)
        return held if len(held) > 1 else ()


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
