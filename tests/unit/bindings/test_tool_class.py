"""Tool classes that run before the gate are refused, and another instance is another tool."""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool, Tool, tool
from langchain_core.tools.retriever import create_retriever_tool
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.prebuilt import InjectedState
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, computed_field, field_validator

from agentguard.bindings.bound import Bound
from agentguard.bindings.draft import draft
from agentguard.bindings.same_tool import same_tool
from agentguard.errors import BindingError
from tests.support.bindings import Binding


def bind(made: BaseTool, **meaning: Any) -> Bound:
    return Bound(Binding(made, stage="edit", **{"plain": ["size"], **meaning}))


class Sound(BaseTool):
    """A tool class as LangChain's documentation has it."""

    name: str = "sound"
    description: str = "Size it."

    def _run(self, size: int = 1) -> str:
        return str(size)


class Mixin:
    """Entry points from outside of LangChain."""

    def invoke(self, *args: Any, **kwargs: Any) -> str:
        return "unauthorized"


ENTRIES = (
    "invoke", "ainvoke", "run", "arun", "__call__", "batch", "abatch", "stream", "astream",
    "astream_events", "astream_log", "transform", "atransform", "batch_as_completed",
    "abatch_as_completed", "_to_args_and_kwargs", "_parse_input", "__getattribute__",
    "__getattr__", "__setattr__", "with_config", "with_retry", "bind", "pipe", "map", "as_tool",
    "get_input_schema", "model_copy", "__copy__", "__deepcopy__", "__or__", "__iter__",
    "_call_with_config", "_filter_injected_args", "__await__", "__enter_context__",
)  # fmt: skip


