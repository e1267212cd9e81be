"""_postgres_tx.py: what a group of transitions needs goes together, and each is still on its own.

Two ledgers of one test stand for two processes.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psycopg
import pytest

from agentguard.errors import IllegalTransition, LedgerUnavailable
from agentguard.ledger import verify as audit
from agentguard.ledger.ledger import Ledger
from agentguard.ledger.rows.decode import text
from agentguard.ledger.storage.open import Plan, Tx
from agentguard.ledger.storage.postgres import pipeline as _postgres_wire
from agentguard.ledger.storage.postgres.pipeline import Wire
from agentguard.ledger.storage.query import Query
from agentguard.model import GrantState
from tests.support.databases import drop_ledger, postgres_url, shell
from tests.support.ledgers import Bench, Place, job_held, kinds, ledger_at, made
from tests.unit.ledger.storage.test_storage import Stopper, names, noted

_numbers = itertools.count()
OTHER = "SELECT label FROM revealed WHERE job = ?"


@pytest.fixture
def place(postgres_place: Place) -> Place:
    return postgres_place


@pytest.fixture
def flights(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many statements went together, each time somebody waited for them."""
    found: list[int] = []
    flush = Wire._flush

    def counted(self: Wire) -> None:
        if threading.current_thread().name == "agentguard-ledger":
            found.append(1)
        flush(self)

    monkeypatch.setattr(Wire, "_flush", counted)
    return found


def labels_of(job: str) -> Query[str]:
    return Query(OTHER, (job,), text)


def plan(*jobs: str, reads: tuple[Query[Any], ...] = ()) -> Plan:
    return Plan(jobs=frozenset(jobs), reads=reads)


def seen(job: str) -> tuple[Callable[[Tx], list[str]], Plan]:
    """Reads what is there of a job, under its lock, and adds one more."""

    def transition(tx: Tx) -> list[str]:
        tx.lock_job(job)
        labels = sorted(str(row["label"]).split("-")[0] for row in tx.all(OTHER, job))
        # Of its own, so that nothing but what it returns tells that it read too early.
        tx.insert("revealed", job=job, label=f"l{len(labels)}-{next(_numbers)}")
        tx.record("noted", {"name": job})
        return labels

    return transition, plan(job, reads=(labels_of(job),))


def together(ledger: Ledger, *work: tuple[Callable[[Tx], Any], Plan | None]) -> list[Future[Any]]:
    """Queue transitions so that one group holds them all."""
    stop = Stopper(ledger)
    futures = [ledger.storage.submit(one, plan=its) for one, its in work]
    stop.release()
    return futures


# --- a round trip is what somebody waits for ----------------------------------------------------


def test_a_call_waits_three_times_a_transition(ledger: Ledger, flights: list[int]) -> None:
    bench = Bench(ledger)
    for _ in range(3):  # statements are prepared on their second use
        one = bench.permit()
        assert bench.claim(one) is None
        assert bench.finish(one)
    flights.clear()
    one = bench.permit()
    assert len(flights) == 3  # locks and reads; writes; records and COMMIT
    assert bench.claim(one) is None
    assert bench.finish(one)
    assert len(flights) == 9


def test_a_group_waits_as_often_as_one(ledger: Ledger, flights: list[int]) -> None:
    stop = Stopper(ledger)
    futures = []
    for number in range(20):
        transition, its = seen(f"job-{number}")
        futures.append(ledger.storage.submit(transition, plan=its))
    flights.clear()
    stop.release()
    assert [one.result(20) for one in futures] == [[]] * 20
    assert len(flights) <= 2 + 3  # what is left of the one that held them up, and the group


def test_claims_of_one_job_in_one_group_wait_as_often_as_one(
    ledger: Ledger, flights: list[int]
) -> None:
    bench = Bench(ledger)
    asked = [bench.permit() for _ in range(8)]
    told: list[str | None] = []
    for one in asked[:2]:  # statements are prepared on their second use
        assert bench.claim(one) is None
    stop = Stopper(ledger)
    threads = [
        threading.Thread(target=lambda one=one: told.append(bench.claim(one))) for one in asked
    ]
    for thread in threads:
        thread.start()
    while ledger.storage._queue.qsize() < len(asked):
        time.sleep(0.01)
    flights.clear()
    stop.release()
    for thread in threads:
        thread.join(20)
    assert sorted(map(str, told)) == ["None"] * 6 + ["its grant is claimed"] * 2
    assert len(flights) <= 2 + 3


# --- each on its own ------------------------------------------------------------------------------


def test_what_was_read_together_is_read_again_where_one_before_it_wrote(ledger: Ledger) -> None:
    futures = together(ledger, seen("a"), seen("a"), seen("b"), seen("a"))
    assert [one.result(20) for one in futures] == [[], ["l0"], [], ["l0", "l1"]]


