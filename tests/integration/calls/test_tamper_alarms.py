"""A tamper alarm is logged as an error, counted and shown, and nothing begins after it (I10)."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentguard.cli.app import app
from agentguard.errors import ApprovalError, LedgerCorrupt, LedgerUnavailable
from agentguard.ledger.open import alarms_of, checkpoints_of
from agentguard.model import Verdict
from tests.support import KIM, OMAR, Studio, build, call, open_studio, results, says

ALARM = "tamper alarm on the ledger"


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records
            if one.levelno >= logging.ERROR and ALARM in one.getMessage()]  # fmt: skip


def raw(studio: Studio, *statements: str) -> None:
    """Somebody with write access to the file, around every trigger that stands in the way."""
    connection = sqlite3.connect(studio.folder / ".agentguard" / "ledger.db")
    try:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    finally:
        connection.close()


def paint(colour: str, id: str | None = None) -> Any:
    return says(call("paint", {"prompt": f"a {colour} square", "colour": colour}, id=id))


def node_is_taken(studio: Studio) -> None:
    """The log's next node is there before its record: LedgerCorrupt in the writer."""
    raw(studio, "INSERT INTO nodes SELECT 0, max(idx) + 1, hash FROM nodes WHERE level = 0")


def trigger_is_added(studio: Studio) -> None:
    """A trigger that stops claims: IllegalTransition in the claim."""
    raw(studio, "CREATE TRIGGER mine BEFORE UPDATE ON grants WHEN NEW.state = 'claimed'"
                " BEGIN SELECT RAISE(ABORT, 'not today'); END")  # fmt: skip


TAMPERING = {"LedgerCorrupt": node_is_taken, "IllegalTransition": trigger_is_added}


@pytest.mark.parametrize("tamper", TAMPERING.values(), ids=TAMPERING)
def test_alarm_is_logged_counted_and_stops_this_process(
    studio: Studio, caplog: pytest.LogCaptureFixture, tamper: Any
) -> None:
    ledger = studio.guard.ledger
    # Where nothing can be written at all, the job can't be left either, and its lease lapses.
    with (
        contextlib.suppress(LedgerCorrupt),
        studio.guard.open_job("poster", requested_by=KIM) as job,
    ):
        tamper(studio)
        script = [paint("red"), paint("green")]
        state = build(studio, script).invoke(
            {"messages": [("user", "go")]}, job.config(thread_id="t")
        )
        assert studio.world.count("paint") == 0
        told = results(state)
        assert len(told) == 2
        assert all("tamper alarm" in one.content for one in told)
        assert all("do not try again" in one.content for one in told)
        assert ledger.alarm is not None
        assert len(errors(caplog)) >= 1
        with pytest.raises(LedgerCorrupt, match="raised a tamper alarm"):
            studio.guard.open_job("another", requested_by=KIM)
        with pytest.raises(LedgerCorrupt, match="raised a tamper alarm"):
            job.import_asset(studio.picture(), ["brand"])
        checked = True
    assert checked


def test_alarm_stops_what_was_permitted_before(
    studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    """Asked and approved, then the alarm: neither the wait nor the claim goes on."""
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["likeness"])
        script = [says(call("publish", {"source": asset, "to": "team"}))]
        graph = build(studio, script)
        config = job.config(thread_id="t")
        assert "__interrupt__" in graph.invoke({"messages": [("user", "go")]}, config)
        request = studio.pending().request
        studio.guard.ledger.raise_alarm(LedgerCorrupt("a trigger is missing"))
        with pytest.raises(LedgerCorrupt):
            studio.answer(request, OMAR)
        state = graph.invoke(None, config)
        assert "tamper alarm" in results(state)[-1].content
        assert studio.world.count("publish") == 0


def test_what_runs_is_recorded_after_an_alarm_and_the_job_ends(studio: Studio) -> None:
    """I8, I9: an alarm takes no truth away, and leaves nothing alive."""
    ledger = studio.guard.ledger
    original = studio.tools["paint"].func

    def painting(**given: Any) -> str:
        ledger.raise_alarm(LedgerCorrupt("found while it ran"))
        return str(original(**given))

    studio.tools["paint"].func = painting
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        graph = build(studio, [paint("red")])
        graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
    assert studio.grants() == ["executed"]
    rows = ledger.all("SELECT state FROM credentials WHERE state = 'live'")
    assert rows == []


def test_opening_the_ledger_anew_ends_the_alarm(tmp_path: Path) -> None:
    first = open_studio(tmp_path)
    first.guard.ledger.raise_alarm(LedgerCorrupt("a passing cloud"))
    first.guard.close()
    second = open_studio(tmp_path, clock=first.clock, keys=first.keys)
    with second.guard, second.guard.open_job("poster", requested_by=KIM) as job:
        graph = build(second, [paint("red")])
        graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
        assert second.world.count("paint") == 1


def test_an_edited_question_is_an_alarm(studio: Studio, caplog: pytest.LogCaptureFixture) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["likeness"])
        graph = build(studio, [says(call("publish", {"source": asset, "to": "team"}))])
        graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
        request = studio.pending().request
        raw(
            studio,
            "DROP TRIGGER approvals_fixed",
            "DROP TRIGGER approvals_transition",
            "UPDATE approvals SET question = replace(question, 'team', 'site')",
        )
        with pytest.raises(ApprovalError, match="its row was edited"):
            studio.answer(request, OMAR, Verdict.APPROVE)
        assert len(errors(caplog)) == 1
        with pytest.raises(LedgerCorrupt):
            studio.guard.approvals.show(request)


def test_a_ledger_that_is_away_is_no_alarm(
    studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    storage = studio.guard.ledger.storage

    def away(*given: Any, **named: Any) -> Any:
        raise LedgerUnavailable("the disk is away")

    with studio.guard.open_job("poster", requested_by=KIM) as job:
        graph = build(studio, [paint("red")])
        snapshot, storage.snapshot = storage.snapshot, away  # type: ignore[method-assign]
        state = graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
        storage.snapshot = snapshot  # type: ignore[method-assign]
        assert "unavailable" in results(state)[-1].content
        assert errors(caplog) == []
        assert "the disk is away" in caplog.text  # the developer reads why
        assert studio.guard.ledger.alarm is None
        graph = build(studio, [paint("red")])
        graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="t2"))
        assert studio.world.count("paint") == 1


@pytest.fixture
def alarmed(tmp_path: Path) -> Path:
    studio = open_studio(tmp_path)
    with studio.guard:
        studio.guard.ledger.raise_alarm(LedgerCorrupt("the log lacks node 2/4"))
        studio.guard.ledger.raise_alarm(LedgerCorrupt("the log lacks node 2/4"))
        kept = alarms_of(checkpoints_of(studio.guard.workspace))
    assert [one.what for one in kept.read()] == ["LedgerCorrupt: the log lacks node 2/4"]
    return tmp_path


def test_doctor_shows_alarms_of_other_processes(alarmed: Path) -> None:
    doctor = ["--config", str(alarmed / "agentguard.toml"), "doctor"]
    result = CliRunner().invoke(app, doctor)
    told = " ".join(result.stdout.split())
    assert result.exit_code == 1
    assert "1 tamper alarm," in told
    assert "the log lacks node 2/4" in told
    assert "agentguard audit verify" in told
    for path in alarmed.rglob("*.alarms"):
        path.unlink()
    assert "tamper" not in CliRunner().invoke(app, doctor).stdout
