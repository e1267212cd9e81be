"""What a run looks like at a terminal: numbered steps, decisions, people's questions, a table.

Marks: ✓ permitted and done, ? a person is asked, ✗ refused. Nothing here decides anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.status import Status
from rich.table import Table

from agentguard import Guard
from agentguard.calls.call import call_id_digest
from graphs.director import HAND_OVER

_TIMES = "\N{MULTIPLICATION SIGN}"
_ASSET = re.compile(r"asset-([0-9a-f]{6})[0-9a-f]{14}")
_MADE = re.compile(r"^file: (asset-[0-9a-f]{20}) \((.*)\)$", re.M)
_RECEIPT = re.compile(r"Exported to (\S+?)/(\S+)\.$", re.M)


def short(text: str) -> str:
    """A text with asset ids of six digits, as people can compare them at a glance."""
    return _ASSET.sub(r"asset-\1…", text)


def link(path: Path, shown: str | None = None) -> str:
    """A path as rich markup that terminals make clickable."""
    text = escape(shown if shown is not None else str(path))
    return f"[link=file://{path.resolve()}]{text}[/link]"


class Show:
    """Prints a run.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._step = 0
        self._status: Status | None = None

    def title(self, text: str, *notes: str) -> None:
        """The first lines: what this is."""
        self.console.print(f"[bold]{text}[/bold]", highlight=False)
        for note in notes:
            self.console.print(f"  [dim]{note}[/dim]", highlight=False)

    def step(self, title: str) -> None:
        """Begin the next numbered step."""
        self._step += 1
        self.console.print(f"\n[bold cyan]{self._step}[/bold cyan]  [bold]{title}[/bold]",
                           highlight=False)  # fmt: skip

    def line(self, text: RenderableType, indent: int = 3) -> None:
        """One line of rich markup; what is too long goes on under itself."""
        self.console.print(Padding(text, (0, 0, 0, indent), expand=False), highlight=False)

    def whole(self, text: str) -> None:
        """A path on a line of its own, which is never broken."""
        self.console.print(text, highlight=False, soft_wrap=True)

    def permit(self, text: str) -> None:
        """A call that was permitted and ran."""
        self.line(f"[green]✓[/green] {text}")

    def ask(self, text: str) -> None:
        """A call that waits for a person."""
        self.line(f"[yellow]?[/yellow] {text}")

    def deny(self, text: str, reason: str = "") -> None:
        """A call that was refused, and the sentence that the model got."""
        self.line(f"[red]✗[/red] {text}")
        if reason:
            self.line(f"[dim]{escape(short(reason))}[/dim]", 5)

    def facts(self, rows: Iterable[tuple[str, str]], indent: int = 5) -> None:
        """Names and values, two columns."""
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for row in rows:
            grid.add_row(*row)
        self.line(grid, indent)

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """A spinner while something takes its time; nothing where no terminal is."""
        if not self.console.is_terminal:
            yield
            return
        with self.console.status(f"[dim]{escape(text)}[/dim]"):
            yield

    def rest(self) -> None:
        """Stop the spinner of a running call, if there is one."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def wait_for(self, text: str) -> None:
        """Show a spinner until the next call is printed."""
        self.rest()
        if self.console.is_terminal:
            self._status = self.console.status(f"[dim]{escape(text)}[/dim]")
            self._status.start()


class Watch:
    """Prints what the stream of a run brings, with the decision that the ledger holds of it.

    Args:
        job: the id of the job that runs.
    """

    def __init__(self, show: Show, guard: Guard, job: str) -> None:
        self._show = show
        self._guard = guard
        self._job = job
        self._calls: dict[str, Mapping[str, Any]] = {}

    def __call__(self, chunk: Mapping[str, Any]) -> None:
        """One chunk of `stream_mode="updates"`."""
        for update in chunk.values():
            for message in _messages(update):
                if isinstance(message, AIMessage):
                    self._said(message)
                elif isinstance(message, ToolMessage) and message.name != HAND_OVER:
                    self._came_back(message)

    def _said(self, message: AIMessage) -> None:
        for call in message.tool_calls:
            if call["name"] == HAND_OVER:
                self._show.rest()
                first, _, rest = str(call["args"].get("task", "")).strip().partition("\n")
                self._show.step(_headline(first))
                for line in rest.splitlines():
                    self._show.line(f"[dim]{escape(short(line))}[/dim]")
                self._show.wait_for(f"{call['args'].get('agent')} is at work")
            else:
                self._calls[call["id"] or ""] = call
                self._show.wait_for(f"{call['name']} …")

    def _came_back(self, message: ToolMessage) -> None:
        self._show.rest()
        row = self._guard.ledger.one(
            "SELECT agent, tool, destination, effect FROM requests WHERE job = ? AND call_id = ?"
            " ORDER BY ordinal DESC LIMIT 1", self._job, call_id_digest(message.tool_call_id),
        )  # fmt: skip
        agent = row["agent"] if row is not None else "?"
        what = f"[bold]{agent:<9}[/bold] {message.name}"
        if message.status == "error":
            self._show.deny(what, message.text)
            return
        asked = row is not None and row["effect"] == "ask"
        self._show.permit(f"{what} {self._outcome(message)}{' · approved' * asked}".rstrip())

    def _outcome(self, message: ToolMessage) -> str:
        text = message.text
        made, receipt = _MADE.search(text), _RECEIPT.search(text)
        if made:
            return f"→ {short(made[1])} [dim]{escape(_brief(made[2]))}[/dim]"
        if receipt:
            place = self._guard.workspace.destinations[receipt[1]]
            path = Path(place.url.removeprefix("file://")) / receipt[2]
            return f"→ {receipt[1]} · {link(path, receipt[2])}"
        if message.name == "list_assets":
            return f"[dim]{len(text.splitlines())} assets[/dim]"
        args = self._calls.get(message.tool_call_id, {}).get("args", {})
        first = next((short(str(v)) for v in args.values() if _ASSET.match(str(v))), "")
        return f"{first} [dim]{escape(short(text.partition(chr(10))[0]))}[/dim]"


def decisions(guard: Guard, job: str) -> Table:
    """A table of everything that was decided in a job, from the ledger; equal rows are joined."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("", "agent", "call", "to", "because of"):
        table.add_column(name, overflow="fold")
    for (mark, agent, call, to, why), times in _joined(_decided(guard, job)):
        many = f" [dim]{_TIMES}{times}[/dim]" if times > 1 else ""
        table.add_row(mark, agent, f"{call}{many}", to, f"[dim]{why}[/dim]")
    return table


