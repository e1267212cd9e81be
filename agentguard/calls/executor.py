"""Run a claimed call and record what came of it: the way out of every guarded tool.

Only a `ClaimedCall` enters `Executor.run`, and however its body ends, that is recorded before the
`with` is left (I8).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from agentguard.bindings.bound import Bound
from agentguard.calls.assess import Assessor
from agentguard.calls.claim import ClaimedCall
from agentguard.calls.execution import Execution, Failure, ToolAdapter, await_to_end, entered
from agentguard.calls.refusal_log import in_a_line
from agentguard.calls.results import Collected, Sources, collect, labels_of_media
from agentguard.content.text.loggable import loggable
from agentguard.errors import (
    AssetError,
    DestinationError,
    LedgerError,
    LedgerUnavailable,
)
from agentguard.export.broker import EXPORT_ASSET, Broker, Receipt
from agentguard.ledger.ledger import Memory, Outcome
from agentguard.ledger.queries.grants import outcome_text
from agentguard.model import GrantState, Request, Stage

_log = logging.getLogger(__name__)


class Executor:
    """Runs claimed calls.

    Args:
        assessor: knows the workspace and its ledger.
        broker: the way out.
    """

    def __init__(self, *, assessor: Assessor, broker: Broker) -> None:
        self._assessor = assessor
        self._ledger = assessor.ledger
        self.broker = broker

    @contextlib.contextmanager
    def run(self, claimed: ClaimedCall, adapter: ToolAdapter) -> Iterator[Execution]:
        """Enter a tool's body; what it came to is recorded as it is left.

        The body sets `result`. An exception of it does not leave the `with` unless the adapter says
        so; then `failure` is set.
        """
        execution = Execution(claimed=claimed)
        with entered(execution):
            try:
                yield execution
            except BaseException as error:
                failure = adapter.failure_of(execution, error)
                self._fail(execution, failure)
                if failure.raises:
                    raise
                return
        self._finish(execution, adapter)

    @contextlib.asynccontextmanager
    async def arun(self, claimed: ClaimedCall, adapter: ToolAdapter) -> AsyncIterator[Execution]:
        """See `run`; what is recorded is recorded on a thread, and waited for by all means."""
        execution = Execution(claimed=claimed)
        with entered(execution):
            try:
                yield execution
            except BaseException as error:
                failure = adapter.failure_of(execution, error)
                if isinstance(error, GeneratorExit):  # nothing can be awaited any more
                    self._fail(execution, failure)
                else:
                    await await_to_end(asyncio.to_thread(self._fail, execution, failure))
                if failure.raises:
                    raise
                return
        await await_to_end(asyncio.to_thread(self._finish, execution, adapter))

    def abandon(self, claimed: ClaimedCall, why: str) -> None:
        """Record that a claimed call was given up before its body was entered."""
        self.record_failure(Execution(claimed=claimed), why, unknown=False)

    def _finish(self, execution: Execution, adapter: ToolAdapter) -> None:
        """Take in a result and record it."""
        releases = execution.claimed.call.bound.releases  # the body ran: it may have happened
        try:
            execution.taken = adapter.take_in(execution)
        except AssetError as error:
            return self._fail(execution, Failure(text=str(error), unknown=releases))
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
            # A hostile result may be of any shape; what the body did is done.
            text = "its result has a shape that can't be taken in"
            return self._fail(execution, Failure(text=text, unknown=releases, error=error))
        taken = execution.taken
        try:
            execution.text = self.record(execution, taken.collected, updates=taken.updates)
        except LedgerError as error:
            self._unrecorded(execution, error)

    def _fail(self, execution: Execution, failure: Failure) -> None:
        """Record how a body failed, paused or was stopped."""
        if failure.paused or failure.quiet:
            # Unrecorded, the Grant stays claimed, and becomes unknown when the job ends (I8).
            with contextlib.suppress(LedgerError):
                if failure.paused:
                    self._unclaim(execution)
                else:
                    self.record_failure(execution, failure.text, unknown=failure.unknown)
            return
        self._log_failure(execution, failure)
        text = f"{execution.claimed.call.bound.name} failed: {failure.text}"
        try:
            execution.failure = self.record_failure(execution, text, unknown=failure.unknown)
        except LedgerError as unrecorded:
            self._unrecorded(execution, unrecorded)

    def _unclaim(self, execution: Execution) -> None:
        """Return the Grant of a tool that paused itself before any effect."""
        claimed = execution.claimed
        try:
            self._ledger.unclaim(claimed.request, epoch=claimed.assessment.holder.epoch)
        finally:
            claimed.scratch.close()

    def _unrecorded(self, execution: Execution, error: LedgerError) -> None:
        name = execution.claimed.call.bound.name
        _log.error(
            "%s ran in job %s, and its outcome could not be recorded: %s; `agentguard reconcile`"
            " finds out what came of it",
            name,
            execution.claimed.call.job.id,
            in_a_line(str(error)),
        )
        execution.failure = (
            f"{name} ran, but its outcome could not be recorded; it will be reconciled,"
            " do not repeat it"
        )

    def _log_failure(self, execution: Execution, failure: Failure) -> None:
        claimed = execution.claimed
        place = (claimed.call.bound.name, claimed.request.agent, claimed.call.job.id)
        if failure.error is None:
            _log.warning("%s as %s in job %s failed: %s", *place, in_a_line(failure.text))
        elif not execution.started:  # of the tool's schema: its error quotes the arguments
            kind = type(failure.error).__name__
            _log.error("%s as %s in job %s was not run: %s", *place, kind)
        else:
            trace = loggable(failure.error)
            _log.error("%s as %s in job %s raised an exception", *place, exc_info=trace)

    def collect(self, execution: Execution, result: Any) -> Collected:
        """Take in what a tool returned.

        Raises:
            AssetError: an output is missing or can't be taken in.
        """
        claimed = execution.claimed
        request, facts = claimed.request, claimed.assessment.facts
        workspace = self._assessor.workspace
        owner = workspace.agents[request.agent].owner
        contributors = frozenset().union(*(asset.contributors for asset in facts.assets))
        return collect(
            result,
            binding=claimed.call.bound.binding,
            request=request,
            scratch=claimed.scratch,
            outputs=claimed.outputs,
            sources=Sources(
                terms=tuple(asset.terms for asset in facts.assets) + facts.inherited_terms,
                contributors=contributors | facts.contributors | {owner},
                classes=frozenset(workspace.classes),
                shown=workspace.chat_ceiling,
                hosts=self._hosts(request),
            ),
        )

    def record(
        self,
        execution: Execution,
        collected: Collected,
        *,
        updates: Mapping[str, Any] | None = None,
    ) -> str:
        """Record that a claimed call ran, with all it made.

        Returns:
            What the model reads; not the tool's words, if they came to be withheld (I4).

        Raises:
            LedgerUnavailable: the outcome is not recorded; the Grant stays `claimed`.
        """
        request = execution.claimed.request
        binding = execution.claimed.call.bound.binding
        used = {use.sha256 for use in request.assets}
        queued = binding.stage is Stage.QUEUE and request.destination is not None
        reviewed = {use.sha256 for use in request.assets if use.argument == binding.reviews}
        return self._record(
            execution,
            Outcome(
                state=GrantState.EXECUTED,
                text=collected.text,
                made=collected.made,
                updates=updates,
                findings=dict.fromkeys(reviewed, collected.findings),
                queued=tuple((sha256, request.destination or "") for sha256 in sorted(used))
                if queued
                else (),
                revealed=collected.revealed - self._assessor.workspace.open_labels,
                receipts=tuple(
                    (receipt.destination, receipt.location, receipt.sha256)
                    for receipt in execution.receipts
                ),
                started=collected.started,
                remembers=self._memory(execution.claimed),
                raised=collected.raised,
            ),
        )

    def record_failure(self, execution: Execution, text: str, *, unknown: bool) -> str:
        """Record that a claimed call failed; `unknown` where its effect may have happened (I8).

        Returns:
            What the model reads, as for `record`.
        """
        claimed = execution.claimed
        request, bound = claimed.request, claimed.call.bound
        state = failed_as(bound, unknown=unknown)
        revealed = frozenset[str]()  # an error, too, can describe what the tool saw
        if execution.started and bound.binding.reveals:
            revealed = bound.binding.labels | request.text_labels | labels_of_media(request)
            revealed -= self._assessor.workspace.open_labels
        memory = self._memory(claimed) if execution.started else None
        outcome = Outcome(state=state, text=text, revealed=revealed, remembers=memory)
        return self._record(execution, outcome)

    def send(
        self, execution: Execution, *, path: str, sha256: str, texts: Mapping[str, str]
    ) -> Receipt:
        """Send an asset of a claimed call through the broker, and keep the receipt.

        If nothing was sent, the claim of the guard's own export tool notes the error that says so
        (`Execution.is_known_not_done`). What a developer's body did by itself, the broker can't
        tell.

        Raises:
            AssetError: the private copy is not what was decided on; nothing was sent.
            DestinationError: the destination refused or could not be reached.
        """
        execution.sends += 1  # until it is known better
        try:
            return self._send(execution, path=path, sha256=sha256, texts=texts)
        except (AssetError, DestinationError) as error:
            unknown = isinstance(error, DestinationError) and error.outcome_unknown
            if not unknown and execution.claimed.call.bound.name == EXPORT_ASSET:
                execution.sends -= 1
                execution.not_sent = error
            raise

    def _send(
        self, execution: Execution, *, path: str, sha256: str, texts: Mapping[str, str]
    ) -> Receipt:
        request = execution.claimed.request
        if request.destination is None:
            raise DestinationError("this call names no destination", outcome_unknown=False)
        use = next(use for use in request.assets if use.sha256 == sha256)
        self._require_held(execution.claimed)
        receipt = self.broker.send(
            destination=request.destination,
            key=request.content_digest,
            path=path,
            sha256=sha256,
            extension=use.extension,
            texts=texts,
        )
        execution.receipts.append(receipt)
        return receipt

    def _require_held(self, claimed: ClaimedCall) -> None:
        """Look once more right before sending: who slept past its lease may be given up by now.

        I8: an effect that was reconciled as "it did not happen" must not happen afterwards.
        """
        try:
            held = claimed.call.job.has_claimed(claimed.request)
        except LedgerError as error:
            reason = (
                "the ledger can't say whether this call still holds its grant; nothing was sent"
            )
            raise DestinationError(reason, outcome_unknown=False) from error
        if not held:
            reason = "its job ended meanwhile; nothing was sent"
            raise DestinationError(reason, outcome_unknown=False)

    def _memory(self, claimed: ClaimedCall) -> Memory | None:
        binding = claimed.call.bound.binding
        if not binding.remembers:
            return None
        return Memory(
            tools=binding.remembers,
            owners={agent.id: agent.owner for agent in self._assessor.workspace.agents.values()},
            ceiling=self._assessor.workspace.chat_ceiling if binding.reveals else None,
            open_labels=self._assessor.workspace.open_labels,
        )

    def _hosts(self, request: Request) -> frozenset[str]:
        """Where what a call returned may be fetched from (I3)."""
        named = self._assessor.workspace.destinations.get(request.destination or "")
        return named.hosts if named is not None else frozenset()

    def _record(self, execution: Execution, outcome: Outcome) -> str:
        claimed = execution.claimed
        request, credential = claimed.request, claimed.assessment.holder.credential
        try:
            held = self._ledger.finish(request, outcome, credential=credential)
        except LedgerUnavailable:
            claimed.call.job.owe(request, outcome, credential=credential)
            raise
        finally:
            claimed.scratch.close()
        if not held:
            raise LedgerUnavailable("the job ended while its tool ran; the outcome came too late")
        if outcome.remembers is None or outcome.remembers.ceiling is None:
            return outcome.text
        text = self._ledger.first(outcome_text(request.digest))
        if text is None:
            raise LedgerUnavailable("what the tool said was deleted before it was read")
        return text


def failed_as(bound: Bound, *, unknown: bool) -> GrantState:
    """The state of a Grant whose call failed; `unknown`: its effect may have happened (I8)."""
    return GrantState.UNKNOWN if unknown and bound.reaches_out else GrantState.FAILED
