"""The log under attack: every table, every record, the tree, the checkpoints (I10, S35, S39)."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agentguard.errors import LedgerCorrupt, LedgerUnavailable, VerificationFailed
from agentguard.ledger import (
    verify as audit,
)
from agentguard.ledger import (
    verify_records as _verification,
)
from agentguard.ledger import (
    verify_rows as _logged,
)
from agentguard.ledger.ledger import Ledger, RefusedCall, Started
from agentguard.ledger.storage.open import KEYS
from agentguard.ledger.verify import Checkpoints, prove, verify, verify_proof, verify_tail
from agentguard.model import Effect, GrantState, OutsideEffect, Terms
from agentguard.transparency import merkle
from agentguard.transparency import signed_note as note
from tests.support.giving import give
from tests.support.ledgers import (
    KEY,
    Bench,
    Clock,
    checkpoints_beside,
    ledger_at,
    made,
    place_at,
    raw,
    request,
)
from tests.support.trees import MemoryNodes

ROOT = Path(__file__).parents[3]


def live_through(ledger: Ledger) -> Bench:
    """A little of everything: at least two rows in every table that the log accounts for."""
    for job in range(2):
        bench = Bench(ledger)
        source = made(f"a{job}")
        ledger.register(source, job=bench.job, by="kim", how="imported")
        ledger.register(
            made(f"a{job}", labels=frozenset({"x"})), job=None, by="omar", how="imported"
        )
        edit = bench.permit(assets=(source.sha256,))
        bench.claim(edit)
        bench.finish(
            edit,
            made=(made(f"b{job}", parents=(source.sha256,)),),
            findings={source.sha256: [{"severity": "info"}]},
            queued=((source.sha256, "site"),),
            revealed=frozenset({"brand"}),
            updates={"key": 1},
            started=(
                Started(id="op-1", labels=frozenset({"brand"}), terms=Terms(),
                        contributors=frozenset({"kim"}), assets=(source.sha256,)),
            ),
        )  # fmt: skip
        sent = bench.ask(assets=(source.sha256,), destination="site")
        bench.answer(sent, "omar", Effect.PERMIT)
        bench.grant(sent, outside=OutsideEffect.IDEMPOTENT)
        assert bench.claim(sent, asked=True, answers=1) is None
        bench.finish(sent, receipts=(("site", "site/x", source.sha256),))
        lost = bench.permit(outside=OutsideEffect.OPAQUE, bits=7)
        bench.claim(lost)
        bench.finish(lost, GrantState.UNKNOWN)
        ledger.refuse({"job": bench.job, "reason": "no such tool"})
        ledger.stop_unguarded(bench.job, tool=f"tool-{job}")
        strict = bench.permit(assets=(source.sha256,))
        bench.claim(strict)
        bench.finish(strict, findings={source.sha256: [{"severity": "error"}]})
        spelled = replace(bench.judged(request(bench.job)), bits=7)
        off = RefusedCall(call_key=f"off-{job}", job=bench.job, thread="t", call_id="off",
                          tool="crop", reason="off", body={"reason": "off"})  # fmt: skip
        ledger.record_decisions([spelled], refused=[off])
        ledger.mark_asset(source.sha256, column="held", value=True, by="kim")
    ledger.end_job(bench.job, reason="done")
    return bench


@dataclass
class Log:
    """A ledger file with a life behind it, and a shell at hand."""

    path: Path

    @property
    def checkpoints(self) -> Checkpoints:
        return checkpoints_beside(self.path)

    def forge(self, *statements: str) -> None:
        """Run SQL as somebody who takes the triggers away, and puts them back."""
        with raw(self.path) as connection:
            triggers = connection.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
            ).fetchall()
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("BEGIN")
            for name, _ in triggers:
                connection.execute(f"DROP TRIGGER {name}")
            for statement in statements:
                connection.execute(statement)
            for _, sql in triggers:
                connection.execute(sql)
            connection.execute("COMMIT")

    def query(self, sql: str) -> list[Any]:
        with raw(self.path) as connection:
            return list(connection.execute(sql).fetchall())

    def verify(self) -> audit.Report:
        with ledger_at(self.path) as ledger:
            return verify(ledger.storage, self.checkpoints)

    def is_found(self, match: str) -> None:
        """Verification names it, whether the ledger still opens or not."""
        with pytest.raises((VerificationFailed, LedgerCorrupt), match=match):
            self.verify()

    def lines(self) -> list[bytes]:
        return self.checkpoints.path.read_bytes().splitlines(keepends=True)


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    with ledger_at(folder / "ledger.db") as ledger:
        live_through(ledger)
    return folder


@pytest.fixture
def log(master: Path, tmp_path: Path) -> Log:
    shutil.copytree(master, tmp_path, dirs_exist_ok=True)
    return Log(tmp_path / "ledger.db")


# --- what was never touched -------------------------------------------------------------------


def test_S35_an_untouched_log_verifies_and_says_what_it_saw(log: Log) -> None:
    report = log.verify()
    (records,) = log.query("SELECT count(*) FROM records")[0]
    assert report.records == records
    assert report.rows == sum(log.query(f"SELECT count(*) FROM {table}")[0][0] for table in KEYS)
    assert report.checkpoints == len(log.lines())
    for table in KEYS:
        assert log.query(f"SELECT count(*) FROM {table}")[0][0] >= 2, table


def test_an_empty_log_verifies(tmp_path: Path) -> None:
    with ledger_at(tmp_path / "ledger.db") as ledger:
        report = verify(ledger.storage, checkpoints_beside(tmp_path / "ledger.db"))
    assert (report.records, report.rows, report.root) == (0, 0, merkle.EMPTY_ROOT)


def test_a_log_verifies_while_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with ledger_at(path) as ledger:
        for _ in range(3):
            futures = [
                ledger.storage.submit(lambda tx: tx.record("x", {}), durable=True)
                for _ in range(50)
            ]
            verify(ledger.storage, checkpoints_beside(path))
            for future in futures:
                future.result(20)


# --- rows: every table, every column ----------------------------------------------------------


def columns(table: str) -> list[str]:
    with sqlite3.connect(":memory:") as fresh:
        for file in sorted(
            (ROOT / "agentguard" / "ledger" / "storage" / "sql" / "sqlite").glob("*.sql")
        ):
            fresh.executescript(file.read_text())
        return [row[1] for row in fresh.execute(f"PRAGMA table_info({table})")]


@pytest.mark.parametrize(
    ("table", "column"), [(table, column) for table in KEYS for column in columns(table)]
)
def test_I10_S35_an_edited_cell_is_found_in_every_column_of_every_table(
    log: Log, table: str, column: str
) -> None:
    first = f"(SELECT min({KEYS[table][0]}) FROM {table})"
    log.forge(
        f"UPDATE OR REPLACE {table} SET {column} = coalesce({column}, '') || '7'"
        f" WHERE {KEYS[table][0]} = {first}"
    )
    log.is_found(f"^{table} .*(was edited|added by hand|was deleted)")


@pytest.mark.parametrize("table", KEYS)
def test_I10_S35_a_deleted_row_is_found_in_every_table(log: Log, table: str) -> None:
    log.forge(f"DELETE FROM {table} WHERE {KEYS[table][0]} ="
              f" (SELECT max({KEYS[table][0]}) FROM {table})")  # fmt: skip
    log.is_found(f"^{table} .* of record [0-9]+ is missing: it was deleted")


@pytest.mark.parametrize("table", KEYS)
def test_I10_S35_a_row_added_by_hand_is_found_in_every_table(log: Log, table: str) -> None:
    names = columns(table)
    unique = {*KEYS[table], "request", "call_key", "id"}
    changed = [f"{name} || '-2'" if name in unique else name for name in names]
    log.forge(f"INSERT INTO {table} SELECT {', '.join(changed)} FROM {table} LIMIT 1")
    log.is_found(f"^{table} .* is in no record: it was added by hand")


def test_I10_a_blob_or_broken_text_in_a_real_table_is_found(log: Log) -> None:
    for value in ("x'00ff'", "CAST(x'ff' AS TEXT)"):
        log.forge(f"UPDATE answers SET signature = {value}")
        log.is_found("answers holds what was never written there")


def test_I10_a_swapped_state_is_found(log: Log) -> None:
    log.forge("UPDATE grants SET state = 'issued', claims = 0 WHERE state = 'executed'")
    log.is_found("^grants .* was edited")


def test_I10_a_trigger_dropped_under_a_running_process_is_found(log: Log) -> None:
    with ledger_at(log.path) as ledger:
        with raw(log.path) as connection:
            connection.execute("DROP TRIGGER grants_transition")
        with pytest.raises(VerificationFailed, match="trigger grants_transition is missing"):
            verify(ledger.storage, log.checkpoints)


# --- records and the tree ---------------------------------------------------------------------


def rebuilt(log: Log) -> list[str]:
    """SQL that makes the tree fit the records again, as a careful forger would."""
    bodies = [body for (body,) in log.query("SELECT body FROM records ORDER BY idx")]
    nodes = MemoryNodes()
    merkle.append(nodes, 0, [merkle.leaf_hash(body.encode()) for body in bodies])
    rows = [f"({level}, {index}, x'{digest.hex()}')"
            for (level, index), digest in nodes._digests.items()]  # fmt: skip
    return ["DELETE FROM nodes", f"INSERT INTO nodes VALUES {', '.join(rows)}"]


LAST = "(SELECT max(idx) FROM records)"


@pytest.mark.parametrize("index", ["0", "1", "7", LAST])
def test_S35_an_edited_record_is_named(log: Log, index: str) -> None:
    log.forge(
        f"UPDATE records SET body = replace(body, '\"kind\"', '\"Kind\"') WHERE idx = {index}"
    )
    number = log.query(f"SELECT {index}")[0][0]
    log.is_found(f"^record {number} was changed after it was written")


@pytest.mark.parametrize("index", [0, 1, 8])
def test_S35_a_deleted_record_is_named(log: Log, index: int) -> None:
    log.forge(f"DELETE FROM records WHERE idx = {index}")
    log.is_found(f"^record {index} is missing")


def test_S35_reordered_records_are_named(log: Log) -> None:
    log.forge("UPDATE records SET idx = -1 WHERE idx = 3",
              "UPDATE records SET idx = 3 WHERE idx = 4",
              "UPDATE records SET idx = 4 WHERE idx = -1")  # fmt: skip
    log.is_found("^record 3 was changed")


@pytest.mark.parametrize("how", ["edited", "reordered", "deleted in the middle"])
def test_S35_a_forger_who_rebuilds_the_tree_is_stopped_by_the_checkpoints(
    log: Log, how: str
) -> None:
    log.forge({
        "edited": "UPDATE records SET body = replace(body, 'kim', 'eve') WHERE idx = 0",
        "reordered": "UPDATE records SET idx = CASE idx WHEN 3 THEN 40003 ELSE 40004 END"
                     " WHERE idx IN (3, 4)",
        "deleted in the middle": "DELETE FROM records WHERE idx = 5",
    }[how])  # fmt: skip
    if how == "reordered":
        log.forge("UPDATE records SET idx = 3 WHERE idx = 40004",
                  "UPDATE records SET idx = 4 WHERE idx = 40003")  # fmt: skip
    elif how != "edited":
        log.forge("UPDATE records SET idx = idx - 1 WHERE idx > 5 ")
    log.forge(*rebuilt(log))
    log.is_found("not those that were signed|holds .* records, .* proves")


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_S35_a_truncated_log_is_found(log: Log, cut: int) -> None:
    log.forge(f"DELETE FROM records WHERE idx > {LAST} - {cut}")
    log.is_found("an old copy was restored|are not those|tree has node|lacks node|nodes added")
    log.forge(*rebuilt(log))
    log.is_found("holds .* records, .*proves .*: an old copy was restored")


def test_S35_a_truncated_tail_that_no_checkpoint_covers_yet_is_found_by_its_rows(
    log: Log,
) -> None:
    with ledger_at(log.path) as ledger:
        give(ledger, "ef" * 32, job="job-1", by="kim", name="a.png")
    log.verify()
    log.forge(f"DELETE FROM records WHERE idx = {LAST}")
    log.is_found("has node .* which its .* records do not make: records were cut off")
    log.forge(*rebuilt(log))
    log.is_found("^asset_jobs .* is in no record")


def test_S35_a_log_cut_to_nothing_is_found(log: Log) -> None:
    log.forge("DELETE FROM records", "DELETE FROM nodes",
              *(f"DELETE FROM {table}" for table in KEYS))  # fmt: skip
    log.is_found("holds 0 records, .* proves [0-9]+: an old copy was restored")


def test_I10_every_stored_node_is_compared(log: Log) -> None:
    """Roots and proofs are made of interior nodes, so a wrong one matters as much as a leaf."""
    places = log.query("SELECT level, idx FROM nodes ORDER BY level, idx")
    assert max(level for level, _ in places) >= 4
    for level, index in places[:: max(1, len(places) // 12)] + places[-2:]:
        was = log.query(f"SELECT hash FROM nodes WHERE level = {level} AND idx = {index}")[0][0]
        log.forge(f"UPDATE nodes SET hash = zeroblob(32) WHERE level = {level} AND idx = {index}")
        log.is_found("was changed|are not those that were signed")
        log.forge(f"UPDATE nodes SET hash = x'{was.hex()}'"
                  f" WHERE level = {level} AND idx = {index}")  # fmt: skip
    log.verify()


@pytest.mark.parametrize(
    "change",
    ["DELETE FROM nodes WHERE level = 2 AND idx = 0",
     "UPDATE nodes SET hash = 'text' WHERE level = 2 AND idx = 0",
     "INSERT INTO nodes VALUES (50, 0, zeroblob(32))",
     "INSERT INTO nodes VALUES (-1, 0, zeroblob(32))",
     "INSERT INTO nodes VALUES (0, 99999, zeroblob(32))",
     "INSERT INTO nodes VALUES (0, 0.5, zeroblob(32))"],
)  # fmt: skip
def test_I10_a_missing_odd_or_added_node_is_found(log: Log, change: str) -> None:
    log.forge(change)
    log.is_found("was changed|nodes added by hand|lacks node")


def test_a_tree_that_runs_ahead_of_its_records_stops_the_next_write(log: Log) -> None:
    (size,) = log.query("SELECT count(*) FROM records")[0]
    with ledger_at(log.path) as ledger:
        log.forge(f"INSERT INTO nodes VALUES (0, {size}, zeroblob(32))")
        with pytest.raises(LedgerCorrupt, match="do not fit"):
            ledger.refuse({"reason": "x"})


@pytest.mark.parametrize(
    "body",
    ["not json", "[]", "{}", '{"rows": 5}', '{"rows": [[1, 2, 3]]}', '{"rows": [[["a"], 2, 3]]}',
     "[" * 5000, '{"rows": ["ab"]}'],
)  # fmt: skip
def test_a_record_that_is_none_is_named_and_not_a_crash(log: Log, body: str) -> None:
    with ledger_at(log.path) as ledger:
        ledger.refuse({"reason": "the last one is under no checkpoint"})
    log.forge(f"UPDATE records SET body = '{body}' WHERE idx = {LAST}")
    log.forge(*rebuilt(log))
    (last,) = log.query(f"SELECT {LAST}")[0]
    log.is_found(f"record {last} is not a record")


# --- checkpoints ------------------------------------------------------------------------------


def test_I10_a_restored_old_copy_is_refused_on_opening(log: Log, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copy(log.path, old)
    with ledger_at(log.path) as ledger:
        Bench(ledger)
    for file in log.path.parent.glob("ledger.db*"):
        if not file.name.endswith(".checkpoints"):
            file.unlink()
    shutil.copy(old, log.path)
    with pytest.raises(LedgerCorrupt, match="an old copy was restored"), ledger_at(log.path):
        pass


def test_I10_a_copy_that_grew_on_its_own_is_refused(log: Log, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copy(log.path, old)
    with ledger_at(log.path) as ledger:
        Bench(ledger)
    ours = log.lines()
    for file in log.path.parent.glob("ledger.db*"):
        file.unlink()
    shutil.copy(old, log.path)
    log.checkpoints.path.write_bytes(b"".join(ours[:-3]))
    with ledger_at(log.path) as ledger:
        for _ in range(4):
            Bench(ledger)
    log.checkpoints.path.write_bytes(b"".join(ours))
    with pytest.raises(LedgerCorrupt, match="are not those that were signed"), ledger_at(log.path):
        pass
    both = sorted({*ours, *log.lines()})
    log.checkpoints.path.write_bytes(b"".join(both))


def test_I10_two_checkpoints_of_one_size_that_differ_are_a_fork(log: Log) -> None:
    with ledger_at(log.path) as ledger:
        size = ledger.storage.tree_size()
        lines = log.lines()
        log.checkpoints.sign(size - 1, b"\1" * 32)
        log.checkpoints.sign(size - 1, b"\2" * 32)
        with pytest.raises(VerificationFailed, match="the log was forked"):
            verify(ledger.storage, log.checkpoints)
        log.checkpoints.path.write_bytes(b"".join(lines))
        verify(ledger.storage, log.checkpoints)


@pytest.mark.parametrize("which", [0, 3, -1])
def test_I10_an_edited_checkpoint_line_is_named(log: Log, which: int) -> None:
    lines = log.lines()
    signed = json.loads(lines[which])
    origin, size, *rest = signed.split("\n")
    lines[which] = json.dumps("\n".join([origin, str(int(size) + 1), *rest])).encode() + b"\n"
    log.checkpoints.path.write_bytes(b"".join(lines))
    log.is_found("the signature of .* is not one of this text; the file was changed")


@pytest.mark.parametrize(
    "line",
    [b"garbage\n", b"{}\n", b"17\n", b"\xff\xfe\n", b'"\xff"\n', b'""\n', b'"a" "b"\n'],
)
def test_I10_a_line_that_is_no_checkpoint_is_named_and_not_a_crash(log: Log, line: bytes) -> None:
    lines = log.lines()
    log.checkpoints.path.write_bytes(b"".join([*lines, line]))
    log.is_found("line .*the file was changed")


def test_I10_a_checkpoint_of_another_key_or_log_is_refused(log: Log) -> None:
    kept = b"".join(log.lines())
    size, root = 5, b"\0" * 32
    other_key = "log key is not the one that signed the ledger"
    for origin, key, says in (
        ("t/log", Ed25519PrivateKey.generate(), other_key),
        ("t/other", KEY, "got 0 signatures of t/log"),
    ):
        log.checkpoints.path.write_bytes(kept)
        forger = Checkpoints(path=log.checkpoints.path, origin=origin, key=key)
        forger.sign(size, root)
        log.is_found(says)
    log.checkpoints.path.write_bytes(kept)
    foreign = note.sign(note.Checkpoint(origin="t/other", size=size, root=root), "t/log", KEY)
    log.checkpoints.path.write_bytes(kept + json.dumps(foreign).encode() + b"\n")
    log.is_found("got a checkpoint of 't/other'")


def test_I10_a_removed_checkpoint_file_is_noticed(log: Log) -> None:
    with ledger_at(log.path) as ledger:
        log.checkpoints.path.unlink()
        with pytest.raises(VerificationFailed, match="it was removed"):
            verify(ledger.storage, log.checkpoints)
    with pytest.raises(LedgerCorrupt, match="holds no checkpoint of this ledger"):
        log.verify()
    log.checkpoints.path.write_bytes(b"")
    with pytest.raises(LedgerCorrupt, match="holds no checkpoint of this ledger"):
        log.verify()


def test_I11_a_checkpoint_file_that_can_not_be_read_denies(log: Log, tmp_path: Path) -> None:
    log.checkpoints.path.unlink()
    log.checkpoints.path.mkdir()
    with pytest.raises(LedgerUnavailable, match="checkpoints"):
        log.verify()
    (tmp_path / "new.db.checkpoints").mkdir()
    with pytest.raises(LedgerUnavailable, match="checkpoints"), ledger_at(tmp_path / "new.db"):
        pass


@pytest.mark.parametrize("keep", [1, 40, 120])
def test_a_line_that_a_crash_cut_short_locks_nobody_out(log: Log, keep: int) -> None:
    lines = log.lines()
    log.checkpoints.path.write_bytes(b"".join(lines[:-1]) + lines[-1][:keep])
    assert log.verify().checkpoints == len(lines) - 1
    with ledger_at(log.path) as ledger:
        Bench(ledger)  # the next one begins on a line of its own
    assert log.verify().checkpoints == len(lines)
    with ledger_at(log.path):
        pass


def test_checkpoints_out_of_order_still_name_the_newest(log: Log) -> None:
    lines = log.lines()
    log.checkpoints.path.write_bytes(b"".join([*lines[:-3], lines[-1], lines[-3], lines[-2]]))
    assert log.checkpoints.newest() == max(log.checkpoints.read(), key=lambda c: c[0].size)
    log.verify()


def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The signed notes that are verified from here on."""
    seen: list[str] = []
    known = note.verify

    def verify(text: str, *more: Any) -> Any:
        seen.append(text)
        return known(text, *more)

    monkeypatch.setattr(note, "verify", verify)
    return seen


