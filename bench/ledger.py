"""The ledger alone: claims and records per second, with 1, 16 and 64 threads waiting for theirs.

A claim of a call with an effect outside is durable before it returns; what waits meanwhile shares
its commit. Records are those of whole calls without such an effect: decided, claimed, finished.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from agentguard.jobs.job import Job
from agentguard.model import Assessment, OutsideEffect
from bench.calls import RECORDS, Caller, caller
from bench.databases import databases, kept_in
from bench.figures import Figure
from bench.rounds import Scale
from bench.studio import KIM, Studio, studio

CLIENTS = (1, 16, 64)
_RECORDS_A_SECOND = 2000


def measure(scale: Scale) -> list[Figure]:
    """Rates on each database; every client has a job of its own."""
    figures = []
    counts = (1, 16) if scale.quick else CLIENTS
    with databases(scale.say) as known:
        for database, url in known:
            with kept_in(url()), studio() as place, ExitStack() as stack:
                jobs = [
                    stack.enter_context(place.guard.open_job("bench", requested_by=KIM))
                    for _ in range(max(counts))
                ]
                for clients in counts:
                    scale.say(f"ledger: {database}, {clients} clients")
                    name = f"{database}, {clients} client{'s' * (clients > 1)}"
                    each = scale.of({1: 100, 16: 40, 64: 20}[clients], 5)
                    figures += _rates(name, place, jobs[:clients], each)
    return figures


def _rates(name: str, place: Studio, jobs: Sequence[Job], each: int) -> list[Figure]:
    work: list[list[tuple[Caller, Assessment]]] = []
    for number, job in enumerate(jobs):
        client = caller(place.guard, job, OutsideEffect.OPAQUE)
        items = [client.judged(f"claim {name} {number} {n}") for n in range(each)]
        place.guard.ledger.record_decisions(items)
        work.append([(client, item) for item in items])
    claims = _rate(work, Caller.claim)

    def whole(client: Caller, item: Assessment) -> None:
        client.decide(item)
        client.claim(item)
        client.finish(item)

    work = []
    for number, job in enumerate(jobs):
        client = caller(place.guard, job)
        work.append([(client, client.judged(f"whole {name} {number} {n}")) for n in range(each)])
    calls = _rate(work, whole)
    return [
        Figure(subject="ledger", what=f"{name}: durable claims", value=claims, unit="/s"),
        Figure(
            subject="ledger", what=f"{name}: records", value=calls * RECORDS, unit="/s",
            aim=_RECORDS_A_SECOND if len(jobs) > 1 else None, at_least=True,
            detail=f"{calls:,.0f} calls/s",
        ),
    ]  # fmt: skip


def _rate(
    work: Sequence[Sequence[tuple[Caller, Assessment]]], run: Callable[[Caller, Assessment], None]
) -> float:
    """Items per second, each client's on a thread of its own."""
    failures: list[BaseException] = []
    start = threading.Barrier(len(work) + 1)

    def go(mine: Sequence[tuple[Caller, Assessment]]) -> None:
        start.wait()
        try:
            for client, item in mine:
                run(client, item)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=go, args=(mine,)) for mine in work]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    if failures:
        raise failures[0]
    return sum(map(len, work)) / took
