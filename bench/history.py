"""Opening a job over a long history: what takes part in no call any more must cost nothing.

The old rows are written past the ledger and have no records, so `audit verify` would refuse them:
they are for the time of queries only.
"""

from __future__ import annotations

import contextlib
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from agentguard.model import request_digest
from bench.figures import TIMES, Figure
from bench.rounds import Scale
from bench.studio import KIM, open_guard, write_workspace

_DAY = 86_400_000
_JOB = 20  # calls of one job
_AIM = 2.0
_BODY = (
    '{"agent":"publisher","args":{},"assets":[],"binding":"b","destination":"team",'
    '"destination_digest":"d","stage":"export","text_labels":[],"tool":"export_asset"}'
)


def measure(scale: Scale) -> list[Figure]:
    """`open_job`, with its sweep, over a short and a long history in a SQLite file."""
    counts = scale.of(1_000, 100), scale.of(1_000_000, 1_000)
    took = [_opening(scale, count) for count in counts]
    return [
        Figure(
            subject="history",
            what=f"open_job, {counts[1]:,} ÷ {counts[0]:,} old calls",
            value=took[1] / took[0],
            unit=TIMES,
            aim=_AIM,
            detail=f"{took[0]:.2f} → {took[1]:.2f} ms",
        )
    ]


def _opening(scale: Scale, count: int) -> float:
    """What opening and leaving a job takes (ms, median)."""
    with tempfile.TemporaryDirectory(prefix="agentguard-bench-") as name:
        folder = Path(name)
        write_workspace(folder)
        with open_guard(folder) as guard:
            url = guard.workspace.ledger
        scale.say(f"history: writing {count:,} old calls")
        fill(url, count, until=time.time_ns() // 1_000_000)
        scale.say(f"history: opening jobs over {count:,} old calls")
        took = []
        with open_guard(folder) as guard:
            for _ in range(scale.of(200, 3)):
                began = time.perf_counter()
                guard.ledger.sweep()  # a guard sweeps once a second at most; here each time
                with guard.open_job("bench", requested_by=KIM):
                    took.append((time.perf_counter() - began) * 1000)
        return statistics.median(took)


def fill(url: str, calls: int, *, until: int) -> None:
    """Write so many finished calls of ended jobs into a new ledger, past its triggers.

    Half of them were asked and approved; two of three made or sent something.

    Args:
        url: `sqlite:PATH` or, of a superuser, `postgresql://...?schema=NAME`.
        until: the ledger's time (ms); all of them ended a day before.
    """
    if url.startswith("sqlite:"):
        _fill_sqlite(Path(url.removeprefix("sqlite:")), calls, until - _DAY)
    else:
        _fill_postgres(url, calls, until - _DAY)


def _fill_sqlite(path: Path, calls: int, until: int) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -400000")
        triggers = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY rowid"
        ).fetchall()
        connection.execute("BEGIN")
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for table, rows in _tables(calls, until):
            for row in rows:
                marks = ", ".join("?" * len(row))
                connection.execute(
                    f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values())
                )
        for _, sql in triggers:
            connection.execute(sql)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _fill_postgres(url: str, calls: int, until: int) -> None:
    import psycopg

    from agentguard.config.ledger_url import LedgerUrl

    place = LedgerUrl.parse(url)
    with psycopg.connect(place.conninfo) as connection:
        connection.execute(f'SET search_path = "{place.schema}"'.encode())
        connection.execute("SET session_replication_role = replica")  # no triggers
        for table, rows in _tables(calls, until):
            copy: Any = None
            with connection.cursor() as cursor, contextlib.ExitStack() as stack:
                for row in rows:
                    if copy is None:
                        columns = f"COPY {table} ({', '.join(row)}) FROM STDIN"
                        copy = stack.enter_context(cursor.copy(columns.encode()))
                    copy.write_row(tuple(row.values()))
        connection.execute("ANALYZE")


def _id(kind: str, number: int) -> str:
    return f"{kind}-{number:020x}"


def _name(kind: str, number: int) -> str:
    """A digest."""
    return f"{kind.encode().hex():0<8}{number:056x}"


def _question(number: int) -> str:
    return f'{{"args":{{}},"call_key":"{_name("k", number)}"}}'


def _request(number: int) -> str:
    return request_digest(_question(number))


