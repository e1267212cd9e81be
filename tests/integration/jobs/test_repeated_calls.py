"""What was begun before is not begun again: by another call, or by a program started again (I8)."""

from __future__ import annotations

import contextvars
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import tool

from agentguard.calls.reconcile import settle
from agentguard.errors import LedgerUnavailable
from tests.support import KIM, Clock, Studio, build, call, open_studio, results, says
from tests.support.bindings import Arg
from tests.support.ledgers import raw

LEASE_S = 30


def publish(studio: Studio, job: Any, thread: str, *, to: str = "team", **more: Any) -> str:
    """A message of its own asks for the one picture to be uploaded; what the model reads of it."""
    asset = job.import_asset(studio.folder / "in.png", ["brand"])
    args = {"source": asset, "to": to, **more}
    graph = build(studio, [says(call("publish", args))])
    state = graph.invoke({"messages": [("user", "go")]}, job.config(thread_id=thread))
    (said,) = results(state)
    return f"{said.status}: {said.text}"


class Killed(BaseException):
    """Stands in for a signal: nothing catches it, and the outcome is not recorded."""


def begin(studio: Studio, monkeypatch: pytest.MonkeyPatch, thread: str = "t") -> Any:
    """An upload that happened and whose outcome nobody recorded; its job is open."""
    job = studio.guard.open_job("poster", requested_by="kim@acme.example")

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(studio.guard.enforcement.executor, "collect", die)
        with pytest.raises(Killed):
            publish(studio, job, thread)
    assert studio.grants() == ["claimed"]
    return job


@pytest.fixture
def place(studio: Studio) -> Studio:
    studio.picture()
    return studio


@pytest.mark.parametrize("thread", ["t", "another"])
def test_I8_what_is_unknown_is_not_done_again_by_a_new_job(
    place: Studio, monkeypatch: pytest.MonkeyPatch, thread: str
) -> None:
    begin(place, monkeypatch)
    place.clock.turn(seconds=LEASE_S)
    with place.guard.open_job("again", requested_by="kim@acme.example") as job:
        assert "its outcome is not known" in publish(place, job, thread)
    assert place.world.count("publish") == 1


@pytest.mark.parametrize("happened", [True, False])
def test_I8_once_it_is_known_whoever_wants_it_may_ask_in_a_new_thread(
    place: Studio, monkeypatch: pytest.MonkeyPatch, happened: bool
) -> None:
    begin(place, monkeypatch)
    place.clock.turn(seconds=LEASE_S)
    place.guard.ledger.sweep()
    ((request, _),) = place.guard.reconcile()
    settle(place.guard.ledger, request, happened=happened, by="omar@acme.example")
    with place.guard.open_job("again", requested_by="kim@acme.example") as job:
        same = publish(place, job, "t")
        if happened:  # its thread never knew; nobody asked for a second one
            assert "it is done" in same
            assert place.world.count("publish") == 1
            same = publish(place, job, "new")
        assert same.startswith("success")
    assert place.world.count("publish") == 2


