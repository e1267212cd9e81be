"""The signed checkpoints of a log, kept outside its database, where a restored copy lacks them."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agentguard.durable_files import flush, flush_folder
from agentguard.errors import LedgerCorrupt, LedgerUnavailable, VerificationFailed
from agentguard.transparency import signed_note as note

_TAIL = 8 * 1024
_SIZE = re.compile("[^\n]*\n([0-9]{1,18})\n")
_decode = json.JSONDecoder().raw_decode
_OTHER_KEY = (
    "this machine's log key is not the one that signed the ledger; copy that one. If it is that"
    " one, the checkpoint was changed"
)


class Checkpoints:
    """The file of signed checkpoints beside the ledger: one JSON string per line.

    It begins with a checkpoint of the empty log, so that a log without a file lost it. Every line
    is on the disk before anything relies on it. A power cut or a full disk may cut off what was
    being written: such a line is passed over, and the one before it counts.

    Args:
        path: the file; it is appended to, by several processes at once.
        origin: the log's name in its checkpoints.
        key: the log key.
    """

    def __init__(self, *, path: Path, origin: str, key: Ed25519PrivateKey) -> None:
        self.path = path
        self.origin = origin
        self._key = key
        self._named = False  # the file's entry in its folder is on the disk
        self.verifier_key = note.encode_verifier_key(origin, key.public_key())

    def sign(self, size: int, root: bytes) -> str:
        """Sign a checkpoint of what is on the disk, append it to the file, return the note.

        Raises:
            OSError: it may not be in the file.
        """
        signed = self.signed(size, root)
        self._append(signed)
        return signed

    def signed(self, size: int, root: bytes) -> str:
        """A signed checkpoint that is not in the file yet."""
        return note.sign(
            note.Checkpoint(origin=self.origin, size=size, root=root), self.origin, self._key
        )

    def verified(self, signed: str) -> note.Checkpoint:
        """The checkpoint of a note that came from elsewhere.

        Raises:
            LedgerCorrupt: it is not one of this log, signed by its key.
        """
        try:
            found = note.verify(signed, self.verifier_key)
        except note.OtherKey as error:
            raise LedgerCorrupt(f"a checkpoint in the ledger: {_OTHER_KEY}") from error
        except ValueError as error:
            raise LedgerCorrupt(f"a checkpoint in the ledger: {error}") from error
        if found.origin != self.origin:
            raise LedgerCorrupt(f"a checkpoint in the ledger is one of {found.origin!r:.80}")
        return found

    def adopt(self, signed: str) -> None:
        """Keep a verified note that another process signed.

        Raises:
            LedgerUnavailable: the file can't be written.
        """
        try:
            self._append(signed)
        except OSError as error:
            raise LedgerUnavailable(f"{self.path.name}: {error.strerror}") from error

    def _append(self, signed: str) -> None:
        with self.path.open("ab+") as file:
            file.seek(0, os.SEEK_END)
            torn = b""
            if file.tell():
                file.seek(-1, os.SEEK_END)
                torn = b"" if file.read(1) == b"\n" else b"\n"  # a crash cut the last line short
            file.write(torn + json.dumps(signed).encode("ascii") + b"\n")
            file.flush()
            flush(file.fileno())
        if not self._named:
            flush_folder(self.path.parent)
            self._named = True

    def read(self) -> Iterator[tuple[note.Checkpoint, str]]:
        """Every checkpoint in the file, verified, with its note.

        Raises:
            VerificationFailed: a line is damaged or not signed by the log key.
            LedgerUnavailable: the file can't be read.
        """
        for where, signed in self._lines(0):
            yield self._verified(where, signed)

    def newest(self) -> tuple[note.Checkpoint, str] | None:
        """The checkpoint of the largest log among the last lines of the file, and its note.

        Processes that append at the same time may do so out of order, but not by much. Only its
        own signature is verified: opening a ledger must not wait for hundreds.

        Raises:
            VerificationFailed: it is not signed by the log key, or a line near it is damaged.
            LedgerUnavailable: as `read`.
        """
        tail, found = _TAIL, None
        while found is None and tail:  # a power cut may leave more zeros than that
            found = max(self._lines(tail), key=lambda line: _claimed_size(line[1]), default=None)
            tail = 0 if tail >= self._size() else tail * 16
        return None if found is None else self._verified(*found)

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def _lines(self, tail: int) -> Iterator[tuple[str, Any]]:
        """Each line of the file, or of its last `tail` bytes: where it is, and what it holds."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        except OSError as error:
            raise LedgerUnavailable(f"{self.path.name}: {error.strerror}") from error
        of = " of the last ones" if tail else ""
        with file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - tail) if tail else 0)
            if file.tell():
                file.readline()  # most likely half a line
            number = 0
            # What others append meanwhile is not waited for.
            while file.tell() < size and (line := file.readline()):
                number += 1
                text = line.rstrip(b"\n")
                if _torn(text):
                    continue
                where = f"line {number}{of}"
                try:
                    found, end = _decode(signed := text.decode("utf-8"))
                    if end != len(signed):
                        raise json.JSONDecodeError("Extra data", signed, end)
                except (ValueError, RecursionError) as error:
                    raise self._changed(where, error) from error
                yield where, found

    def _verified(self, where: str, signed: Any) -> tuple[note.Checkpoint, str]:
        try:
            checkpoint = note.verify(signed, self.verifier_key)
            if checkpoint.origin != self.origin:
                raise ValueError(f"got a checkpoint of {checkpoint.origin!r}")
        except note.OtherKey as error:
            raise VerificationFailed(f"{self.path.name} {where}: {_OTHER_KEY}") from error
        except (ValueError, TypeError) as error:
            raise self._changed(where, error) from error
        return checkpoint, signed

    def _changed(self, where: str, error: Exception) -> VerificationFailed:
        return VerificationFailed(f"{self.path.name} {where}: {error}; the file was changed")


def _torn(line: bytes) -> bool:
    """Whether a crash, a power cut or a full disk cut a line short.

    Of what was never flushed a file system may keep the length and not the bytes: then zeros stand
    for some of them (ext4, xfs). No checkpoint holds one.
    """
    if b"\0" in line or not line:
        return True
    return line.startswith(b'"') and (len(line) < 2 or not line.endswith(b'"'))


def _claimed_size(signed: Any) -> float:
    """The size that a line's second line claims; of a line that claims none, more than any."""
    claimed = _SIZE.match(signed) if isinstance(signed, str) else None
    return int(claimed[1]) if claimed else math.inf
