"""What the ledger's queries return: one frozen class per kind of row, each column with its type.

A field is named as its column. Its type says how the column is decoded, once, as the row is read:
labels from JSON to a set, an integer to a bool, a text to a state. SQLite keeps a value of any type
in any column, so each is checked: what the ledger never writes was put there by somebody else, and
is a tamper alarm (I10).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from agentguard.errors import LedgerCorrupt
from agentguard.ledger.storage.query import Row
from agentguard.model import (
    ApprovalState,
    Effect,
    GrantState,
    JobEnd,
    JobState,
    OutsideEffect,
    Provenance,
    RecordedCall,
    Stage,
    Terms,
)

T = TypeVar("T")

_Decode = Callable[[Any], Any]


class AskedWords(NamedTuple):
    """What a question is about, by the canonical JSON of its Request.

    Args:
        args: the arguments, word for word.
        media: SHA-256 of the assets.
    """

    args: Mapping[str, Any]
    media: frozenset[str]


_EDITED = "its row was edited; run `agentguard audit verify`"


def row_as(kind: type[T]) -> Callable[[Row], T]:
    """What makes a row an object of this dataclass; it needs a column for every field.

    What it returns raises LedgerCorrupt for a row that the ledger did not write.
    """
    columns = _columns(cast("Any", kind))

    def decode(row: Row) -> T:
        return kind(**_values(kind, columns, row))

    return decode


def _values(
    kind: type[Any], columns: Sequence[_Column], row: Row, prefix: str = ""
) -> dict[str, Any]:
    """The fields of a row class, from the columns that bear their names behind a prefix."""
    values = {}
    for column in columns:
        value = row[prefix + column.name]
        if value is not None or not column.optional:
            value = _read(kind, column, value)
        values[column.name] = value
    return values


def text(row: Row) -> str:
    """The one text of a row."""
    return str(_read(str, _TEXT, row[0]))


def number(row: Row) -> int:
    """The one number of a row, such as the 1 that says that there is one."""
    try:
        return int(row[0])  # a sum may be a Decimal
    except (TypeError, ValueError) as error:
        raise LedgerCorrupt(f"got {row[0]!r}, expected a number: {_EDITED}") from error


class _Column(NamedTuple):
    """How a column is read: of which types its value may be, and what makes it a field."""

    name: str
    stored: tuple[type, ...]
    optional: bool = False
    read: _Decode | None = None


_TEXT = _Column("its text", (str,))


def _read(kind: type[Any], column: _Column, value: Any) -> Any:
    try:
        if type(value) not in column.stored:
            raise TypeError(f"it holds a {type(value).__name__}")
        return value if column.read is None else column.read(value)
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise LedgerCorrupt(f"{kind.__name__}, {column.name}: {error}: {_EDITED}") from error


def _flag(value: int) -> bool:
    if value not in (0, 1):
        raise ValueError(f"got {value}, expected 0 or 1")
    return bool(value)


def _of(kind: type, stored: str) -> Any:
    value = json.loads(stored)
    if type(value) is not kind:
        raise TypeError(f"its JSON is a {type(value).__name__}")
    return value


def _texts(stored: str) -> list[str]:
    return _require_texts(_of(list, stored))


def _require_texts(values: Any) -> list[str]:
    if type(values) is not list or not all(type(value) is str for value in values):
        raise TypeError("its JSON is no list of texts")
    return values


def asked_words(stored: str) -> AskedWords:
    """What a question is about.

    Raises:
        TypeError, ValueError, KeyError: it is no Request.
    """
    request = _of(dict, stored)
    if type(request["args"]) is not dict:
        raise TypeError("args is no object")
    media = _require_texts([asset["sha256"] for asset in request["assets"]])
    return AskedWords(request["args"], frozenset(media))


_READERS: Mapping[Any, tuple[tuple[type, ...], _Decode | None]] = {
    str: ((str,), None),
    int: ((int,), None),
    bool: ((int, bool), _flag),
    frozenset[str]: ((str,), lambda stored: frozenset(_texts(stored))),
    tuple[str, ...]: ((str,), lambda stored: tuple(_texts(stored))),
    tuple[Any, ...]: ((str,), lambda stored: tuple(_of(list, stored))),
    Mapping[str, Any]: ((str,), lambda stored: _of(dict, stored)),
    RecordedCall: ((str,), RecordedCall.from_json),
    AskedWords: ((str,), asked_words),
    Terms: ((str,), Terms.from_json),
}


@functools.cache
def _columns(kind: type[Any]) -> tuple[_Column, ...]:
    """How the columns of a row class are read."""
    return tuple(_column(name, hint) for name, hint in get_type_hints(kind).items())


def _column(name: str, hint: Any) -> _Column:
    some = [hint]
    if get_origin(hint) in (Union, UnionType):
        some = [one for one in get_args(hint) if one is not NoneType]
    known = _READERS.get(some[0])
    if known is None and isinstance(some[0], type) and issubclass(some[0], Enum):
        known = ((str,), some[0])
    if known is None or len(some) > 1:
        raise TypeError(f"no column holds a {hint}")
    return _Column(name, known[0], some != [hint], known[1])


# --- jobs and credentials ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job.

    Args:
        reason: why it ended, in words that decide nothing.
        ended_by: None while it goes on, and of jobs that ended before schema 9.
    """

    id: str
    purpose: str
    requested_by: str
    state: JobState
    epoch: int
    opened_at: int
    ended_at: int | None
    reason: str | None
    ended_by: JobEnd | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary(JobRow):
    """A job as people read it.

    Args:
        until: the end of its lease; None without one.
        asked: how many of its questions are open.
    """

    until: int | None
    asked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderRow:
    """Who may act in a job: all None where there is no such job."""

    job_state: JobState | None
    job_epoch: int | None
    leased_until: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingRow:
    """A job as a decision sees it.

    Args:
        live: the agent has a live credential for the call's stage.
        unguarded: a tool was started past the guard.
        denials: how many of its questions were answered with a no.
    """

    state: JobState
    requested_by: str
    live: bool
    unguarded: bool
    denials: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialRow:
    """A credential."""

    id: str
    job: str
    agent: str
    stage: Stage
    epoch: int
    issued_at: int
    expires_at: int
    state: str


