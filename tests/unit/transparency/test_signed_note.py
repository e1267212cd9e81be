"""note.py: what it writes is C2SP to the byte, and what is not C2SP to the byte it refuses."""

import os
from base64 import b64decode, b64encode
from dataclasses import FrozenInstanceError, replace
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from agentguard.transparency.merkle import EMPTY_ROOT, leaf_hash
from agentguard.transparency.signed_note import (
    MAX_NOTE_SIZE,
    Checkpoint,
    NoteError,
    decode_verifier_key,
    encode_verifier_key,
    sign,
    verify,
)
from tests.support.trees import Frontier

ORIGIN = "acme.example/agentguard"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
VERIFIER_KEY = encode_verifier_key(ORIGIN, KEY.public_key())
CHECKPOINT = Checkpoint(origin=ORIGIN, size=42, root=leaf_hash(b"root"))
NOTE = sign(CHECKPOINT, ORIGIN, KEY)
TEXT, _, SIGNATURES = NOTE.partition("\n\n")
KEY_ID = bytes.fromhex(VERIFIER_KEY.split("+")[1])


def signed(text: str, *more_signatures: str) -> str:
    """Return a note over any text at all, with a good signature of KEY: only the text is odd."""
    signature = b64encode(KEY_ID + KEY.sign(text.encode())).decode()
    return f"{text}\n— {ORIGIN} {signature}\n" + "".join(more_signatures)


def signature_line(name: str, data: bytes) -> str:
    return f"— {name} {b64encode(data).decode()}\n"


# --- The format. ---


def test_a_note_is_three_lines_an_empty_line_and_a_signature_line() -> None:
    signature = b64encode(KEY_ID + KEY.sign(CHECKPOINT.text.encode())).decode()
    assert NOTE.split("\n") == [
        "acme.example/agentguard",
        "42",
        b64encode(CHECKPOINT.root).decode(),
        "",
        f"— acme.example/agentguard {signature}",
        "",
    ]


def test_what_is_signed_is_what_is_verified() -> None:
    assert verify(NOTE, VERIFIER_KEY) == CHECKPOINT
    edges = [replace(CHECKPOINT, size=size) for size in (0, 1, 2**63 - 1)]
    edges.append(replace(CHECKPOINT, origin="Größe & späte Wörter + spaces"))
    for checkpoint in edges:
        assert verify(sign(checkpoint, ORIGIN, KEY), VERIFIER_KEY) == checkpoint


def test_the_key_name_need_not_be_the_origin_and_the_caller_sees_the_origin() -> None:
    name = "acme.example/witness"
    note = sign(CHECKPOINT, name, KEY)
    assert verify(note, encode_verifier_key(name, KEY.public_key())).origin == ORIGIN


def test_a_checkpoint_is_a_frozen_value() -> None:
    with pytest.raises(FrozenInstanceError):
        CHECKPOINT.size = 1  # type: ignore[misc]
    assert not hasattr(CHECKPOINT, "__dict__")


@pytest.mark.parametrize(
    ("origin", "size", "root", "says"),
    [
        ("", 1, EMPTY_ROOT, "origin: got ''"),
        ("two\nlines", 1, EMPTY_ROOT, "expected one non-empty line"),
        ("evil\n999", 1, EMPTY_ROOT, "expected one non-empty line"),
        ("tab\there", 1, EMPTY_ROOT, "no controls"),
        ("carriage\r", 1, EMPTY_ROOT, "no controls"),
        ("lone \ud800", 1, EMPTY_ROOT, "no surrogates"),
        ("x" * (MAX_NOTE_SIZE + 1), 1, EMPTY_ROOT, "expected at most"),
        (ORIGIN, -1, EMPTY_ROOT, "tree size: got -1"),
        (ORIGIN, 2**63, EMPTY_ROOT, "tree size: got 9223372036854775808"),
        (ORIGIN, 1, b"twelve bytes", "root: got 12 bytes, expected 32"),
        (ORIGIN, 1, bytes(33), "root: got 33 bytes, expected 32"),
    ],
)
def test_a_checkpoint_that_could_not_be_read_back_cannot_be_made(
    origin: str, size: int, root: bytes, says: str
) -> None:
    with pytest.raises(NoteError, match=says):
        Checkpoint(origin=origin, size=size, root=root)


