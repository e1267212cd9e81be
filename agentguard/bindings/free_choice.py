"""How much a model can say with numbers, choices and the order of a list (I4).

Words carry what the model was shown, and so do numbers: 150 digits are a name and an address. A
call may say a few bits without being taken for a text; more carry the labels of what was revealed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agentguard.bindings.argument_schema import values_at
from agentguard.bindings.compiled_binding import CompiledBinding

MOST_BITS_A_CALL = 64
"""A call that says more carries the labels of what its conversation was shown."""

MOST_BITS_A_CONVERSATION = 512
"""What the calls of a conversation say together, since something was revealed in it."""

MOST_NUMBERS = 200
"""Numbers in one call; what is more is media, or a text."""

MOST_DIGITS = 1_000
"""Decimal digits of all numbers of one call."""

_MOST_INTEGER = 2**53 - 1  # what a JSON number holds exactly
_BITS_A_DIGIT = 4
_BITS_A_CHARACTER = 8


def require_few_numbers(tool: str, arguments: Mapping[str, Any], paths: Iterable[str]) -> None:
    """Refuse more or longer numbers than a media tool's parameters are.

    Raises:
        ValueError: an integer of more than 53 bits, too many numbers, or too many digits.
    """
    numbers = digits = 0
    for path in paths:
        for value in values_at(arguments, path):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            numbers += 1
            digits += _digits(value)
            if isinstance(value, int) and abs(value) > _MOST_INTEGER:
                raise ValueError(
                    f"{tool}.{path}: got an integer of {value.bit_length()} bits, expected at most"
                    " 53"
                )
    if numbers > MOST_NUMBERS or digits > MOST_DIGITS:
        raise ValueError(
            f"{tool}: got {numbers} numbers of {digits} digits, expected at most {MOST_NUMBERS}"
            f" numbers and {MOST_DIGITS} digits in one call; use fewer, or round them"
        )


def bits_of(
    arguments: Mapping[str, Any],
    binding: CompiledBinding,
    leaves: Mapping[str, Mapping[str, Any]],
    defaults: Mapping[str, Sequence[Any]],
) -> int:
    """How many bits a model is free to choose in a call, besides its texts.

    A boolean is 1 bit, a choice the logarithm of its options, an integer its bit length and its
    sign, a float 4 bits for each digit as it is written. Each value counts at least 1, so that the
    length of a list counts, and a value that is left out or left at its default counts 1. Assets
    of a list count by their order.

    Args:
        leaves: the schema of each value, by path.
        defaults: what the schema itself puts there, by path.
    """
    bits = _nested(arguments)
    for path in binding.plain:
        known, leaf = defaults.get(path, ()), leaves[path]
        values = list(values_at(arguments, path))
        bits += sum(1 if _is_among(value, known) else _bits(value, leaf) for value in values) or 1
        parent, _, name = path.rpartition(".")
        objects = list(values_at(arguments, parent)) if parent else []
        bits += sum(1 for each in objects if name.rstrip("[]") not in each)
    for path in binding.assets:
        bits += _order(list(values_at(arguments, path)))
    return bits


def _nested(value: Any) -> int:
    """How many items of lists are lists, objects or null: how they alternate says something."""
    if isinstance(value, Mapping):
        return sum(map(_nested, value.values()))
    if not isinstance(value, list):
        return 0
    return sum(_nested(item) + (item is None or isinstance(item, (list, Mapping)))
               for item in value)  # fmt: skip


def _is_among(value: Any, known: Sequence[Any]) -> bool:
    return any(type(value) is type(one) and repr(value) == repr(one) for one in known)


def _bits(value: Any, leaf: Mapping[str, Any]) -> int:
    options = leaf.get("enum", ())
    if value in options:
        return max(1, math.ceil(math.log2(len(options))))
    if isinstance(value, bool) or "const" in leaf:
        return 1
    if isinstance(value, int):
        return max(1, value.bit_length()) + (value < 0)
    if isinstance(value, float):
        return _BITS_A_DIGIT * _digits(value) + (math.copysign(1, value) < 0)
    return max(1, _BITS_A_CHARACTER * len(str(value)))


def _digits(value: int | float) -> int:
    return sum(character.isdigit() for character in repr(value))


def _order(items: Sequence[Any]) -> int:
    """Bits in the order of a list: how many lists can be made of the same items."""
    ways = math.factorial(len(items))
    for count in Counter(map(repr, items)).values():
        ways //= math.factorial(count)
    return math.ceil(math.log2(ways))
