"""ledger.py and the database's own triggers: one use of a Grant, and every edge that is not one."""

from __future__ import annotations

import multiprocessing
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentguard.errors import (
    ApprovalError,
    IllegalTransition,
    JobError,
    LedgerCorrupt,
    LedgerUnavailable,
)
from agentguard.ledger import verify as audit
from agentguard.ledger.ledger import Ledger, Outcome
from agentguard.ledger.queries.assets import asset_by_sha256
from agentguard.ledger.storage.open import KEYS
from agentguard.model import Effect, GrantState, Holder, Needs, OutsideEffect, Stage, Terms
from tests.support.databases import DATABASES, drop_ledger, postgres_url
from tests.support.ledgers import (
    GRANT,
    LEASE,
    LIFETIME,
    REVIEW,
    Bench,
    Clock,
    Place,
    Shell,
    assessed,
    kinds,
    ledger_at,
    made,
    raw,
    request,
)

NONE, OUTSIDE = OutsideEffect.NONE, OutsideEffect.IDEMPOTENT


# --- triggers: what raw SQL may and may not do ------------------------------------------------

GRANT_STATES = ("issued", "claimed", "executed", "failed", "unknown", "revoked", "expired")
GRANT_EDGES = {
    ("issued", "claimed"), ("issued", "revoked"), ("issued", "expired"),
    ("claimed", "executed"), ("claimed", "failed"), ("claimed", "unknown"),
    ("unknown", "executed"), ("unknown", "failed"),
}  # fmt: skip
RETURNS = {("claimed", "issued"), ("failed", "claimed")}  # only without outside effect
WAYS: dict[str, tuple[str, ...]] = {
    "issued": (), "claimed": ("claimed",), "executed": ("claimed", "executed"),
    "failed": ("claimed", "failed"), "unknown": ("claimed", "unknown"), "revoked": ("revoked",),
    "expired": ("expired",),
}  # fmt: skip


def move_grant(connection: Shell, grant: str, state: str) -> None:
    claim = ", claims = claims + 1, claimed_at = issued_at, epoch = 1" if state == "claimed" else ""
    connection.execute(f"UPDATE grants SET state = ?{claim} WHERE id = ?", (state, grant))


@pytest.fixture(scope="module", params=DATABASES)
def rows(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shell]:
    """A ledger with one row of each kind, open as somebody with a shell has it."""
    folder = tmp_path_factory.mktemp("rows")
    url = f"sqlite:{folder / 'ledger.db'}"
    if request.param == "postgres":
        url = postgres_url(request.getfixturevalue("postgres"))
    place = Place(url=url, folder=folder)
    with ledger_at(place) as ledger:
        bench = Bench(ledger)
        ledger.register(made("ab"), job=bench.job, by="kim", how="imported")
        bench.permit(call="free", outside=NONE)
        bench.permit(call="outside", outside=OUTSIDE)
        asked = bench.ask(call="asked", needs=Needs(approvals=2))
        bench.answer(asked, "omar", Effect.ASK)
        ledger.register(
            made("cd", contributors=frozenset({"kim"})), job=None, by="kim", how="imported"
        )
        spare = bench.permit(call="spare")
        bench.claim(spare)
        bench.finish(spare, made=(made("ef", parents=(made("ab").sha256,)),))
    with raw(place) as connection:
        yield connection
    if request.param == "postgres":
        drop_ledger(url)


@pytest.fixture
def shell(rows: Shell) -> Iterator[Shell]:
    rows.execute("BEGIN")
    yield rows
    rows.execute("ROLLBACK")


def grant_of(connection: Shell, call: str) -> str:
    row = connection.execute(
        "SELECT g.id FROM grants g JOIN requests ON digest = request WHERE call_key = ?", (call,)
    ).fetchone()
    return str(row[0])


@pytest.mark.parametrize("effect", ["free", "outside"])
@pytest.mark.parametrize("old", GRANT_STATES)
@pytest.mark.parametrize("new", [*GRANT_STATES, "banana"])
def test_I8_a_grant_moves_only_along_the_edges_of_the_design(
    shell: Shell, effect: str, old: str, new: str
) -> None:
    grant = grant_of(shell, effect)
    for state in WAYS[old]:
        move_grant(shell, grant, state)
    legal = (old, new) in GRANT_EDGES or ((old, new) in RETURNS and effect == "free")
    if legal:
        move_grant(shell, grant, new)
    else:
        with pytest.raises(IllegalTransition, match=r"transition of a grant|while it lives"):
            move_grant(shell, grant, new)


JOB_EDGES = {("open", "waiting"), ("waiting", "open"), ("open", "ended"), ("waiting", "ended")}


def move_job(connection: Shell, old: str, new: str) -> None:
    ended = ", ended_at = 1, reason = 'x', ended_by = 'left'" if new == "ended" else ""
    epoch = ", epoch = epoch + 1" if (old, new) == ("waiting", "open") else ""
    connection.execute(f"UPDATE jobs SET state = ?{ended}{epoch}", (new,))


