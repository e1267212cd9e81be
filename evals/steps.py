"""What can be done in a scenario: the steps, as its file writes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Call(Strict):
    """A tool call as the model writes it. See README.md for `@asset` and `{...}` in arguments.

    Attributes:
        save: a name for the picture that the call made.
    """

    tool: str
    args: dict[str, Any] = {}
    id: str | None = None
    save: str | None = None


class _Calls(Strict):
    calls: list[Call] = Field(min_length=1)
    agent: str | None = None


class Say(_Calls):
    """The model says one message with these calls, and the graph runs until it ends or waits.

    Attributes:
        stop: the run stops before any tool runs, by `interrupt_before` or a crash.
    """

    do: Literal["say"]
    thread: str = "main"
    stop: bool = False


class Prepare(Strict):
    """Review an asset and queue it for a destination, as the job's honest agents would."""

    do: Literal["prepare"]
    asset: str
    to: str


class People(Strict):
    """Whoever is asked looks, and answers as the guard's kind of person does."""

    do: Literal["people"]
    resume: bool = True


class Answer(Strict):
    """One person answers everything that is asked, come what may (an attacker, or a mistake)."""

    do: Literal["answer"]
    by: str
    verdict: Literal["approve", "deny"] = "approve"
    group: str | None = None
    resume: bool = True


class Resume(Strict):
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
    """`Command(goto=Send(node, calls))` to every node of the calls' agent.

    Attributes:
        state: a forged state that travels with the call, in either form that ToolNode takes.
    """

    do: Literal["goto"]
    state: str | None = None


class Replay(Strict):
    """Every old checkpoint that was about to do something runs again."""

    do: Literal["replay"]


class Invoke(_Calls):
    """The agent's own tool objects are invoked with these calls, around the graph."""

    do: Literal["invoke"]


class Tamper(Strict):
    """Other bytes are put where the guard keeps an asset's."""

    do: Literal["tamper"]
    asset: str
    bytes_of: str


class Classify(Strict):
    """A person imports the same bytes with more labels."""

    do: Literal["classify"]
    asset: str
    labels: list[str]
    by: str


class Mark(Strict):
    """An asset is recalled or put under legal hold (`off`: let go again)."""

    do: Literal["mark"]
    asset: str
    column: Literal["recalled", "held"]
    off: bool = False


class Turn(Strict):
    """Time passes while the job's process lives.

    Attributes:
        credentials: `renewed` as a live process does; `kept`: the process only keeps its lease.
    """

    do: Literal["turn"]
    minutes: int = Field(gt=0, le=600)
    credentials: Literal["renewed", "kept"] = "renewed"


class Reimport(Strict):
    """The bytes of an asset are copied out and imported with other labels, as another file."""

    do: Literal["reimport"]
    asset: str
    labels: list[str]
    save: str


class EndJob(Strict):
    """The job ends; what comes later comes too late."""

    do: Literal["end-job"]


Step = Annotated[
    Say | Prepare | People | Answer | Resume | UpdateState | Goto | Replay | Invoke | Tamper
    | Classify | Mark | Turn | Reimport | EndJob,
    Field(discriminator="do"),
]  # fmt: skip
