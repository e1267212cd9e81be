"""The key that signs checkpoints of the log; it lies apart from the database (I10)."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
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
