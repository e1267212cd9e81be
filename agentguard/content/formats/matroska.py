"""The structures of WebM and Matroska files, walked to the end: EBML elements. See `identify`."""

from __future__ import annotations

import zlib

from agentguard.content.formats.reader import Cursor, Format

_EBML, _SEGMENT, _TRACKS, _TRACK, _VIDEO = 0x1A45DFA3, 0x18538067, 0x1654AE6B, 0xAE, 0xE0
_CLUSTER, _GROUP = 0x1F43B675, 0xA0
_ENCODINGS, _ENCODING, _COMPRESSION = 0x6D80, 0x6240, 0x5034
_PARENTS = {  # the elements that are looked into, and where they stand
    _EBML: 0,
    _SEGMENT: 0,
    _TRACKS: _SEGMENT,
    _TRACK: _TRACKS,
    _VIDEO: _TRACK,
    _ENCODINGS: _TRACK,
    _ENCODING: _ENCODINGS,
    _COMPRESSION: _ENCODING,
    _CLUSTER: _SEGMENT,
    _GROUP: _CLUSTER,
}
_DOC_TYPE = (_EBML, 0x4282)
_NUMBER, _TRACK_TYPE, _WIDTH, _HEIGHT = (
    (_TRACK, 0xD7),
    (_TRACK, 0x83),
    (_VIDEO, 0xB0),
    (_VIDEO, 0xBA),
)
_ALGORITHM = (_COMPRESSION, 0x4254)
_ENCODING_TYPE, _ENCRYPTION = (_ENCODING, 0x5033), (_ENCODING, 0x5035)
_NUMBERS = (_NUMBER, _TRACK_TYPE, _WIDTH, _HEIGHT, _ALGORITHM, _ENCODING_TYPE)
_BLOCKS = ((_CLUSTER, 0xA3), (_GROUP, 0xA1))
_FILM = frozenset(  # blocks, groups of them, and what each block may say besides
    {*_BLOCKS, (_CLUSTER, _GROUP), *((_GROUP, ident) for ident in (0x9B, 0xFB, 0x75A2))}
)
_ATTACHMENTS = (_SEGMENT, 0x1941A469)
_PLAYED = (1, 2)  # picture, sound
_MAX_INFLATED = 2**20  # of one packed subtitle
_SAYS_ENCRYPTED = "it is encrypted, and nobody can look at it; get it without copy protection"


def matroska(cursor: Cursor) -> Format:
    values: dict[tuple[int, int], list[int]] = {}
    top: list[int] = []
    tracks: list[dict[tuple[int, int], int]] = []
    blocks: dict[int, list[tuple[int, int]]] = {}
    doc_type = b""
    clusters = 0
    open_elements = [(cursor.size, 0)]
    while open_elements:
        end, parent = open_elements[-1]
        if cursor.position == end:
            open_elements.pop()
            continue
        start = cursor.position
        ident, length = _vint(cursor, 4, marker=True), _vint(cursor, 8, marker=False)
        cursor.coded(start)
        if (parent, ident) in _FILM:
            cursor.block()
        else:
            cursor.part()
        stop = cursor.position + length
        if stop > end:
            cursor.refuse("an element runs past its parent; it is cut off, get the whole file")
        if not parent:
            top.append(ident)
            if top not in ([_EBML], [_EBML, _SEGMENT]):
                cursor.refuse("it is not one header and one segment; remux it")
        if _PARENTS.get(ident) == parent:
            open_elements.append((stop, ident))
            clusters += ident == _CLUSTER
            if ident == _TRACK:
                tracks.append({})
            elif ident == _COMPRESSION and tracks:
                tracks[-1].setdefault(_ALGORITHM, 0)
            continue
        key = parent, ident
        if key == _ATTACHMENTS:
            cursor.refuse("it has files attached; remux it without them")
        elif key == _ENCRYPTION:
            cursor.refuse(_SAYS_ENCRYPTED)
        elif key == _DOC_TYPE:
            doc_type = cursor.peek(min(length, 16)).rstrip(b"\0")
            cursor.coded(start, min(stop, cursor.position + 16))
        elif key in _NUMBERS and length <= 8:
            number = cursor.number(length)
            cursor.coded(start)
            values.setdefault(key, []).append(number)
            if key == _ENCODING_TYPE and number:
                cursor.refuse(_SAYS_ENCRYPTED)
            if tracks:
                tracks[-1][key] = number
        elif key in _BLOCKS and stop - cursor.position > 4:
            track = _vint(cursor, 8, marker=False)
            blocks.setdefault(track, []).append((cursor.position + 3, stop))
        cursor.move(stop)
    if doc_type not in (b"webm", b"matroska") or not clusters or _TRACK_TYPE not in values:
        cursor.refuse("it has no track or no data; it is cut off, get the whole file")
    for number, places in blocks.items():
        about = [track for track in tracks if track.get(_NUMBER) == number]
        played = about and all(track.get(_TRACK_TYPE) in _PLAYED for track in about)
        for start, stop in places:
            if played:
                cursor.coded(start, stop)
            elif any(track.get(_ALGORITHM) == 0 for track in about):
                cursor.move(start)
                _inflate(cursor, stop)
                cursor.coded(start, stop)
    cursor.move(cursor.size)
    web = doc_type == b"webm"
    if 1 not in values[_TRACK_TYPE]:
        media_type, extension = ("audio/webm", ".webm") if web else ("audio/x-matroska", ".mka")
        return Format(media_type=media_type, extension=extension)
    widths, heights = values.get(_WIDTH, [0]), values.get(_HEIGHT, [0])
    cursor.canvas(max(widths), max(heights))
    media_type, extension = ("video/webm", ".webm") if web else ("video/x-matroska", ".mkv")
    return Format(media_type=media_type, extension=extension, width=widths[0], height=heights[0])


def _inflate(cursor: Cursor, stop: int) -> None:
    """The words of a packed subtitle."""
    unpacker = zlib.decompressobj()
    try:
        words = unpacker.decompress(cursor.take(stop - cursor.position), _MAX_INFLATED)
    except zlib.error:
        cursor.refuse("a packed subtitle is damaged; remux it")
    if not unpacker.eof:
        cursor.refuse("a packed subtitle is cut off, or too long; remux it")
    cursor.decoded(words + b"\0\0" + unpacker.unused_data)


def _vint(cursor: Cursor, longest: int, *, marker: bool) -> int:
    first = cursor.number(1)
    width = 9 - first.bit_length()
    if width > longest:
        cursor.refuse("an element has no valid name or length; remux it")
    value = first << 8 * (width - 1) | cursor.number(width - 1)
    if marker:
        return value
    unknown = (1 << 7 * width) - 1
    if value & unknown == unknown:
        cursor.refuse("it is a live stream of unknown length; remux it")
    return value & unknown
