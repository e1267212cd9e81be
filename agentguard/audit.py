"""The log: replay against the checkpoints kept outside the database, and proofs.

RFC 9162 hashing (merkle.py), C2SP signed checkpoints (note.py). Whoever owns log key, database and
checkpoint file can rewrite history; until a witness holds checkpoints elsewhere, that stays so.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agentguard import merkle, note
from agentguard._checkpoints import Checkpoints
from agentguard._tail import compare, keep, newest_of
from agentguard.errors import LedgerCorrupt, LedgerUnavailable, VerificationFailed
from agentguard.storage import KEYS, Nodes, Reader, Storage, row_digest, tree_size

__all__ = ["Checkpoints", "Report", "prove", "verify", "verify_proof", "verify_tail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `verify` found: how many records, rows and checkpoints agree, and the root."""

    records: int
    rows: int
    checkpoints: int
    root: bytes


def verify_tail(storage: Storage, checkpoints: Checkpoints) -> None:
    """Compare the log with the newest checkpoint: finds a restored old copy in O(log n).

    Of a new ledger it keeps the first checkpoint.

    Raises:
        LedgerCorrupt: the log is shorter than, or differs from, what was signed, or the file of
            checkpoints is gone.
        LedgerUnavailable: the file of checkpoints can't be read or written.
    """
    # In this order: other processes may be writing, first the log, then the file.
    with storage.read() as reader:
        before = tree_size(reader)
    newest = newest_of(checkpoints)
    if newest is None:
        if before:
            name = checkpoints.path.name
            raise LedgerCorrupt(f"{name} holds no checkpoint of this ledger; bring it back")
        keep(checkpoints, 0, merkle.EMPTY_ROOT)
        return
    with storage.snapshot() as reader:
        compare(reader, newest, checkpoints.path.name)


def verify(storage: Storage, checkpoints: Checkpoints) -> Report:
    """Replay the whole log and compare schema, rows, tree and checkpoints with it (I10).

    Raises:
        VerificationFailed: naming the first bad record, row, node, checkpoint or trigger.
        LedgerUnavailable: the ledger can't be read.
    """
    wanted: dict[int, bytes] = {}
    counted = 0
    for checkpoint, _ in checkpoints.read():
        counted += 1
        _want(wanted, checkpoint)
    storage.settle()
    with storage.snapshot() as connection:
        try:
            storage.verify_schema(connection)
            kept = [checkpoints.verified(signed) for signed in storage.notes(connection)]
        except LedgerCorrupt as error:
            raise VerificationFailed(str(error)) from error
        for checkpoint in kept:
            _want(wanted, checkpoint)
        tree = _Compared(connection)
        rows: dict[tuple[str, str], tuple[str, int]] = {}
        _require_root(tree, 0, wanted.pop(0, None))
        for index, body in storage.records(connection):
            if index != tree.size:
                raise VerificationFailed(f"record {tree.size} is missing")
            tree.append(body)
            for table, key, digest in _rows_of(index, body):
                rows[table, key] = (digest, index)
            _require_root(tree, tree.size, wanted.pop(tree.size, None))
        if wanted:
            raise VerificationFailed(
                f"the log ends at {tree.size} records, a checkpoint proves {max(wanted)}:"
                " it was truncated, or an old copy restored"
            )
        if tree.size and not counted:
            raise VerificationFailed(
                f"{checkpoints.path.name} holds no checkpoint of this ledger: it was removed"
            )
        tree.require_nothing_else()
        for index, body in enumerate(storage.pending(connection), tree.size):
            for table, key, digest in _rows_of(index, body):
                rows[table, key] = (digest, index)
        _compare_rows(storage, connection, rows)
        return Report(
            records=tree.size, rows=len(rows), checkpoints=counted, root=tree.root(tree.size)
        )


