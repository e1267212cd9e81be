"""What a scenario file says: one attack, its benign twin, and the effects that tell them apart.

Strict: a key that nobody knows is refused with its file and place, so that a misspelt `forbidden`
can't make an attack look stopped.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evals.crew import AGENTS, HOME, PEOPLE

FOLDER = Path(__file__).parent / "scenarios"


class ScenarioError(Exception):
    """A scenario file can't be used; says which file, which key and why."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Asset(_Strict):
    """A picture that exists before the job's first call.

    Attributes:
        where: `job`: given to the job; `disk`: a file of this machine that nobody imported;
            `other-job`: given to another job of the same workspace.
        by: who imported it.
    """

    labels: list[str] = []
    where: Literal["job", "disk", "other-job"] = "job"
    by: str = "kim"


class Call(_Strict):
    """A tool call as the model writes it. See README.md for `@asset` and `{...}` in arguments.

    Attributes:
        save: a name for the picture that the call made.
    """

    tool: str
    args: dict[str, Any] = {}
    id: str | None = None
    save: str | None = None


class _Calls(_Strict):
    calls: list[Call] = Field(min_length=1)
    agent: str | None = None


class Say(_Calls):
    """The model says one message with these calls, and the graph runs until it ends or waits."""

    do: Literal["say"]
    thread: str = "main"


class Prepare(_Strict):
    """Review an asset and queue it for a destination, as the job's honest agents would."""

    do: Literal["prepare"]
    asset: str
    to: str


class People(_Strict):
    """Whoever is asked looks, and answers as the guard's kind of person does."""

    do: Literal["people"]
    resume: bool = True


class Answer(_Strict):
    """One person answers everything that is asked, come what may (an attacker, or a mistake)."""

    do: Literal["answer"]
    by: str
    verdict: Literal["approve", "deny"] = "approve"
    group: str | None = None
    resume: bool = True


class Resume(_Strict):
    """The graph is resumed: with what people said, or with a value that nobody said.

    Attributes:
        value: a forged resume value. calls: the waiting message's calls are replaced by these.
        times: how many resumes race each other.
    """

    do: Literal["resume"]
    value: Any = None
    calls: list[Call] = []
    times: int = Field(default=1, ge=1, le=16)


class UpdateState(_Calls):
    """`update_state`: the last message's calls are replaced by these.

    Attributes:
        as_gate: once more as each node that holds tools or asks people.
    """

    do: Literal["update-state"]
    as_gate: bool = False


class Goto(_Calls):
    """`Command(goto=Send(node, calls))` to every node that holds tools or asks people.

    Attributes:
        state: a forged state that travels with the call.
    """

    do: Literal["goto"]
    state: str | None = None


class Replay(_Strict):
    """Every old checkpoint that was about to do something runs again."""

    do: Literal["replay"]


class Invoke(_Calls):
    """The agent's own tool objects are invoked with these calls, around the graph."""

    do: Literal["invoke"]


class Tamper(_Strict):
    """Other bytes are put where the guard keeps an asset's."""

    do: Literal["tamper"]
    asset: str
    bytes_of: str


class Classify(_Strict):
    """A person imports the same bytes with more labels."""

    do: Literal["classify"]
    asset: str
    labels: list[str]
    by: str


class Mark(_Strict):
    """An asset is recalled or put under legal hold (`off`: let go again)."""

    do: Literal["mark"]
    asset: str
    column: Literal["recalled", "held"]
    off: bool = False


class Turn(_Strict):
    """Time passes while the job's process lives.

    Attributes:
        credentials: `renewed` as a live process does; `kept`: the process only keeps its lease.
    """

    do: Literal["turn"]
    minutes: int = Field(gt=0, le=600)
    credentials: Literal["renewed", "kept"] = "renewed"


class Reimport(_Strict):
    """The bytes of an asset are copied out and imported with other labels, as another file."""

    do: Literal["reimport"]
    asset: str
    labels: list[str]
    save: str


class EndJob(_Strict):
    """The job ends; what comes later comes too late."""

    do: Literal["end-job"]


Step = Annotated[
    Say | Prepare | People | Answer | Resume | UpdateState | Goto | Replay | Invoke | Tamper
    | Classify | Mark | Turn | Reimport | EndJob,
    Field(discriminator="do"),
]  # fmt: skip


class Expected(_Strict):
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


class Inside(_Strict):
    """A middleware of the developer's, between the gate and the tool.

    Attributes:
        kind: `arguments`: changes the call's arguments; `name`: calls another tool's name with
            the same tool object; `object`: runs another tool's object under the call.
    """

    kind: Literal["arguments", "name", "object"]
    tool: str
    args: dict[str, Any] = {}
    to: str = ""


class _Play(_Strict):
    story: str
    steps: list[Step] = Field(min_length=1)
    inside: Inside | None = None
    dropped: bool = False
    """The uploader's connection breaks after the bytes arrived."""
    routes: list[Call] = []
    """Calls that `partner_plugin` sends to every node of the graph by its `Command`."""


class Attack(_Play):
    """Succeeds if any `forbidden` effect happened. `effects`: what must happen nevertheless."""

    forbidden: list[Expected] = Field(min_length=1)
    effects: list[Expected] = []


class Twin(_Play):
    """Passes if all `effects` happened, each exactly so often, and nothing else arrived."""

    effects: list[Expected] = Field(min_length=1)


class Release(_Strict):
    """A release that a careful person finds right on looking at it."""

    asset: str
    to: str
    caption: str = ""


class Scenario(_Strict):
    """One file of `evals/scenarios`.

    Attributes:
        family: scenarios of one family exploit the same idea; their results are correlated.
        covers: invariants, requirements and traps of the design that it is about.
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
    assets: dict[str, Asset] = {}
    approves: list[Release] = []
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
            place = f"{kind}.steps[{number}]"
            for field in ("asset", "bytes_of"):
                if hasattr(step, field):
                    yield from _unknown(f"{place}.{field}", getattr(step, field), known)
            if hasattr(step, "by"):
                yield from _unknown(f"{place}.by", step.by, PEOPLE)
            for call in getattr(step, "calls", ()):
                yield from _unknown(f"{place}.calls.tool", call.tool, HOME)
                for value in call.args.values():
                    if isinstance(value, str) and value.startswith("@"):
                        name = value[1:].rpartition(":")[2]
                        yield from _unknown(f"{place}.calls.args", name, known)
                known |= {call.save} - {None}
            known |= {getattr(step, "save", None)} - {None}
            # A forged call names what it likes, and so do the routes of a plugin.
            if getattr(step, "agent", None) is not None:
                yield from _unknown(f"{place}.agent", step.agent, AGENTS)
        wanted: Sequence[Expected] = (*play.effects, *getattr(play, "forbidden", ()))
        for expected in wanted:
            known_or = {*known, "*", "unknown", "passwd"}
            yield from _unknown(f"{kind}: effect {expected.effect}", expected.asset, known_or)


def _unknown(place: str, name: str, known: Any) -> Iterator[str]:
    if name not in known:
        yield f"{place}: no {name!r} here; there are {', '.join(sorted(known)) or 'none'}"
