"""What a person signs has the tool's defaults in it, and a schema turns nothing into something else
(I7)."""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import pytest
from langchain_core.tools import StructuredTool
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.json_schema import SkipJsonSchema

from agentguard.bindings.argument_schema import is_same
from agentguard.bindings.bound import Bound
from agentguard.errors import BindingError
from tests.support.bindings import Arg, Binding

ONE = "asset-" + "1" * 20


def tool_of(args: Any) -> StructuredTool:
    return StructuredTool(name="act", description="Act.", args_schema=args, func=print)


def bound(args: Any, stage: str = "edit", **meaning: Any) -> Bound:
    return Bound(Binding(tool_of(args), stage=stage, **meaning))


class Colour(enum.Enum):
    RED = "red"


class Options(BaseModel):
    quality: int = 80
    network: str = "mastodon"
    note: str | None = None
    stamp: int = Field(default_factory=lambda: 7)


class Post(BaseModel):
    source: str
    caption: str = "hello"
    visibility: Literal["public", "private"] = "public"
    colour: Colour = Colour.RED
    options: Options = Options()
    more: list[Options] = []
    tags: set[str] = {"b", "a"}
    extra: str | None = None


POST: dict[str, Any] = {
    "assets": ["source"], "texts": ["caption"],
    "plain": ["visibility", "colour", "tags[]", "extra",
              *(f"{at}.{name}" for at in ("options", "more[]")
                for name in ("quality", "network", "note", "stamp"))],
}  # fmt: skip


def test_defaults_are_in_what_is_frozen() -> None:
    options = {"quality": 80, "network": "mastodon"}
    it = bound(Post, **POST)
    assert it.freeze({"source": ONE}) == {
        "source": ONE, "caption": "hello", "visibility": "public", "colour": "red",
        "options": options, "more": [], "tags": ["a", "b"],
    }  # fmt: skip
    given = it.freeze({"source": ONE, "more": [{"quality": 1}, {"stamp": 3}], "extra": None})
    assert given["more"] == [{**options, "quality": 1}, {**options, "stamp": 3}]
    assert given["extra"] is None
    assert it.freeze(given) == given


def test_a_given_default_and_a_default_are_the_same_request() -> None:
    it = bound(Post, **POST)
    assert it.freeze({"source": ONE, "caption": "hello"}) == it.freeze({"source": ONE})


def test_what_a_factory_makes_is_named() -> None:
    it = bound(Post, **POST)
    assert it.made_when_run(it.freeze({"source": ONE})) == ("options.stamp",)
    raw = {"source": ONE, "options": {"stamp": 1}, "more": [{"stamp": 1}, {}]}
    assert it.made_when_run(it.freeze(raw)) == ("more[].stamp",)


@pytest.mark.parametrize("stage", ["queue", "export"])
@pytest.mark.parametrize("nested", [True, False])
def test_no_factory_goes_where_people_approve(stage: str, nested: bool) -> None:
    class Flat(BaseModel):
        to: str
        stamp: int = Field(default_factory=lambda: 7)

    class Nested(BaseModel):
        to: str
        many: list[Options]

    meaning: dict[str, Any] = {"destination": Arg("to")}
    if stage == "export":
        meaning["effect"] = "opaque"
    names = ["many[].quality", "many[].network", "many[].note", "many[].stamp"]
    with pytest.raises(BindingError, match=r"stamp.*required"):
        bound(Nested if nested else Flat, stage, plain=names if nested else ["stamp"], **meaning)


def test_an_asset_has_no_default_but_none() -> None:
    class Logo(BaseModel):
        source: str = "logo.png"

    class Maybe(BaseModel):
        source: str | None = None

    with pytest.raises(BindingError, match="default"):
        bound(Logo, assets=["source"])
    assert bound(Maybe, assets=["source"]).freeze({}) == {}


def test_a_developers_default_may_be_an_address_and_the_models_may_not() -> None:
    class Api(BaseModel):
        server: str = "https://api.example/v1"

    it = bound(Api, plain=["server"])
    assert it.freeze({}) == it.freeze({"server": "https://api.example/v1"})
    with pytest.raises(ValueError, match="URL"):
        it.freeze({"server": "https://evil.example/v1"})


@pytest.mark.filterwarnings("ignore")  # pydantic says that its JSON schema leaves it out
def test_a_default_without_json_form_is_refused() -> None:
    class Odd(BaseModel):
        a: str = Field(default=object())  # type: ignore[assignment]

    with pytest.raises(BindingError, match="JSON form"):
        bound(Odd, plain=["a"])


def test_defaults_of_a_json_schema_are_sent_as_they_are_shown() -> None:
    schema = {
        "type": "object",
        "$defs": {"o": {"type": "object", "properties": {"q": {"type": "integer", "default": 3},
                                                         "n": {"type": "string"}}}},
        "properties": {
            "network": {"type": "string", "default": "mastodon"},
            "nothing": {"type": ["string", "null"], "default": None},
            "one": {"$ref": "#/$defs/o", "default": {"n": "x"}},
            "many": {"type": "array", "items": {"$ref": "#/$defs/o"}},
            "maybe": {"anyOf": [{"$ref": "#/$defs/o"}, {"type": "null"}]},
        },
    }  # fmt: skip
    plain = ["network", "nothing", *(f"{at}.{n}" for at in ("one", "many[]", "maybe")
                                     for n in "qn")]  # fmt: skip
    it = bound(schema, plain=plain)
    assert it.freeze({}) == {"network": "mastodon", "one": {"n": "x", "q": 3}}
    raw = {"many": [{}, {"q": 1}], "maybe": {"n": "y"}, "one": {}}
    assert it.freeze(raw) == {
        "network": "mastodon", "one": {"q": 3}, "many": [{"q": 3}, {"q": 1}],
        "maybe": {"n": "y", "q": 3},
    }  # fmt: skip


