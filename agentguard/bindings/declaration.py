"""The declaration of a tool: `media_tool` for your own functions, `Binding` for other tools.

Nothing is judged here. `compilation.py` compares a declaration with the tool's schema when the
guard is opened, so that all mistakes of all tools are told at once.
"""

from __future__ import annotations

import enum
import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Never, TypedDict, TypeVar, Unpack, overload

from langchain_core.tools import BaseTool, StructuredTool, Tool

from agentguard.bindings.effects import Effect
from agentguard.bindings.known_tool import KnownTool
from agentguard.bindings.mcp import McpTool
from agentguard.bindings.result_paths import Located
from agentguard.bindings.roles import Role, StageName
from agentguard.bindings.running import gate_here, require_claim
from agentguard.errors import BindingError

F = TypeVar("F", bound=Callable[..., Any] | BaseTool)

MARK = "__agentguard__"
"""The attribute of a declared function that holds its Mark; `functools.wraps` keeps it."""


class Unsaid(enum.Enum):
    """Where nothing was said, which is not the same as None said aloud."""

    UNSAID = "unsaid"


UNSAID = Unsaid.UNSAID


class Meaning(TypedDict, total=False):
    """What `media_tool` and `Binding` both take; see `Declaration`."""

    to: str | None
    result: Role | Mapping[str, Role] | Mapping[Located, Role]
    effect: Effect
    labels: Iterable[str]
    reveals: bool
    reviews: str
    remembers: bool | Sequence[str]
    state: Sequence[str]
    interrupts: bool
    unsafe_routes: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Declaration:
    """What a developer says of a tool.

    Args:
        stage: the stage it belongs to; None for a tool without media or effect, such as a search.
        name: the tool's name, where one function is several tools; None: its own.
        args: path in the tool's schema (`source`, `clips[].source`) → role, besides those that
            stand in type hints.
        to: where the call sends its media and words: a Destination id. None said aloud: nothing
            leaves this machine. It must be said in the generate stage, since most generators call
            a vendor, and in the export stage, unless an argument has the role `To`.
        result: the role of the result, or of places in it (`data[].b64_json`, a pattern over its
            text); besides those that stand in the type hint of the result.
        effect: what is known of the outside effect after a crash. Unsaid, it is `Opaque` in the
            export stage, `Idempotent` with an `IdempotencyKey` argument, and none elsewhere.
        labels: labels that every output gets; generators default to `generated`.
        reveals: the tool shows or describes its media to the model.
        reviews: the asset argument that a review is about; needed where it takes several.
        remembers: the server behind the tool keeps what it was sent; or names of other tools that
            share its memory.
        state: state keys that the tool's `Command` may write, besides `messages`.
        interrupts: the tool may pause itself before it did anything. A tool without a stage that
            runs an agent or a graph need not say so.
        unsafe_routes: let the tool's `Command` route the graph and write any state.
        mcp: which tool of which MCP server this is; required there.
        known: for a library's tool that is made anew for each agent.
        local: says that nothing leaves this machine, where the guard can't tell.
    """

    stage: StageName | None
    name: str | None = None
    args: Mapping[str, Role] | None = None
    to: str | Unsaid | None = UNSAID
    result: Role | Mapping[Located, Role] | None = None
    effect: Effect | None = None
    labels: Iterable[str] | None = None
    reveals: bool = False
    reviews: str | None = None
    remembers: bool | Sequence[str] = False
    state: Sequence[str] = ()
    interrupts: bool = False
    unsafe_routes: bool = False
    mcp: McpTool | None = None
    known: KnownTool | None = None
    local: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """What a declared function bears.

    Args:
        function: the original; its own module is where its type hints have a meaning.
    """

    declaration: Declaration
    function: Callable[..., Any]


