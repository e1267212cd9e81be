"""The log: checkpoints signed and kept outside the database, replay, proofs.

RFC 9162 hashing (merkle.py), C2SP signed checkpoints (note.py). Whoever owns log key, database and
checkpoint file can rewrite history; until a witness holds checkpoints elsewhere, that stays so.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agentguard import merkle, note
from agentguard.errors import LedgerCorrupt, VerificationFailed
from agentguard.storage import KEYS, Storage, row_digest

_EVERY = 64


class Checkpoints:
    """The file of signed checkpoints beside the ledger: one JSON string per line.

    Args:
        path: the file; it is appended to.
        origin: the log's name in its checkpoints.
        key: the log key.
    """

    def __init__(self, *, path: Path, origin: str, key: Ed25519PrivateKey) -> None:
        self.path = path
        self.origin = origin
        self._key = key
        self._last = 0
        self.verifier_key = note.encode_verifier_key(origin, key.public_key())

    def committed(self, size: int, root: bytes, durable: bool) -> None:
        """Called by the writer after each commit: signs durable ones, and every 64th record."""
        if durable or size - self._last >= _EVERY:
            self.sign(size, root)

    def sign(self, size: int, root: bytes) -> str:
        """Sign a checkpoint and append it to the file; returns the note."""
        signed = note.sign(
            note.Checkpoint(origin=self.origin, size=size, root=root), self.origin, self._key
        )
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(signed) + "\n")
        self._last = size
        return signed

    def read(self) -> Iterator[note.Checkpoint]:
        """Every checkpoint in the file, verified.

        Raises:
            VerificationFailed: a line is damaged or not signed by the log key.
        """
        try:
            lines = self.path.read_text("utf-8").splitlines()
        except FileNotFoundError:
            return
        for number, line in enumerate(lines, 1):
            try:
                checkpoint = note.verify(json.loads(line), self.verifier_key)
                if checkpoint.origin != self.origin:
                    raise ValueError(f"got a checkpoint of {checkpoint.origin!r}")
                yield checkpoint
            except (ValueError, TypeError) as error:
                if number == len(lines) and not line.endswith('"'):
                    return  # a crash cut the last line short
                raise VerificationFailed(
                    f"{self.path.name} line {number}: {error}; the file was changed"
                ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `verify` found: how many records, rows and checkpoints agree, and the root."""

    records: int
    rows: int
    checkpoints: int
    root: bytes


def verify_tail(storage: Storage, checkpoints: Checkpoints) -> None:
    """Compare the log with the newest checkpoint: finds a restored old copy in O(log n).

    Raises:
        LedgerCorrupt: the log is shorter than, or differs from, what was signed.
    """
    newest: note.Checkpoint | None = None
    try:
        for newest in checkpoints.read():  # noqa: B007  the last one is wanted
            pass
    except VerificationFailed as error:
        raise LedgerCorrupt(str(error)) from error
    if newest is None:
        return
    with storage.read() as connection:
        row = connection.execute("SELECT max(idx) FROM records").fetchone()
        size = 0 if row[0] is None else row[0] + 1
        if size < newest.size:
            raise LedgerCorrupt(
                f"the ledger holds {size} records, {checkpoints.path.name} proves {newest.size}:"
                " an old copy was restored; bring back the newest"
            )
        if newest.size and merkle.root(storage.nodes(connection), newest.size) != newest.root:
            raise LedgerCorrupt(
                f"the log's first {newest.size} records are not those that were signed"
            )


