"""What is decided, and what people answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, NoReturn

from agentguard.model.vocabulary import Effect, Verdict


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


def is_permitted(decision: Decision) -> bool:
    """Whether a call may be granted and claimed on a Decision."""
    return decision.effect is Effect.PERMIT


class ObstacleKind(StrEnum):
    """What can stand against a call besides a Decision; each is a built-in rule, by its id."""

    ARGUMENTS = "arguments"
    ASKS_AGAIN = "asks-again"
    CALL_CHANGED = "call-changed"
    CALL_ID = "call-id"
    DECIDED_AGAIN = "decided-again"
    DESTINATION = "destination"
    FAILED = "failed"
    INPUTS = "inputs"
    JOB = "job"
    LEDGER = "ledger"
    MOVED = "moved"
    NO_CALL_ID = "no-call-id"
    NO_JOB = "no-job"
    NOT_AN_ASSET = "not-an-asset"
    NOT_ASKED = "not-asked"
    NOT_AUTHORIZED = "not-authorized"
    NOT_BOUND = "not-bound"
    NOT_GRANTED = "not-granted"
    NOT_INNERMOST = "not-innermost"
    OUTCOME_UNKNOWN = "outcome-unknown"
    QUESTIONS = "questions"
    REPLAYED = "replayed"
    ROUTED = "routed"
    SECRET = "secret"
    STAGE = "stage"
    STARTS_OVER = "starts-over"
    TAMPER_ALARM = "tamper-alarm"
    TEXT = "text"
    UNKNOWN_AGENT = "unknown-agent"
    UNKNOWN_ASSET = "unknown-asset"
    UNKNOWN_DESTINATION = "unknown-destination"
    UNKNOWN_OPERATION = "unknown-operation"
    UNKNOWN_TOOL = "unknown-tool"


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """Why a call does not go on, before or instead of a Decision.

    Args:
        sentence: what is wrong and what to do, for the model.
    """

    kind: ObstacleKind
    sentence: str

    @property
    def policy(self) -> str:
        """The id of the built-in rule, e.g. `agentguard.unknown-asset`."""
        return f"agentguard.{self.kind}"
