"""In the wild: a URL in, a request id out, polling, and the result left at a URL."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import BaseTool, tool
from pydantic import AnyUrl, BaseModel, HttpUrl

from agentguard.bindings.bound import Bound
from agentguard.calls import results as outputs
from agentguard.content.download import TOTAL_S, fetch
from agentguard.errors import BindingError
from tests.support import KIM
from tests.support.bindings import Binding
from tests.support.desk import SECRET, Desk, Vendor, desk, rows, vendor
from tests.support.media_files import png


def tools(service: Vendor) -> tuple[BaseTool, BaseTool]:
    """A vendor's two endpoints, wrapped as its SDK's examples do."""

    def ask(path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{service.base}{path}", data, timeout=5) as response:
            return json.load(response)

    @tool
    def image_to_video(prompt: str, image_url: str) -> dict[str, Any]:
        """Submit an image-to-video request. Returns its request id; poll get_video with it."""
        return dict(ask("/submit", {"prompt": prompt, "image_url": image_url}))

    @tool
    def get_video(request_id: str) -> dict[str, Any]:
        """Get the status of a request, and the URL of the video when it is completed."""
        return dict(ask(f"/requests/{request_id}"))

    return image_to_video, get_video


def bind(at: Desk, service: Vendor) -> Desk:
    submit, result = tools(service)
    return at.bind(
        Binding(submit, stage="generate", texts=["prompt"], assets={"image_url": "data-url"},
                destination="videos", starts="request_id"),
        Binding(result, stage="generate", operations={"request_id": "image_to_video"},
                destination="videos", urls=["images[].url"]),
    )  # fmt: skip


@pytest.fixture
def service() -> Iterator[Vendor]:
    with vendor() as made:
        yield made


def test_a_url_in_a_request_id_out_and_polling(tmp_path: Path, service: Vendor) -> None:
    with desk(tmp_path, service.place) as at:
        bind(at, service)
        guard = at.studio.guard
        with guard.open_job("film", requested_by=KIM) as job:
            logo = job.import_asset(at.studio.picture(), ["brand"])
            refused = at.act(job, "image_to_video", prompt="waves",
                             image_url=f"{service.base}/files/out.png")  # fmt: skip
            assert "takes an asset id" in refused.content
            submitted = at.act(job, "image_to_video", prompt="waves", image_url=logo)
            assert submitted.status == "success"
            assert str(submitted.content).endswith("\noperation: req-0001")
            for _ in range(2):
                running = at.act(job, "get_video", request_id="req-0001")
                assert running.content == '{"status": "IN_PROGRESS"}'
            done = at.act(job, "get_video", request_id="req-0001")
            (video,) = at.made()
            assert f"url 1: {video['id']} (image/png 16x16" in done.content
            assert video["labels"] == {"brand", "generated"}
            assert len(at.parents(video["sha256"])) == 1
        guard.verify()
        texts = str(rows(at, "SELECT * FROM outcomes"))
        assert '"url": "[url]"' in json.loads(json.dumps(done.content))
    (sent,) = service.submitted
    assert sent["image_url"].startswith("data:image/png;base64,")
    assert service.seen.count(f"GET /files/out.png?{SECRET}") == 1
    for place in (texts, at_text(submitted), at_text(done)):
        assert SECRET not in place
        assert service.place not in place


def at_text(message: Any) -> str:
    return f"{message.content} {message.artifact}"


def test_the_log_holds_neither_url_nor_secret(
    tmp_path: Path, service: Vendor, caplog: pytest.LogCaptureFixture
) -> None:
    service.polls = 0
    service.files.clear()  # the fetch fails, and its error is told
    with desk(tmp_path, service.place) as at, caplog.at_level(0):
        bind(at, service)
        with at.studio.guard.open_job("film", requested_by=KIM) as job:
            logo = job.import_asset(at.studio.picture(), ["brand"])
            at.act(job, "image_to_video", prompt="waves", image_url=logo)
            failed = at.act(job, "get_video", request_id="req-0001")
            assert failed.content == "get_video failed: 127.0.0.1 answered 404"
            service.files["/files/out.png"] = png()
            assert at.act(job, "get_video", request_id="req-0001").status == "success"
        assert SECRET not in at.logged() + caplog.text + str(rows(at, "SELECT * FROM outcomes"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<html>not a video</html>", "failed"),
        (png()[:-20], "failed"),
        (b"", "failed"),
        (b"\x00" * 4096, "failed"),
    ],
)
def test_what_lies_at_the_url_is_inspected_like_any_output(
    tmp_path: Path, service: Vendor, data: bytes, said: str
) -> None:
    service.polls = 0
    service.files["/files/out.png"] = data
    with desk(tmp_path, service.place) as at:
        bind(at, service)
        with at.studio.guard.open_job("film", requested_by=KIM) as job:
            logo = job.import_asset(at.studio.picture(), ["brand"])
            at.act(job, "image_to_video", prompt="waves", image_url=logo)
            answer = at.act(job, "get_video", request_id="req-0001")
        assert answer.status == "error"
        assert said in answer.content
        assert at.made() == []


def test_a_url_of_a_host_that_is_not_listed_is_not_opened(tmp_path: Path, service: Vendor) -> None:
    service.polls = 0
    with desk(tmp_path, "cdn.vendor.example") as at:
        bind(at, service)
        with at.studio.guard.open_job("film", requested_by=KIM) as job:
            logo = job.import_asset(at.studio.picture(), ["brand"])
            at.act(job, "image_to_video", prompt="waves", image_url=logo)
            answer = at.act(job, "get_video", request_id="req-0001")
        assert answer.status == "error"
        assert "a host that its destination does not list" in answer.content
    assert not [line for line in service.seen if "/files/" in line]


def test_a_url_that_is_missing_is_a_failure_unless_it_is_a_poll(tmp_path: Path) -> None:
    @tool
    def generate_clip(prompt: str) -> str:
        """Generate a clip."""
        return "Error: no credits, see https://vendor.example/billing?key=5d41"

    with desk(tmp_path, "cdn.vendor.example") as at:
        at.bind(Binding(generate_clip, stage="generate", texts=["prompt"], destination="videos",
                        urls=["url"]))  # fmt: skip
        with at.studio.guard.open_job("film", requested_by=KIM) as job:
            answer = at.act(job, "generate_clip", prompt="waves")
    assert answer.status == "error"
    assert answer.content == (
        "generate_clip failed: its result holds no URL of media; it said: Error: no credits, see"
        " [url]"
    )


def test_a_tool_that_returns_urls_needs_hosts_to_fetch_from(
    tmp_path: Path, service: Vendor
) -> None:
    with desk(tmp_path) as at, pytest.raises(BindingError, match="lists no hosts"):
        bind(at, service)


class Source(BaseModel):
    url: HttpUrl


class Loose(BaseModel):
    url: AnyUrl


@pytest.mark.parametrize(
    ("schema", "meaning", "said"),
    [
        (Source, {"plain": ["url"]}, "never the model's to name"),
        (Loose, {"texts": ["url"]}, "never the model's to name"),
        (Loose, {"assets": ["url"]}, "data-url"),
        (Source, {"assets": {"url": "data-url"}}, "short web addresses only"),
    ],
)
def test_I3_a_url_argument_is_never_the_models_to_write(
    schema: Any, meaning: Any, said: str
) -> None:
    @tool(args_schema=schema)
    def fetch_media(url: Any) -> str:
        """Fetch."""
        return ""

    with pytest.raises(BindingError, match=said):
        Bound(Binding(fetch_media, stage="edit", **meaning))


def test_a_loose_url_argument_gets_an_asset_as_data(tmp_path: Path) -> None:
    got: list[str] = []

    @tool(args_schema=Loose)
    def measure(url: AnyUrl) -> str:
        """Measure."""
        got.append(str(url))
        return "16"

    with desk(tmp_path) as at:
        at.bind(Binding(measure, stage="edit", assets={"url": "data-url"}))
        with at.studio.guard.open_job("film", requested_by=KIM) as job:
            logo = job.import_asset(at.studio.picture(), ["brand"])
            assert at.act(job, "measure", url=logo).content == "16"
            refused = at.act(job, "measure", url="https://evil.example/x")
            assert refused.status == "error"
    assert [url[:22] for url in got] == ["data:image/png;base64,"]


def many(at: Desk, service: Vendor, count: int) -> Desk:
    """A tool whose result names as many URLs."""

    @tool
    def generate_set(prompt: str) -> dict[str, list[str]]:
        """Generate a set of pictures."""
        return {"urls": [f"{service.base}/files/{n}.png" for n in range(count)]}

    return at.bind(Binding(generate_set, stage="generate", texts=["prompt"], destination="videos",
                           urls=["urls[]"]))  # fmt: skip


def stored(at: Desk) -> int:
    return sum(path.is_file() for path in Path(at.studio.guard.workspace.store).rglob("*"))


def test_a_result_names_64_urls_or_operations_at_most(tmp_path: Path) -> None:
    with vendor() as service, desk(tmp_path, service.place) as at:
        many(at, service, 65)
        with at.studio.guard.open_job("set", requested_by=KIM) as job:
            answer = at.act(job, "generate_set", prompt="waves")
        assert "65 ids or URLs, at most 64" in answer.content
        assert service.seen == []


@pytest.mark.parametrize("last", [None, b"\x89PNG\r\n\x1a\n broken"])
def test_nothing_is_stored_of_a_call_whose_last_url_fails(
    tmp_path: Path, last: bytes | None
) -> None:
    with vendor() as service, desk(tmp_path, service.place) as at:
        many(at, service, 3)
        service.files |= {f"/files/{n}.png": png(size=9 + n) for n in range(2)}
        if last is not None:
            service.files["/files/2.png"] = last
        with at.studio.guard.open_job("set", requested_by=KIM) as job:
            assert at.act(job, "generate_set", prompt="waves").status == "error"
            assert stored(at) == 0
            service.files["/files/2.png"] = png(size=11)
            assert at.act(job, "generate_set", prompt="waves").status == "success"
            assert stored(at) == 3


def test_what_one_call_fetches_has_one_size_and_one_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = {f"/files/{n}.png": png(size=9 + n) for n in range(3)}
    rooms: list[tuple[int, float]] = []

    def spied(url: str, *, max_bytes: int, total_s: float, **more: Any) -> None:
        rooms.append((max_bytes, total_s))
        fetch(url, max_bytes=max_bytes, total_s=total_s, **more)

    monkeypatch.setattr(outputs, "fetch", spied)
    with vendor() as service, desk(tmp_path, service.place) as at:
        many(at, service, 3)
        service.files |= pictures
        sizes = [len(data) for data in pictures.values()]
        claims = at.studio.guard.enforcement.claims
        claims.limits = replace(claims.limits, max_bytes=sum(sizes) - 1)
        with at.studio.guard.open_job("set", requested_by=KIM) as job:
            answer = at.act(job, "generate_set", prompt="waves")
        assert (answer.status, stored(at)) == ("error", 0)
    assert [room for room, _ in rooms] == [
        sum(sizes) - 1, sum(sizes[1:]) - 1, sizes[2] - 1
    ]  # fmt: skip
    times = [left for _, left in rooms]
    assert times == sorted(times, reverse=True)
    assert times[-1] < times[0] <= TOTAL_S
