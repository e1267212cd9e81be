"""Bytes: the content-addressed store.

Media is named by the SHA-256 of its bytes. What is fetched is hashed while it is copied, and what
differs from what was decided on is refused (I12).
"""

from __future__ import annotations

import hashlib
import secrets
import tempfile
from pathlib import Path
from typing import BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from agentguard.content.formats.identify import (
    FileText,
    read_text,
)
from agentguard.durable_files import flush, flush_file, flush_folder, make_folders
from agentguard.errors import AssetError
from agentguard.model import asset_id

CHUNK = 1 << 20
"""Bytes that are read at a time."""


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
            raise AssetError(f"the asset store can't be written: {reason_of(error)}") from error

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
                Path(incoming).replace(final)
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
            raise AssetError(f"{asset_id(sha256)} can't be copied: {reason_of(error)}") from error
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
            raise AssetError(f"{asset_id(sha256)} can't be read: {reason_of(error)}") from error

    def _place(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"


def _copy(source: BinaryIO, target: BinaryIO | None) -> tuple[str, int]:
    """Copy to the end, or only read; returns (SHA-256, size)."""
    digest = hashlib.sha256()
    size = 0
    while chunk := source.read(CHUNK):
        digest.update(chunk)
        size += len(chunk)
        if target is not None:
            target.write(chunk)
    return digest.hexdigest(), size


def reason_of(error: Exception) -> str:
    """What went wrong, without the path that an error's own text names."""
    return getattr(error, "strerror", None) or type(error).__name__