def test_one_without_a_plan_between_them_is_seen_by_those_behind_it(ledger: Ledger) -> None:
    futures = together(ledger, seen("a"), (noted("b"), None), seen("b"))
    assert [one.result(20) for one in futures] == [[], "b", ["x"]]


def test_what_one_wrote_itself_it_reads(ledger: Ledger) -> None:
    def twice(tx: Tx) -> list[str]:
        tx.lock_job("a")
        tx.insert("revealed", job="a", label="own")
        found = [str(row["label"]) for row in tx.all(OTHER, "a")]
        tx.record("noted", {})
        return found

    (one,) = together(ledger, (twice, plan("a", reads=(labels_of("a"),))))
    assert one.result(20) == ["own"]


def test_I10_a_write_that_fails_late_fails_its_own_transition_only(
    ledger: Ledger, place: Place
) -> None:
    """It is sent, and its transition has ended when the answer comes."""
    ledger.storage.submit(noted("taken")).result(20)
    ended: list[str] = []

    def broken(tx: Tx) -> None:
        noted("taken")(tx)
        ended.append("broken")

    futures = together(ledger, seen("a"), (broken, plan("b")), seen("c"))
    assert futures[0].result(20) == futures[2].result(20) == []
    with pytest.raises(IllegalTransition, match="duplicate key"):
        futures[1].result(20)
    assert ended
    assert names(ledger) == {"taken", "a", "c"}
    assert kinds(ledger) == ["noted"] * 3
    audit.verify(ledger.storage, place.checkpoints)


def test_whatever_a_transition_raises_while_its_writes_fail_leaves_nothing(
    ledger: Ledger,
) -> None:
    ledger.storage.submit(noted("taken")).result(20)

    def broken(tx: Tx) -> None:
        noted("taken")(tx)
        raise ZeroDivisionError

    for its in (plan("b"), None):
        with pytest.raises(ZeroDivisionError):
            ledger.storage.submit(broken, plan=its).result(20)
        backend = ledger.storage._writer.backend  # type: ignore[attr-defined]
        transition, read = seen("a")
        ledger.storage.submit(transition, plan=read).result(20)
        assert ledger.storage._writer.backend == backend  # type: ignore[attr-defined]
    assert kinds(ledger) == ["noted"] * 3


def test_I10_what_should_have_moved_one_row_and_did_not_is_undone(ledger: Ledger) -> None:
    def none(tx: Tx) -> None:
        tx.ensure("revealed", job="b", label="y")
        tx.move("grants", "ended_at = ?", "id = ?", tx.now, "nobody")
        tx.record("noted", {})

    futures = together(ledger, seen("a"), (none, plan("b")), seen("c"))
    assert futures[0].result(20) == futures[2].result(20) == []
    with pytest.raises(IllegalTransition, match="grants: 0 rows moved"):
        futures[1].result(20)
    assert names(ledger) == {"a", "c"}


def test_I10_a_write_without_a_record_is_undone_though_its_answer_comes_late(
    ledger: Ledger,
) -> None:
    futures = together(
        ledger, seen("a"), (lambda tx: tx.ensure("revealed", job="b", label="y"), plan("b"))
    )
    assert futures[0].result(20) == []
    with pytest.raises(IllegalTransition, match="without a record: revealed"):
        futures[1].result(20)
    assert names(ledger) == {"a"}


# --- locks ----------------------------------------------------------------------------------------


def test_I8_nothing_that_was_read_without_its_lock_is_given_to_a_transition(
    ledger: Ledger, other: Ledger
) -> None:
    """Another process holds the second one's job, and changes it before it lets go."""
    runs: list[str] = []
    transition, its = seen("b")

    def counted(tx: Tx) -> list[str]:
        runs.append("began")
        found = transition(tx)
        runs.append("ended")
        return found

    with job_held(other, "b", noted("b")):
        first, second, third = together(ledger, seen("a"), (counted, its), seen("c"))
        assert first.result(20) == []  # who must wait holds up nobody before it
        assert not second.done()
    assert second.result(20) == ["x"]
    assert third.result(20) == []
    assert runs == ["began", "began", "ended"]  # the first time it got no further than the lock


def test_I8_the_first_one_reads_after_it_waited(ledger: Ledger, other: Ledger) -> None:
    transition, its = seen("a")
    with job_held(other, "a", noted("a")):
        waiting = ledger.storage.submit(transition, plan=its)
        with pytest.raises(TimeoutError):
            waiting.result(0.3)
    assert waiting.result(20) == ["x"]


