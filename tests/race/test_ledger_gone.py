"""The ledger is gone under a running guard (I10): nothing runs unrecorded; when it is back, it goes
on without hands. What came back as something else never does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentguard.errors import LedgerUnavailable
from tests.race.resources import STEPS, Rig
from tests.support import KIM, Studio, open_studio

NOBODY = 65534


@pytest.fixture
def rig(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        yield Rig(studio, job, monkeypatch)


class Folder:
    """The workspace's folder for a while under another name."""

    def __init__(self, folder: Path) -> None:
        self.here, self.there = folder / ".agentguard", folder / ".away"

    def lose(self) -> None:
        self.here.rename(self.there)

    def find(self) -> None:
        self.there.rename(self.here)


class File(Folder):
    """Only the database file, without its log and index files."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.here, self.there = self.here / "ledger.db", self.here / "elsewhere.db"


class Rights(Folder):
    """The right to enter the folder; root has to become nobody for that."""

    def lose(self) -> None:
        if os.geteuid() == 0:
            self.here.parent.chmod(0o700)
            os.seteuid(NOBODY)
        else:
            self.here.chmod(0)

    def find(self) -> None:
        if os.getuid() == 0:
            os.seteuid(0)
        self.here.chmod(0o700)


@pytest.mark.parametrize("kind", [Folder, File, Rights])
@pytest.mark.parametrize("step", STEPS)
def test_I10_a_ledger_that_goes_and_comes_back(
    rig: Rig, studio: Studio, kind: Callable[[Path], Folder], step: str
) -> None:
    lost = kind(studio.folder)
    rig.before(step, lost.lose)
    try:
        said = rig.run()
        with pytest.raises(LedgerUnavailable):
            rig.job.renew()
    finally:
        lost.find()
    rig.require_refused(step, said)
    rig.require_recovered(step)


@pytest.mark.parametrize("how", ["deleted", "replaced by an old copy", "folder deleted"])
@pytest.mark.parametrize("step", STEPS)
def test_I10_a_ledger_that_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, step: str
) -> None:
    """Nothing new is begun in its place: every call is refused until somebody restores it."""
    studio = open_studio(tmp_path)
    path = tmp_path / ".agentguard" / "ledger.db"
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)

    def lose() -> None:
        if how == "deleted":
            path.unlink()
        elif how == "folder deleted":
            shutil.rmtree(path.parent)
        else:
            os.replace(copy, path)

    job = studio.guard.open_job("poster", requested_by=KIM)
    rig = Rig(studio, job, monkeypatch)
    rig.before(step, lose)
    rig.require_refused(step, rig.run())
    before = rig.effects()
    for thread in ("a", "b"):
        assert rig.run(thread).status == "error"
    assert rig.effects() == before
    with pytest.raises(LedgerUnavailable, match="deleted or replaced"):
        job.renew()
    with pytest.raises(LedgerUnavailable, match="deleted or replaced"), job:
        pass
    with pytest.raises(LedgerUnavailable):
        studio.guard.open_job("another", requested_by=KIM)
    assert path.exists() == (how == "replaced by an old copy")
    studio.guard.close()
