"""The structures of audio files, walked to the end. See `identify`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from agentguard.content.formats.reader import BLOCK, Cursor, Format, riff_chunks


def wav(cursor: Cursor) -> Format:
    kinds: list[bytes] = []
    for kind, length in riff_chunks(cursor):
        if kind in (b"fmt ", b"data"):
            kinds.append(kind)
        if kind == b"fmt " and length < 16:
            cursor.refuse("its fmt chunk is too short; encode it again")
        if kind in (b"fmt ", b"data"):
            cursor.coded(cursor.position, min(cursor.position + length, cursor.size))
        elif kind in (b"id3 ", b"ID3 ", b"C2PA"):
            start = cursor.position
            cursor.skip(length)
            cursor.previews(start)
    if kinds != [b"fmt ", b"data"]:
        cursor.refuse("it does not hold one fmt and one data chunk; encode it again")
    cursor.end()
    return Format(media_type="audio/wav", extension=".wav")


_MP3_RATES = {  # Hz, by version bits
    3: (44100, 48000, 32000),  # MPEG 1
    2: (22050, 24000, 16000),  # MPEG 2
    0: (11025, 12000, 8000),  # MPEG 2.5
}
_MP3_KBITS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG 1
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2, 2.5
)


def mp3(cursor: Cursor) -> Format:
    if cursor.peek(3) == b"ID3":
        _id3(cursor)
    frames = 0
    while header := cursor.peek(4):
        if header.startswith(b"TAG"):  # ID3v1: 128 bytes at the very end
            cursor.skip(128)
            break
        cursor.part()
        length = mp3_frame_length(int.from_bytes(header.ljust(4, b"\0"), "big"))
        if not length:
            cursor.refuse(f"no frame of MPEG layer III at byte {cursor.position}; encode it again")
        cursor.skip_coded(length)
        frames += 1
    if frames < 2:
        cursor.refuse("it holds no sound; encode it again")
    cursor.end()
    return Format(media_type="audio/mpeg", extension=".mp3")


_MAX_ID3 = 64 * 2**20
_ID3_FRAME = re.compile(rb"[A-Z0-9]{4}|[A-Z0-9]{3}\Z")


def _id3(cursor: Cursor) -> None:
    """An ID3v2 tag, frame by frame: a cover stands in APIC, and in no other frame."""
    tag = cursor.take(10)
    if max(tag[6:]) > 0x7F:
        cursor.refuse("its ID3 tag has no valid length; write it again")
    length = _syncsafe(tag[6:])
    if length > _MAX_ID3:
        cursor.refuse(f"its ID3 tag has {length} bytes, at most {_MAX_ID3} are read; shorten it")
    body = b"".join(cursor.pieces(length))
    cursor.skip(10 if tag[5] & 0x10 else 0)
    cursor.coded(0)
    if tag[5] & 0x80:  # unsynchronisation: a zero behind each 0xff
        body = body.replace(b"\xff\0", b"\xff")
    name = 3 if tag[3] == 2 else 4
    readings = [_id3_frames(body, name, plain=plain) for plain in (tag[3] < 4, True)]
    frames, done = max(readings, key=lambda reading: reading[1])  # iTunes writes plain sizes in 2.4
    for kind, frame in frames:
        cursor.decoded(frame, previews=kind in (b"APIC", b"PIC"))
    cursor.decoded(body[done:])


def _id3_frames(body: bytes, name: int, *, plain: bool) -> tuple[list[tuple[bytes, bytes]], int]:
    """The frames of a tag, and where they end."""
    frames = []
    at = 0
    while _ID3_FRAME.match(kind := body[at : at + name]):
        size = body[at + name : at + 2 * name]
        start = at + (6 if name == 3 else 10)
        stop = start + (int.from_bytes(size, "big") if plain else _syncsafe(size))
        if stop > len(body) or stop == start:
            break
        frames.append((kind, body[start:stop]))
        at = stop
    return frames, at


def _syncsafe(data: bytes) -> int:
    number = 0
    for byte in data:
        number = number << 7 | byte & 0x7F
    return number


def mp3_frame_length(header: int) -> int:
    """Bytes of a frame with this header; 0: it is no header of MPEG layer III."""
    version, layer = header >> 19 & 3, header >> 17 & 3
    kbits, rate, padding = header >> 12 & 15, header >> 10 & 3, header >> 9 & 1
    if header >> 21 != 0x7FF or version == 1 or layer != 1 or kbits in (0, 15) or rate == 3:
        return 0
    first = version == 3
    bits = (144_000 if first else 72_000) * _MP3_KBITS[not first][kbits]
    return bits // _MP3_RATES[version][rate] + padding


def flac(cursor: Cursor) -> Format:
    cursor.skip_coded(4)
    if cursor.peek(4) not in (b"\x00\x00\x00\x22", b"\x80\x00\x00\x22"):
        cursor.refuse("it does not begin with its STREAMINFO block; encode it again")
    last = False
    while not last:
        cursor.part()
        start, kind = cursor.position, cursor.number(1)
        last = kind >= 0x80
        length = cursor.number(3)
        cursor.coded(start)
        body = cursor.position
        cursor.skip(length)
        if kind & 0x7F in _FLAC_TABLES:
            cursor.coded(body)
        elif kind & 0x7F == _FLAC_PICTURE:
            cursor.previews(body)
    cursor.coded(cursor.position, cursor.size)
    if not _FLAC_SYNC.match(cursor.peek(2)):
        cursor.refuse("it holds no sound; encode it again")
    # Frames carry no length. Each ends in a CRC that makes the CRC over whole frames zero.
    cursor.move(max(cursor.position, cursor.size - BLOCK))
    tail = cursor.peek(BLOCK)
    for start in [found.start() for found in _FLAC_SYNC.finditer(tail)][:-33:-1]:
        crc = before = 0
        for byte in tail[start:]:
            before, crc = crc, (crc << 8 & 0xFFFF) ^ _CRC16[crc >> 8 ^ byte]
        if crc == 0 != before:  # zero already: padding follows the frame
            return Format(media_type="audio/flac", extension=".flac")
    cursor.refuse("it does not end with a whole frame; it is cut off, get the whole file")


_FLAC_TABLES = (0, 3)  # STREAMINFO, SEEKTABLE
_FLAC_PICTURE = 6
_FLAC_SYNC = re.compile(rb"\xff[\xf8\xf9]")


def _crc16(byte: int) -> int:
    crc = byte << 8
    for _ in range(8):
        crc = (crc << 1) ^ (0x18005 if crc & 0x8000 else 0)
    return crc


_CRC16 = tuple(map(_crc16, range(256)))


_OGG_CODECS = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")
_MAX_OGG_HEADERS = 32 * 2**20


@dataclass
class _OggHeaders:
    """The packets before a stream's sound, put together from its pages.

    Args:
        left: how many are still to come.
        held: their bytes so far.
        open: where the unfinished one begins in `held`.
    """

    left: int
    held: bytearray = field(default_factory=bytearray)
    open: int = 0

    def page(self, lengths: bytes, body: bytes, codec: bytes) -> None:
        at = 0
        for length in lengths:
            if not self.left:
                return
            self.held += body[at : at + length]
            at += length
            if length < 255:
                self._packet(codec)

    def _packet(self, codec: bytes) -> None:
        packet = bytes(self.held[self.open :])
        if codec.startswith(b"\x7fFLAC") and self.open:
            self.left = 0 if packet[:1] >= b"\x80" else 1  # the last block of metadata says so
        else:
            self.left -= 1
        if packet.startswith(b"\x05vorbis"):  # its codebooks
            del self.held[self.open :]
        self.held += b"\0\0"
        self.open = len(self.held)


def _ogg_headers(codec: bytes) -> _OggHeaders:
    if codec.startswith(b"Speex   "):
        return _OggHeaders(2 + min(int.from_bytes(codec[68:72], "little"), 1000))
    return _OggHeaders(3 if codec.startswith(b"\x01vorbis") else 2)


def ogg(cursor: Cursor) -> Format:
    streams: dict[bytes, tuple[bytes, _OggHeaders]] = {}
    ended: set[bytes] = set()
    while cursor.position < cursor.size:
        cursor.part()
        start = cursor.position
        page = cursor.take(27)
        if page[:5] != b"OggS\0":
            cursor.refuse("it has bytes between its pages; encode it again")
        serial, flags = page[14:18], page[5]
        lengths = cursor.take(page[26])
        if flags & 2:
            codec = cursor.peek(80)
            streams[serial] = codec, _ogg_headers(codec)
            if not codec.startswith(_OGG_CODECS) or len(streams) > 8:
                cursor.refuse("a stream is not Opus, Vorbis, FLAC or Speex; convert it")
        if serial not in streams or serial in ended:
            cursor.refuse("a page belongs to no open stream; encode it again")
        if flags & 4:
            ended.add(serial)
        codec, headers = streams[serial]
        if headers.left:
            headers.page(lengths, cursor.take(sum(lengths)), codec)
            if len(headers.held) > _MAX_OGG_HEADERS:
                cursor.refuse(f"its comments have over {_MAX_OGG_HEADERS} bytes; take them out")
        else:
            cursor.skip(sum(lengths))
        cursor.coded(start)
    if not streams or streams.keys() != ended:
        cursor.refuse("a stream does not end; it is cut off, get the whole file")
    for _, headers in streams.values():
        cursor.decoded(bytes(headers.held), previews=True)
    return Format(media_type="audio/ogg", extension=".ogg")
