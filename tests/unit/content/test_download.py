"""A returned URL under attack: which are opened, at which address, and how much is read (I3)."""

from __future__ import annotations

import gzip
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agentguard.content.download import fetch
from agentguard.errors import AssetError

QUERY = "X-Signature=5d41402abc4b2a76b9719d911017c592"
Answer = Callable[[socket.socket, str], None]


@contextmanager
def server(answer: Answer, *, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[str]]]:
    """A server of raw sockets on loopback: yields its `host:port` and what it was asked."""
    asked: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            client.settimeout(5)
            try:
                if tls is not None:
                    client = tls.wrap_socket(client, server_side=True)
                head = client.recv(65536).decode("latin-1")
                asked.append(head)
                answer(client, head)
            except OSError:
                pass  # the fetch hung up, which is what most of these tests want
            finally:
                client.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", asked
    finally:
        ended.set()
        thread.join()
        listener.close()


def says(*parts: bytes, pause: float = 0.0) -> Answer:
    def answer(client: socket.socket, head: str) -> None:
        for part in parts:
            client.sendall(part)
            time.sleep(pause)

    return answer


def body(data: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + data


def get(url: str, *hosts: str, max_bytes: int = 1000, **more: Any) -> bytes:
    target = io.BytesIO()
    fetch(url, hosts=frozenset(hosts), target=target, max_bytes=max_bytes, **more)
    return target.getvalue()


# --- what is fetched ---------------------------------------------------------------------------


def test_a_listed_host_is_asked_once_and_plainly() -> None:
    with server(says(body(b"bytes", "Content-Type: text/html"))) as (place, asked):
        assert get(f"http://{place}/out.png?{QUERY}#part", place) == b"bytes"
    ((line, *headers),) = [head.split("\r\n") for head in asked]
    assert line == f"GET /out.png?{QUERY} HTTP/1.1"
    sent = {header.partition(":")[0].lower() for header in headers if header}
    assert sent == {"host", "accept", "accept-encoding", "user-agent", "connection"}
    assert f"Host: {place}" in headers


def test_a_body_in_chunks_is_read_to_its_end() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with server(says(head, b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n")) as (place, _):
        assert get(f"http://{place}/", place) == b"abcde"


# --- what is not opened ------------------------------------------------------------------------

UNOPENED = [
    "http://cdn.example/x",  # not https
    "https://other.example/x",
    "https://sub.cdn.example/x",
    "https://cdn.example.evil.example/x",
    "https://cdn.example./x",  # a trailing dot is another name
    "https://cdn.example:8443/x",
    "https://cdn.example:99999/x",
    "https://cdn.example@evil.example/x",
    "https://evil.example\\@cdn.example/x",
    "https://user:pass@cdn.example/x",
    "https://cdn.example\t.evil.example/x",
    "https://cdn.example/a b",
    "https://cdn.example/\r\nX-Header: 1",
    "https://ⓒdn.example/x",
    "https://cdn%2eexample/x",
    "https://127.0.0.1/x",
    "https://2130706433/x",
    "https://0x7f000001/x",
    "https://0177.0.0.1/x",
    "https://127.1/x",
    "https://[::1]/x",
    "https://[::ffff:127.0.0.1]/x",
    "https://169.254.169.254/latest/meta-data",
    "http://localhost/x",
    "https:///x",
    "https:cdn.example/x",
    "//cdn.example/x",
    "cdn.example/x",
    "ftp://cdn.example/x",
    "file:///etc/passwd",
    "data:image/png;base64,AAAA",
    "gopher://cdn.example/x",
    "",
    "https://cdn.example/" + "x" * 9000,
]


@pytest.mark.parametrize("url", UNOPENED)
def test_I3_what_is_not_listed_word_for_word_is_not_even_resolved(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(*_: Any, **__: Any) -> Any:
        raise AssertionError("resolved")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(AssetError) as caught:
        get(url, "cdn.example")
    for word in ("evil", "passwd", "pass", "X-Header", "meta-data"):
        assert word not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "0.0.0.0", "192.0.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1",
        "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1",
        "fd00:ec2::254", "fec0::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "::7f00:1",
        "64:ff9b::7f00:1", "2002:7f00:1::1", "2001:0:7f00:1::", "2001:db8::1", "",
    ],
)  # fmt: skip
def test_I3_a_listed_host_with_a_private_address_is_not_connected_to(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 443))
    private = (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))
    made: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [public, private])
    monkeypatch.setattr(socket, "socket", lambda *a: made.append(a))
    with pytest.raises(AssetError, match=r"cdn\.example has an address inside a private network"):
        get("https://cdn.example/x", "cdn.example")
    assert made == []


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"])
def test_I3_a_name_is_resolved_once_and_that_address_connected_to(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the second answer would be loopback, and is never asked for."""
    answers = iter([address, "127.0.0.1", "127.0.0.1"])
    connected: list[Any] = []

    class Socket:
        def __init__(self, *_: Any) -> None: ...

        def settimeout(self, _: float) -> None: ...

        def close(self) -> None: ...

        def connect(self, place: Any) -> None:
            connected.append(place)
            raise ConnectionRefusedError

    def resolve(host: str, port: int, **_: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "socket", Socket)
    with pytest.raises(AssetError, match="ConnectionRefusedError"):
        get("https://cdn.example/x", "cdn.example")
    assert connected == [(address, 443)]
    assert next(answers) == "127.0.0.1"


def test_I3_a_loopback_name_must_lead_to_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    found = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 80))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [found])
    with pytest.raises(AssetError, match="private"):
        get("http://localhost:8188/x", "localhost:8188")


# --- what a hostile server answers -------------------------------------------------------------

BOMB = gzip.compress(b"0" * 10_000_000)
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (says(body(b"", "Location: http://169.254.169.254/", status="302 Found")), "redirects"),
        (says(body(b"", "Location: /again", status="308 Permanent Redirect")), "redirects"),
        (says(body(b"part", "Content-Range: bytes 0-3/9", status="206 Partial Content")), "206"),
        (says(body(b"no", status="404 Not Found")), "404"),
        (says(body(b"", status="204 No Content")), "204"),
        (says(body(BOMB[:900], "Content-Encoding: gzip")), "encoded"),
        (says(body(b"x", "Content-Encoding: identity, br")), "encoded"),
        (says(OK + b"Content-Length: 5000\r\n\r\n"), "more than 1000"),
        (says(OK + b"Content-Length: 500\r\n\r\nshort"), "5 of the 500"),
        (says(OK + b"Content-Length: -1\r\n\r\nx"), "no length"),
        (says(OK + b"Content-Length: 1e9\r\n\r\nx"), "no length"),
        (says(OK + b"\r\n" + b"x" * 70_000), "more than 1000"),
        (says(OK + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFF\r\n" + b"x" * 2000), "more than"),
        (says(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nxx"), "fetched from"),
        (says(OK + b"A: 1\r\n" * 5000), "fetched from"),
        (says(OK + b"A: " + b"x" * 200_000), "fetched from"),
        (says(b"\x00\x01\x02 not http at all\r\n\r\n"), "fetched from"),
        (says(b""), "fetched from"),
    ],
)  # fmt: skip
def test_only_one_whole_undecoded_answer_is_taken(answer: Answer, said: str) -> None:
    with server(answer) as (place, asked):
        with pytest.raises(AssetError, match=said) as caught:
            get(f"http://{place}/out.png?{QUERY}", place)
        assert QUERY not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert len(asked) == 1  # not asked again, not followed


def drip(*parts: bytes) -> Answer:
    """Byte by byte, each well within the idle time, for ever."""

    def answer(client: socket.socket, head: str) -> None:
        for part in parts:
            client.sendall(part)
        while True:
            client.sendall(b"x")
            time.sleep(0.02)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        drip(OK, b"A: "),  # a header without an end
        drip(OK, b"\r\n"),
        says(OK, b"\r\n", b"", pause=0.8),  # a pause without an end
    ],
)
def test_a_server_that_feeds_slowly_is_cut_off(answer: Answer) -> None:
    with server(answer) as (place, _):
        begun = time.monotonic()
        with pytest.raises(AssetError, match=r"too slow|sent|can't be fetched"):
            get(f"http://{place}/", place, total_s=0.4, idle_s=0.3)
        assert time.monotonic() - begun < 60  # it drips for hours


# --- https -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of 127.0.0.1 with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "vendor")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "vendor.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


def test_https_needs_a_certificate_that_is_trusted(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with server(says(body(b"bytes")), tls=tls) as (place, asked):
        with pytest.raises(AssetError, match="SSLCertVerificationError"):
            get(f"https://{place}/", place)
        assert asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert get(f"https://{place}/", place) == b"bytes"
        monkeypatch.delenv("SSL_CERT_FILE")


def test_a_look_up_that_nobody_answers_ends_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(30) and [])
    try:
        with pytest.raises(AssetError, match=r"cdn\.example: it was too slow"):
            fetch(
                "https://cdn.example/x",
                hosts=frozenset({"cdn.example"}),
                target=io.BytesIO(),
                max_bytes=10,
                idle_s=0.01,
            )
    finally:
        answered.set()
