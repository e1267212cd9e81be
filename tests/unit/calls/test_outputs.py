"""What a tool came back with is hostile: media becomes assets, text is cleaned, the rest stays."""

from __future__ import annotations

import base64
import contextlib
import datetime
import io
import json
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import StructuredTool
from PIL import Image
from pydantic import BaseModel

from agentguard.calls.results import Collected, Sources, collect, describe
from agentguard.config.schema import DEFAULT_CLASSES
from agentguard.content.blocks import NotInMessage, media_in, text_in
from agentguard.content.formats.identify import Limits
from agentguard.content.scratch import Scratch
from agentguard.content.store import Store
from agentguard.content.text.sanitize import clean
from agentguard.errors import AssetError
from agentguard.ledger.ledger import to_json
from agentguard.model import GENERATED, UNCLASSIFIED, AssetUse, Request, Stage, Terms
from tests.support.bindings import Binding
from tests.support.media_files import png

SECRET = "sk-ant-api03-" + "aB3dE5fG7h" * 4


B64 = base64.b64encode(png()).decode()
URL = f"data:image/png;base64,{B64}"


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Scratch]:
    limits = Limits(max_bytes=200_000, max_pixels=1_000_000)
    with Scratch(Store(str(tmp_path / "store")), limits=limits) as made:
        yield made


REQUEST = Request(
    workspace="acme",
    job="job-1",
    agent="editor",
    stage=Stage.EDIT,
    tool="work",
    binding="0" * 64,
    args={},
    text_labels=frozenset(),
    assets=(),
    destination=None,
    destination_digest=None,
    call_key="0" * 64,
    revision=0,
)


def run(
    scratch: Scratch,
    result: Any,
    *,
    outputs: dict[str, bytes | None] | None = None,
    request: Request = REQUEST,
    terms: tuple[Terms, ...] = (),
    **meaning: Any,
) -> Collected:
    """What is collected of a result; outputs maps an argument to the bytes written, None: none."""
    stage = meaning.pop("stage", "edit")
    artifact = isinstance(result, tuple)
    tool = StructuredTool(
        name="work",
        description="d",
        args_schema={
            "type": "object",
            "properties": {name: {"type": "string"} for name in outputs or ()},
        },
        func=print,
        response_format="content_and_artifact" if artifact else "content",
    )
    binding = Binding(tool, stage=stage, outputs=list(outputs or ()), **meaning)
    paths = {name: scratch.output(name, ".png") for name in outputs or ()}
    for name, data in (outputs or {}).items():
        if data is not None:
            Path(paths[name]).write_bytes(data)
    return collect(
        result,
        binding=binding,
        request=request,
        scratch=scratch,
        outputs=paths,
        sources=Sources(
            terms=terms,
            contributors=frozenset({"kim"}),
            classes=frozenset(DEFAULT_CLASSES),
            shown=frozenset(),
        ),
    )


def using(*labels: frozenset[str]) -> Request:
    uses = tuple(
        AssetUse(argument="a", asset=f"asset-{n}", sha256=f"{n}" * 64, labels=each)
        for n, each in enumerate(labels)
    )
    return replace(REQUEST, assets=uses)


# --- outputs --------------------------------------------------------------------------------------


def test_bound_outputs_become_assets_whatever_the_text_says(scratch: Scratch) -> None:
    got = run(scratch, "it failed, sorry", outputs={"file": png(), "thumb": png("red")})
    assert [made.name for made in got.made] == ["file", "thumb"]
    assert got.text.count("asset-") == 2


def test_a_missing_output_is_a_failure_whatever_the_text_says(scratch: Scratch) -> None:
    with pytest.raises(AssetError, match="no output"):
        run(scratch, "done, saved the file", outputs={"file": png(), "thumb": None})


@pytest.mark.parametrize(
    "files",
    [
        ["/etc/passwd"],
        "/etc/passwd",
        [7],
        [None],
        [b"x\xff"],
        {"file": "x"},
        ["a\0b"],
        ["https://evil.example/x.png"],
    ],
)
def test_a_returned_path_counts_only_in_the_scratch_folder(scratch: Scratch, files: Any) -> None:
    with pytest.raises(AssetError):
        run(scratch, ("done", {"files": files}))


