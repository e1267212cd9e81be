"""One byte string per value, in every process; what has no single form is refused."""

from __future__ import annotations

import enum
import json
import os
import subprocess
import sys
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard.canonical import canonical, digest, plain
from agentguard.errors import CanonicalError


class Colour(enum.Enum):
    RED = "red"


class Word(str, enum.Enum):  # noqa: UP042  its str() is not its value
    A = "a"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), [float("nan")]])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(CanonicalError, match="finite"):
        canonical(value)


@pytest.mark.parametrize(
    "value",
    [b"x", bytearray(b"x"), memoryview(b"x"), object(), {1: 2}, {None: 1}, {("a",): 1}, 1j, range],
)
def test_what_is_no_json_is_refused(value: object) -> None:
    with pytest.raises(CanonicalError):
        canonical(value)


@pytest.mark.parametrize("value", ["\ud800", {"a\udfff": 1}, ["\ud800x"], {"\ud800": float("nan")}])
def test_lone_surrogates_are_refused_and_the_error_can_be_written_down(value: object) -> None:
    with pytest.raises(CanonicalError, match="surrogate") as caught:
        canonical(value)
    str(caught.value).encode("utf-8")


@pytest.mark.parametrize("number", [2**53, -(2**53), 2**53 + 1, 10**40])
def test_large_integers_are_tagged_and_nothing_else_looks_like_them(number: int) -> None:
    assert plain(number) == {"$int": str(number)}
    assert canonical(number) not in {canonical(str(number)), canonical(float(number))}
    assert canonical(number) != canonical(number + 1)
    with pytest.raises(CanonicalError, match="reserved"):
        canonical({"$int": str(number)})


def test_integers_that_a_double_holds_are_numbers() -> None:
    assert canonical(2**53 - 1) == b"9007199254740991"
    assert canonical(-(2**53) + 1) == b"-9007199254740991"


def test_an_integer_too_long_to_write_is_refused() -> None:
    with pytest.raises(CanonicalError, match="digits"):
        canonical({"seed": 10**5000})


def test_numbers_are_equal_where_json_says_so_and_a_truth_value_is_no_number() -> None:
    assert canonical(1) == canonical(1.0) == b"1"
    assert canonical(0) == canonical(-0.0) == b"0"
    assert len({canonical(each) for each in (1, True, "1", "true", None, [1])}) == 6


@pytest.mark.parametrize("nest", [lambda inner: [inner], lambda inner: {"a": inner}])
def test_a_nesting_bomb_is_refused(nest: Any) -> None:
    value: Any = 1
    for _ in range(64):
        value = nest(value)
    canonical(value)
    for _ in range(20_000):
        value = nest(value)
    with pytest.raises(CanonicalError, match="nested"):
        canonical(value)


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(CanonicalError, match="nested"):
        canonical(loop)


def test_enums_count_as_their_values_also_as_keys() -> None:
    assert canonical([Colour.RED, Word.A]) == b'["red","a"]'
    assert canonical({Word.A: 1, Colour.RED: 2}) == b'{"a":1,"red":2}'
    with pytest.raises(CanonicalError, match="alike"):
        canonical({Word.A: 1, "A": 2, Colour.RED: 3, "red": 4})


def test_a_string_that_lies_about_itself_counts_as_what_it_is() -> None:
    class Liar(str):
        def __str__(self) -> str:
            return "innocent"

    assert canonical([Liar("guilty")]) == b'["guilty"]'
    assert canonical({Liar("guilty"): 1}) == b'{"guilty":1}'


def test_the_order_of_keys_does_not_count_and_that_of_lists_does() -> None:
    assert canonical({"b": 1, "a": 2}) == canonical({"a": 2, "b": 1})
    assert canonical([1, 2]) != canonical([2, 1])
    assert canonical({"\ufb33": 1, "\U0001f600": 2}) == (  # by UTF-16 units, as RFC 8785 says
        '{"\U0001f600":2,"\ufb33":1}'.encode()
    )


_SET_SCRIPT = """
from agentguard.canonical import digest
print(digest("t", {"s": {"a", "b", "c", "d", "e", "f"}, "n": frozenset({1, 2.5, None, True, "x"})}))
"""


def test_sets_are_written_alike_in_every_process() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", _SET_SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2", "77")
    }
    assert len(found) == 1


def test_a_digest_of_one_domain_is_none_of_another() -> None:
    assert digest("agentguard/request/v1", {}) != digest("agentguard/content/v1", {})
    assert digest("a", "b") != digest("ab", "")
    assert len(digest("a", 1)) == 64


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)


def alike(one: Any, two: Any) -> bool:
    """Whether two values are one JSON value; beyond 2^53 an integer is no double."""
    if isinstance(one, bool) or isinstance(two, bool) or one is None or two is None:
        return one is two
    if isinstance(one, (int, float)) and isinstance(two, (int, float)):
        tagged = [isinstance(n, int) and abs(n) > 2**53 - 1 for n in (one, two)]
        return one == two and tagged[0] == tagged[1]
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(alike, one, two))
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(alike(one[k], two[k]) for k in one)
    return isinstance(one, str) and isinstance(two, str) and one == two


@settings(max_examples=150, deadline=None)
@given(JSON, JSON)
def test_equal_bytes_iff_equal_json(one: Any, two: Any) -> None:
    try:
        first, second = canonical(one), canonical(two)
    except CanonicalError:
        return
    assert (first == second) is alike(one, two)


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_canonical_bytes_are_json_and_of_one_form(value: Any) -> None:
    try:
        written = canonical(value)
    except CanonicalError:
        return
    shuffled = json.loads(json.dumps(value))
    assert canonical(shuffled) == written
    json.loads(written)


_DOMAINS = st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=8)


@settings(max_examples=60, deadline=None)
@given(_DOMAINS, _DOMAINS, st.text(max_size=4), st.text(max_size=4))
def test_domains_never_meet(one: str, two: str, first: str, second: str) -> None:
    if one != two:
        assert digest(one, [first]) != digest(two, [second])


_WORDS = st.text(st.characters(exclude_categories=["Cs"]))
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _WORDS,
    lambda inner: (
        st.lists(inner) | st.dictionaries(_WORDS.filter(lambda key: key != "$int"), inner)
    ),
    max_leaves=20,
)


@given(_JSON)
def test_the_bytes_are_those_of_the_rfc8785_package(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value",
    [
        {"\U0001f600": 1, "\uffee": 2},  # UTF-16 order is not code point order
        {"\U0001f600": 1, "a": {"b": "\U0001f600"}},
        ["\x00\x08\x09\x0a\x0c\x0d\x1f\x7f\x80\u2028\u2029\ufeff\"\\/"],
        [1e21, 1e-7, -0.0, 1.0, 333333333.33333329, 4.50, 2e-3],
        {"": "", " ": " ", "\u00e9": "e\u0301"},
    ],
)  # fmt: skip
def test_the_bytes_are_those_of_the_rfc8785_package_at_its_corners(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)
