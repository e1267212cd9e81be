"""Signers, people's key files and the log key: strict to the line, private to the owner."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from agentguard.errors import ApprovalError, ConfigError
from agentguard.people.keys import create_person_key, key_folder, load_person_key, person_key_path
from agentguard.people.signers import Signers, append_signer, key_id
from agentguard.transparency.log_key import create_log_key, load_log_key

PASSPHRASE = "correct horse battery"
FILE = Path("agentguard.signers")


def public(seed: int) -> Ed25519PublicKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32).public_key()


def encoded(key: Ed25519PublicKey) -> str:
    return base64.b64encode(key.public_bytes_raw()).decode()


ONE, TWO = public(1), public(2)
KIM = f"kim ed25519 {encoded(ONE)}"


def test_a_key_id_is_the_start_of_the_hash_of_the_raw_key() -> None:
    assert key_id(ONE) == hashlib.sha256(ONE.public_bytes_raw()).hexdigest()[:16]


def test_signers_are_looked_up_by_person_and_key() -> None:
    text = f"# who may sign\n\n{KIM} # laptop\r\nkim\ted25519  {encoded(TWO)}\n"
    signers = Signers.parse(text, FILE)
    assert signers.lookup("kim", key_id(ONE)) == ONE
    assert signers.lookup("kim", key_id(TWO)) == TWO
    assert signers.lookup("omar", key_id(ONE)) is None
    assert signers.lookup("kim", "0" * 16) is None
    assert signers.lookup("Kim", key_id(ONE)) is None


def test_I11_a_missing_signers_file_holds_nobodys_key(tmp_path: Path) -> None:
    assert Signers.load(tmp_path / "gone").keys == {}


def stray(key: Ed25519PublicKey) -> str:
    """Another base64 spelling of the same bytes."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    text = encoded(key)
    last = digits[digits.index(text[-2]) + 1]
    assert base64.b64decode(text[:-2] + last + "=") == key.public_bytes_raw()
    return text[:-2] + last + "="


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("kim", "got 1 fields"),
        (f"kim {encoded(ONE)}", "got 2 fields"),
        (f"{KIM} laptop", "got 4 fields"),
        (f"{KIM}# no space before the comment", "got 8 fields"),
        (f"kim ssh-ed25519 {encoded(ONE)}", "expected ed25519"),
        (f"kim ED25519 {encoded(ONE)}", "expected ed25519"),
        ("kim ed25519 AAAA", "32 bytes"),
        ("kim ed25519 !!!!", "32 bytes"),
        ("kim ed25519 é", "32 bytes"),
        (f"kim ed25519 {encoded(ONE)[:-1]}", "32 bytes"),
        (f"kim ed25519 {stray(ONE)}", "32 bytes"),
        (f"kim ed25519 {encoded(ONE)}==", "32 bytes"),
        (f"ki\u200bm ed25519 {encoded(ONE)}", "can't be seen"),
        (f"kim\u00a0ed25519 {encoded(ONE)}", "can't be seen"),
        (f"kim ed25519 {encoded(ONE)} # \x1b[2J", "can't be seen"),
        (f"\u043emar ed25519 {encoded(ONE)}", "ASCII letters only"),
        (f"\uff4f\uff4d\uff41\uff52 ed25519 {encoded(ONE)}", "ASCII letters only"),
        (f"jo ed25519 {encoded(TWO)}", "stands above already, for 'jo'"),
    ],
)
def test_a_wrong_signers_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    file = tmp_path / "signers"
    file.write_text(f"# first\njo ed25519 {encoded(TWO)}\n{line}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        Signers.load(file)
    assert str(refused.value).startswith(f"{file}:3: ")
    assert says in str(refused.value)


def test_S20_one_key_does_not_count_as_two_people() -> None:
    with pytest.raises(ConfigError, match=r":2: .*for 'kim'"):
        Signers.parse(f"{KIM}\nomar ed25519 {encoded(ONE)}\n", FILE)


SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]
# Other spellings: the sign of an x that is 0, and every y from the prime up.
OTHER_SPELLINGS = [
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    *(f"{low:02x}{'ff' * 30}{top}" for low in range(0xED, 0x100) for top in ("7f", "ff")),
]


@pytest.mark.parametrize("point", SMALL_ORDER + OTHER_SPELLINGS)
def test_weak_or_non_canonical_key_is_refused(point: str) -> None:
    key = base64.b64encode(bytes.fromhex(point)).decode()
    with pytest.raises(ConfigError, match=r":2: .*lets anybody sign"):
        Signers.parse(f"{KIM}\nomar ed25519 {key}\n", FILE)


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_weak_key_is_not_appended(tmp_path: Path, point: str) -> None:
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(point))
    with pytest.raises(ConfigError, match="lets anybody sign"):
        append_signer(tmp_path / "signers", "omar", key)
    assert not (tmp_path / "signers").exists()


def test_a_signers_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "signers"
    file.write_bytes(b"\n\xff\n")
    with pytest.raises(ConfigError, match=":2: not UTF-8"):
        Signers.load(file)
    with pytest.raises(ConfigError, match="can't be read"):
        Signers.load(tmp_path)


@given(st.text() | st.lists(st.sampled_from(["kim", " ", "\t", "#", "ed25519", "AAAA", "\n"])))
def test_no_signers_text_raises_anything_but_ConfigError(text: str | list[str]) -> None:
    try:
        signers = Signers.parse("".join(text), FILE)
    except ConfigError:
        return
    assert signers.keys == {}


