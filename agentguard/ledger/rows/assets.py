"""Rows about assets: their classes, marks, origins and reviews."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agentguard.model import Provenance, Terms


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
