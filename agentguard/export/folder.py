"""Adapters: how bytes reach a Destination, and how one finds out whether they did.

Each adapter says what it can do; what a Destination is *proven* to do (hold, revoke, retain) is
found by probing it, never taken from configuration.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import fsspec
from fsspec.implementations.local import LocalFileSystem

from agentguard.durable_files import flush, flush_file, flush_folder, flush_names, make_folders
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
        """The location of what was sent under a key with these bytes, or None (after a crash).

        Raises:
            DestinationError: it can't be told; whoever asks keeps it `unknown`.
        """
        ...


class Folder:
    """A folder or bucket through fsspec.

    A parcel is media under a name from its digest, a note for each text, and a slip that names the
    idempotency key: notes, slip, media, in this order. So media that lies there with the slip of
    a key was sent, whole, under that key; the same media without it came of another export.

    Args:
        destination: its URL, e.g. `file:///srv/out/site` or `s3://bucket/site`.

    Raises:
        DestinationError: nothing here can open this kind of URL.
    """

    def __init__(self, destination: Destination) -> None:
        self._id = destination.id
        try:
            self._fs, self._root = fsspec.core.url_to_fs(_fsspec_url(destination.url))
        except (ImportError, ValueError) as error:
            raise DestinationError(
                f"{self._id} can't be opened: {type(error).__name__}; install what its URL needs",
                outcome_unknown=False,
            ) from error

    def put(self, parcel: Parcel) -> str:
        if _FILE.fullmatch(parcel.name) is None or not all(map(_ARGUMENT.fullmatch, parcel.texts)):
            raise DestinationError(f"{self._id}: no such name", outcome_unknown=False)
        location = f"{self._root}/{parcel.name}"
        slips = {
            f"{location}.{argument}.{parcel.key[:12]}.txt": text.encode("utf-8")
            for argument, text in sorted(parcel.texts.items())
        }
        slips[f"{location}.{parcel.key[:12]}.txt"] = _slip(parcel.key, parcel.sha256)
        written: list[str] = []
        with self._refusals(written):
            if isinstance(self._fs, LocalFileSystem):
                make_folders(self._root)
            else:
                self._fs.makedirs(self._root, exist_ok=True)
            for path, data in slips.items():
                if self._create(path, data):
                    written.append(path)
            self._create(location, parcel.data)
        return f"{self._id}/{parcel.name}"

    def find(self, parcel_key: str, sha256: str) -> str | None:
        ours = re.compile(re.escape(sha256[:20]) + r"\.[a-z0-9]{1,8}")
        slip = re.compile(re.escape(sha256[:20]) + r"\.[a-z0-9]{1,8}\.([0-9a-f]{12})\.txt")
        try:
            self._fs.invalidate_cache(self._root)
            names = [str(n).rsplit("/", 1)[-1] for n in self._fs.ls(self._root, detail=False)]
            keys = {found[1] for name in names if (found := slip.fullmatch(name))}
            for name in filter(ours.fullmatch, names):
                data = self._fs.cat_file(f"{self._root}/{name}")
                if hashlib.sha256(data).hexdigest() != sha256:
                    continue
                if parcel_key[:12] in keys:
                    return f"{self._id}/{name}"
                if keys:
                    return None  # another export's; under this key nothing was begun
                raise DestinationError(
                    f"{self._id} holds {name}, and nothing says of which export it is; look there",
                    outcome_unknown=True,
                )
        except FileNotFoundError:
            return None
        except DestinationError:
            raise
        except Exception as error:  # each file system brings its own classes of errors
            raise DestinationError(
                f"{self._id} can't be read: {_why(error)}", outcome_unknown=True
            ) from error
        return None

    @contextmanager
    def _refusals(self, written: list[str]) -> Iterator[None]:
        """Whatever goes wrong, said as what it means; a refused parcel leaves no text behind."""
        try:
            yield
        except Exception as error:  # each file system brings its own classes of errors
            refused = isinstance(error, DestinationError) or _is_refusal(error)
            if not refused:  # I8: bytes may be on their way; the slip stays, to find them by
                raise DestinationError(
                    f"{self._id} did not answer: {_why(error)}", outcome_unknown=True
                ) from error
            for path in written:
                with suppress(Exception):  # it stays refused, whether or not the note goes
                    self._fs.rm_file(path)
            if isinstance(error, DestinationError):
                raise
            raise DestinationError(
                f"{self._id} refused the file: {_why(error)}", outcome_unknown=False
            ) from error

    def _create(self, path: str, data: bytes) -> bool:
        """Write a file that does not exist, or find the same bytes there; True if written.

        Nobody ever sees half of it: on a local disk it is linked into place when it is whole and
        on the disk, elsewhere the store's own conditional put does the same.
        """
        try:
            if not self._fs.exists(path):
                if isinstance(self._fs, LocalFileSystem):
                    _create_local(path, data)
                else:
                    self._fs.pipe_file(path, data, mode="create")
                return True
        except FileExistsError:
            pass  # another thread or process was faster
        if self._fs.cat_file(path) != data:
            raise DestinationError(
                f"{self._id} already holds other bytes under {path.rsplit('/', 1)[-1]}",
                outcome_unknown=False,
            )
        if isinstance(self._fs, LocalFileSystem):
            with _is_there():  # whoever wrote it may have died before it was on the disk
                flush_file(path)
                flush_folder(self._root)
        return False


def _create_local(path: str, data: bytes) -> None:
    folder, name = os.path.split(path)
    partial = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.partial")
    descriptor = os.open(folder, os.O_RDONLY)  # first: what fails after the link is no refusal
    try:
        try:
            with open(partial, "xb") as file:
                file.write(data)
                file.flush()
                flush(file.fileno())
            _link(partial, path)
        finally:
            with suppress(OSError):
                os.unlink(partial)
        with _is_there():
            flush_names(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _is_there() -> Iterator[None]:
    """I8: a file is in its place, whatever the reason why it is not on the disk."""
    try:
        yield
    except OSError as error:
        raise OSError(errno.EIO, os.strerror(errno.EIO)) from error


def _link(partial: str, path: str) -> None:
    try:
        os.link(partial, path)  # unlike rename, it replaces nothing
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "exists") from None
        os.rename(partial, path)  # a file system without links


def no_url(destination: Destination) -> str:
    """Says why `export_asset` can't send to a destination without a URL, and what to do."""
    return (
        f"{destination.id} has no url, so export_asset can't send there; call the tool that does,"
        f' or an operator adds url = "file:FOLDER" to [destinations.{destination.id}]'
    )


def adapter_for(destination: Destination) -> Adapter:
    """The adapter for a Destination's URL.

    Raises:
        DestinationError: no adapter knows this kind of URL; nothing was sent.
    """
    if not destination.url:
        raise DestinationError(no_url(destination), outcome_unknown=False)
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


_FILE = re.compile(r"[0-9a-f]{20}\.[a-z0-9]{1,8}")
_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,40}")
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
_REFUSALS = frozenset(
    (
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP),
        *(errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE),
    )
)


def _is_refusal(error: Exception) -> bool:
    """Whether an error says that nothing arrived; of any other it is not known (I8)."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _REFUSALS
    return isinstance(
        error, (PermissionError, FileNotFoundError, NotADirectoryError, FileExistsError)
    )


def _slip(key: str, sha256: str) -> bytes:
    return f"key {key}\nsha256 {sha256}\n".encode("ascii")


def _why(error: Exception) -> str:
    """The kind of an error; its text may name hosts, accounts or paths (S16)."""
    if isinstance(error, OSError) and error.errno is not None:
        return errno.errorcode.get(error.errno, "error") + f" ({os.strerror(error.errno)})"
    return type(error).__name__
