"""An example uploader: how a developer's own tool for the export stage should behave.

Replace the copy by a call to your CMS or bucket and keep the three promises that a guard, a retry
and a reviewer rely on: the same key twice is one publication with one receipt; the same key with
other content is an error; a crash leaves either nothing or something that a retry completes.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from langchain_core.tools import BaseTool, tool
from pydantic import Field

from tools.shared.files import existing, refusal, written

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".mp4", ".mov", ".webm"})


def outbox_uploader(outboxes: Mapping[str, Path]) -> BaseTool:
    """The tool `publish_to_outbox`, for the export stage.

    Declare `to` as To() and give it the Destinations' own ids, so that what the
    guard judged is where it goes.

    Args:
        outboxes: an existing folder by outbox name; the model names one, never a path.
    """

    @tool(parse_docstring=True)
    def publish_to_outbox(
        source: str,
        to: str,
        idempotency_key: Annotated[str, Field(max_length=200)] = "",
    ) -> str:
        """Publish a finished picture or video to an outbox.

        Args:
            source: The file to publish.
            to: The outbox's name.
            idempotency_key: Names this publication, up to 200 characters. Publishing again under
                the same key does nothing and returns the same receipt. Empty means: named by its
                content.
        """
        path, outbox = existing(source), outboxes.get(to)
        if outbox is None or not outbox.is_dir():
            raise refusal(
                "to is not an outbox",
                got=repr(to[:80]),
                expected=f"one of {', '.join(sorted(outboxes)) or 'none'}, and its folder",
                do="Ask the operator for the outbox; this tool creates none.",
            )
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        # The source's own name stays behind: it can hold names, or what a model wrote there.
        suffix = path.suffix.lower() if path.suffix.lower() in _SUFFIXES else ""
        receipt = _receipt(outbox, idempotency_key or digest, {"file": digest + suffix})
        target = outbox / receipt["file"]
        if Path(receipt["file"]).stem != digest:
            raise refusal(
                "idempotency_key is taken",
                got="other content under the same key",
                expected=f"the content published before ({receipt['file'][:12]}...)",
                do="Use a new key for new content.",
            )
        if not target.exists():
            with written(str(target)) as scratch:
                _copy(path, scratch, digest)
        return f"Published as {receipt['file']}, receipt {receipt['receipt']}."

    return publish_to_outbox


def _receipt(outbox: Path, key: str, content: dict[str, str]) -> dict[str, str]:
    """The receipt under `key`: the one that exists, or else a new one for `content`.

    The receipt comes before the file, so that of two calls racing with one key and different
    content exactly one wins: `os.link` never replaces, whereas `os.replace` would.
    """
    name = hashlib.sha256(key.encode()).hexdigest()
    folder = outbox / ".receipts"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    draft = folder / f".{name}.{os.urandom(8).hex()}"
    try:
        draft.write_text(json.dumps({"receipt": name[:16], **content}), encoding="utf-8")
        os.link(draft, path)
    except FileExistsError:
        pass  # published, or about to be, by an earlier call
    finally:
        draft.unlink(missing_ok=True)
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _copy(source: Path, target: Path, digest: str) -> None:
    """Copy and hash in one pass, and refuse a file that changed since its digest was taken."""
    seen = hashlib.sha256()
    with source.open("rb") as read, target.open("wb") as write:
        while block := read.read(1 << 20):
            seen.update(block)
            write.write(block)
        write.flush()
        os.fsync(write.fileno())
    if seen.hexdigest() != digest:
        raise refusal(
            "source changed while it was published",
            got="other bytes than a moment before",
            expected="a finished file",
            do="Wait until it is written, then publish again.",
        )
