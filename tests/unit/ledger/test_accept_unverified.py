"""The way on with a ledger that its checkpoints don't prove: explicit, told by the log (I10)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agentguard.config.workspace import Workspace, load
from agentguard.errors import AgentGuardError, LedgerCorrupt
from agentguard.ledger.open import accept_unverified, checkpoints_of, open_ledger
from agentguard.ledger.verify import Report, verify
from tests.support import CONFIG, write_workspace
from tests.support.command_line import Shell
from tests.support.ledgers import Bench, raw


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace whose ledger holds an open job with a permitted call."""
    write_workspace(tmp_path, CONFIG)
    workspace = load(tmp_path / "agentguard.toml")
    grow(workspace)
    return workspace


def grow(workspace: Workspace) -> Bench:
    ledger = open_ledger(workspace)
    try:
        bench = Bench(ledger)
        bench.permit()
        bench.ask()
        ledger.storage.sign()
        return bench
    finally:
        ledger.storage.close()


def database(workspace: Workspace) -> Path:
    return Path(workspace.ledger.removeprefix("sqlite:"))


def verified(workspace: Workspace) -> Report:
    ledger = open_ledger(workspace)
    try:
        return verify(ledger.storage, checkpoints_of(workspace))
    finally:
        ledger.storage.close()


def lose(workspace: Workspace) -> None:
    checkpoints_of(workspace).path.unlink()


def empty(workspace: Workspace) -> None:
    checkpoints_of(workspace).path.write_bytes(b"")


def zero(workspace: Workspace) -> None:
    checkpoints_of(workspace).path.write_bytes(bytes(9000))


def damage(workspace: Workspace) -> None:
    checkpoints_of(workspace).path.write_bytes(b"\xa5" * 400)


def restore(workspace: Workspace) -> None:
    """Put last night's database beside today's checkpoints."""
    path = database(workspace)
    old = path.with_name("old")
    shutil.copy(path, old)
    grow(workspace)
    for left in path.parent.glob("ledger.db-*"):
        left.unlink()
    old.replace(path)


@pytest.mark.parametrize("harm", [lose, empty, zero, damage, restore])
def test_I10_ledger_without_proof_goes_on_only_when_a_person_says_so(
    workspace: Workspace, harm: object
) -> None:
    harm(workspace)  # type: ignore[operator]
    kept = checkpoints_of(workspace).path
    before = kept.read_bytes() if kept.exists() else None
    with pytest.raises(LedgerCorrupt, match=r"accept-unverified|docs/how-to/backup|was changed"):
        open_ledger(workspace)
    done = accept_unverified(workspace, by="kim@acme.example", reason="the power went")
    assert done.jobs >= 1
    if before is None:
        assert done.set_aside is None
    else:
        assert done.set_aside is not None
        assert done.set_aside.read_bytes() == before
    for _ in range(2):  # for good
        (told,) = verified(workspace).accepted
        assert (told.person, told.reason) == ("kim@acme.example", "the power went")
        assert told.index == done.records
        grow(workspace)


def test_I8_nothing_that_was_granted_or_approved_lives_on(workspace: Workspace) -> None:
    restore(workspace)
    accept_unverified(workspace, by="kim@acme.example", reason="restored")
    with raw(database(workspace)) as shell:
        for table, live in (
            ("jobs", "state <> 'ended'"),
            ("credentials", "state = 'live'"),
            ("grants", "state IN ('issued', 'claimed')"),
            ("approvals", "state IN ('pending', 'approved')"),
        ):
            found = shell.execute(f"SELECT count(*) FROM {table} WHERE {live}").fetchone()[0]
            assert found == 0, table


def test_I8_copy_that_is_complete_is_told_of_and_keeps_its_checkpoints(
    workspace: Workspace,
) -> None:
    """Database and checkpoints of the same night: nothing is refused, and approvals live again."""
    before = verified(workspace).checkpoints
    done = accept_unverified(workspace, by="kim@acme.example", reason="restored")
    assert done.set_aside is None
    assert done.jobs >= 1
    report = verified(workspace)
    assert report.checkpoints > before
    assert [told.because for told in report.accepted] == ["it was not refused"]


def test_I10_ledger_that_contradicts_itself_is_not_accepted(workspace: Workspace) -> None:
    lose(workspace)
    with raw(database(workspace)) as shell:
        trigger = shell.execute(
            "SELECT sql FROM sqlite_master WHERE name = 'requests_fixed'"
        ).fetchone()[0]
        shell.execute("DROP TRIGGER requests_fixed")
        shell.execute("UPDATE requests SET tool = 'other'")
        shell.execute(trigger)
    with pytest.raises(LedgerCorrupt, match=r"does not agree with itself: .*it was edited"):
        accept_unverified(workspace, by="kim@acme.example", reason="x")
    with pytest.raises(LedgerCorrupt, match="holds no checkpoint"):
        open_ledger(workspace)


@pytest.mark.parametrize("at", ["verify", "keep", "_put_in_place"])
def test_I10_attempt_that_dies_leaves_the_ledger_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    restore(workspace)

    class Death(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Death

    monkeypatch.setattr(f"agentguard.ledger.open.{at}", die)
    with pytest.raises(Death):
        accept_unverified(workspace, by="kim@acme.example", reason="first")
    monkeypatch.undo()
    with pytest.raises(LedgerCorrupt):
        open_ledger(workspace)
    accept_unverified(workspace, by="kim@acme.example", reason="second")
    assert verified(workspace).accepted[-1].reason == "second"


def test_command_says_what_it_did_and_verify_repeats_it(workspace: Workspace, shell: Shell) -> None:
    empty(workspace)
    said = shell.error("audit", "verify", code=5)
    assert "agentguard audit accept-unverified" in said
    words = ("audit", "accept-unverified", "--reason", "power cut")
    shell.error(*words, "--by", "nobody@acme.example")
    out = shell(*words, "--by", "kim@acme.example")
    assert "without proof" in out
    assert "checkpoints.1" in out.replace("\n", "")
    assert "power cut" in shell("audit", "verify")
    (told,) = shell.json("audit", "verify")["accepted"]
    assert told["person"] == "kim@acme.example"


def test_without_the_log_key_nothing_is_accepted(workspace: Workspace) -> None:
    lose(workspace)
    workspace.log_key.unlink()
    with pytest.raises(AgentGuardError, match="not found"):
        accept_unverified(workspace, by="kim@acme.example", reason="x")
