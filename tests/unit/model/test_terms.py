"""Terms have one form in a row, and one way to be joined (S36)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentguard.model import Terms

times = st.none() | st.integers(min_value=0, max_value=2**53 - 1)
channels = st.none() | st.frozensets(st.text(st.characters(codec="ascii"), max_size=6), max_size=4)
terms = st.builds(Terms, until=times, release_at=times, channels=channels, consent=st.booleans())


@given(terms)
def test_what_is_written_is_read(one: Terms) -> None:
    assert Terms.from_json(one.to_json()) == one
    assert Terms.from_json(one.to_json()).to_json() == one.to_json()


@given(terms, terms, terms)
def test_strictest_allows_only_what_all_allow(one: Terms, two: Terms, three: Terms) -> None:
    joined = one.strictest(two, three)
    assert joined == three.strictest(one, two) == one.strictest(two).strictest(three)
    for known in (one, two, three):
        assert joined.strictest(known) == joined
        if known.channels is not None:
            assert joined.channels is not None
            assert joined.channels <= known.channels


def test_unlimited_adds_nothing() -> None:
    assert Terms().to_json() == "{}"
    limited = Terms(until=5, channels=frozenset())
    assert limited.strictest(Terms()) == limited == Terms().strictest(limited)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"channels":["a","b"],"consent":false,"release_at":7,"until":10}',
         Terms(until=10, release_at=7, channels=frozenset({"a", "b"}), consent=False)),
        ('{"channels":[]}', Terms(channels=frozenset())),
        ('{"until":5}', Terms(until=5)),
    ],
)  # fmt: skip
def test_form_of_a_row_stays(text: str, expected: Terms) -> None:
    assert Terms.from_json(text) == expected
    assert expected.to_json() == text


def test_term_that_is_not_known_is_not_lost() -> None:
    with pytest.raises(ValueError, match="territories"):
        Terms.from_json('{"territories":["de"]}')
