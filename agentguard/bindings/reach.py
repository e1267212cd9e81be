"""Whether a tool reaches out of this machine, as far as its object shows.

A tool is the user's own while all that it is made of and holds is: its class and function, what
they close over, their attributes, and the objects in globals that their code names. Anything of an
installed package counts as a client of something remote, unless the package stands in `_LOCAL`
below or, as an installed application does, requires agentguard. What a body imports and calls by
name, such as `requests.post`, can't be seen.

What an object of any other kind holds, `held_objects.py` knows.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import importlib.metadata
import logging
import re
import sys
import threading
import types
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from langchain_core.tools import BaseTool

from agentguard.bindings.held_objects import INVOKER, held_by

# Packages whose objects send nothing by themselves: what agentguard and its tools are made of.
_LOCAL = frozenset({
    "agentguard", "annotated_types", "attr", "attrs", "av", "cryptography", "deepagents",
    "jsonschema", "langchain", "langchain_core", "langgraph", "langgraph_supervisor",
    "langgraph_swarm", "numpy", "PIL", "pydantic",
    "pydantic_core", "pydantic_settings", "referencing", "rich", "tenacity", "typing_extensions",
})  # fmt: skip
# Modules of those, and of the standard library, whose objects do: with all modules below them.
_REMOTE = (
    "deepagents.backends.context_hub", "deepagents.backends.langsmith",
    "deepagents.middleware.async_subagents", "langchain.chat_models", "langchain.embeddings",
    "langchain.mcp", "langchain_core.document_loaders.langsmith",
    "langchain_core.tracers.langchain", "langgraph.pregel._remote_run_stream",
    "langgraph.pregel.remote",
    "_socket", "_ssl", "asynchat", "asyncio.base_events", "asyncio.proactor_events",
    "asyncio.selector_events", "asyncio.sslproto", "asyncio.streams", "asyncio.trsock",
    "asyncio.unix_events", "asyncio.windows_events", "asyncore", "ftplib", "http.client",
    "http.server", "imaplib", "logging.handlers", "multiprocessing.connection",
    "multiprocessing.managers", "nntplib", "poplib", "smtpd", "smtplib", "socket", "socketserver",
    "ssl", "telnetlib", "urllib.request", "urllib.robotparser", "webbrowser", "wsgiref",
    "xmlrpc",
)  # fmt: skip
_MOST = 100_000
_GRAPH = ("langgraph.pregel.main", "Pregel")
# The tool `task` of a deep agent holds whole agents: what is theirs passes their own gates.
_AGENTS_IN = "deepagents.middleware.subagents"
_AGENTS_OWN = (
    ("langchain.agents.middleware.types", "AgentMiddleware"),
    ("langchain_core.language_models.base", "BaseLanguageModel"),
    ("langchain_core.tools.base", "BaseTool"),
)

_DATA = (str, bytes, bytearray, int, float, complex, bool, type(None), range, types.CodeType)
_CODE = (type, types.FunctionType, types.BuiltinFunctionType)
_PROCESS = (  # they lead to everything that runs in this process
    types.FrameType,
    types.GenericAlias,
    contextvars.Context,
    logging.Logger,
    logging.RootLogger,
    logging.Manager,
)


def reach_of(tool: BaseTool) -> str | None:
    """What in a tool may reach out of this machine, in words; None if it is the user's own code.

    The walk ends at guarded tools, at objects of the guard itself, at graphs (the agents inside
    have gates of their own, which `protect` and the middleware look for) and at callbacks.
    """
    metadata = tool.metadata
    if isinstance(metadata, dict) and "mcp" in metadata:
        return "metadata of an MCP server's tool"
    try:
        return next((found for _, found in _reached(tool) if found is not None), None)
    except _TooMuch:
        return f"more than {_MOST} objects, too many to look through"


def runs_graph(tool: BaseTool) -> bool:
    """Whether a tool holds a graph, such as an agent: what that asks people reaches the tool."""
    try:
        return any(_is_kind(thing, _GRAPH) for thing, _ in _reached(tool))
    except _TooMuch:
        return False


class _TooMuch(Exception):
    """A tool holds more objects than can be looked at."""


def _reached(tool: BaseTool) -> Iterator[tuple[Any, str | None]]:
    """What a tool holds, each once; in words, where it may reach out, and is not looked into.

    Raises:
        _TooMuch: there are more than `_MOST`.
    """
    seen: dict[int, Any] = {}
    pending: deque[tuple[Any, str, bool]] = deque([(tool, "", False)])
    while pending:
        thing, where, of_agents = pending.popleft()
        if type(thing) in _DATA or id(thing) in seen:
            continue
        seen[id(thing)] = thing  # kept, so that no id is used twice
        if len(seen) > _MOST:
            raise _TooMuch
        if type(thing) in _PROCESS or _is_a(thing, asyncio.AbstractEventLoop):
            continue
        if type(thing).__module__ == "typing":  # it holds types only
            continue
        if of_agents and _is_kind(thing, *_AGENTS_OWN):
            continue
        found = _foreign(thing)
        yield thing, None if found is None else f"{found}{where}"
        if found is not None or _is_judged_elsewhere(thing):
            continue
        if _is_a(thing, types.FunctionType):
            where = f" (in {thing.__qualname__})"
            of_agents = thing.__module__ == _AGENTS_IN
        pending.extend((each, where, of_agents) for each in _held_by(thing))


def is_local(module: str | None) -> bool:
    """Whether the objects of a module send nothing by themselves: the user's, or known ones."""
    if not isinstance(module, str) or any(
        module == name or module.startswith(name + ".") for name in _REMOTE
    ):
        return False
    package = module.partition(".")[0]
    if package in sys.stdlib_module_names or package in _LOCAL:
        return True
    return _is_own(module, getattr(sys.modules.get(module), "__file__", None))


