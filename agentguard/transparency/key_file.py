"""Private key files: made once, never overwritten, for their owner only."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from agentguard.durable_files import flush, flush_folder, make_folders
from agentguard.errors import AgentGuardError

_MAX_KEY_FILE = 16 * 1024  # bytes


def create_key_file(
    path: Path, encryption: KeySerializationEncryption, error: type[AgentGuardError]
) -> Ed25519PublicKey:
    """Makes an Ed25519 key: PKCS#8 PEM, readable by its owner only, never overwritten.

    Raises:
        AgentGuardError: of type `error`: the file exists or can't be made.
    """
    key = Ed25519PrivateKey.generate()
    data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    try:
        make_folders(path.parent, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise error(f"{path}: exists; a key is never overwritten, move it away first") from None
    except OSError as reason:
        raise error(f"{path}: can't be made: {reason.strerror}") from reason
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            flush(out.fileno())
        flush_folder(path.parent)
    except OSError as reason:
        path.unlink(missing_ok=True)  # half a key is none
        raise error(f"{path}: can't be written: {reason.strerror}") from reason
    return key.public_key()


def read_key_file(path: Path, error: type[AgentGuardError], remedy: str) -> bytes:
    """The bytes of a key file that only its owner can use.

    Args:
        remedy: what to do where there is no such file.

    Raises:
        AgentGuardError: of type `error`: no such file, unreadable, or others can use it.
    """
    try:
        with path.open("rb") as source:
            mode = os.fstat(source.fileno()).st_mode  # of what is read, not of what was there
            if stat.S_IMODE(mode) & 0o077:
                raise error(f"{path}: others can use it (mode {mode & 0o777:o}); chmod 600 it")
            return source.read(_MAX_KEY_FILE)
    except FileNotFoundError:
        raise error(f"{path}: not found. {remedy}") from None
    except OSError as reason:
        raise error(f"{path}: can't be read: {reason.strerror}") from reason


def parse_private_key(
    path: Path, data: bytes, secret: bytes | None, error: type[AgentGuardError], wrong: str
) -> Ed25519PrivateKey:
    """The private key in a key file.

    Args:
        path: for the message only.
        secret: the passphrase, None if there must be none.
        wrong: what the message says of bytes that are no such key.

    Raises:
        AgentGuardError: of type `error`.
    """
    try:
        key = load_pem_private_key(data, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise error(f"{path}: {wrong}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise error(f"{path}: not an Ed25519 key")
    return key
