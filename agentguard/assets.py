"""Bytes: the content-addressed store, and the private folder a call works in.

Media is named by the SHA-256 of its bytes. Inputs are hashed while they are copied for use, and
what differs from what was decided on is refused (I12). Only regular files directly in the call's
scratch folder are taken in, opened by descriptor: no symlinks, no hard links, no other folder (I3).
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import fsspec

from agentguard.errors import AssetError
from agentguard.formats import Format, Limits, MediaRefused, inspect

_CHUNK = 1 << 20


def asset_id(sha256: str) -> str:
    """The id people and models use for an asset: `asset-` and the first 20 hex digits."""
    return f"asset-{sha256[:20]}"


class Store:
    """Asset bytes by SHA-256 on any fsspec file system.

    Args:
        url: a folder or fsspec URL, e.g. `.agentguard/assets` or `s3://bucket/assets`.
    """

    def __init__(self, url: str) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(url)

    def add(self, file: BinaryIO) -> tuple[str, int]:
        """Copy bytes in; returns (SHA-256, size). Known bytes are not written twice.

        Raises:
            AssetError: the store can't be written (disk full, read-only); nothing is left in it.
        """
        incoming = f"{self._root}/incoming/{secrets.token_hex(8)}"
        digest = hashlib.sha256()
        size = 0
        try:
            self._fs.makedirs(f"{self._root}/incoming", exist_ok=True)
            try:
                with self._fs.open(incoming, "wb") as target:
                    while chunk := file.read(_CHUNK):
                        digest.update(chunk)
                        size += len(chunk)
                        target.write(chunk)
                final = self._place(digest.hexdigest())
                if not self._fs.exists(final):
                    self._fs.makedirs(final.rsplit("/", 1)[0], exist_ok=True)
                    self._fs.mv(incoming, final)
            finally:
                if self._fs.exists(incoming):
                    self._fs.rm_file(incoming)
        except OSError as error:
            raise AssetError(f"the asset store can't be written: {error.strerror}") from error
        return digest.hexdigest(), size

    def fetch(self, sha256: str, target: BinaryIO) -> int:
        """Copy an asset's bytes out, hashing on the way; returns the size.

        Raises:
            AssetError: the bytes are missing or differ from their name (I12); what was written
                to `target` must not be used.
        """
        digest = hashlib.sha256()
        size = 0
        try:
            with self._fs.open(self._place(sha256), "rb") as source:
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    target.write(chunk)
        except FileNotFoundError:
            raise AssetError(f"the bytes of {asset_id(sha256)} are not in the store") from None
        except OSError as error:
            raise AssetError(f"{asset_id(sha256)} can't be copied: {error.strerror}") from error
        if digest.hexdigest() != sha256:
            raise AssetError(
                f"the stored bytes of {asset_id(sha256)} are not what was decided on; somebody"
                " changed them: import the asset again and look into the store"
            )
        return size

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
        self._limits = limits
        self.folder = Path(tempfile.mkdtemp(prefix="agentguard-", dir=parent)).resolve()
        self._descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        self._inputs: dict[str, str] = {}
        self._names: set[str] = set()

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
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            shutil.rmtree(self.folder, ignore_errors=True)

    def input(self, sha256: str, extension: str) -> str:
        """The path of a private copy of an asset; the same asset is copied once.

        Raises:
            AssetError: see `Store.fetch`.
        """
        if sha256 not in self._inputs:
            path = self.folder / f"in-{len(self._inputs)}-{asset_id(sha256)}{extension}"
            with path.open("xb") as target:
                self._store.fetch(sha256, target)
            path.chmod(0o400)
            self._inputs[sha256] = str(path)
            self._names.add(path.name)
        return self._inputs[sha256]

    def input_bytes(self, sha256: str, extension: str) -> bytes:
        """An asset's bytes, hashed while they were copied."""
        return Path(self.input(sha256, extension)).read_bytes()

    def data_url(self, sha256: str, extension: str, media_type: str) -> str:
        """An asset as a base64 data URL."""
        data = base64.b64encode(self.input_bytes(sha256, extension)).decode("ascii")
        return f"data:{media_type};base64,{data}"

    def output(self, argument: str, suffix: str) -> str:
        """A fresh path for a tool to write to; nothing exists there yet."""
        return str(self.folder / f"out-{secrets.token_hex(4)}-{argument}{suffix}")

    def take(self, path: str) -> tuple[str, int, Format]:
        """Take a file of this folder into the store; returns (SHA-256, size, format).

        Args:
            path: as the tool returned it; it is never followed out of this folder.

        Raises:
            AssetError: no such file, not a regular file of this folder, or not media within the
                limits.
        """
        name = os.path.basename(path)
        if os.path.abspath(path) != str(self.folder / name) or name in ("", ".", ".."):
            raise AssetError("an output must be a file directly in the call's scratch folder")
        if name in self._names:
            raise AssetError("an output must be a new file, not the call's own input")
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(name, flags, dir_fd=self._descriptor)
        except FileNotFoundError:
            raise AssetError("the tool wrote no output file") from None
        except OSError:
            raise AssetError("an output must be a regular file, not a link or device") from None
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                raise AssetError("an output must be a regular file of its own, not a link")
            return take_in(self._store, file, limits=self._limits)

    def take_bytes(self, data: bytes) -> tuple[str, int, Format]:
        """Take bytes that a tool returned (a content block or artifact) into the store."""
        path = self.folder / f"block-{secrets.token_hex(4)}"
        path.write_bytes(data)
        return self.take(str(path))

    def conceal(self, text: str, shown: Callable[[str], str]) -> str:
        """A text without paths of this folder: each becomes what `shown` says of its name."""
        for known in sorted(self._paths(text), key=len, reverse=True):
            text = text.replace(known, shown(os.path.basename(known)))
        return text.replace(str(self.folder), "[folder]")

    def _paths(self, text: str) -> Iterable[str]:
        if str(self.folder) not in text:
            return ()
        return [str(self.folder / entry) for entry in os.listdir(self.folder)]


def take_in(store: Store, file: BinaryIO, *, limits: Limits) -> tuple[str, int, Format]:
    """Inspect a file and add it to a store; returns (SHA-256, size, format).

    What is inspected is a private copy, so that a file which changes meanwhile can't differ from
    what was looked at.

    Raises:
        AssetError: not media that this version knows, damaged, or over the limits.
    """
    with tempfile.TemporaryFile() as copy:
        try:
            while chunk := file.read(_CHUNK):
                copy.write(chunk)
                if copy.tell() > limits.max_bytes:
                    raise AssetError(
                        f"the file is larger than {limits.max_bytes} bytes, the limit of this"
                        " workspace"
                    )
            copy.seek(0)
            format_ = inspect(copy, limits=limits)
        except MediaRefused as error:
            raise AssetError(str(error)) from error
        except OSError as error:
            raise AssetError(f"the file can't be copied: {error.strerror}") from error
        copy.seek(0)
        sha256, size = store.add(copy)
    return sha256, size, format_