@functools.lru_cache(maxsize=1024)
def _is_own(module: str, file: str | None) -> bool:
    """Whether a module is the user's: a script's, outside of the installed packages, or an
    installed application that requires agentguard."""
    if module == "__main__":
        return True
    if file is None:  # a namespace package, or a module that nobody can look at
        return False
    return not _is_installed(module, file) or _requires_guard(module.partition(".")[0])


def _is_installed(module: str, file: str) -> bool:
    """Whether a module lies where an installer put it, beside the notes of its package."""
    path = Path(file).resolve()
    if {"site-packages", "dist-packages"} & {*Path(file).parts, *path.parts}:
        return True
    package = path.parent if path.name == "__init__.py" else path
    root = package.parents[min(module.count("."), len(package.parents) - 1)]
    noted = any(root.glob("*.dist-info"))  # a vendored folder, or the image of a cloud function
    return noted and module.partition(".")[0] in importlib.metadata.packages_distributions()


@functools.lru_cache(maxsize=1024)  # it reads the notes of all that is installed
def _requires_guard(package: str) -> bool:
    for name in importlib.metadata.packages_distributions().get(package, ()):
        for needed in importlib.metadata.requires(name) or ():
            if re.match(r"agentguard(?![\w.-])", needed):
                return True
    return False


def _foreign(thing: Any) -> str | None:
    """What a thing is, if it belongs to a package that may be remote."""
    if _is_a(thing, types.ModuleType):
        return None if is_local(thing.__name__) else f"the module {thing.__name__}"
    if _is_a(thing, types.FunctionType):
        return None if _is_local_function(thing) else f"code of {_module_of(thing)}"
    if _is_a(thing, types.BuiltinFunctionType):
        module = thing.__module__
        return None if module is None or is_local(module) else f"code of {module}"
    if _is_a(thing, type):
        if issubclass(thing, BaseException) or is_local(thing.__module__):
            return None
        return f"the class {thing.__module__}.{thing.__qualname__}"
    for kind in type(thing).__mro__:
        if not is_local(kind.__module__):
            return f"an object of {kind.__module__}.{kind.__qualname__}"
    return None


def _is_local_function(function: types.FunctionType) -> bool:
    """By the module that it says it is of, and by the one whose globals it runs in."""
    runs_in = function.__globals__
    name = runs_in.get("__name__")
    known = sys.modules.get(name) if isinstance(name, str) else None
    if known is not None and vars(known) is runs_in:
        inside = is_local(name)
    else:  # code that was run by hand, such as a notebook's or a plugin's
        file = runs_in.get("__file__", function.__code__.co_filename)
        inside = not _is_installed(str(name), str(file))
    claimed = function.__module__
    return inside and (claimed is None or claimed == name or is_local(claimed))


