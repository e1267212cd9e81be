"""A full disk, wherever it is met (I8, I10): nothing is half done, and then it goes on.

The kernel refuses to let any file grow (RLIMIT_FSIZE), SQLite runs out of pages, a write to
`/dev/full` fails: real errors in real places, without root.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import tool
from PIL import Image

from agentguard.errors import AssetError, LedgerUnavailable
from agentguard.ledger.storage.sqlite.connections import Connections
from tests.race.resources import STEPS, Rig, Space, connections_of
from tests.race.ways_in import graph_of
from tests.support import KIM, Studio, call, says
from tests.support.bindings import Binding
from tests.support.late_tools import bind_in_a_job

SMALL = 2_000


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Space]:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    made = Space()
    yield made
    made.free()
    assert list(folder.iterdir()) == []  # no scratch folder, no torn copy


@pytest.fixture
def rig(studio: Studio, space: Space, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        yield Rig(studio, job, monkeypatch)
        space.free()


def noise(path: Path, side: int = 64) -> Path:
    """A picture that can't be compressed: some 12 kB."""
    Image.frombytes("RGB", (side, side), os.urandom(3 * side * side)).save(path)
    assert path.stat().st_size > 2 * SMALL
    return path


def stored(studio: Studio) -> list[str]:
    """The files of the asset store, torn ones too."""
    found = (studio.folder / ".agentguard" / "assets").rglob("*")
    return sorted(path.name for path in found if path.is_file())


# --- the ledger -------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
def test_I10_no_room_for_the_ledger(rig: Rig, space: Space, step: str) -> None:
    rig.before(step, space.fill)
    said = rig.run()
    rig.require_refused(step, said)
    space.free()
    rig.require_recovered(step)


