"""Media that a vendor left at a URL, fetched once (I3).

The URL comes from a tool's result, so it is hostile. It is opened only if its host is one that the
Destination lists, over https, at a public address that was resolved once and is connected to as
resolved. No redirect is followed, nothing is decoded, and size and time are bounded. No message
repeats the URL: its query often is a key.

For tests, and for vendors that run on the same machine, a loopback host that is listed by name and
port (`127.0.0.1:8188`) is reached over http too.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from agentguard.errors import AssetError

TOTAL_S = 300.0
"""How long one fetch may take, from the first packet to the last byte."""

_IDLE_S = 20.0
_CHUNK = 1 << 16
_LONGEST = 8192
_LOOPBACK = ("localhost", "127.0.0.1")
_URL = re.compile(r"https?://[a-z0-9][a-z0-9.-]*(?::[0-9]{1,5})?(?:[/?][!-~]*)?")

# Beyond what the ipaddress module calls global: what leads to IPv4 inside IPv6, and old site-local.
_BARRED = tuple(
    map(
        ipaddress.ip_network,
        ("64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16", "fec0::/10", "::/96"),
    )
)

Address = tuple[socket.AddressFamily, tuple[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    secure: bool
    host: str
    port: int
    path: str


def fetch(
    url: str,
    *,
    hosts: frozenset[str],
    target: BinaryIO,
    max_bytes: int,
    total_s: float = TOTAL_S,
    idle_s: float = _IDLE_S,
) -> None:
    """Fetch what lies at a URL, once; what it is, is for the caller to inspect.

    Args:
        url: as the tool returned it.
        hosts: `cdn.vendor.example` or `host:port`, as the Destination lists them; exact.
        target: gets the bytes; on an error what is in it must not be used.
        max_bytes: no more is read.
        total_s: seconds for all of it.
        idle_s: seconds without a byte.

    Raises:
        AssetError: it is not to be opened, can't be reached, or answered with anything but one
            whole, undecoded body. The text names the host at most, and only a listed one.
    """
    wanted = _target(url, hosts)
    deadline = time.monotonic() + total_s
    try:
        with _connected(wanted, idle_s=min(idle_s, total_s), total_s=total_s) as connection:
            connection.request("GET", wanted.path, headers=_HEADERS)
            response = connection.getresponse()
            expected = _length(response, wanted.host, max_bytes)
            got = 0
            while (chunk := response.read1(_CHUNK)) and time.monotonic() < deadline:
                got += len(chunk)
                if got > max_bytes:
                    raise _too_large(wanted.host, max_bytes)
                target.write(chunk)
            if time.monotonic() >= deadline:  # a cut looks like an end
                raise AssetError(f"{wanted.host} was too slow: over {total_s:.0f} s")
            if expected is not None and got != expected:
                raise AssetError(f"{wanted.host} sent {got} of the {expected} bytes it announced")
    except AssetError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        slow = time.monotonic() > deadline or isinstance(error, TimeoutError)
        why = "it was too slow" if slow else type(error).__name__
        said = f"what the tool returned can't be fetched from {wanted.host}: {why}"
        raise AssetError(said) from None  # an error of these may quote the URL


_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "agentguard",
            "Connection": "close"}  # fmt: skip


def _target(url: str, hosts: frozenset[str]) -> _Target:
    """The parts of a URL that may be opened.

    Raises:
        AssetError: another scheme, a host or port that is not listed, user names, odd characters.
    """
    # One form only, in ASCII: no user, no backslash, no bracket, nothing two parsers read in two
    # ways. An IDN has to be in its xn-- form, and listed so.
    head, slash, rest = url.partition("#")[0][: _LONGEST + 1].partition("://")
    place, path = re.match(r"([^/?]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    plain = f"{head.lower()}{slash}{place.lower()}{path}"
    if len(url) > _LONGEST or _URL.fullmatch(plain) is None:
        raise AssetError("the tool returned a URL of a form that is not opened")
    parts = urlsplit(plain)
    secure, host = parts.scheme == "https", parts.hostname or ""
    try:
        port = parts.port
    except ValueError:
        port = 0
    usual = 443 if secure else 80
    listed = f"{host}:{port}" in hosts if port is not None else False
    listed = listed or (host in hosts and port in (None, usual))
    if not listed:
        raise AssetError(
            "the tool returned a URL of a host that its destination does not list; an operator"
            " can add it to hosts="
        )
    if not secure and host not in _LOOPBACK:
        raise AssetError(f"the tool returned a URL of {host} that is not https")
    tail = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Target(secure=secure, host=host, port=port or usual, path=tail)


def _looked_up(host: str, port: int, timeout_s: float) -> list[Any]:
    """The addresses of a host. A look-up can't be cut, so it is left alone when its time is over.

    Raises:
        AssetError: no address.
        TimeoutError: nobody answered in time.
    """
    found: list[Any] = []

    def look_up() -> None:
        with contextlib.suppress(OSError, UnicodeError):
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))

    thread = threading.Thread(target=look_up, name="agentguard-look-up", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise TimeoutError(host)
    if not found:
        raise AssetError(f"{host} has no address")
    return list(found)


def _resolved(host: str, port: int, timeout_s: float) -> Address:
    """The one address to connect to: resolved once, so that a second answer can't replace it.

    Raises:
        TimeoutError: it took longer than `timeout_s` seconds.
        AssetError: no address, or any that is not public (loopback for a listed loopback host).
    """
    found = _looked_up(host, port, timeout_s)
    addresses: list[Address] = [(family, (str(place[0]), port)) for family, _, _, _, place in found]
    for _, (address, _) in addresses:
        if not (_is_loopback(address) if host in _LOOPBACK else _is_public(address)):
            raise AssetError(f"{host} has an address inside a private network")
    return addresses[0]


def _is_public(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:  # with a zone, for one
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return False  # no resolver answers so for a public host
        if any(address in network for network in _BARRED):
            return False
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_link_local
        or address.is_private or address.is_unspecified or address.is_loopback
    )  # fmt: skip


def _is_loopback(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def _connected(
    wanted: _Target, *, idle_s: float, total_s: float
) -> Iterator[http.client.HTTPConnection]:
    """A connection to the resolved address, which is cut when its time is over."""
    family, place = _resolved(wanted.host, wanted.port, idle_s)
    connection = http.client.HTTPConnection(wanted.host, wanted.port, timeout=idle_s)
    connection.default_port = 443 if wanted.secure else 80  # signed URLs sign the Host header
    held: list[socket.socket] = [socket.socket(family, socket.SOCK_STREAM)]

    def cut() -> None:
        # Wakes a read that a server feeds byte by byte, in the headers too.
        with contextlib.suppress(OSError):
            held[-1].shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(total_s, cut)
    timer.daemon = True
    timer.start()
    try:
        held[0].settimeout(idle_s)
        held[0].connect(place)
        if wanted.secure:
            trusted = ssl.create_default_context()
            held.append(trusted.wrap_socket(
                held[0], server_hostname=wanted.host, do_handshake_on_connect=False
            ))  # fmt: skip
            held[-1].do_handshake()  # type: ignore[attr-defined]
        connection.sock = held[-1]
        yield connection
    finally:
        timer.cancel()
        connection.close()
        for each in held:
            each.close()


def _length(response: http.client.HTTPResponse, host: str, max_bytes: int) -> int | None:
    """The announced length of a whole, undecoded body, None if it is not announced."""
    if 300 <= response.status < 400:
        raise AssetError(f"{host} redirects elsewhere, which is not followed")
    if response.status != 200:  # 206 is a part
        raise AssetError(f"{host} answered {response.status}")
    coding = response.getheader("Content-Encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise AssetError(f"{host} sent an encoded body, which was not asked for")
    announced = response.getheader("Content-Length")
    if announced is None:
        return None
    if not announced.isascii() or not announced.isdigit():
        raise AssetError(f"{host} announced no length that can be read")
    if int(announced) > max_bytes:
        raise _too_large(host, max_bytes)
    return int(announced) if response.length is not None else None


def _too_large(host: str, max_bytes: int) -> AssetError:
    return AssetError(f"{host} sends more than {max_bytes} bytes, the limit of this workspace")
