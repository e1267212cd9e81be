"""Calls as the ledger sees them: decided, claimed, finished, each with a record."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from agentguard.guard import Guard
from agentguard.jobs.job import Job
from agentguard.ledger.ledger import Ledger, Outcome
from agentguard.ledger.storage.open import Tx
from agentguard.ledger.transitions import grants, requests
from agentguard.model import (
    Assessment,
    Decision,
    Effect,
    Facts,
    GrantState,
    Holder,
    JobState,
    OutsideEffect,
    RecordedCall,
    Request,
    Sensitivity,
    Stage,
    any_tool_of,
)

RECORDS = 3
"""Records of one call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Makes permitted calls of one job and takes them through the ledger.

    Args:
        outside: the effect that the calls' tool has; one outside the machine commits durably.
    """

    ledger: Ledger
    job: Job
    credential: str
    policy_version: str
    outside: OutsideEffect = OutsideEffect.NONE

    def judged(self, name: str) -> Assessment:
        """A permitted call under a name of its own, with its digests computed."""
        key = hashlib.sha256(name.encode()).hexdigest()
        request = Request(
            workspace="bench",
            job=self.job.id,
            agent="editor",
            stage=Stage.EDIT,
            tool="crop",
            binding=key,
            args={"source": f"asset-{key[:20]}", "width": 640, "height": 480},
            text_labels=frozenset(),
            assets=(),
            destination=None,
            destination_digest=None,
            call_key=key,
            revision=0,
        )
        permitted = Decision(effect=Effect.PERMIT, policies=("workspace.make",), reason="permitted")
        facts = Facts(
            agent=None,
            action=any_tool_of(request.stage),
            job_state=JobState.OPEN,
            credential_live=True,
            requester="",
            people=(),
            destination=None,
            assets=(),
            text_sensitivity=Sensitivity.OPEN,
            chat_ceiling=frozenset(),
            reveals=False,
            rejected=False,
            can_ask=True,
            open_labels=frozenset(),
        )
        request.digest, request.content_digest  # noqa: B018  computed here, not while it is timed
        return Assessment(
            request=request,
            recorded=RecordedCall.of(request, args=request.args),
            facts=facts,
            decision=permitted,
            holder=Holder(epoch=self.job.epoch, credential=self.credential),
            thread=name,
            call_id_digest=key[:32],
            outside=self.outside,
            policy_version=self.policy_version,
            lifetime=3_600_000,
        )

    def decide(self, item: Assessment) -> None:
        self.ledger.record_decisions([item])

    def claim(self, item: Assessment) -> None:
        """Take its Grant.

        Raises:
            RuntimeError: it could not be had.
        """
        durable = self.outside is not OutsideEffect.NONE
        obstacle = self.ledger.claim(item, durable=durable)
        if obstacle is not None:
            raise RuntimeError(obstacle.sentence)

    def finish(self, item: Assessment) -> None:
        outcome = Outcome(state=GrantState.EXECUTED, text="cropped into crop.png")
        self.ledger.finish(item.request, outcome, credential=self.credential)

    def write(self, tx: Tx, item: Assessment) -> None:
        """All three transitions in one transaction: the fastest way to a long log."""
        requests.record_decisions(tx, [item])
        obstacle = grants.claim(tx, item)
        if obstacle is not None:
            raise RuntimeError(obstacle.sentence)
        outcome = Outcome(state=GrantState.EXECUTED, text="cropped into crop.png")
        grants.finish(tx, item.request, outcome, credential=self.credential)


def caller(guard: Guard, job: Job, outside: OutsideEffect = OutsideEffect.NONE) -> Caller:
    """A Caller as the workspace's editor."""
    return Caller(
        ledger=guard.ledger,
        job=job,
        credential=job.credential(guard.workspace.agents["editor"], Stage.EDIT).id,
        policy_version=guard.policy.digest,
        outside=outside,
    )