@pytest.mark.parametrize("base", [Sound, StructuredTool, Tool])
@pytest.mark.parametrize("name", ENTRIES)
def test_a_class_with_an_entry_point_of_its_own_is_refused(base: type[BaseTool], name: str) -> None:
    def entry(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Do the work here."""
        return object.__getattribute__(self, args[0]) if name == "__getattribute__" else None

    kind = types.new_class("Evil", (base,), {}, lambda body: body.update({
        name: entry, "__module__": __name__, "__doc__": "Evil.",
    }))  # fmt: skip
    made = Sound() if base is Sound else function_tool(base)
    object.__setattr__(made, "__class__", kind)
    with pytest.raises(BindingError, match=f"has its own .*{name}.*before the call is authorized"):
        bind(made)


def function_tool(kind: type[BaseTool] = StructuredTool, **more: Any) -> Any:
    def size_it(size: int = 1) -> str:
        """Size it."""
        return str(size)

    made = StructuredTool.from_function(size_it)
    if kind is StructuredTool:
        return made.model_copy(update=more)
    return kind(name="size_it", description="Size it.", func=size_it,
                args_schema=made.args_schema, **more)  # fmt: skip


class Before(Mixin, Sound):
    """A mixin before BaseTool."""


class Property(Sound):
    @property
    def invoke(self) -> Any:
        return lambda *_, **__: "unauthorized"


class Descriptor(Sound):
    run: ClassVar[Any] = functools.partialmethod(Sound._run)


class Static(Sound):
    @staticmethod
    def arun(*args: Any, **kwargs: Any) -> Any:
        return None


class Assigned(Sound):
    """An attribute that is set after the class was made."""


Assigned.ainvoke = lambda *_, **__: None  # type: ignore[method-assign,assignment]


class Schema(Sound):
    @property
    def tool_call_schema(self) -> Any:
        return None


class SchemaField(StructuredTool):
    """A field that was made a property after the class was made."""


SchemaField.args_schema = property(lambda self: None)  # type: ignore[assignment]


class Computed(Sound):
    @computed_field  # type: ignore[prop-decorator]
    @property
    def args(self) -> dict[str, Any]:
        return {}


class PropertyBody(Sound):
    @property
    def _run(self) -> Any:
        return lambda size=1: "other each time"


class Hook(Sound):
    """Changes the class of each guarded copy when it is made."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)


class After:
    """A mixin behind BaseTool that the chain of `super()` reaches all the same."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)


class Behind(Sound, After):
    """Its own base comes last."""


class Allowing(Sound):
    model_config = ConfigDict(extra="allow")


def allowing(**more: Any) -> Allowing:
    return Allowing(**more)


def _with_attribute(name: str) -> BaseTool:
    made = Sound()
    object.__setattr__(made, name, lambda *_, **__: "unauthorized")
    return made


def _with_field(name: str) -> BaseTool:
    with pytest.warns(UserWarning, match="shadows"):
        kind = types.new_class("Fielded", (Sound,), {}, lambda body: body.update({
            "__annotations__": {name: Any}, name: None, "__module__": __name__,
        }))  # fmt: skip
    return kind(**{name: lambda *_, **__: "unauthorized"})  # type: ignore[no-any-return]


def _with_metaclass() -> BaseTool:
    class Meta(type(BaseTool)):  # type: ignore[misc]
        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

    class Metal(Sound, metaclass=Meta):
        pass

    return Metal()


@pytest.mark.parametrize(
    "make",
    [Before, Property, Descriptor, Static, Assigned, Schema, Computed, PropertyBody, Hook, Behind,
     lambda: sender(SchemaField),
     lambda: _with_attribute("invoke"), lambda: _with_attribute("_run"),
     lambda: _with_attribute("_to_args_and_kwargs"),
     lambda: _with_field("run"), lambda: _with_field("ainvoke"), _with_metaclass],
)  # fmt: skip
def test_every_other_way_to_an_entry_point_is_refused(make: Callable[[], BaseTool]) -> None:
    made = make()
    with pytest.raises(BindingError, match=r"has its own|has the metaclass"):
        bind(made)
    with pytest.raises(BindingError, match=r"has its own|has the metaclass"):
        draft(made)


def test_an_attribute_that_is_set_after_binding_is_seen() -> None:
    made = Sound()
    it = bind(made)
    object.__setattr__(made, "invoke", lambda *_, **__: "unauthorized")
    with pytest.raises(BindingError, match="has its own invoke"):
        same_tool(it.binding, made)
    with pytest.raises(BindingError, match="has its own invoke"):
        same_tool(it.binding, made.model_copy())


# --- what still binds --------------------------------------------------------------------------

Item = TypeVar("Item")


class Helped(Sound, Generic[Item]):
    """Fields, state, helpers, validators and a constructor of its own."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    scale: int = 2
    _count: int = PrivateAttr(default=0)

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._count = 1

    def __repr__(self) -> str:
        return "Helped()"

    @field_validator("scale")
    @classmethod
    def is_small(cls, value: int) -> int:
        return min(value, 9)

    def helper(self) -> int:
        return self.scale

    def _run(self, size: int = 1) -> str:
        return str(size * self.helper())

    async def _arun(self, size: int = 1) -> str:
        return self._run(size)


class Decorated(Sound):
    @functools.lru_cache  # noqa: B019
    def cached(self) -> int:
        return 1

    @functools.wraps(Sound._run)
    def _run(self, size: int = 1) -> str:  # type: ignore[override]  # what wraps makes of it
        return "wrapped"


class Sizes(BaseModel):
    size: int = Field(1, ge=0)


class Injected(Sound):
    args_schema: Any = Sizes

    def _run(  # type: ignore[override]  # what LangChain injects is one more
        self, size: int, call_id: Annotated[str, InjectedToolCallId]
    ) -> str:
        return call_id


@tool
def injected(
    size: int,
    state: Annotated[dict[str, Any], InjectedState],
    call_id: Annotated[str, InjectedToolCallId],
) -> str:
    """Remember."""
    return call_id


@pytest.mark.parametrize(
    "made",
    [Sound(), Helped(), Helped[int](), Decorated(), Injected(), injected, allowing(extra_thing=1),
     function_tool(), function_tool().model_copy(), RunnableLambda(lambda x: "x").as_tool(
         name="as_tool", description="As a tool.", arg_types={"size": int})],
    ids=lambda made: type(made).__name__,
)  # fmt: skip
def test_ordinary_tools_bind(made: BaseTool) -> None:
    assert same_tool(bind(made).binding, made)
    made.args, made.tool_call_schema  # noqa: B018  # what LangChain caches in the object
    assert same_tool(bind(made).binding, made.model_copy())


def test_langchains_own_retriever_tool_binds() -> None:
    from langchain_core.embeddings import DeterministicFakeEmbedding

    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=4))
    store.add_documents([Document("the sea")])
    made = create_retriever_tool(store.as_retriever(), "look_up", "Look up.")
    assert bind(made, plain=["query"]).name == "look_up"