def test_further_files_are_taken_in_once(scratch: Scratch) -> None:
    (scratch.folder / "a.png").write_bytes(png())
    path = scratch.folder / "a.png"
    got = run(scratch, ("done", {"files": [str(path), path, str(path)]}))
    assert [made.name for made in got.made] == ["file 1"]


# --- content blocks -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "source_type": "base64", "data": B64, "mime_type": "image/png"},
        {"type": "image", "base64": B64, "mime_type": "image/png"},
        {"type": "image", "url": URL},
        {"type": "image", "data": B64, "mimeType": "image/png"},
        {"type": "image", "data": "\n".join(B64[n : n + 76] for n in range(0, len(B64), 76))},
        {"type": "image", "data": png()},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": B64}},
        {"type": "document", "source": {"type": "base64", "data": B64}},
        {"type": "image_url", "image_url": {"url": URL}},
        {"type": "image_url", "image_url": URL},
        {"type": "input_image", "image_url": URL},
        {"type": "input_audio", "input_audio": {"data": B64, "format": "wav"}},
        {"type": "file", "file": {"filename": "x.png", "file_data": URL}},
        {"type": "media", "mime_type": "image/png", "data": B64},
        {"type": "resource", "resource": {"uri": "file:///x.png", "blob": B64}},
    ],
)
def test_media_blocks_of_every_shape_become_assets(scratch: Scratch, block: Any) -> None:
    got = run(scratch, [{"type": "text", "text": "here"}, block])
    (made,) = got.made
    assert made.media_type == "image/png"
    assert got.text.startswith("here\nblock 1: asset-")
    assert B64[:40] not in got.text


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "url": "https://evil.example/x.png"},
        {"type": "image", "source_type": "url", "url": "http://127.0.0.1/x"},
        {"type": "image", "file_id": "f-1"},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "image_url", "image_url": "data:image/png,notbase64"},
        {"type": "resource_link", "uri": "https://evil.example"},
        {"type": "video", "data": "///not base64///"},
        {"type": "image", "data": base64.b64encode(png()[:50]).decode()},
        {"type": "image", "data": "A" * 2_000_000},
        {"type": "image", "base64": "\ud800"},
        {"type": "image"},
    ],
)
def test_media_that_is_not_in_the_message_or_no_media_is_refused(
    scratch: Scratch, block: Any
) -> None:
    with pytest.raises(AssetError):
        run(scratch, [block])


def test_bytes_as_a_result_are_media_and_never_text(scratch: Scratch) -> None:
    got = run(scratch, png())
    assert len(got.made) == 1
    assert "PNG" not in got.text
    with pytest.raises(AssetError):
        run(scratch, b"\xff\xfe no media")


def test_too_many_blocks_are_refused(scratch: Scratch) -> None:
    with pytest.raises(AssetError, match="at most 64"):
        run(scratch, [{"type": "image", "data": B64}] * 65)


def test_a_tool_without_a_stage_returns_no_media(scratch: Scratch) -> None:
    with pytest.raises(AssetError, match="stage"):
        run(scratch, [{"type": "image", "data": B64}], stage=None)
    assert run(scratch, "plain", stage=None).text == "plain"


def test_a_tool_message_and_a_list_of_data_are_read_too(scratch: Scratch) -> None:
    message = ToolMessage([{"type": "text", "text": "hi"}, {"type": "image", "base64": B64}],
                          tool_call_id="1")  # fmt: skip
    assert len(run(scratch, message).made) == 1
    assert run(scratch, [{"name": "x", "size": 2}]).text == '[{"name": "x", "size": 2}]'
    text = {"type": "resource", "resource": {"uri": "file:///x", "text": "words"}}
    assert run(scratch, [text]).text == "words"


