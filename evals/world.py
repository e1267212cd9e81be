"""What really happened in a run: executed effects, counted where they happen.

Arrivals are noted by whatever writes to a destination, vendor bytes by a stub server on loopback,
tool runs in the tools' bodies; folders are read once more at the end, so that nothing arrives
unnoticed. What was attempted counts nowhere.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import io
import json
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image

from evals.crew import VENDOR
from evals.scenario import Expected

_INVISIBLE = re.compile("[\u200b-\u200f\u2060-\u2064\ufeff]")

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One thing that happened; the fields are those of `scenario.Expected`."""

    effect: str
    where: str
    asset: str = ""
    holds: str = ""

    def line(self) -> dict[str, str]:
        """As one line of JSON, short."""
        return {key: value[:200] for key, value in asdict(self).items() if value}


class World:
    """One run's folder, vendor stub and effects.

    Args:
        root: an empty folder of this run's own.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.out = root / "out"
        self.work = root / "work"
        self.outside = root / "outside"
        for folder in (self.out, self.work, self.outside):
            folder.mkdir()
        self.dropped = False
        self.crowd: threading.Barrier | None = None
        """Where racing uploads meet, so that who comes first is not left to the scheduler."""
        self.forged: list[tuple[str, dict[str, Any]]] = []
        """Node and call that a hostile plugin routes to."""
        self.busy = 0.0
        """Seconds spent in tool bodies, which is not the guard's time."""
        self._effects: list[Effect] = []
        self._names: dict[str, str] = {}
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    @property
    def url(self) -> str:
        """The loopback server: a vendor to whoever posts, a hostile site to whoever fetches."""
        with self._lock:
            if self._server is None:
                self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
                threading.Thread(target=self._server.serve_forever, args=(0.01,)).start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def note(self, effect: str, where: str, *, data: bytes | None = None, holds: str = "") -> None:
        """Something happened."""
        asset = "" if data is None else hashlib.sha256(data).hexdigest()
        with self._lock:
            self._effects.append(Effect(effect=effect, where=where, asset=asset, holds=holds))

    def name(self, data: bytes, name: str) -> None:
        """These bytes are called so in the scenario."""
        self._names.setdefault(hashlib.sha256(data).hexdigest(), name)

    def name_of(self, data: bytes) -> str:
        """What bytes are called in the scenario."""
        return self._names.get(hashlib.sha256(data).hexdigest(), UNKNOWN)

    def name_of_hash(self, sha256: str) -> str:
        """What bytes of this SHA-256 are called in the scenario."""
        return self._names.get(sha256, UNKNOWN)

    def meet(self) -> None:
        """Wait a moment for the other racers, if this is a race."""
        if self.crowd is not None:
            with contextlib.suppress(threading.BrokenBarrierError):  # nobody else gets this far
                self.crowd.wait(timeout=1.0)

    @contextlib.contextmanager
    def body(self) -> Iterator[None]:
        """Around a tool's own work."""
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.busy += time.perf_counter() - start

    def effects(self) -> list[Effect]:
        """All that happened, with assets by their names."""
        noted = list(self._effects)
        arrived = {(e.where, e.asset) for e in noted if e.effect == "arrived"}
        for file in sorted(p for p in self.out.rglob("*") if p.is_file() and p.suffix != ".txt"):
            where = file.relative_to(self.out).parts[0]
            asset = hashlib.sha256(file.read_bytes()).hexdigest()
            if (where, asset) not in arrived:
                noted.append(Effect(effect="arrived", where=where, asset=asset))
        for file in sorted(p for p in self.outside.rglob("*") if p.is_file()):
            data = file.read_bytes()
            if hashlib.sha256(data).hexdigest() not in self._names:
                noted.append(Effect(effect="wrote", where="outside", asset=""))
        return [
            Effect(effect=e.effect, where=e.where, holds=e.holds,
                   asset=self.name_of_hash(e.asset) if e.asset else "")
            for e in noted
        ]  # fmt: skip


def count(effects: Sequence[Effect], expected: Expected) -> int:
    """How often an expected effect happened."""
    return sum(
        effect.effect == expected.effect
        and expected.where in ("*", effect.where)
        and expected.asset in ("*", effect.asset)
        and (expected.holds is None or _plain(expected.holds) in _plain(effect.holds))
        for effect in effects
    )


def _plain(text: str) -> str:
    """A text as whoever receives it reads it: invisible characters taken out."""
    return _INVISIBLE.sub("", text)


def picture(path: Path, name: str, size: int = 384) -> bytes:
    """Paint a picture that depends on its name only and that a technical review finds sound."""
    path.write_bytes(_painting(name, size))
    return _painting(name, size)


@functools.lru_cache(maxsize=64)
def _painting(name: str, size: int) -> bytes:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 226, (12, 12, 3)).astype(np.uint8)
    image = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    target = io.BytesIO()
    image.save(target, "PNG", compress_level=1)
    return target.getvalue()


def _handler(world: World) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Says nothing: effects are noted instead."""

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            picture = base64.b64decode(body["image"]) if "image" in body else None
            world.note("sent", VENDOR, data=picture, holds=str(body.get("prompt", "")))
            painted = picture or _painted(world)
            self._answer({"data": [{"b64_json": base64.b64encode(painted).decode()}]})

        def do_GET(self) -> None:
            name = self.path.rsplit("/", 1)[-1].partition("?")[0]
            world.note("fetched", name, holds=self.path)
            file = world.outside / name
            self._send(file.read_bytes() if file.is_file() else b"", "image/png")

        def _answer(self, value: Any) -> None:
            self._send(json.dumps(value).encode(), "application/json")

        def _send(self, data: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler


def _painted(world: World) -> bytes:
    return picture(world.work / f"vendor-{threading.get_ident()}.png", "painted by the vendor", 64)
