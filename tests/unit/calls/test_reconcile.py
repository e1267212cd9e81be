"""recovery.py: what became of an effect whose outcome nobody recorded (I8)."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentguard.calls import reconcile as recovery
from agentguard.calls.reconcile import settle
from agentguard.errors import DestinationError, JobError
from agentguard.export.broker import Broker
from agentguard.export.folder import Adapter, Folder
from agentguard.ledger import verify as audit
from agentguard.ledger.ledger import Ledger
from agentguard.model import (
    Audience,
    Destination,
    Environment,
    GrantState,
    OutsideEffect,
    Request,
    Stage,
)
from tests.support import Clock as WorldClock
from tests.support import Studio, open_studio, write_workspace
from tests.support.ledgers import (
    LEASE,
    T0,
    Bench,
    Clock,
    Place,
    kinds,
    records,
)

ROOT = Path(__file__).parents[3]
PICTURES = (b"a picture", b"another picture")
IDEMPOTENT = OutsideEffect.IDEMPOTENT


def reconcile(*given: Any) -> list[tuple[str, str]]:
    """What is found out about each call, in words."""
    return [(one.request, one.sentence) for one in recovery.reconcile(*given)]


@pytest.fixture
def bench(ledger: Ledger) -> Bench:
    return Bench(ledger, agent="publisher", stage=Stage.EXPORT)


def site(folder: Path) -> Destination:
    return Destination(
        id="site",
        url=f"file:{folder}/out",
        audience=Audience.PUBLIC,
        environment=Environment.PRODUCTION,
        ceiling=frozenset(),
    )


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    return Broker({"site": site(tmp_path)})


def arrived(folder: Path) -> list[str]:
    out = folder / "out"
    return sorted(p.name for p in out.glob("*.png"))


def export(
    bench: Bench,
    *,
    count: int = 1,
    tool: str = "export_asset",
    outside: OutsideEffect = IDEMPOTENT,
    destination: str | None = "site",
) -> Request:
    """A claimed export whose outcome nobody recorded."""
    digests = tuple(hashlib.sha256(data).hexdigest() for data in PICTURES[:count])
    asked = bench.permit(assets=digests, tool=tool, outside=outside, destination=destination)
    assert bench.claim(asked) is None
    return asked


def send(broker: Broker, asked: Request, folder: Path, number: int = 0) -> None:
    copy = folder / "copy.png"
    copy.write_bytes(PICTURES[number])
    broker.send(destination="site", key=asked.content_digest, path=str(copy),
                sha256=asked.assets[number].sha256, extension=".png", texts={})  # fmt: skip


def crash(bench: Bench, clock: Clock) -> None:
    clock.now += LEASE


# --- crashes, with the real guard and a real folder -------------------------------------------

CHILD = """
import os, signal, sys
from pathlib import Path
from typing import Any
from agentguard.export.folder import Folder
from tests.support import build, call, open_studio, says

studio = open_studio(Path(sys.argv[1]), keys={})
put = Folder.put

def dying(self, parcel):
    if sys.argv[2] == "after":
        put(self, parcel)
    if sys.argv[2] == "midway":
        link = os.link
        os.link = lambda source, name: (
            os.kill(os.getpid(), signal.SIGKILL) if name.endswith(".png") else link(source, name)
        )
        put(self, parcel)
    os.kill(os.getpid(), signal.SIGKILL)

Folder.put = dying
with studio.guard.open_job("poster", requested_by="kim@acme.example") as job:
    asset = job.import_asset(studio.picture(), ["brand"])
    graph = build(studio, [says(call("export_asset", {"asset": asset, "to": "team"}))])
    graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
