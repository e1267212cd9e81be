"""One run of one play through one guard: the steps of a scenario, carried out."""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.types import Command

from evals import scenario as s
from evals import steps
from evals.crew import HOME
from evals.loops import Loop, Mouth
from evals.meddling import meddle
from evals.people import Verdict
from evals.references import resolve
from evals.world import World, picture


class NotExpressible(Exception):
    """This guard has nothing that the step could be done to; the scenario is n/a for it."""


class Session(ABC):
    """What every guard offers to a scenario.

    Args:
        plan: the scenario. play: its attack or its twin.
        verdict: what the person who is asked says.
    """

    asks = True
    """Whether anybody is ever asked: without it there are no answers to attack."""

    def __init__(
        self, world: World, plan: s.Scenario, play: s.Attack | s.Twin, verdict: Verdict
    ) -> None:
        self.world = world
        self.plan = plan
        self.play = play
        self.verdict = verdict
        self.variant = 0
        self.variants = 1
        self.mouth = Mouth()
        self.asked = 0
        self.calls = 0
        self.seconds = 0.0
        self.notes: list[str] = []
        self.used = s.tools_of(plan)
        self.tools: dict[str, BaseTool] = {}
        self.handles: dict[str, str] = {}
        self.files: dict[str, Path] = {}
        self._loops: dict[tuple[str, str], Loop] = {}
        self._last: Loop | None = None
        self._ids = itertools.count(1)
        world.dropped = play.dropped
        for name, asset in plan.assets.items():
            folder = world.outside if asset.where == "disk" else world.work / asset.where
            folder.mkdir(exist_ok=True)
            self.files[name] = folder / f"{name}.png"
            world.name(picture(self.files[name], name), name)
        world.name(Path("/etc/passwd").read_bytes(), "passwd")

    # --- what a guard has to say ---------------------------------------------------------------

    @abstractmethod
    def make_loop(self, agent: str, thread: str) -> Loop:
        """The graph and thread that an agent's calls go through."""

    @abstractmethod
    def arguments(self, tool: str, args: dict[str, Any], save: str | None) -> dict[str, Any]:
        """What the model has to write beyond what the scenario says: where outputs go."""

    @abstractmethod
    def saved(self, name: str, call: Mapping[str, Any], message: ToolMessage | None) -> None:
        """Remember what a call made under a name."""

    @abstractmethod
    def people(self) -> None:
        """Everybody who is asked answers."""

    @abstractmethod
    def answer(self, step: steps.Answer) -> None:
        """One person answers everything."""

    @abstractmethod
    def resumed(self, loop: Loop) -> Any:
        """What the graph is invoked with to go on after answers."""

    @abstractmethod
    def tool_objects(self, agent: str) -> dict[str, BaseTool]:
        """The tool objects of an agent's graph, by name."""

    def place_of(self, asset: str) -> Path:
        """Where the guard keeps an asset's bytes."""
        return self.files[asset]

    def rare(self, step: Any) -> None:
        """A step that only some guards know."""
        raise NotExpressible(f"{step.do}: this guard has no such thing")

    @abstractmethod
    def close(self) -> None:
        """Let go of everything."""

    # --- steps ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Carry out all steps of the play."""
        for step in self.play.steps:
            self._step(step)

    def _step(self, step: Any) -> None:
        match step:
            case steps.Say():
                self._say(step)
            case steps.Prepare():
                look = steps.Call(tool="review_media", args={"source": f"@{step.asset}"})
                queue = steps.Call(
                    tool="queue_for_release", args={"asset": f"@{step.asset}", "to": step.to}
                )
                for call in (look, queue):
                    self._say(steps.Say(do="say", calls=[call]))
            case steps.People():
                self.people()
                if step.resume and self.asks:
                    self._resume_all()
            case steps.Answer():
                if not self.asks:
                    raise NotExpressible("answer: this guard asks nobody")
                self.answer(step)
                if step.resume:
                    self._resume_all()
            case steps.Resume():
                if self.asks or self.latest().stopped():
                    self._resume(step)
                elif isinstance(self.play, s.Attack):  # a job goes on; an attack has no target
                    raise NotExpressible("resume: this guard asks nobody")
            case steps.UpdateState() | steps.Goto() | steps.Replay() | steps.Invoke():
                meddle(self, step)
            case steps.Tamper():
                place = self.place_of(step.asset)
                place.chmod(0o600)
                place.write_bytes(self.files[step.bytes_of].read_bytes())
            case _:
                self.rare(step)

    def _say(self, step: steps.Say) -> None:
        agent = step.agent or HOME[step.calls[0].tool]
        loop = self.loop(agent, step.thread)
        calls = [self.written(call) for call in step.calls]
        self.calls += len(calls)
        loop.said = self.mouth.load(agent, calls)
        with self.noting("say"):
            stop = list(loop.runners) if step.stop else None
            self.invoke(loop, {"messages": [("user", "Go on.")]}, stop=stop)
        for call, written in zip(step.calls, calls, strict=True):
            if call.save:
                self.saved(call.save, written, self._result(loop, written["id"]))

    def _resume_all(self) -> None:
        for loop in list(self._loops.values()):
            if loop.waiting():
                with self.noting("resume"):
                    self.invoke(loop, self.resumed(loop))

    def _resume(self, step: steps.Resume) -> None:
        loop = self.latest()
        value = self.resumed(loop) if step.value is None else Command(resume=step.value)
        if step.calls:
            update = {"messages": [self.forged(loop, step.calls)]}
            resume = value.resume if isinstance(value, Command) else {"go": "on"}
            value = Command(resume=resume, update=update)

        def go() -> None:
            with self.noting("resume"):
                self.invoke(loop, value)

        if step.times > 1:
            self.world.crowd = threading.Barrier(step.times)
        threads = [threading.Thread(target=go) for _ in range(step.times)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    # --- shared --------------------------------------------------------------------------------

    def loop(self, agent: str, thread: str) -> Loop:
        """The loop of an agent on a thread, made at first use."""
        key = self.loop_key(agent, thread)
        if key not in self._loops:
            self._loops[key] = self.make_loop(*key)
        self._last = self._loops[key]
        return self._last

    def loop_key(self, agent: str, thread: str) -> tuple[str, str]:
        """Which agents share a graph."""
        return agent, thread

    def loops(self) -> list[Loop]:
        """All loops so far."""
        return list(self._loops.values())

    def invoke(
        self,
        loop: Loop,
        value: Any,
        config: RunnableConfig | None = None,
        stop: list[str] | None = None,
    ) -> Any:
        """Run a loop's graph, timed without the tools' own time.

        Args:
            stop: nodes before which the run stops.
        """
        busy = self.world.busy
        start = time.perf_counter()
        try:
            return loop.invoke(value, config, stop)
        finally:
            self.seconds += time.perf_counter() - start - (self.world.busy - busy)
            self.count_questions(loop)

    @abstractmethod
    def count_questions(self, loop: Loop) -> None:
        """Count what people were asked; after each run of a graph."""

    def written(self, call: steps.Call) -> dict[str, Any]:
        """A call as the model writes it for this guard."""
        args = self.arguments(
            call.tool, {name: self.resolve(v) for name, v in call.args.items()}, call.save
        )
        number = f"call-{next(self._ids)}"
        return {"name": call.tool, "args": args, "id": call.id or number, "type": "tool_call"}

    def resolve(self, value: Any) -> Any:
        """An argument with `@asset` and `{...}` replaced by what they stand for."""
        return resolve(value, handles=self.handles, files=self.files, world=self.world)

    def forged(self, loop: Loop, calls: list[steps.Call]) -> AIMessage:
        """The loop's last message with other calls."""
        said = loop.said.id if loop.said is not None else None
        return AIMessage("", tool_calls=[self.written(call) for call in calls], id=said)

    def latest(self) -> Loop:
        """The loop that ran last."""
        if self._last is None:
            raise NotExpressible("nothing ran yet")
        return self._last

    def _result(self, loop: Loop, call_id: str) -> ToolMessage | None:
        found = [
            message
            for message in loop.messages()
            if isinstance(message, ToolMessage) and message.tool_call_id == call_id
        ]
        return found[-1] if found else None

    @contextlib.contextmanager
    def noting(self, what: str) -> Iterator[None]:
        """A run that breaks is noted; what it did counts all the same."""
        try:
            yield
        except NotExpressible:
            raise
        except Exception as error:
            told = re.sub(r"\s+", " ", str(error))[:160]
            self.notes.append(f"{what}: {type(error).__name__}: {told}")
