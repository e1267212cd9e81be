"""Files that survive a power cut: the bytes are on the disk, and so is the file's name.

A flush of a file says nothing of its entry in its folder (fsync(2), "Calling fsync() does not
necessarily ensure that the entry in the directory ... has also reached disk"): after a new or
renamed file its folder is flushed, and after a new folder the one above it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

_NO_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)


def flush(descriptor: int) -> None:
    """Have an open file's bytes on the disk, not only in the drive's own cache.

    Raises:
        OSError: they may be lost.
    """
    full = getattr(fcntl, "F_FULLFSYNC", None)  # of macOS, whose fsync stops at the drive
    if full is None:
        os.fsync(descriptor)
    else:
        fcntl.fcntl(descriptor, full)


def flush_file(path: str | Path) -> None:
    """As `flush`, of a file by its name. It is opened for reading: nothing in it changes.

    Raises:
        OSError: it can't be opened, or what was written there may be lost.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        flush(descriptor)
    finally:
        os.close(descriptor)


def flush_names(descriptor: int) -> None:
    """Have the names in an open folder on the disk.

    Some network file systems know no such flush, and keep names in their own way.

    Raises:
        OSError: a name may be lost.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDERS:
            raise


def flush_folder(path: str | Path) -> None:
    """As `flush_names`, of a folder by its path.

    Raises:
        OSError: it can't be opened, or a name may be lost.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flush_names(descriptor)
    finally:
        os.close(descriptor)


def make_folders(path: str | Path, *, mode: int = 0o777) -> None:
    """Make a folder and those above it that are missing, with their names on the disk.

    Args:
        mode: of the folder itself, less the umask.

    Raises:
        OSError: one can't be made, or its name may be lost.
    """
    folder = Path(path).absolute()
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    for place in missing:
        flush_folder(place.parent)
