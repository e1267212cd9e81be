"""What `agentguard reconcile` says of calls whose outcome nobody knows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentguard.errors import DestinationError
from agentguard.export.folder import Folder
from tests.support import KIM, OMAR, Studio, build, call, results, says
from tests.support.command_line import Shell, studio_in

NONE = "No call has an unknown outcome.\n"
Put = Callable[[Folder, Any], str]
put: Put = Folder.put


@pytest.fixture
def studio(shell: Shell) -> Iterator[Studio]:
    with studio_in(shell.folder) as studio:
        yield studio


def export(studio: Studio, *pictures: str, tool: str = "export_asset") -> str:
    """Export pictures of these colours to the team, in a job of their own; returns its id."""
    argument = "source" if tool == "publish" else "asset"
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        assets = [job.import_asset(studio.picture(f"{p}.png", p), ["brand"]) for p in pictures]
        script = [says(call(tool, {argument: asset, "to": "team"})) for asset in assets]
        state = build(studio, script).invoke(
            {"messages": [("user", "go")]}, job.config(thread_id="t")
        )
    assert len(results(state)) == len(pictures)
    return job.id


def lost(send: bool) -> Put:
    """Breaks the connection after the bytes arrived, or before."""

    def breaks(self: Folder, parcel: Any) -> str:
        if send:
            put(self, parcel)
        raise DestinationError("the line broke", outcome_unknown=True)

    return breaks


def test_I8_a_call_whose_lease_has_not_lapsed_is_said_to_be_claimed(
    shell: Shell, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that died a moment ago looks like this: its call is neither done nor unknown."""
    said: list[Any] = []

    def slowly(self: Folder, parcel: Any) -> str:
        said.extend([shell("reconcile"), shell.json("reconcile")])
        return put(self, parcel)

    monkeypatch.setattr(Folder, "put", slowly)
    job = export(studio, "navy")
    text, (data,) = said
    found = re.fullmatch(
        rf"1 call is still claimed by {job}, whose lease lapses in (\d+) s; if its process is dead,"
        r" run this again then\.\n",
        text,
    )
    assert found is not None, text
    assert 1 <= int(found[1]) <= 30
    assert data["request"] == studio.guard.ledger.all("SELECT digest FROM requests")[0]["digest"]
    assert data["found"].startswith(f"still claimed by {job}, whose lease lapses in ")
    assert shell("reconcile") == NONE


def test_a_claimed_call_without_an_effect_outside_is_nothing_to_find_out(
    shell: Shell, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []

    class Listening(list[tuple[str, str]]):
        def append(self, item: tuple[str, str]) -> None:
            said.append((item[0], shell("reconcile")))
            super().append(item)

    studio.world.effects = Listening()
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        crop = says(call("crop", {"source": asset, "width": 8, "height": 8}))
        build(studio, [crop]).invoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
    assert said == [("crop", NONE)]


@pytest.mark.parametrize(
    ("sent", "means"),
    [(True, "it happened (executed)"), (False, "it did not happen (failed)")],
)
def test_what_is_found_out_is_said_in_words(
    shell: Shell, studio: Studio, monkeypatch: pytest.MonkeyPatch, sent: bool, means: str
) -> None:
    monkeypatch.setattr(Folder, "put", lost(sent))
    job = export(studio, "navy")
    forget_lease(studio, job)
    _, text = shell("reconcile").split("  ", 1)
    assert text == f"export_asset to team: {means}\n"
    assert shell("reconcile") == NONE


def test_what_stays_unknown_is_counted_and_can_be_settled_by_either_line(
    shell: Shell, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Losing(list[tuple[str, str]]):
        def append(self, item: tuple[str, str]) -> None:
            raise TimeoutError("the line broke")

    studio.world.effects = Losing()
    export(studio, "red", "green", tool="publish")
    lines = shell("reconcile").splitlines()
    assert lines[-1] == "2 of 2 stay unknown."
    name = lines[0].split()[0]
    assert lines[0].startswith(f"{name}  publish to team stays unknown: ")
    assert lines[1:3] == [
        f"  if it happened:  agentguard reconcile {name} --happened --by PERSON",
        f"  if it did not:   agentguard reconcile {name} --did-not --by PERSON",
    ]
    said = shell(*lines[1].split()[4:-1], OMAR)
    assert said == f"{name}  publish to team: it happened (executed), as {OMAR} says\n"
    lines = shell("reconcile").splitlines()
    assert lines[-1] == "1 of 1 stays unknown."
    said = shell(*lines[2].split()[5:-1], OMAR)
    assert said.endswith(f"publish to team: it did not happen (failed), as {OMAR} says\n")
    assert shell("reconcile") == NONE
    assert sorted(studio.grants()) == ["executed", "failed"]


def forget_lease(studio: Studio, job: str) -> None:
    """Let the lease of a job lapse; leases are no part of the log."""
    studio.guard.ledger.storage.submit(
        lambda tx: tx.lease(job, epoch=1, until=tx.now - 1), durable=False
    ).result()
