"""agentguard with one control taken out: what the harness must report, or it measures nothing."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO
from unittest import mock

from agentguard.calls.ask import Asker
from agentguard.calls.call import Call
from agentguard.calls.claim import ClaimedCall, Claims
from agentguard.calls.execute import Executor
from agentguard.calls.request import build_request
from agentguard.content.scratch import Scratch
from agentguard.content.store import Store
from agentguard.content.text.scan import Scan
from agentguard.errors import AssetError
from agentguard.export.broker import Broker, Receipt
from agentguard.model import Answer, Decision, Effect, Holder
from agentguard.people.approvals import Approvals
from agentguard.policy import quorum
from evals.crew import HOME


@contextlib.contextmanager
def _patched(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for owner, name, value in changes:
            stack.enter_context(mock.patch.object(owner, name, value))
        yield


def _no_claim() -> Any:
    """A tool runs whether or not a Grant exists for the call."""

    def claim(self: Claims, call: Call, **_: Any) -> ClaimedCall:
        assessor = self._assessor
        call = replace(call, agent=call.agent or HOME[call.bound.name])
        built = build_request(call, assessor.workspace, assessor.ledger)
        holder = Holder(epoch=call.job.epoch, credential="")
        return self._prepared(call, assessor.assess(call, built, holder, assessor.ledger))

    return _patched(
        (Claims, "claim", claim),
        (Asker, "obstacle", lambda *_, **__: None),  # what stands in front of the claim
        (Executor, "_require_held", lambda *_: None),
    )


def _no_policy() -> Any:
    """Every question is answered with yes."""

    def decide(*_: Any) -> Decision:
        return Decision(effect=Effect.PERMIT, policies=("broken",), reason="all is permitted")

    return _patched_in("agentguard.calls.assess.decide", decide)


def _no_eligibility() -> Any:
    """Anybody approves anything, also their own work."""

    def answer(self: Approvals, given: Answer) -> Any:
        self._ledger.answer(given)
        return self.show(given.request)

    def eligible(people: Any, *_: Any) -> Any:
        return {person.id: person for person in people}

    return _patched((Approvals, "answer", answer), (quorum, "eligible", eligible))


def _no_hashing() -> Any:
    """Bytes are used as they are found."""
    fetch, send = Store.fetch, Broker.send

    def unhashed(self: Store, sha256: str, target: BinaryIO) -> int:
        with contextlib.suppress(AssetError):  # it complains once all is written
            return fetch(self, sha256, target)
        return target.tell()

    def unlooked(self: Broker, *, path: str, sha256: str, **rest: Any) -> Receipt:
        found = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        return send(self, path=path, sha256=found, **rest)

    return _patched((Store, "fetch", unhashed), (Broker, "send", unlooked))


def _no_scan() -> Any:
    """Nobody reads prompts and captions."""

    def scan(text: str) -> Scan:
        return Scan(labels=frozenset(), secrets=(), redacted=text)

    return _patched_in("agentguard.calls.arguments.scan", scan)


def _no_scratch() -> Any:
    """Whatever path a tool names is taken in."""
    take = Scratch.take

    def anything(self: Scratch, path: str) -> Any:
        copy = self.folder / f"copy-{secrets.token_hex(4)}"
        copy.write_bytes(Path(path).read_bytes())
        return take(self, str(copy))

    return _patched((Scratch, "take", anything))


def _patched_in(target: str, value: Any) -> Any:
    return mock.patch(target, value)


CONTROLS: Mapping[str, Callable[[], Any]] = {
    "claim": _no_claim,
    "policy": _no_policy,
    "eligibility": _no_eligibility,
    "hashing": _no_hashing,
    "scan": _no_scan,
    "scratch": _no_scratch,
}
"""Control → a context manager that takes it out."""
