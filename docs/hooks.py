"""Hooks of `make docs`: pages that read well in the repository make a site that stands alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

LINK = re.compile(r"\[([^\]]*)\]\(((?:\.\./)+[^)#\s]*)(?:#[^)\s]*)?\)")
CHANGED = re.compile(r'^```python title="with the guard"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
ELSEWHERE = re.compile(
    r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>"""
)


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Name what lies outside `docs/` instead of linking to it: the site does not hold it."""
    root = Path(config["docs_dir"]).resolve()
    here = Path(page.file.abs_src_path).resolve().parent

    def named(found: re.Match[str]) -> str:
        target = (here / found[2]).resolve()
        if target.is_relative_to(root):
            return found[0]
        path = target.relative_to(root.parent)
        return found[1] if found[1].strip("`") == str(path) else f"{found[1]} (`{path}`)"

    return CHANGED.sub(_highlighted, LINK.sub(named, markdown))


def _highlighted(found: re.Match[str]) -> str:
    """A block with its marked lines in colour: a mark at the end of a long line is out of sight."""
    lines = enumerate(found[1].splitlines(), start=1)
    marked = [str(number) for number, line in lines if re.search(r"  # (new|changed)\b", line)]
    return found[0].replace('guard"\n', f'guard" hl_lines="{" ".join(marked)}"\n', 1)


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Refuse a page that loads something from another host.

    Raises:
        PluginError: it names what is loaded.
    """
    if found := ELSEWHERE.search(output):
        raise PluginError(f"{page.file.src_uri} loads from elsewhere: {found[0]}")
    return output