@pytest.mark.parametrize("old", ["open", "waiting", "ended"])
@pytest.mark.parametrize("new", ["open", "waiting", "ended", "banana"])
def test_I9_a_job_moves_only_along_the_edges_of_the_design(
    shell: Shell, old: str, new: str
) -> None:
    if old != "open":
        move_job(shell, "open", old)
    if (old, new) in JOB_EDGES:
        move_job(shell, old, new)
    else:
        with pytest.raises(IllegalTransition, match="transition of a job"):
            move_job(shell, old, new)


APPROVAL_STATES = ("pending", "approved", "denied", "expired", "revoked", "superseded")
APPROVAL_EDGES = {("pending", new) for new in APPROVAL_STATES[1:]} | {
    ("approved", "expired"), ("approved", "revoked"), ("approved", "denied"),
}  # fmt: skip


@pytest.mark.parametrize("old", APPROVAL_STATES)
@pytest.mark.parametrize("new", [*APPROVAL_STATES, "banana"])
def test_I9_an_approval_request_moves_only_along_the_edges_of_the_design(
    shell: Shell, old: str, new: str
) -> None:
    if old != "pending":
        move_approval(shell, old)
    if (old, new) in APPROVAL_EDGES:
        move_approval(shell, new)
    else:
        with pytest.raises(IllegalTransition, match="transition of an approval"):
            move_approval(shell, new)


def move_approval(shell: Shell, new: str) -> None:
    by = ", revoked_by = 'job'" if new == "revoked" else ""
    shell.execute(f"UPDATE approvals SET state = ?, ended_at = asked_at{by}", (new,))


@pytest.mark.parametrize("old", ["live", "revoked", "expired"])
@pytest.mark.parametrize("new", ["live", "revoked", "expired", "banana"])
def test_S14_a_credential_dies_once_and_never_rises(shell: Shell, old: str, new: str) -> None:
    if old != "live":
        shell.execute("UPDATE credentials SET state = ?", (old,))
    if old == "live" and new in ("revoked", "expired"):
        shell.execute("UPDATE credentials SET state = ?", (new,))
    else:
        with pytest.raises(IllegalTransition, match="transition of a credential"):
            shell.execute("UPDATE credentials SET state = ?", (new,))


FIXED = {
    "grants": ("id", "request", "job", "credential", "policy_version", "effect",
               "idempotency_key", "issued_at", "expires_at"),
    "jobs": ("id", "purpose", "requested_by", "opened_at"),
    "credentials": ("id", "job", "agent", "stage", "epoch", "issued_at", "expires_at"),
    "approvals": ("request", "job", "count", "groups", "asked_at", "expires_at"),
    "answers": ("request", "person", "verdict", "answered_as", "at", "key_id", "signature",
                "received_at"),
    "requests": ("digest", "content_digest", "body", "effect", "call_key", "revision", "tool"),
    "records": ("idx", "body"),
    "nodes": ("level", "idx", "hash"),
    "contributors": ("sha256", "person"),
    "lineage": ("child", "parent", "grant_id"),
}  # fmt: skip
MOVE = {"grants": "state = 'revoked'", "jobs": "state = 'ended', ended_at = 1, ended_by = 'left'",
        "credentials": "state = 'revoked'",
        "approvals": "state = 'expired', ended_at = 1"}  # fmt: skip


@pytest.mark.parametrize(
    ("table", "column"), [(table, column) for table in FIXED for column in FIXED[table]]
)
def test_what_is_fixed_stays_even_beside_a_legal_move(
    shell: Shell, table: str, column: str
) -> None:
    where = "WHERE state = 'issued'" if table == "grants" else ""
    other = f"{column} = {column}" if shell.postgres else f"{column} = {column} || '0'"
    for change in (other, ", ".join(filter(None, [MOVE.get(table), other]))):
        with pytest.raises(IllegalTransition):
            shell.execute(f"UPDATE {table} SET {change} {where}")


