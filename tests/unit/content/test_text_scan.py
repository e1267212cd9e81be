"""The text scan (S7): secrets, personal data and cards are found as a hijacked model would hide
them, prose is left alone, and what is logged holds no secret."""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard.content.text.scan import MAX_TEXT, Scan, TextTooLong, looks_like_locator, scan

_ALNUM = string.ascii_letters + string.digits
_WORD = _ALNUM + "-_"
_HEX = "0123456789abcdef"
_BASE32 = string.ascii_uppercase + "234567"
_BECH32 = "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"


def _made_up(seed: int) -> dict[str, tuple[str, str]]:
    """Keys in the formats that vendors publish: case -> (kind, key). None was ever valid."""
    source = random.Random(seed)

    def some(count: int, chars: str = _ALNUM) -> str:
        made = "".join(source.choice(chars) for _ in range(count))
        # One key in a thousand has no digit; some kinds are told from words by theirs.
        return made if count < 20 or any(map(str.isdigit, made)) else some(count, chars)

    return {
        "openai-project": ("OpenAI API key", f"sk-proj-{some(74, _WORD)}T3BlbkFJ{some(74, _WORD)}"),
        "openai-service": ("OpenAI API key", f"sk-svcacct-{some(60, _WORD)}"),
        "openai-old": ("OpenAI API key", f"sk-{some(20)}T3BlbkFJ{some(20)}"),
        "sk": ("API key", f"sk-{some(48)}"),
        "anthropic": ("Anthropic API key", f"sk-ant-api03-{some(93, _WORD)}AA"),
        "google": ("Google API key", f"AIza{some(35, _WORD)}"),
        "google-oauth": ("Google OAuth secret", f"GOCSPX-{some(28, _WORD)}"),
        "aws": ("AWS access key", f"AKIA{some(16, _BASE32)}"),
        "aws-session": ("AWS access key", f"ASIA{some(16, _BASE32)}"),
        "aws-secret": ("AWS secret key", f"aws_secret_access_key = {some(40, _ALNUM + '/+')}"),
        "github": ("GitHub token", f"ghp_{some(36)}"),
        "github-oauth": ("GitHub token", f"gho_{some(36)}"),
        "github-fine": ("GitHub token", f"github_pat_{some(22)}_{some(59)}"),
        "gitlab": ("GitLab token", f"glpat-{some(20, _WORD)}"),
        "slack": (
            "Slack token",
            f"xoxb-{some(12, string.digits)}-{some(12, string.digits)}-{some(24)}",
        ),
        "slack-hook": (
            "webhook URL",
            f"https://hooks.slack.com/services/T{some(8)}/B{some(8)}/{some(24)}",
        ),
        "stripe": ("Stripe key", f"sk_live_{some(24)}"),
        "stripe-restricted": ("Stripe key", f"rk_live_{some(24)}"),
        "hugging-face": ("Hugging Face token", f"hf_{some(34)}"),
        "replicate": ("Replicate token", f"r8_{some(37)}"),
        "elevenlabs": ("API key", f"sk_{some(48, _HEX)}"),
        "npm": ("npm token", f"npm_{some(36)}"),
        "pypi": ("PyPI token", f"pypi-AgEIcHlwaS5vcmc{some(80, _WORD)}"),
        "sendgrid": ("SendGrid API key", f"SG.{some(22, _WORD)}.{some(43, _WORD)}"),
        "twilio": ("Twilio key", f"SK{some(32, _HEX)}"),
        "twilio-account": ("Twilio key", f"AC{some(32, _HEX)}"),
        "mailgun": ("Mailgun API key", f"key-{some(32, _HEX)}"),
        "mailgun-new": ("Mailgun API key", f"{some(32, _HEX)}-{some(8, _HEX)}-{some(8, _HEX)}"),
        "azure-storage": ("Azure key", f"AccountKey={some(86, _ALNUM + '+/')}=="),
        "azure-sas": ("signed URL", f"https://x.example/c?sv=2022-11-02&sig={some(43)}%3D"),
        "jwt": (
            "JSON Web Token",
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0." + some(43, _WORD),
        ),
        "age": ("age secret key", f"AGE-SECRET-KEY-1{some(58, _BECH32)}"),
        "telegram": ("Telegram bot token", f"{some(10, '123456789')}:{some(35, _WORD)}"),
        "discord": ("Discord bot token", f"M{some(23)}.{some(6)}.{some(27)}"),
        "square": ("Square OAuth secret", f"sq0csp-{some(43, _WORD)}"),
        "basic-auth": ("password in a URL", f"postgres://kim:{some(10)}@db.acme.example/media"),
        "named": ("named secret", "password: Spring2025!"),
        "bearer": ("bearer token", f"Authorization: Bearer {some(40)}"),
        "pem": (
            "private key",
            f"-----BEGIN RSA PRIVATE KEY-----\n{some(64)}\n-----END RSA PRIVATE KEY-----",
        ),
        "pem-encrypted": ("private key", f"-----BEGIN ENCRYPTED PRIVATE KEY-----\n{some(64)}"),
        "openssh": ("private key", f"-----BEGIN OPENSSH PRIVATE KEY-----\n{some(70)}"),
    }


