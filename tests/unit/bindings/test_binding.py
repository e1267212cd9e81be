"""What a Binding promises: every argument has a meaning, and nothing else reaches a tool."""

import enum
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.tools import BaseTool, InjectedToolArg, InjectedToolCallId, StructuredTool, tool
from langgraph.prebuilt import InjectedState, InjectedStore, ToolRuntime
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    StrictInt,
    computed_field,
)
from pydantic import field_validator as validator
from pydantic.v1 import BaseModel as OldModel
from typing_extensions import TypedDict

from agentguard import Binding as Public
from agentguard.bindings import roles
from agentguard.bindings.argument_schema import replace_at, values_at
from agentguard.bindings.bound import Bound
from agentguard.bindings.compilation import compiled
from agentguard.bindings.draft import draft
from agentguard.bindings.same_tool import same_tool
from agentguard.canonical import canonical
from agentguard.errors import BindingError
from tests.support.bindings import Arg, Binding

ONE = "asset-0123456789abcdef0123"
TWO = "asset-abcdef0123456789abcd"


def made(schema: Any, function: Callable[..., Any] | None = None, name: str = "work") -> BaseTool:
    """A tool with a given schema: a pydantic model, or JSON schema as an MCP server writes it."""
    return StructuredTool(
        name=name,
        description="Work.",
        args_schema=schema,
        func=function or (lambda **given: str(given)),
    )


def properties(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields)}


def bound(tool: BaseTool, **meaning: Any) -> Bound:
    meaning.setdefault("stage", "edit")
    return Bound(Binding(tool, **meaning))


@tool
def crop(
    source: Annotated[str, "the picture"],
    width: Annotated[int, Field(ge=1, le=4096)],
    mode: Literal["fit", "fill"] = "fit",
    ratio: Annotated[str, Field(pattern=r"^\d+:\d+$")] = "1:1",
    file: str = "c.webp",
) -> str:
    """Crop."""
    return source


CROP: dict[str, Any] = {
    "assets": ["source"],
    "plain": ["width", "mode", "ratio"],
    "outputs": ["file"],
}


class Clip(BaseModel):
    source: str
    start: float = 0.0


class Film(BaseModel):
    clips: list[Clip] = Field(min_length=1)
    logo: str | None = None
    stills: list[str] = []
    title: str = ""


FILM = made(Film, name="film")
FILM_MEANING: dict[str, Any] = {
    "assets": ["clips[].source", "logo", "stills[]"],
    "plain": ["clips[].start"],
    "texts": ["title"],
}


# --- what is refused when it is bound -------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"plain": ["width", "mode"]}, "nobody declared ratio"),
        ({"texts": ["mode"]}, "mode is declared twice"),
        ({"texts": ["prompt"]}, "no argument prompt"),
        ({"outputs": {"file": "webp"}}, "suffix"),
        ({"outputs": {"file": "./../x"}}, "suffix"),
        ({"assets": ["source", "width"], "plain": ["mode", "ratio"]}, "numbers"),
        ({"assets": "source"}, "one string"),
        ({"assets": {"source": "stream"}}, "form"),
        ({"assets": {"source": "bytes"}}, "takes text"),
        ({"stage": "approve"}, "approve"),
        ({"stage": None}, "name its stage"),
        ({"destination": "images", "interrupts": True}, "must not pause"),
    ],
)
def test_a_contradiction_is_found_when_the_tool_is_bound(change: Any, said: str) -> None:
    with pytest.raises(BindingError, match=said):
        bound(crop, **{**CROP, **change})


