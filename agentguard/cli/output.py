"""What people and programs see of a command, and what people are asked.

Names, prompts, captions and tool texts come from models and media: nothing of them may steer a
terminal, look like another line of ours, or be read as rich's markup.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import textwrap
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from agentguard.errors import AgentGuardError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status
    from rich.text import Text

ERROR, DENIED, PENDING, UNVERIFIED = 1, 3, 4, 5
"""Exit codes besides 0 (ok, permit) and 2 (usage)."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
Say = tuple[str, str]
"""A cell: text, and rich's name of its style."""
Line = tuple[str, str | Say]
"""What `fields` prints: a label and its value."""
T = TypeVar("T")
Columns = Mapping[str, Callable[[T], str | Say]]
"""A table's columns by their names, with what stands in each of a row."""

_WIDTH = 80
_LABEL = 14
_SOME = 6  # cases that one sentence names
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_MOST_MARKS = 2  # accents on one letter; a heap of them covers the lines around it

EFFECT_STYLES = {"permit": "green", "ask": "yellow", "deny": "red"}
STATE_STYLES = {"pending": "yellow", "approved": "green"}
"""Of an approval request; whatever else became of it is red."""


def visible(text: object, most: int = 300) -> str:
    """Text of any origin as one line that can't steer a terminal.

    What can't be seen (control, escape, bidi and zero-width characters, line ends, blanks that
    are letters) is written out as `\\x1b`, `\\u202e`, `\\n`.

    Args:
        most: characters shown; the rest is counted.
    """
    raw = str(text)
    left = len(raw) - most
    return _clean(raw[:most]) + (f"… ({left} more characters)" if left > 0 else "")


def _clean(text: str) -> str:
    # Everything printed for people passes here, so that no caller can forget; ASCII escapes stay.
    if text.isascii() and text.isprintable():
        return text
    marks, shown = 0, []
    for character in text:
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        plain = character.isprintable() and character not in _BLANK and marks <= _MOST_MARKS
        shown.append(character if plain else character.encode("unicode_escape").decode("ascii"))
    return "".join(shown)


def short(digest: str) -> str:
    """The first 16 hex digits of a digest; every command takes them back."""
    return visible(digest[:16])


def some(cases: Sequence[str]) -> str:
    """The first of many cases as one text, and how many more there are."""
    more = f" and {len(cases) - _SOME} more" if len(cases) > _SOME else ""
    return ", ".join(cases[:_SOME]) + more


def console(*, err: bool = False) -> Console:
    """Where people's output goes: stdout, or stderr for what must not mix with data."""
    from rich.console import Console

    file = sys.stderr if err else sys.stdout
    return Console(file=file, highlight=False, markup=False, emoji=False)


def say(text: str = "", style: str = "", *, err: bool = False) -> None:
    """One line for people, never broken: paths and keys in it can be copied."""
    from rich.text import Text

    console(err=err).print(Text(_clean(text), style=style), soft_wrap=True)


@contextlib.contextmanager
def progress(*, after: float = 1.0) -> Iterator[Callable[[str], None]]:
    """A line that says how far something is, gone when it ends; only where stderr is a terminal.

    Args:
        after: seconds; what is quicker shows none.
    """
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        status: Status | None = None

        def tell(text: str) -> None:
            nonlocal status
            if status is not None:
                status.update(_clean(text))
            elif time.monotonic() - began >= after and sys.stderr.isatty():
                status = stack.enter_context(console(err=True).status(_clean(text)))

        yield tell


def fields(rows: Iterable[Line], *, err: bool = False, label_width: int = _LABEL) -> None:
    """Lines of `label value`, wrapped at 80 columns; an empty label goes on under the last."""
    from rich.text import Text

    out = console(err=err)
    for label, value in rows:
        text, style = (value, "") if isinstance(value, str) else value
        lines = textwrap.wrap(
            _clean(text), _WIDTH - label_width, break_long_words=False, break_on_hyphens=False
        ) or [""]
        for number, line in enumerate(lines):
            head = f"{_clean(label) if number == 0 else '':<{label_width}}"
            out.print(Text.assemble((head, "bold"), (line, style)), soft_wrap=True)