_KEYS = _made_up(1)


@pytest.mark.parametrize("case", _KEYS)
def test_s7_a_key_of_each_kind_is_found_named_and_redacted(case: str) -> None:
    kind, key = _KEYS[case]
    found = scan(f"Paint a sign that says {key} in red.")
    assert kind in found.secrets
    assert key not in found.redacted
    assert "[secret: " in found.redacted
    assert found.redacted.startswith("Paint a sign that says ")


_HEXES = "0123456789abcdef" * 4
_PLAINLY = {  # told by the name in front of them, or found only where they stand as they are
    f'cloudant_api_key="{_HEXES}"': "Cloudant credential",
    "clou-password => abcdefghijklmnopqrstuvwx": "Cloudant credential",
    f"https://acme:{_HEXES}@acme.cloudant.com": "password in a URL",
    f"GR1348941{_HEXES[:20]}": "GitLab token",
    f"glimt-{_HEXES[:25]}": "GitLab token",
    f"glagent-{_HEXES[:50]}": "GitLab token",
    f"ibm_cloud_iam-api-key: {_HEXES[:44]}": "IBM Cloud key",
    f'["token"] => "{_HEXES[:43]}_"': "IBM Cloud key",
    f"pass {_HEXES[:44]}": "IBM Cloud key",
    f"ibm-cos_hmac_secret_access_key := '{_HEXES[:48]}'": "IBM Cloud key",
    f"{_HEXES[:32]}-us12": "Mailchimp API key",
    "BEGIN PRIVATE KEY": "private key",
    "BEGIN SSH2 ENCRYPTED PRIVATE KEY": "private key",
    "BEGIN PGP PRIVATE KEY BLOCK": "private key",
    "PuTTY-User-Key-File-2: ssh-rsa": "private key",
    "PuTTY-User-Key-File-3: ssh-ed25519": "private key",
    f"sl_api_key={_HEXES}": "SoftLayer credential",
    f"softlayer-token:: {_HEXES}": "SoftLayer credential",
    f"http://api.softlayer.com/soap/v3.1/{_HEXES}": "SoftLayer credential",
}


@pytest.mark.parametrize("text", _PLAINLY)
def test_s7_what_is_told_by_its_name_or_its_form_is_found(text: str) -> None:
    for whole in (text, f"see {text} there", f"see\n\n{text}\n"):
        found = scan(whole)
        assert _PLAINLY[text] in found.secrets
        assert "[secret: " in found.redacted


def test_s7_a_key_in_one_piece_leaves_the_prose_around_it_readable() -> None:
    key = _KEYS["anthropic"][1]
    assert scan(f"Put {key} on the wall, in red.").redacted == (
        "Put [secret: Anthropic API key] on the wall, in red."
    )