class Anything(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str = ""


class HoldsAnything(BaseModel):
    inner: Anything


class Tree(BaseModel):
    name: str
    children: list["Tree"] = []


class Written(BaseModel):
    path: str

    @computed_field  # type: ignore[prop-decorator]
    @property
    def full(self) -> str:
        return f"/srv/{self.path}"


class HoldsWritten(BaseModel):
    inner: Written


class HoldsTwoNames(BaseModel):
    inner: list["TwoNames"]


class TwoNames(BaseModel):
    source: str = Field(validation_alias=AliasChoices("src", "from"))


def takes(annotation: Any) -> BaseTool:
    def work(value: Any) -> str:
        """Work."""
        return ""

    work.__annotations__["value"] = annotation
    return tool(work)


@pytest.mark.parametrize(
    "annotation",
    [
        Any,
        object,
        dict,
        dict[str, Any],
        dict[str, str],
        list,
        list[Any],
        list[dict[str, str]],
        str | dict[str, str],
        int | list[int],
        Clip | Film,
        Anything,
        Tree,
        tuple[int, int],
        bytes,
        bytes | str,
        FilePath,
        Callable[[], None],
    ],
)
@pytest.mark.parametrize("path", ["value", "value[]", "value.name"])
def test_an_open_shape_bytes_or_a_path_type_is_never_plain(annotation: Any, path: str) -> None:
    with pytest.raises(BindingError):
        bound(takes(annotation), plain=[path])


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "object", "additionalProperties": True}, None),
        ({"type": "object", "additionalProperties": {}}, None),
        ({"type": "object", "patternProperties": {".*": {"type": "string"}}}, None),
        ({**properties(a={"type": "string"}), "additionalProperties": True}, None),
        ({**properties(a={"type": "string"}), "additionalProperties": True}, "a"),
        ({"type": "string"}, None),
        (properties(a={}), "a"),
        (properties(a=True), "a"),
        (properties(a={"type": "object"}), "a"),
        (properties(a={"type": "array"}), "a[]"),
        (properties(a={"type": "array", "items": [{"type": "string"}]}), "a[]"),
        (properties(a={"$ref": "https://schemas.example/a.json"}), "a"),
        (properties(a={"$ref": "#/properties/b"}, b={"type": "string"}), "a"),
        ({**properties(a={"$ref": "#/$defs/a"}), "$defs": {"a": {"$ref": "#/$defs/a"}}}, "a"),
        (
            {**properties(a={"$ref": "#/$defs/a"}), "$defs": {"a": {"anyOf": [
                {"type": "string"}, {"$ref": "#/$defs/a"}]}}},
            "a",
        ),
        (properties(a={"type": "object", "properties": {}, "patternProperties": {"": {}}}), "a"),
        (properties(a={"type": "object", "properties": {}, "additionalProperties": {}}), "a"),
        ({**properties(**{"a.b": {"type": "string"}})}, "a.b"),
        ({**properties(**{"a[]": {"type": "string"}})}, "a[]"),
        ({**properties(**{"../a": {"type": "string"}})}, "../a"),
        ({**properties(**{"": {"type": "string"}})}, ""),
        (properties(a={"type": "string", "contentEncoding": "base64"}), "a"),
        (properties(a={"type": "string", "pattern": "("}), "a"),
        (properties(a={"type": "string", "minLength": "x"}), "a"),
    ],
)  # fmt: skip
def test_an_open_or_odd_json_schema_is_refused(schema: Any, path: str | None) -> None:
    with pytest.raises(BindingError):
        bound(made(schema), plain=[path] if path is not None else [])


def test_bytes_are_bound_as_bytes_and_nothing_else() -> None:
    bound(takes(bytes), assets={"value": "bytes"})
    for form in ("path", "data-url"):
        with pytest.raises(BindingError, match="takes bytes"):
            bound(takes(bytes), assets={"value": form})
    with pytest.raises(BindingError, match="base64"):
        bound(made(properties(a={"type": "string", "format": "base64"})), assets=["a"])


@pytest.mark.parametrize("schema", [Anything, HoldsAnything, HoldsWritten, HoldsTwoNames])
def test_a_schema_that_takes_or_writes_more_than_it_names_is_refused(schema: Any) -> None:
    paths = {Anything: "name", HoldsAnything: "inner.name", HoldsWritten: "inner.path",
             HoldsTwoNames: "inner[].src"}  # fmt: skip
    with pytest.raises(BindingError):
        bound(made(schema), plain=[paths[schema]])


def test_a_tuple_is_named_for_what_it_is() -> None:
    @tool
    def fit(size: tuple[int, int]) -> str:
        """Fit."""
        return ""

    with pytest.raises(BindingError, match=r"^fit.size: a tuple can't be bound; make each part"):
        bound(fit)


def test_a_pydantic_1_schema_is_refused() -> None:
    class Old(OldModel):
        name: str

    with pytest.raises(BindingError, match="pydantic v1"):
        bound(made(Old), plain=["name"])


def test_a_tool_with_free_keywords_is_refused() -> None:
    @tool
    def free(name: str, **kwargs: Any) -> str:
        """Free."""
        return name

    with pytest.raises(BindingError, match="open shape"):
        bound(free, plain=["name"])


def test_what_is_no_tool_is_refused() -> None:
    def silent(a: int) -> None: ...

    with pytest.raises(BindingError, match="silent"):
        Binding(silent, stage="edit", plain=["a"])


def test_a_destination_is_one() -> None:
    with pytest.raises(BindingError, match="one destination"):
        bound(made(properties(to={"type": "array", "items": {"type": "string"}})),
              destination=Arg("to[]"))  # fmt: skip


