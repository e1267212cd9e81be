"""Captions and plain texts: SRT, WebVTT, or words that no program takes for code or a playlist."""

from __future__ import annotations

import re

from agentguard.content.formats.reader import Cursor, Format

_MAX_CAPTIONS = 4_194_304
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")  # what begins a tag in HTML; `3 < 4` and `<00:01.000>` don't
_COLOUR = r"(?:\"[\w #%,.-]{0,60}\"|'[\w #%,.-]{0,60}'|[\w#%.-]{1,60})"
_CAPTION_TAG = re.compile(  # of SRT and WebVTT, with nothing in it that could be a script
    r"</(?:b|i|u|s|em|strong|font|c|v|ruby|rt|lang|br)>|<(?:b|i|u|s|em|strong|ruby|rt|br) ?/?>|"
    r"<[biu](?:\.[\w-]{1,40}){1,8}>|<(?:c|v|lang)(?:\.[\w-]{1,40}){0,8}(?: [^<>=\r\n]{0,200})?>|"
    rf"<font(?: (?:color|face|size)={_COLOUR}){{0,3}} ?>",
    re.IGNORECASE,
)
_SCRIPT = re.compile(r"javascript:|vbscript:", re.IGNORECASE)
_PROGRAM = re.compile(  # at the start: playlists, PostScript, scripts, pictures written as text
    r"\s*(?:#EXT|ffconcat|\[playlist\]|\[reference\]|v=0\s|rtsptext|%!|#!|push graphic-context|"
    r"viewbox \d|# ?imagemagick|id=imagemagick|P[1-7]\s+(?:#|\d+\s+\d)|/\*[ \t]*XPM|#define\s)",
    re.IGNORECASE,
)
_PLAYLIST_LINE = re.compile(  # on any line: ffmpeg looks for SDP behind the first one, too
    r"(?:\A|[\r\n])[ \t]*(?:c=IN[ \t]+IP|m=\w+[ \t]+[\d/]+[ \t]+(?:RTP|UDP|TCP|DTLS)|#EXTM3U|"
    r"#EXT-X-|(?:ref|file)\d+=\S)",
    re.IGNORECASE,
)
_WEBVTT = re.compile(r"WEBVTT(?:[ \t\r\n]|\Z)")
_SRT = re.compile(r"\s{0,8}\d+[ \t]*\r?\n\d{1,3}:\d\d:\d\d[,.]\d{3} -->")


def captions(cursor: Cursor) -> Format:
    head = cursor.peek(8)
    if not head:
        cursor.refuse("it is empty")
    data = b"".join(cursor.pieces(cursor.size)) if cursor.size <= _MAX_CAPTIONS else b"\0"
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if _CONTROL.search(text):
        cursor.refuse(
            f"unknown format: it begins with {head.hex(' ')}, expected one of PNG, JPEG, GIF, "
            "WebP, MP4, MOV, WebM, Matroska, WAV, MP3, FLAC, Ogg, or captions in UTF-8 (at most "
            f"{_MAX_CAPTIONS} bytes); convert it"
        )
    foreign = any(not _CAPTION_TAG.match(text, tag.start()) for tag in _TAG.finditer(text))
    if foreign or _SCRIPT.search(text):
        cursor.refuse(
            "it is SVG, HTML or XML, which can carry scripts, or has a tag that captions don't"
            " have; render it to PNG, or take out every tag but <b>, <i>, <u>, <font>, <c>, <v>,"
            " <ruby>, <rt>, <lang>"
        )
    if _PROGRAM.match(text) or _PLAYLIST_LINE.search(text):
        cursor.refuse(
            "it is a playlist or a script, which makes a program open other files; render it first"
        )
    if _WEBVTT.match(text):
        return Format(media_type="text/vtt", extension=".vtt")
    if _SRT.match(text):
        return Format(media_type="application/x-subrip", extension=".srt")
    return Format(media_type="text/plain", extension=".txt")
