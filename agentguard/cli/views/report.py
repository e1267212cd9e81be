"""What the doctor says, and how it looks at the places where files go."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from agentguard.config.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the doctor: `ok`, `look` (it works, but read this) or `bad`."""

    state: Literal["ok", "look", "bad"]
    what: str
    text: str
    todo: str = ""


def ok(what: str, text: str) -> Finding:
    """It is well."""
    return Finding(state="ok", what=what, text=text)


def look(what: str, text: str, todo: str) -> Finding:
    """It works, but read this."""
    return Finding(state="look", what=what, text=text, todo=todo)


def destinations(workspace: Workspace) -> Iterator[Finding]:
    """Each destination that bytes are sent to; vendors get theirs from tools."""
    from agentguard.model import Audience

    seen: dict[str, str] = {}
    for name, target in workspace.destinations.items():
        if target.audience is Audience.VENDOR:
            continue
        if not target.url:
            yield ok(name, "has no url: your own tool sends there, export_asset does not")
            continue
        yield writable(name, target.url)
        other = seen.setdefault(target.url, name)
        if other != name:
            yield look(name, f"is the same place as {other}", "give each its own url")


def writable(what: str, url: str) -> Finding:
    """Whether files can be put somewhere; local folders are tried, others only reached."""
    if url.startswith("file://") or "://" not in url:
        return _folder(what, Path(url.removeprefix("file://")))
    return _elsewhere(what, url)


def _folder(what: str, folder: Path) -> Finding:
    there = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
    if not there.is_dir():
        return Finding(
            state="bad", what=what, text=f"{there} is no folder", todo="name a folder in its url"
        )
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Finding(
            state="bad",
            what=what,
            text=f"{there} can't be written: {error.strerror}",
            todo="give the process that runs the graph the right to write there",
        )
    return ok(what, f"{folder}{'' if there == folder else ' (made when first used)'}")


def _elsewhere(what: str, url: str) -> Finding:
    import fsspec

    scheme = url.partition(":")[0]
    try:
        system, root = fsspec.core.url_to_fs(url)
        system.exists(root)
    except Exception as error:  # noqa: BLE001 - any driver's error; its text may hold a secret (S16)
        return Finding(
            state="bad",
            what=what,
            text=f"{scheme}: can't be reached: {type(error).__name__}",
            todo=f"install what fsspec needs for {scheme}: and give this process its credentials",
        )
    return ok(what, f"{scheme}: answers; writing is not tried")
