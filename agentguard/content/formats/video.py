"""The structures of MP4 and MOV files, walked to the end: boxes in boxes. See `identify`."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from sys import byteorder

from agentguard.content.formats.reader import Cursor, Format

_BOX_PARENTS = {  # the boxes that are looked into, and where they stand
    b"moov": b"",
    b"trak": b"moov",
    b"mdia": b"trak",
    b"minf": b"mdia",
    b"dinf": b"minf",
    b"stbl": b"minf",
    b"mvex": b"moov",
    b"moof": b"",
    b"traf": b"moof",
}
_TOP_BOXES = frozenset(
    b"ftyp moov mdat free skip wide moof mfra sidx ssix styp prft uuid meta pdin udta emsg".split()
)
_MP4_BRANDS = frozenset(
    b"isom iso2 iso3 iso4 iso5 iso6 iso7 iso8 iso9 mp41 mp42 avc1 hvc1 av01 dash cmfc MSNV".split()
) | {b"M4V ", b"M4A ", b"M4B "}
_PICTURE_BRANDS = {
    "an AVIF": frozenset(b"avif avis avio MA1A MA1B".split()),
    "a HEIC": frozenset(b"heic heix heim heis hevc hevx hevm hevs MiHA MiHB MiHE".split()),
    "a HEIF": frozenset(
        b"mif1 mif2 miaf msf1 avci avcs jpeg jpgs j2ki j2is vvic vvis evbi evbs evmi evms unif"
        b" 1pic".split()
    )
    | {b"MiPr"},
    "a raw or JPEG 2000": frozenset({b"crx ", b"jxl ", b"jp2 ", b"jpx ", b"jpm "}),
}
_ITEM_BOXES = frozenset(b"pitm iinf iloc iprp iref idat ipro grpl".split())
_ENCRYPTED_ENTRIES = frozenset(b"encv enca enct encs encm encf encp drms drmi".split())
_PIFF = frozenset(  # Microsoft's forerunners of pssh, tenc and senc
    bytes.fromhex(ident)
    for ident in (
        "d08a4f1810f34a82b6c832d8aba183d3",
        "8974dbce7be74c5184f97148f9882554",
        "a2394f525a9b4f14a2446c427c648df4",
    )
)
_PREVIEWS = (  # boxes of C2PA, and of Canon's cameras
    bytes.fromhex("d8fec3d61b0e483c92975828877ec481"),
    bytes.fromhex("85c0b687820f11e08111f4ce462b6a48"),
)
_ENTRY_SIZES = {  # of tables: their version and flags, a count, and entries of numbers
    b"stts": 8,
    b"ctts": 8,
    b"stsc": 12,
    b"stco": 4,
    b"co64": 8,
    b"stss": 4,
    b"stps": 4,
}
_NUMBERS = frozenset(b"mvhd tkhd mdhd vmhd smhd nmhd mfhd tfhd tfdt trex mehd".split())
_MOST_NUMBERS = 128  # bytes of such a box
_MAX_TABLE = 32 * 2**20
_PLAYED = (b"vide", b"soun", b"auxv")
_SAYS_ENCRYPTED = "it is encrypted, and nobody can look at it; get it without copy protection"


@dataclass
class _Track:
    """What the boxes of a track say of it, and where its samples are.

    Args:
        frame_bytes: of uncompressed sound; QuickTime's table of sizes says 1.
        samples: start and end of what lies together.
    """

    handler: bytes = b""
    ident: int = 0
    frame_bytes: float = 1
    tables: dict[bytes, bytes] = field(default_factory=dict)
    samples: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class _Fragment:
    """Where the samples of a `moof` box are (ISO/IEC 14496-12, 8.8)."""

    start: int
    track: _Track
    base: int
    size: int = 0
    next: int = 0


def iso_media(cursor: Cursor) -> Format:
    walk = _Walk(cursor)
    open_boxes = [(cursor.size, b"")]
    while open_boxes:
        end, parent = open_boxes[-1]
        start = cursor.position
        if start == end:
            open_boxes.pop()
            continue
        kind, stop = _box(cursor, end, last=not parent)
        cursor.coded(start)
        if not parent:
            walk.kinds.add(kind)
            if kind not in _TOP_BOXES or (kind == b"ftyp") != (start == 0):
                cursor.refuse("it has a box that no player knows; remux it")
        if kind == b"pssh" or (kind == b"uuid" and cursor.peek(16) in _PIFF):
            cursor.refuse(_SAYS_ENCRYPTED)
        if _BOX_PARENTS.get(kind) == parent:
            open_boxes.append((stop, kind))
            if kind == b"trak":
                walk.tracks.append(_Track())
            elif kind == b"moof":
                walk.fragment = _Fragment(start, _Track(), start)
            continue
        body = cursor.position
        walk.box(parent, kind, stop)
        cursor.move(stop)
        if kind in _NUMBERS and stop - body <= _MOST_NUMBERS:
            cursor.coded(start)
    return walk.format()


class _Walk:
    """What the boxes of one file say."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.brands = b""
        self.kinds: set[bytes] = set()
        self.tracks: list[_Track] = []
        self.sizes: list[tuple[int, int]] = []
        self.fragment = _Fragment(0, _Track(), 0)
        self._default_sizes: dict[int, int] = {}
        self._data: list[tuple[int, int]] = []

    def box(self, parent: bytes, kind: bytes, stop: int) -> None:
        cursor = self.cursor
        track = self.tracks[-1] if self.tracks else _Track()
        match parent, kind:
            case b"", b"ftyp":
                self._read_brands(stop)
            case b"", b"mdat":
                self._data.append((cursor.position, stop))
            case b"moov", b"rmra" | b"cmov":
                cursor.refuse("its index is packed, or names another film; encode it into one")
            case _, b"meta":
                _refuse_items(cursor, stop)
                self._previews(stop)
            case _, b"udta":
                self._previews(stop)
            case _, b"uuid" if cursor.peek(16) in _PREVIEWS:
                self._previews(stop)
            case b"trak", b"tkhd":
                late = 8 if cursor.peek(1) == b"\1" else 0
                track.ident = int.from_bytes(_body(cursor, stop, 16 + late)[-4:], "big")
            case b"mdia", b"hdlr":
                track.handler = _body(cursor, stop, 12)[8:]
            case b"stbl", b"stsd":
                self._sample_entries(track, _body(cursor, stop, stop - cursor.position))
            case b"stbl", b"stsz":
                entry = 0 if any(cursor.peek(8)[4:]) else 4  # all of one size, or a size for each
                track.tables[kind] = _table(cursor, stop, head=12, count_at=8, entry=entry)
            case b"stbl", name if name in _ENTRY_SIZES:
                entry = _ENTRY_SIZES[name]
                track.tables[kind] = _table(cursor, stop, head=8, count_at=4, entry=entry)
            case b"dinf", b"dref":
                body = _body(cursor, stop, 20)
                if body[4:8] != b"\0\0\0\1" or not body[19] & 1:  # I3: nothing else is opened
                    cursor.refuse("a track's data are in another file; encode it into one")
            case b"mvex", b"trex":
                body = _body(cursor, stop, 20)
                size = int.from_bytes(body[16:], "big")
                self._default_sizes[int.from_bytes(body[4:8], "big")] = size
            case b"traf", b"tfhd":
                self._fragment_header(_body(cursor, stop, stop - cursor.position))
            case b"traf", b"trun":
                self._fragment_run(stop)

    def format(self) -> Format:
        cursor, kinds = self.cursor, self.kinds
        major, handlers = self.brands[:4], {track.handler for track in self.tracks}
        known = _split_brands(self.brands) & _MP4_BRANDS
        if major != b"qt  " and not known:
            cursor.refuse(f"unknown brand {major!r} (3GP?); convert it to MP4")
        playable = handlers & {b"vide", b"soun"}
        if b"moov" not in kinds or not kinds & {b"mdat", b"moof"} or not playable:
            cursor.refuse("it has no index, no data or no track; it is cut off, get the whole file")
        if len({track.ident for track in self.tracks}) < len(self.tracks):
            cursor.refuse("two of its tracks have one number; remux it")
        self._mark_samples()
        if not self.sizes:
            return Format(media_type="audio/mp4", extension=".m4a")
        width, height = self.sizes[0]
        media_type, extension = (
            ("video/quicktime", ".mov") if major == b"qt  " else ("video/mp4", ".mp4")
        )
        return Format(media_type=media_type, extension=extension, width=width, height=height)

    def _previews(self, stop: int) -> None:
        start = self.cursor.position
        self.cursor.move(stop)
        self.cursor.previews(start)

    def _read_brands(self, stop: int) -> None:
        cursor, start = self.cursor, self.cursor.position
        self.brands = _body(cursor, stop, min(stop - start, 4096))
        brands = _split_brands(self.brands)
        for picture, names in _PICTURE_BRANDS.items():
            if brands & names:
                cursor.refuse(f"it is {picture} picture, whatever else it holds; convert it to"
                              " JPEG or PNG")  # fmt: skip
        if brands <= _MP4_BRANDS | {b"qt  ", bytes(4)}:
            cursor.coded(start)

    def _sample_entries(self, track: _Track, body: bytes) -> None:
        """The kinds and sizes of pictures and sound in a track; what is encrypted is refused."""
        cursor, at, count = self.cursor, 8, int.from_bytes(body[4:8], "big")
        seen = track.handler in (b"", b"vide", b"auxv")
        if track.handler == b"pict":
            cursor.refuse("it holds pictures that are no film; convert it to JPEG or PNG")
        if seen and (not track.handler or count != 1):
            cursor.refuse("a track does not say what it is; encode it again")
        while at < len(body) and count:
            size, kind = int.from_bytes(body[at : at + 4], "big"), body[at + 4 : at + 8]
            entry = body[at : at + size]
            if size < 16 or len(entry) != size:
                cursor.refuse("a part is shorter than its content; encode it again")
            if kind in _ENCRYPTED_ENTRIES or b"sinf" in entry:
                cursor.refuse(_SAYS_ENCRYPTED)
            if seen:
                if size < 36:
                    cursor.refuse("a part is shorter than its content; encode it again")
                width, height = struct.unpack(">HH", entry[32:36])
                cursor.canvas(width, height)
                self.sizes.append((width, height))
            elif track.handler == b"soun":
                track.frame_bytes = _frame_bytes(entry)
            at, count = at + size, count - 1
        if count:
            cursor.refuse("a part is shorter than its content; encode it again")

    def _fragment_header(self, body: bytes) -> None:
        flags, ident = int.from_bytes(body[1:4], "big"), int.from_bytes(body[4:8], "big")
        at, fragment = 8, self.fragment
        track = next((one for one in self.tracks if one.ident == ident), _Track())
        base = fragment.next or fragment.start
        if flags & 0x20000:
            base = fragment.start
        if flags & 1:
            base, at = int.from_bytes(body[at : at + 8], "big"), at + 8
        at += 4 * bool(flags & 2) + 4 * bool(flags & 8)
        size = int.from_bytes(body[at : at + 4], "big") if flags & 0x10 else None
        if size is None:
            size = self._default_sizes.get(ident, 0)
        self.fragment = _Fragment(fragment.start, track, base, size, base)

    def _fragment_run(self, stop: int) -> None:
        cursor, fragment = self.cursor, self.fragment
        flags = int.from_bytes(cursor.peek(4)[1:], "big")
        fields = [bool(flags & bit) for bit in (0x100, 0x200, 0x400, 0x800)]
        head = 8 + 4 * bool(flags & 1) + 4 * bool(flags & 4)
        table = _table(cursor, stop, head=head, count_at=4, entry=4 * sum(fields))
        if flags & 1:
            fragment.next = fragment.base + int.from_bytes(table[8:12], "big", signed=True)
        total = int.from_bytes(table[4:8], "big") * fragment.size
        if fields[1]:
            total = sum(_integers("I", table[head:])[fields[0] :: sum(fields)])
        begin, fragment.next = fragment.next, fragment.next + total
        fragment.track.samples.append((begin, fragment.next))

    def _mark_samples(self) -> None:
        """Samples of picture and sound are coded; those of any other track are words."""
        starts = [start for start, _ in self._data]
        for track in self.tracks:
            for start, stop in (*_chunks(self.cursor, track), *track.samples):
                place = bisect_right(starts, start) - 1
                if place < 0 or start < 0:
                    continue  # in no mdat box: a table that points at words makes them no picture
                stop = min(stop, self._data[place][1])
                if start < stop:
                    mark = self.cursor.coded if track.handler in _PLAYED else self.cursor.words
                    mark(start, stop)