def _tables(calls: int, until: int) -> Iterator[tuple[str, Iterable[dict[str, Any]]]]:
    """Each table with its rows, in the order of their keys."""
    jobs, assets = range(-(-calls // _JOB)), range(-(-calls // 2))
    yield "jobs", ({
        "id": _id("job", n), "purpose": f"campaign {n}", "requested_by": KIM, "state": "ended",
        "epoch": 1, "opened_at": until - calls + n, "ended_at": until, "reason": "left",
    } for n in jobs)  # fmt: skip
    yield "leases", ({"job": _id("job", n), "epoch": 1, "until": until} for n in jobs)
    yield "credentials", ({
        "id": _id("cred", n), "job": _id("job", n), "agent": "editor", "stage": "edit", "epoch": 1,
        "issued_at": until - 2, "expires_at": until, "state": "revoked",
    } for n in jobs)  # fmt: skip
    yield "requests", ({
        "digest": _request(n), "content_digest": _name("c", n), "call_key": _name("k", n),
        "revision": 0, "job": _id("job", n // _JOB), "thread": f"thread-{n // _JOB}",
        "call_id": f"{n:032x}", "agent": "publisher", "stage": "export", "tool": "export_asset",
        "destination": "team", "body": _BODY, "effect": "ask", "policies": "[]",
        "policy_version": "v", "reason": "because", "credential": _id("cred", n // _JOB),
        "decided_at": until - 2, "ordinal": 1,
    } for n in range(calls))  # fmt: skip
    yield "approvals", ({
        "request": _request(n), "job": _id("job", n // _JOB), "count": 1, "groups": "[]",
        "asked_at": until - 3, "expires_at": until, "state": "approved", "ended_at": until - 1,
        "question": _question(n),
    } for n in range(0, calls, 2))  # fmt: skip
    yield "answers", ({
        "request": _request(n), "person": "omar@acme.example", "verdict": "approve",
        "answered_as": None, "at": until - 1, "key_id": "k", "signature": "s",
        "received_at": until - 1,
    } for n in range(0, calls, 2))  # fmt: skip
    yield "grants", ({
        "id": _id("grant", n), "request": _request(n), "job": _id("job", n // _JOB),
        "credential": _id("cred", n // _JOB), "policy_version": "v", "effect": "probeable",
        "idempotency_key": _name("c", n), "state": "executed", "issued_at": until - 2,
        "expires_at": until, "claims": 1, "claimed_at": until - 1, "epoch": 1, "ended_at": until,
    } for n in range(calls))  # fmt: skip
    yield "outcomes", ({
        "grant_id": _id("grant", n), "status": "executed", "text": "done", "assets": "[]",
        "state": "{}",
    } for n in range(calls))  # fmt: skip
    yield "assets", ({
        "sha256": _name("a", n), "id": _id("asset", n), "media_type": "image/png",
        "extension": ".png", "size": 9, "width": 32, "height": 32, "labels": '["brand"]',
        "terms": "{}", "recalled": 0, "held": 0, "provenance": "unknown", "version": 1,
        "created_at": until - calls + n,
    } for n in assets)  # fmt: skip
    yield "asset_jobs", ({
        "job": _id("job", n * 2 // _JOB), "sha256": _name("a", n), "how": "made", "name": "x.png",
        "at": until,
    } for n in assets)  # fmt: skip
    yield "origins", ({
        "sha256": _name("a", n), "source": _id("grant", n), "tool": "crop", "agent": "editor",
        "credential": None, "person": None, "name": "x.png", "at": until,
    } for n in assets)  # fmt: skip
    yield "lineage", ({
        "child": _name("a", n), "parent": _name("a", n - n % 5), "grant_id": _id("grant", n),
    } for n in assets if n % 5)  # fmt: skip
    yield "contributors", ({"sha256": _name("a", n), "person": KIM} for n in assets)
    yield "queued", ({
        "job": _id("job", n * 2 // _JOB), "sha256": _name("a", n), "destination": "site",
        "grant_id": _id("grant", n), "at": until,
    } for n in assets)  # fmt: skip
    yield "reviews", ({
        "job": _id("job", n * 2 // _JOB), "sha256": _name("a", n), "grant_id": _id("grant", n),
        "findings": "[]", "clean": int(n % 4 > 0), "at": until,
    } for n in assets)  # fmt: skip
    yield "revealed", ({"job": _id("job", n), "label": "brand"} for n in jobs)
    yield "receipts", ({
        "grant_id": _id("grant", n), "sha256": _name("a", n // 2), "destination": "team",
        "location": "team/x.png", "at": until,
    } for n in range(0, calls, 3))  # fmt: skip
    yield "operations", ({
        "job": _id("job", n), "name": _name("o", n), "grant_id": _id("grant", n), "tool": "render",
        "destination": "images", "labels": "[]", "terms": "{}", "contributors": "[]",
        "assets": "[]", "at": until,
    } for n in jobs)  # fmt: skip
    yield "numbers", ({
        "request": _request(n), "job": _id("job", n // _JOB), "thread": f"thread-{n // _JOB}",
        "bits": 9,
    } for n in range(calls))  # fmt: skip
    yield "unguarded_runs", ({"job": _id("job", n), "tool": "other", "at": until} for n in jobs)
