"""What waits of a call that its conversation went on without: closed, recorded, told (I6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentguard.errors import ApprovalError
from agentguard.ledger.ledger import RefusedCall
from agentguard.ledger.queries.requests import calls_named
from agentguard.ledger.verify import verify
from agentguard.model import Effect, GrantState, OutsideEffect
from tests.support.ledgers import Bench, Place, kinds, ledger_at, made, raw, records


def test_a_question_is_withdrawn_and_a_late_answer_is_told_why(bench: Bench) -> None:
    asked, other = bench.ask(), bench.ask()
    bench.ledger.withdraw([asked.digest])
    assert (bench.approval(asked), bench.approval(other)) == ("superseded", "pending")
    with pytest.raises(ApprovalError, match="withdrawn: the conversation went on"):
        bench.answer(asked, "omar", Effect.PERMIT)
    assert records(bench.ledger)[-1]["kind"] == "withdrawn"
    assert records(bench.ledger)[-1]["request"] == asked.digest
    assert bench.claim(asked, asked=True) is not None


def test_an_approval_that_nothing_used_goes_too(bench: Bench) -> None:
    asked = bench.ask()
    bench.answer(asked, "omar", Effect.PERMIT)
    bench.ledger.withdraw([asked.digest])
    assert bench.approval(asked) == "revoked"
    with pytest.raises(ApprovalError, match="withdrawn: the conversation went on"):
        bench.answer(asked, "ines", Effect.PERMIT)
    bench.grant(asked)
    assert bench.state(asked) == "none"


def test_the_end_of_a_job_is_not_taken_for_a_withdrawal(bench: Bench) -> None:
    asked = bench.ask()
    bench.ledger.end_job(bench.job, reason="left")
    with pytest.raises(ApprovalError, match="its job ended"):
        bench.answer(asked, "omar", Effect.PERMIT)


def test_a_grant_that_nobody_claimed_is_revoked(bench: Bench) -> None:
    permitted = bench.permit()
    bench.ledger.withdraw([permitted.digest])
    assert bench.state(permitted) == "revoked"
    assert bench.claim(permitted) == "its grant is revoked"


def test_a_tool_that_asks_a_question_of_its_own_is_withdrawn_with_its_approval(
    bench: Bench,
) -> None:
    asked = bench.ask()
    bench.answer(asked, "omar", Effect.PERMIT)
    bench.grant(asked)
    assert bench.claim(asked, asked=True) is None
    bench.ledger.unclaim(asked, epoch=bench.epoch)
    bench.ledger.withdraw([asked.digest])
    assert (bench.state(asked), bench.approval(asked)) == ("revoked", "revoked")


@pytest.mark.parametrize("state", [None, *(GrantState.EXECUTED, GrantState.UNKNOWN)])
def test_what_was_claimed_meanwhile_stays(bench: Bench, state: GrantState | None) -> None:
    permitted = bench.permit(outside=OutsideEffect.OPAQUE)
    assert bench.claim(permitted) is None
    if state is not None:
        bench.finish(permitted, state)
    before = kinds(bench.ledger)
    bench.ledger.withdraw([permitted.digest, "unknown"])
    assert bench.state(permitted) == (state or "claimed")
    assert kinds(bench.ledger) == before


def test_a_no_stays_a_no(bench: Bench) -> None:
    asked = bench.ask()
    bench.answer(asked, "omar", Effect.DENY)
    bench.ledger.withdraw([asked.digest])
    assert bench.approval(asked) == "denied"


def test_calls_are_found_by_their_ids_in_their_job_and_in_others_of_the_thread(
    bench: Bench,
) -> None:
    done, asked = bench.permit(), bench.ask()
    assert bench.claim(done) is None
    bench.finish(done)
    names = [done.call_key, asked.call_key, "unheard of", *(f"more-{n}" for n in range(900))]
    own = calls_named(bench.ledger, thread="t", job=bench.job, call_ids=names)
    assert {(row.request, row.grant_state, row.approval_state, row.text) for row in own} == {
        (done.digest, "executed", None, "done"),
        (asked.digest, None, "pending", None),
    }
    assert [row for row in own if row.recorded is not None] == []
    other = calls_named(bench.ledger, thread="t", job="job-2", call_ids=names)
    assert {row.request for row in other} == {done.digest, asked.digest}
    assert all(row.recorded is not None for row in other)
    assert calls_named(bench.ledger, thread="", job=None, call_ids=names) == []
    assert calls_named(bench.ledger, thread="u", job=bench.job, call_ids=names) == []
    assert calls_named(bench.ledger, thread="t", job=bench.job, call_ids=[]) == []


def refused(bench: Bench, reason: str, *, call: str | None = "key-1") -> RefusedCall:
    return RefusedCall(call_key=call, job=bench.job, thread="t", call_id="name-1", tool="crop",
                       reason=reason, body={"reason": reason})  # fmt: skip


def test_a_call_that_was_refused_before_it_became_a_request_is_known_with_its_reason(
    bench: Bench, place: Place
) -> None:
    for reason in ("no such asset", "nor this time"):
        calls = [refused(bench, reason), refused(bench, "it has no name for good", call=None)]
        bench.ledger.record_decisions([], refused=calls)
    (row,) = calls_named(bench.ledger, thread="t", job=bench.job, call_ids=["name-1"])
    assert (row.call_key, row.effect, row.reason) == ("key-1", "deny", "no such asset")
    assert kinds(bench.ledger).count("refused") == 4
    assert calls_named(bench.ledger, thread="t", job="job-2", call_ids=["name-1"]) == []
    verify(bench.ledger.storage, place.checkpoints)


def test_a_no_to_the_same_media_is_not_taken_for_a_withdrawal(bench: Bench) -> None:
    """Both revoke a question while its job goes on."""
    picture = made("a")
    bench.ledger.register(picture, job=bench.job, by="kim", how="imported")
    first, second = (bench.ask(assets=(picture.sha256,), destination="team") for _ in range(2))
    bench.answer(first, "omar", Effect.DENY)
    with pytest.raises(ApprovalError, match="a person said no to the same media"):
        bench.answer(second, "ines", Effect.PERMIT)


def test_withdrawal_at_the_time_of_a_no_to_other_media_is_told_as_a_withdrawal(
    bench: Bench,
) -> None:
    withdrawn, denied = bench.ask(), bench.ask()
    bench.answer(withdrawn, "omar", Effect.PERMIT)
    bench.answer(denied, "omar", Effect.DENY)
    bench.ledger.withdraw([withdrawn.digest])
    with pytest.raises(ApprovalError, match="withdrawn: the conversation went on"):
        bench.answer(withdrawn, "ines", Effect.PERMIT)


def test_question_that_a_no_revoked_before_schema_9_is_known_by_its_time(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    picture = made("a")
    with ledger_at(path) as ledger:
        bench = Bench(ledger)
        ledger.register(picture, job=bench.job, by="kim", how="imported")
        first, second = (bench.ask(assets=(picture.sha256,), destination="team") for _ in range(2))
        bench.answer(first, "omar", Effect.DENY)
        with raw(path) as shell:  # as versions until 8 wrote it
            find = "SELECT sql FROM sqlite_master WHERE name = 'approvals_transition'"
            ((trigger,),) = shell.execute(find)
            shell.execute("DROP TRIGGER approvals_transition")
            shell.execute("UPDATE approvals SET revoked_by = NULL")
            shell.execute(trigger)
        with pytest.raises(ApprovalError, match="a person said no to the same media"):
            bench.answer(second, "ines", Effect.PERMIT)