def test_a_lock_that_only_the_next_plan_says_and_nobody_gets_is_refused(
    ledger: Ledger, other: Ledger
) -> None:
    """The first of a group never waits in vain: nobody behind it would be told anything."""

    def more(tx: Tx) -> None:
        tx.lock_job("b")

    with job_held(other, "b"):
        first, second = together(ledger, (more, plan("a")), seen("b"))
        with pytest.raises(IllegalTransition, match="a lock that its plan does not say"):
            first.result(5)
    assert second.result(20) == []


def test_I8_two_processes_whose_groups_cross_do_not_wait_for_each_other(
    ledger: Ledger, other: Ledger
) -> None:
    ways = [[seen(name) for name in order] for order in ("abcdef", "fedcba")]
    for _ in range(10):
        futures = [
            one for each, way in zip((ledger, other), ways, strict=True)
            for one in [each.storage.submit(transition, plan=its) for transition, its in way]
        ]  # fmt: skip
        for one in futures:
            one.result(20)
    assert all(len(ledger.all(OTHER, name)) == 20 for name in "abcdef")


# --- connections that break -----------------------------------------------------------------------


def test_a_connection_lost_between_flights_is_tried_once_more_and_nothing_is_there_twice(
    ledger: Ledger, place: Place
) -> None:
    runs: list[int] = []
    transition, its = seen("a")

    def breaking(tx: Tx) -> list[str]:
        found = transition(tx)  # sent, and perhaps not read by anybody yet
        runs.append(1)
        if len(runs) == 1:
            backend = ledger.storage._writer.backend  # type: ignore[attr-defined]
            with shell(place.url) as connection:
                connection.execute("SELECT pg_terminate_backend(%s)", (backend,))
        return found

    futures = together(ledger, (breaking, its), seen("b"))
    assert [one.result(20) for one in futures] == [[], []]
    assert len(runs) == 2
    assert kinds(ledger) == ["noted"] * 2
    audit.verify(ledger.storage, place.checkpoints)


