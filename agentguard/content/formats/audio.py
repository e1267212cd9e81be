"""The structures of audio files, walked to the end. See `formats`."""

from __future__ import annotations

import re

from agentguard.content.formats.reader import BLOCK, Cursor, Format, riff_chunks


def wav(cursor: Cursor) -> Format:
    kinds: list[bytes] = []
    for kind, length in riff_chunks(cursor):
        if kind in (b"fmt ", b"data"):
            kinds.append(kind)
        if kind == b"fmt " and length < 16:
            cursor.refuse("its fmt chunk is too short; encode it again")
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
        tag = cursor.take(10)
        if max(tag[6:]) > 0x7F:
            cursor.refuse("its ID3 tag has no valid length; write it again")
        cursor.skip(tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9])
        cursor.skip(10 if tag[5] & 0x10 else 0)
    frames = 0
    while header := cursor.peek(4):
        if header.startswith(b"TAG"):  # ID3v1: 128 bytes at the very end
            cursor.skip(128)
            break
        cursor.part()
        cursor.skip(_mp3_frame_length(cursor, int.from_bytes(header.ljust(4, b"\0"), "big")))
        frames += 1
    if frames < 2:
        cursor.refuse("it holds no sound; encode it again")
    cursor.end()
    return Format(media_type="audio/mpeg", extension=".mp3")


def _mp3_frame_length(cursor: Cursor, header: int) -> int:
    version, layer = header >> 19 & 3, header >> 17 & 3
    kbits, rate, padding = header >> 12 & 15, header >> 10 & 3, header >> 9 & 1
    if header >> 21 != 0x7FF or version == 1 or layer != 1 or kbits in (0, 15) or rate == 3:
        cursor.refuse(f"no frame of MPEG layer III at byte {cursor.position}; encode it again")
    first = version == 3
    bits = (144_000 if first else 72_000) * _MP3_KBITS[not first][kbits]
    return bits // _MP3_RATES[version][rate] + padding


def flac(cursor: Cursor) -> Format:
    cursor.skip(4)
    if cursor.peek(4) not in (b"\x00\x00\x00\x22", b"\x80\x00\x00\x22"):
        cursor.refuse("it does not begin with its STREAMINFO block; encode it again")
    last = False
    while not last:
        cursor.part()
        last = cursor.number(1) >= 0x80
        cursor.skip(cursor.number(3))
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


_FLAC_SYNC = re.compile(rb"\xff[\xf8\xf9]")


def _crc16(byte: int) -> int:
    crc = byte << 8
    for _ in range(8):
        crc = (crc << 1) ^ (0x18005 if crc & 0x8000 else 0)
    return crc


_CRC16 = tuple(map(_crc16, range(256)))


_OGG_CODECS = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")


def ogg(cursor: Cursor) -> Format:
    streams: set[bytes] = set()
    ended: set[bytes] = set()
    while cursor.position < cursor.size:
        cursor.part()
        page = cursor.take(27)
        if page[:5] != b"OggS\0":
            cursor.refuse("it has bytes between its pages; encode it again")
        serial, flags = page[14:18], page[5]
        length = sum(cursor.take(page[26]))
        if flags & 2:
            streams.add(serial)
            if not cursor.peek(8).startswith(_OGG_CODECS) or len(streams) > 8:
                cursor.refuse("a stream is not Opus, Vorbis, FLAC or Speex; convert it")
        if serial not in streams or serial in ended:
            cursor.refuse("a page belongs to no open stream; encode it again")
        if flags & 4:
            ended.add(serial)
        cursor.skip(length)
    if not streams or streams != ended:
        cursor.refuse("a stream does not end; it is cut off, get the whole file")
    return Format(media_type="audio/ogg", extension=".ogg")
