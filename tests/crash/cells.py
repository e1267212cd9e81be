"""One cell of the crash matrix, and the steps of a call at which a process can die."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

Kind = Literal["broker", "idempotent", "probeable", "opaque", "none"]
Durability = Literal["sync", "async", "exit"]

KINDS: tuple[Kind, ...] = ("broker", "idempotent", "probeable", "opaque", "none")
"""`broker`: the guard's own export tool; `none`: an edit. The others are a developer's uploader:
`idempotent` and `probeable` with a probe in its Binding, `opaque` without."""

DURABILITIES: tuple[Durability, ...] = ("sync", "async", "exit")
DATABASES = ("sqlite", "postgres")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A point of a call at which the process dies.

    Args:
        says: what has happened by then, for people.
        asks: it comes only where a person is asked.
        claimed: the Grant is claimed by then, and its outcome is not recorded.
        effect: it has had its effect by then.
        granted: a Grant exists by then; of a call that is asked, the claim writes it.
    """

    says: str
    asks: bool = False
    claimed: bool = False
    effect: bool = False
    granted: bool = True


STEPS: dict[str, Step] = {
    "authorize.before": Step(says="before the Decision is recorded", granted=False),
    "authorize.in": Step(says="inside the transaction that records it", granted=False),
    "authorize.after": Step(says="it is recorded; LangGraph has no checkpoint of it"),
    "ask.before": Step(says="before the interrupt", asks=True, granted=False),
    "ask.paused": Step(says="the run is paused; nobody has answered", asks=True, granted=False),
    "ask.answered": Step(says="a person approved the paused run", asks=True, granted=False),
    "ask.woken": Step(says="resumed, and the answer is seen", asks=True, granted=False),
    "claim.before": Step(says="the guarded tool is entered"),
    "claim.copies": Step(says="the private copies are made"),
    "grant.in": Step(says="inside the claim, which wrote the Grant", asks=True, granted=False),
    "claim.in": Step(says="inside the transaction that claims the Grant"),
    "claim.after": Step(says="claimed; the tool's body is not entered", claimed=True),
    "body.before": Step(says="in the body, before the effect", claimed=True),
    "body.midway": Step(says="in the middle of the effect", claimed=True),
    "body.after": Step(says="in the body, after the effect", claimed=True, effect=True),
    "outputs.before": Step(says="the body returned, nothing taken in", claimed=True, effect=True),
    "finish.before": Step(says="outputs are in the store", claimed=True, effect=True),
    "finish.in": Step(says="inside the transaction that records it", claimed=True, effect=True),
    "finish.after": Step(says="the outcome is recorded", effect=True),
    "checkpoint.before": Step(says="before LangGraph writes the result", effect=True),
    "checkpoint.after": Step(says="in the next node", effect=True),
    "leave.before": Step(says="the run is over, the job is not left", effect=True),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A tool of some kind in a process that dies at a step.

    Args:
        asked: a person is asked, and says yes before the run goes on.
        patient: whoever takes over reconciles first, and only then resumes the thread.
    """

    step: str
    kind: Kind
    durability: Durability
    database: str = "sqlite"
    asked: bool = False
    patient: bool = False

    @property
    def name(self) -> str:
        more = [name for name in ("asked", "patient") if getattr(self, name)]
        return "-".join([self.step, self.kind, self.durability, self.database, *more])


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What must come of a cell.

    Args:
        at_death: how many effects there are when the process has died.
        grant: the state of its Grant once another worker has swept; "none": it never had one.
        reconciled: how what `reconcile` says of it begins; empty: it says nothing.
        final: the state of the Grant in the end.
    """

    at_death: int
    grant: str
    reconciled: str
    final: str

    @property
    def settled(self) -> bool:
        """Whether a person has to look."""
        return self.reconciled.startswith("stays unknown")


def expected(cell: Cell) -> Expected:
    """What must come of a cell, by what had happened at its step."""
    step = STEPS[cell.step]
    outside = cell.kind != "none"
    sent = step.effect or (cell.step == "body.midway" and cell.kind != "broker")
    at_death = int(sent and outside)
    grant, reconciled = "executed", ""
    if not step.granted or (cell.asked and not (step.claimed or step.effect)):
        grant = "none"
    elif step.claimed:
        grant = "unknown" if outside else "failed"
    elif not step.effect:
        grant = "revoked"
    final = grant
    if grant == "unknown":
        final = "executed" if at_death else "failed"
        reconciled = "stays unknown" if cell.kind == "opaque" else final
    return Expected(at_death=at_death, grant=grant, reconciled=reconciled, final=final)


def cells(databases: tuple[str, ...] = DATABASES, *, whole: bool = False) -> list[Cell]:
    """The matrix: every step x kind x durability x database. An edit asks nobody.

    Args:
        whole: also every later step of calls that a person was asked about, both orders of resuming
            and reconciling for every durability, and the uploader bound as `probeable`, which of
            one call alone is told as `idempotent` is. The tests leave these out, and take from
            PostgreSQL every step of the broker and an opaque tool, with checkpoints that come late.
    """
    found = []
    for name, kind, durability, database in product(STEPS, KINDS, DURABILITIES, databases):
        step = STEPS[name]
        for asked, patient in product((False, True), repeat=2):
            if (step.asks and not asked) or (asked and kind == "none"):
                continue
            if patient and not (step.claimed or step.effect):
                continue  # there is nothing to reconcile
            first = asked == step.asks and kind != "probeable"
            late = durability == "async"
            if database == "postgres":
                first = first and late and not patient and kind in ("broker", "opaque")
            if whole or (first and (late or not patient)):
                found.append(
                    Cell(step=name, kind=kind, durability=durability, database=database,
                         asked=asked, patient=patient)
                )  # fmt: skip
    return found
