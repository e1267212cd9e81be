"""_postgres.py under attack: lost connections, commits without an answer, races, takeovers, edits.

Two ledgers of one test stand for two processes: each has its own connections and threads.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from agentguard.config.ledger_url import LedgerUrl
from agentguard.errors import (
    ConfigError,
    IllegalTransition,
    LedgerCorrupt,
    LedgerUnavailable,
    VerificationFailed,
)
from agentguard.ledger import verify as audit
from agentguard.ledger.ledger import Ledger
from agentguard.ledger.storage.open import Tx, open_storage
from agentguard.ledger.storage.postgres import sequencer as _postgres_sequencer
from agentguard.ledger.storage.postgres.storage import PostgresStorage
from agentguard.ledger.storage.tree_nodes import Nodes
from agentguard.ledger.transitions import grants as _ledger_grants
from tests.support.databases import drop_ledger, postgres_server, postgres_url, schema_of, shell
from tests.support.ledgers import LEASE, Bench, Clock, Place, job_held, kinds, ledger_at, made
from tests.unit.ledger.storage.test_storage import Stopper, names, noted

ROOT = Path(__file__).parents[4]


@pytest.fixture
def place(postgres_place: Place) -> Place:
    return postgres_place


def backends(place: Place) -> list[int]:
    """The server's processes that serve this ledger."""
    with shell(place.url) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = %s", (schema_of(place.url),)
        ).fetchall()
    return [row[0] for row in rows]


def kill(place: Place, *pids: int) -> None:
    with shell(place.url) as connection:
        for pid in pids:
            connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
            wait_for(lambda pid=pid: pid not in backends(place))  # type: ignore[misc]


def storage_of(ledger: Ledger) -> PostgresStorage:
    assert isinstance(ledger.storage, PostgresStorage)
    return ledger.storage


def wait_for(true: Callable[[], Any], seconds: float = 15) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return found


