"""The controls of the package by name, and what a mutant has each of them say instead.

One list for all who show that a control is needed: the model checker (`tests/model/mutants.py`),
the attacks (`tests/attacks/mutants.py`) and the evaluations (`broken-...` guards). It is here and
not with the tests because the evaluations import nothing of `tests`.

A control is a function of the package, or a constant, named where it is looked up. A name that is
not there is an error: the control moved, and its mutant must move along. So is a mutant that no
harness kills.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from evals import replacements as instead

_NODES = "langgraph.authorization_nodes:AuthorizationNodes"


class NoSuchControl(LookupError):
    """A mutant names a control that the package does not have."""


@dataclass(frozen=True, slots=True)
class Change:
    """What stands in a control's place.

    Args:
        place: `module:name` inside the package, where the control is looked up.
        make: makes it of the control.
    """

    place: str
    make: Callable[[Any], Any]

    def find(self) -> tuple[Any, str, Any]:
        """The control's owner, its name there, and the control.

        Raises:
            NoSuchControl: nothing of that name is there.
        """
        module, _, path = self.place.partition(":")
        *outer, name = path.split(".")
        try:
            owner: Any = importlib.import_module(f"agentguard.{module}")
            for part in outer:
                owner = getattr(owner, part)
            return owner, name, getattr(owner, name)
        except (ImportError, AttributeError) as error:
            raise NoSuchControl(
                f"there is no control {self.place}; it moved, so move its mutant along"
            ) from error


def returns(place: str, result: Any) -> Change:
    """A control that says the same whatever it is asked."""

    def make(control: Any) -> Any:
        if not callable(control):
            raise NoSuchControl(f"{place} is not a function")
        return lambda *_, **__: result

    return Change(place, make)


def alters(place: str, **fields: Any) -> Change:
    """A control whose result has other values in some fields."""

    def make(control: Any) -> Any:
        return lambda *args, **named: replace(control(*args, **named), **fields)

    return Change(place, make)


def lacks(place: str, *names: str) -> Change:
    """A constant that lists names, without some of them."""

    def make(listed: Any) -> Any:
        missing = set(names) - set(listed)
        if missing:
            raise NoSuchControl(f"{place} does not list {', '.join(sorted(missing))}")
        return tuple(name for name in listed if name not in names)

    return Change(place, make)


def holds(place: str, value: Any) -> Change:
    """A constant of another value."""
    return Change(place, lambda _: value)


@dataclass(frozen=True, slots=True)
class Mutant:
    """The package without one control.

    Args:
        name: of the mutant.
        says: what is wrong with it.
        changes: what stands in the place of the control.
        triggers: of the database, dropped; only the model checker can.
        rules: ids of policies of the default policy, dropped; only the model checker can.
    """

    name: str
    says: str
    changes: tuple[Change, ...] = ()
    triggers: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()


def mutant(name: str, says: str, *changes: Change) -> Mutant:
    """A mutant by the changes that make it."""
    return Mutant(name, says, changes)


@contextlib.contextmanager
def dropped(mutants: Iterable[Mutant]) -> Iterator[None]:
    """The package without these controls; what the database and the policies lose is not done here.

    Raises:
        NoSuchControl: one of them is not there.
    """
    with contextlib.ExitStack() as stack:
        for each in mutants:
            for change in each.changes:
                owner, name, control = change.find()
                stack.enter_context(patch.object(owner, name, change.make(control)))
        yield


_REQUESTS, _GRANTS = "ledger.transitions.requests", "ledger.transitions.grants"
_APPROVALS = "ledger.transitions.approvals"
_JOBS, _ASSETS = "ledger.transitions.jobs", "ledger.transitions.assets"

_LIST = (
    # --- the claim (I1, I8, I9) ---------------------------------------------------------------
    mutant("lease", "a claim ignores the lease", returns(f"{_GRANTS}:obstacle_in", None)),
    mutant("epoch", "a claim ignores the epoch", returns(f"{_JOBS}:is_fenced", False)),
    mutant("credential", "a claim ignores the credential",
           returns(f"{_GRANTS}:credential_obstacle", None)),
    mutant("approval-window", "a claim ignores that the review window closed",
           Change(f"{_GRANTS}:is_approved", instead.whenever),
           Change(f"{_REQUESTS}:is_approved", instead.whenever)),
    mutant("asset-versions", "a claim ignores that an asset changed",
           returns(f"{_GRANTS}:assets_moved", None)),
    mutant("grant-state", "a claim does not look at the grant's state",
           returns(f"{_GRANTS}:state_obstacle", None)),
    mutant("new-answers", "a claim ignores an answer that came since it was judged",
           returns(f"{_GRANTS}:answers_moved", None)),
    mutant("late-no", "a no does not end what was approved",
           holds(f"{_APPROVALS}:ENDED_BY_A_NO", "('pending')")),
    mutant("grant-expiry", "an expired grant can be claimed",
           returns(f"{_GRANTS}:expiry_obstacle", None)),
    mutant("unknown-effect", "an unknown effect is tried again",
           returns("calls.claim:may_have_happened", False)),
    mutant("second-decision", "nothing is decided again at the claim",
           returns("calls.claim:is_permitted", True)),
    mutant("digest", "an edited call runs under what was decided before the edit",
           Change("calls.assess:is_as_decided", instead.named_as_decided)),
    mutant("single-use", "a Grant can be used again and again",
           Change("calls.claim:Claims.claim", instead.claim_what_was_decided)),
    mutant("claim", "a tool runs whether or not a Grant exists for its call",
           Change("calls.claim:Claims.claim", instead.claim_anything),
           returns("calls.asked_calls:AskedCalls.obstacle", None),
           returns("calls.executor:Executor._require_held", None)),
    # --- the decision, and who may approve (I1) -----------------------------------------------
    mutant("policy", "every question is answered with yes",
           returns("calls.assess:decide", instead.PERMITTED)),
    mutant("asked-is-permitted", "nothing that was asked about waits for people",
           Change("calls.assess:Assessor.assess", instead.permit_what_was_asked)),
    mutant("requester", "the requester's own approval counts",
           alters("policy.approvers:involved_in", requester="")),
    mutant("requester-answer", "an answer of the requester is taken in",
           alters("people.approvals:Approvals._involved", requester="")),
    mutant("owner", "the agent owner's approval counts",
           alters("policy.approvers:involved_in", owner=None)),
    mutant("owner-answer", "an answer of the agent owner is taken in",
           alters("people.approvals:Approvals._involved", owner=None)),
    mutant("contributors", "a contributor's approval counts",
           alters("policy.approvers:involved_in", contributors=frozenset())),
    mutant("requester-barred", "whoever asked for the job may answer",
           returns("policy.approvers:is_requester", False)),
    mutant("one-person-one-approval", "one person's two approvals count as two",
           returns("policy.approvers:has_approved", False)),
    mutant("entry-per-approval", "people are told apart by their approvals",
           Change("policy.approvers:by_person", instead.by_approval)),
    Mutant("second-answer", "a person may answer twice, and the table has a place for it",
           (returns("policy.approvers:has_answered", False),
            returns(f"{_APPROVALS}:has_answered", False),
            Change("ledger.storage.sqlite.schema:_statements", instead.answers_at_any_time),
            returns("ledger.storage.sqlite.schema:require_same", None)),
           triggers=("answers_born",)),
    mutant("signatures", "signatures are not verified",
           returns("people.approvals:verify_answer", None)),
    mutant("eligibility", "anybody approves anything, also their own work",
           Change("people.approvals:Approvals.answer", instead.take_any_answer),
           Change("policy.approvers:eligible", instead.everybody)),
    mutant("late-answer", "an answer after the review window is taken",
           returns(f"{_APPROVALS}:is_too_late", False)),
    mutant("permitted-grants", "the ledger grants what is not permitted",
           returns(f"{_REQUESTS}:is_permitted", True)),
    mutant("rejection", "a person's no does not count",
           returns("policy.approvers:rejection", None)),
    # --- what an approval is for (I7) ---------------------------------------------------------
    mutant("digest-of-content", "the digest leaves out arguments and assets",
           lacks("model.request:COVERED", "args"),
           lacks("model.request:COVERED_OF_AN_ASSET", "sha256", "labels")),
    mutant("digest-of-labels", "the digest leaves out labels",
           lacks("model.request:COVERED_OF_AN_ASSET", "labels")),
    mutant("digest-of-destination", "the digest leaves out the destination's configuration",
           lacks("model.request:COVERED", "destination_digest")),
    mutant("later-reasons", "an approval lifts reasons that came up later",
           returns("policy.decide:covers", True)),
    mutant("old-question", "a question that was asked anew stays open",
           returns(f"{_APPROVALS}:close_question", None)),
    mutant("replaced-question", "an answer to a question that was asked anew is taken in",
           alters("people.approvals:Approvals._show", replaced_by=None)),
    # --- outcomes (I8) ------------------------------------------------------------------------
    mutant("late-outcome", "a process whose claim is over records an outcome",
           returns(f"{_GRANTS}:claim_is_ours", True)),
    mutant("under-way", "what may be under way is reconciled as not done",
           returns("calls.reconcile:may_be_under_way", False)),
    mutant("still-held", "who slept past its lease sends all the same",
           returns("calls.executor:Executor._require_held", None)),
    mutant("opaque", "an opaque effect is reconciled as not done",
           returns("calls.reconcile:is_opaque", False)),
    mutant("own-export", "what a developer's tool sent is looked for at the destination",
           returns("calls.reconcile:is_own_export", True)),
    mutant("raised-after-effect", "a tool that raised after it ran is recorded as not done",
           returns("calls.executor:failed_as", instead.FAILED)),
    mutant("done-before", "what an unheard call has done is done again",
           returns("calls.authorize:done_unheard", None)),
    mutant("task-ids", "the call of a task that is run again has another name",
           Change("calls.authorize:Authorizer._named", instead.named_by_chance)),
    mutant("paused", "the Grant of a tool that pauses itself is not given back",
           returns("ledger.ledger:Ledger.unclaim", None)),
    # --- classes and lineage (I2, I4) -----------------------------------------------------------
    mutant("labels-of-known", "registering known bytes again drops their labels",
           Change(f"{_ASSETS}:joined_labels", instead.new_labels_only)),
    mutant("rise-of-made", "a class that rises does not reach what was made before",
           returns(f"{_ASSETS}:raise_descendants", None)),
    mutant("parents", "what is made starts without its parents' class",
           returns("calls.results:labels_of_media", frozenset())),
    mutant("rise-of-parents", "a class that rises does not reach what is being made",
           Change(f"{_GRANTS}:inherit", instead.not_inherited)),
    mutant("hold-of-made", "a hold does not reach what was made from an asset",
           holds("ledger.queries.assets:AND_ITS_SOURCES", "")),
    mutant("hold-version", "a hold does not raise the version of what was made from an asset",
           returns(f"{_ASSETS}:raise_versions", None)),
    Mutant("hold-rule", "the policy forgets holds", rules=("assets.held",)),
    Mutant("export-rules", "the policy forgets sensitive exports",
           rules=("export.sensitive", "export.provenance")),
    mutant("stage", "an agent gets a credential for another stage",
           returns("calls.request:takes_stage", True)),
    mutant("job-assets", "a job sees every job's assets",
           Change("calls.request:asset_of_job", instead.asset_of_any_job)),
    mutant("hashing", "bytes are used as they are found",
           Change("content.store:Store.fetch", instead.fetch_unhashed),
           Change("export.broker:Broker.send", instead.send_what_is_there)),
    mutant("scan", "nobody reads prompts and captions",
           Change("calls.arguments:scan", instead.nothing_found)),
    mutant("scratch", "whatever path a tool names is taken in",
           Change("content.scratch:Scratch.take", instead.take_any_path)),
    # --- what ends with a job (I9) --------------------------------------------------------------
    mutant("grants-of-job", "grants outlive their job", returns(f"{_JOBS}:revoke_grants", 0)),
    mutant("credentials-of-job", "credentials outlive their job",
           returns(f"{_JOBS}:revoke_credentials", 0)),
    mutant("questions-of-job", "approval requests outlive their job",
           returns(f"{_JOBS}:revoke_questions", 0)),
    mutant("claims-of-job", "a claim outlives its job", returns(f"{_JOBS}:end_claims", 0)),
    mutant("failed-job", "a job that failed stays waiting",
           Change(f"{_JOBS}:leave", instead.left_cleanly)),
    mutant("swept-windows", "a sweep skips review windows",
           returns(f"{_JOBS}:expire_questions", 0)),
    mutant("swept-jobs", "a sweep skips jobs whose process died",
           returns(f"{_JOBS}:has_lapsed", False)),
    mutant("renewal", "a lapsed lease can be renewed", returns(f"{_JOBS}:job_obstacle", None)),
    mutant("ended-job", "an ended job can be re-entered",
           returns(f"{_JOBS}:is_waiting", True)),
    # --- the log (I10), and the database -------------------------------------------------------
    mutant("hold-record", "a hold is not recorded", returns(f"{_ASSETS}:record_mark", None)),
    mutant("row-records", "a transition may write without a record",
           returns("ledger.storage.transaction:require_recorded", None)),
    Mutant("grant-transitions", "the database lets a grant go from any state to any other",
           triggers=("grants_transition",)),
    Mutant("grant-claims", "the database lets a grant be claimed that does not live",
           triggers=("grants_claim",)),
    Mutant("job-transitions", "the database lets a job go from any state to any other",
           triggers=("jobs_transition",)),
    # --- LangGraph ------------------------------------------------------------------------------
    mutant("routes", "a tool's Command passes as it is",
           Change("langgraph.invocation:own_part", instead.all_of_it),
           Change("langgraph.invocation:said", instead.as_given)),
    mutant("forged-state", "a payload brings the state that its call is run with",
           Change(_NODES + ".execute", instead.run_the_payload),
           Change("langgraph.middleware:_with_own_state", instead.as_is)),
    mutant("tool-table", "a ToolNode keeps the tools that somebody put into it",
           returns(_NODES + "._keep_guarded", None)),
    mutant("foreign-tools", "a node runs tools of which the guard has no copy",
           Change(_NODES + "._obstacle", instead.unless_foreign)),
    mutant("unguarded-runs", "nobody stops a tool that starts unguarded inside a job",
           returns("langgraph.unguarded_runs:UnguardedRuns.on_tool_start", None)),
    mutant("enclosing-job", "a run is in the job that its config names",
           Change("jobs.registry:Jobs.find", instead.first_found)),
    mutant("provider-tools", "nobody looks at the tools that a model is given",
           Change("langgraph.middleware:GuardMiddleware._shown", instead.shown_as_given)),
    mutant("same-tool", "another tool may stand under the name of a bound one",
           returns("calls.bound_tools:same_tool", True)),
    mutant("sealed", "a protected builder can be changed",
           Change("langgraph.protect_graph:_sealed_class", instead.unsealed)),
    mutant("thread", "calls of two threads have one name",
           Change("langgraph.runtime:CallContext.from_config", instead.of_one_thread)),
)  # fmt: skip

MUTANTS: Mapping[str, Mutant] = {each.name: each for each in _LIST}
"""Every mutant, by its name."""

if len(MUTANTS) != len(_LIST):
    raise ValueError("two mutants have one name")
