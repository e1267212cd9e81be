"""A small world: one workspace on a real ledger, two processes, and whatever can be done there.

`World.do` makes one move through the product's own doors and tells the oracle (`History`) what an
observer saw. Whatever the oracle does not allow lands in `World.faults`.
"""

from __future__ import annotations

import base64
import functools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from langchain_core.tools import tool

from agentguard import Guard, model
from agentguard.calls import reconcile as recovery
from agentguard.calls.arguments import CallArguments
from agentguard.calls.call import Call, call_key
from agentguard.calls.claim import ClaimedCall
from agentguard.calls.execution import Execution, entered
from agentguard.calls.questions import PendingQuestion
from agentguard.calls.refused import Refused
from agentguard.config import workspace as config
from agentguard.config.workspace import Lifetimes
from agentguard.errors import AgentGuardError, IllegalTransition
from agentguard.export.broker import Broker
from agentguard.jobs.job import Job
from agentguard.ledger.ledger import Made
from agentguard.ledger.queries.requests import newest_of_key
from agentguard.model import Answer, Effect, JobState, Stage, Terms, Verdict
from agentguard.people.answers import sign_answer
from agentguard.policy.policy_set import Policy
from agentguard.transparency.log_key import create_log_key
from tests.model.history import (
    GROUP,
    OWNER,
    REQUESTER,
    STAGE_OF,
    STAGES,
    Asked,
    Credential,
    History,
    JobSeen,
)
from tests.model.standins import Files, MemoryStorage, NoThread, Place, RacedLedger
from tests.support.bindings import Arg, Binding
from tests.support.giving import give

T0 = 1_800_000_000_000
TICK = 10_000
PEOPLE = ("kim", "ines", "oda", "omar", "lee")

_CONFIG = """
workspace = "acme"
[people]
kim = { groups = [] }
ines = { groups = [] }
oda = { groups = [] }
omar = { groups = ["legal"] }
lee = { groups = [] }
[agents]
publisher = { stages = ["export"], owner = "oda" }
editor = { stages = ["edit"], owner = "ines" }
[destinations.team]
url = "file:out/team"
audience = "internal"
environment = "draft"
ceiling = ["brand"]
[destinations.site]
url = "file:out/site"
audience = "public"
environment = "draft"
"""

_STRICT = """
@id("model.strict")
@advice("two people look at what goes to the public")
forbid (principal, action in Action::"stage:export", resource)
when { context has destination && context.destination.audience == "public" }
unless { context.approvals >= 2 };
"""

ASSETS = {"photo": ("customer-data", "kim"), "logo": ("brand", "ines")}
"""What there is at first: its label, and who imported it."""


class Variant(NamedTuple):
    """Arguments of a call, as the model writes them."""

    tool: str
    asset: str
    to: str = ""
    agent: str = ""  # whose node it is sent to; empty: the one that has the tool's stage

    def __str__(self) -> str:
        where = f" to {self.to}" if self.to else ""
        by = f" as {self.agent}" if self.agent else ""
        return f"{self.tool} {self.asset}{where}{by}"


class Flight(NamedTuple):
    """A claimed call in a process.

    Args:
        serial: which claim of its Grant this is.
        ran: the tool's body has run: bytes are out, or outputs made.
    """

    digest: str
    claim: Execution
    serial: int
    ran: bool


@dataclass(slots=True)
class Process:
    """One operating system process: the job it holds, its credentials, the calls it runs."""

    name: str
    job: str = ""
    epoch: int = 0
    credentials: dict[Any, Any] = field(default_factory=dict)
    flights: tuple[Flight, ...] = ()

    def now(self) -> Process:
        """What it holds at this moment; it may leave its job while it decides."""
        return Process(self.name, self.job, self.epoch, self.credentials, self.flights)

    def copy(self) -> Process:
        return Process(self.name, self.job, self.epoch, dict(self.credentials), self.flights)


class Saved(NamedTuple):
    """One state of the world."""

    pages: dict[int, bytes]
    now: int
    history: History
    processes: tuple[Process, ...]


