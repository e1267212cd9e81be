"""Adapters: how bytes reach a Destination, and how one finds out whether they did.

Each adapter says what it can do; what a Destination is *proven* to do (hold, revoke, retain) is
found by probing it, never taken from configuration.
"""

from __future__ import annotations

import errno
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import fsspec

from agentguard.errors import DestinationError
from agentguard.model import Destination


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What is sent: bytes already hashed, with the names and texts that go along.

    Args:
        key: the idempotency key; the same key and bytes arrive once.
        name: file name derived from the digest, never from what a model said.
        texts: captions and such, by argument.
    """

    key: str
    sha256: str
    name: str
    data: bytes
    texts: Mapping[str, str]


class Adapter(Protocol):
    """One kind of Destination."""

    def put(self, parcel: Parcel) -> str:
        """Send a parcel; returns its location, safe to show. Sending it again changes nothing.

        Raises:
            DestinationError: `outcome_unknown` says whether the bytes may have arrived.
        """
        ...

    def find(self, parcel_key: str, sha256: str) -> str | None:
        """The location of what was sent under a key with these bytes, or None (after a crash)."""
        ...


class Folder:
    """A folder or bucket through fsspec.

    Args:
        destination: its URL, e.g. `file:///srv/out/site` or `s3://bucket/site`.
    """

    def __init__(self, destination: Destination) -> None:
        self._id = destination.id
        self._fs, self._root = fsspec.core.url_to_fs(_fsspec_url(destination.url))

    def put(self, parcel: Parcel) -> str:
        location = f"{self._root}/{parcel.name}"
        try:
            self._fs.makedirs(self._root, exist_ok=True)
            for argument, text in sorted(parcel.texts.items()):
                note = f"{location}.{argument}.{parcel.key[:12]}.txt"
                self._create(note, text.encode("utf-8"))
            # The media last: once it is there, the parcel is complete.
            self._create(location, parcel.data)
        except OSError as error:
            raise DestinationError(
                f"{self._id} refused the file: {_why(error)}", outcome_unknown=False
            ) from error
        return f"{self._id}/{parcel.name}"

    def find(self, parcel_key: str, sha256: str) -> str | None:
        try:
            for name in self._fs.ls(self._root, detail=False):
                base = str(name).rsplit("/", 1)[-1]
                ours = base.startswith(f"{sha256[:20]}.") and base.count(".") == 1
                if ours and hashlib.sha256(self._fs.cat_file(name)).hexdigest() == sha256:
                    return f"{self._id}/{base}"
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DestinationError(
                f"{self._id} can't be read: {_why(error)}", outcome_unknown=True
            ) from error
        return None

    def _create(self, path: str, data: bytes) -> None:
        """Write a file that does not exist, or find the same bytes there."""
        partial = f"{path}.{secrets.token_hex(4)}.partial"
        try:
            if self._fs.exists(path):
                if self._fs.cat_file(path) != data:
                    raise DestinationError(
                        f"{self._id} already holds other bytes under {path.rsplit('/', 1)[-1]}",
                        outcome_unknown=False,
                    )
                return
            self._fs.pipe_file(partial, data)
            self._fs.mv(partial, path)
        finally:
            if self._fs.exists(partial):
                self._fs.rm_file(partial)


def adapter_for(destination: Destination) -> Adapter:
    """The adapter for a Destination's URL.

    Raises:
        DestinationError: no adapter knows this kind of URL; nothing was sent.
    """
    scheme = destination.url.split(":", 1)[0]
    if scheme == "vendor":
        raise DestinationError(
            f"{destination.id} is a vendor; media goes there through its tool, not by export",
            outcome_unknown=False,
        )
    return Folder(destination)


def _fsspec_url(url: str) -> str:
    if url.startswith("file:") and not url.startswith("file://"):
        return "file://" + url.removeprefix("file:")
    return url


def _why(error: OSError) -> str:
    if error.errno is None:
        return type(error).__name__
    return errno.errorcode.get(error.errno, "error") + f" ({error.strerror})"
