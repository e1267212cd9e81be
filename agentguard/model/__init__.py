"""The vocabulary: frozen values and their codecs, without I/O.

Times are integers: milliseconds since the Unix epoch, read from the ledger's clock.
"""

from agentguard.model.decision import Answer, AskedQuestion, Decision, Needs, Reason
from agentguard.model.facts import AssetFacts, Facts
from agentguard.model.request import AssetUse, Request, request_digest
from agentguard.model.terms import Terms
from agentguard.model.vocabulary import (
    GENERATED,
    SEPARATED_STAGES,
    UNCLASSIFIED,
    Agent,
    Audience,
    Credential,
    Destination,
    Effect,
    Environment,
    GrantState,
    JobState,
    OutsideEffect,
    Person,
    Provenance,
    Sensitivity,
    Stage,
    Verdict,
    asset_id,
)

__all__ = [
    "GENERATED",
    "SEPARATED_STAGES",
    "UNCLASSIFIED",
    "Agent",
    "Answer",
    "AskedQuestion",
    "AssetFacts",
    "AssetUse",
    "Audience",
    "Credential",
    "Decision",
    "Destination",
    "Effect",
    "Environment",
    "Facts",
    "GrantState",
    "JobState",
    "Needs",
    "OutsideEffect",
    "Person",
    "Provenance",
    "Reason",
    "Request",
    "Sensitivity",
    "Stage",
    "Terms",
    "Verdict",
    "asset_id",
    "request_digest",
]
