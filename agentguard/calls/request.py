"""From a model's tool call to a frozen Request. The Facts it is judged by are in `facts.py`.

Whatever the model said is looked up by id or refused (I3); nothing is opened here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from agentguard.bindings.argument_schema import values_at
from agentguard.bindings.bound import Bound
from agentguard.bindings.compiled_binding import Arg
from agentguard.bindings.free_choice import MOST_BITS_A_CALL, MOST_BITS_A_CONVERSATION
from agentguard.calls.arguments import ASSET_ID
from agentguard.calls.call import Call
from agentguard.calls.inherited_labels import InheritedLabels, asset_use, inherit, require_room
from agentguard.calls.refused import Refused
from agentguard.config.workspace import Workspace
from agentguard.errors import CanonicalError
from agentguard.export.broker import EXPORT_ASSET
from agentguard.export.folder import no_url
from agentguard.ledger.ledger import Reads
from agentguard.ledger.queries.assets import (
    Finding,
    asset_of_job,
    findings_of,
)
from agentguard.ledger.queries.jobs import revealed_labels
from agentguard.ledger.queries.requests import bits_said
from agentguard.ledger.rows.assets import AssetRow
from agentguard.ledger.rows.requests import RequestRow
from agentguard.model import (
    Agent,
    AssetUse,
    Destination,
    ObstacleKind,
    RecordedCall,
    RecordedFinding,
    Request,
    SaidNumbers,
    Stage,
    asset_id,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltRequest:
    """A Request, and what was looked up to build it; it stays in this room.

    Args:
        recorded: the call as the ledger keeps it.
        rows: the asset rows by asset id.
        inherited: what it carries of operations and remembering servers, also in the Request.
        findings: what reviews found wrong with its assets or their sources, by SHA-256.
        reviews: how many reviews found something wrong with any of these.
        bits: what it says in numbers after something was revealed, if it does not carry that.
    """

    request: Request
    recorded: RecordedCall
    rows: Mapping[str, AssetRow]
    inherited: InheritedLabels
    findings: Mapping[str, frozenset[Finding]]
    reviews: int
    bits: int


def build_request(
    call: Call,
    workspace: Workspace,
    reads: Reads,
    *,
    decided: RequestRow | None = None,
    bits_before: int = 0,
) -> BuiltRequest:
    """Build the Request of a call.

    Args:
        reads: the ledger's rows of now.
        decided: the recorded Request of this call: whether its numbers carried what was revealed,
            and whether its node had changed its mind, was decided with it, and is not decided again
            when others said more since (I8).
        bits_before: what calls of the same message say in numbers and no row holds yet.

    Raises:
        Refused: arguments off the schema, an unknown asset or destination, a secret in a text.
    """
    binding = call.bound.binding
    frozen = call.arguments.frozen
    rows, uses = _assets(call, frozen, reads)
    labels = call.arguments.labels
    destination = destination_of(call.bound, frozen, workspace)
    inherited = inherit(
        call.bound,
        frozen,
        job=call.job.id,
        call=(call.key, call.thread, call.id_digest),
        destination=destination.id if destination else None,
        given=len(uses),
        workspace=workspace,
        reads=reads,
    )
    rows, uses = {**rows, **inherited.rows}, uses + inherited.uses
    labels |= inherited.labels
    numbers = None
    if call.bound.carries_text:
        labels |= _revealed(call, reads)
    else:
        bits = call.bound.bits(frozen)
        numbers = _numbers(call, bits, reads, decided=decided, before=bits_before)
        labels |= numbers.labels
    if binding.reveals:  # what the tool adds by itself is shown to the chat model, too (I4)
        labels |= binding.labels - workspace.open_labels
    request = Request(
        workspace=workspace.id,
        job=call.job.id,
        agent=call.agent or "",
        stage=binding.stage,
        tool=call.bound.name,
        binding=call.bound.digest,
        args=frozen,
        text_labels=labels,
        assets=uses,
        destination=destination.id if destination else None,
        destination_digest=destination.digest if destination else None,
        call_key=call.key or "",
        revision=0,
    )
    try:
        request.digest  # noqa: B018  computed here, so that what has none is refused here
    except CanonicalError as error:
        raise Refused(f"{call.bound.name}: {error}", kind=ObstacleKind.ARGUMENTS) from None
    media = {use.sha256 for use in uses}
    findings, reviews = findings_of(reads, media, job=call.job.id)
    recorded = RecordedCall.of(
        request,
        args=call.arguments.redacted,
        tool_labels=binding.labels,
        contributors=inherited.contributors,
        made_when_run=tuple(call.bound.made_when_run(frozen)),
        numbers=numbers.recorded if numbers is not None else None,
        findings=_recorded_findings(uses, findings),
        changed_mind=call.changed_mind if decided is None else decided.body.changed_mind,
    )
    return BuiltRequest(
        request=request,
        recorded=recorded,
        rows=rows,
        inherited=inherited,
        findings=findings,
        reviews=reviews,
        bits=numbers.bits if numbers is not None and numbers.told and not numbers.carry else 0,
    )


class _Numbers(NamedTuple):
    """What a call without words says in its numbers and choices (I4).

    Args:
        told: something was revealed to its conversation before.
        carry: they are more than a few bits, so that the call carries the labels of it.
    """

    bits: int
    told: bool
    carry: bool
    labels: frozenset[str]

    @property
    def recorded(self) -> SaidNumbers | None:
        """What the ledger keeps of it."""
        return SaidNumbers(bits=self.bits, carry=self.carry) if self.told else None


def _numbers(
    call: Call, bits: int, reads: Reads, *, decided: RequestRow | None, before: int
) -> _Numbers:
    if decided is not None:
        known = decided.body.numbers
        carry = known is not None and known.carry
        return _Numbers(bits, known is not None, carry, _revealed(call, reads) if carry else _NONE)
    labels = _revealed(call, reads) if bits else _NONE
    if not labels:
        return _Numbers(bits, False, False, _NONE)
    carry = bits > MOST_BITS_A_CALL or (
        (reads.first(bits_said(call.job.id, call.thread)) or 0) + before + bits
        > MOST_BITS_A_CONVERSATION
    )
    return _Numbers(bits, True, carry, labels if carry else _NONE)


_NONE: frozenset[str] = frozenset()


def _revealed(call: Call, reads: Reads) -> frozenset[str]:
    """Labels of what the chat model was shown in the call's conversation (I4)."""
    return frozenset(reads.rows(revealed_labels(call.job.id, call.thread)))


