"""The key that signs checkpoints of the log; it lies apart from the database (I10)."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import NoEncryption

from agentguard.errors import ConfigError
from agentguard.transparency.key_file import create_key_file, parse_private_key, read_key_file

_NO_LOG_KEY = (
    "If this workspace has a ledger already, copy the key from a machine that has it (or say where"
    " it is with AGENTGUARD_LOG_KEY); else `agentguard init` in a new folder makes one"
)


def create_log_key(path: Path) -> Ed25519PublicKey:
    """Makes the key that signs checkpoints of the log; readable by its owner only.

    Raises:
        ConfigError: the file exists or can't be made.
    """
    return create_key_file(path, NoEncryption(), ConfigError)


def load_log_key(path: Path) -> Ed25519PrivateKey:
    """Reads the log key.

    Raises:
        ConfigError: no such file, others can read it, or it is no Ed25519 key.
    """
    data = read_key_file(path, ConfigError, _NO_LOG_KEY)
    return parse_private_key(path, data, None, ConfigError, "not a plain PKCS#8 PEM key")


def derived_key(key: Ed25519PrivateKey, purpose: str) -> bytes:
    """A symmetric key of 32 bytes for one purpose (HKDF-SHA-256, RFC 5869).

    Args:
        purpose: names it; each has a key of its own, and none tells of the log key.
    """
    info = f"agentguard/{purpose}".encode()
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(key.private_bytes_raw())
