"""What are these bytes? Decided by their structure, never by a name or a claimed type.

Media and tool results are hostile. `inspect` accepts a short list of formats, and of those only
files whose structure is walked to its end and fills the file: no cut-off media, no bytes behind
the picture, no second file inside (ZIP, PDF), no canvas that explodes when it is decoded. One
linear pass, a bounded number of parts, a block of memory (for captions: 4 MiB). Nothing is
decoded here: what damage hides inside the codec's own data shows in the tool that decodes it.
"""

from __future__ import annotations

import re
import zlib
from typing import BinaryIO

from agentguard.content.formats.audio import flac, mp3, ogg, wav
from agentguard.content.formats.reader import (
    BLOCK,
    Cursor,
    Format,
    Limits,
    MediaRefused,
    riff_chunks,
)
from agentguard.content.formats.video import iso_media, matroska

__all__ = ["Format", "Limits", "MediaRefused", "inspect"]


def inspect(file: BinaryIO, *, limits: Limits) -> Format:
    """Recognise a media file and walk its structure to the end.

    Args:
        file: seekable, opened for reading in binary mode; it is left at its start.
        limits: what is accepted at most.

    Raises:
        MediaRefused: not one of the accepted formats, damaged, or beyond a limit. Bytes cause
            nothing else; an `OSError` of the file itself passes through.
    """
    cursor = Cursor(file, limits)
    head = cursor.peek(1024)
    try:
        _refuse_second_file(cursor, head)
        for name, magic, walk in _FORMATS:
            if magic.match(head):
                cursor.name = name
                return walk(cursor)
        return _text(cursor, head)
    finally:
        file.seek(0)


def _refuse_second_file(cursor: Cursor, head: bytes) -> None:
    """ZIP is found from the end of a file, PDF within the first kilobyte: both can hide here."""
    if b"%PDF-" in head:
        cursor.refuse("it is a PDF, or holds one, which can carry scripts; export its pages as PNG")
    cursor.move(max(0, cursor.size - BLOCK))
    tail = cursor.peek(BLOCK)
    base = cursor.position
    for match in _ZIP_END.finditer(tail):
        length = int.from_bytes(match[1], "little")
        directory = base + match.start() - length
        cursor.move(max(directory, 0))
        if length == _ZIP64 or (directory >= 0 and cursor.peek(4) == b"PK\x01\x02"):
            cursor.refuse("it is a ZIP archive, or holds one; encode it again to drop it")
    cursor.move(0)


_ZIP_END = re.compile(rb"PK\x05\x06(?=.{8}(.{4}))", re.DOTALL)  # with the directory's length
_ZIP64 = 0xFFFFFFFF


def _png(cursor: Cursor) -> Format:
    cursor.skip(8)
    width = height = frames = 0
    kinds: set[bytes] = set()
    kind = b""
    while kind != b"IEND":
        cursor.part()
        before, length, kind = kind, cursor.number(4), cursor.take(4)
        if (kind == b"IHDR") != (not before):
            cursor.refuse("it does not begin with its one IHDR chunk; encode it again")
        if not kind.isalpha() or (kind[:1].isupper() and kind not in _PNG_CRITICAL):
            cursor.refuse("it has a chunk that no decoder knows; encode it again")
        if kind == b"IDAT" and kind in kinds and kind != before:
            cursor.refuse("its picture data are not in one place; encode it again")
        kinds.add(kind)
        crc, body = zlib.crc32(kind), b""
        for piece in cursor.pieces(length):
            crc, body = zlib.crc32(piece, crc), body or piece
        if cursor.number(4) != crc:
            cursor.refuse("a chunk fails its CRC; get the file again")
        if kind == b"IHDR":
            if length != 13:
                cursor.refuse("its header is damaged; encode it again")
            width, height = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")
            cursor.canvas(width, height)
        frames += kind == b"fcTL"
        cursor.frames(frames)
    if b"IDAT" not in kinds or length:
        cursor.refuse("it holds no picture; encode it again")
    cursor.end()
    return Format(media_type="image/png", extension=".png", width=width, height=height)


_PNG_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")