def _chunks(cursor: Cursor, track: _Track) -> Iterator[tuple[int, int]]:
    """Start and end of each chunk of a track's samples."""
    tables = track.tables
    offsets = _integers("I", tables.get(b"stco", b"")[8:])
    offsets = offsets or _integers("Q", tables.get(b"co64", b"")[8:])
    runs = _integers("I", tables.get(b"stsc", b"")[8:])
    sizes = tables.get(b"stsz", bytes(12))
    same, each = int.from_bytes(sizes[4:8], "big"), _integers("I", sizes[12:])
    sample = 0
    run = -3
    for number, offset in enumerate(offsets, start=1):
        cursor.block()
        while run + 3 < len(runs) and runs[run + 3] <= number:
            run += 3
        count = runs[run + 1] if run >= 0 else 0
        if same:
            length = int(count * (track.frame_bytes if same == 1 else same))
        else:
            length = sum(each[sample : sample + count])
        sample += count
        yield offset, offset + length


def _frame_bytes(entry: bytes) -> float:
    """Bytes of one sample of all channels, as a QuickTime sound description says (versions 0-2)."""
    version = int.from_bytes(entry[16:18], "big")
    if version == 1 and len(entry) >= 48:
        samples, frame = int.from_bytes(entry[36:40], "big"), int.from_bytes(entry[44:48], "big")
        return frame / samples if samples else 1
    if version == 2 and len(entry) >= 68:
        return int.from_bytes(entry[64:68], "big")
    if len(entry) < 28:
        return 1
    channels, bits = int.from_bytes(entry[24:26], "big"), int.from_bytes(entry[26:28], "big")
    return max(1, channels * bits // 8)


def _refuse_items(cursor: Cursor, stop: int) -> None:
    """Pictures in an ISO container are items of a `meta` box; a film's own notes are none."""
    start = cursor.position
    for offset in (4, 0):  # QuickTime's has no version and flags
        cursor.move(min(start + offset, stop))
        kinds = []
        while cursor.position + 8 <= stop:
            at = cursor.position
            length, kind = int.from_bytes(cursor.peek(4), "big"), cursor.peek(8)[4:]
            if length < 8 or at + length > stop:
                break
            cursor.part()
            picture = kind == b"hdlr" and cursor.peek(20)[16:] == b"pict"
            kinds.append(b"iloc" if picture else kind)
            cursor.move(at + length)
        if cursor.position == stop:
            if _ITEM_BOXES & set(kinds):
                cursor.refuse("it holds pictures beside its film or sound (HEIC, AVIF?); convert"
                              " it to JPEG or PNG")  # fmt: skip
            cursor.move(start)
            return
    cursor.refuse("its notes (meta) are damaged; remux it")


def _table(cursor: Cursor, stop: int, *, head: int, count_at: int, entry: int) -> bytes:
    """A table of numbers, which holds as many entries as it says."""
    start = cursor.position
    count = int.from_bytes(cursor.peek(head)[count_at : count_at + 4], "big")
    size = head + count * entry
    if size > min(stop - start, _MAX_TABLE):
        cursor.refuse(f"a table names {count} entries, more than it holds; remux it")
    table = b"".join(cursor.pieces(size))
    cursor.coded(start)
    return table


def _integers(code: str, data: bytes) -> array[int]:
    numbers = array(code)
    numbers.frombytes(data[: len(data) // numbers.itemsize * numbers.itemsize])
    if byteorder == "little":
        numbers.byteswap()
    return numbers


def _split_brands(brands: bytes) -> set[bytes]:
    """The major and the compatible brands; the version between them is none."""
    return {brands[at : at + 4] for at in range(0, len(brands), 4) if at != 4}


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
