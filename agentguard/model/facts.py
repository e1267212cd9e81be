"""What is true at the moment of deciding, besides the Request itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentguard.model.request import AssetUse
from agentguard.model.terms import Terms
from agentguard.model.tool_action import ToolAction
from agentguard.model.vocabulary import (
    Agent,
    Destination,
    JobState,
    Person,
    Provenance,
    Sensitivity,
)


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
        action: the tool as its Binding says it is: its stage, and the types of its arguments.
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
    action: ToolAction
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
    changed_mind: bool = False
    """Whether its node did something in an earlier run that it does not do again."""
    denials: int = 0
    contributors: frozenset[str] = frozenset()
    """Who stands behind the operations that it names, besides the assets' contributors (I1)."""
    inherited_terms: tuple[Terms, ...] = ()
    """Of the operations that it names: what is made may be used as they allow, too."""