def test_what_can_not_be_written_as_json_is_only_named() -> None:
    loop: list[Any] = []
    loop.append(loop)
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    assert text_in(loop) == "[list]"
    assert text_in({"n": 10**5000}) == "[dict]"
    assert text_in(deep) == "[list]"
    assert text_in({(1, 2): 3}) == "[dict]"
    assert text_in({"a": b"\x89PNG", "b": object()}) == '{"a": "[bytes]", "b": "[object]"}'


def test_media_of_a_block_is_in_the_message_or_refused() -> None:
    (held,) = media_in([{"type": "image", "data": B64}], max_bytes=10**6)
    assert held == base64.b64decode(B64)
    with pytest.raises(NotInMessage):
        list(media_in([{"type": "image", "url": "https://x.example"}], max_bytes=10**6))


# --- text -----------------------------------------------------------------------------------------


def test_the_model_reads_ids_in_place_of_paths(scratch: Scratch) -> None:
    path = scratch.output("other", ".png")
    got = run(scratch, f"wrote {path} in {scratch.folder}", outputs={"file": png()})
    assert str(scratch.folder) not in got.text
    assert got.text.startswith("wrote [file] in [folder]\nfile: asset-")


def test_S16_secrets_in_a_tools_text_are_redacted(scratch: Scratch) -> None:
    for where in ("start {} end", "x" * 7_950 + " {}", "x " * 3_990 + "{}"):
        got = run(scratch, where.format(SECRET))
        assert SECRET[:24] not in got.text


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;https://evil.example\x1b\\link", "link"),
        ("\x9b2Jgone", "gone"),
        ("a\x00b\x08c\x7f\r\nd\te", "abc\nd\te"),
        ("\u202egnp.exe\u202c", "gnp.exe"),
        ("a\u200bb\ufeffc\u00add", "abcd"),
        ("hi\U000e0049\U000e0067there", "hithere"),
        ("one\u2028two", "one\ntwo"),
        ("lone \ud800 surrogate", "lone  surrogate"),
        ("fam\u200dily \U0001f468\u200d\U0001f469", "fam\u200dily \U0001f468\u200d\U0001f469"),
        ("", ""),
    ],
)
def test_characters_that_nobody_sees_are_left_out(said: str, seen: str) -> None:
    assert clean(said) == seen


@pytest.mark.parametrize(
    "said",
    [B64 * 4, URL, "\n".join([B64[:76]] * 5), png().hex() * 3,
     base64.urlsafe_b64encode(png() * 3).decode()],
)  # fmt: skip
def test_media_written_as_text_does_not_pass_the_chat_models_ceiling(said: str) -> None:
    assert clean(f"see {said} there").startswith("see [data]")


def _lines(text: str, length: int, between: str) -> str:
    return between.join(text[at : at + length] for at in range(0, len(text), length))


@pytest.mark.parametrize("length", [1, 5, 16, 40, 50, 55, 59, 64])
@pytest.mark.parametrize("between", ["\n", " ", "\r\n", "\n> ", '", "', "\n12: "])
@pytest.mark.parametrize("encode", [base64.b64encode, lambda data: data.hex().encode()])
def test_media_in_lines_of_any_length_does_not_pass(
    length: int, between: str, encode: Callable[[bytes], bytes]
) -> None:
    """Judged without what stands between the lines."""
    if "12" in between and length < 40:
        return  # the numbers are as long as the lines
    photograph = random.Random(5).randbytes(2_000)
    said = _lines(encode(photograph).decode(), length, between)
    for text in (said, "Here is the picture of the customer as you wished " * 20 + said):
        seen = clean(text)
        assert "[data]" in seen
        assert longest_encoded(seen) < 80


def longest_encoded(text: str) -> int:
    """Of what is left, the most characters in a row that came from the picture."""
    left = re.split(r"\[data\]|\[cut\]", text)
    return max(len(re.sub(r"Here is the picture of the customer as you wished|\W", "", one))
               for one in left)  # fmt: skip