print("not killed", studio.grants())
"""


@pytest.mark.parametrize(
    ("point", "found", "files"), [("before", "failed", 0), ("midway", "failed", 0),
                                  ("after", "executed", 1)],
)  # fmt: skip
def test_I8_a_crash_while_sending_ends_in_what_really_happened(
    tmp_path: Path, point: str, found: str, files: int
) -> None:
    keys = write_workspace(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), point],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr

    def world(seconds: int) -> Studio:
        return open_studio(tmp_path, clock=WorldClock(T0 + seconds * 1000), keys=keys)

    def media(studio: Studio) -> list[str]:
        return [p.name for p in studio.exported("team") if p.suffix == ".png"]

    studio = world(LEASE // 1000 - 1)
    try:  # the process may still be alive: nobody touches its claim
        assert studio.guard.reconcile() == []
        assert studio.grants() == ["claimed"]
    finally:
        studio.guard.close()
    studio = world(LEASE // 1000)
    try:
        assert studio.grants() == ["unknown"]
        ((_, said),) = studio.guard.reconcile()
        assert said == found
        assert studio.grants() == [found]
        assert len(media(studio)) == files
        assert studio.guard.reconcile() == []
        assert len(studio.guard.ledger.all("SELECT * FROM receipts")) == files
        ledger = studio.guard.ledger
        (beside,) = (tmp_path / ".agentguard").glob("*.checkpoints")
        assert beside.exists()
        assert kinds(ledger)[-1] == "reconciled"
    finally:
        studio.guard.close()


# --- what a destination says ------------------------------------------------------------------


def test_I8_what_arrived_was_executed_with_its_receipt(
    bench: Bench, clock: Clock, broker: Broker, tmp_path: Path, place: Place
) -> None:
    asked = export(bench)
    send(broker, asked, tmp_path)
    crash(bench, clock)
    assert reconcile(bench.ledger, broker) == [(asked.digest, "executed")]
    assert bench.state(asked) == "executed"
    (receipt,) = bench.ledger.all("SELECT * FROM receipts")
    assert receipt["sha256"] == asked.assets[0].sha256
    assert len(arrived(tmp_path)) == 1
    assert reconcile(bench.ledger, broker) == []
    audit.verify(bench.ledger.storage, place.checkpoints)


def test_I8_what_is_not_there_after_the_job_failed(
    bench: Bench, clock: Clock, broker: Broker, tmp_path: Path
) -> None:
    asked = export(bench)
    crash(bench, clock)
    assert reconcile(bench.ledger, broker) == [(asked.digest, "failed")]
    assert bench.claim(asked) is not None  # never a second try under the same grant
    assert arrived(tmp_path) == []


def test_I8_a_claim_of_a_live_job_is_nobodys_orphan(
    bench: Bench, clock: Clock, broker: Broker
) -> None:
    running = export(bench)
    clock.now += LEASE - 1
    assert bench.ledger.renew_lease(bench.job, epoch=1, lease=LEASE)
    clock.now += LEASE - 1
    assert reconcile(bench.ledger, broker) == []
    bench.ledger.sweep()
    assert bench.state(running) == "claimed"
    assert bench.finish(running)


def test_I8_not_there_yet_is_not_believed_while_somebody_may_be_sending(
    bench: Bench, clock: Clock, broker: Broker, tmp_path: Path
) -> None:
    asked = export(bench)
    bench.finish(asked, GrantState.UNKNOWN)  # cancelled; its thread may still be at it
    ((_, said),) = reconcile(bench.ledger, broker)
    assert "may still be sending" in said
    bench.ledger.end_job(bench.job, reason="over")
    ((_, said),) = reconcile(bench.ledger, broker)
    assert "may still be sending" in said
    send(broker, asked, tmp_path)  # and so it was
    assert reconcile(bench.ledger, broker) == [(asked.digest, "executed")]
    assert len(arrived(tmp_path)) == 1


def test_I8_what_comes_after_it_was_given_up_is_at_least_recorded(
    bench: Bench, clock: Clock, broker: Broker
) -> None:
    asked = export(bench)
    crash(bench, clock)
    assert reconcile(bench.ledger, broker) == [(asked.digest, "failed")]
    receipts = (("site", "site/x", asked.assets[0].sha256),)
    assert not bench.finish(asked, receipts=receipts)
    assert bench.state(asked) == "failed"
    late = records(bench.ledger)[-1]
    assert late["kind"] == "finished.late"
    assert late["receipts"] == [list(receipts[0])]


def test_I8_an_opaque_effect_stays_unknown_and_says_so(
    bench: Bench, clock: Clock, broker: Broker
) -> None:
    asked = export(bench, outside=OutsideEffect.OPAQUE)
    crash(bench, clock)
    for _ in range(2):
        ((request, said),) = reconcile(bench.ledger, broker)
        assert request == asked.digest
        assert "can't be found out; a person must look" in said
    assert bench.state(asked) == "unknown"


@pytest.mark.parametrize(("happened", "state"), [(True, "executed"), (False, "failed")])
def test_I8_a_person_settles_what_nobody_else_can_find_out(
    bench: Bench, clock: Clock, broker: Broker, happened: bool, state: str
) -> None:
    asked = export(bench, outside=OutsideEffect.OPAQUE)
    crash(bench, clock)
    reconcile(bench.ledger, broker)
    assert settle(bench.ledger, asked.digest[:16], happened=happened, by="omar") == asked.digest
    assert bench.state(asked) == state
    assert records(bench.ledger)[-1]["person"] == "omar"
    with pytest.raises(JobError, match="0 calls"):  # once
        settle(bench.ledger, asked.digest, happened=not happened, by="omar")
    with pytest.raises(JobError, match="too short"):
        settle(bench.ledger, "abc", happened=True, by="omar")


@pytest.mark.parametrize("outside", [IDEMPOTENT, OutsideEffect.PROBEABLE])
def test_I8_a_tool_that_sends_by_its_own_way_is_not_called_failed(
    bench: Bench, clock: Clock, broker: Broker, tmp_path: Path, outside: OutsideEffect
) -> None:
    """The broker knows only the names that it gives itself; the rest is in test_probes.py."""
    asked = export(bench, tool="publish", outside=outside)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "their-name.png").write_bytes(PICTURES[0])
    crash(bench, clock)
    ((_, said),) = reconcile(bench.ledger, broker)
    assert "publish is not bound here" in said
    assert "a person must look" in said
    assert bench.state(asked) == "unknown"


def test_I8_a_text_without_media_is_not_called_failed(
    bench: Bench, clock: Clock, broker: Broker
) -> None:
    asked = export(bench, count=0)
    crash(bench, clock)
    ((_, said),) = reconcile(bench.ledger, broker)
    assert "no asset that could be looked for" in said
    assert bench.state(asked) == "unknown"


def test_I8_half_of_an_export_is_neither(
    bench: Bench, clock: Clock, broker: Broker, tmp_path: Path
) -> None:
    asked = export(bench, count=2)
    send(broker, asked, tmp_path, 1)
    crash(bench, clock)
    ((_, said),) = reconcile(bench.ledger, broker)
    assert "1 of 2 assets arrived" in said
    assert bench.state(asked) == "unknown"
    send(broker, asked, tmp_path, 0)
    assert reconcile(bench.ledger, broker) == [(asked.digest, "executed")]
    assert len(bench.ledger.all("SELECT * FROM receipts")) == 2


def test_I8_other_bytes_under_the_name_are_not_what_was_sent(
    bench: Bench, clock: Clock, broker: Broker, tmp_path: Path
) -> None:
    asked = export(bench)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"{asked.assets[0].sha256[:20]}.png").write_bytes(b"somebody else's")
    crash(bench, clock)
    assert reconcile(bench.ledger, broker) == [(asked.digest, "failed")]


class Away(Folder):
    def find(self, parcel_key: str, sha256: str) -> str | None:
        raise DestinationError("site can't be read: EACCES", outcome_unknown=True)


class Broken(Folder):
    def find(self, parcel_key: str, sha256: str) -> str | None:
        self._fs = Denied()
        return super().find(parcel_key, sha256)


class Denied:
    def __getattr__(self, name: str) -> Callable[..., None]:
        def denied(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        return denied


@pytest.mark.parametrize("adapter", [Away, Broken])
def test_I8_a_destination_that_can_not_be_read_leaves_it_unknown(
    bench: Bench, clock: Clock, tmp_path: Path, adapter: Callable[[Destination], Adapter]
) -> None:
    asked = export(bench)
    crash(bench, clock)
    away = Broker({"site": site(tmp_path)}, make_adapter=adapter)
    ((_, said),) = reconcile(bench.ledger, away)
    assert said.startswith("stays unknown: site can't be read")
    assert bench.state(asked) == "unknown"
    back = Broker({"site": site(tmp_path)})
    assert reconcile(bench.ledger, back) == [(asked.digest, "failed")]


def test_I8_a_destination_that_is_configured_no_more_leaves_it_unknown(
    bench: Bench, clock: Clock, tmp_path: Path
) -> None:
    gone, nowhere = export(bench), export(bench, destination=None)
    crash(bench, clock)
    answers = dict(reconcile(bench.ledger, Broker({})))
    for asked in (gone, nowhere):
        assert answers[asked.digest].startswith("stays unknown: no destination")
        assert bench.state(asked) == "unknown"


def test_one_that_stays_does_not_hold_up_the_others(
    bench: Bench, clock: Clock, broker: Broker, tmp_path: Path
) -> None:
    stays, settles = export(bench, outside=OutsideEffect.OPAQUE), export(bench)
    send(broker, settles, tmp_path)
    crash(bench, clock)
    answers = dict(reconcile(bench.ledger, broker))
    assert answers[settles.digest] == "executed"
    assert answers[stays.digest].startswith("stays unknown")


def test_two_that_reconcile_at_once_settle_it_once(
    bench: Bench, clock: Clock, tmp_path: Path
) -> None:
    asked = export(bench)
    crash(bench, clock)
    inner = Broker({"site": site(tmp_path)})

    class Racing(Folder):
        def find(self, parcel_key: str, sha256: str) -> str | None:
            reconcile(bench.ledger, inner)  # another process is quicker
            return None

    outer = Broker({"site": site(tmp_path)}, make_adapter=Racing)
    assert reconcile(bench.ledger, outer) == [(asked.digest, "was settled meanwhile")]
    assert kinds(bench.ledger).count("reconciled") == 1


def test_a_parcel_sent_twice_arrives_once(broker: Broker, bench: Bench, tmp_path: Path) -> None:
    asked = export(bench)
    for _ in range(2):
        send(broker, asked, tmp_path)
    assert len(arrived(tmp_path)) == 1
