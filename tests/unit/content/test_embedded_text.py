"""The words in a media file are judged as a caption in a call is (S7), and shown (I7)."""

from __future__ import annotations

import base64
import io
import struct
import tempfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from agentguard.content.formats.identify import Format, Limits, MediaRefused, inspect, read_text
from agentguard.content.text.scan import without_data
from tests.support.media_files import HEIGHT, WIDTH, box, chunk, media, picture

_LIMITS = Limits(max_bytes=50_000_000)
_KEY = b"AKIAIOSFODNN7EXAMPLE"
_WORDS = b"aws key " + _KEY
_PERSON = b"ask jane.doe@acme.example about it"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32


def _inspect(data: bytes) -> Format:
    return inspect(io.BytesIO(data), limits=_LIMITS)


def _text(data: bytes) -> str:
    return read_text(io.BytesIO(data)).text


@cache
def _png() -> bytes:
    return picture("PNG")


def _in_png(kind: bytes, body: bytes) -> bytes:
    return _png()[:33] + chunk(kind, body) + _png()[33:]  # behind IHDR


@cache
def _jpeg() -> bytes:
    return picture("JPEG")


def _in_jpeg(marker: int, *bodies: bytes) -> bytes:
    parts = [struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for body in bodies]
    return _jpeg()[:2] + b"".join(parts) + _jpeg()[2:]


def _exif(tag: int, value: bytes, kind: int = 7, *, next_: bytes = b"") -> bytes:
    """An Exif block of one tag."""
    entry = struct.pack("<HHLL", tag, kind, len(value), 26)
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + b"\0\0\0\0" + value + next_


def _utf16(words: bytes, form: str) -> bytes:
    return words.decode().encode(form)


def _gif(label: bytes, *blocks: bytes) -> bytes:
    """A GIF with an extension; a text stands in blocks of at most 255 bytes."""
    data = picture("GIF")
    start = 13 + (3 << (data[10] & 7) + 1)  # behind the palette
    pieces = [block[at : at + 255] for block in blocks for at in range(0, len(block), 255)]
    body = b"".join(bytes([len(piece)]) + piece for piece in pieces)
    return data[:start] + b"!" + label + body + b"\0" + data[start:]


def _gif_xmp(words: bytes) -> bytes:
    """XMP stands in a GIF as it is; behind it, 256 bytes lead any reader of blocks to a zero."""
    data = _gif(b"\xff", b"XMP DataXMP", b"x")
    return data.replace(b"\x01x\0", words + b"\x01" + bytes(range(255, -1, -1)) + b"\0", 1)


def _riff(data: bytes, kind: bytes, body: bytes) -> bytes:
    whole = data[8:] + kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
    return b"RIFF" + struct.pack("<I", len(whole)) + whole


@cache
def _webp() -> bytes:
    return picture("WEBP", "RGBA", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0")


@cache
def _sound(form: str, codec: str) -> bytes:
    return media(form, None, codec)


@cache
def _film(form: str) -> bytes:
    return media(form, "libx264", "aac")


def _noted(form: str, video: str | None, audio: str | None, words: bytes) -> bytes:
    """A file whose container says something, as ffmpeg writes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "media")
        with av.open(str(path), "w", format=form) as container:
            container.metadata["comment"] = words.decode("latin-1")
            if video:
                stream: Any = container.add_stream(video, rate=24)
                stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
                frame = av.VideoFrame.from_ndarray(
                    np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8), format="rgb24"
                )
                container.mux(stream.encode(frame))
                container.mux(stream.encode())
            if audio:
                sound: Any = container.add_stream(audio, rate=48_000)
                packed = sound.format.is_packed
                shape = (1, 9_600) if packed else (sound.layout.nb_channels, 4_800)
                kind = {"s16": "i2", "s16p": "i2", "fltp": "f4", "flt": "f4"}[sound.format.name]
                silence = np.zeros(shape, dtype=kind)
                heard = av.AudioFrame.from_ndarray(
                    silence, format=sound.format.name, layout=sound.layout.name
                )
                heard.rate = 48_000
                container.mux(sound.encode(heard))
                container.mux(sound.encode())
        return path.read_bytes()


def _subtitled(words: bytes) -> bytes:
    """A Matroska film with a subtitle track."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "media")
        with av.open(str(path), "w", format="matroska") as container:
            stream = container.add_stream("libx264", rate=24)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            titles = container.add_stream("ass")
            frame = av.VideoFrame.from_ndarray(
                np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8), format="rgb24"
            )
            container.mux(stream.encode(frame))
            packet = av.Packet(words)
            packet.stream, packet.pts, packet.dts = titles, 0, 0
            container.mux(packet)
            container.mux(stream.encode())
        return path.read_bytes()


