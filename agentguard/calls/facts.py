"""What is true of a Request when it is decided on: the Facts that policies read."""

from __future__ import annotations

from agentguard.bindings.argument_schema import has_value
from agentguard.calls.call import Call
from agentguard.calls.denials import is_denied
from agentguard.calls.request import BuiltRequest
from agentguard.config.workspace import Workspace
from agentguard.ledger.ledger import Reads
from agentguard.ledger.queries.assets import (
    contributors_of,
    marks_of,
)
from agentguard.ledger.queries.jobs import job_for_decision
from agentguard.model import (
    AssetFacts,
    AssetUse,
    Facts,
    JobState,
)


def gather_facts(
    call: Call, built: BuiltRequest, workspace: Workspace, reads: Reads, *, now: int
) -> Facts:
    """What is true of a Request, from the ledger and the configuration.

    Args:
        reads: the ledger's rows of now.
        now: the ledger's time (ms).
    """
    request = built.request
    job = reads.first(
        job_for_decision(
            request.job,
            agent=request.agent,
            stage=request.stage,
            epoch=call.job.epoch,
            now=now,
        )
    )
    agent = workspace.agents.get(request.agent)
    binding = call.bound.binding
    denials = job.denials if job is not None else 0
    return Facts(
        agent=agent,
        action=call.bound.action,
        job_state=job.state if job is not None else JobState.ENDED,
        credential_live=job is not None and job.live,
        requester=job.requested_by if job is not None else "",
        people=tuple(workspace.people.values()),
        destination=workspace.destinations.get(request.destination or ""),
        assets=tuple(_asset_facts(use, built, workspace, reads) for use in request.assets),
        text_sensitivity=workspace.sensitivity(request.text_labels),
        chat_ceiling=workspace.chat_ceiling,
        reveals=binding.reveals,
        rejected=denials > 0 and is_denied(request, binding, reads),
        denials=denials,
        unguarded=job is None or job.unguarded,
        changed_mind=built.recorded.changed_mind,
        can_ask=call.can_ask,
        open_labels=workspace.open_labels,
        text=has_value(request.args, binding.texts),
        contributors=built.inherited.contributors,
        inherited_terms=built.inherited.terms,
    )


def _asset_facts(
    use: AssetUse, built: BuiltRequest, workspace: Workspace, reads: Reads
) -> AssetFacts:
    row, request = built.rows[use.asset], built.request
    found = frozenset(one.grant for one in built.findings.get(use.sha256, ()))
    marks = reads.first(marks_of(use.sha256, job=request.job, destination=request.destination))
    return AssetFacts(
        use=use,
        sensitivity=workspace.sensitivity(use.labels),
        version=row.version,
        recalled=marks is None or bool(marks.recalled),
        held=marks is None or bool(marks.held),
        queued=marks is not None and marks.queued,
        reviewed=marks is not None and marks.clean and not found,
        provenance=row.provenance,
        terms=row.terms,
        contributors=frozenset(reads.rows(contributors_of(use.sha256))),
        findings=found,
    )