def verify(storage: Storage, checkpoints: Checkpoints) -> Report:
    """Replay the whole log and compare every table row and checkpoint with it (I10).

    Raises:
        VerificationFailed: naming the first bad record, row or checkpoint.
    """
    wanted: dict[int, bytes] = {}
    for checkpoint in checkpoints.read():
        known = wanted.setdefault(checkpoint.size, checkpoint.root)
        if known != checkpoint.root:
            raise VerificationFailed(
                f"two checkpoints of size {checkpoint.size} differ: the log was forked"
            )
    frontier = merkle.Frontier()
    rows: dict[tuple[str, str], tuple[str, int]] = {}
    with storage.read() as connection:
        connection.execute("BEGIN")
        for index, body in connection.execute("SELECT idx, body FROM records ORDER BY idx"):
            if index != frontier.size:
                raise VerificationFailed(f"record {frontier.size} is missing")
            for table, key, digest in _rows_of(index, body):
                rows[table, json.dumps(key)] = (digest, index)
            leaf = merkle.leaf_hash(body.encode("utf-8"))
            stored = connection.execute(
                "SELECT hash FROM nodes WHERE level = 0 AND idx = ?", (index,)
            ).fetchone()
            if stored is None or bytes(stored[0]) != leaf:
                raise VerificationFailed(f"record {index} was changed after it was written")
            frontier.append(leaf)
            root = wanted.pop(frontier.size, None)
            if root is not None and root != frontier.root():
                raise VerificationFailed(
                    f"records up to {index} are not those that were signed at size {index + 1}"
                )
        wanted.pop(0, None)
        if wanted:
            raise VerificationFailed(
                f"the log ends at {frontier.size} records, a checkpoint proves {max(wanted)}:"
                " it was truncated, or an old copy restored"
            )
        _compare_rows(connection, rows)
        counted = sum(1 for _ in checkpoints.read())
        return Report(
            records=frontier.size, rows=len(rows), checkpoints=counted, root=frontier.root()
        )


def prove(storage: Storage, checkpoints: Checkpoints, index: int) -> dict[str, Any]:
    """An inclusion proof of one record that verifies offline with the log's verifier key.

    Raises:
        VerificationFailed: there is no such record.
    """
    with storage.read() as connection:
        connection.execute("BEGIN")
        row = connection.execute("SELECT max(idx) FROM records").fetchone()
        size = 0 if row[0] is None else row[0] + 1
        if not 0 <= index < size:
            raise VerificationFailed(f"no record {index}; the log holds 0 to {size - 1}")
        body = connection.execute("SELECT body FROM records WHERE idx = ?", (index,)).fetchone()[0]
        nodes = storage.nodes(connection)
        root = merkle.root(nodes, size)
        proof = merkle.inclusion_proof(nodes, index, size)
    return {
        "format": "agentguard/inclusion-proof/v1",
        "index": index,
        "record": body,
        "proof": [digest.hex() for digest in proof],
        "checkpoint": checkpoints.sign(size, root),
        "verifier_key": checkpoints.verifier_key,
    }


def verify_proof(proof: Mapping[str, Any], verifier_key: str) -> dict[str, Any]:
    """The record a proof is about, if it verifies under a verifier key got by another way.

    Raises:
        VerificationFailed: it does not.
    """
    try:
        checkpoint = note.verify(proof["checkpoint"], verifier_key)
        sound = merkle.verify_inclusion(
            leaf=merkle.leaf_hash(proof["record"].encode("utf-8")),
            index=proof["index"],
            size=checkpoint.size,
            proof=[bytes.fromhex(digest) for digest in proof["proof"]],
            root=checkpoint.root,
        )
        record: dict[str, Any] = json.loads(proof["record"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise VerificationFailed(f"not a valid inclusion proof: {error}") from error
    if not sound:
        raise VerificationFailed("the proof does not lead to the signed root")
    return record


def _rows_of(index: int, body: str) -> Iterator[tuple[str, list[Any], str]]:
    try:
        for table, key, digest in json.loads(body)["rows"]:
            yield table, key, digest
    except (ValueError, KeyError, TypeError) as error:
        raise VerificationFailed(f"record {index} is not a record") from error


def _compare_rows(
    connection: sqlite3.Connection, rows: Mapping[tuple[str, str], tuple[str, int]]
) -> None:
    unseen = dict(rows)
    for table, keys in KEYS.items():
        for row in connection.execute(f"SELECT * FROM {table}"):
            name = json.dumps([row[key] for key in keys])
            logged = unseen.pop((table, name), None)
            if logged is None:
                raise VerificationFailed(f"{table} {name} is in no record: it was added by hand")
            if logged[0] != row_digest(row):
                raise VerificationFailed(
                    f"{table} {name} is not what record {logged[1]} says: it was edited"
                )
    for (table, name), (_, index) in unseen.items():
        raise VerificationFailed(f"{table} {name} of record {index} is missing: it was deleted")
