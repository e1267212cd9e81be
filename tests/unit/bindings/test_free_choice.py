"""What a call says in numbers, choices and the order of a list is counted (I4)."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from langchain_core.tools import StructuredTool
from pydantic import BaseModel

from agentguard.bindings.bound import Bound
from agentguard.bindings.free_choice import MOST_BITS_A_CALL, MOST_DIGITS, MOST_NUMBERS
from tests.support.bindings import Binding


class Point(BaseModel):
    x: int
    y: int | None = None


class Args(BaseModel):
    left: int = 0
    top: int = 0
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    flags: list[bool] = []
    values: list[int] = []
    factors: list[float | None] = []
    mode: Literal["fit", "fill", "crop", "pad"] = "fit"
    modes: list[Literal["a", "b"]] = []
    points: list[Point] = []
    rows: list[list[int]] = []
    sources: list[str] = []


PLAIN = ["left", "top", "width", "height", "seed", "flags[]", "values[]", "factors[]", "mode",
         "modes[]", "points[].x", "points[].y", "rows[][]"]  # fmt: skip


def bound(args: type[BaseModel] = Args, **meaning: Any) -> Bound:
    tool = StructuredTool(name="edit", description="Edit.", args_schema=args, func=print)
    meaning = meaning or {"plain": PLAIN, "assets": ["sources[]"]}
    return Bound(Binding(tool, stage="edit", **meaning))


NONE = bound().bits(bound().freeze({}))


def bits(raw: dict[str, Any]) -> int:
    it = bound()
    return it.bits(it.freeze(raw)) - NONE


@pytest.mark.parametrize(
    ("raw", "least"),
    [
        ({"seed": 2**32 - 1}, 31),
        ({"left": -1024}, 11),
        ({"values": list(b"Mrs Jane Doe, 12 High Street")}, 140),
        ({"values": [0] * 100}, 99),
        ({"flags": [True, False] * 50}, 99),
        ({"modes": ["a", "b"] * 50}, 99),
        ({"factors": [1e308, -0.0, 5e-324]}, 40),
        ({"factors": [None, 0.5] * 20}, 170),
        ({"points": [{"x": 1}, {"x": 1, "y": 1}] * 20}, 80),
        ({"rows": [[], [1], [], []] * 20}, 99),
        ({"sources": ["asset-" + digit * 20 for digit in "ab" * 40]}, 70),
        ({"mode": "pad"}, 1),
    ],
)
def test_what_can_be_chosen_is_counted(raw: dict[str, Any], least: int) -> None:
    assert bits(raw) >= least


@pytest.mark.parametrize(
    "raw",
    [
        {"left": 4000, "top": 3000, "width": 1920, "height": 1080},
        {"seed": 2**32 - 1},
        {"factors": [0.25, 0.5]},
        {"sources": ["asset-" + digit * 20 for digit in "0123456789abcdef"]},
        {"left": 0, "mode": "fit"},
    ],
)
def test_what_an_editor_says_is_little(raw: dict[str, Any]) -> None:
    it = bound()
    assert it.bits(it.freeze(raw)) <= MOST_BITS_A_CALL


def test_large_choices_count_by_their_options() -> None:
    class Many(BaseModel):
        a: Literal[tuple(str(number) for number in range(1000))]  # type: ignore[valid-type]

    it = bound(Many, plain=["a"])
    assert it.bits(it.freeze({"a": "17"})) == 10
    assert not it.carries_text


def test_defaults_that_nobody_changed_count_one_bit_each() -> None:
    class Vendor(BaseModel):
        guidance: float = 7.123456
        steps: int = 123456

    it = bound(Vendor, plain=["guidance", "steps"])
    assert it.bits(it.freeze({})) == it.bits(it.freeze({"steps": 123456})) == 2
    assert it.bits(it.freeze({"steps": 123457})) > 16


@pytest.mark.parametrize(
    "raw",
    [
        {"seed": 2**53},
        {"seed": -(2**53)},
        {"seed": int("9" * 150)},
        {"values": [1] * (MOST_NUMBERS + 1)},
        {"rows": [[1] * 101, [2] * 100]},
        {"values": [2**52] * (MOST_DIGITS // 16 + 1)},
        {"factors": [0.1234567890123456] * (MOST_DIGITS // 17 + 1)},
        {"seed": "9" * 20},
        {"seed": 1e300},
        {"factors": [float("nan")]},
    ],
)
def test_more_numbers_than_an_editor_needs_are_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  any refusal
        bound().freeze(raw)


@pytest.mark.parametrize("raw", [{"seed": 2**53 - 1}, {"values": [9] * MOST_NUMBERS}])
def test_numbers_up_to_the_bounds_are_taken(raw: dict[str, Any]) -> None:
    assert bound().freeze(raw)


@pytest.mark.parametrize("default", [{"type": "integer"}, {"type": "number"}])
def test_a_json_schema_is_bounded_likewise(default: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": default}}}
    tool = StructuredTool(name="mcp", description="d", args_schema=schema, func=print)
    it = Bound(Binding(tool, stage="edit", plain=["a[]"]))
    assert it.bits(it.freeze({"a": [255] * 20})) >= 160
    with pytest.raises(ValueError, match="53"):
        it.freeze({"a": [2**60]})
