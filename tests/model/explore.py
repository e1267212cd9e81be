"""Breadth-first over the states of the world: the first counterexample is a shortest one."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from evals.controls import Mutant, dropped
from tests.model.invariants import Rows, broken, rows_of, swept
from tests.model.moves import RACED, Scope, Step, possible, racing, told
from tests.model.mutants import Hunt
from tests.model.standins import fast_and_repeatable
from tests.model.world import Saved, World


@dataclass(frozen=True, kw_only=True)
class Counterexample:
    """What went wrong, and the moves that led there."""

    faults: tuple[str, ...]
    moves: tuple[str, ...]

    def __str__(self) -> str:
        steps = [f"    {n}. {move}" for n, move in enumerate(self.moves, start=1)]
        return "\n".join([*steps, *(f"    → {fault}" for fault in self.faults)])


@dataclass(kw_only=True)
class Report:
    """What an exploration saw.

    Args:
        depth: moves in a row that were explored completely.
        second_line: moves that only a database trigger stopped.
        complete: there is nothing more to see at any depth.
        besides: beginnings of faults that were not looked for.
    """

    scope: str
    states: int = 0
    transitions: int = 0
    depth: int = 0
    seconds: float = 0.0
    seen: Counter[str] = field(default_factory=Counter)
    reached: set[str] = field(default_factory=set)
    second_line: Counter[str] = field(default_factory=Counter)
    counterexample: Counterexample | None = None
    complete: bool = False
    mutated: bool = False
    besides: tuple[str, ...] = ()


_UNSEEN = frozenset({"run", "record", "fail", "crash", "leave", "end", "rejoin", "sweep",
                     "reconcile", "configure", "tighten", "tick"})  # fmt: skip
"""Moves that may change what there is, or what ought to be, without a row that changes."""


@dataclass(slots=True)
class _Node:
    """A state: how it was reached, and, while it or its children are looked at, what it is."""

    parent: _Node | None
    step: Step | None
    saved: Saved | None = None


def explore(
    scope: Scope,
    *,
    mutants: Sequence[Mutant] = (),
    depth: int | None = None,
    besides: tuple[str, ...] = (),
) -> Report:
    """Try every sequence of a scope's moves, shortest first, until one breaks an invariant.

    Args:
        mutants: without which controls.
        depth: moves in a row; None: what the scope says.
        besides: beginnings of faults that are not looked for.
    """
    depth = scope.depth if depth is None else depth
    report = Report(scope=scope.name, mutated=bool(mutants), besides=besides)
    started = time.process_time()
    with contextlib.ExitStack() as stack:
        stack.enter_context(dropped(mutants))
        stack.enter_context(fast_and_repeatable())
        world = World(
            scope.setup,
            dropped=tuple(trigger for each in mutants for trigger in each.triggers),
            rules=tuple(rule for each in mutants for rule in each.rules),
        )
        stack.callback(world.close)
        _search(world, scope, depth, report)
    report.seconds = time.process_time() - started
    return report


def _search(world: World, scope: Scope, depth: int, report: Report) -> None:
    root = _Node(None, None, world.save())
    start = root.saved
    assert start is not None
    known = {_key(world, rows_of(world))}
    frontier, last = [root], root
    while frontier and report.depth < depth:
        following: list[_Node] = []
        for node in frontier:
            if node.parent is not last.parent and last.parent is not None:
                last.parent.saved = None  # all its children were looked at
            last = node
            _reach(world, node)
            for step, key in _steps(world, scope, node, report):
                if report.counterexample is not None:
                    report.counterexample = _explain(world, report, start, node, step)
                    return
                if key not in known:
                    known.add(key)
                    following.append(_Node(node, step))
        report.states = len(known)
        report.depth += 1
        frontier = following
    report.complete = not frontier


def _reach(world: World, node: _Node) -> None:
    """Put the world into a state: take the step that led there once more."""
    if node.saved is not None:
        world.restore(node.saved)
        return
    assert node.parent is not None
    assert node.parent.saved is not None
    assert node.step is not None
    world.restore(node.parent.saved)
    move, other = node.step
    if other is None:
        world.do(*move)
    else:
        world.race(move, other)
    node.saved = world.save()


def _steps(world: World, scope: Scope, node: _Node, report: Report) -> Iterator[tuple[Step, int]]:
    """Take each step from a state; yields those that changed or broke something, and their key."""
    saved = node.saved
    assert saved is not None
    before = rows_of(world)
    moves = list(possible(world, scope))
    others = racing(world, scope, moves)
    world.storage.attempt()
    for move in moves:
        steps: list[Step] = [(move, None)]
        while steps:
            step = steps.pop()
            rows, faults = _take(world, step, before, report)
            if step[1] is None and move[0] in RACED and world.storage.wrote:
                steps.extend((move, other) for other in others)
            if faults:
                report.counterexample = Counterexample(faults=tuple(faults), moves=())
                world.storage.settle()
                yield step, 0
            if world.storage.wrote or move[0] in _UNSEEN:
                yield step, _key(world, rows)
            if world.storage.wrote:
                world.storage.take_back()
            world.reset(saved)
    world.storage.settle()


def _take(world: World, step: Step, before: Rows, report: Report) -> tuple[Rows, list[str]]:
    """Take one step; returns the rows after it and what it broke."""
    move, other = step
    said = world.do(*move) if other is None else world.race(move, other)
    report.transitions += 1
    faults = list(world.faults)
    rows = rows_of(world) if world.storage.wrote else before
    if world.storage.wrote or move[0] in _UNSEEN:
        faults.extend(broken(world, before, rows, report.seen))
        if move[0] == "sweep":
            faults.extend(swept(world, rows))
        _note(world, said, rows, report)
    report.seen["I1"] += move[0] in ("authorize", "resume", "execute", "run")
    if said.startswith("second line"):
        report.second_line[said] += 1
        if not report.mutated:  # I8: the first line has a hole, though nothing came through
            faults.append(said)
    return rows, [fault for fault in faults if not fault.startswith(report.besides)]


def _explain(world: World, report: Report, start: Saved, node: _Node, last: Step) -> Counterexample:
    """Walk from the start to what went wrong, and say each move."""
    path = [last]
    at: _Node | None = node
    while at is not None and at.step is not None:
        path.append(at.step)
        at = at.parent
    found = report.counterexample
    assert found is not None
    world.restore(start)
    moves = []
    for move, other in reversed(path):
        words = told(world, move)
        if other is not None:
            words += f"; just before that is written, {told(world, other)}"
        before = rows_of(world)
        said = world.do(*move) if other is None else world.race(move, other)
        for _ in broken(world, before, rows_of(world), Counter()):
            pass  # it also tells the oracle of new credentials
        moves.append(f"{words}  [{said}]" if said else words)
    return Counterexample(faults=found.faults, moves=tuple(moves))


def _note(world: World, said: str, rows: Rows, report: Report) -> None:
    """What was reached, so that a scope which reaches nothing is noticed."""
    report.reached.add(said)
    for digest in world.history.sent:
        what = world.history.asked[digest].what
        report.reached.add(f"sent {what.call} to {what.to}")
    for row in rows["grants"].values():
        report.reached.add(f"grant {row['state']}")
    for child in world.history.parents:
        report.reached.add(f"made {child}")


_DROPPED = {
    "jobs": ("opened_at", "ended_at", "reason", "purpose"),
    "credentials": ("id", "issued_at"),
    "requests": ("body", "policies", "reason", "decided_at", "credential", "policy_version"),
    "approvals": ("question", "asked_at", "ended_at"),
    "answers": ("at", "received_at", "key_id", "signature"),
    "grants": ("id", "policy_version", "idempotency_key", "issued_at", "claimed_at", "ended_at"),
    "outcomes": ("text",),
    "assets": ("created_at", "version"),
    "asset_jobs": ("at", "how", "name"),
    "queued": ("at",), "reviews": ("at",), "receipts": ("at", "location"),
}  # fmt: skip
"""Columns that nothing is decided by: names, texts, and when something was."""
_SKIPPED = frozenset({"origins"})


def _key(world: World, rows: Rows) -> int:
    """One name for states that can't be told apart by what may follow.

    Ids drawn at random are replaced by what they name, times by what is left of them, and the two
    processes by what they hold.
    """
    now = world.now
    alias: dict[Any, Any] = {}
    for (id,), row in rows["credentials"].items():
        alias[id] = ("credential", row["job"], row["agent"], row["stage"], row["epoch"],
                     row["state"], max(0, row["expires_at"] - now))  # fmt: skip
    for (id,), row in rows["grants"].items():
        alias[id] = ("grant", row["request"])
    found: list[Any] = []
    for table, content in rows.items():
        if table in _SKIPPED or not content:
            continue
        columns = _columns(table, content)
        made = []
        for row in content.values():
            values: list[Any] = []
            for column in columns:
                value = row[column]
                if column == "expires_at":
                    value = max(0, value - now)
                values.append(alias.get(value, value))
            made.append(tuple(values))
        found.append((table, frozenset(Counter(made).items())))
    leases = world.storage.connection.execute("SELECT job, epoch, until FROM leases").fetchall()
    found.append(tuple((row[0], row[1], max(0, row[2] - now)) for row in leases))
    processes = frozenset(Counter(_process_key(world, one, alias)
                                  for one in world.processes).items())  # fmt: skip
    return hash((tuple(found), processes, world.history.key(now)))


def _process_key(world: World, process: Any, alias: dict[Any, Any]) -> Any:
    claims = world.history.claims
    held = frozenset((key, alias.get(one.id)) for key, one in process.credentials.items())
    flights = tuple(sorted(
        (f.digest, f.ran, f.serial == claims[f.digest],
         str(alias.get(f.claim.claimed.assessment.holder.credential)))
        for f in process.flights))  # fmt: skip
    return process.job, process.epoch, held, flights


_known_columns: dict[str, tuple[str, ...]] = {}


def _columns(table: str, content: Any) -> tuple[str, ...]:
    columns = _known_columns.get(table)
    if columns is None:
        names = next(iter(content.values())).keys()
        columns = tuple(name for name in names if name not in _DROPPED.get(table, ()))
        _known_columns[table] = columns
    return columns


_FAR = 9
"""Moves in a row that a mutant gets; it stops at its first counterexample."""


@dataclass(frozen=True, kw_only=True)
class Hunted:
    """What a hunt saw.

    Args:
        dropped: with all of it dropped: this must be a counterexample.
        alone: with the control alone dropped, None if nothing stands behind it. It must be none.
        behind: with only what stands behind dropped, likewise: else the control is not needed for
            the counterexample, and proves nothing.
    """

    dropped: Report
    alone: Report | None = None
    behind: Report | None = None

    @property
    def is_killed(self) -> bool:
        """Whether the mutant died as it should."""
        others = (each for each in (self.alone, self.behind) if each is not None)
        survived = all(each.counterexample is None for each in others)
        return self.dropped.counterexample is not None and survived


def kill(hunt: Hunt, scope: Scope) -> Hunted:
    """Explore with a control dropped, and with what stands behind it dropped too.

    Each of the two by itself is explored one move further than the two together took.
    """
    scope = hunt.narrowed(scope)
    if not hunt.behind:
        return Hunted(dropped=explore(scope, mutants=hunt.alone, depth=_FAR))
    both = explore(scope, mutants=hunt.alone + hunt.others, depth=_FAR, besides=hunt.besides)
    depth = both.depth + 1
    return Hunted(
        dropped=both,
        alone=explore(scope, mutants=hunt.alone, depth=depth),
        behind=explore(scope, mutants=hunt.others, depth=depth, besides=hunt.besides),
    )
