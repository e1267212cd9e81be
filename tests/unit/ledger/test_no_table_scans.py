"""L4: what people wait for reads what it is about, however long the history is.

The statements are those that a whole story really sends: a new one is looked at without anybody
entering it in a list.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from agentguard.ledger.ledger import Outcome
from agentguard.model import GrantState, OutsideEffect, Stage, Verdict
from bench.calls import caller
from bench.history import fill
from tests.support import Clock, Studio, build, call, open_studio, results, says
from tests.support.command_line import Shell
from tests.support.ledgers import Place
from tests.support.traced_statements import Trace, scans, traced

KIM, OMAR = "kim@acme.example", "omar@acme.example"
DAY = 86_400


def story(shell: Shell, place: Place, old: int, monkeypatch: pytest.MonkeyPatch) -> Trace:
    """A day of a workspace with so many old calls: all but `audit verify` and `audit export`."""
    monkeypatch.setenv("AGENTGUARD_LEDGER", place.url)
    clock = Clock(now=time.time_ns() // 1_000_000)
    studio = open_studio(shell.folder, clock=clock)
    studio.guard.close()
    fill(place.url, old, until=clock.now)
    with traced(monkeypatch) as trace:
        studio = open_studio(shell.folder, clock=clock, keys=studio.keys)
        try:
            asset, job, request = _work(studio)
            unknown = _wait(studio, job)
            clock.turn(seconds=4 * DAY)  # every review window closes, every job lapses
            studio.guard.ledger.sweep()
            studio.guard.reconcile()
            sha256 = _sha256(studio, asset)
            studio.guard.ledger.mark_asset(sha256, column="recalled", value=True, by=OMAR)
        finally:
            studio.guard.close()
        _look(shell, job=job, asset=asset, request=request, unknown=unknown)
    return trace


def _work(studio: Studio) -> tuple[str, str, str]:
    """A job that imports, makes, asks, is answered, exports, and is left waiting."""
    guard = studio.guard
    with guard.open_job("spring", requested_by=KIM) as job:
        picture = studio.picture()
        asset = job.import_asset(picture, ["brand"])
        job.import_asset(picture, ["brand"])  # known bytes
        guard.enforcement.importer.take_in(
            picture.read_bytes(), ["brand"], by=KIM, job=job.id, name="a picture"
        )
        script = [
            says(call("paint", {"prompt": "a calm sea", "colour": "navy"})),
            says(call("crop", {"source": asset, "width": 8, "height": 8})),
            says(call("look", {"source": asset})),
            says(call("list_assets", {})),
            says(call("publish", {"source": asset, "to": "team"})),
            says(call("queue_for_release", {"asset": asset, "to": "site"})),
            says(call("export_asset", {"asset": asset, "to": "team"})),
            says(call("export_asset", {"asset": asset, "to": "site"})),
        ]
        nodes = {
            "paint_tools": ("painter", ["paint"]),
            "edit_tools": ("editor", ["crop"]),
            "review_tools": ("reviewer", ["look"]),
            "queue_tools": ("traffic", ["queue_for_release", "list_assets"]),
            "export_tools": ("publisher", ["publish", "export_asset"]),
        }
        graph, config = build(studio, script, nodes), job.config(thread_id="t")
        graph.invoke({"messages": [("user", "go")]}, config)
        studio.answer(studio.pending().request, OMAR, group="legal")
        state = graph.invoke(None, config)
        assert [m.status for m in results(state)] == ["success"] * len(script), results(state)
        calls = caller(guard, job)
        review = calls.judged("a review that found something")
        calls.decide(review)
        calls.claim(review)
        found = {_sha256(studio, asset): [{"severity": "high", "message": "blurred"}]}
        outcome = Outcome(state=GrantState.EXECUTED, text="reviewed", findings=found)
        guard.ledger.finish(review.request, outcome, credential=calls.credential)
        other = job.import_asset(studio.picture("other.png", "red"), ["brand"])
        for caption, media in (("waits", asset), ("denied", other)):
            arguments = {"asset": media, "to": "site", "caption": caption}
            again = build(studio, [says(call("export_asset", arguments))])
            config = job.config(thread_id=caption)
            again.invoke({"messages": [("user", "go")]}, config)
        for asked in guard.approvals.list():
            guard.approvals.eligible(asked)
            if asked.arguments["caption"] == "denied":
                studio.answer(asked.request, OMAR, Verdict.DENY)
                again.invoke(None, config)
            else:
                waits = asked.request
        job.import_asset(picture, ["customer-data"])  # known bytes whose class rises
        for value in (True, False):
            guard.ledger.mark_asset(_sha256(studio, asset), column="held", value=value, by=OMAR)
        guard.jobs.renew()
        credential = job.credential(guard.workspace.agents["painter"], Stage.GENERATE)
        guard.ledger.revoke_credential(credential.id, reason="test")
    return asset, job.id, waits


def _wait(studio: Studio, waiting: str) -> str:
    """Enter the job again, and leave a call behind that nobody knows the outcome of."""
    guard = studio.guard
    with guard.rejoin_job(waiting, by=KIM) as job:
        calls = caller(guard, job, OutsideEffect.OPAQUE)
        unknown, failed = calls.judged("unknown"), calls.judged("failed")
        for item in (unknown, failed):
            calls.decide(item)
            calls.claim(item)
            assert job.has_claimed(item.request)
        job.owe(failed.request, Outcome(state=GrantState.FAILED, text="no"),
                credential=calls.credential)  # fmt: skip
        guard.ledger.is_live(calls.credential)
        guard.ledger.unclaim(failed.request, epoch=job.epoch + 1)
    other = guard.open_job("that its process loses", requested_by=KIM)
    guard.jobs.drop(other)
    guard.ledger.refuse({"reason": "test"})
    return unknown.request.digest


COMMANDS = (
    "jobs list -n 5", "jobs show {job:.16}", "jobs end {job} --reason over",
    "assets list -n 5", "assets list --job {job}", "assets show {asset:.16}",
    "assets lineage {asset}", "assets hold {asset} --by {omar}",
    "assets import in.png --class brand --by {omar}",
    "approvals list", "approvals list --all -n 5", "approvals show {request:.16}",
    "explain {request:.16}", "audit tail", "audit prove 3", "sweep", "reconcile",
    "reconcile {unknown:.16} --did-not --by {omar}", "doctor",
)  # fmt: skip
"""Every command that reads the ledger, but those that read all of it."""


def _look(shell: Shell, **names: str) -> None:
    for command in COMMANDS:
        words = command.format(**names, omar=OMAR).split()
        shell(*words, code={"explain": 3}.get(words[0], 0))


def _sha256(studio: Studio, asset: str) -> str:
    row = studio.guard.ledger.one("SELECT sha256 FROM assets WHERE id = ?", asset)
    assert row is not None
    return str(row["sha256"])


def test_no_statement_of_a_whole_story_reads_a_whole_table(
    shell: Shell, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = story(shell, place, 4_000, monkeypatch)
    assert len(trace.statements) > 60
    found = scans(place, trace)
    assert not found, "\n".join(found)


def test_no_statement_of_a_whole_story_takes_longer_over_a_long_history(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in steps of SQLite's machine, not in seconds."""
    traces = []
    for number, old in enumerate((200, 4_000)):
        place = Place(url=f"sqlite:{tmp_path / f'{number}.db'}", folder=tmp_path)
        traces.append(story(shell, place, old, monkeypatch))
    short, long = (trace.steps for trace in traces)
    grown = {sql: (short[sql], long[sql]) for sql in long if long[sql] > 2 * short[sql] + 300}
    assert not grown, "\n".join(f"{steps}: {sql}" for sql, steps in grown.items())
