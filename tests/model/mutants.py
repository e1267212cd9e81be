"""Mutants: the real code with one control dropped, to see that the model checker notices.

An `Edit` replaces a few words of a product function's source. Where another control stands behind
the one that is dropped, the mutant alone survives: it says which (`behind`), and dies when both
are gone.
"""

from __future__ import annotations
import __future__

import contextlib
import importlib
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import CodeType, FunctionType
from typing import Any, cast
from unittest.mock import patch

from tests.model.moves import Scope


@dataclass(frozen=True)
class Edit:
    """Other words in one function, or another value of one constant.

    Args:
        where: `module:name`, inside the package.
        old: words of its source, which must be there once; empty: the name is a constant.
        new: what stands there instead.
    """

    where: str
    old: str
    new: str


@contextlib.contextmanager
def edited(edits: Sequence[Edit]) -> Iterator[None]:
    """The package with these words changed.

    A function's code is exchanged in place, so that whoever imported it gets the mutant.
    """
    by_place: dict[str, list[Edit]] = {}
    for edit in edits:
        by_place.setdefault(edit.where, []).append(edit)
    with contextlib.ExitStack() as stack:
        for where, here in by_place.items():
            module, _, path = where.partition(":")
            owner: Any = importlib.import_module(f"agentguard.{module}")
            *outer, name = path.split(".")
            for part in outer:
                owner = getattr(owner, part)
            function = inspect.getattr_static(owner, name)
            if isinstance(function, FunctionType):
                stack.callback(setattr, function, "__code__", function.__code__)
                function.__code__ = _code(function, here)
            else:
                stack.enter_context(patch.object(owner, name, here[0].new))
        yield