def _jpeg(cursor: Cursor) -> Format:
    cursor.skip(2)
    width = height = scans = 0
    while (marker := _jpeg_marker(cursor)) != 0xD9:
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            cursor.refuse("it has a marker out of place; encode it again")
        length = cursor.number(2) - 2
        if length < 0:
            cursor.refuse("it has a segment shorter than its length; encode it again")
        body = cursor.take(length)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if marker > 0xC2 or width or length < 6:
                cursor.refuse("it is neither one baseline nor progressive picture; encode it again")
            height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            cursor.canvas(width, height)
        if marker == 0xDA:
            scans += 1
            if not width or scans > _JPEG_SCANS:
                cursor.refuse(f"no frame, or more than {_JPEG_SCANS} scans; encode it again")
            _jpeg_skip_scan(cursor)
    if not scans:
        cursor.refuse("it holds no picture; encode it again")
    cursor.end()
    return Format(media_type="image/jpeg", extension=".jpg", width=width, height=height)


_JPEG_SCANS = 100  # a progressive file of thousands of scans takes minutes to decode
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # in scan data: not stuffing, not restart


def _jpeg_marker(cursor: Cursor) -> int:
    if cursor.take(1) != b"\xff":
        cursor.refuse("it has bytes between its segments; encode it again")
    while (marker := cursor.number(1)) == 0xFF:  # fill bytes
        cursor.part()
    cursor.part()
    return marker


def _jpeg_skip_scan(cursor: Cursor) -> None:
    while len(block := cursor.peek(BLOCK)) > 1:
        if found := _JPEG_MARKER.search(block):
            cursor.skip(found.start())
            return
        cursor.skip(len(block) - 1)  # its last byte may begin a marker
    cursor.skip(2)  # cut off


def _gif(cursor: Cursor) -> Format:
    cursor.skip(6)
    width, height, flags = cursor.little(2), cursor.little(2), cursor.little(1)
    cursor.canvas(width, height)
    cursor.skip(2 + _gif_palette(flags))
    frames = 0
    while (block := cursor.take(1)) != b";":
        cursor.part()
        if block == b",":
            frames += 1
            cursor.frames(frames)
            cursor.skip(4)
            cursor.canvas(cursor.little(2), cursor.little(2))
            cursor.skip(_gif_palette(cursor.little(1)))
        elif block != b"!":
            cursor.refuse("it has bytes between its blocks; encode it again")
        cursor.skip(1)
        while length := cursor.little(1):
            cursor.part()
            cursor.skip(length)
    if not frames:
        cursor.refuse("it holds no picture; encode it again")
    cursor.end()
    return Format(media_type="image/gif", extension=".gif", width=width, height=height)


