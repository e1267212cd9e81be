"""Where a workspace's ledger lies, and how it is opened: compared with its checkpoints first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agentguard.config.ledger_url import SQLITE
from agentguard.config.workspace import Workspace
from agentguard.durable_files import make_folders
from agentguard.errors import LedgerUnavailable
from agentguard.ledger.alarms import AlarmFile
from agentguard.ledger.ledger import Ledger
from agentguard.ledger.storage.open import open_storage, wall_clock
from agentguard.ledger.verify import Checkpoints, verify_tail
from agentguard.transparency.log_key import load_log_key

__all__ = ["alarms_of", "checkpoints_of", "open_ledger", "wall_clock"]


def checkpoints_of(workspace: Workspace) -> Checkpoints:
    """The file of signed checkpoints that this machine keeps of a workspace's ledger.

    Beside a SQLite file; for a ledger elsewhere, beside the log key.

    Raises:
        ConfigError: the log key is missing or readable by others.
    """
    path = workspace.log_key.with_name("ledger")
    if workspace.ledger.startswith(SQLITE):
        path = Path(workspace.ledger.removeprefix(SQLITE))
    return Checkpoints(
        path=path.with_name(path.name + ".checkpoints"),
        origin=f"agentguard/{workspace.id}",
        key=load_log_key(workspace.log_key),
    )


def open_ledger(workspace: Workspace, *, clock: Callable[[], int] | None = None) -> Ledger:
    """Open a workspace's ledger and compare its log with the checkpoints kept outside it.

    Args:
        clock: the ledger's time in ms. None: of this machine for SQLite, of the server for
            PostgreSQL, whose workers are on many machines.

    Raises:
        ConfigError: see `open_storage` and `checkpoints_of`.
        LedgerUnavailable, LedgerCorrupt: see `open_storage`.
    """
    checkpoints = checkpoints_of(workspace)
    try:
        make_folders(checkpoints.path.parent)
    except OSError as error:
        raise LedgerUnavailable(f"{checkpoints.path.parent}: {error.strerror}") from error
    storage = open_storage(workspace.ledger, clock=clock, checkpoints=checkpoints)
    try:
        verify_tail(storage, checkpoints)
    except BaseException:
        storage.close()
        raise
    return Ledger(storage, clock=storage.clock, alarm_file=alarms_of(checkpoints))


def alarms_of(checkpoints: Checkpoints) -> AlarmFile:
    """The file of tamper alarms of the ledger whose checkpoints these are."""
    return AlarmFile(checkpoints.path.with_suffix(".alarms"))
