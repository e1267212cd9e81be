"""`Guard`: one workspace in one process, opened from its configuration.

It holds what a call goes through: calls/authorize.py, calls/ask.py, calls/claim.py and
calls/execute.py. All of it is synchronous; asynchronous front ends call it
on a thread, so that nothing is written twice.
"""

from __future__ import annotations

import hashlib
import inspect
import io
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from agentguard.bindings.binding import CompiledBinding
from agentguard.bindings.bound import Bound, same_tool
from agentguard.bindings.compilation import Tool, compiled
from agentguard.bindings.declaration import Binding, declarations_of, name_of
from agentguard.bindings.problems import require_no_errors
from agentguard.calls.ask import Asker
from agentguard.calls.assess import Assessor
from agentguard.calls.authorize import Authorizer
from agentguard.calls.builtin_tools import OWN_NAMES, export_asset, list_assets, queue_for_release
from agentguard.calls.claim import Claims
from agentguard.calls.execute import Executor
from agentguard.calls.reconcile import reconcile
from agentguard.calls.refusals import Refusals
from agentguard.config import workspace as configuration
from agentguard.config.workspace import Workspace
from agentguard.content.formats.identify import Limits
from agentguard.content.intake import take_in
from agentguard.content.scratch import sweep_scratch
from agentguard.content.store import Store
from agentguard.content.text.scan import MAX_TEXT, scan
from agentguard.errors import (
    AssetError,
    BindingError,
    JobError,
)
from agentguard.export.broker import Broker
from agentguard.jobs.job import Job
from agentguard.jobs.registry import Jobs
from agentguard.ledger.ledger import Ledger, Made
from agentguard.ledger.open import checkpoints_of, open_ledger
from agentguard.ledger.queries import assets
from agentguard.ledger.queries.jobs import job_by_id, unrevoked_credentials
from agentguard.ledger.verify import Report, verify
from agentguard.model import (
    UNCLASSIFIED,
    Audience,
    OutsideEffect,
    Provenance,
    Stage,
    Terms,
    asset_id,
)
from agentguard.people.approvals import Approvals
from agentguard.policy.policy_set import Policy
from agentguard.transparency.log_key import derived_key, load_log_key

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
        self.workspace = workspace
        self.policy = policy
        self.ledger = ledger
        self.store = store
        self.broker = broker
        self.approvals = Approvals(workspace=workspace, ledger=ledger)
        self.limits = Limits(
            max_bytes=workspace.limits.max_bytes, max_pixels=workspace.limits.max_pixels
        )
        self.refusals = Refusals(ledger)
        self.assessor = Assessor(
            workspace=workspace,
            policy=policy,
            ledger=ledger,
            approvals=self.approvals,
            refusals=self.refusals,
        )
        self.authorizer = Authorizer(assessor=self.assessor, refusals=self.refusals)
        self.asker = Asker(assessor=self.assessor, refusals=self.refusals)
        self.claims = Claims(assessor=self.assessor, store=store, limits=self.limits)
        self.executor = Executor(assessor=self.assessor, broker=broker)
        self.bound: dict[str, Bound] = {}
        self.jobs = Jobs(interval=workspace.lifetimes.lease / 3000)
        self._swept = 0
        self.bind(*tools)
        # Marks refusals as the guard's own words; read once, for the file may go while it is open.
        self.message_key = derived_key(load_log_key(workspace.log_key), "message/v1")
        from agentguard.langgraph.unguarded_runs import BELT

        BELT.watch(self)

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

        It reads which packages are installed: in a coroutine, `await asyncio.to_thread(guard.bind,
        ...)`.

        Raises:
            BindingError: all that is wrong with their declarations; a second tool of one name, a
                name of the guard's own tools, or an unknown destination or label.
        """
        errors: list[BindingError] = []
        for tool in tools:
            try:
                bound = self._checked(tool)
                if bound.name in OWN_NAMES:
                    raise BindingError(
                        f"{bound.name} is a tool of the guard itself; give yours another name"
                    )
                if self.bound.setdefault(bound.name, bound) is not bound:
                    raise BindingError(f"{bound.name} is bound twice; tool names are unique")
            except BindingError as error:
                errors.append(error)
        require_no_errors(errors)

    def _checked(self, tool: Tool) -> Bound:
        bound = compiled(tool)
        binding = bound.binding
        named = binding.destination
        places = [named] if isinstance(named, str) else [*binding.places]
        for place in places:
            if place not in self.workspace.destinations:
                raise BindingError(
                    f"{bound.name} goes to {place!r}, which is not configured; there are"
                    f" {', '.join(sorted(self.workspace.destinations)) or 'none'}"
                )
        self._require_no_way_out(bound)
        self._require_hosts(bound)
        unknown = sorted(binding.labels - set(self.workspace.classes))
        if unknown:
            raise BindingError(f"{bound.name}: no class {', '.join(unknown)} is configured")
        return bound

    def _require_no_way_out(self, bound: Bound) -> None:
        """S28: only the export stage has an effect at a destination that is no vendor."""
        binding = bound.binding
        named = binding.destination
        known = self.workspace.destinations.get(named) if isinstance(named, str) else None
        vendor = known is not None and known.audience is Audience.VENDOR
        if binding.stage is Stage.EXPORT:
            if named is None:
                raise BindingError(
                    f"{bound.name} is bound to the export stage and names no destination; where"
                    ' does it send? Say to="...", or To() on an argument'
                )
        elif binding.stage is Stage.QUEUE:
            if binding.effect is not OutsideEffect.NONE:
                raise BindingError(
                    f"{bound.name}: a queue tool only marks what may be released; one that sends"
                    " belongs to the export stage"
                )
        elif named is not None and not vendor:
            raise BindingError(
                f"{bound.name} sends to {named} from the {binding.stage} stage; only the export"
                " stage may. If it converts and publishes at once, split it into two tools"
            )

    def _require_hosts(self, bound: Bound) -> None:
        """I3: a returned URL is fetched only from hosts that somebody configured."""
        named = self.workspace.destinations.get(str(bound.binding.destination))
        if bound.binding.urls and (named is None or not named.hosts):
            raise BindingError(
                f"{bound.name} returns URLs of media from {bound.binding.destination!r}, which"
                " lists no hosts; add the vendor's download hosts, such as"
                " hosts = ['cdn.vendor.example'], to that destination"
            )

    def _require_started(self, bound: Bound) -> None:
        """An operation's id comes from a tool that says where its result holds one."""
        for path, tools in bound.binding.operations.items():
            for name in tools:
                known = self.bound.get(name)
                if known is None or known.binding.starts is None:
                    state = (
                        "is not bound" if known is None else "names no OperationId() in its result"
                    )
                    raise BindingError(
                        f"{bound.name}.{path} takes an operation of {name}, which {state}"
                    )

    def bound_for(self, tool: BaseTool) -> Bound:
        """The Binding of a tool object.

        Raises:
            BindingError: the tool is not bound, or another tool is bound under its name.
        """
        bound = self.bound.get(tool.name)
        if bound is None:
            raise BindingError(
                f"{tool.name} is not bound; add a Binding for it (`agentguard bind MODULE:TOOLS`"
                " drafts one)"
            )
        if not same_tool(bound, tool):
            raise BindingError(
                f"another tool than this one is bound under the name {tool.name}: its class,"
                " function or state differs; give the graph or agent guard.tools(), or give this"
                " tool a name and a declaration of its own"
            )
        self._require_started(bound)
        return bound

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
            BindingError: a tool is not bound, or there is no such agent.
        """
        from agentguard.langgraph.guarded_tool import guarded

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
            for make in (list_assets, queue_for_release, export_asset):
                self._bound_own(make)
            stages = None if agent is None else {None, *self.workspace.agents[agent].stages}
            chosen = [
                bound.binding.tool
                for bound in list(self.bound.values())
                if stages is None or bound.binding.stage in stages
            ]
        return [guarded(self, tool, agents=agent, inline=gate == "inline") for tool in chosen]

    def inline_tools(self, *, agent: str) -> list[BaseTool]:
        """Guarded tools of an agent that carry the gate: for the functional API, your own loop.

        Raises:
            BindingError: there is no such agent.
        """
        return self.tools(agent=agent, gate="inline")

    def _tool_of(self, tool: Tool | str) -> Any:
        """The tool object that a name, a declared function or a Binding means."""
        if isinstance(tool, (Binding, CompiledBinding)):
            tool = (tool.declaration.name if isinstance(tool, Binding) else None) or name_of(
                tool.tool
            )
        elif inspect.isfunction(tool) and declarations_of(tool):
            tool = declarations_of(tool)[0].name or name_of(tool)
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

    def _own(self, make: Callable[[Guard], CompiledBinding]) -> BaseTool:
        return self.tools([self._bound_own(make).binding.tool])[0]

    def _bound_own(self, make: Callable[[Guard], CompiledBinding]) -> Bound:
        bound = self.bound.get(make.__name__)
        if bound is None:  # whichever thread comes first binds it for all
            bound = self.bound.setdefault(make.__name__, self._checked(make(self)))
        return bound

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
        if isinstance(labels, str):
            raise AssetError(f"labels={labels!r} is one string; write [{labels!r}]")
        unknown = sorted(set(labels) - set(self.workspace.classes))
        if unknown:
            known = ", ".join(sorted(self.workspace.classes))
            raise AssetError(f"no class {', '.join(unknown)} is configured; there are {known}")
        if by not in self.workspace.people:
            raise AssetError(f"{by} is no configured person")
        path = Path(file)
        if secrets := scan(path.name[:MAX_TEXT]).secrets:
            raise AssetError(f"its file name holds a secret ({secrets[0]}); give it another name")
        try:
            with path.open("rb") as opened:
                return self._register(opened, labels, by=by, job=job, name=path.name)
        except OSError as error:
            raise AssetError(f"{path.name} can't be read: {error.strerror}") from error

    def take_in(self, data: bytes, labels: Iterable[str], *, by: str, job: str, name: str) -> str:
        """Take in media that arrived inside a message; returns its asset id.

        Raises:
            AssetError: not media, damaged or too large.
        """
        known = self.ledger.first(assets.bytes_of_job(hashlib.sha256(data).hexdigest(), job))
        if known is not None and known.labels.issuperset(labels):
            return known.id
        return self._register(
            io.BytesIO(data), labels, by=by, job=job, name=name, answers_for=False
        )

    def _register(
        self,
        file: BinaryIO,
        labels: Iterable[str],
        *,
        by: str,
        job: str | None,
        name: str,
        answers_for: bool = True,
    ) -> str:
        """Register bytes; who imports known ones stands behind them, who posts them does not."""
        sha256, size, format_ = take_in(self.store, file, limits=self.limits)
        known = self.ledger.first(assets.asset_by_sha256(sha256))
        # Only bytes of unknown origin are unclassified: known ones keep the class they have.
        unnamed = frozenset() if known is not None else frozenset({UNCLASSIFIED})
        made = Made(
            sha256=sha256,
            id=asset_id(sha256),
            media_type=format_.media_type,
            extension=format_.extension,
            size=size,
            width=format_.width,
            height=format_.height,
            labels=(frozenset(labels) or unnamed) | format_.labels,
            terms=Terms(),
            provenance=Provenance.UNKNOWN,
            parents=(),
            contributors=frozenset({by} if answers_for or known is None else ()),
            name=name,
        )
        self.ledger.register(made, job=job, by=by, how="imported")
        return made.id

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

        BELT.forget(self)
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
        return allowed(self, why)

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
        self.jobs.hold(held)
        return held

    def _drop_removed_identities(self) -> None:
        """S11: an agent or owner who left the configuration keeps no live credential."""
        for credential in self.ledger.rows(unrevoked_credentials()):
            agent = self.workspace.agents.get(credential.agent)
            if agent is None or credential.stage not in agent.stages:
                self.ledger.revoke_credential(credential.id, reason="its agent was removed")
