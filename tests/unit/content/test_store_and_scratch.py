"""Store and scratch folder: only whole media of a call's own folder is taken in (I3, I12)."""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from agentguard.content.formats.identify import Limits
from agentguard.content.intake import take_in
from agentguard.content.scratch import Scratch, sweep_scratch
from agentguard.content.store import Store
from agentguard.errors import AssetError
from agentguard.model import asset_id
from tests.support.media_files import png

LIMITS = Limits(max_bytes=200_000, max_pixels=1_000_000)


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 40,000 x 40,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(
            ">I", zlib.crc32(kind + body))  # fmt: skip

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(
        b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def scratch(store: Store, tmp_path: Path) -> Iterator[Scratch]:
    (tmp_path / "scratch").mkdir()
    with Scratch(store, limits=LIMITS, parent=tmp_path / "scratch") as made:
        yield made
    assert list((tmp_path / "scratch").iterdir()) == []


def kept(folder: Path) -> list[str]:
    """Names of the bytes in a store, those still coming in among them."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# --- taking outputs in ----------------------------------------------------------------------------


def test_a_picture_written_to_its_path_is_taken_in(scratch: Scratch, store: Store) -> None:
    path = scratch.output("file", ".png")
    Path(path).write_bytes(png())
    sha256, size, format_ = scratch.take(path)
    assert (size, format_.media_type, format_.width) == (len(png()), "image/png", 16)
    out = io.BytesIO()
    assert store.fetch(sha256, out) == size
    assert out.getvalue() == png()


def _symlink(folder: Path, path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _inner_symlink(folder: Path, path: Path) -> None:
    (folder / "real.png").write_bytes(png())
    path.symlink_to(folder / "real.png")


def _hard_link(folder: Path, path: Path) -> None:
    foreign = folder.parent.parent / "foreign.png"
    foreign.write_bytes(png())
    os.link(foreign, path)


def _fifo(folder: Path, path: Path) -> None:
    os.mkfifo(path)


def _directory(folder: Path, path: Path) -> None:
    path.mkdir()


def _device(folder: Path, path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero
    except OSError:
        pytest.skip("no device can be made here")


def _missing(folder: Path, path: Path) -> None: ...


def _empty(folder: Path, path: Path) -> None:
    path.write_bytes(b"")


def _truncated(folder: Path, path: Path) -> None:
    path.write_bytes(png(size=64)[:-20])


def _trailing(folder: Path, path: Path) -> None:
    path.write_bytes(png() + b"more")


def _bomb(folder: Path, path: Path) -> None:
    path.write_bytes(bomb())


def _huge(folder: Path, path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: a terabyte that takes no room


def _no_media(folder: Path, path: Path) -> None:
    path.write_bytes(b"\x7fELF" + bytes(100))


@pytest.mark.parametrize(
    "write",
    [_symlink, _inner_symlink, _hard_link, _fifo, _directory, _device, _missing, _empty,
     _truncated, _trailing, _bomb, _huge, _no_media],
)  # fmt: skip
def test_what_is_no_media_file_of_its_own_is_refused_and_never_waited_for(
    scratch: Scratch, tmp_path: Path, write: Callable[[Path, Path], None]
) -> None:
    path = Path(scratch.output("file", ".png"))
    write(scratch.folder, path)
    with pytest.raises(AssetError) as caught:  # waiting for the FIFO would never end
        scratch.take(str(path))
    assert "/" not in str(caught.value)
    assert kept(tmp_path / "store") == []


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../x", "x/../../y", "", ".", "..", "/dev/null", "/proc/self/mem", "a\0b",
     "a\ud800b", "{folder}", "{folder}/", "{folder}/..", "{folder}/../x.png", "{folder}/sub/x.png",
     "{folder}/a\0b.png", "{folder}/a\ud800.png", "{folder}/" + "n" * 300, "~/x.png"],
)  # fmt: skip
def test_a_path_elsewhere_is_refused(scratch: Scratch, path: str) -> None:
    (scratch.folder / "sub").mkdir()
    (scratch.folder / "sub" / "x.png").write_bytes(png())
    with pytest.raises(AssetError):
        scratch.take(path.replace("{folder}", str(scratch.folder)))


@pytest.mark.parametrize("name", ["two\nlines.png", "bild-ü.png", "sp ace.png", "日本.png", "-rf"])
def test_an_odd_name_in_the_folder_is_only_a_name(scratch: Scratch, name: str) -> None:
    (scratch.folder / name).write_bytes(png())
    assert scratch.take(str(scratch.folder / name))[2].media_type == "image/png"


def test_a_folder_reached_through_a_link_is_the_same_folder_or_refused(
    scratch: Scratch, tmp_path: Path
) -> None:
    (tmp_path / "alias").symlink_to(scratch.folder)
    (scratch.folder / "x.png").write_bytes(png())
    with pytest.raises(AssetError, match="directly"):
        scratch.take(str(tmp_path / "alias" / "x.png"))


def test_the_input_is_no_output_under_any_name(scratch: Scratch, store: Store) -> None:
    sha256, _ = store.add(io.BytesIO(png()))
    path = scratch.input(sha256, ".png")
    with pytest.raises(AssetError, match="own input"):
        scratch.take(path)
    os.link(path, scratch.folder / "again.png")
    with pytest.raises(AssetError, match="link"):
        scratch.take(str(scratch.folder / "again.png"))


def test_a_file_that_changes_after_it_was_taken_is_what_it_was(
    scratch: Scratch, store: Store
) -> None:
    path = Path(scratch.output("file", ".png"))
    path.write_bytes(png(colour="red"))
    sha256, *_ = scratch.take(str(path))
    path.write_bytes(png(colour="green"))
    out = io.BytesIO()
    store.fetch(sha256, out)
    assert out.getvalue() == png(colour="red")


def test_I12_a_file_that_changes_while_it_is_read_is_stored_as_it_was_inspected(
    store: Store,
) -> None:
    class Changing(io.BytesIO):
        """Another picture at each reading from the start."""

        def seek(self, *where: int) -> int:
            self.__init__(png(colour="green"))  # type: ignore[misc]
            return 0

    sha256, *_ = take_in(store, Changing(png(colour="red")), limits=LIMITS)
    out = io.BytesIO()
    store.fetch(sha256, out)
    assert out.getvalue() == png(colour="red")


def test_bytes_are_taken_in_without_a_file(scratch: Scratch) -> None:
    assert scratch.take_bytes(png())[2].media_type == "image/png"
    with pytest.raises(AssetError):
        scratch.take_bytes(png()[:40])
    with pytest.raises(AssetError, match=r"larger|at most"):
        scratch.take_bytes(b"\0" * 300_000)
    assert list(scratch.folder.iterdir()) == []


# --- inputs ---------------------------------------------------------------------------------------


def test_I12_swapped_bytes_are_not_handed_to_a_tool(
    scratch: Scratch, store: Store, tmp_path: Path
) -> None:
    sha256, _ = store.add(io.BytesIO(png()))
    (tmp_path / "store" / sha256[:2] / sha256).write_bytes(png(colour="red"))
    for reads in (lambda: scratch.input(sha256, ".png"),
                  lambda: scratch.input_bytes(sha256),
                  lambda: scratch.data_url(sha256, "image/png")):  # fmt: skip
        with pytest.raises(AssetError, match="not what was decided on"):
            reads()


def test_importing_again_heals_what_was_swapped_or_cut_off(store: Store, tmp_path: Path) -> None:
    sha256, _ = store.add(io.BytesIO(png()))
    place = tmp_path / "store" / sha256[:2] / sha256
    for wrong in (png(colour="red"), png()[:20], b""):
        place.write_bytes(wrong)
        store.add(io.BytesIO(png()))
        store.fetch(sha256, io.BytesIO())
    assert kept(tmp_path / "store") == [sha256]


def test_missing_bytes_are_said_to_be_missing(store: Store) -> None:
    with pytest.raises(AssetError, match="not in the store"):
        store.fetch("0" * 64, io.BytesIO())


def test_an_input_is_private_and_copied_once(scratch: Scratch, store: Store) -> None:
    sha256, _ = store.add(io.BytesIO(png()))
    path = Path(scratch.input(sha256, ".png"))
    assert scratch.input(sha256, ".png") == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(scratch.folder.stat().st_mode) == 0o700
    assert scratch.data_url(sha256, "image/png").startswith("data:image/png;base64,iVBOR")


# --- the store on other file systems, and full disks ----------------------------------------------


def test_the_store_works_on_any_fsspec_file_system() -> None:
    MemoryFileSystem.store.clear()
    store = Store("memory://assets")
    sha256, size = store.add(io.BytesIO(png()))
    assert store.add(io.BytesIO(png())) == (sha256, size)
    out = io.BytesIO()
    assert store.fetch(sha256, out) == size
    assert [name for name in MemoryFileSystem.store if "incoming" in name] == []
    MemoryFileSystem.store[f"/assets/{sha256[:2]}/{sha256}"].write(b"other")
    with pytest.raises(AssetError, match="not what was decided on"):
        store.fetch(sha256, io.BytesIO())


class _Full:
    """A file on a disk that is full after a few bytes."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __enter__(self) -> _Full:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        self._file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device", "/srv/secret-place")


