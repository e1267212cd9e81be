"""The private folder that a call works in.

Inputs are hashed while they are copied for use, and what differs from what was decided on is
refused (I12). Only regular files directly in the folder are taken in, opened by descriptor: no
symlinks, no hard links, no other folder (I3).
"""

from __future__ import annotations

import base64
import errno
import fcntl
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

from agentguard.content.formats.identify import (
    Format,
    Limits,
    MediaRefused,
    inspect,
)
from agentguard.content.intake import take_in
from agentguard.content.store import Store, reason_of
from agentguard.errors import AssetError
from agentguard.model import asset_id

_PREFIX = "agentguard-call-"
_MOST_WATCHED = 100_000


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
        self._watched: dict[str, tuple[str, frozenset[tuple[int, int]]]] = {}
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
                raise AssetError(f"no private folder can be made: {reason_of(error)}") from error
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
                raise AssetError(
                    f"{asset_id(sha256)} can't be copied: {reason_of(error)}"
                ) from error
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

    def watch(self, folder: str) -> None:
        """Note which files a folder of the tool's own holds, before the tool runs.

        Raises:
            AssetError: it can't be read, or holds too many.
        """
        root = os.path.realpath(folder)
        held: set[tuple[int, int]] = set()
        try:
            for place, _, names in os.walk(root, onerror=_raise):
                for name in names:
                    with suppress(FileNotFoundError):  # removed right now
                        status = os.lstat(os.path.join(place, name))
                        held.add((status.st_dev, status.st_ino))
                if len(held) > _MOST_WATCHED:
                    raise AssetError(
                        f"the folder that its tool writes to holds more than {_MOST_WATCHED} files;"
                        " move the old ones away"
                    )
        except OSError as error:
            raise AssetError(
                f"the folder that its tool writes to can't be read: {reason_of(error)}"
            ) from error
        self._watched[folder] = (root, frozenset(held))

    def take_new(self, path: str, folder: str | None) -> tuple[str, int, Format]:
        """Take a file that a tool returned: of this folder, or new in one that was watched.

        A path is no authority: a tool that a model leads to name an older file, of another job,
        gets nothing taken in (I2, I3). The bytes are hashed while they are copied (I12).

        Args:
            folder: as it was watched; None: only this folder counts.

        Raises:
            AssetError: see `take`; or the file was there before, or lies elsewhere.
        """
        if folder is None or self.holds(path):
            return self.take(path)
        root, held = self._watched[folder]
        whole = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        if not Path(whole).is_relative_to(root):
            raise AssetError("a returned file must lie in the folder that its tool declares")
        descriptor = _open_below(root, os.path.relpath(whole, root))
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                raise AssetError("an output must be a regular file of its own, not a link")
            if (status.st_dev, status.st_ino) in held:
                raise AssetError(
                    "a returned file must be new, and this one was there before; let the tool write"
                    " under a new name each time, or to an argument with the role Output()"
                )
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return take_in(self._store, file, limits=self.limits)
        finally:
            os.close(descriptor)

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
            raise AssetError(
                "an output must be a file directly in the call's scratch folder: let the guard name"
                ' it, Output() on an argument; or Asset("path", folder=...) for a folder of its own'
            )
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


def _open_below(root: str, path: str) -> int:
    """Open a file below a folder, following no link on the way.

    Raises:
        AssetError: there is none, or a link.
    """
    folder = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    *steps, name = path.split(os.sep)
    try:
        inside = os.open(root, folder)
        try:
            for step in steps:
                below = os.open(step, folder, dir_fd=inside)
                os.close(inside)
                inside = below
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            return os.open(name, flags, dir_fd=inside)
        finally:
            os.close(inside)
    except FileNotFoundError:
        raise AssetError("the tool wrote no output file") from None
    except (OSError, ValueError):
        raise AssetError("an output must be a regular file, not a link or device") from None


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # the tool makes the folder
        raise error


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