@pytest.mark.parametrize(
    "name", ["", "a b", "a+b", "a\nb", "a\tb", "a\u00a0b", "a\u2028b", "a\u0085b", "\ud800"]
)
def test_a_key_name_with_spaces_or_plus_or_nothing_is_refused(name: str) -> None:
    with pytest.raises(NoteError, match="key name"):
        sign(CHECKPOINT, name, KEY)
    with pytest.raises(NoteError, match="key name"):
        encode_verifier_key(name, KEY.public_key())


def test_a_note_too_long_to_verify_is_not_made() -> None:
    with pytest.raises(NoteError, match=r"note: got .* expected at most"):
        sign(replace(CHECKPOINT, origin="x" * MAX_NOTE_SIZE), ORIGIN, KEY)


# --- Notes that do not verify. ---

ROOT_LINE = TEXT.split("\n")[2]
LAST_BITS_SET = ROOT_LINE[:-2] + chr(ord(ROOT_LINE[-2]) + 1) + "="  # decodes to the same bytes
GOOD_LINE = SIGNATURES
OTHER_LINE = signature_line("witness.example/w1", bytes(4 + 72))
SAME_NAME_LINE = signature_line(ORIGIN, b"\0\0\0\1" + bytes(64))
SAME_ID_LINE = signature_line("acme.example/other", KEY_ID + bytes(64))

