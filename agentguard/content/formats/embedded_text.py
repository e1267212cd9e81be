"""The words that stand in a media file beside its picture and sound.

No field of any format is parsed: every run of eight or more printable characters is text, in
UTF-8 or Latin-1, and in UTF-16 of either byte order (without a byte order mark only Latin, Greek,
Cyrillic, Hebrew, Arabic and Kana are found). Shorter words, and words in a cipher of its author's
own, are not seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

MAX_WORDS = 2**18
"""Characters of one file that are read; a file with more is of unknown class."""

_SHORTEST = 8
_PRINTABLE = rb"[\t\n\r\x20-\x7e\x80-\xff]"
_EIGHT_BIT = re.compile(_PRINTABLE + rb"{8,}")
_MARKED = re.compile(rb"(?:\xff\xfe|\xfe\xff)(?:(?!\0\0)[\s\S]{2}){4,}")
_LITTLE = rb"[\t\n\r\x20-\x7e\xa0-\xff]\0|[\s\S][\x03-\x06\x30]"
_BIG = rb"\0[\t\n\r\x20-\x7e\xa0-\xff]|[\x03-\x06\x30][\s\S]"
_SIXTEEN_BIT = re.compile(rb"(?P<big>(?:" + _BIG + rb"){8,})|(?:" + _LITTLE + rb"){8,}")
_MIXED = re.compile(  # UTF-8, or Latin-1 letters beside ASCII ones: noise has few such runs
    rb"(?:[\t\n\r\x20-\x7e]|[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|"
    rb"[\xf0-\xf4][\x80-\xbf]{3}|[\xa1-\xff](?=[A-Za-z ])|(?<=[A-Za-z ])[\xa1-\xff])+"
)
_ASCII = re.compile(rb"[\t\n\r\x20-\x7e]{8,}")
_LATIN_1 = {0xDC00 + byte: byte for byte in range(0x80, 0x100)}
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
        runs: list[tuple[int, str]] = []
        for match in _MARKED.finditer(data):  # what follows a mark may be 8-bit text all the same
            runs += ((match.start(), text) for text in _marked(match))
        for pattern, read in ((_EIGHT_BIT, _eight_bit), (_SIXTEEN_BIT, _wide)):
            done = 0
            rest: list[bytes] = []
            for match in pattern.finditer(data):
                texts = read(match)
                if not texts:
                    continue
                runs += ((match.start(), text) for text in texts)
                rest += data[done : match.start()], bytes(match.end() - match.start())
                done = match.end()
            data = b"".join((*rest, data[done:])) if rest else data
        for _, text in sorted(runs, key=lambda run: run[0]):
            text = _PADDING.sub("\n", decode(text).strip())
            if text and text not in self._runs and self._room >= 0:
                self._room -= len(text) + 1
                self._runs[text[: max(0, self._room + len(text) + 1)]] = None

    def add_text(self, text: str) -> None:
        """Add what is text as it stands: captions."""
        self._runs[text[: self._room]] = None
        self._room -= len(text)


def _eight_bit(run: re.Match[bytes]) -> list[str]:
    try:
        return [run[0].decode("utf-8")]
    except UnicodeDecodeError:
        pass
    found = []
    for match in _MIXED.finditer(run[0]):
        text = match[0].decode("utf-8", "surrogateescape").translate(_LATIN_1)
        plain = sum(char.isascii() for char in text)
        odd = sum("\xa0" <= char <= "\xff" for char in text)
        if len(text) >= _SHORTEST and odd * 4 <= plain:
            found.append(text)
        else:
            found += (ascii.decode("ascii") for ascii in _ASCII.findall(match[0]))
    return found


def _wide(run: re.Match[bytes]) -> list[str]:
    return [run[0].decode("utf-16-be" if run["big"] else "utf-16-le", "replace")]


def _marked(run: re.Match[bytes]) -> list[str]:
    text = run[0].decode("utf-16", "replace")
    readable = sum(char.isprintable() or char.isspace() for char in text)
    return [text] if readable * 10 >= len(text) * 9 else []
