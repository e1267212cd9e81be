"""Under which terms media may be used: one form, one codec."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from agentguard.canonical import canonical


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a source came with; inherited by what is made from it. None means unlimited.

    Args:
        until: no release after this time (ms).
        release_at: no release before this time (ms).
        channels: destinations it may go to, by id.
        consent: False once withdrawn.
    """

    until: int | None = None
    release_at: int | None = None
    channels: frozenset[str] | None = None
    consent: bool = True

    @classmethod
    def from_json(cls, text: str) -> Terms:
        """The Terms that a JSON column holds; see `to_json`.

        Raises:
            ValueError: it is no JSON of terms, or has a term of another version, which must not be
                lost.
        """
        stated = json.loads(text)
        if not isinstance(stated, dict):
            raise ValueError("terms: got no object")
        unknown = sorted(stated.keys() - {"until", "release_at", "channels", "consent"})
        if unknown:
            raise ValueError(f"unknown terms: {', '.join(unknown)}")
        until, release_at = stated.get("until"), stated.get("release_at")
        channels, consent = stated.get("channels"), stated.get("consent", True)
        listed = [] if channels is None else channels
        if not (
            all(at is None or type(at) is int for at in (until, release_at))
            and isinstance(listed, list)
            and all(isinstance(channel, str) for channel in listed)
            and isinstance(consent, bool)
        ):
            raise ValueError("a term is not of its type")
        return cls(
            until=until,
            release_at=release_at,
            channels=None if channels is None else frozenset(channels),
            consent=consent,
        )

    def to_json(self) -> str:
        """The canonical text of a JSON column: what is limited, and nothing of what is not."""
        limits = {"until": self.until, "release_at": self.release_at, "channels": self.channels}
        stated: dict[str, Any] = {name: it for name, it in limits.items() if it is not None}
        if not self.consent:
            stated["consent"] = False
        return canonical(stated).decode("utf-8")

    def strictest(self, *others: Terms) -> Terms:
        """What may be done only where all of these allow it (S36)."""
        every = (self, *others)
        channels = [terms.channels for terms in every if terms.channels is not None]
        return Terms(
            until=min((one.until for one in every if one.until is not None), default=None),
            release_at=max(
                (one.release_at for one in every if one.release_at is not None), default=None
            ),
            channels=frozenset.intersection(*channels) if channels else None,
            consent=all(terms.consent for terms in every),
        )