def test_a_binding_can_not_be_changed_after_the_fact() -> None:
    binding = Binding(crop, stage="edit", **CROP)
    with pytest.raises(TypeError):
        binding.assets["width"] = "path"  # type: ignore[index]
    with pytest.raises(AttributeError):
        binding.plain = ()  # type: ignore[misc]


# --- freezing -------------------------------------------------------------------------------------


def test_freeze_fills_in_defaults_and_coerces_the_rest() -> None:
    frozen = bound(crop, **CROP).freeze({"source": ONE, "width": "12"})
    assert frozen == {"source": ONE, "width": 12, "mode": "fit", "ratio": "1:1"}


@pytest.mark.parametrize(
    "raw",
    [
        {"source": ONE},
        {"source": ONE, "width": 0},
        {"source": ONE, "width": 9999},
        {"source": ONE, "width": 5, "mode": "melt"},
        {"source": ONE, "width": 5, "ratio": "wide"},
        {"source": ONE, "width": 5, "file": "out.png"},
        {"source": ONE, "width": 5, "file": None},
        {"source": ONE, "width": 5, "evil": 1},
        {"source": ONE, "width": 5, "": 1},
        {"source": [ONE], "width": 5},
        {"source": {"id": ONE}, "width": 5},
        {"source": ONE, "width": float("nan")},
        {"source": ONE + "\ud800", "width": 5},
        {"source": ONE, "width": 5, 7: 1},
        {"source": b"x", "width": 5},
        {"source": ONE, "width": 10**5000},
    ],
)
def test_arguments_off_the_schema_are_refused(raw: Any) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  any refusal
        bound(crop, **CROP).freeze(raw)
    str(caught.value).encode("utf-8")
    assert len(str(caught.value)) < 500


class Inner(BaseModel):
    size: int = 1


class Outer(BaseModel):
    inner: Inner = Inner()
    many: list[Inner] = []


class TypedInner(TypedDict, total=False):
    size: int


@dataclass
class DataInner:
    size: int = 1


@pytest.mark.parametrize(
    ("schema", "raw"),
    [
        (Outer, {"inner": {"size": 1, "evil": "/etc/passwd"}}),
        (Outer, {"many": [{"size": 1}, {"evil": {"a": 1}}]}),
        (takes(TypedInner), {"value": {"size": 1, "evil": 1}}),
        (takes(DataInner), {"value": {"size": 1, "evil": 1}}),
        (takes(list[DataInner]), {"value": [{"evil": 1}]}),
        (properties(a={"type": "object", "properties": {"size": {"type": "integer"}}}),
         {"a": {"size": 1, "evil": 1}}),
        (properties(a={"type": "object", "properties": {"size": {"type": "integer"}}}),
         {"a": {"size": 1, "x.y": 1}}),
        (properties(a={"type": "object", "properties": {"size": {"type": "integer"}}}),
         {"a": {"size": 1}, "a.size": 1}),
        (properties(a={"type": "object", "properties": {"size": {"type": "integer"}}}),
         {"a": {"size": 1}, "b": 1}),
    ],
)  # fmt: skip
def test_trap_17_an_extra_argument_is_refused_at_every_level(schema: Any, raw: Any) -> None:
    paths = ["inner.size", "many[].size"] if schema is Outer else None
    worker = schema if isinstance(schema, BaseTool) else made(schema)
    if paths is None:
        first = next(iter(raw))
        many = "[]" if isinstance(raw[first], list) else ""
        paths = [f"{first}{many}.size"]
    with pytest.raises(ValueError, match="no argument"):
        bound(worker, plain=paths).freeze(raw)


@pytest.mark.parametrize(
    "value",
    [
        "/etc/passwd",
        "../secrets",
        "~/.ssh/id_rsa",
        "C:\\Windows",
        "file:///etc/passwd",
        "https://evil.example/x",
        "//evil.example",
        "evil.example.com",
        "s3://bucket/key",
        "data:text/plain,x",
        "127.0.0.1",
        "localhost",
        "$HOME",
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5",
        "x" * 257,
        "top\u202eleft",
        "top\u200bleft",
        "two\nlines",
        "bell\x07",
        "tag\U000e0041",
        "\uff0fetc\uff0fpasswd",
    ],
)
def test_a_plain_text_that_could_be_opened_or_hides_something_is_refused(value: str) -> None:
    for worker in (takes(str), made(properties(value={"type": "string"}))):
        with pytest.raises(ValueError, match="value"):
            bound(worker, plain=["value"]).freeze({"value": value})


@pytest.mark.parametrize("value", ["16:9", "top-left", "Überblendung", "and/or", "日本語", ""])
def test_an_ordinary_word_is_plain(value: str) -> None:
    assert bound(takes(str), plain=["value"]).freeze({"value": value}) == {"value": value}