@pytest.mark.parametrize("url", ["{folder}/store", "memory://full"])
def test_a_full_disk_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str
) -> None:
    store = Store(url.format(folder=tmp_path))
    kind = MemoryFileSystem if url.startswith("memory") else LocalFileSystem
    opened = kind.open
    monkeypatch.setattr(
        kind,
        "open",
        lambda fs, path, mode="rb", **more: (
            _Full(opened(fs, path, mode, **more)) if "w" in mode else opened(fs, path, mode, **more)
        ),
    )
    with pytest.raises(AssetError, match="No space left") as caught:
        take_in(store, io.BytesIO(png()), limits=LIMITS)
    assert "secret-place" not in str(caught.value)
    assert kept(tmp_path) == []
    assert [name for name in MemoryFileSystem.store if name.startswith("/full")] == []


def test_any_error_of_a_file_system_is_an_asset_error(
    monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    class CloudError(Exception):
        """As botocore's: no OSError."""

    def fail(*_: object, **__: object) -> None:
        raise CloudError("https://bucket.example/?X-Amz-Signature=abc")

    monkeypatch.setattr(LocalFileSystem, "open", fail)
    for action in (lambda: store.add(io.BytesIO(png())),
                   lambda: store.fetch("0" * 64, io.BytesIO())):  # fmt: skip
        with pytest.raises(AssetError, match="CloudError") as caught:
            action()
        assert "Signature" not in str(caught.value)


def test_a_full_temporary_folder_is_an_asset_error(
    monkeypatch: pytest.MonkeyPatch, store: Store, tmp_path: Path
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(AssetError, match="No space"):
        take_in(store, io.BytesIO(png()), limits=LIMITS)
    with pytest.raises(AssetError, match="private folder"):
        Scratch(store, limits=LIMITS, parent=tmp_path / "no such folder").output("file", ".png")


def test_many_threads_add_the_same_bytes(store: Store, tmp_path: Path) -> None:
    data = png(size=64)
    errors: list[BaseException] = []

    def add() -> None:
        try:
            for _ in range(10):
                store.add(io.BytesIO(data))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(kept(tmp_path / "store")) == 1


# --- what the model sees of the folder, and its end -----------------------------------------------


@pytest.mark.parametrize(
    "said",
    ["{path}", "file://{path}", "see {path}.", "[{path}]", "{folder}/other/deep.png", "{folder}",
     "%2F{name}%2Fx", "{path}:12", "\"{path}\"", "{folder}/./x.png", "\\/tmp\\/{name}\\/x.png",
     "{upper}", "{base}", "{input}", "{input_base}", "cd {folder};ls"],
)  # fmt: skip
def test_no_path_of_the_folder_reaches_the_model(scratch: Scratch, store: Store, said: str) -> None:
    sha256, _ = store.add(io.BytesIO(png()))
    path, copy = scratch.output("file", ".png"), scratch.input(sha256, ".png")
    Path(path).write_bytes(png())
    text = said.format(
        path=path,
        folder=scratch.folder,
        name=scratch.folder.name,
        upper=path.upper(),
        base=os.path.basename(path),
        input=copy,
        input_base=os.path.basename(copy),
    )
    seen = scratch.conceal(f"wrote {text} and went on", lambda name: "[file]")
    assert scratch.folder.name not in seen.lower()
    assert os.path.basename(path) not in seen
    assert os.path.basename(copy) not in seen
    assert seen.startswith("wrote ")
    assert seen.endswith(" and went on")


def test_concealing_a_long_text_takes_no_time(scratch: Scratch) -> None:
    before = time.process_time()  # CPU: what else runs here does not count
    scratch.conceal(scratch.folder.name * 50_000, lambda name: "[file]")
    scratch.conceal("x" * 2_000_000 + str(scratch.folder), lambda name: "[file]")
    assert time.process_time() - before < 30  # minutes, if it were quadratic


def test_the_folder_is_removed_whatever_a_tool_left_in_it(store: Store, tmp_path: Path) -> None:
    def closed(folder: Path) -> None:
        (folder / "a" / "b").mkdir(parents=True)
        (folder / "a" / "b" / "c").write_text("x")
        (folder / "a" / "b").chmod(0)
        (folder / "a").chmod(0)
        folder.chmod(0)

    def linked(folder: Path) -> None:
        (folder / "out").symlink_to(tmp_path)
        os.mkfifo(folder / "fifo")

    def replaced(folder: Path) -> None:
        folder.rmdir()
        folder.symlink_to(tmp_path / "keep")

    def gone(folder: Path) -> None:
        folder.rmdir()

    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / "mine").write_text("x")
    (tmp_path / "scratch").mkdir()
    for spoil in (closed, linked, replaced, gone):
        scratch = Scratch(store, limits=LIMITS, parent=tmp_path / "scratch")
        spoil(scratch.folder)
        scratch.close()
        scratch.close()
        assert list((tmp_path / "scratch").iterdir()) == [], spoil.__name__
    assert (tmp_path / "keep" / "mine").exists()


_DYING = """
import os, sys
from pathlib import Path
from agentguard.content.scratch import Scratch
from agentguard.content.store import Store
from agentguard.content.formats.identify import Limits
scratch = Scratch(Store("memory://x"), limits=Limits(max_bytes=9), parent=Path(sys.argv[1]))
(scratch.folder / "in.png").write_text("private")
os._exit(9)
"""


def test_what_a_dead_process_left_is_swept_and_a_living_call_is_not(
    scratch: Scratch, tmp_path: Path
) -> None:
    parent = tmp_path / "scratch"
    scratch.output("file", ".png")  # makes the folder
    died = subprocess.run(
        [sys.executable, "-c", _DYING, str(parent)],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        check=False,
    )
    assert died.returncode == 9
    (tmp_path / "mine").mkdir()
    (parent / "agentguard-call-link").symlink_to(tmp_path / "mine")
    (parent / "another-folder").mkdir()
    assert len(list(parent.iterdir())) == 4
    assert sweep_scratch(parent) == 1
    assert scratch.folder.is_dir()
    assert (tmp_path / "mine").is_dir()
    (parent / "agentguard-call-link").unlink()
    (parent / "another-folder").rmdir()
    assert sweep_scratch(parent) == 0


def test_an_asset_id_is_the_start_of_its_digest() -> None:
    assert asset_id("ab" * 32) == "asset-" + "ab" * 10


def test_fsspec_knows_the_file_systems_these_tests_use() -> None:
    assert {"file", "memory"} <= set(fsspec.available_protocols())
