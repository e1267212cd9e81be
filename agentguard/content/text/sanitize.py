"""A tool's text as the model and people may see it."""

from __future__ import annotations

import re

from agentguard.content.text.scan import scan

_MAX_SHOWN = 8_000
MAX_KEPT = 4 * _MAX_SHOWN
"""Characters of one text that a tool may write into the state."""

_ESCAPE = re.compile(  # terminal sequences: a person reads these texts in a terminal, too
    r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}[@-~]|\x1b\][^\x07\x1b\n]{0,512}(?:\x07|\x1b\\)?|\x1b."
)
_INVISIBLE = re.compile(  # control, direction and tag characters, lone surrogates; joiners stay
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff\ud800-\udfff]"
)
_ENCODED = re.compile(  # media written as base64 or hex would pass the chat model's ceiling
    r"data:[\w/+.-]{1,80};base64,[A-Za-z0-9+/_=-]*|[A-Za-z0-9+/_=-]{200,}"
    r"|(?:[A-Za-z0-9+/_=-]{40,}[^A-Za-z0-9+/_=-]{1,8}){4,}[A-Za-z0-9+/_=-]*"
)
_PIECES = re.compile(r"[A-Za-z0-9+/_=-]++(?:[^A-Za-z0-9+/_=-]{1,8}+[A-Za-z0-9+/_=-]++)++")
_PIECE = re.compile(r"[A-Za-z0-9+/_=-]+")
_WINDOW = 200  # characters of encoded media; they give a picture away
_TURNS = re.compile(r"[a-z]+|[A-Z]+|[0-9]+")
_FEWEST_TURNS = 0.4  # of base64 0.6; of words, sizes and ids 0.3 at most
_HEX = re.compile(r"[0-9a-f]+|[0-9A-F]+")
_COLON = r"(?::|%(?:25)*3a|\\+(?:u00|x)3a|&#0*58;?|&#x0*3a;?|&colon;)"
_SLASH = r"(?:\\*/|%(?:25)*2f|\\+(?:u00|x)2f|&#0*47;?|&#x0*2f;?|&sol;|\\)"
_HOST = r"(?:\[[0-9a-f:.]+\]|[\w-]+(?:[.:][\w-]+)+)"
_URL = re.compile(  # what opens a vendor's result without any key; never a model's to read
    # A scheme is tried from its first letter only, or a long word would cost its square.
    rf"(?:(?<![\w+.-])[\w+.-]+{_COLON}{_SLASH}{{2}}|(?<![\w/\\]){_SLASH}{{2}}{_HOST})"
    r"[^\s\"'<>`]*",
    re.IGNORECASE,
)
_LONGEST_WORD = 512
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_PATH = re.compile(r"(?<![\w:/])/(?:[^\s/\"'`]+/)+[^\s/\"'`]*")


def without_urls(text: str) -> str:
    """A text without URLs, of any scheme or none, and in any of their spellings.

    What nobody sees goes first: it could hide a URL that `clean` would then put together.
    """
    return _URL.sub("[url]", _visible(text))


def without_paths(text: str) -> str:
    """A text without absolute paths of this machine."""
    return _PATH.sub("[file]", text)


def private_left_out(text: str) -> str:
    """What a failure says, without URLs and paths: a person looks into the tool, not a model."""
    return without_paths(without_urls(text))


def clean(text: str, *, limit: int = _MAX_SHOWN) -> str:
    """A tool's text as the model and people may see it.

    Capped at `limit` characters, between two words, so that no secret is cut in half; without
    secrets (S16), without media written as text, and without characters that a terminal or a
    model reads unseen.
    """
    seen = _cut(text, MAX_KEPT).replace("\u2028", "\n").replace("\u2029", "\n")
    seen = _cut(_without_media(_visible(seen)), limit)
    if not seen:
        return ""
    scanned = scan(seen)
    return scanned.redacted if scanned.secrets else seen


def _without_media(text: str) -> str:
    """A text without base64 and hex, however they are cut into lines or words."""
    return _PIECES.sub(_without_pieces, _ENCODED.sub("[data]", text))


def _without_pieces(match: re.Match[str]) -> str:
    """What is encoded once the separators are gone, judged by each `_WINDOW` characters of it."""
    text = match[0]
    pieces = list(_PIECE.finditer(text))
    joined = "".join(piece[0] for piece in pieces)
    last = len(joined) - _WINDOW
    starts = (*range(0, last, _WINDOW // 2), last) if last >= 0 else ()
    encoded = [start for start in starts if _is_encoded(joined[start : start + _WINDOW])]
    if not encoded:
        return text
    kept: list[str] = []
    done = place = 0
    for piece in pieces:
        begin, place = place, place + len(piece[0])
        if any(begin < start + _WINDOW and start < place for start in encoded):
            if not kept or kept[-1] != "[data]":
                kept += text[done : piece.start()], "[data]"
            done = piece.end()
        elif kept and kept[-1] == "[data]":
            kept.append(text[done : piece.end()])
            done = piece.end()
    return "".join((*kept, text[done:]))


def _is_encoded(window: str) -> bool:
    """How often upper case, lower case and digits take turns: in words they hardly ever do."""
    if _HEX.fullmatch(window):
        return not (window.isdecimal() or window.isalpha())
    turns = _TURNS.findall(window)
    kinds = {turn[0].isdigit() + 2 * turn[0].isupper() for turn in turns}
    return len(kinds) == 3 and len(turns) > _FEWEST_TURNS * len(window)


def _visible(text: str) -> str:
    return _INVISIBLE.sub("", _ESCAPE.sub("", text))


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    kept = max(0, limit - _LONGEST_WORD)
    return text[:kept] + text[kept:limit].rstrip(_PRINTABLE) + "[cut]"
