"""Runs what a page of the documents shows: its files, its commands, and what they print."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_BLOCK = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_VARIABLE = re.compile(
    r"(?P<id>[0-9a-f]{12,64})|(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\d+ h \d+ min)"
    r"|(?P<count>\d+(?= (?:records|rows|checkpoints)\b))|(?P<rest>…)"
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Args:
        title: the file that it shows, or "".
    """

    language: str
    title: str
    text: str


def blocks(page: str, *languages: str) -> list[Block]:
    """The blocks of a page, in their order; all languages if none is named."""
    found = []
    for _, language, words, text in _BLOCK.findall((ROOT / page).read_text("utf-8")):
        title = re.search(r'title="([^"]+)"', words)
        if not languages or language in languages:
            found.append(Block(language, title[1] if title else "", textwrap.dedent(text)))
    return found


@dataclass
class Terminal:
    """A terminal in a folder, where what a page shows is typed.

    Ids differ at each run: one that the page shows stands for the one that came in its place.
    """

    folder: Path
    ids: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)

    def run(self, page: str) -> int:
        """Write the files of a page and type its commands; returns how many were typed."""
        typed = 0
        for block in blocks(page, "python", "toml", "console", "cedar"):
            if block.title:
                self.write(block)
            elif block.language == "console":
                for command, printed in commands(block.text):
                    self.type(command, printed)
                    typed += 1
        return typed

    def write(self, block: Block) -> None:
        path = self.folder / block.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, "utf-8")

    def type(self, command: str, printed: str) -> None:
        """Run a command; what it prints must be what the page shows."""
        if command.startswith("export "):
            name, _, value = shlex.split(command)[1].partition("=")
            self.env[name] = value
            return
        done = subprocess.run(
            ["bash", "-c", self.with_own_ids(command)],
            cwd=self.folder,
            env={**self.environment(), **self.env},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        got = "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())
        found = re.fullmatch(self.pattern(printed), got)
        assert found, f"$ {command}\n{got}\n--- expected\n{printed}"
        for name, value in found.groupdict().items():
            self.ids[name.removeprefix("id_")] = value

    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if "AGENTGUARD" not in key}
        path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        home = str(self.folder.parent / f"{self.folder.name}-home")
        return {**kept, "PATH": path, "HOME": home, "XDG_CONFIG_HOME": f"{home}/.config"}

    def with_own_ids(self, text: str) -> str:
        for shown, own in sorted(self.ids.items(), key=lambda pair: -len(pair[0])):
            text = text.replace(shown, own)
        return text

    def pattern(self, printed: str) -> str:
        """What output a page's words allow: `…` is any text, alone in a line any lines."""
        named: set[str] = set()

        def variable(found: re.Match[str]) -> str:
            shown = found[0]
            if found["rest"]:
                return ".*"
            if found["time"]:
                return r"[\d :hmin-]+"
            if found["count"]:
                return r"\d+"
            if shown in self.ids:
                return re.escape(self.ids[shown])
            if shown in named:
                return f"(?P=id_{shown})"
            if shown.startswith("0123456789abcdef"):  # the example in a message
                return shown
            named.add(shown)
            return f"(?P<id_{shown}>[0-9a-f]{{{len(shown)}}})"

        lines = []
        for line in printed.splitlines():
            if line == "…":
                lines.append(r"(?:[^\n]*\n)*?")
                continue
            parts, at = [], 0
            for found in _VARIABLE.finditer(line):
                parts += [re.escape(line[at : found.start()]), variable(found)]
                at = found.end()
            lines.append("".join(parts) + re.escape(line[at:]) + r"\n")
        return "".join(lines)


def commands(text: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with what it prints."""
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
    assert parts[0] == "", "a console block begins with a command"
    return [
        (command, printed) for command, _, printed in (part.partition("\n") for part in parts[1:])
    ]
