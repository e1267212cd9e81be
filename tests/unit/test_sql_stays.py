"""SQL stands under `agentguard/ledger/` only: what stands elsewhere may shrink, never grow.

import-linter can't see the text of a statement, so this test reads every string constant.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "agentguard"
VERBS = ("SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH ")
ELSEWHERE = {
    "calls/authorize.py": 5,
    "calls/builtin_tools.py": 2,
    "calls/duplicates.py": 3,
    "calls/execute.py": 3,
    "calls/inherited_labels.py": 1,
    "calls/reconcile.py": 3,
    "calls/request.py": 5,
    "cli/commands/assets.py": 8,
    "cli/commands/jobs.py": 6,
    "cli/commands/lineage.py": 1,
    "cli/commands/reconcile.py": 2,
    "cli/views/approval.py": 4,
    "cli/views/call.py": 4,
    "guard.py": 4,
    "jobs/job.py": 2,
    "langgraph/message_media.py": 1,
}


def statements(source: str) -> int:
    """How many string constants of a module begin as a statement does, docstrings aside."""
    tree = ast.parse(source)
    described = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    parts = {
        id(part): isinstance(node, ast.JoinedStr) and part is not node.values[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    return sum(
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith(VERBS)
        and id(node) not in described
        and not parts.get(id(node), False)
        for node in ast.walk(tree)
    )


def found() -> dict[str, int]:
    counts = {
        file.relative_to(PACKAGE).as_posix(): statements(file.read_text("utf-8"))
        for file in PACKAGE.rglob("*.py")
        if not file.is_relative_to(PACKAGE / "ledger")
    }
    return {name: count for name, count in sorted(counts.items()) if count}


def test_sql_outside_the_ledger_only_shrinks() -> None:
    assert found() == ELSEWHERE, "move the query under ledger/, or lower its count here"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('rows = all("SELECT 1")', 1),
        ('rows = all(f"SELECT {x} FROM {y}")', 1),
        ('x = f"{a}SELECT "', 0),
        ('def f():\n    """SELECT nothing."""', 0),
        ('x = "a SELECT"', 0),
    ],
)
def test_what_counts_as_a_statement(source: str, expected: int) -> None:
    assert statements(source) == expected
