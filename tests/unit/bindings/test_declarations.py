"""Attacks on a declaration, and mistakes in one: nothing that was said is lost unseen."""

from __future__ import annotations

import functools
import re
import sys
import textwrap
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NewType

import pytest
import typing_extensions as te
from langchain_core.tools import BaseTool, tool
from langgraph.prebuilt import InjectedState
from pydantic import AliasChoices, BaseModel, Field

from agentguard import (
    Asset,
    Attempt,
    Binding,
    BindingError,
    Findings,
    Fixed,
    Guard,
    IdempotencyKey,
    Idempotent,
    Opaque,
    OperationId,
    Output,
    OutsideEffect,
    Plain,
    Probeable,
    Text,
    To,
    media_tool,
)
from agentguard.bindings.bound import Bound
from agentguard.bindings.compilation import compiled
from tests.support import write_workspace

Picture = Annotated[str, Asset()]
Png = Annotated[str, Output(".png")]
Mode = Annotated[Literal["a", "b"], To()]
NamedMode = NewType("NamedMode", Mode)  # type: ignore[valid-newtype]
T = te.TypeVar("T")
Injected = Annotated[dict[str, Any], InjectedState, Text()]
Several = te.TypeAliasType("Several", list[T], type_params=(T,))


class Typed(te.TypedDict):
    mode: Mode


class Chosen(BaseModel):
    mode: Mode = Field(validation_alias=AliasChoices("m", "mode"))


class Branching(BaseModel):
    picture: Picture
    left: list[Branching] = []
    right: list[Branching] = []
    middle: list[Branching] = []


class Answer(BaseModel):
    picture: Picture
    more: list[Answer] = []


def error_of(thing: Any) -> str:
    with pytest.raises(BindingError) as told:
        compiled(thing)
    return str(told.value)


def from_text(source: str) -> Any:
    """The function `f` of a module that is written here."""
    module = types.ModuleType("written_in_a_test")
    module.__file__ = str(Path(__file__))
    sys.modules[module.__name__] = module
    head = "from __future__ import annotations\nfrom agentguard import *\nfrom typing import *\n"
    exec(compile(head + textwrap.dedent(source), __file__, "exec"), vars(module))
    return vars(module)["f"]


# --- roles that could get lost -------------------------------------------------------------------


def test_role_in_a_typed_dict_is_found() -> None:
    @media_tool(stage="export")
    def f(source: Picture, where: Typed) -> str:
        """F."""
        return ""

    assert compiled(f).binding.destination is not None


def test_role_of_a_new_type_is_found() -> None:
    @media_tool(stage="export")
    def f(source: Picture, where: NamedMode) -> str:
        """F."""
        return ""

    assert compiled(f).binding.destination is not None


def test_role_in_a_generic_alias_is_found() -> None:
    @media_tool(stage="edit")
    def f(sources: Several[Picture], file: Png) -> str:
        """F."""
        return ""

    assert list(compiled(f).binding.assets) == ["sources[]"]


def test_role_under_a_nested_alias_is_placed_by_the_alias() -> None:
    class Item(BaseModel):
        image: Annotated[str, Asset(), Field(alias="img")]

    f = types.FunctionType  # the class is local, so the hints are given as objects

    def body(items: Any, file: Any) -> str:
        """F."""
        return ""

    body.__annotations__ = {"items": list[Item], "file": Png, "return": str}
    assert isinstance(body, f)
    bound = compiled(media_tool(stage="edit")(body))
    assert list(bound.binding.assets) == ["items[].img"]


def test_role_under_several_aliases_is_refused() -> None:
    @media_tool(stage="export")
    def f(source: Picture, where: Chosen) -> str:
        """F."""
        return ""

    assert "where.mode: To() is on a type, but the tool's schema has no such path" in error_of(f)


def test_role_imported_for_type_checking_only_is_an_error() -> None:
    f = from_text(
        '''
        if TYPE_CHECKING:
            from somewhere import Where
        @media_tool(stage="export")
        def f(source: Annotated[str, Asset()], mode: Where) -> str:
            """F."""
        '''
    )
    assert "f: Where can't be resolved at run time" in error_of(f)