class Paused:
    """Stops whoever calls a function after its first call returned, until told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        self.inside, self.go = threading.Event(), threading.Event()
        known = getattr(module, name)

        def pausing(*args: Any, **more: Any) -> Any:
            found = known(*args, **more)
            if not self.inside.is_set():
                self.inside.set()
                assert self.go.wait(20)
            return found

        monkeypatch.setattr(module, name, pausing)


def background(work: Callable[[], Any]) -> Future[Any]:
    with contextlib.closing(_Pool()) as pool:
        return pool.submit(work)


class _Pool(ThreadPoolExecutor):
    def close(self) -> None:
        self.shutdown(wait=False)


# --- races: what a claim relied on holds until it is committed ---------------------------------

ASSET = made("ab")

ENDS: dict[str, Callable[[Ledger, Bench], Any]] = {
    "recall": lambda ledger, bench: ledger.mark_asset(
        ASSET.sha256, column="recalled", value=True, by="kim"
    ),
    "hold": lambda ledger, bench: ledger.mark_asset(
        ASSET.sha256, column="held", value=True, by="kim"
    ),
    "label": lambda ledger, bench: ledger.register(
        made("ab", labels=frozenset({"likeness"})), job=None, by="kim", how="imported"
    ),
    "job": lambda ledger, bench: ledger.end_job(bench.job, reason="over"),
    "credential": lambda ledger, bench: ledger.revoke_credential(bench.credential, reason="seen"),
    "leaving": lambda ledger, bench: ledger.leave_job(
        bench.job, epoch=1, clean=False, reason="left"
    ),
}
SAID = {
    "recall": "an asset changed", "hold": "an asset changed", "label": "an asset changed",
    "job": "is ended", "credential": "not live", "leaving": "is ended",
}  # fmt: skip


@pytest.mark.parametrize("how", ENDS)
def test_I8_what_would_stop_a_claim_waits_for_one_that_was_judged(
    ledger: Ledger, other: Ledger, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(ledger)
    ledger.register(ASSET, job=bench.job, by="kim", how="imported")
    one = bench.permit(assets=(ASSET.sha256,))
    pause = Paused(monkeypatch, _ledger_grants, "_obstacle")
    claim = background(lambda: bench.claim(one, versions={ASSET.sha256: 1}))
    assert pause.inside.wait(20)
    end = background(lambda: ENDS[how](other, bench))
    time.sleep(0.3)
    assert not end.done()
    pause.go.set()
    assert claim.result(20) is None
    end.result(20)
    seen = kinds(ledger)
    assert seen.index("claimed") == len(seen) - 2  # and what ended it came after


@pytest.mark.parametrize("how", ENDS)
def test_I8_no_claim_after_what_stops_it_was_committed(
    ledger: Ledger, other: Ledger, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(ledger)
    ledger.register(ASSET, job=bench.job, by="kim", how="imported")
    one = bench.permit(assets=(ASSET.sha256,))
    pause = Paused(monkeypatch, PostgresStorage, "_run")  # it was done, and is not committed yet
    end = background(lambda: ENDS[how](other, bench))
    assert pause.inside.wait(20)
    claim = background(lambda: bench.claim(one, versions={ASSET.sha256: 1}))
    time.sleep(0.3)
    assert not claim.done()
    pause.go.set()
    end.result(20)
    assert SAID[how] in str(claim.result(20))
    assert bench.state(one) != "claimed"


def test_I4_a_parent_raised_while_its_child_is_registered_raises_the_child(
    ledger: Ledger, other: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(ledger)
    ledger.register(ASSET, job=bench.job, by="kim", how="imported")
    one = bench.permit(assets=(ASSET.sha256,))
    bench.claim(one)
    child = made("cd", parents=(ASSET.sha256,))
    pause = Paused(monkeypatch, _ledger_grants, "inherit")
    finish = background(lambda: bench.finish(one, made=(child,)))
    assert pause.inside.wait(20)
    rise = background(lambda: ENDS["label"](other, bench))
    time.sleep(0.3)
    assert not rise.done()
    pause.go.set()
    assert finish.result(20)
    rise.result(20)
    row = ledger.one("SELECT labels FROM assets WHERE sha256 = ?", child.sha256)
    assert row is not None
    assert row["labels"] == '["brand","likeness"]'


def test_I4_the_same_new_bytes_from_two_processes_join(
    ledger: Ledger, other: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = Paused(monkeypatch, PostgresStorage, "_run")
    first = background(lambda: ledger.register(ASSET, job=None, by="kim", how="imported"))
    assert pause.inside.wait(20)
    again = made("ab", labels=frozenset({"likeness"}))
    second = background(lambda: other.register(again, job=None, by="omar", how="imported"))
    time.sleep(0.2)
    assert not second.done()
    pause.go.set()
    first.result(20)
    second.result(20)
    row = ledger.one("SELECT labels, version FROM assets")
    assert row is not None
    assert (row["labels"], row["version"]) == ('["brand","likeness"]', 2)


def test_I9_a_lease_renewed_while_the_sweep_waits_saves_its_job(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep finds a lapsed lease, then waits for the job, and looks again."""
    clock = Clock()
    with ledger_at(place, clock) as ledger, ledger_at(place, Clock(clock.now + LEASE)) as ahead:
        bench = Bench(ledger)
        pause = Paused(monkeypatch, PostgresStorage, "_run")
        renewed = background(lambda: ledger.renew_lease(bench.job, epoch=1, lease=10 * LEASE))
        assert pause.inside.wait(20)
        swept = background(ahead.sweep)
        time.sleep(0.3)
        assert not swept.done()
        pause.go.set()
        assert renewed.result(20)
        assert swept.result(20)["jobs"] == 0
        assert bench.job_state() == "open"


def test_I8_many_processes_claim_each_grant_once(place: Place) -> None:
    with contextlib.ExitStack() as stack:
        ledgers = [stack.enter_context(ledger_at(place)) for _ in range(6)]
        bench = Bench(ledgers[0])
        asked = [bench.permit() for _ in range(30)]
        items = [bench.judged(one) for one in asked]
        barrier = threading.Barrier(len(ledgers))

        def race(ledger: Ledger) -> list[str | None]:
            barrier.wait(20)
            claims = [ledger.claim(item, durable=False) for item in items]
            return [obstacle.sentence if obstacle else None for obstacle in claims]

        with ThreadPoolExecutor(len(ledgers)) as pool:
            answers = list(pool.map(race, ledgers))
        for column in zip(*answers, strict=True):
            assert sorted(map(str, column)) == ["None"] + ["its grant is claimed"] * 5
        assert kinds(ledgers[0]).count("claimed") == 30
        audit.verify(ledgers[0].storage, place.checkpoints)


# --- groups: who must wait does not hold up the others -----------------------------------------


def test_what_need_not_wait_is_committed_before_what_must(ledger: Ledger, other: Ledger) -> None:

    def wait(tx: Tx) -> str:
        tx.lock_job("job-held")
        return "waited"

    with job_held(other, "job-held"):
        stop = Stopper(ledger)
        before = [ledger.storage.submit(noted(f"a{i}")) for i in range(3)]
        waiting = ledger.storage.submit(wait)
        after = ledger.storage.submit(noted("b"))
        stop.release()
        assert [one.result(20) for one in before] == ["a0", "a1", "a2"]
        time.sleep(0.1)
        assert not waiting.done()
    assert (waiting.result(20), after.result(20)) == ("waited", "b")