def test_a_listed_word_may_look_like_anything() -> None:
    ratio = takes(Literal["a/b/c", "https://cdn.example"])
    assert bound(ratio, plain=["value"]).freeze({"value": "a/b/c"}) == {"value": "a/b/c"}


def test_plain_values_are_judged_before_the_tools_own_types_see_them() -> None:
    seen: list[str] = []

    class Opens(BaseModel):
        name: str

        @validator("name")
        @classmethod
        def look(cls, value: str) -> str:
            seen.append(value)
            return value

    class Holds(BaseModel):
        inner: Opens

    with pytest.raises(ValueError, match="absolute path"):
        bound(made(Holds), plain=["inner.name"]).freeze({"inner": {"name": "/etc/passwd"}})
    assert seen == []


@pytest.mark.parametrize(
    "value", [[1] * 5000, list(range(2000)), [[1]] * 2, {"a": 1}, ["x" * 200_000]]
)
def test_too_much_or_another_shape_is_refused(value: Any) -> None:
    for worker in (takes(list[int]), takes(set[int]), takes(list[str])):
        with pytest.raises(ValueError):  # noqa: PT011
            bound(worker, plain=["value[]"]).freeze({"value": value})


def test_a_deep_argument_is_refused() -> None:
    deep: Any = 1
    for _ in range(50_000):
        deep = [deep]
    for worker in (takes(str), made(properties(value={"type": "string"}))):
        with pytest.raises(ValueError, match="nested"):
            bound(worker, plain=["value"]).freeze({"value": deep})


def test_a_refusal_does_not_repeat_the_value() -> None:
    canary = "C4N4RY-not-a-known-kind"
    for schema in (properties(value={"type": "integer"}), takes(int), takes(Literal["a"]),
                   takes(float), takes(list[int])):  # fmt: skip
        worker = schema if isinstance(schema, BaseTool) else made(schema)
        many = "[]" if worker.name == "work" and "array" in str(worker.args) else ""
        with pytest.raises(ValueError, match="value") as caught:
            bound(worker, plain=[f"value{many}"]).freeze({"value": canary})
        assert canary not in str(caught.value)


def test_a_validator_that_breaks_is_a_refusal() -> None:
    class Breaks(BaseModel):
        name: str

        @validator("name")
        @classmethod
        def look(cls, value: str) -> str:
            raise KeyError(value)

    class Holds(BaseModel):
        inner: Breaks

    with pytest.raises(ValueError, match="KeyError"):
        bound(made(Holds), plain=["inner.name"]).freeze({"inner": {"name": "x"}})


def test_a_remote_schema_is_never_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *_: pytest.fail("it fetched"))
    schema = {
        **properties(a={"type": "integer"}),
        "not": {"$ref": "https://schemas.example/a.json"},
    }
    with pytest.raises(BindingError, match="https://schemas"):
        bound(made(schema), plain=["a"])


def test_unions_nullables_enums_and_list_types_are_understood() -> None:
    class Colour(enum.Enum):
        RED = "red"

    class Mixed(BaseModel):
        a: int | str | None = None
        b: Colour = Colour.RED
        c: list[Colour] | None = None
        d: Optional[Inner] = None  # noqa: UP045
        e: Literal["auto"] | int = "auto"

    it = bound(made(Mixed), plain=["a", "b", "c[]", "d.size", "e"])
    raw = {"a": "x", "b": "red", "c": ["red"], "d": {"size": 3}, "e": 4}
    assert it.freeze(raw) == raw
    nothing = {"a": None, "c": None, "d": None}
    assert it.freeze(nothing) == {**nothing, "b": "red", "e": "auto"}
    with pytest.raises(ValueError, match="URL"):
        it.freeze({"a": "https://evil.example"})
    mcp = bound(made(properties(a={"type": ["string", "null"]})), plain=["a"])
    assert mcp.freeze({"a": None}) == {"a": None}


_SET_SCRIPT = """
from langchain_core.tools import StructuredTool
from pydantic import BaseModel
from agentguard.bindings.compiled_binding import CompiledBinding as Binding
from agentguard.bindings.bound import Bound
class Inner(BaseModel):
    marks: set[str] = {"p", "q", "r", "s", "t"}
class Args(BaseModel):
    tags: set[str] = {"a", "b", "c", "d", "e"}
    inner: Inner = Inner()
tool = StructuredTool(name="t", description="t", args_schema=Args, func=print)
bound = Bound(Binding(tool, stage="edit", plain=["tags[]", "inner.marks[]"]))
print(bound.digest, bound.freeze({"tags": ["z", "y", "x", "w", "z"]}))
"""


