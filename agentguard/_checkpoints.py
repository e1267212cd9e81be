"""The signed checkpoints of a log, kept outside its database, where a restored copy lacks them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agentguard import note
from agentguard.errors import LedgerCorrupt, LedgerUnavailable, VerificationFailed

_TAIL = 64 * 1024


class Checkpoints:
    """The file of signed checkpoints beside the ledger: one JSON string per line.

    It begins with a checkpoint of the empty log, so that a log without a file lost it.

    Args:
        path: the file; it is appended to, by several processes at once.
        origin: the log's name in its checkpoints.
        key: the log key.
    """

    def __init__(self, *, path: Path, origin: str, key: Ed25519PrivateKey) -> None:
        self.path = path
        self.origin = origin
        self._key = key
        self.verifier_key = note.encode_verifier_key(origin, key.public_key())

    def committed(self, size: int, root: bytes) -> None:
        """Called by the writer after each durable commit."""
        self.sign(size, root)

    def sign(self, size: int, root: bytes) -> str:
        """Sign a checkpoint of what is on the disk, append it to the file, return the note."""
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

    def read(self) -> Iterator[tuple[note.Checkpoint, str]]:
        """Every checkpoint in the file, verified, with its note.

        Raises:
            VerificationFailed: a line is damaged or not signed by the log key.
            LedgerUnavailable: the file can't be read.
        """
        yield from self._parse(0)

    def newest(self) -> tuple[note.Checkpoint, str] | None:
        """The checkpoint of the largest log among the last lines of the file, and its note.

        Processes that append at the same time may do so out of order, but not by much.

        Raises:
            VerificationFailed, LedgerUnavailable: as `read`.
        """
        return max(self._parse(_TAIL), key=lambda found: found[0].size, default=None)

    def _parse(self, tail: int) -> Iterator[tuple[note.Checkpoint, str]]:
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        except OSError as error:
            raise LedgerUnavailable(f"{self.path.name}: {error.strerror}") from error
        with file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - tail) if tail else 0)
            if file.tell():
                file.readline()  # most likely half a line
            for number, line in enumerate(file, 1):
                text = line.rstrip(b"\n")
                if text[:1] in (b"", b'"') and (len(text) < 2 or not text.endswith(b'"')):
                    continue  # a crash or a full disk cut it short
                try:
                    signed = json.loads(text)
                    checkpoint = note.verify(signed, self.verifier_key)
                    if checkpoint.origin != self.origin:
                        raise ValueError(f"got a checkpoint of {checkpoint.origin!r}")
                except (ValueError, TypeError, RecursionError) as error:
                    where = f"line {number}" + (" of the last ones" if tail else "")
                    raise VerificationFailed(
                        f"{self.path.name} {where}: {error}; the file was changed"
                    ) from error
                yield checkpoint, signed
