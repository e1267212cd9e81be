"""Secrets in a text (S7): kinds, by vendors' published key formats, and the search for them.

How a text is read for it, and what follows from a find, is in `scan.py`. Every pattern is linear:
bounded or possessive repeats only, since a hostile model writes the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Literal, NamedTuple

_ALNUM, _WORD, _HEX, _UPPER = "A-Za-z0-9", "A-Za-z0-9_-", "0-9a-f", "0-9A-Z"
_DOTTED = "A-Za-z0-9_.-"

# Least share of class changes (`mixing`) in a key of these characters that was split up. Random
# keys have 0.62, 0.47 (hex), 0.30 (upper case); prose without its spaces has less than 0.3.
_MIXED = {_ALNUM: 0.35, _WORD: 0.35, _DOTTED: 0.2, _HEX: 0.25, _UPPER: 0.05}


class Kind(NamedTuple):
    """One kind of secret.

    Attributes:
        hint: a lower-case string that every match holds; spares the search where it is absent.
        always: least `mixing` of group 1; 0 asks nothing.
        split: the same where the key was pieced together from a text; None: isn't looked for there.
        words: lower-case strings of which every match holds one; they spare the search as well.
    """

    name: str
    hint: str
    pattern: re.Pattern[str]
    always: float = 0.0
    split: float | None = None
    words: tuple[str, ...] = ()


def mixing(text: str) -> float:
    """How often lower case, upper case and digits take turns in the first 40 letters and digits,
    0 to 1; 0 without both letters and digits, which a key has."""
    alnum = [char for char in text if char.isalnum()][:40]
    kinds = ["0" if char.isdigit() else "A" if char.isupper() else "a" for char in alnum]
    if "0" not in kinds or len(set(kinds)) < 2:
        return 0.0
    return sum(one != two for one, two in pairwise(kinds)) / len(kinds)


# (kind, prefixes, characters of the rest, fewest of them)
_PREFIXES = (
    ("OpenAI API key", "sk-proj- sk-svcacct- sk-admin- sk-None-", _WORD, 20),
    ("Anthropic API key", "sk-ant-", _WORD, 20),
    ("API key", "sk-or-v1- sk- xai- pplx- gsk_ ntn_ lin_api_ fal_ luma-", _ALNUM, 32),
    ("API key", "sk_ key_ dop_v1_ doo_v1_ shpat_ shpca_ shppa_ shpss_ dapi", _HEX, 32),
    ("API key", "dckr_pat_ hvs. hvb. figd_ sntrys_ AKCp", _WORD, 24),
    ("AWS access key", "AKIA ABIA ACCA ASIA", _UPPER, 16),
    ("GitHub token", "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", _WORD, 30),
    ("GitLab token", "glpat- gldt- glrt- glptt- gloas- glsoat- glcbt- glft- GR1348941", _WORD, 20),
    ("Google API key", "AIza", _WORD, 35),
    ("Google OAuth secret", "ya29. GOCSPX-", _WORD, 20),
    ("Hugging Face token", "hf_ api_org_", _ALNUM, 30),
    ("Replicate token", "r8_", _ALNUM, 30),
    ("Slack token", "xoxa- xoxb- xoxe- xoxo- xoxp- xoxr- xoxs- xapp- xoxe.", _DOTTED, 16),
    ("Square OAuth secret", "sq0csp-", _WORD, 43),
    ("Stripe key", "sk_live_ rk_live_ sk_test_ rk_test_ whsec_", _ALNUM, 16),
    ("JSON Web Token", "eyJhbGciOi eyJ0eXAiOi eyJraWQiOi", _WORD, 20),
    ("npm token", "npm_", _ALNUM, 30),
    ("PyPI token", "pypi-AgE", _WORD, 50),
    ("SendGrid API key", "SG.", _DOTTED, 60),
    ("Mailgun API key", "key-", _HEX, 32),
    ("Twilio key", "SK AC", _HEX, 32),
    ("age secret key", "AGE-SECRET-KEY-1", _UPPER, 40),
)

# Parts of words: "ASIA TOUR 12 JUNE 14 JULY", "ARABIA 2025" would be pieced together to a key.
_WORDS = ("ABIA", "ACCA", "ASIA")

_AWS_SECRET = r"[\s\S]{0,80}?(?<![A-Za-z0-9/+])([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+])"
_NAMED = (
    r"(?i:passw(?:or)?d|passphrase|pwd|(?:api|secret|private|account)[ _-]?key|client[ _-]?secret|"
    r"(?:access|auth|bearer|refresh|api)[ _-]?token)[\"'`]?\s?(?::=|=>|[:=]|\bis\b)\s?[\"'`]?"
)

_NAMES = ("key", "pw", "pass", "secret", "token")

_SHAPES = (
    Kind("OpenAI API key", "t3blbkfj", re.compile(r"([\w-]{10,200}T3BlbkFJ[\w-]{10,200})"), 0, 0.3),
    Kind(
        "JSON Web Token",
        "eyj",
        re.compile(r"(eyJ[\w-]{8,2000}+)\.[\w-]{8,8000}+(?:\.[\w.-]*+)?", re.ASCII),
        0,
        0.35,
    ),
    Kind(
        "private key",  # to its END line, else to the end of the text
        "private",
        re.compile(
            r"--\s?BEGIN\s?[A-Z0-9 ]{0,40}PRIVATE\s?KEY(?:[^-]|-(?!----END))*+"
            r"(?:-----END[A-Z0-9 ]{0,40}-{0,5})?"
        ),
        0,
        0.0,
    ),
    *(
        Kind("AWS secret key", hint, re.compile(lead + _AWS_SECRET), 0.3)
        for lead, hint in (
            ("(?i:aws)", "aws"),
            ("(?i:secret.?access.?key)", "secret"),
            ("AKIA[0-9A-Z]{16}", "akia"),
            ("ASIA[0-9A-Z]{16}", "asia"),
        )
    ),
    Kind(
        "Azure key",
        "key",
        re.compile(r"(?i:AccountKey|SharedAccessKey)\s?=\s?([A-Za-z0-9+/]{40,}={0,2})"),
        0,
        0.3,
    ),
    Kind(
        "signed URL",
        "sig",
        re.compile(r"(?i:(?<![a-z])sig|X-(?:Amz|Goog)-Signature)=([A-Za-z0-9%+/=_-]{32,})"),
        0,
        0.25,
    ),
    Kind(
        "webhook URL",
        "hooks",
        re.compile(r"(?:hooks\.slack\.com/services|discord(?:app)?\.com/api/webhooks)/[\w/-]{20,}"),
        0,
        0.0,
    ),
    Kind("password in a URL", "://", re.compile(r"://[^\s:/@?#]{0,128}+:[^\s/]{1,256}@")),
    Kind("Mailgun API key", "-", re.compile(r"[0-9a-f]{32}-[0-9a-f]{8}-[0-9a-f]{8}")),
    Kind("bearer token", "bearer", re.compile(r"(?i:bearer)\s([A-Za-z0-9._~+/=-]{20,})"), 0.2),
    Kind("named secret", "", re.compile(_NAMED + r"([^\s\"'`,;]{8,200})"), 0.01, None, _NAMES),
)


def _prefixed() -> tuple[Kind, ...]:
    kinds = []
    for name, prefixes, tail, least in _PREFIXES:
        for prefix in prefixes.split():
            lead = prefix if prefix.isalnum() else f"(?i:{re.escape(prefix)})"
            split = None if prefix in _WORDS else _MIXED[tail]
            pattern = re.compile(f"{lead}([{tail}]{{{least},}})")
            kinds.append(Kind(name, prefix.lower(), pattern, 0.0, split))
    return tuple(kinds)


def _bared() -> tuple[Kind, ...]:
    """The prefixed kinds whose prefix is distinctive even without its punctuation."""
    kinds = []
    for name, prefixes, tail, least in _PREFIXES:
        for prefix in prefixes.split():
            bare = "".join(filter(str.isalnum, prefix))
            if len(bare) >= 4 and prefix not in _WORDS:
                chars = _ALNUM if tail.startswith(_ALNUM) else tail
                pattern = re.compile(f"{bare}([{chars}]{{{min(least, 16)},}})")
                kinds.append(Kind(name, bare.lower(), pattern, 0.0, _MIXED[chars]))
    return tuple(kinds)


def _assigned(names: str, value: str) -> re.Pattern[str]:
    """A value behind a name, as settings, JSON and Ruby write it: `name = v`, `["name"] => "v"`."""
    between = r"[\"']?\]?(?: ?(?::=|=>|::|[:=]) ?| )"
    return re.compile(rf"(?i)(?<!\w)\[?[\"']?(?:{names}){between}[\"']?{value}[\"']?")


_KEY = r"(?:api)?[_-]?(?:key|pwd|password|pass|token)"
_IBM = r"(?:(?:ibm[_-]?)?cloud[_-]?iam|ibm[_-]?(?:cloud|iam)|ibm|iam|cloud)?[_-]?"

_KINDS = (*_prefixed(), *_SHAPES)  # looked for in each reading of a text
_BARE_KINDS = _bared()  # looked for in a text without its punctuation
_PLAIN_KINDS = (  # only where they stand as they are: short, or told by the name in front of them
    Kind("Cloudant credential", "", _assigned(rf"(?:cloudant|clou|cl)[_-]?(?:{_KEY}|(?:api)?pw)",
         r"(?:[0-9a-f]{64}|[a-z]{24})"), words=_NAMES),
    Kind("Discord bot token", ".", re.compile(r"[MNO][\w-]{23,25}\.[\w-]{6}\.[\w-]{27}", re.ASCII)),
    Kind("GitLab token", "glimt-", re.compile(r"glimt-[\w-]{25}(?!\w)", re.ASCII)),
    Kind("GitLab token", "glagent-", re.compile(r"glagent-[\w-]{50}", re.ASCII)),
    Kind("IBM Cloud key", "", _assigned(_IBM + _KEY, r"[a-z0-9_-]{44}(?![a-z0-9_-])"),
         words=_NAMES),
    Kind("IBM Cloud key", "key", _assigned(
        r"(?:(?:ibm)?[_-]?cos[_-]?(?:hmac)?)?[_-]?secret[_-]?(?:access)?[_-]?key",
        r"[0-9a-f]{48}(?![0-9a-f])")),
    Kind("Mailchimp API key", "-us", re.compile(r"[0-9a-z]{32}-us[0-9]{1,2}")),
    Kind("private key", "private key", re.compile(
        r"BEGIN (?:(?:DSA|EC|OPENSSH|PGP|RSA|SSH2 ENCRYPTED) )?PRIVATE KEY")),
    Kind("private key", "putty-user-key-file-", re.compile(r"PuTTY-User-Key-File-[23]")),
    Kind("SoftLayer credential", "", _assigned(r"(?:softlayer|sl)[_-]?" + _KEY, r"[a-z0-9]{64}"),
         words=_NAMES),
    Kind("SoftLayer credential", "api.softlayer.com/soap/v3", re.compile(
        r"(?i)api\.softlayer\.com/soap/v3(?:\.1)?/[a-z0-9]{64}")),
    Kind("Telegram bot token", ":", re.compile(r"\d{8,10}:[\w-]{35}", re.ASCII)),
)  # fmt: skip
_LIKELY = 4  # characters that a kind's matches begin with; data hold shorter ones by accident

How = Literal["whole", "reversed", "joined", "bare", "data"]
"""How a text was read: as it stands, backwards, without its white space, without its punctuation,
or as encoded data."""


def secrets_in(text: str, how: How) -> Iterator[tuple[int, int, str]]:
    """Start, end and kind of every secret in a text.

    Args:
        how: how the text was read: not every kind is looked for in each reading.
    """
    lowered = text.lower()
    net = _net(how)
    if not net.hints.search(lowered):
        return
    for kind, least in net.kinds:
        if kind.hint not in lowered:
            continue
        if kind.words and not any(word in lowered for word in kind.words):
            continue
        for match in kind.pattern.finditer(text):
            if not least or mixing(match[1]) >= least:
                yield *match.span(), kind.name


class _Net(NamedTuple):
    """What one reading of a text is searched for.

    Attributes:
        hints: finds a hint of one of the kinds, or a word of one without; short texts hold none.
        kinds: each with its least `mixing`.
    """

    hints: re.Pattern[str]
    kinds: tuple[tuple[Kind, float], ...]


@cache
def _net(how: How) -> _Net:
    kinds: list[tuple[Kind, float]]
    match how:
        case "whole":
            kinds = [(kind, kind.always) for kind in (*_KINDS, *_PLAIN_KINDS)]
        case "reversed":
            kinds = [(kind, kind.always) for kind in _KINDS]
        case "joined":
            kinds = [(kind, kind.split) for kind in _KINDS if kind.split is not None]
        case "data":
            loose = ("AWS secret key", "named secret")
            exact = (kind for kind in _KINDS if kind.name not in loose)
            kinds = [(kind, kind.always) for kind in exact if len(kind.hint) >= _LIKELY]
        case "bare":
            kinds = [(kind, kind.split) for kind in _BARE_KINDS if kind.split is not None]
    hints = {hint for kind, _ in kinds for hint in ([kind.hint] if kind.hint else kind.words)}
    return _Net(re.compile("|".join(sorted(map(re.escape, hints)))), tuple(kinds))
