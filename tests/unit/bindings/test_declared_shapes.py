"""Every shape of `shapes.py` is declared, or refused in words, also when its hints are text."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentguard.bindings.compilation import compiled
from agentguard.errors import BindingError

SOURCE = Path(__file__).with_name("shapes.py")
NEEDS_ROLE = (
    "need a role: Asset() if it names media, Text() if words, To() if a place, Output() if the tool"
    " writes there; else Literal[...] or Plain()"
)

REFUSED = {
    "03b": (
        "remove_background: the edit stage makes media, and nothing says where it is: annotate the"
        " result, -> Annotated[str, Asset()], or add an Output() argument"
    ),
    "07": "inpaint.image: takes text, bound as 'bytes'",
    "23": "a folder names no assets; take list[Picture], and copy them into one",
    "24": "convert.options: **kwargs can't be judged; spell the fields out, or wrap the tool",
    "E1": f"caption: text, font, color: strings that {NEEDS_ROLE}",
    "E2": "stage='edti': expected generate, edit, render, review, queue, export or None; did you"
    " mean 'edit'?",
    "E4": "args['folders']: contact_sheet has folder, columns; did you mean 'folder'?",
    "E5": 'up: say where it sends: to="..."',
    "E6": "up: nobody declared it; write @media_tool(stage=...)",
    "E7": "use `typing_extensions.TypedDict` instead of `typing.TypedDict` on Python < 3.12",
    "E8": "up: write a docstring",
    "E9": "q: Asset() is on an object; put it on its fields",
    "E10": "p: 2 roles: Asset() and Text(); keep one",
    "E11": "write @media_tool(stage=...)",
    "E13": (
        "visibility: choices of a tool that sends media out may pick the place or who sees it:"
        ' To({...}), Fixed("public") or Plain()'
    ),
    "E14": 'paint: say where its words and media go: to="..."',
    "E15": "x[].m: one call, one destination",
    "E16": "nested too deeply to be bound; flatten it",
}
"""Label of a shape → what its refusal must say. All others are taken."""

LOCAL = "can't be resolved at run time; define it at the top of its module"
AS_TEXT = {"E7": LOCAL, "E12": LOCAL}
"""What differs when hints are text: names of a function's own scope can't be found."""

if sys.version_info >= (3, 12):
    del REFUSED["E7"], AS_TEXT["E7"]


def run(name: str, head: str) -> list[tuple[str, Callable[[], Any]]]:
    module = types.ModuleType(name)
    module.__file__ = str(SOURCE)
    sys.modules[name] = module
    code = compile(head + SOURCE.read_text("utf-8"), str(SOURCE), "exec", dont_inherit=True)
    exec(code, vars(module))
    cases: list[tuple[str, Callable[[], Any]]] = vars(module)["CASES"]
    return cases


FORMS = {
    "as objects": (run("shapes_of_objects", ""), REFUSED),
    "as text": (
        run("shapes_of_text", "from __future__ import annotations\n"),
        {**REFUSED, **AS_TEXT},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_shapes_are_declared_or_refused_in_words(form: str) -> None:
    cases, refused = FORMS[form]
    wrong = []
    for label, make in cases:
        expected = refused.get(label.split()[0], "")
        try:
            compiled(make())
            said = ""
        except BindingError as error:
            said = str(error)
        if bool(said) != bool(expected) or expected not in said:
            wrong.append(f"{label}: expected {expected or 'no error'!r}, got {said!r}")
    assert not wrong, "\n".join(wrong)
    assert len(cases) >= 51
    assert set(refused) <= {label.split()[0] for label, _ in cases}


def test_all_problems_of_a_tool_are_told_at_once() -> None:
    make = dict(FORMS["as objects"][0])["E10 two roles; Any; union"]
    with pytest.raises(BindingError) as told:
        compiled(make())
    lines = str(told.value).splitlines()
    assert lines[0] == "up: 5 things to declare"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["q", "t", "d", "p", "r"]