def _encoded(text: str, form: str) -> str:
    return {
        "base64": base64.b64encode(text.encode()),
        "base64 shifted": b"see " + base64.b64encode(b"k" + text.encode()),
        "base64 url-safe": base64.urlsafe_b64encode(text.encode()).rstrip(b"="),
        "base64 of UTF-16": base64.b64encode(text.encode("utf-16-le")),
        "base64 twice": base64.b64encode(base64.b64encode(text.encode())),
        "base64 in lines": base64.encodebytes(text.encode()),
        "base64 of hex": base64.b64encode(text.encode().hex().encode()),
        "hex": text.encode().hex().encode(),
        "hex in bytes": text.encode().hex(" ").encode(),
        "hex in upper case": text.encode().hex(":").upper().encode(),
    }[form].decode()


_MATH = str.maketrans(
    {ord(c): 0x1D5BA + i for i, c in enumerate(string.ascii_lowercase)}
    | {ord(c): 0x1D5A0 + i for i, c in enumerate(string.ascii_uppercase)}
    | {ord(c): 0x1D7E2 + i for i, c in enumerate(string.digits)}
)
_EVASIONS: dict[str, Callable[[str], str]] = {
    "zero-width": lambda key: "\u200b".join(key),
    "soft hyphens": lambda key: "\u00ad".join(key),
    "combining marks": lambda key: "\u0336".join(key),
    "full width": lambda key: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in key),
    "mathematical letters": lambda key: key.translate(_MATH),
    "tag characters": lambda key: "".join(chr(0xE0000 + ord(c)) for c in key if c != "\n"),
    "Cyrillic twins": lambda key: key.translate(str.maketrans("aeopcxAKS", "аеорсхАКЅ")),  # noqa: RUF001
    "glued to a word": lambda key: "brief" + key,
    "backwards": lambda key: key[::-1],
    "URL escapes": lambda key: "".join(f"%{ord(c):02x}" for c in key),
    "URL escapes twice": lambda key: "".join(f"%25{ord(c):02x}" for c in key),
    "HTML entities": lambda key: "".join(f"&#{ord(c)};" for c in key),
    "backslash escapes": lambda key: "".join(f"\\x{ord(c):02x}" for c in key),
    **{
        form: lambda key, form=form: _encoded(key, form)  # type: ignore[misc]
        for form in (
            "base64",
            "base64 shifted",
            "base64 url-safe",
            "base64 of UTF-16",
            "base64 twice",
            "base64 in lines",
            "base64 of hex",
            "hex",
            "hex in bytes",
            "hex in upper case",
        )
    },
}
_VENDOR_KEYS = [
    case for case in _KEYS if case not in ("aws-secret", "telegram", "discord", "square", "named")
]


@pytest.mark.parametrize("evasion", _EVASIONS)
@pytest.mark.parametrize("case", _VENDOR_KEYS)
def test_s7_a_disguised_vendor_key_is_found_and_redacted(case: str, evasion: str) -> None:
    kind, key = _KEYS[case]
    disguised = _EVASIONS[evasion](key)
    found = scan(f"Paint {disguised} in red.")
    assert kind in found.secrets
    assert disguised not in found.redacted
    assert key not in found.redacted


_DISTINCTIVE = ("openai-project", "anthropic", "google", "aws", "github-fine", "pypi", "jwt", "age")


@pytest.mark.parametrize("separator", [" ", "\n", "  \t ", " \u200b "])
@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize("case", _DISTINCTIVE)
def test_s7_a_key_split_by_white_space_is_found(case: str, size: int, separator: str) -> None:
    kind, key = _KEYS[case]
    split = separator.join(key[at : at + size] for at in range(0, len(key), size))
    found = scan(f"Paint this: {split}. In red.")
    assert kind in found.secrets
    assert split not in found.redacted