class Binding:
    """Declares a tool that you don't own.

    Args:
        tool: a LangChain tool, or a function that becomes one.
        stage: see `Declaration`, as for all keywords.

    Mistakes are found when a guard is opened with it, all at once.
    """

    def __init__(
        self,
        tool: BaseTool | Callable[..., Any],
        *,
        stage: StageName | None,
        args: Mapping[str, Role] | None = None,
        name: str | None = None,
        mcp: McpTool | None = None,
        known: KnownTool | None = None,
        local: bool = False,
        **meaning: Unpack[Meaning],
    ) -> None:
        self.tool = tool
        self.declaration = Declaration(
            stage=stage, args=args, name=name, mcp=mcp, known=known, local=local,
            **typing.cast(Any, meaning),
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<Binding of {name_of(self.tool)}>"


@overload
def media_tool(*, stage: StageName | None, **meaning: Unpack[Meaning]) -> Callable[[F], F]: ...
@overload
def media_tool(bare: Never, /) -> Never: ...
def media_tool(*bare: Any, **meaning: Any) -> Any:
    """Declare a function or tool of yours: its roles stand in the type hints of its arguments.

    The function keeps its signature and can be called in tests; inside a job it runs under its own
    claim only. A `@tool` above or below, a coroutine function and a BaseTool class are fine, too.

    Args:
        meaning: see `Declaration`.

    Raises:
        BindingError: it is written without parentheses and a stage, or over something else.
    """
    if bare or "stage" not in meaning:
        raise BindingError("write @media_tool(stage=...): a tool says which stage it belongs to")
    declaration = Declaration(**meaning)
    return functools.partial(_declared, declaration)


def name_of(thing: object) -> str:
    """What a tool or function is called, for messages."""
    return str(getattr(thing, "name", None) or getattr(thing, "__name__", None) or repr(thing))


def bodies_of(tool: BaseTool) -> tuple[Callable[..., Any], ...]:
    """The functions that a tool runs: its own, or the methods of its class."""
    held = (getattr(tool, "func", None), getattr(tool, "coroutine", None))
    found = [each for each in held if callable(each)]
    for name in ("_run", "_arun"):
        method = getattr(type(tool), name)
        if not any(method is getattr(base, name) for base in (BaseTool, StructuredTool, Tool)):
            found.append(method)
    return tuple(found)


def owners_of(tool: BaseTool) -> tuple[object, ...]:
    """The object of a tool that was made of a method; none of any other tool."""
    held = (getattr(tool, "func", None), getattr(tool, "coroutine", None))
    owners = [each.__self__ for each in held if inspect.ismethod(each)]
    return tuple(owners[:1])


def declarations_of(tool: BaseTool | Callable[..., Any]) -> tuple[Declaration, ...]:
    """What the functions of a tool were declared with, each once."""
    bodies = bodies_of(tool) if isinstance(tool, BaseTool) else (tool,)
    marks = [each for body in bodies for each in _marks_of(body)]
    return tuple({id(mark): mark for mark in marks}.values())


def declaration_of(tool: BaseTool | Callable[..., Any]) -> Declaration:
    """The one declaration of a tool: all that it runs must bear it.

    A subclass with a `_run` of its own does not inherit what its base class declared.

    Raises:
        BindingError: it bears none, or several.
    """
    if not isinstance(tool, BaseTool) and not callable(tool):
        raise BindingError(
            f"got a {type(tool).__name__}, expected a tool: a function with @media_tool(stage=...)"
            " above it, or Binding(tool, stage=...)"
        )
    bodies = bodies_of(tool) if isinstance(tool, BaseTool) else (tool,)
    marks = [next(iter(_marks_of(body)), None) for body in bodies]
    if not marks or None in marks:
        raise BindingError(
            f"{name_of(tool)}: nobody declared it; write @media_tool(stage=...) above what it runs,"
            f" or hand in Binding({name_of(tool)}, stage=...)"
        )
    if any(mark is not marks[0] for mark in marks):
        raise BindingError(f"{name_of(tool)}: its functions were declared in different ways")
    return typing.cast(Declaration, marks[0])


def _marks_of(body: object) -> tuple[Declaration, ...]:
    mark = getattr(body, MARK, None)  # of a bound method, too
    return (mark.declaration,) if isinstance(mark, Mark) else ()


def _declared(declaration: Declaration, thing: Any) -> Any:
    if isinstance(thing, type) and issubclass(thing, BaseTool):
        for name in ("_run", "_arun"):
            if inspect.isfunction(vars(thing).get(name)):
                setattr(thing, name, _wrapped(vars(thing)[name], declaration))
        return thing
    if isinstance(thing, (StructuredTool, Tool)):
        for name in ("func", "coroutine"):
            if inspect.isfunction(body := getattr(thing, name)):
                setattr(thing, name, _wrapped(body, declaration))
        return thing
    if inspect.isfunction(thing):
        return _wrapped(thing, declaration)
    raise BindingError(
        f"{name_of(thing)}: got a {type(thing).__name__}, expected a function, a @tool or a class"
        " derived from BaseTool; declare any other tool with Binding(tool, stage=...)"
    )


def _wrapped(function: Any, declaration: Declaration) -> Any:
    """A function in the original's place, which asks before it runs whether it may."""
    if getattr(function, MARK, None) is not None:
        raise BindingError(f"{name_of(function)}: it is declared twice; keep one @media_tool")
    name = name_of(function)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise BindingError(f"{name}: it yields, and a tool returns: collect that, and return it")

    def call(*args: Any, **kwargs: Any) -> Any:
        gate = gate_here()
        if gate is not None:
            return gate.call(declaration, function, args, kwargs)
        require_claim(declaration, name)
        return function(*args, **kwargs)

    async def acall(*args: Any, **kwargs: Any) -> Any:
        gate = gate_here()
        if gate is not None:
            return await gate.acall(declaration, function, args, kwargs)
        require_claim(declaration, name)
        return await function(*args, **kwargs)

    wrapper = acall if inspect.iscoroutinefunction(function) else call
    functools.update_wrapper(wrapper, function)
    del wrapper.__dict__["__wrapped__"]  # it would hand out the original
    setattr(wrapper, MARK, Mark(declaration, function))
    write_hints(wrapper)
    return wrapper


def write_hints(wrapper: Any) -> None:
    """Write a declared function's own type hints on it, which LangChain reads.

    Its wrapper lives in another module, where hints that are text mean nothing. Those that can't be
    resolved yet, such as a class that is defined below, stay as they are until the guard is opened.
    """
    wrapper = getattr(wrapper, "__func__", wrapper)  # a method can't be written on
    mark = getattr(wrapper, MARK, None)
    if not isinstance(mark, Mark):
        return
    try:
        hints = typing.get_type_hints(mark.function, include_extras=True)
    except (NameError, AttributeError, TypeError):
        hints = dict(getattr(mark.function, "__annotations__", {}))
    signature = inspect.signature(mark.function)
    parameters = [
        each.replace(annotation=hints.get(each.name, each.annotation))
        for each in signature.parameters.values()
    ]
    returns = hints.get("return", signature.return_annotation)
    wrapper.__signature__ = signature.replace(parameters=parameters, return_annotation=returns)
    wrapper.__annotations__ = hints


def hints_of(body: Callable[..., Any]) -> dict[str, Any]:
    """The type hints of a function that a tool runs, with their metadata.

    Raises:
        NameError: one can't be resolved.
    """
    mark = getattr(body, MARK, None)
    function = mark.function if isinstance(mark, Mark) else body
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (AttributeError, TypeError):  # it has none, such as a function of C
        return {}
