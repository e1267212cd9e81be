"""After a crash: what became of an effect whose outcome nobody recorded (I8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from agentguard.bindings.bound import Bound
from agentguard.bindings.probe import Attempt, ask
from agentguard.errors import DestinationError, JobError
from agentguard.export.broker import EXPORT_ASSET, Broker, Receipt
from agentguard.ledger.ledger import Ledger, Outcome
from agentguard.ledger.queries.grants import same_effect, unknown_called, unknown_grants
from agentguard.ledger.rows.grants import UnknownGrant
from agentguard.model import GrantState, OutsideEffect

_RUNNING = "its job may still be sending it; reconcile again when it is over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """What was found out about a call whose effect nobody knew.

    Args:
        request: the Request's digest.
        outcome: `executed`, `failed`, or `unknown` as before; None: it was settled meanwhile.
        sentence: the same in words, and why it stays.
        needs_person: nobody but a person can find out, for all that is known here.
    """

    request: str
    outcome: GrantState | None
    sentence: str
    needs_person: bool = False


def reconcile(
    ledger: Ledger, broker: Broker, bound: Mapping[str, Bound] = MappingProxyType({})
) -> list[Reconciled]:
    """Find out about each `unknown`, and record what is found.

    The Destination is asked about what `export_asset` sent, and the probe of its Binding about what
    a developer's tool did. What is there was executed. What is not there failed, if nobody can be
    sending it any more. An opaque effect can't be found out; it stays until a person looks.

    Args:
        bound: the Bindings that this process knows, by tool name.

    Raises:
        LedgerUnavailable: the ledger can't be read or written.
    """
    ledger.sweep()  # whoever died while sending leaves an `unknown`
    grants = ledger.rows(unknown_grants(ledger.clock()))
    return [_settle(ledger, broker, bound, grant) for grant in grants]


def _settle(
    ledger: Ledger, broker: Broker, bound: Mapping[str, Bound], grant: UnknownGrant
) -> Reconciled:
    if is_opaque(grant):
        return _stays(grant, "this tool's effect can't be found out;", needs_person=True)
    body = grant.body
    then = body.destination_digest
    if then is not None and then != broker.digest(grant.destination or ""):
        # What was sent lies where the configuration of then says, and nobody may look elsewhere.
        why = f"the configuration of {grant.destination} changed since it was begun"
        return _stays(grant, f"{why}; reconcile with that of then, else", needs_person=True)
    if not is_own_export(grant):
        return _probe(ledger, bound.get(grant.tool), grant)
    wanted = sorted(body.media)
    if not wanted:
        return _stays(grant, "it sent no asset that could be looked for;", needs_person=True)
    try:
        found = [
            broker.find(
                destination=grant.destination or "", key=grant.idempotency_key, sha256=sha256
            )
            for sha256 in wanted
        ]
    except DestinationError as error:
        return _stays(grant, str(error))
    receipts = [receipt for receipt in found if receipt is not None]
    if len(receipts) == len(wanted):
        return _record(ledger, grant, GrantState.EXECUTED, "found at the destination", receipts)
    if receipts:
        arrived = f"{len(receipts)} of {len(wanted)} assets arrived;"
        return _stays(grant, arrived, needs_person=True)
    if may_be_under_way(grant):
        return _stays(grant, _RUNNING)
    text = "not at the destination: it did not happen"
    return _record(ledger, grant, GrantState.FAILED, text)


def is_opaque(grant: UnknownGrant) -> bool:
    """Whether nobody but a person can find out about an effect."""
    return grant.effect == OutsideEffect.OPAQUE


def is_own_export(grant: UnknownGrant) -> bool:
    """Whether the guard's own tool sent it, so that the Destination can be asked."""
    return grant.tool == EXPORT_ASSET


def may_be_under_way(grant: UnknownGrant) -> bool:
    """Whether the process that claimed a Grant may still cause its effect."""
    return grant.running


