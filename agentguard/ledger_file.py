"""Where a workspace's ledger lies, and how it is opened: compared with its checkpoints first."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from agentguard.audit import Checkpoints, verify_tail
from agentguard.config import Workspace
from agentguard.errors import ConfigError, LedgerUnavailable
from agentguard.identity import load_log_key
from agentguard.ledger import Ledger
from agentguard.storage import Storage


def wall_clock() -> int:
    """Milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


def ledger_path(workspace: Workspace) -> Path:
    """The SQLite file of a workspace.

    Raises:
        ConfigError: the ledger's URL is of a kind this version does not have.
    """
    if not workspace.ledger.startswith("sqlite:"):
        raise ConfigError(
            f"ledger {workspace.ledger.split(':', 1)[0]}: is not built yet; use sqlite:PATH"
        )
    return Path(workspace.ledger.removeprefix("sqlite:"))


def checkpoints_of(workspace: Workspace) -> Checkpoints:
    """The file of signed checkpoints beside a workspace's ledger.

    Raises:
        ConfigError: the log key is missing or readable by others.
    """
    path = ledger_path(workspace)
    return Checkpoints(
        path=path.with_name(path.name + ".checkpoints"),
        origin=f"agentguard/{workspace.id}",
        key=load_log_key(workspace.log_key),
    )


def open_ledger(workspace: Workspace, *, clock: Callable[[], int] = wall_clock) -> Ledger:
    """Open a workspace's ledger and compare its log with the checkpoints kept beside it.

    Args:
        clock: the ledger's time in ms.

    Raises:
        ConfigError: see `ledger_path` and `checkpoints_of`.
        LedgerUnavailable, LedgerCorrupt: see `Storage`.
    """
    path = ledger_path(workspace)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerUnavailable(f"{path.parent}: {error.strerror}") from error
    checkpoints = checkpoints_of(workspace)
    storage = Storage(path, clock=clock, committed=checkpoints.committed)
    try:
        verify_tail(storage, checkpoints)
    except BaseException:
        storage.close()
        raise
    return Ledger(storage, clock=clock)