@pytest.mark.parametrize("separator", ["-", ".", " | ", "/", "', '"])
@pytest.mark.parametrize("case", _DISTINCTIVE)
def test_s7_a_key_split_by_punctuation_is_found(case: str, separator: str) -> None:
    kind, key = _KEYS[case]
    split = separator.join(key[at : at + 4] for at in range(0, len(key), 4))
    assert kind in scan(f"Paint this: {split} in red").secrets


def test_s7_the_other_half_of_a_key_is_not_logged_either() -> None:
    secret = "wJalrXUtnFEMIbK7MDENGcbPxRfiCYEXAMPLEKEY"
    found = scan(f"AKIAIOSFODNN7EXAMPLE goes with {secret}, and with 9fQ2mX7bR4tY1zLk too")
    assert secret not in found.redacted
    assert "9fQ2mX7bR4tY1zLk" not in found.redacted


def test_s7_invisible_text_is_refused_but_flags_and_joiners_are_not() -> None:
    hidden = "".join(chr(0xFE00 + byte % 16) for byte in b"the customer list")
    assert scan(f"A cup of tea{hidden}, steaming").secrets == ("invisible text",)
    assert scan("A cup of tea" + "\u200b\u200c" * 8).secrets == ("invisible text",)
    flag = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
    assert scan(f"{flag} 👨‍👩‍👧‍👦 ❤️❤️❤️❤️❤️❤️❤️❤️❤️❤️❤️❤️❤️ می‌خواهم") == Scan(
        labels=frozenset(),
        secrets=(),
        redacted=f"{flag} 👨‍👩‍👧‍👦 ❤️❤️❤️❤️❤️❤️❤️❤️❤️❤️❤️❤️❤️ می‌خواهم",
    )


_PERSONAL = {
    "email": (
        "omar@acme.example",
        "Kim.O+news@mail.acme.co.uk",
        "ｋｉｍ＠acme.example",  # noqa: RUF001
        "kim\u200b@acme.example",
        "kim [at] acme [dot] example",
        "kim(at)acme(dot)com",
        "jo@münchen.example",
        "mailto:a.b@c-d.io",
        "kim%40acme.example",
        "kim@163.com",
        base64.b64encode(b"write to kim@acme.example").decode(),
    ),
    "phone": (
        "+1 (415) 555-2671",
        "+14155552671",
        "+44 20 7946 0018",
        "+49 (0)30 901820",
        "+91 98765 43210",
        "+81-3-1234-5678",
        "0049 30 9018200",
        "(415) 555-2671",
        "415-555-2671",
        "415.555.2671",
        "1-800-555-0199",
        "020 7946 0018",
        "030/90182000",
        "06 12 34 56 78",
        "0171 2345678",
        "tel: 555 123 45678",
        "call 98765 43210",
        "＋４４ ２０ ７９４６ ００１８",  # noqa: RUF001
        "٠٣٠ ٩٠١٨ ٢٠٠٠",
    ),
    "card": (
        "4111 1111 1111 1111",
        "4111111111111111",
        "5555-5555-5555-4444",
        "2223003122003222",
        "378282246310005",
        "3782 822463 10005",
        "6011111111111117",
        "3530111333300000",
        "30569309025904",
        "6304000000000000",
        "4111.1111.1111.1111",
        "4111\n1111\n1111\n1111",
        "41 11 11 11 11 11 11 11",
        "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
        "４１１１１１１１１１１１１１１１",  # noqa: RUF001
        "x4111111111111111y",
    ),
    "iban": (
        "DE89 3704 0044 0532 0130 00",
        "DE89-3704-0044-0532-0130-00",
        "de89370400440532013000",
        "GB82WEST12345698765432",
        "FR14 2004 1010 0505 0001 3M02 606",
        "NO9386011117947",
        "in24 hours to DE89 3704 0044 0532 0130 00",
    ),
}


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, texts in _PERSONAL.items() for text in texts]
)
def test_s7_personal_data_and_cards_raise_their_label(kind: str, text: str) -> None:
    found = scan(f"Please use {text} today.")
    assert ("payment-card" if kind == "card" else "personal-data") in found.labels
    assert f"[{kind}]" in found.redacted
    assert text not in found.redacted
    assert found.secrets == ()


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",  # Luhn
        "9999 9999 9999 9995",  # no issuer
        "4111 1111 1111 111",  # length
        "DE88 3704 0044 0532 0130 00",  # mod 97
        "ZZ89 3704 0044 0532 0130 00",  # country
        "+1 015 555 2671",  # no area code
    ],
)
def test_s7_a_number_that_fails_its_own_check_is_no_finding(text: str) -> None:
    assert scan(f"Please use {text} today.").labels <= {"personal-data"}
    assert "[card]" not in scan(text).redacted
    assert "[iban]" not in scan(text).redacted


