"""Transitions that race with each other: whichever comes first, the log tells one story (I8, I9).

The log is the referee: a claim that is recorded after what should have stopped it is a hole.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentguard.errors import ApprovalError, JobError
from agentguard.ledger import verify as audit
from agentguard.ledger.ledger import Ledger
from agentguard.model import Effect, JobState, OutsideEffect, Request
from tests.race.racers import in_processes, race
from tests.support.ledgers import (
    LEASE,
    REVIEW,
    Bench,
    Clock,
    Place,
    ledger_at,
    live,
    made,
    records,
)

ROUNDS = {"SqliteStorage": 25, "PostgresStorage": 6}
OUTSIDE = OutsideEffect.IDEMPOTENT


class Ticking(Clock):
    """A clock that goes on by one with every look, so that deadlines fall inside a race."""

    def __call__(self) -> int:
        self.now += 1
        return self.now


@pytest.fixture
def ledger(place: Place, clock: Clock) -> Iterator[Ledger]:
    with ledger_at(place, clock) as opened:
        yield opened
        audit.verify_tail(opened.storage, place.checkpoints)
        audit.verify(opened.storage, place.checkpoints)


def rounds(ledger: Ledger) -> int:
    return ROUNDS[type(ledger.storage).__name__]


def until_both(ledger: Ledger, came: Counter[str]) -> Iterator[int]:
    """Round numbers: enough of them, and on until two racers have each been first."""
    for number in range(20 * rounds(ledger)):
        if number >= rounds(ledger) and len(came) > 1:
            return
        yield number
    raise AssertionError(f"only {came} ever came first: no race")


def places(ledger: Ledger, kind: str, **fields: Any) -> list[int]:
    """Where in the log records of a kind stand."""
    return [
        index
        for index, body in enumerate(records(ledger))
        if body["kind"] == kind and all(body.get(key) == fields[key] for key in fields)
    ]


def no_errors(results: list[Any]) -> list[Any]:
    assert not [one for one in results if isinstance(one, Exception)], results
    return results


# --- a claim and what should stop it ----------------------------------------------------------


def recall(bench: Bench, asked: Request) -> str:
    bench.ledger.mark_asset(asked.assets[0].sha256, column="recalled", value=True, by="omar")
    return "asset.recalled"


def hold(bench: Bench, asked: Request) -> str:
    bench.ledger.mark_asset(asked.assets[0].sha256, column="held", value=True, by="omar")
    return "asset.held"


def raise_class(bench: Bench, asked: Request) -> str:
    known = made(asked.assets[0].sha256, labels=frozenset({"regulated"}))
    bench.ledger.register(known, job=None, by="omar", how="imported")
    return "asset.registered"


def revoke(bench: Bench, asked: Request) -> str:
    bench.ledger.revoke_credential(bench.credential, reason="it leaked")
    return "credential.revoked"


def end(bench: Bench, asked: Request) -> str:
    bench.ledger.end_job(bench.job, reason="by a person")
    return "job.ended"


def leave(bench: Bench, asked: Request) -> str:
    bench.ledger.leave_job(bench.job, epoch=bench.epoch, clean=True, reason="left")
    return "job.ended"


STOPPERS: list[Callable[[Bench, Request], str]] = [recall, hold, raise_class, revoke, end, leave]


@pytest.mark.parametrize("stop", STOPPERS, ids=lambda stop: stop.__name__)
def test_I8_no_claim_comes_after_what_stops_it(
    ledger: Ledger, stop: Callable[[Bench, Request], str]
) -> None:
    """Four claimers and one who stops them: nobody claims behind the stop, and nobody twice."""
    first: Counter[str] = Counter()
    for number in until_both(ledger, first):
        sha256 = f"{number:04x}" * 16
        bench = Bench(ledger)
        ledger.register(made(sha256), job=bench.job, by="kim", how="imported")
        row = ledger.one("SELECT version FROM assets WHERE sha256 = ?", sha256)
        assert row is not None
        asked = bench.permit(assets=(sha256,), outside=OUTSIDE)
        effects: list[str] = []

        def claim(bench: Bench = bench, asked: Request = asked, version: int = row["version"],
                  effects: list[str] = effects) -> object:  # fmt: skip
            obstacle = bench.claim(asked, versions={asked.assets[0].sha256: version})
            if obstacle is None:
                effects.append(asked.digest)
            return obstacle

        works: list[Callable[[], object]] = [claim] * 4
        works.insert(number % 5, functools.partial(stop, bench, asked))
        kind = no_errors(race(*works)).pop(number % 5)
        claimed = places(ledger, "claimed", request=asked.digest)
        (*_, stopped) = places(ledger, kind)
        assert len(effects) == len(claimed) <= 1
        assert all(index < stopped for index in claimed)
        first["claim" if claimed else "stop"] += 1
        # Whoever comes later is refused, and a stopped job keeps nothing alive (I9).
        assert claim() is not None
        if stop in (end, leave):
            assert live(ledger, bench.job) == {}
            assert bench.state(asked) == ("unknown" if claimed else "revoked")
        elif stop is revoke:
            assert bench.state(asked) == ("claimed" if claimed else "revoked")
        else:
            assert bench.state(asked) == ("claimed" if claimed else "issued")


DEADLINES = {
    "approval": "SELECT expires_at FROM approvals WHERE request = ?",
    "grant": "SELECT expires_at FROM grants WHERE request = ?",
    "credential": "SELECT c.expires_at FROM credentials c JOIN requests r ON r.credential = c.id"
                  " WHERE r.digest = ?",
    "lease": "SELECT until FROM leases l JOIN requests r ON r.job = l.job WHERE r.digest = ?",
}  # fmt: skip


def deadline(ledger: Ledger, what: str, asked: Request) -> int:
    row = ledger.one(DEADLINES[what], asked.digest)
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("what", DEADLINES)
def test_I8_no_claim_at_or_after_a_deadline(place: Place, what: str) -> None:
    """The deadline falls between racing claims, while somebody sweeps."""
    clock = Ticking()
    came: Counter[str] = Counter()
    with ledger_at(place, clock) as ledger:
        for number in range(rounds(ledger)):
            bench = Bench(ledger)
            bench.credential = bench.take(
                lifetime=REVIEW // 2 if what == "credential" else 9 * REVIEW
            )
            all_asked = [bench.ask() for _ in range(6)]
            for asked in all_asked:
                bench.answer(asked, "omar", Effect.PERMIT)
            if what != "lease":
                assert ledger.renew_lease(bench.job, epoch=1, lease=9 * REVIEW)
            if what in ("approval", "credential"):  # a Grant lives shorter: it is issued late
                clock.now = deadline(ledger, what, all_asked[0]) - 50
            for asked in all_asked:
                bench.grant(asked, outside=OUTSIDE)
            clock.now = deadline(ledger, what, all_asked[3]) - 2 - 3 * (number % 6)
            claims: list[Callable[[], Any]] = [
                functools.partial(bench.claim, asked, asked=True) for asked in all_asked
            ]
            claims.insert(number % 7, ledger.sweep)
            results = no_errors(race(*claims))
            results.pop(number % 7)
            for asked, obstacle in zip(all_asked, results, strict=True):
                row = ledger.one("SELECT claims, claimed_at FROM grants WHERE request = ?",
                                 asked.digest)  # fmt: skip
                assert row is not None
                assert row["claims"] == (obstacle is None)
                came["claimed" if obstacle is None else "refused"] += 1
                if obstacle is None:
                    assert row["claimed_at"] < deadline(ledger, what, asked)
            ledger.end_job(bench.job, reason="next")
        assert came["claimed"], came
        assert came["refused"], came
        audit.verify(ledger.storage, place.checkpoints)


# --- the end of a claim -----------------------------------------------------------------------


@pytest.mark.parametrize("outside", [OutsideEffect.NONE, OUTSIDE])
def test_I8_I9_finishing_races_with_the_end_of_the_job(
    ledger: Ledger, outside: OutsideEffect
) -> None:
    """An effect outside is known in the end, whoever was first; without one the end holds."""
    first: Counter[str] = Counter()
    for number in until_both(ledger, first):
        bench = Bench(ledger)
        asked = bench.permit(outside=outside)
        assert bench.claim(asked) is None
        thing = made(f"{number:04x}" * 16)

        def finish(bench: Bench = bench, asked: Request = asked, thing: Any = thing) -> bool:
            return bench.finish(asked, made=(thing,))

        ends = [lambda job=bench.job: ledger.end_job(job, reason="by a person")] * 2
        works = [*ends[: number % 3], finish, *ends[number % 3 :]]
        ended = no_errors(race(*works))
        held = ended.pop(number % 3)
        assert sorted(ended) == [False, True]
        (end_at,) = places(ledger, "job.ended", job=bench.job)
        late = places(ledger, "finished.late", request=asked.digest)
        done = places(ledger, "finished", request=asked.digest)
        assert len(late) + len(done) == 1
        assert held == bool(done)
        came_first = (late or done)[0] < end_at
        first["finish" if came_first else "end"] += 1
        executed = came_first or outside is OUTSIDE
        assert bench.state(asked) == ("executed" if executed else "failed")
        assert held == executed
        there = ledger.one("SELECT 1 FROM assets WHERE sha256 = ?", thing.sha256)
        assert (there is not None) == executed  # nothing is made after the end without a record
        assert live(ledger, bench.job) == {}


# --- people, grants, holders ------------------------------------------------------------------


def test_two_answers_of_one_person_at_once_are_one(ledger: Ledger) -> None:
    came: Counter[str] = Counter()
    for number in until_both(ledger, came):
        bench = Bench(ledger)
        asked = bench.ask()
        verdicts = [Effect.PERMIT if i % 2 == number % 2 else Effect.DENY for i in range(6)]
        results = race(*(lambda v=v, b=bench, a=asked: b.answer(a, "omar", v) for v in verdicts))
        assert sum(result is None for result in results) == 1
        assert all(isinstance(r, ApprovalError) for r in results if r is not None), results
        (row,) = ledger.all("SELECT verdict FROM answers WHERE request = ?", asked.digest)
        wanted = {"approve": "approved", "deny": "denied"}[row["verdict"]]
        assert bench.approval(asked) == wanted
        assert len(places(ledger, "answered", request=asked.digest)) == 1
        came[wanted] += 1


def test_a_grant_is_issued_once_for_an_approved_request(ledger: Ledger) -> None:
    for _ in range(rounds(ledger)):
        bench = Bench(ledger)
        asked = bench.ask()
        bench.answer(asked, "omar", Effect.PERMIT)
        issue = [lambda b=bench, a=asked: b.grant(a, outside=OUTSIDE)] * 6
        no_errors(race(*issue))
        (row,) = ledger.all("SELECT * FROM grants WHERE request = ?", asked.digest)
        assert (row["state"], row["claims"]) == ("issued", 0)
        (granted,) = places(ledger, "granted", request=asked.digest)
        claims = no_errors(race(*[lambda b=bench, a=asked: b.claim(a, asked=True)] * 6))
        assert claims.count(None) == 1
        assert places(ledger, "claimed", request=asked.digest) > [granted]


def test_I9_a_renewal_and_a_sweep_agree_on_who_is_alive(place: Place) -> None:
    """Whoever was told that the lease holds has it until then; whoever was swept is told no."""
    clock = Ticking()
    with ledger_at(place, clock) as ledger:
        for _ in range(rounds(ledger)):
            job, epoch = ledger.open_job(purpose="p", requested_by="kim", lease=20)

            def renew(job: str = job, epoch: int = epoch) -> int:
                renewed = 0
                while renewed < 50 and ledger.renew_lease(job, epoch=epoch, lease=7):
                    renewed += 1
                return renewed

            def sweep(job: str = job) -> int:
                for _ in range(50):
                    ledger.sweep()
                return 0

            renewed = no_errors(race(renew, sweep, sweep))[0]
            if renewed < 50:  # it lapsed, perhaps when both had swept for the last time
                ledger.sweep()
            row = ledger.one("SELECT until FROM leases WHERE job = ?", job)
            assert row is not None
            ended = ledger.one("SELECT state, ended_at FROM jobs WHERE id = ?", job)
            assert ended is not None
            if ended["state"] == "ended":
                assert ended["ended_at"] >= row["until"]
                assert len(places(ledger, "job.ended", job=job)) == 1
            else:
                assert renewed == 50  # whoever was told no is swept
                ledger.end_job(job, reason="next")
            assert not ledger.renew_lease(job, epoch=epoch, lease=7)
        audit.verify(ledger.storage, place.checkpoints)


# --- real processes ---------------------------------------------------------------------------


@contextmanager
def ready(url: str, folder: str, *_: str) -> Iterator[Ledger]:
    with ledger_at(Place(url=url, folder=Path(folder)), Clock()) as ledger:
        yield ledger


def rejoin(ledger: Ledger, number: int, url: str, folder: str, *jobs: str) -> list[str]:
    """One process: re-enters what it can, and acts there."""
    won = []
    for job in jobs:
        try:
            epoch = ledger.rejoin_job(job, by="kim", lease=LEASE)
        except JobError as error:
            if "expected waiting" not in str(error):
                raise
            continue
        won.append(job)
        assert epoch == 2
        assert ledger.renew_lease(job, epoch=epoch, lease=LEASE)
        assert not ledger.renew_lease(job, epoch=epoch - 1, lease=LEASE)
    return won


def test_I9_of_many_processes_that_rejoin_a_waiting_job_one_gets_it(place: Place) -> None:
    with ledger_at(place) as ledger:
        benches = [Bench(ledger) for _ in range(20)]
        for bench in benches:
            bench.ask()
            left = ledger.leave_job(bench.job, epoch=1, clean=True, reason="left")
            assert left is JobState.WAITING
    won = in_processes("tests.race.test_racing_transitions:rejoin", place.url,
        str(place.folder),
                       *(bench.job for bench in benches), racers=6)  # fmt: skip
    assert Counter(job for jobs in won for job in jobs) == Counter(b.job for b in benches)
    with ledger_at(place) as ledger:
        for bench in benches:
            assert len(places(ledger, "job.rejoined", job=bench.job)) == 1
            bench.ledger = ledger
            assert bench.job_state() == "open"
            assert live(ledger, bench.job) == {"approvals": 1}
            assert not ledger.renew_lease(bench.job, epoch=1, lease=LEASE)
        audit.verify(ledger.storage, place.checkpoints)
