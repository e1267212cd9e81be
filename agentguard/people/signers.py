"""Whose key is whose: the signers file, and people's own key files.

Person keys, log key and credential key are three things. The guard holds no
person's key: it knows the public halves from the signers file, one line each, like ssh's:

    kim@acme.example ed25519 mKXb1Yw...=  # laptop, 2025
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agentguard.durable_files import flush, flush_folder, make_folders
from agentguard.errors import ConfigError

_PRIME = 2**255 - 19  # of the field that an Ed25519 point's y is in
_Y_OF_ORDER_8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
# The eight points of small order have these y, two points to most of them (RFC 8032, 5.1).
_WEAK = frozenset({0, 1, _PRIME - 1, _Y_OF_ORDER_8, _PRIME - _Y_OF_ORDER_8})


def key_id(key: Ed25519PublicKey) -> str:
    """Names a public key: the first 16 hex digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signers:
    """Which public keys speak for which Person. Without a key nobody can approve (I11).

    Args:
        file: where they were read.
        keys: by person, then by key id.
    """

    file: Path
    keys: Mapping[str, Mapping[str, Ed25519PublicKey]]

    @staticmethod
    def load(file: Path) -> Signers:
        """Reads a signers file; one that is not there yet holds nobody's key.

        Raises:
            ConfigError: it can't be read, or a line is wrong; names the line.
        """
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise ConfigError(f"{file}: can't be read: {error.strerror}") from error
        return _parsed(data, file)

    @staticmethod
    def parse(text: str, file: Path) -> Signers:
        """Reads lines of `person ed25519 BASE64 # comment`; empty and comment lines are skipped.

        Raises:
            ConfigError: a line is wrong, or a key stands twice; names the line.
        """
        keys: dict[str, dict[str, Ed25519PublicKey]] = {}
        owners: dict[bytes, str] = {}
        for number, line in enumerate(text.split("\n"), start=1):
            try:
                entry = _entry(line.removesuffix("\r"))
                if entry is None:
                    continue
                person, key = entry
                # One key in two names would let one person count as two (S20).
                owner = owners.setdefault(key.public_bytes_raw(), person)
                if owner != person or key_id(key) in keys.get(person, {}):
                    raise ValueError(f"this key stands above already, for {owner!r}")
            except ValueError as error:
                raise ConfigError(f"{file}:{number}: {error}") from None
            keys.setdefault(person, {})[key_id(key)] = key
        frozen = {person: MappingProxyType(held) for person, held in keys.items()}
        return Signers(file=file, keys=MappingProxyType(frozen))

    def lookup(self, person: str, key_id: str) -> Ed25519PublicKey | None:
        """The person's public key of this key id, None if the person has no such key."""
        return self.keys.get(person, {}).get(key_id)

    def require_no_key(self, person: str) -> None:
        """Returns if nobody can answer as the person yet.

        Raises:
            ConfigError: a key speaks for the person; says which, and what to do.
        """
        held = self.keys.get(person)
        if held:
            raise ConfigError(
                f"{person} has key {', '.join(held)} in {self.file} already, and whoever holds a"
                f" second one answers as {person} too; if {person} lost the first, remove its"
                " line, and if both are theirs, add --second-key"
            )


@functools.lru_cache(maxsize=8)  # by its bytes: a key that is taken out counts no more
def _parsed(data: bytes, file: Path) -> Signers:
    try:
        return Signers.parse(data.decode(), file)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}:{line}: not UTF-8") from None


def append_signer(
    file: Path,
    person: str,
    key: Ed25519PublicKey,
    comment: str = "",
    *,
    second_key: bool = False,
) -> str:
    """Adds one line to a signers file, which is made if it isn't there.

    Args:
        second_key: the person may have a key already. Whoever holds one more key of a person
            answers as that person (I1), so it is never added unasked.

    Returns:
        The line, without its line end.

    Raises:
        ConfigError: the file or the line is wrong, the key is there already, or the person has
            another one.
    """
    encoded = base64.b64encode(key.public_bytes_raw()).decode()
    line = f"{person} ed25519 {encoded}" + (f"  # {comment}" if comment else "")
    try:
        entry = _entry(line)
    except ValueError as error:
        raise ConfigError(f"{file}: {error}") from None
    if entry is None or entry[0] != person:
        raise ConfigError(f"{file}: {person!r} can't stand in a signers file; choose another id")
    if not second_key:
        Signers.load(file).require_no_key(person)
    text = file.read_bytes().decode() if file.exists() else ""
    addition = ("\n" if text and not text.endswith("\n") else "") + line + "\n"
    Signers.parse(text + addition, file)
    try:
        make_folders(file.parent)
        with file.open("ab") as out:
            out.write(addition.encode())
            out.flush()
            flush(out.fileno())
        flush_folder(file.parent)
    except OSError as error:
        raise ConfigError(f"{file}: can't be written: {error.strerror}") from error
    return line


def _entry(line: str) -> tuple[str, Ed25519PublicKey] | None:
    if not line.replace("\t", " ").isprintable():
        raise ValueError("holds a character that can't be seen; remove it")
    fields, _, _ = re.sub(r"(^|[ \t])#", "\n", line, count=1).partition("\n")
    parts = [part for part in re.split(r"[ \t]+", fields) if part]
    if not parts:
        return None
    if len(parts) != 3:
        raise ValueError(f"got {len(parts)} fields, expected: person ed25519 BASE64 # comment")
    person, algorithm, encoded = parts
    if not person.isascii():  # a Cyrillic o beside a Latin one would make two people of one
        raise ValueError(f"got {person[:80]!r}, expected ASCII letters only: others look alike")
    if algorithm != "ed25519":
        raise ValueError(f"got key type {algorithm[:40]!r}, expected ed25519")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except ValueError:
        raw = b""
    # The same key has one spelling: base64 can carry stray bits in its last digit.
    if len(raw) != 32 or base64.b64encode(raw).decode() != encoded:
        raise ValueError("the key is not the base64 of 32 bytes; `agentguard people add` writes it")
    y = int.from_bytes(raw, "little") & (2**255 - 1)  # the top bit is the sign of x
    if y >= _PRIME or y in _WEAK:
        raise ValueError(
            "the key is a point that lets anybody sign, or another spelling of a key; expected"
            " one that `agentguard people add` made"
        )
    return person, Ed25519PublicKey.from_public_bytes(raw)