_BENIGN = (
    "Warm spring campaign: soft light, 35mm, shallow depth of field, 16:9, no text.",
    "Brand colours #1F6FEB and #0d1117, accent rgba(31,111,235,0.8), Pantone 19-4052 TCX.",
    "Launch on 2025-03-21, embargo until 21.03.2025 10:30 CET; shoot 01/02/2025 09:00-17:30.",
    "Prices from $1,299.00 to 2.499,00 €, 20% off with code SPRING2025.",
    "ISBN 978-3-16-148410-0 and ISBN 0-306-40615-2, ISBN 0306406152, EAN 4006381333931.",
    "Render at 1920x1080, 3840 x 2160 and 1080 1920; hero@2x.png, logo@3x.webp, shot@50mm.raw",
    "Use asset-3f9a0c41d2b7e8f60a15 over asset-0123456789abcdef0123.",
    "sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "Timecode 00:01:02:03 to 00:01:12:20 at 23.976 fps, frames 0100 0200 0300.",
    "Shots 01 02 03 04 05 06 and 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20.",
    "+250 000 000 views, +10 000 000 followers, 1 000 000 000 impressions, +12.5% to +15.2%.",
    "ASIA PACIFIC Q3 2025 SUMMIT, SAUDI ARABIA 2025 TOURISM BOARD, ASIA TOUR 12 JUNE 14 JULY.",
    "Hey John, we will meet tomorrow. Please bring the task-oriented design-thinking-approach.",
    "Follow @acme.studio and @acme_official, xoxo - Kim and the team 2025.",
    "Seed 1700000000, seed 4294967295, model gpt-image-1, v1.2.3, H.264, ffmpeg -crf 23.",
    "order 2025-000123456, SKU AB-1234-XY, invoice 20251123081245",
    "The password for great coffee is patience. Our secret: love. The key - passion.",
    "Basic training for the bearer of good news; API design, keys and tokens explained.",
    "https://www.acme.example/spring/2025?utm_source=newsletter&utm_campaign=spring-launch-2025",
    "https://acme.example:8080/path/@user, docs at http://localhost:3000/a",
    "In 24 hours no 15 minutes, be 20 years ahead; 24/7 call us any time.",
    "phone wallpapers 1080 1920; the iPhone 15 Pro 2556 x 1179 mock-up",
    "550e8400-e29b-41d4-a716-446655440000 is the uuid of the job.",
    "Größe XL, Straße 12, 10115 Berlin; café crème; 日本語のキャプション; Привет, мир; مرحبا.",
    "Score 4-2, 3:1, ratio 1/2, range 10-20, -5 to +15 degrees, 100% cotton & 50 % wool.",
    "Sony ILCE-7M4, ISO 100, f/2.8, 1/250 s; DSC01234.ARW, IMG_20250321_101530.jpg",
    "51 Franklin Street, Fifth Floor, Boston, MA 02110-1301 USA; 75008 Paris; SW1A 1AA",
    "lat 52.520008, lon 13.404954; 52.5200,13.4050; CMYK 100 75 0 40",
    "4 8 15 16 23 42 108 1000 2000 3000; 1920 1080 1280 720 640 480; 12 34 56 78 90",
    "THE FUTURE IS OPEN. OPENAI PARTNERS WITH ACME; #spring #openai #huggingface #sk8",
    "a mask-ant-colony, disk-proj-final, key-frames, hf_model_card, npm_config_registry, sk-learn",
    "%20 and %2F, &amp; &copy; \\n, C:\\Users\\kim\\Desktop\\spring, ~/media/spring",
    "",
)


