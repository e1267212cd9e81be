"""The scripts of the stage agents: what each does about its task when no language model is at hand.

A script is a generator: it yields tool calls, is sent their ToolMessages, and returns its report.
It knows asset ids only from what it was told and from what its tools answered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from langchain_core.messages import ToolMessage

ASSET = re.compile(r"asset-[0-9a-f]{20}")
_LINE = re.compile(r"^\s*(\d+)\.\s+(.*\S)\s*$", re.M)
_MADE = re.compile(r"^file: (asset-[0-9a-f]{20})", re.M)
_LISTED = re.compile(
    r"^(asset-[0-9a-f]{20}): (\S+).*?, imported as '([^']*)', class ([^,\n]*)", re.M
)
_SIZE = re.compile(r"\b(\d{3,4})x(\d{3,4})\b")


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that a script wants to make."""

    tool: str
    args: dict[str, Any] = field(default_factory=dict)


Script: TypeAlias = Generator[list[Call], Sequence[ToolMessage], str]


def painter(task: str) -> Script:
    """Paints every numbered line of its task."""
    prompts = [text for _, text in _LINE.findall(task)] or [task]
    size = _SIZE.search(task)
    width, height = (int(size[1]), int(size[2])) if size else (1280, 720)
    results = yield [
        Call("generate_image", {"prompt": p, "width": width, "height": height, "seed": n})
        for n, p in enumerate(prompts, 1)
    ]
    return _report(f"{n}. {made(r) or refusal(r)}" for n, r in enumerate(results, 1))


def editor(task: str) -> Script:
    """Does to each picture, line by line, what `place NAME` and `caption "WORDS"` say."""
    (listing,) = yield [Call("list_assets")]
    known = {name: (id, labels) for id, _, name, labels in _LISTED.findall(listing.text)}
    current: dict[str, str] = {}
    todo: dict[str, list[str]] = {}
    notes: dict[str, list[str]] = {}
    for number, line in _LINE.findall(task):
        asset, _, wishes = line.partition(": ")
        current[number], notes[number] = asset, []
        todo[number] = [wish.strip() for wish in wishes.split("; ") if wish.strip()]
    while any(todo.values()):
        calls: dict[str, Call] = {}
        for number, wishes in todo.items():
            if wishes:
                wish = wishes.pop(0)
                call = _edit(current[number], wish, known)
                if call is None:
                    notes[number].append(f"{wish}: no such material")
                else:
                    calls[number] = call
        if calls:
            results = yield list(calls.values())
            for number, result in zip(calls, results, strict=True):
                current[number] = made(result) or current[number]
                if refused(result):
                    notes[number].append(f"{calls[number].tool} {refusal(result)}")
    return _report(
        f"{number}. {current[number]}" + "".join(f" ({note})" for note in notes[number])
        for number in current
    )


def _edit(source: str, wish: str, known: dict[str, tuple[str, str]]) -> Call | None:
    verb, _, what = wish.partition(" ")
    if verb == "caption":
        return Call("caption", {"source": source, "text": what.strip('"“”'), "position": "bottom"})
    if what not in known:
        return None
    asset, labels = known[what]
    if is_logo(what, labels):
        return Call("place_logo", {"source": source, "logo": asset, "corner": "top-right"})
    return Call("compose_photo", {"source": source, "photo": asset, "position": "left"})


def is_logo(name: str, labels: str) -> bool:
    """Whether imported material is a mark to place in a corner, not a photo to show."""
    return "logo" in name.lower() or "brand" in re.split(r"[\s+,]+", labels)


def renderer(task: str) -> Script:
    """Makes one film of all pictures named."""
    each = re.search(r"([\d.]+) seconds each", task)
    stills = ASSET.findall(task)
    (result,) = yield [
        Call("render_video", {"stills": stills, "seconds_each": float(each[1]) if each else 2.5})
    ]
    return f"Film: {made(result) or refusal(result)}"


def reviewer(task: str) -> Script:
    """Looks at every asset named."""
    assets = list(dict.fromkeys(ASSET.findall(task)))
    results = yield [Call("review_media", {"source": asset}) for asset in assets]
    return _report(
        f"{asset}: {refusal(r) if refused(r) else r.text.splitlines()[0]}"
        for asset, r in zip(assets, results, strict=True)
    )


def traffic(task: str) -> Script:
    """Queues every asset named for the destination named: `Queue for PLACE: ...`."""
    return (yield from _send(task, r"[Qq]ueue for (\S+):", "queue_for_release"))


def publisher(task: str) -> Script:
    """Exports every asset named to the destination named: `Export to PLACE: ...`."""
    return (yield from _send(task, r"[Ee]xport to (\S+):", "export_asset"))


def _send(task: str, pattern: str, tool: str) -> Script:
    place = re.search(pattern, task)
    assets = list(dict.fromkeys(ASSET.findall(task)))
    if place is None or not assets:
        return "I need a destination and the ids of assets."
    results = yield [Call(tool, {"asset": asset, "to": place[1]}) for asset in assets]
    return _report(
        f"{asset}: {refusal(r) if refused(r) else r.text}"
        for asset, r in zip(assets, results, strict=True)
    )


SCRIPTS: dict[str, Callable[[str], Script]] = {
    "painter": painter,
    "editor": editor,
    "renderer": renderer,
    "reviewer": reviewer,
    "traffic": traffic,
    "publisher": publisher,
}
"""The script of each agent."""


def made(result: ToolMessage) -> str | None:
    """The id of what a tool made, None if it made nothing."""
    found = None if refused(result) else _MADE.search(result.text)
    return found[1] if found else None


def refused(result: ToolMessage) -> bool:
    """Whether a call was refused or failed."""
    return result.status == "error"


def refusal(result: ToolMessage) -> str:
    """A refusal for a report, with the guard's or the tool's own reason."""
    return f"refused: {result.text.removeprefix('refused: ')}"


def numbered(report: str) -> list[tuple[int, str]]:
    """The numbered lines of a report."""
    return [(int(number), line) for number, line in _LINE.findall(report)]


def _report(lines: Any) -> str:
    return "\n".join(lines) or "There was nothing to do."