# --- requests ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRow:
    """A recorded Request with its first Decision.

    Args:
        body: the call as it was logged, with texts redacted; where people were asked, why.
        call_id: how the ledger names the call's id.
    """

    digest: str
    content_digest: str
    call_key: str
    revision: int
    job: str
    thread: str
    call_id: str
    agent: str
    stage: Stage | None
    tool: str
    destination: str | None
    body: RecordedCall
    effect: Effect
    policies: tuple[str, ...]
    policy_version: str
    reason: str
    credential: str | None
    decided_at: int
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunRow(RequestRow):
    """A Request whose Grant was used, and what that came to."""

    came_to: GrantState


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionCheck(HolderRow):
    """What recording a Decision needs to know.

    Args:
        known: 1 if the Request is recorded.
        last: the last ordinal of its call id.
    """

    known: int | None
    last: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCallRow:
    """A call of a job, as people read it."""

    digest: str
    agent: str
    tool: str
    destination: str | None
    effect: Effect
    decided_at: int
    approval: ApprovalState | None
    grant_state: GrantState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationCall:
    """One recorded call of a conversation and what became of it.

    Args:
        call_key: names the call for good; see `agentguard.calls.call.call_key`.
        call_id: how the ledger names the call's id.
        approval_state: None if nobody was asked.
        said_no: a no to the same media closed its approval request, too.
        grant_state: None without a Grant.
        outside: the kind of effect that the Grant is for.
        text: the recorded outcome; None without one.
        updates: the state keys that the outcome writes.
        recorded: the call; only of another job's calls. Whoever names a thread and a
            call like somebody else's is not that one: only the same call is.
    """

    request: str
    job: str
    job_state: JobState
    call_key: str
    call_id: str
    revision: int
    tool: str
    effect: Effect
    reason: str
    approval_state: ApprovalState | None
    said_no: bool
    asked_until: int | None
    grant_state: GrantState | None
    outside: OutsideEffect | None
    text: str | None
    updates: Mapping[str, Any] | None
    recorded: RecordedCall | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredCall:
    """A call that was carried out, and what its model was told."""

    call_id: str
    text: str


