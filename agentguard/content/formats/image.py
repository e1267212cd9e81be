"""The structures of picture files, walked to the end. See `identify`."""

from __future__ import annotations

import re
import zlib

from agentguard.content.formats.reader import BLOCK, Cursor, Format, riff_chunks

_MAX_INFLATED = 8 * 2**20  # of one compressed text or profile

# --- PNG ------------------------------------------------------------------------------------------

_PNG_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_PNG_CODED = (*_PNG_CRITICAL, b"fdAT", b"fcTL", b"acTL", b"tRNS", b"hIST", b"bKGD", b"sBIT")


def png(cursor: Cursor) -> Format:
    cursor.skip(8)
    width = height = 0
    kinds: set[bytes] = set()
    kind = b""
    while kind != b"IEND":
        cursor.part()
        start = cursor.position
        before, length, kind = kind, cursor.number(4), cursor.take(4)
        if (kind == b"IHDR") != (not before):
            cursor.refuse("it does not begin with its one IHDR chunk; encode it again")
        if not kind.isalpha() or (kind[:1].isupper() and kind not in _PNG_CRITICAL):
            cursor.refuse("it has a chunk that no decoder knows; encode it again")
        if kind == b"IDAT" and kind in kinds and kind != before:
            cursor.refuse("its picture data are not in one place; encode it again")
        kinds.add(kind)
        crc, body = zlib.crc32(kind), b""
        keep = kind in _PNG_TEXTS
        cursor.coded(start)
        for piece in cursor.pieces(length):
            crc = zlib.crc32(piece, crc)
            body = body + piece if keep and len(body) < _MAX_INFLATED else body or piece
        if kind in _PNG_CODED:
            cursor.coded(start + 8)
        elif kind in (b"eXIf", b"caBX"):  # Exif, C2PA
            cursor.previews(start + 8)
        if cursor.number(4) != crc:
            cursor.refuse("a chunk fails its CRC; get the file again")
        cursor.coded(cursor.position - 4)
        if kind == b"IHDR":
            if length != 13:
                cursor.refuse("its header is damaged; encode it again")
            width, height = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")
            cursor.canvas(width, height)
        if keep:
            known = _png_text(cursor, kind, body)
            cursor.coded(cursor.position - 4 - known, cursor.position)
        if kind == b"fcTL":
            size = int.from_bytes(body[4:8], "big"), int.from_bytes(body[8:12], "big")
            cursor.frame(size, (width, height))
    if b"IDAT" not in kinds or length:
        cursor.refuse("it holds no picture; encode it again")
    cursor.end()
    return Format(media_type="image/png", extension=".png", width=width, height=height)


_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_PNG_ITXT = re.compile(rb"[^\0]*\0\x01.[^\0]*\0[^\0]*\0", re.DOTALL)
_PNG_PROFILE = re.compile(  # of ImageMagick: Exif, IPTC or XMP as hexadecimal digits
    rb"\s*[A-Za-z][\w ]{0,40}\s+\d{1,10}\s+([0-9a-fA-F\s]+)"
)


