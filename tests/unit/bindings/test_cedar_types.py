"""Whatever a tool's schema makes of a call has the types that policies were told."""

from __future__ import annotations

import datetime
import enum
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired

import pytest
from langchain_core.tools import StructuredTool, tool
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from agentguard.bindings.bound import Bound
from agentguard.policy.policy_set import Policy
from agentguard.policy.tool_types import arguments_of
from tests.support.bindings import Binding
from tests.unit.policy.test_policy_set import NOW, PERMIT
from tests.unit.policy.test_traps_of_actions import call

LENIENT = Policy({"a.cedar": PERMIT + "// for any tool"})


class Speed(enum.IntEnum):
    SLOW = 1
    FAST = 2


class Crop(BaseModel):
    left: int = 0
    right: int | None = None
    tags: list[str] = Field(default_factory=list)


class Look(TypedDict):
    warm: bool
    grain: NotRequired[float]


@dataclass
class Fade:
    at: float
    over: float = 1.0


def numbers(
    a: int, b: float = 1, c: bool = False, d: int | float = 2, e: Speed = Speed.SLOW
) -> str:
    """Take numbers."""
    return ""


def maybes(
    a: int | None = None, b: int | None = 3, c: Literal["x", "y"] | None = "x", d: float | None = 1
) -> str:
    """Take what may be null."""
    return ""


def factories(
    a: Annotated[list[int], Field(default_factory=list)],
    b: Annotated[int, Field(default_factory=lambda: 7)],
) -> str:
    """Make defaults when it runs."""
    return ""


NO_CROP = Crop()
FADE = Fade(at=1)


def nested(
    crop: Crop, crops: list[Crop], look: Look, fade: Fade = FADE, other: Crop = NO_CROP
) -> str:
    """Take objects."""
    return ""


def words(
    day: datetime.date, at: datetime.datetime, key: uuid.UUID, sizes: set[Literal["s", "m"]],
    many: tuple[int, ...] = (),
) -> str:  # fmt: skip
    """Take what JSON writes as strings."""
    return ""


JSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "whole": {"type": "integer"},
        "size": {
            "type": "object",
            "properties": {"w": {"type": "integer", "default": 4}, "h": {"type": "number"}},
        },
        "mode": {"enum": ["a", "b", None]},
        "kind": {"type": ["string", "null"], "default": "k"},
        "list": {"type": "array", "items": {"type": "integer"}, "default": [1]},
        "either": {"type": ["integer", "string"]},
        "holes": {"type": "array", "items": {"type": ["integer", "null"]}},
    },
    "required": ["whole", "mode"],
}
REMOTE = StructuredTool(
    name="remote", description="Take JSON.", args_schema=JSON, func=lambda **_: ""
)

CALLS: list[tuple[Any, dict[str, Any]]] = [
    (numbers, {"a": 1}),
    (numbers, {"a": 1, "b": 1e300, "c": True, "d": 0.5, "e": 2}),
    (maybes, {}),
    (maybes, {"a": None, "b": None, "c": None, "d": None}),
    (maybes, {"a": 1, "b": 2, "c": "y", "d": 1e-9}),
    (factories, {}),
    (factories, {"a": [1], "b": 2}),
    (nested, {"crop": {}, "crops": [], "look": {"warm": True}}),
    (
        nested,
        {
            "crop": {"left": 1, "right": 2, "tags": ["x"]},
            "crops": [{}, {"right": None}],
            "look": {"warm": False, "grain": 0.25},
            "fade": {"at": 2},
            "other": {"left": 3},
        },
    ),
    (
        words,
        {
            "day": "2026-01-02",
            "at": "2026-01-02T03:04:05Z",
            "key": "12345678-1234-5678-1234-567812345678",
            "sizes": ["s", "m", "s"],
            "many": [1, 1],
        },
    ),
    (REMOTE, {"whole": 3.0, "mode": None}),
    (REMOTE, {"whole": 3, "mode": "a", "size": {}, "kind": None, "list": []}),
    (REMOTE, {"whole": -3, "mode": "b", "size": {"w": 1, "h": 2}, "either": "x", "holes": [None]}),
]


def bound(of: Callable[..., Any] | StructuredTool) -> Bound:
    made = of if isinstance(of, StructuredTool) else tool(of)
    return Bound(Binding(made, stage="edit", plain=_leaves(made)))


def _leaves(made: Any) -> list[str]:
    from agentguard.bindings.argument_schema import Shape
    from agentguard.bindings.model_schema import json_schema

    return list(Shape(json_schema(made), made.name).leaves)


@pytest.mark.parametrize(("of", "raw"), CALLS)
def test_call_has_the_types_of_its_tool(of: Any, raw: dict[str, Any]) -> None:
    made = bound(of)
    frozen = made.freeze(raw)
    assert set(arguments_of(made.action, frozen)) <= set(made.action.arguments)
    asked = call(made.action, frozen)
    evaluation = LENIENT.evaluate(*asked, NOW, 0, frozenset())
    assert (evaluation.allowed, evaluation.errors) == (True, ())


@pytest.mark.parametrize(
    ("of", "optional", "left_out"),
    [
        (numbers, set(), ()),
        (maybes, {"a", "b", "c", "d"}, ()),
        (factories, {"a", "b"}, ()),
        (nested, set(), ()),
        (REMOTE, {"mode", "size", "kind", "either", "holes"} - {"either", "holes"},
         ("either", "holes")),
    ],
)  # fmt: skip
def test_argument_is_optional_if_it_may_be_absent(
    of: Any, optional: set[str], left_out: tuple[str, ...]
) -> None:
    action = bound(of).action
    assert {name for name, known in action.arguments.items() if known.optional} == optional
    assert action.left_out == left_out


def test_fields_of_objects_are_optional_as_well() -> None:
    fields = bound(nested).action.arguments["crop"].fields
    assert {name: known.optional for name, known in fields.items()} == {
        "left": False, "right": True, "tags": True,
    }  # fmt: skip
