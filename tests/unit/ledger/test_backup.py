"""docs/how-to/backup.md: the order in which a ledger is copied, and what a restore says."""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from agentguard import Guard
from agentguard.config.ledger_url import LedgerUrl
from agentguard.config.workspace import load
from agentguard.content.store import Store
from agentguard.errors import LedgerCorrupt
from agentguard.ledger.open import accept_unverified, checkpoints_of, open_ledger
from agentguard.ledger.verify import verify
from tests.support import CONFIG, write_workspace
from tests.support.ledgers import Bench, Place, made
from tests.support.media_files import png

ROOT = Path(__file__).parents[3]


@contextmanager
def busy(guard: Guard) -> Iterator[None]:
    """Somebody imports and calls all the time."""
    stop = threading.Event()
    began = threading.Event()

    def work() -> None:
        bench = Bench(guard.ledger)
        number = 0
        while not stop.is_set():
            number += 1
            asked = bench.permit()
            guard.ledger.claim(bench.judged(asked), durable=True)
            bench.finish(asked)
            data = png(size=4) + f"{number}".encode()
            sha256, _ = guard.store.add(io.BytesIO(data))
            guard.ledger.register(made(sha256), job=bench.job, by="kim", how="imported")
            began.set()

    worker = threading.Thread(target=work)
    worker.start()
    assert began.wait(30)
    try:
        yield
    finally:
        stop.set()
        worker.join(30)


def copy_file(home: Path, to: Path) -> None:
    shutil.copy(home / "ledger.db.checkpoints", to)


def copy_database(home: Path, to: Path) -> None:
    with closing(sqlite3.connect(home / "ledger.db")) as connection:
        connection.execute(f"VACUUM INTO '{to / 'ledger.db'}'")


def copy_store(home: Path, to: Path) -> None:
    incoming = shutil.ignore_patterns("incoming")  # not stored yet, and may vanish
    shutil.copytree(home / "assets", to / "assets", ignore=incoming)


def require_whole(folder: Path) -> None:
    """The ledger opens and verifies, and the store has what it names."""
    workspace = load(folder / "agentguard.toml")
    ledger = open_ledger(workspace)
    try:
        verify(ledger.storage, checkpoints_of(workspace))
        assets = [row["sha256"] for row in ledger.all("SELECT sha256 FROM assets")]
        assert assets
        for sha256 in assets:
            with open(os.devnull, "wb") as nowhere:
                Store(str(workspace.store)).fetch(sha256, nowhere)
    finally:
        ledger.storage.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    write_workspace(folder, CONFIG)
    return folder


def new_machine(home: Path, tmp_path: Path, number: int = 0) -> Path:
    """The configuration and keys of a workspace, somewhere else."""
    folder = tmp_path / f"machine-{number}"
    (folder / ".agentguard").mkdir(parents=True)
    for name in ("agentguard.toml", "agentguard.signers", ".agentguard/log.key"):
        shutil.copy(home / name, folder / name)
    return folder


def test_order_of_the_page_restores_a_ledger_in_use(home: Path, tmp_path: Path) -> None:
    with Guard.from_config(home / "agentguard.toml", tools=[]) as guard, busy(guard):
        restored = [new_machine(home, tmp_path, number) for number in range(9)]
        for folder in restored:
            for copy in (copy_file, copy_database, copy_store):
                copy(home / ".agentguard", folder / ".agentguard")
    for folder in restored:
        require_whole(folder)


def test_S35_database_copied_before_its_checkpoints_is_refused_and_told_of_the_page(
    home: Path, tmp_path: Path
) -> None:
    folder = new_machine(home, tmp_path)
    with Guard.from_config(home / "agentguard.toml", tools=[]) as guard:
        Bench(guard.ledger)
        copy_database(home / ".agentguard", folder / ".agentguard")
        Bench(guard.ledger)
        copy_file(home / ".agentguard", folder / ".agentguard")
    workspace = load(folder / "agentguard.toml")
    with pytest.raises(LedgerCorrupt, match=r"old copy was restored.*docs/how-to/backup\.md"):
        open_ledger(workspace)
    accept_unverified(workspace, by="kim@acme.example", reason="there is no other")
    ledger = open_ledger(workspace)
    try:
        assert len(verify(ledger.storage, checkpoints_of(workspace)).accepted) == 1
    finally:
        ledger.storage.close()


def test_postgres_dump_after_the_checkpoints_restores(
    postgres: Any,
    postgres_place: Place,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    programs = Path(postgres.bin_path)
    place = LedgerUrl.parse(postgres_place.url)
    monkeypatch.setenv("AGENTGUARD_LEDGER", postgres_place.url)
    folder = new_machine(home, tmp_path)
    with Guard.from_config(home / "agentguard.toml", tools=[]) as guard:
        bench = Bench(guard.ledger)
        guard.ledger.storage.sign()
        shutil.copy(home / ".agentguard" / "ledger.checkpoints", folder / ".agentguard")
        bench.permit()
        dumped = tmp_path / "ledger.sql"
        subprocess.run(
            [programs / "pg_dump", f"--schema={place.schema}", f"--file={dumped}", place.conninfo],
            check=True, capture_output=True,
        )  # fmt: skip
        bench.permit()
        guard.ledger.storage.sign()
    name = f"restored_{place.schema}"
    with psycopg.connect(postgres.get_uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        uri = postgres.get_uri(database=name)
        subprocess.run(
            [programs / "psql", "-q", "-v", "ON_ERROR_STOP=1", "-f", dumped, uri],
            check=True, capture_output=True,
        )  # fmt: skip
        url = f"{uri}{'&' if '?' in uri else '?'}schema={place.schema}"
        monkeypatch.setenv("AGENTGUARD_LEDGER", url)
        workspace = load(folder / "agentguard.toml")
        ledger = open_ledger(workspace)
        try:
            verify(ledger.storage, checkpoints_of(workspace))
        finally:
            ledger.storage.close()
        # The machine that saw more refuses the copy, until a person says so.
        shutil.copy(home / ".agentguard" / "ledger.checkpoints", folder / ".agentguard")
        with pytest.raises(LedgerCorrupt, match=r"old copy was restored.*docs/how-to/backup\.md"):
            open_ledger(workspace)
        done = accept_unverified(workspace, by="kim@acme.example", reason="failover")
        assert done.jobs == 1
        assert done.set_aside is not None
        ledger = open_ledger(workspace)
        try:
            (told,) = verify(ledger.storage, checkpoints_of(workspace)).accepted
            assert "old copy" in told.because
        finally:
            ledger.storage.close()
    finally:
        with psycopg.connect(postgres.get_uri(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_page_says_what_the_refusals_point_to() -> None:
    page = (ROOT / "docs" / "how-to" / "backup.md").read_text("utf-8")
    for word in ("VACUUM INTO", "pg_dump", "accept-unverified", "holds no checkpoint"):
        assert word in page