def _png_text(cursor: Cursor, kind: bytes, body: bytes) -> int:
    """Read a packed text or profile; returns how many bytes at the end of the chunk that were."""
    start = body.find(b"\0") + 1  # behind the keyword
    if kind == b"iTXt":
        found = _PNG_ITXT.match(body)
        if found is None:
            return 0  # not packed: it is read where it stands
        start = found.end()
    text = body[start:]
    if kind != b"tEXt":
        text = _inflate(cursor, text[kind != b"iTXt" :])  # but for iTXt a method stands before it
    if body.startswith(b"Raw profile type ") and (raw := _PNG_PROFILE.match(text)):
        digits = b"".join(raw[1].split())
        cursor.decoded(bytes.fromhex(digits[: len(digits) // 2 * 2].decode()), previews=True)
        text = text[raw.end() :]
    elif kind == b"tEXt":
        return 0
    cursor.decoded(icc_without_tables(text) if kind == b"iCCP" else text)
    return len(body) - start


def _inflate(cursor: Cursor, packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(packed, _MAX_INFLATED)
    except zlib.error:
        cursor.refuse("a compressed text or profile is damaged; encode it again")
    if unpacker.unconsumed_tail or not unpacker.eof:
        cursor.refuse(f"a compressed text is cut off, or over {_MAX_INFLATED} bytes; take it out")
    cursor.decoded(unpacker.unused_data)
    return text


# --- JPEG -----------------------------------------------------------------------------------------

_JPEG_SCANS = 100  # a progressive file of thousands of scans takes minutes to decode
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # in scan data: not stuffing, not restart
_JPEG_TABLES = frozenset({*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDC, 0xDD})
_JPEG_PREVIEWS = (0xE0, 0xE1)  # JFXX, Exif
_JPEG_SPLIT = (  # what is larger than a segment and stands in several: identifier, bytes before it
    (0xE2, b"ICC_PROFILE\0", 14),
    (0xE1, b"http://ns.adobe.com/xmp/extension/\0", 75),
    (0xED, b"Photoshop 3.0\0", 14),
    (0xEB, b"JP", 16),  # JUMBF, which C2PA stands in: each segment repeats the box's header
)


def jpeg(cursor: Cursor) -> Format:
    cursor.skip(2)
    cursor.coded(0)
    width = height = scans = 0
    split: dict[bytes, list[bytes]] = {}
    while (marker := _jpeg_marker(cursor)) != 0xD9:
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            cursor.refuse("it has a marker out of place; encode it again")
        start = cursor.position - 2
        length = cursor.number(2) - 2
        if length < 0:
            cursor.refuse("it has a segment shorter than its length; encode it again")
        cursor.coded(start)
        body = cursor.take(length)
        if marker in _JPEG_TABLES:
            cursor.coded(start)
        elif marker in _JPEG_PREVIEWS:
            cursor.previews(start + 4)
        for kind, name, head in _JPEG_SPLIT:
            if marker == kind and body.startswith(name) and length >= head:
                split.setdefault(name, []).append(body[head:])
                cursor.coded(start)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if marker > 0xC2 or width or length < 6:
                cursor.refuse("it is neither one baseline nor progressive picture; encode it again")
            height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            cursor.canvas(width, height)
        if marker == 0xDA:
            scans += 1
            if not width or scans > _JPEG_SCANS:
                cursor.refuse(f"no frame, or more than {_JPEG_SCANS} scans; encode it again")
            start = cursor.position
            _jpeg_skip_scan(cursor)
            cursor.coded(start)
    if not scans:
        cursor.refuse("it holds no picture; encode it again")
    cursor.coded(cursor.position - 2)
    for name, parts in split.items():
        icc = name == b"ICC_PROFILE\0"
        whole = b"".join(parts)
        cursor.decoded(icc_without_tables(whole) if icc else whole, previews=not icc)
    cursor.end()
    return Format(media_type="image/jpeg", extension=".jpg", width=width, height=height)


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


# --- GIF ------------------------------------------------------------------------------------------

_GIF_QUIET = ((b"\xf9", [4]), (b"\xff", [11, 3]))  # how long a frame stands, and how often it runs


def gif(cursor: Cursor) -> Format:
    cursor.skip(6)
    width, height, flags = cursor.little(2), cursor.little(2), cursor.little(1)
    cursor.canvas(width, height)
    cursor.skip(2 + _gif_palette(flags))
    cursor.coded(0)
    pictures = 0
    while (block := cursor.take(1)) != b";":
        cursor.part()
        start = cursor.position - 1
        if block == b",":
            pictures += 1
            cursor.skip(4)
            size = cursor.little(2), cursor.little(2)
            cursor.canvas(*size)
            cursor.frame(size, (width, height))
            cursor.skip(_gif_palette(cursor.little(1)))
        elif block != b"!":
            cursor.refuse("it has bytes between its blocks; encode it again")
        label = cursor.take(1)
        blocks = []
        while length := cursor.little(1):
            cursor.part()
            if block == b",":
                cursor.skip(length)
            else:
                blocks.append(cursor.take(length))
        if block == b",":
            cursor.coded(start)
        elif label != b"\xff" or not blocks or blocks[0] != b"XMP DataXMP":
            # A text stands in blocks of 255 bytes; XMP stands whole and is only called blocks.
            cursor.coded(start)
            if (label, [len(one) for one in blocks]) not in _GIF_QUIET:
                c2pa = blocks[:1] == [b"C2PA_GIF\1\0\0"]
                cursor.decoded(b"".join(blocks), previews=c2pa)
    if not pictures:
        cursor.refuse("it holds no picture; encode it again")
    cursor.coded(cursor.position - 1)
    cursor.end()
    return Format(media_type="image/gif", extension=".gif", width=width, height=height)


def _gif_palette(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


# --- WebP -----------------------------------------------------------------------------------------

_WEBP_CODED = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM")
_WEBP_CHUNKS = frozenset({*_WEBP_CODED, *b"ANMF ICCP EXIF C2PA".split(), b"XMP "})


def webp(cursor: Cursor) -> Format:
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
            cursor.skip(6)
            shown = cursor.little(3) + 1, cursor.little(3) + 1
            cursor.canvas(*shown)
            cursor.skip(4)
            cursor.coded(start)
            held = _webp_frame(cursor, start + length)
            cursor.frame(shown, held, canvas or (0, 0))
        elif kind in (b"VP8 ", b"VP8L"):
            stills += 1
            size = _webp_bitstream(cursor, kind)
        elif kind == b"ICCP":
            profile = b"".join(cursor.pieces(min(length, _MAX_INFLATED)))
            cursor.decoded(icc_without_tables(profile))
            cursor.coded(start)
        elif kind in (b"EXIF", b"C2PA"):
            cursor.skip(length)
            cursor.previews(start)
        if cursor.position > start + length:
            cursor.refuse("it has a chunk shorter than its content; encode it again")
        if kind in _WEBP_CODED:
            cursor.coded(start, min(start + length, cursor.size))
        if size:
            cursor.canvas(*size)
            if canvas not in (None, size):
                cursor.refuse("its canvas and its picture differ in size; encode it again")
            canvas = size
    if canvas is None or stills != (0 if frames else 1):
        cursor.refuse("it holds no picture, or several that are no animation; encode it again")
    cursor.end()
    return Format(media_type="image/webp", extension=".webp", width=canvas[0], height=canvas[1])


def _webp_frame(cursor: Cursor, end: int) -> tuple[int, int]:
    """The size of the picture of an animation's frame: it may be larger than the frame says."""
    size = 0, 0
    while cursor.position + 8 <= end:
        cursor.part()
        start = cursor.position
        kind, length = cursor.take(4), cursor.little(4)
        stop = cursor.position + length + length % 2
        if kind in (b"VP8 ", b"VP8L"):
            size = _webp_bitstream(cursor, kind)
            cursor.canvas(*size)
        cursor.move(stop)
        if kind in _WEBP_CODED:
            cursor.coded(start)
    return size


def _webp_bitstream(cursor: Cursor, kind: bytes) -> tuple[int, int]:
    if kind == b"VP8L":
        if cursor.take(1) != b"\x2f":
            cursor.refuse("its lossless picture is damaged; encode it again")
        bits = cursor.little(4)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if cursor.take(6)[3:] != b"\x9d\x01\x2a":
        cursor.refuse("its picture is damaged; encode it again")
    return cursor.little(2) & 0x3FFF, cursor.little(2) & 0x3FFF


# --- ICC profiles ---------------------------------------------------------------------------------

_ICC_TABLES = (b"curv", b"para", b"XYZ ", b"mft1", b"mft2", b"mAB ", b"mBA ", b"sf32", b"mpet")


def icc_without_tables(profile: bytes) -> bytes:
    """An ICC profile without its header, curves and look-up tables; its texts stay."""
    if profile[36:40] != b"acsp":
        return profile
    texts = bytearray(profile)
    tags = min(int.from_bytes(profile[128:132], "big"), 100)
    texts[: 132 + 12 * tags] = bytes(min(132 + 12 * tags, len(profile)))
    for number in range(tags):
        tag = profile[132 + 12 * number : 144 + 12 * number]
        start, size = int.from_bytes(tag[4:8], "big"), int.from_bytes(tag[8:12], "big")
        end = min(start + size, len(profile))
        if profile[start : start + 4] in _ICC_TABLES and 132 <= start < end:
            texts[start:end] = bytes(end - start)
    return bytes(texts)