def _mov_text(words: bytes) -> bytes:
    """A film whose sound track says that it is a text track: its samples are the words."""
    data = bytearray(media("mov", "mpeg4", "pcm_s16le"))
    start = data.index(b"soun", data.index(b"mdia", data.index(b"smhd") - 600))
    data[start : start + 4] = b"text"
    mdat = data.index(b"mdat")
    silence = data.index(b"\0" * 60_000, mdat) + 100
    data[silence : silence + len(words)] = words
    return bytes(data)


def _id3(data: bytes, frame: bytes, body: bytes, *, flags: int = 0) -> bytes:
    """An MP3 with a tag of one frame."""
    sized = frame + struct.pack(">I", len(body)) + b"\0\0" + body + b"\0" * 20
    length = bytes(len(sized) >> shift & 0x7F for shift in (21, 14, 7, 0))
    tag = data[data.index(b"\xff\xfb") :] if data[:3] == b"ID3" else data
    return b"ID3\x03\0" + bytes([flags]) + length + sized + tag


def _flac(kind: int, body: bytes) -> bytes:
    data = _sound("flac", "flac")
    return data[:42] + bytes([kind]) + len(body).to_bytes(3, "big") + body + data[42:]


def _matroska(ident: bytes, body: bytes) -> bytes:
    """A film with one more element at the end of its segment."""
    data = _film("matroska")
    start = data.index(b"\x18\x53\x80\x67") + 4
    assert data[start] == 1
    length = int.from_bytes(data[start + 1 : start + 8], "big")
    more = ident + (1 << 28 | len(body)).to_bytes(4, "big") + body
    size = (length + len(more)).to_bytes(7, "big")
    return data[: start + 1] + size + data[start + 8 :] + more


