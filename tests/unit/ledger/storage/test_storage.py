"""storage.py on both databases: failures alone, records, callers that go, forks, processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from agentguard.errors import IllegalTransition, LedgerUnavailable
from agentguard.ledger import verify as audit
from agentguard.ledger.ledger import Ledger
from agentguard.ledger.storage.open import Plan, Tx
from tests.support.ledgers import (
    Clock,
    Place,
    kinds,
    ledger_at,
    records,
)

ROOT = Path(__file__).parents[4]


def noted(name: str) -> Callable[[Tx], str]:
    """A transition that writes a row and its record."""

    def transition(tx: Tx) -> str:
        tx.insert("revealed", job=name, label="x")
        tx.record("noted", {"name": name})
        return name

    return transition


def names(ledger: Ledger) -> set[str]:
    return {row["job"] for row in ledger.all("SELECT job FROM revealed")}


class Stopper:
    """Holds the writer inside a transition, so that others queue up behind it."""

    def __init__(self, ledger: Ledger) -> None:
        self.inside, self.go = threading.Event(), threading.Event()

        def wait(tx: Tx) -> None:
            self.inside.set()
            assert self.go.wait(20)

        self.future = ledger.storage.submit(wait)
        assert self.inside.wait(20)

    def release(self) -> None:
        self.go.set()
        self.future.result(20)


# --- plans ----------------------------------------------------------------------------------------


UNPLANNED: dict[str, Callable[[Tx], None]] = {
    "another job": lambda tx: tx.lock_job("a", "b"),
    "bytes": lambda tx: tx.lock_bytes("ab"),
    "the asset graph": lambda tx: tx.lock_assets(exclusive=False),
    "the asset graph alone": lambda tx: tx.lock_assets(exclusive=True),
}


@pytest.mark.parametrize("what", UNPLANNED)
def test_a_lock_that_the_plan_does_not_say_is_refused(ledger: Ledger, what: str) -> None:
    take = UNPLANNED[what]
    plan = Plan(jobs=frozenset({"a"}), assets=what == "the asset graph alone")
    with pytest.raises(IllegalTransition, match="a lock that its plan does not say"):
        ledger.storage.submit(take, plan=plan).result(20)
    ledger.storage.submit(take).result(20)  # without a plan it may take any


def test_the_locks_that_the_plan_says_are_taken(ledger: Ledger) -> None:
    def planned(tx: Tx) -> str:
        tx.lock_job("a", None, "b")
        tx.lock_assets(exclusive=False)
        return noted("a")(tx)

    plan = Plan(jobs=frozenset({"a", "b"}), assets=True)
    assert ledger.storage.submit(planned, plan=plan).result(20) == "a"


# --- grouped commits --------------------------------------------------------------------------


def test_I10_a_transition_that_fails_in_a_batch_fails_alone(ledger: Ledger, place: Place) -> None:
    def broken(tx: Tx) -> None:
        noted("broken")(tx)
        raise ZeroDivisionError

    stop = Stopper(ledger)
    good = [ledger.storage.submit(noted(f"a{i}")) for i in range(3)]
    bad = ledger.storage.submit(broken)
    good += [ledger.storage.submit(noted(f"b{i}")) for i in range(3)]
    stop.release()
    assert [f.result(20) for f in good] == ["a0", "a1", "a2", "b0", "b1", "b2"]
    with pytest.raises(ZeroDivisionError):
        bad.result(20)
    assert names(ledger) == {"a0", "a1", "a2", "b0", "b1", "b2"}
    # A rolled-back batch leaves no orphan nodes behind: the retried ones take their places.
    assert audit.verify(ledger.storage, place.checkpoints).records == 6
    (nodes,) = ledger.one("SELECT count(*) FROM nodes")  # type: ignore[misc]
    assert nodes == 2 * 6 - (6).bit_count()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, StopIteration])
def test_whatever_a_transition_raises_leaves_nothing_and_the_writer_lives(
    ledger: Ledger, error: type[BaseException]
) -> None:
    def broken(tx: Tx) -> None:
        noted("broken")(tx)
        raise error

    with pytest.raises(error):
        ledger.storage.submit(broken).result(20)
    assert names(ledger) == set()
    assert ledger.storage.submit(noted("next")).result(20) == "next"


def test_a_broken_clock_denies_and_the_writer_lives(place: Place) -> None:
    clock = Clock()
    with ledger_at(place, lambda: clock() if clock.now else 1 // 0) as ledger:
        clock.now = 0
        with pytest.raises(ZeroDivisionError):
            ledger.storage.submit(noted("x")).result(20)
        clock.now = 1
        ledger.storage.submit(noted("y")).result(20)
        assert names(ledger) == {"y"}


# --- I10: no write without a record -----------------------------------------------------------


def test_I10_a_write_without_a_record_is_refused(ledger: Ledger) -> None:
    def silent(tx: Tx) -> None:
        tx.insert("revealed", job="j", label="x")

    def later(tx: Tx) -> None:
        tx.record("early", {})
        tx.insert("revealed", job="j", label="x")

    def around(tx: Tx) -> None:
        tx.one("INSERT INTO revealed VALUES ('j', 'x')")
        tx.record("around", {})

    def deleted(tx: Tx) -> None:
        noted("j")(tx)
        tx.all("DELETE FROM revealed")

    for transition in (silent, later, around, deleted):
        with pytest.raises(IllegalTransition, match="without a record"):
            ledger.storage.submit(transition).result(20)
    assert names(ledger) == set()
    assert kinds(ledger) == []


def test_I10_a_record_says_its_own_kind_and_time_whatever_the_body_says(ledger: Ledger) -> None:
    ledger.refuse({"kind": "granted", "at": 0, "rows": [], "reason": "no"})
    assert kinds(ledger) == ["refused"]
    (record,) = records(ledger)
    assert record["at"] == ledger.clock()


def test_a_row_that_vanishes_before_its_record_is_refused(ledger: Ledger) -> None:
    def vanishing(tx: Tx) -> None:
        tx.insert("revealed", job="j", label="x")
        tx.one("DELETE FROM revealed RETURNING 1")
        tx.record("vanishing", {})

    with pytest.raises(IllegalTransition, match="by a statement of its own"):
        ledger.storage.submit(vanishing).result(20)


# --- callers that go away ---------------------------------------------------------------------


def test_a_caller_cancelled_while_queued_is_skipped_and_the_writer_lives_on(
    ledger: Ledger,
) -> None:
    stop = Stopper(ledger)
    gone: list[Future[Any]] = [ledger.storage.submit(noted(f"gone{i}")) for i in range(3)]
    kept = ledger.storage.submit(noted("kept"))
    assert all(future.cancel() for future in gone)
    stop.release()
    assert kept.result(20) == "kept"
    assert names(ledger) == {"kept"}
    assert not stop.future.cancel()  # what runs is not taken back


async def test_an_async_caller_cancelled_while_queued_kills_nothing(ledger: Ledger) -> None:
    stop = Stopper(ledger)
    waiting = asyncio.ensure_future(asyncio.wrap_future(ledger.storage.submit(noted("gone"))))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.sleep(0)  # asyncio passes the cancellation on in the loop's next turn
    stop.release()
    assert await asyncio.wrap_future(ledger.storage.submit(noted("kept"))) == "kept"
    assert names(ledger) == {"kept"}


def test_I11_a_full_queue_denies_and_drains(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentguard.ledger.storage.base._QUEUE", 8)
    with ledger_at(place) as ledger:
        stop = Stopper(ledger)
        futures = [ledger.storage.submit(noted(f"n{i}")) for i in range(8)]
        with pytest.raises(LedgerUnavailable, match="waiting; try again"):
            ledger.storage.submit(noted("too many"))
        stop.release()
        assert len({future.result(20) for future in futures}) == 8
        assert ledger.storage.submit(noted("after")).result(20) == "after"
        assert "too many" not in names(ledger)


# --- closing ----------------------------------------------------------------------------------


def test_a_closed_ledger_denies_reads_and_writes(place: Place) -> None:
    with ledger_at(place) as ledger:
        ledger.storage.submit(noted("x")).result(20)
    ledger.storage.close()
    with pytest.raises(LedgerUnavailable, match="closed"):
        ledger.storage.submit(noted("y"))
    with pytest.raises(LedgerUnavailable, match="closed"):
        ledger.one("SELECT 1")


def test_what_was_queued_before_the_end_is_written(place: Place) -> None:
    with ledger_at(place) as ledger:
        stop = Stopper(ledger)
        futures = [ledger.storage.submit(noted(f"n{i}")) for i in range(100)]
        closing = threading.Thread(target=ledger.storage.close)
        closing.start()
        stop.release()
        closing.join(20)
        assert all(future.done() for future in futures)
    with ledger_at(place) as ledger:
        assert len(names(ledger)) == 100


def test_no_caller_hangs_when_it_races_with_closing(place: Place) -> None:
    for _ in range(12):
        with ledger_at(place) as ledger:
            busy = threading.Event()
            stuck: list[Future[Any]] = []

            def submit(ledger: Ledger = ledger, busy: threading.Event = busy,
                       stuck: list[Future[Any]] = stuck) -> None:  # fmt: skip
                try:
                    while True:
                        stuck.append(ledger.storage.submit(lambda tx: None))
                        busy.set()
                except LedgerUnavailable:
                    pass

            threads = [threading.Thread(target=submit) for _ in range(4)]
            for thread in threads:
                thread.start()
            assert busy.wait(20)
            ledger.storage.close()
            for thread in threads:
                thread.join(20)
            assert stuck
            assert all(future.done() for future in stuck)


# --- fork -------------------------------------------------------------------------------------


def in_child(work: Callable[[], None]) -> int:
    """Runs work in a forked child; returns its exit status, 9 for an exception."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            work()
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(9)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_and_its_parent_both_go_on_writing(ledger: Ledger, place: Place) -> None:
    ledger.storage.submit(noted("before")).result(20)
    assert names(ledger) == {"before"}  # a reader is in the pool, too

    def work() -> None:
        assert names(ledger) == {"before"}
        assert ledger.storage.submit(noted("child")).result(10) == "child"
        ledger.storage.close()

    assert in_child(work) == 0
    ledger.storage.submit(noted("parent"), durable=True).result(20)
    assert names(ledger) == {"before", "child", "parent"}
    assert audit.verify(ledger.storage, place.checkpoints).records == 3


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_closed_before_the_fork_stays_closed(ledger: Ledger) -> None:
    ledger.storage.close()

    def work() -> None:
        with pytest.raises(LedgerUnavailable, match="closed"):
            ledger.storage.submit(noted("child"))

    assert in_child(work) == 0


