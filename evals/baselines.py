"""Guards to compare with: none, a tool-name allow-list, and LangChain's own human in the loop."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain.agents.middleware import AgentMiddleware, HumanInTheLoopMiddleware
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from evals import scenario as s
from evals import steps
from evals.crew import AGENTS
from evals.loops import Loop, Meddler, agent_loop
from evals.media import make_tools, open_anything, unguarded_own_tools
from evals.people import Question, Verdict
from evals.session import Session
from evals.world import World

EXPORTS = ("export_asset", "publish")


class Unguarded(Session):
    """Plain tools over paths, in one `create_agent` loop per agent; all share one toolbox."""

    asks = False

    def __init__(
        self, world: World, plan: s.Scenario, play: s.Attack | s.Twin, verdict: Verdict
    ) -> None:
        super().__init__(world, plan, play, verdict)
        made = {**make_tools(world, self.used), **unguarded_own_tools(world)}
        self.tools = {name: made[name] for name in self.used}
        self._saver = InMemorySaver()

    def middleware(self, agent: str) -> Sequence[AgentMiddleware[Any, Any, Any]]:
        """What guards an agent's loop."""
        return ()

    def make_loop(self, agent: str, thread: str) -> Loop:
        middleware = [*self.middleware(agent)]
        if (inside := self.play.inside) is not None:
            args = {name: self.resolve(value) for name, value in inside.args.items()}
            middleware.append(Meddler(inside, args, self.tools.get(inside.to)))
        graph = agent_loop(self.mouth, list(self.tools.values()), middleware, self._saver)
        self.world.forged = [("tools", self.written(call)) for call in self.play.routes]
        return Loop(
            graph=graph,
            config={"configurable": {"thread_id": f"{agent}-{thread}"}},
            agent=agent,
            nodes=("tools",),
            runners=("tools",),
            gates=tuple(name for name in graph.nodes if name.endswith("after_model")),
        )

    def arguments(self, tool: str, args: dict[str, Any], save: str | None) -> dict[str, Any]:
        known = self.tools.get(tool)
        if known is not None and "file" in known.args and "file" not in args:
            name = save or f"made-{len(list(self.world.work.iterdir()))}"
            return {**args, "file": str(self.world.work / f"{name}.png")}
        return args

    def saved(self, name: str, call: Mapping[str, Any], message: ToolMessage | None) -> None:
        artifact = message.artifact if message is not None else None
        files = artifact.get("files") if isinstance(artifact, Mapping) else None
        made = str(files[0]) if files else str(call["args"].get("file", ""))
        self.handles[name] = made
        self.files[name] = Path(made)
        if Path(made).is_file():
            self.world.name(Path(made).read_bytes(), name)

    def rare(self, step: Any) -> None:
        if not isinstance(step, steps.Reimport):
            super().rare(step)
        copy = self.world.work / f"{step.save}.png"
        shutil.copyfile(self.files[step.asset], copy)
        self.files[step.save] = copy
        self.handles[step.save] = str(copy)

    def tool_objects(self, agent: str) -> dict[str, BaseTool]:
        return self.tools

    def people(self) -> None:
        """Nobody is asked."""

    def answer(self, step: steps.Answer) -> None:
        """Nobody is asked."""

    def count_questions(self, loop: Loop) -> None:
        """Nobody is asked."""

    def close(self) -> None:
        """Nothing is held."""

    def resumed(self, loop: Loop) -> Any:
        return None


class AllowListMiddleware(AgentMiddleware[Any, Any, Any]):
    """Lets an agent call the tools of its stage by name, and no others."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self._names = frozenset(names)

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        call = request.tool_call
        if call["name"] in self._names:
            return handler(request)
        return ToolMessage(
            f"{call['name']} is not on this agent's list",
            tool_call_id=call["id"],
            name=call["name"],
            status="error",
        )


class AllowListed(Unguarded):
    """Each agent may call the tools of its own stage; arguments and media are not looked at."""

    def middleware(self, agent: str) -> Sequence[AgentMiddleware[Any, Any, Any]]:
        return (AllowListMiddleware(AGENTS[agent][1]),)


class StockHitl(Unguarded):
    """LangChain's HumanInTheLoopMiddleware on the two export tools; all else runs unasked."""

    asks = True

    def __init__(
        self, world: World, plan: s.Scenario, play: s.Attack | s.Twin, verdict: Verdict
    ) -> None:
        super().__init__(world, plan, play, verdict)
        self._seen: set[str] = set()

    def middleware(self, agent: str) -> Sequence[AgentMiddleware[Any, Any, Any]]:
        return (HumanInTheLoopMiddleware(interrupt_on=dict.fromkeys(EXPORTS, True)),)

    def people(self) -> None:
        for loop in self.loops():
            if loop.waiting():
                loop.held = [self.verdict(question) for question in self._asked_in(loop)]

    def answer(self, step: steps.Answer) -> None:
        for loop in self.loops():
            if loop.waiting():
                loop.held = [step.verdict == "approve" for _ in self._asked_in(loop)]

    def resumed(self, loop: Loop) -> Any:
        if loop.held is None:
            return None
        kinds = [{"type": "approve" if yes else "reject"} for yes in loop.held]
        return Command(resume={"decisions": kinds})

    def count_questions(self, loop: Loop) -> None:
        for interrupt in loop.waiting():
            if interrupt.id not in self._seen:
                self._seen.add(interrupt.id)
                self.asked += len(interrupt.value["action_requests"])

    def _asked_in(self, loop: Loop) -> list[Question]:
        return [
            self._question(action["args"])
            for interrupt in loop.waiting()
            for action in interrupt.value["action_requests"]
        ]

    def _question(self, args: Mapping[str, Any]) -> Question:
        """A careful person opens what the arguments name and reads the rest."""
        source = str(args.get("asset", args.get("source", "")))
        try:
            asset = self.world.name_of(open_anything(source))
        except (OSError, ValueError):
            asset = "unreadable"
        return Question(
            asset=asset, to=str(args.get("to", "")), caption=str(args.get("caption", ""))
        )