@pytest.mark.parametrize(
    "table",
    ["jobs", "credentials", "requests", "approvals", "answers", "grants", "records", "nodes",
     "contributors", "lineage"],
)  # fmt: skip
def test_rows_that_rights_hang_on_are_never_deleted(shell: Shell, table: str) -> None:
    with pytest.raises(IllegalTransition):
        shell.execute(f"DELETE FROM {table}")


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        # born otherwise
        ("INSERT INTO grants VALUES ('g', 'r', 'j', NULL, 'v', 'none', 'k', 'claimed', 1, 2, 1,"
         " 1, 1, NULL)", "born issued"),
        ("INSERT INTO grants VALUES ('g', 'r', 'j', NULL, 'v', 'none', 'k', 'issued', 1, 1, 0,"
         " NULL, NULL, NULL)", "born issued"),
        ("INSERT INTO credentials VALUES ('c', 'j', 'a', 'edit', 1, 2, 2, 'live')", "born live"),
        ("INSERT INTO credentials VALUES ('c', 'j', 'a', 'edit', 1, 1, 2, 'revoked')",
         "born live"),
        ("INSERT INTO approvals VALUES ('r', 'j', 1, '[]', 1, 2, 'approved', NULL, '', NULL)",
         "born pending"),
        ("INSERT INTO approvals VALUES ('r', 'j', 0, '[]', 1, 2, 'pending', NULL, '', NULL)",
         "born pending"),
        ("INSERT INTO approvals VALUES ('r', 'j', 1, '[]', 1, 2, 'pending', NULL, '', 'job')",
         "born pending"),
        ("INSERT INTO jobs VALUES ('j', 'p', 'kim', 'waiting', 1, 1, NULL, NULL, NULL)",
         "born open"),
        ("INSERT INTO jobs VALUES ('j', 'p', 'kim', 'open', 7, 1, NULL, NULL, NULL)",
         "born open"),
        ("INSERT INTO jobs VALUES ('j', 'p', 'kim', 'open', 1, 1, NULL, NULL, 'left')",
         "born open"),
        # claims are counted, in time, by somebody
        ("UPDATE grants SET state = 'claimed', claimed_at = issued_at, epoch = 1"
         " WHERE state = 'issued'", "counted"),
        ("UPDATE grants SET state = 'claimed', claims = 1, claimed_at = expires_at, epoch = 1"
         " WHERE state = 'issued'", "while it lives"),
        ("UPDATE grants SET state = 'claimed', claims = 1, epoch = 1 WHERE state = 'issued'",
         "while it lives"),
        ("UPDATE grants SET state = 'revoked', claims = 5 WHERE state = 'issued'", "counted"),
        # time and epochs
        ("UPDATE approvals SET state = 'approved', ended_at = expires_at", "illegal"),
        ("UPDATE approvals SET state = 'approved', ended_at = NULL", "illegal"),
        ("UPDATE approvals SET state = 'revoked', ended_at = asked_at", "illegal"),
        ("UPDATE approvals SET state = 'denied', ended_at = asked_at, revoked_by = 'job'",
         "illegal"),
        ("UPDATE jobs SET state = 'waiting', epoch = epoch + 1", "illegal"),
        ("UPDATE jobs SET state = 'ended'", "illegal"),
        ("UPDATE jobs SET state = 'ended', ended_at = 1, reason = 'x'", "illegal"),
        ("UPDATE jobs SET state = 'waiting', ended_by = 'left'", "illegal"),
        # assets
        ("UPDATE assets SET labels = '[]'", "illegal transition of an asset"),
        ("UPDATE assets SET labels = '[]', version = version", "illegal transition of an asset"),
        ("UPDATE assets SET id = 'other', version = version + 1", "illegal"),
        ("INSERT INTO records VALUES (9999, '{}')", "append-only"),
    ],
)  # fmt: skip
def test_I8_I10_raw_sql_can_not_bring_back_what_was_used(
    shell: Shell, statement: str, found: str
) -> None:
    with pytest.raises(IllegalTransition, match=found):
        shell.execute(statement)


@pytest.mark.parametrize("rows", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("statement", "found"),
    [
        # INSERT OR REPLACE deletes the old row without any DELETE trigger.
        ("INSERT OR REPLACE INTO grants SELECT id, request, job, credential, policy_version,"
         " effect, idempotency_key, 'issued', issued_at, expires_at, 0, NULL, NULL, NULL"
         " FROM grants", "a grant is born issued, once"),
        ("INSERT OR REPLACE INTO grants SELECT id || '2', request, job, credential,"
         " policy_version, effect, idempotency_key, 'issued', issued_at, expires_at, 0, NULL,"
         " NULL, NULL FROM grants", "a grant is born issued, once"),
        ("INSERT OR REPLACE INTO answers SELECT request, person, 'deny', answered_as, at, key_id,"
         " signature, received_at FROM answers", "an answer stands"),
        ("INSERT OR REPLACE INTO credentials SELECT id, job, agent, 'export', epoch, issued_at,"
         " expires_at, 'live' FROM credentials", "born live, once"),
        ("INSERT OR REPLACE INTO approvals SELECT request, job, count, '[]', asked_at,"
         " expires_at, 'pending', NULL, '{}', NULL FROM approvals", "born pending, once"),
        ("INSERT OR REPLACE INTO jobs SELECT id, purpose, 'omar', 'open', 1, opened_at, NULL,"
         " NULL, NULL FROM jobs", "born open, once"),
        ("INSERT OR REPLACE INTO requests SELECT digest, content_digest, call_key, revision, job,"
         " thread, call_id, agent, stage, tool, destination, '{}', effect, policies,"
         " policy_version, reason, credential, decided_at, ordinal FROM requests", "decided once"),
        ("INSERT OR REPLACE INTO records VALUES (0, '{}')", "append-only"),
        ("INSERT OR REPLACE INTO nodes SELECT level, idx, x'00' FROM nodes", "append-only"),
        ("INSERT OR REPLACE INTO assets SELECT sha256, id, media_type, extension, size, width,"
         " height, '[]', terms, recalled, held, provenance, 1, created_at FROM assets",
         "registered once"),
    ],
)  # fmt: skip
def test_I8_sqlite_does_not_replace_what_was_used(shell: Shell, statement: str, found: str) -> None:
    with pytest.raises(IllegalTransition, match=found):
        shell.execute(statement)


