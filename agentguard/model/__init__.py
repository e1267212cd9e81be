"""The vocabulary: frozen values and their codecs, without I/O.

Times are integers: milliseconds since the Unix epoch, read from the ledger's clock.
"""

from agentguard.model.assessment import Assessment, Holder
from agentguard.model.decision import (
    Answer,
    AskedQuestion,
    Decision,
    Needs,
    Obstacle,
    ObstacleKind,
    Reason,
    is_permitted,
)
from agentguard.model.facts import AssetFacts, Facts
from agentguard.model.recorded_call import (
    RecordedAsset,
    RecordedCall,
    RecordedFinding,
    SaidNumbers,
)
from agentguard.model.request import AssetUse, Request, request_digest
from agentguard.model.terms import Terms
from agentguard.model.tool_action import (
    GROUPS,
    ArgumentKind,
    ArgumentType,
    ToolAction,
    any_tool_of,
    group_of,
)
from agentguard.model.vocabulary import (
    GENERATED,
    SEPARATED_STAGES,
    UNCLASSIFIED,
    Agent,
    ApprovalState,
    Audience,
    Credential,
    Destination,
    Effect,
    Environment,
    GrantState,
    JobEnd,
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
    "GROUPS",
    "SEPARATED_STAGES",
    "UNCLASSIFIED",
    "Agent",
    "Answer",
    "ApprovalState",
    "ArgumentKind",
    "ArgumentType",
    "AskedQuestion",
    "Assessment",
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
    "Holder",
    "JobEnd",
    "JobState",
    "Needs",
    "Obstacle",
    "ObstacleKind",
    "OutsideEffect",
    "Person",
    "Provenance",
    "Reason",
    "RecordedAsset",
    "RecordedCall",
    "RecordedFinding",
    "Request",
    "SaidNumbers",
    "Sensitivity",
    "Stage",
    "Terms",
    "ToolAction",
    "Verdict",
    "any_tool_of",
    "asset_id",
    "group_of",
    "is_permitted",
    "request_digest",
]
