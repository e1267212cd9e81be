"""How often an asked call is assessed, and how often the ledger is read for it."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.types import Command

from agentguard.calls.assess import Assessor
from agentguard.ledger.ledger import Ledger, _Snapshot
from tests.race.ways_in import graph_of
from tests.support import Studio, call, results, says

ASSESSED = 2  # authorized and claimed: asking only reads how the call stands
READS = 20


def counted(patch: pytest.MonkeyPatch, owner: Any, name: str, counts: list[str]) -> None:
    real = getattr(owner, name)

    def counting(self: Any, *given: Any, **named: Any) -> Any:
        counts.append(name)
        return real(self, *given, **named)

    patch.setattr(owner, name, counting)


def test_an_asked_call_is_assessed_and_read_no_more_than_that(studio: Studio) -> None:
    assessed: list[str] = []
    reads: list[str] = []

    def run(graph: Any, given: Any, config: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            counted(patch, Assessor, "assess", assessed)
            for name in ("one", "all"):
                counted(patch, Ledger, name, reads)
                counted(patch, _Snapshot, name, reads)
            return graph.invoke(given, config)

    with studio.guard.open_job("poster", requested_by="kim@acme.example") as job:
        asset = job.import_asset(studio.picture(), ["likeness"])
        script = [says(call("publish", {"source": asset, "to": "team"}, id="c1"), id="m1")]
        graph = graph_of(studio, "protect", studio.tools["publish"], script)
        config = job.config(thread_id="t")
        run(graph, {"messages": [("user", "go")]}, config)
        studio.answer(studio.pending().request, "omar@acme.example")
        state = run(graph, Command(resume=True), config)
        assert results(state)[-1].status == "success"
    assert len(assessed) == ASSESSED
    assert len(reads) == READS