# --- several processes ------------------------------------------------------------------------


def write_many(place: Place, name: str, count: int) -> None:
    with ledger_at(place) as ledger:
        futures = [
            ledger.storage.submit(noted(f"{name}-{i}"), durable=i % 7 == 0) for i in range(count)
        ]
        for future in futures:
            future.result(60)


def test_two_processes_lose_nothing_and_the_log_verifies(place: Place) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_many, args=(place, name, 150)) for name in ("a", "b")]
    for process in processes:
        process.start()  # both create the file, too
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    with ledger_at(place) as ledger:
        assert len(names(ledger)) == 300
        audit.verify_tail(ledger.storage, place.checkpoints)
        report = audit.verify(ledger.storage, place.checkpoints)
    assert report.records == 300
    assert report.checkpoints >= 2


# --- what opening finds -----------------------------------------------------------------------


def test_opening_again_changes_nothing(place: Place) -> None:
    with ledger_at(place) as ledger:
        ledger.storage.submit(noted("x")).result(20)
    with ledger_at(place) as ledger:
        assert names(ledger) == {"x"}
        assert ledger.storage.tree_size() == 1


# --- reading ----------------------------------------------------------------------------------


def test_a_reader_can_not_write_and_holds_no_snapshot_afterwards(ledger: Ledger) -> None:
    with pytest.raises(LedgerUnavailable, match=r"readonly|read-only"):
        ledger.all("INSERT INTO revealed VALUES ('a', 'b')")
    with ledger.storage.read() as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM records").fetchall()
    ledger.storage.submit(noted("x")).result(20)
    assert names(ledger) == {"x"}
