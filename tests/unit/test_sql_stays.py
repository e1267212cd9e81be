"""SQL stands under `agentguard/ledger/` only, and rows leave it with a type.

import-linter can't see the text of a statement, so this test reads every string constant.
"""

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "agentguard"
SQL = re.compile(
    r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH RECURSIVE|FROM|WHERE|JOIN|UNION ALL|EXISTS"
    r"|ORDER BY|LIMIT)\b"
)


def fragments(source: str) -> int:
    """How many string constants of a module hold a piece of SQL, docstrings aside."""
    tree = ast.parse(source)
    described = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return sum(
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and SQL.search(node.value) is not None
        and id(node) not in described
        for node in ast.walk(tree)
    )


def columns(source: str) -> int:
    """How many columns of a raw row a module names: `row["state"]`, or of `rows`."""
    return sum(
        isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("row", "rows")
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, str)
        for node in ast.walk(ast.parse(source))
    )


def outside(count: Callable[[str], int]) -> dict[str, int]:
    counts = {
        file.relative_to(PACKAGE).as_posix(): count(file.read_text("utf-8"))
        for file in PACKAGE.rglob("*.py")
        if not file.is_relative_to(PACKAGE / "ledger")
    }
    return {name: number for name, number in sorted(counts.items()) if number}


def test_sql_stands_in_the_ledger_only() -> None:
    assert outside(fragments) == {}, "make it a query under agentguard/ledger/queries"


def test_rows_leave_the_ledger_with_a_type_only() -> None:
    assert outside(columns) == {}, "give the row a class in agentguard/ledger/rows/"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('rows = all("SELECT 1")', 1),
        ('rows = all(f"SELECT {x} FROM {y}")', 2),
        ('marked = "EXISTS (SELECT 1)"', 1),
        ('x = f"{a} WHERE id = ?"', 1),
        ('def f():\n    """SELECT nothing."""', 0),
        ('x = "select one from these, where it is"', 0),
    ],
)
def test_what_counts_as_sql(source: str, expected: int) -> None:
    assert fragments(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('x = row["state"]', 1),
        ("x = f\"{rows['state']}\"", 1),
        ("x = rows[0]", 0),
        ('x = asset["sha256"]', 0),
    ],
)
def test_what_counts_as_a_raw_row(source: str, expected: int) -> None:
    assert columns(source) == expected
