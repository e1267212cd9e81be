"""How the ledger is kept, in SQLite or PostgreSQL: the door to what both share.

A transition is a function of a `Tx`, written once for both. `base.py` says what a Storage is;
`sqlite/` and `postgres/` keep one each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agentguard.config.ledger_url import SQLITE, LedgerUrl
from agentguard.errors import ConfigError, LedgerCorrupt, LedgerError
from agentguard.ledger.storage.base import Plan, Reader, Storage, Transition, tree_size, wall_clock
from agentguard.ledger.storage.query import Row
from agentguard.ledger.storage.sqlite.connections import locate
from agentguard.ledger.storage.sqlite.storage import SqliteStorage
from agentguard.ledger.storage.transaction import (
    KEYS,
    Tx,
    digests_of,
    new_id,
    row_digest,
    to_json,
)
from agentguard.ledger.storage.tree_nodes import at_once, stretch
from agentguard.transparency.checkpoints import Checkpoints

__all__ = [
    "KEYS", "Plan", "Reader", "Row", "SqliteStorage", "Storage", "Transition", "Tx",
    "at_once", "digests_of", "locate_damage", "new_id", "open_storage", "row_digest", "stretch",
    "to_json", "tree_size", "wall_clock",
]  # fmt: skip


def locate_damage(url: str, error: LedgerCorrupt) -> LedgerError:
    """An error of opening; of a damaged SQLite file it says where. That reads all of the file."""
    return locate(Path(url.removeprefix(SQLITE)), error) if url.startswith(SQLITE) else error


def open_storage(url: str, *, clock: Callable[[], int] | None, checkpoints: Checkpoints) -> Storage:
    """Open, migrate and verify the ledger at a URL.

    Args:
        url: `sqlite:PATH` or `postgresql://...` (docs/reference/configuration.md).
        clock: the ledger's time in ms; None: the database's own.
        checkpoints: where signed ones are kept outside the database.

    Raises:
        ConfigError: the URL can't be used, or the driver is not installed.
        LedgerUnavailable: it can't be opened or written.
        LedgerCorrupt: it is not what this version creates, or an old copy.
    """
    if url.startswith(SQLITE):
        path = Path(url.removeprefix(SQLITE))
        return SqliteStorage(path, clock=clock or wall_clock, checkpoints=checkpoints)
    try:
        place = LedgerUrl.parse(url)
    except ValueError as error:
        raise ConfigError(f"ledger: {error}") from None
    try:
        from agentguard.ledger.storage.postgres.storage import PostgresStorage
    except ImportError as error:
        raise ConfigError(
            f"a postgresql:// ledger needs psycopg ({error}); install it:"
            ' pip install "agentguard[postgres]"'
        ) from error
    return PostgresStorage(place, clock=clock, checkpoints=checkpoints)