MALFORMED = {
    "empty": ("", "note: expected text"),
    "no signatures": (TEXT + "\n", "note: expected text"),
    "no signatures after the empty line": (TEXT + "\n\n", "note: expected text"),
    "no empty line": (TEXT + "\n" + SIGNATURES, "note: expected text"),
    "no final newline": (NOTE[:-1], "note: expected text"),
    "empty line after the signatures": (NOTE + "\n", "note: expected text"),
    "two newlines after the signatures": (NOTE + "\n\n", "note: expected text"),
    "CRLF": (NOTE.replace("\n", "\r\n"), r"note: got '\\r'"),
    "NUL": (NOTE.replace("acme", "ac\0me"), r"note: got '\\x00'"),
    "tab in a signature line": (NOTE.replace("— ", "—\t"), r"note: got '\\t'"),
    "lone surrogate": (NOTE.replace("acme", "\udcff"), r"note: got '\\udcff'"),
    "oversize": (NOTE + OTHER_LINE * (MAX_NOTE_SIZE // 100), "note: got .* expected at most"),
    "hyphen for the dash": (NOTE.replace("— ", "- "), "signature line: got"),
    "two hyphens": (NOTE.replace("— ", "-- "), "signature line: got"),
    "no space after the dash": (NOTE.replace("— ", "—"), "signature line: got"),
    "two spaces after the dash": (NOTE.replace("— ", "—  "), "key name: got ''"),
    "space before the dash": (NOTE.replace("— ", " — "), "signature line: got"),
    "two spaces before the signature": (
        NOTE.replace(f"— {ORIGIN} ", f"— {ORIGIN}  "),
        "signature: got ' .* expected canonical base64",
    ),
    "text after the signature": (NOTE[:-1] + " more\n", "signature: got .* canonical base64"),
    "plus in the key name": (NOTE.replace("— acme", "— ac+me"), "key name: got"),
    "no-break space in the key name": (NOTE.replace("— acme", "— ac\u00a0me"), "key name: got"),
    "no signature on the line": (f"{TEXT}\n\n— {ORIGIN}\n", "signature: got '', expected"),
    "signature without padding": (NOTE.replace("=\n", "\n"), "expected canonical base64"),
    "url-safe base64": (f"{TEXT}\n\n— {ORIGIN} _-__\n", "expected canonical base64"),
    "signature of a key id alone": (
        f"{TEXT}\n\n{signature_line(ORIGIN, KEY_ID)}",
        "signature: got 4 bytes",
    ),
    "signature shorter than a key id": (
        f"{TEXT}\n\n{signature_line(ORIGIN, KEY_ID[:3])}",
        "signature: got 3 bytes",
    ),
    "short Ed25519 signature": (
        f"{TEXT}\n\n{signature_line(ORIGIN, KEY_ID + bytes(63))}",
        "is not one of this text",
    ),
    "long Ed25519 signature": (
        NOTE.replace(
            SIGNATURES, signature_line(ORIGIN, b64decode(SIGNATURES.split(" ")[2]) + b"\0")
        ),
        "is not one of this text",
    ),
    "unknown signature only": (f"{TEXT}\n\n{OTHER_LINE}", "got 0 signatures"),
    "signature of a key of the same name": (f"{TEXT}\n\n{SAME_NAME_LINE}", "got 0 signatures"),
    "signature of a key of the same id": (f"{TEXT}\n\n{SAME_ID_LINE}", "got 0 signatures"),
    "same signature twice": (NOTE + GOOD_LINE, "got 2 signatures"),
    "bad signature after the good one": (
        NOTE + signature_line(ORIGIN, KEY_ID + bytes(64)),
        "got 2 signatures",
    ),
    "malformed line of an unknown key": (NOTE + "— witness.example ?\n", "canonical base64"),
    "signature over another text": (NOTE.replace("\n42\n", "\n43\n"), "is not one of this text"),
    "signature over the empty line too": (
        f"{TEXT}\n\n" + signature_line(ORIGIN, KEY_ID + KEY.sign((TEXT + "\n\n").encode())),
        "is not one of this text",
    ),
    # From here on the signature is good and the text is not a checkpoint.
    "leading zero": (signed(f"{ORIGIN}\n042\n{ROOT_LINE}\n"), "tree size: got '042'"),
    "double zero": (signed(f"{ORIGIN}\n00\n{ROOT_LINE}\n"), "tree size: got '00'"),
    "plus sign": (signed(f"{ORIGIN}\n+42\n{ROOT_LINE}\n"), "tree size: got"),
    "negative": (signed(f"{ORIGIN}\n-1\n{ROOT_LINE}\n"), "tree size: got '-1'"),
    "underscore": (signed(f"{ORIGIN}\n4_2\n{ROOT_LINE}\n"), "tree size: got"),
    "space after the size": (signed(f"{ORIGIN}\n42 \n{ROOT_LINE}\n"), "tree size: got"),
    "hexadecimal": (signed(f"{ORIGIN}\n0x2a\n{ROOT_LINE}\n"), "tree size: got"),
    "a digit that is not ASCII": (signed(f"{ORIGIN}\n4٢\n{ROOT_LINE}\n"), "tree size: got"),
    "size beyond 63 bits": (signed(f"{ORIGIN}\n{2**63}\n{ROOT_LINE}\n"), "tree size: got"),
    "size of 5000 digits": (signed(f"{ORIGIN}\n{'9' * 5000}\n{ROOT_LINE}\n"), "tree size: got"),
    "no size": (signed(f"{ORIGIN}\n\n{ROOT_LINE}\n"), "tree size: got ''"),
    "no origin": (signed(f"\n42\n{ROOT_LINE}\n"), "origin: got ''"),
    "no root": (signed(f"{ORIGIN}\n42\n"), "checkpoint: got 2 lines"),
    "empty root": (signed(f"{ORIGIN}\n42\n\n"), "root: got ''"),
    "root with stray bits": (signed(f"{ORIGIN}\n42\n{LAST_BITS_SET}\n"), "root: got .* canonical"),
    "root without padding": (signed(f"{ORIGIN}\n42\n{ROOT_LINE[:-1]}\n"), "root: got .* canonical"),
    "root with a space": (signed(f"{ORIGIN}\n42\n {ROOT_LINE}\n"), "root: got .* canonical"),
    "12-byte root": (signed(f"{ORIGIN}\n42\nZG9uJ3QgY2FyZSAy\n"), "root: got 12 bytes"),
    "extension line": (signed(CHECKPOINT.text + "more\n"), "checkpoint: got 4 lines"),
    "empty extension line": (signed(CHECKPOINT.text + "\n"), "checkpoint: got 4 lines"),
    "empty line and more text": (signed(CHECKPOINT.text + "\nmore\n"), "checkpoint: got 5 lines"),
}


@pytest.mark.parametrize(("note", "says"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_note_is_refused_with_the_reason(note: str, says: str) -> None:
    with pytest.raises(NoteError, match=says) as refusal:
        verify(note, VERIFIER_KEY)
    assert len(str(refusal.value)) < 250, "an error quotes only the start of what it got"


def test_base64_with_stray_bits_is_refused_though_it_decodes_to_the_same_root() -> None:
    assert b64decode(LAST_BITS_SET) == CHECKPOINT.root


@pytest.mark.parametrize("unknown", [OTHER_LINE, SAME_NAME_LINE, SAME_ID_LINE])
def test_signatures_of_unknown_keys_are_ignored_before_and_after_the_known_one(
    unknown: str,
) -> None:
    assert verify(NOTE + unknown * 16, VERIFIER_KEY) == CHECKPOINT
    assert verify(f"{TEXT}\n\n{unknown * 16}{GOOD_LINE}", VERIFIER_KEY) == CHECKPOINT


def test_a_note_with_sixteen_post_quantum_signatures_is_read() -> None:
    lines = "".join(signature_line(f"witness.example/{n}", bytes(5000)) for n in range(16))
    assert verify(NOTE + lines, VERIFIER_KEY) == CHECKPOINT


def test_another_key_under_the_same_name_does_not_verify_the_note() -> None:
    with pytest.raises(NoteError, match="got 0 signatures"):
        verify(NOTE, encode_verifier_key(ORIGIN, OTHER_KEY.public_key()))


def test_a_key_whose_id_collides_gets_no_further_than_the_signature() -> None:
    forged = signature_line(ORIGIN, KEY_ID + OTHER_KEY.sign(CHECKPOINT.text.encode()))
    with pytest.raises(NoteError, match="is not one of this text"):
        verify(f"{TEXT}\n\n{forged}", VERIFIER_KEY)


@given(st.integers(0, len(NOTE.encode()) * 8 - 1))
def test_a_flipped_bit_anywhere_in_a_note_fails(bit: int) -> None:
    raw = bytearray(NOTE.encode())
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(NoteError):
        verify(raw.decode(errors="surrogateescape"), VERIFIER_KEY)


@given(st.text() | st.text("\n— +=\0Aa0/").map(TEXT.__add__))
def test_any_text_at_all_is_refused_with_a_note_error(note: str) -> None:
    with pytest.raises(NoteError):
        verify(note, VERIFIER_KEY)


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=200),
    st.integers(0, 2**63 - 1),
    st.binary(min_size=32, max_size=32),
)
def test_every_checkpoint_that_can_be_made_reads_back(origin: str, size: int, root: bytes) -> None:
    checkpoint = Checkpoint(origin=origin, size=size, root=root)
    assert verify(sign(checkpoint, ORIGIN, KEY), VERIFIER_KEY) == checkpoint


# --- Verifier keys. ---


def test_a_verifier_key_is_name_hash_and_typed_key() -> None:
    name, key = decode_verifier_key(VERIFIER_KEY)
    assert name == ORIGIN
    assert key.public_bytes_raw() == KEY.public_key().public_bytes_raw()
    hashed = sha256(ORIGIN.encode() + b"\n\x01" + key.public_bytes_raw()).hexdigest()[:8]
    encoded = b64encode(b"\x01" + key.public_bytes_raw()).decode()
    assert VERIFIER_KEY.split("+", 2) == [ORIGIN, hashed, encoded]


def test_a_verifier_key_may_have_plus_signs_in_its_base64() -> None:
    for seed in range(200):
        key = Ed25519PrivateKey.from_private_bytes(bytes([seed] * 32)).public_key()
        text = encode_verifier_key(ORIGIN, key)
        if text.count("+") > 2:
            assert decode_verifier_key(text)[1].public_bytes_raw() == key.public_bytes_raw()
            return
    pytest.fail("no key with a plus sign among 200")


NAME, HASH, ENCODED = VERIFIER_KEY.split("+", 2)


def with_key(data: bytes) -> str:
    return f"{NAME}+{HASH}+{b64encode(data).decode()}"


MALFORMED_KEYS = {
    "empty": ("", "got hash ''"),
    "name alone": (NAME, "got hash ''"),
    "no key": (f"{NAME}+{HASH}", "expected canonical base64"),
    "no name": (f"+{HASH}+{ENCODED}", "key name"),
    "space in the name": (f"a b+{HASH}+{ENCODED}", "key name"),
    "hash of another key": (f"{NAME}+00000000+{ENCODED}", f"got hash 00000000, expected {HASH}"),
    "hash of another name": (f"{NAME}x+{HASH}+{ENCODED}", f"got hash {HASH}, expected"),
    "upper-case hash": (f"{NAME}+{HASH.upper()}+{ENCODED}", "expected 8 digits"),
    "short hash": (f"{NAME}+{HASH[:7]}+{ENCODED}", "expected 8 digits"),
    "long hash": (f"{NAME}+0{HASH}+{ENCODED}", "expected 8 digits"),
    "newline after the key": (f"{VERIFIER_KEY}\n", "expected canonical base64"),
    "newline after the hash": (f"{NAME}+{HASH}\n+{ENCODED}", "expected 8 digits"),
    "no padding": (f"{NAME}+{HASH}+{ENCODED}=", "expected canonical base64"),
    "short key": (with_key(b"\x01" + bytes(31)), "and 31 bytes"),
    "long key": (with_key(b"\x01" + bytes(33)), "and 33 bytes"),
    "cosignature key": (with_key(b"\x04" + bytes(32)), "got type 04"),
}


@pytest.mark.parametrize(("key", "says"), MALFORMED_KEYS.values(), ids=MALFORMED_KEYS.keys())
def test_a_malformed_verifier_key_is_refused_with_the_reason(key: str, says: str) -> None:
    with pytest.raises(NoteError, match=says):
        verify(NOTE, key)


# --- A log made elsewhere. ---

VECTORS = os.environ.get("AGENTGUARD_VECTORS", "")
TESSERA_KEY = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"


@pytest.mark.skipif(not VECTORS, reason="AGENTGUARD_VECTORS names no folder")
def test_every_tessera_checkpoint_verifies_and_has_the_root_of_its_entries() -> None:
    log = Path(VECTORS, "tessera", "log")
    data = (log / "tile" / "entries" / "000.p" / "15").read_bytes()
    frontier = Frontier()
    for size in range(16):
        note = (log / f"checkpoint.{size}").read_bytes().decode()
        assert verify(note, TESSERA_KEY) == Checkpoint(
            origin="example.com/log/testdata", size=size, root=frontier.root()
        )
        length = 2 + int.from_bytes(data[:2])  # tlog-tiles: a uint16 before each entry
        if data:
            frontier.append(leaf_hash(data[2:length]))
        data = data[length:]
    assert (log / "checkpoint").read_bytes() == (log / "checkpoint.15").read_bytes()
    assert (frontier.size, data) == (15, b"")
