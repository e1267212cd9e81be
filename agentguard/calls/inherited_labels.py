"""What a call carries besides its own arguments (I4). The labels of its outputs: `results.py`.

An operation is work that goes on at a vendor after the call that started it. Its id carries the
class, terms, contributors and assets of that call into every call that names it; so does, for a
server that remembers, everything this job sent there. Assets are carried by reference: what they
are now is what counts, so that a later rise, hold or recall reaches the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from agentguard.bindings.argument_schema import replace_at, values_at
from agentguard.bindings.bound import Bound
from agentguard.calls.refused import Refused
from agentguard.config.workspace import Workspace
from agentguard.ledger.ledger import Reads
from agentguard.ledger.queries.assets import asset_by_sha256
from agentguard.ledger.queries.operations import SentCall, operations_named, sent_calls
from agentguard.ledger.rows.assets import AssetRow
from agentguard.ledger.rows.operations import OperationRow
from agentguard.model import AssetUse, ObstacleKind, Terms

REMEMBERED = "remembered"
"""The argument name of an asset that a remembering server was sent before."""

MAX_ASSETS = 256
"""How many assets go into one call, those that it carries included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InheritedLabels:
    """What a call carries.

    Args:
        labels: of the operations' and remembered texts, inputs and tools.
        uses: the assets that went in, as they are now.
        rows: their rows by asset id.
        terms: that the operations started with.
        contributors: people who stand behind them (I1).
    """

    labels: frozenset[str] = frozenset()
    uses: tuple[AssetUse, ...] = ()
    rows: Mapping[str, AssetRow] = field(default_factory=lambda: MappingProxyType({}))
    terms: tuple[Terms, ...] = ()
    contributors: frozenset[str] = frozenset()


NOTHING = InheritedLabels()


def inherit(
    bound: Bound,
    frozen: Mapping[str, Any],
    *,
    job: str,
    call: tuple[str | None, str, str],
    destination: str | None,
    given: int,
    workspace: Workspace,
    reads: Reads,
) -> InheritedLabels:
    """What a call with these frozen arguments carries.

    Args:
        call: its call key if that is known, its thread and the name of its call id: what it sent
            itself it does not carry, so that it stays the same call when it is asked again (I8).
        destination: id of the Destination that it names.
        given: how many assets its own arguments name.

    Raises:
        Refused: this job did not obtain an id it names, or the assets of its arguments and those
            it carries are more than one call may hold. One answer for unknown and foreign ids, so
            that no job can probe another's.
    """
    if not (bound.binding.operations or bound.binding.remembers):
        return NOTHING
    labels: set[str] = set()
    terms: list[Terms] = []
    people: set[str] = set()
    named: dict[tuple[str, str], None] = {}
    for path, operation in _operations(bound, frozen, job=job, reads=reads):
        labels |= operation.labels
        terms.append(operation.terms)
        people |= operation.contributors
        named.update(dict.fromkeys((path, sha256) for sha256 in operation.assets))
    for sent in _remembered(bound, job=job, call=call, destination=destination, reads=reads):
        labels |= sent.labels
        people |= sent.contributors
        owner = workspace.agents.get(sent.agent)
        people |= {owner.owner} if owner is not None else set()
        named.update(dict.fromkeys((REMEMBERED, sha256) for sha256 in sent.assets))
    require_room(bound, given=given, carried=len(named))
    uses, rows = _assets(named, reads)
    return InheritedLabels(
        labels=frozenset(labels),
        uses=uses,
        rows=rows,
        terms=tuple(terms),
        contributors=frozenset(people),
    )


def require_room(bound: Bound, *, given: int, carried: int = 0) -> None:
    """Require that so many assets go into one call.

    Args:
        given: how many its arguments name.
        carried: how many were sent before and go along.

    Raises:
        Refused: together they are more than `MAX_ASSETS`.
    """
    if given + carried <= MAX_ASSETS:
        return
    before = f" and carries {carried} that were sent before" if carried else ""
    way_out = "; go on in a new job" if carried else ""
    raise Refused(
        f"{bound.name} got {given} assets{before}, at most {MAX_ASSETS} go into one call{way_out}",
        kind=ObstacleKind.ARGUMENTS,
    )


def concealed(bound: Bound, shown: dict[str, Any]) -> None:
    """Take operations' ids out of what the log keeps, in place: an id opens its result."""
    for path in bound.binding.operations:
        replace_at(shown, path, lambda _path, _value: "[operation]")


def _operations(
    bound: Bound, frozen: Mapping[str, Any], *, job: str, reads: Reads
) -> Iterable[tuple[str, OperationRow]]:
    for path, tools in bound.binding.operations.items():
        for value in values_at(frozen, path):
            rows = reads.rows(operations_named(job, tools, str(value)))
            if not rows:
                raise Refused(
                    f"{bound.name}.{path} is no operation that this job got from"
                    f" {' or '.join(tools)}; give an id as that tool returned it in this job",
                    kind=ObstacleKind.UNKNOWN_OPERATION,
                )
            for row in rows:  # a vendor may hand out one id twice: then it carries both
                yield path, row


def _remembered(
    bound: Bound,
    *,
    job: str,
    call: tuple[str | None, str, str],
    destination: str | None,
    reads: Reads,
) -> Iterable[SentCall]:
    if not bound.binding.remembers:
        return ()
    calls = sent_calls(reads, job, bound.binding.remembers, destination)
    key, thread, call_id = call
    if key is not None:
        return [one for one in calls if one.call_key != key]
    # Where it runs, the newest call of that name is this one: models reuse call ids.
    own = [one for one in calls if (one.thread, one.call_id) == (thread, call_id)]
    newest = max((one.ordinal for one in own), default=None)
    return [one for one in calls if one not in own or one.ordinal != newest]


def _assets(
    named: Iterable[tuple[str, str]], reads: Reads
) -> tuple[tuple[AssetUse, ...], dict[str, AssetRow]]:
    uses: list[AssetUse] = []
    rows: dict[str, AssetRow] = {}
    for path, sha256 in named:
        row = reads.first(asset_by_sha256(sha256))
        if row is None:  # rows of assets are kept; without one nothing can be judged (I11)
            raise Refused(
                "an asset that went into this work is no longer known",
                kind=ObstacleKind.UNKNOWN_OPERATION,
            )
        rows[row.id] = row
        uses.append(asset_use(path, row))
    return tuple(uses), rows


def asset_use(path: str, row: AssetRow) -> AssetUse:
    """The use of an asset in an argument, as the asset is now."""
    return AssetUse(
        argument=path,
        asset=row.id,
        sha256=row.sha256,
        labels=row.labels,
        media_type=row.media_type,
        extension=row.extension,
    )
