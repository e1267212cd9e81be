"""The ways in which a text can be read by someone who wants to hide something in it (S7).

Each `Reading` remembers which stretch of the original every character came from, so that what is
found in a decoded or folded reading is redacted where it really stands. All passes are linear.
"""

from __future__ import annotations

import binascii
import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache, partial

INVISIBLE_RUN = re.compile(  # the flag of England has 6 in a row; nothing honest has 12
    "[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]{12,}"
)
_UNUSUAL = re.compile(r"[^\t\n\r\x20-\x7e]")
_SPACES = re.compile(r"\s{2,}")
_SPACE = re.compile(r"\s+")
_PUNCTUATION = re.compile(r"[^A-Za-z0-9]+")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}|\\x[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|&#?\w{1,8};")
_BASE64_RUN = re.compile(r"[A-Za-z0-9+/_-]{16,}")
_HEX_RUN = re.compile(r"[0-9A-Fa-f]{24,}")
_PRINTABLE = re.compile(rb"[\t\n\r\x20-\x7e]{12,}")
_BLANK_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"
_TWINS = str.maketrans(
    "АВЕЅІЈКМНОРСТУХаеорсухіјѕԁһӏΑΒΕΖΗΙΚΜΝΟΡΤΥΧον。",  # noqa: RUF001 (Cyrillic and Greek)
    "ABESIJKMHOPCTYXaeopcyxijsdhlABEZHIKMNOPTYXov.",
)


Places = tuple[Sequence[int], Sequence[int]]


class Reading:
    """A text of which each character stands for a stretch of the original text.

    Args:
        text: what is read.
        places: gives starts and ends of those stretches, one each per character. Called once, when
            something was found: most texts hold nothing.
    """

    def __init__(self, text: str, places: Callable[[], Places]) -> None:
        self.text = text
        self._find_places = places

    @classmethod
    def of(cls, text: str) -> Reading:
        return cls(text, lambda: (range(len(text)), range(1, len(text) + 1)))

    @cached_property
    def _places(self) -> Places:
        return self._find_places()

    def stretch(self, start: int, end: int) -> tuple[int, int]:
        """Where `text[start:end]` (not empty) stands in the original."""
        starts, ends = self._places
        return min(starts[start], starts[end - 1]), max(ends[start], ends[end - 1])

    def replace(self, pattern: re.Pattern[str], by: Callable[[str], str]) -> Reading:
        """Each match replaced by a string of any length; `self` if nothing matches."""
        text, count = pattern.subn(lambda match: by(match[0]), self.text)
        return Reading(text, lambda: self._places_after(pattern, by)) if count else self

    def _places_after(self, pattern: re.Pattern[str], by: Callable[[str], str]) -> Places:
        starts: list[int] = []
        ends: list[int] = []
        done = 0
        for match in pattern.finditer(self.text):
            start, end = self.stretch(*match.span())
            length = len(by(match[0]))
            for places, own, place in ((starts, 0, start), (ends, 1, end)):
                places += self._places[own][done : match.start()]
                places += [place] * length
            done = match.end()
        return [*starts, *self._places[0][done:]], [*ends, *self._places[1][done:]]

    def folded(self) -> Reading:
        """Look-alikes made ASCII, invisible characters gone, one space where there were several.

        INVARIANT: no two spaces in a row. Patterns of secrets allow for one only.
        """
        return self.replace(_UNUSUAL, _fold).replace(_SPACES, _first)

    def unescaped(self) -> Reading:
        """URL, HTML and backslash escapes read, twice; `self` if there are none."""
        plain = self.replace(_ESCAPE, _unescape).replace(_ESCAPE, _unescape)
        return self if plain is self else plain.folded()

    def reversed(self) -> Reading:
        return Reading(self.text[::-1], lambda: (self._places[0][::-1], self._places[1][::-1]))

    def joined(self) -> Reading:
        """Without white space; `self` if there is none."""
        return self.replace(_SPACE, _nothing)

    def bare(self) -> Reading:
        """ASCII letters and digits only; `self` if there is nothing else."""
        return self.replace(_PUNCTUATION, _nothing)

    def from_base64(self) -> Iterator[Reading]:
        """Printable ASCII inside base64 runs, read at each of their four alignments."""
        for match in _BASE64_RUN.finditer(self.text):
            yield from self._printable(match, (_base64(match[0][at:]) for at in range(4)))

    def from_hex(self) -> Iterator[Reading]:
        """Printable ASCII inside hex runs, read at both of their alignments."""
        for match in _HEX_RUN.finditer(self.text):
            yield from self._printable(match, (_hex(match[0][at:]) for at in range(2)))

    def _printable(self, match: re.Match[str], decodings: Iterable[bytes]) -> Iterator[Reading]:
        for data in decodings:  # without NUL: UTF-16, as PowerShell encodes
            text = b"\n".join(_PRINTABLE.findall(data.replace(b"\0", b""))).decode("ascii")
            if text:
                yield Reading(text, partial(self._run_places, match.span(), len(text)))

    def _run_places(self, span: tuple[int, int], length: int) -> Places:
        start, end = self.stretch(*span)
        return [start] * length, [end] * length


def _base64(run: str) -> bytes:
    whole = run[: len(run) - (len(run) % 4 == 1)].translate({0x2D: "+", 0x5F: "/"})
    return binascii.a2b_base64(whole + "=" * (-len(whole) % 4))


def _hex(run: str) -> bytes:
    return bytes.fromhex(run[: len(run) // 2 * 2])


def _first(run: str) -> str:
    return run[0]


def _nothing(run: str) -> str:
    return ""


def _unescape(escape: str) -> str:
    return html.unescape(escape) if escape[0] == "&" else chr(int(escape.lstrip("%\\xu"), 16))


@lru_cache(maxsize=4096)
def _fold(char: str) -> str:
    """The plain character that this one passes for; empty if it isn't seen."""
    if "\U000e0020" <= char <= "\U000e007e":  # tag characters spell ASCII unseen
        return chr(ord(char) - 0xE0000)
    category = unicodedata.category(char)
    if category in ("Cc", "Cf", "Cs", "Mn", "Me") or char in _BLANK_LETTERS:
        return ""
    if category == "Nd":
        return str(unicodedata.decimal(char))
    if category == "Pd":
        return "-"
    plain = unicodedata.normalize("NFKC", char)
    # One ligature holds 18 letters: the reading stays linear in the text.
    return (plain if len(plain) <= 4 else char).translate(_TWINS)