def test_appended_signers_are_read_back(tmp_path: Path) -> None:
    file = tmp_path / "new" / "signers"
    assert append_signer(file, "kim", ONE, "laptop, 2025") == f"{KIM}  # laptop, 2025"
    file.write_text(file.read_text().rstrip("\n"))  # as an editor may leave it
    append_signer(file, "omar", TWO)
    signers = Signers.load(file)
    assert signers.lookup("kim", key_id(ONE)) == ONE
    assert signers.lookup("omar", key_id(TWO)) == TWO
    assert file.read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("person", "comment"),
    [("kim lee", ""), ("#kim", ""), ("", ""), ("k\nm", ""), ("omar", "a\nb ed25519 x")],
)
def test_what_would_not_read_back_is_not_appended(
    tmp_path: Path, person: str, comment: str
) -> None:
    file = tmp_path / "signers"
    append_signer(file, "kim", ONE)
    before = file.read_bytes()
    with pytest.raises(ConfigError):
        append_signer(file, person, TWO, comment)
    with pytest.raises(ConfigError, match="already"):
        append_signer(file, "other", ONE)
    assert file.read_bytes() == before


def test_second_key_is_appended_only_where_it_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "signers"
    append_signer(file, "kim", ONE)
    before = file.read_bytes()
    with pytest.raises(ConfigError, match=f"kim has key {key_id(ONE)} .*add --second-key"):
        append_signer(file, "kim", TWO)
    assert file.read_bytes() == before
    append_signer(file, "kim", TWO, second_key=True)
    assert list(Signers.load(file).keys["kim"]) == [key_id(ONE), key_id(TWO)]


def test_nothing_is_appended_to_a_broken_file(tmp_path: Path) -> None:
    file = tmp_path / "signers"
    file.write_text("nonsense\n")
    with pytest.raises(ConfigError, match=":1:"):
        append_signer(file, "kim", ONE)
    assert file.read_text() == "nonsense\n"


def test_a_persons_key_is_encrypted_private_and_read_back(tmp_path: Path) -> None:
    file = person_key_path(tmp_path / "keys", "kim@acme.example")
    made = create_person_key(file, PASSPHRASE)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert file.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert load_person_key(file, PASSPHRASE).public_key() == made


@pytest.mark.parametrize("passphrase", ["", "1234567", "        ", "  short  ", "é" * 501])
def test_a_short_or_endless_passphrase_is_refused(tmp_path: Path, passphrase: str) -> None:
    with pytest.raises(ApprovalError, match="8 characters"):
        create_person_key(tmp_path / "k", passphrase)
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    create_person_key(tmp_path / "person", PASSPHRASE)
    create_log_key(tmp_path / "log")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    before = [(tmp_path / name).read_bytes() for name in ("person", "log")]
    with pytest.raises(ApprovalError, match="never overwritten"):
        create_person_key(tmp_path / "person", PASSPHRASE)
    with pytest.raises(ConfigError, match="never overwritten"):
        create_log_key(tmp_path / "log")
    with pytest.raises(ConfigError, match="never overwritten"):
        create_log_key(tmp_path / "link")
    assert before == [(tmp_path / name).read_bytes() for name in ("person", "log")]
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "passphrase", ["wrong horse battery", "correct horse batter", "", "x" * 2000]
)
def test_a_wrong_passphrase_is_told_and_not_repeated(tmp_path: Path, passphrase: str) -> None:
    create_person_key(tmp_path / "k", PASSPHRASE)
    with pytest.raises(ApprovalError, match="passphrase") as refused:
        load_person_key(tmp_path / "k", passphrase)
    assert not passphrase or passphrase not in str(refused.value)


def test_a_persons_key_without_a_passphrase_is_refused(tmp_path: Path) -> None:
    create_log_key(tmp_path / "k")
    with pytest.raises(ApprovalError, match="not protected"):
        load_person_key(tmp_path / "k", PASSPHRASE)
    with pytest.raises(ApprovalError, match="agentguard people add"):
        load_person_key(tmp_path / "gone", PASSPHRASE)


def test_a_log_key_is_private_and_read_back(tmp_path: Path) -> None:
    file = tmp_path / ".agentguard" / "log.key"
    made = create_log_key(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_log_key(file).public_key() == made


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o644])
def test_a_key_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    create_log_key(tmp_path / "log")
    create_person_key(tmp_path / "person", PASSPHRASE)
    os.chmod(tmp_path / "log", mode)
    os.chmod(tmp_path / "person", mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_log_key(tmp_path / "log")
    with pytest.raises(ApprovalError, match="chmod 600"):
        load_person_key(tmp_path / "person", PASSPHRASE)


def test_a_log_key_that_is_missing_or_another_thing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"copy the key from a machine that has it.*guard init"):
        load_log_key(tmp_path / "gone")
    with pytest.raises(ConfigError, match="can't be read"):
        load_log_key(tmp_path)
    create_person_key(tmp_path / "person", PASSPHRASE)
    with pytest.raises(ConfigError, match="not a plain PKCS#8"):
        load_log_key(tmp_path / "person")
    other = generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    for content, says in ((b"nonsense", "not a plain"), (other, "not an Ed25519")):
        (tmp_path / "odd").write_bytes(content)
        (tmp_path / "odd").chmod(0o600)
        with pytest.raises(ConfigError, match=says):
            load_log_key(tmp_path / "odd")


def test_keys_of_people_live_in_the_users_own_configuration() -> None:
    assert key_folder({"XDG_CONFIG_HOME": "/cfg", "HOME": "/h"}) == Path("/cfg/agentguard/keys")
    assert key_folder({"HOME": "/h"}) == Path("/h/.config/agentguard/keys")
    assert key_folder({"XDG_CONFIG_HOME": "cfg", "HOME": "/h"}).parts[1] == "h"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_a_persons_id_does_not_lead_out_of_the_folder(person: str) -> None:
    assert person_key_path(Path("/keys"), person).parent == Path("/keys")
    assert "/" not in person_key_path(Path("/keys"), person).name