def test_I8_a_thread_that_starts_again_before_its_lease_lapsed_does_not_repeat_what_is_begun(
    place: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(place, monkeypatch)
    with place.guard.open_job("again", requested_by="kim@acme.example") as job:
        assert "was begun and has not ended" in publish(place, job, "t")
    assert place.world.count("publish") == 1


def test_another_place_or_other_media_are_not_the_same(
    place: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(place, monkeypatch)
    place.clock.turn(seconds=LEASE_S)
    with place.guard.open_job("again", requested_by="kim@acme.example") as job:
        place.picture(colour="red")
        assert publish(place, job, "t").startswith("success")
    assert place.world.count("publish") == 2


def test_a_job_that_was_left_does_not_stand_in_the_way_of_the_next(place: Studio) -> None:
    for count in (1, 2):
        with place.guard.open_job("poster", requested_by="kim@acme.example") as job:
            assert publish(place, job, "t").startswith("success")
        assert place.world.count("publish") == count


LAPSED = "its process died: the lease lapsed"


def test_reason_in_a_person_s_words_does_not_stand_for_a_lapsed_lease(place: Studio) -> None:
    ledger = place.guard.ledger
    stopped = place.guard.open_job("poster", requested_by=KIM)
    assert publish(place, stopped, "t").startswith("success")
    ledger.end_job(stopped.id, reason=LAPSED)
    with place.guard.open_job("again", requested_by=KIM) as job:
        assert publish(place, job, "t").startswith("success")
    lapsed = place.guard.open_job("once more", requested_by=KIM)
    assert publish(place, lapsed, "t").startswith("success")
    place.clock.turn(seconds=LEASE_S)
    ledger.sweep()
    with place.guard.open_job("too much", requested_by=KIM) as job:
        assert "it is done" in publish(place, job, "t")
    ends = {(row["reason"], row["ended_by"]) for row in ledger.all("SELECT * FROM jobs")}
    assert ends == {(LAPSED, "stopped"), (LAPSED, "lapsed"), ("left", "left")}
    assert place.world.count("publish") == 3


@pytest.mark.parametrize(("reason", "repeats"), [(LAPSED, False), ("left", True)])
def test_I8_job_of_a_schema_before_9_died_if_its_reason_says_so(
    place: Studio, reason: str, repeats: bool
) -> None:
    before = place.guard.open_job("poster", requested_by=KIM)
    assert publish(place, before, "t").startswith("success")
    place.guard.ledger.end_job(before.id, reason=reason)
    with raw(place.folder / ".agentguard" / "ledger.db") as shell:
        ((trigger,),) = shell.execute("SELECT sql FROM sqlite_master WHERE name='jobs_transition'")
        shell.execute("DROP TRIGGER jobs_transition")
        shell.execute("UPDATE jobs SET ended_by = NULL")
        shell.execute(trigger)
    with place.guard.open_job("again", requested_by=KIM) as job:
        assert publish(place, job, "t").startswith("success") is repeats


def test_jobs_without_a_thread_id_are_no_earlier_runs_of_each_other(place: Studio) -> None:
    """Two jobs at once, each in a graph without a checkpointer: neither is the other's past."""

    def begin() -> tuple[Any, str]:
        job = place.guard.open_job("poster", requested_by="kim@acme.example")
        asset = job.import_asset(place.folder / "in.png", ["brand"])
        script = [says(call("publish", {"source": asset, "to": "team"}))]
        graph = build(place, script, checkpointer=False)
        state = graph.invoke({"messages": [("user", "go")]}, job.config(thread_id=""))
        return job, results(state)[-1].status

    begun = [contextvars.copy_context().run(begin) for _ in range(2)]  # neither has ended
    assert [status for _, status in begun] == ["success", "success"]
    assert place.world.count("publish") == 2


def test_I8_a_question_that_waits_is_closed_by_what_became_unknown_meanwhile(
    place: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An approval, too, does not repeat what may have happened; once it is known it holds."""
    with place.guard.open_job("again", requested_by="kim@acme.example") as job:
        picture = place.picture("face.png", "red")
        asset = job.import_asset(picture, ["likeness"])
        graph = build(place, [says(call("publish", {"source": asset, "to": "team"}))])
        config = job.config(thread_id="asked")
        assert "__interrupt__" in graph.invoke({"messages": [("user", "go")]}, config)
        place.answer(place.pending().request, "omar@acme.example")
        row = place.guard.ledger.one("SELECT * FROM requests")
        assert row is not None
        monkeypatch.setattr(
            "agentguard.calls.assess.begun_before", lambda *_, **__: "it is unknown"
        )
        state = graph.invoke(None, config)
        assert results(state)[0].text == "refused: it is unknown"
    assert place.world.count("publish") == 0
    assert place.grants() == []


def test_I8_nor_by_another_call_of_its_job_and_a_text_is_known_by_its_words(
    tmp_path: Path,
) -> None:
    sent: list[str] = []

    @tool
    def post(text: str, to: str) -> str:
        """Post a text."""
        sent.append(text)
        raise KeyboardInterrupt  # stopped after it was sent

    studio = open_studio(tmp_path, clock=Clock())
    try:
        studio.bind(post, stage="export", texts=["text"], destination=Arg("to"), effect="opaque")

        job = studio.guard.open_job("post", requested_by="kim@acme.example")

        def say(text: str) -> Any:
            nodes = {"export_tools": ("publisher", ["post"])}
            graph = build(studio, [says(call("post", {"text": text, "to": "team"}))], nodes)
            return graph.invoke(
                {"messages": [("user", "go")]}, job.config(thread_id=str(len(sent)) + text)
            )

        with pytest.raises(KeyboardInterrupt):
            say("good morning")
        assert studio.grants() == ["unknown"]
        assert "its outcome is not known" in results(say("good morning"))[0].text
        assert sent == ["good morning"]
        with pytest.raises(KeyboardInterrupt):
            say("good evening")
        assert sent == ["good morning", "good evening"]
    finally:
        studio.guard.close()


def test_I8_what_this_job_is_at_is_not_begun_again_while_its_outcome_is_owed(
    place: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place.guard.open_job("poster", requested_by="kim@acme.example") as job:

        def away(*_: object, **__: object) -> bool:
            raise LedgerUnavailable("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(place.guard.ledger, "finish", away)
            assert "could not be recorded" in publish(place, job, "t")
            assert "was begun and has not ended" in publish(place, job, "t")
        assert place.world.count("publish") == 1
        job.settle()
    assert place.grants() == ["executed"]


@pytest.mark.unsound_wakes("the model itself gives five calls one id")
def test_I8_a_vendor_gets_one_request_per_grant(studio: Studio) -> None:
    @tool
    def paint_far(prompt: str, file: str = "x.png") -> str:
        """Paint at a vendor's."""
        studio.world.effects.append(("vendor", prompt))
        raise RuntimeError("bad answer")

    studio.bind(
        paint_far,
        stage="generate",
        texts=["prompt"],
        outputs=["file"],
        destination="images",
    )
    one = call("paint_far", {"prompt": "a tree"}, id="c1")
    with studio.guard.open_job("p", requested_by=KIM) as job:
        graph = build(studio, [says(*[one] * 5)], {"t": ("painter", ["paint_far"])})
        config = {**job.config(thread_id="t"), "max_concurrency": 1}
        graph.invoke({"messages": [("user", "go")]}, config)
        for old in list(graph.get_state_history(config)):
            if old.next:
                graph.invoke(None, old.config)
    assert studio.world.count("vendor") == 1