def table(rows: Iterable[T], columns: Columns[T], *, tight: Iterable[str] = ()) -> None:
    """A table for people; see `listing`."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name, no_wrap=name in tight, overflow="fold")
    for row in rows:
        made.add_row(*(_cell(cell(row)) for cell in columns.values()))
    console().print(made)


def listing(
    rows: Sequence[T],
    columns: Columns[T],
    *,
    json_: bool,
    data: Callable[[T], Any],
    empty: str = "",
    tight: Iterable[str] = (),
    newest: int | None = None,
) -> bool:
    """Print rows: for programs as a JSON list, for people as a table.

    Args:
        columns: those of the table.
        data: a row as JSON data, whose keys stay as they are.
        empty: what people are told where there is nothing.
        tight: columns that are never broken, such as ids.
        newest: rows beyond so many are not shown, but that there are more of them.

    Returns:
        Whether people see a table, and may be told more.
    """
    shown = rows[:newest]
    if json_:
        print_json([data(row) for row in shown])
    elif not shown and empty:
        say(empty)
    else:
        table(shown, columns, tight=tight)
        if newest is not None and len(rows) > newest:
            say(f"These are the newest {newest}; -n {newest * 4} shows more.")
        return True
    return False


def picked(row: object, *names: str, **renamed: str) -> dict[str, Any]:
    """Fields of a row as JSON data.

    Args:
        names: those that keep their name.
        renamed: the name of another field for each other key.
    """
    fields = {name: name for name in names} | renamed
    return {key: getattr(row, name) for key, name in fields.items()}


def _cell(value: str | Say) -> Text:
    from rich.text import Text

    text, style = (value, "") if isinstance(value, str) else value
    return Text(_clean(text), style=style)


def as_json(value: Any) -> str:
    """Indented JSON in ASCII: what can't be seen is escaped, so a terminal may print it."""
    return json.dumps(value, indent=2, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"got {type(value).__name__}, expected JSON data")


def print_json(value: Any) -> None:
    typer.echo(as_json(value))


def when(ms: int | None) -> str:
    """A time (ms since the Unix epoch) in UTC."""
    if ms is None:
        return "never"
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):  # a row that was edited by hand
        return f"{ms} ms"


def span(ms: int) -> str:
    """A length of time in its two largest units."""
    seconds = max(ms, 0) // 1000
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "min")]
    said = [f"{number} {unit}" for number, unit in parts if number]
    return " ".join(said[:2]) or f"{seconds} s"


def passphrase(*, new: bool = False, text: str = "Passphrase") -> str:
    """A person's passphrase: from AGENTGUARD_PASSPHRASE, or asked for without echo.

    Args:
        new: it is chosen, and asked for twice.
        text: what is asked for, where it is not new.

    Raises:
        AgentGuardError: there is no terminal to ask at.
    """
    given = os.environ.get("AGENTGUARD_PASSPHRASE")
    if given:
        return given
    if not sys.stdin.isatty():  # getpass would read a pipe, or a terminal that echoes
        raise AgentGuardError(
            "there is no terminal to ask for the passphrase; run this at one, or set"
            " AGENTGUARD_PASSPHRASE"
        )
    if new:
        text = "A new passphrase for the key (8 characters or more)"
    return str(typer.prompt(text, hide_input=True, confirmation_prompt=new, err=True))


def write_new(path: os.PathLike[str] | str, text: str | Iterable[str]) -> None:
    """Write a file that must not exist yet.

    Args:
        text: all of it, or its lines.

    Raises:
        AgentGuardError: it exists, or can't be written.
    """
    try:
        with Path(path).open("x", encoding="utf-8") as file:
            file.writelines([text] if isinstance(text, str) else text)
    except FileExistsError:
        raise AgentGuardError(f"{path}: exists and is not overwritten; name another") from None
    except OSError as error:
        raise AgentGuardError(f"{path}: can't be written: {error.strerror}") from error
