"""Answers of people: what they sign, and whether a signature holds. No ledger is needed."""

from __future__ import annotations

import base64
from dataclasses import replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agentguard.canonical import canonical
from agentguard.errors import ApprovalError, CanonicalError
from agentguard.model import Answer, Verdict
from agentguard.people.signers import Signers, key_id

_DOMAIN = b"agentguard/answer/v1\0"


def answer_bytes(
    *, request: str, verdict: Verdict, person: str, group: str | None, at: int, key_id: str
) -> bytes:
    """What a person signs: everything an Answer says, bound to the Request's digest (I7).

    Args:
        request: digest of the Request.
        group: the group the person answers as, or None.
        at: when (ms).
        key_id: of the key that signs.

    Raises:
        ApprovalError: a name holds what has no canonical form.
    """
    said = {
        "at": at,
        "group": group,
        "key_id": key_id,
        "person": person,
        "request": request,
        "verdict": verdict,
    }
    try:
        return _DOMAIN + canonical(said)
    except CanonicalError as error:
        raise ApprovalError(f"an answer can't be put in canonical form: {error}") from error


def sign_answer(
    private_key: Ed25519PrivateKey,
    *,
    request: str,
    verdict: Verdict,
    person: str,
    group: str | None,
    at: int,
) -> Answer:
    """Signs a Person's verdict with the Person's own key; see `answer_bytes`.

    Raises:
        ApprovalError: a name holds what has no canonical form.
    """
    unsigned = Answer(
        request=request,
        person=person,
        verdict=verdict,
        group=group,
        at=at,
        key_id=key_id(private_key.public_key()),
        signature="",
    )
    signature = private_key.sign(_signed(unsigned))
    return replace(unsigned, signature=base64.b64encode(signature).decode())


def verify_answer(answer: Answer, signers: Signers) -> None:
    """Returns if a key of the Person signed exactly this Answer.

    Whether the Person may answer this Request at this time is judged elsewhere (I1, S22).

    Raises:
        ApprovalError: no such key, or the signature is not of it; says which.
    """
    key = signers.lookup(answer.person, answer.key_id)
    if key is None:
        known = ", ".join(signers.keys.get(answer.person, {})) or "no key"
        raise ApprovalError(
            f"{answer.person!r} answered with key {answer.key_id!r}, {signers.file} has {known}; "
            "`agentguard people add` adds a key"
        )
    said = _signed(answer)
    try:
        signature = base64.b64decode(answer.signature, validate=True)
        # One spelling per signature: base64 can carry stray bits in its last digit.
        if base64.b64encode(signature).decode() != answer.signature:
            raise InvalidSignature
        key.verify(signature, said)
    except (InvalidSignature, ValueError):  # ValueError: no base64
        message = f"the answer of {answer.person!r} is not what key {answer.key_id} signed"
        raise ApprovalError(f"{message}; it was changed, ask the person to answer again") from None


def _signed(answer: Answer) -> bytes:
    return answer_bytes(
        request=answer.request,
        verdict=answer.verdict,
        person=answer.person,
        group=answer.group,
        at=answer.at,
        key_id=answer.key_id,
    )