def prove(storage: Storage, checkpoints: Checkpoints, index: int) -> dict[str, Any]:
    """An inclusion proof of one record that verifies offline with the log's verifier key.

    It leads to a checkpoint that is kept; a record that none covers yet is proved under a new
    one, which takes a record of its own.

    Raises:
        VerificationFailed: there is no such record, or the log is not what was signed.
        LedgerUnavailable: the ledger can't be read, or written where it must be.
    """
    size = storage.tree_size()
    if not 0 <= index < size:
        raise VerificationFailed(f"no record {index}; the log holds 0 to {size - 1}")
    found = checkpoints.newest()
    if found is None or found[0].size <= index:
        storage.sign()
        found = checkpoints.newest()
        if found is None or found[0].size <= index:
            raise LedgerUnavailable(f"{checkpoints.path.name} can't be written; see the log")
    checkpoint, signed = found
    with storage.snapshot() as connection:
        _, body = next(storage.records(connection, index), (index, b""))
        nodes = Nodes(connection)
        try:
            path = merkle.inclusion_proof(nodes, index, checkpoint.size)
        except LedgerCorrupt as error:
            raise VerificationFailed(str(error)) from error
    proof = {
        "format": "agentguard/inclusion-proof/v1",
        "index": index,
        "record": _text(index, body),
        "proof": [digest.hex() for digest in path],
        "checkpoint": signed,
        "verifier_key": checkpoints.verifier_key,
    }
    verify_proof(proof, checkpoints.verifier_key)  # never hand out one that fails elsewhere
    return proof


def verify_proof(proof: Mapping[str, Any], verifier_key: str) -> dict[str, Any]:
    """The record a proof is about, if it verifies under a verifier key got by another way.

    Raises:
        VerificationFailed: it does not.
    """
    try:
        checkpoint = note.verify(proof["checkpoint"], verifier_key)
        if checkpoint.origin != note.decode_verifier_key(verifier_key)[0]:
            raise ValueError(f"the checkpoint is one of {checkpoint.origin!r:.80}")
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


class _Compared:
    """Builds the tree again from the records and compares every stored node with it."""

    def __init__(self, connection: Reader) -> None:
        self.size = 0
        self._connection = connection
        self._stored = Nodes(connection)
        self._count = 0

    def append(self, body: bytes) -> None:
        self.size = merkle.append(self, self.size, [merkle.leaf_hash(body)])

    def root(self, size: int) -> bytes:
        return merkle.root(self, size)

    def get(self, level: int, index: int) -> bytes:
        return self._stored.get(level, index)  # it was compared when it was put

    def put(self, level: int, index: int, digest: bytes) -> None:
        self._count += 1
        with contextlib.suppress(LedgerCorrupt):
            if self._stored.get(level, index) == digest:
                return
        if level == 0:
            raise VerificationFailed(f"record {index} was changed after it was written")
        first = index << level
        raise VerificationFailed(
            f"the node over records {first} to {first + (1 << level) - 1} was changed"
        )

    def require_nothing_else(self) -> None:
        (stored,) = self._connection.execute("SELECT count(*) FROM nodes").fetchone()
        if stored != self._count:
            raise VerificationFailed(
                f"the log's tree has {stored} nodes, its {self.size} records make {self._count}:"
                " records were cut off, or nodes added by hand"
            )


def _require_root(tree: _Compared, size: int, signed: bytes | None) -> None:
    if signed is not None and signed != tree.root(size):
        raise VerificationFailed(
            f"the first {size} records are not those that were signed at that size"
        )


def _want(wanted: dict[int, bytes], checkpoint: note.Checkpoint) -> None:
    if wanted.setdefault(checkpoint.size, checkpoint.root) != checkpoint.root:
        raise VerificationFailed(
            f"two checkpoints of size {checkpoint.size} differ: the log was forked"
        )


def _text(index: int, body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise VerificationFailed(f"record {index} is not text: it was changed") from error


def _rows_of(index: int, body: bytes) -> Iterator[tuple[str, str, str]]:
    try:
        for table, key, digest in json.loads(_text(index, body))["rows"]:
            if not isinstance(table, str):
                raise ValueError("a row names no table")
            yield table, json.dumps(key), digest
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise VerificationFailed(f"record {index} is not a record") from error


def _compare_rows(
    storage: Storage, reader: Reader, rows: Mapping[tuple[str, str], tuple[str, int]]
) -> None:
    unseen = dict(rows)
    for table, keys in KEYS.items():
        found = storage.rows(reader, table)
        while True:
            try:
                row = next(found, None)
                if row is None:
                    break
                name = json.dumps([row[key] for key in keys])
                digest = row_digest(row)
            except TypeError as error:
                raise VerificationFailed(f"{table} holds what was never written there") from error
            logged = unseen.pop((table, name), None)
            if logged is None:
                raise VerificationFailed(f"{table} {name} is in no record: it was added by hand")
            if logged[0] != digest:
                raise VerificationFailed(
                    f"{table} {name} is not what record {logged[1]} says: it was edited"
                )
    for (table, name), (_, index) in unseen.items():
        raise VerificationFailed(f"{table} {name} of record {index} is missing: it was deleted")
