"""A person's no holds for the media, whatever is said with them, and people are asked so often."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import tool

from agentguard.errors import ApprovalError
from agentguard.jobs.job import Job
from agentguard.model import Verdict
from tests.support import (
    CONFIG,
    INES,
    LEE,
    OMAR,
    Studio,
    build,
    call,
    open_studio,
    results,
    says,
)
from tests.support.bindings import Arg, Binding

BLOG = """
[destinations.blog]
url = "file:out/blog"
audience = "public"
environment = "draft"
"""
NODES = {"e": ("editor", ["crop"]), "q": ("traffic", ["queue_for_release"]),
         "r": ("reviewer", ["look"]),
         "x": ("publisher", ["publish", "post", "tell", "toot", "export_asset"])}  # fmt: skip


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    studio = open_studio(tmp_path, config=CONFIG + BLOG)
    world = studio.world

    @tool
    def post(source: str, caption: str, to: str) -> str:
        """Post a picture."""
        world.effects.append(("post", caption))
        return "posted"

    @tool
    def tell(text: str, to: str, hour: int = 8) -> str:
        """Post a text."""
        world.effects.append(("tell", text))
        return "told"

    @tool
    def toot(words: str, title: str, to: str) -> str:
        """Post a text under a title."""
        world.effects.append(("toot", words))
        return "told"

    to: dict[str, Any] = {"stage": "export", "destination": Arg("to"), "effect": "opaque"}
    studio.guard.bind(Binding(post, assets=["source"], texts=["caption"], **to))
    studio.guard.bind(Binding(tell, texts=["text"], plain=["hour"], **to))
    studio.guard.bind(Binding(toot, texts=["words", "title"], **to))
    studio.tools |= {"post": post, "tell": tell, "toot": toot}
    with studio.guard:
        yield studio


def asks(studio: Studio, job: Job, *calls: dict[str, Any], thread: str) -> list[str]:
    """Digests of the questions that a message came to, in order; refused calls leave none."""
    before = {one.request for one in studio.guard.approvals.list(state=None)}
    graph = build(studio, [says(*calls)], NODES)
    graph.invoke({"messages": [("user", "go")]}, job.config(thread_id=thread))
    asked = studio.guard.approvals.list(state=None)
    return [one.request for one in asked if one.request not in before]


def refusal(studio: Studio, job: Job, one: dict[str, Any], *, thread: str) -> str:
    graph = build(studio, [says(one)], NODES)
    state = graph.invoke({"messages": [("user", "go")]}, job.config(thread_id=thread))
    assert "__interrupt__" not in state, "it asked again"
    (message,) = results(state)
    assert message.status == "error"
    return str(message.content)


def prepared(studio: Studio, job: Job, *colours: str) -> list[str]:
    """Pictures that only a person stands in front of."""
    found = []
    for colour in colours:
        asset = job.import_asset(studio.picture(f"{colour}.png", colour), ["brand"])
        graph = build(studio, [
            says(call("look", {"source": asset})),
            says(call("queue_for_release", {"asset": asset, "to": "site"})),
        ], NODES)  # fmt: skip
        graph.invoke({"messages": [("user", "go")]}, job.config(thread_id=f"p-{colour}"))
        found.append(asset)
    return found


@pytest.mark.parametrize("caption", ["hello ", " HELLO", "hello!", "something else", "h\u0435llo"])
@pytest.mark.parametrize("name", ["post", "publish", "export_asset"])
def test_a_denied_picture_is_not_asked_about_again(studio: Studio, caption: str, name: str) -> None:
    with studio.guard.open_job("j", requested_by=LEE) as job:
        (picture,) = prepared(studio, job, "navy")
        one = call("post", {"source": picture, "caption": "hello", "to": "site"})
        (request,) = asks(studio, job, one, thread="t")
        studio.answer(request, OMAR, Verdict.DENY)
        arguments = {
            "post": {"source": picture, "caption": caption, "to": "site"},
            "publish": {"source": picture, "to": "site"},
            "export_asset": {"asset": picture, "to": "site"},
        }[name]
        said = refusal(studio, job, call(name, arguments), thread="t2")
        assert "new job" in said


def test_what_is_made_of_a_denied_picture_is_closed_as_well(studio: Studio) -> None:
    with studio.guard.open_job("j", requested_by=LEE) as job:
        (picture,) = prepared(studio, job, "navy")
        (request,) = asks(
            studio, job, call("publish", {"source": picture, "to": "site"}), thread="t"
        )
        studio.answer(request, OMAR, Verdict.DENY)
        graph = build(studio, [
            says(call("crop", {"source": picture, "width": 30, "height": 30})),
        ], NODES)  # fmt: skip
        graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="c"))
        row = studio.guard.ledger.one(
            "SELECT id FROM assets JOIN lineage ON child = assets.sha256 LIMIT 1"
        )
        assert row is not None
        crop = {"source": row["id"], "caption": "other", "to": "site"}
        assert "new job" in refusal(studio, job, call("post", crop, "c"), thread="t2")


def test_a_no_after_the_approval_closes_what_was_not_begun(studio: Studio) -> None:
    """Two captions of one picture are approved; then somebody else looks, and says no to one."""
    with studio.guard.open_job("j", requested_by=LEE) as job:
        (picture,) = prepared(studio, job, "navy")
        calls = [
            call("post", {"source": picture, "caption": words, "to": "site"}, id=words)
            for words in ("one", "two")
        ]
        graph = build(studio, [says(*calls)], NODES)
        graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
        one, two = (each.request for each in studio.guard.approvals.list())
        for request in (one, two):
            assert studio.answer(request, OMAR).state == "approved"
        assert studio.answer(one, INES, Verdict.DENY).state == "denied"
        with pytest.raises(ApprovalError, match="is denied"):
            studio.answer(one, INES)  # whoever comes next
        state = graph.invoke(None, job.config(thread_id="t"))
        assert "__interrupt__" not in state
        assert {message.status for message in results(state)} == {"error"}
        again = call("post", {"source": picture, "caption": "three", "to": "site"})
        assert "new job" in refusal(studio, job, again, thread="t2")
    assert studio.world.count("post") == 0
    studio.guard.verify()


def test_other_places_other_media_and_other_jobs_are_open(studio: Studio) -> None:
    with studio.guard.open_job("j", requested_by=LEE) as job:
        navy, red = prepared(studio, job, "navy", "red")
        one = call("publish", {"source": navy, "to": "site"})
        (request,) = asks(studio, job, one, thread="t")
        studio.answer(request, OMAR, Verdict.DENY)
        assert asks(studio, job, call("publish", {"source": red, "to": "site"}), thread="t2")
    with studio.guard.open_job("again", requested_by=LEE) as job:
        (navy,) = prepared(studio, job, "navy")
        assert asks(studio, job, call("publish", {"source": navy, "to": "site"}), thread="t3")


def test_two_assets_of_which_one_was_denied(studio: Studio) -> None:
    @tool
    def both(sources: list[str], to: str) -> str:
        """Post pictures."""
        return "posted"

    studio.bind(both, stage="export", assets=["sources[]"], destination=Arg("to"),
                effect="opaque")  # fmt: skip
    with studio.guard.open_job("j", requested_by=LEE) as job:
        navy, red = prepared(studio, job, "navy", "red")
        one = call("publish", {"source": navy, "to": "site"})
        (request,) = asks(studio, job, one, thread="t")
        studio.answer(request, OMAR, Verdict.DENY)
        NODES_WITH = {**NODES, "x": ("publisher", [*NODES["x"][1], "both"])}
        graph = build(studio, [says(call("both", {"sources": [red, navy], "to": "site"}))],
                      NODES_WITH)  # fmt: skip
        state = graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="t2"))
        assert "new job" in results(state)[-1].content


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("tell", {"text": " our summer SALE starts, jane.doe@mail.example"}),
        ("tell", {"text": "Our summer\u200b sale starts, jane.doe@mail.example.", "hour": 9}),
        ("tell", {"text": "Our  summer   sale starts, jane.doe@mail.example!!"}),
        ("tell", {"text": "\u201c\uff2fur summer sale starts, jane.doe@mail.example\u201d"}),
        ("toot", {"words": "Our summer sale starts, jane.doe@mail.example", "title": "News"}),
    ],
)
def test_a_denied_text_is_known_by_its_words(
    studio: Studio, name: str, arguments: dict[str, Any]
) -> None:
    with studio.guard.open_job("j", requested_by=LEE) as job:
        one = call("tell", {"text": "Our summer sale starts, jane.doe@mail.example", "to": "blog"})
        (request,) = asks(studio, job, one, thread="t")
        studio.answer(request, OMAR, Verdict.DENY)
        said = refusal(studio, job, call(name, {**arguments, "to": "blog"}), thread="t2")
        assert "new job" in said
        other = call(
            "tell", {"text": "Thank you all for a fine year, jane.doe@mail.example", "to": "blog"}
        )
        assert asks(studio, job, other, thread="t3")


def test_questions_of_one_message_are_closed_by_one_no(studio: Studio) -> None:
    with studio.guard.open_job("j", requested_by=LEE) as job:
        (picture,) = prepared(studio, job, "navy")
        calls = [
            call("post", {"source": picture, "caption": f"number {n}", "to": "site"})
            for n in range(8)
        ]
        graph = build(studio, [says(*calls)], NODES)
        config = job.config(thread_id="t")
        graph.invoke({"messages": [("user", "go")]}, config)
        asked = [one.request for one in studio.guard.approvals.list()]
        assert len(asked) == 8
        studio.answer(asked[3], OMAR, Verdict.DENY)
        for other in asked[:3]:
            with pytest.raises(ApprovalError):
                studio.answer(other, OMAR)
        assert studio.guard.approvals.list() == ()
        state = graph.invoke(None, config)
        assert [m.status for m in results(state)] == ["error"] * 8
        assert studio.world.count("post") == 0


def test_an_approved_sibling_does_not_run_after_a_no(studio: Studio) -> None:
    with studio.guard.open_job("j", requested_by=LEE) as job:
        (picture,) = prepared(studio, job, "navy")
        calls = [
            call("post", {"source": picture, "caption": f"number {n}", "to": "site"})
            for n in range(2)
        ]
        graph = build(studio, [says(*calls)], NODES)
        config = job.config(thread_id="t")
        graph.invoke({"messages": [("user", "go")]}, config)
        first, second = [one.request for one in studio.guard.approvals.list()]
        studio.answer(first, OMAR)
        studio.answer(second, OMAR, Verdict.DENY)
        state = graph.invoke(None, config)
        assert [m.status for m in results(state)] == ["error"] * 2
        assert studio.world.count("post") == 0


@pytest.mark.parametrize("together", [True, False])
def test_people_are_asked_fifty_times_about_a_job(studio: Studio, together: bool) -> None:
    calls = [
        call("tell", {"text": f"message {n} of many, jane.doe@mail.example", "to": "blog"})
        for n in range(60)
    ]
    with studio.guard.open_job("j", requested_by=LEE) as job:
        script = [calls] if together else [calls[:45], calls[45:]]
        for number, message in enumerate(script):
            asks(studio, job, *message, thread=f"t{number}")
        assert len(studio.guard.approvals.list()) == 50
        rows = studio.guard.ledger.all("SELECT policies FROM requests WHERE effect = 'deny'")
        assert [row["policies"] for row in rows] == ['["agentguard.questions"]'] * 10
        said = refusal(
            studio,
            job,
            call("tell", {"text": "ask jane.doe@mail.example", "to": "blog"}),
            thread="last",
        )
        assert "50 times" in said
