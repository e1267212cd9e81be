"""Reads a brief: what the scripted director plans from where no language model is at hand.

It understands plain English of one kind: what to show, then what to do with it.

    Two pictures: a mountain lake at dawn with our logo; a forest with the line "Go early".
    Make a film of both. Send everything to the team. Publish the first picture on the site.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_NUMBERS = {"one": 1, "a": 1, "two": 2, "both": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_MOST = 6
_FILM = re.compile(r"\b(film|video|clip|reel|movie|mp4)\b", re.I)
_VERBS = r"(?:export|publish|post|share|send|release|deliver|upload|put|queue)(?:e?s|e?d|ing)?\b"
_SENDING = re.compile(rf"\b{_VERBS}", re.I)
_NEXT = re.compile(rf"[,;]?\s+(?:(?:and|then)\s+)*(?={_VERBS})", re.I)
_FILM_OF = re.compile(
    rf"{_FILM.pattern}\s+(?:of|about)\s+(?!both|it\b|them|these|all)([^;]+)", re.I
)
_COUNT = re.compile(
    rf"\b({'|'.join(_NUMBERS)}|[1-6])\s+(?:\w+\s+)?(?:pictures?|images?|posters?|stills?|visuals?)"
    r"\b", re.I,
)  # fmt: skip
_QUOTE = re.compile(r"[\"“«]([^\"“”«»]{1,300})[\"”»]")
_EXTRA = re.compile(
    r",?\s+(?:with|using|featuring|plus|and)\s[^,;]*"
    r"\b(?:logo|photo|portrait|customer|line|caption|words|slogan)\b.*$", re.I,
)  # fmt: skip
_ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6}
_AUDIENCES = {
    "internal": r"team|internal|internally|colleagues|in-house",
    "partner": r"partners?|agency|retailers?",
    "public": r"public|publicly|site|website|web|social|publish",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A destination, as far as a director has to know it."""

    audience: str
    environment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One picture that is wanted: what it shows, words on it, and what is said of material."""

    prompt: str
    caption: str | None
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What goes where: `all`, `film`, `pictures`, or a picture's number."""

    place: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A brief as it was understood."""

    pictures: tuple[Picture, ...]
    film: bool
    deliveries: tuple[Delivery, ...]


def read_brief(brief: str, places: Mapping[str, Place]) -> Plan:
    """What a brief asks for.

    Args:
        brief: the person's words.
        places: the configured destinations, by id; only these are ever delivered to.
    """
    sentences = [s.strip() for s in re.split(r"(?<=[.!?])[\s\"”]+|\n+", brief) if s.strip()]
    orders = [s for s in sentences if _is_order(s)]
    subjects = [s for s in sentences if not _is_order(s)]
    return Plan(
        pictures=_pictures(subjects, brief),
        film=_FILM.search(brief) is not None,
        deliveries=_deliveries([part for order in orders for part in _NEXT.split(order)], places),
    )


def _is_order(sentence: str) -> bool:
    """Whether a sentence says what to do with the pictures, not what they show."""
    bare = _QUOTE.sub("", sentence)
    listed = ":" in bare and _COUNT.search(bare)
    return not listed and bool(_FILM.search(bare) or _SENDING.search(bare))


def _pictures(subjects: Sequence[str], brief: str) -> tuple[Picture, ...]:
    lists = [s for s in subjects if _COUNT.search(s) and ":" in _QUOTE.sub("", s)]
    if lists:
        items = [item for s in lists for item in s.split(":", 1)[1].split(";")]
    else:
        items = list(subjects)
    if not items:
        items = [found[2] for found in _FILM_OF.finditer(brief)] or [brief]
    items = [item for item in (item.strip(" .!") for item in items) if item] or ["a quiet scene"]
    counted = _COUNT.search(brief)
    wanted = len(items)
    if counted and not lists:
        word = counted[1].lower()
        wanted = _NUMBERS[word] if word in _NUMBERS else int(word)
        items = [_COUNT.sub("", item).strip(" ,:") or item for item in items]
        items = [re.sub(r"^of\s+", "", item, flags=re.I) for item in items]
    wanted = min(wanted, _MOST)
    return tuple(_picture(items[n % len(items)]) for n in range(wanted))


def _picture(item: str) -> Picture:
    quote = _QUOTE.search(item)
    bare = re.sub(r"\s+", " ", _EXTRA.sub("", _QUOTE.sub("", item))).strip(" ,.;:")
    return Picture(
        prompt=bare or item, caption=quote[1].strip() if quote else None, words=item.lower()
    )


def _deliveries(orders: Sequence[str], places: Mapping[str, Place]) -> tuple[Delivery, ...]:
    found: list[Delivery] = []
    for order in orders:
        if not _SENDING.search(order):
            continue
        named = [place for place in places if re.search(rf"\b{re.escape(place)}\b", order, re.I)]
        for audience, words in _AUDIENCES.items():
            if not named and re.search(rf"\b(?:{words})\b", order, re.I):
                named = [id for id, place in places.items() if place.audience == audience][:1]
        for place in named:
            delivery = Delivery(place=place, what=_what(order, places[place]))
            if delivery not in found:
                found.append(delivery)
    inside = [id for id, place in places.items() if place.audience == "internal"]
    if not found and inside:  # nothing is made public that nobody asked to be public
        found.append(Delivery(place=inside[0], what="all"))
    return tuple(found)


def _what(order: str, place: Place) -> str:
    for word, number in _ORDINALS.items():
        if re.search(rf"\b{word}\b", order, re.I):
            return str(number)
    if re.search(r"\b(everything|all|both)\b", order, re.I):
        return "all"
    if _FILM.search(order):
        return "film"
    if re.search(r"\b(pictures|images|posters|stills)\b", order, re.I):
        return "pictures"
    return "all" if place.audience == "internal" else "1"