def _gif_palette(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _webp(cursor: Cursor) -> Format:
    canvas: tuple[int, int] | None = None
    frames = stills = 0
    for number, (kind, length) in enumerate(riff_chunks(cursor)):
        if kind not in _WEBP_CHUNKS or (kind == b"VP8X" and number):
            cursor.refuse("it has a chunk that no decoder knows; encode it again")
        start, size = cursor.position, None
        if kind == b"VP8X":
            cursor.skip(4)
            size = cursor.little(3) + 1, cursor.little(3) + 1
        elif kind == b"ANMF":
            frames += 1
            cursor.frames(frames)
            cursor.skip(6)
            cursor.canvas(cursor.little(3) + 1, cursor.little(3) + 1)
            cursor.skip(4)
            _webp_frame(cursor, start + length)
        elif kind in (b"VP8 ", b"VP8L"):
            stills += 1
            size = _webp_bitstream(cursor, kind)
        if cursor.position > start + length:
            cursor.refuse("it has a chunk shorter than its content; encode it again")
        if size:
            cursor.canvas(*size)
            if canvas not in (None, size):
                cursor.refuse("its canvas and its picture differ in size; encode it again")
            canvas = size
    if canvas is None or stills != (0 if frames else 1):
        cursor.refuse("it holds no picture, or several that are no animation; encode it again")
    cursor.end()
    return Format(media_type="image/webp", extension=".webp", width=canvas[0], height=canvas[1])


_WEBP_CHUNKS = frozenset(b"VP8L VP8X ALPH ANIM ANMF ICCP EXIF C2PA".split()) | {b"VP8 ", b"XMP "}


def _webp_frame(cursor: Cursor, end: int) -> None:
    """The picture of an animation's frame may be larger than the frame says."""
    while cursor.position + 8 <= end:
        cursor.part()
        kind, length = cursor.take(4), cursor.little(4)
        stop = cursor.position + length + length % 2
        if kind in (b"VP8 ", b"VP8L"):
            cursor.canvas(*_webp_bitstream(cursor, kind))
        cursor.move(stop)


def _webp_bitstream(cursor: Cursor, kind: bytes) -> tuple[int, int]:
    if kind == b"VP8L":
        if cursor.take(1) != b"\x2f":
            cursor.refuse("its lossless picture is damaged; encode it again")
        bits = cursor.little(4)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if cursor.take(6)[3:] != b"\x9d\x01\x2a":
        cursor.refuse("its picture is damaged; encode it again")
    return cursor.little(2) & 0x3FFF, cursor.little(2) & 0x3FFF


def _text(cursor: Cursor, head: bytes) -> Format:
    """Captions: SRT, WebVTT or plain UTF-8 text that no program takes for code or a playlist."""
    if not head:
        cursor.refuse("it is empty")
    data = b"".join(cursor.pieces(cursor.size)) if cursor.size <= _MAX_CAPTIONS else b"\0"
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if _CONTROL.search(text):
        cursor.refuse(
            f"unknown format: it begins with {head[:8].hex(' ')}, expected one of PNG, JPEG, GIF, "
            "WebP, MP4, MOV, WebM, Matroska, WAV, MP3, FLAC, Ogg, or captions in UTF-8 (at most "
            f"{_MAX_CAPTIONS} bytes); convert it"
        )
    if _MARKUP.search(text):
        cursor.refuse("it is SVG, HTML or XML, which can carry scripts; render it to PNG")
    if _PLAYLIST.match(text):
        cursor.refuse("it is a playlist, which makes a player open other files; render it first")
    if _WEBVTT.match(text):
        return Format(media_type="text/vtt", extension=".vtt")
    if _SRT.match(text):
        return Format(media_type="application/x-subrip", extension=".srt")
    return Format(media_type="text/plain", extension=".txt")


_MAX_CAPTIONS = 4_194_304
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_MARKUP = re.compile(  # captions may say <b>, <i>, <u>, <font>, <c>, <v>, <ruby>, <rt>, <lang>
    r"<[!?]|<(?:svg|html|head|body|title|script|style|i?frame|object|embed|applet|link|meta|base|"
    r"form|input|button|select|textarea|img|image|video|audio|source|math|template|table|div|p|a|"
    r"foreignObject|animate|set|use|xml|xsl|rss|smil|mpd)[\s/>]|<\w[^<>]{0,500}[\s/\"']on\w+\s?=|"
    r"javascript:",
    re.IGNORECASE,
)
_PLAYLIST = re.compile(r"\s*(?:#EXT|ffconcat|\[playlist\]|v=0\s|\[reference\])", re.IGNORECASE)
_WEBVTT = re.compile(r"WEBVTT(?:[ \t\r\n]|\Z)")
_SRT = re.compile(r"\s{0,8}\d+[ \t]*\r?\n\d{1,3}:\d\d:\d\d[,.]\d{3} -->")

_FORMATS = tuple(
    (name, re.compile(magic, re.DOTALL), walk)
    for name, magic, walk in (
        ("PNG", rb"\x89PNG\r\n\x1a\n", _png),
        ("JPEG", rb"\xff\xd8\xff", _jpeg),
        ("GIF", rb"GIF8[79]a", _gif),
        ("WebP", rb"RIFF....WEBP", _webp),
        ("WAV", rb"RIFF....WAVE", wav),
        ("MP4 or MOV", rb"....ftyp", iso_media),
        ("WebM or Matroska", rb"\x1a\x45\xdf\xa3", matroska),
        ("FLAC", rb"fLaC", flac),
        ("Ogg", rb"OggS", ogg),
        ("MP3", rb"ID3|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", mp3),
    )
)
