"""The words that stand in a media file beside its picture and sound.

No field of any format is parsed: every run of eight or more printable characters is text, in
UTF-8 or Latin-1, and in UTF-16 of either byte order (without a byte order mark only Latin, Greek,
Cyrillic, Hebrew, Arabic and Kana are found). Shorter words, and words in a cipher of its author's
own, are not seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAX_WORDS = 2**18
"""Characters of one file that are read; a file with more is of unknown class."""

_SHORTEST = 8
_ZEROS = bytes(64)  # a text has fewer in a row; padding is skipped quickly
_EIGHT_BIT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]{8,}")
_ASCII = re.compile(rb"[\t\n\r\x20-\x7e]{8,}")
_LATIN_1 = re.compile(  # words with single letters beyond ASCII: noise has few such runs
    rb"[\xa1-\xff]?[\t\n\r\x20-\x7e]++(?:[\xa1-\xff]{1,4}+[\t\n\r\x20-\x7e]++)++[\xa1-\xff]?"
)
_UTF_8_LETTERS = re.compile(rb"(?:[\xc3-\xdf][\x80-\xbf]){3}|(?:[\xe0-\xef][\x80-\xbf]{2}){2}")
_UTF_8 = re.compile(
    rb"(?:[\t\n\r\x20-\x7e]|[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|"
    rb"[\xf0-\xf4][\x80-\xbf]{3})++"
)
_MARKED = tuple(
    re.compile(mark + rb"((?:(?!\0\0)[\s\S]{2}){4,})") for mark in (b"\xff\xfe", b"\xfe\xff")
)
_LITTLE = rb"[\t\n\r\x20-\x7e\xa0-\xff]\0|[\s\S][\x03-\x06\x30]"
_BIG = rb"\0[\t\n\r\x20-\x7e\xa0-\xff]|[\x03-\x06\x30][\s\S]"
_SIXTEEN_BIT = re.compile(rb"(?P<big>(?:" + _BIG + rb"){8,})|(?:" + _LITTLE + rb"){8,}")
# What a run of 16-bit characters can't do without, for a quick search: `0` zero, `p` printable,
# `h` the upper half of other scripts' letters.
_LATIN_MARKS = bytes(
    0x30 if not byte else 0x70 if 0x20 <= byte < 0x7F or byte >= 0xA0 or byte in b"\t\n\r" else 0x2E
    for byte in range(256)
)
_OTHER_MARKS = bytes(0x68 if 3 <= byte <= 6 or byte == 0x30 else 0x78 for byte in range(256))
_SEEDS = ((_LATIN_MARKS, b"0p0p0p0p"), (_OTHER_MARKS, b"hxhxhxhx"))
_BYTES = {0xDC00 + byte: byte for byte in range(0x80, 0x100)}
_HIGH = bytes(range(0x80, 0x100))
_PADDING = re.compile(r"\s{4,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileText:
    """What is written in a file.

    Args:
        text: its runs, one below the other, each once.
        whole: False: there is more than `MAX_WORDS` characters of it.
    """

    text: str
    whole: bool


class Words:
    """Collects the runs of a file."""

    def __init__(self) -> None:
        self._runs: dict[str, None] = {}
        self._room = MAX_WORDS

    def found(self) -> FileText:
        return FileText(text="\n".join(self._runs), whole=self._room >= 0)

    def add(self, data: bytes, decode: Callable[[str], str]) -> None:
        """Add the runs that stand in some bytes.

        Args:
            decode: takes pictures that are written as base64 out of a run.
        """
        for piece in filter(None, data.split(_ZEROS)):
            for _, run in sorted(_runs(piece), key=lambda run: run[0]):
                text = _PADDING.sub("\n", decode(run).strip())
                if text and text not in self._runs and self._room >= 0:
                    room, self._room = self._room, self._room - len(text) - 1
                    self._runs[text[:room]] = None

    def add_text(self, text: str) -> None:
        """Add what is text as it stands: captions."""
        self._runs[text[: self._room]] = None
        self._room -= len(text)


def _runs(data: bytes) -> Iterator[tuple[int, str]]:
    """Where texts stand, and what they say."""
    for mark in _MARKED:  # what follows a mark may be 8-bit text all the same
        for match in mark.finditer(data):
            if _is_readable(match[0][:66]) and _is_readable(match[0]):
                yield match.start(), match[0].decode("utf-16", "replace")
    done = 0
    rest: list[bytes] = []
    for match in _EIGHT_BIT.finditer(data):
        texts = _eight_bit(match[0])
        yield from ((match.start(), text) for text in texts)
        if texts:
            rest += data[done : match.start()], bytes(match.end() - match.start())
            done = match.end()
    yield from _sixteen_bit(b"".join((*rest, data[done:])))


def _is_readable(run: bytes) -> bool:
    text = run.decode("utf-16", "replace")
    return sum(map(str.isprintable, text)) + sum(map(str.isspace, text)) >= 0.9 * len(text)


def _eight_bit(run: bytes) -> list[str]:
    try:
        return [run.decode("utf-8")]
    except UnicodeDecodeError:
        pass
    if _UTF_8_LETTERS.search(run):
        texts = [match[0].decode("utf-8", "replace") for match in _UTF_8.finditer(run)]
        texts = [text for text in texts if len(text) >= _SHORTEST]
        return texts or [match.decode("ascii") for match in _ASCII.findall(run)]
    found: list[str] = []
    done = 0
    mostly_ascii = 3 * len(run.translate(None, _HIGH)) > 2 * len(run)  # noise is not
    for match in _LATIN_1.finditer(run) if mostly_ascii else ():
        text = match[0].decode("utf-8", "surrogateescape").translate(_BYTES)
        plain = len(text.encode("ascii", "ignore"))
        if len(text) >= _SHORTEST and (len(text) - plain) * 4 <= plain:
            found += (ascii.decode("ascii") for ascii in _ASCII.findall(run, done, match.start()))
            found.append(text)
            done = match.end()
    return found + [ascii.decode("ascii") for ascii in _ASCII.findall(run, done)]


def _sixteen_bit(data: bytes) -> Iterator[tuple[int, str]]:
    for marks, seed in _SEEDS:
        marked = data.translate(marks)
        at = marked.find(seed)
        while at >= 0:
            match = _SIXTEEN_BIT.search(data, max(0, at - 16), at + 64)
            end = at + len(seed)
            if match is not None:
                whole = _SIXTEEN_BIT.match(data, match.start()) or match
                form = "utf-16-be" if whole["big"] else "utf-16-le"
                yield whole.start(), whole[0].decode(form, "replace")
                end = max(end, whole.end())
            at = marked.find(seed, end)
