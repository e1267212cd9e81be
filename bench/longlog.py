"""A long log, written fast: one real call goes through the ledger, and its rows are multiplied.

The copies differ as real calls do (digest, call key, grant, names), each row's digest is that of
its own columns, the tree is the one that `agentguard.merkle` makes, and a checkpoint is signed
every 64 records, as the ledger does. `audit verify` finds nothing wrong with it; through the ledger
itself it would take several minutes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentguard.guard import Guard
from agentguard.ledger.open import checkpoints_of
from agentguard.ledger.verify import Checkpoints
from agentguard.model import OutsideEffect
from agentguard.transparency import merkle
from bench.calls import RECORDS, caller
from bench.studio import KIM, open_guard
from tests.support.trees import Frontier

_NAME = "call-00000000"
_CHUNK = 10_000  # calls
_UNSIGNED = 64  # records, as in agentguard.storage


def write_log(folder: Path, records: int, say: Callable[[int], None]) -> None:
    """Fill the ledger of a fresh workspace with so many records, or a few more.

    Args:
        say: is told how many there are so far.
    """
    with open_guard(folder) as guard:
        path = guard.workspace.ledger.removeprefix("sqlite:")
        checkpoints = checkpoints_of(guard.workspace)
        call = _Call.recorded(guard)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        with _untriggered(connection):
            size = connection.execute("SELECT max(idx) + 1 FROM records").fetchone()[0]
            tree = _Edge(connection, checkpoints)
            for first in range(0, (records - size) // RECORDS + 1, _CHUNK):
                count = min(_CHUNK, (records - size) // RECORDS + 1)
                size = _write(connection, call, tree, size, range(first + 1, first + count + 1))
                say(size)
    with open_guard(folder) as guard, guard.open_job("sign", requested_by=KIM):
        pass  # a durable commit: a checkpoint of all of it


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """A call as its ledger holds it, with places for what is its own.

    Args:
        tables: the last state of each row it wrote: table → (columns, values).
        states: every state of a row that a record covers, as JSON: (table, text), in order.
        records: its records; they hold the digests of `states`.
    """

    tables: Mapping[str, tuple[Sequence[str], Sequence[Any]]]
    states: Sequence[_Text]
    records: Sequence[_Text]

    @classmethod
    def recorded(cls, guard: Guard) -> _Call:
        """Take one call through the ledger and read back what it wrote."""
        with guard.open_job("bench", requested_by=KIM) as job:
            through = caller(guard, job, OutsideEffect.NONE)
            item = through.judged(_NAME)
            digest, before = item.request.digest, guard.ledger.storage.tree_size()
            rows: dict[str, dict[str, Any]] = {}
            seen: dict[str, dict[str, Any]] = {}  # the JSON of a state → its row's columns
            for step in (through.decide, through.claim, through.finish):
                step(item)
                for table, sql in _READ.items():
                    row = guard.ledger.one(sql, digest)
                    if row is not None:
                        rows[table] = {name: row[name] for name in row.keys()}  # noqa: SIM118
                        held = {name: v for name, v in rows[table].items() if v is not None}
                        seen[json.dumps(held, sort_keys=True)] = rows[table]
            written = [
                row["body"]
                for row in guard.ledger.all(
                    "SELECT body FROM records WHERE idx >= ? ORDER BY idx", before
                )
            ]
        if len(written) < RECORDS:
            raise RuntimeError(f"a call wrote {len(written)} records, expected {RECORDS}")
        key = item.request.call_key
        own = {
            digest: "digest", key: "key", key[:32]: "key32", key[:20]: "key20",
            rows["grants"]["id"]: "grant", _NAME: "name",
        }  # fmt: skip
        states = []
        for number, text in enumerate(seen):
            states.append(_Text.of(text, own))
            own = {**own, hashlib.sha256(text.encode("ascii")).hexdigest(): f"state{number}"}
        return cls(
            tables={
                table: (
                    tuple(row),
                    tuple(_Text.of(v, own) if isinstance(v, str) else v for v in row.values()),
                )
                for table, row in rows.items()
            },
            states=states,
            records=[_Text.of(body, own) for body in written[:RECORDS]],
        )

    def copy(self, number: int) -> dict[str, str]:
        """What is its own in a copy, by the name of its place."""
        key = hashlib.sha256(b"key %d" % number).hexdigest()
        grant = hashlib.sha256(b"grant %d" % number).hexdigest()
        own = {
            "digest": hashlib.sha256(b"digest %d" % number).hexdigest(),
            "key": key, "key32": key[:32], "key20": key[:20],
            "grant": f"grant-{grant[:20]}", "name": f"call-{number:08d}",
        }  # fmt: skip
        for place, state in enumerate(self.states):
            own[f"state{place}"] = hashlib.sha256(state.fill(own).encode("ascii")).hexdigest()
        return own


_READ = {
    "requests": "SELECT * FROM requests WHERE digest = ?",
    "grants": "SELECT * FROM grants WHERE request = ?",
    "outcomes": "SELECT outcomes.* FROM outcomes JOIN grants ON id = grant_id WHERE request = ?",
}


@dataclass(frozen=True, slots=True)
class _Text:
    """A text with places for what differs between calls."""

    form: str

    @classmethod
    def of(cls, text: str, own: Mapping[str, str]) -> _Text:
        longest = sorted(own, key=len, reverse=True)
        parts = re.split(f"({'|'.join(map(re.escape, longest))})", text)
        return cls("".join(
            f"%({own[part]})s" if place % 2 else part.replace("%", "%%")
            for place, part in enumerate(parts)
        ))  # fmt: skip

    def fill(self, own: Mapping[str, str]) -> str:
        return self.form % own


class _Edge:
    """The tree's nodes: the right edge in memory, the rest written; signs checkpoints."""

    def __init__(self, connection: sqlite3.Connection, checkpoints: Checkpoints) -> None:
        self._connection = connection
        self._checkpoints = checkpoints
        self._all = Frontier()
        for (leaf,) in connection.execute("SELECT hash FROM nodes WHERE level = 0 ORDER BY idx"):
            self._all.append(leaf)
        self._last: dict[int, tuple[int, bytes]] = {}
        self._added: list[tuple[int, int, bytes]] = []

    def get(self, level: int, index: int) -> bytes:
        known, digest = self._last.get(level, (-1, b""))
        if known == index:
            return digest
        sql = "SELECT hash FROM nodes WHERE level = ? AND idx = ?"
        return bytes(self._connection.execute(sql, (level, index)).fetchone()[0])

    def put(self, level: int, index: int, digest: bytes) -> None:
        self._last[level] = index, digest
        self._added.append((level, index, digest))

    def write(self) -> None:
        """Write what was added, then sign what is written."""
        signed = []
        for level, _, digest in self._added:
            if level == 0:
                self._all.append(digest)
                if self._all.size % _UNSIGNED == 0:
                    signed.append((self._all.size, self._all.root()))
        self._connection.executemany("INSERT INTO nodes VALUES (?, ?, ?)", self._added)
        self._added.clear()
        self._connection.execute("COMMIT")
        for size, root in signed:
            self._checkpoints.sign(size, root)


def _write(
    connection: sqlite3.Connection, call: _Call, tree: _Edge, size: int, numbers: range
) -> int:
    """Write copies in one transaction; returns the log's new size."""
    copies = [call.copy(number) for number in numbers]
    bodies = [record.fill(own) for own in copies for record in call.records]
    connection.execute("BEGIN")
    for table, (columns, values) in call.tables.items():
        connection.executemany(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
            (
                [value.fill(own) if isinstance(value, _Text) else value for value in values]
                for own in copies
            ),
        )
    connection.executemany("INSERT INTO records (idx, body) VALUES (?, ?)", enumerate(bodies, size))
    size = merkle.append(tree, size, [merkle.leaf_hash(body.encode("utf-8")) for body in bodies])
    tree.write()
    return size


@contextlib.contextmanager
def _untriggered(connection: sqlite3.Connection) -> Iterator[None]:
    """Without the triggers, which would want every state of a row written in turn."""
    triggers = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY rowid"
    ).fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    yield
    for _, sql in triggers:
        connection.execute(sql)