_PLACES: dict[str, Callable[[bytes], bytes]] = {
    "png tEXt": lambda words: _in_png(b"tEXt", b"Comment\0" + words),
    "png zTXt": lambda words: _in_png(b"zTXt", b"Comment\0\0" + zlib.compress(words)),
    "png iTXt": lambda words: _in_png(b"iTXt", b"prompt\0\0\0\0\0" + words),
    "png iTXt packed": lambda words: _in_png(
        b"iTXt", b"prompt\0\x01\0en\0Prompt\0" + zlib.compress(words)
    ),
    "png iTXt language": lambda words: _in_png(
        b"iTXt", b"a\0\x01\0" + words + b"\0\0" + zlib.compress(b"x")
    ),
    "png behind a packed text": lambda words: _in_png(
        b"zTXt", b"c\0\0" + zlib.compress(b"x") + words
    ),
    "png profile": lambda words: _in_png(b"iCCP", b"sRGB\0\0" + zlib.compress(words)),
    "png private chunk": lambda words: _in_png(b"prVt", words),
    "png raw profile": lambda words: _in_png(
        b"tEXt", b"Raw profile type iptc\0\niptc\n    %d\n" % len(words) + _hex_lines(words)
    ),
    "png raw profile packed": lambda words: _in_png(
        b"zTXt",
        b"Raw profile type APP1\0\0"
        + zlib.compress(b"\ngeneric profile\n    %d\n" % len(words) + _hex_lines(words)),
    ),
    "png exif": lambda words: _in_png(b"eXIf", _exif(0x10E, words)[6:]),
    "jpeg comment": lambda words: _in_jpeg(0xFE, words),
    "jpeg exif": lambda words: _in_jpeg(0xE1, _exif(0x10E, words)),
    "jpeg exif little": lambda words: _in_jpeg(0xE1, _exif(0x9C9C, _utf16(words, "utf-16-le"))),
    "jpeg exif big": lambda words: _in_jpeg(0xE1, _exif(0x9286, _utf16(words, "utf-16-be"))),
    "jpeg iptc": lambda words: _in_jpeg(0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + words),
    "jpeg xmp": lambda words: _in_jpeg(0xE1, _XMP + b"<x:xmpmeta>" + words + b"</x:xmpmeta>"),
    "jpeg xmp in two segments": lambda words: _in_jpeg(
        0xE1, *(_EXTENSION + b"\0" * 8 + half for half in (words[:-10], words[-10:]))
    ),
    "jpeg photoshop in two segments": lambda words: _in_jpeg(
        0xED, *(b"Photoshop 3.0\0" + half for half in (words[:-10], words[-10:]))
    ),
    "jpeg two comments": lambda words: _in_jpeg(0xFE, words[:-10], words[-10:]),
    "jpeg unknown segment": lambda words: _in_jpeg(0xEA, words),
    "jpeg thumbnail": lambda words: _in_jpeg(0xE1, _exif(0x1, b"x", next_=_in_jpeg(0xFE, words))),
    "gif comment": lambda words: _gif(b"\xfe", words),
    "gif words": lambda words: _gif(b"\x01", b"\0" * 12, words),
    "gif application": lambda words: _gif(b"\xff", b"NETSCAPE2.0", words),
    "gif xmp": _gif_xmp,
    "webp exif": lambda words: _riff(_webp(), b"EXIF", words),
    "webp xmp": lambda words: _riff(_webp(), b"XMP ", words),
    "wav info": lambda words: _riff(_sound("wav", "pcm_s16le"), b"LIST", b"INFOICMT" + words),
    "wav unknown chunk": lambda words: _riff(_sound("wav", "pcm_s16le"), b"iXML", words),
    "wav id3": lambda words: _riff(_sound("wav", "pcm_s16le"), b"id3 ", words),
    "mp3 comment": lambda words: _id3(_sound("mp3", "libmp3lame"), b"COMM", b"\0eng\0" + words),
    "mp3 utf-16": lambda words: _id3(
        _sound("mp3", "libmp3lame"), b"TXXX", b"\x01" + words.decode().encode("utf-16")
    ),
    "mp3 unsynchronised": lambda words: _id3(
        _sound("mp3", "libmp3lame"),
        b"TXXX",
        b"\x01" + words.decode().encode("utf-16").replace(b"\xff", b"\xff\0"),
        flags=0x80,
    ),
    "mp3 private frame": lambda words: _id3(_sound("mp3", "libmp3lame"), b"PRIV", words),
    "mp3 behind its frames": lambda words: _id3(_sound("mp3", "libmp3lame"), b"\0\0\0\0", words),
    "flac comment": lambda words: _flac(4, words),
    "flac padding": lambda words: _flac(1, words),
    "flac application": lambda words: _flac(2, words),
    "ogg comment": lambda words: _noted("ogg", None, "libopus", words),
    "mp4 comment": lambda words: _noted("mp4", "libx264", None, words),
    "mov comment": lambda words: _noted("mov", "mpeg4", None, words),
    "mp4 free box": lambda words: _film("mp4") + box(b"free", words),
    "mp4 uuid box": lambda words: _film("mp4") + box(b"uuid", b"\x11" * 16 + words),
    "mp4 notes": lambda words: (
        _film("mp4")
        + box(
            b"meta", bytes(4) + box(b"hdlr", bytes(8) + b"nrtm" + bytes(13)) + box(b"xml ", words)
        )
    ),
    "mp4 data of no track": lambda words: _film("mp4") + box(b"mdat", words),
    "mov text track": _mov_text,
    "mkv comment": lambda words: _noted("matroska", "libx264", None, words),
    "webm comment": lambda words: _noted("webm", None, "libopus", words),
    "mkv void": lambda words: _matroska(b"\xec", words),
    "mkv unknown element": lambda words: _matroska(b"\x1f\xff\xff\xfe", words),
    "mkv subtitles": _subtitled,
    "captions": lambda words: b"1\n00:00:01,000 --> 00:00:02,500\n" + words + b"\n",
    "web captions": lambda words: b"WEBVTT\n\n00:01.000 --> 00:02.000\n" + words + b"\n",
    "text": lambda words: words,
}