def test_dict_schema_does_not_lose_a_role_imported_for_type_checking() -> None:
    schema = {
        "title": "f",
        "description": "F",
        "type": "object",
        "properties": {"source": {"type": "string"}, "mode": {"enum": ["a", "b"]}},
    }
    f = from_text(
        f'''
        from langchain_core.tools import tool
        if TYPE_CHECKING:
            from somewhere import Where
        @media_tool(stage="edit", result=Asset("path"))
        @tool(args_schema={schema!r})
        def f(source: Annotated[str, Asset()], mode: Where) -> str:
            """F."""
        '''
    )
    assert "f: Where can't be resolved at run time" in error_of(f)


def test_class_defined_below_is_resolved_when_the_guard_is_opened() -> None:
    f = from_text(
        '''
        from pydantic import BaseModel
        @media_tool(stage="edit")
        def f(clip: Clip, file: Annotated[str, Output()]) -> str:
            """F."""
        class Clip(BaseModel):
            source: Annotated[str, Asset()]
        '''
    )
    assert list(compiled(f).binding.assets) == ["clip.source"]


def test_role_on_an_injected_argument_is_an_error() -> None:
    @media_tool(stage="edit")
    def f(source: Picture, state: Injected, file: Png) -> str:
        """F."""
        return ""

    assert "state: Text() is on a type, but the tool's schema has no such path" in error_of(f)


def test_recursive_types_are_refused_at_once() -> None:
    @media_tool(stage="edit")
    def f(tree: Branching, file: Png) -> str:
        """F."""
        return ""

    assert "nested too deeply" in error_of(f)


def test_recursive_result_with_roles_is_refused() -> None:
    @media_tool(stage="edit")
    def f(source: Picture) -> Answer:
        """F."""
        raise NotImplementedError

    assert "the type of its result holds itself" in error_of(f)


# --- marks ---------------------------------------------------------------------------------------


@media_tool(stage="edit")
class Watermark(BaseTool):
    name: str = "watermark"
    description: str = "Watermark"

    def _run(self, picture: Picture, out: Png) -> str:
        return "ok"


class Quiet(Watermark):
    """It does as its base class does."""


class Loud(Watermark):
    def _run(self, picture: Picture, out: Png) -> str:
        return "uploaded"


class AlsoAsync(Watermark):
    async def _arun(self, picture: Picture, out: Png) -> str:
        return "uploaded"


def test_subclass_inherits_the_declaration_with_the_body_only() -> None:
    assert compiled(Quiet()).binding.stage == "edit"
    for kind in (Loud, AlsoAsync):
        assert "watermark: nobody declared it" in error_of(kind())


def test_wrapper_with_wraps_is_declared_and_one_without_is_not() -> None:
    @media_tool(stage="edit")
    def f(source: Picture, file: Png) -> str:
        """F."""
        return ""

    @functools.wraps(f)
    def logged(*args: Any, **kwargs: Any) -> str:
        return f(*args, **kwargs)

    def hidden(*args: Any, **kwargs: Any) -> str:
        return f(*args, **kwargs)

    assert list(compiled(logged).binding.assets) == ["source"]
    assert "hidden: nobody declared it" in error_of(hidden)


def test_declaring_twice_is_an_error() -> None:
    def f(source: Picture, file: Png) -> str:
        """F."""
        return ""

    with pytest.raises(BindingError, match="f: it is declared twice"):
        media_tool(stage="render")(media_tool(stage="edit")(f))


def test_only_functions_tools_and_tool_classes_can_be_decorated() -> None:
    for thing in (len, functools.partial(print), object(), dict):
        with pytest.raises(BindingError, match="expected a function, a @tool or a class"):
            media_tool(stage="edit")(thing)  # type: ignore[type-var]


# --- what the words come to ----------------------------------------------------------------------


