"""Where a workspace's ledger lies, and how it is opened: compared with its checkpoints first."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agentguard.config.ledger_url import SQLITE
from agentguard.config.workspace import Workspace
from agentguard.durable_files import flush_folder, make_folders
from agentguard.errors import LedgerCorrupt, LedgerError, LedgerUnavailable, VerificationFailed
from agentguard.ledger.alarms import AlarmFile
from agentguard.ledger.ledger import Ledger
from agentguard.ledger.storage.base import tree_size
from agentguard.ledger.storage.open import open_storage, wall_clock
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
    """Go on with a ledger that its checkpoints don't prove: they are lost, or it is an old copy.

    Nobody can tell what is missing. So the log says for good who went on, why, and what the old
    checkpoints proved (`verify` repeats it), and every job ends with all that lives in it: an
    approval that was used after the copy was made is not used again. What was reclassified, held
    or recalled since then is lost, and must be done again.

    Args:
        by: the person who answers for it.
        reason: in that person's words.

    Raises:
        LedgerError: the ledger opens without this, can't be read or written, or does not agree
            with itself.
    """
    because, proved = _refusal(workspace, clock)
    known = checkpoints_of(workspace)
    fresh = Checkpoints(
        path=known.path.with_name(known.path.name + ".new"),
        origin=known.origin,
        key=load_log_key(workspace.log_key),
    )
    fresh.path.unlink(missing_ok=True)  # of an attempt that did not come to its end
    storage = open_storage(workspace.ledger, clock=clock, checkpoints=fresh)
    try:
        if fresh.newest() is None:
            keep(fresh, 0, merkle.EMPTY_ROOT)
        try:
            verify(storage, fresh)
        except VerificationFailed as error:
            raise LedgerCorrupt(f"the ledger does not agree with itself: {error}") from error
        with storage.read() as reader:
            size = tree_size(reader)
        body = {"person": by, "reason": reason, "because": because, "proved": proved, "size": size}
        storage.submit(lambda tx: tx.record(ACCEPTED, body), durable=True).result()
        ledger = Ledger(storage, clock=storage.clock)
        jobs = [str(row["id"]) for row in ledger.all("SELECT id FROM jobs WHERE state <> 'ended'")]
        for job in jobs:
            ledger.end_job(job, reason="the ledger was accepted without proof")
        storage.sign()
    finally:
        storage.close()
    return AcceptedLedger(records=size, jobs=len(jobs), set_aside=_put_in_place(fresh.path, known))


def _refusal(workspace: Workspace, clock: Callable[[], int] | None) -> tuple[str, int | None]:
    """Why a ledger does not open, and how many records its checkpoints prove, if they say it."""
    try:
        open_ledger(workspace, clock=clock).storage.close()
    except LedgerCorrupt as error:
        proved = None
        with contextlib.suppress(VerificationFailed):
            newest = checkpoints_of(workspace).newest()
            proved = None if newest is None else newest[0].size
        return str(error), proved
    raise LedgerError("the ledger opens, and its checkpoints prove it: there is nothing to accept")


def _put_in_place(fresh: Path, known: Checkpoints) -> Path | None:
    """The new file in place of the known one, which stays beside it under another name."""
    aside = None
    try:
        if known.path.exists():
            number = 1
            while (aside := known.path.with_name(f"{known.path.name}.{number}")).exists():
                number += 1
            os.link(known.path, aside)
        os.replace(fresh, known.path)
        flush_folder(known.path.parent)
    except OSError as error:
        raise LedgerUnavailable(f"{known.path.name}: {error.strerror}") from error
    return aside
