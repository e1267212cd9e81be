"""Runs that race with each other, through every way in: one effect, and everybody is told (I8)."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from langgraph.types import Command

from agentguard.model import Verdict
from tests.race.ways_in import MODES, WAYS, all_at_once, graph_of, make_send, once
from tests.support import GO, KIM, OMAR, Studio, call, results, says

RUNS = 5
REFUSALS = (
    "was started before and its outcome is not known yet",
    "its grant is claimed",
    "its grant is executed",
    "it is approved; resume the call where it waits",
)


class Rig:
    """A job with a tool, and what is asked of it at once."""

    def __init__(self, studio: Studio, job: Any, way: str, mode: str) -> None:
        self.studio, self.job, self.way, self.mode = studio, job, way, mode
        self.tool = make_send(studio)
        self.plain = job.import_asset(studio.picture("a.png", "navy"), ["brand"])
        self.likeness = job.import_asset(studio.picture("b.png", "red"), ["likeness"])
        self.config = job.config(thread_id="t")

    def graph(self, asset: str, **kwargs: Any) -> Any:
        script = [says(call("send", {"source": asset, "to": "team"}, id="c1"), id="m1")]
        return graph_of(self.studio, self.way, self.tool, script, **kwargs)

    def paused(self) -> Any:
        """A graph that waits for a person, who has said yes meanwhile."""
        graph = self.graph(self.likeness)
        assert once(self.mode, graph, GO, self.config)["__interrupt__"]
        self.studio.answer(self.studio.pending().request, OMAR)
        return graph

    def stopped(self) -> tuple[Any, Any]:
        """A graph that stopped where its tools come next, and the config of that checkpoint."""
        graph = self.graph(self.plain, stop_before=True)
        once(self.mode, graph, GO, self.config)
        state = graph.get_state(self.config)
        assert state.next == ("tools",)
        return graph, self.job.config(state.config)

    def require(self, states: list[Any], *, effects: int = 1) -> None:
        """So many effects, as many Grants claimed once each; success or a refusal for each run."""
        assert self.studio.world.count("send") == effects
        rows = self.studio.guard.ledger.all("SELECT state, claims FROM grants")
        claimed = [(row["state"], row["claims"]) for row in rows if row["claims"]]
        assert claimed == [("executed", 1)] * effects
        said = []
        for state in states:
            assert not isinstance(state, Exception), state
            for message in results(state):
                said.append(message.status)
                if message.status == "success":
                    assert message.content == "sent to team"
                else:
                    assert any(text in message.content for text in REFUSALS), message.content
        assert "success" in said
        self.studio.guard.verify()


def every(ways: Sequence[str]) -> Any:
    """A fixture of a Rig for each of these ways in, sync and async."""

    def rig(request: pytest.FixtureRequest, studio: Studio) -> Iterator[Rig]:
        way, mode = request.param
        with studio.guard.open_job("poster", requested_by=KIM) as job:
            yield Rig(studio, job, way, mode)

    return pytest.fixture(params=[(way, mode) for way in ways for mode in MODES], ids="-".join)(rig)


rig = every(WAYS)


def test_trap_4_concurrent_runs_that_go_on_from_one_pause_act_once(rig: Rig) -> None:
    graph = rig.paused()
    states = all_at_once(rig.mode, [(graph, None, rig.config)] * RUNS)
    rig.require(states)
    again = once(rig.mode, graph, None, rig.config)
    rig.require([*states, again])


def test_trap_4_concurrent_deliveries_of_one_resume_act_once(rig: Rig) -> None:
    graph = rig.paused()
    resume: Command[Any] = Command(resume={"decisions": [{"type": "approve"}]})
    states = all_at_once(rig.mode, [(graph, resume, rig.config)] * RUNS)
    rig.require(states)
    # Delivered once more, long after: there is nothing left to wake.
    once(rig.mode, graph, resume, rig.config)
    assert rig.studio.world.count("send") == 1


def test_a_resume_that_arrives_before_and_beside_the_answer_acts_once(rig: Rig) -> None:
    graph = rig.graph(rig.likeness)
    once(rig.mode, graph, GO, rig.config)
    resume: Command[Any] = Command(resume="go on")
    early = all_at_once(rig.mode, [(graph, resume, rig.config)] * RUNS)
    assert rig.studio.world.count("send") == 0
    assert not [state for state in early if isinstance(state, Exception)], early
    rig.studio.answer(rig.studio.pending().request, OMAR)
    rig.require(all_at_once(rig.mode, [(graph, resume, rig.config)] * RUNS))


def test_concurrent_resumes_after_a_no_do_nothing(rig: Rig) -> None:
    graph = rig.graph(rig.likeness)
    once(rig.mode, graph, GO, rig.config)
    rig.studio.answer(rig.studio.pending().request, OMAR, Verdict.DENY)
    states = all_at_once(rig.mode, [(graph, None, rig.config)] * RUNS)
    assert [results(state)[-1].status for state in states] == ["error"] * RUNS
    assert rig.studio.world.count("send") == 0
    assert rig.studio.grants() == []
    rig.studio.guard.verify()


def test_trap_4_concurrent_runs_from_one_old_checkpoint_act_once(rig: Rig) -> None:
    graph, checkpoint = rig.stopped()
    states = all_at_once(rig.mode, [(graph, None, checkpoint)] * RUNS)
    rig.require(states)
    # And once it has run, five more find its outcome.
    again = all_at_once(rig.mode, [(graph, None, checkpoint)] * RUNS)
    rig.require(again)
    assert {results(state)[-1].status for state in again} == {"success"}


def test_two_graphs_that_share_a_ledger_run_one_message_once(rig: Rig) -> None:
    """The same message of the same thread, from two checkpointers: a server that was copied."""
    graphs = [rig.graph(rig.plain) for _ in range(RUNS)]
    states = all_at_once(rig.mode, [(graph, GO, rig.config) for graph in graphs])
    rig.require(states)


def test_one_message_invoked_at_once_on_one_thread_acts_once(rig: Rig) -> None:
    graph = rig.graph(rig.plain)
    rig.require(all_at_once(rig.mode, [(graph, GO, rig.config)] * RUNS))


def test_the_same_words_on_two_threads_are_two_calls(rig: Rig) -> None:
    """A call belongs to its thread: each thread's call runs, and each runs once."""
    graph = rig.graph(rig.plain)
    configs = [rig.job.config(thread_id=thread) for thread in ("one", "two")]
    runs = [(graph, GO, config) for config in configs]
    rig.require(all_at_once(rig.mode, runs), effects=2)