def test_trap_17_sets_freeze_alike_in_every_process() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", _SET_SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(found) == 1
    assert "['w', 'x', 'y', 'z']" in found.pop()


def test_trap_17_a_default_factory_is_no_part_of_what_is_frozen() -> None:
    numbers = iter(range(100))

    class Seeded(BaseModel):
        seed: int = Field(default_factory=lambda: next(numbers))
        name: str = "x"

    it = bound(made(Seeded), plain=["seed", "name"])
    assert it.freeze({}) == it.freeze({}) == {"name": "x"}
    assert it.made_when_run({"name": "x"}) == ("seed",)
    assert it.digest == bound(made(Seeded), plain=["seed", "name"]).digest


_WORKERS: Sequence[Bound] = (
    bound(crop, **CROP),
    bound(FILM, **FILM_MEANING),
    bound(made(Outer), plain=["inner.size", "many[].size"]),
    bound(
        made(properties(value={"type": ["string", "number", "null"]}, many={"type": "array",
             "items": {"type": "object", "properties": {"a": {"type": "boolean"}}}})),
        plain=["value", "many[].a"],
    ),
)  # fmt: skip

_SCALAR = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from([ONE, TWO, "16:9", "fit", "/etc/passwd", "\ud800"])
)
_NAMES = (
    "source", "width", "mode", "ratio", "file", "clips", "logo", "stills", "title",
    "start", "inner", "many", "size", "value", "a",
)  # fmt: skip
_KEY = st.sampled_from(_NAMES) | st.text(max_size=6)
_ANY = st.recursive(
    _SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEY, inner, max_size=4)
)


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(_WORKERS), st.dictionaries(_KEY, _ANY, max_size=5))
def test_whatever_a_model_writes_freezes_for_good_or_is_refused(it: Bound, raw: Any) -> None:
    try:
        frozen = it.freeze(raw)
    except ValueError as error:
        str(error).encode("utf-8")
        return
    assert canonical(frozen) == canonical(it.freeze(raw)) == canonical(it.freeze(frozen))
    assert set(frozen) <= set(it.args_names)


# --- assets and outputs ---------------------------------------------------------------------------


def test_nested_and_optional_assets_are_found_and_replaced() -> None:
    it = bound(FILM, **FILM_MEANING)
    frozen = it.freeze({"clips": [{"source": ONE}, {"source": TWO, "start": 2}], "logo": None,
                        "stills": [ONE]})  # fmt: skip
    assert [list(values_at(frozen, path)) for path in it.binding.assets] == [[ONE, TWO], [], [ONE]]
    filled = it.fill(frozen, lambda path, value: f"/scratch/{value}", {"file": "/scratch/out"})
    assert filled == {
        "clips": [
            {"source": f"/scratch/{ONE}", "start": 0.0},
            {"source": f"/scratch/{TWO}", "start": 2.0},
        ],
        "logo": None,
        "stills": [f"/scratch/{ONE}"],
        "title": "",
        "file": "/scratch/out",
    }
    assert frozen["stills"] == [ONE]


def test_an_alias_can_not_carry_a_path_past_the_binding() -> None:
    class Renamed(BaseModel):
        model_config = ConfigDict(populate_by_name=True)
        source: str = Field(alias="src")

    class Holds(BaseModel):
        clips: list[Renamed]

    it = bound(made(Holds), assets=["clips[].src"])
    for name in ("src", "source"):
        try:
            frozen = it.freeze({"clips": [{name: "/etc/passwd"}]})
        except ValueError:
            continue
        assert list(values_at(frozen, "clips[].src")) == ["/etc/passwd"]  # the gate refuses it
    filled = it.fill(it.freeze({"clips": [{"src": ONE}]}), lambda *_: "/scratch/in.png", {})
    assert Holds.model_validate(filled).clips[0].source == "/scratch/in.png"


def test_a_top_level_alias_works_by_name_or_not_at_all() -> None:
    class ByName(BaseModel):
        model_config = ConfigDict(populate_by_name=True)
        source: str = Field(alias="src")

    class ByAlias(BaseModel):
        source: str = Field(alias="src")

    it = bound(made(ByName), assets=["source"])
    assert it.freeze({"source": ONE}) == {"source": ONE}
    with pytest.raises(ValueError, match="no argument"):
        it.freeze({"src": "/etc/passwd"})
    assert it.args_schema.model_validate({"source": ONE}).source == ONE
    with pytest.raises(BindingError, match="alias"):
        bound(made(ByAlias), assets=["source"])


def test_a_null_in_a_list_of_assets_is_left_alone() -> None:
    items = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    it = bound(made(properties(a={"type": "array", "items": items})), assets=["a[]"])
    frozen = it.freeze({"a": [None, ONE]})
    assert it.fill(frozen, lambda path, value: "x", {}) == {"a": [None, "x"]}