def _code(function: FunctionType, edits: Sequence[Edit]) -> CodeType:
    source = textwrap.dedent(inspect.getsource(function))
    for edit in edits:
        assert source.count(edit.old) == 1, (
            f"{edit.where}: {edit.old!r} is there {source.count(edit.old)} times, expected once;"
            " the control moved, so move this mutant with it"
        )
        source = source.replace(edit.old, edit.new)
    code = compile(source, f"<mutant of {edits[0].where}>", "exec",
                   flags=__future__.annotations.compiler_flag, dont_inherit=True)  # fmt: skip
    made: dict[str, Any] = {}
    exec(code, {**function.__globals__}, made)
    return cast(FunctionType, inspect.unwrap(made[function.__name__])).__code__


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A control that is dropped.

    Args:
        name: what is dropped, in words.
        scope: where it shows.
        edits: how it is dropped.
        triggers: of the database, dropped with it.
        rules: of the default policy, dropped with it.
        within: the moves that it takes; empty: all of the scope.
        answers: whose answers it takes; empty: all of the scope.
        races: whether moves come between a decision and its writing.
        behind: another control that covers this one: alone the mutant survives.
        behind_edits, behind_triggers: how that one is dropped too.
    """

    name: str
    scope: str
    edits: tuple[Edit, ...] = ()
    triggers: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    answers: tuple[tuple[str, str], ...] = ()
    races: bool = True
    behind: str = ""
    behind_edits: tuple[Edit, ...] = ()
    behind_triggers: tuple[str, ...] = ()

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        with edited(self.edits):
            yield


_OBSTACLE = "ledger.transitions.grants:_obstacle"
_GRANT = "ledger.transitions.grants:_grant_obstacle"
_KILL = "ledger.transitions.jobs:_kill_live"
_CALL = ("authorize", "execute", "run", "record")
_NO_JOB = Edit(
    _OBSTACLE,
    "obstacle = obstacle_in(check, item.request.job, item.holder.epoch, now=tx.now)",
    "obstacle = None",
)
_NO_CREDENTIAL = Edit(
    _OBSTACLE,
    'if check.credential_state != "live" or (check.lives_until or 0) <= tx.now:',
    "if False:",
)
_NOT_DECIDED = Edit("calls.claim:Claims._try", "if decision.effect is not Effect.PERMIT:",
                    "if False:")  # fmt: skip
_NO_COMES_LATE = Edit(
    "ledger.transitions.requests:answer", "state IN ('pending', 'approved')", "state = 'pending'"
)
_ANY_STATE = Edit(_GRANT, "if check.state != GrantState.ISSUED and not again:", "if False:")
_BLIND = Edit("calls.claim:_done",
              "state in (GrantState.CLAIMED, GrantState.UNKNOWN)", "False")  # fmt: skip

_NOT_HELD = Edit("calls.execute:Executor._require_held", "if not held:", "if False:")
_NOT_INHERITED = Edit("ledger.transitions.grants:_insert_effects", "inherit(tx, made)", "made")

MUTANTS = (
    # --- the claim (I1, I8, I9) ---------------------------------------------------------------
    Mutant(name="a claim ignores the lease", scope="crash", edits=(_NO_JOB,),
           within=("authorize", "execute", "tick")),
    Mutant(name="a claim ignores the epoch", scope="rejoin",
           edits=(Edit("ledger.transitions.jobs:obstacle_in",
                       "holder.job_epoch != epoch", "False"),),
           within=("authorize", "execute", "fail"),
           behind="leaving a job revokes its credentials", behind_edits=(_NO_CREDENTIAL,)),
    Mutant(name="a claim ignores the credential", scope="revoke", edits=(_NO_CREDENTIAL,),
           within=("authorize", "execute", "tick")),
    Mutant(name="a claim ignores that the review window closed", scope="people",
           edits=(Edit("ledger.transitions.requests:is_approved", " and until > now", ""),),
           within=("authorize", "answer", "resume", "execute", "tick"),
           answers=(("omar", "approve"),)),
    Mutant(name="a claim ignores that an asset changed", scope="revoke",
           edits=(Edit(_OBSTACLE, "{row.sha256: row.version for row in versions}"
                       " != dict(item.versions)", "False"),),
           within=("authorize", "execute", "mark")),
    Mutant(name="a claim does not look at the grant's state", scope="twice", edits=(_ANY_STATE,),
           within=("authorize", "execute", "run", "answer", "resume"),
           answers=(("omar", "approve"),),
           behind="a trigger of the database", behind_triggers=("grants_transition",)),
    Mutant(name="a claim ignores an answer that came since it was judged", scope="people",
           edits=(Edit(_OBSTACLE, "check.answers != item.answers", "False"),),
           within=("authorize", "answer", "execute"),
           behind="a no ends an approval, too", behind_edits=(_NO_COMES_LATE,)),
    Mutant(name="an expired grant can be claimed", scope="crash",
           edits=(Edit(_GRANT, "if check.expires_at <= now:", "if False:"),),
           within=("authorize", "execute", "tick", "renew"),
           behind="a trigger of the database", behind_triggers=("grants_claim",)),
    Mutant(name="an unknown effect is tried again", scope="crash", edits=(_BLIND,),
           within=("authorize", "execute", "run", "fail"), races=False,
           behind="the claim takes only issued grants, and a trigger of the database",
           behind_edits=(_ANY_STATE,), behind_triggers=("grants_transition",)),
    Mutant(name="nothing is decided again at the claim", scope="revoke", edits=(_NOT_DECIDED,),
           within=("authorize", "execute", "mark")),
    Mutant(name="an edited call runs under what was decided before the edit", scope="people",
           edits=(Edit("calls.assess:Assessor._matching", "if request.digest == row.digest:",
                       'request.__dict__["digest"] = row.digest\n        if True:'),),
           within=("authorize", "answer", "resume"), answers=(("omar", "approve"),)),
    # --- who may approve (I1) -----------------------------------------------------------------
    Mutant(name="the requester's own approval counts", scope="people",
           edits=(Edit("policy.quorum:involved_in", "facts.requester", '""'),),
           within=("authorize", "answer", "resume"), answers=(("kim", "approve"),),
           behind="their answer is refused where it comes in", behind_edits=(
               Edit("people.approvals:Approvals._involved", "approval.requested_by", '""'),)),
    Mutant(name="the agent owner's approval counts", scope="people",
           edits=(Edit("policy.quorum:involved_in",
                       "facts.agent.owner if facts.agent is not None else None", "None"),),
           within=("authorize", "answer", "resume"), answers=(("oda", "approve"),),
           behind="their answer is refused where it comes in", behind_edits=(
               Edit("people.approvals:Approvals._involved",
                    "agent.owner if agent is not None else None", "None"),)),
    Mutant(name="a contributor's approval counts", scope="people",
           edits=(Edit("policy.quorum:involved_in",
                       "*(asset.contributors for asset in facts.assets)", "()"),),
           within=("authorize", "answer", "resume", "label"), answers=(("omar", "approve"),)),
    Mutant(name="whoever asked for the job may answer", scope="people",
           edits=(Edit("policy.quorum:bar", "if person == involved.requester:", "if False:"),),
           within=("authorize", "answer", "resume"), answers=(("kim", "approve"),)),
    Mutant(name="one person's two approvals count as two", scope="people",
           edits=(Edit("policy.quorum:counted", "person.id not in seen and ", ""),),
           within=("authorize", "answer", "resume", "tighten", "tick"),
           answers=(("lee", "approve"),),
           behind="a second answer is refused twice over, and the table has no place for it",
           behind_edits=(
               Edit("policy.quorum:bar", "any(answer.person == person for answer in answers)",
                    "False"),
               Edit("ledger.queries.approvals:answer_by", "WHERE request = ? AND person = ?\"",
                    "WHERE request = ? AND person = ? AND 0\""),
               Edit("ledger.storage.sqlite.schema:_statements",
                    'statement += line', 'statement += line.replace('
                    '"PRIMARY KEY (request, person)", "PRIMARY KEY (request, person, at)")'),
               Edit("ledger.storage.migrations:require_same", "raise LedgerCorrupt",
                    "continue; raise LedgerCorrupt"),
           ),
           behind_triggers=("answers_born",)),
    Mutant(name="signatures are not verified", scope="twice",
           edits=(Edit("people.approvals:verify_answer",
                       "if key is None:", "if True:\n        return\n"
                       "    if key is None:"),),
           within=("authorize", "forge"), answers=(("omar", "approve"),)),
    Mutant(name="an answer after the review window is taken", scope="people",
           edits=(Edit("ledger.transitions.requests:answer", "if tx.now >= approval.expires_at:",
                       "if False:"),),
           within=("authorize", "answer", "tick"), answers=(("omar", "deny"),)),
    Mutant(name="a grant is issued before enough people approved", scope="people",
           edits=(_NOT_DECIDED,), within=("authorize", "execute"),
           behind="the ledger grants only what was permitted",
           behind_edits=(Edit("ledger.transitions.requests:issue_grant",
                              "item.decision.effect is not Effect.PERMIT", "False"),)),
    Mutant(name="a person's no does not count", scope="people",
           edits=(Edit("policy.decide:decide", "if answer.verdict is Verdict.DENY:", "if False:"),),
           within=("authorize", "answer", "resume"),
           answers=(("omar", "deny"), ("lee", "approve")),
           behind="a no ends an approval, too", behind_edits=(_NO_COMES_LATE,)),
    # --- what an approval is for (I7) ---------------------------------------------------------
    Mutant(name="the digest leaves out arguments and assets", scope="people",
           edits=(Edit("model.request:Request._body", '"args": self.args,', ""),
                  Edit("model.request:Request._body",
                       '{"argument": a.argument, "sha256": a.sha256, "labels": a.labels}',
                       '{"argument": a.argument}')),
           within=("authorize", "answer", "resume"), answers=(("omar", "approve"),)),
    Mutant(name="the digest leaves out labels", scope="people",
           edits=(Edit("model.request:Request._body", '"labels": a.labels', '"labels": ()'),),
           within=("authorize", "answer", "resume", "label"), answers=(("omar", "approve"),)),
    Mutant(name="the digest leaves out the destination's configuration", scope="revoke",
           edits=(Edit("model.request:Request._body",
                       '"destination_digest": self.destination_digest,', ""),),
           within=("authorize", "answer", "resume", "configure"),
           answers=(("omar", "approve"),)),
    Mutant(name="an approval lifts reasons that came up later", scope="people",
           edits=(Edit("policy.decide:decide",
                       "question is not None and reasons <= question.reasons",
                       "question is not None"),),
           within=("authorize", "answer", "execute", "tighten"), races=False,
           answers=(("omar", "approve"), ("lee", "approve"))),
    Mutant(name="a question that was asked anew stays open", scope="people",
           edits=(Edit("ledger.transitions.requests:ask_anew",
                       'tx.move("approvals", "state = ?, ended_at = ?", "request = ?", state,'
                       " tx.now, instead_of)", "pass"),),
           within=("authorize", "answer", "resume", "tighten"), races=False,
           answers=(("omar", "approve"),),
           behind="its answer is refused where it comes in", behind_edits=(
               Edit("people.approvals:Approvals._require_answerable",
                    "approval.replaced_by is not None", "False"),)),
    # --- outcomes (I8) ------------------------------------------------------------------------
    Mutant(name="a process whose claim is over records an outcome", scope="rejoin",
           edits=(Edit("ledger.transitions.grants:finish", "or not check.ours", ""),),
           within=("authorize", "execute", "run", "record", "leave", "rejoin"),
           answers=(("omar", "approve"),)),
    Mutant(name="what may be under way is reconciled as not done", scope="crash",
           edits=(Edit("calls.reconcile:_settle", "if grant.running:", "if False:"),),
           within=("authorize", "execute", "run", "leave", "reconcile"),
           behind="whoever sends looks once more whether the claim is still theirs",
           behind_edits=(_NOT_HELD,)),
    Mutant(name="who slept past its lease sends all the same", scope="crash",
           edits=(_NOT_HELD,), within=("authorize", "execute", "run", "reconcile", "tick")),
    Mutant(name="an opaque effect is reconciled as not done", scope="crash",
           edits=(Edit("calls.reconcile:_settle", "if grant.effect == OutsideEffect.OPAQUE:",
                       "if False:"),),
           within=("authorize", "execute", "run", "leave", "reconcile", "tick"),
           behind="only the guard's own tool can be found not to have sent",
           behind_edits=(Edit("calls.reconcile:_settle", "if grant.tool != EXPORT_ASSET:",
                              "if False:"),)),
    Mutant(name="a tool that raised after it ran is recorded as not done", scope="crash",
           edits=(Edit("calls.execute:Executor.record_failure",
                       "unknown and bound.reaches_out", "False"),),
           within=("authorize", "execute", "run", "fail")),
    # --- classes and lineage (I2, I4) -----------------------------------------------------------
    Mutant(name="registering known bytes again drops their labels", scope="lineage",
           edits=(Edit("ledger.transitions.assets:_join",
                       "made.labels | known.labels", "made.labels"),)),
    Mutant(name="a class that rises does not reach what was made before", scope="lineage",
           edits=(Edit("ledger.transitions.assets:register",
                       ", *tx.rows(assets.descendants_of(made.sha256)))", ",)"),),
           within=("authorize", "execute", "run", "record", "label")),
    Mutant(name="what is made starts without its parents' class", scope="lineage",
           edits=(Edit("calls.results:collect", "*(use.labels for use in request.assets)", ""),),
           within=("authorize", "execute", "run", "record"),
           behind="its parents are looked at once more when it is registered",
           behind_edits=(_NOT_INHERITED,)),
    Mutant(name="a class that rises does not reach what is being made", scope="lineage",
           edits=(_NOT_INHERITED,), within=("authorize", "execute", "run", "record", "label")),
    Mutant(name="a hold does not reach what was made from an asset", scope="lineage",
           edits=(Edit("ledger.queries.assets:_MARKS",
                       "", "SELECT max(recalled) AS recalled, max(held) AS held,"
                       " EXISTS (SELECT 1 FROM queued WHERE job = ?2 AND sha256 = ?1"
                       " AND destination = ?3) AS queued, 0 AS clean"
                       " FROM assets WHERE sha256 = ?1"),),
           within=("authorize", "execute", "run", "record", "mark")),
    Mutant(name="a hold does not raise the version of what was made from an asset",
           scope="lineage",
           edits=(Edit("ledger.transitions.assets:mark",
                       "in tx.rows(assets.descendants_of(sha256)):", "in ():"),),
           within=("authorize", "execute", "run", "record", "mark")),
    Mutant(name="the policy forgets holds", scope="revoke", rules=("assets.held",),
           within=("authorize", "execute", "mark")),
    Mutant(name="the policy forgets sensitive exports", scope="people",
           rules=("export.sensitive", "export.provenance"), within=("authorize",)),
    Mutant(name="an agent gets a credential for another stage", scope="jobs",
           edits=(Edit("calls.request:stage_of", "if stage not in agent.stages:", "if False:"),),
           within=("authorize",)),
    Mutant(name="a job sees every job's assets", scope="jobs",
           edits=(Edit("ledger.queries.assets:asset_of_job",
                       "WHERE id = ? AND job = ?", "WHERE id = ? AND ? <> ''"),),
           within=("authorize", "execute", "answer", "resume"),
           answers=(("omar", "approve"),)),
    # --- what ends with a job (I9) --------------------------------------------------------------
    Mutant(name="grants outlive their job", scope="revoke",
           edits=(Edit(_KILL, "job = ? AND state = 'issued' {", "job = ? AND state = 'none' {"),),
           within=("authorize", "end")),
    Mutant(name="credentials outlive their job", scope="revoke",
           edits=(Edit(_KILL, "job = ? AND state = 'live'", "job = ? AND state = 'none'"),),
           within=("authorize", "end")),
    Mutant(name="approval requests outlive their job", scope="revoke",
           edits=(Edit("ledger.transitions.jobs:end_job", "job = ? AND {UNUSED}",
                       "job = ? AND 0 AND {UNUSED}"),),
           within=("authorize", "end")),
    Mutant(name="a claim outlives its job", scope="revoke",
           edits=(Edit(_KILL, "job = ? AND state = 'claimed'", "job = ? AND state = 'none'"),),
           within=("authorize", "execute", "end")),
    Mutant(name="a job that failed stays waiting", scope="rejoin",
           edits=(Edit("ledger.transitions.jobs:leave", "if not clean or waits is None:",
                       "if waits is None:"),),
           within=("authorize", "leave")),
    Mutant(name="a sweep skips review windows", scope="rejoin",
           edits=(Edit("ledger.transitions.jobs:_sweep_job", "+expires_at <= ? AND {UNUSED}",
                       "+expires_at <= ? AND 0 AND {UNUSED}"),),
           within=("authorize", "leave", "sweep", "tick")),
    Mutant(name="a sweep skips jobs whose process died", scope="crash",
           edits=(Edit("ledger.queries.jobs:_LAPSED", "", "0 AND ?"),),
           within=("crash", "sweep", "tick")),
    Mutant(name="a lapsed lease can be renewed", scope="crash",
           edits=(Edit("ledger.transitions.jobs:renew",
                       "if job_obstacle(tx, job, epoch) is not None:", "if False:"),),
           within=("renew", "tick")),
    Mutant(name="an ended job can be re-entered", scope="rejoin",
           edits=(Edit("ledger.ledger:Ledger.rejoin_job", "if known.state != JobState.WAITING:",
                       "if False:"),),
           within=("end", "rejoin"), behind="a trigger of the database",
           behind_triggers=("jobs_transition",)),
    # --- the log (I10) --------------------------------------------------------------------------
    Mutant(name="a hold is not recorded", scope="revoke",
           edits=(Edit("ledger.transitions.assets:mark", 'tx.record(f"asset.{column}"',
                       '(lambda *_: None)(f"asset.{column}"'),),
           within=("mark",), behind="a transition that wrote without a record is rolled back",
           behind_edits=(Edit("ledger.storage.transaction:Tx.finish",
                              "if unaccounted:", "if False:"),)),
)  # fmt: skip


def narrowed(mutant: Mutant, scope: Scope) -> Scope:
    """The scope with the moves that a mutant takes, so that a counterexample is found quickly."""
    unknown = set(mutant.within) - set(scope.moves)
    assert not unknown, f"{mutant.name}: {scope.name} has no moves {unknown}"
    return replace(
        scope, moves=mutant.within or scope.moves, answers=mutant.answers or scope.answers,
        races=scope.races if mutant.races else frozenset(),
    )  # fmt: skip


def together(mutant: Mutant) -> Mutant:
    """The mutant and the control behind it, both dropped."""
    return Mutant(
        name=mutant.name, scope=mutant.scope, edits=mutant.edits + mutant.behind_edits,
        triggers=mutant.triggers + mutant.behind_triggers, rules=mutant.rules,
        within=mutant.within, answers=mutant.answers, races=mutant.races,
    )  # fmt: skip