@pytest.mark.parametrize("place", _PLACES)
def test_secret_in_a_file_is_refused(place: str) -> None:
    with pytest.raises(MediaRefused, match="holds a secret"):
        _inspect(_PLACES[place](_WORDS))


@pytest.mark.parametrize("place", _PLACES)
def test_secret_behind_padding_is_refused(place: str) -> None:
    padding = b"lorem ipsum dolor sit amet " * 200  # more than a page shows
    with pytest.raises(MediaRefused, match="holds a secret"):
        _inspect(_PLACES[place](padding + _WORDS))


@pytest.mark.parametrize("place", _PLACES)
def test_personal_data_in_a_file_raise_its_class_and_are_shown(place: str) -> None:
    data = _PLACES[place](_PERSON)
    assert _inspect(data).labels == {"personal-data"}
    assert "jane.doe@" in _text(data)
    assert "about it" in _text(data)


@pytest.mark.parametrize("place", _PLACES)
def test_harmless_words_leave_the_class_as_it_is(place: str) -> None:
    data = _PLACES[place](b"Spring is here: 20% off")
    assert _inspect(data).labels == frozenset()
    assert "Spring is" in _text(data)


@pytest.mark.parametrize("encode", [base64.b64encode, lambda data: data.hex().encode()])
def test_words_in_long_encoded_data_are_judged(encode: Callable[[bytes], bytes]) -> None:
    assert _inspect(_in_png(b"prVt", encode(_PERSON * 40))).labels == {"personal-data"}
    for padding in (b"x" * 5_000, encode(_noise(6_000))):
        with pytest.raises(MediaRefused, match="holds a secret"):
            _inspect(_in_png(b"prVt", padding + _KEY + padding))
    with pytest.raises(MediaRefused, match="holds a secret"):
        _inspect(_in_png(b"prVt", encode(_WORDS * 40)))


def test_more_words_than_are_read_make_a_file_unclassified() -> None:
    many = b"".join(b"word %d " % number for number in range(40_000))
    assert _inspect(_in_png(b"prVt", many)).labels == {"unclassified"}
    assert _inspect(many).labels == {"unclassified"}


def test_repeated_words_are_read_once() -> None:
    same = b"\0".join([b"the same telemetry"] * 40_000)
    assert _inspect(_in_png(b"prVt", same)).labels == frozenset()
    assert _text(_in_png(b"prVt", same)) == "the same telemetry"


@pytest.mark.parametrize("form", ["utf-8", "latin-1", "utf-16", "utf-16-le", "utf-16-be"])
def test_words_are_read_in_every_encoding(form: str) -> None:
    words = "Frühling für Émile, à bientôt"
    assert words in _text(_in_png(b"prVt", b"\0\0" + words.encode(form) + b"\0\0"))


@pytest.mark.parametrize("words", ["Весна уже здесь", "春天来了大家快来看看", "Άνοιξη είναι εδώ"])
def test_other_scripts_are_read_with_a_byte_order_mark_or_in_utf_8(words: str) -> None:
    for data in (words.encode(), words.encode("utf-16")):
        assert words in _text(_in_png(b"prVt", b"\0\0" + data + b"\0\0"))


@pytest.mark.parametrize(
    "before", [b"\xff\xfe", b"\xfe\xff", b"\0\0\0a", b"\xe9", b"seven b\0", b"eight by"]
)
def test_bytes_before_a_secret_do_not_hide_it(before: bytes) -> None:
    for words in (_WORDS, _utf16(_WORDS, "utf-16-le"), _utf16(_WORDS, "utf-16-be")):
        with pytest.raises(MediaRefused, match="holds a secret"):
            _inspect(_in_png(b"prVt", before + words))


