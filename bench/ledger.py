"""The ledger alone: claims and records per second, with 1, 16 and 64 threads waiting for theirs.

A claim of a call with an effect outside is durable before it returns; what waits meanwhile shares
its commit. Records are those of whole calls without such an effect: decided, claimed, finished.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from agentguard.ledger import Judged
from agentguard.model import OutsideEffect
from bench.calls import RECORDS, Caller, caller
from bench.databases import databases
from bench.figures import Figure
from bench.rounds import Scale
from bench.studio import KIM, studio

CLIENTS = (1, 16, 64)
_RECORDS_A_SECOND = 2000


def measure(scale: Scale) -> list[Figure]:
    """Rates on each database."""
    figures = []
    with databases(scale.say) as known:
        for database, url in known:
            if url is not None:
                continue
            with studio(url) as place, place.guard.open_job("bench", requested_by=KIM) as job:
                for clients in CLIENTS:
                    scale.say(f"ledger: {database}, {clients} clients")
                    with_effect = caller(place.guard, job, OutsideEffect.OPAQUE)
                    without = caller(place.guard, job)
                    name = f"{database}, {clients} client{'s' * (clients > 1)}"
                    count = scale.of(40 if clients == 1 else 15, 6) * clients
                    figures += _rates(name, with_effect, without, clients, min(count, 1000))
    return figures


def _rates(
    name: str, with_effect: Caller, without: Caller, clients: int, count: int
) -> list[Figure]:
    items = [with_effect.judged(f"claim {name} {number}") for number in range(count)]
    with_effect.ledger.record_decisions(items, epoch=with_effect.job.epoch)
    claims = _rate(items, clients, with_effect.claim)

    def whole(item: Judged) -> None:
        without.decide(item)
        without.claim(item)
        without.finish(item)

    items = [without.judged(f"whole {name} {number}") for number in range(count)]
    calls = _rate(items, clients, whole)
    grouped = clients > 1
    return [
        Figure(subject="ledger", what=f"{name}: durable claims", value=claims, unit="/s"),
        Figure(
            subject="ledger", what=f"{name}: records", value=calls * RECORDS, unit="/s",
            aim=_RECORDS_A_SECOND if grouped else None, at_least=True,
            detail=f"{calls:,.0f} calls/s",
        ),
    ]  # fmt: skip


def _rate(items: Sequence[Judged], clients: int, run: Callable[[Judged], None]) -> float:
    """Items per second, each thread taking every n-th."""
    failures: list[BaseException] = []
    start = threading.Barrier(clients + 1)

    def work(first: int) -> None:
        start.wait()
        try:
            for item in items[first::clients]:
                run(item)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(clients)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    if failures:
        raise failures[0]
    return len(items) / took