@tool
def media_library(
    action: Literal["upload", "delete"], file: str, key: str, folder: str = "press"
) -> str:
    """Media library."""
    return ""


def library(**args: Any) -> Bound:
    roles = {"action": Fixed("upload"), "file": Asset(), "key": Plain(), "folder": Fixed("press")}
    return compiled(
        Binding(media_library, stage="export", to="dam", name="upload", args={**roles, **args})
    )


def test_one_function_is_several_tools_by_name() -> None:
    bound = library()
    assert bound.name == "upload"
    shown = bound.args_schema.model_json_schema()["properties"]
    assert list(shown) == ["file", "key"]  # what the developer fixed is not the model's


def test_fixed_values_are_part_of_the_request_and_of_the_digest() -> None:
    bound, other = library(), library(folder=Fixed("archive"))
    asset = "asset-" + "0" * 20
    frozen = bound.freeze({"file": asset, "key": "k"})
    assert frozen == {"file": asset, "key": "k", "action": "upload", "folder": "press"}
    assert bound.digest != other.digest
    with pytest.raises(ValueError, match="upload has no argument 'action'"):
        bound.freeze({"file": asset, "key": "k", "action": "delete"})
    with pytest.raises(ValueError, match=r"no argument 'size'; it has file, key$"):
        bound.freeze({"file": asset, "key": "k", "size": 3})
    filled = bound.fill(frozen, lambda path, value: f"/private/{path}", {})
    assert filled == {**frozen, "file": "/private/file"}


def test_role_in_the_place_of_a_type_names_the_way_out() -> None:
    def crop(source: Asset) -> Asset:  # type: ignore[empty-body]
        """Crop."""

    with pytest.raises(BindingError) as caught:
        compiled(media_tool(stage="edit")(crop))
    assert "source: Asset is a role, not a type; say Annotated[str, Asset()]" in str(caught.value)
    assert "its result: Asset is a role, not a type" in str(caught.value)


def test_secret_that_is_fixed_or_a_default_is_refused_when_the_guard_opens(
    tmp_path: Path,
) -> None:
    key = "sk-ant-" + "api03-Ab1Cd2Ef3Gh4Ij5Kl6Mn7Op8"
    write_workspace(tmp_path)

    def mark(source: Picture, token: str, way: str = "plain") -> Annotated[bytes, Asset()]:
        """Mark a picture."""
        return b""

    def sign(source: Picture, way: Annotated[str, Plain()] = key) -> Annotated[bytes, Asset()]:
        """Sign a picture."""
        return b""

    fixed = Binding(mark, stage="edit", args={"token": Fixed(key), "way": Plain()})
    for tools, name in (([fixed], "mark.token"), ([media_tool(stage="edit")(sign)], "sign.way")):
        with pytest.raises(BindingError, match=f"{name}: .* holds a secret") as caught:
            Guard.from_config(tmp_path / "agentguard.toml", tools=tools)
        assert key not in str(caught.value)


def test_fixed_value_that_the_tool_does_not_take_is_an_error() -> None:
    with pytest.raises(BindingError, match=r"upload.action: Fixed\('purge'\): 'purge' is not one"):
        library(action=Fixed("purge"))


Channel = Annotated[Literal["#team", "#launch"], To({"team": "#team", "launch": "#launch"})]


@media_tool(stage="export")
def post(channel: Channel, picture: Picture, request: Annotated[str, IdempotencyKey()]) -> str:
    """Post."""
    return ""


def test_places_are_shown_by_their_id_and_filled_in_by_their_value() -> None:
    bound = compiled(post)
    shown = bound.args_schema.model_json_schema()["properties"]
    assert shown["channel"]["enum"] == ["team", "launch"]
    assert list(shown) == ["channel", "picture"]
    frozen = bound.freeze({"channel": "team", "picture": "asset-1"})
    assert frozen == {"channel": "team", "picture": "asset-1"}
    filled = bound.fill(frozen, lambda path, value: value, {}, key="k" * 64)
    assert filled == {"channel": "#team", "picture": "asset-1", "request": "k" * 64}
    for wrong in ("#team", "elsewhere"):
        with pytest.raises(ValueError, match="channel"):
            bound.freeze({"channel": wrong, "picture": "asset-1"})
    with pytest.raises(ValueError, match="post has no argument 'request'"):
        bound.freeze({"channel": "team", "picture": "asset-1", "request": "mine"})