@pytest.mark.parametrize("text", _BENIGN)
def test_s7_the_prose_of_briefs_is_left_alone(text: str) -> None:
    assert scan(text) == Scan(labels=frozenset(), secrets=(), redacted=text)


def test_s7_the_benign_texts_together_are_left_alone() -> None:
    whole = "\n".join(_BENIGN)
    assert scan(whole) == Scan(labels=frozenset(), secrets=(), redacted=whole)


_SYLLABLES = st.text(string.ascii_lowercase, min_size=1, max_size=12)
_WORDS = st.one_of(_SYLLABLES, _SYLLABLES.map(str.title), _SYLLABLES.map(str.upper))


@given(st.lists(_WORDS, max_size=200), st.sampled_from([" ", "\n", ", ", ". ", "-"]))
def test_s7_words_are_never_secrets(words: list[str], separator: str) -> None:
    found = scan(separator.join(words)[:MAX_TEXT])
    assert found.secrets == ()
    assert found.labels == frozenset()


@given(
    seed=st.integers(0, 2**32),
    case=st.sampled_from(_VENDOR_KEYS),
    evasion=st.sampled_from([*_EVASIONS, None]),
    before=st.text(max_size=30),
    after=st.text(max_size=30),
)
@settings(deadline=None, max_examples=300)
def test_s7_a_redacted_text_never_holds_the_planted_secret(
    seed: int, case: str, evasion: str | None, before: str, after: str
) -> None:
    """The canary, plain or disguised, is absent from what would be logged."""
    key = _made_up(seed)[case][1]
    planted = _EVASIONS[evasion](key) if evasion else key
    found = scan(f"{before} {planted} {after}")
    if found.secrets or evasion is None:
        assert key not in found.redacted
        assert planted not in found.redacted
        assert scan(found.redacted).secrets == ()


@given(st.text(max_size=400))
@settings(deadline=None)
def test_s7_any_text_is_scanned_and_the_result_can_be_encoded(text: str) -> None:
    found = scan(text)
    found.redacted.encode("utf-8")
    reason = looks_like_locator(text)
    assert reason is None or (len(text) < 12 or text not in reason)  # it repeats nothing


def test_s7_lone_surrogates_are_scanned() -> None:
    assert scan("kim@acme.example \ud800").redacted == "[email] ?"


def test_s7_a_text_beyond_the_limit_is_refused_not_cut() -> None:
    scan("a" * MAX_TEXT)
    with pytest.raises(TextTooLong, match="got 32769 characters, expected at most 32768"):
        scan("a" * (MAX_TEXT + 1))
    assert issubclass(TextTooLong, ValueError)


_SLOW = {
    "one letter": "a" * 32_000,
    "digits": "1" * 32_000,
    "spaced digits": "1 " * 16_000,
    "card starts": "4 " * 16_000,
    "trunk zeros": "01 " * 10_000,
    "plus signs": "+1" * 16_000,
    "PEM starts": "-----BEGIN" * 3_000,
    "PEM heads": "-----BEGIN PRIVATE KEY-----" * 1_200,
    "dashes": "-" * 32_000,
    "JWT starts": "eyJ" * 10_000,
    "JWT halves": "eyJaaaaaaaaa." * 2_400,
    "sk starts": "sk-" * 10_000,
    "OpenAI marks": "T3BlbkFJ" * 4_000,
    "AWS words": "aws" * 10_000,
    "URL starts": "://a:" * 6_000,
    "npm lines": "//" * 16_000,
    "at signs": "a@" * 16_000,
    "labels": "a.a." * 8_000,
    "bracketed at": "a[at]" * 6_000,
    "IBAN starts": "de89 " * 6_000,
    "assignments": "password:" * 3_600,
    "key and spaces": "key" + " " * 32_000,
    "key and hidden spaces": "key" + " \u200b" * 16_000,
    "key and spaces in base64": base64.b64encode(b"apikey" + b" " * 24_000).decode(),
    "long ligatures": "\ufdfa" * 32_000,
    "URL escapes": "%41" * 10_000,
    "entities": "&#65;" * 6_000,
    "hex": "41" * 16_000,
    "nested base64": base64.b64encode(base64.b64encode(b"a1B2" * 4_500)).decode(),
    "combining marks": "\u0301" * 32_000,
    "prose": "The Quick brown fox jumps over the lazy dog, 2025. " * 620,
}


