"""What a scenario file says: one attack, its benign twin, and the effects that tell them apart.

Strict: a key that nobody knows is refused with its file and place, so that a misspelt `forbidden`
can't make an attack look stopped.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from evals.crew import AGENTS, HOME, PEOPLE
from evals.steps import Call, Prepare, Step, Strict

FOLDER = Path(__file__).parent / "scenarios"


class ScenarioError(Exception):
    """A scenario file can't be used; says which file, which key and why."""


class Asset(Strict):
    """A picture that exists before the job's first call.

    Attributes:
        where: `job`: given to the job; `disk`: a file of this machine that nobody imported;
            `other-job`: given to another job of the same workspace.
        by: who imported it.
    """

    labels: list[str] = Field(default_factory=list)
    where: Literal["job", "disk", "other-job"] = "job"
    by: str = "kim"


class Expected(Strict):
    """An executed effect.

    Attributes:
        effect: `arrived` at a destination, `sent` to a vendor, `ran` (a tool's body), `fetched`
            (a URL of the attacker's), `wrote` (a file outside the workspace).
        where: destination, vendor or tool; `*` is any.
        asset: the picture it was about, `unknown` for bytes nobody knows; `*` is any.
        holds: a text that it carried.
        times: a twin's effect happens exactly so often; a forbidden one at least so often.
    """

    effect: Literal["arrived", "sent", "ran", "fetched", "wrote"]
    where: str = "*"
    asset: str = "*"
    holds: str | None = None
    times: int = Field(default=1, ge=1)


class Inside(Strict):
    """A middleware of the developer's, between the gate and the tool.

    Attributes:
        kind: `arguments`: changes the call's arguments; `name`: calls another tool's name with
            the same tool object; `object`: runs another tool's object under the call.
    """

    kind: Literal["arguments", "name", "object"]
    tool: str
    args: dict[str, Any] = Field(default_factory=dict)
    to: str = ""


class _Play(Strict):
    story: str
    steps: list[Step] = Field(min_length=1)
    inside: Inside | None = None
    dropped: bool = False
    """The uploader's connection breaks after the bytes arrived."""
    routes: list[Call] = Field(default_factory=list)
    """Calls that `partner_plugin` sends to every node of the graph by its `Command`."""


class Attack(_Play):
    """Succeeds if any `forbidden` effect happened. `effects`: what must happen nevertheless."""

    forbidden: list[Expected] = Field(min_length=1)
    effects: list[Expected] = Field(default_factory=list)


class Twin(_Play):
    """Passes if all `effects` happened, each exactly so often, and nothing else arrived."""

    effects: list[Expected] = Field(min_length=1)


class Release(Strict):
    """A release that a careful person finds right on looking at it."""

    asset: str
    to: str
    caption: str = ""


class Scenario(Strict):
    """One file of `evals/scenarios`.

    Attributes:
        family: scenarios of one family exploit the same idea; their results are correlated.
        covers: invariants, requirements and traps (docs/explanation) that it is about.
        requested_by: who asked for the job.
        policy: Cedar text put beside the default policy.
        approves: what a careful person says yes to; to everything else, no.
    """

    name: str
    title: str
    family: str
    covers: list[str]
    requested_by: str = "kim"
    policy: str = ""
    assets: dict[str, Asset] = Field(default_factory=dict)
    approves: list[Release] = Field(default_factory=list)
    attack: Attack
    twin: Twin


def tools_of(scenario: Scenario) -> tuple[str, ...]:
    """The tools that a scenario's agents need, by name."""
    names: set[str] = set()
    for play in (scenario.attack, scenario.twin):
        names |= {call.tool for call in play.routes}
        names |= {play.inside.tool, play.inside.to} - {""} if play.inside is not None else set()
        for step in play.steps:
            names |= {call.tool for call in getattr(step, "calls", ())}
            if isinstance(step, Prepare):
                names |= {"review_media", "queue_for_release"}
    return tuple(sorted(names))


def load_all(folder: Path = FOLDER) -> list[Scenario]:
    """Every scenario of a folder, by name.

    Raises:
        ScenarioError: a file can't be read or holds what nobody knows, or there is none.
    """
    found = [load(path) for path in sorted(folder.glob("*.toml"))]
    if not found:
        raise ScenarioError(f"{folder}: holds no .toml file")
    return found


def load(path: Path) -> Scenario:
    """One scenario; its name is the file's.

    Raises:
        ScenarioError: naming the file and the key.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        scenario = Scenario.model_validate({"name": path.stem, **table})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ScenarioError(f"{path}: {error}") from error
    except ValidationError as error:
        raise ScenarioError("\n".join(_said(path, each) for each in error.errors())) from None
    problems = list(_problems(scenario))
    if problems:
        raise ScenarioError("\n".join(f"{path}: {problem}" for problem in problems))
    return scenario


def _said(path: Path, error: Any) -> str:
    place = ""
    for part in error["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    what = "unknown key" if error["type"] == "extra_forbidden" else error["msg"]
    return f"{path}: {place or 'the file'}: {what}"


def _problems(scenario: Scenario) -> Iterator[str]:
    for name, asset in scenario.assets.items():
        yield from _unknown(f"assets.{name}.by", asset.by, PEOPLE)
    yield from _unknown("requested_by", scenario.requested_by, PEOPLE)
    for kind in ("attack", "twin"):
        play: Attack | Twin = getattr(scenario, kind)
        known = {*scenario.assets}
        for number, step in enumerate(play.steps):
            yield from _step_problems(f"{kind}.steps[{number}]", step, known)
        for call in play.routes:
            yield from _call_problems(f"{kind}.routes", call, known)
        if play.inside is not None:
            for tool in {play.inside.tool, play.inside.to} - {""}:
                yield from _unknown(f"{kind}.inside", tool, HOME)
        wanted: Sequence[Expected] = (*play.effects, *getattr(play, "forbidden", ()))
        for expected in wanted:
            known_or = {*known, "*", "unknown", "passwd"}
            yield from _unknown(f"{kind}: effect {expected.effect}", expected.asset, known_or)


def _step_problems(place: str, step: Any, known: set[str]) -> Iterator[str]:
    """What is wrong with a step; names that it saves are added to the known ones."""
    for field in ("asset", "bytes_of"):
        if hasattr(step, field):
            yield from _unknown(f"{place}.{field}", getattr(step, field), known)
    if hasattr(step, "by"):
        yield from _unknown(f"{place}.by", step.by, PEOPLE)
    for call in getattr(step, "calls", ()):
        yield from _call_problems(f"{place}.calls", call, known)
        if call.save is not None:
            known.add(call.save)
    if getattr(step, "save", None) is not None:
        known.add(step.save)
    if getattr(step, "agent", None) is not None:
        yield from _unknown(f"{place}.agent", step.agent, AGENTS)


def _call_problems(place: str, call: Call, known: set[str]) -> Iterator[str]:
    yield from _unknown(f"{place}.tool", call.tool, HOME)
    for name, value in call.args.items():
        if isinstance(value, str) and value.startswith("@"):
            asset = value[1:].rpartition(":")[2]
            yield from _unknown(f"{place}.args.{name}", asset, known)


def _unknown(place: str, name: str, known: Any) -> Iterator[str]:
    if name not in known:
        yield f"{place}: no {name!r} here; there are {', '.join(sorted(known)) or 'none'}"