def test_secret_in_a_file_says_where_it_stands_and_what_to_do() -> None:
    said = "line 3 of its text holds a secret .AWS access key.; take it out, and bring it in again"
    with pytest.raises(MediaRefused, match=said) as refused:
        _inspect(_PLACES["captions"](_WORDS))
    assert _KEY.decode() not in str(refused.value)
    with pytest.raises(MediaRefused, match="save it without metadata, and bring it in again"):
        _inspect(_in_jpeg(0xFE, _WORDS))


def test_table_that_points_at_words_does_not_hide_them() -> None:
    """A sample table of an MP4 may name any place in the file."""
    data = bytearray(_film("mp4") + box(b"free", _WORDS))
    table = data.index(b"stco")
    data[table + 12 : table + 16] = struct.pack(">I", data.index(_WORDS))
    with pytest.raises(MediaRefused, match="holds a secret"):
        _inspect(bytes(data))


def test_words_of_a_file_that_is_refused_today_are_still_shown() -> None:
    assert "aws key" in _text(_PLACES["png tEXt"](_WORDS))
    assert "aws key" in _text(_jpeg() + _WORDS)


# --- files that people have -----------------------------------------------------------------------


def _thumbnail() -> bytes:
    noise = np.random.default_rng(7).integers(0, 255, (160, 240, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=90)
    return file.getvalue()


def _photoshop() -> bytes:
    """What Photoshop writes: XMP with history and a thumbnail, its own resources, a profile."""
    small = base64.b64encode(_thumbnail()).decode()
    wrapped = "&#xA;".join(small[at : at + 76] for at in range(0, len(small), 76))
    steps = "".join(
        '<rdf:li stEvt:action="saved" stEvt:instanceID="xmp.iid:F77F1174072068118083'
        f'8A{number:06X}" stEvt:when="2024-05-02T15:44:{number:02}+02:00"'
        ' stEvt:softwareAgent="Adobe Photoshop 25.6 (Macintosh)" stEvt:changed="/"/>'
        for number in range(40)
    )
    xmp = (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Adobe XMP Core 9.1-c002"><rdf:RDF'
        ' xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description'
        ' xmpMM:DocumentID="adobe:docid:photoshop:6a4b1d62-5f1b-4c4e-9f0e-8d6f0c9be2b1"'
        f' photoshop:ColorMode="3"><xmpGImg:image>{wrapped}</xmpGImg:image>{steps}'
        "</rdf:Description></rdf:RDF></x:xmpmeta>" + " " * 2_000 + '<?xpacket end="w"?>'
    ).encode()
    halves = (xmp[at : at + 60_000] for at in range(0, len(xmp), 60_000))
    resources = b"Photoshop 3.0\x008BIM\x04\x0c\0\0" + struct.pack(">I", len(_thumbnail()))
    data = _in_jpeg(0xED, (resources + _thumbnail())[:65_000])
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for body in (b"ICC_PROFILE\0\x01\x01" + profile, *(_XMP + half for half in halves)):
        data = data[:2] + struct.pack(">BBH", 0xFF, 0xE1 if body[:4] == b"http" else 0xE2,
                                      len(body) + 2) + body + data[2:]  # fmt: skip
    return data


def _phone() -> bytes:
    """What a telephone writes: a thumbnail in Exif, and notes that only its maker reads."""
    notes = b"Apple iOS\0\0\x01MM" + np.random.default_rng(3).bytes(1_500)
    exif = _exif(0x927C, notes, next_=_thumbnail())
    return _in_jpeg(0xE1, exif)


def _comfy() -> bytes:
    """What ComfyUI writes: its prompt and its workflow as JSON."""
    about = PngImagePlugin.PngInfo()
    node = (
        '{"3": {"inputs": {"seed": 156680208700286, "steps": 20, "cfg": 8.0, "sampler_name":'
        ' "euler", "model": ["4", 0]}, "class_type": "KSampler"}, "4": {"inputs": {"ckpt_name":'
        ' "v1-5-pruned-emaonly.safetensors"}}, "6": {"inputs": {"text": "a bear in spring"}}}'
    )
    about.add_text("prompt", node)
    about.add_text("workflow", '{"nodes": [' + ", ".join([node] * 8) + "]}", zip=True)
    file = io.BytesIO()
    Image.new("RGB", (64, 48)).save(file, "PNG", pnginfo=about)
    return file.getvalue()


def _noise(count: int) -> bytes:
    return np.random.default_rng(11).bytes(count)


def _escaped(count: int) -> bytes:
    """What diagrams.net writes: packed data as base64, escaped as in a URL."""
    return base64.b64encode(_noise(count)).replace(b"/", b"%2F").replace(b"+", b"%2B")


def _hex_lines(data: bytes) -> bytes:
    digits = data.hex().encode()
    return b"\n".join(digits[at : at + 72] for at in range(0, len(digits), 72)) + b"\n"


_PROFILE = b"Exif\0\0II*\0\x08\0\0\0\0\0" + b"\0\x49\x11\x51\x23\x45" * 400


_REAL: dict[str, Callable[[], bytes]] = {
    "photoshop": _photoshop,
    "telephone": _phone,
    "comfy": _comfy,
    "film": lambda: _film("mp4"),
    "film with its place": lambda: _noted("mov", "mpeg4", None, b"+48.1374+011.5755+519.000/"),
    "webm": lambda: media("webm", "libvpx", "libopus"),
    "mp3": lambda: _sound("mp3", "libmp3lame"),
    "picture with a profile": lambda: picture(
        "PNG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    ),
    "what ImageMagick keeps of Exif": lambda: _in_png(
        b"tEXt", b"Raw profile type exif\0\nexif\n%8d\n" % len(_PROFILE) + _hex_lines(_PROFILE)
    ),
    "a diagram": lambda: _in_png(
        b"zTXt", b"mxfile\0\0" + zlib.compress(b"%3Cdiagram%3E" + _escaped(20_000))
    ),
    "notes of a camera's maker": lambda: _in_jpeg(
        0xE1, _XMP + b'<x hdrp:Makernote="' + base64.b64encode(_noise(30_000)) + b'"/>'
    ),
    "mp3 with a cover": lambda: _id3(
        _sound("mp3", "libmp3lame"), b"APIC", b"\0image/jpeg\0\x03\0" + _thumbnail()
    ),
    "flac with a cover": lambda: _flac(6, b"\0\0\0\x03\0\0\0\x0aimage/jpeg" + _thumbnail()),
    "ogg with a cover": lambda: _noted(
        "ogg", None, "libopus", base64.b64encode(b"\0\0\0\x03\0\0\0\x0aimage/jpeg" + _thumbnail())
    ),
}


@pytest.mark.parametrize("name", _REAL)
def test_what_people_have_stays_accepted_and_keeps_its_class(name: str) -> None:
    data = _REAL[name]()
    assert _inspect(data).labels == frozenset()
    assert len(without_data(_text(data))) < 12_000


def test_cover_is_judged_as_a_picture() -> None:
    huge = bytearray(_thumbnail())
    size = huge.index(b"\xff\xc0") + 5
    huge[size : size + 4] = b"\xff" * 4
    data = _id3(_sound("mp3", "libmp3lame"), b"APIC", b"\0image/jpeg\0\x03\0" + bytes(huge))
    with pytest.raises(MediaRefused, match="65535 x 65535"):
        _inspect(data)


def test_noise_is_not_taken_for_words() -> None:
    labels: set[str] = set()
    for seed in range(20):
        noise = np.random.default_rng(seed).bytes(50_000)
        labels |= _inspect(_in_png(b"prVt", noise)).labels
    assert not labels


def test_samples_of_picture_and_sound_are_no_words() -> None:
    """Only what stands beside them is searched: of 50 MB of film a few hundred bytes."""
    for form in ("mp4", "mov", "matroska"):
        film = _film(form)
        sample = film.index(b"mdat") + 40 if form != "matroska" else len(film) // 2
        words = _text(film[:sample] + b"spring is here" + film[sample + 14 :])
        assert "spring is here" not in words
        assert len(words) < 1_000