def _recorded_findings(
    uses: Iterable[AssetUse], findings: Mapping[str, frozenset[Finding]]
) -> tuple[RecordedFinding, ...]:
    """Which reviews found something, as people and the log see it; the words are the reviews'."""
    if not any(findings.values()):
        return ()
    return tuple(
        RecordedFinding(asset=use.asset, reviewed=asset_id(one.reviewed), tool=one.tool)
        for use in uses
        for one in sorted(findings[use.sha256], key=lambda one: (one.tool, one.grant))
    )


def _assets(
    call: Call, frozen: Mapping[str, Any], reads: Reads
) -> tuple[dict[str, AssetRow], tuple[AssetUse, ...]]:
    named = [
        (path, value) for path in call.bound.binding.assets for value in values_at(frozen, path)
    ]
    require_room(call.bound, given=len(named))  # before any is looked up
    rows: dict[str, AssetRow] = {}
    uses = []
    for path, value in named:
        if not isinstance(value, str) or ASSET_ID.fullmatch(value) is None:
            raise Refused(
                f"{call.bound.name}.{path} takes an asset id such as asset-0123456789abcdef0123,"
                " never a path, URL or data; take one that a tool or a person named (list_assets"
                " shows them, where you have it)",
                kind=ObstacleKind.NOT_AN_ASSET,
            )
        if value not in rows:
            row = reads.first(asset_of_job(value, call.job.id))
            if row is None:  # one answer for unknown and foreign ids: no way to probe other jobs
                raise Refused(
                    f"{value} is no asset of this job; take one that a tool or a person named"
                    " (list_assets shows them, where you have it)",
                    kind=ObstacleKind.UNKNOWN_ASSET,
                )
            rows[value] = row
        uses.append(asset_use(path, rows[value]))
    return rows, tuple(uses)


def destination_of(
    bound: Bound, frozen: Mapping[str, Any], workspace: Workspace
) -> Destination | None:
    """Where a call sends its media and texts; None: nowhere.

    Args:
        frozen: its arguments, as its Request holds them.

    Raises:
        Refused: it names no destination, several, or one that nothing can be sent to.
    """
    named = bound.binding.destination
    if named is None:
        return None
    if isinstance(named, Arg):
        values = list(values_at(frozen, named.path))
        if len(values) != 1 or not isinstance(values[0], str):
            raise Refused(
                f"{bound.name}.{named.path} must name one destination;"
                f" configured are {', '.join(sorted(workspace.destinations))}",
                kind=ObstacleKind.UNKNOWN_DESTINATION,
            )
        named = values[0]
    destination = workspace.destinations.get(named)  # exact: no prefix, no case folding
    if destination is None:
        raise Refused(
            f"no destination {named!r:.60} is configured; there are"
            f" {', '.join(sorted(workspace.destinations))}",
            kind=ObstacleKind.UNKNOWN_DESTINATION,
        )
    if bound.name == EXPORT_ASSET and not destination.url:  # before a person is asked
        raise Refused(no_url(destination), kind=ObstacleKind.DESTINATION)
    return destination


def stage_of(call: Call, workspace: Workspace) -> Stage:
    """The stage a credential is needed for.

    Raises:
        Refused: the agent is not configured, or does not take this stage (S2, S17).
    """
    agent = workspace.agents.get(call.agent or "")
    stage = call.bound.binding.stage
    if not call.agent:
        raise Refused(
            f"{call.bound.name} belongs to the {stage or 'use'} stage, for which no agent is named"
            " where it is called; name one that takes it",
            kind=ObstacleKind.UNKNOWN_AGENT,
        )
    if agent is None:
        raise Refused(f"no agent {call.agent} is configured", kind=ObstacleKind.UNKNOWN_AGENT)
    if stage is None:
        return min(agent.stages)
    if not takes_stage(agent, stage):
        raise Refused(
            f"{call.bound.name} belongs to the {stage} stage and {call.agent} takes"
            f" {', '.join(sorted(agent.stages))}; ask the agent of that stage",
            kind=ObstacleKind.STAGE,
        )
    return stage


def takes_stage(agent: Agent, stage: Stage) -> bool:
    """Whether an agent is configured to do calls of a stage (I2, S2)."""
    return stage in agent.stages