@pytest.mark.parametrize("step", STEPS)
def test_I10_no_page_left_in_the_ledger(
    rig: Rig, studio: Studio, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    opened = Connections._open

    def small(self: Connections, mode: str) -> Any:
        connection = opened(self, mode)
        connection.execute("PRAGMA max_page_count = 1")  # that is: no more than there are
        connection.execute("PRAGMA cache_spill = 1")
        return connection

    def fill() -> None:
        monkeypatch.setattr(Connections, "_open", small)
        connections_of(studio).forget_writer()
        _use_up_free_room(rig)

    rig.before(step, fill)
    said = rig.run()
    rig.require_refused(step, said)
    monkeypatch.setattr(Connections, "_open", opened)
    rig.require_recovered(step)


def _use_up_free_room(rig: Rig) -> None:
    """Fill what room the pages there are still have, so that the next record does not fit."""
    size = 4096
    while size > 16:
        try:
            rig.guard.ledger.refuse({"reason": "x" * size})
        except LedgerUnavailable:
            size //= 2


def test_a_checkpoint_that_finds_no_room_is_made_up_for(rig: Rig, studio: Studio) -> None:
    """The record is in the ledger; its checkpoint comes with the next commit that can be signed."""
    file = studio.folder / ".agentguard" / "ledger.db.checkpoints"
    kept = file.with_name("kept")
    file.rename(kept)
    file.symlink_to("/dev/full")
    assert rig.run().status == "success"
    file.unlink()
    kept.rename(file)
    before = rig.guard.verify()
    assert rig.run("next").status == "success"
    assert rig.effects() == 2
    after = rig.guard.verify()
    assert after.checkpoints > before.checkpoints


# --- bytes ------------------------------------------------------------------------------------


def test_no_room_in_the_store_for_an_import(rig: Rig, space: Space, studio: Studio) -> None:
    before = stored(studio)
    picture = noise(studio.folder / "n.png")
    space.fill(SMALL)
    with pytest.raises(AssetError, match="can't be"):
        rig.job.import_asset(picture, ["brand"])
    space.free()
    assert stored(studio) == before
    rig.job.import_asset(picture, ["brand"])
    assert len(stored(studio)) == len(before) + 1
    studio.guard.verify()


def test_no_room_for_the_private_copy_leaves_the_grant_unused(
    rig: Rig, space: Space, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = rig.job.import_asset(noise(studio.folder / "n.png"), ["brand"])
    script = [says(call("send", {"source": large, "to": "team"}, id="c1"), id="m1")]
    rig.graph = graph_of(studio, "protect", rig.send, script)
    prepare = studio.guard.enforcement.claims._prepared

    def full(*args: Any) -> Any:
        space.fill(SMALL)
        try:
            return prepare(*args)
        finally:
            space.free()

    monkeypatch.setattr(studio.guard.enforcement.claims, "_prepared", full)
    said = rig.run()
    assert said.status == "error"
    assert "can't be copied" in said.content
    assert rig.effects() == 0
    assert studio.grants() == ["issued"]
    monkeypatch.undo()
    assert rig.again().status == "success"
    assert rig.effects() == 1
    assert studio.grants() == ["executed"]
    studio.guard.verify()


@pytest.mark.parametrize("where", ["the tool", "the store"])
@pytest.mark.parametrize("outside", [True, False], ids=["outside", "inside"])
def test_I8_no_room_for_what_a_tool_makes(
    rig: Rig, space: Space, studio: Studio, where: str, outside: bool
) -> None:
    """Paid for at a vendor it is `unknown`; made here it failed, and the same call runs again."""
    ran: list[str] = []

    @tool
    def draw(prompt: str, file: str = "d.png") -> str:
        """Draw noise."""
        ran.append(prompt)
        if len(ran) == 1 and where == "the tool":
            space.fill(SMALL)
        noise(Path(file))
        if len(ran) == 1:
            space.fill(SMALL)
        return "drawn"

    vendor: dict[str, Any] = {"destination": "images", "effect": "opaque"} if outside else {}
    bind_in_a_job(
        studio.guard,
        Binding(draw, stage="generate", texts=["prompt"], outputs=["file"], **vendor),
    )
    script = [says(call("draw", {"prompt": "noise"}, id="c1"), id="m1")]
    rig.graph = graph_of(studio, "protect", draw, script, agent="painter")
    before = stored(studio)
    ledger = studio.guard.ledger
    rig.before("finish", space.free)  # the ledger lies on another disk
    said = rig.run()
    assert said.status == "error", said.content
    assert "can't be" in said.content or "OSError" in said.content
    assert stored(studio) == before
    assert ledger.one("SELECT 1 FROM origins WHERE tool = 'draw'") is None
    assert studio.grants() == ["unknown" if outside else "failed"]
    again = rig.again()
    assert again.status == ("error" if outside else "success")
    assert len(ran) == (1 if outside else 2)
    studio.guard.verify()


# --- the destination --------------------------------------------------------------------------


def test_I8_no_room_at_the_destination(
    rig: Rig, space: Space, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused whole: no picture, no slip, no torn file; a new call sends it once there is room."""
    large = rig.job.import_asset(noise(studio.folder / "n.png"), ["brand"])

    def exported(id: str) -> Any:
        script = [says(call("export_asset", {"asset": large, "to": "team"}, id="c1"), id=id)]
        return graph_of(studio, "protect", studio.guard.export_tool(), script)

    rig.graph = exported("m1")
    adapter = studio.guard.broker._adapter("team")
    put = adapter.put

    def full(parcel: Any) -> str:
        space.fill(SMALL)
        try:
            return put(parcel)
        finally:
            space.free()

    monkeypatch.setattr(adapter, "put", full)
    said = rig.run()
    assert said.status == "error"
    assert "refused the file" in said.content
    assert list((studio.folder / "out" / "team").iterdir()) == []
    assert studio.grants() == ["failed"]
    monkeypatch.undo()
    assert rig.again().status == "error"  # this call is over: told, not done
    assert studio.exported("team") == []
    assert rig.run("new", exported("m2")).status == "success"
    assert len(studio.exported("team")) == 1
    assert sorted(studio.grants()) == ["executed", "failed"]
    studio.guard.verify()


def test_the_last_error_of_a_write_may_come_when_all_of_it_is_there(
    rig: Rig, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I8: an error after the picture was linked into place does not mean that it is not there."""
    real = os.fsync

    def full(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}") and studio.exported("team"):
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    script = [says(call("export_asset", {"asset": rig.asset, "to": "team"}, id="c1"), id="m1")]
    rig.graph = graph_of(studio, "protect", studio.guard.export_tool(), script)
    rig.run()
    monkeypatch.undo()
    there = len(studio.exported("team"))
    assert (there, studio.grants()) == (1, ["unknown"])
    assert [what for _, what in studio.guard.reconcile()] == ["executed"]
    studio.guard.verify()
