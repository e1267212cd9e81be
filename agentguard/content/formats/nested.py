"""Files in files: small pictures where they belong are walked like any picture; others refused."""

from __future__ import annotations

import binascii
import io
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from agentguard.content.formats.audio import mp3_frame_length
from agentguard.content.formats.image import gif, jpeg, png, webp
from agentguard.content.formats.reader import (
    Cursor,
    Format,
    MediaRefused,
    MediaTooLarge,
)

_MAX_PICTURES = 64
_MAX_TRIES = 256
_PICTURES: tuple[tuple[str, re.Pattern[bytes], Callable[[Cursor], Format]], ...] = (
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n"), png),
    ("JPEG", re.compile(rb"\xff\xd8\xff"), jpeg),
    ("GIF", re.compile(rb"GIF8[79]a"), gif),
    ("WebP", re.compile(rb"RIFF....WEBP", re.DOTALL), webp),
)
_FILES = (
    ("ZIP archive", rb"PK\x03\x04[\x0a-\x3f]\0|PK\x06\x07|PK\x06\x06"),
    ("7z archive", rb"7z\xbc\xaf\x27\x1c"),
    ("RAR archive", rb"Rar!\x1a\x07"),
    ("PDF", rb"%PDF-\d\.\d"),
    ("film or sound (MP4)", rb"ftyp(?<=\0\0[\0-\x0f][\x08-\xff]ftyp)[\w ]{4}"),
    ("film or sound (Matroska)", rb"\x1a\x45\xdf\xa3[\x01-\xff].{0,8}?\x42[\x82\x86\xf2\xf3\xf7]"),
    ("film or sound (RIFF)", rb"RIFF....(?:WAVE|AVI )|RIFX....WAVE|RF64....WAVE"),
    ("film (FLV)", rb"FLV\x01[\x00\x01\x04\x05]\0\0\0\x09"),
    ("film or sound (ASF)", rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9"),
    ("film (MPEG)", rb"\0\0\x01\xba[\x21-\x7f].{6,16}?\0\0\x01[\xbb-\xef]"),
    ("sound (FLAC)", rb"fLaC[\x00\x80]\0\0\x22"),
    ("sound (Ogg)", rb"OggS\0\x02"),
    ("sound (AIFF)", rb"FORM....AIF[FC]"),
    ("sound (MIDI)", rb"MThd\0\0\0\x06"),
    ("sound (AMR)", rb"#!AMR"),
    ("program", rb"\x7fELF[\x01\x02][\x01\x02]\x01"),
    ("program", rb"This program cannot be run in DOS mode"),
)
_FILE = tuple((name, re.compile(magic, re.DOTALL)) for name, magic in _FILES)
_TS_PACKET, _TS_SYNCS = 188, b"G" * 8  # of an MPEG transport stream
_SYNC = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb\xf0\xf1\xf8\xf9]")
_FEWEST_FRAMES = 4  # one behind the other are no accident
_LONGEST_FRAME = 8_192  # of AAC; of MP3 2,881
_MOST_BETWEEN = 64  # bytes between two frames: a comment's own header
_BASE64 = re.compile(r"(?:/9j/|iVBORw0KGgo|R0lGOD|UklGR|AAAAA)(?:[A-Za-z0-9+/=]|&#x[aA];|\s){256,}")
_BASE64_WORD = re.compile(r"[A-Za-z0-9+/=]+")
_NEWLINE_ENTITY = re.compile(r"&#x[aA];")


class Picture(NamedTuple):
    """A whole picture in some bytes.

    Args:
        cursor: at its end, with what it knows of it.
    """

    start: int
    end: int
    name: str
    cursor: Cursor


def refuse_files(cursor: Cursor, data: bytes) -> None:
    """Refuse what a player or an unpacker would find in a file that passes as something else.

    Raises:
        MediaRefused: another file stands in these bytes.
    """
    for name, magic in _FILE:
        if magic.search(data):
            cursor.refuse(f"it is a {name}, or holds one; encode it again to drop it")
    if any(_TS_SYNCS in data[phase::_TS_PACKET] for phase in range(_TS_PACKET)):
        cursor.refuse("it is a film (MPEG), or holds one; encode it again to drop it")
    if _holds_frames(data):
        cursor.refuse("it holds a second file: sound (MP3 or AAC); encode it again to drop it")


def pictures(cursor: Cursor, data: bytes) -> Iterator[Picture]:
    """The whole pictures in some bytes, one behind the other.

    Raises:
        MediaRefused: one is over the limits of a picture, or there are too many.
    """
    found = tries = at = 0
    places = [magic.search(data) for _, magic, _ in _PICTURES]
    while any(places):
        start = min(place.start() for place in places if place)
        name, _, walk = next(
            _PICTURES[number] for number, place in enumerate(places)
            if place and place.start() == start
        )  # fmt: skip
        inner = Cursor(io.BytesIO(data[start:]), cursor.limits, inner=True)
        inner.name = f"{cursor.name} with a {name} in it"
        tries, at = tries + 1, start + 1
        if _is_whole(inner, walk):
            found, at = found + 1, start + inner.position
            yield Picture(start, at, name, inner)
        if found > _MAX_PICTURES or tries > _MAX_TRIES:
            cursor.refuse(f"it holds more than {_MAX_PICTURES} pictures; encode it again")
        places = [
            magic.search(data, at) if place and place.start() < at else place
            for place, (_, magic, _) in zip(places, _PICTURES, strict=True)
        ]


def _is_whole(inner: Cursor, walk: Callable[[Cursor], Format]) -> bool:
    """Whether a picture stands there; what is not whole is none, and read as words.

    Raises:
        MediaTooLarge: it is over the limits of a picture.
    """
    try:
        walk(inner)
    except MediaTooLarge:
        raise
    except MediaRefused:
        return False
    return True


def base64_pictures(text: str) -> Iterator[tuple[re.Match[str], bytes]]:
    """Where a picture may stand in a text as base64, and its bytes."""
    for match in _BASE64.finditer(text):
        plain = "".join(_BASE64_WORD.findall(_NEWLINE_ENTITY.sub("", match[0])))
        plain = plain.split("=", 1)[0]
        plain = plain[: len(plain) // 4 * 4]
        yield match, binascii.a2b_base64(plain)


def behind_base64(match: re.Match[str], count: int) -> int:
    """Where a text goes on behind the first `count` bytes of a base64 match."""
    left = -(-count // 3) * 4
    masked = _NEWLINE_ENTITY.sub("     ", match[0])
    for word in _BASE64_WORD.finditer(masked):
        if len(word[0]) >= left:
            return match.start() + word.start() + left
        left -= len(word[0])
    return match.end()


def _holds_frames(data: bytes) -> bool:
    """Whether frames of MP3 or AAC follow each other; a few bytes may stand between them."""
    chains = bytearray(len(data) + _LONGEST_FRAME)  # by where they end, how many frames so far
    for match in _SYNC.finditer(data):
        at = match.start()
        length = _frame_length(data[at : at + 7])
        if not length:
            continue
        chain = 1 + max(chains[max(0, at - _MOST_BETWEEN) : at + 1])
        if chain == _FEWEST_FRAMES:
            return True
        chains[at + length] = max(chains[at + length], chain)
    return False


def _frame_length(head: bytes) -> int:
    if len(head) == 7 and head[1] & 0xF6 == 0xF0:  # ADTS
        return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return mp3_frame_length(int.from_bytes(head[:4], "big"))
