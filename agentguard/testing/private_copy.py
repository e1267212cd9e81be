"""A workspace like a configured one, with places, keys and a time of its own."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agentguard.config.workspace import Workspace
from agentguard.ledger.open import wall_clock
from agentguard.people.signers import append_signer


class Clock:
    """The time of a ledger (ms): it begins now, and moves when it is told to."""

    def __init__(self) -> None:
        self._now = wall_clock()

    def __call__(self) -> int:
        return self._now

    def advance(self, by: int) -> None:
        """Move on.

        Args:
            by: ms, no less than 0.
        """
        self._now += by


def private_copy(real: Workspace, folder: Path) -> Workspace:
    """The same workspace with places of its own."""
    destinations = {
        name: replace(place, url=f"file://{folder / f'destination-{number}'}")
        if place.url and not place.url.startswith("vendor:")
        else place
        for number, (name, place) in enumerate(real.destinations.items(), start=1)
    }
    return replace(
        real,
        root=folder,
        ledger=f"sqlite:{folder / 'ledger.db'}",
        store=str(folder / "assets"),
        log_key=folder / "log.key",
        signers=folder / "signers",
        destinations=MappingProxyType(destinations),
    )


def keys_of(own: Workspace) -> Mapping[str, Ed25519PrivateKey]:
    """A key for each person, of which only the public half is written down."""
    keys = {person: Ed25519PrivateKey.generate() for person in own.people}
    for person, key in keys.items():
        append_signer(own.signers, person, key.public_key())
    return keys


def new_picture() -> bytes:
    """A PNG of 8 by 8 pixels that is like no other: equal bytes would share their class."""
    rows = b"".join(b"\0" + os.urandom(24) for _ in range(8))
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
