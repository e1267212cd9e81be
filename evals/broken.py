"""agentguard with one control taken out: what the harness must report, or it measures nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, BinaryIO
from unittest import mock

from agentguard import decide as deciding
from agentguard.approvals import Approvals, _outcome
from agentguard.assets import Scratch, Store, take_in
from agentguard.broker import Broker, Receipt
from agentguard.claims import Claim
from agentguard.classify import Scan
from agentguard.destinations import Parcel
from agentguard.execution import Execution
from agentguard.gather import Call, prepare
from agentguard.model import Answer, Decision, Effect
from evals.crew import HOME


@contextlib.contextmanager
def _patched(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for owner, name, value in changes:
            stack.enter_context(mock.patch.object(owner, name, value))
        yield


def _no_claim() -> Any:
    """A tool runs whether or not a Grant exists for the call."""

    def claim(self: Execution, call: Call) -> Claim:
        call = replace(call, agent=call.agent or HOME[call.bound.name])
        prepared = prepare(call, self.workspace, self.ledger)
        scratch, arguments, outputs = self._prepare_files(call, prepared)
        return Claim(call=call, prepared=prepared, credential="", scratch=scratch,
                     arguments=arguments, outputs=outputs)  # fmt: skip

    return _patched((Execution, "claim", claim))


def _no_policy() -> Any:
    """Every question is answered with yes."""

    def decide(*_: Any) -> Decision:
        return Decision(effect=Effect.PERMIT, policies=("broken",), reason="all is permitted")

    return _patched_in("agentguard.gate.decide", decide)


def _no_eligibility() -> Any:
    """Anybody approves anything, also their own work."""

    def answer(self: Approvals, given: Answer) -> Any:
        approval = self.show(given.request)
        self._ledger.answer(given, outcome=_outcome(approval, given))
        return self.show(given.request)

    def eligible(facts: Any) -> Any:
        return {person.id: person for person in facts.people}

    return _patched((Approvals, "answer", answer), (deciding, "_eligible", eligible))


def _no_hashing() -> Any:
    """Bytes are used as they are found."""

    def fetch(self: Store, sha256: str, target: BinaryIO) -> int:
        with self._fs.open(self._place(sha256), "rb") as source:
            return target.write(source.read())

    def send(self: Broker, *, destination: str, key: str, path: str, sha256: str,
             extension: str, texts: Mapping[str, str]) -> Receipt:  # fmt: skip
        with open(path, "rb") as file:
            data = file.read()
        parcel = Parcel(key=key, sha256=sha256, name=f"{sha256[:20]}{extension}", data=data,
                        texts=texts)  # fmt: skip
        location = self._adapter(destination).put(parcel)
        return Receipt(destination=destination, location=location, sha256=sha256)

    return _patched((Store, "fetch", fetch), (Broker, "send", send))


def _no_scan() -> Any:
    """Nobody reads prompts and captions."""

    def scan(text: str) -> Scan:
        return Scan(labels=frozenset(), secrets=(), redacted=text)

    return _patched_in("agentguard.gather._scan", scan)


def _no_scratch() -> Any:
    """Whatever path a tool names is taken in."""

    def take(self: Scratch, path: str) -> Any:
        with open(path, "rb") as file:
            return take_in(self._store, file, limits=self._limits)

    return _patched((Scratch, "take", take))


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
