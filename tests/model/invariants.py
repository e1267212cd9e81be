"""What must hold in every state and on every move, read from the ledger's rows.

The oracle's own words on a move (I1, I2, I7, I8, I9) are in `history` and `world`; here the rows
are compared with it, state by state.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from agentguard.ledger.storage.open import KEYS, row_digest
from tests.model.world import World

Rows = Mapping[str, Mapping[tuple[Any, ...], Any]]
"""Every row by table and key."""

_EDGES = {
    ("issued", "claimed"), ("issued", "revoked"), ("issued", "expired"), ("claimed", "executed"),
    ("claimed", "failed"), ("claimed", "unknown"), ("unknown", "executed"), ("unknown", "failed"),
}  # fmt: skip
_EDGES_INSIDE = _EDGES | {("claimed", "issued"), ("failed", "claimed")}


def rows_of(world: World) -> Rows:
    """All rows that the log accounts for."""
    connection = world.storage.connection
    found: dict[str, dict[tuple[Any, ...], Any]] = {}
    for table, keys in KEYS.items():
        rows = connection.execute(f"SELECT * FROM {table}").fetchall()
        found[table] = {tuple(row[key] for key in keys): row for row in rows}
    return found


def broken(world: World, before: Rows, after: Rows, seen: Counter[str]) -> Iterator[str]:
    """What a move broke.

    Args:
        before: the rows as they were.
        seen: counts how often each invariant was looked at.
    """
    yield from _recorded(world, before, after, seen)
    yield from _classes(world, before, after, seen)
    yield from _once(world, before, after, seen)
    yield from _nothing_left(world, after, seen)


def _recorded(world: World, before: Rows, after: Rows, seen: Counter[str]) -> Iterator[str]:
    """I10: every row that changed is covered by a record of the same transaction."""
    covered = {
        (table, tuple(key)): digest
        for record in world.storage.records
        for table, key, digest in record["rows"]
    }
    for table, rows in after.items():
        old = before[table]
        for key, row in rows.items():
            if old.get(key) == row:
                continue
            seen["I10"] += 1
            if covered.get((table, key)) != row_digest(row):
                yield f"I10: a row of {table} changed without a record of it"
        if old.keys() - rows.keys():
            yield f"I10: a row of {table} is gone"


def _classes(world: World, before: Rows, after: Rows, seen: Counter[str]) -> Iterator[str]:
    """I2, I4: a class never shrinks, and holds all that was said of what it was made from."""
    labels = {key[0]: frozenset(json.loads(row["labels"])) for key, row in after["assets"].items()}
    for (sha256,), row in before["assets"].items():
        seen["I2"] += 1
        if not frozenset(json.loads(row["labels"])) <= labels[sha256]:
            yield f"I2: {world.files.name[sha256]} lost a label"
    for sha256, own in labels.items():
        seen["I4"] += 1
        name = world.files.name[sha256]
        missing = world.history.labels(name) - own
        if missing:
            yield f"I4: {name} lacks {', '.join(sorted(missing))}"
    for child, parent, _ in after["lineage"]:
        seen["I4"] += 1
        if not labels[parent] <= labels[child]:
            yield f"I4: {world.files.name[child]} is below what it was made from"
    for (sha256,) in after["assets"]:
        name = world.files.name[sha256]
        known = {person for asset, person in after["contributors"] if asset == sha256}
        if not world.history.contributors(name) <= known:
            yield f"I1: the ledger forgot a contributor of {name}"


def _once(world: World, before: Rows, after: Rows, seen: Counter[str]) -> Iterator[str]:
    """I8: grants move along their edges, one effect each, and the ledger tells the truth of it."""
    history = world.history
    for key, row in after["grants"].items():
        seen["I8"] += 1
        old = before["grants"].get(key)
        edges = _EDGES_INSIDE if row["effect"] == "none" else _EDGES
        moved = (old["state"], row["state"]) if old is not None else None
        if moved is not None and moved[0] != moved[1] and moved not in edges:
            yield f"I8: a grant went from {moved[0]} to {moved[1]}"
        sent = history.sent.get(row["request"], 0)
        if sent > 1:
            yield f"I8: {sent} effects under one grant"
        if row["effect"] != "none" and row["state"] == "executed" and not sent:
            yield "I8: recorded as executed, and nothing was sent"
        if row["effect"] != "none" and row["state"] == "failed" and sent:
            yield "I8: recorded as failed, and bytes are there"
        if row["state"] in ("issued", "revoked", "expired") and sent:
            yield f"I8: its grant is {row['state']}, and bytes are there"
    calls = Counter(
        (history.asked[d].what.job, history.asked[d].what.call)
        for d, count in history.sent.items()
        for _ in range(count)
    )
    for (job, call), count in calls.items():
        if count > 1:
            yield f"I8: call {call} of job {job} had {count} effects"


def _nothing_left(world: World, after: Rows, seen: Counter[str]) -> Iterator[str]:
    """I9: with a job ends all that lives by it; the rows agree with what an observer saw."""
    names = {id: name for name, id in world.jobs.items()}
    claimed = {row["request"] for row in after["grants"].values() if row["claims"]}
    for (id,), row in after["jobs"].items():
        seen["I9"] += 1
        name = names[id]
        expected = world.history.jobs[name]
        if (row["state"], row["epoch"]) != (expected.state, expected.epoch):
            yield (f"I9: job {name} is {row['state']} at epoch {row['epoch']}, expected"
                   f" {expected.state} at {expected.epoch}")  # fmt: skip
        if expected.state == "open":
            continue
        for one in after["credentials"].values():
            if one["job"] == id and one["state"] == "live":
                yield f"I9: job {name} is {expected.state} and a credential of it lives"
        for one in after["grants"].values():
            if one["job"] == id and one["state"] in ("issued", "claimed"):
                yield f"I9: job {name} is {expected.state} and a grant of it is {one['state']}"
        for one in after["approvals"].values():
            if one["job"] == id and expected.state == "ended" and (
                one["state"] == "pending"
                or (one["state"] == "approved" and one["request"] not in claimed)
            ):  # fmt: skip
                yield f"I9: job {name} has ended and an approval of it is {one['state']}"


def swept(world: World, after: Rows) -> Iterator[str]:
    """I9, after a sweep: nothing that is over looks alive."""
    claimed = {row["request"] for row in after["grants"].values() if row["claims"]}
    for table, living in (("approvals", ("pending", "approved")), ("grants", ("issued",)),
                          ("credentials", ("live",))):  # fmt: skip
        for row in after[table].values():
            used = table == "approvals" and row["request"] in claimed
            paused = table == "grants" and row["claims"]
            if row["state"] in living and row["expires_at"] <= world.now and not (used or paused):
                yield f"I9: swept, and a row of {table} that is over is {row['state']}"