class Setup(NamedTuple):
    """What a scope starts with.

    Args:
        lifetimes: in ticks: credential, grant, review window, lease.
        second: process P2 holds a second job, B, asked for by Lee.
    """

    credential: int = 99
    grant: int = 2
    review: int = 3
    lease: int = 99
    second: bool = False


class World:
    """The world at one state; `restore` puts it into another.

    Args:
        setup: what it starts with.
        dropped: triggers that are missing, for mutants.
        rules: policies that are missing, for mutants.
    """

    def __init__(
        self, setup: Setup, *, dropped: tuple[str, ...] = (), rules: tuple[str, ...] = ()
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="agentguard-model-")
        folder = Path(self._folder.name)
        self.now = T0
        self.faults: list[str] = []
        self.history = History()
        self.processes: tuple[Process, ...] = (Process("P1"), Process("P2"))
        contents = {name: name.encode() for name in ASSETS}
        contents |= {f"crop of {name}": f"crop of {name}".encode() for name in ASSETS}
        self.files = Files(folder, contents)
        self.storage = MemoryStorage(clock=lambda: self.now, dropped=dropped)
        self.ledger = RacedLedger(
            self.storage, clock=lambda: self.now, meanwhile=self._meanwhile, minted=self._minted
        )
        self._keys = _write_workspace(folder)
        self._base = replace(config.load(folder / "agentguard.toml", {}), lifetimes=Lifetimes(
            credential=setup.credential * TICK, grant=setup.grant * TICK,
            review=setup.review * TICK, lease=setup.lease * TICK))  # fmt: skip
        self._policies = {strict: _policy(strict, rules) for strict in (False, True)}
        self._guards: dict[tuple[int, bool], Guard] = {}
        self._signed: dict[tuple[object, ...], Answer] = {}
        self._flying: str | None = None
        self._other: tuple[Any, ...] | None = None
        self._before: History | None = None
        self._before_now = 0
        self.jobs: dict[str, str] = {}
        for name, (label, person) in ASSETS.items():
            self._register(name, label, person)
        self._open("A", self.processes[0])
        if setup.second:
            self._open("B", self.processes[1])
            self._give("logo", "B")
        self._give("photo", "A")
        self._give("logo", "A")

    def close(self) -> None:
        self.storage.close()
        self._folder.cleanup()

    # --- states -------------------------------------------------------------------------------

    def save(self) -> Saved:
        processes = tuple(one.copy() for one in self.processes)
        return Saved(self.storage.save(), self.now, self.history.copy(), processes)

    def restore(self, saved: Saved) -> None:
        self.storage.restore(saved.pages)
        self.now = saved.now
        self.reset(saved)

    def reset(self, saved: Saved) -> None:
        """Restore all but the ledger, after a move that wrote nothing there."""
        self.now = saved.now
        self.ledger.alarm = None  # each state is a process that just opened its ledger
        self.history = saved.history.copy()
        self.processes = tuple(one.copy() for one in saved.processes)

    @property
    def guard(self) -> Guard:
        """The guard as configured now; processes differ in their jobs, not in their guards."""
        chosen = (self.history.place, self.history.strict)
        if chosen not in self._guards:
            self._guards[chosen] = self._make_guard(*chosen)
        return self._guards[chosen]

    def process(self, name: str) -> Process:
        return next(one for one in self.processes if one.name == name)

    def variant_of(self, digest: str) -> Variant:
        what = self.history.asked[digest].what
        return Variant(what.tool, what.asset, what.to)

    # --- moves --------------------------------------------------------------------------------

    def do(self, kind: str, *args: Any) -> str:
        """Make one move; returns what came of it, in a word or two."""
        self.faults = []
        self._before = None
        self.storage.records.clear()
        self.storage.wrote = False
        return self._try(kind, *args)

    def race(self, move: tuple[Any, ...], other: tuple[Any, ...]) -> str:
        """Make a move, and another after it was decided on, before it is written down."""
        self._other = other
        try:
            return self.do(*move)
        finally:
            self._other = None

    def _meanwhile(self) -> None:
        other, self._other = self._other, None
        if other is not None:
            self._before, self._before_now = self.history.copy(), self.now
            self._try(*other)

    def _minted(self, credential: model.Credential) -> None:
        """I2: a credential is for a stage that its agent takes, in a job that is held."""
        (job,) = [name for name, id in self.jobs.items() if id == credential.job]
        self.history.credentials[credential.id] = Credential(
            job, credential.agent, credential.stage, credential.epoch, credential.expires_at, True
        )
        if STAGES.get(credential.agent) != credential.stage:
            self.faults.append(f"I2: {credential.agent} got a {credential.stage} credential")
        self.faults.extend(self.history.holds(job, credential.epoch, self.now))

    @property
    def _judged(self) -> History:
        """What was true when a move was decided on: what came between is judged at the claim."""
        return self._before or self.history

    def _try(self, kind: str, *args: Any) -> str:
        try:
            return str(getattr(self, f"_do_{kind}")(*args))
        except IllegalTransition as error:
            return f"second line: {error}"
        except (AgentGuardError, Refused) as error:
            return f"refused: {error}"

    def _do_authorize(self, name: str, call: str, variant: Variant) -> str:
        process = self.process(name).now()
        made = self._call(process, call, variant, gate=True)
        (decision,) = self.guard.enforcement.authorizer.authorize([made])
        row = self.guard.ledger.first(newest_of_key(made.key))
        if row is None or row.policies != decision.policies:
            return f"refused: {decision.reason}"
        digest = row.digest
        history = self.history
        what = self._judged.what(process.job, call, *variant[:3])
        known = history.asked.get(digest)
        if known is not None:
            if known.what != what:
                self.faults.append(f"I7: one digest names {known.what} and {what}")
            return decision.effect.value
        until = self.now + self._base.lifetimes.review
        asks = decision.effect is Effect.ASK
        if decision.effect is not Effect.DENY:
            self._require_holder(process)
        reasons = self._judged.reasons(what)
        history.asked[digest] = Asked(what, until if asks else None, reasons)
        if decision.effect is Effect.PERMIT:
            self._require_permitted(digest)
            history.granted[digest] = self.now + self._base.lifetimes.grant
        return decision.effect.value

    def _do_resume(self, name: str, call: str, variant: Variant) -> str:
        process = self.process(name).now()
        found = self.guard.enforcement.asked_calls.reassess(
            self._call(process, call, variant, gate=True)
        )
        if found is None:
            return "begun"
        waiting, _ = found
        digest, history = waiting.request.digest, self.history
        self._require_same(self._judged, process, call, variant, digest)
        if digest not in history.asked:
            self._note_asked_anew(process, call, variant, digest)
        if waiting.decision.effect is Effect.PERMIT and digest not in history.granted:
            self._require_permitted(digest)
        return waiting.decision.effect.value

    def _note_asked_anew(self, process: Process, call: str, variant: Variant, digest: str) -> None:
        """I7: a call gets another question only for a reason that the last one did not show."""
        history = self.history
        what = history.what(process.job, call, *variant[:3])
        open_ = [d for d, asked in history.asked.items()
                 if asked.what == what and asked.until and d not in history.replaced]  # fmt: skip
        if len(open_) != 1:
            self.faults.append(f"I7: asked anew, and {len(open_)} questions about it were open")
            return
        (old,) = open_
        reasons = history.reasons(what)
        if reasons <= history.asked[old].reasons:
            self.faults.append("I7: asked anew without a new reason")
        history.replaced |= {old}
        until = self.now + self._base.lifetimes.review
        history.asked[digest] = Asked(what, until, reasons)

    def _do_execute(self, name: str, call: str, variant: Variant) -> str:
        process = self.process(name).now()
        claim = self.guard.enforcement.claims.claim(
            self._call(process, call, variant, gate=False), asks=True
        )
        if isinstance(claim, PendingQuestion):
            self._require_same(self._judged, process, call, variant, claim.request)
            if claim.request not in self.history.asked:
                self._note_asked_anew(process, call, variant, claim.request)
            return "asked"
        if isinstance(claim, model.Obstacle):
            return f"refused: {claim.sentence}"
        if not isinstance(claim, ClaimedCall):
            return "replayed"
        history, now = self.history, self.now
        digest = claim.request.digest
        self._require_holder(process)
        self._require_same(history, process, call, variant, digest)
        if digest not in history.asked:
            self.faults.append("I1: a call was claimed that nobody decided on")
            return "claimed"
        self.faults.extend(history.shortfall(digest, now))
        if digest not in history.granted and history.asked[digest].until is not None:
            history.granted[digest] = now + self._base.lifetimes.grant  # the claim writes it
        if digest not in history.granted:
            self.faults.append("I1: claimed without a grant")
        elif now >= history.granted[digest]:
            self.faults.append("I1: claimed after its grant expired")
        if history.claims.get(digest) and STAGE_OF[variant.tool] == "export":
            self.faults.append("I8: a call with an effect outside was claimed twice")
        elif any(f.digest == digest and f.claim.claimed.call.job.epoch == process.epoch
                 for p in self.processes for f in p.flights):  # fmt: skip
            self.faults.append("I8: claimed while the same holder runs it")
        if (process.job, variant.asset) not in history.seen:
            self.faults.append(f"I3: job {process.job} was never given {variant.asset}")
        self._require_credential(process, claim.assessment.holder.credential, variant.tool)
        history.claims[digest] = history.claims.get(digest, 0) + 1
        flight = Flight(digest, Execution(claimed=claim), history.claims[digest], False)
        self.process(name).flights += (flight,)
        return "claimed"

    def _do_run(self, name: str, index: int) -> str:
        """The tool's body: bytes reach their destination."""
        process = self.process(name)
        flight = process.flights[index]
        claim = replace(flight.claim, receipts=list(flight.claim.receipts), started=True)
        self._flying = flight.digest
        try:
            with entered(claim):
                tool: Any = claim.claimed.call.bound.binding.tool
                tool.func(**claim.claimed.arguments)
        finally:
            self._flying = None
        self._swap(process, index, flight._replace(claim=claim, ran=True))
        return "ran"

    def _do_record(self, name: str, index: int) -> str:
        process = self.process(name)
        flight = self._land(process, index)
        executor = self.guard.enforcement.executor
        collected = executor.collect(flight.claim, "done")
        executor.record(flight.claim, collected)
        self._require_last_claim(flight)
        what = self.history.asked[flight.digest].what
        for made in collected.made:
            child = self.files.name[made.sha256]
            parents = self.history.parents.get(child, frozenset())
            self.history.parents[child] = parents | {what.asset}
            hands = self.history.hands.get(child, frozenset())
            self.history.hands[child] = hands | {OWNER["editor"]}
            self.history.seen |= {(what.job, child)}
        return "recorded"

    def _do_fail(self, name: str, index: int) -> str:
        """The tool raised; after its body ran, nobody knows how far an effect outside got."""
        process = self.process(name)
        flight = self._land(process, index)
        claim = flight.claim
        self.guard.enforcement.executor.record_failure(claim, "it failed", unknown=flight.ran)
        self._require_last_claim(flight)
        return "recorded as failed"

    def _do_crash(self, name: str) -> str:
        process = self.process(name)
        process.job, process.epoch, process.credentials, process.flights = "", 0, {}, ()
        return "gone"

    def _do_leave(self, name: str, clean: bool) -> str:
        process, history = self.process(name), self.history
        job, epoch, seen = process.job, process.epoch, history.jobs[process.job]
        handle = self._handle(process)
        kind = None if clean else ValueError
        handle.__exit__(kind, None, None)
        process.job, process.epoch, process.credentials = "", 0, {}
        if seen.state != "open" or seen.epoch != epoch:
            return "it was not its job any more"
        if clean and history.questions(job, self.now):
            history.jobs[job] = seen._replace(state="waiting")
            history.kill(job)
        else:
            history.end(job)
        expected = JobState(history.jobs[job].state)
        if handle.state is not expected:
            self.faults.append(f"I9: job {job} is {handle.state} after it was left, not {expected}")
        return str(handle.state)

    def _do_rejoin(self, name: str, job: str) -> str:
        process, history = self.process(name), self.history
        try:
            handle = self.guard.rejoin_job(self.jobs[job], by=REQUESTER[job])
        finally:
            history.sweep(self.now)  # it sweeps first, whatever comes of it
        seen = history.jobs[job]
        if seen.state != "waiting":
            self.faults.append(f"I9: a job that is {seen.state} was re-entered")
        process.job, process.epoch, process.credentials = job, handle.epoch, {}
        lease = self.now + self._base.lifetimes.lease
        history.jobs[job] = JobSeen("open", seen.epoch + 1, lease)
        return f"epoch {handle.epoch}"

    def _do_handover(self, name: str, other: str, job: str) -> str:
        """One process leaves, and another is quick to go on, while the first still works."""
        self._do_leave(name, True)
        return self._do_rejoin(other, job)

    def _do_renew(self, name: str) -> str:
        process, history = self.process(name), self.history
        handle = self._handle(process)
        renewed = handle.renew()
        problems = list(history.holds(process.job, process.epoch, self.now))
        if renewed:
            self.faults.extend(problems)
            lease = self.now + self._base.lifetimes.lease
            history.jobs[process.job] = history.jobs[process.job]._replace(lease=lease)
        return "kept" if renewed else "lost"

    def _do_answer(self, person: str, digest: str, verdict: str, shown: str) -> str:
        """A person signs for the Request they were shown; it is handed in for `digest`."""
        history = self.history
        key = (person, shown, verdict, self.now)
        if key not in self._signed:
            self._signed[key] = sign_answer(
                self._keys[person], request=shown, verdict=Verdict(verdict), person=person,
                group=GROUP.get(person) if verdict == "approve" else None, at=self.now,
            )  # fmt: skip
        self.guard.approvals.answer(replace(self._signed[key], request=digest))
        asked = history.asked[digest]
        if shown != digest:
            self.faults.append(f"I7: {person} signed for another request, and it was taken")
        if asked.until is None or self.now >= asked.until:
            self.faults.append("I9: an answer was taken after the review window closed")
        if history.jobs[asked.what.job].state == "ended":
            self.faults.append("I9: an answer was taken after the job ended")
        if not self._judged.eligible(person, asked.what):
            self.faults.append(f"I1: an answer of {person} was taken, who may not answer")
        if any((d, p) == (digest, person) for d, p, _ in history.answers):
            self.faults.append(f"I1: {person} answered twice")
        if history.claims.get(digest):
            self.faults.append("I8: an answer was taken for a call that ran")
        if digest in history.replaced:
            self.faults.append("I7: an answer was taken to a question that was replaced")
        history.answers |= {(digest, person, verdict)}
        return "taken"

    def _do_label(self, asset: str, label: str, person: str) -> str:
        """Somebody imports the same bytes with one more label: the class rises."""
        self._register(asset, label, person)
        return "raised"

    def _do_mark(self, asset: str, column: str, value: bool) -> str:
        self.ledger.mark_asset(self.files.sha256[asset], column=column, value=value, by="lee")
        marked = getattr(self.history, column)
        setattr(self.history, column, marked | {asset} if value else marked - {asset})
        return column

    def _do_revoke(self, credential: str) -> str:
        self.ledger.revoke_credential(credential, reason="stolen")
        known = self.history.credentials[credential]
        self.history.credentials[credential] = known._replace(live=False)
        for digest, (job, issued) in self._issued_under(credential):
            assert job  # the row says whose it was; the oracle only forgets the grant
            del issued, self.history.granted[digest]
        return "revoked"

    def _do_end(self, job: str) -> str:
        ended = self.ledger.end_job(self.jobs[job], reason="stopped by a person")
        self.history.end(job)
        return "ended" if ended else "had ended"

    def _do_sweep(self) -> str:
        self.ledger.sweep()
        self.history.sweep(self.now)
        return "swept"

    def _do_reconcile(self) -> str:
        found = self.guard.reconcile()
        self.history.sweep(self.now)
        return ", ".join(said.split(":")[0] for _, said in found) or "nothing unknown"

    def _do_settle(self, digest: str) -> str:
        """A person looked, and says what is there."""
        happened = bool(self.history.sent.get(digest))
        recovery.settle(self.ledger, digest, happened=happened, by="lee")
        return "it happened" if happened else "it did not happen"

    def _do_configure(self) -> str:
        self.history.place += 1
        return "reconfigured"

    def _do_tighten(self) -> str:
        self.history.strict = True
        return "two people from now on"

    def _do_tick(self) -> str:
        self.now += TICK
        return ""

    # --- what moves are made of -----------------------------------------------------------------

    def _open(self, name: str, process: Process) -> None:
        lifetimes = self._base.lifetimes
        job, epoch = self.ledger.open_job(
            purpose="model", requested_by=REQUESTER[name], lease=lifetimes.lease
        )
        self.jobs[name] = job
        self.history.jobs[name] = JobSeen("open", epoch, self.now + lifetimes.lease)
        process.job, process.epoch = name, epoch

    def _register(self, name: str, label: str, person: str) -> None:
        sha256 = self.files.sha256[name]
        made = Made(
            sha256=sha256, id=f"asset-{sha256[:20]}", media_type="image/png", extension=".png",
            size=1, width=1, height=1, labels=frozenset({label}), terms=Terms(),
            provenance="unknown", parents=(), contributors=frozenset({person}), name=name,
        )  # fmt: skip
        self.ledger.register(made, job=None, by=person, how="imported")
        history = self.history
        history.said[name] = history.said.get(name, frozenset()) | {label}
        history.hands[name] = history.hands.get(name, frozenset()) | {person}

    def _give(self, asset: str, job: str) -> None:
        sha256 = self.files.sha256[asset]
        give(self.ledger, sha256, job=self.jobs[job], by=REQUESTER[job], name=asset)
        self.history.seen |= {(job, asset)}

    def _handle(self, process: Process) -> Job:
        handle = Job(
            id=self.jobs[process.job], epoch=process.epoch, requested_by=REQUESTER[process.job],
            ledger=self.ledger, lifetimes=self._base.lifetimes, import_asset=_no_import,
            left=lambda job: None,
        )  # fmt: skip
        handle._credentials = process.credentials  # what this process holds, across moves
        return handle

    def _call(self, process: Process, call: str, variant: Variant, *, gate: bool) -> Call:
        """A call as the gate gets it, or as a guarded tool does, which knows no message."""
        agent = variant.agent or next(a for a, s in _STAGES if s == STAGE_OF[variant.tool])
        handle = self._handle(process)
        sha256 = self.files.sha256[variant.asset]
        source = "source" if variant.tool != "export_asset" else "asset"
        arguments = {source: f"asset-{sha256[:20]}"} | ({"to": variant.to} if variant.to else {})
        key = call_key(job=handle.id, thread="t", source="m1", call_id=call)
        return Call(
            agent=agent if gate else None,
            arguments=CallArguments(self.guard.bound[variant.tool], arguments),
            call_id=call, job=handle, thread="t", key=key if gate else None,
            can_ask=True,
        )  # fmt: skip

    def _require_holder(self, process: Process) -> None:
        self.faults.extend(self.history.holds(process.job, process.epoch, self.now))

    def _require_permitted(self, digest: str) -> None:
        """I1, when a grant is written; the claim, which counts, is judged on the facts of then."""
        judged = self._judged
        if digest not in judged.asked:
            judged.asked[digest] = self.history.asked[digest]
        now = self._before_now if self._before is not None else self.now
        self.faults.extend(judged.shortfall(digest, now))

    def _require_same(
        self, history: History, process: Process, call: str, variant: Variant, digest: str
    ) -> None:
        """I5, I7: what would run now is what was decided on, and what people were shown."""
        asked = history.asked.get(digest)
        what = history.what(process.job, call, *variant[:3])
        if asked is not None and asked.what != what:
            self.faults.append(f"I1: {what} runs under what was decided of {asked.what}")

    def _require_credential(self, process: Process, credential: str, tool: str) -> None:
        known = self.history.credentials.get(credential)
        if known is None:
            self.faults.append("I2: claimed under a credential that was never issued")
            return
        if not known.live or known.until <= self.now:
            self.faults.append("I9: claimed under a credential that is revoked or expired")
        if (known.job, known.epoch) != (process.job, process.epoch):
            self.faults.append("I2: claimed under a credential of another job or process")
        if known.stage != STAGE_OF[tool]:
            self.faults.append(f"I2: a {known.stage} credential ran {tool}")

    def _require_last_claim(self, flight: Flight) -> None:
        if flight.serial != self.history.claims[flight.digest]:
            self.faults.append("I8: a process whose claim is over recorded an outcome")

    def _issued_under(self, credential: str) -> Iterator[tuple[str, tuple[str, int]]]:
        rows = self.ledger.all("SELECT * FROM grants WHERE credential = ?", credential)
        for row in rows:
            digest = row["request"]
            if digest in self.history.granted and not self.history.claims.get(digest):
                yield digest, (row["job"], row["issued_at"])

    def _swap(self, process: Process, index: int, flight: Flight) -> None:
        flights = process.flights
        process.flights = (*flights[:index], flight, *flights[index + 1 :])

    def _land(self, process: Process, index: int) -> Flight:
        flight = process.flights[index]
        process.flights = process.flights[:index] + process.flights[index + 1 :]
        return flight

    def _arrive(self, destination: str, key: str, sha256: str) -> None:
        """Bytes reach a destination: the effect that everything here is about."""
        digest, history = self._flying, self.history
        if digest is None:
            self.faults.append("I1: bytes arrived that no claimed call sent")
            return
        what = history.asked[digest].what
        if (destination, self.files.name[sha256]) != (what.to, what.asset):
            self.faults.append(f"I1: {self.files.name[sha256]} arrived at {destination}")
        history.sent[digest] = history.sent.get(digest, 0) + 1
        history.arrived |= {(destination, key, sha256)}

    def _make_guard(self, place: int, strict: bool) -> Guard:
        site = replace(self._base.destinations["site"], url=f"file:out/site{place or ''}")
        destinations = {**self._base.destinations, "site": site}
        workspace = replace(self._base, destinations=destinations)
        broker = Broker(destinations, make_adapter=lambda destination: Place(
            destination.id, arrive=self._arrive, arrived=lambda: self.history.arrived))  # fmt: skip

        @tool
        def publish(source: str, to: str) -> str:
            """Upload a picture by the developer's own code."""
            self._arrive(to, "", Path(source).stem)
            return "published"

        @tool
        def crop(source: str, file: str = "c.png") -> str:
            """Crop a picture."""
            return f"cropped {source} into {file}"

        guard = Guard(
            workspace=workspace, policy=self._policies[strict], ledger=self.ledger,
            store=self.files, broker=broker,  # type: ignore[arg-type]
            tools=[
                Binding(publish, stage="export", assets=["source"], destination=Arg("to"),
                        effect="opaque"),
                Binding(crop, stage="edit", assets=["source"], outputs=["file"]),
            ],
        )  # fmt: skip
        guard.enforcement.jobs = NoThread()  # type: ignore[assignment]
        guard.export_tool()
        return guard