# --- approvals --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRow:
    """An approval request.

    Args:
        count, groups: how many approvals were asked for, and of which groups.
        question: the canonical JSON of the Request, which its digest names (I7).
    """

    request: str
    job: str
    count: int
    groups: frozenset[str]
    asked_at: int
    expires_at: int
    state: ApprovalState
    ended_at: int | None
    question: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedRow(ApprovalRow):
    """An approval request, and the call as it was logged, with the reasons why it is asked."""

    body: RecordedCall


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionRow(AskedRow):
    """An approval request as people read it.

    Args:
        said_no: the no of a person to the same media closed it.
        replaced_by: digest of the newest question about the same call, if it was asked anew.
    """

    reason: str
    policies: tuple[str, ...]
    purpose: str
    requested_by: str
    job_state: JobState
    said_no: bool
    replaced_by: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedCallRow:
    """A call that people were asked about, and how it stands.

    Args:
        call_key: names the call for good; see `agentguard.calls.call.call_key`.
        call_id: how the ledger names the call's id.
        count, groups, state, expires_at, question: see `ApprovalRow`.
        reason, policies: of its first Decision.
        grant_state: None while no claim wrote its Grant.
    """

    request: str
    job: str
    call_key: str
    call_id: str
    agent: str
    tool: str
    body: RecordedCall
    reason: str
    policies: tuple[str, ...]
    count: int
    groups: frozenset[str]
    state: ApprovalState
    expires_at: int
    question: str
    grant_state: GrantState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedRow:
    """What says why an approval request takes no answer any more."""

    state: ApprovalState
    job_state: JobState
    replaced: bool
    said_no: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceableRow:
    """A question that may be asked anew.

    Args:
        granted: there is a Grant.
    """

    state: ApprovalState
    expires_at: int
    body: RecordedCall
    granted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeniedCall:
    """A call that a person said no to.

    Args:
        question: the denied Request as people were asked it.
    """

    tool: str
    content_digest: str
    question: AskedWords


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenQuestion:
    """A question, and where its call goes."""

    request: str
    job: str
    destination: str | None
    question: AskedWords


# --- grants -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantRow:
    """A Grant."""

    id: str
    request: str
    job: str
    credential: str | None
    policy_version: str
    effect: OutsideEffect
    idempotency_key: str
    state: GrantState
    issued_at: int
    expires_at: int
    claims: int
    claimed_at: int | None
    epoch: int | None
    ended_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRow:
    """What a Grant came to.

    Args:
        state: the declared state keys that its tool wrote.
        assets: ids of what it made.
    """

    grant_id: str
    status: GrantState
    text: str
    assets: tuple[str, ...]
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimCheck(HolderRow):
    """What a claim judges.

    Args:
        credential_state, lives_until: of the credential that the call is claimed with.
        approval_state, approved_until: None where nobody was asked.
        answers: how many people answered, whatever they said.
        denied: how many questions of the job were answered with a no.
        id, state, claims, effect, expires_at: of the Grant; None without one.
    """

    credential_state: str | None
    lives_until: int | None
    approval_state: ApprovalState | None
    approved_until: int | None
    answers: int
    denied: int
    id: str | None
    state: GrantState | None
    claims: int | None
    effect: OutsideEffect | None
    expires_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishCheck:
    """What an outcome judges.

    Args:
        ours: the claim is still of the holder whose credential finishes it; None: unknown.
    """

    id: str
    state: GrantState
    ours: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownGrant:
    """A Grant whose effect nobody knows (I8).

    Args:
        body: the call as it was logged.
        running: its job may still be at it.
    """

    id: str
    job: str
    request: str
    effect: OutsideEffect
    idempotency_key: str
    claimed_at: int
    body: RecordedCall
    tool: str
    destination: str | None
    running: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedRow:
    """A claimed Grant of an open job; `until`: the end of the job's lease."""

    request: str
    job: str
    until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptRow:
    """What was sent where."""

    grant_id: str
    sha256: str
    destination: str
    location: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRow(RequestRow):
    """A recorded Request, and what came of it so far.

    Args:
        approval: its approval request; None where nobody was asked.
        grant: its Grant; None where none was written.
    """

    approval: AskedRow | None
    grant: GrantRow | None


