"""The numbered migrations, and what a database holds compared with what they create."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from agentguard.errors import LedgerCorrupt
from agentguard.ledger.storage.base import Reader


def migrations_of(database: str) -> list[tuple[int, str]]:
    """The numbered migration scripts of `sqlite` or `postgres`, in order."""
    folder = resources.files("agentguard.ledger.storage.sql") / database
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return [(int(file.name.split("_")[0]), file.read_text("utf-8")) for file in files]


def schema_number(reader: Reader, newest: int) -> int:
    """The number of the schema that a ledger has, from its table `meta`.

    Args:
        newest: the one that this version makes.

    Raises:
        LedgerCorrupt: a newer version wrote it, or it is no number.
    """
    row = reader.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    got: Any = None if row is None else row[0]
    try:
        version = int(got)
    except (TypeError, ValueError):
        raise LedgerCorrupt(
            f"the ledger's schema version: got {got!r:.40}, expected a number; restore a copy"
        ) from None
    if version > newest:
        raise LedgerCorrupt(
            f"the ledger has schema {version}, this agentguard knows {newest}; upgrade agentguard"
        )
    return version


def grouped(objects: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Objects by name; what several objects of one name are, as one text."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, text in objects:
        found[name].append(text)
    return {name: "\n".join(sorted(texts)) for name, texts in found.items()}


def require_same(expected: Mapping[str, str], actual: Mapping[str, str]) -> None:
    """Compare what the migrations create with what is there, object by object.

    Raises:
        LedgerCorrupt: naming the first object that is missing, added or different.
    """
    for name in sorted(expected.keys() | actual.keys()):
        if expected.get(name) == actual.get(name):
            continue
        if name not in actual:
            state = "is missing"
        elif name not in expected:
            state = "is none of ours"
        else:
            state = "is different from what it should be"
        raise LedgerCorrupt(f"ledger {name} {state}; do not use it, restore a copy")