_FOUND_IN_SLOW = {
    "PEM heads": ("private key",),
    "JWT halves": ("JSON Web Token",),
    "OpenAI marks": ("OpenAI API key",),
}


@pytest.mark.parametrize("case", _SLOW)
def test_s7_hostile_texts_of_full_length_are_scanned_to_the_end(case: str) -> None:
    """Each makes a backtracking pattern quadratic or worse: minutes, where a scan takes less
    than a second. Nothing here measures time; a pattern that backtracks hangs the test."""
    found = scan(_SLOW[case])
    assert found.secrets == _FOUND_IN_SLOW.get(case, ())
    assert (found.redacted == _SLOW[case]) is not bool(found.secrets)
    looks_like_locator(_SLOW[case])


def test_s7_threads_scan_at_once_with_equal_results() -> None:
    texts = [f"use {key} and kim@acme.example" for _, key in _KEYS.values()] * 4
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(scan, texts)) == [scan(text) for text in texts]


@pytest.mark.parametrize(
    "value",
    [
        *("16:9", "4:2:0", "top-left", "1/2", "and/or", "w/o", "v1.2", "1.2.3", "24 fps", "-5"),
        *("0.5em", "H.264", "12/05/2025", "image/png", "00:01:02:03", "~5", "...", "wait...", ""),
        *("#ff00aa", "1920x1080", "rgb(1, 2, 3)", "Helvetica Neue Bold", "ease-in-out", "e.g. red"),
        *("lossless", "50%", "U.S.", "a & b", "Title: hello", "$5", "1.5x", "10-20", "f/2.8", "+2"),
    ],
)
def test_a_plain_word_is_no_locator(value: str) -> None:
    assert looks_like_locator(value) is None


@pytest.mark.parametrize(
    "value",
    [
        *("/etc/passwd", "/", "@/etc/passwd", "movie=/etc/passwd", "~", "~/x", "~root", "./x"),
        *("../x", "a/../b", "1..5", "a/b.png", "out/", "etc/agentguard/keys", "logo.png", ".env"),
        *("song.mp3", "C:\\x", "C:/x", "C:secret", "\\\\server\\share", "//evil.example/x"),
        *("http://x", "HTTPS:/x", "file:x", "data:image/png;base64,AAA", "javascript:alert(1)"),
        *("concat:a|b", "subfile,,start,0,end,9,,:x", "s3:bucket", "md5:x", "pipe:0"),
        *("evil.example", "see evil.com now", "localhost", "redis:6379", "xn--80ak6aa92e.com"),
        *("10.0.0.1", "::1", "[fe80::1]", "0x7f000001", "fe80:0:0:0:0:0:0:1"),
        *("%2Fetc%2Fpasswd", "%252e%252e%252fx", "／etc／passwd", "evil。example"),  # noqa: RUF001
        *("ev\u200bil.example", "16:9\0", "${HOME}", "$HOME", "%APPDATA%", "$(id)"),
        *("A" * 64, ("QUJD" * 19 + "\n") * 3, "f" * 64, "x " * 16_385),
    ],
)
def test_a_locator_is_refused_without_repeating_it(value: str) -> None:
    """I3: a path, URL or host name that the model wrote is never opened."""
    reason = looks_like_locator(value)
    assert reason
    assert value not in reason or len(value) < 3