_MARKS = {"permit": "[green]✓ permit[/green]", "ask": "[yellow]? ask[/yellow]",
          "deny": "[red]✗ deny[/red]"}  # fmt: skip


def _decided(guard: Guard, job: str) -> Iterator[tuple[str, str, str, str, str]]:
    for row in guard.ledger.all("SELECT body FROM records ORDER BY idx"):
        record = json.loads(row["body"])
        if record.get("job", job) == job:
            yield from _row(guard, record)


def _row(guard: Guard, said: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    kind = said["kind"]
    if kind == "decided":
        row = guard.ledger.one("SELECT * FROM requests WHERE digest = ?", said["request"])
        if row is not None:
            why = ", ".join(json.loads(row["policies"]))
            grant = guard.ledger.one("SELECT state FROM grants WHERE request = ?", row["digest"])
            if grant is not None and grant["state"] == "failed":
                why += "; its output was refused" if row["stage"] != "export" else "; it failed"
            yield _MARKS[row["effect"]], row["agent"], row["tool"], row["destination"] or "", why
    elif kind == "answered":
        mark = "[green]✓ yes[/green]" if said["verdict"] == "approve" else "[red]✗ no[/red]"
        yield mark, said["person"].partition("@")[0], "[dim]answers, signed[/dim]", "", ""
    elif kind == "refused":
        agent, tool = str(said.get("agent") or "-"), str(said.get("tool", ""))
        yield "[red]✗ refuse[/red]", agent, tool, "", str(said.get("policy", ""))


def _joined(rows: Iterable[tuple[str, ...]]) -> Iterator[tuple[tuple[str, ...], int]]:
    last: tuple[str, ...] | None = None
    times = 0
    for row in rows:
        if row == last:
            times += 1
            continue
        if last is not None:
            yield last, times
        last, times = row, 1
    if last is not None:
        yield last, times


def _messages(update: Any) -> Sequence[BaseMessage]:
    found: list[BaseMessage] = []
    for part in update if isinstance(update, (list, tuple)) else (update,):
        messages: Any = part.get("messages", ()) if isinstance(part, Mapping) else ()
        found.extend(messages if isinstance(messages, list) else (messages,))
    return [message for message in found if isinstance(message, BaseMessage)]


def _brief(made: str) -> str:
    """`image/png 24x24, 1 kB, class generated` as `png 24x24 · generated`."""
    kind, _, labels = made.partition(", class ")
    form = kind.partition(",")[0].rpartition("/")[2]
    return f"{re.sub(r'(?<=[0-9])x(?=[0-9])', _TIMES, form)} · {labels}"


def _headline(task: str) -> str:
    first = short(task)
    return escape(first if len(first) <= 90 else first[:89] + "…")
