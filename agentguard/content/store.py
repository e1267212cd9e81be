"""Bytes: the content-addressed store, and the private folder a call works in.

Media is named by the SHA-256 of its bytes. Inputs are hashed while they are copied for use, and
what differs from what was decided on is refused (I12). Only regular files directly in the call's
scratch folder are taken in, opened by descriptor: no symlinks, no hard links, no other folder (I3).
"""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import io
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from urllib.parse import quote

import fsspec
from fsspec.implementations.local import LocalFileSystem

from agentguard.content.formats.identify import (
    FileText,
    Format,
    Limits,
    MediaRefused,
    inspect,
    read_text,
)
from agentguard.durable_files import flush, flush_file, flush_folder, make_folders
from agentguard.errors import AssetError

_CHUNK = 1 << 20
_PREFIX = "agentguard-call-"


def asset_id(sha256: str) -> str:
    """The id people and models use for an asset: `asset-` and the first 20 hex digits."""
    return f"asset-{sha256[:20]}"


class Store:
    """Asset bytes by SHA-256 on any fsspec file system.

    In a local folder they are on the disk, under their names, before `add` returns: a row of the
    ledger never names bytes that a power cut took. Another file system keeps what it acknowledges
    as well as it does.

    Args:
        url: a folder or fsspec URL, e.g. `.agentguard/assets` or `s3://bucket/assets`.
    """

    def __init__(self, url: str) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(url)
        self._local = isinstance(self._fs, LocalFileSystem)

    def add(self, file: BinaryIO) -> tuple[str, int]:
        """Copy bytes in; returns (SHA-256, size). Known bytes are not written twice.

        Raises:
            AssetError: the store can't be written (disk full, read-only); nothing is left in it.
        """
        incoming = f"{self._root}/incoming/{secrets.token_hex(8)}"
        try:
            try:
                return self._add(file, incoming)
            finally:
                if self._fs.exists(incoming):
                    self._fs.rm_file(incoming)
        except AssetError:
            raise
        except Exception as error:  # each file system brings its own classes of errors
            raise AssetError(f"the asset store can't be written: {_why(error)}") from error

    def _add(self, file: BinaryIO, incoming: str) -> tuple[str, int]:
        self._make_folder(f"{self._root}/incoming")
        with self._fs.open(incoming, "wb") as target:
            sha256, size = _copy(file, target)
            if self._local:
                target.flush()
                flush(target.fileno())
        final = self._place(sha256)
        folder = final.rsplit("/", 1)[0]
        if self._holds(final, sha256):
            if self._local:  # whoever wrote it may have died before it was on the disk
                flush_file(final)
        else:
            self._make_folder(folder)
            if self._local:
                os.replace(incoming, final)
            else:
                self._fs.mv(incoming, final)
        if self._local:
            flush_folder(folder)
        return sha256, size

    def _make_folder(self, path: str) -> None:
        if self._local:
            make_folders(path)
        else:
            self._fs.makedirs(path, exist_ok=True)

    def _holds(self, place: str, sha256: str) -> bool:
        """Whether the bytes are there already; what was swapped or cut off is written again."""
        if not self._fs.exists(place):
            return False
        with self._fs.open(place, "rb") as known:
            return _copy(known, None)[0] == sha256

    def fetch(self, sha256: str, target: BinaryIO) -> int:
        """Copy an asset's bytes out, hashing on the way; returns the size.

        Raises:
            AssetError: the bytes are missing or differ from their name (I12); what was written
                to `target` must not be used.
        """
        try:
            with self._fs.open(self._place(sha256), "rb") as source:
                found, size = _copy(source, target)
        except FileNotFoundError:
            raise AssetError(f"the bytes of {asset_id(sha256)} are not in the store") from None
        except Exception as error:  # each file system brings its own classes of errors
            raise AssetError(f"{asset_id(sha256)} can't be copied: {_why(error)}") from error
        if found != sha256:
            raise AssetError(
                f"the stored bytes of {asset_id(sha256)} are not what was decided on; somebody"
                " changed them: import the asset again and look into the store"
            )
        return size

    def words(self, sha256: str) -> FileText:
        """What is written in an asset beside its picture and sound (I7).

        Raises:
            AssetError: see `fetch`.
        """
        try:
            with tempfile.TemporaryFile() as copy:
                self.fetch(sha256, copy)
                return read_text(copy)
        except OSError as error:
            raise AssetError(f"{asset_id(sha256)} can't be read: {_why(error)}") from error

    def _place(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"


class Scratch:
    """The private folder of one call: inputs copied in, outputs taken from it, then removed.

    Args:
        store: where inputs come from and outputs go.
        limits: what may be taken in.
        parent: the folder to make it in; None is the system's temporary folder.
    """

    def __init__(self, store: Store, *, limits: Limits, parent: Path | None = None) -> None:
        self._store = store
        self.limits = limits
        self._inputs: dict[str, str] = {}
        self._names: set[str] = set()
        self._outputs: set[str] = set()
        self._parent = parent
        self._made: tuple[Path, int] | None = None

    @property
    def folder(self) -> Path:
        """The folder; made when it is first needed, for many calls touch no file.

        Raises:
            AssetError: it can't be made.
        """
        return self._folder()[0]

    def _folder(self) -> tuple[Path, int]:
        if self._made is None:
            try:
                self._made = _private_folder(self._parent)
            except OSError as error:
                raise AssetError(f"no private folder can be made: {_why(error)}") from error
        return self._made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder and all in it; idempotent."""
        made, self._made = self._made, None
        if made is not None:
            folder, descriptor = made
            os.close(descriptor)
            shutil.rmtree(folder, ignore_errors=True)
            if os.path.lexists(folder):
                self._remove_stubborn(folder)

    def _remove_stubborn(self, folder: Path) -> None:
        """What a tool left so that it can't be removed: closed folders, a link in its place."""
        with suppress(OSError):
            folder.unlink()
        with suppress(OSError):
            folder.chmod(0o700)
        for place, inner, _ in os.walk(folder):  # listed top down, so opened on the way
            for name in inner:
                if not os.path.islink(path := os.path.join(place, name)):
                    os.chmod(path, 0o700)
        shutil.rmtree(folder, ignore_errors=True)

    def input(self, sha256: str, extension: str) -> str:
        """The path of a private copy of an asset; the same asset is copied once.

        Raises:
            AssetError: see `Store.fetch`.
        """
        if sha256 not in self._inputs:
            path = self.folder / f"in-{len(self._inputs)}-{asset_id(sha256)}{extension}"
            try:
                with path.open("xb") as target:
                    self._store.fetch(sha256, target)
                path.chmod(0o600)  # a tool may copy the mode along, and must write there again
            except OSError as error:
                raise AssetError(f"{asset_id(sha256)} can't be copied: {_why(error)}") from error
            self._inputs[sha256] = str(path)
            self._names.add(path.name)
        return self._inputs[sha256]

    def input_bytes(self, sha256: str) -> bytes:
        """An asset's bytes, hashed while they were copied."""
        data = io.BytesIO()
        self._store.fetch(sha256, data)
        return data.getvalue()

    def data_url(self, sha256: str, media_type: str) -> str:
        """An asset as a base64 data URL."""
        data = base64.b64encode(self.input_bytes(sha256)).decode("ascii")
        return f"data:{media_type};base64,{data}"

    def output(self, argument: str, suffix: str) -> str:
        """A fresh path for a tool to write to; nothing exists there yet."""
        name = f"out-{secrets.token_hex(4)}-{argument}{suffix}"
        self._outputs.add(name)
        return str(self.folder / name)

    def take(self, path: str) -> tuple[str, int, Format]:
        """Take a file of this folder into the store; returns (SHA-256, size, format).

        Args:
            path: as the tool returned it; it is never followed out of this folder.

        Raises:
            AssetError: no such file, not a regular file of this folder, or not media within the
                limits.
        """
        with self._opened(path) as file:
            return take_in(self._store, file, limits=self.limits)

    def inspect(self, path: str) -> None:
        """Refuse a file of this folder that `take` would refuse; nothing is stored.

        Raises:
            AssetError: see `take`.
        """
        with self._opened(path) as file:
            try:
                inspect(file, limits=self.limits)
            except MediaRefused as error:
                raise AssetError(str(error)) from error

    @contextmanager
    def _opened(self, path: str) -> Iterator[BinaryIO]:
        folder, inside = self._folder()
        name = os.path.basename(path)
        if os.path.abspath(path) != str(folder / name) or name in ("", ".", ".."):
            raise AssetError("an output must be a file directly in the call's scratch folder")
        if name in self._names:
            raise AssetError("an output must be a new file, not the call's own input")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, dir_fd=inside)
        except FileNotFoundError:
            raise AssetError("the tool wrote no output file") from None
        except (OSError, ValueError):  # ValueError: a NUL or a lone surrogate in the name
            raise AssetError("an output must be a regular file, not a link or device") from None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                raise AssetError("an output must be a regular file of its own, not a link")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                yield file
        finally:
            os.close(descriptor)

    def take_bytes(self, data: bytes) -> tuple[str, int, Format]:
        """Take bytes that a tool returned (a content block or artifact) into the store."""
        return take_in(self._store, io.BytesIO(data), limits=self.limits)

    def holds(self, path: str) -> bool:
        """Whether a path, wherever its links lead, is in this folder."""
        if self._made is None:
            return False
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self._made[0]))

    def conceal(self, text: str, shown: Callable[[str], str]) -> str:
        """A text without paths of this folder: each becomes what `shown` says of its name.

        Also percent-encoded, as a file URL, and inputs and outputs by their bare names. A word
        that still names the folder is left out whole.
        """
        if self._made is None:
            return text
        made, _ = self._made
        names = {*self._names, *self._outputs}
        if made.name in text:
            with suppress(OSError):
                names |= set(os.listdir(made))
        for name in sorted(names, key=len, reverse=True):
            whole = str(made / name)
            forms = {f"file://{whole}", f"file://{quote(whole)}", whole, quote(whole),
                     quote(whole, safe="")}  # fmt: skip
            if name in self._names or name in self._outputs:
                forms |= {name, quote(name)}
            for form in sorted(forms, key=len, reverse=True):
                text = text.replace(form, shown(name)) if form in text else text
        folder = made.name.lower()
        if folder not in text.lower():
            return text
        words = re.split(r"(\s+)", text)
        return "".join("[folder]" if folder in word.lower() else word for word in words)


