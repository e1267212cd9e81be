"""Every move there is in a state, and the scopes that bound them.

A scope is a few moves over a few calls, so that breadth-first search gets deep where it matters;
the scope `all` has every move and stays shallow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.model.world import Process, Setup, Variant, World

Move = tuple[Any, ...]
"""The name of a move and its arguments, as `World.do` takes them."""

Step = tuple[Move, Move | None]
"""A move, and what happens after it was decided on and before it is written down, if anything."""

RACED = frozenset({"resume", "execute", "answer"})
"""Moves that decide first and write then."""

GRAPH = ("authorize", "resume", "execute", "run", "record")
"""What a graph does with a call; `execute` alone is goto, again is replay, changed is an edit."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What may move.

    Args:
        calls: by call id: what the model asks for first, then what an adversary makes of it.
        moves: their names.
        answers: (person, verdict) that may be given.
        labels: (asset, label, person) that may be added.
        marks: (asset, `held` or `recalled`, value).
        races: moves that may also come between a decision and its writing.
        depth: moves in a row that `make model` explores.
        quick: moves in a row that the test suite explores; None: as many.
        goals: what must be reachable without a mutant, or the scope proves nothing.
    """

    name: str
    about: str
    calls: Mapping[str, tuple[Variant, ...]]
    moves: tuple[str, ...]
    setup: Setup
    depth: int
    quick: int | None = None
    answers: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str, str], ...] = ()
    marks: tuple[tuple[str, str, bool], ...] = ()
    races: frozenset[str] = frozenset()
    goals: tuple[str, ...] = ()


def possible(world: World, scope: Scope) -> Iterator[Move]:
    """Every move of a scope that can be tried in the world as it is."""
    history = world.history
    for process in world.processes:
        for move in _of_process(process, scope, world):
            if move[0] in scope.moves:
                yield move
    if "answer" in scope.moves:
        asked = [digest for digest, one in history.asked.items() if one.until is not None]
        for digest in asked:
            for person, verdict in scope.answers:
                yield "answer", person, digest, verdict, digest
    if "forge" in scope.moves:
        asked = [digest for digest, one in history.asked.items() if one.until is not None]
        person = scope.answers[0][0]
        for digest in asked:
            for shown in asked:
                if shown != digest:
                    yield "answer", person, digest, "approve", shown
    if "label" in scope.moves:
        for label in scope.labels:
            if label[1] not in history.said.get(label[0], ()) or label[2] not in history.hands.get(
                label[0], ()
            ):
                yield "label", *label
    if "mark" in scope.moves:
        for asset, column, value in scope.marks:
            if (asset in getattr(history, column)) != value:
                yield "mark", asset, column, value
    if "revoke" in scope.moves:
        for name, credential in history.credentials.items():
            if credential.live and credential.until > world.now:
                yield "revoke", name
    if "end" in scope.moves:
        yield from (("end", job) for job, seen in history.jobs.items() if seen.state != "ended")
    if "settle" in scope.moves:
        flying = {f.digest for p in world.processes for f in p.flights}
        for row in world.ledger.all("SELECT request FROM grants WHERE state = 'unknown'"):
            if row["request"] not in flying:
                yield "settle", row["request"]
    if "configure" in scope.moves and history.place < 1:
        yield ("configure",)
    if "tighten" in scope.moves and not history.strict:
        yield ("tighten",)
    for kind in ("sweep", "reconcile", "tick"):
        if kind in scope.moves:
            yield (kind,)


def racing(world: World, scope: Scope, moves: Sequence[Move]) -> list[Move]:
    """Moves that may come between a decision and its writing."""
    found = [move for move in moves if move[0] in scope.races]
    if "handover" in scope.races:
        idle = [one.name for one in world.processes if not one.job]
        found += [("handover", one.name, other, one.job)
                  for one in world.processes if one.job for other in idle]  # fmt: skip
    return found


def _of_process(process: Process, scope: Scope, world: World) -> Iterator[Move]:
    name = process.name
    if process.job:
        for call, variants in scope.calls.items():
            for variant in variants:
                yield "authorize", name, call, variant
                yield "execute", name, call, variant
                if any(a.what.call == call and a.until is not None
                       for a in world.history.asked.values()):  # fmt: skip
                    yield "resume", name, call, variant
        yield "leave", name, True
        yield "leave", name, False
        yield "renew", name
    else:
        yield from (("rejoin", name, job) for job in world.jobs)
    for index, flight in enumerate(process.flights):
        if flight.ran:
            yield "record", name, index
        else:
            yield "run", name, index
        yield "fail", name, index
    if process.job or process.flights:
        yield "crash", name


def told(world: World, move: Move) -> str:
    """A move in words; call it before the move is made."""
    kind, *args = move
    match kind:
        case "authorize":
            return f"{args[0]}: authorize call {args[1]}: {args[2]}"
        case "resume":
            return f"{args[0]}: resume call {args[1]}: {args[2]}"
        case "execute":
            return f"{args[0]}: execute call {args[1]}: {args[2]}"
        case "run" | "record" | "fail":
            flight = world.process(args[0]).flights[args[1]]
            what = world.history.asked.get(flight.digest)
            words = {"run": "the tool runs", "record": "records that it ran",
                     "fail": "records that the tool raised"}  # fmt: skip
            return f"{args[0]}: {words[kind]} ({what.what.call if what else 'undecided'})"
        case "answer":
            person, digest, verdict, shown = args
            call = world.history.asked[digest].what.call
            forged = "" if shown == digest else " with what was signed for another request"
            return f"{person}: {verdict} call {call} ({world.variant_of(digest)}){forged}"
        case "leave":
            return f"{args[0]}: leave the job {'cleanly' if args[1] else 'by an exception'}"
        case "rejoin":
            return f"{args[0]}: rejoin job {args[1]}"
        case "handover":
            return f"{args[0]}: leave the job cleanly, and {args[1]} rejoins it"
        case "renew":
            return f"{args[0]}: renew its lease"
        case "crash":
            return f"{args[0]}: crashes"
        case "label":
            return f"{args[2]}: import {args[0]} again as {args[1]}"
        case "mark":
            return f"a person: {args[0]} {args[1]} = {args[2]}"
        case "revoke":
            known = world.history.credentials[args[0]]
            return f"a person: revoke the credential of {known.agent} in job {known.job}"
        case "end":
            return f"a person: end job {args[0]}"
        case "settle":
            return f"a person: settle call {world.history.asked[args[0]].what.call}"
        case "configure":
            return "the site's configuration changes"
        case "tighten":
            return "the policy wants two people from now on"
        case "tick":
            return "time passes"
    return str(kind)


_EXPORT = Variant("export_asset", "photo", "site")
_TEAM = Variant("export_asset", "photo", "team")
_LOGO = Variant("export_asset", "logo", "site")
_LOGO_TEAM = Variant("export_asset", "logo", "team")
_PUBLISH = Variant("publish", "logo", "team")
_CROP = Variant("crop", "logo")

SCOPES = {scope.name: scope for scope in (
    Scope(
        name="people",
        about="who may answer, once, in time, and for what; edits, a rising class, stricter policy",
        calls={"c1": (_EXPORT, _LOGO)},
        moves=(*GRAPH, "answer", "label", "tighten", "tick"),
        answers=(("omar", "approve"), ("lee", "approve"), ("kim", "approve"), ("oda", "approve"),
                 ("omar", "deny")),
        labels=(("photo", "regulated", "ines"), ("photo", "customer-data", "omar")),
        races=frozenset({"answer", "tick", "label"}),
        setup=Setup(),
        depth=4,
        quick=3,
        goals=("claimed", "taken"),
    ),
    Scope(
        name="twice",
        about="two calls for the same thing, replays, and signatures moved between requests",
        calls={"c1": (_EXPORT,), "c2": (_EXPORT, _TEAM)},
        moves=(*GRAPH, "fail", "answer", "forge"),
        answers=(("omar", "approve"), ("lee", "deny")),
        races=frozenset({"execute", "answer"}),
        setup=Setup(),
        depth=8,
        quick=6,
        goals=("sent c1 to site", "sent c2 to site"),
    ),
    Scope(
        name="crash",
        about="a crash between any two steps, leases, sweeping, reconciling, settling",
        calls={"c1": (_LOGO_TEAM,), "c2": (_PUBLISH,)},
        moves=(*GRAPH, "fail", "crash", "leave", "renew", "sweep", "reconcile", "settle", "tick"),
        setup=Setup(lease=2, grant=2, credential=3),
        races=frozenset({"tick", "sweep", "execute"}),
        depth=6,
        goals=("sent c1 to team", "grant unknown", "grant executed", "grant failed"),
    ),
    Scope(
        name="rejoin",
        about="a waiting job entered again by another process; the old one still at work",
        calls={"c1": (_EXPORT,), "c2": (_CROP,)},
        moves=(*GRAPH, "fail", "leave", "rejoin", "answer", "end", "sweep", "tick"),
        answers=(("omar", "approve"),),
        setup=Setup(lease=3, review=3),
        races=frozenset({"handover", "end"}),
        depth=5,
        goals=("epoch 2",),
    ),
    Scope(
        name="revoke",
        about="credentials, configuration, holds and recalls that change at any step",
        calls={"c1": (_LOGO_TEAM, _LOGO)},
        moves=(*GRAPH, "answer", "revoke", "mark", "configure", "label", "end", "tick", "renew"),
        answers=(("omar", "approve"),),
        labels=(("logo", "customer-data", "kim"),),
        marks=(("logo", "held", True), ("logo", "held", False), ("logo", "recalled", True)),
        setup=Setup(credential=2, grant=3),
        races=frozenset({"revoke", "mark", "label", "tick", "end"}),
        depth=4,
        goals=("sent c1 to team", "grant revoked"),
    ),
    Scope(
        name="lineage",
        about="a class that rises before, while and after something is made from an asset",
        calls={"c1": (_CROP,), "c2": (Variant("export_asset", "crop of logo", "team"),)},
        moves=(*GRAPH, "fail", "label", "mark", "answer"),
        answers=(("omar", "approve"), ("ines", "approve")),
        labels=(("logo", "customer-data", "kim"), ("crop of logo", "regulated", "omar")),
        marks=(("logo", "held", True), ("logo", "recalled", True)),
        setup=Setup(grant=9),
        races=frozenset({"label", "mark"}),
        depth=7,
        goals=("made crop of logo", "sent c2 to team"),
    ),
    Scope(
        name="jobs",
        about="two jobs of two people: neither sees, uses or answers for the other's",
        calls={"c1": (_EXPORT, _LOGO_TEAM), "c2": (Variant("crop", "logo", agent="publisher"),)},
        moves=(*GRAPH, "answer", "end", "leave"),
        answers=(("lee", "approve"), ("kim", "approve"), ("omar", "approve")),
        setup=Setup(second=True),
        depth=6,
        quick=4,
        goals=("sent c1 to site", "sent c1 to team"),
    ),
    Scope(
        name="all",
        about="every move at once, to a smaller depth",
        calls={"c1": (_EXPORT, _LOGO_TEAM), "c2": (_CROP, _PUBLISH)},
        moves=(*GRAPH, "fail", "crash", "leave", "rejoin", "renew", "answer", "forge", "label",
               "mark", "revoke", "end", "sweep", "reconcile", "settle", "configure", "tighten",
               "tick"),
        answers=(("omar", "approve"), ("omar", "deny"), ("kim", "approve")),
        labels=(("logo", "customer-data", "kim"), ("photo", "regulated", "omar")),
        marks=(("photo", "held", True), ("logo", "recalled", True)),
        setup=Setup(lease=2, second=True),
        depth=3,
        quick=2,
    ),
)}  # fmt: skip
