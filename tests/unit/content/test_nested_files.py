"""Files that pass as something else, or hold a second one, are refused (I3)."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache

import pytest
from PIL import Image

from agentguard.content.formats.identify import Format, Limits, MediaRefused, inspect
from tests.support.media_files import animation, box, chunk, media, picture, zip_archive

_LIMITS = Limits(max_bytes=50_000_000)


def _inspect(data: bytes, limits: Limits = _LIMITS) -> Format:
    return inspect(io.BytesIO(data), limits=limits)


@cache
def _film() -> bytes:
    return media("mp4", "libx264", "aac")


@cache
def _mp3() -> bytes:
    data = media("mp3", None, "libmp3lame")
    return data[data.index(b"\xff\xfb") :]


def _in_jpeg(marker: int, *bodies: bytes) -> bytes:
    data = picture("JPEG")
    parts = [struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for body in bodies]
    return data[:2] + b"".join(parts) + data[2:]


def _in_png(kind: bytes, body: bytes) -> bytes:
    data = picture("PNG")
    return data[:33] + chunk(kind, body) + data[33:]


def _in_gif(body: bytes) -> bytes:
    data = picture("GIF")
    start = 13 + (3 << (data[10] & 7) + 1)
    pieces = [body[at : at + 255] for at in range(0, len(body), 255)]
    blocks = b"".join(bytes([len(piece)]) + piece for piece in pieces)
    return data[:start] + b"!\xfe" + blocks + b"\0" + data[start:]


def _in_wav(body: bytes) -> bytes:
    data = media("wav", None, "pcm_s16le")
    whole = data[8:] + b"JUNK" + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
    return b"RIFF" + struct.pack("<I", len(whole)) + whole


def _in_mp3(frame: bytes, body: bytes) -> bytes:
    sized = frame + struct.pack(">I", len(body)) + b"\0\0" + body + b"\0" * 20
    length = bytes(len(sized) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + length + sized + _mp3()


def _frames(count: int) -> list[bytes]:
    """The first frames of an MP3, each by itself."""
    found = []
    at = 0
    for _ in range(count):
        end = _mp3().index(_mp3()[:2], at + 100)
        found.append(_mp3()[at:end])
        at = end
    return found


_HOSTS: dict[str, Callable[[bytes], bytes]] = {
    "jpeg comment": lambda inner: _in_jpeg(0xFE, inner[:65_000]),
    "jpeg segment": lambda inner: _in_jpeg(0xEA, inner[:65_000]),
    "png chunk": lambda inner: _in_png(b"prVt", inner),
    "png text": lambda inner: _in_png(b"tEXt", b"Comment\0" + inner),
    "gif comment": _in_gif,
    "wav chunk": _in_wav,
    "mp3 private frame": lambda inner: _in_mp3(b"PRIV", inner),
    "mp3 object": lambda inner: _in_mp3(b"GEOB", inner),
    "mp4 free box": lambda inner: _film() + box(b"free", inner),
    "mp4 skip box": lambda inner: _film() + box(b"skip", inner),
    "mp4 uuid box": lambda inner: _film() + box(b"uuid", b"\x22" * 16 + inner),
    "mp4 data of no track": lambda inner: _film() + box(b"mdat", inner),
}
_FILES: dict[str, Callable[[], bytes]] = {
    "mp3": _mp3,
    "png": lambda: picture("PNG"),
    "jpeg": lambda: picture("JPEG"),
    "gif": lambda: picture("GIF"),
    "webp": lambda: picture("WEBP"),
    "zip": zip_archive,
    "pdf": lambda: picture("PDF"),
    "mp4": _film,
    "webm": lambda: media("webm", "libvpx", "libopus"),
    "wav": lambda: media("wav", None, "pcm_s16le"),
    "flac": lambda: media("flac", None, "flac"),
    "ogg": lambda: media("ogg", None, "libopus"),
    "aac": lambda: media("adts", None, "aac"),
    "mpeg": lambda: media("mpegts", "mpeg2video", "mp2"),
    "flv": lambda: media("flv", "flv1", None),
}


@pytest.mark.parametrize("host", _HOSTS)
@pytest.mark.parametrize("inner", _FILES)
def test_second_file_inside_is_refused(host: str, inner: str) -> None:
    with pytest.raises(MediaRefused, match=r"second file|or holds one"):
        _inspect(_HOSTS[host](_FILES[inner]()))


def test_sound_cut_into_comments_is_refused() -> None:
    for between in (1, 2, 3):
        frames = _frames(12)
        parts = [b"".join(frames[at : at + between]) for at in range(0, 12, between)]
        with pytest.raises(MediaRefused, match="second file"):
            _inspect(_in_jpeg(0xFE, *parts))


def test_false_frames_between_do_not_hide_sound() -> None:
    noise = b"\xff\xfb\x90\x00" * 40
    frames = b"".join(noise[:60] + frame for frame in _frames(12))
    with pytest.raises(MediaRefused, match="second file"):
        _inspect(_in_jpeg(0xFE, noise[:30] + frames))


def test_what_is_neither_picture_nor_sound_is_bounded() -> None:
    with pytest.raises(MediaRefused, match="neither picture nor sound"):
        _inspect(_film() + box(b"free", bytes(34_000_000)))
    assert _inspect(_film() + box(b"free", bytes(30_000_000)))


def test_covers_and_thumbnails_are_no_second_file() -> None:
    small = picture("JPEG")
    assert _inspect(_in_mp3(b"APIC", b"\0image/jpeg\0\x03\0" + small))
    assert _inspect(_in_jpeg(0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + small))
    assert _inspect(_in_png(b"eXIf", b"II*\0\x08\0\0\0\0\0\0\0\0\0" + small))
    notes = box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9)) + box(
        b"ilst", box(b"covr", box(b"data", b"\0\0\0\x0d\0\0\0\0" + small))
    )
    assert _inspect(_film() + box(b"meta", bytes(4) + notes))


# --- ZIP ------------------------------------------------------------------------------------------


def _zip64() -> bytes:
    """An archive with ZIP64 records, before an end of directory that lies about its length."""
    plain = zip_archive()
    end = plain.rindex(b"PK\x05\x06")
    length, start = struct.unpack("<LL", plain[end + 12 : end + 20])
    record = b"PK\x06\x06" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, 1, 1, length, start)
    locator = b"PK\x06\x07" + struct.pack("<LQL", 0, end, 1)
    lie = b"PK\x05\x06" + struct.pack("<HHHHLLH", 0, 0, 0xFFFF, 0xFFFF, 7, 0xFFFFFFFE, 0)
    return plain[:end] + record + locator + lie


@pytest.mark.parametrize("archive", [zip_archive, _zip64])
def test_zip_hidden_in_coded_data_is_refused(archive: Callable[[], bytes]) -> None:
    sound = media("wav", None, "pcm_s16le")
    data = sound[: -len(archive())] + archive()
    assert zipfile.is_zipfile(io.BytesIO(data)) or archive is _zip64
    with pytest.raises(MediaRefused, match="ZIP archive"):
        _inspect(data)


def test_end_of_directory_with_a_false_length_does_not_hide_an_archive() -> None:
    sound, plain = media("wav", None, "pcm_s16le"), bytearray(zip_archive())
    start = len(sound) - len(plain)
    end = plain.rindex(b"PK\x05\x06")
    plain[end + 12 : end + 16] = b"\x01\0\0\0"
    offset = struct.unpack("<L", plain[end + 16 : end + 20])[0]
    plain[end + 16 : end + 20] = struct.pack("<L", start + offset)
    with pytest.raises(MediaRefused, match="ZIP archive"):
        _inspect(sound[:start] + bytes(plain))


# --- MP4 and MOV ----------------------------------------------------------------------------------


def _with_brand(brand: bytes) -> bytes:
    length = struct.unpack(">I", _film()[:4])[0]
    return box(b"ftyp", _film()[8:length] + brand) + _film()[length:]


@pytest.mark.parametrize(
    "brand", [b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"miaf", b"crx "]
)
def test_brand_of_a_picture_is_refused_whatever_else_a_file_holds(brand: bytes) -> None:
    with pytest.raises(MediaRefused, match="picture, whatever else it holds; convert it to JPEG"):
        _inspect(_with_brand(brand))


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("item", [b"pitm", b"iinf", b"iloc", b"iprp", b"idat", b"iref"])
def test_pictures_beside_a_film_are_refused(item: bytes, full: bool) -> None:
    handler = box(b"hdlr", bytes(8) + b"mdir" + bytes(13))
    notes = box(b"meta", bytes(4) * full + handler + box(item, bytes(8)))
    with pytest.raises(MediaRefused, match="pictures beside its film"):
        _inspect(_film() + notes)


def test_notes_that_say_they_are_pictures_are_refused() -> None:
    notes = box(b"meta", bytes(4) + box(b"hdlr", bytes(8) + b"pict" + bytes(13)))
    with pytest.raises(MediaRefused, match="pictures beside its film"):
        _inspect(_film() + notes)


def test_track_of_pictures_is_refused() -> None:
    data = _film()
    at = data.index(b"vide", data.index(b"hdlr"))
    with pytest.raises(MediaRefused, match="pictures that are no film"):
        _inspect(data[:at] + b"pict" + data[at + 4 :])


@pytest.mark.parametrize("entry", [b"encv", b"drmi", b"enca", b"drms"])
def test_encrypted_track_is_refused(entry: bytes) -> None:
    data = _film()
    known = b"avc1" if entry in (b"encv", b"drmi") else b"mp4a"
    at = data.index(known, data.index(b"stsd"))
    with pytest.raises(MediaRefused, match="encrypted, and nobody can look at it"):
        _inspect(data[:at] + entry + data[at + 4 :])


def test_other_signs_of_encryption_are_refused() -> None:
    piff = bytes.fromhex("d08a4f1810f34a82b6c832d8aba183d3")
    data = bytearray(_film())
    config = data.index(b"avcC")
    data[config : config + 4] = b"sinf"
    moov = _film().index(b"moov") - 4
    length = struct.unpack(">I", _film()[moov : moov + 4])[0]
    grown = box(b"moov", _film()[moov + 8 : moov + length] + box(b"pssh", bytes(24)))
    keyed = _film()[:moov] + grown + _film()[moov + length :]
    for hidden in (bytes(data), _film() + box(b"uuid", piff + bytes(20)), keyed):
        with pytest.raises(MediaRefused, match="encrypted"):
            _inspect(hidden)


def _element(ident: str, body: bytes) -> bytes:
    return bytes.fromhex(ident) + (1 << 28 | len(body)).to_bytes(4, "big") + body


def _mkv(encodings: bytes = b"", *, kind: int = 1, block: bytes = b"\x81\0\0\x80x") -> bytes:
    """A Matroska file of one track and one block."""
    video = _element("e0", _element("b0", b"\x40") + _element("ba", b"\x30"))
    track = _element("d7", b"\1") + _element("83", bytes([kind])) + video + encodings
    tracks = _element("1654ae6b", _element("ae", track) + _element("ae", _SOUND))
    cluster = _element("1f43b675", _element("e7", b"\0") + _element("a3", block))
    return _element("1a45dfa3", _element("4282", b"matroska")) + _element(
        "18538067", tracks + cluster
    )


_SOUND = _element("d7", b"\2") + _element("83", b"\2")


@pytest.mark.parametrize("sign", [_element("5035", b""), _element("5033", b"\1")])
def test_encrypted_matroska_track_is_refused(sign: bytes) -> None:
    assert _inspect(_mkv()).extension == ".mkv"
    with pytest.raises(MediaRefused, match="encrypted"):
        _inspect(_mkv(_element("6d80", _element("6240", sign))))


def test_packed_subtitles_are_read() -> None:
    packed = _element("6d80", _element("6240", _element("5034", b"")))
    words = b"\x81\0\0\x80" + zlib.compress(b"aws key AKIAIOSFODNN7EXAMPLE")
    assert _inspect(_mkv(packed, block=words))  # picture data
    with pytest.raises(MediaRefused, match="holds a secret"):
        _inspect(_mkv(packed, kind=17, block=words))


@pytest.mark.parametrize("kind", [b"rmra", b"cmov"])
def test_index_that_names_another_film_is_refused(kind: bytes) -> None:
    moov = _film().index(b"moov") - 4
    length = struct.unpack(">I", _film()[moov : moov + 4])[0]
    address = box(b"rmda", box(b"rdrf", bytes(4) + b"url \0\0\0\x14http://10.0.0.1/x.mp4"))
    grown = box(b"moov", _film()[moov + 8 : moov + length] + box(kind, address))
    with pytest.raises(MediaRefused, match="names another film"):
        _inspect(_film()[:moov] + grown + _film()[moov + length :])


@pytest.mark.parametrize("table", [b"stts", b"stsc", b"stsz", b"stco", b"stss"])
def test_table_that_names_more_than_it_holds_is_refused(table: bytes) -> None:
    data = bytearray(_film())
    at = data.index(table) + (12 if table == b"stsz" else 8)
    data[at : at + 4] = b"\x00\xff\xff\xff"
    with pytest.raises(MediaRefused, match="names 16777215 entries, more than it holds"):
        _inspect(bytes(data))


# --- animations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_animation_of_too_many_pixels_is_refused(form: str) -> None:
    data = animation(form, count=30)  # of 64 x 48
    assert _inspect(data, Limits(max_bytes=10_000_000, max_pixels=64 * 48 * 2))
    with pytest.raises(MediaRefused, match="more than 61440 pixels in all its pictures"):
        _inspect(data, Limits(max_bytes=10_000_000, max_pixels=64 * 48))


def test_gif_of_few_bytes_and_two_hundred_billion_pixels_is_refused() -> None:
    header = b"GIF89a" + struct.pack("<HH", 10_000, 10_000) + b"\x80\0\0" + bytes(6)
    frame = b"," + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02\x44\x01\0"
    with pytest.raises(MediaRefused, match="pixels in all its pictures"):
        _inspect(header + frame * 2_000 + b";")


# --- texts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "s=x\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
        "Spring\r\nc=IN IP6 ::1\r\n",
        "hello\rc=IN IP4 10.0.0.1\r",
        "t=0 0\nm=video 5004/2 RTP/AVP 96\n",
        "notes\n#EXTM3U\nhttp://10.0.0.1/a.ts\n",
        "#EXT-X-VERSION:3\n",
        "[Reference]\nRef1=http://10.0.0.1/x\n",
        "x\nFile1=http://10.0.0.1/\n",
        "RTSPtextRTSP://10.0.0.1/x\n",
        "%!PS-Adobe-3.0\n(/etc/passwd) (r) file\n",
        "#!/bin/sh\nrm x\n",
        "push graphic-context\nimage over 0,0 0,0 'http://10.0.0.1/'\n",
        "P3 100000 100000 255\n",
        "P1\n# x\n100000 100000\n",
    ],
)
def test_text_that_a_program_takes_for_a_playlist_or_script_is_refused(text: str) -> None:
    with pytest.raises(MediaRefused, match="playlist or a script"):
        _inspect(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "<b onmouseover  =alert(1)>hi</b>",
        "<b\nonmouseover\n=\nalert(1)>hi",
        "<b " + "x" * 600 + " onclick=alert(1)>hi",
        "<asx version=3><entry><ref href='http://10.0.0.1/'/></entry></asx>",
        "<details open ontoggle=alert(1)>",
        "<x onclick=alert(1)>",
        "<marquee>",
        "<b/onclick=alert(1)>",
        "<font color='red' onclick='alert(1)'>",
        "<c.x onclick=alert(1)>",
        "<v Kim onclick=alert(1)>",
        "<i.x onclick=alert(1)>",
        "</b onclick=alert(1)>",
        "<b",
        "<!-- x -->",
        "<?php x",
        "see JavaScript:alert(1)",
    ],
)
def test_tag_that_captions_do_not_have_is_refused(text: str) -> None:
    captions = f"1\n00:00:01,000 --> 00:00:02,500\n{text}\n"
    with pytest.raises(MediaRefused, match="scripts"):
        _inspect(captions.encode())


@pytest.mark.parametrize(
    "text",
    [
        "<b>bold</b> <i>x</i> <u>x</u>",
        "<font color=\"#ff0000\">red</font> <font color=red face='Arial'>x</font>",
        "<c.yellow.bg_blue.magenta>x</c> <v.loud Esme & Co>x</v> <lang en-GB>x</lang>",
        "<ruby>x<rt>y</rt></ruby> <00:00:01.500>later <b.big>x</b>",
        "3 < 4 > 2, I <3 you, a<-b, <<x>> is refused but << x >> is not".replace("<<x>>", "it"),
        "{\\an8}up there\nc=3 and m=4, push the button, P3 is a part",
    ],
)
def test_tags_of_captions_are_accepted(text: str) -> None:
    assert _inspect(f"1\n00:00:01,000 --> 00:00:02,500\n{text}\n".encode()).extension == ".srt"


def test_cover_in_a_film_is_judged_by_its_size() -> None:
    small = io.BytesIO()
    Image.new("1", (3_000, 3_000)).save(small, "PNG")
    limits = Limits(max_bytes=10_000_000, max_pixels=1_000_000)
    with pytest.raises(MediaRefused, match="3000 x 3000"):
        _inspect(_in_mp3(b"APIC", b"\0image/png\0\x03\0" + small.getvalue()), limits)
