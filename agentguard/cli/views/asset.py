"""An asset as people and JSON see it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agentguard.cli.output import Say, picked, visible, when

if TYPE_CHECKING:
    from agentguard.ledger.rows.assets import AssetRow, OriginRow, RelatedAsset
    from agentguard.model import Terms


def finding_text(finding: Any) -> str:
    """One finding of a review, in one line."""
    if not isinstance(finding, dict):
        return visible(finding)
    return visible(f"{finding.get('severity', '?')}: {finding.get('message', finding)}")


def asset_data(asset: AssetRow) -> dict[str, Any]:
    """An asset as JSON data."""
    kept = ("id", "sha256", "media_type", "size", "width", "height", "provenance", "held",
            "recalled", "created_at")  # fmt: skip
    terms = json.loads(asset.terms.to_json())
    return {**picked(asset, *kept, **{"class": "labels"}), "terms": terms}


def kind_of(asset: AssetRow) -> str:
    """What an asset is, and its size in pixels."""
    size = f" {asset.width}x{asset.height}" if asset.width else ""
    return visible(asset.media_type) + size


def class_text(asset: AssetRow) -> str:
    """Its labels."""
    return visible(" + ".join(sorted(asset.labels)))


def marked(asset: AssetRow) -> Say:
    """Its labels, and what holds it back."""
    marks = ", HELD" * asset.held + ", RECALLED" * asset.recalled
    return class_text(asset) + marks, "red" if marks else ""


def terms_text(terms: Terms) -> str:
    """Terms in one line."""
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
