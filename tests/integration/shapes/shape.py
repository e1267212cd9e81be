"""A shape, what is expected of it, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.shapes.bench import TO, Bench, Go, Kind, Line, told

KINDS: tuple[Kind, ...] = ("permit", "ask", "deny")


@dataclass(frozen=True, slots=True)
class Works:
    """What is permitted happens once, what is asked happens once it is approved."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing happens, and a sentence says what to do.

    Args:
        sentence: a part of it.
        kinds: for which calls; the others work.
    """

    sentence: str
    kinds: Sequence[Kind] = KINDS


@dataclass(frozen=True, slots=True)
class Open:
    """It does not work, and what is said misleads, or nothing is said.

    Args:
        why: what goes wrong.
        sentence: a part of what is said today; empty where nothing is.
        kinds: for which calls; the others work.
    """

    why: str
    sentence: str = ""
    kinds: Sequence[Kind] = KINDS


Outcome = Works | Refused | Open
SHAPES: list[Shape] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One row, or one more form of it.

    Args:
        number: of the row.
        title: what people write.
        make: builds it, and says how to run it.
        outcome: what comes of it.
        effects: how often it publishes.
        silent: lines of the guard without which it acts in silence, inside a job.
        form: it is another form of its row, and does not count.
    """

    number: int
    title: str
    make: Callable[[Bench], Go]
    outcome: Outcome
    effects: int
    silent: Sequence[Line]
    form: bool


def shape(
    number: int,
    title: str,
    outcome: Outcome | None = None,
    *,
    effects: int = 1,
    silent: Sequence[Line] = (),
    form: bool = False,
) -> Callable[[Callable[[Bench], Go]], Callable[[Bench], Go]]:
    """Put a function down as a shape."""

    def add(make: Callable[[Bench], Go]) -> Callable[[Bench], Go]:
        SHAPES.append(
            Shape(
                number=number,
                title=title,
                make=make,
                outcome=outcome or Works(),
                effects=effects,
                silent=silent,
                form=form,
            )
        )
        return make

    return add


@dataclass(slots=True)
class Run:
    """What came of one run of a shape.

    Args:
        effects: where it published.
        said: what the model, the developer or the log was told.
        asked: people were asked before anything happened.
        woken: a resume without an answer did something, or closed the question.
        left: questions that are open at the end.
        used: which of the guard's lines it has.
        raised: the run ended with an exception.
        lines: how many lines of the shape name the guard.
    """

    effects: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    asked: bool = False
    woken: bool = False
    left: int = 0
    used: set[Line] = field(default_factory=set)
    raised: str = ""
    lines: int = 0

    def works(self, shape: Shape, kind: Kind) -> bool:
        """Whether it came to what policy says, and nothing else."""
        wanted = [] if kind == "deny" else [TO[kind]] * shape.effects
        published = [effect for effect in self.effects if effect != "crop"]
        fine = published == wanted and not (self.raised or self.left or self.woken)
        decides = shape.effects > 0
        told = self.says("is not queued for site") == (kind == "deny" and decides)
        return fine and told and self.asked == (kind == "ask" and decides)

    def says(self, sentence: str) -> bool:
        return any(sentence in line for line in [*self.said, self.raised])


def run(shape: Shape, kind: Kind, folder: Path, *, forgot: Line | None = None) -> Run:
    """Run a shape once: build it, ask where it asks, answer, and go on."""
    done = Run()
    with Bench(folder, kind, forgot=forgot) as bench:
        try:
            done.said += told(_drive(shape.make(bench), bench, done))
        except Exception as error:
            done.raised = f"{type(error).__name__}: {error}"
        done.left = len(bench.open_questions())
        done.effects, done.used = list(bench.effects), set(bench.used)
        done.said += bench.heard
        done.lines = len(bench.lines)
    return done


def _drive(go: Go, bench: Bench, done: Run) -> Any:
    result = go(False)
    if not bench.open_questions():
        return result
    before = [effect for effect in bench.effects if effect != "crop"]
    done.said += told(result)
    done.asked = not before and _interrupted(result)
    result = go(True)
    done.woken = len([e for e in bench.effects if e != "crop"]) > 0 or not bench.open_questions()
    for _ in range(4):
        if not bench.open_questions():
            break
        bench.approve()
        result = go(True)
    return result


def _interrupted(result: Any) -> bool:
    return bool(getattr(result, "interrupts", None)) or "__interrupt__" in str(result)
