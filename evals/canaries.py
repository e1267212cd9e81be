"""Canary secrets, put together at run time so that no scanner finds one in this repository."""

from __future__ import annotations

import hashlib
import re

_ALNUM = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_HEX = "0123456789abcdef"
_KINDS = {
    "aws": ("AKIA", _UPPER, 16),
    "github": ("ghp_", _ALNUM, 36),
    "openai": ("sk-proj-", _ALNUM, 48),
    "google": ("AIza", _ALNUM, 35),
    "stripe": ("sk_live_", _ALNUM, 24),
    "slack": ("xoxb-", "0123456789", 24),
    "shopify": ("shpat_", _HEX, 32),
}
_PLACE = re.compile(r"\{(secret|split):([a-z]+)\}")
_ZERO_WIDTH = "\u200b"


def secret(kind: str) -> str:
    """A key in a vendor's published format; always the same one, and nobody's."""
    prefix, letters, length = _KINDS[kind]
    seed = b"".join(hashlib.sha256(f"{kind}/{n}".encode()).digest() for n in range(4))
    return prefix + "".join(letters[byte % len(letters)] for byte in seed[:length])


def fill(text: str) -> str:
    """A text with `{secret:KIND}`, or `{split:KIND}` with invisible characters in it, filled in."""

    def put(match: re.Match[str]) -> str:
        made = secret(match[2])
        return made if match[1] == "secret" else _ZERO_WIDTH.join(made)

    return _PLACE.sub(put, text)