_ITEMS = st.none() | st.sampled_from([ONE, TWO])


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "clips": st.none() | st.lists(st.none() | st.fixed_dictionaries({"source": _ITEMS})),
            "logo": _ITEMS,
            "stills": st.none() | st.lists(_ITEMS),
        },
    )
)
def test_fill_leaves_no_asset_id_and_touches_nothing_else(frozen: dict[str, Any]) -> None:
    it = bound(FILM, **FILM_MEANING)
    before = canonical(frozen)
    filled = it.fill(frozen, lambda path, value: "/scratch/1", {})
    named = [value for path in it.binding.assets for value in values_at(frozen, path)]
    assert "asset-" not in str(filled)
    assert str(filled).count("/scratch/1") == len(named)
    assert canonical(frozen) == before


def test_replace_at_walks_nested_lists() -> None:
    data: dict[str, Any] = {"a": [[1, None], None, [2]], "b": {"c": [{"d": 3}, 4]}}
    replace_at(data, "a[][]", lambda path, value: value * 10)
    replace_at(data, "b.c[].d", lambda path, value: value * 10)
    replace_at(data, "b[].x", lambda path, value: pytest.fail("nothing is there"))
    assert data == {"a": [[10, None], None, [20]], "b": {"c": [{"d": 30}, 4]}}


def test_the_suffix_of_an_output_is_bound_else_its_defaults_else_its_stages() -> None:
    assert bound(crop, **CROP).suffix("file") == ".webp"
    assert bound(crop, **{**CROP, "outputs": {"file": ".jpg"}}).suffix("file") == ".jpg"
    named = made(properties(file={"type": "string", "default": "/tmp/../x"}))
    assert bound(named, outputs=["file"]).suffix("file") == ".png"
    assert bound(named, outputs=["file"], stage="render").suffix("file") == ".mp4"


# --- what the model sees --------------------------------------------------------------------------


def shown(it: Bound) -> dict[str, Any]:
    copy = it.binding.tool.model_copy(update={"args_schema": it.args_schema})
    schema: Any = copy.tool_call_schema
    return schema if isinstance(schema, dict) else schema.model_json_schema()


def test_the_model_sees_asset_ids_bounds_and_no_outputs() -> None:
    seen = shown(bound(crop, **CROP))["properties"]
    assert set(seen) == {"source", "width", "mode", "ratio"}
    assert seen["source"]["description"] == "Asset id. the picture"
    assert (seen["width"]["minimum"], seen["width"]["maximum"]) == (1, 4096)
    assert seen["mode"]["enum"] == ["fit", "fill"]
    assert seen["mode"]["default"] == "fit"
    assert seen["ratio"]["pattern"] == r"^\d+:\d+$"


def test_the_model_sees_asset_ids_inside_lists_and_models_too() -> None:
    class Strict(BaseModel):
        source: FilePath
        start: Annotated[float, Field(ge=0)] = 0.0

    class Joined(BaseModel):
        clips: list[Strict] = Field(min_length=2)
        stills: set[str] | None = None

    meaning = {"assets": ["clips[].source", "stills[]"], "plain": ["clips[].start"]}
    it = bound(made(Joined), **meaning)
    seen = shown(it)
    (inner,) = seen["$defs"].values()
    assert inner["properties"]["source"] == {
        "description": "Asset id.", "title": "Source", "type": "string"}  # fmt: skip
    assert inner["properties"]["start"]["minimum"] == 0
    assert seen["properties"]["clips"]["minItems"] == 2
    assert "Asset ids." in seen["properties"]["stills"]["description"]
    frozen = it.freeze({"clips": [{"source": ONE}, {"source": "/etc/passwd"}]})
    assert list(values_at(frozen, "clips[].source")) == [ONE, "/etc/passwd"]  # nothing was opened


def test_the_model_sees_asset_ids_in_a_json_schema_too() -> None:
    schema = {
        **properties(
            source={"type": "string", "format": "uri", "pattern": "^/", "description": "picture"},
            logo={"anyOf": [{"type": "string"}, {"type": "null"}]},
            clips={"type": "array", "items": {"$ref": "#/$defs/clip"}},
            out={"type": "string"},
            n={"type": "integer", "maximum": 3},
        ),
        "$defs": {"clip": {"type": "object", "properties": {"src": {"type": "string"}}}},
    }
    it = bound(made(schema), assets=["source", "logo", "clips[].src"], outputs=["out"], plain=["n"])
    seen = shown(it)
    assert set(seen["properties"]) == {"source", "logo", "clips", "n"}
    assert seen["required"] == ["source", "logo", "clips", "n"]
    assert seen["additionalProperties"] is False
    assert seen["properties"]["source"] == {
        "type": "string", "description": "Asset id. picture"}  # fmt: skip
    assert "Asset id." in str(seen["properties"]["clips"])
    raw = {"source": ONE, "logo": None, "clips": [{"src": TWO}], "n": 2}
    assert it.freeze(raw) == raw
    with pytest.raises(ValueError, match=r"\$\.n"):
        it.freeze({**raw, "n": 4})


