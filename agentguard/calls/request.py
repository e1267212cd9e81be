"""From a model's tool call to a frozen Request, and to the Facts it is judged by.

Whatever the model said is looked up by id or refused (I3); nothing is opened here.
"""

from __future__ import annotations

import copy
import functools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agentguard.bindings.bound import Arg, Bound, replace_at, values_at
from agentguard.bindings.free_choice import MOST_BITS_A_CALL, MOST_BITS_A_CONVERSATION
from agentguard.calls.call import Call, Refused, call_key, call_name, content_source
from agentguard.calls.inherited_labels import (
    NOTHING,
    Carried,
    TooMuch,
    UnknownOperation,
    carry,
    concealed,
)
from agentguard.config.workspace import Workspace
from agentguard.content.text.scan import MAX_ACROSS, scan, secrets_across, texts_in_numbers
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
from agentguard.ledger.rows import AssetRow, RequestRow
from agentguard.model import (
    AssetUse,
    Destination,
    Request,
    Stage,
    asset_id,
)

_ASSET_ID = re.compile(r"asset-[0-9a-f]{20}")
_TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MAX_ASSETS = 256
_SHORTEST_SECRET = 12
_SHORTEST_TEXT = 6

# Each text is read at the gate and in the tool.
_scan = functools.lru_cache(maxsize=512)(scan)
_secrets_across = functools.lru_cache(maxsize=512)(secrets_across)


