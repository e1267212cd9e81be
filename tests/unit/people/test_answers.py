"""Answers are bound to the Request's digest and to everything they say (I7, S20)."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from agentguard.errors import ApprovalError
from agentguard.model import Answer, Verdict
from agentguard.people.answers import answer_bytes, sign_answer, verify_answer
from agentguard.people.signers import Signers, key_id

KIM = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
OMAR = Ed25519PrivateKey.from_private_bytes(b"\2" * 32)


def line(person: str, key: Ed25519PrivateKey) -> str:
    raw = key.public_key().public_bytes_raw()
    return f"{person} ed25519 {base64.b64encode(raw).decode()}\n"


SIGNERS = Signers.parse(line("kim", KIM) + line("omar", OMAR), Path("agentguard.signers"))
DIGEST = "a" * 64


def signed(key: Ed25519PrivateKey = OMAR, **changes: Any) -> Answer:
    said: dict[str, Any] = {
        "request": DIGEST,
        "verdict": Verdict.APPROVE,
        "person": "omar",
        "group": "legal",
        "at": 1_700_000_000_000,
    }
    return sign_answer(key, **(said | changes))


def test_what_is_signed_is_a_domain_and_canonical_json() -> None:
    assert answer_bytes(
        request="ab", verdict=Verdict.DENY, person="kim", group=None, at=5, key_id="cd"
    ) == (
        b"agentguard/answer/v1\0"
        b'{"at":5,"group":null,"key_id":"cd","person":"kim","request":"ab","verdict":"deny"}'
    )


def test_a_signed_answer_verifies() -> None:
    answer = signed()
    assert answer.key_id == key_id(OMAR.public_key())
    verify_answer(answer, SIGNERS)
    verify_answer(signed(KIM, person="kim", group=None, verdict=Verdict.DENY), SIGNERS)


@pytest.mark.parametrize(
    "change",
    [
        {"request": "b" * 64},
        {"verdict": Verdict.DENY},
        {"group": None},
        {"group": "brand"},
        {"at": 1_700_000_000_001},
        {"signature": ""},
        {"signature": "!"},
        {"signature": "é"},
        {"signature": base64.b64encode(bytes(64)).decode()},
        {"signature": base64.b64encode(bytes(63)).decode()},
        {"signature": signed(at=1).signature},
        {"signature": signed().signature + "\n"},
    ],
    ids=str,
)
def test_I7_an_answer_that_was_changed_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ApprovalError, match="is not what key"):
        verify_answer(replace(signed(), **change), SIGNERS)


@pytest.mark.parametrize("change", [{"person": "kim"}, {"person": "eve"}, {"key_id": "0" * 16}])
def test_S20_an_answer_in_another_name_or_key_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ApprovalError, match=r"agentguard\.signers has"):
        verify_answer(replace(signed(), **change), SIGNERS)


def test_S20_signing_in_another_name_with_ones_own_key_is_refused() -> None:
    with pytest.raises(ApprovalError, match="answered with key"):
        verify_answer(signed(KIM, person="omar"), SIGNERS)
    posed = replace(signed(KIM, person="omar"), key_id=key_id(OMAR.public_key()))
    with pytest.raises(ApprovalError, match="is not what key"):
        verify_answer(posed, SIGNERS)


def test_I11_without_signers_no_answer_verifies() -> None:
    with pytest.raises(ApprovalError, match="no key"):
        verify_answer(signed(), Signers.parse("", Path("none")))


def test_one_signature_has_one_spelling() -> None:
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    answer = signed()
    text = answer.signature
    other = text[:-3] + digits[digits.index(text[-3]) + 1] + "=="
    assert base64.b64decode(other) == base64.b64decode(text)
    with pytest.raises(ApprovalError, match="is not what key"):
        verify_answer(replace(answer, signature=other), SIGNERS)


def test_a_lone_surrogate_is_refused_as_an_approval_error() -> None:
    with pytest.raises(ApprovalError, match="surrogate"):
        signed(group="\ud800")
    with pytest.raises(ApprovalError, match="surrogate"):
        verify_answer(replace(signed(), group="\ud800"), SIGNERS)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SAID = st.fixed_dictionaries(
    {
        "request": TEXTS,
        "verdict": st.sampled_from(Verdict),
        "person": TEXTS,
        "group": TEXTS | st.none(),
        "at": st.integers(0, 2**60),
        "key_id": TEXTS,
    }
)


@given(SAID, SAID)
def test_different_answers_have_different_bytes(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert (answer_bytes(**one) == answer_bytes(**two)) == (one == two)


@given(SAID)
def test_every_signed_answer_verifies_and_no_other(said: dict[str, Any]) -> None:
    del said["key_id"]
    answer = sign_answer(OMAR, **(said | {"person": "omar"}))
    verify_answer(answer, SIGNERS)
    with pytest.raises(ApprovalError):
        verify_answer(replace(answer, at=answer.at + 1), SIGNERS)
