"""The way out: a parcel arrives once, whole, under a name from its digest, or the error says so."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from agentguard.errors import AssetError, DestinationError
from agentguard.export import folder as destinations
from agentguard.export.broker import Broker
from agentguard.export.folder import Folder, Parcel, adapter_for
from agentguard.model import Audience, Destination, Environment

DATA = b"\x89PNG the picture"
SHA = hashlib.sha256(DATA).hexdigest()
NAME = f"{SHA[:20]}.png"
ONE, TWO = "a1" * 32, "b2" * 32


def destination(url: str, **more: Any) -> Destination:
    return Destination(
        id="site",
        url=url,
        audience=more.get("audience", Audience.PUBLIC),
        environment=Environment.PRODUCTION,
        ceiling=frozenset(),
    )


def parcel(key: str = ONE, data: bytes = DATA, **more: Any) -> Parcel:
    texts = more.pop("texts", {"caption": "Sommer"})
    return Parcel(key=key, sha256=SHA, name=more.pop("name", NAME), data=data, texts=texts)


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    return f"file://{tmp_path}/out" if request.param == "file" else "memory://site/out"


def arrived(url: str) -> dict[str, bytes]:
    """What lies at a destination, media and texts, by name."""
    if url.startswith("memory"):
        return {
            path.rsplit("/", 1)[-1]: file.getvalue()
            for path, file in MemoryFileSystem.store.items()
        }
    folder = Path(url.removeprefix("file://"))
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


# --- what arrives ---------------------------------------------------------------------------------


def test_a_parcel_arrives_with_its_texts_and_the_slip_of_its_key(url: str) -> None:
    assert Folder(destination(url)).put(parcel()) == f"site/{NAME}"
    assert arrived(url) == {
        NAME: DATA,
        f"{NAME}.caption.{ONE[:12]}.txt": b"Sommer",
        f"{NAME}.{ONE[:12]}.txt": f"key {ONE}\nsha256 {SHA}\n".encode(),
    }


def test_I8_sending_again_changes_nothing(url: str) -> None:
    folder = Folder(destination(url))
    first = folder.put(parcel())
    before = arrived(url)
    assert folder.put(parcel()) == first
    assert Folder(destination(url)).put(parcel()) == first
    assert arrived(url) == before


def test_other_bytes_under_the_name_are_refused_and_stay(url: str) -> None:
    folder = Folder(destination(url))
    folder.put(parcel())
    before = arrived(url)
    with pytest.raises(DestinationError, match="other bytes") as caught:
        folder.put(parcel(TWO, data=b"not the same", texts={"caption": "Herbst"}))
    assert not caught.value.outcome_unknown
    assert arrived(url) == before  # the refused parcel left no text either


def test_another_text_under_the_same_key_is_refused(url: str) -> None:
    folder = Folder(destination(url))
    folder.put(parcel())
    with pytest.raises(DestinationError, match="other bytes"):
        folder.put(parcel(texts={"caption": "changed"}))


@pytest.mark.parametrize(
    "name",
    ["../x.png", "x.png", f"{SHA[:20]}.p/ng", f"{SHA[:20]}", f"{SHA[:20]}.png\n", f"/{NAME}"],
)
def test_file_names_come_from_digests_only(url: str, name: str) -> None:
    with pytest.raises(DestinationError, match="name"):
        Folder(destination(url)).put(parcel(name=name))
    with pytest.raises(DestinationError, match="name"):
        Folder(destination(url)).put(parcel(texts={"../caption": "x"}))
    assert arrived(url) == {}


def test_many_threads_send_one_parcel(url: str) -> None:
    results: list[Any] = []
    start = threading.Barrier(8)

    def send() -> None:
        start.wait()
        try:
            results.append(Folder(destination(url)).put(parcel()))
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [f"site/{NAME}"] * 8
    assert len(arrived(url)) == 3


def test_a_link_at_the_destination_is_not_followed_to_write(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DestinationError):
        Folder(destination(f"file://{tmp_path}/out")).put(parcel())
    assert not (tmp_path / "elsewhere").exists()


def test_nobody_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    fsync = os.fsync

    def look(descriptor: int) -> None:
        seen.append({name for name in os.listdir(tmp_path / "out") if not name.startswith(".")})
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    Folder(destination(f"file://{tmp_path}/out")).put(parcel())
    assert NAME not in seen[-2]  # the media was whole and on the disk before it had its name
    assert NAME in seen[-1]


def test_a_file_system_without_links_gets_its_files_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(os, "link", no_links)
    folder = Folder(destination(f"file://{tmp_path}/out"))
    folder.put(parcel())
    folder.put(parcel())
    assert arrived(f"file://{tmp_path}/out")[NAME] == DATA


# --- refusals and what is known of the outcome ----------------------------------------------------


def refusing(name: str, error: Callable[[], Exception]) -> Callable[..., Any]:
    """A stand-in that refuses the media and lets texts pass."""

    def fail(*arguments: Any, **_: Any) -> Any:
        if any(str(argument).endswith(name) for argument in arguments):
            raise error()
        return original(*arguments, **_)

    original = MemoryFileSystem.pipe_file
    return fail


@pytest.mark.parametrize(
    ("error", "unknown"),
    [
        (lambda: OSError(errno.ENOSPC, "No space left", "/srv/secret"), False),
        (lambda: OSError(errno.EDQUOT, "quota"), False),
        (lambda: PermissionError("AccessDenied: key AKIA..."), False),
        (lambda: FileNotFoundError("no such bucket"), False),
        (lambda: OSError(errno.EIO, "I/O error"), True),
        (lambda: TimeoutError("read timed out"), True),
        (lambda: ConnectionResetError(errno.ECONNRESET, "reset"), True),
        (lambda: OSError("botched"), True),
        (lambda: RuntimeError("https://user:password@bucket.example"), True),
    ],
)
def test_I8_an_error_says_whether_the_bytes_may_have_arrived(
    monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception], unknown: bool
) -> None:
    MemoryFileSystem.store.clear()
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refusing(NAME, error))
    folder = Folder(destination("memory://site/out"))
    with pytest.raises(DestinationError) as caught:
        folder.put(parcel())
    assert caught.value.outcome_unknown is unknown
    for leak in ("secret", "AKIA", "password", "bucket"):
        assert leak not in str(caught.value)
    left = arrived("memory://site/out")
    assert (f"{NAME}.{ONE[:12]}.txt" in left) is unknown  # a slip to find it by, or nothing at all
    assert (left == {}) is not unknown


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        if os.fstat(descriptor).st_size == len(DATA):
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DestinationError, match="ENOSPC") as caught:
        Folder(destination(f"file://{tmp_path}/out")).put(parcel())
    assert not caught.value.outcome_unknown
    assert arrived(f"file://{tmp_path}/out") == {}


def test_a_folder_that_is_none_is_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DestinationError) as caught:
        Folder(destination(f"file://{tmp_path}/out")).put(parcel())
    assert not caught.value.outcome_unknown
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(DestinationError) as caught:
        Folder(destination("file:///proc/1/nowhere")).put(parcel())
    assert not caught.value.outcome_unknown


def test_a_read_only_folder_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(destinations, "make_folders", refuse)
    with pytest.raises(DestinationError, match="EACCES") as caught:
        Folder(destination(f"file://{tmp_path}/out")).put(parcel())
    assert not caught.value.outcome_unknown


@pytest.mark.parametrize("url", ["nosuch://x/y", "vendor:"])
def test_a_place_that_nothing_can_reach_is_a_refusal(url: str) -> None:
    with pytest.raises(DestinationError) as caught:
        adapter_for(destination(url))
    assert not caught.value.outcome_unknown


# --- after a crash --------------------------------------------------------------------------------


class Crash(BaseException):
    """The process dies here."""


def crash_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Die before the nth write of a parcel: 0 caption, 1 slip, 2 media; 3: after the last."""
    count = iter(range(100))
    create = Folder._create

    def dying(self: Folder, path: str, data: bytes) -> bool:
        if next(count) == step:
            raise Crash
        return create(self, path, data)

    monkeypatch.setattr(Folder, "_create", dying)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_after_a_crash_before_the_media_nothing_is_found(
    url: str, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    with monkeypatch.context() as patched:
        crash_at(patched, step)
        with pytest.raises(Crash):
            Folder(destination(url)).put(parcel())
    folder = Folder(destination(url))
    assert folder.find(ONE, SHA) is None
    folder.put(parcel())
    assert folder.find(ONE, SHA) == f"site/{NAME}"


@pytest.mark.parametrize(("step", "found"), [(0, False), (1, False), (2, True)])
def test_an_earlier_export_of_the_same_bytes_does_not_stand_for_a_crashed_one(
    url: str, monkeypatch: pytest.MonkeyPatch, step: int, found: bool
) -> None:
    Folder(destination(url)).put(parcel(ONE, texts={}))
    with monkeypatch.context() as patched:
        crash_at(patched, step)
        with pytest.raises(Crash):
            Folder(destination(url)).put(parcel(TWO))
    # With all texts and its slip there, and the same media, it is what sending would have made.
    assert (Folder(destination(url)).find(TWO, SHA) is not None) is found
    assert Folder(destination(url)).find(ONE, SHA) == f"site/{NAME}"


def test_media_of_unknown_origin_is_left_to_a_person(url: str) -> None:
    folder = Folder(destination(url))
    folder.put(parcel())
    if url.startswith("memory"):
        for path in list(MemoryFileSystem.store):
            if path.endswith(".txt"):
                del MemoryFileSystem.store[path]
    else:
        for path in Path(url.removeprefix("file://")).glob("*.txt"):
            path.unlink()
    with pytest.raises(DestinationError, match="look there") as caught:
        Folder(destination(url)).find(ONE, SHA)
    assert caught.value.outcome_unknown


def test_what_a_crash_left_half_written_is_never_found(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / f".{NAME}.1234abcd.partial").write_bytes(DATA)
    (out / f"{NAME}.{ONE[:12]}.txt").write_bytes(f"key {ONE}\nsha256 {SHA}\n".encode())
    folder = Folder(destination(f"file://{out}"))
    assert folder.find(ONE, SHA) is None
    (out / NAME).write_bytes(DATA[:4])
    assert folder.find(ONE, SHA) is None


def test_nothing_is_found_where_nothing_is(url: str) -> None:
    assert Folder(destination(url)).find(ONE, SHA) is None


def test_what_can_not_be_read_is_not_known(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TimeoutError("no answer from https://bucket.example")

    monkeypatch.setattr(LocalFileSystem, "ls", fail)
    monkeypatch.setattr(MemoryFileSystem, "ls", fail)
    with pytest.raises(DestinationError, match="TimeoutError") as caught:
        Folder(destination(url)).find(ONE, SHA)
    assert caught.value.outcome_unknown
    assert "bucket" not in str(caught.value)


# --- the broker -----------------------------------------------------------------------------------


def broker(url: str, **more: Any) -> Broker:
    return Broker({"site": destination(url)}, **more)


def send(it: Broker, path: Path, **more: Any) -> Any:
    given = {"destination": "site", "key": ONE, "sha256": SHA, "extension": ".png", "texts": {}}
    return it.send(path=str(path), **{**given, **more})


def test_the_broker_sends_what_was_decided_on(tmp_path: Path, url: str) -> None:
    (tmp_path / "copy.png").write_bytes(DATA)
    receipt = send(broker(url), tmp_path / "copy.png")
    assert (receipt.location, receipt.sha256) == (f"site/{NAME}", SHA)
    assert broker(url).find(destination="site", key=ONE, sha256=SHA) == receipt
    assert broker(url).find(destination="site", key=TWO, sha256=SHA) is None


def test_I12_a_copy_that_changed_or_is_gone_is_not_sent(tmp_path: Path, url: str) -> None:
    (tmp_path / "copy.png").write_bytes(DATA + b"x")
    for name in ("copy.png", "gone.png"):
        with pytest.raises(AssetError):
            send(broker(url), tmp_path / name)
    assert arrived(url) == {}


def test_an_unknown_destination_is_a_refusal(tmp_path: Path, url: str) -> None:
    (tmp_path / "copy.png").write_bytes(DATA)
    for name in ("", "SITE", "site/", "site "):
        with pytest.raises(DestinationError) as caught:
            send(broker(url), tmp_path / "copy.png", destination=name)
        assert not caught.value.outcome_unknown


def test_one_adapter_serves_all_threads(tmp_path: Path, url: str) -> None:
    (tmp_path / "copy.png").write_bytes(DATA)
    made: list[Any] = []

    def make(one: Destination) -> Any:
        made.append(one)
        return destinations.adapter_for(one)

    it = broker(url, make_adapter=make)
    threads = [threading.Thread(target=send, args=(it, tmp_path / "copy.png")) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert io.BytesIO(arrived(url)[NAME]).read() == DATA