@pytest.mark.parametrize("rows", ["postgres"], indirect=True)
@pytest.mark.parametrize("table", [*KEYS, "records", "nodes", "outbox"])
def test_I10_postgres_truncates_nothing(shell: Shell, table: str) -> None:
    with pytest.raises(IllegalTransition, match=f"{table} is kept"):
        shell.execute(f"TRUNCATE {table}")


def test_a_recall_stays(shell: Shell) -> None:
    shell.execute("UPDATE assets SET recalled = 1, version = version + 1")
    with pytest.raises(IllegalTransition):
        shell.execute("UPDATE assets SET recalled = 0, version = version + 1")


def test_a_waiting_job_is_rejoined_only_under_the_next_epoch(shell: Shell) -> None:
    shell.execute("UPDATE jobs SET state = 'waiting'")
    for epoch in ("epoch", "epoch + 2", "epoch - 1"):
        with pytest.raises(IllegalTransition):
            shell.execute(f"UPDATE jobs SET state = 'open', epoch = {epoch}")


# --- claims -----------------------------------------------------------------------------------


def test_I8_sixteen_threads_claim_each_grant_exactly_once(bench: Bench) -> None:
    asked = [bench.permit() for _ in range(40)]
    barrier = threading.Barrier(16)

    def race(_: int) -> list[str | None]:
        barrier.wait(20)
        return [bench.claim(one) for one in asked]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(race, range(16)))
    for column in zip(*answers, strict=True):
        counted = Counter(column)
        assert counted[None] == 1
        assert counted["its grant is claimed"] == 15
    assert kinds(bench.ledger).count("claimed") == 40


def claim_all(place: Place, now: int, job: str, credential: str, start: Any, queue: Any) -> None:
    with ledger_at(place, Clock(now)) as ledger:
        start.wait(30)
        won = 0
        for number in range(60):
            one = request(job, call=f"c{number}")
            holder = Holder(epoch=1, credential=credential)
            won += ledger.claim(assessed(one, holder), durable=False) is None
        queue.put(won)


def test_I8_two_processes_claim_each_grant_exactly_once(bench: Bench, place: Place) -> None:
    asked = [bench.permit(call=f"c{number}") for number in range(60)]
    context = multiprocessing.get_context("spawn")
    start, queue = context.Barrier(2), context.Queue()
    arguments = (place, bench.ledger.clock(), bench.job, bench.credential, start, queue)
    processes = [context.Process(target=claim_all, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    won = [queue.get(timeout=30) for _ in processes]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert sum(won) == 60
    assert {bench.state(one) for one in asked} == {"claimed"}
    assert kinds(bench.ledger).count("claimed") == 60
    audit.verify(bench.ledger.storage, place.checkpoints)


def test_S14_an_expired_grant_is_refused(bench: Bench, clock: Clock) -> None:
    one = bench.permit()
    clock.now += LEASE - 1
    bench.ledger.renew_lease(bench.job, epoch=1, lease=10 * GRANT)
    clock.now += GRANT - LEASE
    assert bench.claim(one) is None  # the last millisecond
    two = bench.permit()
    clock.now += GRANT
    assert bench.claim(two) == "its grant is expired"
    assert bench.state(two) == "issued"


def test_S14_an_expired_credential_is_refused(bench: Bench, clock: Clock) -> None:
    one = bench.permit()
    short = bench.take(lifetime=1000)
    clock.now += 1000
    assert bench.claim(one, credential=short) == "its credential is not live"
    assert bench.claim(one) is None


def test_S23_a_revoked_credential_takes_its_unclaimed_grants_along(bench: Bench) -> None:
    used, unused = bench.permit(), bench.permit()
    assert bench.claim(used) is None
    bench.ledger.revoke_credential(bench.credential, reason="seen twice")
    other = bench.permit()
    assert bench.state(used) == "claimed"  # the claim is the point of no return
    assert bench.state(unused) == "revoked"
    assert bench.claim(other) == "its credential is not live"
    bench.credential = bench.take()
    assert bench.claim(unused) == "its grant is revoked"
    assert bench.claim(other) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"agent": "painter", "stage": Stage.EDIT},
        {"agent": "editor", "stage": Stage.EXPORT},
        {"agent": "editor", "stage": Stage.EDIT, "job": "other"},
    ],
)
def test_S17_a_credential_of_another_agent_stage_or_job_is_refused(
    bench: Bench, wrong: dict[str, Any]
) -> None:
    ledger = bench.ledger
    job, wrong = bench.job, dict(wrong)
    if wrong.pop("job", None):
        job = ledger.open_job(purpose="p", requested_by="kim", lease=LEASE)[0]
    foreign = ledger.take_credential(job, epoch=1, lifetime=LIFETIME, **wrong)
    assert bench.claim(bench.permit(), credential=foreign.id) == "its credential is not live"
    assert bench.claim(bench.permit(), credential="cred-none") == "its credential is not live"


