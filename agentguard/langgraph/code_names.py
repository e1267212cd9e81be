"""What code names: the globals, attributes and imports of a function, and whose code it is.

Names are read from the code as it was compiled; one that is computed at run time is not seen.
"""

from __future__ import annotations

import dis
import functools
import importlib
import importlib.util
import sys
import sysconfig
import types
from pathlib import Path
from typing import Any, NamedTuple

LIBRARIES = sys.stdlib_module_names | {
    "agentguard", "annotated_types", "anyio", "attr", "attrs", "cedarpy", "certifi", "cffi",
    "charset_normalizer", "click", "cryptography", "fsspec", "h11", "httpcore",
    "httpx", "idna", "jsonpatch", "jsonpointer", "jsonschema", "jsonschema_specifications",
    "langchain", "langchain_core", "langchain_protocol", "langgraph", "langgraph_sdk", "langsmith",
    "markdown_it", "mdurl", "orjson", "ormsgpack", "packaging", "psycopg", "psycopg_binary",
    "psycopg_pool", "pydantic", "pydantic_core", "pygments", "referencing", "requests",
    "requests_toolbelt", "rfc8785", "rich", "rpds", "shellingham", "sniffio", "tenacity", "typer",
    "typing_extensions", "typing_inspection", "urllib3", "uuid_utils", "websockets", "xxhash",
    "yaml", "zstandard",
}  # fmt: skip
"""The packages of which nothing is the user's: the standard library, agentguard, and what it and
its extras depend on. Of any other installed one `is_library` asks whether it knows LangChain."""

_INSTALLED = frozenset({"site-packages", "dist-packages"})
_STDLIB = Path(sysconfig.get_path("stdlib")).resolve()
_LANGCHAIN = ("langchain", "langchain_core", "langgraph")
_LOOKS_UP = frozenset({"globals", "vars", "getattr", "locals", "__dict__", "import_module"})


class CodeNames(NamedTuple):
    """What code names.

    Attributes:
        imports: modules, each with how many dots stand before it.
    """

    globals: frozenset[str]
    attributes: frozenset[str]
    imports: frozenset[tuple[str, int]]


@functools.lru_cache(maxsize=4096)
def names_in(code: types.CodeType) -> CodeNames:
    """What a function's code names, nested code included."""
    named, attributes, imports = set[str](), set[str](), set[tuple[str, int]]()
    texts = {each for each in code.co_consts if isinstance(each, str)}
    before: tuple[Any, Any] = (0, None)  # an import's level and names stand in front of it
    for step in dis.get_instructions(code):
        if step.opcode in dis.hasname:
            name = str(step.argval)
            if step.opname == "IMPORT_NAME":
                level, chosen = before
                level = level if isinstance(level, int) else 0
                chosen = chosen if isinstance(chosen, tuple) else ()
                imports |= {
                    (name, level),
                    *((f"{name}.{each}".strip("."), level) for each in chosen),
                }
            elif "GLOBAL" in step.opname or step.opname == "LOAD_NAME":
                named.add(name)
            else:
                attributes.add(name)
        before = (before[1], step.argval)
    if (named | attributes) & _LOOKS_UP:  # `globals()["tool_node"]` names it as well
        words = {text for text in texts if text.isidentifier()}
        named, attributes = named | words, attributes | words
        imports |= {(text, 0) for text in texts if text in sys.modules}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = names_in(constant)
            named |= inner.globals
            attributes |= inner.attributes
            imports |= inner.imports
    return CodeNames(frozenset(named), frozenset(attributes), frozenset(imports))


@functools.lru_cache(maxsize=4096)
def names_at_once(code: types.CodeType) -> CodeNames:
    """What code of an installed package names, where one name may stand for all three uses."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= names_at_once(constant).globals
    every = frozenset(names)
    return CodeNames(every, every, frozenset((name, level) for name in every for level in (0, 1)))


def imported_module(name: str, level: int, package: str, *, load: bool) -> types.ModuleType | None:
    """The module that an import in a function's body means.

    Args:
        load: import it now where nobody did yet; the function would.
    """
    try:
        full = importlib.util.resolve_name("." * level + name, package) if level else name
    except ImportError:
        return None
    if not full or is_library(full):
        return None
    known = sys.modules.get(full)
    if known is None and load:
        try:
            known = importlib.import_module(full)
        except (Exception, SystemExit):  # noqa: BLE001 - the function can't get it either
            return None
    return known


def package_of(module: str) -> str:
    """The package of a module, by its dotted name."""
    return module.partition(".")[0]


def is_library(module: str) -> bool:
    """Whether a module is no place of the user's tools.

    It belongs to what agentguard depends on; or it is installed, and no module of its package
    that is loaded knows LangChain, so that none can make or hold a tool by itself (a vendor's SDK).
    """
    top = package_of(module)
    if module == "__main__":
        return False
    if top in LIBRARIES:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and is_installed(file) and not _knows_langchain(top, len(sys.modules))


@functools.lru_cache(maxsize=1024)
def _knows_langchain(package: str, loaded: int) -> bool:
    """Whether any loaded module of a package names something of LangChain's."""
    for name, module in list(sys.modules.items()):
        if package_of(name) != package or not isinstance(module, types.ModuleType):
            continue
        for value in list(vars(module).values()):
            if isinstance(value, types.ModuleType):
                source = value.__name__
            elif isinstance(value, types.FunctionType | type):
                source = str(value.__module__)
            else:
                continue
            if package_of(source) in _LANGCHAIN:
                return True
    return False


@functools.lru_cache(maxsize=1024)
def is_installed(file: str) -> bool:
    """Whether a source file lies where packages are installed."""
    path = Path(file).resolve()
    return not _INSTALLED.isdisjoint(path.parts) or path.is_relative_to(_STDLIB)