def turn(value: Any) -> Any:
    return {"team": "site", "hello": "bye", ONE: "asset-" + "2" * 20}.get(value, value)


TURNED: dict[str, Any] = {
    "after": Annotated[str, AfterValidator(turn)],
    "before": Annotated[str, BeforeValidator(turn)],
    "serializer": Annotated[str, PlainSerializer(turn, return_type=str)],
}


@pytest.mark.parametrize("how", TURNED)
@pytest.mark.parametrize("what", ["to", "caption", "source"])
def test_a_schema_turns_no_destination_text_or_asset(how: str, what: str) -> None:
    kinds = {name: TURNED[how] if name == what else str for name in ("to", "caption", "source")}
    fields: dict[str, Any] = {name: (kind, ...) for name, kind in kinds.items()}
    args = pydantic.create_model("Args", **fields)
    meaning: dict[str, Any] = {"assets": ["source"], "texts": ["caption"]}
    it = bound(args, "export", destination=Arg("to"), effect="opaque", **meaning)
    raw = {"to": "team", "caption": "hello", "source": ONE}
    if what == "source":  # the gate's schema has no validators there: see the guarded tool
        assert it.freeze(raw) == raw
        return
    with pytest.raises(ValueError, match=what):
        it.freeze(raw)
    same = {"to": "site", "caption": "bye", "source": ONE}
    assert it.freeze(same) == same


def test_a_text_in_a_list_and_in_a_model_is_not_turned() -> None:
    class Line(BaseModel):
        text: Annotated[str, StringConstraints(to_upper=True)]

    class Lines(BaseModel):
        lines: list[Line]

    it = bound(Lines, texts=["lines[].text"])
    assert it.freeze({"lines": [{"text": "HELLO"}]})
    with pytest.raises(ValueError, match="text"):
        it.freeze({"lines": [{"text": "HELLO"}, {"text": "hello"}]})


def test_plain_values_may_be_coerced() -> None:
    class Size(BaseModel):
        width: int
        mode: Annotated[str, StringConstraints(to_lower=True)]

    it = bound(Size, plain=["width", "mode"])
    assert it.freeze({"width": "12", "mode": "FIT"}) == {"width": 12, "mode": "fit"}


class Folder(os.PathLike[str]):
    def __fspath__(self) -> str:
        return "/"


PATHS: dict[str, Any] = {
    "new": pydantic.NewPath,
    "file": pydantic.FilePath,
    "directory": pydantic.DirectoryPath,
    "path": Path,
    "optional": pydantic.NewPath | None,
    "union": pydantic.NewPath | int,
    "behind": int | pydantic.FilePath,
    "renamed": Annotated[pydantic.FilePath, WithJsonSchema({"type": "string"})],
    "hidden": str | SkipJsonSchema[pydantic.NewPath],
    "module": pydantic.ImportString,
}


@pytest.mark.parametrize("kind", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("role", ["plain", "texts", "destination"])
def test_a_type_that_looks_at_the_machine_is_refused(kind: Any, role: str) -> None:
    args = pydantic.create_model("Args", a=(kind, ...))
    meaning: dict[str, Any] = {role: ["a"]} if role != "destination" else {"destination": Arg("a")}
    with pytest.raises(BindingError):
        bound(args, "generate", **meaning)


def test_such_a_type_is_found_in_lists_and_models() -> None:
    class Clip(BaseModel):
        name: Annotated[pydantic.NewPath, WithJsonSchema({"type": "string"})]

    class Clips(BaseModel):
        clips: list[Clip]

    with pytest.raises(BindingError, match=r"clips\[\].name"):
        bound(Clips, plain=["clips[].name"])


@pytest.mark.parametrize("name", ["path", "file-path", "new-path", "directory-path", "Path"])
def test_a_json_schemas_path_is_refused(name: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "format": name}}}
    with pytest.raises(BindingError, match="path"):
        bound(schema, plain=["a"])
    assert bound(schema, assets=["a"])


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, True), (1, 1.0), (0.0, -0.0), ("1", 1), ([1], (1,)), ({"a": 1}, {"a": None}),
     ({"a": [1]}, {"a": [1, 2]}), ({"a": 1}, {"b": 1}), ({1}, {1}), (None, {})],
)  # fmt: skip
def test_data_of_another_type_or_value_is_not_the_same(one: Any, other: Any) -> None:
    assert not is_same(one, other)
    assert not is_same({"a": [one]}, {"a": [other]})


def test_equal_json_data_is_the_same_in_any_order() -> None:
    assert is_same({"a": [1, "x", None], "b": {"c": 0.5}}, {"b": {"c": 0.5}, "a": [1, "x", None]})
