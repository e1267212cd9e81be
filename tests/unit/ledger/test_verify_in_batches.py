"""Verifying in batches: whatever their size, every stored hash is compared, and roots are right."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest

from agentguard.errors import LedgerCorrupt, VerificationFailed
from agentguard.ledger import verify_records as _verification
from agentguard.ledger.storage.open import at_once, stretch
from agentguard.ledger.verify_records import Tree, compare_rows, note_rows, verify_records
from agentguard.ledger.verify_rows import Logged
from agentguard.transparency import merkle
from tests.support.trees import Frontier, MemoryNodes

SIZE = 21
BODIES = [json.dumps({"rows": [["grants", [str(n)], "d"]]}).encode() for n in range(SIZE)]
BATCHES = [1, 3, 8, SIZE + 1]


class Statements:
    """A connection that counts what it is asked."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.count = 0

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        self.count += 1
        return self.connection.execute(sql, parameters)


@pytest.fixture
def nodes() -> Iterator[Statements]:
    """The tree of BODIES, as a ledger stores it."""
    stored = MemoryNodes()
    merkle.append(stored, 0, [merkle.leaf_hash(body) for body in BODIES])
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute(
            "CREATE TABLE nodes (level INTEGER NOT NULL, idx INTEGER NOT NULL, hash BLOB NOT NULL,"
            " PRIMARY KEY (level, idx)) WITHOUT ROWID"
        )
        connection.executemany(
            "INSERT INTO nodes VALUES (?, ?, ?)",
            [(level, index, digest) for (level, index), digest in stored._digests.items()],
        )
        yield Statements(connection)


def roots() -> list[bytes]:
    """The root of every size up to SIZE."""
    frontier = Frontier()
    found = [frontier.root()]
    for body in BODIES:
        frontier.append(merkle.leaf_hash(body))
        found.append(frontier.root())
    return found


def replayed(
    nodes: Statements, signed: Sequence[tuple[int, bytes]], bodies: Sequence[bytes] = BODIES
) -> bytes:
    with Logged() as logged:
        return verify_records(
            enumerate(bodies), Tree(nodes), logged, iter(signed), lambda what, count: None
        )


@pytest.mark.parametrize("batch", BATCHES)
def test_a_batch_knows_the_roots_of_all_sizes_that_it_passes(nodes: Statements, batch: int) -> None:
    tree, expected = Tree(nodes), roots()
    assert tree.root(0) == expected[0]
    for first in range(0, SIZE, batch):
        assert tree.append(BODIES[first : first + batch]) is None
        for size in range(first, tree.size + 1):
            assert tree.root(size) == expected[size], size
    tree.require_nothing_else(nodes)
    assert tree.size == SIZE


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("how", ["changed", "gone", "of another type"])
def test_I10_whatever_the_batch_the_one_wrong_hash_is_named(
    nodes: Statements, batch: int, how: str
) -> None:
    places = nodes.execute("SELECT level, idx, hash FROM nodes").fetchall()
    assert max(level for level, *_ in places) == 4
    for level, index, digest in places:
        where = f"WHERE level = {level} AND idx = {index}"
        nodes.execute({
            "changed": f"UPDATE nodes SET hash = zeroblob(32) {where}",
            "of another type": f"UPDATE nodes SET hash = hex(hash) {where}",
            "gone": f"DELETE FROM nodes {where}",
        }[how])  # fmt: skip
        tree = Tree(nodes)
        found = [tree.append(BODIES[first : first + batch]) for first in range(0, SIZE, batch)]
        (wrong,) = [one for one in found if one is not None]
        stop = (index + 1) * 2**level
        said = (
            f"the node over records {index * 2**level} to {stop - 1} was changed"
            if level
            else f"record {index} was changed after it was written"
        )
        assert (wrong.stop, wrong.said) == (stop, said)
        nodes.execute("INSERT OR REPLACE INTO nodes VALUES (?, ?, ?)", (level, index, digest))
    assert Tree(nodes).append(BODIES) is None


@pytest.mark.parametrize("batch", BATCHES)
def test_I10_every_checkpoint_is_compared_whatever_the_batch(
    nodes: Statements, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(_verification, "_AT_ONCE", batch)
    signed = list(enumerate(roots()))
    assert replayed(nodes, signed) == signed[-1][1]
    assert replayed(nodes, []) == signed[-1][1]
    for size in range(SIZE + 1):
        for others in (signed, []):
            forged = sorted({**dict(others), size: b"\1" * 32}.items())
            with pytest.raises(VerificationFailed, match=f"^the first {size} records are not"):
                replayed(nodes, forged)
    for more in (1, 5):
        with pytest.raises(
            VerificationFailed, match=f"^the log ends at {SIZE} .* proves {SIZE + more}:"
        ):
            replayed(nodes, [*signed, *((SIZE + n, b"") for n in range(1, more + 1))])


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("record", "checkpoint"), [(8, 8), (8, 9), (19, 3), (3, 19), (20, 21)])
def test_what_comes_first_in_the_log_is_said_first(
    nodes: Statements, monkeypatch: pytest.MonkeyPatch, batch: int, record: int, checkpoint: int
) -> None:
    monkeypatch.setattr(_verification, "_AT_ONCE", batch)
    bodies = [body + b" " if n == record else body for n, body in enumerate(BODIES)]
    first = f"^record {record} was changed"
    if checkpoint <= record:
        first = f"^the first {checkpoint} records are not"
    with pytest.raises(VerificationFailed, match=first):
        replayed(nodes, [(checkpoint, b"\1" * 32)], bodies)