def test_places_of_a_json_schema_are_shown_by_their_id() -> None:
    schema = {
        "title": "send",
        "description": "Send",
        "type": "object",
        "properties": {"picture": {"type": "string"}, "room": {"type": "string", "default": "#x"}},
        "required": ["picture"],
    }

    @tool(args_schema=schema)
    def send(picture: str, room: str = "#x") -> str:
        """Send."""
        return ""

    rooms = To({"team": "#team"})
    bound = compiled(Binding(send, stage="export", args={"picture": Asset(), "room": rooms}))
    assert bound.freeze({"picture": "asset-1", "room": "team"})["room"] == "team"
    for given in ({"picture": "asset-1"}, {"picture": "asset-1", "room": "#x"}):
        with pytest.raises(ValueError, match="expected"):  # no default picks a place
            bound.freeze(given)


def is_there(attempt: Attempt) -> bool | None:
    return None


@pytest.mark.parametrize(
    ("effect", "kind", "probe"),
    [
        (None, OutsideEffect.OPAQUE, None),
        (Opaque(), OutsideEffect.OPAQUE, None),
        (Probeable(is_there), OutsideEffect.PROBEABLE, is_there),
        (Idempotent(), OutsideEffect.IDEMPOTENT, None),
        (Idempotent(is_there), OutsideEffect.IDEMPOTENT, is_there),
    ],
)
def test_effects_carry_their_probe(
    effect: Any, kind: OutsideEffect, probe: Callable[[Attempt], bool | None] | None
) -> None:
    said: dict[str, Any] = {} if effect is None else {"effect": effect}
    roles = {"action": Fixed("upload"), "file": Asset(), "key": Plain(), "folder": Plain()}
    bound = compiled(Binding(media_library, stage="export", to="dam", args=roles, **said))
    assert (bound.binding.effect, bound.binding.probe) == (kind, probe)


def test_idempotency_key_makes_an_export_idempotent() -> None:
    assert compiled(post).binding.effect is OutsideEffect.IDEMPOTENT


def test_plain_pattern_narrows_what_a_string_may_be() -> None:
    @media_tool(stage="edit")
    def trim(source: Picture, start: Annotated[str, Plain(r"\d\d:\d\d:\d\d")], file: Png) -> str:
        """Trim."""
        return ""

    bound = compiled(trim)
    assert bound.freeze({"source": "asset-1", "start": "00:01:30"})["start"] == "00:01:30"
    with pytest.raises(ValueError, match=r"trim\.start: expected a value that matches"):
        bound.freeze({"source": "asset-1", "start": "now"})


def test_plain_pattern_lets_no_path_pass() -> None:
    @media_tool(stage="edit")
    def trim(source: Picture, start: Annotated[str, Plain(".*")], file: Png) -> str:
        """Trim."""
        return ""

    with pytest.raises(ValueError, match="give an asset id where media belong"):
        compiled(trim).freeze({"source": "asset-1", "start": "/etc/passwd"})


def edits(**args: Any) -> Any:
    @tool
    def f(source: str, words: str, number: int, clips: list[str]) -> str:
        """F."""
        return ""

    roles = {"source": Asset(), "words": Text(), "clips": Asset(), **args}
    return Binding(f, stage="edit", args=roles, result=Asset("path"))