def sweep_scratch(parent: Path | None = None) -> int:
    """Remove the folders of calls whose process died; returns how many.

    A living call holds a lock on its folder, which the system lets go when its process ends.

    Args:
        parent: where they are; None is the system's temporary folder.
    """
    swept = 0
    for path in Path(parent or tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # gone meanwhile, a link, or somebody else's
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(descriptor).st_uid == os.geteuid():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path)
                    swept += 1
            finally:
                os.close(descriptor)
    return swept


def _private_folder(parent: Path | None) -> tuple[Path, int]:
    """A fresh folder and a descriptor of it that holds its lock; see `sweep_scratch`."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent)).resolve()
        with suppress(FileNotFoundError, BlockingIOError):  # swept before it was locked
            try:
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            except OSError:  # no descriptor is left
                with suppress(OSError):
                    folder.rmdir()
                raise
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.stat(folder)
                return folder, descriptor
            except OSError as error:
                if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    return folder, descriptor  # no locks here, so nothing is swept here either
                os.close(descriptor)
                raise


def take_in(store: Store, file: BinaryIO, *, limits: Limits) -> tuple[str, int, Format]:
    """Inspect a file and add it to a store; returns (SHA-256, size, format).

    What is inspected is a private copy, so that a file which changes meanwhile can't differ from
    what was looked at.

    Raises:
        AssetError: not media that this version knows, damaged, or over the limits.
    """
    try:
        with tempfile.TemporaryFile() as copy:
            while chunk := file.read(_CHUNK):
                copy.write(chunk)
                if copy.tell() > limits.max_bytes:
                    raise AssetError(
                        f"the file is larger than {limits.max_bytes} bytes, the limit of this"
                        " workspace"
                    )
            copy.seek(0)
            format_ = inspect(copy, limits=limits)
            copy.seek(0)
            sha256, size = store.add(copy)
    except MediaRefused as error:
        raise AssetError(str(error)) from error
    except OSError as error:
        raise AssetError(f"the file can't be copied: {_why(error)}") from error
    return sha256, size, format_


def _copy(source: BinaryIO, target: BinaryIO | None) -> tuple[str, int]:
    """Copy to the end, or only read; returns (SHA-256, size)."""
    digest = hashlib.sha256()
    size = 0
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        size += len(chunk)
        if target is not None:
            target.write(chunk)
    return digest.hexdigest(), size


def _why(error: Exception) -> str:
    """What went wrong, without the path that an error's own text names."""
    return getattr(error, "strerror", None) or type(error).__name__
