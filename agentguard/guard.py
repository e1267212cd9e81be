"""The shell around the pure core: gather → decide → grant → run → record (DESIGN section 4).

A `Guard` is one workspace in one process. It is synchronous; front ends that are asynchronous call
it on a thread, so that nothing is written twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from agentguard import config as configuration
from agentguard.approvals import Approvals
from agentguard.assets import Scratch, Store, asset_id, take_in
from agentguard.audit import Report, verify
from agentguard.bindings import Binding, Bound, same_tool
from agentguard.broker import Broker, Receipt
from agentguard.claims import Claim, Replay
from agentguard.config import Workspace
from agentguard.decide import decide
from agentguard.errors import (
    AssetError,
    BindingError,
    DestinationError,
    JobError,
    LedgerUnavailable,
)
from agentguard.formats import Limits
from agentguard.gather import Call, Prepared, Refused, facts, prepare, stage_of, terms_of
from agentguard.jobs import Job, Jobs
from agentguard.ledger import Judged, Ledger, Made, Outcome, Relied
from agentguard.ledger_file import checkpoints_of, open_ledger, wall_clock
from agentguard.model import (
    UNCLASSIFIED,
    Audience,
    Decision,
    Effect,
    GrantState,
    OutsideEffect,
    Provenance,
    Stage,
)
from agentguard.outputs import Collected, Sources, collect
from agentguard.own_tools import export_asset, list_assets, queue_for_release
from agentguard.policy import Policy
from agentguard.recovery import reconcile
from agentguard.storage import Row

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

_log = logging.getLogger(__name__)

_ATTEMPTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorized:
    """What authorize decided of one call."""

    decision: Decision
    request: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An asked call, as an approver needs to see it.

    Args:
        request: the Request's digest, which is also the name of the approval request.
        decision: PERMIT, ASK with what is still missing, or DENY, on the facts of now.
    """

    request: str
    decision: Decision
    shown: Mapping[str, Any]
    expires_at: int


