"""Where upstream's tests come from: nothing is unpacked or run that is not what was pinned."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conformance.upstream.deviations import DEVIATIONS
from tests.conformance.upstream.sources import SOURCES, Source, SourceError, fetch, unpack

PINNED = SOURCES[0]
TOP = "langgraph_prebuilt-1.1.2"


def archive(folder: Path, *members: tarfile.TarInfo | str) -> Source:
    """A made-up source distribution in a cache folder, pinned as it is."""
    path = folder / PINNED.archive
    with tarfile.open(path, "w:gz") as opened:
        for member in members:
            if isinstance(member, str):
                info = tarfile.TarInfo(f"{TOP}/{member}")
                info.size = 4
                opened.addfile(info, io.BytesIO(b"pass"))
            else:
                opened.addfile(member)
    return replace(PINNED, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def test_an_archive_that_differs_from_its_digest_is_refused(tmp_path: Path) -> None:
    archive(tmp_path, "tests/test_one.py")
    with pytest.raises(SourceError, match="expected 8ad6353b"):
        fetch(PINNED, tmp_path)


def test_only_the_tests_are_unpacked_never_the_code_under_test(tmp_path: Path) -> None:
    source = archive(tmp_path, "tests/test_one.py", "langgraph/prebuilt/tool_node.py", "setup.py")
    folder = unpack(source, fetch(source, tmp_path), tmp_path / "out")
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert found == [Path("tests/test_one.py")]


def test_nothing_is_unpacked_outside_the_folder(tmp_path: Path) -> None:
    link = tarfile.TarInfo(f"{TOP}/tests/out")
    link.type, link.linkname = tarfile.SYMTYPE, "../../../../etc"
    source = archive(tmp_path, link)
    with pytest.raises(tarfile.FilterError):
        unpack(source, fetch(source, tmp_path), tmp_path / "out")


def test_every_deviation_is_named_once_with_its_reason() -> None:
    names = [deviation.test for deviation in DEVIATIONS]
    assert len(set(names)) == len(names)
    assert all(one.shows and one.reason for one in DEVIATIONS)
