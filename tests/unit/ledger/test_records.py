"""One record belongs to one job or none, and lists at most 500 rows."""

from __future__ import annotations

from collections import Counter

import pytest

from agentguard.errors import IllegalTransition
from agentguard.ledger import verify as audit
from agentguard.ledger.ledger import Ledger
from agentguard.ledger.storage.open import Tx
from agentguard.model import Effect
from tests.support.ledgers import REVIEW, Bench, Clock, Place, ledger_at, records, request

MOST = 500


def told_of(ledger: Ledger) -> Counter[str]:
    """How many rows the records of each kind list, none of them too many or of several jobs."""
    jobs = {row["digest"]: row["job"] for row in ledger.all("SELECT digest, job FROM requests")}
    found: Counter[str] = Counter()
    for record in records(ledger):
        assert len(record["rows"]) <= MOST
        of = {
            jobs[key[0]] for table, key, _ in record["rows"] if table in ("requests", "approvals")
        }
        of |= {key[0] for table, key, _ in record["rows"] if table == "jobs"}
        assert len(of | ({record["job"]} if record.get("job") else set())) <= 1, record
        found[record["kind"]] += len(record["rows"])
    return found


def ask_many(bench: Bench, count: int) -> None:
    for start in range(0, count, 50):
        some = [request(bench.job) for _ in range(min(50, count - start))]
        judged = [bench.judged(asked, Effect.ASK) for asked in some]
        bench.ledger.record_decisions(judged)


def test_end_of_a_job_with_1100_questions_is_told_in_parts(place: Place) -> None:
    with ledger_at(place) as ledger:
        bench = Bench(ledger)
        ask_many(bench, 1100)
        ledger.end_job(bench.job, reason="over")
        found = told_of(ledger)
        assert found["job.ended"] == MOST
        assert found["continued"] == 1100 + 2 - MOST  # and the job's own row, and a credential's
        parts = [r for r in records(ledger) if r["kind"] == "continued"]
        assert {(r["of"], r["job"]) for r in parts} == {("job.ended", bench.job)}
        audit.verify(ledger.storage, place.checkpoints)


def test_sweep_of_1100_rows_is_told_job_by_job_and_in_parts(place: Place) -> None:
    clock = Clock()
    with ledger_at(place, clock) as ledger:
        benches = [Bench(ledger) for _ in range(3)]
        for bench, count in zip(benches, (560, 20, 520), strict=True):
            ask_many(bench, count)
            ledger.leave_job(bench.job, epoch=1, clean=True, reason="left")
        clock.turn(seconds=REVIEW / 1000 + 1)
        assert ledger.sweep() == {"jobs": 3, "approvals": 1100, "grants": 0, "credentials": 0}
        assert not any(ledger.sweep().values())
        found = told_of(ledger)
        assert found["swept"] == 500 + 20 + 500
        assert found["continued"] == 60 + 20
        audit.verify(ledger.storage, place.checkpoints)


def test_sweep_of_more_jobs_than_one_transition_takes_ends_all(place: Place) -> None:
    clock = Clock()
    with ledger_at(place, clock) as ledger:
        for _ in range(520):
            ledger.open_job(purpose="p", requested_by="kim", lease=1000)
        clock.turn(seconds=2)
        assert ledger.sweep()["jobs"] == 520
        told_of(ledger)


@pytest.mark.parametrize("body", [{}, {"job": "c"}])
def test_record_of_two_jobs_is_refused(ledger: Ledger, body: dict[str, str]) -> None:
    def both(tx: Tx) -> None:
        tx.insert("revealed", job="a", label="x")
        tx.insert("revealed", job="b" if not body else "a", label="y")
        tx.record("noted", body)

    with pytest.raises(IllegalTransition, match="tells of 2 jobs, expected one or none"):
        ledger.storage.submit(both).result(20)
    assert ledger.all("SELECT * FROM revealed") == []