class Guard:
    """Authorizes the media tool calls of a workspace.

    Make one with `Guard.from_config`; it is a context manager that closes the ledger.

    Args:
        workspace: the configuration.
        policy: the policies.
        bindings: one per tool.
        ledger: where everything is remembered.
        store: where asset bytes are.
        broker: the way out.
    """

    def __init__(
        self,
        *,
        workspace: Workspace,
        policy: Policy,
        bindings: Iterable[Binding],
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
        self.bound: dict[str, Bound] = {}
        for binding in bindings:
            self.bind(binding)
        self.limits = Limits(
            max_bytes=workspace.limits.max_bytes, max_pixels=workspace.limits.max_pixels
        )
        self.jobs = Jobs(interval=workspace.lifetimes.lease / 3000)

    @classmethod
    def from_config(
        cls,
        path: Path | str | None = None,
        *,
        bindings: Iterable[Binding] = (),
        clock: Callable[[], int] = wall_clock,
    ) -> Guard:
        """Open the workspace of a configuration file; nothing starts unless all of it is sound.

        Args:
            path: `agentguard.toml`; None searches the working directory and its parents.
            bindings: one per tool of the graphs that this guard protects.
            clock: the ledger's time in ms.

        Raises:
            ConfigError: the configuration, a policy or a binding can't be used.
            LedgerUnavailable: the ledger can't be opened.
            LedgerCorrupt: the ledger is not what it was.
        """
        workspace = configuration.load(None if path is None else Path(path))
        bindings = list(bindings)
        policy = Policy.load(workspace.policies, replace=workspace.replace_default_policy)
        ledger = open_ledger(workspace, clock=clock)
        try:
            guard = cls(
                workspace=workspace,
                policy=policy,
                bindings=bindings,
                ledger=ledger,
                store=Store(workspace.store),
                broker=Broker(workspace.destinations),
            )
            ledger.sweep()
            guard._drop_removed_identities()
        except BaseException:
            ledger.storage.close()
            raise
        return guard

    def bind(self, binding: Binding) -> Bound:
        """Add a Binding.

        Raises:
            BindingError: a second Binding for a tool name, or an unknown destination or label.
        """
        bound = Bound(binding)
        if bound.name in self.bound:
            raise BindingError(f"{bound.name} is bound twice; tool names are unique")
        self._require_no_way_out(bound)
        named = binding.destination
        if isinstance(named, str) and named not in self.workspace.destinations:
            raise BindingError(
                f"{bound.name} goes to {named!r}, which is not configured; there are"
                f" {', '.join(sorted(self.workspace.destinations)) or 'none'}"
            )
        unknown = sorted(binding.labels - set(self.workspace.classes))
        if unknown:
            raise BindingError(f"{bound.name}: no class {', '.join(unknown)} is configured")
        self.bound[bound.name] = bound
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
                    " does it send? Say destination='...' or Arg('...')"
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
            raise BindingError(f"another tool than this one is bound under the name {tool.name}")
        return bound

    # --- tools ---------------------------------------------------------------------------------

    def tools(
        self,
        tools: Sequence[BaseTool],
        *,
        agent: str | None = None,
        gate: Literal["graph", "inline"] = "graph",
    ) -> list[BaseTool]:
        """Guarded copies of bound tools: asset ids instead of paths, no outputs to fill in.

        Args:
            tools: for `bind_tools`, ToolNode or `create_agent`.
            agent: who calls them; only needed with `gate="inline"`.
            gate: `inline` puts the gate into the tool itself, for the functional API.

        Raises:
            BindingError: a tool is not bound, or `inline` names no agent.
        """
        from agentguard.langgraph.tools import guarded

        if gate == "inline" and agent not in self.workspace.agents:
            raise BindingError(f"gate='inline' needs a configured agent, got {agent!r}")
        return [guarded(self, tool, agents=agent, gate=gate) for tool in tools]

    def list_tool(self) -> BaseTool:
        """`list_assets`, which shows an agent the media of its job."""
        return self._own(list_assets)

    def queue_tool(self) -> BaseTool:
        """`queue_for_release`, for the agent of the queue stage."""
        return self._own(queue_for_release)

    def export_tool(self) -> BaseTool:
        """`export_asset`, for the agent of the export stage; it sends through the broker."""
        return self._own(export_asset)

    def _own(self, make: Callable[[Guard], Binding]) -> BaseTool:
        bound = self.bound.get(make.__name__)
        if bound is None:
            bound = self.bind(make(self))
        return self.tools([bound.binding.tool])[0]

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
        self.ledger.sweep()
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
        row = self.ledger.one("SELECT requested_by FROM jobs WHERE id = ?", job)
        if row is None:
            raise JobError(f"no job {job:.40} in this ledger; `agentguard jobs list` shows them")
        if by != row["requested_by"] and by not in self.workspace.services:
            raise JobError(f"only {row['requested_by']} or a configured service may rejoin {job}")
        epoch = self.ledger.rejoin_job(job, by=by, lease=self.workspace.lifetimes.lease)
        return self._hold(job, epoch, row["requested_by"])

    # --- assets --------------------------------------------------------------------------------

    def import_asset(
        self, file: Path | str, labels: Iterable[str] = (), *, by: str, job: str | None = None
    ) -> str:
        """Take a file into the workspace; returns its asset id.

        Args:
            labels: its class; none means `unclassified`. Known bytes join labels.
            by: the Person who imports it; they can't approve it.
            job: the job that may see it; None: give it to jobs later.

        Raises:
            AssetError: not media, damaged, too large, an unknown label or person.
        """
        unknown = sorted(set(labels) - set(self.workspace.classes))
        if unknown:
            known = ", ".join(sorted(self.workspace.classes))
            raise AssetError(f"no class {', '.join(unknown)} is configured; there are {known}")
        if by not in self.workspace.people:
            raise AssetError(f"{by} is no configured person")
        path = Path(file)
        try:
            with path.open("rb") as opened:
                return self._register(opened, labels, by=by, job=job, name=path.name)
        except OSError as error:
            raise AssetError(f"{path.name} can't be read: {error.strerror}") from error

    def take_in(
        self, data: bytes, labels: Iterable[str], *, by: str, job: str, name: str
    ) -> str:
        """Take in media that arrived inside a message; returns its asset id.

        Raises:
            AssetError: not media, damaged or too large.
        """
        known = self.ledger.one(
            "SELECT id, labels FROM assets JOIN asset_jobs USING (sha256)"
            " WHERE sha256 = ? AND job = ?",
            hashlib.sha256(data).hexdigest(),
            job,
        )
        if known is not None and set(labels) <= set(json.loads(known["labels"])):
            return str(known["id"])
        return self._register(io.BytesIO(data), labels, by=by, job=job, name=name)

    def _register(
        self, file: BinaryIO, labels: Iterable[str], *, by: str, job: str | None, name: str
    ) -> str:
        sha256, size, format_ = take_in(self.store, file, limits=self.limits)
        known = self.ledger.one("SELECT 1 FROM assets WHERE sha256 = ?", sha256)
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
            labels=frozenset(labels) or unnamed,
            terms={},
            provenance=Provenance.UNKNOWN,
            parents=(),
            contributors=frozenset({by}),
            name=name,
        )
        self.ledger.register(made, job=job, by=by, how="imported")
        return made.id

    # --- the gate ------------------------------------------------------------------------------

    def authorize(self, calls: Sequence[Call]) -> list[Authorized]:
        """Decide on the calls of one message and record all Decisions in one transaction.

        A call that was decided before keeps its recorded Decision (I8). Returns one result per
        call, in order; a refusal is a result too.

        Raises:
            LedgerUnavailable: nothing was recorded, so nothing may run (I10).
        """
        results: list[Authorized] = []
        judged: list[Judged] = []
        seen: dict[str | None, Authorized] = {}
        epoch = 0
        for call in calls:
            try:
                result, item = self._judge(call, seen)
            except Refused as refusal:
                results.append(self._refused(call, refusal))
                continue
            results.append(result)
            seen[call.key] = result
            if item is not None:
                judged.append(item)
                epoch = call.job.epoch
        if judged:
            try:
                self.ledger.record_decisions(judged, epoch=epoch)
            except JobError as error:
                closed = Refused(str(error), policy="job")
                return [self._refused(call, closed) for call in calls]
        return results

    def waiting(self, call: Call) -> Waiting:
        """What an asked call waits for now; issues its Grant once the ledger says PERMIT.

        Raises:
            Refused: no such request, or it is not asked.
        """
        call, prepared, row = self._recorded(call)
        if row["effect"] != Effect.ASK.value:
            raise Refused(row["reason"], policy="not-asked")
        request = prepared.request
        approval = self.ledger.one("SELECT * FROM approvals WHERE request = ?", request.digest)
        if approval is None:
            raise Refused("no approval was asked for this call", policy="not-asked")
        credential = self._credential(call)
        decision = self._decide_asked(call, prepared, approval)
        if decision.effect is Effect.PERMIT:
            item = self._judged(call, prepared, decision, credential)
            try:
                self.ledger.issue_grant(item, epoch=call.job.epoch)
            except JobError as error:
                raise Refused(str(error), policy="job") from None
        elif approval["state"] == "pending" and self.ledger.clock() >= approval["expires_at"]:
            reason = decision.reason
            self.ledger.settle_approval(request.digest, state="expired", reason=reason)
        return Waiting(
            request=request.digest,
            decision=decision,
            shown=prepared.shown,
            expires_at=approval["expires_at"],
        )

    def claim(self, call: Call) -> Claim | Replay:
        """Rebuild the Request from what would run now, decide again, and claim its Grant.

        Raises:
            Refused: no matching Grant, or the facts of now don't permit it (I5).
            LedgerUnavailable: nothing was claimed.
        """
        for _ in range(_ATTEMPTS):
            call, prepared, row = self._recorded(call)
            request = prepared.request
            grant = self.ledger.one("SELECT * FROM grants WHERE request = ?", request.digest)
            approval = self.ledger.one("SELECT * FROM approvals WHERE request = ?", request.digest)
            if grant is None:
                raise self._ungranted(call, prepared, row, approval)
            retry = grant["effect"] == OutsideEffect.NONE
            if grant["state"] == GrantState.EXECUTED or (
                grant["state"] == GrantState.FAILED and not retry
            ):
                return self._replay(grant)
            if grant["state"] in (GrantState.CLAIMED, GrantState.UNKNOWN):
                raise Refused(
                    "this call was started before and its outcome is not known yet; it will not"
                    " be done twice (`agentguard reconcile` finds out)",
                    policy="outcome-unknown",
                )
            credential = self._credential(call)
            decision = self._decide_asked(call, prepared, approval)
            if decision.effect is not Effect.PERMIT:
                raise Refused(decision.reason, policy="decided-again")
            relied = Relied(
                epoch=call.job.epoch,
                credential=credential,
                versions={use.sha256: prepared.rows[use.asset]["version"]
                          for use in request.assets},
                approved=approval is not None,
                policy_version=self.policy.digest,
            )  # fmt: skip
            # The private copies come first: what can't be prepared must not use up the Grant.
            scratch, arguments, outputs = self._prepare_files(call, prepared)
            try:
                outside = call.bound.binding.effect is not OutsideEffect.NONE
                vendor = request.destination is not None
                obstacle = self.ledger.claim(request, relied, durable=outside or vendor)
            except BaseException:
                scratch.close()
                raise
            if obstacle is None:
                return Claim(
                    call=call,
                    prepared=prepared,
                    credential=credential,
                    scratch=scratch,
                    arguments=arguments,
                    outputs=outputs,
                )
            scratch.close()
            if not obstacle.startswith("moved"):
                raise Refused(obstacle, policy="not-granted")
        raise Refused("the facts kept changing while this was claimed; try again", policy="moved")

    def collect(self, claim: Claim, result: Any) -> Collected:
        """Take in what a tool returned.

        Raises:
            AssetError: an output is missing or can't be taken in.
        """
        request = claim.prepared.request
        owner = self.workspace.agents[request.agent].owner
        people = {owner}
        for use in request.assets:
            people |= {
                row["person"]
                for row in self.ledger.all(
                    "SELECT person FROM contributors WHERE sha256 = ?", use.sha256
                )
            }
        return collect(
            result,
            binding=claim.call.bound.binding,
            request=request,
            scratch=claim.scratch,
            outputs=claim.outputs,
            sources=Sources(
                terms=tuple(
                    terms_of(claim.prepared.rows[use.asset]["terms"]) for use in request.assets
                ),
                contributors=frozenset(people),
            ),
        )

    def executed(
        self, claim: Claim, collected: Collected, *, updates: Mapping[str, Any] | None = None
    ) -> None:
        """Record that a claimed call ran, with all it made.

        Raises:
            LedgerUnavailable: the outcome is not recorded; the Grant stays `claimed`.
        """
        request = claim.prepared.request
        binding = claim.call.bound.binding
        used = {use.sha256 for use in request.assets}
        queued = binding.stage is Stage.QUEUE and request.destination is not None
        revealed: set[str] = set()
        if binding.reveals:
            for labels in (*(use.labels for use in request.assets),
                           *(made.labels for made in collected.made)):  # fmt: skip
                revealed |= labels - self.workspace.open_labels
        reviewed = binding.stage is Stage.REVIEW
        self._finish(
            claim,
            Outcome(
                state=GrantState.EXECUTED,
                text=collected.text,
                made=collected.made,
                updates=updates,
                findings=dict.fromkeys(used, collected.findings) if reviewed else None,
                queued=tuple((sha256, request.destination or "") for sha256 in sorted(used))
                if queued
                else (),
                revealed=frozenset(revealed),
                receipts=tuple(
                    (receipt.destination, receipt.location, receipt.sha256)
                    for receipt in claim.receipts
                ),
            ),
        )

    def failed(self, claim: Claim, text: str) -> None:
        """Record that a claimed call failed; `unknown` where its effect may have happened (I8)."""
        opaque = claim.unknown and claim.call.bound.binding.effect is not OutsideEffect.NONE
        state = GrantState.UNKNOWN if opaque else GrantState.FAILED
        self._finish(claim, Outcome(state=state, text=text))

    def paused(self, claim: Claim) -> None:
        """Return the Grant of a tool that paused itself before any effect."""
        self.ledger.unclaim(claim.prepared.request)
        claim.scratch.close()

    def send(self, claim: Claim, *, path: str, sha256: str, texts: Mapping[str, str]) -> Receipt:
        """Send an asset of a claimed call through the broker, and keep the receipt."""
        request = claim.prepared.request
        if request.destination is None:
            raise DestinationError("this call names no destination", outcome_unknown=False)
        row = next(row for row in claim.prepared.rows.values() if row["sha256"] == sha256)
        receipt = self.broker.send(
            destination=request.destination,
            key=request.content_digest,
            path=path,
            sha256=sha256,
            extension=row["extension"],
            texts=texts,
        )
        claim.receipts.append(receipt)
        return receipt

    def reconcile(self) -> list[tuple[str, str]]:
        """Find out what became of every `unknown` that can be found out (I8).

        Returns:
            (request digest, what was found) for each: `executed`, `failed`, or why it stays.
        """
        return reconcile(self.ledger, self.broker)

    def verify(self) -> Report:
        """Replay the log and compare every row and checkpoint with it (I10).

        Raises:
            VerificationFailed: naming the first bad record, row or checkpoint.
        """
        return verify(self.ledger.storage, checkpoints_of(self.workspace))

    def close(self) -> None:
        """Stop renewing leases and close the ledger; idempotent."""
        self.jobs.close()
        self.ledger.storage.close()

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- inside --------------------------------------------------------------------------------

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

    def _credential(self, call: Call) -> str:
        stage = stage_of(call, self.workspace)
        agent = self.workspace.agents[call.agent or ""]
        try:
            return call.job.credential(agent, stage or min(agent.stages)).id
        except JobError as error:
            raise Refused(str(error), policy="job") from None

    def _judge(
        self, call: Call, seen: Mapping[str | None, Authorized]
    ) -> tuple[Authorized, Judged | None]:
        credential = self._credential(call)
        prepared = prepare(call, self.workspace, self.ledger)
        digest = prepared.request.digest
        earlier = seen.get(call.key)
        if earlier is not None:
            if earlier.request != digest:
                raise Refused("two calls of one message share an id", policy="call-id")
            return earlier, None
        known = self.ledger.one(
            "SELECT * FROM requests WHERE call_key = ? ORDER BY revision DESC LIMIT 1", call.key
        )
        if known is not None:
            if known["digest"] != digest:
                raise Refused(
                    "this call was decided before with other arguments, assets or labels; make a"
                    " new call",
                    policy="call-changed",
                )
            return Authorized(decision=_recorded_decision(known), request=digest), None
        decision = self._decide(call, prepared)
        item = self._judged(call, prepared, decision, credential)
        return Authorized(decision=decision, request=digest), item

    def _judged(
        self, call: Call, prepared: Prepared, decision: Decision, credential: str
    ) -> Judged:
        lifetimes = self.workspace.lifetimes
        lasts = lifetimes.review if decision.effect is Effect.ASK else lifetimes.grant
        return Judged(
            request=prepared.request,
            decision=decision,
            shown=prepared.shown,
            thread=call.thread,
            call_id=call.call_id,
            credential=credential,
            policy_version=self.policy.digest,
            outside=call.bound.binding.effect,
            expires_at=self.ledger.clock() + lasts,
        )

    def _decide(self, call: Call, prepared: Prepared) -> Decision:
        answers = self.approvals.verified(prepared.request.digest)
        known = facts(call, prepared, self.workspace, self.ledger)
        return decide(self.policy, prepared.request, known, answers, self.ledger.clock())

    def _decide_asked(self, call: Call, prepared: Prepared, approval: Row | None) -> Decision:
        if approval is not None:
            closed = approval["state"] in ("expired", "revoked", "superseded", "denied")
            if closed or self.ledger.clock() >= approval["expires_at"]:
                why = {"denied": "a person said no", "revoked": "its job ended"}.get(
                    approval["state"], "the review window closed; no answer is a no"
                )
                return Decision(
                    effect=Effect.DENY, policies=("agentguard.approval",), reason=f"refused: {why}"
                )
        return self._decide(call, prepared)

    def _recorded(self, call: Call) -> tuple[Call, Prepared, Row]:
        """The call with its agent, the Request as it would run now, and the row that decided it.

        The row is found by (job, thread, call id), and must have decided exactly what would run:
        a call id may come again, a Request may not (I5, I6).
        """
        rows = self.ledger.all(
            "SELECT * FROM requests WHERE job = ? AND thread = ? AND call_id = ?"
            " ORDER BY decided_at DESC LIMIT 32",
            call.job.id,
            call.thread,
            call.call_id,
        )
        prepared = prepare(call, self.workspace, self.ledger)
        for row in rows:
            if call.agent not in (None, row["agent"]) or call.key not in (None, row["call_key"]):
                continue
            request = replace(
                prepared.request,
                agent=row["agent"],
                call_key=row["call_key"],
                revision=row["revision"],
            )
            if request.digest == row["digest"]:
                known = replace(call, agent=row["agent"], key=row["call_key"])
                return known, replace(prepared, request=request), row
        if not rows:
            raise Refused(
                f"{call.bound.name} did not pass the authorization node with this call; nothing"
                " runs without a recorded decision",
                policy="not-authorized",
            )
        raise Refused(
            "what would run now is not what was decided on (arguments, assets, labels or"
            " destination differ); make a new call",
            policy="call-changed",
        )

    def _ungranted(
        self, call: Call, prepared: Prepared, row: Row, approval: Row | None
    ) -> Refused:
        """Why a recorded call has no Grant: the Decision's reason, or how it stands now."""
        if approval is None:
            return Refused(row["reason"], policy="not-granted")
        decision = self._decide_asked(call, prepared, approval)
        if decision.effect is Effect.PERMIT:
            reason = "it is approved; resume the call where it waits, it has no grant elsewhere"
            return Refused(reason, policy="not-granted")
        return Refused(decision.reason, policy="not-granted")

    def _prepare_files(
        self, call: Call, prepared: Prepared
    ) -> tuple[Scratch, dict[str, Any], dict[str, str]]:
        bound = call.bound
        scratch = Scratch(self.store, limits=self.limits)
        try:
            outputs = {name: scratch.output(name, bound.suffix(name))
                       for name in bound.binding.outputs}  # fmt: skip

            def private(path: str, value: Any) -> Any:
                row = prepared.rows[value]
                form = bound.binding.assets[path]
                if form == "bytes":
                    return scratch.input_bytes(row["sha256"], row["extension"])
                if form == "data-url":
                    return scratch.data_url(row["sha256"], row["extension"], row["media_type"])
                return scratch.input(row["sha256"], row["extension"])

            return scratch, bound.fill(prepared.request.args, private, outputs), outputs
        except AssetError as error:
            scratch.close()
            raise Refused(str(error), policy="bytes-differ") from None
        except BaseException:
            scratch.close()
            raise

    def _replay(self, grant: Row) -> Replay:
        row = self.ledger.one("SELECT * FROM outcomes WHERE grant_id = ?", grant["id"])
        if row is None:
            raise Refused("this call already ran; its text was deleted", policy="replayed")
        return Replay(
            executed=grant["state"] == GrantState.EXECUTED,
            text=row["text"],
            updates=json.loads(row["state"]),
            assets=tuple(json.loads(row["assets"])),
        )

    def _finish(self, claim: Claim, outcome: Outcome) -> None:
        try:
            self.ledger.finish(claim.prepared.request, outcome, credential=claim.credential)
        finally:
            claim.scratch.close()

    def _refused(self, call: Call, refusal: Refused) -> Authorized:
        body = {
            "job": call.job.id,
            "agent": call.agent,
            "tool": call.bound.name,
            "call": call.key,
            "policy": refusal.policy,
            "reason": refusal.reason[:500],
        }
        self.ledger.refuse(body)
        decision = Decision(
            effect=Effect.DENY, policies=(refusal.policy,), reason=refusal.reason
        )
        return Authorized(decision=decision)

    def record_refusal(self, call: Call, refusal: Refused) -> None:
        """Record that a call was refused where it would have run (I5)."""
        with contextlib.suppress(LedgerUnavailable):  # refused either way
            self._refused(call, refusal)

    def _drop_removed_identities(self) -> None:
        """S11: an agent or owner who left the configuration keeps no live credential."""
        rows = self.ledger.all("SELECT id, agent, stage FROM credentials WHERE state = 'live'")
        for row in rows:
            agent = self.workspace.agents.get(row["agent"])
            if agent is None or Stage(row["stage"]) not in agent.stages:
                self.ledger.revoke_credential(row["id"], reason="its agent was removed")


def _recorded_decision(row: Row) -> Decision:
    return Decision(
        effect=Effect(row["effect"]),
        policies=tuple(json.loads(row["policies"])),
        reason=row["reason"],
    )
