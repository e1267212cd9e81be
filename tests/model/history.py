"""What happened, as somebody outside saw it, and what may follow from it: the oracle.

Plain Python over the moves; it reads no table of the ledger and knows none of its SQL. A Request is
known here by what it says (`What`), not by its digest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

REQUESTER = {"A": "kim", "B": "lee"}
OWNER = {"publisher": "oda", "editor": "ines"}
STAGES = {"publisher": "export", "editor": "edit"}
STAGE_OF = {"export_asset": "export", "publish": "export", "crop": "edit"}
GROUP = {"omar": "legal"}


class What(NamedTuple):
    """Everything that an approval or a grant is for."""

    job: str
    call: str
    tool: str
    asset: str
    to: str
    labels: frozenset[str]
    place: int  # version of the destination's configuration


class Asked(NamedTuple):
    """One recorded Request: what it says, and the end of its review window if people are asked.

    Args:
        reasons: what people were shown of why they are asked.
    """

    what: What
    until: int | None
    reasons: frozenset[str] = frozenset()


class Credential(NamedTuple):
    job: str
    agent: str
    stage: str
    epoch: int
    until: int
    live: bool


class JobSeen(NamedTuple):
    state: str
    epoch: int
    lease: int


@dataclass(slots=True)
class History:
    """All that an observer remembers.

    Args:
        asked: by Request digest.
        granted: end of the grant, by Request digest.
        replaced: digests that were asked about, and are asked about under another one now.
        answers: (digest, person, verdict) that the guard accepted.
        claims: how often a claim succeeded, by digest.
        arrived: (destination, key, SHA-256) of what a destination holds.
        sent: how many times bytes left, by digest.
        undone: digests that were recorded as not done.
        said: labels that somebody gave an asset.
        hands: people who imported, owned the agent that made, or relabelled an asset.
        seen: (job, asset) that a job was given, imported or made.
    """

    asked: dict[str, Asked] = field(default_factory=dict)
    granted: dict[str, int] = field(default_factory=dict)
    replaced: frozenset[str] = frozenset()
    answers: frozenset[tuple[str, str, str]] = frozenset()
    claims: dict[str, int] = field(default_factory=dict)
    arrived: frozenset[tuple[str, str, str]] = frozenset()
    sent: dict[str, int] = field(default_factory=dict)
    said: dict[str, frozenset[str]] = field(default_factory=dict)
    parents: dict[str, frozenset[str]] = field(default_factory=dict)
    hands: dict[str, frozenset[str]] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    recalled: frozenset[str] = frozenset()
    seen: frozenset[tuple[str, str]] = frozenset()
    credentials: dict[str, Credential] = field(default_factory=dict)
    jobs: dict[str, JobSeen] = field(default_factory=dict)
    place: int = 0
    strict: bool = False

    def copy(self) -> History:
        twin = object.__new__(History)
        for name in self.__slots__:
            value = getattr(self, name)
            setattr(twin, name, dict(value) if name in _OWN else value)
        return twin

    # --- assets -------------------------------------------------------------------------------

    def line(self, asset: str) -> frozenset[str]:
        """An asset and all that it was made from."""
        found, pending = {asset}, [asset]
        while pending:
            for parent in self.parents.get(pending.pop(), ()):
                if parent not in found:
                    found.add(parent)
                    pending.append(parent)
        return frozenset(found)

    def labels(self, asset: str) -> frozenset[str]:
        """I4: what anybody ever said of an asset or of what it was made from."""
        return frozenset().union(*(self.said.get(one, frozenset()) for one in self.line(asset)))

    def contributors(self, asset: str) -> frozenset[str]:
        return frozenset().union(*(self.hands.get(one, frozenset()) for one in self.line(asset)))

    def what(self, job: str, call: str, tool: str, asset: str, to: str) -> What:
        """What a call would do if it ran now."""
        place = self.place if to == "site" else 0
        return What(job, call, tool, asset, to, self.labels(asset), place)

    # --- approvals ----------------------------------------------------------------------------

    def needs(self, what: What) -> tuple[int, frozenset[str]]:
        """How many people must approve, and which groups: the default policy, said again here."""
        if not what.to:
            return 0, frozenset()
        if what.to == "team":
            return (0 if what.labels <= {"brand"} else 1), frozenset()
        count, groups = 1, frozenset[str]()  # public: no asset has a verified provenance
        if "regulated" in what.labels:
            count, groups = 2, frozenset({"legal"})
        return max(count, 2 if self.strict else 1), groups

    def reasons(self, what: What) -> frozenset[str]:
        """I7: what a person is told of why a call needs them, in a word each."""
        count, groups = self.needs(what)
        found = {"what it is"} if count else set()
        found |= {"it is regulated"} if groups else set()
        found |= {"two people look at it"} if self.strict and what.to == "site" else set()
        return frozenset(found)

    def eligible(self, person: str, what: What) -> bool:
        """I1, S3: not who asked, nobody who had a hand in it, not the agent's owner."""
        agent = next(a for a, stage in STAGES.items() if stage == STAGE_OF[what.tool])
        barred = {REQUESTER[what.job], OWNER[agent]} | self.contributors(what.asset)
        return person not in barred

    def shortfall(self, digest: str, now: int) -> Iterator[str]:
        """What stands against doing now what a Request says (I1)."""
        asked = self.asked[digest]
        what = asked.what
        line = self.line(what.asset)
        if what.to and line & self.held:
            yield "I1: the asset, or what it was made from, is under hold"
        if line & self.recalled:
            yield "I1: the asset, or what it was made from, is recalled"
        count, groups = self.needs(what)
        if asked.until is not None and now >= asked.until:
            yield "I1: the review window has closed"
        new = self.reasons(what) - asked.reasons
        if asked.until is not None and new:
            yield f"I7: nobody approved it knowing that {', '.join(sorted(new))}"
        if digest in self.replaced:
            yield "I7: the question about it was replaced by another one"
        yes = {p for d, p, verdict in self.answers if (d, verdict) == (digest, "approve")}
        counted = {person for person in yes if self.eligible(person, what)}
        if len(counted) < count:
            yield f"I1: {len(counted)} of {count} eligible people approved"
        elif not groups <= {GROUP.get(person) for person in counted}:
            yield f"I1: nobody of {', '.join(sorted(groups))} approved"
        for d, person, verdict in self.answers:
            if (d, verdict) == (digest, "deny") and self.eligible(person, what):
                yield f"I1: {person} said no"

    # --- jobs ---------------------------------------------------------------------------------

    def holds(self, job: str, epoch: int, now: int) -> Iterator[str]:
        """What stands against acting as a job's holder of an epoch (I9)."""
        seen = self.jobs[job]
        if seen.state != "open":
            yield f"I9: job {job} is {seen.state}"
        if seen.epoch != epoch:
            yield f"I9: job {job} was re-entered by another process"
        if seen.lease <= now:
            yield f"I9: the lease on job {job} has lapsed"

    def questions(self, job: str, now: int, *, untold: bool = False) -> list[str]:
        """Requests of a job that people may still answer, or whose approvals nobody used.

        Args:
            untold: also those that got a no, which whoever enters the job again is told.
        """
        denied = {digest for digest, _, verdict in self.answers if verdict == "deny" and not untold}
        return [
            digest
            for digest, asked in self.asked.items()
            if asked.what.job == job and asked.until is not None and asked.until > now
            and not self.claims.get(digest) and digest not in denied | self.replaced
        ]  # fmt: skip

    def end(self, job: str) -> None:
        self.jobs[job] = self.jobs[job]._replace(state="ended")
        self.kill(job)

    def kill(self, job: str) -> None:
        """No credential survives the end of a job, or leaving it."""
        for name, credential in self.credentials.items():
            if credential.job == job:
                self.credentials[name] = credential._replace(live=False)

    def sweep(self, now: int) -> None:
        """End what is over: jobs whose process died, and waiting ones that nobody can answer."""
        for job, seen in self.jobs.items():
            over = seen.state == "waiting" and not self.questions(job, now, untold=True)
            if (seen.state == "open" and seen.lease <= now) or over:
                self.end(job)

    def key(self, now: int) -> tuple[object, ...]:
        """What of this can matter later; times as what is left of them."""

        def left(until: int | None) -> int:
            return -1 if until is None else max(0, until - now)

        return (
            _key({d: left(a.until) for d, a in self.asked.items()}),
            _key({d: left(until) for d, until in self.granted.items()}),
            self.answers, _key(self.claims), self.arrived, _key(self.sent), _key(self.said),
            _key(self.parents), _key(self.hands), self.held, self.recalled, self.seen,
            tuple(sorted((*c[:4], left(c.until), c.live) for c in self.credentials.values())),
            tuple((job, j.state, j.epoch, left(j.lease)) for job, j in sorted(self.jobs.items())),
            self.place, self.strict,
        )  # fmt: skip


_OWN = frozenset(
    {"asked", "granted", "claims", "sent", "said", "parents", "hands", "credentials", "jobs"}
)


def _key(mapping: Mapping[str, object]) -> frozenset[tuple[str, object]]:
    return frozenset(mapping.items())
