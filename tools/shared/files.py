"""Reading and writing files the way every tool here does: plain files in, whole files out."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from langchain_core.tools import ToolException


def refusal(what: str, *, got: object, expected: str, do: str) -> ToolException:
    """The error of a tool that cannot use its input: what, got, expected, what to do."""
    return ToolException(f"{what}: got {got}, expected {expected}. {do}")


def existing(source: str, name: str = "source") -> Path:
    """The path of a regular file that is not empty; raises ToolException otherwise.

    Devices and pipes are refused before anything opens them: reading one could block for good.
    """
    path = Path(source)
    try:
        usable = path.is_file() and path.stat().st_size > 0
    except (OSError, ValueError):  # too long, a NUL byte, a folder that may not be read
        usable = False
    if not usable:
        raise refusal(
            f"{name} cannot be read",
            got=f"'{path.name[:80]}', which is missing, empty or not a regular file",
            expected="a file with media in it",
            do=f"Pass {name} as the path of an existing file.",
        )
    return path


@contextmanager
def written(file: str) -> Iterator[Path]:
    """Yield a scratch path beside `file`; it becomes `file` on success and vanishes on failure.

    The scratch name keeps the suffix, so that encoders can choose a format by it.
    """
    target = Path(file)
    if not target.name or not target.parent.is_dir() or target.is_dir():
        raise refusal(
            "file cannot be written",
            got=f"'{target.name[:80]}' in a folder that is missing, or the name of a folder",
            expected="a file name in an existing folder",
            do="Create the folder first, or pass another file.",
        )
    scratch = target.with_name(f".writing-{secrets.token_hex(8)}{target.suffix[:16]}")
    # Created by hand for the umask's sake: mkstemp's 0600 would surprise whoever reads it next.
    os.close(os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield scratch
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)