def test_S12_an_ended_job_is_refused(bench: Bench) -> None:
    one = bench.permit()
    bench.ledger.end_job(bench.job, reason="over")
    assert bench.claim(one) == f"job {bench.job} is ended"


def test_I9_a_raised_epoch_fences_the_old_holder(bench: Bench) -> None:
    bench.ask()
    bench.ledger.leave_job(bench.job, epoch=1, clean=True, reason="left")
    old = bench.holder
    bench.rejoin()
    one = bench.permit()
    elsewhere = f"job {bench.job} was re-entered elsewhere"
    assert bench.claim(one, holder=old) == elsewhere
    stale = bench.claim(one, credential=old.credential)
    assert stale == "its credential is not live"
    assert bench.claim(one) is None


def test_I9_a_lapsed_lease_is_refused(bench: Bench, clock: Clock) -> None:
    one = bench.permit()
    clock.now += LEASE
    assert bench.claim(one) == f"the lease on job {bench.job} lapsed"
    with pytest.raises(JobError, match="lapsed"):
        bench.take()


def test_a_lease_that_somebody_deleted_is_no_lease(bench: Bench, place: Place) -> None:
    one = bench.permit()
    with raw(place) as connection:
        connection.execute("DELETE FROM leases")
    assert bench.claim(one) == f"the lease on job {bench.job} lapsed"
    assert bench.ledger.sweep()["jobs"] == 1
    assert bench.job_state() == "ended"


