"""A tool's text as the model reads it: no URL in any spelling, no path, and no wait."""

from __future__ import annotations

import time

import pytest

from agentguard.content.text.sanitize import clean, without_paths, without_urls

SIG = "sig=5d41402abc4b"


@pytest.mark.parametrize(
    "url",
    [
        f"https://cdn.x/out.png?{SIG}",
        f"https:\\/\\/cdn.x/out.png?{SIG}",
        f"https:\\u002f\\u002fcdn.x\\u002fout.png?{SIG}",
        f"https:\\\\u002F\\\\u002Fcdn.x/out.png?{SIG}",
        f"https\\u003a\\x2f\\x2fcdn.x/out.png?{SIG}",
        f"https&#58;//cdn.x/out.png?{SIG}",
        f"https&#x3A;&#47;&#x2f;cdn.x/out.png?{SIG}",
        f"https&colon;&sol;&sol;cdn.x/out.png?{SIG}",
        f"https%3A%2F%2Fcdn.x/out.png?{SIG}",
        f"https%253A%252F%252Fcdn.x/out.png?{SIG}",
        f"https:\\\\cdn.x\\out.png?{SIG}",
        f"https\u200b:\u200b/\x1b[0m/cdn.x/out.png?{SIG}",
        f"s3://bucket/out.png?{SIG}",
        f"gs://bucket/out.png?{SIG}",
        f"wss://cdn.x/out.png?{SIG}",
        f"x-vendor+tls.2://cdn.x/out.png?{SIG}",
        f"file:///home/kim/out.png?{SIG}",
        f"//cdn.x/out.png?{SIG}",
        f"//localhost:8000/out.png?{SIG}",
        f"//[::1]/out.png?{SIG}",
        f"\\/\\/cdn.x\\/out.png?{SIG}",
        "a" * 600 + f"https://cdn.x/out.png?{SIG}",
    ],
)
def test_I3_no_spelling_of_a_url_is_left(url: str) -> None:
    for text, rest in (
        (url, "[url]"),
        (f"see {url} or ask", "see [url] or ask"),
        (f'{{"u":"{url}"}}', '{"u":"[url]"}'),
    ):
        assert clean(without_urls(text)) == rest


@pytest.mark.parametrize(
    "text",
    ["3:2 or 16/9", "and/or", "a // b", "// a comment", "note: done", "width=4:height=2",
     "at 12:30, see page 4/5", "std::vector<int>", "asset-0123456789abcdef0123 (image/png, 1 kB)"],
)  # fmt: skip
def test_what_is_no_url_stays(text: str) -> None:
    assert without_urls(text) == text


def test_no_path_of_this_machine_is_left() -> None:
    assert without_paths("no /home/kim/.ssh/id_rsa here") == "no [file] here"


@pytest.mark.parametrize("word", ["a", "a ", "/", "//", ":", "a:", "\\", "a.", "//a.", "%25", "&#0",
                                  "x" * 511 + " ", "0" * 199 + "!", "A" * 70 + " "])  # fmt: skip
def test_a_long_text_costs_no_more_than_its_length(word: str) -> None:
    text = (word * 100_000)[:100_000]
    start = time.process_time()
    clean(without_paths(without_urls(text)))
    assert time.process_time() - start < 5  # minutes, if it were quadratic


def test_a_text_is_cut_between_two_words() -> None:
    assert clean("word " * 1_599 + "secret-" * 20) == "word " * 1_599 + "[cut]"
    assert len(clean("x!" * 50_000)) == 8_000 - 512 + len("[cut]")
