"""The text of a config file, and the line of each key in it."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentguard.errors import ConfigError

Where = tuple[str | int, ...]
"""A key: the names and list positions that lead to it."""
Problem = tuple[Where, str]
_SHOWN = 20  # problems per error


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """The text of a config file and its table.

    Args:
        prefix: where the table stands: nowhere, or `tool.agentguard` in a pyproject.toml.
        table: the table itself; None if the file has none.
    """

    file: Path
    text: str
    prefix: tuple[str, ...]
    table: dict[str, Any] | None

    @staticmethod
    def read(file: Path) -> ConfigFile:
        """Reads and parses a file.

        Raises:
            ConfigError: it can't be read, or it is no TOML; names the line.
        """
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            message = f"{file}: not found; `agentguard init` writes one"
            raise ConfigError(message) from None
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise ConfigError(f"{file}: can't be read: {error}") from error
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise ConfigError(f"{file}:{line}: not UTF-8; save the file as UTF-8") from None
        return ConfigFile.parse(file, text)

    @staticmethod
    def parse(file: Path, text: str) -> ConfigFile:
        """Finds the table in the text of a file.

        Raises:
            ConfigError: it is no TOML; names the line.
        """
        try:
            table: Any = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # also a number too long, nesting too deep
            at = re.search(r"at line (\d+)", str(error))
            line = int(at[1]) if at else text.count("\n") + 1
            raise ConfigError(f"{file}:{line}: not valid TOML: {error}") from None
        prefix = ("tool", "agentguard") if file.name == "pyproject.toml" else ()
        for part in prefix:
            table = table.get(part) if isinstance(table, dict) else None
        # A pyproject whose tool.agentguard is a number is refused like an empty table.
        table = {} if table is not None and not isinstance(table, dict) else table
        return ConfigFile(file=file, text=text, prefix=prefix, table=table)

    def error(self, problems: Iterable[Problem]) -> ConfigError:
        """One error that says each problem on its own line, as `file:line: message`."""
        lines = lines_of(self.text)
        located = [(line_of(lines, (*self.prefix, *where)), m) for where, m in problems]
        located.sort(key=lambda one: one[0])
        shown = [f"{self.file}:{line}: {message}" for line, message in located[:_SHOWN]]
        if len(located) > _SHOWN:
            shown.append(f"{self.file}: and {len(located) - _SHOWN} more")
        return ConfigError("\n".join(shown))


def show(where: Where) -> str:
    """A key as people see it, with what can't be printed escaped."""
    return repr(".".join(map(str, where)))


def near(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing."""
    folded = {one.casefold(): one for one in known}
    found = difflib.get_close_matches(word[:200].casefold(), folded, n=1)
    return f"; did you mean {folded[found[0]]!r}?" if found else ""


_TOKEN = re.compile(
    r"""(\"{3}(?:\\.|[^\\])*?\"{3,5} | '{3}.*?'{3,5} | "(?:\\.|[^"\\\n])*" | '[^'\n]*'
    | [][{}=,.\n] | [^][{}=,.\n\#"'\ \t\r]+) | \#[^\n]* | [\ \t\r]+""",
    re.DOTALL | re.VERBOSE,
)


def line_of(lines: Mapping[Where, int], where: Where) -> int:
    """The line (from 1) of a key; if absent, of the nearest key above it."""
    while where and where not in lines:
        where = where[:-1]
    return lines.get(where, 1)


def lines_of(text: str) -> dict[Where, int]:
    """The line on which each key, table and array item of valid TOML text first stands.

    All tables of one `[[x]]` count as one.
    """
    found: dict[Where, int] = {}
    tokens: list[tuple[str, int]] = []
    line = 1
    for match in _TOKEN.finditer(text + "\n"):
        if match[1]:
            tokens.append((match[1], line))
        line += match[0].count("\n")

    def key(at: int, where: Where) -> tuple[int, Where]:
        while (token := tokens[at])[0] not in ("=", "]"):
            if token[0] != ".":
                quoted = token[0][0] in "\"'"
                where += (tomllib.loads(f"k={token[0]}")["k"] if quoted else token[0],)
                found.setdefault(where, token[1])
            at += 1
        return at + 1, where

    def past(at: int, *marks: str) -> int:
        while at < len(tokens) and tokens[at][0] in marks:
            at += 1
        return at

    def value(at: int, where: Where) -> int:
        opening, item = tokens[at][0], 0
        if opening not in ("[", "{"):
            while tokens[at][0] not in (",", "]", "}", "\n"):
                at += 1
            return at
        at = past(at + 1, "\n")
        while tokens[at][0] not in ("]", "}"):
            if opening == "[":
                inner: Where = (*where, item)
                found.setdefault(inner, tokens[at][1])
            else:
                at, inner = key(at, where)
            at = past(value(at, inner), ",", "\n")
            item += 1
        return at + 1

    at = past(0, "\n")
    table: Where = ()
    while at < len(tokens):
        if tokens[at][0] == "[":
            at, table = key(past(at, "["), ())
        else:
            at = value(*key(at, table))
        at = past(at, "]", "\n")
    return found
