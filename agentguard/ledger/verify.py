"""The log: replay against the checkpoints kept outside the database, and proofs.

RFC 9162 hashing (merkle.py), C2SP signed checkpoints (signed_note.py). Whoever owns log key,
database and checkpoint file can rewrite history, and old copies of both files put back together
verify, without any key; until a witness holds checkpoints elsewhere, that stays so.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any

from agentguard.errors import LedgerCorrupt, LedgerUnavailable, VerificationFailed
from agentguard.ledger.storage.open import KEYS, Reader, Storage, at_once, tree_size
from agentguard.ledger.storage.rollback_detection import compare, keep, newest_of
from agentguard.ledger.verify_records import (
    ACCEPTED,
    Progress,
    Tree,
    compare_rows,
    look_again,
    note_rows,
    text_of,
    verify_records,
)
from agentguard.ledger.verify_rows import Acceptance, Logged
from agentguard.transparency import merkle
from agentguard.transparency import signed_note as note
from agentguard.transparency.checkpoints import Checkpoints

_AT_ONCE = 500  # checkpoints
_RECORDS_AT_ONCE = 1000

__all__ = [
    "ACCEPTED", "Acceptance", "Checkpoints", "Progress", "Report", "prove", "verify",
    "verify_proof", "verify_tail",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `verify` found: how many records, rows and checkpoints agree, and the root.

    Args:
        accepted: where a person went on with a ledger that may lack its end.
    """

    records: int
    rows: int
    checkpoints: int
    root: bytes
    accepted: tuple[Acceptance, ...] = ()


def verify_tail(storage: Storage, checkpoints: Checkpoints) -> None:
    """Compare the log with the newest checkpoint: finds a restored old copy in O(log n).

    Of a new ledger it keeps the first checkpoint.

    Raises:
        LedgerCorrupt: the log is shorter than, or differs from, what was signed, or the file of
            checkpoints is gone.
        LedgerUnavailable: the file of checkpoints can't be read or written.
    """
    # Others write first the log, then the file, and a new ledger's first checkpoint before its
    # first record. So whether there must be a checkpoint is read before the file, and the log that
    # a checkpoint is compared with after it.
    with storage.read() as reader:
        before = tree_size(reader)
    newest = newest_of(checkpoints)
    if newest is None:
        if before:
            name = checkpoints.path.name
            raise LedgerCorrupt(
                f"{name} holds no checkpoint of this ledger, which has {before} records; bring it"
                " back. If it is lost, `agentguard audit accept-unverified` goes on without it, and"
                " the log says so (docs/how-to/backup.md)"
            )
        keep(checkpoints, 0, merkle.EMPTY_ROOT)
        return
    with storage.snapshot() as reader:
        compare(reader, newest, checkpoints.path.name)


def _silent(what: str, count: int) -> None:
    pass


def verify(storage: Storage, checkpoints: Checkpoints, *, progress: Progress = _silent) -> Report:
    """Replay the whole log and compare schema, rows, tree and checkpoints with it (I10).

    The tables `leases` and `meta` have no records, and are not compared; PostgreSQL's `outbox` and
    `checkpoints` are part of the log, and are read as such. What it compares is one moment: what
    others write meanwhile is read as well. In SQLite it reads in steps, so that the WAL does not
    grow for as long as it takes.

    Args:
        progress: told how far it is, many times a second.

    Raises:
        VerificationFailed: naming the first bad record, row, node, checkpoint or trigger.
        LedgerUnavailable: the ledger can't be read.
    """
    with Logged() as logged:
        counted = 0
        for checkpoint, _ in checkpoints.read():
            counted += 1
            _note_root(logged, checkpoint)
            if counted % _AT_ONCE == 0:
                progress("checkpoints", counted)
        storage.wait_for_log()
        try:
            with storage.snapshot() as connection:
                storage.verify_schema(connection)
            storage.verify_indexes()
        except LedgerCorrupt as error:
            raise VerificationFailed(str(error)) from error
        with storage.long_read() as reader:
            try:
                with storage.latest(reader) as now:
                    kept = [checkpoints.verified(signed) for signed in storage.notes(now)]
                    size = tree_size(now)
            except LedgerCorrupt as error:
                raise VerificationFailed(str(error)) from error
            for checkpoint in kept:
                _note_root(logged, checkpoint)
            tree = Tree(reader)
            with (
                contextlib.closing(storage.records(reader)) as records,
                contextlib.closing(logged.signed()) as signed,
            ):
                first = takewhile(lambda record: record[0] < size, records)
                verify_records(first, tree, logged, signed, progress)
            if tree.size and not counted:
                raise VerificationFailed(
                    f"{checkpoints.path.name} holds no checkpoint of this ledger: it was removed"
                )
            for table, keys in KEYS.items():
                with contextlib.closing(storage.rows(reader, table)) as found:
                    compare_rows(found, table, keys, logged, progress)
            root = _catch_up(storage, reader, tree, logged, progress)
            return Report(
                records=tree.size,
                rows=logged.compare(),
                checkpoints=counted,
                root=root,
                accepted=tuple(logged.accepted),
            )