@pytest.mark.parametrize("mode", MODES)
def test_two_threads_that_export_the_same_bytes_leave_one_file(studio: Studio, mode: str) -> None:
    """The guard's own export says one idempotency key for both: one file, one slip."""
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        tool = studio.guard.export_tool()
        script = [says(call("export_asset", {"asset": asset, "to": "team"}, id="c1"), id="m1")]
        graph = graph_of(studio, "protect", tool, script)
        runs = [(graph, GO, job.config(thread_id=f"t{n}")) for n in range(RUNS)]
        states = all_at_once(mode, runs)
        assert [results(state)[-1].status for state in states] == ["success"] * RUNS
    folder = studio.folder / "out" / "team"
    assert len(studio.exported("team")) == 1
    assert len(list(folder.iterdir())) == 2  # the picture and its slip
    assert studio.grants() == ["executed"] * RUNS
    (keys,) = studio.guard.ledger.all("SELECT count(DISTINCT idempotency_key) AS n FROM grants")
    assert keys["n"] == 1
    studio.guard.verify()


def test_run_that_comes_second_to_a_claim_is_told_what_came_of_the_first(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run acts after this one looked, and before it takes the Grant's one use."""
    graph, config = rig.stopped()
    claims = rig.studio.guard.enforcement.claims
    prepare = claims._prepared
    first: list[Any] = []

    def second(*given: Any) -> Any:
        if not first:
            first.append(None)
            first[0] = threading.Thread(target=lambda: once(rig.mode, graph, None, config))
            first[0].start()
            first[0].join()
        return prepare(*given)

    monkeypatch.setattr(claims, "_prepared", second)
    state = once(rig.mode, graph, None, config)
    assert [message.content for message in results(state)] == ["sent to team"]
    rig.require([state])