def test_I4_a_class_that_rises_is_on_the_disk_before_anybody_is_told(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = ledger.storage.submit
    synced: list[bool] = []

    def noted(transition: Any, *, durable: bool = False, **more: Any) -> Any:
        synced.append(durable)
        return submit(transition, durable=durable, **more)

    monkeypatch.setattr(ledger.storage, "submit", noted)
    before = len(kinds(ledger))
    ledger.register(made("a"), job=None, by="kim", how="imported")
    ledger.register(made("a", labels=frozenset({"regulated"})), job=None, by="kim", how="imported")
    assert synced == [True, True]
    assert kinds(ledger)[before:] == ["asset.registered"] * 2
    row = ledger.one("SELECT labels FROM assets WHERE sha256 = ?", "a" * 64)
    assert row is not None
    assert row["labels"] == '["brand","regulated"]'


@pytest.mark.parametrize("change", ["label", "terms", "contributor", "held", "recalled"])
def test_I4_an_asset_that_moved_since_it_was_judged_is_refused(bench: Bench, change: str) -> None:
    ledger = bench.ledger
    asset = made("ab")
    ledger.register(asset, job=bench.job, by="kim", how="imported")
    one = bench.permit(assets=(asset.sha256,))
    if change in ("held", "recalled"):
        ledger.mark_asset(asset.sha256, column=change, value=True, by="kim")
    else:
        again = {
            "label": made("ab", labels=frozenset({"likeness"})),
            "terms": made("ab", terms=Terms(until=5)),
            "contributor": made("ab", contributors=frozenset({"omar"})),
        }[change]
        ledger.register(again, job=bench.job, by="kim", how="imported")
    refused = bench.claim(one, versions={asset.sha256: 1})
    assert refused == "an asset changed since it was judged"
    assert bench.claim(one, versions={asset.sha256: 2}) is None


def test_the_same_bytes_again_with_nothing_new_void_nothing(bench: Bench) -> None:
    asset = made("ab", terms=Terms(channels=frozenset({"a", "b"}), until=9))
    for _ in range(3):
        bench.ledger.register(asset, job=bench.job, by="kim", how="imported")
    one = bench.permit(assets=(asset.sha256,))
    assert bench.claim(one, versions={asset.sha256: 1}) is None
    unknown = bench.permit(assets=(made("cd").sha256,))
    assert (
        bench.claim(unknown, versions={made("cd").sha256: 1})
        == "an asset changed since it was judged"
    )


def test_S22_an_approval_whose_window_closed_is_refused(bench: Bench, clock: Clock) -> None:
    bench.ledger.renew_lease(bench.job, epoch=1, lease=10 * REVIEW)
    asked = bench.ask()
    clock.now += REVIEW - 1000
    bench.credential = bench.take()
    bench.answer(asked, "omar", Effect.PERMIT)
    bench.grant(asked)
    clock.now += 1000
    closed = "its approval is not live: the review window closed"
    assert bench.claim(asked, asked=True) == closed
    assert bench.claim(asked, asked=False) == closed  # whatever the caller says it relied on
    assert bench.claim(bench.permit(), asked=True) == closed


def test_I8_a_grant_without_outside_effect_is_claimed_again_after_a_failure(
    bench: Bench, clock: Clock
) -> None:
    one, outside = bench.permit(), bench.permit(outside=OUTSIDE)
    for asked in (one, outside):
        assert bench.claim(asked) is None
        assert bench.finish(asked, GrantState.FAILED)
    assert bench.claim(outside) == "its grant is failed"
    assert bench.claim(one) is None
    assert bench.finish(one, GrantState.FAILED)
    clock.now += LEASE - 1
    bench.ledger.renew_lease(bench.job, epoch=1, lease=10 * GRANT)
    clock.now += GRANT
    assert bench.claim(one) == "its grant is expired"  # I1: also the second time


def test_a_paused_tool_gives_its_grant_back_unless_it_acts_outside(bench: Bench) -> None:
    one, outside = bench.permit(), bench.permit(outside=OUTSIDE)
    for asked in (one, outside):
        assert bench.claim(asked) is None
    bench.ledger.unclaim(one, epoch=1)
    assert bench.state(one) == "issued"
    assert bench.claim(one) is None
    with pytest.raises(IllegalTransition):
        bench.ledger.unclaim(outside, epoch=1)
    assert bench.state(outside) == "claimed"


def test_I5_nothing_is_claimed_without_a_grant(bench: Bench) -> None:
    assert bench.claim(request(bench.job)) == "no grant exists for this call"
    assert bench.claim(bench.ask()) == "its approval is not live: the review window closed"


# --- decisions and answers --------------------------------------------------------------------


def test_I8_a_request_keeps_its_first_decision(bench: Bench) -> None:
    asked = request(bench.job)
    for effect in (Effect.DENY, Effect.PERMIT, Effect.ASK):
        bench.ledger.record_decisions([bench.judged(asked, effect)])
    row = bench.ledger.one("SELECT effect FROM requests WHERE digest = ?", asked.digest)
    assert row is not None
    assert row["effect"] == "deny"
    assert bench.state(asked) == "none"


def test_I10_decisions_of_one_message_are_recorded_together_or_not_at_all(bench: Bench) -> None:
    first, second = request(bench.job), request("job-unknown")
    items = [bench.judged(first), bench.judged(second)]
    with pytest.raises(JobError, match="no job job-unknown"):
        bench.ledger.record_decisions(items)
    assert bench.state(first) == "none"
    assert "decided" not in kinds(bench.ledger)


def test_S12_a_denial_is_recorded_even_when_the_job_is_over(bench: Bench) -> None:
    bench.ledger.end_job(bench.job, reason="over")
    for effect in (Effect.PERMIT, Effect.ASK):
        with pytest.raises(JobError, match="is ended"):
            bench.ledger.record_decisions([bench.judged(request(bench.job), effect)])
    bench.ledger.record_decisions([bench.judged(request(bench.job), Effect.DENY)])
    assert kinds(bench.ledger)[-1] == "decided"


def test_S22_a_late_answer_is_refused_where_it_is_written(bench: Bench, clock: Clock) -> None:
    asked = bench.ask()
    clock.now += REVIEW
    with pytest.raises(ApprovalError, match="window closed"):
        bench.answer(asked, "omar", Effect.PERMIT)
    assert bench.approval(asked) == "pending"
    assert bench.ledger.answers(asked.digest) == ()


def test_an_answer_stands_and_a_settled_request_takes_none(bench: Bench) -> None:
    asked = bench.ask(needs=Needs(approvals=2))
    bench.answer(asked, "omar", Effect.ASK)
    with pytest.raises(ApprovalError, match="answered this before"):
        bench.answer(asked, "omar", Effect.DENY)
    bench.answer(asked, "ines", Effect.DENY)
    with pytest.raises(ApprovalError, match="is denied"):
        bench.answer(asked, "lee", Effect.PERMIT)
    with pytest.raises(ApprovalError, match="is unknown"):
        bench.answer(request(bench.job), "lee", Effect.PERMIT)
    assert bench.approval(asked) == "denied"


def test_S20_two_answers_at_once_are_both_counted(bench: Bench) -> None:
    """Each caller counted one; the ledger, which sees both, counts again."""
    asked = bench.ask(needs=Needs(approvals=2, groups=frozenset({"legal"})))
    bench.answer(asked, "ines", Effect.ASK, group="marketing")
    bench.answer(asked, "omar", Effect.ASK, group="legal")
    assert bench.approval(asked) == "approved"


def test_S31_two_answers_without_the_group_that_is_needed_are_not_enough(bench: Bench) -> None:
    asked = bench.ask(needs=Needs(approvals=2, groups=frozenset({"legal"})))
    bench.answer(asked, "ines", Effect.ASK, group="marketing")
    bench.answer(asked, "lee", Effect.ASK)
    assert bench.approval(asked) == "pending"


def test_I1_no_grant_is_issued_for_what_nobody_approved_in_time(bench: Bench, clock: Clock) -> None:
    bench.ledger.renew_lease(bench.job, epoch=1, lease=10 * REVIEW)
    denied, late, never = bench.ask(), bench.ask(), request(bench.job)
    bench.answer(denied, "omar", Effect.DENY)
    bench.grant(denied)
    clock.now += REVIEW
    bench.grant(late)
    bench.grant(never)
    assert [bench.state(one) for one in (denied, late, never)] == ["none"] * 3
    assert "granted" not in kinds(bench.ledger)


def test_I8_an_approval_is_worth_one_grant(bench: Bench) -> None:
    asked = bench.ask()
    bench.answer(asked, "omar", Effect.PERMIT)
    for _ in range(3):
        bench.grant(asked)
    assert kinds(bench.ledger).count("granted") == 1
    assert bench.claim(asked, asked=True) is None
    bench.finish(asked)
    bench.grant(asked)
    assert bench.claim(asked, asked=True) == "its grant is executed"


# --- what was found out later -------------------------------------------------------------------


def unknown_grant(bench: Bench) -> tuple[str, str]:
    asked = bench.permit(outside=OutsideEffect.OPAQUE)
    assert bench.claim(asked) is None
    bench.ledger.end_job(bench.job, reason="over")
    row = bench.ledger.one("SELECT id FROM grants WHERE request = ?", asked.digest)
    assert row is not None
    return str(row["id"]), asked.digest


def test_I8_unknown_effect_is_settled_once(bench: Bench) -> None:
    grant, digest = unknown_grant(bench)
    found = Outcome(state=GrantState.EXECUTED, text="found", receipts=(("site", "/a.png", "ab"),))
    assert bench.ledger.settle(grant, found, request=digest, by=None)
    assert not bench.ledger.settle(
        grant, Outcome(state=GrantState.FAILED, text="not there"), request=digest, by="kim"
    )
    row = bench.ledger.one("SELECT status, text FROM outcomes WHERE grant_id = ?", grant)
    assert row is not None
    assert tuple(row) == ("executed", "found")
    assert len(bench.ledger.all("SELECT * FROM receipts")) == 1


def test_I10_settling_to_what_is_no_outcome_raises_an_alarm(bench: Bench) -> None:
    grant, digest = unknown_grant(bench)
    with pytest.raises(IllegalTransition):
        bench.ledger.settle(
            grant, Outcome(state=GrantState.ISSUED, text="again"), request=digest, by=None
        )
    assert bench.ledger.alarm is not None


def test_I10_a_row_that_does_not_decode_raises_an_alarm(bench: Bench, place: Place) -> None:
    bench.ledger.register(made("ab"), job=None, by="kim", how="imported")
    with raw(place) as shell:
        shell.execute("UPDATE assets SET labels = '{', version = version + 1")
    with pytest.raises(LedgerCorrupt, match=r"AssetRow, labels: .*edited"):
        bench.ledger.first(asset_by_sha256(made("ab").sha256))
    assert bench.ledger.alarm is not None
    with pytest.raises(LedgerCorrupt):
        bench.ledger.require_sound()


# --- assets -----------------------------------------------------------------------------------


def test_S8_known_bytes_join_labels_and_take_the_stricter_terms(ledger: Ledger) -> None:
    ways = [
        Terms(until=10, channels=frozenset({"site", "team"})),
        Terms(until=20, release_at=5, channels=frozenset({"site", "shop"})),
        Terms(release_at=7, consent=False),
        Terms(),
    ]
    for number, terms in enumerate(ways):
        label = frozenset({f"l{number}"})
        ledger.register(made("ab", labels=label, terms=terms), job=None, by="kim", how="imported")
    row = ledger.one("SELECT labels, terms, version FROM assets")
    assert row is not None
    assert row["labels"] == '["l0","l1","l2","l3"]'
    assert row["terms"] == '{"channels":["site"],"consent":false,"release_at":7,"until":10}'
    assert row["version"] == 4


def test_S36_no_terms_are_joined_away_by_an_unlimited_copy(ledger: Ledger) -> None:
    ledger.register(made("ab"), job=None, by="kim", how="imported")
    for channels in (frozenset[str](), frozenset({"x"})):
        again = made("ab", terms=Terms(channels=channels))
        ledger.register(again, job=None, by="kim", how="imported")
    row = ledger.one("SELECT terms FROM assets")
    assert row is not None
    assert row["terms"] == '{"channels":[]}'


def test_a_recall_is_not_taken_back_and_other_marks_are_unknown(ledger: Ledger) -> None:
    ledger.register(made("ab"), job=None, by="kim", how="imported")
    sha256 = made("ab").sha256
    assert ledger.mark_asset(sha256, column="held", value=True, by="kim")
    assert not ledger.mark_asset(sha256, column="held", value=True, by="kim")
    assert ledger.mark_asset(sha256, column="held", value=False, by="kim")
    assert ledger.mark_asset(sha256, column="recalled", value=True, by="kim")
    for column, value in (("recalled", False), ("labels", True), ("held = 1 --", True)):
        with pytest.raises(ValueError, match="expected held or recalled"):
            ledger.mark_asset(sha256, column=column, value=value, by="kim")


def test_every_receipt_of_a_grant_is_kept(bench: Bench) -> None:
    one = bench.permit(outside=OUTSIDE)
    bench.claim(one)
    bench.finish(one, receipts=(("site", "site/a", "a" * 64), ("site", "site/b", "b" * 64)))
    assert len(bench.ledger.all("SELECT * FROM receipts")) == 2


def test_I10_a_ledger_that_is_gone_denies(bench: Bench) -> None:
    one = bench.permit()
    bench.ledger.storage.close()
    with pytest.raises(LedgerUnavailable):
        bench.claim(one)


# --- what a parent became while its child was being made ---------------------------------------


@pytest.mark.parametrize("how", ["parent", "grandparent"])
def test_I4_a_child_takes_what_its_parents_are_when_it_is_registered(
    bench: Bench, how: str
) -> None:
    """Its labels were computed when its tool began; a class that rose meanwhile counts (I1, I4)."""
    ledger = bench.ledger
    first, parent = made("aa"), made("ab", parents=(made("aa").sha256,))
    ledger.register(first, job=bench.job, by="kim", how="imported")
    edit = bench.permit(assets=(first.sha256,))
    assert bench.claim(edit) is None
    assert bench.finish(edit, made=(parent,))
    one = bench.permit(assets=(parent.sha256,))
    assert bench.claim(one, versions={parent.sha256: 1}) is None
    raised = made("aa" if how == "grandparent" else "ab", labels=frozenset({"likeness"}),
                  terms=Terms(until=5), contributors=frozenset({"omar"}))  # fmt: skip
    ledger.register(raised, job=None, by="omar", how="imported")
    child = made("cd", parents=(parent.sha256,), terms=Terms(until=9))
    assert bench.finish(one, made=(child,))
    row = ledger.one("SELECT labels, terms FROM assets WHERE sha256 = ?", child.sha256)
    assert row is not None
    assert row["labels"] == '["brand","likeness"]'
    assert row["terms"] == '{"until":5}'
    people = ledger.all("SELECT person FROM contributors WHERE sha256 = ?", child.sha256)
    assert {row["person"] for row in people} == {"kim", "omar"}


def test_I4_a_known_child_joins_its_new_parents_and_so_do_its_own_children(bench: Bench) -> None:
    ledger = bench.ledger
    child, grandchild = made("cd"), made("ef", parents=(made("cd").sha256,))
    ledger.register(child, job=bench.job, by="kim", how="imported")
    edit = bench.permit(assets=(child.sha256,))
    assert bench.claim(edit) is None
    assert bench.finish(edit, made=(grandchild,))
    parent = made("ab", labels=frozenset({"likeness"}), contributors=frozenset({"omar"}))
    ledger.register(parent, job=bench.job, by="omar", how="imported")
    one = bench.permit(assets=(parent.sha256,))
    assert bench.claim(one) is None
    assert bench.finish(one, made=(made("cd", parents=(parent.sha256,)),))
    for sha256 in (child.sha256, grandchild.sha256):
        row = ledger.one("SELECT labels, version FROM assets WHERE sha256 = ?", sha256)
        assert row is not None
        assert (row["labels"], row["version"]) == ('["brand","likeness"]', 2)
        people = ledger.all("SELECT person FROM contributors WHERE sha256 = ?", sha256)
        assert {row["person"] for row in people} == {"kim", "omar"}


def test_I1_a_window_that_closed_stops_a_claim_that_finds_anothers_grant(
    bench: Bench, clock: Clock
) -> None:
    """Two tasks were told yes; one claims and fails, the other one takes long over its copies."""
    bench.credential = bench.take(lifetime=10 * REVIEW)
    asked = bench.ask()
    bench.answer(asked, "omar", Effect.PERMIT)
    assert bench.claim(asked, asked=True, lifetime=3 * REVIEW) is None
    bench.finish(asked, GrantState.FAILED)
    bench.ledger.renew_lease(bench.job, epoch=1, lease=10 * REVIEW)
    clock.now += REVIEW
    closed = "its approval is not live: the review window closed"
    assert bench.claim(asked, asked=True, lifetime=3 * REVIEW) == closed
    assert bench.state(asked) == "failed"


def test_S21_a_tool_that_paused_itself_goes_on_when_its_job_is_entered_again(bench: Bench) -> None:
    asked, never = bench.ask(), bench.permit()
    bench.answer(asked, "omar", Effect.PERMIT)
    assert bench.claim(asked, asked=True) is None
    bench.ledger.unclaim(asked, epoch=bench.epoch)
    assert bench.ledger.leave_job(bench.job, epoch=1, clean=True, reason="left") == "waiting"
    assert [bench.state(one) for one in (asked, never)] == ["issued", "revoked"]
    bench.rejoin()
    assert bench.claim(asked, asked=True) is None
    bench.finish(asked)
    assert bench.ledger.leave_job(bench.job, epoch=2, clean=True, reason="left") == "ended"