def test_the_tools_own_validators_run_on_what_the_tool_gets() -> None:
    class Checked(BaseModel):
        source: str

        @validator("source")
        @classmethod
        def exists(cls, value: str) -> str:
            if not value.startswith("/scratch/"):
                raise ValueError("no such file")
            return value

    it = bound(made(Checked), assets=["source"])
    filled = it.fill(it.freeze({"source": ONE}), lambda *_: "/scratch/x.png", {})
    assert Checked.model_validate(filled).source == "/scratch/x.png"


# --- injected arguments ---------------------------------------------------------------------------


@tool
def remember(
    text: str,
    state: Annotated[dict[str, Any], InjectedState],
    store: Annotated[Any, InjectedStore()],
    call: Annotated[str, InjectedToolCallId],
    runtime: ToolRuntime,
    secret: Annotated[str, InjectedToolArg] = "",
) -> str:
    """Remember."""
    return text


def test_injected_arguments_are_known_by_their_marks() -> None:
    it = bound(remember, texts=["text"])
    assert it.injected == {"state", "store", "call", "runtime", "secret"}
    assert it.args_names == ["text"]
    for name in it.injected:
        with pytest.raises(ValueError, match="no argument"):
            it.freeze({"text": "x", name: "forged"})


@pytest.mark.parametrize(
    "name", ["config", "run_manager", "callbacks", "args", "kwargs", "self", "hidden", "given"]
)
def test_no_other_parameter_passes_for_an_injected_one(name: str) -> None:
    def work(a: int, hidden: str = "", callbacks: Any = None, **given: Any) -> str:
        return hidden

    for schema in (properties(a={"type": "integer"}), Outer):
        worker = made(schema, work)
        paths = ["a"] if isinstance(schema, dict) else ["inner.size", "many[].size"]
        it = bound(worker, plain=paths)
        assert name not in it.injected
        with pytest.raises(ValueError, match="no argument"):
            it.freeze({name: "forged"})


def test_mcp_style_runtime_is_injected_by_name() -> None:
    async def call_tool(runtime: Any = None, **arguments: Any) -> str:
        return ""

    worker = StructuredTool(
        name="mcp",
        description="d",
        args_schema=properties(a={"type": "integer"}),
        coroutine=call_tool,
    )
    assert bound(worker, plain=["a"]).injected == {"runtime"}


# --- kinds of tools -------------------------------------------------------------------------------


class Bare(BaseTool):
    name: str = "bare"
    description: str = "A tool class without a schema of its own."

    def _run(self, source: str, size: int = 3, run_manager: Any = None) -> str:
        return source


class OnlyAsync(BaseTool):
    name: str = "only_async"
    description: str = "An asynchronous tool."
    args_schema: Any = Inner

    def _run(self, *args: Any, **kwargs: Any) -> str:
        raise NotImplementedError

    async def _arun(self, size: int = 1) -> str:
        return str(size)


def test_tool_classes_and_async_tools_are_bound_too() -> None:
    bare = bound(Bare(), assets=["source"], plain=["size"])
    assert bare.freeze({"source": ONE, "size": "4"}) == {"source": ONE, "size": 4}
    assert bound(OnlyAsync(), plain=["size"]).freeze({"size": 2}) == {"size": 2}

    @tool
    async def later(size: int) -> str:
        """Later."""
        return str(size)

    assert bound(later, plain=["size"]).freeze({"size": 2}) == {"size": 2}


def test_a_tool_without_arguments_takes_none() -> None:
    @tool
    def nothing() -> str:
        """Nothing."""
        return ""

    for worker in (nothing, made({"type": "object"}), made(properties())):
        it = bound(worker, stage=None)
        assert it.freeze({}) == {}
        with pytest.raises(ValueError, match="no argument"):
            it.freeze({"a": 1})


def test_same_tool_means_same_code_and_same_schema() -> None:
    def work(a: int = 1) -> str:
        """Work."""
        return str(a)

    class Wider(BaseModel):
        a: int = 1
        path: str = ""

    original = StructuredTool.from_function(work)
    it = bound(original, plain=["a"])
    assert same_tool(it.binding, original.model_copy())
    assert not same_tool(it.binding, StructuredTool.from_function(work, args_schema=Wider))
    assert not same_tool(it.binding, original.model_copy(update={"func": lambda a=1: "other"}))
    assert not same_tool(it.binding, Bare())


