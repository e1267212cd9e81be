"""The log: replay against the checkpoints kept outside the database, and proofs.

RFC 9162 hashing (merkle.py), C2SP signed checkpoints (note.py). Whoever owns log key, database and
checkpoint file can rewrite history; until a witness holds checkpoints elsewhere, that stays so.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from agentguard import merkle, note
from agentguard._checkpoints import Checkpoints
from agentguard._logged import Logged
from agentguard._tail import compare, keep, newest_of
from agentguard.errors import LedgerCorrupt, LedgerUnavailable, VerificationFailed
from agentguard.storage import KEYS, Nodes, Reader, Row, Storage, row_digest, tree_size

_AT_ONCE = 500  # rows, records

_json = json.JSONEncoder().encode

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
    with Logged() as logged:
        counted = 0
        for checkpoint, _ in checkpoints.read():
            counted += 1
            _sign(logged, checkpoint)
        storage.settle()
        with storage.snapshot() as connection:
            try:
                storage.verify_schema(connection)
                kept = [checkpoints.verified(signed) for signed in storage.notes(connection)]
            except LedgerCorrupt as error:
                raise VerificationFailed(str(error)) from error
            for checkpoint in kept:
                _sign(logged, checkpoint)
            tree = _Compared(connection)
            with (
                contextlib.closing(storage.records(connection)) as records,
                contextlib.closing(logged.signed()) as signed,
            ):
                _replay(records, tree, logged, signed)
            if tree.size and not counted:
                raise VerificationFailed(
                    f"{checkpoints.path.name} holds no checkpoint of this ledger: it was removed"
                )
            tree.require_nothing_else()
            for index, body in enumerate(storage.pending(connection), tree.size):
                _note_rows(logged, index, body)
            for table, keys in KEYS.items():
                with contextlib.closing(storage.rows(connection, table)) as found:
                    _compare_rows(found, table, keys, logged)
            logged.compare()
            return Report(
                records=tree.size,
                rows=logged.count(),
                checkpoints=counted,
                root=tree.root(tree.size),
            )


def _replay(
    records: Iterator[tuple[int, bytes]],
    tree: _Compared,
    logged: Logged,
    signed: Iterator[tuple[int, bytes]],
) -> None:
    """Compare every record's place in the tree, and every checkpoint where the tree has its size.

    Args:
        signed: (size, root) of the checkpoints, the smallest first.
    """
    due = next(signed, None)
    bodies: list[bytes] = []
    while True:
        if due is not None and due[0] == tree.size + len(bodies):
            tree.append(bodies)
            bodies.clear()
            if due[1] != tree.root(tree.size):
                raise VerificationFailed(
                    f"the first {tree.size} records are not those that were signed at that size"
                )
            due = next(signed, None)
        record = next(records, None)
        if record is None or len(bodies) == _AT_ONCE:
            tree.append(bodies)
            bodies.clear()
        if record is None:
            break
        index, body = record
        if index != tree.size + len(bodies):
            tree.append(bodies)  # what is wrong before it is said first
            raise VerificationFailed(f"record {tree.size} is missing")
        bodies.append(body)
        _note_rows(logged, index, body)
    if due is not None:
        last = max((size for size, _ in signed), default=due[0])
        raise VerificationFailed(
            f"the log ends at {tree.size} records, a checkpoint proves {last}:"
            " it was truncated, or an old copy restored"
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
        with contextlib.closing(storage.records(connection, index)) as records:
            _, body = next(records, (index, b""))
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
    """Builds the tree again from the records and compares every stored node with it, in order."""

    def __init__(self, reader: Reader) -> None:
        self.size = 0
        self._reader = reader
        self._stored = Nodes(reader)
        self._last: dict[int, tuple[int, bytes]] = {}
        self._count = 0

    def append(self, bodies: Sequence[bytes]) -> None:
        self.size = merkle.append(self, self.size, [merkle.leaf_hash(body) for body in bodies])

    def root(self, size: int) -> bytes:
        return merkle.root(self, size)

    def get(self, level: int, index: int) -> bytes:
        known, digest = self._last.get(level, (-1, b""))
        return digest if known == index else self._stored.get(level, index)  # compared when put

    def put(self, level: int, index: int, digest: bytes) -> None:
        self._count += 1
        self._last[level] = index, digest
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
        (stored,) = self._reader.execute("SELECT count(*) FROM nodes").fetchone()
        if stored != self._count:
            raise VerificationFailed(
                f"the log's tree has {stored} nodes, its {self.size} records make {self._count}:"
                " records were cut off, or nodes added by hand"
            )


def _sign(logged: Logged, checkpoint: note.Checkpoint) -> None:
    if not logged.sign(checkpoint.size, checkpoint.root):
        raise VerificationFailed(
            f"two checkpoints of size {checkpoint.size} differ: the log was forked"
        )


def _text(index: int, body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise VerificationFailed(f"record {index} is not text: it was changed") from error


def _note_rows(logged: Logged, index: int, body: bytes) -> None:
    """Note what a record says of rows."""
    try:
        for table, key, digest in json.loads(_text(index, body))["rows"]:
            if not (isinstance(digest, str) and f"{table}{digest}".isascii()):
                raise ValueError("a row has no table or no digest")
            logged.row(f"{table} {_json(key)}", digest, index)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise VerificationFailed(f"record {index} is not a record") from error


def _compare_rows(found: Iterator[Row], table: str, keys: Sequence[str], logged: Logged) -> None:
    """Compare every row of a table with the last record of it."""

    def named(row: Row) -> tuple[str, str]:
        return f"{table} {_json([row[key] for key in keys])}", row_digest(row)

    try:
        while some := [named(row) for row in islice(found, _AT_ONCE)]:
            logged.meet(some)
    except TypeError as error:
        raise VerificationFailed(f"{table} holds what was never written there") from error