def test_I11_who_waits_too_long_is_denied_and_the_next_is_not(
    postgres: Any, tmp_path: Path
) -> None:
    place = Place(url=postgres_url(postgres, lock_timeout=1), folder=tmp_path)
    with ledger_at(place) as ledger, ledger_at(place) as other:
        go = threading.Event()

        def hold(tx: Tx) -> None:
            tx.lock_job("job-held")
            assert go.wait(20)

        def wait(tx: Tx) -> None:
            tx.lock_job("job-held")

        holding = other.storage.submit(hold)
        time.sleep(0.2)
        with pytest.raises(LedgerUnavailable, match="lock timeout; nothing was done"):
            ledger.storage.submit(wait).result(20)
        assert ledger.storage.submit(noted("next")).result(20) == "next"
        go.set()
        holding.result(20)
        ledger.storage.submit(wait).result(20)
    drop_ledger(place.url)


def test_I11_a_pool_that_is_used_up_denies_and_recovers(postgres: Any, tmp_path: Path) -> None:
    url = postgres_url(postgres, pool=2, connect_timeout=2)
    place = Place(url=url, folder=tmp_path)
    with ledger_at(place) as ledger:
        used_up = pytest.raises(LedgerUnavailable, match="2 connections are in use")
        with ledger.storage.read(), ledger.storage.read(), used_up:
            names(ledger)
        assert names(ledger) == set()
    drop_ledger(url)


# --- connections that break ---------------------------------------------------------------------


def test_a_server_that_hung_up_on_idle_connections_is_not_noticed(
    ledger: Ledger, place: Place
) -> None:
    ledger.storage.submit(noted("before")).result(20)
    assert names(ledger) == {"before"}
    kill(place, *backends(place))
    assert names(ledger) == {"before"}
    assert ledger.storage.submit(noted("after")).result(20) == "after"
    assert kinds(ledger) == ["noted", "noted"]
    audit.verify(ledger.storage, place.checkpoints)


def test_a_connection_lost_inside_a_transition_is_tried_once_more(
    ledger: Ledger, place: Place
) -> None:
    tries: list[int] = []

    def breaking(tx: Tx) -> None:
        noted(f"try{len(tries)}")(tx)
        tries.append(1)
        if len(tries) == 1:
            kill(place, storage_of(ledger)._writer.backend)  # type: ignore[union-attr]
            noted("more")(tx)

    ledger.storage.submit(breaking).result(20)
    assert names(ledger) == {"try1"}
    assert kinds(ledger) == ["noted"]


def test_I11_a_connection_lost_again_and_again_denies(ledger: Ledger, place: Place) -> None:
    def breaking(tx: Tx) -> None:
        kill(place, storage_of(ledger)._writer.backend)  # type: ignore[union-attr]
        noted("x")(tx)

    with pytest.raises(LedgerUnavailable, match="server went away; nothing was done") as told:
        ledger.storage.submit(breaking).result(20)
    assert "terminating connection" in str(told.value.__cause__)
    assert names(ledger) == set()
    assert ledger.storage.submit(noted("after")).result(20) == "after"