@pytest.mark.parametrize(
    "said",
    [
        "\n".join(f"asset-{number:020x}" for number in range(0, 10**22, 10**21 // 2)),
        "A B C D 1 2 3 cut to 1920x1080, 1280x720 and 640x360 at 25fps " * 10,
        '{"width": 1920, "height": 1080, "codec": "h264", "name": "IMG_0012 B-roll 4K"} ' * 10,
        "The NASA Photo of 2024 and the BBC Clip of 1999 show the ISS at 400 km " * 10,
        "Donaudampfschifffahrtsgesellschaft und Rindfleischetikettierungsgesetz " * 10,
    ],
)
def test_words_and_ids_are_no_media(said: str) -> None:
    assert "[data]" not in clean(said)


def test_a_long_text_is_cut_between_words_and_costs_little() -> None:
    seen = clean("word " * 100_000)
    assert len(seen) < 8_100
    assert seen.endswith("[cut]")
    assert len(clean("語" * 20_000)) > 7_900
    before = time.process_time()  # CPU: what else runs here does not count
    for text in ("\x1b]" * 20_000, "\x1b[" * 20_000, ("a" * 59 + " ") * 600, "a" * 32_000):
        clean(text)
    assert time.process_time() - before < 30  # minutes, if it were quadratic


# --- labels, terms --------------------------------------------------------------------------------


def labels_of(scratch: Scratch, result: Any = "x", **more: Any) -> frozenset[str]:
    return run(scratch, result, outputs={"file": png()}, **more).made[0].labels


def test_I4_an_output_carries_the_labels_of_all_that_went_in(scratch: Scratch) -> None:
    request = using(frozenset({"brand"}), frozenset({"likeness", "brand"}))
    request = replace(request, text_labels=frozenset({"personal-data"}))
    got = labels_of(scratch, ("x", {"labels": ["embargoed"]}), request=request, labels=["licensed"])
    assert got == {"brand", "likeness", "personal-data", "embargoed", "licensed"}


def test_S33_nothing_known_is_unclassified_and_a_generator_makes_generated(
    scratch: Scratch,
) -> None:
    assert labels_of(scratch) == {UNCLASSIFIED}
    assert labels_of(scratch, stage="generate") == {GENERATED}
    assert labels_of(scratch, stage="generate", labels=[]) == {UNCLASSIFIED}


@pytest.mark.parametrize(
    ("said", "labels"),
    [
        (["made-up"], {"brand", UNCLASSIFIED}),
        ("regulated", {"brand", "regulated"}),
        ({"regulated"}, {"brand", "regulated"}),
        ([], {"brand"}),
        (None, {"brand"}),
        (["\ud800"], {"brand", UNCLASSIFIED}),
        (["two words"], {"brand", UNCLASSIFIED}),
        (["\x1b[31m"], {"brand", UNCLASSIFIED}),
        (["x" * 100], {"brand", UNCLASSIFIED}),
        ([7, None, {"a": 1}], {"brand", UNCLASSIFIED}),
        ({"brand": False}, {"brand", UNCLASSIFIED}),
        ([f"l{n}" for n in range(100)], {"brand", UNCLASSIFIED}),
    ],
)
def test_labels_of_a_tool_only_raise(scratch: Scratch, said: Any, labels: set[str]) -> None:
    request = using(frozenset({"brand"}))
    got = labels_of(scratch, ("x", {"labels": said}), request=request)
    assert got == labels
    to_json(got)


def test_terms_merge_to_the_strictest(scratch: Scratch) -> None:
    terms = (
        Terms(until=200, channels=frozenset({"a", "b"})),
        Terms(until=100, release_at=50, channels=frozenset({"b", "c"})),
        Terms(release_at=70, consent=False),
        Terms(),
    )
    made = run(scratch, "x", outputs={"file": png()}, terms=terms).made[0]
    assert made.terms == Terms(until=100, release_at=70, channels=frozenset({"b"}), consent=False)
    disjoint = (Terms(channels=frozenset({"a"})), Terms(channels=frozenset({"b"})))
    made = run(scratch, "x", outputs={"file": png()}, terms=disjoint).made[0]
    assert made.terms == Terms(channels=frozenset())


def test_parents_and_contributors_come_from_the_request(scratch: Scratch) -> None:
    request = using(frozenset({"brand"}), frozenset({"brand"}))
    (made,) = run(scratch, "x", outputs={"file": png()}, request=request).made
    assert made.parents == ("0" * 64, "1" * 64)
    assert made.contributors == {"kim"}
    assert describe(made).startswith(f"{made.id} (image/png 16x16, 1 kB, class brand)")


# --- findings -------------------------------------------------------------------------------------


def findings_of(scratch: Scratch, said: Any, **more: Any) -> list[str]:
    got = run(scratch, ("x", {"findings": said}), stage="review", **more)
    to_json(list(got.findings))
    return [finding["severity"] for finding in got.findings]


@pytest.mark.parametrize(
    ("said", "severities"),
    [
        ([], []),
        ([{"severity": "info", "message": "fine"}], ["info"]),
        ([{"severity": "INFO"}], ["error"]),
        ([{"severity": ["info"]}], ["error"]),
        ([{"message": "no severity"}], ["error"]),
        (["a bare word"], ["error"]),
        ([None, 7], ["error", "error"]),
        ({"severity": "warning"}, ["warning"]),
        ("bad", ["error"]),
        ([{"severity": "info", "message": "\ud800\x1b[0m" + SECRET}], ["info"]),
        ([{"severity": "info"}] * 200 + [{"severity": "error"}], ["error"] + ["info"] * 99),
    ],
)
def test_findings_are_never_better_than_they_say(
    scratch: Scratch, said: Any, severities: list[str]
) -> None:
    assert findings_of(scratch, said) == severities


def test_I11_a_review_that_left_no_findings_is_not_clean(scratch: Scratch) -> None:
    results: tuple[Any, ...] = (
        "all good!",
        ("all good!", None),
        ("all good!", {}),
        ("x", "junk"),
    )
    for result in results:
        (finding,) = run(scratch, result, stage="review").findings
        assert (finding["severity"], finding["code"]) == ("error", "no-findings")
    assert run(scratch, "x", stage="edit").findings == ()


def test_a_finding_holds_no_secret(scratch: Scratch) -> None:
    said = [{"severity": "info", "message": SECRET, "code": "c " * 250}]
    (finding,) = run(scratch, ("x", {"findings": said}), stage="review").findings
    assert SECRET[:24] not in finding["message"]
    assert len(finding["code"]) == 80


@pytest.mark.parametrize("result", [None, 7, 3.5, object(), {"a": {1, 2}}, (), [[]], float("nan")])
def test_any_result_at_all_is_text_or_an_asset_error(scratch: Scratch, result: Any) -> None:
    tool_result = (result, result)
    for each in (result, tool_result):
        with contextlib.suppress(AssetError):
            to_json(run(scratch, each).text)


# --- what nobody declared -------------------------------------------------------------------------


class Answer(BaseModel):
    data: list[dict[str, Any]]


@dataclass
class Held:
    data: Any


TINY = png(size=1)
UNDECLARED: dict[str, Any] = {
    "b64_json": {"data": [{"b64_json": B64}]},
    "pydantic": Answer(data=[{"b64_json": B64}]),
    "dataclass": Held(png()),
    "base64 text": B64,
    "base64 in a sentence": f"here it is: {B64} as you asked",
    "base64 glued to a word": f"b64_{B64}",
    "tiny base64": base64.b64encode(TINY).decode(),
    "urlsafe base64": base64.urlsafe_b64encode(png()).decode(),
    "base64 in short lines": "\n".join(B64[n : n + 20] for n in range(0, len(B64), 20)),
    "base64 in JSON in JSON": json.dumps(json.dumps({"image": B64})),
    "base64 of base64": base64.b64encode(B64.encode() * 2).decode(),
    "base64 of an unknown kind": base64.b64encode(bytes(range(256))).decode(),
    "data URL": URL,
    "data URL in capitals": f"DATA:IMAGE/PNG;BASE64,{B64}",
    "data URL with parameters": f"data:image/png;name=a.png;base64,{B64}",
    "data URL without base64": "data:image/svg+xml,%3Csvg%3E%3C/svg%3E",
    "data URL without a kind": f"data:;base64,{B64}",
    "hex": png().hex(),
    "hex in pairs": png().hex(":"),
    "tiny hex": TINY.hex(),
    "repr of bytes": repr(png()),
    "bytes as characters": png().decode("latin-1"),
    "bytes in a mapping": {"image": png()},
    "bytearray in a list": [bytearray(png())],
    "list of numbers": {"image": list(png())},
    "list of numbers as text": str(list(png())),
    "a picture as an object": Image.new("RGB", (4, 4)),
    "a file as an object": {"file": io.BytesIO(png())},
    "artifact with bytes": ("done", {"image": png()}),
    "artifact with base64": ("done", {"image": B64}),
    "artifact as an object": ("done", Image.new("RGB", (4, 4))),
    "ToolMessage with an artifact": ToolMessage("done", artifact=png(), tool_call_id="1"),
    "text block with a data URL": [{"type": "text", "text": URL}],
    "text beside a block": [{"type": "text", "text": png("red").hex()}, {
        "type": "image", "base64": B64}],
}  # fmt: skip


@pytest.mark.parametrize("result", UNDECLARED.values(), ids=UNDECLARED)
def test_media_in_a_result_that_nobody_declared_fails_the_call(
    scratch: Scratch, result: Any
) -> None:
    with pytest.raises(AssetError, match="result="):
        run(scratch, result)


@pytest.mark.parametrize(
    "result",
    [
        "a cat, 24x24, 1.5 kB; see https://example.com/a.png",
        "-" * 400,
        "#" * 300 + "| --- " * 80,
        "sha256 " + "0123456789abcdef" * 4,
        "data: png, jpeg; data:none",
        {"sizes": [1, 2, 3], "embedding": [0.25] * 64, "counts": list(range(64))},
        {"note": base64.b64encode(b"only words, and more of them. " * 10).decode()},
        ("done", {"n": 1, "at": datetime.datetime(2030, 1, 1)}),
        ("done", None),
        "see and/or either/or n/a 1/2 ../x.png README",
        "\u00e9\u00e8 \u8a9e" * 40,
    ],
)
def test_a_result_without_media_passes(scratch: Scratch, result: Any) -> None:
    assert run(scratch, result).made == ()


def test_media_that_was_taken_in_may_stand_in_the_result_again(scratch: Scratch) -> None:
    got = run(scratch, ("done", {"image": png()}), outputs={"file": png()})
    assert len(got.made) == 1
    got = run(scratch, [{"type": "text", "text": URL}, {"type": "image", "base64": B64}])
    assert len(got.made) == 1
    assert B64[:40] not in got.text


@pytest.mark.parametrize(
    "said",
    ["{}", "saved to {}", "saved to {}.", "saved ({}), see there", "path={}", '{{"path": "{}"}}',
     "file://{}", "[the picture](file://{})", "`{}`", "MEDIA:{}", "line\n{}\nline", "a,{},b"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["out.png", "my new picture.png", "picture"])
def test_a_text_that_names_a_file_elsewhere_fails_the_call(
    scratch: Scratch, tmp_path: Path, said: str, name: str
) -> None:
    (tmp_path / name).write_bytes(png())
    for result in (said.format(tmp_path / name), {"x": [said.format(tmp_path / name)]},
                   ("done", {"x": said.format(tmp_path / name)})):  # fmt: skip
        with pytest.raises(AssetError, match="Output") as caught:
            run(scratch, result)
        assert str(tmp_path) not in str(caught.value)


def test_files_are_found_by_every_spelling(
    scratch: Scratch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a b.png").write_bytes(png())
    (tmp_path / "c.png").write_bytes(png())
    (scratch.folder / "link.png").symlink_to(tmp_path / "c.png")
    url = (tmp_path / "out" / "a b.png").as_uri()
    for said in ("out/a b.png", "see out/a b.png now", "c.png", "saved c.png.", "./c.png", url,
                 "~/c.png", f"it is {url}!", tmp_path / "c.png",
                 f"{scratch.folder}/link.png"):  # fmt: skip
        with pytest.raises(AssetError, match="Output"):
            run(scratch, said)
    assert run(scratch, f"in {scratch.folder}/none.png, c2.png").made == ()