@pytest.mark.parametrize(
    ("thing", "sentence"),
    [
        (edits(words=Asset("url")), "f.words: got Asset('url'), expected one of 'path', 'bytes'"),
        (edits(words=Asset(folder="out")), "f.words: Asset(folder=...) is for results"),
        (edits(number=Asset()), "f.number: takes no path or bytes, but numbers"),
        (edits(number=IdempotencyKey()), "f.number: an idempotency key is a string"),
        (edits(words=OperationId()), "f.words: name the tool that starts it"),
        (edits(words=Findings()), "f.words: Findings() is for results"),
        (edits(words=Fixed), "args['words']: got <class"),
        (edits(words="text"), "args['words']: got 'text', expected a role such as Asset()"),
        (edits(words=Plain("(")), "which is no regular expression"),
        (edits(**{"clips[0]": Asset()}), "args['clips[0]']: write 'clips[]', which is every item"),
        (edits(**{"clips[]": Text()}), "f.clips[]: 2 roles: Asset() and Text(); keep one"),
        (edits(source=To(), words=To()), "one call goes to one place; keep one To()"),
    ],
)
def test_roles_that_do_not_fit_are_refused(thing: Any, sentence: str) -> None:
    assert sentence in error_of(thing)


def returns(result: Any, stage: Any = "edit", **said: Any) -> Any:
    @tool
    def f(source: str) -> dict[str, Any]:
        """F."""
        return {}

    return Binding(f, stage=stage, args={"source": Asset()}, result=result, **said)


@pytest.mark.parametrize(
    ("thing", "sentence"),
    [
        (returns(Text()), "Text() is for arguments"),
        (returns({"data[].b64": Asset()}), "data[].b64: say what its result holds: one of 'path'"),
        (returns({"data[0].b64": Asset("base64")}), "write [] for each item of a list, not [0]"),
        (returns({"a b": Asset("base64")}), "expected a path such as data.id or a regex"),
        (returns({re.compile("x(y)"): Asset("path")}), "finds the ids and URLs in a text only"),
        (returns({"x": Asset("bytes", folder="out")}), "Asset(folder=...) is for paths"),
        (
            returns({"x": Asset("path"), "y": Findings()}),
            "Findings() are what a tool of the review",
        ),
        (returns({"x": OperationId(), "y": OperationId()}, to="v"), "names its operation in one"),
        (returns("path"), "result: got 'path', expected a role such as Asset()"),
        (returns({"x": Asset("url")}), "needs a fixed place"),
    ],
)
def test_roles_of_results_that_do_not_fit_are_refused(thing: Any, sentence: str) -> None:
    assert sentence in error_of(thing)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"to": None, "stage": "export"}, "an export sends something; say where"),
        ({"to": "", "stage": "edit"}, "got to='', expected the id of a configured destination"),
        ({"effect": "opaque", "stage": "edit"}, "got effect='opaque', expected Opaque()"),
        ({"stage": "edit", "name": "a b"}, "got name='a b', expected letters, digits"),
        ({"stage": "edit", "args": {"source": Asset(), "x": To()}}, "args['x']: f has source"),
    ],
)
def test_words_that_contradict_themselves_are_refused(said: Any, sentence: str) -> None:
    @tool
    def f(source: str) -> str:
        """F."""
        return ""

    words = {"args": {"source": Asset()}, "result": Asset("path"), **said}
    assert sentence in error_of(Binding(f, **words))


def test_undeclared_role_of_a_hint_and_of_args_must_agree() -> None:
    @tool
    def f(source: Picture, file: Png) -> str:
        """F."""
        return ""

    assert compiled(Binding(f, stage="edit", args={"source": Asset()})).binding.assets
    assert "source: 2 roles: Asset() and Text()" in error_of(
        Binding(f, stage="edit", args={"source": Text()})
    )


def test_all_mistakes_of_all_tools_are_told_at_once() -> None:
    from agentguard.bindings.problems import require_no_errors

    errors = []
    for thing in (edits(words=Plain("(")), returns(Text())):
        try:
            compiled(thing)
        except BindingError as error:
            errors.append(error)
    with pytest.raises(BindingError) as told:
        require_no_errors(errors)
    assert len(str(told.value).splitlines()) == 4
