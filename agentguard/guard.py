"""`Guard`: one workspace in one process, opened from its configuration.

What a call goes through is in its enforcement point (calls/enforcement_point.py); graphs are put
under it by `protect` (langgraph/protect_graph.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agentguard.bindings.bound import Bound
from agentguard.bindings.compilation import Tool, tool_name
from agentguard.bindings.compiled_binding import CompiledBinding
from agentguard.bindings.declaration import Binding, declarations_of
from agentguard.calls.builtin_tools import (
    OWN_TOOLS,
    export_asset,
    list_assets,
    queue_for_release,
)
from agentguard.calls.enforcement_point import EnforcementPoint
from agentguard.calls.reconcile import reconcile
from agentguard.config import workspace as configuration
from agentguard.config.workspace import Workspace
from agentguard.content.scratch import sweep_scratch
from agentguard.content.store import Store
from agentguard.errors import (
    BindingError,
    JobError,
)
from agentguard.export.broker import Broker
from agentguard.jobs.job import Job
from agentguard.jobs.registry import Jobs
from agentguard.ledger.ledger import Ledger
from agentguard.ledger.open import checkpoints_of, open_ledger
from agentguard.ledger.queries.jobs import job_by_id, unrevoked_credentials
from agentguard.ledger.verify import Report, verify
from agentguard.people.approvals import Approvals
from agentguard.policy.policy_set import Policy

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool


class Guard:
    """Authorizes the media tool calls of a workspace.

    Make one with `Guard.from_config`; it is a context manager that closes the ledger.

    Args:
        workspace: the configuration.
        policy: the policies.
        tools: declared tools.
        ledger: where everything is remembered.
        store: where asset bytes are.
        broker: the way out.

    Attributes:
        enforcement: what a call goes through.
    """

    def __init__(
        self,
        *,
        workspace: Workspace,
        policy: Policy,
        tools: Iterable[Tool],
        ledger: Ledger,
        store: Store,
        broker: Broker,
    ) -> None:
        self.enforcement = EnforcementPoint(
            workspace=workspace, policy=policy, ledger=ledger, store=store, broker=broker
        )
        self._swept = 0
        self.bind(*tools)
        from agentguard.langgraph.unguarded_runs import BELT

        BELT.watch(self.enforcement)

    @classmethod
    def from_config(
        cls,
        path: Path | str | None = None,
        *,
        tools: Iterable[Tool] = (),
        clock: Callable[[], int] | None = None,
    ) -> Guard:
        """Open the workspace of a configuration file; nothing starts unless all of it is sound.

        Args:
            path: `agentguard.toml`; None searches the working directory and its parents.
            tools: the tools of the graphs that this guard protects: functions and tools with
                `media_tool`, Bindings of others.
            clock: the ledger's time in ms; None: see `open_ledger`.

        Raises:
            ConfigError: the configuration, a policy or a binding can't be used.
            LedgerUnavailable: the ledger can't be opened.
            LedgerCorrupt: the ledger is not what it was.
        """
        workspace = configuration.load(None if path is None else Path(path))
        return cls.open(workspace, tools=tools, clock=clock)

    @classmethod
    def open(
        cls, workspace: Workspace, *, tools: Iterable[Tool], clock: Callable[[], int] | None = None
    ) -> Guard:
        """Open a workspace whose configuration was read before; see `from_config`."""
        policy = Policy.load(workspace.policies, replace=workspace.replace_default_policy)
        ledger = open_ledger(workspace, clock=clock)
        try:
            guard = cls(
                workspace=workspace,
                policy=policy,
                tools=tools,
                ledger=ledger,
                store=Store(workspace.store),
                broker=Broker(workspace.destinations),
            )
            ledger.sweep()
            sweep_scratch()
            guard._drop_removed_identities()
        except BaseException:
            ledger.storage.close()
            raise
        return guard

    def bind(self, *tools: Tool) -> None:
        """Add tools that exist later than the guard: an agent as a tool, a session's MCP tools.

        That is until the first job is opened: each job of a guard has the same tools.

        It reads which packages are installed: in a coroutine, `await asyncio.to_thread(guard.bind,
        ...)`.

        Raises:
            BindingError: a job was opened; all that is wrong with their declarations; a second tool
                of one name, a name of the guard's own tools, or an unknown destination or label.
            PolicyError: the policies do not fit the tools: one breaks the schema for a tool, or
                names what there is not. None of the tools is bound then.
        """
        self.enforcement.bound_tools.bind(*tools)

    def bound_for(self, tool: BaseTool) -> Bound:
        """The Binding of a tool object.

        Raises:
            BindingError: the tool is not bound, or another tool is bound under its name.
        """
        return self.enforcement.bound_for(tool)

    # --- tools ---------------------------------------------------------------------------------

    def tools(
        self,
        only: Iterable[Tool | str] | None = None,
        *,
        agent: str | None = None,
        gate: Literal["graph", "inline"] = "graph",
    ) -> list[BaseTool]:
        """Guarded tools: asset ids instead of paths, nothing to fill in that the guard fills in.

        Args:
            only: tools or their names; None: all of them, with `list_assets`,
                `queue_for_release` and `export_asset`.
            agent: only those of this agent's stages, and those without a stage.
            gate: see `inline_tools`.

        Raises:
            BindingError: a tool is not bound, or there is no such agent; inline, also a tool of a
                stage that the agent does not take.
        """
        from agentguard.langgraph.guarded_tool import guarded, guarded_inline

        if (gate == "inline" or only is None) and agent not in (None, *self.workspace.agents):
            raise BindingError(
                f"no agent {agent!r} is configured; there are"
                f" {', '.join(sorted(self.workspace.agents))}"
            )
        if gate == "inline" and agent is None:
            raise BindingError("gate='inline' needs a configured agent, got None")
        if only is not None:
            chosen = [self._tool_of(tool) for tool in only]
        else:
            for make in OWN_TOOLS:
                self._bound_own(make)
            stages = None if agent is None else {None, *self.workspace.agents[agent].stages}
            chosen = [
                bound.binding.tool
                for bound in list(self.bound.values())
                if stages is None or bound.binding.stage in stages
            ]
        if gate == "graph" or agent is None:
            return [guarded(self.enforcement, tool, agents=agent) for tool in chosen]
        return [guarded_inline(self.enforcement, tool, agent=agent) for tool in chosen]

    def inline_tools(self, *, agent: str) -> list[BaseTool]:
        """Guarded tools of an agent that carry the gate: for the functional API, your own loop.

        Raises:
            BindingError: there is no such agent.
        """
        return self.tools(agent=agent, gate="inline")

    def _tool_of(self, tool: Tool | str) -> Any:
        """The tool object that a name, a declared function or a Binding means."""
        if isinstance(tool, (Binding, CompiledBinding)) or (
            inspect.isfunction(tool) and declarations_of(tool)
        ):
            tool = tool_name(tool)
        if not isinstance(tool, str):
            return tool
        bound = self.bound.get(tool)
        if bound is None:
            known = ", ".join(sorted(self.bound)) or "none"
            raise BindingError(f"no tool {tool!r} is bound; there are {known}")
        return bound.binding.tool

    def list_tool(self) -> BaseTool:
        """`list_assets`, which shows an agent the media of its job."""
        return self._own(list_assets)

    def queue_tool(self) -> BaseTool:
        """`queue_for_release`, for the agent of the queue stage."""
        return self._own(queue_for_release)

    def export_tool(self) -> BaseTool:
        """`export_asset`, for the agent of the export stage; it sends through the broker."""
        return self._own(export_asset)

    def _own(self, make: Callable[[EnforcementPoint], CompiledBinding]) -> BaseTool:
        return self.tools([self._bound_own(make).binding.tool])[0]

    def _bound_own(self, make: Callable[[EnforcementPoint], CompiledBinding]) -> Bound:
        own = self.enforcement
        return own.bound_tools.bind_own(make.__name__, lambda: make(own))

    # --- jobs ----------------------------------------------------------------------------------

    def open_job(self, purpose: str, *, requested_by: str) -> Job:
        """Open a job; use it as a context manager.

        Args:
            purpose: what it is for, for people.
            requested_by: the Person who wants it; they can't approve in it.

        Raises:
            JobError: the person is not configured.
            LedgerUnavailable: the ledger can't be written.
        """
        if requested_by not in self.workspace.people:
            raise JobError(f"{requested_by} is no configured person; add them to [people]")
        self._sweep()
        job, epoch = self.ledger.open_job(
            purpose=purpose, requested_by=requested_by, lease=self.workspace.lifetimes.lease
        )
        return self._hold(job, epoch, requested_by)

    def rejoin_job(self, job: str, *, by: str) -> Job:
        """Re-enter a waiting job, in this process or another.

        Args:
            job: its id.
            by: the requester, or a configured service.

        Raises:
            JobError: unknown, not waiting, or `by` may not.
        """
        self.ledger.sweep()
        known = self.ledger.first(job_by_id(job))
        if known is None:
            raise JobError(f"no job {job:.40} in this ledger; `agentguard jobs list` shows them")
        if by != known.requested_by and by not in self.workspace.services:
            raise JobError(f"only {known.requested_by} or a configured service may rejoin {job}")
        epoch = self.ledger.rejoin_job(job, by=by, lease=self.workspace.lifetimes.lease)
        return self._hold(job, epoch, known.requested_by)

    # --- assets --------------------------------------------------------------------------------

    def import_asset(
        self, file: Path | str, labels: Iterable[str] = (), *, by: str, job: str | None = None
    ) -> str:
        """Take a file into the workspace; returns its asset id.

        Args:
            labels: its class; none means `unclassified`. Known bytes join labels, and so do those
                that the words in the file raise (S7).
            by: the Person who imports it; they can't approve it.
            job: the job that may see it; None: give it to jobs later.

        Raises:
            AssetError: not media, damaged, too large, a secret in its name or its words, an
                unknown label or person.
        """
        return self.enforcement.importer.import_file(file, labels, by=by, job=job)

    def reconcile(self) -> list[tuple[str, str]]:
        """Find out what became of every `unknown` that can be found out (I8).

        Destinations are asked about what `export_asset` sent, the probes of this guard's Bindings
        about what their tools did. Nothing is sent again.

        Returns:
            (request digest, what was found) for each: `executed`, `failed`, or why it stays.
        """
        found = reconcile(self.ledger, self.broker, self.bound)
        return [(one.request, one.sentence) for one in found]

    def verify(self) -> Report:
        """Replay the log and compare every row and checkpoint with it (I10).

        Raises:
            VerificationFailed: naming the first bad record, row or checkpoint.
        """
        return verify(self.ledger.storage, checkpoints_of(self.workspace))

    def close(self) -> None:
        """Stop renewing leases and close the ledger; idempotent."""
        from agentguard.langgraph.unguarded_runs import BELT

        BELT.forget(self.enforcement)
        self.jobs.close()
        self.ledger.storage.close()

    def unguarded(self, why: str) -> AbstractContextManager[None]:
        """Let this context run tools past the guard inside a job; each run is recorded.

        For tools that are no agent's, such as a check that the program itself makes. Nothing about
        such a run is decided, and what it makes is not taken in.

        Args:
            why: the reason, for the auditor.

        Raises:
            ValueError: no reason is given.
        """
        from agentguard.langgraph.unguarded_runs import allowed

        if not why.strip():
            raise ValueError("guard.unguarded() needs a reason, for the auditor who reads the log")
        return allowed(self.enforcement, why)

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what it holds -------------------------------------------------------------------------

    @property
    def workspace(self) -> Workspace:
        """The configuration."""
        return self.enforcement.workspace

    @property
    def policy(self) -> Policy:
        """The policies."""
        return self.enforcement.policy

    @property
    def ledger(self) -> Ledger:
        """Where everything is remembered."""
        return self.enforcement.ledger

    @property
    def store(self) -> Store:
        """Where asset bytes are."""
        return self.enforcement.store

    @property
    def broker(self) -> Broker:
        """The way out."""
        return self.enforcement.broker

    @property
    def approvals(self) -> Approvals:
        """What people are asked, and the way an Answer gets in."""
        return self.enforcement.approvals

    @property
    def jobs(self) -> Jobs:
        """The jobs that this process holds."""
        return self.enforcement.jobs

    @property
    def bound(self) -> dict[str, Bound]:
        """The bound tools by name."""
        return self.enforcement.bound

    # --- inside --------------------------------------------------------------------------------

    def _sweep(self) -> None:
        """End what is over, at most once a second: it looks at every open job."""
        now = self.ledger.clock()
        if not self._swept <= now < self._swept + 1000:
            self._swept = now
            self.ledger.sweep()

    def _hold(self, job: str, epoch: int, requested_by: str) -> Job:
        held = Job(
            id=job,
            epoch=epoch,
            requested_by=requested_by,
            ledger=self.ledger,
            lifetimes=self.workspace.lifetimes,
            import_asset=self.import_asset,
            left=self.jobs.drop,
        )
        self.enforcement.bound_tools.sealed = True
        self.jobs.hold(held)
        return held

    def _drop_removed_identities(self) -> None:
        """S11: an agent or owner who left the configuration keeps no live credential."""
        for credential in self.ledger.rows(unrevoked_credentials()):
            agent = self.workspace.agents.get(credential.agent)
            if agent is None or credential.stage not in agent.stages:
                self.ledger.revoke_credential(credential.id, reason="its agent was removed")
