"""Upstream's tests at the pinned versions: fetched by pip, compared with a digest, unpacked.

They come in the source distributions, never from this repository. Only the tests are unpacked: the
code under test is what is installed.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path


class SourceError(Exception):
    """Upstream's tests can't be had, or are not what was pinned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One source distribution and the tests in it that are run.

    Args:
        project: its name as pip knows it.
        version: the version whose tests these are; the same must be installed.
        sha256: of the archive.
        tests: the folder of the tests to run, inside the archive's own folder.
        deselect: node id → why the test is not run at all (network, a database server).
    """

    project: str
    version: str
    sha256: str
    tests: str
    deselect: dict[str, str]

    @property
    def archive(self) -> str:
        return f"{self.project.replace('-', '_')}-{self.version}.tar.gz"


SOURCES = (
    Source(
        project="langgraph-prebuilt",
        version="1.1.2",
        sha256="8ad6353b16ea76b04b1e35fdc9ed4ead469346f80730ca346e08f26549e7b56a",
        tests="tests",
        deselect={},
    ),
    Source(
        project="langchain",
        version="1.4.7",
        sha256="818275348cd707f7fbbe92ece0a725c25823140a054cf29865f420e0200fa2af",
        tests="tests/unit_tests/agents",
        deselect={
            **dict.fromkeys(
                (
                    f"tests/unit_tests/agents/{test}"
                    for test in (
                        "middleware/core/test_framework.py::test_create_agent_jump[memory]",
                        "middleware/core/test_framework.py::test_simple_agent_graph",
                        "middleware/core/test_framework.py"
                        "::test_agent_graph_with_jump_to_end_as_after_agent",
                        "test_return_direct_graph.py::test_agent_graph_without_return_direct_tools",
                        "test_return_direct_graph.py::test_agent_graph_with_return_direct_tool",
                        "test_return_direct_graph.py::test_agent_graph_with_mixed_tools",
                    )
                ),
                "a picture as another LangGraph draws it; fails over plain tools as well",
            ),
            "tests/unit_tests/agents/middleware/implementations/test_tool_emulator.py"
            "::TestLLMToolEmulatorModelConfiguration::"
            "test_default_model_deprecated_and_missing_langchain_anthropic_raises_clear_error": (
                "wants langchain-anthropic to be missing, and deepagents installs it; fails over"
                " plain tools as well"
            ),
        },
    ),
)


def fetch(source: Source, cache: Path) -> Path:
    """The archive of a source distribution, from the cache folder or else from pip.

    Raises:
        SourceError: pip could not get it, or its digest is another.
    """
    archive = cache / source.archive
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # With a hash in the requirement, pip compares it before it runs the archive's build code.
        pinned = f"{source.project}=={source.version} --hash=sha256:{source.sha256}\n"
        with tempfile.TemporaryDirectory() as folder:
            requirement = Path(folder, "requirement.txt")
            requirement.write_text(pinned, "utf-8")
            got = subprocess.run(
                [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                 "--no-binary=:all:", "--require-hashes", "--dest", folder, "-r", requirement],
                check=False, capture_output=True, text=True,
            )  # fmt: skip
            if got.returncode != 0:
                raise SourceError(f"pip could not download {pinned.split()[0]}:\n{got.stderr}")
            shutil.move(Path(folder, source.archive), archive)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != source.sha256:
        raise SourceError(f"{archive}: got SHA-256 {found}, expected {source.sha256}; delete it")
    return archive


def unpack(source: Source, archive: Path, folder: Path) -> Path:
    """Unpack the tests of an archive; returns the folder that holds their package `tests`."""
    top = source.archive.removesuffix(".tar.gz")
    with tarfile.open(archive) as opened:
        # pyproject.toml is read by one of the tests, not by pytest.
        wanted = (f"{top}/tests/", f"{top}/pyproject.toml")
        members = [m for m in opened.getmembers() if m.name.startswith(wanted)]
        opened.extractall(folder, members, filter="data")  # no link or path leaves the folder
    return folder / top


def require_installed(source: Source) -> None:
    """Compare the installed version with the one that the tests were written for.

    Raises:
        SourceError: they differ.
    """
    installed = metadata.version(source.project)
    if installed != source.version:
        raise SourceError(
            f"{source.project} {installed} is installed and the pinned tests are of"
            f" {source.version}; update SOURCES in {__file__}"
        )
