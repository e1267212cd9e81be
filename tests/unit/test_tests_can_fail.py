"""No test is written so that it can't fail: what can be seen of that in its source.

A loop over something that turns out to be empty can't be seen here; look for assertions that a
coverage report of `tests` calls unreached.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SOURCES = {path: path.read_text("utf-8") for path in sorted(TESTS.rglob("*.py"))}

_ANY = {"Exception", "BaseException"}
_LOOKS = {"raises", "warns", "fail", "deprecated_call"}
_REFUSES = ("require", "verify")
"""How functions are called that raise where something is wrong."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def called(call: ast.Call) -> str:
    """The last part of a called function's name."""
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def calls(node: ast.AST) -> set[str]:
    return {called(each) for each in ast.walk(node) if isinstance(each, ast.Call)}


def looks(node: ast.AST) -> bool:
    """Whether something in a function asserts, or fails."""
    names = calls(node)
    if names & _LOOKS or any(name.startswith(_REFUSES) for name in names):
        return True
    return any(isinstance(each, ast.Assert) for each in ast.walk(node))


def helpers(trees: Mapping[Path, ast.Module]) -> set[str]:
    """Names of functions of the tests that assert, also by another of them."""
    functions = [n for tree in trees.values() for n in ast.walk(tree) if isinstance(n, Function)]
    found = {each.name for each in functions if looks(each)}
    while more := {each.name for each in functions if calls(each) & found} - found:
        found |= more
    return found


def idle_tests(tree: ast.Module, known: set[str]) -> Iterator[tuple[int, str]]:
    """Tests that assert nothing."""
    for node in ast.walk(tree):
        if not isinstance(node, Function) or not node.name.startswith("test_"):
            continue
        if not (looks(node) or calls(node) & known):
            yield node.lineno, f"{node.name} asserts nothing"


def is_certain(test: ast.expr) -> bool:
    """Whether an assertion holds whatever the program does."""
    if isinstance(test, ast.Lambda | ast.GeneratorExp | ast.JoinedStr):
        return True
    if isinstance(test, ast.BoolOp):
        certain = [is_certain(value) for value in test.values]
        return any(certain) if isinstance(test.op, ast.Or) else all(certain)
    if isinstance(test, ast.Tuple | ast.List | ast.Set | ast.Dict):
        return bool(test.keys if isinstance(test, ast.Dict) else test.elts)
    if isinstance(test, ast.Compare):
        sides = {ast.dump(side) for side in (test.left, *test.comparators)}
        return len(sides) == 1 and not calls(test)  # two calls may well say two things
    try:
        return bool(ast.literal_eval(test))
    except ValueError:
        return False


def is_broad(call: ast.expr, name: str, refused: set[str]) -> bool:
    """Whether a call of this name takes an exception that anything may raise."""
    if not (isinstance(call, ast.Call) and called(call) == name):
        return False
    return any(isinstance(given, ast.Name) and given.id in refused for given in call.args)


def passes_over(handler: ast.ExceptHandler) -> bool:
    """Whether an `except` of everything, or of failed assertions, does nothing about it."""
    if not all(isinstance(each, ast.Pass) for each in handler.body):
        return False
    if handler.type is None:
        return True
    names = {each.id for each in ast.walk(handler.type) if isinstance(each, ast.Name)}
    return bool(names & (_ANY | {"AssertionError"}))


def blocks(tree: ast.Module) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list):
                yield block


def doubtful(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Assertions that hold whatever the program does, and what swallows them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and is_certain(node.test):
            yield node.lineno, "an assertion that always holds"
        elif isinstance(node, ast.Call) and is_broad(node, "raises", _ANY):
            yield node.lineno, "pytest.raises(Exception); name the error"
        elif isinstance(node, ast.Call) and is_broad(node, "suppress", _ANY | {"AssertionError"}):
            yield node.lineno, "suppresses every error, also a failed assertion"
        elif isinstance(node, ast.ExceptHandler) and passes_over(node):
            yield node.lineno, "passes over every error, also a failed assertion"
    for block in blocks(tree):
        for this, following in pairwise([*block, None]):
            if not isinstance(this, ast.With) or isinstance(following, ast.Assert):
                continue
            kinds = {called(i.context_expr) for i in this.items
                     if isinstance(i.context_expr, ast.Call)}  # fmt: skip
            if "suppress" in kinds and any(isinstance(n, ast.Assert) for n in ast.walk(this)):
                yield this.lineno, "asserts where an error is suppressed, and not behind it"


def test_no_test_is_sure_to_pass() -> None:
    trees = {path: ast.parse(text) for path, text in SOURCES.items()}
    known = helpers(trees)
    found = [
        f"{path.relative_to(TESTS)}:{line}: {what}"
        for path, tree in trees.items()
        for line, what in (*idle_tests(tree, known), *doubtful(tree))
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "assert True",
        "assert (x, 'message')",
        "assert 'x is 1'",
        "assert f'{x}'",
        "assert (y > 1 for y in x)",
        "assert lambda: x",
        "assert x or True",
        "assert x == x",
        "assert x.a <= x.a",
        "assert x is x and 1",
        "with pytest.raises(Exception): x()",
        "with pytest.raises(Exception, match='no'): x()",
        "with contextlib.suppress(AssertionError): x()",
        "with suppress(Exception): x()",
        "with suppress(OSError):\n    assert x",
        "try:\n    x()\nexcept Exception:\n    pass",
        "try:\n    x()\nexcept (OSError, AssertionError):\n    pass",
        "try:\n    x()\nexcept:\n    pass",
    ],
)
def test_line_that_makes_a_test_pass_is_refused(line: str) -> None:
    assert len(list(doubtful(ast.parse(line)))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "assert x",
        "assert not x",
        "assert x == y",
        "assert f() == f()",
        "assert x or y",
        "assert all(y > 1 for y in x)",
        "with pytest.raises(ValueError): x()",
        "with suppress(OSError): x()",
        "with suppress(OSError):\n    assert x\n    done = True\nassert done",
        "try:\n    x()\nexcept OSError:\n    pass",
    ],
)
def test_line_that_may_fail_is_left_alone(line: str) -> None:
    assert list(doubtful(ast.parse(line))) == []


def test_test_without_an_assertion_is_refused() -> None:
    tree = ast.parse(
        "def test_idle(): run()\n"
        "def test_asserting(): assert run()\n"
        "def test_raising():\n    with pytest.raises(ValueError): run()\n"
        "def test_asserting_elsewhere(): far()\n"
        "def near(): assert run()\n"
        "def far(): near()\n"
    )
    found = list(idle_tests(tree, helpers({Path("x.py"): tree})))
    assert found == [(1, "test_idle asserts nothing")]
