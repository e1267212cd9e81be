"""One byte string per value: RFC 8785 JSON and the SHA-256 of it.

Two processes that mean the same Request must compute the same digest, so whatever has no single
form is refused or given one here: sets are sorted, integers beyond 2^53 are
tagged strings, NaN, infinities and lone surrogates are refused.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence, Set
from enum import Enum
from typing import Any

import rfc8785

from agentguard.errors import CanonicalError

_MAX_SAFE_INTEGER = 2**53 - 1  # RFC 8785 section 3.2.2.3 (numbers are IEEE 754 doubles)
_MAX_DEPTH = 64
_INTEGER = "$int"


def plain(value: object) -> Any:
    """The JSON form of a value: dict, list, str, int, float, bool or None.

    Args:
        value: JSON-like data, at most 64 levels deep; mappings need string keys, sets are sorted
            by canonical form.

    Raises:
        CanonicalError: the value, or something in it, has no canonical form.
    """
    return _Plain().of(value, ("$",), 0)


def canonical(value: object) -> bytes:
    """The RFC 8785 bytes of a value; see `plain` for what is accepted.

    Raises:
        CanonicalError: the value has no canonical form.
    """
    form = _Plain()
    return form.write(form.of(value, ("$",), 0))


class Canonical:
    """A mapping in canonical form, to be written more than once.

    Args:
        value: see `plain`.

    Raises:
        CanonicalError: it has no canonical form.
    """

    def __init__(self, value: Mapping[str, Any]) -> None:
        self._form = _Plain()
        self._made = self._form.of(value, ("$",), 0)

    def written(self, **more: Any) -> bytes:
        """The RFC 8785 bytes of it.

        Args:
            more: members that it has besides, in the form of `plain` already and without floats.
        """
        return self._form.write({**self._made, **more} if more else self._made)


_Path = tuple[Any, ...]
"""Where a value stands: its parent's path and the step to it, joined only for an error."""


class _Plain:
    """Makes a plain form, and notices whether only the rfc8785 package can write it."""

    def __init__(self) -> None:
        self.unusual = False

    def write(self, made: Any) -> bytes:
        # The standard library's C encoder writes the same bytes forty times faster, but not
        # floats (ECMAScript's digits), nor keys whose UTF-16 order is not their code points'.
        return rfc8785.dumps(made) if self.unusual else _ENCODER.encode(made).encode("utf-8")

    def of(self, value: Any, path: _Path, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise CanonicalError(f"{_at(path)}: nested deeper than {_MAX_DEPTH} levels; flatten it")
        kind: Any = type(value)  # most of what comes is one of these, and seen without a call
        if kind is str:
            return value if value.isascii() else _text(value, path)
        if kind is dict:
            return self._mapping(value, path, depth)
        if kind is list or kind is tuple:
            return [
                item if type(item) is str and item.isascii() and depth < _MAX_DEPTH
                else self.of(item, (path, i), depth + 1)
                for i, item in enumerate(value)
            ]  # fmt: skip
        if value is None or kind is bool or (kind is int and abs(value) <= _MAX_SAFE_INTEGER):
            return value
        match _family(kind):
            case "enum":
                return self.of(value._value_, path, depth)  # `value` is a slow descriptor
            case "text":
                return _text(value, path)
            case "integer":
                if abs(value) > _MAX_SAFE_INTEGER:
                    return {_INTEGER: _digits(value, path)}  # image seeds; no double is exact
                return int(value)
            case "number":
                if math.isnan(value) or math.isinf(value):
                    raise CanonicalError(f"{_at(path)}: got {value!r}, expected a finite number")
                self.unusual = True
                return float(value)
            case "mapping":
                return self._mapping(value, path, depth)
            case "set":
                members = [self.of(item, (path, "{}"), depth + 1) for item in value]
                return sorted(members, key=self.write)
            case "bytes":
                raise CanonicalError(f"{_at(path)}: got bytes, expected JSON; pass their SHA-256")
            case "sequence":
                return [self.of(item, (path, i), depth + 1) for i, item in enumerate(value)]
            case _:
                raise CanonicalError(f"{_at(path)}: got {kind.__name__}, expected JSON data")

    def _mapping(self, value: Mapping[Any, Any], path: _Path, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name, item in value.items():
            ordinary = type(name) is str and name.isascii() and name != _INTEGER
            key = name if ordinary else _key(name, path)
            if key in result:
                raise CanonicalError(f"{_at(path)}: two keys are written alike; rename one")
            if not ordinary and key and max(key) > _BMP:
                self.unusual = True
            if type(item) is str and item.isascii() and depth < _MAX_DEPTH:
                result[key] = item
            else:
                result[key] = self.of(item, (path, key), depth + 1)
        return result


_FAMILIES: Sequence[tuple[str, tuple[type, ...]]] = (  # the first that fits
    ("enum", (Enum,)),
    ("text", (str,)),
    ("integer", (int,)),
    ("number", (float,)),
    ("mapping", (Mapping,)),
    ("set", (Set,)),
    ("bytes", (bytes, bytearray, memoryview)),
    ("sequence", (Sequence,)),
)


@functools.lru_cache(maxsize=256)  # looking through the abstract classes is slow
def _family(kind: type) -> str | None:
    return next((name for name, types in _FAMILIES if issubclass(kind, types)), None)


_ENCODER = json.JSONEncoder(
    ensure_ascii=False,
    sort_keys=True,
    separators=(",", ":"),
    allow_nan=False,
    check_circular=False,  # the depth is bounded
)
_BMP = "\uffff"


def _at(path: _Path) -> str:
    steps: list[Any] = []
    while path:
        steps.append(path[-1])
        path = path[0] if len(path) > 1 else ()
    first, *rest = reversed(steps)
    return str(first) + "".join(
        f"[{s}]" if isinstance(s, int) else s if s == "{}" else f".{s:.40}" for s in rest
    )


def _key(name: object, path: _Path) -> str:
    if isinstance(name, Enum):
        name = name.value
    if not isinstance(name, str):
        raise CanonicalError(f"{_at(path)}: got a {type(name).__name__} as key, expected a string")
    key = _text(name, path)
    if key == _INTEGER:
        raise CanonicalError(f"{_at(path)}: the key {key!r} is reserved for large integers")
    return key


def _text(value: str, path: _Path) -> str:
    if value.isascii():
        return str.__str__(value)  # not what a subclass makes of itself
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise CanonicalError(
            f"{_at(path)}: text holds a lone surrogate; send valid Unicode"
        ) from None
    return str.__str__(value)


def _digits(value: int, path: _Path) -> str:
    try:
        return int.__repr__(value)
    except ValueError:  # Python writes 4300 digits at most
        raise CanonicalError(f"{_at(path)}: got an integer of thousands of digits") from None


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
