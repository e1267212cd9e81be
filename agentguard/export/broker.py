"""The way out: sends the private copy that was hashed, under a claimed Grant, with its key.

In-process here; the only code that holds credentials of export destinations (S16).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agentguard.errors import AssetError, DestinationError
from agentguard.export.folder import Adapter, Parcel, adapter_for
from agentguard.forks import call_in_children
from agentguard.model import Destination, asset_id

EXPORT_ASSET = "export_asset"
"""The guard's own tool that sends: its parcels have names that `Broker.find` knows to look for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Proof of what was sent where, for the ledger."""

    destination: str
    location: str
    sha256: str


class Broker:
    """Sends parcels to destinations.

    Args:
        destinations: the configured ones, by id.
        make_adapter: how an adapter is made; tests put a failing one here.
    """

    def __init__(
        self,
        destinations: Mapping[str, Destination],
        *,
        make_adapter: Callable[[Destination], Adapter] = adapter_for,
    ) -> None:
        self._destinations = destinations
        self._make = make_adapter
        self._adapters: dict[str, Adapter] = {}
        self._reset()
        call_in_children(self._reset)

    def _reset(self) -> None:
        """A forked child may find the lock held, by a thread that it does not have."""
        self._lock = threading.Lock()

    def send(
        self,
        *,
        destination: str,
        key: str,
        path: str,
        sha256: str,
        extension: str,
        texts: Mapping[str, str],
    ) -> Receipt:
        """Send one asset; the caller holds a claimed Grant for exactly this.

        Args:
            key: the idempotency key of the Grant.
            path: the private copy in the call's scratch folder.
            sha256: what was decided on; other bytes are refused (I12).

        Raises:
            AssetError: the copy is not what was decided on; nothing was sent.
            DestinationError: the destination refused or could not be reached.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise AssetError(f"the copy of {asset_id(sha256)} is gone") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise AssetError(f"{asset_id(sha256)} changed between decision and sending")
        parcel = Parcel(
            key=key, sha256=sha256, name=f"{sha256[:20]}{extension}", data=data, texts=texts
        )
        adapter = self._adapter(destination)
        try:
            location = adapter.put(parcel)
        except AssetError as error:  # not of the checks above: it may have been sent
            raise DestinationError(f"{destination}: {error}", outcome_unknown=True) from error
        return Receipt(destination=destination, location=location, sha256=sha256)

    def digest(self, destination: str) -> str | None:
        """The digest of a Destination's configuration as it is now; None if there is none."""
        known = self._destinations.get(destination)
        return known.digest if known is not None else None

    def find(self, *, destination: str, key: str, sha256: str) -> Receipt | None:
        """What arrived under a key, to reconcile an `unknown` (I8); None if nothing did.

        Raises:
            DestinationError: it could not be found out.
        """
        location = self._adapter(destination).find(key, sha256)
        if location is None:
            return None
        return Receipt(destination=destination, location=location, sha256=sha256)

    def _adapter(self, name: str) -> Adapter:
        destination = self._destinations.get(name)
        if destination is None:
            raise DestinationError(f"no destination {name} is configured", outcome_unknown=False)
        with self._lock:
            if name not in self._adapters:
                self._adapters[name] = self._make(destination)
            return self._adapters[name]