_STAGES = (("publisher", Stage.EXPORT), ("editor", Stage.EDIT))


def _no_import(*args: object, **named: object) -> str:
    raise NotImplementedError("importing is a move of its own")


def _write_workspace(folder: Path) -> dict[str, Ed25519PrivateKey]:
    (folder / "agentguard.toml").write_text(_CONFIG, "utf-8")
    (folder / ".agentguard").mkdir()
    create_log_key(folder / ".agentguard" / "log.key")
    keys = {}
    for number, name in enumerate(PEOPLE, start=1):
        keys[name] = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
        public = base64.b64encode(keys[name].public_key().public_bytes_raw()).decode()
        with (folder / "agentguard.signers").open("a", encoding="utf-8") as signers:
            signers.write(f"{name} ed25519 {public}\n")
    return keys


@functools.cache
def _policy(strict: bool, without: tuple[str, ...]) -> Policy:
    """The default policy, with one rule more, or some less for mutants."""
    from importlib.resources import files

    texts = {
        entry.name: entry.read_text("utf-8")
        for entry in files("agentguard.policy.default").iterdir()
        if entry.name.endswith(".cedar")
    }
    for rule in without:
        marker = f'@id("{rule}")'
        (name,) = [name for name, text in texts.items() if marker in text]
        head, _, tail = texts[name].partition(marker)
        texts[name] = head + tail.partition(";\n")[2]
    if strict:
        texts["strict.cedar"] = _STRICT
    return Policy(texts)
