"""What code, tests and pages refer to is defined here: invariants, requirements, traps, ADRs."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("agentguard", "tests", "docs", "evals", "graphs", "tools", "bench")
PAGES = (
    "README.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "pyproject.toml",
    "Makefile",
)

ID = re.compile(r"(?<![\w.-])[A-Z][0-9]{1,2}(?![\w-])")
TRAP = re.compile(r"\b[Tt]raps?[ -](\d+(?:(?:, |-| and )\d+)*)")
ADR = re.compile(r"\bADR (\d+)")
OUTSIDE = re.compile(
    r"\b(?:DESIGN|FACTS|HOUSE|STYLE)\b|\b[Pp]art [0-9]|"
    r"(?<!html, )(?<!RFC \d{4}, )(?<!RFC \d{4} )\b[Ss]ection [0-9]"
)
NAMES = {"P1", "P2"}
"""The two processes of the model checker."""


@cache
def defined() -> set[str]:
    """The ids that a page of this repository defines."""
    found: set[str] = set()
    for page, form in (
        ("docs/explanation/invariants.md", r"\*\*(I\d+)\*\*"),
        ("docs/explanation/requirements.md", r"(?m)^\| (S\d+) \|"),
        ("docs/explanation/traps.md", r"(?m)^(\d+)\. \*\*"),
    ):
        ids = re.findall(form, (ROOT / page).read_text("utf-8"))
        assert len(ids) == len(set(ids)) > 10, page
        found |= {f"trap {id}" if id.isdigit() else id for id in ids}
    return found | {f"ADR {int(file.name[:4])}" for file in (ROOT / "docs/adr").glob("0*.md")}


def prose_of_code(text: str) -> Iterator[str]:
    """The comments and docstrings of Python code."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield str(node.value.value)


def prose(name: str, text: str) -> str:
    """What people read in a file, without code blocks and quoted code."""
    if name.endswith(".py"):
        return "\n".join(prose_of_code(text))
    if name.endswith(".md"):
        text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        return re.sub(r"`[^`\n]*`", "", text)
    return re.sub(r"^select = .*", "", text, flags=re.MULTILINE)  # the linter's rules


def said(name: str, text: str) -> str:
    """Prose, and in code every text besides: a message may refer to something as well."""
    if not name.endswith(".py"):
        return text
    texts = [
        node.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return "\n".join([prose(name, text), *texts])


def unresolved(name: str, text: str) -> set[str]:
    read = prose(name, text)
    named = set(ID.findall(read)) - NAMES | {f"ADR {number}" for number in ADR.findall(read)}
    for numbers in TRAP.findall(read):
        named |= {f"trap {number}" for number in re.findall(r"\d+", numbers)}
    return {name for name in named if name not in defined()} | set(
        OUTSIDE.findall(said(name, text))
    )


def files(place: str) -> Iterator[Path]:
    if (ROOT / place).is_file():
        yield ROOT / place
    for end in ("py", "md", "toml", "sql", "cedar"):
        yield from (file for file in (ROOT / place).rglob(f"*.{end}") if file != Path(__file__))


@pytest.mark.parametrize("place", [*FOLDERS, *PAGES])
def test_every_reference_is_resolved_in_this_repository(place: str) -> None:
    found = {
        str(file.relative_to(ROOT)): names
        for file in files(place)
        if (names := unresolved(file.name, file.read_text("utf-8")))
    }
    assert found == {}
    assert list(files(place))


@pytest.mark.parametrize(
    "text",
    [
        '"""As in DESIGN section 4."""',
        "raise E('see STYLE')",
        "x = 1  # trap 18",
        "x = 1  # (traps 2, 5 and 19)",
        "x = 1  # I99",
        '"""Fails otherwise (K4, I5)."""',
        "x = 1  # comes in part 8",
        "x = 1  # ADR 99",
        "x = 1  # see section 3",
    ],
)
def test_a_reference_that_leads_nowhere_is_found(text: str) -> None:
    assert unresolved("a.py", text)


@pytest.mark.parametrize(
    "text",
    [
        '"""Held by I5 and I12 (S28, trap 4, traps 1-3; ADR 17; RFC 9162, section 2.1)."""',
        "T0 = 'P3 100 100'",
        "HOUSE = 1",
    ],
)
def test_a_reference_that_is_defined_is_left_alone(text: str) -> None:
    assert not unresolved("a.py", text)