@pytest.mark.parametrize("batch", BATCHES)
def test_of_several_wrong_records_the_first_is_named(
    nodes: Statements, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(_verification, "_AT_ONCE", batch)
    nodes.execute("UPDATE nodes SET hash = zeroblob(32) WHERE level = 2 AND idx = 2")
    nodes.execute("UPDATE nodes SET hash = zeroblob(32) WHERE level = 0 AND idx > 11")
    with pytest.raises(VerificationFailed, match=r"^the node over records 8 to 11 was changed"):
        replayed(nodes, [])


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("index", [0, 1, 8, 19])
def test_a_gap_is_named_by_the_record_that_is_missing(
    nodes: Statements, monkeypatch: pytest.MonkeyPatch, batch: int, index: int
) -> None:
    monkeypatch.setattr(_verification, "_AT_ONCE", batch)
    left = [one for one in enumerate(BODIES) if one[0] != index]
    with Logged() as logged, pytest.raises(VerificationFailed, match=f"^record {index} is missing"):
        verify_records(iter(left), Tree(nodes), logged, iter([]), lambda what, count: None)


@pytest.mark.parametrize("batch", BATCHES)
def test_I10_whatever_the_batch_every_record_speaks_of_its_rows(
    nodes: Statements, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(_verification, "_AT_ONCE", batch)
    for gone in range(SIZE):
        with Logged() as logged:
            verify_records(enumerate(BODIES), Tree(nodes), logged, iter([]), lambda *_: None)
            logged.meet([(f'grants ["{n}"]', "d") for n in range(SIZE) if n != gone])
            with pytest.raises(VerificationFailed, match=f"of record {gone} is missing"):
                logged.compare()


def test_I10_all_rows_that_are_met_at_once_count() -> None:
    count = _verification._AT_ONCE
    for gone in (None, 0, count // 2, count - 1):
        with Logged() as logged:
            for number in range(count):
                logged.row(f"grants {number}", "d", number)
            logged.meet([(f"grants {number}", "d") for number in range(count) if number != gone])
            if gone is None:
                assert logged.compare() == count
                continue
            with pytest.raises(VerificationFailed, match=f"^grants {gone} of record {gone} is"):
                logged.compare()


@pytest.mark.parametrize(
    "tail", [b" ", b"x", b'{"rows":[]}', b"\n", b"\0"], ids=["blank", "x", "two", "line", "nul"]
)
def test_a_record_with_more_behind_it_is_none(tail: bytes) -> None:
    with Logged() as logged:
        note_rows(logged, 7, BODIES[0])
        with pytest.raises(VerificationFailed, match=r"^record 7 is not a record$"):
            note_rows(logged, 7, BODIES[0] + tail)


def test_an_error_of_whoever_is_told_is_no_tampering(
    nodes: Statements, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise TypeError("a defect")

    found = nodes.connection.execute("SELECT 'a' AS id")
    with Logged() as logged:
        with pytest.raises(TypeError, match="a defect"):
            compare_rows(found, "jobs", ["id"], logged, broken)
        monkeypatch.setattr(Logged, "row", broken)
        with pytest.raises(TypeError, match="a defect"):
            note_rows(logged, 7, BODIES[0])


def test_a_row_is_called_the_same_by_its_record_and_its_table() -> None:
    for key in (["a"], ["a", "b"], ['"\\', "\0\x7f", "é\ud800\U0001f600"], []):
        assert _verification._written(key) == json.dumps(key)
    for odd in ([1], [None, "a"], ["a", 1.5], "ab", {"a": 1}, [["a"]], None):
        assert _verification._written(odd) == json.dumps(odd)


# --- several hashes at once -----------------------------------------------------------------------


def test_a_root_or_proof_takes_one_statement(nodes: Statements) -> None:
    stored = MemoryNodes()
    merkle.append(stored, 0, [merkle.leaf_hash(body) for body in BODIES])
    for size in range(SIZE + 1):
        before = nodes.count

        def root(hashes: merkle.Hashes, n: int = size) -> bytes:
            return merkle.root(hashes, n)

        assert at_once(nodes, root) == roots()[size]
        for index in range(size):

            def proof(hashes: merkle.Hashes, i: int = index, n: int = size) -> tuple[bytes, ...]:
                return merkle.inclusion_proof(hashes, i, n)

            assert at_once(nodes, proof) == proof(stored)
        assert nodes.count - before <= size + 1


@pytest.mark.parametrize(
    "change",
    ["DELETE FROM nodes WHERE level = 2 AND idx = 4",
     "UPDATE nodes SET hash = 'x' WHERE level = 2 AND idx = 4",
     "UPDATE nodes SET idx = -4 WHERE level = 2 AND idx = 4"],
)  # fmt: skip
def test_a_hash_that_is_not_there_is_named(nodes: Statements, change: str) -> None:
    nodes.execute(change)
    with pytest.raises(LedgerCorrupt, match="lacks node 2/4"):
        at_once(nodes, lambda hashes: merkle.root(hashes, 20))


def test_a_stretch_is_no_more_than_was_asked_for(nodes: Statements) -> None:
    assert list(stretch(nodes, 0, 3, 5)) == [3, 4, 5, 6, 7]
    assert list(stretch(nodes, 1, 8, 9)) == [8, 9]
    assert stretch(nodes, 9, 0, 9) == {}
