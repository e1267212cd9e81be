"""The structures of video files (and of sound in their containers), walked to the end."""

from __future__ import annotations

from agentguard.content.formats.reader import Cursor, Format

# --- MP4 and MOV: boxes in boxes ------------------------------------------------------------------

_BOX_PARENTS = {  # the boxes that are looked into, and where they stand
    b"moov": b"",
    b"trak": b"moov",
    b"mdia": b"trak",
    b"minf": b"mdia",
    b"dinf": b"minf",
    b"stbl": b"minf",
}
_TOP_BOXES = frozenset(
    b"ftyp moov mdat free skip wide moof mfra sidx ssix styp prft uuid meta pdin udta emsg".split()
)
_MP4_BRANDS = frozenset(
    b"isom iso2 iso3 iso4 iso5 iso6 iso7 iso8 iso9 mp41 mp42 avc1 hvc1 av01 dash cmfc MSNV".split()
) | {b"M4V ", b"M4A ", b"M4B "}


def iso_media(cursor: Cursor) -> Format:
    brands = handler = b""
    handlers: set[bytes] = set()
    kinds: set[bytes] = set()
    sizes: list[tuple[int, int]] = []
    open_boxes = [(cursor.size, b"")]
    while open_boxes:
        end, parent = open_boxes[-1]
        start = cursor.position
        if start == end:
            open_boxes.pop()
            continue
        kind, stop = _box(cursor, end, last=not parent)
        if not parent:
            kinds.add(kind)
            if kind not in _TOP_BOXES or (kind == b"ftyp") != (start == 0):
                cursor.refuse("it has a box that no player knows; remux it")
        if _BOX_PARENTS.get(kind) == parent:
            open_boxes.append((stop, kind))
            handler = b"" if kind == b"trak" else handler
            continue
        match parent, kind:
            case b"", b"ftyp":
                brands = _body(cursor, stop, min(stop - cursor.position, 4096))
            case b"mdia", b"hdlr":
                handler = _body(cursor, stop, 12)[8:]
                handlers.add(handler)
            case b"stbl", b"stsd" if handler in (b"", b"vide"):
                body = _body(cursor, stop, 44)
                if not handler or body[4:8] != b"\0\0\0\1":
                    cursor.refuse("a track does not say what it is; encode it again")
                sizes.append((int.from_bytes(body[40:42], "big"), int.from_bytes(body[42:], "big")))
                cursor.canvas(*sizes[-1])
            case b"dinf", b"dref":
                body = _body(cursor, stop, 20)
                if body[4:8] != b"\0\0\0\1" or not body[19] & 1:  # I3: nothing else is opened
                    cursor.refuse("a track's data are in another file; encode it into one")
        cursor.move(stop)
    return _iso_format(cursor, brands, kinds, handlers, sizes)


def _iso_format(
    cursor: Cursor,
    brands: bytes,
    kinds: set[bytes],
    handlers: set[bytes],
    sizes: list[tuple[int, int]],
) -> Format:
    major = brands[:4]
    known = {brands[at : at + 4] for at in range(0, len(brands), 4)} & _MP4_BRANDS
    if major != b"qt  " and not known:
        cursor.refuse(f"unknown brand {major!r} (HEIC, AVIF, 3GP?); convert it to JPEG or MP4")
    if b"moov" not in kinds or not kinds & {b"mdat", b"moof"} or not handlers & {b"vide", b"soun"}:
        cursor.refuse("it has no index, no data or no track; it is cut off, get the whole file")
    if not sizes:
        return Format(media_type="audio/mp4", extension=".m4a")
    width, height = sizes[0]
    media_type, extension = (
        ("video/quicktime", ".mov") if major == b"qt  " else ("video/mp4", ".mp4")
    )
    return Format(media_type=media_type, extension=extension, width=width, height=height)


def _box(cursor: Cursor, end: int, *, last: bool) -> tuple[bytes, int]:
    """Kind and end of the box here, the cursor at its body; size 0 means the rest of the file."""
    cursor.part()
    start = cursor.position
    length, kind = cursor.number(4), cursor.take(4)
    if length == 1:
        length = cursor.number(8)
    elif length == 0 and last:
        length = end - start
    stop = start + length
    if not cursor.position <= stop <= end:
        cursor.refuse(
            f"a box of {length} bytes where {end - start} are left; it is cut off or damaged, get "
            "the whole file"
        )
    return kind, stop


def _body(cursor: Cursor, stop: int, count: int) -> bytes:
    if cursor.position + count > stop:
        cursor.refuse("a part is shorter than its content; encode it again")
    return cursor.take(count)


# --- WebM and Matroska: EBML elements -------------------------------------------------------------

_EBML, _SEGMENT, _TRACKS, _TRACK, _VIDEO = 0x1A45DFA3, 0x18538067, 0x1654AE6B, 0xAE, 0xE0
_ELEMENT_PARENTS = {_EBML: 0, _SEGMENT: 0, _TRACKS: _SEGMENT, _TRACK: _TRACKS, _VIDEO: _TRACK}
_DOC_TYPE, _TRACK_TYPE, _WIDTH, _HEIGHT = (
    (_EBML, 0x4282),
    (_TRACK, 0x83),
    (_VIDEO, 0xB0),
    (_VIDEO, 0xBA),
)
_CLUSTER, _ATTACHMENTS = (_SEGMENT, 0x1F43B675), (_SEGMENT, 0x1941A469)


def matroska(cursor: Cursor) -> Format:
    values: dict[tuple[int, int], list[int]] = {}
    top: list[int] = []
    doc_type = b""
    open_elements = [(cursor.size, 0)]
    while open_elements:
        end, parent = open_elements[-1]
        if cursor.position == end:
            open_elements.pop()
            continue
        cursor.part()
        ident, length = _vint(cursor, 4, marker=True), _vint(cursor, 8, marker=False)
        stop = cursor.position + length
        if stop > end:
            cursor.refuse("an element runs past its parent; it is cut off, get the whole file")
        if not parent:
            top.append(ident)
            if top not in ([_EBML], [_EBML, _SEGMENT]):
                cursor.refuse("it is not one header and one segment; remux it")
        if _ELEMENT_PARENTS.get(ident) == parent:
            open_elements.append((stop, ident))
            continue
        match parent, ident:
            case key if key == _ATTACHMENTS:
                cursor.refuse("it has files attached; remux it without them")
            case key if key == _DOC_TYPE:
                doc_type = _body(cursor, stop, min(length, 16)).rstrip(b"\0")
            case key if key in (_TRACK_TYPE, _WIDTH, _HEIGHT) and length <= 8:
                values.setdefault(key, []).append(cursor.number(length))
            case key if key == _CLUSTER:
                values.setdefault(key, [])
        cursor.move(stop)
    if doc_type not in (b"webm", b"matroska") or not {_CLUSTER, _TRACK_TYPE} <= values.keys():
        cursor.refuse("it has no track or no data; it is cut off, get the whole file")
    web = doc_type == b"webm"
    if 1 not in values[_TRACK_TYPE]:
        media_type, extension = ("audio/webm", ".webm") if web else ("audio/x-matroska", ".mka")
        return Format(media_type=media_type, extension=extension)
    widths, heights = values.get(_WIDTH, [0]), values.get(_HEIGHT, [0])
    cursor.canvas(max(widths), max(heights))
    media_type, extension = ("video/webm", ".webm") if web else ("video/x-matroska", ".mkv")
    return Format(media_type=media_type, extension=extension, width=widths[0], height=heights[0])


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
