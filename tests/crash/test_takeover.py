"""Real processes and real clocks: leases that lapse, jobs that wait, forks, messages half done."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from agentguard import Guard
from agentguard.calls.reconcile import settle
from agentguard.ledger.open import wall_clock
from tests.crash import roles, worker
from tests.crash.aftermath import Processes, Uploads, dangling
from tests.crash.cells import DURABILITIES, Durability
from tests.support import CONFIG, Clock, open_studio, write_workspace
from tests.support.command_line import Shell

LEASE_S = 3.0
OMAR = worker.APPROVER
SHORT = CONFIG + f'\n[lifetimes]\nlease = "{LEASE_S:.0f}s"\n'


def workspace(folder: Path, config: str = CONFIG) -> dict[str, Any]:
    (folder / "tmp").mkdir()
    Image.new("RGB", (32, 32), "navy").save(folder / "in.png")
    return write_workspace(folder, config)


def media(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "out" / "team").glob("*.png"))


def other_worker(folder: Path) -> Guard:
    """The workspace as another process has it; opening sweeps."""
    return worker.open_guard(folder, "broker", "", wall_clock, worker.Mark(None))[0]


def seen(folder: Path) -> Any:
    """The one job, as somebody sees it who opens the workspace now."""
    with other_worker(folder) as guard:
        return guard.ledger.one("SELECT * FROM jobs")


def test_I9_a_job_whose_process_dies_is_ended_by_another_within_its_lease(
    tmp_path: Path, processes: Processes
) -> None:
    workspace(tmp_path, SHORT)
    with other_worker(tmp_path) as guard, processes.running(roles.hold, tmp_path) as process:

        def swept() -> Any:
            guard.ledger.sweep()
            return guard.ledger.one("SELECT * FROM jobs")

        while not (tmp_path / "held").exists():
            assert process.is_alive()
            time.sleep(0.02)
        lives_until = time.monotonic() + 1.5 * LEASE_S
        while time.monotonic() < lives_until:  # it renews: nobody may take it away
            assert swept()["state"] == "open"
            time.sleep(0.1)
        process.kill()
        process.join()
        died = wall_clock()
        assert process.exitcode == -signal.SIGKILL
        while (job := swept())["state"] == "open":
            assert wall_clock() < died + LEASE_S * 1000 + 5000, "nobody ended it"
            time.sleep(0.02)
        took = (job["ended_at"] - died) / 1000
        print(f"ended {took:.2f} s after its process died, with a lease of {LEASE_S} s")
        assert took < LEASE_S + 0.5
        assert (job["state"], job["ended_by"]) == ("ended", "lapsed")


@pytest.mark.parametrize("durability", DURABILITIES)
def test_a_waiting_job_is_re_entered_by_another_process_and_finishes(
    tmp_path: Path, processes: Processes, durability: Durability, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shell = Shell(tmp_path)
    workspace(tmp_path)
    shell("people", "add", OMAR, "--second-key")
    assert processes.run(roles.ask_and_leave, tmp_path, durability) == 0
    assert seen(tmp_path)["state"] == "waiting"
    assert processes.run(roles.rejoin, tmp_path, durability, None) == 0  # nobody answered yet
    assert json.loads((tmp_path / "said").read_text()) == [1]
    assert media(tmp_path) == []
    assert seen(tmp_path)["state"] == "waiting"
    (asked,) = shell.json("approvals", "list")
    shell("approvals", "approve", asked["request"][:16], "--as", OMAR, "--yes")
    assert media(tmp_path) == []
    assert processes.run(roles.rejoin, tmp_path, durability, None) == 0
    (name,) = media(tmp_path)
    assert json.loads((tmp_path / "said").read_text()) == [f"Exported to team/{name}.", 0]
    job = seen(tmp_path)
    assert (job["state"], job["epoch"], job["reason"]) == ("ended", 3, "left")
    assert processes.run(roles.rejoin, tmp_path, durability, None) == 0
    assert "is ended, expected waiting" in json.loads((tmp_path / "said").read_text())[1]
    assert len(media(tmp_path)) == 1
    assert len(list((tmp_path / "out" / "team").iterdir())) == 2  # with its slip
    assert "records" in shell("audit", "verify")


def test_I9_a_re_entered_job_that_dies_is_over_and_its_approval_with_it(
    tmp_path: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shell = Shell(tmp_path)
    workspace(tmp_path, SHORT)
    shell("people", "add", OMAR, "--second-key")
    assert processes.run(roles.ask_and_leave, tmp_path, "sync") == 0
    (asked,) = shell.json("approvals", "list")
    shell("approvals", "approve", asked["request"][:16], "--as", OMAR, "--yes")
    assert processes.run(roles.rejoin, tmp_path, "sync", "ask.woken") == -signal.SIGKILL
    time.sleep(LEASE_S + 0.1)
    assert seen(tmp_path)["state"] == "ended"
    assert shell.json("approvals", "list", "--all")[0]["state"] == "revoked"
    assert processes.run(roles.rejoin, tmp_path, "sync", None) == 0
    assert "is ended, expected waiting" in json.loads((tmp_path / "said").read_text())[1]
    assert media(tmp_path) == []


def test_I8_a_person_settles_an_opaque_call_by_the_command_that_reconcile_prints(
    tmp_path: Path, processes: Processes, uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shell = Shell(tmp_path)
    workspace(tmp_path, SHORT)
    Image.new("RGB", (32, 32), "red").save(tmp_path / "in-0.png")
    url = uploads.url("settled")
    assert processes.run(roles.upload, tmp_path, url, "sync", 0) == -signal.SIGKILL
    time.sleep(LEASE_S + 0.1)
    said = shell("reconcile")
    assert "a person must look" in said
    request = said.split()[0]
    command = f"agentguard reconcile {request} --happened --by PERSON"
    (line,) = [line for line in said.splitlines() if line.endswith(command)]
    assert line.startswith("  if it happened: ")
    shell("reconcile", request, "--happened", "--by", OMAR)
    assert shell("reconcile") == "No call has an unknown outcome.\n"
    assert len(uploads.of("settled")) == 1
    assert "records" in shell("audit", "verify")


@pytest.mark.parametrize("durability", DURABILITIES)
def test_I8_a_message_of_several_calls_dies_half_done(
    tmp_path: Path, processes: Processes, uploads: Uploads, durability: Durability
) -> None:
    workspace(tmp_path)
    for number, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"in-{number}.png")
    name = f"several-{durability}"
    url = uploads.url(name)
    assert processes.run(roles.upload, tmp_path, url, durability, 1) == -signal.SIGKILL
    assets = (tmp_path / "assets").read_text().split()
    clock = Clock(now=wall_clock() + 31_000)
    guard, tool = worker.open_guard(tmp_path, "opaque", url, clock, worker.Mark(None))
    with guard:
        died = len(uploads.of(name))
        states = [row["state"] for row in guard.ledger.all("SELECT state FROM grants")]
        assert 2 <= died <= 3
        assert states.count("executed") + states.count("unknown") >= died
        saver = worker.Saver(tmp_path / "threads.db", worker.Mark(None), late=False)
        with guard.open_job("poster", requested_by=worker.REQUESTER) as job:
            for path in sorted(tmp_path.glob("in-*.png")):
                job.import_asset(path, ["brand"])
            graph = worker.build(
                guard, "opaque", tool, assets[0], saver, worker.Mark(None), "second", *assets[1:]
            )
            config = job.config(thread_id=worker.THREAD)
            new = None if graph.get_state(config).values else {"messages": [("user", "go")]}
            messages = graph.invoke(new, config, durability=durability)["messages"]
        saver.conn.close()
        assert dangling(messages) == []
        arrived = uploads.of(name)
        assert len(arrived) == len(set(arrived)), "a picture was uploaded twice"
        for request, _ in guard.reconcile():
            row = guard.ledger.one("SELECT body FROM requests WHERE digest = ?", request)
            assert row is not None
            number = assets.index(json.loads(row["body"])["args"]["source"])
            data = (tmp_path / f"in-{number}.png").read_bytes()
            settle(guard.ledger, request, happened=worker.key_of(data, "team") in arrived, by=OMAR)
        done = guard.ledger.all("SELECT id FROM grants WHERE state = 'executed'")
        assert len(done) == len(arrived)
        guard.verify()


def test_I8_a_process_that_forks_with_its_ledger_open_claims_once_and_both_go_on(
    tmp_path: Path, processes: Processes, uploads: Uploads
) -> None:
    keys = workspace(tmp_path)
    (tmp_path / "approver").write_bytes(keys[OMAR].private_bytes_raw())
    names = ["child0", "child1", "child2", "parent"]
    for number, name in enumerate(names):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / f"in-{name}.png")
    url = uploads.url("forks")
    assert processes.run(roles.fork_and_race, tmp_path, url, 3) == 0
    errors = [path.read_text() for path in tmp_path.glob("error-*")]
    assert json.loads((tmp_path / "codes").read_text()) == [0, 0, 0], errors
    said = {name: json.loads((tmp_path / f"said-{name}").read_text()) for name in names}
    arrived = uploads.of("forks")
    assert len(arrived) == len(set(arrived)) == 1 + len(names), said
    assert all(own == "published, 201" for _, own in said.values()), said
    raced = [first for first, _ in said.values()]
    # The winner, replays of what it did, and those who came while it was at it.
    assert "published, 201" in raced
    lost = ("published, 201", "will not be done twice", "its grant is claimed", "is executed")
    assert all(any(words in text for words in lost) for text in raced), said
    studio = open_studio(tmp_path, clock=Clock(now=wall_clock()), keys=keys)
    with studio.guard as guard:
        rows = guard.ledger.all("SELECT state, claims FROM grants")
        assert [(row["state"], row["claims"]) for row in rows] == [("executed", 1)] * 5
        guard.verify()
