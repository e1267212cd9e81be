"""A job that is handed over, or forked, while a call of its old holder still runs (I8, I9)."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from agentguard.errors import JobError
from agentguard.export.broker import Broker
from agentguard.export.folder import Adapter, adapter_for
from agentguard.jobs.job import Job
from agentguard.model import Destination, JobState
from tests.race.ways_in import graph_of
from tests.support import GO, KIM, Studio, call, open_studio, results, says
from tests.support.bindings import Binding
from tests.support.late_tools import bind_in_a_job

PATIENCE_S = 20


def trim(studio: Studio, hold: Any) -> Any:
    """A tool without an effect outside, which waits inside its body."""

    @tool
    def trim(source: str, file: str = "t.png") -> str:
        """Cut a picture."""
        hold()
        studio.world.effects.append(("trim", source))
        with open(source, "rb") as old, open(file, "wb") as new:
            new.write(old.read())
        return "trimmed"

    bind_in_a_job(studio.guard, Binding(trim, stage="edit", assets=["source"], outputs=["file"]))
    return trim


def test_I9_the_old_holders_outcome_does_not_stand_in_for_the_new_ones(studio: Studio) -> None:
    """Left while a tool ran and a question was open; re-entered elsewhere, where the call runs."""
    inside, go = threading.Event(), threading.Event()
    saver = InMemorySaver()

    def hold() -> None:
        inside.set()
        assert go.wait(PATIENCE_S)

    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        likeness = job.import_asset(studio.picture("l.png", "red"), ["likeness"])
        asking = [says(call("publish", {"source": likeness, "to": "team"}, id="q1"), id="q")]
        asks = graph_of(studio, "protect", studio.tools["publish"], asking)
        assert asks.invoke(GO, job.config(thread_id="q"))["__interrupt__"]
        script = [says(call("trim", {"source": asset}, id="c1"), id="m1")]
        graph = graph_of(studio, "protect", trim(studio, hold), script, agent="editor", saver=saver)
        said: list[Any] = []
        thread = threading.Thread(
            target=lambda: said.extend(results(graph.invoke(GO, job.config(thread_id="t"))))
        )
        thread.start()
        assert inside.wait(PATIENCE_S)
    assert job.state is JobState.WAITING
    assert "failed" in studio.grants()  # no effect outside: whoever comes next may do it again

    other = open_studio(studio.folder, clock=studio.clock, keys=studio.keys)
    with other.guard, other.guard.rejoin_job(job.id, by=KIM) as again:
        graph = graph_of(other, "protect", trim(other, lambda: None), script, agent="editor")
        holding = threading.Event()
        finish = other.guard.ledger.finish

        def late_finish(*args: Any, **kwargs: Any) -> Any:
            go.set()  # the old holder comes back between the new one's claim and outcome
            thread.join(PATIENCE_S)
            holding.set()
            return finish(*args, **kwargs)

        other.guard.ledger.finish = late_finish  # type: ignore[method-assign]
        state = graph.invoke(GO, again.config(thread_id="t"))
        assert holding.is_set()
        assert results(state)[-1].status == "success"
        (late,) = said
        assert late.status == "error"
        assert "could not be recorded" in late.content
        assert not job.renew()
        with pytest.raises(JobError, match="re-entered elsewhere"):
            job.credential(studio.guard.workspace.agents["editor"], "edit")  # type: ignore[arg-type]
        rows = other.guard.ledger.all("SELECT state, claims, epoch FROM grants WHERE claims > 0")
        assert [tuple(row) for row in rows] == [("executed", 2, 2)]
        bodies = other.guard.ledger.all("SELECT body FROM records")
        assert sum('"finished.late"' in row["body"] for row in bodies) == 1
        assert studio.world.count("trim") == other.world.count("trim") == 1
        other.guard.verify()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_I8_a_child_forked_in_the_middle_of_a_renewal_goes_on_and_acts_once(
    studio: Studio,
) -> None:
    """The lease thread holds locks that a child inherits locked; and both run the same call."""
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        effects = studio.folder / "effects"
        effects.mkdir()
        tool_ = trim(studio, lambda: (effects / str(os.getpid())).touch(exist_ok=False))
        script = [says(call("trim", {"source": asset}, id="c1"), id="m1")]
        graph = graph_of(studio, "protect", tool_, script, agent="editor")
        config = job.config(thread_id="t")

        def run() -> str:
            return str(results(graph.invoke(GO, config))[-1].content)

        held, forked = threading.Event(), threading.Event()

        def renewing() -> None:  # another thread: the one that forks would free its own locks
            with job._lock, studio.guard.jobs._lock:
                held.set()
                assert forked.wait(PATIENCE_S)

        thread = threading.Thread(target=renewing)
        thread.start()
        assert held.wait(PATIENCE_S)
        pid = os.fork()
        if pid:
            forked.set()
            thread.join(PATIENCE_S)
        if pid == 0:
            signal.alarm(PATIENCE_S)
            try:
                said = run()
                os._exit(0 if "trimmed" in said else 3)
            except BaseException:
                os._exit(9)
        mine = run()
        theirs = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert theirs in (0, 3), "the child hangs or fails"
        assert "trimmed" in mine or theirs == 0
        assert len(list(effects.iterdir())) == 1
        assert studio.grants() == ["executed"]
        assert isinstance(job, Job)
        assert job.renew()
    studio.guard.verify()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_I8_a_child_forked_while_a_destination_is_opened_can_send(studio: Studio) -> None:
    """A thread of the parent holds the lock of the broker; nobody frees it in the child."""
    inside, go = threading.Event(), threading.Event()
    parent = os.getpid()

    def slow(destination: Destination) -> Adapter:
        if os.getpid() == parent:
            inside.set()
            assert go.wait(PATIENCE_S)
        return adapter_for(destination)

    broker = Broker(studio.guard.workspace.destinations, make_adapter=slow)
    where = {"destination": "team", "key": "0" * 64, "sha256": "0" * 64}
    opening = threading.Thread(target=lambda: broker.find(**where))
    opening.start()
    assert inside.wait(PATIENCE_S)
    pid = os.fork()
    if pid == 0:
        signal.alarm(PATIENCE_S)
        try:
            os._exit(0 if broker.find(**where) is None else 3)
        except BaseException:
            os._exit(9)
    go.set()
    opening.join(PATIENCE_S)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "the child hangs or fails"
