"""What bytes are taken in: real files of each format, and what a hostile tool makes of them.

Supports I3 and S8: nothing is taken in that is cut off, hides a second file, names other files,
carries scripts or explodes when decoded."""

from __future__ import annotations

import io
import itertools
import os
import re
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard.content.formats.identify import Format, Limits, MediaRefused, inspect
from tests.support.media_files import (
    HEIGHT,
    WIDTH,
    animation,
    box,
    chunk,
    media,
    picture,
    zip_archive,
)

_LIMITS = Limits(max_bytes=10_000_000)


def _inspect(data: bytes, limits: Limits = _LIMITS) -> Format:
    return inspect(io.BytesIO(data), limits=limits)


def _survives(data: bytes) -> None:
    """Recognised or refused in printable ASCII; any other exception fails the test."""
    said = ""
    try:
        _inspect(data)
    except MediaRefused as refused:
        said = str(refused)
    assert re.fullmatch(r"[ -~]*", said)


_SIZED: dict[str, Any] = {"width": WIDTH, "height": HEIGHT}
_FILES: dict[str, tuple[Callable[[], bytes], Format]] = {}
for _names, _format in (
    (
        {
            "png": lambda: picture("PNG"),
            "png palette": lambda: picture("PNG", "P"),
            "png grey": lambda: picture("PNG", "L", dpi=(300, 300)),
            "apng": lambda: animation("PNG"),
        },
        Format(media_type="image/png", extension=".png", **_SIZED),
    ),
    (
        {
            "jpeg": lambda: picture("JPEG"),
            "jpeg progressive": lambda: picture("JPEG", progressive=True, quality=95),
            "jpeg grey": lambda: picture("JPEG", "L", comment=b"spring"),
            "jpeg cmyk": lambda: picture("JPEG", "CMYK"),
            "jpeg restarts": lambda: picture("JPEG", restart_marker_blocks=1),
        },
        Format(media_type="image/jpeg", extension=".jpg", **_SIZED),
    ),
    (
        {"gif": lambda: picture("GIF"), "gif animated": lambda: animation("GIF", loop=0)},
        Format(media_type="image/gif", extension=".gif", **_SIZED),
    ),
    (
        {
            "webp": lambda: picture("WEBP"),
            "webp lossless": lambda: picture("WEBP", lossless=True),
            "webp alpha": lambda: picture("WEBP", "RGBA", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
            "webp animated": lambda: animation("WEBP"),
            "webp animated lossless": lambda: animation("WEBP", lossless=True),
        },
        Format(media_type="image/webp", extension=".webp", **_SIZED),
    ),
    (
        {
            "mp4": lambda: media("mp4", "libx264", "aac"),
            "mp4 faststart": lambda: media("mp4", "libx264", movflags="faststart"),
            "mp4 fragmented": lambda: media(
                "mp4", "libx264", "aac", movflags="frag_keyframe+empty_moov"
            ),
        },
        Format(media_type="video/mp4", extension=".mp4", **_SIZED),
    ),
    (
        {"mov": lambda: media("mov", "mpeg4", "aac")},
        Format(media_type="video/quicktime", extension=".mov", **_SIZED),
    ),
    (
        {"m4a": lambda: media("ipod", None, "aac")},
        Format(media_type="audio/mp4", extension=".m4a"),
    ),
    (
        {"webm": lambda: media("webm", "libvpx", "libopus")},
        Format(media_type="video/webm", extension=".webm", **_SIZED),
    ),
    (
        {"webm sound": lambda: media("webm", None, "libopus")},
        Format(media_type="audio/webm", extension=".webm"),
    ),
    (
        {"mkv": lambda: media("matroska", "libx264", "aac")},
        Format(media_type="video/x-matroska", extension=".mkv", **_SIZED),
    ),
    (
        {"mka": lambda: media("matroska", None, "libopus")},
        Format(media_type="audio/x-matroska", extension=".mka"),
    ),
    (
        {
            "wav": lambda: media("wav", None, "pcm_s16le"),
            "wav 24 bit": lambda: media("wav", None, "pcm_s24le"),
        },
        Format(media_type="audio/wav", extension=".wav"),
    ),
    (
        {
            "mp3": lambda: media("mp3", None, "libmp3lame"),
            "mp3 mpeg 2": lambda: media("mp3", None, "libmp3lame", 22_050),
            "mp3 mpeg 2.5": lambda: media("mp3", None, "libmp3lame", 8_000),
            "mp3 without tag": lambda: media("mp3", None, "libmp3lame", id3v2_version="0"),
            "mp3 with old tag": lambda: media("mp3", None, "libmp3lame") + b"TAG".ljust(128, b"\0"),
        },
        Format(media_type="audio/mpeg", extension=".mp3"),
    ),
    (
        {"flac": lambda: media("flac", None, "flac")},
        Format(media_type="audio/flac", extension=".flac"),
    ),
    (
        {"ogg": lambda: media("ogg", None, "libopus")},
        Format(media_type="audio/ogg", extension=".ogg"),
    ),
):
    _FILES |= {_name: (_make, _format) for _name, _make in _names.items()}


@cache
def _file(case: str) -> bytes:
    return _FILES[case][0]()


@pytest.mark.parametrize("case", _FILES)
def test_a_real_file_is_recognised_whatever_it_is_called(case: str) -> None:
    file = io.BytesIO(_file(case))
    assert inspect(file, limits=_LIMITS) == _FILES[case][1]
    assert file.tell() == 0


def test_a_file_descriptor_is_inspected(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(_file("png"))
    descriptor = os.open(tmp_path / "x", os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        assert inspect(file, limits=_LIMITS).media_type == "image/png"


@pytest.mark.parametrize("case", _FILES)
def test_a_file_cut_off_anywhere_is_refused(case: str) -> None:
    data = _file(case)
    tag = 128 if case == "mp3 with old tag" else 0
    body = data[: len(data) - tag]
    near_end = range(len(body) - 9, len(body))
    for end in {0, *range(16, 80), *range(97, len(body), 97), *near_end}:  # "RIFF" alone is text
        if case.startswith("mp3") and _ends_with_a_frame(body, end):
            continue  # a shorter song is a whole song
        with pytest.raises(MediaRefused):
            _inspect(body[:end])


def _ends_with_a_frame(data: bytes, end: int) -> bool:
    try:
        return _inspect(data[:end]).media_type == "audio/mpeg" and data[end : end + 1] == b"\xff"
    except MediaRefused:
        return False


@pytest.mark.parametrize("extra", [b"\0", b"more", b"PK\x03\x04" + b"x" * 40, b"\xff" * 10])
@pytest.mark.parametrize("case", _FILES)
def test_bytes_behind_the_media_are_refused(case: str, extra: bytes) -> None:
    with pytest.raises(MediaRefused):
        _inspect(_file(case) + extra)


def test_the_refusal_of_trailing_bytes_says_what_to_do() -> None:
    with pytest.raises(MediaRefused, match="4 bytes follow its end; encode it again to drop them"):
        _inspect(_file("jpeg") + b"more")


_IEND = chunk(b"IEND", b"")
_ZIP_PLACES: dict[str, Callable[[bytes], bytes]] = {
    "in a PNG chunk": lambda archive: _file("png")[:-12] + chunk(b"prVt", archive) + _IEND,
    "in a JPEG segment": lambda archive: picture("JPEG", comment=archive),
    "in an MP4 box": lambda archive: _file("mp4") + box(b"free", archive),
    "alone": lambda archive: archive,
}


@pytest.mark.parametrize("place", _ZIP_PLACES)
def test_a_zip_archive_inside_a_picture_is_refused(place: str) -> None:
    data = _ZIP_PLACES[place](zip_archive())
    assert zipfile.is_zipfile(io.BytesIO(data))
    with pytest.raises(MediaRefused, match="ZIP archive"):
        _inspect(data)


def test_a_pdf_alone_or_behind_a_picture_s_header_is_refused() -> None:
    with pytest.raises(MediaRefused, match="PDF"):
        _inspect(picture("PDF"))
    with pytest.raises(MediaRefused, match="PDF"):
        _inspect(picture("JPEG", comment=b"%PDF-1.7 ..."))


@pytest.mark.parametrize(
    "data",
    [
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        b"<?xml version='1.0'?><svg/>",
        b"\xef\xbb\xbf  <!DOCTYPE html><html></html>",
        b"Spring is here <script src=//evil.example></script>",
        b"Spring is here <IMG SRC=x onerror=alert(1)>",
        b"1\n00:00:01,000 --> 00:00:02,000\n<b onmouseover=alert(1)>hi</b>\n",
        b"<a href='javascript:alert(1)'>x</a>",
    ],
)
def test_markup_that_can_carry_scripts_is_refused(data: bytes) -> None:
    with pytest.raises(MediaRefused, match="scripts"):
        _inspect(data)


@pytest.mark.parametrize(
    "data",
    [
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"\n[playlist]\nFile1=http://10.0.0.1/\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\n",
    ],
)
def test_a_playlist_that_opens_other_files_is_refused(data: bytes) -> None:
    """I3: a player would fetch what the text names."""
    with pytest.raises(MediaRefused, match="playlist"):
        _inspect(data)


def test_captions_are_recognised() -> None:
    srt = "1\r\n00:00:01,000 --> 00:00:02,500\r\n<i>Frühling</i> ist da, 3 < 4 ❤️\r\n"
    vtt = "WEBVTT - spring\n\n00:01.000 --> 00:02.000\n<v Kim>hello <c.blue>world</c>\n"
    assert _inspect(srt.encode()).extension == ".srt"
    assert _inspect(b"\xef\xbb\xbf" + srt.encode()).media_type == "application/x-subrip"
    assert _inspect(vtt.encode()).media_type == "text/vtt"
    assert _inspect(b"Spring is here: 20% off\n") == Format(
        media_type="text/plain", extension=".txt"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"MZ\x90\0\x03",
        b"\x7fELF\x02\x01",
        b"BM6$\0\0",
        b"II*\0\x08\0\0\0",
        b"text with a \x1b[2J terminal escape",
        "text in UTF-16".encode("utf-16"),
        b"caf\xe9",
        b"RIFF\x04\0\0\0AVI ",
        b"\xff\xf1\x50\x80\x00\x1f\xfc",
    ],
)
def test_unknown_formats_are_refused(data: bytes) -> None:
    with pytest.raises(MediaRefused):
        _inspect(data)


def test_an_unknown_format_is_told_what_is_expected_instead() -> None:
    with pytest.raises(MediaRefused, match="begins with 42 4d 00, expected one of PNG"):
        _inspect(b"BM\0")


def test_a_file_larger_than_the_limit_is_refused_unread() -> None:
    data = _file("png")
    assert _inspect(data, Limits(max_bytes=len(data)))
    with pytest.raises(MediaRefused, match=f"it has {len(data)} bytes, expected at most 10"):
        _inspect(data, Limits(max_bytes=10))


@pytest.mark.parametrize("case", [case for case, (_, form) in _FILES.items() if form.width])
def test_a_canvas_beyond_the_limit_is_refused(case: str) -> None:
    pixels = WIDTH * HEIGHT
    assert _inspect(_file(case), Limits(max_bytes=10_000_000, max_pixels=pixels))
    with pytest.raises(MediaRefused, match="64 x 48 pixels, expected at most 3071"):
        _inspect(_file(case), Limits(max_bytes=10_000_000, max_pixels=pixels - 1))


def test_a_decompression_bomb_is_refused_by_default() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + _IEND
    with pytest.raises(MediaRefused, match="60000 x 60000"):
        _inspect(bomb)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_an_animation_of_too_many_pictures_is_refused(form: str) -> None:
    data = animation(form, count=9)
    assert _inspect(data, Limits(max_bytes=10_000_000, max_frames=9))
    with pytest.raises(MediaRefused, match="more than 8 pictures"):
        _inspect(data, Limits(max_bytes=10_000_000, max_frames=8))


def test_a_png_chunk_that_fails_its_crc_is_refused() -> None:
    data = bytearray(_file("png"))
    data[17] ^= 1  # the width
    with pytest.raises(MediaRefused, match="CRC"):
        _inspect(bytes(data))


@pytest.mark.parametrize(
    "chunks",
    [
        [b"IDAT", b"IHDR", b"IEND"],
        [b"IHDR", b"IEND"],
        [b"IHDR", b"IHDR", b"IDAT", b"IEND"],
        [b"IHDR", b"IDAT", b"tEXt", b"IDAT", b"IEND"],
        [b"IHDR", b"EVIL", b"IDAT", b"IEND"],
    ],
)
def test_png_chunks_out_of_order_are_refused(chunks: list[bytes]) -> None:
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    body = {b"IHDR": header, b"IEND": b""}
    data = b"".join(chunk(kind, body.get(kind, b"x")) for kind in chunks)
    with pytest.raises(MediaRefused):
        _inspect(b"\x89PNG\r\n\x1a\n" + data)


def test_a_progressive_jpeg_of_hundreds_of_scans_is_refused() -> None:
    data = picture("JPEG", "L", progressive=True)
    start = data.rindex(b"\xff\xda")
    with pytest.raises(MediaRefused, match="100 scans"):
        _inspect(data[:start] + data[start:-2] * 200 + data[-2:])


def test_a_webp_whose_canvas_hides_a_larger_picture_is_refused() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)

    picture = _file("webp lossless")[12:]
    canvas = chunk(b"VP8X", b"\0" * 4 + b"\0\0\0" + b"\0\0\0")  # 1 x 1
    for body in (canvas + picture, canvas + chunk(b"ANMF", b"\0" * 16 + picture)):
        data = b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
        with pytest.raises(MediaRefused, match=r"size|64 x 48"):
            _inspect(data, Limits(max_bytes=10_000, max_pixels=WIDTH * HEIGHT - 1))


def test_an_mp4_box_that_no_player_knows_is_refused() -> None:
    with pytest.raises(MediaRefused, match="no player knows"):
        _inspect(_file("mp4") + box(b"evil", b"customers"))


def test_an_mp4_whose_samples_are_in_another_file_is_refused() -> None:
    """I3: some players open the path or URL that a data reference names."""
    data = _file("mp4")
    entry = data.index(b"dref") + 4 + 8 + 8  # past the header, the count and the entry's header
    assert data[entry : entry + 4] == b"\0\0\0\1"
    outside = data[: entry + 3] + b"\0" + data[entry + 4 :]
    with pytest.raises(MediaRefused, match="in another file"):
        _inspect(outside)


def test_an_mp4_that_declares_a_huge_picture_is_refused() -> None:
    data = _file("mp4")
    size = data.index(struct.pack(">HH", WIDTH, HEIGHT), data.index(b"stsd"))
    with pytest.raises(MediaRefused, match="65535 x 65535"):
        _inspect(data[:size] + b"\xff" * 4 + data[size + 4 :])


def test_mp4_boxes_nested_without_end_are_refused() -> None:
    data = b""
    for kind in itertools.islice(itertools.cycle([b"minf", b"mdia", b"trak", b"moov"]), 2_000):
        data = box(kind, data)
    with pytest.raises(MediaRefused):
        _inspect(box(b"ftyp", b"isom\0\0\0\0isom") + data)


@pytest.mark.parametrize("brand", [b"avif", b"heic", b"mif1", b"crx "])
def test_pictures_in_an_mp4_container_are_refused_with_advice(brand: bytes) -> None:
    with pytest.raises(MediaRefused, match="convert it to JPEG"):
        _inspect(box(b"ftyp", brand + b"\0\0\0\0" + brand))


def test_a_matroska_file_with_attachments_is_refused() -> None:
    data = _file("mkv")
    tags = data.rindex(b"\x12\x54\xc3\x67")  # become Attachments
    with pytest.raises(MediaRefused, match="files attached"):
        _inspect(data[:tags] + b"\x19\x41\xa4\x69" + data[tags + 4 :])


def test_a_live_stream_of_unknown_length_is_refused_with_advice() -> None:
    data = media("matroska", None, "libopus", live="1")
    with pytest.raises(MediaRefused, match="remux"):
        _inspect(data)


@pytest.mark.parametrize(
    "data",
    [
        b"GIF89a\1\0\1\0\0\0\0!\xfe" + b"\1x" * 501_000,
        b"\xff\xd8" + b"\xff" * 501_000,
        b"\xff\xd8" + b"\xff\xfe\0\2" * 501_000,
        box(b"ftyp", b"isom\0\0\0\0isom") + box(b"free", b"") * 501_000,
        b"\x1a\x45\xdf\xa3\x10\x0f\xff\xff" + b"\xec\x80" * 600_000,
        b"RIFF" + struct.pack("<I", 4 + 501_000 * 8) + b"WAVE" + b"JUNK\0\0\0\0" * 501_000,
        b"fLaC" + b"\0\0\0\x22" + b"\0" * 34 + b"\1\0\0\0" * 501_000,
    ],
    ids=["gif", "jpeg fill", "jpeg", "mp4", "matroska", "wav", "flac"],
)
def test_a_file_of_countless_parts_is_refused_in_bounded_time(data: bytes) -> None:
    with pytest.raises(MediaRefused, match=r"more than 500000 parts"):
        _inspect(data)


def test_repeated_marks_do_not_make_the_walk_quadratic() -> None:
    """Would take minutes with a search that begins anew at each mark."""
    scan = b"\xff\xd8\xff\xc0\0\x0b\x08\0\x30\0\x40\1\1\x11\0\xff\xda\0\x08\1\1\0\0\x3f\0"
    for data in (
        scan + b"\xff\0" * 1_500_000,
        scan + b"\xff" * 3_000_000,
        b"fLaC\x80\0\0\x22" + b"\0" * 34 + b"\xff\xf8" * 1_500_000,
        b"PK\5\6" * 1_000_000,
        b"<" * 2_000_000,
        b"<a" * 1_000_000,
    ):
        _survives(data)


class _OneBlock(io.BytesIO):
    """Counts the most that is read at once."""

    most = 0

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size >= 0
        self.most = max(self.most, size)
        return super().read(size)


@pytest.mark.parametrize("case", _FILES)
def test_memory_is_bounded_by_one_block(case: str) -> None:
    file = _OneBlock(_file(case) * 1)
    inspect(file, limits=_LIMITS)
    assert file.most <= 131_072


_MAGICS = [
    *(b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"fLaC", b"OggS", b"ID3", b"\xff\xfb"),
    *(b"\x1a\x45\xdf\xa3", b"\0\0\0\x10ftypisom", b"RIFF\x20\0\0\0WEBP", b"RIFF\x20\0\0\0WAVE"),
    *(b"WEBVTT", b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0", b"PK\5\6"),
]


@given(st.sampled_from(_MAGICS), st.binary(max_size=400))
@settings(deadline=None, max_examples=500)
def test_random_bytes_cause_nothing_but_a_refusal(magic: bytes, rest: bytes) -> None:
    _survives(magic + rest)


_PATCH = st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8))


@given(
    st.sampled_from(sorted(_FILES)), st.lists(_PATCH, min_size=1, max_size=4), st.floats(0.5, 1.5)
)
@settings(deadline=None, max_examples=500)
def test_damaged_files_cause_nothing_but_a_refusal(
    case: str, patches: list[tuple[float, bytes]], kept: float
) -> None:
    data = bytearray(_file(case))
    for place, patch in patches:
        start = int(place**4 * len(data))  # mostly near the start, where the structure is
        data[start : start + len(patch)] = patch
    _survives(bytes(data[: int(kept * len(data))]))


def test_a_refusal_is_an_error_of_agentguard_and_a_value_error() -> None:
    from agentguard.errors import AgentGuardError

    assert issubclass(MediaRefused, AgentGuardError)
    assert issubclass(MediaRefused, ValueError)
