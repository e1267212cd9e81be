"""agentguard under test: by `protect`, by `GuardMiddleware`, and in tools that carry the gate."""

from __future__ import annotations

import functools
import hashlib
import re
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool

from agentguard import Guard
from agentguard.config.workspace import load
from agentguard.content.store import Store
from agentguard.errors import ApprovalError
from agentguard.export.broker import Broker
from agentguard.export.folder import Adapter, adapter_for
from agentguard.langgraph import GuardMiddleware
from agentguard.langgraph.guarded_tool import guarded
from agentguard.ledger.open import open_ledger
from agentguard.model import Destination, Verdict, asset_id
from agentguard.people.answers import sign_answer
from agentguard.people.approvals import Approval
from agentguard.policy.policy_set import Policy
from evals import scenario as s
from evals import steps
from evals.crew import AGENTS, PEOPLE, mail
from evals.loops import Loop, Meddler, OpenThreads, agent_loop
from evals.media import make_bindings, make_tools
from evals.people import Question
from evals.people import Verdict as Says
from evals.session import NotExpressible, Session
from evals.shapes import Shape, crew_loop, function_loop, node_loop, out_of_reach
from evals.workspace import Clock, Counting, write_workspace
from evals.world import World

_MADE = re.compile(r"^[^\n:]+: (asset-[0-9a-f]{20}) \(", re.M)
_ORDER = ("omar", "ines", "lee", "kim", "ada")  # who answers first, if they may


