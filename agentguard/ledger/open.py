"""Where a workspace's ledger lies, and how it is opened: compared with its checkpoints first."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agentguard.config.ledger_url import SQLITE
from agentguard.config.workspace import Workspace
from agentguard.durable_files import flush_folder, make_folders
from agentguard.errors import LedgerCorrupt, LedgerUnavailable, VerificationFailed
from agentguard.ledger.alarms import AlarmFile
from agentguard.ledger.ledger import Ledger
from agentguard.ledger.storage.open import locate_damage, open_storage, wall_clock
from agentguard.ledger.storage.rollback_detection import keep
from agentguard.ledger.verify import ACCEPTED, Checkpoints, verify, verify_tail
from agentguard.transparency import merkle
from agentguard.transparency.log_key import load_log_key

__all__ = [
    "AcceptedLedger",
    "accept_unverified",
    "alarms_of",
    "checkpoints_of",
    "open_ledger",
    "wall_clock",
]


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
    try:
        storage = open_storage(workspace.ledger, clock=clock, checkpoints=checkpoints)
        try:
            verify_tail(storage, checkpoints)
        except BaseException:
            storage.close()
            raise
    except LedgerCorrupt as error:
        raise locate_damage(workspace.ledger, error) from error
    return Ledger(storage, clock=storage.clock, alarm_file=alarms_of(checkpoints))


def alarms_of(checkpoints: Checkpoints) -> AlarmFile:
    """The file of tamper alarms of the ledger whose checkpoints these are."""
    return AlarmFile(checkpoints.path.with_suffix(".alarms"))


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedLedger:
    """What `accept_unverified` did.

    Args:
        records: how many the ledger held.
        jobs: how many were ended.
        set_aside: the old file of checkpoints; None: there was none.
    """

    records: int
    jobs: int
    set_aside: Path | None


def accept_unverified(
    workspace: Workspace, *, by: str, reason: str, clock: Callable[[], int] | None = None
) -> AcceptedLedger:
    """Go on with a ledger that may lack its end: a restored copy, or one without its checkpoints.

    Nobody can tell what is missing. So the log says for good who went on, why, and what the old
    checkpoints proved (`verify` repeats it), and every job ends with all that lives in it: an
    approval that was used after the copy was made is not used again. What was reclassified, held
    or recalled since then is lost, and must be done again. Checkpoints that prove something else
    are set aside.

    Args:
        by: the person who answers for it.
        reason: in that person's words.

    Raises:
        LedgerCorrupt: the ledger does not agree with itself.
        LedgerUnavailable: it can't be read or written.
        ConfigError: there is no log key.
    """
    known = checkpoints_of(workspace)
    refused = _refusal(workspace, clock)
    checkpoints = known
    if refused is not None:
        checkpoints = Checkpoints(
            path=known.path.with_name(known.path.name + ".new"),
            origin=known.origin,
            key=load_log_key(workspace.log_key),
        )
        checkpoints.path.unlink(missing_ok=True)  # of an attempt that did not come to its end
    storage = open_storage(workspace.ledger, clock=clock, checkpoints=checkpoints)
    try:
        if checkpoints.newest() is None:
            keep(checkpoints, 0, merkle.EMPTY_ROOT)
        try:
            verify(storage, checkpoints)
        except VerificationFailed as error:
            raise LedgerCorrupt(f"the ledger does not agree with itself: {error}") from error
        size = storage.tree_size()
        body = {
            "person": by,
            "reason": reason,
            "because": refused or "it was not refused",
            "proved": _proved(known),
            "size": size,
        }
        storage.submit(lambda tx: tx.record(ACCEPTED, body), durable=True).result()
        ledger = Ledger(storage, clock=storage.clock)
        jobs = [str(row["id"]) for row in ledger.all("SELECT id FROM jobs WHERE state <> 'ended'")]
        for job in jobs:
            ledger.end_job(job, reason="the ledger was accepted without proof")
        storage.sign()
    finally:
        storage.close()
    aside = None if refused is None else _put_in_place(checkpoints.path, known)
    return AcceptedLedger(records=size, jobs=len(jobs), set_aside=aside)


def _refusal(workspace: Workspace, clock: Callable[[], int] | None) -> str | None:
    """Why a ledger does not open; None: it does."""
    try:
        open_ledger(workspace, clock=clock).storage.close()
    except LedgerCorrupt as error:
        return str(error)
    return None


def _proved(checkpoints: Checkpoints) -> int | None:
    """How many records a file of checkpoints proves; None: it says nothing that can be read."""
    try:
        newest = checkpoints.newest()
    except VerificationFailed:
        return None
    return None if newest is None else newest[0].size


def _put_in_place(fresh: Path, known: Checkpoints) -> Path | None:
    """The new file in place of the known one, which stays beside it under another name."""
    try:
        aside = _link_aside(known.path) if known.path.exists() else None
        Path(fresh).replace(known.path)
        flush_folder(known.path.parent)
    except OSError as error:
        raise LedgerUnavailable(f"{known.path.name}: {error.strerror}") from error
    return aside


def _link_aside(path: Path) -> Path:
    for number in itertools.count(1):
        aside = path.with_name(f"{path.name}.{number}")
        with contextlib.suppress(FileExistsError):
            os.link(path, aside)
            return aside
    raise AssertionError("numbers do not end")
