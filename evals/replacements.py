"""What stands in the place of a control where one other result is not enough: see `controls`."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from agentguard.calls.call import Call
from agentguard.calls.claim import ClaimedCall, Claims
from agentguard.calls.request import build_request
from agentguard.content.scratch import Scratch
from agentguard.content.store import Store
from agentguard.content.text.scan import Scan
from agentguard.errors import AssetError
from agentguard.export.broker import Broker, Receipt
from agentguard.jobs.job import CONFIG_KEY
from agentguard.langgraph.own_messages import OwnPart
from agentguard.ledger.queries.assets import asset_by_id
from agentguard.model import (
    Answer,
    Decision,
    Effect,
    GrantState,
    Holder,
    ObstacleKind,
    Request,
)
from agentguard.people.approvals import Approvals
from evals.crew import HOME

Control = Callable[..., Any]

PERMITTED = Decision(effect=Effect.PERMIT, policies=("mutant",), reason="everything is permitted")
FAILED = GrantState.FAILED


def whenever(is_approved: Control) -> Control:
    """Approvals that live for good."""
    return lambda *args, now, **named: is_approved(*args, now=0, **named)


def named_as_decided(is_as_decided: Control) -> Control:
    """A call goes by the digest that it was decided under, whatever it has become."""

    def same(request: Request, row: Any) -> bool:
        request.__dict__["digest"] = row.digest
        return True

    return same


def claim_what_was_decided(claim: Control) -> Control:
    """A call that was decided on runs, whatever became of its Grant."""

    def claimed(self: Claims, call: Call, **options: Any) -> ClaimedCall:
        assessor = self._assessor
        with assessor.ledger.snapshot() as reads:
            call, built, _ = assessor.recorded(call, reads)
            item = assessor.assess(call, built, assessor.holder(call), reads)
        return self._prepared(call, item)

    return claimed


def claim_anything(claim: Control) -> Control:
    """A call runs, whether it was decided on or not."""

    def claimed(self: Claims, call: Call, **options: Any) -> ClaimedCall:
        assessor = self._assessor
        call = replace(call, agent=call.agent or HOME[call.bound.name])
        built = build_request(call, assessor.workspace, assessor.ledger)
        holder = Holder(epoch=call.job.epoch, credential="")
        return self._prepared(call, assessor.assess(call, built, holder, assessor.ledger))

    return claimed


def permit_what_was_asked(assess: Control) -> Control:
    """A question is taken for its answer."""

    def assessed(*args: Any, approval: Any = None, **named: Any) -> Any:
        item = assess(*args, approval=approval, **named)
        return item if approval is None else replace(item, decision=PERMITTED, asks_again=False)

    return assessed


def answers_at_any_time(statements: Control) -> Control:
    """A table of answers in which a person may stand more than once."""

    def written(script: str) -> Iterator[str]:
        one, many = "PRIMARY KEY (request, person)", "PRIMARY KEY (request, person, at)"
        return (each.replace(one, many) for each in statements(script))

    return written


def by_approval(by_person: Control) -> Control:
    """An entry for each approval, also of the same person."""
    return lambda approvals: {
        f"{number} {answer.person}": answer.group for number, answer in enumerate(approvals)
    }


def take_any_answer(answer: Control) -> Control:
    """Answers that nobody looks at."""

    def taken(self: Approvals, given: Answer) -> Any:
        self._ledger.answer(given)
        return self.show(given.request)

    return taken


def everybody(eligible: Control) -> Control:
    """All people, whatever they had to do with it."""
    return lambda people, *_: {person.id: person for person in people}


def named_by_chance(named: Control) -> Control:
    """A key that no other run of the same task has."""
    return lambda self, call, reads: replace(call, key=secrets.token_hex(32))


def new_labels_only(joined_labels: Control) -> Control:
    """The labels of what is registered, without those that its bytes had."""
    return lambda made, known: made.labels


def not_inherited(inherit: Control) -> Control:
    """What was made, as it was made."""
    return lambda tx, made: made


def asset_of_any_job(asset_of_job: Control) -> Control:
    """An asset by its id, whichever job sees it."""
    return lambda asset, job: asset_by_id(asset)


def left_cleanly(leave: Control) -> Control:
    """A job that is taken to have been left without an exception."""
    return lambda *args, clean, **named: leave(*args, clean=True, **named)


def fetch_unhashed(fetch: Control) -> Control:
    """Bytes of the store, whatever they are."""

    def fetched(self: Store, sha256: str, target: BinaryIO) -> int:
        with contextlib.suppress(AssetError):  # it complains once all is written
            return int(fetch(self, sha256, target))
        return target.tell()

    return fetched


def send_what_is_there(send: Control) -> Control:
    """Whatever is in a file is taken for what was decided on."""

    def sent(self: Broker, *, path: str, sha256: str, **rest: Any) -> Receipt:
        found = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        receipt: Receipt = send(self, path=path, sha256=found, **rest)
        return receipt

    return sent


def nothing_found(scan: Control) -> Control:
    """Texts without labels and secrets."""
    return lambda text: Scan(labels=frozenset(), secrets=(), redacted=text)


def take_any_path(take: Control) -> Control:
    """A file from anywhere, as if the tool had written it into its folder."""

    def taken(self: Scratch, path: str) -> Any:
        copy = self.folder / f"copy-{secrets.token_hex(4)}"
        copy.write_bytes(Path(path).read_bytes())
        return take(self, str(copy))

    return taken


def all_of_it(own_part: Control) -> Control:
    """A tool's result with all that is not its own."""

    def whole(result: Any, *_: Any, **__: Any) -> OwnPart:
        items = tuple(result) if isinstance(result, list) else (result,)
        return OwnPart(items=items, content=[], updates={}, routed=False, dropped=(), beside=[])

    return whole


def as_given(said: Control) -> Control:
    """What a tool returned, word for word."""
    return lambda items, *_, **__: list(items)


def as_is(control: Control) -> Control:
    """What a control is given, untouched."""
    return lambda given: given


def shown_as_given(shown: Control) -> Control:
    """The tools that a model is given, untouched."""
    return lambda self, given: given


def run_the_payload(execute: Control) -> Control:
    """The developer's ToolNode gets a payload as it came."""
    return lambda self, input, config, **_: self._node.invoke(input, config)


def unless_foreign(obstacle: Control) -> Control:
    """No obstacle for a tool of which the guard has no copy."""

    def found(self: Any, call: Any, **named: Any) -> Any:
        foreign = getattr(call, "kind", None) is ObstacleKind.UNKNOWN_TOOL
        return None if foreign else obstacle(self, call, **named)

    return found


def first_found(find: Control) -> Control:
    """The job that a config names, if this process holds it."""
    return lambda self, configurable: self._held[configurable[CONFIG_KEY]]


def unsealed(sealed_class: Control) -> Control:
    """A builder's own class."""
    return lambda base: base


def of_one_thread(from_config: Control) -> Control:
    """The context of a run, as if all runs were of one thread."""
    return lambda *args, **named: replace(from_config(*args, **named), thread="t")
