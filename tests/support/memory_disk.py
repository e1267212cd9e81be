"""Where tests write: into memory if there is room, since a commit waits for a disk many times."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")
_ROOM = 2 << 30  # bytes


def use_memory_disk() -> None:
    """Have `tempfile`, pytest and their child processes use it, unless TMPDIR names a place."""
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK):
        return
    if shutil.disk_usage(_MEMORY).free >= _ROOM:
        os.environ["TMPDIR"] = str(_MEMORY)
        tempfile.tempdir = None  # or a place that was looked up before would stay