def test_opening_reads_only_the_end_of_a_long_checkpoint_file(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = log.lines()
    log.checkpoints.path.write_bytes(b"".join(lines[:1] * 2000 + lines))
    read = noted(monkeypatch)
    with ledger_at(log.path) as ledger:
        verify_tail(ledger.storage, log.checkpoints)
    assert 0 < len(read) < 1000


def test_a_new_ledger_begins_with_a_checkpoint_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    for _ in range(3):
        with ledger_at(path):
            pass
    (found,) = checkpoints_beside(path).read()
    assert (found[0].size, found[0].root) == (0, merkle.EMPTY_ROOT)


# --- proofs -----------------------------------------------------------------------------------


OFFLINE = """
import json, sys
from agentguard.ledger.verify import verify_proof
record = verify_proof(json.load(open(sys.argv[1])), sys.argv[2])
print(record["kind"])
"""


def test_S39_a_proof_verifies_on_a_machine_without_the_ledger(log: Log, tmp_path: Path) -> None:
    with ledger_at(log.path) as ledger:
        proof = prove(ledger.storage, log.checkpoints, 3)
    away = tmp_path / "away"
    away.mkdir()
    (away / "proof.json").write_text(json.dumps(proof))
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, "proof.json", log.checkpoints.verifier_key],
        cwd=away, env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == json.loads(proof["record"])["kind"]


