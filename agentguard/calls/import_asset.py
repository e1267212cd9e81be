"""Media that come into a workspace: a file that a person imports, or bytes of a message."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from agentguard.config.workspace import Workspace
from agentguard.content.formats.identify import Limits
from agentguard.content.intake import take_in
from agentguard.content.store import Store
from agentguard.content.text.scan import MAX_TEXT, scan
from agentguard.errors import AssetError
from agentguard.ledger.ledger import Ledger, Made
from agentguard.ledger.queries import assets
from agentguard.model import UNCLASSIFIED, Provenance, Terms, asset_id


class Importer:
    """Takes media into the store and the ledger.

    Args:
        workspace: says who the people are, and which classes there are.
        store: where the bytes go.
        ledger: where they are registered.
        limits: what may be taken in.
    """

    def __init__(
        self, *, workspace: Workspace, store: Store, ledger: Ledger, limits: Limits
    ) -> None:
        self._workspace = workspace
        self._store = store
        self._ledger = ledger
        self._limits = limits

    def import_file(
        self, file: Path | str, labels: Iterable[str], *, by: str, job: str | None
    ) -> str:
        """Take a file into the workspace; see `Guard.import_asset`."""
        if isinstance(labels, str):
            raise AssetError(f"labels={labels!r} is one string; write [{labels!r}]")
        unknown = sorted(set(labels) - set(self._workspace.classes))
        if unknown:
            known = ", ".join(sorted(self._workspace.classes))
            raise AssetError(f"no class {', '.join(unknown)} is configured; there are {known}")
        if by not in self._workspace.people:
            raise AssetError(f"{by} is no configured person")
        path = Path(file)
        if secrets := scan(path.name[:MAX_TEXT]).secrets:
            raise AssetError(f"its file name holds a secret ({secrets[0]}); give it another name")
        try:
            with path.open("rb") as opened:
                return self._register(opened, labels, by=by, job=job, name=path.name)
        except OSError as error:
            raise AssetError(f"{path.name} can't be read: {error.strerror}") from error

    def take_in(self, data: bytes, labels: Iterable[str], *, by: str, job: str, name: str) -> str:
        """Take in media that arrived inside a message; returns its asset id.

        Raises:
            AssetError: not media, damaged or too large.
        """
        known = self._ledger.first(assets.bytes_of_job(hashlib.sha256(data).hexdigest(), job))
        if known is not None and known.labels.issuperset(labels):
            return known.id
        return self._register(
            io.BytesIO(data), labels, by=by, job=job, name=name, answers_for=False
        )

    def _register(
        self,
        file: BinaryIO,
        labels: Iterable[str],
        *,
        by: str,
        job: str | None,
        name: str,
        answers_for: bool = True,
    ) -> str:
        """Register bytes; who imports known ones stands behind them, who posts them does not."""
        sha256, size, format_ = take_in(self._store, file, limits=self._limits)
        known = self._ledger.first(assets.asset_by_sha256(sha256))
        # Only bytes of unknown origin are unclassified: known ones keep the class they have.
        unnamed = frozenset() if known is not None else frozenset({UNCLASSIFIED})
        made = Made(
            sha256=sha256,
            id=asset_id(sha256),
            media_type=format_.media_type,
            extension=format_.extension,
            size=size,
            width=format_.width,
            height=format_.height,
            labels=(frozenset(labels) or unnamed) | format_.labels,
            terms=Terms(),
            provenance=Provenance.UNKNOWN,
            parents=(),
            contributors=frozenset({by} if answers_for or known is None else ()),
            name=name,
        )
        self._ledger.register(made, job=job, by=by, how="imported")
        return made.id