def key_by_content(call: Call) -> str:
    """The name of a call that no message holds; whoever acts, so that one call has one agent.

    Raises:
        Refused: its arguments can't be read.
    """
    source = content_source(call.bound.name, freeze(call.bound, call.arguments))
    return call_key(job=call.job.id, thread=call.thread, source=source, call_id=call.call_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A Request and what was looked up for it.

    Args:
        shown: what people and the log see: arguments with texts redacted.
        rows: the asset rows by asset id.
        carried: what it carries of operations and remembering servers, which is also in the
            Request.
        findings: what reviews found wrong with its assets or their sources, by SHA-256.
        reviews: how many reviews found something wrong with any of these.
        bits: what it says in numbers after something was revealed, if it does not carry that.
    """

    request: Request
    shown: Mapping[str, Any]
    rows: Mapping[str, AssetRow]
    carried: Carried = NOTHING
    findings: Mapping[str, frozenset[Finding]] = field(default_factory=dict)
    reviews: int = 0
    bits: int = 0


def prepare(
    call: Call,
    workspace: Workspace,
    reads: Reads,
    *,
    decided: RequestRow | None = None,
    bits_before: int = 0,
) -> Prepared:
    """Build the Request of a call.

    Args:
        reads: the ledger's rows of now.
        decided: the recorded Request of this call: whether its numbers carried what was revealed
            was decided with it, and is not decided again when others said more since (I8).
        bits_before: what calls of the same message say in numbers and no row holds yet.

    Raises:
        Refused: arguments off the schema, an unknown asset or destination, a secret in a text.
    """
    binding = call.bound.binding
    frozen = freeze(call.bound, call.arguments)
    rows, uses = _assets(call, frozen, reads)
    labels, redacted = redacted_texts(call.bound, frozen)
    destination = _destination(call, frozen, workspace)
    carried = _carried(call, frozen, destination, workspace, reads)
    rows, uses, labels = {**rows, **carried.rows}, uses + carried.uses, labels | carried.labels
    numbers = None
    if call.bound.carries_text:
        labels.update(reads.rows(revealed_labels(call.job.id, call.thread)))
    else:
        bits = call.bound.bits(frozen)
        numbers = _numbers(call, bits, reads, decided=decided, before=bits_before)
        labels |= numbers.labels
    if binding.reveals:  # what the tool adds by itself is shown to the chat model, too (I4)
        labels |= binding.labels - workspace.open_labels
    try:
        known = _request(
            json.dumps(frozen),
            workspace=workspace.id,
            job=call.job.id,
            agent=call.agent or "",
            stage=binding.stage,
            tool=call.bound.name,
            binding=call.bound.digest,
            text_labels=frozenset(labels),
            assets=uses,
            destination=destination.id if destination else None,
            destination_digest=destination.digest if destination else None,
            call_key=call.key or "",
        )
    except CanonicalError as error:
        raise Refused(f"{call.bound.name}: {error}", policy="arguments") from None
    request = copy.copy(known)
    object.__setattr__(request, "args", frozen)  # a writer into these must not reach the next call
    shown: dict[str, Any] = {
        "tool": request.tool,
        "binding": request.binding,
        "stage": request.stage,
        "agent": request.agent,
        "args": redacted,
        "assets": [
            {"argument": use.argument, "asset": use.asset, "sha256": use.sha256,
             "labels": use.labels} for use in uses
        ],
        "text_labels": request.text_labels,
        "destination": request.destination,
        "destination_digest": request.destination_digest,
    }  # fmt: skip
    if binding.labels:
        shown["tool_labels"] = binding.labels  # a server that remembers keeps their class (I4)
    if carried.contributors:
        shown["contributors"] = carried.contributors  # who can't answer, besides the assets' (I1)
    made_when_run = call.bound.made_when_run(frozen)
    if made_when_run:
        shown["made_when_run"] = made_when_run
    if numbers is not None and numbers.told:
        shown["numbers"] = {"bits": numbers.bits, "carry": numbers.carry}
    media = {use.sha256 for use in uses}
    findings, reviews = findings_of(reads, media, job=call.job.id)
    if any(findings.values()):
        shown["findings"] = _findings_shown(uses, findings)
    return Prepared(
        request=request,
        shown=shown,
        rows=rows,
        carried=carried,
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


def _numbers(
    call: Call, bits: int, reads: Reads, *, decided: RequestRow | None, before: int
) -> _Numbers:
    place = (call.job.id, call.thread)
    if decided is not None:
        known = decided.body.get("numbers")
        carry = known is not None and bool(known["carry"])
        labels = reads.rows(revealed_labels(*place)) if carry else ()
        return _Numbers(bits, known is not None, carry, frozenset(labels))
    labels = reads.rows(revealed_labels(*place)) if bits else ()
    if not labels:
        return _Numbers(bits, False, False, frozenset())
    carry = bits > MOST_BITS_A_CALL or (
        (reads.first(bits_said(*place)) or 0) + before + bits > MOST_BITS_A_CONVERSATION
    )
    return _Numbers(bits, True, carry, frozenset(labels if carry else ()))


def _findings_shown(
    uses: Iterable[AssetUse], findings: Mapping[str, frozenset[Finding]]
) -> list[dict[str, str]]:
    """Which reviews found something, as people and the log see it; the words are the reviews'."""
    return [
        {"asset": use.asset, "reviewed": asset_id(one.reviewed), "tool": one.tool}
        for use in uses
        for one in sorted(findings[use.sha256], key=lambda one: (one.tool, one.grant))
    ]


@functools.lru_cache(maxsize=128)  # the gate and the tool make the same one, digests and all
def _request(args: str, **fields: Any) -> Request:
    """A Request with its digest.

    Args:
        args: its arguments, as JSON.

    Raises:
        CanonicalError: it has no digest.
    """
    request = Request(args=json.loads(args), revision=0, **fields)
    request.digest  # noqa: B018  computed here, so that what has none is refused here
    return request


def _carried(
    call: Call,
    frozen: Mapping[str, Any],
    destination: Destination | None,
    workspace: Workspace,
    reads: Reads,
) -> Carried:
    name = (call.key, call.thread, call_name(call.call_id))
    try:
        return carry(
            call.bound,
            frozen,
            job=call.job.id,
            call=name,
            destination=destination.id if destination else None,
            workspace=workspace,
            reads=reads,
        )
    except UnknownOperation as error:
        raise Refused(str(error), policy="unknown-operation") from None
    except TooMuch as error:
        raise Refused(str(error), policy="arguments") from None


def freeze(bound: Bound, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments as its Request holds them.

    Raises:
        Refused: one holds a secret, is off the schema, or was never declared.
    """
    _require_no_secret(bound.name, arguments)
    try:
        frozen = bound.freeze(arguments)
    except ValueError as error:
        raise Refused(str(error), policy="arguments") from None
    if frozen != arguments:  # its schema put defaults there
        _require_no_secret(bound.name, frozen)
    _require_no_secret_across(bound.name, arguments, frozen)
    return frozen


def _assets(
    call: Call, frozen: Mapping[str, Any], reads: Reads
) -> tuple[dict[str, AssetRow], tuple[AssetUse, ...]]:
    named = [
        (path, value) for path in call.bound.binding.assets for value in values_at(frozen, path)
    ]
    if len(named) > _MAX_ASSETS:
        raise Refused(
            f"{call.bound.name} got {len(named)} assets, at most {_MAX_ASSETS} go into one call",
            policy="arguments",
        )
    rows: dict[str, AssetRow] = {}
    uses = []
    for path, value in named:
        if not isinstance(value, str) or _ASSET_ID.fullmatch(value) is None:
            raise Refused(
                f"{call.bound.name}.{path} takes an asset id such as asset-0123456789abcdef0123,"
                " never a path, URL or data; list_assets shows the ids of this job",
                policy="not-an-asset",
            )
        if value not in rows:
            row = reads.first(asset_of_job(value, call.job.id))
            if row is None:  # one answer for unknown and foreign ids: no way to probe other jobs
                raise Refused(
                    f"{value} is no asset of this job; list_assets shows its ids",
                    policy="unknown-asset",
                )
            rows[value] = row
        row = rows[value]
        uses.append(AssetUse(argument=path, asset=value, sha256=row.sha256, labels=row.labels))
    return rows, tuple(uses)


def redacted_texts(bound: Bound, frozen: Mapping[str, Any]) -> tuple[set[str], dict[str, Any]]:
    """The labels of a call's texts, and its arguments as they are logged.

    Args:
        frozen: its arguments, see `freeze`.
    """
    labels: set[str] = set()
    redacted: dict[str, Any] = json.loads(json.dumps(frozen))  # a copy of plain JSON

    def replace(path: str, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        scanned = _scan(value)  # it is not too long, and holds no secret: see above
        labels.update(scanned.labels)
        return scanned.redacted

    for path in (*bound.binding.texts, *bound.binding.plain):
        replace_at(redacted, path, replace)
    for text in _spelled(frozen):
        labels |= _scan(text).labels
    concealed(bound, redacted)
    return labels, redacted


def sayable(name: object) -> str:
    """A tool name that a model wrote, as it may be recorded: never a secret or a novel."""
    if isinstance(name, str) and _TOOL_NAME.fullmatch(name) and not _scan(name).secrets:
        return name
    return "[unreadable name]"


def _require_no_secret(tool: str, arguments: Mapping[str, Any]) -> None:
    """S7: looked for before anything is repeated, so that no message or record can hold one."""
    total = 0
    for text in (*_strings(arguments), *_spelled(arguments)):
        total += len(text) + 1
        if total > MAX_ACROSS:
            raise Refused(f"{tool}: its arguments are longer than {MAX_ACROSS} characters; shorten"
                          " them", policy="arguments")  # fmt: skip
        if len(text) < _SHORTEST_SECRET or _ASSET_ID.fullmatch(text):
            continue
        try:
            secrets = _scan(text).secrets
        except ValueError as error:
            raise Refused(f"{tool}: {error}", policy="text") from None
        if secrets:
            raise Refused(
                f"{tool}: an argument holds a secret ({secrets[0]}); take it out and ask again",
                policy="secret",
            )


def _spelled(arguments: Any) -> Iterator[str]:
    """What the numbers of a call spell, read as characters and as bytes."""
    numbers = list(_numbers_in(arguments))
    if len(numbers) < 2:
        return
    for text in texts_in_numbers(numbers):
        if len(text) >= _SHORTEST_TEXT:
            yield text


def _numbers_in(value: Any) -> Iterator[int | float]:
    """The numbers of JSON data in the order in which they stand."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, (int, float)) and not isinstance(item, bool):
            if isinstance(item, int) or math.isfinite(item):
                yield item
        elif isinstance(item, Mapping):
            pending.extend(reversed([*item.values()]))
        elif isinstance(item, (list, tuple)):
            pending.extend(reversed(item))


def _require_no_secret_across(tool: str, *forms: Mapping[str, Any]) -> None:
    """No secret in pieces, one behind the other.

    Args:
        forms: the arguments in the model's order and in the schema's.
    """
    for form in forms:
        texts = tuple(_strings(form, keys=False))
        texts = tuple(text for text in texts if not _ASSET_ID.fullmatch(text))
        if len(texts) > 1 and (secrets := _secrets_across(texts)):
            raise Refused(
                f"{tool}: its arguments hold a secret in pieces ({secrets[0]}); take it out and"
                " ask again",
                policy="secret",
            )


def _strings(value: Any, *, keys: bool = True) -> Iterator[str]:
    """The texts in a value, in their order, with the keys of mappings or without."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            pending.extend((*reversed([*item.values()]), *(reversed([*item]) if keys else ())))
        elif isinstance(item, (list, tuple, set, frozenset)):
            pending.extend(reversed([*item]))


def _destination(call: Call, frozen: Mapping[str, Any], workspace: Workspace) -> Destination | None:
    named = call.bound.binding.destination
    if named is None:
        return None
    if isinstance(named, Arg):
        values = list(values_at(frozen, named.path))
        if len(values) != 1 or not isinstance(values[0], str):
            raise Refused(
                f"{call.bound.name}.{named.path} must name one destination;"
                f" configured are {', '.join(sorted(workspace.destinations))}",
                policy="unknown-destination",
            )
        named = values[0]
    destination = workspace.destinations.get(named)  # exact: no prefix, no case folding
    if destination is None:
        raise Refused(
            f"no destination {named!r:.60} is configured; there are"
            f" {', '.join(sorted(workspace.destinations))}",
            policy="unknown-destination",
        )
    if call.bound.name == EXPORT_ASSET and not destination.url:  # before a person is asked
        raise Refused(no_url(destination), policy="destination")
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
            policy="unknown-agent",
        )
    if agent is None:
        raise Refused(f"no agent {call.agent} is configured", policy="unknown-agent")
    if stage is None:
        return min(agent.stages)
    if stage not in agent.stages:
        raise Refused(
            f"{call.bound.name} belongs to the {stage} stage and {call.agent} takes"
            f" {', '.join(sorted(agent.stages))}; ask the agent of that stage",
            policy="stage",
        )
    return stage