def _module_of(function: types.FunctionType) -> str:
    claimed = str(function.__module__)
    return claimed if not is_local(claimed) else str(function.__globals__.get("__name__"))


def _is_judged_elsewhere(thing: Any) -> bool:
    """Whether other parts of the guard look at it: its own objects, guarded tools, and graphs."""
    if _is_a(thing, (type, types.FunctionType, types.ModuleType)):
        return False
    if _is_a(thing, BaseTool) and INVOKER in vars(thing):
        return True
    return type(thing).__module__.startswith("agentguard.") or _is_kind(thing, _GRAPH)


def _is_kind(thing: Any, *classes: tuple[str, str]) -> bool:
    """`isinstance` by module and name: nothing here imports LangGraph."""
    return any((kind.__module__, kind.__name__) in classes for kind in type(thing).__mro__)


def _is_a(thing: Any, kinds: type[Any] | tuple[type[Any], ...]) -> bool:
    """`isinstance`, without asking the object, which may lie about its class."""
    return issubclass(type(thing), kinds)


def _held_by(thing: Any) -> Iterator[Any]:
    if _is_a(thing, types.FunctionType):
        yield from thing.__closure__ or ()
        yield from thing.__defaults__ or ()
        yield from (thing.__kwdefaults__ or {}).values()
        yield from thing.__dict__.values()
        if _is_users_function(thing):
            yield from _named_by(thing)
    elif _is_a(thing, threading.Thread):
        # The process's own: they may be a framework's, or a terminal's.
        shared = ("_invoke_excepthook", "_stderr")
        yield from (value for name, value in vars(thing).items() if name not in shared)
    elif _is_a(thing, types.ModuleType):
        if _is_users(thing.__name__):
            yield from _named(set(vars(thing)), [vars(thing)])
    elif _is_a(thing, type):
        if _is_users(thing.__module__):
            for name, value in vars(thing).items():
                if _is_a(value, types.FunctionType) or not name.startswith(("__", "_abc_")):
                    yield value
    elif _is_a(thing, BaseTool):
        held = {k: v for k, v in vars(thing).items() if k not in ("callbacks", "args_schema")}
        yield from (*held.values(), thing.__pydantic_private__, thing.__pydantic_extra__)
        for kind in type(thing).__mro__:
            if _is_users(kind.__module__):
                yield from (getattr(thing, name, None) for name, member in vars(kind).items()
                            if _is_a(member, types.MemberDescriptorType))  # fmt: skip
        yield from (each for each in (type(thing), thing.args_schema)
                    if _is_a(each, type) and _is_users(each.__module__))  # fmt: skip
    else:
        yield from held_by(thing)


def _named_by(function: types.FunctionType) -> Iterator[Any]:
    """The objects that a function's code names: in its globals, and in your modules it imports."""
    names = _names(function.__code__)
    scopes = [function.__globals__]
    for name in names:
        for module in (name, f"{function.__globals__.get('__package__')}.{name}"):
            if module in sys.modules and _is_users(module):
                scopes.append(vars(sys.modules[module]))
    yield from _named(names, scopes)


def _named(names: set[str], scopes: list[dict[str, Any]]) -> Iterator[Any]:
    """The objects behind names in modules; libraries' modules, classes and functions aside."""
    seen: set[int] = set()
    while scopes:
        scope = scopes.pop()
        if id(scope) in seen:
            continue
        seen.add(id(scope))
        for name in names & scope.keys():
            value = scope[name]
            if _is_a(value, types.ModuleType):
                if _is_users(value.__name__):
                    scopes.append(vars(value))
            elif not _is_a(value, _CODE) or _is_users(value.__module__):
                yield value


def _names(code: types.CodeType) -> set[str]:
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found


def _is_users_function(function: types.FunctionType) -> bool:
    name = function.__globals__.get("__name__")
    known = sys.modules.get(name) if isinstance(name, str) else None
    return known is None or vars(known) is not function.__globals__ or _is_users(name)


def _is_users(module: str | None) -> bool:
    package = str(module).partition(".")[0]
    return package not in _LOCAL and package not in sys.stdlib_module_names and is_local(module)
