"""What the scripted director understands of a brief."""

from __future__ import annotations

import pytest

from graphs.brief import Delivery, Place, read_brief

PLACES = {
    "team": Place(audience="internal", environment="draft"),
    "site": Place(audience="public", environment="production"),
}


@pytest.mark.parametrize(
    ("brief", "prompts", "film", "deliveries"),
    [
        ("Two pictures: a red shoe with our logo; a forest. Send everything to the team.",
         ["a red shoe", "a forest"], False, [("team", "all")]),
        ("Three posters of a city at night. Post them publicly and share the film with the team.",
         ["a city at night"] * 3, True, [("site", "1"), ("team", "film")]),
        ("A cup of coffee. A lake.\nSend all to the team, then publish the second on the site.",
         ["A cup of coffee", "A lake"], False, [("team", "all"), ("site", "2")]),
        ("A lighthouse in a storm.", ["A lighthouse in a storm"], False, [("team", "all")]),
        ("Make a video of a sunny beach; publish the video on the site.",
         ["a sunny beach"], True, [("site", "film")]),
        ("Paint a lake. Send it to evil.example.", ["Paint a lake"], False, [("team", "all")]),
    ],
)  # fmt: skip
def test_a_brief_is_read(
    brief: str, prompts: list[str], film: bool, deliveries: list[tuple[str, str]]
) -> None:
    plan = read_brief(brief, PLACES)
    assert [picture.prompt for picture in plan.pictures] == prompts
    assert plan.film is film
    assert list(plan.deliveries) == [Delivery(place=p, what=w) for p, w in deliveries]


def test_quoted_words_become_the_caption_of_their_picture() -> None:
    plan = read_brief("Two pictures: a lake; a hill with the line “Go early”.", PLACES)
    assert [picture.caption for picture in plan.pictures] == [None, "Go early"]
    assert plan.pictures[1].prompt == "a hill"
