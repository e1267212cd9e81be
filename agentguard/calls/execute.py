"""What happens under a Grant: claim it, run on private copies, record what came of it.

Claim → run → record (DESIGN section 4, 3). The decision to run is made in authorize.py.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from agentguard.calls.authorize import ATTEMPTS, MOVED, Gate, asked_of, asks_again
from agentguard.calls.call import Call, Refused, call_name
from agentguard.calls.claim import Claim, Replay
from agentguard.calls.outputs import Collected, Sources, collect
from agentguard.calls.request import Prepared
from agentguard.content.formats.identify import Limits
from agentguard.content.scratch import Scratch
from agentguard.content.store import Store
from agentguard.errors import AssetError, DestinationError, LedgerError, LedgerUnavailable
from agentguard.export.broker import EXPORT_ASSET, Broker, Receipt
from agentguard.ledger.ledger import Memory, Outcome, Reads, Relied
from agentguard.ledger.queries.grants import grant_of, outcome_of, outcome_text
from agentguard.ledger.queries.requests import granted_call
from agentguard.ledger.rows import GrantRow
from agentguard.model import Effect, GrantState, OutsideEffect, Request, Stage


class Execution:
    """Runs calls under their Grants.

    Args:
        gate: decides again before each claim.
        store: where asset bytes are.
        broker: the way out.
        limits: what may be taken in.
    """

    def __init__(self, *, gate: Gate, store: Store, broker: Broker, limits: Limits) -> None:
        self.gate = gate
        self.workspace = gate.workspace
        self.ledger = gate.ledger
        self.store = store
        self.broker = broker
        self.limits = limits

    def refusal(self, call: Call, *, again: bool = True) -> Refused | None:
        """Why a call may not reach its tool; None if it is permitted, or was begun before.

        It reads what was recorded and claims nothing: the tool's claim decides on current facts.

        Args:
            again: whether one that failed without an effect outside is tried once more; if not, its
                failure is the answer.

        Raises:
            LedgerError: that can't be read.
        """
        try:
            with self.ledger.snapshot() as reads:
                if again and _is_granted(call, reads):
                    return None
                _, prepared, row = self.gate.recorded(call, reads)
                grant = reads.first(grant_of(prepared.request.digest))
                if grant is not None:
                    if again or grant.state != GrantState.FAILED:
                        return None
                    return Refused(self._outcome(grant, reads).text, policy="failed")
                if asked_of(row, reads) is None:
                    return Refused(row.reason, policy="not-granted")
            decision = self.gate.waiting(call, asks_anew=False).decision
            if decision.effect is Effect.PERMIT:
                return None
            raise Refused(decision.reason, policy="not-granted")
        except Refused as refusal:
            self.gate.record_refusal(call, refusal)
            return refusal

    def claim(self, call: Call) -> Claim | Replay:
        """Rebuild the Request from what would run now, decide again, and claim its Grant.

        Raises:
            Refused: no matching Grant, or the facts of now don't permit it (I5).
            LedgerUnavailable: nothing was claimed.
        """
        for _ in range(ATTEMPTS):
            held = call.job.held
            with self.ledger.snapshot() as reads:
                call, prepared, row = self.gate.recorded(call, reads)
                request = prepared.request
                grant = reads.first(grant_of(request.digest))
                approval = asked_of(row, reads)
                if grant is not None:
                    done = self._done(grant, reads)
                    if done is not None:
                        return done
                elif approval is None:
                    raise Refused(row.reason, policy="not-granted")
                looked = None
                if self.gate.is_held(call, held):
                    looked = self.gate.decide_asked(call, prepared, approval, reads)
            credential = self.gate.credential(call)
            if looked is None:
                continue  # where its credential can be seen
            decision = looked.decision
            if looked.asks_again:
                raise asks_again(decision)
            if decision.effect is not Effect.PERMIT:
                policy = "decided-again" if grant is not None else "not-granted"
                raise Refused(decision.reason, policy=policy)
            # The private copies come first: what can't be prepared must not use up the Grant.
            scratch, arguments, outputs = self._prepare_files(call, prepared)
            # They may take long, and a Grant lives from when it is written.
            wanted = self.gate.judged(call, prepared, decision, credential)
            relied = Relied(
                epoch=call.job.epoch,
                credential=credential,
                versions={use.sha256: prepared.rows[use.asset].version for use in request.assets},
                asked=approval is not None,
                answers=looked.answers,
                findings=prepared.reviews,
                denied=looked.facts.denials,
                policy_version=self.gate.policy.digest,
                to_grant=wanted if grant is None else None,
            )  # fmt: skip
            try:
                durable = call.bound.reaches_out
                obstacle = self.ledger.claim(request, relied, durable=durable)
            except BaseException:
                scratch.close()
                raise
            if obstacle is None:
                return Claim(
                    call=call,
                    prepared=prepared,
                    contributors=frozenset().union(*(a.contributors for a in looked.facts.assets)),
                    credential=credential,
                    scratch=scratch,
                    arguments=arguments,
                    outputs=outputs,
                )
            scratch.close()
            if not obstacle.startswith("moved"):
                raise Refused(obstacle, policy="not-granted")
        raise Refused(MOVED, policy="moved")

    def collect(self, claim: Claim, result: Any) -> Collected:
        """Take in what a tool returned.

        Raises:
            AssetError: an output is missing or can't be taken in.
        """
        request = claim.prepared.request
        owner = self.workspace.agents[request.agent].owner
        carried = claim.prepared.carried
        return collect(
            result,
            binding=claim.call.bound.binding,
            request=request,
            scratch=claim.scratch,
            outputs=claim.outputs,
            sources=Sources(
                terms=tuple(claim.prepared.rows[use.asset].terms for use in request.assets)
                + carried.terms,
                contributors=claim.contributors | carried.contributors | {owner},
                classes=frozenset(self.workspace.classes),
                shown=self.workspace.chat_ceiling,
                hosts=self._hosts(request),
            ),
        )

    def executed(
        self, claim: Claim, collected: Collected, *, updates: Mapping[str, Any] | None = None
    ) -> str:
        """Record that a claimed call ran, with all it made.

        Returns:
            What the model reads; not the tool's words, if they came to be withheld (I4).

        Raises:
            LedgerUnavailable: the outcome is not recorded; the Grant stays `claimed`.
        """
        request = claim.prepared.request
        binding = claim.call.bound.binding
        used = {use.sha256 for use in request.assets}
        queued = binding.stage is Stage.QUEUE and request.destination is not None
        reviewed = {use.sha256 for use in request.assets if use.argument == binding.reviews}
        return self._finish(
            claim,
            Outcome(
                state=GrantState.EXECUTED,
                text=collected.text,
                made=collected.made,
                updates=updates,
                findings=dict.fromkeys(reviewed, collected.findings),
                queued=tuple((sha256, request.destination or "") for sha256 in sorted(used))
                if queued
                else (),
                revealed=collected.revealed - self.workspace.open_labels,
                receipts=tuple(
                    (receipt.destination, receipt.location, receipt.sha256)
                    for receipt in claim.receipts
                ),
                started=collected.started,
                remembers=self._memory(claim),
                raised=collected.raised,
            ),
        )

    def failed(self, claim: Claim, text: str) -> str:
        """Record that a claimed call failed; `unknown` where its effect may have happened (I8).

        Returns:
            What the model reads, as for `executed`.
        """
        unknown = claim.unknown and claim.call.bound.reaches_out
        state = GrantState.UNKNOWN if unknown else GrantState.FAILED
        revealed = frozenset[str]()  # an error, too, can describe what the tool saw
        if claim.started and claim.call.bound.binding.reveals:
            request = claim.prepared.request
            revealed |= (
                claim.call.bound.binding.labels
                | request.text_labels
                | claim.prepared.carried.labels
            )
            revealed = revealed.union(*(use.labels for use in request.assets))
            revealed -= self.workspace.open_labels
        memory = self._memory(claim) if claim.started else None
        return self._finish(
            claim, Outcome(state=state, text=text, revealed=revealed, remembers=memory)
        )

    def paused(self, claim: Claim) -> None:
        """Return the Grant of a tool that paused itself before any effect."""
        try:
            self.ledger.unclaim(claim.prepared.request, epoch=claim.call.job.epoch)
        finally:
            claim.scratch.close()

    def send(self, claim: Claim, *, path: str, sha256: str, texts: Mapping[str, str]) -> Receipt:
        """Send an asset of a claimed call through the broker, and keep the receipt.

        If nothing was sent, the claim of the guard's own export tool notes the error that says so
        (`Claim.is_known_not_done`). What a developer's body did by itself, the broker can't tell.

        Raises:
            AssetError: the private copy is not what was decided on; nothing was sent.
            DestinationError: the destination refused or could not be reached.
        """
        claim.sends += 1  # until it is known better
        try:
            return self._send(claim, path=path, sha256=sha256, texts=texts)
        except (AssetError, DestinationError) as error:
            unknown = isinstance(error, DestinationError) and error.outcome_unknown
            if not unknown and claim.call.bound.name == EXPORT_ASSET:
                claim.sends -= 1
                claim.not_sent = error
            raise

    def _send(self, claim: Claim, *, path: str, sha256: str, texts: Mapping[str, str]) -> Receipt:
        request = claim.prepared.request
        if request.destination is None:
            raise DestinationError("this call names no destination", outcome_unknown=False)
        row = next(row for row in claim.prepared.rows.values() if row.sha256 == sha256)
        self._require_held(claim)
        receipt = self.broker.send(
            destination=request.destination,
            key=request.content_digest,
            path=path,
            sha256=sha256,
            extension=row.extension,
            texts=texts,
        )
        claim.receipts.append(receipt)
        return receipt

    def _require_held(self, claim: Claim) -> None:
        """Look once more right before sending: who slept past its lease may be given up by now.

        I8: an effect that was reconciled as "it did not happen" must not happen afterwards.
        """
        try:
            held = claim.call.job.has_claimed(claim.prepared.request)
        except LedgerError as error:
            reason = (
                "the ledger can't say whether this call still holds its grant; nothing was sent"
            )
            raise DestinationError(reason, outcome_unknown=False) from error
        if not held:
            reason = "its job ended meanwhile; nothing was sent"
            raise DestinationError(reason, outcome_unknown=False)

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
                    return scratch.input_bytes(row.sha256)
                if form == "data-url":
                    return scratch.data_url(row.sha256, row.media_type)
                if form == "base64":
                    return base64.b64encode(scratch.input_bytes(row.sha256)).decode("ascii")
                return scratch.input(row.sha256, row.extension)

            for returned in bound.binding.results:
                if returned.folder is not None:
                    scratch.watch(returned.folder)
            key = prepared.request.content_digest
            return scratch, bound.fill(prepared.request.args, private, outputs, key=key), outputs
        except AssetError as error:
            scratch.close()
            raise Refused(str(error), policy="inputs") from None
        except BaseException:
            scratch.close()
            raise

    def _memory(self, claim: Claim) -> Memory | None:
        binding = claim.call.bound.binding
        if not binding.remembers:
            return None
        return Memory(
            tools=binding.remembers,
            owners={agent.id: agent.owner for agent in self.workspace.agents.values()},
            ceiling=self.workspace.chat_ceiling if binding.reveals else None,
            open_labels=self.workspace.open_labels,
        )

    def _hosts(self, request: Request) -> frozenset[str]:
        """Where what a call returned may be fetched from (I3)."""
        named = self.workspace.destinations.get(request.destination or "")
        return named.hosts if named is not None else frozenset()

    def _done(self, grant: GrantRow, reads: Reads) -> Replay | None:
        """What came of a Grant that was used before; None if it may be claimed now.

        Raises:
            Refused: nobody knows what came of it (I8), or it was deleted.
        """
        state = grant.state
        if state in (GrantState.CLAIMED, GrantState.UNKNOWN):
            raise Refused(
                "this call was started before and its outcome is not known yet; it will not"
                " be done twice (`agentguard reconcile` finds out)",
                policy="outcome-unknown",
            )
        retried = state == GrantState.FAILED and grant.effect == OutsideEffect.NONE
        if state not in (GrantState.EXECUTED, GrantState.FAILED) or retried:
            return None
        return self._outcome(grant, reads)

    def _outcome(self, grant: GrantRow, reads: Reads) -> Replay:
        """The recorded outcome of a Grant that was used.

        Raises:
            Refused: it was deleted.
        """
        outcome = reads.first(outcome_of(grant.id))
        if outcome is None:
            raise Refused("this call already ran; its text was deleted", policy="replayed")
        return Replay(
            executed=grant.state == GrantState.EXECUTED,
            text=outcome.text,
            updates=outcome.state,
            assets=outcome.assets,
        )

    def _finish(self, claim: Claim, outcome: Outcome) -> str:
        request = claim.prepared.request
        try:
            held = self.ledger.finish(request, outcome, credential=claim.credential)
        except LedgerUnavailable:
            claim.call.job.owe(request, outcome, credential=claim.credential)
            raise
        finally:
            claim.scratch.close()
        if not held:
            raise LedgerUnavailable("the job ended while its tool ran; the outcome came too late")
        if outcome.remembers is None or outcome.remembers.ceiling is None:
            return outcome.text
        text = self.ledger.first(outcome_text(request.digest))
        if text is None:
            raise LedgerUnavailable("what the tool said was deleted before it was read")
        return text


def _is_granted(call: Call, reads: Reads) -> bool:
    """Whether a call is, word for word, one that was granted; then only its claim says more."""
    known = reads.first(granted_call(call.job.id, call.thread, call_name(call.call_id)))
    if known is None or known.tool != call.bound.name:
        return False
    if call.agent not in (None, known.agent) or call.key not in (None, known.call_key):
        return False
    recorded = known.body["args"]
    return all(
        name in recorded and recorded[name] == value for name, value in call.arguments.items()
    )
