"""One vocabulary to drive a graph by, whatever gate, mode and checkpointer it has.

A Way is one thread of one graph, guarded or *bare*. The bare graphs are gated too, as many
graphs are: by an `interrupt()` in front of the tools, whose answer is taken from the resume. An
attack is written once, against the words below; it must do harm on a bare graph and none on a
guarded one.

What counts as harm is said in one place: every publish is compared with the rights that were given
(a permitted call: one; an approved call: one, of what the person was shown), and an attack that
harms otherwise says so by `way.wrong(...)`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import hashlib
import itertools
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.errors import InvalidUpdateError
from langgraph.types import Command, interrupt

from agentguard.errors import ApprovalError
from agentguard.jobs.job import Job
from agentguard.model import Verdict
from tests.attacks import graphs as shapes
from tests.attacks import savers
from tests.attacks.ground import Ground, Scene
from tests.attacks.savers import Mode, Saver
from tests.support import KIM, OMAR, call, says

Gate = Literal["protect", "middleware", "inline", "functional"]

YES = {"decisions": [{"type": "approve"}]}
NO = {"decisions": [{"type": "reject"}]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of the matrix."""

    gate: Gate
    mode: Mode
    saver: Saver

    def __str__(self) -> str:
        return f"{self.gate}-{self.mode}-{self.saver}"


