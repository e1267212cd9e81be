"""I8: sixteen racing claimers of one Grant, in threads and in real processes: one claims."""

from __future__ import annotations

import functools
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from agentguard.errors import LedgerUnavailable
from agentguard.ledger import verify as audit
from agentguard.ledger.ledger import Ledger, Outcome
from agentguard.model import GrantState, Holder, OutsideEffect, Request
from tests.race.racers import RACERS, in_processes, race
from tests.support.ledgers import Bench, Clock, Place, assessed, ledger_at, records, request

THREADED = {"sqlite": 500, "postgresql": 40}
PROCESSES = {"sqlite": 300, "postgresql": 24}
GROUP = 8
DONE = Outcome(state=GrantState.EXECUTED, text="done")

T = TypeVar("T")


def permitted(bench: Bench, count: int) -> list[Request]:
    """Requests with a Grant each, some of them for an effect outside; named by their number."""
    asked = [request(bench.job, agent=bench.agent, stage=bench.stage, call=f"n-{number}")
             for number in range(count)]  # fmt: skip
    kinds = itertools.cycle([OutsideEffect.NONE, OutsideEffect.IDEMPOTENT, OutsideEffect.OPAQUE])
    judged = [bench.judged(one, outside=kind) for one, kind in zip(asked, kinds, strict=False)]
    bench.ledger.record_decisions(judged)
    return asked


def act(effects: Path, asked: Request, who: str) -> None:
    """The effect: a file that nobody else writes, so that a second one is seen beside it."""
    (effects / f"{asked.digest}.{who}").touch(exist_ok=False)


def require_one_each(ledger: Ledger, place: Place, effects: Path, asked: list[Request]) -> None:
    done = Counter(file.name.split(".")[0] for file in effects.iterdir())
    assert done == dict.fromkeys((one.digest for one in asked), 1)
    rows = ledger.all("SELECT request, state, claims FROM grants")
    assert {(row["state"], row["claims"]) for row in rows} == {("executed", 1)}
    assert len(rows) == len(asked)
    for kind in ("claimed", "finished"):
        recorded = [one for one in records(ledger) if one["kind"] == kind]
        assert Counter(one["request"] for one in recorded) == done
    audit.verify_tail(ledger.storage, place.checkpoints)
    audit.verify(ledger.storage, place.checkpoints)


def test_I8_sixteen_threads_race_for_each_grant_and_one_claims_it(place: Place) -> None:
    effects = place.folder / "effects"
    effects.mkdir()
    with ledger_at(place) as ledger:
        bench = Bench(ledger)
        asked = permitted(bench, THREADED[place.url.split(":")[0]])

        def racer(number: int) -> Counter[str]:
            said: Counter[str] = Counter()
            for one in asked:
                obstacle = bench.claim(one)
                said[str(obstacle)] += 1
                if obstacle is None:
                    act(effects, one, str(number))
                    assert bench.finish(one)
            return said

        said = race(*(lambda number=number: racer(number) for number in range(RACERS)))
        assert not [error for error in said if isinstance(error, Exception)]
        total: Counter[str] = sum(said, Counter())
        assert total["None"] == len(asked)
        assert set(total) <= {"None", "its grant is claimed", "its grant is executed"}
        assert sum(total.values()) == RACERS * len(asked)
        require_one_each(ledger, place, effects, asked)


# --- real processes ---------------------------------------------------------------------------


@contextmanager
def ready(url: str, folder: str, *_: str) -> Iterator[Ledger]:
    with ledger_at(Place(url=url, folder=Path(folder)), Clock()) as ledger:
        yield ledger


def claim_all(
    ledger: Ledger, number: int, url: str, folder: str, told: str, effects: str
) -> dict[str, int]:
    """One process: claims every Grant, a few at a time, as a busy program would; in its own order
    within a group, so that each is first sometimes."""
    known = json.loads(told)
    asked = [request(known["job"], agent="editor", call=f"n-{n}") for n in range(known["count"])]
    holder = Holder(epoch=1, credential=known["credential"])
    order = random.Random(number)
    said: Counter[str] = Counter()
    for start in range(0, len(asked), GROUP):
        group = asked[start : start + GROUP]
        order.shuffle(group)
        for one in group:
            item = assessed(one, holder)
            obstacle = patient(functools.partial(ledger.claim, item, durable=False))
            said[str(obstacle and obstacle.sentence)] += 1
            if obstacle is None:
                act(Path(effects), one, str(number))
                finish = functools.partial(ledger.finish, one, DONE)
                assert patient(functools.partial(finish, credential=known["credential"]))
    return dict(said)


def patient(work: Callable[[], T]) -> T:
    """Sixteen processes starve each other now and then: what says "nothing was done" is redone."""
    while True:
        try:
            return work()
        except LedgerUnavailable as error:
            if "locked" not in str(error):
                raise


def test_I8_sixteen_processes_race_for_each_grant_and_one_claims_it(place: Place) -> None:
    effects = place.folder / "effects"
    effects.mkdir()
    with ledger_at(place) as ledger:
        bench = Bench(ledger)
        asked = permitted(bench, PROCESSES[place.url.split(":")[0]])
        told = json.dumps({"job": bench.job, "credential": bench.credential, "count": len(asked)})
    said = in_processes(
        "tests.race.test_claims:claim_all", place.url, str(place.folder), told, str(effects)
    )
    total: Counter[str] = sum(map(Counter, said), Counter())
    assert total["None"] == len(asked)
    assert set(total) <= {"None", "its grant is claimed", "its grant is executed"}
    assert sum(total.values()) == RACERS * len(asked)
    with ledger_at(place) as ledger:
        require_one_each(ledger, place, effects, asked)