def test_I11_a_writer_interrupted_in_the_middle_of_an_answer_starts_anew(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Wire._take
    left = [KeyboardInterrupt]

    def interrupted(self: Wire, *args: Any) -> Any:
        if threading.current_thread().name == "agentguard-ledger" and left:
            raise left.pop()
        return take(self, *args)

    ledger.storage.submit(noted("before")).result(20)
    monkeypatch.setattr(Wire, "_take", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ledger.storage.submit(noted("lost")).result(20)
    assert not left
    assert ledger.storage.submit(noted("next")).result(20) == "next"
    assert names(ledger) == {"before", "next"}


def test_I11_a_defect_that_breaks_the_connection_is_told_as_what_it_is(ledger: Ledger) -> None:
    """A value that can't be taken in: nobody knows what the connection is in the middle of."""
    ran: list[int] = []

    def broken(tx: Tx) -> None:
        ran.append(1)
        tx.one("SELECT ('[' || repeat('9', 5000) || ']')::json")

    with pytest.raises(ValueError, match="integer string conversion"):
        ledger.storage.submit(broken).result(20)
    assert len(ran) == 1
    futures = together(ledger, seen("a"), (broken, plan("b")), seen("c"))
    assert futures[0].result(20) == futures[2].result(20) == []
    with pytest.raises(ValueError, match="integer string conversion"):
        futures[1].result(20)
    assert names(ledger) == {"a", "c"}


# --- statements -----------------------------------------------------------------------------------


@pytest.fixture
def wire(place: Place) -> Iterator[Wire]:
    with ledger_at(place), shell(place.url) as connection:
        yield Wire(connection)


def test_values_come_back_as_they_went(wire: Wire) -> None:
    for _ in range(4):  # sent plainly, prepared, and from then on by its name
        row = wire.send(
            "SELECT ?::text AS a, ?::bigint AS b, ?::bytea AS c, ?::text AS d, ?::text[] AS e,"
            " ?::bigint[] AS f, '?' AS g",
            ("ö\"\\'{},", -(2**62), b"\0\xff", None, ['a"\\,{}', "", "ö", "NULL"], [1, -2]),
        ).rows()[0]
        assert list(row) == [
            'ö"\\\'{},', -(2**62), b"\0\xff", None, ['a"\\,{}', "", "ö", "NULL"], [1, -2], "?",
        ]  # fmt: skip
        assert row["b"] == row[1]


def test_a_number_fits_a_function_that_takes_a_small_one(wire: Wire) -> None:
    for start, rest in ((2, "bc"), (2, "bc"), (40_000, ""), (2, "bc")):
        assert wire.send("SELECT substr('abc', ?)", (start,)).rows()[0][0] == rest


def test_what_is_sent_after_a_failure_is_not_done_and_the_wire_lives(wire: Wire) -> None:
    for _ in range(3):
        good = wire.send("SELECT 1")
        bad = wire.send("SELECT 1 / ?", (0,))
        after = wire.send("INSERT INTO revealed VALUES (?, ?)", ("a", "b"))
        for one in (bad, after):
            with pytest.raises(psycopg.errors.DivisionByZero):
                one.rows()
        assert good.rows()[0][0] == 1
        assert wire.send("SELECT count(*) FROM revealed").rows()[0][0] == 0


def test_a_statement_that_could_not_be_prepared_is_prepared_later(wire: Wire) -> None:
    for _ in range(2):
        assert wire.send("SELECT ?::text", ("a",)).rows()[0][0] == "a"
        wire.send("SELECT 1 / ?", (0,))
        late = wire.send("SELECT ?::text", ("b",))
        with pytest.raises(psycopg.errors.DivisionByZero):
            late.rows()
    assert wire.send("SELECT ?::text", ("c",)).rows()[0][0] == "c"


def test_more_statements_than_are_remembered_still_run(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_postgres_wire, "_PREPARED", 2)
    for _ in range(3):
        for number in range(5):
            assert wire.send(f"SELECT {number} + ?", (1,)).rows()[0][0] == number + 1


def test_much_at_once_does_not_choke(wire: Wire) -> None:
    """More than the socket's buffers hold, both ways."""
    text = "x" * 10_000
    sent = [wire.send("SELECT ?::text, ?", (text, number)) for number in range(2_000)]
    assert [one.rows()[0][1] for one in sent] == list(range(2_000))


def test_a_commit_that_was_a_rollback_is_an_error(ledger: Ledger) -> None:
    link = ledger.storage._connections.open(writes=True)  # type: ignore[attr-defined]
    try:
        link.execute("BEGIN")
        with pytest.raises(psycopg.errors.DivisionByZero):
            link.execute("SELECT 1 / 0")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            link.commit()
        link.execute("BEGIN")
        link.commit()
    finally:
        ledger.storage._connections.drop(link)  # type: ignore[attr-defined]


# --- the ledger's own transitions -----------------------------------------------------------------


def test_calls_of_many_jobs_in_one_group_come_out_as_one_by_one(
    ledger: Ledger, place: Place
) -> None:
    benches = [Bench(ledger) for _ in range(4)]
    asset = made("ab")
    ledger.register(asset, job=benches[0].job, by="kim", how="imported")
    asked = [bench.permit(assets=(asset.sha256,)) for bench in benches for _ in range(2)]
    owners = [bench for bench in benches for _ in range(2)]

    def all_at_once(work: list[Callable[[], Any]]) -> list[Any]:
        stop = Stopper(ledger)
        found: list[Any] = [None] * len(work)

        def run(number: int) -> None:
            found[number] = work[number]()

        threads = [threading.Thread(target=run, args=(number,)) for number in range(len(work))]
        for thread in threads:
            thread.start()
        stop.release()
        for thread in threads:
            thread.join(20)
        return found

    versions = {asset.sha256: 1}
    claims = [lambda b=b, a=a: b.claim(a, versions=versions)
              for b, a in zip(owners, asked, strict=True)] * 2  # fmt: skip
    told = all_at_once(claims)  # type: ignore[arg-type]
    assert sorted(map(str, told)) == ["None"] * 8 + ["its grant is claimed"] * 8
    ends = [functools.partial(b.finish, a) for b, a in zip(owners, asked, strict=True)]
    assert all_at_once(ends) == [True] * 8  # type: ignore[arg-type]
    assert {b.state(a) for b, a in zip(owners, asked, strict=True)} == {GrantState.EXECUTED}
    ledger.mark_asset(asset.sha256, column="held", value=True, by="kim")
    late = [bench.permit(assets=(asset.sha256,)) for bench in benches]
    told = all_at_once(
        [
            functools.partial(b.claim, a, versions=versions)
            for b, a in zip(benches, late, strict=True)
        ]
    )
    assert set(told) == {"an asset changed since it was judged"}
    audit.verify(ledger.storage, place.checkpoints)


def test_I11_who_waits_too_long_in_a_flight_is_denied(postgres: Any, tmp_path: Path) -> None:
    place = Place(url=postgres_url(postgres, lock_timeout=1), folder=tmp_path)
    with ledger_at(place) as ledger, ledger_at(place) as other:
        transition, its = seen("a")
        with job_held(other, "a"):
            with pytest.raises(LedgerUnavailable, match="lock timeout; nothing was done"):
                ledger.storage.submit(transition, plan=its).result(20)
            assert ledger.storage.submit(noted("next")).result(20) == "next"
        assert ledger.storage.submit(transition, plan=its).result(20) == []
    drop_ledger(place.url)