def _catch_up(
    storage: Storage, reader: Reader, tree: Tree, logged: Logged, progress: Progress
) -> bytes:
    """Verify what was written since, until nothing is left at one moment; the root then.

    A row that was touched since it was read is read again, at the moment of the record. So every
    row is compared as it is at the last of these moments, and none of them lasts long.
    """
    logged.touched = {}
    while True:
        with storage.latest(reader) as now:
            size = tree_size(now)
            with contextlib.closing(storage.records(now, tree.size)) as records:
                some = islice(records, _RECORDS_AT_ONCE)
                root = verify_records(some, tree, logged, iter(()), _silent)
            look_again(now, storage, logged)
            logged.touched.clear()
            if tree.size >= size:
                tree.require_nothing_else(now)
                for index, body in enumerate(storage.pending(now), tree.size):
                    note_rows(logged, index, body)
                return root
        progress("records", tree.size)


def prove(storage: Storage, checkpoints: Checkpoints, index: int) -> dict[str, Any]:
    """An inclusion proof of one record that verifies offline with the log's verifier key.

    It leads to a checkpoint that is kept; a record that none covers yet is proved under a new
    one, which takes a record of its own.

    Raises:
        VerificationFailed: there is no such record, or the log is not what was signed.
        LedgerUnavailable: the ledger can't be read, or written where it must be.
    """
    found = checkpoints.newest()
    if found is None or not 0 <= index < found[0].size:
        _require_record(index, storage.tree_size())
        storage.sign()
        found = checkpoints.newest()
        if found is None or found[0].size <= index:
            raise LedgerUnavailable(f"{checkpoints.path.name} can't be written; see the log")
    checkpoint, signed = found
    with storage.snapshot() as connection:
        with contextlib.closing(storage.records(connection, index)) as records:
            at, body = next(records, (-1, b""))
        if at != index:
            _require_record(index, tree_size(connection))
        try:
            path = at_once(
                connection, lambda nodes: merkle.inclusion_proof(nodes, index, checkpoint.size)
            )
        except LedgerCorrupt as error:
            raise VerificationFailed(str(error)) from error
    proof = {
        "format": "agentguard/inclusion-proof/v1",
        "index": index,
        "record": text_of(index, body),
        "proof": [digest.hex() for digest in path],
        "checkpoint": signed,
        "verifier_key": checkpoints.verifier_key,
    }
    _verified(proof, checkpoint)  # never hand out one that fails elsewhere
    return proof


def _require_record(index: int, size: int) -> None:
    if not 0 <= index < size:
        raise VerificationFailed(f"no record {index}; the log holds 0 to {size - 1}")


def verify_proof(proof: Mapping[str, Any], verifier_key: str) -> dict[str, Any]:
    """The record a proof is about, if it verifies under a verifier key got by another way.

    Raises:
        VerificationFailed: it does not.
    """
    try:
        checkpoint = note.verify(proof["checkpoint"], verifier_key)
        if checkpoint.origin != note.decode_verifier_key(verifier_key)[0]:
            raise ValueError(f"the checkpoint is one of {checkpoint.origin!r:.80}")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise VerificationFailed(f"not a valid inclusion proof: {error}") from error
    return _verified(proof, checkpoint)


def _verified(proof: Mapping[str, Any], checkpoint: note.Checkpoint) -> dict[str, Any]:
    """The record of a proof, if it leads to the root of this checkpoint, which was verified."""
    try:
        sound = merkle.verify_inclusion(
            leaf=merkle.leaf_hash(proof["record"].encode("utf-8")),
            index=proof["index"],
            size=checkpoint.size,
            proof=[bytes.fromhex(digest) for digest in proof["proof"]],
            root=checkpoint.root,
        )
        record = json.loads(proof["record"])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise VerificationFailed(f"not a valid inclusion proof: {error}") from error
    if not sound:
        raise VerificationFailed("the proof does not lead to the signed root")
    if not isinstance(record, dict):
        raise VerificationFailed("what the proof is about is not a record")
    return record


def _note_root(logged: Logged, checkpoint: note.Checkpoint) -> None:
    if not logged.note_root(checkpoint.size, checkpoint.root):
        raise VerificationFailed(
            f"two checkpoints of size {checkpoint.size} differ: the log was forked"
        )
