"""Keys of people: made once, encrypted, readable by their owner only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption

from agentguard.errors import ApprovalError
from agentguard.transparency.key_file import create_key_file, parse_private_key, read_key_file

_MIN_PASSPHRASE = 8  # characters
_MAX_PASSPHRASE = 1000  # bytes; OpenSSL takes no more than 1023


def key_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where people keep their keys: `agentguard/keys` under XDG_CONFIG_HOME or ~/.config."""
    configured = environ.get("XDG_CONFIG_HOME", "")
    home = environ.get("HOME") or Path.home()
    base = Path(configured) if configured.startswith("/") else Path(home, ".config")
    return base / "agentguard" / "keys"


def person_key_path(folder: Path, person: str) -> Path:
    """The file of a person's key; an id can't lead out of the folder."""
    return folder / f"{quote(person, safe='@+')}.pem"


def create_person_key(path: Path, passphrase: str) -> Ed25519PublicKey:
    """Makes a person's key: encrypted PKCS#8, readable by its owner only, never overwritten.

    Raises:
        ApprovalError: the passphrase is too short or too long, or the file can't be made.
    """
    secret = passphrase.encode("utf-8", "surrogatepass")
    if len(passphrase.strip()) < _MIN_PASSPHRASE or len(secret) > _MAX_PASSPHRASE:
        limits = f"expected {_MIN_PASSPHRASE} characters or more, {_MAX_PASSPHRASE} bytes at most"
        raise ApprovalError(f"the passphrase does not fit: {limits}")
    return create_key_file(path, BestAvailableEncryption(secret), ApprovalError)


def load_person_key(path: Path, passphrase: str) -> Ed25519PrivateKey:
    """Reads a person's key.

    Raises:
        ApprovalError: no such file, others can read it, no passphrase on it, or a wrong one.
    """
    data = read_key_file(path, ApprovalError, "`agentguard people add` makes one")
    if b"ENCRYPTED" not in data:
        raise ApprovalError(f"{path}: not protected by a passphrase; make a new key")
    secret = passphrase.encode("utf-8", "surrogatepass")
    if not 0 < len(secret) <= _MAX_PASSPHRASE:
        raise ApprovalError(f"{path}: needs its passphrase")
    return parse_private_key(
        path, data, secret, ApprovalError, "wrong passphrase, or a damaged key file"
    )
