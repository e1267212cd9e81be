import base64
import io
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import ToolException
from PIL import Image
from pydantic import ValidationError

from tests.unit.tools.samples import pattern
from tools.generate import MODEL, connect, generate_image, picture_from_openai


def encoded(width: int = 1536, height: int = 1024) -> str:
    file = io.BytesIO()
    pattern(width, height).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@dataclass
class Vendor:
    """A stand-in for api.openai.com on loopback."""

    status: int = 200
    answer: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    hang_up: bool = False
    requests: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    @contextmanager
    def running(self, port: int = 0) -> Iterator["Vendor"]:
        vendor = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                vendor.requests.append({"path": self.path, **body})
                if vendor.hang_up:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                data = json.dumps(vendor.answer).encode()
                self.send_response(vendor.status)
                for name, value in vendor.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def draw(url: str, width: int = 800, height: int = 500) -> Image.Image:
    with connect("sk-test", url, timeout=5) as client:
        return picture_from_openai(client, "a secret plan", width, height)


def test_openai_is_asked_once_with_an_explicit_model_and_the_nearest_size() -> None:
    with Vendor(answer={"created": 1, "data": [{"b64_json": encoded()}]}).running() as vendor:
        picture = draw(vendor.url)
    assert picture.size == (800, 500)
    assert vendor.requests == [
        {
            "path": "/v1/images/generations",
            "model": MODEL,
            "prompt": "a secret plan",
            "size": "1536x1024",
            "n": 1,
        }
    ]


def test_the_tool_uses_openai_when_the_environment_has_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(tmp_path / "out.jpg")
    with Vendor(answer={"created": 1, "data": [{"b64_json": encoded()}]}).running() as vendor:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        monkeypatch.setenv("OPENAI_BASE_URL", vendor.url)
        said = generate_image.invoke({"prompt": "x", "file": file, "width": 300, "height": 256})
    assert MODEL in said
    with Image.open(file) as picture:
        picture.load()
        assert (picture.size, picture.format) == ((300, 256), "JPEG")


def test_a_refused_connection_is_tried_again_and_succeeds() -> None:
    port = closed_port()
    vendor = Vendor(answer={"created": 1, "data": [{"b64_json": encoded()}]})
    started = threading.Event()
    done = threading.Event()

    def open_late() -> None:
        started.wait()
        with vendor.running(port):
            done.wait(10)

    thread = threading.Thread(target=open_late)
    thread.start()
    threading.Timer(0.1, started.set).start()
    try:
        picture = draw(f"http://127.0.0.1:{port}/v1")
    finally:
        done.set()
        thread.join()
    assert picture.size == (800, 500)
    assert len(vendor.requests) == 1


def test_a_host_that_stays_away_is_given_up_after_three_attempts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "tools.generate")
    with pytest.raises(ToolException, match=r"no connection.*Nothing was sent"):
        draw(f"http://127.0.0.1:{closed_port()}/v1")
    assert [record.args for record in caplog.records] == [(1,), (2,)]


@pytest.mark.parametrize("status", [400, 401, 408, 429, 500, 503])
def test_no_status_is_retried(status: int) -> None:
    vendor = Vendor(status=status, answer={"error": {"message": "secret detail"}})
    with vendor.running(), pytest.raises(ToolException, match=f"HTTP status {status}") as refused:
        draw(vendor.url)
    assert len(vendor.requests) == 1
    assert "secret" not in str(refused.value)
    assert "sk-test" not in str(refused.value)


def test_a_connection_lost_after_sending_is_not_retried() -> None:
    with (
        Vendor(hang_up=True).running() as vendor,
        pytest.raises(ToolException, match="may have been made and billed"),
    ):
        draw(vendor.url)
    assert len(vendor.requests) == 1


def test_a_redirect_does_not_carry_the_prompt_elsewhere() -> None:
    with Vendor().running() as elsewhere:
        headers = {"Location": f"{elsewhere.url}/images/generations"}
        vendor = Vendor(status=307, headers=headers)
        with vendor.running(), pytest.raises(ToolException, match="HTTP status 307"):
            draw(vendor.url)
    assert len(vendor.requests) == 1
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    "data",
    [
        [],
        [{"url": "http://127.0.0.1:9/x.png"}],
        [{"b64_json": "!!!"}],
        [{"b64_json": base64.b64encode(b"no picture").decode()}],
        [{"b64_json": encoded()[:4000]}],
    ],
    ids=["nothing", "a url", "not base64", "not a picture", "truncated"],
)
def test_an_answer_without_a_whole_picture_is_refused(
    data: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Vendor(answer={"created": 1, "data": data}).running() as vendor:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        monkeypatch.setenv("OPENAI_BASE_URL", vendor.url)
        with pytest.raises(ToolException):
            generate_image.invoke({"prompt": "x", "file": str(tmp_path / "out.png")})
    assert list(tmp_path.iterdir()) == []
    assert len(vendor.requests) == 1


@pytest.mark.parametrize(
    "wrong",
    [{"width": 255}, {"height": 2049}, {"seed": -1}, {"prompt": ""}, {"prompt": "x" * 4001}],
)
def test_arguments_out_of_range_are_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        generate_image.invoke({"prompt": "sea", "file": str(tmp_path / "out.png"), **wrong})


@pytest.mark.parametrize("name", ["out.gif", "missing/out.png", ""])
def test_an_unusable_output_is_refused_and_nothing_is_left(name: str, tmp_path: Path) -> None:
    with pytest.raises(ToolException):
        generate_image.invoke(
            {"prompt": "sea", "file": str(tmp_path / name), "width": 256, "height": 256}
        )
    assert list(tmp_path.iterdir()) == []