class Way:
    """One thread of one graph.

    Args:
        ground: the workspace.
        column: gate, mode and checkpointer.
        saver: the opened checkpointer; None: none.
        runner: what asynchronous calls run on; None for `invoke`.
        guarded: by agentguard; else by an interrupt alone.
        job: the open job; None where the graph is bare.
    """

    def __init__(
        self,
        ground: Ground,
        column: Column,
        *,
        saver: Any,
        runner: asyncio.Runner | None,
        guarded: bool,
        job: Job | None,
    ) -> None:
        self.ground = ground
        self.column = column
        self.saver = saver
        self.guarded = guarded
        self.job = job
        self.thread = uuid.uuid4().hex
        self.scene = Scene()
        ground.tools.scene = self.scene
        self.script: dict[str, AIMessage] = {}
        self.listens: Callable[[Sequence[BaseMessage]], AIMessage | None] | None = None
        self.spoken = 0
        self.inside: Callable[[Any], Any] | None = None
        self.agents: dict[str, str] | None = None
        self.one_sided = False
        self.outer: list[Any] = []
        self.inner: list[Any] = []
        self.tool_list: list[Any] | None = None
        self.compile_with: dict[str, Any] = {}
        self.retries: Any = None
        self.extra_config: dict[str, Any] = {}
        self.extra_configurable: dict[str, Any] = {}
        self.durability: str | None = None
        self.asked = 0
        self.approved_ids: set[str] = set()
        self.digests: dict[str, str] = {}
        self.labels: dict[str, Sequence[str]] = {}
        self.paths: dict[str, Path] = {}
        self.hook: Callable[[], None] = lambda: None
        self.builder: Any = None
        self.built: Any = None
        self.rights: Counter[tuple[str, str, str]] = Counter()
        self.harms: list[str] = []
        self._void: dict[str, int] = {}
        self._runner = runner
        self._graph: Any = None
        self._count = itertools.count(1)

    # --- the graph ---------------------------------------------------------------------------

    @property
    def graph(self) -> Any:
        """The compiled graph, made at first use: set the hooks before."""
        if self._graph is None:
            self._graph = shapes.build(self)
        return self._graph

    def between(self, hook: Callable[[], None]) -> None:
        """Call something each time when the gate has decided and the tool has not claimed yet."""
        self.hook = hook
        # The middleware's gate is the innermost wrapper: nothing of others stands behind it.
        if self.column.gate == "protect" or (self.column.gate == "middleware" and not self.guarded):
            self.inside = lambda request: (self.hook(), request)[1]
        elif self.guarded:
            gate = self.ground.guard.enforcement.authorizer
            authorize = type(gate).authorize

            def authorized(calls: Sequence[Any], **given: Any) -> Any:
                results = authorize(gate, calls, **given)
                self.hook()
                return results

            gate.authorize = authorized  # type: ignore[method-assign]

    def rebuild(self) -> None:
        """Compile anew, as a restart does."""
        self._graph = None

    def node(self, role: Literal["gate", "execute", "ask"]) -> str:
        """The name of the node that plays a role in this gate's graph, for publishing."""
        if self.column.gate != "protect":
            return "tools"
        if self.guarded:
            return "export_tools" if role == "gate" else f"export_tools.{role}"
        return "export_tools" if role == "execute" else "gate"

    @property
    def nodes(self) -> list[str]:
        """Every node of the graph, the model's too."""
        return [name for name in self.graph.nodes if not name.startswith("__")]

    def config(self, **more: Any) -> dict[str, Any]:
        """The config of this thread, in its job."""
        configurable = {"thread_id": self.thread, **self.extra_configurable, **more}
        if self.job is not None:
            configurable = {**self.job.config()["configurable"], **configurable}
        return {"configurable": configurable, **self.extra_config}

    @property
    def entered(self) -> Job:
        """The job that it is in; a bare graph is in none."""
        assert self.job is not None
        return self.job

    # --- running -----------------------------------------------------------------------------

    def invoke(self, given: Any, config: Mapping[str, Any] | None = None) -> Any:
        """Run the graph in this column's mode."""
        keywords = {} if self.durability is None else {"durability": self.durability}
        where = dict(config or self.config())
        if self._runner is None:
            return self.graph.invoke(given, where, **keywords)
        return self.wait(self.graph.ainvoke(given, where, **keywords))

    def wait(self, awaitable: Any) -> Any:
        """The result of something asynchronous, run in the job's own Python context."""
        assert self._runner is not None
        return self._runner.run(awaitable, context=contextvars.copy_context())

    def start(self, *calls: dict[str, Any], id: str | None = None, right: bool = True) -> Any:
        """A user's message, to which the model answers with these calls.

        Args:
            id: of the model's message.
            right: whoever may see the permitted ones run; False: they are hostile themselves.
        """
        text = f"please do {next(self._count)}"
        self.script[text] = says(*calls, id=id or f"m-{uuid.uuid4().hex[:8]}")
        for one in calls:
            source = one["args"].get("source")
            if right and one["name"] == "publish" and not self.is_sensitive(one):
                self.rights[self._effect(source, one["args"]["to"])] += 1
        if self.column.gate == "functional":
            return self.invoke(text)
        return self.invoke({"messages": [HumanMessage(text)]})

    def say(self, text: str) -> Any:
        """A user's message that asks for nothing."""
        given = text if self.column.gate == "functional" else {"messages": [HumanMessage(text)]}
        return self.invoke(given)

    def snapshot(self, config: Mapping[str, Any] | None = None) -> Any:
        """The thread as its checkpointer has it."""
        where = config or self.config()
        if self._runner is None:
            return self.graph.get_state(where)
        return self.wait(self.graph.aget_state(where))

    def interrupts(self) -> tuple[Any, ...]:
        """What the thread waits for."""
        found: tuple[Any, ...] = self.snapshot().interrupts
        return found

    @property
    def pending(self) -> bool:
        """Whether the thread waits for a person."""
        return bool(self.interrupts())

    def history(self) -> list[Any]:
        """Every checkpoint of the thread, the newest first."""
        if self._runner is None:
            return list(self.graph.get_state_history(self.config()))

        async def collect() -> list[Any]:
            return [one async for one in self.graph.aget_state_history(self.config())]

        found: list[Any] = self.wait(collect())
        return found

    def rerun(self, old: Any) -> Any:
        """Run on from an old checkpoint."""
        return self.invoke(None, self.config(**old.config["configurable"]))

    def stored(self) -> list[Any]:
        """Every checkpoint as the checkpointer holds it."""
        return savers.stored(self, self.thread)

    def update_state(self, values: Any, *, as_node: str | None = None, at: Any = None) -> Any:
        """Write to the thread's state; returns the config of the new checkpoint."""
        where = self.config(**(at.config["configurable"] if at is not None else {}))
        if self._runner is None:
            return self.graph.update_state(where, values, as_node=as_node)
        return self.wait(self.graph.aupdate_state(where, values, as_node=as_node))

    def resume(self, value: Any = YES, *, update: Any = None, goto: Any = (), **at: Any) -> Any:
        """Answer everything that waits with one value, and perhaps more in the same Command."""
        held = self.interrupts()
        if not held and update is None and not goto:
            return self.invoke(None, self.config(**at))
        given = {one.id: value for one in held}
        return self.invoke(Command(resume=given or None, update=update, goto=goto),
                           self.config(**at))  # fmt: skip

    def goto(self, *targets: Any) -> Any:
        """Route the graph from outside."""
        return self.invoke(Command(goto=list(targets)))

    @contextlib.contextmanager
    def upstream_may_refuse(self) -> Iterator[None]:
        """LangGraph's own refusal of an update is as good as ours."""
        with contextlib.suppress(InvalidUpdateError):
            yield

    @contextlib.contextmanager
    def must_not_crash(self) -> Iterator[None]:
        """A run that fails here leaves the thread where nobody can go on: that is harm."""
        try:
            yield
        except Exception as error:  # whatever it is
            self.wrong(f"the run crashed: {type(error).__name__}: {error!s:.80}")

    # --- media and people ---------------------------------------------------------------------

    def asset(self, *labels: str) -> str:
        """A new picture, `brand` unless said otherwise: an asset id, or a path on a bare graph."""
        labels = labels or ("brand",)
        path = self.ground.picture()
        handle = str(path) if self.job is None else self.job.import_asset(path, list(labels))
        self.paths[handle] = path
        self.digests[handle] = hashlib.sha256(path.read_bytes()).hexdigest()
        self.labels[handle] = labels
        return handle

    def face(self) -> str:
        """A picture that a person must approve before the team gets it."""
        return self.asset("likeness")

    def publish(self, source: str, *, id: str | None = None, to: str = "team") -> dict[str, Any]:
        """A call that publishes a picture."""
        return call("publish", {"source": source, "to": to}, id=id or f"c-{uuid.uuid4().hex[:8]}")

    def is_sensitive(self, one: Mapping[str, Any]) -> bool:
        """Whether a bare gate asks about a call."""
        named = self.labels.get(str(one.get("args", {}).get("source")), ())
        return bool(set(named) & {"likeness", "regulated"})

    def approve(self, *people: str, only: str | None = None, group: str | None = None) -> None:
        """People look at what waits and say yes; that is the right to do exactly this once."""
        for shown in self._shown():
            if only is None or shown["source"] == only:
                self.rights[self._effect(shown["source"], shown["to"])] += 1
        if self.job is None:
            return
        for approval in self.ground.guard.approvals.list():
            if approval.job == self.job.id and only in (None, approval.arguments["source"]):
                for person in people or (OMAR,):
                    with contextlib.suppress(ApprovalError):  # it was voided meanwhile
                        self.ground.answer(approval.request, person, Verdict.APPROVE, group)

    def _shown(self) -> list[Mapping[str, Any]]:
        if self.job is not None:
            approvals = self.ground.guard.approvals.list()
            return [one.arguments for one in approvals if one.job == self.job.id]
        return [one["args"] for held in self.interrupts() for one in held.value["calls"]]

    def void(self, source: str) -> None:
        """From now on nobody has the right to publish this picture."""
        digest = self.digests[source]
        self._void[digest] = sum(1 for effect in self.scene.effects if effect[0] == digest)

    def hold(self, source: str, *, column: str = "held") -> None:
        """Put a picture under legal hold, or recall it."""
        self.void(source)
        if self.guarded:
            self.ground.guard.ledger.mark_asset(
                self.digests[source], column=column, value=True, by=OMAR
            )

    def another(self, *, saver: Any = None) -> Way:
        """A second graph over the same thread, job and pictures; its hooks are its own."""
        other = Way(
            self.ground, self.column, saver=saver or self.saver, runner=self._runner,
            guarded=self.guarded, job=self.job,
        )  # fmt: skip
        other.thread, other.scene, other.script = self.thread, self.scene, self.script
        other.digests, other.labels, other.rights = self.digests, self.labels, self.rights
        other.approved_ids, other._count = self.approved_ids, self._count
        self.ground.tools.scene = self.scene
        return other

    # --- the bare gate ------------------------------------------------------------------------

    def naive_gate(self, calls: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> bool:
        """What a bare graph has: an interrupt, whose resume value is the approval.

        It remembers what was approved by call id, as a first draft of such a gate does.
        """
        held = [one for one in calls
                if self.is_sensitive(one) and one["id"] not in self.approved_ids]  # fmt: skip
        if not held:
            return True
        self.asked += 1  # I/O before an interrupt: it happens again at every resume
        rounds = 1
        for one in held:
            if "regulated" in self.labels[one["args"]["source"]]:
                rounds = 2  # two people, so two questions
        for _ in range(rounds):
            answer = interrupt({"calls": held})
            if answer == NO:
                return False
            if answer != YES:
                raise ValueError(f"got {answer!r:.60}, expected an approval")
        self.approved_ids |= {one["id"] for one in held}
        return True

    # --- what came of it ----------------------------------------------------------------------

    def _effect(self, source: str, to: str) -> tuple[str, str, str]:
        return self.digests.get(source, source), to, self.scene.driver

    def published(self, source: str) -> int:
        """How often a picture was published."""
        return sum(1 for effect in self.scene.effects if effect[0] == self.digests[source])

    def wrong(self, what: str) -> None:
        """Say that the attack did harm other than by publishing."""
        self.harms.append(what)

    def harm(self) -> list[str]:
        """All the harm that was done: what was published without a right to it, and the rest."""
        names = {digest: handle for handle, digest in self.digests.items()}
        found = Counter(self.scene.effects) - self.rights
        beyond = [
            f"{names.get(digest, digest)[-24:]} went to {to} {times} times too often, by {driver}"
            for (digest, to, driver), times in found.items()
        ]
        for digest, before in self._void.items():
            times = sum(1 for effect in self.scene.effects if effect[0] == digest)
            if times > before:
                beyond.append(f"{names[digest][-24:]} was published after its right was gone")
        return [*beyond, *self.harms]

    def require_usable(self) -> None:
        """The thread goes on: a good call runs, once, and the model is told so."""
        self.scene.driver, self.extra_configurable = "after", {}
        self.scene.after_effect = lambda: None
        if self.outer or self.inner or self.inside is not None:
            self.outer, self.inner, self.inside = [], [], None
            self.rebuild()
        good = self.asset("brand")
        state = self.start(self.publish(good))
        assert self.published(good) == 1, state
        if self.column.gate == "functional":
            assert "published" in state[-1], state
            return
        told = [m for m in state["messages"] if isinstance(m, ToolMessage)][-1]
        assert (told.status, told.content) == ("success", "published")

    @property
    def requester(self) -> str:
        """Who asked for the job."""
        return KIM
