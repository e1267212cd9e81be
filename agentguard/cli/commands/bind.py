"""`agentguard bind`: a first draft of Bindings, from the tools of a module."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentguard.cli.context import import_object
from agentguard.cli.output import ERROR, Json, print_json, say, visible
from agentguard.errors import BindingError

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

_HEADER = """\
# Drafted from signatures: a guess. Before you use it, look at each line:
# - stage: where this tool belongs; an agent may only call tools of its own stages
# - assets: arguments that hold media files (the model will give asset ids instead)
# - texts: prompts and captions; plain: numbers, choices and short words, never a path
# - outputs: arguments the tool writes a file to (the guard fills them in)
# - destination: where bytes or texts go if they leave this machine, image APIs included
# - effect: idempotent, probeable or opaque, for whatever has an effect outside; with the first two
#   probe=function says after a crash whether it is there, else a person looks
# - mcp: pins what an MCP server says of its tool, which the chat model will read: read it first
# - local: the tool holds a client, or is of a library that the guard doesn't know: True if nothing
#   that it is given leaves this machine; else take it out and say destination=
"""


def bind(
    named: Annotated[
        str, typer.Argument(metavar="MODULE:TOOLS", help="A tool, or a list or dict of tools.")
    ],
    json_: Json = False,
) -> None:
    """Draft Bindings for plain tools, as Python source.

    The module is imported from the working directory. The draft is guessed from argument names
    and types: correct it, nothing uses it before you do.

    \b
    Example:
      $ agentguard bind tools.edit:TOOLS > bindings.py

    Next: correct bindings.py, give `bindings` to Guard.from_config(..., bindings=bindings),
    and run `agentguard doctor --bindings bindings:bindings`.
    """
    from agentguard.bindings.bound import draft, told

    module, found = import_object(named)
    drafts: list[dict[str, Any]] = []
    for index, tool in enumerate(_tools(named, found)):
        expression = _expression(module, named, tool, index, found)
        known: dict[str, Any] = {"tool": tool.name, "expression": expression}
        try:
            source = draft(tool, expression)
        except BindingError as error:
            drafts.append({**known, "error": str(error)})
            continue
        says = told(tool)
        drafts.append({**known, "source": source, **({"says": says} if says else {})})
    if json_:
        print_json(drafts)
    else:
        _print_source(named, drafts)
    failed = [one for one in drafts if "error" in one]
    if failed:
        for one in failed:
            say(f"error: {visible(one['error'])}", err=True)
        raise typer.Exit(ERROR)
    if not json_ and sys.stdout.isatty():
        say("Next: save it as bindings.py, correct it, then run", err=True)
        say("  agentguard doctor --bindings bindings:bindings", err=True)


def _tools(named: str, found: Any) -> list[BaseTool]:
    from langchain_core.tools import BaseTool
    from langchain_core.tools import tool as make_tool

    items = list(found.values()) if isinstance(found, dict) else found
    items = list(items) if isinstance(items, (list, tuple)) else [items]
    made = []
    for item in items:
        if isinstance(item, BaseTool):
            made.append(item)
        elif callable(item) and not isinstance(item, type):
            try:
                made.append(make_tool(item))
            except ValueError as error:
                raise BindingError(f"{named}: {error}") from error
        else:
            raise BindingError(
                f"{named}: got a {type(item).__name__}, expected LangChain tools or functions"
            )
    if not made:
        raise BindingError(f"{named} holds no tools")
    return made


def _expression(module: Any, named: str, tool: BaseTool, index: int, found: Any) -> str:
    function = getattr(tool, "func", None) or getattr(tool, "coroutine", None)
    for name, value in vars(module).items():
        if value is tool or (function is not None and value is function):
            return str(name)
    path = named.partition(":")[2]
    if isinstance(found, dict):
        return f"{path}[{list(found)[index]!r}]"
    return f"{path}[{index}]" if isinstance(found, (list, tuple)) else path


def _print_source(named: str, drafts: list[dict[str, Any]]) -> None:
    module = named.partition(":")[0]
    drafted = [one for one in drafts if "source" in one]
    names = sorted({re.split(r"[.\[]", one["expression"])[0] for one in drafted})
    used = ["Binding", *(name for name in ("Arg", "McpTool") if _uses(drafted, name))]
    lines = [_HEADER, f"from agentguard import {', '.join(sorted(used))}"]
    if names:
        lines += [f"from {module} import {', '.join(names)}"]
    lines += ["", "bindings = ["]
    for one in drafted:
        lines += [f"    # {visible(line, 2000)}" for line in one.get("says", ())]
        lines += [f"    {one['source']},"]
    lines += [f"    # {visible(one['error'])}" for one in drafts if "error" in one]
    typer.echo("\n".join([*lines, "]"]))


def _uses(drafts: list[dict[str, Any]], name: str) -> bool:
    return any(f"{name}(" in one["source"] for one in drafts)
