"""Text that is about to leave: which labels it raises and which secrets it carries (S7).

`scan` is a pure function of the text. The model that wrote it may be hijacked, so a text is read
in several ways: with look-alike and invisible characters folded, unescaped, reversed, without
white space, without punctuation, and with base64 and hex runs decoded twice. It is a net, not a
wall: a cipher of the model's own, or a secret spread over several calls, passes it. What must not
reach a Destination is kept away by that Destination's ceiling.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple
from urllib.parse import unquote

from agentguard.content.text.normalize import INVISIBLE_RUN, Reading
from agentguard.content.text.personal_data import LABELS, personal_data
from agentguard.content.text.secrets import How, mixing, secrets_in
from agentguard.errors import AgentGuardError

MAX_TEXT = 32_768
"""Characters in one text argument; what is longer is refused, so that scanning stays bounded."""


MAX_ACROSS = 4 * MAX_TEXT
"""Characters of all texts of a call."""

_MOST_NUMBERS = 4096


class TextTooLong(AgentGuardError, ValueError):
    """A text is longer than `MAX_TEXT` characters and was not scanned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What one text holds.

    Attributes:
        labels: labels that the text raises: `personal-data`, `payment-card`.
        secrets: kinds of secrets found, sorted, never their values; any one means deny.
        redacted: the text with every finding replaced by its kind; safe to log.
    """

    labels: frozenset[str]
    secrets: tuple[str, ...]
    redacted: str


def scan(text: str) -> Scan:
    """Find personal data, card numbers and secrets in a text.

    Raises:
        TextTooLong: the text is longer than `MAX_TEXT` characters.
    """
    if len(text) > MAX_TEXT:
        raise TextTooLong(
            f"the text is too long to scan: got {len(text)} characters, expected at most "
            f"{MAX_TEXT}; shorten it"
        )
    found = set(_examine(Reading.of(text), depth=2))
    found |= {_Finding(*m.span(), "invisible text", True) for m in INVISIBLE_RUN.finditer(text)}
    secrets = tuple(sorted({finding.name for finding in found if finding.secret}))
    labels = frozenset(LABELS[finding.name] for finding in found if not finding.secret)
    if secrets:  # a key's other half often stands beside it
        spans = (m.span() for m in _TOKEN.finditer(text) if mixing(m[0]) >= 0.3)
        found |= {_Finding(*span, "token", False) for span in spans}
    redacted = _redact(text, found)
    # INVARIANT: a text with a secret in it is never logged, not even with a bug in _redact.
    if secrets and any(rest.secret for rest in _examine(Reading.of(redacted), depth=2)):
        redacted = "[redacted]"
    return Scan(labels=labels, secrets=secrets, redacted=redacted)


def texts_in_numbers(numbers: Iterable[int | float]) -> Iterator[str]:
    """The texts that a run of numbers spells: as character codes, and as the bytes of each.

    Numbers that are no character are left out, so that one between two hides nothing. Give them in
    the order in which they stand; what is spelled is for `scan`.
    """
    whole = [int(number) for number in numbers if number == int(number)][:_MOST_NUMBERS]
    codes = "".join(chr(n) for n in whole if 0 < n < 0x110000 and not 0xD800 <= n < 0xE000)
    spelled = "".join(character for character in codes if character.isprintable())
    yield spelled
    orders: tuple[Literal["big", "little"], ...] = ("big", "little")
    for order in orders:
        packed = b"".join(abs(n).to_bytes((abs(n).bit_length() + 7) // 8, order) for n in whole)
        text = packed.decode("latin-1")
        text = "".join(character for character in text if character.isprintable())
        if text != spelled:
            yield text


def secrets_across(texts: Sequence[str]) -> tuple[str, ...]:
    """The kinds of secrets that several texts hold together, one behind the other.

    Each text by itself is for `scan`. Only what was cut in pieces is looked for here.
    """
    text = Reading.of("".join(texts)[:MAX_ACROSS]).folded()
    joined, bare = text.joined(), text.bare()
    found = [*_secrets(joined, "joined"), *_secrets(bare, "bare")]
    for inner in chain(joined.from_base64(), bare.from_hex()):
        found += (finding for finding in _examine(inner, depth=0) if finding.secret)
    return tuple(sorted({finding.name for finding in found}))


@dataclass(frozen=True, slots=True, kw_only=True)
class LongScan:
    """What a text of any length holds; see `Scan`.

    Attributes:
        line: the first line that holds a secret by itself, counted from 1; None: none does.
    """

    labels: frozenset[str]
    secrets: tuple[str, ...]
    line: int | None


def scan_long(text: str) -> LongScan:
    """Like `scan`, for what stands in a file: in windows that overlap.

    Long runs of base64 or hex are encoded data, such as notes of a camera's maker: they are read
    decoded, and as they are only for the kinds of secrets that such data hold by no accident.
    """
    labels: set[str] = set()
    secrets: set[str] = set()
    plain: list[str] = []
    done = 0
    for run in _DATA.finditer(text):
        if mixing(run[0]) < _MIXED_DATA:
            continue
        data = Reading.of("".join(unquote(run[0].replace("&#xA;", "")).split()))
        secrets |= {finding.name for finding in _secrets(data, "data")}
        decoded = (inner.text for inner in chain(data.from_base64(), data.from_hex()))
        plain += text[done : run.start()], "\n", *decoded
        done = run.end()
    rest = "".join((*plain, text[done:]))
    start = 0
    while start < len(rest):
        found = scan(rest[start : start + MAX_TEXT])
        labels |= found.labels
        secrets |= set(found.secrets)
        if start + MAX_TEXT >= len(rest):
            break
        start += MAX_TEXT - _OVERLAP
        space = rest.find(" ", start, start + _OVERLAP // 2)
        start = space if space >= 0 else start  # a number cut in two may look like another one
    lines = enumerate(text.split("\n"), start=1) if secrets else ()
    line = next((number for number, one in lines if scan(one[:MAX_TEXT]).secrets), None)
    return LongScan(labels=frozenset(labels), secrets=tuple(sorted(secrets)), line=line)


def without_data(text: str) -> str:
    """A text for people: long runs of encoded data, which push words out of sight, are cut."""

    def cut(run: re.Match[str]) -> str:
        if mixing(run[0]) < _MIXED_DATA:
            return run[0]
        return f"{run[0][:40]}[and {len(run[0]) - 40} more characters of encoded data]"

    return _DATA.sub(cut, text)


_OVERLAP = 4_096
_DATA = re.compile(
    r"[A-Za-z0-9+/=_%-]{512,}|(?:[A-Za-z0-9+/=_%-]{60,}(?:\s{1,3}|&#xA;)){6,}[A-Za-z0-9+/=_%-]*"
)
_MIXED_DATA = 0.3


class _Finding(NamedTuple):
    start: int
    end: int
    name: str
    secret: bool


def _secrets(text: Reading, how: How) -> Iterator[_Finding]:
    for start, end, kind in secrets_in(text.text, how):
        yield _Finding(*text.stretch(start, end), kind, True)


_TOKEN = re.compile(r"[A-Za-z0-9+/_=-]{12,}")


def _redact(text: str, found: Iterable[_Finding]) -> str:
    merged: list[_Finding] = []
    for finding in sorted(found):
        if merged and finding.start < merged[-1].end:
            last = merged.pop()
            named = finding if finding.secret > last.secret else last
            finding = named._replace(start=last.start, end=max(last.end, finding.end))
        merged.append(finding)
    pieces: list[str] = []
    done = 0
    for start, end, name, secret in merged:
        pieces += text[done:start], f"[secret: {name}]" if secret else f"[{name}]"
        done = end
    pieces.append(text[done:])
    return "".join(pieces).encode("utf-8", "replace").decode("utf-8")  # surrogates break log files


def _examine(text: Reading, *, depth: int) -> Iterator[_Finding]:
    folded = text.folded()
    unescaped = folded.unescaped()
    for seen in (folded,) if unescaped is folded else (folded, unescaped):
        for start, end, name in personal_data(seen.text):
            yield _Finding(*seen.stretch(start, end), name, False)
        direct = list(_secrets(seen, "whole"))
        yield from direct
        yield from _secrets(seen.reversed(), "reversed")
        joined, bare = seen.joined(), seen.bare()
        pieced: list[_Finding] = []
        if joined is not seen:
            pieced += _secrets(joined, "joined")
        if bare is not seen:
            pieced += _secrets(bare, "bare")
        # A key that stands there in one piece is not followed into the prose behind it.
        whole = {finding.start for finding in direct}
        yield from (finding for finding in pieced if finding.start not in whole)
        if depth:
            wrapped = [each.from_base64() for each in {seen, joined}]
            wrapped += [each.from_hex() for each in {seen, bare}]
            for inner in chain.from_iterable(wrapped):
                yield from _examine(inner, depth=depth - 1)


_SCHEMES = (  # whatever a browser, fsspec, ffmpeg or ImageMagick would open
    "abfss? about adl async az blob blockcache cache cid concatf? crypto data dict fd ffrtmp\\w* "
    "file filecache ftps? gcs gopher gs hdfs hls https? icecast ipfs ipns jar javascript ldaps? "
    "magnet mailto md5 memory mms\\w? msl mvg pipe reference rtmp\\w* rtp rtsp s3 scp sftp "
    "simplecache smb srtp? ssh subfile tcp tee tel tls udp unix urn vbscript view-source wss? zip"
)
_START = r"(?:^|[\s\"'`=,;|&@(<\[{])"
_LOCATORS = tuple(
    (reason, re.compile(pattern, re.IGNORECASE))
    for reason, pattern in (
        ("control characters", r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"),
        ("a URL", r"[a-z][a-z0-9+.-]{0,30}:/|//"),
        ("a URL", rf"(?<![a-z0-9])(?:{_SCHEMES.replace(' ', '|')})[:,]\S"),
        ("a path (backslash)", r"\\"),
        ("a path with a drive letter", r"(?<!\w)[a-z]:[a-z_.]"),
        ("an absolute path", rf"{_START}/\S|^/$"),
        ("a path in a home folder", rf"{_START}~(?:[a-z/]|$)"),
        ("a path with '..'", r"(?<!\.)\.\.(?!\.)"),
        ("a path in the working folder", rf"{_START}\.[/a-z_]"),
        ("a path in folders", r"(?<!\S)(?![\d/.]+(?!\S))\S*[^\s/]/[^\s/]+/|\S/$"),
        ("an environment variable", r"\$\{|\$\(|\$[a-z_]{2}|%[a-z_]{2,}%"),
        ("a file or host name", r"[\w-]\.(?:[^\W\d_]{2}|xn--|(?:mp\d|m4\w|m2ts|7z|jp2|3g[p2])\b)"),
        ("a host name", r"\blocalhost\b|(?<![\w.-])[a-z][\w.-]{0,252}:\d{4,5}(?!\d)"),
        ("an IP address", r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])|\b0x[0-9a-f]{8}\b"),
        ("an IP address", r"::|(?:[0-9a-f]{1,4}:){7}"),
        ("a long run of base64 or hex", r"[a-z0-9+/_-]{64}|(?:[a-z0-9+/_-]{16,100}={0,2}\s){3}"),
    )
)


def looks_like_locator(value: str) -> str | None:
    """Why a `plain` argument may not hold this value; None if it may.

    A plain argument is a bounded word (`16:9`, `top-left`, `and/or`, `v1.2`), so that a tool can't
    be made to open what the model wrote (I3). Not for captions and prompts, which name web sites.

    Returns:
        The reason as a noun phrase ("a URL"), which does not repeat the value.
    """
    if len(value) > MAX_TEXT:
        return f"more than {MAX_TEXT} characters"
    folded = Reading.of(value).folded().text
    for form in dict.fromkeys((value, folded, unquote(unquote(folded)))):
        for reason, pattern in _LOCATORS:
            if pattern.search(form):
                return reason
    return None
