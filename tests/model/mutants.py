"""Where the model checker sees each mutant: the real code with one control dropped.

The mutants are in `evals/controls.py`. Where another control stands behind the one that is
dropped, the mutant alone survives: a Hunt says which (`behind`), and it dies when both are gone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from evals.controls import MUTANTS, Mutant
from tests.model.moves import Scope


@dataclass(frozen=True, kw_only=True)
class Hunt:
    """How a mutant is found.

    Args:
        mutant: its name.
        scope: where it shows.
        within: the moves that it takes; empty: all of the scope.
        answers: whose answers it takes; empty: all of the scope.
        races: whether moves come between a decision and its writing.
        covered: what covers it, in words: alone the mutant survives.
        behind: names of the mutants without that control, too.
        besides: beginnings of faults that show without that control, whatever this one does.
    """

    mutant: str
    scope: str
    within: tuple[str, ...] = ()
    answers: tuple[tuple[str, str], ...] = ()
    races: bool = True
    covered: str = ""
    behind: tuple[str, ...] = ()
    besides: tuple[str, ...] = ()

    @property
    def says(self) -> str:
        """What is wrong with the mutant."""
        return MUTANTS[self.mutant].says

    @property
    def alone(self) -> tuple[Mutant, ...]:
        """The mutant."""
        return (MUTANTS[self.mutant],)

    @property
    def others(self) -> tuple[Mutant, ...]:
        """The ones without what stands behind it."""
        return tuple(MUTANTS[name] for name in self.behind)

    def narrowed(self, scope: Scope) -> Scope:
        """The scope with the moves of this hunt, so that a counterexample is found quickly."""
        unknown = set(self.within) - set(scope.moves)
        assert not unknown, f"{self.mutant}: {scope.name} has no moves {unknown}"
        return replace(
            scope, moves=self.within or scope.moves, answers=self.answers or scope.answers,
            races=scope.races if self.races else frozenset(),
        )  # fmt: skip


_OMAR = (("omar", "approve"),)

HUNTS = (
    # --- the claim (I1, I8, I9) ---------------------------------------------------------------
    Hunt(mutant="lease", scope="crash", within=("authorize", "execute", "tick")),
    Hunt(mutant="epoch", scope="rejoin", within=("authorize", "execute", "fail"),
         covered="leaving a job revokes its credentials", behind=("credential",)),
    Hunt(mutant="credential", scope="revoke", within=("authorize", "execute", "tick")),
    Hunt(mutant="approval-window", scope="people",
         within=("authorize", "answer", "resume", "execute", "tick"), answers=_OMAR),
    Hunt(mutant="asset-versions", scope="revoke", within=("authorize", "execute", "mark")),
    Hunt(mutant="grant-state", scope="twice",
         within=("authorize", "execute", "run", "answer", "resume"), answers=_OMAR,
         covered="a trigger of the database", behind=("grant-transitions",)),
    Hunt(mutant="new-answers", scope="people", within=("authorize", "answer", "execute"),
         covered="a no ends an approval, too", behind=("late-no",)),
    Hunt(mutant="grant-expiry", scope="crash", within=("authorize", "execute", "tick", "renew"),
         covered="a trigger of the database", behind=("grant-claims",)),
    Hunt(mutant="unknown-effect", scope="crash",
         within=("authorize", "execute", "run", "fail"), races=False,
         covered="the claim takes only issued grants, and a trigger of the database",
         behind=("grant-state", "grant-transitions")),
    Hunt(mutant="second-decision", scope="revoke", within=("authorize", "execute", "mark")),
    Hunt(mutant="digest", scope="people", within=("authorize", "answer", "resume"),
         answers=_OMAR),
    # --- who may approve (I1) -----------------------------------------------------------------
    Hunt(mutant="requester", scope="people", within=("authorize", "answer", "resume"),
         answers=(("kim", "approve"),), covered="their answer is refused where it comes in",
         behind=("requester-answer",), besides=("I1: an answer of kim was taken",)),
    Hunt(mutant="owner", scope="people", within=("authorize", "answer", "resume"),
         answers=(("oda", "approve"),), covered="their answer is refused where it comes in",
         behind=("owner-answer",), besides=("I1: an answer of oda was taken",)),
    Hunt(mutant="contributors", scope="people",
         within=("authorize", "answer", "resume", "label"), answers=_OMAR),
    Hunt(mutant="requester-barred", scope="people", within=("authorize", "answer", "resume"),
         answers=(("kim", "approve"),)),
    Hunt(mutant="one-person-one-approval", scope="people",
         within=("authorize", "answer", "resume", "tighten", "tick"),
         answers=(("lee", "approve"),),
         covered="people are counted and not approvals; a second answer is refused twice over, and"
         " the table has no place for it",
         behind=("entry-per-approval", "second-answer"), besides=("I1: lee answered twice",)),
    Hunt(mutant="signatures", scope="twice", within=("authorize", "forge"), answers=_OMAR),
    Hunt(mutant="late-answer", scope="people", within=("authorize", "answer", "tick"),
         answers=(("omar", "deny"),)),
    Hunt(mutant="permitted-grants", scope="people", within=("authorize", "execute"),
         covered="the claim decides again", behind=("second-decision",)),
    Hunt(mutant="rejection", scope="people", within=("authorize", "answer", "resume"),
         answers=(("omar", "deny"), ("lee", "approve")),
         covered="a no ends an approval, too", behind=("late-no",)),
    # --- what an approval is for (I7) ---------------------------------------------------------
    Hunt(mutant="digest-of-content", scope="people", within=("authorize", "answer", "resume"),
         answers=_OMAR),
    Hunt(mutant="digest-of-labels", scope="people",
         within=("authorize", "answer", "resume", "label"), answers=_OMAR),
    Hunt(mutant="digest-of-destination", scope="revoke",
         within=("authorize", "answer", "resume", "configure"), answers=_OMAR),
    Hunt(mutant="later-reasons", scope="people",
         within=("authorize", "answer", "execute", "tighten"), races=False,
         answers=(("omar", "approve"), ("lee", "approve"))),
    Hunt(mutant="old-question", scope="people",
         within=("authorize", "answer", "resume", "tighten"), races=False, answers=_OMAR,
         covered="its answer is refused where it comes in", behind=("replaced-question",)),
    # --- outcomes (I8) ------------------------------------------------------------------------
    Hunt(mutant="late-outcome", scope="rejoin",
         within=("authorize", "execute", "run", "record", "leave", "rejoin"), answers=_OMAR),
    Hunt(mutant="under-way", scope="crash",
         within=("authorize", "execute", "run", "leave", "reconcile"),
         covered="whoever sends looks once more whether the claim is still theirs",
         behind=("still-held",)),
    Hunt(mutant="still-held", scope="crash",
         within=("authorize", "execute", "run", "reconcile", "tick")),
    Hunt(mutant="opaque", scope="crash",
         within=("authorize", "execute", "run", "leave", "reconcile", "tick"),
         covered="only the guard's own tool can be found not to have sent",
         behind=("own-export",)),
    Hunt(mutant="raised-after-effect", scope="crash",
         within=("authorize", "execute", "run", "fail")),
    # --- classes and lineage (I2, I4) -----------------------------------------------------------
    Hunt(mutant="labels-of-known", scope="lineage"),
    Hunt(mutant="rise-of-made", scope="lineage",
         within=("authorize", "execute", "run", "record", "label")),
    Hunt(mutant="parents", scope="lineage", within=("authorize", "execute", "run", "record"),
         covered="its parents are looked at once more when it is registered",
         behind=("rise-of-parents",)),
    Hunt(mutant="rise-of-parents", scope="lineage",
         within=("authorize", "execute", "run", "record", "label")),
    Hunt(mutant="hold-of-made", scope="lineage",
         within=("authorize", "execute", "run", "record", "mark")),
    Hunt(mutant="hold-version", scope="lineage",
         within=("authorize", "execute", "run", "record", "mark")),
    Hunt(mutant="hold-rule", scope="revoke", within=("authorize", "execute", "mark")),
    Hunt(mutant="export-rules", scope="people", within=("authorize",)),
    Hunt(mutant="stage", scope="jobs", within=("authorize",)),
    Hunt(mutant="job-assets", scope="jobs", within=("authorize", "execute", "answer", "resume"),
         answers=_OMAR),
    # --- what ends with a job (I9) --------------------------------------------------------------
    Hunt(mutant="grants-of-job", scope="revoke", within=("authorize", "end")),
    Hunt(mutant="credentials-of-job", scope="revoke", within=("authorize", "end")),
    Hunt(mutant="questions-of-job", scope="revoke", within=("authorize", "end")),
    Hunt(mutant="claims-of-job", scope="revoke", within=("authorize", "execute", "end")),
    Hunt(mutant="failed-job", scope="rejoin", within=("authorize", "leave")),
    Hunt(mutant="swept-windows", scope="rejoin", within=("authorize", "leave", "sweep", "tick")),
    Hunt(mutant="swept-jobs", scope="crash", within=("crash", "sweep", "tick")),
    Hunt(mutant="renewal", scope="crash", within=("renew", "tick")),
    Hunt(mutant="ended-job", scope="rejoin", within=("end", "rejoin"),
         covered="a trigger of the database", behind=("job-transitions",)),
    # --- the log (I10) --------------------------------------------------------------------------
    Hunt(mutant="hold-record", scope="revoke", within=("mark",),
         covered="a transition that wrote without a record is rolled back",
         behind=("row-records",)),
)  # fmt: skip
