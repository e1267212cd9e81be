"""agentguard's side of a run: the workspace on disk, a clock to turn, adapters that count."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agentguard.export.folder import Adapter, Parcel
from agentguard.people.signers import append_signer
from agentguard.transparency.log_key import create_log_key
from evals.crew import PEOPLE, config, mail
from evals.world import World

START_OF_TIME = 1_800_000_000_000


class Clock:
    """The ledger's time, turned by hand."""

    def __init__(self) -> None:
        self.now = START_OF_TIME

    def __call__(self) -> int:
        return self.now


class Counting:
    """An adapter that notes what arrives."""

    def __init__(self, inner: Adapter, world: World, destination: str) -> None:
        self._inner = inner
        self._world = world
        self._id = destination

    def put(self, parcel: Parcel) -> str:
        location = self._inner.put(parcel)
        text = " ".join(parcel.texts.values())
        self._world.note("arrived", self._id, data=parcel.data, holds=text)
        return location

    def find(self, parcel_key: str, sha256: str) -> str | None:
        return self._inner.find(parcel_key, sha256)


def write_workspace(folder: Path) -> dict[str, Ed25519PrivateKey]:
    """The workspace on disk; returns everybody's private key, the same in every run."""
    (folder / "agentguard.toml").write_text(config(), "utf-8")
    (folder / ".agentguard").mkdir()
    create_log_key(folder / ".agentguard" / "log.key")
    keys = {}
    for name in PEOPLE:
        seed = hashlib.sha256(f"agentguard evals {name}".encode()).digest()
        keys[name] = Ed25519PrivateKey.from_private_bytes(seed)
        append_signer(folder / "agentguard.signers", mail(name), keys[name].public_key())
    return keys
