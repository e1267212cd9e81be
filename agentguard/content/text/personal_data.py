"""Where a text names people and their money: e-mail, phone and card numbers, IBANs (S7).

`personal_data` takes a folded text (see `_readings`). Numbers of briefs (dates, prices, ISBNs,
resolutions, lists of shots) look alike: what is ambiguous counts only with a word that says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate

LABELS = {
    "card": "payment-card",
    "email": "personal-data",
    "iban": "personal-data",
    "phone": "personal-data",
}
"""The label that each kind raises."""

_EMAIL = re.compile(  # `logo@2x.png` is a file; `kim [at] acme [dot] example` is an address
    r"[\w.+-]{1,64}(?:@|\s?[\[({]\s?at\s?[\])}]\s?)(?!\d+(?:x|p|k|mm|px|fps)\.)[\w-]{1,63}"
    r"(?:(?:\.|\s?[\[({]\s?dot\s?[\])}]\s?)[\w-]{1,63}){0,5}"
    r"(?:\.|\s?[\[({]\s?dot\s?[\])}]\s?)(?:[^\W\d_]{2,24}|xn--[\w-]{1,59})",
    re.IGNORECASE,
)
_AT_SIGN = re.compile(r"@|[\[({]\s?at\s?[\])}]", re.IGNORECASE)

_ANY_DIGIT = re.compile(r"\d")
_DIGIT = r"(?:[ ().\-/\n]{0,3}\d)"
_PHONES = (
    re.compile(rf"(?:\+|(?<![\w.,:/-])00)[ (]?[1-9]{_DIGIT}{{7,14}}"),
    re.compile(  # North America
        r"(?<![\d.-])(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[.-])[2-9]\d\d[ .-]\d{4}(?!\d)"
    ),
    re.compile(  # trunk prefix 0; no list `01 02 03`, date `01.02.2025 10:30`, ZIP `02110-1301`
        r"(?<![\w.,:/-])\(?(?!0\d{1,5}(?:\D0\d{1,5}){2}|\d\d([./-])\d\d\1|\d{5}-\d{4}(?!\d))"
        r"0[1-9]\d{0,4}\)?(?:[ ./-]?\d){5,9}(?!\d)"
    ),
    re.compile(
        r"(?<![a-z])(?:tel|phone|mobile|call|fax|whatsapp|telefon|dial|sms)\w{0,6}"
        rf"[ .:#=-]{{0,3}}\(?\d{_DIGIT}{{8,14}}",
        re.IGNORECASE,
    ),
)
_THOUSANDS = re.compile(r"\+\d{1,3}(?:[ .]\d{3})*[ .]000")
_COORDINATES = re.compile(  # ISO 6709, as cameras write where a film was made
    r"[+-](?:[0-8]\d|90)\.\d{2,8}[+-](?:0\d\d|1[0-7]\d|180)\.\d{2,8}(?:[+-]\d{1,5}(?:\.\d{1,6})?)?/"
)
_ISBN = re.compile(r"(?:isbn|issn|ean|gtin)\S{0,4} ?$", re.IGNORECASE)

_DIGITS = re.compile(r"\d(?:[\s._/*|-]{0,3}\d){13,}", re.ASCII)
_GROUP = re.compile(r"\d+", re.ASCII)
_ISSUERS = re.compile(  # Visa, Mastercard, Amex, Discover, JCB, Diners, UnionPay, Maestro
    r"4\d{15}(?:\d{3})?|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|"
    r"3[47]\d{13}|6(?:011|4[4-9]\d|5\d\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|"
    r"3(?:0[0-5]|[689]\d)\d{11}|62\d{14,17}|(?:50(?:18|20|38)|5893|6304|6759|676[1-3])\d{10,15}"
)

_IBAN = re.compile(  # a look-ahead, so that a false start can't swallow the IBAN behind it
    r"(?<![A-Za-z0-9])(?=([A-Za-z]{2}\s?\d{2}(?:[\s.-]?[A-Za-z0-9]){11,29}))", re.ASCII
)
_IBAN_LENGTHS = {
    country: length
    for length, countries in (
        (15, "NO"),
        (16, "BE"),
        (18, "DK FI FK FO GL NL SD"),
        (19, "MK SI"),
        (20, "AT BA EE KZ LT LU MN XK"),
        (21, "CH HR LI LV"),
        (22, "BG BH CR DE GB GE IE ME RS VA"),
        (23, "AE GI IL IQ OM SO TL"),
        (24, "AD CZ ES MD PK RO SA SE SK TN VG"),
        (25, "LY PT ST"),
        (26, "IS TR"),
        (27, "BI DJ FR GR IT MC MR SM"),
        (28, "AL AZ BY CY DO GT HU LB NI PL SV"),
        (29, "BR EG PS QA UA"),
        (30, "JO KW MU YE"),
        (31, "MT SC"),
        (33, "RU"),
    )
    for country in countries.split()
}


def personal_data(text: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and kind (a key of `LABELS`) of everything found; stretches may overlap."""
    if _AT_SIGN.search(text):
        yield from ((*match.span(), "email") for match in _EMAIL.finditer(text))
    if not _ANY_DIGIT.search(text):
        return
    yield from ((*span, "card") for span in _cards(text))
    yield from ((*span, "iban") for span in _ibans(text))
    for pattern in _PHONES:
        yield from ((*m.span(), "phone") for m in pattern.finditer(text) if _is_phone(m))


def _is_phone(match: re.Match[str]) -> bool:
    digits = "".join(filter(str.isdigit, match[0]))
    if match[0].startswith("+"):
        if _THOUSANDS.fullmatch(match[0]):
            return False  # "+250 000 000 views"
        if _COORDINATES.match(match.string, match.start()):
            return False
        return digits[1] > "1" and len(digits) > 10 if digits[0] == "1" else len(digits) > 8
    before = match.string[max(0, match.start() - 12) : match.start()]
    return len(digits) > 8 and not _ISBN.search(before)


def _cards(text: str) -> Iterator[tuple[int, int]]:
    for run in _DIGITS.finditer(text):
        groups = [match.span() for match in _GROUP.finditer(text, *run.span())]
        digits = "".join(text[start:end] for start, end in groups)
        offsets = list(accumulate((end - start for start, end in groups), initial=0))
        for first in range(len(groups)):
            for last in range(first + 1, min(first + 19, len(groups)) + 1):
                card = digits[offsets[first] : offsets[last]]
                if len(card) > 19:
                    break
                if _ISSUERS.fullmatch(card) and _luhn(card) and _grouped(groups, first, last):
                    yield groups[first][0], groups[last - 1][1]


def _grouped(groups: list[tuple[int, int]], first: int, last: int) -> bool:
    """True if the digits stand alone or in equal groups, as cards do and lists of numbers don't."""
    sizes = [end - start for start, end in groups[first:last]]
    alone = (first, last) == (0, len(groups))
    return alone or len(set(sizes[:-1])) < 2 or sizes in ([4, 6, 5], [4, 6, 4])


def _luhn(digits: str) -> bool:
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    for match in _IBAN.finditer(text):
        places = [place for place, char in enumerate(match[1]) if char.isalnum()]
        length = _IBAN_LENGTHS.get(match[1][:2].upper())
        if length is None or len(places) < length:
            continue
        iban = "".join(match[1][place] for place in places[:length])
        number = int("".join(str(int(char, 36)) for char in iban[4:] + iban[:4]))
        if number % 97 == 1 and sum(map(str.isdigit, iban)) >= 8:
            yield match.start(), match.start() + places[length - 1] + 1