@pytest.mark.parametrize("reached", [True, False])
def test_I8_I10_a_commit_without_an_answer_is_found_out_and_never_done_twice(
    ledger: Ledger, place: Place, reached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks after, or before, the server got the COMMIT."""
    ended: list[int] = []

    def end(self: PostgresStorage, link: Any) -> None:
        ended.append(link.backend)
        if len(ended) > 1 or reached:
            link.commit()
        if len(ended) == 1:
            kill(place, link.backend)
            link.commit()  # nobody answers

    monkeypatch.setattr(PostgresStorage, "_end", end)
    ran: list[int] = []

    def once(tx: Tx) -> int:
        ran.append(1)
        noted(f"run{len(ran)}")(tx)
        return len(ran)

    result = ledger.storage.submit(once).result(20)
    assert result == (1 if reached else 2)
    assert names(ledger) == {f"run{result}"}
    assert kinds(ledger) == ["noted"]
    assert len(ended) == result
    audit.verify(ledger.storage, place.checkpoints)


def test_I8_a_number_that_a_crashed_server_gave_away_again_is_no_commit(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not flushed when the server crashed is gone, and its number is another's by now."""
    bench = Bench(ledger)
    one, other = bench.permit(), bench.permit()
    seen: list[str] = []
    run, end = PostgresStorage._run, PostgresStorage._end

    def numbered(self: PostgresStorage, *args: Any, **kwargs: Any) -> Any:
        results, records, xid = run(self, *args, **kwargs)
        seen.append(xid)
        return results, records, seen[0]

    def lost(self: PostgresStorage, link: Any) -> None:
        if len(seen) != 2:
            return end(self, link)
        link.roll_back()
        link.raw.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(PostgresStorage, "_run", numbered)
    monkeypatch.setattr(PostgresStorage, "_end", lost)
    assert bench.claim(other) is None  # committed, under the number that the next one gets
    assert bench.claim(one) is None
    assert len(seen) == 3  # it was done again, since it was not there
    assert bench.state(one) == "claimed"


def test_I8_a_number_that_the_server_has_forgotten_is_no_commit(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, end = PostgresStorage._run, PostgresStorage._end
    left = [True]

    def ahead(self: PostgresStorage, *args: Any, **kwargs: Any) -> Any:
        results, records, xid = run(self, *args, **kwargs)
        return results, records, str(int(xid) + 1_000_000)

    def lost(self: PostgresStorage, link: Any) -> None:
        if not left:
            return end(self, link)
        left.pop()
        link.roll_back()
        link.raw.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(PostgresStorage, "_run", ahead)
    monkeypatch.setattr(PostgresStorage, "_end", lost)
    assert ledger.storage.submit(noted("a")).result(20) == "a"
    assert names(ledger) == {"a"}
    assert kinds(ledger) == ["noted"]


@pytest.mark.parametrize("reached", [True, False])
def test_I8_a_commit_that_breaks_for_any_reason_is_never_done_twice(
    ledger: Ledger, reached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    left = [MemoryError]

    def end(self: PostgresStorage, link: Any) -> None:
        breaks = bool(ran and left)
        if reached or not breaks:
            link.commit()
        if breaks:
            raise left.pop()

    monkeypatch.setattr(PostgresStorage, "_end", end)

    def counted(name: str) -> Callable[[Tx], str]:
        def transition(tx: Tx) -> str:
            ran.append(name)
            return noted(name)(tx)

        return transition

    stop = Stopper(ledger)
    futures = [ledger.storage.submit(counted(name)) for name in "ab"]
    stop.release()
    assert [one.result(20) for one in futures] == ["a", "b"]
    assert ran == (["a", "b"] if reached else ["a", "b", "a", "b"])
    assert names(ledger) == {"a", "b"}
    assert kinds(ledger) == ["noted"] * 2


def test_I8_a_defect_at_the_commit_is_told_and_nothing_is_written(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(self: PostgresStorage, link: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(PostgresStorage, "_end", end)
        with pytest.raises(MemoryError):
            ledger.storage.submit(noted("a")).result(20)
    assert names(ledger) == set()
    assert ledger.storage.submit(noted("b")).result(20) == "b"


def test_I8_a_commit_whose_fate_nobody_knows_is_not_tried_again(
    ledger: Ledger, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentguard.ledger.storage.postgres.storage._OUTCOME_S", 0.3)

    def end(self: PostgresStorage, link: Any) -> None:
        link.commit()
        kill(place, link.backend)
        monkeypatch.setattr("agentguard.ledger.storage.postgres.connections.Connections.open", away)
        link.execute("SELECT 1")

    def away(*_: Any, **__: Any) -> Any:
        raise LedgerUnavailable("nobody answers")

    ran: list[int] = []

    def once(tx: Tx) -> None:
        ran.append(1)
        noted("once")(tx)

    monkeypatch.setattr(PostgresStorage, "_end", end)
    with pytest.raises(LedgerUnavailable, match="whether this was written is unknown"):
        ledger.storage.submit(once).result(20)
    monkeypatch.undo()
    assert ran == [1]
    assert names(ledger) == {"once"}


def test_I11_a_server_that_is_restarted_denies_meanwhile_and_is_found_again(
    tmp_path: Path,
) -> None:
    with postgres_server(f"own-{os.getpid()}") as server:
        place = Place(url=postgres_url(server, connect_timeout=2), folder=tmp_path)
        with ledger_at(place) as ledger:
            bench = Bench(ledger)
            one = bench.permit()
            server.stop()
            with pytest.raises(LedgerUnavailable):
                bench.claim(one)
            with pytest.raises(LedgerUnavailable):
                names(ledger)
            server.start()
            assert bench.claim(one) is None
            assert kinds(ledger)[-1] == "claimed"  # the sequencer came back, too
            # A COMMIT that waits for a standby that is not there is committed, and never answered.
            with shell(place.url) as connection:
                connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
                connection.execute("SELECT pg_reload_conf()")
            time.sleep(0.3)
            hanging = ledger.storage.submit(noted("hanging"), durable=True)
            with shell(place.url) as connection:
                connection.execute("SET synchronous_commit = local")
                (pid,) = wait_for(lambda: connection.execute(
                    "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
                    " AND pid = %s", (storage_of(ledger)._writer.backend,),  # type: ignore[union-attr]
                ).fetchone())  # fmt: skip
                connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
                connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
                connection.execute("SELECT pg_reload_conf()")
            assert hanging.result(20) == "hanging"
            assert names(ledger) == {"hanging"}
            assert kinds(ledger).count("noted") == 1
            audit.verify(ledger.storage, place.checkpoints)


# --- the sequencer -----------------------------------------------------------------------------


def leads(ledger: Ledger) -> bool:
    sequencer = storage_of(ledger)._sequencer
    return sequencer is not None and sequencer.leads


def test_one_leads_and_a_survivor_takes_over(place: Place) -> None:
    with ledger_at(place) as survivor:
        wait_for(lambda: leads(survivor))
        with ledger_at(place) as other:
            other.storage.submit(noted("a")).result(20)
            assert kinds(other) == ["noted"]
            assert not leads(other)
            kill(place, *backends(place))  # the leader's connection, too: its lock is gone
            other.storage.submit(noted("b")).result(20)
            wait_for(lambda: leads(survivor) or leads(other))
            assert kinds(other) == ["noted"] * 2
        survivor.storage.submit(noted("c")).result(20)
        wait_for(lambda: leads(survivor))
        assert kinds(survivor) == ["noted"] * 3
        audit.verify(survivor.storage, place.checkpoints)


DYING = """
import os, signal, sys
from pathlib import Path
from tests.support.ledgers import Place, open_ledger
from tests.unit.ledger.storage.test_storage import noted

ledger = open_ledger(Place(url=sys.argv[1], folder=Path(sys.argv[2])))
while not ledger.storage._sequencer.leads:
    pass
child = os.fork()
if child == 0:  # it lives on, and must not keep the leader's lock
    os.close(1)
    signal.alarm(60)
    signal.pause()
ledger.storage.submit(noted("dying"), durable=True).result(20)
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_leader_leaves_nothing_unlogged(ledger: Ledger, place: Place) -> None:
    storage_of(ledger)._sequencer.close()  # type: ignore[union-attr]
    storage_of(ledger)._sequencer = None
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DYING, place.url, str(place.folder)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip
    child = int(done.stdout)
    try:
        storage_of(ledger)._start()  # it may have come to log its record itself before it died
        assert kinds(ledger) == ["noted"]
        wait_for(lambda: leads(ledger))
    finally:
        os.kill(child, signal.SIGKILL)
    audit.verify(ledger.storage, place.checkpoints)


STANDING = """
import os, signal, sys
from pathlib import Path
from tests.support.ledgers import Place, open_ledger

ledger = open_ledger(Place(url=sys.argv[1], folder=Path(sys.argv[2])))
while not ledger.storage._sequencer.leads:
    pass
print("leads", flush=True)
signal.alarm(120)
sys.stdin.readline()
ledger.storage.close()
"""


def test_leader_that_stands_still_is_replaced_and_may_go_on(
    ledger: Ledger, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_postgres_sequencer, "_STALLED_S", 0.5)
    storage_of(ledger)._sequencer.close()  # type: ignore[union-attr]
    away = tmp_path / "away"
    away.mkdir()
    leader = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", STANDING, place.url, str(away)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert leader.stdout is not None
        assert leader.stdout.readline() == "leads\n"
        os.kill(leader.pid, signal.SIGSTOP)
        storage_of(ledger)._sequencer = None
        storage_of(ledger)._start()
        ledger.storage.submit(noted("while it stands still"), durable=True).result(20)
        wait_for(lambda: leads(ledger))
        ledger.storage.sign()
        assert kinds(ledger) == ["noted"]
        os.kill(leader.pid, signal.SIGCONT)
        ledger.storage.submit(noted("when it goes on"), durable=True).result(20)
        leader.communicate("\n", timeout=60)
        assert leader.returncode == 0
        assert kinds(ledger) == ["noted"] * 2
        audit.verify(ledger.storage, place.checkpoints)
    finally:
        leader.kill()
        leader.wait()
    with ledger_at(Place(url=place.url, folder=away)) as there:
        audit.verify(there.storage, Place(url=place.url, folder=away).checkpoints)


def test_leader_whose_file_can_not_be_written_yields(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Place(url=place.url, folder=tmp_path / "away")
    away.folder.mkdir()
    with ledger_at(place) as full, ledger_at(away) as other:
        wait_for(lambda: leads(full) or leads(other))
        checkpoints = storage_of(full)._checkpoints

        def no_room(signed: str) -> None:
            raise OSError(28, os.strerror(28))

        monkeypatch.setattr(checkpoints, "_append", no_room)
        for number in range(3):
            full.storage.submit(noted(f"n{number}"), durable=True).result(20)
            other.storage.sign()
        wait_for(lambda: leads(other))
        audit.verify(other.storage, away.checkpoints)


@pytest.mark.parametrize("when", ["after", "between reading and deleting"])
def test_I10_a_record_that_is_committed_late_is_not_passed_over(
    ledger: Ledger, place: Place, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outbox ids are not in the order of commits."""
    body = '{"at":1,"kind":"late","rows":[]}'
    with shell(place.url) as connection:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO outbox (body) VALUES (%s)", (body,))
        if when != "after":
            take = Nodes.take
            late = iter([connection.commit])
            monkeypatch.setattr(
                Nodes, "take", lambda self: (take(self), next(late, lambda: None)())[0]
            )
        ledger.storage.submit(noted("first")).result(20)
        assert kinds(ledger)[:1] == ["noted"]
        connection.commit()
    assert kinds(ledger) == ["noted", "late"]
    audit.verify(ledger.storage, place.checkpoints)


def test_I10_rows_whose_records_still_wait_are_accounted_for(
    ledger: Ledger, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage_of(ledger)._sequencer.close()  # type: ignore[union-attr]
    monkeypatch.setattr(PostgresStorage, "_start", lambda self: None)
    monkeypatch.setattr(PostgresStorage, "wait_for_log", lambda self: None)
    bench = Bench(ledger)
    bench.claim(bench.permit())
    report = audit.verify(ledger.storage, place.checkpoints)
    assert (report.records, report.rows) == (0, 4)
    with shell(place.url) as connection:
        connection.execute("DELETE FROM outbox WHERE id = (SELECT max(id) FROM outbox)")
    with pytest.raises(VerificationFailed, match="was edited"):
        audit.verify(ledger.storage, place.checkpoints)
    storage_of(ledger)._sequencer = None


# --- several machines ----------------------------------------------------------------------------


def test_I10_every_machine_keeps_what_was_signed(place: Place, tmp_path: Path) -> None:
    away = Place(url=place.url, folder=tmp_path / "away")
    away.folder.mkdir()
    with ledger_at(place) as here, ledger_at(away) as there:
        Bench(here)
        size = there.storage.tree_size()
        for one in (place, away):
            wait_for(lambda one=one: one.checkpoints.newest()[0].size >= size)  # type: ignore[misc]
        proof = audit.prove(there.storage, away.checkpoints, 0)
        audit.verify_proof(proof, place.checkpoints.verifier_key)
        audit.verify(there.storage, away.checkpoints)


def restore_old_copy(place: Place, size: int) -> None:
    """What a restored backup looks like: fewer records, rows and checkpoints."""
    with shell(place.url) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("DELETE FROM checkpoints WHERE size > %s", (size,))
        connection.execute("DELETE FROM records WHERE idx >= %s", (size,))
        connection.execute("DELETE FROM nodes WHERE (idx + 1) << level::int > %s", (size,))


def test_I10_a_restored_old_copy_is_refused_where_more_was_seen(
    place: Place, tmp_path: Path
) -> None:
    with ledger_at(place) as ledger:
        ledger.storage.submit(noted("a")).result(20)
        ledger.storage.sign()
        ledger.storage.submit(noted("b")).result(20)
        ledger.storage.sign()
    restore_old_copy(place, 1)
    refused = pytest.raises(LedgerCorrupt, match=r"holds 1 records, .* proves 2: an old copy")
    with refused, ledger_at(place):
        pass
    away = Place(url=place.url, folder=tmp_path / "away")
    away.folder.mkdir()
    with ledger_at(away) as fresh:  # its first opening: it believes what it finds
        assert fresh.storage.tree_size() == 1


def test_I10_a_copy_restored_under_a_running_process_stops_it(ledger: Ledger, place: Place) -> None:
    for name in ("a", "b"):
        ledger.storage.submit(noted(name)).result(20)
        ledger.storage.sign()
    restore_old_copy(place, 1)
    kill(place, *backends(place))
    with pytest.raises(LedgerCorrupt, match="an old copy was restored"):
        ledger.storage.submit(noted("c")).result(20)


def test_I10_a_checkpoint_put_into_the_database_by_somebody_else_is_refused(
    place: Place, tmp_path: Path
) -> None:
    with ledger_at(place) as ledger:
        ledger.storage.submit(noted("a")).result(20)
        ledger.storage.sign()
    with shell(place.url) as connection:
        connection.execute("UPDATE checkpoints SET note = 'agentguard/t\n9\nAAAA\n' WHERE size = 1")
    with pytest.raises(LedgerCorrupt, match="a checkpoint in the ledger"), ledger_at(place):
        pass


# --- opening -------------------------------------------------------------------------------------


def test_eight_that_open_a_new_ledger_at_once_make_it_once(place: Place) -> None:
    with ThreadPoolExecutor(8) as pool, contextlib.ExitStack() as stack:
        ledgers = list(pool.map(lambda _: stack.enter_context(ledger_at(place)), range(8)))
        for number, ledger in enumerate(ledgers):
            ledger.storage.submit(noted(f"n{number}")).result(20)
        assert len(kinds(ledgers[0])) == 8
        audit.verify(ledgers[0].storage, place.checkpoints)


CHANGES = [
    ("DROP TRIGGER grants_claim ON grants", "trigger grants_claim is missing"),
    ("ALTER TABLE grants DISABLE TRIGGER grants_claim", "trigger grants_claim is different"),
    ("DROP TRIGGER grants_kept ON grants; CREATE TRIGGER grants_kept BEFORE DELETE ON grants"
     " FOR EACH ROW WHEN (false) EXECUTE FUNCTION refuse('x')", "trigger grants_kept is different"),
    ("CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
     " 'BEGIN RETURN NEW; END'", "function refuse is different"),
    ("ALTER FUNCTION next_record() SET search_path = public", "function next_record is different"),
    ("CREATE FUNCTION more() RETURNS int LANGUAGE sql AS 'SELECT 1'", "function more is none"),
    ("DROP INDEX grants_live", "index grants_live is missing"),
    ("DROP INDEX grants_live; CREATE INDEX grants_live ON grants (state)",
     "index grants_live is different"),
    ("ALTER TABLE answers DROP CONSTRAINT answers_pkey", "answers_pkey is missing"),
    ("ALTER TABLE grants ADD COLUMN extra text", "table grants is different"),
    ("ALTER TABLE jobs ALTER state SET DEFAULT 'open'", "table jobs is different"),
    ("ALTER TABLE jobs ENABLE ROW LEVEL SECURITY", "table jobs is different"),
    ("CREATE RULE quiet AS ON INSERT TO answers DO INSTEAD NOTHING", "rule quiet is none of ours"),
    ("CREATE VIEW extra AS SELECT 1", "(rule _RETURN|view extra) is none of ours"),
    ("CREATE TABLE extra (x int)", "table extra is none of ours"),
    ("DROP TABLE reviews", "is missing"),
    ("UPDATE meta SET value = '999'", "schema 999.*upgrade"),
    ("UPDATE meta SET value = 'one'", "schema version: got 'one'"),
    ("DELETE FROM meta", "schema version: got None"),
    ("DELETE FROM checkpoints", "checkpoints are gone"),
]  # fmt: skip


def test_I10_an_altered_schema_is_named_on_opening(place: Place) -> None:
    """One ledger, altered and put back by a savepoint of the catalogue's own: its transaction."""
    with ledger_at(place) as ledger:
        ledger.storage.submit(noted("a")).result(20)
        checked = storage_of(ledger)
        with shell(place.url) as connection:
            for change, found in CHANGES[:-4]:
                connection.execute("BEGIN")
                connection.execute(change)
                with pytest.raises(LedgerCorrupt, match=found):
                    checked.verify_schema(_Reader(connection))
                connection.execute("ROLLBACK")
            checked.verify_schema(_Reader(connection))


@pytest.mark.parametrize(("change", "found"), [CHANGES[1], *CHANGES[-4:]])
def test_I10_an_altered_ledger_does_not_open(place: Place, change: str, found: str) -> None:
    with ledger_at(place) as ledger:
        ledger.storage.submit(noted("a")).result(20)
    with shell(place.url) as connection:
        connection.execute(change)
    with pytest.raises(LedgerCorrupt, match=found), ledger_at(place):
        pass


class _Reader:
    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        cursor = self._connection.cursor(row_factory=psycopg.rows.dict_row)
        return cursor.execute(sql.replace("?", "%s"), parameters)


def test_somebody_elses_schema_is_refused_and_left_as_it_was(place: Place) -> None:
    with shell(place.url) as connection:
        connection.execute(f"CREATE SCHEMA {schema_of(place.url)}")
        connection.execute("CREATE TABLE theirs (x int)")
        with pytest.raises(LedgerCorrupt, match="theirs is none of ours"), ledger_at(place):
            pass
        found = connection.execute(
            "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
        ).fetchone()
        assert found == (1,)


def test_two_ledgers_share_a_database(postgres: Any, tmp_path: Path) -> None:
    places = [Place(url=postgres_url(postgres), folder=tmp_path / name) for name in "ab"]
    for place in places:
        place.folder.mkdir()
        with ledger_at(place) as ledger:
            ledger.storage.submit(noted(place.folder.name)).result(20)
            assert names(ledger) == {place.folder.name}
            audit.verify(ledger.storage, place.checkpoints)
    for place in places:
        drop_ledger(place.url)


# --- values, time, messages ----------------------------------------------------------------------


def test_text_that_postgres_has_not_is_kept_as_the_nearest(ledger: Ledger, place: Place) -> None:
    ledger.storage.submit(noted("a\0b")).result(20)
    assert names(ledger) == {"a\ufffdb"}
    assert ledger.one("SELECT 1 FROM revealed WHERE job = ?", "a\0b") is not None
    audit.verify(ledger.storage, place.checkpoints)


def test_without_a_clock_the_server_says_what_time_it_is(place: Place) -> None:
    opened = open_storage(place.url, clock=None, checkpoints=place.checkpoints)
    try:
        now = opened.submit(lambda tx: tx.now).result(20)
        with opened.read() as reader:
            row = reader.execute(
                "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
            ).fetchone()
        assert now <= row[0]
        assert abs(opened.clock() - row[0]) < 2000
        slow = threading.Event()

        def wait(tx: Tx) -> tuple[int, int]:
            before = tx.now
            tx.lock_job("job-held")
            return before, tx.now

        def hold(tx: Tx) -> None:
            tx.lock_job("job-held")
            slow.set()
            time.sleep(0.5)

        second = open_storage(place.url, clock=None, checkpoints=place.checkpoints)
        try:
            held = second.submit(hold)
            assert slow.wait(20)
            before, after = opened.submit(wait).result(20)
            held.result(20)
        finally:
            second.close()
        assert after - before >= 200  # what expires while it waits has expired
    finally:
        opened.close()


SECRET = "s3cr%2Fet"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("postgresql://u:p@ss@h/db", "%40"),
        ("postgresql://u:p/ss@h/db", "%2F"),
        ("postgresql://h/db?nonsense=1", "unknown parameter 'nonsense'"),
        ("postgresql://h/db?options=-cx", "unknown parameter 'options'"),
        ("postgresql://h/db?schema=Bad-Name", "schema: expected"),
        ("postgresql://h/db?schema=pg_catalog", "schema: expected"),
        ("postgresql://h/db?pool=0", "pool: expected a whole number from 1 to 100"),
        ("postgresql://h/db?lock_timeout=five", "lock_timeout: expected"),
        ("postgresql://h/db?pool=1&pool=2", "twice"),
        ("postgresql://h/db?pool", "NAME=VALUE"),
        ("mysql://h/db", "expected"),
    ],
)
def test_S16_a_url_that_can_not_be_used_says_why_and_repeats_no_secret(
    url: str, found: str
) -> None:
    with pytest.raises(ValueError, match=found) as caught:
        LedgerUrl.parse(url)
    assert "ss@" not in str(caught.value)


def test_S16_a_password_is_in_no_message(place: Place) -> None:
    for url in (f"postgresql://kim:{SECRET}@127.0.0.1:1/db?connect_timeout=2",
                f"postgresql://kim:{SECRET}@/db?host=/nowhere"):  # fmt: skip
        with pytest.raises(LedgerUnavailable) as caught:
            open_storage(url, clock=None, checkpoints=place.checkpoints)
        said = "".join(map(repr, (caught.value, caught.value.__cause__, LedgerUrl.parse(url))))
        assert "s3cr" not in said
        assert "nothing was done" in said


def test_without_the_driver_the_error_says_what_to_install(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "agentguard.ledger.storage.postgres.storage", None)
    with pytest.raises(ConfigError, match=r"pip install \"agentguard\[postgres\]\""):
        open_storage(place.url, clock=None, checkpoints=place.checkpoints)


def test_a_statement_that_writes_is_no_query(ledger: Ledger) -> None:
    def sneaky(tx: Tx) -> None:
        tx.one("WITH x AS (DELETE FROM revealed RETURNING 1) SELECT * FROM x")

    with pytest.raises(IllegalTransition, match="without a record"):
        ledger.storage.submit(sneaky).result(20)


def test_a_closed_ledger_leaves_no_connection_behind(place: Place) -> None:
    with ledger_at(place) as ledger:
        ledger.storage.submit(noted("a")).result(20)
        assert len(backends(place)) >= 2
    wait_for(lambda: not backends(place))


def test_a_url_of_a_socket_keeps_its_slashes() -> None:
    """libpq's usual spelling without a host; without the slashes it reads the path as an option."""
    conninfo = LedgerUrl.parse("postgresql:///acme?host=/run/pg&schema=s").conninfo
    assert conninfo == "postgresql:///acme?host=%2Frun%2Fpg"
    assert psycopg.conninfo.conninfo_to_dict(conninfo) == {"dbname": "acme", "host": "/run/pg"}
