"""Signed checkpoints of the log: C2SP signed-note and tlog-checkpoint, with Ed25519 only.

A checkpoint says which root the log `origin` has at a size; whoever keeps one can hold the log to
it. Reading is strict: one spelling per value, and nothing signed is dropped on the way in.
"""

import functools
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from agentguard.transparency.merkle import HASH_SIZE

MAX_NOTE_SIZE = 256 * 1024  # bytes; signed-note asks for room for 16 signatures of about 5 kB

_ED25519 = b"\x01"  # signature type: signed-note, "Signature types"
_KEY_ID_SIZE = 4
_MAX_TREE_SIZE = 2**63 - 1  # what SQLite, PostgreSQL and Go's int64 can hold
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
_KEY_ID = re.compile(r"[0-9a-f]{8}")
# What signed-note forbids: control characters but newline, and what UTF-8 cannot say.
_FORBIDDEN = re.compile(r"[\x00-\x09\x0b-\x1f\ud800-\udfff]")


class NoteError(ValueError):
    """A note, checkpoint or verifier key that is malformed, or a note that does not verify."""


class OtherKey(NoteError):
    """A note of this log that only another key signed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The tree head of a log: `size` leaves under the 32-byte `root`.

    `origin` names the log: one non-empty line. Raises NoteError where a field cannot be written.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not self.origin or "\n" in self.origin:
            raise NoteError(f"origin: got {self.origin[:60]!r}, expected one non-empty line")
        _require_text("origin", self.origin)
        if not 0 <= self.size <= _MAX_TREE_SIZE:
            raise NoteError(f"tree size: got {self.size}, expected 0 to {_MAX_TREE_SIZE}")
        if len(self.root) != HASH_SIZE:
            raise NoteError(f"root: got {len(self.root)} bytes, expected {HASH_SIZE}")

    @property
    def text(self) -> str:
        """The note text that is signed (tlog-checkpoint, "Note text")."""
        return f"{self.origin}\n{self.size}\n{_base64(self.root)}\n"


def sign(checkpoint: Checkpoint, key_name: str, private_key: Ed25519PrivateKey) -> str:
    """Return the signed note of `checkpoint`. tlog-checkpoint wants the key name to be the origin.
    Raises NoteError if the name cannot be a key name or the note would be too long to verify."""
    key_id = _key_id(key_name, private_key.public_key())
    signature = private_key.sign(checkpoint.text.encode())
    note = f"{checkpoint.text}\n— {key_name} {_base64(key_id + signature)}\n"
    _require_text("note", note)
    return note


def verify(note: str, verifier_key: str) -> Checkpoint:
    """Return the checkpoint in `note` if the key of `verifier_key` signed it, else raise NoteError.

    Signatures of other keys, such as witnesses, are ignored if they are well formed. A second
    signature of the same key and extension lines (signed, but not in a Checkpoint) are refused.
    One key may sign for several logs: the caller compares the origin with the one it expects.
    """
    key_name, key_id, public_key = _verifier(verifier_key)
    _require_text("note", note)
    # The last empty line separates the text, with its final newline, from the signatures.
    text, separator, signatures = note.rpartition("\n\n")
    if not separator or not signatures.endswith("\n"):
        raise NoteError("note: expected text, an empty line and signature lines, each with newline")
    text += "\n"
    signed = [_parse_signature(line) for line in signatures[:-1].split("\n")]
    found = [sig for name, signer_id, sig in signed if (name, signer_id) == (key_name, key_id)]
    signer = f"{key_name}+{key_id.hex()}"
    if len(found) != 1:
        other = not found and any(name == key_name for name, *_ in signed)
        refusal = OtherKey if other else NoteError
        raise refusal(f"note: got {len(found)} signatures of {signer}, expected one")
    try:
        public_key.verify(found[0], text.encode())
    except InvalidSignature:
        raise NoteError(f"note: the signature of {signer} is not one of this text") from None
    return _parse_text(text)


def encode_verifier_key(key_name: str, public_key: Ed25519PublicKey) -> str:
    """Return `name+hash+base64(0x01 || key)`, what `verify` takes.
    Raises NoteError if the name cannot be a key name."""
    key_id = _key_id(key_name, public_key)
    return f"{key_name}+{key_id.hex()}+{_base64(_ED25519 + public_key.public_bytes_raw())}"


def decode_verifier_key(verifier_key: str) -> tuple[str, Ed25519PublicKey]:
    """Return the key name and the key. Raises NoteError if the string is not what
    `encode_verifier_key` writes, so also if its hash is not that of its name and key."""
    name, _, public_key = _verifier(verifier_key)
    return name, public_key


@functools.lru_cache(maxsize=16)  # a log has thousands of checkpoints, of one key
def _verifier(verifier_key: str) -> tuple[str, bytes, Ed25519PublicKey]:
    """Return the key name, key id and key."""
    name, _, rest = verifier_key.partition("+")
    key_id, _, encoded = rest.partition("+")  # base64 may hold more of them
    if not _KEY_ID.fullmatch(key_id):
        raise NoteError(f"verifier key: got hash {key_id[:60]!r}, expected 8 digits of 0-9 and a-f")
    key = _from_base64("verifier key", encoded)
    if len(key) != 33 or key[:1] != _ED25519:
        got = f"type {key[:1].hex()} and {len(key) - 1} bytes"
        raise NoteError(f"verifier key: got {got}, expected type 01 (Ed25519) and 32 bytes")
    public_key = Ed25519PublicKey.from_public_bytes(key[1:])
    expected = _key_id(name, public_key)
    if expected.hex() != key_id:
        raise NoteError(
            f"verifier key: got hash {key_id}, expected {expected.hex()} for {name[:60]!r}"
        )
    return name, expected, public_key


def _parse_text(text: str) -> Checkpoint:
    lines = text[:-1].split("\n")
    if len(lines) != 3:
        raise NoteError(f"checkpoint: got {len(lines)} lines, expected 3 and no extension lines")
    origin, size, root = lines
    if not _DECIMAL.fullmatch(size):
        raise NoteError(f"tree size: got {size[:60]!r}, expected a decimal without leading zeros")
    return Checkpoint(origin=origin, size=int(size), root=_from_base64("root", root))


def _parse_signature(line: str) -> tuple[str, bytes, bytes]:
    """Return the key name, key id and signature of a signature line."""
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    if dash != "—":
        raise NoteError(f"signature line: got {line[:60]!r}, expected '— name base64'")
    _require_key_name(name)
    signature = _from_base64("signature", encoded)
    if len(signature) <= _KEY_ID_SIZE:
        raise NoteError(f"signature: got {len(signature)} bytes, expected a key id and more")
    return name, signature[:_KEY_ID_SIZE], signature[_KEY_ID_SIZE:]


def _key_id(key_name: str, public_key: Ed25519PublicKey) -> bytes:
    _require_key_name(key_name)
    key = _ED25519 + public_key.public_bytes_raw()
    return sha256(key_name.encode() + b"\n" + key).digest()[:_KEY_ID_SIZE]


def _require_key_name(name: str) -> None:
    _require_text("key name", name)
    if not name or "+" in name or any(character.isspace() for character in name):
        raise NoteError(f"key name: got {name[:60]!r}, expected neither empty, '+' nor spaces")


def _require_text(what: str, text: str) -> None:
    if forbidden := _FORBIDDEN.search(text):
        raise NoteError(f"{what}: got {forbidden[0]!r}, expected no controls and no surrogates")
    if (size := len(text.encode())) > MAX_NOTE_SIZE:
        raise NoteError(f"{what}: got {size} bytes, expected at most {MAX_NOTE_SIZE}")


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _from_base64(what: str, text: str) -> bytes:
    try:
        data = b64decode(text, validate=True)
    except ValueError:
        data = b""
    if not text or _base64(data) != text:  # one spelling per value: no stray bits, no whitespace
        raise NoteError(f"{what}: got {text[:60]!r}, expected canonical base64")
    return data
