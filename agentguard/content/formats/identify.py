"""What are these bytes? Decided by their structure, never by a name or a claimed type.

Media and tool results are hostile. `inspect` accepts a short list of formats, and of those only
files whose structure is walked to its end and fills the file: no cut-off media, no bytes behind
the picture, no second file inside, no canvas that explodes when it is decoded. One linear pass, a
bounded number of parts, a block of memory (for captions: 4 MiB). Nothing is decoded here: what
damage hides inside the codec's own data shows in the tool that decodes it.

Whatever no walker knows to be coded picture or sound may be words, and words are judged as a
caption in a call is: a secret is refused, personal data raise the file's class (S7).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import BinaryIO

from agentguard.content.formats.audio import flac, mp3, ogg, wav
from agentguard.content.formats.captions import captions
from agentguard.content.formats.embedded_text import FileText, Words
from agentguard.content.formats.image import gif, jpeg, png, webp
from agentguard.content.formats.matroska import matroska
from agentguard.content.formats.nested import (
    base64_pictures,
    behind_base64,
    pictures,
    refuse_files,
)
from agentguard.content.formats.reader import BLOCK, Cursor, Format, Limits, MediaRefused
from agentguard.content.formats.video import iso_media
from agentguard.content.text.scan import scan_long
from agentguard.model import UNCLASSIFIED

__all__ = ["FileText", "Format", "Limits", "MediaRefused", "inspect", "is_known", "read_text"]

_DEEPEST = 3  # a cover may hold a thumbnail
_ANY_SIZE = 2**63


def inspect(file: BinaryIO, *, limits: Limits) -> Format:
    """Recognise a media file, walk its structure to the end, and judge the words in it.

    Args:
        file: seekable, opened for reading in binary mode; it is left at its start.
        limits: what is accepted at most.

    Raises:
        MediaRefused: not one of the accepted formats, damaged, beyond a limit, or a secret
            stands in it. Bytes cause nothing else; an `OSError` of the file itself passes through.
    """
    cursor = Cursor(file, limits)
    try:
        format_ = _walk(cursor)
        return replace(format_, labels=_judge(cursor, format_, _text_of(cursor, format_)))
    finally:
        file.seek(0)


def read_text(file: BinaryIO) -> FileText:
    """The words in a file, for people: also of one that would not be taken in any more.

    Args:
        file: as for `inspect`.
    """
    limits = Limits(max_bytes=_ANY_SIZE, max_pixels=_ANY_SIZE, max_frames=_ANY_SIZE)
    cursor = Cursor(file, limits)
    try:
        return _text_of(cursor, _walk(cursor))
    except MediaRefused:
        words = Words()
        for data, _ in Cursor(file, limits).uncoded(cursor.size):
            words.add(data, str)
        return words.found()
    finally:
        file.seek(0)


def _walk(cursor: Cursor) -> Format:
    head = cursor.peek(1024)
    _refuse_second_file(cursor, head)
    for name, magic, walk in _FORMATS:
        if magic.match(head):
            cursor.name = name
            return walk(cursor)
    return captions(cursor)


def _text_of(cursor: Cursor, format_: Format) -> FileText:
    words = Words()
    if format_.is_text:
        cursor.move(0)
        words.add_text(b"".join(cursor.pieces(cursor.size)).decode("utf-8-sig"))
    else:
        _read(cursor, cursor.size, words, _DEEPEST)
    return words.found()


def _read(cursor: Cursor, end: int, words: Words, depth: int) -> None:
    """The words of a file, or of a picture in it that ends at `end`."""

    def without_pictures(text: str) -> str:
        """A run without the pictures in it that are written as base64, as XMP's thumbnails are."""
        kept = []
        done = 0
        for match, data in base64_pictures(text):
            for picture in pictures(cursor, data):
                words.add(data[: picture.start], str)
                _read(picture.cursor, picture.cursor.position, words, depth - 1)
                kept.append(text[done : match.start()])
                done = behind_base64(match, picture.end)
                break
        return "\n".join((*kept, text[done:]))

    for data, previews in cursor.uncoded(end):
        refuse_files(cursor, data)
        done = 0
        for picture in pictures(cursor, data) if depth else ():
            if not previews:
                cursor.refuse(
                    f"it holds a second file ({picture.name}) where no picture belongs; encode it"
                    " again to drop it"
                )
            words.add(data[done : picture.start], without_pictures)
            _read(picture.cursor, picture.cursor.position, words, depth - 1)
            done = picture.end
        words.add(data[done:], without_pictures if depth else str)


def _judge(cursor: Cursor, format_: Format, words: FileText) -> frozenset[str]:
    """The labels that the words in a file raise.

    Raises:
        MediaRefused: a secret stands among them.
    """
    found = scan_long(words.text)
    if found.secrets:
        where = f"line {found.line} of its text" if found.line else "its text"
        out = "take it out" if format_.is_text else "save it without metadata"
        cursor.refuse(f"{where} holds a secret ({found.secrets[0]}); {out}, and bring it in again")
    return found.labels | (frozenset() if words.whole else {UNCLASSIFIED})


def _refuse_second_file(cursor: Cursor, head: bytes) -> None:
    """ZIP is found from the end of a file, PDF within the first kilobyte: both can hide here."""
    if b"%PDF-" in head:
        cursor.refuse("it is a PDF, or holds one, which can carry scripts; export its pages as PNG")
    base = max(0, cursor.size - BLOCK)
    cursor.move(base)
    tail = cursor.peek(BLOCK)
    for match in _ZIP_END.finditer(tail):
        length, offset = (int.from_bytes(match[group], "little") for group in (1, 2))
        end = base + match.start()
        holds = tail[max(0, match.start() - 20) :].startswith(b"PK\x06\x07")  # ZIP64's locator
        for directory in (end - length, offset):
            if 0 <= directory < end:
                cursor.move(directory)
                holds |= cursor.peek(4) == b"PK\x01\x02"
        if holds or _ZIP64 in (length, offset):
            cursor.refuse("it is a ZIP archive, or holds one; encode it again to drop it")
    cursor.move(0)


# The directory's length and where it begins.
_ZIP_END = re.compile(rb"PK\x05\x06(?=.{8}(.{4})(.{4}))", re.DOTALL)
_ZIP64 = 0xFFFFFFFF

_FORMATS = tuple(
    (name, re.compile(magic, re.DOTALL), walk)
    for name, magic, walk in (
        ("PNG", rb"\x89PNG\r\n\x1a\n", png),
        ("JPEG", rb"\xff\xd8\xff", jpeg),
        ("GIF", rb"GIF8[79]a", gif),
        ("WebP", rb"RIFF....WEBP", webp),
        ("WAV", rb"RIFF....WAVE", wav),
        ("MP4 or MOV", rb"....ftyp", iso_media),
        ("WebM or Matroska", rb"\x1a\x45\xdf\xa3", matroska),
        ("FLAC", rb"fLaC", flac),
        ("Ogg", rb"OggS", ogg),
        ("MP3", rb"ID3|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", mp3),
    )
)


def is_known(data: bytes) -> bool:
    """Whether bytes begin as one of the accepted media formats does."""
    return any(magic.match(data) for _, magic, _ in _FORMATS)
