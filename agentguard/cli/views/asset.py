"""An asset as people and JSON see it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agentguard.cli.output import (
    Say,
    visible,
    when,
)

if TYPE_CHECKING:
    from agentguard.ledger.rows import AssetRow, OriginRow, RelatedAsset
    from agentguard.model import Terms


def finding_text(finding: Any) -> str:
    """One finding of a review, in one line."""
    if not isinstance(finding, dict):
        return visible(finding)
    return visible(f"{finding.get('severity', '?')}: {finding.get('message', finding)}")


def _as_data(asset: AssetRow) -> dict[str, Any]:
    return {
        "id": asset.id,
        "sha256": asset.sha256,
        "media_type": asset.media_type,
        "size": asset.size,
        "width": asset.width,
        "height": asset.height,
        "class": sorted(asset.labels),
        "terms": json.loads(asset.terms.to_json()),
        "provenance": asset.provenance,
        "held": asset.held,
        "recalled": asset.recalled,
        "created_at": asset.created_at,
    }


def kind_of(asset: AssetRow) -> str:
    """What an asset is, and its size in pixels."""
    size = f" {asset.width}x{asset.height}" if asset.width else ""
    return visible(asset.media_type) + size


def _class(asset: AssetRow) -> str:
    return visible(" + ".join(sorted(asset.labels)))


def _marked(asset: AssetRow) -> Say:
    marks = ", HELD" * asset.held + ", RECALLED" * asset.recalled
    return _class(asset) + marks, "red" if marks else ""


def _terms(terms: Terms) -> str:
    limits = {"release_at": terms.release_at, "until": terms.until}
    said = [f"{name} {when(limit)}" for name, limit in limits.items() if limit]
    if terms.channels is not None:
        said.append(f"only to {visible(', '.join(sorted(terms.channels)))}")
    if not terms.consent:
        said.append("consent withdrawn")
    return "; ".join(said) or "none"


def origin_text(origin: OriginRow | RelatedAsset) -> str:
    """Where an asset came from, in one line."""
    if origin.tool:
        return visible(f"{origin.tool}, called by {origin.agent}")
    return visible(f"{origin.name}, imported by {origin.person or 'nobody known'}")