# --- the digest -----------------------------------------------------------------------------------


def test_the_digest_changes_with_schema_default_and_meaning() -> None:
    def with_default(value: int) -> BaseTool:
        return made(properties(a={"type": "integer", "default": value}))

    it = made(properties(a={"type": "string"}))
    digests = [
        bound(with_default(1), plain=["a"]).digest,
        bound(with_default(2), plain=["a"]).digest,
        bound(it, plain=["a"]).digest,
        bound(it, texts=["a"]).digest,
        bound(it, assets=["a"]).digest,
        bound(it, assets={"a": "data-url"}).digest,
        bound(it, outputs=["a"]).digest,
        bound(it, outputs={"a": ".mp4"}).digest,
        bound(it, destination=Arg("a")).digest,
        bound(it, plain=["a"], destination="a").digest,
        bound(it, plain=["a"], stage="render").digest,
        bound(it, plain=["a"], reveals=True).digest,
        bound(it, plain=["a"], labels=["brand"]).digest,
        bound(it, plain=["a"], state=["x"]).digest,
        bound(it, plain=["a"], interrupts=True).digest,
        bound(it, plain=["a"], effect="opaque").digest,
        bound(it, plain=["a"], unsafe_routes=True).digest,
        bound(made(properties(a={"type": "string"}), name="other"), plain=["a"]).digest,
    ]
    assert len(set(digests)) == len(digests)
    assert bound(it, plain=["a"]).digest == bound(it, plain=["a"]).digest


def test_a_schema_without_canonical_form_is_refused() -> None:
    with pytest.raises(BindingError, match="canonical"):
        bound(made(properties(a={"type": "number", "default": float("inf")})), plain=["a"])


def test_a_draft_is_a_binding_to_correct(tmp_path: Path) -> None:
    written = draft(crop)
    assert written.startswith("Binding(\n    crop,\n    stage=")
    compiled(eval(written, {**vars(roles), "Binding": Public, "crop": crop}))  # its own source
    with pytest.raises(BindingError):
        draft(takes(dict[str, Any]))


def test_a_schema_that_tells_one_from_one_point_nought_is_asked_about_each() -> None:
    @tool
    def repeat(times: StrictInt) -> str:
        """Repeat."""
        return str(times)

    warm = bound(repeat, plain=["times"])
    assert warm.freeze({"times": 1}) == {"times": 1}
    with pytest.raises(ValueError, match="times"):
        warm.freeze({"times": 1.0})
    assert type(warm.freeze({"times": 1})["times"]) is int


def test_a_review_of_several_assets_must_name_its_subject() -> None:
    @tool
    def compare(source: str, reference: str) -> str:
        """Compare two pictures."""
        return "same"

    with pytest.raises(BindingError, match="reviews="):
        Binding(compare, stage="review", assets=["source", "reference"])
    made = Binding(compare, stage="review", assets=["source", "reference"], reviews="source")
    assert made.reviews == "source"


@pytest.mark.parametrize(
    "reference", ["https://evil.example/s.json", "file:///etc/passwd", "#/$defs/missing", "s.json"]
)
def test_schema_that_refers_elsewhere_is_refused_when_it_is_bound(reference: str) -> None:
    schema = {
        "title": "count",
        "type": "object",
        "properties": {"width": {"type": "integer"}},
        "allOf": [{"if": {"required": ["width"]}, "then": {"$ref": reference}}],
    }
    tool = StructuredTool(
        name="count", description="Count.", args_schema=schema, func=lambda **_: "done"
    )
    with pytest.raises(BindingError, match="which is not in it; write it out"):
        Bound(Binding(tool, stage="edit", plain=["width"]))


def test_schema_that_refers_to_its_own_part_is_bound() -> None:
    schema = {
        "title": "count",
        "type": "object",
        "properties": {"width": {"type": "integer"}},
        "allOf": [{"if": {"required": ["width"]}, "then": {"$ref": "#/$defs/few"}}],
        "$defs": {"few": {"properties": {"width": {"maximum": 9}}}},
    }
    tool = StructuredTool(
        name="count", description="Count.", args_schema=schema, func=lambda **_: "done"
    )
    bound = Bound(Binding(tool, stage="edit", plain=["width"]))
    assert bound.freeze({"width": 9}) == {"width": 9}
    with pytest.raises(ValueError, match="maximum"):
        bound.freeze({"width": 10})
