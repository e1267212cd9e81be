"""Whether a log is the one that its checkpoints were signed for: finds a restored old copy."""

from __future__ import annotations

from agentguard.errors import LedgerCorrupt, LedgerUnavailable, VerificationFailed
from agentguard.ledger.storage.base import Reader, tree_size
from agentguard.ledger.storage.tree_nodes import at_once
from agentguard.transparency import merkle
from agentguard.transparency import signed_note as note
from agentguard.transparency.checkpoints import Checkpoints


def newest_of(checkpoints: Checkpoints) -> note.Checkpoint | None:
    """The newest checkpoint of the file.

    Raises:
        LedgerCorrupt: the file was changed.
        LedgerUnavailable: it can't be read.
    """
    try:
        found = checkpoints.newest()
    except VerificationFailed as error:
        raise LedgerCorrupt(str(error)) from error
    return None if found is None else found[0]


def keep(checkpoints: Checkpoints, size: int, root: bytes) -> str:
    """Sign a checkpoint and keep it in the file; returns the note.

    Raises:
        LedgerUnavailable: it can't be written.
    """
    try:
        return checkpoints.sign(size, root)
    except OSError as error:
        raise LedgerUnavailable(
            f"{checkpoints.path.name}: {error.strerror}; nothing was done"
        ) from error


def compare(reader: Reader, signed: note.Checkpoint, where: str) -> None:
    """Raise LedgerCorrupt if the log is shorter than, or differs from, what was signed.

    Args:
        reader: sees one moment that is no older than the checkpoint.
        where: what holds the checkpoint.
    """
    size = tree_size(reader)
    if size < signed.size:
        raise LedgerCorrupt(
            f"the ledger holds {size} records, {where} proves {signed.size}: an old copy was"
            " restored, or one that was made before the copy of its checkpoints; bring back the"
            " newest (docs/how-to/backup.md says in which order to copy, and what to do"
            " without one)"
        )
    if at_once(reader, lambda nodes: merkle.root(nodes, signed.size)) != signed.root:
        raise LedgerCorrupt(f"the log's first {signed.size} records are not those that were signed")