@functools.lru_cache(maxsize=8)  # reading the policies is a tenth of a run
def _policy(text: str) -> Policy:
    """The default policy, and a scenario's own beside it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "scenario.cedar").write_text(text, "utf-8")
        return Policy.load([Path(folder)] if text else [], replace=False)


class Guarded(Session):
    """One workspace, guard and job of its own.

    Args:
        open_threads: opens where its threads are kept.
    """

    def __init__(
        self,
        world: World,
        plan: s.Scenario,
        play: s.Attack | s.Twin,
        verdict: Says,
        *,
        shape: Shape,
        open_threads: OpenThreads,
    ) -> None:
        super().__init__(world, plan, play, verdict)
        self.shape = shape
        self.clock = Clock()
        self.keys = write_workspace(world.root)
        self._plain = make_tools(world, self.used)
        self._graph: Any = None
        self._stack = ExitStack()
        self._threads = self._stack.enter_context(open_threads(world.root))
        self.guard = self._stack.enter_context(self._open())
        self.tools = {name: self._tool(name) for name in self.used}
        requester = mail(plan.requested_by)
        self.job = self._stack.enter_context(
            self.guard.open_job(plan.title, requested_by=requester)
        )
        with self.guard.open_job("another job", requested_by=requester) as other:
            for name, asset in plan.assets.items():
                sha256 = hashlib.sha256(self.files[name].read_bytes()).hexdigest()
                self.handles[name] = asset_id(sha256)
                if asset.where == "disk":
                    continue
                job = self.job if asset.where == "job" else other
                self.guard.import_asset(
                    self.files[name], asset.labels, by=mail(asset.by), job=job.id
                )

    def _open(self) -> Guard:
        """`Guard.from_config`, with a broker that notes what arrives."""
        workspace = load(self.world.root / "agentguard.toml")
        return Guard(
            workspace=workspace,
            policy=_policy(self.plan.policy),
            tools=make_bindings(self._plain),
            ledger=open_ledger(workspace, clock=self.clock),
            store=Store(workspace.store),
            broker=Broker(workspace.destinations, make_adapter=self._counting),
        )

    def run(self) -> None:
        if (reason := out_of_reach(self.plan, self.play, self.shape)) is not None:
            raise NotExpressible(reason)
        super().run()

    def close(self) -> None:
        self._stack.close()

    # --- graphs --------------------------------------------------------------------------------

    def loop_key(self, agent: str, thread: str) -> tuple[str, str]:
        return (agent, thread) if self.shape == "agent" else ("crew", thread)

    def make_loop(self, agent: str, thread: str) -> Loop:
        if self.shape == "agent":
            middleware = [*self._meddlers(), GuardMiddleware(self.guard, agent=agent)]
            tools = list(self.tool_objects(agent).values())
            graph = agent_loop(self.mouth, tools, middleware, self._threads.saver)
            nodes: tuple[str, ...] = ("tools",)
        else:
            if self._graph is None:
                self._graph = self._built()
            graph = self._graph
            nodes = tuple(name for name in graph.nodes if "_tools" in name)
        self.world.forged = [
            (node, self.written(call)) for node in nodes for call in self.play.routes
        ]
        gates = self.shape == "graph"  # nodes of their own, before those that run tools
        return Loop(
            graph=graph,
            config=self.job.config(thread_id=f"{self.job.id}-{agent}-{thread}"),
            agent=agent,
            nodes=nodes,
            runners=tuple(n for n in nodes if not (gates and n.endswith("_tools"))),
            threads=self._threads,
        )

    def tool_objects(self, agent: str) -> dict[str, BaseTool]:
        own = [name for name in AGENTS[agent][1] if name in self.used]
        if self.shape in ("inline", "functional"):
            return {name: self._inline(agent)[name] for name in own}
        return {name: self.tools[name] for name in own}

    def _tool(self, name: str) -> BaseTool:
        if name == "queue_for_release":
            return self.guard.queue_tool()
        if name == "export_asset":
            return self.guard.export_tool()
        return self.guard.tools([self._plain[name]])[0]

    def _inline(self, agent: str) -> dict[str, BaseTool]:
        """Every tool, called by hand as this agent: a hijacked one names what it likes.

        Past `guard.tools`, which hands an agent no inline tool of another's stage: what the tools
        refuse when they are called is played here.
        """
        known = {tool.name: tool for tool in self.guard.tools(self.used)}
        point = self.guard.enforcement
        return {
            name: guarded(point, tool, agents=agent, inline=True) for name, tool in known.items()
        }

    def _built(self) -> Any:
        if self.shape == "graph":
            crew = {agent: own for agent in AGENTS if (own := self.tool_objects(agent))}
            return crew_loop(self.mouth, crew, self._meddlers(), self.guard, self._threads)
        crew = {agent: self._inline(agent) for agent in AGENTS}
        build = function_loop if self.shape == "functional" else node_loop
        return build(self.mouth, crew, self._threads)

    def _meddlers(self) -> list[Meddler]:
        inside = self.play.inside
        if inside is None:
            return []
        args = {name: self.resolve(value) for name, value in inside.args.items()}
        return [Meddler(inside, args, self.tools.get(inside.to))]

    def _counting(self, destination: Destination) -> Adapter:
        return Counting(adapter_for(destination), self.world, destination.id)

    # --- media ---------------------------------------------------------------------------------

    def arguments(self, tool: str, args: dict[str, Any], save: str | None) -> dict[str, Any]:
        return args

    def saved(self, name: str, call: Mapping[str, Any], message: ToolMessage | None) -> None:
        found = _MADE.search(message.text) if message is not None else None
        if found is None:
            return
        self.handles[name] = found[1]
        if self.guard.ledger.one("SELECT 1 FROM assets WHERE id = ?", found[1]) is None:
            return  # a broken guard let the tool run and took nothing in
        place = self.place_of(name)
        self.files[name] = place
        self.world.name(place.read_bytes(), name)

    def place_of(self, asset: str) -> Path:
        row = self._row(asset)
        sha256 = row["sha256"]
        return Path(self.guard.workspace.store, sha256[:2], sha256)

    def _row(self, asset: str) -> Any:
        row = self.guard.ledger.one("SELECT * FROM assets WHERE id = ?", self.handles[asset])
        if row is None:
            raise s.ScenarioError(f"{self.plan.name}: {asset} was never imported")
        return row

    def rare(self, step: Any) -> None:
        match step:
            case steps.Classify():
                self.guard.import_asset(self.files[step.asset], step.labels, by=mail(step.by))
            case steps.Mark():
                sha256 = self._row(step.asset)["sha256"]
                self.guard.ledger.mark_asset(
                    sha256, column=step.column, value=not step.off, by=mail("omar")
                )
            case steps.Turn():
                for _ in range(step.minutes * 3):
                    self.clock.now += 20_000
                    if step.credentials == "renewed":
                        self.job.renew()
                    else:
                        lease = self.guard.workspace.lifetimes.lease
                        self.guard.ledger.renew_lease(
                            self.job.id, epoch=self.job.epoch, lease=lease
                        )
            case steps.Reimport():
                copy = self.world.work / f"{step.save}.png"
                copy.write_bytes(self.place_of(step.asset).read_bytes())
                self.handles[step.save] = self.job.import_asset(copy, step.labels)
                self.files[step.save] = copy
            case steps.EndJob():
                self.guard.ledger.end_job(self.job.id, reason="stopped by hand")
            case _:
                super().rare(step)

    # --- people --------------------------------------------------------------------------------

    def people(self) -> None:
        for approval in self.guard.approvals.list():
            yes = self.verdict(self._question(approval))
            verdict = Verdict.APPROVE if yes else Verdict.DENY
            groups = set(approval.needs.groups)
            for name in _ORDER:
                if approval.state != "pending":
                    break
                if mail(name) not in self.guard.approvals.eligible(approval):
                    continue
                group = next(iter(groups.intersection(PEOPLE[name])), None)
                groups -= {group}
                approval = self._sign(approval, name, verdict, group)

    def answer(self, step: steps.Answer) -> None:
        for approval in self.guard.approvals.list():
            try:
                self._sign(approval, step.by, Verdict(step.verdict), step.group)
            except ApprovalError as error:
                self.notes.append(f"answer refused: {error}")

    def resumed(self, loop: Loop) -> Any:
        return None

    def count_questions(self, loop: Loop) -> None:
        row = self.guard.ledger.one("SELECT count(*) AS n FROM approvals")
        self.asked = row["n"] if row is not None else 0

    def _question(self, approval: Approval) -> Question:
        shown = approval.shown
        names = [self.world.name_of_hash(asset["sha256"]) for asset in shown["assets"]]
        return Question(
            asset=names[0] if names else "",
            to=str(shown["destination"] or ""),
            caption=str(shown["args"].get("caption", "")),
        )

    def _sign(self, approval: Approval, name: str, verdict: Verdict, group: str | None) -> Approval:
        answer = sign_answer(
            self.keys[name],
            request=approval.request,
            verdict=verdict,
            person=mail(name),
            group=group,
            at=self.clock(),
        )
        return self.guard.approvals.answer(answer)
