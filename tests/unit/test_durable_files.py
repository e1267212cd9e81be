"""What is on the disk before anything relies on it, and what a power cut leaves.

Real power cuts are in tests/crash/test_power_cut.py; here their traces are made by hand, and the
order of flushes is looked at, which needs no privileges.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from agentguard import durable_files
from agentguard.content.store import Store
from agentguard.errors import AssetError, LedgerCorrupt
from agentguard.export.folder import Folder, Parcel
from agentguard.ledger.verify import verify
from agentguard.model import Audience, Destination, Environment
from agentguard.transparency.checkpoints import Checkpoints
from agentguard.transparency.log_key import create_log_key
from tests.support.ledgers import KEY, Bench, checkpoints_beside, ledger_at
from tests.support.media_files import png


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is flushed, in order: folders with a slash behind their names."""
    seen: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        path = os.path.realpath(f"/proc/self/fd/{descriptor}")
        seen.append(path + "/" * stat.S_ISDIR(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return seen


# --- the checkpoint file ------------------------------------------------------------------------


def test_checkpoint_is_on_the_disk_before_sign_returns(tmp_path: Path, flushed: list[str]) -> None:
    path = tmp_path / "ledger.db.checkpoints"
    checkpoints = Checkpoints(path=path, origin="t/log", key=KEY)
    checkpoints.sign(0, bytes(32))
    assert flushed == [str(path), f"{tmp_path}/"]
    checkpoints.sign(1, bytes(32))
    assert flushed == [str(path), f"{tmp_path}/", str(path)]
    # Another process's file: its name may not be on the disk yet.
    Checkpoints(path=path, origin="t/log", key=KEY).sign(2, bytes(32))
    assert flushed[3:] == [str(path), f"{tmp_path}/"]


def test_I8_claim_with_an_effect_is_signed_on_the_disk_before_it_returns(
    tmp_path: Path, flushed: list[str]
) -> None:
    path = tmp_path / "ledger.db"
    with ledger_at(path) as ledger:
        bench = Bench(ledger)
        asked = bench.permit()
        flushed.clear()
        assert ledger.claim(bench.judged(asked), durable=True) is None
        assert flushed == [f"{path}.checkpoints"]
        size = ledger.storage.tree_size()
    newest = checkpoints_beside(path).newest()
    assert newest is not None
    assert newest[0].size == size


def test_checkpoint_that_can_not_be_flushed_is_not_taken_for_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(path=tmp_path / "c", origin="t/log", key=KEY)

    def full(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="Input/output"):
        checkpoints.sign(0, bytes(32))


def torn_tails(lines: list[bytes]) -> dict[str, bytes]:
    """What a file system leaves of lines that were never flushed."""
    whole, last = b"".join(lines), lines[-1]
    before = b"".join(lines[:-1])
    return {
        "the last line is zeros": before + bytes(len(last)),
        "its first half is zeros": before + bytes(60) + last[60:],
        "its second half is zeros": before + last[:60] + bytes(len(last) - 60),
        "its middle is zeros": before + last[:40] + bytes(40) + last[80:],
        "it is half": before + last[:60],
        "one byte is left": before + last[:1],
        "zeros behind the end": whole + bytes(5000),
        "more zeros than the end that opening reads": whole + bytes(700_000),
        "two lines are zeros": b"".join(lines[:-2]) + bytes(len(lines[-2]) + len(last)),
        "zeros, a line end, zeros": before + bytes(100) + b"\n" + bytes(100),
        "the last lines are gone": b"".join(lines[:-2]),
        "only the first line is left": lines[0] + bytes(len(whole) - len(lines[0])),
    }


@pytest.fixture
def grown(tmp_path: Path) -> tuple[Path, list[bytes]]:
    """A ledger, and the lines of its checkpoint file."""
    path = tmp_path / "ledger.db"
    with ledger_at(path) as ledger:
        for _ in range(4):
            Bench(ledger)
    return path, checkpoints_beside(path).path.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("what", torn_tails([b"?" * 160] * 3))
def test_torn_tail_of_the_checkpoint_file_locks_nobody_out(
    grown: tuple[Path, list[bytes]], what: str
) -> None:
    path, lines = grown
    file = checkpoints_beside(path).path
    file.write_bytes(torn_tails(lines)[what])
    with ledger_at(path) as ledger:
        verify(ledger.storage, checkpoints_beside(path))
        size = ledger.storage.tree_size()
        Bench(ledger)  # the next one begins on a line of its own
        verify(ledger.storage, checkpoints_beside(path))
        newest = checkpoints_beside(path).newest()
        assert newest is not None
        assert newest[0].size > size
    with ledger_at(path):
        pass


@pytest.mark.parametrize("what", torn_tails([b"?" * 160] * 3))
def test_I10_old_copy_is_still_refused_behind_a_torn_tail(tmp_path: Path, what: str) -> None:
    path = tmp_path / "ledger.db"
    with ledger_at(path) as ledger:
        pass
    old = path.read_bytes()
    with ledger_at(path) as ledger:
        for _ in range(4):
            Bench(ledger)
    lines = checkpoints_beside(path).path.read_bytes().splitlines(keepends=True)
    for left in tmp_path.glob("ledger.db-*"):
        left.unlink()
    path.write_bytes(old)
    checkpoints_beside(path).path.write_bytes(torn_tails(lines)[what])
    if what == "only the first line is left":  # it proves an empty log, and that is what is there
        return
    with pytest.raises(LedgerCorrupt, match="holds 0 records"), ledger_at(path):
        pass


def test_I10_bytes_that_no_torn_line_holds_are_still_an_edit(
    grown: tuple[Path, list[bytes]],
) -> None:
    path, lines = grown
    for bad in (b"garbage\n", b"\xa5" * 40 + b"\n", b"\x01" * 40 + b"\n"):
        checkpoints_beside(path).path.write_bytes(b"".join(lines) + bad)
        with pytest.raises(LedgerCorrupt, match="the file was changed"), ledger_at(path):
            pass


# --- stored assets, exports, keys ---------------------------------------------------------------


def test_stored_bytes_and_every_new_name_are_on_the_disk(
    tmp_path: Path, flushed: list[str]
) -> None:
    root = tmp_path / "a" / "store"
    sha256, _ = Store(str(root)).add(io.BytesIO(png(size=4)))
    folder = root / sha256[:2]
    assert [one for one in flushed if "incoming/" in one and not one.endswith("/")]
    assert flushed[-1] == f"{folder}/"  # the name comes last
    for above in (tmp_path, tmp_path / "a", root):
        assert f"{above}/" in flushed
    flushed.clear()
    Store(str(root)).add(io.BytesIO(png(size=4)))  # known: whoever wrote it may have died
    assert flushed[-2:] == [str(folder / sha256), f"{folder}/"]


def test_bytes_are_flushed_before_they_get_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flushed: list[str]
) -> None:
    at_rename: list[int] = []
    replace = os.replace

    def note(*arguments: Any) -> None:
        at_rename.append(sum("incoming/" in one and not one.endswith("/") for one in flushed))
        replace(*arguments)

    monkeypatch.setattr(os, "replace", note)
    Store(str(tmp_path)).add(io.BytesIO(png(size=4)))
    assert at_rename == [1]


def test_bytes_that_an_older_version_lost_are_written_again(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    sha256, _ = store.add(io.BytesIO(png(size=4)))
    (tmp_path / sha256[:2] / sha256).write_bytes(b"")  # a power cut took them
    with pytest.raises(AssetError, match="not what was decided on"):
        store.fetch(sha256, io.BytesIO())
    store.add(io.BytesIO(png(size=4)))
    assert store.fetch(sha256, io.BytesIO()) == len(png(size=4))


def test_store_that_can_not_be_flushed_refuses_and_keeps_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AssetError, match="can't be written"):
        store.add(io.BytesIO(png(size=4)))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_store_elsewhere_needs_no_local_flush(flushed: list[str]) -> None:
    store = Store("memory://durable-files")
    sha256, size = store.add(io.BytesIO(png(size=4)))
    assert store.fetch(sha256, io.BytesIO()) == size
    assert flushed == []


def test_exported_bytes_and_a_new_destination_are_on_the_disk(
    tmp_path: Path, flushed: list[str]
) -> None:
    out = tmp_path / "out" / "site"
    site = Destination(
        id="site",
        url=f"file:{out}",
        audience=Audience.PUBLIC,
        environment=Environment.PRODUCTION,
        ceiling=frozenset(),
    )
    folder = Folder(site)
    parcel = Parcel(key="k" * 64, sha256="a" * 64, name="a" * 20 + ".png", data=b"x", texts={})
    folder.put(parcel)
    assert {f"{tmp_path}/", f"{tmp_path}/out/", f"{out}/"} <= set(flushed)
    flushed.clear()
    folder.put(parcel)  # sent before; a receipt relies on it now
    assert str(out / parcel.name) in flushed
    assert flushed[-1] == f"{out}/"


def test_new_log_key_has_its_name_on_the_disk(tmp_path: Path, flushed: list[str]) -> None:
    create_log_key(tmp_path / "keys" / "log.key")
    assert flushed == [f"{tmp_path}/", str(tmp_path / "keys" / "log.key"), f"{tmp_path}/keys/"]


def test_folder_flush_that_a_file_system_does_not_know_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(descriptor: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", unknown)
    durable_files.flush_folder(tmp_path)
    (tmp_path / "f").touch()
    with pytest.raises(OSError, match="Invalid argument"):  # of a file it is no small thing
        durable_files.flush_file(tmp_path / "f")


@pytest.mark.parametrize("file", ["/dev/full", "/dev/zero"])
def test_checkpoint_file_without_an_end_is_not_read_for_ever(tmp_path: Path, file: str) -> None:
    path = tmp_path / "c"
    path.symlink_to(file)
    checkpoints = Checkpoints(path=path, origin="t/log", key=KEY)
    assert checkpoints.newest() is None
    assert list(checkpoints.read()) == []
