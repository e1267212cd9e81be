"""One byte string per value: RFC 8785 JSON and the SHA-256 of it.

Two processes that mean the same Request must compute the same digest, so whatever has no single
form is refused or given one here (DESIGN section 3): sets are sorted, integers beyond 2^53 are
tagged strings, NaN, infinities and lone surrogates are refused.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence, Set
from enum import Enum
from typing import Any

import rfc8785

from agentguard.errors import CanonicalError

_MAX_SAFE_INTEGER = 2**53 - 1  # RFC 8785 section 3.2.2.3 (numbers are IEEE 754 doubles)
_MAX_DEPTH = 64
_INTEGER = "$int"


def plain(value: object, *, path: str = "$", depth: int = 0) -> Any:
    """The JSON form of a value: dict, list, str, int, float, bool or None.

    Args:
        value: JSON-like data; mappings need string keys, sets are sorted by canonical form.
        path: where the value stands, for the error message.
        depth: how deep the value stands; beyond 64 it is refused.

    Raises:
        CanonicalError: the value, or something in it, has no canonical form.
    """
    if depth > _MAX_DEPTH:
        raise CanonicalError(f"{path}: nested deeper than {_MAX_DEPTH} levels; flatten it")
    match value:
        case None | bool():
            return value
        case Enum():
            return plain(value.value, path=path, depth=depth)
        case int():
            if abs(value) > _MAX_SAFE_INTEGER:
                return {_INTEGER: _digits(value, path)}  # image seeds; no IEEE double is exact
            return int(value)
        case float():
            if math.isnan(value) or math.isinf(value):
                raise CanonicalError(f"{path}: got {value!r}, expected a finite number")
            return float(value)
        case str():
            return _text(value, path)
        case Mapping():
            result: dict[str, Any] = {}
            for name, item in value.items():
                key = _key(name, path)
                if key in result:
                    raise CanonicalError(f"{path}: two keys are written alike; rename one")
                result[key] = plain(item, path=f"{path}.{key:.40}", depth=depth + 1)
            return result
        case Set():
            members = [plain(item, path=f"{path}{{}}", depth=depth + 1) for item in value]
            return sorted(members, key=rfc8785.dumps)
        case bytes() | bytearray() | memoryview():
            raise CanonicalError(f"{path}: got bytes, expected JSON data; pass their SHA-256")
        case Sequence():
            return [plain(v, path=f"{path}[{i}]", depth=depth + 1) for i, v in enumerate(value)]
        case _:
            raise CanonicalError(f"{path}: got {type(value).__name__}, expected JSON data")


def _key(name: object, path: str) -> str:
    if isinstance(name, Enum):
        name = name.value
    if not isinstance(name, str):
        raise CanonicalError(f"{path}: got a {type(name).__name__} as key, expected a string")
    key = _text(name, path)
    if key == _INTEGER:
        raise CanonicalError(f"{path}: the key {key!r} is reserved for large integers")
    return key


def _text(value: str, path: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise CanonicalError(f"{path}: text holds a lone surrogate; send valid Unicode") from None
    return str.__str__(value)  # not what a subclass makes of itself


def _digits(value: int, path: str) -> str:
    try:
        return int.__repr__(value)
    except ValueError:  # Python writes 4300 digits at most
        raise CanonicalError(f"{path}: got an integer of thousands of digits") from None


def canonical(value: object) -> bytes:
    """The RFC 8785 bytes of a value; see `plain` for what is accepted.

    Raises:
        CanonicalError: the value has no canonical form.
    """
    return rfc8785.dumps(plain(value))


def digest(domain: str, value: object) -> str:
    """SHA-256 over a domain tag and the canonical form of a value, as 64 hex digits.

    Args:
        domain: what is being named, e.g. `"agentguard/request/v1"`; a digest of one domain can
            never be taken for one of another.
        value: see `plain`.

    Raises:
        CanonicalError: the value has no canonical form.
    """
    return digest_of(domain, canonical(value))


def digest_of(domain: str, data: bytes) -> str:
    """The same over bytes that are canonical already."""
    return hashlib.sha256(domain.encode("ascii") + b"\x00" + data).hexdigest()