def test_S39_every_record_is_provable_also_the_newest(log: Log) -> None:
    with ledger_at(log.path) as ledger:
        ledger.refuse({"reason": "not under a checkpoint yet"})
        size = ledger.storage.tree_size()
        before = len(log.lines())
        newest = prove(ledger.storage, log.checkpoints, size - 1)
        assert verify_proof(newest, log.checkpoints.verifier_key)["kind"] == "refused"
        assert len(log.lines()) == before + 1
        for index in range(size):
            proof = prove(ledger.storage, log.checkpoints, index)
            verify_proof(proof, log.checkpoints.verifier_key)
        assert len(log.lines()) == before + 1  # proofs lead to a checkpoint that is kept
        assert ledger.storage.tree_size() == size + 1
        for index in (-1, size + 1, 10**12):
            with pytest.raises(VerificationFailed, match="no record"):
                prove(ledger.storage, log.checkpoints, index)
    log.verify()


def tampered(proof: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    record = json.loads(proof["record"])
    yield "record", {**proof, "record": json.dumps({**record, "kind": "granted"})}
    yield "index", {**proof, "index": proof["index"] + 1}
    yield "negative index", {**proof, "index": -1}
    yield "index of another type", {**proof, "index": "3"}
    yield "true for one", {**proof, "index": True}
    yield "shorter path", {**proof, "proof": proof["proof"][:-1]}
    yield "longer path", {**proof, "proof": [*proof["proof"], "00" * 32]}
    yield "changed path", {**proof, "proof": ["00" * 32, *proof["proof"][1:]]}
    yield "path that is none", {**proof, "proof": "00"}
    yield "no hex", {**proof, "proof": ["zz"]}
    yield "number for hex", {**proof, "proof": [1]}
    yield "checkpoint", {**proof, "checkpoint": proof["checkpoint"].replace("\n", "\n1", 1)}
    yield "no checkpoint", {k: v for k, v in proof.items() if k != "checkpoint"}
    yield "no record", {**proof, "record": None}
    yield "nested too deep", {**proof, "record": "[" * 100_000}
    yield "nothing", {}
    other = Ed25519PrivateKey.generate()
    forged = note.Checkpoint(origin="t/log", size=1, root=merkle.leaf_hash(b'{"kind":"granted"}'))
    yield "a log of their own", {
        "index": 0, "record": '{"kind":"granted"}', "proof": [],
        "checkpoint": note.sign(forged, "t/log", other),
        "verifier_key": note.encode_verifier_key("t/log", other.public_key()),
    }  # fmt: skip


def test_S39_a_tampered_proof_is_refused(log: Log) -> None:
    with ledger_at(log.path) as ledger:
        proof = prove(ledger.storage, log.checkpoints, 3)
    for name, bad in tampered(proof):
        try:
            found = verify_proof(bad, log.checkpoints.verifier_key)
        except VerificationFailed:
            continue
        pytest.fail(f"{name}: {found}")
    others: tuple[Any, ...] = (None, [], 5, "x")
    for not_a_proof in others:
        with pytest.raises(VerificationFailed):
            verify_proof(not_a_proof, log.checkpoints.verifier_key)
    with pytest.raises(VerificationFailed):
        verify_proof(proof, "not a key")


def test_S39_a_checkpoint_of_another_log_of_the_same_key_proves_nothing(log: Log) -> None:
    body = '{"kind":"granted"}'
    forged = note.Checkpoint(origin="t/other", size=1, root=merkle.leaf_hash(body.encode()))
    proof = {"index": 0, "record": body, "proof": [],
             "checkpoint": note.sign(forged, "t/log", KEY)}  # fmt: skip
    with pytest.raises(VerificationFailed, match="one of 't/other'"):
        verify_proof(proof, log.checkpoints.verifier_key)


@pytest.mark.parametrize("change", ["UPDATE nodes SET hash = zeroblob(32) WHERE level = 1",
                                    "UPDATE records SET body = '{}' WHERE idx = 3",
                                    "DELETE FROM nodes WHERE level = 1"])  # fmt: skip
def test_no_proof_is_handed_out_that_would_fail_elsewhere(log: Log, change: str) -> None:
    with ledger_at(log.path) as ledger:
        log.forge(change)
        with pytest.raises(VerificationFailed):
            prove(ledger.storage, log.checkpoints, 3)


def test_a_proof_that_needs_a_new_checkpoint_says_when_it_can_not_be_kept(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Checkpoints, size: int, root: bytes) -> str:
        raise OSError(28, "No space left on device")

    with ledger_at(log.path) as ledger:
        ledger.refuse({"reason": "x"})
        monkeypatch.setattr(Checkpoints, "sign", full)
        with pytest.raises(LedgerUnavailable, match="can't be written"):
            prove(ledger.storage, log.checkpoints, ledger.storage.tree_size() - 1)


@pytest.mark.parametrize("recent", [1, 3, 20_000])
def test_what_a_log_says_of_rows_may_wait_in_a_file(
    log: Log, monkeypatch: pytest.MonkeyPatch, recent: int
) -> None:
    """A long log does not fit into memory: the last record of a row counts all the same."""
    monkeypatch.setattr(_logged, "_RECENT", recent)

    def compared(*rows: tuple[str, int]) -> int:
        with _logged.Logged() as logged:
            for index in range(10):
                logged.row(f"grants {index % 4}", f"digest {index}", index)
            met = [(f"grants {name}", f"digest {digest}") for name, digest in rows]
            assert (logged.meet(met[:1]), logged.meet(met[1:])) == (1, len(met))
            return logged.compare()

    assert compared(("3", 7), ("0", 8), ("2", 6), ("1", 9)) == 4
    every = {"0": 8, "1": 9, "2": 6, "3": 7}
    for name, last in every.items():
        left = {one: digest for one, digest in every.items() if one != name}
        missing = rf"^grants {name} of record {last} is missing: it was deleted$"
        with pytest.raises(VerificationFailed, match=missing):
            compared(*left.items())
        edited = rf"^grants {name} is not what record {last} says: it was edited$"
        for digest in {last - 4, 5} - {last}:
            for rows in ((*left.items(), (name, digest)), ((name, digest), *left.items())):
                with pytest.raises(VerificationFailed, match=edited):
                    compared(*rows)
            with pytest.raises(VerificationFailed, match=edited):
                compared(*every.items(), (name, digest))  # two rows of one name
    for name in ("", "00", "1x", "7"):  # before, between and behind those that were said
        added = rf"^grants {name} is in no record: it was added by hand$"
        with pytest.raises(VerificationFailed, match=added):
            compared(*every.items(), (name, 7))
    for edits, first in ((("3", "0"), "3 is not what record 7"), (("1", "0"), "0 is .* record 8")):
        with pytest.raises(VerificationFailed, match=first):  # as the log tells them, not the file
            compared(*(every | dict.fromkeys(edits, 1)).items())
    for gone, first in ((("3", "0"), "3 of record 7"), (("1", "0"), "0 of record 8")):
        with pytest.raises(VerificationFailed, match=first):
            compared(*(row for row in every.items() if row[0] not in gone))
    assert log.verify().rows > 3


def test_no_room_for_verifying_is_said(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_logged, "_TABLES", _logged._TABLES + "PRAGMA max_page_count = 1;")
    with pytest.raises(LedgerUnavailable, match="room for a temporary file"):
        log.verify()


def test_I10_what_a_record_says_that_is_not_in_the_log_yet_counts(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    (size,) = log.query("SELECT count(*) FROM records")[0]
    (job,) = log.query("SELECT min(id) FROM jobs")[0]
    for key, says in (("no-such-job", f"of record {size} is missing: it was deleted"),
                      (job, f"is not what record {size} says: it was edited")):  # fmt: skip
        body = json.dumps({"rows": [["jobs", [key], "00"]]}).encode()
        with ledger_at(log.path) as ledger:
            monkeypatch.setattr(ledger.storage, "pending", lambda reader, body=body: [body])
            with pytest.raises(VerificationFailed, match=says):
                verify(ledger.storage, log.checkpoints)


# --- what it costs, and what it tells meanwhile -------------------------------------------------


def test_a_proof_verifies_one_signature_and_reads_its_hashes_together(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = noted(monkeypatch)
    with ledger_at(log.path) as ledger:
        verified.clear()
        asked: list[str] = []
        with ledger.storage.read() as reader:  # the one that the next reader gets
            reader.set_trace_callback(asked.append)  # type: ignore[attr-defined]
        proof = prove(ledger.storage, log.checkpoints, 3)
    assert verified == [proof["checkpoint"]]
    assert len(proof["proof"]) > 3
    assert len([sql for sql in asked if "nodes" in sql]) == 1
    assert len([sql for sql in asked if "SELECT" in sql]) == 2


def test_a_record_that_was_cut_off_while_the_ledger_is_open_is_not_proved(log: Log) -> None:
    with ledger_at(log.path) as ledger:
        size = ledger.storage.tree_size()
        log.forge("DELETE FROM records WHERE idx >= 5")
        for index in (5, size - 1):
            with pytest.raises(
                VerificationFailed, match=f"no record {index}; the log holds 0 to 4"
            ):
                prove(ledger.storage, log.checkpoints, index)


def test_verifying_tells_how_far_it_is(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_verification, "_AT_ONCE", 10)
    monkeypatch.setattr(audit, "_AT_ONCE", 10)
    told: list[tuple[str, int]] = []
    with ledger_at(log.path) as ledger:
        report = verify(ledger.storage, log.checkpoints, progress=lambda *one: told.append(one))
    counts = {what: [count for name, count in told if name == what] for what, _ in told}
    assert list(counts) == ["checkpoints", "records", "rows"]
    assert counts["checkpoints"] == list(range(10, report.checkpoints + 1, 10))
    assert counts["records"] == [*range(10, report.records, 10), report.records]
    assert counts["rows"] == sorted(counts["rows"])
    assert counts["rows"][-1] == report.rows


def test_I8_a_grant_that_an_index_no_longer_finds_is_noticed(tmp_path: Path) -> None:
    """The row is there, as its record says; the product, which looks by index, would grant anew."""
    place = place_at(tmp_path / "ledger.db")
    with ledger_at(place, Clock()) as ledger:
        bench = Bench(ledger)
        one = bench.permit()
        assert bench.claim(one) is None
    path = tmp_path / "ledger.db"
    for plain in (True, False):  # written while the schema says that there is no such index
        raw_file = sqlite3.connect(path, isolation_level=None)
        raw_file.execute("PRAGMA writable_schema = ON")
        if plain:
            (sql,) = raw_file.execute(
                "SELECT sql FROM sqlite_master WHERE name = 'grants'"
            ).fetchone()
            saved = raw_file.execute(
                "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master"
                " WHERE tbl_name = 'grants'"
            ).fetchall()
            (row,) = raw_file.execute("SELECT * FROM grants").fetchall()
            for (trigger,) in raw_file.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'grants'"
            ).fetchall():
                raw_file.execute(f"DROP TRIGGER {trigger}")
            raw_file.execute("DELETE FROM grants")
            raw_file.execute("DELETE FROM sqlite_master WHERE name = 'sqlite_autoindex_grants_2'")
            raw_file.execute(
                "UPDATE sqlite_master SET sql = ? WHERE name = 'grants'",
                (sql.replace("request TEXT NOT NULL UNIQUE", "request TEXT NOT NULL"),),
            )
        else:
            marks = ", ".join("?" * len(row))
            raw_file.execute(f"INSERT INTO grants VALUES ({marks})", row)
            raw_file.execute("DELETE FROM sqlite_master WHERE tbl_name = 'grants'")
            for entry in saved:
                raw_file.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", entry)
        (version,) = raw_file.execute("PRAGMA schema_version").fetchone()
        raw_file.execute(f"PRAGMA schema_version = {version + 1}")
        raw_file.close()
    with ledger_at(place, Clock()) as ledger:
        assert ledger.one("SELECT 1 FROM grants WHERE request = ?", one.digest) is None
        with pytest.raises(VerificationFailed, match=r"table grants is damaged .* missing from"):
            audit.verify(ledger.storage, place.checkpoints)
