"""The tutorial is run as it stands: files, commands, and what they print."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pages import Terminal


def test_the_tutorial_does_what_it_shows(tmp_path: Path) -> None:
    folder = tmp_path / "portrait"
    folder.mkdir()
    assert Terminal(folder).run("docs/tutorial.md") >= 10


def test_other_output_than_the_page_shows_is_noticed(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    terminal.type("echo job-00112233445566", "job-aabbccddeeff11\n")
    terminal.type("echo job-aabbccddeeff11", "job-aabbccddeeff11\n")
    terminal.type("printf 'a\\nb\\nc d\\n'", "a\n…\nc …\n")
    for printed in ("job-aabbccddeeff11\n", "a\n…\nd\n", ""):
        with pytest.raises(AssertionError):
            terminal.type("echo job-00112233445577", printed)
    with pytest.raises(AssertionError):
        terminal.type("false", "")
