"""Only the broker's own error under this very claim means that nothing was sent (I8).

A developer's uploader sends, and then raises what the broker would raise. Whatever it raises, the
outcome is unknown, and nothing sends the same a second time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.tools import ToolException, tool

from agentguard.calls.execution import current_execution
from agentguard.errors import AssetError, DestinationError
from agentguard.export.broker import Broker
from tests.support import KIM, Studio, build, call, results, says
from tests.support.bindings import Arg

NODES = {"e": ("publisher", ["upload"])}
OWN = {"e": ("publisher", ["export_asset"])}


class Refusal(DestinationError):
    """A developer's own class of the broker's error."""


def refused(message: str = "nothing was sent") -> DestinationError:
    return DestinationError(message, outcome_unknown=False)


def import_receipt(studio: Studio) -> None:
    receipt = studio.folder / "receipt.pdf"
    receipt.write_bytes(b"%PDF-1.7 thanks")
    studio.guard.import_asset(receipt, by=KIM)  # no media: AssetError


def raise_from(studio: Studio) -> None:
    try:
        raise refused()
    except DestinationError as error:
        raise AssetError("it did not work") from error


def raise_again(studio: Studio) -> None:
    try:
        import_receipt(studio)
    except AssetError:
        raise


def raise_what_the_broker_raised(studio: Studio) -> None:
    """The body asks the real broker for something that it refuses, and passes the error on."""
    studio.guard.broker.send(
        destination="nowhere", key="k", path=str(studio.picture()), sha256="0" * 64,
        extension=".png", texts={},
    )  # fmt: skip


def raise_what_the_executor_raised(studio: Studio) -> None:
    """The same through the guard's own door, under this claim: but the body sent by itself."""
    claim = current_execution.get()
    assert claim is not None
    sha256 = claim.claimed.request.assets[0].sha256
    studio.guard.enforcement.executor.send(claim, path="/nonexistent", sha256=sha256, texts={})


def raise_it(error: Exception) -> Callable[[Studio], None]:
    def act(studio: Studio) -> None:
        raise error

    return act


ACTS = {
    "AssetError": raise_it(AssetError("no media")),
    "DestinationError, nothing sent": raise_it(refused()),
    "DestinationError, unknown": raise_it(DestinationError("gone", outcome_unknown=True)),
    "a subclass": raise_it(Refusal("no", outcome_unknown=False)),
    "ToolException": raise_it(ToolException("no")),
    "import of a receipt": import_receipt,
    "raised again": raise_again,
    "raised from another": raise_from,
    "what the broker raised": raise_what_the_broker_raised,
    "what the executor raised": raise_what_the_executor_raised,
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
@pytest.mark.parametrize("effect", ["opaque", "idempotent", "probeable"])
def test_an_uploader_that_sent_and_raised_is_unknown(
    studio: Studio, act: Callable[[Studio], None], effect: str
) -> None:
    sent: list[str] = []

    @tool
    def upload(source: str, to: str) -> str:
        """Upload a picture."""
        sent.append(to)
        act(studio)
        return "uploaded"

    studio.bind(upload, stage="export", assets=["source"], destination=Arg("to"), effect=effect)
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        again = [says(call("upload", {"source": asset, "to": "team"})) for _ in range(2)]
        state = build(studio, again, NODES).invoke(
            {"messages": [("user", "go")]}, job.config(thread_id="t")
        )
    assert sent == ["team"]
    first, second = results(state)
    assert "whether it took effect is not known" in first.content
    assert second.status == "error"
    assert studio.grants().count("unknown") == 1
    assert "executed" not in studio.grants()


class Flaky:
    """An adapter that does as it is told, once for each parcel."""

    def __init__(self, outcomes: list[Any]) -> None:
        self.outcomes = outcomes
        self.arrived: list[str] = []

    def put(self, parcel: Any) -> str:
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, Exception):
            raise outcome
        self.arrived.append(parcel.name)
        return f"team/{parcel.name}"

    def find(self, key: str, sha256: str) -> str | None:
        return None


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (refused("team is full"), "failed"),
        (DestinationError("the line went dead", outcome_unknown=True), "unknown"),
        (AssetError("the adapter's own"), "unknown"),
        (OSError("gone"), "unknown"),
    ],
)
def test_the_guards_own_export_believes_its_broker(
    studio: Studio, outcome: Exception, state: str
) -> None:
    adapter = Flaky([outcome])
    studio.guard.enforcement.broker = Broker(
        studio.guard.workspace.destinations, make_adapter=lambda place: adapter
    )
    studio.guard.enforcement.executor.broker = studio.guard.broker
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        script = [says(call("export_asset", {"asset": asset, "to": "team"}))]
        build(studio, script, OWN).invoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
        assert studio.grants() == [state]


def test_an_error_of_an_earlier_claim_says_nothing_of_a_later_one(studio: Studio) -> None:
    kept: list[Exception] = []
    broken = refused("team is full")
    adapter = Flaky([broken])
    studio.guard.enforcement.executor.broker = Broker(
        studio.guard.workspace.destinations, make_adapter=lambda place: adapter
    )

    @tool
    def upload(source: str, to: str) -> str:
        """Upload a picture."""
        kept.append(broken)
        raise broken

    studio.bind(upload, stage="export", assets=["source"], destination=Arg("to"), effect="opaque")
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        script = [
            says(call("export_asset", {"asset": asset, "to": "team"})),
            says(call("upload", {"source": asset, "to": "team"})),
        ]
        nodes = {"e": ("publisher", ["export_asset", "upload"])}
        build(studio, script, nodes).invoke(
            {"messages": [("user", "go")]}, job.config(thread_id="t")
        )
        assert kept == [broken]
        assert sorted(studio.grants()) == ["failed", "unknown"]


def test_a_send_after_one_that_arrived_does_not_take_it_back(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice under one claim, by whatever way: what arrived before is not undone by an error."""
    adapter = Flaky([None, refused("the second time")])
    studio.guard.enforcement.executor.broker = Broker(
        studio.guard.workspace.destinations, make_adapter=lambda place: adapter
    )
    execution = studio.guard.enforcement.executor
    send = execution.send

    def twice(claim: Any, **named: Any) -> Any:
        send(claim, **named)
        return send(claim, **named)

    monkeypatch.setattr(execution, "send", twice)
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        script = [says(call("export_asset", {"asset": asset, "to": "team"}))]
        build(studio, script, OWN).invoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
        assert len(adapter.arrived) == 1
        assert studio.grants() == ["unknown"]
