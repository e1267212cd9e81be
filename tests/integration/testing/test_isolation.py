"""A private workspace reads and writes nothing of the real one, and leaves nothing behind."""

from __future__ import annotations

import contextvars
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

import pytest

from agentguard import ConfigError, Guard
from agentguard.people.signers import append_signer
from agentguard.testing import TestWorkspace, workspace
from agentguard.transparency.log_key import create_log_key
from tests.integration.testing.tools_under_test import CONFIG, TOOLS, copy
from tests.support import write_workspace

OMAR = "omar@acme.example"


def digests(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file below a folder: its bytes, and when it was written."""
    return {
        str(file): (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def use(ws: TestWorkspace) -> None:
    """Import, copy, queue, ask, approve and export."""
    picture = ws.import_asset(labels=["customer-data"])
    assert ws.call("copy", source=picture).effect == "permit"
    assert ws.call("queue_for_release", asset=picture, to="site").effect == "permit"
    outcome = ws.call("export_asset", asset=picture, to="site")
    while ws.questions:
        ws.approve(outcome, by=ws.guard.approvals.eligible(ws.questions[0])[-1])
    assert ws.resume(outcome).effect == "permit"
    assert len(ws.sent("site")) == 1


def test_real_workspace_is_neither_read_nor_written(tmp_path: Path) -> None:
    write_workspace(tmp_path, CONFIG)  # with a log key and keys of people
    with Guard.from_config(tmp_path / "agentguard.toml", tools=TOOLS) as real:
        picture = tmp_path / "real.png"
        with workspace(tmp_path / "agentguard.toml", tools=TOOLS) as ws:
            picture.write_bytes(ws.read(ws.import_asset(labels=["brand"])))
        asset = real.import_asset(picture, ["brand"], by=OMAR)
    before = digests(tmp_path)
    with workspace(tmp_path / "agentguard.toml", tools=TOOLS) as ws:
        use(ws)
        assert ws.import_asset(picture, ["customer-data"]) == asset
        labels = [row["labels"] for row in ws.guard.ledger.all("SELECT labels FROM assets")]
        assert not any("brand" in each for each in labels)  # what the real one knows of it
    assert digests(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_log_key_of_others_is_not_even_opened(tmp_path: Path) -> None:
    (tmp_path / "agentguard.toml").write_text(CONFIG)
    create_log_key(tmp_path / ".agentguard" / "log.key").public_bytes_raw()
    (tmp_path / ".agentguard" / "log.key").chmod(0o644)  # the real guard would refuse it
    with workspace(tmp_path / "agentguard.toml", tools=TOOLS) as ws:
        use(ws)


def test_key_that_a_person_has_already_counts_for_nothing_here(tmp_path: Path) -> None:
    keys = write_workspace(tmp_path, CONFIG)
    with workspace(tmp_path / "agentguard.toml", tools=TOOLS) as ws:
        own = ws.guard.workspace.signers.read_text()
        assert own.count(OMAR) == 1
        append_signer(
            tmp_path / "more.signers", OMAR, keys[OMAR].public_key()
        )  # the line that the real file has
        assert (tmp_path / "more.signers").read_text().split()[2] not in own


def test_ledger_on_postgres_is_not_reached(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"postgresql://127.0.0.1:{server.getsockname()[1]}/agentguard"
        config = tmp_path / "agentguard.toml"
        config.write_text(CONFIG.replace('"acme"\n', f'"acme"\nledger = "{url}"\n', 1))
        with workspace(config, tools=TOOLS) as ws:
            assert ws.guard.workspace.ledger.startswith("sqlite:")
            use(ws)
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize("ledger", ["sqlite:{}/x.db", "mysql://{}"])
def test_environment_is_not_read(
    config: Path, monkeypatch: pytest.MonkeyPatch, ledger: str
) -> None:
    elsewhere = config.parent / "elsewhere"
    monkeypatch.setenv("AGENTGUARD_LEDGER", ledger.format(elsewhere))  # the other one is an error
    for name in ("STORE", "LOG_KEY", "SIGNERS", "CONFIG"):
        monkeypatch.setenv(f"AGENTGUARD_{name}", str(elsewhere / name))
    before = dict(os.environ)
    with workspace(config, tools=TOOLS) as ws:
        use(ws)
        assert dict(os.environ) == before
    assert dict(os.environ) == before
    assert not elsewhere.exists()


@pytest.mark.parametrize("fails", [False, True])
def test_no_file_and_no_thread_is_left(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    threads = set(threading.enumerate())
    try:
        with workspace(config, tools=TOOLS) as ws:
            use(ws)
            with ws.job():
                ws.import_asset()
                if fails:
                    raise ZeroDivisionError
    except ZeroDivisionError:
        assert fails
    assert list(place.iterdir()) == []
    assert [one.name for one in set(threading.enumerate()) - threads] == []


def test_workspace_that_does_not_open_leaves_nothing(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    with pytest.raises(ConfigError, match="not found"):
        workspace(tmp_path / "missing.toml", tools=TOOLS).__enter__()
    with pytest.raises(ConfigError, match="bound twice"):
        workspace(config, tools=[copy, copy]).__enter__()
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "own.cedar").write_text("permit (")
    with pytest.raises(ConfigError, match=r"own\.cedar"):
        workspace(config, tools=TOOLS).__enter__()
    assert list(place.iterdir()) == []


def test_policies_beside_the_configuration_decide(config: Path) -> None:
    (config.parent / "policies").mkdir()
    (config.parent / "policies" / "own.cedar").write_text(
        '@id("acme.no-copies")\n@advice("nobody copies here")\n'
        'forbid (principal, action in Action::"stage:edit", resource);\n'
    )
    with workspace(config, tools=TOOLS) as ws:
        outcome = ws.call("copy", source=ws.import_asset(labels=["brand"]))
    assert (outcome.effect, outcome.policies) == ("deny", ("acme.no-copies",))


def test_table_of_a_pyproject_is_taken_as_well(tmp_path: Path) -> None:
    text = CONFIG.replace("[", "[tool.agentguard.").replace('= [tool.agentguard."', '= ["')
    (tmp_path / "pyproject.toml").write_text("[tool.agentguard]\n" + text)
    with workspace(tmp_path / "pyproject.toml", tools=TOOLS) as ws:
        use(ws)


def test_workspace_within_a_workspace_is_another_one(config: Path) -> None:
    with workspace(config, tools=TOOLS) as outer, outer.job():
        logo = outer.import_asset(labels=["brand"])
        with workspace(config, tools=TOOLS) as inner:
            inner.advance("10d")
            denied = inner.call("copy", source=logo)
            assert (denied.effect, denied.policies) == ("deny", ("agentguard.unknown-asset",))
            own = inner.import_asset(labels=["brand"])
            assert inner.call("export_asset", asset=own, to="team").effect == "permit"
            with inner.job():
                assert inner.call("copy", source=own).effect == "deny"  # of another job
        assert outer.call("copy", source=logo).effect == "permit"
        assert outer.sent("team") == []


def test_a_workspace_can_be_entered_again_and_is_a_fresh_one(config: Path) -> None:
    ws = workspace(config, tools=TOOLS)
    for _ in range(2):
        with ws:
            use(ws)
            with pytest.raises(RuntimeError, match="is open"):
                ws.__enter__()


async def test_asynchronous_with(config: Path) -> None:
    async with workspace(config, tools=TOOLS) as ws, ws.job():
        logo = ws.import_asset(labels=["brand"])
        assert (await ws.acall("copy_later", source=logo)).effect == "permit"


def test_calls_run_in_the_newest_job_that_was_not_left(config: Path) -> None:
    """Also where the `with` of the job is in another context, as an asynchronous fixture's is."""
    with workspace(config, tools=TOOLS) as ws:
        logo = ws.import_asset(labels=["brand"])
        first = ws.call("copy", source=logo).job
        second = contextvars.copy_context().run(ws.job().__enter__)
        assert ws.call("list_assets").job == second.id != first
        second.leave()
        assert ws.call("copy", source=logo).job == first


class UnderUnittest(unittest.TestCase):
    """`enterContext` is all that a TestCase needs."""

    def setUp(self) -> None:
        folder = self.enterContext(tempfile.TemporaryDirectory())
        file = Path(folder, "agentguard.toml")
        file.write_text(CONFIG)
        self.ws = self.enterContext(workspace(file, tools=TOOLS))

    def test_export_that_nobody_queued_is_denied(self) -> None:
        logo = self.ws.import_asset(labels=["brand"])
        self.assertEqual(self.ws.call("export_asset", asset=logo, to="site").effect, "deny")  # noqa: PT009


def test_importing_the_module_changes_nothing() -> None:
    code = (
        "import threading; start = threading.Thread.start\n"
        "import agentguard.testing\n"
        "assert threading.Thread.start is start\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