def call_row(row: Row) -> CallRow:
    """A row of a Request, with its approval request and its Grant behind `a_` and `g_`."""
    values = _values(RequestRow, _columns(RequestRow), row)
    approval, grant = None, None
    if row["a_request"] is not None:
        asked = _values(ApprovalRow, _columns(ApprovalRow), row, "a_")
        approval = AskedRow(**asked, body=values["body"])
    if row["g_request"] is not None:
        grant = GrantRow(**_values(GrantRow, _columns(GrantRow), row, "g_"))
    return CallRow(**values, approval=approval, grant=grant)


# --- assets -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetRow:
    """An asset.

    Args:
        version: rises with every change, which voids what relied on the row.
    """

    sha256: str
    id: str
    media_type: str
    extension: str
    size: int
    width: int | None
    height: int | None
    labels: frozenset[str]
    terms: Terms
    recalled: bool
    held: bool
    provenance: Provenance
    version: int
    created_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedAsset(AssetRow):
    """An asset and what its first source, or a job, called it."""

    called: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobAsset(NamedAsset):
    """An asset that a job may see; `how`: `imported`, `given` or `made`."""

    called: str
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RelatedAsset(AssetRow):
    """An asset next to another one in the lineage, and its first source, if that is known."""

    tool: str | None
    agent: str | None
    person: str | None
    name: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """What an asset's class and terms are."""

    labels: frozenset[str]
    terms: Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRow:
    """An asset's row version."""

    sha256: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MarksRow:
    """What holds of an asset by itself and by what it was made from.

    Args:
        recalled, held: it, or what it was made from; None: nothing is known of it.
        queued: for the destination, in the job.
        clean: reviewed without a finding, in the job.
    """

    recalled: bool | None
    held: bool | None
    queued: bool
    clean: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginRow:
    """Where an asset came from: a person's import, or an agent's call of a tool."""

    source: str
    tool: str | None
    agent: str | None
    person: str | None
    name: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRow:
    """A job that may see an asset."""

    job: str
    how: str
    name: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewRow:
    """A review of an asset."""

    job: str
    sha256: str
    grant_id: str
    findings: tuple[Any, ...]
    clean: bool
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedRow:
    """An asset in line for a destination."""

    job: str
    destination: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContributorRow:
    """A person who stands behind an asset (I1)."""

    sha256: str
    person: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageRow:
    """What was made from what, by SHA-256."""

    child: str
    parent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolReview:
    """A review by a tool."""

    sha256: str
    grant_id: str
    tool: str


# --- operations -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRow:
    """Work that goes on at a vendor.

    Args:
        assets: SHA-256 of each asset that went in.
    """

    job: str
    name: str
    grant_id: str
    tool: str
    destination: str | None
    labels: frozenset[str]
    terms: Terms
    contributors: frozenset[str]
    assets: tuple[str, ...]
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SentRow:
    """A claimed call that sent something to a server which remembers; `id`: of its Grant."""

    call_key: str
    thread: str
    call_id: str
    ordinal: int
    agent: str
    body: RecordedCall
    id: str
