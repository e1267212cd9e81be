"""Bring a file in: inspect a private copy of it, then store that."""

from __future__ import annotations

import tempfile
from typing import BinaryIO

from agentguard.content.formats.identify import (
    Format,
    Limits,
    MediaRefused,
    inspect,
)
from agentguard.content.store import CHUNK, Store, reason_of
from agentguard.errors import AssetError


def take_in(store: Store, file: BinaryIO, *, limits: Limits) -> tuple[str, int, Format]:
    """Inspect a file and add it to a store; returns (SHA-256, size, format).

    What is inspected is a private copy, so that a file which changes meanwhile can't differ from
    what was looked at.

    Raises:
        AssetError: not media that this version knows, damaged, or over the limits.
    """
    try:
        with tempfile.TemporaryFile() as copy:
            while chunk := file.read(CHUNK):
                copy.write(chunk)
                if copy.tell() > limits.max_bytes:
                    raise AssetError(
                        f"the file is larger than {limits.max_bytes} bytes, the limit of this"
                        " workspace"
                    )
            copy.seek(0)
            format_ = inspect(copy, limits=limits)
            copy.seek(0)
            sha256, size = store.add(copy)
    except MediaRefused as error:
        raise AssetError(str(error)) from error
    except OSError as error:
        raise AssetError(f"the file can't be copied: {reason_of(error)}") from error
    return sha256, size, format_
