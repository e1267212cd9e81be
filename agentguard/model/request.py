"""What is asked for: a Request, and the assets it uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from agentguard.canonical import Canonical, digest_of, plain
from agentguard.model.vocabulary import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetUse:
    """One asset in a Request: which argument holds it, its bytes, its labels as judged.

    Args:
        media_type, extension: of the file that the tool gets.
    """

    argument: str
    asset: str
    sha256: str
    labels: frozenset[str]
    media_type: str = ""
    extension: str = ""


COVERED = (
    "workspace",
    "job",
    "agent",
    "stage",
    "tool",
    "binding",
    "args",
    "text_labels",
    "assets",
    "destination",
    "destination_digest",
)
"""Fields of a Request that both of its digests cover."""

COVERED_OF_AN_ASSET = ("argument", "sha256", "labels")
"""Fields of each AssetUse that they cover."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Who wants what on which Assets, to which Destination, in which Job.

    Args:
        stage: the stage of the credential; None for tools without media or effect.
        tool: the tool's name, as the model called it.
        binding: digest of the Binding and the tool's schema.
        args: what the tool's schema makes of the model's arguments, JSON mode, unset left out.
        text_labels: labels raised by the texts, and by media revealed to the model before.
        destination: id of the Destination, None where nothing leaves the workspace.
        destination_digest: digest of the Destination's configuration, None with it.
        call_key: names one call of one message of one thread of one job.
        revision: 0; one more each time that the call changed or is asked about anew.
    """

    workspace: str
    job: str
    agent: str
    stage: Stage | None
    tool: str
    binding: str
    args: Mapping[str, Any]
    text_labels: frozenset[str]
    assets: tuple[AssetUse, ...]
    destination: str | None
    destination_digest: str | None
    call_key: str
    revision: int

    @cached_property
    def text(self) -> str:
        """The canonical JSON of this Request: what its digest names and people are shown (I7)."""
        more = plain({"call_key": self.call_key, "revision": self.revision})
        return self._form.written(**more).decode("utf-8")

    @cached_property
    def digest(self) -> str:
        """The one name of this Request: what an Answer approves and a Grant permits (I7)."""
        return request_digest(self.text)

    @cached_property
    def content_digest(self) -> str:
        """The digest without call key and revision: equal for the same thing asked for again.

        It is the idempotency key of an export, and finds what a person already rejected.
        """
        return digest_of("agentguard/content/v1", self._form.written())

    @cached_property
    def _form(self) -> Canonical:
        return Canonical(self._body())

    def _body(self) -> dict[str, Any]:
        body = {name: getattr(self, name) for name in COVERED}
        body["assets"] = [
            {name: getattr(use, name) for name in COVERED_OF_AN_ASSET} for use in self.assets
        ]
        return body


def request_digest(text: str) -> str:
    """The digest of a Request's canonical JSON."""
    return digest_of("agentguard/request/v1", text.encode("utf-8"))