def _probe(ledger: Ledger, bound: Bound | None, grant: UnknownGrant) -> Reconciled:
    """Ask the developer's own probe. It runs outside of any transaction, and may take its time."""
    tool, body = grant.tool, grant.body
    if bound is None:
        return _stays(
            grant,
            f"{tool} is not bound here; `agentguard reconcile --bindings MODULE:NAME` names your"
            " list of Bindings, else",
            needs_person=True,
        )
    if bound.binding.probe is None:
        return _stays(grant, f"the declaration of {tool} has no probe;", needs_person=True)
    if body.binding != bound.digest:
        # What it did may lie elsewhere, or under another name, than this version would look.
        why = f"{tool} was begun under another version of its Binding"
        return _stays(grant, f"{why}; reconcile with the program of then, else", needs_person=True)
    attempt = Attempt(
        idempotency_key=grant.idempotency_key,
        tool=tool,
        destination=grant.destination,
        arguments=body.args,
        assets=body.media,
        claimed_at=grant.claimed_at,
    )
    answer = ask(bound.binding.probe, attempt)
    if answer.found is None:
        return _stays(grant, f"{answer.why}; reconcile again later, else", needs_person=True)
    shares_a_key = grant.effect is OutsideEffect.PROBEABLE and _is_one_of_several(ledger, grant)
    if answer.found and shares_a_key:
        why = "its probe found it, and another call of its job for the same may have put it there;"
        return _stays(grant, why, needs_person=True)
    if answer.found:
        text = f"found by the probe of {tool}; what it returned is not known"
        return _record(ledger, grant, GrantState.EXECUTED, text)
    if may_be_under_way(grant):
        return _stays(grant, _RUNNING)
    text = f"not found by the probe of {tool}: it did not happen"
    return _record(ledger, grant, GrantState.FAILED, text)


def _is_one_of_several(ledger: Ledger, grant: UnknownGrant) -> bool:
    """Whether another call may have had an effect under the same key: same content, same job.

    Where sending again under a key changes nothing (`idempotent`), what is there is what this call
    wanted, whoever sent it. Else only one of them can be the one that is found.
    """
    other = same_effect(job=grant.job, key=grant.idempotency_key, besides=grant.id)
    return ledger.first(other) is not None


def _record(
    ledger: Ledger,
    grant: UnknownGrant,
    state: GrantState,
    text: str,
    receipts: Sequence[Receipt] = (),
) -> Reconciled:
    outcome = Outcome(
        state=state,
        text=text,
        receipts=tuple((sent.destination, sent.location, sent.sha256) for sent in receipts),
    )
    if not ledger.settle(grant.id, outcome, request=grant.request, by=None):
        return Reconciled(request=grant.request, outcome=None, sentence="was settled meanwhile")
    return Reconciled(request=grant.request, outcome=state, sentence=str(state))


def _stays(grant: UnknownGrant, why: str, *, needs_person: bool = False) -> Reconciled:
    return Reconciled(
        request=grant.request,
        outcome=GrantState.UNKNOWN,
        sentence=f"stays unknown: {why}{' a person must look' if needs_person else ''}",
        needs_person=needs_person,
    )


def settle(ledger: Ledger, request: str, *, happened: bool, by: str) -> str:
    """Record what a person found out about an `unknown` that nobody else can find out.

    Args:
        request: the Request's digest, or the first 12 or more digits of it.
        happened: whether the effect is there.
        by: the configured Person who looked.

    Returns:
        The whole digest.

    Raises:
        JobError: no such request is unknown, or more than one.
    """
    if len(request) < 12:
        raise JobError(f"{request!r:.20} is too short; give 12 or more digits")
    found = ledger.rows(unknown_called(request))
    if len(found) != 1:
        raise JobError(
            f"{len(found)} calls that begin with {request:.64} have an unknown outcome; `agentguard"
            " reconcile` lists them"
        )
    state = GrantState.EXECUTED if happened else GrantState.FAILED
    text = "a person found it done" if happened else "a person found that it did not happen"
    outcome = Outcome(state=state, text=text)
    ledger.settle(found[0].id, outcome, request=found[0].request, by=by)
    return found[0].request