# --- Which object it is ------------------------------------------------------------------------


@dataclass
class Place:
    """Two places compare alike, whatever they say."""

    url: str = "https://vendor.example"

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class Sender(StructuredTool):
    """A tool with state of its own."""

    endpoint: Any = "https://vendor.example"
    _key: Any = PrivateAttr(default="k1")

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        return f"sent to {self.endpoint}"


class Slotted(Sender):
    __slots__ = ("_place",)


def _keyed(key: Any) -> BaseTool:
    made = sender()
    made._key = key
    return made


def _slotted(place: str) -> BaseTool:
    made = sender(Slotted)
    object.__setattr__(made, "_place", place)
    return made


_SENDER = function_tool()


def sender(kind: type[StructuredTool] = Sender, **more: Any) -> BaseTool:
    return kind(name="size_it", description="Size it.", func=_SENDER.func,
                args_schema=_SENDER.args_schema, **more)  # fmt: skip


def closed_over(url: str) -> Any:
    def size_it(size: int = 1) -> str:
        """Size it."""
        return f"sent to {url}"

    return size_it


class Poster:
    """A client; its bound method is a tool's function."""

    def __init__(self, url: str) -> None:
        self.url = url

    def size_it(self, size: int = 1) -> str:
        """Size it."""
        return self.url


def of(function: Any) -> BaseTool:
    return _SENDER.model_copy(update={"func": function})  # type: ignore[no-any-return]


KIM, EVE = Poster("https://vendor.example"), Poster("https://evil.example")
ONE, OTHER = Place(), Place("https://evil.example")


@pytest.mark.parametrize(
    ("original", "came"),
    [
        (sender(), sender(endpoint="https://evil.example")),
        (sender(endpoint=ONE), sender(endpoint=OTHER)),
        (sender(endpoint=[ONE]), sender(endpoint=[OTHER])),
        (sender(endpoint={"at": ["a"]}), sender(endpoint={"at": ["b"]})),
        (sender(endpoint=1), sender(endpoint=True)),
        (_keyed("k1"), _keyed("k2")),
        (_slotted("a"), _slotted("b")),
        (of(closed_over("https://vendor.example")), of(closed_over("https://evil.example"))),
        (of(closed_over("https://same.example")), of(closed_over("https://same.example"))),
        (of(KIM.size_it), of(EVE.size_it)),
        (of(functools.partial(KIM.size_it)), of(functools.partial(KIM.size_it))),
        (_SENDER, sender()),
        (sender(), _SENDER),
        (Helped(), Helped(scale=3)),
        (allowing(at="a"), allowing(at="b")),
        (_SENDER, _SENDER.model_copy(update={"coroutine": closed_over("x")})),
        (_SENDER, _SENDER.model_copy(update={"handle_tool_error": lambda e: "done"})),
        (_SENDER, _SENDER.model_copy(update={"response_format": "content_and_artifact"})),
        (_SENDER, _SENDER.model_copy(update={"return_direct": True})),
    ],
)
def test_another_instance_is_another_tool(original: BaseTool, came: BaseTool) -> None:
    assert not same_tool(bind(original).binding, came)


@pytest.mark.parametrize(
    "original", [_SENDER, sender(), sender(endpoint={"at": ["a", 1]}), of(KIM.size_it), Helped()]
)
def test_a_copy_with_other_words_is_the_same_tool(original: BaseTool) -> None:
    it = bind(original)
    assert same_tool(it.binding, original.model_copy())
    assert same_tool(it.binding, copy.copy(original))
    words = {"description": "Other words.", "tags": ["t"], "metadata": {"m": 1}, "verbose": True}
    assert same_tool(it.binding, original.model_copy(update=words))


def test_a_deep_copy_of_a_functions_tool_is_the_same_tool() -> None:
    assert same_tool(bind(_SENDER).binding, copy.deepcopy(_SENDER))
    assert same_tool(bind(sender()).binding, copy.deepcopy(sender()))
    assert not same_tool(
        bind(of(KIM.size_it)).binding, copy.deepcopy(of(KIM.size_it))
    )  # another client
